"""What the portrait's hair is like: the orientation of its strands, lifted to a surface, their order and contrast.

Source: structure tensors (Bigun and Granlund 1987).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from ...cameras import PANOHEAD_RADIUS, UNITS_PER_CM, Cameras
from ...head_model.anatomy import ramp
from ...portrait import Portrait
from ..labels.portrait_labels import PortraitLabels

OCTAVES_MM = (0.4, 0.8, 1.6, 3.3, 6.6)
"""Standard deviations of the blurs whose differences are the octaves of hair's detail, at the head's depth."""
_COSINES = (0.2, 0.6)
"""Between surface and view: below the first an orientation is not believed, above the second fully."""
_ORDER_PX, _BROAD_ORDER_PX, _COARSE_PX = 3.5, 14.0, 6.0
"""Over these distances orientation is averaged for the two measures of order and for the field, at 512 px."""
_LEAST_PIXELS = 400
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


@dataclass(frozen=True)
class SeenOrientation:
    """Orientation of strands in the portrait."""

    doubled: Float32[np.ndarray, "s s 2"]
    """Cosine and sine of twice the angle of strands, x to the right and y down, times `coherence`."""
    weight: Float32[np.ndarray, "s s"]
    """Coherence where hair is plainly seen, 0 elsewhere, [0, 1]."""

    @staticmethod
    def of(portrait: Portrait, labels: PortraitLabels) -> SeenOrientation:
        """What the portrait shows."""
        return SeenOrientation.of_picture(portrait.foreground_unit.astype(np.float32), _plain_hair(portrait, labels))

    @staticmethod
    def of_picture(rgb_unit: Float32[np.ndarray, "s s 3"], hair: Bool[np.ndarray, "s s"]) -> SeenOrientation:
        """What a picture shows where it shows hair.

        Args:
            rgb_unit: colour in [0, 1].
            hair: True on hair.
        """
        size = len(hair)
        px, mask = size / 512, hair.astype(np.float32)
        inner = cv2.erode(hair.astype(np.uint8), np.ones((max(3, size // 80),) * 2, np.uint8)).astype(np.float32)
        brightness = _log_brightness(rgb_unit)

        def blur(image: Float32[np.ndarray, "s s"], sigma: float) -> Float32[np.ndarray, "s s"]:
            return cv2.GaussianBlur(image, (0, 0), sigma * px)

        low = blur(brightness * mask, _COARSE_PX) / np.maximum(blur(mask, _COARSE_PX), 1e-3)
        detail = blur(np.clip((brightness - low) * mask, -0.6, 0.6), 0.8)
        coarse, energy = _doubled_angle(detail, inner, _COARSE_PX * px)
        energy = energy / np.maximum(blur(inner, _COARSE_PX), 1e-3)
        trust = inner * energy / (energy + np.float32(2e-5))
        return SeenOrientation(coarse, np.linalg.norm(coarse, axis=-1) * trust)

    def on_surface(
        self, camera: Cameras, points_world: Float[np.ndarray, "*n 3"], normals_world: Float[np.ndarray, "*n 3"]
    ) -> tuple[Float[np.ndarray, "*n 3"], Float[np.ndarray, "*n"]]:
        """Tangents (of no sign) at surface points whose projections run as the picture's strands, and their weights.

        Args:
            camera: the picture's.
            points_world: surface points.
            normals_world: their unit normals.
        """
        T = camera.T_camera_world[0].numpy()
        focal, principal = camera.focal_px[0].numpy(), camera.principal_px[0].numpy()
        first = unit(np.cross(normals_world, np.array([0.13, 0.21, 0.97])))
        second = np.cross(normals_world, first)
        in_camera = points_world @ T[:3, :3].T + T[:3, 3]
        x, y, depth = np.moveaxis(in_camera, -1, 0)

        def moved_px(tangent: Float[np.ndarray, "*n 3"]) -> list[np.ndarray]:
            """How the projection moves when the point moves along a tangent."""
            u, v, w = np.moveaxis(tangent @ T[:3, :3].T, -1, 0)
            return [focal[0] * (u * depth - x * w) / depth**2, focal[1] * (v * depth - y * w) / depth**2]

        (ax, ay), (bx, by) = moved_px(first), moved_px(second)
        column, row = focal[0] * x / depth + principal[0] - 0.5, focal[1] * y / depth + principal[1] - 0.5
        there = (column.astype(np.float32), row.astype(np.float32))
        cosine2, sine2 = (self._sampled(self.doubled[..., k], there) for k in range(2))
        weight = self._sampled(self.weight, there)
        angle = 0.5 * np.arctan2(sine2, cosine2)
        dx, dy = np.cos(angle), np.sin(angle)
        determinant = ax * by - ay * bx
        flat = np.abs(determinant) < 1e-3 * (focal[0] / depth) ** 2
        determinant = np.where(flat, np.inf, determinant)
        along = (dx * by - dy * bx) / determinant, (ax * dy - ay * dx) / determinant
        tangent = unit(along[0][..., None] * first + along[1][..., None] * second)
        to_camera = unit(camera.position_world[0].numpy() - points_world)
        weight = weight * ramp((normals_world * to_camera).sum(-1), *_COSINES)
        inside = (column >= 0) & (row >= 0) & (column <= len(self.weight) - 1) & (row <= len(self.weight) - 1)
        return tangent, np.where(inside & ~flat, weight, 0.0)

    @staticmethod
    def _sampled(image: Float32[np.ndarray, "s s"], there: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        image = np.ascontiguousarray(image, dtype=np.float32)
        found = cv2.remap(image, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return found.reshape(there[0].shape).astype(np.float64)


def _doubled_angle(
    detail: Float32[np.ndarray, "s s"], inner: Float32[np.ndarray, "s s"], sigma_px: float
) -> tuple[Float32[np.ndarray, "s s 2"], Float32[np.ndarray, "s s"]]:
    """Cosine and sine of twice the angle of strands, times their coherence, and the energy of gradients."""
    dx, dy = cv2.Scharr(detail, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(detail, cv2.CV_32F, 0, 1) / 32
    xx, yy, xy = (cv2.GaussianBlur(inner * p, (0, 0), sigma_px) for p in (dx * dx, dy * dy, dx * dy))
    # strands run across the gradient: their doubled angle is the gradient's, turned by a half circle
    total = np.maximum(xx + yy, 1e-8)
    return np.stack([yy - xx, -2 * xy], axis=-1) / total[..., None], total


@dataclass(frozen=True)
class SeenHair:
    """Order and contrast of hair that is plainly seen."""

    coherence: float
    """How alike directions are within some pixels, mean over the hair, [0, 1]."""
    broad_coherence: float
    """The same within a lock's width: low where hair curls."""
    wave_rad: float
    """Root mean square of the angle between what is seen and the smooth field, radians."""
    octaves: Float[np.ndarray, " 4"]
    """Standard deviations of log brightness between the blurs `OCTAVES_MM`, from quantiles: drawn lines and ornaments
    are no hair."""

    @staticmethod
    def of(portrait: Portrait, labels: PortraitLabels, wave_rad: float) -> SeenHair | None:
        """What the portrait shows; None where that is too little."""
        hair = _plain_hair(portrait, labels)
        return SeenHair.of_picture(portrait.foreground_unit.astype(np.float32), hair, portrait.head.camera, wave_rad)

    @staticmethod
    def of_picture(
        rgb_unit: Float32[np.ndarray, "s s 3"], hair: Bool[np.ndarray, "s s"], camera: Cameras, wave_rad: float
    ) -> SeenHair | None:
        """What a picture shows where it shows hair.

        Args:
            rgb_unit: colour in [0, 1].
            hair: True on hair.
            camera: the picture's.
            wave_rad: of the hair's directions.
        """
        px, mask = len(hair) / 512, hair.astype(np.float32)
        inner = cv2.erode(hair.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        if inner.sum() < _LEAST_PIXELS:
            return None
        brightness = _log_brightness(rgb_unit)

        def mean(sigma_px: float) -> Float32[np.ndarray, "s s"]:
            mass = cv2.GaussianBlur(mask, (0, 0), sigma_px)
            return cv2.GaussianBlur(brightness * mask, (0, 0), sigma_px) / np.maximum(mass, 1e-3)

        detail = (brightness - mean(_COARSE_PX * px)) * mask

        def order(sigma_px: float) -> float:
            doubled, _ = _doubled_angle(detail, inner.astype(np.float32), sigma_px)
            return float(np.linalg.norm(doubled, axis=-1)[inner].mean())

        px_per_mm = float(camera.focal_px[0, 0]) / PANOHEAD_RADIUS * UNITS_PER_CM / 10
        blurs = [mean(sigma_mm * px_per_mm) for sigma_mm in OCTAVES_MM]
        octaves = [usual_deviation((finer - coarser)[inner]) for finer, coarser in itertools.pairwise(blurs)]
        return SeenHair(order(_ORDER_PX * px), order(_BROAD_ORDER_PX * px), wave_rad, np.array(octaves))


def usual_deviation(values: Float[np.ndarray, " n"]) -> float:
    """Standard deviation of a normal distribution with the same first and last tenth."""
    low, high = np.quantile(values, (0.1, 0.9))
    return float(high - low) / 2.563


def _plain_hair(portrait: Portrait, labels: PortraitLabels) -> Bool[np.ndarray, "s s"]:
    """Pixels that are hair alone."""
    return labels.hair & (portrait.alpha_unit > 0.9) & portrait.inside


def _log_brightness(rgb_unit: Float32[np.ndarray, "s s 3"]) -> Float32[np.ndarray, "s s"]:
    return np.log(rgb_unit @ LUMINANCE + np.float32(0.03))


def unit(vectors: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Vectors of length 1; 0 stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def tangential(vectors: Float[np.ndarray, "*n 3"], normals: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """The part of vectors that lies in the surface with these unit normals."""
    return vectors - normals * (vectors * normals).sum(-1, keepdims=True)

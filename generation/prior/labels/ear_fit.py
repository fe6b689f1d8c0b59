"""Ears where the portrait shows them: no landmark lies on an ear, so that the fit puts everybody's at the same place.

The ears of the fitted head are drawn as the portrait's camera sees them and compared with the pixels that are labelled
so. What the two middles are apart moves both ears alike, and what they differ in height makes both larger or smaller,
within what human ears do; skin about them follows softly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import KDTree

from ...cameras import UNITS_PER_CM
from ...head_model import HeadModel
from ...mesh_raster import rasterize_mesh
from ...portrait import Portrait
from .portrait_labels import PortraitLabels, ear_vertices
from .segmenter import EAR

_LEAST_SEEN, _MOST_SEEN = 0.45, 2.2
"""An ear tells something if so much of what the fit expects of it is labelled so: less is hidden by hair, more is
something else."""
_LEAST_PX = 40
_NEAR = 1.3
"""Labels count within this many heights of the expected ear about its middle."""
_SPREAD_CM = np.array([0.15, 0.7, 0.7])
"""How far people's ears may lie from where the fit has them: outward, up, forward; a guess."""
_PIXEL_ERROR_CM = 0.25
"""How well the middle of a labelled ear is known."""
_MOST_SHIFT_CM = np.array([0.3, 1.5, 1.5])
_SIZES = (0.85, 1.2)
_FALLOFF_CM = 1.4
"""Skin follows the ear over this distance."""


@dataclass(frozen=True)
class EarPlacement:
    """How ears leave the place and size that the fit gave them; alike on both sides."""

    shift_world: Float[np.ndarray, " 3"]
    """Outward, up, forward; world units."""
    scale: float
    """Factor on their size."""

    @property
    def is_none(self) -> bool:
        """Nothing changes."""
        return self.scale == 1 and not self.shift_world.any()


NO_CHANGE = EarPlacement(np.zeros(3), 1.0)


def with_placed_ears(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> Portrait:
    """The portrait whose fitted head has its ears where they are labelled; as it is where none is plainly seen.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes.
        model: the head model of the fit.
    """
    placement = find_ears(portrait, labels, model)
    if placement.is_none:
        return portrait
    vertices = moved_ears(portrait.head.vertices_world, model, placement)
    return replace(portrait, head=replace(portrait.head, vertices_world=vertices))


def find_ears(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> EarPlacement:
    """How the ears of the fitted head have to change to lie on the labelled ones; arguments as above."""
    camera, vertices = portrait.head.camera, portrait.head.vertices_world
    is_ear = ear_vertices(model)
    fragments = rasterize_mesh(vertices, model.skin_faces, camera)
    ear_face = np.append(is_ear[model.skin_faces].all(1), False)
    side_of_face = np.append(np.sign(vertices[model.skin_faces].mean(1)[:, 0]), 0)
    labelled = labels.classes.argmax(-1) == EAR
    rows, equations, values, weights, sizes = np.indices(labelled.shape), [], [], [], []
    for side in (-1.0, 1.0):
        drawn = ear_face[fragments.triangle_index] & (side_of_face[fragments.triangle_index] == side)
        drawn = _largest_piece(drawn)  # as of what is labelled
        if drawn.sum() < _LEAST_PX:
            continue
        middle, height = _middle_and_height(drawn)
        near = np.hypot(rows[1] - middle[0], rows[0] - middle[1]) < _NEAR * height
        found = _largest_piece(labelled & near & portrait.inside)
        share = found.sum() / drawn.sum()
        if not _LEAST_SEEN < share < _MOST_SEEN:
            continue
        seen_middle, seen_height = _middle_and_height(found)
        depth = float(np.median(fragments.depth[drawn]))
        units_per_px = depth / camera.focal_px[0].numpy()
        T_camera_world = camera.T_camera_world[0].numpy()
        # the head's axes in the picture, x pointing out on this side
        equations.append(T_camera_world[:2, :3] * np.array([side, 1.0, 1.0]))
        values.append((seen_middle - middle) * units_per_px)
        weights.append(float(drawn.sum()))
        sizes.append(seen_height / height)
    if not values:
        return NO_CHANGE
    share = np.repeat(np.sqrt(np.array(weights) / max(weights)), 2)
    A = np.concatenate(equations) * share[:, None] / (_PIXEL_ERROR_CM * UNITS_PER_CM)
    b = np.concatenate(values) * share / (_PIXEL_ERROR_CM * UNITS_PER_CM)
    prior = np.diag(1 / (_SPREAD_CM * UNITS_PER_CM) ** 2)
    shift = np.linalg.solve(A.T @ A + prior, A.T @ b)
    most = _MOST_SHIFT_CM * UNITS_PER_CM
    size = float(np.clip(np.average(sizes, weights=weights), *_SIZES))
    return EarPlacement(np.clip(shift, -most, most), size)


def moved_ears(
    vertices_world: Float[np.ndarray, "v 3"], model: HeadModel, placement: EarPlacement
) -> Float[np.ndarray, "v 3"]:
    """Vertices with both ears moved and resized, skin about them softly along.

    Args:
        vertices_world: of the fitted head.
        model: the head model.
        placement: what changes.
    """
    result = vertices_world.copy()
    ears = ear_vertices(model)
    for side in (-1.0, 1.0):
        ear = vertices_world[ears & (np.sign(model.neutral[:, 0]) == side)]
        distance = KDTree(ear).query(vertices_world)[0] / (_FALLOFF_CM * UNITS_PER_CM)
        weight = np.clip(1 - distance, 0, 1)
        weight = (weight * weight * (3 - 2 * weight))[:, None]
        root = ear.mean(0) * np.array([0.97, 1.0, 1.0])  # ears grow out of the head
        grown = (placement.scale - 1) * (vertices_world - root)
        result += weight * (placement.shift_world * np.array([side, 1.0, 1.0]) + grown)
    return result


def _middle_and_height(mask: Bool[np.ndarray, "s s"]) -> tuple[Float[np.ndarray, " 2"], float]:
    """Middle (column, row) and height of a mask, pixels; a few stray pixels do not count."""
    row, column = np.nonzero(mask)
    low, high = np.percentile(row, (4, 96))
    return np.array([np.median(column), (low + high) / 2]) + 0.5, float(high - low) / 0.92


def _largest_piece(mask: Bool[np.ndarray, "s s"]) -> Bool[np.ndarray, "s s"]:
    count, pieces, figures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if count < 2:
        return mask
    return pieces == 1 + figures[1:, cv2.CC_STAT_AREA].argmax()

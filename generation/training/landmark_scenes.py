"""Pictures for the landmark networks: a shot placed anywhere in a square, warped, drawn or photographed, with truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from ..head_model.sparse_points import MIRRORED, FaceBox, face_box
from ..progress import Track, silent
from ..synthetic.assets import Split, asset_index
from ..synthetic.composed_recipe import sample_recipe
from ..synthetic.portraits.backgrounds import Backgrounds
from ..synthetic.portraits.cartoons import cartoon
from ..synthetic.portraits.looks import Look, by_hand, person_colours, photographed
from ..synthetic.portraits.true_landmarks import true_landmarks
from .shots import Shots

MOST_YAW_RAD = math.radians(100)
"""Heads turned further away have no face to be found."""


@dataclass(frozen=True)
class SceneLook(Look):
    """How pictures are made of shots; shares are probabilities."""

    recoloured: float = 0.6
    painted: float = 0.15
    drawn: float = 0.1
    photographed: float = 0.7
    cartoon: float = 0.5
    """Share of flat cartoons, drawn at the points."""
    warped: float = 0.6
    """Share of heads with other proportions: larger eyes, smaller chin, rounder head."""


PLAIN_SCENES = SceneLook(cartoon=0.0, warped=0.0, drawn=0.0, painted=0.0, random_convolution=0.0, shaded=0.0)
"""Looks of plain photographs."""


@dataclass(frozen=True)
class LabelledShots:
    """Shots and the points in them."""

    shots: Shots
    """The shots."""
    points_px: Float[np.ndarray, "n 69 2"]
    """Points, pixels of the shot."""
    toward_camera: Float[np.ndarray, "n 3"]
    """Unit directions from the heads to their cameras, in the heads' frames."""

    def __len__(self) -> int:
        return len(self.points_px)

    @property
    def yaw_rad(self) -> Float[np.ndarray, " n"]:
        """Azimuths of the cameras."""
        return np.arctan2(self.toward_camera[:, 0], self.toward_camera[:, 2])


@dataclass(frozen=True)
class LandmarkScene:
    """A square picture and the points of the head in it."""

    rgb: UInt8[np.ndarray, "s s 3"]
    """The picture."""
    points_px: Float[np.ndarray, "69 2"]
    """The head's points, pixels."""
    toward_camera: Float[np.ndarray, " 3"]
    """Unit direction from the head to the camera, head's frame; of the mirrored head if the picture was mirrored."""


def labelled_shots(shots: Shots, split: Split, data: Path, *, track: Track = silent) -> LabelledShots:
    """Project the true points of the shots' heads."""
    numbers = sorted({int(number) for number in shots.head})
    index = asset_index()
    points = {
        number: true_landmarks(sample_recipe(number, index, split), data)
        for number in track(numbers, total=len(numbers), description="Placing points")
    }
    rows, toward = [], []
    for k in range(len(shots)):
        _, camera = shots[k]
        rows.append(camera.project(torch.from_numpy(points[int(shots.head[k])]))[0, :, :2].numpy())
        position = camera.position_world[0].numpy()
        toward.append(position / np.linalg.norm(position))
    return LabelledShots(shots, np.stack(rows), np.stack(toward))


def make_scene(
    labelled: LabelledShots, index: int, target: FaceBox, backgrounds: Backgrounds, rng: np.random.Generator,
    size_px: int, look: SceneLook,
) -> LandmarkScene:  # fmt: skip
    """A picture with a shot's face in a given box.

    Args:
        target: where the face goes, pixels of the picture; warps may move it a little.
    """
    shots, points, toward = labelled.shots, labelled.points_px[index], labelled.toward_camera[index]
    images = [shots.rgb[index], shots.alpha[index], shots.labels[index]]
    mirrored = bool(rng.random() < look.mirrored)
    if mirrored:
        images = [np.ascontiguousarray(image[:, ::-1]) for image in images]
        points = (points * [-1, 1] + [images[1].shape[1], 0])[list(MIRRORED)]
        toward = toward * [-1, 1, 1]
    as_cartoon = bool(rng.random() < look.cartoon)
    warp = _Warp.draw(points, rng, 1.0 if as_cartoon else 0.5) if rng.random() < look.warped else None
    source = face_box(points)
    stretch = math.exp(rng.normal(0, 0.07 if as_cartoon else 0.03))
    turn = target.roll_rad - source.roll_rad
    c, s = math.cos(turn), math.sin(turn)
    linear = target.size_px / source.size_px * np.array([[c, -s], [s, c]]) @ np.diag([stretch, 1 / stretch])
    center = np.array(target.center_px)
    rgb, alpha, labels = _placed(images, linear, np.array(source.center_px), center, warp, size_px)
    points = ((points if warp is None else warp(points)) - source.center_px) @ linear.T + center

    background = backgrounds.draw(rng, size_px, person_colours(rgb, labels))
    if as_cartoon:
        rgb, points = cartoon(rgb, labels, background, points, toward, rng)
    else:
        rgb = by_hand(rgb, alpha, labels, background, look, rng)
    if rng.random() < (0.4 if as_cartoon else 1.0) * look.photographed:
        rgb = photographed(np.clip(rgb, 0, 1).astype(np.float32), rng)
    return LandmarkScene(np.round(255 * np.clip(rgb, 0, 1)).astype(np.uint8), points, toward)


def empty_scene(backgrounds: Backgrounds, rng: np.random.Generator, size_px: int) -> UInt8[np.ndarray, "s s 3"]:
    """A picture without anybody: a background, some with flat shapes and lines drawn on it."""
    rgb = backgrounds.draw(rng, size_px).astype(np.float32)
    if rng.random() < 0.5:
        rgb = np.ascontiguousarray(rgb)
        for _ in range(rng.integers(1, 12)):
            x, y = (int(v) for v in rng.uniform(0, size_px, 2))
            axes = (int(rng.uniform(1, size_px / 3)), int(rng.uniform(1, size_px / 3)))
            colour = (rng.uniform(0, 1, 3) if rng.random() < 0.6 else np.full(3, float(rng.choice([0, 1])))).tolist()
            thickness = -1 if rng.random() < 0.5 else int(rng.integers(1, 4))
            if rng.random() < 0.6:
                cv2.ellipse(rgb, (x, y), axes, rng.uniform(0, 180), 0, 360, colour, thickness, cv2.LINE_AA)
            else:
                cv2.rectangle(rgb, (x, y), (x + axes[0], y + axes[1]), colour, thickness, cv2.LINE_AA)
    if rng.random() < 0.5:
        rgb = photographed(np.clip(rgb, 0, 1).astype(np.float32), rng)
    return np.round(255 * np.clip(rgb, 0, 1)).astype(np.uint8)


@dataclass(frozen=True)
class _Warp:
    """A smooth map of the shot's plane: sums of bumps about the eyes, a narrower chin, a taller cranium, waves."""

    box: FaceBox
    eyes: Float[np.ndarray, "2 2"]
    eye_growth: float
    chin_growth: float
    crown_growth: float
    waves: Float[np.ndarray, "w 5"]

    @staticmethod
    def draw(points_px: Float[np.ndarray, "69 2"], rng: np.random.Generator, strength: float) -> _Warp:
        """A random map."""
        eyes = np.stack([points_px[24:36:2].mean(0), points_px[25:36:2].mean(0)])
        waves = np.column_stack(
            [rng.normal(0, 0.008 * strength, (3, 2)), rng.normal(0, 4, (3, 2)), rng.uniform(0, 6.3, 3)]
        )
        return _Warp(
            face_box(points_px), eyes, strength * rng.uniform(-0.2, 0.8), strength * rng.uniform(-0.35, 0.25),
            strength * rng.uniform(-0.1, 0.4), waves,
        )  # fmt: skip

    def __call__(self, p: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Where points go."""
        size = self.box.size_px
        out = p.astype(np.float64)
        for eye in self.eyes:
            away = p - eye
            near = np.exp(-(away**2).sum(-1, keepdims=True) / (0.2 * size) ** 2)
            out = out + 0.5 * self.eye_growth * near * away
        down = np.array([-math.sin(self.box.roll_rad), math.cos(self.box.roll_rad)])
        side = np.array([down[1], -down[0]])
        u = (p - np.array(self.box.center_px)) / size
        x, y = u @ side, u @ down
        low = np.clip(y / 0.5, 0, 1) * np.clip((0.9 - y) / 0.35, 0, 1)
        high = np.clip(-0.15 - y, 0, 1)
        out = out + (size * self.chin_growth * low * np.clip(x, -0.6, 0.6))[..., None] * side
        out = out - (size * self.crown_growth * high)[..., None] * down
        for ax, ay, fx, fy, phase in self.waves:
            wave = np.sin(fx * x + fy * y + phase)
            out = out + size * wave[..., None] * np.array([ax, ay])
        return out

    def inverse(self, q: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Where points come from, by fixed-point iteration."""
        p = q
        for _ in range(6):
            p = p + (q - self(p))
        return p


def _placed(
    images: list[np.ndarray], linear: Float[np.ndarray, "2 2"], origin: Float[np.ndarray, " 2"],
    center: Float[np.ndarray, " 2"], warp: _Warp | None, size_px: int,
) -> tuple[Float32[np.ndarray, "s s 3"], Float32[np.ndarray, "s s"], UInt8[np.ndarray, "s s"]]:  # fmt: skip
    """Colours, coverage and labels of a warped and placed shot; below and beside the shoulders its edge goes on."""
    side = images[1].shape[0]
    nodes = np.linspace(0.5, size_px - 0.5, 33)
    out = np.stack(np.meshgrid(nodes, nodes), axis=-1)
    coarse = (out - center) @ np.linalg.inv(linear).T + origin
    coarse = coarse if warp is None else warp.inverse(coarse)
    share = np.linspace(0, 32, size_px, dtype=np.float32)
    columns, rows = np.meshgrid(share, share)
    back = cv2.remap(coarse.astype(np.float32), columns, rows, cv2.INTER_LINEAR)
    x, y = back[..., 0] - 0.5, np.minimum(back[..., 1] - 0.5, side - 2.0)
    shoulders = y > 0.72 * side
    x = np.where(shoulders, np.clip(x, 1.0, side - 2.0), x)
    shrink = 1 / math.sqrt(abs(np.linalg.det(linear)))
    rgb, alpha, labels = images
    if shrink > 1.5:
        rgb, alpha = (cv2.GaussianBlur(image, (0, 0), 0.4 * shrink) for image in (rgb, alpha))
    maps = x.astype(np.float32), y.astype(np.float32)
    alpha = cv2.remap(alpha, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT).astype(np.float32) / 255
    colour = cv2.remap(rgb, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32) / 255
    best, label = np.where(alpha > 0.5, 0.0, 1e-3).astype(np.float32), np.zeros((size_px, size_px), np.uint8)
    for value in 1 + np.flatnonzero(np.bincount(labels.ravel(), minlength=2)[1:]):
        share = cv2.remap((labels == value).astype(np.float32), *maps, cv2.INTER_LINEAR)
        label = np.where(share > best, np.uint8(value), label)
        best = np.maximum(best, share)
    label = np.where(alpha > 0.5, label, np.uint8(0))
    return colour, alpha, label

"""Portraits of composed heads as the portrait preparation hands them on, with their truth.

A `PortraitShot` is the head alone as one camera sees it, with room to every side: it is what costs time, and what a
training set keeps. `finish_shot` makes a picture of it: crop as the alignment does it, with its errors, background,
other colours, painterly looks, a bad camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, UInt8

from ...cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS, Cameras, look_at_origin
from ...portrait.portrait import WIDE_FACTOR
from ..parts import FACE_LABELS, Label
from ..rendering.lighting import Lighting, random_lighting
from ..rendering.renderer import HeadScene
from .backgrounds import Backgrounds
from .looks import Look, by_hand, person_colours, photographed
from .stylise import draw_views

SHOT_FACTOR = 1.45
"""Side of a shot in units of the standard frame: the wide crop with its errors fits into it."""
MOST_CUT = 0.06
"""The standard frame may run through this much hair or hat, in units of its side."""
_MOST_SHIFT, _MOST_SCALE, _MOST_ROLL_DEG = 0.03, 0.06, 4.0
"""Largest errors of the crop: of its middle in units of its side, of its scale, and the roll added to the shot's."""
HEAD_LABELS = (*FACE_LABELS, Label.HAIR, Label.BEARD, Label.HEADGEAR)
"""What the frame should not cut."""


@dataclass(frozen=True)
class PortraitLook(Look):
    """How portraits are made of shots."""

    other_frame: float = 0.25
    """Share of crops of any size between standard and wide; the others follow the rule of `crop="auto"`."""
    colour_faults: float = 1.0
    """How much of these touches the colours; below 1 no picture is black and white."""
    cut: float = 0.22
    """Share of pictures that end inside the crop, whose edge is repeated as the preparation does it."""


@dataclass(frozen=True)
class PortraitShot:
    """A head without background, `SHOT_FACTOR` times the standard frame."""

    rgb: UInt8[np.ndarray, "s s 3"]
    """Straight sRGB; black where alpha is 0."""
    alpha: UInt8[np.ndarray, "s s"]
    """Coverage, 255 is opaque."""
    labels: UInt8[np.ndarray, "s s"]
    """`parts.Label`."""


@dataclass(frozen=True)
class PortraitSample:
    """An aligned portrait and its truth."""

    rgb: UInt8[np.ndarray, "s s 3"]
    """The picture with its background."""
    alpha_unit: Float32[np.ndarray, "s s"]
    """True coverage, [0, 1]; 0 outside the picture."""
    labels: UInt8[np.ndarray, "s s"]
    """`parts.Label`; background outside the picture."""
    inside: Bool[np.ndarray, "s s"]
    """Pixels that lie within the picture; the others repeat its edge."""
    camera: Cameras
    """The true camera of the crop (one); that of the mirror image if the picture was mirrored."""


def portrait_camera(rng: np.random.Generator, size_px: int) -> Cameras:
    """A portrait photographer's camera: before the face more often than beside it, any distance, a tilted head.

    Yaw within 42 degrees, pitch within 22, roll within 20; from 0.55 to 1.7 times the usual distance.

    Args:
        size_px: side of the shot; its frame is `SHOT_FACTOR` times the standard one.
    """
    yaw_deg = rng.uniform(-42, 42) if rng.random() < 0.35 else np.clip(rng.normal(0, 16), -42, 42)
    pitch_deg = float(np.clip(rng.normal(1, 8), -22, 22))
    roll = math.radians(float(np.clip(rng.normal(0, 6), -20, 20)))
    distance = PANOHEAD_RADIUS * float(np.exp(rng.uniform(math.log(0.55), math.log(1.7))))
    camera = look_at_origin(
        [math.radians(float(yaw_deg))], [math.radians(pitch_deg)], size_px=size_px, radius=distance,
        focal_normalised=PANOHEAD_FOCAL_NORMALISED * distance / PANOHEAD_RADIUS / SHOT_FACTOR,
    )  # fmt: skip
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    return Cameras(camera.T_world_camera @ turn, camera.focal_px, camera.principal_px, size_px, size_px)


def take_shot(
    scene: HeadScene, style: str, backgrounds: Backgrounds, rng: np.random.Generator, size_px: int
) -> tuple[PortraitShot, Cameras]:
    """The head alone from a random camera in random light, and that camera.

    Args:
        style: how it is drawn, a name of `stylise.STYLES`.
        backgrounds: their panoramas light the head in two of three shots.
    """
    camera = portrait_camera(rng, size_px)
    return shoot(scene, style, camera, random_lighting(rng, backgrounds.panoramas)), camera


def shoot(scene: HeadScene, style: str, camera: Cameras, lighting: Lighting) -> PortraitShot:
    """The head alone as one camera sees it in a given light."""
    views = draw_views(scene, style, camera, lighting)
    rgba = views.rgba[0]
    return _with_longer_torso(PortraitShot(rgba[..., :3], rgba[..., 3], views.labels[0]))


def finish_shot(
    shot: PortraitShot, camera: Cameras, backgrounds: Backgrounds, rng: np.random.Generator, size_px: int,
    look: PortraitLook | None = None,
) -> PortraitSample:  # fmt: skip
    """A portrait out of a shot.

    Args:
        look: how; None takes `PortraitLook()`.
    """
    look = look or PortraitLook()
    A, crop_camera = _crop(shot, camera, rng, size_px, look)
    flags = cv2.INTER_AREA if size_px < len(shot.rgb) / SHOT_FACTOR else cv2.INTER_LINEAR

    def cropped(picture: np.ndarray, flags: int) -> np.ndarray:
        return cv2.warpAffine(picture, A, (size_px, size_px), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    alpha = cropped(shot.alpha, flags) / np.float32(255)
    rgb = cropped(shot.rgb.astype(np.float32) * (shot.alpha[..., None] / np.float32(255 * 255)), flags)
    rgb /= np.maximum(alpha, 1e-3)[..., None]
    labels = cropped(shot.labels, cv2.INTER_NEAREST)
    background = backgrounds.draw(rng, size_px, person_colours(rgb, labels))
    rgb = by_hand(rgb, alpha, labels, background, look, rng)
    if rng.random() < look.photographed:
        rgb = photographed(np.clip(rgb, 0, 1).astype(np.float32), rng, look.colour_faults)
    picture = np.round(255 * np.clip(rgb, 0, 1)).astype(np.uint8)
    inside = np.ones((size_px, size_px), bool)
    if rng.random() < look.cut:
        picture, inside = _cut(picture, rng)
    return PortraitSample(
        picture, np.where(inside, alpha, np.float32(0)), np.where(inside, labels, np.uint8(Label.BACKGROUND)), inside,
        crop_camera,
    )  # fmt: skip


def _crop(
    shot: PortraitShot, camera: Cameras, rng: np.random.Generator, size_px: int, look: PortraitLook
) -> tuple[np.ndarray, Cameras]:
    """Affine map to the crop from the shot, and the crop's camera."""
    if rng.random() < look.other_frame:
        factor = rng.uniform(1, WIDE_FACTOR)
    else:
        factor = WIDE_FACTOR if _cut_by_standard_frame(shot) > MOST_CUT else 1.0
    scale = SHOT_FACTOR * size_px / len(shot.rgb) / factor * (1 + rng.uniform(-1, 1) * _MOST_SCALE)
    shift = rng.uniform(-1, 1, 2) * _MOST_SHIFT * size_px
    roll = math.radians(rng.uniform(-1, 1) * _MOST_ROLL_DEG)
    mirrored = bool(rng.random() < look.mirrored)
    turn = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    mirror = np.diag([-1.0 if mirrored else 1.0, 1.0])
    linear = scale * turn @ mirror
    middle = camera.principal_px[0].numpy()
    # u' = linear (u - middle) + size / 2 + shift, in pixel-centre coordinates; OpenCV's pixel centres are integers
    offset = size_px / 2 + shift - linear @ middle
    A = np.concatenate([linear, (offset + linear @ [0.5, 0.5] - 0.5)[:, None]], axis=1)
    T = camera.T_world_camera.clone()
    if mirrored:  # the camera that sees the mirrored head as the mirrored picture shows it
        flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
        T = flip @ T @ flip
    back = torch.eye(4, dtype=torch.float64)
    back[:2, :2] = torch.from_numpy(turn.T)
    principal = torch.from_numpy(size_px / 2 + shift)[None]
    return A, Cameras(T @ back, camera.focal_px * scale, principal, size_px, size_px)


def torso_bottom(
    labels: UInt8[np.ndarray, "s s"], covered: Bool[np.ndarray, "s s"]
) -> tuple[Int[np.ndarray, " s"], Bool[np.ndarray, " s"]]:
    """Of each column the lowest covered row (-1: none), and whether the torso ends there."""
    size = len(labels)
    lowest = np.where(covered, np.arange(size)[:, None], -1).max(0)
    at_lowest = labels[np.maximum(lowest, 0), np.arange(size)]
    return lowest, (lowest > 0.6 * size) & np.isin(at_lowest, (Label.CLOTH, Label.NECK, Label.HAIR))


def _with_longer_torso(shot: PortraitShot) -> PortraitShot:
    """The shot with its torso mirrored downwards to the frame: heads end at the chest, people do not."""
    size = len(shot.labels)
    rows = np.arange(size)[:, None]
    covered = shot.alpha > 127
    lowest, torso = torso_bottom(shot.labels, covered)
    edge = np.where(torso, lowest - max(2, size // 120), size)[None]  # the rim itself is half clear and frayed
    source = np.where(rows > edge, np.maximum(2 * edge - rows, 0), rows)
    columns = np.broadcast_to(np.arange(size), source.shape)
    inside = covered[source, columns] | (rows <= edge)
    source = np.where(inside, source, np.broadcast_to(edge, source.shape))
    return PortraitShot(shot.rgb[source, columns], shot.alpha[source, columns], shot.labels[source, columns])


def _cut_by_standard_frame(shot: PortraitShot) -> float:
    """How much of the standard frame's edge runs through hair, hat or face, in units of its side."""
    size = len(shot.labels)
    first = round(size * (1 - 1 / SHOT_FACTOR) / 2)
    last = size - 1 - first
    edge = np.zeros((size, size), bool)
    edge[first, first : last + 1] = True
    edge[first : round(0.72 * size), (first, last)] = True
    head = np.isin(shot.labels, HEAD_LABELS)
    return float((edge & head).sum()) / (last - first)


def _cut(
    picture: UInt8[np.ndarray, "s s 3"], rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
    """Let the source picture end inside the crop; what lies beyond repeats its edge."""
    size = len(picture)
    left, top, right, bottom = (
        int(size * rng.uniform(0.01, most)) if rng.random() < 0.45 else 0 for most in (0.2, 0.2, 0.2, 0.12)
    )
    rows, columns = slice(top, size - bottom), slice(left, size - right)
    inside = np.zeros((size, size), bool)
    inside[rows, columns] = True
    padding = ((top, bottom), (left, right), (0, 0))
    return np.pad(picture[rows, columns], padding, mode="edge"), inside

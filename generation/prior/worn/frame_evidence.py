"""Where a portrait shows frames of glasses: whether there are any, and how likely each pixel is wire or lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from ...cameras import UNITS_PER_CM, Cameras
from ...head_model.anatomy import world_units
from ...portrait import Portrait
from ..labels.portrait_labels import PortraitLabels, project_px
from ..labels.segmenter import ACCESSORY, BROW, FACE, GLASSES
from .frame_shape import WearersFace

_AT_EYE = (0.58, 0.42)
"""Half the size of what counts as being at an eye: across and up or down, in distances of the eyes."""
_AROUND, _AROUND_LOWER = (1.35, 0.75), 0.15
"""Half the size of where frames are looked for, likewise, and how far below the eyes its middle is: readers wear their
glasses low."""
_LEAST_SHARE = 0.0105
"""Glasses are worn if pixels of frames at the eyes, each counted by its probability, are more than this share of the
squared distance of the eyes. Of 120 photographed heads the faintest wearer has 0.0112 and two others have up to 0.0119,
whom `fit_glasses` tells by the bridge; all other wearers are above 0.038, all others below 0.006."""
_CHEEKS, _PLAIN = (0.9, 1.1), 0.8
"""Half the size of where plain skin about the eyes is, in distances of the eyes, and how surely it is the face's."""
_LEAST_SIDE = 0.12
"""Either eye has at least this share of these pixels; both cannot be seen in strong yaw, and then one is enough."""
_STRONG_YAW_RAD = 0.5
_COUNTED = 0.05
"""Pixels count for the share from this probability on."""
_LENS_CM, _LEAST_LENS_CM2 = 0.95, 3.5
"""A disc of this diameter fits nowhere into a wire; a lens is opaque only where it fits over an area of this size."""
_HIDDEN_EYE = 0.58
"""And only where the opening of an eye is glasses by this probability: thick rims run together at a small scale, but
eyes are seen within them. Of 29 composed wearers of validation and training clear lenses have up to 0.48, and those
that let less than a quarter through 0.74 and more; eyes are seen through what lies between."""
_WIRE_CM = 0.55
"""Wires are thinner than this."""
OPAQUE_EDGE_CM = 0.5 * _WIRE_CM
"""Of what is opaque so much from the edge on is taken for wire."""
_CONTRAST = 0.17
"""Difference in brightness, of 1, by which a dark line is a wire for certain if the segmenter sees one nearby."""
_GATE, _LEAST_GATE = 0.25, 0.12
"""Lines count in full where the segmenter's probability nearby reaches the first, not at all below the second."""
_LINE_BLUR_CM = 0.07
"""Deviation of the Gaussian that lines are blurred with, so that they are found from nearby."""
_OPENED, _OPENED_BLUR_CM = 2.0, 0.15
"""How much less than none a line in the opening of an eye counts, and the deviation of the Gaussian it ends with."""
_LID_CM = 0.28
"""Lines this near to the opening of an eye are lashes and lids; as near to a brow they are hairs."""
EYE_LANDMARKS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
"""mediapipe's outlines of the two eyes, in order."""
_BROW_LANDMARKS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
"""And of the brows."""


@dataclass(frozen=True)
class FrameEvidence:
    """What speaks for frames of glasses in a portrait."""

    wire: Float32[np.ndarray, "s s"]
    """How likely each pixel is a wire, or the edge of an opaque lens, [0, 1]; 0 away from the eyes."""
    line: Float32[np.ndarray, "s s"]
    """How far each pixel lies on a thin dark line, wherever it comes from, [0, 1]; 0 on brows and lids, and negative
    where an eye is open: it is seen, and no wire runs there."""
    worn: Float32[np.ndarray, "s s"]
    """How likely each pixel is frame or opaque lens, as the segmenter says; 0 away from the eyes."""
    plain: Float32[np.ndarray, "s s"]
    """How far each pixel is away from brows and lids, whose dark lines are no wires, [0, 1]."""
    opaque: bool
    """Nothing is seen through the lenses."""
    px_per_cm: float
    """Scale at the eyes."""
    strokes: float
    """Mean likelihood of a dark line over cheeks and forehead, [0, 1]: painted faces are full of them."""


def find_frame(
    portrait: Portrait, labels: PortraitLabels, face: WearersFace, landmarks_px: Float[np.ndarray, "l 2"]
) -> FrameEvidence | None:
    """What speaks for glasses at the eyes; None where they are bare.

    Jewellery counts as well: at the eyes there is none, and the segmenter takes thin frames for it.

    Args:
        portrait: aligned portrait.
        labels: its classes.
        face: of the fitted head.
        landmarks_px: mediapipe's landmarks in the portrait.
    """
    camera = portrait.head.camera
    px_per_cm = scale_at(camera, face)
    eyes = project_px(camera, world_units(face.eyes_cm))
    distance = float(np.linalg.norm(face.eyes_cm[1] - face.eyes_cm[0])) * px_per_cm
    across = eyes[1] - eyes[0]
    across = across / max(float(np.linalg.norm(across)), 1e-6)
    y, x = np.mgrid[: portrait.size_px, : portrait.size_px] + 0.5

    def near(middle: np.ndarray, half: tuple[float, float]) -> Bool[np.ndarray, "s s"]:
        dx, dy = x - middle[0], y - middle[1]
        along, down = dx * across[0] + dy * across[1], dy * across[0] - dx * across[1]
        return (np.abs(along) < half[0] * distance) & (np.abs(down) < half[1] * distance)

    worn = labels.classes[..., GLASSES] + labels.classes[..., ACCESSORY]
    counted = np.where(worn > _COUNTED, worn, 0)
    shares = np.array([float(counted[near(eye, _AT_EYE)].sum()) / distance**2 for eye in eyes])
    one_sided = abs(float(camera.azimuth_rad[0])) > _STRONG_YAW_RAD
    if shares.sum() < _LEAST_SHARE or (shares.min() < _LEAST_SIDE * shares.sum() and not one_sided):
        return None
    lower = eyes.mean(0) + _AROUND_LOWER * distance * np.array([-across[1], across[0]])
    worn = np.where(near(lower, _AROUND), worn, 0).astype(np.float32)
    solid = (worn > 0.5).astype(np.uint8)
    lens = cv2.morphologyEx(solid, cv2.MORPH_OPEN, _disc(_LENS_CM * px_per_cm))
    areas = [int((lens > 0)[near(eye, _AT_EYE)].sum()) / px_per_cm**2 for eye in eyes]
    openings = [outlined(landmarks_px, [outline], portrait.size_px) > 0 for outline in EYE_LANDMARKS]
    hidden = any(float(worn[opening].mean()) > _HIDDEN_EYE for opening in openings if opening.any())
    opaque = max(areas) > _LEAST_LENS_CM2 and hidden
    lines = _lines(portrait, px_per_cm)
    skin = (labels.classes[..., FACE] > _PLAIN) & near(lower, _CHEEKS) & ~near(lower, (_CHEEKS[0], _AROUND[1] / 2))
    strokes = float(lines[skin].mean()) if skin.any() else 0.0
    away = _away_from_eyes(labels, landmarks_px, px_per_cm)
    if opaque:
        inner = cv2.erode(solid, _disc(2 * OPAQUE_EDGE_CM * px_per_cm))
        wire = np.where(inner > 0, 0, worn)
        return FrameEvidence(wire.astype(np.float32), wire.astype(np.float32), worn, away, True, px_per_cm, strokes)
    line = (lines * away).astype(np.float32)
    nearby = cv2.dilate(worn, _disc(0.35 * px_per_cm))
    gate = np.clip((nearby - _LEAST_GATE) / (_GATE - _LEAST_GATE), 0, 1)
    blurred = cv2.GaussianBlur(line, (0, 0), _LINE_BLUR_CM * px_per_cm)
    wire = np.maximum(worn, line * gate).astype(np.float32)
    opened = np.logical_or(*openings).astype(np.float32)
    opened = cv2.GaussianBlur(opened, (0, 0), _OPENED_BLUR_CM * px_per_cm)
    return FrameEvidence(wire, np.maximum(blurred, worn) - _OPENED * opened, worn, away, False, px_per_cm, strokes)


def scale_at(camera: Cameras, face: WearersFace) -> float:
    """Pixels per centimetre at the eyes."""
    depth = camera.project(camera.T_world_camera.new_tensor(world_units(face.eyes_cm)))[0, :, 2].mean()
    return float(camera.focal_px[0, 0] / depth) * UNITS_PER_CM


def outlined(
    landmarks_px: Float[np.ndarray, "l 2"], outlines: Sequence[Sequence[int]], size: int
) -> UInt8[np.ndarray, "s s"]:
    """1 within outlines given by numbers of landmarks, else 0."""
    inside = np.zeros((size, size), np.uint8)
    for outline in outlines:
        cv2.fillPoly(inside, [np.round(landmarks_px[list(outline)]).astype(np.int32)], (1,))
    return inside


def _lines(portrait: Portrait, px_per_cm: float) -> Float32[np.ndarray, "s s"]:
    """Thin dark lines: the segmenter works at half the portrait's resolution and misses fine wires."""
    grey = portrait.foreground_unit.mean(-1).astype(np.float32)
    line = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, _disc(_WIRE_CM * px_per_cm)) / np.float32(_CONTRAST)
    return np.clip(line, 0, 1)


def _away_from_eyes(
    labels: PortraitLabels, landmarks_px: Float[np.ndarray, "l 2"], px_per_cm: float
) -> Float32[np.ndarray, "s s"]:
    """How far pixels are none of brows and lids."""
    lids = outlined(landmarks_px, (*EYE_LANDMARKS, *_BROW_LANDMARKS), len(labels.hair))
    lids = cv2.dilate(lids, _disc(2 * _LID_CM * px_per_cm))
    return ((1 - labels.classes[..., BROW]) * (1 - lids)).astype(np.float32)


def _disc(diameter_px: float) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, round(diameter_px / 2)) + 1,) * 2)


def sampled(picture: Float32[np.ndarray, "s s *c"], px: Float[np.ndarray, "*n 2"]) -> Float32[np.ndarray, "*n *c"]:
    """Bilinear look-up of pixel positions (centres at +0.5); the edge is repeated."""
    flat = px.reshape(-1, 1, 2).astype(np.float32) - np.float32(0.5)
    values = cv2.remap(picture, flat[..., 0], flat[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return values.reshape(*px.shape[:-1], *picture.shape[2:])

"""What of a head its picture does not show, said in sentences: cut by the edge, turned away, blurred, covered.

Thresholds come from portraits of people and paintings, sharp and blurred on purpose: none of the sharp ones is doubted.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from ..head_model import HeadFit
from .matte import HeadZones

_CUT_HEAD_CM, _CUT_HAIR_CM = 0.7, 3.0
"""The fitted head reaches beyond the picture by this much, or hair is cut over this length, before it is told."""
_SIDE_RAD = math.radians(65)
"""From here on a face is seen from the side; fits of profiles are a few degrees short."""
_FINE_CM, _COARSE_CM, _BAND = 0.08, 0.32, 1.6
"""Sizes of detail that are compared on the face, centimetres, and how wide each band of sizes is."""
_LEAST_FINE = 0.05
"""Least contrast of fine detail in units of that of coarse detail: sharp faces have 0.19 and more; blurred by 2 mm or
more they have less than 0.04."""
_LIPS = (61, 291, 0, 17, 37, 267, 84, 314)
"""Landmarks round the lips."""
_LEAST_LIGHT, _LEAST_RED = 9.0, 3.0
"""Standard deviations of lightness and of red against green (CIELAB) that a mouth has at least: lips, teeth and the
line between them; what covers it is plainer."""


def doubts_about(
    rgb: UInt8[np.ndarray, "s s 3"],
    alpha_unit: Float32[np.ndarray, "s s"],
    inside: Bool[np.ndarray, "s s"],
    landmarks_px: Float[np.ndarray, "478 3"] | None,
    head: HeadFit,
    zones: HeadZones,
    *,
    is_small: bool = False,
) -> tuple[str, ...]:
    """Sentences about what has to be made up beyond the usual, for the crop of a portrait; mostly none.

    Args:
        inside: pixels that lie within the source picture.
        landmarks_px: None where the face was not found by its landmarks.
        is_small: whether the head has so few pixels that this was told already; then it is blurred for that reason.
    """
    told = []
    sides = _cut_sides(alpha_unit, inside, zones)
    if sides:
        told.append(f"The picture's edge cuts the head off {' and '.join(sides)}; what lies beyond it is made up.")
    if abs(float(head.camera.azimuth_rad[0])) > _SIDE_RAD:
        told.append("The face is seen from the side; its far half is made up.")
    if landmarks_px is not None:
        lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32) * [100 / 255, 1, 1] - [0, 128, 128]
        if _is_blurred(lab[..., 0].astype(np.float32), zones.core & inside, zones.cm_px):
            if not is_small:
                told.append("The face is blurred in the picture, and the head is as soft; fine detail is made up.")
        elif _is_plain(lab, landmarks_px[list(_LIPS), :2], inside):
            told.append("The mouth is covered, by a hand or a mask perhaps; the face below is made up.")
    return tuple(told)


def _cut_sides(alpha_unit: Float32[np.ndarray, "s s"], inside: Bool[np.ndarray, "s s"], zones: HeadZones) -> list[str]:
    """Where the picture ends before the head does, as words."""
    person = (alpha_unit > 0.5) & zones.above_chin
    sides = []
    for turns, word, hair_counts in (
        (0, "above", True),
        (1, "on the right", True),
        (3, "on the left", True),
        (2, "below", False),
    ):
        within, head, hair = (np.rot90(mask, turns) for mask in (inside, zones.head, person))
        rows = np.flatnonzero(within.any(axis=1))
        first, head_rows = int(rows[0]), np.flatnonzero(head.any(axis=1))
        if first == 0 or not len(head_rows):
            continue
        beyond_cm = (first - int(head_rows[0])) / zones.cm_px
        edge_cm = float(hair[min(first + 1, len(hair) - 1)].sum()) / zones.cm_px if hair_counts else 0.0
        if beyond_cm > _CUT_HEAD_CM or edge_cm > _CUT_HAIR_CM:
            sides.append(word)
    return sides


def _is_blurred(lightness: Float32[np.ndarray, "s s"], face: Bool[np.ndarray, "s s"], cm_px: float) -> bool:
    """Whether fine detail on the face has much less contrast than coarse detail."""

    def contrast(size_cm: float) -> float:
        fine, coarse = (cv2.GaussianBlur(lightness, (0, 0), k * size_cm * cm_px) for k in (1.0, _BAND))
        return float(np.square(fine - coarse)[face].mean())

    return bool(face.any()) and contrast(_FINE_CM) < _LEAST_FINE * contrast(_COARSE_CM)


def _is_plain(
    lab: Float[np.ndarray, "s s 3"], outline_px: Float[np.ndarray, "p 2"], inside: Bool[np.ndarray, "s s"]
) -> bool:
    """Whether there is no mouth to be seen inside an outline."""
    mask = np.zeros(inside.shape, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(outline_px.astype(np.float32)).astype(np.int32), (1,))
    mouth = lab[(mask > 0) & inside]
    if len(mouth) < 0.5 * mask.sum() or not len(mouth):
        return False  # most of it lies beyond the edge, which is told already
    lightness, red, _ = mouth.std(axis=0)
    return bool(lightness < _LEAST_LIGHT and red < _LEAST_RED)

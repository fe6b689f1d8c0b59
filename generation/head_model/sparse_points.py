"""Sixty-nine named points of a head: those that the landmark network finds and the sparse fit knows on the model.

The first 59 are landmarks of mediapipe's face mesh, whose places on the model are known; the others are vertices of the
model: ears and skull. Names end in `_r` and `_l` for the head's right (-x) and left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from .model import HeadModel

_POINTS: tuple[tuple[str, Literal["mediapipe", "vertex"], int], ...] = (
    ("forehead", "mediapipe", 10), ("forehead_r", "mediapipe", 109), ("forehead_l", "mediapipe", 338),
    ("temple_upper_r", "mediapipe", 54), ("temple_upper_l", "mediapipe", 284), ("temple_r", "mediapipe", 162),
    ("temple_l", "mediapipe", 389), ("cheekbone_side_r", "mediapipe", 234), ("cheekbone_side_l", "mediapipe", 454),
    ("jaw_upper_r", "mediapipe", 132), ("jaw_upper_l", "mediapipe", 361), ("jaw_angle_r", "mediapipe", 172),
    ("jaw_angle_l", "mediapipe", 397), ("jaw_side_r", "mediapipe", 150), ("jaw_side_l", "mediapipe", 379),
    ("jaw_front_r", "mediapipe", 176), ("jaw_front_l", "mediapipe", 400), ("chin", "mediapipe", 152),
    ("brow_outer_r", "mediapipe", 70), ("brow_outer_l", "mediapipe", 300), ("brow_middle_r", "mediapipe", 105),
    ("brow_middle_l", "mediapipe", 334), ("brow_inner_r", "mediapipe", 107), ("brow_inner_l", "mediapipe", 336),
    ("eye_outer_r", "mediapipe", 33), ("eye_outer_l", "mediapipe", 263), ("eyelid_upper_outer_r", "mediapipe", 160),
    ("eyelid_upper_outer_l", "mediapipe", 387), ("eyelid_upper_inner_r", "mediapipe", 158),
    ("eyelid_upper_inner_l", "mediapipe", 385), ("eye_inner_r", "mediapipe", 133), ("eye_inner_l", "mediapipe", 362),
    ("eyelid_lower_inner_r", "mediapipe", 153), ("eyelid_lower_inner_l", "mediapipe", 380),
    ("eyelid_lower_outer_r", "mediapipe", 144), ("eyelid_lower_outer_l", "mediapipe", 373),
    ("nose_root", "mediapipe", 168), ("nose_bridge", "mediapipe", 6), ("nose_ridge", "mediapipe", 195),
    ("nose_tip", "mediapipe", 4), ("nose_base", "mediapipe", 2), ("nose_wing_r", "mediapipe", 64),
    ("nose_wing_l", "mediapipe", 294), ("nostril_r", "mediapipe", 98), ("nostril_l", "mediapipe", 327),
    ("mouth_r", "mediapipe", 61), ("mouth_l", "mediapipe", 291), ("lip_upper_r", "mediapipe", 39),
    ("lip_upper_l", "mediapipe", 269), ("lip_top", "mediapipe", 0), ("lip_bottom", "mediapipe", 17),
    ("lip_lower_r", "mediapipe", 181), ("lip_lower_l", "mediapipe", 405), ("lips_upper_inner", "mediapipe", 13),
    ("lips_lower_inner", "mediapipe", 14), ("cheek_upper_r", "mediapipe", 50), ("cheek_upper_l", "mediapipe", 280),
    ("cheek_lower_r", "mediapipe", 205), ("cheek_lower_l", "mediapipe", 425), ("ear_top_r", "vertex", 7571),
    ("ear_top_l", "vertex", 6844), ("ear_lobe_r", "vertex", 7850), ("ear_lobe_l", "vertex", 7123),
    ("ear_back_r", "vertex", 7950), ("ear_back_l", "vertex", 7223), ("crown", "vertex", 10548),
    ("occiput", "vertex", 10335), ("side_r", "vertex", 9837), ("side_l", "vertex", 9859),
)  # fmt: skip
POINT_NAMES = tuple(name for name, _, _ in _POINTS)
"""Names of the points, in the order of all arrays of points."""
POINT_COUNT = len(_POINTS)
"""Number of points."""
MIRRORED = tuple(POINT_NAMES.index({"_r": f"{n[:-2]}_l", "_l": f"{n[:-2]}_r"}.get(n[-2:], n)) for n in POINT_NAMES)
"""For each point the one on the other side of the head; itself for those of the middle."""
FACE_POINTS = tuple(k for k, (_, kind, _) in enumerate(_POINTS) if kind == "mediapipe")
"""Points of the face, without ears and skull: their bounding box is the face's box."""
FOREHEAD, CHIN = POINT_NAMES.index("forehead"), POINT_NAMES.index("chin")
"""Ends of the axis that tells a face's roll."""


@dataclass(frozen=True)
class FaceBox:
    """Where a face lies in a picture."""

    center_px: tuple[float, float]
    """Middle of the bounding box of the face's points, pixels."""
    size_px: float
    """Its longer side, pixels."""
    roll_rad: float
    """Direction from forehead to chin: 0 upright, positive clockwise as seen."""


def face_box(points_px: Float[np.ndarray, "69 2"]) -> FaceBox:
    """The face's box from its points in the picture."""
    face = points_px[list(FACE_POINTS)]
    low, high = face.min(0), face.max(0)
    down = points_px[CHIN] - points_px[FOREHEAD]
    x, y = (low + high) / 2
    return FaceBox((float(x), float(y)), float((high - low).max()), float(np.arctan2(-down[0], down[1])))


def point_weights(model: HeadModel) -> tuple[Int[np.ndarray, "69 3"], Float[np.ndarray, "69 3"]]:
    """Three vertices of the model and their weights for each point."""
    vertices, weights = np.zeros((POINT_COUNT, 3), np.int64), np.zeros((POINT_COUNT, 3))
    for k, (_, kind, index) in enumerate(_POINTS):
        if kind == "mediapipe":
            vertices[k], weights[k] = model.landmark_vertices[index], model.landmark_weights[index]
        else:
            vertices[k], weights[k] = index, (1.0, 0.0, 0.0)
    return vertices, weights


def sparse_points(model: HeadModel, vertices_world: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "69 3"]:
    """The points on a head given by the model's vertices, world units."""
    vertices, weights = point_weights(model)
    return (vertices_world[vertices] * weights[..., None]).sum(1)

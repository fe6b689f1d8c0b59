"""Sixty-nine named points of a head: those that the landmark network finds and the sparse fit knows on the model.

The first 59 are landmarks of mediapipe's face mesh, whose places on the model are known; the others are vertices of the
model: ears and skull. Names end in `_r` and `_l` for the head's right (-x) and left.

The fit is for faces that are drawn rather than photographed: the pose has to be found from two dimensions alone, from
any side, and the person's shape stays close to the mean, so that a cartoon's proportions do not become a monster's
skull.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ..cameras import PANOHEAD_RADIUS
from .landmark_fit import FLIP_YZ, HeadFit, LinearPoints, View, gauss_newton_step
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
_START_YAWS_DEG = (-80, -45, -15, 15, 45, 80)
"""Views that the search for the pose starts from."""
_ITERATIONS = 12
"""Gauss-Newton steps of the mean head from each starting view, and of everything from the best of them."""
_IDENTITY_RIDGE, _EXPRESSION_RIDGE = 2.0, 3.0
"""Weights of the priors on identity modes and expressions; photographs of people are fitted with smaller ones."""
_INDEPENDENT_POINTS = 25.0
"""How many independent measurements the correlated points are worth."""
_SIGMA_FLOOR = 0.005
"""Measurement noise of the best points, world units."""
_DAMPING = 1e-3
_MOST_TURN_RAD = 0.4
"""Largest rotation in one step."""


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


def fit_sparse_points(
    model: HeadModel,
    points_px: Float[np.ndarray, "69 2"],
    scales_px: Float[np.ndarray, " 69"],
    width: int,
    height: int,
) -> HeadFit:
    """Fit head and camera to the sparse points of a face seen from any side, each with its own trust.

    Args:
        points_px: the points, pixels; those that are not seen where they would be.
        scales_px: scale of each point's error, pixels; infinite where a point is not known.

    Returns:
        The fitted head; its residuals are those of the sparse points.
    """
    weight = np.sqrt(_INDEPENDENT_POINTS / POINT_COUNT)

    def sigma(view: View) -> Float[np.ndarray, " 69"]:
        return _SIGMA_FLOOR + scales_px * view.units_per_px

    def descended(view: View, linear: LinearPoints) -> tuple[View, Float[np.ndarray, " m"]]:
        shape = np.zeros(len(linear.prior))
        damping = np.repeat([0.0, _DAMPING], [len(shape), 6])
        for _ in range(_ITERATIONS):
            step = gauss_newton_step(view, linear.at(shape), linear, shape, points_px, sigma(view), weight, damping)
            shape, view = linear.held(shape + step[:-6]), view.moved(step[-6:], _MOST_TURN_RAD)
        return view, shape

    def cost(view: View) -> float:
        error = (view.project(linear.base) - points_px) * view.units_per_px
        ratio = (error**2).sum(1) / sigma(view) ** 2
        return float((ratio / (1 + ratio / 9)).sum())

    linear = LinearPoints.of(model, *point_weights(model), _IDENTITY_RIDGE, _EXPRESSION_RIDGE)
    poses = [descended(start, linear.pose_only())[0] for start in _starting_views(linear.base, points_px)]
    view, shape = descended(min(poses, key=cost), linear)
    identity, expression = np.split(shape, [linear.identities])
    fitted = model.vertices(identity, expression)
    residual_px = np.linalg.norm(view.project(sparse_points(model, fitted)) - points_px, axis=1)
    return HeadFit(identity, expression, fitted, view.camera(width, height), residual_px)


def _starting_views(base: Float[np.ndarray, "69 3"], points_px: Float[np.ndarray, "69 2"]) -> list[View]:
    """The mean head turned to several sides, tilted, scaled and placed as the points are."""
    box = face_box(points_px)
    c, s = np.cos(box.roll_rad), np.sin(box.roll_rad)
    tilt = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    views = []
    for yaw in np.radians(_START_YAWS_DEG):
        turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
        R = tilt @ FLIP_YZ @ turn
        flat = base @ R.T
        units = face_box(flat[:, :2]).size_px
        focal = box.size_px / units * PANOHEAD_RADIUS
        views.append(View(R, focal, points_px.mean(0) - flat[:, :2].mean(0) * focal / PANOHEAD_RADIUS))
    return views

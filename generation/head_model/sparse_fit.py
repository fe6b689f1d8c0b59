"""Fit the parametric head and a perspective camera to the sparse points of `sparse_points`, each with its own trust.

For faces that are drawn rather than photographed: the pose has to be found from two dimensions alone, from any side,
and the person's shape stays close to the mean, so that a cartoon's proportions do not become a monster's skull.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..cameras import PANOHEAD_RADIUS
from .landmark_fit import FLIP_YZ, HeadFit, LinearPoints, View, gauss_newton_step
from .model import HeadModel
from .sparse_points import POINT_COUNT, face_box, point_weights, sparse_points

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


def fit_sparse_points(
    model: HeadModel,
    points_px: Float[np.ndarray, "69 2"],
    scales_px: Float[np.ndarray, " 69"],
    width: int,
    height: int,
) -> HeadFit:
    """Fit head and camera to the sparse points of a face seen from any side.

    Args:
        model: the parametric head.
        points_px: the points, pixels; those that are not seen where they would be.
        scales_px: scale of each point's error, pixels; infinite where a point is not known.
        width, height: size of the picture, pixels.

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

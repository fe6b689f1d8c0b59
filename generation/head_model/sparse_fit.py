"""Fit the parametric head and a perspective camera to the sparse points of `sparse_points`, each with its own trust.

For faces that are drawn rather than photographed: the pose has to be found from two dimensions alone, from any side,
and the person's shape stays close to the mean, so that a cartoon's proportions do not become a monster's skull.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from ..cameras import PANOHEAD_RADIUS
from .landmark_fit import FLIP_YZ, HeadFit, camera_of_fit
from .model import HeadModel
from .sparse_points import POINT_COUNT, face_box, point_weights, sparse_points

_START_YAWS_DEG = (-80, -45, -15, 15, 45, 80)
"""Views that the search for the pose starts from."""


@dataclass(frozen=True)
class SparseFitConfig:
    """Weights of the fit; lengths in world units (`UNITS_PER_CM`)."""

    pose_iterations: int = 12
    """Gauss-Newton steps of the mean head from each starting view."""
    iterations: int = 12
    """Gauss-Newton steps of everything from the best of them."""
    identity_ridge: float = 2.0
    """Weight of the standard normal prior on identity modes; photographs of people are fitted with 0.6."""
    expression_ridge: float = 3.0
    """Weight of the prior on expressions."""
    independent_points: float = 25.0
    """How many independent measurements the correlated points are worth."""
    sigma_floor: float = 0.005
    """Measurement noise of the best points."""


@dataclass(frozen=True)
class _View:
    """Rotation, focal length and principal point of one picture."""

    R_camera_world: Float[np.ndarray, "3 3"]
    focal_px: float
    principal_px: Float[np.ndarray, " 2"]

    def project(
        self, points: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"], Float[np.ndarray, "n 2"]]:
        """Points turned into the camera's axes, their depths, their pixels."""
        p = points @ self.R_camera_world.T
        z = p[:, 2] + PANOHEAD_RADIUS
        return p, z, self.focal_px * p[:, :2] / z[:, None] + self.principal_px


def fit_sparse_points(
    model: HeadModel,
    points_px: Float[np.ndarray, "69 2"],
    scales_px: Float[np.ndarray, " 69"],
    width: int,
    height: int,
    config: SparseFitConfig | None = None,
) -> HeadFit:
    """Fit head and camera to the sparse points of a face seen from any side.

    Args:
        model: the parametric head.
        points_px: the points, pixels; those that are not seen where they would be.
        scales_px: scale of each point's error, pixels; infinite where a point is not known.
        width, height: size of the picture, pixels.
        config: weights.

    Returns:
        The fitted head; its residuals are those of the sparse points.
    """
    config = config or SparseFitConfig()
    vertices, weights = point_weights(model)

    def at_points(field: Float[np.ndarray, "m v 3"]) -> Float[np.ndarray, "m l 3"]:
        return (field[:, vertices] * weights[..., None]).sum(2).astype(np.float64)

    base = at_points(model.neutral[None])[0]
    shapes = np.concatenate([at_points(model.identity_basis), at_points(model.expression_basis)])
    n_id, n_ex = len(model.identity_basis), len(model.expression_basis)
    prior = np.concatenate([np.full(n_id, config.identity_ridge**2), np.full(n_ex, config.expression_ridge**2)])
    bounds = np.concatenate([np.full(n_id, -3.0), np.full(n_ex, -0.1)]), np.repeat([3.0, 1.0], [n_id, n_ex])

    best_cost, best = np.inf, None
    for start in _starting_views(base, points_px):
        view, _ = _descend(
            start, base, shapes[:0], np.zeros(0), points_px, scales_px, prior[:0], config, config.pose_iterations
        )
        cost = _cost(view, base, points_px, scales_px, config)
        if cost < best_cost:
            best_cost, best = cost, view
    assert best is not None
    view, shape = _descend(
        best, base, shapes, np.zeros(n_id + n_ex), points_px, scales_px, prior, config, config.iterations, bounds
    )
    identity, expression = shape[:n_id], shape[n_id:]
    fitted = model.vertices(identity, expression)
    residual_px = np.linalg.norm(view.project(sparse_points(model, fitted))[2] - points_px, axis=1)
    camera = camera_of_fit(view.R_camera_world, view.focal_px, view.principal_px, width, height)
    return HeadFit(identity, expression, fitted, camera, residual_px)


def _starting_views(base: Float[np.ndarray, "69 3"], points_px: Float[np.ndarray, "69 2"]) -> list[_View]:
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
        views.append(_View(R, focal, points_px.mean(0) - flat[:, :2].mean(0) * focal / PANOHEAD_RADIUS))
    return views


def _errors(
    view: _View, points: Float[np.ndarray, "69 3"], points_px: Float[np.ndarray, "69 2"],
    scales_px: Float[np.ndarray, " 69"], config: SparseFitConfig,
) -> tuple[Float[np.ndarray, "69 2"], Float[np.ndarray, " 69"]]:  # fmt: skip
    """Errors in world units and their standard deviations."""
    units_per_px = PANOHEAD_RADIUS / view.focal_px
    error = (view.project(points)[2] - points_px) * units_per_px
    return error, config.sigma_floor + scales_px * units_per_px


def _cost(
    view: _View, points: Float[np.ndarray, "69 3"], points_px: Float[np.ndarray, "69 2"],
    scales_px: Float[np.ndarray, " 69"], config: SparseFitConfig,
) -> float:  # fmt: skip
    error, sigma = _errors(view, points, points_px, scales_px, config)
    ratio = (error**2).sum(1) / sigma**2
    return float((ratio / (1 + ratio / 9)).sum())


def _descend(
    view: _View, base: Float[np.ndarray, "69 3"], shapes: Float[np.ndarray, "m 69 3"], shape: Float[np.ndarray, " m"],
    points_px: Float[np.ndarray, "69 2"], scales_px: Float[np.ndarray, " 69"], prior: Float[np.ndarray, " m"],
    config: SparseFitConfig, iterations: int, bounds: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[_View, Float[np.ndarray, " m"]]:  # fmt: skip
    """Gauss-Newton over the shape's coefficients, rotation, focal length and principal point."""
    m = len(shapes)
    weight = np.sqrt(config.independent_points / POINT_COUNT)
    for _ in range(iterations):
        points = base + np.tensordot(shape, shapes, 1)
        p, z, _ = view.project(points)
        normalised = p[:, :2] / z[:, None]
        error, sigma = _errors(view, points, points_px, scales_px, config)
        robust = 1 / np.sqrt(1 + (np.linalg.norm(error, axis=1) / (3 * sigma)) ** 2)
        w = np.tile(weight * robust / sigma, 2)

        def derivative(dp: Float[np.ndarray, "k 69 3"], z=z, normalised=normalised) -> Float[np.ndarray, "k 138"]:
            """How the stacked errors move with camera-frame displacements of the points."""
            d = PANOHEAD_RADIUS * (dp[..., :2] - normalised * dp[..., 2:]) / z[:, None]
            return np.concatenate([d[..., 0], d[..., 1]], axis=1)

        zeros, ones = np.zeros(POINT_COUNT), np.ones(POINT_COUNT)
        jacobian = np.concatenate(
            [
                derivative(shapes @ view.R_camera_world.T),
                derivative(np.stack([np.cross(axis, p) for axis in np.eye(3)])),
                np.concatenate(PANOHEAD_RADIUS * normalised.T)[None],  # log focal
                np.stack([np.concatenate([ones, zeros]), np.concatenate([zeros, ones])]),
            ]
        )
        weighted = jacobian * w
        H = weighted @ weighted.T + np.diag(np.concatenate([prior, np.full(6, 1e-3)]))
        g = weighted @ (np.concatenate([error[:, 0], error[:, 1]]) * w) + np.concatenate([prior * shape, np.zeros(6)])
        step = -np.linalg.solve(H, g)
        shape = shape + step[:m]
        if bounds is not None:
            shape = np.clip(shape, *bounds)
        turn = step[m : m + 3] * min(1.0, 0.4 / max(float(np.linalg.norm(step[m : m + 3])), 1e-9))
        view = _View(
            cv2.Rodrigues(turn)[0] @ view.R_camera_world,
            view.focal_px * float(np.exp(np.clip(step[-3], -0.3, 0.3))),
            view.principal_px + step[-2:] * view.focal_px / PANOHEAD_RADIUS,
        )
    return view, shape

"""Fit the statistical bust to a portrait: its place, its turn and its shape from the outline of the body.

One picture shows a width and nothing of the depth, so a strong prior holds every parameter. A body that is hidden, or
seen from far aside, keeps the mean bust: then only the camera says how it stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

from ...cameras import Cameras
from ..labels.portrait_labels import project_px
from .outline import AT_LEAST, EXACT, UNKNOWN, Outline, Silhouette
from .template import SHAPE_PARAMETERS, BustTemplate

_POSE_PARAMETERS = ("shift_x", "shift_y", "yaw", "roll")
_PICTURE_UP = 0.75
"""The body's up is the picture's by this share, the head's own otherwise."""
_MOST_TILT = 0.4
"""The body leans against the head by less than this, radians."""


@dataclass(frozen=True)
class BustFitConfig:
    """The prior of a standing body, and how far the outline is believed."""

    log_width_sigma: float = 0.10
    """Spread of the logarithm of the shoulders' width."""
    slope_mean: float = 0.30
    """How far shoulders fall, per unit of width."""
    slope_sigma: float = 0.12
    """Spread of the slope."""
    asymmetry_sigma: float = 0.07
    """Spread of the difference of the two sides' slopes."""
    shift_sigma: tuple[float, float] = (0.008, 0.012)
    """Spread of the neck's place, sideways and up, world units."""
    yaw_of_azimuth: float = 0.4
    """Bodies face between the head's front and the camera: at this share of the camera's azimuth."""
    yaw_sigma_rad: tuple[float, float] = (0.18, 0.25)
    """Spread of the yaw for a frontal head, and what it grows by per radian of azimuth."""
    roll_sigma_rad: float = 0.045
    """Spread of the roll against the picture."""
    outline_sigma: float = 0.006
    """Believed error of the outline, world units."""
    row_weight: float = 1 / 6
    """Weight of a row: neighbours say the same."""
    robust_sigmas: float = 4.0
    """Errors beyond count by their root."""
    trusted_azimuth_rad: tuple[float, float] = (0.35, 0.75)
    """The outline is believed up to the first azimuth of the camera and not at all from the second."""
    least_rows: int = 12
    """With fewer rows of outline the mean bust stands."""
    narrowest_share: float = 0.6
    """What is narrower than this share of the mean bust is no body: a neck's stump, a cut-out."""
    evaluations: int = 16
    """Most evaluations of the fit."""
    tolerance: float = 1e-4
    """The fit ends when its cost falls by less than this share."""


@dataclass(frozen=True)
class BustPlacement:
    """A bent template and where it stands."""

    points_body: Float[np.ndarray, "rows columns 3"]
    """Surface in the body's frame."""
    T_world_body: Float[np.ndarray, "4 4"]
    """To world from the body's frame."""
    trust: float
    """How far the outline is believed, [0, 1]."""

    def to_world(self, points_body: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Points of the body's frame in the world."""
        return points_body @ self.T_world_body[:3, :3].T + self.T_world_body[:3, 3]

    def to_body(self, points_world: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Inverse of `to_world`."""
        return (points_world - self.T_world_body[:3, 3]) @ self.T_world_body[:3, :3]


def upright(camera: Cameras) -> Float[np.ndarray, "3 3"]:
    """The shortest rotation of the head's up to the body's, which is mostly the picture's."""
    up = -camera.T_world_camera[0, :3, 1].numpy()
    head_up = np.array([0.0, 1.0, 0.0])
    up = _PICTURE_UP * up + (1 - _PICTURE_UP) * head_up
    up /= np.linalg.norm(up)
    axis = np.cross(head_up, up)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3)
    x, y, z = axis / sine
    angle = _MOST_TILT * math.tanh(math.atan2(sine, up[1]) / _MOST_TILT)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross  # Rodrigues


def fit_placement(
    template: BustTemplate,
    outline: Outline,
    neck_world: Float[np.ndarray, " 3"],
    config: BustFitConfig | None = None,
) -> BustPlacement:
    """Least squares of the outline and the prior.

    Args:
        template: the statistical bust.
        outline: what the portrait shows.
        neck_world: middle of the neck where the head model is cut off.
        config: the prior.
    """
    config = config or BustFitConfig()
    camera = outline.camera
    azimuth = float(camera.azimuth_rad[0])
    near, far = config.trusted_azimuth_rad
    trust = float(np.clip((far - abs(azimuth)) / (far - near), 0, 1)) ** 2 * (outline.seen_rows >= config.least_rows)
    base = upright(camera)
    modes = len(template.modes)
    mean = np.zeros(template.parameters + len(_POSE_PARAMETERS))
    mean[SHAPE_PARAMETERS.index("slope")] = config.slope_mean
    yaw_at = template.parameters + _POSE_PARAMETERS.index("yaw")
    mean[yaw_at] = config.yaw_of_azimuth * azimuth
    yaw_sigma = config.yaw_sigma_rad[0] + config.yaw_sigma_rad[1] * abs(azimuth)
    sides_differ = config.asymmetry_sigma * max(trust, 1e-3)
    sigma = np.array([
        config.log_width_sigma, config.slope_sigma, sides_differ, *[1.0] * modes,
        *config.shift_sigma, yaw_sigma, config.roll_sigma_rad,
    ])  # fmt: skip
    R_camera_world = camera.T_camera_world[0, :3, :3].numpy()
    t_camera_world = camera.T_camera_world[0, :3, 3].numpy()
    focal, principal = camera.focal_px[0].numpy(), camera.principal_px[0].numpy()
    weight = math.sqrt(config.row_weight * trust) / config.outline_sigma
    signs = np.array([[-1.0], [1.0]])

    def placed(values: np.ndarray):
        shape, (shift_x, shift_y, yaw, roll) = values[: template.parameters], values[template.parameters :]
        points, by_shape = template.bent(shape)
        R, by_yaw, by_roll = _rotations(base, yaw, roll)
        world = points @ R.T + neck_world + [shift_x, shift_y, 0]
        moves = np.empty((len(values), *points.shape))
        moves[: template.parameters] = by_shape @ R.T
        moves[template.parameters] = [1, 0, 0]
        moves[template.parameters + 1] = [0, 1, 0]
        moves[yaw_at], moves[yaw_at + 1] = points @ by_yaw.T, points @ by_roll.T
        return points, R, world, moves

    def errors(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted errors of both outlines and their derivatives."""
        _, _, world, moves = placed(values)
        seen = world @ R_camera_world.T + t_camera_world
        moves = moves @ R_camera_world.T
        z = seen[..., 2:]
        ratio = seen[..., :2] / z
        uv = focal * ratio + principal
        silhouette = Silhouette.of(uv, outline.rows_px)
        uv_moves = focal * (moves[..., :2] - ratio * moves[..., 2:]) / z
        by_parameter = silhouette.derivative(uv_moves) * signs
        wider = (silhouette.sides_px - outline.sides_px) * signs
        known = np.isfinite(wider)
        wider = np.where(known, wider, 0)
        counts = known & ((outline.kind == EXACT) | ((outline.kind == AT_LEAST) & (wider < 0)))
        error = np.where(counts, wider, 0) * (outline.units_per_px * weight)
        scale = np.where(counts, outline.units_per_px * weight, 0)
        size = 1 + np.abs(error) / config.robust_sigmas
        slope = scale * (1 + 0.5 * (size - 1)) * size**-1.5
        return (error / np.sqrt(size)).ravel(), (by_parameter * slope).reshape(len(values), -1).T

    latest: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def evaluated(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`errors`, kept for the Jacobian, which is asked for at the same place."""
        key = step.tobytes()
        if key not in latest:
            latest.clear()
            latest[key] = errors(mean + sigma * step)
        return latest[key]

    def residuals(step: np.ndarray) -> np.ndarray:
        return np.concatenate([evaluated(step)[0], step])

    def jacobian(step: np.ndarray) -> np.ndarray:
        return np.concatenate([evaluated(step)[1] * sigma, np.eye(len(step))])

    step = np.zeros_like(mean)
    if not _is_a_body(placed(mean)[2], outline, config.narrowest_share):
        trust = 0.0
    if trust > 0:
        solved = least_squares(
            residuals,
            step,
            jac=cast(Any, jacobian),
            max_nfev=config.evaluations,
            ftol=config.tolerance,
        )
        step = solved.x
    points, R, _, _ = placed(mean + sigma * step)
    shift = (mean + sigma * step)[template.parameters : template.parameters + 2]
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = neck_world + np.array([*shift, 0.0])
    return BustPlacement(points, T, trust)


def _is_a_body(mean_world: Float[np.ndarray, "rows columns 3"], outline: Outline, narrowest_share: float) -> bool:
    """Whether what is seen is about as wide as shoulders are, in the lower half of the rows that show both sides."""
    uv = project_px(outline.camera, mean_world)
    left, right = Silhouette.of(uv, outline.rows_px).sides_px
    both = np.flatnonzero((outline.kind > UNKNOWN).all(0) & np.isfinite(left))
    both = both[len(both) // 2 :]
    if not len(both):
        return False
    share = (outline.sides_px[1] - outline.sides_px[0])[both] / (right - left)[both]
    return bool(np.median(share) > narrowest_share)


def _rotations(base: np.ndarray, yaw: float, roll: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """base Rz(roll) Ry(yaw) and its derivatives by yaw and roll."""
    c, s = math.cos(yaw), math.sin(yaw)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    turn_by = np.array([[-s, 0, c], [0, 0, 0], [-c, 0, -s]])
    c, s = math.cos(roll), math.sin(roll)
    tilt = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    tilt_by = np.array([[-s, -c, 0], [c, -s, 0], [0, 0, 0]])
    return base @ tilt @ turn, base @ tilt @ turn_by, base @ tilt_by @ turn

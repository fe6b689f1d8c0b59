"""Fit the parametric head and a perspective camera to 2D face landmarks.

Gauss-Newton over identity, expression, rotation, focal length and principal point. The distance between camera and
head stays at 2.7 world units (PanoHead's radius): one picture does not tell distance from focal length apart, and the
scale of the image takes up the rest.

The detector does not see a landmark at one place of the skin: it slides with the view, is guessed where the face turns
away, and nods are understated. That systematic part is in the model (`HeadModel.landmark_view_offset`) and is added to
the landmarks for the view reached so far, in each step.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float

from ..cameras import PANOHEAD_RADIUS, Cameras
from .model import HeadModel

# mediapipe's face oval, in order round the face. These landmarks follow the outline, not a point of the skin.
FACE_OVAL_LANDMARKS = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
]  # fmt: skip
_IRIS_LANDMARKS = range(468, 478)
FLIP_YZ = np.diag([1.0, -1.0, -1.0])
"""Rotation of an OpenCV camera that looks along -z: x right, y down."""


@dataclass(frozen=True)
class LandmarkFitConfig:
    """Weights of the fit; lengths in world units (`UNITS_PER_CM`)."""

    iterations: int = 14
    """Gauss-Newton steps."""
    identity_ridge: float = 0.6
    """Weight of the standard normal prior on identity modes."""
    expression_ridge: float = 1.5
    """Weight of the prior on expressions (standard deviation about 0.4)."""
    depth_weight: float = 0.1
    """Weight of mediapipe's relative depth against its 2D positions."""
    oval_weight: float = 0.35
    """Weight of the face oval, whose landmarks slide with the view."""
    independent_landmarks: float = 60.0
    """How many independent measurements the correlated landmarks are worth."""
    sigma_floor: float = 0.0025
    """Measurement noise of the best landmarks."""


@dataclass(frozen=True)
class HeadFit:
    """A head, and the camera that took its picture."""

    identity: Float[np.ndarray, " i"]
    """Identity coefficients, standard deviations."""
    expression: Float[np.ndarray, " e"]
    """Expression coefficients, 0..1."""
    vertices_world: Float[np.ndarray, "v 3"]
    """Vertices of the fitted head, canonical pose, world units."""
    camera: Cameras
    """One camera: pose, focal length and principal point of the picture the landmarks were found in."""
    residual_px: Float[np.ndarray, " l"]
    """Reprojection error of each landmark, the detector's offset included, or of each sparse point, pixels of that
    picture; zeros without landmarks."""

    def detected_landmarks_world(self, model: HeadModel) -> Float[np.ndarray, "l 3"]:
        """The landmarks where the detector sees them from this camera, canonical frame, world units."""
        R_camera_world = self.camera.T_camera_world[0, :3, :3].numpy()
        return model.landmarks(self.vertices_world) + model.landmark_offsets(*_camera_direction(R_camera_world))

    def in_picture(self, scale: float, offset_px: tuple[float, float], width: int, height: int) -> HeadFit:
        """The same head in a picture whose pixels are `scale * old + offset_px` (a crop)."""
        camera = Cameras(
            self.camera.T_world_camera,
            self.camera.focal_px * scale,
            self.camera.principal_px * scale + torch.tensor([offset_px], dtype=torch.float64),
            width,
            height,
        )
        return dataclasses.replace(self, camera=camera, residual_px=self.residual_px * scale)


def _mean_removed(values: Float[np.ndarray, "... l"]) -> Float[np.ndarray, "... l"]:
    return values - values.mean(-1, keepdims=True)


def _initial_pose(
    points: Float[np.ndarray, "l 3"], landmarks_px: Float[np.ndarray, "l 3"]
) -> tuple[Float[np.ndarray, "3 3"], float]:
    """Orthogonal Procrustes between model landmarks and mediapipe's 3D ones: rotation and pixels per world unit."""
    source = (points - points.mean(0)) @ FLIP_YZ
    target = landmarks_px - landmarks_px.mean(0)
    U, _, Vt = np.linalg.svd(target.T @ source)
    R = U @ np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))]) @ Vt
    pixels_per_unit = float(np.sqrt((target**2).sum() / (source**2).sum()))
    return R @ FLIP_YZ, pixels_per_unit


def _camera_direction(R_camera_world: Float[np.ndarray, "3 3"]) -> tuple[float, float]:
    """Azimuth and elevation of the camera that looks at the head's middle, radians."""
    x, y, z = -R_camera_world[2]
    return float(np.arctan2(x, z)), float(np.arctan2(y, np.hypot(x, z)))


def fit_landmarks(
    model: HeadModel,
    landmarks_px: Float[np.ndarray, "478 3"],
    width: int,
    height: int,
    config: LandmarkFitConfig | None = None,
) -> HeadFit:
    """Fit head and camera to mediapipe's landmarks.

    Args:
        model: the parametric head.
        landmarks_px: x, y in pixels and z in the same scale (smaller is nearer), 478 rows.
        width, height: size of the picture, pixels.
        config: weights.

    Returns:
        The fitted head. Its camera has square pixels and looks from 2.7 world units away.

    Source: the recipe is measured in this project; robust weights are Geman-McClure-like,
        1 / sqrt(1 + (e / 3 sigma)^2).
    """
    config = config or LandmarkFitConfig()
    n_id, n_ex = len(model.identity_basis), len(model.expression_basis)

    def at_landmarks(field: Float[np.ndarray, "m v 3"]) -> Float[np.ndarray, "m l 3"]:
        return (field[:, model.landmark_vertices] * model.landmark_weights[..., None]).sum(2).astype(np.float64)

    base = at_landmarks(model.neutral[None])[0]
    identity_basis, expression_basis = at_landmarks(model.identity_basis), at_landmarks(model.expression_basis)

    sigma = config.sigma_floor + 0.5 * np.minimum(np.nan_to_num(model.landmark_spread, nan=0.02), 0.02)
    weight = np.sqrt(config.independent_landmarks / len(base)) * model.landmark_valid.astype(np.float64)
    weight[FACE_OVAL_LANDMARKS] *= config.oval_weight
    weight[_IRIS_LANDMARKS] = 0.0  # they follow the gaze, which the model does not have

    R, pixels_per_unit = _initial_pose(base, landmarks_px)
    focal = pixels_per_unit * PANOHEAD_RADIUS
    principal = landmarks_px[:, :2].mean(0) - pixels_per_unit * (base.mean(0) @ R.T)[:2]
    identity, expression = np.zeros(n_id), np.zeros(n_ex)
    prior_weight = np.concatenate(
        [np.full(n_id, config.identity_ridge**2), np.full(n_ex, config.expression_ridge**2), np.zeros(6)]
    )

    for _ in range(config.iterations):
        units_per_px = PANOHEAD_RADIUS / focal
        points = base + np.tensordot(identity, identity_basis, 1) + np.tensordot(expression, expression_basis, 1)
        points = points + model.landmark_offsets(*_camera_direction(R))
        p = points @ R.T
        z = p[:, 2] + PANOHEAD_RADIUS
        normalised = p[:, :2] / z[:, None]

        error_xy = (focal * normalised + principal - landmarks_px[:, :2]) * units_per_px
        error_z = config.depth_weight * (_mean_removed(p[:, 2]) - _mean_removed(landmarks_px[:, 2]) * units_per_px)
        robust = 1 / np.sqrt(1 + (np.linalg.norm(error_xy, axis=1) / (3 * sigma)) ** 2)
        w = weight * robust / sigma

        def derivative(dp: Float[np.ndarray, "m l 3"], z=z, normalised=normalised) -> Float[np.ndarray, "m 3*l"]:
            """How the stacked errors move with camera-frame displacements of the landmarks."""
            d_xy = PANOHEAD_RADIUS * (dp[..., :2] - normalised * dp[..., 2:]) / z[:, None]
            d_z = config.depth_weight * _mean_removed(dp[..., 2])
            return np.concatenate([d_xy[..., 0], d_xy[..., 1], d_z], axis=1)

        zeros = np.zeros(len(base))
        ones = np.ones(len(base))
        jacobian = np.concatenate(
            [
                derivative(identity_basis @ R.T),
                derivative(expression_basis @ R.T),
                derivative(np.stack([np.cross(axis, p) for axis in np.eye(3)])),
                np.concatenate([*(PANOHEAD_RADIUS * normalised.T), zeros])[None],  # log focal
                np.stack([np.concatenate([ones, zeros, zeros]), np.concatenate([zeros, ones, zeros])]),
            ]
        )
        weighted = jacobian * np.tile(w, 3)
        residual = np.concatenate([error_xy[:, 0], error_xy[:, 1], error_z]) * np.tile(w, 3)
        H = weighted @ weighted.T + np.diag(prior_weight + 1e-9)
        g = weighted @ residual + prior_weight * np.concatenate([identity, expression, np.zeros(6)])
        step = -np.linalg.solve(H, g)

        identity = np.clip(identity + step[:n_id], -3.0, 3.0)
        expression = np.clip(expression + step[n_id : n_id + n_ex], -0.1, 1.0)
        R = cv2.Rodrigues(step[n_id + n_ex : n_id + n_ex + 3])[0] @ R
        principal = principal + step[-2:] / units_per_px
        focal = focal * float(np.exp(np.clip(step[-3], -0.3, 0.3)))

    vertices = model.vertices(identity, expression)
    p = (model.landmarks(vertices) + model.landmark_offsets(*_camera_direction(R))) @ R.T
    reprojected = focal * p[:, :2] / (p[:, 2:] + PANOHEAD_RADIUS) + principal
    residual_px = np.linalg.norm(reprojected - landmarks_px[:, :2], axis=1)
    return HeadFit(identity, expression, vertices, camera_of_fit(R, focal, principal, width, height), residual_px)


def mean_head_fit(
    model: HeadModel, focal_px: float, principal_px: tuple[float, float], width: int, height: int
) -> HeadFit:
    """The mean head seen straight from the front, for pictures without a detectable face.

    Args:
        focal_px: focal length in pixels; the head is `focal_px / 2.7` pixels per world unit large.
        principal_px: where the head's middle appears.
    """
    vertices = model.neutral.astype(np.float64)
    camera = camera_of_fit(FLIP_YZ, focal_px, np.array(principal_px), width, height)
    return HeadFit(
        np.zeros(len(model.identity_basis)),
        np.zeros(len(model.expression_basis)),
        vertices,
        camera,
        np.zeros(len(model.landmark_vertices)),
    )


def camera_of_fit(
    R_camera_world: Float[np.ndarray, "3 3"],
    focal_px: float,
    principal_px: Float[np.ndarray, " 2"],
    width: int,
    height: int,
) -> Cameras:
    """The fitted camera: the head's middle on its optical axis at distance 2.7."""
    T = torch.eye(4, dtype=torch.float64)[None].clone()
    R_world_camera = torch.from_numpy(np.ascontiguousarray(R_camera_world.T))
    T[0, :3, :3] = R_world_camera
    T[0, :3, 3] = R_world_camera @ torch.tensor([0.0, 0.0, -PANOHEAD_RADIUS], dtype=torch.float64)
    return Cameras(
        T,
        torch.full((1, 2), float(focal_px), dtype=torch.float64),
        torch.tensor(np.array(principal_px, dtype=np.float64)).reshape(1, 2),
        width,
        height,
    )

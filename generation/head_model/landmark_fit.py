"""Fit the parametric head and a perspective camera to 2D face landmarks.

Gauss-Newton over identity, expression, rotation, focal length and principal point. The distance between camera and
head stays at 2.7 world units (PanoHead's radius): one picture does not tell distance from focal length apart, and the
scale of the image takes up the rest.

The detector does not see a landmark at one place of the skin: it slides with the view, is guessed where the face turns
away, and nods are understated. That systematic part is in the model (`HeadModel.landmark_view_offset`) and is added to
the landmarks for the view reached so far, in each step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int

from ..cameras import PANOHEAD_RADIUS, Cameras
from .anatomy import ramp
from .model import HeadModel

# mediapipe's face oval, in order round the face. These landmarks follow the outline, not a point of the skin.
FACE_OVAL_LANDMARKS = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
]  # fmt: skip
_OUTLINE = slice(8, 29)
"""Those of them that run along cheeks and jaw, from one cheekbone to the other."""
_IRIS_LANDMARKS = range(468, 478)
FLIP_YZ = np.diag([1.0, -1.0, -1.0])
"""Rotation of an OpenCV camera that looks along -z: x right, y down."""


# Weights of the fit; lengths in world units (`UNITS_PER_CM`).
_IDENTITY_RIDGE = 0.3
"""Weight of the standard normal prior on identity modes."""
_TURNED_RIDGE, _TURNED_RAD = 0.6, (0.35, 0.65)
"""That of heads that are turned away, whose landmarks are guessed and whose outline is another one, and between which
azimuths it takes over."""
_SIZE_SIGMA = 0.01
"""How far heads leave the mean's size: no picture tells it, but small heads have less perspective at our distance."""
_EXPRESSION_RIDGE = 1.5
"""Weight of the prior on expressions (standard deviation about 0.4)."""
_DEPTH_WEIGHT = 0.1
"""Weight of mediapipe's relative depth against its 2D positions."""
_OVAL_WEIGHT = 0.35
"""Weight of the face oval, whose landmarks slide with the view, along the outline and on the forehead."""
_OUTLINE_SIGMA = 0.0025
"""How well the face oval says where cheeks and jaw end, across the outline, world units (1.5 mm)."""
_INDEPENDENT_LANDMARKS = 60.0
"""How many independent measurements the correlated landmarks are worth."""
_SIGMA_FLOOR = 0.0025
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


@dataclass(frozen=True)
class View:
    """A picture of the head by a camera that looks at the head's middle from 2.7 world units away."""

    R_camera_world: Float[np.ndarray, "3 3"]
    """Rotation."""
    focal_px: float
    """Focal length, pixels."""
    principal_px: Float[np.ndarray, " 2"]
    """Principal point, pixels."""

    @property
    def units_per_px(self) -> float:
        """World units per pixel at the head's middle."""
        return PANOHEAD_RADIUS / self.focal_px

    def project(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Pixels of world points."""
        p = points @ self.R_camera_world.T
        return self.focal_px * (p[:, :2] / (p[:, 2:] + PANOHEAD_RADIUS)) + self.principal_px

    def moved(self, step: Float[np.ndarray, " 6"], most_turn_rad: float = np.inf) -> View:
        """The view after the last six numbers of a `gauss_newton_step`."""
        turn = step[:3] * min(1.0, most_turn_rad / max(float(np.linalg.norm(step[:3])), 1e-9))
        return View(
            cv2.Rodrigues(turn)[0] @ self.R_camera_world,
            self.focal_px * float(np.exp(np.clip(step[3], -0.3, 0.3))),
            self.principal_px + step[4:] / self.units_per_px,
        )

    def camera(self, width: int, height: int) -> Cameras:
        """The view as a camera of a picture of that size."""
        T = torch.eye(4, dtype=torch.float64)[None].clone()
        R_world_camera = torch.from_numpy(np.ascontiguousarray(self.R_camera_world.T))
        T[0, :3, :3] = R_world_camera
        T[0, :3, 3] = R_world_camera @ torch.tensor([0.0, 0.0, -PANOHEAD_RADIUS], dtype=torch.float64)
        focal_px = torch.full((1, 2), float(self.focal_px), dtype=torch.float64)
        return Cameras(T, focal_px, torch.from_numpy(self.principal_px.astype(np.float64))[None], width, height)


@dataclass(frozen=True)
class LinearPoints:
    """Points of the model as linear functions of its coefficients (identity, then expression), and their prior."""

    base: Float[np.ndarray, "l 3"]
    """On the mean head."""
    shapes: Float[np.ndarray, "m l 3"]
    """How each coefficient moves them."""
    prior: Float[np.ndarray, "m m"]
    """Weights of the coefficients' squares and products."""
    identities: int
    """How many of the coefficients are identity modes."""

    @staticmethod
    def of(
        model: HeadModel, vertices: Int[np.ndarray, "l 3"], weights: Float[np.ndarray, "l 3"], *ridges: float
    ) -> LinearPoints:
        """Points given by vertices and their weights; ridges of identity and expression."""

        def at_points(field: Float[np.ndarray, "m v 3"]) -> Float[np.ndarray, "m l 3"]:
            return (field[:, vertices] * weights[..., None]).sum(2).astype(np.float64)

        modes = [at_points(model.identity_basis), at_points(model.expression_basis)]
        prior = np.diag(np.repeat(np.square(ridges), [len(part) for part in modes]))
        return LinearPoints(at_points(model.neutral[None])[0], np.concatenate(modes), prior, len(modes[0]))

    def pose_only(self) -> LinearPoints:
        """Those of the mean head, without coefficients."""
        return LinearPoints(self.base, self.shapes[:0], self.prior[:0, :0], 0)

    def of_usual_size(self, sigma: float) -> LinearPoints:
        """Those of heads whose size varies by so much (a share of it), whatever their identity."""
        around = self.base - self.base.mean(0)
        growth = np.einsum("mlc,lc->m", self.shapes, around) / (around**2).sum()
        growth[self.identities :] = 0.0
        return replace(self, prior=self.prior + np.outer(growth, growth) / sigma**2)

    def at(self, shape: Float[np.ndarray, " m"]) -> Float[np.ndarray, "l 3"]:
        """The points of one head."""
        n = self.identities
        return self.base + np.tensordot(shape[:n], self.shapes[:n], 1) + np.tensordot(shape[n:], self.shapes[n:], 1)

    def held(self, shape: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Coefficients held within what heads have: 3 standard deviations, expressions in [-0.1, 1]."""
        counts = [self.identities, len(shape) - self.identities]
        return np.clip(shape, np.repeat([-3.0, -0.1], counts), np.repeat([3.0, 1.0], counts))


@dataclass(frozen=True)
class Outline:
    """Points on an outline in the picture: how far off it they are counts, and not where along it they are."""

    points: Int[np.ndarray, " k"]
    """Which of the points these are."""
    across: Float[np.ndarray, "k 2"]
    """Unit direction across the outline at each, in the picture."""
    sigma: float
    """How well the outline is known, world units."""
    weight: float
    """Further weight of each point."""

    @classmethod
    def of(
        cls, points: Int[np.ndarray, " k"], ring_px: Float[np.ndarray, "k+2 2"], sigma: float, weight: float
    ) -> Outline:
        """The outline through points seen in a picture.

        Args:
            points: which ones.
            ring_px: where they are, with one more before the first and one after the last, pixels.
        """
        along = ring_px[2:] - ring_px[:-2]
        along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
        return cls(points, along[:, ::-1] * [1.0, -1.0], sigma, weight)

    def off(self, shift: Float[np.ndarray, "*k l 2"]) -> Float[np.ndarray, "*k p"]:
        """How far displacements of all points in the picture move those of the outline across it."""
        return (shift[..., self.points, :] * self.across).sum(-1)


def gauss_newton_step(
    view: View,
    points: Float[np.ndarray, "l 3"],
    linear: LinearPoints,
    shape: Float[np.ndarray, " m"],
    seen_px: Float[np.ndarray, "l c"],
    sigma: Float[np.ndarray, " l"],
    weight: Float[np.ndarray, " l"] | float,
    damping: Float[np.ndarray, " m+6"] | float,
    outline: Outline | None = None,
) -> Float[np.ndarray, " m+6"]:
    """One step of the shape's coefficients, rotation vector, logarithm of the focal length and principal point.

    Source: robust weights are Geman-McClure-like, 1 / sqrt(1 + (e / 3 sigma)^2).

    Args:
        view: reached so far.
        points: where the points are now, canonical frame.
        linear: how they move with the coefficients.
        shape: the coefficients so far.
        seen_px: where they are seen, pixels; a third column is relative depth in the same scale.
        sigma: standard deviations of the errors, world units.
        weight: further weights.
        damping: added to the diagonal of the system.
        outline: points that lie on an outline, which are known better across than along it.
    """
    n, columns = seen_px.shape
    p = points @ view.R_camera_world.T
    depth = p[:, 2:] + PANOHEAD_RADIUS
    normalised = p[:, :2] / depth
    error_xy = (view.focal_px * normalised + view.principal_px - seen_px[:, :2]) * view.units_per_px
    error = [*error_xy.T]
    if columns == 3:
        error.append(_DEPTH_WEIGHT * (_mean_removed(p[:, 2]) - _mean_removed(seen_px[:, 2]) * view.units_per_px))
    robust = 1 / np.sqrt(1 + (np.linalg.norm(error_xy, axis=1) / (3 * sigma)) ** 2)
    w = [np.tile(weight * robust / sigma, columns)]
    if outline is not None:
        error.append(outline.off(error_xy))
        w.append(outline.weight / np.sqrt(1 + (error[-1] / (3 * outline.sigma)) ** 2) / outline.sigma)

    def derivative(dp: Float[np.ndarray, "k l 3"]) -> Float[np.ndarray, "k n"]:
        """How the stacked errors move with camera-frame displacements of the points."""
        d_xy = PANOHEAD_RADIUS * (dp[..., :2] - normalised * dp[..., 2:]) / depth
        return stacked(d_xy, dp[..., 2])

    def stacked(d_xy: Float[np.ndarray, "k l 2"], d_depth: Float[np.ndarray, "k l"]) -> Float[np.ndarray, "k n"]:
        """Changes of the errors in the picture and in depth, in the order of the stacked ones."""
        parts = [d_xy[..., 0], d_xy[..., 1], _DEPTH_WEIGHT * _mean_removed(d_depth)][:columns]
        return np.concatenate(parts if outline is None else [*parts, outline.off(d_xy)], axis=1)

    jacobian = np.concatenate(
        [
            derivative(linear.shapes @ view.R_camera_world.T),
            derivative(np.stack([np.cross(axis, p) for axis in np.eye(3)])),
            stacked(PANOHEAD_RADIUS * normalised[None], np.zeros((1, n))),  # log focal
            stacked(np.repeat(np.eye(2)[:, None], n, axis=1), np.zeros((2, n))),  # principal point
        ]
    )
    w = np.concatenate(w)
    weighted = jacobian * w
    H = weighted @ weighted.T + np.pad(linear.prior, (0, 6))
    H[np.diag_indices_from(H)] += damping
    g = weighted @ (np.concatenate(error) * w) + np.concatenate([linear.prior @ shape, np.zeros(6)])
    return -np.linalg.solve(H, g)


def _mean_removed(values: Float[np.ndarray, "... l"]) -> Float[np.ndarray, "... l"]:
    return values - values.mean(-1, keepdims=True)


def _first_view(points: Float[np.ndarray, "l 3"], landmarks_px: Float[np.ndarray, "l 3"]) -> View:
    """Orthogonal Procrustes between model landmarks and mediapipe's 3D ones."""
    source = (points - points.mean(0)) @ FLIP_YZ
    target = landmarks_px - landmarks_px.mean(0)
    U, _, Vt = np.linalg.svd(target.T @ source)
    R = U @ np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))]) @ Vt @ FLIP_YZ
    pixels_per_unit = float(np.sqrt((target**2).sum() / (source**2).sum()))
    principal = landmarks_px[:, :2].mean(0) - pixels_per_unit * (points.mean(0) @ R.T)[:2]
    return View(R, pixels_per_unit * PANOHEAD_RADIUS, principal)


def _camera_direction(R_camera_world: Float[np.ndarray, "3 3"]) -> tuple[float, float]:
    """Azimuth and elevation of the camera that looks at the head's middle, radians."""
    x, y, z = -R_camera_world[2]
    return float(np.arctan2(x, z)), float(np.arctan2(y, np.hypot(x, z)))


def fit_landmarks(
    model: HeadModel, landmarks_px: Float[np.ndarray, "478 3"], width: int, height: int, *, iterations: int = 14
) -> HeadFit:
    """Fit head and camera to mediapipe's landmarks.

    Args:
        landmarks_px: x, y in pixels and z in the same scale (smaller is nearer), 478 rows.

    Returns:
        The fitted head. Its camera has square pixels and looks from 2.7 world units away.
    """
    linear = LinearPoints.of(model, model.landmark_vertices, model.landmark_weights, _IDENTITY_RIDGE, _EXPRESSION_RIDGE)
    linear = linear.of_usual_size(_SIZE_SIGMA)
    sigma = _SIGMA_FLOOR + 0.5 * np.minimum(np.nan_to_num(model.landmark_spread, nan=0.02), 0.02)
    weight = np.sqrt(_INDEPENDENT_LANDMARKS / len(sigma)) * model.landmark_valid.astype(np.float64)
    weight[FACE_OVAL_LANDMARKS] *= _OVAL_WEIGHT
    weight[_IRIS_LANDMARKS] = 0.0  # they follow the gaze, which the model does not have
    oval, independent = np.array(FACE_OVAL_LANDMARKS), float(np.sqrt(_INDEPENDENT_LANDMARKS / len(sigma)))
    around = landmarks_px[oval[_OUTLINE.start - 1 : _OUTLINE.stop + 1], :2]
    outline = Outline.of(oval[_OUTLINE], around, _OUTLINE_SIGMA, independent)
    view, shape = _first_view(linear.base, landmarks_px), np.zeros(len(linear.prior))
    stiffer = np.diag((np.arange(len(shape)) < linear.identities) * (_TURNED_RIDGE**2 - _IDENTITY_RIDGE**2))
    for _ in range(iterations):
        direction = _camera_direction(view.R_camera_world)
        turned = float(ramp(np.abs(direction[:1]), *_TURNED_RAD)[0])
        points = linear.at(shape) + model.landmark_offsets(*direction)
        prior, still_seen = linear.prior + turned * stiffer, replace(outline, weight=(1 - turned) * independent)
        held = replace(linear, prior=prior)
        step = gauss_newton_step(view, points, held, shape, landmarks_px, sigma, weight, 1e-9, still_seen)
        shape, view = linear.held(shape + step[:-6]), view.moved(step[-6:])
    identity, expression = np.split(shape, [linear.identities])
    vertices = model.vertices(identity, expression)
    points = model.landmarks(vertices) + model.landmark_offsets(*_camera_direction(view.R_camera_world))
    residual_px = np.linalg.norm(view.project(points) - landmarks_px[:, :2], axis=1)
    return HeadFit(identity, expression, vertices, view.camera(width, height), residual_px)


def mean_head_fit(
    model: HeadModel, focal_px: float, principal_px: tuple[float, float], width: int, height: int
) -> HeadFit:
    """The mean head seen straight from the front, for pictures without a detectable face.

    Args:
        focal_px: focal length in pixels; the head is `focal_px / 2.7` pixels per world unit large.
        principal_px: where the head's middle appears.
    """
    return HeadFit(
        np.zeros(len(model.identity_basis)),
        np.zeros(len(model.expression_basis)),
        model.neutral.astype(np.float64),
        View(FLIP_YZ, focal_px, np.array(principal_px)).camera(width, height),
        np.zeros(len(model.landmark_vertices)),
    )

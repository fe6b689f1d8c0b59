"""Fit the form of a pair of glasses to what a portrait shows of its wires.

Both ways: every point of the projected rims looks for a wire nearby, and every pixel that looks like wire for a rim,
the bridge, a hinge or an arm. Distances count robustly, for lids and creases look like wires too and parts of the rims
are hidden. What the picture does not tell, anatomy and usual forms do.

Source: Barrow et al., "Parametric correspondence and chamfer matching", IJCAI 1977 (distances both ways).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float, Float32

from ...cameras import UNITS_PER_CM, Cameras
from ...head_model.anatomy import world_units
from .frame_evidence import FrameEvidence, sampled
from .frame_shape import BRIDGE_POINTS, RIM_SAMPLES, FrameShape, WearersFace, upper_parts, wire_points


class _Usual(NamedTuple):
    """What a number of `FrameShape` usually is."""

    mean: float
    deviation: float
    low: float
    high: float


_USUAL = {
    "x_cm": _Usual(0.0, 0.25, -0.8, 0.8),
    "y_cm": _Usual(-0.3, 0.6, -3.0, 1.2),
    "z_cm": _Usual(0.0, 0.35, -0.5, 1.5),
    "roll_rad": _Usual(0.0, 0.05, -0.2, 0.2),
    "yaw_rad": _Usual(0.0, 0.035, -0.12, 0.12),
    "tilt_rad": _Usual(0.09, 0.05, -0.1, 0.3),
    "half_width_cm": _Usual(2.6, 0.35, 1.7, 3.7),
    "half_height_cm": _Usual(1.95, 0.5, 0.9, 3.3),
    "exponent": _Usual(3.0, 1.0, 1.6, 7.0),
    "lift_cm": _Usual(0.0, 0.3, -0.8, 1.0),
    "taper": _Usual(0.04, 0.07, -0.15, 0.3),
    "half_gap_cm": _Usual(0.85, 0.2, 0.35, 1.5),
    "bridge_share": _Usual(0.35, 0.3, -0.5, 1.0),
    "hinge_share": _Usual(0.5, 0.25, -0.3, 0.95),
    "ear_drop_cm": _Usual(0.35, 0.5, -1.0, 2.0),
}
"""In the order of the fields of `FrameShape`. Spectacles have lenses 44 to 60 mm wide and bridges of 14 to 24 mm (the
box system of ISO 8624); tilts are 5 to 12 degrees."""
_STEP = 0.02
"""Steps of the numeric derivative, in usual deviations."""
_START_HEIGHTS_CM, _START_EXPONENTS = (1.3, 1.8, 2.5), (2.2, 4.5)
_TURNED_RAD, _FARTHER_CM = 0.2, 0.6
"""Where the head is turned by more than the first, it matters how far the frame is from the face: one more start."""
_START_STEPS, _MOST_STEPS = 6, 30
"""Steps from each start, and from the best of them on."""
_NOISE_CM = 0.12
"""Distances above this count less and less."""
_MOST_CM = 0.8
"""Distances above this count alike."""
_LEAST_WIRE_PX = 40
"""Fewer pixels of wire are no frame."""
_LEVELS = ((0.6, 0.0), (0.35, 0.07), (0.18, 0.2))
"""Wires of at least these likelihoods are as good as certain ones that lie so many centimetres farther away."""
_MOST_PIXELS = 260
"""As many pixels of wire look for the frame."""
_PIXEL_WEIGHT, _CURVE_WEIGHT, _LINE_WEIGHT, _USUAL_WEIGHT = 1.0, 1.0, 1.0, 0.08
"""Weights of the two directions, of lines along the rims, each a mean over its points, and of what is usual, a sum."""
_MISSING = 0.6
"""A lower rim that is not looked for counts like one that is off by this cost at every point."""
_LEAST_HEIGHT_CM = 1.35
"""Rims that are lower than twice this are doubted: a half rim may have been taken for a narrow one."""
_BRIDGE_POINTS = 0.7
"""How much a point of the bridge counts beside one of a rim."""


@dataclass(frozen=True)
class FittedFrame:
    """A form and how well it agrees."""

    shape: FrameShape
    """The form."""
    cost: float
    """Half the sum of weighted squares that is left."""


def fit_frame(
    evidence: FrameEvidence,
    camera: Cameras,
    face: WearersFace,
    *,
    forwards_cm: float = 0.0,
    start: FrameShape | None = None,
) -> FittedFrame:
    """The form that agrees best with what is seen. Deterministic; a few tenths of a second.

    Args:
        evidence: from `find_frame`.
        camera: that of the portrait.
        face: of the fitted head.
        forwards_cm: how much farther in front of the face the frame has to be than usual, so that it clears brows and
            cheeks.
        start: a form nearby, as a start in place of the usual ones.
    """
    problem = _Problem.of(evidence, camera, face, forwards_cm)
    if start is None:
        turned = abs(float(camera.azimuth_rad[0])) > _TURNED_RAD
        starts = [
            problem.start(half_height_cm=height, exponent=exponent, z_cm=z, y_cm=problem.height_cm())
            for height in _START_HEIGHTS_CM
            for exponent in _START_EXPONENTS
            for z in (0.0, _FARTHER_CM)[: 1 + turned]
        ]
        best = min((problem.solve(x, _START_STEPS) for x in starts), key=lambda done: done.cost).x
    else:
        best = (start.vector() - problem.usual[:, 0]) / problem.usual[:, 1]
    done = problem.solve(best, _MOST_STEPS)
    if start is None and problem.doubts_lower_rim(done.x):
        half = replace(problem, lower=False)
        height = problem.height_cm()
        starts = [half.start(half_height_cm=h, y_cm=height - 0.5 * h) for h in _START_HEIGHTS_CM]
        found = min((half.solve(x, _MOST_STEPS) for x in starts), key=lambda done: done.cost)
        done = found if found.cost < done.cost else done
    return FittedFrame(problem.shape(done.x), float(done.cost))


def shows_wires(evidence: FrameEvidence) -> bool:
    """Whether there is anything that a frame can be fitted to: shadows may be taken for glasses."""
    return int((evidence.wire > _LEVELS[-1][0]).sum()) >= _LEAST_WIRE_PX


@dataclass(frozen=True)
class _Problem:
    """Residuals of a form given in usual deviations from the usual form."""

    P_px: Float[np.ndarray, "3 4"]
    """The portrait's camera: homogeneous pixels of points in centimetres."""
    face: WearersFace
    usual: Float[np.ndarray, "k 4"]
    maps: Float32[np.ndarray, "s s 6"]
    """From every pixel to the next wire, centimetres, with its derivatives; how far it is no line, likewise."""
    wires_px: Float[np.ndarray, "p 2"]
    """Pixels of wire."""
    weights: Float[np.ndarray, " p"]
    """How likely they are, with mean 1."""
    px_per_cm: float
    lower: bool = True
    """The lower rims are looked for."""

    @classmethod
    def of(cls, evidence: FrameEvidence, camera: Cameras, face: WearersFace, forwards_cm: float) -> _Problem:
        """What is fitted to."""
        wire, scale = evidence.wire, evidence.px_per_cm
        to_wire = np.full(wire.shape, _MOST_CM, np.float32)
        for level, farther in _LEVELS:
            away = cv2.distanceTransform((wire < level).astype(np.uint8), cv2.DIST_L2, 5) / np.float32(scale)
            to_wire = np.minimum(to_wire, away + np.float32(farther))
        rows, columns = np.nonzero(wire > _LEVELS[-1][0])
        likely = wire[rows, columns].astype(np.float64)
        order = np.argsort(-likely, kind="stable")
        step = max(1, len(order) // _MOST_PIXELS)
        chosen = order[step // 2 :: step]
        wires = np.stack([columns, rows], axis=1)[chosen] + 0.5
        usual = np.array(list(_USUAL.values()))
        usual[list(_USUAL).index("z_cm"), [0, 2, 3]] += forwards_cm
        maps = np.stack([*_with_slopes(to_wire), *_with_slopes(1 - evidence.line)], axis=-1)
        return cls(
            _projection(camera), face, usual, maps, wires, likely[chosen] / max(likely[chosen].mean(), 1e-9), scale
        )

    def start(self, **known: float) -> Float[np.ndarray, " k"]:
        """The usual form but for some numbers."""
        x = np.zeros(len(self.usual))
        for name, value in known.items():
            row = list(_USUAL).index(name)
            x[row] = (value - self.usual[row, 0]) / self.usual[row, 1]
        return x

    def height_cm(self) -> float:
        """How far wires lie above the eyes on average."""
        eyes = self.project_px(self.face.eyes_cm)
        across = (eyes[1] - eyes[0]) / max(float(np.linalg.norm(eyes[1] - eyes[0])), 1e-6)
        off = self.wires_px - eyes.mean(0)
        return float(np.average(off @ [across[1], -across[0]], weights=self.weights)) / self.px_per_cm

    def project_px(self, points_cm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        """Places in the picture."""
        homogeneous = points_cm @ self.P_px[:, :3].T + self.P_px[:, 3]
        return homogeneous[..., :2] / homogeneous[..., 2:]

    def shape(self, x: Float[np.ndarray, " k"]) -> FrameShape:
        """The form of a vector."""
        mean, deviation, low, high = self.usual.T
        return FrameShape.of_vector(np.clip(mean + deviation * x, low, high))

    def solve(self, start: Float[np.ndarray, " k"], steps: int) -> scipy.optimize.OptimizeResult:
        """The nearest minimum, or what is reached on the way there."""
        mean, deviation, low, high = self.usual.T
        bounds = ((low - mean) / deviation, (high - mean) / deviation)
        start = np.clip(start, bounds[0] + 1e-6, bounds[1] - 1e-6)
        jacobian: Any = self.jacobian  # scipy's stubs know names of methods only
        return scipy.optimize.least_squares(
            self.residuals, start, jac=jacobian, bounds=bounds, max_nfev=steps, xtol=1e-4, ftol=1e-5
        )

    def points_px(self, xs: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "m n 2"]:
        """Points of the wires in the picture, for many vectors."""
        mean, deviation, low, high = self.usual.T
        points = wire_points(np.clip(mean + deviation * xs, low, high), self.face)
        return self.project_px(points)

    def residuals(self, x: Float[np.ndarray, " k"]) -> Float[np.ndarray, " r"]:
        """What is to be small."""
        return self._terms(x)[0]

    def jacobian(self, x: Float[np.ndarray, " k"]) -> Float[np.ndarray, "r k"]:
        """Derivatives; those of the points are differences, the others follow from the pictures' slopes."""
        _, px, slopes_curve, slopes_line, slopes_pixel, nearest = self._terms(x)
        top = (self.usual[:, 3] - self.usual[:, 0]) / self.usual[:, 1]
        step = np.where(x < top - _STEP, _STEP, -_STEP)
        moves = (self.points_px(x + np.diag(step)) - px) / step[:, None, None]
        moves = np.moveaxis(moves, 0, -1)
        n, m = len(slopes_curve), len(slopes_line)
        usual = np.eye(len(x)) * np.sqrt(_USUAL_WEIGHT / len(x))
        return np.concatenate([
            np.einsum("nc,nck->nk", slopes_curve, moves[:n]), np.einsum("nc,nck->nk", slopes_line, moves[:m]),
            np.einsum("nc,nck->nk", slopes_pixel, moves[nearest]), usual,
        ])  # fmt: skip

    def doubts_lower_rim(self, x: Float[np.ndarray, " k"]) -> bool:
        """Whether the lower rims are mostly away from what is seen, or the whole is very narrow."""
        px = self.points_px(x[None])[0, : 2 * RIM_SAMPLES]
        cost = _robust(sampled(np.ascontiguousarray(self.maps[..., 0]), px).astype(np.float64))[0] ** 2
        return float(cost[~self._upper(x)].mean()) > _MISSING or self.shape(x).half_height_cm < _LEAST_HEIGHT_CM

    def _upper(self, x: Float[np.ndarray, " k"]) -> Bool[np.ndarray, " n"]:
        """Which points of the two rims are upper ones."""
        return upper_parts(self.shape(x)).ravel()

    def _terms(self, x: Float[np.ndarray, " k"]):
        """Residuals, points, and the residuals' slopes over the points' places."""
        px, rims, bridge = self.points_px(x[None])[0], 2 * RIM_SAMPLES, BRIDGE_POINTS
        counted = np.ones(rims + bridge)
        counted[rims:] = _BRIDGE_POINTS
        curve_share = np.sqrt(_CURVE_WEIGHT * counted / counted.sum())
        line_share = np.sqrt(_LINE_WEIGHT / rims)
        pixel_share = np.sqrt(_PIXEL_WEIGHT * self.weights / len(self.weights))
        seen = sampled(self.maps, px[: rims + bridge]).astype(np.float64)
        to_wire, steepness = _robust(seen[:, 0])
        if not self.lower:
            missing = np.concatenate([~self._upper(x), np.zeros(bridge, bool)])
            to_wire[missing], steepness[missing] = math.sqrt(_MISSING), 0.0
            seen[missing, 3:] = [math.sqrt(_MISSING), 0.0, 0.0]
        off = px[None] - self.wires_px[:, None]
        squared = off[..., 0] ** 2 + off[..., 1] ** 2
        nearest = squared.argmin(1)
        every = np.arange(len(nearest))
        distance = np.sqrt(squared[every, nearest])
        away, away_steepness = _robust(distance / self.px_per_cm)
        towards = off[every, nearest] / np.maximum(distance, 1e-6)[:, None] / self.px_per_cm
        residuals = np.concatenate([
            to_wire * curve_share, seen[:rims, 3] * line_share, away * pixel_share,
            x * np.sqrt(_USUAL_WEIGHT / len(x)),
        ])  # fmt: skip
        return (
            residuals, px, seen[:, 1:3] * (steepness * curve_share)[:, None], seen[:rims, 4:] * line_share,
            towards * (away_steepness * pixel_share)[:, None], nearest,
        )  # fmt: skip


def _projection(camera: Cameras) -> Float[np.ndarray, "3 4"]:
    """Homogeneous pixels of points in the centimetres of `anatomy`."""
    P = camera.K_px[0].numpy() @ camera.T_camera_world[0, :3].numpy()
    shift = P[:, :3] @ world_units(np.zeros(3)) + P[:, 3]
    return np.concatenate([P[:, :3] * UNITS_PER_CM, shift[:, None]], axis=1)


def _with_slopes(picture: Float32[np.ndarray, "s s"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture and its derivatives along x and y, per pixel."""
    down, across = np.gradient(picture)
    return picture, across, down


def _robust(away_cm: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Square roots of Geman and McClure's cost of distances in units of the noise, and their derivatives."""
    d = np.minimum(away_cm, _MOST_CM) / _NOISE_CM
    width = 1 + 0.3 * d * d
    return d / np.sqrt(width), np.where(away_cm < _MOST_CM, width**-1.5 / _NOISE_CM, 0.0)

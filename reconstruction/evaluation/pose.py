"""Does each view show the head from where it was meant to? Intended against estimated camera, view by view.

Two estimators share the work. Where the face can be seen, mediapipe's landmarks are fitted with the parametric head,
which gives the rotation between camera and face. Elsewhere the view's outline is compared with the outline of the same
head in its other views: their visual hull is turned about the head's middle until the outlines agree best.

What each can say, measured on true views of composed heads, whose cameras are right. The face fit errs by 4.6 degrees
within 15 degrees of straight ahead, 4.7 up to 30, 3.8 up to 45, 7.1 up to 60 and 13 beyond (5 heads, 45 views); part of
it is constant, what it takes for straight ahead, hence the figures without the rotation common to all face views. POSE
of perfect views is therefore 0.001 to 0.005 here, not 0. The outline errs by 1.1 degrees (4 heads, 68 views), but it
measures a view against the others: a turn that all share cannot be seen, and how well one can be seen depends on the
head's shape. Each answer comes with an uncertainty, about as large as the error, and is refused where that is large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage
from scipy.spatial.transform import Rotation as ScipyRotation

from dp360.generation import Cameras, ViewSet
from dp360.generation.dataset.visual_hull import OUTSIDE_SHARE, focus_point
from dp360.generation.head_model import fit_landmarks, load_head_model
from dp360.generation.mesh_raster import rasterize_mesh
from dp360.generation.portrait import FaceNetworks, find_faces
from dp360.generation.progress import Track, silent

from .compare import picture_over_white

Rotation = Float[np.ndarray, "3 3"]
Residual = Callable[[Rotation], Float[np.ndarray, " n"]]
HullMesh = tuple[Float[np.ndarray, "_ 3"], Int[np.ndarray, "_ 3"]]
"""Vertices in world units and faces of a visual hull."""
FaceRotation = Callable[[np.ndarray], Rotation | None]
"""R_world_camera (OpenCV camera, the face looks to the world's +z) of an 8-bit picture; None without a face."""


def rotation_angle_deg(R_a: Rotation, R_b: Rotation) -> float:
    """Geodesic angle between two rotations, degrees in [0, 180]."""
    return math.degrees(ScipyRotation.from_matrix(R_a.T @ R_b).magnitude())


def rotation_mse(R_a: Rotation, R_b: Rotation) -> float:
    """Mean over the nine entries of the squared difference of two rotation matrices: `POSE` of one view.

    It is the angle in other clothes: |R_a - R_b|_F^2 = 4 (1 - cos angle), so this is 4/9 (1 - cos angle).

    Source: the metric's name and its use for view control are DiffPortrait3D's (Gu et al., CVPR 2024,
    https://arxiv.org/abs/2312.13016, Tab. 1) and DiffPortrait360's (Gu et al., CVPR 2025,
    https://arxiv.org/abs/2503.15667, supplement B.1: 0.0018 with image-based control, 0.0081 with camera parameters,
    which refers to that table and adds no definition). The releases hold no evaluation code. Not known are therefore
    the pose estimator, whether the truth is the camera asked for or the estimate on a true picture, and whether the
    squares are summed or averaged. Averaged as here, 0.0018 is a turn of 5.2 degrees and 0.0081 one of 11.0; if they
    were summed, 1.7 and 3.6 degrees. Figures of this module must not be put beside theirs without saying so.
    """
    return float(np.mean((R_a - R_b) ** 2))


def _errors(estimate: Rotation | None, intended: Rotation) -> tuple[float, float]:
    """`rotation_angle_deg` and `rotation_mse`, not-a-number without an estimate."""
    if estimate is None:
        return math.nan, math.nan
    return rotation_angle_deg(estimate, intended), rotation_mse(estimate, intended)


@dataclass(frozen=True)
class PoseConfig:
    """Which estimator is asked where, and when it is believed."""

    most_face_angle_deg: float = 60.0
    """Faces are asked up to this angle between the camera's direction and straight ahead of the face, degrees."""
    reach_deg: float = 30.0
    """Outlines are searched this far about the intended camera, degrees."""
    most_uncertainty_deg: float = 6.0
    """An outline whose answer is less certain than this is refused, degrees."""
    least_overlap: float = 0.8
    """An outline that agrees worse than this (intersection over union) with the best turn of the hull is refused."""
    outline_px: int = 160
    """Longer side of the pictures in which outlines are compared, pixels."""
    hull_cells: int = 80
    """Cells along each side of the hull's cube."""
    least_outlines: int = 6
    """Fewer other outlines than this make no hull."""


PoseMethod = Literal["face", "silhouette", "none"]


@dataclass(frozen=True)
class PoseRow:
    """One view. Not-a-number where there is no estimate."""

    name: str
    """Name of the view."""
    azimuth_deg: float
    """Intended azimuth, degrees."""
    elevation_deg: float
    """Intended elevation, degrees."""
    method: PoseMethod
    """Who estimated the camera."""
    error_deg: float
    """Angle between intended and estimated rotation, degrees."""
    mse: float
    """`rotation_mse` of the two."""
    common_removed_error_deg: float
    """The same after the rotation common to all face views was taken out; faces only."""
    common_removed_mse: float
    """The same after the rotation common to all face views was taken out; faces only."""
    outline_error_deg: float
    """What the outline says against the other views, whoever estimated the camera, degrees."""
    outline_mse: float
    """`rotation_mse` of the outline's estimate."""
    outline_uncertainty_deg: float
    """How far the outline's answer may be off, degrees; also of refused ones."""
    outline_refused: str
    """Why the outline gives no answer; empty where it does."""


@dataclass(frozen=True)
class PoseReport:
    """All views, and means over those of one method."""

    rows: tuple[PoseRow, ...]
    """One per view, in the order of the views."""
    means: Mapping[str, float | int]
    """Numbers of views, mean angles in degrees and mean `rotation_mse`, not-a-number where there is none:
    `face_views`, `face_error_deg` and `face_mse` (POSE) of the views measured by their face, likewise
    `face_common_removed_...` without the common rotation (from three face views on), `silhouette_...` of the views
    measured by their outline, and `outline_...` of all whose outline gives an answer; `unmeasured_views` without an
    estimate; `common_rotation_deg`, by which estimates and intended cameras of all face views differ: the estimator's
    own idea of straight ahead, and any turn that all views share."""

    def plain(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {"rows": [asdict(row) for row in self.rows], **self.means}


class FaceRotationFit:
    """The parametric head fitted to the landmarks of the largest face."""

    def __init__(self) -> None:
        self._faces, self._model = FaceNetworks(), load_head_model()

    def __call__(self, rgb: np.ndarray) -> Rotation | None:
        """As `FaceRotation`."""
        faces = find_faces(rgb, self._faces)
        if not faces:
            return None
        fit = fit_landmarks(self._model, faces[0].landmarks_px, rgb.shape[1], rgb.shape[0])
        return fit.camera.T_world_camera[0, :3, :3].numpy()


@dataclass(frozen=True)
class OutlineRotation:
    """What an outline says about its camera."""

    R_world_camera: Rotation
    """The estimated rotation."""
    uncertainty_deg: float
    """How far it may be off in its least certain direction, degrees."""
    overlap: float
    """Intersection over union of the outline and the turned hull's."""


def measure_pose(
    views: ViewSet,
    *,
    face_rotation: FaceRotation,
    config: PoseConfig | None = None,
    track: Track = silent,
) -> PoseReport:
    """Intended against estimated camera of every view.

    Args:
        views: the views with the cameras that they were meant to be seen from.
        face_rotation: who estimates rotations from faces, for example `FaceRotationFit`.
        config: who is asked where.

    Returns:
        A row per view and means. The rows do not depend on the order of the views.
    """
    config = config or PoseConfig()
    intended = views.cameras.T_world_camera[:, :3, :3].numpy()
    faces: dict[int, Rotation] = {}
    for k in track(range(len(views)), total=len(views), description="Faces of the views"):
        if _off_front_deg(views.cameras, k) <= config.most_face_angle_deg + 1e-6:
            R = face_rotation(picture_over_white(views, k))
            if R is not None:
                faces[k] = R
    answers = _asked_outlines(views, config, track)
    common = None
    if len(faces) >= 3:
        turns = [faces[k] @ intended[k].T for k in sorted(faces, key=lambda k: views.names[k])]
        common = ScipyRotation.from_matrix(np.stack(turns)).mean().as_matrix()  # nearest in the sum of squared entries
    rows = []
    for k, name in enumerate(views.names):
        answer = answers[k]
        reason = answer if isinstance(answer, str) else _refusal(answer, intended[k], config)
        outline = answer.R_world_camera if isinstance(answer, OutlineRotation) and not reason else None
        estimate = faces.get(k, outline)
        straight = common.T @ faces[k] if common is not None and k in faces else None
        rows.append(
            PoseRow(
                name,
                math.degrees(float(views.cameras.azimuth_rad[k])),
                math.degrees(float(views.cameras.elevation_rad[k])),
                "face" if k in faces else "none" if outline is None else "silhouette",
                *_errors(estimate, intended[k]),
                *_errors(straight, intended[k]),
                *_errors(outline, intended[k]),
                math.nan if isinstance(answer, str) else answer.uncertainty_deg,
                reason,
            )
        )
    return _report(tuple(rows), common)


def _asked_outlines(views: ViewSet, config: PoseConfig, track: Track) -> list[OutlineRotation | str]:
    """What every view's outline says; where some are surely wrong, once more against a hull without those.

    A camera that is wrong makes the hull wrong for all others. Those that are wrong stand out by their error over its
    uncertainty, and those that only suffer from them do not.
    """

    def asked(left_out: frozenset[int]) -> list[OutlineRotation | str]:
        hull = OutlineHull(views, config, left_out)
        return [hull.rotation_of(k) for k in track(range(len(views)), total=len(views), description="Outlines")]

    answers = asked(frozenset())
    doubt = {
        k: rotation_angle_deg(answer.R_world_camera, views.cameras.T_world_camera[k, :3, :3].numpy())
        / max(answer.uncertainty_deg, _LEAST_UNCERTAINTY_DEG)
        for k, answer in enumerate(answers)
        if isinstance(answer, OutlineRotation) and answer.uncertainty_deg <= config.most_uncertainty_deg
    }
    worst = sorted((k for k in doubt if doubt[k] > _SURELY_WRONG), key=lambda k: (-doubt[k], views.names[k]))
    worst = worst[: len(views) // 3]
    return asked(frozenset(worst)) if worst else answers


def _report(rows: tuple[PoseRow, ...], common: Rotation | None) -> PoseReport:
    by_face = [row for row in rows if row.method == "face"]
    by_outline = [row for row in rows if row.method == "silhouette"]
    groups = {
        "face": ("", by_face),
        "face_common_removed": ("common_removed_", by_face),
        "silhouette": ("", by_outline),
        "outline": ("outline_", [row for row in rows if not row.outline_refused]),
    }
    means: dict[str, float] = {"unmeasured_views": len(rows) - len(by_face) - len(by_outline)}
    means["common_rotation_deg"] = math.nan if common is None else rotation_angle_deg(common, np.eye(3))
    for name, (figures, group) in groups.items():
        means[f"{name}_views"] = len(group)
        for figure in ("error_deg", "mse"):
            values = [getattr(row, figures + figure) for row in group]
            means[f"{name}_{figure}"] = math.fsum(values) / len(group) if group else math.nan
    return PoseReport(rows, means)


def _off_front_deg(cameras: Cameras, index: int) -> float:
    """Angle between the world's z axis and the direction towards a camera, degrees."""
    cosine = math.cos(float(cameras.azimuth_rad[index])) * math.cos(float(cameras.elevation_rad[index]))
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


def _refusal(found: OutlineRotation, intended: Rotation, config: PoseConfig) -> str:
    """Why an outline's answer is not believed; empty where it is."""
    if found.overlap < config.least_overlap:
        return f"its outline fits no turn of the head (overlap {found.overlap:.2f})"
    if found.uncertainty_deg > config.most_uncertainty_deg:
        return f"its outline hardly changes when the head turns (uncertain by {found.uncertainty_deg:.0f} degrees)"
    if rotation_angle_deg(found.R_world_camera, intended) > config.reach_deg:
        return f"its outline agrees best with a turn of more than {config.reach_deg:.0f} degrees"
    return ""


_HULL_REACH = 1.25
"""Side of the hull's cube over the width that pictures show at the head's middle."""
_WELL_SEEN_SHARE = 0.6
"""What fewer of the views have in their frame may be there or not; pixels that depend on it are not compared."""
_UNSURE_REACH_PX = 3
"""Nor are pixels this near to those."""
_MOST_FIELD_PX = 512
"""Longer side of the pictures that carve the hull."""
_BLUR_PX = 1.5
"""Outlines are compared this soft, pixels, so that the difference grows smoothly with the turn."""
_STEP_RAD = math.radians(1.5)
"""Step of the finite differences."""
_SCAN_DEG = ((-24.0, -16.0, -8.0, 0.0, 8.0, 16.0, 24.0), (-16.0, 0.0, 16.0))
"""Turns about the picture's vertical and horizontal that the search starts from."""
_STARTS, _RIVAL = 3, 2.0
"""The search goes on from so many of them, if they are at most so many times as bad as the best; ends that differ no
more than that are equally good answers, and the uncertainty is the turn between them."""
_ITERATIONS = 8
_INDEPENDENT_PIECES = 12.0
"""Pieces of an outline whose disagreement with the hull's is taken as independent; measured on heads with truth."""
_LEAST_NOISE_PX = 0.1
"""Outlines are not taken to be better known than this, pixels."""
_SURELY_WRONG, _LEAST_UNCERTAINTY_DEG = 4.0, 0.5
"""A camera whose error is this many times its uncertainty is wrong; the least uncertainty that is believed, degrees."""
_EMPTY_SHARE, _FULL_SHARE = 0.01, 0.98


class OutlineHull:
    """The alphas of a data set: outlines to be explained, and the visual hull that explains those of others.

    The hull is an implicit function on a grid: each view says how far a place lies outside its outline (world units),
    and a place is as far outside as the view says that ranks after the few (`OUTSIDE_SHARE`) that may be wrong. One
    view is left out exactly: of the ranked values one more is kept, and it moves up where the view's own was above.

    Source: Laurentini, "The Visual Hull Concept for Silhouette-Based Image Understanding", PAMI 1994.

    Args:
        views: pictures with alpha; those that are nearly empty or full have no outline.
        left_out: views that do not carve.
    """

    def __init__(self, views: ViewSet, config: PoseConfig, left_out: frozenset[int]) -> None:
        self._config, self._views = config, views
        share = (views.rgba[..., 3] >= 128).float().mean(dim=(1, 2)).numpy()
        self._has_outline = (share > _EMPTY_SHARE) & (share < _FULL_SHARE)
        self._usable = [k for k in range(len(views)) if self._has_outline[k] and k not in left_out]
        self._ranked: Float32[np.ndarray, "r p"] | None = None

    def rotation_of(self, index: int) -> OutlineRotation | str:
        """The turn of the other views' hull that explains one outline best, or why there is no answer."""
        if not self._has_outline[index]:
            return "it has no outline: the picture is empty or filled"
        if len([k for k in self._usable if k != index]) < self._config.least_outlines:
            return f"fewer than {self._config.least_outlines} other views have an outline"
        surfaces = self._surfaces(index)
        if surfaces is None:
            return "the other views' outlines have no common inside"
        alpha, camera = self._views.rgba[index, ..., 3].numpy(), self._views.cameras[index]
        return _fitted_turn(*surfaces, alpha, camera, self._focus, self._seen_radius, self._config)

    def _surfaces(self, without: int) -> tuple[HullMesh, HullMesh] | None:
        """Two meshes of the hull, one view left out: what surely is there, and what may be.

        They differ where too few views look (`_WELL_SEEN_SHARE`): shoulders that leave the frames, corners of the cube.
        """
        if self._ranked is None:
            self._carve()
        assert self._ranked is not None
        outside, seen, others = self._ranked[-2], self._seen, len(self._usable)
        if without in self._usable:
            own, shown = self._outside_of(without)
            outside, seen, others = np.where(own >= outside, self._ranked[-1], outside), seen - shown, others - 1
        cell = self._grid[1] - self._grid[0]
        surely = self._mesh(np.where(seen >= _WELL_SEEN_SHARE * others, outside, cell))
        return None if surely is None else (surely, self._mesh(outside) or surely)

    def _mesh(self, outside: Float[np.ndarray, " p"]) -> HullMesh | None:
        """Where a function of the cells changes its sign; None where it does not."""
        from skimage.measure import marching_cubes

        cell = self._grid[1] - self._grid[0]
        field = np.clip(outside, -3 * cell, 3 * cell).reshape([len(self._grid)] * 3)
        if not field.min() < 0 < field.max():
            return None
        vertices, faces, _, _ = marching_cubes(field, 0.0)
        return (vertices * cell + self._grid[0]).astype(np.float64) + self._focus, faces.astype(np.int32)

    def _carve(self) -> None:
        """Rank what all views say about every cell."""
        # In the order of their names, so that sums do not depend on the order of the views in their last digits.
        cameras = self._views.cameras[sorted(range(len(self._views)), key=lambda k: self._views.names[k])]
        self._focus = focus_point(cameras).numpy()
        distance = np.linalg.norm(cameras.position_world.numpy() - self._focus, axis=1)
        size = np.array([cameras.width, cameras.height])
        half = (0.5 * distance[:, None] * size / cameras.focal_px.numpy()).mean(axis=0)
        self._seen_radius = float(half.min())
        side = _HULL_REACH * float(half.max())
        self._grid = np.linspace(-side, side, self._config.hull_cells)
        axes = np.meshgrid(self._grid, self._grid, self._grid, indexing="ij")
        self._points = np.stack(axes, axis=-1).reshape(-1, 3).astype(np.float32) + self._focus.astype(np.float32)
        ranks = 2 + int(OUTSIDE_SHARE * len(self._usable))
        self._ranked = np.full((ranks, len(self._points)), -np.inf, np.float32)
        self._seen = np.zeros(len(self._points), np.int32)
        for k in self._usable:
            said, shown = self._outside_of(k)
            self._seen += shown
            for row in self._ranked:  # insertion into the sorted columns
                higher = np.maximum(row, said)
                said = np.minimum(row, said)
                row[:] = higher

    def _outside_of(self, index: int) -> tuple[Float32[np.ndarray, " p"], Bool[np.ndarray, " p"]]:
        """How far one view says that each cell lies outside its outline, world units, and which it has in frame."""
        alpha = self._views.rgba[index, ..., 3].numpy()
        scale = min(1.0, _MOST_FIELD_PX / max(alpha.shape))
        if scale < 1.0:
            size = (round(alpha.shape[1] * scale), round(alpha.shape[0] * scale))
            alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
        solid = (alpha >= 128).astype(np.uint8)
        # Distances are between pixel middles; the outline runs half a pixel before the first one beyond it.
        # not OpenCV's, whose last digits depend on where its result lies in memory
        out, into = (np.asarray(ndimage.distance_transform_edt(m)) for m in (1 - solid, solid))
        outside_px = np.where(solid == 1, 0.5 - into, out - 0.5).astype(np.float32)
        camera = self._views.cameras[index].resized(alpha.shape[1], alpha.shape[0])
        T, K = (m[0].numpy().astype(np.float32) for m in (camera.T_camera_world, camera.K_px))
        x, y, z = (self._points @ T[:3, :3].T + T[:3, 3]).T
        z = np.where(z > 1e-3, z, np.float32(np.inf))
        u, v = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
        shown = np.isfinite(z) & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
        row = len(self._grid)
        at_u, at_v = ((c - 0.5).reshape(-1, row).astype(np.float32) for c in (u, v))
        said = cv2.remap(outside_px, at_u, at_v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(-1)
        return np.where(shown, said * np.where(shown, z, 1) / K[0, 0], -np.inf).astype(np.float32), shown


def _fitted_turn(
    surely: HullMesh,
    maybe: HullMesh,
    alpha: np.ndarray,
    camera: Cameras,
    focus_world: Float[np.ndarray, " 3"],
    seen_radius: float,
    config: PoseConfig,
) -> OutlineRotation:
    """Turn a mesh about the focus until its outline is the picture's: Gauss-Newton on the soft difference.

    Args:
        surely: what is there.
        maybe: the same with what may be there; pixels in which the two differ are not compared.
        alpha: the picture's alpha, 8 bits.
        camera: the intended camera.
        focus_world: what the head turns about, world units.
        seen_radius: only what is nearer to the focus than this is compared, world units.
    """
    scale = config.outline_px / max(alpha.shape)
    small = camera.resized(round(camera.width * scale), round(camera.height * scale))
    target = _soft(cv2.resize(alpha, (small.width, small.height), interpolation=cv2.INTER_AREA) / np.float32(255))
    R = camera.T_world_camera[0, :3, :3].numpy()
    arm = R.T @ (camera.position_world[0].numpy() - focus_world)
    u, v, z = small.project(torch.from_numpy(focus_world)[None])[0, 0].tolist()
    rows, columns = np.mgrid[: small.height, : small.width] + 0.5
    near = np.hypot(columns - u, rows - v) < seen_radius * float(small.focal_px[0].min()) / z

    def drawn(surface: HullMesh, turn: Rotation) -> np.ndarray:
        T = small.T_world_camera.clone()
        turned = R @ turn
        T[0, :3, :3], T[0, :3, 3] = torch.from_numpy(turned), torch.from_numpy(focus_world + turned @ arm)
        seen = Cameras(T, small.focal_px, small.principal_px, small.width, small.height)
        return rasterize_mesh(*surface, seen).hit

    def compared(turn: Rotation) -> Bool[np.ndarray, "h w"]:
        unsure = (drawn(surely, turn) != drawn(maybe, turn)).astype(np.uint8)
        reach = 2 * _UNSURE_REACH_PX + 1
        return near & (cv2.dilate(unsure, np.ones((reach, reach), np.uint8)) == 0)

    def difference(where: Bool[np.ndarray, "h w"]) -> Residual:
        return lambda turn: (_soft(drawn(surely, turn)) - target)[where].astype(np.float64)

    residual = difference(compared(np.eye(3)))
    scan = [_turn([math.radians(b), math.radians(a), 0.0]) for a in _SCAN_DEG[0] for b in _SCAN_DEG[1]]
    costs = [_squared(residual(turn)) for turn in scan]
    ranked = np.argsort(np.round(costs, 3), kind="stable")[:_STARTS]
    ends = [_descended(scan[k], residual) for k in ranked if costs[k] <= _RIVAL * costs[ranked[0]]]
    best = min(ends, key=lambda turn: _squared(residual(turn)))
    # An outline that is off by s pixels at random differs by s^2 / (2 sqrt(pi) blur) per pixel of its length.
    solid = target > 0.5
    length = float(sum((np.diff(solid, axis=axis) != 0).sum() for axis in (0, 1)))
    least_noise = length * _LEAST_NOISE_PX**2 / (2 * math.sqrt(math.pi) * _BLUR_PX)
    explained = _RIVAL * max(_squared(residual(best)), least_noise)
    rivals = [rotation_angle_deg(best, turn) for turn in ends if _squared(residual(turn)) <= explained]
    where = compared(best)
    residual = difference(where)
    best = _descended(best, residual)
    jacobian = _jacobian(best, residual)
    noise = max(_squared(residual(best)), least_noise)
    weakest = max(float(np.linalg.eigvalsh(jacobian.T @ jacobian)[0]), 1e-9)
    uncertainty = min(max(math.degrees(math.sqrt(noise / _INDEPENDENT_PIECES / weakest)), *rivals), 180.0)
    ours, theirs = drawn(surely, best)[where], solid[where]
    overlap = float((ours & theirs).sum() / max((ours | theirs).sum(), 1))
    return OutlineRotation(R @ best, uncertainty, overlap)


def _descended(turn: Rotation, residual: Residual) -> Rotation:
    """Damped Gauss-Newton (Levenberg-Marquardt) over three angles."""
    damping, now, jacobian = 1e-2, residual(turn), _jacobian(turn, residual)
    for _ in range(_ITERATIONS):
        H = jacobian.T @ jacobian
        step = -np.linalg.solve(H + damping * np.diag(np.diag(H)) + 1e-9 * np.eye(3), jacobian.T @ now)
        step *= min(1.0, math.radians(8.0) / max(float(np.linalg.norm(step)), 1e-12))
        trial = turn @ _turn(step)
        then = residual(trial)
        if _squared(then) < _squared(now):
            turn, now, damping, jacobian = trial, then, 0.3 * damping, _jacobian(trial, residual)
        else:
            damping *= 10.0
        if float(np.linalg.norm(step)) < math.radians(0.05):
            break
    return turn


def _jacobian(turn: Rotation, residual: Residual) -> Float[np.ndarray, "n 3"]:
    """Central differences about the camera's three axes, per radian."""
    steps = _STEP_RAD * np.eye(3)
    return np.stack([residual(turn @ _turn(s)) - residual(turn @ _turn(-s)) for s in steps], 1) / (2 * _STEP_RAD)


def _squared(values: Float[np.ndarray, " n"]) -> float:
    return float(values @ values)


def _turn(axis_angle_rad: Sequence[float] | np.ndarray) -> Rotation:
    return cv2.Rodrigues(np.asarray(axis_angle_rad, dtype=np.float64))[0]


def _soft(mask: np.ndarray) -> Float32[np.ndarray, "h w"]:
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _BLUR_PX)

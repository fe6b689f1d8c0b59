"""Views against true views: each pair of pictures from the same camera, figures by azimuth and in all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from torch import Tensor

from dp360.generation import Cameras, InputError, ViewSet
from dp360.generation.progress import Track, silent

from .features import Perceptual, square_around

METRICS = (
    "psnr", "ssim", "perceptual", "iou", "psnr_head", "iou_head", "psnr_full", "ssim_full", "perceptual_full",
)  # fmt: skip
"""Names of the figures: inside the union of both silhouettes (`perceptual`: in the square about it), the overlap of
the silhouettes; the same above `CHIN_Y`, without the shoulders; and on the full picture over white."""
CHIN_Y = -0.153
"""Below this height a picture shows neck and shoulders, world units: about 9 cm below the head's middle."""
LOWER_IS_BETTER = frozenset({"perceptual", "perceptual_full"})
BINS = ("front", "30", "60", "90", "120", "150", "back")
"""Names of the bins of |azimuth|, 30 degrees wide about the angle; front and back are half as wide."""
ALL = "all"
_SAME_ANGLE_DEG, _SAME_SHIFT, _SAME_FOCAL = 0.5, 0.01, 0.005
"""Two cameras are the same up to this angle between their rotations, this distance of their centres as a share of the
distance from the world's origin, and this relative difference of their focal lengths over the picture's width."""
HIGHEST_PSNR_DB = 100.0
"""PSNR of equal pictures, where the formula gives infinity."""
_SSIM_RADIUS_PX = 5


@dataclass(frozen=True)
class NamedViews:
    """Views and what to call them in messages."""

    views: ViewSet
    """The views."""
    name: str
    """A folder or another name that people know them by."""

    def picture(self, index: int) -> str:
        """The file of a view, as messages name it."""
        return f"{self.name}/images/{self.views.names[index]}.png"


@dataclass(frozen=True)
class ViewFigures:
    """Figures of one view."""

    name: str
    """Name of the true view."""
    azimuth_deg: float
    """Azimuth of its camera, degrees in (-180, 180]."""
    elevation_deg: float
    """Elevation, degrees."""
    values: Mapping[str, float]
    """Value of each of `METRICS`; NaN where one could not be measured."""

    @property
    def bin(self) -> str:
        """The bin of its azimuth."""
        return azimuth_bin(self.azimuth_deg)

    def plain(self) -> dict[str, str | float]:
        """Name, direction and figures as plain data."""
        return {"name": self.name, "azimuth_deg": self.azimuth_deg, "elevation_deg": self.elevation_deg, **self.values}


@dataclass(frozen=True)
class Comparison:
    """Figures of one set of views against its truth."""

    rows: tuple[ViewFigures, ...]
    """One per true view, in the order of azimuth, then elevation, then name: independent of the order of files."""
    perceptual: str | None
    """What the perceptual distance is, None if there was none."""
    notices: tuple[str, ...]
    """Sentences that people should read."""


@dataclass(frozen=True)
class Estimate:
    """A mean over heads, or over the views of one head."""

    mean: float
    """The mean; NaN if nothing was measured."""
    interval: float | None
    """Half the width of its 95 % confidence interval (normal approximation over heads); None for fewer than two."""
    count: int
    """How many values went in."""


Summary = dict[str, dict[str, Estimate]]
"""Estimates by bin (`BINS` that occur, then `ALL`), then by metric."""


def azimuth_bin(azimuth_deg: float) -> str:
    """The bin of an azimuth in degrees."""
    angle = abs((azimuth_deg + 180) % 360 - 180)
    return BINS[min(6, int((angle + 15) // 30))]


def compare_views(
    prediction: NamedViews, truth: NamedViews, perceptual: Perceptual | None = None, *,
    skip_missing: bool = False, track: Track = silent,
) -> Comparison:  # fmt: skip
    """Figures of every true view.

    Args:
        prediction: the views to judge; those without a true counterpart do not count.
        truth: the true views, of the same picture size.
        perceptual: the perceptual distance; None leaves it out.
        skip_missing: leave true views without a counterpart out (with a notice) instead of refusing.

    Raises:
        InputError: pictures of different sizes, a true view that nobody predicted, cameras that differ although the
            names agree, or a true view whose mask is empty.
    """
    pairs, notices = match_views(prediction, truth, skip_missing=skip_missing)
    for _, index in pairs:
        if not bool((truth.views.rgba[index, ..., 3] >= 128).any()):
            raise InputError(f"The mask of {truth.picture(index)} is empty; expected the head to be opaque")
    opaque = bool((prediction.views.rgba[..., 3] == 255).all())
    if opaque and not bool((truth.views.rgba[..., 3] == 255).all()):
        notices.append(
            f"The pictures of {prediction.name} have no transparency: no overlap of silhouettes, and the true "
            "silhouette alone is the mask"
        )
    rows = []
    order = sorted(pairs, key=lambda pair: _order(truth.views, pair[1]))
    for ours, index in track(order, total=len(order), description="Comparing views"):
        rgb, alpha = over_white(prediction.views, ours)
        pictures = (rgb, None if opaque else alpha, *over_white(truth.views, index))
        rows.append(view_figures(truth.views, index, *pictures, perceptual))
    return Comparison(tuple(rows), None if perceptual is None else perceptual.name, tuple(notices))


def view_figures(
    views: ViewSet, index: int, rgb_unit: Float32[np.ndarray, "h w 3"], alpha_unit: Float32[np.ndarray, "h w"] | None,
    true_rgb_unit: Float32[np.ndarray, "h w 3"], true_alpha_unit: Float32[np.ndarray, "h w"],
    perceptual: Perceptual | None = None,
) -> ViewFigures:  # fmt: skip
    """`compare_pictures` from the camera of one of the views, under its name."""
    camera = views.cameras[index]
    values = compare_pictures(
        rgb_unit, alpha_unit, true_rgb_unit, true_alpha_unit, perceptual, head_rows=head_rows(camera)
    )
    azimuth, elevation = (math.degrees(float(angle[0])) for angle in (camera.azimuth_rad, camera.elevation_rad))
    return ViewFigures(views.names[index], azimuth, elevation, values)


def compare_pictures(
    rgb_unit: Float32[np.ndarray, "h w 3"], alpha_unit: Float32[np.ndarray, "h w"] | None,
    true_rgb_unit: Float32[np.ndarray, "h w 3"], true_alpha_unit: Float32[np.ndarray, "h w"],
    perceptual: Perceptual | None = None, *, head_rows: int | None = None,
) -> dict[str, float]:  # fmt: skip
    """`METRICS` of one picture over white.

    Args:
        rgb_unit: the picture, [0, 1].
        alpha_unit: its opacity; without it the mask is the true silhouette.
        true_rgb_unit: the true picture.
        true_alpha_unit: its opacity.
        head_rows: this many rows show the head; None takes all.
    """
    mask: Bool[np.ndarray, "h w"] = true_alpha_unit > 0.5
    if alpha_unit is not None:
        mask = mask | (alpha_unit > 0.5)
    head = slice(0, head_rows)
    values = {
        "psnr": masked_psnr(rgb_unit, true_rgb_unit, mask),
        "ssim": masked_ssim(rgb_unit, true_rgb_unit, mask),
        "perceptual": math.nan,
        "iou": math.nan if alpha_unit is None else silhouette_iou(alpha_unit, true_alpha_unit),
        "psnr_head": masked_psnr(rgb_unit[head], true_rgb_unit[head], mask[head]),
        "iou_head": math.nan if alpha_unit is None else silhouette_iou(alpha_unit[head], true_alpha_unit[head]),
        "psnr_full": masked_psnr(rgb_unit, true_rgb_unit),
        "ssim_full": masked_ssim(rgb_unit, true_rgb_unit),
        "perceptual_full": math.nan,
    }
    if perceptual is not None:
        ours, true = square_around((rgb_unit, true_rgb_unit), mask)
        values["perceptual"] = float(perceptual.distances(ours[None], true[None])[0])
        values["perceptual_full"] = float(perceptual.distances(rgb_unit[None], true_rgb_unit[None])[0])
    return values


def masked_psnr(
    rgb_unit: Float[np.ndarray, "h w 3"],
    true_unit: Float[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Peak signal-to-noise ratio in dB of colours in [0, 1]; `HIGHEST_PSNR_DB` at most, NaN for an empty mask."""
    squares = (rgb_unit.astype(np.float64) - true_unit) ** 2
    chosen = squares if mask is None else squares[mask]
    if chosen.size == 0:
        return math.nan
    return min(HIGHEST_PSNR_DB, -10 * math.log10(max(float(chosen.mean()), 1e-12)))


def masked_ssim(
    rgb_unit: Float[np.ndarray, "h w 3"],
    true_unit: Float[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Mean structural similarity, [-1, 1], where the window lies inside the picture, or in a mask; NaN if it is empty.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", 2004, Eq. 13: Gaussian window of 11 pixels with a deviation of 1.5, K1 = 0.01, K2 = 0.03.
    """
    from skimage.metrics import structural_similarity

    found = structural_similarity(
        rgb_unit.astype(np.float64), true_unit.astype(np.float64), channel_axis=-1, data_range=1.0, full=True,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    similarity = cast(tuple[float, np.ndarray], found)[1].mean(-1)
    edge = slice(_SSIM_RADIUS_PX, -_SSIM_RADIUS_PX)
    chosen = similarity[edge, edge] if mask is None else similarity[mask]
    return float(chosen.mean()) if chosen.size else math.nan


def silhouette_iou(alpha_unit: Float[np.ndarray, "h w"], true_alpha_unit: Float[np.ndarray, "h w"]) -> float:
    """Intersection over union of what is more than half covered; 1 where both are empty."""
    ours, true = alpha_unit > 0.5, true_alpha_unit > 0.5
    either = int((ours | true).sum())
    return float((ours & true).sum()) / either if either else 1.0


def head_rows(camera: Cameras) -> int:
    """How many rows of a camera's picture show what is above `CHIN_Y` in the plane of the head's middle."""
    row = float(camera.project(torch.tensor([[0.0, CHIN_Y, 0.0]], dtype=torch.float64))[0, 0, 1])
    return min(camera.height, max(0, round(row)))


def summarise(heads: Sequence[Sequence[ViewFigures]]) -> Summary:
    """Means by bin and in all: over each head's views first, then over heads, which are the independent samples."""
    found = {row.bin for rows in heads for row in rows}
    summary: Summary = {}
    for name in (*(b for b in BINS if b in found), ALL):
        per_head: dict[str, list[float]] = {metric: [] for metric in METRICS}
        for rows in heads:
            for metric in METRICS:
                values = [row.values[metric] for row in rows if name in (row.bin, ALL)]
                values = [v for v in values if not math.isnan(v)]
                if values:
                    per_head[metric].append(float(np.mean(values)))
        summary[name] = {metric: estimate(values) for metric, values in per_head.items()}
    return summary


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval of independent values."""
    if not values:
        return Estimate(math.nan, None, 0)
    interval = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(float(np.mean(values)), interval, len(values))


def match_views(
    prediction: NamedViews, truth: NamedViews, *, skip_missing: bool = False
) -> tuple[list[tuple[int, int]], list[str]]:
    """Pairs (index in prediction, index in truth) of views from the same camera, and notices.

    Raises:
        InputError: as `compare_views`.
    """
    ours, true = prediction.views.cameras, truth.views.cameras
    if (ours.width, ours.height) != (true.width, true.height):
        raise InputError(
            f"The pictures of {prediction.name} are {ours.width}x{ours.height}, those of {truth.name} "
            f"{true.width}x{true.height}; expected one size: make the views at the size of the truth"
        )
    angle_deg, shift, focal = camera_differences(true, ours)
    same = (angle_deg <= _SAME_ANGLE_DEG) & (shift <= _SAME_SHIFT) & (focal <= _SAME_FOCAL)
    cost = angle_deg + torch.rad2deg(shift) + torch.rad2deg(focal)
    pairs, missing = [], []
    for index in range(len(true)):
        candidates = torch.where(same[index], cost[index], torch.inf)
        best = int(candidates.argmin())
        if bool(same[index, best]):
            pairs.append((best, index))
        else:
            missing.append(index)
    if not pairs or (missing and not skip_missing):
        index = missing[0]
        best = int(cost[index].argmin())
        raise InputError(
            f"{truth.picture(index)} has no counterpart: the nearest camera, of {prediction.picture(best)}, is turned "
            f"by {float(angle_deg[index, best]):.1f} degrees, moved by {100 * float(shift[index, best]):.1f} % and "
            f"differs by {100 * float(focal[index, best]):.1f} % in focal length; expected a picture for each of the "
            f"{len(true)} cameras of {truth.name}, {len(missing)} have none"
        )
    notices = [f"{len(missing)} of {len(true)} true views have no counterpart and were left out"] if missing else []
    return pairs, notices


def camera_differences(
    a: Cameras, b: Cameras
) -> tuple[Float64[Tensor, "n m"], Float64[Tensor, "n m"], Float64[Tensor, "n m"]]:
    """Between every camera of `a` and every one of `b`: angle in degrees, shift over distance, focal lengths."""
    R_a, R_b = a.T_world_camera[:, :3, :3].double(), b.T_world_camera[:, :3, :3].double()
    chord = torch.linalg.matrix_norm(R_a[:, None] - R_b[None])  # 2 sqrt 2 sin(angle / 2)
    angle = 2 * torch.asin((chord / math.sqrt(8)).clamp(max=1.0))
    distance = a.position_world.norm(dim=-1).clamp_min(1e-9)
    shift = torch.cdist(a.position_world.double(), b.position_world.double()) / distance[:, None]
    focal_a, focal_b = a.focal_px.mean(1) / a.width, b.focal_px.mean(1) / b.width
    focal = (focal_a[:, None] - focal_b[None]).abs() / focal_a[:, None]
    return torch.rad2deg(angle), shift, focal


def _order(views: ViewSet, index: int) -> tuple[float, float, str]:
    camera = views.cameras[index]
    azimuth = round(math.degrees(float(camera.azimuth_rad[0])), 3)
    return (180.0 if azimuth == -180 else azimuth, round(float(camera.elevation_rad[0]), 5), views.names[index])


def over_white(views: ViewSet, index: int) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """One view over white, and its opacity, both in [0, 1]."""
    rgba: Float[np.ndarray, "h w 4"] = views.rgba[index].cpu().numpy().astype(np.float32) / 255
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:], rgba[..., 3]


def picture_over_white(views: ViewSet, index: int) -> UInt8[np.ndarray, "h w 3"]:
    """One view over white, 8 bits."""
    return np.round(255 * over_white(views, index)[0]).astype(np.uint8)

"""How well fields of unseen cells are estimated, beside an answer that only continues what is seen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import cast

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from ..cameras import UNITS_PER_CM
from ..prior.field.chart import COLUMNS, ROWS, cell_shares
from ..prior.field.head_field import HAIR, HEADGEAR, KNOWN_FLOW, HeadField
from ..prior.field.observed_field import ObservedField
from .field_training import SHOULDER_ROW

_MM_PER_UNIT = 10 / UNITS_PER_CM
_LEAST_CELLS, _LEAST_PAIRS = 20.0, 40
_CROWN_ROWS = 6
"""Above this row neighbouring columns are so near that their differences say nothing."""
_RATIOS, _LEAST_RATIO = ("laplacian", "turn"), 1e-2
_LEAST_LENGTH = 0.02
"""Directions shorter than this are none; they count as a right angle off."""


@dataclass(frozen=True)
class FieldFigures:
    """Of cells of which the portrait tells nothing, above the shoulders, by size; NaN where there are too few."""

    accuracy: float
    """Share of cells whose material is right."""
    cover_iou: float
    """Intersection over union of hair and headgear."""
    covered_mm: float
    """Mean error of the thickness where truth has hair or headgear, millimetres."""
    all_mm: float
    """The same of all cells, bare ones counting as 0 millimetres thick."""
    flow_deg: float
    """Mean angle between directions round the cells' rays where the true one is known, degrees."""
    flow_median_deg: float
    """Median of it."""
    laplacian: float
    """Root mean square of the thickness's Laplacian, by that of the truth: 1 is as rough as truth. Ratios have
    geometric means over heads: fields drawn as rough as truths, but not for the same heads, have 1."""
    turn: float
    """Mean turn of the flow from column to column, by that of the truth; likewise."""

    @classmethod
    def of(cls, estimate: HeadField, truth: HeadField, observed: ObservedField) -> FieldFigures:
        """Of one head.

        Args:
            estimate: above the observed skull.
            truth: likewise.
            observed: tells which cells are known.
        """
        above = np.arange(ROWS)[:, None] < SHOULDER_ROW
        share = cell_shares() * above * observed.untold
        true_kind, kind = truth.material.argmax(0), estimate.material.argmax(0)
        true_cover, cover = (np.isin(k, (HAIR, HEADGEAR)) for k in (true_kind, kind))
        true_mm, mm = (_MM_PER_UNIT * f.thickness for f in (truth, estimate))
        known = (true_kind == HAIR) & (truth.flow_certainty > KNOWN_FLOW) & (np.hypot(*truth.flow[:2]) > 0.3)
        angles = _angles_deg(estimate.flow, truth.flow)
        hair = share * known
        return cls(
            accuracy=_mean(true_kind == kind, share),
            cover_iou=_mean(true_cover & cover, share * (true_cover | cover)),
            covered_mm=_mean(np.abs(true_mm - mm), share * true_cover),
            all_mm=_mean(np.abs(true_mm * true_cover - mm * cover), share),
            flow_deg=_mean(angles, hair),
            flow_median_deg=_median(angles, hair),
            laplacian=_laplacian_ratio(mm, true_mm, true_cover, share > 0),
            turn=_turn_ratio(estimate.flow, truth.flow, hair > 0),
        )

    @classmethod
    def mean(cls, figures: Iterable[FieldFigures]) -> FieldFigures:
        """Means over heads, of those that have the figure; geometric ones of ratios."""
        rows = list(figures)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a figure that no head has is NaN
            columns = {f.name: np.array([getattr(r, f.name) for r in rows]) for f in fields(cls)}
            means = {name: float(np.nanmean(column)) for name, column in columns.items()}
            ratios = {n: float(np.exp(np.nanmean(np.log(np.maximum(columns[n], _LEAST_RATIO))))) for n in _RATIOS}
        return cls(**{**means, **ratios})

    def __str__(self) -> str:
        return (
            f"materials {self.accuracy:.3f}, cover IoU {self.cover_iou:.3f}, thickness {self.covered_mm:.1f} mm "
            f"covered, {self.all_mm:.1f} mm all, flow {self.flow_deg:.1f} (median {self.flow_median_deg:.1f}) degrees, "
            f"Laplacian {self.laplacian:.2f}, turn {self.turn:.2f}"
        )


def measure_fields(
    answers: Mapping[str, Callable[[ObservedField], HeadField]],
    portraits: Iterable[tuple[HeadField, ObservedField]],
) -> dict[str, FieldFigures]:
    """Mean figures of ways to answer.

    Args:
        answers: by name.
        portraits: truth over the observed skull, and what is observed.
    """
    found: dict[str, list[FieldFigures]] = {name: [] for name in answers}
    for truth, observed in portraits:
        for name, answer in answers.items():
            found[name].append(FieldFigures.of(answer(observed), truth, observed))
    return {name: FieldFigures.mean(rows) for name, rows in found.items()}


def continued_field(observed: ObservedField) -> HeadField:
    """The baseline: every cell is as the nearest one that is known; hair runs down."""
    material = _nearest(observed.material, observed.visibility > 0)
    thickness = _nearest(observed.thickness[None], observed.thickness_certainty > 0)[0]
    double = _nearest(observed.orientation, observed.orientation_certainty > 0)
    angle = np.arctan2(double[1], double[0]) / 2  # within a right angle of down
    none = np.zeros((ROWS, COLUMNS), np.float32)
    grey = np.full((3, ROWS, COLUMNS), 0.5, np.float32)
    field = HeadField(
        skull_radius=observed.skull_radius, thickness=thickness, material=np.stack([none + 1, none, none, none]),
        flow=np.stack([np.cos(angle), np.sin(angle), none]).astype(np.float32), flow_certainty=none + 1, disorder=none,
        strand_length=none, cover_albedo=grey, skin_albedo=grey, cloth_albedo=grey, tokens=observed.tokens,
    )  # fmt: skip
    total = material.sum(0)
    return replace(field, material=material / total) if (total > 0).all() else field


def _nearest(
    values: Float32[np.ndarray, "k 56 64"], known: Bool[np.ndarray, "56 64"]
) -> Float32[np.ndarray, "k 56 64"]:
    """Each cell has the values of the nearest known cell, round the axis; all are 0 where none is known."""
    if not known.any():
        return np.zeros_like(values)
    three = np.concatenate([known] * 3, axis=1)
    row, column = cast(
        "np.ndarray", ndimage.distance_transform_edt(~three, return_distances=False, return_indices=True)
    )
    middle = slice(COLUMNS, 2 * COLUMNS)
    return values[:, row[:, middle], column[:, middle] % COLUMNS]


def _mean(values: np.ndarray, share: Float[np.ndarray, "56 64"]) -> float:
    total = share.sum()
    return float((share * values).sum() / total) if total > _LEAST_CELLS else np.nan


def _median(values: np.ndarray, share: Float[np.ndarray, "56 64"]) -> float:
    """The value that half of the cells by size lie below."""
    if share.sum() <= _LEAST_CELLS:
        return np.nan
    order = np.argsort(values, axis=None)
    total = np.cumsum(share.ravel()[order])
    return float(values.ravel()[order][np.searchsorted(total, total[-1] / 2)])


def _angles_deg(
    flow: Float32[np.ndarray, "3 56 64"], other: Float32[np.ndarray, "3 56 64"]
) -> Float[np.ndarray, "56 64"]:
    """Unsigned angles between directions on the chart."""
    cross, dot = flow[0] * other[1] - flow[1] * other[0], flow[0] * other[0] + flow[1] * other[1]
    return np.where(np.hypot(*flow[:2]) < _LEAST_LENGTH, 90.0, np.abs(np.degrees(np.arctan2(cross, dot))))


def _laplacian_ratio(
    mm: np.ndarray, true_mm: np.ndarray, covered: Bool[np.ndarray, "56 64"], unseen: Bool[np.ndarray, "56 64"]
) -> float:
    inner = unseen & covered & np.roll(covered, 1, axis=1) & np.roll(covered, -1, axis=1)
    inner[:_CROWN_ROWS] = inner[-1] = False
    if inner.sum() <= _LEAST_PAIRS:
        return np.nan

    def rough(grid: np.ndarray) -> float:
        around = sum(np.roll(grid, shift, axis) for shift in (1, -1) for axis in (0, 1)) / 4
        return float(np.sqrt(np.square(grid - around)[inner].mean()))

    return rough(mm) / max(rough(true_mm), 1e-6)


def _turn_ratio(flow: np.ndarray, true_flow: np.ndarray, known: Bool[np.ndarray, "56 64"]) -> float:
    pairs = known & np.roll(known, 1, axis=1)
    pairs[:_CROWN_ROWS] = False
    if pairs.sum() <= _LEAST_PAIRS:
        return np.nan

    def turning(vectors: np.ndarray) -> float:
        return float(_angles_deg(vectors, np.roll(vectors, 1, axis=-1))[pairs].mean())

    return turning(flow) / max(turning(true_flow), 1e-6)

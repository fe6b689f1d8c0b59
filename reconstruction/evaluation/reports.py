"""What each kind of evaluation shows: its tables, diagrams and figures, from what was measured."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from dp360.generation import ViewSet

from .compare import METRICS, Comparison, NamedViews, Summary, ViewFigures, summarise
from .consistency import ConsistencyReport, PairFigures
from .identity import IdentityAt
from .pose import PoseReport
from .results import (
    Curve,
    EvaluationResult,
    Panel,
    ResultTable,
    number_cell,
    summary_data,
    summary_panels,
    summary_table,
)
from .sheet import column_titles, comparison_strip, labelled_sheet


def origin_of(views: ViewSet, data_sha256: str) -> dict[str, Any]:
    """The facts that results of a data set say of it."""
    origin = views.provenance
    return {
        "version": importlib.metadata.version("dp360"),
        "generator": origin.generator,
        "weights": origin.weights,
        "seed": origin.seed,
        "data_sha256": data_sha256,
    }


def views_result(
    comparison: Comparison, prediction: NamedViews, truth: NamedViews, facts: Mapping[str, Any]
) -> EvaluationResult:
    """Views against true views: figures by azimuth, and pictures of both."""
    summary, metrics = _summary(comparison.rows)
    strip = comparison_strip(prediction.views, truth.views)
    return EvaluationResult(
        {**facts, "perceptual": comparison.perceptual},
        {"summary": summary_data(summary), "views": [view_row(row) for row in comparison.rows]},
        (summary_table(f"{len(comparison.rows)} views of {prediction.name}", {"views": summary}, metrics),),
        summary_panels({"views": summary}, metrics[:4]),
        labelled_sheet("Truth, prediction, error", [(prediction.name, strip)], column_titles(truth.views)),
        comparison.notices,
    )


def identity_result(
    rows: Mapping[str, Sequence[IdentityAt]], azimuths_deg: Sequence[float], facts: Mapping[str, Any]
) -> EvaluationResult:
    """Portraits against views at some azimuths; `rows` by the portrait's name."""
    columns = ("portrait", *(f"{azimuth:g}°" for azimuth in azimuths_deg))
    cells = tuple((name, *(_identity_cell(at) for at in found)) for name, found in rows.items())
    mean = ("mean", *(_identity_mean([found[k] for found in rows.values()]) for k in range(len(azimuths_deg))))
    order = sorted(range(len(azimuths_deg)), key=lambda k: azimuths_deg[k])
    curves = tuple(
        Curve(name, [azimuths_deg[k] for k in order], [found[k].distance for k in order])
        for name, found in rows.items()
    )
    title = "Distance of dlib's face embeddings (one person below 0.6), in brackets the score from 0 (stranger) to 1"
    return EvaluationResult(
        facts,
        {"portraits": {name: [asdict(at) for at in found] for name, found in rows.items()}},
        (ResultTable(title, columns, (*cells, mean)),),
        (Panel("Distance from the portrait (lower is better)", "azimuth, degrees", curves),),
    )


def pose_result(reports: Mapping[str, PoseReport], facts: Mapping[str, Any]) -> EvaluationResult:
    """Intended against estimated cameras; `reports` by the data set's name."""
    columns = (
        "data", "face views", "POSE", "angle, °", "common turn, °", "POSE without it", "angle without it, °",
        "outlines", "angle by outline, °", "not measured",
    )  # fmt: skip
    rows, curves = [], []
    for name, r in reports.items():
        rows.append(
            (
                name, str(r.face_views), number_cell(r.face_mse, 4), number_cell(r.face_error_deg, 1),
                number_cell(r.common_rotation_deg, 1), number_cell(r.face_common_removed_mse, 4),
                number_cell(r.face_common_removed_error_deg, 1), str(r.outline_views),
                number_cell(r.outline_error_deg, 2), str(r.unmeasured_views),
            )
        )  # fmt: skip
        level = sorted((row for row in r.rows if abs(row.elevation_deg) < 5), key=lambda row: row.azimuth_deg)
        curves.append(Curve(name, [row.azimuth_deg for row in level], [row.error_deg for row in level]))
    title = "Intended against estimated camera (POSE: mean squared error of rotation entries)"
    return EvaluationResult(
        facts,
        {"data": {name: asdict(report) for name, report in reports.items()}},
        (ResultTable(title, columns, tuple(rows)),),
        (Panel("Angle between intended and estimated camera", "azimuth, degrees", tuple(curves)),),
    )


def consistency_result(report: ConsistencyReport, name: str, facts: Mapping[str, Any]) -> EvaluationResult:
    """One data set against itself: the held-out half, then neighbours ring by ring."""
    held_out = report.held_out
    summary, metrics = _summary(held_out.rows)
    rings: dict[float, list[PairFigures]] = {}
    for pair in report.pairs:
        rings.setdefault(pair.elevation_deg, []).append(pair)
    curves = []
    for elevation, pairs in rings.items():
        ring = sorted(pairs, key=lambda p: p.azimuth_deg)
        curves.append(Curve(f"ring at {elevation:.0f}°", [p.azimuth_deg for p in ring], [p.error for p in ring]))
    panel = Panel(
        "Reprojection error of neighbours; rings close at the back (±180°)",
        "azimuth between them, degrees",
        tuple(curves),
    )
    title = f"{len(held_out.rows)} views against splats fitted to the other half"
    data = {
        "held_out": summary_data(summary),
        "views": [view_row(row) for row in held_out.rows],
        "mean_reprojection_error": report.mean_error,
        "pairs": [asdict(pair) for pair in report.pairs],
    }
    return EvaluationResult(
        {**facts, "perceptual": held_out.perceptual},
        data,
        (summary_table(title, {name: summary}, metrics), _rings_table(rings)),
        (panel, *summary_panels({"held out": summary}, metrics[:2])),
    )


def view_row(row: ViewFigures) -> dict[str, Any]:
    """Figures of one view as plain data."""
    return {"name": row.name, "azimuth_deg": row.azimuth_deg, "elevation_deg": row.elevation_deg, **row.values}


def _summary(rows: Sequence[ViewFigures]) -> tuple[Summary, list[str]]:
    """Means by azimuth, and the metrics that could be measured at all."""
    return summarise([rows]), [m for m in METRICS if any(not math.isnan(row.values[m]) for row in rows)]


def _rings_table(rings: Mapping[float, Sequence[PairFigures]]) -> ResultTable:
    """Rings with their mean error, the pair that closes each, and seams."""
    rows = []
    for elevation, ring in rings.items():
        errors = [pair.error for pair in ring if not math.isnan(pair.error)]
        worst = max(ring, key=lambda pair: -1.0 if math.isnan(pair.error) else pair.error)
        closing = next((pair.error for pair in ring if pair.closes_ring), math.nan)
        seams = ", ".join(f"{p.first} to {p.second}" for p in ring if p.seam) or "none"
        rows.append(
            (
                f"{elevation:.0f}°", str(len(ring)), number_cell(float(np.mean(errors)) if errors else math.nan, 4),
                f"{number_cell(worst.error, 4)} ({worst.first} to {worst.second})", number_cell(closing, 4), seams,
            )
        )  # fmt: skip
    columns = ("ring", "pairs", "mean error", "largest", "where the ring closes", "seams")
    return ResultTable(
        "Colours carried into the neighbour's picture: root mean square difference", columns, tuple(rows)
    )


def _identity_cell(at: IdentityAt) -> str:
    if math.isnan(at.distance):
        return "no view" if at.view is None else "no face"
    return f"{at.distance:.2f} ({at.score:.2f})"


def _identity_mean(found: Sequence[IdentityAt]) -> str:
    seen = [at for at in found if not math.isnan(at.distance)]
    if not seen:
        return "-"
    distance, score = (float(np.mean([getattr(at, name) for at in seen])) for name in ("distance", "score"))
    return f"{distance:.2f} ({score:.2f}), n = {len(seen)}"

"""What each kind of evaluation shows: its tables, diagrams and figures, from what was measured."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from dp360.generation import ViewSet
from dp360.generation.training.field_figures import FieldFigures

from .compare import ALL, METRICS, Comparison, Estimate, NamedViews, Summary, ViewFigures, estimate, summarise
from .consistency import ConsistencyReport, PairFigures
from .heads import HeadResult, HeadsConfig, distribution_distances
from .identity import IdentityAt
from .pose import PoseReport
from .results import (
    TILE_PX,
    EvaluationResult,
    Panel,
    ResultTable,
    bin_title,
    column_titles,
    comparison_strip,
    labelled_sheet,
    number_cell,
    summary_data,
    summary_panels,
    summary_table,
)

if TYPE_CHECKING:
    from dp360.generation.training.sample_figures import SampleFigures

_SHOWN_HEADS = 6
_PLOT_METRICS = ("psnr", "ssim", "perceptual", "iou", "psnr_head", "iou_head")
_POSE_COLUMNS = {
    "face views": ("face_views", 0),
    "POSE": ("face_mse", 4),
    "angle, °": ("face_error_deg", 1),
    "common turn, °": ("common_rotation_deg", 1),
    "POSE without it": ("face_common_removed_mse", 4),
    "angle without it, °": ("face_common_removed_error_deg", 1),
    "outlines": ("outline_views", 0),
    "angle by outline, °": ("outline_error_deg", 2),
    "not measured": ("unmeasured_views", 0),
}
"""Figures of `PoseReport` in a table, and their digits."""
_FIELD_COLUMNS = {
    "materials right": ("accuracy", 3),
    "IoU hair and headgear": ("cover_iou", 3),
    "thickness, mm covered": ("covered_mm", 1),
    "mm all": ("all_mm", 1),
    "flow, °": ("flow_deg", 1),
    "median": ("flow_median_deg", 1),
    "Laplacian": ("laplacian", 2),
    "turn": ("turn", 2),
}
"""Figures of `FieldFigures` in a table, and their digits."""
_SAMPLE_COLUMNS = {
    "CRPS, mm": ("crps_mm", 2),
    "spread by error": ("spread", 2),
    "told from truth (AUC)": ("auc", 2),
    "from decoded truth": ("auc_decoded", 2),
    "differ behind, mm": ("differ_behind_mm", 2),
    "differ where seen, mm": ("differ_seen_mm", 2),
}
"""The same of `SampleFigures`."""
_NO_PERCEPTUAL = 'No perceptual distance was measured: pip install "dp360[eval]" brings one'


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
        {"summary": summary_data(summary), "views": [row.plain() for row in comparison.rows]},
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
    x = [azimuths_deg[k] for k in order]
    curves = {name: (x, [found[k].distance for k in order], None) for name, found in rows.items()}
    title = "Distance of dlib's face embeddings (one person below 0.6), in brackets the score from 0 (stranger) to 1"
    return EvaluationResult(
        facts,
        {"portraits": {name: [asdict(at) for at in found] for name, found in rows.items()}},
        (ResultTable(title, columns, (*cells, mean)),),
        (Panel("Distance from the portrait (lower is better)", "azimuth, degrees", curves),),
    )


def pose_result(reports: Mapping[str, PoseReport], facts: Mapping[str, Any]) -> EvaluationResult:
    """Intended against estimated cameras; `reports` by the data set's name."""
    rows, curves = [], {}
    for name, report in reports.items():
        rows.append((name, *(number_cell(report.means[figure], digits) for figure, digits in _POSE_COLUMNS.values())))
        level = sorted((row for row in report.rows if abs(row.elevation_deg) < 5), key=lambda row: row.azimuth_deg)
        curves[name] = ([row.azimuth_deg for row in level], [row.error_deg for row in level], None)
    title = "Intended against estimated camera (POSE: mean squared error of rotation entries)"
    return EvaluationResult(
        facts,
        {"data": {name: report.plain() for name, report in reports.items()}},
        (ResultTable(title, ("data", *_POSE_COLUMNS), tuple(rows)),),
        (Panel("Angle between intended and estimated camera", "azimuth, degrees", curves),),
    )


def fields_result(
    found: Mapping[str, FieldFigures],
    portraits: int,
    split: str,
    facts: Mapping[str, Any],
    drawn: Mapping[str, SampleFigures],
) -> EvaluationResult:
    """Ways to estimate head fields beside each other, and ways to draw them where there are any."""
    data = {name: asdict(figures) for name, figures in found.items()}
    rows = [
        (name, *(number_cell(figures[key], digits) for key, digits in _FIELD_COLUMNS.values()))
        for name, figures in data.items()
    ]
    title = f"Cells above the shoulders that {portraits} portraits of the {split} split do not show"
    tables = [ResultTable(title, ("", *_FIELD_COLUMNS), tuple(rows))]
    if drawn:
        cells = [
            (name, *(number_cell(getattr(figures, key), digits) for key, digits in _SAMPLE_COLUMNS.values()))
            for name, figures in drawn.items()
        ]
        tables.append(ResultTable("Several fields of each portrait", ("", *_SAMPLE_COLUMNS), tuple(cells)))
    return EvaluationResult(
        facts,
        {
            "portraits": portraits,
            "split": split,
            "fields": data,
            "samples": {name: asdict(figures) for name, figures in drawn.items()},
        },
        tuple(tables),
    )


def consistency_result(report: ConsistencyReport, name: str, facts: Mapping[str, Any]) -> EvaluationResult:
    """One data set against itself: the held-out half, then neighbours ring by ring."""
    held_out = report.held_out
    summary, metrics = _summary(held_out.rows)
    rings: dict[float, list[PairFigures]] = {}
    for pair in report.pairs:
        rings.setdefault(pair.elevation_deg, []).append(pair)
    curves = {}
    for elevation, pairs in rings.items():
        ring = sorted(pairs, key=lambda p: p.azimuth_deg)
        curves[f"ring at {elevation:.0f}°"] = ([p.azimuth_deg for p in ring], [p.error for p in ring], None)
    heading = "Reprojection error of neighbours; rings close at the back (±180°)"
    panel = Panel(heading, "azimuth between them, degrees", curves)
    title = f"{len(held_out.rows)} views against splats fitted to the other half"
    data = {
        "held_out": summary_data(summary),
        "views": [row.plain() for row in held_out.rows],
        "mean_reprojection_error": report.mean_error,
        "pairs": [asdict(pair) for pair in report.pairs],
    }
    return EvaluationResult(
        {**facts, "perceptual": held_out.perceptual},
        data,
        (summary_table(title, {name: summary}, metrics), _rings_table(rings)),
        (panel, *summary_panels({"held out": summary}, metrics[:2])),
    )


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


def heads_result(
    results: Mapping[str, Sequence[HeadResult]], config: HeadsConfig, about: Mapping[str, str], *, ablation: bool
) -> EvaluationResult:
    """Sources beside each other.

    Args:
        results: the same heads in the same order by the name of each source, the first of which the others are
            compared with.
        about: a sentence on each source that is known by name.
        ablation: show every source under each truth, without errors.
    """
    summaries = {name: summarise([r.rows for r in found]) for name, found in results.items()}
    first = next(iter(results.values()))
    metrics = [m for m in METRICS if not math.isnan(summaries[next(iter(summaries))][ALL][m].mean)]
    tables = [summary_table(f"{len(first)} heads, {len(first[0].rows)} true views each", summaries, metrics)]
    data: dict[str, Any] = {
        "heads": len(first),
        "summary": {name: summary_data(summary) for name, summary in summaries.items()},
        "about": about,
    }
    if len(results) > 1:
        differences = _differences(results)
        data["difference_to_first"] = {name: summary_data(summary) for name, summary in differences.items()}
        tables.append(summary_table(f"Difference to {next(iter(results))}, paired over heads", differences, metrics))
    distances = {name: distribution_distances(found) for name, found in results.items()}
    if any(distances.values()):
        data["distribution_distances"] = distances
        tables.append(_distances_table(distances))
    facts = {
        "version": first[0].facts["version"],
        "weights": {name: found[0].facts["weights"] for name, found in results.items()},
        "seed": config.seed,
        "stage": config.stage,
        "perceptual": first[0].facts["perceptual"],
        "data_sha256": hashlib.sha256("\n".join(r.facts["data_sha256"] for r in first).encode()).hexdigest(),
    }
    notices = () if first[0].facts["perceptual"] else (_NO_PERCEPTUAL,)
    panels = summary_panels(summaries, [m for m in _PLOT_METRICS if m in metrics])
    return EvaluationResult(facts, data, tuple(tables), panels, _heads_sheet(results, ablation=ablation), notices)


def _differences(results: Mapping[str, Sequence[HeadResult]]) -> dict[str, Summary]:
    """Means over heads of what each source has more than the first, on the same heads."""
    first, *others = ([summarise([r.rows]) for r in found] for found in results.values())

    def paired(other: Sequence[Summary], bin_name: str, metric: str) -> Estimate:
        found = [b[bin_name][metric].mean - a[bin_name][metric].mean for a, b in zip(first, other)]
        return estimate([d for d in found if not math.isnan(d)])

    return {
        name: {b: {metric: paired(other, b, metric) for metric in estimates} for b, estimates in first[0].items()}
        for name, other in zip(list(results)[1:], others)
    }


def _distances_table(distances: Mapping[str, Mapping[str, Mapping[str, float]]]) -> ResultTable:
    """KID of every bin; the Frechet distance where there are enough pictures for it."""
    bins = list(next(iter(distances.values())))
    rows = []
    for name, found in distances.items():
        rows.append((f"{name}, KID x 1000", *(f"{1000 * found[b]['kid']:.1f}" for b in bins)))
        if any("frechet" in found[b] for b in bins):
            cells = (f"{found[b]['frechet']:.2f}" if "frechet" in found[b] else "-" for b in bins)
            rows.append((f"{name}, Frechet distance", *cells))
    title = "Sets of pictures in the deepest features of EfficientNet-Lite0 (not comparable with Inception's)"
    return ResultTable(title, ("", *(bin_title(b) for b in bins)), tuple(rows))


def _heads_sheet(results: Mapping[str, Sequence[HeadResult]], *, ablation: bool) -> UInt8[np.ndarray, "h w 3"]:
    """For some heads, spread over all: the truth, then each source with its errors; without, for an ablation."""
    heads = next(iter(results.values()))
    shown = min(_SHOWN_HEADS, len(heads))
    numbers, blocks = [k * len(heads) // shown for k in range(shown)], []
    for number in numbers[:3] if ablation else numbers:
        for name, result in ((name, found[number]) for name, found in results.items()):
            first = result is heads[number]
            if ablation:
                blocks += [(f"{result.head}: truth", result.strip[:TILE_PX])] * first
                blocks.append((name, result.strip[TILE_PX : 2 * TILE_PX]))
            elif first:
                blocks.append((f"{result.head}: truth, {name}, error", result.strip))
            else:
                blocks.append((f"{name}, error", result.strip[TILE_PX:]))
    title = (
        "The same portraits under each setting" if ablation else "True views above, what was made of the portrait below"
    )
    return labelled_sheet(title, blocks, heads[0].facts.get("strip_columns", []))

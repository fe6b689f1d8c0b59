"""What is shown of several sources of views on the same heads: one table, differences to the first, pictures."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from .compare import ALL, METRICS, Estimate, Summary, estimate, summarise
from .heads import HeadResult, HeadsConfig, distribution_distances
from .results import EvaluationResult, ResultTable, bin_title, summary_data, summary_panels, summary_table
from .sheet import TILE_PX, labelled_sheet

_SHOWN_HEADS = 6
_PLOT_METRICS = ("psnr", "ssim", "perceptual", "iou", "psnr_head", "iou_head")
_NO_PERCEPTUAL = 'No perceptual distance was measured: pip install "dp360[eval]" brings one'


def heads_result(
    results: Mapping[str, Sequence[HeadResult]], config: HeadsConfig, about: Mapping[str, str], *, ablation: bool
) -> EvaluationResult:
    """Sources beside each other.

    Args:
        results: the same heads in the same order by the name of each source, the first of which the others are
            compared with.
        config: what was measured.
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
    sheet = _ablation_sheet(results) if ablation else _heads_sheet(results)
    return EvaluationResult(facts, data, tuple(tables), panels, sheet, notices)


def _differences(results: Mapping[str, Sequence[HeadResult]]) -> dict[str, Summary]:
    """Means over heads of what each source has more than the first, on the same heads."""
    names = list(results)
    per_head = {name: [summarise([r.rows]) for r in found] for name, found in results.items()}
    found: dict[str, Summary] = {}
    for name in names[1:]:
        summary: Summary = {}
        for bin_name, estimates in per_head[names[0]][0].items():
            summary[bin_name] = {metric: _paired(per_head, names[0], name, bin_name, metric) for metric in estimates}
        found[name] = summary
    return found


def _paired(per_head: Mapping[str, Sequence[Summary]], first: str, name: str, bin_name: str, metric: str) -> Estimate:
    differences = [b[bin_name][metric].mean - a[bin_name][metric].mean for a, b in zip(per_head[first], per_head[name])]
    return estimate([d for d in differences if not math.isnan(d)])


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


def _heads_sheet(results: Mapping[str, Sequence[HeadResult]]) -> UInt8[np.ndarray, "h w 3"]:
    """For some heads: the truth, then each source with its errors."""
    blocks = []
    names = list(results)
    for number in _shown(len(results[names[0]])):
        for name in names:
            result = results[name][number]
            picture = result.strip if name == names[0] else result.strip[TILE_PX:]
            what = f"{result.head}: truth, {name}, error" if name == names[0] else f"{name}, error"
            blocks.append((what, picture))
    return labelled_sheet(
        "True views above, what was made of the portrait below", blocks, results[names[0]][0].facts["strip_columns"]
    )


def _ablation_sheet(results: Mapping[str, Sequence[HeadResult]]) -> UInt8[np.ndarray, "h w 3"]:
    """For some heads: the truth, then every setting, without errors."""
    names, blocks = list(results), []
    for number in _shown(len(results[names[0]]))[:3]:
        blocks.append((f"{results[names[0]][number].head}: truth", results[names[0]][number].strip[:TILE_PX]))
        blocks += [(name, results[name][number].strip[TILE_PX : 2 * TILE_PX]) for name in names]
    return labelled_sheet("The same portraits under each setting", blocks, _columns(results))


def _shown(count: int) -> list[int]:
    """Numbers of the heads that a sheet shows, spread over all."""
    shown = min(_SHOWN_HEADS, count)
    return [k * count // shown for k in range(shown)]


def _columns(results: Mapping[str, Sequence[HeadResult]]) -> list[str]:
    """Azimuths of the strips' columns; all heads of a benchmark have the same cameras."""
    return next(iter(results.values()))[0].facts.get("strip_columns", [])

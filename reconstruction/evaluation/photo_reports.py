"""What an evaluation of portraits shows: a row each, a summary with limits, the proportions of the fits, refusals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dp360.generation.head_model import load_head_model

from .head_shapes import SHAPES, model_shapes, shape_spread
from .photo_measures import PROPORTIONS
from .photos import MEASURES, Measure, PhotoResult
from .results import EvaluationResult, ResultTable, number_cell

_LEAST_FOR_SLOPE = 3
"""Fewer portraits give no line."""
_NO_IDENTITY = 'No identity was measured: pip install "dp360[eval]" brings an embedding of faces'
_SLOPE_COLUMNS = ("observed", "SD", "fit", "SD", "slope of fit on observed")
_SHAPE_COLUMNS = ("fit", "SD", "model", "SD", "spread: SD of fit over that of model")


def photos_result(results: Sequence[PhotoResult], facts: Mapping[str, Any], *, identity: bool) -> EvaluationResult:
    """All portraits of a folder.

    Args:
        results: in the order of the table.
        facts: origin of the figures.
        identity: an embedding was there to measure with.
    """
    measured = [result for result in results if result.figures is not None]
    refused = [result for result in results if result.figures is None]
    summary = {name: summary_of(measure, _values(measured, name)) for name, measure in MEASURES.items()}
    slopes = proportion_lines(measured)
    shapes = shape_lines(measured)
    tables = [
        _photos_table(measured, len(results)),
        _summary_table(summary),
        _proportions_table(slopes),
        _shapes_table(shapes),
    ]
    if refused:
        rows = tuple((_cell(r.name), "crashed" if r.crashed else "refused", _cell(r.refusal)) for r in refused)
        tables.append(ResultTable(f"{len(refused)} of {len(results)} without a head", ("portrait", "", "why"), rows))
    weights = sorted({part for result in measured for part in result.weights.split(", ")})
    data = {
        "portraits": len(results),
        "refused": {r.name: {"crashed": r.crashed, "reason": r.refusal} for r in refused},
        "summary": summary,
        "proportions": slopes,
        "shapes": shapes,
        "photos": {
            r.name: {"figures": r.figures, "observed": r.observed, "fitted": r.fitted, "shape": r.shape}
            for r in measured
        },
    }
    notices = () if identity else (_NO_IDENTITY,)
    return EvaluationResult({**facts, "weights": ", ".join(weights)}, data, tuple(tables), notices=notices)


def summary_of(measure: Measure, values: Sequence[float]) -> dict[str, Any]:
    """Count, median, mean and share beyond the limit of the portraits that a measure says something about.

    Args:
        measure: how it is read.
        values: one per portrait, NaN where there is nothing to measure.
    """
    found = [value for value in values if not math.isnan(value)]
    beyond = sum(map(measure.beyond, found)) / len(found) if found and measure.limit is not None else math.nan
    return {
        "measured": len(found),
        "median": float(np.median(found)) if found else math.nan,
        "mean": float(np.mean(found)) if found else math.nan,
        "limit": measure.limit,
        "bad": measure.bad,
        "share_beyond": beyond,
    }


def proportion_lines(results: Sequence[PhotoResult]) -> dict[str, dict[str, float | int]]:
    """How the proportions of the fitted faces follow the observed ones over all portraits with landmarks.

    Returns:
        By proportion: `count`, mean and standard deviation of both, and `slope`, that of the line of the fit on what
        is observed: 1 where differences between people stay, 0 where everybody has the mean face.
    """
    pairs = [(r.observed, r.fitted) for r in results if r.observed is not None and r.fitted is not None]
    lines = {}
    for name in PROPORTIONS:
        observed, fitted = (np.array([pair[side][name] for pair in pairs]) for side in (0, 1))
        enough = len(pairs) >= _LEAST_FOR_SLOPE and float(observed.std()) > 0
        lines[name] = {
            "count": len(pairs),
            "observed_mean": float(observed.mean()) if pairs else math.nan,
            "observed_sd": float(observed.std(ddof=1)) if len(pairs) > 1 else math.nan,
            "fitted_mean": float(fitted.mean()) if pairs else math.nan,
            "fitted_sd": float(fitted.std(ddof=1)) if len(pairs) > 1 else math.nan,
            "slope": float(np.polyfit(observed, fitted, 1)[0]) if enough else math.nan,
        }
    return lines


def shape_lines(results: Sequence[PhotoResult]) -> dict[str, dict[str, float | int]]:
    """How much profiles and skulls of the fitted heads differ, and how much those of the model's own heads do.

    Returns:
        By figure of `head_shapes.SHAPES`: `count`, mean and standard deviation of both, and `spread`, the ratio of the
        standard deviations: 1 where the heads differ as people do, 0 where everybody has the same one.
    """
    shapes = [r.shape for r in results if r.shape is not None]
    nothing = dict.fromkeys(SHAPES, (math.nan, math.nan))
    model, fitted = model_shapes(load_head_model()), shape_spread(shapes) if len(shapes) > 1 else nothing
    return {
        name: {
            "count": len(shapes),
            "fitted_mean": fitted[name][0],
            "fitted_sd": fitted[name][1],
            "model_mean": model[name][0],
            "model_sd": model[name][1],
            "spread": fitted[name][1] / model[name][1],
        }
        for name in SHAPES
    }


def _values(results: Sequence[PhotoResult], name: str) -> list[float]:
    return [r.figures[name] for r in results if r.figures is not None]


def _photos_table(results: Sequence[PhotoResult], total: int) -> ResultTable:
    """A row per portrait; what is beyond its limit is marked."""
    rows = []
    for result in results:
        assert result.figures is not None
        cells = (
            number_cell(value, measure.digits) + " *" * measure.beyond(value)
            for measure, value in ((measure, result.figures[name]) for name, measure in MEASURES.items())
        )
        rows.append((_cell(result.name), *cells))
    titles = (measure.title for measure in MEASURES.values())
    title = f"{len(results)} heads of {total} portraits (* beyond the limit)"
    return ResultTable(title, ("portrait", *titles), tuple(rows))


def _summary_table(summary: Mapping[str, Mapping[str, Any]]) -> ResultTable:
    """A row per measure."""
    rows = []
    for name, found in summary.items():
        measure, share = MEASURES[name], 100 * found["share_beyond"]
        limit = "-" if measure.limit is None else f"{'>' if measure.bad == 'above' else '<'} {measure.limit:g}"
        numbers = (number_cell(found[key], max(1, measure.digits)) for key in ("median", "mean"))
        rows.append((measure.title, str(found["measured"]), *numbers, limit, number_cell(share, 0)))
    return ResultTable("Over all heads", ("measure", "measured", "median", "mean", "limit", "% beyond it"), tuple(rows))


def _proportions_table(lines: Mapping[str, Mapping[str, float | int]]) -> ResultTable:
    """A row per proportion."""
    keys = ("observed_mean", "observed_sd", "fitted_mean", "fitted_sd")
    rows = tuple(
        (name, *(number_cell(line[key], 3) for key in keys), number_cell(line["slope"], 2))
        for name, line in lines.items()
    )
    count = int(next(iter(lines.values()))["count"])
    return ResultTable(f"Proportions of {count} faces, found and fitted", ("", *_SLOPE_COLUMNS), rows)


def _shapes_table(lines: Mapping[str, Mapping[str, float | int]]) -> ResultTable:
    """A row per figure."""
    keys = ("fitted_mean", "fitted_sd", "model_mean", "model_sd")
    rows = tuple(
        (name, *(number_cell(line[key], 1 if "degrees" in name else 3) for key in keys), number_cell(line["spread"], 2))
        for name, line in lines.items()
    )
    count = int(next(iter(lines.values()))["count"])
    return ResultTable(f"Profiles and skulls of {count} fitted heads", ("", *_SHAPE_COLUMNS), rows)


def _cell(text: str | None) -> str:
    """Text that does not end a table's cell."""
    return (text or "").replace("|", "\\|")

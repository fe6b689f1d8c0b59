"""`dp360 eval heads` and `ablation`: many heads, several generators, one table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dp360.generation import InputError
from dp360.generation.progress import Track
from dp360.reconstruction.evaluation.compare import ALL, METRICS, Estimate, Summary, estimate, summarise
from dp360.reconstruction.evaluation.features import Perceptual, open_perceptual
from dp360.reconstruction.evaluation.heads import (
    HeadCase,
    HeadResult,
    HeadsConfig,
    ViewSource,
    dataset_sha256,
    distribution_distances,
    evaluate_head,
    head_folders,
    read_head,
    read_head_result,
    settings_of,
    write_head_result,
)
from dp360.reconstruction.evaluation.results import (
    Result,
    Table,
    bin_title,
    summary_data,
    summary_panels,
    summary_table,
)
from dp360.reconstruction.evaluation.sheet import TILE_PX, labelled_sheet

from .console import Display
from .data import DataHeadsCommand, make_heads
from .evaluation_commands import EvalAblationCommand, EvalHeadsCommand
from .processes import in_processes
from .variants import VARIANTS, compact_weights_name, open_sources, source_name

GRID_VIEWS, GRID_SIZE_PX = 72, 512
"""True views of the benchmark: 24 azimuths at three elevations."""
_SHOWN_HEADS = 6
_PLOT_METRICS = ("psnr", "ssim", "perceptual", "iou", "psnr_head", "iou_head")


def evaluate_heads(command: EvalHeadsCommand, *, track: Track, notify: Callable[[str], None]) -> Result:
    """Measure every generator on every head that has no result yet, then sum up.

    Raises:
        InputError: unknown generators, too few heads, or damaged data.
    """
    _refuse_nonsense(command)
    open_sources([g for g in command.generators if "=" in g or g not in VARIANTS], None)  # a slip costs no time
    folders = _heads(command, track, notify)
    work = [(generator, str(folder)) for folder in folders for generator in command.generators]
    todo = [item for item in work if not _up_to_date(command, *item)]
    for _ in track(in_processes(partial(_measure, command), todo, command.jobs), total=len(todo), description="Heads"):
        pass
    results = {
        name: [read_head_result(_results_folder(command, generator), folder.name) for folder in folders]
        for generator in command.generators
        for name in (source_name(generator),)
    }
    return _result(command, results)


def _heads(command: EvalHeadsCommand, track: Track, notify: Callable[[str], None]) -> list[Path]:
    """The folders of the heads, made first where --data is given."""
    if command.data is not None:
        asked, found = command.heads, 0
        while found < command.heads:  # heads whose face is not found are replaced by the ones that follow
            made = make_heads(
                DataHeadsCommand(
                    command.data, command.benchmark, asked, split="held-out", views=GRID_VIEWS, size=GRID_SIZE_PX,
                    orbit="grid", maps=False, jobs=command.jobs,
                ),
                Display(track, notify),
            )  # fmt: skip
            if asked > 4 * command.heads + 16:
                raise InputError(f"Only {len(made)} of {asked} heads could be made in {command.benchmark}")
            found, asked = len(made), asked + command.heads - len(made)
    return head_folders(command.benchmark, command.heads)


def _results_folder(command: EvalHeadsCommand, generator: str) -> Path:
    return command.output / "heads" / source_name(generator)


def _measure(command: EvalHeadsCommand, item: tuple[str, str]) -> None:
    """Measure one head with one generator and write what was found."""
    generator, folder = item
    case, source = _case(Path(folder), command.views), _source(generator, command.weights)
    result = evaluate_head(case, source, _config(command), _perceptual(command.perceptual))
    write_head_result(_results_folder(command, generator), result)


def _up_to_date(command: EvalHeadsCommand, generator: str, folder: str) -> bool:
    """Whether a result is there that the same settings, data, version and compact weights gave."""
    path = _results_folder(command, generator) / f"{Path(folder).name}.json"
    if not path.is_file():
        return False
    found = read_head_result(path.parent, path.stem)
    expected = settings_of(dataset_sha256(Path(folder)), _config(command), _perceptual(command.perceptual))
    weights = compact_weights_name(generator)
    if weights is not None and not str(found.facts.get("weights")).startswith(weights):
        return False
    return all(found.facts.get(name) == value for name, value in expected.items())


def _config(command: EvalHeadsCommand) -> HeadsConfig:
    return HeadsConfig(stage=command.stage, most_views=command.views, seed=command.seed)


@cache
def _source(generator: str, weights: str | None) -> ViewSource:
    return open_sources([generator], weights)[0]


@cache
def _perceptual(name: str) -> Perceptual | None:
    return None if name == "none" else open_perceptual(name)  # type: ignore[arg-type]


@lru_cache(maxsize=1)  # a head is large; the next piece of work is often another generator on it
def _case(folder: Path, views: int | None) -> HeadCase:
    return read_head(folder, views)


def _result(command: EvalHeadsCommand, results: Mapping[str, Sequence[HeadResult]]) -> Result:
    summaries = {name: summarise([r.rows for r in found]) for name, found in results.items()}
    first = next(iter(results.values()))
    count = len(first)
    metrics = [m for m in METRICS if not math.isnan(summaries[next(iter(summaries))][ALL][m].mean)]
    about = {name: VARIANTS[name].about for name in results if name in VARIANTS}
    tables = [summary_table(f"{count} heads, {len(first[0].rows)} true views each", summaries, metrics)]
    data: dict[str, Any] = {
        "heads": count,
        "summary": {name: summary_data(summary) for name, summary in summaries.items()},
        "about": about,
    }
    distances = {name: distribution_distances(found) for name, found in results.items()}
    if any(distances.values()):
        data["distribution_distances"] = distances
        tables.append(_distances_table(distances))
    if len(results) > 1:
        differences = _differences(results)
        data["difference_to_first"] = {name: summary_data(summary) for name, summary in differences.items()}
        title = f"Difference to {next(iter(results))}, paired over heads"
        tables.insert(1, summary_table(title, differences, metrics))
    facts = {
        "version": first[0].facts["version"],
        "weights": {name: found[0].facts["weights"] for name, found in results.items()},
        "seed": command.seed,
        "stage": command.stage,
        "perceptual": first[0].facts["perceptual"],
        "data_sha256": _joined([r.facts["data_sha256"] for r in first]),
    }
    notices = () if first[0].facts["perceptual"] else (_NO_PERCEPTUAL,)
    panels = summary_panels(summaries, [m for m in _PLOT_METRICS if m in metrics])
    sheet = _ablation_sheet(results) if isinstance(command, EvalAblationCommand) else _heads_sheet(results)
    return Result(facts, data, tuple(tables), panels, sheet, notices)


_NO_PERCEPTUAL = 'No perceptual distance was measured: pip install "dp360[eval]" brings one'


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


def _distances_table(distances: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """KID of every bin; the Frechet distance where there are enough pictures for it."""
    bins = list(next(iter(distances.values())))
    rows = []
    for name, found in distances.items():
        rows.append((f"{name}, KID x 1000", *(f"{1000 * found[b]['kid']:.1f}" for b in bins)))
        if any("frechet" in found[b] for b in bins):
            cells = (f"{found[b]['frechet']:.2f}" if "frechet" in found[b] else "-" for b in bins)
            rows.append((f"{name}, Frechet distance", *cells))
    title = "Sets of pictures in the deepest features of EfficientNet-Lite0 (not comparable with Inception's)"
    return Table(title, ("", *(bin_title(b) for b in bins)), tuple(rows))


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


def _joined(hashes: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _refuse_nonsense(command: EvalHeadsCommand) -> None:
    for name, value in (("heads", command.heads), ("jobs", command.jobs), ("views", command.views)):
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    if not command.generators:
        raise InputError(f"Expected --generators, one or more of {', '.join(VARIANTS)}, or NAME=FOLDER")

"""`dp360 eval heads` and `ablation`: many heads, several generators, one table."""

from __future__ import annotations

from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from dp360.generation import InputError
from dp360.reconstruction.evaluation.features import Perceptual, open_perceptual
from dp360.reconstruction.evaluation.heads import (
    HeadCase,
    HeadsConfig,
    ViewSource,
    dataset_sha256,
    deciding_facts,
    evaluate_head,
    head_folders,
    read_head,
    read_head_result,
    write_head_result,
)
from dp360.reconstruction.evaluation.heads_report import heads_result
from dp360.reconstruction.evaluation.results import EvaluationResult

from .commands import DataCommand
from .data import make_heads
from .evaluate import EvalAblationCommand, EvalHeadsCommand, PerceptualChoice
from .processes import in_processes
from .variants import GENERATOR_VARIANTS, compact_weights_name, open_sources, source_name

if TYPE_CHECKING:
    from .console import Display

GRID_VIEWS, GRID_SIZE_PX = 72, 512
"""True views of the benchmark: 24 azimuths at three elevations."""


def evaluate_heads(command: EvalHeadsCommand, display: Display) -> EvaluationResult:
    """Measure every generator on every head that has no result yet, then sum up.

    Raises:
        InputError: unknown generators, too few heads, or damaged data.
    """
    _refuse_nonsense(command)
    open_sources(
        [g for g in command.generators if "=" in g or g not in GENERATOR_VARIANTS], None
    )  # a slip costs no time
    folders = _heads(command, display)
    work = [(generator, str(folder)) for folder in folders for generator in command.generators]
    todo = [item for item in work if not _up_to_date(command, *item)]
    measured = in_processes(partial(_measure, command), todo, command.jobs)
    for _ in display.track(measured, total=len(todo), description="Heads"):
        pass
    results = {
        source_name(generator): [
            read_head_result(_results_folder(command, generator), folder.name) for folder in folders
        ]
        for generator in command.generators
    }
    about = {name: GENERATOR_VARIANTS[name].about for name in results if name in GENERATOR_VARIANTS}
    return heads_result(results, _config(command), about, ablation=isinstance(command, EvalAblationCommand))


def _heads(command: EvalHeadsCommand, display: Display) -> list[Path]:
    """The folders of the heads, made first where --data is given."""
    if command.data is not None:
        asked, found = command.heads, 0
        while found < command.heads:  # heads whose face is not found are replaced by the ones that follow
            made = make_heads(
                DataCommand(
                    "heads", command.benchmark, command.data, asked, split="held-out", views=GRID_VIEWS,
                    size=GRID_SIZE_PX, orbit="grid", maps=False, jobs=command.jobs,
                ),
                track=display.track, notify=display.notify,
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
    expected = deciding_facts(dataset_sha256(Path(folder)), _config(command), _perceptual(command.perceptual))
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
def _perceptual(name: PerceptualChoice) -> Perceptual | None:
    return None if name == "none" else open_perceptual(name)


@lru_cache(maxsize=1)  # a head is large; the next piece of work is often another generator on it
def _case(folder: Path, views: int | None) -> HeadCase:
    return read_head(folder, views)


def _refuse_nonsense(command: EvalHeadsCommand) -> None:
    for name, value in (("heads", command.heads), ("jobs", command.jobs), ("views", command.views)):
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    if not command.generators:
        raise InputError(f"Expected --generators, one or more of {', '.join(GENERATOR_VARIANTS)}, or NAME=FOLDER")
    if len({source_name(given) for given in command.generators}) < len(command.generators):
        raise InputError(f"Expected different names of generators, got {', '.join(command.generators)}")

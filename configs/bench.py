"""`dp360 bench`: what the stages cost, counted and measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from typing_extensions import assert_never

if TYPE_CHECKING:
    from .console import Display


@dataclass(frozen=True)
class BenchCommand:
    """Measure what a stage costs on this machine; the splat engine, or the diffusion model with random weights. Or
    forecast what many heads take."""

    what: tyro.conf.Positional[Literal["diffusion", "splats", "batch"]]
    """diffusion: operations, parameters, memory and time of the full-size networks, the release's way and ours;
    splats: milliseconds of the CPU engine at 20,000 and 50,000 Gaussians, 256 and 512 px, and a fit of --data; batch:
    hours of --heads portraits by the stages in --results."""
    views: int = 32
    """diffusion: views on the level ring."""
    size_px: int = 512
    """diffusion: side of the views in pixels, a multiple of 64."""
    steps: int = 50
    """diffusion: denoising steps of the comparison with the release; the default sampler keeps its own number."""
    device: Literal["auto", "cpu", "cuda", "meta"] = "auto"
    """diffusion: where to time; auto takes the GPU if there is one, meta only counts; cpu times one clip and one step
    of the full-size networks, which takes 16 GB of memory."""
    data: Path | None = None
    """splats: a data set's folder, to time the default fit of it; none without."""
    results: Path | None = None
    """batch: results.jsonl of a dp360 batch."""
    heads: int = 1_000_000
    """batch: portraits of the forecast."""
    jobs: int = 1
    """batch: heads at once, on all machines together."""
    json: Path | None = None
    """File for the same figures as JSON."""


def run(command: BenchCommand, display: Display) -> str:
    """Count, and measure where there is a device to measure on.

    Raises:
        InputError: sizes that the networks cannot do, a device or data set that is not there, or a file that cannot be
            written.
    """
    from dp360.generation.files import write_bytes_atomically

    match command.what:
        case "diffusion":
            from dp360.generation.diffusion.cost import cost_report

            report = cost_report(
                views=command.views,
                size_px=command.size_px,
                steps=command.steps,
                device=command.device,
                track=display.track,
            )
        case "splats":
            from dp360.generation.dataset.view_dataset import read_dataset
            from dp360.reconstruction.splat_benchmark import bench_splats

            from .run_folder import dataset_folder

            views = None if command.data is None else read_dataset(dataset_folder(command.data))
            report = bench_splats(views, track=display.track)
        case "batch":
            from dp360.generation import InputError

            from .jobs.cost import batch_cost
            from .jobs.results import ResultsFile

            if command.results is None:
                raise InputError("Cannot forecast: name the results.jsonl of a batch with --results")
            measured = ResultsFile(command.results).read().values()
            report = batch_cost(measured, portraits=command.heads, jobs=command.jobs)
        case _:
            assert_never(command.what)
    if command.json is not None:
        write_bytes_atomically(command.json, (report.to_json() + "\n").encode())
    return report.to_text()

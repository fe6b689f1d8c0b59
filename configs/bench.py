"""`dp360 bench`: what the stages cost, counted and measured."""

from __future__ import annotations

from typing_extensions import assert_never

from dp360.generation.dataset.view_dataset import read_dataset
from dp360.generation.diffusion.cost import cost_report
from dp360.generation.files import write_bytes_atomically
from dp360.generation.progress import Track, silent
from dp360.reconstruction.splat_benchmark import bench_splats

from .commands import BenchCommand
from .pipeline import dataset_folder


def bench(command: BenchCommand, *, track: Track = silent) -> str:
    """Count, and measure where there is a device to measure on.

    Returns:
        Tables for people.

    Raises:
        InputError: sizes that the networks cannot do, a device or data set that is not there, or a file that cannot be
            written.
    """
    match command.what:
        case "diffusion":
            report = cost_report(
                views=command.views, size_px=command.size_px, steps=command.steps, device=command.device, track=track
            )
        case "splats":
            views = None if command.data is None else read_dataset(dataset_folder(command.data))
            report = bench_splats(views, track=track)
        case _:
            assert_never(command.what)
    if command.json is not None:
        write_bytes_atomically(command.json, (report.to_json() + "\n").encode())
    return report.to_text()

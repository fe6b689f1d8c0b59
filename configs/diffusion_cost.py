"""`dp360 bench diffusion`: what the diffusion model costs, counted and measured."""

from __future__ import annotations

from typing_extensions import assert_never

from dp360.generation.diffusion.cost import cost_report
from dp360.generation.files import write_bytes_atomically
from dp360.generation.progress import Track, silent

from .commands import BenchCommand


def bench(command: BenchCommand, *, track: Track = silent) -> str:
    """Count, and measure where there is a device to measure on.

    Returns:
        Tables for people.

    Raises:
        InputError: sizes that the networks cannot do, a device that is not there, or a file that cannot be written.
    """
    match command.what:
        case "diffusion":
            report = cost_report(
                views=command.views,
                size_px=command.size_px,
                steps=command.steps,
                device=command.device,
                track=track,
            )
        case _:
            assert_never(command.what)
    if command.json is not None:
        write_bytes_atomically(command.json, (report.to_json() + "\n").encode())
    return report.to_text()

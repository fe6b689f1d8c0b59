"""The `dp360` command: reads what is asked, hands it to the module of that name, says which files were made.

Each subcommand is a module with a dataclass, whose docstrings are the help text, and a function `run`. Only the module
of the subcommand that is named is imported, and heavy libraries when its `run` needs them: help and the first line of
progress come at once. Exit codes: 0 done, 1 something is missing (doctor, data check), 2 a file or setting cannot be
used, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from dp360.generation.system import end_process, give_back_large_blocks

from .console import Outcome, errors_for_people, progress_bars
from .extras import refuse_command_without_packages


@dataclass(frozen=True)
class Subcommand:
    """Where a subcommand stands, and the first sentence about it."""

    module: str
    """Module of this package with its dataclass and its `run`."""
    type_name: str
    """Name of the dataclass."""
    summary: str
    """First paragraph of the dataclass's docstring: `dp360 --help` shows it without the module."""


SUBCOMMANDS = {
    "run": Subcommand("run", "RunCommand", "Make a head: dp360 run face.png."),
    "views": Subcommand(
        "run",
        "ViewsCommand",
        "Make the posed views of a head and stop: a data set that every nerfstudio method reads.",
    ),
    "batch": Subcommand(
        "batch", "BatchCommand", "Make heads of many portraits: dp360 batch 'in/*.jpg' --output heads."
    ),
    "serve": Subcommand(
        "serve",
        "ServeCommand",
        "Show a page in the browser on which portraits become heads; it needs dp360[serve].",
    ),
    "fit": Subcommand("fit", "FitCommand", "Fit Gaussian splats to views that are already on disk."),
    "export": Subcommand(
        "export",
        "ExportCommand",
        "Write a fitted head in other forms: splats, meshes, pictures; the endings of the names say which.",
    ),
    "animate": Subcommand(
        "animate",
        "AnimateCommand",
        "Show a head's splats in motion: dp360 animate --avatar heads/face --csv take.csv --output talk.mp4.",
    ),
    "view": Subcommand("view", "ViewCommand", "Show a head in the browser, seen from the front; Ctrl-C ends it."),
    "convert": Subcommand(
        "convert",
        "ConvertCommand",
        "Turn the official DiffPortrait360 checkpoints into a folder for --weights.",
    ),
    "import-release": Subcommand(
        "import_release",
        "ImportReleaseCommand",
        "Make a data set of what the official DiffPortrait360 release has made.",
    ),
    "import-capture": Subcommand(
        "import_capture",
        "ImportCaptureCommand",
        "Make a data set of one frame of a real head that many cameras have taken (data sets licensed for research).",
    ),
    "bench": Subcommand(
        "bench",
        "BenchCommand",
        "Measure what a stage costs on this machine; the splat engine, or the diffusion model with random weights. Or "
        "forecast what many heads take.",
    ),
    "train": Subcommand(
        "train",
        "TrainCommand",
        "Train a learned part of the prior, or a stage of the diffusion model; called again, it goes on.",
    ),
    "data": Subcommand(
        "data",
        "DataCommand",
        "Compose heads with known truth to train and measure with, or check the assets that they are made of.",
    ),
    "eval": Subcommand(
        "evaluate",
        "EvalCommand",
        "Measure how good views or heads are: against truth, against the portrait, against themselves.",
    ),
    "example": Subcommand(
        "example",
        "ExampleCommand",
        "Write a real public-domain portrait to try things on; nothing is downloaded.",
    ),
    "doctor": Subcommand("doctor", "DoctorCommand", "Say what this machine has, what it lacks, and what for."),
}
"""In the order of the help."""


def command_type(name: str) -> type[Any]:
    """The dataclass of a subcommand; its module is imported."""
    found = SUBCOMMANDS[name]
    return getattr(importlib.import_module(f".{found.module}", __package__), found.type_name)


def _parsed_type(words: Sequence[str]) -> Any:
    """What the words are read as: the dataclass of the subcommand that is named, stand-ins for the others."""
    choices = []
    for name, found in SUBCOMMANDS.items():
        if words and words[0] == name:
            kind = command_type(name)
        else:
            kind = make_dataclass(found.type_name, [], namespace={"__doc__": found.summary})
        choices.append(Annotated[kind, tyro.conf.subcommand(name)])
    return tyro.conf.FlagCreatePairsOff[Union[tuple(choices)]]  # noqa: UP007 - made at run time


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        arguments: words of the command line without the program's name; None takes the process's own.

    Returns:
        The exit code; 2, 130 and 143 leave through SystemExit.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        from importlib import metadata

        print(f"dp360 {metadata.version('dp360')}")
        return 0
    command = tyro.cli(
        _parsed_type(words),
        prog="dp360",
        description="From one portrait to a complete 3D head: views from all sides, Gaussian splats, a mesh. "
        "Start with: dp360 run face.png (dp360 example face.png writes a portrait to try). "
        "dp360 --version says which version this is.",
        args=words,
    )
    give_back_large_blocks()
    handler = importlib.import_module(type(command).__module__).run
    with errors_for_people():
        refuse_command_without_packages(command)
        with progress_bars() as display:
            outcome: Outcome = handler(command, display)
        if isinstance(outcome, int):
            return outcome
        for item in [outcome] if isinstance(outcome, str) else outcome:
            print(f"wrote {item}" if isinstance(item, Path) else item)
    return 0


def entrypoint() -> None:
    """The console script.

    What the output's encoding lacks (a letter in a file's name, a bullet of the help) is written as its number instead
    of ending the program: cp1252 of Windows, ASCII where no language is set.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
    end_process(main())


if __name__ == "__main__":
    entrypoint()

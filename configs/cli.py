"""The `dp360` command: reads what is asked, hands it to the stages, says which files were made.

Heavy libraries are imported when a subcommand needs them. Exit codes: 0 done, 1 something is missing (doctor),
2 a file or setting cannot be used, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from typing_extensions import assert_never

from .bench import BenchCommand
from .commands import (
    DataCommand,
    DoctorCommand,
    ExampleCommand,
    ExportCommand,
    FitCommand,
    RunCommand,
    ViewCommand,
    ViewsCommand,
)
from .console import errors_for_people, print_diagnosis, progress_bars
from .convert import ConvertCommand
from .evaluation_commands import EvalCommand
from .import_capture import ImportCaptureCommand
from .import_release import ImportReleaseCommand
from .training_commands import TrainCommand

_Subcommand = (
    Annotated[RunCommand, tyro.conf.subcommand("run")]
    | Annotated[ViewsCommand, tyro.conf.subcommand("views")]
    | Annotated[FitCommand, tyro.conf.subcommand("fit")]
    | Annotated[ExportCommand, tyro.conf.subcommand("export")]
    | Annotated[ViewCommand, tyro.conf.subcommand("view")]
    | Annotated[ConvertCommand, tyro.conf.subcommand("convert")]
    | Annotated[ImportReleaseCommand, tyro.conf.subcommand("import-release")]
    | Annotated[ImportCaptureCommand, tyro.conf.subcommand("import-capture")]
    | Annotated[BenchCommand, tyro.conf.subcommand("bench")]
    | Annotated[TrainCommand, tyro.conf.subcommand("train")]
    | Annotated[DataCommand, tyro.conf.subcommand("data")]
    | Annotated[EvalCommand, tyro.conf.subcommand("eval")]
    | Annotated[ExampleCommand, tyro.conf.subcommand("example")]
    | Annotated[DoctorCommand, tyro.conf.subcommand("doctor")]
)
_Parsed = tyro.conf.FlagCreatePairsOff[_Subcommand]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        arguments: words of the command line without the program's name; None takes the process's own.

    Returns:
        The exit code; 2, 130 and 143 leave through SystemExit.
    """
    command = tyro.cli(
        _Parsed,
        prog="dp360",
        description="From one portrait to a complete 3D head: views from all sides, Gaussian splats, a mesh.",
        args=arguments,
    )
    with errors_for_people():
        return _dispatch(command)


def _dispatch(command: _Subcommand) -> int:
    match command:
        case ExampleCommand():
            from .example import write_example_portrait

            write_example_portrait(command.path)
            _name_files([command.path])
        case DoctorCommand():
            from .doctor import examine

            diagnosis = examine(command.output)
            print_diagnosis(diagnosis)
            return 0 if diagnosis.main_job_possible else 1
        case RunCommand():
            from .pipeline import run_pipeline

            with progress_bars() as display:
                files = run_pipeline(command, track=display.track, notify=display.notify)
            _name_files(files)
            _name_next_commands(command.output)
        case ViewsCommand():
            from .pipeline import make_views

            with progress_bars() as display:
                files = make_views(command, track=display.track, notify=display.notify)
            _name_files(files)
        case FitCommand():
            from .pipeline import fit_dataset

            with progress_bars() as display:
                files = fit_dataset(command, track=display.track)
            _name_files(files)
            _name_next_commands(command.output)
        case ExportCommand():
            from .export import export

            with progress_bars() as display:
                files = export(command, track=display.track, notify=display.notify)
            _name_files(files)
        case ViewCommand():
            from .view import view

            view(command)
        case ConvertCommand():
            from . import convert

            with progress_bars() as display:
                report = convert.run(command, display)
            print(report)
        case ImportReleaseCommand():
            from . import import_release

            with progress_bars() as display:
                files = import_release.run(command, display)
            _name_files(files)
        case ImportCaptureCommand():
            from . import import_capture

            with progress_bars() as display:
                files = import_capture.run(command, display)
            _name_files(files)
        case BenchCommand():
            from . import bench

            with progress_bars() as display:
                report = bench.run(command, display)
            print(report)
        case TrainCommand():
            from .train import train

            with progress_bars() as display:
                files = train(command.what, track=display.track, notify=display.notify)
            _name_files(files)
        case DataCommand():
            from .data import make_heads

            with progress_bars() as display:
                folders = make_heads(command, track=display.track, notify=display.notify)
            _name_files(folders)
        case EvalCommand():
            from .evaluate import evaluate

            with progress_bars() as display:
                result, files = evaluate(command, track=display.track, notify=display.notify)
            print(result.markdown())
            _name_files(files)
        case _:
            assert_never(command)
    return 0


def _name_files(files: Iterable[Path]) -> None:
    for path in files:
        print(f"wrote {path}")


def _name_next_commands(folder: Path) -> None:
    """What can be done with a folder that holds a fitted head."""
    print(f"look at it:  dp360 view {shlex.quote(str(folder / 'head.ply'))}")
    print(f"export more: dp360 export --input {shlex.quote(str(folder))} --output head.spz head.html turntable.mp4")


def entrypoint() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entrypoint()

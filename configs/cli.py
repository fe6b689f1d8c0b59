"""The `dp360` command: reads what is asked, hands it to the module of that name, says which files were made.

Each subcommand is a module with a dataclass, whose docstrings are the help text, and a function `run`; heavy libraries
are imported when `run` needs them. Exit codes: 0 done, 1 something is missing (doctor, data check), 2 a file or setting
cannot be used, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from . import (
    bench,
    convert,
    data,
    doctor,
    evaluate,
    example,
    export,
    fit,
    import_capture,
    import_release,
    run,
    train,
    view,
)
from .console import Outcome, errors_for_people, progress_bars

_Subcommand = (
    Annotated[run.RunCommand, tyro.conf.subcommand("run")]
    | Annotated[run.ViewsCommand, tyro.conf.subcommand("views")]
    | Annotated[fit.FitCommand, tyro.conf.subcommand("fit")]
    | Annotated[export.ExportCommand, tyro.conf.subcommand("export")]
    | Annotated[view.ViewCommand, tyro.conf.subcommand("view")]
    | Annotated[convert.ConvertCommand, tyro.conf.subcommand("convert")]
    | Annotated[import_release.ImportReleaseCommand, tyro.conf.subcommand("import-release")]
    | Annotated[import_capture.ImportCaptureCommand, tyro.conf.subcommand("import-capture")]
    | Annotated[bench.BenchCommand, tyro.conf.subcommand("bench")]
    | Annotated[train.TrainCommand, tyro.conf.subcommand("train")]
    | Annotated[data.DataCommand, tyro.conf.subcommand("data")]
    | Annotated[evaluate.EvalCommand, tyro.conf.subcommand("eval")]
    | Annotated[example.ExampleCommand, tyro.conf.subcommand("example")]
    | Annotated[doctor.DoctorCommand, tyro.conf.subcommand("doctor")]
)
_Parsed = tyro.conf.FlagCreatePairsOff[_Subcommand]


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
        _Parsed,
        prog="dp360",
        description="From one portrait to a complete 3D head: views from all sides, Gaussian splats, a mesh. "
        "Start with: dp360 run face.png (dp360 example face.png writes a portrait to try). "
        "dp360 --version says which version this is.",
        args=words,
    )
    handler = sys.modules[type(command).__module__].run
    with errors_for_people():
        with progress_bars() as display:
            outcome: Outcome = handler(command, display)
        if isinstance(outcome, int):
            return outcome
        for item in [outcome] if isinstance(outcome, str) else outcome:
            print(f"wrote {item}" if isinstance(item, Path) else item)
    return 0


def entrypoint() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entrypoint()

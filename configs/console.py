"""How the command line shows progress, failure and findings: bars with the time left, errors in one line, a table."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from dp360.generation import InputError
from dp360.generation.system import ENDING_SIGNALS, command_line, handled

from .extras import EXTRA_OF, missing_sentence

if TYPE_CHECKING:
    from rich.progress import Progress

    from .doctor import Diagnosis
    from .jobs.progress import Progress as JobProgress
    from .jobs.results import PortraitResult

EXIT_INPUT_ERROR, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 130, 143
_STATE_STYLE = {"ok": "green", "note": "yellow", "missing": "red"}


class _Terminated(KeyboardInterrupt):
    """SIGTERM, or Ctrl-Break: ends like Ctrl-C, so that temporary files go away, with its own exit code."""


Notify = Callable[[str], None]
"""Shows one sentence to the person who started the run."""
Outcome = Iterable["Path | str"] | str | int
"""What a command's handler returns: files it wrote and texts to print, one text, or an exit code."""


def ignore(sentence: str) -> None:
    """The `Notify` that shows nothing."""
    del sentence


@dataclass(frozen=True)
class Display:
    """What a running job may show."""

    track: Callable[..., Iterable[Any]]
    """A `Track`: one bar per stage with elapsed and remaining time."""
    notify: Notify
    """Shows a sentence above the bars."""


@contextlib.contextmanager
def progress_bars() -> Iterator[Display]:
    """Bars and notices on the terminal's error stream; standard output stays free for the names of files.

    Nothing is shown, and nothing imported, before the first of them.
    """
    shown: list[Progress] = []

    def progress() -> Progress:
        if not shown:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            shown.append(
                Progress(
                    TextColumn("{task.description:<26}"),
                    BarColumn(bar_width=30),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    TextColumn("elapsed,"),
                    TimeRemainingColumn(),
                    TextColumn("left"),
                    console=Console(stderr=True),
                )
            )
            shown[0].start()
        return shown[0]

    def track(sequence: Iterable[Any], **arguments: Any) -> Iterable[Any]:
        return progress().track(sequence, **arguments)

    def notify(sentence: str) -> None:
        progress().console.print(f"note: {sentence}", markup=False, highlight=False, soft_wrap=True)

    try:
        yield Display(track, notify)
    finally:
        for bars in shown:
            bars.stop()


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """Turn what users can mend or caused into one line and an exit code; anything else keeps its traceback."""
    try:
        with handled(_raise_terminated, ENDING_SIGNALS):
            yield
    except KeyboardInterrupt as error:
        print("dp360: stopped; files that were complete are kept", file=sys.stderr)
        raise SystemExit(EXIT_TERMINATED if isinstance(error, _Terminated) else EXIT_INTERRUPTED) from None
    except InputError as error:
        print(f"dp360: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(EXIT_INPUT_ERROR) from None
    except ModuleNotFoundError as error:
        lacking = (error.name or "").partition(".")[0]
        if lacking not in EXTRA_OF:
            raise
        print(f"dp360: {missing_sentence([lacking], 'This')}", file=sys.stderr)
        raise SystemExit(EXIT_INPUT_ERROR) from None
    except OSError as error:
        if error.filename is None:
            raise
        print(f"dp360: {error.filename}: {error.strerror}", file=sys.stderr)
        raise SystemExit(EXIT_INPUT_ERROR) from None


def _raise_terminated(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


def next_commands(folder: Path) -> tuple[str, str]:
    """What can be done with a folder that holds a fitted head."""
    export = ["dp360", "export", "--input", str(folder), "--output", "head.spz", "head.html", "turntable.mp4"]
    return (
        f"look at it:  {command_line(['dp360', 'view', str(folder / 'head.ply')])}",
        f"export more: {command_line(export)}",
    )


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the findings section by section, then what to install and whether the main job can run."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    section, table = None, Table.grid()
    for finding in diagnosis.findings:
        if finding.section != section:
            console.print(table)
            section, table = finding.section, Table.grid(padding=(0, 2))
            console.print(f"[bold]{section}[/bold]")
        note = f"for {finding.needed_for}" if finding.state != "ok" and finding.needed_for else ""
        style = _STATE_STYLE[finding.state]
        table.add_row(f"  [{style}]{finding.state}[/{style}]", finding.name, escape(finding.value), escape(note))
    console.print(table)
    if diagnosis.apt_line:
        console.print(f"\nMissing system packages: {diagnosis.apt_line}")
    if diagnosis.main_job_possible:
        console.print("\ndp360 run can make heads on this machine.")
    else:
        console.print("\ndp360 run cannot make heads on this machine yet: see what is missing above.")


@contextlib.contextmanager
def batch_board() -> Iterator[TerminalBoard]:
    """Bars of a batch on the error stream: one for all, one for each portrait that runs."""
    board = TerminalBoard()
    try:
        yield board
    finally:
        board.close()


class TerminalBoard:
    """Shows a batch: bars where there is a terminal, a line for each portrait that ended otherwise."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[about]}"),
            console=self._console,
        )
        self._tasks: dict[str, Any] = {}
        if self._console.is_terminal:
            self._bars.start()

    def whole(self, done: int, total: int, left_s: float | None) -> None:
        """How many heads have ended, of how many, and the seconds that the rest is expected to take."""
        left = "" if left_s is None or done == total else f", about {words_for_seconds(left_s)} left"
        self._show("", "All portraits", done / total if total else 1.0, f"{done} of {total}{left}")

    def portrait(self, name: str, progress: JobProgress | None) -> None:
        """How far one portrait is; None when it runs no more."""
        if progress is None:
            if name in self._tasks:
                self._bars.remove_task(self._tasks.pop(name))
            return
        about = f"{progress.step or progress.stage}, about {words_for_seconds(progress.left_s)} left"
        self._show(name, name, progress.unit, about)

    def ended(self, result: PortraitResult) -> None:
        """How one portrait ended, as a line that stays."""
        took = "" if result.seconds is None else f" in {result.seconds:.0f} s"
        why = "" if result.error is None else f": {result.error.splitlines()[-1]}"
        self._console.print(f"{result.status}: {result.name}{took}{why}", markup=False)

    def note(self, sentence: str) -> None:
        """A sentence for people: the `Notify` of a batch."""
        self._console.print(f"note: {sentence}", markup=False)

    def close(self) -> None:
        """Take the bars away."""
        if self._console.is_terminal:
            self._bars.stop()

    def _show(self, key: str, description: str, unit: float, about: str) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(description, total=1.0, about=about)
        self._bars.update(self._tasks[key], completed=unit, about=about)


def words_for_seconds(seconds: float) -> str:
    """A rough duration for people: 40 s, 12 min, 3 h."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"

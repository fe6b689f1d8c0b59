"""What a worker of `dp360 batch` and `dp360 serve` does: one head by its `Job`, then the formats asked for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp360.exporters.formats import format_of
from dp360.generation import InputError
from dp360.generation.progress import Track, silent

from ..options import RENDERED, HeadOptions
from ..run_folder import FolderTaken, exclusive_run
from ..view_generators import settled
from .job import Job, read_record
from .peak_memory import PEAK_MEMORY
from .progress import FORMATS_STAGE, JobClock, expected_format_s, expected_stage_s
from .workers import Reporter


@dataclass(frozen=True)
class HeadTask:
    """A portrait, how it is treated, and what shall stand in its folder."""

    options: HeadOptions
    """The portrait and how it is treated; its only picture is the portrait."""
    folder: Path
    """Folder of the head."""
    formats: tuple[str, ...] = ()
    """Endings without dot of what shall be there beside the files of a run."""
    stage_s: dict[str, float] | None = None
    """Seconds of each stage, where they were measured."""


@dataclass(frozen=True)
class HeadMade:
    """What a worker tells about a head that is there."""

    seconds: float
    """Wall seconds of this task, those included in which it waits halfway for the one before it."""
    peak_memory_bytes: int
    """Most memory that the worker held during it; 0 where the system does not tell."""
    record: dict[str, Any]
    """What dp360.json says."""
    exported: tuple[str, ...]
    """Names of the files in the formats asked for."""


def make_head(task: HeadTask, reporter: Reporter) -> HeadMade | None:
    """Make what is missing of a head: the `Runner` of batch and page.

    Returns:
        What was made; None where another process is making it.

    Raises:
        InputError: the picture or a setting cannot be used, or the folder cannot be written.
        JobCancelled: the reporter says so.
    """
    try:
        with PEAK_MEMORY.during() as peak_bytes:
            return _made(task, reporter, peak_bytes)
    except FolderTaken:
        return None


def _made(task: HeadTask, reporter: Reporter, peak_bytes: Callable[[], int]) -> HeadMade:
    began_s = time.perf_counter()
    job = Job(task.options, task.folder)
    expected_s = dict(task.stage_s or expected_stage_s(settled(task.options), job.recipe))
    missing = missing_formats(task.folder, task.formats)
    if missing:
        expected_s[FORMATS_STAGE] = sum(map(expected_format_s, missing))
    if not job.is_done(file_sha256(task.options.portrait)):
        for name in task.formats:
            _remove_export(task.folder, name)  # made of another head
        if settled(task.options).generator not in RENDERED:
            reporter.halfway()  # a diffusion model takes all cores and gigabytes: nothing is fitted beside it
        job.run(
            notify=reporter.notify,
            hear=reporter.hear,
            is_cancelled=reporter.is_cancelled,
            expected_s=expected_s,
            before_fit=reporter.halfway,
        )
        missing = missing_formats(task.folder, task.formats)
    if missing:
        export_formats(task.folder, missing, reporter, expected_s)
    record = read_record(task.folder)
    assert record is not None
    names = tuple(export_name(name) for name in task.formats)
    return HeadMade(time.perf_counter() - began_s, peak_bytes(), record, names)


def export_formats(folder: Path, formats: tuple[str, ...], reporter: Reporter, expected_s: dict[str, float]) -> None:
    """Write a finished head in further formats.

    Args:
        folder: of the head.
        formats: endings without dot.
        expected_s: seconds of all stages, `formats` included; the others are done.

    Raises:
        InputError: a format cannot be written.
        JobCancelled: the reporter says so.
    """
    from ..export import ExportCommand
    from ..export_files import export

    clock = JobClock(expected_s, reporter.hear, reporter.is_cancelled)
    clock.skip(name for name in expected_s if name != FORMATS_STAGE)
    with exclusive_run(folder):
        clock.begin(FORMATS_STAGE)
        outputs = tuple(folder / export_name(name) for name in formats)
        track: Track = clock.tracking(silent)
        for output in track(outputs, total=len(outputs), description="Writing formats"):
            export(ExportCommand(output=((output,),), input=folder), track=track, notify=reporter.notify)
        clock.end(FORMATS_STAGE)


def export_name(ending: str) -> str:
    """Name of a head's file in one format.

    Args:
        ending: with or without dot.

    Raises:
        InputError: no format has this ending.
    """
    ending = ending.lstrip(".").lower()
    found = format_of(f"head.{ending}")
    if found.ending != ending:
        raise InputError(f"Cannot export: {ending} is no format's ending; give one such as {found.ending}")
    stem = {"turntable": "turntable.", "sheet": "contact_sheet.", "avatar": ""}.get(found.kind, "head.")
    return stem + ending


def missing_formats(folder: Path, formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those whose file is not there. What a run makes by itself, such as head.glb, is left as the run made it."""
    return tuple(name for name in formats if not (folder / export_name(name)).is_file())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal; empty where it cannot be read, which is said by who opens it."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _remove_export(folder: Path, ending: str) -> None:
    (folder / export_name(ending)).unlink(missing_ok=True)

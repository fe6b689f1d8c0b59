"""Plays what workers do: a head of a few bytes, or what the portrait's name says."""

import hashlib
import os
import signal
import time
from pathlib import Path

from dp360.configs.jobs.head_task import HeadMade, HeadTask, export_name, missing_formats
from dp360.configs.jobs.job import Job, PreparedJob, read_record
from dp360.configs.jobs.progress import JobCancelled, Progress
from dp360.configs.jobs.ray_parts import KeptGenerator, Part, PartDone, PartTask, own_folder
from dp360.configs.jobs.workers import Reporter, WorkEvent
from dp360.configs.portrait_to_head import settings_of
from dp360.configs.run_folder import RECORD_NAME, RunRecord, exclusive_run
from dp360.configs.view_generators import settled
from dp360.generation import InputError

LOG = "played.log"
"""Beside the heads' folders: a line for each head that was made."""


def play(task: HeadTask, reporter: Reporter) -> HeadMade | None:
    """A head whose bytes follow from picture and seed. `kills`, `kills_once`, `refused`, `crashes` and `waits` in the
    portrait's name do what they say."""
    portrait, folder = task.options.portrait, task.folder
    digest = hashlib.sha256(portrait.read_bytes()).hexdigest()
    name = portrait.stem
    reporter.hear(Progress("portrait", "Preparing the portrait", 0.5, 0.1, 1.0, 9.0))
    if name.startswith("kills"):
        once = folder.parent / f"{name}.died"
        if name != "kills_once" or not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("refused"):
        raise InputError(f"{portrait.name}: no face was found;\ngive another picture")
    if name.startswith("crashes"):
        raise ZeroDivisionError("a division by nothing")
    reporter.halfway()
    if name.startswith("waits"):
        while not (folder.parent / "go").exists():
            reporter.hear(Progress("fit", "Fitting splats", 0.5, 0.5, 5.0, 5.0))
            if reporter.is_cancelled():
                raise JobCancelled
            time.sleep(0.02)
    options, job = settled(task.options), Job(task.options, folder)
    if not job.is_done(digest):
        with exclusive_run(folder):
            record = RunRecord(
                folder / RECORD_NAME, settings_of(options, job.recipe), {"fit": 1.5}, ["The head is small."]
            )
            (folder / "head.ply").write_bytes(f"{digest} {options.seed} {options.quality}".encode())
            record.write(digest, (folder / "head.ply",))
        with (folder.parent / LOG).open("a") as log:
            log.write(f"{folder.name}\n")
    for ending in missing_formats(folder, task.formats):
        (folder / export_name(ending)).write_bytes(ending.encode())
    reporter.notify("The head is small.")
    made = read_record(folder)
    assert made is not None
    return HeadMade(1.5, 2_000_000_000, made, tuple(export_name(ending) for ending in task.formats))


def play_halves(task: tuple[str, Path], reporter: Reporter) -> str:
    """A task of two halves that leaves a file in a folder at the beginning of each. `kills` kills its process in the
    first half once the file `kill` is there, `stays` stays in the second half until `go` is there."""
    name, folder = task
    (folder / f"{name}.first").touch()
    while name == "kills" and not (folder / "kill").exists():
        time.sleep(0.01)
    if name == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    reporter.halfway()
    (folder / f"{name}.second").touch()
    while name == "stays" and not (folder / "go").exists():
        time.sleep(0.01)
    return name


def play_part(
    part: Part, task: PartTask, reporter: Reporter, prepared: PreparedJob | None, views: KeptGenerator
) -> PartDone:
    """The same in the parts of `RayPool`, with a line in `parts.log` for each, and a file."""
    del prepared, views
    if task.portrait is None:
        with (task.head.folder.parent / "parts.log").open("a") as log:
            log.write(f"{part} {task.name}\n")
    event = WorkEvent(task.name, "done")
    with own_folder(task) as (head, travelled):
        head.folder.mkdir(parents=True, exist_ok=True)
        (head.folder / f"{part}.txt").write_text(part)
        if part == "finish":
            try:
                event = WorkEvent(task.name, "done", play(head, reporter))
            except InputError as error:
                event = WorkEvent(task.name, "refused", str(error))
            except ZeroDivisionError as error:
                event = WorkEvent(task.name, "crashed", str(error))
            except JobCancelled:
                event = WorkEvent(task.name, "cancelled")
        return PartDone(event, 0.5, 1_000_000, part == "finish", None, travelled())


def made_in(folder: Path) -> list[str]:
    """Names of the heads made in a folder, in their order."""
    path = folder / LOG
    return path.read_text().splitlines() if path.is_file() else []

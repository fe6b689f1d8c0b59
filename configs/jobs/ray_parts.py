"""The parts of a head that Ray runs, each where it has the cores or GPUs it needs, and how their files travel."""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dp360.generation import Cameras, InputError, ViewGenerator
from dp360.generation.file_names import leads_inside
from dp360.generation.files import write_bytes_atomically
from dp360.generation.progress import Track
from dp360.generation.system import forget_peak_memory, peak_memory_bytes

from ..given_pictures import GivenPictures
from ..options import RENDERED, HeadOptions
from ..run_folder import RECORD_NAME, FolderTaken
from ..view_generators import open_generator, settled
from .head_task import HeadMade, HeadTask, file_sha256, make_head
from .job import Job, PreparedJob
from .job_state import STATE_NAME
from .progress import JobCancelled, expected_stage_s
from .workers import Reporter, WorkEvent, limit_threads

Part = Literal["prepare", "views", "fit", "finish"]
PARTS: tuple[Part, ...] = ("prepare", "views", "fit", "finish")
"""Portrait and prior; views and data set; splats; files, dp360.json last."""
FilesOf = Mapping[str, bytes]
"""Files of a head's folder by their paths below it, `/` between folders."""


@dataclass(frozen=True)
class PartDone:
    """What one part leaves for the next."""

    event: WorkEvent
    """How it ended; `done` with a `HeadMade` after the last part."""
    seconds: float
    """Wall seconds of this part."""
    peak_memory_bytes: int
    """Most memory that its process held during it; 0 where the system does not tell."""
    is_whole: bool = False
    """Whether no part follows: all is done, or another process makes this head."""
    prepared: PreparedJob | None = None
    """After `prepare`."""
    files: FilesOf | None = None
    """The head's folder, where files travel and are not shared."""


@dataclass(frozen=True)
class PartTask:
    """What one part gets."""

    name: str
    """What the pool calls it."""
    head: HeadTask
    """The portrait, its options and its folder."""
    threads: int
    """Threads of libraries that would take all cores."""
    portrait: bytes | None = None
    """The portrait's bytes where files travel; None where all machines see the same folders."""
    files: FilesOf | None = None
    """What the parts before left, where files travel."""


class KeptGenerator:
    """Opens a view generator once for all heads with the same options but for their portraits and seeds."""

    def __init__(self) -> None:
        self._key: object = None
        self._generator: ViewGenerator | None = None

    def __call__(self, options: HeadOptions, given: GivenPictures, cameras: Cameras, *, track: Track) -> ViewGenerator:
        """As `open_generator`, which is asked only when something else than before is wanted."""
        if given != GivenPictures():  # pictures of its own: nothing that another head may use
            return open_generator(options, given, cameras, track=track)
        key = (replace(options, image=(), seed=0), cameras.T_world_camera.numpy().tobytes())
        if self._generator is None or self._key != key:
            self._generator = None  # gone before the next one takes memory
            self._generator, self._key = open_generator(options, given, cameras, track=track), key
        return self._generator


RunPart = Callable[[Part, PartTask, Reporter, PreparedJob | None, KeptGenerator], PartDone]
"""Does one part of a head, as `run_part` does."""


def run_part(
    part: Part, task: PartTask, reporter: Reporter, prepared: PreparedJob | None, views: KeptGenerator
) -> PartDone:
    """One part of a head; whatever happens is told and nothing is raised.

    Args:
        prepared: what the part `prepare` made, for the part `views`.
        views: keeps a diffusion model open.
    """
    limit_threads(task.threads)
    forget_peak_memory()
    began_s = time.perf_counter()
    with own_folder(task) as (head, travelled):
        made: PreparedJob | HeadMade | None = None
        is_whole = part == "finish"
        try:
            made = _done(part, head, reporter, prepared, views)
            event = WorkEvent(task.name, "done", made if is_whole else None)
        except FolderTaken:
            event, is_whole = WorkEvent(task.name, "done"), True
        except JobCancelled:
            event = WorkEvent(task.name, "cancelled")
        except InputError as error:
            event = WorkEvent(task.name, "refused", " ".join(str(error).split()))
        except Exception:  # whatever a head runs into is that head's alone
            event = WorkEvent(task.name, "crashed", traceback.format_exc())
        kept = made if isinstance(made, PreparedJob) else None
        is_whole, seconds = is_whole or event.kind != "done", time.perf_counter() - began_s
        return PartDone(event, seconds, peak_memory_bytes(), is_whole, kept, travelled())


def _done(
    part: Part, task: HeadTask, reporter: Reporter, prepared: PreparedJob | None, views: KeptGenerator
) -> PreparedJob | HeadMade | None:
    job = Job(task.options, task.folder)
    if part == "finish" or job.is_done(file_sha256(task.options.portrait)):
        return make_head(task, reporter) if part == "finish" else None
    told: dict[str, Any] = {
        "notify": reporter.notify,
        "hear": reporter.hear,
        "is_cancelled": reporter.is_cancelled,
        "expected_s": dict(task.stage_s or expected_stage_s(settled(task.options), job.recipe)),
    }
    if part == "prepare":
        return job.prepare(**told)
    job.run(**told, prepared=prepared, open_views=views, pause_after="dataset" if part == "views" else "fit")
    return None


@contextmanager
def own_folder(task: PartTask) -> Iterator[tuple[HeadTask, Callable[[], FilesOf | None]]]:
    """The task as it is to be done here, and what tells which files it left: a folder of its own where files travel."""
    if task.portrait is None:
        yield task.head, lambda: None
        return
    with tempfile.TemporaryDirectory(prefix="dp360-") as place:
        portrait = Path(place, "portrait", task.head.options.portrait.name)
        write_bytes_atomically(portrait, task.portrait)
        folder = Path(place, "head", task.head.folder.name)
        write_files(task.files or {}, folder)
        options = replace(task.head.options, image=(portrait,))
        yield replace(task.head, options=options, folder=folder), lambda: files_of(folder)


def files_of(folder: Path) -> FilesOf:
    """All files of a folder, links left out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_files(files: FilesOf, folder: Path) -> None:
    """Write files as `files_of` gave them, dp360.json last: while it is there, all of them are.

    Raises:
        InputError: the folder cannot be written, or a path leads out of it.
    """
    for name in sorted(files, key=lambda name: name == RECORD_NAME):
        if not leads_inside(name):
            raise InputError(f"Cannot write {name}: it leads out of {folder}")
        write_bytes_atomically(folder / name, files[name])


def arrived(files: FilesOf, task: HeadTask) -> FilesOf:
    """What came back of a finished head, its record naming the portrait that was asked for and not its copy."""
    record = json.loads(files[RECORD_NAME])
    record["command"]["image"] = [str(path) for path in task.options.image]
    kept = {name: data for name, data in files.items() if name.split("/")[0] != STATE_NAME}
    return {**kept, RECORD_NAME: (json.dumps(record, indent=1) + "\n").encode()}


def is_drawn(options: HeadOptions) -> bool:
    """Whether a diffusion model makes the views: it stays open in an actor, on a GPU where there is one."""
    return settled(options).generator not in RENDERED

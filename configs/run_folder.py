"""The folder of a run: held by one process at a time, and described by `dp360.json` when it is complete."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from dp360.exporters.head_files import PORTRAIT_NAME
from dp360.generation import InputError
from dp360.generation.dataset.view_dataset import TRANSFORMS
from dp360.generation.files import (
    is_running,
    remove_left_over,
    through_links,
    write_bytes_atomically,
    write_errors_for_people,
)

from .console import Notify
from .doctor import version_of
from .jobs.progress import JobClock

DATASET_NAME, RECORD_NAME, PRIOR_MESH_NAME = "dataset", "dp360.json", "prior.glb"
HEAD_FIT_NAME = "head_fit.npz"
"""What a rig is made of, see `generation.prior.saved_fit`."""
LOCK_NAME, HOLDER_NAME = ".dp360.lock", ".dp360.holder"
"""The file that is locked, and the one that stands for it where file systems have no locks."""
_RECORDED_VERSIONS = ("dp360", "torch", "diffusers", "numpy", "numba", "gsplat", "rembg", "onnxruntime")


class FolderTaken(InputError):
    """Another process writes into the folder."""


@contextlib.contextmanager
def exclusive_run(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if missing) for this process; the system lets go when the process ends, however it ends.

    What killed processes have left half-written there goes.

    The lock's file goes when the block ends, and so do folders that were made for it and stayed empty.

    Raises:
        FolderTaken: another process holds the folder.
        InputError: it cannot be written.
    """
    with write_errors_for_people(folder):
        place = through_links(folder)
        made = [p for p in (place, *place.parents) if not p.exists()]
        place.mkdir(parents=True, exist_ok=True)
        release = _acquired(place, folder)
        remove_left_over(place)
    try:
        yield
    finally:
        release()
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def _acquired(place: Path, folder: Path) -> Callable[[], None]:
    """Take the lock of a folder; what gives it back.

    Args:
        place: the folder.
        folder: the same, as it was named.

    Raises:
        FolderTaken: another process holds it.
    """
    taken = FolderTaken(f"Another dp360 is writing into {folder}; wait until it ends or choose another output folder")
    lock = FileLock(place / LOCK_NAME, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise taken from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG):
            raise
        with contextlib.suppress(OSError):
            (place / LOCK_NAME).unlink(missing_ok=True)
        return _marked(place / HOLDER_NAME, taken)

    def release() -> None:
        with contextlib.suppress(OSError):
            (place / LOCK_NAME).unlink(missing_ok=True)  # before letting go: nobody else's can be meant
        with contextlib.suppress(OSError):
            lock.release()

    return release


def _marked(path: Path, taken: FolderTaken) -> Callable[[], None]:
    """A lock for file systems without locks: a file that names the process which holds the folder.

    A mark of a process that is gone counts for nothing. One of another machine does, since nobody can ask there.

    Raises:
        FolderTaken: `taken`, if a process of the mark may be running.
    """
    process, machine = os.getpid(), platform.node()
    try:
        held = json.loads(path.read_text("utf-8"))
        its_process, its_machine = int(held["process"]), str(held["machine"])
    except (OSError, ValueError, KeyError, TypeError):
        its_process, its_machine = process, machine  # none, or damaged
    if its_machine != machine:
        raise FolderTaken(f"{taken} (it was started on {its_machine[:60]}; if it runs no more, delete {path})")
    if its_process != process and is_running(its_process):
        raise taken
    path.write_text(json.dumps({"process": process, "machine": machine}), "utf-8")

    def release() -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    return release


@dataclass
class RunRecord:
    """What dp360.json will say; an old one goes when a new run begins."""

    path: Path
    """Where it is written."""
    settings: dict[str, Any]
    """What was asked for, and the recipe in force; anything that JSON or `str` can say."""
    timings_s: dict[str, float] = field(default_factory=dict)
    """Wall seconds per stage."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that people were told, for programs."""
    clock: JobClock | None = None
    """Is told of every stage that begins and ends, and may stop the run there."""

    def __post_init__(self) -> None:
        with write_errors_for_people(self.path):
            through_links(self.path).unlink(missing_ok=True)

    def telling(self, notify: Notify) -> Notify:
        """A `Notify` that also keeps each sentence in `warnings`."""

        def tell(sentence: str) -> None:
            self.warnings.append(sentence)
            notify(sentence)

        return tell

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the wall time of a block.

        Raises:
            JobCancelled: the run shall stop before or after it.
        """
        if self.clock is not None:
            self.clock.begin(name)
        start = time.perf_counter()
        yield
        self.timings_s[name] = round(time.perf_counter() - start, 3)
        if self.clock is not None:
            self.clock.end(name)

    def write(self, input_sha256: str, files: tuple[Path, ...]) -> Path:
        """Write dp360.json, last of all: while it is there, all files of the folder belong together.

        Args:
            files: what was made; folders are named without a hash.

        Returns:
            Its path.
        """
        content = {
            **self.settings,
            "input_sha256": input_sha256,
            "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else None for p in files},
            "warnings": self.warnings,
            "timings_s": self.timings_s,
            "versions": {"python": platform.python_version(), **{n: version_of(n) for n in _RECORDED_VERSIONS}},
        }
        write_bytes_atomically(self.path, (json.dumps(content, indent=1, default=str) + "\n").encode())
        return self.path


def warnings_in(folder: Path) -> list[str]:
    """The sentences in a folder's dp360.json; none where there is none."""
    try:
        found = json.loads((folder / RECORD_NAME).read_text("utf-8"))["warnings"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(sentence) for sentence in found] if isinstance(found, list) else []


def refuse_folder_of_another_portrait(folder: Path, portrait: Path) -> None:
    """See that a folder that dp360 chose by itself does not hold somebody else's head.

    Raises:
        InputError: it does.
    """
    try:
        made_of = json.loads((folder / RECORD_NAME).read_text("utf-8"))["input_sha256"]
        given = hashlib.sha256(portrait.read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing finished there, or a portrait that cannot be read, which is said later
    if made_of != given:
        raise InputError(f"{folder} holds the head of another portrait; choose a folder with --output")


def dataset_folder(given: Path) -> Path:
    """The data set in `given`, which may be the data set itself or a folder that `dp360 run` or `dp360 views` made."""
    nested = given / DATASET_NAME
    return nested if (nested / TRANSFORMS).is_file() else given


def aligned_portrait_rgb(folder: Path) -> UInt8[Tensor, "h w 3"] | None:
    """The aligned portrait that stands beside a data set; None where there is none.

    Raises:
        InputError: a damaged picture.
    """
    path = folder / PORTRAIT_NAME
    try:
        return torch.from_numpy(np.array(Image.open(path).convert("RGB"))) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read the picture {path}: {error}") from error

"""The folder of a run: held by one process at a time, and described by `dp360.json` when it is complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import time
from collections.abc import Iterator
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
from dp360.generation.files import write_bytes_atomically, write_errors_for_people

from .doctor import version_of

DATASET_NAME, RECORD_NAME, PRIOR_MESH_NAME = "dataset", "dp360.json", "prior.glb"
LOCK_NAME = ".dp360.lock"
_RECORDED_VERSIONS = ("dp360", "torch", "diffusers", "numpy", "numba", "mediapipe", "gsplat", "rembg", "onnxruntime")


@contextlib.contextmanager
def exclusive_run(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if missing) for this process; the system lets go when the process ends, however it ends.

    The lock's file goes when the block ends, and so do folders that were made for it and stayed empty.

    Raises:
        InputError: another process holds the folder, or it cannot be written.
    """
    lock = FileLock(folder / LOCK_NAME, blocking=False)
    with write_errors_for_people(folder):
        made = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"Another dp360 is writing into {folder}; wait until it ends or choose another output folder"
            ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK_NAME).unlink(missing_ok=True)  # before letting go: nobody else's can be meant
        lock.release()
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


@dataclass
class RunRecord:
    """What dp360.json will say; an old one goes when a new run begins."""

    path: Path
    """Where it is written."""
    settings: dict[str, Any]
    """What was asked for, and the recipe in force; anything that JSON or `str` can say."""
    timings_s: dict[str, float] = field(default_factory=dict)
    """Wall seconds per stage."""

    def __post_init__(self) -> None:
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the wall time of a block."""
        start = time.perf_counter()
        yield
        self.timings_s[name] = round(time.perf_counter() - start, 3)

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
            "timings_s": self.timings_s,
            "versions": {"python": platform.python_version(), **{n: version_of(n) for n in _RECORDED_VERSIONS}},
        }
        write_bytes_atomically(self.path, (json.dumps(content, indent=1, default=str) + "\n").encode())
        return self.path


def refuse_folder_of_another_portrait(folder: Path, portrait: Path) -> None:
    """See that a folder that dp360 chose by itself does not hold somebody else's head.

    Raises:
        InputError: it does.
    """
    try:
        made_of = json.loads((folder / RECORD_NAME).read_text())["input_sha256"]
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

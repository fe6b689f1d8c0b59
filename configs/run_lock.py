"""One run per output folder: a second one is refused instead of mixing its files into the first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dp360.generation import InputError

LOCK_NAME = ".dp360.lock"


@contextlib.contextmanager
def exclusive_run(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if missing) for this process; the system lets go when the process ends, however it ends.

    Raises:
        InputError: another process holds the folder, or it cannot be written.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"Cannot write into {folder}: {reason}; choose another folder with --output") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"Another dp360 is writing into {folder}; wait until it ends or choose another folder with --output"
            ) from error
        yield
    finally:
        os.close(handle)

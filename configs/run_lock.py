"""One run per output folder: a second one is refused instead of mixing its files into the first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dp360.generation import InputError
from dp360.generation.files import write_errors_for_people

LOCK_NAME = ".dp360.lock"


@contextlib.contextmanager
def exclusive_run(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if missing) for this process; the system lets go when the process ends, however it ends.

    The lock's file goes when the block ends, and so do folders that were made for it and stayed empty.

    Raises:
        InputError: another process holds the folder, or it cannot be written.
    """
    with write_errors_for_people(folder):
        made = [p for p in (folder, *folder.parents) if not p.exists()]
        handle = _locked(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK_NAME).unlink()  # before letting go: nobody else's can be meant
            for path in made:
                path.rmdir()
        os.close(handle)


def _locked(folder: Path) -> int:
    """File descriptor of the folder's lock, held."""
    import fcntl

    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise InputError(
                f"Another dp360 is writing into {folder}; wait until it ends or choose another output folder"
            ) from error
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # its last holder removed the file between our opening and locking it

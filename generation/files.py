"""Writing so that nothing half-made is ever seen: to a temporary name beside the target, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

_UMASK_LOCK = threading.Lock()
_FILE_IN_THE_WAY = "a file stands where a folder is needed; move it away or choose another output folder"
_CURES = {
    errno.EACCES: "permission denied; choose another output folder, one you may write to",
    errno.EPERM: "permission denied; choose another output folder, one you may write to",
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "the disk is full; free some space and run again",
    errno.EROFS: "the file system is read-only; choose another output folder",
    errno.ENOTDIR: _FILE_IN_THE_WAY,
    errno.EEXIST: _FILE_IN_THE_WAY,
    errno.EISDIR: "a folder stands where a file is needed; move it away or choose another name",
}


def cache_folder() -> Path:
    """Where what can be made again is kept: `$XDG_CACHE_HOME/dp360`, by default `~/.cache/dp360`.

    Raises:
        InputError: no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dp360"
    except RuntimeError as error:
        raise InputError("There is no home folder to keep a cache in; set XDG_CACHE_HOME to a folder") from error


@contextlib.contextmanager
def write_errors_for_people(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into one sentence that names it and the cure.

    Raises:
        InputError: no permission, read-only file system, full disk, a file where a folder is needed or the reverse.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _CURES:
            raise
        raise InputError(f"Cannot write {path}: {_CURES[error.errno]}") from error


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all; an earlier file of that name stays until the new one is complete.

    While it is written nobody else can read it; then it has the mode of the earlier file, or what the umask leaves.

    Raises:
        InputError: no permission, read-only file system, full disk, or a file where a folder is needed.
    """
    with write_errors_for_people(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, _mode_of(path, 0o666))
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


@contextlib.contextmanager
def directory_written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place when the block ends without an error.

    A folder already at `path` is replaced only then; after an error it is untouched and the temporary one is gone.
    Its mode is kept; a new folder has what the umask leaves.

    Raises:
        InputError: as `write_bytes_atomically`.
    """
    with write_errors_for_people(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        with write_errors_for_people(path):
            yield temporary
            os.chmod(temporary, _mode_of(path, 0o777))
            if path.is_dir():
                old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old.tmp"))
                try:
                    os.replace(path, old / path.name)
                    os.replace(temporary, path)
                except BaseException:
                    if not path.exists():
                        os.replace(old / path.name, path)
                    old.rmdir()
                    raise
                shutil.rmtree(old, ignore_errors=True)
            elif path.exists():
                raise InputError(f"Cannot write {path}: {_FILE_IN_THE_WAY}")
            else:
                os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _mode_of(path: Path, most: int) -> int:
    """Permissions for what takes the place of `path`: those it has, or `most` less the process's umask."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode)
    with _UMASK_LOCK:
        umask = os.umask(0o077)  # the only way to read it; what another thread makes meanwhile is private
        os.umask(umask)
    return most & ~umask

"""Writing so that nothing half-made is ever seen: to a temporary name beside the target, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError
from .system import default_mode, exchanged_in_one_step, inodes_are_used_up, is_running, set_mode

_FILE_IN_THE_WAY = "a file stands where a folder is needed; move it away or choose another output folder"
_WENT_AWAY = "the folder went away while it was written to; see whether its disk is still there, and run again"
_CURES = {
    errno.EACCES: "permission denied; choose another output folder, one you may write to",
    errno.EPERM: "permission denied; choose another output folder, one you may write to",
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "the disk is full; free some space and run again",
    errno.EROFS: "the file system is read-only; choose another output folder",
    errno.ENOTDIR: _FILE_IN_THE_WAY,
    errno.EEXIST: _FILE_IN_THE_WAY,
    errno.EISDIR: "a folder stands where a file is needed; move it away or choose another name",
    errno.ENAMETOOLONG: "the name is longer than the file system takes; choose a shorter one",
    errno.ELOOP: "the link leads round in a circle; choose another name",
}
_WITHOUT_INODES = "the disk has no room for more files (its inodes are used up); delete some and run again"
_NOT_OFFERED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY})
"""What file systems answer that lack a call: network shares, FUSE, exFAT."""
_IN_USE = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY, errno.EEXIST, errno.ETXTBSY, errno.ENOTEMPTY})
"""What file systems answer that do not rename over a file that somebody has open."""
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:4]
_NAME, _SUFFIX = ".dp360-", ".tmp"
"""Ends of names of what is not whole yet; short, so that any name that the disk takes can be written."""
_LEFT_OVER = re.compile(rf"{re.escape(_NAME)}(\d+)-{_MACHINE}-\w+(\.old)?{re.escape(_SUFFIX)}")


def _prefix() -> str:
    """Start of a temporary name: says which process of which machine writes there."""
    return f"{_NAME}{os.getpid()}-{_MACHINE}-"


def remove_left_over(folder: Path) -> int:
    """Delete what killed processes of this machine have left half-written in a folder; how many such things there were.

    An earlier result that was moved aside when its process was killed is put back first, if nothing took its place.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            match = _LEFT_OVER.fullmatch(path.name)
            if match is None or is_running(int(match[1])):
                continue
            if match[2] is not None:
                for earlier in path.iterdir():
                    if not (folder / earlier.name).exists():
                        os.replace(earlier, folder / earlier.name)
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                removed += 1
    return removed


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
        cure = _cure(error, path)
        if cure is None:
            raise
        raise InputError(f"Cannot write {path}: {cure}") from error


def _cure(error: OSError, path: Path) -> str | None:
    """What to do about a refusal of the system; None where nothing is known."""
    if error.errno in (errno.ENOENT, errno.ESTALE):
        return None if path.parent.is_dir() else _WENT_AWAY
    if error.errno == errno.ENOSPC:
        with contextlib.suppress(OSError):
            existing = next(p for p in path.absolute().parents if p.exists())
            if inodes_are_used_up(existing):
                return _WITHOUT_INODES
    return _CURES.get(error.errno or 0)


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all; an earlier file of that name stays until the new one is complete.

    While it is written nobody else can read it; then it has the mode of the earlier file, or what the umask leaves. A
    link is written through; what is no file, such as a pipe, is written to. File systems that cannot sync, set modes or
    rename over an open file do what they can.

    Raises:
        InputError: no permission, read-only file system, full disk, or a file where a folder is needed.
    """
    with write_errors_for_people(path):
        target = through_links(path)
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(data)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=_prefix(), suffix=_SUFFIX)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                with _where_offered():
                    os.fsync(file.fileno())
            _set_mode(temporary, _mode_of(target, 0o666))
            try:
                os.replace(temporary, target)
            except OSError as error:
                if error.errno not in _IN_USE or not target.is_file() or not _overwritten(target, data):
                    raise
                os.unlink(temporary)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


@contextlib.contextmanager
def directory_written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place when the block ends without an error.

    A folder already at `path` is replaced only then; after an error it is untouched and the temporary one is gone.
    Its mode is kept; a new folder has what the umask leaves. A link is written through. Where a file system does not
    rename folders that are in use, files are copied one by one.

    Raises:
        InputError: as `write_bytes_atomically`.
    """
    with write_errors_for_people(path):
        target = through_links(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(), suffix=_SUFFIX))
    try:
        with write_errors_for_people(path):
            yield temporary
            _set_mode(temporary, _mode_of(target, 0o777))
            if target.exists() and not target.is_dir():
                raise InputError(f"Cannot write {path}: {_FILE_IN_THE_WAY}")
            try:
                _exchange(temporary, target)
            except OSError as error:
                if error.errno not in _IN_USE or not target.is_dir() or not temporary.is_dir():
                    raise
                _copy_over(temporary, target)
                shutil.rmtree(temporary, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _exchange(temporary: Path, target: Path) -> None:
    """Put a folder in the place of an earlier one, if there is one."""
    if not target.is_dir():
        os.replace(temporary, target)
        return
    if exchanged_in_one_step(temporary, target):
        shutil.rmtree(temporary, ignore_errors=True)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(), suffix=f".old{_SUFFIX}"))
    try:
        os.replace(target, old / target.name)
        os.replace(temporary, target)
    except BaseException:
        if not target.exists():
            os.replace(old / target.name, target)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _copy_over(source: Path, target: Path) -> None:
    """Make a folder hold what another one holds, file by file."""
    kept = {file.relative_to(source) for file in source.rglob("*")}
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    for file in sorted(target.rglob("*"), reverse=True):
        if file.relative_to(target) not in kept:
            file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()


def _overwritten(path: Path, data: bytes) -> bool:
    """Write into a file that cannot be replaced; False where that is refused as well."""
    try:
        path.write_bytes(data)
    except OSError:
        return False
    return True


def through_links(path: Path) -> Path:
    """Where a link leads to, whether it is there or not; the path itself if it is none.

    Raises:
        OSError: the link leads round in a circle.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


@contextlib.contextmanager
def _where_offered(*also: int) -> Iterator[None]:
    """Pass over a call that the file system does not offer.

    Args:
        also: further numbers by which it says so.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_OFFERED and error.errno not in also:
            raise


def _set_mode(path: str | Path, mode: int) -> None:
    """Permissions, where the file system has them: others belong to whoever mounted it, and say EPERM."""
    with _where_offered(errno.EPERM, errno.EACCES):
        set_mode(path, mode)


def _mode_of(path: Path, most: int) -> int:
    """Permissions for what takes the place of `path`: those it has, or `most` less the process's umask."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode)
    return default_mode(most)

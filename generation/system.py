"""What operating systems do differently, in one place: calls that POSIX alone has, and what stands in for them.

Imports nothing but Python's own library, so that it can be asked before anything heavy, and loaded by its path alone.
A test reads all sources and fails where such a call stands anywhere else.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import math
import os
import shlex
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

IS_LINUX, IS_WINDOWS = sys.platform == "linux", sys.platform == "win32"
ENDING_SIGNALS: tuple[signal.Signals, ...] = (
    signal.SIGTERM,
    *(getattr(signal, name) for name in ("SIGBREAK",) if hasattr(signal, name)),
)
"""By these somebody asks a process to end: SIGTERM, and Ctrl-Break of Windows."""
_AT_FOLDER, _EXCHANGE = -100, 2
"""Linux: paths are relative to the working folder; two names change places in one step (renameat2(2))."""
_QUERY, _ACCESS_DENIED, _STILL_ACTIVE = 0x1000, 5, 259
"""Windows: the right to ask about a process, the refusal of it, and the exit code of one that runs."""
_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES = -3, 8 << 20
"""glibc: the number of mallopt(3) that says from which size on blocks are the system's own. Every such block costs its
pages anew: at half of this size a run takes 1.5 s more of the kernel's time, at an eighth 5 s, and no less memory."""
_UMASK_LOCK = threading.Lock()


# ---- processes ------------------------------------------------------------------------------------------------------


def is_running(process: int) -> bool:
    """Whether a process of this machine exists, by its number."""
    if sys.platform == "win32":
        return _is_running_on_windows(process, ctypes.WinDLL("kernel32", use_last_error=True), ctypes.get_last_error)
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # somebody else's
    return True


def _is_running_on_windows(process: int, kernel32: Any, last_error: Any) -> bool:
    """The same by Windows' own calls: there, signal 0 is Ctrl-C.

    Source: OpenProcess and GetExitCodeProcess of the Win32 API.
    """
    if not 0 < process < 2**32:
        return False
    kernel32.OpenProcess.restype = ctypes.c_void_p
    handle = kernel32.OpenProcess(_QUERY, False, process)
    if not handle:
        return last_error() == _ACCESS_DENIED  # somebody else's
    try:
        code = ctypes.c_ulong()
        asked = kernel32.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(code))
        return not asked or code.value == _STILL_ACTIVE
    finally:
        kernel32.CloseHandle(ctypes.c_void_p(handle))


def end_process(code: int) -> NoReturn:
    """End this process with an exit code, after everything that was registered for its end.

    Objects are not taken apart one by one, which takes a second or two after a head: the system frees their memory.
    Where threads still work that want to be waited for, Python ends as always.
    """
    workers = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    if workers:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has where somebody set limits."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float:
    """Programs that want to run, mean of the last minute; not a number where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan


def command_line(words: Sequence[str]) -> str:
    """A command line that can be pasted into a terminal of this system."""
    return subprocess.list2cmdline(words) if IS_WINDOWS else shlex.join(words)


def has_screen() -> bool:
    """Whether a browser would show up in front of somebody, rather than as text in this terminal."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


# ---- memory ---------------------------------------------------------------------------------------------------------


def machine_memory_bytes() -> int | None:
    """Memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def available_memory_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not tell (all but Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def give_back_large_blocks() -> None:
    """Let the C library (glibc) hand large blocks back to the system as soon as they are freed, from now on.

    It raises that size by itself, up to 32 MB, with every large block that is freed; pictures and maps then come from
    its heaps, which keep what is freed between them: 0.2 GB of the peak of a run. Whoever has set the size keeps it.

    Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    if IS_LINUX and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such number
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def give_back_memory() -> None:
    """Hand freed memory back to the system where the C library keeps it (glibc)."""
    if IS_LINUX:
        with contextlib.suppress(OSError, AttributeError):  # other C libraries give it back by themselves
            ctypes.CDLL(None).malloc_trim(0)


def peak_memory_bytes() -> int:
    """Largest resident memory of this process, 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def forget_peak_memory() -> None:
    """Let `peak_memory_bytes` count from here on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def limit_memory(megabytes: int) -> None:
    """Let this process take no more memory than this and leave no core, where the system can limit it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (megabytes << 20, megabytes << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# ---- files ----------------------------------------------------------------------------------------------------------


def set_mode(path: str | Path, mode: int) -> None:
    """Permissions of a file or folder; Windows keeps only whether it can be written."""
    os.chmod(path, mode)


def default_mode(most: int) -> int:
    """Permissions of what is newly made: `most` less the process's umask."""
    with _UMASK_LOCK:
        umask = os.umask(0o077)  # the only way to read it; what another thread makes meanwhile is private
        os.umask(umask)
    return most & ~umask


def user_number() -> int:
    """Tells this machine's users apart, 0 where folders for temporary files are a user's own (Windows)."""
    return os.getuid() if hasattr(os, "getuid") else 0


def is_private(status: os.stat_result) -> bool:
    """Whether a folder is this user's, and nobody else can write into it; its status tells, without following links."""
    if not stat.S_ISDIR(status.st_mode):
        return False
    if not hasattr(os, "getuid"):
        return True  # modes say nothing there
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def inodes_are_used_up(folder: Path) -> bool:
    """Whether a disk with free bytes has no room for one more file; False where the system does not tell.

    Raises:
        OSError: no such folder.
    """
    if not hasattr(os, "statvfs"):
        return False
    room = os.statvfs(folder)
    return room.f_bavail > 0 and room.f_files > 0 and room.f_favail == 0


def exchanged_in_one_step(one: Path, other: Path) -> bool:
    """Let two names change places, so that neither is missing at any moment; False where the system cannot do it."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    return rename is not None and rename(_AT_FOLDER, os.fsencode(one), _AT_FOLDER, os.fsencode(other), _EXCHANGE) == 0


# ---- signals --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def handled(handler: Any, signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Let a handler take signals during a block; what there was before comes back. Works in the main thread alone."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)

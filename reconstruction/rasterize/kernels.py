"""How kernels are run: a worker that draws pieces of work from a counter, alone or on all of numba's threads.

Which thread does which piece is left to chance, so that a thread that is held up by other programs does less; every
piece writes its own place, so that no result depends on it.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any, no_type_check

import numba
import numpy as np

KERNELS: list[Kernel] = []
"""Every kernel of the modules imported so far."""
_NEWEST_SOURCE_S = max(file.stat().st_mtime for file in Path(__file__).parent.glob("*.py"))
worker: Any
"""In `_on_threads`, of which every kernel has a copy: the kernel's own worker."""


@no_type_check
def _on_threads(threads, *args):
    for _ in numba.prange(threads):
        worker(*args)


class Kernel:
    """A kernel; decorates a compiled function of a counter and any arguments, and is called with the arguments alone.

    Args:
        worker: Works on what the counter (int64, one element, comes as zero) gives it until nothing is left.
    """

    def __init__(self, worker: Any) -> None:
        place, name = worker.py_func.__code__, worker.py_func.__name__
        # numba keeps compiled code by file, line and name, so the copy stands where its worker does
        code = inspect.unwrap(_on_threads).__code__.replace(
            co_filename=place.co_filename, co_firstlineno=place.co_firstlineno
        )
        scope = {"numba": numba, "worker": worker, "__name__": worker.py_func.__module__}
        everyone = FunctionType(code, scope, f"{name}_everyone")
        everyone.__qualname__ = everyone.__name__
        self._worker, self._everyone = worker, numba.njit(cache=True, nogil=True, parallel=True)(everyone)
        KERNELS.append(self)
        forget_stale(Path(worker.stats.cache_path), Path(place.co_filename).stem, _NEWEST_SOURCE_S)

    def __call__(self, *args: Any) -> None:
        counter, threads = np.zeros(1, np.int64), numba.get_num_threads()
        if threads == 1:  # waking a thread to wait for it costs more than a small kernel
            self._worker(counter, *args)
        else:
            self._everyone(threads, counter, *args)

    def is_compiled(self) -> bool:
        """Whether this machine keeps compiled code from this or an earlier run, for as many threads as numba has."""
        needed = [self._worker] if numba.get_num_threads() == 1 else [self._worker, self._everyone]
        return all(function.signatures or _is_cached(function) for function in needed)


def forget_stale(cache: Path, module: str, newest_source_s: float) -> None:
    """Remove what numba has kept of a module's functions since before the engine's files were last changed.

    numba looks at the file of a function alone, so that a kernel would go on with the former text of what it calls
    from another file.

    Args:
        cache: numba's folder.
        module: name of the module without its package.
        newest_source_s: time of the newest source file, seconds since the epoch.
    """
    for index in cache.glob(f"{module}.*.nbi"):
        with suppress(OSError):  # another process does the same, or the folder is not ours
            if index.stat().st_mtime < newest_source_s:
                index.unlink()


def _is_cached(function: Any) -> bool:
    """Whether numba's cache has an index for a compiled function."""
    return any(Path(function.stats.cache_path).glob(f"*.{function.py_func.__qualname__}-*.nbi"))

"""The one door to numba's threads: one caller at a time, and nobody spins while waiting."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import numba

SMALL_WORK = 20_000
"""Below this many pixels, points and Gaussians together one thread is faster than waking others."""
_LOCK = threading.RLock()  # whoever holds the door may go through it again: it is one caller still

# numba's own choice, GNU OpenMP, keeps idle threads spinning: beside other programs that made a small fit ten times
# slower, and its remedy (OMP_WAIT_POLICY) only works if set before torch is imported. numba's work queue lets threads
# sleep; that it must not be entered twice at a time is what the lock is for. Someone's explicit choice is kept.
if "NUMBA_THREADING_LAYER" not in os.environ:
    numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]


@contextlib.contextmanager
def numba_pool(work: int) -> Iterator[None]:
    """Run parallel kernels inside this block, and nowhere else; a viewer may render while a fit runs.

    Args:
        work: Pixels, points or Gaussians together, to choose the number of threads. It never changes a result.
    """
    with _LOCK:
        threads = numba.get_num_threads()
        if work < SMALL_WORK:
            numba.set_num_threads(1)
        try:
            yield
        finally:
            numba.set_num_threads(threads)

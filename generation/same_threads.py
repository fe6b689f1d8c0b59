"""The same number of threads on every machine: sums are split among them, and with them their last digits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import threadpoolctl
import torch

TORCH_THREADS = 2
"""What torch works with where bytes shall not depend on the machine's cores. Our networks for portraits and priors are
small: more threads hardly make them faster."""
BLAS_THREADS = 1
"""The same for the linear algebra of numpy and scipy, whose matrices are small there."""


@dataclass
class _Inside:
    """Who is inside, and what was before."""

    count: int = 0
    torch_before: int = TORCH_THREADS
    blas_count: int = 0
    blas: threadpoolctl.threadpool_limits | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


_INSIDE = _Inside()


@contextlib.contextmanager
def same_blas_threads() -> Iterator[None]:
    """Run a block with `BLAS_THREADS`; the last one out of several puts back what was.

    The setting is the process's: whoever may run beside `same_threads` does so in this block, or has its own sums split
    in one way or another.
    """
    with _INSIDE.lock:
        if _INSIDE.blas_count == 0:
            _INSIDE.blas = threadpoolctl.threadpool_limits(BLAS_THREADS, user_api="blas")
        _INSIDE.blas_count += 1
    try:
        yield
    finally:
        with _INSIDE.lock:
            _INSIDE.blas_count -= 1
            if _INSIDE.blas_count == 0 and _INSIDE.blas is not None:
                _INSIDE.blas.restore_original_limits()


@contextlib.contextmanager
def same_threads() -> Iterator[None]:
    """Run a block, or as a decorator a function, with so many threads; the last one out of several puts back what was.

    Part of torch's setting is the thread's own and part is the process's, so that nothing is put back while somebody
    else is inside: who leaves before others keeps `TORCH_THREADS`.

    oneDNN chooses another way to convolve small pictures for another number of threads, and BLAS splits its sums by
    them, so that a head made with one core was not that of two cores to the last bit.
    """
    with same_blas_threads():
        with _INSIDE.lock:
            if _INSIDE.count == 0:
                _INSIDE.torch_before = torch.get_num_threads()
            _INSIDE.count += 1
            torch.set_num_threads(TORCH_THREADS)
        try:
            yield
        finally:
            with _INSIDE.lock:
                _INSIDE.count -= 1
                if _INSIDE.count == 0:
                    torch.set_num_threads(_INSIDE.torch_before)

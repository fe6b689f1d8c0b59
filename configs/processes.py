"""Independent pieces of work in processes side by side."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_processes(
    work: Callable[[_Item], _Result], items: Sequence[_Item], jobs: int
) -> Iterator[tuple[_Item, _Result]]:
    """Items with the results of `work`, as they come.

    Ctrl-C reaches all processes of a terminal: those that work stop like this one, so that half-written files go; those
    that wait for work leave it to this one to say so.

    Args:
        work: something that pickles; what it needs it opens itself, once a process.
        jobs: processes; 1 works in this one. Several get one thread each.

    Raises:
        Exception: what `work` raised, once; pieces of work that have not begun are dropped.
    """
    jobs = min(jobs, len(items))
    if jobs <= 1:
        for item in items:
            yield item, work(item)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin) as pool:
        futures = {pool.submit(partial(_interruptible, work), item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _interruptible(work: Callable[[_Item], _Result], item: _Item) -> _Result:
    """A piece of work that Ctrl-C stops."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return work(item)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _begin() -> None:
    """Several processes with as many threads as cores each would only wait for each other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import cv2
    import numba
    import torch

    torch.set_num_threads(1)
    numba.set_num_threads(1)
    cv2.setNumThreads(1)

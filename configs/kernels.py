"""Compiled kernels: numba makes them once per machine and keeps them, which is most of the time of a first head."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from dp360.generation.progress import Track, silent
from dp360.reconstruction.prepare import COMPILING, fit_kernels_are_compiled, prepare_kernels

from .console import Notify, ignore
from .device import choose_device
from .options import Device, FitOptions, HeadOptions

FIRST_HEAD = (
    "the first head on this machine takes one to two minutes more: kernels are compiled, and kept for all that follow"
)


@contextlib.contextmanager
def fit_kernels_beside(
    device: Device, *, track: Track = silent, notify: Notify = ignore
) -> Iterator[Callable[[], None] | None]:
    """Inside this block another process compiles the fit's kernels, if they are missing and wanted.

    The portrait is read and its views are made meanwhile, which compiles kernels of their own.

    Args:
        device: a GPU fits without these kernels.
        track: shows the wait.
        notify: is told why this head takes longer.

    Yields:
        A call that waits until they are there; None where there is nothing to wait for.
    """
    if choose_device(device) != "cpu" or fit_kernels_are_compiled():
        yield None
        return
    notify(FIRST_HEAD)
    if (os.cpu_count() or 1) == 1:
        yield None
        return
    process = multiprocessing.get_context("spawn").Process(target=_compile_quietly, daemon=True)
    process.start()

    def wait() -> None:
        for _ in track(range(1), total=1, description=COMPILING):
            process.join()

    try:
        yield wait
    finally:
        process.terminate()
        process.join()


def compile_kernels(*, track: Track = silent) -> None:
    """Compile all that a head on a CPU wants, by making a small one of the example in a folder that goes again.

    Raises:
        InputError: the example's package is missing.
    """
    from .example import write_example_portrait
    from .jobs.job import Job

    with tempfile.TemporaryDirectory() as folder, fit_kernels_beside("cpu") as wait:
        face = Path(folder, "face.png")
        write_example_portrait(face)
        small = FitOptions(iterations=30, start_count=2000, max_count=3000)
        options = HeadOptions(image=(face,), quality="fast", views=8, size_px=128, fit=small, device="cpu")
        Job(options, Path(folder, "head")).run(track=track, before_fit=wait)


def _compile_quietly() -> None:
    """Ctrl-C reaches all processes of a terminal; the one that waits ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_kernels()

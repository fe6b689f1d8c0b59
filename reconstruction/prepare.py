"""Before a long fit: compile the CPU's kernels where that has not happened yet, and find how many threads pay."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

import numba
import torch
from torch.nn import Parameter

from dp360.generation import look_at_origin, numba_pool
from dp360.generation.progress import Track, silent

from .agreement_kernels import patch_sums
from .losses import LossConfig, target_over_background, training_loss
from .rasterize.kernels import KERNELS
from .splat_fit import LearningRates, make_optimizers, render_parameters

COMPILING = "Compiling the CPU kernels, once per machine (about a minute)"
"""What `prepare_kernels` tells its `Track`."""


def prepare_kernels(track: Track = silent) -> bool:
    """Compile what numba's cache on this machine lacks, so that no timing and no progress bar pays for it.

    Returns:
        Whether anything had to be compiled; only then `track` is called.
    """
    if fit_kernels_are_compiled():
        return False
    more = numba_pool.SMALL_WORK + 1  # so much work is given to all threads
    for gaussians in track((400, more), total=2.0, description=COMPILING):
        _toy_step(gaussians, math.ceil(math.sqrt(gaussians)))
    return True


def fit_kernels_are_compiled() -> bool:
    """Whether `prepare_kernels` would find nothing to do."""
    return all(kernel.is_compiled() for kernel in KERNELS)


def best_thread_count(*, gaussians: int = 6000, size_px: int = 192) -> int:
    """How many of numba's threads make a training step fastest right now: a trial of a fraction of a second.

    On an idle machine that is all of them, beside other programs it may be one. It never changes a result. Hand it to
    `numba.set_num_threads`.
    """
    threads = most = numba.get_num_threads()
    counts = [most]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    best = dict.fromkeys(counts, math.inf)
    try:
        _toy_step(gaussians, size_px)
        for count in 2 * counts:
            numba.set_num_threads(count)
            start = time.perf_counter()
            _toy_step(gaussians, size_px)
            best[count] = min(best[count], time.perf_counter() - start)
    finally:
        numba.set_num_threads(threads)
    return min(best, key=lambda count: best[count])


@contextlib.contextmanager
def fit_threads(track: Track = silent, *, gaussians: int = 20_000, size_px: int = 256) -> Iterator[int]:
    """Everything a fit on the CPU wants around it: compiled kernels, as many numba threads as pay, one torch thread.

    numba does the heavy work; torch's idle threads would spin beside it. All is as before afterwards.

    Args:
        track: shows the compilation, where there is one.
        gaussians: size of the fit, for the trial of thread counts: smaller ones would favour fewer threads.
        size_px: side of its pictures, likewise.

    Yields:
        The number of numba's threads in this block.
    """
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    try:
        prepare_kernels(track)
        chosen = best_thread_count(gaussians=gaussians, size_px=size_px)
        numba.set_num_threads(chosen)
        yield chosen
    finally:
        numba.set_num_threads(numba_threads)
        torch.set_num_threads(torch_threads)


def _toy_step(gaussians: int, size_px: int) -> None:
    """Render a cloud, compare it with a view, take the gradient of a fit's loss and move the cloud."""
    generator = torch.Generator().manual_seed(0)
    means, quats, scales = (torch.randn(gaussians, n, generator=generator) for n in (3, 4, 3))
    params = {"means": 0.3 * means, "quats": quats, "scales": 0.3 * scales - 4.5, "opacities": torch.zeros(gaussians)}
    params |= {"features_dc": torch.zeros(gaussians, 3), "features_rest": torch.zeros(gaussians, 3, 3)}
    params = {name: Parameter(values) for name, values in params.items()}
    camera = look_at_origin([0.0], [0.0], size_px=size_px)
    rgb, alpha, _ = render_parameters(params, camera, sh_degree=1)
    picture, background = torch.full((size_px, size_px, 4), 0.4), torch.ones(3)
    shown, opacity = rgb[0], alpha[0, ..., 0]
    patch_sums(shown.detach(), opacity.detach(), background, picture, max(1, size_px // 32))
    target = target_over_background(picture, background)
    training_loss(shown, opacity, *target, params["scales"], LossConfig()).backward()
    for optimizer in make_optimizers(params, LearningRates()).values():
        optimizer.step()

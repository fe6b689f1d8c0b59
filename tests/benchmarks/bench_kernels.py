"""How near the splat engine's kernels come to what one core can do: operations counted, against a peak measured here.

One step of a fit on one thread, as large as in the middle of a standard fit. A fused multiply-add counts as two
operations, everything else on a lane (products, sums, comparisons, minima, the quotient) as one, selections and moves
as none. Operations of the two blending kernels are counted by the rows of eight pixels that they visit, those of
projection by Gaussian (float64, counted by hand). The peak is that of chains of fused multiply-adds in registers of the
same width, measured in the same run. Of sorting and sums the bytes are given. Run by hand:

    python tests/benchmarks/bench_kernels.py [--gaussians 35000] [--size-px 512]
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, no_type_check

import numba
import numpy as np
import torch
import tyro

from dp360.generation import look_at_origin
from dp360.reconstruction.rasterize import blending, kernels, projection, simd, tiles
from dp360.reconstruction.rasterize.simd import all8, fma8, sum8
from dp360.reconstruction.splat_benchmark import head_sized_splats
from dp360.reconstruction.splat_fit import parameters_from_splats, render_parameters

_LANES = 8
_EXP2 = 2 * (len(simd._EIGHTH_POWER) - 1) + 3
"""Operations of 2^x on a lane: a polynomial for its eighth root, squared three times."""
_FORWARD_ROW = 4 + 1 + _EXP2 + 1 + 1 + 2 + 6 + 1
"""Power, minimum, 2^x, times transmittance, what is left, two comparisons, three colours, next row."""
_BACKWARD_ROW = 4 + 1 + _EXP2 + 1 + 1 + 2 + 5 + 2 + 6 + 3 + 1 + 5 + 1
"""The same without colours; value, what lies behind, sums of colours, the pull, moments, next row."""
_PROJECT_FORWARD, _PROJECT_BACKWARD = 230, 610
"""About, per visible Gaussian, with harmonics of degree 1; an exponential counts as 15."""
_CHAINS, _LINKS = 12, 200_000


@dataclass(frozen=True)
class KernelBenchmark:
    """What to measure."""

    gaussians: int = 35_000
    """Number of Gaussians."""
    size_px: int = 512
    """Side of the picture."""
    repeats: int = 15
    """Steps, of which medians are taken."""


@numba.njit(error_model="numpy")
@no_type_check
def _chains(factor, links):
    """Twelve independent chains of fused multiply-adds on eight lanes each."""
    f, s = all8(factor), all8(np.float32(1e-6))
    a, b, c, d, e, g = f, f, f, f, f, f
    h, i, j, k, m, n = f, f, f, f, f, f
    for _ in range(links):
        a, b, c, d, e, g = fma8(a, f, s), fma8(b, f, s), fma8(c, f, s), fma8(d, f, s), fma8(e, f, s), fma8(g, f, s)
        h, i, j, k, m, n = fma8(h, f, s), fma8(i, f, s), fma8(j, f, s), fma8(k, f, s), fma8(m, f, s), fma8(n, f, s)
    return sum8(a + b + c + d + e + g + h + i + j + k + m + n)


def peak_gflops(repeats: int = 9) -> float:
    """Best of some trials, thousand millions of operations on float32 a second, one thread."""
    best = math.inf
    _chains(np.float32(0.99), 10)
    for _ in range(repeats):
        start = time.perf_counter()
        _chains(np.float32(0.99), _LINKS)
        best = min(best, time.perf_counter() - start)
    return 2e-9 * _LANES * _CHAINS * _LINKS / best


def main(config: KernelBenchmark) -> None:
    """Print a table, as Markdown has it."""
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    params = parameters_from_splats(head_sized_splats(config.gaussians))
    camera = look_at_origin([0.3], [math.radians(10)], size_px=config.size_px)
    seconds: dict[str, list[float]] = defaultdict(list)
    counted: dict[str, tuple[float, float]] = {}
    plain = kernels.Kernel.__call__

    def timed(kernel: Any, *args: Any) -> None:
        start = time.perf_counter()
        plain(kernel, *args)
        name = kernel._worker.py_func.__name__
        seconds[name].append(time.perf_counter() - start)
        counted.setdefault(name, _work_of(name, args))

    kernels.Kernel.__call__ = timed  # type: ignore[method-assign]
    try:
        for _ in range(config.repeats):
            picture, alpha, _ = render_parameters(params, camera, sh_degree=1, backgrounds=torch.full((1, 3), 0.7))
            (picture.square().sum() + alpha.sum()).backward()
    finally:
        kernels.Kernel.__call__ = plain  # type: ignore[method-assign]
    peak, size = peak_gflops(), f"{config.gaussians} Gaussians, {config.size_px} px"
    print(f"{size}, one thread; peak {peak:.0f} GFLOP/s (float32, measured)\n")
    print("| kernel | ms | million operations | GFLOP/s | of the peak | MB touched | GB/s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, times in seconds.items():
        median, (operations, touched) = statistics.median(times), counted[name]
        rate = 1e-9 * operations / median
        top = peak / 2 if name.startswith("project") else peak  # float64 has half as many lanes
        flops = f"{1e-6 * operations:.0f} | {rate:.1f} | {rate / top:.0%}" if operations else "- | - | -"
        print(f"| {name} | {1e3 * median:.1f} | {flops} | {1e-6 * touched:.1f} | {1e-9 * touched / median:.1f} |")


def _work_of(name: str, args: tuple[Any, ...]) -> tuple[float, float]:
    """Operations, where they are counted, and bytes of all arrays that a kernel is given."""
    touched = float(sum(a.nbytes for a in args if isinstance(a, np.ndarray)))
    operations = 0.0
    if name in ("blend_forward", "blend_backward"):
        entries, first_in_tile = args[1], args[2]
        tile_end = args[10] if name == "blend_forward" else args[3]
        operations = _LANES * _rows(entries, first_in_tile, tile_end)
        operations *= _FORWARD_ROW if name == "blend_forward" else _BACKWARD_ROW
    elif name == "project_forward":
        operations = _PROJECT_FORWARD * len(args[0])
    elif name == "project_backward":
        operations = _PROJECT_BACKWARD * float((args[11] > 0).sum())
    return operations, touched


def _rows(entries: np.ndarray, first_in_tile: np.ndarray, tile_end: np.ndarray) -> float:
    """Rows of eight pixels that blending visits."""
    visited = np.zeros(len(entries) + 1, np.int64)
    np.add.at(visited, first_in_tile[:-1], 1)
    np.add.at(visited, tile_end, -1)
    rows = entries[visited.cumsum()[:-1] > 0, tiles.ROWS].astype(np.int64)
    first, end = rows & 255, (rows >> 8) & 255
    first_right, end_right = (rows >> 16) & 255, (rows >> 24) & 255
    return float((np.maximum(end - first, 0) + np.maximum(end_right - first_right, 0)).sum())


if __name__ == "__main__":
    assert blending.GRADIENT and projection.BLOCK  # both register their kernels
    main(tyro.cli(KernelBenchmark))

"""Milliseconds of the CPU engine: `python tests/benchmarks/bench_rasterize.py [--gaussians 20000]`.

A head-sized ellipsoid of flat Gaussians, as it looks in the middle of a fit. Prints medians of forward, backward, and a
whole training iteration (harmonics of degree 1, loss, Adam) on one thread and on all, as process CPU and wall time.
"""

from __future__ import annotations

import argparse
import os

import numba
import torch

from dp360.reconstruction.prepare import prepare_kernels
from dp360.reconstruction.splat_benchmark import time_step


def main() -> None:
    """Print one line per picture size and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    prepare_kernels()
    torch.set_num_threads(1)
    print(f"{arguments.gaussians} Gaussians, load {os.getloadavg()[0]:.1f}; CPU ms (wall ms), medians")
    print("size  threads        forward        backward       iteration")
    for size_px in (256, 512):
        for threads in sorted({1, numba.config.NUMBA_NUM_THREADS}):  # type: ignore[attr-defined]
            numba.set_num_threads(threads)
            t = time_step(arguments.gaussians, size_px, repeats=arguments.repeats)
            columns = "  ".join(f"{d.cpu:6.1f} ({d.wall:6.1f})" for d in (t.forward, t.backward, t.iteration))
            print(f"{size_px:4d}  {threads:7d}  {columns}")


if __name__ == "__main__":
    main()

"""What the kernels stand on: eight-lane arithmetic, lent memory, preparing, and the benchmark that reports them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import no_type_check

import numba
import numpy as np
import pytest
import torch

from dp360.generation.progress import silent
from dp360.reconstruction import prepare
from dp360.reconstruction import splat_benchmark as bench
from dp360.reconstruction.rasterize import simd
from dp360.reconstruction.rasterize.kernels import forget_stale
from dp360.reconstruction.rasterize.workspace import empty


@numba.njit
@no_type_check
def _lanes(source, out):
    """One row of `out` per operation."""
    a, b = simd.load8(source, 0), simd.load8(source, 8)
    simd.store8(out, 0, a + b)
    simd.store8(out, 8, simd.fma8(a, b, simd.lanes8()))
    simd.store8(out, 16, simd.minus_product8(a, b, simd.all8(1.0)))
    simd.store8(out, 24, simd.select8(a > b, simd.max8(a, b), simd.negative_where(b > a, simd.abs8(a))))
    simd.store8(out, 32, simd.sums_of_8(a, b, a * b, a - b, a / b, simd.min8(a, b), simd.lanes8(), simd.all8(2.0)))
    simd.store8(out, 40, simd.all8(simd.sum8(a)) + simd.all8(simd.lane8(b, 3)))
    red, green, blue = simd.load_rgb8(source, 16)
    simd.store_rgb8(out, 48, red, green, blue)
    simd.store_rgb8(out, 72, blue, red, simd.all8(1.0 if simd.any8(a > b) else 0.0))


def test_eight_lanes_do_what_their_names_say() -> None:
    source = np.random.default_rng(0).uniform(-2, 2, 40).astype(np.float32)
    out = np.zeros(96, np.float32)
    _lanes(source, out)
    a, b, rgb = source[:8], source[8:16], source[16:].reshape(8, 3)
    index = np.arange(8, dtype=np.float32)
    sums = [x.sum() for x in (a, b, a * b, a - b, a / b, np.minimum(a, b), index, np.full(8, 2.0))]
    chosen = np.where(a > b, np.maximum(a, b), np.where(b > a, -np.abs(a), np.abs(a)))
    expected = [a + b, a * b + index, 1 - a * b, chosen, sums, np.full(8, a.sum() + b[3]), rgb.ravel()]
    turned = np.stack([rgb[:, 2], rgb[:, 0], np.ones(8)], axis=1)
    np.testing.assert_allclose(out, np.concatenate([*expected, turned.ravel()]), rtol=1e-5, atol=1e-5)


@numba.njit
@no_type_check
def _powers(x, out):
    """2^x in steps of eight."""
    for i in range(0, x.shape[0], 8):
        simd.store8(out, i, simd.exp2_8(simd.load8(x, i)))


def test_powers_of_two_are_right_where_alpha_can_be_seen() -> None:
    x = np.linspace(math.log2(1 / 255), 0, 8000).astype(np.float32)
    out = np.empty_like(x)
    _powers(x, out)
    assert np.abs(out / np.exp2(x.astype(np.float64)) - 1).max() < 3e-6


def test_lent_memory_belongs_to_one_array_at_a_time_and_comes_back() -> None:
    first = empty((300, 400))
    first[:] = 1
    view = torch.from_numpy(first)[10:20]
    place = first.ctypes.data
    del first
    second = empty((300, 400))
    second[:] = 2
    assert float(view.min()) == 1 and second.ctypes.data != place
    del view
    assert empty((300, 400)).ctypes.data == place


def test_kernels_are_compiled_once_and_the_caller_hears_of_it() -> None:
    heard: list[str] = []

    def track(sequence, *, total, description):
        heard.append(description)
        return sequence

    compiled = prepare.prepare_kernels(track)
    assert heard == ([prepare.COMPILING] if compiled else [])
    assert not prepare.prepare_kernels(track)


@pytest.mark.slow
def test_a_fresh_machine_compiles_everything_once(tmp_path: Path) -> None:
    program = "from dp360.reconstruction import prepare; print(prepare.prepare_kernels())"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [run.stdout.strip() for run in said] == ["True", "False"]


def test_the_trial_of_threads_chooses_one_of_them_and_changes_nothing() -> None:
    before = numba.get_num_threads()
    assert 1 <= prepare.best_thread_count(gaussians=500, size_px=64) <= before == numba.get_num_threads()


def test_the_benchmark_reports_every_case(make_sphere_views) -> None:
    views = make_sphere_views(ring_count=6, size_px=32)
    config = bench.SplatFitConfig(iterations=6, start_count=200)
    figures = bench.bench_splats(
        views, config=config, counts=(300,), sizes_px=(32, 48), repeats=2, track=silent
    ).figures
    cases = {(step["size_px"], step["threads"]) for step in figures["steps"]}
    assert cases == {(size, threads) for size in (32, 48) for threads in {1, numba.get_num_threads()}}
    assert figures["fit"]["iterations"] == 6 and 120 <= figures["fit"]["gaussians"] <= 130
    assert figures["fit"]["psnr_db"] == pytest.approx(15.08, abs=0.3)


def test_fit_threads_leaves_everything_as_it_was() -> None:
    before = torch.get_num_threads(), numba.get_num_threads()
    with prepare.fit_threads(gaussians=500, size_px=32) as chosen:
        assert torch.get_num_threads() == 1
        assert numba.get_num_threads() == chosen and 1 <= chosen <= before[1]
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


def test_kernels_compiled_before_the_last_change_are_forgotten(tmp_path: Path) -> None:
    older, younger, other = (tmp_path / name for name in ("tiles.f-1.py311.nbi", "tiles.g-2.py311.nbi", "blend.f.nbi"))
    for path, time_s in ((older, 100.0), (younger, 300.0), (other, 100.0)):
        path.touch()
        os.utime(path, (time_s, time_s))
    forget_stale(tmp_path, "tiles", 200.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([younger.name, other.name])

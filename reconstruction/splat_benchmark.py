"""What the splat engine costs on this machine: steps of a fit by size and threads, and a whole fit."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import torch

from dp360.generation.cameras import look_at_origin
from dp360.generation.progress import Track, silent
from dp360.generation.system import load, peak_memory_bytes
from dp360.generation.views import PointCloud, ViewSet

from .losses import LossConfig, target_over_background, training_loss
from .prepare import best_thread_count, prepare_kernels
from .splat_fit import (
    LearningRates,
    SplatFitConfig,
    fit_splats,
    make_optimizers,
    parameters_from_splats,
    render_parameters,
)
from .splats import Splats, render_splats, splats_from_point_cloud

_PARTS = ("forward", "backward", "iteration")
Milliseconds = dict[str, float]
"""Medians over repetitions: `cpu` of all threads together, hardly changed by other programs; `wall`, what passed."""


@dataclass(frozen=True)
class SplatBenchmark:
    """What was measured."""

    figures: dict[str, Any]
    """Plain data. `machine`: processor, number of cores, versions; `load_before` and `load_after`: programs that wanted
    to run in the minute before; `compiled`: whether kernels had to be compiled first (not part of any figure);
    `best_threads`: what the trial of thread counts chose; `steps`: as `time_step`, by count, size and threads; `fit`:
    the fit, None where no views were given, with the number of `views`, their `size_px` (height, width), `iterations`,
    `gaussians` at the end, `wall_s` and `cpu_s`, mean `psnr_db` over its own views over white, and
    `peak_memory_bytes`, the largest resident memory so far, 0 where the system does not tell."""

    def to_json(self) -> str:
        """All figures."""
        return json.dumps(self.figures, indent=1)

    def to_text(self) -> str:
        """Tables for people."""
        found = self.figures
        lines = [
            found["machine"],
            "load {load_before:.1f} before, {load_after:.1f} after; {best_threads} threads pay\n".format(**found),
            "CPU ms (wall ms), medians       forward         backward        iteration",
        ]
        for step in found["steps"]:
            columns = (f"{step[part]['cpu']:6.1f} ({step[part]['wall']:6.1f})" for part in _PARTS)
            case = "{gaussians:7d} at {size_px:4d} px, {threads} thr.".format(**step)
            lines.append("  ".join([case, *columns]))
        if (fit := found["fit"]) is not None:
            size, memory_gb = "{1}x{0}".format(*fit["size_px"]), fit["peak_memory_bytes"] / 1e9
            lines.append(
                f"\nfit of {fit['views']} views of {size} px: {fit['iterations']} iterations, {fit['gaussians']} "
                f"Gaussians, {fit['wall_s']:.1f} s ({fit['cpu_s']:.1f} s CPU), PSNR {fit['psnr_db']:.1f} dB over its "
                f"own views, peak memory {memory_gb:.1f} GB"
            )
        return "\n".join(lines)


def bench_splats(
    views: ViewSet | None = None,
    *,
    config: SplatFitConfig | None = None,
    counts: tuple[int, ...] = (20_000, 50_000),
    sizes_px: tuple[int, ...] = (256, 512),
    repeats: int = 9,
    track: Track = silent,
) -> SplatBenchmark:
    """Measure the CPU engine; about a minute for the steps on two cores, and the fit.

    Args:
        views: Views to fit; no fit without.
        config: How to fit; the default preset without.
        counts: Numbers of Gaussians of the steps.
        sizes_px: Sides of the pictures of the steps.
        repeats: Repetitions of each step, of which medians are taken.
    """
    load_before, torch_threads, numba_threads = load(), torch.get_num_threads(), numba.get_num_threads()
    compiled = prepare_kernels(track)
    torch.set_num_threads(1)
    try:
        fit = None if views is None else _time_fit(views, config or SplatFitConfig(), track)
        threads = sorted({1, numba_threads})
        cases = [(count, size, used) for count in counts for size in sizes_px for used in threads]
        steps = []
        for count, size, used in track(cases, total=float(len(cases)), description="Timing steps"):
            numba.set_num_threads(used)
            steps.append(time_step(count, size, repeats=repeats))
        numba.set_num_threads(numba_threads)
        measured = {"compiled": compiled, "best_threads": best_thread_count(), "steps": steps, "fit": fit}
        return SplatBenchmark({"machine": _machine(), "load_before": load_before, "load_after": load(), **measured})
    finally:
        torch.set_num_threads(torch_threads)
        numba.set_num_threads(numba_threads)


def head_sized_splats(count: int) -> Splats:
    """Gaussians on an ellipsoid with scattered scales and opacities, as in the middle of a fit."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.tensor([0.30, 0.38, 0.34])
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    rgb = (0.5 + 0.4 * torch.sin(7 * directions + torch.arange(3))).clamp(0, 1)
    start = splats_from_point_cloud(PointCloud(directions * axes, directions, rgb), sh_degree=1)
    return Splats(
        start.means_world,
        start.log_scales + 0.4 * torch.randn(count, 3, generator=generator),
        start.quats_wxyz,
        0.6 + 1.8 * torch.randn(count, generator=generator),
        start.sh0,
        start.sh_rest + 0.05 * torch.randn(count, 3, 3, generator=generator),
    )


def median_time(function: Callable[[], object], repeats: int) -> Milliseconds:
    """Medians over calls of `function`, after one to warm up."""
    function()
    cpu, wall = [], []
    for _ in range(repeats):
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        function()
        cpu.append(1000 * (time.process_time() - cpu_start))
        wall.append(1000 * (time.perf_counter() - wall_start))
    return {"cpu": statistics.median(cpu), "wall": statistics.median(wall)}


def time_step(gaussians: int, size_px: int, *, repeats: int) -> dict[str, Any]:
    """Time one training step on as many of numba's threads as are set; torch has one.

    One camera, harmonics of degree 1, L1 + SSIM + alpha + needles, fused Adam. Milliseconds of `forward` (the picture),
    `backward` (from there to the gradients of all variables) and `iteration` (everything, optimizers included).
    """
    params = parameters_from_splats(head_sized_splats(gaussians))
    camera = look_at_origin([0.3], [math.radians(10)], size_px=size_px)
    background = torch.full((3,), 0.7)
    optimizers = make_optimizers(params, LearningRates())
    view = torch.rand(size_px, size_px, 4, generator=torch.Generator().manual_seed(1))

    def render() -> tuple[torch.Tensor, torch.Tensor]:
        picture, alpha, info = render_parameters(params, camera, sh_degree=1, backgrounds=background[None])
        info["means2d"].retain_grad()
        return picture[0], alpha[0, ..., 0]

    def forget() -> None:
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def render_and_back() -> None:
        forget()
        torch.autograd.backward(render(), (view[..., :3], view[..., 3]))

    def iteration() -> None:
        target = target_over_background(view, background)
        loss = training_loss(*render(), *target, params["scales"], LossConfig())
        forget()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()

    forward, both = median_time(render, repeats), median_time(render_and_back, repeats)
    backward = {name: both[name] - forward[name] for name in both}
    case = {"gaussians": gaussians, "size_px": size_px, "threads": numba.get_num_threads()}
    return {**case, "forward": forward, "backward": backward, "iteration": median_time(iteration, repeats)}


def _time_fit(views: ViewSet, config: SplatFitConfig, track: Track) -> dict[str, Any]:
    """Time a whole fit and look at what it made."""
    cpu_start, wall_start = time.process_time(), time.perf_counter()
    splats = fit_splats(views, config, torch.Generator().manual_seed(0), track=track)
    wall_s, cpu_s = time.perf_counter() - wall_start, time.process_time() - cpu_start
    peak = peak_memory_bytes()
    pictures, _ = render_splats(splats, views.cameras)
    errors = (pictures - views.rgb_unit()).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return {
        "views": len(views),
        "size_px": list(views.rgba.shape[1:3]),
        "iterations": config.iterations,
        "gaussians": len(splats),
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "psnr_db": float((-10 * errors.log10()).mean()),
        "peak_memory_bytes": peak,
    }


def _machine() -> str:
    """Processor and versions in one line."""
    processor = platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, numba {numba.__version__}, torch {torch.__version__}"

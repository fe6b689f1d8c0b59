"""Milliseconds of the CPU rasteriser: `python tests/benchmarks/bench_rasterize.py [--gaussians 20000]`.

A head-sized ellipsoid of flat Gaussians, as it looks in the middle of a fit. Prints medians of forward, backward, loss,
and a whole training iteration (harmonics of degree 1, loss, Adam).
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable

import numba
import torch

from dp360.generation.cameras import look_at_origin
from dp360.generation.views import PointCloud
from dp360.reconstruction.fit import LearningRates, make_optimizers, parameters_from_splats, render_parameters
from dp360.reconstruction.losses import LossConfig, photometric_loss, training_loss
from dp360.reconstruction.splats import Splats, splats_from_point_cloud


def head_sized_splats(count: int, seed: int = 0) -> Splats:
    """Gaussians on an ellipsoid with scattered scales and opacities."""
    generator = torch.Generator().manual_seed(seed)
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


def median_ms(function: Callable[[], object], repeats: int) -> float:
    """Median wall time of `function` after one call to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def measure(size_px: int, gaussians: int, repeats: int) -> tuple[float, float, float, float]:
    """Milliseconds of forward, backward, the loss alone (both ways) and a whole iteration at one picture size."""
    params = parameters_from_splats(head_sized_splats(gaussians))
    optimizers = make_optimizers(params, LearningRates())
    cameras = look_at_origin([0.3], [math.radians(10)], size_px=size_px)
    target = torch.rand(size_px, size_px, 4, generator=torch.Generator().manual_seed(1))

    def render() -> tuple[torch.Tensor, torch.Tensor]:
        pictures, alphas, _ = render_parameters(
            params,
            cameras.T_camera_world,
            cameras.K_px,
            size_px,
            size_px,
            sh_degree=1,
            background_rgb_unit=torch.ones(3),
        )
        return pictures[0], alphas[0]

    def both() -> None:
        (render()[0] * target[..., :3]).sum().backward()

    def loss_alone() -> None:
        photometric_loss(target[..., :3].flip(0).requires_grad_(), target[..., :3]).backward()

    def iteration() -> None:
        rgb, alpha = render()
        loss = training_loss(
            rgb, alpha, target[..., :3], target[..., 3], params["scales"], params["opacities"], LossConfig()
        )
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()

    forward_ms, both_ms = median_ms(render, repeats), median_ms(both, repeats)
    return forward_ms, both_ms - forward_ms, median_ms(loss_alone, repeats), median_ms(iteration, repeats)


def main() -> None:
    """Print one line per picture size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    print(f"{arguments.gaussians} Gaussians, {numba.get_num_threads()} numba threads, load {os.getloadavg()[0]:.1f}")
    print("size  forward  backward  loss fwd+bwd  iteration   (ms, median)")
    for size_px in (256, 512):
        forward_ms, backward_ms, loss_ms, whole_ms = measure(size_px, arguments.gaussians, arguments.repeats)
        print(f"{size_px:4d}  {forward_ms:7.1f}  {backward_ms:8.1f}  {loss_ms:12.1f}  {whole_ms:9.1f}")


if __name__ == "__main__":
    main()

"""Joins between neighbouring views: `python tests/benchmarks/bench_windows.py [--views 32]`.

Thirty-two views on a ring start from the same noise; their control pictures change smoothly with the azimuth and close.
Neighbours should then differ by the same small amount everywhere. Printed is the RMS difference of the final latents
of neighbours across the borders of the release's windows (7|8, 15|16, 23|24), where the ring closes (31|0), and
elsewhere; the widest join of all over the median one, wherever it is, since the other ways have borders elsewhere; and
the work of the denoising network per view and step. The official windows run with the default sampler,
so that nothing else differs. Models: the golden fixtures' 360 model and small networks with seeded random weights.
Their V was never trained to make views agree; what can be seen is where windows leave a mark, not how well views agree.
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from bench_samplers import PARITY, fixture_pipeline, random_pipeline
from torch import Tensor

from dp360.generation import orbit
from dp360.generation.cameras import Cameras
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline
from dp360.generation.diffusion.sampling import Sampling
from dp360.generation.diffusion.windows import ClipRows, release_clips


@dataclass(frozen=True)
class OfficialWindows(Sampling):
    """The release's windows with any sampler."""

    def clips(self, cameras: Cameras, clip_length: int, step: int) -> list[ClipRows]:
        """Windows that never meet."""
        del step
        return release_clips(len(cameras), clip_length)


def ways(steps: int) -> dict[str, Sampling]:
    """The ways of cutting the ring, by name."""
    return {
        "official windows": OfficialWindows(steps=steps),
        "default (clips move every step)": Sampling(steps=steps),
        "window_stride 4": Sampling(steps=steps, window_stride=4),
        "window_stride 2": Sampling(steps=steps, window_stride=2),
    }


def smooth_control(pictures: Tensor, views: int) -> Tensor:
    """Control pictures [views, c, H, W] that turn once through three given ones [3, c, H, W]."""
    azimuth = torch.arange(views)[:, None, None, None] * (2 * math.pi / views)
    middle, cosine, sine = pictures.split(1)
    return ((middle + azimuth.cos() * cosine + azimuth.sin() * sine) / 2).clamp(-1, 1)


def joins(latents: Tensor) -> Tensor:
    """RMS difference of each view and the next one round the ring, [n]."""
    return (latents.roll(-1, 0) - latents).square().mean(dim=(1, 2, 3)).sqrt()


def print_table(name: str, pipe: DiffPortrait360Pipeline, references: Tensor, control: Tensor, steps: int) -> None:
    """Joins of one model for every way of cutting the ring."""
    views = len(control)
    cameras = orbit(views)
    length = pipe.view_consistency.sizes.clip_length
    side = pipe.camera_control.sizes.latent_factor
    shape = (1, references.shape[1], control.shape[2] // side, control.shape[3] // side)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1)).expand(views, -1, -1, -1)
    borders = torch.arange(length - 1, views - 1, length)
    inside = torch.ones(views, dtype=torch.bool)
    inside[[*borders.tolist(), views - 1]] = False
    print(f"\n{name}: RMS difference of neighbours, {views} views, {steps} steps")
    print(f"  {'':<34}{'borders':>9}{'31|0':>9}{'elsewhere':>11}{'borders/else':>14}{'widest/median':>15}{'work':>7}")
    for way, sampling in ways(steps).items():
        start = time.perf_counter()
        latents = pipe.denoise(
            pipe.networks_for_views(),
            references,
            cameras,
            control,
            noise,
            None,
            sampling,
            torch.Generator(),
            description="",
        )
        step = joins(latents)
        rows = [step[borders].mean(), step[-1], step[inside].mean()]
        work = sum(map(len, sampling.clips(cameras, length, 0))) / views
        print(
            f"  {way:<34}{rows[0]:9.4f}{rows[1]:9.4f}{rows[2]:11.4f}{rows[0] / rows[2]:14.2f}"
            f"{step.max() / step.median():15.2f}{work:7.1f}"
            f"   ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )


@torch.no_grad()
def main(parity: Path = PARITY, views: int = 32, steps: int = 16, seed: int = 0) -> None:
    """Print the tables.

    Args:
        parity: folder of the golden fixtures; without it their model is left out.
        views: views on the ring, a multiple of the clip's length.
        steps: of the default sampler.
        seed: of weights and pictures.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(3, 3, 128, 128, generator=generator).clamp(-1, 1)
    references = torch.randn(2, 4, 16, 16, generator=generator)
    print_table("random", random_pipeline(seed), references, smooth_control(pictures, views), steps)
    if (parity / "video_config.json").is_file():
        with tempfile.TemporaryDirectory() as folder:
            pipe, inputs = fixture_pipeline(parity, Path(folder) / "pipeline")
            references = torch.stack([inputs["ref_front"][0], inputs["ref_back"][0]])
            print_table("fixture", pipe, references, smooth_control(inputs["hint"][:3], views), steps)


if __name__ == "__main__":
    tyro.cli(main)

"""How far few steps lead from many: `python tests/benchmarks/bench_samplers.py [--reference-steps 500]`.

Relative L2 distance of the final latents from those of DDIM with eta 0 on exact tables, 50 and 500 steps, from the
same noise. Three models:

- fixture: the golden fixtures' 360 model, which the release converter turned into a pipeline; guidance scale 3.
- random: small networks with seeded normal weights; guidance scale 3.
- mixture: the exact noise prediction for a mixture of eight Gaussians with a 1/f^2 or a 1/f spectrum.

Random weights make no natural probability flow: their prediction is no denoiser, so that the first two show how a
sampler follows an arbitrary smooth field. The mixture is what a trained network approximates, without its errors.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from diffusers.utils import logging
from safetensors.torch import load_file
from torch import Tensor, nn

from dp360.generation import orbit
from dp360.generation.diffusion.architectures import KL_F8, Architecture
from dp360.generation.diffusion.camera_control import CameraControlConfig
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline
from dp360.generation.diffusion.release.conversion import convert_release
from dp360.generation.diffusion.release.schedule import ReleaseDDIMScheduler
from dp360.generation.diffusion.sampling import Sampling
from dp360.generation.diffusion.unet import UNetConfig
from dp360.generation.diffusion.view_consistency import ViewConsistencyConfig

Scheduler = Any  # what diffusers' schedulers share (set_timesteps, step ...) has no type there
Sample = Callable[[Scheduler, int], Tensor]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
EXACT_DDIM = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
"""The release's sampler but for its float16 tables: t = 1, 21, ..., 981 at 50 steps."""
TRAILING = {**BETAS, "timestep_spacing": "trailing"}
FEW_STEP_SAMPLERS = {
    "DPM-Solver++ 2M": DPMSolverMultistepScheduler(**TRAILING),
    "DPM-Solver++ 2M, Karras": DPMSolverMultistepScheduler(**TRAILING, use_karras_sigmas=True),
    "DPM-Solver++ 2M, log-SNR": DPMSolverMultistepScheduler(**TRAILING, use_lu_lambdas=True),
    "UniPC": UniPCMultistepScheduler(**TRAILING),
    "UniPC, Karras": UniPCMultistepScheduler(**TRAILING, use_karras_sigmas=True),
    "DDIM": DDIMScheduler(**TRAILING, clip_sample=False, set_alpha_to_one=False),
}
STEPS = (8, 12, 16, 20)
PARITY = Path(os.environ.get("DP360_PARITY", "../shared/reference/parity"))


@dataclass(frozen=True)
class Scene:
    """Latents and control pictures to denoise with a pipeline."""

    references: Tensor
    """Front and back, [2, c, h, w]."""
    control: Tensor
    """Control pictures, [n, 3, H, W]."""
    noise: Tensor
    """[n, c, h, w]."""


def fixture_pipeline(parity: Path, folder: Path) -> tuple[DiffPortrait360Pipeline, dict[str, Tensor]]:
    """The 360 model of the golden fixtures, through the converter, and the fixtures' inputs."""
    inputs = load_file(parity / "video_inputs.safetensors")
    sizes = json.loads((parity / "video_config.json").read_text())["hyperparameters"]
    convert_release(
        folder,
        views_model=parity / "video_weights.safetensors",
        architecture=architecture_of(sizes),
        context=inputs["context"][:1],
    )
    logging.disable_progress_bar()
    pipe = DiffPortrait360Pipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe, inputs


def architecture_of(hyperparameters: dict) -> Architecture:
    """The fixtures' sizes, which are in the release's own configuration form."""
    unet, autoencoder = hyperparameters["unet"], hyperparameters["vae"]["ddconfig"]
    widths = tuple(unet["model_channels"] * factor for factor in unet["channel_mult"])
    sizes = {
        "block_out_channels": widths,
        "layers_per_block": unet["num_res_blocks"],
        "attention_levels": tuple(2**level in unet["attention_resolutions"] for level in range(len(widths))),
        "num_heads": (unet["num_heads"],) * len(widths),
        "context_dim": unet["context_dim"],
    }
    motion = unet["unet_additional_kwargs"]["motion_module_kwargs"]
    heads, clip_length = (motion["num_attention_heads"],) * len(widths), motion["video_length"]
    channels = tuple(autoencoder["ch"] * factor for factor in autoencoder["ch_mult"])
    layers = {"block_out_channels": channels, "layers_per_block": autoencoder["num_res_blocks"]}
    return Architecture(
        UNetConfig(**sizes),
        CameraControlConfig(**sizes),
        ViewConsistencyConfig(widths, unet["num_res_blocks"], heads, clip_length=clip_length),
        "AutoencoderKL",
        {**KL_F8, **layers},
    )


def random_pipeline(seed: int) -> DiffPortrait360Pipeline:
    """Small networks whose zero-initialised outputs are random too, so that every part speaks."""
    torch.manual_seed(seed)
    widths, heads = (32, 64), (2, 2)
    sizes = {"block_out_channels": widths, "layers_per_block": 1, "attention_levels": (True, True), "num_heads": heads}
    architecture = Architecture(
        UNetConfig(**sizes, context_dim=16),
        CameraControlConfig(**sizes, context_dim=16, hint_channels=(8, 8, 16, 16)),
        ViewConsistencyConfig(widths, layers_per_block=1, num_heads=heads),
        "AutoencoderKL",
        {**KL_F8, "block_out_channels": (32, 32, 32, 32)},
        own_back=False,
        context_tokens=4,
    )
    components: dict[str, Any] = architecture.components()
    for part in components.values():
        for parameter in part.parameters() if isinstance(part, nn.Module) else ():
            if parameter.abs().max() == 0:
                nn.init.normal_(parameter, std=0.05)
    pipe = DiffPortrait360Pipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def through_pipeline(pipe: DiffPortrait360Pipeline, scene: Scene) -> Sample:
    """A sampler's result with the networks of `pipe`, in the pipeline's own loop, one clip along an arc."""

    def sample(scheduler: Scheduler, steps: int) -> Tensor:
        pipe.register_modules(scheduler=scheduler)
        return pipe.denoise(
            pipe.networks_for_views(),
            scene.references,
            orbit(4 * len(scene.noise))[: len(scene.noise)],
            scene.control,
            scene.noise,
            None,
            Sampling(steps=steps),
            torch.Generator(),
            description="",
        )

    return sample


def through_mixture(shape: tuple[int, ...], exponent: float, seed: int) -> Sample:
    """A sampler's result with the exact prediction for a mixture of Gaussians of spectrum 1/f^exponent."""
    generator = torch.Generator().manual_seed(seed)
    height, width = shape[-2:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None] * height, torch.fft.fftfreq(width)[None] * width)
    spectrum = 1.0 / (1.0 + frequency**exponent)
    spectrum = spectrum / spectrum.mean()

    def fields(count: int) -> Tensor:
        white = torch.randn(count, *shape[1:], generator=generator, dtype=torch.float64)
        return torch.fft.fft2(white, norm="ortho") * spectrum.sqrt()

    means, covariance = 0.8 * fields(8), 0.36 * spectrum
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    alphas = EXACT_DDIM.alphas_cumprod.double()

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        alpha = torch.as_tensor(alphas[int(timestep)])
        off = torch.fft.fft2(latents, norm="ortho")[:, None] - alpha.sqrt() * means
        total = alpha * covariance + 1.0 - alpha
        weights = torch.softmax(-0.5 * (off.abs() ** 2 / total).sum(dim=(2, 3, 4)), dim=1)
        noise_part = (1.0 - alpha).sqrt() * off / total
        return torch.fft.ifft2((weights[:, :, None, None, None] * noise_part).sum(1), norm="ortho").real

    def sample(scheduler: Scheduler, steps: int) -> Tensor:
        scheduler = type(scheduler).from_config(scheduler.config)
        scheduler.set_timesteps(steps)
        latents = noise.clone()
        for timestep in scheduler.timesteps:
            latents = scheduler.step(predict(latents, timestep), timestep, latents, return_dict=False)[0]
        return latents

    return sample


def distance(latents: Tensor, reference: Tensor) -> float:
    """Relative L2."""
    return float((latents - reference).norm() / reference.norm())


def print_table(name: str, sample: Sample, reference_steps: int) -> None:
    """Distances of every sampler and number of steps for one model."""
    start = time.perf_counter()
    many, fifty = sample(EXACT_DDIM, reference_steps), sample(EXACT_DDIM, 50)
    print(f"\n{name}: relative L2 from DDIM 50 / DDIM {reference_steps} (exact tables, eta 0)")
    print(f"  {'DDIM 50, float16 tables':<26}{distance(sample(ReleaseDDIMScheduler(), 50), fifty):9.1e}")
    print(f"  {'DDIM 50':<26}{'':9} / {distance(fifty, many):.3f}")
    print(f"  {'steps':<26}" + "".join(f"{steps:>18}" for steps in STEPS))
    for sampler, scheduler in FEW_STEP_SAMPLERS.items():
        cells = []
        for steps in STEPS:
            latents = sample(scheduler, steps)
            cells.append(f"{distance(latents, fifty):.3f} / {distance(latents, many):.3f}".rjust(18))
        print(f"  {sampler:<26}" + "".join(cells), flush=True)
    print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)


@torch.no_grad()
def main(
    parity: Path = PARITY,
    reference_steps: int = 500,
    seed: int = 0,
) -> None:
    """Print the tables.

    Args:
        parity: folder of the golden fixtures; without it their model is left out.
        reference_steps: steps of the finer reference, a divisor of 1000.
        seed: of weights and noise.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    for exponent in (2.0, 1.0):
        print_table(f"mixture, 1/f^{exponent:g}", through_mixture((8, 4, 16, 24), exponent, seed), reference_steps)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    scene = Scene(normal(2, 4, 16, 16), normal(8, 3, 128, 128).clamp(-1, 1), normal(8, 4, 16, 16))
    print_table("random", through_pipeline(random_pipeline(seed), scene), reference_steps)
    if (parity / "video_config.json").is_file():
        with tempfile.TemporaryDirectory() as folder:
            pipe, inputs = fixture_pipeline(parity, Path(folder) / "pipeline")
            references = torch.stack([inputs["ref_front"][0], inputs["ref_back"][0]])
            scene = Scene(references, inputs["hint"], inputs["x_t"])
            print_table("fixture", through_pipeline(pipe, scene), reference_steps)


if __name__ == "__main__":
    tyro.cli(main)

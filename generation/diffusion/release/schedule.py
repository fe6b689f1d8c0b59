"""The release's sampler: DDIM with coefficients that went through float16, bit for bit.

The release keeps its diffusion tables as float16 buffers and takes DDIM's coefficients from them. The effect is small
and largest near t = 0; it has to be reproduced to compare numbers. diffusers' `DDIMScheduler` is the exact twin.
Source: arXiv 2010.02502, Eq. 12; tables as in https://github.com/FreedomGu/Diffportrait360.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float, Int
from torch import Tensor

TRAIN_TIMESTEPS, BETA_START, BETA_END = 1000, 0.00085, 0.012
"""Stable Diffusion's schedule, which the release keeps."""


def schedule_tables(
    beta_start: float = BETA_START, beta_end: float = BETA_END, timesteps: int = TRAIN_TIMESTEPS
) -> dict[str, Float[np.ndarray, " t"]]:
    """The DDPM vectors that travel in a checkpoint, exact, for betas whose square roots are equally spaced.

    Source: arXiv 2006.11239, Eq. 4, 6 and 7; the posterior's logarithm is taken of at least 1e-20.
    """
    betas = np.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=np.float64) ** 2
    alphas = 1.0 - betas
    signal = np.cumprod(alphas)
    before = np.append(1.0, signal[:-1])
    variance = betas * (1.0 - before) / (1.0 - signal)
    return {
        "betas": betas,
        "alphas_cumprod": signal,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": np.sqrt(signal),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1.0 - signal),
        "log_one_minus_alphas_cumprod": np.log(1.0 - signal),
        "sqrt_recip_alphas_cumprod": np.sqrt(1.0 / signal),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1.0 / signal - 1.0),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": betas * np.sqrt(before) / (1.0 - signal),
        "posterior_mean_coef2": (1.0 - before) * np.sqrt(alphas) / (1.0 - signal),
        "logvar": np.zeros_like(betas),
    }


SCHEDULE_TABLES = tuple(schedule_tables())
"""Their names; they follow from the betas and are not stored by us."""


class ReleaseDDIMScheduler(DDIMScheduler):
    """DDIM, uniform steps with offset 1, prediction of noise, no clipping, float16-rounded tables.

    Used like every scheduler of diffusers: `set_timesteps`, then `step` for each of `timesteps`.
    """

    def __init__(
        self, num_train_timesteps: int = TRAIN_TIMESTEPS, beta_start: float = BETA_START, beta_end: float = BETA_END
    ) -> None:
        """Tables for betas whose square roots are equally spaced from sqrt(beta_start) to sqrt(beta_end)."""
        super().__init__(num_train_timesteps, beta_start, beta_end, "scaled_linear", clip_sample=False)
        exact = schedule_tables(beta_start, beta_end, num_train_timesteps)
        self.alphas_cumprod, self._sqrt_alphas, self._sqrt_one_minus_alphas = (
            torch.from_numpy(exact[name].astype(np.float16))
            for name in ("alphas_cumprod", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod")
        )

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Choose `num_inference_steps` uniform timesteps.

        Raises:
            ValueError: a count whose last timestep lies outside the table (take a divisor of the table's length).
        """
        total = self.config["num_train_timesteps"]
        stride = total // max(num_inference_steps, 1)
        ascending = torch.arange(0, total, max(stride, 1)) + 1
        if not 1 <= num_inference_steps <= total or int(ascending[-1]) >= total:
            raise ValueError(
                f"ReleaseDDIMScheduler: expected a number of steps that divides {total}, as the release's sampler "
                f"needs, got {num_inference_steps}; take 50, or another schedule"
            )
        self.num_inference_steps = len(ascending)
        self.timesteps = ascending.flip(0).to(device)

    def coefficients(self, timestep: int, eta: float) -> tuple[float, float, float, float]:
        """alpha_t, alpha_prev, sqrt(1 - alpha_t) and sigma_t, rounded where the release rounds them."""
        stride = self.config["num_train_timesteps"] // self.num_inference_steps
        one = np.float16(1.0)
        alpha = self.alphas_cumprod.numpy()[timestep]
        alpha_previous = np.float64(self.alphas_cumprod.numpy()[max(timestep - stride, 0)])
        sqrt_one_minus_alpha = np.sqrt(one - alpha)
        reciprocal = np.float64(one / (one - alpha))
        sigma = eta * np.sqrt((1.0 - alpha_previous) * reciprocal * (1.0 - np.float64(alpha) / alpha_previous))
        return float(alpha), float(alpha_previous), float(sqrt_one_minus_alpha), float(sigma)

    def step(
        self,
        model_output: Float[Tensor, "*b c h w"],
        timestep: int | Tensor,
        sample: Float[Tensor, "*b c h w"],
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        variance_noise: Float[Tensor, "*b c h w"] | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """One step back.

        Args:
            model_output: predicted noise.
            timestep: current timestep, one of `timesteps`.
            sample: current noisy latents; computed with in float32.
            eta: 0 is deterministic, 1 is ancestral; the release takes 0.5.
            variance_noise: the noise itself, instead of drawing it.
        """
        alpha, alpha_previous, sqrt_one_minus_alpha, sigma = (
            torch.tensor(value, dtype=torch.float32) for value in self.coefficients(int(timestep), eta)
        )
        sample, model_output = sample.float(), model_output.float()
        original = (sample - sqrt_one_minus_alpha * model_output) / alpha.sqrt()
        previous = alpha_previous.sqrt() * original + (1.0 - alpha_previous - sigma**2).sqrt() * model_output
        if eta > 0:
            if variance_noise is None:
                variance_noise = randn_tensor(sample.shape, generator, sample.device, torch.float32)
            previous = previous + sigma * variance_noise
        return DDIMSchedulerOutput(previous, original) if return_dict else (previous, original)

    def add_noise(
        self, original_samples: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], timesteps: Int[Tensor, "*b"]
    ) -> Float[Tensor, "b c h w"]:
        """Noisy samples at `timesteps`, from the float16 tables."""
        index = timesteps.cpu().reshape(-1, 1, 1, 1)
        signal, spread = (t[index].to(original_samples) for t in (self._sqrt_alphas, self._sqrt_one_minus_alphas))
        return signal * original_samples + spread * noise

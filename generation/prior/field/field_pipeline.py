"""`FieldPipeline`: what one portrait shows in, whole head fields out, as many different ones as are asked for.

    pipe = FieldPipeline.of(mean, autoencoder, denoiser)  # or FieldPipeline.from_pretrained(folder)
    fields = pipe(observed, generator=torch.Generator().manual_seed(0), count=4)

A field is the expected one, plus what the autoencoder makes of a drawn residual, made to meet what is plainly seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ModelMixin  # noqa: F401 - diffusers looks for ModelMixin here
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from ...diffusion.sized_network import SizedNetwork
from ...errors import InputError
from ...networks import LoadedNetwork
from .field_autoencoder import LATENT_COLUMNS, LATENT_ROWS, FieldAutoencoder, FieldAutoencoderConfig
from .field_denoiser import TIMESTEPS, FieldDenoiser, FieldDenoiserConfig, field_conditions
from .head_field import HeadField
from .known_cells import meet_observation
from .mean_network import FieldMeanConfig, FieldMeanNet, estimate_field
from .observed_field import ObservedField

DEFAULT_STEPS = 20
"""Denoising steps."""
_DRAWN_TOGETHER = 32


@dataclass(frozen=True)
class FieldNetworksConfig:
    """Sizes of the three networks as JSON has them: fields of their configurations, by name."""

    mean_config: Mapping[str, Any] = field(default_factory=dict)
    """Of `FieldMeanConfig`."""
    autoencoder_config: Mapping[str, Any] = field(default_factory=dict)
    """Of `FieldAutoencoderConfig`."""
    denoiser_config: Mapping[str, Any] = field(default_factory=dict)
    """Of `FieldDenoiserConfig`."""


class FieldNetworks(SizedNetwork):
    """The networks as one model of diffusers."""

    sizes_type = FieldNetworksConfig
    sizes: FieldNetworksConfig

    def build(self) -> None:
        """Make the networks."""
        mean, autoencoder, denoiser = (_with_tuples(given) for given in vars(self.sizes).values())
        self.mean = FieldMeanNet(FieldMeanConfig(**mean))
        self.autoencoder = FieldAutoencoder(FieldAutoencoderConfig(**autoencoder))
        self.denoiser = FieldDenoiser(FieldDenoiserConfig(**denoiser))


def _with_tuples(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}


class FieldPipeline(DiffusionPipeline):
    """Draws head fields; the networks and the sampler are its components."""

    networks: FieldNetworks
    scheduler: Any

    def __init__(self, networks: FieldNetworks, scheduler: SchedulerMixin) -> None:
        """Put components together.

        Args:
            networks: the three networks.
            scheduler: sampler for predictions of v.
        """
        super().__init__()
        self.register_modules(networks=networks, scheduler=scheduler)

    @classmethod
    def of(cls, mean: FieldMeanNet, autoencoder: FieldAutoencoder, denoiser: FieldDenoiser) -> FieldPipeline:
        """The pipeline of networks as `NetworkFile` reads them, with the sampler that they learned for."""
        parts = {"mean": mean, "autoencoder": autoencoder, "denoiser": denoiser}
        networks = FieldNetworks(**{f"{name}_config": asdict(network.config) for name, network in parts.items()})
        for name, network in parts.items():
            getattr(networks, name).load_state_dict(network.state_dict())
        networks.eval().requires_grad_(False)
        return cls(networks, field_scheduler())

    @torch.no_grad()
    def __call__(
        self,
        observed: ObservedField,
        *,
        generator: torch.Generator,
        count: int = 1,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float = 1.0,
    ) -> list[HeadField]:
        """Draw fields.

        Args:
            observed: what the portrait shows.
            generator: source of all randomness; a CPU generator draws the same numbers for every device.
            count: how many fields.
            num_inference_steps: denoising steps of each.
            guidance_scale: how far to go from the prediction without conditions to the one with them; 1 needs only the
                latter and is what spreads as widely as truth does.

        Returns:
            Fields above the observed skull that meet what is plainly seen.

        Raises:
            InputError: a count or a number of steps below 1.
        """
        if count < 1 or num_inference_steps < 1:
            raise InputError(f"Cannot draw fields: expected count and steps from 1, got {count}, {num_inference_steps}")
        mean = self.expected(observed)
        latents = self.latents_of(mean)
        residuals = self.draw_residuals(
            latents, observed, generator, count, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale
        )
        return self.fields_of(residuals, mean, latents, observed)

    def expected(self, observed: ObservedField) -> HeadField:
        """The expected field, which drawn ones vary about."""
        return estimate_field(observed, LoadedNetwork(self.networks.mean, ""))

    @torch.no_grad()
    def latents_of(self, mean: HeadField) -> Float[Tensor, "1 k 14 16"]:
        """Latents of a field."""
        return self.networks.autoencoder.encode(torch.from_numpy(mean.pack())[None].to(self.device))

    @torch.no_grad()
    def draw_residuals(
        self,
        mean_latents: Float[Tensor, "1 k 14 16"],
        observed: ObservedField,
        generator: torch.Generator,
        count: int,
        *,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float = 1.0,
    ) -> Float[Tensor, "m k 14 16"]:
        """The loop: what is to be added to the latents of the expected field; arguments as of `__call__`."""
        denoiser, device = self.networks.denoiser, self.device
        packed, told_of_head = (
            torch.from_numpy(x)[None].to(device) for x in (observed.pack(), observed.pack_globals())
        )
        told = field_conditions(mean_latents, packed).expand(count, -1, -1, -1)
        portrait = told_of_head.expand(count, -1)
        steps = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        return sampled_residuals(denoiser, self.scheduler, told, portrait, generator, **steps)

    @torch.no_grad()
    def fields_of(
        self,
        residuals: Float[Tensor, "m k 14 16"],
        mean: HeadField,
        mean_latents: Float[Tensor, "1 k 14 16"],
        observed: ObservedField,
    ) -> list[HeadField]:
        """Fields of residuals: the expected one plus the difference that they make behind the decoder.

        Args:
            residuals: any number of them.
            mean: the expected field.
            mean_latents: its latents.
            observed: to be met.
        """
        decode = self.networks.autoencoder.decode
        differences = torch.cat([decode(mean_latents + r) for r in residuals.split(_DRAWN_TOGETHER)])
        channels = mean.pack() + (differences - decode(mean_latents)).cpu().numpy()
        fields = [HeadField.unpack(c, observed.skull_radius, mean.tokens) for c in channels.astype(np.float32)]
        return [meet_observation(f, observed) for f in fields]


@torch.no_grad()
def sampled_residuals(
    denoiser: FieldDenoiser,
    scheduler: Any,
    told: Float[Tensor, "m told 14 16"],
    portrait: Float[Tensor, "m globals"],
    generator: torch.Generator,
    *,
    num_inference_steps: int = DEFAULT_STEPS,
    guidance_scale: float = 1.0,
) -> Float[Tensor, "m k 14 16"]:
    """Residuals out of noise, one for each row of conditions.

    Args:
        scheduler: sampler; it is not changed.
        told: `field_conditions` of each.
        portrait: what is told of each head as a whole.
        generator: source of the noise.
    """
    count, device = len(told), told.device
    none, all_ = (torch.full((count,), value, device=device) for value in (False, True))
    shape = (count, denoiser.config.latents, LATENT_ROWS, LATENT_COLUMNS)
    scheduler = type(scheduler).from_config(scheduler.config)
    scheduler.set_timesteps(num_inference_steps, device=device)
    residuals = randn_tensor(shape, generator, device, torch.float32) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        noisy, levels = scheduler.scale_model_input(residuals, timestep), timestep.expand(count)
        prediction = denoiser(noisy, levels, told, portrait, none)
        if guidance_scale != 1:
            without = denoiser(noisy, levels, told, portrait, all_)
            prediction = without + guidance_scale * (prediction - without)
        residuals = scheduler.step(prediction, timestep, residuals, return_dict=False)[0]
    return residuals * denoiser.residual_scale


def field_scheduler() -> DDIMScheduler:
    """The sampler, with the levels of noise that the denoiser learns from.

    Sources: Song et al., "Denoising Diffusion Implicit Models", 2021, Eq. 12 without its noise; Nichol and Dhariwal,
    "Improved Denoising Diffusion Probabilistic Models", 2021, Eq. 17 (cosine); Lin et al., "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", 2024, Algorithm 1 (the last level has no signal), Table 2 (trailing).
    """
    return DDIMScheduler(
        num_train_timesteps=TIMESTEPS, beta_schedule="squaredcos_cap_v2", clip_sample=False,
        prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True,
    )  # fmt: skip

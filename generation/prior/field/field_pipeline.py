"""`FieldPipeline`: what one portrait shows in, whole head fields out, as many different ones as are asked for.

    pipe = FieldPipeline.of(mean, autoencoder, denoiser, grain)  # or FieldPipeline.from_pretrained(folder)
    fields = pipe(observed, generator=torch.Generator().manual_seed(0), count=4)

A field is what the autoencoder makes of the expected latents and a drawn residual, with drawn grain; where the portrait
plainly shows it, it is as thick as expected, and it is made to meet what is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

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
from .field_grain import FieldGrain, FieldGrainConfig
from .head_field import HeadField
from .known_cells import kept_where_seen, meet_observation
from .mean_network import FieldMeanConfig, FieldMeanNet, expected_field
from .observed_field import ObservedField

DEFAULT_STEPS = 20
"""Denoising steps."""
_GRAIN_STEPS = 5
"""The same of grain, which is drawn when the rest is known."""
_DRAWN_TOGETHER = 32


@dataclass(frozen=True)
class FieldNetworksConfig:
    """Sizes of the networks as JSON has them: fields of their configurations, by name."""

    mean_config: Mapping[str, Any] = field(default_factory=dict)
    """Of `FieldMeanConfig`."""
    autoencoder_config: Mapping[str, Any] = field(default_factory=dict)
    """Of `FieldAutoencoderConfig`."""
    denoiser_config: Mapping[str, Any] = field(default_factory=dict)
    """Of `FieldDenoiserConfig`."""
    grain_config: Mapping[str, Any] | None = None
    """Of `FieldGrainConfig`; None draws smooth fields."""


class FieldNetworks(SizedNetwork):
    """The networks as one model of diffusers."""

    sizes_type = FieldNetworksConfig
    sizes: FieldNetworksConfig

    def build(self) -> None:
        """Make the networks."""
        sizes = self.sizes
        self.mean = FieldMeanNet(FieldMeanConfig(**_with_tuples(sizes.mean_config)))
        self.autoencoder = FieldAutoencoder(FieldAutoencoderConfig(**sizes.autoencoder_config))
        self.denoiser = FieldDenoiser(FieldDenoiserConfig(**sizes.denoiser_config))
        self.grain = None if sizes.grain_config is None else FieldGrain(FieldGrainConfig(**sizes.grain_config))


def _with_tuples(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}


class FieldPipeline(DiffusionPipeline):
    """Draws head fields; the networks and the sampler are its components."""

    networks: FieldNetworks
    scheduler: Any

    def __init__(self, networks: FieldNetworks, scheduler: SchedulerMixin) -> None:
        """Put components together.

        Args:
            networks: what expects, encodes and draws.
            scheduler: sampler for predictions of v.
        """
        super().__init__()
        self.register_modules(networks=networks, scheduler=scheduler)

    @classmethod
    def of(
        cls,
        mean: FieldMeanNet,
        autoencoder: FieldAutoencoder,
        denoiser: FieldDenoiser,
        grain: FieldGrain | None = None,
    ) -> FieldPipeline:
        """The pipeline of networks as `NetworkFile` reads them, with the sampler that they learned for."""
        parts = {"mean": mean, "autoencoder": autoencoder, "denoiser": denoiser}
        parts |= {} if grain is None else {"grain": grain}
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
        return self.fields_of(residuals, mean, latents, observed, generator)

    def expected(self, observed: ObservedField) -> HeadField:
        """The expected field, which drawn ones vary about, in the network's own words where cells are seen."""
        return expected_field(observed, LoadedNetwork(self.networks.mean, ""))

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
        generator: torch.Generator | None = None,
    ) -> list[HeadField]:
        """Fields of residuals: what the decoder makes of them, with grain.

        Args:
            residuals: any number of them.
            mean: the expected field.
            mean_latents: its latents.
            observed: to be met.
            generator: source of the grain; None leaves fields smooth.
        """
        decode = self.networks.autoencoder.decode
        channels = torch.cat([decode(mean_latents + r) for r in residuals.split(_DRAWN_TOGETHER)])
        if self.networks.grain is not None and generator is not None:
            channels = channels + self._drawn_grain(channels, self.networks.grain, generator)
        fields = [HeadField.unpack(c, observed.skull_radius, mean.tokens) for c in channels.cpu().numpy()]
        return [meet_observation(kept_where_seen(f, mean, observed), observed) for f in fields]

    def _drawn_grain(
        self, smooth: Float[Tensor, "m 20 56 64"], network: FieldGrain, generator: torch.Generator
    ) -> Float[Tensor, "m 20 56 64"]:
        """What smooth fields lack, out of noise."""

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            parts = zip(noisy.split(_DRAWN_TOGETHER), smooth.split(_DRAWN_TOGETHER))
            return torch.cat([network(n, timestep.expand(len(n)), s) for n, s in parts])

        grain = _denoised(predict, self.scheduler, tuple(smooth.shape), smooth.device, generator, _GRAIN_STEPS)
        parts = zip(grain.split(_DRAWN_TOGETHER), smooth.split(_DRAWN_TOGETHER))
        return torch.cat([network.drawn(g, s) for g, s in parts])


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

    def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
        levels = timestep.expand(count)
        prediction = denoiser(noisy, levels, told, portrait, none)
        if guidance_scale == 1:
            return prediction
        without = denoiser(noisy, levels, told, portrait, all_)
        return without + guidance_scale * (prediction - without)

    shape = (count, denoiser.config.latents, LATENT_ROWS, LATENT_COLUMNS)
    return _denoised(predict, scheduler, shape, device, generator, num_inference_steps) * denoiser.residual_scale


def _denoised(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: Any,
    shape: tuple[int, ...],
    device: torch.device,
    generator: torch.Generator,
    steps: int,
) -> Tensor:
    """The loop: from noise to what `predict`, told what is noisy and the timestep, predicts v of."""
    scheduler = type(scheduler).from_config(scheduler.config)
    scheduler.set_timesteps(steps, device=device)
    x = randn_tensor(shape, generator, device, torch.float32) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        prediction = predict(scheduler.scale_model_input(x, timestep), timestep)
        x = scheduler.step(prediction, timestep, x, return_dict=False)[0]
    return x


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

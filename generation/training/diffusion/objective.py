"""What the diffusion stages minimise: the squared error of the networks' prediction at random noise levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...diffusion.patch_autoencoder import PatchAutoencoder
from ...diffusion.pipeline import DiffPortrait360Pipeline, Mode
from ...diffusion.reference_attention import Reference
from ...diffusion.sampling import Scheduler
from ...diffusion.unet import Context, ControlResiduals
from ..loop import Batch

_Latents = Float[Tensor, "n c h w"]


@dataclass(frozen=True)
class ObjectiveConfig:
    """How noise is put on views and errors are weighed."""

    shared_timestep: bool = True
    """One noise level for a clip, as it is drawn; the release draws one for each view."""
    terminal_share: float = 0.0
    """Share of clips at the last timestep, where networks with zero terminal SNR see nothing but noise: what they
    predict there is the mean of all answers, which drawing in one or two steps returns. The others are uniform."""
    background_weight: float = 1.0
    """Weight of latents that only background lies under; 0 leaves out those as well that it lies partly under, for
    views that take their outline from elsewhere: white must not creep in from where a head might end."""
    channel_power: float = 0.0
    """Errors of a channel of normalised latents weigh as its standard deviation to this power: 0 all alike, 2 as the
    pixels do where the autoencoder is orthonormal."""
    dual_share: float = 1.0
    """Share of clips that see the back reference beside the front one."""


def training_schedule(scheduler: Scheduler) -> Scheduler:
    """What puts noise on views as a pipeline's scheduler takes it off; its predictions are of the same kind."""
    return DDPMScheduler.from_config(scheduler.config)


def prediction_target(schedule: Scheduler, clean: _Latents, noise: _Latents, timesteps: Int[Tensor, " n"]) -> _Latents:
    """What is to be predicted: the noise, the clean latent, or v (arXiv 2202.00512, Eq. 11)."""
    match schedule.config["prediction_type"]:
        case "epsilon":
            return noise
        case "sample":
            return clean
        case "v_prediction":
            return schedule.get_velocity(clean, noise, timesteps)
        case kind:
            raise ValueError(f"Cannot train networks that predict {kind!r}; expected epsilon, sample or v_prediction")


def draw_timesteps(latents: _Latents, frames: int, steps: int, config: ObjectiveConfig) -> Int[Tensor, " n"]:
    """A timestep below `steps` for each view, from torch's generator, which the loop has seeded.

    `frames` rows are a clip.
    """
    count = len(latents) // frames if config.shared_timestep else len(latents)
    timesteps = torch.randint(steps, (count,), device=latents.device)
    if config.terminal_share:
        terminal = torch.rand(count, device=latents.device) < config.terminal_share
        timesteps = torch.where(terminal, steps - 1, timesteps)
    return timesteps.repeat_interleave(frames) if config.shared_timestep else timesteps


class ViewObjective(nn.Module):
    """A pipeline's networks with the loss of one stage: a micro-batch of clips in, a scalar out.

    A micro-batch is what `trainer.clips_of` makes.
    """

    latents_mean: Float[Tensor, "_ 1 1"]
    latents_std: Float[Tensor, "_ 1 1"]

    def __init__(
        self,
        pipeline: DiffPortrait360Pipeline,
        config: ObjectiveConfig,
        *,
        mode: Mode = Mode.VIEWS,
        with_consistency: bool = False,
    ) -> None:
        """Take a pipeline's networks.

        Args:
            pipeline: its networks are used, not copied.
            mode: whether views or the back of the head are learned; micro-batches that say `is_back` overrule it where
                one set of networks plays both roles.
            with_consistency: whether V joins in.
        """
        super().__init__()
        self.config, self.mode, self.with_consistency = config, mode, with_consistency
        self.schedule = training_schedule(pipeline.scheduler)
        self.start_shortcut = bool(pipeline.config["start_shortcut"])
        self.reference_timestep: int | None = pipeline.config["reference_timestep"]
        networks = pipeline.networks_for_back() if mode == Mode.BACK else pipeline.networks_for_views()
        self.unet, self.camera_control = networks.unet, networks.camera_control
        self.appearance = None if networks.appearance is networks.unet else networks.appearance
        self.view_consistency = networks.view_consistency if with_consistency else None
        self.vae, self.context = pipeline.vae, pipeline.context
        mean, spread = pipeline.config["latents_mean"], pipeline.config["latents_std"]
        spread = [1.0 / pipeline.vae.config["scaling_factor"]] if spread is None else spread
        self.register_buffer("latents_mean", torch.tensor(mean or [0.0]).reshape(-1, 1, 1))
        self.register_buffer("latents_std", torch.tensor(spread).reshape(-1, 1, 1))

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """The loss of a micro-batch: mean squared error of the prediction."""
        clips, frames = batch["views"].shape[:2]
        clean = self.encode(batch["views"].flatten(0, 1))
        start = self.encode(batch["start"].flatten(0, 1)) if self.start_shortcut else None
        references = torch.stack([self.encode(batch["front"]), self.encode(batch["back"])], dim=1)
        timesteps = draw_timesteps(clean, frames, len(self.schedule), self.config)
        noise = torch.randn_like(clean)
        is_back = self.mode == Mode.BACK or bool(batch["is_back"].all())
        dual = torch.rand(clips, device=clean.device) < self.config.dual_share
        if is_back:
            dual = torch.zeros_like(dual)
        prediction = self.predict(
            self.schedule.add_noise(clean, noise, timesteps),
            timesteps,
            references,
            batch["control"].flatten(0, 1),
            start,
            mode=Mode.BACK if is_back else Mode.VIEWS,
            dual=dual,
            keeps=batch["keeps"].bool(),
        )
        squared = (prediction.float() - prediction_target(self.schedule, clean, noise, timesteps)) ** 2
        return (squared * self._weights(batch["alpha"].flatten(0, 1), squared)).mean()

    def predict(
        self,
        noisy: _Latents,
        timesteps: Int[Tensor, " n"],
        references: Float[Tensor, "b 2 c h w"],
        control: Float[Tensor, "n k H W"],
        start: _Latents | None,
        *,
        mode: Mode,
        dual: Tensor,
        keeps: Tensor,
    ) -> _Latents:
        """The networks' prediction for b clips of n / b views each.

        Args:
            noisy: noisy latents of the views.
            references: clean latents of the front and the back of each clip.
            start: latents of the start views, for networks that predict the difference to them.
            mode: role of shared weights.
            dual: which clips see both references; the others see the front one.
            keeps: which clips have conditions; the others learn to draw without references and control.
        """
        rows, clips = len(noisy), len(references)
        frames = rows // clips
        context = None if self.context is None else self.context().to(noisy.dtype)
        embedded = self.camera_control.embed_control(control.to(noisy.dtype))
        seen = (noisy, timesteps) if self.camera_control.config["sees_latent"] else (None, None)
        made = self.camera_control(*seen, context, embedded, mode=mode)
        kept = keeps.repeat_interleave(frames).to(noisy.dtype).reshape(-1, 1, 1, 1)
        residuals = ControlResiduals(tuple(skip * kept for skip in made.skips), made.middle * kept)
        options: dict[str, object] = {"mode": mode}
        if self.view_consistency is not None and mode == Mode.VIEWS:
            options |= {"view_consistency": self.view_consistency, "clip_length": frames}
        prediction = torch.zeros_like(noisy)
        for group, banks in ((keeps & dual, 2), (keeps & ~dual, 1), (~keeps, 0)):
            if not bool(group.any()):
                continue
            chosen = group.repeat_interleave(frames).nonzero().flatten()
            reference = None
            if banks:
                reference = self._reference(references[group, :banks], frames, timesteps[chosen], context)
            made = self.unet(
                noisy[chosen], timesteps[chosen], context, reference=reference, control=residuals[chosen], **options
            )
            prediction = prediction.index_add(0, chosen, made.to(prediction.dtype))
        if self.start_shortcut:
            assert start is not None
            prediction = prediction + start
        return prediction

    @torch.no_grad()
    def encode(self, pictures: Float[Tensor, "n 3 H W"]) -> _Latents:
        """Normalised latents of pictures in [0, 1]: samples of the posterior where there is one, as in the release."""
        assert isinstance(self.vae, (AutoencoderKL, PatchAutoencoder))
        scaled = pictures.to(next(self.vae.parameters()).dtype) * 2 - 1
        if isinstance(self.vae, AutoencoderKL):
            encoded = [self.vae.encode(part, return_dict=False)[0] for part in scaled.split(1)]
            latents = torch.cat([posterior.sample() for posterior in encoded])
        else:
            latents = torch.cat([self.vae.encode(part).latent for part in scaled.split(8)])
        return (latents.float() - self.latents_mean) / self.latents_std

    def _reference(
        self,
        references: Float[Tensor, "b banks c h w"],
        frames: int,
        timesteps: Int[Tensor, " n"],
        context: Context | None,
    ) -> Reference:
        """Reference tokens of every view.

        With a fixed reference timestep R looks once at each picture of a clip; otherwise once for each view, with the
        view's timestep (the release repeats references to the batch of frames).
        """
        reader = self.unet if self.appearance is None else self.appearance
        fixed = self.reference_timestep
        banks = []
        for bank in range(references.shape[1]):
            latents = references[:, bank]
            if fixed is None:
                latents = latents.repeat_interleave(frames, dim=0)
                banks.append(reader.write_reference(latents, timesteps, context, mode=Mode.REFERENCE))
            else:
                written = reader.write_reference(latents, torch.tensor([fixed]), context, mode=Mode.REFERENCE)
                banks.append(tuple(tokens.repeat_interleave(frames, dim=0) for tokens in written))
        return self.unet.read_reference(*banks)

    def _weights(self, alpha: Float[Tensor, "n 1 H W"], like: _Latents) -> Float[Tensor, "_ _ _ _"]:
        """Weights of errors, mean about 1."""
        config = self.config
        size = (like.shape[-2], like.shape[-1])
        if config.background_weight:
            covered = F.adaptive_max_pool2d(alpha.float(), size)
            weights = config.background_weight + (1 - config.background_weight) * covered
        else:
            covered = -F.adaptive_max_pool2d(-alpha.float(), size)
            weights = covered / covered.mean().clamp_min(1e-3)
        if config.channel_power:
            spread = self.latents_std.to(like) ** config.channel_power
            weights = weights * (spread / spread.mean())
        return weights

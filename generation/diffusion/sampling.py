"""How views are drawn from the networks: schedule, steps, guidance and clips, apart from who runs them."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import InputError
from .release.schedule import ReleaseDDIMScheduler
from .sized_network import Latents
from .windows import ClipRows, release_clips, ring_clips

Schedule = Literal["default", "official"]
Scheduler: TypeAlias = Any
"""A scheduler of diffusers: their base class, `SchedulerMixin`, declares none of the methods that all of them have."""

DEFAULT_STEPS = 16
OFFICIAL_STEPS, OFFICIAL_ETA = 50, 0.5


@dataclass(frozen=True)
class Sampling:
    """Settings of one generation."""

    schedule: Schedule = "default"
    """`default`: the pipeline's own scheduler and clips that move round the ring; `official`: the release's sampler
    with float16 tables, posterior samples as latents, and clips that never meet."""
    steps: int | None = None
    """Denoising steps; None takes 50 with `official`, else 16."""
    guidance_scale: float = 3.0
    """How far to go from the prediction without portrait and control to the one with them; 1 needs only the latter."""
    guidance_rescale: float = 0.0
    """0 to 1: how much of the contrast that guidance adds is taken back (arXiv 2305.08891, Eq. 16)."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Part of the steps, from first to last, in which guidance acts (arXiv 2404.07724); elsewhere it costs nothing."""
    eta: float | None = None
    """Noise of each step where the scheduler has it; None takes 0.5 with `official`, else 0."""
    strength: float = 1.0
    """Below 1 the first steps are left out, so that more of the start views stays."""
    clip_length: int | None = None
    """Views that see each other; None takes what the weights were trained with."""
    window_stride: int | None = None
    """Views between the starts of two clips: below `clip_length` they overlap and their predictions are averaged, at
    the price of clip_length / window_stride times the work. None: no overlap, clips start elsewhere in every step,
    so that no pair of neighbours is parted more often than another."""
    clips_per_batch: int = 1
    """Clips that go through the networks at once; more is faster on a GPU and takes more memory."""
    view_consistency: bool = True
    """Whether V lets views see each other; without it every view is drawn for itself. For ablations."""
    dual_appearance: bool = True
    """Whether R sees the back of the head beside the portrait; without it no picture of the back is made or used. For
    ablations."""

    def __post_init__(self) -> None:
        low, high = self.guidance_interval
        rules = (
            ("steps", self.steps is None or self.steps >= 1, "at least 1"),
            ("guidance_rescale", 0 <= self.guidance_rescale <= 1, "from 0 to 1"),
            ("guidance_interval", 0 <= low <= high <= 1, "0 <= first <= last <= 1"),
            ("eta", self.eta is None or 0 <= self.eta <= 1, "from 0 to 1"),
            ("strength", 0 < self.strength <= 1, "above 0 and at most 1"),
            ("clip_length", self.clip_length is None or self.clip_length >= 1, "at least 1"),
            ("window_stride", self.window_stride is None or self.window_stride >= 1, "at least 1"),
            ("clips_per_batch", self.clips_per_batch >= 1, "at least 1"),
        )
        for name, good, expected in rules:
            if not good:
                raise InputError(f"Cannot sample: expected {name} {expected}, got {getattr(self, name)}")

    @property
    def official(self) -> bool:
        """Whether the release is followed to the letter."""
        return self.schedule == "official"

    def guides(self, step: int, steps: int) -> bool:
        """Whether guidance acts in this step."""
        low, high = self.guidance_interval
        place = step / max(steps - 1, 1)
        return self.guidance_scale != 1.0 and low <= place <= high

    def clips(self, cameras: Cameras, clip_length: int, step: int) -> list[ClipRows]:
        """The clips of one step.

        Raises:
            InputError: a stride longer than the clip.
        """
        if self.official and self.window_stride is None:
            return release_clips(len(cameras), clip_length)
        stride = clip_length if self.window_stride is None else self.window_stride
        if stride > clip_length:
            raise InputError(
                f"Cannot sample: expected window_stride at most the clip length {clip_length}, got {stride}"
            )
        return ring_clips(cameras, clip_length, stride, shift=step * _shift_per_step(clip_length))


class Denoiser:
    """A scheduler set up for one generation: its timesteps, where it starts, and its step."""

    def __init__(self, scheduler: Scheduler, sampling: Sampling, device: torch.device) -> None:
        """A fresh copy of `scheduler`, or the release's sampler on its betas where `sampling` asks for it.

        Raises:
            InputError: a number of steps that the release's sampler cannot do.
        """
        if sampling.official:
            table = (scheduler.config[name] for name in ("num_train_timesteps", "beta_start", "beta_end"))
            scheduler = ReleaseDDIMScheduler(*table)
            steps, eta = sampling.steps or OFFICIAL_STEPS, OFFICIAL_ETA
        else:
            scheduler = type(scheduler).from_config(scheduler.config)
            steps, eta = sampling.steps or DEFAULT_STEPS, 0.0
        try:
            scheduler.set_timesteps(steps, device=device)
        except ValueError as error:
            raise InputError(f"Cannot sample: {error}") from error
        skipped = min(round(len(scheduler.timesteps) * (1.0 - sampling.strength)), len(scheduler.timesteps) - 1)
        if skipped and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        self.scheduler = scheduler
        self.timesteps = scheduler.timesteps[skipped:]
        eta = eta if sampling.eta is None else sampling.eta
        accepted = inspect.signature(scheduler.step).parameters
        self._options: dict[str, Any] = {"eta": eta} if "eta" in accepted else {}
        self._takes_generator = "generator" in accepted
        self._official, self._skipped = sampling.official, skipped

    def start(self, noise: Latents, start_latents: Latents | None) -> Latents:
        """Where the generation begins: noise, or `start_latents` under the noise of the first step.

        The release noises its start views to the last timestep of the table, t = 999, and then begins at t = 981.
        """
        if start_latents is None:
            return noise * self.scheduler.init_noise_sigma
        first = self.timesteps[:1]
        if self._official and not self._skipped:
            first = torch.full_like(first, self.scheduler.config["num_train_timesteps"] - 1)
        return self.scheduler.add_noise(start_latents, noise, first.expand(len(noise)))

    def step(self, prediction: Latents, timestep: Tensor, latents: Latents, generator: torch.Generator) -> Latents:
        """One step back, in float32."""
        options = {**self._options, **({"generator": generator} if self._takes_generator else {})}
        return self.scheduler.step(prediction, timestep, latents, **options, return_dict=False)[0]


def _shift_per_step(clip_length: int) -> int:
    """Views by which clips move on: about 3/8 of a clip, and prime to it, so that every start is used."""
    first = max(1, 3 * clip_length // 8)
    return next(shift for shift in range(first, clip_length + 1) if math.gcd(shift, clip_length) == 1)


def guided(conditional: Latents, unconditional: Latents, scale: float, rescale: float) -> Latents:
    """Classifier-free guidance, optionally with the standard deviation of the conditional prediction given back.

    Sources: arXiv 2207.12598, Eq. 6; arXiv 2305.08891, Eq. 15-16.
    """
    mixed = unconditional + scale * (conditional - unconditional)
    if rescale == 0.0:
        return mixed
    axes = (1, 2, 3)
    matched = mixed * (conditional.std(axes, keepdim=True) / mixed.std(axes, keepdim=True))
    return rescale * matched + (1.0 - rescale) * mixed

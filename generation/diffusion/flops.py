"""Floating-point operations of one generation, the release's way and ours; a multiply-add counts as two.

PyTorch's `FlopCounterMode` counts each kind of call of the networks once, on shapes; how often it happens follows from
the clips and steps of the generation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..cameras import orbit
from .pipeline import Mode, Networks, control_batches
from .reference_attention import Reference
from .sampling import OFFICIAL_STEPS, Sampling
from .shapes_only import META, ShapesOnly, ShapesPipeline
from .view_consistency import ViewConsistency
from .windows import batches_of, release_clips

Way = Literal["release", "ours"]

APPEARANCE, REFERENCES, CONTROL = "R", "reference keys and values", "C"
CONDITIONAL, UNCONDITIONAL = "conditional", "unconditional"


@dataclass(frozen=True)
class FlopCount:
    """Operations of one generation."""

    title: str
    """Which way of computing it."""
    steps: int
    """Denoising steps."""
    networks: dict[str, float]
    """By network, for all views and steps."""
    around: dict[str, float]
    """Autoencoder, text encoder, and the back view that F makes first."""

    @property
    def views(self) -> float:
        """All networks, for the views: what the ratios compare."""
        return sum(self.networks.values())


@torch.no_grad()
def count_flops(
    pipe: ShapesPipeline,
    way: Way,
    *,
    views: int = 32,
    steps: int = OFFICIAL_STEPS,
    size_px: int = 512,
    sampling: Sampling | None = None,
) -> FlopCount:
    """Operations of one generation: matrix products, convolutions and attention, of which all but a percent consists.

    `release` is what the official code does in every step and for each clip of eight views: R on both references,
    repeated eight times and run to its end; C in both branches, thrown away in one; keys and values of references and
    text for each view apart; the encoder of the control picture every time; two passes of the denoising network and V.
    `ours` is what `DiffPortrait360Pipeline.denoise` does. Both make the back view first and encode start views.

    Args:
        pipe: `shapes_pipeline(architecture)`; it remembers what its calls cost.
        way: whose way of computing.
        views: views on one ring.
        steps: denoising steps.
        size_px: side of a view.
        sampling: for `ours`; its number of steps gives way to `steps`. None follows the release's sampler.
    """
    models = [(pipe.networks_for_views(), 2, views)]
    if pipe.can_make_back:
        models.append((pipe.networks_for_back(), 1, 1))
    calls = [(_Calls(pipe, model, size_px, references, way == "release"), rows) for model, references, rows in models]
    ours = replace(sampling or Sampling(schedule="official"), steps=steps)
    counts = [
        _release_steps(call, rows, steps) if way == "release" else _our_steps(call, rows, ours) for call, rows in calls
    ]
    encode, decode = _autoencoder_flops(pipe, size_px)
    pictures = views - 1 + len(models)
    around = {
        "back view (F)": float(sum(counts[1].values())) if pipe.can_make_back else 0.0,
        "autoencoder": float((pictures + 2) * encode + pictures * decode),
    }
    if way == "release":
        # The encoder runs on both prompts of both programs; per layer 12 d^2 weights and attention of n by n.
        _, n, d = (1, 0, 0) if pipe.context is None else pipe.context.context.shape
        around["text encoder"] = float(2 * len(models) * 12 * (24 * n * d**2 + 4 * n**2 * d))
    return FlopCount(way, steps, {name: float(flops) for name, flops in counts[0].items()}, around)


@dataclass(frozen=True)
class _Calls:
    """What single calls of one model's networks cost."""

    pipe: ShapesPipeline
    networks: Networks
    size_px: int
    references: int
    """Reference pictures."""
    own_rows: bool
    """Whether every picture brings context, timestep and references of its own (release), or all share one."""

    def write(self) -> int:
        """R on the references, as far as its tokens are needed."""
        return self._flops("write", lambda _: self.networks.appearance.write_reference(*self._inputs(self.references)))

    def whole_appearance(self, rows: int) -> int:
        """R on so many references to its end: the denoising network without the head, which R does not have."""
        unet = self.networks.unet
        whole, _ = self.predict(rows, None, reads=False)
        hidden = self._empty(rows, unet.sizes.block_out_channels[0])
        return whole - self._flops(("head", rows), lambda _: unet.conv_out(hidden))

    def read(self, rows: int) -> int:
        """Keys and values of the references, for each of `rows` pictures apart where they are not shared."""
        unet = self.networks.unet
        return self._flops(
            ("read", rows), lambda bank: unet.read_reference(*[bank] * self.references), lambda: self._bank(rows)
        )

    def embed_control(self, rows: int) -> int:
        """Control pictures brought down to the latents' size."""
        control = self.networks.camera_control
        pictures = torch.empty(rows, control.sizes.control_channels, self.size_px, self.size_px, device=META)
        return self._flops(("embed", rows), lambda _: control.embed_control(pictures))

    def control(self, rows: int) -> int:
        """C on so many views."""
        network = self.networks.camera_control
        embedded = self._empty(rows, network.sizes.block_out_channels[0])
        return self._flops(("control", rows), lambda _: network(*self._inputs(rows), embedded))

    def predict(self, rows: int, clip_length: int | None, *, reads: bool) -> tuple[int, int]:
        """The denoising network on so many views, with or without references; and V in it."""
        unet = self.networks.unet

        def reference() -> Reference | None:
            return unet.read_reference(*[self._bank(rows)] * self.references) if reads else None

        def call(consistency: ViewConsistency | None) -> int:
            options = {"view_consistency": consistency, "clip_length": clip_length}
            return self._flops(
                ("predict", rows, consistency is not None and clip_length, reads),
                lambda read: unet(*self._inputs(rows), reference=read, **options),
                reference,
            )

        alone = call(None)
        consistency = self.networks.view_consistency if clip_length else None
        return alone, 0 if consistency is None else call(consistency) - alone

    def _bank(self, rows: int) -> tuple[Tensor, ...]:
        """What R writes down of one reference for so many pictures."""
        return self.networks.appearance.write_reference(*self._inputs(rows if self.own_rows else 1))

    def _inputs(self, rows: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Latents of so many pictures, timesteps and context."""
        own = rows if self.own_rows else 1
        context = None if self.pipe.context is None else self.pipe.context().expand(own, -1, -1)
        timesteps = torch.zeros(own, dtype=torch.long, device=META)
        return self._empty(rows, self.networks.unet.sizes.in_channels), timesteps, context

    def _empty(self, rows: int, channels: int) -> Tensor:
        side = self.size_px // self.networks.camera_control.sizes.latent_factor
        return torch.empty(rows, channels, side, side, device=META)

    def _flops(self, kind: Hashable, call: Callable[[Any], object], prepare: Callable[[], object] | None = None) -> int:
        """Operations of `call` on what `prepare` makes, counted where no call of this kind has been."""
        known, key = self.pipe.known_flops, (self.networks.mode, self.size_px, self.references, self.own_rows, kind)
        if key not in known:
            with ShapesOnly():
                prepared = None if prepare is None else prepare()
                with FlopCounterMode(display=False) as counter:
                    call(prepared)
            known[key] = counter.get_total_flops()
        return known[key]


def _release_steps(calls: _Calls, views: int, steps: int) -> Counter[str]:
    """Operations of the official code by network: every clip on its own, every step from the beginning."""
    consistency = calls.networks.view_consistency
    rows = views if consistency is None else min(views, consistency.sizes.clip_length)
    conditional, unconditional = (calls.predict(rows, rows, reads=reads) for reads in (True, False))
    clip = {
        APPEARANCE: calls.references * calls.whole_appearance(rows),
        REFERENCES: calls.read(rows),
        CONTROL: 2 * (calls.embed_control(rows) + calls.control(rows)),
        **_by_branch(CONDITIONAL, *conditional),
        **_by_branch(UNCONDITIONAL, *unconditional),
    }
    times = len(release_clips(views, rows)) * steps
    return Counter({name: times * flops for name, flops in clip.items()})


def _our_steps(calls: _Calls, views: int, sampling: Sampling) -> Counter[str]:
    """Operations of `DiffPortrait360Pipeline.denoise` by network."""
    networks, steps = calls.networks, sampling.steps or 0
    cameras = orbit(views) if networks.mode == Mode.VIEWS else None
    looks = steps if calls.pipe.config["reference_timestep"] is None else 1
    spent = Counter(
        {APPEARANCE: looks * calls.write(), REFERENCES: looks * calls.read(1), CONTROL: calls.embed_control(views)}
    )
    if not networks.camera_control.sizes.sees_latent:
        spent[CONTROL] += calls.control(views)
    for step in range(steps):
        clips = calls.pipe.clips_of_step(networks, cameras, views, sampling, step)
        batches = [(sum(map(len, batch)), len(batch[0])) for batch in batches_of(clips, sampling.clips_per_batch)]
        if networks.camera_control.sizes.sees_latent:
            controlled = [rows for rows, _ in batches]
            if sum(controlled) > views:
                controlled = [len(rows) for rows in control_batches(views, sampling)]
            spent[CONTROL] += sum(map(calls.control, controlled))
        for rows, clip_length in batches:
            spent.update(_by_branch(CONDITIONAL, *calls.predict(rows, clip_length, reads=True)))
            if sampling.guides(step, steps):
                spent.update(_by_branch(UNCONDITIONAL, *calls.predict(rows, clip_length, reads=False)))
    return spent


def _by_branch(branch: str, network: int, consistency: int) -> dict[str, int]:
    named = {f"UNet, {branch}": network, f"V, {branch}": consistency}
    return {name: flops for name, flops in named.items() if flops}


def _autoencoder_flops(pipe: ShapesPipeline, size_px: int) -> tuple[int, int]:
    """Operations of encoding and of decoding one picture."""
    with ShapesOnly():
        with FlopCounterMode(display=False) as encoding:
            latents = pipe.encode_pictures(torch.empty(1, 3, size_px, size_px, device=META))
        with FlopCounterMode(display=False) as decoding:
            pipe.decode_latents(latents)
    return encoding.get_total_flops(), decoding.get_total_flops()

"""Floating-point operations of one generation, the release's way and ours; a multiply-add counts as two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import assert_never

from .architectures import Architecture
from .meta_run import APPEARANCE, META, CallBook, ShapesOnly, ShapesPipeline, encode_one, run_loop, shapes_pipeline
from .pipeline import Networks
from .sampling import OFFICIAL_STEPS, Sampling
from .unet import DenoisingUNet
from .windows import release_clips

Way = Literal["release", "ours"]


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
    architecture: Architecture,
    way: Way,
    *,
    views: int = 32,
    steps: int = OFFICIAL_STEPS,
    size_px: int = 512,
    sampling: Sampling | None = None,
    pipe: ShapesPipeline | None = None,
) -> FlopCount:
    """Operations of one generation: matrix products, convolutions and attention, of which all but a percent consists.

    `release` is what the official code does in every step and for each clip of eight views: R on both references,
    repeated eight times and run to its end; C in both branches, thrown away in one; keys and values of references and
    text for each view apart; the encoder of the control picture every time; two passes of the denoising network and V.
    `ours` is `DiffPortrait360Pipeline.denoise`, run on shapes. Both make the back view first and encode start views.

    Args:
        architecture: sizes of the networks.
        way: whose way of computing.
        views: views on one ring.
        steps: denoising steps.
        size_px: side of a view.
        sampling: for `ours`; its number of steps gives way to `steps`. None follows the release's sampler.
        pipe: `shapes_pipeline(architecture)`, to be shared by several counts; None makes one.
    """
    pipe = pipe or shapes_pipeline(architecture)
    for_views, for_back = pipe.networks_for_views(), pipe.networks_for_back() if pipe.can_make_back else None
    length = architecture.view_consistency.clip_length
    match way:
        case "release":
            clips = release_clips(views, length)
            networks = _release_step(pipe, for_views, 2, min(views, length), size_px)
            networks = {name: flops * len(clips) * steps for name, flops in networks.items()}
            back = 0.0
            if for_back is not None:
                back = steps * sum(_release_step(pipe, for_back, 1, 1, size_px).values())
        case "ours":
            sampling = replace(sampling or Sampling(schedule="official"), steps=steps)
            networks = _our_steps(pipe, for_views, 2, views, size_px, sampling)
            back = 0.0
            if for_back is not None:
                back = sum(_our_steps(pipe, for_back, 1, 1, size_px, sampling).values())
        case _:
            assert_never(way)
    encode, decode = _autoencoder_flops(pipe, size_px)
    pictures = views + (for_back is not None)
    around = {"back view (F)": back, "autoencoder": (pictures + 2) * encode + pictures * decode}
    if way == "release":
        # The encoder runs on both prompts of both programs; per layer 12 d^2 weights and attention of n by n.
        n, d = architecture.context_tokens or 0, architecture.unet.context_dim or 0
        around["text encoder"] = float(2 * (1 + (for_back is not None)) * 12 * (24 * n * d**2 + 4 * n**2 * d))
    return FlopCount(way, steps, networks, around)


def _our_steps(
    pipe: ShapesPipeline, networks: Networks, references: int, views: int, size_px: int, sampling: Sampling
) -> dict[str, float]:
    """Operations of `denoise` by network."""
    with ShapesOnly(), FlopCounterMode(display=False) as counter:
        book = CallBook(pipe.known, counter.get_total_flops)
        with book.watching(networks):
            run_loop(pipe, networks, references, views, size_px, sampling, device=META)
    return {name: float(flops) for name, flops in book.spent.items()}


def _release_step(
    pipe: ShapesPipeline, networks: Networks, references: int, rows: int, size_px: int
) -> dict[str, float]:
    """One step of one clip as the official code computes it."""
    unet, reader, control = networks.unet, networks.appearance, networks.camera_control
    side = size_px // 2 ** (len(control.config.hint_channels) - 1)
    latents = torch.empty(rows, unet.config.in_channels, side, side, device="meta")
    pictures = torch.empty(rows, control.config.control_channels, size_px, size_px, device="meta")
    context = pipe.context and pipe.context().expand(rows, -1, -1)
    timesteps = torch.zeros(rows, dtype=torch.long, device="meta")
    arguments = latents, timesteps, context
    with ShapesOnly():
        bank = reader.write_reference(*arguments)
        with FlopCounterMode(display=False) as whole, _without_head(reader):
            reader(*arguments)
        with FlopCounterMode(display=False) as counter:
            book = CallBook(pipe.known, counter.get_total_flops)
            with book.watching(networks):
                reference = unet.read_reference(*[bank] * references)
                added = [control(*arguments, control.embed_control(pictures)) for _ in range(2)]
                options = {"view_consistency": networks.view_consistency, "clip_length": rows}
                unet(*arguments, reference=reference, control=added[0], **options)
                unet(*arguments, **options)
    spent = {name: float(flops) for name, flops in book.spent.items()}
    return {APPEARANCE: float(references * whole.get_total_flops()), **spent}


@contextmanager
def _without_head(reader: DenoisingUNet) -> Iterator[None]:
    """Let R's forward pass end where the official one ends; it has no head."""
    if reader.config.output_head:
        yield
        return
    reader.conv_norm_out, reader.conv_out = nn.Identity(), _FirstChannels(reader.config.out_channels)
    try:
        yield
    finally:
        del reader.conv_norm_out, reader.conv_out


class _FirstChannels(nn.Module):
    """In place of a head: as many channels, at no cost."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, : self.count]


def _autoencoder_flops(pipe: ShapesPipeline, size_px: int) -> tuple[float, float]:
    """Operations of encoding and of decoding one picture."""
    with ShapesOnly():
        with FlopCounterMode(display=False) as encoding:
            latents = encode_one(pipe, size_px)
        with FlopCounterMode(display=False) as decoding:
            pipe._decode(latents)
    return float(encoding.get_total_flops()), float(decoding.get_total_flops())

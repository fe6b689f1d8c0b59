"""Floating-point operations of one generation, the release's way and ours; a multiply-add counts as two.

PyTorch's `FlopCounterMode` counts on shapes. Ours is the pipeline's own loop, in which each kind of call of the
networks is counted once and remembered; the release's is worked out of what its code does for one clip in one step.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..cameras import orbit
from ..progress import silent
from .pipeline import DiffPortrait360Pipeline, Mode, Networks
from .reference_attention import Reference
from .sampling import OFFICIAL_STEPS, Sampling
from .shapes_only import META, ShapesOnly, ShapesPipeline
from .unet import ControlResiduals
from .view_consistency import ClipTransformer
from .windows import release_clips

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
        sampling: for `ours`; its number of steps gives way to `steps`. None follows the release's sampler.
    """
    models = [(pipe.networks_for_views(), views)]
    if pipe.can_make_back:
        models.append((pipe.networks_for_back(), 1))
    ours = replace(sampling or Sampling(schedule="official"), steps=steps)
    counts = []
    with ShapesOnly():
        for networks, rows in models:
            if way == "release":
                counts.append(_release_flops(pipe, networks, rows, steps, size_px))
            else:
                with _metered(pipe, networks) as spent:
                    run_loop(pipe, networks, rows, size_px, ours, META)
                counts.append(spent)
        latents = pipe.encode_pictures(torch.empty(1, 3, size_px, size_px, device=META))
        encode = _flops(lambda: pipe.encode_pictures(torch.empty(1, 3, size_px, size_px, device=META)))
        decode = _flops(lambda: pipe.decode_latents(latents))
    pictures = views - 1 + len(models)
    around = {
        "back view (F)": float(sum(counts[1].values())) if pipe.can_make_back else 0.0,
        "autoencoder": float((pictures + 2) * encode + pictures * decode),
    }
    if way == "release":
        # The encoder runs on both prompts of both programs; per layer 12 d^2 weights and attention of n by n.
        _, n, d = (1, 0, 0) if pipe.context is None else pipe.context.context.shape
        around["text encoder"] = float(2 * len(models) * 12 * (24 * n * d**2 + 4 * n**2 * d))
    return FlopCount(way, steps, {name: float(flops) for name, flops in counts[0].items() if flops}, around)


def run_loop(
    pipe: DiffPortrait360Pipeline,
    networks: Networks,
    views: int,
    size_px: int,
    sampling: Sampling,
    device: torch.device,
) -> Tensor:
    """Latents from the pipeline's loop on references and pictures of nothing: of views on one ring, or of the back."""
    control = networks.camera_control.sizes
    side = size_px // control.latent_factor
    latents = torch.zeros(views, control.in_channels, side, side, device=device)
    of_views = networks.mode == Mode.VIEWS
    return pipe.denoise(
        networks,
        latents.new_zeros(2 if of_views else 1, *latents.shape[1:]),
        orbit(views, size_px=size_px) if of_views else None,
        torch.zeros(views, control.control_channels, size_px, size_px, device=META if latents.is_meta else "cpu"),
        latents,
        None,
        sampling,
        torch.Generator().manual_seed(0),
        description="denoising",
        track=silent,
    )


@contextlib.contextmanager
def _metered(pipe: ShapesPipeline, networks: Networks) -> Iterator[Counter[str]]:
    """Adds up the operations of a model's networks while the block runs; answers that are known are not made again."""
    spent, known = Counter[str](), pipe.known_calls

    def meter(network: nn.Module, method: str, row: str) -> None:
        original = getattr(network, method)

        def call(*inputs: Any, **options: Any) -> Any:
            key = (network, method, *map(_shape, inputs), *((name, _shape(value)) for name, value in options.items()))
            if key not in known:
                with FlopCounterMode(display=False) as counter:
                    answer = original(*inputs, **options)
                known[key] = answer, counter.get_total_flops(), _of_consistency(counter)
            answer, flops, of_consistency = known[key]
            branch = UNCONDITIONAL if options.get("reference") is None else CONDITIONAL
            spent[row.format(branch)] += flops - of_consistency
            if of_consistency:
                spent[f"V, {branch}"] += of_consistency
            return answer

        setattr(network, method, call)
        cleanup.callback(delattr, network, method)

    with contextlib.ExitStack() as cleanup:
        meter(networks.appearance, "write_reference", APPEARANCE)
        meter(networks.unet, "read_reference", REFERENCES)
        meter(networks.camera_control, "embed_control", CONTROL)
        meter(networks.camera_control, "forward", CONTROL)
        meter(networks.unet, "forward", "UNet, {}")
        yield spent


def _shape(value: Any) -> Hashable:
    """What the cost of a call depends on."""
    match value:
        case Tensor():
            return tuple(value.shape)
        case tuple():
            return tuple(map(_shape, value))
        case Reference():
            return _shape(value.keys)
        case ControlResiduals():
            return _shape(value.skips)
    return value


def _flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def _of_consistency(counter: FlopCounterMode) -> int:
    """What V's modules had of it."""
    return sum(counter.get_flop_counts().get(ClipTransformer.__name__, {}).values())


def _release_flops(pipe: ShapesPipeline, networks: Networks, views: int, steps: int, size_px: int) -> Counter[str]:
    """Operations of the official code by network: every clip on its own, every step from the beginning."""
    unet, control, consistency = networks.unet, networks.camera_control, networks.view_consistency
    rows = views if consistency is None else min(views, consistency.sizes.clip_length)
    references = 2 if networks.mode == Mode.VIEWS else 1
    side, width = size_px // control.sizes.latent_factor, unet.sizes.block_out_channels[0]

    def empty(channels: int, side: int = side) -> Tensor:
        return torch.empty(rows, channels, side, side, device=META)

    context = None if pipe.context is None else pipe.context().expand(rows, -1, -1)
    inputs = empty(unet.sizes.in_channels), torch.zeros(rows, dtype=torch.long, device=META), context
    banks = [networks.appearance.write_reference(*inputs)] * references
    # R is the denoising network run to its end, but for the head, which it does not have
    whole = _flops(lambda: unet(*inputs)) - _flops(lambda: unet.conv_out(empty(width)))
    embed = _flops(lambda: control.embed_control(empty(control.sizes.control_channels, size_px)))
    clip = Counter(
        {
            APPEARANCE: references * whole,
            REFERENCES: _flops(lambda: unet.read_reference(*banks)),
            CONTROL: 2 * (embed + _flops(lambda: control(*inputs, empty(width)))),
        }
    )
    for branch, reference in ((CONDITIONAL, unet.read_reference(*banks)), (UNCONDITIONAL, None)):
        with FlopCounterMode(display=False) as counter:
            unet(*inputs, reference=reference, view_consistency=consistency, clip_length=rows)
        clip[f"V, {branch}"] = _of_consistency(counter)
        clip[f"UNet, {branch}"] = counter.get_total_flops() - clip[f"V, {branch}"]
    times = len(release_clips(views, rows)) * steps
    return Counter({name: times * flops for name, flops in clip.items()})

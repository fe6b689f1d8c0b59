"""The first stage: the compact model's autoencoder, on views of heads and on renders of their priors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...diffusion.control_pictures import start_of_control
from ...diffusion.patch_autoencoder import PatchAutoencoder, PatchAutoencoderConfig
from ...errors import InputError
from ...progress import Track, silent
from ..loop import Batch, LoopConfig, OnEvaluation, train_model
from .clips import composited, psnr
from .head_pictures import HeadSource

_Pictures = Float[Tensor, "b 3 h w"]
SMALLEST_STD = 0.05
"""Channels of the latents that vary less than this are not blown up further when they are normalised."""
_PRIOR_SHARE = 0.35  # of crops from renders of the prior, which the diffusion model starts from
_COLOURED_SHARE = 0.1  # of crops over a plain background of any colour in place of white
_COLOUR_JITTER = 0.1  # standard deviation of the change of each channel's gain, and half that of its offset
_VIEWS_PER_HEAD = 8  # that are measured
_ABSOLUTE_WEIGHT = 0.1  # weight of the absolute error beside the squared one


@dataclass(frozen=True)
class AutoencoderTrainConfig:
    """How the autoencoder is trained."""

    network: PatchAutoencoderConfig = field(default_factory=PatchAutoencoderConfig)
    """Its sizes."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=6000, batch_size=16, learning_rate=1e-3, ema_decay=0.998, save_every=200
        )
    )
    """Schedule."""
    picture_px: int = 256
    """Size at which heads are shown."""
    crop_px: int = 128
    """Side of the crops that are learned from, a multiple of the patch."""
    component_pictures: int = 192
    """Whole pictures that the principal components are taken from."""

    def __post_init__(self) -> None:
        patch = self.network.patch_px
        if self.picture_px % patch or self.crop_px % patch or self.crop_px > self.picture_px:
            raise InputError(
                f"Cannot train the autoencoder: expected sizes that are multiples of {patch} and crops no larger than "
                f"pictures, got pictures of {self.picture_px} and crops of {self.crop_px} pixels"
            )


@dataclass(frozen=True)
class TrainedAutoencoder:
    """The network and the statistics of its latents."""

    network: PatchAutoencoder
    """In evaluation mode, on the CPU."""
    latents_mean: tuple[float, ...]
    """Per channel."""
    latents_std: tuple[float, ...]
    """Per channel, not below `SMALLEST_STD`."""


def train_autoencoder(
    source: HeadSource,
    config: AutoencoderTrainConfig,
    folder: Path,
    *,
    track: Track = silent,
    on_evaluation: OnEvaluation | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainedAutoencoder:
    """Train, or go on where `folder` has a checkpoint.

    Args:
        on_evaluation: see `train_model`.
        on_step: see `train_model`.
    """
    torch.manual_seed(config.loop.seed)
    network = PatchAutoencoder(**vars(config.network))
    nn.Module.to(network, memory_format=torch.channels_last)  # diffusers' own `to` has no type
    sample = _pictures(source, config, np.random.default_rng([config.loop.seed, 7]), config.component_pictures)
    network.start_from_components(sample)

    train_model(
        network,
        lambda number: _batch(source, config, number),
        _loss,
        config.loop,
        folder,
        track=track,
        on_evaluation=on_evaluation,
        on_step=on_step,
    )
    network.requires_grad_(False)
    with torch.no_grad():
        latents = torch.cat([network.encode(part).latent for part in sample.split(8)])
    std = latents.std((0, 2, 3)).clamp(min=SMALLEST_STD)
    return TrainedAutoencoder(network, tuple(latents.mean((0, 2, 3)).tolist()), tuple(std.tolist()))


def _loss(model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Squared error and a share of the absolute one."""
    made, wanted = model(batch["pictures"]).float(), batch["pictures"]
    return F.mse_loss(made, wanted) + _ABSOLUTE_WEIGHT * F.l1_loss(made, wanted)


@torch.no_grad()
def evaluate_autoencoder(network: PatchAutoencoder, source: HeadSource, picture_px: int = 256) -> dict[str, float]:
    """Peak signal-to-noise ratio on views of every head of `source`, clipped to what can be shown.

    Returns:
        psnr, dB, of whole pictures over white, and psnr_head, of the pixels that the head covers; means over pictures.
    """
    device = next(network.parameters()).device
    figures = defaultdict[str, list[float]](list)
    for index in range(len(source)):
        head = source.head(index)
        count = len(head.cameras)
        for view in range(0, count, max(1, count // _VIEWS_PER_HEAD)):
            rgba = head.rgba(view, picture_px)
            picture = composited(rgba[None])[0]
            made = network(picture[None].to(device) * 2 - 1)[0].cpu().clamp(-1, 1) / 2 + 0.5
            for name, value in psnr(made, picture, rgba[3:]).items():
                figures[name].append(value)
    return {name: float(np.mean(values)) for name, values in figures.items()}


def _batch(source: HeadSource, config: AutoencoderTrainConfig, number: int) -> Batch:
    """Crops of one micro-batch."""
    rng = np.random.default_rng([config.loop.seed, 1, number])
    pictures = _pictures(source, config, rng, config.loop.batch_size)
    crops = []
    for picture in pictures:
        row, column = rng.integers(0, config.picture_px - config.crop_px + 1, 2)
        crops.append(picture[:, row : row + config.crop_px, column : column + config.crop_px])
    return {"pictures": torch.stack(crops).contiguous(memory_format=torch.channels_last)}


def _pictures(source: HeadSource, config: AutoencoderTrainConfig, rng: np.random.Generator, count: int) -> _Pictures:
    """Whole pictures in [-1, 1]: views and renders of priors, mirrored and recoloured."""
    pictures = []
    for _ in range(count):
        head = source.head(int(rng.integers(len(source))))
        view = int(rng.integers(len(head.cameras)))
        if head.read_control is not None and rng.random() < _PRIOR_SHARE:
            picture = start_of_control(head.control(view, config.picture_px)[None])[0]
        else:
            rgba = head.rgba(view, config.picture_px)
            colour = rng.random(3) if rng.random() < _COLOURED_SHARE else np.ones(3)
            picture = composited(rgba[None], (float(colour[0]), float(colour[1]), float(colour[2])))[0]
        gain = torch.from_numpy(1 + _COLOUR_JITTER * rng.standard_normal(3)).float()[:, None, None]
        offset = torch.from_numpy(0.5 * _COLOUR_JITTER * rng.standard_normal(3)).float()[:, None, None]
        if rng.random() < 0.5:  # white stays white in the others
            picture = (picture * gain + offset).clamp(0, 1)
        pictures.append(picture.flip(-1) if rng.random() < 0.5 else picture)
    return torch.stack(pictures) * 2 - 1

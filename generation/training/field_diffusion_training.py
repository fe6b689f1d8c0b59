"""Training of the fields' denoiser, `generation.prior.field.field_denoiser`, on `FieldLatents`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..prior.field.field_denoiser import TIMESTEPS, FieldDenoiser, FieldDenoiserConfig
from ..prior.field.field_pipeline import field_scheduler
from ..progress import Track, silent
from .field_latents import FieldLatents
from .field_training import cell_weights
from .loop import Batch, LoopConfig, OnEvaluation, in_turn, train_model

FIELD_DENOISER_LOOP = LoopConfig(
    steps=5000, batch_size=128, learning_rate=1e-3, warmup_steps=200, weight_decay=0.03, ema_decay=0.998,
    save_every=250,
)  # fmt: skip
"""Its schedule."""
_FORGOTTEN = 0.1
"""Share of samples that are told nothing, for guidance."""
NOISE_BANDS = {"low": (50, 200), "middle": (350, 550), "high": (750, 900), "top": (950, 1000)}
"""Timesteps, from and before, that losses are told for."""
_BAND_ROWS, _TOGETHER = 512, 128


def train_field_denoiser(
    latents: FieldLatents,
    folder: Path,
    loop: LoopConfig = FIELD_DENOISER_LOOP,
    network_config: FieldDenoiserConfig | None = None,
    *,
    start: FieldDenoiser | None = None,
    track: Track = silent,
    on_evaluation: OnEvaluation | None = None,
) -> FieldDenoiser:
    """The network with averaged weights, on the CPU.

    Args:
        start: weights to start from, in place of random ones.
        folder, loop, track, on_evaluation: as of `train_model`.
    """
    torch.manual_seed(loop.seed)
    network = FieldDenoiser(replace(start.config, spread=1.0) if start else network_config)
    if start is not None:
        network.load_state_dict(start.state_dict())
    if start is None:
        scale = torch.from_numpy(latents.residual_variance()).sqrt().clamp_min(1e-4)
        network.get_buffer("residual_std").copy_(scale)
    deviation = network.get_buffer("residual_std").clone()
    batch_of = partial(denoiser_batch, latents, deviation, loop)
    loss_of = partial(denoiser_loss, alphas=field_scheduler().alphas_cumprod)
    train_model(network, batch_of, loss_of, loop, folder, track=track, on_evaluation=on_evaluation)
    return network


def denoiser_batch(latents: FieldLatents, residual_std: Float[Tensor, " k"], loop: LoopConfig, number: int) -> Batch:
    """The rows of a micro-batch: each once per epoch."""
    rows = in_turn(np.arange(len(latents)), loop.batch_size, loop.seed, number)
    return _scaled(latents.rows(rows), residual_std)


def denoiser_loss(network: nn.Module, batch: Batch, *, alphas: Float[Tensor, " t"]) -> Tensor:
    """Squared errors of v at levels of noise that cover all of them evenly, by the size of places.

    Args:
        network: a `FieldDenoiser`.
        batch: from `denoiser_batch`.
        alphas: cumulated, of `field_scheduler`: the share of signal in the variance at each timestep.
    """
    count, device = len(batch["residual"]), batch["residual"].device
    timestep = spread_levels(count, device)
    forgotten = torch.rand(count, device=device) < _FORGOTTEN
    noise = torch.randn_like(batch["residual"])
    return _v_errors(network, batch, timestep, noise, forgotten, alphas).mean()


@torch.no_grad()
def losses_by_noise(network: FieldDenoiser, latents: FieldLatents) -> dict[str, float]:
    """The loss by band of noise, on rows spread evenly, always with the same noise.

    Args:
        network: in evaluation mode.
        latents: rows to measure on.
    """
    alphas, found = field_scheduler().alphas_cumprod, {}
    indices = np.linspace(0, len(latents) - 1, min(_BAND_ROWS, len(latents))).round().astype(int)
    for name, (low, high) in NOISE_BANDS.items():
        generator, errors = torch.Generator().manual_seed(low), []
        for chosen in np.split(indices, range(_TOGETHER, len(indices), _TOGETHER)):
            batch = _scaled(latents.rows(chosen), network.get_buffer("residual_std"))
            timestep = torch.randint(low, high, (len(chosen),), generator=generator)
            noise = torch.randn(batch["residual"].shape, generator=generator)
            none = torch.zeros(len(chosen), dtype=torch.bool)
            errors.append(_v_errors(network, batch, timestep, noise, none, alphas))
        found[name] = float(torch.cat(errors).mean())
    return found


def under_noise(
    clean: Float[Tensor, "n k h w"], noise: Float[Tensor, "n k h w"], timestep: Tensor, alphas: Float[Tensor, " t"]
) -> tuple[Float[Tensor, "n k h w"], Float[Tensor, "n k h w"]]:
    """Clean values under noise, and v = alpha noise - sigma x.

    Source: Salimans and Ho, 2022, Section 4.

    Args:
        alphas: cumulated: the share of signal in the variance at each timestep.
    """
    signal = alphas.to(noise.device)[timestep][:, None, None, None]
    alpha, sigma = signal.sqrt(), (1 - signal).sqrt()
    return alpha * clean + sigma * noise, alpha * noise - sigma * clean


def spread_levels(count: int, device: torch.device) -> Tensor:
    """Timesteps that cover all levels of noise evenly."""
    levels = (torch.rand(1, device=device) + torch.arange(count, device=device) / count) % 1
    return (levels * TIMESTEPS).long().clamp_max(TIMESTEPS - 1)


def _scaled(rows: Mapping[str, Tensor], residual_std: Float[Tensor, " k"]) -> dict[str, Tensor]:
    return {
        "residual": rows["residual"] / residual_std[:, None, None],
        "told": rows["told"],
        "portrait": rows["portrait"],
    }


def _v_errors(
    network: nn.Module, batch: Batch, timestep: Tensor, noise: Tensor, forgotten: Tensor, alphas: Tensor
) -> Float[Tensor, "n k 14 16"]:
    noisy, v = under_noise(batch["residual"], noise, timestep, alphas)
    answer = network(noisy, timestep, batch["told"], batch["portrait"], forgotten).float()
    weights = F.avg_pool2d(torch.from_numpy(cell_weights())[None], 4).to(noise.device)
    return (answer - v).square() * (weights / weights.mean())

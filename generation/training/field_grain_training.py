"""Training of the fields' grain, `generation.prior.field.field_grain`, on true fields and what is decoded of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..networks import LoadedNetwork
from ..prior.field.field_autoencoder import FieldAutoencoder
from ..prior.field.field_grain import FieldGrain, FieldGrainConfig, GrainSizes
from ..prior.field.field_pipeline import field_scheduler
from ..progress import Track, silent
from .field_diffusion_training import spread_levels, under_noise
from .field_samples import FieldSamples
from .field_training import cell_weights
from .loop import Batch, LoopConfig, OnEvaluation, in_turn, train_model

FIELD_GRAIN_LOOP = LoopConfig(
    steps=1600, batch_size=32, learning_rate=1.5e-3, warmup_steps=60, weight_decay=0.01, save_every=250
)
"""Its schedule."""
SIZES_FOLDER = "sizes"
"""Folder within the run's, for checkpoints of the sizes, which are learned first."""
_SIZES_SHARE = 4
"""The sizes take one step for so many of the grain itself."""
_MOST_GRAIN = 6.0
"""Divided grain is clipped here: single cells of edges are further off."""
_MOST_NOISE = 0.4
"""Deviation, at most, of what is added to latents before they are decoded for the network to see: drawn latents are
less sure than true ones."""
_SCALE_HEADS = 256
"""Heads that the grain is scaled by."""
_LEAST_STD, _TOGETHER = 1e-4, 32


def train_field_grain(
    samples: FieldSamples,
    autoencoder: LoadedNetwork[FieldAutoencoder],
    folder: Path,
    loop: LoopConfig = FIELD_GRAIN_LOOP,
    network_config: FieldGrainConfig | None = None,
    *,
    start: FieldGrain | None = None,
    track: Track = silent,
    on_evaluation: OnEvaluation | None = None,
) -> FieldGrain:
    """The network with averaged weights, on the CPU: first how large grain is, then the grain by that size.

    Args:
        autoencoder: what it cannot hold is learned.
        start: weights to start from, in place of random ones.
        folder, loop, track, on_evaluation: as of `train_model`; `on_evaluation` is not called for the sizes.
    """
    torch.manual_seed(loop.seed)
    network = FieldGrain(start.config if start else network_config)
    if start is not None:
        network.load_state_dict(start.state_dict())
    else:
        network.get_buffer("grain_std").copy_(_deviation(samples, autoencoder.network))
    grain_std = network.get_buffer("grain_std").clone()
    batch_of = partial(grain_batch, samples, autoencoder.network, grain_std, loop)
    first = replace(loop, steps=-(-loop.steps // _SIZES_SHARE), minutes=None)
    train_model(network.sizes, batch_of, sizes_loss, first, folder / SIZES_FOLDER, track=track)
    sizes = copy.deepcopy(network.sizes.requires_grad_(False))

    def divided(number: int) -> Batch:
        return by_size(batch_of(number), sizes)

    loss_of = partial(grain_loss, alphas=field_scheduler().alphas_cumprod)
    train_model(network, divided, loss_of, loop, folder, track=track, on_evaluation=on_evaluation)
    return network.requires_grad_(True)


def sizes_loss(sizes: nn.Module, batch: Batch) -> Tensor:
    """Negative log likelihood of the grain as a normal deviate of these sizes, by the size of cells.

    Args:
        sizes: a `GrainSizes`.
        batch: from `grain_batch`.
    """
    log_size = sizes(batch["smooth"]).float()
    losses = log_size + 0.5 * batch["grain"].square() * (-2 * log_size).exp()
    weights = torch.from_numpy(cell_weights()).to(losses.device)
    return (losses * (weights / weights.mean())).mean()


@torch.no_grad()
def by_size(batch: Batch, sizes: GrainSizes) -> Batch:
    """The batch with its grain divided by the sizes, single cells clipped."""
    grain = batch["grain"] * (-sizes(batch["smooth"])).exp()
    return {**batch, "grain": grain.clamp(-_MOST_GRAIN, _MOST_GRAIN)}


@torch.no_grad()
def grain_batch(
    samples: FieldSamples,
    autoencoder: FieldAutoencoder,
    grain_std: Float[Tensor, " 20"],
    loop: LoopConfig,
    number: int,
) -> Batch:
    """The fields of a micro-batch, each once per epoch, half of them mirrored, and how they look decoded."""
    rng = np.random.default_rng([loop.seed, number, 4])
    chosen = in_turn(np.arange(len(samples)), loop.batch_size, loop.seed, number)
    return _decoded(samples, chosen, autoencoder, grain_std, rng)


def _decoded(
    samples: FieldSamples,
    chosen: Int[np.ndarray, " m"],
    autoencoder: FieldAutoencoder,
    grain_std: Float[Tensor, " 20"],
    rng: np.random.Generator,
) -> Batch:
    fields = [samples.truth(int(k)) for k in chosen]
    fields = [field.mirrored() if rng.random() < 0.5 else field for field in fields]
    true = torch.from_numpy(np.stack([field.pack() for field in fields]))
    latents = autoencoder.encode(true)
    noise = rng.standard_normal(latents.shape) * rng.uniform(0, _MOST_NOISE, (len(fields), 1, 1, 1))
    return {
        "grain": (true - autoencoder.decode(latents)) / grain_std[:, None, None],
        "smooth": autoencoder.decode(latents + torch.from_numpy(noise.astype(np.float32))),
    }


def grain_loss(network: nn.Module, batch: Batch, *, alphas: Float[Tensor, " t"]) -> Tensor:
    """Squared errors of v at levels of noise that cover all of them evenly, by the size of cells.

    Args:
        network: a `FieldGrain`.
        batch: from `grain_batch`, `by_size`.
        alphas: cumulated, of `field_scheduler`: the share of signal in the variance at each timestep.
    """
    grain = batch["grain"]
    return _v_error(network, batch, torch.randn_like(grain), spread_levels(len(grain), grain.device), alphas)


@torch.no_grad()
def grain_error(network: FieldGrain, samples: FieldSamples, autoencoder: LoadedNetwork[FieldAutoencoder]) -> float:
    """The loss on samples, always with the same noise."""
    alphas, rng, errors = field_scheduler().alphas_cumprod, np.random.default_rng(0), []
    for first in range(0, len(samples), _TOGETHER):
        chosen = np.arange(first, min(first + _TOGETHER, len(samples)))
        batch = _decoded(samples, chosen, autoencoder.network, network.get_buffer("grain_std"), rng)
        batch = by_size(batch, network.sizes)
        noise = torch.from_numpy(rng.standard_normal(batch["grain"].shape).astype(np.float32))
        timestep = torch.from_numpy(rng.integers(0, len(alphas), len(chosen)))
        errors.append(len(chosen) * float(_v_error(network, batch, noise, timestep, alphas)))
    return sum(errors) / len(samples)


def _v_error(
    network: nn.Module, batch: Batch, noise: Tensor, timestep: Tensor, alphas: Float[Tensor, " t"]
) -> Float[Tensor, ""]:
    noisy, v = under_noise(batch["grain"], noise, timestep, alphas)
    weights = torch.from_numpy(cell_weights()).to(noise.device)
    return ((network(noisy, timestep, batch["smooth"]).float() - v).square() * (weights / weights.mean())).mean()


@torch.no_grad()
def _deviation(samples: FieldSamples, autoencoder: FieldAutoencoder) -> Float[Tensor, " 20"]:
    """Root mean square of each channel's grain, on heads spread evenly."""
    squares = []
    for k in np.linspace(0, len(samples) - 1, min(len(samples), _SCALE_HEADS)).round().astype(int):
        true = torch.from_numpy(samples.truth(int(k)).pack())[None]
        squares.append((true - autoencoder.decode(autoencoder.encode(true))).square().mean((0, 2, 3)))
    return torch.stack(squares).mean(0).sqrt().clamp_min(_LEAST_STD)

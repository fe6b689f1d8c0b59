"""Training of the networks of head fields; the first stage is the mean, `generation.prior.field.mean_network`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

from ..prior.field.chart import ROWS, cell_shares
from ..prior.field.head_field import CHANNELS, TOKENS, HeadField
from ..prior.field.mean_network import FieldMeanConfig, FieldMeanNet
from ..prior.field.observed_field import ObservedField
from ..progress import Track, silent
from .field_samples import FieldSamples
from .loop import Batch, LoopConfig, OnEvaluation, in_turn, stacked, train_model

FIELD_MEAN_LOOP = LoopConfig(
    steps=8000, batch_size=16, learning_rate=1.2e-3, warmup_steps=60, weight_decay=0.01, save_every=200
)
"""Schedule of the mean."""
SHOULDER_ROW = 48
"""Rows from here on lie on the shoulders and the chest."""
_LEAST_SHARE = 0.1
_BELOW_WEIGHT = 0.4
_SEEN_WEIGHT = 0.5
"""What cells below the shoulders, and cells that are plainly seen, count beside others."""
_FLOW_GAIN = 3.0
"""What directions count beside other channels: most of them run down, the rest are small numbers."""
_TOKEN_WEIGHT = 0.05
_DRAWN_SHARE = 0.4
_NO_TOKENS, _LOST_TOKENS = 0.25, 0.15
"""How often the portrait says nothing about tokens, and nothing about one of them: real ones often do not."""
_LENGTHS = slice(CHANNELS.index("thickness"), CHANNELS.index("strand_length") + 1)
_HUBER = 0.25
"""Errors of scaled lengths below this count squared, larger ones as they are: a few long hairs do not rule."""


def train_field_mean(
    samples: FieldSamples,
    folder: Path,
    loop: LoopConfig = FIELD_MEAN_LOOP,
    network_config: FieldMeanConfig | None = None,
    *,
    start: FieldMeanNet | None = None,
    track: Track = silent,
    on_evaluation: OnEvaluation | None = None,
) -> FieldMeanNet:
    """The network with averaged weights, on the CPU.

    Args:
        start: weights to start from, in place of random ones.
        folder, loop, track, on_evaluation: as of `train_model`.
    """
    torch.manual_seed(loop.seed)
    network = FieldMeanNet(start.config if start else network_config)
    if start is not None:
        network.load_state_dict(start.state_dict())
    batch_of = partial(mean_batch, samples, loop)
    train_model(network, batch_of, mean_loss, loop, folder, track=track, on_evaluation=on_evaluation)
    return network


def mean_batch(samples: FieldSamples, loop: LoopConfig, number: int) -> Batch:
    """The portraits of a micro-batch: every portrait once per epoch, half of them mirrored, some without tokens.

    Where there are drawn portraits beside simulated ones they are two fifths of every batch, however few there are:
    their errors are the true ones.
    """
    drawn = samples.drawn
    simulated = np.setdiff1d(np.arange(len(samples)), drawn)
    count = round(_DRAWN_SHARE * loop.batch_size) if len(drawn) and len(simulated) else 0
    usual = in_turn(simulated if count else np.arange(len(samples)), loop.batch_size - count, loop.seed, number)
    rng = np.random.default_rng([loop.seed, number, 1])
    rows = []
    for index in [*usual, *in_turn(drawn, count, loop.seed, number)]:
        field, observed = samples.of(int(index))
        observed = with_tokens_lost(observed, rng)
        turned = rng.random() < 0.5
        rows.append(mean_sample(field.mirrored(), observed.mirrored()) if turned else mean_sample(field, observed))
    return stacked(rows)


def with_tokens_lost(observed: ObservedField, rng: np.random.Generator) -> ObservedField:
    """The portrait saying nothing about some tokens, as real ones often do."""
    lost = (rng.random() < _NO_TOKENS) | (rng.random(len(TOKENS)) < _LOST_TOKENS)
    return replace(observed, tokens=np.where(lost, np.float32(np.nan), observed.tokens))


def mean_sample(field: HeadField, observed: ObservedField) -> dict[str, Tensor]:
    """One portrait as the network sees it, and what it should answer, with weights."""
    known = field.known_tokens
    arrays = {
        "observed": observed.pack(),
        "portrait": observed.pack_globals(),
        "target": field.pack(),
        "weight": channel_weights(field) * (1 - (1 - _SEEN_WEIGHT) * observed.visibility),
        "tokens": np.where(known, 2 * field.tokens - 1, 0).astype(np.float32),
        "known_tokens": known.astype(np.float32),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in arrays.items()}


def channel_weights(field: HeadField) -> Float32[np.ndarray, "20 56 64"]:
    """What each channel of each cell counts in a loss."""
    gains = np.where([name.startswith("flow_") for name in CHANNELS], _FLOW_GAIN, 1.0)[:, None, None]
    return (field.weights() * gains * cell_weights()).astype(np.float32)


def cell_weights() -> Float32[np.ndarray, "56 64"]:
    """What each cell counts in the loss: its size, less below the shoulders."""
    below = np.where(np.arange(ROWS) < SHOULDER_ROW, 1.0, _BELOW_WEIGHT)[:, None]
    return (np.maximum(cell_shares(), _LEAST_SHARE) * below).astype(np.float32)


def mean_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Weighted squares of errors, Huber's for lengths, and squares of the known tokens' errors."""
    answer, tokens = (x.float() for x in network(batch["observed"], batch["portrait"]))
    errors = channel_errors(answer, batch["target"])
    known = batch["known_tokens"]
    of_tokens = (known * (tokens - batch["tokens"]).square()).sum() / known.sum().clamp_min(1)
    weight = batch["weight"]
    return (weight * errors).sum() / weight.sum() + _TOKEN_WEIGHT * of_tokens


def channel_errors(
    answer: Float[Tensor, "n 20 56 64"], target: Float[Tensor, "n 20 56 64"]
) -> Float[Tensor, "n 20 56 64"]:
    """Squares of errors; of lengths the square up to a bound, from there on straight."""
    errors = (answer - target).square()
    lengths = F.huber_loss(answer[:, _LENGTHS], target[:, _LENGTHS], reduction="none", delta=_HUBER)
    return torch.cat([errors[:, : _LENGTHS.start], 2 * lengths, errors[:, _LENGTHS.stop :]], dim=1)

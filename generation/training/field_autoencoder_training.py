"""Training of the autoencoder of head fields, `generation.prior.field.field_autoencoder`, on true fields."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..prior.field.field_autoencoder import FieldAutoencoder, FieldAutoencoderConfig, reconstructed
from ..prior.field.head_field import CHANNELS, HeadField
from ..prior.field.observed_field import ObservedField
from ..progress import Track, silent
from .field_figures import FieldFigures
from .field_samples import FieldSamples
from .field_training import channel_errors, channel_weights
from .loop import Batch, LoopConfig, OnEvaluation, in_turn, stacked, train_model

FIELD_AUTOENCODER_LOOP = LoopConfig(
    steps=2500, batch_size=16, learning_rate=1.5e-3, warmup_steps=60, weight_decay=0.01, save_every=250
)
"""Its schedule."""
_OWN_SKULL = 0.25
"""How often thickness is measured from the head's own skull and not from the one that a portrait was fitted with."""
_THICKNESS_GAIN = 4.0
"""What thickness counts beside other channels: it is one of twenty, and it is the shape."""
_GAINS = np.array([_THICKNESS_GAIN if name == "thickness" else 1 for name in CHANNELS], np.float32)[:, None, None]
_STEPS_OF = [CHANNELS.index(name) for name in ("thickness", "flow_down", "flow_around", "flow_outward")]
_STEP_WEIGHT = 0.5
"""What differences between neighbouring cells count: without them fields come back too smooth."""
_SCALE_HEADS = 1024
"""Heads that latents are scaled by."""
_ENCODED_TOGETHER = 32


def train_field_autoencoder(
    samples: FieldSamples,
    folder: Path,
    loop: LoopConfig = FIELD_AUTOENCODER_LOOP,
    network_config: FieldAutoencoderConfig | None = None,
    *,
    start: FieldAutoencoder | None = None,
    track: Track = silent,
    on_evaluation: OnEvaluation | None = None,
) -> FieldAutoencoder:
    """The network with averaged weights and scaled latents, on the CPU.

    Args:
        start: weights to start from, in place of random ones.
        folder, loop, track, on_evaluation: as of `train_model`.
    """
    torch.manual_seed(loop.seed)
    network = FieldAutoencoder(start.config if start else network_config)
    if start is not None:
        network.load_state_dict(start.state_dict())
    batch_of = partial(autoencoder_batch, samples, loop)
    train_model(network, batch_of, autoencoder_loss, loop, folder, track=track, on_evaluation=on_evaluation)
    scale_latents(network, samples)
    return network


def autoencoder_batch(samples: FieldSamples, loop: LoopConfig, number: int) -> Batch:
    """The fields of a micro-batch: over every portrait's skull once per epoch, some over their own, half mirrored."""
    rng = np.random.default_rng([loop.seed, number, 2])
    rows = []
    for index in in_turn(np.arange(len(samples)), loop.batch_size, loop.seed, number):
        field = samples.truth(int(index), own_skull=rng.random() < _OWN_SKULL)
        field = field.mirrored() if rng.random() < 0.5 else field
        arrays = {"target": field.pack(), "weight": channel_weights(field) * _GAINS}
        rows.append({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})
    return stacked(rows)


def autoencoder_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Weighted errors of all channels, and of the steps of thickness and flow from cell to cell."""
    answer, target, weight = network(batch["target"]).float(), batch["target"], batch["weight"]
    own = (weight * channel_errors(answer, target)).sum() / weight.sum()
    off, trust = (answer - target)[:, _STEPS_OF], weight[:, _STEPS_OF]
    down = (off[:, :, 1:] - off[:, :, :-1]).abs(), torch.minimum(trust[:, :, 1:], trust[:, :, :-1])
    around = (off - off.roll(1, dims=-1)).abs(), torch.minimum(trust, trust.roll(1, dims=-1))
    steps = sum((w * e).sum() / w.sum().clamp_min(1e-6) for e, w in (down, around))
    return own + _STEP_WEIGHT * steps


@torch.no_grad()
def scale_latents(network: FieldAutoencoder, samples: FieldSamples, heads: int = _SCALE_HEADS) -> None:
    """Measure mean and deviation of the latents on at most so many portraits' heads, spread evenly."""
    places = np.linspace(0, len(samples) - 1, min(len(samples), heads)).round().astype(int)
    packed = [torch.from_numpy(samples.truth(int(k)).pack()) for k in places]
    parts = [
        network.raw_latents(torch.stack(packed[k : k + _ENCODED_TOGETHER]))
        for k in range(0, len(packed), _ENCODED_TOGETHER)
    ]
    network.set_scale(torch.cat(parts))


def reconstruction_figures(
    network: FieldAutoencoder, portraits: Iterable[tuple[HeadField, ObservedField]]
) -> FieldFigures:
    """Figures of true fields there and back, on the cells that portraits do not show."""
    return FieldFigures.mean(
        FieldFigures.of(reconstructed(truth, network), truth, observed) for truth, observed in portraits
    )

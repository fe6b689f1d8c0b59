"""Training of the texture's completion on charts of composed heads.

Colours are changed the same way in what is shown and in what is true: contrast, tint, noise; heads are mirrored, and
parts of what the portrait shows are hidden, so that a few hundred heads go a long way. Only what the portrait does not
show counts fully.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks import LoadedNetwork
from ..prior.texture.completion_network import (
    COLUMNS,
    ROWS,
    UPPER_ROWS,
    CompletionConfig,
    CompletionNet,
    complete,
    features_of,
    from_log_ratio,
    mirrored_chart,
    mirrored_columns,
    typical_in_chart,
)
from ..progress import Track, silent
from ..synthetic.assets import field_rng
from .completion_samples import CompletionSamples
from .head_samples import in_new_order
from .loop import Batch, LoopConfig, OnEvaluation, TrainingPart, micro_batches_of, train_parts

_OWN, _OWN_KNOWN = slice(1, 4), 4
_MIRROR, _MIRROR_KNOWN = slice(5, 8), 8


@dataclass(frozen=True)
class CompletionLook:
    """How samples are varied."""

    most_gamma: float = 0.35
    """Largest logarithm of the exponent that is put on all colours."""
    most_gain: float = 0.35
    """Largest logarithm of the factor on all colours."""
    most_tint: float = 0.15
    """The same for each channel."""
    noise: float = 0.02
    """Standard deviation of errors in what the portrait shows."""
    typical_noise: float = 0.05
    """Standard deviation of the logarithm of errors in the typical colours."""
    hidden: float = 0.5
    """Share of samples of which a part is hidden."""


@dataclass(frozen=True)
class CompletionTrainConfig:
    """How the completion is trained."""

    network: CompletionConfig = field(default_factory=CompletionConfig)
    """The network."""
    look: CompletionLook = field(default_factory=CompletionLook)
    """How samples are varied."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1200, batch_size=8, learning_rate=1.5e-3, warmup_steps=40, ema_decay=0.99, save_every=75
        )
    )
    """Schedule."""
    seen_weight: float = 0.15
    """Weight of what the portrait shows anyway, against what it does not."""
    smoothness: float = 0.02
    """Weight of the differences between neighbouring cells, which decide where nothing is known."""
    robust_scale: float = 0.04
    """Colour difference up to which errors count by their square."""


def train_completion(
    samples: CompletionSamples, folder: Path, config: CompletionTrainConfig, *, minutes: float | None = None,
    device: str = "cpu", track: Track = silent, on_evaluation: OnEvaluation | None = None,
) -> CompletionNet:  # fmt: skip
    """The network with averaged weights, on the CPU; arguments as of `train_parts`."""
    torch.manual_seed(config.loop.seed)
    network = CompletionNet(config.network)
    chart, truth, weight = (torch.from_numpy(a).float() for a in (samples.chart, samples.truth, samples.weight))
    typical, seed = torch.from_numpy(samples.typical), config.loop.seed

    def sample(k: int) -> dict[str, Tensor]:
        i = in_new_order(k, len(samples), seed)
        return varied(chart[i], typical[i], truth[i], weight[i], field_rng(seed, f"look/{k}"), config.look)

    batch_of = micro_batches_of(sample, config.loop.batch_size)
    part = TrainingPart("completion", network, batch_of, lambda m, b: completion_loss(m, b, config), config.loop)
    train_parts([part], folder, minutes=minutes, device=device, track=track, on_evaluation=on_evaluation)
    return network


def varied(
    chart: Float[Tensor, "2 c rows columns"],
    typical: Float[Tensor, "3 3"],
    truth: Float[Tensor, "2 3 rows columns"],
    weight: Float[Tensor, "2 rows columns"],
    rng: np.random.Generator,
    look: CompletionLook,
) -> dict[str, Tensor]:
    """One sample in other colours, mirrored or not, with parts hidden."""
    chart = chart.clone()
    gamma = float(np.exp(rng.uniform(-1, 1) * look.most_gamma))
    gain = np.exp(rng.uniform(-1, 1) * look.most_gain + rng.uniform(-1, 1, 3) * look.most_tint)

    def recoloured(rgb: Tensor, axis: int) -> Tensor:
        shape = [1] * rgb.dim()
        shape[axis] = 3
        factor = torch.tensor(gain, dtype=rgb.dtype).reshape(shape)
        return (rgb.clamp(0, 1) ** gamma * factor).clamp(max=1)

    def noise(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    for colours in (_OWN, _MIRROR):
        level = look.noise * float(rng.random())
        chart[:, colours] = recoloured(chart[:, colours], 1) + level * noise(2, 3, ROWS, COLUMNS)
    typical = recoloured(typical, 1) * torch.exp(look.typical_noise * noise(3, 3))
    truth = recoloured(truth, 1)
    if rng.random() < look.hidden:
        hidden = _hidden_part(rng)
        chart[:, _OWN_KNOWN] *= 1 - hidden
        chart[:, _MIRROR_KNOWN] *= 1 - mirrored_columns(hidden)
    if rng.random() < 0.5:
        chart, truth, weight = mirrored_chart(chart[None])[0], mirrored_columns(truth), mirrored_columns(weight)
    return {"chart": chart, "typical": typical, "truth": truth, "weight": weight}


def _hidden_part(rng: np.random.Generator) -> Float[Tensor, "rows columns"]:
    """1 where the portrait shall show nothing: everything beyond an azimuth, or a few blobs."""
    azimuth = np.arange(COLUMNS) * (2 * np.pi / COLUMNS)
    if rng.random() < 0.5:
        towards, reach = rng.uniform(-0.8, 0.8), rng.uniform(0.5, 1.4)
        hidden = np.cos(azimuth - towards) < np.cos(reach)
        return torch.from_numpy(np.broadcast_to(hidden[None], (ROWS, COLUMNS)).astype(np.float32).copy())
    row, column = np.arange(ROWS)[:, None], np.arange(COLUMNS)[None]
    mask = np.zeros((ROWS, COLUMNS), bool)
    for _ in range(int(rng.integers(1, 4))):
        r, c, size = rng.uniform(0, ROWS), rng.uniform(-14, 14), rng.uniform(3, 12)
        across = (column - c + COLUMNS / 2) % COLUMNS - COLUMNS / 2
        mask |= (row - r) ** 2 + across**2 < size**2
    return torch.from_numpy(mask.astype(np.float32))


def completion_loss(model: nn.Module, batch: Batch, config: CompletionTrainConfig) -> Tensor:
    """Robust colour error where the truth is known, more where the portrait shows nothing; smoothness elsewhere."""
    chart, typical = batch["chart"], batch["typical"]
    ratio = model(features_of(chart, typical))
    colour = from_log_ratio(ratio, typical_in_chart(typical))
    known = torch.maximum(chart[:, :, _OWN_KNOWN], 0.5 * chart[:, :, _MIRROR_KNOWN]).clamp(0, 1)
    weight = batch["weight"] * (1 - (1 - config.seen_weight) * known)
    error = F.smooth_l1_loss(colour, batch["truth"], beta=config.robust_scale, reduction="none").mean(2)
    rough = (ratio - ratio.roll(1, -1)).abs().mean() + (ratio[..., 1:, :] - ratio[..., :-1, :]).abs().mean()
    return (error * weight).sum() / weight.sum().clamp_min(1) + config.smoothness * rough


@dataclass(frozen=True)
class CompletionFigures:
    """Mean absolute colour errors of what the portrait does not show."""

    learned: dict[str, float]
    """By layer and part: `hair_side`, `hair_back`, `skin_back`, `cloth_back`..."""
    typical: dict[str, float]
    """The same of the plain typical colour."""
    count: int
    """Portraits."""

    def __str__(self) -> str:
        by_part = ", ".join(f"{name} {value:.3f} ({self.typical[name]:.3f})" for name, value in self.learned.items())
        return (
            f"Mean colour error on {self.count} validation portraits where they show nothing, in brackets that of one "
            f"plain colour: {by_part}"
        )


def evaluate_completion(loaded: LoadedNetwork[CompletionNet], samples: CompletionSamples) -> CompletionFigures:
    """Errors in cells that the portrait does not show.

    Args:
        loaded: the network.
        samples: portraits with truth, of a split that was not learned from.
    """
    azimuth = np.abs((np.arange(COLUMNS) * 360 / COLUMNS + 180) % 360 - 180)
    parts = {"side": (azimuth > 45) & (azimuth < 120), "back": azimuth >= 120}
    upper = np.arange(ROWS) < UPPER_ROWS
    layers = {"hair": (0, upper), "skin": (1, upper), "cloth": (0, ~upper)}
    errors: dict[str, list[float]] = {}
    plain: dict[str, list[float]] = {}
    for i in range(len(samples)):
        chart, truth = samples.chart[i].astype(np.float32), samples.truth[i].astype(np.float32)
        found = complete(chart, samples.typical[i], loaded).transpose(0, 3, 1, 2)
        middle = typical_in_chart(torch.from_numpy(samples.typical[i])[None])[0].numpy()
        weight = samples.weight[i].astype(np.float32) * (chart[:, _OWN_KNOWN] < 0.1)
        for name, (layer, rows) in layers.items():
            for part, columns in parts.items():
                mask = weight[layer] * rows[:, None] * columns[None]
                if mask.sum() < 10:
                    continue
                for table, colour in (
                    (errors, found[layer]),
                    (plain, np.broadcast_to(middle[layer], truth[layer].shape)),
                ):
                    error = np.abs(colour - truth[layer]).mean(0)
                    table.setdefault(f"{name}_{part}", []).append(float((error * mask).sum() / mask.sum()))
    return CompletionFigures(
        {name: float(np.mean(values)) for name, values in errors.items()},
        {name: float(np.mean(values)) for name, values in plain.items()},
        len(samples),
    )

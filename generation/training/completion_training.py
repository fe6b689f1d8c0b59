"""Training of the texture's completion on charts of composed heads.

Colours are changed the same way in what is shown and in what is true: contrast, tint, noise; heads are mirrored, and
parts of what the portrait shows are hidden, so that a few hundred heads go a long way. Only what the portrait does not
show counts fully.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
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
from .loop import Batch, LoopConfig, OnEvaluation, micro_batches_of, train_model

_OWN, _OWN_KNOWN = slice(1, 4), 4
_MIRROR, _MIRROR_KNOWN = slice(5, 8), 8
COMPLETION_LOOP = LoopConfig(
    steps=1200, batch_size=8, learning_rate=1.5e-3, warmup_steps=40, ema_decay=0.99, save_every=75
)
"""Schedule."""
_MOST_GAMMA = 0.35  # largest logarithm of the exponent that is put on all colours
_MOST_GAIN = 0.35  # largest logarithm of the factor on all colours
_MOST_TINT = 0.15  # the same for each channel
_SEEN_WEIGHT = 0.15  # weight of what the portrait shows anyway, against what it does not
_SMOOTHNESS = 0.02  # weight of the differences between neighbouring cells, which decide where nothing is known
_NOISE = 0.02  # standard deviation of errors in what the portrait shows
_TYPICAL_NOISE = 0.05  # standard deviation of the logarithm of errors in the typical colours
_HIDDEN = 0.5  # share of samples of which a part is hidden
_ROBUST_SCALE = 0.04  # colour difference up to which errors count by their square


def train_completion(
    samples: CompletionSamples,
    folder: Path,
    loop: LoopConfig = COMPLETION_LOOP,
    network_config: CompletionConfig | None = None,
    *,
    track: Track = silent,
    on_evaluation: OnEvaluation | None = None,
) -> CompletionNet:
    """The network with averaged weights, on the CPU; arguments as of `train_model`."""
    torch.manual_seed(loop.seed)
    network = CompletionNet(network_config or CompletionConfig())
    chart, truth, weight = (torch.from_numpy(a).float() for a in (samples.chart, samples.truth, samples.weight))
    typical, seed = torch.from_numpy(samples.typical), loop.seed

    def sample(k: int) -> dict[str, Tensor]:
        i = in_new_order(k, len(samples), seed)
        return varied(chart[i], typical[i], truth[i], weight[i], field_rng(seed, f"look/{k}"))

    batch_of, folder = micro_batches_of(sample, loop.batch_size), folder / "completion"
    train_model(network, batch_of, completion_loss, loop, folder, track=track, on_evaluation=on_evaluation)
    return network


def varied(
    chart: Float[Tensor, "2 c rows columns"],
    typical: Float[Tensor, "3 3"],
    truth: Float[Tensor, "2 3 rows columns"],
    weight: Float[Tensor, "2 rows columns"],
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """One sample in other colours, mirrored or not, with parts hidden."""
    chart = chart.clone()
    gamma = float(np.exp(rng.uniform(-1, 1) * _MOST_GAMMA))
    gain = np.exp(rng.uniform(-1, 1) * _MOST_GAIN + rng.uniform(-1, 1, 3) * _MOST_TINT)

    def recoloured(rgb: Tensor, axis: int) -> Tensor:
        shape = [1] * rgb.dim()
        shape[axis] = 3
        factor = torch.tensor(gain, dtype=rgb.dtype).reshape(shape)
        return (rgb.clamp(0, 1) ** gamma * factor).clamp(max=1)

    def noise(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    for colours in (_OWN, _MIRROR):
        level = _NOISE * float(rng.random())
        chart[:, colours] = recoloured(chart[:, colours], 1) + level * noise(2, 3, ROWS, COLUMNS)
    typical = recoloured(typical, 1) * torch.exp(_TYPICAL_NOISE * noise(3, 3))
    truth = recoloured(truth, 1)
    if rng.random() < _HIDDEN:
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


def completion_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Robust colour error where the truth is known, more where the portrait shows nothing; smoothness elsewhere."""
    chart, typical = batch["chart"], batch["typical"]
    ratio = model(features_of(chart, typical))
    colour = from_log_ratio(ratio, typical_in_chart(typical))
    known = torch.maximum(chart[:, :, _OWN_KNOWN], 0.5 * chart[:, :, _MIRROR_KNOWN]).clamp(0, 1)
    weight = batch["weight"] * (1 - (1 - _SEEN_WEIGHT) * known)
    error = F.smooth_l1_loss(colour, batch["truth"], beta=_ROBUST_SCALE, reduction="none").mean(2)
    rough = (ratio - ratio.roll(1, -1)).abs().mean() + (ratio[..., 1:, :] - ratio[..., :-1, :]).abs().mean()
    return (error * weight).sum() / weight.sum().clamp_min(1) + _SMOOTHNESS * rough


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
        samples: portraits with truth, of a split that was not learned from.
    """
    azimuth = np.abs((np.arange(COLUMNS) * 360 / COLUMNS + 180) % 360 - 180)
    parts = {"side": (azimuth > 45) & (azimuth < 120), "back": azimuth >= 120}
    upper = np.arange(ROWS) < UPPER_ROWS
    layers = {"hair": (0, upper), "skin": (1, upper), "cloth": (0, ~upper)}
    errors, plain = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
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
                for table, colour in ((errors, found[layer]), (plain, middle[layer])):
                    error = np.abs(colour - truth[layer]).mean(0)
                    table[f"{name}_{part}"].append(float((error * mask).sum() / mask.sum()))
    learned, typical = ({name: float(np.mean(v)) for name, v in table.items()} for table in (errors, plain))
    return CompletionFigures(learned, typical, len(samples))

"""Training of the segmenter on composed heads: small pictures first, then larger ones, each time with fresh looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks import LoadedNetwork
from ..prior.labels import segmenter as learned
from ..prior.labels.segmenter import CLASS_NAMES, Segmenter, SegmenterConfig
from ..progress import Track, silent
from ..synthetic.parts import Label
from ..synthetic.portraits.backgrounds import Backgrounds
from ..synthetic.portraits.portrait_shots import PortraitLook, PortraitSample, finish_shot
from .head_samples import in_new_order
from .loop import Batch, LoopConfig, OnEvaluation, micro_batches_of, train_model, with_time_left
from .shots import Shots

IGNORED = 255
"""Class of pixels that teach nothing: those outside the source picture."""
_CLASS_OF_LABEL = {
    Label.BACKGROUND: learned.BACKGROUND,
    Label.FACE: learned.FACE,
    Label.NECK: learned.NECK,
    Label.HAIR: learned.HAIR,
    Label.BEARD: learned.BEARD,
    Label.CLOTH: learned.CLOTH,
    Label.HEADGEAR: learned.HEADGEAR,
    Label.ACCESSORY: learned.ACCESSORY,
    Label.EAR: learned.EAR,
    Label.BROW: learned.BROW,
    Label.GLASSES: learned.GLASSES,
}
_CLASS_WEIGHTS = (0.8, 1.0, 1.0, 1.8, 1.3, 1.8, 1.8, 1.8, 2.2, 2.2, 1.1)
"""Weights of `CLASS_NAMES` in the cross-entropy: rare classes count more, not in full proportion."""
_DICE_WEIGHT = 0.6
"""Weight of the soft Dice loss beside the cross-entropy."""


SEGMENTER_STAGES = (
    (128, LoopConfig(steps=6000, batch_size=16, learning_rate=2.5e-3, save_every=200)),
    (192, LoopConfig(steps=6000, batch_size=8, learning_rate=1.5e-3, save_every=100)),
    (256, LoopConfig(steps=4000, batch_size=8, learning_rate=8e-4, save_every=50)),
)
"""Side of the pictures, a multiple of 32, and schedule of each part, from small to large."""
_TEMPERATURES = np.geomspace(0.5, 3.0, 26)


def classes_of(labels: UInt8[np.ndarray, "*s"]) -> UInt8[np.ndarray, "*s"]:
    """The segmenter's classes of `parts.Label`."""
    return np.array([_CLASS_OF_LABEL[label] for label in Label], np.uint8)[labels]


def train_segmenter(
    shots: Shots, backgrounds: Backgrounds, folder: Path,
    stages: Sequence[tuple[int, LoopConfig]] = SEGMENTER_STAGES, *, start: Segmenter | None = None,
    network_config: SegmenterConfig | None = None, look: PortraitLook | None = None, track: Track = silent,
    on_evaluation: OnEvaluation | None = None,
) -> Segmenter:  # fmt: skip
    """The network with averaged weights, on the CPU, trained through all stages.

    Args:
        shots: of heads of the split `train`.
        backgrounds: of the same split.
        start: weights to start from, in place of random ones; its configuration counts.
        on_evaluation: as of `train_model`.
    """
    torch.manual_seed(stages[0][1].seed)
    network = Segmenter(start.config if start else network_config).to(memory_format=torch.channels_last)
    if start is not None:
        network.load_state_dict(start.state_dict())
    started_s = time.monotonic()
    for number, (size_px, loop) in enumerate(stages):
        left = with_time_left(loop, started_s)
        if number and left.minutes == 0:
            break
        seed = loop.seed + 1000 * number
        batch_of = segmenter_batches(shots, backgrounds, size_px, loop.batch_size, look or PortraitLook(), seed=seed)
        place = folder / f"stage_{number}_{size_px}px"
        train_model(network, batch_of, segmentation_loss, left, place, track=track, on_evaluation=on_evaluation)
    return network


def segmenter_batches(
    shots: Shots, backgrounds: Backgrounds, size_px: int, batch_size: int, look: PortraitLook, *, seed: int
) -> Callable[[int], Batch]:
    """A function: the batch of a step. Shots come in a new order in every pass."""

    def sample(position: int) -> dict[str, Tensor]:
        shot, camera = shots[in_new_order(position, len(shots), seed, 1)]
        rng = np.random.default_rng((seed, 2, position))
        made = finish_shot(shot, camera, backgrounds, rng, size_px, look)
        return {"rgb": torch.from_numpy(made.rgb.copy()), "classes": torch.from_numpy(_classes(made).astype(np.int64))}

    return micro_batches_of(sample, batch_size)


def _classes(sample: PortraitSample) -> UInt8[np.ndarray, "s s"]:
    """What the segmenter should say of a portrait."""
    return np.where(sample.inside, classes_of(sample.labels), np.uint8(IGNORED))


def segmentation_loss(network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Weighted cross-entropy plus soft Dice over the batch.

    Source: Milletari, Navab, Ahmadi, "V-Net", 2016, Sec. 3 (Dice with squared denominators).
    """
    logits, classes = network(batch["rgb"]), batch["classes"]
    weights = torch.tensor(_CLASS_WEIGHTS, device=logits.device)
    entropy = F.cross_entropy(logits, classes, weights, ignore_index=IGNORED)
    known = (classes != IGNORED)[:, None]
    probability = logits.softmax(1) * known
    truth = F.one_hot(classes.clamp(max=len(CLASS_NAMES) - 1), len(CLASS_NAMES)).permute(0, 3, 1, 2) * known
    shared = (probability * truth).sum((0, 2, 3))
    sizes = (probability**2).sum((0, 2, 3)) + truth.sum((0, 2, 3))
    dice = (2 * shared + 50) / (sizes + 50)
    return entropy + _DICE_WEIGHT * (1 - dice).mean()


@torch.no_grad()
def calibrate_segmenter(network: Segmenter, shots: Shots, backgrounds: Backgrounds, *, track: Track = silent) -> None:
    """Set the temperature at which the network is as sure as it is right, on portraits in all looks.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Section 4.2.

    Args:
        network: on the CPU, in evaluation mode; its temperature is set.
        shots: of heads that it has not learned from.
        backgrounds: of the same split.
    """
    size_px, sums = network.config.size_px, np.zeros(len(_TEMPERATURES))
    for index in track(range(len(shots)), total=len(shots), description="Calibrating"):
        rng = np.random.default_rng((1, index))
        sample = finish_shot(*shots[index], backgrounds, rng, size_px, PortraitLook())
        logits = network(torch.from_numpy(sample.rgb.astype(np.float32) / 255).permute(2, 0, 1)[None])
        classes = torch.from_numpy(_classes(sample).astype(np.int64))[None]
        sums += [
            float(F.cross_entropy(logits / t, classes, ignore_index=IGNORED, reduction="sum")) for t in _TEMPERATURES
        ]
    network.get_buffer("temperature").fill_(float(_TEMPERATURES[sums.argmin()]))


PLAIN_PORTRAITS = PortraitLook(suited=0.0, recoloured=0.0, painted=0.0, drawn=0.0, random_convolution=0.0, shaded=0.0)
"""Looks of plain photographs: composed heads in their own colours, with backgrounds and a camera's faults."""


def count_classes(predicted: UInt8[np.ndarray, "*s"], truth: UInt8[np.ndarray, "*s"]) -> Int[np.ndarray, "2 c"]:
    """Pixels per class that have it in prediction and truth, and in one of them at least; pictures' counts add up.

    Where the truth is `IGNORED` nothing counts.
    """
    known = truth != IGNORED
    each = np.arange(len(CLASS_NAMES))[:, None]
    has, should = predicted[known] == each, truth[known] == each
    return np.stack([(has & should).sum(1), (has | should).sum(1)])


def evaluate_segmenter(
    segmenter: LoadedNetwork[Segmenter], shots: Shots, backgrounds: Backgrounds, look: PortraitLook, *,
    size_px: int = 512, track: Track = silent,
) -> Float[np.ndarray, " c"]:  # fmt: skip
    """Intersections over unions of the classes, one portrait per shot; not a number where a class never came up.

    Args:
        shots: of heads that it has not seen.
        backgrounds: of the same split.
    """
    total = np.zeros((2, len(CLASS_NAMES)), np.int64)
    for index in track(range(len(shots)), total=len(shots), description="Measuring"):
        sample = finish_shot(*shots[index], backgrounds, np.random.default_rng((0, index)), size_px, look)
        found = learned.segment(sample.rgb, sample.inside, segmenter).argmax(-1).astype(np.uint8)
        total += count_classes(found, _classes(sample))
    with np.errstate(invalid="ignore", divide="ignore"):
        return total[0] / total[1]

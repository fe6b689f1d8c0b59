"""Training of the network that tells light from skin: portraits in some light beside the same ones in even light."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor, nn

from ..light.spherical_harmonics import LUMINANCE
from ..networks import LoadedNetwork
from ..prior.light.shade_network import FLOOR, ShadeConfig, ShadeNetwork, window_from_crop
from ..progress import Track, silent
from ..synthetic.parts import Label
from ..synthetic.portraits.backgrounds import Backgrounds
from ..synthetic.portraits.looks import shaded
from ..synthetic.portraits.portrait_shots import PortraitLook, PortraitSample, PortraitShot, finish_shot
from .head_samples import in_new_order
from .loop import Batch, LoopConfig, OnEvaluation, micro_batches_of, train_model
from .shots import LitShots

SHADE_LOOP = LoopConfig(steps=16000, batch_size=12, learning_rate=2e-3, save_every=200)
"""Schedule of the training."""
SHADE_LOOK = PortraitLook(suited=0.15, recoloured=0.6, painted=0.15, drawn=0.0, random_convolution=0.0, shaded=0.0)
"""How the portraits look; two of the same look have to differ by their light alone."""
PLAIN_LOOK = PortraitLook(
    suited=0.0, recoloured=0.0, painted=0.0, drawn=0.0, random_convolution=0.0, shaded=0.0, colour_faults=0.3, cut=0.0
)
"""Looks of plain photographs."""
_CAST_SHADOWS = 0.25
_RED_SHADOWS, _MOST_RED = 0.6, (-0.5, 0.0, 0.6)
"""Share of portraits whose shadows are more red than light makes them, as skin and the curves of cameras have it, and
what is added at most to the power of the light of red, green and blue in shadows."""
_BRIGHT = 0.9
"""What this share of the skin is darker than has no shadow."""
_FINISHED_PX = 208
"""Side of the portraits that windows are cut out of."""
_WORTH = {Label.FACE: 1.0, Label.NECK: 1.0, Label.EAR: 1.0, Label.BROW: 0.2, Label.BEARD: 0.3, Label.HAIR: 0.05}
"""How much pixels count; others do not."""
_SMOOTH_PX = 1.0
_MOST = 1.6
"""Largest logarithm of a factor that is learned."""
_EDGES = 1.0
"""Weight of differences between neighbours beside that of the values themselves."""


def train_shade_network(
    shots: LitShots, backgrounds: Backgrounds, folder: Path, loop: LoopConfig = SHADE_LOOP, *,
    start: ShadeNetwork | None = None, network_config: ShadeConfig | None = None, track: Track = silent,
    on_evaluation: OnEvaluation | None = None,
) -> ShadeNetwork:  # fmt: skip
    """The network with averaged weights, on the CPU.

    Args:
        shots: of heads of the split `train`.
        backgrounds: of the same split.
        start: weights to start from, in place of random ones; its configuration counts.
        on_evaluation: as of `train_model`.
    """
    torch.manual_seed(loop.seed)
    network = ShadeNetwork(start.config if start else network_config).to(memory_format=torch.channels_last)
    if start is not None:
        network.load_state_dict(start.state_dict())
    batch_of = shade_batches(shots, backgrounds, network.config.size_px, loop.batch_size, SHADE_LOOK, seed=loop.seed)
    train_model(network, batch_of, shade_loss, loop, folder, track=track, on_evaluation=on_evaluation)
    return network


def shade_batches(
    shots: LitShots, backgrounds: Backgrounds, size_px: int, batch_size: int, look: PortraitLook, *, seed: int
) -> Callable[[int], Batch]:
    """A function: the batch of a step. Shots come in a new order in every pass."""

    def sample(position: int) -> dict[str, Tensor]:
        index = in_new_order(position, len(shots), seed, 1)
        made = shade_sample(shots, index, backgrounds, np.random.default_rng((seed, 2, position)), size_px, look)
        return {name: torch.from_numpy(array) for name, array in made.items()}

    return micro_batches_of(sample, batch_size)


def shade_sample(
    shots: LitShots, index: int, backgrounds: Backgrounds, rng: np.random.Generator, size_px: int, look: PortraitLook,
    cast_shadows: float = _CAST_SHADOWS,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A window and what its light is.

    Args:
        look: two pictures of it have to differ by their light alone.
        cast_shadows: share of portraits with a shadow that something else throws on them.

    Returns:
        `rgb` (uint8, s s 3), `shade` (float32, s s 3; logarithms of factors) and `worth` (float32, s s).
    """
    shot, camera = shots.lit[index]
    even = PortraitShot(shots.even_rgb[index], shot.alpha, shot.labels)
    lit_rgb = shot.rgb
    if rng.random() < cast_shadows:
        lit_rgb = np.round(255 * shaded(lit_rgb.astype(np.float32) / 255, rng)).astype(np.uint8)
    if rng.random() < _RED_SHADOWS:
        lit_rgb = _with_red_shadows(lit_rgb, shots.even_rgb[index], shot.labels == Label.FACE, float(rng.random()))
    finish = int(rng.integers(2**31))

    def finished(each: PortraitShot) -> PortraitSample:
        return finish_shot(each, camera, backgrounds, np.random.default_rng(finish), _FINISHED_PX, look)

    seen, truth = finished(PortraitShot(lit_rgb, shot.alpha, shot.labels)), finished(even)
    A = window_from_crop(seen.camera, size_px)

    def window(picture: np.ndarray, flags: int = cv2.INTER_LINEAR) -> np.ndarray:
        return cv2.warpAffine(picture, A, (size_px, size_px), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    labels = window(np.where(seen.inside, seen.labels, np.uint8(Label.BACKGROUND)), cv2.INTER_NEAREST)
    worth = np.zeros((size_px, size_px), np.float32)
    for label, value in _WORTH.items():
        worth[labels == label] = value
    rgb, even_rgb = window(seen.rgb), window(truth.rgb)
    logs = [np.log(_averaged(each, worth) + np.float32(FLOOR)) for each in (rgb, even_rgb)]
    return {"rgb": rgb, "shade": np.clip(logs[0] - logs[1], -_MOST, _MOST), "worth": worth}


def _with_red_shadows(
    rgb: UInt8[np.ndarray, "s s 3"], even_rgb: UInt8[np.ndarray, "s s 3"], face: Bool[np.ndarray, "s s"], share: float
) -> UInt8[np.ndarray, "s s 3"]:
    """The picture with a share of the red of `_MOST_RED` in its shadows."""
    if not face.any():
        return rgb
    even = even_rgb / np.float32(255) + np.float32(FLOOR)
    light = np.log((rgb / np.float32(255) + np.float32(FLOOR)) / even)
    grey = light @ LUMINANCE.astype(np.float32)
    dark = np.minimum(grey - np.quantile(grey[face], _BRIGHT), 0)
    redder = light + dark[..., None] * (share * np.array(_MOST_RED, np.float32))
    return np.round(255 * np.clip(even * np.exp(redder) - np.float32(FLOOR), 0, 1)).astype(np.uint8)


def _averaged(rgb: np.ndarray, worth: Float32[np.ndarray, "s s"]) -> Float32[np.ndarray, "s s 3"]:
    """Colours, [0, 1], averaged a little over what counts."""
    unit = rgb.astype(np.float32) / 255
    mass = cv2.GaussianBlur(worth, (0, 0), _SMOOTH_PX)[..., None]
    return (cv2.GaussianBlur(unit * worth[..., None], (0, 0), _SMOOTH_PX) + 1e-4 * unit) / (mass + np.float32(1e-4))


def shade_loss(network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Absolute error of the logarithms and of their differences between neighbours, brightness on the whole aside."""
    found = network(batch["rgb"])
    worth = batch["worth"][:, None]
    error = without_level(found - batch["shade"].permute(0, 3, 1, 2), worth)
    loss = (error.abs() * worth).sum() / worth.sum().clamp(min=1)
    for axis in (2, 3):
        size = error.shape[axis] - 1
        step = error.narrow(axis, 1, size) - error.narrow(axis, 0, size)
        both = torch.minimum(worth.narrow(axis, 1, size), worth.narrow(axis, 0, size))
        loss = loss + _EDGES * (step.abs() * both).sum() / both.sum().clamp(min=1)
    return loss


def without_level(error: Float[Tensor, "n 3 h w"], worth: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 3 h w"]:
    """The error without the mean of its brightness over what counts."""
    grey = (error * error.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
    return error - (grey * worth).sum((2, 3), keepdim=True) / worth.sum((2, 3), keepdim=True).clamp(min=1)


@torch.no_grad()
def evaluate_shade_network(
    shade: LoadedNetwork[ShadeNetwork] | None, shots: LitShots, backgrounds: Backgrounds, *, track: Track = silent
) -> dict[str, float]:
    """Root mean square errors of the logarithms on skin, up to one number for each picture.

    Args:
        shade: the network; None for no light at all, that is the error of what is photographed.
        shots: of heads that it has not seen.
        backgrounds: of the same split.

    Returns:
        `grey`: of brightness; `colour`: of what the channels differ from it.
    """
    size_px, sums, mass = ShadeConfig().size_px if shade is None else shade.network.config.size_px, np.zeros(2), 0.0
    for index in track(range(len(shots)), total=len(shots), description="Measuring"):
        made = shade_sample(shots, index, backgrounds, np.random.default_rng((0, index)), size_px, PLAIN_LOOK, 0.0)
        truth = torch.from_numpy(made["shade"]).permute(2, 0, 1)[None]
        worth = torch.from_numpy((made["worth"] == 1).astype(np.float32))[None, None]
        picture = torch.from_numpy(made["rgb"].astype(np.float32) / 255).permute(2, 0, 1)[None]
        found = torch.zeros_like(truth) if shade is None else shade.network(picture)
        error = without_level(found - truth, worth)
        grey = (error * error.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
        sums += [float((grey.square() * worth).sum()), float(((error - grey).square() * worth).sum()) / 3]
        mass += float(worth.sum())
    grey_rms, colour_rms = np.sqrt(sums / max(mass, 1))
    return {"grey": float(grey_rms), "colour": float(colour_rms)}

"""The segmenter: what each pixel of an aligned portrait is, background included, from its colours alone.

A small U-Net. It sees the crop with its background and two coordinates (the crop is aligned, so that places mean
something), works at half resolution, draws thin things and outlines at the whole one, and is asked at 256 px. What it
was trained on and how well it does is in `generation/weights/MODEL_CARD_SEGMENTER.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from ...networks import LoadedNetwork, NetworkFile, PictureUNet

BACKGROUND, FACE, NECK, EAR, HAIR, BEARD, BROW, HEADGEAR, GLASSES, ACCESSORY, CLOTH = range(11)
"""Classes. The face has eyes and light stubble, the neck bare shoulders; accessories are jewellery; of glasses frames
count, and lenses that nothing is seen through; beards are apart from the hair of the head, for they grow where the hair
shell has no business."""
CLASS_NAMES = (
    "background", "face", "neck", "ear", "hair", "beard", "brow", "headgear", "glasses", "accessory", "cloth",
)  # fmt: skip
SKIN_CLASSES = (FACE, NECK, EAR, BROW)
"""Skin, and the brows on it."""


@dataclass(frozen=True)
class SegmenterConfig:
    """Size of the network."""

    channels: tuple[int, ...] = (24, 48, 80, 128, 192)
    """Channels at 1/2, 1/4, ... of the input's resolution; multiples of 8."""
    more_blocks: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Residual blocks of each level beyond the first, on the way down and up."""
    fine_channels: int = 16
    """Channels at the input's resolution, a multiple of 8."""
    size_px: int = 256
    """Side at which portraits are segmented, a multiple of `2 ** len(channels)`."""


class Segmenter(PictureUNet):
    """Draws how likely each class is."""

    def __init__(self, config: SegmenterConfig | None = None) -> None:
        config = config or SegmenterConfig()
        fine, more = config.fine_channels, config.more_blocks
        super().__init__(len(CLASS_NAMES), config.channels, fine, coarser_than=1, more_blocks=more)
        self.config = config
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, rgb_unit: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 11 h w"]:
        """Logits of the classes; sides must be multiples of `2 ** len(channels)`."""
        return self.drawn(self.seen(rgb_unit))


SEGMENTER = NetworkFile("segmenter", Segmenter, SegmenterConfig, weight_levels=47)
"""Its weights."""


@torch.no_grad()
def segment(
    rgb: UInt8[np.ndarray, "s s 3"], inside: Bool[np.ndarray, "s s"], segmenter: LoadedNetwork[Segmenter]
) -> Float32[np.ndarray, "s s 11"]:
    """Probability of each class in each pixel of an aligned portrait.

    Args:
        rgb: the crop with its background.
        inside: pixels that lie within the source picture; the others are called background.

    Returns:
        Probabilities of `CLASS_NAMES`, summing to 1; the mean over the picture and its mirror image.
    """
    size = segmenter.network.config.size_px
    small = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA if size < len(rgb) else cv2.INTER_LINEAR)
    picture = torch.from_numpy(small.astype(np.float32) / 255).permute(2, 0, 1)
    both = torch.stack([picture, picture.flip(-1)]).contiguous(memory_format=torch.channels_last)
    network = segmenter.network
    straight, mirrored = (network(both) / network.get_buffer("temperature")).softmax(1)
    mean = (0.5 * (straight + mirrored.flip(-1))).permute(1, 2, 0).contiguous().numpy()
    probability = cv2.resize(mean, (len(rgb), len(rgb)), interpolation=cv2.INTER_LINEAR).clip(0)
    probability[~inside] = np.eye(len(CLASS_NAMES), dtype=np.float32)[BACKGROUND]
    return (probability / probability.sum(-1, keepdims=True)).astype(np.float32)

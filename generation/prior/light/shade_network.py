"""Light told from skin by a network: how much brighter, darker and more coloured each pixel is than in even light.

A small U-Net sees the middle of the aligned portrait. It has learned on composed heads that were photographed twice
from the same place, once in some light and once in even light, so that it knows beards, make-up and dark complexions
from shadows, which no rule about one tone of skin does. How well it does is in
`generation/weights/MODEL_CARD_SHADE.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from ...cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS, Cameras
from ...networks import ConvBlock, LoadedNetwork, NetworkFile, UNet, zeroed
from ..labels.portrait_labels import project_px

WINDOW = 0.62
"""Side of what the network sees, in units of the standard frame: face, ears and neck."""
FLOOR = 0.02
"""Added to sRGB colours before their logarithms are compared."""
_NORMALISATION = (0.45, 0.27)
"""Mean and standard deviation that inputs are brought from."""
_CAST_WIDTH = 32


@dataclass(frozen=True)
class ShadeConfig:
    """Size of the network."""

    channels: tuple[int, ...] = (16, 32, 48, 64)
    """Channels at 1/2, 1/4, ... of the input's resolution; multiples of 8."""
    more_blocks: tuple[int, ...] = (0, 0, 1, 1)
    """Residual blocks of each level beyond the first, on the way down and up."""
    fine_channels: int = 8
    """Channels at the input's resolution, a multiple of 8."""
    size_px: int = 128
    """Side of the window, a multiple of `2 ** len(channels)`."""


class ShadeNetwork(UNet):
    """A U-Net that sees colours and places, and a few layers that see the picture's colour on the whole: blocks of the
    U-Net normalise it away."""

    def __init__(self, config: ShadeConfig | None = None) -> None:
        config = config or ShadeConfig()
        super().__init__(5, config.channels, more_blocks=config.more_blocks)
        self.config = config
        fine, half = config.fine_channels, config.channels[0]
        self.head = zeroed(nn.Conv2d(half, 3, 1))
        self.fine_input, self.fine_meaning = ConvBlock(5, fine), nn.Conv2d(half, fine, 1)
        self.fine = ConvBlock(2 * fine, fine)
        self.fine_head = zeroed(nn.Conv2d(fine, 3, 1))
        self.cast = nn.Sequential(nn.Linear(9, _CAST_WIDTH), nn.SiLU(), zeroed(nn.Linear(_CAST_WIDTH, 3)))

    def forward(self, rgb_unit: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Logarithms of the factors of light on sRGB colours, up to one number for each picture."""
        mean, deviation = _NORMALISATION
        n, _, height, width = rgb_unit.shape
        y = torch.linspace(-1, 1, height, device=rgb_unit.device)[:, None].expand(height, width)
        x = torch.linspace(-1, 1, width, device=rgb_unit.device)[None].expand(height, width)
        place = torch.stack([x, y]).expand(n, 2, height, width)
        seen = torch.cat([(rgb_unit - mean) / deviation, place], dim=1)
        features, _ = self.features(seen)
        fine = torch.cat([self.fine_input(seen), self.enlarged(self.fine_meaning(features))], dim=1)
        colours = seen[:, :3]
        middle = torch.exp(-2 * (x.square() + y.square()))
        whole = torch.cat([colours, colours.square(), torch.log(rgb_unit + FLOOR)], dim=1)
        cast = self.cast((whole * middle).sum((2, 3)) / middle.sum())[:, :, None, None]
        return self.enlarged(self.head(features)) + self.fine_head(self.fine(fine)) + cast


SHADE = NetworkFile("skin_shade", ShadeNetwork, ShadeConfig, weight_levels=31)
"""Its weights."""


def window_from_crop(camera: Cameras, size_px: int) -> Float[np.ndarray, "2 3"]:
    """Affine map to the window's pixels from the portrait's, both with pixel centres at integers as OpenCV has them.

    Args:
        camera: of the portrait (one).
        size_px: side of the window.
    """
    distance = float(np.linalg.norm(camera.position_world[0].numpy())) / PANOHEAD_RADIUS
    side = WINDOW * float(camera.focal_px[0, 0]) / (PANOHEAD_FOCAL_NORMALISED * distance)
    scale = size_px / side
    middle = project_px(camera, np.zeros((1, 3)))[0]
    offset = size_px / 2 - 0.5 - scale * (middle - 0.5)
    return np.array([[scale, 0.0, offset[0]], [0.0, scale, offset[1]]])


@torch.no_grad()
def shade_of_picture(
    rgb: UInt8[np.ndarray, "s s 3"], camera: Cameras, network: LoadedNetwork[ShadeNetwork]
) -> Float32[np.ndarray, "s s 3"]:
    """Logarithms of the factors of light on the sRGB colours of skin, up to one number.

    Args:
        rgb: the portrait with its background.
        camera: its camera.

    Returns:
        The mean over the picture and its mirror image; what lies beyond the window repeats its edge.
    """
    size = network.network.config.size_px
    A = window_from_crop(camera, size)
    fine = _blurred_for(rgb, A[0, 0])
    small = cv2.warpAffine(fine, A, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    picture = torch.from_numpy(small.astype(np.float32) / 255).permute(2, 0, 1)
    straight, mirrored = network.network(torch.stack([picture, picture.flip(-1)]))
    mean = (0.5 * (straight + mirrored.flip(-1))).permute(1, 2, 0).contiguous().numpy()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(mean, A, rgb.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _blurred_for(rgb: UInt8[np.ndarray, "s s 3"], scale: float) -> UInt8[np.ndarray, "s s 3"]:
    """The picture without what is too fine for one that is so many times as large."""
    sigma = 0.5 * math.sqrt(max(1 / scale**2 - 1, 0.0))
    return rgb if sigma < 0.2 else cv2.GaussianBlur(rgb, (0, 0), sigma)

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
from ...networks import LoadedNetwork, NetworkFile, PictureUNet, zeroed
from ..labels.portrait_labels import project_px

WINDOW = 0.62
"""Side of what the network sees, in units of the standard frame: face, ears and neck."""
FLOOR = 0.02
"""Added to sRGB colours before their logarithms are compared."""
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


class ShadeNetwork(PictureUNet):
    """Draws the logarithms of light; a few layers see the picture's colour on the whole, which blocks of the U-Net
    normalise away."""

    def __init__(self, config: ShadeConfig | None = None) -> None:
        config = config or ShadeConfig()
        super().__init__(3, config.channels, config.fine_channels, more_blocks=config.more_blocks)
        self.config = config
        zeroed(self.head)
        self.cast = nn.Sequential(nn.Linear(9, _CAST_WIDTH), nn.SiLU(), zeroed(nn.Linear(_CAST_WIDTH, 3)))

    def forward(self, rgb_unit: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Logarithms of the factors of light on sRGB colours, up to one number for each picture."""
        seen = self.seen(rgb_unit)
        colours, places = seen[:, :3], seen[:1, 3:]
        middle = torch.exp(-2 * places.square().sum(1))
        whole = torch.cat([colours, colours.square(), torch.log(rgb_unit + FLOOR)], dim=1)
        cast = self.cast((whole * middle).sum((2, 3)) / middle.sum())[:, :, None, None]
        return self.drawn(seen) + cast


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

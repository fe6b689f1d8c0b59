"""Whether a colour is one that no hair has grown in: scarves and hats are easily taken for hair, some show there."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

_FLOOR = 0.06
"""Added to colours before their logarithm is taken."""
_BLUE, _RED, _BRIGHT = (-0.16, -0.08), (0.95, 1.3), (0.08, 0.16)
"""Cloth has a logarithm of the ratio of red to blue up to the first and not above the second number, or of red to green
above the third, for certain above the fourth, and is brighter than the fifth, for certain than the sixth: grown hair is
blue only where it is black, and ginger is no red."""
_LEAST_PIXELS = 200
_MOSTLY, _LITTLE = 0.35, 0.04
"""With more of what is worn than the first share all of it is cloth, with less than the second none: a ribbon, a
flower, or one stroke of a painter's brush makes no hat of a head of hair."""
_SOLID, _WIDTH = 0.5, 15.0 / 512
"""In between, so much of it has to be as wide as the second number, of the picture's side: blue light on black hair
lies in gleams, cloth in pieces."""


def log_chroma(rgb_unit: Float32[np.ndarray, "*n 3"]) -> Float32[np.ndarray, "*n 3"]:
    """Logarithm of colours less its mean over the channels."""
    logs = np.log(np.clip(rgb_unit, 0, 1) + np.float32(_FLOOR))
    return logs - logs.mean(-1, keepdims=True)


def cloth_colour(
    chroma: Float[np.ndarray, "*n 3"], brightness: Float[np.ndarray, "*n"] | float
) -> Float[np.ndarray, "*n"]:
    """1 for colours that no hair has grown in, 0 for others.

    Args:
        chroma: from `log_chroma`.
        brightness: mean of the channels, [0, 1].
    """
    blue = np.interp(chroma[..., 0] - chroma[..., 2], _BLUE, (1, 0))
    red = np.interp(chroma[..., 0] - chroma[..., 1], _RED, (0, 1))
    return np.asarray(np.maximum(blue, red) * np.interp(brightness, _BRIGHT, (0, 1)))


def cloth_among(rgb_unit: Float32[np.ndarray, "s s 3"], worn: Bool[np.ndarray, "s s"]) -> Float32[np.ndarray, "s s"]:
    """How surely each pixel of what is worn on a head is cloth, by its colour, [0, 1].

    Where a good part of it is, all of it is: turbans are of several colours, hair below a band is more than the band.
    Where next to nothing is, or only gleams, nothing is.

    Args:
        rgb_unit: the person's colours, sRGB.
        worn: pixels of hair and headgear.
    """
    if worn.sum() < _LEAST_PIXELS:
        return np.zeros(worn.shape, np.float32)
    colours = cv2.GaussianBlur(np.ascontiguousarray(rgb_unit, dtype=np.float32), (0, 0), 2.0)
    cloth = cloth_colour(log_chroma(colours), colours.mean(-1)) * worn
    share = cloth[worn].mean()
    if share > _MOSTLY:
        cloth = worn
    elif share < _LITTLE or _solid_share(cloth > 0.5) < _SOLID:
        cloth = np.zeros_like(cloth)
    return cloth.astype(np.float32)


def _solid_share(pieces: Bool[np.ndarray, "s s"]) -> float:
    """How much of pieces lies where they are as wide as `_WIDTH`."""
    width = max(3, round(_WIDTH * len(pieces)))
    broad = cv2.morphologyEx(pieces.astype(np.uint8), cv2.MORPH_OPEN, np.ones((width, width), np.uint8))
    return float(broad.sum() / max(int(pieces.sum()), 1))

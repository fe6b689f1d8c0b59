"""Between sRGB, as pictures and splats hold colours, and linear light, as glTF holds all other colours.

Source: IEC 61966-2-1.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def linear_from_srgb(srgb: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """sRGB display values in [0, 1] as linear light, float64."""
    wide = srgb.astype(np.float64)
    return np.where(wide <= 0.04045, wide / 12.92, ((wide + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Linear light from 0 on as sRGB display values, inverse of `linear_from_srgb`; what is above white stays above."""
    wide = linear.astype(np.float64)
    return np.where(wide <= 0.0031308, wide * 12.92, 1.055 * np.maximum(wide, 1e-9) ** (1 / 2.4) - 0.055)

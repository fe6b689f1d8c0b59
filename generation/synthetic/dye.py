"""Textures in other colours."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from .recipe import RGB


def tinted(
    texture: Float32[np.ndarray, "h w 4"], rgb_unit: RGB | Float[np.ndarray, " 3"], *, contrast: float = 1.0
) -> Float32[np.ndarray, "h w 4"]:
    """The texture's brightness pattern in another colour, its visible mean at `rgb_unit`."""
    brightness, alpha = texture[..., :3].mean(-1, keepdims=True), texture[..., 3:]
    mean = float((brightness * alpha).sum()) / max(float(alpha.sum()), 1e-6)
    pattern = np.clip(brightness / mean, 0.25, 2.5) ** contrast if mean > 0.02 else np.ones_like(brightness)
    result = texture.copy()
    result[..., :3] = np.clip(pattern * np.array(rgb_unit, dtype=np.float32), 0, 1)
    return result


def dyed(texture: Float32[np.ndarray, "h w 4"], rgb_unit: RGB) -> Float32[np.ndarray, "h w 4"]:
    """A cloth dyed: folds and prints stay as lighter and darker shades, a hint of its own colours remains."""
    result = tinted(texture, rgb_unit, contrast=0.75)
    hint = texture[..., :3] - texture[..., :3].mean(-1, keepdims=True)
    result[..., :3] = np.clip(result[..., :3] + 0.2 * hint, 0, 1)
    return result

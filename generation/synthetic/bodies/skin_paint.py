"""What is painted on a skin: its tone, the shade of hair roots, stubble; and the labels that follow from it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy import ndimage

from ..parts import Label
from ..recipe import RGB


def toned(texture: Float32[np.ndarray, "h w 4"], gain: RGB) -> Float32[np.ndarray, "h w 4"]:
    """The skin with its linear colour multiplied by `gain`."""
    result = texture.copy()
    result[..., :3] = np.clip(texture[..., :3] * np.array(gain, np.float32) ** (1 / 2.2), 0, 1)
    return result


def painted(
    texture: Float32[np.ndarray, "h w 4"], weight: Float[np.ndarray, "h w"], rgb: RGB
) -> Float32[np.ndarray, "h w 4"]:
    """The texture with a colour laid over it."""
    result = texture.copy()
    share = weight[..., None].astype(np.float32)
    result[..., :3] = texture[..., :3] * (1 - share) + np.array(rgb, np.float32) * share
    return result


def hair_roots(weight: Float[np.ndarray, "h w"], density: float, rng: np.random.Generator) -> Float[np.ndarray, "h w"]:
    """Opacity of closely cropped hair: fine grain where `weight` allows it, fading over its border."""
    grain = ndimage.gaussian_filter(rng.random(weight.shape), 0.7)
    grain = (grain - 0.5) / max(float(grain.std()), 1e-6)
    return np.clip(weight * density * (1 + 0.22 * grain), 0, 0.96)


def skin_labels(rest_cm: Float[np.ndarray, "s s 3"], known: np.ndarray) -> UInt8[np.ndarray, "s s"]:
    """Face above the jaw's lower edge, neck below; `rest_cm` are the texels' places on the average head."""
    _, y, z = np.moveaxis(rest_cm, -1, 0)
    jaw = -9.0 + 0.55 * (8.0 - np.clip(z, 0.0, 8.0)) - 0.1 * np.clip(z, -8, 0)
    labels = np.where(y < jaw, np.uint8(Label.NECK), np.uint8(Label.FACE))
    return np.where(known, labels, np.uint8(Label.FACE)).astype(np.uint8)

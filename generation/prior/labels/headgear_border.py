"""Where headgear ends and hair begins, by the colours on either side of the segmenter's coarse border."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from ...cielab import lab_of

_BAND, _NEAR, _SURE, _GRAIN = 18 / 512, 24 / 512, 5 / 512, 2.5 / 512
"""Of the picture's side: how far the border may be off, how far colours are averaged, how far from the border hair is
hair, and over which length neighbours agree."""
_SPREAD_LAB = 5.0
"""Least deviation of a thing's colours, CIELAB."""
_MOST_EVIDENCE, _MOST_BELIEF = 4.0, 1.5
"""Limits of the logarithms of odds by colour and by the segmenter."""
_LEAST_PIXELS = 200
_EVERYWHERE = 0.01
"""Weight of a thing's mean colour where none of it is near."""


def border_by_colour(
    headgear_share: Float32[np.ndarray, "s s"], worn: Bool[np.ndarray, "s s"], rgb_unit: Float32[np.ndarray, "s s 3"]
) -> Float32[np.ndarray, "s s"]:
    """The share of headgear, told anew near its border by whether colours are those of its inside or of the hair.

    Args:
        headgear_share: probability of headgear beside that of hair.
        worn: pixels of hair and headgear.
        rgb_unit: the person's colours, sRGB.
    """
    size = len(worn)
    hat = worn & (headgear_share > 0.5)
    hair = worn & ~hat
    band, sure = round(_BAND * size), max(1, round(_SURE * size))
    # the picture's edge and the background are no border with hair
    from_hair = cv2.distanceTransform((~hair).astype(np.uint8), cv2.DIST_L2, 5)
    inside_hair = cv2.distanceTransform(hair.astype(np.uint8), cv2.DIST_L2, 5)
    inside_hat = cv2.distanceTransform((hat | ~worn).astype(np.uint8), cv2.DIST_L2, 5)
    hat_core, hair_core = hat & (inside_hat > band), hair & (inside_hair > sure)
    if min(hat_core.sum(), hair_core.sum()) < _LEAST_PIXELS:
        return headgear_share
    lab = lab_of(rgb_unit)
    near_border = worn & ((from_hair < band) & hat | hair & (inside_hair < band))
    evidence = np.clip(_misfit(lab, hair_core) - _misfit(lab, hat_core), -2 * _MOST_EVIDENCE, 2 * _MOST_EVIDENCE) / 2
    mass = cv2.GaussianBlur(worn.astype(np.float32), (0, 0), _GRAIN * size)
    evidence = cv2.GaussianBlur(evidence * worn, (0, 0), _GRAIN * size) / np.maximum(mass, np.float32(1e-3))
    belief = np.log(np.clip(headgear_share, 0.01, 0.99) / np.clip(1 - headgear_share, 0.01, 0.99))
    odds = evidence + np.clip(belief, -_MOST_BELIEF, _MOST_BELIEF)
    return np.where(near_border, 1 / (1 + np.exp(-odds)), headgear_share).astype(np.float32)


def _misfit(lab: Float32[np.ndarray, "s s 3"], core: Bool[np.ndarray, "s s"]) -> Float32[np.ndarray, "s s"]:
    """Minus twice the log likelihood of each pixel's colour among those of a thing nearby."""
    sigma, weight = _NEAR * len(core), core.astype(np.float32)

    def near(values: Float32[np.ndarray, "s s c"]) -> Float32[np.ndarray, "s s c"]:
        everywhere = values[core].mean(0)
        total = cv2.GaussianBlur(values * weight[..., None], (0, 0), sigma).reshape(values.shape)
        mass = cv2.GaussianBlur(weight, (0, 0), sigma)[..., None]
        return (total + _EVERYWHERE * everywhere) / (mass + _EVERYWHERE)

    mean = near(lab)
    variance = np.maximum(near(np.square(lab)) - np.square(mean), 0) + np.float32(_SPREAD_LAB**2)
    return (np.square(lab - mean) / variance + np.log(variance)).sum(-1).astype(np.float32)

"""sRGB colours as CIELAB, in which equal distances look about alike."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32


def lab_of(rgb_unit: Float[np.ndarray, "*n 3"]) -> Float32[np.ndarray, "*n 3"]:
    """L*, [0, 100], a* and b* of sRGB colours, in pictures, lists or alone.

    Args:
        rgb_unit: in [0, 1]; what lies outside is not clipped.
    """
    rgb = np.ascontiguousarray(rgb_unit, dtype=np.float32)
    picture = rgb if rgb.ndim == 3 else rgb.reshape(1, -1, 3)
    return cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).reshape(rgb.shape)


def median_in_lab(rgb_unit: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " 3"]:
    """The median colour of a list, which is not empty: the mean of the tenth that is nearest to the medians of L*, a*
    and b*. Medians of red, green and blue of dark and golden hair together are a brown that no hair has.
    """
    lab = lab_of(rgb_unit)
    away = np.linalg.norm(lab - np.median(lab, axis=0), axis=1)
    nearest = np.argpartition(away, len(away) // 10)[: len(away) // 10 + 1]
    return rgb_unit[nearest].mean(0, dtype=np.float64)

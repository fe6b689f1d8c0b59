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

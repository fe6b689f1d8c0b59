"""How far a picture is from the true one: PSNR, SSIM and the overlap of silhouettes, on all of it or inside a mask."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float

_SIGMA_PX, _RADIUS_PX = 1.5, 5
_C1, _C2 = 0.01**2, 0.03**2
HIGHEST_PSNR_DB = 100.0
"""PSNR of equal pictures, where the formula gives infinity."""


def psnr(
    rgb_unit: Float[np.ndarray, "h w 3"],
    true_unit: Float[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Peak signal-to-noise ratio in dB of colours in [0, 1]; `HIGHEST_PSNR_DB` at most, NaN for an empty mask."""
    squares = (rgb_unit.astype(np.float64) - true_unit) ** 2
    chosen = squares if mask is None else squares[mask]
    if chosen.size == 0:
        return math.nan
    return min(HIGHEST_PSNR_DB, -10 * math.log10(max(float(chosen.mean()), 1e-12)))


def ssim_map(rgb_unit: Float[np.ndarray, "h w 3"], true_unit: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Structural similarity around every pixel, the mean of three channels, in [-1, 1]; pictures mirror at edges.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", 2004, Eq. 13: Gaussian window of 11 pixels with a deviation of 1.5, K1 = 0.01, K2 = 0.03.
    """
    x, y = rgb_unit.astype(np.float64), true_unit.astype(np.float64)

    def mean(values: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
        size = 2 * _RADIUS_PX + 1
        return cv2.GaussianBlur(values, (size, size), _SIGMA_PX, borderType=cv2.BORDER_REFLECT)

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similarity /= (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    return similarity.mean(-1)


def ssim(
    rgb_unit: Float[np.ndarray, "h w 3"],
    true_unit: Float[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Mean of `ssim_map` over the pixels whose window lies inside the picture, or over a mask; NaN if it is empty."""
    similarity = ssim_map(rgb_unit, true_unit)
    inner = np.zeros(similarity.shape, bool)
    inner[_RADIUS_PX:-_RADIUS_PX, _RADIUS_PX:-_RADIUS_PX] = True
    chosen = similarity[inner if mask is None else mask]
    return float(chosen.mean()) if chosen.size else math.nan


def silhouette_iou(alpha_unit: Float[np.ndarray, "h w"], true_alpha_unit: Float[np.ndarray, "h w"]) -> float:
    """Intersection over union of what is more than half covered; 1 where both are empty."""
    ours, true = alpha_unit > 0.5, true_alpha_unit > 0.5
    either = int((ours | true).sum())
    return float((ours & true).sum()) / either if either else 1.0

"""Detail of hair out of noise: streaks that run down the whole tile.

Patches (see `quilting`) cut long straight strands into pieces. Here noise is drawn out along the strands instead, as
wide, as long, as strong and in the colours of the strands that are seen.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from .fills import wrapped_blur
from .quilting import strand_direction

_LAG_PX = 16.0
_LEAST_ALIKE = 0.5
"""Correlation of detail this far along a strand from which strands count as long."""
_ACROSS_LAG_PX = 4.0
_LONGER = 3.0
"""Strands are longer than they seem: every error of the measured direction makes them look shorter."""
_SWAY_PX, _SWAY_ROWS_PX, _SWAY_COLUMNS_PX = 5.0, 60.0, 40.0
_SAMPLES = 20_000


def combed_detail(
    detail: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"], rng: np.random.Generator
) -> Float32[np.ndarray, "h w 3"] | None:
    """Streaks like the known ones all over the tile, or None where the strands that are seen are short or curled.

    Args:
        detail: differences from the smooth picture, zero on average; columns wrap round, strands hang along the rows.
        known: where they are known.
        rng: draws the noise.
    """
    if known.sum() < 500:
        return None
    along, across = _alike(detail, known, rng)
    if not along > _LEAST_ALIKE:
        return None
    sigma_along = _LONGER * _sigma(along, _LAG_PX)
    sigma_across = _sigma(across, _ACROSS_LAG_PX)
    values = detail[known]
    mean = values.mean(0)
    _, _, axes = np.linalg.svd((values - mean)[:: max(1, len(values) // _SAMPLES)], full_matrices=False)
    height, width = known.shape
    streaks = np.zeros_like(detail) + mean
    for axis in axes:
        noise = np.zeros((height, width), np.float32)
        for factor, share in ((0.5, 0.5), (1.0, 1.0), (2.2, 0.6)):
            drawn = rng.standard_normal((height, width), dtype=np.float32)
            drawn = wrapped_blur(drawn, sigma_along * factor, sigma_across * factor)
            noise += share * drawn / drawn.std()
        streaks += _with_values_of(noise, (values - mean) @ axis)[..., None] * axis
    return _swaying(streaks.astype(np.float32), rng)


def noise_strands(
    colour: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"], seed: int
) -> Float32[np.ndarray, "h w"]:
    """Log-brightness of strands of noise along the rows, with the contrast of the seen hair.

    The default where hair is too little seen, or too curled, to be combed (above) or quilted (`quilting`).

    Args:
        colour: seen hair.
        weight: trust in it.
        seed: of the strands.
    """
    height, width = weight.shape
    luminance = np.log(np.clip(colour @ np.array([0.299, 0.587, 0.114], np.float32), 0.02, 1.0))
    solid = ndimage.binary_erosion(weight > 0.4, iterations=8)
    if solid.sum() < 400:
        contrast, ratio = 0.12, 4.0
    else:
        mass = np.maximum(ndimage.gaussian_filter((weight > 0.35).astype(np.float32), 8), 1e-3)
        low = ndimage.gaussian_filter(np.where(weight > 0.35, luminance, 0), 8) / mass
        contrast = float(np.clip(np.std((luminance - low)[solid]), 0.03, 0.35))
        d_rows, d_columns = np.gradient(luminance)
        ratio = float(np.sqrt((d_columns[solid] ** 2).mean() / max(float((d_rows[solid] ** 2).mean()), 1e-8)))
    stretch = float(np.clip(4.0 * ratio, 3.5, 18.0))
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    wrapped: Any = ("nearest", "wrap")  # scipy's stubs know one mode for all axes only
    for sigma, share in ((0.8, 0.6), (1.8, 0.7), (4.5, 0.4)):
        noise = rng.standard_normal((height, width))
        noise = ndimage.gaussian_filter(noise, (sigma * stretch, sigma), mode=wrapped)
        total += share * noise / noise.std()
    return (contrast * total / total.std()).astype(np.float32)


def _alike(
    detail: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"], rng: np.random.Generator
) -> tuple[float, float]:
    """Correlation of detail `_LAG_PX` along the strands and `_ACROSS_LAG_PX` across them."""
    doubled, _ = strand_direction(detail, known)
    grey = detail.mean(-1)
    rows, columns = np.nonzero(known)
    chosen = rng.choice(len(rows), min(_SAMPLES, len(rows)), replace=False)
    rows, columns = rows[chosen], columns[chosen]
    angle = 0.5 * np.arctan2(doubled[rows, columns, 1], doubled[rows, columns, 0])
    found = []
    for lag, turn in ((_LAG_PX, 0.0), (_ACROSS_LAG_PX, math.pi / 2)):
        y = np.round(rows + lag * np.sin(angle + turn)).astype(int)
        x = np.round(columns + lag * np.cos(angle + turn)).astype(int) % known.shape[1]
        there = (y >= 0) & (y < len(known))
        there[there] &= known[y[there], x[there]]
        a, b = grey[rows[there], columns[there]], grey[y[there], x[there]]
        spread = float(a.std() * b.std()) if len(a) > 100 else 0.0
        found.append(float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread > 1e-9 else 0.0)
    return found[0], found[1]


def _sigma(correlation: float, lag_px: float) -> float:
    """Width of the Gaussian blur of white noise that has this correlation at a lag: exp(-lag^2 / (4 sigma^2))."""
    return lag_px / (2 * math.sqrt(-math.log(min(max(correlation, 0.05), 0.95))))


def _with_values_of(noise: Float32[np.ndarray, "h w"], values: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, "h w"]:
    """The noise with the distribution of `values`: ranks stay, what stands at each rank is replaced."""
    share = np.linspace(0, 1, 257)
    return np.interp(noise, np.quantile(noise[::3, ::3], share), np.quantile(values, share)).astype(np.float32)


def _swaying(picture: Float32[np.ndarray, "h w 3"], rng: np.random.Generator) -> Float32[np.ndarray, "h w 3"]:
    """Nothing hangs like a ruler: columns are shifted a little, differently from place to place."""
    height, width = picture.shape[:2]
    sway = wrapped_blur(rng.standard_normal((height, width), dtype=np.float32), _SWAY_ROWS_PX, _SWAY_COLUMNS_PX)
    sway *= _SWAY_PX / sway.std()
    wide = np.concatenate([picture[:, -32:], picture, picture[:, :32]], axis=1)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) + 32, np.arange(height, dtype=np.float32))
    return cv2.remap(wide, (x + sway.clip(-30, 30)).astype(np.float32), y, cv2.INTER_LINEAR)

"""Fine detail of made up skin: pores, blotches, grain or strokes, by octaves as strong as on the seen skin.

Detail is the logarithm of colour over its local mean. Its covariance over red, green and blue is measured in the
portrait octave by octave; noise with the same covariances is laid over the skin in three planes that go over into one
another with the normal (triplanar mapping), so that it is stretched nowhere and nothing that is seen repeats.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from ...cameras import PANOHEAD_RADIUS, UNITS_PER_MM
from ...portrait import Portrait
from ..hair.orientation import usual_deviation
from ..labels.portrait_labels import PortraitLabels
from ..labels.segmenter import BEARD, BROW, EAR, FACE, NECK
from .fills import enlarged, reduced, wrapped_blur

OCTAVES_MM = (0.35, 0.7, 1.4, 2.8, 5.6)
"""Blurs whose differences are the octaves."""
_FLOOR = 0.03
"""Added to colours before their logarithm is taken."""
_TILE_PX, _TILE_MM = 768, 0.3
"""Side of the tile of noise, and size of its texels; it repeats after 23 cm."""
_WIDE_PX = 8.0
"""Blurs of noise wider than this are made at a quarter of the resolution."""
_PLANES = ((2, 1), (0, 2), (0, 1))
"""Axes along columns and rows of the planes that face x, y and z."""
_STRONGER = (2.0, 2.0, 1.5, 0.5)
"""How much stronger than in the portrait each octave is painted: a render blurs the atlas, which the portrait was not;
and what is a crease or a soft shadow on the seen skin would be a stain among noise."""
_MOST_DEVIATIONS = 2.5
"""What stands out further is a lip, a lash or a mole, not the skin."""
_CALM, _CALM_MM = 0.5, 5.0
"""Share of the skin that counts as plain, and over which length its calm is measured."""
_LEAST_PIXELS = 800
_SURE = 0.6
_SHARE_OF_SKIN = 4.0
"""Power of the normal by which planes go over into one another."""
_REMAP_COLUMNS = 4096


@dataclass(frozen=True)
class SkinDetail:
    """How the skin that is seen varies."""

    roots: Float[np.ndarray, "4 3 3"]
    """Square roots of the covariances of log colour in each octave."""

    @staticmethod
    def of(portrait: Portrait, labels: PortraitLabels) -> SkinDetail | None:
        """That of the portrait's plain skin; None where too little is seen."""
        skin = labels.classes[..., (FACE, NECK, EAR)].sum(-1) > _SURE
        skin &= (labels.classes[..., (BEARD, BROW)].sum(-1) < 0.1) & (portrait.alpha_unit > 0.9) & portrait.inside
        px_per_mm = float(portrait.head.camera.focal_px[0, 0]) / PANOHEAD_RADIUS * UNITS_PER_MM
        width = 2 * max(1, round(2 * px_per_mm)) + 1
        inner = cv2.erode(skin.astype(np.uint8), np.ones((width, width), np.uint8)) > 0
        if inner.sum() < _LEAST_PIXELS:
            return None
        logs = np.log(portrait.foreground_unit.astype(np.float32) + np.float32(_FLOOR))
        mask = skin.astype(np.float32)

        def mean(sigma_mm: float) -> Float32[np.ndarray, "s s 3"]:
            sigma = sigma_mm * px_per_mm
            mass = np.maximum(cv2.GaussianBlur(mask, (0, 0), sigma), np.float32(1e-3))
            return cv2.GaussianBlur(logs * mask[..., None], (0, 0), sigma) / mass[..., None]

        blurs = [mean(sigma_mm) for sigma_mm in OCTAVES_MM]
        bands = [finer - coarser for finer, coarser in itertools.pairwise(blurs)]
        return SkinDetail(np.stack([_root(band, _plain(band, inner, px_per_mm)) for band in bands]))

    def tile(self, seed: int, step: int = 1) -> Float32[np.ndarray, "t t 3"]:
        """A picture of such detail that repeats without a seam, logarithms of factors.

        Args:
            seed: of the noise.
            step: see `AtlasTexels.step`; octaves finer than the texels are left out.
        """
        first = next(octave for octave in range(len(self.roots)) if 2**octave >= step)
        tile = sum(
            np.float32(gain) * (band @ root.astype(np.float32))
            for gain, band, root in zip(_STRONGER[first:], _bands(seed, first), self.roots[first:])
        )
        return np.ascontiguousarray(tile, np.float32)


def laid_over(
    tile: Float32[np.ndarray, "t t 3"],
    points_world: Float[np.ndarray, "n 3"],
    normals_world: Float[np.ndarray, "n 3"],
) -> Float32[np.ndarray, "n 3"]:
    """Detail at points of the skin, logarithms of factors.

    Args:
        tile: from `SkinDetail.tile`.
        points_world: world units.
        normals_world: unit normals.
    """
    share = np.abs(normals_world).astype(np.float32) ** _SHARE_OF_SKIN
    share /= np.maximum(np.linalg.norm(share, axis=1, keepdims=True), 1e-6)  # variances add up
    texels = (points_world / (UNITS_PER_MM * _TILE_MM)).astype(np.float32)
    found = np.zeros((len(points_world), 3), np.float32)
    for plane, (across, down) in enumerate(_PLANES):
        offset = np.float32(plane * _TILE_PX / 3)
        at = _sampled(tile, texels[:, across] + offset, texels[:, down] + offset)
        found += share[:, plane, None] * at
    return found


def _plain(
    band: Float32[np.ndarray, "s s 3"], inside: Bool[np.ndarray, "s s"], px_per_mm: float
) -> Bool[np.ndarray, "s s"]:
    """Where the skin is plain: the calmer part, without nostrils, lids, lips and folds."""
    weight = inside.astype(np.float32)
    sigma = _CALM_MM * px_per_mm
    energy = cv2.GaussianBlur(np.square(band).sum(-1) * weight, (0, 0), sigma)
    energy = energy / np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3)
    return inside & (energy <= np.quantile(energy[inside], _CALM))


def _root(band: Float32[np.ndarray, "s s 3"], inside: Bool[np.ndarray, "s s"]) -> Float[np.ndarray, "3 3"]:
    """Symmetric square root of the covariance of what does not stand out."""
    values = band[inside].astype(np.float64)
    values -= np.median(values, axis=0)
    most = _MOST_DEVIATIONS * usual_deviation(values.mean(1))
    values = values[np.abs(values).max(1) < max(most, 1e-4)]
    if len(values) < 10:
        return np.zeros((3, 3))
    variances, axes = np.linalg.eigh(values.T @ values / len(values))
    return (axes * np.sqrt(np.maximum(variances, 0))) @ axes.T


def _bands(seed: int, first: int) -> Iterator[Float32[np.ndarray, "t t 3"]]:
    """Octaves of white noise, each of deviation 1, that repeat without a seam; one after another from the `first`."""
    noise = np.random.default_rng(seed).standard_normal((_TILE_PX, _TILE_PX, 3)).astype(np.float32)
    blurs = (_blurred_all_round(noise, sigma_mm / _TILE_MM) for sigma_mm in OCTAVES_MM[first:])
    for finer, coarser in itertools.pairwise(blurs):
        band = finer - coarser
        yield band / band.std()


def _blurred_all_round(tile: Float32[np.ndarray, "t t 3"], sigma_px: float) -> Float32[np.ndarray, "t t 3"]:
    """A Gaussian blur of a tile that repeats in both directions; wide ones at a lower resolution."""
    factor = 4 if sigma_px > _WIDE_PX else 1
    small, sigma = reduced(tile, factor), sigma_px / factor
    pad = int(4 * sigma) + 2
    wide = wrapped_blur(np.concatenate([small[-pad:], small, small[:pad]]), sigma, sigma)
    return enlarged(wide, factor)[factor * pad : -factor * pad]


def _sampled(
    tile: Float32[np.ndarray, "t t 3"], column: Float32[np.ndarray, " n"], row: Float32[np.ndarray, " n"]
) -> Float32[np.ndarray, "n 3"]:
    """The repeating tile, bilinear."""
    count = len(column)
    shape = (-1, _REMAP_COLUMNS)  # OpenCV wants less than 32768 columns and rows
    x, y = (np.pad(at % _TILE_PX, (0, -count % _REMAP_COLUMNS)).reshape(shape) for at in (column, row))
    return cv2.remap(tile, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).reshape(-1, 3)[:count]

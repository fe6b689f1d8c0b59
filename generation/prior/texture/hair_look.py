"""How the portrait's hair looks: contrast octave by octave, colours of its detail, its tone; and locks made to match.

The detail of a tile is the logarithm of its colour over the colour's local mean. Its contrast is measured in octaves,
differences of Gaussian blurs, in the portrait itself, and the pattern of painted locks gets the same contrast, the same
distribution of brightness and the same colours.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from ..hair.locks import LockPattern
from ..hair.orientation import LUMINANCE, OCTAVES_MM, SeenHair, unit
from ..labels.worn_colour import cloth_colour, log_chroma
from .fills import enlarged, reduced, wrapped_blur

FLOOR = 0.03
"""Added to colours before their logarithm is taken."""
_TEXEL_MM = 0.55
_SIGMAS_PX = tuple(sigma_mm / _TEXEL_MM for sigma_mm in OCTAVES_MM)
"""Blurs whose differences are the octaves, texels."""
_BROAD_PX = 40.0
"""Variation between the last octave and this blur counts as broad."""
_SHARPER = (1.48, 1.17, 1.12, 1.45)
"""How much stronger than in the portrait each octave is painted: a render blurs the tile, the portrait was not."""
_GAINS = (0.25, 4.0)
_MOST_DEVIATIONS = 2.3
"""Of log brightness, which brightness tends to: nothing glares."""
_LAST_GAINS = (0.3, 3.0)
_BROAD_GAINS = (0.2, 3.0)
_DEFAULT_OCTAVES, _DEFAULT_BROAD = (0.04, 0.045, 0.04, 0.035), 0.05
_LEAST_TEXELS = 500
_QUANTILES = np.linspace(0, 1, 65)
_PAINTED = (0.2, 0.5)
"""Ratio of the second axis of colours to the first: photographs lie below, paintings above."""
_RIM_LIGHT, _PLAIN_TRUST, _PLAIN_TRUST_RANGE = 0.3, 0.8, 0.4
"""Hair that is seen from the side, with less trust than the second number, fully with so much less, is too bright if it
is brighter than that hair is by the first, log."""
_SLACK = 1.12
"""So much beyond the tenths and the nine tenths of the hair that is seen its brightness may go."""
_SPECK = (0.6, 1.0)
"""Any hair is too bright from the first excess on, for certain from the second."""
_THIN, _THINNER = (0.55, 0.25), 0.6
"""Where red varies less than green by the first ratio, by the second for certain, what varies is skin between thin
hair; it has by the last share less contrast."""


@dataclass(frozen=True)
class HairLook:
    """The look of the hair that is seen."""

    octaves: Float[np.ndarray, " 4"]
    """Standard deviation of log brightness in each octave."""
    broad: float
    """The same of broad variation."""
    broad_chroma: Float[np.ndarray, " 3"]
    """Standard deviation of the broad variation of each channel against brightness."""
    quantiles: Float[np.ndarray, " q"]
    """Of log brightness, standardised."""
    axes: Float[np.ndarray, "3 3"]
    """Principal directions of detail in log colour, the first towards brighter."""
    spreads: Float[np.ndarray, " 3"]
    """Standard deviations along them."""
    step: int = 1
    """See `AtlasTexels.step`."""

    @staticmethod
    def of(
        detail: Float32[np.ndarray, "h w 3"],
        known: Bool[np.ndarray, "h w"],
        colour: Float32[np.ndarray, "h w 3"],
        in_portrait: SeenHair | None,
        step: int = 1,
    ) -> HairLook:
        """The look of known texels; a plain one where too few are known.

        Args:
            detail: logarithm of colour over its local mean.
            known: where it may be learned from.
            colour: what is seen.
            in_portrait: what the portrait itself shows.
            step: see `AtlasTexels.step`.
        """
        least = _LEAST_TEXELS // step**2
        octaves = np.array(_DEFAULT_OCTAVES) if in_portrait is None else in_portrait.octaves
        if known.sum() < least:
            grey = np.full(3, 3**-0.5)
            axes = np.stack([grey, np.array([0.5, 0, -0.5]) * 2**0.5, np.array([1, -2, 1]) / 6**0.5])
            normal = np.sin(np.pi * (_QUANTILES - 0.5)) * 2.2
            return HairLook(octaves, _DEFAULT_BROAD, np.zeros(3), normal, axes, np.array([0.1, 0.01, 0.005]), step)
        grey = detail.mean(-1).astype(np.float32)
        core = cv2.erode(known.astype(np.uint8), np.ones((8 // step + 1,) * 2, np.uint8)) > 0
        core = core if core.sum() > least else known
        values = detail[known]
        values = values - values.mean(0)
        _, _, axes = np.linalg.svd(values[:: max(1, len(values) // 20_000)], full_matrices=False)
        axes[0] *= np.sign(axes[0].sum())
        spreads = (values @ axes.T).std(0)
        brightness = grey[core] - grey[core].mean()
        quantiles = np.quantile(brightness / max(float(brightness.std()), 1e-6), _QUANTILES)
        broad, chroma = _broad_variation(colour, known, step)
        thin = float(np.interp(-axes[0, 0] / max(float(axes[0, 1]), 1e-6), [-ratio for ratio in _THIN], (0, 1)))
        less = 1 - _THINNER * thin
        axes = _turned_to_grey(axes, thin)
        return HairLook(octaves * less, broad * less, chroma * (1 - thin), quantiles, axes, spreads, step)

    @property
    def painterly(self) -> float:
        """0 for photographs, 1 for paintings, whose strokes differ in colour as much as in brightness."""
        return float(np.interp(self.spreads[1] / max(float(self.spreads[0]), 1e-6), _PAINTED, (0, 1)))

    def detail_of(
        self, pattern: LockPattern, probe: Bool[np.ndarray, "h w"], *, sharper: tuple[float, ...] = _SHARPER
    ) -> Float32[np.ndarray, "h w 3"]:
        """The pattern with this contrast and these colours, as logarithms of factors.

        Args:
            pattern: painted locks.
            probe: texels whose contrast is to agree.
            sharper: factors on the octaves' contrast.
        """
        bands = octaves_of(pattern.shade, self.step)
        wanted = self.octaves * np.array(sharper)
        found = np.array([float(band[probe].std()) for band in bands])
        gains = np.clip(wanted / np.maximum(found, 1e-6), *_GAINS)
        made = np.tensordot(gains, np.stack(bands), axes=1)
        spread = float(made[probe].std())
        at = np.quantile(made[probe][::7], _QUANTILES)
        made = np.interp(made, at, self.quantiles * spread).astype(np.float32)
        made *= spread / max(float(made[probe].std()), 1e-6)
        low, lower = (_blurred(pattern.shade, sigma / self.step) for sigma in (_SIGMAS_PX[-1], _BROAD_PX))
        middle = low - lower
        gain = np.clip(0.45 * self.broad / max(float(middle[probe].std()), 1e-6), *_BROAD_GAINS)
        broad = np.float32(gain) * middle + np.float32(0.4) * (lower - lower[probe].mean())
        broad = np.clip(broad, -1.1 * self.broad, 1.1 * self.broad)
        scale = np.float32(3**0.5)  # the first axis has length 1, brightness is the mean of three channels
        axes, spreads = self.axes.astype(np.float32), self.spreads.astype(np.float32)
        tints = np.float32(0.9) * pattern.tints * spreads[1:]
        result = (scale * made)[..., None] * axes[0] + broad[..., None]
        result += tints[..., :1] * axes[1] + tints[..., 1:] * axes[2]
        if self.broad_chroma.any():
            wide = _blurred(np.ascontiguousarray(pattern.tints[..., 0]), 10.0 / self.step)
            wide /= max(float(wide[probe].std()), 1e-6)
            direction = self.broad_chroma * np.array([1, 0.2, -1.2])
            direction = (0.2 + 0.7 * self.painterly) * (direction - direction.mean())
            result += wide[..., None] * direction.astype(np.float32)
        # all of this changed the octaves; they are what counts
        brightness = result @ LUMINANCE
        brighter = axes[0] / max(float(axes[0] @ LUMINANCE), 0.2)
        for band, target in zip(octaves_of(brightness, self.step), wanted):
            gain = np.clip(target / max(float(band[probe].std()), 1e-6), *_LAST_GAINS)
            result += (np.float32(gain - 1) * band)[..., None] * brighter
        brightness = result @ LUMINANCE
        most = _MOST_DEVIATIONS * float(brightness[probe].std())
        glare = np.where(brightness > 0, brightness - most * np.tanh(brightness / most), 0)
        result -= glare[..., None] * brighter
        return result.astype(np.float32)


def _turned_to_grey(axes: Float[np.ndarray, "3 3"], share: float) -> Float[np.ndarray, "3 3"]:
    """Orthonormal axes whose first is this share of the way to grey."""
    first = unit(axes[0] + share * (np.full(3, 3**-0.5) - axes[0]))
    second = unit(axes[1] - (axes[1] @ first) * first)
    return np.stack([first, second, np.cross(first, second)]) if share > 0 else axes


def octaves_of(image: Float32[np.ndarray, "h w"], step: int = 1) -> list[Float32[np.ndarray, "h w"]]:
    """Four octaves of a tile, from fine to coarse; `step` as of `AtlasTexels`."""
    blurs = [_blurred(image, sigma / step) for sigma in _SIGMAS_PX]
    return [finer - coarser for finer, coarser in itertools.pairwise(blurs)]


def _blurred(image: Float32[np.ndarray, "h w *c"], sigma_px: float) -> Float32[np.ndarray, "h w *c"]:
    """`wrapped_blur`, wide ones at a lower resolution."""
    factor = 8 if sigma_px > 24 else 4 if sigma_px > 8 else 2 if sigma_px > 4 else 1
    if factor == 1 or image.shape[0] % factor or image.shape[1] % factor:
        return wrapped_blur(image, sigma_px, sigma_px)
    return enlarged(wrapped_blur(reduced(image, factor), sigma_px / factor, sigma_px / factor), factor)


def _broad_variation(
    colour: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"], step: int
) -> tuple[float, Float[np.ndarray, " 3"]]:
    """Standard deviation of broad log brightness, and of each channel against it."""
    weight = known.astype(np.float32)
    logs = np.log(np.clip(colour, 0, 1) + np.float32(FLOOR)) * weight[..., None]
    fine_px, broad_px = _SIGMAS_PX[-1] / step, _BROAD_PX / step
    near, far = _blurred(weight, fine_px), _blurred(weight, broad_px)
    broad = _blurred(logs, fine_px) / np.maximum(near, 1e-3)[..., None]
    broad -= _blurred(logs, broad_px) / np.maximum(far, 1e-3)[..., None]
    inside = known & (near > 0.6)
    if inside.sum() < _LEAST_TEXELS // step**2:
        return _DEFAULT_BROAD, np.zeros(3)
    values = broad[inside].astype(np.float64)
    brightness = values.mean(1)
    return float(brightness.std()), (values - brightness[:, None]).std(0)


@dataclass(frozen=True)
class HairTone:
    """Which colours are this portrait's hair."""

    chroma: Float[np.ndarray, " 3"]
    """Typical logarithm of colour less its mean over the channels."""
    spread: float
    """Distance from it at which belief has fallen to 1/e."""
    brightness: float
    """Typical mean of the channels, [0, 1]."""
    range: tuple[float, float] = (0.0, 1.0)
    """Mean of the channels, over some texels, that next to no hair is below, and next to none above."""
    step: int = 1
    """See `AtlasTexels.step`."""

    @staticmethod
    def of(colour: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"], step: int = 1) -> HairTone:
        """The tone of what is plainly seen; anything where nothing is."""
        sure = weight > 0.7 if (weight > 0.7).sum() > _LEAST_TEXELS // step**2 else weight > 0.4
        if sure.sum() < 200 // step**2:
            return HairTone(np.zeros(3), 10.0, 0.0, step=step)
        colours = cv2.GaussianBlur(colour, (0, 0), 2.0 / step)[sure]
        chroma = log_chroma(colours)
        middle = np.median(chroma, axis=0)
        spread = max(0.06, 2.6 * float(np.median(np.linalg.norm(chroma - middle, axis=-1))))
        dark, typical, bright = np.quantile(colours.mean(-1), (0.1, 0.5, 0.9)).tolist()
        return HairTone(middle, spread, typical, (dark / _SLACK, bright * _SLACK), step)

    @property
    def cloth(self) -> float:
        """1 for colours that no hair has grown in, 0 for others."""
        return float(cloth_colour(self.chroma, self.brightness))

    def belief(self, colour: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """1 for colours of the hair, falling to 0 for others."""
        factor = max(1, 2 // self.step)
        away = np.linalg.norm(log_chroma(wrapped_blur(reduced(colour, factor), 1.0, 1.0)) - self.chroma, axis=-1)
        return enlarged(np.exp(-((away / self.spread) ** 4)).astype(np.float32), factor)

    def glare(
        self, colour: Float32[np.ndarray, "h w 3"], trust: Float32[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "h w"]:
        """1 for what is too bright for this hair, 0 for the rest: the background's specks, and light along the rim.

        What is plainly seen may glitter; what is seen from the side is a thin line that would be spread over much hair.

        Args:
            colour: what is seen.
            trust: how plainly.
        """
        grey = colour.mean(-1)
        level, near = (
            np.log((g + FLOOR) / (self.range[1] + FLOOR))
            for g in (grey, wrapped_blur(grey, 2.0 / self.step, 2.0 / self.step))
        )
        rim = np.clip(near / _RIM_LIGHT, 0, 1) * np.clip((_PLAIN_TRUST - trust) / _PLAIN_TRUST_RANGE, 0, 1)
        speck = np.clip((level - _SPECK[0]) / (_SPECK[1] - _SPECK[0]), 0, 1)
        return np.maximum(rim, speck).astype(np.float32)

    def held(self, colour: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
        """Smooth colours with those that are none of this hair's brought to its border, in chroma and brightness."""
        small = reduced(colour, 4 // self.step)
        chroma = log_chroma(small)
        away = chroma - self.chroma
        length = np.linalg.norm(away, axis=-1, keepdims=True)
        nearer = self.chroma + away * np.minimum(1, 0.8 * self.spread / np.maximum(length, 1e-6))
        level = small.mean(-1, keepdims=True)
        brighter = (np.clip(level, *self.range) + 2 * FLOOR) / (level + 2 * FLOOR)
        factor = enlarged((np.exp(nearer - chroma) * brighter).astype(np.float32), 4 // self.step)
        return np.clip((colour + np.float32(2 * FLOOR)) * factor - np.float32(2 * FLOOR), 0.01, 1)

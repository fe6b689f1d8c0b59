"""Light as a factor on sRGB colours: bright as the skin that a portrait shows, never black and never blown out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from .spherical_harmonics import LUMINANCE

GAMMA = 2.2
"""sRGB is nearly light to the power of one by this, so that light is a factor on sRGB colours too."""
LEAST, MOST = 0.15, 1.25
"""Light is never reckoned darker or brighter than these shares of what the brighter seen skin gets."""
TINTS, TINT_SHARE = (0.6, 1.6), 0.5
"""Light of another colour than on the seen skin: its limits, and how much of it is believed."""
TINTLESS = 0.05
"""Light that is darker than this share of what the brighter seen skin gets has no colour of its own."""


@dataclass(frozen=True)
class Exposure:
    """How bright a light counts: about 1 on the skin that is seen."""

    middle: float
    """What half of the seen skin gets more of, luminance."""
    top: float
    """What a tenth of the seen skin gets more of, luminance."""
    white: Float[np.ndarray, " 3"]
    """Colour of light that changes no colour, of luminance 1."""

    @staticmethod
    def of(
        on_seen: Float[np.ndarray, "c 3"],
        weight: Float[np.ndarray, " c"],
        white: Float[np.ndarray, " 3"] | None = None,
    ) -> Exposure:
        """The exposure for a light.

        Args:
            on_seen: what seen skin gets of it, linear RGB.
            weight: of each, not all zero.
            white: colour of light that changes no colour; that on the middle of the seen skin if not given.
        """
        grey = on_seen @ LUMINANCE
        order = np.argsort(grey)
        mass = np.cumsum(weight[order]) / weight.sum()
        at_middle, at_top = order[np.searchsorted(mass, 0.5)], order[np.searchsorted(mass, 0.9)]
        middle = max(float(grey[at_middle]), 1e-3)
        white = on_seen[at_middle] / middle if white is None else white
        return Exposure(middle, float(grey[at_top]), np.maximum(white, 1e-3))

    def shade(self, light: Float[np.ndarray, "v 3"]) -> Float32[np.ndarray, "v 3"]:
        """Factors on sRGB colours of what surfaces get of the light, linear RGB."""
        grey = light @ LUMINANCE
        tint = np.clip(light / np.maximum(grey, 1e-3)[:, None] / self.white, *TINTS)
        tint = np.where((grey > TINTLESS * self.top)[:, None], tint, 1) ** TINT_SHARE
        low = 2 * LEAST * self.top
        held = np.where(grey > low, grey, low / 2 + np.square(np.maximum(grey, 0)) / (2 * low))
        most = MOST * self.top
        over = np.maximum(held - self.top, 0)
        held = np.minimum(held, self.top) + (most - self.top) * (1 - np.exp(-over / (most - self.top)))
        return ((held[:, None] * tint / self.middle) ** (1 / GAMMA)).astype(np.float32)

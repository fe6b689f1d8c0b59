"""The mean skull, as broad as adults' skulls are.

The source's mean head has a cranium of 158 mm by 195 mm without ears and hair: broader than people's, whose mean is
about 153 mm by 197 mm (from memory of Farkas 1994 and NIOSH 2003). Behind the face it is narrowed; the face itself, the
throat and the shoulders stay as they are, and ears go along with the skin they stand on. Its length is left alone:
heads fitted to photographs come out 153 mm by 199 mm on average (30 photographs).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from .anatomy import centimetres, world_units

BREADTH_FACTOR = 0.967
"""Breadth of the corrected cranium over that of the source's."""
_BEHIND_FACE_Z_CM = (7.5, 1.5)
"""From nothing at the first depth to all of it at the second, going back."""
_ABOVE_THROAT_Y_CM = (-7.0, 2.0)
"""From nothing at the first height to all of it at the second, going up."""


def with_average_skull(neutral_world: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    """The source's mean head with a skull of average breadth.

    Args:
        neutral_world: its vertices, world units.
    """
    at_cm = centimetres(neutral_world.astype(np.float64))
    x, y, z = at_cm.T
    above = _soft(y, *_ABOVE_THROAT_Y_CM)
    narrowed = 1 - (1 - BREADTH_FACTOR) * above * _soft(z, *_BEHIND_FACE_Z_CM)
    return world_units(np.stack([x * narrowed, y, z], axis=1)).astype(neutral_world.dtype)


def _soft(value: Float[np.ndarray, " v"], start: float, end: float) -> Float[np.ndarray, " v"]:
    """0 at `start` and beyond, 1 at `end` and beyond, smooth between."""
    share = np.clip((value - start) / (end - start), 0, 1)
    return share * share * (3 - 2 * share)

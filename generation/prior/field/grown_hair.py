"""Hair that goes on behind as hair grows: whoever has hair from ear to ear over the forehead has it behind as well, and
a wreath goes on down to the nape and is no band round the head.

A portrait from the front never shows the back of the head, and heads that lose their hair are many among those that the
networks learn from, so that the estimated field may hesitate there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ...cameras import UNITS_PER_MM
from ...head_model.anatomy import centimetres, ramp
from .chart import cell_frames
from .head_field import HAIR, HEADGEAR, SKIN, HeadField
from .observed_field import ObservedField

_SEEN = 0.3
"""Visibility from which on a cell stays as it is."""
_MOST = 0.85
"""The share of hair that is added up to."""
_FRONT, _ABOVE_CM, _WHOLE = 0.4, 4.0, 0.85
"""Hair goes from ear to ear if it is seen above this height in so many of the columns whose rays have more than the
first number of their length forwards."""
_SCALP_CM = ((-6.0, -4.0), (-1.5, -3.0), (7.0, 9.0))
"""Scalp lies above the first heights, and either behind the depths or above the last heights."""
_NAPE_TOP_CM = 8.0
"""Hair below this height goes on down to the nape's hairline."""
_SURE = (0.55, 0.7)
"""Shares of hair above a cell from which on it goes on below, and goes on for certain."""
_THICKNESS, _THIN = 10 * UNITS_PER_MM, 7 * UNITS_PER_MM
"""Hair that is added is no thicker than this; at the nape it thins out from the second."""


def with_grown_hair(field: HeadField, observed: ObservedField) -> HeadField:
    """The field with hair behind, where the portrait shows that there is hair before or above it and no bare skin.

    Args:
        field: estimated.
        observed: what the portrait shows.
    """
    y, z = _places_cm(field)
    unseen = observed.visibility < _SEEN
    low, behind, high = _SCALP_CM
    scalp = ramp(y, *low) * np.maximum(ramp(-z, -behind[0], -behind[1]), ramp(y, *high)) * unseen
    if _from_ear_to_ear(observed, y):
        usual = field.thickness[field.material[HAIR] > _SURE[1]]
        thickness = min(float(np.median(usual)), _THICKNESS) if len(usual) else _THIN
        field = _with_hair(field, scalp, np.full(y.shape, thickness) * ramp(y, low[0], 4.0))
    grows = (y < _NAPE_TOP_CM) * scalp
    above = np.maximum.accumulate(field.material[HAIR] * (grows > 0), axis=0).astype(np.float64)
    over = np.maximum.accumulate(field.thickness * (above > _SURE[0]), axis=0)
    thickness = np.minimum(_THIN * (0.3 + 0.7 * ramp(y, low[0], 2.0)), over)
    return _with_hair(field, ramp(above, *_SURE) * grows, thickness)


def _places_cm(field: HeadField) -> tuple[Float[np.ndarray, "56 64"], Float[np.ndarray, "56 64"]]:
    """Height and depth of the skull at each cell, centimetres."""
    frames = cell_frames()
    points = frames.origins_world + frames.outward * field.skull_radius[..., None].astype(np.float64)
    return tuple(np.moveaxis(centimetres(points), -1, 0)[1:])


def _from_ear_to_ear(observed: ObservedField, y: Float[np.ndarray, "56 64"]) -> bool:
    """Whether hair, and no headgear, is seen all along the upper border of the face."""
    hair = (observed.visibility * observed.material[HAIR] > 0.5) & (y > _ABOVE_CM)
    hat = (observed.visibility * observed.material[HEADGEAR] > 0.5).any()
    front = cell_frames().outward[len(y) // 3, :, 2] > _FRONT
    return bool(hair[:, front].any(0).mean() >= _WHOLE and not hat)


def _with_hair(field: HeadField, share: Float[np.ndarray, "56 64"], thickness: Float[np.ndarray, "56 64"]) -> HeadField:
    """The field with at least so much of `_MOST` of hair in place of skin, and there at least so thick."""
    more = np.clip(_MOST * share - field.material[HAIR] - field.material[HEADGEAR], 0, field.material[SKIN])
    material = field.material.astype(np.float64)
    material[HAIR] += more
    material[SKIN] -= more
    raised = np.where(more > 0.05, np.maximum(field.thickness, thickness), field.thickness)
    return replace(field, material=material.astype(np.float32), thickness=raised.astype(np.float32))

"""Hair behind the ears that goes on down to the nape, as it grows: a wreath is no band round the head.

A portrait from the front never shows the nape, and bald heads with hair at their sides are rare, so that the estimated
field hesitates below it. Hair that is shaved there and left to grow above is rarer still.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...cameras import UNITS_PER_MM
from ...head_model.anatomy import centimetres, ramp
from .chart import cell_frames
from .head_field import HAIR, SKIN, HeadField
from .observed_field import ObservedField

_HEIGHT_CM, _NAPE_CM, _BEHIND_CM = 8.0, (-6.0, -4.0), (-1.5, -3.0)
"""Hair below the first height goes on down to the nape's hairline, where it is before the first and behind the second
depth."""
_SURE, _MOST = (0.55, 0.7), 0.85
"""Shares of hair above a cell from which on it goes on below, and goes on for certain; and the most that is added up
to."""
_THICKNESS = 7 * UNITS_PER_MM
"""Hair that is added is no thicker than this at the height of the ears, and thins out towards the nape."""
_SEEN = 0.3
"""Visibility from which on a cell stays as it is."""


def with_grown_nape(field: HeadField, observed: ObservedField) -> HeadField:
    """The field with hair below hair, behind the ears down to the nape, where the portrait does not show bare skin.

    Args:
        field: estimated.
        observed: what the portrait shows.
    """
    frames = cell_frames()
    points_cm = centimetres(frames.origins_world + frames.outward * field.skull_radius[..., None].astype(np.float64))
    y, z = points_cm[..., 1], points_cm[..., 2]
    grows = (y < _HEIGHT_CM) * ramp(-z, -_BEHIND_CM[0], -_BEHIND_CM[1])
    hair = field.material[HAIR].astype(np.float64)
    above = np.maximum.accumulate(hair * (grows > 0), axis=0)
    goes_on = ramp(above, *_SURE) * grows * ramp(y, *_NAPE_CM) * (observed.visibility < _SEEN)
    more = np.clip(_MOST * goes_on - hair, 0, field.material[SKIN])
    thickness = field.thickness.astype(np.float64)
    at_most = _THICKNESS * (0.3 + 0.7 * ramp(y, _NAPE_CM[0], 2.0))
    raised = np.minimum(np.maximum(thickness, at_most), np.maximum.accumulate(thickness * (above > _SURE[0]), axis=0))
    material = field.material.astype(np.float64)
    material[HAIR] += more
    material[SKIN] -= more
    return replace(
        field,
        material=material.astype(np.float32),
        thickness=np.where(more > 0.05, raised, thickness).astype(np.float32),
    )

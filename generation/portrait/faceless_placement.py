"""Where the head is when no face can be seen: read off the outline of the person."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

from ..cameras import PANOHEAD_RADIUS
from ..errors import InputError
from ..head_model import HeadFit, HeadModel, mean_head_fit
from ..head_model.anatomy import CHIN_LANDMARK

_HAIR_ON_CROWN = 0.05
"""Hair above the skull, in units of the height from crown to chin."""
_HEAD_WIDTH_OF_HEIGHT = 0.9
"""Width of head and hair in units of the height from crown to chin."""
_LEAST_HEAD_PX = 24
_LEAST_AREA, _MOST_AREA = 0.02, 0.92


def place_head_by_matte(matte_unit: Float32[np.ndarray, "h w"], model: HeadModel, source: str) -> HeadFit:
    """The mean head, seen from the front, put where the outline of a person has its head.

    The top of the outline is the crown. The height of the head comes from the neck (the narrowest row below the head)
    where there is one, otherwise from the width of the outline below its top.

    Args:
        matte_unit: opacity of the person in the whole picture, [0, 1].
        model: the parametric head.
        source: name of the picture for messages.

    Raises:
        InputError: the outline is empty, fills the picture, or is too small.
    """
    mask = matte_unit > 0.5
    share = float(mask.mean())
    if share < _LEAST_AREA or share > _MOST_AREA:
        raise InputError(
            f"{source}: no head is seen against the background ({100 * share:.0f}% of the picture looks like a person);"
            " give a picture of one person in front of a plain background, or one with a transparent background"
        )
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    person = labels == 1 + int(np.argmax(stats[1:count, cv2.CC_STAT_AREA]))
    rows = np.flatnonzero(person.sum(1) >= 3)
    top, bottom = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
    height = _head_height_px(person[top:bottom].sum(1).astype(np.float64)) if bottom - top >= _LEAST_HEAD_PX else 0.0
    if height < _LEAST_HEAD_PX:
        raise InputError(
            f"{source}: what looks like a person is too small to hold a head; crop the picture to head and shoulders"
        )
    region = person[top : top + max(1, round(0.8 * height))]
    columns = np.arange(region.shape[1])
    middles = [columns[row].mean() + 0.5 for row in region if row.any()]
    crown_y = float(model.neutral[:, 1].max())
    chin_y = float(model.landmarks(model.neutral.astype(np.float64))[CHIN_LANDMARK, 1])
    pixels_per_unit = height / (crown_y - chin_y) / (1 + _HAIR_ON_CROWN)
    principal = (float(np.median(middles)), top + _HAIR_ON_CROWN * height + crown_y * pixels_per_unit)
    return mean_head_fit(model, pixels_per_unit * PANOHEAD_RADIUS, principal, mask.shape[1], mask.shape[0])


def _head_height_px(widths: np.ndarray) -> float:
    """Crown to chin, hair included, out of the outline's width per row from the top down."""
    smooth = np.convolve(widths, np.ones(5) / 5, mode="same")
    heights = np.arange(1, len(smooth) + 1)
    widest = np.maximum.accumulate(smooth)
    fits = np.flatnonzero(widest[(0.6 * heights).astype(int)] <= _HEAD_WIDTH_OF_HEIGHT * heights)
    by_width = float(heights[fits[0]]) if len(fits) else 0.0
    if by_width == 0.0:
        return float(len(smooth))  # the outline ends before the chin: all that is seen is head
    # The neck: the first row below the head that is narrower than its neighbours, clearly narrower than the head and
    # followed by something wider.
    reach = max(2, round(0.06 * by_width))
    for row in range(int(0.6 * by_width), min(int(1.5 * by_width), len(smooth) - reach)):
        is_narrowest = smooth[row] <= smooth[row - reach : row + reach + 1].min()
        if is_narrowest and smooth[row] < 0.8 * widest[row] and smooth[row:].max() > 1.15 * smooth[row]:
            return 0.95 * row
    return by_width

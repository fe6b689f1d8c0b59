"""A file's own transparency, taken as a hint: the outline is believed, holes and veils inside the head are not.

Programs that cut people out leave eyes, teeth and cheeks translucent, or full of pin holes. A head is opaque inside, so
that what the outline encloses is made whole there; gaps between strands, and what lies far from the head, stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

if TYPE_CHECKING:
    from .matte import HeadZones

_OUTSIDE_BELOW = 64
"""Alpha, of 255, below which what hangs together with the picture's border is background."""
_EDGE_OF_SIDE = 0.01
"""Width of the outline's soft edge at most, in units of the picture's shorter side; used before a head is found."""
_FACE_EDGE_CM, _HAIR_EDGE_CM = 0.3, 1.2
"""Width of the soft edge of face and neck, and of hair and clothes, centimetres."""
_HAIR_REACH_CM = 6.0
"""Distance from the fitted head to which hair is made whole, centimetres."""
_VEIL = 0.3
"""Opacity from which hair is veiled; below it is a gap, unless it is as small as a pin hole."""
_PIN_HOLE_CM = 0.6
"""Side of a pin hole in hair or clothes at most, centimetres."""
_TOLD_BELOW, _TOLD_SHARE = 0.95, 0.002
"""Opacity below which a pixel counts as mended; share of the head's pixels from which the mending is told."""


def enclosed(alpha: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """What the outline holds, holes included: all but the transparent parts that reach the picture's border."""
    outside = (alpha < _OUTSIDE_BELOW).astype(np.uint8)
    _, labels = cv2.connectedComponents(outside, connectivity=4)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    at_border = np.unique(border[border > 0])
    return ~np.isin(labels, at_border)


def shown_over_white(rgb: UInt8[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture over white, its colours whole inside the outline whatever the alpha says there.

    Where all transparent pixels have one colour, their own is lost, and holes are painted from their surroundings.
    """
    edge_px = max(2.0, _EDGE_OF_SIDE * min(alpha.shape))
    inner = cv2.distanceTransform(enclosed(alpha).astype(np.uint8), cv2.DIST_L2, 5) > edge_px
    lost = inner & (alpha == 0)
    if lost.any() and np.ptp(rgb[alpha == 0], axis=0).max() == 0:
        rgb = cv2.inpaint(np.ascontiguousarray(rgb), lost.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    opacity = np.where(inner, 255, alpha)[..., None].astype(np.float32) / 255
    return np.round(rgb * opacity + 255 * (1 - opacity)).astype(np.uint8)


def whole_inside(alpha_unit: Float32[np.ndarray, "s s"], zones: HeadZones) -> tuple[Float32[np.ndarray, "s s"], bool]:
    """The alpha of a crop, opaque inside the head, and whether that changed so much that it has to be told."""
    inside = enclosed(np.rint(alpha_unit * 255).astype(np.uint8))
    depth_cm = cv2.distanceTransform(np.pad(inside, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5) / zones.cm_px
    depth_cm = depth_cm[1:-1, 1:-1]
    face = (zones.head | zones.body) & (depth_cm > _FACE_EDGE_CM)
    hair = zones.above_chin & (zones.distance_cm < _HAIR_REACH_CM) & (depth_cm > _HAIR_EDGE_CM)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((alpha_unit < _VEIL).astype(np.uint8), connectivity=8)
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < (_PIN_HOLE_CM * zones.cm_px) ** 2)
    pin_holes = np.isin(labels, small[small > 0]) & (depth_cm > _FACE_EDGE_CM)
    pin_holes = cv2.dilate(pin_holes.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0  # with their soft rims
    whole = face | (hair & (alpha_unit >= _VEIL)) | (pin_holes & inside)
    mended = whole & (alpha_unit < _TOLD_BELOW)
    told = int(mended.sum()) > _TOLD_SHARE * max(int(zones.head.sum()), 1)
    return np.where(whole, np.float32(1), alpha_unit), told

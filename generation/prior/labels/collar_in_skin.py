"""Collars that are taken for the neck: what joins the cloth in a colour of cloth, and in none of the face, is cloth.

A white collar beside a neck in the shade is a narrow strip between two borders, and half of it goes to the neck.
Painted on it the strip would stand there as a white fin.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from ...cielab import lab_of
from ...portrait import Portrait

_BINS_LAB = np.array([10.0, 8.0, 8.0])
_LEAST_SHARE = 0.01
"""Colours are the means of such bins, CIELAB, that hold so much of a thing."""
_SHADES = (1.0, 0.8, 0.6, 0.45, 0.3)
"""Brightness of skin in the shade."""
_NEARER, _LEAST_APART, _ALIKE = 0.6, 9.0, 16.0
"""A pixel is cloth if cloth is nearer than this share of the way to the skin, which is at least the second number away,
and cloth at most the third."""
_NEAR = 0.25
"""Of the picture's side: cloth so far from the skin below the face does not count."""
_LEAST_PX = 200


def collar_in_skin(
    skin: Bool[np.ndarray, "s s"], cloth: Bool[np.ndarray, "s s"], portrait: Portrait, face: Bool[np.ndarray, "s s"]
) -> Bool[np.ndarray, "s s"]:
    """Pixels called skin that have the colours of the cloth that they join.

    Args:
        skin, cloth: what is labelled so.
        portrait: aligned portrait.
        face: pixels of the face for certain.
    """
    none = np.zeros_like(skin)
    rows = np.flatnonzero(face.any(1))
    if not len(rows):
        return none
    todo = skin & ~face & (np.arange(len(face))[:, None] > rows.mean())
    size = len(face)
    near = cv2.boxFilter(todo.astype(np.float32), -1, (2 * round(_NEAR * size / 2) + 1,) * 2) > 0
    solid = portrait.alpha_unit > 0.9
    worn, plain = cloth & near & solid, face & solid
    if min(todo.sum(), worn.sum(), plain.sum()) < _LEAST_PX:
        return none
    rgb = cv2.GaussianBlur(np.ascontiguousarray(portrait.foreground_unit, dtype=np.float32), (0, 0), 1.0)
    of_cloth = _colours(lab_of(rgb[worn]))
    of_skin = np.concatenate([_colours(lab_of(rgb[plain] * np.float32(shade))) for shade in _SHADES])
    found = none.copy()
    lab = lab_of(rgb[todo])
    to_cloth, to_skin = (_nearest(lab, of) for of in (of_cloth, of_skin))
    found[todo] = (to_cloth < _NEARER * to_skin) & (to_skin > _LEAST_APART) & (to_cloth < _ALIKE)
    found &= cv2.morphologyEx((found | cloth).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    pieces, _ = cast("tuple[np.ndarray, int]", ndimage.label(found | cloth, np.ones((3, 3), bool)))
    return found & np.isin(pieces, np.setdiff1d(pieces[cloth], [0]))


def _colours(lab: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "k 3"]:
    """Means of the bins that hold enough."""
    bins = np.floor(lab / _BINS_LAB).astype(np.int64)
    bins -= bins.min(0)
    keys = (bins[:, 0] * (bins[:, 1].max() + 1) + bins[:, 1]) * (bins[:, 2].max() + 1) + bins[:, 2]
    _, number, count = np.unique(keys, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(number, lab[:, c]) for c in range(3)], axis=1) / count[:, None]
    return means[count >= min(_LEAST_SHARE * len(lab), count.max())].astype(np.float32)


def _nearest(lab: Float32[np.ndarray, "n 3"], colours: Float32[np.ndarray, "k 3"]) -> Float32[np.ndarray, " n"]:
    """Distance to the nearest colour."""
    return np.min([np.linalg.norm(lab - colour, axis=1) for colour in colours], axis=0)

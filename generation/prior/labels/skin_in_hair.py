"""Skin that the segmenter takes for hair, told by its colour: ears in the shade, and temples in glaring light.

In light from one side the far ear and the jaw below it are as dark as hair is elsewhere. Their colour without its
brightness is still that of skin. Where that differs enough from the hair's, and the other ear says that hair is short,
it decides beside the face and below the top of the ear. On the near side the skin's border with dark hair may be lost
in white: there what is as light as the skin beside it is skin.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from ...cielab import lab_of
from ...head_model import HeadModel, anatomy
from ...head_model.anatomy import centimetres, ramp
from ...mesh_raster import interpolate, rasterize_mesh
from ...portrait import Portrait
from .segmenter import EAR, FACE, HAIR, HEADGEAR, SKIN_CLASSES
from .worn_colour import log_chroma

_TOP_CM, _BOTTOM_CM, _FROM_SIDE_CM, _BEHIND_CM = 4.5, -8.0, 5.0, -3.0
"""Height between which, least distance from the middle plane and depth before which this may be."""
_ABOVE_CM = 6.0
"""What is hair above this height tells its colour."""
_BARE, _HIDDEN = 0.4, 0.25
"""An ear is bare if more than the first share of what is expected of it is labelled ear nearby, hidden if less than the
second is."""
_NEAR = 1.3
"""Of the expected ear's height, about its middle."""
_LEAST_APART = 0.22
"""Least distance between the colours of skin and hair, logarithms of chroma."""
_NEARER = (0.55, 0.75)
"""Share of the way from the hair's colour to the skin's from which on it is skin, and is for certain."""
_BLUR, _LEAST_PX, _LEAST_EAR_PX = 3.0 / 512, 60, 300
_BESIDE = 9.0 / 512
"""Of the picture's side: how far skin tells how light it is."""
_LEAST_LIGHTER, _AS_LIGHT, _GLARE = 45.0, 7.0, 80.0
"""Skin has to be lighter than the hair by the first number; hair is skin that is at most by the second darker than it,
and lighter than the third: grey hair in full light is as light as skin, but not as glare. CIELAB."""


def with_shaded_skin(
    classes: Float32[np.ndarray, "s s 11"], portrait: Portrait, model: HeadModel
) -> Float32[np.ndarray, "s s 11"]:
    """The segmenter's probabilities with shaded skin about a hidden ear as skin, where the other ear is bare.

    Args:
        classes: probability of each of the segmenter's classes.
        portrait: aligned portrait with its fitted head.
        model: the head model of the fit.
    """
    on_scalp = (HAIR, HEADGEAR)
    is_skin = classes[..., SKIN_CLASSES].sum(-1) > 0.5
    is_hair = classes[..., on_scalp].sum(-1) > 0.5
    cm = centimetres(model.neutral)
    fragments = rasterize_mesh(portrait.head.vertices_world, model.skin_faces, portrait.head.camera)
    values = np.concatenate([cm, anatomy.EAR.holds(cm)[:, None]], axis=1).astype(np.float32)
    x, y, z, ear = np.moveaxis(interpolate(fragments, values, model.skin_faces), -1, 0)
    person = portrait.alpha_unit > 0.9
    beside = fragments.hit & (np.abs(x) > _FROM_SIDE_CM) & (y < _TOP_CM) & (y > _BOTTOM_CM) & (z > _BEHIND_CM)
    labelled = classes.argmax(-1) == EAR
    share = {side: _share(labelled, fragments.hit & (ear > 0.5) & (x * side > 0)) for side in (-1, 1)}
    hidden = [side for side in (-1, 1) if share[side] < _HIDDEN and share[-side] > _BARE]
    chroma = log_chroma(_blurred(portrait.foreground_unit))
    hair, skin = is_hair & person & fragments.hit & (y > _ABOVE_CM), is_skin & person & fragments.hit & (y < _TOP_CM)
    if not hidden or min(hair.sum(), skin.sum()) < _LEAST_PX:
        return classes
    hair_chroma, skin_chroma = np.median(chroma[hair], axis=0), np.median(chroma[skin], axis=0)
    way = skin_chroma - hair_chroma
    if np.linalg.norm(way) < _LEAST_APART:
        return classes
    nearer = ramp((chroma - hair_chroma) @ way / (way @ way), *_NEARER) * (beside & (x * hidden[0] > 0))
    moved = (classes[..., on_scalp].sum(-1) * nearer).astype(np.float32)
    result = classes.copy()
    result[..., on_scalp] *= (1 - nearer)[..., None].astype(np.float32)
    result[..., EAR] += np.where(ear > 0.5, moved, 0)
    result[..., FACE] += np.where(ear > 0.5, 0, moved)
    return result


def with_bright_skin(classes: Float32[np.ndarray, "s s 11"], portrait: Portrait) -> Float32[np.ndarray, "s s 11"]:
    """The segmenter's probabilities with what is as light as the skin beside it, among much darker hair, as skin.

    Args:
        classes: probability of each of the segmenter's classes.
        portrait: aligned portrait.
    """
    on_scalp = (HAIR, HEADGEAR)
    person = portrait.alpha_unit > 0.9
    is_skin = (classes[..., SKIN_CLASSES].sum(-1) > 0.5) & person
    is_hair = (classes[..., on_scalp].sum(-1) > 0.5) & person
    if min(is_skin.sum(), is_hair.sum()) < _LEAST_PX:
        return classes
    lightness = lab_of(_blurred(portrait.foreground_unit, 0.5 * _BLUR))[..., 0]
    dark = float(np.quantile(lightness[is_hair], 0.3))
    reach = _BESIDE * len(lightness)
    result, todo = is_skin, is_hair & (lightness > max(dark + _LEAST_LIGHTER, _GLARE))
    of_skin = np.where(is_skin, lightness, 0).astype(np.float32)
    for _ in range(3):  # what was found tells how light the skin is beside it, not how light it is itself: hair is next
        mass = cv2.GaussianBlur(result.astype(np.float32), (0, 0), reach)
        beside = cv2.GaussianBlur(of_skin, (0, 0), reach) / np.maximum(mass, 1e-3)
        found = todo & (mass > 0.05) & (beside > dark + _LEAST_LIGHTER) & (lightness > beside - _AS_LIGHT)
        of_skin = np.where(found & ~result, beside, of_skin)
        result = result | found
    found = (result & ~is_skin).astype(np.uint8)
    width = 2 * (len(found) // 128) + 1
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((width, width), np.uint8)) > 0
    moved = classes[..., on_scalp].sum(-1)[found]
    result = classes.copy()
    result[..., on_scalp] *= ~found[..., None]
    result[found, FACE] += moved
    return result


def _share(labelled: Bool[np.ndarray, "s s"], expected: Bool[np.ndarray, "s s"]) -> float:
    """How much of an ear is labelled about where it is expected; neither much nor little where little is expected."""
    if expected.sum() < _LEAST_EAR_PX:
        return (_BARE + _HIDDEN) / 2
    row, column = np.nonzero(expected)
    at = np.indices(labelled.shape)
    near = np.hypot(at[0] - row.mean(), at[1] - column.mean()) < _NEAR * (np.ptp(row) + 1)
    return float((labelled & near).sum() / expected.sum())


def _blurred(rgb_unit: Float32[np.ndarray, "s s 3"], sigma: float = _BLUR) -> Float32[np.ndarray, "s s 3"]:
    return cv2.GaussianBlur(np.ascontiguousarray(rgb_unit, dtype=np.float32), (0, 0), sigma * len(rgb_unit))

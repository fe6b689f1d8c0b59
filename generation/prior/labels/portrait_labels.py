"""Tell skin, hair and cloth apart in a portrait, with the fitted head as the guide.

A trained network (`segmenter`) says what each pixel is; a spatial prior from the projected head (the scalp is probably
hair, the face and the neck are skin, what lies below and beside the neck is probably cloth) weighs a little where it
hesitates; an edge-aware filter smooths the result. "Hair" means everything worn above the shoulders: hats, turbans and
scarves over the head are hair to this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from ...cameras import Cameras
from ...cielab import lab_of
from ...head_model import FACE_OVAL_LANDMARKS, HeadModel, anatomy
from ...head_model.anatomy import centimetres, ramp
from ...head_model.model import PART_CRANIUM_NECK
from ...mesh_raster import interpolate, rasterize_mesh
from ...networks import LoadedNetwork
from ...portrait import Portrait
from .. import capsule
from . import segmenter as classes_of_segmenter
from .collar_in_skin import collar_in_skin
from .headgear_border import border_by_colour
from .segmenter import SEGMENTER, Segmenter, segment
from .skin_in_hair import with_bright_skin, with_shaded_skin
from .worn_colour import cloth_among

SKIN, HAIR, CLOTH = 0, 1, 2
_EAR_STANDS_OUT = 0.002
"""Vertices of the ear stand this far out of the opened skull, world units."""
_HAIR_ON_EARS = 0.1
"""Hair over ears, relative to the scalp about them."""
_LEAST_SHARE = 0.03
"""Every class is at least this likely nearly everywhere."""
_PRIOR_WEIGHT = 0.25
"""Exponent of the fitted head's spatial prior beside the network's probabilities."""
_LEAST_PRIOR = 0.08
"""Smallest spatial prior: a high collar may reach where hair usually is."""
_LEAST_WORN_PX = 60
_LIKELY_WORN, _SAME = 0.36, 0.4
"""From this mean share of headgear on, what has the same colours, over the second number of them, is headgear: hoods
and scarves are taken for hair where they lie as hair does."""
_BLACK, _REDDER = 20.0, (0.7, 2.0)
"""But not in colours that hair has, CIELAB: black, or yellow with at most this share of red, and this much more."""
_SURE_HAT = 0.86
"""In such colours headgear has to be this likely where it is likelier than hair: hats are so by 0.9 and more, dark hair
above grey temples by 0.75 at most, a painted braid by 0.81."""
_BINS_LAB = (np.arange(0, 101, 10), np.arange(-60, 61, 8), np.arange(-60, 61, 8))
_ALIKE_LAB = np.array([10.0, 5.0, 5.0])
"""Two things look alike if their medians differ by less than this and their own spreads, CIELAB."""


@dataclass(frozen=True)
class PortraitLabels:
    """Class maps of a portrait, all of its size."""

    probability: Float[np.ndarray, "s s 3"]
    """Posterior of skin, hair, cloth in the foreground."""
    skin: Bool[np.ndarray, "s s"]
    """Face, ears, neck."""
    hair: Bool[np.ndarray, "s s"]
    """Hair and headwear."""
    cloth: Bool[np.ndarray, "s s"]
    """Clothes and everything else below the neck."""
    headgear_share: Float32[np.ndarray, "s s"]
    """Probability of headgear beside that of hair: 1 is all headgear."""
    classes: Float32[np.ndarray, "s s 11"]
    """What the segmenter said: probability of each of its `CLASS_NAMES`."""


def project_px(camera: Cameras, points_world: Float[np.ndarray, "*p 3"]) -> Float[np.ndarray, "*p 2"]:
    """Pixel positions of world points in one camera."""
    points = torch.from_numpy(np.ascontiguousarray(points_world.reshape(-1, 3), dtype=np.float64))
    return camera.project(points)[0, :, :2].numpy().reshape(*points_world.shape[:-1], 2)


def ear_vertices(model: HeadModel) -> Bool[np.ndarray, " v"]:
    """Vertices of the ears: what stands out of the opened skull at their place."""
    near = anatomy.EAR.holds(centimetres(model.neutral)) & (model.part <= PART_CRANIUM_NECK)
    skull = capsule.opened_skull_radius(model.neutral, model.skin_faces)
    row, column, radius = capsule.cell_coordinates(model.neutral)
    skull_here = ndimage.map_coordinates(skull, [row, column], order=1, mode="grid-wrap")
    return near & (radius > skull_here + _EAR_STANDS_OUT)


def scalp_prior(model: HeadModel) -> Float[np.ndarray, " v"]:
    """How likely each vertex carries hair, from where hairlines usually run: 1 on the scalp, 0 on face and neck."""
    _, y, z = centimetres(model.neutral).T
    above_hairline = ramp(y, *anatomy.HAIRLINE_Y_CM)
    behind_temples = ramp(z, *anatomy.TEMPLES_Z_CM) * ramp(y, *anatomy.NAPE_Y_CM)
    scalp = np.maximum(above_hairline, behind_temples)
    return np.where(ear_vertices(model), _HAIR_ON_EARS * scalp, scalp)


def _spatial_prior(portrait: Portrait, model: HeadModel) -> tuple[Float[np.ndarray, "s s 3"], float]:
    """Prior of skin, hair, cloth per pixel; also the chin's row in pixels."""
    camera, size = portrait.head.camera, portrait.size_px
    y_cm = centimetres(model.neutral)[:, 1]
    faces = model.skin_faces
    faces = faces[(y_cm[faces] > anatomy.OWN_SHOULDERS_Y_CM).all(1)]
    fragments = rasterize_mesh(portrait.head.vertices_world, faces, camera)
    attributes = np.stack([scalp_prior(model), y_cm], axis=1).astype(np.float32)
    scalp, height_cm = np.moveaxis(interpolate(fragments, attributes, faces), -1, 0)
    covered = fragments.hit
    middle_cm = np.array(
        [[0.0, anatomy.CHIN_Y_CM, anatomy.CHIN_Z_CM], [0.0, anatomy.NECK_BASE_Y_CM, anatomy.NECK_BASE_Z_CM]]
    )
    chin_row, neck_row = project_px(camera, anatomy.world_units(middle_cm))[:, 1].tolist()
    rows = np.arange(size, dtype=np.float64)[:, None]

    # Outside the head: hair above, cloth below, changing about half-way down the neck.
    hair_outside = np.clip(0.97 - 0.65 * np.clip((rows - chin_row) / (neck_row - chin_row) + 0.5, 0.0, 1.4), 0.06, 0.97)
    cloth_outside = np.clip(1.0 - hair_outside - _LEAST_SHARE, 0.0, 1.0)
    outside = np.stack(np.broadcast_arrays(np.full_like(rows, _LEAST_SHARE), hair_outside, cloth_outside), axis=-1)
    outside = np.broadcast_to(outside, (size, size, 3))

    on_neck = covered & (height_cm < anatomy.NECK_TOP_Y_CM)
    hair_inside = np.where(on_neck, 0.08, _LEAST_SHARE + 0.94 * scalp)
    collar, shoulder = anatomy.COLLAR_Y_CM
    neck_cloth = np.clip((collar - height_cm) / (collar - shoulder), 0.02, 0.85)
    cloth_inside = np.where(on_neck, neck_cloth, 0.005)
    skin_inside = np.clip(1.0 - hair_inside - cloth_inside, 0.02, 1.0)
    inside = np.stack([skin_inside, hair_inside, cloth_inside], axis=-1)

    prior = np.where(covered[..., None], inside, outside)
    # The fit is off by some pixels at its rim; let the two sides of the outline mix.
    prior = np.stack([cv2.GaussianBlur(prior[..., k], (0, 0), size / 170) for k in range(3)], axis=-1)
    return prior / prior.sum(-1, keepdims=True), chin_row


def _face_core(portrait: Portrait, model: HeadModel) -> Bool[np.ndarray, "s s"]:
    """Pixels that are the face for certain: the landmark hull, shrunk, or the projected face mask without landmarks."""
    core = np.zeros(portrait.alpha_unit.shape, np.uint8)
    if portrait.landmarks_px is not None:
        oval = portrait.landmarks_px[FACE_OVAL_LANDMARKS, :2]
    else:
        landmarks_world = model.landmarks(portrait.head.vertices_world)
        oval = project_px(portrait.head.camera, landmarks_world[FACE_OVAL_LANDMARKS])
    cv2.fillConvexPoly(core, cv2.convexHull(oval.astype(np.int32)), (1,))
    radius = max(3, portrait.size_px // 36)
    return cv2.erode(core, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)) > 0


def label_portrait(
    portrait: Portrait,
    model: HeadModel,
    *,
    segmenter: LoadedNetwork[Segmenter] | None = None,
) -> PortraitLabels:
    """Skin, hair and cloth of a portrait.

    Beards, glasses and jewellery count as skin, on which they lie; hats and scarves over the head as hair.

    Args:
        segmenter: the network; None takes the one that ships.
    """
    classes = segment(portrait.rgb, portrait.inside, segmenter or SEGMENTER.load())
    classes = with_bright_skin(with_shaded_skin(classes, portrait, model), portrait)
    core = _face_core(portrait, model)
    prior, chin_row = _spatial_prior(portrait, model)
    foreground = portrait.alpha_unit > 0.5
    worn_on_skin = (
        *classes_of_segmenter.SKIN_CLASSES, classes_of_segmenter.BEARD, classes_of_segmenter.GLASSES,
        classes_of_segmenter.ACCESSORY,
    )  # fmt: skip
    on_the_scalp = (classes_of_segmenter.HAIR, classes_of_segmenter.HEADGEAR)
    cloth = classes[..., classes_of_segmenter.CLOTH]
    seen = np.stack([classes[..., worn_on_skin].sum(-1), classes[..., on_the_scalp].sum(-1), cloth], axis=-1)
    probability = (seen + 1e-3) * np.maximum(prior, _LEAST_PRIOR) ** _PRIOR_WEIGHT
    probability = _smoothed(probability / probability.sum(-1, keepdims=True), foreground)
    on_scalp = np.maximum(seen[..., HAIR], 1e-3)
    share = (classes[..., classes_of_segmenter.HEADGEAR] / on_scalp).astype(np.float32)
    worn = foreground & (probability.argmax(-1) == HAIR)
    share = one_reading(share, worn, portrait.foreground_unit)
    share = border_by_colour(share, worn, portrait.foreground_unit)
    share = np.maximum(share, cloth_among(portrait.foreground_unit, worn))
    return _hard_classes(probability, portrait, core, prior, chin_row, share, classes)


def one_reading(
    headgear_share: Float32[np.ndarray, "s s"], worn: Bool[np.ndarray, "s s"], rgb_unit: Float32[np.ndarray, "s s 3"]
) -> Float32[np.ndarray, "s s"]:
    """The share of headgear without patches that have the colour of what surrounds them.

    Nobody wears a hat of exactly the hair's colour on a part of it: what is called headgear and what is called hair is
    read as one thing, the likelier one, where the two look alike. What is called headgear with little certainty and
    has a colour that hair grows in is hair.

    Args:
        headgear_share: probability of headgear beside that of hair.
        worn: pixels of hair and headgear.
        rgb_unit: the person's colours, sRGB.
    """
    hat = worn & (headgear_share > 0.5)
    hair = worn & ~hat
    if min(hat.sum(), hair.sum()) < _LEAST_WORN_PX:
        return headgear_share
    lab = lab_of(rgb_unit)
    middles = [np.median(lab[mask], axis=0) for mask in (hat, hair)]
    if _grows(middles[0]) and headgear_share[hat].mean() < _SURE_HAT:
        return np.where(worn, np.float32(0), headgear_share)
    spread = np.median(np.abs(lab[hair] - middles[1]), axis=0) + np.median(np.abs(lab[hat] - middles[0]), axis=0)
    away = np.abs(middles[0] - middles[1]) / (_ALIKE_LAB + spread)
    if (away > 1).any():
        return headgear_share
    needed = _LIKELY_WORN if not _grows(middles[1]) and _common_colours(lab[hat], lab[hair]) > _SAME else 0.5
    likelier = np.float32(headgear_share[worn].mean() > needed)
    return np.where(worn, likelier, headgear_share)


def _grows(lab: Float32[np.ndarray, " 3"]) -> bool:
    """Whether hair has this colour, CIELAB."""
    lightness, red, yellow = lab
    return bool(lightness < _BLACK or red < _REDDER[0] * yellow + _REDDER[1])


def _common_colours(a_lab: Float32[np.ndarray, "n 3"], b_lab: Float32[np.ndarray, "m 3"]) -> float:
    """How much of the colours of two things is common to both, [0, 1]: the intersection of their histograms."""
    shares = [np.histogramdd(lab, bins=_BINS_LAB)[0] / len(lab) for lab in (a_lab, b_lab)]
    return float(np.minimum(*shares).sum())


def _smoothed(
    probability: Float[np.ndarray, "s s 3"], foreground: Bool[np.ndarray, "s s"]
) -> Float[np.ndarray, "s s 3"]:
    """Probabilities averaged over their neighbours in the foreground; zero away from it."""

    def averaged(values: Float32[np.ndarray, "s s *c"]) -> Float32[np.ndarray, "s s *c"]:
        side = 2 * (len(foreground) // 64) + 1
        return cv2.blur(cv2.blur(values, (side, side)), (side, side))

    mask = foreground.astype(np.float32)
    inside = np.ascontiguousarray(probability * mask[..., None], dtype=np.float32)
    smooth = averaged(inside) / np.maximum(averaged(mask), 0.05)[..., None]
    smooth = np.clip(smooth, 0.0, 1.0)
    return smooth / np.maximum(smooth.sum(-1, keepdims=True), 1e-6)


def _hard_classes(
    probability: Float[np.ndarray, "s s 3"],
    portrait: Portrait,
    core: Bool[np.ndarray, "s s"],
    prior: Float[np.ndarray, "s s 3"],
    chin_row: float,
    headgear_share: Float32[np.ndarray, "s s"],
    classes: Float32[np.ndarray, "s s 11"],
) -> PortraitLabels:
    """Hard classes: specks go to what surrounds them, hair reaches above the chin, cloth below it."""
    size, foreground = len(core), portrait.alpha_unit > 0.5
    rows = np.arange(size)[:, None]
    label = cv2.medianBlur(probability.argmax(-1).astype(np.uint8), 2 * (size // 170) + 1)
    for k, home in ((HAIR, rows < chin_row), (CLOTH, rows > chin_row), (SKIN, core)):
        pieces, count = cast("tuple[np.ndarray, int]", ndimage.label(foreground & (label == k)))
        at_home = np.bincount(pieces[np.broadcast_to(home, pieces.shape)], minlength=count + 1) > 0
        large = np.bincount(pieces.ravel(), minlength=count + 1) > (size // 24) ** 2
        stray = (pieces > 0) & ~(at_home & large)[pieces]
        if k == SKIN:
            stray &= ~large[pieces]  # ears behind hair, a hand, bare shoulders
        others = probability.copy()
        others[..., k] = -1
        label = np.where(stray, others.argmax(-1), label)
    label = np.where(_thin_hair(foreground & (label == HAIR), foreground, classes) & (rows < chin_row), HAIR, label)
    collar = collar_in_skin(foreground & (label == SKIN), foreground & (label == CLOTH), portrait, core)
    label = np.where(collar, CLOTH, label)
    skin, hair, cloth = (foreground & (label == k) for k in (SKIN, HAIR, CLOTH))
    return PortraitLabels(probability, skin, hair, cloth, headgear_share, classes)


def _thin_hair(
    hair: Bool[np.ndarray, "s s"], foreground: Bool[np.ndarray, "s s"], classes: Float32[np.ndarray, "s s 11"]
) -> Bool[np.ndarray, "s s"]:
    """Sideburns and other strips of hair that are narrower than what probabilities are averaged over.

    Args:
        hair: what is hair after averaging; strips go on from it.
        foreground: pixels of the person.
        classes: what the segmenter said.
    """
    on_the_scalp = classes[..., (classes_of_segmenter.HAIR, classes_of_segmenter.HEADGEAR)].sum(-1)
    sure = foreground & (on_the_scalp > 0.5)
    pieces, _ = cast("tuple[np.ndarray, int]", ndimage.label(sure | hair))
    return sure & np.isin(pieces, np.setdiff1d(pieces[hair], [0]))

"""Beards as volume: the skin under a beard is moved out to the beard's surface, on both sides of the face alike.

The portrait says where a beard is, and how far it reaches below the chin. A beard that reaches below it
is the thicker in front of the chin the longer it is, and thinner towards the cheeks; short stubble stays what it is.
What the portrait shows of one side holds for the other where that is turned away. Picture and surface agree, for all
look-ups are made on the moved surface.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage
from scipy.spatial import KDTree

from ...cameras import PANOHEAD_RADIUS, UNITS_PER_CM
from ...head_model import HeadModel
from ...head_model.anatomy import CHIN_LANDMARK, Box, centimetres, ramp
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from ...mesh import smoothed_over_faces, vertex_normals
from ...portrait import Portrait
from ..labels.portrait_labels import PortraitLabels, project_px
from ..labels.segmenter import BEARD

_FACING = (0.1, 0.4)
"""Cosines between normal and line of sight from which on a vertex is seen, and from which on plainly."""
_LEAST_SHARE = 0.004
"""Of the portrait, for there to be a beard and not a patch of stubble."""
_LIPS = Box((0.0, -4.6, 6.0), (2.9, -2.3, np.inf))
_UPPER_LIP_Y_CM, _MOUSTACHE = -3.4, 0.35
"""Above this height a beard is a moustache, which is thinner than the beard on the chin by this factor."""
_CHIN_COLUMNS_CM = 1.2
"""The beard's length is seen within so far of the chin's middle."""
_STUBBLE_CM, _MOST_CM = 0.45, 7.0
"""Beards that reach less below the chin stay paint; longer ones than the second are cut."""
_HANGING, _THICK, _MOST_THICK_CM, _CHEEK = 0.7, 0.45, 1.6, 0.45
"""What hangs of the length below the chin, for some of it may grow on the neck; thickness in front of the chin by that
length, and at most; and what of it is left on the cheeks."""
_CHIN_CM, _CHEEK_Y_CM = (-9.5, -7.0), (-7.0, -2.5)
"""Heights between which it begins to hang, and between which it gets thinner."""
_HANGING_Z_CM = (1.0, 4.5)
"""Depths between which it begins to hang: behind the jaw it does not."""
_ROUNDS = 6
"""Means with neighbours by which it ends softly."""


def bearded_vertices(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> Float[np.ndarray, "v 3"]:
    """Vertices of the fitted head whose skin is moved out to the surface of the beard; as they are without a beard.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes.
        model: the head model of the fit.
    """
    vertices = portrait.head.vertices_world
    length_cm = beard_length_cm(portrait, labels, model)
    if length_cm < _STUBBLE_CM:
        return vertices
    at_cm = centimetres(model.neutral)
    share = beard_share(portrait, labels, model)
    y, z = at_cm[:, 1], at_cm[:, 2]
    thick_cm = min(_THICK * length_cm, _MOST_THICK_CM) * (1 - (1 - _CHEEK) * ramp(y, *_CHEEK_Y_CM))
    thick_cm = np.where(y > _UPPER_LIP_Y_CM, np.minimum(thick_cm, _MOUSTACHE * _MOST_THICK_CM), thick_cm)
    hang_cm = _HANGING * length_cm * (1 - ramp(y, *_CHIN_CM)) * ramp(z, *_HANGING_Z_CM)
    normals = vertex_normals(vertices, model.skin_faces)
    outward = normals * np.array([1.0, 0.0, 1.0])  # what it grows downwards is its length
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 0.35)
    moved = outward * thick_cm[:, None] - np.array([0.0, 1.0, 0.0]) * hang_cm[:, None]
    moved = smoothed_over_faces(moved * share[:, None], model.skin_faces, _ROUNDS)
    return vertices + UNITS_PER_CM * moved


def beard_length_cm(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> float:
    """How far a beard reaches below the chin in the portrait, centimetres; 0 without a beard."""
    beard = labels.classes[..., BEARD] > 0.5
    if beard.mean() < _LEAST_SHARE:
        return 0.0
    chin = project_px(portrait.head.camera, model.landmarks(portrait.head.vertices_world)[CHIN_LANDMARK])
    px_per_cm = float(portrait.head.camera.focal_px[0, 0]) / PANOHEAD_RADIUS * UNITS_PER_CM
    half, size = round(_CHIN_COLUMNS_CM * px_per_cm), len(beard)
    column = int(np.clip(chin[0], half, size - half - 1))
    below = beard[:, column - half : column + half + 1]
    there = below.any(0)
    if there.mean() < 0.5:
        return 0.0
    last = float(np.median(size - below[::-1].argmax(0)[there]))
    return float(np.clip((last - chin[1]) / px_per_cm, 0.0, _MOST_CM))


def beard_share(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> Float[np.ndarray, " v"]:
    """How far each vertex carries a beard, [0, 1]: as it is seen, or as its mirror image is."""
    vertices, size = portrait.head.vertices_world, portrait.size_px
    seen: Float32[np.ndarray, "s s"] = cv2.GaussianBlur(labels.classes[..., BEARD], (0, 0), size / 256)
    uv = np.clip(project_px(portrait.head.camera, vertices) - 0.5, 0, size - 1)
    own = ndimage.map_coordinates(seen, uv.T[::-1], order=1)
    away = portrait.head.camera.position_world[0].numpy() - vertices
    facing = (vertex_normals(vertices, model.skin_faces) * away).sum(1) / np.linalg.norm(away, axis=1)
    weight = ramp(facing, *_FACING)
    at_cm = centimetres(model.neutral)
    partner = KDTree(model.neutral).query(model.neutral * [-1, 1, 1])[1]
    both = weight + weight[partner] * (1 - weight)
    share = (weight * own + weight[partner] * (1 - weight) * own[partner]) / np.maximum(both, 1e-6)
    # below the chin little is seen from in front: what hangs there is the chin's
    underneath = smoothed_over_faces(np.stack([share * both, both], axis=1), model.skin_faces, 12)
    share = np.where(both > 0.5, share, underneath[:, 0] / np.maximum(underneath[:, 1], 1e-6))
    grows: Bool[np.ndarray, " v"] = np.isin(model.part, (PART_FACE, PART_CRANIUM_NECK)) & ~_LIPS.holds(at_cm)
    return np.where(grows, np.clip(1.6 * share - 0.2, 0, 1), 0.0)

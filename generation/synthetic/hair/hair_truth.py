"""Where the hair of a composed head truly ends: radius and presence on the prior's capsule grid, all round.

Every cell sends four rays from the axis outwards. All surfaces they meet are kept with their opacity and composited
from outside inwards, so that clear fringes of cards and single stray hairs do not count; hair is where half of the
light has stopped before it meets skin or cloth. What is worn on the head counts as hair, as in the prior's labels;
beards count as skin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from ...cameras import Cameras
from ...head_model import FACE_OVAL_LANDMARKS, HeadFit, HeadModel
from ...mesh_raster import rasterize_mesh
from ...prior import capsule
from ...similarity import Similarity, best_similarity
from ..parts import Label, SyntheticHead
from ..ray_layers import cast_rays

_SUB = 2
"""Rays per cell along each axis."""
_IGNORED, _HAIR, _SKIN, _CLOTH = range(4)
_CLASS_OF_LABEL = {
    Label.BACKGROUND: _IGNORED, Label.FACE: _SKIN, Label.NECK: _SKIN, Label.HAIR: _HAIR, Label.BEARD: _IGNORED,
    Label.CLOTH: _CLOTH, Label.HEADGEAR: _HAIR, Label.ACCESSORY: _IGNORED,
}  # fmt: skip


@dataclass(frozen=True)
class HairTruth:
    """The outermost hair of a head on the capsule grid."""

    radius: Float32[np.ndarray, "rows columns"]
    """Of the hair's surface, world units; 0 where there is none."""
    presence: Float32[np.ndarray, "rows columns"]
    """Share of the cell whose outermost surface is hair or headgear, [0, 1]."""
    cloth: Float32[np.ndarray, "rows columns"]
    """Share whose outermost surface is cloth."""


def map_to_fit(
    head: SyntheticHead, camera: Cameras, landmarks_px: Float[np.ndarray, "478 3"], fit: HeadFit, model: HeadModel
) -> Similarity | None:
    """The similarity that lays a composed head over the head fitted to its portrait, by the inner face's landmarks.

    Args:
        camera: the portrait's true camera.
        landmarks_px: detected landmarks in that picture.

    Returns:
        None where fewer than 100 landmarks lie on the true skin (characters without one).
    """
    skins = [part for part in head.parts if part.name == "skin"]
    if not skins:
        return None
    skin = skins[0]
    fragments = rasterize_mesh(skin.vertices_world, skin.faces, camera, supersample=3)
    column, row = np.clip((landmarks_px[:, :2].T * 3).astype(np.int64), 0, 3 * camera.width - 1)
    face, weights = fragments.triangle_index[row, column], fragments.barycentric[row, column]
    used = (face >= 0) & (np.arange(len(landmarks_px)) < 468)
    used[FACE_OVAL_LANDMARKS] = False
    if used.sum() < 100:
        return None
    on_skin = (skin.vertices_world[skin.faces[face]] * weights[..., None]).sum(1)
    on_model = fit.detected_landmarks_world(model)
    for _ in range(3):
        found = best_similarity(on_skin[used], on_model[used])
        error = np.linalg.norm(found(on_skin) - on_model, axis=1)
        used &= error < max(0.008, 2.5 * float(np.median(error[used])))
    return found


def hair_truth(head: SyntheticHead, to_grid: Similarity | None = None) -> HairTruth:
    """Hair of a composed head.

    Args:
        to_grid: brings the head into the grid's frame; None leaves it where it is.
    """
    rows, columns = ((np.arange(n * _SUB) + 0.5) / _SUB - 0.5 for n in (capsule.ROWS, capsule.COLUMNS))
    layers = cast_rays(head.parts, _CLASS_OF_LABEL, rows, columns, to_grid)
    # the radius at which half the light has stopped, and the class that stopped it (0 where nothing did)
    stopped = layers.stopped()
    first, anything = stopped.argmax(-1)[..., None], stopped.any(-1)
    radius, kind = (
        np.where(anything, np.take_along_axis(values, first, -1)[..., 0], values.dtype.type(0))
        for values in (layers.depths, layers.kinds)
    )
    blocks = (capsule.ROWS, _SUB, capsule.COLUMNS, _SUB)
    radius, kind = radius.reshape(blocks), kind.reshape(blocks)
    hair = kind == _HAIR
    found = np.sort(np.where(hair, radius, np.nan).transpose(0, 2, 1, 3).reshape(*blocks[::2], -1), axis=-1)
    lower_median = np.maximum((np.isfinite(found).sum(-1) - 1) // 2, 0)[..., None]
    middle = np.take_along_axis(found, lower_median, axis=-1)[..., 0]
    return HairTruth(
        np.nan_to_num(middle).astype(np.float32),
        hair.mean((1, 3)).astype(np.float32),
        (kind == _CLOTH).mean((1, 3)).astype(np.float32),
    )

"""Where the hair of a composed head truly ends: radius and presence on the prior's capsule grid, all round.

Every cell sends four rays from the axis outwards. All surfaces they meet are kept with their opacity and composited
from outside inwards, so that clear fringes of cards and single stray hairs do not count; hair is where half of the
light has stopped before it meets skin or cloth. What is worn on the head counts as hair, as in the prior's labels;
beards count as skin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32

from ...cameras import Cameras
from ...head_model import FACE_OVAL_LANDMARKS, HeadFit, HeadModel
from ...mesh_raster import rasterize_mesh
from ...prior import capsule
from ...prior.capsule import ray_hit, spanned_cells
from ...similarity import Similarity, best_similarity
from ..parts import Label, SyntheticHead

_SUB = 2
"""Rays per cell along each axis."""
_LAYERS = 16
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
    origins, directions = capsule.cell_rays(*np.meshgrid(rows, columns, indexing="ij"))
    shape = (capsule.ROWS * _SUB, capsule.COLUMNS * _SUB)
    depths = np.full((*shape, _LAYERS), -1.0, np.float32)
    opacities, classes = np.zeros((*shape, _LAYERS), np.float32), np.zeros((*shape, _LAYERS), np.uint8)
    table = np.array([_CLASS_OF_LABEL[label] for label in Label], np.uint8)
    for part in head.parts:
        if not table[np.unique(part.label_map)].any():
            continue
        vertices = part.vertices_world if to_grid is None else to_grid(part.vertices_world)
        vertices = np.ascontiguousarray(vertices, np.float64)
        row, column, _ = capsule.cell_coordinates(vertices)
        _collect_hits(
            vertices, np.ascontiguousarray(part.faces, np.int64), (row + 0.5) * _SUB - 0.5,
            (column + 0.5) * _SUB - 0.5, np.ascontiguousarray(part.uv_unit, np.float64),
            np.ascontiguousarray(part.faces_uv, np.int64), np.ascontiguousarray(part.texture[..., 3]),
            part.alpha_tested, table[part.label_map], origins, directions, depths, opacities, classes,
        )  # fmt: skip
    # the radius at which half the light has stopped, and the class that stopped it (0 where nothing did)
    stopped = np.cumprod(1 - opacities.astype(np.float64), axis=-1) < 0.5
    first, anything = stopped.argmax(-1)[..., None], stopped.any(-1)
    radius, kind = (
        np.where(anything, np.take_along_axis(values, first, -1)[..., 0], values.dtype.type(0))
        for values in (depths, classes)
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


@numba.njit(cache=True)
@no_type_check
def _collect_hits(
    vertices, faces, rows, columns, uv, faces_uv, alpha, alpha_tested, labels, origins, directions, depths, opacities,
    classes,
):  # fmt: skip
    """Insert every hit of a part's triangles into the sorted lists (outermost first) of the rays they span."""
    n_rows, n_columns, n_layers = depths.shape
    height, width = alpha.shape
    label_height, label_width = labels.shape
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        if min(rows[i], rows[j], rows[k]) > n_rows:
            continue
        first_row, last_row, first, last = spanned_cells(rows, columns, i, j, k, n_rows, n_columns)
        for row in range(first_row, last_row + 1):
            for wrapped in range(first, last + 1):
                column = wrapped % n_columns
                t, u, v = ray_hit(
                    origins[row, column], directions[row, column], vertices[i], vertices[j], vertices[k], 0.0
                )
                if t <= depths[row, column, n_layers - 1] or t <= 0:
                    continue
                w = 1 - u - v
                a, b, c = faces_uv[f, 0], faces_uv[f, 1], faces_uv[f, 2]
                x = w * uv[a, 0] + u * uv[b, 0] + v * uv[c, 0]
                y = w * uv[a, 1] + u * uv[b, 1] + v * uv[c, 1]
                x -= math.floor(x)
                y -= math.floor(y)
                kind = labels[min(int(y * label_height), label_height - 1), min(int(x * label_width), label_width - 1)]
                if kind == 0:
                    continue
                opacity = 1.0
                if alpha_tested:
                    opacity = alpha[min(int(y * height), height - 1), min(int(x * width), width - 1)]
                    if opacity < 0.02:
                        continue
                place = n_layers - 1
                while place > 0 and depths[row, column, place - 1] < t:
                    depths[row, column, place] = depths[row, column, place - 1]
                    opacities[row, column, place] = opacities[row, column, place - 1]
                    classes[row, column, place] = classes[row, column, place - 1]
                    place -= 1
                depths[row, column, place] = t
                opacities[row, column, place] = opacity
                classes[row, column, place] = kind

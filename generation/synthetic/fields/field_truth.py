"""The true field of a composed head: nine rays a cell through everything it carries, nothing drawn.

A ray goes inwards through the layers it meets until half of its light has stopped; that layer's material and radius
count. Directions, lengths and colours are means over the layers on the way, weighted by the light that each stops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32

from ...prior.field.chart import COLUMNS, ROWS, capsule_rows, filled_from_near
from ...prior.field.head_field import CLOTH, COVERED, HAIR, HEADGEAR, SKIN, HeadField, cells_from_world
from ..composed_recipe import HairRecipe
from ..hair.haircuts import cut_named
from ..parts import Label, Part
from ..ray_layers import cast_rays
from .field_recipes import PlainHead

_SUB = 3
"""Rays per cell along each axis."""
_KIND_OF_LABEL = {
    Label.BACKGROUND: 0, Label.FACE: 1 + SKIN, Label.NECK: 1 + SKIN, Label.HAIR: 1 + HAIR, Label.BEARD: 1 + SKIN,
    Label.CLOTH: 1 + CLOTH, Label.HEADGEAR: 1 + HEADGEAR, Label.ACCESSORY: 0,
    Label.EAR: 1 + SKIN, Label.BROW: 1 + SKIN, Label.GLASSES: 0,
}  # fmt: skip
_UNKNOWN_RGB = 0.5
_LEAST_MEAN = 0.02
"""Mean directions shorter than this have no direction."""
_MOST_CURL = 0.95


def true_field(head: PlainHead) -> HeadField:
    """The field of a composed head."""
    return field_of_parts(head.parts, head.skull_radius, hair_tokens(head.recipe.hair))


def field_of_parts(
    parts: Sequence[Part], skull_radius: Float32[np.ndarray, "56 64"], tokens: Float32[np.ndarray, " 4"]
) -> HeadField:
    """The field of surfaces round a skull.

    Args:
        parts: surfaces; those with tangents and lengths are hair whose direction is known.
        skull_radius: base of the thickness.
        tokens: `TOKENS`; an unknown contrast is measured.
    """
    step = np.arange(_SUB) / _SUB - (_SUB - 1) / (2 * _SUB)
    rows = capsule_rows((np.arange(ROWS)[:, None] + step).ravel())
    columns = 2 * (np.arange(COLUMNS)[:, None] + step).ravel()
    layers = cast_rays(parts, _KIND_OF_LABEL, rows, columns)
    tangents, lengths = _fibres(parts)
    radius, kind, hair, cover, skin, tone = _composite(
        layers.depths, layers.opacities, layers.kinds, layers.faces, layers.rgb, tangents, lengths
    )
    kind, radius = _in_cells(kind), _in_cells(radius)
    material = np.stack([(kind == 1 + m).mean(-1) for m in range(4)])
    material[SKIN] = 1 - material[1:].sum(0)  # where nothing is hit nothing covers
    covered = kind > 1 + SKIN
    thickness = np.clip(_lower_median(radius, covered) - skull_radius, 0, None)
    is_hair = kind == 1 + HAIR
    hair = _in_cells(hair) * is_hair[..., None]  # light stopped, its directions (3) and lengths
    total = hair.sum(2)
    total[0] = total[0].mean(0)
    weight = total[..., 0]
    mean = total[..., 1:4] / np.maximum(weight, 1e-6)[..., None]
    agreement = np.linalg.norm(mean, axis=-1)
    known = (weight > 0) & (agreement > _LEAST_MEAN)
    flow = np.where(known[..., None], mean / np.maximum(agreement, _LEAST_MEAN)[..., None], 0.0)
    certainty = np.where(known, (hair[..., 0] > 0).mean(-1), 0.0)
    length = total[..., 4] / np.maximum(weight, 1e-6)
    enough = material[1:].sum(0) >= COVERED
    cover, skin = _in_cells(cover), _in_cells(skin)
    worn = covered & (kind != 1 + CLOTH)
    if not np.isfinite(tokens[3]):
        tokens = np.array([*tokens[:3], _contrast(_in_cells(tone), is_hair)], np.float32)
    return HeadField(
        skull_radius=skull_radius,
        thickness=_scalar(filled_from_near(thickness, enough)),
        material=np.clip(_scalar(material), 0, 1),
        flow=cells_from_world(flow.astype(np.float32)),
        flow_certainty=_scalar(certainty),
        disorder=np.clip(_scalar(np.where(known, np.sqrt(np.clip(1 - agreement, 0, 1)), 0.0)), 0, 1),
        strand_length=_scalar(filled_from_near(length, known)),
        cover_albedo=_albedo(cover, worn),
        skin_albedo=_albedo(skin, skin[..., 0] >= 0),
        cloth_albedo=_albedo(cover, kind == 1 + CLOTH),
        tokens=tokens,
    )


def hair_tokens(hair: HairRecipe) -> Float32[np.ndarray, " 4"]:
    """What a recipe says about `TOKENS`; the contrast is measured."""
    if hair.kind in ("bald", "own"):
        return np.full(4, np.nan, np.float32)
    curl = clump = math.nan
    if hair.kind == "cut":
        cut = cut_named(hair.name)
        radius = cut.curl[0] + (0.8 * hair.curl if cut.curl[0] or hair.curl > 0.25 else 0.0)
        slope = 2 * math.pi * radius * cut.curl[1] / 10
        curl, clump = min(slope / (1 + slope), _MOST_CURL), min(max(cut.clump - 0.2 * hair.messy, 0), 1)
    return np.array([curl, clump, hair.grey, math.nan], np.float32)


def _fibres(parts: Sequence[Part]) -> tuple[Float32[np.ndarray, "f 3"], Float32[np.ndarray, " f"]]:
    """Direction and length of the hair that each triangle belongs to, counted over all parts; 0 without hair."""
    tangents, lengths = [], []
    for part in parts:
        if part.tangents_world is None or part.fibre_lengths is None:
            tangents.append(np.zeros((len(part.faces), 3), np.float32))
            lengths.append(np.zeros(len(part.faces), np.float32))
        else:
            tangents.append(part.tangents_world[part.faces].mean(1).astype(np.float32))
            lengths.append(part.fibre_lengths[part.faces[:, 0]].astype(np.float32))
    return np.concatenate(tangents), np.concatenate(lengths)


def _in_cells(rays: np.ndarray) -> np.ndarray:
    """Values of rays as rows x columns x rays of a cell."""
    shape = (ROWS, _SUB, COLUMNS, _SUB, *rays.shape[2:])
    return np.moveaxis(rays.reshape(shape), 2, 1).reshape(ROWS, COLUMNS, _SUB**2, *rays.shape[2:])


def _lower_median(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Of the chosen rays of each cell, 0 without any; all cells of row 0 share their rays."""
    ordered = np.sort(np.where(chosen, values, np.inf), axis=-1)
    middle = np.maximum((chosen.sum(-1) - 1) // 2, 0)
    median = np.take_along_axis(ordered, middle[..., None], axis=-1)[..., 0]
    at_crown = values[0][chosen[0]]
    median[0] = np.median(at_crown) if len(at_crown) else np.inf
    return np.where(np.isfinite(median), median, 0.0)


def _scalar(grid: np.ndarray) -> Float32[np.ndarray, "*k 56 64"]:
    """A grid with one value at the crown."""
    grid = grid.astype(np.float32)
    grid[..., 0, :] = grid[..., 0, :].mean(-1, keepdims=True)
    return grid


def _albedo(rgb: Float32[np.ndarray, "56 64 9 3"], chosen: np.ndarray) -> Float32[np.ndarray, "3 56 64"]:
    """Mean colour of the chosen rays of each cell, filled in where they are few."""
    count = chosen.sum(-1)
    mean = (rgb * chosen[..., None]).sum(2) / np.maximum(count, 1)[..., None]
    enough = count >= COVERED * _SUB**2 - 1e-6
    return np.clip(_scalar(filled_from_near(np.moveaxis(mean, -1, 0), enough, _UNKNOWN_RGB)), 0, 1)


def _contrast(tone: Float32[np.ndarray, "56 64 9"], is_hair: np.ndarray) -> float:
    """Deviation of log brightness from ray to ray in cells of hair; NaN without any."""
    cells = is_hair.all(-1)
    return min(float(np.log(tone[cells] + 0.02).std(-1).mean()), 1.0) if cells.any() else math.nan


@numba.njit(cache=True)
@no_type_check
def _composite(depths, opacities, kinds, faces, rgb, tangents, lengths):
    """What stops each ray, and means over the layers before it.

    Returns:
        Radius and kind of what stops half the light (0 where nothing does); of hair whose direction is known, the
        light it stops, directions and lengths times that light; the cover's colour; the colour of the outermost bare
        skin below (-1 without any); brightness of the outermost hair.
    """
    n_rows, n_columns, n_layers = depths.shape
    radius = np.zeros((n_rows, n_columns), np.float32)
    kind = np.zeros((n_rows, n_columns), np.uint8)
    hair = np.zeros((n_rows, n_columns, 5), np.float32)
    cover = np.zeros((n_rows, n_columns, 3), np.float32)
    skin = np.full((n_rows, n_columns, 3), np.float32(-1))
    tone = np.zeros((n_rows, n_columns), np.float32)
    stopped_by = np.zeros(5)
    colours = np.zeros((5, 3))
    for r in range(n_rows):
        for c in range(n_columns):
            stopped_by[:] = 0
            colours[:] = 0
            clear = 1.0
            for k in range(n_layers):
                what = kinds[r, c, k]
                if what == 0:
                    break
                if what == 1 and skin[r, c, 0] < 0:
                    for q in range(3):
                        skin[r, c, q] = rgb[r, c, k, q] / 255
                if clear < 0.5:
                    continue
                light = clear * opacities[r, c, k]
                face = faces[r, c, k]
                if what == 2:
                    if stopped_by[2] == 0:
                        tone[r, c] = (rgb[r, c, k, 0] + rgb[r, c, k, 1] + rgb[r, c, k, 2]) / np.float32(765)
                    if lengths[face] > 0:
                        hair[r, c, 0] += light
                        for q in range(3):
                            hair[r, c, 1 + q] += light * tangents[face, q]
                        hair[r, c, 4] += light * lengths[face]
                stopped_by[what] += light
                for q in range(3):
                    colours[what, q] += light * rgb[r, c, k, q] / 255
                clear -= light
                if clear < 0.5:
                    radius[r, c] = depths[r, c, k]
                    kind[r, c] = what
                    for q in range(3):
                        cover[r, c, q] = colours[what, q] / stopped_by[what]
    return radius, kind, hair, cover, skin, tone

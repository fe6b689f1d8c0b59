"""Everything that rays from a chart's axis meet on their way out: the layers of a composed head.

Every ray keeps the outermost surfaces it meets with their opacity, so that clear fringes of cards and single stray
hairs can be told from what stops the light.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from ..prior import capsule
from ..prior.capsule import ray_hit, spanned_cells
from ..similarity import Similarity
from .parts import Label, Part

LAYERS = 16
"""Most surfaces that a ray keeps."""


@dataclass(frozen=True)
class RayLayers:
    """Surfaces along rays, the outermost first; what is not there has depth -1 and opacity and kind 0."""

    depths: Float32[np.ndarray, "r c k"]
    """Distance along the ray, world units."""
    opacities: Float32[np.ndarray, "r c k"]
    """Of the texture where it was hit, 1 for solid surfaces."""
    kinds: UInt8[np.ndarray, "r c k"]
    """What the caller's table makes of its label."""
    faces: Int32[np.ndarray, "r c k"]
    """Triangle, counted over all parts."""
    rgb: UInt8[np.ndarray, "r c k 3"]
    """Texture's sRGB colour there."""

    def stopped(self) -> np.ndarray:
        """Whether half of the light has stopped, by layer."""
        return np.cumprod(1 - self.opacities.astype(np.float64), axis=-1) < 0.5


def cast_rays(
    parts: Sequence[Part],
    kind_of_label: Mapping[Label, int],
    rows: Float[np.ndarray, " r"],
    columns: Float[np.ndarray, " c"],
    to_grid: Similarity | None = None,
) -> RayLayers:
    """The layers of a head.

    Args:
        parts: its surfaces.
        kind_of_label: what each label counts as; 0 is passed through.
        rows, columns: fractional rows and columns of the capsule grid that rays are sent through, in equal steps;
            columns go once round.
        to_grid: brings the head into the grid's frame; None leaves it where it is.
    """
    origins, directions = capsule.cell_rays(*np.meshgrid(rows, columns, indexing="ij"))
    shape = (len(rows), len(columns), LAYERS)
    layers = RayLayers(
        np.full(shape, -1.0, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.uint8),
        np.zeros(shape, np.int32), np.zeros((*shape, 3), np.uint8),
    )  # fmt: skip
    table = np.array([kind_of_label[label] for label in Label], np.uint8)
    first_face = 0
    for part in parts:
        if table[np.unique(part.label_map)].any():
            vertices = part.vertices_world if to_grid is None else to_grid(part.vertices_world)
            vertices = np.ascontiguousarray(vertices, np.float64)
            row, column, _ = capsule.cell_coordinates(vertices)
            _collect_hits(
                vertices, np.ascontiguousarray(part.faces, np.int64), (row - rows[0]) / (rows[1] - rows[0]),
                (column - columns[0]) / (columns[1] - columns[0]), np.ascontiguousarray(part.uv_unit, np.float64),
                np.ascontiguousarray(part.faces_uv, np.int64), np.ascontiguousarray(part.texture),
                part.alpha_tested, table[part.label_map], origins, directions, first_face, layers.depths,
                layers.opacities, layers.kinds, layers.faces, layers.rgb,
            )  # fmt: skip
        first_face += len(part.faces)
    return layers


@numba.njit(cache=True)
@no_type_check
def _collect_hits(
    vertices, faces, rows, columns, uv, faces_uv, texture, alpha_tested, labels, origins, directions, first_face,
    depths, opacities, kinds, hit_faces, colours,
):  # fmt: skip
    """Insert every hit of a part's triangles into the sorted lists (outermost first) of the rays they span."""
    n_rows, n_columns, n_layers = depths.shape
    height, width = texture.shape[0], texture.shape[1]
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
                texel = texture[min(int(y * height), height - 1), min(int(x * width), width - 1)]
                opacity = 1.0
                if alpha_tested:
                    opacity = texel[3]
                    if opacity < 0.02:
                        continue
                place = n_layers - 1
                while place > 0 and depths[row, column, place - 1] < t:
                    depths[row, column, place] = depths[row, column, place - 1]
                    opacities[row, column, place] = opacities[row, column, place - 1]
                    kinds[row, column, place] = kinds[row, column, place - 1]
                    hit_faces[row, column, place] = hit_faces[row, column, place - 1]
                    for q in range(3):
                        colours[row, column, place, q] = colours[row, column, place - 1, q]
                    place -= 1
                depths[row, column, place] = t
                opacities[row, column, place] = opacity
                kinds[row, column, place] = kind
                hit_faces[row, column, place] = first_face + f
                for q in range(3):
                    colours[row, column, place, q] = int(255 * texel[q] + 0.5)

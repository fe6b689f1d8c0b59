"""Headgear as a mesh: its surface cut along the rim, a rounded hem that closes it all round, and a brim or peak."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from ...cameras import UNITS_PER_MM
from ...mesh import vertex_normals
from .. import capsule
from .glasses_mesh import WornPart
from .headgear import Headgear
from .rim import HEM_BEYOND, HEM_MM

_HEM = ((0.0, 0.0), (-0.12, 0.7 * HEM_BEYOND), (-0.45, HEM_BEYOND), (-0.85, 0.7 * HEM_BEYOND), (-1.0, 0.0))
"""The hem's section: outwards along the ray and beyond the rim, of its thickness."""
_BELOW_MM = 4.0
"""The hem's wall ends so far below the skull."""
_MOST_WALL_MM = 21.0
"""Where it would be higher cloth hangs free: the more it would, the less there is of it."""
_LEAST_LOOP = 12
"""Rims of fewer points are left open: specks."""
_LOOPS = 3
TILE_SIZE = (1024, 256)
"""Width and height of the tile of hems and brim."""
_HEM_ROWS, _BRIM_ROWS = 32, 128
"""Height in the tile of each hem and of the brim below them."""
_MARGIN = 2


class _Cut(NamedTuple):
    """The part of the capsule grid where a level is positive."""

    row: Float[np.ndarray, " v"]
    column: Float[np.ndarray, " v"]
    """Fractional cells of its vertices; columns in [0, 128]."""
    faces: Int[np.ndarray, "f 3"]
    loops: list[Int[np.ndarray, " n"]]
    """Vertices along each closed border."""


class HeadgearPart(NamedTuple):
    """Headgear in the atlas; the surface lies in the hair shell's tile, hems and brim in one of their own."""

    surface: WornPart
    """Texture positions are those of the shell's tile."""
    trim: WornPart
    """Texture positions are those of the tile of hems and brim."""


def headgear_mesh(headgear: Headgear, shell_tile_size: tuple[int, int]) -> HeadgearPart:
    """The mesh of headgear.

    Args:
        headgear: fitted.
        shell_tile_size: width and height of the tile that the capsule grid fills.
    """
    cut = _cut(headgear.level)
    radius = _sampled(headgear.radius, cut.row, cut.column)
    origins, outward = capsule.cell_rays(cut.row, cut.column)
    points = origins + outward * radius[:, None]
    closed = np.round(cut.column * 64).astype(np.int64) % (64 * capsule.COLUMNS)
    keys = np.stack([np.round(cut.row * 64).astype(np.int64), closed], axis=1)
    same = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    first = np.zeros(same.max(initial=0) + 1, np.int64)
    first[same[::-1]] = np.arange(len(same))[::-1]
    normals = vertex_normals(points, first[same][cut.faces])[first[same]]
    width, height = shell_tile_size
    uv = np.stack([
        0.5 + cut.column / capsule.COLUMNS * (width - 1), 0.5 + cut.row / (capsule.ROWS - 1) * (height - 1)
    ], axis=1)  # fmt: skip
    corners = points[cut.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    surface = WornPart(points, normals, uv, cut.faces[area > 0])
    trims = [_hem(headgear, cut, loop, points, k) for k, loop in enumerate(cut.loops[:_LOOPS])]
    if headgear.brim is not None:
        trims.append(_grid(headgear.brim.sheet_world(), _LOOPS * _HEM_ROWS, _BRIM_ROWS))
    return HeadgearPart(surface, joined(trims))


def joined(parts: list[WornPart]) -> WornPart:
    """Several meshes as one."""
    if not parts:
        return WornPart(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 2)), np.zeros((0, 3), np.int64))
    starts = np.cumsum([0, *(len(part.uv_px) for part in parts)])
    return WornPart(
        np.concatenate([part.vertices_world for part in parts]),
        np.concatenate([part.normals_world for part in parts]),
        np.concatenate([part.uv_px for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts)]),
    )


def _hem(
    headgear: Headgear, cut: _Cut, loop: Int[np.ndarray, " n"], points: Float[np.ndarray, "v 3"], number: int
) -> WornPart:
    """A rounded edge along a border and a wall from there into the head."""
    along, row, column = points[loop], cut.row[loop], cut.column[loop]
    outward = capsule.cell_rays(row, column)[1]
    tangent = np.roll(along, -1, 0) - np.roll(along, 1, 0)
    beyond = ndimage.gaussian_filter1d(np.cross(tangent, outward), 2.0, axis=0, mode="wrap")
    beyond /= np.maximum(np.linalg.norm(beyond, axis=1, keepdims=True), 1e-12)
    thickness = HEM_MM * UNITS_PER_MM
    rings = [along + thickness * (out * outward + aside * beyond) for out, aside in _HEM]
    radius = _sampled(headgear.radius, row, column)
    floor = _sampled(headgear.skull_radius, row, column) - _BELOW_MM * UNITS_PER_MM
    drop = np.maximum(radius - floor, 1.5 * thickness)
    most = _MOST_WALL_MM * UNITS_PER_MM
    drop = np.where(drop > most, np.maximum(2 * most - drop, 1.5 * thickness), drop)
    drop = ndimage.gaussian_filter1d(drop, 2.0, mode="wrap")
    rings.append(along - outward * drop[:, None])
    grid = np.stack(rings)
    return _grid(np.concatenate([grid, grid[:, :1]], axis=1), number * _HEM_ROWS, _HEM_ROWS)


def _grid(points: Float[np.ndarray, "m n 3"], top: int, height: int) -> WornPart:
    """A closed grid over the whole width of the tile, from a row on over so many rows."""
    m, n = points.shape[0], points.shape[1] - 1
    faces = capsule.grid_faces(m, n)
    row, column = np.divmod(np.arange(m * (n + 1)), n + 1)
    wrapped = row * (n + 1) + column % n
    vertices = points.reshape(-1, 3)
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    faces = faces[area > 1e-12]
    normals = vertex_normals(vertices, wrapped[faces])[wrapped]
    border = _MARGIN + 0.5
    uv = np.stack([
        0.5 + column / n * (TILE_SIZE[0] - 1), top + border + row / (m - 1) * (height - 2 * border)
    ], axis=1)  # fmt: skip
    return WornPart(vertices, normals, uv, faces)


def _sampled(
    grid: Float[np.ndarray, "rows columns"], row: Float[np.ndarray, " v"], column: Float[np.ndarray, " v"]
) -> Float[np.ndarray, " v"]:
    """Values of the capsule grid at fractional cells."""
    closed = np.concatenate([grid, grid[:, :1]], axis=1)
    return ndimage.map_coordinates(closed, [row, column], order=1, mode="nearest")


def _cut(level: Float[np.ndarray, "rows columns"]) -> _Cut:
    """The grid cut along the line on which a level is zero, by triangles."""
    rows, columns = level.shape
    values = np.concatenate([level, level[:, :1]], axis=1).ravel()
    values = np.where(values == 0, 1e-9, values)
    row, column = (x.astype(np.float64) for x in np.divmod(np.arange(len(values)), columns + 1))
    faces = capsule.grid_faces(rows, columns)
    inside = values[faces] > 0
    count = inside.sum(1)
    odd = np.where(count == 1, inside.argmax(1), (~inside).argmax(1))
    turned = np.take_along_axis(faces, (odd[:, None] + np.arange(3)) % 3, axis=1)  # the odd corner comes first
    one, two = turned[count == 1], turned[count == 2]
    edges = np.concatenate([one[:, [0, 1]], one[:, [0, 2]], two[:, [0, 1]], two[:, [0, 2]]])
    edges.sort(axis=1)
    unique, number = np.unique(edges, axis=0, return_inverse=True)
    number = number.ravel()
    a, b = unique.T
    share = values[a] / (values[a] - values[b])
    crossing = len(values) + np.arange(len(unique))
    one_ab, one_ac, two_ab, two_ac = np.split(crossing[number], np.cumsum([len(one), len(one), len(two)]))
    kept = np.concatenate([
        faces[count == 3],
        np.stack([one[:, 0], one_ab, one_ac], axis=1),
        np.stack([two_ab, two[:, 1], two[:, 2]], axis=1),
        np.stack([two_ab, two[:, 2], two_ac], axis=1),
    ])  # fmt: skip
    row = np.concatenate([row, row[a] + share * (row[b] - row[a])])
    column = np.concatenate([column, column[a] + share * (column[b] - column[a])])
    starts, ends = np.concatenate([one_ab, two_ac]), np.concatenate([one_ac, two_ab])
    on_seam = np.full(len(row), -1)
    last = column == columns
    where = {float(r): v for v, r in zip(np.flatnonzero(column == 0), row[column == 0])}
    for v in np.flatnonzero(last):
        on_seam[v] = where.get(float(row[v]), -1)
    alike = np.where(on_seam >= 0, on_seam, np.arange(len(row)))
    used, faces = np.unique(kept, return_inverse=True)
    index = np.full(len(row), -1)
    index[used] = np.arange(len(used))
    loops = [index[loop] for loop in _loops(alike[starts], alike[ends])]
    loops = [loop[loop >= 0] for loop in loops]
    return _Cut(row[used], column[used], faces.reshape(-1, 3), [loop for loop in loops if len(loop) >= _LEAST_LOOP])


def _loops(starts: Int[np.ndarray, " s"], ends: Int[np.ndarray, " s"]) -> list[Int[np.ndarray, " n"]]:
    """Closed chains of directed pieces, the longest first; open ones are left out."""
    following = dict(zip(starts.tolist(), ends.tolist()))
    loops = []
    while following:
        first, then = following.popitem()
        chain = [first]
        while then in following:
            chain.append(then)
            then = following.pop(then)
        if then == first:
            loops.append(np.array(chain))
    return sorted(loops, key=len, reverse=True)

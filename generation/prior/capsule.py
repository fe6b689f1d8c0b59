"""The capsule grid: a star-shaped chart of everything that surrounds the head.

Rows run from the crown down. The upper rows are directions of a half sphere above the chart's centre (elevation from
pi/2 to 0), the lower rows are horizontal directions from points of the vertical axis below it. Columns go once round
the axis, column 0 towards the face (+z), growing towards +x. A surface in this chart is one radius per cell, which
suits hair: thickness over the skull is a difference of two radii, and the outline seen in a picture moves cells
along their own direction only.
"""

from __future__ import annotations

import math
from typing import Any, cast, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from ..cameras import UNITS_PER_CM

ROWS, COLUMNS = 112, 128
SPHERE_ROWS = 56
"""Rows on the half sphere; the rest lie on the cylinder below."""
CENTRE_Y = 1.0 * UNITS_PER_CM
"""Height of the chart's centre, world units."""
BOTTOM_Y = -0.36
"""Height of the last row's origin, world units."""
WRAPPED: Any = ("nearest", "wrap")  # scipy's stubs know one mode for all axes only
"""Border mode of scipy's filters on charts whose columns close round the axis."""


def cell_rays(
    rows: Float[np.ndarray, "*g"], columns: Float[np.ndarray, "*g"]
) -> tuple[Float[np.ndarray, "*g 3"], Float[np.ndarray, "*g 3"]]:
    """Origins on the axis and unit outward directions of (fractional) cells, world units."""
    azimuth = columns * (2 * math.pi / COLUMNS)
    on_sphere = rows < SPHERE_ROWS
    elevation = np.where(on_sphere, math.pi / 2 * (1 - rows / SPHERE_ROWS), 0.0)
    drop = np.where(on_sphere, 0.0, (rows - SPHERE_ROWS) / (ROWS - 1 - SPHERE_ROWS) * (BOTTOM_Y - CENTRE_Y))
    zero = np.zeros_like(azimuth)
    origins = np.stack([zero, CENTRE_Y + drop, zero], axis=-1)
    directions = np.stack(
        [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)], axis=-1
    )
    return origins, directions


def grid_rays() -> tuple[Float[np.ndarray, "rows columns 3"], Float[np.ndarray, "rows columns 3"]]:
    """`cell_rays` of the whole grid."""
    rows, columns = np.meshgrid(np.arange(float(ROWS)), np.arange(float(COLUMNS)), indexing="ij")
    return cell_rays(rows, columns)


def surface_points(radius: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns 3"]:
    """World points of a surface given by its radius in every cell."""
    origins, directions = grid_rays()
    return origins + directions * radius[..., None]


def cell_coordinates(
    points_world: Float[np.ndarray, "*g 3"],
) -> tuple[Float[np.ndarray, "*g"], Float[np.ndarray, "*g"], Float[np.ndarray, "*g"]]:
    """Fractional row, fractional column in [0, COLUMNS) and radius of world points: the inverse of the chart."""
    # numpy's arctan2 of strided arrays depends, in its last bit, on where they lie in memory: hence the copies
    x, y, z = (np.ascontiguousarray(points_world[..., axis]) for axis in range(3))
    y = y - CENTRE_Y
    horizontal = np.hypot(x, z)
    columns = (np.arctan2(x, z) % (2 * math.pi)) * (COLUMNS / (2 * math.pi))
    elevation = np.arctan2(y, horizontal)
    rows = np.where(
        y >= 0,
        SPHERE_ROWS * (1 - elevation / (math.pi / 2)),
        SPHERE_ROWS + y / (BOTTOM_Y - CENTRE_Y) * (ROWS - 1 - SPHERE_ROWS),
    )
    radius = np.where(y >= 0, np.sqrt(horizontal**2 + y**2), horizontal)
    return rows, columns, radius


def grid_faces(rows: int = ROWS, columns: int = COLUMNS) -> Int[np.ndarray, "f 3"]:
    """Triangles of a grid with a seam: vertices are numbered row * (columns + 1) + column."""
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a = row * (columns + 1) + column
    b, c, d = a + 1, a + columns + 1, a + columns + 2
    upper = np.stack([a, c, b], axis=-1).reshape(-1, 3)
    lower = np.stack([b, c, d], axis=-1).reshape(-1, 3)
    return np.concatenate([upper, lower])


@numba.njit(cache=True, nogil=True)
@no_type_check
def spanned_cells(rows, columns, i, j, k, n_rows, n_columns):
    """First and last row and first and last column (not yet wrapped) of the cells that a triangle may cover.

    Args:
        rows, columns: fractional cells of all vertices.
    """
    r0 = min(rows[i], rows[j], rows[k])
    r1 = max(rows[i], rows[j], rows[k])
    first_row = max(0, math.floor(r0) - 1)
    last_row = min(n_rows - 1, math.ceil(r1) + 1)
    base = columns[i]
    low = 0.0
    high = 0.0
    for c in (columns[j], columns[k]):
        d = c - base
        if d > n_columns / 2:
            d -= n_columns
        if d < -n_columns / 2:
            d += n_columns
        low = min(low, d)
        high = max(high, d)
    first_column = math.floor(base + low) - 1
    last_column = math.ceil(base + high) + 1
    if high - low > n_columns / 3 or r0 < 3.0:  # about the pole a triangle may span any column, and the pole itself
        first_row = 0
        first_column = 0
        last_column = n_columns - 1
    return first_row, last_row, first_column, last_column


@numba.njit(cache=True, nogil=True)
@no_type_check
def ray_hit(origin, direction, a, b, c, slack):
    """Distance along a ray to a triangle, and the weights of its second and third corner; -1 where it is missed.

    Source: Moller and Trumbore 1997, "Fast, Minimum Storage Ray/Triangle Intersection".

    Args:
        slack: how far outside the triangle still counts as a hit, as a weight.
    """
    e1x, e1y, e1z = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    e2x, e2y, e2z = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    dx, dy, dz = direction[0], direction[1], direction[2]
    px, py, pz = dy * e2z - dz * e2y, dz * e2x - dx * e2z, dx * e2y - dy * e2x
    det = e1x * px + e1y * py + e1z * pz
    if abs(det) < 1e-14:
        return -1.0, 0.0, 0.0
    sx, sy, sz = origin[0] - a[0], origin[1] - a[1], origin[2] - a[2]
    u = (sx * px + sy * py + sz * pz) / det
    if u < -slack or u > 1 + slack:
        return -1.0, 0.0, 0.0
    qx, qy, qz = sy * e1z - sz * e1y, sz * e1x - sx * e1z, sx * e1y - sy * e1x
    v = (dx * qx + dy * qy + dz * qz) / det
    if v < -slack or u + v > 1 + slack:
        return -1.0, 0.0, 0.0
    return (e2x * qx + e2y * qy + e2z * qz) / det, u, v


@numba.njit(cache=True, nogil=True)
@no_type_check
def _outermost_hits(vertices, faces, rows, columns, origins, directions, most, radius):
    """For every triangle test the cells its corners span; keep the farthest hit, up to `most`, along each ray."""
    n_rows, n_columns = radius.shape
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        first_row, last_row, first, last = spanned_cells(rows, columns, i, j, k, n_rows, n_columns)
        for row in range(first_row, last_row + 1):
            for wrapped in range(first, last + 1):
                column = wrapped % n_columns
                t, _, _ = ray_hit(
                    origins[row, column], directions[row, column], vertices[i], vertices[j], vertices[k], 1e-9
                )
                if 0 < t <= most and (not radius[row, column] >= t):
                    radius[row, column] = t


def farthest_hits(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    cells: tuple[Float[np.ndarray, " v"], Float[np.ndarray, " v"]],
    rays: tuple[Float[np.ndarray, "rows columns 3"], Float[np.ndarray, "rows columns 3"]],
    most: float = math.inf,
) -> Float[np.ndarray, "rows columns"]:
    """Distance along every ray of a chart to the farthest place where it meets a mesh; NaN where it misses it.

    Args:
        cells: fractional row and column of each vertex in the chart, whose columns close round the axis.
        rays: origins and unit directions of the chart's cells.
        most: what lies farther along a ray does not count.
    """
    rows, columns = cells
    radius = np.full(rays[0].shape[:2], np.nan)
    arrays = (np.ascontiguousarray(vertices, dtype=np.float64), np.ascontiguousarray(faces))
    _outermost_hits(*arrays, rows, columns, *rays, most, radius)
    return radius


def outermost_radius(
    vertices_world: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "rows columns"]:
    """Radius of a mesh's outermost surface in every cell of the grid; NaN where a cell's ray misses it."""
    rows, columns, _ = cell_coordinates(np.ascontiguousarray(vertices_world, dtype=np.float64))
    return farthest_hits(vertices_world, faces, (rows, columns), grid_rays())


def smooth_over_columns(
    values: Float[np.ndarray, "rows columns"], sigma_rows: float, sigma_columns: float
) -> Float[np.ndarray, "rows columns"]:
    """Gaussian smoothing that wraps round the axis."""
    return ndimage.gaussian_filter(values, (sigma_rows, sigma_columns), mode=WRAPPED)


def opened_skull_radius(
    vertices_world: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "rows columns"]:
    """Radius of the head without ears and nose: the base that hair thickness is measured from.

    A grey opening removes what is narrower than about 48 degrees or 9 rows, then a light smoothing follows.
    """
    radius = outermost_radius(vertices_world, faces)
    radius = np.where(np.isfinite(radius), radius, 0.02)
    opened = ndimage.grey_opening(radius, size=(1, 17), mode="wrap")
    opened = ndimage.grey_opening(opened, size=(9, 1), mode="nearest")
    return smooth_over_columns(opened, 1.5, 2.0)


def pieces_round(mask: Bool[np.ndarray, "rows columns"]) -> tuple[np.ndarray, int]:
    """Connected pieces of a mask that is closed round the axis, numbered from 1, and how many there are.

    Returns:
        Numbers over three turns of the columns, so that pieces cross the seam; the middle one is whole. 0 off the mask.
    """
    return cast("tuple[np.ndarray, int]", ndimage.label(np.concatenate([mask] * 3, axis=1)))

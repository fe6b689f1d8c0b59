"""Level sections of a body: its radius in 96 directions at each height, the chart in which busts are built.

The frame is the body's: y up along it, z to its front, the origin in the middle of the neck where the head model is cut
off. Radii are measured from an axis that follows the body's lean. Column 0 looks to the front, columns grow towards +x;
they crowd at the sides, where a body that is wider than deep bends most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from .. import capsule

COLUMNS = 96
_WIDER_THAN_DEEP = 1.7


def column_angles() -> Float[np.ndarray, " columns"]:
    """Parameter of each column, radians: 0 in front, a quarter turn at +x."""
    return np.arange(COLUMNS) * (2 * np.pi / COLUMNS)


def column_directions() -> Float[np.ndarray, "columns 3"]:
    """Unit level direction of each column."""
    angle = column_angles()
    direction = np.stack([_WIDER_THAN_DEEP * np.sin(angle), np.zeros(COLUMNS), np.cos(angle)], axis=1)
    return direction / np.linalg.norm(direction, axis=1, keepdims=True)


def column_of(x: Float[np.ndarray, "*n"], z: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Fractional column in [0, COLUMNS) of level offsets from the axis: the inverse of `column_directions`."""
    x, z = np.ascontiguousarray(x), np.ascontiguousarray(z)
    return np.arctan2(x / _WIDER_THAN_DEEP, z) % (2 * np.pi) * (COLUMNS / (2 * np.pi))


def section_points(
    heights: Float[np.ndarray, " rows"], axis_z: Float[np.ndarray, " rows"], radius: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns 3"]:
    """The surface that has these radii."""
    points = radius[..., None] * column_directions()
    points[..., 1] += heights[:, None]
    points[..., 2] += axis_z[:, None]
    return points


def section_radius(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    heights: Float[np.ndarray, " rows"],
    axis_z: Float[np.ndarray, " rows"],
    most: float = np.inf,
) -> Float[np.ndarray, "rows columns"]:
    """Radius of a mesh's outermost surface at each height and column; NaN where there is none.

    Args:
        vertices, faces: the mesh in the body's frame.
        heights: evenly spaced, falling.
        axis_z: depth of the axis at these heights.
        most: what lies farther from the axis does not count.
    """
    x, y, z = np.asarray(vertices, dtype=np.float64).T
    row = (heights[0] - y) / (heights[0] - heights[1])
    column = column_of(x, z - np.interp(-y, -heights, axis_z))
    origins = np.stack([np.zeros_like(heights), heights, axis_z], axis=1)
    shape = (len(heights), COLUMNS, 3)
    rays = tuple(np.ascontiguousarray(np.broadcast_to(a, shape)) for a in (origins[:, None], column_directions()))
    return capsule.farthest_hits(vertices, faces, (row, column), (rays[0], rays[1]), most)


def filled_sections(radius: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Gaps filled along each column, then round the axis; the ends go on for ever.

    Raises:
        AssertionError: nothing is known at all.
    """
    radius = radius.copy()
    rows = np.arange(len(radius))
    known = np.isfinite(radius)
    for column in np.flatnonzero(known.any(0) & ~known.all(0)):
        at = known[:, column]
        radius[:, column] = np.interp(rows, rows[at], radius[at, column])
    known_columns = np.flatnonzero(known.any(0))
    assert len(known_columns)
    if len(known_columns) < COLUMNS:
        around = np.concatenate([known_columns - COLUMNS, known_columns, known_columns + COLUMNS])
        for row in rows:
            radius[row] = np.interp(np.arange(COLUMNS), around, np.tile(radius[row, known_columns], 3))
    return radius


def smooth_sections(
    values: Float[np.ndarray, "rows columns"], sigma_rows: float, sigma_columns: float
) -> Float[np.ndarray, "rows columns"]:
    """Gaussian smoothing that closes round the axis."""
    return ndimage.gaussian_filter(values, (sigma_rows, sigma_columns), mode=capsule.WRAPPED)


def smooth_grid(
    points: Float[np.ndarray, "*n rows columns 3"], sigma_rows: float, sigma_columns: float
) -> Float[np.ndarray, "*n rows columns 3"]:
    """Gaussian smoothing of grids of points whose columns close round the axis."""
    modes: Any = (*["nearest"] * (points.ndim - 3), *capsule.WRAPPED, "nearest")  # scipy's stubs know one mode only
    return ndimage.gaussian_filter(points, (*[0.0] * (points.ndim - 3), sigma_rows, sigma_columns, 0.0), mode=modes)


def median_of_sections(
    values: Float[np.ndarray, "rows columns"], rows: int, columns: int
) -> Float[np.ndarray, "rows columns"]:
    """Median over neighbourhoods of odd sizes that close round the axis."""
    pad = columns // 2
    wide = np.concatenate([values[:, -pad:], values, values[:, :pad]], axis=1)
    return ndimage.median_filter(wide, (rows, columns), mode="nearest")[:, pad:-pad]


def grid_faces(rows: int) -> Int[np.ndarray, "f 3"]:
    """Triangles of a grid of sections without a seam: vertices are numbered row * COLUMNS + column."""
    row, column = np.divmod(capsule.grid_faces(rows, COLUMNS), COLUMNS + 1)
    return row * COLUMNS + column % COLUMNS

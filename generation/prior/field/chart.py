"""The chart of head fields: every second row and column of the capsule grid, from the crown to the chest.

Cell (i, j) is centred on row 2 i + 1/2 and column 2 j of `capsule`, so that a mirrored head has its columns in the
order of `MIRRORED`. All cells of row 0 meet at the crown. Vectors of a cell are stated along three unit vectors: down
the rows, round the columns, and outwards along the cell's ray.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage

from .. import capsule

ROWS, COLUMNS = capsule.ROWS // 2, capsule.COLUMNS // 2
"""Size of the chart."""
MIRRORED = -np.arange(COLUMNS) % COLUMNS
"""Columns of the mirrored head."""
_MARGIN = 4
"""Columns beyond the seam that splines look at."""


def capsule_rows(rows: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Fractional rows of `capsule` of fractional rows of this chart; whole numbers are centres of cells."""
    return 2 * rows + 0.5


def chart_rows(rows: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Inverse of `capsule_rows`."""
    return (rows - 0.5) / 2


class CellFrames(NamedTuple):
    """Rays of the cells' centres and the unit vectors that vectors are stated along, world frame."""

    origins_world: Float[np.ndarray, "56 64 3"]
    down: Float[np.ndarray, "56 64 3"]
    around: Float[np.ndarray, "56 64 3"]
    outward: Float[np.ndarray, "56 64 3"]


@functools.cache
def cell_frames() -> CellFrames:
    """The frames of all cells; down is towards growing rows, around towards growing columns."""
    rows, columns = np.meshgrid(capsule_rows(np.arange(float(ROWS))), 2.0 * np.arange(COLUMNS), indexing="ij")
    origins, outward = capsule.cell_rays(rows, columns)
    azimuth = columns * (2 * math.pi / capsule.COLUMNS)
    around = np.stack([np.cos(azimuth), 0 * azimuth, -np.sin(azimuth)], axis=-1)
    return CellFrames(origins, np.cross(around, outward), around, outward)


@functools.cache
def cell_shares() -> Float[np.ndarray, "56 64"]:
    """Size of each cell on a sphere with a cylinder below, 1 for the largest: weights of a mean over the head."""
    elevation = np.clip(1 - capsule_rows(np.arange(float(ROWS))) / capsule.SPHERE_ROWS, 0, None) * (math.pi / 2)
    return np.broadcast_to(np.cos(elevation)[:, None], (ROWS, COLUMNS)).copy()


def surface_mesh(
    points_world: Float[np.ndarray, "56 64 3"],
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """A surface with a point in every cell as a mesh closed round the axis; vertex 65 i + j is cell (i, j mod 64)."""
    closed = np.concatenate([points_world, points_world[:, :1]], axis=1)
    return closed.reshape(-1, 3), capsule.grid_faces(ROWS, COLUMNS)


def surface_tangents(
    points_world: Float[np.ndarray, "56 64 3"],
) -> tuple[Float[np.ndarray, "56 64 3"], Float[np.ndarray, "56 64 3"], Float[np.ndarray, "56 64 3"]]:
    """Steps of such a surface per row and per column, and its unit outward normals."""
    down = np.gradient(points_world, axis=0)
    around = (np.roll(points_world, -1, axis=1) - np.roll(points_world, 1, axis=1)) / 2
    normals = np.cross(down, around)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return down, around, normals


def of_capsule(grid: Float[np.ndarray, "112 128"]) -> Float[np.ndarray, "56 64"]:
    """A grid of the capsule at the centres of this chart's cells."""
    cells = (grid[0::2, 0::2] + grid[1::2, 0::2]) / 2
    cells[0] = cells[0].mean()  # the crown is one place
    return cells


def to_capsule(grid: Float[np.ndarray, "*k 56 64"], *, order: int = 3) -> Float[np.ndarray, "*k 112 128"]:
    """Grids of this chart at all cells of the capsule, in between by splines that close round the axis.

    Args:
        grid: any number of channels.
        order: of the splines; those above 1 overshoot at steps.
    """
    row, column = np.meshgrid(
        chart_rows(np.arange(float(capsule.ROWS))), np.arange(capsule.COLUMNS) / 2 + _MARGIN, indexing="ij"
    )
    closed = np.concatenate([grid[..., -_MARGIN:], grid, grid[..., :_MARGIN]], axis=-1).astype(np.float64)
    flat = closed.reshape(-1, *closed.shape[-2:])
    fine = [ndimage.map_coordinates(channel, [row, column], order=order, mode="nearest") for channel in flat]
    return np.stack(fine).reshape(*grid.shape[:-2], capsule.ROWS, capsule.COLUMNS)


def at_points(grid: Float[np.ndarray, "56 64 k"], points_world: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n k"]:
    """Grids of this chart where points of the world lie, linear in between and closed round the axis.

    Args:
        grid: any number of channels.
        points_world: world units; those above the first and below the last row get that row's.
    """
    row, column, _ = capsule.cell_coordinates(points_world)
    row = np.clip(chart_rows(row), 0, ROWS - 1)
    column = np.asarray(column) * (COLUMNS / capsule.COLUMNS)
    above, before = np.minimum(row.astype(np.int64), ROWS - 2), np.floor(column).astype(np.int64)
    down, along = (row - above)[:, None], (column - before)[:, None]
    before, after = before % COLUMNS, (before + 1) % COLUMNS
    upper = grid[above, before] * (1 - along) + grid[above, after] * along
    lower = grid[above + 1, before] * (1 - along) + grid[above + 1, after] * along
    return upper * (1 - down) + lower * down


def filled_from_near(
    values: Float[np.ndarray, "*k 56 64"], known: Bool[np.ndarray, "56 64"], unknown: float = 0.0
) -> Float[np.ndarray, "*k 56 64"]:
    """Cells that are not known take smooth means of the known cells about them, the wider the fewer there are.

    Args:
        values: any number of channels.
        known: cells that keep what they have.
        unknown: what all cells get where none is known.
    """
    if not known.any():
        return np.full_like(values, unknown)
    result = np.where(known, values, values[..., known].mean(-1)[..., None, None])
    missing, weight = ~known, known.astype(np.float64)
    flat, start = result.reshape(-1, ROWS, COLUMNS), (values * weight).reshape(-1, ROWS, COLUMNS)
    for sigma in (1.0, 2.0, 4.0, 8.0):
        total = ndimage.gaussian_filter(weight, sigma, mode=capsule.WRAPPED)
        reached = missing & (total > 1e-3)
        if reached.any():
            for channel, grid in zip(flat, start):
                mean = ndimage.gaussian_filter(grid, sigma, mode=capsule.WRAPPED)
                channel[reached] = mean[reached] / total[reached]
        missing = missing & ~reached
    return result


def from_blocks(values: Float32[np.ndarray, "r c"]) -> Float32[np.ndarray, "56 64"]:
    """Values of blocks of cells at all cells, in between linear and closed round the axis."""
    rows, columns = values.shape
    size = COLUMNS // columns
    closed = np.concatenate([values[:, -1:], values, values[:, :1]], axis=1)
    at = ((np.arange(n) - (size - 1) / 2) / size for n in (ROWS, COLUMNS))
    row, column = np.meshgrid(*at, indexing="ij")
    return ndimage.map_coordinates(closed, [row, column + 1], order=1, mode="nearest")


def smooth_noise(rng: np.random.Generator, rows: int = 7, columns: int = 8) -> Float32[np.ndarray, "56 64"]:
    """Random values that vary over the chart as slowly as `rows` x `columns` numbers do: mean 0, variance about 1."""
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    coarse = np.concatenate([coarse, coarse[:, :1]], axis=1)
    at = np.meshgrid(np.linspace(0, rows - 1, ROWS), np.arange(COLUMNS) * (columns / COLUMNS), indexing="ij")
    return 1.5 * ndimage.map_coordinates(coarse, at, order=1, mode="nearest")

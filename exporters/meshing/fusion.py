"""Renders become a distance field: depths of all views averaged near the surface, cut by their silhouettes.

A voxel is outside where views look through it to a surface behind, or where at least two silhouettes leave it out; what
no view has seen counts as inside. So the field describes a solid without holes whatever the depths do, and the flat
bottom is simply the end of the field. Two passes: a coarse one finds where the surface is, the fine one computes
there only.

Source: B. Curless and M. Levoy, "A Volumetric Method for Building Complex Models from Range Images", SIGGRAPH 1996
(weighted mean of truncated distances along the line of sight, Sec. 3; space carving, Sec. 4); the factor cosine, which
turns distances along the line of sight into distances from a plane, and the falling weight behind the surface after
Bylow et al., "Real-Time Camera Tracking and 3D Reconstruction Using Signed Distance Functions", RSS 2013, Sec. III.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Float64

from dp360.generation import InputError
from dp360.generation.numba_pool import numba_pool

from .compact_renders import Pictures, bilinear
from .config import MeshConfig

COARSE_FACTOR = 4
_BLOCK = 8  # coarse voxels per side of a unit of work in the coarse pass
_TRUNCATION_VOXELS = 3.0
_MIN_FACING = 0.2
_EDGE_REACH = 0.07  # world units (4 cm) by which a ragged lower edge may lift the cut
_BUST_REACH = 0.16  # world units (10 cm) above the cut within which the bust is filled
_SKIN = 0.0015  # world units (0.9 mm) from the mean depth of soft Gaussians to where they are half opaque from the side
_EDGE_PX = 2.5  # width over which alpha falls from 1 to 0 at a silhouette


@dataclass(frozen=True)
class DistanceField:
    """Signed distances on a grid, positive outside."""

    values: Float32[np.ndarray, "x y z"]
    """World units, truncated; the outermost layers are outside."""
    origin_world: Float64[np.ndarray, 3]
    """Position of the first voxel's centre."""
    voxel_size: float
    """Grid spacing, world units."""


def fuse(pictures: Pictures, config: MeshConfig) -> DistanceField:
    """The distance field of what the pictures show above `config.bottom_y`.

    Raises:
        InputError: no surface in the cube.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    coarse_size = COARSE_FACTOR * config.voxel_size
    blocks = int(np.ceil(2 * config.half_extent / (_BLOCK * coarse_size)))
    origin = np.full(3, -0.5 * blocks * _BLOCK * coarse_size + 0.5 * coarse_size)
    views = pictures.kernel_arrays()
    everywhere = np.argwhere(np.ones((blocks,) * 3, bool)).astype(np.int32)
    coarse = np.empty((blocks * _BLOCK,) * 3, np.float32)
    no_footprint = np.array([0.0, -np.inf, 0.0, 0.0, 0.0])
    with numba_pool(coarse.size):
        _fuse_blocks(coarse, origin, coarse_size, everywhere, _BLOCK, 2 * coarse_size, no_footprint, *views)
    heights = origin[1] + coarse_size * np.arange(coarse.shape[1])
    bottom_y = _sound_bottom(coarse, heights, config.bottom_y)
    solid = (coarse < 0) & (heights > bottom_y)[:, None]
    if not solid.any():
        raise InputError(
            f"Cannot make a mesh: found no surface above y = {config.bottom_y} within {config.half_extent} world units "
            "of the origin; the head must lie at the origin"
        )
    inside = np.argwhere(solid)
    low, high = np.maximum(inside.min(axis=0) - 3, 0), np.minimum(inside.max(axis=0) + 4, coarse.shape)
    coarse = coarse[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    solid = (coarse < 0).astype(np.uint8)
    corner = origin + low * coarse_size  # centre of the first coarse voxel
    fine_origin = corner - 0.5 * (coarse_size - config.voxel_size)
    values = np.repeat(np.repeat(np.repeat(np.sign(coarse), 4, axis=0), 4, axis=1), 4, axis=2)
    truncation = _TRUNCATION_VOXELS * config.voxel_size
    values *= truncation
    first, last = origin + inside.min(axis=0) * coarse_size, origin + inside.max(axis=0) * coarse_size
    footprint = np.array([first[0], bottom_y, first[2], last[0], last[2]])
    active = np.argwhere(maximum_filter(solid, 3) > minimum_filter(solid, 3)).astype(
        np.int32
    )  # beside a change of sign
    with numba_pool(values.size):
        _fuse_blocks(values, fine_origin, config.voxel_size, active, COARSE_FACTOR, truncation, footprint, *views)
    heights = fine_origin[1] + config.voxel_size * np.arange(values.shape[1])
    _fill_bust(values, heights, bottom_y)
    np.maximum(values, (bottom_y - heights).astype(np.float32)[:, None], out=values)
    for axis in range(3):
        edges = np.moveaxis(values, axis, 0)
        edges[[0, -1]] = np.maximum(edges[[0, -1]], config.voxel_size)
    return DistanceField(values, fine_origin, config.voxel_size)


def _sound_bottom(coarse: Float32[np.ndarray, "x y z"], heights: Float64[np.ndarray, " y"], bottom_y: float) -> float:
    """The height, at or a little above `bottom_y`, from which on the bust is whole: its lower edge is often ragged."""
    from scipy.ndimage import binary_fill_holes

    rows = np.flatnonzero((heights > bottom_y) & (heights < bottom_y + 2 * _EDGE_REACH))
    area = np.array([np.asarray(binary_fill_holes(coarse[:, row] < 0)).sum() for row in rows])
    usual = np.median(area[heights[rows] > bottom_y + _EDGE_REACH])
    whole = rows[(area >= 0.9 * usual) & (heights[rows] < bottom_y + _EDGE_REACH)]
    if not len(whole) or whole[0] == rows[0]:
        return bottom_y
    return float(heights[whole[0]] + (heights[1] - heights[0]))


def _fill_bust(values: Float32[np.ndarray, "x y z"], heights: Float64[np.ndarray, " y"], bottom_y: float) -> None:
    """Make the bust solid, in place: whatever a level cut shows surrounded by it, near its bottom, is inside.

    Views from below may look into the bust, a hollow shell, through its lower edge.
    """
    from scipy.ndimage import binary_fill_holes

    deepest = np.float32(values.min())
    for row in np.flatnonzero((heights > bottom_y) & (heights < bottom_y + _BUST_REACH)):
        layer = values[:, row]
        solid = layer < 0
        values[:, row] = np.where(np.asarray(binary_fill_holes(solid)) & ~solid, deepest, layer)


@numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
@no_type_check
def _fuse_blocks(
    values, origin, voxel_size, blocks, side, truncation, footprint, eyes, poses, lenses, alpha, depth, facing
):
    """Compute `values` in cubes of `side` voxels.

    `footprint`: least x, height, least z, largest x, largest z of the bust's bottom; lines of sight through it would
    see the inside of the bust and are left out.
    """
    height, width = alpha.shape[1:]
    for b in numba.prange(blocks.shape[0]):
        i0, j0, k0 = blocks[b, 0] * side, blocks[b, 1] * side, blocks[b, 2] * side
        count = side * side * side
        for n in range(count):
            x = origin[0] + voxel_size * (i0 + n // (side * side))
            y = origin[1] + voxel_size * (j0 + n // side % side)
            z = origin[2] + voxel_size * (k0 + n % side)
            total, weight, asked, emptied = 0.0, 0.0, False, False
            cut1, cut2 = -1e9, -1e9  # the largest and the second largest distance outside a silhouette
            for c in range(poses.shape[0]):
                T, fx, fy, cx, cy = poses[c], lenses[c, 0], lenses[c, 1], lenses[c, 2], lenses[c, 3]
                zc = T[8] * x + T[9] * y + T[10] * z + T[11]
                if not zc > 0.01:
                    continue
                u = fx * (T[0] * x + T[1] * y + T[2] * z + T[3]) / zc + cx - 0.5
                v = fy * (T[4] * x + T[5] * y + T[6] * z + T[7]) / zc + cy - 0.5
                if not (u >= 1.0 and v >= 1.0 and u < width - 2 and v < height - 2):
                    continue
                asked = True
                if eyes[c, 1] < footprint[1] < y:
                    s = (footprint[1] - eyes[c, 1]) / (y - eyes[c, 1])
                    px, pz = eyes[c, 0] + s * (x - eyes[c, 0]), eyes[c, 2] + s * (z - eyes[c, 2])
                    if footprint[0] <= px <= footprint[3] and footprint[2] <= pz <= footprint[4]:
                        continue
                row, col = int(v), int(u)
                A, D, F = alpha[c], depth[c], facing[c]
                if A[row, col] == 255 and F[row, col] > 127 and zc > D[row, col] + 4.0 * truncation:
                    continue  # far behind the surface: nothing to learn
                fv, fu = v - row, u - col
                a = bilinear(A, row, col, fv, fu) / 255.0
                cut = (0.5 - a) * _EDGE_PX * zc / fx
                if cut > cut1:
                    cut2 = cut1
                    cut1 = cut
                elif cut > cut2:
                    cut2 = cut
                if a == 0.0:
                    emptied = True
                    if cut2 > 0.45 * _EDGE_PX * zc / fx:  # two pictures show nothing here
                        total, weight = truncation, 1.0
                        break
                    continue
                if min(F[row, col], F[row, col + 1], F[row + 1, col], F[row + 1, col + 1]) < _MIN_FACING * 255:
                    continue
                d, f = bilinear(D, row, col, fv, fu), bilinear(F, row, col, fv, fu) / 255.0
                slope = np.sqrt(((u + 0.5 - cx) / fx) ** 2 + ((v + 0.5 - cy) / fy) ** 2 + 1.0)
                distance = (d - zc) * slope * f
                if distance <= -truncation:
                    continue
                w = f * f
                if distance < 0.0:
                    w *= 1.0 + distance / truncation
                total += w * min(distance, truncation)
                weight += w
            value = total / weight - _SKIN if weight > 1e-3 else -truncation
            # outside of all pictures, or empty in the only one that shows the place
            if not asked or (weight <= 1e-3 and emptied):
                value = truncation
            values[i0 + n // (side * side), j0 + n // side % side, k0 + n % side] = max(value, cut2)

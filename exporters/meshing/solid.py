"""From a distance field to a solid whose surface is a deformed sphere: one piece, no cavities, no handles.

Handles are cut by growing the solid anew from its core, deepest voxels first, and taking a voxel only if it is simple,
that is if taking it changes neither the number of pieces nor of cavities nor of tunnels; what closes a ring stays
outside. Inside voxels are connected through faces (6), outside ones through corners too (26).

Source: G. Bertrand and G. Malandain, "A new characterization of three-dimensional simple points", Pattern Recognition
Letters 15 (1994), Theorem 2.4; growing in the order of a distance as in P.-L. Bazin and D. Pham, "Topology correction
of segmented medical images using a fast marching algorithm", 2007, Sec. 2.
"""

from __future__ import annotations

import heapq
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float32

from .fusion import DistanceField

_LEAST = 0.05
"""Smallest absolute value in voxels: surfaces through a grid point make degenerate triangles."""
_SMOOTHING_VOXELS = 0.8
_CORE_LAYERS = 4


def clean_solid(field: DistanceField) -> DistanceField:
    """The same field, a little smoothed, with a single piece inside, nothing hollow, and handles cut."""
    from scipy import ndimage
    from skimage.measure import euler_number, label

    values, least = ndimage.gaussian_filter(field.values, _SMOOTHING_VOXELS), np.float32(_LEAST * field.voxel_size)
    values[np.abs(values) < least] = least
    inside = _largest_piece(values < 0)
    labels = np.asarray(label(~inside, connectivity=3))
    inside = labels != labels[0, 0, 0]  # cavities are other pieces of the outside
    if inside.any() and euler_number(inside, connectivity=1) != 1:
        inside = grow_without_handles(values, inside)
    values[(values < 0) & ~inside] = least
    values[(values > 0) & inside] = -least
    _part_diagonals(values, least)
    return DistanceField(values, field.origin_world, field.voxel_size)


def _largest_piece(inside: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The face-connected piece with most voxels."""
    from skimage.measure import label

    pieces = np.asarray(label(inside, connectivity=1))
    return pieces == np.bincount(pieces.ravel())[1:].argmax() + 1 if pieces.any() else inside


def grow_without_handles(
    values: Float32[np.ndarray, "x y z"], inside: Bool[np.ndarray, "x y z"]
) -> Bool[np.ndarray, "x y z"]:
    """The largest part of a solid that grows from its core by simple voxels alone, the deepest first.

    Args:
        values: smaller is deeper.
        inside: one face-connected piece that does not touch the border of the grid.
    """
    from scipy import ndimage
    from skimage.measure import euler_number

    core = inside
    for layers in range(1, max(inside.shape)):
        thinner = ndimage.binary_erosion(core)
        if not thinner.any():
            core = np.zeros_like(inside)
            core[np.unravel_index(int(np.where(inside, values, np.inf).argmin()), inside.shape)] = True
            break
        core = thinner
        if layers >= _CORE_LAYERS and layers % 2 == 0:
            core = _largest_piece(core)
            if euler_number(core, connectivity=1) == 1:
                break
    state = inside.astype(np.uint8) + core.astype(np.uint8)
    _grow(state, values)
    return state == _TAKEN


@numba.njit(cache=True, nogil=True)
@no_type_check
def _part_diagonals(values, least):
    """Make inside voxels shallow where some of eight neighbours meet only along an edge or at a corner.

    Marching cubes decides by the values which side is connected there: now always the outside, as `_is_simple` counts.
    """
    nx, ny, nz = values.shape
    inside = np.empty(8, np.uint8)
    for x in range(1, nx):
        for y in range(1, ny):
            for z in range(1, nz):
                count = 0
                for n in range(8):
                    inside[n] = values[x - (n >> 2), y - (n >> 1 & 1), z - (n & 1)] < 0
                    count += inside[n]
                if count < 2 or count > 6:
                    continue
                diagonal = False
                for n in range(4):
                    # two opposite corners on one side, the other six on the other
                    diagonal |= inside[n] == inside[7 - n] and count == (2 if inside[n] else 6)
                for bit in (1, 2, 4):  # faces: the corners whose number has the bit, and those without
                    p, q = (1, 2) if bit == 4 else ((1, 4) if bit == 2 else (2, 4))
                    for base in (0, bit):
                        a, b, c, d = inside[base], inside[base + p], inside[base + q], inside[base + p + q]
                        diagonal |= a == d and b == c and a != b
                if diagonal:
                    for n in range(8):
                        if inside[n]:
                            values[x - (n >> 2), y - (n >> 1 & 1), z - (n & 1)] = -0.1 * least


_TAKEN = 2


@numba.njit(cache=True, nogil=True)
@no_type_check
def _is_one_piece(cube, side, starts, steps_max, distance_max, stack, seen):
    """Whether the voxels of one side that hang together with one of `starts` are one piece, and there is one.

    Args:
        cube: a 3x3x3 neighbourhood (27 numbers, 1 inside, 0 outside); its middle belongs to neither side.
        side: 1 or 0.
        starts: places in the cube to begin at.
        steps_max: coordinates in which neighbours may differ: 1 connects through faces, 3 through corners too.
        distance_max: coordinates in which a voxel may differ from the middle: 2 leaves the eight corners out.
        stack: room for places.
        seen: room for a mark per place.
    """
    for n in range(27):
        seen[n] = 0
    pieces = 0
    for start in starts:
        if start == 13 or cube[start] != side or seen[start]:
            continue
        pieces += 1
        if pieces > 1:
            return False
        top = 1
        stack[0] = start
        seen[start] = 1
        while top:
            top -= 1
            at = stack[top]
            x, y, z = at // 9, at // 3 % 3, at % 3
            for p in range(max(x - 1, 0), min(x + 2, 3)):
                for q in range(max(y - 1, 0), min(y + 2, 3)):
                    for r in range(max(z - 1, 0), min(z + 2, 3)):
                        other = 9 * p + 3 * q + r
                        near = abs(p - x) + abs(q - y) + abs(r - z) <= steps_max
                        within = abs(p - 1) + abs(q - 1) + abs(r - 1) <= distance_max
                        if near and within and other != 13 and cube[other] == side and not seen[other]:
                            seen[other] = 1
                            stack[top] = other
                            top += 1
    return pieces == 1


@numba.njit(cache=True, nogil=True)
@no_type_check
def _is_simple(cube, stack, seen):
    """Whether the middle of a 3x3x3 neighbourhood may change sides: one piece inside, and one outside, touch it."""
    return _is_one_piece(cube, 1, (4, 10, 12, 14, 16, 22), 1, 2, stack, seen) and _is_one_piece(
        cube, 0, range(27), 3, 3, stack, seen
    )


@numba.njit(cache=True, nogil=True)
@no_type_check
def _grow(state, order):
    """Turn candidates (1) into taken voxels (2), starting beside those taken already."""
    nx, ny, nz = state.shape
    cube = np.zeros(27, np.uint8)
    stack = np.zeros(64, np.int64)
    seen = np.zeros(27, np.uint8)
    queued = np.zeros(state.shape, np.uint8)
    heap = [(np.float32(0.0), np.int64(-1))]
    heap.pop()
    for x in range(1, nx - 1):
        for y in range(1, ny - 1):
            for z in range(1, nz - 1):
                if state[x, y, z] == 1 and (
                    state[x - 1, y, z] == 2
                    or state[x + 1, y, z] == 2
                    or state[x, y - 1, z] == 2
                    or state[x, y + 1, z] == 2
                    or state[x, y, z - 1] == 2
                    or state[x, y, z + 1] == 2
                ):
                    queued[x, y, z] = 1
                    heap.append((order[x, y, z], np.int64((x * ny + y) * nz + z)))
    heapq.heapify(heap)
    while heap:
        _, at = heapq.heappop(heap)
        x, y, z = at // (ny * nz), at // nz % ny, at % nz
        queued[x, y, z] = 0  # a voxel that is refused now may be asked again when a neighbour is taken
        for n in range(27):
            cube[n] = state[x + n // 9 - 1, y + n // 3 % 3 - 1, z + n % 3 - 1] == 2
        if not _is_simple(cube, stack, seen):
            continue
        state[x, y, z] = 2
        for n in range(6):
            p, q, r = x + (n == 0) - (n == 1), y + (n == 2) - (n == 3), z + (n == 4) - (n == 5)
            if state[p, q, r] == 1 and not queued[p, q, r]:
                queued[p, q, r] = 1
                heapq.heappush(heap, (order[p, q, r], np.int64((p * ny + q) * nz + r)))

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
from jaxtyping import Bool, Float32, Int64

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
    _grow(state, values.ravel(), np.flatnonzero((state == 1) & ndimage.binary_dilation(state == _TAKEN)))
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


def _neighbour_bits(steps_max: int, distance_max: int) -> Int64[np.ndarray, 27]:
    """For each place of a 3x3x3 cube those that it is connected to, as bits of a number; never the middle.

    Args:
        steps_max: coordinates in which they may differ: 1 connects through faces, 3 through corners too.
        distance_max: coordinates in which they may differ from the middle: 2 leaves the eight corners out.
    """
    places = np.argwhere(np.ones((3, 3, 3))) - 1
    apart, distance = np.abs(places[:, None] - places), np.abs(places).sum(axis=1)
    connected = (apart.max(axis=2) <= 1) & (apart.sum(axis=2) <= steps_max)
    return (connected & (distance > 0) & (distance <= distance_max)) @ (1 << np.arange(27))


_THROUGH_FACES, _THROUGH_CORNERS = _neighbour_bits(1, 2), _neighbour_bits(3, 3)
_ALL_PLACES = (1 << 27) - 1
_BESIDE_MIDDLE = sum(1 << place for place in (4, 10, 12, 14, 16, 22))
_AROUND_MIDDLE = _ALL_PLACES - (1 << 13)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _is_one_piece(cells, starts, neighbours):
    """Whether those of the places `cells` that hang together with one of `starts` are one piece, and there is one."""
    asked = cells & starts
    reached, grown = 0, asked & -asked
    while grown != reached:
        reached = grown
        for n in range(27):
            if reached >> n & 1:
                grown |= neighbours[n] & cells
    return asked != 0 and asked & ~reached == 0


@numba.njit(cache=True, nogil=True)
@no_type_check
def _is_simple(inside):
    """Whether the middle of a 3x3x3 neighbourhood may change sides: one piece inside, and one outside, touch it."""
    return _is_one_piece(inside, _BESIDE_MIDDLE, _THROUGH_FACES) and _is_one_piece(
        _ALL_PLACES & ~inside, _AROUND_MIDDLE, _THROUGH_CORNERS
    )


@numba.njit(cache=True, nogil=True)
@no_type_check
def _grow(state, order, seeds):
    """Turn candidates (1) into taken voxels (2), starting with those beside the taken ones, given as flat indices."""
    _, ny, nz = state.shape
    queued = np.zeros(state.size, np.uint8)
    queued[seeds] = 1
    heap = [(order[at], at) for at in seeds]
    heapq.heapify(heap)
    while heap:
        _, at = heapq.heappop(heap)
        x, y, z = at // (ny * nz), at // nz % ny, at % nz
        queued[at] = 0  # a voxel that is refused now may be asked again when a neighbour is taken
        inside = 0
        for n in range(27):
            inside |= np.int64(state[x + n // 9 - 1, y + n // 3 % 3 - 1, z + n % 3 - 1] == 2) << n
        if not _is_simple(inside):
            continue
        state[x, y, z] = 2
        for n in range(6):
            p, q, r = x + (n == 0) - (n == 1), y + (n == 2) - (n == 3), z + (n == 4) - (n == 5)
            beside = (p * ny + q) * nz + r
            if state[p, q, r] == 1 and not queued[beside]:
                queued[beside] = 1
                heapq.heappush(heap, (order[beside], beside))

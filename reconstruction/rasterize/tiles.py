"""Projected Gaussians sorted into lists by 16 px tile, nearest first.

Order of work for one camera: `depth_order`, `count_room`, `list_tiles`, `scatter_to_tiles`.

A Gaussian is in a tile's list where the tile lies in gsplat's rectangle of three sigma *and* the ellipse of
alpha = 1/255 touches it, which changes no pixel (as in Radl et al., "StopThePop", 2024, Sec. 5.1). The same test gives
the rows that the ellipse can reach in the left and the right half of the tile, so that blending looks at few pixels in
vain.

Source: Kerbl et al., "3D Gaussian Splatting", 2023, Sec. 6; the rectangle is that of gsplat 1.4.0 (`isect_tiles.cu`).
"""

from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Int

from .kernels import Kernel
from .records import DEPTH, REACH_X, REACH_Y, RISE, SLANT, SUMMIT, U, V
from .simd import next_index

TILE = 16
"""Side of a tile in pixels."""
PAIR_TILE, PAIR_ROWS = 0, 1
"""Columns of a pair: the tile, and the rows in it."""
GAUSSIAN, ROWS, PAIR = 0, 1, 2
"""Columns of an entry of a tile's list: the Gaussian, the rows, and the pair it was made from."""
ENTRY = 4
"""Columns of an entry, with one to spare."""
_BLOCK = 256
_MARGIN = 1e-3


def depth_order(records: Float32[np.ndarray, "n 16"]) -> Int[np.ndarray, " v"]:
    """Visible Gaussians, nearest first, equal depths by index: numpy sorts 16 bits by radix, so it is asked twice."""
    visible = np.flatnonzero(records[:, REACH_X] >= 0)
    bits = records[visible, DEPTH].view(np.uint32)  # positive floats sort like their bits
    by_low = np.argsort(bits.astype(np.uint16), kind="stable")
    return visible[by_low[np.argsort((bits[by_low] >> 16).astype(np.uint16), kind="stable")]]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _floor(x, low, high):
    """The largest integer below `x`, within two limits that may be far closer than `x`."""
    x = min(float(high), max(float(low), x))
    n = int(x)
    return n - 1 if x < n else n


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _tile_rectangle(record, radius, tiles_x, tiles_y):
    """First and end tile in x and y: gsplat's rectangle of three sigma, cut to the reach of alpha = 1/255."""
    u, v, r = float(record[U]), float(record[V]), float(radius)
    reach_x, reach_y = float(record[REACH_X]), float(record[REACH_Y])
    low_x = _floor((u - min(r, reach_x + 0.5)) / TILE, 0, tiles_x)
    low_y = _floor((v - min(r, reach_y + 0.5)) / TILE, 0, tiles_y)
    end_x = min(-_floor(-(u + r) / TILE, -tiles_x, 0), _floor((u + reach_x - 0.5) / TILE, -1, tiles_x - 1) + 1)
    end_y = min(-_floor(-(v + r) / TILE, -tiles_y, 0), _floor((v + reach_y - 0.5) / TILE, -1, tiles_y - 1) + 1)
    return low_x, end_x, low_y, end_y


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def count_room(records, radii, tiles_x, tiles_y, first_pair, pair_count):
    """Give every Gaussian room for the tiles of its rectangle.

    Fills `first_pair` [n] with where its room starts, and `pair_count` [n] with zero.

    Returns:
        The whole room.
    """
    room = 0
    for i in range(records.shape[0]):
        first_pair[i], pair_count[i] = room, 0
        if records[i, REACH_X] >= 0:
            low_x, end_x, low_y, end_y = _tile_rectangle(records[i], radii[i], tiles_x, tiles_y)
            room += max(0, end_x - low_x) * max(0, end_y - low_y)
    return room


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _rows_of_columns(record, first_column, height):
    """First and end row of the ellipse among eight columns from `first_column` on, within the picture."""
    u, v, reach_x = float(record[U]), float(record[V]), float(record[REACH_X])
    left = first_column + 0.5 - u
    right = left + 7
    if right < -reach_x or left > reach_x:
        return 0, 0
    slant, rise, summit = float(record[SLANT]), float(record[RISE]), float(record[SUMMIT])
    left, right = max(left, -reach_x), min(right, reach_x)
    down, up = min(right, max(left, summit)), min(right, max(left, -summit))
    inverse = 1.0 / (reach_x * reach_x)
    lowest = slant * down + rise * math.sqrt(max(0.0, 1.0 - down * down * inverse)) + _MARGIN
    highest = slant * up - rise * math.sqrt(max(0.0, 1.0 - up * up * inverse)) - _MARGIN
    return -_floor(0.5 - v - highest, -height, 0), _floor(v + lowest - 0.5, -1, height - 1) + 1


@Kernel
@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def list_tiles(counter, records, radii, tiles_x, tiles_y, first_pair, pair_count, pairs):
    """Fill each Gaussian's room in `pairs` [room, 2] with its tiles and the rows it can reach there.

    The rows are four bytes from the lowest up: first and end row in the left half of the tile, then in the right.
    """
    while True:
        block = next_index(counter)
        if block * _BLOCK >= records.shape[0]:
            return
        for i in range(np.uint64(block * _BLOCK), np.uint64(min(records.shape[0], (block + 1) * _BLOCK))):
            if not records[i, REACH_X] >= 0:
                continue
            low_x, end_x, low_y, end_y = _tile_rectangle(records[i], radii[i], tiles_x, tiles_y)
            pair = first_pair[i]
            for tile_x in range(low_x, end_x):
                first_l, end_l = _rows_of_columns(records[i], tile_x * TILE, tiles_y * TILE)
                first_r, end_r = _rows_of_columns(records[i], tile_x * TILE + 8, tiles_y * TILE)
                for tile_y in range(low_y, end_y):
                    top = tile_y * TILE
                    a, b = max(0, first_l - top), min(TILE, end_l - top)
                    c, d = max(0, first_r - top), min(TILE, end_r - top)
                    if b <= a and d <= c:
                        continue
                    left_rows = a | (b << 8) if a < b else 0
                    right_rows = c | (d << 8) if c < d else 0
                    pairs[np.uint64(pair), PAIR_TILE] = tile_y * tiles_x + tile_x
                    pairs[np.uint64(pair), PAIR_ROWS] = left_rows | (right_rows << 16)
                    pair += 1
            pair_count[i] = pair - first_pair[i]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def scatter_to_tiles(order, first_pair, pair_count, pairs, first_in_tile, cursor, entries):
    """Turn pairs by Gaussian into lists by tile, nearest first.

    Fills `first_in_tile` [tiles + 1] and the lists, `entries` [room, 4]; `cursor` [tiles] is scratch.
    """
    first_in_tile[:] = 0
    for i in range(np.uint64(first_pair.shape[0])):
        for pair in range(np.uint64(first_pair[i]), np.uint64(first_pair[i] + pair_count[i])):
            first_in_tile[np.uint64(pairs[pair, PAIR_TILE] + 1)] += 1
    for tile in range(cursor.shape[0]):
        cursor[tile] = first_in_tile[tile]
        first_in_tile[tile + 1] += first_in_tile[tile]
    for k in range(np.uint64(order.shape[0])):
        i = np.uint64(order[k])
        for pair in range(np.uint64(first_pair[i]), np.uint64(first_pair[i] + pair_count[i])):
            tile = np.uint64(pairs[pair, PAIR_TILE])
            entry = np.uint64(cursor[tile])
            cursor[tile] += 1
            entries[entry, GAUSSIAN], entries[entry, ROWS] = i, pairs[pair, PAIR_ROWS]
            entries[entry, PAIR] = pair

"""numba kernels that blend tiles front to back, and the gradients of that.

The lists of `tiles.py` say which Gaussians a tile has, nearest first, and which rows of its left and right half each
can reach. Both passes walk these lists with eight pixels in a register; what a tile knows of its pixels fits the
first-level cache. Threads draw tiles from a common counter, and every (Gaussian, tile) pair owns one row of gradients
that are summed in a fixed order: the bits do not depend on the number of threads.

Source: Kerbl et al., "3D Gaussian Splatting", 2023, Sec. 6; thresholds (1/255, 0.999, 1e-4) are those of gsplat 1.4.0
(`rasterize_to_pixels_fwd.cu`).
"""

from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np
from numba import float32 as f4

from .kernels import Kernel
from .records import BLUE, DEPTH, GREEN, HALF_A, HALF_C, LOG2_E, LOG2_OPACITY, OPACITY, RECORD, RED, B, U, V
from .simd import (
    abs8,
    all8,
    any8,
    exp2_8,
    fma8,
    lane8,
    lanes8,
    load8,
    load_rgb8,
    max8,
    min8,
    minus_product8,
    negative_where,
    next_index,
    select8,
    store8,
    store_rgb8,
    sum8,
    sums_of_8,
)
from .tiles import GAUSSIAN, PAIR, ROWS, TILE

GRADIENT = 10
"""Floats per (Gaussian, tile) pair: moments 1, x, y, xx, xy, yy of dL/d(-sigma), then r, g, b, depth."""
REDUCE_BLOCK = 256
"""Gaussians per parallel task of the reduction."""
_HALF, _ONE, _ZERO = np.float32(0.5), np.float32(1.0), np.float32(0.0)
_MIN_TRANSMITTANCE = np.float32(1e-4)
_MIN_POWER = np.float32(math.log2(1 / 255))
_MAX_POWER = np.float32(math.log2(0.999))
_SEEN = 5 * 8  # forward, per eight pixels: transmittance (negative: closed), r, g, b, depth
_PULLS = 6 * 8  # backward: transmittance, what lies behind, and the gradients of r, g, b, depth


@Kernel
@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def blend_forward(
    counter,
    records,
    entries,
    first_in_tile,
    tiles_x,
    background,
    with_depth,
    rgb,
    depth,
    alpha,
    transmittance,
    tile_end,
):
    """Blend every tile front to back over `background` [3].

    Fills `rgb` [h w 3], accumulated `depth` [h w] if asked for, `alpha` [h w], `transmittance` [h w] and `tile_end`,
    the entry at which each tile was opaque. Pictures consist of whole tiles.
    """
    width = alpha.shape[1]
    state = np.empty(2 * TILE * _SEEN, np.float32)
    zero, one, least, limit = all8(_ZERO), all8(_ONE), all8(_MIN_POWER), all8(_MIN_TRANSMITTANCE)
    while True:
        tile = next_index(counter)
        if tile >= first_in_tile.shape[0] - 1:
            break
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        for at in range(0, 2 * TILE * _SEEN, _SEEN):
            store8(state, at, one)
            for value in range(8, _SEEN, 8):
                store8(state, at + value, zero)
        entry, end = first_in_tile[tile], first_in_tile[tile + 1]
        while entry < end:
            i, rows = np.uint64(entries[entry, GAUSSIAN]), entries[entry, ROWS]
            u, v = records[i, U] - f4(left), records[i, V] - f4(top)
            power_0 = all8(records[i, LOG2_OPACITY])
            most = all8(min(records[i, LOG2_OPACITY], _MAX_POWER))
            half_A, across, minus_C = all8(records[i, HALF_A]), all8(records[i, B]), all8(-records[i, HALF_C])
            red, green, blue = all8(records[i, RED]), all8(records[i, GREEN]), all8(records[i, BLUE])
            z = all8(records[i, DEPTH])
            for half in range(2):
                first_row, end_row = rows & 255, (rows >> 8) & 255
                rows >>= 16
                dx = lanes8() + all8(f4(8 * half) + _HALF - u)
                along = minus_product8(half_A * dx, dx, power_0)
                slope = across * dx
                up = all8(v - _HALF - f4(first_row))
                at = (half * TILE + first_row) * _SEEN
                for _row in range(first_row, end_row):
                    power = fma8(up, fma8(minus_C, up, slope), along)
                    T = load8(state, at)
                    weight = exp2_8(min8(power, most)) * T
                    T_next = T - weight
                    hit = power >= least
                    shown = hit & (T_next > limit)
                    weight = select8(shown, weight, zero)
                    store8(state, at, select8(shown, T_next, negative_where(hit, T)))
                    store8(state, at + 8, fma8(weight, red, load8(state, at + 8)))
                    store8(state, at + 16, fma8(weight, green, load8(state, at + 16)))
                    store8(state, at + 24, fma8(weight, blue, load8(state, at + 24)))
                    if with_depth:
                        store8(state, at + 32, fma8(weight, z, load8(state, at + 32)))
                    up = up - one
                    at += _SEEN
            entry += 1
            if (entry - first_in_tile[tile]) & 15 == 0:
                open_most = all8(-_ONE)
                for at in range(0, 2 * TILE * _SEEN, _SEEN):
                    open_most = max8(open_most, load8(state, at))
                if not any8(open_most > zero):
                    break
        tile_end[tile] = entry
        for row in range(TILE):
            for half in range(2):
                at, pixel = (half * TILE + row) * _SEEN, (top + row) * width + left + 8 * half
                T = abs8(load8(state, at))
                store8(transmittance, pixel, T)
                store8(alpha, pixel, one - T)
                store_rgb8(
                    rgb,
                    3 * pixel,
                    fma8(T, all8(background[0]), load8(state, at + 8)),
                    fma8(T, all8(background[1]), load8(state, at + 16)),
                    fma8(T, all8(background[2]), load8(state, at + 24)),
                )
                if with_depth:
                    store8(depth, pixel, load8(state, at + 32))


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def _load_pulls(state, left, top, rgb, depth, transmittance, g_rgb, g_depth, g_alpha, with_depth):
    """Fill a tile's state with what its pixels ask for: `rgb` and `depth` are finished pixels, g_* their gradients."""
    width = g_alpha.shape[1]
    for row in range(TILE):
        for half in range(2):
            at, pixel = (half * TILE + row) * _PULLS, (top + row) * width + left + 8 * half
            r, g, b = load_rgb8(rgb, 3 * pixel)
            gr, gg, gb = load_rgb8(g_rgb, 3 * pixel)
            finished = fma8(r, gr, fma8(g, gg, b * gb))
            finished = minus_product8(load8(transmittance, pixel), load8(g_alpha, pixel), finished)
            store8(state, at, all8(_ONE))
            store8(state, at + 16, gr)
            store8(state, at + 24, gg)
            store8(state, at + 32, gb)
            if with_depth:
                gz = load8(g_depth, pixel)
                store8(state, at + 40, gz)
                finished = fma8(load8(depth, pixel), gz, finished)
            store8(state, at + 8, finished)


@Kernel
@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def blend_backward(
    counter,
    records,
    entries,
    first_in_tile,
    tile_end,
    tiles_x,
    with_depth,
    rgb,
    depth,
    transmittance,
    g_rgb,
    g_depth,
    g_alpha,
    gradients,
):
    """Fill `gradients`, one row per pair (layout: `GRADIENT`).

    Walks front to back like the forward pass: what lies behind an entry is the finished pixel minus what came so far,
    so nothing but the finished pixel has to be kept.
    """
    state = np.empty(2 * TILE * _PULLS, np.float32)
    zero, one = all8(_ZERO), all8(_ONE)
    least, most_power, limit = all8(_MIN_POWER), all8(_MAX_POWER), all8(_MIN_TRANSMITTANCE)
    while True:
        tile = next_index(counter)
        if tile >= first_in_tile.shape[0] - 1:
            break
        for entry in range(tile_end[tile], first_in_tile[tile + 1]):
            for k in range(GRADIENT):
                gradients[entries[entry, PAIR], k] = _ZERO
        if tile_end[tile] == first_in_tile[tile]:
            continue
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        _load_pulls(state, left, top, rgb, depth, transmittance, g_rgb, g_depth, g_alpha, with_depth)
        for entry in range(first_in_tile[tile], tile_end[tile]):
            i, rows = np.uint64(entries[entry, GAUSSIAN]), entries[entry, ROWS]
            u, v = records[i, U] - f4(left), records[i, V] - f4(top)
            power_0 = all8(records[i, LOG2_OPACITY])
            most = all8(min(records[i, LOG2_OPACITY], _MAX_POWER))
            half_A, across, minus_C = all8(records[i, HALF_A]), all8(records[i, B]), all8(-records[i, HALF_C])
            red, green, blue = all8(records[i, RED]), all8(records[i, GREEN]), all8(records[i, BLUE])
            z = all8(records[i, DEPTH])
            m_1, m_x, m_y, m_xx, m_xy, m_yy = zero, zero, zero, zero, zero, zero
            sum_r, sum_g, sum_b, sum_z = zero, zero, zero, zero
            for half in range(2):
                first_row, end_row = rows & 255, (rows >> 8) & 255
                rows >>= 16
                dx = lanes8() + all8(f4(8 * half) + _HALF - u)
                along = minus_product8(half_A * dx, dx, power_0)
                slope = across * dx
                up = all8(v - _HALF - f4(first_row))
                at = (half * TILE + first_row) * _PULLS
                h_1, h_up = zero, zero
                for _row in range(first_row, end_row):
                    power = fma8(up, fma8(minus_C, up, slope), along)
                    T = load8(state, at)
                    weight = exp2_8(min8(power, most)) * T
                    T_next = T - weight
                    hit = power >= least
                    shown = hit & (T_next > limit)
                    weight = select8(shown, weight, zero)
                    T_next = select8(shown, T_next, negative_where(hit, T))
                    store8(state, at, T_next)
                    g_r, g_g, g_b = load8(state, at + 16), load8(state, at + 24), load8(state, at + 32)
                    value = fma8(red, g_r, fma8(green, g_g, blue * g_b))
                    if with_depth:
                        g_z = load8(state, at + 40)
                        value = fma8(z, g_z, value)
                        sum_z = fma8(weight, g_z, sum_z)
                    behind = minus_product8(weight, value, load8(state, at + 8))
                    store8(state, at + 8, behind)
                    sum_r = fma8(weight, g_r, sum_r)
                    sum_g = fma8(weight, g_g, sum_g)
                    sum_b = fma8(weight, g_b, sum_b)
                    # alpha dL/dalpha; T_next is never zero, so that lanes without weight stay zero
                    pull = weight * (value - behind / T_next)
                    pull = select8(most_power >= power, pull, zero)
                    h_1 = h_1 + pull
                    pull_up = pull * up
                    h_up = h_up + pull_up
                    m_yy = fma8(pull_up, up, m_yy)
                    up = up - one
                    at += _PULLS
                h_x = h_1 * dx
                m_1 = m_1 + h_1
                m_x = m_x + h_x
                m_xx = fma8(h_x, dx, m_xx)
                m_y = m_y - h_up
                m_xy = minus_product8(h_up, dx, m_xy)
            pair = np.uint64(entries[entry, PAIR])
            store8(gradients, pair * np.uint64(GRADIENT), sums_of_8(m_1, m_x, m_y, m_xx, m_xy, m_yy, sum_r, sum_g))
            gradients[pair, 8] = sum8(sum_b)
            gradients[pair, 9] = sum8(sum_z)


@Kernel
@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def reduce_gradients(counter, records, first_pair, pair_count, gradients, g_means2d, g_records):
    """Sum each Gaussian's rows in the fixed order of its pairs and turn moments into gradients.

    Fills `g_means2d` [n 2], and `g_records` [n 16] in the columns of the record: of the conic A, B, C, of the opacity,
    of colour and depth; zero elsewhere.
    """
    n = first_pair.shape[0]
    while True:
        block = next_index(counter)
        if block * REDUCE_BLOCK >= n:
            return
        for i in range(np.uint64(block * REDUCE_BLOCK), np.uint64(min(n, (block + 1) * REDUCE_BLOCK))):
            store8(g_records, i * np.uint64(RECORD), all8(_ZERO))
            store8(g_records, i * np.uint64(RECORD) + np.uint64(8), all8(_ZERO))
            g_means2d[i, 0], g_means2d[i, 1] = _ZERO, _ZERO
            if pair_count[i] == 0:
                continue
            total, sum_b, sum_z = all8(_ZERO), _ZERO, _ZERO
            for pair in range(np.uint64(first_pair[i]), np.uint64(first_pair[i] + pair_count[i])):
                total = total + load8(gradients, pair * np.uint64(GRADIENT))
                sum_b += gradients[pair, 8]
                sum_z += gradients[pair, 9]
            A, C = f4(2 / LOG2_E) * records[i, HALF_A], f4(2 / LOG2_E) * records[i, HALF_C]
            across, m_x, m_y = f4(1 / LOG2_E) * records[i, B], lane8(total, 1), lane8(total, 2)
            g_means2d[i, 0], g_means2d[i, 1] = A * m_x + across * m_y, across * m_x + C * m_y
            g_records[i, HALF_A], g_records[i, HALF_C] = -_HALF * lane8(total, 3), -_HALF * lane8(total, 5)
            g_records[i, B] = -lane8(total, 4)
            g_records[i, OPACITY] = lane8(total, 0) / records[i, OPACITY]
            g_records[i, RED], g_records[i, GREEN] = lane8(total, 6), lane8(total, 7)
            g_records[i, BLUE], g_records[i, DEPTH] = sum_b, sum_z

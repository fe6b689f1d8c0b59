"""numba kernels that sort projected Gaussians into 16 px tiles and blend them front to back, with gradients.

Order of work for one camera: `pack_records` -> `depth_order` -> `bin_into_tiles` -> `scatter_to_tiles` ->
`blend_forward`; and back: `blend_backward` -> `reduce_gradients`.

Every (Gaussian, tile) pair owns one row of gradients. Rows are summed per Gaussian in a fixed order, so results are the
same to the last bit on every run and for any number of threads. The loops over the 16 pixels of a row are branch-free
and split in halves of 8, which LLVM turns into AVX code.

Source: Kerbl et al., "3D Gaussian Splatting", 2023, Sec. 6; thresholds (1/255, 0.999, 1e-4) and the tile rectangle are
those of gsplat 1.4.0 (`rasterize_to_pixels_fwd.cu`, `isect_tiles.cu`). Tiles that the ellipse of alpha = 1/255 does not
touch are left out, which changes no pixel (as in Radl et al., "StopThePop", 2024, Sec. 5.1).
"""

from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np
from numba import float32 as f4

TILE = 16
"""Side of a tile in pixels."""
RECORD = 12
"""Floats per Gaussian that blending reads: u, v, A/2, B, C/2, opacity, r, g, b, depth, reach_x, reach_y."""
GRADIENT = 10
"""Floats per (Gaussian, tile) pair: moments 1, x, y, xx, xy, yy of dL/d(-sigma), then r, g, b, depth."""
REDUCE_BLOCK = 256
"""Gaussians per parallel task of the reduction."""

_FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}  # no nnan, no ninf: comparisons must keep their meaning
_MIN_ALPHA = np.float32(1 / 255)
_MAX_ALPHA = np.float32(0.999)
_MIN_TRANSMITTANCE = np.float32(1e-4)
_HALF = np.float32(0.5)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_MAX_SIGMA = np.float32(6.0)  # exp(-6) < 1/255
_SIXTEENTH = np.float32(-1 / 16)
_E2, _E3, _E4 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
_E5, _E6 = np.float32(1 / 120), np.float32(1 / 720)


@numba.njit(fastmath=_FAST, inline="always")
@no_type_check
def _exp_negative(sigma):
    """exp(-sigma) for sigma in [0, 6], relative error below 4e-6: Taylor of degree 6 at -sigma/16, to the power 16."""
    x = sigma * _SIXTEENTH
    p = (((((_E6 * x + _E5) * x + _E4) * x + _E3) * x + _E2) * x + _ONE) * x + _ONE
    p = p * p
    p = p * p
    p = p * p
    return p * p


@numba.njit(cache=True)
@no_type_check
def pack_records(radii, means2d, depths, conics, opacities, colors, records):
    """Gather what blending needs into one row per Gaussian; `reach_x` < 0 marks those that no pixel can show."""
    for i in range(radii.shape[0]):
        records[i, 10] = f4(-1.0)
        if radii[i] <= 0 or not opacities[i] >= _MIN_ALPHA:
            continue
        A, B, C = float(conics[i, 0]), float(conics[i, 1]), float(conics[i, 2])
        # sigma <= log(255 opacity) is an ellipse; its half extents, a hair larger against rounding
        twice_sigma = 2.0 * math.log(255.0 * opacities[i]) * 1.0001 + 1e-4
        inverse_det = 1.0 / max(A * C - B * B, 1e-30)
        records[i, 0], records[i, 1] = means2d[i, 0], means2d[i, 1]
        records[i, 2], records[i, 3], records[i, 4] = _HALF * conics[i, 0], conics[i, 1], _HALF * conics[i, 2]
        records[i, 5] = opacities[i]
        records[i, 6], records[i, 7], records[i, 8] = colors[i, 0], colors[i, 1], colors[i, 2]
        records[i, 9] = depths[i]
        records[i, 10] = math.sqrt(twice_sigma * C * inverse_det)
        records[i, 11] = math.sqrt(twice_sigma * A * inverse_det)


@numba.njit(cache=True)
@no_type_check
def depth_order(records):
    """Indices of the visible Gaussians, nearest first, equal depths by index: a stable radix sort of the float bits."""
    n = 0
    order = np.empty(records.shape[0], np.int32)
    keys = np.empty(records.shape[0], np.uint32)
    for i in range(records.shape[0]):
        if records[i, 10] >= 0:
            order[n] = i
            n += 1
    order = order[:n].copy()
    bits = records[:, 9].copy().view(np.uint32)  # positive floats sort like their bits
    for k in range(n):
        keys[k] = bits[order[k]]
    other_order, other_keys = np.empty(n, np.int32), np.empty(n, np.uint32)
    for shift in (0, 11, 22):
        start = np.zeros(2049, np.int64)
        for k in range(n):
            start[((keys[k] >> np.uint32(shift)) & np.uint32(2047)) + 1] += 1
        for digit in range(2048):
            start[digit + 1] += start[digit]
        for k in range(n):
            digit = (keys[k] >> np.uint32(shift)) & np.uint32(2047)
            target = start[digit]
            start[digit] = target + 1
            other_order[target], other_keys[target] = order[k], keys[k]
        order, other_order = other_order, order
        keys, other_keys = other_keys, keys
    return order


@numba.njit(cache=True)
@no_type_check
def _edge_sigma(half_A, B, half_C, fixed, low, high):
    """Smallest sigma on a tile's edge: one coordinate `fixed`, the other in [low, high] along the axis of `half_C`."""
    free = min(high, max(low, -B * fixed / (2.0 * half_C)))
    return half_A * fixed * fixed + half_C * free * free + B * fixed * free


@numba.njit(cache=True)
@no_type_check
def _ellipse_misses_tile(record, tile_x, tile_y):
    """Whether no pixel centre of the tile can reach alpha = 1/255."""
    left, top = tile_x * TILE + 0.5 - record[0], tile_y * TILE + 0.5 - record[1]
    right, bottom = left + (TILE - 1), top + (TILE - 1)
    if left <= 0 <= right and top <= 0 <= bottom:
        return False
    half_A, B, half_C = float(record[2]), float(record[3]), float(record[4])
    nearest = min(
        _edge_sigma(half_A, B, half_C, left, top, bottom),
        _edge_sigma(half_A, B, half_C, right, top, bottom),
        _edge_sigma(half_C, B, half_A, top, left, right),
        _edge_sigma(half_C, B, half_A, bottom, left, right),
    )
    return nearest > math.log(255.0 * record[5]) * 1.0001 + 1e-4


@numba.njit(cache=True)
@no_type_check
def bin_into_tiles(records, radii, order, tiles_x, tiles_y):
    """Which tiles each Gaussian touches.

    Returns:
        For every pair, in depth order: its tile; per Gaussian in depth order: where its pairs start; per tile: where
        its pairs will start (both with one entry more, the end).
    """
    pair_tile = np.empty(max(1024, 4 * order.shape[0]), np.int32)
    first_pair = np.zeros(order.shape[0] + 1, np.int64)
    first_in_tile = np.zeros(tiles_x * tiles_y + 1, np.int64)
    count = 0
    for k in range(order.shape[0]):
        i = order[k]
        u, v, radius = float(records[i, 0]), float(records[i, 1]), float(radii[i])
        # gsplat's rectangle of three sigma, cut to the reach of alpha = 1/255
        low_x = max(math.floor((u - radius) / TILE), math.floor((u - records[i, 10] - 0.5) / TILE))
        high_x = min(math.ceil((u + radius) / TILE), math.floor((u + records[i, 10] - 0.5) / TILE) + 1)
        low_y = max(math.floor((v - radius) / TILE), math.floor((v - records[i, 11] - 0.5) / TILE))
        high_y = min(math.ceil((v + radius) / TILE), math.floor((v + records[i, 11] - 0.5) / TILE) + 1)
        low_x, high_x = int(max(0, low_x)), int(min(tiles_x, high_x))
        low_y, high_y = int(max(0, low_y)), int(min(tiles_y, high_y))
        several = (high_x - low_x > 1) or (high_y - low_y > 1)
        for tile_y in range(low_y, high_y):
            for tile_x in range(low_x, high_x):
                if several and _ellipse_misses_tile(records[i], tile_x, tile_y):
                    continue
                if count == pair_tile.shape[0]:
                    grown = np.empty(2 * count, np.int32)
                    grown[:count] = pair_tile
                    pair_tile = grown
                tile = tile_y * tiles_x + tile_x
                pair_tile[count] = tile
                first_in_tile[tile + 1] += 1
                count += 1
        first_pair[k + 1] = count
    for tile in range(tiles_x * tiles_y):
        first_in_tile[tile + 1] += first_in_tile[tile]
    return pair_tile[:count], first_pair, first_in_tile


@numba.njit(cache=True)
@no_type_check
def scatter_to_tiles(order, pair_tile, first_pair, first_in_tile):
    """Turn pairs by Gaussian into lists by tile, which keeps the depth order.

    Returns:
        Per entry of the tile lists: the Gaussian; per pair by Gaussian: its entry in the tile lists.
    """
    gaussian_of_entry = np.empty(pair_tile.shape[0], np.int32)
    entry_of_pair = np.empty(pair_tile.shape[0], np.int32)
    cursor = first_in_tile.copy()
    for k in range(order.shape[0]):
        for pair in range(first_pair[k], first_pair[k + 1]):
            entry = cursor[pair_tile[pair]]
            cursor[pair_tile[pair]] = entry + 1
            gaussian_of_entry[entry] = order[k]
            entry_of_pair[pair] = entry
    return gaussian_of_entry, entry_of_pair


@numba.njit(fastmath=_FAST, inline="always")
@no_type_check
def _rows_of_tile(v, reach_y):
    """First and last+1 row of the tile whose pixel centres lie within `reach_y` of `v` (relative to the tile)."""
    return max(0, math.ceil(v - reach_y - _HALF)), min(TILE, math.floor(v + reach_y - _HALF) + 1)


@numba.njit(fastmath=_FAST, parallel=True, cache=True)
@no_type_check
def blend_forward(
    records, gaussian_of_entry, first_in_tile, tiles_x, width, height, rgb, depth, alpha, transmittance, tile_end
):
    """Blend every tile front to back over black.

    Fills `rgb` [h w 3], accumulated `depth` [h w], `alpha` [h w], `transmittance` [tiles 16 16] and `tile_end`, the
    entry at which each tile was opaque.
    """
    for tile in numba.prange(first_in_tile.shape[0] - 1):
        tile_x, tile_y = tile % tiles_x, tile // tiles_x
        state = np.zeros((TILE, 5, TILE), np.float32)  # per row: transmittance (negative: closed), r, g, b, depth
        for row in range(TILE):
            for j in range(TILE):
                inside = tile_y * TILE + row < height and tile_x * TILE + j < width
                state[row, 0, j] = _ONE if inside else -_ONE
        entry, end = first_in_tile[tile], first_in_tile[tile + 1]
        while entry < end:
            g = gaussian_of_entry[entry]
            u, v = records[g, 0] - f4(tile_x * TILE), records[g, 1] - f4(tile_y * TILE)
            half_A, B, half_C, opacity = records[g, 2], records[g, 3], records[g, 4], records[g, 5]
            red, green, blue, z = records[g, 6], records[g, 7], records[g, 8], records[g, 9]
            first_row, end_row = _rows_of_tile(v, records[g, 11])
            first_half = 8 if u - records[g, 10] > f4(7.5) else 0
            end_half = 8 if u + records[g, 10] < f4(8.5) else 16
            for row in range(first_row, end_row):
                dy = f4(row) + _HALF - v
                sigma_y, slope = half_C * dy * dy, B * dy
                T_row, r_row, g_row = state[row, 0], state[row, 1], state[row, 2]
                b_row, z_row = state[row, 3], state[row, 4]
                for half in range(first_half, end_half, 8):
                    for j in range(8):
                        p = half + j
                        dx = f4(p) + _HALF - u
                        sigma = (half_A * dx + slope) * dx + sigma_y
                        a = min(opacity * _exp_negative(min(max(sigma, _ZERO), _MAX_SIGMA)), _MAX_ALPHA)
                        T = T_row[p]
                        T_next = T * (_ONE - a)
                        shown = (sigma >= _ZERO) & (a >= _MIN_ALPHA) & (T > _ZERO)
                        closes = T_next <= _MIN_TRANSMITTANCE
                        weight = a * T if (shown & (not closes)) else _ZERO
                        r_row[p] += weight * red
                        g_row[p] += weight * green
                        b_row[p] += weight * blue
                        z_row[p] += weight * z
                        T_row[p] = (-T if closes else T_next) if shown else T
            entry += 1
            if (entry - first_in_tile[tile]) & 15 == 0:
                most = -_ONE
                for row in range(TILE):
                    for j in range(TILE):
                        most = max(most, state[row, 0, j])
                if most <= _ZERO:
                    break
        tile_end[tile] = entry
        for row in range(TILE):
            y = tile_y * TILE + row
            for j in range(TILE):
                x = tile_x * TILE + j
                T = abs(state[row, 0, j])
                transmittance[tile, row, j] = T
                if y < height and x < width:
                    rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2] = state[row, 1, j], state[row, 2, j], state[row, 3, j]
                    depth[y, x] = state[row, 4, j]
                    alpha[y, x] = _ONE - T


@numba.njit(fastmath=_FAST, parallel=True, cache=True)
@no_type_check
def blend_backward(
    records,
    gaussian_of_entry,
    first_in_tile,
    tile_end,
    tiles_x,
    width,
    height,
    rgb,
    depth,
    transmittance,
    g_rgb,
    g_depth,
    g_alpha,
    gradients,
):
    """Fill `gradients`, one row per tile entry (layout: `GRADIENT`).

    Walks front to back like the forward pass: what lies behind an entry is the finished pixel minus what came so far,
    so nothing but the finished pixel has to be kept.
    """
    for tile in numba.prange(first_in_tile.shape[0] - 1):
        tile_x, tile_y = tile % tiles_x, tile // tiles_x
        # per row: transmittance, value so far, gradients of r, g, b, depth, and the pixel's final value
        state = np.zeros((TILE, 7, TILE), np.float32)
        for row in range(TILE):
            y = tile_y * TILE + row
            for j in range(TILE):
                x = tile_x * TILE + j
                if y >= height or x >= width:
                    state[row, 0, j] = -_ONE
                    continue
                state[row, 0, j] = _ONE
                state[row, 2, j], state[row, 3, j], state[row, 4, j] = g_rgb[y, x, 0], g_rgb[y, x, 1], g_rgb[y, x, 2]
                state[row, 5, j] = g_depth[y, x]
                state[row, 6, j] = (
                    rgb[y, x, 0] * g_rgb[y, x, 0]
                    + rgb[y, x, 1] * g_rgb[y, x, 1]
                    + rgb[y, x, 2] * g_rgb[y, x, 2]
                    + depth[y, x] * g_depth[y, x]
                    - transmittance[tile, row, j] * g_alpha[y, x]
                )
        for entry in range(first_in_tile[tile], tile_end[tile]):
            g = gaussian_of_entry[entry]
            u, v = records[g, 0] - f4(tile_x * TILE), records[g, 1] - f4(tile_y * TILE)
            half_A, B, half_C, opacity = records[g, 2], records[g, 3], records[g, 4], records[g, 5]
            red, green, blue, z = records[g, 6], records[g, 7], records[g, 8], records[g, 9]
            first_row, end_row = _rows_of_tile(v, records[g, 11])
            first_half = 8 if u - records[g, 10] > f4(7.5) else 0
            end_half = 8 if u + records[g, 10] < f4(8.5) else 16
            m1, mx, my, mxx, mxy, myy = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            sum_r, sum_g, sum_b, sum_z = _ZERO, _ZERO, _ZERO, _ZERO
            for row in range(first_row, end_row):
                dy = f4(row) + _HALF - v
                sigma_y, slope = half_C * dy * dy, B * dy
                T_row, so_far, gr_row, gg_row = state[row, 0], state[row, 1], state[row, 2], state[row, 3]
                gb_row, gz_row, final = state[row, 4], state[row, 5], state[row, 6]
                row_1, row_x = _ZERO, _ZERO
                for half in range(first_half, end_half, 8):
                    for j in range(8):
                        p = half + j
                        dx = f4(p) + _HALF - u
                        sigma = (half_A * dx + slope) * dx + sigma_y
                        free = opacity * _exp_negative(min(max(sigma, _ZERO), _MAX_SIGMA))
                        a = min(free, _MAX_ALPHA)
                        T = T_row[p]
                        T_next = T * (_ONE - a)
                        shown = (sigma >= _ZERO) & (a >= _MIN_ALPHA) & (T > _ZERO)
                        closes = T_next <= _MIN_TRANSMITTANCE
                        counts = shown & (not closes)
                        weight = a * T if counts else _ZERO
                        value = red * gr_row[p] + green * gg_row[p] + blue * gb_row[p] + z * gz_row[p]
                        now = so_far[p] + weight * value
                        so_far[p] = now
                        g_a = T * value - (final[p] - now) / (_ONE - a)
                        sum_r += weight * gr_row[p]
                        sum_g += weight * gg_row[p]
                        sum_b += weight * gb_row[p]
                        sum_z += weight * gz_row[p]
                        g_negative_sigma = free * g_a if (counts & (free <= _MAX_ALPHA)) else _ZERO
                        along_x = g_negative_sigma * dx
                        row_1 += g_negative_sigma
                        row_x += along_x
                        mxx += along_x * dx
                        T_row[p] = (-T if closes else T_next) if shown else T
                m1 += row_1
                mx += row_x
                my += row_1 * dy
                mxy += row_x * dy
                myy += row_1 * dy * dy
            gradients[entry, 0], gradients[entry, 1], gradients[entry, 2] = m1, mx, my
            gradients[entry, 3], gradients[entry, 4], gradients[entry, 5] = mxx, mxy, myy
            gradients[entry, 6], gradients[entry, 7], gradients[entry, 8] = sum_r, sum_g, sum_b
            gradients[entry, 9] = sum_z
        for entry in range(tile_end[tile], first_in_tile[tile + 1]):
            for j in range(GRADIENT):
                gradients[entry, j] = _ZERO


@numba.njit(parallel=True, cache=True)
@no_type_check
def reduce_gradients(
    records,
    order,
    first_pair,
    entry_of_pair,
    gradients,
    g_means2d,
    g_depths,
    g_conics,
    g_opacities,
    g_colors,
):
    """Sum each Gaussian's rows in the fixed order of its pairs and turn moments into gradients; outputs come zeroed."""
    n = order.shape[0]
    for block in numba.prange((n + REDUCE_BLOCK - 1) // REDUCE_BLOCK):
        total = np.empty(GRADIENT, np.float64)
        for k in range(block * REDUCE_BLOCK, min(n, (block + 1) * REDUCE_BLOCK)):
            for j in range(GRADIENT):
                total[j] = 0.0
            for pair in range(first_pair[k], first_pair[k + 1]):
                for j in range(GRADIENT):
                    total[j] += gradients[entry_of_pair[pair], j]
            i = order[k]
            A, B, C = 2.0 * records[i, 2], records[i, 3] * 1.0, 2.0 * records[i, 4]
            g_means2d[i, 0], g_means2d[i, 1] = A * total[1] + B * total[2], B * total[1] + C * total[2]
            g_conics[i, 0], g_conics[i, 1], g_conics[i, 2] = -0.5 * total[3], -total[4], -0.5 * total[5]
            g_opacities[i] = total[0] / records[i, 5]
            g_colors[i, 0], g_colors[i, 1], g_colors[i, 2] = total[6], total[7], total[8]
            g_depths[i] = total[9]

"""Kernels of `locks`: walking along the field, and painting texels band by band.

A lock's row of styles is: length, width, brightness, opacity, share of the root's fade, contrast of fibres, tints (2).
A node is: position (3), unit vector across (3), fractional row and column of the tile (2).
"""

from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np

from ...row_bands import BAND_ROWS
from .tracing import MM, cell_of, field_at, ray_of, sideways

_OVERLAP = 0.15
"""Pieces reach beyond their ends by this share, so that bends have no gaps."""
_POLE_CELLS = 6.0
"""Rows of the chart in which a piece may cover any column."""
_FIBRE = 0.55 * MM
"""Width of a single strand, world units."""


@numba.njit(cache=True, nogil=True, parallel=True)
@no_type_check
def trace(field_, roots, lengths, turn, start, nodes, tile_height, tile_width, chart):
    rows, columns = chart[3], chart[4]
    per_row, per_column = (tile_height - 1) / (rows - 1), (tile_width - 1) / columns
    for m in numba.prange(len(roots)):
        row, column = roots[m, 0], roots[m, 1]
        count = start[m + 1] - start[m] - 1
        step = lengths[m] / count
        tx, ty, tz, radius = field_at(field_, row, column, chart)
        origin, nx, ny, nz = ray_of(row, column, chart)
        x, y, z = radius * nx, origin + radius * ny, radius * nz
        for k in range(count + 1):
            bx, by, bz = sideways(nx, ny, nz, tx, ty, tz)
            angle = turn[m, 0] + turn[m, 1] * (2.0 * k / count - 1.0)
            c, s = math.cos(angle), math.sin(angle)
            node = nodes[start[m] + k]
            node[0], node[1], node[2] = x, y, z
            # across the lock's own direction, which is turned from the field's
            node[3], node[4], node[5] = c * bx - s * tx, c * by - s * ty, c * bz - s * tz
            node[6], node[7] = row * per_row, column * per_column
            x += step * (c * tx + s * bx)
            y += step * (c * ty + s * by)
            z += step * (c * tz + s * bz)
            row, column = cell_of(x, y, z, chart)
            row = min(row, rows - 1.001)
            tx, ty, tz, radius = field_at(field_, row, column, chart)
            origin, nx, ny, nz = ray_of(row, column, chart)
            x, y, z = radius * nx, origin + radius * ny, radius * nz


@numba.njit(cache=True, nogil=True)
@no_type_check
def reach_of(nodes, start, styles, height, width, chart):
    """First and last row, first column (not wrapped) and number of columns that each piece may cover; the last node of
    a lock begins no piece and covers nothing."""
    rows, columns = chart[3], chart[4]
    per_row, per_column = (height - 1) / (rows - 1), (width - 1) / columns
    around = width - 1
    reach = np.zeros((len(nodes), 4), np.int32)
    reach[:, 1] = -1
    for m in range(len(start) - 1):
        half = 0.5 * styles[m, 1]
        for n in range(start[m], start[m + 1] - 1):
            dx, dy, dz = nodes[n + 1, 0] - nodes[n, 0], nodes[n + 1, 1] - nodes[n, 1], nodes[n + 1, 2] - nodes[n, 2]
            top, bottom = 1e9, -1e9
            left, right = 1e9, -1e9
            for place in range(9):  # corners, and middles between them, for the chart bends straight lines
                along = -_OVERLAP + (place // 3) * (0.5 + _OVERLAP)
                across = half * (place % 3 - 1)
                row, column = cell_of(
                    nodes[n, 0] + along * dx + across * nodes[n, 3],
                    nodes[n, 1] + along * dy + across * nodes[n, 4],
                    nodes[n, 2] + along * dz + across * nodes[n, 5],
                    chart,
                )
                row, column = row * per_row, column * per_column
                turn = column - nodes[n, 7]
                turn -= around * math.floor(turn / around + 0.5)
                top, bottom = min(top, row), max(bottom, row)
                left, right = min(left, turn), max(right, turn)
            reach[n, 0] = max(0, math.floor(top) - 2)
            reach[n, 1] = min(height - 1, math.ceil(bottom) + 2)
            if top < _POLE_CELLS * per_row:  # about the pole the corners say nothing of columns, nor of rows above
                reach[n, 0], reach[n, 2], reach[n, 3] = 0, 0, around
            else:
                reach[n, 2] = math.floor(nodes[n, 7] + left) - 2
                reach[n, 3] = min(around, math.ceil(right - left) + 5)
    return reach


@numba.njit(cache=True, nogil=True)
@no_type_check
def _chance(number):
    """A number in [-1, 1] that looks random, the same for the same integer (Wang's hash)."""
    i = np.uint32(number & 0xFFFFFFFF)
    i = np.uint32((i ^ np.uint32(61)) ^ (i >> np.uint32(16)))
    i = np.uint32(i * np.uint32(9))
    i = np.uint32(i ^ (i >> np.uint32(4)))
    i = np.uint32(i * np.uint32(0x27D4EB2D))
    i = np.uint32(i ^ (i >> np.uint32(15)))
    return i / 2147483648.0 - 1.0


@numba.njit(cache=True, nogil=True)
@no_type_check
def value_noise(x, seed):
    """Smooth noise of one variable, in [-1, 1]; one random number per integer."""
    f = math.floor(x)
    u = x - f
    u = u * u * (3 - 2 * u)
    i = int(f) + seed * 7919
    return _chance(i) * (1 - u) + _chance(i + 1) * u


@numba.njit(cache=True, nogil=True)
@no_type_check
def lock_alpha(t, across, strand, opacity, fade, seed):
    """Opacity of a lock at a place along it (0 root, 1 tip) and across it (-1 to 1); strands end at ragged tips."""
    end = 0.62 + 0.19 * (1 + value_noise(0.8 * strand + 3.3, seed + 4))
    tip = min(1.0, max(0.0, (end - t) / 0.16))
    return opacity * min(1.0, t / fade) * tip * min(1.0, 2.6 * (1 - abs(across)))


@numba.njit(cache=True, nogil=True)
@no_type_check
def lock_fibre(t, length_mm, strand, breaks, seed):
    """Brightness of the single strands of a lock: each keeps its own from root to tip, as far as nothing breaks it."""
    own = value_noise(strand + 0.5 * value_noise(t * length_mm / 14, seed + 3), seed)
    pair = value_noise(0.45 * strand + 9.1, seed + 1)
    value = (0.6 * own + 0.4 * pair) * (0.75 + 0.5 * value_noise(t * length_mm / 9 + 0.1 * strand, seed + 2))
    if breaks > 0:
        value += breaks * value_noise(t * length_mm / 2.2 + 5.7 * math.floor(0.7 * strand), seed + 5)
    return value


@numba.njit(cache=True, nogil=True)
@no_type_check
def lock_half_width(t, width):
    """Half the width of a lock along it: narrow roots, pointed tips."""
    return 0.5 * width * min(1.0, 0.55 + 1.5 * t) * (1 - 0.75 * max(0.0, t - 0.45) / 0.55)


@numba.njit(cache=True, nogil=True)
@no_type_check
def lock_highlight(nx, ny, nz, tx, ty, tz, lean):
    """Highlight of hair along t on a surface with normal n, [0, 1], lit from above and seen from straight outside.

    Source: Kajiya and Kay, "Rendering Fur with Three Dimensional Textures", 1989: the sine of the angle between the
    strand and the half vector, to a power. `lean` tips strands out of the surface.
    """
    dn = nx * tx + ny * ty + nz * tz
    ux, uy, uz = nx - dn * tx, ny - dn * ty, nz - dn * tz
    length = math.sqrt(ux * ux + uy * uy + uz * uz) + 1e-6
    ux, uy, uz = ux / length, uy / length, uz / length
    hx, hy, hz = ux, uy + 1.15, uz
    half = math.sqrt(hx * hx + hy * hy + hz * hz)
    cosine = ((tx + lean * ux) * hx + (ty + lean * uy) * hy + (tz + lean * uz) * hz) / (half * math.sqrt(1 + lean**2))
    sine2 = max(0.0, 1 - cosine * cosine)
    return sine2 * sine2 * sine2 * math.sqrt(sine2)


@numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
@no_type_check
def fill(nodes, start, lock_of, styles, seeds, reach, band_start, members, points, breaks, sheen, shade, tints):
    height, width = shade.shape
    around = width - 1
    painted = np.full((height, width), -1, np.int32)  # each texel once per lock
    for band in numba.prange(len(band_start) - 1):
        first_row, end_row = band * BAND_ROWS, min((band + 1) * BAND_ROWS, height)
        for k in range(band_start[band], band_start[band + 1]):
            n = members[k]
            m = lock_of[n]
            length, w, brightness, opacity, fade, fibres, tint0, tint1 = styles[m]
            pieces = start[m + 1] - start[m] - 1
            x, y, z = nodes[n, 0], nodes[n, 1], nodes[n, 2]
            tx, ty, tz = nodes[n + 1, 0] - x, nodes[n + 1, 1] - y, nodes[n + 1, 2] - z
            step = math.sqrt(tx * tx + ty * ty + tz * tz) + 1e-9
            tx, ty, tz = tx / step, ty / step, tz / step
            bx, by, bz = nodes[n, 3], nodes[n, 4], nodes[n, 5]
            nx, ny, nz = ty * bz - tz * by, tz * bx - tx * bz, tx * by - ty * bx
            seed = seeds[m]
            for i in range(max(reach[n, 0], first_row), min(reach[n, 1] + 1, end_row)):
                j = reach[n, 2] % around - 1
                for _ in range(reach[n, 3]):
                    j += 1
                    if j >= around:
                        j -= around
                    if painted[i, j] == m:
                        continue
                    dx, dy, dz = points[i, j, 0] - x, points[i, j, 1] - y, points[i, j, 2] - z
                    s = (dx * tx + dy * ty + dz * tz) / step
                    if s < -_OVERLAP or s > 1 + _OVERLAP:
                        continue
                    t = (n - start[m] + s) / pieces
                    if t < 0 or t > 1:
                        continue
                    across = dx * bx + dy * by + dz * bz
                    half = lock_half_width(t, w)
                    if abs(across) > half:
                        continue
                    across /= half
                    strand = across * 0.5 * w / _FIBRE
                    alpha = lock_alpha(t, across, strand, opacity, fade, seed)
                    if alpha <= 0.02:
                        continue
                    painted[i, j] = m
                    fibre = lock_fibre(t, length / MM, strand, breaks, seed)
                    shine = lock_highlight(nx, ny, nz, tx, ty, tz, 0.5 * brightness + 0.12 * fibre)
                    value = brightness + 0.34 * fibres * fibre + 0.16 * (0.4 - across * across)
                    value += sheen * (shine - 0.35) - 0.4 * max(0.0, 0.25 - t)
                    shade[i, j] += alpha * (value - shade[i, j])
                    tints[i, j, 0] += alpha * (tint0 - tints[i, j, 0])
                    tints[i, j, 1] += alpha * (tint1 - tints[i, j, 1])

"""numba kernels for L1 and SSIM with their gradient.

Pictures are read as rows of `width * channels` floats, so that a step of one pixel is a step of `channels` floats and
all channels are blurred in one go, eight numbers at a time. Rows are padded to a `stride` with room for whole
registers. Work is cut into fixed patches that fit the first-level cache and that threads draw from a counter; sums are
taken per patch and then in order, so the bits do not depend on the number of threads.

Where picture and target are the same, as outside a head's silhouette, SSIM is 1 and has no gradient: such patches are
passed over.

Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, Eq. 13; that the
transpose of the blur is the blur of the zero-padded map.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

from .rasterize.kernels import Kernel
from .rasterize.simd import (
    abs8,
    all8,
    any8,
    fma8,
    lane8,
    lanes8,
    load8,
    minus_product8,
    next_index,
    select8,
    store8,
    sum8,
)

SSIM_WINDOW = 11
"""Side of the Gaussian window, pixels."""
SSIM_SIGMA = 1.5
"""Standard deviation of the window, pixels."""
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
"""The constants that keep the quotients of pictures in [0, 1] finite."""
REACH = SSIM_WINDOW - 1
ROWS, COLUMNS = 64, 96
"""Size of a patch; columns are floats."""
_TAPS = np.exp(-((np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) ** 2) / (2 * SSIM_SIGMA**2))
_T0, _T1, _T2, _T3, _T4, _T5 = (np.float32(t) for t in (_TAPS / _TAPS.sum())[:6])
_C1, _C2 = np.float32(SSIM_C1), np.float32(SSIM_C2)
_ONE, _TWO, _ZERO = np.float32(1.0), np.float32(2.0), np.float32(0.0)


def stride_of(columns: int) -> int:
    """Floats from one padded row to the next."""
    return -(-columns // 8) * 8 + 8 * SSIM_WINDOW


@numba.njit(cache=True, nogil=True)
@no_type_check
def _blur8(source, at, step):
    """Eight window sums; the first window starts at number `at` of `source`, its members are `step` apart."""
    total = all8(_T5) * load8(source, at + 5 * step)
    total = fma8(all8(_T4), load8(source, at + 4 * step) + load8(source, at + 6 * step), total)
    total = fma8(all8(_T3), load8(source, at + 3 * step) + load8(source, at + 7 * step), total)
    total = fma8(all8(_T2), load8(source, at + 2 * step) + load8(source, at + 8 * step), total)
    total = fma8(all8(_T1), load8(source, at + 1 * step) + load8(source, at + 9 * step), total)
    return fma8(all8(_T0), load8(source, at) + load8(source, at + 10 * step), total)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _compare_row(row, x, y, step, weights, weighted, x_padded, y_padded, weights_padded, differs):
    """One row of `compare`; returns its sum."""
    columns, stride = x.shape[1], x_padded.shape[1]
    total = all8(_ZERO)
    for i in range(0, stride, 8):
        if i + 8 > columns:
            for k in range(i, i + 8):
                x_padded[row, k] = x[row, k] if k < columns else _ZERO
                y_padded[row, k] = y[row, k] if k < columns else _ZERO
                if weighted:
                    weights_padded[row, k] = weights[row, k // step] if k < columns else _ZERO
            x8, y8 = load8(x_padded, row * stride + i), load8(y_padded, row * stride + i)
        else:
            x8, y8 = load8(x, row * columns + i), load8(y, row * columns + i)
            store8(x_padded, row * stride + i, x8)
            store8(y_padded, row * stride + i, y8)
            if weighted:
                for k in range(i, i + 8):
                    weights_padded[row, k] = weights[row, k // step]
        if i % COLUMNS == 0:
            differs[row, i // COLUMNS] = False
        d = abs8(x8 - y8)
        if any8(d > all8(_ZERO)):
            differs[row, i // COLUMNS] = True
        total = fma8(load8(weights_padded, row * stride + i), d, total) if weighted else total + d
    return sum8(total)


@Kernel
@numba.njit(cache=True, nogil=True)
@no_type_check
def compare(counter, x, y, step, weights, weighted, x_padded, y_padded, weights_padded, differs, row_sums):
    """Copy picture `x` and target `y`, [h, w * c] with `step` = c, to padded rows, and see where they differ.

    Fills `x_padded`, `y_padded` and, if `weighted`, `weights_padded` (all [h, stride]), `differs` [h, blocks of
    `COLUMNS`] and `row_sums`, the row sums of weight times |x - y|.
    """
    while True:
        row = next_index(counter)
        if row >= x.shape[0]:
            return
        row_sums[row] = _compare_row(row, x, y, step, weights, weighted, x_padded, y_padded, weights_padded, differs)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _any_difference(differs, top, end_row, left, end_column):
    """Whether picture and target differ anywhere in a rectangle of rows and floats."""
    first, end = max(0, left) // COLUMNS, min(differs.shape[1], (end_column + COLUMNS - 1) // COLUMNS)
    for row in range(max(0, top), min(differs.shape[0], end_row)):
        for block in range(first, end):
            if differs[row, block]:
                return True
    return False


@Kernel
@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def ssim_forward(counter, x, y, columns, step, scale, weights, weighted, differs, derivatives, patch_sums):
    """Sums of weighted dissimilarities per patch, and the similarities' derivatives times `scale`.

    Args:
        x: Picture, padded, [h, stride].
        y: Target, likewise.
        columns: Floats per row that count, w * c.
        step: Channels c.
        scale: Factor on the derivatives.
        weights: Weights of the windows' centres, [h, stride], if `weighted`.
        weighted: Whether to read them; 1 otherwise.
        differs: Where pictures differ, from `compare`.
        derivatives: Out, [3, h + 10, stride + 10 c]: by E[x], E[xx] and E[xy], in a margin of 10 px that comes zeroed.
        patch_sums: Out, float64, one per patch.
    """
    stride = x.shape[1]
    windows_y, windows_x = x.shape[0] - REACH, columns - REACH * step
    patches_x = (windows_x + COLUMNS - 1) // COLUMNS
    across = np.empty((5, (ROWS + REACH) * COLUMNS), np.float32)
    products = np.empty((3, COLUMNS + REACH * 8 + 8), np.float32)
    margin = derivatives.shape[2]
    one, two, c1, c2, zero = all8(_ONE), all8(_TWO), all8(_C1), all8(_C2), all8(_ZERO)
    while True:
        patch = next_index(counter)
        if patch >= patch_sums.shape[0]:
            return
        top, left = (patch // patches_x) * ROWS, (patch % patches_x) * COLUMNS
        rows, count = min(ROWS, windows_y - top), min(COLUMNS, windows_x - left)
        same = not _any_difference(differs, top, top + rows + REACH, left, left + count + REACH * step)
        if same:
            for row in range(rows):
                for i in range(0, count, 8):
                    at = (top + row + REACH) * margin + left + REACH * step + i
                    for m in range(3):
                        store8(derivatives[m], at, zero)
            patch_sums[patch] = 0.0
            continue
        for row in range(rows + REACH):
            source, out = (top + row) * stride + left, row * COLUMNS
            for i in range(0, (count + 7) // 8 * 8 + REACH * step, 8):
                x8, y8 = load8(x, source + i), load8(y, source + i)
                store8(products[0], i, x8 * x8)
                store8(products[1], i, y8 * y8)
                store8(products[2], i, x8 * y8)
            for i in range(0, count, 8):
                store8(across[0], out + i, _blur8(x, source + i, step))
                store8(across[1], out + i, _blur8(y, source + i, step))
                store8(across[2], out + i, _blur8(products[0], i, step))
                store8(across[3], out + i, _blur8(products[1], i, step))
                store8(across[4], out + i, _blur8(products[2], i, step))
        patch_sums[patch] = 0.0
        for row in range(rows):
            total = zero
            for i in range(0, count, 8):
                at = row * COLUMNS + i
                mx, my = _blur8(across[0], at, COLUMNS), _blur8(across[1], at, COLUMNS)
                exx, eyy, exy = (
                    _blur8(across[2], at, COLUMNS),
                    _blur8(across[3], at, COLUMNS),
                    _blur8(across[4], at, COLUMNS),
                )
                both, squares = mx * my, fma8(mx, mx, my * my)
                a1, b1 = fma8(two, both, c1), squares + c1
                a2, b2 = fma8(two, exy - both, c2), (exx + eyy) - squares + c2
                inverse = one / (b1 * b2)
                similarity = a1 * a2 * inverse
                weight = one
                if weighted:
                    weight = load8(weights, (top + row + REACH // 2) * stride + left + i + REACH // 2 * step)
                weight = select8(all8(count - i) > lanes8(), weight, zero)
                total = fma8(weight, one - similarity, total)
                factor = all8(scale) * weight * inverse
                by_mean = two * factor * fma8(my, a2 - a1, mx * similarity * (b1 - b2))
                place = (top + row + REACH) * margin + left + REACH * step + i
                store8(derivatives[0], place, by_mean)
                store8(derivatives[1], place, minus_product8(factor * similarity, b1, zero))
                store8(derivatives[2], place, two * factor * a1)
            patch_sums[patch] += sum8(total)


@Kernel
@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def picture_gradient(counter, x, y, columns, step, l1_scale, weights, weighted, with_ssim, differs, derivatives, out):
    """Fill `out` [h, columns] with the gradient: `l1_scale` times the sign of x - y, plus what the derivatives mean."""
    height, stride, margin = x.shape[0], x.shape[1], derivatives.shape[2]
    patches_x = (columns + COLUMNS - 1) // COLUMNS
    across = np.empty((3, (ROWS + REACH) * COLUMNS), np.float32)
    zero, two = all8(_ZERO), all8(_TWO)
    positive, negative = all8(l1_scale), all8(-l1_scale)
    while True:
        patch = next_index(counter)
        if patch >= patches_x * ((height + ROWS - 1) // ROWS):
            return
        top, left = (patch // patches_x) * ROWS, (patch % patches_x) * COLUMNS
        rows, count = min(ROWS, height - top), min(COLUMNS, columns - left)
        reach = REACH * step
        if not _any_difference(differs, top - REACH, top + rows + REACH, left - reach, left + count + reach):
            for row in range(rows):
                for i in range(count):
                    out[top + row, left + i] = _ZERO
            continue
        if with_ssim:
            for row in range(rows + REACH):
                for i in range(0, count, 8):
                    for m in range(3):
                        place = (top + row) * margin + left + i
                        store8(across[m], row * COLUMNS + i, _blur8(derivatives[m], place, step))
        for row in range(rows):
            for i in range(0, count, 8):
                source, at = (top + row) * stride + left + i, row * COLUMNS + i
                x8, y8 = load8(x, source), load8(y, source)
                g = select8(x8 > y8, positive, select8(y8 > x8, negative, zero))
                if weighted:
                    g = g * load8(weights, source)
                if with_ssim:
                    g = g + _blur8(across[0], at, COLUMNS)
                    g = fma8(two * x8, _blur8(across[1], at, COLUMNS), g)
                    g = fma8(y8, _blur8(across[2], at, COLUMNS), g)
                if i + 8 <= count:
                    store8(out, (top + row) * columns + left + i, g)
                else:
                    for k in range(count - i):
                        out[top + row, left + i + k] = lane8(g, k)

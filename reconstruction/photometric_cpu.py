"""L1 and SSIM with their gradient in two passes over the picture: numba kernels and the autograd function around them.

Pictures are read as rows of `width * channels` floats, so that a step of one pixel is a step of `channels` floats and
the blur of all channels is one vectorised loop. Work is cut into fixed patches that fit the second-level cache; sums
are taken per patch and then in order, so the bits do not depend on the number of threads.

Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, Eq. 13; that the
transpose of the blur is the blur of the zero-padded map.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dp360.generation.numba_pool import numba_pool

WINDOW = 11
REACH = WINDOW - 1
SIGMA = 1.5
C1, C2 = np.float32(0.01**2), np.float32(0.03**2)
_ROWS, _COLUMNS = 32, 192  # patch size; a multiple of every channel count is not needed
_TAPS = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
_T0, _T1, _T2, _T3, _T4, _T5 = (np.float32(t) for t in (_TAPS / _TAPS.sum())[:6])
_FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
_TWO, _ZERO = np.float32(2.0), np.float32(0.0)


@numba.njit(fastmath=_FAST, cache=True)
@no_type_check
def _blur_row(source, step, out, count):
    """Window sums along a row: out[i] = sum_k taps[k] * source[i + k * step]."""
    for i in range(count):
        out[i] = (
            _T5 * source[i + 5 * step]
            + _T4 * (source[i + 4 * step] + source[i + 6 * step])
            + _T3 * (source[i + 3 * step] + source[i + 7 * step])
            + _T2 * (source[i + 2 * step] + source[i + 8 * step])
            + _T1 * (source[i + 1 * step] + source[i + 9 * step])
            + _T0 * (source[i] + source[i + 10 * step])
        )


@numba.njit(fastmath=_FAST, cache=True)
@no_type_check
def _blur_column(rows, first, out, count):
    """Window sums of eleven rows: out[i] = sum_k taps[k] * rows[first + k, i]."""
    r0, r1, r2, r3, r4, r5 = (
        rows[first],
        rows[first + 1],
        rows[first + 2],
        rows[first + 3],
        rows[first + 4],
        rows[first + 5],
    )
    r6, r7, r8, r9, r10 = rows[first + 6], rows[first + 7], rows[first + 8], rows[first + 9], rows[first + 10]
    for i in range(count):
        out[i] = (
            _T5 * r5[i]
            + _T4 * (r4[i] + r6[i])
            + _T3 * (r3[i] + r7[i])
            + _T2 * (r2[i] + r8[i])
            + _T1 * (r1[i] + r9[i])
            + _T0 * (r0[i] + r10[i])
        )


@numba.njit(fastmath=_FAST, parallel=True, cache=True)
@no_type_check
def ssim_forward(x, y, step, scale, derivatives, patch_sums):
    """Sum of similarities per patch, and its derivatives times `scale`.

    Args:
        x: Picture, [h, w * c].
        y: Target, [h, w * c].
        step: Channels c.
        scale: Factor on the derivatives.
        derivatives: Out, comes zeroed, [3, h + 10, (w + 10) * c]: by E[x], E[xx] and E[xy], in a margin of 10 px.
        patch_sums: Out, float64, one per patch.
    """
    height, width = x.shape[0] - REACH, x.shape[1] - REACH * step
    patches_x = (width + _COLUMNS - 1) // _COLUMNS
    for patch in numba.prange(patch_sums.shape[0]):
        top, left = (patch // patches_x) * _ROWS, (patch % patches_x) * _COLUMNS
        rows, columns = min(_ROWS, height - top), min(_COLUMNS, width - left)
        across = np.empty((5, _ROWS + REACH, _COLUMNS), np.float32)
        means = np.empty((5, _COLUMNS), np.float32)
        products = np.empty((3, _COLUMNS + REACH * step), np.float32)
        for row in range(rows + REACH):
            x_row = x[top + row, left : left + columns + REACH * step]
            y_row = y[top + row, left : left + columns + REACH * step]
            xx, yy, xy = products[0], products[1], products[2]
            for i in range(columns + REACH * step):
                xx[i], yy[i], xy[i] = x_row[i] * x_row[i], y_row[i] * y_row[i], x_row[i] * y_row[i]
            _blur_row(x_row, step, across[0, row], columns)
            _blur_row(y_row, step, across[1, row], columns)
            _blur_row(xx, step, across[2, row], columns)
            _blur_row(yy, step, across[3, row], columns)
            _blur_row(xy, step, across[4, row], columns)
        total = 0.0
        for row in range(rows):
            for m in range(5):
                _blur_column(across[m], row, means[m], columns)
            by_mean = derivatives[0, top + row + REACH, left + REACH * step :]
            by_xx = derivatives[1, top + row + REACH, left + REACH * step :]
            by_xy = derivatives[2, top + row + REACH, left + REACH * step :]
            row_total = _ZERO
            for i in range(columns):
                mx, my = means[0, i], means[1, i]
                a1, b1 = _TWO * mx * my + C1, mx * mx + my * my + C1
                a2 = _TWO * (means[4, i] - mx * my) + C2
                b2 = (means[2, i] - mx * mx) + (means[3, i] - my * my) + C2
                inverse = np.float32(1.0) / (b1 * b2)
                similarity = a1 * a2 * inverse
                row_total += similarity
                by_mean[i] = scale * _TWO * (my * (a2 - a1) * inverse + mx * similarity * (b1 - b2) * inverse)
                by_xx[i] = -scale * similarity * b1 * inverse
                by_xy[i] = scale * _TWO * a1 * inverse
            total += row_total
        patch_sums[patch] = total


@numba.njit(fastmath=_FAST, parallel=True, cache=True)
@no_type_check
def ssim_backward(x, y, step, derivatives, gradient):
    """Add to `gradient` [h, w * c] what the derivatives of `ssim_forward` mean for `x`."""
    height, width = x.shape
    patches_x = (width + _COLUMNS - 1) // _COLUMNS
    for patch in numba.prange(patches_x * ((height + _ROWS - 1) // _ROWS)):
        top, left = (patch // patches_x) * _ROWS, (patch % patches_x) * _COLUMNS
        rows, columns = min(_ROWS, height - top), min(_COLUMNS, width - left)
        across = np.empty((3, _ROWS + REACH, _COLUMNS), np.float32)
        sums = np.empty((3, _COLUMNS), np.float32)
        for row in range(rows + REACH):
            for m in range(3):
                _blur_row(derivatives[m, top + row, left:], step, across[m, row], columns)
        for row in range(rows):
            for m in range(3):
                _blur_column(across[m], row, sums[m], columns)
            x_row, y_row, out = x[top + row, left:], y[top + row, left:], gradient[top + row, left:]
            for i in range(columns):
                out[i] += sums[0, i] + _TWO * x_row[i] * sums[1, i] + y_row[i] * sums[2, i]


@numba.njit(fastmath=_FAST, parallel=True, cache=True)
@no_type_check
def l1_forward(x, y, scale, gradient, row_sums):
    """Row sums of |x - y|, and `scale` times the sign of x - y."""
    for row in numba.prange(x.shape[0]):
        total = _ZERO
        for i in range(x.shape[1]):
            d = x[row, i] - y[row, i]
            total += abs(d)
            gradient[row, i] = scale if d > _ZERO else (-scale if d < _ZERO else _ZERO)
        row_sums[row] = total


class _Photometric(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rgb, target, ssim_weight):  # type: ignore[override]
        height, width, channels = rgb.shape
        x, y = (np.ascontiguousarray(t.detach().numpy()).reshape(height, width * channels) for t in (rgb, target))
        gradient = np.empty_like(x)
        row_sums = np.empty(height, np.float64)
        with numba_pool(height * width):
            l1_forward(x, y, np.float32((1 - ssim_weight) / x.size), gradient, row_sums)
            loss = (1 - ssim_weight) * row_sums.sum() / x.size
            if ssim_weight > 0:
                windows = (height - REACH) * (width - REACH) * channels
                derivatives = np.zeros((3, height + REACH, (width + REACH) * channels), np.float32)
                patches = -(-(height - REACH) // _ROWS) * -(-((width - REACH) * channels) // _COLUMNS)
                patch_sums = np.empty(patches, np.float64)
                ssim_forward(x, y, channels, np.float32(-ssim_weight / windows), derivatives, patch_sums)
                loss += ssim_weight * (1 - patch_sums.sum() / windows)
                if ctx.needs_input_grad[0]:
                    ssim_backward(x, y, channels, derivatives, gradient)
        ctx.gradient = torch.from_numpy(gradient.reshape(rgb.shape))
        return torch.tensor(loss, dtype=rgb.dtype)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        return ctx.gradient * g, None, None


def photometric_loss_cpu(
    rgb: Float[Tensor, "h w c"], target: Float[Tensor, "h w c"], ssim_weight: float
) -> Float[Tensor, ""]:
    """(1 - w) L1 + w (1 - SSIM) for float32 pictures on the CPU, of at least 11 px; no gradient for `target`."""
    return _Photometric.apply(rgb, target, ssim_weight)  # type: ignore[return-value]

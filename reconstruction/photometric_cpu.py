"""The picture terms of a fit's loss with their gradient, as autograd functions around numba kernels.

Both work through the picture twice: once for the loss and what SSIM's windows ask for, once for the gradient.
"""

from __future__ import annotations

import numpy as np
import torch

from dp360.generation.numba_pool import numba_pool

from . import photometric_kernels as kernels
from .rasterize.workspace import empty

_NO_WEIGHTS = np.zeros((0, 0), np.float32)
"""An array of no size says to numba that there are none."""


def _compare_pictures(
    x: np.ndarray, y: np.ndarray, step: int, weights: np.ndarray, ssim_weight: float
) -> tuple[float, np.ndarray]:
    """(1 - w) L1 + w (1 - SSIM) of pictures [h, w * step], and its gradient by `x`."""
    height, columns = x.shape
    stride = kernels.stride_of(columns)
    weighted, with_ssim = weights.size > 0, ssim_weight > 0
    x_padded, y_padded = empty((height, stride)), empty((height, stride))
    weights_padded = empty((height, stride) if weighted else (1, 1))
    differs = empty((height, -(-stride // kernels.COLUMNS)), np.bool_)
    row_sums = empty((height,), np.float64)
    kernels.compare(x, y, step, weights, weighted, x_padded, y_padded, weights_padded, differs, row_sums)
    loss = (1 - ssim_weight) * float(row_sums.sum()) / x.size
    pictures, trust = (x_padded, y_padded, columns, step), (weights_padded, weighted)

    reach = kernels.REACH
    derivatives = empty((3, height + reach, stride + reach * step))
    if with_ssim:
        derivatives[:, :reach] = 0
        derivatives[:, height:] = 0
        derivatives[:, :, : reach * step] = 0
        derivatives[:, :, columns:] = 0
        windows_y, windows_x = height - reach, columns - reach * step
        patches = -(-windows_y // kernels.ROWS) * -(-windows_x // kernels.COLUMNS)
        patch_sums = empty((patches,), np.float64)
        scale = np.float32(-ssim_weight / (windows_y * windows_x))
        kernels.ssim_forward(*pictures, scale, *trust, differs, derivatives, patch_sums)
        loss += ssim_weight * float(patch_sums.sum()) / (windows_y * windows_x)
    gradient = empty(x.shape)
    scale = np.float32((1 - ssim_weight) / x.size)
    kernels.picture_gradient(*pictures, scale, *trust, with_ssim, differs, derivatives, gradient)
    return loss, gradient


class PictureLoss(torch.autograd.Function):
    """All picture terms of a fit's loss in one: (1 - w) L1 + w (1 - SSIM) + a |alpha - target|, means over pixels.

    Float32 pictures [h w c] and opacities [h w] of render and target, of which only the render has a gradient; w; a;
    trust in every pixel [h w], which scales all terms (SSIM by the window's centre), or None.
    """

    @staticmethod
    def forward(ctx, rgb, alpha, target_rgb, target_alpha, ssim_weight, alpha_weight, weights):  # type: ignore[override]
        height, width, channels = rgb.shape
        x, opacity, y, wanted = (
            np.ascontiguousarray(t.detach().numpy(), dtype=np.float32) for t in (rgb, alpha, target_rgb, target_alpha)
        )
        trust = _NO_WEIGHTS if weights is None else np.ascontiguousarray(weights.detach().numpy(), dtype=np.float32)
        flat = (x.reshape(height, width * channels), y.reshape(height, width * channels))
        with numba_pool(height * width):
            loss, gradient = _compare_pictures(*flat, channels, trust, ssim_weight)
        difference, scale = opacity - wanted, np.float32(alpha_weight / opacity.size)
        weighted_sign = np.sign(difference) * trust if trust.size else np.sign(difference)
        g_alpha = scale * weighted_sign
        loss += alpha_weight * float((weighted_sign * difference).mean(dtype=np.float64))
        ctx.gradients = torch.from_numpy(gradient.reshape(rgb.shape)), torch.from_numpy(g_alpha)
        return torch.tensor(loss, dtype=rgb.dtype)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        g_rgb, g_alpha = ctx.gradients
        return (g_rgb, g_alpha, *[None] * 5) if float(g) == 1 else (g_rgb * g, g_alpha * g, *[None] * 5)

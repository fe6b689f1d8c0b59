"""What a fit does to the shapes of its Gaussians in every step, each in one pass: numba kernels for the CPU."""

from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@numba.njit(cache=True)
@no_type_check
def _needle_excess(log_scales, limit, scale, gradient):
    """Sum over Gaussians of longest minus middle axis minus `limit` where positive; `scale` times its gradient."""
    total = 0.0
    for i in range(log_scales.shape[0]):
        a, b, c = log_scales[i, 0], log_scales[i, 1], log_scales[i, 2]
        longest = 0 if a >= b and a >= c else (1 if b >= c else 2)
        p, q = (longest + 1) % 3, (longest + 2) % 3
        middle = p if log_scales[i, p] >= log_scales[i, q] else q
        gradient[i, 0], gradient[i, 1], gradient[i, 2] = 0.0, 0.0, 0.0
        excess = log_scales[i, longest] - log_scales[i, middle] - limit
        if excess > 0:
            total += excess
            gradient[i, longest], gradient[i, middle] = scale, -scale
    return total


@numba.njit(cache=True)
@no_type_check
def limit_shapes_cpu(log_scales, needle_limit, scale_limit):
    """Clip the longest axis to the middle one plus `needle_limit`, and all to `scale_limit`, in place."""
    for i in range(log_scales.shape[0]):
        a, b, c = log_scales[i, 0], log_scales[i, 1], log_scales[i, 2]
        middle = max(min(a, b), min(max(a, b), c))
        most = min(middle + needle_limit, scale_limit)
        log_scales[i, 0], log_scales[i, 1], log_scales[i, 2] = min(a, most), min(b, most), min(c, most)


class _Needle(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_scales, limit):  # type: ignore[override]
        array = np.ascontiguousarray(log_scales.detach().numpy())
        gradient, n = np.empty_like(array), max(1, len(array))
        total = _needle_excess(array, np.float32(limit), np.float32(1 / n), gradient)
        ctx.gradient = torch.from_numpy(gradient)
        return torch.tensor(total / n, dtype=log_scales.dtype)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        return ctx.gradient * g, None


def needle_loss_cpu(log_scales: Float[Tensor, "n 3"], max_ratio: float) -> Float[Tensor, ""]:
    """`losses.needle_loss` for float32 on the CPU."""
    return _Needle.apply(log_scales, math.log(max_ratio))  # type: ignore[return-value]

"""What a render and a view's picture have in common, in one pass over both: sums by patch of the picture.

`patch_sums` works with tensors of any device and precision; on the CPU in float32 a numba kernel does the same several
times as fast.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dp360.generation.numba_pool import numba_pool

from .rasterize.kernels import Kernel
from .rasterize.simd import next_index

PIXELS, ERROR, ERROR_INSIDE, OPACITY = 0, 1, 2, 3
"""Sums of a patch: its pixels; of the mean absolute difference of colour and opacity; of that where both are solid;
of the target's opacity."""
OURS, THEIRS = slice(4, 7), slice(7, 10)
"""Colours of render and target where both are solid."""
XX, XY, YY, BX, BY = 10, 11, 12, 13, 14
"""Normal equations of the shift that would explain the difference in grey and opacity, pixels."""
SUMS = 15
SOLID = 0.95
"""Opacity from which a pixel shows nothing but the head."""
_MOST_ERROR = 0.3
"""Differences count for the shift up to this."""


def patch_sums(
    rgb: Float[Tensor, "h w 3"],
    alpha: Float[Tensor, "h w"],
    background_rgb_unit: Float[Tensor, " 3"],
    target: Float[Tensor, "h w 4"],
    side: int,
) -> Float[Tensor, "rows columns 15"]:
    """Sums over square patches of a render and what it should be.

    Args:
        rgb: render over the background, [0, 1].
        alpha: rendered opacity.
        background_rgb_unit: what lies behind it.
        target: premultiplied colour and opacity, [0, 1].
        side: of a patch, pixels; the last ones are cut off by the picture's end.

    Returns:
        Columns as named above, float64 from the kernel.
    """
    if rgb.device.type == "cpu" and rgb.dtype == torch.float32:
        arrays = (np.ascontiguousarray(t.numpy()) for t in (rgb, alpha, background_rgb_unit, target))
        height, width = alpha.shape
        sums = np.empty((-(-height // side), -(-width // side), SUMS))
        with numba_pool(height * width):
            _sum_patches(*arrays, side, sums)
        return torch.from_numpy(sums)
    return plain_patch_sums(rgb, alpha, background_rgb_unit, target, side)


def plain_patch_sums(
    rgb: Float[Tensor, "h w 3"],
    alpha: Float[Tensor, "h w"],
    background_rgb_unit: Float[Tensor, " 3"],
    target: Float[Tensor, "h w 4"],
    side: int,
) -> Float[Tensor, "rows columns 15"]:
    """`patch_sums` on every device; arguments and result as there."""
    render = torch.cat([rgb - (1 - alpha[..., None]) * background_rgb_unit, alpha[..., None]], dim=-1)
    difference = target - render
    error = difference.abs().mean(dim=-1)
    both_solid = torch.minimum(alpha, target[..., 3])
    solid = ((alpha > SOLID) & (target[..., 3] > SOLID)).to(render)[..., None]
    two = torch.stack([render[..., :3].mean(dim=-1), alpha])
    off = torch.stack([difference[..., :3].mean(dim=-1), difference[..., 3]]).clamp(-_MOST_ERROR, _MOST_ERROR)
    along_x, along_y = torch.zeros_like(two), torch.zeros_like(two)  # a picture's edge tells nothing
    along_x[:, 1:-1, 1:-1] = 0.5 * (two[:, 1:-1, 2:] - two[:, 1:-1, :-2])
    along_y[:, 1:-1, 1:-1] = 0.5 * (two[:, 2:, 1:-1] - two[:, :-2, 1:-1])
    products = [along_x * along_x, along_x * along_y, along_y * along_y, -along_x * off, -along_y * off]
    maps = [
        *(m[..., None] for m in (torch.ones_like(alpha), error, error * both_solid, target[..., 3])),
        solid * render[..., :3],
        solid * target[..., :3],
        *(product.sum(dim=0)[..., None] for product in products),
    ]
    stacked = torch.cat(maps, dim=-1).permute(2, 0, 1)[None]
    more = (0, -stacked.shape[3] % side, 0, -stacked.shape[2] % side)
    return (F.avg_pool2d(F.pad(stacked, more), side)[0] * side**2).permute(1, 2, 0)


@Kernel
@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _sum_patches(counter, rgb, alpha, background, target, side, sums):
    """Fill `sums` [rows of patches, columns of patches, 15]; a worker takes a row of patches at a time."""
    height, width = alpha.shape
    b_0, b_1, b_2 = background[0], background[1], background[2]
    b_grey = (b_0 + b_1 + b_2) / np.float32(3)
    third, quarter, half, most = np.float32(1 / 3), np.float32(0.25), np.float32(0.5), np.float32(_MOST_ERROR)
    one, solid = np.float32(1), np.float32(SOLID)
    grey = np.empty((side + 2, width), np.float32)
    while True:
        patch_row = next_index(counter)
        if patch_row >= sums.shape[0]:
            return
        sums[patch_row] = 0.0
        top, end = patch_row * side, min(height, (patch_row + 1) * side)
        for y in range(max(0, top - 1), min(height, end + 1)):
            for x in range(width):
                light = (rgb[y, x, 0] + rgb[y, x, 1] + rgb[y, x, 2]) * third
                grey[y - top + 1, x] = light - (one - alpha[y, x]) * b_grey
        for patch in range(sums.shape[1]):
            error = error_inside = opacity = 0.0
            o_0 = o_1 = o_2 = t_0 = t_1 = t_2 = 0.0
            xx = xy = yy = bx = by = 0.0
            left, right = patch * side, min(width, (patch + 1) * side)
            for y in range(top, end):
                g = y - top + 1
                for x in range(left, right):
                    a, wanted = alpha[y, x], target[y, x, 3]
                    through = one - a
                    r_0 = rgb[y, x, 0] - through * b_0
                    r_1 = rgb[y, x, 1] - through * b_1
                    r_2 = rgb[y, x, 2] - through * b_2
                    d_0, d_1, d_2 = target[y, x, 0] - r_0, target[y, x, 1] - r_1, target[y, x, 2] - r_2
                    d_a = wanted - a
                    e = (abs(d_0) + abs(d_1) + abs(d_2) + abs(d_a)) * quarter
                    error += e
                    error_inside += e * min(a, wanted)
                    opacity += wanted
                    if a > solid and wanted > solid:
                        o_0 += r_0
                        o_1 += r_1
                        o_2 += r_2
                        t_0 += target[y, x, 0]
                        t_1 += target[y, x, 1]
                        t_2 += target[y, x, 2]
                    if y == 0 or y == height - 1 or x == 0 or x == width - 1:
                        continue
                    off = min(most, max(-most, (d_0 + d_1 + d_2) * third))
                    off_a = min(most, max(-most, d_a))
                    g_x, g_y = half * (grey[g, x + 1] - grey[g, x - 1]), half * (grey[g + 1, x] - grey[g - 1, x])
                    a_x = half * (alpha[y, x + 1] - alpha[y, x - 1])
                    a_y = half * (alpha[y + 1, x] - alpha[y - 1, x])
                    xx += g_x * g_x + a_x * a_x
                    xy += g_x * g_y + a_x * a_y
                    yy += g_y * g_y + a_y * a_y
                    bx -= g_x * off + a_x * off_a
                    by -= g_y * off + a_y * off_a
            row = sums[patch_row, patch]
            row[PIXELS], row[ERROR], row[ERROR_INSIDE], row[OPACITY] = (
                (end - top) * (right - left),
                error,
                error_inside,
                opacity,
            )
            row[4], row[5], row[6], row[7], row[8], row[9] = o_0, o_1, o_2, t_0, t_1, t_2
            row[XX], row[XY], row[YY], row[BX], row[BY] = xx, xy, yy, bx, by

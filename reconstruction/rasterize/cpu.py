"""The CPU backend: two autograd functions around the numba kernels, projection and blending.

They are apart so that the projected means are a tensor of the graph, whose gradient densification reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dp360.generation.errors import InputError
from dp360.generation.numba_pool import numba_pool

from . import blending, projection, tiles
from .records import RECORD
from .workspace import empty


def _array(tensor: Tensor, dtype: Any = np.float32) -> np.ndarray:
    """A contiguous view for numba."""
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=dtype)


def _lens(Ks: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Per camera: fx, fy, cx, cy; and the limits of x/z and y/z, low and high.

    The slopes are kept within 1.3 half fields of view: beyond, the linearised perspective explodes.
    """
    size, focal, principal = np.array([width, height]), Ks[:, (0, 1), (0, 1)], Ks[:, :2, 2]
    margin = 0.15 * size / focal
    limits = np.stack([-(principal / focal + margin), (size - principal) / focal + margin], axis=2)
    return np.concatenate([focal, principal], axis=1), np.ascontiguousarray(limits)


class Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, log_scales, opacity_logits, sh0, sh_rest, viewmats, Ks, size, how):  # type: ignore[override]
        cameras, n = viewmats.shape[0], means.shape[0]
        arrays = tuple(_array(t) for t in (means, quats, log_scales, opacity_logits, sh0, sh_rest))
        W = _array(viewmats, np.float64)
        lens = (W, *_lens(_array(Ks, np.float64), *size))
        radii, means2d = empty((cameras, n), np.int32), empty((cameras, n, 2))
        records = empty((cameras, n, RECORD))
        first_bad = np.empty(-(-n // projection.BLOCK), np.int64)
        with numba_pool(cameras * n):
            projection.project_forward(*arrays, *lens, *size, *how, radii, means2d, records, first_bad)
        if (first_bad >= 0).any():
            raise InputError(_what_is_wrong(int(first_bad[first_bad >= 0][0]), *arrays))
        ctx.arrays, ctx.lens, ctx.radii, ctx.records = arrays, lens, radii, records
        ctx.how = (how[0], *how[2:])  # the near plane has had its say
        outputs = tuple(torch.from_numpy(a) for a in (radii, means2d, records))
        ctx.mark_non_differentiable(outputs[0])
        return outputs

    @staticmethod
    def backward(ctx, _, g_means2d, g_records):  # type: ignore[override]
        gradients = [empty(a.shape) for a in ctx.arrays]
        means, quats, log_scales, opacity_logits, _, sh_rest = ctx.arrays
        inputs = (means, quats, log_scales, opacity_logits, sh_rest, *ctx.lens, *ctx.how, ctx.radii, ctx.records)
        with numba_pool(ctx.radii.size):
            projection.project_backward(*inputs, _array(g_means2d), _array(g_records), *gradients)
        return (*(torch.from_numpy(g) for g in gradients), None, None, None, None)


def _what_is_wrong(i: int, *arrays: np.ndarray) -> str:
    """A sentence about the first input of Gaussian `i` that cannot be drawn."""
    names = ("means", "quats", "log_scales", "opacity_logits", "sh0", "sh_rest")
    n = arrays[0].shape[0]
    for name, array in zip(names, arrays):
        if not np.isfinite(array[i]).all():
            return f"rasterize: Gaussian {i} of {n} has {name} that are not finite: {array[i].ravel()[:4].tolist()}"
    if not np.linalg.norm(arrays[1][i].astype(np.float64)) > 0:
        return f"rasterize: expected quats of non-zero length, Gaussian {i} of {n} has {arrays[1][i].tolist()}"
    return f"rasterize: Gaussian {i} of {n} has values beyond what float32 holds: log_scales {arrays[2][i].tolist()}"


def _fill_tiles(records: np.ndarray, radii: np.ndarray, tiles_x: int, tiles_y: int) -> tuple[np.ndarray, ...]:
    """Sort one camera's Gaussians into tiles: what its forward pass, which fills the last two, leaves for the other."""
    n, count = len(radii), tiles_x * tiles_y
    first_pair, pair_count = empty((n,), np.int64), empty((n,), np.int64)
    room = tiles.count_room(records, radii, tiles_x, tiles_y, first_pair, pair_count)
    pairs = empty((room, 2), np.int32)
    tiles.list_tiles(records, radii, tiles_x, tiles_y, first_pair, pair_count, pairs)
    entries, first_in_tile = empty((room, tiles.ENTRY), np.int32), empty((count + 1,), np.int64)
    cursor, tile_end = empty((count,), np.int64), empty((count,), np.int64)
    tiles.scatter_to_tiles(tiles.depth_order(records), first_pair, pair_count, pairs, first_in_tile, cursor, entries)
    transmittance = empty((tiles_y * tiles.TILE, tiles_x * tiles.TILE))
    return first_pair, pair_count, entries, first_in_tile, tile_end, transmittance


class Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means2d, records, radii, backgrounds, width, height, with_depth):  # type: ignore[override]
        del means2d  # an input for the sake of its gradient; the kernels read the records
        cameras, n = radii.shape
        rows, radius, behind = _array(records), np.ascontiguousarray(radii.numpy()), _array(backgrounds)
        tiles_x, tiles_y = -(-width // tiles.TILE), -(-height // tiles.TILE)
        whole = (cameras, tiles_y * tiles.TILE, tiles_x * tiles.TILE)  # pictures of whole tiles, cut at the end
        rgb, alpha, depth = empty((*whole, 3)), empty(whole), empty(whole if with_depth else (cameras, 0, 0))
        kept = []
        with numba_pool(cameras * (width * height + n)):
            for c in range(cameras):
                kept.append(_fill_tiles(rows[c], radius[c], tiles_x, tiles_y))
                _, _, entries, first_in_tile, tile_end, transmittance = kept[c]
                lists = (rows[c], entries, first_in_tile)
                pictures = (rgb[c], depth[c], alpha[c], transmittance, tile_end)
                blending.blend_forward(*lists, tiles_x, behind[c], with_depth, *pictures)
        if any(ctx.needs_input_grad):
            ctx.kept, ctx.pictures, ctx.tiles_x, ctx.with_depth = kept, (rows, rgb, depth), tiles_x, with_depth
        return tuple(torch.from_numpy(picture)[:, :height, :width] for picture in (rgb, depth, alpha))

    @staticmethod
    def backward(ctx, g_rgb, g_depth, g_alpha):  # type: ignore[override]
        rows, rgb, depth = ctx.pictures
        cameras, n, _ = rows.shape
        g_rgb, g_alpha = (_with_whole_tiles(_array(g), rgb.shape) for g in (g_rgb, g_alpha))
        g_depth = _with_whole_tiles(_array(g_depth), depth.shape)
        g_means2d, g_records = empty((cameras, n, 2)), empty((cameras, n, RECORD))
        g_backgrounds = np.empty((cameras, 3), np.float32)
        with numba_pool(g_alpha.size + cameras * n):
            for c, (first_pair, pair_count, entries, first_in_tile, tile_end, transmittance) in enumerate(ctx.kept):
                gradients = empty((len(entries), blending.GRADIENT))
                lists = (rows[c], entries, first_in_tile, tile_end)
                finished, asked = (rgb[c], depth[c], transmittance), (g_rgb[c], g_depth[c], g_alpha[c])
                blending.blend_backward(*lists, ctx.tiles_x, ctx.with_depth, *finished, *asked, gradients)
                pairs = (first_pair, pair_count, gradients)
                blending.reduce_gradients(rows[c], *pairs, g_means2d[c], g_records[c])
                if ctx.needs_input_grad[3]:
                    g_backgrounds[c] = (g_rgb[c] * transmittance[..., None]).sum(axis=(0, 1))
        by_means2d, by_records, by_backgrounds = map(torch.from_numpy, (g_means2d, g_records, g_backgrounds))
        return by_means2d, by_records, None, by_backgrounds, None, None, None


def _with_whole_tiles(pictures: np.ndarray, whole: tuple[int, ...]) -> np.ndarray:
    """Pictures with zeros below and to the right, up to the height and width that `whole` has behind the cameras."""
    more = [(0, 0), *((0, side - own) for side, own in zip(whole[1:3], pictures.shape[1:3])), (0, 0)]
    return np.pad(pictures, more[: pictures.ndim]) if any(after for _, after in more) else pictures

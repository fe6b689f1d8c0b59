"""The CPU backend: two autograd functions around the numba kernels, projection and blending.

They are apart so that the projected means are a tensor of the graph, whose gradient densification reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dp360.generation.errors import InputError
from dp360.generation.numba_pool import numba_pool

from . import blending, projection, tiles
from .records import RECORD
from .workspace import empty


@dataclass(frozen=True)
class ProjectionSettings:
    """What projection needs besides tensors."""

    width: int
    """Picture width in pixels."""
    height: int
    """Picture height in pixels."""
    sh_degree: int
    """Degree of the harmonics."""
    near_plane: float
    """Gaussians nearer than this are not shown, world units."""
    eps2d: float
    """Low-pass filter added to the diagonal of the projected covariance, px^2."""
    antialiased: bool
    """Whether opacity makes up for the low-pass filter."""
    with_depth: bool
    """Whether depth is wanted."""


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


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, log_scales, opacity_logits, sh0, sh_rest, viewmats, Ks, settings):  # type: ignore[override]
        cameras, n = viewmats.shape[0], means.shape[0]
        arrays = tuple(_array(t) for t in (means, quats, log_scales, opacity_logits, sh0, sh_rest))
        W = _array(viewmats, np.float64)
        lens = (W, *_lens(_array(Ks, np.float64), settings.width, settings.height))
        radii, means2d = empty((cameras, n), np.int32), empty((cameras, n, 2))
        records = empty((cameras, n, RECORD))
        first_bad = np.empty(-(-n // projection.BLOCK), np.int64)
        size = (settings.width, settings.height)
        how = (settings.sh_degree, settings.near_plane, settings.eps2d, settings.antialiased)
        with numba_pool(cameras * n):
            projection.project_forward(*arrays, *lens, *size, *how, radii, means2d, records, first_bad)
        if (first_bad >= 0).any():
            raise InputError(_what_is_wrong(int(first_bad[first_bad >= 0][0]), *arrays))
        ctx.arrays, ctx.lens, ctx.settings, ctx.radii, ctx.records = arrays, lens, settings, radii, records
        outputs = tuple(torch.from_numpy(a) for a in (radii, means2d, records))
        ctx.mark_non_differentiable(outputs[0])
        return outputs

    @staticmethod
    def backward(ctx, _, g_means2d, g_records):  # type: ignore[override]
        gradients = [empty(a.shape) for a in ctx.arrays]
        means, quats, log_scales, opacity_logits, _, sh_rest = ctx.arrays
        how = (ctx.settings.sh_degree, ctx.settings.eps2d, ctx.settings.antialiased)
        inputs = (means, quats, log_scales, opacity_logits, sh_rest, *ctx.lens, *how, ctx.radii, ctx.records)
        with numba_pool(ctx.radii.size):
            projection.project_backward(*inputs, _array(g_means2d), _array(g_records), *gradients)
        return (*(torch.from_numpy(g) for g in gradients), None, None, None)


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


@dataclass(frozen=True)
class _Blended:
    """What one camera's forward pass leaves for its backward pass."""

    records: np.ndarray
    first_pair: np.ndarray
    pair_count: np.ndarray
    entries: np.ndarray
    first_in_tile: np.ndarray
    tile_end: np.ndarray
    transmittance: np.ndarray


def _fill_tiles(records: np.ndarray, radii: np.ndarray, tiles_x: int, tiles_y: int) -> _Blended:
    """Sort one camera's Gaussians into tiles."""
    n, count = len(radii), tiles_x * tiles_y
    order, other_order, keys, other_keys = (empty((n,), t) for t in (np.int32, np.int32, np.uint32, np.uint32))
    first_pair, pair_count = empty((n,), np.int64), empty((n,), np.int64)
    visible = tiles.depth_order(records, order, keys, other_order, other_keys)
    room = tiles.count_room(records, radii, tiles_x, tiles_y, first_pair, pair_count)
    pairs = empty((room, 2), np.int32)
    tiles.list_tiles(records, radii, tiles_x, tiles_y, first_pair, pair_count, pairs)
    entries, first_in_tile = empty((room, tiles.ENTRY), np.int32), empty((count + 1,), np.int64)
    cursor, tile_end = empty((count,), np.int64), empty((count,), np.int64)
    tiles.scatter_to_tiles(order[:visible], first_pair, pair_count, pairs, first_in_tile, cursor, entries)
    transmittance = empty((tiles_y * tiles.TILE, tiles_x * tiles.TILE))
    return _Blended(records, first_pair, pair_count, entries, first_in_tile, tile_end, transmittance)


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means2d, records, radii, backgrounds, width, height, with_depth):  # type: ignore[override]
        del means2d  # an input for the sake of its gradient; the kernels read the records
        cameras, n = radii.shape
        rows, radius, behind = _array(records), np.ascontiguousarray(radii.numpy()), _array(backgrounds)
        tiles_x, tiles_y = -(-width // tiles.TILE), -(-height // tiles.TILE)
        whole = (cameras, tiles_y * tiles.TILE, tiles_x * tiles.TILE)  # pictures of whole tiles, cut at the end
        rgb, alpha, depth = empty((*whole, 3)), empty(whole), empty(whole if with_depth else (cameras, 0, 0))
        kept: list[_Blended] = []
        with numba_pool(cameras * (width * height + n)):
            for c in range(cameras):
                filled = _fill_tiles(rows[c], radius[c], tiles_x, tiles_y)
                lists = (filled.records, filled.entries, filled.first_in_tile)
                pictures = (rgb[c], depth[c], alpha[c], filled.transmittance, filled.tile_end)
                blending.blend_forward(*lists, tiles_x, behind[c], with_depth, *pictures)
                kept.append(filled)
        if any(ctx.needs_input_grad):
            ctx.kept, ctx.pictures, ctx.tiles_x, ctx.with_depth = kept, (rgb, depth), tiles_x, with_depth
        return tuple(torch.from_numpy(picture)[:, :height, :width] for picture in (rgb, depth, alpha))

    @staticmethod
    def backward(ctx, g_rgb, g_depth, g_alpha):  # type: ignore[override]
        cameras, n = len(ctx.kept), len(ctx.kept[0].records) if ctx.kept else 0
        rgb, depth = ctx.pictures
        g_rgb, g_alpha = (_with_whole_tiles(_array(g), rgb.shape) for g in (g_rgb, g_alpha))
        g_depth = _with_whole_tiles(_array(g_depth), depth.shape)
        g_means2d, g_records = empty((cameras, n, 2)), empty((cameras, n, RECORD))
        g_backgrounds = np.empty((cameras, 3), np.float32)
        with numba_pool(g_alpha.size + cameras * n):
            for c, kept in enumerate(ctx.kept):
                gradients = empty((len(kept.entries), blending.GRADIENT))
                lists = (kept.records, kept.entries, kept.first_in_tile, kept.tile_end)
                finished, asked = (rgb[c], depth[c], kept.transmittance), (g_rgb[c], g_depth[c], g_alpha[c])
                blending.blend_backward(*lists, ctx.tiles_x, ctx.with_depth, *finished, *asked, gradients)
                pairs = (kept.first_pair, kept.pair_count, gradients)
                blending.reduce_gradients(kept.records, *pairs, g_means2d[c], g_records[c])
                if ctx.needs_input_grad[3]:
                    g_backgrounds[c] = (g_rgb[c] * kept.transmittance[..., None]).sum(axis=(0, 1))
        by_means2d, by_records, by_backgrounds = map(torch.from_numpy, (g_means2d, g_records, g_backgrounds))
        return by_means2d, by_records, None, by_backgrounds, None, None, None


def _with_whole_tiles(pictures: np.ndarray, whole: tuple[int, ...]) -> np.ndarray:
    """Pictures with zeros below and to the right, up to the height and width that `whole` has behind the cameras."""
    more = [(0, 0), *((0, side - own) for side, own in zip(whole[1:3], pictures.shape[1:3])), (0, 0)]
    return np.pad(pictures, more[: pictures.ndim]) if any(after for _, after in more) else pictures


def rasterize_cpu(
    gaussians: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    viewmats: Float[Tensor, "c 4 4"],
    Ks: Float[Tensor, "c 3 3"],
    settings: ProjectionSettings,
    backgrounds: Float[Tensor, "c 3"] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Colour [c h w 3] over the backgrounds (black without), depth [c h w] and alpha [c h w], radii and means2d.

    Args:
        gaussians: means, quats, log scales, opacity logits, constant harmonics and the other ones.
        viewmats: as `rasterize`, like all that follow.
        Ks: likewise.
        settings: size of the pictures and more.
        backgrounds: likewise.

    Raises:
        InputError: Gaussians with inputs that are not finite, or with quaternions of length zero.
    """
    radii, means2d, records = _Project.apply(*gaussians, viewmats, Ks, settings)  # type: ignore[misc]
    behind = means2d.new_zeros(viewmats.shape[0], 3) if backgrounds is None else backgrounds
    size = (settings.width, settings.height)
    rgb, depth, alpha = _Blend.apply(means2d, records, radii, behind, *size, settings.with_depth)  # type: ignore[misc]
    return rgb, depth, alpha, radii, means2d

"""The CPU backend: two autograd functions around the numba kernels, projection and blending.

They are apart so that the projected means are a tensor of the graph, whose gradient densification reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dp360.generation.numba_pool import numba_pool

from . import projection, tiles


@dataclass(frozen=True)
class ProjectionSettings:
    """What projection needs besides tensors."""

    width: int
    """Picture width in pixels."""
    height: int
    """Picture height in pixels."""
    sh_degree: int
    """Degree of the harmonics, or -1 where colours are given."""
    near_plane: float
    """Gaussians nearer than this are not shown, world units."""
    eps2d: float
    """Low-pass filter added to the diagonal of the projected covariance, px^2."""
    radius_clip: float
    """Gaussians of at most this radius are not shown, pixels."""
    antialiased: bool
    """Whether opacity makes up for the low-pass filter."""


def _array(tensor: Tensor) -> np.ndarray:
    """A contiguous float32 view for numba."""
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)


def _array64(tensor: Tensor) -> np.ndarray:
    """A contiguous float64 view for numba."""
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float64)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, viewmats, Ks, settings):  # type: ignore[override]
        cameras, n = viewmats.shape[0], means.shape[0]
        arrays = tuple(_array(t) for t in (means, quats, scales, opacities, colors))
        W = _array64(viewmats)
        position = np.ascontiguousarray(np.linalg.inv(W)[:, :3, 3])
        lens = (W, _array64(Ks), position)
        radii = np.zeros((cameras, n), np.int32)
        means2d, depths = np.zeros((cameras, n, 2), np.float32), np.zeros((cameras, n), np.float32)
        conics, opacities2d = np.zeros((cameras, n, 3), np.float32), np.zeros((cameras, n), np.float32)
        colors2d = np.zeros((cameras, n, 3), np.float32)
        with numba_pool(cameras * n):
            projection.project_forward(
                *arrays,
                *lens,
                settings.width,
                settings.height,
                settings.sh_degree,
                settings.near_plane,
                settings.eps2d,
                settings.radius_clip,
                settings.antialiased,
                radii,
                means2d,
                depths,
                conics,
                opacities2d,
                colors2d,
            )
        ctx.arrays, ctx.lens, ctx.settings, ctx.radii, ctx.colors2d = arrays, lens, settings, radii, colors2d
        outputs = tuple(torch.from_numpy(a) for a in (radii, means2d, depths, conics, opacities2d, colors2d))
        ctx.mark_non_differentiable(outputs[0])
        return outputs

    @staticmethod
    def backward(ctx, _, *g_outputs):  # type: ignore[override]
        gradients = tuple(np.zeros_like(a) for a in ctx.arrays)
        with numba_pool(ctx.radii.size):
            projection.project_backward(
                *ctx.arrays,
                *ctx.lens,
                ctx.settings.width,
                ctx.settings.height,
                ctx.settings.sh_degree,
                ctx.settings.eps2d,
                ctx.settings.antialiased,
                ctx.radii,
                ctx.colors2d,
                *(_array(g) for g in g_outputs),
                *gradients,
            )
        return (*(torch.from_numpy(g) for g in gradients), None, None, None)


@dataclass(frozen=True)
class _Blended:
    """What one camera's forward pass leaves for its backward pass."""

    records: np.ndarray
    order: np.ndarray
    first_pair: np.ndarray
    entry_of_pair: np.ndarray
    gaussian_of_entry: np.ndarray
    first_in_tile: np.ndarray
    tile_end: np.ndarray
    transmittance: np.ndarray


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means2d, depths, conics, opacities, colors, radii, width, height):  # type: ignore[override]
        cameras, n = radii.shape
        tiles_x, tiles_y = -(-width // tiles.TILE), -(-height // tiles.TILE)
        inputs = tuple(_array(t) for t in (means2d, depths, conics, opacities, colors))
        radius = np.ascontiguousarray(radii.numpy())
        rgb = np.empty((cameras, height, width, 3), np.float32)
        depth, alpha = (np.empty((cameras, height, width), np.float32) for _ in range(2))
        kept: list[_Blended] = []
        with numba_pool(cameras * (width * height + n)):
            for c in range(cameras):
                records = np.empty((n, tiles.RECORD), np.float32)
                tiles.pack_records(radius[c], *(a[c] for a in inputs), records)
                order = tiles.depth_order(records)
                pair_tile, first_pair, first_in_tile = tiles.bin_into_tiles(records, radius[c], order, tiles_x, tiles_y)
                gaussian_of_entry, entry_of_pair = tiles.scatter_to_tiles(order, pair_tile, first_pair, first_in_tile)
                transmittance = np.empty((tiles_x * tiles_y, tiles.TILE, tiles.TILE), np.float32)
                tile_end = np.empty(tiles_x * tiles_y, np.int64)
                tiles.blend_forward(
                    records,
                    gaussian_of_entry,
                    first_in_tile,
                    tiles_x,
                    width,
                    height,
                    rgb[c],
                    depth[c],
                    alpha[c],
                    transmittance,
                    tile_end,
                )
                kept.append(
                    _Blended(
                        records,
                        order,
                        first_pair,
                        entry_of_pair,
                        gaussian_of_entry,
                        first_in_tile,
                        tile_end,
                        transmittance,
                    )
                )
        ctx.kept, ctx.n, ctx.size, ctx.rgb, ctx.depth = kept, n, (tiles_x, width, height), rgb, depth
        return torch.from_numpy(rgb), torch.from_numpy(depth), torch.from_numpy(alpha)

    @staticmethod
    def backward(ctx, g_rgb, g_depth, g_alpha):  # type: ignore[override]
        cameras, n = len(ctx.kept), ctx.n
        g_rgb, g_depth, g_alpha = _array(g_rgb), _array(g_depth), _array(g_alpha)
        outputs = tuple(np.zeros((cameras, n, *tail), np.float32) for tail in ((2,), (), (3,), (), (3,)))
        with numba_pool(g_alpha.size + cameras * n):
            for c, kept in enumerate(ctx.kept):
                gradients = np.empty((kept.gaussian_of_entry.shape[0], tiles.GRADIENT), np.float32)
                tiles.blend_backward(
                    kept.records,
                    kept.gaussian_of_entry,
                    kept.first_in_tile,
                    kept.tile_end,
                    *ctx.size,
                    ctx.rgb[c],
                    ctx.depth[c],
                    kept.transmittance,
                    g_rgb[c],
                    g_depth[c],
                    g_alpha[c],
                    gradients,
                )
                tiles.reduce_gradients(
                    kept.records,
                    kept.order,
                    kept.first_pair,
                    kept.entry_of_pair,
                    gradients,
                    *(output[c] for output in outputs),
                )
        return (*(torch.from_numpy(g) for g in outputs), None, None, None)


def project(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n k 3"],
    viewmats: Float[Tensor, "c 4 4"],
    Ks: Float[Tensor, "c 3 3"],
    settings: ProjectionSettings,
) -> tuple[
    Int[Tensor, "c n"],
    Float[Tensor, "c n 2"],
    Float[Tensor, "c n"],
    Float[Tensor, "c n 3"],
    Float[Tensor, "c n"],
    Float[Tensor, "c n 3"],
]:
    """Radii, means2d, depths, conics, opacities and colours on the picture plane; zero for Gaussians not shown."""
    return _Project.apply(means, quats, scales, opacities, colors, viewmats, Ks, settings)  # type: ignore[return-value]


def blend(
    means2d: Float[Tensor, "c n 2"],
    depths: Float[Tensor, "c n"],
    conics: Float[Tensor, "c n 3"],
    opacities: Float[Tensor, "c n"],
    colors: Float[Tensor, "c n 3"],
    radii: Int[Tensor, "c n"],
    width: int,
    height: int,
) -> tuple[Float[Tensor, "c h w 3"], Float[Tensor, "c h w"], Float[Tensor, "c h w"]]:
    """Colour over black, accumulated depth and alpha of every pixel."""
    return _Blend.apply(means2d, depths, conics, opacities, colors, radii, width, height)  # type: ignore[return-value]

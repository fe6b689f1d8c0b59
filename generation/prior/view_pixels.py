"""Pixels of a textured mesh out of the rasteriser's samples: means over what covers them, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Int

from ..mesh_raster import Fragments
from ..numba_pool import numba_pool


@dataclass(frozen=True)
class ViewPixels:
    """What each pixel of a view shows."""

    colour: Float32[np.ndarray, "h w c"]
    """Mean of the texture over what covers the pixel, straight; 0 where nothing does."""
    alpha: Float32[np.ndarray, "h w"]
    """Coverage, [0, 1]."""
    normals_world: Float32[np.ndarray, "h w 3"]
    """Unit normals, zeros where empty."""


def view_pixels(
    fragments: Fragments,
    coverage: Float32[np.ndarray, "r q"],
    uv_px: Float32[np.ndarray, "v 2"],
    normals_world: Float32[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    texture: Float32[np.ndarray, "a b c"],
    supersample: int,
) -> ViewPixels:
    """Look the texture up at every sample and average over each pixel.

    The same as `interpolate`, `sample_texture` and `box_downsample` one after another, without their pictures of all
    samples.

    Args:
        fragments: of the mesh; `supersample` rows and columns for each of the view's.
        coverage: of each sample, [0, 1]; 0 where nothing was hit.
        uv_px: column and row of each vertex in the texture, texel centres at +0.5.
        normals_world: of the vertices.
        faces: the mesh's.
        texture: any number of channels.
        supersample: samples per pixel along each axis.
    """
    with numba_pool(coverage.size):
        return ViewPixels(
            *_view_pixels(
                fragments.triangle_index, fragments.barycentric, coverage, uv_px, normals_world,
                np.ascontiguousarray(faces, dtype=np.int32), texture, supersample,
            )
        )  # fmt: skip


@numba.njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _view_pixels(triangle_index, barycentric, coverage, uv_px, normals, faces, texture, supersample):
    height, width = coverage.shape[0] // supersample, coverage.shape[1] // supersample
    texture_height, texture_width, channels = texture.shape
    colour = np.zeros((height, width, channels), np.float32)
    alpha = np.zeros((height, width), np.float32)
    normal = np.zeros((height, width, 3), np.float32)
    for y in numba.prange(height):
        for x in range(width):
            total = 0.0
            for i in range(y * supersample, (y + 1) * supersample):
                for j in range(x * supersample, (x + 1) * supersample):
                    share = coverage[i, j]
                    f = triangle_index[i, j]
                    if f < 0 or not share > 0.0:
                        continue
                    total += share
                    u, v = np.float32(0.0), np.float32(0.0)
                    for corner in range(3):
                        n, weight = faces[f, corner], barycentric[i, j, corner]
                        u += weight * uv_px[n, 0]
                        v += weight * uv_px[n, 1]
                        for k in range(3):
                            normal[y, x, k] += share * weight * normals[n, k]
                    u = min(max(u - np.float32(0.5), np.float32(0.0)), np.float32(texture_width - 1.0))
                    v = min(max(v - np.float32(0.5), np.float32(0.0)), np.float32(texture_height - 1.0))
                    column, row = int(u), int(v)
                    right, below = min(column + 1, texture_width - 1), min(row + 1, texture_height - 1)
                    fu, fv = u - column, v - row
                    for k in range(channels):
                        upper = texture[row, column, k] * (1.0 - fu) + texture[row, right, k] * fu
                        lower = texture[below, column, k] * (1.0 - fu) + texture[below, right, k] * fu
                        colour[y, x, k] += share * (upper * (1.0 - fv) + lower * fv)
            if total > 0.0:
                alpha[y, x] = total / (supersample * supersample)
                for k in range(channels):
                    colour[y, x, k] /= total
                length = np.sqrt(normal[y, x, 0] ** 2 + normal[y, x, 1] ** 2 + normal[y, x, 2] ** 2)
                for k in range(3):
                    normal[y, x, k] = normal[y, x, k] / length if length > 1e-6 * total else 0.0
    return colour, alpha, normal

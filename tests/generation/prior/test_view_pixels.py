"""Pixels of a view are the means of its samples, by the plain way in float64."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation import look_at_origin
from dp360.generation.mesh_raster import rasterize_mesh
from dp360.generation.prior.view_pixels import view_pixels


@pytest.mark.parametrize("supersample", (1, 2, 3))
def test_pixels_are_the_means_of_their_samples(supersample: int) -> None:
    rng = np.random.default_rng(supersample)
    vertices = rng.normal(0, 0.15, (60, 3))
    faces = rng.integers(0, 60, (50, 3))
    uv_px, normals = (rng.uniform(-2, 22, (60, n)).astype(np.float32) for n in (2, 3))
    texture = rng.random((15, 20, 4)).astype(np.float32)
    fragments = rasterize_mesh(vertices, faces, look_at_origin([0.3], [0.1], size_px=40)[0], supersample=supersample)
    coverage = (fragments.hit * rng.integers(0, 3, fragments.hit.shape) / 2).astype(np.float32)
    seen = view_pixels(fragments, coverage, uv_px, normals, faces, texture, supersample)

    def boxes(samples: np.ndarray) -> np.ndarray:
        return samples.reshape(40, supersample, 40, supersample, -1).sum((1, 3))

    corners = faces[np.maximum(fragments.triangle_index, 0)]
    at = (fragments.barycentric.astype(np.float64)[..., None] * np.concatenate([uv_px, normals], 1)[corners]).sum(2)
    column, row = np.clip(at[..., 0] - 0.5, 0, 19), np.clip(at[..., 1] - 0.5, 0, 14)
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    fu, fv = (column - left)[..., None], (row - top)[..., None]
    right, below = np.minimum(left + 1, 19), np.minimum(top + 1, 14)
    colour = (texture[top, left] * (1 - fu) + texture[top, right] * fu) * (1 - fv)
    colour += (texture[below, left] * (1 - fu) + texture[below, right] * fu) * fv
    total = boxes(coverage.astype(np.float64)[..., None])
    normal = boxes(at[..., 2:] * coverage[..., None])
    assert 0.2 < (total > 0).mean() < 0.98
    np.testing.assert_allclose(seen.alpha, total[..., 0] / supersample**2, atol=1e-6)
    np.testing.assert_allclose(seen.colour, boxes(colour * coverage[..., None]) / np.maximum(total, 1e-9), atol=1e-4)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    clear = length[..., 0] > 1e-2 * np.maximum(total[..., 0], 1)
    np.testing.assert_allclose(seen.normals_world[clear], (normal / np.maximum(length, 1e-9))[clear], atol=1e-3)

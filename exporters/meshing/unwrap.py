"""Texture coordinates by xatlas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32

PADDING_TEXELS = 4


@dataclass(frozen=True)
class Unwrapped:
    """Vertices split along the seams of the texture."""

    vertex_index: Int32[np.ndarray, " w"]
    """Which vertex of the welded mesh each one is."""
    uv_unit: Float32[np.ndarray, "w 2"]
    """Place in the texture, [0, 1], origin at the top left."""
    faces: Int32[np.ndarray, "f 3"]
    """The same triangles in the same order, in split vertices."""


def unwrap(
    vertices: Float64[np.ndarray, "v 3"],
    normals: Float64[np.ndarray, "v 3"],
    faces: Int32[np.ndarray, "f 3"],
    *,
    texture_px: int,
) -> Unwrapped:
    """Cut a surface into flat charts and pack them into one square.

    Source: https://github.com/jpcy/xatlas, through its Python binding.
    """
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32), normals.astype(np.float32))
    charts = xatlas.ChartOptions()
    charts.max_iterations = 1
    charts.max_cost = 4.0  # larger charts than the default of 2: fewer seams
    packing = xatlas.PackOptions()
    packing.resolution = texture_px
    packing.padding = PADDING_TEXELS
    packing.bilinear = True
    atlas.generate(charts, packing)
    vertex_index, split_faces, uv = atlas[0]
    # several pages are put over one another when charts do not fit; with a free scale xatlas makes one
    return Unwrapped(vertex_index.astype(np.int32), uv.astype(np.float32), split_faces.astype(np.int32))

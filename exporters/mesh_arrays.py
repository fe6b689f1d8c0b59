"""A textured mesh as the numbers that mesh files hold: metres, unit normals, and vertices that are one where they meet.

`TexturedMesh` splits vertices along texture seams. Formats that index positions and texture coordinates apart get the
welded surface, so that what was closed is closed in the file too.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from PIL import Image

from dp360.generation import Provenance
from dp360.generation.mesh import TexturedMesh

from .contact_sheet import png_text


@dataclass(frozen=True)
class MeshArrays:
    """One mesh, checked and welded."""

    positions: Float32[np.ndarray, "w 3"]
    """Welded vertices in the file's unit."""
    normals: Float32[np.ndarray, "w 3"]
    """Unit outward normals of the welded vertices."""
    faces: Int32[np.ndarray, "f 3"]
    """Welded vertices of each triangle, counter-clockwise seen from outside."""
    uv_bottom_left: Float32[np.ndarray, "v 2"]
    """Texture coordinates of the split vertices, origin at the *bottom left* (OBJ, USD)."""
    uv_faces: Int32[np.ndarray, "f 3"]
    """Rows of `uv_bottom_left` of each triangle."""
    welded_index: Int32[np.ndarray, " v"]
    """Welded vertex of each split one."""


def arrays_for_mesh_file(mesh: TexturedMesh, *, metres_per_unit: float, writer: str) -> MeshArrays:
    """Check a mesh and weld vertices at equal positions.

    Args:
        mesh: in world units.
        metres_per_unit: positive factor on positions.
        writer: name of the caller for messages.

    Raises:
        ValueError: no vertices or faces, a number is not finite, a face names a vertex that does not exist, or the
            factor is not positive.
    """
    count = len(mesh.vertices_world)
    if not (math.isfinite(metres_per_unit) and metres_per_unit > 0):
        raise ValueError(f"{writer}: expected a positive metres_per_unit, got {metres_per_unit}")
    if not count or not len(mesh.faces):
        raise ValueError(f"{writer}: expected vertices and faces, got {count} and {len(mesh.faces)}")
    if mesh.faces.min() < 0 or mesh.faces.max() >= count:
        raise ValueError(f"{writer}: faces name vertices {mesh.faces.min()}..{mesh.faces.max()} of {count}")
    for name in ("vertices_world", "normals_world", "uv_unit"):
        if not np.isfinite(getattr(mesh, name)).all():
            raise ValueError(f"{writer}: {name} hold NaN or Inf; nothing was written")
    vertices = np.ascontiguousarray(mesh.vertices_world, dtype=np.float32) + np.float32(0)  # no negative zeros
    welded, first, inverse = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1).astype(np.int32)
    # numbered in the order of the mesh, which keeps neighbours near each other
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    index = rank[inverse]
    normals = np.zeros((len(welded), 3))
    for axis in range(3):
        normals[:, axis] = np.bincount(index, mesh.normals_world[:, axis].astype(np.float64), minlength=len(welded))
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(length > 1e-12, normals / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])
    faces = index[mesh.faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    uv = mesh.uv_unit.astype(np.float64) * [1, -1] + [0, 1]
    return MeshArrays(
        positions=(welded[order].astype(np.float64) * metres_per_unit).astype(np.float32),
        normals=normals.astype(np.float32),
        faces=faces[whole].astype(np.int32),
        uv_bottom_left=uv.astype(np.float32),
        uv_faces=mesh.faces[whole].astype(np.int32),
        welded_index=index,
    )


def vertex_colours(mesh: TexturedMesh, arrays: MeshArrays) -> UInt8[np.ndarray, "w 3"]:
    """Colour of the texture around each welded vertex: a mean over 4 x 4 texels, and over both sides of a seam."""
    height, width = mesh.texture_rgb.shape[:2]
    factor = 4 if not (height % 4 or width % 4) and min(height, width) >= 1024 else 1
    blocks = mesh.texture_rgb.reshape(height // factor, factor, width // factor, factor, 3)
    texture = blocks.astype(np.float32).mean(axis=(1, 3))
    rows = np.clip((mesh.uv_unit[:, 1] * texture.shape[0]).astype(np.int64), 0, texture.shape[0] - 1)
    columns = np.clip((mesh.uv_unit[:, 0] * texture.shape[1]).astype(np.int64), 0, texture.shape[1] - 1)
    sampled = texture[rows, columns]
    count = np.maximum(np.bincount(arrays.welded_index, minlength=len(arrays.positions)), 1)
    sums = [np.bincount(arrays.welded_index, sampled[:, k], minlength=len(count)) for k in range(3)]
    return np.clip(np.stack(sums, axis=1) / count[:, None] + 0.5, 0, 255).astype(np.uint8)


def texture_png(mesh: TexturedMesh, provenance: Provenance) -> bytes:
    """The texture as a .png that says where it comes from."""
    buffer = io.BytesIO()
    Image.fromarray(mesh.texture_rgb).save(buffer, "PNG", pnginfo=png_text(provenance), compress_level=4)
    return buffer.getvalue()

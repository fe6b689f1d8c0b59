"""A textured mesh as the numbers that mesh files hold: metres, unit normals, and vertices that are one where they meet.

`TexturedMesh` splits vertices along texture seams. Formats that index positions and texture coordinates apart, or have
no texture, get the welded surface, so that what was closed is closed in the file too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from PIL import Image

from dp360.generation import Provenance
from dp360.generation.mesh import TexturedMesh

from .contact_sheet import png_bytes

if TYPE_CHECKING:
    import trimesh

_LARGE_TEXTURE_PX, _TEXELS_PER_COLOUR = 1024, 4
"""From this side on, a vertex gets the mean of a square of so many texels a side: single ones are noise."""


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

    def to_trimesh(self) -> trimesh.Trimesh:
        """The welded surface without its texture."""
        import trimesh

        return trimesh.Trimesh(self.positions, self.faces, vertex_normals=self.normals, process=False)


def checked_mesh(mesh: TexturedMesh, *, metres_per_unit: float, writer: str) -> TexturedMesh:
    """The mesh with normals of length one, as validators insist; a vertex without a normal gets +y.

    Args:
        mesh: in world units.
        metres_per_unit: positive factor on positions; checked only.
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
    return replace(mesh, normals_world=_unit(mesh.normals_world.astype(np.float64)))


def arrays_for_mesh_file(mesh: TexturedMesh, *, metres_per_unit: float, writer: str) -> MeshArrays:
    """Check a mesh and weld vertices at equal positions; arguments and errors as `checked_mesh`.

    Own code: trimesh's `merge_vertices` also joins what is merely near, which tears thin parts.
    """
    mesh = checked_mesh(mesh, metres_per_unit=metres_per_unit, writer=writer)
    vertices = np.ascontiguousarray(mesh.vertices_world, dtype=np.float32) + np.float32(0)  # no negative zeros
    welded, first, inverse = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
    # numbered in the order of the mesh, which keeps neighbours near each other
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    index = rank[inverse.reshape(-1)]
    faces = index[mesh.faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    uv = mesh.uv_unit.astype(np.float64) * [1, -1] + [0, 1]
    return MeshArrays(
        positions=(welded[order].astype(np.float64) * metres_per_unit).astype(np.float32),
        normals=_unit(_sums(mesh.normals_world, index)).astype(np.float32),
        faces=faces[whole].astype(np.int32),
        uv_bottom_left=uv.astype(np.float32),
        uv_faces=mesh.faces[whole].astype(np.int32),
        welded_index=index,
    )


def vertex_colours(mesh: TexturedMesh, arrays: MeshArrays) -> UInt8[np.ndarray, "w 3"]:
    """Colour of the texture around each welded vertex, a mean over both sides of a seam."""
    texture = Image.fromarray(mesh.texture_rgb)
    if min(texture.size) >= _LARGE_TEXTURE_PX:
        texture = texture.reduce(_TEXELS_PER_COLOUR)
    size = np.array(texture.size)
    columns, rows = np.clip((mesh.uv_unit * size).astype(np.int64), 0, size - 1).T
    sampled = np.asarray(texture)[rows, columns]
    counts = np.bincount(arrays.welded_index)
    return np.rint(_sums(sampled, arrays.welded_index) / counts[:, None]).astype(np.uint8)


def texture_png(mesh: TexturedMesh, provenance: Provenance) -> bytes:
    """The texture as a .png that says where it comes from."""
    return png_bytes(Image.fromarray(mesh.texture_rgb), provenance)


def _sums(values: np.ndarray, index: Int32[np.ndarray, " v"]) -> np.ndarray:
    """Sums of the rows with the same index, float64."""
    return np.stack([np.bincount(index, column.astype(np.float64)) for column in values.T], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one; +y for one without a direction."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > 1e-12, vectors / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])

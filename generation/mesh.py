"""Triangle meshes: the textured one that the prior gives to mesh exporters, and normals of any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8


@dataclass(frozen=True)
class TexturedMesh:
    """Triangles with one texture. Vertices are split along texture seams, so that each has one texture coordinate."""

    vertices_world: Float[np.ndarray, "v 3"]
    """World units, y up, face to +z."""
    normals_world: Float[np.ndarray, "v 3"]
    """Unit outward normals."""
    uv_unit: Float[np.ndarray, "v 2"]
    """Texture coordinates in [0, 1], origin at the *top left* of the picture (glTF's convention)."""
    faces: Int[np.ndarray, "f 3"]
    """Vertex indices, counter-clockwise seen from outside."""
    texture_rgb: UInt8[np.ndarray, "h w 3"]
    """Base colour, sRGB."""


def vertex_normals(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 3"]:
    """Unit normals of the vertices, weighted by the areas of the triangles around each; zeros where there are none."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    weighted = np.cross(b - a, c - a)
    normals = np.zeros((len(vertices), 3))
    for corner in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(faces[:, corner], weighted[:, axis], minlength=len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

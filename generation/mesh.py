"""Triangle meshes: the textured one that mesh exporters take and other people's become, and normals of any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8

if TYPE_CHECKING:
    import trimesh


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

    def to_trimesh(self, *, metres_per_unit: float = 1.0) -> trimesh.Trimesh:
        """The same triangles, in the same order, for trimesh; its texture coordinates start at the *bottom left*."""
        import trimesh
        from PIL import Image
        from trimesh.visual import TextureVisuals
        from trimesh.visual.material import PBRMaterial

        material = PBRMaterial(
            name="head", baseColorTexture=Image.fromarray(self.texture_rgb), metallicFactor=0.0, roughnessFactor=1.0
        )
        return trimesh.Trimesh(
            self.vertices_world * metres_per_unit,
            self.faces,
            vertex_normals=self.normals_world,
            visual=TextureVisuals(self.uv_unit * [1, -1] + [0, 1], material=material),
            process=False,
        )


def vertex_normals(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 3"]:
    """Unit normals of the vertices, weighted by the areas of the triangles around each; zeros where there are none."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    weighted = np.cross(b - a, c - a)
    normals = np.zeros((len(vertices), 3))
    for corner in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(faces[:, corner], weighted[:, axis], minlength=len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

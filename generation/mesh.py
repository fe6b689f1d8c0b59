"""A textured triangle mesh: what mesh exporters take, and what becomes of other people's meshes."""

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
        """The same triangles, in the same order, for trimesh; its texture coordinates start at the *bottom left*.

        Args:
            metres_per_unit: factor on positions.
        """
        import trimesh
        from PIL import Image
        from trimesh.visual import TextureVisuals
        from trimesh.visual.material import PBRMaterial

        material = PBRMaterial(
            name="head",
            baseColorTexture=Image.fromarray(self.texture_rgb),
            metallicFactor=0.0,
            roughnessFactor=1.0,
        )
        return trimesh.Trimesh(
            self.vertices_world * metres_per_unit,
            self.faces,
            vertex_normals=self.normals_world,
            visual=TextureVisuals(self.uv_unit * [1, -1] + [0, 1], material=material),
            process=False,
        )

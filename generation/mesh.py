"""A textured triangle mesh: what the prior gives to mesh exporters."""

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

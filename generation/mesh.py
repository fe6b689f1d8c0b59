"""Triangle meshes: the textured one that mesh exporters take and other people's become, and normals of any."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

    def turned(self, rotation: Float[np.ndarray, "3 3"]) -> TexturedMesh:
        """The same surface after a rotation about the origin."""
        vertices, normals = (v.astype(np.float64) @ rotation.T for v in (self.vertices_world, self.normals_world))
        return replace(
            self, vertices_world=vertices.astype(np.float32), normals_world=normals.astype(np.float32) + np.float32(0)
        )

    def scaled(self, factor: float) -> TexturedMesh:
        """The same surface with all lengths times a positive factor."""
        return replace(self, vertices_world=(self.vertices_world.astype(np.float64) * factor).astype(np.float32))

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


def face_areas(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, " f"]:
    """Areas of triangles."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)


def vertex_areas(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, " v"]:
    """A third of the area of each vertex' triangles."""
    return np.bincount(faces.ravel(), np.repeat(face_areas(vertices, faces) / 3, 3), len(vertices))


def smoothed_over_faces(
    values: Float[np.ndarray, "v c"], faces: Int[np.ndarray, "f 3"], rounds: int
) -> Float[np.ndarray, "v c"]:
    """Values of vertices, drawn half-way to the mean of their neighbours, again and again.

    Args:
        values: of each vertex; those of no triangle stay.
        faces: triangles.
        rounds: how often.
    """
    import scipy.sparse

    edges, n = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), len(values)
    near = scipy.sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n)).tocsr()
    near = near + near.T
    count = np.asarray(near.sum(1)).ravel()
    for _ in range(rounds):
        mean = (near @ values) / np.maximum(count, 1)[:, None]
        values = np.where((count > 0)[:, None], 0.5 * values + 0.5 * mean, values)
    return values

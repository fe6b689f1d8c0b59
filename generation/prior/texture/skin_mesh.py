"""The head's skin as one mesh without texture seams, for fills that run over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ...head_model import HeadModel
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from .atlas import AtlasMesh


@dataclass(frozen=True)
class SkinMesh:
    """Face, ears, cranium and neck."""

    vertices: Int[np.ndarray, " v"]
    """Their numbers in the head model."""
    points_world: Float[np.ndarray, "v 3"]
    """World units."""
    normals_world: Float[np.ndarray, "v 3"]
    """Unit normals."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles between them."""

    @staticmethod
    def of(model: HeadModel, mesh: AtlasMesh) -> SkinMesh:
        """The skin of a fitted mesh."""
        used = np.isin(model.part, (PART_FACE, PART_CRANIUM_NECK))
        split = np.nonzero((mesh.head_vertex >= 0) & used[np.maximum(mesh.head_vertex, 0)])[0]
        vertices, first = np.unique(mesh.head_vertex[split], return_index=True)
        index = np.full(len(model.neutral), -1)
        index[vertices] = np.arange(len(vertices))
        faces = index[model.faces]
        return SkinMesh(
            vertices,
            mesh.vertices_world[split[first]],
            mesh.normals_world[split[first]],
            faces[(faces >= 0).all(1)],
        )

    def for_mesh(self, values: Float[np.ndarray, "v c"], model: HeadModel, mesh: AtlasMesh) -> Float[np.ndarray, "w c"]:
        """Values per vertex of the atlas' mesh, 0 off the skin."""
        fields = np.zeros((len(model.neutral), values.shape[1]))
        fields[self.vertices] = values
        return np.where((mesh.head_vertex >= 0)[:, None], fields[np.maximum(mesh.head_vertex, 0)], 0.0)

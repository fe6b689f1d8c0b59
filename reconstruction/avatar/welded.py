"""A rig's surface without its texture seams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dp360.generation.mesh import vertex_normals

_SAME = 1e-6
"""Vertices nearer than this are one, world units."""


@dataclass(frozen=True)
class Welded:
    """A surface without seams, for what is smooth across them."""

    index: Int[np.ndarray, " v"]
    """Welded vertex of each one."""
    first: Int[np.ndarray, " w"]
    """One vertex of each welded one."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles of welded vertices."""

    @classmethod
    def of(
        cls, vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], head_vertex: Int[np.ndarray, " v"]
    ) -> Welded:
        """Weld vertices of the head model that were split by number, all others by place.

        Args:
            vertices: world units.
            faces: triangles.
            head_vertex: vertex of the head model each was split from, -1 for all else.
        """
        place = np.round(vertices.astype(np.float64) / _SAME).astype(np.int64)
        own = head_vertex >= 0
        place[own] = np.stack([head_vertex[own], *[np.full(int(own.sum()), -(10**9))] * 2], axis=1)
        _, first, index = np.unique(place, axis=0, return_index=True, return_inverse=True)
        index = index.reshape(-1)
        return cls(index, first, index[faces])

    def normals(self, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
        """Unit normals; +y where there is no surface."""
        normals = vertex_normals(vertices[self.first].astype(np.float64), self.faces)
        normals[np.linalg.norm(normals, axis=1) < 0.5] = (0.0, 1.0, 0.0)
        return normals[self.index]

"""Closed triangle surfaces: what they are like, how they are smoothed, and their normals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int32


@dataclass(frozen=True)
class MeshReport:
    """What kind of surface some triangles are."""

    faces: int
    """Number of triangles."""
    watertight: bool
    """Whether each edge lies between exactly two faces, which run along it in opposite directions."""
    components: int
    """Number of connected pieces."""
    genus: int | None
    """Handles of a watertight surface (0: a deformed sphere); None if it is not watertight."""
    volume: float
    """Signed volume, cubed units of the vertices; positive if faces look outwards."""


def mesh_report(vertices: Float64[np.ndarray, "v 3"], faces: Int32[np.ndarray, "f 3"]) -> MeshReport:
    """Look at welded triangles (before vertices are split along texture seams)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    keys = np.sort(directed[:, 0] * len(vertices) + directed[:, 1])
    reverse = np.sort(directed[:, 1] * len(vertices) + directed[:, 0])
    watertight = bool((keys == reverse).all() and (np.diff(keys) > 0).all())
    graph = coo_matrix((np.ones(len(directed), np.int8), directed.T), shape=(len(vertices),) * 2)
    used = np.unique(faces)
    components = len(np.unique(connected_components(graph, directed=False)[1][used]))
    characteristic = len(used) - len(directed) // 2 + len(faces)
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return MeshReport(
        faces=len(faces),
        watertight=watertight,
        components=components,
        genus=(2 * components - characteristic) // 2 if watertight else None,
        volume=float(np.einsum("fk,fk->", a, np.cross(b, c)) / 6),
    )


def vertex_normals(vertices: Float64[np.ndarray, "v 3"], faces: Int32[np.ndarray, "f 3"]) -> Float64[np.ndarray, "v 3"]:
    """Unit normals: those of the faces around a vertex, weighted by their angles there.

    Source: G. Thuermer and C. Wuethrich, "Computing Vertex Normals from Polygonal Facets", JGT 3(1), 1998.
    """
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    total = np.zeros_like(vertices)
    for k in range(3):
        to_next, to_last = corners[:, (k + 1) % 3] - corners[:, k], corners[:, (k + 2) % 3] - corners[:, k]
        lengths = np.linalg.norm(to_next, axis=1) * np.linalg.norm(to_last, axis=1)
        angle = np.arccos(np.clip((to_next * to_last).sum(axis=1) / np.maximum(lengths, 1e-30), -1, 1))
        for axis in range(3):
            total[:, axis] += np.bincount(faces[:, k], normal[:, axis] * angle, minlength=len(vertices))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])


def smooth_taubin(
    vertices: Float64[np.ndarray, "v 3"],
    faces: Int32[np.ndarray, "f 3"],
    *,
    steps: int,
    shrink: float = 0.5,
    grow: float = -0.53,
) -> Float64[np.ndarray, "v 3"]:
    """Vertices with the staircase of the grid taken out, and features wider than a few edges kept.

    Args:
        vertices: of a closed surface.
        faces: its triangles.
        steps: pairs of a shrinking and a growing step.
        shrink: share of the way to the neighbours' mean of the first step of a pair.
        grow: the same of the second step; a little more than the first, and negative.

    Source: G. Taubin, "A Signal Processing Approach to Fair Surface Design", SIGGRAPH 1995, Sec. 3.
    """
    start, members = neighbour_lists(faces, len(vertices))
    current = np.ascontiguousarray(vertices)
    for _ in range(steps):
        for factor in (shrink, grow):
            current = _laplacian_step(current, start, members, factor)
    return current


def neighbour_lists(faces: Int32[np.ndarray, "f 3"], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of vertex i of a closed surface: `members[start[i]:start[i + 1]]`."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    order = np.argsort(directed[:, 0], kind="stable")
    start = np.zeros(count + 1, np.int64)
    start[1:] = np.cumsum(np.bincount(directed[:, 0], minlength=count))
    return start, np.ascontiguousarray(directed[order, 1])


@numba.njit(cache=True, nogil=True)
@no_type_check
def _laplacian_step(vertices, start, members, factor):
    """Each vertex moved by `factor` of the way to the mean of its neighbours."""
    out = vertices.copy()
    for i in range(vertices.shape[0]):
        count = start[i + 1] - start[i]
        if count == 0:
            continue
        for axis in range(3):
            mean = 0.0
            for n in range(start[i], start[i + 1]):
                mean += vertices[members[n], axis]
            out[i, axis] += factor * (mean / count - vertices[i, axis])
    return out

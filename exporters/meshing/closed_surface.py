"""The surface of a solid as triangles: marching cubes, smoothing, and fewer triangles; it stays closed throughout."""

from __future__ import annotations

import numpy as np
import trimesh

from .fusion import DistanceField

_SHRINK, _GROW = 0.5, 0.53
"""Shares of the way to the neighbours' mean, there and back again: features wider than a few edges keep their size."""


def extract_surface(field: DistanceField) -> trimesh.Trimesh:
    """The largest piece of the surface, in world units, faces counter-clockwise seen from outside."""
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(field.values, 0.0, gradient_direction="descent", allow_degenerate=False)
    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    piece = trimesh.graph.connected_component_labels(ends, node_count=len(vertices))[faces[:, 0]]
    used, faces = np.unique(faces[piece == np.bincount(piece).argmax()], return_inverse=True)
    vertices = vertices[used].astype(np.float64) * field.voxel_size + field.origin_world
    return trimesh.Trimesh(vertices, faces.reshape(-1, 3), process=False)


def smooth_taubin(surface: trimesh.Trimesh, *, steps: int) -> None:
    """Take the staircase of the grid out of a closed surface, in place, in `steps` pairs of a step there and one back.

    Source: G. Taubin, "A Signal Processing Approach to Fair Surface Design", SIGGRAPH 1995, Sec. 3.
    """
    from scipy.sparse import diags
    from trimesh.smoothing import filter_taubin

    neighbours = surface.edges_sparse.astype(np.float64)
    to_mean = diags(1 / neighbours.sum(axis=1).A1) @ neighbours.tocsr()  # trimesh's own takes a minute in Python loops
    filter_taubin(surface, _SHRINK, _GROW, 2 * steps, to_mean)


def simplify(surface: trimesh.Trimesh, face_budget: int) -> trimesh.Trimesh:
    """The surface with at most `face_budget` triangles.

    open3d collapses edges in the order of quadric error (Garland and Heckbert, SIGGRAPH 1997) and keeps a closed
    surface closed and of its genus.
    """
    import open3d

    if len(surface.faces) <= face_budget:
        return surface
    triangles = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(surface.vertices), open3d.utility.Vector3iVector(surface.faces)
    ).simplify_quadric_decimation(face_budget)
    return trimesh.Trimesh(np.asarray(triangles.vertices), np.asarray(triangles.triangles), process=False)

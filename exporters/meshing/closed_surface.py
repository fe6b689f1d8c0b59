"""The surface of a solid as triangles: marching cubes, smoothing, and fewer triangles; it stays closed throughout."""

from __future__ import annotations

import numpy as np
import trimesh

from .fusion import DistanceField

_SHRINK, _GROW = 0.5, 0.53
"""Shares of the way to the neighbours' mean, there and back again: features wider than a few edges keep their size."""

_GROWTHS = (4.0, 5.0, 7.0, 9.0)
"""How fast the error that a collapsed edge may make grows from one round to the next: powers of the round's number."""


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
    """The surface with at most `face_budget` triangles; a closed surface stays closed and of its genus.

    Edges are collapsed in the order of quadric error. The faster the allowed error grows, the surer the budget is
    reached and the rougher the surface: the slowest growth that reaches it and keeps the surface closed is taken.

    Source: Garland and Heckbert, "Surface Simplification Using Quadric Error Metrics", SIGGRAPH 1997.
    """
    import fast_simplification

    if len(surface.faces) <= face_budget:
        return surface
    vertices, faces = np.asarray(surface.vertices, np.float64), np.asarray(surface.faces, np.int32)
    simpler = surface
    for growth in _GROWTHS:
        made = fast_simplification.simplify(vertices, faces, target_count=face_budget, agg=growth)
        simpler = trimesh.Trimesh(made[0], made[1], process=False)
        if len(simpler.faces) <= face_budget and (simpler.is_watertight or not surface.is_watertight):
            break
    return simpler

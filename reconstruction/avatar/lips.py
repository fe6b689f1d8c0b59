"""Lips: where they meet, and lips that close when there is no expression."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from dp360.generation.cameras import UNITS_PER_CM, look_at_origin
from dp360.generation.head_model import HeadModel, load_head_model
from dp360.generation.head_model.anatomy import Box, centimetres
from dp360.generation.head_model.model import PART_FACE, PART_GUMS, PART_MOUTH_SOCKET, PART_TEETH
from dp360.generation.mesh_raster import rasterize_mesh

from .eyes import PX_CM, SIZE_PX, front_camera, hidden_shell

_MOUTH = Box((0.0, -5.2, 8.0), (2.9, -1.9, np.inf))
"""Lips lie in here, on the mean head."""
_VIEWS_RAD = tuple((a, e) for a in (-0.4, 0.0, 0.4) for e in (-0.15, 0.1))
_REACH_CM = 0.4
"""Lips are moved to each other within about this distance of where they meet."""
_OF_LOWER_LIP_CM = 1.0
"""What `jawOpen` moves down by more is the lower lip's."""
_ROUNDS, _MOST_GAP_CM, _OVERLAP_CM = 4, 0.6, 0.02


def lip_distance_cm(model: HeadModel) -> Float[np.ndarray, " v"]:
    """Of each vertex of the face to where closed lips meet; negative behind that line, 9 elsewhere."""
    return _lip_distance_cm(model.sha256)


@functools.lru_cache(maxsize=1)
def _lip_distance_cm(model_sha256: str) -> Float[np.ndarray, " v"]:
    model = load_head_model()
    assert model.sha256 == model_sha256
    faces = model.faces_of(PART_FACE, PART_MOUTH_SOCKET)
    seen = np.zeros(len(model.neutral), bool)
    azimuths, elevations = [a for a, _ in _VIEWS_RAD], [e for _, e in _VIEWS_RAD]
    for camera in look_at_origin(azimuths, elevations, size_px=900, focal_normalised=9.0):
        triangle = rasterize_mesh(model.neutral.astype(np.float64), faces, camera).triangle_index
        seen[faces[np.unique(triangle[triangle >= 0])]] = True
    lips = (model.part == PART_FACE) & _MOUTH.holds(centimetres(model.neutral))
    inner, outer = np.flatnonzero(lips & ~seen), np.flatnonzero(lips & seen)
    result = np.full(len(model.neutral), 9.0)
    result[outer] = KDTree(model.neutral[inner]).query(model.neutral[outer])[0] / UNITS_PER_CM
    result[inner] = -KDTree(model.neutral[outer]).query(model.neutral[inner])[0] / UNITS_PER_CM
    return result


def with_closed_lips(model: HeadModel, head_vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    """Vertices of a head without expression whose lips meet.

    What is still seen of teeth and mouth from in front, column by column, is what both lips are moved together.
    """
    vertices = head_vertices.astype(np.float64).copy()
    near = np.exp(-((lip_distance_cm(model) / _REACH_CM) ** 2))
    lower = -model.expression_basis[model.expression_names.index("jawOpen")][:, 1] > _OF_LOWER_LIP_CM * UNITS_PER_CM
    way = np.where(lower, near, -near)
    faces = model.faces[~hidden_shell(model)[model.faces].any(1)]
    inside = np.isin(model.part[faces].max(1), (PART_MOUTH_SOCKET, PART_GUMS, PART_TEETH))
    centre = vertices[near > 0.5].mean(0)
    camera = front_camera(centre)
    x = centre[0] + (np.arange(SIZE_PX) + 0.5 - SIZE_PX / 2) * PX_CM * UNITS_PER_CM
    for _ in range(_ROUNDS):
        triangle = rasterize_mesh(vertices, faces, camera).triangle_index
        open_px = ((triangle >= 0) & inside[np.maximum(triangle, 0)]).sum(0)
        if not open_px.any():
            break
        gap_cm = np.minimum(open_px * PX_CM, _MOST_GAP_CM) + _OVERLAP_CM * (open_px > 0)
        gap_cm = np.convolve(gap_cm, np.ones(7) / 7, mode="same")
        vertices[:, 1] += 0.5 * UNITS_PER_CM * np.interp(vertices[:, 0], x, gap_cm) * way
    return vertices

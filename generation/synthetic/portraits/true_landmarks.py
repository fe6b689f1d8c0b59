"""Where the points of `head_model.sparse_points` lie on composed heads.

The face's points of shapes and busts are the medians of what mediapipe's face mesh saw on front views of sixteen bald
shapes and fourteen busts, the shapes' made symmetric; ears and skull are extreme points of the meshes, chosen as on the
parametric head. Toon characters have one head, measured by hand.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from ...head_model.anatomy import world_units
from ...head_model.sparse_points import POINT_NAMES
from ..bodies.compose_bust import load_bust
from ..bodies.parametric_body import base_body, shape_vertices
from ..composed_recipe import ComposedRecipe
from .stylise import exaggerated_points


def _both_sides(points: tuple[tuple[float, float, float], ...]) -> Float[np.ndarray, "69 3"]:
    """All points of the middle and of the head's right side, those of its left side mirrored between them."""
    given = dict(zip((name for name in POINT_NAMES if not name.endswith("_l")), points))
    mirrored = {f"{name[:-2]}_l": (-x, y, z) for name, (x, y, z) in given.items() if name.endswith("_r")}
    return np.array([(given | mirrored)[name] for name in POINT_NAMES])


_ON_AVERAGE_BODY_CM = _both_sides((
    (0.00, 7.66, 10.45), (-1.51, 7.72, 10.22), (-5.63, 6.65, 6.82), (-6.45, 4.75, 3.87), (-6.45, 2.07, 3.68),
    (-6.02, -0.51, 3.36), (-4.82, -3.04, 5.59), (-3.59, -4.75, 7.33), (-2.12, -5.99, 8.43), (0.00, -6.65, 9.13),
    (-5.15, 4.64, 7.93), (-3.67, 5.31, 9.31), (-1.30, 5.03, 10.25), (-4.08, 3.64, 8.98), (-3.58, 4.02, 9.36),
    (-2.64, 4.00, 8.11), (-1.69, 3.43, 9.22), (-2.51, 3.24, 9.33), (-3.38, 3.23, 9.20), (0.00, 3.96, 10.39),
    (0.00, 3.33, 10.45), (0.00, 2.14, 10.93), (0.00, 0.73, 11.84), (0.00, -0.76, 11.01), (-1.57, -0.23, 10.20),
    (-1.42, -0.51, 10.27), (-2.33, -2.60, 9.62), (-1.34, -1.81, 10.77), (0.00, -1.90, 11.26), (0.00, -3.70, 10.84),
    (-1.21, -3.40, 10.44), (0.00, -2.59, 10.67), (0.00, -2.65, 10.62), (-4.55, 0.47, 8.69), (-3.69, -0.34, 9.24),
    (-7.58, 4.20, 0.97), (-6.71, -0.64, 1.85), (-7.70, 2.47, -0.31), (0.00, 14.62, -0.58), (0.00, 3.45, -6.98),
    (-6.74, 5.98, -1.00),
))  # fmt: skip
"""On the average body, the centimetres of `head_model.anatomy`."""
_ON_BUST_UV = (
    (0.3258, 0.1294), (0.2879, 0.1282), (0.3631, 0.1282), (0.1915, 0.1665), (0.4596, 0.1665), (0.1536, 0.2281),
    (0.4974, 0.2281), (0.1678, 0.2918), (0.4833, 0.2918), (0.1709, 0.3448), (0.4801, 0.3448), (0.1971, 0.3939),
    (0.4603, 0.3976), (0.2208, 0.4281), (0.4303, 0.4281), (0.2584, 0.4393), (0.3927, 0.4393), (0.3255, 0.4564),
    (0.1983, 0.1902), (0.4449, 0.1929), (0.2437, 0.1660), (0.4154, 0.1682), (0.2933, 0.1704), (0.3558, 0.1780),
    (0.2393, 0.2176), (0.4117, 0.2176), (0.2491, 0.2132), (0.4020, 0.2132), (0.2684, 0.2098), (0.3827, 0.2098),
    (0.2850, 0.2142), (0.3660, 0.2142), (0.2674, 0.2188), (0.3836, 0.2188), (0.2523, 0.2186), (0.3998, 0.2205),
    (0.3258, 0.2042), (0.3258, 0.2249), (0.3258, 0.2466), (0.3255, 0.2835), (0.3255, 0.3079), (0.2777, 0.2894),
    (0.3734, 0.2894), (0.2825, 0.2974), (0.3704, 0.2989), (0.2667, 0.3582), (0.3854, 0.3575), (0.2872, 0.3419),
    (0.3678, 0.3365), (0.3255, 0.3402), (0.3255, 0.3866), (0.2908, 0.3780), (0.3602, 0.3780), (0.3255, 0.3521),
    (0.3255, 0.3521), (0.2396, 0.2801), (0.4115, 0.2801), (0.2535, 0.2925), (0.3976, 0.2925), (0.0425, 0.5118),
    (0.0422, 0.4037), (0.0686, 0.5990), (0.0686, 0.4908), (0.0291, 0.5316), (0.0291, 0.4234), (0.3255, 0.0154),
    (0.6376, 0.2835), (0.1209, 0.1893), (0.5302, 0.1893),
)  # fmt: skip
"""Texture coordinates of the busts' bodies, whose layout they share."""
_ON_TOON_CM = _both_sides((
    (0.0, 10.2, 9.6), (-3.0, 10.0, 9.3), (-6.5, 8.8, 8.0), (-9.0, 6.5, 5.0), (-9.6, 2.5, 3.5), (-9.3, -1.0, 3.0),
    (-8.5, -3.5, 4.0), (-6.0, -5.2, 7.5), (-3.0, -5.5, 9.0), (0.0, -5.5, 9.3), (-6.5, 6.4, 8.0), (-4.3, 6.4, 9.2),
    (-2.0, 6.4, 9.3), (-5.9, 3.6, 8.9), (-5.3, 4.9, 9.1), (-4.3, 4.9, 9.3), (-3.7, 3.6, 9.3), (-4.3, 2.3, 9.3),
    (-5.3, 2.3, 9.1), (0.0, 3.6, 9.5), (0.0, 2.8, 10.0), (0.0, 2.0, 10.6), (0.0, 1.2, 11.5), (0.0, -0.1, 10.2),
    (-1.6, 0.8, 10.5), (-1.2, 0.0, 10.3), (-2.3, -1.5, 9.5), (-1.0, -1.2, 9.8), (0.0, -1.2, 9.9), (0.0, -2.1, 9.7),
    (-1.0, -2.0, 9.7), (0.0, -1.5, 9.8), (0.0, -1.5, 9.8), (-5.0, 0.5, 9.3), (-4.0, -1.0, 9.4), (-10.8, 4.7, -0.4),
    (-10.5, -2.8, 0.3), (-11.2, 1.0, -1.2), (0.0, 16.5, 0.0), (0.0, 4.0, -11.5), (-10.5, 8.0, 0.0),
))  # fmt: skip
"""On the toon characters, centimetres."""


def true_landmarks(recipe: ComposedRecipe, data: Path) -> Float[np.ndarray, "69 3"]:
    """The points of a composed head, world units; nothing is rendered and no texture is read."""
    match recipe.base:
        case "shape":
            body = base_body(data)
            vertices = shape_vertices(body, recipe)
            scale, shift = body.transform(vertices)
            corners, weights = _on_body(data)
            points = (vertices[corners] * weights[..., None]).sum(1) * scale + shift
        case "bust":
            points = _on_bust(data, recipe.identity)
        case "toon":
            points = world_units(_ON_TOON_CM)
    return exaggerated_points(points, recipe.exaggeration) if recipe.exaggeration else points


@functools.lru_cache(maxsize=2)
def _on_body(data: Path) -> tuple[Int[np.ndarray, "69 3"], Float[np.ndarray, "69 3"]]:
    """Corners and weights of the points on the body's triangles."""
    import trimesh

    body = base_body(data)
    skin = trimesh.Trimesh(body.rest_cm, body.faces[body.is_outer], process=False)
    feet, _, nearest = trimesh.proximity.closest_point_naive(skin, _ON_AVERAGE_BODY_CM)
    return np.asarray(skin.faces)[nearest], trimesh.triangles.points_to_barycentric(skin.triangles[nearest], feet)


@functools.lru_cache(maxsize=64)
def _on_bust(data: Path, name: str) -> Float[np.ndarray, "69 3"]:
    body = load_bust(data, name, largest_side=16).part("skin")
    used = np.unique(body.faces)
    corner = np.zeros(len(body.vertices_world), np.int64)
    corner[body.faces] = body.faces_uv
    nearest = KDTree(body.uv_unit[corner[used]], leafsize=16).query(np.array(_ON_BUST_UV))[1]
    return body.vertices_world[used[nearest]].astype(np.float64)

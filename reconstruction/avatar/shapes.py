"""The 52 blend shapes of one head: displacements of its skin, eyes and mouth, and of what sits on the skin."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import KDTree

from dp360.generation.cameras import UNITS_PER_CM
from dp360.generation.head_model import HeadModel
from dp360.generation.head_model.anatomy import centimetres, ramp
from dp360.generation.head_model.model import PART_CRANIUM_NECK, PART_FACE

from .arkit import ARKIT_NAMES, index_of, model_matrix
from .eyes import SIDES, closing_blink, gaze_displacements

_TONGUE = (16612, 17039)
"""The tongue's vertices in the head model."""
_TONGUE_CM, _TONGUE_FLAT_Y_CM, _TONGUE_FLAT, _TONGUE_NARROW = 3.4, -2.95, 0.72, 0.2
"""How far `tongueOut` moves the tip forwards; the height that it flattens towards, to pass above the lower teeth, by
which share, and how much narrower it gets."""
_TONGUE_ROOT_Z_CM, _TONGUE_TIP_Z_CM = 3.6, 9.7
"""Depths of the tongue's ends on the mean head."""
_BROW_DOWN = (1.1, 2.0, 1.1)
"""The head model's lowered brows go 3 mm down, half as far as raised ones go up; factors on x, y and z."""
_CARRIED_CM = (0.4, 2.5)
"""What is nearer to the skin than the first distance moves with it, what is farther than the second stays."""
_NEIGHBOURS = 6
_LEAST = 0.01 * UNITS_PER_CM
"""Smaller displacements are the source's noise and none."""


def head_shapes(model: HeadModel, head_vertices: Float[np.ndarray, "v 3"]) -> Float32[np.ndarray, "52 v 3"]:
    """Displacements of the head model's vertices at full strength, in the order of `ARKIT_NAMES`.

    Args:
        model: the head model.
        head_vertices: vertices of the head with a neutral expression, world units.
    """
    basis = model.expression_basis.astype(np.float64)
    shapes = np.tensordot(model_matrix(model), basis, 1)
    for side, word in enumerate(SIDES):
        shapes[index_of(f"browDown{word}")] *= _BROW_DOWN
        shapes[index_of(f"eyeBlink{word}")] = closing_blink(model, head_vertices, side)
        for way, moved in gaze_displacements(model, head_vertices, side).items():
            shapes[index_of(f"eyeLook{way}{word}")] = moved
    shapes[index_of("tongueOut")] = _tongue_out(model)
    shapes[np.abs(shapes).max(2) < _LEAST] = 0.0
    return shapes.astype(np.float32)


def tongue(model: HeadModel) -> Float[np.ndarray, " v"]:
    """How near each vertex is to the tongue's tip: 0 elsewhere, a little at its root, 1 at its tip."""
    share = np.zeros(len(model.neutral))
    z = centimetres(model.neutral)[slice(*_TONGUE), 2]
    share[slice(*_TONGUE)] = 0.001 + 0.999 * ramp(z, _TONGUE_ROOT_Z_CM, _TONGUE_TIP_Z_CM)
    return share


def _tongue_out(model: HeadModel) -> Float[np.ndarray, "v 3"]:
    """The tongue, stretched forwards and flattened; the jaw has to be open for it to be seen."""
    share, at_cm = tongue(model), centimetres(model.neutral)
    flat = np.minimum(1.6 * share, 1.0)
    moved = np.stack(
        [
            -_TONGUE_NARROW * flat * at_cm[:, 0],
            _TONGUE_FLAT * flat * (_TONGUE_FLAT_Y_CM - at_cm[:, 1]) - 0.5 * share**3,
            _TONGUE_CM * share**1.3,
        ],
        axis=1,
    )
    return UNITS_PER_CM * moved


def mesh_shapes(
    model: HeadModel,
    shapes: Float32[np.ndarray, "52 h 3"],
    vertices_world: Float[np.ndarray, "v 3"],
    head_vertex: Int[np.ndarray, " v"],
    rigid: Bool[np.ndarray, " v"],
) -> Float32[np.ndarray, "52 v 3"]:
    """The same for a mesh that is made of the head's vertices and of hair, cloth and what is worn.

    Hair, brows, beards and collars that lie on the skin move as the nearest skin does, what stands off less.

    Args:
        shapes: of `head_shapes`.
        vertices_world: the mesh with a neutral expression.
        head_vertex: vertex of the head model that each one was split from, -1 for all else.
        rigid: vertices that no shape moves.
    """
    result = np.zeros((len(ARKIT_NAMES), len(vertices_world), 3), np.float32)
    own = head_vertex >= 0
    result[:, own] = shapes[:, head_vertex[own]]
    carried = np.flatnonzero(~own & ~rigid)
    skin = np.flatnonzero(own & np.isin(model.part[np.maximum(head_vertex, 0)], (PART_FACE, PART_CRANIUM_NECK)))
    if not len(carried) or not len(skin):
        return result
    distance, nearest = KDTree(vertices_world[skin]).query(vertices_world[carried], k=min(_NEIGHBOURS, len(skin)))
    distance, nearest = distance.reshape(len(carried), -1), nearest.reshape(len(carried), -1)
    weight = 1 / (distance + 0.1 * UNITS_PER_CM) ** 2
    weight *= (1 - ramp(distance[:, :1] / UNITS_PER_CM, *_CARRIED_CM)) / weight.sum(1, keepdims=True)
    near = weight.max(1) > 0
    moved = np.einsum("snkc,nk->snc", result[:, skin[nearest[near]]], weight[near].astype(np.float32))
    moved[np.abs(moved).max(2) < _LEAST] = 0.0
    result[:, carried[near]] = moved
    return result

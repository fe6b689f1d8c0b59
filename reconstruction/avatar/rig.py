"""The rig of a head: its mesh with a neutral expression, 52 blend shapes, a skeleton, and textures to go with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from scipy.optimize import lsq_linear

from dp360.generation import InputError
from dp360.generation.head_model import HeadModel, load_head_model
from dp360.generation.light.spherical_harmonics import Light
from dp360.generation.prior.saved_fit import SavedFit
from dp360.generation.prior.texture.atlas import (
    ATLAS_HEIGHT,
    ATLAS_WIDTH,
    MATERIAL_GLASSES,
    MATERIAL_HEADGEAR,
)

from .arkit import ARKIT_NAMES, index_of, model_matrix
from .eyes import MOST_TURN_RAD, SIDES, eyeballs_of, hidden_shell, of_eyeball, with_flatter_corneas
from .face_paint import portrait_gaze_rad, repainted
from .lips import with_closed_lips
from .poses import Pose
from .shapes import head_shapes, mesh_shapes
from .skeleton import skeleton_of, skin_weights
from .surface import Surface

_WORN = (MATERIAL_GLASSES, MATERIAL_HEADGEAR)


@dataclass(frozen=True)
class Rig(Surface):
    """A head that can be posed. Its vertices are split along texture seams."""

    portrait_vertices_world: Float32[np.ndarray, "v 3"]
    """The same vertices as the portrait shows them: what splats were fitted to."""
    uv_unit: Float32[np.ndarray, "v 2"]
    """Texture coordinates, origin at the top left."""
    material: UInt8[np.ndarray, " f"]
    """`MATERIAL_*` of each triangle."""
    head_vertex: Int[np.ndarray, " v"]
    """Vertex of the head model each vertex was split from, -1 for all else."""
    portrait_pose: Pose
    """The portrait's own expression and gaze, as far as the shapes can say it."""
    texture_rgb: UInt8[np.ndarray, "h w 3"]
    """Colour in the portrait's light, sRGB."""
    albedo_rgb: UInt8[np.ndarray, "h w 3"]
    """Colour without light, sRGB."""
    seen: UInt8[np.ndarray, "h w"]
    """How far the portrait shows each texel, 0 to 255."""
    light: Light | None
    """The portrait's light, where it could be told."""


def build_rig(fit: SavedFit, *, model: HeadModel | None = None) -> Rig:
    """The rig of a fitted head.

    Args:
        fit: what a run has kept.
        model: the head model of the fit; default is the one that ships.

    Raises:
        InputError: the fit was made with another head model.
    """
    model = model or load_head_model()
    if fit.head_model != model.weights_name:
        raise InputError(
            f"Cannot animate: the head was fitted with {fit.head_model}, and this dp360 has {model.weights_name}; make "
            "the head again"
        )
    used, faces, material = _kept(fit, model)
    head_vertex, own = fit.head_vertex[used], fit.head_vertex[used] >= 0
    portrait = fit.vertices_world[used].astype(np.float64)
    # the whole head model with what was done to it beyond its modes (ears, beard), with and without the expression
    whole = model.vertices(fit.identity, fit.expression)
    whole[head_vertex[own]] = portrait[own]
    expression = np.tensordot(fit.expression, model.expression_basis.astype(np.float64), 1)
    neutral_head = with_closed_lips(model, with_flatter_corneas(model, whole - expression))
    shapes_of_head = head_shapes(model, neutral_head)

    worn = np.zeros(len(used), bool)
    worn[faces[np.isin(material, _WORN)]] = True
    shift = _shift_of_neck(model, neutral_head)
    without = mesh_shapes(
        model, np.concatenate([-expression[None], np.zeros((len(ARKIT_NAMES) - 1, *expression.shape))]).astype(
            np.float32
        ), portrait, head_vertex, worn,
    )[0]  # fmt: skip
    neutral = portrait + without
    neutral[own] = neutral_head[head_vertex[own]]
    shapes = mesh_shapes(model, shapes_of_head, neutral, head_vertex, worn)

    eyes = eyeballs_of(model, neutral_head)
    joints = skeleton_of(shift, np.stack([eye.centre_world for eye in eyes]), float(neutral[:, 1].min()))
    weights = skin_weights(neutral - shift, of_eyeball(model, head_vertex), worn.astype(np.float64))
    gaze = portrait_gaze_rad(fit, model, neutral_head)
    pose = _portrait_pose(model, fit, shapes_of_head, expression, gaze)
    texture, albedo = repainted(fit, model, neutral_head, whole)
    uv = fit.uv_px[used] / np.array([ATLAS_WIDTH, ATLAS_HEIGHT])
    return Rig(
        neutral.astype(np.float32), faces, shapes, joints, weights, portrait.astype(np.float32),
        np.clip(uv, 0, 1).astype(np.float32), material, head_vertex, pose, texture, albedo, fit.confidence,
        fit.light,
    )  # fmt: skip


def _kept(fit: SavedFit, model: HeadModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices that are used, triangles in their numbers, and the triangles' materials; no inner eyeballs."""
    inner = np.concatenate([hidden_shell(model), [False]])[fit.head_vertex]
    kept = ~inner[fit.faces].any(1)
    used, faces = np.unique(fit.faces[kept], return_inverse=True)
    return used, faces.reshape(-1, 3), fit.material[kept]


def _shift_of_neck(model: HeadModel, head_vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, " 3"]:
    """How far a head's jaw and nape lie from the mean head's, on the whole."""
    skin = np.unique(model.skin_faces)
    low = skin[(model.neutral[skin, 1] < -0.12) & (model.neutral[skin, 1] > -0.20)]
    shift = (head_vertices[low] - model.neutral[low]).mean(0)
    return shift * np.array([0.0, 1.0, 1.0])


def _portrait_pose(
    model: HeadModel,
    fit: SavedFit,
    shapes: Float32[np.ndarray, "52 v 3"],
    expression: Float[np.ndarray, "v 3"],
    gaze_rad: Float[np.ndarray, "2 2"],
) -> Pose:
    """Weights in [0, 1] that come nearest to the portrait's expression, with its gaze."""
    weights = np.zeros(len(ARKIT_NAMES))
    chosen = np.flatnonzero(model_matrix(model).any(1))
    moves = np.abs(expression).max(1) > 0
    if moves.any():
        some = np.flatnonzero(moves)[::5]
        A = shapes[chosen][:, some].reshape(len(chosen), -1).astype(np.float64)
        gram = A @ A.T + 1e-9 * np.eye(len(chosen))  # a fifth of the vertices, as one small system
        factor = np.linalg.cholesky(gram)
        right = np.linalg.solve(factor, A @ expression[some].ravel())
        weights[chosen] = lsq_linear(factor.T, right, (0.0, 1.0), max_iter=40).x
    for (yaw, pitch), word, outwards in zip(gaze_rad, SIDES, (1.0, -1.0)):
        across = "Out" if yaw * outwards > 0 else "In"
        weights[index_of(f"eyeLook{across}{word}")] = min(abs(yaw) / MOST_TURN_RAD[across], 1.0)
        down = "Down" if pitch > 0 else "Up"
        weights[index_of(f"eyeLook{down}{word}")] = min(abs(pitch) / MOST_TURN_RAD[down], 1.0)
    weights[weights < 0.005] = 0.0
    return Pose(weights, np.zeros(3))

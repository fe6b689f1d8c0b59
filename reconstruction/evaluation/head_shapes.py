"""Profiles and skulls of fitted heads: what a portrait shows least, and where all heads tend to be alike.

Everything is measured on named points of the head without its expression, so that nothing depends on how large the fit
makes a head. The spread of the model's own heads, those of its scans, is what people have.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from dp360.generation.head_model import HeadModel
from dp360.generation.head_model.landmark_fit import LinearPoints
from dp360.generation.head_model.sparse_points import POINT_NAMES, point_weights

SHAPES: tuple[str, ...] = (
    "nose protrusion / face", "nasofrontal, degrees", "nasolabial, degrees", "convexity, degrees",
    "forehead slope, degrees", "chin behind nose / face", "face length / width", "skull length / breadth",
)  # fmt: skip
"""Names of the figures, in the order of tables."""
_RANDOM_HEADS = 400


def head_shape(model: HeadModel, identity: Float[np.ndarray, " i"]) -> dict[str, float]:
    """The `SHAPES` of one head.

    Args:
        identity: its coefficients, standard deviations.
    """
    return _shape(_points(model).at(_without_expression(model, identity)))


def model_shapes(model: HeadModel) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the `SHAPES` over 400 random heads of the model, always the same ones."""
    identities = np.random.default_rng(0).normal(size=(_RANDOM_HEADS, len(model.identity_basis)))
    points = _points(model)
    return shape_spread([_shape(points.at(_without_expression(model, identity))) for identity in identities])


def shape_spread(shapes: list[dict[str, float]] | list[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each of the `SHAPES` over at least two heads."""
    values = np.array([[shape[name] for name in SHAPES] for shape in shapes])
    return dict(zip(SHAPES, zip(values.mean(0).tolist(), values.std(0, ddof=1).tolist())))


def _points(model: HeadModel) -> LinearPoints:
    return LinearPoints.of(model, *point_weights(model), 1.0, 1.0)


def _without_expression(model: HeadModel, identity: Float[np.ndarray, " i"]) -> Float[np.ndarray, " m"]:
    return np.concatenate([identity, np.zeros(len(model.expression_basis))])


def _shape(points: Float[np.ndarray, "69 3"]) -> dict[str, float]:
    """The figures from the points; lengths over that of the face from the nose's root to the chin."""
    at = dict(zip(POINT_NAMES, points))
    root, tip, base, chin = at["nose_root"], at["nose_tip"], at["nose_base"], at["chin"]
    face = float(np.linalg.norm(root - chin))
    # upright is from the mouth to the eyes, which lie at nearly one depth in everybody
    eyes, mouth = (at["eye_outer_l"] + at["eye_outer_r"]) / 2, (at["mouth_l"] + at["mouth_r"]) / 2
    up = (eyes - mouth) / np.linalg.norm(eyes - mouth)
    front = np.cross(at["eye_outer_l"] - at["eye_outer_r"], up)
    front /= np.linalg.norm(front)
    brow = at["forehead"] - root
    figures = (
        float(np.linalg.norm(tip - base)) / face,
        _angle_deg(at["forehead"], root, tip),
        _angle_deg(tip, base, at["lip_top"]),
        _angle_deg(root, base, chin),
        float(np.degrees(np.arctan2(-brow @ front, brow @ up))),
        float((base - chin) @ front) / face,
        face / float(np.linalg.norm(at["cheekbone_side_l"] - at["cheekbone_side_r"])),
        float(np.linalg.norm(root - at["occiput"]) / np.linalg.norm(at["side_l"] - at["side_r"])),
    )
    return dict(zip(SHAPES, figures))


def _angle_deg(first: Float[np.ndarray, " 3"], corner: Float[np.ndarray, " 3"], last: Float[np.ndarray, " 3"]) -> float:
    """Angle at a corner, degrees."""
    a, b = first - corner, last - corner
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))

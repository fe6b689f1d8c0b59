"""Laws of the hair shell."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation.head_model import load_head_model
from dp360.generation.head_model.model import PART_CRANIUM_NECK, PART_FACE
from dp360.generation.prior import capsule
from dp360.generation.prior.hair.hair_shell import _HAIRLINE_RADIUS, _HAIRLINE_SLOPE, _soft_hairline


@pytest.fixture(scope="module")
def skull() -> np.ndarray:
    model = load_head_model()
    return capsule.opened_skull_radius(model.neutral, model.faces_of(PART_FACE, PART_CRANIUM_NECK))


def cap(skull: np.ndarray, thickness: float) -> np.ndarray:
    """Hair of one thickness with an edge all round, above the brows in front and above the nape behind."""
    y, z = np.moveaxis(capsule.surface_points(skull), -1, 0)[1:]
    return np.where(y > np.where(z > 0, 0.10, -0.05), thickness, -0.02)


def test_hair_rises_gently_from_the_forehead_and_keeps_its_edges_elsewhere(skull: np.ndarray) -> None:
    before = cap(skull, 0.04)
    after = _soft_hairline(before, skull)
    assert (after <= before).all()
    points = capsule.surface_points(skull)
    bare = (before < 0) & (points[..., 1] > 0.06) & (points[..., 2] > 0.05)
    hair = before > 0
    distance = np.linalg.norm(points[hair][:, None] - points[bare][None], axis=-1).min(1)
    bound = distance * (_HAIRLINE_SLOPE + distance / _HAIRLINE_RADIUS)
    assert (after[hair] <= np.minimum(0.04, bound) + 1e-9).all()
    assert after[hair][distance < 0.01].max() < 0.005
    behind = hair & (points[..., 2] < -0.05)
    np.testing.assert_array_equal(after[behind], before[behind])


def test_a_head_without_bare_forehead_keeps_its_hair(skull: np.ndarray) -> None:
    everywhere = np.full_like(skull, 0.03)
    np.testing.assert_array_equal(_soft_hairline(everywhere, skull), everywhere)

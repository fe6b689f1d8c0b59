"""The table of anatomy agrees with the mean head and with the package's one scale."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation.cameras import METRES_PER_UNIT, UNITS_PER_CM
from dp360.generation.head_model import anatomy, load_head_model
from dp360.generation.head_model.anatomy import centimetres, world_height, world_units


def test_centimetres_and_world_units_are_inverse() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(world_units(centimetres(points)), points, atol=1e-12)
    assert UNITS_PER_CM * METRES_PER_UNIT == pytest.approx(0.01)
    assert world_height(anatomy.CHIN_Y_CM) == world_units(np.array([0.0, anatomy.CHIN_Y_CM, 0.0]))[1]


def test_heights_are_those_of_the_mean_head() -> None:
    model = load_head_model()
    points = centimetres(model.neutral.astype(np.float64))
    chin = centimetres(model.landmarks(model.neutral.astype(np.float64)))[anatomy.CHIN_LANDMARK]
    assert abs(chin[0]) < 0.1 and anatomy.CHIN_Y_CM < chin[1] < anatomy.CHIN_Y_CM + 1 and chin[2] > anatomy.CHIN_Z_CM
    assert points[:, 1].max() - chin[1] == pytest.approx(anatomy.CROWN_TO_CHIN_CM, abs=1.0)
    order = (
        anatomy.NECK_BASE_Y_CM, anatomy.NECK_CUT_Y_CM, anatomy.NECK_TOP_Y_CM, anatomy.CHIN_Y_CM, anatomy.HAIR_END_Y_CM,
        anatomy.FOREHEAD_Y_CM, *anatomy.HAIRLINE_Y_CM,
    )  # fmt: skip
    assert sorted(order) == list(order)


def test_ear_boxes_lie_on_both_sides() -> None:
    ear = np.array([[7.5, 0.0, 0.0], [-7.5, 0.0, 0.0], [0.0, 0.0, 0.0], [7.5, 9.0, 0.0], [7.5, 0.0, 5.0]])
    assert anatomy.EAR.holds(ear).tolist() == [True, True, False, False, False]
    assert anatomy.EAR_HOLLOW.holds(ear).tolist() == [True, True, False, False, False]

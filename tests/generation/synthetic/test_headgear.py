"""Headgear on a ball of a head: what it does to a hair does not depend on the other hairs."""

import numpy as np
import pytest

from dp360.generation.synthetic.bodies.head_surface import head_surface
from dp360.generation.synthetic.worn.headgear import BANDS, HATS, HOODS, wear_headgear
from dp360.generation.synthetic.worn.solids import ball, plain_texture


@pytest.mark.parametrize("name", ["beanie", "headband", "hood"])
def test_each_point_is_covered_and_pressed_on_its_own(name: str) -> None:
    """Strided arctan2 differed in the last bit with the place of its result in memory."""
    head = ball("skin", np.array([0.0, 0.05, 0.0]), 0.16, plain_texture((0.8, 0.6, 0.5)), rows=30)
    vertices = head.vertices_world
    surface = head_surface(vertices, head.faces, vertices, np.zeros(len(vertices), bool), np.zeros((2, 3)))
    _, fit = wear_headgear(name, (0.2, 0.2, 0.2), surface, np.random.default_rng(1))
    points = np.random.default_rng(0).normal(0, 0.15, (30_000, 3))
    covered, pressure = fit.covers(points), fit.pressure(points)
    assert 0.02 < covered.mean() < 0.9 or name == "hood"
    for count in (100, 1000, 3000, 8000, 20_000):
        np.testing.assert_array_equal(fit.covers(points[:count].copy()), covered[:count])
        np.testing.assert_array_equal(fit.pressure(points[:count].copy()), pressure[:count])


def test_bands_leave_the_crown_free_and_hats_do_not() -> None:
    assert set(BANDS) == {"headband", "crown"} and not set(HATS) & set(HOODS)
    head = ball("skin", np.zeros(3), 0.16, plain_texture((0.8, 0.6, 0.5)), rows=30)
    vertices = head.vertices_world
    surface = head_surface(vertices, head.faces, vertices, np.zeros(len(vertices), bool), np.zeros((2, 3)))
    crown = np.array([[0.0, 0.19, 0.0]])
    for name in HATS:
        parts, fit = wear_headgear(name, (0.2, 0.2, 0.2), surface, np.random.default_rng(1))
        assert bool(fit.covers(crown)[0]) == (name not in BANDS), name
        assert all(np.isfinite(part.vertices_world).all() for part in parts)

"""Heads of hair wear no hats behind; hats that are seen stay."""

from dataclasses import replace

import numpy as np
import pytest

from dp360.generation.prior.field.head_field import HAIR, HEADGEAR, SKIN
from dp360.generation.prior.field.seen_cover import all_hair, with_seen_cover


@pytest.fixture
def hat_behind(random_field):
    material = np.zeros((4, 56, 64), np.float32)
    material[HAIR, :25], material[SKIN, 25:] = 1, 1
    material[HAIR, :20, 20:44], material[HEADGEAR, :20, 20:44] = 0.2, 0.8
    return replace(random_field, material=material)


def seen(random_observation, hair: int, worn: int):
    """A portrait that shows so many columns of hair and of headgear."""
    material = np.zeros((4, 56, 64), np.float32)
    material[HAIR, :10, :hair], material[HEADGEAR, :10, hair : hair + worn] = 1, 1
    return replace(random_observation, material=material, visibility=(material.sum(0) > 0).astype(np.float32))


def test_hair_that_is_seen_goes_on_behind(hat_behind, random_observation):
    after = with_seen_cover(hat_behind, seen(random_observation, 16, 0)).material
    assert not after[HEADGEAR].any() and np.allclose(after.sum(0), 1)
    np.testing.assert_array_equal(after[HAIR], hat_behind.material[[HAIR, HEADGEAR]].sum(0))


@pytest.mark.parametrize(("hair", "worn"), [(0, 16), (10, 6), (3, 0)])
def test_headgear_and_little_hair_leave_the_field_as_it_is(hat_behind, random_observation, hair, worn):
    assert with_seen_cover(hat_behind, seen(random_observation, hair, worn)) is hat_behind


def test_below_headgear_all_cover_is_hair(hat_behind):
    after = all_hair(hat_behind).material
    assert not after[HEADGEAR].any() and np.array_equal(after[[0, 3]], hat_behind.material[[0, 3]])
    np.testing.assert_array_equal(after[HAIR], hat_behind.material[[HAIR, HEADGEAR]].sum(0))

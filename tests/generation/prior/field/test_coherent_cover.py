"""What is not seen is read as one: no holes where the field hesitates, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from dp360.generation.prior.field.chart import cell_shares
from dp360.generation.prior.field.coherent_cover import likeliest_cover, with_coherent_cover
from dp360.generation.prior.field.head_field import CLOTH, HAIR, HEADGEAR, SKIN


def covered_field(random_field, share: np.ndarray):
    """A field of the share of hair given, the rest skin."""
    material = np.zeros((4, 56, 64), np.float32)
    material[HAIR], material[SKIN] = share, 1 - share
    return replace(random_field, material=material)


def test_sure_fields_stay_as_they_are(random_field):
    share = np.where(np.arange(56)[:, None] < 25, 1.0, 0.0) * np.ones((1, 64))
    field = covered_field(random_field, share)
    after = with_coherent_cover(field)
    assert np.allclose(after.material, field.material, atol=1e-6) and np.array_equal(after.thickness, field.thickness)


def test_patches_become_what_surrounds_them(random_field):
    share = np.where(np.arange(56)[:, None] < 25, 0.95, 0.05) * np.ones((1, 64))
    share[12:15, 20:24], share[40:42, 62:], share[40:42, :2] = 0.4, 0.6, 0.6  # a hole, and an island across the seam
    after = with_coherent_cover(covered_field(random_field, share))
    assert after.material[HAIR][12:15, 20:24].min() >= 0.5
    assert after.material[HAIR][40:42, 62:].max() <= 0.5 and after.material[HAIR][40:42, :2].max() <= 0.5
    assert np.allclose(after.material.sum(0), 1, atol=1e-5)
    elsewhere = np.ones((56, 64), bool)
    elsewhere[12:15, 20:24] = elsewhere[40:42, 62:] = elsewhere[40:42, :2] = False
    assert np.allclose(after.material[HAIR][elsewhere], share[elsewhere], atol=1e-6)


def test_what_hesitates_is_decided_as_a_whole(random_field):
    rng = np.random.default_rng(0)
    share = np.where(np.arange(56)[:, None] < 25, 0.95, 0.05) * np.ones((1, 64))
    share[5:18, 16:48] = 0.52 + 0.2 * rng.standard_normal((13, 32))
    share = np.clip(share, 0.05, 0.95)
    after = with_coherent_cover(covered_field(random_field, share)).material[HAIR]
    assert (share[6:17, 17:47] < 0.5).mean() > 0.3 and (after[6:17, 17:47] >= 0.5).all()
    bare = np.clip(share - 0.35, 0.05, 0.95)
    assert (with_coherent_cover(covered_field(random_field, bare)).material[HAIR][7:16, 18:46] <= 0.5).all()


def test_hats_stay_hats_and_cloth_cloth(random_field):
    material = np.zeros((4, 56, 64), np.float32)
    material[HEADGEAR, :20], material[CLOTH, 44:], material[SKIN, 20:44] = 1, 1, 1
    material[:, 10:12, 30:33] = np.array([0.6, 0, 0.4, 0], np.float32)[:, None, None]
    after = with_coherent_cover(replace(random_field, material=material)).material
    assert (after[HEADGEAR, 10:12, 30:33] >= 0.5).all() and after[HAIR].max() == 0
    assert np.array_equal(after[CLOTH], material[CLOTH])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_cut_costs_least(seed):
    """Against all sets that differ by one or two cells, and against the plain threshold."""
    rng = np.random.default_rng(seed)
    p = np.clip(0.5 + 0.3 * rng.standard_normal((56, 64)), 0.02, 0.98)
    size = cell_shares() / cell_shares().mean()

    def cost(covered: np.ndarray) -> float:
        own = np.where(covered, -np.log(p), -np.log(1 - p)) * size
        along = covered != np.roll(covered, -1, axis=1)
        down = (covered[:-1] != covered[1:]) * np.minimum(size[:-1], size[1:])
        return float(own.sum() + along.sum() + down.sum())

    best = likeliest_cover(p)
    least = cost(best)
    assert least < cost(p > 0.5)
    for _ in range(400):
        other = best.copy()
        row, column = rng.integers(0, 55), rng.integers(0, 64)
        other[row : row + rng.integers(1, 3), column] ^= True
        assert cost(other) >= least - 0.05  # whole thousandths of each cell

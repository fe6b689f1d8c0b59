"""Hair behind the ears goes on down to the nape; what the portrait shows, bald heads and necks stay as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dp360.generation.head_model.anatomy import centimetres
from dp360.generation.prior.field.chart import cell_frames
from dp360.generation.prior.field.grown_hair import with_grown_hair
from dp360.generation.prior.field.head_field import HAIR, SKIN, HeadField
from dp360.generation.prior.field.observed_field import ObservedField


def wreath(field: HeadField, low_cm: float, high_cm: float) -> tuple[HeadField, np.ndarray, np.ndarray]:
    """A field with hair between two heights alone; also heights and depths of its cells, cm."""
    frames = cell_frames()
    points = centimetres(frames.origins_world + frames.outward * field.skull_radius[..., None].astype(np.float64))
    y, z = points[..., 1], points[..., 2]
    material = np.zeros_like(field.material)
    material[HAIR] = (y > low_cm) & (y < high_cm)
    material[SKIN] = 1 - material[HAIR]
    return replace(field, material=material, thickness=np.full_like(field.thickness, 0.03)), y, z


def unseen(observation: ObservedField, seen: np.ndarray | float = 0.0) -> ObservedField:
    """The observation with another visibility."""
    return replace(observation, visibility=np.broadcast_to(np.float32(seen), (56, 64)).astype(np.float32))


def test_a_wreath_goes_on_to_the_nape_and_ends_there(random_field, random_observation) -> None:
    field, y, z = wreath(random_field, 4.0, 7.5)
    after = with_grown_hair(field, unseen(random_observation))
    nape = (y < 3.5) & (y > -3.5) & (z < -4)
    assert nape.sum() > 20 and after.material[HAIR][nape].min() > 0.6
    elsewhere = (y < -6.2) | (z > -1.4) | (y > 8)
    assert np.array_equal(after.material[:, elsewhere], field.material[:, elsewhere])
    assert np.allclose(after.material.sum(0), 1, atol=1e-5)
    low = nape & (y < -2.5)
    assert after.thickness[low].mean() <= field.thickness.max() and np.array_equal(
        after.thickness[elsewhere], field.thickness[elsewhere]
    )


@pytest.mark.parametrize("heights", [(9.0, 20.0), (50.0, 60.0)])
def test_a_tuft_on_the_crown_and_bald_heads_grow_nothing(random_field, random_observation, heights) -> None:
    field, _, _ = wreath(random_field, *heights)
    after = with_grown_hair(field, unseen(random_observation))
    assert np.array_equal(after.material, field.material) and np.array_equal(after.thickness, field.thickness)


def test_what_is_seen_bare_stays_bare(random_field, random_observation) -> None:
    field, _, _ = wreath(random_field, 4.0, 7.5)
    after = with_grown_hair(field, unseen(random_observation, 1.0))
    assert np.array_equal(after.material, field.material)


@pytest.mark.parametrize("columns, grows", [(64, True), (6, False)])
def test_hair_from_ear_to_ear_goes_on_behind_and_a_forelock_does_not(
    random_field, random_observation, columns: int, grows: bool
) -> None:
    field, y, z = wreath(random_field, 50.0, 60.0)  # nothing is expected
    seen = (y > 5) & (y < 9) & (z > 0)
    seen &= (np.arange(64) + columns // 2) % 64 < columns
    material = np.zeros((4, 56, 64), np.float32)
    material[HAIR], material[SKIN] = seen, ~seen
    observed = replace(random_observation, visibility=(z > 0).astype(np.float32), material=material)
    after = with_grown_hair(field, observed)
    behind = (y > -3) & (z < -4)
    assert (after.material[HAIR][behind].min() > 0.6) == grows and (after.material[HAIR][behind].max() > 0) == grows
    assert np.array_equal(after.material[:, z > 0], field.material[:, z > 0])

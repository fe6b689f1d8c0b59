"""Laws of head fields: what is refused, that packing loses nothing, that mirrors and poles are what they should be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dp360.generation.prior.field.chart import cell_frames
from dp360.generation.prior.field.head_field import (
    CHANNELS,
    HAIR,
    LENGTH_SCALE,
    THICKNESS_SCALE,
    HeadField,
    cells_from_world,
    world_from_cells,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: {"thickness": f.thickness - 1}, "lengths must be finite and at least 0"),
        (lambda f: {"strand_length": f.strand_length * np.float32(np.nan)}, "lengths must be finite"),
        (lambda f: {"disorder": f.disorder + 1}, r"must lie in \[0, 1\]"),
        (lambda f: {"material": f.material * np.float32(0.5)}, "must add up to 1"),
        (lambda f: {"flow": f.flow + 2}, "must not be longer than 1"),
        (lambda f: {"tokens": f.tokens + 1}, "known tokens"),
    ],
)
def test_broken_laws_are_named(random_field: HeadField, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(random_field, **change(random_field))


def test_any_channels_make_a_field_and_packing_is_undone(random_field: HeadField) -> None:
    packed = random_field.pack()
    assert packed.shape == (len(CHANNELS), 56, 64) == random_field.weights().shape
    again = HeadField.unpack(packed, random_field.skull_radius, random_field.tokens)
    for name, values in vars(random_field).items():
        np.testing.assert_allclose(getattr(again, name), values, atol=2e-5, err_msg=name)


def test_channels_lie_where_their_names_say(random_field: HeadField) -> None:
    packed = random_field.pack()
    np.testing.assert_allclose(packed[CHANNELS.index("hair")], 2 * random_field.material[HAIR] - 1, atol=1e-6)
    np.testing.assert_allclose(packed[CHANNELS.index("cloth_green")], 2 * random_field.cloth_albedo[1] - 1, atol=1e-6)
    np.testing.assert_array_equal(packed[CHANNELS.index("flow_around")], random_field.flow[1])


def test_scales_are_undone() -> None:
    lengths = np.linspace(0, 0.25, 50, dtype=np.float32)
    for scale in (THICKNESS_SCALE, LENGTH_SCALE):
        np.testing.assert_allclose(scale.decode(scale.encode(lengths)), lengths, atol=1e-6)
        assert scale.decode(np.array([-9.0, 9.0], np.float32)) == pytest.approx([0, scale.most], abs=1e-6)
    assert abs(THICKNESS_SCALE.encode(np.array([0.022], np.float32))[0]) < 0.2  # 13 mm, the median


def test_a_mirror_twice_is_nothing_and_once_turns_the_world(random_field: HeadField) -> None:
    once = random_field.mirrored()
    for name, values in vars(once.mirrored()).items():
        np.testing.assert_array_equal(values, getattr(random_field, name))
    assert not np.array_equal(once.flow, random_field.flow)
    mirror = np.array([-1, 1, 1], np.float32)
    columns = -np.arange(64) % 64
    np.testing.assert_allclose(once.flow_world()[:, columns], random_field.flow_world() * mirror, atol=1e-6)
    np.testing.assert_allclose(once.points_world()[:, columns], random_field.points_world() * mirror, atol=1e-6)


def test_one_direction_at_the_crown_is_another_pair_of_numbers_in_every_column() -> None:
    forward = np.zeros((56, 64, 3), np.float32)
    forward[..., 2] = 1
    cells = cells_from_world(forward)
    assert cells[0, 0, 0] > 0.99 and cells[0, 0, 32] < -0.99  # down the face, up the back of the head
    assert cells[1, 0, 16] < -0.99 and cells[1, 0, 48] > 0.99
    np.testing.assert_allclose(world_from_cells(cells), forward, atol=1e-6)


def test_the_outer_surface_is_the_cover_or_the_skull(random_field: HeadField) -> None:
    skin = np.zeros((4, 56, 64), np.float32)
    skin[0] = 1
    bald = replace(random_field, material=skin)
    assert not bald.presence.any() and (bald.outer_radius == bald.skull_radius).all()
    hairy = replace(random_field, material=np.roll(skin, 1, axis=0), thickness=np.full((56, 64), 0.05, np.float32))
    frames = cell_frames()
    np.testing.assert_allclose(
        ((hairy.points_world() - frames.origins_world) * frames.outward).sum(-1), 0.21, atol=1e-6
    )


def test_over_another_skull_the_surface_stays(random_field: HeadField) -> None:
    other = random_field.skull_radius + np.linspace(-0.02, 0.0, 64, dtype=np.float32)
    moved = random_field.over(other)
    np.testing.assert_allclose(moved.thickness + other, random_field.thickness + random_field.skull_radius, atol=1e-6)
    assert (random_field.over(random_field.skull_radius + 1).thickness == 0).all()


def test_filled_values_weigh_little(random_field: HeadField) -> None:
    material = np.zeros((4, 56, 64), np.float32)
    material[HAIR, :, :32] = material[0, :, 32:] = 1
    known = np.zeros((56, 64), np.float32)
    known[:, :16] = 1
    weights = replace(random_field, material=material, flow_certainty=known).weights()
    thickness, flow = weights[CHANNELS.index("thickness")], weights[CHANNELS.index("flow_down")]
    assert (thickness[:, :32] == 1).all() and (thickness[:, 32:] < 0.2).all()
    assert (flow[:, :16] == 1).all() and (flow[:, 16:32] == 0).all() and (flow[:, 32:] < 0.1).all()

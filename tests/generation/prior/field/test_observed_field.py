"""Laws of observed fields."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dp360.generation.prior.field.observed_field import OBSERVED_CHANNELS, ObservedField


def test_what_is_not_seen_packs_to_nothing(random_observation: ObservedField) -> None:
    nothing = np.zeros((56, 64), np.float32)
    blind = replace(
        random_observation, visibility=nothing, orientation_certainty=nothing, thickness_certainty=nothing,
        in_frame=nothing,
    )  # fmt: skip
    packed = blind.pack()
    assert packed.shape == (len(OBSERVED_CHANNELS), 56, 64)
    assert not packed[:-1].any() and packed[-1].any()  # the skull is always known


def test_globals_tell_unknown_from_zero(random_observation: ObservedField) -> None:
    values = random_observation.pack_globals()
    np.testing.assert_allclose(values, [-0.8, 0, -0.4, 0, 1, 0, 1, 0, 0.6, 0, 0.8], atol=1e-6)


def test_a_mirror_twice_is_nothing(random_observation: ObservedField) -> None:
    once = random_observation.mirrored()
    assert once.towards_camera[0] == -random_observation.towards_camera[0]
    np.testing.assert_array_equal(once.orientation[1, :, 1], -random_observation.orientation[1, :, 63])
    for name, values in vars(once.mirrored()).items():
        np.testing.assert_array_equal(values, getattr(random_observation, name))


@pytest.mark.parametrize(
    ("field", "message"), [("visibility", r"must lie in \[0, 1\]"), ("thickness", "must be finite and at least 0")]
)
def test_broken_laws_are_named(random_observation: ObservedField, field: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(random_observation, **{field: getattr(random_observation, field) - 2})

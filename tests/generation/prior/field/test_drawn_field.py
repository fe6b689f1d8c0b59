"""Fields by seed: other ones where the portrait shows nothing, the same ones where it does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.generation import InputError
from dp360.generation.prior.field.drawn_field import draw_field, fields_can_be_drawn
from dp360.generation.prior.field.field_autoencoder import FIELD_AUTOENCODER
from dp360.generation.prior.field.field_denoiser import FIELD_DENOISER
from dp360.generation.prior.field.field_grain import FIELD_GRAIN
from dp360.generation.prior.field.field_pipeline import FieldPipeline
from dp360.generation.prior.field.grown_hair import with_grown_hair
from dp360.generation.prior.field.head_field import HAIR, SKIN
from dp360.generation.prior.field.mean_network import FIELD_MEAN
from dp360.generation.prior.field.observed_field import ObservedField

FRONT, BACK = (..., slice(0, 12)), (..., slice(24, 44))


@pytest.fixture
def half_seen(random_observation: ObservedField) -> ObservedField:
    """Columns in front are seen for certain, the others not at all."""
    seen = np.zeros((56, 64), np.float32)
    seen[FRONT] = 1
    return replace(
        random_observation,
        visibility=seen,
        material=(random_observation.material / random_observation.material.sum(0)).astype(np.float32) * seen,
        orientation_certainty=random_observation.orientation_certainty * seen,
        thickness_certainty=seen,
    )


def test_other_seeds_differ_where_nothing_is_seen_and_agree_where_it_is(
    fields_are_drawn: Path, half_seen: ObservedField
) -> None:
    one, again, other = (draw_field(half_seen, seed=seed) for seed in (0, 0, 1))
    assert one.pack().tobytes() == again.pack().tobytes()
    for field in (one, other):
        np.testing.assert_allclose(field.material[FRONT], half_seen.material[FRONT], atol=1e-4)
        np.testing.assert_allclose(field.thickness[FRONT], half_seen.thickness[FRONT], atol=1e-5)
    for name in ("material", "thickness", "flow", "cover_albedo"):
        a, b = getattr(one, name), getattr(other, name)
        assert np.abs(a - b)[BACK].mean() > 1e-3, name


def test_a_field_is_one_sample_of_the_pipeline(fields_are_drawn: Path, half_seen: ObservedField) -> None:
    parts = (file.load() for file in (FIELD_MEAN, FIELD_AUTOENCODER, FIELD_DENOISER, FIELD_GRAIN))
    pipeline = FieldPipeline.of(*(part.network for part in parts))  # type: ignore[arg-type]
    (expected,) = pipeline(half_seen, generator=torch.Generator().manual_seed(5))
    assert draw_field(half_seen, seed=5).pack().tobytes() == expected.pack().tobytes()


def test_hair_from_ear_to_ear_goes_on_behind(fields_are_drawn: Path, half_seen: ObservedField) -> None:
    visibility = np.zeros((56, 64), np.float32)
    visibility[:, :16], visibility[:, -16:] = 1, 1
    material = np.zeros_like(half_seen.material)
    material[HAIR] = visibility
    seen = replace(half_seen, visibility=visibility, material=material)
    drawn = draw_field(seen, seed=0)
    behind = (slice(12, 24), slice(28, 36))
    covered = (drawn.material[HAIR] + drawn.material[SKIN])[behind]
    assert (drawn.material[HAIR][behind] > np.minimum(0.8, 0.99 * covered)).all()
    np.testing.assert_allclose(with_grown_hair(drawn, seen).material, drawn.material, atol=1e-5)


def test_an_installation_without_the_networks_says_what_to_do(
    no_fields_are_drawn: None, half_seen: ObservedField
) -> None:
    assert not fields_can_be_drawn()
    with pytest.raises(InputError, match=r"weights/field_autoencoder\.safetensors is missing.*install dp360 again"):
        draw_field(half_seen, seed=0)


def test_an_installation_with_the_networks(fields_are_drawn: Path) -> None:
    assert fields_can_be_drawn()

"""What is not seen has the colour of what is seen of its material; the field's colours stand in where nothing is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dp360.generation.cielab import median_in_lab
from dp360.generation.head_model import load_head_model
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior, capsule
from dp360.generation.prior.field.head_field import HAIR, HEADGEAR, HeadField
from dp360.generation.prior.field.portrait_observation import field_of_portrait
from dp360.generation.prior.labels import portrait_labels
from dp360.generation.prior.labels.skin_tone import SkinTone
from dp360.generation.prior.texture.atlas import MATERIAL_HAIR, MATERIAL_SKIN, AtlasTexels, atlas_texels
from dp360.generation.prior.texture.expected_colours import ExpectedColours
from dp360.generation.prior.texture.looked_up import LookedUp, Typical, hair_between_skin
from dp360.generation.prior.texture.portrait_lookup import SeenPoints

RED, BLUE, PALE = (np.array(c, np.float32) for c in ([0.5, 0.1, 0.05], [0.1, 0.2, 0.6], [0.8, 0.65, 0.55]))
BRIM_ROW = 14


@pytest.fixture(scope="module")
def texels(prior: HeadPrior) -> AtlasTexels:
    return atlas_texels(prior.mesh)


@pytest.fixture(scope="module")
def hatted(portrait: Portrait, prior: HeadPrior) -> HeadField:
    """The portrait's field with a hat above a row."""
    field, _ = field_of_portrait(portrait, prior.portrait_labels, load_head_model())
    material = field.material.copy()
    both = material[HAIR] + material[HEADGEAR]
    hat = np.arange(56)[:, None] < BRIM_ROW
    material[HEADGEAR], material[HAIR] = both * hat, both * ~hat
    return dataclasses.replace(field, material=material)


def looked_up(texels: AtlasTexels, *, hat_is_seen: bool = True) -> LookedUp:
    """Red hair, a blue hat and pale skin, seen where they face the front."""
    hair, skin = texels.material == MATERIAL_HAIR, texels.material == MATERIAL_SKIN
    seen = (texels.normals_world[:, 2] > 0.2).astype(np.float32)
    high = capsule.cell_coordinates(texels.points_world)[0] < 2 * BRIM_ROW + 0.5
    colour = np.where((hair & high)[:, None], BLUE, np.where(hair[:, None], RED, PALE)).astype(np.float32)
    classes = np.zeros((len(seen), 3), np.float32)
    classes[hair, portrait_labels.HAIR] = 1
    classes[skin, portrait_labels.SKIN] = 1
    if not hat_is_seen:
        seen = np.where(hair & high, np.float32(0), seen)
    points = SeenPoints(colour, seen, classes)
    tone = SkinTone.of(np.tile(PALE.astype(np.float64), (100, 1)), PALE)
    typical = Typical(RED.astype(float), PALE.astype(float), has_hair=True)
    return LookedUp(points, points.__getitem__, tone, typical)


def test_hair_below_a_hat_has_the_hairs_colour_and_the_hat_its_own(texels: AtlasTexels, hatted: HeadField) -> None:
    found = ExpectedColours.of(hatted, texels, looked_up(texels))
    behind = slice(28, 37)
    np.testing.assert_allclose(found.cover[BRIM_ROW + 6, behind], np.tile(RED, (9, 1)), atol=0.02)
    np.testing.assert_allclose(found.cover[4, behind], np.tile(BLUE, (9, 1)), atol=0.02)


def test_skin_behind_is_that_of_the_face(texels: AtlasTexels, hatted: HeadField) -> None:
    found = ExpectedColours.of(hatted, texels, looked_up(texels))
    neck = found.skin[30:38, 28:37].reshape(-1, 3)
    assert np.abs(neck / PALE - 1).max() < 0.35
    assert np.abs(neck / neck.mean(1, keepdims=True) / (PALE / PALE.mean()) - 1).max() < 0.12


def test_the_field_says_the_colour_of_what_is_not_seen(texels: AtlasTexels, hatted: HeadField) -> None:
    found = ExpectedColours.of(hatted, texels, looked_up(texels, hat_is_seen=False))
    np.testing.assert_allclose(found.cover[4], np.moveaxis(hatted.cover_albedo, 0, -1)[4], atol=1e-5)


def test_thin_white_hair_is_white_and_brown_hair_what_it_is() -> None:
    rng = np.random.default_rng(0)
    skin, white = np.array([0.78, 0.49, 0.44]), np.array([0.78, 0.76, 0.74])
    share = np.clip(rng.normal(0.15, 0.25, (4000, 1)), 0, 1)  # of hair in front of the skin
    shade = rng.uniform(0.6, 1, (4000, 1))
    thin = (shade * (share * white + (1 - share) * skin)).astype(np.float32)
    found = hair_between_skin(thin, skin, True)
    assert np.ptp(found / found.mean()) < 0.7 * np.ptp(skin / skin.mean())
    dark = (np.array([0.3, 0.2, 0.12]) * shade).astype(np.float32)
    np.testing.assert_array_equal(hair_between_skin(dark, skin, True), median_in_lab(dark))
    np.testing.assert_array_equal(hair_between_skin(thin, skin, False), median_in_lab(thin))


def test_skin_among_dark_hair_does_not_count_and_blond_hair_like_skin_does() -> None:
    rng = np.random.default_rng(0)
    skin, black = np.array([0.61, 0.36, 0.25]), np.array([0.15, 0.11, 0.11])
    shade = rng.uniform(0.9, 1, (1000, 1))
    mixed = np.concatenate([shade * skin, shade[:900] * black]).astype(np.float32)
    dark = median_in_lab(shade[:900] * black)
    np.testing.assert_allclose(hair_between_skin(mixed, skin, False), dark, atol=1e-6)
    blond = np.concatenate([shade * skin, 1.3 * shade[:900] * skin * [1, 1.2, 1.3]]).astype(np.float32)
    np.testing.assert_array_equal(hair_between_skin(blond, skin, False), median_in_lab(blond))

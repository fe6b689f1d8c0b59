"""Skin among hair: shaded ears and glaring temples, if colours say so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dp360.generation.cameras import look_at_origin
from dp360.generation.head_model import HeadModel, load_head_model
from dp360.generation.head_model.anatomy import EAR as EAR_BOX
from dp360.generation.head_model.anatomy import centimetres
from dp360.generation.mesh_raster import interpolate, rasterize_mesh
from dp360.generation.portrait import Portrait
from dp360.generation.prior.labels.segmenter import CLASS_NAMES, EAR, FACE, HAIR
from dp360.generation.prior.labels.skin_in_hair import with_bright_skin, with_shaded_skin

SKIN_RGB, WHITE, BROWN = (0.75, 0.5, 0.36), (0.85, 0.85, 0.86), (0.3, 0.19, 0.13)


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head_model()


def scene(
    portrait: Portrait, model: HeadModel, hair_rgb: tuple[float, float, float], hidden: tuple[int, ...]
) -> tuple[Portrait, np.ndarray, np.ndarray]:
    """A head from the front with hair above and ears labelled hair on some sides; also which pixels are those ears."""
    camera = look_at_origin([0.0], [0.0], size_px=portrait.size_px)
    fragments = rasterize_mesh(portrait.head.vertices_world, model.skin_faces, camera)
    cm = centimetres(model.neutral)
    values = np.concatenate([cm, EAR_BOX.holds(cm)[:, None]], axis=1).astype(np.float32)
    x, y, _, ear = np.moveaxis(interpolate(fragments, values, model.skin_faces), -1, 0)
    is_ear = fragments.hit & (ear > 0.5) & (y < 4.4)
    shaded = is_ear & np.isin(np.sign(x), hidden)
    labels = np.select([shaded, is_ear, fragments.hit & (y > 5)], [HAIR, EAR, HAIR], FACE)
    colours = np.where((labels == HAIR)[..., None], hair_rgb, SKIN_RGB)
    colours[shaded] = 0.25 * np.array(SKIN_RGB)
    person = fragments.hit.astype(np.float32)
    picture = replace(
        portrait, foreground_unit=colours.astype(np.float32), alpha_unit=person,
        head=replace(portrait.head, camera=camera),
    )  # fmt: skip
    return picture, np.eye(len(CLASS_NAMES), dtype=np.float32)[labels], shaded


@pytest.mark.parametrize("side", [-1, 1])
def test_a_dark_ear_of_skins_colour_is_an_ear(portrait: Portrait, model: HeadModel, side: int) -> None:
    picture, classes, shaded = scene(portrait, model, WHITE, (side,))
    after = with_shaded_skin(classes, picture, model)
    assert shaded.sum() > 100 and (after.argmax(-1)[shaded] == EAR).mean() > 0.9
    np.testing.assert_array_equal(after[~shaded].argmax(-1), classes[~shaded].argmax(-1))
    np.testing.assert_allclose(after.sum(-1), 1, atol=1e-6)


def test_colours_that_are_alike_and_hair_over_both_ears_tell_nothing(portrait: Portrait, model: HeadModel) -> None:
    for hair_rgb, hidden in ((BROWN, (1,)), (WHITE, (-1, 1)), (WHITE, ())):
        picture, classes, _ = scene(portrait, model, hair_rgb, hidden)
        np.testing.assert_array_equal(with_shaded_skin(classes, picture, model), classes)


def test_white_hair_over_an_ear_stays_hair(portrait: Portrait, model: HeadModel) -> None:
    picture, classes, shaded = scene(portrait, model, WHITE, (1,))
    colours = picture.foreground_unit.copy()
    colours[shaded] = 0.4 * np.array(WHITE)
    after = with_shaded_skin(classes, replace(picture, foreground_unit=colours), model)
    assert (after.argmax(-1)[shaded] == HAIR).mean() > 0.8


def hair_over_skin(
    portrait: Portrait, hair_rgb: tuple[float, ...], skin_rgb: tuple[float, ...]
) -> tuple[Portrait, np.ndarray, np.ndarray]:
    """A picture whose upper half is hair but for a patch in the skin's colour, its classes, and where the patch is."""
    size = portrait.size_px
    labels, patch = np.full((size, size), FACE), np.zeros((size, size), bool)
    labels[: size // 2] = HAIR
    patch[size // 2 - 40 : size // 2, size // 3 : size // 2] = True
    colours = np.where((labels == HAIR)[..., None] & ~patch[..., None], hair_rgb, skin_rgb).astype(np.float32)
    picture = replace(portrait, foreground_unit=colours, alpha_unit=np.ones((size, size), np.float32))
    return picture, np.eye(len(CLASS_NAMES), dtype=np.float32)[labels], patch


def test_glare_beside_dark_hair_is_skin_and_light_hair_stays(portrait: Portrait) -> None:
    for hair_rgb, skin in (((0.1, 0.09, 0.08), True), ((0.7, 0.7, 0.68), False)):
        picture, classes, glare = hair_over_skin(portrait, hair_rgb, (0.95, 0.9, 0.88))
        after = with_bright_skin(classes, picture).argmax(-1)
        assert (after[glare] == (FACE if skin else HAIR)).mean() > 0.8
        assert (after != classes.argmax(-1))[~glare].sum() < 0.02 * glare.sum()


def test_grey_temples_beside_skin_as_light_stay_hair(portrait: Portrait) -> None:
    picture, classes, _ = hair_over_skin(portrait, (0.1, 0.09, 0.08), (0.72, 0.66, 0.6))
    np.testing.assert_array_equal(with_bright_skin(classes, picture), classes)

"""Headgear and hair that look alike are one thing; those that do not stay two."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation.prior.labels.portrait_labels import one_reading

SIZE = 64


BROWN, BLACK, PURPLE = (0.3, 0.2, 0.12), (0.07, 0.06, 0.06), (0.4, 0.2, 0.45)


def worn_head(
    patch_rgb: tuple[float, float, float], patch: float, rest: float, rgb: tuple[float, float, float] = BROWN
) -> tuple[np.ndarray, ...]:
    """Hair, or what looks like it, with a patch on top; probabilities of headgear of the patch and of the rest."""
    worn = np.zeros((SIZE, SIZE), bool)
    worn[10:40, 10:50] = True
    top = np.zeros_like(worn)
    top[10:20, 10:50] = True
    picture = np.full((SIZE, SIZE, 3), rgb) + np.random.default_rng(0).normal(0, 0.02, (SIZE, SIZE, 1))
    picture[top] += np.array(patch_rgb) - rgb
    share = np.where(top, patch, rest).astype(np.float32)
    return share, worn, picture.clip(0, 1).astype(np.float32), top


@pytest.mark.parametrize(("patch", "rest", "expected"), [(0.8, 0.1, 0.0), (0.95, 0.2, 0.0), (0.95, 0.45, 1.0)])
def test_a_patch_of_the_hairs_own_colour_is_no_hat(patch: float, rest: float, expected: float) -> None:
    share, worn, rgb, _ = worn_head((0.3, 0.2, 0.12), patch, rest)
    read = one_reading(share, worn, rgb)
    assert (read[worn] == expected).all()
    np.testing.assert_array_equal(read[~worn], share[~worn])


@pytest.mark.parametrize(("colour", "expected"), [(PURPLE, 1.0), (BLACK, 0.0), (BROWN, 0.0)])
def test_less_is_needed_of_colours_that_hair_does_not_have(colour: tuple[float, float, float], expected: float) -> None:
    share, worn, rgb, _ = worn_head(colour, 0.95, 0.2, colour)
    assert (one_reading(share, worn, rgb)[worn] == expected).all()


def test_what_is_only_about_alike_needs_more_than_half() -> None:
    share, worn, rgb, top = worn_head(PURPLE, 0.95, 0.2, PURPLE)
    rgb[top] += np.float32(0.5) * (np.arange(SIZE)[None] % 4 < 1)[..., None].repeat(SIZE, 0)[top]
    rgb[top] += np.float32(0.11)
    assert (one_reading(share, worn, rgb)[worn] == 0).all()


@pytest.mark.parametrize("rgb", [(0.1, 0.15, 0.5), (0.8, 0.75, 0.7)])
def test_a_band_of_another_colour_stays(rgb: tuple[float, float, float]) -> None:
    share, worn, picture, _ = worn_head(rgb, 0.9, 0.1)
    np.testing.assert_array_equal(one_reading(share, worn, picture), share)


@pytest.mark.parametrize(("rgb", "is_hair"), [((0.12, 0.12, 0.12), True), ((0.1, 0.15, 0.5), False)])
def test_dark_hair_above_grey_temples_is_no_cap(rgb: tuple[float, float, float], is_hair: bool) -> None:
    share, worn, picture, top = worn_head(rgb, 0.82, 0.2, (0.5, 0.5, 0.5))
    expected = np.where(worn, np.float32(0), share) if is_hair else share
    np.testing.assert_array_equal(one_reading(share, worn, picture), expected)
    share[top] = 0.95
    np.testing.assert_array_equal(one_reading(share, worn, picture), share)


def test_specks_change_nothing() -> None:
    share, worn, rgb, top = worn_head((0.3, 0.2, 0.12), 0.1, 0.1)
    share[12, 12] = 0.9
    np.testing.assert_array_equal(one_reading(share, worn & ~top | worn, rgb), share)

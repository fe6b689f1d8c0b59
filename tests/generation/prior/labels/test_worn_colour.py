"""Colours that no hair has: what is worn in them is cloth."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation.prior.labels.worn_colour import cloth_among

HAIR = ((0.06, 0.05, 0.05), (0.3, 0.2, 0.12), (0.75, 0.6, 0.4), (0.7, 0.7, 0.7), (0.92, 0.92, 0.95), (0.55, 0.22, 0.08))
CLOTH = ((0.3, 0.4, 0.7), (0.7, 0.1, 0.12), (0.25, 0.3, 0.55))


def worn_in(*rgb: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Stripes of colours, from top to bottom, over the middle of a picture."""
    picture, worn = np.full((64, 64, 3), 0.5, np.float32), np.zeros((64, 64), bool)
    worn[8:56, 8:56] = True
    for band, colour in zip(np.array_split(np.arange(64), len(rgb)), rgb):
        picture[band] = colour
    return picture, worn


@pytest.mark.parametrize("rgb", HAIR)
def test_hair_in_all_its_colours_is_no_cloth(rgb: tuple[float, float, float]) -> None:
    picture, worn = worn_in(rgb)
    assert cloth_among(picture, worn).max() < 0.1


@pytest.mark.parametrize("rgb", CLOTH)
def test_blue_and_red_are_cloth_and_only_what_is_worn_counts(rgb: tuple[float, float, float]) -> None:
    picture, worn = worn_in(rgb)
    cloth = cloth_among(picture, worn)
    assert cloth[worn].min() > 0.9 and not cloth[~worn].any()


def test_a_turban_of_two_colours_is_all_cloth_and_hair_below_a_band_is_hair() -> None:
    blue, blond = (0.3, 0.4, 0.7), (0.8, 0.65, 0.4)
    picture, worn = worn_in(blue, blond)
    assert (cloth_among(picture, worn)[worn] == 1).all()
    picture, worn = worn_in(blue, blond, blond, blond, blond)
    cloth = cloth_among(picture, worn)
    assert cloth[10, 32] > 0.9 and cloth[40, 32] < 0.1


def test_a_stroke_of_blue_makes_no_hat() -> None:
    blue, brown = (0.3, 0.4, 0.7), (0.35, 0.22, 0.12)
    picture, worn = worn_in(brown)
    picture[20:24, 20:28] = blue
    assert not cloth_among(picture, worn).any()
    picture[20:36, 20:36] = blue
    assert cloth_among(picture, worn)[28, 28] > 0.9


def test_gleams_on_black_hair_are_hair_and_as_much_blue_in_one_piece_is_cloth() -> None:
    blue, black = (0.1, 0.13, 0.25), (0.07, 0.06, 0.06)
    picture, worn = np.full((512, 512, 3), 0.5, np.float32), np.zeros((512, 512), bool)
    worn[80:440, 80:440] = True
    picture[worn] = black
    gleams = picture.copy()
    for row in range(100, 420, 40):
        gleams[row : row + 12, 100:420] = blue
    assert not cloth_among(gleams, worn).any()
    band = picture.copy()
    band[100:196, 100:420] = blue
    assert cloth_among(band, worn)[150, 250] > 0.5

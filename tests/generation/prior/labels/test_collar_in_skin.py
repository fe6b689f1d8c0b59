"""White collars beside the neck are cloth; shaded necks and necks like the cloth stay skin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dp360.generation.portrait import Portrait
from dp360.generation.prior.labels.collar_in_skin import collar_in_skin

SKIN_RGB, WHITE = np.array([0.78, 0.55, 0.42], np.float32), np.array([0.93, 0.93, 0.95], np.float32)


def scene(portrait: Portrait, cloth_rgb: np.ndarray, strip_rgb: np.ndarray):
    """A face, a shaded neck with a strip at its side, and a shirt; everything above the shirt is labelled skin."""
    size = portrait.size_px
    at = np.indices((size, size)) / size
    y, x = at
    face, neck = np.hypot((x - 0.5) / 0.2, (y - 0.4) / 0.25) < 1, (abs(x - 0.5) < 0.12) & (y >= 0.4) & (y < 0.8)
    strip = (x > 0.62) & (x < 0.65) & (y > 0.6) & (y < 0.82)
    shirt = (y >= 0.8) & ~strip
    rgb = np.full((size, size, 3), 0.3, np.float32)
    rgb[face], rgb[neck & ~face], rgb[shirt], rgb[strip] = SKIN_RGB, 0.45 * SKIN_RGB, cloth_rgb, strip_rgb
    person = face | neck | shirt | strip
    picture = replace(portrait, foreground_unit=rgb, alpha_unit=person.astype(np.float32))
    core = np.hypot((x - 0.5) / 0.17, (y - 0.4) / 0.22) < 1
    return picture, (face | neck | strip), shirt, core, strip


def test_a_strip_in_the_shirts_colour_is_cloth_and_the_shaded_neck_is_skin(portrait: Portrait) -> None:
    picture, skin, shirt, core, strip = scene(portrait, WHITE, 0.97 * WHITE)
    found = collar_in_skin(skin, shirt, picture, core)
    assert found[strip].mean() > 0.75 and not found[~strip].any()


def test_the_half_of_a_narrow_strip_that_is_called_skin_is_cloth_and_a_mole_is_not(portrait: Portrait) -> None:
    picture, skin, shirt, core, strip = scene(portrait, WHITE, WHITE)
    column = np.flatnonzero(strip.any(0))
    called_skin = strip & (np.arange(len(strip)) <= column[1])  # two columns of it
    cloth = shirt | (strip & ~called_skin)
    mole = len(strip) * 7 // 10, len(strip) // 2
    picture.foreground_unit[mole] = WHITE
    found = collar_in_skin(skin & ~cloth, cloth, picture, core)
    assert found[called_skin].mean() > 0.4 and not found[mole]


@pytest.mark.parametrize("factor", [1.0, 0.6])
def test_skin_beside_the_neck_stays_skin_in_light_and_shade(portrait: Portrait, factor: float) -> None:
    picture, skin, shirt, core, _ = scene(portrait, WHITE, (factor * SKIN_RGB).astype(np.float32))
    assert not collar_in_skin(skin, shirt, picture, core).any()


def test_clothes_in_the_skins_colour_take_nothing(portrait: Portrait) -> None:
    picture, skin, shirt, core, _ = scene(portrait, SKIN_RGB, SKIN_RGB)
    assert not collar_in_skin(skin, shirt, picture, core).any()


def test_white_away_from_all_cloth_is_no_collar(portrait: Portrait) -> None:
    picture, skin, shirt, core, strip = scene(portrait, WHITE, WHITE)
    apart = np.roll(strip, (-len(strip) // 6, len(strip) // 20), axis=(0, 1))  # beside the jaw, joined to nothing
    picture.foreground_unit[apart] = WHITE
    found = collar_in_skin((skin & ~strip) | apart, shirt & ~strip, picture, core)
    assert not found.any()

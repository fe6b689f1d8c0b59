"""Painting the bust: what is seen stays, the rest is cloth with the seen cloth's texture and none of its marks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from dp360.generation.prior import HeadPrior
from dp360.generation.prior.labels.portrait_labels import CLOTH, SKIN
from dp360.generation.prior.texture import cloth_paint
from dp360.generation.prior.texture.atlas import BUST_TILE, MATERIAL_CLOTH, atlas_texels
from dp360.generation.prior.texture.cloth_paint import ClothSurface, paint_cloth
from dp360.generation.prior.texture.expected_colours import ExpectedColours
from dp360.generation.prior.texture.portrait_lookup import SeenPoints

RED = np.array([0.6, 0.15, 0.1], np.float32)


@pytest.fixture(scope="module")
def surface(prior: HeadPrior) -> ClothSurface:
    texels = atlas_texels(prior.mesh)
    chosen = np.nonzero(texels.material == MATERIAL_CLOTH)[0]
    return ClothSurface.of(texels, chosen, prior.mesh, BUST_TILE, np.array([0.0, 0.0, 3.0]))


@pytest.fixture(scope="module")
def expected() -> ExpectedColours:
    return ExpectedColours(*np.full((3, 56, 64, 3), 0.5, np.float32))


def a_red_shirt(surface: ClothSurface, *, badge: bool = False, noise: float = 0.03) -> SeenPoints:
    """A shirt seen in front, woven, with a badge on its left side."""
    height, width = surface.height.shape
    rng = np.random.default_rng(0)
    colour = np.broadcast_to(RED, (height, width, 3)) * np.exp(rng.normal(0, noise, (height, width, 1)))
    seen = (surface.angle < 1.2) & (np.arange(height)[:, None] < 0.75 * height)
    colour = colour.astype(np.float32)
    if badge:
        colour[200:260, 60:110] = 1.0
    classes = np.zeros((height, width, 3), np.float32)
    classes[..., CLOTH] = seen
    colour[:, -1] = colour[:, 0]
    return SeenPoints(colour, seen.astype(np.float32), classes)


def test_what_is_seen_stays(surface: ClothSurface, expected: ExpectedColours) -> None:
    seen = a_red_shirt(surface)
    colour, confidence = paint_cloth(seen, expected, surface, 0)
    sure = confidence > 0.999
    assert sure.mean() > 0.15
    np.testing.assert_allclose(colour[sure], np.clip(seen.colour, 0, 1)[sure], atol=1e-3)
    behind = surface.angle > 2.0
    assert confidence[:, behind].max() == 0


def test_the_back_has_the_cloths_colour_and_none_of_its_marks(surface: ClothSurface, expected: ExpectedColours) -> None:
    plain, _ = paint_cloth(a_red_shirt(surface), expected, surface, 0)
    marked, _ = paint_cloth(a_red_shirt(surface, badge=True), expected, surface, 0)
    behind = surface.angle > 2.0
    visible = slice(surface.rim_row + 20, surface.cut_row)
    back = plain[visible][:, behind]
    assert np.abs(np.log(np.median(back, axis=(0, 1)) / RED)).max() < 0.5
    assert np.abs(marked[visible][:, behind] - back).max() < 0.1  # the badge is white
    assert np.abs(np.diff(back.mean(0), axis=0)).max() < 0.05  # no stripes down the back


def test_the_lower_end_is_plain(surface: ClothSurface, expected: ExpectedColours) -> None:
    colour, _ = paint_cloth(a_red_shirt(surface, noise=0.2), expected, surface, 0)
    assert colour[surface.cut_row + 14 :].std(axis=(0, 1)).max() < 0.01


def test_without_anything_seen_the_expected_colours_are_taken(surface: ClothSurface, expected: ExpectedColours) -> None:
    seen = a_red_shirt(surface)
    nothing = SeenPoints(seen.colour, np.zeros_like(seen.trust), np.zeros_like(seen.classes))
    colour, confidence = paint_cloth(nothing, expected, surface, 0)
    assert not confidence.any()
    visible = colour[surface.rim_row + 20 : surface.cut_row]
    assert abs(float(np.median(visible)) - 0.5) < 0.12


def test_the_same_seed_gives_the_same_bytes(surface: ClothSurface, expected: ExpectedColours) -> None:
    seen = a_red_shirt(surface)
    first, again, other = (paint_cloth(seen, expected, surface, seed)[0] for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_a_random_phase_texture_has_its_examples_spectrum_and_is_no_copy() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:128, :256]
    stripes = 0.1 * np.sin(columns * (2 * np.pi / 8)) + 0.02 * rng.standard_normal((128, 256))
    detail = np.repeat(stripes[..., None], 3, axis=2).astype(np.float32)
    example = (rows > 20) & (rows < 110) & (columns > 30) & (columns < 150)
    made = cloth_paint.random_phase_texture(detail, example, np.random.default_rng(1))
    assert 0.5 < made.std() / detail[example].std() < 1.2
    across = np.abs(np.fft.rfft(made[..., 0], axis=1)).mean(0)
    assert abs(int(across[1:].argmax()) + 1 - 256 // 8) <= 2
    assert abs(np.corrcoef(made[example][:, 0], detail[example][:, 0])[0, 1]) < 0.5
    seam = np.abs(made[:, 0] - made[:, -1]).mean()
    assert seam < 2 * np.abs(np.diff(made, axis=1)).mean()


def test_a_jacket_closes_over_the_shirt_below_the_pictures_end(
    surface: ClothSurface, expected: ExpectedColours
) -> None:
    seen = a_red_shirt(surface, noise=0.0)
    height, width = surface.height.shape
    end = height // 2
    seen.trust[end:], seen.classes[end:] = 0, 0
    offset = (np.arange(width) + width // 2) % width - width // 2
    white, tie = np.abs(offset) < 60, np.abs(offset) < 12
    seen.colour[:, white], seen.colour[:, tie] = 0.9, (0.1, 0.2, 0.6)
    colour, _ = paint_cloth(seen, expected, surface, 0)
    length = surface.below_rim[:, 0] - surface.below_rim[end - 1, 0]
    half = int(np.argmin(np.abs(length - 0.5 * cloth_paint._CLOSING)))
    assert end < half < surface.cut_row
    is_white = colour[half].min(-1) > 0.5
    is_blue = colour[half, :, 2] > 1.5 * colour[half, :, 0]
    assert is_blue[np.abs(offset) < 8].all() and is_white[(np.abs(offset) > 16) & (np.abs(offset) < 25)].all()
    assert not (is_white | is_blue)[np.abs(offset) > 36].any()  # the jacket has come half of the way
    just_below = colour[end + 4]
    assert (just_below.min(-1) > 0.5)[(np.abs(offset) > 20) & (np.abs(offset) < 48)].all()


def test_what_is_closed_and_what_nobody_sees_the_side_of_has_no_opening() -> None:
    ends = np.full((1024, 3), 0.4, np.float32)
    assert cloth_paint._openings(ends, np.ones(1024, bool)) == (0.0, 0.0)
    ends[:30] = 0.9
    assert cloth_paint._openings(ends, np.ones(1024, bool)) == (30.0, 1.0)
    assert cloth_paint._openings(ends, np.arange(1024) < 80) == (0.0, 0.0)


def test_no_rim_is_carried_through_an_open_neck(surface: ClothSurface, expected: ExpectedColours) -> None:
    seen = a_red_shirt(surface, noise=0.0)
    skin = np.array([0.8, 0.6, 0.5], np.float32)
    height, width = surface.height.shape
    offset = (np.arange(width) + width // 2) % width - width // 2
    opened = (np.abs(offset) < 40) & (surface.below_rim < 0.05)
    seen.colour[opened], seen.classes[opened] = skin, np.eye(3, dtype=np.float32)[SKIN]
    seen.trust[surface.below_rim < 0.001] = 0  # the rim's upper side
    surface = replace(surface, stand_off=np.full_like(surface.stand_off, 0.01))
    seen.colour[(surface.below_rim < 0.012) & ~opened] = 0.95  # its outer side is white
    colour, _ = paint_cloth(seen, expected, surface, 0)
    rim = (surface.below_rim > -0.004) & (surface.below_rim < 0.001)
    away = np.abs(colour - skin).max(-1)
    assert away[rim & (np.abs(offset) < 25)].max() < 0.3
    aside = rim & (np.abs(offset) > 120) & (np.abs(offset) < 160)
    assert colour[aside].mean(0) == pytest.approx(0.95, abs=0.08)


def test_a_mirrored_collar_does_not_hang_over_a_lapel_that_is_seen(
    surface: ClothSurface, expected: ExpectedColours
) -> None:
    """The right side shows a white collar over a jacket; of the left only the jacket below it is seen."""
    height, width = surface.height.shape
    seen = a_red_shirt(surface, noise=0.0)
    left = np.arange(width) < width // 2
    collar = surface.below_rim < 0.08
    seen.colour[collar] = 0.95
    hidden = collar & left
    seen.trust[hidden], seen.classes[hidden] = 0, 0
    colour, _ = paint_cloth(seen, expected, surface, 0)
    side = (np.arange(width) > 110) & (np.arange(width) < 170)
    rows = surface.below_rim[:, 140]
    low, high = (int(np.argmin(np.abs(rows - at))) for at in (0.075, 0.02))
    assert colour[low, side, 1].mean() < 0.3  # nearer to the jacket than to the collar
    assert colour[high, side].min() > 0.6


def test_pieces_of_a_mirrored_lapel_do_not_alternate_with_a_collars_rim(
    surface: ClothSurface, expected: ExpectedColours
) -> None:
    """A white rim is seen on the right; on the left mirrored red cloth would show in it, and a red patch is seen."""
    surface = replace(surface, stand_off=np.full_like(surface.stand_off, 0.01))
    height, width = surface.height.shape
    seen = a_red_shirt(surface)
    right = np.arange(width) > width // 2
    on_rim = surface.below_rim < 0.012
    seen.colour[on_rim & (np.arange(width) > width * 0.9)] = 0.95
    hidden = (surface.below_rim < 0.02) & ~right
    seen.trust[hidden], seen.classes[hidden] = 0, 0
    patch = np.zeros((height, width), bool)
    patch[surface.rim_row : surface.rim_row + 10, 140:164] = True
    seen.trust[patch], seen.classes[patch] = 1, np.eye(3, dtype=np.float32)[CLOTH]
    colour, _ = paint_cloth(seen, expected, surface, 0)
    rim = (
        (surface.below_rim > -0.002) & (surface.below_rim < 0.008) & (np.arange(width) > 60) & (np.arange(width) < 300)
    )
    assert colour[rim, 1].min() > 0.7
    grain = colour - ndimage.uniform_filter(colour, 5, axes=(0, 1))
    assert grain[rim].std() < 0.01  # nor is it woven as the red cloth is


def test_a_collars_end_stays_sharp_and_even_cloth_smooth() -> None:
    rng = np.random.default_rng(0)
    table = np.where(np.arange(72)[:, None] < 30, 0.9, 0.1) * np.exp(rng.normal(0, 0.05, (72, 3)))
    made = cloth_paint._smoothed(table)
    assert made[:29].min() > 0.8 and made[31:].max() < 0.13
    assert np.diff(made[:29], axis=0).std() < 0.4 * np.diff(table[:29], axis=0).std()


def test_a_collar_that_is_seen_from_the_side_only_looks_like_its_other_side(
    surface: ClothSurface, expected: ExpectedColours
) -> None:
    seen = a_red_shirt(surface, noise=0.0)
    rows = np.flatnonzero((surface.below_rim[:, 0] > 0.002) & (surface.below_rim[:, 0] < 0.012))
    band, lapel = slice(rows[0], rows[-1]), surface.below_rim[:, 0] > 0.05
    seen.colour[:, :] = np.where(surface.below_rim[..., None] < 0.05, 0.9, RED)  # a white collar, and the jacket
    width = surface.height.shape[1]
    far, near = slice(width // 12, width // 8), slice(width - width // 8, width - width // 12)
    seen.colour[:, far] = RED
    facing = np.ones_like(surface.facing)
    as_seen, _ = paint_cloth(seen, expected, replace(surface, facing=facing), 0)
    facing[:, : width // 2] = 0.4
    mirrored, _ = paint_cloth(seen, expected, replace(surface, facing=facing), 0)
    assert as_seen[band, far].min(-1).mean() < 0.3 < 0.7 < mirrored[band, far].min(-1).mean()
    np.testing.assert_allclose(mirrored[band, near], as_seen[band, near], atol=0.05)
    below = lapel & (np.arange(len(lapel)) < 0.7 * len(lapel))
    np.testing.assert_allclose(mirrored[below][:, far], as_seen[below][:, far], atol=0.05)

"""The matte's choices: bad maps are thrown away, leaks and islands removed, fallbacks used in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from dp360.generation.head_model import load_head_model
from dp360.generation.portrait import Portrait, PortraitConfig, prepare_portrait
from dp360.generation.portrait import matte as matte_module
from dp360.generation.portrait.matte import (
    HeadZones,
    contradicts_head,
    estimate_matte,
    flat_background,
    head_zones,
    people_elsewhere,
)

SIZE = 256


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Portrait:
    path = tmp_path_factory.mktemp("matte") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return prepare_portrait(path, PortraitConfig(size_px=SIZE))


@pytest.fixture(scope="module")
def zones(portrait: Portrait) -> HeadZones:
    return head_zones(portrait.head, load_head_model())


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a > 0.5) & (b > 0.5)).sum() / ((a > 0.5) | (b > 0.5)).sum())


def test_zones_lie_within_each_other(zones: HeadZones) -> None:
    assert (zones.head | ~zones.core).all()
    assert (zones.body | ~zones.head).all()
    assert zones.core.sum() > 0.5 * zones.head.sum()
    assert (zones.distance_cm[zones.head] == 0).all()
    crown_to_chin_cm = np.ptp(np.flatnonzero(zones.head.any(1))) / zones.cm_px
    assert 20 < crown_to_chin_cm < 27


def test_a_good_matte_agrees_with_the_head(portrait: Portrait, zones: HeadZones) -> None:
    assert not contradicts_head(portrait.alpha_unit > 0.5, portrait.inside, zones)


@pytest.mark.parametrize("what", ["nothing", "everything", "half the head", "trumpet"])
def test_bad_mattes_contradict_the_head(portrait: Portrait, zones: HeadZones, what: str) -> None:
    y, x = np.mgrid[:SIZE, :SIZE]
    mask = {
        "nothing": np.zeros((SIZE, SIZE), bool),
        "everything": np.ones((SIZE, SIZE), bool),
        "half the head": zones.head & (x < SIZE / 2),
        "trumpet": zones.head | (abs(x - SIZE / 2) > 0.2 * SIZE) & (y < 0.7 * SIZE),
    }[what]
    assert contradicts_head(mask, np.ones_like(portrait.inside), zones)


def test_maps_that_contradict_the_head_have_no_say(portrait: Portrait, zones: HeadZones) -> None:
    good = portrait.alpha_unit
    empty, full = np.zeros_like(good), np.ones_like(good)
    alone = estimate_matte(portrait.rgb, portrait.inside, zones, [good])
    among = estimate_matte(portrait.rgb, portrait.inside, zones, [empty, good, full])
    assert alone.notices == among.notices == ()
    np.testing.assert_array_equal(alone.alpha_unit, among.alpha_unit)


def test_an_outline_comes_before_the_maps(portrait: Portrait, zones: HeadZones) -> None:
    narrow = np.where(zones.above_chin, portrait.alpha_unit, np.float32(0))  # a head without shoulders
    alone = estimate_matte(portrait.rgb, portrait.inside, zones, [portrait.alpha_unit])
    given = estimate_matte(portrait.rgb, portrait.inside, zones, [portrait.alpha_unit], outline=narrow)
    assert (alone.source, given.source, given.notices) == ("own", "outline", ())
    below = zones.height_cm < -3
    assert alone.alpha_unit[below].mean() > 0.5 > 0.05 > given.alpha_unit[below].mean()
    assert overlap(given.alpha_unit[zones.above_chin], portrait.alpha_unit[zones.above_chin]) > 0.97


def test_an_outline_that_contradicts_the_head_has_no_say(portrait: Portrait, zones: HeadZones) -> None:
    maps, wrong = [portrait.alpha_unit], 1 - portrait.alpha_unit
    alone = estimate_matte(portrait.rgb, portrait.inside, zones, maps)
    given = estimate_matte(portrait.rgb, portrait.inside, zones, maps, outline=wrong)
    assert given.source == "own" and len(given.notices) == 1 and "our own networks" in given.notices[0]
    np.testing.assert_array_equal(alone.alpha_unit, given.alpha_unit)


def test_an_outline_of_two_people_is_divided(portrait: Portrait, zones: HeadZones) -> None:
    elsewhere = np.zeros((SIZE, SIZE), bool)
    elsewhere[:, : SIZE // 4] = True
    given = estimate_matte(
        portrait.rgb, portrait.inside, zones, [], outline=portrait.alpha_unit, elsewhere=elsewhere & ~zones.body
    )
    assert given.source == "outline" and given.alpha_unit[:, : SIZE // 8].mean() < 0.02
    assert portrait.alpha_unit[:, : SIZE // 8].mean() > 0.1


def test_islands_are_removed(portrait: Portrait, zones: HeadZones) -> None:
    with_island = portrait.alpha_unit.copy()
    with_island[10:40, 10:40] = 1.0
    matte = estimate_matte(portrait.rgb, portrait.inside, zones, [with_island])
    assert matte.alpha_unit[5:45, 5:45].max() == 0.0
    assert overlap(matte.alpha_unit, portrait.alpha_unit) > 0.97


def test_without_maps_colours_decide(portrait: Portrait, zones: HeadZones) -> None:
    matte = estimate_matte(portrait.rgb, portrait.inside, zones, [])
    assert len(matte.notices) == 1 and "comes from colours" in matte.notices[0]
    above = zones.above_chin
    assert overlap(matte.alpha_unit[above], portrait.alpha_unit[above]) > 0.85


def test_when_all_fails_the_outline_is_the_fitted_heads(
    portrait: Portrait, zones: HeadZones, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matte_module, "_LEAST_COVER", 1.01)  # no matte covers that much
    matte = estimate_matte(portrait.rgb, portrait.inside, zones, [portrait.alpha_unit])
    assert len(matte.notices) == 1 and "average head" in matte.notices[0]
    assert matte.alpha_unit[zones.core & portrait.inside].min() == 1.0
    assert matte.alpha_unit[zones.above_chin & (zones.distance_cm > 3)].max() == 0.0


def test_a_flat_background_is_found_and_a_real_one_is_not() -> None:
    picture = np.full((60, 60, 3), (180, 220, 240), np.uint8)
    picture[20:50, 15:45] = (30, 20, 10)
    picture[30:35, 25:30] = (180, 220, 240)  # enclosed: not connected to the border
    everywhere = np.ones((60, 60), bool)
    expected = everywhere.copy()
    expected[20:50, 15:45] = False
    np.testing.assert_array_equal(flat_background(picture, everywhere), expected)
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    assert not flat_background(noise, everywhere).any()


def test_the_line_between_two_people_is_measured_in_face_sizes() -> None:
    mask = people_elsewhere(100, (20.0, 50.0), 30.0, [((80.0, 50.0), 30.0)])
    assert mask is not None
    assert not mask[:, :49].any() and mask[50, 52:].all()
    small = people_elsewhere(100, (20.0, 50.0), 30.0, [((80.0, 50.0), 10.0)])
    assert small is not None and not small[50, :64].any() and small[50, 67:90].all()
    assert people_elsewhere(100, (20.0, 50.0), 30.0, []) is None


def test_alpha_outside_the_picture_is_zero(tmp_path: Path) -> None:
    Image.fromarray(skimage.data.astronaut()[40:300, 140:330]).save(tmp_path / "close.png")
    close = prepare_portrait(tmp_path / "close.png", PortraitConfig(size_px=SIZE))
    assert 0.2 < close.inside.mean() < 0.9
    assert close.alpha_unit[~close.inside].max() == 0.0
    assert np.isfinite(close.foreground_unit).all()

"""Laws of hairlines: one density for skin and shell, and sideburns as the portrait shows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dp360.generation.cameras import UNITS_PER_MM
from dp360.generation.head_model import HeadModel, load_head_model
from dp360.generation.head_model.anatomy import centimetres, world_units
from dp360.generation.head_model.model import PART_CRANIUM_NECK, PART_FACE
from dp360.generation.prior import capsule
from dp360.generation.prior.hair.flow_field import HairFlow
from dp360.generation.prior.labels.portrait_labels import ear_vertices
from dp360.generation.prior.texture.hairline import (
    _ROWS_CM,
    Hairline,
    fit_hairline,
    read_sideburns,
    strands_of,
    thinned,
)
from dp360.generation.prior.texture.portrait_lookup import SeenPoints
from dp360.generation.prior.texture.shell_paint import PaintedShell, ended_softly

SKIN, DARK = np.array([0.8, 0.6, 0.5]), np.array([0.2, 0.13, 0.09])
HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head_model()


@pytest.fixture(scope="module")
def skin(model: HeadModel) -> np.ndarray:
    """Vertices of face, cranium and neck."""
    return np.isin(model.part, (PART_FACE, PART_CRANIUM_NECK))


@pytest.fixture(scope="module")
def skull_points(model: HeadModel) -> np.ndarray:
    return capsule.surface_points(capsule.opened_skull_radius(model.neutral, model.skin_faces))


def flow_of(points: np.ndarray, *, over_ears: bool = False, hat: bool = False) -> HairFlow:
    """Hair of 6 mm above the ears and behind them, or everywhere but in the face."""
    _, y, z = np.moveaxis(centimetres(points), -1, 0)
    hair = (z < 3.0) & (y > (-12.0 if over_ears else np.where(z > -3.5, 5.0, -5.0))) | (y > 9)
    thickness = np.where(hair, 6 * UNITS_PER_MM, -0.02)
    nothing = np.zeros(thickness.shape)
    headgear = np.full(thickness.shape, float(hat))
    return HairFlow(points, points, points, nothing, nothing, thickness, headgear, nothing, over_ears, None)


def hairline_of(model: HeadModel, skin: np.ndarray, flow: HairFlow, burn: np.ndarray | None = None) -> Hairline:
    ears = ear_vertices(model)[skin]
    return fit_hairline(flow, centimetres(model.neutral)[skin], model.neutral[skin], ears, np.zeros(len(ears)), burn)


def test_density_falls_from_the_hair_to_the_skin(model: HeadModel, skin: np.ndarray, skull_points: np.ndarray) -> None:
    line = hairline_of(model, skin, flow_of(skull_points))
    heights = np.linspace(-1, 1.5, 26)  # behind the head, over the nape at -5 cm
    behind = np.stack([np.zeros(26), -5 + heights, np.full(26, -11.0)], axis=1)
    density, edge = line.at(world_units(behind))
    assert density[0] == 0 and density[-1] == 1 and edge.min() > 0.5
    assert (np.diff(density) >= -1e-6).all() and np.diff(density).max() < 0.35
    assert 0.2 < np.interp(0, heights, density) < 0.8


def test_shell_and_skin_share_one_density(model: HeadModel, skin: np.ndarray, skull_points: np.ndarray) -> None:
    line = hairline_of(model, skin, flow_of(skull_points))
    tile = line.on_tile(2 * capsule.ROWS - 1, capsule.COLUMNS + 1)
    density, edge = line.at(skull_points.reshape(-1, 3))
    expected = (1 - (1 - density) * edge).reshape(skull_points.shape[:2])
    # the pole has no column of its own
    np.testing.assert_allclose(tile[2::2, :-1], expected[1:], atol=2e-3)
    np.testing.assert_array_equal(tile[:, 0], tile[:, -1])


def test_hair_over_ears_and_headgear_end_as_they_are(
    model: HeadModel, skin: np.ndarray, skull_points: np.ndarray
) -> None:
    beside = world_units(np.array([[s * 7.5, y, 3.0] for s in (-1, 1) for y in (-3.0, 0.0, 2.0, 4.0)]))
    for flow in (flow_of(skull_points, over_ears=True), flow_of(skull_points, hat=True)):
        assert hairline_of(model, skin, flow).at(beside)[1].max() < 0.01
    assert hairline_of(model, skin, flow_of(skull_points)).at(beside)[1].min() > 0.5


def test_a_sideburn_runs_down_before_both_ears(model: HeadModel, skin: np.ndarray, skull_points: np.ndarray) -> None:
    burn = np.where(_ROWS_CM > 1.5, 0.9, 0.0)
    with_burn, without = (hairline_of(model, skin, flow_of(skull_points), b) for b in (burn, None))
    shown = world_units(np.array([[s * 7.4, 2.2, 2.4] for s in (-1, 1)]))
    below = world_units(np.array([[s * 7.4, y, z] for s in (-1, 1) for y, z in ((-2, 2.4), (2.2, 5.5))]))
    assert with_burn.at(shown)[0].min() > 0.6 > 0.1 > without.at(shown)[0].max()
    np.testing.assert_allclose(with_burn.at(below)[0], without.at(below)[0])


def test_no_sideburn_comes_out_of_a_bald_head(model: HeadModel, skin: np.ndarray, skull_points: np.ndarray) -> None:
    flow = replace(flow_of(skull_points), thickness=np.full(skull_points.shape[:2], -0.02))
    line = hairline_of(model, skin, flow, np.ones(len(_ROWS_CM)))
    assert line.density.max() == 0


def seen_head(model: HeadModel, skin: np.ndarray, dark: np.ndarray, side: int) -> SeenPoints:
    """Skin with dark vertices, of which one side is seen."""
    colour = np.where(dark[:, None], DARK, SKIN).astype(np.float32)
    trust = (np.sign(model.neutral[skin, 0]) == side).astype(np.float32)
    return SeenPoints(colour, trust, np.zeros_like(colour))


@pytest.mark.parametrize("side", [-1, 1])
def test_sideburns_are_read_from_the_side_that_is_seen(model: HeadModel, skin: np.ndarray, side: int) -> None:
    cm, ears = centimetres(model.neutral)[skin], ear_vertices(model)[skin]
    strip = (np.abs(cm[:, 0]) > 4.5) & (cm[:, 2] > 1) & (cm[:, 2] < 4)
    read = read_sideburns(seen_head(model, skin, strip & (cm[:, 1] > 1.5), side), cm, ears, DARK)
    assert read is not None
    assert read[_ROWS_CM >= 3].min() > 0.9 and read[_ROWS_CM <= 0].max() < 0.05
    # what is dark further down and does not go on from the hair is a shadow or a beard
    with_shadow = strip & ((cm[:, 1] > 1.5) | (cm[:, 1] < -1.5))
    again = read_sideburns(seen_head(model, skin, with_shadow, side), cm, ears, DARK)
    assert again is not None
    np.testing.assert_array_equal(read, again)


def test_shade_down_to_the_ears_lobe_is_no_sideburn(model: HeadModel, skin: np.ndarray) -> None:
    cm, ears = centimetres(model.neutral)[skin], ear_vertices(model)[skin]
    shade = (np.abs(cm[:, 0]) > 4.5) & (cm[:, 2] < 4)
    assert read_sideburns(seen_head(model, skin, shade, 1), cm, ears, DARK) is None


def test_hair_of_the_skins_colour_says_nothing(model: HeadModel, skin: np.ndarray) -> None:
    cm, ears = centimetres(model.neutral)[skin], ear_vertices(model)[skin]
    seen = seen_head(model, skin, np.zeros(len(cm), bool), 1)
    assert read_sideburns(seen, cm, ears, SKIN * 0.95) is None
    assert read_sideburns(seen.__class__(seen.colour, 0 * seen.trust, seen.classes), cm, ears, DARK) is None


def test_single_hairs_keep_the_density() -> None:
    rng = np.random.default_rng(0)
    locks = rng.standard_normal((64, 64)).astype(np.float32)
    for density in (0.0, 0.3, 0.5, 1.0):
        share = thinned(np.full_like(locks, density), locks)
        assert abs(share.mean() - density) < 0.03 and 0 <= share.min() and share.max() <= 1
        assert (share.std() > 0.1) == (0 < density < 1)


def test_the_shell_ends_in_skin_but_for_what_is_seen(
    model: HeadModel, skin: np.ndarray, skull_points: np.ndarray
) -> None:
    line = hairline_of(model, skin, flow_of(skull_points))
    hair = np.full((HEIGHT, WIDTH, 3), DARK, np.float32)
    under = np.full((capsule.ROWS, capsule.COLUMNS, 3), SKIN, np.float32)
    locks = 0.1 * np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, 1)).astype(np.float32).repeat(3, -1)
    tile = line.on_tile(HEIGHT, WIDTH)
    made = ended_softly(PaintedShell(hair, np.zeros((HEIGHT, WIDTH), np.float32), locks), line, under)
    np.testing.assert_allclose(made[tile == 1], hair[tile == 1])
    np.testing.assert_allclose(made[tile == 0], np.broadcast_to(SKIN, made[tile == 0].shape), atol=1e-6)
    assert (tile == 0).any() and (tile == 1).any()
    seen = ended_softly(PaintedShell(hair, np.full((HEIGHT, WIDTH), 0.5, np.float32), locks), line, under)
    np.testing.assert_array_equal(seen, hair)


def test_hair_before_skin_is_where_locks_are_dark() -> None:
    locks = np.zeros((32, 32, 3), np.float32)
    locks[:, ::4] = -0.5
    pattern = strands_of(locks)
    assert pattern[:, ::4].min() > pattern[:, 2::4].max()

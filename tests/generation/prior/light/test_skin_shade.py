"""Shadows with an edge come off skin, freckles and what both sides have in common stay on it."""

from __future__ import annotations

import numpy as np

from dp360.generation.prior.light.skin_shade import SkinShade, skin_shade

SIDE = 41
TONE = np.array([0.7, 0.55, 0.45])


def face() -> tuple[np.ndarray, np.ndarray]:
    """Vertices of a bent square of skin, 24 cm wide, and each one's mirror image."""
    x, y = np.meshgrid(np.linspace(-0.2, 0.2, SIDE), np.linspace(-0.2, 0.2, SIDE))
    points = np.stack([x.ravel(), y.ravel(), 0.3 - np.square(x.ravel())], axis=1)
    return points, np.arange(SIDE * SIDE).reshape(SIDE, SIDE)[:, ::-1].ravel()


def even(count: int) -> np.ndarray:
    return np.ones((count, 3), np.float32)


def shade_of(rgb: np.ndarray, weight: np.ndarray | None = None) -> SkinShade:
    points, partner = face()
    weight = np.ones(len(points)) if weight is None else weight
    return skin_shade(points, rgb.astype(np.float32), even(len(points)), weight, np.ones(len(points), bool), partner)


def test_half_of_a_shadow_of_one_side_with_its_edge_is_found() -> None:
    points, _ = face()
    dark = points[:, 0] < -0.08
    shade = shade_of(np.where(dark[:, None], 0.5, 1.0) * TONE)
    told = np.exp(shade.log_factor[:, 0])
    away = np.abs(points[:, 0] + 0.08) > 0.02
    assert told[dark & away].max() < 0.72
    assert told[~dark & away & (points[:, 0] < 0.06)].min() > 0.9
    middle = told[SIDE // 2 * SIDE :][:SIDE]
    assert np.diff(middle).max() > 0.6 * np.ptp(middle)  # between two neighbours, 6 mm


def test_freckles_stay_on_the_skin() -> None:
    points, _ = face()
    spots = np.random.default_rng(0).random(len(points)) < 0.06
    shade = shade_of(np.where(spots[:, None], 0.7, 1.0) * TONE)
    assert np.abs(shade.log_factor).max() < 0.12


def test_what_both_sides_share_is_believed_less_than_what_they_differ_in() -> None:
    points, partner = face()
    one, two = points[:, 0] < -0.1, np.abs(points[:, 0]) > 0.1
    of_one, of_two = (shade_of(np.where(dark[:, None], 0.6, 1.0) * TONE) for dark in (one, two))
    assert of_one.log_factor[one].mean() < 1.2 * of_two.log_factor[one].mean() < 0
    np.testing.assert_allclose(of_two.log_factor, of_two.log_factor[partner], atol=1e-5)


def test_a_red_shadow_becomes_the_colour_of_the_skin_and_rouge_stays_red() -> None:
    points, _ = face()
    dark, rouge = points[:, 0] < -0.1, points[:, 0] > 0.12
    rgb = np.where(dark[:, None], [0.35, 0.2, 0.14], np.where(rouge[:, None], [0.78, 0.52, 0.45], TONE))
    even_rgb = rgb / np.exp(shade_of(rgb).log_factor)

    def redness(colours: np.ndarray) -> float:
        return float(np.log(colours[:, 0] / colours[:, 1]).mean())

    wrong, left = redness(rgb[dark]) - redness(TONE[None]), redness(even_rgb[dark]) - redness(TONE[None])
    assert abs(left) < 0.4 * wrong
    np.testing.assert_allclose(redness(even_rgb[rouge]), redness(rgb[rouge]), atol=0.01)


def test_mirrored_skin_has_the_mirrored_shade() -> None:
    points, partner = face()
    rgb = np.exp(1.5 * points[:, :1] + 2 * points[:, 1:2] ** 2) * TONE * 0.6
    np.testing.assert_allclose(shade_of(rgb[partner]).log_factor, shade_of(rgb).log_factor[partner], atol=6e-3)


def test_away_from_seen_skin_the_reckoned_light_holds() -> None:
    points, _ = face()
    seen = points[:, 1] > 0.1
    shade = shade_of(np.where(points[:, :1] < 0, 0.6, 1.0) * TONE, seen.astype(float))
    far = points[:, 1] < -0.15
    assert np.abs(shade.log_factor[far]).max() < 0.02
    reckoned = np.full((len(points), 3), 0.64, np.float32)
    lit = shade.on(reckoned, np.ones(len(points)), 0.5)
    np.testing.assert_allclose(lit[far], 0.64, rtol=0.03)
    assert np.abs(np.log(lit[seen][:, 0]) - 0.5 * np.log(0.64) - shade.log_factor[seen][:, 0]).max() < 1e-3


def test_too_little_skin_says_nothing() -> None:
    points, _ = face()
    shade = shade_of(np.broadcast_to(TONE, (len(points), 3)), np.zeros(len(points)))
    assert not shade.log_factor.any()
    assert not shade.near.any()

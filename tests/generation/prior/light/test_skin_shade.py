"""Light that is told of seen skin stays as it is told, goes over into the reckoned one beside it, and has a colour."""

from __future__ import annotations

import numpy as np

from dp360.generation.light.exposure import GAMMA
from dp360.generation.light.spherical_harmonics import LUMINANCE
from dp360.generation.prior.light.skin_shade import SkinShade, skin_shade

SIDE = 41


def face() -> tuple[np.ndarray, np.ndarray]:
    """Vertices of a bent square of skin, 24 cm wide, and each one's mirror image."""
    x, y = np.meshgrid(np.linspace(-0.2, 0.2, SIDE), np.linspace(-0.2, 0.2, SIDE))
    points = np.stack([x.ravel(), y.ravel(), 0.3 - np.square(x.ravel())], axis=1)
    return points, np.arange(SIDE * SIDE).reshape(SIDE, SIDE)[:, ::-1].ravel()


def shade_of(
    log_light: np.ndarray,
    weight: np.ndarray | None = None,
    plain: np.ndarray | None = None,
    area: np.ndarray | None = None,
) -> SkinShade:
    points, _ = face()
    one = np.ones(len(points))
    found = skin_shade(
        points,
        log_light.astype(np.float32),
        one if weight is None else weight,
        one > 0,
        one if plain is None else plain,
        one if area is None else area,
    )
    assert found is not None
    return found


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, None], 3, axis=1)


def light_on(shade: np.ndarray) -> np.ndarray:
    """Luminance of the light that makes such factors."""
    return np.exp(GAMMA * (np.log(shade) @ LUMINANCE))


def test_seen_skin_has_the_light_that_is_told_up_to_its_level() -> None:
    points, _ = face()
    told = np.where(points[:, :1] < -0.05, -0.7, 0.0) + np.array([0.1, 0.0, -0.1])
    shade = shade_of(told + 3.0).over(np.full((len(points), 3), 0.5, np.float32))
    dark = points[:, 0] < -0.05
    np.testing.assert_allclose(np.log(shade[dark] / shade[~dark][0]), np.full((dark.sum(), 3), -0.7), atol=1e-5)
    np.testing.assert_allclose(light_on(shade).mean(), 1, rtol=1e-5)


def test_lips_and_eyes_do_not_tell_how_bright_it_is() -> None:
    points, _ = face()
    odd = points[:, 1] < 0.05
    told = grey(np.where(odd, -1.0, 0.0))
    shade = shade_of(told, plain=np.where(odd, 0.0, 1.0)).over(np.ones_like(told, dtype=np.float32))
    np.testing.assert_allclose(shade[~odd], 1, atol=1e-5)
    np.testing.assert_allclose(shade[odd], np.exp(-1), atol=1e-5)


def test_many_small_triangles_do_not_tell_how_bright_it_is() -> None:
    points, _ = face()
    ears = points[:, 0] < 0.05
    told = grey(np.where(ears, -1.0, 0.0))
    shade = shade_of(told, area=np.where(ears, 0.1, 1.0)).over(np.ones_like(told, dtype=np.float32))
    assert light_on(shade).mean() < 0.8
    np.testing.assert_allclose(np.average(light_on(shade), weights=np.where(ears, 0.1, 1.0)), 1, rtol=1e-5)


def test_mirrored_skin_has_the_mirrored_shade() -> None:
    points, partner = face()
    told = grey(1.5 * points[:, 0] + 2 * points[:, 1] ** 2)
    np.testing.assert_allclose(shade_of(told[partner]).log_factor, shade_of(told).log_factor[partner], atol=6e-3)


def test_away_from_seen_skin_the_reckoned_light_holds_in_the_colour_that_is_told() -> None:
    points, _ = face()
    seen, far = points[:, 1] > 0.05, points[:, 1] < -0.18
    reckoned = np.full((len(points), 3), 0.64, np.float32)
    told = np.broadcast_to(np.array([0.2, 0.0, -0.3]), (len(points), 3))
    shade = shade_of(told, seen.astype(float)).over(reckoned)
    np.testing.assert_allclose(shade[far] @ LUMINANCE, 0.64, rtol=0.06)
    np.testing.assert_allclose(np.log(shade[far][:, 0] / shade[far][:, 2]), 0.5, atol=0.02)
    middle = np.log(shade.reshape(SIDE, SIDE, 3)[:, SIDE // 2, 1])
    assert np.abs(np.diff(middle)).max() < 0.2 * np.ptp(middle)  # no border


def test_what_is_hidden_in_a_crease_stays_darker_than_the_seen_skin_beside_it() -> None:
    points, _ = face()
    crease = np.abs(points[:, 1]) < 0.006
    reckoned = np.where(crease[:, None], 0.5, 1.0).astype(np.float32) * np.ones(3, np.float32)
    shade = shade_of(grey(points[:, 0]), np.where(crease, 0.0, 1.0)).over(reckoned)
    assert crease.sum() == SIDE
    np.testing.assert_allclose(shade[crease] / shade[~crease].reshape(-1, SIDE, 3).mean(0), 0.5, rtol=0.05)


def test_too_little_skin_says_nothing() -> None:
    points, _ = face()
    zero = np.zeros(len(points))
    assert skin_shade(points, grey(zero).astype(np.float32), zero, zero == 0, zero + 1, zero + 1) is None

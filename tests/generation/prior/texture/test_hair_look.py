"""Laws of the hair's look: painted locks get the portrait's contrast, octave by octave, and its colours."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation import look_at_origin
from dp360.generation.prior.hair.locks import LockPattern
from dp360.generation.prior.hair.orientation import OCTAVES_MM, SeenHair
from dp360.generation.prior.texture.fills import wrapped_blur
from dp360.generation.prior.texture.hair_look import HairLook, HairTone, octaves_of

SHAPE = (256, 384)


def noise(seed: int, sigma: float = 1.5) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)
    made = wrapped_blur(drawn, 4 * sigma, sigma) + 0.5 * wrapped_blur(drawn, 12.0, 5.0)
    return (made / made.std()).astype(np.float32)


@pytest.fixture(scope="module")
def pattern() -> LockPattern:
    tints = np.stack([noise(5), noise(6)], axis=-1)
    return LockPattern(0.3 * noise(4), tints)


@pytest.fixture(scope="module")
def seen() -> SeenHair:
    return SeenHair(0.5, 0.45, 0.2, np.array([0.03, 0.05, 0.06, 0.04]))


def look_of(detail: np.ndarray, seen: SeenHair) -> HairLook:
    known = np.zeros(SHAPE, bool)
    known[40:200, 50:300] = True
    return HairLook.of(detail.astype(np.float32), known, np.full((*SHAPE, 3), 0.4, np.float32), seen)


def test_octaves_agree_with_the_portraits(pattern: LockPattern, seen: SeenHair) -> None:
    look = look_of(0.1 * noise(1)[..., None] * np.array([1.0, 0.8, 0.6]), seen)
    probe = np.ones(SHAPE, bool)
    made = look.detail_of(pattern, probe, sharper=(1.0, 1.0, 1.0, 1.0))
    brightness = made @ np.array([0.299, 0.587, 0.114], np.float32)
    found = np.array([band.std() for band in octaves_of(brightness)])
    np.testing.assert_allclose(found, seen.octaves, rtol=0.2)
    assert abs(brightness.mean()) < 0.05


def test_octaves_of_a_picture_are_those_of_its_tile(seen: SeenHair) -> None:
    """White noise of one contrast, in a picture whose pixel is as large as a texel."""
    size = 512
    camera = look_at_origin([0.0], [0.0], size_px=size)
    px_per_mm = float(camera.focal_px[0, 0]) / 2.7 * 0.00165
    camera = look_at_origin([0.0], [0.0], size_px=size)
    logs = 0.1 * np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    rgb = np.repeat((np.exp(logs - 1) - 0.03)[..., None], 3, axis=2).astype(np.float32)
    found = SeenHair.of_picture(rgb, np.ones((size, size), bool), camera, 0.0)
    assert found is not None
    for octave, finer, coarser in zip(found.octaves, OCTAVES_MM, OCTAVES_MM[1:]):
        a, b = finer * px_per_mm, coarser * px_per_mm
        # difference of two Gaussian blurs of white noise
        expected = 0.1 * np.sqrt(1 / (4 * np.pi * a**2) + 1 / (4 * np.pi * b**2) - 1 / (np.pi * (a**2 + b**2)))
        if a > 1:
            np.testing.assert_allclose(octave, expected, rtol=0.1)
    assert found.coherence < 0.35


def test_hair_keeps_the_colours_of_its_streaks(pattern: LockPattern, seen: SeenHair) -> None:
    look = look_of(0.15 * noise(2)[..., None] * np.array([1.0, 0.5, 0.1]), seen)  # reddish where it is bright
    made = look.detail_of(pattern, np.ones(SHAPE, bool))
    red, blue = made[..., 0] - wrapped_blur(made[..., 0], 4.0, 4.0), made[..., 2] - wrapped_blur(made[..., 2], 4.0, 4.0)
    assert red.std() > 1.5 * blue.std()
    np.testing.assert_allclose(look.axes[0], np.array([1.0, 0.5, 0.1]) / np.sqrt(1.26), atol=0.02)


def test_skin_between_thin_hair_makes_no_blotches(pattern: LockPattern, seen: SeenHair) -> None:
    looks = [look_of(0.15 * noise(2)[..., None] * np.array(tint), seen) for tint in ((0.2, 1, 1), (0.8, 1, 1))]
    thin, thick = (look.detail_of(pattern, np.ones(SHAPE, bool)) for look in looks)
    for made in (thin, thick):
        made -= made.mean((0, 1))
    assert thin.std() < 0.6 * thick.std()
    chroma = thin - thin.mean(-1, keepdims=True)
    assert chroma.std() < 0.3 * thin.std()
    np.testing.assert_allclose(looks[0].axes @ looks[0].axes.T, np.eye(3), atol=1e-9)


def test_too_little_hair_gives_a_plain_look(pattern: LockPattern) -> None:
    look = HairLook.of(
        np.zeros((*SHAPE, 3), np.float32), np.zeros(SHAPE, bool), np.zeros((*SHAPE, 3), np.float32), None
    )
    np.testing.assert_allclose(look.axes @ look.axes.T, np.eye(3), atol=1e-9)
    made = look.detail_of(pattern, np.ones(SHAPE, bool))
    assert np.isfinite(made).all() and 0.03 < made.std() < 0.4
    assert look.painterly == 0


def test_foreign_colours_are_no_hair() -> None:
    rng = np.random.default_rng(0)
    hair = (np.array([0.35, 0.22, 0.12]) * rng.uniform(0.5, 1.5, (64, 64, 1))).astype(np.float32)
    tone = HairTone.of(hair, np.ones((64, 64), np.float32))
    assert tone.belief(hair).mean() > 0.95
    blue = np.full((64, 64, 3), (0.2, 0.3, 0.6), np.float32)
    assert tone.cloth == 0
    assert tone.belief(blue).max() < 0.05
    held = tone.held(blue)
    away = np.linalg.norm(np.log(held + 0.06) - np.log(held + 0.06).mean(-1, keepdims=True) - tone.chroma, axis=-1)
    assert away.max() < tone.spread
    np.testing.assert_allclose(tone.held(hair), hair, atol=0.02)


def test_rim_light_and_specks_glare_and_made_up_hair_is_as_bright_as_the_hair() -> None:
    rng = np.random.default_rng(1)
    hair = (np.array([0.2, 0.14, 0.1]) * rng.uniform(0.6, 1.4, (64, 64, 1))).astype(np.float32)
    tone = HairTone.of(hair, np.ones((64, 64), np.float32))
    plain, grazing = (np.full((64, 64), trust, np.float32) for trust in (1.0, 0.3))
    assert tone.glare(hair, plain).max() < 0.05 and tone.glare(hair, grazing).mean() < 0.1
    light = 2 * hair
    assert tone.glare(light, grazing).mean() > 0.8 > 0.3 > tone.glare(light, plain).mean()
    assert tone.glare(np.full((64, 64, 3), 0.95, np.float32), plain).min() > 0.95
    for factor in (0.3, 3.0):
        level = tone.held(np.broadcast_to(factor * hair.mean((0, 1)), hair.shape).astype(np.float32)).mean(-1)
        assert (level > tone.range[0] - 0.01).all() and (level < tone.range[1] + 0.01).all()


@pytest.mark.parametrize(
    ("rgb", "cloth"),
    [
        ((0.25, 0.3, 0.45), 1), ((0.02, 0.025, 0.03), 0), ((0.6, 0.6, 0.62), 0), ((0.3, 0.2, 0.1), 0),
        ((0.6, 0.08, 0.1), 1), ((0.6, 0.28, 0.1), 0),
    ],
)  # fmt: skip
def test_only_what_is_blue_or_red_and_bright_is_cloth(rgb: tuple[float, float, float], cloth: int) -> None:
    assert HairTone.of(np.full((64, 64, 3), rgb, np.float32), np.ones((64, 64), np.float32)).cloth == cloth

"""Cut-outs as programs leave them: holes and veils inside the outline do not count, the outline does."""

import numpy as np
import pytest

from dp360.generation.portrait.given_alpha import enclosed, shown_over_white, whole_inside
from dp360.generation.portrait.matte import HeadZones

SIZE, CM_PX = 256, 10.0
Y, X = np.mgrid[:SIZE, :SIZE] + 0.5


def disc(radius_px: float, x: float = 128, y: float = 128) -> np.ndarray:
    return np.hypot(X - x, Y - y) < radius_px


@pytest.fixture
def zones() -> HeadZones:
    """A head of radius 6 cm in a matte of radius 9 cm; the chin is far below."""
    distance = np.maximum(np.hypot(X - 128, Y - 128) - 60, 0) / CM_PX
    height = np.full((SIZE, SIZE), 5.0, np.float32)
    return HeadZones(disc(60), disc(60), disc(49), height, distance.astype(np.float32), CM_PX)


@pytest.mark.parametrize("veil", [0.6, 0.75, 0.4, 0.0])
def test_a_veiled_face_becomes_opaque(zones, veil):
    alpha = disc(90).astype(np.float32)
    alpha[disc(40)] = veil
    whole, told = whole_inside(alpha, zones)
    assert told and (whole[disc(55)] == 1).all()
    assert (whole[~disc(90)] == 0).all()


def test_pin_holes_are_closed_and_gaps_between_strands_are_not(zones):
    alpha = disc(90).astype(np.float32)
    for x, y in ((128, 128), (150, 110), (128, 60)):
        alpha[disc(2, x, y)] = 0
    gap = disc(7, 128, 52)  # 1.4 cm wide, in the hair
    alpha[gap] = 0
    whole, _ = whole_inside(alpha, zones)
    assert (whole[disc(2, 128, 128)] == 1).all() and (whole[disc(2, 128, 70)] == 1).all()
    assert (whole[disc(5, 128, 52)] == 0).all()


def test_soft_edges_and_clean_cut_outs_stay(zones):
    alpha = np.clip((90 - np.hypot(X - 128, Y - 128)) / 8 + 0.5, 0, 1).astype(np.float32)
    whole, told = whole_inside(alpha, zones)
    assert not told
    np.testing.assert_array_equal(whole, alpha)


def test_lost_colours_are_painted_and_known_ones_kept():
    rgb = np.full((SIZE, SIZE, 3), (200, 150, 120), np.uint8)
    alpha = np.where(disc(90), 255, 0).astype(np.uint8)
    alpha[disc(3)] = 0
    assert enclosed(alpha)[128, 128] and not enclosed(alpha)[2, 2]
    shown = shown_over_white(rgb, alpha)
    assert (shown[128, 128] == (200, 150, 120)).all() and (shown[2, 2] == 255).all()
    rgb[alpha == 0] = 0  # a program that wipes what is transparent
    assert np.abs(shown_over_white(rgb, alpha)[128, 128].astype(int) - (200, 150, 120)).max() <= 2

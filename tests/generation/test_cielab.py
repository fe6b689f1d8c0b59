"""CIELAB of pictures, lists and single colours."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation.cielab import lab_of, median_in_lab


@pytest.mark.parametrize(
    ("rgb", "lab"), [((1, 1, 1), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((1, 0, 0), (53.24, 80.09, 67.20))]
)
def test_known_colours(rgb: tuple[float, float, float], lab: tuple[float, float, float]) -> None:
    """Red: Lindbloom, CIE colour calculator, sRGB and D65."""
    np.testing.assert_allclose(lab_of(np.array(rgb, np.float64)), lab, atol=0.3)


def test_pictures_lists_and_single_colours_agree() -> None:
    picture = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
    lab = lab_of(picture)
    np.testing.assert_allclose(lab_of(picture.reshape(-1, 3)).reshape(5, 7, 3), lab, atol=1e-3)
    np.testing.assert_allclose(lab_of(picture[2, 3]), lab[2, 3], atol=1e-3)


def test_the_median_is_a_colour_that_there_is() -> None:
    """Of three colours red, green and blue have medians that none of them has."""
    colours = np.repeat(np.array([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]], np.float32), [20, 25, 20], axis=0)
    assert np.abs(colours - median_in_lab(colours)).max(1).min() < 1e-6
    plain = np.random.default_rng(0).normal([0.5, 0.4, 0.3], 0.03, (5000, 3)).astype(np.float32)
    np.testing.assert_allclose(median_in_lab(plain), [0.5, 0.4, 0.3], atol=0.01)
    np.testing.assert_allclose(median_in_lab(plain[:1]), plain[0], atol=1e-6)

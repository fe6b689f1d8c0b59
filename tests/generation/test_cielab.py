"""CIELAB of pictures, lists and single colours."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation.cielab import lab_of


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

"""The border between hat and hair follows their colours, where the segmenter is off by some pixels."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation.prior.labels.headgear_border import border_by_colour

SIZE = 256
HAT, HAIR = np.array([0.15, 0.2, 0.5], np.float32), np.array([0.3, 0.2, 0.1], np.float32)


@pytest.mark.parametrize("off_px", [-6, 6])
def test_a_border_that_is_off_moves_to_where_colours_change(off_px: int) -> None:
    row = np.arange(SIZE)[:, None] + np.zeros((1, SIZE), int)
    worn = (row > 30) & (row < 220)
    noise = np.random.default_rng(0).normal(0, 0.02, (SIZE, SIZE, 3))
    rgb = (np.where((row < 120)[..., None], HAT, HAIR) + noise).clip(0, 1).astype(np.float32)
    told = np.where(row < 120 + off_px, 0.9, 0.1).astype(np.float32)
    share = border_by_colour(told, worn, rgb)
    wrong = worn & ((share > 0.5) != (row < 120))
    assert wrong.sum() < 0.2 * (worn & ((told > 0.5) != (row < 120))).sum()
    np.testing.assert_array_equal(share[row < 90], told[row < 90])


def test_things_of_one_colour_keep_the_segmenters_border() -> None:
    row = np.arange(SIZE)[:, None] + np.zeros((1, SIZE), int)
    noise = np.random.default_rng(1).normal(0, 0.02, (SIZE, SIZE, 3))
    rgb = (HAIR + noise).clip(0, 1).astype(np.float32)
    told = np.where(row < 120, 0.95, 0.05).astype(np.float32)
    share = border_by_colour(told, np.ones((SIZE, SIZE), bool), rgb)
    assert ((share > 0.5) == (told > 0.5)).mean() > 0.99

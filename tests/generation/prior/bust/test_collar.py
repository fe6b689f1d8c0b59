"""The edge of clothes follows what the portrait shows of it, and its outline where a column shows none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dp360.generation import look_at_origin
from dp360.generation.prior.bust import collar
from dp360.generation.prior.bust.bust_fit import BustPlacement
from dp360.generation.prior.bust.outline import EXACT, UNKNOWN, Outline
from dp360.generation.prior.bust.sections import COLUMNS, column_angles, column_directions

ANGLE = np.abs((column_angles() + np.pi) % (2 * np.pi) - np.pi)
"""Of each column from the front, [0, pi]."""


def test_the_edge_follows_a_v_where_it_is_seen_and_is_the_curve_behind() -> None:
    differs = np.where(ANGLE < 0.6, -0.02 + 0.04 * ANGLE / 0.6, np.nan)
    followed = collar._beyond_curve(differs)
    seen = np.isfinite(differs)
    assert followed[seen] == pytest.approx(differs[seen], abs=0.007)  # its tip is rounded
    assert not followed[ANGLE > 1.8].any()
    beyond = followed[(ANGLE > 0.6) & (np.arange(COLUMNS) < COLUMNS // 2)]
    assert (np.diff(beyond) <= 1e-9).all()  # it fades away


def test_one_wrong_column_moves_nothing_and_nothing_is_followed_far() -> None:
    differs = np.where(ANGLE < 0.6, 0.0, np.nan)
    differs[3] = 0.05
    assert np.abs(collar._beyond_curve(differs)).max() < 1e-9
    assert collar._beyond_curve(np.where(ANGLE < 0.6, 0.2, np.nan)).max() <= collar._MOST_FOLLOWED


def test_the_side_that_is_seen_more_plainly_speaks_for_the_other() -> None:
    edge, weight = np.full(COLUMNS, np.nan), np.full(COLUMNS, np.nan)
    edge[5], weight[5], edge[-5], weight[-5] = 0.02, 0.9, -0.03, 0.4
    edge[7], weight[7], edge[-7], weight[-7] = 0.02, 0.6, -0.03, 0.5
    edge[9], weight[9] = 0.02, 0.9  # nothing is seen of the other side: the curve goes there
    found, trusted = collar._better_of_both_sides(edge, weight)
    assert (found[5], found[-5], found[7], found[-7]) == (0.02, 0.02, 0.02, -0.03)
    assert trusted[5] == 0.9 and trusted[-5] == 0.45
    assert np.isnan(found[-9])


def test_the_outline_tells_where_clothes_begin_unless_hair_hides_it() -> None:
    camera = look_at_origin([0.0], [0.0], size_px=512)
    heights = np.linspace(0.06, -0.2, 200)
    axis_z = np.zeros_like(heights)
    placement = BustPlacement(np.zeros((2, COLUMNS, 3)), np.eye(4), 1.0)
    points = np.stack([axis_z, heights, axis_z], axis=1)
    rows = camera.project(torch.from_numpy(points))[0, :, 1].numpy()
    lines = np.linspace(rows[0], rows[-1], 60)
    begins = float(np.interp(0.02, heights[::-1], rows[::-1]))
    kind = np.where(lines >= begins, EXACT, UNKNOWN)[None].repeat(2, axis=0)
    ends = np.stack([np.full(60, 200.0), np.where(np.arange(60) < 3, np.inf, 300.0)])  # hair hangs down on the right
    outline = Outline(camera, lines, np.zeros((2, 60)), kind, ends)
    told = collar._heights_at_outline(outline, placement, heights, axis_z)
    to_the_left = column_directions()[:, 0] < -0.9
    assert np.isfinite(told).sum() == 2 * collar._OUTLINE_COLUMNS + 1
    assert told[to_the_left & np.isfinite(told)] == pytest.approx(0.02, abs=0.006)
    assert np.isfinite(told[to_the_left]).sum() == np.isfinite(told).sum()

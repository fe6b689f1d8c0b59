"""Bands of rows: every piece is in all bands that it touches and in no other, in the order of the pieces."""

from __future__ import annotations

import numpy as np

from dp360.generation.row_bands import BAND_ROWS, bin_by_band


def test_every_band_lists_what_touches_it() -> None:
    rng = np.random.default_rng(0)
    height = 3 * BAND_ROWS + 5
    first = rng.integers(0, height, 200)
    last = np.minimum(first + rng.integers(0, 80, 200), height - 1)
    last[::7] = -1  # pieces outside the picture
    first[::7] = 0
    start, members = bin_by_band(first, last, height)
    assert len(start) == 5 and start[-1] == len(members)
    for band in range(4):
        rows = np.arange(band * BAND_ROWS, min((band + 1) * BAND_ROWS, height))
        touching = [k for k in range(200) if ((rows >= first[k]) & (rows <= last[k])).any()]
        assert members[start[band] : start[band + 1]].tolist() == touching

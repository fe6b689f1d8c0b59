"""Bands of rows that kernels paint side by side, each with its own pieces: results do not depend on threads."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

BAND_ROWS = 32
"""Rows of a band."""


@numba.njit(cache=True, nogil=True)
@no_type_check
def bin_by_band(first_row, last_row, height):
    """Lists of the pieces that touch each band, in their order (a counting sort).

    Args:
        first_row, last_row: of each piece, inside the picture; a piece whose last row is before its first is nowhere.

    Returns:
        Where each band's list starts, and the numbers of the pieces.
    """
    bands = (height + BAND_ROWS - 1) // BAND_ROWS
    start = np.zeros(bands + 1, np.int64)
    for n in range(len(first_row)):
        if first_row[n] <= last_row[n]:
            for band in range(first_row[n] // BAND_ROWS, last_row[n] // BAND_ROWS + 1):
                start[band + 1] += 1
    for band in range(bands):
        start[band + 1] += start[band]
    members = np.empty(start[bands], np.int64)
    cursor = start[:-1].copy()
    for n in range(len(first_row)):
        if first_row[n] <= last_row[n]:
            for band in range(first_row[n] // BAND_ROWS, last_row[n] // BAND_ROWS + 1):
                members[cursor[band]] = n
                cursor[band] += 1
    return start, members

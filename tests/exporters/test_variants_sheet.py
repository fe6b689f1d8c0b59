"""The sheet of variants: a row for each seed, cameras behind the head, and its origin."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dp360.exporters.provenance import provenance_from_json
from dp360.exporters.variants_sheet import SheetRow, encode, variant_cameras
from dp360.generation import Provenance

TILE = 64
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def rows_of(*seeds: int) -> list[SheetRow]:
    """A row of one colour for each seed; the last picture is half as bright."""
    rows = []
    for seed, rgb in zip(seeds, COLOURS):
        pictures = torch.tensor([*rgb, 255], dtype=torch.uint8).expand(6, 16, 16, 4).clone()
        pictures[5, ..., :3] //= 2
        rows.append(SheetRow(seed, pictures))
    return rows


def sheet_of(rows: list[SheetRow], provenance: Provenance) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encode(rows, provenance, tile_px=TILE)))).astype(int)


@pytest.mark.parametrize("count", [1, 3])
def test_rows_and_columns_stand_in_their_order(provenance: Provenance, count: int) -> None:
    sheet = sheet_of(rows_of(*range(7, 7 + count)), provenance)
    gap, label = 3, 10
    assert sheet.shape[0] == 2 * label + count * (TILE + gap)
    tops = [label + row * (TILE + gap) for row in range(count)]
    for top, rgb in zip(tops, COLOURS):
        middle = sheet[top + TILE // 2, -6 * (TILE + gap) :]
        pictures = [middle[column * (TILE + gap) + TILE // 2] for column in range(6)]
        assert [tuple(p) for p in pictures[:5]] == [rgb] * 5 and tuple(pictures[5]) == tuple(c // 2 for c in rgb)
        assert (middle == 255).all(-1).sum() == 6 * gap


def test_each_row_has_its_seed_beside_it(provenance: Provenance) -> None:
    one, other = (sheet_of(rows_of(*seeds), provenance) for seeds in ((1, 2), (1, 3)))
    beside = one.shape[1] - 6 * (TILE + 3)
    assert one.shape == other.shape
    upper, lower = slice(10, 10 + TILE), slice(13 + TILE, 13 + 2 * TILE)
    for row in (upper, lower):
        assert (one[row, :beside].sum(-1) < 600).sum() > 10  # ink
    assert np.array_equal(one[upper], other[upper]) and not np.array_equal(one[lower], other[lower])


def test_cameras_look_from_behind() -> None:
    cameras = variant_cameras(32)
    azimuth, elevation = cameras.azimuth_rad.rad2deg() % 360, cameras.elevation_rad.rad2deg()
    assert azimuth.tolist() == pytest.approx([90, 135, 180, 225, 270, 180])
    assert elevation.tolist() == pytest.approx([0, 0, 0, 0, 0, 35], abs=1e-9)


def test_the_sheet_carries_its_origin_and_is_the_same_again(provenance: Provenance) -> None:
    data = encode(rows_of(0), provenance, tile_px=TILE)
    info = Image.open(io.BytesIO(data)).info
    assert provenance_from_json(info["dp360.provenance"]) == provenance
    assert info["Description"] == provenance.statement
    assert data == encode(rows_of(0), provenance, tile_px=TILE)

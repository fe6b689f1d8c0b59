"""The sheet shows the right view in the right column and carries its origin."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dp360.exporters.contact_sheet import SheetContent, encode, nearest_views, sheet_cameras
from dp360.exporters.provenance import provenance_from_json, provenance_to_json
from dp360.generation import InputError, OrbitConfig
from dp360.reconstruction.splats import splat_pictures

PORTRAIT = torch.full((40, 30, 3), 128, dtype=torch.uint8)


def test_columns_are_45_degrees_apart_and_stay_on_the_level_ring():
    cameras = OrbitConfig().cameras(32)
    chosen = nearest_views(cameras, sheet_cameras(32).azimuth_rad)
    assert chosen == [0, 4, 8, 12, 16, 20, 24, 28]


def test_the_portraits_own_camera_is_left_out_where_asked():
    cameras = OrbitConfig(ring_count=16).cameras(32)
    assert nearest_views(cameras, torch.zeros(1, dtype=torch.float64), skip_first=True) != [0]


def test_pictures_of_splats_have_straight_alpha(ball):
    front, left = splat_pictures(ball, sheet_cameras(48)[[0, 2]]).numpy().astype(int)
    assert front.shape == (48, 48, 4) and front[24, 24, 3] > 250 and front[0, 0, 3] == 0
    assert front[24, 24, :3].min() > 200  # the bright face, from +z
    assert left[24, 24, 0] - left[24, 24, 2] > 100  # the red side, from +x
    edge = (front[..., 3] > 30) & (front[..., 3] < 200) & (front[..., 0] - front[..., 2] < 50)
    assert edge.any() and front[edge][:, 0].mean() > 60  # not darkened by the empty background


@pytest.mark.parametrize("with_splats", [True, False])
def test_sheet_reads_back_with_its_provenance(views, ball, with_splats):
    renders = splat_pictures(ball, sheet_cameras(64)) if with_splats else None
    data = encode(SheetContent(PORTRAIT, views, renders), views.provenance, tile_px=96)
    picture = Image.open(io.BytesIO(data))
    assert provenance_from_json(picture.info["dp360.provenance"]) == views.provenance
    assert picture.info["Description"] == views.provenance.statement
    assert picture.width > 8 * 96
    assert data == encode(SheetContent(PORTRAIT, views, renders), views.provenance, tile_px=96)


def test_third_column_shows_the_heads_left(views, ball):
    """The red side (+x) is in the middle of the column for +90 degrees, in both rows, and not in the one for -90."""
    renders, tile = splat_pictures(ball, sheet_cameras(64)), 96
    data = encode(SheetContent(PORTRAIT, views, renders), views.provenance, tile_px=tile)
    sheet = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    red = sheet[..., 0] - sheet[..., 2] > 100
    columns = np.array_split(red[:, -8 * (tile + round(tile * 0.045)) :], 8, axis=1)
    amounts = [int(column.sum()) for column in columns]
    assert amounts.index(max(amounts)) == 2 and amounts[6] == 0
    rows = np.flatnonzero(columns[2].any(axis=1))
    assert (np.diff(rows) > tile // 4).sum() == 1  # one red spot in each of the two rows


def test_provenance_is_one_line_and_comes_back(provenance):
    text = provenance_to_json(provenance)
    assert "\n" not in text and text.isascii() and provenance_from_json(text) == provenance
    later = json.dumps({**json.loads(text), "field_of_2030": 1})
    assert provenance_from_json(later) == provenance


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "provenance as JSON"), ("[]", "JSON object with generator"), ('{"generator": 3}', r"generator \(str\)")],
)
def test_damaged_provenance_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        provenance_from_json(text)

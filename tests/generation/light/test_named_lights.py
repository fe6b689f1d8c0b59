"""Lights by name: where the light of a panorama comes from, and which files are refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dp360.generation import InputError
from dp360.generation.light.named_lights import (
    LIGHT_NAMES,
    light_of_panorama,
    panorama_directions,
    read_panorama,
    studio_light,
    wanted_light,
)
from dp360.generation.light.spherical_harmonics import Light, open_transfer


def panorama(row: int, column: int, height: int = 64) -> np.ndarray:
    """Dim grey with one bright patch."""
    picture = np.full((height, 2 * height, 3), 0.05, np.float32)
    picture[row : row + 6, column : column + 6] = (30, 20, 10)
    return picture


def hdr(picture: np.ndarray) -> bytes:
    return cv2.imencode(".hdr", picture[..., ::-1])[1].tobytes()


@pytest.mark.parametrize(
    ("row", "column", "towards"),
    [(29, 93, (0, 0, 1)), (29, 61, (1, 0, 0)), (29, 29, (0, 0, -1)), (29, 125, (-1, 0, 0)), (0, 30, (0, 1, 0))],
)
def test_panoramas_lie_round_the_head_as_three_js_places_them(
    row: int, column: int, towards: tuple[int, int, int]
) -> None:
    light = light_of_panorama(panorama(row, column))
    found = light.towards_world / np.linalg.norm(light.towards_world)
    assert found @ np.array(towards) > 0.98
    red, green, blue = light.coefficients[0]
    assert red > green > blue


def test_the_same_from_everywhere_is_even_light() -> None:
    light = light_of_panorama(np.full((300, 600, 3), 7.0, np.float32))
    np.testing.assert_allclose(light.coefficients, Light.even().coefficients, atol=1e-3)


def test_pixels_share_the_whole_sphere() -> None:
    directions, solid_angle = panorama_directions(40, 80)
    assert 80 * solid_angle.sum() == pytest.approx(4 * np.pi)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1)
    np.testing.assert_allclose(directions[0, :, 1], np.cos(np.pi / 80))


def test_the_studio_lights_the_face_from_its_right_and_leaves_nothing_black() -> None:
    normals = np.array([[0, 0, 1.0], [-0.8, 0, 0.6], [0.8, 0, 0.6], [0, 0, -1], [0, -1, 0]])
    front, right, left, back, below = (open_transfer(normals) @ studio_light().coefficients).mean(1)
    assert right > 1.15 * left and min(back, below) > 0.25 * front


def test_a_file_is_named_with_its_hash(tmp_path: Path) -> None:
    (tmp_path / "room.HDR").write_bytes(hdr(panorama(29, 93)))
    wanted = wanted_light(str(tmp_path / "room.HDR"))
    assert wanted.name.startswith("room.HDR ") and len(wanted.name) == len("room.HDR ") + 12
    assert wanted.light is not None and abs(wanted.light.azimuth_rad) < 0.1
    assert [wanted_light(name).name for name in LIGHT_NAMES] == list(LIGHT_NAMES)
    assert wanted_light("portrait").light is None


def test_both_formats_say_the_same(tmp_path: Path) -> None:
    OpenEXR = pytest.importorskip("OpenEXR")
    picture, path = panorama(10, 50), tmp_path / "room.exr"
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for channels in ({"RGB": picture}, {c: np.ascontiguousarray(picture[..., k]) for k, c in enumerate("RGB")}):
        OpenEXR.File(header, channels).write(str(path))
        exr = wanted_light(str(path)).light
        radiance = light_of_panorama(read_panorama(hdr(picture), "room.hdr"))
        assert exr is not None
        np.testing.assert_allclose(exr.coefficients, radiance.coefficients, atol=0.02)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.hdr", b"", "expected a colour picture"),
        ("a.hdr", b"#?RADIANCE\nnonsense", "expected a colour picture"),
        ("a.exr", b"v/1\x01 and no more", "expected a colour picture"),
        ("a.hdr", hdr(np.ones((64, 64, 3), np.float32)), "twice as wide as high, got 64 x 64"),
        ("a.hdr", hdr(np.zeros((32, 64, 3), np.float32)), "finite numbers and some light"),
        ("a.jpg", b"", "a panorama"),
    ],
)
def test_what_is_no_panorama_is_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    if name.endswith(".exr"):
        pytest.importorskip("OpenEXR")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        wanted_light(str(tmp_path / name))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read the light .*nowhere\.hdr: No such file"):
        wanted_light(str(tmp_path / "nowhere.hdr"))
    with pytest.raises(InputError, match="got candle"):
        wanted_light("candle")

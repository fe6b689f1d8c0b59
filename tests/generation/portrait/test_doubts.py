"""What a picture does not show is told, and nothing is told of a good one."""

import dataclasses

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from dp360.generation.head_model import load_head_model
from dp360.generation.portrait import Portrait, prepare_portrait
from dp360.generation.portrait.doubts import doubts_about
from dp360.generation.portrait.matte import head_zones

MOUTH = (61, 291, 0, 17)


@pytest.fixture(scope="module")
def portrait(tmp_path_factory) -> Portrait:
    path = tmp_path_factory.mktemp("doubts") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return prepare_portrait(path)


def told(portrait: Portrait, **changes: object) -> tuple[str, ...]:
    p = dataclasses.replace(portrait, **changes)
    zones = head_zones(p.head, load_head_model())
    return doubts_about(p.rgb, p.alpha_unit, p.inside, p.landmarks_px, p.head, zones)


def test_a_good_portrait_raises_no_doubt(portrait):
    assert told(portrait) == () and portrait.notices == ()


@pytest.mark.parametrize(
    ("part", "where"), [(np.s_[:200], "above"), (np.s_[:, :256], "on the left"), (np.s_[:, 256:], "on the right")]
)
def test_the_edge_of_the_picture(portrait, part, where):
    inside = portrait.inside.copy()
    inside[part] = False
    (sentence,) = told(portrait, inside=inside, alpha_unit=np.where(inside, portrait.alpha_unit, np.float32(0)))
    assert sentence.startswith(f"The picture's edge cuts the head off {where};")


def test_blur(portrait):
    (sentence,) = told(portrait, rgb=cv2.GaussianBlur(portrait.rgb, (0, 0), 5.0))
    assert "blurred" in sentence


def test_a_covered_mouth(portrait):
    assert portrait.landmarks_px is not None
    x, y = portrait.landmarks_px[list(MOUTH), :2].mean(axis=0)
    rgb = portrait.rgb.copy()
    rgb[int(y) - 40 : int(y) + 40, int(x) - 60 : int(x) + 60] = (235, 238, 242)
    (sentence,) = told(portrait, rgb=rgb)
    assert "mouth is covered" in sentence


@pytest.mark.parametrize(("columns", "side"), [(np.s_[222:], "left"), (np.s_[:226], "right")])
def test_half_a_face_is_found_by_its_mirror_image(portrait, tmp_path, columns, side):
    Image.fromarray(skimage.data.astronaut()[:330, columns]).save(tmp_path / "half.png")
    half = prepare_portrait(tmp_path / "half.png")
    assert abs(float(half.head.camera.azimuth_rad[0])) < 0.1
    assert any(f"cuts the head off on the {side}" in n for n in half.notices)
    size = float(np.ptp(half.head.vertices_world[:, 1]))
    assert size == pytest.approx(float(np.ptp(portrait.head.vertices_world[:, 1])), rel=0.1)
    assert 0.4 < half.inside.mean() < 0.9


def test_a_tiny_face_is_found(tmp_path):
    Image.fromarray(skimage.data.astronaut()).resize((64, 64)).save(tmp_path / "tiny.png")
    assert any("pixels high" in n for n in prepare_portrait(tmp_path / "tiny.png").notices)

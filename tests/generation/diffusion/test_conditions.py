"""Control pictures and start views: ours, and the ones that people hand in."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from dp360.generation import InputError, OrbitConfig, look_at_origin, orbit
from dp360.generation.diffusion import conditions
from dp360.generation.diffusion.conditions import (
    camera_behind_the_head,
    generic_head,
    generic_head_control,
)
from dp360.generation.diffusion.view_pictures import (
    ViewPictures,
    behind_the_head,
    pictures_for_cameras,
    read_back_picture,
    read_view_pictures,
    ring_frames,
)
from dp360.generation.mesh import TexturedMesh

FRONT, LEFT, BACK, RIGHT = range(4)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> TexturedMesh:
    """The generic head, built once for the process and kept out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return generic_head()


def numbered(count: int, size: int = 16) -> torch.Tensor:
    """Frames whose red is their number."""
    frames = torch.zeros(count, size, size, 3, dtype=torch.uint8)
    frames[..., 0] = torch.arange(count, dtype=torch.uint8)[:, None, None]
    return frames


def write_folder(folder: Path, frames: torch.Tensor, name: str = "{:07d}.png") -> Path:
    folder.mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame.numpy()).save(folder / name.format(i))
    return folder


def write_film(path: Path, frames: torch.Tensor) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *frames.shape[2:0:-1], "yuv420p", 20_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.numpy(), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_control_pictures_show_a_head_over_white_from_every_side(head):
    control = generic_head_control(orbit(4, size_px=96))
    assert control.shape == (4, 3, 96, 96) and control.dtype == torch.float32
    assert control.min() >= -1 and control.max() <= 1
    assert bool((control[:, :, 0] == 1).all())  # background along the top
    assert bool((control[:, :, 48, 48] < 0.9).any(dim=1).all())  # a head in the middle
    skin = control[:, :, 50:60, 40:56].mean((2, 3))  # face below the eyes in front, hair behind
    assert skin[FRONT].mean() > skin[BACK].mean() + 0.2
    dark = (control.mean(1) < 0.9).float()  # the nose tip stands out in front on both sides
    columns = torch.arange(96.0)
    middle = (dark[:, 40:60].sum(1) * columns).sum(1) / dark[:, 40:60].sum((1, 2))
    assert middle[LEFT] > 47.5 > middle[RIGHT]  # more head (its back) on the right when seen from its left


def test_left_and_right_can_be_told_apart_even_from_behind(head):
    behind, mirrored = generic_head_control(look_at_origin([math.pi - 0.2, math.pi + 0.2], [0.0, 0.0], size_px=96))
    assert float((behind - mirrored.flip(-1)).abs().mean()) > 0.02


def test_each_control_picture_depends_on_its_own_camera_alone(head):
    cameras = OrbitConfig(3, 2, lower_count=1).cameras(64)
    together = generic_head_control(cameras)
    alone = [generic_head_control(camera)[0] for camera in cameras]
    assert torch.equal(together, torch.stack(alone))
    assert torch.allclose(together[:, :, 0], torch.ones(1))


def test_the_generic_head_is_built_once_and_again_where_its_file_is_damaged(head, tmp_path, monkeypatch):
    built = []

    class Prior:
        def textured_mesh(self) -> TexturedMesh:
            built.append(1)
            return head

    monkeypatch.setattr(conditions, "prepare_portrait", lambda path: path)
    monkeypatch.setattr(conditions, "build_head_prior", lambda portrait: Prior())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fresh = generic_head.__wrapped__
    fresh()
    (file,) = (tmp_path / "dp360").iterdir()
    again = fresh()
    for name in ("vertices_world", "normals_world", "uv_unit", "faces", "texture_rgb"):
        assert np.array_equal(getattr(again, name), getattr(head, name))
    assert len(built) == 1
    file.write_bytes(file.read_bytes()[:1000])
    fresh()
    assert len(built) == 2 and file.stat().st_size > 1000
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # a file in the way: nothing can be kept
    assert np.array_equal(fresh().faces, head.faces) and len(built) == 3


@pytest.mark.parametrize("name", ["prior/hair/deep.py", "portrait/near.py", "weights/net.safetensors", "weights/h.npz"])
def test_a_head_built_by_other_code_or_networks_is_kept_apart(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(conditions.resources, "files", lambda package: tmp_path)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"one")
    before = conditions._what_decides(b"picture")
    (tmp_path / name).write_bytes(b"two")
    assert conditions._what_decides(b"picture") != before


def test_the_camera_behind_the_head_is_the_releases_frame_16_of_32():
    behind = camera_behind_the_head(orbit(2, size_px=48))
    assert torch.allclose(behind.T_world_camera[0], orbit(32).T_world_camera[16], atol=1e-12)
    assert (behind.width, behind.height) == (48, 48)


@pytest.mark.parametrize(
    ("views", "frames", "expected"),
    [(8, 32, range(0, 32, 4)), (4, 8, (0, 2, 4, 6)), (6, 4, (0, 1, 1, 2, 3, 3)), (5, 1, (0,) * 5)],
)
def test_a_ring_of_another_length_gives_the_nearest_frames(views, frames, expected):
    given = ViewPictures(numbered(frames), "given")
    assert given.rows_for(orbit(views)).tolist() == list(expected)


def test_a_ring_begins_in_front_and_goes_to_the_heads_left():
    cameras = look_at_origin([0.0, math.pi / 2, math.pi, -math.pi / 2, -0.01], [0.0] * 5)
    assert ring_frames(cameras, 32).tolist() == [0, 8, 16, 24, 0]


def test_one_picture_per_camera_is_taken_in_order_whatever_the_cameras():
    cameras = OrbitConfig(4, 3, lower_count=2).cameras(16)
    pictures = pictures_for_cameras(ViewPictures(numbered(9), "given"), cameras)
    assert torch.equal((pictures[:, 0, 0, 0] * 255).round(), torch.arange(9.0))


def test_a_ring_cannot_serve_cameras_from_above():
    with pytest.raises(InputError, match=r"given: expected 9 pictures, one per view, got 8; .* 35 degrees.*--rings"):
        ViewPictures(numbered(8), "given").rows_for(OrbitConfig(4, 3, lower_count=2).cameras(16))


def test_pictures_of_another_shape_are_refused():
    with pytest.raises(InputError, match="given: expected the shape of the views, 64x64, got 32x16"):
        pictures_for_cameras(ViewPictures(torch.zeros(4, 16, 32, 3, dtype=torch.uint8), "given"), orbit(4, size_px=64))


def test_the_picture_from_behind_is_found_where_there_is_one():
    assert behind_the_head(ViewPictures(numbered(32), "ring"), orbit(8)) == 16
    assert behind_the_head(ViewPictures(numbered(8), "views"), orbit(8)) == 4
    assert behind_the_head(ViewPictures(numbered(3), "ring"), orbit(8)) is None
    assert behind_the_head(ViewPictures(numbered(2), "views"), look_at_origin([0.0, 1.0], [0.0, 0.0])) is None


@pytest.mark.parametrize("name", ["{:07d}.png", "{}.png", "view {}.bmp"])
def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path, name):
    folder = write_folder(tmp_path / "ring", numbered(12), name)
    (folder / "notes.txt").write_text("mine")
    (folder / ".hidden.png").write_text("no picture")
    pictures = read_view_pictures(folder)
    assert torch.equal(pictures.rgb, numbered(12)) and pictures.source == str(folder)


def test_a_transparent_picture_lies_over_white(tmp_path):
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:8, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "back.png")
    pictures = read_back_picture(tmp_path / "back.png")
    assert pictures.rgb.shape == (1, 16, 16, 3)
    assert pictures.rgb[0, 0, 0].tolist() == [0, 0, 0] and pictures.rgb[0, 15, 0].tolist() == [255, 255, 255]


def test_a_film_gives_its_frames_in_order(tmp_path):
    frames = torch.zeros(12, 64, 64, 3, dtype=torch.uint8)
    frames[:] = (torch.arange(12) * 20).byte()[:, None, None, None]
    film = read_view_pictures(write_film(tmp_path / "condition12.mp4", frames))
    assert film.rgb.shape == frames.shape
    assert float((film.rgb.float() - frames.float()).abs().max()) < 6  # lossy


def no_frames(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def cut_off(path: Path) -> None:
    write_film(path, torch.zeros(12, 64, 64, 3, dtype=torch.uint8))
    path.write_bytes(path.read_bytes()[:60])


def two_sizes(path: Path) -> None:
    write_folder(path, numbered(2))
    Image.new("RGB", (20, 16)).save(path / "9.png")


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda path: None, "missing", "no such file or folder; expected a folder of pictures or a film"),
        (Path.mkdir, "empty", "no pictures in this folder; expected files such as 0000000.png, one per view"),
        (lambda path: path.write_text("{}"), "dataset.json", "expected a folder of pictures or a film"),
        (lambda path: path.write_bytes(b""), "film.mp4", "the film cannot be decoded"),
        (lambda path: path.write_text("no film"), "film.mp4", "the film cannot be decoded"),
        (cut_off, "film.mp4", "the film cannot be decoded"),
        (no_frames, "film.mp4", "the film holds no pictures"),
        (two_sizes, "ring", r"expected pictures of one size, got 16 x 16 and 20 x 16 \(9.png\)"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, make, name, message):
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as refusal:
        read_view_pictures(tmp_path / name)
    assert name in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_damaged_picture_in_a_folder_is_named(tmp_path):
    folder = write_folder(tmp_path / "ring", numbered(2))
    (folder / "0000001.png").write_bytes((folder / "0000001.png").read_bytes()[:50])
    with pytest.raises(InputError, match=r"0000001.png: the picture is damaged"):
        read_view_pictures(folder)

"""The release's folders: files found by name, camera labels read and written, finished views with their cameras."""

from __future__ import annotations

import json
import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dp360.generation import InputError, look_at_origin, orbit
from dp360.generation.cameras import cameras_from_panohead_label, panohead_label_from_cameras
from dp360.generation.diffusion.release.aligned import AlignedPicture, read_aligned_picture
from dp360.generation.diffusion.release.folder import (
    ReleaseFolder,
    label_of,
    read_labels,
    read_result,
    release_ring,
)

SIZE = 64
LABEL = panohead_label_from_cameras(look_at_origin([0.1], [-0.05]))[0]


def ball_on(background: tuple[int, int, int], frames: int = 8) -> np.ndarray:
    """Pictures of a dark ball."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    inside = (x - 32) ** 2 + (y - 32) ** 2 < 18**2
    picture = np.where(inside[..., None], (60, 40, 30), background).astype(np.uint8)
    return np.repeat(picture[None], frames, axis=0)


def write_film(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = SIZE, SIZE, "yuv420p", 20_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_labels(path: Path, labels: dict[str, Tensor]) -> None:
    """A dataset.json as PanoHead writes it."""
    path.write_text(json.dumps({"labels": [[name, label.tolist()] for name, label in labels.items()]}))


@pytest.fixture
def release(tmp_path) -> Path:
    """A folder as the release leaves it, for the portraits ada and bob."""
    root = tmp_path / "sample_data"
    for part in ("input_image", "cam_condition/sphere32", "cam_condition/sphere8", "3DNoise/ada", "Back_Head"):
        (root / part).mkdir(parents=True)
    picture = Image.fromarray(ball_on((255, 255, 255))[0])
    picture.save(root / "input_image" / "ada.jpg")
    picture.save(root / "input_image" / "bob.png")
    picture.save(root / "Back_Head" / "ada.png")
    write_film(root / "3DNoise" / "ada" / "condition32.mp4", ball_on((255, 255, 255), 32))
    write_film(root / "result" / "ada.png.mp4", ball_on((255, 255, 255)))
    write_labels(root / "input_image" / "dataset.json", {"ada.png": LABEL, "bob.png": LABEL})
    return root


@pytest.mark.parametrize("name", ["ada", "ada.png", "ada.jpg"])
def test_every_file_of_a_portrait_is_found_by_its_name(release, name):
    found = ReleaseFolder.find(release, name)
    assert found == ReleaseFolder.find(release.parent, name)
    assert found == ReleaseFolder(
        root=release,
        name="ada",
        input_image=release / "input_image" / "ada.jpg",
        labels=release / "input_image" / "dataset.json",
        result=release / "result" / "ada.png.mp4",
    )
    label = found.label()
    assert label is not None and torch.equal(label, LABEL)


def test_what_is_not_there_is_none_and_what_is_nowhere_is_named(release):
    bob = ReleaseFolder.find(release, "bob")
    assert bob.input_image is not None and bob.result is None
    with pytest.raises(InputError, match=r"nothing named 'eve' in it; it has ada, bob"):
        ReleaseFolder.find(release, "eve")
    with pytest.raises(InputError, match="expected the release's layout, a folder with input_image, cam_condition"):
        ReleaseFolder.find(release / "Back_Head", "ada")
    with pytest.raises(InputError, match=r"no result/bob.png.mp4 in it; run the release's last step"):
        read_result(bob)


def test_labels_are_read_as_numbers_or_texts(tmp_path):
    labels = panohead_label_from_cameras(orbit(3))
    path = tmp_path / "dataset.json"
    write_labels(path, {"ada.png": labels[0], "bob.png": labels[1], "c.d.png": labels[2]})
    assert torch.equal(torch.stack(list(read_labels(path).values())), labels)
    assert torch.equal(label_of(path, "ada.jpg"), labels[0]) and torch.equal(label_of(path, "c.d"), labels[2])
    entries = json.loads(path.read_text())["labels"]
    texts = {"labels": [[name, [str(x) for x in values]] for name, values in entries]}
    path.write_text(json.dumps(texts))  # as in the release's sample
    assert torch.equal(torch.stack(list(read_labels(path).values())), labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not valid JSON"),
        ("[]", "expected .*labels.* as PanoHead writes it"),
        ('{"labels": {}}', "expected .*labels.* as PanoHead writes it"),
        ('{"labels": [["a.png"]]}', "expected entries of a name and 25 numbers"),
        ('{"labels": [["a.png", [1, 2]]]}', "expected 25 finite numbers for a.png, got 2"),
        ('{"labels": [["a.png", ["x"]]]}', "the label of a.png holds something that is no number"),
        (json.dumps({"labels": [["a.png", [0.0] * 25]]}), "the label of a.png is no camera"),
        (json.dumps({"labels": [["a.png", LABEL.tolist()]]}), "no camera of 'ada' in it; it has a"),
    ],
)
def test_damaged_labels_are_one_sentence(tmp_path, content, message):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=message):
        label_of(tmp_path / "dataset.json", "ada")


def test_labels_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"Cannot read .*dataset.json: No such file"):
        read_labels(tmp_path / "dataset.json")


@pytest.mark.parametrize("count", [8, 32, 36])
def test_the_releases_cameras_are_nearly_an_even_ring(count):
    ours, theirs = orbit(count), release_ring(count)
    assert torch.allclose(theirs.T_world_camera[:, :3, :3], ours.T_world_camera[:, :3, :3], atol=1e-2)
    assert torch.allclose(theirs.position_world / 2.7, ours.position_world / 2.7, atol=1e-2)
    assert torch.equal(theirs.focal_px, ours.focal_px) and torch.equal(theirs.principal_px, ours.principal_px)
    R = theirs.T_world_camera[:, :3, :3]
    assert torch.allclose(R @ R.mT, torch.eye(3, dtype=R.dtype).expand_as(R), atol=1e-12)
    assert torch.allclose(torch.linalg.det(R), torch.ones(count, dtype=R.dtype))


def test_the_releases_frames_start_in_front_and_go_to_plus_x():
    position = release_ring(32).position_world
    for frame, expected in ((0, (0, 0, 2.7)), (8, (2.7, 0, 0)), (16, (0, 0, -2.7)), (24, (-2.7, 0, 0))):
        assert torch.allclose(position[frame], torch.tensor(expected, dtype=torch.float64), atol=0.02)
    # 3.14 is not pi, and the release's pictures were made so: the difference is there and small
    step = math.remainder(float(release_ring(32).azimuth_rad[31] - orbit(32).azimuth_rad[31]), 2 * math.pi)
    assert 0.001 < abs(step) < 0.005


@pytest.mark.parametrize("background", [(255, 255, 255), (128, 128, 128)])
def test_a_finished_result_becomes_cut_out_views(release, background):
    write_film(release / "result" / "ada.png.mp4", ball_on(background))
    rgba, cameras = read_result(ReleaseFolder.find(release, "ada"))
    assert rgba.shape == (8, SIZE, SIZE, 4) and len(cameras) == 8 and cameras.width == SIZE
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    inside = torch.from_numpy((x - 32) ** 2 + (y - 32) ** 2 < 18**2)
    alpha = rgba[..., 3] > 127
    assert float((alpha == inside).float().mean()) > 0.99
    assert float((rgba[0, 32, 32, :3].float() - torch.tensor([60.0, 40.0, 30.0])).abs().max()) < 12


def test_results_that_cannot_be_cut_out_are_refused(release):
    noise = np.random.default_rng(0).integers(0, 255, (8, SIZE, SIZE, 3), dtype=np.uint8)
    write_film(release / "result" / "ada.png.mp4", noise)
    with pytest.raises(InputError, match=r"ada.png.mp4: frame 0 has no plain background"):
        read_result(ReleaseFolder.find(release, "ada"))
    (release / "result" / "ada.png.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="the film cannot be decoded"):
        read_result(ReleaseFolder.find(release, "ada"))


def test_an_aligned_picture_keeps_its_pixels_and_its_camera(tmp_path):
    rgba = np.dstack([ball_on((255, 255, 255))[0], np.zeros((SIZE, SIZE), np.uint8)])
    rgba = np.kron(rgba, np.ones((4, 4, 1), np.uint8))  # 256 px
    y, x = np.mgrid[:256, :256] + 0.5
    rgba[..., 3] = 255 * ((x - 128) ** 2 + (y - 120) ** 2 < 90**2)
    Image.fromarray(rgba).save(tmp_path / "ada.png")
    aligned = read_aligned_picture(tmp_path / "ada.png", LABEL)
    assert aligned.rgba.shape == (256, 256, 4)
    assert torch.equal(aligned.rgba[..., 3], torch.from_numpy(rgba[..., 3]))
    inner = torch.from_numpy((x - 128) ** 2 + (y - 120) ** 2 < 80**2)
    assert int((aligned.rgba[..., :3].int() - torch.from_numpy(rgba[..., :3]).int())[inner].abs().max()) <= 2
    assert torch.allclose(panohead_label_from_cameras(aligned.camera)[0], LABEL) and aligned.camera.width == 256
    expected = cameras_from_panohead_label(LABEL[None], size_px=256)
    assert torch.allclose(aligned.camera.T_world_camera, expected.T_world_camera)


def test_an_aligned_picture_at_another_size_and_over_white():
    rgba = torch.zeros(64, 64, 4, dtype=torch.uint8)
    rgba[:, :32] = torch.tensor([10, 20, 30, 255], dtype=torch.uint8)
    aligned = AlignedPicture(rgba, cameras_from_panohead_label(LABEL[None], size_px=64))
    assert aligned.resized_rgba(32).shape == (32, 32, 4) and torch.equal(aligned.resized_rgba(64), rgba)
    over = aligned.over_white(64)
    assert torch.allclose(over[:, 5, 5] * 255, torch.tensor([10.0, 20.0, 30.0]), atol=0.6)
    assert torch.equal(over[:, 5, 60], torch.ones(3))


def test_a_crop_that_is_not_square_is_not_aligned(tmp_path):
    Image.new("RGB", (96, 80)).save(tmp_path / "ada.png")
    with pytest.raises(InputError, match=r"ada.png: expected an aligned crop, which is square, got 96x80 pixels"):
        read_aligned_picture(tmp_path / "ada.png", LABEL)

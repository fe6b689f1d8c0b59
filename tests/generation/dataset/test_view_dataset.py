"""Laws of the data set on disk: what goes out comes back, the bytes repeat, stock readers agree, bad input is named."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dp360.generation import InputError, PointCloud
from dp360.generation.dataset import view_dataset
from dp360.generation.dataset.point_cloud_ply import decode_point_cloud, encode_point_cloud
from dp360.generation.dataset.posed_frames import MAX_PICTURES
from dp360.generation.dataset.view_dataset import background_notice, read_confidence, read_dataset, write_dataset


@pytest.fixture(scope="module")
def views(make_sphere_views):
    views = make_sphere_views(ring_count=8, size_px=32)
    # Intrinsics and poses with every bit in use.
    cameras = replace(views.cameras, focal_px=views.cameras.focal_px * math.pi / 3)
    return replace(views, cameras=cameras)


@pytest.fixture
def folder(views, tmp_path):
    write_dataset(views, tmp_path / "data")
    return tmp_path / "data"


def _edit(folder: Path, change) -> None:
    meta = json.loads((folder / "transforms.json").read_text())
    meta = change(meta) or meta
    (folder / "transforms.json").write_text(json.dumps(meta))


def test_round_trip_is_exact(views, folder):
    back = read_dataset(folder)
    assert torch.equal(back.rgba, views.rgba)
    assert torch.equal(back.cameras.T_world_camera, views.cameras.T_world_camera)
    assert torch.equal(back.cameras.focal_px, views.cameras.focal_px)
    assert torch.equal(back.cameras.principal_px, views.cameras.principal_px)
    assert torch.equal(back.confidence, views.confidence)
    assert (back.names, back.provenance) == (views.names, views.provenance)
    assert torch.equal(back.surface.points_world, views.surface.points_world)
    assert torch.equal(back.surface.normals_world, views.surface.normals_world)
    torch.testing.assert_close(back.surface.rgb_unit, views.surface.rgb_unit, atol=0.5 / 255 + 1e-6, rtol=0)


def test_intrinsics_that_differ_are_written_per_frame(views, tmp_path):
    focal = views.cameras.focal_px * torch.linspace(1, 1.1, len(views), dtype=torch.float64)[:, None]
    write_dataset(replace(views, cameras=replace(views.cameras, focal_px=focal)), tmp_path / "d")
    assert torch.equal(read_dataset(tmp_path / "d").cameras.focal_px, focal)


def test_same_views_same_bytes_even_after_a_round_trip(views, folder, tmp_path):
    write_dataset(read_dataset(folder), tmp_path / "again")
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert len(files) == 2 * len(views) + 2
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_stock_dataparser_gives_back_our_poses_and_points(views, folder):
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    config = NerfstudioDataParserConfig(
        data=folder, orientation_method="none", center_method="none", auto_scale_poses=False, load_3D_points=True
    )
    train = config.setup().get_dataparser_outputs("train")
    order = [views.names.index(path.stem) for path in train.image_filenames]
    assert sorted(order) == list(range(len(views)))
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    poses = views.cameras.T_world_camera[order].float()
    torch.testing.assert_close(train.cameras.camera_to_worlds[:, :, :3] @ flip, poses[:, :3, :3])
    torch.testing.assert_close(train.cameras.camera_to_worlds[:, :, 3], poses[:, :3, 3])
    torch.testing.assert_close(train.cameras.get_intrinsics_matrices(), views.cameras.K_px[order].float())
    torch.testing.assert_close(train.metadata["points3D_xyz"], views.surface.points_world)
    assert abs(train.metadata["points3D_rgb"].float() / 255 - views.surface.rgb_unit).max() < 1.01 / 255
    val = config.setup().get_dataparser_outputs("val")
    assert [path.stem for path in val.image_filenames] == list(views.names[::8])


def test_somebody_elses_data_set(views, folder):
    """No block of ours, RGB pictures with masks, no points: confidence 1, alpha from masks, surface from the hull."""

    def foreign(meta):
        for key in ("dp360", "ply_file_path", "train_filenames", "val_filenames", "test_filenames"):
            del meta[key]
        for frame in meta["frames"]:
            frame["mask_path"] = frame["file_path"].replace("images", "masks")

    _edit(folder, foreign)
    for path in (folder / "images").iterdir():
        Image.open(path).convert("RGB").save(path)
    back = read_dataset(folder)
    assert torch.equal(back.rgba, views.rgba)
    assert bool((back.confidence == 1).all())
    radii = back.surface.points_world.norm(dim=-1)
    assert len(radii) > 500
    assert 0.25 < radii.min() and radii.max() < 0.37  # the true radius is 0.3, cells measure 0.02
    outward = torch.nn.functional.normalize(back.surface.points_world, dim=-1)
    assert (outward * back.surface.normals_world).sum(dim=-1).median() > 0.9
    error = (back.surface.rgb_unit - (0.5 + 0.45 * outward)).abs().mean()
    assert error < 0.1


def test_files_as_windows_programs_write_them(views, folder):
    """A byte order mark, backslashes, and a lens whose distortion moves nothing."""

    def windows(meta):
        meta.update(k1=1e-7, k2=-1e-8, p1=1e-9, k4=0.0)
        for frame in meta["frames"]:
            frame["file_path"] = frame["file_path"].replace("/", "\\")

    _edit(folder, windows)
    path = folder / "transforms.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert torch.equal(read_dataset(folder).rgba, views.rgba)


@pytest.mark.parametrize("key", ["k1", "k4", "p1"])
def test_distortion_is_measured_in_pixels(views, folder, key):
    """In an orbit's narrow lens r is at most 0.17: high powers of it vanish unless their factors are enormous."""
    _edit(folder, lambda meta: meta.update({key: 1e-6}))
    assert torch.equal(read_dataset(folder).rgba, views.rgba)
    _edit(folder, lambda meta: meta.update({key: 1e6}))
    with pytest.raises(InputError, match="frame 0 has lens distortion"):
        read_dataset(folder)


def test_pictures_without_alpha_are_told(views, folder):
    assert background_notice(read_dataset(folder)) is None
    for path in (folder / "images").iterdir():
        Image.open(path).convert("RGB").save(path)
    notice = background_notice(read_dataset(folder))
    assert notice is not None and "background is taken for surface" in notice and "mask_path" in notice


def test_confidence_alone(views, folder):
    assert read_confidence(folder) == {n: float(c) for n, c in zip(views.names, views.confidence)}


def test_names_that_are_no_file_names_are_refused(views, tmp_path):
    for bad in ("../x", "a/b", "", ".hidden", views.names[1].upper()):
        with pytest.raises(ValueError, match="distinct names"):
            write_dataset(replace(views, names=(bad, *views.names[1:])), tmp_path / "d")
    assert not (tmp_path / "d").exists()


def _first_pose(value):
    def change(meta):
        meta["frames"][0]["transform_matrix"] = value(np.array(meta["frames"][0]["transform_matrix"])).tolist()

    return change


def _set(key, value, *, frame=True):
    def change(meta):
        (meta["frames"][0] if frame else meta)[key] = value

    return change


def _million_frames(meta):
    meta["frames"] = [{}] * (MAX_PICTURES + 1)


BAD = {
    "not a data set": (lambda meta: {"a": 1}, "no `frames`"),
    "no frames": (_set("frames", [], frame=False), "no `frames`"),
    "too many frames": (_million_frames, "at most"),
    "no file_path": (lambda meta: meta["frames"][0].pop("file_path") and None, "has no `file_path`"),
    "too long": (_set("file_path", "x" * 5000), "File name too long"),
    "cloud too long": (_set("ply_file_path", "x" * 5000, frame=False), "File name too long"),
    "dot dot": (_set("file_path", "images/../../secret.png"), "inside the data set"),
    "absolute": (_set("file_path", "/etc/passwd"), "inside the data set"),
    "dot dot with backslashes": (_set("file_path", "images\\..\\..\\secret.png"), "inside the data set"),
    "root with a backslash": (_set("file_path", "\\etc\\passwd"), "inside the data set"),
    "windows absolute": (_set("file_path", "C:\\secret.png"), "inside the data set"),
    "ply out": (_set("ply_file_path", "../sparse_pc.ply", frame=False), "inside the data set"),
    "missing picture": (_set("file_path", "images/none.png"), "does not exist"),
    "missing points": (_set("ply_file_path", "none.ply", frame=False), "does not exist"),
    "no pose": (lambda meta: meta["frames"][0].pop("transform_matrix") and None, "no 4x4"),
    "short pose": (_first_pose(lambda T: T[:2]), "no 4x4"),
    "NaN pose": (_first_pose(lambda T: T * float("nan")), "NaN"),
    "infinite pose": (_first_pose(lambda T: T + 1e999), "Infinity"),
    "scaled pose": (_first_pose(lambda T: T * 2), "not rigid"),
    "reflection": (_first_pose(lambda T: T @ np.diag([-1.0, 1, 1, 1])), "reflection"),
    "projective pose": (_first_pose(lambda T: T + np.eye(4)[3][:, None] * 0.1), "not rigid"),
    "no focal length": (lambda meta: meta.pop("fl_x") and None, "no `fl_x`"),
    "negative focal length": (_set("fl_x", -1.0, frame=False), "impossible"),
    "text as a number": (_set("cx", "left", frame=False), "finite number"),
    "wrong size": (_set("w", 64, frame=False), "transforms.json says"),
    "sizes that differ": (_set("w", 64), "one size"),
    "huge size": (_set("w", 10**9, frame=False), "memory"),
    "fisheye": (_set("camera_model", "OPENCV_FISHEYE", frame=False), "undistort"),
    "distortion": (_set("k1", 0.1, frame=False), "undistort"),
    "confidences too few": (lambda meta: meta["dp360"]["confidence"].pop() and None, "one confidence"),
    "confidence out of range": (lambda meta: meta["dp360"].update(confidence=[2.0] * 10), r"\[0, 1\]"),
    "foreign provenance": (lambda meta: meta["dp360"].update(provenance={"x": 1}), "provenance"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_transforms_are_refused_in_one_sentence(folder, name):
    change, message = BAD[name]
    _edit(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)


def test_other_damage_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_dataset(tmp_path / "nothing")
    picture = folder / "images" / "portrait.png"
    whole = picture.read_bytes()
    for data in (b"", b"not a picture", whole[: len(whole) // 2]):
        picture.write_bytes(data)
        with pytest.raises(InputError, match="Cannot read the picture"):
            read_dataset(folder)
    picture.unlink()
    outside = tmp_path / "outside.png"
    outside.write_bytes(whole)
    os.symlink(outside, picture)
    with pytest.raises(InputError, match="link out"):
        read_dataset(folder)
    (folder / "transforms.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_dataset(folder)


def test_a_failed_write_leaves_the_earlier_data_set(views, folder):
    before = (folder / "transforms.json").read_bytes()
    broken = replace(views, confidence=torch.full((len(views),), float("nan")))
    with pytest.raises(ValueError):
        write_dataset(broken, folder)
    assert (folder / "transforms.json").read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_point_cloud_ply_agrees_with_other_readers(views, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path / "points.ply"
    path.write_bytes(encode_point_cloud(views.surface))
    cloud = trimesh.load(path)
    np.testing.assert_array_equal(np.asarray(cloud.vertices, np.float32), views.surface.points_world.numpy())
    np.testing.assert_allclose(cloud.colors[:, :3] / 255, views.surface.rgb_unit.numpy(), atol=0.51 / 255)


def test_thin_samples_keep_their_axes(views, tmp_path):
    o3d = pytest.importorskip("open3d")
    axes = torch.zeros_like(views.surface.points_world)
    axes[::3] = 0.01 * torch.randn(len(axes[::3]), 3, generator=torch.Generator().manual_seed(0))
    thin = replace(views.surface, half_axes_world=axes)
    data = encode_point_cloud(thin)
    read = decode_point_cloud(data)
    assert read.half_axes_world is not None and torch.equal(read.half_axes_world, axes)
    assert torch.equal(read.points_world, thin.points_world)
    chosen = thin[torch.tensor([3, 1])].half_axes_world
    assert chosen is not None and torch.equal(chosen, axes[[3, 1]])
    (tmp_path / "thin.ply").write_bytes(data)  # as nerfstudio reads it
    other = np.asarray(o3d.io.read_point_cloud(str(tmp_path / "thin.ply")).points, np.float32)
    np.testing.assert_array_equal(other, thin.points_world.numpy())
    assert decode_point_cloud(encode_point_cloud(views.surface)).half_axes_world is None
    nan = encode_point_cloud(replace(thin, half_axes_world=torch.full_like(axes, float("nan"))))
    with pytest.raises(InputError, match="NaN"):
        decode_point_cloud(nan)


def test_point_cloud_ply_as_text_and_lies_in_headers(views):
    text = (
        b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    cloud = decode_point_cloud(text + b"1 2 3\n4 5 6\n")
    assert torch.equal(cloud.points_world, torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
    assert torch.equal(cloud.normals_world, torch.zeros(2, 3)) and torch.equal(cloud.rgb_unit, torch.full((2, 3), 0.5))
    whole = encode_point_cloud(views.surface)
    lying = whole.replace(b"element vertex 500", b"element vertex 5000000000000")
    nan = encode_point_cloud(PointCloud(torch.full((1, 3), float("nan")), torch.zeros(1, 3), torch.zeros(1, 3)))
    for data, message in (
        (b"", "not a readable PLY"),
        (b"\x89PNG\r\n", "not a readable PLY"),
        (whole[:100], "not a readable PLY"),
        (whole[:-1], "not a readable PLY"),
        (lying, "not a readable PLY"),
        (text + b"1 2 3\n", "shorter"),
        (text + b"1 2\n4 5 6\n", "not a readable PLY|shorter"),
        (text.replace(b"2\n", b"99999999999\n") + b"1 2 3\n", "shorter"),
        (whole.replace(b"float x", b"float q"), "no field of name x"),
        (nan, "NaN"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            decode_point_cloud(data)
        assert "\n" not in str(caught.value)


def test_more_than_the_memory_holds_is_refused_before_anything_is_read(folder, monkeypatch):
    """A data set is kept as bytes: 10 pictures of 32x32 are 40 kB, of which three quarters of the memory may be."""
    monkeypatch.setattr(view_dataset, "machine_memory_bytes", lambda: 55_000)
    assert len(read_dataset(folder)) == 10
    monkeypatch.setattr(view_dataset, "machine_memory_bytes", lambda: 54_000)
    (folder / "images" / "portrait.png").unlink()  # would be missed if anything was read
    with pytest.raises(InputError, match=r"10 pictures of 32x32 need 0\.0 GB of memory, at most 0\.0 GB are used"):
        read_dataset(folder)

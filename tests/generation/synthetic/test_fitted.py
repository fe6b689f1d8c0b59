"""Composed heads through the real pipeline: the true head lies in the fitted frame where the portrait shows it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dp360.generation import InputError, look_at_origin
from dp360.generation.dataset.view_dataset import read_dataset
from dp360.generation.portrait import FaceNetworks, read_portrait
from dp360.generation.portrait.person_networks import PersonNetworks
from dp360.generation.similarity import Similarity
from dp360.generation.synthetic.assets import asset_index
from dp360.generation.synthetic.compose import compose
from dp360.generation.synthetic.composed_recipe import ComposedRecipe, sample_recipe
from dp360.generation.synthetic.fitted_composed_head import (
    PHOTOGRAPHS,
    FittedComposedHead,
    fitted_head,
)
from dp360.generation.synthetic.head_dataset import (
    FACTS,
    PORTRAIT,
    HeadData,
    Orbit,
    head_data,
    orbit_cameras,
    write_head_dataset,
)
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds

HEADS = Path(__file__).parents[4] / "shared" / "data" / "heads"
pytestmark = pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")
CLEAN = dataclasses.replace(PHOTOGRAPHS, photographed=0.0, cut=0.0)
NUMBER = 1


@pytest.fixture(scope="module")
def recipe() -> ComposedRecipe:
    return sample_recipe(NUMBER, asset_index(), "train")


@pytest.fixture(scope="module")
def fitted(recipe: ComposedRecipe) -> FittedComposedHead:
    backgrounds = Backgrounds.of_split(HEADS, "train")
    made = fitted_head(compose(recipe, HEADS), backgrounds, NUMBER, FaceNetworks(), PersonNetworks(), CLEAN)
    assert made is not None
    return made


def test_moved_cameras_see_a_moved_world_as_before() -> None:
    rng = np.random.default_rng(0)
    R = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    move = Similarity(1.3, R * np.sign(np.linalg.det(R)), rng.normal(size=3))
    cameras = look_at_origin([0.3, 2.0], [0.1, -0.4], size_px=64)
    points = rng.normal(0, 0.1, (30, 3))
    before = cameras.project(torch.from_numpy(points))
    moved = dataclasses.replace(
        cameras, T_world_camera=torch.from_numpy(move.moved_poses(cameras.T_world_camera.numpy()))
    )
    after = moved.project(torch.from_numpy(move(points)))
    torch.testing.assert_close(after[..., :2], before[..., :2])
    torch.testing.assert_close(after[..., 2], move.scale * before[..., 2])


def test_the_true_view_from_the_fitted_camera_is_the_portrait(fitted: FittedComposedHead) -> None:
    portrait = fitted.portrait
    views = fitted.true_views(portrait.head.camera.resized(192, 192))
    shown = cv2.resize(portrait.rgb, (192, 192), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    alpha = cv2.resize(portrait.alpha_unit, (192, 192), interpolation=cv2.INTER_AREA)
    head = np.arange(192)[:, None] < 130
    ours, theirs = (views.alpha_unit[0] > 0.5) & head, (alpha > 0.5) & head
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.88
    inner = cv2.erode((ours & theirs).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    blur = [cv2.GaussianBlur(image, (0, 0), 2) for image in (views.rgb_unit[0], shown)]
    assert np.abs(blur[0] - blur[1])[inner].mean() < 0.05


def test_depth_is_in_units_of_the_fit(fitted: FittedComposedHead) -> None:
    cameras = look_at_origin([0.0, np.pi], [0.0, 0.0], size_px=96)
    views = fitted.true_views(cameras, supersample=1)
    middle = views.depth[:, 40:56, 44:52]
    assert np.isfinite(middle).all()
    # the nose is nearer than the eye's distance to the origin, by less than a head
    assert ((2.7 - middle).mean((1, 2)) > 0.05).all() and ((2.7 - middle).mean((1, 2)) < 0.35).all()
    facing = -(views.normals_world[:, 40:56, 44:52] @ cameras.T_world_camera[:, :3, 2].numpy().T.astype(np.float32))
    assert facing[0, ..., 0].mean() > 0.6 and facing[1, ..., 1].mean() > 0.5


@pytest.fixture(scope="module")
def data(fitted: FittedComposedHead, recipe: ComposedRecipe) -> HeadData:
    return head_data(fitted, recipe, "swinging", 3, 96, 5)


def test_a_head_on_disk_reads_back_as_a_data_set(data: HeadData, tmp_path: Path) -> None:
    write_head_dataset(data, tmp_path / "head")
    back = read_dataset(tmp_path / "head")
    assert torch.equal(back.rgba, data.views.rgba) and back.names == data.views.names
    torch.testing.assert_close(back.cameras.T_world_camera, data.views.cameras.T_world_camera)
    labels = cv2.imread(str(tmp_path / "head" / "labels" / "view_001.png"), cv2.IMREAD_UNCHANGED)
    assert (labels == data.maps["labels"][2]).all() and (tmp_path / "head" / FACTS).is_file()
    write_head_dataset(data, tmp_path / "again")
    for file in sorted(p for p in (tmp_path / "head").rglob("*") if p.is_file()):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(tmp_path / "head")).read_bytes()


def test_the_portrait_of_a_head_reads_back_equal(data: HeadData, tmp_path: Path) -> None:
    write_head_dataset(data, tmp_path / "head")
    path = tmp_path / "head" / PORTRAIT
    back = read_portrait(path)
    for name in ("rgb", "alpha_unit", "foreground_unit", "inside", "landmarks_px"):
        ours, theirs = getattr(back, name), getattr(data.portrait, name)
        assert ours.dtype == theirs.dtype and (ours == theirs).all()
    assert torch.equal(back.head.camera.K_px, data.portrait.head.camera.K_px)
    assert (back.head.vertices_world == data.portrait.head.vertices_world).all()
    assert (back.crop, back.source_sha256) == (data.portrait.crop, data.portrait.source_sha256)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"portrait\.npz is damaged"):
        read_portrait(path)
    with pytest.raises(InputError, match="No prepared portrait"):
        read_portrait(tmp_path / "nothing.npz")


def test_a_grid_has_three_rings_that_begin_in_front() -> None:
    cameras = orbit_cameras("grid", 72, 64, 0)
    elevation = torch.rad2deg(cameras.elevation_rad).round()
    for ring, angle in enumerate((0, 30, -20)):
        part = slice(24 * ring, 24 * ring + 24)
        assert (elevation[part] == angle).all() and abs(float(cameras.azimuth_rad[24 * ring])) < 1e-9
        steps = torch.diff(torch.rad2deg(cameras.azimuth_rad[part])) % 360
        torch.testing.assert_close(steps, torch.full((23,), 15.0, dtype=torch.float64))


def test_truth_agrees_with_itself_and_control_pictures_with_the_truth(data: HeadData) -> None:
    alpha = data.views.rgba[..., 3].numpy()
    assert ((data.maps["labels"] > 0) == (alpha > 127)).mean() > 0.99
    normals = data.maps["normals"].astype(np.float32) / 127.5 - 1
    length = np.linalg.norm(normals, axis=-1)[data.maps["labels"] > 0]
    assert 0.97 < np.median(length) < 1.03
    ours, theirs = data.maps["control"][..., 3] > 127, alpha > 127
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.6
    assert data.back[..., 3].any() and data.portrait.rgb.shape == (512, 512, 3)


@pytest.mark.parametrize("orbit", ["level", "swinging", "random", "grid"])
def test_orbits_are_the_same_for_a_seed(orbit: Orbit) -> None:
    cameras, again = orbit_cameras(orbit, 9, 64, 4), orbit_cameras(orbit, 9, 64, 4)
    assert torch.equal(cameras.T_world_camera, again.T_world_camera) and len(cameras) == 9
    elevation = cameras.elevation_rad.abs().max()
    assert elevation < 1e-9 if orbit == "level" else 0.05 < elevation < 0.8

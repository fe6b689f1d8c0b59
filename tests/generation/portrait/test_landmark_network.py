"""Faces that mediapipe misses: named points, the sparse fit, cartoons, both networks, and the shipped weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from dp360.generation import InputError, networks
from dp360.generation.cameras import Cameras, look_at_origin
from dp360.generation.head_model import fit_sparse_points, load_head_model
from dp360.generation.head_model.sparse_points import (
    CHIN,
    FOREHEAD,
    MIRRORED,
    POINT_COUNT,
    POINT_NAMES,
    FaceBox,
    face_box,
    sparse_points,
)
from dp360.generation.networks import LoadedNetwork
from dp360.generation.portrait import load_image, prepare_portrait
from dp360.generation.portrait.landmark_network import (
    CELL_PX,
    FACE_LANDMARKS,
    LandmarkNetworkConfig,
    LandmarkNetworks,
    find_face,
    find_points,
    locate_faces,
)
from dp360.generation.synthetic.parts import Label
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.synthetic.portraits.cartoons import cartoon
from dp360.generation.training.landmark_scenes import (
    PLAIN_SCENES,
    LabelledShots,
    SceneLook,
    _Warp,
    labelled_shots,
    make_scene,
)
from dp360.generation.training.landmark_training import (
    face_error,
    landmark_figures,
    locator_target,
    train_landmark_networks,
)
from dp360.generation.training.loop import LoopConfig
from dp360.generation.training.shots import SURROUND_SHOTS, Shots, surround_shots

SHARED = Path(__file__).parents[4] / "shared" / "data"
HEADS, CARTOON = SHARED / "heads", SHARED / "portraits" / "cartoon_lorelei.png"
TINY = LandmarkNetworkConfig(locator_channels=(8, 8, 8, 8, 8), points_channels=(8, 8, 8, 8, 8))
RECALL, NME = 0.4, 0.1
"""Least share of held-out faces that are found, and largest mean error where |yaw| is below 30 degrees."""
PLAIN = SceneLook(*[0.0] * 9)


def projected(points: np.ndarray, camera: Cameras) -> np.ndarray:
    T = camera.T_camera_world[0].numpy()
    p = points @ T[:3, :3].T + T[:3, 3]
    return p[:, :2] / p[:, 2:] * camera.focal_px[0].numpy() + camera.principal_px[0].numpy()


def angle_deg(a: Cameras, b: Cameras) -> float:
    R = (a.T_camera_world[0, :3, :3].T @ b.T_camera_world[0, :3, :3]).numpy()
    return float(np.degrees(np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1))))


def disc_shots(count: int = 3) -> LabelledShots:
    """Shots of a flat 'head': a disc of skin with hair above and cloth below, and the mean head's points on it."""
    side = 96
    model = load_head_model()
    camera = look_at_origin([0.0], [0.0], size_px=side)
    y, x = np.mgrid[:side, :side] + 0.5
    labels = np.zeros((side, side), np.uint8)
    labels[y > 70] = Label.CLOTH
    labels[(x - 48) ** 2 + (y - 48) ** 2 < 30**2] = Label.FACE
    labels[((x - 48) ** 2 + (y - 48) ** 2 < 30**2) & (y < 32)] = Label.HAIR
    rgb = np.array([[255, 255, 255], [220, 170, 140], [0, 0, 0], [60, 40, 30], [0, 0, 0], [40, 80, 160]], np.uint8)
    picture = rgb[labels]
    points = projected(sparse_points(model, model.neutral.astype(np.float64)), camera)
    shots = Shots(
        np.stack([picture] * count), np.stack([np.where(labels > 0, 255, 0).astype(np.uint8)] * count),
        np.stack([labels] * count), np.arange(count), np.stack([camera.T_world_camera[0].double().numpy()] * count),
        np.full(count, float(camera.focal_px[0, 0])),
    )  # fmt: skip
    return LabelledShots(shots, np.stack([points] * count), np.tile([0.0, 0.0, 1.0], (count, 1)))


@pytest.fixture(scope="module")
def tiny() -> LoadedNetwork[LandmarkNetworks]:
    torch.manual_seed(1)
    return LoadedNetwork(LandmarkNetworks(TINY).eval().requires_grad_(False), "")


def test_points_come_in_mirrored_pairs_on_the_head() -> None:
    model = load_head_model()
    points = sparse_points(model, model.neutral.astype(np.float64))
    assert [MIRRORED[MIRRORED[k]] for k in range(POINT_COUNT)] == list(range(POINT_COUNT))
    np.testing.assert_allclose(points[list(MIRRORED)], points * [-1, 1, 1], atol=0.004)
    right = [k for k, name in enumerate(POINT_NAMES) if name.endswith("_r")]
    assert (points[right, 0] < 0).all()
    assert points[FOREHEAD, 1] > points[CHIN, 1]


@pytest.mark.parametrize("roll_deg", [-40, 0, 25])
def test_face_box_turns_with_the_face(roll_deg: float) -> None:
    model = load_head_model()
    points = projected(sparse_points(model, model.neutral.astype(np.float64)), look_at_origin([0.0], [0.0]))
    c, s = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    turned = face_box(points @ np.array([[c, s], [-s, c]]))
    assert np.degrees(turned.roll_rad) == pytest.approx(roll_deg, abs=1.0)
    assert turned.size_px == pytest.approx(face_box(points).size_px, rel=0.12)


@pytest.mark.parametrize(("yaw_deg", "pitch_deg"), [(0, 0), (35, -10), (-60, 10), (90, 0), (-90, 12)])
def test_exact_points_give_the_camera_from_any_side(yaw_deg: float, pitch_deg: float) -> None:
    model = load_head_model()
    camera = look_at_origin([np.radians(yaw_deg)], [np.radians(pitch_deg)])
    points = projected(sparse_points(model, model.neutral.astype(np.float64)), camera)
    fit = fit_sparse_points(model, points, np.full(POINT_COUNT, 3.0), camera.width, camera.height)
    assert angle_deg(fit.camera, camera) < 0.2
    assert float(fit.camera.focal_px[0, 0] / camera.focal_px[0, 0]) == pytest.approx(1, abs=5e-3)
    assert np.abs(fit.identity).max() < 0.05 and fit.residual_px.max() < 0.3


def test_points_without_trust_do_not_move_the_fit() -> None:
    model = load_head_model()
    camera = look_at_origin([0.4], [0.1])
    points = projected(sparse_points(model, model.neutral.astype(np.float64)), camera)
    scales = np.full(POINT_COUNT, 3.0)
    wrong, unsure = points.copy(), scales.copy()
    wrong[40:50] += 70
    unsure[40:50] = np.inf
    fit = fit_sparse_points(model, wrong, unsure, camera.width, camera.height)
    assert angle_deg(fit.camera, camera) < 0.5


def test_a_caricature_keeps_a_human_skull() -> None:
    model = load_head_model()
    camera = look_at_origin([0.2], [0.0])
    points = projected(sparse_points(model, model.neutral.astype(np.float64)), camera)
    middle = points.mean(0)
    points = middle + (points - middle) * [1.5, 0.9]  # a face half again as wide
    fit = fit_sparse_points(model, points, np.full(POINT_COUNT, 8.0), camera.width, camera.height)
    assert np.abs(fit.identity).max() < 2.0
    assert np.linalg.norm(fit.vertices_world - model.neutral, axis=1).max() < 0.06  # 3.6 cm


def test_warps_are_undone_by_their_inverse() -> None:
    points = disc_shots().points_px[0]
    grid = np.random.default_rng(0).uniform(0, 96, (200, 2))
    for seed in range(5):
        warp = _Warp.draw(points, np.random.default_rng(seed), 1.0)
        assert np.abs(warp(grid) - grid).max() > 0.5
        np.testing.assert_allclose(warp(warp.inverse(grid)), grid, atol=0.15)


def test_scenes_put_the_face_into_the_box() -> None:
    labelled, box = disc_shots(), FaceBox((60.0, 70.0), 50.0, 0.2)
    scene = make_scene(labelled, 0, box, Backgrounds(()), np.random.default_rng(0), 128, PLAIN)
    found = face_box(scene.points_px)
    assert np.hypot(found.center_px[0] - 60, found.center_px[1] - 70) < 4
    assert found.size_px == pytest.approx(50, rel=0.15) and found.roll_rad == pytest.approx(0.2, abs=0.05)
    nose = scene.points_px[POINT_NAMES.index("nose_tip")].astype(int)
    np.testing.assert_allclose(scene.rgb[nose[1], nose[0]], [220, 170, 140], atol=3)  # skin where the nose is


def test_mirrored_scenes_mirror_the_points() -> None:
    labelled, box = disc_shots(), FaceBox((64.0, 64.0), 60.0, 0.0)
    straight, flipped = (
        make_scene(
            labelled, 0, box, Backgrounds(()), np.random.default_rng(3), 128, replace(PLAIN, mirrored=m)
        ).points_px
        for m in (0.0, 1.0)
    )
    np.testing.assert_allclose(flipped, straight, atol=1.0)  # the mean head is symmetric, names and all


def test_cartoons_are_flat_and_keep_the_truth_near() -> None:
    labelled = disc_shots()
    rgb = labelled.shots.rgb[0].astype(np.float32) / 255
    points, labels = labelled.points_px[0], labelled.shots.labels[0]
    size = face_box(points).size_px
    for seed in range(20):
        picture, moved = cartoon(
            rgb, labels, rgb, points, np.array([0.0, 0.0, 1.0]), np.random.default_rng(seed)
        )  # fmt: skip
        assert picture.shape == rgb.shape and 0 <= picture.min() and picture.max() <= 1
        distance = np.linalg.norm(moved - points, axis=1)
        assert distance.max() < 0.35 * size and np.median(distance) < 0.06 * size
    again, _ = cartoon(rgb, labels, rgb, points, np.array([0.0, 0.0, 1.0]), np.random.default_rng(19))
    np.testing.assert_array_equal(again, picture)


def test_locator_targets_say_where_the_face_is() -> None:
    box = FaceBox((83.0, 40.0), 50.0, -0.3)
    target = locator_target(box, 160)
    row, column = np.unravel_index(np.argmax(target[0]), target[0].shape)
    np.testing.assert_allclose((column + 0.5 + target[1, row, column]) * CELL_PX, 83)
    np.testing.assert_allclose((row + 0.5 + target[2, row, column]) * CELL_PX, 40)
    assert np.exp(target[3, row, column]) * 160 == pytest.approx(50)
    assert np.arctan2(target[5, row, column], target[4, row, column]) == pytest.approx(-0.3)
    assert not locator_target(None, 160).any()


def test_networks_survive_the_file(tiny: LoadedNetwork[LandmarkNetworks], tmp_path: Path) -> None:
    path = tmp_path / "networks.safetensors"
    FACE_LANDMARKS.save(path, tiny.network, {"seed": "1"})
    loaded = FACE_LANDMARKS.read(path)
    assert loaded.network.config == TINY and len(loaded.sha256) == 64
    picture = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    for was, now in zip(tiny.network.points(picture), loaded.network.points(picture)):
        torch.testing.assert_close(now, was, atol=2e-2, rtol=2e-2)


def test_mirrored_pictures_give_mirrored_points(tiny: LoadedNetwork[LandmarkNetworks]) -> None:
    picture = skimage.data.astronaut()
    box, mirror = FaceBox((220.0, 130.0), 120.0, 0.2), FaceBox((292.0, 130.0), 120.0, -0.2)
    found = find_points(picture, box, tiny)
    flipped = find_points(np.ascontiguousarray(picture[:, ::-1]), mirror, tiny)
    expected = (flipped.points_px * [-1, 1] + [512, 0])[list(MIRRORED)]
    np.testing.assert_allclose(found.points_px, expected, atol=0.1)
    assert found.score == pytest.approx(flipped.score, abs=1e-4)


def test_located_boxes_follow_the_size_of_the_picture(tiny: LoadedNetwork[LandmarkNetworks]) -> None:
    picture = skimage.data.astronaut()[::2, ::2]
    large = np.repeat(np.repeat(picture, 2, 0), 2, 1)
    for (box, score), (twice, again) in zip(locate_faces(picture, tiny, most=1), locate_faces(large, tiny, most=1)):
        np.testing.assert_allclose(np.array(twice.center_px), 2 * np.array(box.center_px), rtol=0.1, atol=8)
        assert twice.size_px == pytest.approx(2 * box.size_px, rel=0.1)
        assert again == pytest.approx(score, abs=0.05)


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    loop = LoopConfig(steps=3, batch_size=2, warmup_steps=1, save_every=1)
    tiny: dict[str, Any] = {"network_config": TINY, "look": SceneLook(cartoon=1.0)}
    shots, backgrounds = disc_shots(), Backgrounds(())
    whole = train_landmark_networks(shots, backgrounds, tmp_path / "whole", loop, loop, **tiny)
    stopped = replace(loop, steps=3, minutes=0.0)
    train_landmark_networks(shots, backgrounds, tmp_path / "parts", stopped, stopped, **tiny)
    parts = train_landmark_networks(shots, backgrounds, tmp_path / "parts", loop, loop, **tiny)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=0, atol=0)


def test_face_error_knows_hits_and_misses() -> None:
    points = disc_shots().points_px[0]
    size = face_box(points).size_px
    assert face_error(points, points) == 0
    assert face_error(points + np.array([0.1 * size, 0]), points) == pytest.approx(0.1)
    assert np.isnan(face_error(points + np.array([0.6 * size, 0]), points)) and np.isnan(face_error(None, points))


def test_the_shipped_weights_are_small_and_described() -> None:
    weights = Path(networks.__file__).parent / "weights"
    assert (weights / "face_landmarks.safetensors").stat().st_size <= 3_000_000
    assert "face_landmarks.safetensors" in (weights / "MODEL_CARD_LANDMARKS.md").read_text("utf-8")


@pytest.mark.skipif(not HEADS.is_dir(), reason="the head assets are not here")
def test_the_shipped_weights_find_held_out_faces(tmp_path: Path) -> None:
    shots = surround_shots(HEADS, "held_out", tmp_path, replace(SURROUND_SHOTS, heads=4, first_head=300))
    labelled = labelled_shots(shots, "held_out", HEADS)
    loaded = FACE_LANDMARKS.load()

    def points_of(rgb: np.ndarray) -> np.ndarray | None:
        face = find_face(rgb, loaded)
        return None if face is None else face.points_px

    backgrounds = Backgrounds.of_split(HEADS, "held_out")
    for look in (PLAIN_SCENES, SceneLook(cartoon=1.0)):
        figures = landmark_figures(points_of, labelled, backgrounds, look, empty=10)
        assert np.nansum(figures.recall * figures.count) / figures.count.sum() > RECALL
        assert figures.nme[0] < NME
        assert figures.false_positives <= 0.2


@pytest.mark.parametrize("name", ["coffee", "rocket", "gravel", "grass", "blank", "noise"])
def test_pictures_without_a_face_are_still_refused(name: str, tmp_path: Path) -> None:
    made = {
        "blank": np.full((300, 400, 3), 128, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 255, (256, 256, 3)).astype(np.uint8),
    }
    picture = made[name] if name in made else getattr(skimage.data, name)()
    Image.fromarray(picture).convert("RGB").save(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=r"no face was found.*--no-face"):
        prepare_portrait(tmp_path / f"{name}.png")


@pytest.mark.skipif(not CARTOON.is_file(), reason="the shared test portraits are not here")
class TestCartoon:
    """The flat cartoon in which mediapipe sees no face."""

    def test_becomes_a_head(self) -> None:
        found = prepare_portrait(CARTOON)
        assert found.landmarks_px is None
        assert found.weights == (FACE_LANDMARKS.provenance(),)
        assert any("placed by the network" in notice for notice in found.notices)
        assert np.abs(found.head.identity).max() < 2.5
        assert 0.15 < found.alpha_unit.mean() < 0.7

    def test_is_seen_where_a_person_sees_it(self) -> None:
        picture = load_image(CARTOON).rgb
        loaded, model = FACE_LANDMARKS.load(), load_head_model()
        found = find_face(picture, loaded)
        assert found is not None
        fit = fit_sparse_points(model, found.points_px, found.scales_px, picture.shape[1], picture.shape[0])
        points = projected(sparse_points(model, fit.vertices_world), fit.camera)
        by_eye = {"eye_outer_r": (322, 352), "eye_inner_r": (415, 360), "lip_top": (458, 470), "chin": (430, 577)}
        for name, place in by_eye.items():
            assert np.linalg.norm(points[POINT_NAMES.index(name)] - place) < 60, name  # the face is 330 pixels high
        azimuth_deg = float(np.degrees(fit.camera.azimuth_rad[0]))
        assert -45 < azimuth_deg < -5  # she looks to the picture's right: the camera stands on her right

"""Portraits of composed heads: their camera is the one that took them, their truth is true, their seed decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from dp360.generation.cameras import Cameras
from dp360.generation.synthetic.parts import Label, Part, SyntheticHead
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.synthetic.portraits.looks import painted, photographed, recoloured, suited
from dp360.generation.synthetic.portraits.portrait_shots import (
    SHOT_FACTOR,
    PortraitLook,
    PortraitSample,
    finish_shot,
    portrait_camera,
    take_shot,
)
from dp360.generation.synthetic.rendering.renderer import HeadScene
from dp360.generation.synthetic.worn.solids import ball as solid_ball
from dp360.generation.synthetic.worn.solids import plain_texture

NO_PANORAMAS = Backgrounds(())
PLAIN = PortraitLook(
    suited=0.0, recoloured=0.0, painted=0.0, drawn=0.0, random_convolution=0.0, shaded=0.0, photographed=0.0, cut=0.0
)


def synthetic_portrait(
    head: SyntheticHead, seed: int, size_px: int, look: PortraitLook | None = None
) -> PortraitSample:
    """An aligned portrait of a head before a background that is made up."""
    shot_rng, finish_rng = (np.random.default_rng((seed, stage)) for stage in (0, 1))
    shot, camera = take_shot(HeadScene(head), head.style, NO_PANORAMAS, shot_rng, round(1.375 * size_px))
    return finish_shot(shot, camera, NO_PANORAMAS, finish_rng, size_px, look)


def ball(name: str, centre: tuple[float, float, float], radius: float, rgb: tuple[float, float, float]) -> Part:
    return solid_ball(name, np.array(centre, dtype=float), radius, plain_texture(rgb), rows=24)


@pytest.fixture(scope="module")
def head() -> SyntheticHead:
    """A face with a nose to its left, a cap of hair above, and no torso."""
    parts = (
        ball("skin", (0, 0, 0), 0.15, (0.8, 0.6, 0.5)),
        ball("skin", (0.06, -0.02, 0.14), 0.05, (0.8, 0.4, 0.4)),
        ball("hair", (0, 0.07, -0.02), 0.14, (0.1, 0.1, 0.4)),
    )
    return SyntheticHead("balls", parts, ("made/up",))


@pytest.fixture(scope="module")
def sample(head: SyntheticHead) -> PortraitSample:
    return synthetic_portrait(head, 4, 128, PLAIN)


def mirrored_head(head: SyntheticHead) -> SyntheticHead:
    flip = np.array([-1.0, 1.0, 1.0])
    parts = tuple(
        replace(p, vertices_world=p.vertices_world * flip, normals_world=p.normals_world * flip) for p in head.parts
    )
    return replace(head, parts=parts)


@pytest.mark.parametrize("mirrored", [0.0, 1.0], ids=["as it is", "mirrored"])
def test_the_crops_camera_sees_what_the_crop_shows(head: SyntheticHead, mirrored: float) -> None:
    look = replace(PLAIN, mirrored=mirrored)
    for seed in range(4):
        sample = synthetic_portrait(head, seed, 128, look)
        seen = HeadScene(mirrored_head(head) if mirrored else head).render(sample.camera)
        for label in (Label.FACE, Label.HAIR):
            a, b = seen.labels[0] == label, sample.labels == label
            assert (a & b).sum() / (a | b).sum() > 0.95
        nose = seen.rgb_unit[0][..., 0] - seen.rgb_unit[0][..., 1]
        assert np.abs(seen.alpha_unit[0] - sample.alpha_unit).mean() < 0.01 and nose.max() > 0.1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_picture(head: SyntheticHead) -> None:
    first, again, other = (synthetic_portrait(head, seed, 96) for seed in (7, 7, 8))
    assert first.rgb.tobytes() == again.rgb.tobytes() and first.labels.tobytes() == again.labels.tobytes()
    assert torch.equal(first.camera.T_world_camera, again.camera.T_world_camera)
    assert first.rgb.tobytes() != other.rgb.tobytes()


def test_labels_and_coverage_agree(sample: PortraitSample) -> None:
    solid = (sample.alpha_unit > 0.9) | (sample.alpha_unit < 0.1)
    np.testing.assert_array_equal((sample.labels > 0)[solid], (sample.alpha_unit > 0.5)[solid])
    assert set(np.unique(sample.labels)) == {Label.BACKGROUND, Label.FACE, Label.HAIR}


def test_beyond_the_pictures_edge_its_edge_is_repeated_and_nothing_is_labelled(head: SyntheticHead) -> None:
    look = PortraitLook(cut=1.0)
    for seed in range(6):
        sample = synthetic_portrait(head, seed, 96, look)
        outside = ~sample.inside
        assert (sample.labels[outside] == Label.BACKGROUND).all() and (sample.alpha_unit[outside] == 0).all()
        rows, columns = np.nonzero(sample.inside)
        inner = sample.rgb[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        padding = ((rows.min(), 95 - rows.max()), (columns.min(), 95 - columns.max()), (0, 0))
        np.testing.assert_array_equal(sample.rgb, np.pad(inner, padding, mode="edge"))


def test_cameras_keep_the_heads_size_at_any_distance() -> None:
    rng = np.random.default_rng(0)
    cameras = [portrait_camera(rng, 100) for _ in range(200)]
    for camera in cameras:
        distance = float(camera.position_world.norm())
        assert np.isclose(float(camera.focal_px[0, 0]) / distance, 100 * 4.2647 / 2.7 / SHOT_FACTOR)
        assert abs(float(camera.azimuth_rad)) < np.radians(42.1) and abs(float(camera.elevation_rad)) < np.radians(22.1)
    rolls = np.array([roll_deg(c) for c in cameras])
    assert np.abs(rolls).max() < 20.1 and rolls.std() > 3


def roll_deg(camera: Cameras) -> float:
    up_camera = camera.T_camera_world[0, :3, 1].numpy()
    return float(np.degrees(np.arctan2(up_camera[0], -up_camera[1])))


def test_a_shots_torso_reaches_the_frames_bottom(head: SyntheticHead) -> None:
    torso = ball("clothes", (0, -0.25, 0), 0.16, (0.2, 0.5, 0.2))
    scene = HeadScene(SyntheticHead("with torso", (*head.parts, torso), ()))
    shot, _ = take_shot(scene, "photo", NO_PANORAMAS, np.random.default_rng(2), 128)
    dressed = (shot.labels == Label.CLOTH).any(0)
    assert dressed.mean() > 0.3
    assert (shot.labels[-1] == Label.CLOTH)[dressed].mean() > 0.95 and (shot.alpha[-1] > 200)[dressed].mean() > 0.95


@pytest.mark.parametrize("look", [painted, photographed], ids=["painted", "photographed"])
def test_looks_stay_in_range_and_keep_shapes(sample: PortraitSample, look: Callable[..., np.ndarray]) -> None:
    picture = sample.rgb.astype(np.float32) / 255
    for seed in range(12):
        out = look(picture.copy(), np.random.default_rng(seed))
        assert out.shape == picture.shape and out.min() >= 0 and out.max() <= 1 and np.isfinite(out).all()


def test_recolouring_changes_regions_apart_and_keeps_the_background(sample: PortraitSample) -> None:
    picture = sample.rgb.astype(np.float32) / 255
    changed = [
        np.abs(recoloured(picture, sample.labels, np.array([0.5, 0.5, 0.5]), np.random.default_rng(s)) - picture).max(
            -1
        )
        for s in range(20)
    ]
    assert all(c[sample.labels == Label.BACKGROUND].max() == 0 for c in changed)
    assert sum(c[sample.labels == Label.HAIR].mean() > 0.02 for c in changed) in range(3, 16)


def test_suits_change_clothes_alone_and_leave_the_shirt_at_the_neck() -> None:
    labels = np.zeros((96, 96), np.uint8)
    labels[20:60, 30:66], labels[60:70, 38:58] = Label.FACE, Label.NECK
    labels[70:, 10:86] = Label.CLOTH
    grey = np.full((96, 96, 3), 0.4, np.float32)
    pale = []
    for seed in range(40):
        dressed = suited(grey, labels, np.random.default_rng(seed))
        assert (dressed[labels != Label.CLOTH] == grey[labels != Label.CLOTH]).all()
        pale.append((dressed[70:].min(-1) > 0.65) & (dressed[70:].max(-1) - dressed[70:].min(-1) < 0.2))
    share = np.mean(pale, axis=0)
    assert share[1, 44:52].mean() > 0.3 and share[:, 12:20].mean() < 0.15, "white shirts lie under the chin"
    bare = np.where(labels == Label.NECK, np.uint8(Label.BACKGROUND), labels)
    assert (suited(grey, bare, np.random.default_rng(0)) == grey).all(), "no neck, no collar"


def test_finishing_a_shot_leaves_it_as_it_was(head: SyntheticHead) -> None:
    shot, camera = take_shot(HeadScene(head), "photo", NO_PANORAMAS, np.random.default_rng(1), 128)
    before = cv2.hconcat([shot.rgb]).copy()
    finish_shot(shot, camera, NO_PANORAMAS, np.random.default_rng(3), 96)
    np.testing.assert_array_equal(before, shot.rgb)

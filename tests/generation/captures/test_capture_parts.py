"""What all readers share: the similarity to our world, the cut to one pinhole picture, colour corrections."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dp360.generation import InputError, ViewSet
from dp360.generation.captures import HeadPlacement
from dp360.generation.captures.capture import (
    HEAD_HALF_EXTENT,
    NO_KEYPOINTS,
    CaptureCamera,
    CaptureFrame,
    CapturePicture,
    Framing,
    capture_views,
)
from dp360.generation.captures.capture_placement import (
    KEYPOINT_ORDERS,
    optical_axes_meet,
    placement_from_keypoints,
)
from dp360.generation.captures.nersemble import affine_corrected, polynomial_corrected
from dp360.generation.progress import silent
from dp360.generation.similarity import best_similarity


@pytest.mark.parametrize("seed", range(4))
def test_the_best_similarity_undoes_a_similarity(scene: type, seed: int) -> None:
    generator = np.random.default_rng(seed)
    points, R, t, scale = generator.normal(size=(7, 3)), scene.rotation(seed), generator.normal(size=3), 0.3 + seed
    found = best_similarity(points, scale * points @ R.T + t)
    np.testing.assert_allclose(found.scale, scale)
    np.testing.assert_allclose(found.R, R, atol=1e-9)
    np.testing.assert_allclose(found.shift, t, atol=1e-9)


def test_flat_points_are_not_mirrored() -> None:
    points = np.random.default_rng(0).normal(size=(6, 3)) * (1, 1, 0)
    R = best_similarity(points, points * (-1, 1, 1)).R
    assert np.linalg.det(R) == pytest.approx(1)


@pytest.mark.parametrize("order", KEYPOINT_ORDERS)
def test_each_order_of_key_points_puts_the_mean_head_where_it_belongs(scene: type, order: str) -> None:
    count, R, t, scale = int(order.split(maxsplit=1)[0]), scene.rotation(5), np.array([0.3, -2.0, 1.0]), 0.6
    points_world = scene.face_keypoints(order, count)
    placement = placement_from_keypoints((points_world - t) @ R / scale, "file")
    assert placement.source.startswith(order)
    used = list(KEYPOINT_ORDERS[order])
    np.testing.assert_allclose(placement((points_world[used] - t) @ R / scale), points_world[used], atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_other_peoples_key_points_face_z_with_y_up(scene: type, seed: int) -> None:
    order = "106 points, nose tip 46"
    R = scene.rotation(seed)
    placement = placement_from_keypoints(scene.face_keypoints(order, 106, seed + 1) @ R, "file")
    angle = math.degrees(math.acos(np.clip((np.trace(placement.R @ R.T) - 1) / 2, -1, 1)))
    assert angle < 6
    assert 0.85 < placement.scale < 1.15


def test_points_that_form_no_face_are_refused() -> None:
    with pytest.raises(InputError, match=r"do not form a face.*choose another frame"):
        placement_from_keypoints(np.random.default_rng(0).normal(size=(106, 3)), "file")
    with pytest.raises(InputError, match="expected 106 or 68 key points of a face, got 5"):
        placement_from_keypoints(np.zeros((5, 3)), "file")
    with pytest.raises(InputError, match="too few usable key points"):
        placement_from_keypoints(np.full((106, 3), np.nan), "file")


def test_optical_axes_meet_where_all_cameras_look(scene: type) -> None:
    T = scene.arc([0, 50, -70], [0, 20, -10])
    T[:, :3, 3] += (0.4, -0.5, 0.1)
    np.testing.assert_allclose(optical_axes_meet(T, "rig"), (0.4, -0.5, 0.1), atol=1e-12)
    with pytest.raises(InputError, match="do not look at one point"):
        optical_axes_meet(T[:1], "rig")


def one_view(
    camera: CaptureCamera,
    picture: CapturePicture,
    size_px: int,
    framing: Framing,
    placement: HeadPlacement | None = None,
) -> ViewSet:
    placement = placement or HeadPlacement(1.0, np.eye(3), np.zeros(3), "none")
    frame = CaptureFrame("Test", "0", b"", [camera], lambda name: picture, placement, NO_KEYPOINTS, {})
    return capture_views(frame, size_px, framing, silent)


def test_an_uncut_undistorted_picture_comes_out_bit_for_bit_with_the_half_pixel_added(scene: type) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    camera = CaptureCamera("a", scene.intrinsics((48, 48), 60.0), np.zeros(5), scene.arc([0])[0], (48, 48))
    views = one_view(camera, CapturePicture(rgb, None, "a"), 48, "full")
    np.testing.assert_array_equal(views.rgba[0, ..., :3].numpy(), rgb)
    assert bool((views.rgba[0, ..., 3] == 255).all())
    np.testing.assert_allclose(views.cameras.principal_px[0], camera.K_px[:2, 2] + 0.5)
    np.testing.assert_allclose(views.cameras.focal_px[0], camera.K_px[[0, 1], [0, 1]])


def test_a_shrunk_picture_is_the_mean_of_its_pixels_and_letterboxed_with_alpha_zero(scene: type) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (32, 64, 3)).astype(np.uint8)
    camera = CaptureCamera("a", scene.intrinsics((64, 32), 60.0), np.zeros(0), scene.arc([0])[0], (64, 32))
    views = one_view(camera, CapturePicture(rgb, None, "a"), 16, "full")
    means = rgb.reshape(8, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(views.rgba[0, 4:12, :, :3].numpy() - means).max() <= 1
    alpha = views.rgba[0, ..., 3]
    assert bool((alpha[4:12] == 255).all()) and int(alpha[:4].sum()) == int(alpha[12:].sum()) == 0


def test_head_framing_shows_what_generated_views_show(scene: type) -> None:
    """The middle of the head is the middle of the square, and its edge is `HEAD_HALF_EXTENT` away."""
    size = (300, 260)
    T = scene.arc([40], [15])[0]
    T[:3, :3] = T[:3, :3] @ cv2.Rodrigues(np.array([0.05, -0.04, 0.3]))[0]  # aimed beside the head, and rolled
    camera = CaptureCamera("a", scene.intrinsics(size, 700.0), scene.distortion, T, size)
    rgb, mask = scene.drawn(camera.K_px, scene.distortion, T, size)
    views = one_view(camera, CapturePicture(rgb, mask, "a"), 128, "head")
    scene.assert_dots_in_place(views)
    edge = torch.from_numpy(np.stack([np.zeros(3), T[:3, 0] * HEAD_HALF_EXTENT]))
    uvz = views.cameras.project(edge)[0]
    np.testing.assert_allclose(uvz[0, :2], (64, 64), atol=1e-9)
    assert float(uvz[1, 0]) == pytest.approx(128, abs=1.5)


def test_a_picture_of_half_the_calibrated_size_gives_the_same_view(scene: type) -> None:
    size = (400, 320)
    K, T = scene.intrinsics(size, 800.0), scene.arc([20])[0]
    rgb, mask = scene.drawn(K, np.zeros(5), T, size)
    rgb_half, mask_half = (cv2.resize(a, (200, 160), interpolation=cv2.INTER_AREA) for a in (rgb, mask))
    half = CapturePicture(rgb_half, mask_half, "a")
    camera = CaptureCamera("a", K, np.zeros(5), T, size)
    whole = one_view(camera, CapturePicture(rgb, mask, "a"), 96, "head")
    halved = one_view(camera, half, 96, "head")
    torch.testing.assert_close(whole.cameras.K_px, halved.cameras.K_px)
    full = one_view(camera, half, 200, "full")
    np.testing.assert_allclose(full.cameras.principal_px[0], (K[:2, 2] + 0.5) / 2 + (0, 20))
    scene.assert_dots_in_place(halved)
    with pytest.raises(InputError, match=r"160x200 pixels.*calibrated for 400x320"):
        one_view(camera, CapturePicture(np.zeros((200, 160, 3), np.uint8), None, "a"), 96, "head")
    with pytest.raises(InputError, match="the mask has 160x200 pixels"):
        one_view(camera, CapturePicture(rgb, np.zeros((200, 160), np.uint8), "a"), 96, "head")


def test_color_polynomials_have_the_published_terms() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    for columns in (3, 4, 5, 7, 8, 10, 11, 14, 16, 17, 19, 20, 22):
        np.testing.assert_array_equal(polynomial_corrected(np.eye(3, columns), "c")(rgb), rgb)
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    r, g, b = np.moveaxis(linear, -1, 0)
    M = np.random.default_rng(1).uniform(-0.1, 0.3, (3, 11))
    terms = np.stack([r, g, b, r * g, r * b, g * b, r**2, g**2, b**2, r * g * b, np.ones_like(r)])
    expected = np.clip(np.einsum("ck,kij->ijc", M, terms), 0, 1)
    expected = np.where(expected <= 0.0031308, 12.92 * expected, 1.055 * expected ** (1 / 2.4) - 0.055)
    assert np.abs(polynomial_corrected(M, "c")(rgb) - expected * 255).max() <= 0.5 + 1e-6
    with pytest.raises(InputError, match="colour matrix of 3 rows"):
        polynomial_corrected(np.eye(3, 6), "c")


def test_an_affine_color_correction_multiplies_rows_from_the_left(tmp_path: Path) -> None:
    A = np.eye(4)
    A[:3, :3] = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    A[:3, 3] = [0.1, 0, 0]
    np.save(tmp_path / "c.npy", A)
    result = affine_corrected(tmp_path / "c.npy")(np.array([[[100, 50, 10]]], np.uint8))
    np.testing.assert_array_equal(result, [[[36, 100, 50]]])  # blue + 25.5, red, green

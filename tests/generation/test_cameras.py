"""Cameras: orbits, projection and other people's conventions, stated as laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from dp360.generation import Cameras, OrbitConfig, look_at_origin, orbit
from dp360.generation.cameras import (
    PANOHEAD_FOCAL_NORMALISED,
    PANOHEAD_RADIUS,
    cameras_from_panohead_label,
    concatenate_cameras,
    opencv_from_opengl,
    opengl_from_opencv,
    panohead_label_from_cameras,
)

azimuths = st.floats(-math.pi + 1e-6, math.pi - 1e-6)
elevations = st.floats(-1.5, 1.5)


def some_cameras() -> Cameras:
    """Cameras whose every number differs: distances, focal lengths, principal points, picture sides."""
    looking = look_at_origin([0.3, -2.0, 3.0], [0.1, -0.7, 1.2], radius=1.9)
    focal_px = torch.tensor([[300.0, 280.0], [310.0, 333.0], [250.0, 260.0]], dtype=torch.float64)
    principal_px = torch.tensor([[50.0, 41.0], [47.5, 38.0], [60.0, 44.0]], dtype=torch.float64)
    return Cameras(looking.T_world_camera, focal_px, principal_px, 100, 80)


@given(azimuths, elevations, st.floats(0.1, 10.0))
@settings(max_examples=50, deadline=None)
def test_azimuth_and_elevation_come_back(azimuth: float, elevation: float, radius: float) -> None:
    camera = look_at_origin([azimuth], [elevation], radius=radius)
    assert camera.azimuth_rad.item() == pytest.approx(azimuth, abs=1e-9)
    assert camera.elevation_rad.item() == pytest.approx(elevation, abs=1e-9)
    assert camera.position_world.norm().item() == pytest.approx(radius, rel=1e-12)


@given(azimuths, elevations)
@settings(max_examples=50, deadline=None)
def test_cameras_are_rigid_upright_and_look_at_the_origin(azimuth: float, elevation: float) -> None:
    camera = look_at_origin([azimuth], [elevation])
    R = camera.T_world_camera[0, :3, :3]
    torch.testing.assert_close(R @ R.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(R).item() == pytest.approx(1.0)
    right, down, forward = R.T
    assert right[1].item() == pytest.approx(0.0)  # the horizon is level
    assert down[1] < 0  # picture rows grow downwards in the world
    torch.testing.assert_close(forward, -camera.position_world[0] / PANOHEAD_RADIUS)
    origin = camera.project(torch.zeros(1, 3))[0, 0]
    torch.testing.assert_close(origin, torch.tensor([256.0, 256.0, PANOHEAD_RADIUS], dtype=torch.float64))


def test_the_front_camera_is_the_known_matrix() -> None:
    camera = look_at_origin([0.0], [0.0], size_px=512)
    expected = [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]]
    torch.testing.assert_close(camera.T_world_camera[0], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(camera.focal_px[0] / 512, torch.full((2,), PANOHEAD_FOCAL_NORMALISED).double())


def test_known_points_in_the_front_camera() -> None:
    camera = look_at_origin([0.0], [0.0], size_px=100, radius=2.0, focal_normalised=1.0)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.5, 0.5, 1.0]])
    # f = 100 px: half a unit is 25 px at depth 2 and 50 px at depth 1; the head's left (+x) is on the picture's right.
    expected = [[50, 50, 2], [75, 50, 2], [50, 25, 2], [100, 0, 1]]
    torch.testing.assert_close(camera.project(points)[0], torch.tensor(expected, dtype=torch.float64))


def test_the_camera_on_the_heads_left_sees_the_face_point_left() -> None:
    camera = look_at_origin([math.pi / 2], [0.0])
    torch.testing.assert_close(camera.position_world[0], torch.tensor([2.7, 0.0, 0.0], dtype=torch.float64))
    nose = camera.project(torch.tensor([[0.0, 0.0, 0.3]]))[0, 0]
    assert nose[0] < 256


def test_projection_agrees_with_the_intrinsic_matrix() -> None:
    cameras = some_cameras()
    points = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.3
    homogeneous = torch.cat([points, torch.ones(20, 1, dtype=torch.float64)], dim=-1)
    p = (cameras.K_px @ (torch.linalg.inv(cameras.T_world_camera) @ homogeneous.T)[:, :3]).mT
    torch.testing.assert_close(cameras.project(points), torch.cat([p[..., :2] / p[..., 2:], p[..., 2:]], dim=-1))


def test_to_camera_from_world_is_the_inverse() -> None:
    cameras = some_cameras()
    identity = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    torch.testing.assert_close(cameras.T_camera_world @ cameras.T_world_camera, identity)
    torch.testing.assert_close(cameras.T_camera_world, torch.linalg.inv(cameras.T_world_camera))


@given(st.integers(1, 60), st.floats(-1.4, 1.4), st.floats(-3.0, 3.0))
@settings(max_examples=25, deadline=None)
def test_an_orbit_is_a_closed_ring(count: int, elevation: float, start: float) -> None:
    cameras = orbit(count, elevation_rad=elevation, start_azimuth_rad=start, size_px=32)
    assert len(cameras) == count
    positions = cameras.position_world
    torch.testing.assert_close(positions.norm(dim=-1), torch.full((count,), PANOHEAD_RADIUS, dtype=torch.float64))
    torch.testing.assert_close(positions[:, 1], positions[:1, 1].expand(count))
    assert math.remainder(cameras.azimuth_rad[0].item() - start, 2 * math.pi) == pytest.approx(0.0, abs=1e-9)
    steps = (positions - positions.roll(-1, 0)).norm(dim=-1)  # the last step closes the ring
    torch.testing.assert_close(steps, steps[:1].expand(count))
    turned = cameras.azimuth_rad.roll(-1) - cameras.azimuth_rad
    if count > 2:
        torch.testing.assert_close(torch.remainder(turned, 2 * math.pi).sum().item(), 2 * math.pi)


def test_the_default_orbit_has_three_rings_that_start_at_the_front() -> None:
    cameras = OrbitConfig().cameras(size_px=64)
    assert len(cameras) == 32 + 12 + 8 and (cameras.width, cameras.height) == (64, 64)
    degrees = torch.rad2deg(cameras.elevation_rad)
    for first, last, elevation in ((0, 32, 0.0), (32, 44, 35.0), (44, 52, -25.0)):
        torch.testing.assert_close(degrees[first:last], torch.full((last - first,), elevation, dtype=torch.float64))
        assert cameras.azimuth_rad[first].item() == pytest.approx(0.0)
    assert len(OrbitConfig(5, upper_count=0, lower_count=0).cameras(size_px=8)) == 5


def test_resized_cameras_have_the_same_rays() -> None:
    cameras = some_cameras()
    points = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.3
    resized = cameras.resized(250, 40)
    assert (resized.width, resized.height) == (250, 40)
    scale = torch.tensor([2.5, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(resized.project(points), cameras.project(points) * scale)
    again = resized.resized(100, 80)
    torch.testing.assert_close(again.K_px, cameras.K_px)


def test_parts_of_a_batch_and_their_concatenation() -> None:
    cameras = some_cameras()
    assert len(cameras[1]) == 1 and len(cameras[1:]) == 2 and len(cameras[torch.tensor([True, False, True])]) == 2
    again = concatenate_cameras([cameras[0], cameras[[1, 2]]])
    for name in ("T_world_camera", "focal_px", "principal_px"):
        assert getattr(again, name).equal(getattr(cameras, name)), name
    assert [c.position_world.tolist() for c in cameras] == [[p.tolist()] for p in cameras.position_world]


def test_opengl_and_opencv_axes() -> None:
    T = some_cameras().T_world_camera
    for there, back in ((opengl_from_opencv, opencv_from_opengl), (opencv_from_opengl, opengl_from_opencv)):
        assert back(there(T)).equal(T)
    # The front camera has no rotation at all in OpenGL's axes: it looks along -z with y up.
    front = opengl_from_opencv(look_at_origin([0.0], [0.0]).T_world_camera)[0]
    expected = torch.eye(4, dtype=torch.float64)
    expected[2, 3] = PANOHEAD_RADIUS
    torch.testing.assert_close(front, expected)
    torch.testing.assert_close(opengl_from_opencv(T)[:, :, 3], T[:, :, 3])  # the place stays


def test_panohead_labels_come_back() -> None:
    cameras = look_at_origin([0.3, -2.0, 3.0], [0.1, -0.7, 1.2], size_px=384)
    label = panohead_label_from_cameras(cameras)
    again = cameras_from_panohead_label(label, size_px=384)
    torch.testing.assert_close(again.T_world_camera, cameras.T_world_camera)
    torch.testing.assert_close(again.K_px, cameras.K_px)
    torch.testing.assert_close(cameras_from_panohead_label(label, size_px=96).K_px, cameras.resized(96, 96).K_px)


def test_the_label_of_the_front_camera_is_panoheads() -> None:
    label = panohead_label_from_cameras(look_at_origin([0.0], [0.0]))[0].numpy()
    pose = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1]
    np.testing.assert_allclose(label, [*pose, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1], atol=1e-12)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="as many elevations as azimuths, got 1 and 2"):
        look_at_origin([0.0, 1.0], [0.0])
    with pytest.raises(ValueError, match="a pole has no upright view"):
        look_at_origin([0.0], [math.pi / 2])
    with pytest.raises(ValueError, match="count of at least 1, got 0"):
        orbit(0)
    with pytest.raises(AssertionError):
        concatenate_cameras([])
    with pytest.raises(AssertionError):
        concatenate_cameras([orbit(2, size_px=8), orbit(2, size_px=16)])


def test_a_wrong_shape_is_refused_while_tests_run() -> None:
    """Proves that the shape checker is on: without it, the annotations of the whole package would be decoration."""
    with pytest.raises(TypeCheckError, match="points_world"):
        orbit(1).project(torch.zeros(4, 2))
    with pytest.raises(TypeCheckError):
        Cameras(torch.eye(4)[None], torch.ones(2, 2), torch.ones(1, 2), 8, 8)  # one pose, two focal lengths

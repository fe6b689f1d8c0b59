"""The front camera: heads of ours from one place, anything else moved and scaled into the same picture."""

import math

import pytest
import torch

from dp360.reconstruction.front_view import FrontCamera, framing_of_points


def ball(radius: float, middle: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(3000, 3, generator=generator), dim=-1)
    return points * radius + torch.tensor(middle)


def test_heads_share_one_camera():
    assert framing_of_points(ball(0.25)).front_camera == FrontCamera()
    assert framing_of_points(ball(0.4, (0.0, -0.1, 0.02))).front_camera == FrontCamera()
    stray = torch.cat([ball(0.25), torch.full((10, 3), 1e6)])
    assert framing_of_points(stray).front_camera == FrontCamera()


@pytest.mark.parametrize("scale", [1e-3, 0.3, 40.0])
def test_other_things_fill_the_same_part_of_the_picture(scale):
    camera = framing_of_points(
        ball(0.25 * scale, (3 * scale, scale, -scale)) if scale > 1 else ball(0.25 * scale)
    ).front_camera
    radius = 0.25 * scale
    seen = radius / (camera.distance * math.tan(camera.fov_rad / 2))  # of half the picture
    assert 0.6 < seen < 0.9
    x, y, z = camera.target_world
    assert camera.position_world == (x, y, z + camera.distance)


def test_single_point():
    camera = framing_of_points(torch.tensor([[1.0, 2.0, 3.0]])).front_camera
    assert camera.target_world == (1.0, 2.0, 3.0)
    assert camera.distance > 0


def test_narrow_windows_see_the_whole_width():
    camera = FrontCamera()
    assert camera.vertical_fov_rad(1.8) == pytest.approx(camera.fov_rad)
    vertical = camera.vertical_fov_rad(0.5)
    assert 0.5 * math.tan(vertical / 2) == pytest.approx(math.tan(camera.fov_rad / 2))

"""`ViewSet`: parts that do not fit together are refused; pictures lie over plain backgrounds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from dp360.generation import PointCloud, Provenance, ViewSet, orbit


@pytest.fixture
def two_views() -> ViewSet:
    rgba = torch.zeros(2, 6, 6, 4, dtype=torch.uint8)
    rgba[0] = torch.tensor([255, 128, 0, 255])
    rgba[1] = torch.tensor([255, 128, 0, 51])  # alpha 0.2
    surface = PointCloud(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1, 3))
    provenance = Provenance("prior", "none", 0, "00", "0")
    return ViewSet(rgba, orbit(2, size_px=6), torch.ones(2), ("portrait", "view_000"), surface, provenance)


def test_length_and_alpha(two_views: ViewSet) -> None:
    assert len(two_views) == 2
    assert two_views.alpha_unit[0].eq(1).all()
    torch.testing.assert_close(two_views.alpha_unit[1], torch.full((6, 6), 0.2))


@pytest.mark.parametrize("background", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.2, 0.5, 0.9)])
def test_pictures_lie_over_a_background(two_views: ViewSet, background: tuple[float, float, float]) -> None:
    over = two_views.rgb_unit(background)
    colour = torch.tensor([1.0, 128 / 255, 0.0])
    torch.testing.assert_close(over[0], colour.expand(6, 6, 3))
    torch.testing.assert_close(over[1], (0.2 * colour + 0.8 * torch.tensor(background)).expand(6, 6, 3))


def test_the_background_is_white_unless_said(two_views: ViewSet) -> None:
    assert two_views.rgb_unit().equal(two_views.rgb_unit((1.0, 1.0, 1.0)))


# Another number of confidences is refused by the shape checker before our own sentence is reached.
@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"cameras": orbit(3, size_px=6)}, "got 3, 2 and 2"),
        ({"names": ("portrait",)}, "got 2, 1 and 2"),
    ],
)
def test_a_missing_or_surplus_part_is_refused(two_views: ViewSet, change: dict[str, object], got: str) -> None:
    with pytest.raises(ValueError, match=rf"names and confidences as pictures \(2\), {got}"):
        dataclasses.replace(two_views, **change)


def test_cameras_of_another_picture_size_are_refused(two_views: ViewSet) -> None:
    with pytest.raises(ValueError, match=r"pictures are 6x6 but the cameras say 12x6; call `cameras.resized`"):
        dataclasses.replace(two_views, cameras=two_views.cameras.resized(12, 6))


def test_points_go_to_open3d_in_place() -> None:
    pytest.importorskip("open3d")
    points, rgb = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)), torch.eye(5, 3)
    cloud = PointCloud(points, torch.nn.functional.normalize(points, dim=1), rgb).to_open3d()
    np.testing.assert_array_equal(np.asarray(cloud.points), points.double().numpy())
    np.testing.assert_allclose(
        np.asarray(cloud.normals), (points / points.norm(dim=1, keepdim=True)).numpy(), atol=1e-6
    )
    np.testing.assert_array_equal(np.asarray(cloud.colors), rgb.double().numpy())

"""A head whose every pixel is known: a sphere of radius 0.3 coloured by its surface position."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from dp360.generation import Cameras, OrbitConfig, PointCloud, Provenance, ViewSet

RADIUS = 0.3


def _trace(cameras: Cameras) -> torch.Tensor:
    """RGBA of the sphere, one ray through each pixel's centre."""
    v, u = torch.meshgrid(
        torch.arange(cameras.height, dtype=torch.float64) + 0.5,
        torch.arange(cameras.width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    pictures = []
    for camera in cameras:
        xy = (torch.stack([u, v], dim=-1) - camera.principal_px[0]) / camera.focal_px[0]
        directions = torch.nn.functional.normalize(torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1), dim=-1)
        directions = directions @ camera.T_world_camera[0, :3, :3].T
        origin = camera.position_world[0]
        along = directions @ origin
        root = along**2 - origin @ origin + RADIUS**2
        hit = origin + directions * (-along - root.clamp(min=0).sqrt())[..., None]
        rgba = torch.cat([0.5 + 0.45 * hit / RADIUS, (root > 0).double()[..., None]], dim=-1)
        pictures.append((rgba.clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.stack(pictures)


@pytest.fixture(scope="session")
def make_sphere_views() -> Callable[..., ViewSet]:
    """`make_sphere_views(ring_count=8, size_px=64, points=500)`."""

    def make(ring_count: int = 8, size_px: int = 64, points: int = 500) -> ViewSet:
        cameras = OrbitConfig(ring_count, upper_count=2, lower_count=0).cameras(size_px)
        index = torch.arange(points, dtype=torch.float64) + 0.5
        polar, azimuth = torch.arccos(1 - 2 * index / points), math.pi * (1 + 5**0.5) * index
        normals = torch.stack([azimuth.sin() * polar.sin(), polar.cos(), azimuth.cos() * polar.sin()], dim=-1)
        surface = PointCloud((RADIUS * normals).float(), normals.float(), (0.5 + 0.45 * normals).float())
        n = len(cameras)
        return ViewSet(
            _trace(cameras),
            cameras,
            torch.linspace(1.0, 0.4, n),
            ("portrait", *(f"view_{i:03d}" for i in range(1, n))),
            surface,
            Provenance("test", "none", 7, "ab" * 32, "0", settings={"ring_count": ring_count}),
        )

    return make

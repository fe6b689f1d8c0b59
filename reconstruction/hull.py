"""A start for data sets that bring no points: the visual hull of their alphas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from dp360.generation import Cameras, PointCloud


def focus_point(cameras: Cameras) -> Float[Tensor, " 3"]:
    """The point nearest to all optical axes in the least-squares sense, world units; parallel axes give the mean foot.

    Each axis with origin o and unit direction d contributes |(I - d d^T)(p - o)|^2.
    """
    directions = cameras.T_world_camera[:, :3, 2]
    projectors = torch.eye(3, dtype=directions.dtype) - directions[:, :, None] * directions[:, None, :]
    rhs = (projectors @ cameras.position_world[..., None]).sum(dim=0)
    return (torch.linalg.pinv(projectors.sum(dim=0)) @ rhs)[:, 0]


def hull_points(
    rgba: UInt8[Tensor, "n h w 4"], cameras: Cameras, *, resolution: int = 64, outside_share: float = 0.03
) -> PointCloud:
    """Carve a cube around the focus point with the alphas and keep the boundary cells.

    Args:
        rgba: pictures with straight alpha (opaque pictures carve nothing but the edges of the frames).
        cameras: their cameras.
        resolution: cells along each side of the cube.
        outside_share: share of the views that may disagree before a cell is carved away.

    Returns:
        Boundary cells with outward normals from the occupancy's gradient, coloured by the view that faces each
        best; a few hundred to some thousands of points, none where the alphas are empty.
    """
    centre = focus_point(cameras)
    distance = (cameras.position_world - centre).norm(dim=-1).mean()
    half_side = float(0.5 * distance * cameras.width / cameras.focal_px[:, 0].mean())
    axis = torch.linspace(-half_side, half_side, resolution, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3) + centre
    outside = torch.zeros(len(grid))
    for index, camera in enumerate(cameras):
        alpha, _ = _sample(rgba[index], camera, grid)
        outside += alpha < 0.5
    solid = (outside <= outside_share * len(cameras)).float().reshape(1, 1, resolution, resolution, resolution)
    smooth = F.avg_pool3d(solid, 3, stride=1, padding=1)
    boundary = ((solid > 0) & (smooth < 1)).flatten()
    padded = F.pad(smooth, (1,) * 6, mode="replicate")[0, 0]
    gradient = torch.stack(
        [
            padded[2:, 1:-1, 1:-1] - padded[:-2, 1:-1, 1:-1],
            padded[1:-1, 2:, 1:-1] - padded[1:-1, :-2, 1:-1],
            padded[1:-1, 1:-1, 2:] - padded[1:-1, 1:-1, :-2],
        ],
        dim=-1,
    ).reshape(-1, 3)[boundary]
    points = grid[boundary]
    normals = F.normalize(-gradient.double() + 1e-6 * F.normalize(points - centre, dim=-1), dim=-1)
    rgb, best = torch.full((len(points), 3), 0.5), torch.full((len(points),), -1.0, dtype=torch.float64)
    for index, camera in enumerate(cameras):
        facing = (F.normalize(camera.position_world[0] - points, dim=-1) * normals).sum(dim=-1)
        alpha, colour = _sample(rgba[index], camera, points)
        better = (facing > best) & (alpha >= 0.5)
        rgb[better], best[better] = colour[better], facing[better]
    return PointCloud(points.float(), normals.float(), rgb)


def _sample(
    rgba: UInt8[Tensor, "h w 4"], camera: Cameras, points_world: Float[Tensor, "p 3"]
) -> tuple[Float[Tensor, " p"], Float[Tensor, "p 3"]]:
    """Nearest pixel's alpha and colour in [0, 1]; points outside the picture or behind the camera have alpha 0."""
    u, v, z = camera.project(points_world)[0].unbind(-1)
    seen = (z > 0) & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
    pixels = rgba[v.clamp(0, camera.height - 1).long(), u.clamp(0, camera.width - 1).long()].float() / 255
    return pixels[:, 3] * seen, pixels[:, :3]

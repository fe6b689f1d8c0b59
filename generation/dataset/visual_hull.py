"""The visual hull of a data set's alphas: surface points for data sets that bring none, and a bound for every fit."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ..cameras import Cameras
from ..views import PointCloud

OUTSIDE_SHARE = 0.03
"""Share of the views that may disagree before a place counts as outside."""
_RESOLUTION = 128
"""Cells along each side of the cube, a multiple of four."""
LEAST_SEEN_SHARE, LEAST_SEEN = 0.15, 10
"""Share and number of the views that must have a place in their frame before anything is said to stand there: cells
that few views see are carved by few."""


def focus_point(cameras: Cameras) -> Float[Tensor, " 3"]:
    """The point nearest to all optical axes in the least-squares sense, world units; parallel axes give the mean foot.

    Each axis with origin o and unit direction d contributes |(I - d d^T)(p - o)|^2.
    """
    directions = cameras.T_world_camera[:, :3, 2]
    projectors = torch.eye(3, dtype=directions.dtype) - directions[:, :, None] * directions[:, None, :]
    rhs = (projectors @ cameras.position_world[..., None]).sum(dim=0)
    return (torch.linalg.pinv(projectors.sum(dim=0)) @ rhs)[:, 0]


def outside_votes(
    points_world: Float[Tensor, "p 3"],
    solid: Bool[Tensor, "n h w"],
    cameras: Cameras,
    *,
    margin_px: int = 0,
    trust: Float[Tensor, " n"] | None = None,
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """How many views show nothing where a point is, and how many have it in their frame.

    Args:
        points_world: places, world units.
        solid: where each view shows the head.
        cameras: their cameras, of any picture size.
        margin_px: silhouettes are taken this much wider, pixels of `solid`.
        trust: what each view's vote counts, 1 without.
    """
    n, height, width = solid.shape
    cameras = cameras.resized(width, height)
    solid = _dilated(solid, (0, margin_px, margin_px)) if margin_px else solid
    T, K = cameras.T_camera_world.float(), cameras.K_px.float()
    points = points_world.detach().cpu().float()
    outside, seen = torch.zeros(len(points)), torch.zeros(len(points))
    for i in range(n):
        x, y, z = (points @ T[i, :3, :3].T + T[i, :3, 3]).unbind(-1)
        u, v = K[i, 0, 0] * x / z + K[i, 0, 2], K[i, 1, 1] * y / z + K[i, 1, 2]
        shown = (z > 0) & (u >= 0) & (v >= 0) & (u < width) & (v < height)
        pixel = v.nan_to_num().clamp(0, height - 1).long() * width + u.nan_to_num().clamp(0, width - 1).long()
        vote = 1.0 if trust is None else float(trust[i])
        seen += vote * shown
        outside += vote * (shown & ~solid[i].flatten()[pixel])
    return outside, seen


def hull_points(rgba: UInt8[Tensor, "n h w 4"], cameras: Cameras, *, reach: float = 1.5) -> PointCloud:
    """Carve a cube around the focus point with the alphas and keep the boundary cells.

    A view says nothing about places outside its frame: shoulders that leave some pictures stay. Cells are first
    carved at a quarter of the resolution, then only those at the boundary are divided, twice.

    Args:
        rgba: pictures with straight alpha (opaque pictures carve nothing).
        reach: side of the cube divided by the width of the pictures at the focus point.

    Returns:
        Boundary cells with outward normals from the occupancy's gradient, coloured by the view that faces each
        best; a few thousand to some tens of thousands of points, none where the alphas are empty.
    """
    centre = focus_point(cameras)
    distance = (cameras.position_world - centre).norm(dim=-1).mean()
    half_side = reach * float(0.5 * distance * cameras.width / cameras.focal_px[:, 0].mean())
    shown = rgba[..., 3] >= 128
    least_seen = max(LEAST_SEEN_SHARE * len(cameras), min(LEAST_SEEN, len(cameras)))
    side = _RESOLUTION // 4
    solid = torch.zeros(side, side, side)
    todo = torch.ones_like(solid, dtype=torch.bool)
    while True:
        # Coarse cells are tested by their middles: silhouettes are taken as much wider as a cell may be off.
        cell_px = 2 * half_side / side * float((cameras.focal_px[:, 0] / distance).mean())
        margin_px = 0 if side == _RESOLUTION else int(0.5 * 3**0.5 * cell_px) + 1
        index = todo.nonzero()
        points = _cell_middles(index, side, half_side, centre)
        outside, seen = outside_votes(points, shown, cameras, margin_px=margin_px)
        solid[todo] = ((outside <= OUTSIDE_SHARE * seen) & (seen >= least_seen)).float()
        if side == _RESOLUTION:
            break
        solid, side = solid.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2), 2 * side
        # Deep cells stay inside whatever finer ones would say; those near empty ones are looked at again.
        todo = (solid > 0) & _dilated(solid == 0, (3, 3, 3))
    solid = _largest_piece(solid)
    smooth = F.avg_pool3d(solid[None], 3, stride=1, padding=1)[0]
    padded = F.pad(F.avg_pool3d(smooth[None], 3, stride=1, padding=1), (1,) * 6, mode="replicate")[0]
    boundary = ((solid > 0) & (smooth < 1)).nonzero()
    i, j, k = (boundary + 1).unbind(-1)
    gradient = 2 * torch.stack(torch.gradient(padded), dim=-1)[i, j, k]
    points = _cell_middles(boundary, side, half_side, centre)
    normals = F.normalize(-gradient + 1e-6 * F.normalize(points - centre, dim=-1), dim=-1)
    return PointCloud(points.float(), normals.float(), _colours(points, normals, rgba, cameras))


def _largest_piece(solid: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
    """The largest connected set of cells: what floats apart are corners that happen to be hidden in every view."""
    from scipy.ndimage import label

    pieces, count = cast(tuple[np.ndarray, int], label(solid.numpy() > 0))
    if count < 2:
        return solid
    sizes = torch.bincount(torch.from_numpy(pieces).flatten())
    return (torch.from_numpy(pieces) == int(sizes[1:].argmax()) + 1).float()


def _dilated(mask: Bool[Tensor, "a b c"], reach: tuple[int, int, int]) -> Bool[Tensor, "a b c"]:
    """True within `reach` of a true entry along each axis; what lies beyond the borders is empty."""
    from scipy.ndimage import maximum_filter

    size = [2 * steps + 1 for steps in reach]
    return torch.from_numpy(maximum_filter(mask.numpy().astype(np.uint8), size, mode="constant") > 0)


def _cell_middles(
    index: Int[Tensor, "p 3"], side: int, half_side: float, centre: Float[Tensor, " 3"]
) -> Float[Tensor, "p 3"]:
    return centre + half_side * ((2 * index.double() + 1) / side - 1)


def _colours(
    points: Float[Tensor, "p 3"], normals: Float[Tensor, "p 3"], rgba: UInt8[Tensor, "n h w 4"], cameras: Cameras
) -> Float[Tensor, "p 3"]:
    """Colour of the nearest pixel in the view that faces each point best, grey where none shows it."""
    rgb, best = torch.full((len(points), 3), 0.5), torch.full((len(points),), -1.0, dtype=torch.float64)
    for index, camera in enumerate(cameras):
        facing = (F.normalize(camera.position_world[0] - points, dim=-1) * normals).sum(dim=-1)
        u, v, z = camera.project(points)[0].unbind(-1)
        seen = (z > 0) & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
        pixels = rgba[index, v.clamp(0, camera.height - 1).long(), u.clamp(0, camera.width - 1).long()].float() / 255
        better = (facing > best) & seen & (pixels[:, 3] >= 0.5)
        rgb[better], best[better] = pixels[better, :3], facing[better]
    return rgb

"""Control pictures computed from what is known of each view: the prior's renders, or the camera alone.

Training and generation call the very same functions; nothing here needs more than torch.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from ..cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS, Cameras

PRIOR_CHANNELS = 7
"""Colour, validity and normals of the prior, in this order."""
COLOUR, VALIDITY, NORMALS = slice(0, 3), slice(3, 4), slice(4, 7)
"""The parts of a prior control picture."""
_RAY_REACH = math.sqrt(0.5) * PANOHEAD_RADIUS / PANOHEAD_FOCAL_NORMALISED
"""How far from the head's middle a corner of our generated views passes, world units."""
_SHORTEST_NORMAL = 1e-3


def prior_control(
    rgb_unit: Float[Tensor, "n 3 h w"],
    alpha_unit: Float[Tensor, "n 1 h w"],
    validity_unit: Float[Tensor, "n 1 h w"],
    normals_world: Float[Tensor, "n 3 h w"],
    cameras: Cameras,
    *,
    size_px: int | None = None,
) -> Float[Tensor, "n 7 s s"]:
    """What the prior shows from each camera, as the picture that steers the networks.

    Args:
        rgb_unit: straight colour of the prior's renders, [0, 1].
        alpha_unit: their coverage, [0, 1].
        validity_unit: how far the portrait shows each surface, [0, 1], 0 where empty.
        normals_world: normals of length about one, zeros where empty.
        cameras: n cameras of the renders; only their rotations matter.
        size_px: side of the result, pixels; smaller than the renders, their pixels are averaged. None keeps their size.

    Returns:
        In [-1, 1]: colour over white (2 c - 1), validity (2 v - 1), and unit normals in the camera frame (OpenCV: x
        right, y down, z forward, so that what faces the camera has z < 0), 0 where empty.
    """
    R_camera_world = cameras.T_world_camera[:, :3, :3].mT.to(normals_world)
    normals = torch.einsum("nij,njhw->nihw", R_camera_world, normals_world)
    colour = rgb_unit * alpha_unit + (1 - alpha_unit)
    pictures = torch.cat([colour, validity_unit, normals], dim=1)
    if size_px is not None:
        pictures = resized_by_area(pictures, size_px)
    length = pictures[:, NORMALS].square().sum(dim=1, keepdim=True).sqrt()  # on a CPU far faster than `norm` over dim 1
    unit = pictures[:, NORMALS] / length.clamp(min=_SHORTEST_NORMAL) * (length > _SHORTEST_NORMAL)
    return torch.cat([2 * pictures[:, :4].clamp(0, 1) - 1, unit], dim=1)


def start_of_control(control: Float[Tensor, "n 7 h w"]) -> Float[Tensor, "n 3 h w"]:
    """The start views in a prior's control pictures: the prior over white, [0, 1]."""
    return (control[:, COLOUR] + 1) / 2


def ray_control(cameras: Cameras) -> Float[Tensor, "n 7 h w"]:
    """Camera parameters as a picture: Pluecker coordinates of each pixel's ray, and an empty channel.

    Args:
        cameras: n cameras, whose size the result has.

    Returns:
        Unit direction d in the world, then its moment o x d in units of how far from the head's middle the corners of
        our generated views pass, so that those are about in [-1, 1]; the seventh channel is 0, which gives the picture
        as many channels as the prior's.

    Source: Sitzmann et al., "Light Field Networks", NeurIPS 2021, Sec. 3.1 (rays as d and o x d).
    """
    rows = torch.arange(cameras.height, dtype=torch.float64) + 0.5
    columns = torch.arange(cameras.width, dtype=torch.float64) + 0.5
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([u, v], dim=-1)
    flat = (pixels - cameras.principal_px[:, None, None]) / cameras.focal_px[:, None, None]
    rays = F.normalize(torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1), dim=-1)
    direction = torch.einsum("nij,nhwj->nhwi", cameras.T_world_camera[:, :3, :3], rays)
    origin = cameras.position_world[:, None, None].expand_as(direction)
    moment = torch.linalg.cross(origin, direction) / _RAY_REACH
    empty = torch.zeros_like(direction[..., :1])
    return torch.cat([direction, moment, empty], dim=-1).permute(0, 3, 1, 2).float().contiguous()


def resized_by_area(pictures: Float[Tensor, "n c h w"], size_px: int) -> Float[Tensor, "n c s s"]:
    """Square pictures of another size: pixels are averaged to shrink them and interpolated to enlarge them."""
    height, width = pictures.shape[-2:]
    if (height, width) == (size_px, size_px):
        return pictures
    if size_px <= min(height, width):
        return F.interpolate(pictures, size=(size_px, size_px), mode="area")
    return F.interpolate(pictures, size=(size_px, size_px), mode="bilinear", align_corners=False)


def resized_cut_outs(rgba: UInt8[Tensor, "n h w 4"], size_px: int) -> UInt8[Tensor, "n s s 4"]:
    """`resized_by_area` of straight colour and alpha: colours are averaged by their opacity, so that transparent pixels
    do not tint the others."""
    if rgba.shape[1:3] == (size_px, size_px):
        return rgba
    pictures = rgba.permute(0, 3, 1, 2).float() / 255
    alpha = pictures[:, 3:]
    resized = resized_by_area(torch.cat([pictures[:, :3] * alpha, alpha], dim=1), size_px)
    resized[:, :3] /= resized[:, 3:].clamp(min=1 / 510)
    return (255 * resized.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1)

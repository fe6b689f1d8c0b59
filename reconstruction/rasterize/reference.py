"""The slow twin: the same rasteriser in plain tensors of any floating type, differentiated by autograd.

Every Gaussian meets every pixel, so it is for tests and small pictures. Run it in float64 to judge the fast paths.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..spherical_harmonics import sh_basis
from .cpu import ProjectionSettings
from .tiles import TILE


def rotation_from_quaternion(quats_wxyz: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions of any length but zero."""
    w, x, y, z = torch.nn.functional.normalize(quats_wxyz, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def project_one_camera(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    settings: ProjectionSettings,
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 2"], Float[Tensor, " n"], Float[Tensor, "n 2 2"], Float[Tensor, " n"]]:
    """Radii (0: not shown), means2d, depths, inverse covariances and anti-aliasing factors.

    Source: Zwicker et al., "EWA Splatting", 2002; radius and culling rules of gsplat 1.4.0.
    """
    W, fx, fy, cx, cy = viewmat[:3, :3], K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    width, height = settings.width, settings.height
    p_camera = means @ W.T + viewmat[:3, 3]
    depths = p_camera[:, 2]
    in_front = depths >= settings.near_plane
    p_camera = torch.where(in_front[:, None], p_camera, torch.ones_like(p_camera))
    x, y, z = p_camera.unbind(-1)

    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    slope_x = (x / z).clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
    slope_y = (y / z).clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    J = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * slope_x / z], dim=-1),
            torch.stack([zero, fy / z, -fy * slope_y / z], dim=-1),
        ],
        dim=-2,
    )
    axes = J @ W @ (rotation_from_quaternion(quats) * scales[:, None, :])
    sharp = axes @ axes.mT
    blurred = sharp + settings.eps2d * torch.eye(2, dtype=means.dtype, device=means.device)
    det = torch.linalg.det(blurred)
    ratio = torch.linalg.det(sharp).clamp_min(0) / det
    compensations = torch.where(ratio > 0, ratio, torch.ones_like(ratio)).sqrt() * (ratio > 0)
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)

    with torch.no_grad():
        half_trace = 0.5 * (blurred[:, 0, 0] + blurred[:, 1, 1])
        radii = (3 * (half_trace + (half_trace**2 - det).clamp_min(0.01).sqrt()).sqrt()).ceil()
        u, v = means2d.unbind(-1)
        inside = (u + radii > 0) & (u - radii < width) & (v + radii > 0) & (v - radii < height)
        radii = torch.where(in_front & (det > 0) & (radii > 0) & inside, radii, 0).int()
    return radii, means2d, depths, torch.linalg.inv(blurred), compensations


def rasterize_reference(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n 3"] | Float[Tensor, "n k 3"],
    viewmats: Float[Tensor, "c 4 4"],
    Ks: Float[Tensor, "c 3 3"],
    settings: ProjectionSettings,
) -> tuple[
    Float[Tensor, "c h w 3"], Float[Tensor, "c h w"], Float[Tensor, "c h w"], Int[Tensor, "c n"], Float[Tensor, "c n 2"]
]:
    """Colour over black, accumulated depth, alpha; radii and means2d. Arguments as `rasterize`."""
    dtype, device, width, height = means.dtype, means.device, settings.width, settings.height
    ys, xs = torch.meshgrid(
        torch.arange(height, dtype=dtype, device=device) + 0.5,
        torch.arange(width, dtype=dtype, device=device) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([xs, ys], dim=-1).reshape(-1, 2)
    tile_of_pixel = (pixels / TILE).floor()
    cameras = list(zip(viewmats.to(dtype), Ks.to(dtype)))
    projected = [project_one_camera(means, quats, scales, viewmat, K, settings) for viewmat, K in cameras]
    radii, means2d = torch.stack([p[0] for p in projected]), torch.stack([p[1] for p in projected])
    pictures = []
    for c, (viewmat, _) in enumerate(cameras):
        _, _, depths, conics, compensations = projected[c]
        opacity = opacities * compensations if settings.antialiased else opacities
        if settings.sh_degree < 0:
            rgb = colors
        else:
            directions = torch.nn.functional.normalize(means - torch.linalg.inv(viewmat)[:3, 3], dim=-1)
            basis = sh_basis(settings.sh_degree, directions)
            rgb = ((basis[..., None] * colors[:, : basis.shape[-1]]).sum(dim=1) + 0.5).clamp_min(0)

        shown = (radii[c] > 0).nonzero()[:, 0]
        visible = shown[torch.argsort(depths[shown], stable=True)]
        centre, radius = means2d[c, visible], radii[c, visible].to(dtype)[:, None]
        first_tile, end_tile = ((centre - radius) / TILE).floor(), ((centre + radius) / TILE).ceil()
        in_rectangle = (tile_of_pixel >= first_tile[:, None]) & (tile_of_pixel < end_tile[:, None])

        delta = pixels - centre[:, None]
        sigma = 0.5 * torch.einsum("npi,nij,npj->np", delta, conics[visible], delta)
        alpha = (opacity[visible, None] * torch.exp(-sigma)).clamp_max(0.999)
        alpha = torch.where(in_rectangle.all(-1) & (sigma >= 0) & (alpha >= 1 / 255), alpha, 0)
        after = torch.cumprod(1 - alpha, dim=0)
        before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
        alpha = torch.where(after > 1e-4, alpha, 0)  # the Gaussian that would close the pixel is left out as well
        weight = alpha * before
        pictures.append(
            (
                torch.einsum("np,nc->pc", weight, rgb[visible]).reshape(height, width, 3),
                torch.einsum("np,n->p", weight, depths[visible]).reshape(height, width),
                (1 - torch.prod(1 - alpha, dim=0)).reshape(height, width),
            )
        )
    rgb, depth, alpha = (torch.stack(parts) for parts in zip(*pictures))
    return rgb, depth, alpha, radii, means2d

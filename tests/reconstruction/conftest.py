"""The slow twin of the rasteriser: plain tensors of any floating type, differentiated by autograd.

Every Gaussian meets every pixel, so it is for small pictures. Run it in float64 to judge the fast paths.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dp360.reconstruction.rasterize import RasterizeMode, Rendered, RenderMode
from dp360.reconstruction.rasterize.tiles import TILE
from dp360.reconstruction.spherical_harmonics import SH_C0, SH_C1, SH_C2, SH_C3


def rotation_from_quaternion(quats_wxyz: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions of any length but zero."""
    w, x, y, z = torch.nn.functional.normalize(quats_wxyz, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def sh_basis(degree: int, directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch k"]:
    """Basis functions at unit `directions`, for degrees 0 to 3."""
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, SH_C0), -SH_C1 * y, SH_C1 * z, -SH_C1 * x]
    basis += [SH_C2[0] * x * y, -SH_C2[0] * y * z, SH_C2[1] * (3 * z * z - 1), -SH_C2[0] * x * z]
    basis += [SH_C2[2] * (x * x - y * y), -SH_C3[0] * y * (3 * x * x - y * y), SH_C3[1] * x * y * z]
    basis += [-SH_C3[2] * y * (5 * z * z - 1), SH_C3[3] * z * (5 * z * z - 3), -SH_C3[2] * x * (5 * z * z - 1)]
    basis += [SH_C3[4] * z * (x * x - y * y), -SH_C3[0] * x * (x * x - 3 * y * y)]
    return torch.stack(basis[: (degree + 1) ** 2], dim=-1)


def project_one_camera(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    log_scales: Float[Tensor, "n 3"],
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    size: tuple[int, int],
    *,
    near_plane: float,
    eps2d: float,
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 2"], Float[Tensor, " n"], Float[Tensor, "n 2 2"], Float[Tensor, " n"]]:
    """Radii (0: not shown), means2d, depths, inverse covariances and anti-aliasing factors.

    Source: Zwicker et al., "EWA Splatting", 2002; radius and culling rules of gsplat 1.4.0.
    """
    W, fx, fy, cx, cy = viewmat[:3, :3], K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    width, height = size
    p_camera = means @ W.T + viewmat[:3, 3]
    depths = p_camera[:, 2]
    in_front = depths >= near_plane
    p_camera = torch.where(in_front[:, None], p_camera, torch.ones_like(p_camera))
    x, y, z = p_camera.unbind(-1)

    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    slope_x = (x / z).clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
    slope_y = (y / z).clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    rows = [torch.stack([fx / z, zero, -fx * slope_x / z], -1), torch.stack([zero, fy / z, -fy * slope_y / z], -1)]
    axes = torch.stack(rows, dim=-2) @ W @ (rotation_from_quaternion(quats) * log_scales.exp()[:, None, :])
    sharp = axes @ axes.mT
    blurred = sharp + eps2d * torch.eye(2, dtype=means.dtype)
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


def rasterize(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    log_scales: Float[Tensor, "n 3"],
    opacity_logits: Float[Tensor, " n"],
    sh0: Float[Tensor, "n 3"],
    sh_rest: Float[Tensor, "n k 3"],
    viewmats: Float[Tensor, "c 4 4"],
    Ks: Float[Tensor, "c 3 3"],
    width: int,
    height: int,
    *,
    sh_degree: int,
    near_plane: float = 0.01,
    eps2d: float = 0.3,
    rasterize_mode: RasterizeMode = "classic",
    render_mode: RenderMode = "RGB",
    backgrounds: Float[Tensor, "c 3"] | None = None,
) -> Rendered:
    """As `reconstruction.rasterize.rasterize`."""
    dtype, opacities, colors = means.dtype, opacity_logits.sigmoid(), torch.cat([sh0[:, None], sh_rest], dim=1)
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([xs, ys], dim=-1).reshape(-1, 2).to(dtype)
    tile_of_pixel = (pixels / TILE).floor()
    cameras = list(zip(viewmats.to(dtype), Ks.to(dtype)))
    filters = {"near_plane": near_plane, "eps2d": eps2d}
    projected = [project_one_camera(means, quats, log_scales, W, K, (width, height), **filters) for W, K in cameras]
    radii, means2d = torch.stack([p[0] for p in projected]), torch.stack([p[1] for p in projected])
    pictures = []
    for c, (viewmat, _) in enumerate(cameras):
        _, _, depths, conics, compensations = projected[c]
        opacity = opacities * compensations if rasterize_mode == "antialiased" else opacities
        directions = torch.nn.functional.normalize(means - torch.linalg.inv(viewmat)[:3, 3], dim=-1)
        basis = sh_basis(sh_degree, directions)
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
        channels = torch.cat([rgb, depths[:, None], torch.ones_like(depths)[:, None]], dim=1)[visible]
        pictures.append(torch.einsum("np,nc->pc", weight, channels).reshape(height, width, 5))
    rgb, depth, alpha = torch.stack(pictures).split([3, 1, 1], dim=-1)
    if backgrounds is not None:
        rgb = rgb + (1 - alpha) * backgrounds[:, None, None].to(rgb)
    depth = depth / alpha.clamp_min(1e-10) if render_mode == "RGB+ED" else depth
    info = {"radii": radii, "means2d": means2d}
    return torch.cat([rgb, depth], dim=-1) if render_mode != "RGB" else rgb, alpha, info


@pytest.fixture(scope="session")
def twin() -> Callable[..., Rendered]:
    """`rasterize` as above."""
    return rasterize


@pytest.fixture(scope="session")
def plain() -> SimpleNamespace:
    """Its parts: `rotation_from_quaternion`, `sh_basis`, `project_one_camera`."""
    return SimpleNamespace(
        rotation_from_quaternion=rotation_from_quaternion, sh_basis=sh_basis, project_one_camera=project_one_camera
    )

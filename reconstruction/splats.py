"""`Splats`: a head as coloured 3D Gaussians, how to start them on a surface, and how to look at them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dp360.generation.cameras import Cameras
from dp360.generation.views import PointCloud

from .rasterize import Rendered, rasterize
from .spherical_harmonics import sh0_from_rgb, sh_basis_count, sh_degree_from_basis_count

MAX_START_SCALE = 0.05
"""Largest standard deviation a Gaussian starts with, world units (about 3 cm): lone points do not become blobs."""
START_SCALE, START_THICKNESS = 0.9, 0.2
"""Standard deviation along the surface that a Gaussian starts with, in distances to its neighbours; along the normal,
as a share of that."""
START_OPACITY = 0.8
"""Opacity that every Gaussian starts with."""
STRAND_SCALE, STRAND_NEEDLE, STRAND_OPACITY = 0.84, 4.0, 0.6
"""Standard deviation along a thin sample, of half its length: chained pieces of a hair overlap; how much longer than
thick it is, the most that a fit does not draw back (`LossConfig.max_needle_ratio`); and its opacity."""
MIN_START_SCALE = 1e-4
"""Smallest standard deviation along the surface that a Gaussian starts with: doubled points stay points."""


@dataclass(frozen=True)
class Splats:
    """3D Gaussians of one head in the world frame, float32, in the value spaces in which they are fitted and stored."""

    means_world: Float[Tensor, "n 3"]
    """Centres, world units."""
    log_scales: Float[Tensor, "n 3"]
    """Natural logarithms of the standard deviations along the Gaussian's own axes, world units."""
    quats_wxyz: Float[Tensor, "n 4"]
    """Rotations to world from the Gaussian's own axes, wxyz, of any length but zero."""
    opacity_logits: Float[Tensor, " n"]
    """Logits of opacities."""
    sh0: Float[Tensor, "n 3"]
    """Constant harmonic coefficients of r, g, b."""
    sh_rest: Float[Tensor, "n k 3"]
    """Coefficients of the degrees above, basis-major, k = (degree + 1)^2 - 1."""

    def __post_init__(self) -> None:
        n = self.means_world.shape[0]
        k = self.sh_rest.shape[1] if self.sh_rest.dim() == 3 else -1
        expected = {
            "means_world": (n, 3),
            "log_scales": (n, 3),
            "quats_wxyz": (n, 4),
            "opacity_logits": (n,),
            "sh0": (n, 3),
            "sh_rest": (n, k, 3),
        }
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                raise ValueError(
                    f"Splats: expected {name} of shape {shape} and type float32, got {tuple(tensor.shape)} and "
                    f"{tensor.dtype}"
                )
            if math.isfinite(float(tensor.sum(dtype=torch.float64))):
                continue  # a sum in float64 does not overflow: all are finite
            bad = ~torch.isfinite(tensor).flatten(1).all(dim=1) if tensor.dim() > 1 else ~torch.isfinite(tensor)
            raise ValueError(
                f"Splats: {int(bad.sum())} of {n} Gaussians have {name} that are not finite, the first is number "
                f"{int(bad.nonzero()[0, 0])}; drop them with `splats[keep]` before building"
            )
        if n and not bool((self.quats_wxyz.abs().amax(dim=-1) > 0).all()):
            raise ValueError("Splats: expected quats_wxyz of non-zero length, got a zero quaternion")
        sh_degree_from_basis_count(k + 1)

    def __len__(self) -> int:
        return self.means_world.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Splats:
        """The chosen Gaussians, by mask, indices or slice."""
        return Splats(**{name: tensor[index] for name, tensor in vars(self).items()})

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return sh_degree_from_basis_count(self.sh_rest.shape[1] + 1)

    @property
    def scales(self) -> Float[Tensor, "n 3"]:
        """Standard deviations, world units."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Float[Tensor, " n"]:
        """Opacities in (0, 1)."""
        return self.opacity_logits.sigmoid()

    def to(self, device: torch.device | str) -> Splats:
        """The same Gaussians on another device."""
        return Splats(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def quats_turning_z_to(normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    """Shortest rotations (unit, wxyz) that turn the z axis to unit `normals`."""
    x, y, z = normals.unbind(-1)
    quats = torch.stack([1 + z, -y, x, torch.zeros_like(z)], dim=-1)
    opposite = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=quats.dtype, device=quats.device)
    quats = torch.where((z < -1 + 1e-6)[:, None], opposite, quats)
    return torch.nn.functional.normalize(quats, dim=-1)


def neighbour_distances(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Mean distance of each point to its three nearest others."""
    from scipy.spatial import KDTree

    count = min(3, points.shape[0] - 1)
    if count < 1:
        return torch.full((points.shape[0],), MAX_START_SCALE)
    coordinates = points.detach().cpu().numpy().astype(np.float64)
    distances, _ = KDTree(coordinates).query(coordinates, k=count + 1)
    return torch.from_numpy(distances[:, 1:].mean(axis=1)).float()


def splats_from_point_cloud(surface: PointCloud, *, sh_degree: int = 0) -> Splats:
    """Flat Gaussians that lie on the surface like scales: one per point, thin along the normal. Deterministic.

    Thin samples, such as strands of hair, become needles along their axes.

    Args:
        surface: Points with unit normals and colours.
        sh_degree: Degree for which coefficients are made (zero above the constant).

    Source: the neighbour rule is that of Kerbl et al., "3D Gaussian Splatting", 2023, Sec. 5; flat start after Guedon
    and Lepetit, "SuGaR", 2024, Sec. 4.
    """
    points = surface.points_world.float()
    n = points.shape[0]
    half_axes = torch.zeros_like(points) if surface.half_axes_world is None else surface.half_axes_world.float()
    half_length = half_axes.norm(dim=-1)
    thin = half_length > 0
    along = torch.zeros(n)
    along[~thin] = START_SCALE * neighbour_distances(points[~thin])
    along = along.clamp(MIN_START_SCALE, MAX_START_SCALE)
    scales = torch.stack([along, along, START_THICKNESS * along], dim=-1)
    needle = (STRAND_SCALE * half_length).clamp(MIN_START_SCALE, MAX_START_SCALE)
    needles = torch.stack([needle / STRAND_NEEDLE, needle / STRAND_NEEDLE, needle], dim=-1)
    z_axes = torch.where(thin[:, None], half_axes, surface.normals_world.float())
    return Splats(
        means_world=points.contiguous(),
        log_scales=torch.where(thin[:, None], needles, scales).log(),
        quats_wxyz=quats_turning_z_to(torch.nn.functional.normalize(z_axes, dim=-1)),
        opacity_logits=torch.logit(torch.where(thin, STRAND_OPACITY, START_OPACITY)),
        sh0=sh0_from_rgb(surface.rgb_unit.float()),
        sh_rest=torch.zeros(n, sh_basis_count(sh_degree) - 1, 3),
    )


def draw_splats(splats: Splats, cameras: Cameras, **options: Any) -> Rendered:
    """`rasterize`, with its options, of splats on their device."""
    device, degree = splats.means_world.device, splats.sh_degree
    shapes = (splats.means_world, splats.quats_wxyz, splats.log_scales, splats.opacity_logits)
    pose = (cameras.T_camera_world.to(device), cameras.K_px.to(device), cameras.width, cameras.height)
    return rasterize(*shapes, splats.sh0, splats.sh_rest, *pose, sh_degree=degree, **options)


@torch.no_grad()
def render_splats(
    splats: Splats,
    cameras: Cameras,
    *,
    background_rgb_unit: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> tuple[Float[Tensor, "n h w 3"], Float[Tensor, "n h w"]]:
    """Pictures over a plain background, in [0, 1], and alphas, one camera after another; results lie on the CPU."""
    background = torch.tensor([background_rgb_unit], device=splats.means_world.device)
    pictures, alphas = [], []
    for camera in cameras:
        picture, alpha, _ = draw_splats(splats, camera, backgrounds=background)
        pictures.append(picture[0].clamp(0, 1).cpu())
        alphas.append(alpha[0, ..., 0].cpu())
    return torch.stack(pictures), torch.stack(alphas)


def splat_pictures(splats: Splats, cameras: Cameras) -> UInt8[Tensor, "n h w 4"]:
    """Splats seen by each camera, as straight (not premultiplied) colour and alpha, 8 bits, on the CPU."""
    return straight_rgba(*render_splats(splats, cameras, background_rgb_unit=(0.0, 0.0, 0.0)))


def straight_rgba(
    rgb_premultiplied: Float[Tensor, "n h w 3"], alpha: Float[Tensor, "n h w"]
) -> UInt8[Tensor, "n h w 4"]:
    """Pictures over black as straight colour and alpha, 8 bits."""
    straight = (rgb_premultiplied / alpha[..., None].clamp_min(1e-6)).clamp(0, 1)
    return (torch.cat([straight, alpha[..., None]], dim=-1) * 255).round().to(torch.uint8)

"""`Splats`: what it accepts, where it starts on a surface, and the harmonics beneath."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from dp360.generation.cameras import look_at_origin
from dp360.generation.views import PointCloud
from dp360.reconstruction.densify import DensifyConfig, limit_shapes
from dp360.reconstruction.rasterize.reference import rotation_from_quaternion
from dp360.reconstruction.spherical_harmonics import (
    rgb_from_sh0,
    sh0_from_rgb,
    sh_basis,
    sh_degree_from_basis_count,
)
from dp360.reconstruction.splats import Splats, quats_turning_z_to, render_splats, splats_from_point_cloud


def sphere(n: int, radius: float = 0.35, seed: int = 0) -> PointCloud:
    """Random points on a sphere, coloured by direction."""
    generator = torch.Generator().manual_seed(seed)
    normals = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    return PointCloud(radius * normals, normals, 0.5 + 0.4 * normals)


def parts(splats: Splats) -> dict[str, Tensor]:
    """The fields by name; copies."""
    return {name: tensor.clone() for name, tensor in vars(splats).items()}


def test_start_lies_on_the_surface_and_is_thin_along_the_normal() -> None:
    surface = sphere(2000)
    splats = splats_from_point_cloud(surface, sh_degree=2, initial_opacity=0.8)
    assert len(splats) == 2000 and splats.sh_degree == 2
    assert torch.equal(splats.means_world, surface.points_world)
    thin_axis = rotation_from_quaternion(splats.quats_wxyz)[:, :, 2]
    torch.testing.assert_close(thin_axis, surface.normals_world, atol=1e-5, rtol=0)
    assert bool((splats.scales[:, 2] < 0.5 * splats.scales[:, 0]).all())
    torch.testing.assert_close(splats.opacities, torch.full((2000,), 0.8))
    torch.testing.assert_close(rgb_from_sh0(splats.sh0), surface.rgb_unit)
    spacing = math.sqrt(4 * math.pi * 0.35**2 / 2000)
    assert 0.3 * spacing < float(splats.scales[:, 0].median()) < 1.2 * spacing


def test_thin_samples_start_as_needles_along_their_axes() -> None:
    surface = sphere(500)
    axes = torch.zeros(500, 3)
    axes[::2] = 0.004 * torch.nn.functional.normalize(torch.randn(250, 3), dim=-1)
    splats = splats_from_point_cloud(replace(surface, half_axes_world=axes))
    thin = axes.norm(dim=-1) > 0
    along = rotation_from_quaternion(splats.quats_wxyz)[:, :, 2]
    torch.testing.assert_close(along[thin], axes[thin] / 0.004, atol=1e-4, rtol=0)
    across, length = splats.scales[thin][:, 0], splats.scales[thin][:, 2]
    assert bool((length / across > 3.9).all()) and 0.002 < float(length[0]) < 0.004
    limit_shapes({"scales": (kept := Parameter(splats.log_scales.clone()))}, DensifyConfig())
    torch.testing.assert_close(kept.exp()[thin], splats.scales[thin])  # the fit lets them be
    rest = splats_from_point_cloud(surface[~thin])
    torch.testing.assert_close(splats.scales[~thin], rest.scales)
    torch.testing.assert_close(splats.quats_wxyz[~thin], rest.quats_wxyz)


def test_start_covers_the_surface_without_holes() -> None:
    _, alpha = render_splats(splats_from_point_cloud(sphere(4000)), look_at_origin([0.4], [0.2], size_px=64))
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    inner = torch.hypot(x, y) < 0.8 * 64 * 4.2647 * 0.35 / 2.7
    assert float(alpha[0][inner].min()) > 0.9


def test_points_at_one_place_and_lone_points_make_valid_splats() -> None:
    normal = torch.tensor([[0.0, 0.0, -1.0]])
    for n in (0, 1, 2, 5):
        cloud = PointCloud(torch.zeros(n, 3), normal.repeat(n, 1), torch.full((n, 3), 0.5))
        assert len(splats_from_point_cloud(cloud)) == n


def test_quaternions_turn_z_to_any_normal() -> None:
    normals = torch.cat([torch.nn.functional.normalize(torch.randn(50, 3), dim=-1), torch.eye(3), -torch.eye(3)])
    turned = rotation_from_quaternion(quats_turning_z_to(normals))[:, :, 2]
    torch.testing.assert_close(turned, normals, atol=1e-5, rtol=0)


def test_colours_and_constant_coefficients_are_inverse() -> None:
    rgb = torch.rand(10, 3)
    torch.testing.assert_close(rgb_from_sh0(sh0_from_rgb(rgb)), rgb)
    assert float(sh0_from_rgb(torch.full((3,), 0.5)).abs().max()) == 0


def test_harmonics_are_orthonormal() -> None:
    """Gauss-Legendre in z times equal steps in azimuth integrates degree 6 exactly."""
    import numpy as np

    z, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(8))
    azimuth = torch.arange(16, dtype=torch.float64) * 2 * math.pi / 16
    r = torch.sqrt(1 - z**2)
    directions = torch.stack(
        [r[:, None] * azimuth.cos(), r[:, None] * azimuth.sin(), z[:, None].expand(8, 16)], dim=-1
    ).reshape(-1, 3)
    weights = (weight[:, None] * 2 * math.pi / 16).expand(8, 16).reshape(-1)
    basis = sh_basis(3, directions)
    torch.testing.assert_close((basis * weights[:, None]).T @ basis, torch.eye(16, dtype=torch.float64))


def test_subset_and_device_keep_the_fields() -> None:
    splats = splats_from_point_cloud(sphere(20), sh_degree=1)
    kept = splats[torch.arange(20) % 2 == 0].to("cpu")
    assert len(kept) == 10 and torch.equal(kept.means_world, splats.means_world[::2])
    assert kept.sh.shape == (10, 4, 3)


@pytest.mark.parametrize("name", ["means_world", "log_scales", "quats_wxyz", "opacity_logits", "sh0", "sh_rest"])
def test_values_that_are_not_finite_are_refused_by_name(name: str) -> None:
    fields = parts(splats_from_point_cloud(sphere(6), sh_degree=1))
    fields[name][4] = float("nan")
    with pytest.raises(ValueError, match=f"1 of 6 Gaussians have {name} that are not finite, the first is number 4"):
        Splats(**fields)


def test_wrong_type_zero_quaternions_and_odd_bases_are_refused() -> None:
    fields = parts(splats_from_point_cloud(sphere(6), sh_degree=1))
    with pytest.raises(ValueError, match="float32"):
        Splats(**{**fields, "sh0": fields["sh0"].double()})
    with pytest.raises(ValueError, match="zero quaternion"):
        Splats(**{**fields, "quats_wxyz": torch.zeros(6, 4)})
    with pytest.raises(ValueError, match="1, 4, 9 or 16"):
        Splats(**{**fields, "sh_rest": torch.zeros(6, 5, 3)})
    with pytest.raises(ValueError, match="1, 4, 9 or 16"):
        sh_degree_from_basis_count(25)
    with pytest.raises(ValueError, match="initial opacity"):
        splats_from_point_cloud(sphere(3), initial_opacity=1.0)

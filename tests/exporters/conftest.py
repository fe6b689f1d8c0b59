"""A test head whose sides are marked, and a shiny one to judge lossy formats by."""

import math

import numpy as np
import pytest
import torch

from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh
from dp360.reconstruction.splats import Splats, quats_turning_z_to

RED, GREEN, BLUE, SKIN = (0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9), (0.6, 0.5, 0.45)
HEIGHT = 0.24 / (0.01 / 0.0165)
"""World units of a head that is 24 cm tall."""


def _rotation_to(direction: torch.Tensor) -> torch.Tensor:
    return quats_turning_z_to(torch.nn.functional.normalize(direction, dim=-1))


@pytest.fixture
def marked_head() -> Splats:
    """A head of 24 cm: red left ear at +x, blue nose tip at +z, green crown at +y, on a skin-coloured ellipsoid.

    The nose is a needle along +z, the ear a needle along (0, 1, 1): rotations show too. From the left (camera at +x)
    every Gaussian is brighter than from the right: harmonics show too.
    """
    generator = torch.Generator().manual_seed(3)
    sphere = torch.nn.functional.normalize(torch.randn(800, 3, generator=generator), dim=-1)
    half = torch.tensor([0.38, 0.5, 0.42]) * HEIGHT
    marks = torch.tensor([[0.4, 0.0, 0.0], [0.0, -0.06, 0.5], [0.0, 0.5, 0.0]]) * HEIGHT
    needles = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    each = 20
    jitter = 0.004 * torch.randn(3 * each, 3, generator=generator)
    means = torch.cat([sphere * half * 0.95, marks.repeat_interleave(each, 0) + jitter])
    rgb = torch.tensor([SKIN]).expand(800, 3)
    rgb = torch.cat([rgb, torch.tensor([RED, BLUE, GREEN]).repeat_interleave(each, 0)])
    directions = torch.cat([sphere, needles.repeat_interleave(each, 0)])
    flat, needle = torch.tensor([0.02, 0.02, 0.004]), torch.tensor([0.004, 0.004, 0.02])
    scales = torch.cat([flat.expand(800, 3), needle.expand(3 * each, 3)])
    rest = torch.zeros(len(means), 3, 3)
    rest[:, 2] = 0.1  # times -x of the direction from the camera, which is (-1, 0, 0) for a camera at +x
    order = torch.randperm(len(means), generator=generator)
    return Splats(
        means[order],
        scales.log()[order],
        _rotation_to(directions)[order] * 1.7,  # of any length
        torch.full((len(means),), 3.0),
        ((rgb - 0.5) / 0.28209479)[order],
        rest[order],
    )


@pytest.fixture
def shiny_head() -> Splats:
    """Six thousand uneven Gaussians on a bumpy head, textured, some transparent, shiny to degree 3."""
    generator = torch.Generator().manual_seed(5)
    n = 6000

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    sphere = torch.nn.functional.normalize(normal(n, 3), dim=-1)
    bumps = 1 + 0.05 * (sphere * 9).sin().sum(dim=1, keepdim=True)
    texture = 0.5 + 0.3 * (sphere @ normal(3, 3) * 6).sin() + 0.05 * normal(n, 3)
    size = torch.tensor([0.011, 0.007, 0.002]).log() + 0.3 * normal(n, 3)
    return Splats(
        sphere * bumps * torch.tensor([0.38, 0.5, 0.42]) * HEIGHT,
        size,
        _rotation_to(sphere + 0.2 * normal(n, 3)),
        math.log(8) + normal(n),
        (texture - 0.5) / 0.28209479,
        0.04 * normal(n, 15, 3),
    )


def _directions(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Unit vectors of a longitude-latitude texture: the top row looks to +y, the middle column to +z."""
    polar, azimuth = v * np.pi, (u - 0.5) * 2 * np.pi
    return np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], axis=-1)


@pytest.fixture
def marked_mesh() -> TexturedMesh:
    """A closed head whose only bumps are a red left ear at +x, a blue nose at +z and a green crown at +y."""
    rows, columns, texture_px = 60, 96, 256
    v, u = np.meshgrid(np.linspace(0, 1, rows + 1), np.linspace(0, 1, columns + 1), indexing="ij")
    direction = _directions(v, u).reshape(-1, 3)
    bumps = np.exp((direction - 1) / 0.01) @ np.diag([0.025, 0.02, 0.04])
    vertices_m = direction * [0.09, 0.12, 0.1] + bumps
    index = np.arange(len(direction)).reshape(rows + 1, columns + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    v_texel, u_texel = np.meshgrid(*(2 * [(np.arange(texture_px) + 0.5) / texture_px]), indexing="ij")
    texel_direction = _directions(v_texel, u_texel)
    texture = np.tile(np.array(SKIN) * 255, (texture_px, texture_px, 1))
    for axis, colour in ((0, RED), (1, GREEN), (2, BLUE)):
        texture[texel_direction[..., axis] > 0.96] = np.array(colour) * 255
    return TexturedMesh(
        (vertices_m / METRES_PER_UNIT).astype(np.float32),
        direction.astype(np.float32),
        np.stack([u, v], axis=-1).reshape(-1, 2).astype(np.float32),
        faces.astype(np.int32),
        texture.round().astype(np.uint8),
    )

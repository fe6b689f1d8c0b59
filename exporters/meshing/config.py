"""Settings of the way from renders to a textured mesh."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from dp360.generation.cameras import (
    PANOHEAD_FOCAL_NORMALISED,
    PANOHEAD_RADIUS,
    Cameras,
    concatenate_cameras,
    look_at_origin,
)
from dp360.reconstruction.front_view import Framing


@dataclass(frozen=True)
class Ring:
    """Cameras at equal azimuth steps on one height."""

    count: int
    """Number of cameras."""
    elevation_deg: float
    """Degrees above the head's middle."""
    start_fraction: float = 0.0
    """Where the first one stands, as a fraction of a step to the head's left of the front."""


@dataclass(frozen=True)
class MeshConfig:
    """How fine the surface and its texture are, and from where the scene is looked at."""

    face_budget: int = 50_000
    """Most triangles of the mesh."""
    texture_px: int = 2048
    """Side of the square texture, pixels."""
    voxel_size: float = 0.0025
    """Grid spacing of the distance field, world units (0.0025 is 1.5 mm); memory grows with its third power."""
    half_extent: float = 0.5
    """Half the side of the cube around the origin outside of which nothing is looked for, world units."""
    bottom_y: float = -0.36
    """Height of the flat cut that closes the bust, world units; a little below what a portrait shows."""
    smoothing_steps: int = 8
    """Pairs of Taubin steps over the surface; 0 leaves marching cubes' surface as it is."""
    render_px: int = 512
    """Side of the square renders, pixels."""
    near_rings: tuple[Ring, ...] = field(default=(Ring(24, 0.0), Ring(12, 30.0, 0.5), Ring(10, -22.0, 0.5)))
    """Cameras that see what a portrait shows: they give the detail of head and texture."""
    far_rings: tuple[Ring, ...] = field(
        default=(Ring(16, 0.0, 0.5), Ring(12, 30.0), Ring(8, 62.0, 0.5), Ring(12, -24.0), Ring(1, 86.0))
    )
    """Cameras whose pictures hold the whole cube: they find the shoulders and carve what is empty."""

    def __post_init__(self) -> None:
        if self.face_budget < 100:
            raise ValueError(f"MeshConfig: expected a face_budget of at least 100, got {self.face_budget}")
        if not 64 <= self.texture_px <= 16384:
            raise ValueError(f"MeshConfig: expected a texture_px from 64 to 16384, got {self.texture_px}")
        if not 0 < self.voxel_size < self.half_extent / 8:
            raise ValueError(f"MeshConfig: expected a voxel_size in (0, half_extent / 8), got {self.voxel_size}")

    def framed(self, framing: Framing) -> MeshConfig:
        """The same for what was moved into this framing: only heads of ours end in a flat cut."""
        return self if framing.is_ours else replace(self, bottom_y=-self.half_extent)

    def cameras(self) -> Cameras:
        """All cameras: the near rings first, then the far ones, which see the whole cube, or nearly."""
        far_focal_normalised = PANOHEAD_RADIUS / (2 * 1.02 * self.half_extent)
        rings = [(ring, PANOHEAD_FOCAL_NORMALISED) for ring in self.near_rings]
        rings += [(ring, far_focal_normalised) for ring in self.far_rings]
        return concatenate_cameras([_ring_cameras(ring, focal, self.render_px) for ring, focal in rings])


RUN_MESH = MeshConfig(
    face_budget=20_000,
    voxel_size=0.004,
    texture_px=1024,
    render_px=384,
    near_rings=(Ring(16, 0.0), Ring(8, 30.0, 0.5), Ring(6, -22.0, 0.5)),
    far_rings=(Ring(8, 0.0, 0.5), Ring(6, 30.0), Ring(4, 62.0, 0.5), Ring(6, -24.0), Ring(1, 86.0)),
)
"""What a run makes of views of 384 px and more: less than a third of the default's time."""
_SMALL_RUN_MESH = replace(
    RUN_MESH,
    face_budget=12_000,
    texture_px=768,
    near_rings=(Ring(12, 0.0), Ring(6, 30.0, 0.5), Ring(5, -22.0, 0.5)),
    far_rings=(Ring(6, 0.0, 0.5), Ring(4, 30.0), Ring(4, 62.0, 0.5), Ring(5, -24.0), Ring(1, 86.0)),
)
_LEAST_RENDER_PX = 128
COARSE_MESH = MeshConfig(
    voxel_size=0.005,
    texture_px=1024,
    render_px=128,
    near_rings=(Ring(12, 0.0), Ring(6, 30.0, 0.5), Ring(5, -22.0, 0.5)),
    far_rings=(Ring(8, 0.0, 0.5), Ring(6, 30.0), Ring(4, 62.0, 0.5), Ring(6, -24.0), Ring(1, 86.0)),
)
"""For scenes where every pixel takes long, such as a radiance field on a CPU: a thirtieth of the pixels."""


def run_mesh(view_px: int) -> MeshConfig:
    """What a run makes of splats that were fitted to views of `view_px` pixels.

    Splats are rendered no larger than they were fitted: their low-pass filter has a width in pixels, so that on larger
    pictures they are thinner than the views show them, and the surface has holes in its hair.
    """
    if view_px >= RUN_MESH.render_px:
        return RUN_MESH
    return replace(_SMALL_RUN_MESH, render_px=max(view_px, _LEAST_RENDER_PX))


def _ring_cameras(ring: Ring, focal_normalised: float, size_px: int) -> Cameras:
    """The cameras of one ring."""
    azimuth_rad = [2 * math.pi * (i + ring.start_fraction) / ring.count for i in range(ring.count)]
    elevation_rad = [math.radians(ring.elevation_deg)] * ring.count
    return look_at_origin(azimuth_rad, elevation_rad, size_px=size_px, focal_normalised=focal_normalised)

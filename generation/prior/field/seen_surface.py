"""How a camera sees a surface on the chart: the rules that real portraits and simulated ones share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32

from ...cameras import Cameras
from ...mesh_raster import rasterize_mesh
from .chart import cell_frames, surface_mesh, surface_tangents

BOUND_LEVELS = np.array([0, 0.008, 0.016, 0.025, 0.035, 0.05, 0.065, 0.08, 0.1, 0.125, 0.15, 0.18, 0.22])
"""Thicknesses that are tried against the outline, world units."""
BEYOND = 0.25
"""Bound where none of them shows."""
FRAMED_LEVEL = 3
"""Of `BOUND_LEVELS`: what has to lie in the picture for a bound to count."""
LEAST_FACING = 0.12
"""Cosine from which on a cell is seen."""
_RAY_ACROSS, _MOST_FACING = 0.35, 0.6
"""A cell tells its thickness by the outline if its ray is within this cosine of running along the picture, and its
surface, which is a guess, within the second."""
DEPTH_SLACK = 0.02
"""How far behind the nearest surface a cell still counts as seen, world units."""


@dataclass(frozen=True)
class SeenSurface:
    """A surface with a point in every cell, as one camera sees it."""

    points_world: Float[np.ndarray, "56 64 3"]
    """The surface."""
    down: Float[np.ndarray, "56 64 3"]
    """Step to the next row."""
    around: Float[np.ndarray, "56 64 3"]
    """Step to the next column."""
    normals_world: Float[np.ndarray, "56 64 3"]
    """Unit outward normals."""
    away_world: Float[np.ndarray, "56 64 3"]
    """Vectors to the camera."""
    facing: Float[np.ndarray, "56 64"]
    """Cosines between normals and the lines of sight."""
    uv_px: Float[np.ndarray, "56 64 2"]
    """Where the points lie in the picture."""
    z: Float[np.ndarray, "56 64"]
    """Their depths, camera z."""
    depth: Float32[np.ndarray, "s s"]
    """Camera z of the nearest surface at each pixel, infinite at the background."""

    @classmethod
    def of(cls, camera: Cameras, points_world: Float[np.ndarray, "56 64 3"]) -> SeenSurface:
        """A surface seen by a batch of one camera."""
        down, around, normals = surface_tangents(points_world)
        away = camera.position_world[0].numpy() - points_world
        facing = (normals * away).sum(-1) / np.linalg.norm(away, axis=-1)
        depth = rasterize_mesh(*surface_mesh(points_world), camera).depth
        uvz = camera.project(torch.from_numpy(points_world.reshape(-1, 3)))[0].numpy().reshape(points_world.shape)
        return cls(points_world, down, around, normals, away, facing, uvz[..., :2], uvz[..., 2], depth)

    def visible(self, depth_there: Float32[np.ndarray, "56 64"]) -> Bool[np.ndarray, "56 64"]:
        """Cells that face the camera and that nothing hides, by `depth` at their pixels."""
        return (self.facing > LEAST_FACING) & (self.z < depth_there + DEPTH_SLACK)

    @property
    def beside_outline(self) -> Bool[np.ndarray, "56 64"]:
        """Cells whose thickness the outline tells, if it is theirs."""
        along = np.abs((cell_frames().outward * self.away_world).sum(-1)) / np.linalg.norm(self.away_world, axis=-1)
        return (along < _RAY_ACROSS) & (np.abs(self.facing) < _MOST_FACING)

    @property
    def sureness(self) -> Float[np.ndarray, "56 64"]:
        """Visibility of a cell if it is seen."""
        return np.clip(0.3 + 1.8 * self.facing, 0, 1)


def first_standing_out(
    stands_out: Bool[np.ndarray, "l 56 64"], levels: Float[np.ndarray, " l"]
) -> Float[np.ndarray, "56 64"]:
    """First of ascending thicknesses at which a cover stands out of the outline, `BEYOND` where none does."""
    first = np.where(stands_out.any(0), stands_out.argmax(0), len(levels))
    return np.append(levels, BEYOND)[first]

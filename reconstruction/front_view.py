"""Where every viewer stands when somebody opens a head: in front of the face, upright, with a little air around."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dp360.generation.cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS
from dp360.generation.mesh import TexturedMesh

from .splats import Splats

_DISTANCE = 0.7 * PANOHEAD_RADIUS
"""World units. Nearer than the training cameras, whose frustums would stand between us and the head otherwise."""
_HALF_EXTENT = 1.15 * 0.5 / PANOHEAD_FOCAL_NORMALISED * PANOHEAD_RADIUS
"""World units from the head's middle to the picture's edge: what a portrait shows, and a little more."""
_FAR_OFF_CENTRE, _HEAD_RADIUS_RANGE = 0.25, (0.12, 0.6)
"""World units: points outside of these are no head of ours, and are framed by their own size."""

_FILLED = 0.27
"""World units from the middle to the farthest part of what is framed: a portrait camera shows 0.32 at the middle."""
_FLOATER = 3.0
"""What lies farther from the middle than this, in half sides of the box round most, is not framed."""
_SIGMAS, _VISIBLE = 2.0, 0.05
"""Standard deviations that a Gaussian is taken to reach; opacity from which it counts."""


@dataclass(frozen=True)
class FrontCamera:
    """A camera that looks along -z, y up."""

    target_world: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Point in the middle of the picture, world units."""
    distance: float = _DISTANCE
    """From the camera to the target, world units."""
    fov_rad: float = 2.0 * math.atan(_HALF_EXTENT / _DISTANCE)
    """Field of view over the shorter side of the picture."""

    @property
    def position_world(self) -> tuple[float, float, float]:
        """Optical centre, world units."""
        x, y, z = self.target_world
        return (x, y, z + self.distance)

    def vertical_fov_rad(self, aspect: float) -> float:
        """Vertical field of view of a window of this aspect (width / height), radians."""
        return 2.0 * math.atan(math.tan(self.fov_rad / 2) / min(aspect, 1.0))


@dataclass(frozen=True)
class Framing:
    """Where something stands and how large it is, so that cameras made for a head of ours show it as they show one."""

    middle_world: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What lies at the origin afterwards, world units."""
    scale: float = 1.0
    """World units in a unit of the frame."""
    left_out: int = 0
    """Gaussians that lie too far off to be framed with the others."""

    @property
    def is_ours(self) -> bool:
        """Whether it is a head of ours in its place."""
        return self == Framing()

    @property
    def front_camera(self) -> FrontCamera:
        """The view from the front."""
        return FrontCamera(self.middle_world, self.scale * _DISTANCE)

    def framed(self, splats: Splats) -> Splats:
        """Gaussians moved and scaled into the frame of a head of ours."""
        if self.is_ours:
            return splats
        middle = splats.means_world.new_tensor(self.middle_world)
        return replace(
            splats,
            means_world=(splats.means_world - middle) / self.scale,
            log_scales=splats.log_scales - math.log(self.scale),
        )

    def mesh_to_world(self, mesh: TexturedMesh) -> TexturedMesh:
        """A mesh of the framed scene, back at its place and size."""
        if self.is_ours:
            return mesh
        vertices = mesh.vertices_world.astype(np.float64) * self.scale + self.middle_world
        return replace(mesh, vertices_world=vertices.astype(np.float32))


def framing_of(splats: Splats, *, known: bool) -> Framing:
    """How to look at splats.

    Args:
        splats: at least one Gaussian.
        known: whether they are ours: then heads of the usual size at the origin stay there, and all fill pictures
            alike. Anything else is framed by its own place and size.
    """
    visible = splats.opacities > _VISIBLE
    if int(visible.sum()) * 10 >= len(splats):
        splats = splats[visible]
    points = splats.means_world.detach().float().cpu()
    if known and _is_head_of_ours(points):
        return Framing()
    return _framing_by_content(points, splats.scales.detach().float().cpu().max(dim=1).values)


def framing_of_points(points_world: Float[Tensor, "p 3"]) -> Framing:
    """How to look at what has these points: heads of ours at their place, anything else by its place and size.

    Args:
        points_world: at least one point, world units; a few far ones do not count.
    """
    points = points_world.detach().float().cpu()
    return Framing() if _is_head_of_ours(points) else _framing_by_content(points, torch.zeros(len(points)))


def _most_of(points: Float[Tensor, "p 3"]) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
    """Middle and half sides of the box round all but a hundredth of the points at either end."""
    outer = len(points) // 100
    ranks = (outer + 1, len(points) - outer)
    low, high = (torch.stack([column.kthvalue(k).values for column in points.T]) for k in ranks)
    return (low + high) / 2, (high - low) / 2


def _is_head_of_ours(points: Float[Tensor, "p 3"]) -> bool:
    """Whether points lie where heads of ours do."""
    middle, half = _most_of(points)
    smallest, largest = _HEAD_RADIUS_RANGE
    return float(middle.norm()) <= _FAR_OFF_CENTRE and smallest <= float(half.max()) <= largest


def _framing_by_content(points: Float[Tensor, "p 3"], std: Float[Tensor, " p"]) -> Framing:
    """The framing of points with standard deviations, whose farthest fill most of a picture from every side.

    Points a little outside of where most are belong to it, an antenna for instance; what is far off does not.
    """
    middle, half = _most_of(points)
    near = (points - middle).abs().max(dim=1).values <= _FLOATER * float(half.max()) + 1e-30
    kept, std = points[near].double(), std[near]
    low, high = kept.min(dim=0).values, kept.max(dim=0).values
    middle = (low + high) / 2
    across = (kept - middle)[:, [0, 2]].norm(dim=1).max()
    reach = max(float(across), float((high - low)[1]) / 2) + _SIGMAS * float(std.median())
    x, y, z = middle.tolist()
    return Framing((x, y, z), max(reach, 1e-30) / _FILLED, int((~near).sum()))

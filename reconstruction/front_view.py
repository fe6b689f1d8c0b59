"""Where every viewer stands when somebody opens a head: in front of the face, upright, with a little air around."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dp360.generation.cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS

_DISTANCE = 0.7 * PANOHEAD_RADIUS
"""World units. Nearer than the training cameras, whose frustums would stand between us and the head otherwise."""
_HALF_EXTENT = 1.15 * 0.5 / PANOHEAD_FOCAL_NORMALISED * PANOHEAD_RADIUS
"""World units from the head's middle to the picture's edge: what a portrait shows, and a little more."""
_FAR_OFF_CENTRE, _HEAD_RADIUS_RANGE = 0.25, (0.12, 0.6)
"""World units: points outside of these are no head of ours, and are framed by their own size."""


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


def front_camera_of(points_world: Float[Tensor, "p 3"]) -> FrontCamera:
    """The view for a head of ours; for points of another size or place, the same view moved and scaled to fit them.

    Args:
        points_world: at least one point, world units; a few far ones do not count.
    """
    points = points_world.detach().float().cpu()
    outer = len(points) // 100  # at either end a hundredth does not count
    ranks = (outer + 1, len(points) - outer)
    low, high = (torch.tensor([column.kthvalue(k).values for column in points.T]) for k in ranks)
    middle, radius = (low + high) / 2, float((high - low).max()) / 2
    smallest, largest = _HEAD_RADIUS_RANGE
    if float(middle.norm()) <= _FAR_OFF_CENTRE and smallest <= radius <= largest:
        return FrontCamera()
    scale = max(radius, 1e-6) / (0.8 * _HALF_EXTENT)
    x, y, z = middle.tolist()
    return FrontCamera(target_world=(x, y, z), distance=scale * _DISTANCE)

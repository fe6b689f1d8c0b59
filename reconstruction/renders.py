"""What a mesh, or a preview, is made of: anything that renders colour, alpha and depth from given cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from dp360.generation import Cameras


@dataclass(frozen=True)
class Renders:
    """Pictures of a scene, float32 on the CPU."""

    rgb_premultiplied: Float[Tensor, "n h w 3"]
    """Colour times alpha, that is over black, [0, 1]."""
    alpha: Float[Tensor, "n h w"]
    """Opacity, [0, 1]."""
    depth: Float[Tensor, "n h w"]
    """Depth of the first surface along the camera's axis, world units; of no meaning where alpha is 0."""


@runtime_checkable
class Renderable(Protocol):
    """A scene in the world frame of `generation.cameras`."""

    def render(self, cameras: Cameras) -> Renders:
        """The scene as the cameras see it."""
        ...

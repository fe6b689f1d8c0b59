"""A triangle surface that takes poses: what rigs and bindings share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from .poses import Pose
from .skeleton import Skeleton


@dataclass(frozen=True)
class Surface:
    """Vertices at rest with a neutral expression, and all that moves them."""

    vertices_world: Float32[np.ndarray, "v 3"]
    """With a neutral expression, eyes straight ahead, world units."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles, counter-clockwise seen from outside."""
    shapes: Float32[np.ndarray, "52 v 3"]
    """Displacements at full strength, in the order of `ARKIT_NAMES`."""
    skeleton: Skeleton
    """Joints at rest."""
    joint_weights: Float[np.ndarray, "v 5"]
    """Shares of the joints at each vertex."""

    def posed(self, pose: Pose) -> Float[np.ndarray, "v 3"]:
        """Vertices of a pose, world units.

        Source: linear blend skinning, glTF 2.0 specification, Sec. 3.7.3.
        """
        at_rest = self.vertices_world.astype(np.float64)
        for shape in np.flatnonzero(pose.weights):
            at_rest += pose.weights[shape] * self.shapes[shape]
        if not pose.head_rad.any():
            return at_rest
        moves = np.tensordot(self.joint_weights, self.skeleton.transforms(pose.head_rad), 1)
        return np.einsum("vij,vj->vi", moves[:, :3, :3], at_rest) + moves[:, :3, 3]

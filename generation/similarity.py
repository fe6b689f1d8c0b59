"""Similarities of space: what carries captured and composed heads to the place and size of ours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Similarity:
    """`scale * R @ p + shift`."""

    scale: float
    """Factor on lengths."""
    R: Float[np.ndarray, "3 3"]
    """Rotation."""
    shift: Float[np.ndarray, " 3"]
    """Units of the target."""

    def __call__(self, points: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, "p 3"]:
        return self.scale * points @ self.R.T + self.shift

    def moved_poses(self, T_before_camera: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
        """Poses of cameras that see the moved world as the given ones see it before; they stay rigid."""
        T_after_camera = T_before_camera.copy()
        T_after_camera[:, :3, :3] = self.R @ T_before_camera[:, :3, :3]
        T_after_camera[:, :3, 3] = self(T_before_camera[:, :3, 3])
        return T_after_camera

    def inverse(self) -> Similarity:
        """The map back."""
        return Similarity(1 / self.scale, self.R.T, -self.R.T @ self.shift / self.scale)


def best_similarity(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]) -> Similarity:
    """The least-squares map of paired points.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991,
        eq. 40-42.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    U, D, Vt = np.linalg.svd(b.T @ a)
    S = np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    R = U @ np.diag(S) @ Vt
    scale = float((D * S).sum() / (a**2).sum())
    return Similarity(scale, R, target.mean(0) - scale * R @ source.mean(0))

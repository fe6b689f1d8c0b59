"""Light on the skin that is seen, as a network tells it, carried on over a few centimetres of the skin beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.spatial import KDTree

from ...light.exposure import GAMMA
from ...light.spherical_harmonics import LUMINANCE

_REACH = 0.03
"""How far light on seen skin tells of the skin beside it, world units (1.8 cm)."""
_AROUND = 8
_MOST = 1.6
"""Largest logarithm of a factor."""
_LEAST_WEIGHT, _LEAST_VERTICES = 0.05, 60


@dataclass(frozen=True)
class SkinShade:
    """Light on skin that is seen."""

    log_factor: Float32[np.ndarray, "v 3"]
    """Logarithms of factors on sRGB colours; 0 away from skin that is seen."""
    near: Float32[np.ndarray, " v"]
    """1 on skin that is seen, less beside it, 0 on all else."""
    tint: Float32[np.ndarray, " 3"]
    """Factors on sRGB colours of the light's own colour, of luminance 1."""

    def over(self, shade: Float[np.ndarray, "v 3"]) -> Float32[np.ndarray, "v 3"]:
        """Another shade, where this one tells nothing; factors on sRGB colours."""
        rest = (1 - self.near)[:, None]
        return ((shade * self.tint) ** rest * np.exp(self.log_factor * self.near[:, None])).astype(np.float32)


def skin_shade(
    vertices_world: Float[np.ndarray, "v 3"], log_light: Float32[np.ndarray, "v 3"], weight: Float[np.ndarray, " v"],
    skin: Bool[np.ndarray, " v"], plain: Float[np.ndarray, " v"], area: Float[np.ndarray, " v"],
) -> SkinShade | None:  # fmt: skip
    """Light on the skin of a mesh, as much on what is seen of it as even light of brightness 1.

    Args:
        vertices_world: the mesh.
        log_light: what the network says of each vertex: logarithms of factors, up to one number.
        weight: how plainly skin is seen there, [0, 1].
        skin: vertices of the head's skin.
        plain: of these, how far each is neither lips nor eyes, [0, 1].
        area: what each stands for.

    Returns:
        None where too little skin is seen.
    """
    worth = weight * plain
    seen = np.nonzero(skin & (weight > _LEAST_WEIGHT))[0]
    if (worth[seen] > _LEAST_WEIGHT).sum() < _LEAST_VERTICES:
        return None
    mass = worth[seen] * area[seen]
    grey = log_light[seen].astype(np.float64) @ LUMINANCE
    middle = _median(grey, mass)
    level = middle + np.log(np.average(np.exp(GAMMA * np.clip(grey - middle, -_MOST, _MOST)), weights=mass)) / GAMMA
    logs = np.clip(log_light[seen] - level, -_MOST, _MOST)
    colour = np.array([_median(channel, mass) for channel in (logs - (logs @ LUMINANCE)[:, None]).T])
    count = len(vertices_world)
    tree, on_skin = KDTree(vertices_world[seen]), np.nonzero(skin)[0]
    distance, neighbour = tree.query(vertices_world[on_skin], k=_AROUND)
    share = (np.exp(-0.5 * np.square(distance / _REACH)) * weight[seen][neighbour] + 1e-12)[..., None]
    near, field = np.zeros(count, np.float32), np.zeros((count, 3), np.float32)
    near[on_skin] = np.exp(-distance[:, 0] / (2 * _REACH))
    field[on_skin] = (share * logs[neighbour]).sum(1) / share.sum(1)
    field[seen] = logs
    tint = np.exp(colour - colour @ LUMINANCE).astype(np.float32)
    return SkinShade(field, near, tint)


def _median(values: Float[np.ndarray, " n"], weight: Float[np.ndarray, " n"]) -> float:
    """Weighted median."""
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(mass, 0.5 * mass[-1])]])

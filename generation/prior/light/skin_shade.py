"""Light on the skin that is seen, as a network tells it, carried on over a few centimetres of the skin beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.sparse import csr_array
from scipy.spatial import KDTree

from ...light.exposure import GAMMA
from ...light.spherical_harmonics import LUMINANCE

_REACH = 0.03
"""How far light on seen skin tells of the skin beside it, world units (1.8 cm)."""
_AROUND = 8
_MOST = 1.6
"""Largest logarithm of a factor."""
LEAST_WEIGHT, _LEAST_VERTICES = 0.05, 60
"""How plainly skin has to be seen for light to be told of it, and how much of it."""


@dataclass(frozen=True)
class SkinShade:
    """Light on skin that is seen."""

    log_factor: Float32[np.ndarray, "v 3"]
    """Logarithms of factors on sRGB colours; 0 away from skin that is seen."""
    carried: csr_array
    """`(v, v)`: how much what is told of seen skin says of each vertex. Rows sum to 1 on seen skin itself, to less on
    the skin beside it, to 0 on all else."""
    tint: Float32[np.ndarray, " 3"]
    """Factors on sRGB colours of the light's own colour, of luminance 1."""

    def over(self, shade: Float[np.ndarray, "v 3"]) -> Float32[np.ndarray, "v 3"]:
        """Another shade, corrected on skin that is seen to what is told there, and less and less beside it; factors on
        sRGB colours. What is hidden in a crease beside seen skin so stays darker than that skin."""
        reckoned = np.log(shade * self.tint)
        return np.exp(reckoned + self.carried @ (self.log_factor - reckoned)).astype(np.float32)


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
    seen = np.nonzero(skin & (weight > LEAST_WEIGHT))[0]
    if (worth[seen] > LEAST_WEIGHT).sum() < _LEAST_VERTICES:
        return None
    mass = worth[seen] * area[seen]
    grey = log_light[seen].astype(np.float64) @ LUMINANCE
    middle = _median(grey, mass)
    level = middle + np.log(np.average(np.exp(GAMMA * np.clip(grey - middle, -_MOST, _MOST)), weights=mass)) / GAMMA
    logs = np.clip(log_light[seen] - level, -_MOST, _MOST)
    colour = np.array([_median(channel, mass) for channel in (logs - (logs @ LUMINANCE)[:, None]).T])
    tint = np.exp(colour - colour @ LUMINANCE).astype(np.float32)
    log_factor = np.zeros((len(vertices_world), 3), np.float32)
    log_factor[seen] = logs
    return SkinShade(log_factor, _carried(vertices_world, weight, skin, seen), tint)


def _carried(
    vertices_world: Float[np.ndarray, "v 3"], weight: Float[np.ndarray, " v"], skin: Bool[np.ndarray, " v"],
    seen: Int[np.ndarray, " s"],
) -> csr_array:  # fmt: skip
    """How much seen skin says of each vertex of skin: itself all of it, and less with distance."""
    beside = np.setdiff1d(np.nonzero(skin)[0], seen)
    distance, neighbour = KDTree(vertices_world[seen]).query(vertices_world[beside], k=_AROUND)
    share = np.exp(-0.5 * np.square(distance / _REACH)) * weight[seen][neighbour] + 1e-12
    share *= np.exp(-distance[:, :1] / (2 * _REACH)) / share.sum(1, keepdims=True)
    rows, columns = np.repeat(beside, _AROUND), seen[neighbour].ravel()
    values = np.concatenate([np.ones(len(seen)), share.ravel()])
    places = np.concatenate([seen, rows]), np.concatenate([seen, columns])
    return csr_array((values, places), shape=(len(vertices_world),) * 2)


def _median(values: Float[np.ndarray, " n"], weight: Float[np.ndarray, " n"]) -> float:
    """Weighted median."""
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(mass, 0.5 * mass[-1])]])

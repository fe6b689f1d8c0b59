"""What light leaves on skin that harmonics do not tell: shadows with an edge, light from nearby, errors of the fit.

Skin has nearly one tone. What is darker or brighter than that over more than a few millimetres is light rather than
skin, the more so where the other half of the face is not: a field of it is averaged over neighbours of like brightness,
so that shadows keep their edges and pores, freckles and lines stay skin. What both halves have in common, such as the
shade of the brow or rouge, is believed less.

Source: Tomasi and Manduchi, "Bilateral Filtering for Gray and Color Images", 1998, on a mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import KDTree

from ...head_model.anatomy import ramp
from ...light.spherical_harmonics import LUMINANCE

_REACH, _LIKE = 0.03, 0.15
"""Deviations of the average: over the skin, world units (1.8 cm), and of brightness, logarithm."""
_NEIGHBOURS, _AROUND, _ROUNDS = 48, 8, 3
_UNLIKE, _ALIKE = 0.85, 0.45
"""How much counts as light of what the two halves of a face differ in, and of what they share."""
_COLOURED, _SHADOW = 0.8, (0.1, 0.5)
"""How much of the colour of skin counts as the light's where it is darker than the tone by the second number; none
above the first. Pictures show shadows on skin too red."""
_MOST = 1.2
"""Largest deviation from the tone, logarithm."""
_LEAST_WEIGHT, _LEAST_VERTICES = 0.05, 60


@dataclass(frozen=True)
class SkinShade:
    """Light on skin beyond that of the harmonics."""

    log_factor: Float32[np.ndarray, "v 3"]
    """Logarithms of factors on sRGB colours; 0 away from skin that is seen."""
    near: Float32[np.ndarray, " v"]
    """1 on skin that is seen, less beside it, 0 on all else."""

    def on(
        self, shade: Float32[np.ndarray, "v 3"], power: Float[np.ndarray, " v"], told: float
    ) -> Float32[np.ndarray, "v 3"]:
        """The shade of harmonics with this one.

        Args:
            shade: factors on sRGB colours.
            power: of the shade where no skin is seen.
            told: that on skin that is seen, which shows its light itself.
        """
        exponent = power + (told - power) * self.near
        return (shade ** exponent[:, None] * np.exp(self.log_factor)).astype(np.float32)


def skin_shade(
    vertices_world: Float[np.ndarray, "v 3"], rgb: Float32[np.ndarray, "v 3"], shade: Float32[np.ndarray, "v 3"],
    weight: Float[np.ndarray, " v"], skin: Bool[np.ndarray, " v"], partner: Int[np.ndarray, " v"],
) -> SkinShade:  # fmt: skip
    """Light on skin beyond what is reckoned with.

    Args:
        vertices_world: the mesh.
        rgb: what the portrait shows at each vertex, sRGB, fine detail averaged away.
        shade: the factor of the light that is reckoned with.
        weight: how plainly skin, not lips, eyes or hair, is seen there, [0, 1].
        skin: vertices of the head's skin.
        partner: the vertex nearest to each one's mirror image.
    """
    count = len(vertices_world)
    seen = np.nonzero(skin & (weight > _LEAST_WEIGHT))[0]
    if len(seen) < _LEAST_VERTICES:
        return SkinShade(np.zeros((count, 3), np.float32), np.zeros(count, np.float32))
    worth, even = weight[seen], np.maximum(rgb[seen], 0.01) / np.maximum(shade[seen], 1e-3)
    grey = _from_tone(even @ LUMINANCE, worth)
    raw = np.stack([grey, *(_from_tone(channel, worth) - grey for channel in even.T)], axis=1)
    tree = KDTree(vertices_world[seen])
    distance, neighbour = tree.query(vertices_world[seen], k=min(_NEIGHBOURS, len(seen)))
    closeness = np.exp(-0.5 * np.square(distance / _REACH)) * worth[neighbour]
    smooth = raw
    for _ in range(_ROUNDS):
        unlike = smooth[neighbour, 0] - smooth[:, None, 0]
        share = (closeness * np.exp(-0.5 * np.square(unlike / _LIKE)))[..., None]
        smooth = (share * raw[neighbour]).sum(1) / share.sum(1)
    on_skin = np.nonzero(skin)[0]
    distance, neighbour = tree.query(vertices_world[on_skin], k=_AROUND)
    share = (np.exp(-0.5 * np.square(distance / _REACH)) * worth[neighbour] + 1e-12)[..., None]
    near, field = np.zeros(count), np.zeros((count, 4))
    near[on_skin] = np.exp(-distance[:, 0] / (2 * _REACH))
    field[on_skin] = (share * smooth[neighbour]).sum(1) / share.sum(1) * near[on_skin, None]
    field[seen] = smooth
    both = ramp(np.minimum(weight, weight[partner]), _LEAST_WEIGHT, 0.5)
    around = KDTree(vertices_world[on_skin]).query(vertices_world[on_skin], k=_NEIGHBOURS)[1]
    both[on_skin] = both[on_skin][around].mean(1)  # no border where the other half is no longer seen
    unlike = np.where(skin, both * 0.5 * (field[:, 0] - field[partner, 0]), 0.0)
    grey = _UNLIKE * unlike + _ALIKE * (field[:, 0] - unlike)
    coloured = _COLOURED * ramp(-field[:, 0], *_SHADOW)[:, None] * field[:, 1:]
    return SkinShade((grey[:, None] + coloured).astype(np.float32), near.astype(np.float32))


def _from_tone(values: Float[np.ndarray, " n"], weight: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Logarithms of values over their weighted median."""
    logs = np.log(values)
    order = np.argsort(logs, kind="stable")
    mass = np.cumsum(weight[order])
    return np.clip(logs - logs[order[np.searchsorted(mass, 0.5 * mass[-1])]], -_MOST, _MOST)

"""A field made to meet what a portrait plainly shows, without a seam towards what it does not show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy import ndimage

from ...cameras import UNITS_PER_MM
from ...head_model.anatomy import world_height
from .. import capsule
from .chart import COLUMNS, cell_frames, cell_shares
from .head_field import HAIR, HEADGEAR, HeadField
from .observed_field import ObservedField

_PLAIN = (0.3, 0.7)
"""Visibility from which on materials count, and from which on they count alone."""
_REACH_CELLS = 1.5
"""How far corrections fade out into cells that are not seen: deviation of a Gaussian."""
_SHIFT_CELLS, _MOST_SHIFT = 8.0, 10 * UNITS_PER_MM
"""The same for what the outline says of thickness, up to this change: it is mostly a shift of the whole, by the head
model's size and place and by how much hair there is. What is more is a tuft, and ends soon."""
_FLOW_CELLS = 3.0
"""How far orientations are averaged: every cell has an error of its own, and single ones are worse than the network."""
_LEAST = 1e-6
_EYE_HEIGHT = world_height(3.6)
_LEAST_HAIR, _LOW_SHARE = 0.1, 0.08
"""Headgear with less hair beside it than the first share, more of which than the second reaches below the eyes, is all
round the head."""


def meet_observation(field: HeadField, observed: ObservedField) -> HeadField:
    """The field with the seen materials, thicknesses at the outline, and directions turned to the seen orientations.

    Materials are as seen where visibility is above 0.7, thicknesses where their certainty is 1; about these, and
    where trust is less, the difference fades out. Directions turn, by at most a right angle, where orientations agree
    over some cells.

    Args:
        field: above the observed skull.
        observed: what the portrait shows.
    """
    if _wraps_the_head(observed):
        field = _all_headgear(field)
    low, high = _PLAIN
    plain = np.clip((observed.visibility - low) / (high - low), 0, 1)
    plain = plain * plain * (3 - 2 * plain) * (np.abs(observed.material.sum(0) - 1) < 0.1)
    change = faded(observed.material - field.material, plain, _REACH_CELLS)
    material = np.clip(field.material + change, 0, 1) + _LEAST
    difference = (observed.thickness - field.thickness)[None]
    shift = np.clip(difference, -_MOST_SHIFT, _MOST_SHIFT)
    trust = observed.thickness_certainty
    thicker = faded(shift, trust, _SHIFT_CELLS)[0] + faded(difference - shift, trust, _REACH_CELLS)[0]
    return replace(
        field,
        material=(material / material.sum(0)).astype(np.float32),
        thickness=np.maximum(field.thickness + thicker, 0).astype(np.float32),
        flow=_turned(field.flow, observed),
    )


def _wraps_the_head(observed: ObservedField) -> bool:
    """Whether all that is seen on the scalp is headgear, and some of it hangs or reaches below the eyes: a turban, a
    scarf, a hood. What is not seen is of it too; hair may come out below a cap.
    """
    frames = cell_frames()
    height = frames.origins_world[..., 1] + frames.outward[..., 1] * observed.skull_radius
    seen = observed.visibility * cell_shares()
    hair, headgear = (float((seen * observed.material[kind]).sum()) for kind in (HAIR, HEADGEAR))
    low = float((seen * observed.material[HEADGEAR] * (height < _EYE_HEIGHT)).sum())
    return hair < _LEAST_HAIR * headgear and low > _LOW_SHARE * headgear


def _all_headgear(field: HeadField) -> HeadField:
    """The field with all of its hair turned to headgear."""
    material = field.material.copy()
    material[HEADGEAR] += material[HAIR]
    material[HAIR] = 0
    return replace(field, material=material)


def faded(
    difference: Float[np.ndarray, "k 56 64"], weight: Float[np.ndarray, "56 64"], reach_cells: float
) -> Float[np.ndarray, "k 56 64"]:
    """Corrections that are whole where the weight is 1 and fade out over the cells about these.

    Args:
        difference: what would be added at weight 1.
        weight: trust in each cell, [0, 1].
        reach_cells: deviation of the Gaussian by which they fade.
    """
    near = np.maximum(_smooth(weight, reach_cells), _LEAST)
    mean = np.stack([_smooth(weight * d, reach_cells) for d in difference]) / near
    fade = np.exp(-0.5 * (_cells_from(weight > 0.5) / reach_cells) ** 2)
    return weight * difference + (1 - weight) * fade * mean


def _turned(flow: Float[np.ndarray, "3 56 64"], observed: ObservedField) -> Float[np.ndarray, "3 56 64"]:
    """Directions turned about the cells' rays by the local mean of what they are off, as far as cells agree on it."""
    trust = observed.orientation_certainty
    seen: Complex[np.ndarray, "56 64"] = observed.orientation[0] + 1j * observed.orientation[1]
    along = flow[0] + 1j * flow[1]
    off = trust * seen * np.conj((along / np.maximum(np.abs(along), _LEAST)) ** 2)  # twice the angle
    off = _smooth(off.real, _FLOW_CELLS) + 1j * _smooth(off.imag, _FLOW_CELLS)
    agreement = np.minimum(np.abs(off) / np.maximum(_smooth(trust, _FLOW_CELLS), _LEAST), 1)
    near = np.minimum(2 * _smooth((trust > 0).astype(np.float64), _FLOW_CELLS), 1)
    along = along * np.exp(0.5j * near * agreement**2 * np.angle(off))
    return np.stack([along.real, along.imag, flow[2]]).astype(np.float32)


def _cells_from(known: Bool[np.ndarray, "56 64"]) -> Float[np.ndarray, "56 64"]:
    """Distance to the nearest known cell, round the axis; infinite without any."""
    if not known.any():
        return np.full(known.shape, np.inf)
    turns = np.concatenate([~known] * 3, axis=1)
    return np.asarray(ndimage.distance_transform_edt(turns))[:, COLUMNS : 2 * COLUMNS]


def _smooth(grid: Float[np.ndarray, "56 64"], cells: float) -> Float[np.ndarray, "56 64"]:
    return ndimage.gaussian_filter(np.asarray(grid, np.float64), cells, mode=capsule.WRAPPED)

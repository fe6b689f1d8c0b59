"""A field made to meet what a portrait plainly shows, without a seam towards what it does not show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy import ndimage

from ...cameras import UNITS_PER_MM
from ...head_model.anatomy import centimetres, ramp
from .. import capsule
from .chart import COLUMNS, cell_frames, cell_shares
from .head_field import HAIR, HEADGEAR, SKIN, HeadField
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
_KEPT_CELLS = 2.0
"""The same for thicknesses of drawn fields that are kept as expected."""
_LEAST = 1e-6
_EYE_HEIGHT_CM = 3.6
_LEAST_HAIR, _LOW_SHARE = 0.1, 0.08
"""Headgear with less hair beside it than the first share, more of which than the second reaches below the eyes, is all
round the head."""
_MOUTH_HEIGHT_CM, _HANGING_SHARE, _MOST_INSIDE = -4.0, 0.06, 1.15
"""Of headgear, more than the share hanging below the mouth, it is a hood or a scarf, if so much hair, of the headgear,
or less is seen in it."""
_BESIDE, _BEHIND = 0.75, (0.3, -0.1)
"""Sides are where the sine of the azimuth is above the first; behind is where its cosine is below the others."""
_ABOVE_EARS_CM, _TOP_CM, _NAPE_CM, _WREATH_END_CM = (4.5, 9.0), 11.0, (-1.0, 1.5), (9.0, 6.5)
"""Heights: above the ears, where the top begins, where hair behind begins, and where a wreath ends."""
_TOPPED, _CROWN_CM, _ENOUGH = (0.7, 0.9), (7.0, 9.5), 0.75
"""Share of hair among what is seen of the top from which on the crown behind it has hair, and has it for certain; the
heights between which the crown begins; and the share of hair that leaves no doubt."""
_HAIRY, _LEAST_SEEN, _MOST_ADDED = (0.5, 0.75), 1.5, 10 * UNITS_PER_MM
"""Share of hair among hair and skin from which on sides carry hair, and do for certain; size of the cells that have to
be seen; thickness of what is added at most."""


def meet_observation(field: HeadField, observed: ObservedField) -> HeadField:
    """The field with the seen materials, thicknesses at the outline, and directions turned to the seen orientations.

    Materials are as seen where visibility is above 0.7, thicknesses where their certainty is 1; about these, and
    where trust is less, the difference fades out. Directions turn, by at most a right angle, where orientations agree
    over some cells.

    Args:
        field: above the observed skull.
        observed: what the portrait shows.
    """
    if wraps_the_head(observed):
        field = _all_headgear(field)
    else:
        field = _with_hair_behind(field, observed)
    plain = _plainly_seen(observed) * (np.abs(observed.material.sum(0) - 1) < 0.1)
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


def kept_where_seen(field: HeadField, expected: HeadField, observed: ObservedField) -> HeadField:
    """A drawn field with the expected thickness where the portrait plainly shows the surface.

    A portrait says little about the depth of what it shows, but another seed is to give another back, not another
    fringe.

    Args:
        field: drawn, above the observed skull.
        expected: what drawn fields vary about.
        observed: what the portrait shows.
    """
    difference = (expected.thickness - field.thickness)[None]
    thicker = faded(difference, _plainly_seen(observed), _KEPT_CELLS)[0]
    return replace(field, thickness=np.maximum(field.thickness + thicker, 0).astype(np.float32))


def _plainly_seen(observed: ObservedField) -> Float[np.ndarray, "56 64"]:
    """How far cells are plainly seen, [0, 1]."""
    low, high = _PLAIN
    plain = np.clip((observed.visibility - low) / (high - low), 0, 1)
    return plain * plain * (3 - 2 * plain)


def wraps_the_head(observed: ObservedField) -> bool:
    """Whether all that is seen on the scalp is headgear, and some of it hangs or reaches below the eyes: a turban, a
    scarf, a hood; or a good part of it hangs below the mouth, which no cap does, with hair inside. What is not seen is
    of it too; hair may come out below a cap.
    """
    seen = observed.visibility * cell_shares()
    hair, headgear = (float((seen * observed.material[kind]).sum()) for kind in (HAIR, HEADGEAR))

    def below(height_cm: float) -> float:
        return float((seen * observed.material[HEADGEAR] * (_height_cm(observed) < height_cm)).sum())

    if hair < _MOST_INSIDE * headgear and below(_MOUTH_HEIGHT_CM) > _HANGING_SHARE * headgear:
        return True
    return hair < _LEAST_HAIR * headgear and below(_EYE_HEIGHT_CM) > _LOW_SHARE * headgear


def _height_cm(observed: ObservedField) -> Float[np.ndarray, "56 64"]:
    """Height of the skull in each cell, centimetres of `anatomy`."""
    frames = cell_frames()
    return centimetres(frames.origins_world + frames.outward * observed.skull_radius[..., None])[..., 1]


def _all_headgear(field: HeadField) -> HeadField:
    """The field with all of its hair turned to headgear."""
    material = field.material.copy()
    material[HEADGEAR] += material[HAIR]
    material[HAIR] = 0
    return replace(field, material=material)


def _with_hair_behind(field: HeadField, observed: ObservedField) -> HeadField:
    """The field of a head with hair above the ears has some behind as well, and on the crown if the top has it.

    Hair goes from the temples and from the crown, and is left longest in a wreath from ear to ear. Where the top has
    hair up to the outline, however short it is cropped, it goes on over the crown.

    Source: Norwood, "Male Pattern Baldness: Classification and Incidence", Southern Medical Journal 1975.
    """
    height_cm = _height_cm(observed)
    around = np.arange(COLUMNS) * (2 * np.pi / COLUMNS)
    behind = ramp(np.cos(around), *_BEHIND)
    seen = observed.visibility * cell_shares()

    def share_of_hair(where: Bool[np.ndarray, "56 64"]) -> float:
        weight = seen * where
        hair, bare = (float((weight * observed.material[kind]).sum()) for kind in (HAIR, SKIN))
        return hair / (hair + bare) if hair + bare > _LEAST_SEEN else 0.0

    above_ears = (height_cm > _ABOVE_EARS_CM[0]) & (height_cm < _ABOVE_EARS_CM[1])
    # of a turned head one side shows its temple alone: the side that has hair speaks for both
    beside = max(share_of_hair(above_ears & (sign * np.sin(around) > _BESIDE)) for sign in (-1, 1))
    on_top = share_of_hair(height_cm > _TOP_CM)
    if beside < _HAIRY[0] and on_top < _TOPPED[0]:
        return field
    reach = ramp(height_cm, *_NAPE_CM)
    if on_top < 0.5:
        reach = reach * ramp(height_cm, *_WREATH_END_CM)
    hidden = 1 - np.clip(observed.visibility / _PLAIN[0], 0, 1)
    crown = _ENOUGH * float(np.interp(on_top, _TOPPED, (0, 1))) * ramp(height_cm, *_CROWN_CM)
    wanted = np.maximum(float(np.interp(beside, _HAIRY, (0, 1))) * reach * behind, crown)
    least = _smooth(wanted * hidden, 1.0)
    least[0] = least[0].mean()  # the pole is one place
    material = field.material.copy()
    more = np.minimum(np.maximum(least - material[HAIR] - material[HEADGEAR], 0), material[SKIN])
    material[HAIR] += more
    material[SKIN] -= more
    usual = field.thickness[(field.material[HAIR] > 0.5) & (height_cm > _NAPE_CM[1])]
    thickness = min(float(np.median(usual)), _MOST_ADDED) if len(usual) else _MOST_ADDED
    return replace(
        field,
        material=material.astype(np.float32),
        thickness=np.maximum(field.thickness, thickness * (more > 0.1) * least).astype(np.float32),
    )


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

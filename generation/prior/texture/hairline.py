"""Where hair thins out towards bare skin: one density over the head, for the skin and for the shell alike.

Cropped hair does not end like a cap: over some millimetres ever less of the skin is hidden, and sideburns run down
before the ears. The shell ends where it dips below the skin; on both sides of that line skin and hair are mixed by the
same density, hair by hair, so that the line itself does not show. Hair that hangs over skin that grows none ends as it
is. How far down sideburns go, and how dense they are, is read from the portrait; both sides get the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage
from scipy.spatial import KDTree

from ...cameras import UNITS_PER_MM
from ...cielab import lab_of
from ...head_model.anatomy import Box, ramp
from .. import capsule
from ..hair.flow_field import HairFlow
from ..hair.tracing import refined
from .fills import wrapped_blur
from .portrait_lookup import SeenPoints

_OUTSIDE, _INSIDE = 9 * UNITS_PER_MM, 8 * UNITS_PER_MM
"""From the shell's edge, the distance on the skin at which hair has ended, and on the shell at which it is dense."""
_BAND = 24 * UNITS_PER_MM
"""Distances are measured up to here."""
_FINE = 2
"""Samples per cell of the capsule grid."""
_TEMPLE_CM, _NAPE_CM = (5.4, 4.2), (-8.5, -6.5)
"""Depths of the temples from which on hair thins out, going back, and heights of the nape; how it ends before the
forehead is seen."""
_OVER_EARS_CM = (4.5, 7.0)
"""Where hair hides the ears it may grow above these heights only; below it hangs."""
_BARE_EARS = 0.5
"""Share of an ear that is bare, for the hair above it to be short."""
_OVER_EAR, _HAIR_ABOVE = Box((5.0, 5.5, -3.0), (np.inf, 8.0, 3.0)), 0.3
"""Where hair has to be for sideburns to come out of it, and on what share."""
_ROWS_CM = np.arange(5.0, -4.1, -1.0)
"""Heights at which sideburns are read, from the top down."""
_STRIP_CM, _STRIP_SIDE_CM = (1.6, 3.8), 4.5
"""Depths of the strip before the ear in which they are, and least distance from the middle plane."""
_CHEEK_CM, _CHEEK_ROWS_CM = (4.2, 7.0), (-3.0, 3.0)
"""Depths and heights of the cheek's skin that they are told from."""
_FRONT_CM = ((4.4, 3.3), (3.4, 2.6))
"""Depths at which a sideburn is gone and at which it is dense, in front: at its top, and at the ear's hollow."""
_FRONT_ROWS_CM = (1.0, 4.5)
"""Heights of the second and of the first of these."""
_BEFORE_EARS_CM, _ABOVE_EARS_CM, _HIGHEST_CM = (0.0, 1.0), (4.0, 5.0), (8.0, 6.0)
"""Depths and heights between which it begins before and above the ear, and heights between which it ends above."""
_FAINT, _DENSE = 0.1, 0.5
"""Share of the way from the cheek's colour to the hair's at which there is some hair, and at which it is dense: what
grows before the ears is lighter than the rest."""
_BELOW_CM, _SHADOW = -2.0, 0.05
"""What is denser than the second number down to the first height, the lobe's, is a beard or shade on the cheek."""
_REACH_CM = (0.0, 2.0)
"""Heights between which sideburns end at the latest: below the ear's middle, shade is darker than most of them."""
_LEAST_CONTRAST = 14.0
"""Hair that differs less from skin cannot be told from it, CIELAB."""
_TRUSTED, _LEAST_SEEN, _LEAST_CHEEK = 0.12, 1.5, 6.0
"""Trust from which on a point counts fully; sum of it for a height, and for the cheek, to count."""
_HAIRY, _TAPER_CELLS = (0.3, 0.7), 3.0
"""The scalp's skin turns from bare to hairy where hair is so sure, averaged over so many cells, be the shell above it
ever so thin or sunk in."""
_STRANDS_PX = 3.0
"""Of the locks' pattern, what is finer than this shows where hair is thin: single hairs."""
_CLUMPS = 0.25
"""How far single hairs differ from the density: it is all or nothing in the end, but hairs are thinner than texels."""


@dataclass(frozen=True)
class Hairline:
    """How dense hair is where it ends."""

    density: Float32[np.ndarray, "a b"]
    """Share of the skin that hair hides, [0, 1]; `_FINE` samples per cell of the capsule grid, columns wrap."""
    edge: Float32[np.ndarray, "a b"]
    """How far this is a border of hair that grows there, [0, 1]; elsewhere the shell ends as it is."""

    def at(self, points_world: Float[np.ndarray, "n 3"]) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        """Density and edge at points of the world."""
        row, column, _ = capsule.cell_coordinates(points_world)
        both = _sampled(np.stack([self.density, self.edge], axis=-1), row, column)
        return both[:, 0], both[:, 1]

    def on_tile(self, height: int, width: int) -> Float32[np.ndarray, "h w"]:
        """Share of hair over each texel of the shell's tile: 1 away from the borders of growing hair."""
        row = np.arange(height) * ((capsule.ROWS - 1) / (height - 1))
        column = np.arange(width) * (capsule.COLUMNS / (width - 1))
        grid = np.stack([self.density, self.edge], axis=-1)
        shown = _sampled(grid, *(x.ravel() for x in np.meshgrid(row, column, indexing="ij")))
        return (1 - (1 - shown[:, 0]) * shown[:, 1]).reshape(height, width)


def _sampled(
    grid: Float32[np.ndarray, "a b k"], row: Float[np.ndarray, " n"], column: Float[np.ndarray, " n"]
) -> Float32[np.ndarray, "n k"]:
    """A fine grid at cells of the capsule, linear in between and closed round the axis."""
    closed = np.concatenate([grid, grid[:, :1]], axis=1)
    x = (_FINE * (column % capsule.COLUMNS)).astype(np.float32)[None]
    y = np.clip(_FINE * row, 0, len(grid) - 1).astype(np.float32)[None]
    step = 32_000  # what OpenCV takes at once
    parts = [
        cv2.remap(closed, x[:, k : k + step], y[:, k : k + step], cv2.INTER_LINEAR) for k in range(0, x.shape[1], step)
    ]
    return np.concatenate(parts, axis=1)[0].reshape(-1, grid.shape[-1])


def thinned(density: Float[np.ndarray, "*n"], locks: Float32[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """How far hair hides each place, hair by hair: the mean is about the density, 0 and 1 stay what they are.

    Args:
        density: share that is hidden.
        locks: a pattern along the hair of mean 0 and deviation 1.
    """
    spread = 4 * density * (1 - density)
    return np.clip(density + np.float32(_CLUMPS) * spread * np.clip(locks, -1.5, 1.5), 0, 1)


def strands_of(locks: Float32[np.ndarray, "h w 3"], step: int = 1) -> Float32[np.ndarray, "h w"]:
    """The pattern of locks as `thinned` takes it: what is dark in hair is hair before bare skin.

    Args:
        locks: detail of the shell's tile.
        step: see `AtlasTexels.step`.
    """
    grey = locks.mean(-1)
    grey = grey - wrapped_blur(grey, _STRANDS_PX / step, _STRANDS_PX / step)
    return (-grey / np.maximum(grey.std(), 1e-6)).astype(np.float32)


def fit_hairline(
    flow: HairFlow, cm: Float[np.ndarray, "v 3"], points_world: Float[np.ndarray, "v 3"], ears: Bool[np.ndarray, " v"],
    scalp: Float[np.ndarray, " v"], sideburn: Float[np.ndarray, " r"] | None,
) -> Hairline:  # fmt: skip
    """The hairline of a fitted shell.

    Args:
        flow: of the shell.
        cm: the skin's vertices on the mean head, centimetres of `anatomy`.
        points_world: the same on the fitted head.
        ears: which of them are ears.
        scalp: how far they carry hair that lies over them, be the shell ever so thin, [0, 1].
        sideburn: their density at `_ROWS_CM`, of `read_sideburns`; None for none.
    """
    nearest = KDTree(points_world[~ears]).query(flow.points_world.reshape(-1, 3))[1]
    at_cm = cm[~ears][nearest]
    bare = {side: _ear_is_bare(flow, points_world[ears & (np.sign(cm[:, 0]) == side)]) for side in (-1, 1)}
    short = np.where(at_cm[:, 0] < 0, bare[-1], bare[1])
    grows = _growth(at_cm, short) * (1 - flow.headgear.ravel())
    thick = flow.thickness.ravel()
    burns = np.zeros(len(at_cm))
    if sideburn is not None:
        above = _OVER_EAR.holds(at_cm)
        for side in (-1, 1):
            here = np.sign(at_cm[:, 0]) == side
            if (thick[above & here] > 0).mean() > _HAIR_ABOVE:
                burns[here] = (short * _sideburn(at_cm, sideburn))[here]
    burns = np.maximum(burns, scalp[~ears][nearest] * covered(flow).ravel())
    cells = np.stack([grows, burns, thick], axis=1).reshape(*flow.thickness.shape, 3)
    fine = refined(np.concatenate([flow.points_world, cells], axis=-1), _FINE)
    distance = _signed_distance(fine[..., :3], fine[..., 5] > 0)
    share = ramp(distance, -_OUTSIDE, _INSIDE)
    density = np.maximum(share * share * (3 - 2 * share), fine[..., 4])
    return Hairline(density.astype(np.float32), np.clip(fine[..., 3], 0, 1).astype(np.float32))


def covered(flow: HairFlow) -> Float[np.ndarray, "rows columns"]:
    """How far hair lies over each cell by the field, [0, 1]: it ends softly, as a barber tapers it."""
    near = wrapped_blur(flow.presence.astype(np.float32), _TAPER_CELLS, _TAPER_CELLS)
    return ramp(near, *_HAIRY)


def _ear_is_bare(flow: HairFlow, ear_world: Float[np.ndarray, "e 3"]) -> bool:
    """Whether the shell lets an ear show."""
    row, column, _ = capsule.cell_coordinates(ear_world)
    i = np.clip(np.rint(row), 0, capsule.ROWS - 1).astype(int)
    return bool((flow.thickness[i, np.rint(column).astype(int) % capsule.COLUMNS] <= 0).mean() > _BARE_EARS)


def _growth(cm: Float[np.ndarray, "n 3"], short: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Where skin may grow the hair of the head, [0, 1]; where hair hides the ears, none that ends below them."""
    _, y, z = cm.T
    grows = ramp(z, *_TEMPLE_CM) * ramp(y, *_NAPE_CM)
    return np.where(short, grows, grows * ramp(y, *_OVER_EARS_CM))


def _sideburn(cm: Float[np.ndarray, "n 3"], density: Float[np.ndarray, " r"]) -> Float[np.ndarray, " n"]:
    """Density of a sideburn at places: as read at their height, ending softly in front."""
    _, y, z = cm.T
    top = ramp(y, *_FRONT_ROWS_CM)
    gone, dense = (low + (high - low) * top for high, low in zip(*_FRONT_CM))
    front = np.clip((gone - z) / (gone - dense), 0, 1)
    at_height = np.interp(y, _ROWS_CM[::-1], density[::-1]) * ramp(y, *_HIGHEST_CM)
    return at_height * front * np.maximum(ramp(z, *_BEFORE_EARS_CM), ramp(y, *_ABOVE_EARS_CM))


def _signed_distance(points: Float[np.ndarray, "a b 3"], inside: Bool[np.ndarray, "a b"]) -> Float[np.ndarray, "a b"]:
    """Distance to the border of a part of a surface, negative outside of it, at most `_BAND`."""
    result = np.where(inside, _BAND, -_BAND)
    if inside.all() or not inside.any():
        return result
    near = np.asarray(ndimage.uniform_filter(inside.astype(np.float64), 33, mode=capsule.WRAPPED))
    near = (near > 1e-6) & (near < 1 - 1e-6)
    for part, sign in ((inside, 1.0), (~inside, -1.0)):
        away = KDTree(points[~part & near]).query(points[part & near], distance_upper_bound=_BAND)[0]
        result[part & near] = sign * np.minimum(away, _BAND)
    return result


def read_sideburns(
    seen: SeenPoints, cm: Float[np.ndarray, "v 3"], ears: Bool[np.ndarray, " v"], hair_rgb: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, " r"] | None:
    """Density of sideburns at `_ROWS_CM`, for both sides alike; None where the portrait cannot tell.

    A point's density is its place between the colours of the cheek on its side and of the hair. Sideburns go on from
    the hair above: going down they only get thinner, so that what is dark further down is none.

    Args:
        seen: what the portrait shows of the skin's vertices, in even light.
        cm: the vertices on the mean head, centimetres of `anatomy`.
        ears: which of them are ears.
        hair_rgb: the hair's colour, sRGB.
    """
    lab, hair = (lab_of(np.clip(rgb, 0, 1)) for rgb in (seen.colour, hair_rgb))
    weight = np.clip(seen.trust / _TRUSTED, 0, 1)
    total, found = np.zeros((2, len(_ROWS_CM)))
    for side in (-1, 1):
        beside = (cm[:, 0] * side > _STRIP_SIDE_CM) & ~ears
        x, z, y = beside, cm[:, 2], cm[:, 1]
        cheek = x & (z > _CHEEK_CM[0]) & (z < _CHEEK_CM[1]) & (y > _CHEEK_ROWS_CM[0]) & (y < _CHEEK_ROWS_CM[1])
        if (weight * cheek).sum() < _LEAST_CHEEK:
            continue
        skin = np.median(lab[cheek & (weight > 0.5)], axis=0) if (cheek & (weight > 0.5)).any() else None
        if skin is None or np.linalg.norm(hair - skin) < _LEAST_CONTRAST:
            continue
        way = hair - skin
        share = ramp((lab - skin) @ way / (way @ way), _FAINT, _DENSE)
        strip = weight * (x & (z > _STRIP_CM[0]) & (z < _STRIP_CM[1]))
        for k, height in enumerate(_ROWS_CM):
            here = strip * np.clip(1 - np.abs(y - height), 0, 1)
            total[k] += here.sum()
            found[k] += (here * share).sum()
    known = total > _LEAST_SEEN
    if not known.any():
        return None
    density = np.interp(-_ROWS_CM, -_ROWS_CM[known], found[known] / total[known], right=0.0)
    density = np.minimum.accumulate(density)
    if density[_ROWS_CM <= _BELOW_CM].max() > _SHADOW:
        return None
    return density * ramp(_ROWS_CM, *_REACH_CM)

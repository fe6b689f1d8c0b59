"""Where cloth begins on the neck, and how far it stands off.

Along every column that the portrait shows, skin ends and cloth begins at one height, and so they do on its outline. A
low-order curve through these heights goes round the neck: collars are level or dip in front, and a missing half looks
like the other. Where heights are seen the edge follows them beyond the curve, for a V is none. Bare shoulders have no
edge, whatever their labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from ...head_model import anatomy
from ...portrait import Portrait
from ..labels.portrait_labels import PortraitLabels, project_px
from ..labels.skin_tone import SkinTone
from .bust_fit import BustPlacement
from .outline import EXACT, Outline, smoothstep
from .sections import COLUMNS, column_angles, column_directions, section_points

_FACING, _FACING_AT_JAW = 0.2, 0.70
"""Least cosine to the camera of a column that counts, and of one that is cloth up to the jaw."""
_BETTER = 0.2
"""A column whose mirror image is seen at a cosine that is larger by this has the height of that one."""
_RIDGE = np.array([1e-4, 0.3, 4.0, 2.0])
"""Ridge of the curve's terms 1, cos, sin, cos 2: collars are alike left and right."""
_ROBUST = 0.006
_FADE_COLUMNS, _SMOOTH_COLUMNS, _MOST_FOLLOWED = 8.0, 1.5, 0.025
_FOLLOWED = (-0.2, 0.3)
"""Beyond seen columns the edge goes back to the curve over the first number of them. What is seen is averaged over the
second, and followed no farther than the third, world units; between these cosines of the angle from the front it
ceases to be."""
_OUTLINE_COLUMNS, _OUTLINE_WEIGHT, _OUTLINE_ROWS = 3, 0.7, 3
"""The outline tells the height of a collar for so many columns to either side of the silhouette, by so many rows of
cloth."""
_BEHIND_LOWER = 0.006
"""The back of a collar is lower than its sides by this."""
_TONE = np.array([0.7, 0.55, 0.45])
_RING_ENDS = (-0.065, -0.03)
"""A ring that stands off the neck runs into the shoulders between these heights."""
_LEAST_RING, _MOST_SOFT, _MOST_RING = 0.004, 0.025, 0.09
_RING_FADE = 0.03
"""Above the first row that shows it a ring fades over this length."""
_STIFF = (0.02, 0.045)
"""A ring that stands off by more than the second is stiff, by less than the first soft."""
_MOST_DIP = 0.04
"""Collars that are lower in front than at the sides by this are open."""


@dataclass(frozen=True)
class Collar:
    """The upper edge of the clothes."""

    height: Float[np.ndarray, " columns"]
    """In the body's frame, for each column; where it is below the neck's end the neckline is open."""
    is_bare: bool
    """Neck and shoulders are not dressed."""


def find_collar(
    portrait: Portrait,
    labels: PortraitLabels,
    outline: Outline,
    placement: BustPlacement,
    heights: Float[np.ndarray, " rows"],
    axis_z: Float[np.ndarray, " rows"],
    radius: Float[np.ndarray, "rows columns"],
) -> Collar:
    """The collar that a portrait shows.

    Args:
        portrait: aligned portrait.
        labels: its classes.
        outline: the portrait's; beside the neck only cloth counts.
        placement: where the bust stands.
        heights, axis_z, radius: sections of neck and shoulders in the body's frame.
    """
    points = section_points(heights, axis_z, radius)
    camera = portrait.head.camera
    uv = project_px(camera, placement.to_world(points))
    across = np.roll(points, -1, axis=1) - np.roll(points, 1, axis=1)
    normals = np.cross(np.gradient(points, axis=0), across)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    normals *= np.sign((normals * column_directions()).sum(-1, keepdims=True) + 1e-9)
    view = placement.to_body(camera.position_world[0].numpy()) - points
    cosine = (normals * view).sum(-1) / np.linalg.norm(view, axis=-1)

    size = portrait.size_px
    column, row = np.moveaxis(np.clip(uv.astype(np.int64), 0, size - 1), -1, 0)
    colour = portrait.foreground_unit[row, column].astype(np.float64)
    seen = (cosine > _FACING) & (uv[..., 1] < size - 1) & (portrait.alpha_unit[row, column] > 0.6)
    cloth, skin = labels.cloth[row, column] & seen, labels.skin[row, column] & seen
    plain = portrait.foreground_unit[labels.skin & (portrait.alpha_unit > 0.9)][::7]
    like_skin = SkinTone.of(plain.astype(np.float64), _TONE).belief(colour.reshape(-1, 3)).reshape(radius.shape)

    edge, weight, bare = np.full((3, COLUMNS), np.nan)
    neck = (heights <= anatomy.COLLAR_HEIGHTS[1]) & (heights >= anatomy.COLLAR_HEIGHTS[0])
    for c in np.flatnonzero(((cloth | skin) & neck[:, None]).sum(0) >= 8):
        sign = (cloth[:, c].astype(int) - skin[:, c]) * neck
        weight[c] = np.median(cosine[neck & seen[:, c], c])
        if (sign > 0).sum() < 5:  # an open neckline
            edge[c] = anatomy.COLLAR_HEIGHTS[0]
            continue
        above = np.concatenate([[0], np.cumsum(sign)])
        begin = int(np.argmax(above[-1] - 2 * above))  # skin above, cloth below
        if (sign[begin:] > 0).sum() < 4:
            continue
        if (sign[:begin] < 0).sum() >= 4:
            edge[c] = heights[min(begin, len(heights) - 1)]
            below = cloth[:, c] & (heights <= edge[c]) & (heights > edge[c] - 0.05)
            bare[c] = like_skin[below, c].mean() if below.sum() > 3 else np.nan
        elif weight[c] >= _FACING_AT_JAW:  # cloth up to the jaw
            edge[c] = anatomy.COLLAR_AT_JAW
    edge, weight = _better_of_both_sides(edge, weight)
    known = np.isfinite(edge)
    if known.sum() < 6:
        return Collar(np.full(COLUMNS, anatomy.COLLAR_UNSEEN), False)
    judged = bare[np.isfinite(bare)]
    if not len(judged) or judged.mean() > 0.5:
        only_cloth = (edge[known] > anatomy.COLLAR_AT_JAW - 1e-9).all()
        return Collar(np.full(COLUMNS, anatomy.COLLAR_AT_JAW if only_cloth else anatomy.COLLAR_NONE), not only_cloth)
    curve = _curve(np.where(known, edge, 0), np.where(known, weight, 0))
    at_outline = _heights_at_outline(outline, placement, heights, axis_z)
    told = ~known & (at_outline > curve)  # jaw and shoulders hide collars: they begin there or higher
    if told.any():
        edge[told], weight[told] = at_outline[told], _OUTLINE_WEIGHT
        curve = _curve(np.where(known | told, edge, 0), np.where(known | told, weight, 0))
    return Collar(np.minimum(curve + _beyond_curve(edge - curve), anatomy.COLLAR_TOP), False)


def _better_of_both_sides(
    edge: Float[np.ndarray, " columns"], weight: Float[np.ndarray, " columns"]
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """Heights and weights where the side that is seen more plainly speaks for the other, which the jaw may hide."""
    mirrored = -np.arange(COLUMNS) % COLUMNS
    better = np.isfinite(edge[mirrored]) & (weight[mirrored] > weight + _BETTER)
    return np.where(better, edge[mirrored], edge), np.where(better, 0.5 * weight[mirrored], weight)


def _rows_of_axis(
    outline: Outline, placement: BustPlacement, heights: Float[np.ndarray, " rows"], axis_z: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, " rows"]:
    """The picture's rows in which points of the body's axis lie."""
    axis = placement.to_world(np.stack([np.zeros_like(heights), heights, axis_z], axis=1))
    return project_px(outline.camera, axis)[:, 1]


def _heights_at_outline(
    outline: Outline, placement: BustPlacement, heights: Float[np.ndarray, " rows"], axis_z: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, " columns"]:
    """Where cloth begins on either side of the outline; not a number away from it, or where it is not seen."""
    found = np.full(COLUMNS, np.nan)
    row_px = _rows_of_axis(outline, placement, heights, axis_z)
    across = column_directions() @ placement.T_world_body[:3, :3].T @ outline.camera.T_world_camera[0, :3, 0].numpy()
    for side, sign in enumerate((-1.0, 1.0)):
        cloth, ends = outline.kind[side] == EXACT, np.isfinite(outline.ends_px[side])
        first = int(np.argmax(cloth)) if cloth.any() else 0
        if not (cloth[first : first + _OUTLINE_ROWS].all() and ends[:first].all()):
            continue  # hidden by hair or the border, or none
        height = np.interp(outline.rows_px[first], row_px, heights)
        if height < anatomy.COLLAR_TOP:  # what is higher is a shoulder
            near = int(np.argmax(sign * across)) + np.arange(-_OUTLINE_COLUMNS, _OUTLINE_COLUMNS + 1)
            found[near % COLUMNS] = height
    return found


def _curve(edge: Float[np.ndarray, " columns"], weight: Float[np.ndarray, " columns"]) -> Float[np.ndarray, " columns"]:
    """A robust low-order curve round the neck.

    Source: iteratively reweighted least squares, absolute errors beyond `_ROBUST` (Huber 1981, Sec. 7.8).
    """
    angle = column_angles()
    terms = np.stack([np.ones(COLUMNS), np.cos(angle), np.sin(angle), np.cos(2 * angle)], axis=1)
    robust, curve = weight, np.zeros(COLUMNS)
    for _ in range(8):
        weighted = robust[:, None] * terms
        curve = terms @ np.linalg.solve(terms.T @ weighted + np.diag(_RIDGE), weighted.T @ edge)
        robust = weight * _ROBUST / np.maximum(np.abs(edge - curve), _ROBUST)
    quarter, near = COLUMNS // 4, 5
    sides = np.concatenate(
        [curve[quarter - near : quarter + near + 1], curve[-quarter - near : COLUMNS - quarter + near + 1]]
    )
    behind = smoothstep((0.15 - np.cos(angle)) / 0.8)
    return curve + (np.median(sides) - _BEHIND_LOWER - curve) * behind


def _beyond_curve(differs: Float[np.ndarray, " columns"]) -> Float[np.ndarray, " columns"]:
    """How far the edge leaves the curve: as what is seen differs from it, smooth, and less and less beyond.

    Args:
        differs: seen heights less the curve's; not a number where none is seen.
    """
    thrice = np.clip(np.tile(differs, 3), -_MOST_FOLLOWED, _MOST_FOLLOWED)
    at, seen = np.arange(len(thrice)), np.isfinite(thrice)
    away = np.asarray(ndimage.distance_transform_edt(~seen))
    filled = ndimage.median_filter(np.interp(at, at[seen], thrice[seen]), 5)
    followed = ndimage.gaussian_filter1d(filled, _SMOOTH_COLUMNS) * (1 - smoothstep(away / _FADE_COLUMNS))
    low, high = _FOLLOWED
    return followed[COLUMNS : 2 * COLUMNS] * smoothstep((np.cos(column_angles()) - low) / (high - low))


def ring_round_neck(
    outline: Outline,
    placement: BustPlacement,
    collar: Collar,
    heights: Float[np.ndarray, " rows"],
    axis_z: Float[np.ndarray, " rows"],
    sides_px: Float[np.ndarray, "2 lines"],
) -> Float[np.ndarray, "rows columns"]:
    """How far cloth stands off beside the neck: stiff collars, ruffs, scarves, helmets' rings.

    What stands off far and is level in front goes all round; what stands off a little, or opens in front, is a collar
    that only its sides hold up.

    Args:
        outline: the portrait's outline; beside the neck only cloth counts.
        placement: where the bust stands.
        collar: the upper edge of the clothes.
        heights, axis_z: sections of the body's frame.
        sides_px: silhouette of neck and shoulders without a collar, in the outline's rows.

    Returns:
        What to add to the radii, world units, not negative.
    """
    row_px = _rows_of_axis(outline, placement, heights, axis_z)
    sides = []
    for side, sign in enumerate((-1.0, 1.0)):
        outward = sign * (outline.sides_px[side] - sides_px[side]) * outline.units_per_px
        known = (outline.kind[side] == EXACT) & np.isfinite(outward)
        if known.sum() >= 2:
            rows = outline.rows_px[known]
            at_height = np.interp(row_px, rows, ndimage.median_filter(outward[known], 3, mode="nearest"))
            above = np.maximum(rows[0] - row_px, 0) * outline.units_per_px
            sides.append(at_height * np.exp(-above / _RING_FADE) * (row_px <= rows[-1]))
    ring = np.mean(sides, axis=0) if sides else np.zeros_like(heights)
    ring = np.clip(ring, 0, _MOST_RING)
    ring *= smoothstep((ring - 0.5 * _LEAST_RING) / _LEAST_RING)
    low, high = _RING_ENDS
    beside = (heights < collar.height.max()) & (heights > high)
    stiff = float(smoothstep((np.median(ring[beside]) - _STIFF[0]) / (_STIFF[1] - _STIFF[0]))) if beside.any() else 0.0
    dip = np.median(collar.height[[COLUMNS // 4, -COLUMNS // 4]]) - collar.height[0]
    stiff *= float(smoothstep((_MOST_DIP - dip) / _MOST_DIP))
    ring = np.minimum(ring, _MOST_SOFT + stiff * _MOST_RING)
    ring = ndimage.gaussian_filter1d(ring * smoothstep((heights - low) / (high - low)), 5.0, mode="nearest")
    at_sides = np.sin(column_angles()) ** 2
    return ring[:, None] * (at_sides + (1 - at_sides) * stiff)

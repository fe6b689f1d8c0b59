"""The bust: neck, shoulders and chest of a portrait as one closed surface that stands by itself.

A statistical bust is fitted to the outline (`bust_fit`), follows what the outline shows beyond it (`outline`), grows
out of the head model's neck, and gets the upper edge of the clothes (`collar`). It begins inside the neck and ends in
a rounded cut, as sculptors end a bust.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from ...head_model import HeadModel, anatomy
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from ...portrait import Portrait
from .. import capsule
from ..labels.portrait_labels import PortraitLabels, project_px
from .bust_fit import BustPlacement, fit_placement
from .collar import Collar, find_collar, ring_round_neck
from .outline import UNKNOWN, Outline, Silhouette, followed, smoothstep
from .sections import (
    COLUMNS,
    column_directions,
    filled_sections,
    grid_faces,
    median_of_sections,
    section_points,
    section_radius,
    smooth_grid,
    smooth_sections,
)
from .template import BustTemplate, load_template

ROWS = 48
"""Of the finished grid."""
_CAP_ROWS, _RIM_ROWS, _CUT_ROWS = 1, 3, 5
"""A point inside the neck, the way out of it over the collar's rim, and the rounded lower end."""
RIM_ROW, CUT_ROW = _CAP_ROWS + _RIM_ROWS, ROWS - _CUT_ROWS - 1
"""The collar's edge, and the last row before the rounded end."""
_HEIGHTS = np.linspace(*anatomy.BUST_SECTIONS, 376)
"""Heights of the sections between template and grid, above the neck's cut; world units as all below."""
_FIRST_MOST, _SECOND_MOST = 0.07, 0.04
"""Free form moves the template and the grid by at most this."""
_NECK_REACH = 0.125
"""Farther from the axis a ray has met jaw or shoulders, not the neck."""
_BLEND = (-0.035, 0.010)
"""From the first height down the bust is the body's, from the second up the head model's neck."""
_OVER_NECK = 0.003
_JOINT_LENGTH, _JOINT_DEPTH = 0.06, 0.05
"""Below the cut the body may pass inside of where the neck would go on: by that much from this depth on."""
_FLATTEST, _SHELF = 4.0, 0.01
"""Shoulders fall at least by one in so much from the collar on, but for a shelf of this width."""
_AT_NECK = (-0.05, -0.02)
"""Above the second height free form does not go inwards, below the first it may."""
_LEAST_ACROSS = 0.3
"""Columns whose direction is sideways in the picture by more than this share tell how wide a collar is."""
_FILLET_ROWS = 11.0
_PLAIN = (-0.12, -0.22)
"""Between these heights armpits and folds fade into plain cloth, as towards a sculpture's lower end."""
_ABOVE_NECK_END = 0.016
"""An open neckline starts inside the neck, this far above its lowest edge."""
_EMERGES, _INWARD, _IN_FRONT = (0.006, 0.016), 0.016, (0.3, 0.7)
"""Between these heights above that edge it comes out of the neck, from so far inside: two surfaces that lie in each
other would show as lines. Fully where the cosine of the angle from the front exceeds the last."""
_MOST_FLARE = 0.015
"""Where the head model's own shoulders begin a collar does not follow them beyond this."""
NECK_INSIDE = 0.012
"""So far below a collar's edge the head model's neck ends."""
_STAND_OFF, _STAND_EASE = 0.007, 0.02
_STAND_FADE = (0.01, 0.05)
"""A collar's thickness is gone so far below its edge."""
_BELOW_SHOULDER, _BELOW_SEEN = 0.07, 0.03
"""Arms are cut at least so far below the shoulders, and so far below what the portrait shows."""
_CUT_RADIUS = np.array([0.985, 0.93, 0.80, 0.45, 0.0])
_CUT_DROP = np.array([0.010, 0.020, 0.028, 0.034, 0.036])
"""The rounded lower end: share of the radius, and depth below the cut."""
_ROW_POWER = 1.25
"""Rows are closer together near the neck."""


@dataclass(frozen=True)
class Bust:
    """Neck, shoulders and chest as a closed grid."""

    points_world: Float[np.ndarray, "rows columns 3"]
    """Rows from a point inside the neck over the collar's rim down to a point in the lower end, columns round the
    body, column 0 to its front. The last column repeats the first."""
    T_world_body: Float[np.ndarray, "4 4"]
    """To world from the body's frame: y up, z to its front, the origin where the head model is cut off."""
    stand_off: Float[np.ndarray, " n"]
    """How far the collar's edge stands off the neck in each column, world units, but for what the portrait shows to
    press it to the neck."""


@dataclass(frozen=True)
class _Neck:
    """The head model's neck in the body's frame."""

    radius: Float[np.ndarray, "rows columns"]
    """Smooth, filled radius at `_HEIGHTS`."""
    kept_radius: Float[np.ndarray, "rows columns"]
    """Largest radius near each cell of the part that the prior shows; 0 where there is none."""
    end: Float[np.ndarray, " columns"]
    """Height at which the shown part ends."""


def fit_bust(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, *, template: BustTemplate | None = None
) -> Bust:
    """The bust of a portrait.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes; cloth and skin below the neck give the outline.
        model: the head model of the fit.
        template: the statistical bust; None takes the one that ships.
    """
    camera, vertices = portrait.head.camera, portrait.head.vertices_world
    neck_world = _middle_of_cut(model, vertices)
    landmarks = model.landmarks(vertices)
    rows = project_px(camera, np.stack([landmarks[anatomy.CHIN_LANDMARK], neck_world]))[:, 1]
    scale = portrait.size_px / 512
    outline = Outline.of(portrait, labels, rows[0] - 6 * scale, rows[1] + 6 * scale)
    placement = fit_placement(template or load_template(), outline, neck_world)

    points = placement.points_body + _free_form(placement, placement.points_body, outline, _FIRST_MOST)
    chest = points[-len(points) // 7]
    axis_z = np.interp(-_HEIGHTS, [0, -chest[0, 1]], [0, (chest[0, 2] + chest[COLUMNS // 2, 2]) / 2])
    body = filled_sections(section_radius(points.reshape(-1, 3), grid_faces(len(points)), _HEIGHTS, axis_z))
    neck = _neck_sections(model, placement.to_body(vertices), axis_z)
    radius = _grown_together(body, neck)
    collar = find_collar(portrait, labels, outline, placement, _HEIGHTS, axis_z, radius)
    silhouette = _silhouette(placement, section_points(_HEIGHTS, axis_z, radius), outline)
    ring = placement.trust * ring_round_neck(outline, placement, collar, _HEIGHTS, axis_z, silhouette.sides_px)
    ring *= not collar.is_bare
    radius = _without_flare(radius + ring, radius)
    grid, stand_off = _grid(radius, ring, axis_z, neck, collar, _lowest_seen(outline, placement, axis_z))
    move = _outside_neck(_free_form(placement, grid, outline, _SECOND_MOST), grid)
    ease = smoothstep((np.arange(ROWS) - _CAP_ROWS - _RIM_ROWS) / 4.0) * smoothstep((ROWS - 1 - np.arange(ROWS)) / 3.0)
    grid = grid + smooth_grid(move * ease[:, None, None], 1.3, 2.0)
    inward = placement.trust * _beyond_body(placement, grid, outline, axis_z, neck)
    grid = grid - inward[..., None] * column_directions()
    grid[[0, -1]] = grid[[0, -1]].mean(1, keepdims=True)
    world = placement.to_world(grid)
    return Bust(np.concatenate([world, world[:, :1]], axis=1), placement.T_world_body, stand_off)


def _middle_of_cut(model: HeadModel, vertices_world: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, " 3"]:
    """Middle of the neck where the head model is cut off."""
    y_cm = anatomy.centimetres(model.neutral)[:, 1]
    on_neck = np.isin(model.part, (PART_FACE, PART_CRANIUM_NECK)) & (np.abs(y_cm - anatomy.NECK_CUT_Y_CM) < 0.5)
    ring = vertices_world[on_neck]
    middle = (ring.min(0) + ring.max(0)) / 2
    middle[1] = ring[:, 1].mean()
    return middle


def _silhouette(
    placement: BustPlacement, points_body: Float[np.ndarray, "n columns 3"], outline: Outline
) -> Silhouette:
    return Silhouette.of(project_px(outline.camera, placement.to_world(points_body)), outline.rows_px)


def _free_form(
    placement: BustPlacement, points_body: Float[np.ndarray, "n columns 3"], outline: Outline, most: float
) -> Float[np.ndarray, "n columns 3"]:
    """Displacement in the body's frame that brings a grid to the outline."""
    if placement.trust == 0:
        return np.zeros_like(points_body)
    world = placement.to_world(points_body)
    move = followed(world, project_px(outline.camera, world), outline, placement.T_world_body[:3, 3], most)
    return placement.trust * move @ placement.T_world_body[:3, :3]


def _neck_sections(model: HeadModel, vertices: Float[np.ndarray, "v 3"], axis_z: Float[np.ndarray, " rows"]) -> _Neck:
    """Sections of the head model's neck; `vertices` in the body's frame."""
    y_cm = anatomy.centimetres(model.neutral)[:, 1]
    skin = model.skin_faces

    def between(low: float, high: float) -> Int[np.ndarray, "f 3"]:
        return skin[((y_cm[skin] > low) & (y_cm[skin] < high)).all(1)]

    def sections(faces: Int[np.ndarray, "f 3"], most: float) -> Float[np.ndarray, "rows columns"]:
        return section_radius(vertices, faces, _HEIGHTS, axis_z, most)

    radius = filled_sections(sections(between(-np.inf, anatomy.NECK_UPPER_Y_CM), _NECK_REACH))
    radius = smooth_sections(median_of_sections(radius, 9, 5), 4.0, 1.5)
    cut = anatomy.NECK_CUT_Y_CM - anatomy.NECK_OVERLAP_CM
    kept = sections(between(cut, anatomy.HAIR_END_Y_CM), 2 * _NECK_REACH)
    shown: Bool[np.ndarray, "rows columns"] = np.isfinite(kept)
    last = len(_HEIGHTS) - 1 - np.argmax(shown[::-1], axis=0)
    end = np.where(shown.any(0), _HEIGHTS[last], 0.0)
    end = ndimage.gaussian_filter1d(ndimage.maximum_filter1d(end, 7, mode="wrap"), 2, mode="wrap")
    near_cut = sections(between(cut, anatomy.NECK_CUT_Y_CM + 1.2), np.inf)
    largest = ndimage.maximum_filter(np.where(np.isfinite(near_cut), near_cut, 0), 3, mode=capsule.WRAPPED)
    return _Neck(radius, largest, end)


def _grown_together(body: Float[np.ndarray, "rows columns"], neck: _Neck) -> Float[np.ndarray, "rows columns"]:
    """Neck above, body below, one surface between, with a fillet where the shoulders begin."""
    low, high = _BLEND
    share = smoothstep((_HEIGHTS - low) / (high - low))[:, None]
    radius = body + (neck.radius - body) * share
    inward = _JOINT_DEPTH * smoothstep((-_HEIGHTS - 0.005) / _JOINT_LENGTH)[:, None]
    radius = np.where((_HEIGHTS < 0.004)[:, None], np.maximum(radius, neck.radius + _OVER_NECK - inward), radius)
    round_off = ndimage.gaussian_filter1d(radius, _FILLET_ROWS, axis=0, mode="nearest")
    below = smoothstep((0.030 - _HEIGHTS) / 0.03)[:, None]
    radius = radius + (np.maximum(round_off, radius) - radius) * below
    plain = smoothstep((_PLAIN[0] - _HEIGHTS) / (_PLAIN[0] - _PLAIN[1]))[:, None]
    return radius + (smooth_sections(radius, 5.0, 3.0) - radius) * plain


def _without_flare(
    radius: Float[np.ndarray, "rows columns"], least: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    """A collar that does not grow wider towards its upper edge, unless the neck does."""
    narrowest_below = np.minimum.accumulate(radius[::-1], axis=0)[::-1]
    return np.maximum(narrowest_below, least)


def _outside_neck(
    move: Float[np.ndarray, "n columns 3"], grid: Float[np.ndarray, "n columns 3"]
) -> Float[np.ndarray, "n columns 3"]:
    """Displacements that do not push a collar into the neck."""
    directions = column_directions()
    inward = np.minimum((move * directions).sum(-1), 0)
    low, high = _AT_NECK
    near = smoothstep((grid[..., 1] - low) / (high - low))
    return move - (inward * near)[..., None] * directions


def _beyond_body(
    placement: BustPlacement,
    grid: Float[np.ndarray, "r columns 3"],
    outline: Outline,
    axis_z: Float[np.ndarray, " rows"],
    neck: _Neck,
) -> Float[np.ndarray, "r columns"]:
    """How far a collar has to come nearer to the neck not to stand before what the portrait shows to be background.

    Args:
        grid: in the body's frame.

    Returns:
        By how much radii are too large, world units, not negative; never below the neck's radius.
    """
    camera, directions = outline.camera, column_directions()
    beyond = outline.beyond_px(project_px(camera, placement.to_world(grid))) * outline.units_per_px
    right = camera.T_world_camera[0, :3, 0].numpy() @ placement.T_world_body[:3, :3]
    across = directions @ right
    sideways = np.clip(beyond / np.where(np.abs(across) > _LEAST_ACROSS, across, np.inf), 0, None)
    low, high = _AT_NECK
    sideways *= smoothstep((grid[..., 1] - low) / (high - low))
    sideways = smooth_sections(sideways, 0.7, 1.5)
    height = grid[..., 1]
    radius = ((grid - np.interp(-height, -_HEIGHTS, axis_z)[..., None] * [0, 0, 1]) * directions).sum(-1)
    least = np.stack([np.interp(-height[:, c], -_HEIGHTS, neck.radius[:, c]) for c in range(COLUMNS)], axis=1)
    return np.minimum(sideways, np.maximum(radius - least - _OVER_NECK / 2, 0))


def _lowest_seen(outline: Outline, placement: BustPlacement, axis_z: Float[np.ndarray, " rows"]) -> float:
    """Height in the body's frame to which the portrait shows the body; infinite where it does not."""
    seen = np.flatnonzero((outline.kind > UNKNOWN).any(0))
    if placement.trust == 0 or not len(seen):
        return np.inf
    axis = placement.to_world(np.stack([np.zeros_like(_HEIGHTS), _HEIGHTS, axis_z], axis=1))
    return float(np.interp(outline.rows_px[seen[-1]], project_px(outline.camera, axis)[:, 1], _HEIGHTS))


def _heights_of_cut(radius: Float[np.ndarray, "rows columns"], lowest_seen: float) -> Float[np.ndarray, " columns"]:
    """Where the bust ends below: higher at the sides, yet well below the shoulders and below what is seen."""
    broad = radius[_HEIGHTS > anatomy.BUST_END].max(0)
    across = np.abs(column_directions()[:, 0])
    curve = anatomy.BUST_END + anatomy.BUST_END_LIFT * np.clip(broad * across / anatomy.BUST_END_LIFT_AT, 0, 1) ** 2
    shoulder = _HEIGHTS[np.argmax(radius > 0.92 * broad, axis=0)]
    curve = np.minimum(curve, max(lowest_seen - _BELOW_SEEN, anatomy.BUST_END))
    lowest = np.clip(shoulder - _BELOW_SHOULDER, _HEIGHTS[-1], curve)
    arm = smoothstep((across - 0.6) / 0.3)
    return ndimage.gaussian_filter1d(curve + arm * (lowest - curve), 3.0, mode="wrap")


def _grid(
    radius: Float[np.ndarray, "rows columns"],
    ring: Float[np.ndarray, "rows columns"],
    axis_z: Float[np.ndarray, " rows"],
    neck: _Neck,
    collar: Collar,
    lowest_seen: float,
) -> tuple[Float[np.ndarray, "r columns 3"], Float[np.ndarray, " columns"]]:
    """The finished grid in the body's frame, and how far the collar stands off in each column."""
    floor = neck.end + _ABOVE_NECK_END
    start = np.clip(collar.height, floor, np.maximum(floor, anatomy.COLLAR_TOP + 0.001))
    stand = _STAND_OFF * smoothstep((collar.height - floor + _STAND_EASE) / _STAND_EASE)
    stand = ndimage.gaussian_filter1d(stand, 1.5, mode="wrap")
    inner_rows = ROWS - _CAP_ROWS - _RIM_ROWS - _CUT_ROWS
    grid_radius, grid_height = np.zeros((2, ROWS, COLUMNS))
    stand_off = np.zeros(COLUMNS)
    low, high = _IN_FRONT
    opened = _INWARD * smoothstep((column_directions()[:, 2] - low) / (high - low)) * (not collar.is_bare)
    cut = _heights_of_cut(radius, lowest_seen)
    for c in range(COLUMNS):

        def at(y: np.ndarray, values: np.ndarray) -> np.ndarray:
            return np.interp(-y, -_HEIGHTS, values)

        y = np.linspace(start[c], cut[c], 400)
        shoulder = float(at(y[:1], neck.radius[:, c] + ring[:, c])[0]) + _SHELF + _FLATTEST * (start[c] - y)
        r = np.minimum(at(y, radius[:, c]), shoulder) + stand[c] * (
            1 - smoothstep((start[c] - y - _STAND_FADE[0]) / _STAND_FADE[1])
        )
        around = at(y, neck.radius[:, c])
        r = np.where(y > -0.02, np.maximum(r, around + 0.0015), r)
        beside_neck = (y < neck.end[c] + 0.010) & (y > start[c] - NECK_INSIDE - 0.004)
        over_neck = np.minimum(at(y, neck.kept_radius[:, c]) + 0.006, around + _MOST_FLARE)
        r = np.where(beside_neck, np.maximum(r, over_neck), r)
        inward = opened[c] * (1 - stand[c] / _STAND_OFF)
        r = r - inward * smoothstep((y - neck.end[c] - _EMERGES[0]) / (_EMERGES[1] - _EMERGES[0]))
        length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(y), np.diff(r)))])
        wanted = length[-1] * np.linspace(0, 1, inner_rows) ** _ROW_POWER
        y, r = np.interp(wanted, length, y), np.interp(wanted, length, r)
        stand_off[c] = max(r[0] - around[0], 0.0) * (stand[c] > 0.003)
        inside = min(float(around[0]), r[0])
        rim_height = start[c] + np.array([-0.016, -0.004, 0.0015 * (stand[c] > 0.003)])
        rim_radius = np.array([0.88 * inside, 0.97 * inside, (inside + r[0]) / 2])
        grid_height[:, c] = np.concatenate([[start[c] - 0.03], rim_height, y, y[-1] - _CUT_DROP])
        grid_radius[:, c] = np.concatenate([[0], rim_radius, r, r[-1] * _CUT_RADIUS])
    grid = grid_radius[..., None] * column_directions()
    grid[..., 1] += grid_height
    last = ROWS - _CUT_ROWS - 1
    depth = np.interp(-grid_height, -_HEIGHTS, axis_z)
    depth[last:] = depth[last]
    grid[..., 2] += depth
    smoothed = slice(_CAP_ROWS + _RIM_ROWS + 2, ROWS - _CUT_ROWS)
    grid[smoothed] = smooth_grid(grid, 0.6, 0.8)[smoothed]
    grid[[0, -1]] = grid[[0, -1]].mean(1, keepdims=True)
    return grid, stand_off

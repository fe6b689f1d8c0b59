"""Simple shoulders: a stack of ellipses that follows the portrait's outline below the neck and closes round the neck.

One picture shows the width of the body and nothing of its depth. Each row is an ellipse as wide as the outline, as
deep as bodies of that width are, and turned like the portrait's camera; where hair or the picture's border hides
the outline, a typical shoulder line stands in.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from ...cameras import PANOHEAD_RADIUS
from ...head_model import HeadModel, anatomy
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from ...portrait import Portrait
from ..capsule import cell_coordinates, outermost_radius
from ..labels.portrait_labels import PortraitLabels, project_px

TORSO_ROWS, TORSO_COLUMNS = 40, 96
_BOTTOM_Y = -0.42
"""Height of the flat bottom, world units as all below."""
_MOST_HALF_WIDTH = 0.44
_LEAST_OF_TYPICAL = 0.45
"""The body reaches at least this share of a typical one to either side."""
_DEPTH_OF_WIDTH, _HALF_DEPTHS = 0.5, (0.06, 0.185)
"""Bodies are half as deep as wide, within limits of half the depth."""
_BORDER_PX = 3
"""A body that comes this near to the picture's border runs out of it."""


def _observed_extent(
    portrait: Portrait, labels: PortraitLabels, points_world: Float[np.ndarray, "rows 3"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Left and right outline of the body at each row's height, world units from the axis; NaN where it is unknown.

    Where the body runs out of the picture the border is returned with the typical shoulder as its least width.
    """
    camera = portrait.head.camera
    units_per_px = PANOHEAD_RADIUS / float(camera.focal_px[0, 0])
    axis_px = project_px(camera, points_world)
    body = labels.cloth | labels.skin
    left, right = np.full(len(points_world), np.nan), np.full(len(points_world), np.nan)
    for i, (u, v) in enumerate(axis_px):
        row = int(v)
        if not 0 <= row < portrait.size_px:
            continue
        columns = np.nonzero(body[row])[0]
        if len(columns) < 5:
            continue
        picture = np.nonzero(portrait.inside[row])[0]
        first, last = columns[0], columns[-1]
        hair = labels.hair[row]
        typical = float(np.interp(points_world[i, 1], anatomy.SHOULDER_Y, anatomy.SHOULDER_HALF_WIDTH))
        left[i], right[i] = (first - u) * units_per_px, (last + 1 - u) * units_per_px
        if first <= picture[0] + _BORDER_PX or hair[:first].any():
            left[i] = min(left[i], -typical)
        if last >= picture[-1] - _BORDER_PX or hair[last:].any():
            right[i] = max(right[i], typical)
    below = np.nonzero(np.isfinite(left))[0]
    if len(below):  # below the picture the body is at least as wide as where it left it
        left[below[-1] + 1 :], right[below[-1] + 1 :] = left[below[-1]], right[below[-1]]
    return left, right


def _joined_to_neck(
    grid: Float[np.ndarray, "rows columns 3"],
    head_vertices: Float[np.ndarray, "v 3"],
    head_faces: Int[np.ndarray, "f 3"],
    top_y: float,
    cut_y: float,
) -> Float[np.ndarray, "rows columns 3"]:
    """Start inside the neck, come out of it on one even line, and stay outside where the head model ends."""
    neck_radius = outermost_radius(head_vertices, head_faces)
    neck_radius = np.where(np.isfinite(neck_radius), neck_radius, 0.0)
    row, column, radius = cell_coordinates(grid)
    at_grid = ndimage.map_coordinates(neck_radius, [row, column], order=1, mode="grid-wrap")
    depth = (top_y - grid[..., 1]) / (top_y - cut_y)  # 0 at the top row, 1 where the model ends
    ease = np.clip((depth - 0.2) / 0.5, 0.0, 1.0)
    ease = ease * ease * (3 - 2 * ease)  # 0: hidden in the neck, 1: outside it
    inside = at_grid * 0.9
    outside = np.maximum(radius, np.where(depth < 1.25, at_grid * 1.03 + 0.004, 0.0))
    wanted = np.maximum(inside + (outside - inside) * ease, 0.02)
    wanted = np.maximum.accumulate(wanted, axis=0)  # shoulders widen downwards: no step back under the nape
    moved = grid.copy()
    scale = wanted / np.maximum(radius, 1e-6)
    moved[..., 0] *= scale
    moved[..., 2] *= scale
    return moved


def fit_torso(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> Float[np.ndarray, "rows columns 3"]:
    """Shoulders for a portrait.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes; cloth and skin below the neck give the outline.
        model: the head model of the fit.

    Returns:
        Rows from the neck down to a flat bottom, columns round the body, column 0 towards the camera; world units. The
        last column repeats the first.
    """
    y_cm = anatomy.centimetres(model.neutral)[:, 1]
    on_neck = np.isin(model.part, (PART_FACE, PART_CRANIUM_NECK))
    vertices = portrait.head.vertices_world
    top_y = float(vertices[on_neck & (np.abs(y_cm - anatomy.TORSO_TOP_Y_CM) < 0.5), 1].mean())
    cut_y = float(vertices[on_neck & (np.abs(y_cm - anatomy.NECK_CUT_Y_CM) < 0.5), 1].mean())
    y = top_y + (_BOTTOM_Y - top_y) * np.linspace(0.0, 1.0, TORSO_ROWS) ** 1.25

    azimuth = float(portrait.head.camera.azimuth_rad[0])
    across = np.array([np.cos(azimuth), 0.0, -np.sin(azimuth)])
    towards = np.array([np.sin(azimuth), 0.0, np.cos(azimuth)])
    neck = vertices[on_neck & (np.abs(y_cm - anatomy.TORSO_TOP_Y_CM) < 0.5)]
    neck_centre = np.array([np.ptp(neck @ across) / 2 + (neck @ across).min(), (neck @ towards).mean()])

    typical = np.interp(y, anatomy.SHOULDER_Y, anatomy.SHOULDER_HALF_WIDTH)
    points = neck_centre[0] * across + neck_centre[1] * towards + y[:, None] * np.array([0.0, 1.0, 0.0])
    left, right = _observed_extent(portrait, labels, points)
    left = np.where(np.isfinite(left), left + neck_centre[0], neck_centre[0] - typical)
    right = np.where(np.isfinite(right), right + neck_centre[0], neck_centre[0] + typical)
    left = np.minimum(left, neck_centre[0] - _LEAST_OF_TYPICAL * typical)
    right = np.maximum(right, neck_centre[0] + _LEAST_OF_TYPICAL * typical)
    left = ndimage.gaussian_filter1d(np.minimum.accumulate(np.clip(left, -_MOST_HALF_WIDTH, None)), 1.2, mode="nearest")
    right = ndimage.gaussian_filter1d(
        np.maximum.accumulate(np.clip(right, None, _MOST_HALF_WIDTH)), 1.2, mode="nearest"
    )
    half_width = (right - left) / 2
    half_depth = np.clip(_DEPTH_OF_WIDTH * half_width, *_HALF_DEPTHS)
    theta = np.arange(TORSO_COLUMNS + 1) * (2 * np.pi / TORSO_COLUMNS)
    across_units = (left + right)[:, None] / 2 + half_width[:, None] * np.sin(theta)
    towards_units = neck_centre[1] + half_depth[:, None] * np.cos(theta)
    grid = across_units[..., None] * across + towards_units[..., None] * towards
    grid[..., 1] = y[:, None]
    grid = _joined_to_neck(grid, vertices, model.skin_faces, top_y, cut_y)
    grid[:, -1] = grid[:, 0]
    grid[-1] = grid[-1].mean(0)  # the flat bottom
    grid[-1, :, 1] = grid[-2, 0, 1]
    return grid

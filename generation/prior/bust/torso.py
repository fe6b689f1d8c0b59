"""Simple shoulders: a stack of ellipses that follows the portrait's outline below the neck and closes round the neck.

One picture shows the width of the body and nothing of its depth. Each row is an ellipse as wide as the outline, as
deep as bodies of that width are, and turned like the portrait's camera; where hair or the picture's border hides
the outline, a typical shoulder line stands in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from ...cameras import PANOHEAD_RADIUS
from ...head_model import HeadModel
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from ...portrait import Portrait
from ..capsule import cell_coordinates, outermost_radius
from ..labels.portrait_labels import PortraitLabels, centimetres, project_px

TORSO_ROWS, TORSO_COLUMNS = 40, 96
NECK_CUT_CM = -11.0
"""The head model ends at this height of its own scale; the torso takes over."""
_TOP_CM, _BOTTOM_Y = -8.8, -0.42
_TYPICAL_Y = np.array([-0.42, -0.36, -0.32, -0.29, -0.265, -0.24, -0.22, -0.20])
_TYPICAL_HALF_WIDTH = np.array([0.42, 0.41, 0.395, 0.36, 0.28, 0.19, 0.125, 0.085])


@dataclass(frozen=True)
class Torso:
    """Shoulders as a closed grid: rows from the neck down, columns round the body, column 0 towards the camera."""

    vertices_world: Float[np.ndarray, "rows columns 3"]
    """World units; the last column repeats the first."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles over row * (TORSO_COLUMNS + 1) + column, outward, with a flat bottom."""


def _faces() -> Int[np.ndarray, "f 3"]:
    row, column = np.meshgrid(np.arange(TORSO_ROWS - 1), np.arange(TORSO_COLUMNS), indexing="ij")
    a = row * (TORSO_COLUMNS + 1) + column
    b, c, d = a + 1, a + TORSO_COLUMNS + 1, a + TORSO_COLUMNS + 2
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def _observed_extent(
    portrait: Portrait, labels: PortraitLabels, points_world: Float[np.ndarray, "rows 3"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Left and right outline of the body at each row's height, world units from the axis; NaN where it is unknown.

    Where the body runs out of the picture the border is returned with the typical shoulder as its least width.
    """
    size = portrait.rgb.shape[0]
    camera = portrait.head.camera
    units_per_px = PANOHEAD_RADIUS / float(camera.focal_px[0, 0])
    axis_px = project_px(camera, points_world)
    body = labels.cloth | labels.skin
    left, right = np.full(len(points_world), np.nan), np.full(len(points_world), np.nan)
    for i, (u, v) in enumerate(axis_px):
        row = int(v)
        if not 0 <= row < size:
            continue
        columns = np.nonzero(body[row])[0]
        if len(columns) < 5:
            continue
        picture = np.nonzero(portrait.inside[row])[0]
        first, last = columns[0], columns[-1]
        hair = labels.hair[row]
        border = 3
        typical = float(np.interp(points_world[i, 1], _TYPICAL_Y, _TYPICAL_HALF_WIDTH))
        left[i], right[i] = (first - u) * units_per_px, (last + 1 - u) * units_per_px
        if first <= picture[0] + border or hair[:first].any():
            left[i] = min(left[i], -typical)
        if last >= picture[-1] - border or hair[last:].any():
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


def fit_torso(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> Torso:
    """Shoulders for a portrait.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes; cloth and skin below the neck give the outline.
        model: the head model of the fit.
    """
    y_cm = centimetres(model)[:, 1]
    on_neck = np.isin(model.part, (PART_FACE, PART_CRANIUM_NECK))
    vertices = portrait.head.vertices_world
    top_y = float(vertices[on_neck & (np.abs(y_cm - _TOP_CM) < 0.5), 1].mean())
    cut_y = float(vertices[on_neck & (np.abs(y_cm - NECK_CUT_CM) < 0.5), 1].mean())
    y = top_y + (_BOTTOM_Y - top_y) * np.linspace(0.0, 1.0, TORSO_ROWS) ** 1.25

    azimuth = float(portrait.head.camera.azimuth_rad[0])
    across = np.array([np.cos(azimuth), 0.0, -np.sin(azimuth)])
    towards = np.array([np.sin(azimuth), 0.0, np.cos(azimuth)])
    neck = vertices[on_neck & (np.abs(y_cm - _TOP_CM) < 0.5)]
    neck_centre = np.array([np.ptp(neck @ across) / 2 + (neck @ across).min(), (neck @ towards).mean()])

    typical = np.interp(y, _TYPICAL_Y, _TYPICAL_HALF_WIDTH)
    points = neck_centre[0] * across + neck_centre[1] * towards + y[:, None] * np.array([0.0, 1.0, 0.0])
    left, right = _observed_extent(portrait, labels, points)
    left = np.where(np.isfinite(left), left + neck_centre[0], neck_centre[0] - typical)
    right = np.where(np.isfinite(right), right + neck_centre[0], neck_centre[0] + typical)
    left = np.minimum(left, neck_centre[0] - 0.45 * typical)
    right = np.maximum(right, neck_centre[0] + 0.45 * typical)
    left = ndimage.gaussian_filter1d(np.minimum.accumulate(np.clip(left, -0.44, None)), 1.2, mode="nearest")
    right = ndimage.gaussian_filter1d(np.maximum.accumulate(np.clip(right, None, 0.44)), 1.2, mode="nearest")
    half_width = (right - left) / 2
    half_depth = np.clip(0.5 * half_width, 0.06, 0.185)
    theta = np.arange(TORSO_COLUMNS + 1) * (2 * np.pi / TORSO_COLUMNS)
    across_units = (left + right)[:, None] / 2 + half_width[:, None] * np.sin(theta)
    towards_units = neck_centre[1] + half_depth[:, None] * np.cos(theta)
    grid = across_units[..., None] * across + towards_units[..., None] * towards
    grid[..., 1] = y[:, None]
    grid = _joined_to_neck(grid, vertices, model.faces_of(PART_FACE, PART_CRANIUM_NECK), top_y, cut_y)
    grid[:, -1] = grid[:, 0]
    grid[-1] = grid[-1].mean(0)  # the flat bottom
    grid[-1, :, 1] = grid[-2, 0, 1]
    return Torso(grid, _faces())

"""Outlines below the chin: what the portrait shows on either side, and what a surface would show there.

Rows of the picture are looked at one by one. On either side the portrait's outline is known (`EXACT`), or only a bound
because the body leaves the picture or goes behind hair (`AT_LEAST`), or it says nothing (`UNKNOWN`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from ...cameras import PANOHEAD_RADIUS, Cameras
from ...portrait import Portrait
from ..labels.portrait_labels import PortraitLabels

UNKNOWN, AT_LEAST, EXACT = 0, 1, 2
_ROWS_PER_PICTURE = 170
"""Every so many-th part of the picture's height is looked at."""
_LEAST_PX, _BORDER_PX, _HAIR_PX, _ENDS_PX = 8, 3, 3, 4
"""At 512 px: a row has a body from so many pixels on; nearer to the picture's border it runs out of it; so much hair
beside it hides it; a body that ends so far above the picture's lower border is cut out."""
_SMOOTH_ROWS = 3.0
_EASE_ROWS = 3.5
"""Free form begins gently below the first row that says something."""
_MOST_INWARD = 0.6
"""Free form goes inwards by less than outwards."""
_FLATTEST = 5.0
"""Largest slope of a shoulder's outline, sideways per downwards, along whose normal it is moved."""
_DEPTH_SHARE = 0.5
"""Depth follows width by so much."""
_DEPTH_LIMITS = (-0.15, 0.3)


@dataclass(frozen=True)
class Outline:
    """Left and right outline of the body in the portrait."""

    camera: Cameras
    """The portrait's."""
    rows_px: Float[np.ndarray, " rows"]
    """Middles of the picture's rows that were looked at."""
    sides_px: Float[np.ndarray, "2 rows"]
    """Columns of the left and right outline, 0 where unknown."""
    kind: Int[np.ndarray, "2 rows"]
    """`UNKNOWN`, `AT_LEAST` or `EXACT`."""
    ends_px: Float[np.ndarray, "2 rows"]
    """Columns beyond which no body is: also where skin is the outline, which says nothing of how wide the clothes are,
    but that they are not wider. Infinite where hair or the picture's border may hide some."""

    @property
    def units_per_px(self) -> float:
        """World units per pixel at the head's distance."""
        return PANOHEAD_RADIUS / float(self.camera.focal_px[0, 0])

    @staticmethod
    def of(portrait: Portrait, labels: PortraitLabels, first_row: float, shoulder_row: float) -> Outline:
        """The portrait's outline.

        Args:
            portrait: aligned portrait with its fitted head.
            labels: its classes.
            first_row: height from which on to look, pixels.
            shoulder_row: above this row skin is the neck's, and only cloth outlines the bust.
        """
        size = portrait.size_px
        scale = size / 512
        rows = np.arange(max(int(first_row), 0), size - 1, max(1, size // _ROWS_PER_PICTURE))
        body = labels.cloth | labels.skin
        sides, kind = np.zeros((2, len(rows))), np.full((2, len(rows)), UNKNOWN)
        ends = np.tile([[-np.inf], [np.inf]], len(rows))
        for i, row in enumerate(rows):
            columns, picture = np.flatnonzero(body[row]), np.flatnonzero(portrait.inside[row])
            if len(columns) < _LEAST_PX * scale:
                continue
            first, last = columns[0], columns[-1]
            hair = labels.hair[row]
            cut = first - picture[0] < _BORDER_PX * scale, picture[-1] - last < _BORDER_PX * scale
            hidden = hair[:first].sum() > _HAIR_PX * scale, hair[last:].sum() > _HAIR_PX * scale
            sides[:, i] = first, last + 1
            for side, at in enumerate((first, last)):
                if not (cut[side] or hidden[side]):
                    ends[side, i] = sides[side, i]
                if row >= shoulder_row or labels.cloth[row, at]:
                    kind[side, i] = AT_LEAST if cut[side] or hidden[side] else EXACT
        last_row = int(np.flatnonzero(portrait.inside.any(1))[-1])
        bodies = np.flatnonzero(body.any(1))
        if len(bodies) and last_row - bodies[-1] > _ENDS_PX * scale:  # a cut-out: its lower end is not the body's
            kind = np.minimum(kind, AT_LEAST)
        return Outline(portrait.head.camera, rows + 0.5, sides, kind, ends)

    def beyond_px(self, uv_px: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n"]:
        """How far points lie beyond the ends of the body: positive to the right of it, negative to the left."""
        if not len(self.rows_px):
            return np.zeros(uv_px.shape[:-1])
        column, row = uv_px[..., 0], uv_px[..., 1]
        below = np.clip(np.searchsorted(self.rows_px, row), 1, len(self.rows_px) - 1)
        left = np.minimum(self.ends_px[0, below - 1], self.ends_px[0, below])
        right = np.maximum(self.ends_px[1, below - 1], self.ends_px[1, below])
        beyond = np.maximum(column - right, 0) - np.maximum(left - column, 0)
        return np.where((row >= self.rows_px[0]) & (row <= self.rows_px[-1]), beyond, 0)

    @property
    def seen_rows(self) -> int:
        """Rows in which something is known of a side."""
        return int((self.kind > UNKNOWN).any(0).sum())


@dataclass(frozen=True)
class Silhouette:
    """Leftmost and rightmost points of a grid in the picture's rows."""

    sides_px: Float[np.ndarray, "2 rows"]
    """Columns in the picture; NaN where the grid does not reach."""
    segment: Int[np.ndarray, "2 rows"]
    """Flat index of the grid point above each."""
    share: Float[np.ndarray, "2 rows"]
    """How far each lies from that point to the one below it, [0, 1]."""
    columns_per_row: Float[np.ndarray, "2 rows"]
    """Slope of the grid's column in the picture there."""

    @staticmethod
    def of(uv_px: Float[np.ndarray, "n columns 2"], rows_px: Float[np.ndarray, " rows"]) -> Silhouette:
        """Where the columns of a projected grid cross rows of the picture."""
        upper, lower = uv_px[:-1], uv_px[1:]
        fall = lower[..., 1] - upper[..., 1]
        ahead = rows_px[:, None, None] - upper[..., 1]
        crosses = (ahead >= 0) & (ahead < fall)
        share = np.where(crosses, ahead / np.where(fall > 1e-9, fall, 1.0), 0.0)
        column = upper[..., 0] + share * (lower[..., 0] - upper[..., 0])
        flat = crosses.reshape(len(rows_px), -1)
        left = np.where(flat, column.reshape(flat.shape), np.inf).argmin(1)
        right = np.where(flat, column.reshape(flat.shape), -np.inf).argmax(1)
        segment = np.stack([left, right])
        at = np.arange(len(rows_px)), segment
        slope = ((lower[..., 0] - upper[..., 0]) / np.where(fall > 1e-9, fall, 1.0)).reshape(-1)
        sides = np.where(flat[at], column.reshape(flat.shape)[at], np.nan)
        return Silhouette(sides, segment, share.reshape(flat.shape)[at], slope[segment])

    def derivative(self, uv_by_parameter: Float[np.ndarray, "p n columns 2"]) -> Float[np.ndarray, "p 2 rows"]:
        """How the silhouette moves when the grid's points do: the crossing slides along its column."""
        flat = uv_by_parameter.reshape(len(uv_by_parameter), -1, 2)
        columns = uv_by_parameter.shape[2]
        upper, lower = flat[:, self.segment], flat[:, self.segment + columns]
        moved = upper + self.share[..., None] * (lower - upper)
        return moved[..., 0] - self.columns_per_row * moved[..., 1]


def followed(
    points_world: Float[np.ndarray, "n columns 3"],
    uv_px: Float[np.ndarray, "n columns 2"],
    outline: Outline,
    axis_world: Float[np.ndarray, " 3"],
    most: float,
) -> Float[np.ndarray, "n columns 3"]:
    """Free form: how to move a surface along its outline's normal, and half as much in depth, to meet the outline.

    Args:
        points_world: grid of the surface.
        uv_px: where its points are in the portrait.
        outline: the portrait's outline.
        axis_world: a point of the body's axis.
        most: largest move, world units.

    Returns:
        A displacement for each point, world units.
    """
    if not len(outline.rows_px) or not (outline.kind > UNKNOWN).any():
        return np.zeros_like(points_world)
    rows = outline.rows_px
    row_step = float(rows[1] - rows[0]) if len(rows) > 1 else 1.0
    silhouette = Silhouette.of(uv_px, rows)
    seen = silhouette.sides_px
    T = outline.camera.T_world_camera[0].numpy()
    right, upward, forward = T[:3, 0], -T[:3, 1], -T[:3, 2]
    forward = forward * [1, 0, 1] / np.hypot(forward[0], forward[2])
    axis_px = (
        float(outline.camera.focal_px[0, 0]) * ((axis_world - T[:3, 3]) @ right) / ((axis_world - T[:3, 3]) @ T[:3, 2])
    )
    axis_px += float(outline.camera.principal_px[0, 0])

    at_row, up_at_row, extent = [], [], []
    for side, sign in enumerate((-1.0, 1.0)):
        outward = sign * (outline.sides_px[side] - seen[side]) * outline.units_per_px
        kind = outline.kind[side]
        known = np.isfinite(outward) & ((kind == EXACT) | ((kind == AT_LEAST) & (outward > 0)))
        slope = np.where(np.isfinite(seen[side]), sign * silhouette.columns_per_row[side], 0)
        slope_seen = sign * np.gradient(
            np.where(kind > UNKNOWN, outline.sides_px[side], axis_px), row_step, edge_order=1
        )
        flat, flat_seen = (_smoothed(np.clip(s, 0, _FLATTEST)) for s in (slope, slope_seen * (kind > UNKNOWN)))
        steep = 1 / np.sqrt(1 + np.maximum(flat, flat_seen) ** 2)
        outward = np.clip(np.where(known, outward * steep, 0), -_MOST_INWARD * most, most)
        mass = _smoothed(known.astype(float))
        outward = _smoothed(outward * known) / np.maximum(mass, 0.05) * np.clip(1.5 * mass, 0, 1)
        first = rows[np.flatnonzero(kind > UNKNOWN)[0]] if (kind > UNKNOWN).any() else rows[0]
        ease = smoothstep((uv_px[..., 1] - first) / (_EASE_ROWS * row_step) + 0.5)
        at_row.append(np.interp(uv_px[..., 1], rows, outward * steep) * ease)
        up_at_row.append(np.interp(uv_px[..., 1], rows, outward * steep * flat) * ease)
        width = np.interp(uv_px[..., 1], rows, np.where(np.isfinite(seen[side]), seen[side], axis_px + sign * 60))
        extent.append(np.maximum(sign * (width - axis_px), 20.0))
    across = uv_px[..., 0] - axis_px
    shares = np.clip(-across / extent[0], 0, 1), np.clip(across / extent[1], 0, 1)
    sideways = at_row[1] * shares[1] - at_row[0] * shares[0]
    upwards = up_at_row[1] * shares[1] + up_at_row[0] * shares[0]
    wider = (at_row[0] + at_row[1]) / np.maximum((extent[0] + extent[1]) * outline.units_per_px, 0.1)
    depth = (points_world - axis_world) @ forward
    deeper = _DEPTH_SHARE * np.clip(wider, *_DEPTH_LIMITS) * depth
    return sideways[..., None] * right + upwards[..., None] * upward + deeper[..., None] * forward


def _smoothed(values: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    return ndimage.gaussian_filter1d(values, _SMOOTH_ROWS, mode="nearest")


def smoothstep(t: Float[np.ndarray, "*n"] | float) -> Float[np.ndarray, "*n"]:
    """0 up to t = 0, 1 from t = 1 on, with level ends."""
    t = np.clip(np.asarray(t, dtype=np.float64), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))

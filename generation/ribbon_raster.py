"""Draw thin ribbons that always face the camera, such as hairs, before and behind surfaces of known depth.

Knows nothing about heads. A ribbon narrower than a pixel covers a part of it: coverage is that of a strip with straight
edges over a pixel-wide window across it, so that thin ribbons neither flicker nor break up. Pieces are drawn from far
to near, each over what lies behind it. Pixel centres lie at +0.5 and cameras are OpenCV ones (`cameras.py`).

Ribbons are drawn here and not by the rasteriser of splats, because that belongs to `reconstruction`, which generation
must not know; a fit that starts from hairs gets them as thin Gaussians (`views.PointCloud.half_axes_world`).

The picture is cut into bands of rows, each drawn in the same order: results do not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32

from .cameras import Cameras
from .numba_pool import numba_pool
from .row_bands import BAND_ROWS, bin_by_band

NEAR_DEPTH = 1e-3
"""Pieces with an end at or before this camera depth (world units) are dropped."""


@dataclass(frozen=True)
class Ribbons:
    """Straight pieces; those of one hair follow each other end to end, which the drawing need not know."""

    start_world: Float32[np.ndarray, "m 3"]
    """One end, world units."""
    end_world: Float32[np.ndarray, "m 3"]
    """The other end."""
    width_world: Float32[np.ndarray, " m"]
    """Across."""
    opacity: Float32[np.ndarray, " m"]
    """Of what a piece covers, [0, 1]."""
    values: Float32[np.ndarray, "m c"]
    """What is drawn: colours, normals, anything."""

    def __len__(self) -> int:
        return len(self.opacity)


@dataclass(frozen=True)
class DrawnRibbons:
    """A picture of ribbons alone."""

    values: Float32[np.ndarray, "h w c"]
    """Values times alpha."""
    alpha: Float32[np.ndarray, "h w"]
    """Coverage, [0, 1]."""
    depth: Float32[np.ndarray, "h w"]
    """Mean camera z of what is drawn, world units; infinite where nothing is."""


def draw_ribbons(
    ribbons: Ribbons, camera: Cameras, surface_depth: Float32[np.ndarray, "h w"], *, slack: float = 0.0
) -> DrawnRibbons:
    """Ribbons as one camera sees them, without what surfaces hide.

    Args:
        ribbons: the pieces.
        camera: a batch of one.
        surface_depth: camera z of the nearest surface at each pixel's centre, infinite where there is none.
        slack: how far behind the surface a ribbon still shows, world units: hairs lie in what they cover.

    Raises:
        ValueError: more than one camera, or a depth of another size.
    """
    if len(camera) != 1:
        raise ValueError(f"draw_ribbons: expected one camera, got a batch of {len(camera)}")
    if surface_depth.shape != (camera.height, camera.width):
        size = (camera.height, camera.width)
        raise ValueError(f"draw_ribbons: expected depths of shape {size}, got {surface_depth.shape}")
    ends = _projected(ribbons, camera)
    middle = ends[:, 2] + ends[:, 5]
    order = np.argsort(middle, kind="stable")  # of inverse depths: far ones first
    order = order[(ends[order, 2] > 0) & (ends[order, 5] > 0)].astype(np.int64)
    half_px = (0.5 * float(camera.focal_px[0].mean()) * ribbons.width_world).astype(np.float64)
    reach = half_px * ends[:, [2, 5]].max(1) + 1.0
    low, high = ends[:, [1, 4]].min(1) - reach, ends[:, [1, 4]].max(1) + reach
    there = (high >= 0) & (low <= camera.height)
    first_row = np.where(there, np.clip(low, 0, camera.height - 1), 0).astype(np.int64)
    last_row = np.where(there, np.clip(high, 0, camera.height - 1), -1).astype(np.int64)
    start, members = bin_by_band(first_row[order], last_row[order], camera.height)
    with numba_pool(camera.height * camera.width):
        drawn = _draw(
            ends, half_px, ribbons.opacity, ribbons.values, start, order[members], surface_depth, slack,
        )  # fmt: skip
    values, alpha, depth = drawn
    return DrawnRibbons(values, alpha, np.where(alpha > 0, depth / np.maximum(alpha, 1e-9), np.inf).astype(np.float32))


def _projected(ribbons: Ribbons, camera: Cameras) -> Float[np.ndarray, "m 6"]:
    """Column, row and inverse depth of both ends; inverse depth 0 before the near plane."""
    T = camera.T_camera_world[0].numpy()
    focal, principal = camera.focal_px[0].numpy(), camera.principal_px[0].numpy()
    ends = np.zeros((len(ribbons), 6))
    for k, points in enumerate((ribbons.start_world, ribbons.end_world)):
        in_camera = points.astype(np.float64) @ T[:3, :3].T + T[:3, 3]
        ahead = in_camera[:, 2] > NEAR_DEPTH
        depth = np.where(ahead, in_camera[:, 2], 1.0)
        ends[:, 3 * k : 3 * k + 2] = focal * in_camera[:, :2] / depth[:, None] + principal
        ends[:, 3 * k + 2] = ahead / depth
    return ends


@numba.njit(cache=True, nogil=True)
@no_type_check
def strip_coverage(across_px: float, half_px: float) -> float:
    """Share of a pixel-wide window at a distance from the middle of a strip that the strip covers.

    Args:
        across_px: distance of the window's middle.
        half_px: half the strip's width.
    """
    return max(0.0, min(across_px + 0.5, half_px) - max(across_px - 0.5, -half_px))


@numba.njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _draw(ends, half_px, opacity, values, start, members, surface_depth, slack):
    height, width = surface_depth.shape
    channels = values.shape[1]
    out = np.zeros((height, width, channels), np.float32)
    alpha = np.zeros((height, width), np.float32)
    depth = np.zeros((height, width), np.float32)
    for band in numba.prange(len(start) - 1):
        first_row, end_row = band * BAND_ROWS, min((band + 1) * BAND_ROWS, height)
        for m in range(start[band], start[band + 1]):
            n = members[m]
            ax, ay, az, bx, by, bz = ends[n]
            dx, dy = bx - ax, by - ay
            length = np.sqrt(dx * dx + dy * dy)
            if length < 1e-6:
                continue
            dx, dy = dx / length, dy / length
            reach = half_px[n] * max(az, bz) + 1.0
            r0 = max(first_row, int(np.floor(min(ay, by) - reach)))
            r1 = min(end_row, int(np.ceil(max(ay, by) + reach)) + 1)
            c0 = max(0, int(np.floor(min(ax, bx) - reach)))
            c1 = min(width, int(np.ceil(max(ax, bx) + reach)) + 1)
            for row in range(r0, r1):
                py = row + 0.5 - ay
                for column in range(c0, c1):
                    px = column + 0.5 - ax
                    along = px * dx + py * dy
                    if along < 0 or along >= length:  # half open: chained pieces meet in no pixel twice
                        continue
                    inverse = az + (bz - az) * (along / length)
                    z = 1.0 / inverse
                    if z >= surface_depth[row, column] + slack:
                        continue
                    cover = strip_coverage(abs(py * dx - px * dy), half_px[n] * inverse)
                    if cover <= 0:
                        continue
                    a = opacity[n] * cover
                    for c in range(channels):
                        out[row, column, c] += a * (values[n, c] - out[row, column, c])
                    alpha[row, column] += a * (1 - alpha[row, column])
                    depth[row, column] += a * (z - depth[row, column])
    return out, alpha, depth

"""Walks over the shell along a flow field: the chart and the field as numba functions, and the field with its sway.

`cell_of` and `place_of` are `capsule.cell_coordinates` and `capsule.cell_rays` for single points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Float, Float32

from ...cameras import UNITS_PER_MM
from .. import capsule
from .flow_field import HairFlow

MM = UNITS_PER_MM
"""World units per millimetre."""
CHART = (capsule.CENTRE_Y, capsule.BOTTOM_Y, float(capsule.SPHERE_ROWS), float(capsule.ROWS), float(capsule.COLUMNS))
"""The chart's numbers, as kernels take them."""
_FINE = 4
"""Samples of the fine field per cell."""
_NOISE_FINE = 2
"""The same of noise, which is smooth."""
_WAVES = 24


@dataclass(frozen=True)
class SwayConfig:
    """How much hair departs from the smooth field, place by place."""

    broad_deg: float = 11.0
    """Standard deviation of the turn over `broad_mm`."""
    broad_mm: float = 45.0
    """Wavelength of the broad turn."""
    narrow_deg: float = 8.0
    """Standard deviation of the turn over `narrow_mm`."""
    narrow_mm: float = 18.0
    """Wavelength of the narrow turn."""
    orderly: tuple[float, float] = (0.35, 0.55)
    """Broad coherence from which hair sways less, and at which least."""
    orderly_sway: float = 0.35
    """What is left of all turns there: straight hair hangs straight."""
    least_wave_deg: float = 14.0
    """Hair whose seen directions differ by more than this from the smooth field is wavy."""
    most_wave_deg: float = 30.0
    """Most that counts beyond the least."""
    wave_share: float = 0.6
    """Amplitude of the waves, of what is beyond the least."""
    curly: tuple[float, float] = (0.6, 0.78)
    """Ratio of broad to fine coherence up to which hair curls, and above which it does not."""
    plain: tuple[float, float] = (0.3, 0.4)
    """Coherence from which the portrait is plain enough to tell, and at which it is."""
    curl_deg: float = 40.0
    """Least amplitude of the waves of hair that curls."""
    wave_mm: float = 16.0
    """Wavelength along strands."""
    hanging_wave_mm: float = 26.0
    """The same where hair hangs."""


def swaying_field(flow: HairFlow, sway: SwayConfig, rng: np.random.Generator) -> Float32[np.ndarray, "a b 4"]:
    """The flow on a finer grid (direction, radius), swaying gently, and waving where the portrait's hair does.

    Args:
        flow: of the shell.
        sway: how much.
        rng: draws the noise.

    Returns:
        Unit direction (3) and radius (1); `_FINE` samples per cell, columns wrap, both end rows are included.
    """
    points = refined(flow.points_world, _NOISE_FINE)
    coherence, wave_rad, curl = 0.0, 0.0, 0.0
    if flow.look is not None:
        coherence, wave_rad = flow.look.broad_coherence, flow.look.wave_rad
        curl = float(np.interp(coherence / flow.look.coherence, sway.curly, (1, 0)))
        curl *= float(np.interp(flow.look.coherence, sway.plain, (0, 1)))
    rad = math.radians(np.interp(coherence, sway.orderly, (1, sway.orderly_sway)))
    turn = sway.broad_deg * rad * smooth_noise(points, sway.broad_mm * MM, rng)
    turn += sway.narrow_deg * rad * smooth_noise(points, sway.narrow_mm * MM, rng)
    wave_deg = math.degrees(wave_rad) - sway.least_wave_deg
    amplitude = max(sway.wave_share * rad * float(np.clip(wave_deg, 0, sway.most_wave_deg)), curl * sway.curl_deg * rad)
    if amplitude > 0:
        length = (sway.hanging_wave_mm if flow.hanging else sway.wave_mm) * MM
        phase = 2.2 * smooth_noise(points, 22 * MM, rng) + 1.2 * smooth_noise(points, 9 * MM, rng)
        way = refined(flow.from_source[..., None], _NOISE_FINE)[..., 0]
        turn += amplitude * math.sqrt(2) * np.sin(2 * math.pi / length * way + phase)
    radius = np.linalg.norm(flow.points_world - capsule.grid_rays()[0], axis=-1, keepdims=True)
    size = (_FINE * capsule.COLUMNS, _FINE * (capsule.ROWS - 1) + 1)
    turn = cv2.resize(turn, size, interpolation=cv2.INTER_LINEAR)[..., None]
    fine = refined(np.concatenate([flow.direction_world, flow.normals_world, radius], axis=-1), _FINE)
    direction, normal = fine[..., :3], fine[..., 3:6]
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    direction = direction - normal * (direction * normal).sum(-1, keepdims=True)
    direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-6)
    direction = np.cos(turn) * direction + np.sin(turn) * np.cross(normal, direction)
    return np.ascontiguousarray(np.concatenate([direction, fine[..., 6:]], axis=-1), dtype=np.float32)


def refined(grid: Float[np.ndarray, "rows columns k"], factor: int) -> Float32[np.ndarray, "a b k"]:
    """Values of the capsule grid at `factor` samples per cell, columns wrapped, last row included."""
    wide = np.concatenate([grid, grid[:, :1]], axis=1).astype(np.float32)
    row = np.arange(factor * (capsule.ROWS - 1) + 1, dtype=np.float32) / factor
    column = np.arange(factor * capsule.COLUMNS, dtype=np.float32) / factor
    x, y = np.meshgrid(column, row)
    parts = [wide[..., k : k + 4] for k in range(0, wide.shape[2], 4)]  # cv2 takes up to four channels
    fine = [cv2.remap(np.ascontiguousarray(part), x, y, cv2.INTER_LINEAR) for part in parts]
    return np.concatenate([part.reshape(*x.shape, -1) for part in fine], axis=-1)


def smooth_noise(
    points_world: Float[np.ndarray, "a b 3"], wavelength: float, rng: np.random.Generator
) -> Float32[np.ndarray, "a b"]:
    """A random function of space at points: about this wavelength, mean 0, variance 1."""
    waves = rng.standard_normal((_WAVES, 3))
    waves *= 2 * math.pi / wavelength / np.linalg.norm(waves, axis=1, keepdims=True)
    waves /= rng.uniform(0.7, 1.6, (_WAVES, 1))
    phase = rng.uniform(0, 2 * math.pi, _WAVES)
    angles = points_world.reshape(-1, 3).astype(np.float32) @ waves.T.astype(np.float32) + phase.astype(np.float32)
    total = np.cos(angles).sum(-1) * np.float32(math.sqrt(2 / _WAVES))
    return total.reshape(points_world.shape[:-1])


def draw_roots(
    points_world: Float[np.ndarray, "rows columns 3"],
    density: Float[np.ndarray, "rows columns"],
    count: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n 2"]:
    """Fractional cells, as dense over the surface as `density` says; their number is `count`."""
    share = cell_areas(points_world) * density
    share[-1] = 0
    cell = rng.choice(share.size, count, p=(share / share.sum()).ravel())
    row, column = np.divmod(cell, capsule.COLUMNS)
    return np.stack([row + rng.random(count), (column + rng.random(count)) % capsule.COLUMNS], axis=1)


def cell_areas(points_world: Float[np.ndarray, "rows columns 3"]) -> Float[np.ndarray, "rows columns"]:
    """Area of the surface between each grid point, its right and its lower neighbour; 0 for the last row."""
    right, below = np.roll(points_world, -1, axis=1) - points_world, np.zeros_like(points_world)
    below[:-1] = points_world[1:] - points_world[:-1]
    right[0] = right[1]  # at the pole all points are one
    return np.linalg.norm(np.cross(right, below), axis=-1)


def at_cells(grid: Float[np.ndarray, "rows columns"], cells: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """Bilinear values of a grid at fractional cells."""
    row = np.clip(cells[:, 0], 0, capsule.ROWS - 1.001)
    i, j = row.astype(int), cells[:, 1].astype(int) % capsule.COLUMNS
    u, v, k = row - i, cells[:, 1] - np.floor(cells[:, 1]), (j + 1) % capsule.COLUMNS
    upper, lower = grid[i, j] * (1 - v) + grid[i, k] * v, grid[i + 1, j] * (1 - v) + grid[i + 1, k] * v
    return upper * (1 - u) + lower * u


@numba.njit(cache=True, nogil=True)
@no_type_check
def cell_of(x, y, z, chart):
    """Fractional row and column of a point."""
    centre_y, bottom_y, sphere_rows, rows, columns = chart
    height = y - centre_y
    horizontal = math.sqrt(x * x + z * z)
    column = math.atan2(x, z) * (columns / (2 * math.pi))
    if column < 0:
        column += columns
    if height >= 0:
        row = sphere_rows * (1 - math.atan2(height, horizontal) / (math.pi / 2))
    else:
        row = sphere_rows + height / (bottom_y - centre_y) * (rows - 1 - sphere_rows)
    return row, column


@numba.njit(cache=True, nogil=True)
@no_type_check
def ray_of(row, column, chart):
    """Height of a cell's origin on the axis and its outward direction."""
    centre_y, bottom_y, sphere_rows, rows, columns = chart
    azimuth = column * (2 * math.pi / columns)
    if row < sphere_rows:
        elevation = math.pi / 2 * (1 - row / sphere_rows)
        level = math.cos(elevation)
        return centre_y, level * math.sin(azimuth), math.sin(elevation), level * math.cos(azimuth)
    origin = centre_y + (row - sphere_rows) / (rows - 1 - sphere_rows) * (bottom_y - centre_y)
    return origin, math.sin(azimuth), 0.0, math.cos(azimuth)


@numba.njit(cache=True, nogil=True)
@no_type_check
def field_at(field, row, column, chart):
    """Unit direction and radius at a fractional cell, bilinear."""
    height, width = field.shape[0], field.shape[1]
    r = min(max(row * (height - 1) / (chart[3] - 1), 0.0), height - 1.001)
    c = column * width / chart[4]
    i, j = int(r), int(c)
    u, v = r - i, c - j
    j %= width
    k = (j + 1) % width
    w00, w01, w10, w11 = (1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v
    tx = field[i, j, 0] * w00 + field[i, k, 0] * w01 + field[i + 1, j, 0] * w10 + field[i + 1, k, 0] * w11
    ty = field[i, j, 1] * w00 + field[i, k, 1] * w01 + field[i + 1, j, 1] * w10 + field[i + 1, k, 1] * w11
    tz = field[i, j, 2] * w00 + field[i, k, 2] * w01 + field[i + 1, j, 2] * w10 + field[i + 1, k, 2] * w11
    radius = field[i, j, 3] * w00 + field[i, k, 3] * w01 + field[i + 1, j, 3] * w10 + field[i + 1, k, 3] * w11
    length = math.sqrt(tx * tx + ty * ty + tz * tz) + 1e-9
    return tx / length, ty / length, tz / length, radius


@numba.njit(cache=True, nogil=True)
@no_type_check
def sideways(nx, ny, nz, tx, ty, tz):
    """Unit vector across a direction, in the surface whose normal is n."""
    bx, by, bz = ny * tz - nz * ty, nz * tx - nx * tz, nx * ty - ny * tx
    length = math.sqrt(bx * bx + by * by + bz * bz) + 1e-9
    return bx / length, by / length, bz / length

"""Single strands over and beyond the shell: what makes the outline, the nape, the fringe and the ends soft.

Strands root in the shell, follow its flow a little above it, and hang free for a short way where hair ends. They are
as many as the eye needs, most where hair ends and hardly any over what the portrait shows: its pixels have their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Float, Float32, UInt8

from ...numba_pool import numba_pool
from ...ribbon_raster import Ribbons
from .. import capsule
from .flow_field import HairFlow
from .locks import LockConfig, disorder_of, typical_length
from .tracing import CHART, MM, cell_areas, cell_of, draw_roots, field_at, ray_of, sideways, swaying_field

_ON_SHELL, _FREE = 1, 2
_MOST_STRETCH = 2.0
"""Pieces that steep walls of the shell draw out further than this are left out."""


@dataclass(frozen=True)
class StrandConfig:
    """How strands grow."""

    per_cm2: float = 3.0
    """Strands per square centimetre of hair of `usual_length_mm`; longer ones cover more and are fewer."""
    usual_length_mm: float = 25.0
    """See `per_cm2`."""
    more_at_ends: float = 4.0
    """How much denser they stand where hair ends."""
    most_seen_share: float = 0.03
    """Of their density, what is left over what the portrait shows."""
    length_of_lock: float = 0.7
    """Typical length, of the typical lock's."""
    lengths_mm: tuple[float, float] = (6.0, 55.0)
    """Limits of it."""
    piece_mm: float = 2.6
    """Length of a straight piece."""
    pieces: tuple[int, int] = (5, 16)
    """Limits of their number."""
    lift_mm: float = 0.5
    """Mean height over the shell."""
    flyaways: float = 0.02
    """Share of strands that stand off further, by `flyaway_lift_mm` on average."""
    flyaway_lift_mm: float = 1.6
    """See `flyaways`."""
    turn_deg: float = 14.0
    """Standard deviation of their angle to the field, in orderly hair."""
    free_of_lock: float = 0.2
    """Mean length that hangs free where hair ends, of the typical lock's length."""
    free_mm: tuple[float, float] = (1.5, 6.0)
    """Limits of the mean; no strand hangs free for more than twice as long."""
    free_before_face: float = 0.15
    """The same before the face, of that."""
    width_mm: float = 0.4
    """Width: thinner than a pixel, thicker than a hair."""
    opacity: float = 0.75
    """Of a strand's middle; root and tip fade."""
    shade_of_octave: float = 2.5
    """Standard deviation of log brightness from strand to strand, of that of the portrait's second octave."""
    shades: tuple[float, float] = (0.1, 0.3)
    """Limits of it; the first where too little hair is seen."""
    seen_cells: int = 13
    """What the portrait shows keeps strands away within half so many cells: its outline is known."""


@dataclass(frozen=True)
class HairStrands:
    """Strands as rows of points from root to tip."""

    points_world: Float32[np.ndarray, "n k 3"]
    """World units."""
    normals_world: Float32[np.ndarray, "n k 3"]
    """Unit outward directions."""
    rgb_unit: Float32[np.ndarray, "n k 3"]
    """Colour, sRGB."""
    opacity: Float32[np.ndarray, "n k"]
    """Of the piece that begins at each point, 0 beyond the end, [0, 1]."""
    width_world: float
    """Of all."""

    @staticmethod
    def none() -> HairStrands:
        """No strands."""
        nothing = np.zeros((0, 2, 3), np.float32)
        return HairStrands(nothing, nothing, nothing, np.zeros((0, 2), np.float32), 0.0)

    def ribbons(self) -> Ribbons:
        """The pieces for `draw_ribbons`; values are colour and normal."""
        there = self.opacity[:, :-1] > 0
        values = np.concatenate([self.rgb_unit, self.normals_world], axis=-1)[:, :-1][there]
        start, end = self.points_world[:, :-1][there], self.points_world[:, 1:][there]
        width = np.full(len(start), self.width_world, np.float32)
        return Ribbons(start, end, width, self.opacity[:, :-1][there], values)


def grow_strands(
    flow: HairFlow,
    shell_rgb: UInt8[np.ndarray, "h w 3"],
    shell_confidence: Float32[np.ndarray, "h w"],
    *,
    seed: int = 0,
    config: StrandConfig | None = None,
    locks: LockConfig | None = None,
) -> HairStrands:
    """Strands of a painted shell.

    Args:
        flow: of the shell.
        shell_rgb: its tile.
        shell_confidence: how far the portrait shows the tile's texels.
        seed: of the strands; that of the locks lets them follow the same field.
        config: how they grow.
        locks: how the tile was painted.
    """
    config, locks = config or StrandConfig(), locks or LockConfig()
    rng = np.random.default_rng(seed)
    field = swaying_field(flow, locks.sway, rng)
    density = _density(flow, shell_confidence, config)
    lock_mm = typical_length(flow, locks) / MM
    length_mm = float(np.clip(config.length_of_lock * lock_mm, *config.lengths_mm))
    per_cm2 = config.per_cm2 * min(1.0, math.sqrt(config.usual_length_mm / length_mm))
    count = int(per_cm2 * float((cell_areas(flow.points_world) * density).sum()) / (10 * MM) ** 2)
    if count == 0:
        return HairStrands.none()
    pieces = int(np.clip(length_mm / config.piece_mm, *config.pieces))
    roots = draw_roots(flow.points_world, density, count, rng)
    lengths = length_mm * np.exp(rng.normal(0, 0.3, count)) * MM
    scale = float(np.clip(lock_mm / 40, 0.35, 1.2))
    lift_mm = rng.exponential(config.lift_mm, count)
    lift_mm += (rng.random(count) < config.flyaways) * rng.exponential(config.flyaway_lift_mm, count)
    turn = rng.normal(0, math.radians(config.turn_deg) * math.sqrt(disorder_of(flow.look, locks)[0]), count)
    points, normals = np.zeros((2, count, pieces + 1, 3), np.float32)
    state = np.zeros((count, pieces + 1), np.uint8)
    with numba_pool(count * pieces * 3):
        _grow(
            field, flow.thickness, roots, lengths, scale * MM * lift_mm, turn, points, normals, state, 0.5 * MM, CHART
        )

    hanging = np.cumsum(state == _FREE, axis=1) * (lengths / pieces)[:, None]
    free_mm = float(np.clip(config.free_of_lock * lock_mm, *config.free_mm)) * np.minimum(rng.exponential(1, count), 2)
    most = np.where(_before_face(points), config.free_before_face, 1.0) * free_mm[:, None] * MM
    share = np.arange(pieces + 1) / pieces
    opacity = config.opacity * np.clip(share / 0.12 + 0.3, 0, 1) * np.clip((1.02 - share) / 0.3, 0.15, 1)
    there = (hanging < most) & (share < 1)
    there[:, :-1] &= hanging[:, 1:] < most[:, 1:]  # a piece that ends too far out is left out as well
    stretched = np.linalg.norm(np.diff(points, axis=1), axis=-1) > _MOST_STRETCH * (lengths / pieces)[:, None]
    there[:, :-1] &= ~stretched
    contrast = 0.0 if flow.look is None else float(flow.look.octaves[1])
    shade = float(np.clip(config.shade_of_octave * contrast, *config.shades))
    colour = _colours(points, state, roots, shell_rgb, rng.normal(0.02, shade, count))
    return HairStrands(points, normals, colour, np.where(there, opacity, 0).astype(np.float32), config.width_mm * MM)


def _density(
    flow: HairFlow, confidence: Float32[np.ndarray, "h w"], config: StrandConfig
) -> Float[np.ndarray, "rows columns"]:
    """Of strands, of the usual one."""
    shown = (flow.thickness > 1.0 * MM).astype(np.float64)
    bare = np.concatenate([1 - shown] * 3, axis=1)
    near_end = cv2.blur(bare, (9, 9))[:, capsule.COLUMNS : 2 * capsule.COLUMNS]
    seen = cv2.resize(confidence, (capsule.COLUMNS, capsule.ROWS), interpolation=cv2.INTER_AREA)
    wide = cv2.dilate(np.concatenate([seen] * 3, axis=1), np.ones((config.seen_cells,) * 2, np.uint8))
    seen = wide[:, capsule.COLUMNS : 2 * capsule.COLUMNS].astype(np.float64)
    seen = capsule.smooth_over_columns(seen, 2.5, 2.5)
    made = np.maximum(1 - 1.3 * seen, config.most_seen_share)
    return shown * (1 - flow.headgear) * (1 + config.more_at_ends * np.clip(2 * near_end, 0, 1)) * made


def _before_face(points_world: Float32[np.ndarray, "n k 3"]) -> np.ndarray:
    return (points_world[..., 2] > 0.03) & (points_world[..., 1] < 0.06)


def _colours(
    points: Float32[np.ndarray, "n k 3"],
    state: UInt8[np.ndarray, "n k"],
    roots: Float[np.ndarray, "n 2"],
    shell_rgb: UInt8[np.ndarray, "h w 3"],
    shade: Float[np.ndarray, " n"],
) -> Float32[np.ndarray, "n k 3"]:
    """The tile's colour at the root mixed with that below the strand, each strand a little lighter or darker."""
    tile = cv2.GaussianBlur(shell_rgb, (0, 0), 0.8).astype(np.float32) / 255
    height, width = tile.shape[:2]

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        i = np.clip(row, 0, capsule.ROWS - 1) * ((height - 1) / (capsule.ROWS - 1)) + 0.5
        return tile[i.astype(int), (column * ((width - 1) / capsule.COLUMNS) + 0.5).astype(int) % (width - 1)]

    row, column, _ = capsule.cell_coordinates(points.astype(np.float64))
    below = np.where(state == _FREE, 0.0, 0.45)[..., None]
    colour = at(roots[:, :1], roots[:, 1:]) * (1 - below) + at(row, column) * below
    return np.clip(colour * np.exp(shade)[:, None, None], 0, 1).astype(np.float32)


@numba.njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _grow(field, thickness, roots, lengths, lift, turn, points, normals, state, least, chart):
    """Points of strands: they start in the shell, rise over it and lie on it, or hang free where it ends."""
    count = points.shape[1]
    steps = 3
    rows, columns = chart[3], chart[4]
    for m in numba.prange(len(roots)):
        row, column = roots[m, 0], roots[m, 1]
        tx, ty, tz, radius = field_at(field, row, column, chart)
        origin, nx, ny, nz = ray_of(row, column, chart)
        x, y, z = radius * nx, origin + radius * ny, radius * nz
        c, s = math.cos(turn[m]), math.sin(turn[m])
        step = lengths[m] / ((count - 1) * steps)
        free, height = False, 0.0
        vx, vy, vz = tx, ty, tz
        for k in range(count):
            t = k / (count - 1)
            if not free:  # out of the shell, up, and down again towards the tip
                height = lift[m] * (min(1.0, 0.1 + 2.2 * t) - 0.55 * max(0.0, t - 0.6) / 0.4)
                height -= 1.6 * least * max(0.0, 1 - 8 * t)
            points[m, k, 0], points[m, k, 1], points[m, k, 2] = x + height * nx, y + height * ny, z + height * nz
            normals[m, k, 0], normals[m, k, 1], normals[m, k, 2] = nx, ny, nz
            state[m, k] = _FREE if free else _ON_SHELL
            for _ in range(steps):
                if free:
                    vy -= 0.05
                    length = math.sqrt(vx * vx + vy * vy + vz * vz)
                    vx, vy, vz = vx / length, vy / length, vz / length
                else:
                    bx, by, bz = sideways(nx, ny, nz, tx, ty, tz)
                    vx, vy, vz = c * tx + s * bx, c * ty + s * by, c * tz + s * bz
                x, y, z = x + step * vx, y + step * vy, z + step * vz
                if free:
                    continue
                row, column = cell_of(x, y, z, chart)
                if row > rows - 1.5 or thickness[int(row + 0.5), int(column + 0.5) % int(columns)] < least:
                    free = True
                    continue
                tx, ty, tz, radius = field_at(field, row, column, chart)
                origin, nx, ny, nz = ray_of(row, column, chart)
                x, y, z = radius * nx, origin + radius * ny, radius * nz

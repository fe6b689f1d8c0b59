"""Locks of hair painted along the flow, in millimetres, over the whole shell: the pattern of brightness and tint.

Locks of several widths lie over each other as roof tiles do: those that start far from the hair's source first, so
that tips lie over roots. A lock is walked along the field (`tracing`) as a chain of short pieces. Every texel near a
piece finds its place along and across it from true distances, so that nothing depends on how the tile is stretched.

The tile is cut into bands of rows; each is painted on its own, in the order of the locks, so that the result does not
depend on the number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from ...head_model.anatomy import NAPE_Y_CM, world_height
from ...numba_pool import numba_pool
from ...row_bands import bin_by_band
from .. import capsule
from .flow_field import HairFlow
from .lock_kernels import fill, reach_of, trace
from .orientation import SeenHair
from .tracing import (
    CHART,
    MM,
    SwayConfig,
    at_cells,
    cell_areas,
    draw_roots,
    swaying_field,
)

_EVENLY = math.sqrt(3)
"""Half the range of an even distribution of standard deviation 1: no lock is much brighter than all others."""
_MOST_TURN = math.radians(65)
"""No lock lies across the others."""
_STUBBLE, _USUAL_THICKNESS = 0.004, 0.01
"""Hair up to the first is no measure of locks; the second is taken where there is nothing else, world units."""
_SUNK = 0.018
"""Cells of the shell that hide deeper below the skull are not shown, world units."""


@dataclass(frozen=True)
class LockPass:
    """Locks of about one width."""

    width: float
    """Of the typical lock's width."""
    length: float
    """Of the typical lock's length."""
    coverage: float
    """How many times they cover the surface."""
    opacity: float
    """Of the most opaque."""
    turn_deg: float
    """Standard deviation of the angle to the field."""
    shade: float
    """Standard deviation of brightness from lock to lock, logarithm of a factor."""
    fibres: float
    """Contrast of the single strands in them."""
    unruly: float
    """How much of the portrait's disorder they take on."""


@dataclass(frozen=True)
class LockConfig:
    """How hair is drawn."""

    sway: SwayConfig = field(default_factory=SwayConfig)
    """Departures of the field."""
    passes: tuple[LockPass, ...] = (
        LockPass(2.4, 1.2, 2.4, 1.0, 5.0, 0.12, 0.6, 0.5),
        LockPass(1.0, 1.0, 2.6, 0.85, 8.0, 0.18, 1.3, 0.8),
        LockPass(0.4, 0.8, 1.6, 0.75, 12.0, 0.22, 0.8, 0.6),
    )
    """From wide to narrow; later ones lie on top."""
    length_of_thickness: float = 1.7
    """Length of the typical lock, of the hair's median thickness."""
    hanging_length_of_thickness: float = 3.2
    """The same where hair hangs."""
    longer: float = 2.1
    """Factor on lengths where the portrait's hair is orderly: locks can be followed far."""
    hanging_longer: float = 1.6
    """The same where hair hangs."""
    lengths_mm: tuple[float, float] = (6.0, 110.0)
    """Limits of it."""
    width_of_length: float = 0.06
    """Width of the typical lock, of its length."""
    widths_mm: tuple[float, float] = (1.1, 2.2)
    """Limits of it."""
    least_width_mm: float = 0.8
    """Nothing narrower is painted: a texel is about half a millimetre."""
    sheen: float = 0.22
    """Brightness of the highlight, logarithm of a factor; light comes from above."""
    orderly: tuple[float, float] = (0.35, 0.65)
    """Coherence from which hair begins to be orderly, and at which it is."""
    coherences: tuple[float, ...] = (0.15, 0.35, 0.5, 0.75)
    """Coherences of the portrait's hair, for the two tables below."""
    turns: tuple[float, ...] = (4.0, 2.5, 1.6, 1.0)
    """Factors on the angles of locks."""
    breaks: tuple[float, ...] = (2.0, 0.8, 0.0, 0.0)
    """How much strands change along themselves."""
    broken_contrast: tuple[float, float] = (0.025, 0.05)
    """Strands change along themselves only where the portrait's finest octave is this strong, not where it is noise."""


@dataclass(frozen=True)
class LockPattern:
    """What the locks look like, before any colour."""

    shade: Float32[np.ndarray, "h w"]
    """Brightness, logarithm of a factor of no fixed scale."""
    tints: Float32[np.ndarray, "h w 2"]
    """Two independent numbers per lock, about standard normal."""


class _Chains(NamedTuple):
    """Locks as chains of nodes; the nodes of all locks follow each other."""

    start: Int[np.ndarray, " m1"]
    """First node of each lock, and their number."""
    nodes: Float32[np.ndarray, "n 8"]
    """Position (3), unit vector across (3), fractional row and column of the tile (2)."""


def _typical_thickness(flow: HairFlow) -> float:
    """Median thickness of the hair that is more than a stubble, world units."""
    shown = flow.thickness[flow.thickness > _STUBBLE]
    return float(np.median(shown)) if len(shown) else _USUAL_THICKNESS


def typical_length(flow: HairFlow, config: LockConfig) -> float:
    """Length of the typical lock, world units."""
    factor = config.hanging_length_of_thickness if flow.hanging else config.length_of_thickness
    return float(np.clip(factor * _typical_thickness(flow), config.lengths_mm[0] * MM, config.lengths_mm[1] * MM))


def disorder_of(look: SeenHair | None, config: LockConfig) -> tuple[float, float]:
    """By how much locks turn more than usual, and how much strands change along themselves."""
    coherence = 0.5 if look is None else look.coherence
    turns, breaks = (np.interp(coherence, config.coherences, table) for table in (config.turns, config.breaks))
    contrast = config.broken_contrast[0] if look is None else float(look.octaves[0])
    return float(turns), float(breaks * np.interp(contrast, config.broken_contrast, (0, 1)))


def paint_locks(
    flow: HairFlow,
    shape: tuple[int, int],
    seen_shade: Float32[np.ndarray, "h w"],
    seen_weight: Float32[np.ndarray, "h w"],
    rng: np.random.Generator,
    config: LockConfig | None = None,
) -> LockPattern:
    """Paint the shell's tile with locks.

    Args:
        flow: of the shell.
        shape: rows and columns of the tile; the last column repeats the first.
        seen_shade: brightness of detail in the portrait, logarithm of a factor: locks that start there go on with it.
        seen_weight: where it is known, [0, 1].
        rng: draws all.
        config: how.
    """
    config = config or LockConfig()
    height, width = shape
    field_ = swaying_field(flow, config.sway, rng)
    points = _tile_points(flow, shape)
    length = typical_length(flow, config)
    lock_width = float(np.clip(config.width_of_length * length, config.widths_mm[0] * MM, config.widths_mm[1] * MM))
    typical = _typical_thickness(flow)
    longer = 1.0
    if flow.look is not None:
        most = config.hanging_longer if flow.hanging else config.longer
        longer = float(np.interp(flow.look.coherence, config.orderly, (1, most)))
    disorder, breaks = disorder_of(flow.look, config)
    near_source = np.exp(-(((flow.from_source - flow.from_source.min()) / (9 * MM)) ** 2))
    # the scalp below the shell's edge is painted with them, what lies further down is not needed
    needed = (flow.thickness > -_SUNK) | (flow.points_world[..., 1] > world_height(NAPE_Y_CM[0]))
    density = np.where(needed, 1 + 8 * near_source, 0)
    area = float((cell_areas(flow.points_world) * needed).sum())
    shade, tints = np.zeros(shape, np.float32), np.zeros((*shape, 2), np.float32)
    for row in config.passes:
        wide, long = max(lock_width * row.width, config.least_width_mm * MM), length * row.length * longer
        count = int(row.coverage * area / (0.6 * long * wide))
        roots = draw_roots(flow.points_world, density, count, rng)
        way = at_cells(flow.from_source, roots)
        order = np.argsort(-(way + rng.normal(0, 0.4 * long, count)), kind="stable")
        roots, way = roots[order], way[order]
        local = np.clip(at_cells(np.maximum(flow.thickness, 0), roots) / typical, 0.45, 1.4)
        lengths = long * local * np.exp(rng.normal(0, 0.25, count))
        widths = wide * np.exp(rng.normal(0, 0.4, count)) * np.clip(lengths / long, 0.6, 1.2)
        spread = math.radians(row.turn_deg * (1 + row.unruly * (disorder - 1)))
        turn = np.clip(spread * rng.standard_normal((count, 2)), -_MOST_TURN, _MOST_TURN)
        chains = trace_locks(field_, roots, lengths, np.clip(0.6 * widths, 1.2 * MM, 6 * MM), turn, shape)
        chance = rng.uniform(-_EVENLY, _EVENLY, count)
        brightness = row.shade * _carried_shade(chains, chance, seen_shade, seen_weight)
        fade = np.where(way < 10 * MM + flow.from_source.min(), 1.0, 6.0) * MM
        styles = np.stack(
            [
                lengths, widths, brightness, row.opacity * rng.uniform(0.75, 1.0, count),
                np.minimum(0.22, fade / lengths), np.full(count, row.fibres), *rng.standard_normal((2, count)),
            ],
            axis=1,
        ).astype(np.float32)  # fmt: skip
        layer = np.zeros(shape, np.float32)  # narrow locks lie in wide ones and share their shade
        sheen = config.sheen / len(config.passes)
        fill_locks(chains, styles, rng.integers(0, 1 << 20, count), points, breaks, sheen, layer, tints)
        shade += layer / (1 + breaks) if row.width > 1 else layer  # broken strands lie in no wide locks
    return LockPattern(shade, tints)


def _tile_points(flow: HairFlow, shape: tuple[int, int]) -> Float32[np.ndarray, "h w 3"]:
    """World points of the tile's texels."""
    radius = np.linalg.norm(flow.points_world - capsule.grid_rays()[0], axis=-1)
    wide = np.concatenate([radius, radius[:, :1]], axis=1).astype(np.float32)
    row = np.arange(shape[0], dtype=np.float32) * ((capsule.ROWS - 1) / (shape[0] - 1))
    column = np.arange(shape[1], dtype=np.float32) * (capsule.COLUMNS / (shape[1] - 1))
    x, y = np.meshgrid(column, row)
    fine = cv2.remap(wide, x, y, cv2.INTER_LINEAR)
    origins, directions = capsule.cell_rays(y, x)
    return (origins + directions * fine[..., None]).astype(np.float32)


def trace_locks(
    field_: Float32[np.ndarray, "a b 4"],
    roots: Float[np.ndarray, "m 2"],
    lengths: Float[np.ndarray, " m"],
    steps: Float[np.ndarray, " m"],
    turn: Float[np.ndarray, "m 2"],
    shape: tuple[int, int],
) -> _Chains:
    """Walk from the roots along the field.

    Args:
        field_: direction and radius.
        roots: fractional cells.
        lengths: of the locks, world units.
        steps: about the length of a piece.
        turn: angle to the field in the middle of the lock, and how it changes to its tip, radians.
        shape: of the tile.
    """
    pieces = np.maximum(2, np.ceil(lengths / steps)).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(pieces + 1)])
    nodes = np.zeros((int(start[-1]), 8), np.float32)
    with numba_pool(len(nodes)):
        trace(field_, roots, lengths, turn, start, nodes, shape[0], shape[1], CHART)
    return _Chains(start, nodes)


def _carried_shade(
    chains: _Chains,
    chance: Float[np.ndarray, " m"],
    seen_shade: Float32[np.ndarray, "h w"],
    seen_weight: Float32[np.ndarray, "h w"],
) -> Float[np.ndarray, " m"]:
    """Brightness of each lock, about standard normal: what the portrait shows along it, chance elsewhere."""
    height, width = seen_weight.shape
    i = np.clip(np.rint(chains.nodes[:, 6]), 0, height - 1).astype(int)
    j = np.rint(chains.nodes[:, 7]).astype(int) % (width - 1)
    weight = seen_weight[i, j].astype(np.float64)
    first = chains.start[:-1]
    mass = np.add.reduceat(weight, first)
    mean = np.add.reduceat(weight * seen_shade[i, j], first) / np.maximum(mass, 1e-6)
    share = np.clip(2.5 * mass / np.diff(chains.start), 0, 1)
    known = share > 0.5
    spread = float(mean[known].std()) if known.sum() > 20 else 0.0
    if not spread > 1e-6:
        return chance
    return share * np.clip(mean / spread, -_EVENLY, _EVENLY) + np.sqrt(1 - share**2) * chance


def fill_locks(
    chains: _Chains,
    styles: Float32[np.ndarray, "m 8"],
    seeds: Int[np.ndarray, " m"],
    points_world: Float32[np.ndarray, "h w 3"],
    breaks: float,
    sheen: float,
    shade: Float32[np.ndarray, "h w"],
    tints: Float32[np.ndarray, "h w 2"],
) -> None:
    """Paint locks over a pattern, in their order, in place.

    Args:
        chains: the locks.
        styles: length, width, brightness, opacity, share of the root's fade, contrast of fibres, tints (2).
        seeds: of the fibres.
        points_world: of the texels.
        breaks: how much strands change along themselves.
        sheen: brightness of the highlight.
        shade: brightness so far.
        tints: tints so far.
    """
    height, width = shade.shape
    reach = reach_of(chains.nodes, chains.start, styles, height, width, CHART)
    start, members = bin_by_band(reach[:, 0], reach[:, 1], height)
    lock_of = np.repeat(np.arange(len(styles), dtype=np.int32), np.diff(chains.start))
    with numba_pool(len(chains.nodes)):
        fill(
            chains.nodes, chains.start, lock_of, styles, seeds.astype(np.int64), reach, start, members,
            points_world, breaks, sheen, shade, tints,
        )  # fmt: skip
    shade[:, -1], tints[:, -1] = shade[:, 0], tints[:, 0]

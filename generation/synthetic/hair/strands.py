"""Hair as strands: grown over the scalp by cut, or taken from an asset and put on another head.

A strand is a row of points from root to tip. Growth follows a direction that mixes the comb's direction on this part of
the head with gravity, and slides along skin and cloth at a distance that grows from the root: that distance is the
hair's volume.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from ...cameras import UNITS_PER_CM as CM
from ...head_model.anatomy import centimetres, ramp, world_units
from ...prior import capsule
from ..bodies.head_surface import HeadSurface
from ..composed_recipe import HairRecipe
from ..parts import unit, world_from_asset
from . import hair_zones as zones
from .cuts import Cut
from .haircuts import cut_named

POINTS = 14
"""Points per strand."""


@dataclass(frozen=True)
class Strands:
    """Hairs as rows of points."""

    points: Float[np.ndarray, "s p 3"]
    """World units, root first."""
    widths: Float[np.ndarray, " s"]
    """Of the ribbons, world units."""


def grow_cut(
    surface: HeadSurface, hair: HairRecipe, rng: np.random.Generator, *, flat_above_y: float | None = None
) -> Strands:
    """Strands of a cut, named or drawn, on a head.

    Args:
        hair: cut, length, volume, curl, parting, fringe, wetness, mess.
        flat_above_y: above this height, centimetres, hair lies close to the skin (under a hat).
    """
    cut = cut_named(hair.name)
    weight = zones.scalp_weight(surface.rest_cm, surface.is_ear) * cut.kept_share(surface.rest_cm)
    roots, normals, rest = draw_roots(surface, weight, cut.count, rng)
    n = len(roots)
    top = ramp(rest[:, 1], *zones.TOP_Y_CM)
    back = ramp(rest[:, 2], *zones.BACK_Z_CM) * (1 - top)
    side = 1 - top - back
    length = (top * cut.lengths[0] + side * cut.lengths[1] + back * cut.lengths[2]) * hair.length
    length *= 1 - cut.fade * ramp(rest[:, 1], *zones.FADE_Y_CM) * (1 - top)
    if cut.short_below_y is not None:
        length = np.where(rest[:, 1] < cut.short_below_y, np.minimum(length, cut.short_cm), length)
    length *= np.exp(rng.normal(0, 0.06 + 0.12 * hair.messy, n))
    if cut.layers > 0:
        length *= 1 - cut.layers * rng.random(n)
    forelock = (rest[:, 2] > zones.FORELOCK_Z_CM) & (rest[:, 1] > zones.FORELOCK_Y_CM)
    forelock &= np.abs(rest[:, 0]) < cut.fringe_half_cm
    fringed = forelock & (rng.random(n) < max(hair.fringe, cut.fringe))
    fringed &= cut.fringe > 0 or cut.comb not in ("radial", "tie", "up")
    length = np.where(fringed, np.minimum(length, cut.fringe_cm + rng.normal(0, 0.4, n)), length)
    volume = cut.volume * hair.volume * (1 - 0.5 * hair.wet)
    layer = rng.random(n) ** 0.7
    margin_tip = (0.15 + volume * (1 + (cut.side_volume - 1) * (1 - top)) * layer) * CM
    if flat_above_y is not None:
        pressed = 1 - 0.9 * ramp(rest[:, 1], flat_above_y - 1.5, flat_above_y)
        margin_tip, length = margin_tip * pressed, length * np.where(pressed < 0.5, 0.6, 1.0)
    ties = _ties(surface, cut)
    comb = _Comb.of(cut, hair, roots, rest, fringed, ties)
    tied = comb.tied[:, None]
    unruly = 0.05 + 0.13 * hair.messy
    chaos = rng.normal(0, np.where(tied, unruly * 0.4, unruly), (n, 3))
    lift = cut.lift * (1 - 0.5 * hair.wet)
    points = np.empty((n, POINTS, 3))
    points[:, 0] = roots - 0.15 * CM * normals
    direction = unit(lift * normals + (1 - lift) * comb(roots, normals) + chaos)
    alive = np.ones(n, bool)
    step = length / (POINTS - 1) * CM
    kept = np.where(tied, 0.3, 0.72)  # of the direction, from point to point
    if cut.stiff_cm is not None:
        kept = np.minimum(kept, np.exp(-step[:, None] / (cut.stiff_cm * CM)))
    for k in range(1, POINTS):
        t = k / (POINTS - 1)
        here = points[:, k - 1]
        distance, outward = surface.field(here)
        target = comb(here, outward) + cut.gravity * np.array([0, -1.0, 0])
        target = target + 0.6 * chaos * (1.2 - t)
        away = _away_from_face(here, fringed)
        direction = unit(direction * kept + 0.45 * unit(target) + (0.6 + cut.face_clear) * away)
        moved = here + direction * step[:, None]
        grown = margin_tip * np.minimum(1.0, 0.25 + 1.6 * t)
        distance, outward = surface.field(moved)
        moved = moved + outward * np.maximum(0, grown - distance)[:, None]
        if cut.comb == "radial":
            outwards = normals + 0.5 * chaos - cut.gravity * t * np.array([0, 1.0, 0]) + cut.face_clear * away
            moved = here + unit(outwards) * step[:, None]
        if cut.end_y is not None:
            jitter = cut.end_y + (hair.length - 1) * 6 + 0.8 * hair.messy * chaos[:, 0] * 10
            x_cm, y_cm, z_cm = centimetres(moved).T
            alive &= y_cm > np.where(fringed, -50, jitter - cut.end_slope * z_cm - cut.end_tilt * x_cm)
        if len(ties):
            alive &= ~comb.tied | (np.linalg.norm(here - comb.tie, axis=1) > 2.0 * CM)
        points[:, k] = np.where(alive[:, None], moved, here)
    points = _resampled(points)
    points = curled(points, cut, hair, rng)
    points = surface.field.pushed_out(points, 0.12 * CM * np.linspace(0, 1, POINTS)[None] - 0.1 * CM)
    widths = np.full(n, cut.width * CM * (1 - 0.45 * hair.wet))
    tails = [_tail(surface, cut, hair, tie, rng) for tie in ties]
    return Strands(
        np.concatenate([points, *(t.points for t in tails)]), np.concatenate([widths, *(t.widths for t in tails)])
    )


def draw_roots(
    surface: HeadSurface, weight: Float[np.ndarray, " v"], count: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Random points on the skin where `weight` allows, their normals, and their places on the average head (cm)."""
    faces = surface.faces[(weight[surface.faces] > 0).any(1)]
    corners = surface.vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = rng.choice(len(faces), size=count, p=area / area.sum())
    u, v = rng.random((2, count))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    bary = np.stack([1 - u - v, u, v], axis=1)

    def at(values: np.ndarray) -> np.ndarray:
        return np.einsum("nk,nk...->n...", bary, values[faces[face]])

    kept = at(weight) > 0.15 + 0.7 * rng.random(count)
    return at(surface.vertices)[kept], unit(at(surface.normals))[kept], at(surface.rest_cm)[kept]


@dataclass(frozen=True)
class _Comb:
    """Where a cut's comb leads each strand."""

    cut: Cut
    """The cut."""
    parting: Float[np.ndarray, " n"]
    """Where the parting meets the forehead, world units."""
    fringed: Bool[np.ndarray, " n"]
    """Strands of the fringe."""
    tied: Bool[np.ndarray, " n"]
    """Strands that lead to a tie."""
    tie: Float[np.ndarray, "n 3"]
    """The tie of each strand; where none is tied, nothing."""

    @classmethod
    def of(
        cls, cut: Cut, hair: HairRecipe, roots: Float[np.ndarray, "n 3"], rest_cm: Float[np.ndarray, "n 3"],
        fringed: Bool[np.ndarray, " n"], ties: Float[np.ndarray, "k 3"],
    ) -> _Comb:  # fmt: skip
        """The comb of strands with these roots."""
        n = len(roots)
        parting_x = hair.parting_x if cut.parting_cm is None else cut.parting_cm * CM
        parting = parting_x + np.zeros(n)
        if not len(ties):
            return cls(cut, parting, fringed, np.zeros(n, bool), np.zeros((n, 3)))
        above = -np.inf if cut.tied_above_y is None else cut.tied_above_y
        of_side = (roots[:, 0] > parting).astype(int) if len(ties) > 1 else np.zeros(n, int)
        return cls(cut, parting, fringed, ~fringed & (rest_cm[:, 1] > above), ties[of_side])

    def __call__(self, points: Float[np.ndarray, "n 3"], outward: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Unit direction at each strand's point, along the surface."""
        cut, cm = self.cut, centimetres(points)
        if cut.comb == "tie":
            free = self._field(cut.second_comb or "down", points, outward, cm)
            field = np.where(self.tied[:, None], unit(self.tie - points), free)
        else:
            field = self._field(cut.comb, points, outward, cm)
            if cut.second_weight > 0:
                field = (1 - cut.second_weight) * field
                field = field + cut.second_weight * self._field(cut.second_comb, points, outward, cm)
        sideways = np.where(points[:, 0] > self.parting, 1.0, -1.0)[:, None] * np.array([[1.0, 0, 0]])
        onto_forehead = np.array([[cut.fringe_sweep, -0.25, 1.0]]) + 0.2 * sideways
        onto_forehead = onto_forehead + np.where(cm[:, 2:] > 7, np.array([[0, -1.0, 0]]), 0)
        field = np.where(self.fringed[:, None], onto_forehead, field)
        if cut.comb not in ("up", "radial"):
            field = field - outward * (field * outward).sum(1, keepdims=True)
        return unit(field)

    def _field(
        self, comb: str, points: Float[np.ndarray, "n 3"], outward: Float[np.ndarray, "n 3"],
        cm: Float[np.ndarray, "n 3"],
    ) -> Float[np.ndarray, "n 3"]:  # fmt: skip
        """One comb's direction, of any length."""
        cut = self.cut
        up = ramp(cm[:, 1], *zones.COMBED_TOP_Y_CM)[:, None]
        parting = self.parting + cut.parting_slant * (zones.HAIRLINE_Z_CM - cm[:, 2]) * CM
        sign = np.where(points[:, 0] > parting, 1.0, -1.0)[:, None]
        down = np.array([[0, -1.0, 0]])
        sideways, backward = np.array([[1.0, 0, 0]]) * sign, np.array([[0, 0, -1.0]])
        from_whorl = unit((cm - cut.whorl_cm) * [1.0, 0.3, 1.0])
        if cut.swirl:
            reach = np.exp(-(((cm - cut.whorl_cm) ** 2).sum(1, keepdims=True)) / zones.SWIRL_CM**2)
            from_whorl = from_whorl + cut.swirl * reach * np.cross(np.array([[0, 1.0, 0]]), from_whorl)
        match comb:
            case "down":
                return up * from_whorl + (1 - up) * down
            case "side":
                return up * (sideways + 0.5 * backward * ramp(cm[:, 2], -4.0, 3.0)[:, None]) + (1 - up) * (
                    down + 0.25 * backward
                )
            case "forward":
                return up * (0.6 * from_whorl + np.array([[0, 0, 1.0]])) + (1 - up) * (down + 0.3 * backward)
            case "back":
                over_head = (ramp(cm[:, 2], -8.5, -4.0) * ramp(cm[:, 1], -1.0, 4.0))[:, None]
                return over_head * (backward + 0.4 * (1 - up) * down) + (1 - over_head) * down
            case "up":
                front = ramp(cm[:, 2], -2.0, 5.0)[:, None]
                return up * (front * np.array([[0, 1.2, -0.3]]) + (1 - front) * backward) + (1 - up) * down
            case "across":  # all hair to one side, whatever the parting
                return up * (np.array([[1.0 if cut.parting_slant >= 0 else -1.0, 0, -0.35]])) + (1 - up) * down
            case "radial":
                return outward
            case _:
                raise AssertionError(f"unknown comb {comb!r}")


def _away_from_face(points: Float[np.ndarray, "n 3"], fringed: np.ndarray) -> Float[np.ndarray, "n 3"]:
    """Sideways and backwards in front of the face, nothing elsewhere."""
    x, y, z = centimetres(points).T
    strength = ramp(z, *zones.FACE_Z_CM) * ramp(y, *zones.FACE_Y_CM) * ramp(np.abs(x), *zones.FACE_X_CM)
    strength = np.where(fringed, 0, strength)
    side = np.where(x >= 0, 1.0, -1.0)
    return strength[:, None] * np.stack([1.4 * side, 0 * side, -0.9 + 0 * side], axis=1)


def _resampled(points: Float[np.ndarray, "s p 3"]) -> Float[np.ndarray, "s p 3"]:
    """Points at equal arc lengths; strands that ended early keep all their points."""
    seg = np.linalg.norm(np.diff(points, axis=1), axis=2)
    arc = np.concatenate([np.zeros((len(points), 1)), np.cumsum(seg, axis=1)], axis=1)
    wanted = arc[:, -1:] * np.linspace(0, 1, points.shape[1])[None]
    index = np.clip((arc[:, None, :] <= wanted[:, :, None]).sum(2) - 1, 0, points.shape[1] - 2)
    low, high = np.take_along_axis(arc, index, 1), np.take_along_axis(arc, index + 1, 1)
    t = np.clip((wanted - low) / np.maximum(high - low, 1e-9), 0, 1)[..., None]
    return (
        np.take_along_axis(points, index[..., None], 1) * (1 - t)
        + np.take_along_axis(points, index[..., None] + 1, 1) * t
    )


def curled(
    points: Float[np.ndarray, "s p 3"], cut: Cut, hair: HairRecipe, rng: np.random.Generator
) -> Float[np.ndarray, "s p 3"]:
    """Strands joined to locks and wound to curls; both are nothing at the root."""
    n, p, _ = points.shape
    guides = rng.choice(n, size=max(8, n // 22), replace=False)
    nearest = np.argmin(((points[:, None, p // 2] - points[None, guides, p // 2]) ** 2).sum(2), axis=1)
    t = np.linspace(0, 1, p)
    clump = np.clip(cut.clump + 0.35 * hair.wet - 0.2 * hair.messy, 0, 0.9)
    pull = (clump * ramp(t, 0.25, 1.0))[None, :, None] * rng.uniform(0.4, 1.0, n)[:, None, None]
    close = np.exp(-np.linalg.norm(points[:, -1] - points[guides[nearest], -1], axis=1) / (3 * CM))[:, None, None]
    points = points * (1 - pull * close) + points[guides[nearest]] * pull * close
    radius = cut.curl[0] + (0.8 * hair.curl if cut.curl[0] or hair.curl > 0.25 else 0.0)
    if radius <= 0:
        return points
    length = np.linalg.norm(np.diff(points, axis=1), axis=2).sum(1) / CM
    turns = np.minimum(cut.curl[1] * length / 10, (p - 1) / 2.6)  # no more than the points can carry
    phase = rng.uniform(0, 2 * np.pi, len(guides))[nearest] + rng.normal(0, 0.3 + 0.8 * hair.messy, n)
    angle = phase[:, None] + 2 * np.pi * turns[:, None] * t[None]
    tangent = unit(np.gradient(points, axis=1))
    first = unit(np.cross(tangent, np.array([0.3, 0.2, 1.0])))
    second = np.cross(tangent, first)
    size = (
        radius * CM * rng.uniform(0.6, 1.2, n)[:, None] * ramp(t, 0.03, 0.4)[None] * np.minimum(1, length / 6)[:, None]
    )
    return points + size[..., None] * (np.cos(angle)[..., None] * first + np.sin(angle)[..., None] * second)


def _ties(surface: HeadSurface, cut: Cut) -> Float[np.ndarray, "k 3"]:
    """Where tails are tied: a little above this head's skin."""
    if cut.tie is None:
        return np.empty((0, 3))
    ties = world_units(np.array([cut.tie, np.array(cut.tie) * [-1, 1, 1]] if cut.tie_pair else [cut.tie]))
    for _ in range(3):
        distance, outward = surface.field(ties)
        ties = ties + outward * (0.6 * CM - distance.astype(np.float64)).astype(np.float32)[:, None]
    return ties[np.argsort(ties[:, 0])]


def _tail(
    surface: HeadSurface, cut: Cut, hair: HairRecipe, tie: Float[np.ndarray, " 3"], rng: np.random.Generator
) -> Strands:
    """What hangs from a tie, or the bun that is wound there."""
    n = 700
    _, outward = surface.field(tie[None])
    t = np.linspace(0, 1, POINTS)
    if cut.tail == 0:
        radius = cut.bun_cm * CM * hair.volume**0.5
        centre = tie + outward[0] * radius * 0.75
        axis = unit(outward[0])
        first = unit(np.cross(axis, [1.0, 0.2, 0.1]))
        second = np.cross(axis, first)
        start, tilt = rng.uniform(0, 2 * np.pi, n), rng.normal(0, 0.35, n)
        angle = start[:, None] + 2.2 * t[None]
        height = np.clip(rng.uniform(-1, 1, n)[:, None] + tilt[:, None] * (t - 0.5)[None], -0.95, 0.95)
        ring = np.sqrt(1 - height**2)[..., None]
        ball = ring * (np.cos(angle)[..., None] * first + np.sin(angle)[..., None] * second)
        size = radius * rng.uniform(0.9, 1.04, n)[:, None, None]
        return Strands(centre + size * (ball + 0.8 * height[..., None] * axis), np.full(n, 0.7 * CM))
    length = cut.tail * hair.length * CM * rng.uniform(0.75, 1.0, n)
    spread = rng.normal(0, 1, (n, 3)) * cut.tail_spread_cm * CM
    points = np.empty((n, POINTS, 3))
    points[:, 0] = tie + 0.5 * spread
    direction = unit(outward[0] + 0.1 * rng.normal(size=(n, 3)))
    margin = (0.4 + 1.6 * rng.random(n)) * CM
    for k in range(1, POINTS):
        direction = unit(direction + np.array([0, -0.55, 0]) + 0.03 * rng.normal(size=(n, 3)))
        moved = points[:, k - 1] + direction * (length / (POINTS - 1))[:, None] + spread * (0.12 if k < 5 else -0.02)
        distance, out = surface.field(moved)
        points[:, k] = moved + out * np.maximum(0, margin - distance)[:, None]
    tail_cut = Cut((0.0, 0.0, 0.0), curl=(cut.tail_curl + 0.8 * hair.curl, 1.5), clump=0.5)
    return Strands(curled(points, tail_cut, hair, rng), np.full(n, 0.7 * CM))


@functools.lru_cache(maxsize=8)
def _asset_strands(data: Path, name: str) -> tuple[Float[np.ndarray, "s p 3"], Float[np.ndarray, "rows columns"]]:
    """Strands of an asset in the world frame, `POINTS` points each, and the radius of the head they were made on."""
    base = np.load(data / "vitruvian" / "base.npz")
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # z up and face to -y, to y up and face to +z
    vertices = base["verts"].astype(np.float64) @ turn.T
    quads = base["faces"].astype(np.int64)
    faces = np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]])
    high = vertices[:, 1] > 1.35
    scale, shift = world_from_asset(vertices[high], np.array([0.0, _EYES_Y, _EYES_Z]), 1.0)
    faces = faces[high[faces].all(1)]
    skull = capsule.opened_skull_radius(vertices * scale + shift, faces)
    with np.load(data / "vitruvian" / "hairstyles" / f"{name}.npz") as file:
        counts, flat = file["cnt"].astype(np.int64), file["data"].astype(np.float64) @ turn.T
    flat = flat * scale + shift
    ends = np.cumsum(counts)
    keep = np.arange(len(counts))
    if len(keep) > 3600:
        keep = np.random.default_rng(0).choice(keep, 3600, replace=False)
    position = np.linspace(0, 1, POINTS)
    strands = []
    for k in keep:
        row = flat[ends[k] - counts[k] : ends[k]]
        at = position * (len(row) - 1)
        low = np.minimum(at.astype(int), len(row) - 2)
        strands.append(row[low] + (row[low + 1] - row[low]) * (at - low)[:, None])
    return np.stack(strands), skull


_EYES_Y, _EYES_Z = 1.6345, 0.048


def strands_from_asset(surface: HeadSurface, data: Path, hair: HairRecipe, rng: np.random.Generator) -> Strands:
    """An asset's strands on another head: thickness over the skull is kept, hairs of few strands get children."""
    points, skull = _asset_strands(data, hair.name)
    target = capsule.opened_skull_radius(surface.vertices, surface.faces)
    row, column, radius = capsule.cell_coordinates(points)
    row = np.clip(row, 0, capsule.ROWS - 1)
    at = np.floor(row).astype(int), column.astype(int) % capsule.COLUMNS
    shift = (target - skull)[at] * ramp(-row, -78.0, -66.0)  # the body's own shape below the jaw is left alone
    shift = np.clip(shift, -0.05, 0.05)
    directions = capsule.grid_rays()[1][at]
    points = points + directions * shift[..., None]
    children = max(1, round(2800 / len(points)))
    spread = 0.012 if len(points) < 500 else 0.006
    offset = rng.normal(0, spread, (len(points), children, 1, 3)) * np.linspace(0.6, 1.3, POINTS)[None, None, :, None]
    offset[:, 0] = 0
    points = (points[:, None] + offset).reshape(-1, POINTS, 3)
    root = points[:, :1]
    length = np.clip(hair.length, 0.75, 1.25)
    points = root + (points - root) * np.linspace(1, length, POINTS)[None, :, None]
    n = len(points)
    points = points + rng.normal(0, 0.05 + 0.35 * hair.messy, (n, 1, 3)) * CM * np.linspace(0, 1, POINTS)[None, :, None]
    if hair.curl > 0.25:
        points = curled(points, Cut((0.0, 0.0, 0.0), curl=(0.01, 2.0), clump=0.3), hair, rng)
    margin = (0.1 + 0.5 * rng.random(n))[:, None] * CM * np.linspace(0, 1, POINTS)[None]
    return Strands(surface.field.pushed_out(points, margin), np.full(n, 0.55 * CM * (1 - 0.4 * hair.wet)))

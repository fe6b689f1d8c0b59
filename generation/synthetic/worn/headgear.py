"""Hats, caps, bands, scarves and hoods, wrapped round any head.

A headgear is a sheet in polar coordinates about a point in the head: from the crown down to its rim for hats, from
the edge of the face opening backwards for scarves and hoods. Its radius is that of the outermost skin, smoothed as
cloth is, plus a clearance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from ...cameras import UNITS_PER_CM as CM
from ...head_model.anatomy import world_units
from ..bodies.head_surface import HeadSurface
from ..parts import RGB, Part
from .solids import ball, cloth_texture, plain_texture, sheet, upright

CENTRE = world_units(np.array([0.0, 4.0, -1.0]))
"""The point in the head that radii are measured from."""
_COLUMNS = 96


@dataclass(frozen=True)
class Hat:
    """Where a hat ends and how it is filled; angles in degrees from straight up."""

    front: float
    """Angle of the rim in front."""
    side: float
    """At the sides; beyond 90 it covers the ears."""
    back: float
    """At the back."""
    clearance: float = 0.8
    """Distance from the skin, centimetres."""
    puff: float = 0.0
    """How far the crown stands off in addition."""
    pattern: tuple[str, ...] = ("weave", "felt")
    """Patterns of its cloth."""
    top: float = 1e-3
    """Where it begins, as a share of the rim's angle: bands are open on top."""


HATS = {
    "cap": Hat(62.0, 68.0, 84.0, 0.9, 0.8),
    "cap_backwards": Hat(60.0, 68.0, 80.0, 0.9, 0.8),
    "beanie": Hat(60.0, 92.0, 100.0, 0.7, 1.2, ("knit", "knit", "stripes")),
    "bobble_hat": Hat(62.0, 94.0, 102.0, 0.9, 1.0, ("knit", "stripes")),
    "bandana": Hat(60.0, 78.0, 98.0, 0.5, 0.2, ("dots", "plaid", "weave")),
    "bucket_hat": Hat(60.0, 70.0, 80.0, 0.9, 1.0, ("weave", "felt", "plaid")),
    "flat_cap": Hat(60.0, 70.0, 84.0, 0.9, 1.6, ("plaid", "weave")),
    "turban": Hat(58.0, 82.0, 98.0, 1.4, 2.4, ("weave", "felt")),
    "beret": Hat(62.0, 72.0, 78.0, 0.7, 1.2, ("felt", "knit")),
    "helmet": Hat(58.0, 88.0, 98.0, 1.8, 1.4, ("felt",)),
    "wizard_hat": Hat(60.0, 72.0, 82.0, 0.9, 0.5, ("felt", "dots")),
    "headband": Hat(62.0, 74.0, 92.0, 0.35, 0.0, ("knit", "weave"), 0.78),
    "crown": Hat(58.0, 66.0, 74.0, 0.7, 0.0, ("felt",), 0.86),
}  # fmt: skip


BANDS = tuple(name for name, hat in HATS.items() if hat.top > 0.1)
"""Headgear that leaves the hair on top free."""


@dataclass(frozen=True)
class Hood:
    """A cloth over the head; angles in degrees from straight ahead."""

    opening: tuple[float, float, float]
    """Edge of the face's opening at the sides, above and below."""
    clearance: float
    """Distance from the skin, centimetres."""
    rim: float
    """How far the edge stands off in addition."""
    longest: float
    """Distance of its lower edge from `CENTRE`, world units."""


HOODS = {
    "headscarf": Hood((52.0, 40.0, 61.0), 0.9, 0.4, 0.27),
    "hood": Hood((62.0, 54.0, 78.0), 2.4, 1.0, 0.27),
    "bonnet": Hood((64.0, 42.0, 80.0), 1.0, 0.4, 0.2),
}


@dataclass(frozen=True)
class HeadgearFit:
    """What a headgear does to the hair; functions of world points."""

    covers: Callable[[Float[np.ndarray, "n 3"]], np.ndarray]
    """Whether it hides hair there."""
    pressure: Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, " n"]]
    """How much hair is pressed to the head there: 1 at the rim, 0 far from it."""


def outer_radius(
    surface: HeadSurface, directions: Float[np.ndarray, "*g 3"], largest: float
) -> Float[np.ndarray, "*g"]:
    """Distance from `CENTRE` to the last point of skin or cloth along each direction, world units."""
    radii = np.arange(0.04, largest, 0.004)
    flat = directions.reshape(-1, 3)
    points = CENTRE + flat[:, None] * radii[None, :, None]
    inside = surface.field(points.reshape(-1, 3))[0].reshape(len(flat), -1) < 0
    last = np.where(inside.any(1), inside.shape[1] - 1 - inside[:, ::-1].argmax(1), 0)
    return radii[last].reshape(directions.shape[:-1])


def _polar(
    at: Float[np.ndarray, "n 3"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Azimuth, angle from straight up and distance of world points, seen from `CENTRE`.

    The coordinates lie one after another: of strided ones numpy's arctan2 differs in the last bit where its result
    happens to lie right behind them in memory.
    """
    away = at - CENTRE
    x, y, z = np.ascontiguousarray(away.T)
    distance = np.linalg.norm(away, axis=1)
    return np.arctan2(x, z), np.arccos(np.clip(y / np.maximum(distance, 1e-9), -1, 1)), distance


def _as_cloth(radius: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """A radius round the head without hollows and folds; the last column neighbours the first."""
    around: Any = ("nearest", "wrap")  # scipy's stubs know no mode per axis
    return ndimage.gaussian_filter(ndimage.maximum_filter(radius, size=(3, 5), mode=around), (2.0, 3.0), mode=around)


def _rim(hat: Hat, azimuth: Float[np.ndarray, "*g"]) -> Float[np.ndarray, "*g"]:
    front, back = np.clip(np.cos(azimuth), 0, 1) ** 1.5, np.clip(-np.cos(azimuth), 0, 1) ** 1.5
    return np.radians(hat.front * front + hat.back * back + hat.side * (1 - front - back))


def wear_headgear(
    name: str, rgb: RGB, surface: HeadSurface, rng: np.random.Generator,
    change: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
) -> tuple[list[Part], HeadgearFit]:  # fmt: skip
    """The parts of a headgear, and which points it hides.

    Args:
        change: of a hat's form: rim in front, at the sides, at the back (degrees down), puff of its crown (cm).
    """
    if name in HOODS:
        return _hooded(name, rgb, surface, rng)
    hat, (front, side, back, puff) = HATS[name], change
    hat = replace(hat, front=hat.front + front, side=hat.side + side, back=hat.back + back, puff=hat.puff + puff)
    azimuth = np.arange(_COLUMNS) * 2 * np.pi / _COLUMNS
    rim = _rim(hat, azimuth)
    is_band = name in BANDS
    share = np.linspace(hat.top, 1, 34)[:, None]
    polar = share * rim
    direction = upright(polar, np.broadcast_to(azimuth, polar.shape))
    radius = _as_cloth(outer_radius(surface, direction, 0.30))
    if not is_band:
        radius = radius * (1 - ((1 - share) > 0.8)) + radius[:8].mean() * ((1 - share) > 0.8)
    radius = radius + hat.clearance * CM + hat.puff * CM * np.sin(np.pi * np.clip(share, 0, 1)) ** 0.7 * (share < 0.97)
    texture = cloth_texture(rgb, rng, pattern=str(rng.choice(hat.pattern)))
    if name in ("beanie", "bobble_hat"):
        radius = radius + 0.55 * CM * (share > 0.76)
    if name == "turban":
        radius = radius + 0.35 * CM * np.sin(7 * share * np.pi + 2.0 * np.cos(azimuth))
    if name == "flat_cap":
        radius = radius * (1 - 0.12 * np.cos(polar) ** 4) + 1.5 * CM * np.clip(np.cos(azimuth), 0, 1) * share**2
    if name == "beret":  # it hangs over the rim, most on one side
        radius = radius + 2.6 * CM * np.sin(np.pi * share**1.6) * (1 + 0.8 * np.sin(azimuth + rng.uniform(-1, 1)))
    points = CENTRE + radius[..., None] * direction
    repeat = (3.0, 12.0) if name != "headband" else (1.0, 10.0)
    parts = [sheet("headgear", points, texture, closed=True, repeat=repeat, outward_from=CENTRE)]
    edge = points[-1]
    match name:
        case "cap" | "cap_backwards" | "flat_cap":
            turn, reach_cm = np.pi if name == "cap_backwards" else 0.0, 4.5 if name == "flat_cap" else 7.0
            parts.append(_visor(edge, azimuth, texture, turn, reach_cm))
        case "bucket_hat":
            parts.append(_brim(edge, texture, 5.0, -0.75))
        case "wizard_hat":
            parts.append(_brim(edge, texture, float(rng.uniform(6, 10)), -0.12))
            parts.append(_cone(edge, texture, rng))
        case "bobble_hat":
            pompon = cloth_texture(np.clip(np.array(rgb) * 1.3 + 0.1, 0, 1), rng, pattern="knit")
            above = points[0].mean(0) + np.array([0, 2.0 * CM, 0])
            parts.append(ball("headgear", above, 2.6 * CM, pompon, specular=0.0))
        case "crown":
            parts = [_zigzag(points, rng)]
        case "turban":
            jewel = points[len(points) // 2 + 8, 0]
            parts.append(ball("headgear", jewel, 0.9 * CM, plain_texture((0.7, 0.55, 0.2)), specular=0.5))
        case _:
            pass

    def covered(at: Float[np.ndarray, "n 3"]) -> np.ndarray:
        angle, down, distance = _polar(at)
        limit = _rim(hat, angle)
        if is_band:  # it holds the hair above it
            column = np.round(angle / (2 * np.pi) * _COLUMNS).astype(int) % _COLUMNS
            return (down < limit) & (down > hat.top * limit) & (distance > radius.max(0)[column])
        return down < limit - 0.01

    def pressure(at: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        angle, down, _ = _polar(at)
        limit = _rim(hat, angle)
        near = 1 - np.clip((down - limit) / 0.6, 0, 1)
        return near * np.clip(1 - np.abs(down - 0.9 * limit) / 0.3, 0, 1) if is_band else near

    return parts, HeadgearFit(covered, pressure)


def _visor(
    edge: Float[np.ndarray, "c 3"], azimuth: Float[np.ndarray, " c"], texture: np.ndarray, turn: float, reach_cm: float
) -> Part:
    across = np.linspace(-1, 1, 25)
    angle = (turn + across * np.radians(62)) % (2 * np.pi)
    base = np.stack([np.interp(angle, azimuth, edge[:, k], period=2 * np.pi) for k in range(3)], axis=1)
    out = np.linspace(-0.06, 1, 9)[:, None, None]
    forward = np.array([0, -0.28, np.cos(turn)])
    reach = reach_cm * CM * np.sqrt(np.clip(1 - across**2, 0, 1))[None, :, None]
    top = base[None] + out * reach * forward
    top[..., 1] -= (1.3 * CM * across**2)[None] * np.clip(out[..., 0], 0, 1)
    under = top - [0, 0.25 * CM, 0]
    return sheet(
        "headgear", np.concatenate([top, under[::-1]]), texture, outward_from=top.mean((0, 1)), repeat=(2.0, 3.0)
    )


def _brim(edge: Float[np.ndarray, "c 3"], texture: np.ndarray, reach_cm: float, slope: float) -> Part:
    away = edge - edge.mean(0)
    away[:, 1] = 0
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    out = np.linspace(-0.05, 1, 8)[:, None, None]
    top = edge[None] + out * reach_cm * CM * (away + np.array([0, slope, 0]))[None]
    return sheet("headgear", np.concatenate([top, (top - [0, 0.2 * CM, 0])[::-1]]), texture, closed=True,
                 outward_from=top.mean((0, 1)), repeat=(2.0, 12.0))  # fmt: skip


def _cone(edge: Float[np.ndarray, "c 3"], texture: np.ndarray, rng: np.random.Generator) -> Part:
    t = np.linspace(0, 1, 24)[:, None, None]
    centre = edge.mean(0)
    tip = np.array([rng.uniform(-5, 5), rng.uniform(18, 26), rng.uniform(-8, 0)]) * CM
    ring = (edge - centre)[None] * (1 - t) ** 1.1 * 1.02
    return sheet(
        "headgear",
        centre + ring + t * np.array([0, 1, 0]) * tip + t**2 * tip * [1, 0, 1],
        texture,
        closed=True,
        repeat=(3.0, 8.0),
    )


def _zigzag(points: Float[np.ndarray, "m c 3"], rng: np.random.Generator) -> Part:
    base = points[-1]
    height = (2.0 + 2.5 * np.abs((np.arange(_COLUMNS) * 8 / _COLUMNS % 1) * 2 - 1)) * CM
    t = np.linspace(0, 1, 6)[:, None]
    away = (base - base.mean(0)) * 0.05
    rise = base[None] + t[..., None] * (np.stack([0 * height, height, 0 * height], axis=1) + away)[None]
    gold = plain_texture((0.75 * rng.uniform(0.8, 1.1), 0.6, 0.22))
    return sheet("headgear", rise, gold, closed=True, specular=0.6, outward_from=base.mean(0))


def _hooded(name: str, rgb: RGB, surface: HeadSurface, rng: np.random.Generator) -> tuple[list[Part], HeadgearFit]:
    """A cloth from the edge of the face opening over the head and down to the shoulders."""
    turn = np.arange(_COLUMNS) * 2 * np.pi / _COLUMNS  # about the axis of sight, 0 at the head's left, pi/2 up
    hood = HOODS[name]
    side_deg, up_deg, down_deg = hood.opening
    up, down = np.clip(np.sin(turn), 0, 1), np.clip(-np.sin(turn), 0, 1)
    edge = np.radians(side_deg * (1 - up - down) + up_deg * up + down_deg * down)
    share = np.linspace(0, 1, 44)[:, None]
    polar = edge + (np.pi - 1e-3 - edge) * share
    direction = np.stack(
        [np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar) + 0 * turn], axis=-1
    )
    longest = np.where(direction[..., 1] < -0.2, hood.longest, 0.30)
    radius = _as_cloth(np.minimum(outer_radius(surface, direction, 0.34), longest))
    folds = 0.25 * np.sin(9 * turn + 6 * share) * share * (1 - share) * 4
    radius = radius + (hood.clearance + folds + hood.rim * np.clip(1 - 6 * share, 0, 1)) * CM
    points = CENTRE + radius[..., None] * direction
    texture = cloth_texture(rgb, rng, pattern=str(rng.choice(["weave", "felt", "weave", "dots", "stripes"])))
    lip = points[:1] + (CENTRE - points[:1]) * 0.06
    sheet_points = np.concatenate([lip, points])
    part = sheet("headgear", sheet_points, texture, closed=True, repeat=(5.0, 12.0), outward_from=CENTRE)

    def covered(at: Float[np.ndarray, "n 3"]) -> np.ndarray:
        away = at - CENTRE
        x, y, z = np.ascontiguousarray(away.T)
        from_sight = np.arccos(np.clip(z / np.maximum(np.linalg.norm(away, axis=1), 1e-9), -1, 1))
        limit = np.interp(np.arctan2(y, x), turn, edge, period=2 * np.pi)
        hidden = (from_sight > limit - 0.06) | (y < -9 * CM) | (surface.field(at)[0] > 1.8 * CM)
        return hidden if name == "hood" else np.ones(len(at), bool)

    return [part], HeadgearFit(covered, lambda at: np.ones(len(at)))

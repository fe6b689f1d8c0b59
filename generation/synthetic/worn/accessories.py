"""What is worn besides clothes and hats: glasses, earrings, necklaces, collars and scarves."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ...cameras import UNITS_PER_CM as CM
from ...head_model.anatomy import centimetres, world_units
from ..assets import field_rng
from ..bodies.head_surface import HeadSurface
from ..composed_recipe import ComposedRecipe, WearRecipe
from ..parts import Part, merged
from .headgear import HOODS, HeadgearFit, wear_headgear
from .solids import ball, cloth_texture, plain_texture, sheet, tube

_LENSES = {
    "round": (2.3, 2.3, 2.0, 0.0),
    "square": (2.6, 2.1, 5.0, 0.0),
    "rectangle": (2.7, 1.5, 5.0, 0.0),
    "aviator": (2.9, 2.5, 2.6, -0.35),
    "cat_eye": (2.7, 1.9, 2.8, 0.6),
    "oversized": (3.1, 2.8, 2.8, 0.0),
    "half_rim": (2.7, 1.6, 4.0, 0.0),
    "hexagon": (2.5, 2.2, 1.6, 0.0),
}
"""Half width and half height (cm), exponent of the superellipse, lift of the outer corner (cm)."""
_OVER_EARS = (*HOODS, "beanie", "bobble_hat")
"""Headgear under which no earring is seen."""
_NECKWEAR_CM = {
    "turtleneck": ([-10.6, -11.0, -12.5, -14.5, -17.0], [0.35, 0.6, 0.55, 0.6, 0.9]),
    "scarf": ([-9.6, -9.9, -11.3, -13.0, -14.8, -16.5, -17.5], [0.5, 1.6, 2.7, 2.4, 3.0, 2.6, 0.3]),
    "collar": ([-13.6, -12.0, -11.4, -11.6, -13.2, -15.2], [0.5, 0.5, 0.8, 1.1, 1.9, 2.7]),
    "high_collar": ([-15.5, -12.5, -9.0, -7.6, -7.6, -9.5, -13.0, -16.5], [0.5, 0.9, 2.2, 3.2, 3.5, 3.0, 2.0, 1.8]),
    "ruff": ([-10.8, -11.6, -12.3, -12.6, -13.6], [0.2, 3.5, 7.0, 7.2, 0.4]),
}
"""Heights in front and offsets from the skin, from the inner edge to the outer; the back stands 2 cm higher."""


def worn_parts(
    recipe: ComposedRecipe, surface: HeadSurface, fedora: Part | None
) -> tuple[list[Part], HeadgearFit | None]:
    """Everything worn but the garment.

    Args:
        fedora: the fitted fedora if the recipe has one.

    Returns:
        Parts, and what a headgear does to the hair.
    """
    wear = recipe.wear
    parts: list[Part] = []
    fit: HeadgearFit | None = None
    if fedora is not None:
        height = fedora.vertices_world[:, 1]
        line = float(np.quantile(height, 0.25)) + 0.6 * CM
        parts.append(fedora)
        fit = HeadgearFit(lambda at: at[:, 1] > line, lambda at: np.clip(1 - (line - at[:, 1]) / (5 * CM), 0, 1))
    elif wear.headgear:
        shape = field_rng(recipe.seed, "headgear_shape")
        worn, fit = wear_headgear(wear.headgear, wear.headgear_rgb, surface, shape, wear.headgear_change)
        parts += worn
    if wear.glasses:
        parts += _glasses(wear, surface)
    if wear.earrings and wear.headgear not in _OVER_EARS:
        parts += _earrings(wear, surface)
    if wear.neckwear:
        parts += _neckwear(wear, surface, field_rng(recipe.seed, "neckwear_shape"))
    elif wear.necklace:
        parts += _necklace(surface, field_rng(recipe.seed, "necklace_shape"))
    return parts, fit


def _glasses(wear: WearRecipe, surface: HeadSurface) -> list[Part]:
    half_width, half_height, exponent, lift = _LENSES[wear.glasses]
    span = float(surface.eyes[1, 0] - surface.eyes[0, 0])
    fit = np.clip(span / (6.4 * CM), 0.85, 1.25)
    half_width, half_height = half_width * fit * CM, half_height * fit * CM
    cm = centimetres(surface.vertices)
    eye_y = float(surface.eyes[:, 1].mean())
    near_bridge = (np.abs(surface.vertices[:, 0]) < 1.0 * CM) & (np.abs(surface.vertices[:, 1] - eye_y) < 1.2 * CM)
    bridge_z = float(surface.vertices[near_bridge, 2].max(initial=-np.inf))
    front_z = max(bridge_z + 0.15 * CM, float(surface.eyes[:, 2].max()) + 2.3 * CM)
    # beside the head, in front of the ears
    temple = (np.abs(surface.vertices[:, 1] - eye_y) < 1.2 * CM) & (cm[:, 2] > 2.5) & (cm[:, 2] < 6.0)
    side_x = float(np.abs(surface.vertices[temple, 0]).max()) if temple.any() else 7.2 * CM
    frame = plain_texture(wear.glasses_rgb)
    thin = 0.16 * CM if wear.glasses in ("round", "aviator", "half_rim") else 0.3 * CM
    angle = np.arange(40) * 2 * np.pi / 40
    wires, lenses = [], []
    for sign, eye in zip((-1.0, 1.0), surface.eyes):
        c, s = np.cos(angle), np.sin(angle)
        x = np.sign(c) * np.abs(c) ** (2 / exponent) * half_width
        y = np.sign(s) * np.abs(s) ** (2 / exponent) * half_height
        outer = np.clip(sign * x / half_width, 0, 1)
        y = y + lift * CM * outer * (y > 0 if lift > 0 else y < 0)
        centre_x = max(abs(float(eye[0])), half_width + 0.75 * CM) * sign
        # the lens follows the face's curve a little
        z = front_z - 0.16 * np.clip(np.abs(centre_x + x) - 2 * CM, 0, None)
        rim = np.stack([centre_x + x, eye_y - 0.25 * CM + y, z], axis=1)
        visible = rim if wear.glasses != "half_rim" else rim[y >= -0.1 * half_height]  # angles already ascend
        wires.append(tube("glasses", visible, thin, frame, closed=wear.glasses != "half_rim"))
        middle = rim.mean(0, keepdims=True)
        t = np.linspace(0.02, 1, 5)[:, None, None]
        lenses.append(middle[None] * (1 - t) + rim[None] * t)
        hinge = np.array(
            [sign * (abs(centre_x) + half_width), eye_y + 0.3 * half_height, rim[np.abs(rim[:, 0]).argmax(), 2]]
        )
        ear = world_units(np.array([0.0, 0.0, -0.8]))
        path = np.stack([
            hinge, [sign * max(side_x + 0.25 * CM, abs(hinge[0])), hinge[1], hinge[2] - 1.8 * CM],
            [sign * (side_x + 0.5 * CM), hinge[1] - 0.1 * CM, ear[2] + 1.5 * CM],
            [sign * (side_x + 0.5 * CM), hinge[1] - 0.5 * CM, ear[2] - 0.5 * CM],
            [sign * (side_x + 0.2 * CM), hinge[1] - 2.4 * CM, ear[2] - 1.6 * CM],
        ])  # fmt: skip
        fine = np.stack([np.interp(np.linspace(0, 4, 25), np.arange(5), path[:, k]) for k in range(3)], axis=1)
        wires.append(tube("glasses", fine, 0.8 * thin, frame))
    inner = max(abs(float(surface.eyes[1, 0])), half_width + 0.75 * CM) - half_width
    t = np.linspace(-1, 1, 9)
    bridge = np.stack(
        [t * inner, eye_y + 0.2 * half_height + 0.5 * CM * (1 - t**2), front_z + 0.2 * CM * (1 - t**2)], axis=1
    )
    wires.append(tube("glasses", bridge, thin, frame))
    tint = (0.05, 0.05, 0.06) if wear.lens_alpha > 0.5 else (0.8, 0.85, 0.9)
    glass = plain_texture(tint, wear.lens_alpha)
    behind = np.array([0, 0, 1.0])
    panes = [
        sheet(
            "glasses", points, glass, closed=True, alpha=True, specular=0.5, outward_from=points.mean((0, 1)) - behind
        )
        for points in lenses
    ]
    return [merged(wires), merged(panes)]


def _earrings(wear: WearRecipe, surface: HeadSurface) -> list[Part]:
    metal = plain_texture((0.8, 0.66, 0.3) if wear.glasses_rgb[0] > 0.3 else (0.75, 0.76, 0.78))
    parts = []
    for sign in (-1.0, 1.0):
        ear = surface.vertices[surface.is_ear & (surface.vertices[:, 0] * sign > 0)]
        if not len(ear):
            continue
        lobe = ear[ear[:, 1] < np.quantile(ear[:, 1], 0.06)].mean(0) + np.array([sign * 0.35, 0.1, 0.1]) * CM
        if wear.earrings == "stud":
            parts.append(ball("accessory", lobe, 0.42 * CM, metal, specular=0.8, rows=8))
        else:
            angle = np.arange(28) * 2 * np.pi / 28
            ring = 1.7 * CM * np.stack([0.15 * np.sin(angle), np.cos(angle) - 1, np.sin(angle)], axis=1)
            parts.append(tube("accessory", lobe + ring, 0.14 * CM, metal, closed=True, specular=0.8, sides=5))
    return [merged(parts)] if parts else []


def _neck_ring(surface: HeadSurface, height_cm: float, turn: Float[np.ndarray, " c"]) -> tuple[np.ndarray, np.ndarray]:
    """Centre of the neck at a height, and the distance from it to the skin in each horizontal direction."""
    cm = centimetres(surface.vertices)
    clamped = max(height_cm, -14.0)
    near = (np.abs(cm[:, 1] - clamped) < 1.2) & (np.abs(cm[:, 0]) < 7.5) & (cm[:, 2] < 5.0) & (cm[:, 2] > -9)
    z = float(np.median(surface.vertices[near, 2])) if near.any() else world_units(np.array([0.0, 0.0, -1.5]))[2]
    centre = np.array([0.0, world_units(np.array([0.0, height_cm, 0.0]))[1], z])
    direction = np.stack([np.sin(turn), 0 * turn, np.cos(turn)], axis=1)
    radii = np.arange(0.02, 0.22, 0.004)
    points = centre + direction[:, None] * radii[None, :, None]
    outside = surface.field(points.reshape(-1, 3))[0].reshape(len(turn), -1) > 0
    first = np.where(outside.any(1), outside.argmax(1), outside.shape[1] - 1)
    return centre, np.minimum(radii[first], 9.5 * CM)


def _neckwear(wear: WearRecipe, surface: HeadSurface, rng: np.random.Generator) -> list[Part]:
    turn = np.arange(72) * 2 * np.pi / 72
    gap = {"collar": 0.22, "high_collar": 0.5}.get(wear.neckwear, 0.0)
    if gap:
        turn = np.linspace(gap, 2 * np.pi - gap, 73)
    tilt = 1.0 * (1 - np.cos(turn))
    rows = []
    for height, offset in zip(*_NECKWEAR_CM[wear.neckwear]):
        centre, radius = _neck_ring(surface, height + 0.8, turn)
        radius = np.convolve(np.concatenate([radius[-3:], radius, radius[:3]]), np.ones(7) / 7, "valid")
        wave = 0.0
        if wear.neckwear == "scarf":
            wave = 0.35 * np.sin(5 * turn + 1.7 * height) + 0.25 * rng.normal()
        size = radius + (offset + wave) * CM
        ripple = 0.6 * CM * np.sin(24 * turn) * (offset > 3) if wear.neckwear == "ruff" else 0.0
        rows.append(
            centre + np.stack([np.sin(turn) * size, tilt * CM + ripple + 0 * turn, np.cos(turn) * size], axis=1)
        )
    control = np.stack(rows)
    at = np.linspace(0, len(rows) - 1, 5 * len(rows))
    low = np.minimum(at.astype(int), len(rows) - 2)
    points = control[low] + (control[low + 1] - control[low]) * (at - low)[:, None, None]
    rgb = (0.88, 0.87, 0.85) if wear.neckwear == "ruff" else wear.neckwear_rgb
    pattern = {"scarf": str(rng.choice(["knit", "plaid", "stripes", "weave"])), "turtleneck": "knit"}.get(
        wear.neckwear, "weave"
    )
    texture = cloth_texture(rgb, rng, pattern=pattern)
    centre = world_units(np.array([0.0, -13.0, -1.0]))
    return [sheet("clothes", points, texture, closed=not gap, repeat=(2.0, 8.0), outward_from=centre)]


def _necklace(surface: HeadSurface, rng: np.random.Generator) -> list[Part]:
    turn = np.arange(46) * 2 * np.pi / 46
    bead = plain_texture(rng.uniform(0.3, 0.9, 3))
    drop = rng.uniform(-15.5, -13.0)
    beads = []
    for angle in turn:
        height = drop + 1.2 * (1 - np.cos(angle))
        centre, radius = _neck_ring(surface, height, np.array([angle]))
        at = centre + (radius[0] + 0.25 * CM) * np.array([np.sin(angle), 0, np.cos(angle)])
        beads.append(ball("accessory", at, 0.42 * CM, bead, specular=0.5, rows=6))
    return [merged(beads)]

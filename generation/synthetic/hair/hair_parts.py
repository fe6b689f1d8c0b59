"""Hair and beards as parts: strands become ribbons, cards take the hair's colour.

A ribbon is a narrow strip whose texture shows a lock of single hairs that thin out towards the tip. It lies along its
strand and faces away from the head, with a random twist; it does not depend on any camera.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from ...cameras import UNITS_PER_CM as CM
from ..assets import field_rng
from ..bodies.head_surface import HeadSurface, SkinDistance
from ..composed_recipe import ComposedRecipe, HairRecipe
from ..parts import Part, tinted, unit
from ..worn.headgear import BANDS, HeadgearFit
from .cuts import Cut
from .hair_zones import HAT_LINE_Y_CM, beard_weights
from .haircuts import cut_named
from .strands import POINTS, Strands, curled, draw_roots, grow_cut, strands_from_asset

VARIANTS = 8
"""Locks in the texture, side by side."""
_WIDE, _TALL = 24, 96
_TIP_WIDTH = 0.35
"""Width of a ribbon at its tip relative to its middle."""


def hair_parts(recipe: ComposedRecipe, surface: HeadSurface, data: Path, card: Part | None) -> list[Part]:
    """The hair of a recipe: nothing if bald.

    Args:
        card: the fitted card hair if the recipe's hair is one.
    """
    hair, rng = recipe.hair, field_rng(recipe.seed, "hair")
    hat = bool(recipe.wear.headgear) and recipe.wear.headgear not in BANDS
    match hair.kind:
        case "bald" | "own":
            return []
        case "card":
            assert card is not None
            return [_card(card, hair)]
        case "strand":
            strands = strands_from_asset(surface, data, hair, rng)
            texture = hair_texture(hair, rng)
        case "cut":
            strands = grow_cut(surface, hair, rng, flat_above_y=HAT_LINE_Y_CM if hat else None)
            short = cut_named(hair.name).lengths[0] < 4
            texture = hair_texture(hair, rng, density=0.8 if short else 1.0, taper=0.8 if short else 0.55)
    return [ribbons("hair", strands, surface.field, texture, rng, specular=0.1 + 0.35 * hair.wet)]


def _card(card: Part, hair: HairRecipe) -> Part:
    """A card hair in the recipe's colour; its normals are those of the hair's mass, not of single cards."""
    texture = tinted(card.texture, np.array(hair.rgb) * (1 - 0.5 * hair.wet))
    centre = np.array([0.0, 0.05, -0.02])
    radial = card.vertices_world - centre
    radial[:, 1] = np.maximum(radial[:, 1], 0.0) + 0.1 * np.minimum(radial[:, 1], 0.0)
    radial = unit(radial)
    normals = card.normals_world * np.sign((card.normals_world * radial).sum(1, keepdims=True) + 1e-9)
    normals = unit(normals + 0.8 * radial)
    stretched = card.vertices_world.copy()
    low = stretched[:, 1] < 0.0
    factor = np.clip(hair.length, 0.7, 1.3)
    stretched[low, 1] *= factor
    return replace(
        card, texture=texture, normals_world=normals, vertices_world=stretched, specular=0.03 + 0.2 * hair.wet
    )


def under_headgear(part: Part, surface: HeadSurface, fit: HeadgearFit | None) -> Part:
    """Hair without the faces that a headgear hides, pressed to the head near its rim.

    Args:
        fit: of the headgear; None for none.
    """
    if fit is None:
        return part
    distance, outward = surface.field(part.vertices_world)
    pressed = fit.pressure(part.vertices_world) * np.maximum(0, distance - 0.5 * CM)
    moved = replace(part, vertices_world=part.vertices_world - outward * pressed[:, None])
    return moved.with_faces(~fit.covers(part.vertices_world[part.faces].mean(1)))


def beard_parts(recipe: ComposedRecipe, surface: HeadSurface) -> list[Part]:
    """Beard and moustache as ribbons; stubble is painted on the skin instead."""
    beard = recipe.beard
    length_cm = {"goatee": 1.6, "moustache": 1.5, "full": 1.8, "long": 8.0, "sideburns": 1.2}.get(beard.name)
    if length_cm is None:
        return []
    rng = field_rng(recipe.seed, "beard_strands")
    weight = beard_weights(surface.rest_cm, surface.is_ear)[beard.name]
    count = round(
        (3600 if beard.name in ("full", "long") else 2200 if beard.name == "goatee" else 1500) * beard.density
    )
    roots, normals, rest = draw_roots(surface, weight, count, rng)
    n = len(roots)
    if n < 8:
        return []
    on_lip = (rest[:, 1] > -3.7) & (np.abs(rest[:, 0]) < 3.8) & (rest[:, 2] > 6)
    length = length_cm * rng.uniform(0.6, 1.15, n)
    length = np.where(on_lip, np.minimum(length, 1.5), length)
    high = np.clip((rest[:, 1] + 5.0) / 4.0, 0, 1)  # shorter towards the cheeks
    length = length * (1 - 0.6 * high)
    sideways = np.where(rest[:, 0] >= 0, 1.0, -1.0)[:, None] * np.array([[1.0, 0, 0]])
    comb = np.array([[0, -1.0, 0.15]]) + np.where(
        on_lip[:, None], 1.1 * sideways * np.clip(np.abs(rest[:, :1]) / 2, 0.2, 1), 0
    )
    direction = unit(0.55 * normals + comb + rng.normal(0, 0.2, (n, 3)))
    points = np.empty((n, POINTS, 3))
    points[:, 0] = roots - 0.1 * CM * normals
    step = (length / (POINTS - 1) * CM)[:, None]
    for k in range(1, POINTS):
        direction = unit(direction + 0.18 * comb + rng.normal(0, 0.03, (n, 3)))
        points[:, k] = points[:, k - 1] + direction * step
    margin = (0.05 + 0.5 * rng.random(n))[:, None] * CM * np.linspace(0, 1, POINTS)[None]
    points = surface.field.pushed_out(points, margin)
    style = HairRecipe("cut", "beard", beard.rgb, beard.rgb, recipe.hair.grey, curl=0.3, messy=0.5)
    curls = Cut((0.0, 0.0, 0.0), curl=(0.12, 4.0), clump=0.35)
    strands = Strands(curled(points, curls, style, rng), np.full(n, 0.34 * CM))
    texture = hair_texture(style, rng, density=0.7, taper=0.8)
    return [ribbons("beard", strands, surface.field, texture, rng, specular=0.05)]


@functools.lru_cache(maxsize=4)
def lock_opacity(
    density: float = 1.0, taper: float = 0.6
) -> tuple[Float32[np.ndarray, "v t w"], Float32[np.ndarray, "v t w"]]:
    """Opacity and brightness of `VARIANTS` locks, root at the top.

    Args:
        density: share of a lock's width that hairs cover at the root.
        taper: how much shorter than the lock its hairs may be.
    """
    rng = np.random.default_rng(7)
    x = (np.arange(_WIDE) + 0.5) / _WIDE
    t = (np.arange(_TALL) + 0.5)[:, None] / _TALL
    opacity = np.zeros((VARIANTS, _TALL, _WIDE))
    brightness = np.ones((VARIANTS, _TALL, _WIDE))
    for variant in range(VARIANTS):
        total, weight = np.zeros((_TALL, _WIDE)), np.full((_TALL, _WIDE), 1e-3)
        clear = np.ones((_TALL, _WIDE))
        for _ in range(round(15 * density)):
            centre = (
                rng.beta(1.6, 1.6)
                + rng.normal(0, 0.06) * t
                + 0.03 * np.sin(2 * np.pi * (t * rng.uniform(0.5, 1.5) + rng.random()))
            )
            end = 1 - taper * rng.random() ** 1.6
            width = rng.uniform(0.03, 0.07) * np.clip((end - t) / 0.35, 0.15, 1)
            line = np.exp(-(((x[None] - centre) / width) ** 2)) * (t < end)
            clear *= 1 - 0.9 * line
            shade = rng.normal(1.0, 0.16)
            total += line * shade
            weight += line
        edge = np.clip(np.minimum(x, 1 - x) / 0.08, 0, 1)[None]
        opacity[variant] = (1 - clear) * edge
        brightness[variant] = np.clip((total + 1e-3) / weight, 0.5, 1.5) * rng.normal(1, 0.06)
    return opacity.astype(np.float32), brightness.astype(np.float32)


def hair_texture(
    hair: HairRecipe, rng: np.random.Generator, *, density: float = 1.0, taper: float = 0.6
) -> Float32[np.ndarray, "h w 4"]:
    """Locks side by side in the hair's colours: root darker, tips as told, some of them grey."""
    opacity, brightness = lock_opacity(density, taper)
    t = ((np.arange(_TALL) + 0.5) / _TALL)[:, None, None]
    root, tip = np.array(hair.rgb), np.array(hair.tip_rgb)
    lock = []
    for variant in range(VARIANTS):
        base = root * (0.82 + 0.18 * np.clip(t * 4, 0, 1)) * (1 - t**1.5) + tip * t**1.5
        base = base * np.exp(rng.normal(0, 0.075))
        if 0.05 < hair.grey < 0.8 and rng.random() < hair.grey:
            base = 0.35 * base + 0.65 * rng.uniform(0.5, 0.75) * np.array([1, 0.99, 0.97])
        colour = base * brightness[variant][..., None] * (1 - 0.5 * hair.wet)
        lock.append(np.concatenate([np.clip(colour, 0, 1), opacity[variant][..., None]], axis=-1))
    return np.ascontiguousarray(np.concatenate(lock, axis=1), dtype=np.float32)


def ribbons(
    name: str, strands: Strands, field: SkinDistance, texture: Float32[np.ndarray, "h w 4"], rng: np.random.Generator,
    *, specular: float,
) -> Part:  # fmt: skip
    """One part with a strip of triangles per strand.

    Args:
        name: of the part, `hair` or `beard`.
        strands: hairs with their widths.
        field: distance to the skin, for the way the strips face.
        texture: as `hair_texture` makes it.
        rng: twists and choice of locks.
    """
    points = strands.points
    n, p, _ = points.shape
    tangent = unit(np.gradient(points, axis=1))
    _, outward = field(points.reshape(-1, 3))
    outward = outward.reshape(n, p, 3).astype(np.float64)
    facing = _across(outward, tangent)
    sideways = np.cross(tangent, facing)
    twist = rng.uniform(-0.9, 0.9, n)[:, None, None]
    across = np.cos(twist) * sideways + np.sin(twist) * facing
    t = np.linspace(0, 1, p)[None, :, None]
    half = (
        0.5
        * strands.widths[:, None, None]
        * np.where(t < 0.15, 0.6 + 2.7 * t, 1 - (1 - _TIP_WIDTH) * np.clip(t - 0.5, 0, 1) * 2)
    )
    left, right = points - half * across, points + half * across
    vertices = np.stack([left, right], axis=2).reshape(-1, 3)  # strand, point, side
    # light comes as on the hair's whole mass, with the strand's own roundness towards its two edges
    round_normal = np.stack([facing - 0.5 * sideways, facing + 0.5 * sideways], axis=2)
    normals = unit((0.75 * round_normal + 0.6 * outward[:, :, None]).reshape(-1, 3))
    variant = rng.integers(0, VARIANTS, n)[:, None, None]
    column = np.stack([variant + 0.04, variant + 0.96], axis=-1) / VARIANTS
    uv = np.stack(
        [np.broadcast_to(column.reshape(n, 1, 2), (n, p, 2)), np.broadcast_to(0.005 + 0.99 * t, (n, p, 2))], axis=-1
    ).reshape(-1, 2)
    first = (np.arange(n)[:, None] * p + np.arange(p - 1)[None]).reshape(-1) * 2
    faces = np.concatenate([np.stack([first, first + 1, first + 2], 1), np.stack([first + 1, first + 3, first + 2], 1)])
    return Part(
        name, vertices, normals, faces, uv, faces, texture, True, specular,
        tangents_world=np.repeat(tangent.reshape(-1, 3), 2, axis=0),
        fibre_lengths=np.repeat(np.linalg.norm(np.diff(points, axis=1), axis=2).sum(1), 2 * p),
    )  # fmt: skip


def _across(vectors: Float[np.ndarray, "n p 3"], along: Float[np.ndarray, "n p 3"]) -> Float[np.ndarray, "n p 3"]:
    """The share of vectors across a direction, as unit vectors."""
    rest = vectors - along * (vectors * along).sum(2, keepdims=True)
    length = np.linalg.norm(rest, axis=2, keepdims=True)
    spare = unit(np.cross(along, np.array([0.31, 0.17, 0.93])))
    return np.where(length > 0.05, rest / np.maximum(length, 1e-9), spare)

"""Hair and beards as parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..assets import field_rng
from ..bodies.head_surface import HeadSurface, beard_weights
from ..dye import tinted
from ..parts import UNITS_PER_CM, Label, Part
from ..recipe import HairRecipe, HeadRecipe
from ..worn.headgear import HeadgearFit
from .ribbons import hair_texture, ribbons
from .strands import CUTS, POINTS, Cut, Strands, _curled, draw_roots, grow_cut, strands_from_asset

CM = UNITS_PER_CM
HAT_LINE_CM = 6.0
"""Under a hat hair lies flat above this height."""


def hair_parts(recipe: HeadRecipe, surface: HeadSurface, data: Path, card: Part | None) -> list[Part]:
    """The hair of a recipe: nothing if bald.

    Args:
        recipe: of the head.
        surface: the head's skin.
        data: folder of the assets.
        card: the fitted card hair if the recipe's hair is one.
    """
    hair, rng = recipe.hair, field_rng(recipe.seed, "hair")
    hat = bool(recipe.wear.headgear) and recipe.wear.headgear not in ("headband", "crown")
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
            strands = grow_cut(surface, hair, rng, flat_above_y=HAT_LINE_CM if hat else None)
            short = CUTS[hair.name].lengths[0] < 4
            texture = hair_texture(hair, rng, density=0.8 if short else 1.0, taper=0.8 if short else 0.55)
    return [ribbons("hair", strands, surface.field, texture, rng, specular=0.1 + 0.35 * hair.wet)]


def _card(card: Part, hair: HairRecipe) -> Part:
    """A card hair in the recipe's colour; its normals are those of the hair's mass, not of single cards."""
    texture = tinted(card.texture, np.array(hair.rgb) * (1 - 0.5 * hair.wet))
    centre = np.array([0.0, 0.05, -0.02])
    radial = card.vertices_world - centre
    radial[:, 1] = np.maximum(radial[:, 1], 0.0) + 0.1 * np.minimum(radial[:, 1], 0.0)
    radial /= np.maximum(np.linalg.norm(radial, axis=1, keepdims=True), 1e-9)
    normals = card.normals_world * np.sign((card.normals_world * radial).sum(1, keepdims=True) + 1e-9)
    normals = normals + 0.8 * radial
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
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
        part: hair.
        surface: the head's skin.
        fit: of the headgear; None for none.
    """
    if fit is None:
        return part
    distance, outward = surface.field(part.vertices_world)
    pressed = fit.pressure(part.vertices_world) * np.maximum(0, distance - 0.5 * CM)
    moved = replace(part, vertices_world=part.vertices_world - outward * pressed[:, None])
    return moved.with_faces(~fit.covers(part.vertices_world[part.faces].mean(1)))


def beard_parts(recipe: HeadRecipe, surface: HeadSurface) -> list[Part]:
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
    direction = _unit(0.55 * normals + comb + rng.normal(0, 0.2, (n, 3)))
    points = np.empty((n, POINTS, 3))
    points[:, 0] = roots - 0.1 * CM * normals
    step = (length / (POINTS - 1) * CM)[:, None]
    for k in range(1, POINTS):
        direction = _unit(direction + 0.18 * comb + rng.normal(0, 0.03, (n, 3)))
        points[:, k] = points[:, k - 1] + direction * step
    margin = (0.05 + 0.5 * rng.random(n))[:, None] * CM * np.linspace(0, 1, POINTS)[None]
    points = surface.field.pushed_out(points, margin)
    style = HairRecipe("cut", "beard", beard.rgb, beard.rgb, recipe.hair.grey, curl=0.3, messy=0.5)
    curls = Cut((0.0, 0.0, 0.0), curl=(0.12, 4.0), clump=0.35)
    strands = Strands(_curled(points, curls, style, rng), np.full(n, 0.34 * CM))
    texture = hair_texture(style, rng, density=0.7, taper=0.8)
    return [ribbons("beard", strands, surface.field, texture, rng, label=Label.BEARD, specular=0.05)]


def _unit(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)

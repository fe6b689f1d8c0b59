"""Heads of a parametric shape: skin, eyes, brows, hair, beard, clothes and everything worn."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from ...mesh import vertex_normals
from ..assets import field_rng
from ..composed_recipe import ComposedRecipe
from ..hair.hair_parts import beard_parts, hair_parts, under_headgear
from ..hair.hair_zones import beard_weights, scalp_weight
from ..hair.haircuts import cut_named
from ..parts import RGB, Label, Part, box_middle, dyed, read_texture, tinted
from ..worn.accessories import worn_parts
from .head_surface import head_surface
from .parametric_body import base_body, follow_body, proxy_mesh, shape_vertices
from .skin_texture import UvMap, hair_roots, overlaid, skin_labels, toned, uv_map

TEXTURE_SIDE = 1024
_CLOTH_SPECULAR = 0.03
_VEILS = ("headscarf", "bonnet")
"""Headgear that shows no hair at all."""


@functools.lru_cache(maxsize=2)
def _skin_map(data: Path) -> tuple[UvMap, Float32[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
    """The skin's texels: their triangles, and their places on the average head in centimetres."""
    body = base_body(data)
    texels = uv_map(body.uv_unit, body.faces_uv[body.is_skin], TEXTURE_SIDE)
    return texels, texels.bake(body.rest_cm, body.faces[body.is_skin]), texels.triangle >= 0


@functools.lru_cache(maxsize=2)
def _scalp_texels(data: Path) -> Float32[np.ndarray, "s s"]:
    texels, _, _ = _skin_map(data)
    body = base_body(data)
    return texels.bake(scalp_weight(body.rest_cm, body.is_ear), body.faces[body.is_skin])


@functools.lru_cache(maxsize=16)
def _texture(path: Path, side: int) -> Float32[np.ndarray, "h w 4"]:
    texture = read_texture(path, largest_side=side)
    texture.flags.writeable = False
    return texture


def compose_shape(recipe: ComposedRecipe, data: Path) -> list[Part]:
    """The parts of a recipe whose base is `shape`."""
    body, wear = base_body(data), recipe.wear
    vertices_dm = shape_vertices(body, recipe)
    scale, shift = body.transform(vertices_dm)
    vertices = vertices_dm * scale + shift

    def picture(kind: str, name: str, side: int) -> Float32[np.ndarray, "h w 4"]:
        return _texture(data / "makehuman" / kind / f"{name}.webp", side)

    def proxy(
        part: str, kind: str, name: str, texture: Float32[np.ndarray, "h w 4"], *, alpha: bool = False,
        specular: float = 0.0,
    ) -> Part:  # fmt: skip
        mesh, kept = proxy_mesh(data, kind, name)
        faces = mesh["faces"].astype(np.int64)
        points = follow_body(mesh, vertices_dm) * scale + shift
        uv = mesh["uv"].astype(np.float64) * [1, -1] + [0, 1]
        return Part(
            part, points, vertex_normals(points, faces), faces[kept], uv, mesh["faces_uv"].astype(np.int64)[kept],
            texture, alpha, specular,
        )  # fmt: skip

    def cloth(part: str, name: str, rgb: RGB | None) -> Part:
        texture = picture("clothes", name, 512)
        return proxy(part, "clothes", name, texture if rgb is None else dyed(texture, rgb), specular=_CLOTH_SPECULAR)

    clothes = []
    hidden = np.zeros(len(vertices), dtype=bool)
    if wear.garment:
        below = proxy_mesh(data, "clothes", wear.garment)[0]["hide"].astype(np.int64)
        hidden[below[below < len(hidden)]] = True
        clothes.append(cloth("clothes", wear.garment, wear.garment_rgb))
    surface = head_surface(
        vertices, body.faces[body.is_outer], body.rest_cm, body.is_ear,
        np.stack([box_middle(vertices[e]) for e in body.eye_vertices]),
        clothes,
    )  # fmt: skip
    skin_texture, labels = _painted_skin(recipe, data)
    visible = body.is_skin & ~hidden[body.faces].all(1)
    normals = vertex_normals(vertices, body.faces[body.is_body])
    lashes = f"eyelashes0{1 + recipe.seed % 4}"
    parts = [
        Part("skin", vertices, normals, body.faces[visible], body.uv_unit, body.faces_uv[visible], skin_texture, False,
             0.1, labels),
        proxy("eyes", "eyes", "high-poly", picture("eyes", f"{recipe.iris}_eye", 512), alpha=True, specular=0.3),
        proxy("eyelashes", "eyelashes", lashes, picture("eyelashes", lashes, 256), alpha=True),
        proxy("teeth", "mouth", "teeth_base", picture("mouth", "teeth_base", 256), specular=0.1),
    ]  # fmt: skip
    if recipe.eyebrows:
        colour = np.array(recipe.hair.rgb) * (0.75 if sum(recipe.hair.rgb) > 0.9 else 0.95)
        brows = tinted(picture("eyebrows", recipe.eyebrows, 256), colour)
        parts.append(proxy("eyebrows", "eyebrows", recipe.eyebrows, brows, alpha=True))
    card, name = None, recipe.hair.name
    if recipe.hair.kind == "card":
        card = proxy("hair", "hair", name, picture("hair", name, 512), alpha=True, specular=0.03)
    fedora = cloth("headgear", "fedora", wear.headgear_rgb) if wear.headgear == "fedora" else None
    worn, fit = worn_parts(recipe, surface, fedora)
    hair = [under_headgear(part, surface, fit) for part in hair_parts(recipe, surface, data, card)]
    return [*parts, *clothes, *beard_parts(recipe, surface), *hair, *worn]


def _painted_skin(recipe: ComposedRecipe, data: Path) -> tuple[Float32[np.ndarray, "s s 4"], UInt8[np.ndarray, "s s"]]:
    """Texture and labels of the skin: tone, shade under the hair, cropped hair, stubble."""
    body = base_body(data)
    texels, rest_cm, known = _skin_map(data)
    texture = toned(_texture(data / "makehuman" / "skins" / f"{recipe.skin}.jpg", TEXTURE_SIDE), recipe.skin_gain)
    if len(texture) != TEXTURE_SIDE:
        texture = np.repeat(np.repeat(texture, TEXTURE_SIDE // len(texture), 0), TEXTURE_SIDE // len(texture), 1)
    labels = skin_labels(rest_cm, known)
    rng = field_rng(recipe.seed, "skin_paint")
    hair = recipe.hair
    veiled = recipe.wear.headgear in _VEILS
    if hair.kind in ("cut", "strand", "card") and not veiled:
        weight = _scalp_texels(data)
        if hair.name == "mohawk":
            weight = weight * np.clip((2.6 - np.abs(rest_cm[..., 0])) / 0.6, 0.25, 1)
        elif hair.kind == "cut":
            weight = weight * cut_named(hair.name).kept_share(rest_cm)
        density = {"buzz": 0.72, "crop": 0.8}.get(hair.name, 0.85)
        # cards bring their own hairline; below theirs there is skin
        weight = weight if hair.kind != "card" else weight**4 * 0.8
        roots = hair_roots(weight, density, rng)
        texture = overlaid(texture, roots, 0.85 * np.array(hair.rgb))
        if hair.kind == "cut":
            labels = np.where(weight > 0.5, np.uint8(Label.HAIR), labels)
    if recipe.beard.name:
        weight = texels.bake(beard_weights(body.rest_cm, body.is_ear)[recipe.beard.name], body.faces[body.is_skin])
        density = {"stubble": 0.22, "heavy_stubble": 0.45}.get(recipe.beard.name, 0.55) * recipe.beard.density
        texture = overlaid(texture, hair_roots(weight, density, rng), 0.8 * np.array(recipe.beard.rgb))
        if density > 0.3:
            labels = np.where(weight > 0.5, np.uint8(Label.BEARD), labels)
    return texture, labels

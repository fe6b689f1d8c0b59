"""Heads of a parametric shape: skin, eyes, brows, hair, beard, clothes and everything worn."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from ..assets import field_rng
from ..dye import dyed, tinted
from ..hair.hair_parts import beard_parts, hair_parts, under_headgear
from ..parts import Label, Part, SyntheticHead, read_texture, vertex_normals
from ..recipe import HeadRecipe
from ..worn.accessories import worn_parts
from .head_surface import HeadSurface, beard_weights, head_surface, scalp_weight
from .makehuman import follow_body
from .parametric_body import base_body, proxy_mesh, shape_vertices
from .skin_paint import hair_roots, painted, skin_labels, toned
from .uv_map import UvMap, uv_map

TEXTURE_SIDE = 1024
_LABEL_SIDE = 1024


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


def compose_shape(recipe: HeadRecipe, data: Path) -> SyntheticHead:
    """The head of a recipe whose base is `shape`."""
    body, root = base_body(data), data / "makehuman"
    vertices_dm = shape_vertices(body, recipe)
    scale, shift = body.transform(vertices_dm)
    vertices = vertices_dm * scale + shift
    parts: list[Part] = []

    def proxy(
        part: str, kind: str, name: str, texture: Float32[np.ndarray, "h w 4"], alpha: bool, specular: float
    ) -> Part:
        mesh, kept = proxy_mesh(data, kind, name)
        faces = mesh["faces"].astype(np.int64)
        points = follow_body(mesh, vertices_dm) * scale + shift
        uv = mesh["uv"].astype(np.float64) * [1, -1] + [0, 1]
        return Part(
            part, points, vertex_normals(points, faces), faces[kept], uv, mesh["faces_uv"].astype(np.int64)[kept],
            texture, alpha, specular,
        )  # fmt: skip

    clothes = []
    hidden = np.zeros(len(vertices), dtype=bool)
    wear = recipe.wear
    if wear.garment:
        mesh, _ = proxy_mesh(data, "clothes", wear.garment)
        below = mesh["hide"].astype(np.int64)
        hidden[below[below < len(hidden)]] = True
        texture = _texture(root / "clothes" / f"{wear.garment}.webp", 512)
        texture = dyed(texture, wear.garment_rgb) if wear.garment_rgb is not None else texture
        clothes.append(proxy("clothes", "clothes", wear.garment, texture, False, 0.03))
    surface = head_surface(
        vertices, body.faces[body.is_outer], body.rest_cm, body.is_ear,
        np.stack([(vertices[e].min(0) + vertices[e].max(0)) / 2 for e in body.eye_vertices]),
        tuple((c.vertices_world, c.faces) for c in clothes),
    )  # fmt: skip
    skin_texture, labels = _painted_skin(recipe, data, surface)
    visible = body.is_skin & ~hidden[body.faces].all(1)
    normals = vertex_normals(vertices, body.faces[body.is_body])
    faces, faces_uv = body.faces[visible], body.faces_uv[visible]
    parts.append(Part("skin", vertices, normals, faces, body.uv_unit, faces_uv, skin_texture, False, 0.1, labels))
    parts.append(
        proxy("eyes", "eyes", "high-poly", _texture(root / "eyes" / f"{recipe.iris}_eye.webp", 512), True, 0.3)
    )
    lashes = f"eyelashes0{1 + recipe.seed % 4}"
    parts.append(
        proxy("eyelashes", "eyelashes", lashes, _texture(root / "eyelashes" / f"{lashes}.webp", 256), True, 0.0)
    )
    parts.append(proxy("teeth", "mouth", "teeth_base", _texture(root / "mouth" / "teeth_base.webp", 256), False, 0.1))
    if recipe.eyebrows:
        colour = np.array(recipe.hair.rgb) * (0.75 if sum(recipe.hair.rgb) > 0.9 else 0.95)
        brows = tinted(_texture(root / "eyebrows" / f"{recipe.eyebrows}.webp", 256), colour)
        parts.append(proxy("eyebrows", "eyebrows", recipe.eyebrows, brows, True, 0.0))
    parts.extend(clothes)
    hair: list[Part] = []
    if recipe.hair.kind == "card":
        card = proxy(
            "hair", "hair", recipe.hair.name, _texture(root / "hair" / f"{recipe.hair.name}.webp", 512), True, 0.03
        )
        hair = hair_parts(recipe, surface, data, card)
    else:
        hair = hair_parts(recipe, surface, data, None)
    fedora = None
    if wear.headgear == "fedora":
        texture = dyed(_texture(root / "clothes" / "fedora.webp", 512), wear.headgear_rgb)
        fedora = proxy("headgear", "clothes", "fedora", texture, False, 0.03)
    parts.extend(beard_parts(recipe, surface))
    worn, fit = worn_parts(recipe, surface, fedora)
    parts.extend(under_headgear(part, surface, fit) for part in hair)
    parts.extend(worn)
    return SyntheticHead(
        f"{recipe.split}_{recipe.seed}", tuple(p for p in parts if len(p.faces)), recipe.assets, recipe.style,
        {"bald": float(recipe.hair.kind == "bald")},
    )  # fmt: skip


def _painted_skin(
    recipe: HeadRecipe, data: Path, surface: HeadSurface
) -> tuple[Float32[np.ndarray, "s s 4"], np.ndarray]:
    """Texture and labels of the skin: tone, shade under the hair, cropped hair, stubble."""
    body = base_body(data)
    texels, rest_cm, known = _skin_map(data)
    texture = toned(_texture(data / "makehuman" / "skins" / f"{recipe.skin}.jpg", TEXTURE_SIDE), recipe.skin_gain)
    if len(texture) != TEXTURE_SIDE:
        texture = np.repeat(np.repeat(texture, TEXTURE_SIDE // len(texture), 0), TEXTURE_SIDE // len(texture), 1)
    labels = skin_labels(rest_cm, known)
    rng = field_rng(recipe.seed, "skin_paint")
    hair = recipe.hair
    veiled = recipe.wear.headgear in ("headscarf", "bonnet")
    if hair.kind in ("cut", "strand", "card") and not veiled:
        weight = _scalp_texels(data)
        if hair.name == "receding":
            y, z = rest_cm[..., 1], rest_cm[..., 2]
            weight = weight * (1 - np.clip((y - 8) / 2, 0, 1) * np.clip((z + 7.5) / 2.5, 0, 1))
        if hair.name == "mohawk":
            weight = weight * np.clip((2.6 - np.abs(rest_cm[..., 0])) / 0.6, 0.25, 1)
        density = {"buzz": 0.72, "crop": 0.8}.get(hair.name, 0.85)
        # cards bring their own hairline; below theirs there is skin
        weight = weight if hair.kind != "card" else weight**4 * 0.8
        roots = hair_roots(weight, density, rng)
        texture = painted(texture, roots, tuple(0.85 * c for c in hair.rgb))
        if hair.kind == "cut":
            labels = np.where(weight > 0.5, np.uint8(Label.HAIR), labels)
    if recipe.beard.name:
        weight = texels.bake(beard_weights(body.rest_cm, body.is_ear)[recipe.beard.name], body.faces[body.is_skin])
        density = {"stubble": 0.22, "heavy_stubble": 0.45}.get(recipe.beard.name, 0.55) * recipe.beard.density
        texture = painted(texture, hair_roots(weight, density, rng), tuple(0.8 * c for c in recipe.beard.rgb))
        if density > 0.3:
            labels = np.where(weight > 0.5, np.uint8(Label.BEARD), labels)
    return texture, labels

"""Heads of a parametric shape: skin, eyes, brows, hair, beard, clothes and everything worn."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from ...mesh import vertex_normals
from ..assets import field_rng
from ..composed_recipe import ComposedRecipe
from ..hair.hair_parts import beard_parts, hair_parts, under_headgear
from ..hair.hair_zones import beard_weights, scalp_weight
from ..hair.haircuts import cut_named
from ..parts import RGB, Label, Part, box_middle, dyed, read_texture, tinted
from ..worn.accessories import worn_parts
from .head_surface import HeadSurface, head_surface
from .parametric_body import base_body, follow_body, proxy_mesh, shape_vertices
from .skin_texture import UvMap, bare_scalp, hair_roots, overlaid, skin_labels, toned, uv_map

TEXTURE_SIDE = 1024
_CLOTH_SPECULAR = 0.03
_PLAIN_SIDE = 256
_ROOT_DENSITY = 0.85
"""Opacity of cropped hair."""
_STUBBLE = {"stubble": 0.22, "heavy_stubble": 0.45}
"""Opacity of beards that are paint alone."""
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


@functools.lru_cache(maxsize=2)
def _ear_texels(data: Path) -> Bool[np.ndarray, "s s"]:
    texels, _, _ = _skin_map(data)
    body = base_body(data)
    return texels.bake(body.is_ear.astype(np.float64), body.faces[body.is_skin]) > 0.5


@functools.lru_cache(maxsize=16)
def _texture(path: Path, side: int) -> Float32[np.ndarray, "h w 4"]:
    texture = read_texture(path, largest_side=side)
    texture.flags.writeable = False
    return texture


@dataclass(frozen=True)
class DressedBody:
    """A person in a garment, without hair and without what is worn on head and neck: what those are made round."""

    data: Path
    """Folder of the head assets."""
    vertices_dm: Float[np.ndarray, "v 3"]
    """Vertices of the body, helpers included, decimetres."""
    scale: float
    """World units per decimetre."""
    shift: Float[np.ndarray, " 3"]
    """World = scale * decimetres + shift."""
    clothes: tuple[Part, ...]
    """The garment, if one is worn."""
    surface: HeadSurface
    """The skin with its anatomy, and the distance to skin and clothes."""
    visible: Bool[np.ndarray, " f"]
    """Triangles of the skin that no garment hides."""

    def skin(self, texture: Float32[np.ndarray, "h w 4"], labels: UInt8[np.ndarray, "lh lw"]) -> Part:
        """The visible skin."""
        body, vertices = base_body(self.data), self.surface.vertices
        return Part(
            "skin", vertices, vertex_normals(vertices, body.faces[body.is_body]), body.faces[self.visible],
            body.uv_unit, body.faces_uv[self.visible], texture, False, 0.1, labels,
        )  # fmt: skip

    @property
    def bald(self) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
        """Vertices (world) and triangles of the whole skin, also below the garment."""
        body = base_body(self.data)
        return self.surface.vertices, body.faces[body.is_skin]

    def hair_and_worn(self, recipe: ComposedRecipe) -> tuple[list[Part], list[Part]]:
        """Hair of a recipe, pressed and hidden by its headgear, and everything worn but the garment."""
        fit = _Fitting(self.data, self.vertices_dm, self.scale, self.shift)
        card, name, wear = None, recipe.hair.name, recipe.wear
        if recipe.hair.kind == "card":
            card = fit.proxy("hair", "hair", name, fit.picture("hair", name, 512), alpha=True, specular=0.03)
        fedora = fit.cloth("headgear", "fedora", wear.headgear_rgb) if wear.headgear == "fedora" else None
        worn, headgear = worn_parts(recipe, self.surface, fedora)
        hair = hair_parts(recipe, self.surface, self.data, card)
        return [under_headgear(part, self.surface, headgear) for part in hair], worn


@dataclass(frozen=True)
class _Fitting:
    """Proxies, which follow a body's shape; fields as of `DressedBody`."""

    data: Path
    vertices_dm: Float[np.ndarray, "v 3"]
    scale: float
    shift: Float[np.ndarray, " 3"]

    def picture(self, kind: str, name: str, side: int) -> Float32[np.ndarray, "h w 4"]:
        return _texture(self.data / "makehuman" / kind / f"{name}.webp", side)

    def proxy(
        self, part: str, kind: str, name: str, texture: Float32[np.ndarray, "h w 4"], *, alpha: bool = False,
        specular: float = 0.0,
    ) -> Part:  # fmt: skip
        mesh, kept = proxy_mesh(self.data, kind, name)
        faces = mesh["faces"].astype(np.int64)
        points = follow_body(mesh, self.vertices_dm) * self.scale + self.shift
        uv = mesh["uv"].astype(np.float64) * [1, -1] + [0, 1]
        return Part(
            part, points, vertex_normals(points, faces), faces[kept], uv, mesh["faces_uv"].astype(np.int64)[kept],
            texture, alpha, specular,
        )  # fmt: skip

    def cloth(self, part: str, name: str, rgb: RGB | None) -> Part:
        texture = self.picture("clothes", name, 512)
        texture = texture if rgb is None else dyed(texture, rgb)
        return self.proxy(part, "clothes", name, texture, specular=_CLOTH_SPECULAR)


def dressed_body(recipe: ComposedRecipe, data: Path) -> DressedBody:
    """The body of a recipe whose base is `shape`, in its garment."""
    body, garment = base_body(data), recipe.wear.garment
    vertices_dm = shape_vertices(body, recipe)
    scale, shift = body.transform(vertices_dm)
    vertices = vertices_dm * scale + shift
    clothes: list[Part] = []
    hidden = np.zeros(len(vertices), dtype=bool)
    if garment:
        below = proxy_mesh(data, "clothes", garment)[0]["hide"].astype(np.int64)
        hidden[below[below < len(hidden)]] = True
        clothes.append(_Fitting(data, vertices_dm, scale, shift).cloth("clothes", garment, recipe.wear.garment_rgb))
    surface = head_surface(
        vertices, body.faces[body.is_outer], body.rest_cm, body.is_ear,
        np.stack([box_middle(vertices[e]) for e in body.eye_vertices]),
        clothes,
    )  # fmt: skip
    visible = body.is_skin & ~hidden[body.faces].all(1)
    return DressedBody(data, vertices_dm, scale, shift, tuple(clothes), surface, visible)


def compose_shape(recipe: ComposedRecipe, data: Path) -> list[Part]:
    """The parts of a recipe whose base is `shape`."""
    dressed = dressed_body(recipe, data)
    fit = _Fitting(data, dressed.vertices_dm, dressed.scale, dressed.shift)
    iris, lashes, brows = f"{recipe.iris}_eye", f"eyelashes0{1 + recipe.seed % 4}", recipe.eyebrows
    parts = [
        dressed.skin(*_painted_skin(recipe, data)),
        fit.proxy("eyes", "eyes", "high-poly", fit.picture("eyes", iris, 512), alpha=True, specular=0.3),
        fit.proxy("eyelashes", "eyelashes", lashes, fit.picture("eyelashes", lashes, 256), alpha=True),
        fit.proxy("teeth", "mouth", "teeth_base", fit.picture("mouth", "teeth_base", 256), specular=0.1),
    ]
    if brows:
        colour = np.array(recipe.hair.rgb) * (0.75 if sum(recipe.hair.rgb) > 0.9 else 0.95)
        tint = tinted(fit.picture("eyebrows", brows, 256), colour)
        parts.append(fit.proxy("eyebrows", "eyebrows", brows, tint, alpha=True))
    hair, worn = dressed.hair_and_worn(recipe)
    return [*parts, *dressed.clothes, *beard_parts(recipe, dressed.surface), *hair, *worn]


def plain_head(recipe: ComposedRecipe, dressed: DressedBody) -> list[Part]:
    """What covers a head, and the skin in plain colours: no eyes, brows, beard or glasses. A tenth of the time.

    Args:
        recipe: of hair, headgear and neckwear; body and garment are those of `dressed`.
    """
    hair, worn = dressed.hair_and_worn(recipe)
    _, rest_cm, known = _skin_map(dressed.data)
    step = TEXTURE_SIDE // _PLAIN_SIDE
    rest_cm, known = rest_cm[::step, ::step], known[::step, ::step]
    texture = toned(_bare_skin(dressed.data, recipe.skin, _PLAIN_SIDE), recipe.skin_gain)
    scalp, ear = (texels(dressed.data)[::step, ::step] for texels in (_scalp_texels, _ear_texels))
    labels = skin_labels(rest_cm, known, ear)
    if recipe.hair.kind == "cut" and recipe.wear.headgear not in _VEILS:
        weight = scalp * cut_named(recipe.hair.name).kept_share(rest_cm)
        texture = overlaid(texture, _ROOT_DENSITY * weight, 0.85 * np.array(recipe.hair.rgb))
        labels = np.where(weight > 0.5, np.uint8(Label.HAIR), labels)
    shown = (part for part in worn if part.name not in ("accessory", "glasses"))
    return [dressed.skin(texture, labels), *dressed.clothes, *hair, *shown]


@functools.lru_cache(maxsize=16)
def _bare_skin(data: Path, name: str, side: int) -> Float32[np.ndarray, "s s 4"]:
    """A skin with a bald scalp, of `side` texels: `TEXTURE_SIDE` or a part of it."""
    texture = read_texture(data / "makehuman" / "skins" / f"{name}.jpg", largest_side=side)
    if len(texture) != side:
        texture = np.repeat(np.repeat(texture, side // len(texture), 0), side // len(texture), 1)
    step = TEXTURE_SIDE // side
    scalp, rest_cm, ear = (at[::step, ::step] for at in (_scalp_texels(data), _skin_map(data)[1], _ear_texels(data)))
    bare = bare_scalp(texture, scalp, rest_cm, ear)
    bare.flags.writeable = False
    return bare


def _painted_skin(recipe: ComposedRecipe, data: Path) -> tuple[Float32[np.ndarray, "s s 4"], UInt8[np.ndarray, "s s"]]:
    """Texture and labels of the skin: tone, shade under the hair, cropped hair, stubble."""
    body = base_body(data)
    texels, rest_cm, known = _skin_map(data)
    texture = toned(_bare_skin(data, recipe.skin, TEXTURE_SIDE), recipe.skin_gain)
    labels = skin_labels(rest_cm, known, _ear_texels(data))
    rng = field_rng(recipe.seed, "skin_paint")
    hair = recipe.hair
    veiled = recipe.wear.headgear in _VEILS
    if hair.kind in ("cut", "strand", "card") and not veiled:
        weight = _scalp_texels(data)
        if hair.name == "mohawk":
            weight = weight * np.clip((2.6 - np.abs(rest_cm[..., 0])) / 0.6, 0.25, 1)
        elif hair.kind == "cut":
            weight = weight * cut_named(hair.name).kept_share(rest_cm)
        density = {"buzz": 0.72, "crop": 0.8}.get(hair.name, _ROOT_DENSITY)
        # cards bring their own hairline; below theirs there is skin
        weight = weight if hair.kind != "card" else weight**4 * 0.8
        roots = hair_roots(weight, density, rng)
        texture = overlaid(texture, roots, 0.85 * np.array(hair.rgb))
        if hair.kind == "cut":
            labels = np.where(weight > 0.5, np.uint8(Label.HAIR), labels)
    if recipe.beard.name:
        weight = texels.bake(beard_weights(body.rest_cm, body.is_ear)[recipe.beard.name], body.faces[body.is_skin])
        density = _STUBBLE.get(recipe.beard.name, 0.55) * recipe.beard.density
        texture = overlaid(texture, hair_roots(weight, density, rng), 0.8 * np.array(recipe.beard.rgb))
        if density > 0.3 or recipe.beard.name not in _STUBBLE:
            labels = np.where(weight > 0.5, np.uint8(Label.BEARD), labels)
    return texture, labels

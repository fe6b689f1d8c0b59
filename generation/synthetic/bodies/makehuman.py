"""Heads composed of MakeHuman's base mesh, morph targets, skins and proxies (all CC0).

A proxy (hair, eyes, clothes ...) follows the morphed body: each of its vertices is a weighted sum of three body
vertices plus an offset that scales with the body.
Source of the proxy rule: MakeHuman's documentation of the .mhclo format,
http://www.makehumancommunity.org/wiki/Documentation:MHCLO_file_format
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from ..parts import Part, SyntheticHead, read_texture, vertex_normals, world_from_asset

UNITS_PER_METRE = 10.0
"""MakeHuman's meshes are in decimetres."""
BUST_BOTTOM_DM = 4.5
"""Body and clothes below this height of the unmorphed mesh are left out; the morph targets end at 4.2."""
RACES = ("african", "asian", "caucasian")
HAIR_RGB: Mapping[str, tuple[float, float, float]] = {
    "black": (0.05, 0.045, 0.045),
    "dark": (0.13, 0.085, 0.06),
    "brown": (0.25, 0.15, 0.09),
    "blond": (0.62, 0.47, 0.27),
    "red": (0.42, 0.16, 0.06),
    "grey": (0.5, 0.5, 0.5),
    "white": (0.8, 0.8, 0.8),
}
"""Mean sRGB colours that hair and brows are tinted to (before shading)."""
_DETAIL_GROUPS = ("head", "forehead", "eyes", "nose", "mouth", "ears", "chin", "cheek", "eyebrows", "neck")


@dataclass(frozen=True)
class MakeHumanRecipe:
    """One head. Weights are in [0, 1]."""

    seed: int
    """Seed of the small random features."""
    race: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    """Weights of African, Asian and Caucasian shapes."""
    male: float = 0.5
    """0 female, 1 male."""
    old: float = 0.2
    """0 young, 1 old."""
    weight: float = 0.5
    """Body weight."""
    detail: float = 0.35
    """Standard deviation of the 28 random morph weights; 0 leaves the face average."""
    skin: str = "young_lightskinned_male_diffuse"
    """Name of a skin texture."""
    hair: str | None = None
    """Name of a hair proxy; None is bald."""
    hair_colour: str = "brown"
    """Key of `HAIR_RGB`."""
    eyes: str = "brown"
    """Colour of the irises."""
    eyebrows: str | None = "eyebrow001"
    """Name of a brow proxy."""
    clothes: tuple[str, ...] = ()
    """Names of garments and hats."""
    expression: Mapping[str, float] = field(default_factory=dict)
    """Weights of morph targets such as `expression/units/caucasian/mouth-corner-puller`."""


def morphed_vertices(data: Path, recipe: MakeHumanRecipe) -> Float[np.ndarray, "v 3"]:
    """The base mesh with the recipe's targets added, decimetres."""
    base = np.load(data / "makehuman" / "base.npz")
    targets = np.load(data / "makehuman" / "targets_head.npz")
    names = [str(name) for name in targets["names"]]
    number = {name: k for k, name in enumerate(names)}
    vertices = base["verts"].astype(np.float64)

    def add(name: str, weight: float) -> None:
        k = number.get(name)
        if k is None or abs(weight) < 1e-3:  # MakeHuman has no target for its averages
            return
        span = slice(targets["ptr"][k], targets["ptr"][k + 1])
        vertices[targets["idx"][span]] += targets["delta"][span].astype(np.float64) * weight

    thin, heavy = max(0.0, 1 - 2 * recipe.weight), max(0.0, 2 * recipe.weight - 1)
    for gender, gender_weight in (("female", 1 - recipe.male), ("male", recipe.male)):
        for age, age_weight in (("young", 1 - recipe.old), ("old", recipe.old)):
            for race, race_weight in zip(RACES, recipe.race):
                add(f"macrodetails/{race}-{gender}-{age}", race_weight * gender_weight * age_weight)
            for build, build_weight in (("minweight", thin), ("maxweight", heavy)):
                name = f"macrodetails/universal-{gender}-{age}-averagemuscle-{build}"
                add(name, gender_weight * age_weight * build_weight)
    rng = np.random.default_rng(recipe.seed)
    features = [n for n in names if n.split("/")[0] in _DETAIL_GROUPS and "trans" not in n and "age" not in n]
    for name in rng.choice(features, 28, replace=False):
        add(str(name), abs(rng.normal(0.0, recipe.detail)))
    for name, weight in recipe.expression.items():
        if name not in number:
            raise ValueError(f"MakeHumanRecipe.expression: unknown morph target {name!r}")
        add(name, weight)
    return vertices


def follow_body(proxy: Mapping[str, np.ndarray], body: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "p 3"]:
    """Vertices of a proxy on a morphed body."""
    offset = proxy["fit_off"].astype(np.float64)
    for axis in range(3):
        first, second, reference = proxy["scale"][axis]
        if reference != 1.0:
            offset[:, axis] *= abs(body[int(first), axis] - body[int(second), axis]) / reference
    return (body[proxy["fit_idx"].astype(np.int64)] * proxy["fit_w"][..., None]).sum(1) + offset


def tinted(texture: Float32[np.ndarray, "h w 4"], rgb_unit: tuple[float, float, float]) -> Float32[np.ndarray, "h w 4"]:
    """The texture's brightness pattern in another colour, its visible mean at `rgb_unit`."""
    brightness, alpha = texture[..., :3].mean(-1, keepdims=True), texture[..., 3:]
    mean = float((brightness * alpha).sum()) / max(float(alpha.sum()), 1e-6)
    pattern = brightness / mean if mean > 1e-3 else np.ones_like(brightness)  # some brows are plain black
    result = texture.copy()
    result[..., :3] = np.clip(pattern * np.array(rgb_unit, dtype=np.float32), 0, 1)
    return result


def compose_makehuman(data: Path, recipe: MakeHumanRecipe, *, name: str | None = None) -> SyntheticHead:
    """A head by recipe, in the package's world frame.

    Args:
        data: folder of the head assets, with `makehuman` inside.
        recipe: what to compose.
        name: of the head; made from the recipe if not given.
    """
    root = data / "makehuman"
    base = np.load(root / "base.npz")
    body = morphed_vertices(data, recipe)
    groups = [str(g) for g in base["group_names"]]
    faces = base["faces"].astype(np.int64)
    is_body = base["face_group"] == groups.index("body")
    eye_vertices = [
        body[np.unique(faces[base["face_group"] == groups.index(f"helper-{side}-eye")])] for side in ("l", "r")
    ]
    eyes_middle = np.mean([(v.min(0) + v.max(0)) / 2 for v in eye_vertices], axis=0)
    skin_vertices = body[np.unique(faces[is_body])]
    scale, shift = world_from_asset(skin_vertices, eyes_middle, UNITS_PER_METRE)

    parts: list[Part] = []
    assets: list[str] = [f"makehuman/skins/{recipe.skin}"]

    def add_part(
        part: str, vertices: np.ndarray, mesh: Mapping[str, np.ndarray], kept: np.ndarray, texture: np.ndarray,
        alpha_tested: bool, specular: float, closed_faces: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        all_faces = mesh["faces"].astype(np.int64)
        uv = mesh["uv"].astype(np.float64) * [1, -1] + [0, 1]  # v grows downwards here
        parts.append(
            Part(
                part,
                vertices * scale + shift,
                vertex_normals(vertices, all_faces if closed_faces is None else closed_faces),
                all_faces[kept],
                uv,
                mesh["faces_uv"].astype(np.int64)[kept],
                texture,
                alpha_tested,
                specular,
            )
        )

    def add_proxy(part: str, kind: str, proxy: str, texture: np.ndarray, alpha_tested: bool, specular: float) -> None:
        mesh = np.load(root / kind / f"{proxy}.npz")
        vertices = follow_body(mesh, body)
        unmorphed = follow_body(mesh, base["verts"].astype(np.float64))
        kept = unmorphed[mesh["faces"].astype(np.int64)].mean(1)[:, 1] > BUST_BOTTOM_DM
        add_part(part, vertices, mesh, kept, texture, alpha_tested, specular)
        assets.append(f"makehuman/{kind}/{proxy}")

    hidden = np.zeros(len(body), dtype=bool)
    for garment in recipe.clothes:
        below = np.load(root / "clothes" / f"{garment}.npz")["hide"].astype(np.int64)
        hidden[below[below < len(body)]] = True
    above = base["verts"][faces].mean(1)[:, 1] > BUST_BOTTOM_DM
    visible = is_body & above & ~hidden[faces].all(1)
    skin = read_texture(root / "skins" / f"{recipe.skin}.jpg")
    add_part("skin", body, base, visible, skin, False, 0.1, faces[is_body])
    eyes = read_texture(root / "eyes" / f"{recipe.eyes}_eye.webp")
    add_proxy("eyes", "eyes", "high-poly", eyes, True, 0.3)
    hair_rgb = tuple(0.8 * c for c in HAIR_RGB[recipe.hair_colour])
    if recipe.eyebrows:
        brows = tinted(read_texture(root / "eyebrows" / f"{recipe.eyebrows}.webp"), hair_rgb)
        add_proxy("eyebrows", "eyebrows", recipe.eyebrows, brows, True, 0.0)
    lashes = read_texture(root / "eyelashes" / "eyelashes02.webp")
    add_proxy("eyelashes", "eyelashes", "eyelashes02", lashes, True, 0.0)
    add_proxy("teeth", "mouth", "teeth_base", read_texture(root / "mouth" / "teeth_base.webp"), False, 0.1)
    for garment in recipe.clothes:
        add_proxy("clothes", "clothes", garment, read_texture(root / "clothes" / f"{garment}.webp"), False, 0.03)
    if recipe.hair:
        hair = tinted(read_texture(root / "hair" / f"{recipe.hair}.webp"), hair_rgb)
        add_proxy("hair", "hair", recipe.hair, hair, True, 0.08)
    return SyntheticHead(name or f"makehuman_{recipe.seed}_{recipe.hair or 'bald'}", tuple(parts), tuple(assets))

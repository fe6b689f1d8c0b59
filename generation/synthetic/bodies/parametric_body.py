"""Parametric shapes: MakeHuman's body with morph targets, plus the identity modes of scanned faces.

The scanned modes are those of the package's head model (ICT-FaceKit). Both meshes stand in the same frame at the same
size, and the modes are smooth, so each body vertex takes the displacement of the head model's nearest vertices.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import KDTree

from ...head_model.anatomy import centimetres, ramp
from ...head_model.model import load_head_model
from ...prior import capsule
from ..assets import field_rng
from ..composed_recipe import ComposedRecipe
from ..parts import box_middle, world_from_asset
from .head_surface import height_over_skull, nearest_cells

UNITS_PER_METRE = 10.0
"""MakeHuman's meshes are in decimetres."""
BUST_BOTTOM_DM = 4.5
"""Body and clothes below this height of the unmorphed mesh are left out; the morph targets end at 4.2."""
RACES = ("african", "asian", "caucasian")
SCANNED_MODES = 40
_DETAIL_GROUPS = ("head", "forehead", "eyes", "nose", "mouth", "ears", "chin", "cheek", "eyebrows", "neck")
_UNITS: Mapping[str, Mapping[str, float]] = {
    "smile": {"mouth-corner-puller": 0.9, "mouth-upward-retraction": 0.2, "eye-left-slit": 0.25,
              "eye-right-slit": 0.25},
    "laugh": {"mouth-corner-puller": 1.0, "mouth-open": 0.45, "mouth-elevation": 0.4, "eye-left-slit": 0.5,
              "eye-right-slit": 0.5},
    "open": {"mouth-open": 0.7},
    "frown": {"eyebrows-left-down": 0.8, "eyebrows-right-down": 0.8, "mouth-depression": 0.5},
    "surprise": {"eyebrows-left-up": 0.9, "eyebrows-right-up": 0.9, "eye-left-opened-up": 0.8,
                 "eye-right-opened-up": 0.8, "mouth-open": 0.35},
    "squint": {"eye-left-slit": 0.8, "eye-right-slit": 0.8, "nose-compression": 0.4},
    "pout": {"mouth-pursing": 0.6, "mouth-protusion": 0.5},
    "sneer": {"nose-left-elevation": 0.8, "nose-right-elevation": 0.5, "mouth-elevation": 0.4},
    "blink": {"eye-left-closure": 0.95, "eye-right-closure": 0.95},
}  # fmt: skip
"""Weights of morph targets of whole expressions."""


@dataclass(frozen=True)
class BaseBody:
    """What all shapes share."""

    vertices_dm: Float[np.ndarray, "v 3"]
    """The average body."""
    rest_cm: Float[np.ndarray, "v 3"]
    """The same as `head_model.anatomy`."""
    faces: Int[np.ndarray, "f 3"]
    """All triangles, helpers included."""
    faces_uv: Int[np.ndarray, "f 3"]
    """Their texture indices."""
    uv_unit: Float[np.ndarray, "t 2"]
    """Texture coordinates, origin at the top left."""
    is_skin: Bool[np.ndarray, " f"]
    """Triangles of the body above the cut."""
    is_outer: Bool[np.ndarray, " f"]
    """Those of them that are not the mouth's inside."""
    is_body: Bool[np.ndarray, " f"]
    """Triangles of the body, uncut."""
    is_ear: Bool[np.ndarray, " v"]
    """Vertices of the ears."""
    eye_vertices: tuple[Int[np.ndarray, " l"], Int[np.ndarray, " r"]]
    """Vertices of the eye helpers, the head's right (-x) first."""
    targets: Mapping[str, tuple[Int[np.ndarray, " i"], Float32[np.ndarray, "i 3"]]]
    """Morph targets by name: vertices and their displacements, decimetres."""
    scanned: Float32[np.ndarray, "m v 3"]
    """Displacement by one standard deviation of each scanned mode, decimetres."""

    def transform(self, vertices_dm: Float[np.ndarray, "v 3"]) -> tuple[float, Float[np.ndarray, " 3"]]:
        """Scale and shift into the world."""
        return _into_world(vertices_dm, self.faces[self.is_body], self.eye_vertices)


def _into_world(
    vertices_dm: Float[np.ndarray, "v 3"], body_faces: Int[np.ndarray, "f 3"],
    eye_vertices: tuple[Int[np.ndarray, " l"], Int[np.ndarray, " r"]],
) -> tuple[float, Float[np.ndarray, " 3"]]:  # fmt: skip
    middle = np.mean([box_middle(vertices_dm[e]) for e in eye_vertices], axis=0)
    return world_from_asset(vertices_dm[np.unique(body_faces)], middle, UNITS_PER_METRE)


@functools.lru_cache(maxsize=2)
def base_body(data: Path) -> BaseBody:
    """Loads the body and carries the scanned modes over; about a second, once."""
    base = np.load(data / "makehuman" / "base.npz")
    groups = [str(g) for g in base["group_names"]]
    vertices = base["verts"].astype(np.float64)
    faces = base["faces"].astype(np.int64)
    is_body = base["face_group"] == groups.index("body")
    right, left = (np.unique(faces[base["face_group"] == groups.index(f"helper-{side}-eye")]) for side in ("r", "l"))
    scale, shift = _into_world(vertices, faces[is_body], (right, left))
    rest_world = vertices * scale + shift
    rest_cm = centimetres(rest_world)
    is_skin = is_body & (vertices[faces].mean(1)[:, 1] > BUST_BOTTOM_DM)
    model = load_head_model()
    distance, index = KDTree(model.neutral, leafsize=16).query(rest_world, k=6)
    weight = np.exp(-((distance / (0.5 * distance[:, -1:] + 0.004)) ** 2))
    weight = weight / weight.sum(1, keepdims=True) * ramp(rest_cm[:, 1], -14.0, -10.0)[:, None]
    modes = model.identity_basis[:SCANNED_MODES].astype(np.float32)
    scanned = np.einsum("mvkc,vk->mvc", modes[:, index], weight.astype(np.float32)) / scale
    return BaseBody(
        vertices, rest_cm, faces, base["faces_uv"].astype(np.int64), base["uv"].astype(np.float64) * [1, -1] + [0, 1],
        is_skin, is_skin & ~_inside_mouth(rest_world, faces, is_skin), is_body,
        _ears(rest_world, faces[is_skin]), (right, left), _targets(data), scanned.astype(np.float32),
    )  # fmt: skip


def _targets(data: Path) -> dict[str, tuple[Int[np.ndarray, " i"], Float32[np.ndarray, "i 3"]]]:
    with np.load(data / "makehuman" / "targets_head.npz") as file:
        names, ends = [str(name) for name in file["names"]], file["ptr"].astype(np.int64)[1:-1]
        vertices, displacements = file["idx"].astype(np.int64), file["delta"].astype(np.float32)
    return dict(zip(names, zip(np.split(vertices, ends), np.split(displacements, ends))))


def _ears(rest_world: Float[np.ndarray, "v 3"], skin_faces: Int[np.ndarray, "f 3"]) -> Bool[np.ndarray, " v"]:
    """Vertices of the ears: what stands off the skull beside it, and the hollows within."""
    x, y, z = centimetres(rest_world).T
    is_ear = (np.abs(x) > 6.2) & (y > -5.0) & (y < 5.5) & (z > -4.5) & (z < 2.6)
    is_ear &= height_over_skull(rest_world, skin_faces) > 0.004
    # the hollow of the ear lies deeper: grow over neighbouring vertices
    in_reach = (np.abs(x) > 5.8) & (y > -4.6) & (y < 5.5) & (z > -3.6) & (z < 2.2)
    for _ in range(3):
        touched = np.zeros(len(rest_world), bool)
        touched[skin_faces[is_ear[skin_faces].any(1)].ravel()] = True
        is_ear |= touched & in_reach
    return is_ear


def _inside_mouth(
    rest_world: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], is_skin: Bool[np.ndarray, " f"]
) -> Bool[np.ndarray, " f"]:
    """Faces far below the outermost skin in the middle of the head."""
    x, y, _ = centimetres(rest_world)[faces].mean(1).T
    cells, radius = nearest_cells(rest_world[faces].mean(1))
    outermost = capsule.outermost_radius(rest_world, faces[is_skin])[cells]
    return (radius < np.nan_to_num(outermost, nan=0.0) - 0.05) & (y > -7) & (np.abs(x) < 4)


def shape_vertices(body: BaseBody, recipe: ComposedRecipe) -> Float[np.ndarray, "v 3"]:
    """Vertices of a person, helpers included, decimetres."""
    vertices = body.vertices_dm.copy()

    def add(name: str, weight: float) -> None:
        if name in body.targets and abs(weight) >= 1e-3:  # there is no target for averages
            moved, displacement = body.targets[name]
            vertices[moved] += displacement * weight

    child = float(np.clip((0.35 - recipe.age) / 0.3, 0, 1))
    old = float(np.clip((recipe.age - 0.4) / 0.55, 0, 1)) * (1 - child)
    ages = (("child", child), ("young", 1 - child - old), ("old", old))
    thin, heavy = max(0.0, 1 - 2 * recipe.weight), max(0.0, 2 * recipe.weight - 1)
    for gender, gender_weight in (("female", 1 - recipe.male), ("male", recipe.male)):
        for age, age_weight in ages:
            for race, race_weight in zip(RACES, recipe.race):
                add(f"macrodetails/{race}-{gender}-{age}", race_weight * gender_weight * age_weight)
            for build, build_weight in (("minweight", thin), ("maxweight", heavy)):
                name = f"macrodetails/universal-{gender}-{age}-averagemuscle-{build}"
                add(name, gender_weight * age_weight * build_weight)
    person = field_rng(int(recipe.identity), "features")
    names = sorted(body.targets)
    features = [n for n in names if n.split("/")[0] in _DETAIL_GROUPS and "trans" not in n and "age" not in n]
    for name in person.choice(features, 26, replace=False):
        mirrored = str(name).replace("/l-", "/*-").replace("/r-", "/*-")
        weight = abs(person.normal(0.0, 0.3))
        if "*" in mirrored:  # both sides alike, nearly
            add(mirrored.replace("*", "l"), weight)
            add(mirrored.replace("*", "r"), weight * person.uniform(0.85, 1.15))
        else:
            add(str(name), weight)
    for name in person.choice([n for n in names if n.startswith("asym/")], 4, replace=False):
        add(str(name), person.uniform(0, 0.5))
    sigmas = np.clip(field_rng(int(recipe.identity), "scanned").normal(size=SCANNED_MODES), -2, 2)
    vertices += 0.8 * recipe.scanned * np.einsum("m,mvc->vc", sigmas.astype(np.float32), body.scanned)
    for unit, weight in expression_units(recipe).items():
        for race, race_weight in zip(RACES, recipe.race):
            add(f"expression/units/{race}/{unit}", weight * race_weight)
    return vertices


def expression_units(recipe: ComposedRecipe) -> dict[str, float]:
    """Weights of the expression targets of a recipe."""
    if recipe.expression == "neutral":
        return {}
    if recipe.expression != "mixed":
        return {unit: weight * recipe.expression_strength for unit, weight in _UNITS[recipe.expression].items()}
    rng = field_rng(recipe.seed, "mixed")
    units = sorted({unit for units in _UNITS.values() for unit in units if "closure" not in unit})
    chosen = rng.choice(units, 4, replace=False)
    return {str(unit): float(rng.uniform(0, 0.7)) * recipe.expression_strength for unit in chosen}


def follow_body(proxy: Mapping[str, np.ndarray], body: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "p 3"]:
    """Vertices of a proxy on a morphed body."""
    offset = proxy["fit_off"].astype(np.float64)
    for axis in range(3):
        first, second, reference = proxy["scale"][axis]
        if reference != 1.0:
            offset[:, axis] *= abs(body[int(first), axis] - body[int(second), axis]) / reference
    return (body[proxy["fit_idx"].astype(np.int64)] * proxy["fit_w"][..., None]).sum(1) + offset


@functools.lru_cache(maxsize=64)
def proxy_mesh(data: Path, kind: str, name: str) -> tuple[Mapping[str, np.ndarray], Bool[np.ndarray, " f"]]:
    """A proxy's arrays and which of its faces lie above the cut."""
    with np.load(data / "makehuman" / kind / f"{name}.npz") as file:
        mesh = {key: file[key] for key in file.files}
    unmorphed = follow_body(mesh, base_body(data).vertices_dm)
    return mesh, unmorphed[mesh["faces"].astype(np.int64)].mean(1)[:, 1] > BUST_BOTTOM_DM

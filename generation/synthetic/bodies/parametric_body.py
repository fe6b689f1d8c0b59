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
from scipy.spatial import cKDTree

from ...head_model.model import load_head_model
from ...prior import capsule
from ..assets import field_rng
from ..parts import world_from_asset
from ..recipe import HeadRecipe
from .head_surface import centimetres, ramp
from .makehuman import BUST_BOTTOM_DM, RACES, UNITS_PER_METRE, follow_body

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
    """The same as `surface.centimetres`."""
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
    target_names: Mapping[str, int]
    """Rows of the morph targets by name."""
    target_ptr: Int[np.ndarray, " p"]
    target_idx: Int[np.ndarray, " i"]
    target_delta: Float32[np.ndarray, "i 3"]
    scanned: Float32[np.ndarray, "m v 3"]
    """Displacement by one standard deviation of each scanned mode, decimetres."""

    def transform(self, vertices_dm: Float[np.ndarray, "v 3"]) -> tuple[float, Float[np.ndarray, " 3"]]:
        """Scale and shift into the world."""
        middle = np.mean([(vertices_dm[e].min(0) + vertices_dm[e].max(0)) / 2 for e in self.eye_vertices], axis=0)
        return world_from_asset(vertices_dm[np.unique(self.faces[self.is_body])], middle, UNITS_PER_METRE)


@functools.lru_cache(maxsize=2)
def base_body(data: Path) -> BaseBody:
    """Loads the body and carries the scanned modes over; about a second, once."""
    base = np.load(data / "makehuman" / "base.npz")
    targets = np.load(data / "makehuman" / "targets_head.npz")
    groups = [str(g) for g in base["group_names"]]
    vertices = base["verts"].astype(np.float64)
    faces = base["faces"].astype(np.int64)
    is_body = base["face_group"] == groups.index("body")
    eyes = tuple(np.unique(faces[base["face_group"] == groups.index(f"helper-{side}-eye")]) for side in ("r", "l"))
    middle = np.mean([(vertices[e].min(0) + vertices[e].max(0)) / 2 for e in eyes], axis=0)
    scale, shift = world_from_asset(vertices[np.unique(faces[is_body])], middle, UNITS_PER_METRE)
    rest_world = vertices * scale + shift
    rest_cm = centimetres(rest_world)
    is_skin = is_body & (vertices[faces].mean(1)[:, 1] > BUST_BOTTOM_DM)
    skull = capsule.opened_skull_radius(rest_world, faces[is_skin])
    row, column, radius = capsule.cell_coordinates(rest_world)
    inside = np.clip(row.round().astype(int), 0, capsule.ROWS - 1), column.round().astype(int) % capsule.COLUMNS
    x, y, z = rest_cm.T
    is_ear = (np.abs(x) > 6.2) & (y > -5.0) & (y < 5.5) & (z > -4.5) & (z < 2.6) & (radius > skull[inside] + 0.004)
    # the hollow of the ear lies deeper: grow over neighbouring vertices
    in_reach = (np.abs(x) > 5.8) & (y > -4.6) & (y < 5.5) & (z > -3.6) & (z < 2.2)
    for _ in range(3):
        touched = np.zeros(len(vertices), bool)
        touched[faces[is_skin][is_ear[faces[is_skin]].any(1)].ravel()] = True
        is_ear |= touched & in_reach
    centre = rest_cm[faces].mean(1)
    outermost = capsule.outermost_radius(rest_world, faces[is_skin])
    face_row, face_column, face_radius = capsule.cell_coordinates(rest_world[faces].mean(1))
    at = np.clip(face_row.round().astype(int), 0, capsule.ROWS - 1), face_column.round().astype(int) % capsule.COLUMNS
    deep = (
        (face_radius < np.nan_to_num(outermost[at], nan=0.0) - 0.05) & (centre[:, 1] > -7) & (np.abs(centre[:, 0]) < 4)
    )
    model = load_head_model()
    near = cKDTree(model.neutral)
    distance, index = near.query(rest_world, k=6)
    weight = np.exp(-((distance / (0.5 * distance[:, -1:] + 0.004)) ** 2))
    weight = weight / weight.sum(1, keepdims=True) * ramp(rest_cm[:, 1], -14.0, -10.0)[:, None]
    modes = model.identity_basis[:SCANNED_MODES].astype(np.float32)
    scanned = np.einsum("mvkc,vk->mvc", modes[:, index], weight.astype(np.float32)) / scale
    return BaseBody(
        vertices, rest_cm, faces, base["faces_uv"].astype(np.int64), base["uv"].astype(np.float64) * [1, -1] + [0, 1],
        is_skin, is_skin & ~deep, is_body, is_ear, (eyes[0], eyes[1]),
        {str(n): k for k, n in enumerate(targets["names"])}, targets["ptr"].astype(np.int64),
        targets["idx"].astype(np.int64), targets["delta"].astype(np.float32), scanned.astype(np.float32),
    )  # fmt: skip


def shape_vertices(body: BaseBody, recipe: HeadRecipe) -> Float[np.ndarray, "v 3"]:
    """Vertices of a person, helpers included, decimetres."""
    vertices = body.vertices_dm.copy()

    def add(name: str, weight: float) -> None:
        k = body.target_names.get(name)
        if k is None or abs(weight) < 1e-3:  # there is no target for averages
            return
        span = slice(body.target_ptr[k], body.target_ptr[k + 1])
        vertices[body.target_idx[span]] += body.target_delta[span] * weight

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
    names = sorted(body.target_names)
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


def expression_units(recipe: HeadRecipe) -> dict[str, float]:
    """Weights of the expression targets of a recipe."""
    if recipe.expression == "neutral":
        return {}
    if recipe.expression != "mixed":
        return {unit: weight * recipe.expression_strength for unit, weight in _UNITS[recipe.expression].items()}
    rng = field_rng(recipe.seed, "mixed")
    units = sorted({unit for units in _UNITS.values() for unit in units if "closure" not in unit})
    chosen = rng.choice(units, 4, replace=False)
    return {str(unit): float(rng.uniform(0, 0.7)) * recipe.expression_strength for unit in chosen}


@functools.lru_cache(maxsize=64)
def proxy_mesh(data: Path, kind: str, name: str) -> tuple[Mapping[str, np.ndarray], Bool[np.ndarray, " f"]]:
    """A proxy's arrays and which of its faces lie above the cut."""
    with np.load(data / "makehuman" / kind / f"{name}.npz") as file:
        mesh = {key: file[key] for key in file.files}
    unmorphed = follow_body(mesh, base_body(data).vertices_dm)
    return mesh, unmorphed[mesh["faces"].astype(np.int64)].mean(1)[:, 1] > BUST_BOTTOM_DM

"""Toon characters of the KayKit adventurers (CC0), cut at the chest, arms hanging.

Source: https://github.com/KayKit-Game-Assets/KayKit-Character-Pack-Adventures-1.0
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from ..assets import field_rng
from ..composed_recipe import ComposedRecipe
from ..parts import EYES_WORLD, Label, Part, unit

_EYES = np.array([0.0, 1.61, 0.36])
"""Middle between the eyes of every character, the asset's units."""
_WORLD_PER_UNIT = 0.39
_BOTTOM_Y, _ARM_PIVOT = 0.6, (0.22, 1.12)
"""Where characters are cut, and where their arms turn (distance from the middle, height), the asset's units."""
_ARM_DROP_RAD = math.radians(65.0)
_BEARDED = ("Barbarian",)
"""Characters with a beard."""
_BEARD_TOP_Y = -0.005
"""World height below which the hair of a bearded face is beard."""
_EYES_Y, _BROWS_Y, _EYES_HALF_WIDTH, _EYES_Z = (-0.03, 0.027), (0.027, 0.07), 0.125, -0.02
"""Heights of eyes and brows, largest |x| and least z of both, world units from the middle between the eyes: they have
colours of hair."""
_PART_NAMES = {Label.HAIR: "hair", Label.HEADGEAR: "headgear", Label.CLOTH: "clothes"}


@functools.lru_cache(maxsize=5)
def _character(data: Path, name: str) -> tuple[Part, ...]:
    import trimesh

    scene = trimesh.load_scene(data / "kaykit" / f"{name}.glb")
    parts = []
    for node in sorted(scene.graph.nodes_geometry):
        piece = node.removeprefix(name.split("_", maxsplit=1)[0] + "_")
        if piece.startswith("Leg"):
            continue
        transform, geometry = scene.graph[node]
        mesh: Any = scene.geometry[geometry]
        points = trimesh.transform_points(np.asarray(mesh.vertices, dtype=np.float64), transform)
        if piece.startswith("Arm"):
            points = _hanging(points)
        faces = np.asarray(mesh.faces, dtype=np.int64)
        faces = faces[points[faces].mean(1)[:, 1] > _BOTTOM_Y]
        if not len(faces):
            continue
        texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGBA"), dtype=np.float32) / 255
        texture[..., 3] = 1
        uv = np.asarray(mesh.visual.uv, dtype=np.float64) * [1, -1] + [0, 1]
        points = (points - _EYES) * _WORLD_PER_UNIT + EYES_WORLD
        labels, main_label = _labels_of_texels(piece, texture)
        normals = unit(np.asarray(mesh.vertex_normals) @ transform[:3, :3].T)
        part = Part(_PART_NAMES[main_label], points, normals, faces, uv, faces, texture, False, 0.08, labels)
        in_head = "Head" in piece
        kinds = _kinds_of_faces(points[faces].mean(1), name in _BEARDED) if in_head else np.full(len(faces), Label.HAIR)
        for kind in (Label.HAIR, Label.BEARD, Label.BROW, Label.FACE):
            own = np.where(labels == Label.HAIR, np.uint8(kind), labels)
            parts.append(replace(part.with_faces(kinds == kind), labels=own))
    return tuple(p for p in parts if len(p.faces))


def _kinds_of_faces(centre: Float[np.ndarray, "f 3"], bearded: bool) -> UInt8[np.ndarray, " f"]:
    """What the hair's colours are on each triangle of a head: hair, beard, brows or eyes (which are the face's)."""
    x, y, z = (centre - EYES_WORLD).T
    near = (np.abs(x) < _EYES_HALF_WIDTH) & (z > _EYES_Z)
    kinds = np.where((centre[:, 1] < _BEARD_TOP_Y) & (centre[:, 2] > 0.0) & bearded, Label.BEARD, Label.HAIR)
    kinds = np.where(near & (y > _BROWS_Y[0]) & (y < _BROWS_Y[1]), Label.BROW, kinds)
    return np.where(near & (y > _EYES_Y[0]) & (y < _EYES_Y[1]), Label.FACE, kinds).astype(np.uint8)


def _labels_of_texels(piece: str, texture: Float32[np.ndarray, "h w 4"]) -> tuple[UInt8[np.ndarray, "h w"], Label]:
    """Label of each texel for one piece: the palette's skin tones are skin on the head and on the body."""
    red, green, blue = (np.round(texture[..., k] * 255) for k in range(3))
    skin = (red > 232) & (green > 150) & (green < 205) & (blue > 95) & (blue < 175)
    green_hood = (green > red + 30) & (red < 60)
    if "Head" in piece:
        labels = np.where(skin, Label.FACE, np.where(green_hood, Label.HEADGEAR, Label.HAIR))
        return labels.astype(np.uint8), Label.HAIR
    other = Label.HEADGEAR if piece in ("Hat", "Helmet") else Label.CLOTH
    return np.where(skin & (other == Label.CLOTH), Label.NECK, other).astype(np.uint8), other


def _hanging(points: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    side = 1.0 if points[:, 0].mean() > 0 else -1.0
    pivot = np.array([side * _ARM_PIVOT[0], _ARM_PIVOT[1], 0.0])
    angle = -side * _ARM_DROP_RAD
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    return (points - pivot) @ turn.T + pivot


def compose_toon(recipe: ComposedRecipe, data: Path) -> list[Part]:
    """The parts of a recipe whose base is `toon`; two in five take their hats off."""
    bare = field_rng(recipe.seed, "toon_look").random() < 0.4
    return [p for p in _character(data, recipe.identity) if not (bare and p.name == "headgear")]

"""Heads of the VALID busts: skin, painted hair and cloth told apart, recoloured, with things worn.

A bust's body is one mesh with one texture. Which texels are hair, beard or cloth follows from where they lie on the
average head and from their colour: hair and cloth are what differs from the skin of the cheeks in the places where
they may be.

Source of the busts (MIT, (c) 2022 Tiffany Do): Do et al., "VALID: A perceptually validated Virtual Avatar Library for
Inclusion and Diversity", Frontiers in Virtual Reality 2023; glTF conversion
https://github.com/c-frame/valid-avatars-glb.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy import ndimage
from skimage import measure

from ...head_model.anatomy import centimetres
from ..composed_recipe import ComposedRecipe
from ..hair.hair_parts import under_headgear
from ..hair.hair_zones import beard_weights
from ..parts import (
    EYES_WORLD,
    RGB,
    Label,
    Part,
    SyntheticHead,
    box_middle,
    dyed,
    read_texture,
    tinted,
    world_from_asset,
)
from ..worn.accessories import worn_parts
from .head_surface import head_surface, height_over_skull
from .skin_texture import skin_labels, uv_map

_SIDE_TEXELS = 1024
_UNITS_PER_METRE = 1.0
_BALD = ("Black_M_2",)
"""Busts without hair."""
_BEARDED = ("MENA_M_3",)
"""Busts with a beard; on the others a dark jaw is shade."""
_ARM_DROP_RAD = math.radians(68.0)
"""The avatars stand with their arms held out; the arms are turned down by this angle."""
_SHOULDER_X_M = (0.13, 0.23)
"""The turn grows from nothing to all between these distances from the middle."""
_KINDS = {"HighRes": "skin", "eye": "eyes", "gland": "eyes", "Teeth": "teeth", "wig": "hair"}
_EYES_Y_CM = float(centimetres(EYES_WORLD)[1])
_BROW_DARKER = 12
"""Brows are darker than the cheeks by this much, CIELAB lightness as OpenCV has it, of 255."""
_LAB_WEIGHTS = (0.7, 1.3, 1.3)
"""Colours are compared in CIELAB with these factors: hue counts more than light."""


def load_bust(data: Path, name: str, *, largest_side: int | None = None) -> SyntheticHead:
    """One bust as it comes, its arms lowered, in the world frame.

    Args:
        data: folder of the head assets, with `valid` inside.
        largest_side: larger textures are made smaller.
    """
    mesh = np.load(data / "valid" / f"{name}.npz")
    labels = [str(label).split(":") for label in mesh["parts"]]
    eyes = [box_middle(mesh[f"v{k}"]) for k, (part, _) in enumerate(labels) if "_eye" in part]
    eyes_middle = np.mean(eyes, axis=0).astype(np.float64)
    scale, shift = world_from_asset(mesh["v0"].astype(np.float64), eyes_middle, _UNITS_PER_METRE)
    textures = {
        texture: read_texture(data / "valid" / f"{name}_{texture}.webp", largest_side=largest_side)
        for _, texture in labels
    }
    parts = []
    for k, (part, texture) in enumerate(labels):
        faces, uv = mesh[f"f{k}"].astype(np.int64), mesh[f"uv{k}"].astype(np.float64)
        kind = next((kind for piece, kind in _KINDS.items() if piece in part), "other")
        vertices, normals = mesh[f"v{k}"].astype(np.float64), mesh[f"n{k}"].astype(np.float64) / 127
        if kind == "skin":
            vertices, normals = _with_arms_lowered(vertices, normals)
        see_through = bool((textures[texture][..., 3] < 0.5).any())
        specular = 0.3 if kind == "eyes" else 0.08
        parts.append(
            Part(kind, vertices * scale + shift, normals, faces, uv, faces, textures[texture], see_through, specular)
        )
    return SyntheticHead(name, tuple(parts), (f"valid/{name}",))


def _with_arms_lowered(
    vertices: Float[np.ndarray, "v 3"], normals: Float[np.ndarray, "v 3"]
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "v 3"]]:
    """The body with its arms hanging: points turn about the shoulders by an angle that grows outwards."""
    distance = np.abs(vertices[:, 0])
    arm_y = vertices[(distance > 0.35) & (distance < 0.5), 1].mean()
    begin, end = _SHOULDER_X_M
    t = np.clip((distance - begin) / (end - begin), 0, 1)
    side = np.where(vertices[:, 0] < 0, -1.0, 1.0)
    angle = -side * _ARM_DROP_RAD * t * t * (3 - 2 * t)
    pivot = np.stack([side * (begin + end) / 2, np.full(len(side), arm_y)], axis=1)

    def turned(xy: Float[np.ndarray, "v 2"]) -> Float[np.ndarray, "v 2"]:
        c, s = np.cos(angle), np.sin(angle)
        return np.stack([c * xy[:, 0] - s * xy[:, 1], s * xy[:, 0] + c * xy[:, 1]], axis=1)

    return (
        np.concatenate([turned(vertices[:, :2] - pivot) + pivot, vertices[:, 2:]], axis=1),
        np.concatenate([turned(normals[:, :2]), normals[:, 2:]], axis=1),
    )


@functools.lru_cache(maxsize=6)
def _labelled_bust(data: Path, name: str) -> tuple[Part, tuple[Part, ...], Bool[np.ndarray, " v"]]:
    """A bust's body with a label map, its other parts, and which vertices of the body are ears; half a second."""
    head = load_bust(data, name, largest_side=_SIDE_TEXELS)
    body = head.part("skin")
    rest_cm = centimetres(body.vertices_world)
    x, y, z = rest_cm.T
    stands_off = height_over_skull(body.vertices_world, body.faces) > 0.003
    is_ear = (np.abs(x) > 6.4) & (y > -4.5) & (y < 5.0) & (z > -4.0) & (z < 2.4) & stands_off
    labels = _body_labels(body, rest_cm, is_ear, bald=name.startswith(_BALD), bearded=name.startswith(_BEARDED))
    return replace(body, labels=labels), tuple(p for p in head.parts if p.name != "skin"), is_ear


def _body_labels(
    body: Part,
    rest_cm: Float[np.ndarray, "v 3"],
    is_ear: Bool[np.ndarray, " v"],
    *,
    bald: bool,
    bearded: bool,
) -> UInt8[np.ndarray, "s s"]:
    texels = uv_map(body.uv_unit, body.faces_uv, _SIDE_TEXELS)
    known = texels.triangle >= 0
    place = texels.bake(rest_cm, body.faces)
    ear = texels.bake(is_ear.astype(np.float32), body.faces) > 0.3
    x, y, z = np.moveaxis(place, -1, 0)
    beard = texels.bake(beard_weights(rest_cm, is_ear)["full"], body.faces) > 0.3
    beard &= (np.abs(x) < 7.2) & (y > -9.6) & (y > -9.0 + 0.35 * (8 - z))
    lab = cv2.cvtColor(np.ascontiguousarray(body.texture[..., :3]), cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.5)
    labels = skin_labels(place, known, ear)
    cheek = known & (np.abs(x) > 2.0) & (np.abs(x) < 5.5) & (y > -1.5) & (y < 2.0) & (z > 5.0)
    skin = np.median(lab[cheek], axis=0)
    away = _difference(lab, skin)
    crown = known & (y > 10.5) & (z < 2.0)
    hair = np.median(lab[crown], axis=0)
    contrast = float(_difference(hair[None], skin)[0])
    if contrast > 9.0 and not bald:
        to_hair = _difference(lab, hair)
        hairy = (away > 1.05 * to_hair) | (away > 0.55 * contrast + 6)
        scalp = (y > 6.5) | ((z < 4.2) & (y > -3.5) & (y > -0.5 * z - 5)) | ((z < -1.5) & (y > -6.5))
        on_top = ((y > 9.0) & (z < 4.0)) | ((z < -2.5) & (y > -3.5))
        over_ear = _tidy(ear & (to_hair < 0.5 * away), 400)  # a bob, not the shade of an ear's folds
        found = known & scalp & ~ear & (hairy | on_top)
        labels[_tidy(found | over_ear, 60)] = Label.HAIR
        dark = known & beard & bearded & (away > min(0.4 * contrast, 14.0)) & (lab[..., 0] < skin[0] - 5) & ~ear
        lips = ((x / 3.0) ** 2 + ((y + 3.4) / 1.3) ** 2 < 1) & (z > 6)
        dark = _tidy(dark & ~lips, 120)
        if dark.sum() > 0.3 * (known & beard).sum():
            labels[dark] = Label.BEARD
    out, up = np.abs(x) - 3.2, y - _EYES_Y_CM
    brows = known & (np.abs(out) < 2.3) & (up > 0.9) & (up < 3.0) & (z > 4.5) & (labels == Label.FACE)
    labels[_tidy(brows & (lab[..., 0] < skin[0] - _BROW_DARKER), 30)] = Label.BROW
    # shirts leave the neck and a triangle of the chest bare
    neck = (np.abs(x) < 6.5) & ((y > -10.5) | ((z > 0) & (y > -17)))
    bare = _tidy(known & neck & (away < 22), 200)
    below = known & ((y < -9.5 + 0.3 * np.minimum(z, 0)) | ((np.abs(x) > 8.0) & (y < -6.0)))
    cloth = below & ~bare
    high = known & (y < -7.0) & ~beard & (away > 34) & (labels != Label.HAIR)
    labels[_tidy(cloth | high, 60)] = Label.CLOTH
    return labels


def _difference(lab: Float32[np.ndarray, "*n 3"], other: Float32[np.ndarray, " 3"]) -> Float[np.ndarray, "*n"]:
    return np.sqrt((((lab - other) * _LAB_WEIGHTS) ** 2).sum(-1))


def _tidy(mask: Bool[np.ndarray, "s s"], smallest: int) -> Bool[np.ndarray, "s s"]:
    """The mask without specks and pinholes."""
    mask = ndimage.binary_closing(ndimage.binary_opening(mask, iterations=1), iterations=2)
    pieces = np.asarray(measure.label(mask, connectivity=1))
    return mask & (np.bincount(pieces.ravel())[pieces] >= smallest)


def compose_bust(recipe: ComposedRecipe, data: Path) -> list[Part]:
    """The parts of a recipe whose base is `bust`."""
    body, others, is_ear = _labelled_bust(data, recipe.identity)
    texture, rest_cm = body.texture, centimetres(body.vertices_world)
    recoloured = recipe.hair.rgb[0] >= 0
    if recoloured:
        texture = _recoloured(texture, body.label_map, (Label.HAIR, Label.BEARD), recipe.hair.rgb, dye=False)
    if recipe.wear.garment_rgb is not None:
        texture = _recoloured(texture, body.label_map, (Label.CLOTH,), recipe.wear.garment_rgb, dye=True)
    # the texture's two sides overlap in places: what must be cloth is told by place, not by texel
    x, y, z = np.moveaxis(centimetres(body.vertices_world[body.faces].mean(1)), -1, 0)
    shirt = ((y < -12.0) & (z < 0)) | ((np.abs(x) > 8.0) & (y < -8.0)) | (y < -18)
    skin = replace(body, texture=texture)
    cloth = replace(skin.with_faces(shirt & (y > -42.0)), name="clothes", labels=None, specular=0.03)
    parts, hair = [skin.with_faces(~shirt), cloth], []
    for part in others:
        if part.name == "hair":
            shade = tinted(part.texture, recipe.hair.rgb) if recoloured else part.texture
            hair.append(replace(part, texture=shade, specular=0.04))
        else:
            parts.append(part)
    balls = np.stack([box_middle(part.vertices_world) for part in others if part.name == "eyes"])
    eyes = np.stack([balls[balls[:, 0] < 0].mean(0), balls[balls[:, 0] >= 0].mean(0)])
    surface = head_surface(body.vertices_world, body.faces, rest_cm, is_ear, eyes)
    worn, fit = worn_parts(recipe, surface, None)
    return [*parts, *(under_headgear(part, surface, fit) for part in hair), *worn]


def _recoloured(
    texture: Float32[np.ndarray, "s s 4"], labels: UInt8[np.ndarray, "s s"], which: tuple[Label, ...],
    rgb: RGB, *, dye: bool,
) -> Float32[np.ndarray, "s s 4"]:  # fmt: skip
    mask = np.isin(labels, [int(label) for label in which])
    if not mask.any():
        return texture
    masked = texture.copy()
    masked[..., 3] = mask
    shade = dyed(masked, rgb) if dye else tinted(masked, rgb, contrast=0.6)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.2)[..., None]
    result = texture.copy()
    result[..., :3] = texture[..., :3] * (1 - soft) + shade[..., :3] * soft
    return result

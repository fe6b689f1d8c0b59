"""Heads of the VALID busts: skin, painted hair and cloth told apart, recoloured, with things worn.

A bust's body is one mesh with one texture. Which texels are hair, beard or cloth follows from where they lie on the
average head and from their colour: hair and cloth are what differs from the skin of the cheeks in the places where
they may be.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy import ndimage

from ...prior import capsule
from ..dye import dyed, tinted
from ..hair.hair_parts import under_headgear
from ..parts import Label, Part, SyntheticHead
from ..recipe import HeadRecipe
from ..worn.accessories import worn_parts
from .head_surface import HeadSurface, beard_weights, centimetres, head_surface
from .skin_paint import skin_labels
from .uv_map import uv_map
from .valid_busts import compose_valid

_SIDE = 1024
_BALD = ("Black_M_2",)
"""Busts without hair."""


@dataclass(frozen=True)
class LabelledBust:
    """A bust with a label map of its body texture."""

    head: SyntheticHead
    """Its parts."""
    labels: UInt8[np.ndarray, "s s"]
    """Of the body's texture."""
    is_ear: Bool[np.ndarray, " v"]
    """Vertices of the body that belong to the ears."""


@functools.lru_cache(maxsize=6)
def labelled_bust(data: Path, name: str) -> LabelledBust:
    """Loads a bust and finds its labels; about half a second."""
    head = compose_valid(data, name, largest_side=_SIDE)
    body = head.part("skin")
    rest_cm = centimetres(body.vertices_world)
    row, column, radius = capsule.cell_coordinates(body.vertices_world)
    skull = capsule.opened_skull_radius(body.vertices_world, body.faces)
    cell = np.clip(row.round().astype(int), 0, capsule.ROWS - 1), column.round().astype(int) % capsule.COLUMNS
    x, y, z = rest_cm.T
    is_ear = (np.abs(x) > 6.4) & (y > -4.5) & (y < 5.0) & (z > -4.0) & (z < 2.4) & (radius > skull[cell] + 0.003)
    labels = _body_labels(body, rest_cm, is_ear, bald=name.startswith(_BALD))
    return LabelledBust(head, labels, is_ear)


def _body_labels(
    body: Part, rest_cm: Float[np.ndarray, "v 3"], is_ear: Bool[np.ndarray, " v"], *, bald: bool
) -> UInt8[np.ndarray, "s s"]:
    texels = uv_map(body.uv_unit, body.faces_uv, _SIDE)
    known = texels.triangle >= 0
    place = texels.bake(rest_cm, body.faces)
    ear = texels.bake(is_ear.astype(np.float32), body.faces) > 0.3
    x, y, z = np.moveaxis(place, -1, 0)
    beard = texels.bake(beard_weights(rest_cm, is_ear)["full"], body.faces) > 0.3
    beard &= (np.abs(x) < 7.2) & (y > -9.6) & (y > -9.0 + 0.35 * (8 - z))
    lab = cv2.cvtColor(np.ascontiguousarray(body.texture[..., :3]), cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.5)
    labels = skin_labels(place, known)
    cheek = known & (np.abs(x) > 2.0) & (np.abs(x) < 5.5) & (y > -1.5) & (y < 2.0) & (z > 5.0)
    skin = np.median(lab[cheek], axis=0)
    away = np.sqrt((((lab - skin) * [0.7, 1.3, 1.3]) ** 2).sum(-1))
    crown = known & (y > 10.5) & (z < 2.0)
    hair = np.median(lab[crown], axis=0)
    contrast = float(np.sqrt((((hair - skin) * [0.7, 1.3, 1.3]) ** 2).sum()))
    if contrast > 9.0 and not bald:
        to_hair = np.sqrt((((lab - hair) * [0.7, 1.3, 1.3]) ** 2).sum(-1))
        hairy = (away > 1.05 * to_hair) | (away > 0.55 * contrast + 6)
        scalp = (y > 6.5) | ((z < 4.2) & (y > -3.5) & (y > -0.5 * z - 5)) | ((z < -1.5) & (y > -6.5))
        on_top = ((y > 9.0) & (z < 4.0)) | ((z < -2.5) & (y > -3.5))
        found = known & scalp & ~ear & (hairy | on_top)
        labels[_tidy(found, 60)] = Label.HAIR
        dark = known & beard & (away > min(0.4 * contrast, 14.0)) & (lab[..., 0] < skin[0] - 5) & ~ear
        lips = ((x / 3.0) ** 2 + ((y + 3.4) / 1.3) ** 2 < 1) & (z > 6)
        dark = _tidy(dark & ~lips, 120)
        if dark.sum() > 0.3 * (known & beard).sum():
            labels[dark] = Label.BEARD
    # shirts leave the neck and a triangle of the chest bare
    neck = (np.abs(x) < 6.5) & ((y > -10.5) | ((z > 0) & (y > -17)))
    bare = _tidy(known & neck & (away < 22), 200)
    below = known & ((y < -9.5 + 0.3 * np.minimum(z, 0)) | ((np.abs(x) > 8.0) & (y < -6.0)))
    cloth = below & ~bare
    high = known & (y < -7.0) & ~beard & (away > 34) & (labels != Label.HAIR)
    labels[_tidy(cloth | high, 60)] = Label.CLOTH
    return labels


def _tidy(mask: Bool[np.ndarray, "s s"], smallest: int) -> Bool[np.ndarray, "s s"]:
    """The mask without specks and pinholes."""
    mask = ndimage.binary_closing(ndimage.binary_opening(mask, iterations=1), iterations=2)
    pieces, _ = ndimage.label(mask)
    return mask & (np.bincount(pieces.ravel())[pieces] >= smallest)


def compose_bust(recipe: HeadRecipe, data: Path) -> SyntheticHead:
    """The head of a recipe whose base is `bust`."""
    bust = labelled_bust(data, recipe.identity)
    body = bust.head.part("skin")
    texture = body.texture
    recoloured = recipe.hair.rgb[0] >= 0
    if recoloured:
        texture = _recoloured(texture, bust.labels, (Label.HAIR, Label.BEARD), recipe.hair.rgb, dye=False)
    if recipe.wear.garment_rgb is not None:
        texture = _recoloured(texture, bust.labels, (Label.CLOTH,), recipe.wear.garment_rgb, dye=True)
    # the texture's two sides overlap in places: what must be cloth is told by place, not by texel
    x, y, z = np.moveaxis(centimetres(body.vertices_world[body.faces].mean(1)), -1, 0)
    shirt = ((y < -12.0) & (z < 0)) | ((np.abs(x) > 8.0) & (y < -8.0)) | (y < -18)
    skin = replace(body, texture=texture, labels=bust.labels)
    seen = y > -42.0
    parts = [
        skin.with_faces(~shirt),
        replace(skin.with_faces(shirt & seen), name="clothes", labels=None, specular=0.03),
    ]
    hair = []
    for part in bust.head.parts:
        if part.name == "hair":
            shade = tinted(part.texture, recipe.hair.rgb) if recoloured else part.texture
            hair.append(replace(part, texture=shade, specular=0.04))
        elif part.name != "skin":
            parts.append(part)
    surface = _surface(body, bust)
    worn, fit = worn_parts(recipe, surface, None)
    parts += [under_headgear(part, surface, fit) for part in hair] + worn
    return SyntheticHead(
        f"{recipe.split}_{recipe.seed}",
        tuple(p for p in parts if len(p.faces)),
        recipe.assets,
        recipe.style,
        {"bald": 0.0},
    )


def _recoloured(
    texture: Float32[np.ndarray, "s s 4"], labels: UInt8[np.ndarray, "s s"], which: tuple[Label, ...],
    rgb: tuple[float, float, float], *, dye: bool,
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


def _surface(body: Part, bust: LabelledBust) -> HeadSurface:
    eyes = np.stack(
        [(p.vertices_world.min(0) + p.vertices_world.max(0)) / 2 for p in bust.head.parts if p.name == "eyes"]
    )
    right, left = eyes[eyes[:, 0] < 0].mean(0), eyes[eyes[:, 0] >= 0].mean(0)
    return head_surface(
        body.vertices_world, body.faces, centimetres(body.vertices_world), bust.is_ear, np.stack([right, left])
    )

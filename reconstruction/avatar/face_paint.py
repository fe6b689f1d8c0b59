"""Paint for what a still head hides and a moving one shows: lids, whole eyes, inner lips, teeth, gums, tongue, throat.

The prior's texture is right where the portrait is seen. A closed lid, an iris that the lid has covered, or a lip that
was behind teeth have in it whatever lay before them. Here they are painted anew from what is seen beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8

from dp360.generation.cameras import UNITS_PER_CM, Cameras
from dp360.generation.head_model import HeadModel
from dp360.generation.head_model.anatomy import centimetres, ramp
from dp360.generation.head_model.model import PART_FACE, PART_GUMS
from dp360.generation.mesh import vertex_normals
from dp360.generation.mesh_raster import Fragments, interpolate, rasterize_mesh
from dp360.generation.prior.saved_fit import SavedFit
from dp360.generation.prior.texture.atlas import (
    ATLAS_HEIGHT,
    ATLAS_WIDTH,
    MATERIAL_EYE,
    MATERIAL_MOUTH,
    MATERIAL_SKIN,
    MATERIAL_TEETH,
)

from .eye_paint import EyePaint, eye_paint, gaze_direction
from .eyes import hidden_shell
from .lips import lip_distance_cm
from .shapes import tongue

_LIP_SURE_CM = 0.10
"""Lips nearer to the line where they meet are painted anew."""
_LIP_NEAR_CM, _LIP_OFF = 0.5, 0.09
"""So are those nearer than this whose colour is off from the lips' own by more than that."""
_LID_MOVES_CM, _LID_STRETCH, _LID_FACING = 0.2, 1.3, 0.45
"""Skin that a blink moves by more than the first number is lid; it is painted anew where a blink stretches it by more
than the second, or where the portrait saw it at a lower cosine than the third."""
_LID_DARKEST = 0.72
"""What is darker than this share of the skin is brow or lash, and no colour for a lid."""
_TONGUE_RGB, _GUMS_RGB, _THROAT_RGB = (0.66, 0.36, 0.35), (0.62, 0.34, 0.34), (0.34, 0.13, 0.13)
_TEETH_RGB = (0.90, 0.86, 0.79)
_DARK_Z_CM = (2.0, 9.5)
"""Inside of the mouth light fades from the second depth back to the first, on the mean head."""
_LEAST_LIGHT = 0.16


@dataclass(frozen=True)
class _Layout:
    """The texels of the head model's parts."""

    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]
    triangle: Int[np.ndarray, " n"]
    material: UInt8[np.ndarray, " n"]
    part: UInt8[np.ndarray, " n"]
    faces: Int[np.ndarray, "f 3"]
    """Vertices of the head model of each triangle."""
    fragments: Fragments

    @classmethod
    def of(cls, fit: SavedFit, model: HeadModel) -> _Layout:
        inner = np.concatenate([hidden_shell(model), [True]])[fit.head_vertex]
        kept = ~inner[fit.faces].any(1) & (fit.head_vertex[fit.faces] >= 0).all(1)
        atlas_faces = fit.faces[kept]
        flat = np.concatenate([fit.uv_px, np.ones((len(fit.uv_px), 1))], axis=1)
        identity = torch.eye(4, dtype=torch.float64)[None]
        ones, zeros = torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
        fragments = rasterize_mesh(flat, atlas_faces, Cameras(identity, ones, zeros, ATLAS_WIDTH, ATLAS_HEIGHT))
        rows, columns = np.nonzero(fragments.hit)
        triangle = fragments.triangle_index[rows, columns]
        faces = fit.head_vertex[atlas_faces]
        # a triangle on a border belongs to its rarer part: to the inside of the mouth, not to the face
        part = model.part[faces].max(1)[triangle]
        return cls(rows, columns, triangle, fit.material[kept][triangle], part, faces, fragments)

    def at(self, values: Float[np.ndarray, "v k"]) -> Float32[np.ndarray, "n k"]:
        """Attributes of the head model's vertices at the texels."""
        return interpolate(self.fragments, values, self.faces)[self.rows, self.columns]


def repainted(
    fit: SavedFit, model: HeadModel, neutral_head: Float[np.ndarray, "v 3"], portrait_head: Float[np.ndarray, "v 3"]
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
    """Texture and albedo of a head that moves.

    Args:
        fit: what was kept of the prior.
        model: the head model of the fit.
        neutral_head: vertices of the head model without expression, world units.
        portrait_head: the same with the portrait's expression.
    """
    layout = _Layout.of(fit, model)
    lit = fit.texture_rgb.astype(np.float32) / 255
    albedo = fit.albedo_rgb.astype(np.float32) / 255
    sure = (fit.confidence[layout.rows, layout.columns] > 200) & (layout.material == MATERIAL_SKIN)
    place = layout.rows, layout.columns
    skin_lit, skin_albedo = (np.median(picture[place][sure], axis=0) for picture in (lit, albedo))
    without_light = (skin_albedo + 0.02) / (skin_lit + 0.02)
    brightness = float(np.clip(skin_lit.mean() / 0.62, 0.45, 1.12))

    view = _PortraitView.of(fit, model, portrait_head)
    lids = _lids(layout, model, neutral_head, portrait_head, view)
    lips = _inner_lips(layout, model, lit)
    dark = lit[place].mean(1) < _LID_DARKEST * skin_lit.mean()
    for picture in (lit, albedo):
        _inpaint(picture, layout, lids, lids | dark)
        _inpaint(picture, layout, lips, lips)
    depth = layout.at(np.concatenate([centimetres(model.neutral), tongue(model)[:, None]], axis=1))
    _darken_inner_lips(layout, model, (lit, albedo))

    inside = _mouth_colours(layout, depth) * brightness
    teeth = _teeth_colours(depth, brightness)
    for material, colours in ((MATERIAL_MOUTH, inside), (MATERIAL_TEETH, teeth)):
        of = layout.material == material
        where = layout.rows[of], layout.columns[of]
        lit[where], albedo[where] = colours[of], colours[of] * without_light
    for side in (0, 1):
        paint = eye_paint(fit, model, neutral_head, side, view.eye_masks[side], brightness)
        _paint_eye(layout, model, neutral_head, paint, side, (lit, albedo), without_light)
    return _bytes(_grown(lit, layout)), _bytes(_grown(albedo, layout))


def portrait_gaze_rad(
    fit: SavedFit, model: HeadModel, neutral_head: Float[np.ndarray, "v 3"]
) -> Float[np.ndarray, "2 2"]:
    """Yaw (to the head's left) and pitch (down) of the portrait's gaze for either eye: both eyes look one way."""
    gaze = np.array([_gaze(gaze_direction(fit, model, neutral_head, side)) for side in (0, 1)])
    return np.tile(gaze.mean(0), (2, 1))


def _gaze(direction: Float[np.ndarray, " 3"]) -> tuple[float, float]:
    x, y, z = direction
    return float(np.arctan2(x, z)), float(-np.arcsin(np.clip(y, -1, 1)))


@dataclass(frozen=True)
class _PortraitView:
    """What the portrait's camera sees of the fitted head."""

    facing: Float[np.ndarray, " v"]
    """Cosine between each vertex' normal and the line of sight."""
    eye_masks: tuple[Bool[np.ndarray, "s s"], Bool[np.ndarray, "s s"]]
    """Pixels that show the left and the right eyeball, without those at the lids."""

    @classmethod
    def of(cls, fit: SavedFit, model: HeadModel, head: Float[np.ndarray, "v 3"]) -> _PortraitView:
        faces = model.faces[~hidden_shell(model)[model.faces].any(1)]
        away = fit.camera.position_world[0].numpy() - head
        normals = vertex_normals(head, model.faces)
        facing = (normals * away).sum(1) / np.maximum(np.linalg.norm(away, axis=1), 1e-9)
        triangle = rasterize_mesh(head, faces, fit.camera).triangle_index
        part = np.where(triangle >= 0, model.part[faces[np.maximum(triangle, 0), 0]], 255)
        width = max(1, fit.camera.width // 256)
        kernel = np.ones((width + 1, width + 1), np.uint8)
        masks = [cv2.erode((part == number).astype(np.uint8), kernel) > 0 for number in (7, 8)]
        return cls(facing, (masks[0], masks[1]))


def _lids(
    layout: _Layout, model: HeadModel, neutral: Float[np.ndarray, "v 3"], portrait: Float[np.ndarray, "v 3"],
    view: _PortraitView,
) -> Bool[np.ndarray, " n"]:  # fmt: skip
    """Texels of lids that the portrait does not show, or shows folded."""
    moves, closed = np.zeros(len(neutral)), neutral.copy()
    for side in "LR":
        blink = model.expression_basis[model.expression_names.index(f"eyeBlink_{side}")]
        moves += np.linalg.norm(blink, axis=1) / UNITS_PER_CM
        closed += blink
    stretch = _areas(closed, layout.faces) / np.maximum(_areas(portrait, layout.faces), 1e-12)
    of_vertices = _of_corners(stretch, layout.faces, len(neutral))
    at = layout.at(np.stack([moves, of_vertices, view.facing], axis=1))
    skin = (layout.material == MATERIAL_SKIN) & (layout.part == PART_FACE)
    return skin & (at[:, 0] > _LID_MOVES_CM) & ((at[:, 1] > _LID_STRETCH) | (at[:, 2] < _LID_FACING))


def _areas(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, " f"]:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)


def _of_corners(values: Float[np.ndarray, " f"], faces: Int[np.ndarray, "f 3"], count: int) -> np.ndarray:
    """Means of triangles' values at their corners."""
    corners = faces.ravel()
    total = np.bincount(corners, np.repeat(values, 3), minlength=count)
    return total / np.maximum(np.bincount(corners, minlength=count), 1)


def _inner_lips(layout: _Layout, model: HeadModel, lit: Float32[np.ndarray, "h w 3"]) -> Bool[np.ndarray, " n"]:
    """Texels of the lips that the portrait does not show, or shows teeth in their place."""
    distance = layout.at(lip_distance_cm(model)[:, None])[:, 0]
    skin = (layout.material == MATERIAL_SKIN) & (layout.part == PART_FACE)
    colour = lit[layout.rows, layout.columns]
    own = skin & (distance > 0.3) & (distance < 0.75)
    unknown = skin & (distance < _LIP_SURE_CM)
    if own.any():
        y = layout.at(centimetres(model.neutral))[:, 1]
        for upper in (True, False):  # lips differ in colour from one another
            half = (y > -3.35) == upper
            if not (own & half).any():
                continue
            typical = np.median(colour[own & half], axis=0)
            off = np.abs(colour - typical).max(1) > _LIP_OFF + 0.12 * typical.mean()
            unknown |= skin & half & (distance < _LIP_NEAR_CM) & off
    return unknown


def _darken_inner_lips(layout: _Layout, model: HeadModel, pictures: tuple[Float32[np.ndarray, "h w 3"], ...]) -> None:
    """Lips get redder and darker towards the inside of the mouth, in place."""
    distance = layout.at(lip_distance_cm(model)[:, None])[:, 0]
    skin = (layout.material == MATERIAL_SKIN) & (layout.part == PART_FACE) & (distance < 0)
    share = ramp(-distance[skin], 0.0, 1.0)[:, None]
    for picture in pictures:
        place = layout.rows[skin], layout.columns[skin]
        picture[place] *= 1 - share * np.array([0.35, 0.55, 0.55], np.float32)


def _inpaint(
    picture: Float32[np.ndarray, "h w 3"], layout: _Layout, unknown: Bool[np.ndarray, " n"],
    unused: Bool[np.ndarray, " n"],
) -> None:  # fmt: skip
    """Fill unknown texels from others of the face round them, in place.

    Args:
        unused: texels whose colours are not taken; the unknown ones and more.
    """
    size = 1024  # the face's tile
    of_face = (layout.material == MATERIAL_SKIN) & (layout.part == PART_FACE)
    of_face &= (layout.rows < size) & (layout.columns < size)
    known = np.zeros((size, size), np.float32)
    known[layout.rows[of_face & ~unused], layout.columns[of_face & ~unused]] = 1
    hole = np.zeros((size, size), bool)
    hole[layout.rows[of_face & unknown], layout.columns[of_face & unknown]] = True
    if not hole.any():
        return
    known = cv2.erode(known, np.ones((3, 3), np.uint8))
    tile = picture[:size, :size]
    filled = _pull_push(tile * known[..., None], known)
    soft = cv2.GaussianBlur(cv2.dilate(hole.astype(np.float32), np.ones((5, 5), np.uint8)), (0, 0), 1.5)[..., None]
    mixed = tile + (filled - tile) * np.where(hole[..., None], 1.0, soft)
    place = layout.rows[of_face], layout.columns[of_face]
    picture[place] = mixed[place]


def _pull_push(premultiplied: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"]) -> np.ndarray:
    """A smooth picture out of scattered pixels: means at each scale, coarser ones where finer ones know nothing.

    Source: S. Gortler et al., "The Lumigraph", SIGGRAPH 1996, Sec. 3.4.
    """
    if min(weight.shape) <= 2:
        return premultiplied / np.maximum(weight, 1e-6)[..., None]
    half = (weight.shape[1] // 2, weight.shape[0] // 2)
    coarse_weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(premultiplied, half, interpolation=cv2.INTER_AREA)
    scale = np.minimum(4 * coarse_weight, 1) / np.maximum(coarse_weight, 1e-6)
    below = _pull_push(coarse * scale[..., None], coarse_weight * scale)
    below = cv2.resize(below, weight.shape[::-1], interpolation=cv2.INTER_CUBIC)
    share = np.minimum(weight, 1)[..., None]
    return premultiplied / np.maximum(weight, 1)[..., None] + below * (1 - share)


def _mouth_colours(layout: _Layout, depth: Float32[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 3"]:
    """Tongue, gums and throat, darker the farther back."""
    is_tongue = (depth[:, 3] > 0)[:, None]
    gums = np.array(_GUMS_RGB) + (np.array(_TONGUE_RGB) - _GUMS_RGB) * is_tongue
    inside = (layout.part == PART_GUMS)[:, None]
    colour = np.where(inside, gums, _THROAT_RGB)
    return colour * _light_in_mouth(depth[:, 2])[:, None]


def _light_in_mouth(z_cm: Float32[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return _LEAST_LIGHT + (1 - _LEAST_LIGHT) * ramp(z_cm, *_DARK_Z_CM) ** 1.6


def _teeth_colours(depth: Float32[np.ndarray, "n 4"], brightness: float) -> Float[np.ndarray, "n 3"]:
    """Teeth in one colour, darker the farther back."""
    base = np.array(_TEETH_RGB) * brightness
    light = 0.35 + 0.65 * _light_in_mouth(depth[:, 2] - 0.4)
    return base * light[:, None]


def _paint_eye(
    layout: _Layout, model: HeadModel, neutral_head: Float[np.ndarray, "v 3"], paint: EyePaint, side: int,
    pictures: tuple[Float32[np.ndarray, "h w 3"], ...], without_light: Float[np.ndarray, " 3"],
) -> None:  # fmt: skip
    """Put an eye's paint on its texels, in place."""
    of = (layout.material == MATERIAL_EYE) & (layout.part == 7 + side)
    colour = paint.at(layout.at(neutral_head)[of])
    place = layout.rows[of], layout.columns[of]
    pictures[0][place], pictures[1][place] = colour, np.clip(colour * without_light, 0, 1)


def _grown(picture: Float32[np.ndarray, "h w 3"], layout: _Layout) -> Float32[np.ndarray, "h w 3"]:
    """The picture with the small parts' texels continued beyond their borders."""
    small = np.isin(layout.material, (MATERIAL_EYE, MATERIAL_TEETH, MATERIAL_MOUTH))
    covered = np.zeros(picture.shape[:2], np.float32)
    covered[layout.rows, layout.columns] = 1
    source = np.zeros_like(covered)
    source[layout.rows[small], layout.columns[small]] = 1
    weight = cv2.boxFilter(source, -1, (5, 5), normalize=False)
    grown = cv2.boxFilter(picture * source[..., None], -1, (5, 5), normalize=False)
    border = (weight > 0) & (covered == 0)
    result = picture.copy()
    result[border] = grown[border] / weight[border][:, None]
    return result


def _bytes(picture: Float32[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)

"""Paint for what a still head hides and a moving one shows: lids, whole eyes, inner lips, teeth, gums, tongue, throat.

The prior's texture is right where the portrait is seen. A closed lid, an iris that the lid has covered, or a lip that
was behind teeth have in it whatever lay before them. Here they are painted anew from what is seen beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from dp360.generation.head_model import HeadModel
from dp360.generation.head_model.anatomy import centimetres, ramp
from dp360.generation.head_model.model import PART_FACE, PART_GUMS
from dp360.generation.mesh import vertex_normals
from dp360.generation.mesh_raster import rasterize_mesh
from dp360.generation.prior.saved_fit import SavedFit
from dp360.generation.prior.texture.atlas import (
    MATERIAL_EYE,
    MATERIAL_MOUTH,
    MATERIAL_SKIN,
    MATERIAL_TEETH,
)

from .eye_paint import EyePaint, eye_paint, gaze_direction
from .eyes import hidden_shell
from .head_texels import FACE_TILE_PX, HeadTexels, pull_push
from .lid_paint import paint_lids
from .lips import lip_distance_cm
from .shapes import tongue

_LIP_SURE_CM = 0.10
"""Lips nearer to the line where they meet are painted anew."""
_LIP_NEAR_CM, _LIP_OFF = 0.5, 0.09
"""So are those nearer than this whose colour is off from the lips' own by more than that."""
_TONGUE_RGB, _GUMS_RGB, _THROAT_RGB = (0.66, 0.36, 0.35), (0.62, 0.34, 0.34), (0.34, 0.13, 0.13)
_TEETH_LEVEL, _TEETH_TINT = 0.72, 0.3
"""Brightness of teeth that are not shown, and how much of the skin's colour they have: pictures have their own tint."""
_GREY_SATURATION = (0.03, 0.12)
"""Where skin has less colour than the second number the mouth inside gets paler, down to grey at the first."""
_SHOWN, _PALER_THAN_SKIN = 200, 0.75
"""Least confidence of teeth that the portrait shows; their saturation over the skin's is below the second number."""
_LEAST_TEETH_TEXELS, _LEAST_PALE = 120, 0.35
"""Fewer such texels, or a smaller share of those that are shown, are no teeth."""
_DARK_Z_CM = (2.0, 9.5)
"""Inside of the mouth light fades from the second depth back to the first, on the mean head."""
_LEAST_LIGHT = 0.16


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
    texels = HeadTexels.of(fit, model)
    lit = fit.texture_rgb.astype(np.float32) / 255
    albedo = fit.albedo_rgb.astype(np.float32) / 255
    sure = (fit.confidence[texels.rows, texels.columns] > 200) & (texels.material == MATERIAL_SKIN)
    place = texels.rows, texels.columns
    skin_lit, skin_albedo = (np.median(picture[place][sure], axis=0) for picture in (lit, albedo))
    without_light = (skin_albedo + 0.02) / (skin_lit + 0.02)
    brightness = float(np.clip(skin_lit.mean() / 0.62, 0.45, 1.12))

    view = _PortraitView.of(fit, model, portrait_head)
    lips = _inner_lips(texels, model, lit)
    paint_lids(fit, model, texels, neutral_head, portrait_head, view.facing, (lit, albedo))
    for picture in (lit, albedo):
        _inpaint(picture, texels, lips)
    depth = texels.at(np.concatenate([centimetres(model.neutral), tongue(model)[:, None]], axis=1))
    _darken_inner_lips(texels, model, (lit, albedo))

    inside = _mouth_colours(texels, depth) * brightness
    coloured = ramp(_saturation(skin_lit[None]), *_GREY_SATURATION)
    inside = inside.mean(1, keepdims=True) + (inside - inside.mean(1, keepdims=True)) * coloured
    teeth = _teeth_colours(texels, depth, fit.confidence, lit, skin_lit, brightness)
    for material, colours in ((MATERIAL_MOUTH, inside), (MATERIAL_TEETH, teeth)):
        of = texels.material == material
        where = texels.rows[of], texels.columns[of]
        lit[where], albedo[where] = colours[of], colours[of] * without_light
    for side in (0, 1):
        paint = eye_paint(fit, model, neutral_head, side, view.eye_masks[side], brightness)
        _paint_eye(texels, model, neutral_head, paint, side, (lit, albedo), without_light)
    return _bytes(_grown(lit, texels)), _bytes(_grown(albedo, texels))


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


def _inner_lips(texels: HeadTexels, model: HeadModel, lit: Float32[np.ndarray, "h w 3"]) -> Bool[np.ndarray, " n"]:
    """Texels of the lips that the portrait does not show, or shows teeth in their place."""
    distance = texels.at(lip_distance_cm(model)[:, None])[:, 0]
    skin = (texels.material == MATERIAL_SKIN) & (texels.part == PART_FACE)
    colour = lit[texels.rows, texels.columns]
    own = skin & (distance > 0.3) & (distance < 0.75)
    unknown = skin & (distance < _LIP_SURE_CM)
    if own.any():
        y = texels.at(centimetres(model.neutral))[:, 1]
        for upper in (True, False):  # lips differ in colour from one another
            half = (y > -3.35) == upper
            if not (own & half).any():
                continue
            typical = np.median(colour[own & half], axis=0)
            off = np.abs(colour - typical).max(1) > _LIP_OFF + 0.12 * typical.mean()
            unknown |= skin & half & (distance < _LIP_NEAR_CM) & off
    return unknown


def _darken_inner_lips(
    texels: HeadTexels, model: HeadModel, pictures: tuple[Float32[np.ndarray, "h w 3"], ...]
) -> None:
    """Lips get redder and darker towards the inside of the mouth, in place."""
    distance = texels.at(lip_distance_cm(model)[:, None])[:, 0]
    skin = (texels.material == MATERIAL_SKIN) & (texels.part == PART_FACE) & (distance < 0)
    share = ramp(-distance[skin], 0.0, 1.0)[:, None]
    for picture in pictures:
        place = texels.rows[skin], texels.columns[skin]
        picture[place] *= 1 - share * np.array([0.35, 0.55, 0.55], np.float32)


def _inpaint(picture: Float32[np.ndarray, "h w 3"], texels: HeadTexels, unknown: Bool[np.ndarray, " n"]) -> None:
    """Fill unknown texels from others of the face round them, in place."""
    size = FACE_TILE_PX
    of_face = (texels.material == MATERIAL_SKIN) & (texels.part == PART_FACE)
    of_face &= (texels.rows < size) & (texels.columns < size)
    known = np.zeros((size, size), np.float32)
    known[texels.rows[of_face & ~unknown], texels.columns[of_face & ~unknown]] = 1
    hole = np.zeros((size, size), bool)
    hole[texels.rows[of_face & unknown], texels.columns[of_face & unknown]] = True
    if not hole.any():
        return
    known = cv2.erode(known, np.ones((3, 3), np.uint8))
    tile = picture[:size, :size]
    filled = pull_push(tile * known[..., None], known)
    soft = cv2.GaussianBlur(cv2.dilate(hole.astype(np.float32), np.ones((5, 5), np.uint8)), (0, 0), 1.5)[..., None]
    mixed = tile + (filled - tile) * np.where(hole[..., None], 1.0, soft)
    place = texels.rows[of_face], texels.columns[of_face]
    picture[place] = mixed[place]


def _mouth_colours(texels: HeadTexels, depth: Float32[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 3"]:
    """Tongue, gums and throat, darker the farther back."""
    is_tongue = (depth[:, 3] > 0)[:, None]
    gums = np.array(_GUMS_RGB) + (np.array(_TONGUE_RGB) - _GUMS_RGB) * is_tongue
    inside = (texels.part == PART_GUMS)[:, None]
    colour = np.where(inside, gums, _THROAT_RGB)
    return colour * _light_in_mouth(depth[:, 2])[:, None]


def _light_in_mouth(z_cm: Float32[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return _LEAST_LIGHT + (1 - _LEAST_LIGHT) * ramp(z_cm, *_DARK_Z_CM) ** 1.6


def _teeth_colours(
    texels: HeadTexels, depth: Float32[np.ndarray, "n 4"], confidence: UInt8[np.ndarray, "h w"],
    lit: Float32[np.ndarray, "h w 3"], skin: Float[np.ndarray, " 3"], brightness: float,
) -> Float[np.ndarray, "n 3"]:  # fmt: skip
    """Teeth as the portrait shows them, the others in their tone; in one typical colour where it shows none. Darker the
    farther back.

    Args:
        lit: the texture, as the prior has it at the teeth.
        skin: the skin's colour in it.
    """
    light = (0.35 + 0.65 * _light_in_mouth(depth[:, 2] - 0.4))[:, None]
    tint = 1 + _TEETH_TINT * (skin / max(float(skin.mean()), 1e-3) - 1)
    typical = _TEETH_LEVEL * brightness * tint * light
    colour = lit[texels.rows, texels.columns]
    saturation, skin_saturation = _saturation(colour), float(_saturation(skin[None])[0])
    shown = (texels.material == MATERIAL_TEETH) & (confidence[texels.rows, texels.columns] > _SHOWN)
    # a mouth that is shut shows lips where the fit has teeth, for it is not right to the pixel
    pale = shown & (saturation < _PALER_THAN_SKIN * skin_saturation) & (colour.mean(1) > 0.8 * skin.mean())
    if pale.sum() < max(_LEAST_TEETH_TEXELS, _LEAST_PALE * shown.sum()):
        return typical
    tone = np.median(colour[pale] / light[pale], axis=0)
    trust = np.zeros(lit.shape[:2], np.float32)
    trust[texels.rows[shown], texels.columns[shown]] = saturation[shown] < skin_saturation
    trust = np.minimum(2 * cv2.GaussianBlur(trust, (0, 0), 1.0), 1) * (trust > 0)
    own = np.minimum(tone, 1.0) * light
    return own + (colour - own) * trust[texels.rows, texels.columns][:, None]


def _saturation(rgb: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
    return 1 - rgb.min(-1) / np.maximum(rgb.max(-1), 1e-3)


def _paint_eye(
    texels: HeadTexels, model: HeadModel, neutral_head: Float[np.ndarray, "v 3"], paint: EyePaint, side: int,
    pictures: tuple[Float32[np.ndarray, "h w 3"], ...], without_light: Float[np.ndarray, " 3"],
) -> None:  # fmt: skip
    """Put an eye's paint on its texels, in place."""
    of = (texels.material == MATERIAL_EYE) & (texels.part == 7 + side)
    colour = paint.at(texels.at(neutral_head)[of])
    place = texels.rows[of], texels.columns[of]
    pictures[0][place], pictures[1][place] = colour, np.clip(colour * without_light, 0, 1)


def _grown(picture: Float32[np.ndarray, "h w 3"], texels: HeadTexels) -> Float32[np.ndarray, "h w 3"]:
    """The picture with the small parts' texels continued beyond their borders."""
    small = np.isin(texels.material, (MATERIAL_EYE, MATERIAL_TEETH, MATERIAL_MOUTH))
    covered = np.zeros(picture.shape[:2], np.float32)
    covered[texels.rows, texels.columns] = 1
    source = np.zeros_like(covered)
    source[texels.rows[small], texels.columns[small]] = 1
    weight = cv2.boxFilter(source, -1, (5, 5), normalize=False)
    grown = cv2.boxFilter(picture * source[..., None], -1, (5, 5), normalize=False)
    border = (weight > 0) & (covered == 0)
    result = picture.copy()
    result[border] = grown[border] / weight[border][:, None]
    return result


def _bytes(picture: Float32[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)

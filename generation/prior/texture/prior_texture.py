"""Paint the prior: what the portrait shows, its mirror image where that is hidden, and a completion where both are.

Every texel looks itself up in the portrait, and its reflection about the head's middle plane as well, and divides what
it finds by the light there. What the portrait plainly shows stays as it is. Everything else is the expected smooth
colour plus the difference between it and what is seen nearby, which fades with the distance, so that there is no
border; hair gets locks along its flow, with the contrast of the hair that is seen, and ends hair by hair on the skin.
Colours count as seen only where the matte is solid and the class fits. All of it is painted in even light, and the
light of the portrait put on again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from ...head_model import HeadModel
from ...light.spherical_harmonics import Light
from ...portrait import Portrait
from ...system import give_back_memory
from ..field.chart import at_points
from ..field.head_field import HeadField
from ..field.seen_cover import all_hair
from ..hair.beard import beard_share
from ..hair.flow_field import HairFlow
from ..labels.portrait_labels import PortraitLabels
from ..light.head_light import HeadLight, light_of_portrait
from ..light.shade_network import SHADE, shade_of_picture
from ..worn.glasses import Glasses
from ..worn.headgear import Headgear, headgear_pixels, without_headgear
from .atlas import (
    BUST_TILE,
    MATERIAL_CLOTH,
    MATERIAL_EYE,
    MATERIAL_HAIR,
    MATERIAL_MOUTH,
    MATERIAL_TEETH,
    SHELL_TILE,
    AtlasMesh,
    AtlasTexels,
    Tile,
    atlas_texels,
    fill_uncovered,
)
from .cloth_paint import ClothSurface, paint_cloth
from .expected_colours import ExpectedColours
from .glasses_paint import paint_glasses, paint_hidden_eyes
from .headgear_paint import paint_headgear
from .looked_up import LookedUp
from .painted import Painted
from .portrait_lookup import PictureOfMesh, SeenPoints, picture_of_portrait, seen_in_tile
from .shell_paint import PaintedShell, ended_softly, paint_shell, without_glare_on_skin
from .skin_detail import SkinDetail
from .skin_paint import paint_skin

_PLAINLY, _LEAST_EYE_TEXELS, _PALER = 0.7, 150, 0.7
"""Eye texels that are trusted more than the first number tell the colour of the white, if there are at least as many as
the second and they have less than the third share of the skin's saturation."""
_PLAIN_WHITE, _LIT_SKIN = np.array([0.70, 0.68, 0.67]), 0.5
"""The white of eyes in the shade of their lids, beside skin of at least this brightness."""


@dataclass(frozen=True)
class PriorTexture:
    """The painted atlas."""

    rgb: UInt8[np.ndarray, "h w 3"]
    """Colour in the light that was asked for, sRGB."""
    albedo: UInt8[np.ndarray, "h w 3"]
    """Colour without light, sRGB, as bright as the portrait's skin on the whole."""
    confidence: Float32[np.ndarray, "h w"]
    """1 where the portrait shows the texel, about 0.5 where its mirror image does, 0 where it is made up."""
    portrait_light: Light | None = None
    """The light that the portrait was taken in; None where it could not be told."""
    step: int = 1
    """The atlas' texels per texel along each axis; texture coordinates of the mesh count the atlas'."""


def paint_prior(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, mesh: AtlasMesh, flow: HairFlow, field: HeadField,
    *, glasses: Glasses | None = None, headgear: Headgear | None = None, seed: int = 0, wanted: Light | None = None,
    step: int = 1,
) -> PriorTexture:  # fmt: skip
    """Paint the atlas of a fitted prior from its portrait.

    Args:
        portrait: aligned portrait.
        labels: its classes.
        model: the head model.
        mesh: head, shell and bust with their texture layout.
        flow: where hair runs on the shell.
        field: what the head is to be expected to have where the portrait does not show it.
        glasses: taken off the skin, and painted where the mesh has them.
        headgear: as the mesh has it.
        seed: seed of the synthesised hair and cloth.
        wanted: the light to paint it in; the portrait's own if not given.
        step: the atlas' texels per painted one along each axis.
    """
    hat = headgear_pixels(labels)
    labels = labels if headgear is None else without_headgear(labels)
    picture = picture_of_portrait(portrait, labels, mesh, glasses)
    log_light = shade_of_picture(portrait.rgb, portrait.head.camera, SHADE.load())
    head_light = light_of_portrait(portrait, labels, model, mesh, picture, log_light, wanted)
    give_back_memory()  # what was freed so far; the painting takes as much again
    texels = atlas_texels(mesh, step)
    texture, confidence = _painted(
        portrait, labels, model, mesh, flow, field, picture, head_light, texels, hat,
        glasses=glasses, headgear=headgear, seed=seed,
    )  # fmt: skip
    give_back_memory()
    place = texels.rows, texels.columns
    covered = np.zeros(texels.shape, bool)
    covered[place] = True
    head_rows = texels.painted_tile(SHELL_TILE)[1]  # below lie the tiles that are full
    albedo = _in_bytes(texture, covered, head_rows)
    texture[place] *= texels.interpolated(head_light.wanted_shade, mesh.faces)
    return PriorTexture(_in_bytes(texture, covered, head_rows), albedo, confidence, head_light.light, step)


def _painted(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, mesh: AtlasMesh, flow: HairFlow, field: HeadField,
    picture: PictureOfMesh, head_light: HeadLight, texels: AtlasTexels, hat: Bool[np.ndarray, "s s"],
    *, glasses: Glasses | None, headgear: Headgear | None, seed: int,
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:  # fmt: skip
    """Colours in even light, sRGB, and confidence of all parts; what they are made of goes when this returns."""
    looked_up = LookedUp.of(portrait, labels, picture, model, mesh, texels, head_light)
    expected = ExpectedColours.of(field if headgear is None else all_hair(field), texels, looked_up)

    texture, confidence = np.zeros((*texels.shape, 3), np.float32), np.zeros(texels.shape, np.float32)

    def numbers(material: int) -> Int[np.ndarray, " n"]:
        return np.nonzero(texels.material == material)[0]

    def tile_of(chosen: Int[np.ndarray, " n"], seen: SeenPoints, tile: Tile) -> SeenPoints:
        return seen_in_tile(texels, chosen, seen, tile)

    def shade_at(chosen: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n 3"]:
        return texels.interpolated(head_light.shade, mesh.faces, chosen)

    def mirrored_shade_at(chosen: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n 3"]:
        return texels.interpolated(head_light.mirrored_shade, mesh.faces, chosen)

    def hair() -> PaintedShell | None:
        chosen = numbers(MATERIAL_HAIR)
        if not len(chosen):
            return None

        def skin_at(some: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m 3"]:
            return at_points(expected.skin, texels.points_world[chosen[some]])

        def plain(seen: SeenPoints, shade: Float32[np.ndarray, "n 3"]) -> SeenPoints:
            return tile_of(chosen, without_glare_on_skin(seen, shade, looked_up.typical.skin, skin_at), SHELL_TILE)

        own = plain(looked_up.own[chosen], shade_at(chosen))
        mirrored = plain(looked_up.mirrored_at(chosen), mirrored_shade_at(chosen))
        return paint_shell(own, mirrored, expected, flow, seed, texels.step)

    def cloth() -> tuple[np.ndarray, np.ndarray] | None:
        chosen = numbers(MATERIAL_CLOTH)
        if not len(chosen):
            return None
        seen = tile_of(chosen, looked_up.own[chosen], BUST_TILE)
        surface = ClothSurface.of(texels, chosen, mesh, BUST_TILE, portrait.head.camera.position_world[0].numpy())
        return paint_cloth(seen, expected, surface, seed)

    def detail() -> Float32[np.ndarray, "h w 3"] | None:
        shell = painted_hair.result()
        return None if shell is None else shell.detail

    with ThreadPoolExecutor(1) as beside:  # hair while cloth and skin are painted, which wait for the hair's detail
        painted_hair, of_cloth = beside.submit(hair), cloth()
        fine, beard = SkinDetail.of(portrait, labels), beard_share(portrait, labels, model)
        skin = paint_skin(
            model, mesh, picture, head_light, texels, looked_up, expected, detail, flow, fine, beard, seed
        )
        shell, of_hair = painted_hair.result(), None
        if shell is not None:
            of_hair = ended_softly(shell, skin.hairline, skin.under_shell, texels.step), shell.confidence
    for tile, made in ((SHELL_TILE, of_hair), (BUST_TILE, of_cloth)):
        if made is not None:
            x, y, width, height = texels.painted_tile(tile)
            place = slice(y, y + height), slice(x, x + width)
            texture[place], confidence[place] = made
    typical = looked_up.typical.skin

    worn = [] if glasses is None else [paint_glasses(glasses, portrait, labels, picture, texels, shade_at)]
    if glasses is not None and glasses.lens_rgb is not None:
        worn.append(paint_hidden_eyes(glasses, texels, looked_up.own, typical))
    if headgear is not None:
        worn.append(paint_headgear(headgear, hat, picture, texels, shade_at, mirrored_shade_at, seed))
    for painted in (skin.painted, _paint_small_parts(texels, looked_up.own, typical), *worn):
        place = texels.rows[painted.texels], texels.columns[painted.texels]
        texture[place], confidence[place] = painted.rgb_unit, painted.confidence
    return texture, confidence


def _in_bytes(
    texture: Float32[np.ndarray, "h w 3"], covered: Bool[np.ndarray, "h w"], head_rows: int
) -> UInt8[np.ndarray, "h w 3"]:
    """The atlas in 8 bits; texels beside covered ones continue them in its first rows."""
    parts = fill_uncovered(texture[:head_rows], covered[:head_rows]), texture[head_rows:]
    return np.concatenate([(np.clip(part, 0, 1) * 255 + 0.5).astype(np.uint8) for part in parts])


def _paint_small_parts(texels: AtlasTexels, own: SeenPoints, skin_rgb: Float[np.ndarray, " 3"]) -> Painted:
    """Eyes, teeth and the inside of the mouth: seen where they are seen, plain elsewhere."""
    plain = {
        MATERIAL_MOUTH: skin_rgb * np.array([0.45, 0.3, 0.3]),
        MATERIAL_TEETH: np.array([0.80, 0.76, 0.70]),
        MATERIAL_EYE: _eye_white(own[texels.material == MATERIAL_EYE], skin_rgb, texels.step),
    }
    chosen = np.nonzero(np.isin(texels.material, list(plain)))[0]
    base = np.zeros((len(chosen), 3))
    for material, colour in plain.items():
        base[texels.material[chosen] == material] = colour
    trust = own.trust[chosen]
    return Painted(chosen, base + (own.colour[chosen] - base) * trust[:, None], trust)


def _eye_white(seen: SeenPoints, skin_rgb: Float[np.ndarray, " 3"], step: int = 1) -> Float[np.ndarray, " 3"]:
    """Colour of the white of the eyes: what is bright in them and less coloured than the skin; a plain one where too
    little is seen.

    Args:
        seen: what the portrait shows of the texels of the eyes.
        skin_rgb: the skin's typical colour.
    """
    colour = seen.colour[seen.trust > _PLAINLY].astype(np.float64)
    if len(colour):
        brightness = colour.mean(1)
        bright, glint = np.quantile(brightness, (0.6, 0.97))
        saturation = np.ptp(skin_rgb) / max(float(skin_rgb.mean()), 0.05)
        pale = np.ptp(colour, axis=1) < _PALER * saturation * brightness
        colour = colour[pale & (brightness >= bright) & (brightness <= glint)]
    if len(colour) < _LEAST_EYE_TEXELS // step**2:
        return _PLAIN_WHITE * min(1.0, float(skin_rgb.mean()) / _LIT_SKIN)
    return np.median(colour, axis=0)

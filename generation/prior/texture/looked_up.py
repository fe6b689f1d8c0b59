"""Texels and what the portrait says about them, without its light; and the portrait's typical colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from ...cielab import lab_of, median_in_lab
from ...head_model import HeadModel
from ...head_model.anatomy import LIPS, centimetres
from ...portrait import Portrait
from ..labels.portrait_labels import SKIN, PortraitLabels
from ..labels.segmenter import BEARD, BROW, HEADGEAR
from ..labels.skin_tone import SkinTone
from ..light.head_light import HeadLight
from .atlas import MATERIAL_MOUTH, MATERIAL_SKIN, MATERIAL_TEETH, AtlasMesh, AtlasTexels
from .portrait_lookup import PictureOfMesh, SeenPoints

_LEAST_PIXELS = 50
_DARKER = 0.4
"""Brightness of hair that is not seen at all beside that of the skin, sRGB."""
_LITTLE_HAIR, _NOT_SKIN = 0.05, 12.0
"""With less hair than this share of the person it is a wreath or stubble, half of it skin; what is further from the
skin's colour than the second number, CIELAB, is not skin."""
_SHADES, _IS_SKIN, _SKIN_SHARE = (1.15, 1.0, 0.88), 8.0, (0.2, 0.7)
"""Hair that is as near to the skin's colour, in light and shade of such brightness, as the second number, CIELAB, is
skin among hair: with a share between the last two the rest tells the colour, if it is plainly darker than skin."""
_DARKER_LAB = 20.0
_THIN_SHARE, _LIKE_SKIN, _OWN_QUANTILES = 0.12, 18.0, (0.8, 0.97)
"""Hair on less than the first share of the head, whose median is nearer to the skin's colour than the second number,
CIELAB, is seen with skin between it: its own colour is that between these quantiles of how far its hue is away from the
skin's."""
_BEHIND_LIPS, _BEHIND_TEETH, _IN_MOUTH, _ANY_COSINE = 0.02, 0.01, 0.06, (-3.0, -2.0)
"""What lies so far behind lips or teeth that are seen, world units, has their colour, whichever way it faces: the line
between closed lips is as dark as it is seen, make-up goes on inside, and teeth have no black borders."""


@dataclass(frozen=True)
class Typical:
    """Typical colours of the portrait."""

    hair: Float[np.ndarray, " 3"]
    """Of the hair, or of the skin where there is no hair."""
    skin: Float[np.ndarray, " 3"]
    """Of the skin."""
    has_hair: bool
    """There is hair, if only below headgear."""
    is_thin: bool = False
    """Of the head little is hair: skin shines through it."""

    @staticmethod
    def of(portrait: Portrait, labels: PortraitLabels) -> Typical:
        """Medians of the solid pixels of each class; little hair counts with brows and beard."""
        skin = _median_colour(portrait, labels.skin)
        has_hair = labels.hair.sum() > _LEAST_PIXELS or _hides_hair(labels)
        is_thin = bool(labels.hair.sum() < _THIN_SHARE * (labels.hair | labels.skin).sum())
        hair = _hair_colour(portrait, labels, skin, is_thin) if has_hair else skin
        return Typical(hair, skin, bool(has_hair), is_thin)


def _hides_hair(labels: PortraitLabels) -> bool:
    """Whether headgear is worn and no hair comes out of it; brows and beards then tell its colour."""
    worn = (labels.headgear_share > 0.5) & ~labels.hair & (labels.classes.argmax(-1) == HEADGEAR)
    return int(worn.sum()) > _LEAST_PIXELS


def _hair_colour(
    portrait: Portrait, labels: PortraitLabels, skin_rgb: Float[np.ndarray, " 3"], is_thin: bool
) -> Float[np.ndarray, " 3"]:
    """Median of the hair; where little is left of it, of what is not skin among hair, brows and beard; where nothing is
    seen of any, a darker shade of the skin, as most hair is."""
    solid = portrait.alpha_unit > 0.9
    if (labels.hair & solid).sum() > _LITTLE_HAIR * solid.sum():
        return hair_between_skin(_plain_colours(portrait, labels.hair), skin_rgb, is_thin)
    likeliest = labels.classes.argmax(-1)
    grown = (labels.hair | (likeliest == BROW) | (likeliest == BEARD)) & solid
    grown &= np.linalg.norm(lab_of(portrait.foreground_unit) - lab_of(skin_rgb), axis=-1) > _NOT_SKIN
    if grown.sum() > _LEAST_PIXELS:
        return _median_colour(portrait, grown)
    return _median_colour(portrait, labels.hair) if labels.hair.sum() > _LEAST_PIXELS else _DARKER * skin_rgb


def hair_between_skin(
    colours: Float32[np.ndarray, "n 3"], skin_rgb: Float[np.ndarray, " 3"], is_thin: bool
) -> Float[np.ndarray, " 3"]:
    """The colour of hair: the median of what is seen of it, or, where skin shines through, of what is least like skin.

    Args:
        colours: of pixels or texels of hair, at least one.
        skin_rgb: the skin's typical colour.
        is_thin: little of the head is hair.
    """
    lab, skin_lab = lab_of(colours), lab_of(skin_rgb)
    shaded = lab_of(np.clip(np.outer(_SHADES, skin_rgb), 0, 1))
    skin = np.min([np.linalg.norm(lab - shade, axis=1) for shade in shaded], axis=0) < _IS_SKIN
    low, high = _SKIN_SHARE
    if low < skin.mean() < high and np.median(lab[~skin, 0]) < skin_lab[0] - _DARKER_LAB:
        colours, lab = colours[~skin], lab[~skin]
    middle = median_in_lab(colours)
    if not is_thin or np.linalg.norm(lab_of(middle) - skin_lab) > _LIKE_SKIN:
        return middle
    away = np.linalg.norm(lab[:, 1:] - skin_lab[1:], axis=1)  # in hue: shaded skin is darker, and no hair
    low, high = np.quantile(away, _OWN_QUANTILES)
    return np.median(colours[(away >= low) & (away <= high)], axis=0)


def _median_colour(portrait: Portrait, mask: Bool[np.ndarray, "s s"]) -> Float[np.ndarray, " 3"]:
    return np.median(_plain_colours(portrait, mask), axis=0)


def _plain_colours(portrait: Portrait, mask: Bool[np.ndarray, "s s"]) -> Float32[np.ndarray, "n 3"]:
    """Colours of the mask's solid pixels away from its border; of more pixels where there are next to none."""
    solid = portrait.alpha_unit > 0.9
    width = portrait.size_px // 128 + 1
    for chosen in (
        cv2.erode((mask & solid).astype(np.uint8), np.ones((width, width), np.uint8)) > 0,
        mask & solid,
        portrait.alpha_unit > 0.5,
    ):
        if chosen.sum() >= 20:
            return portrait.foreground_unit[chosen]
    return portrait.foreground_unit.reshape(-1, 3)


@dataclass(frozen=True)
class LookedUp:
    """Texels and what the portrait says about them; colours are those in even light."""

    own: SeenPoints
    """Where they are."""
    mirrored_at: Callable[[Int[np.ndarray, " m"]], SeenPoints]
    """Takes numbers of texels and gives what is seen where their mirror images are: only some of them are ever asked
    for, and all would take 70 MB."""
    tone: SkinTone
    """The portrait's skin."""
    typical: Typical
    """Typical colours."""

    @staticmethod
    def of(
        portrait: Portrait, labels: PortraitLabels, picture: PictureOfMesh, model: HeadModel, mesh: AtlasMesh,
        texels: AtlasTexels, light: HeadLight,
    ) -> LookedUp:  # fmt: skip
        """Look all texels up in the portrait.

        Args:
            portrait, labels: what is looked up.
            picture: the portrait over the mesh.
            model: the head model.
            mesh: the fitted mesh.
            texels: of its atlas.
            light: the portrait's on the mesh.
        """
        own = picture.look_up(texels.points_world, texels.normals_world)
        for chosen, depth in (
            (_lips(model, mesh, texels), _BEHIND_LIPS),
            (np.nonzero(texels.material == MATERIAL_TEETH)[0], _BEHIND_TEETH),
            (np.nonzero(texels.material == MATERIAL_MOUTH)[0], _IN_MOUTH),
        ):
            behind = picture.look_up(texels.points_world[chosen], texels.normals_world[chosen], depth, _ANY_COSINE)
            own.trust[chosen] = np.maximum(own.trust[chosen], behind.trust)
        own = own.divided_by(texels.interpolated(light.shade, mesh.faces))

        def mirrored_at(chosen: Int[np.ndarray, " m"]) -> SeenPoints:
            seen = picture.look_up_mirrored(texels.points_world[chosen], texels.normals_world[chosen])
            return seen.divided_by(texels.interpolated(light.mirrored_shade, mesh.faces, chosen))

        typical = Typical.of(portrait, labels)
        plain = (texels.material == MATERIAL_SKIN) & (own.trust > 0.7) & (own.classes[:, SKIN] > 0.5)
        tone = SkinTone.of(own.colour[plain], typical.skin)
        return LookedUp(own, mirrored_at, tone, typical)


def _lips(model: HeadModel, mesh: AtlasMesh, texels: AtlasTexels) -> Int[np.ndarray, " m"]:
    """Numbers of the lips' texels."""
    of_vertex = LIPS.holds(centimetres(model.neutral))[np.maximum(mesh.head_vertex, 0)] & (mesh.head_vertex >= 0)
    chosen = np.nonzero((texels.material == MATERIAL_SKIN) & (texels.points_world[:, 2] > 0))[0]
    share = texels.interpolated(of_vertex[:, None].astype(np.float32), mesh.faces, chosen)
    return chosen[share[:, 0] > 0.5]

"""From texels to the chart of the completion network: what is believed of the portrait, and what is typical."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from ...portrait import Portrait
from ..labels.portrait_labels import CLOTH, HAIR, SKIN, PortraitLabels
from ..labels.segmenter import BEARD, BROW
from ..labels.skin_tone import SkinTone
from .atlas import MATERIAL_CLOTH, MATERIAL_HAIR, MATERIAL_SKIN, AtlasMesh, AtlasTexels
from .completion_network import (
    COVER,
    NOWHERE,
    SKIN_BELOW,
    ChartPlace,
    mean_in_cells,
    place_on_body,
    place_on_head,
)
from .portrait_lookup import PictureOfMesh, SeenPoints

_CHART_STRIDE = 4
_LEAST_PIXELS = 50
_LITTLE_HAIR, _NOT_SKIN = 0.05, 12.0
"""With less hair than this share of the person it is a wreath or stubble, half of it skin; what is further from the
skin's colour than the second number, CIELAB, is not skin."""


@dataclass(frozen=True)
class Typical:
    """Typical colours of the portrait's hair, skin and clothes."""

    rgb_unit: Float[np.ndarray, "3 3"]
    """In the order of `completion_network.HAIR_MATERIAL`, `SKIN_MATERIAL`, `CLOTH_MATERIAL`."""
    has_hair: bool
    """Enough hair is seen; otherwise its colour is the skin's."""

    @staticmethod
    def of(portrait: Portrait, labels: PortraitLabels) -> Typical:
        """Medians of the solid pixels of each class; little hair counts with brows and beard; without clothes, of the
        lowest pixels that are not skin."""
        skin = _median_colour(portrait, labels.skin)
        has_hair = int(labels.hair.sum()) > _LEAST_PIXELS
        hair = _hair_colour(portrait, labels, skin) if has_hair else skin
        if labels.cloth.sum() > 2 * _LEAST_PIXELS:
            cloth = _median_colour(portrait, labels.cloth)
        else:
            rows = np.nonzero((portrait.alpha_unit > 0.9).any(1))[0]
            last = rows[-1] if len(rows) else portrait.size_px - 1
            lowest = np.arange(portrait.size_px)[:, None] > last - portrait.size_px // 12
            cloth = _median_colour(portrait, lowest & ~labels.skin)
        return Typical(np.stack([hair, skin, cloth]), has_hair)


def _hair_colour(
    portrait: Portrait, labels: PortraitLabels, skin_rgb: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, " 3"]:
    """Median of the hair; where little is left of it, of what is not skin among hair, brows and beard."""
    solid = portrait.alpha_unit > 0.9
    if (labels.hair & solid).sum() > _LITTLE_HAIR * solid.sum():
        return _median_colour(portrait, labels.hair)
    likeliest = labels.classes.argmax(-1)
    grown = (labels.hair | (likeliest == BROW) | (likeliest == BEARD)) & solid
    lab = cv2.cvtColor(np.ascontiguousarray(portrait.foreground_unit, dtype=np.float32), cv2.COLOR_RGB2LAB)
    skin_lab = cv2.cvtColor(skin_rgb.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2LAB)
    grown &= np.linalg.norm(lab - skin_lab, axis=-1) > _NOT_SKIN
    return _median_colour(portrait, grown if grown.sum() > _LEAST_PIXELS else labels.hair)


def _median_colour(portrait: Portrait, mask: Bool[np.ndarray, "s s"]) -> Float[np.ndarray, " 3"]:
    solid = portrait.alpha_unit > 0.9
    width = portrait.size_px // 128 + 1
    for chosen in (
        cv2.erode((mask & solid).astype(np.uint8), np.ones((width, width), np.uint8)) > 0,
        mask & solid,
        portrait.alpha_unit > 0.5,
    ):
        if chosen.sum() >= 20:
            return np.median(portrait.foreground_unit[chosen], axis=0)
    return np.median(portrait.foreground_unit.reshape(-1, 3), axis=0)


@dataclass(frozen=True)
class LookedUp:
    """Texels and what the portrait says about them."""

    own: SeenPoints
    """Where they are."""
    mirrored: SeenPoints
    """Where their mirror images are."""
    tone: SkinTone
    """The portrait's skin."""
    typical: Typical
    """Typical colours."""

    @staticmethod
    def of(
        portrait: Portrait,
        labels: PortraitLabels,
        picture: PictureOfMesh,
        texels: AtlasTexels,
        chosen: np.ndarray | slice = slice(None),
    ) -> LookedUp:
        """Look texels up in the portrait; `chosen` numbers some of them."""
        own, mirrored = picture.look_up_both(texels.points_world[chosen], texels.normals_world[chosen])
        typical = Typical.of(portrait, labels)
        plain = (texels.material[chosen] == MATERIAL_SKIN) & (own.trust > 0.7) & (own.classes[:, SKIN] > 0.5)
        return LookedUp(own, mirrored, SkinTone.of(own.colour[plain], typical.rgb_unit[1]), typical)

    def __getitem__(self, chosen: np.ndarray) -> LookedUp:
        return LookedUp(self.own[chosen], self.mirrored[chosen], self.tone, self.typical)


def belief(seen: SeenPoints, material: UInt8[np.ndarray, " n"], tone: SkinTone) -> Float32[np.ndarray, " n"]:
    """How far what is seen belongs to the texel's material: no hair on the cheek, no collar on the neck."""
    fits = np.zeros(len(material), np.float32)
    on = material == MATERIAL_HAIR
    fits[on] = seen.classes[on, HAIR]
    on = material == MATERIAL_CLOTH
    fits[on] = np.maximum(seen.classes[on, CLOTH], seen.classes[on, SKIN])
    on = material == MATERIAL_SKIN
    fits[on] = seen.classes[on, SKIN] * tone.belief(seen.colour[on])
    return (seen.trust * fits).astype(np.float32)


def chart_subset(texels: AtlasTexels) -> np.ndarray:
    """Numbers of the texels that the chart is made of: every fourth of every fourth row."""
    step, middle = _CHART_STRIDE, _CHART_STRIDE // 2
    chosen = (texels.rows % step == middle) & (texels.columns % step == middle)
    return np.nonzero(chosen & np.isin(texels.material, (MATERIAL_HAIR, MATERIAL_SKIN, MATERIAL_CLOTH)))[0]


def chart_places(texels: AtlasTexels, chosen: np.ndarray, mesh: AtlasMesh) -> ChartPlace:
    """Where texels lie in the chart.

    Args:
        texels: of the atlas.
        chosen: their numbers.
        mesh: of the atlas; it says how the body stands.
    """
    material, points = texels.material[chosen], texels.points_world[chosen]
    row, column = np.zeros(len(chosen), np.float32), np.zeros(len(chosen), np.float32)
    layer = np.full(len(chosen), NOWHERE, np.uint8)
    for which, target in ((MATERIAL_HAIR, COVER), (MATERIAL_SKIN, SKIN_BELOW)):
        on = material == which
        place = place_on_head(points[on], target)
        row[on], column[on], layer[on] = place.row, place.column, place.layer
    on = material == MATERIAL_CLOTH
    place = place_on_body(points[on], mesh.T_world_body)
    row[on], column[on], layer[on] = place.row, place.column, place.layer
    return ChartPlace(row, column, layer)


def chart_of_portrait(
    texels: AtlasTexels, chosen: np.ndarray, looked_up: LookedUp, place: ChartPlace
) -> Float32[np.ndarray, "2 c rows columns"]:
    """What the completion network is told: portrait and surface, averaged in the chart's cells; colours are plain.

    Args:
        texels: of the atlas.
        chosen: numbers of the texels to use, from `chart_subset`.
        looked_up: what the portrait says about the chosen ones.
        place: where these lie in the chart.
    """
    points, material = texels.points_world[chosen], texels.material[chosen]
    radius = np.hypot(points[:, 0], points[:, 2]).astype(np.float32)[:, None]
    surface = np.concatenate([texels.normals_world[chosen], radius], axis=1)
    surface, count = mean_in_cells(place, surface, np.ones(len(radius)))
    grid = [np.minimum(count, 1.0)[:, None]]
    for seen in (looked_up.own, looked_up.mirrored):
        mean, mass = mean_in_cells(place, seen.colour, belief(seen, material, looked_up.tone))
        grid += [mean, (mass / np.maximum(count, 1))[:, None]]
    return np.concatenate([*grid, surface], axis=1).astype(np.float32)

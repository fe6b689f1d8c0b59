"""Paint the prior: what the portrait shows, its mirror image where that is hidden, and a completion where both are.

Every texel looks itself up in the portrait, and its reflection about the head's middle plane as well. What neither
shows comes from the completion network (`unseen_side`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

from ...head_model import HeadModel
from ...networks import LoadedNetwork
from ...portrait import Portrait
from ..labels.portrait_labels import PortraitLabels
from .atlas import (
    ATLAS_HEIGHT,
    ATLAS_WIDTH,
    MATERIAL_CLOTH,
    MATERIAL_EYE,
    MATERIAL_HAIR,
    MATERIAL_MOUTH,
    MATERIAL_TEETH,
    SHELL_TILE,
    TORSO_TILE,
    AtlasMesh,
    AtlasTexels,
    atlas_texels,
    fill_uncovered,
)
from .completion_chart import LookedUp, chart_of_portrait, chart_places, chart_subset
from .completion_network import COMPLETION, SKIN_MATERIAL, CompletionNet, complete
from .portrait_lookup import SeenPoints, picture_of_portrait
from .unseen_side import Painted, SeenTile, paint_shell, paint_skin, paint_torso


@dataclass(frozen=True)
class PriorTexture:
    """The painted atlas."""

    rgb: UInt8[np.ndarray, "h w 3"]
    """Colour, sRGB."""
    confidence: Float32[np.ndarray, "h w"]
    """1 where the portrait shows the texel, about 0.5 where its mirror image does, 0 where it is made up."""


def paint_prior(
    portrait: Portrait,
    labels: PortraitLabels,
    model: HeadModel,
    mesh: AtlasMesh,
    *,
    seed: int = 0,
    completion: LoadedNetwork[CompletionNet] | None = None,
) -> PriorTexture:
    """Paint the atlas of a fitted prior from its portrait.

    Args:
        portrait: aligned portrait.
        labels: its classes.
        model: the head model.
        mesh: head, shell and torso with their texture layout.
        seed: seed of the synthesised hair.
        completion: the network; None takes the one that ships.
    """
    picture = picture_of_portrait(portrait, labels, mesh)
    texels = atlas_texels(mesh)
    looked_up = LookedUp.of(portrait, labels, picture, texels)
    typical = looked_up.typical.rgb_unit
    azimuth = float(portrait.head.camera.azimuth_rad[0])
    chosen = chart_subset(texels)
    chart = chart_of_portrait(texels, chosen, looked_up[chosen], chart_places(texels, chosen, azimuth))
    smooth = complete(chart, typical, completion or COMPLETION.load())

    texture = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH, 3), np.float32)
    confidence = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH), np.float32)
    detail: Float32[np.ndarray, "h w 3"] | None = None
    for material, tile in ((MATERIAL_HAIR, SHELL_TILE), (MATERIAL_CLOTH, TORSO_TILE)):
        chosen = np.nonzero(texels.material == material)[0]
        if not len(chosen):
            continue
        seen, reflected = (
            SeenTile.of(texels, chosen, points[chosen], tile) for points in (looked_up.own, looked_up.mirrored)
        )
        if material == MATERIAL_HAIR:
            colour, trust, detail = paint_shell(seen, reflected, smooth, seed)
        else:
            colour, trust = paint_torso(seen, smooth, azimuth)
        x, y, width, height = tile
        texture[y : y + height, x : x + width], confidence[y : y + height, x : x + width] = colour, trust

    skin = paint_skin(labels, model, mesh, picture, texels, looked_up, smooth, detail)
    for painted in (skin, _paint_small_parts(texels, looked_up.own, typical[SKIN_MATERIAL])):
        place = texels.rows[painted.texels], texels.columns[painted.texels]
        texture[place], confidence[place] = painted.rgb_unit, painted.confidence

    head_rows = SHELL_TILE[1]  # below lie the tiles that are full
    covered = np.zeros((head_rows, ATLAS_WIDTH), bool)
    above = texels.rows < head_rows
    covered[texels.rows[above], texels.columns[above]] = True
    texture[:head_rows] = fill_uncovered(texture[:head_rows], covered)
    return PriorTexture((np.clip(texture, 0, 1) * 255 + 0.5).astype(np.uint8), confidence)


def _paint_small_parts(texels: AtlasTexels, own: SeenPoints, skin_rgb: Float[np.ndarray, " 3"]) -> Painted:
    """Eyes, teeth and the inside of the mouth: seen where they are seen, plain elsewhere."""
    plain = {
        MATERIAL_MOUTH: skin_rgb * np.array([0.45, 0.3, 0.3]),
        MATERIAL_TEETH: np.array([0.80, 0.76, 0.70]),
        MATERIAL_EYE: np.array([0.82, 0.80, 0.79]),
    }
    chosen = np.nonzero(np.isin(texels.material, list(plain)))[0]
    base = np.zeros((len(chosen), 3))
    for material, colour in plain.items():
        base[texels.material[chosen] == material] = colour
    trust = own.trust[chosen]
    return Painted(chosen, base + (own.colour[chosen] - base) * trust[:, None], trust)

"""Paint the prior: what the portrait shows, its mirror image where that is hidden, and a completion where both are.

Every texel looks itself up in the portrait, and its reflection about the head's middle plane as well. What neither
shows comes from the completion network (`texture_learned`), or from rules where it has no weights (`texture_rules`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from ...head_model import HeadModel
from ...portrait import Portrait
from ..labels.portrait_labels import PortraitLabels
from .atlas import (
    ATLAS_HEIGHT,
    ATLAS_WIDTH,
    MATERIAL_CLOTH,
    MATERIAL_HAIR,
    SHELL_TILE,
    TORSO_TILE,
    AtlasMesh,
    atlas_texels,
    fill_uncovered,
)
from .completion_chart import LookedUp, chart_of_portrait, chart_places, chart_subset
from .completion_network import (
    CLOTH_MATERIAL,
    HAIR_MATERIAL,
    SKIN_MATERIAL,
    LoadedCompletion,
    complete,
    load_completion,
)
from .portrait_lookup import picture_of_portrait
from .texture_rules import paint_shell_by_rules, paint_skin_by_rules, paint_torso_by_rules
from .tiles import Painted, SeenTile, paint_small_parts
from .unseen_side import paint_shell, paint_skin, paint_torso


@dataclass(frozen=True)
class TextureConfig:
    """How the portrait is completed."""

    method: Literal["learned", "rules"] = "learned"
    """`learned` asks the completion network about what the portrait does not show, where its weights are installed;
    `rules` does without."""


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
    config: TextureConfig | None = None,
    *,
    seed: int = 0,
    completion: LoadedCompletion | None = None,
) -> PriorTexture:
    """Paint the atlas of a fitted prior from its portrait.

    Args:
        portrait: aligned portrait.
        labels: its classes.
        model: the head model.
        mesh: head, shell and torso with their texture layout.
        config: how it is completed.
        seed: seed of the synthesised hair.
        completion: the network for `method="learned"`; None takes the installed one.
    """
    config = config or TextureConfig()
    loaded = (completion or load_completion()) if config.method == "learned" else None
    picture = picture_of_portrait(portrait, labels, mesh)
    texels = atlas_texels(mesh)
    looked_up = LookedUp.of(portrait, labels, picture, texels)
    typical = looked_up.typical.rgb_unit
    azimuth = float(portrait.head.camera.azimuth_rad[0])
    smooth: Float32[np.ndarray, "2 rows columns 3"] | None = None
    if loaded is not None:
        chosen = chart_subset(texels)
        chart = chart_of_portrait(texels, chosen, looked_up[chosen], chart_places(texels, chosen, azimuth))
        smooth = complete(chart, typical, loaded)

    texture = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH, 3), np.float32)
    confidence = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH), np.float32)

    def lay(painted: Painted) -> None:
        place = texels.rows[painted.texels], texels.columns[painted.texels]
        texture[place], confidence[place] = painted.rgb_unit, painted.confidence

    detail: Float32[np.ndarray, "h w 3"] | None = None
    for material, tile in ((MATERIAL_HAIR, SHELL_TILE), (MATERIAL_CLOTH, TORSO_TILE)):
        chosen = np.nonzero(texels.material == material)[0]
        if not len(chosen):
            continue
        seen, reflected = (
            SeenTile.of(texels, chosen, points[chosen], tile) for points in (looked_up.own, looked_up.mirrored)
        )
        if smooth is None and material == MATERIAL_HAIR:
            colour, trust = paint_shell_by_rules(seen, reflected, typical[HAIR_MATERIAL], seed)
        elif smooth is None:
            colour, trust = paint_torso_by_rules(seen, typical[CLOTH_MATERIAL])
        elif material == MATERIAL_HAIR:
            colour, trust, detail = paint_shell(seen, reflected, smooth, seed)
        else:
            colour, trust = paint_torso(seen, smooth, azimuth)
        x, y, width, height = tile
        texture[y : y + height, x : x + width], confidence[y : y + height, x : x + width] = colour, trust

    if smooth is None:
        lay(paint_skin_by_rules(labels, model, mesh, picture, texels, looked_up))
    else:
        lay(paint_skin(labels, model, mesh, picture, texels, looked_up, smooth, detail))
    lay(paint_small_parts(texels, looked_up.own, typical[SKIN_MATERIAL]))

    head_rows = SHELL_TILE[1]  # below lie the tiles that are full
    covered = np.zeros((head_rows, ATLAS_WIDTH), bool)
    above = texels.rows < head_rows
    covered[texels.rows[above], texels.columns[above]] = True
    texture[:head_rows] = fill_uncovered(texture[:head_rows], covered)
    return PriorTexture((np.clip(texture, 0, 1) * 255 + 0.5).astype(np.uint8), confidence)

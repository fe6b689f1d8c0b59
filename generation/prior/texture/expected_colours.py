"""Smooth colours of what the portrait does not show, in even light: those that are seen, varied as the field says.

What hides behind a head is of the material that is seen of it: hair takes the median colour of the hair that is seen,
or of brows and beard where a hat hides it, headgear that of the headgear. The field's own colours stand in where
nothing of a material is seen. Skin varies as the field says: scalp, neck and ears are not the cheek.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from ...head_model.anatomy import ramp
from ..field.chart import at_points
from ..field.head_field import HAIR as HAIR_SHARE
from ..field.head_field import HEADGEAR as HEADGEAR_SHARE
from ..field.head_field import HeadField
from ..labels.portrait_labels import HAIR, SKIN
from .atlas import MATERIAL_HAIR, MATERIAL_SKIN, AtlasTexels
from .looked_up import LookedUp, hair_between_skin

_PLAIN = 0.7
"""Weight from which on a texel shows its colour plainly."""
_LEAST_TEXELS = 800
_HAT = (0.3, 0.7)
"""Share of headgear beside hair from which on a cell has some of its colour, and from which on all."""
_SKIN_BRIGHTNESS, _SKIN_CHROMA = 0.5, 0.25
"""Share of the field's variation over the skin that is believed."""
_DARK = 0.02
"""Colours are no darker than this in ratios."""


@dataclass(frozen=True)
class ExpectedColours:
    """Colours on the field's chart, sRGB in even light."""

    cover: Float32[np.ndarray, "56 64 3"]
    """Of hair and headgear."""
    skin: Float32[np.ndarray, "56 64 3"]
    """Of the skin below."""
    cloth: Float32[np.ndarray, "56 64 3"]
    """Of clothes."""

    @staticmethod
    def of(field: HeadField, texels: AtlasTexels, looked_up: LookedUp) -> ExpectedColours:
        """The colours that are to be expected.

        Args:
            field: what grows on the head and is worn on it.
            texels: of the atlas.
            looked_up: what the portrait says about them.
        """
        own, least = looked_up.own, _LEAST_TEXELS // texels.step**2
        hat = field.material[HEADGEAR_SHARE] / np.maximum(field.material[[HAIR_SHARE, HEADGEAR_SHARE]].sum(0), 1e-6)
        on_shell = np.nonzero((texels.material == MATERIAL_HAIR) & (own.trust * own.classes[:, HAIR] > _PLAIN))[0]
        hat_there = at_points(hat[..., None], texels.points_world[on_shell])[:, 0]
        expected = np.moveaxis(field.cover_albedo, 0, -1)
        shown = own.colour[on_shell[hat_there < _HAT[0]]]
        typical, hair = looked_up.typical, None
        if len(shown) > least:
            hair = hair_between_skin(shown, typical.skin, typical.is_thin)
        if hair is None and looked_up.typical.has_hair:
            hair = looked_up.typical.hair
        worn = own.colour[on_shell[hat_there > _HAT[1]]]
        worn = np.median(worn, axis=0) if len(worn) > least else None
        share = ramp(hat, *_HAT)[..., None]
        cover = (expected if hair is None else hair) * (1 - share) + (expected if worn is None else worn) * share
        skin = np.moveaxis(field.skin_albedo, 0, -1)
        weight = own.trust * own.classes[:, SKIN] * looked_up.tone.belief(own.colour)
        plain = np.nonzero((texels.material == MATERIAL_SKIN) & (weight > _PLAIN))[0]
        if len(plain) > least:
            there = np.median(_log(at_points(skin, texels.points_world[plain])), axis=0)
            away = _log(skin) - there
            brighter = away.mean(-1, keepdims=True)
            away = _SKIN_BRIGHTNESS * brighter + _SKIN_CHROMA * (away - brighter)
            skin = np.exp(np.median(_log(own.colour[plain]), axis=0) + away)
        return ExpectedColours(
            cover.astype(np.float32), skin.astype(np.float32), np.moveaxis(field.cloth_albedo, 0, -1).astype(np.float32)
        )


def _log(colours: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    return np.log(np.maximum(colours, _DARK))

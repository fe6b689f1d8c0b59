"""Pieces of the painting: tiles as pictures, soft borders of trust, and the small parts of the face."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from .atlas import ATLAS_HEIGHT, ATLAS_WIDTH, MATERIAL_EYE, MATERIAL_MOUTH, MATERIAL_TEETH, AtlasTexels
from .portrait_lookup import SeenPoints

_BORDER_STEP = 4


@dataclass(frozen=True)
class Painted:
    """Some texels with their colours."""

    texels: Int[np.ndarray, " n"]
    """Their numbers."""
    rgb_unit: Float[np.ndarray, "n 3"]
    """Colours, sRGB."""
    confidence: Float[np.ndarray, " n"]
    """1 where the portrait shows the texel, about 0.5 where its mirror image does, 0 where it is made up."""


@dataclass(frozen=True)
class SeenTile:
    """What the portrait says about the texels of one tile, as pictures."""

    colour: Float32[np.ndarray, "h w 3"]
    """Colour where each texel projects; 0 off the mesh."""
    trust: Float32[np.ndarray, "h w"]
    """How plainly it is visible."""
    classes: Float32[np.ndarray, "h w 3"]
    """Probability of skin, hair and cloth."""

    @staticmethod
    def of(
        texels: AtlasTexels, chosen: Int[np.ndarray, " n"], seen: SeenPoints, tile: tuple[int, int, int, int]
    ) -> SeenTile:
        """Pictures of a tile from its texels.

        Args:
            texels: of the atlas.
            chosen: numbers of the tile's texels.
            seen: what the portrait shows of them.
            tile: column, row, width and height in the atlas.
        """
        x, y, width, height = tile
        place = (texels.rows[chosen] - y, texels.columns[chosen] - x)
        images = []
        for values in (seen.colour, seen.trust, seen.classes):
            image = np.zeros((height, width, *values.shape[1:]), np.float32)
            image[place] = values
            image[:, -1] = image[:, 0]  # the seam column belongs to the next turn
            images.append(image)
        return SeenTile(*images)


def soft_border(
    trust: Float[np.ndarray, " n"], texels: AtlasTexels, chosen: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"]:
    """A factor that lets trust end gently where visibility or the matte would cut it off.

    Args:
        trust: of some texels.
        texels: of the atlas.
        chosen: numbers of these texels.
    """
    height, width = ATLAS_HEIGHT // _BORDER_STEP, ATLAS_WIDTH // _BORDER_STEP
    row, column = texels.rows[chosen] // _BORDER_STEP, texels.columns[chosen] // _BORDER_STEP
    cell = row * width + column
    mass = np.bincount(cell, minlength=height * width).reshape(height, width).astype(np.float32)
    total = np.bincount(cell, trust, minlength=height * width).reshape(height, width).astype(np.float32)
    sigma = 9 / _BORDER_STEP
    around = cv2.GaussianBlur(total, (0, 0), sigma) / np.maximum(cv2.GaussianBlur(mass, (0, 0), sigma), 1e-2)
    around = cv2.resize(around, (ATLAS_WIDTH, ATLAS_HEIGHT), interpolation=cv2.INTER_LINEAR)
    return np.clip(1.6 * around[texels.rows[chosen], texels.columns[chosen]] - 0.3, 0.0, 1.0)


def paint_small_parts(texels: AtlasTexels, own: SeenPoints, skin_rgb: Float[np.ndarray, " 3"]) -> Painted:
    """Eyes, teeth and the inside of the mouth: seen where they are seen, plain elsewhere.

    Args:
        texels: of the atlas.
        own: what the portrait shows of all of them.
        skin_rgb: typical skin.
    """
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

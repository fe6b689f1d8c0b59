"""One picture to choose a head from: a row for each seed, seen from where a portrait shows nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dp360.generation import Cameras, Provenance, look_at_origin

from .contact_sheet import BACKGROUND, FAINT_INK, INK, png_bytes, tile

SHOWN_DEG = ((90, 0), (135, 0), (180, 0), (225, 0), (270, 0), (180, 35))
"""Azimuth and elevation of the columns: round the back, and the back from above."""
TILE_PX = 224
"""Side of one picture on the sheet."""


@dataclass(frozen=True)
class SheetRow:
    """One head."""

    seed: int
    """What it was drawn with."""
    pictures: UInt8[Tensor, "6 h w 4"]
    """Its pictures from `variant_cameras`, straight alpha."""


def variant_cameras(size_px: int = TILE_PX) -> Cameras:
    """The cameras of a row.

    Args:
        size_px: side of the pictures.
    """
    azimuth_rad, elevation_rad = zip(*((math.radians(a), math.radians(e)) for a, e in SHOWN_DEG))
    return look_at_origin(azimuth_rad, elevation_rad, size_px=size_px)


def encode(rows: Sequence[SheetRow], provenance: Provenance, *, tile_px: int = TILE_PX) -> bytes:
    """The sheet as a PNG file with the provenance in its text chunks.

    Args:
        rows: at least one head.
        tile_px: side of one picture on the sheet.
    """
    gap, label = round(tile_px * 0.045), round(tile_px * 0.16)
    title, small = ImageFont.load_default(size=label * 0.62), ImageFont.load_default(size=label * 0.5)
    names = [f"seed {row.seed}" for row in rows]
    left = 2 * gap + math.ceil(max(title.getlength(name) for name in names))
    step = tile_px + gap
    sheet = Image.new("RGB", (left + len(SHOWN_DEG) * step, 2 * label + len(rows) * step), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for column, (azimuth, elevation) in enumerate(SHOWN_DEG):
        name = f"{azimuth}°, {elevation}° above" if elevation else f"{azimuth}°"
        draw.text((left + column * step + tile_px / 2, label / 2), name, INK, title, anchor="mm")
    for number, row in enumerate(rows):
        top = label + number * step
        draw.text((gap, top + tile_px / 2), names[number], INK, title, anchor="lm")
        for column, picture in enumerate(row.pictures):
            sheet.paste(tile(picture, tile_px), (left + column * step, top))
    footer = f"{provenance.statement} · version {provenance.version}"
    draw.text((gap, sheet.height - label / 2), footer, FAINT_INK, small, anchor="lm")
    return png_bytes(sheet, provenance)

"""A small picture of a head for lists: the portrait, the head from half the side, and its back."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from dp360.exporters.contact_sheet import AZIMUTH_COUNT, SheetLayout
from dp360.exporters.head_files import SHEET_NAME

_FITTED_ROW = 1
_COLUMNS = (1, AZIMUTH_COUNT // 2)
"""45 degrees, and behind."""


def thumbnail(folder: Path, *, side_px: int = 144) -> bytes | None:
    """A JPEG of three squares side by side, cut out of a head's contact sheet; None where there is no such sheet.

    Args:
        folder: of a finished head.
        side_px: side of each square.
    """
    layout = SheetLayout()
    try:
        with Image.open(folder / SHEET_NAME) as opened:
            sheet = opened.convert("RGB")
    except (OSError, ValueError):
        return None
    if sheet.size != layout.size_px:
        return None
    corners = [(layout.portrait_corner, layout.portrait_px)]
    corners += [(layout.tile_corner(_FITTED_ROW, column), layout.tile_px) for column in _COLUMNS]
    made = Image.new("RGB", (len(corners) * side_px, side_px))
    for place, ((left, top), size) in enumerate(corners):
        part = sheet.crop((left, top, left + size, top + size)).resize((side_px, side_px), Image.Resampling.LANCZOS)
        made.paste(part, (place * side_px, 0))
    buffer = io.BytesIO()
    made.save(buffer, "JPEG", quality=85, optimize=True)
    return buffer.getvalue()

"""One picture to judge a head by: the portrait, the generated views and the fitted splats around the whole circle."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin
from torch import Tensor

from dp360.generation import Cameras, Provenance, ViewSet, orbit

from .provenance import provenance_to_json

AZIMUTH_COUNT = 8
"""Pictures per row, 45 degrees apart, the first in front of the face."""

BACKGROUND = (255, 255, 255)
INK, FAINT_INK = (32, 33, 36), (110, 114, 120)
_TILE_BACKGROUND = (241, 242, 244)
_ELEVATION_WEIGHT = 4.0
"""A degree of elevation counts this much more than one of azimuth when a row picks its views: rows stay level."""


@dataclass(frozen=True)
class SheetContent:
    """What a contact sheet shows."""

    portrait_rgb: UInt8[Tensor, "h_portrait w_portrait 3"]
    """The aligned portrait."""
    views: ViewSet
    """Generated views; each column shows the one nearest to its azimuth on the level ring."""
    renders: UInt8[Tensor, "8 h w 4"] | None
    """What was fitted to them, from `sheet_cameras`, straight alpha; None leaves the row out."""
    renders_name: str = "Gaussian splats"
    """Title of that row."""


@dataclass(frozen=True)
class SheetLayout:
    """Where the pictures of a sheet lie; pixels, x right, y down."""

    tile_px: int = 224
    """Side of one picture of a row."""
    rows: int = 2
    """Rows beside the portrait: the views, and what was fitted to them."""

    @property
    def gap_px(self) -> int:
        """Between neighbours."""
        return round(self.tile_px * 0.045)

    @property
    def label_px(self) -> int:
        """Height of a row's title."""
        return round(self.tile_px * 0.16)

    @property
    def header_px(self) -> int:
        """Height of the line above and of that below."""
        return round(self.tile_px * 0.24)

    @property
    def portrait_px(self) -> int:
        """Side of the portrait."""
        return self.rows * self.tile_px + (self.rows - 1) * (self.gap_px + self.label_px)

    @property
    def portrait_corner(self) -> tuple[int, int]:
        """Upper left corner (x, y) of the portrait."""
        return self.gap_px, self.header_px + self.label_px

    def tile_corner(self, row: int, column: int) -> tuple[int, int]:
        """Upper left corner (x, y) of a picture."""
        left = 3 * self.gap_px + self.portrait_px + column * (self.tile_px + self.gap_px)
        return left, self.header_px + self.label_px + row * (self.tile_px + self.gap_px + self.label_px)

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        width = self.tile_corner(0, AZIMUTH_COUNT)[0]
        return width, 2 * self.header_px + self.label_px + self.portrait_px + self.gap_px


def encode(content: SheetContent, provenance: Provenance, *, tile_px: int = 224) -> bytes:
    """The sheet as a PNG file with the provenance in its text chunks.

    Args:
        tile_px: side of one picture on the sheet.
    """
    portrait_rgb, views = content.portrait_rgb, content.views
    azimuth_rad = sheet_cameras(tile_px).azimuth_rad
    chosen = nearest_views(views.cameras, azimuth_rad, skip_first=views.names[0] == "portrait" and len(views) > 1)
    rows = [("Generated views", views.rgba[chosen])]
    if content.renders is not None:
        rows.append((content.renders_name, content.renders))

    layout = SheetLayout(tile_px, len(rows))
    sheet = Image.new("RGB", layout.size_px, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    title, small = ImageFont.load_default(size=layout.label_px * 0.62), ImageFont.load_default(size=layout.label_px / 2)

    draw.text((layout.gap_px, layout.header_px / 2), "Portrait", INK, title, anchor="lm")
    for column, angle in enumerate(azimuth_rad.tolist()):
        x = layout.tile_corner(0, column)[0] + tile_px / 2
        text = f"{round(math.degrees(angle))}°".replace("-180", "180")
        draw.text((x, layout.header_px / 2), text, INK, title, anchor="mm")
    sheet.paste(tile(portrait_rgb, layout.portrait_px), layout.portrait_corner)
    for row, (name, pictures) in enumerate(rows):
        left, top = layout.tile_corner(row, 0)
        draw.text((left, top - layout.label_px / 2), name, FAINT_INK, small, anchor="lm")
        for column, picture in enumerate(pictures):
            sheet.paste(tile(picture, tile_px), layout.tile_corner(row, column))
    footer = f"{provenance.statement} · version {provenance.version} · seed {provenance.seed}"
    draw.text((layout.gap_px, sheet.height - layout.header_px / 2), footer, FAINT_INK, small, anchor="lm")

    return png_bytes(sheet, provenance)


def sheet_cameras(size_px: int = 448) -> Cameras:
    """The cameras of a row: `AZIMUTH_COUNT` on a level ring, starting in front of the face.

    Args:
        size_px: side of the pictures; by default twice a tile's, which smooths their edges.
    """
    return orbit(AZIMUTH_COUNT, size_px=size_px)


def nearest_views(cameras: Cameras, azimuth_rad: Float[Tensor, " k"], *, skip_first: bool = False) -> list[int]:
    """For each azimuth the index of the camera nearest to it on the level ring.

    Args:
        skip_first: leave camera 0 out (it is the portrait's own).
    """
    difference = cameras.azimuth_rad[None] - azimuth_rad[:, None].to(cameras.azimuth_rad)
    wrapped = torch.atan2(difference.sin(), difference.cos()).abs()
    cost = wrapped + _ELEVATION_WEIGHT * cameras.elevation_rad.abs()[None]
    if skip_first:
        cost[:, 0] = math.inf
    return cost.argmin(dim=1).tolist()


def png_bytes(picture: Image.Image, provenance: Provenance) -> bytes:
    """A PNG file, like all that leave the package with text chunks (tEXt): a line for people, JSON for programs."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", f"dp360 {provenance.version}")
    info.add_text("Description", provenance.statement)
    info.add_text("dp360.provenance", provenance_to_json(provenance))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info, compress_level=4)  # little larger than by 6, twice as fast
    return buffer.getvalue()


def tile(picture: UInt8[Tensor, "h w c"], side_px: int) -> Image.Image:
    """A picture inside a square of `side_px`, whole and undistorted; alpha is laid over a light grey."""
    array = picture.cpu().numpy().astype(np.float32)
    if array.shape[2] == 4:
        alpha = array[..., 3:] / 255
        array = array[..., :3] * alpha + np.asarray(_TILE_BACKGROUND, np.float32) * (1 - alpha)
    image = Image.fromarray(np.rint(array).clip(0, 255).astype(np.uint8))
    return ImageOps.pad(image, (side_px, side_px), Image.Resampling.LANCZOS, _TILE_BACKGROUND)

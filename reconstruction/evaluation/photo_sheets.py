"""Contact sheets of portraits and their heads, a row each: crop, classes, matte, and the head from all sides."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from dp360.generation.portrait import Portrait
from dp360.generation.prior import PriorRender
from dp360.generation.prior.labels.portrait_labels import PortraitLabels
from dp360.generation.prior.labels.segmenter import CLASS_NAMES

from .results import labelled_sheet

TILE_PX = 256
"""Side of one picture."""
COLUMNS = ("crop", "classes, outline of hair", "matte", "0°", "60°", "90°", "180°", "-90°", "from above")
"""What a strip shows, from left to right."""
CLASS_RGB = (
    (60, 60, 60), (244, 190, 150), (214, 140, 100), (240, 90, 90), (120, 70, 30), (70, 130, 60), (160, 110, 60),
    (150, 80, 190), (40, 200, 230), (250, 210, 40), (60, 100, 200),
)  # fmt: skip
"""Colours of `CLASS_NAMES`, sRGB."""
_MATTE_RGB, _RENDER_RGB = (70, 170, 100), (235, 236, 238)
_CLASS_OPACITY = 0.65
_LEGEND_PX = 22


def photo_strip(portrait: Portrait, labels: PortraitLabels, rendered: PriorRender) -> UInt8[np.ndarray, "h w 3"]:
    """The row of one portrait.

    Args:
        portrait: the portrait.
        labels: its classes.
        rendered: its head from as many cameras as the strip has columns for.
    """
    assert len(rendered.rgb) == len(COLUMNS) - 3
    tiles = [portrait.rgb, _class_picture(portrait, labels)]
    tiles.append(laid_over(portrait.foreground_unit, portrait.alpha_unit, _MATTE_RGB))
    tiles += [laid_over(rgb, alpha, _RENDER_RGB) for rgb, alpha in zip(rendered.rgb, rendered.alpha)]
    return np.concatenate([_tile(picture) for picture in tiles], axis=1)


def photo_sheet(title: str, strips: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]]) -> UInt8[np.ndarray, "h w 3"]:
    """Some strips with their names under each other, and what the colours of the classes mean."""
    return labelled_sheet(title, [*strips, ("classes", _legend(strips[0][1].shape[1]))], COLUMNS)


def _class_picture(portrait: Portrait, labels: PortraitLabels) -> UInt8[np.ndarray, "s s 3"]:
    """The likeliest class of each pixel in its colour over the grey portrait, and the final hair's outline in white."""
    colour = np.array(CLASS_RGB, np.float32)[labels.classes.argmax(-1)]
    grey = portrait.rgb.mean(-1, keepdims=True)
    picture = np.round(_CLASS_OPACITY * colour + (1 - _CLASS_OPACITY) * grey).astype(np.uint8)
    outlines, _ = cv2.findContours(labels.hair.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.ascontiguousarray(picture), outlines, -1, (255, 255, 255), 2))


def laid_over(
    rgb_unit: Float32[np.ndarray, "h w 3"], alpha_unit: Float32[np.ndarray, "h w"], background: tuple[int, int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Straight colour in [0, 1] over a plain one, 8 bits."""
    alpha = alpha_unit[..., None]
    return np.round((255 * rgb_unit * alpha + np.array(background) * (1 - alpha)).clip(0, 255)).astype(np.uint8)


def _tile(picture: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "t t 3"]:
    way = cv2.INTER_AREA if len(picture) > TILE_PX else cv2.INTER_LINEAR
    return picture if len(picture) == TILE_PX else cv2.resize(picture, (TILE_PX, TILE_PX), interpolation=way)


def _legend(width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A box in each class's colour with its name."""
    legend = Image.new("RGB", (width, _LEGEND_PX), (255, 255, 255))
    draw, font = ImageDraw.Draw(legend), ImageFont.load_default(size=13)
    for number, (name, colour) in enumerate(zip(CLASS_NAMES, CLASS_RGB)):
        x = round(number * width / len(CLASS_NAMES)) + 6
        draw.rectangle((x, 4, x + 24, _LEGEND_PX - 4), fill=colour)
        draw.text((x + 30, _LEGEND_PX / 2), name, (90, 94, 100), font, anchor="lm")
    return np.asarray(legend)

"""Pictures to look at beside the figures: truth, prediction and error round a head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from dp360.generation import ViewSet

from .compare import picture_over_white

_STRIP_COLUMNS = 8
_LEVEL_DEG = 12.0
TILE_PX = 144
_ERROR_GAIN = 2.5
_LABEL_PX, _TITLE_PX = 22, 34


def comparison_strip(prediction: ViewSet, truth: ViewSet) -> UInt8[np.ndarray, "h w 3"]:
    """Three rows of the `strip_views`: the truth, the prediction nearest to it, and their difference."""
    columns = []
    for index in strip_views(truth):
        true = _tile(truth, index)
        distance = (prediction.cameras.position_world - truth.cameras.position_world[index]).norm(dim=-1)
        ours = _tile(prediction, int(distance.argmin()))
        columns.append(np.concatenate([true, ours, _error_picture(ours, true)]))
    return np.concatenate(columns, axis=1)


def strip_views(truth: ViewSet) -> list[int]:
    """Up to eight level views, spread round the head, beginning in front; views of any height where none is level."""
    azimuth = torch.rad2deg(truth.cameras.azimuth_rad) % 360
    level = torch.rad2deg(truth.cameras.elevation_rad).abs() < _LEVEL_DEG
    found = [i for i in range(len(truth)) if bool(level[i]) or not bool(level.any())]
    found.sort(key=lambda i: (round(float(azimuth[i]), 3) % 360, truth.names[i]))
    count = min(_STRIP_COLUMNS, len(found))
    return [found[k * len(found) // count] for k in range(count)]


def column_titles(truth: ViewSet) -> tuple[str, ...]:
    """Azimuths of the `strip_views`, degrees in (-180, 180]."""
    degrees = (math.degrees(float(truth.cameras.azimuth_rad[i])) for i in strip_views(truth))
    return tuple(f"{180 if round(a) == -180 else round(a)}°" for a in degrees)


def _error_picture(ours: UInt8[np.ndarray, "h w 3"], true: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Where two pictures differ: white is equal, dark red a difference of 0.4 in colour and more."""
    difference: Float32[np.ndarray, "h w"] = np.abs(ours.astype(np.float32) - true).mean(-1) / 255
    strength = np.clip(_ERROR_GAIN * difference, 0, 1)
    red, others = 1 - 0.6 * np.clip(2 * strength - 1, 0, 1), 1 - np.clip(2 * strength, 0, 1)
    return np.round(255 * np.stack([red, others, others], axis=-1)).astype(np.uint8)


def labelled_sheet(
    title: str, blocks: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]], columns: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Strips under each other with a title, a name over each, and names of the columns.

    Args:
        title: one line over all.
        blocks: names and strips of equal width.
        columns: one name per column of the strips.
    """
    width = max(block.shape[1] for _, block in blocks)
    height = _TITLE_PX + sum(_LABEL_PX + block.shape[0] for _, block in blocks) + _LABEL_PX
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
    draw.text((6, _TITLE_PX / 2), title, (32, 33, 36), font, anchor="lm")
    top = _TITLE_PX
    for name, block in blocks:
        draw.text((6, top + _LABEL_PX / 2), name, (90, 94, 100), small, anchor="lm")
        sheet.paste(Image.fromarray(np.ascontiguousarray(block)), (0, top + _LABEL_PX))
        top += _LABEL_PX + block.shape[0]
    for number, name in enumerate(columns):
        x = (number + 0.5) * width / len(columns)
        draw.text((x, top + _LABEL_PX / 2), name, (90, 94, 100), small, anchor="mm")
    return np.asarray(sheet)


def _tile(views: ViewSet, index: int) -> UInt8[np.ndarray, "s s 3"]:
    """A view over white, resized to a square."""
    return cv2.resize(picture_over_white(views, index), (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)

"""Square parts of a picture at another resolution, antialiased, with the picture's edge repeated outside."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image


def square_crop(
    picture: UInt8[np.ndarray, "h w *c"],
    center_px: tuple[float, float],
    side_px: float,
    size_px: int,
    *,
    sharp: bool = False,
) -> UInt8[np.ndarray, "size size *c"]:
    """A square part of a picture, resampled; a position x of the picture goes to (x - corner) * size_px / side_px.

    Args:
        picture: 8 bits, one or three channels.
        center_px: middle of the square, pixels, pixel centres at +0.5.
        side_px: side of the square, pixels of the picture.
        size_px: side of the result, pixels.
        sharp: Lanczos instead of a triangle filter; both are widened when the picture is reduced.
    """
    corner = np.asarray(center_px) - side_px / 2
    margin = 4 + int(np.ceil(4 * side_px / size_px))  # what the widened filter reads beyond the square
    first = np.floor(corner).astype(int) - margin
    count = int(np.ceil(side_px)) + 2 * margin + 1
    rows = np.clip(np.arange(first[1], first[1] + count), 0, picture.shape[0] - 1)
    columns = np.clip(np.arange(first[0], first[0] + count), 0, picture.shape[1] - 1)
    part = Image.fromarray(np.ascontiguousarray(picture[rows][:, columns]))
    left, top = corner - first
    resampled = part.resize(
        (size_px, size_px),
        Image.Resampling.LANCZOS if sharp else Image.Resampling.BILINEAR,
        box=(left, top, left + side_px, top + side_px),
    )
    return np.array(resampled)


def inside_mask(
    height: int, width: int, center_px: tuple[float, float], side_px: float, size_px: int
) -> Bool[np.ndarray, "size size"]:
    """True for the crop's pixels whose centres lie within a picture of height x width pixels."""
    steps = (np.arange(size_px) + 0.5) * (side_px / size_px) - side_px / 2
    x, y = center_px[0] + steps, center_px[1] + steps
    return ((y >= 0) & (y <= height))[:, None] & ((x >= 0) & (x <= width))[None, :]

"""From a picture to the input of a small network, and through it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from .layer_graph import LayerGraph


def warped(
    rgb: UInt8[np.ndarray, "h w 3"],
    center_px: tuple[float, float],
    size_px: tuple[float, float],
    roll_rad: float,
    out_px: tuple[int, int],
    *,
    edge_goes_on: bool = False,
) -> UInt8[np.ndarray, "i j 3"]:
    """A turned rectangle of a picture, bilinear from the nearest pixels.

    Args:
        center_px: its middle, pixels of the picture.
        size_px: its width and height, pixels of the picture.
        roll_rad: its turn, positive clockwise as seen.
        out_px: width and height of the result.
        edge_goes_on: beyond the picture its outermost pixels are repeated; otherwise it is black there.
    """
    width, height = out_px
    corners = cv2.boxPoints((center_px, size_px, float(np.degrees(roll_rad))))
    places = np.array([[0, height], [0, 0], [width, 0], [width, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, places)
    border = cv2.BORDER_REPLICATE if edge_goes_on else cv2.BORDER_CONSTANT
    return cv2.warpPerspective(rgb, matrix, out_px, flags=cv2.INTER_LINEAR, borderMode=border)


def run_on(pictures: list[UInt8[np.ndarray, "h w 3"]], network: LayerGraph, low: float, high: float) -> list[Tensor]:
    """What a network makes of pictures of its size, whose values go from `low` for black to `high` for white."""
    threads = torch.get_num_threads()
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() * ((high - low) / 255) + low
    torch.set_num_threads(1)  # layers this small only wait for each other, and on a busy machine for very long
    try:
        with torch.inference_mode():
            return network(batch)
    finally:
        torch.set_num_threads(threads)

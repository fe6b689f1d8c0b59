"""Which pixels are a person: two networks that mediapipe's authors trained (selfie segmentation).

Source: Google's model card "MediaPipe Selfie Segmentation", 2021; the networks came out of mediapipe 0.10.9's wheel
(`scripts/port_face_networks.py`).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from ..networks import NetworkFile
from .layer_graph import LayerGraph, LayerGraphConfig
from .network_input import run_on, warped

SQUARE_SEGMENTER = NetworkFile("person_segmenter_square", LayerGraph, LayerGraphConfig)
"""Sees the picture squeezed into a square."""
WIDE_SEGMENTER = NetworkFile("person_segmenter_wide", LayerGraph, LayerGraphConfig)
"""Sees the picture squeezed into 16:9."""


@runtime_checkable
class PersonSegmenter(Protocol):
    """Whatever tells persons from the rest of a picture."""

    def maps(self, rgb: UInt8[np.ndarray, "h w 3"]) -> list[Float32[np.ndarray, "h w"]]:
        """Probability of "person", one map for each network."""
        ...


class PersonNetworks:
    """Both networks."""

    def __init__(self) -> None:
        self._networks = [file.load().network for file in (SQUARE_SEGMENTER, WIDE_SEGMENTER)]

    def maps(self, rgb: UInt8[np.ndarray, "h w 3"]) -> list[Float32[np.ndarray, "h w"]]:
        """Probability of "person" by each network."""
        return [_map(rgb, network) for network in self._networks]


def _map(rgb: UInt8[np.ndarray, "h w 3"], network: LayerGraph) -> Float32[np.ndarray, "h w"]:
    height, width = rgb.shape[:2]
    seen_height, seen_width = network.config.input_px
    seen = warped(rgb, (width / 2, height / 2), (float(width), float(height)), 0.0, (seen_width, seen_height))
    (share,) = run_on([seen], network, 0.0, 1.0)
    return cv2.resize(share[0, 0].numpy(), (width, height)).clip(0, 1)

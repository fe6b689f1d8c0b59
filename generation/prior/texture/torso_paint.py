"""Paint the torso: own pixels, then the network's colour moved to what is seen nearby."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from ..labels.portrait_labels import CLOTH, SKIN
from .completion_network import COLUMNS, COVER, LOWER_ROWS, UPPER_ROWS, Chart
from .fills import carried_on, local_mean, sampled_part, soft_edged
from .portrait_lookup import SeenPoints

_FADE_PX = 30.0
"""Texels over which what is seen moves the colours beside it."""
_MOST_CARRIED = 0.12


def paint_torso(
    seen: SeenPoints, smooth: Chart, camera_azimuth_rad: float
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Clothes: own pixels, then the network's colour moved to what is seen nearby; colour and confidence.

    Args:
        seen: what the portrait shows.
        smooth: the network's colours.
        camera_azimuth_rad: of the portrait's camera, where the torso's columns start.
    """
    height, width = seen.trust.shape
    fits = np.maximum(seen.classes[..., CLOTH], seen.classes[..., SKIN])
    own = soft_edged(seen.trust * fits)
    base = _torso_picture(smooth, height, width, camera_azimuth_rad)
    mean, mass = local_mean(seen.colour, own)
    # Small differences are light and dye, large ones another garment, which ends where it is seen to end.
    error = np.clip(mean - base, -_MOST_CARRIED, _MOST_CARRIED)
    fill = np.clip(base + carried_on(error, mass, _FADE_PX), 0, 1)
    result = fill + (seen.colour - fill) * own[..., None]
    return np.clip(result, 0, 1).astype(np.float32), own


def _torso_picture(smooth: Chart, height: int, width: int, camera_azimuth_rad: float) -> Float32[np.ndarray, "h w 3"]:
    """The network's clothes on the torso's tile."""
    row = (np.arange(height, dtype=np.float32) + 0.5) * (LOWER_ROWS / height) - 0.5
    turn = np.arange(width, dtype=np.float32) / (width - 1) + camera_azimuth_rad / (2 * np.pi)
    return sampled_part(smooth[COVER, UPPER_ROWS:], row, (turn % 1.0 * COLUMNS).astype(np.float32))

"""Paint the hair shell: own pixels, mirrored ones, then the network's colour with detail by example."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from .. import capsule
from ..labels.portrait_labels import HAIR
from .completion_network import COLUMNS, COVER, UPPER_ROWS, Chart
from .fills import carried_on, enlarged, local_mean, push_pull, reduced, sampled_part, soft_edged, wrapped_blur
from .hair_detail import combed_detail, noise_strands, quilt
from .portrait_lookup import SeenPoints

_REDUCE = 4
"""Differences of light are computed at a lower resolution."""
_MOST_DETAIL = 0.9
_FADE_PX = 90.0
"""Texels over which what is seen moves the colours beside it."""
_FLOOR = 0.03


def paint_shell(
    seen: SeenPoints, reflected: SeenPoints, smooth: Chart, seed: int
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 3"]]:
    """Hair: own pixels, mirrored ones, then the network's colour with detail by example.

    Args:
        seen: what the portrait shows.
        reflected: what it shows of the mirror images.
        smooth: the network's colours.
        seed: of the detail.

    Returns:
        Colour, confidence, and the detail alone as logarithms of factors.
    """
    height, width = seen.trust.shape
    own = soft_edged(seen.trust * seen.classes[..., HAIR])
    mirror = soft_edged(reflected.trust * reflected.classes[..., HAIR])
    both = own * mirror
    mass = reduced(both, _REDUCE)
    mean = reduced((seen.colour - reflected.colour) * both[..., None], _REDUCE) / np.maximum(mass, 1e-5)[..., None]
    difference = enlarged(push_pull(mean, mass + np.float32(1e-6)), _REDUCE)
    m_colour = np.clip(reflected.colour + 0.7 * difference, 0, 1)
    w_mirror = mirror * (1 - own)
    weight = own + w_mirror
    colour = (seen.colour * own[..., None] + m_colour * w_mirror[..., None]) / np.maximum(weight, 1e-6)[..., None]

    base = _shell_picture(smooth, height, width)
    mean, mass = local_mean(colour, weight)
    fill = np.clip(base + carried_on(mean - base, mass, _FADE_PX), 0.01, 1)
    detail = np.log((colour + _FLOOR) / (mean + _FLOOR)).clip(-_MOST_DETAIL, _MOST_DETAIL)
    rng = np.random.default_rng(seed)
    solid = (weight > 0.5) & (mass > 0.3)
    example = detail.astype(np.float32), _without_outliers(detail, solid)
    synthetic = combed_detail(*example, rng)
    if synthetic is None:
        synthetic = quilt(*example, _texel_width(height), rng)
    if synthetic is None:
        synthetic = np.repeat(0.5 * noise_strands(colour, weight, seed)[..., None], 3, axis=2)
    fill = (fill + _FLOOR) * np.exp(synthetic) - _FLOOR

    # What is plainly seen is kept whatever its class: an ear or a temple that the shell happens to cover.
    keep = np.maximum(own, seen.trust * np.clip(2 * seen.trust - 1, 0, 1))
    mirror_keep = np.clip(1.5 * mirror - 0.25, 0, 1)
    result = fill + (m_colour - fill) * mirror_keep[..., None]
    result = result + (seen.colour - result) * keep[..., None]
    confidence = np.maximum(keep, 0.5 * mirror_keep).astype(np.float32)
    return np.clip(result, 0, 1).astype(np.float32), confidence, synthetic.astype(np.float32)


def _without_outliers(detail: Float32[np.ndarray, "h w 3"], solid: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Where detail may be learned from: not from glints, ornaments, folds and specks of the background."""
    if not solid.any():
        return solid
    grey = detail.mean(-1)
    coloured = np.abs(detail - grey[..., None]).max(-1)
    # ornaments and folds are broad, strands and strokes are thin: what is left after a light blur counts
    broad = np.abs(wrapped_blur(np.where(solid, grey, 0).astype(np.float32), 5.0, 5.0))
    odd = np.zeros(solid.shape, bool)
    for strength, least, factor in ((coloured, 0.1, 2.5), (broad, 0.1, 2.5), (np.abs(grey), 0.15, 2.8)):
        odd |= strength > max(least, factor * float(np.quantile(strength[solid][::7], 0.7)))
    odd = cv2.morphologyEx((odd & solid).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return solid & (cv2.dilate(odd, np.ones((9, 9), np.uint8)) == 0)


def _texel_width(height: int) -> Float32[np.ndarray, " h"]:
    """Relative true width of the shell tile's texels in each row: narrow about the crown."""
    row = np.arange(height) * ((capsule.ROWS - 1) / (height - 1))
    elevation = np.clip(1 - row / capsule.SPHERE_ROWS, 0, 1) * (np.pi / 2)
    return np.maximum(np.cos(elevation), 0.12).astype(np.float32)


def _shell_picture(smooth: Chart, height: int, width: int) -> Float32[np.ndarray, "h w 3"]:
    """The network's hair on the shell's tile."""
    row = np.arange(height, dtype=np.float32) * ((capsule.ROWS - 1) / (height - 1))
    row = (row + 0.5) * (UPPER_ROWS / capsule.ROWS) - 0.5
    column = np.arange(width, dtype=np.float32) * (COLUMNS / (width - 1))
    return sampled_part(smooth[COVER, :UPPER_ROWS], row, column)

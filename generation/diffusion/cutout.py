"""Opacity of generated views: a head over a plain background of known colour, guided by renders of the prior.

A diffusion model paints the head over the background of its reference picture but tells no alpha. What has the
background's colour and hangs together with the picture's edge is background, with one exception: white hair or a white
collar in front of white. The prior says where to expect that: deep enough inside its silhouette, and where its own
colour is close to the background's, everything is head. A band round the outline found so is solved by closed-form
matting; where the prior expects the background's colour, it is pulled gently towards the prior's silhouette, so that
the outline ends there instead of fading half-way.

Source: Levin, Lischinski and Weiss, "A Closed-Form Solution to Natural Image Matting", PAMI 2008, eq. 12 (matting
Laplacian, through https://github.com/pymatting/pymatting); a pull of its own weight per pixel as in Levin, Rav-Acha and
Lischinski, "Spectral Matting", PAMI 2008, Sec. 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from ..numba_pool import numba_pool
from ..portrait.matte import components_touching
from ..progress import Track, silent


@dataclass(frozen=True)
class CutoutConfig:
    """Lengths are shares of the picture's side; at 512 px 0.01 is about 5 px, or 0.6 cm at the head.

    The numbers are from six composed heads with hair cards, seen from six sides, over white with noise, and the priors
    of their front views: mean alpha error 0.002, IoU 0.995 (0.965 without the prior's colours); 0.96 where 90 or 97
    percent white is mixed into head and prior.
    """

    least_tolerance_unit: float = 0.012
    """Colours this close to the background's (largest channel, [0, 1]) always count as background."""
    most_tolerance_unit: float = 0.06
    """The same where the background is noisy: the tolerance follows what is measured at the picture's edge."""
    expected_tolerance_unit: float = 0.15
    """The prior's colour this close to the background's lets the head have the background's colour there."""
    core_depth: float = 0.035
    """Deeper than this inside the silhouette, where the background's colour is expected, everything is head."""
    inner_band: float = 0.02
    """The soft edge is looked for this far inside the outline,"""
    outer_band: float = 0.008
    """and this far outside."""
    pull: float = 0.01
    """Weight of the silhouette against the matting Laplacian where the background's colour is expected."""
    epsilon: float = 1e-5
    """Regularisation of colour lines in the matting Laplacian; larger is smoother."""


def cut_out_views(
    pictures: Float[Tensor, "n 3 h w"],
    silhouettes_unit: Float[Tensor, "n h w"] | None = None,
    expected: Float[Tensor, "n 3 h w"] | None = None,
    *,
    background_rgb_unit: tuple[float, float, float] = (1.0, 1.0, 1.0),
    config: CutoutConfig | None = None,
    track: Track = silent,
) -> UInt8[Tensor, "n h w 4"]:
    """Straight colour and alpha of pictures over a plain background.

    Args:
        pictures: colours in [0, 1].
        silhouettes_unit: the prior's alpha from the same cameras; None where no prior is known, and then what has the
            background's colour at the head's outline is lost.
        expected: the prior over the background, [0, 1]; None expects the background's colour everywhere.
        background_rgb_unit: colour that the background was meant to have; each picture's own is measured near it.
        config: thresholds; None takes `CutoutConfig()`.
    """
    config = config or CutoutConfig()
    nominal = np.array(background_rgb_unit, np.float32)
    result = torch.empty(len(pictures), *pictures.shape[2:], 4, dtype=torch.uint8)
    for i in track(range(len(pictures)), total=len(pictures), description="Cutting out"):
        rgb = _channels_last(pictures[i])
        silhouette = None if silhouettes_unit is None else silhouettes_unit[i].cpu().numpy().astype(np.float32)
        colours = None if expected is None else _channels_last(expected[i])
        alpha = estimate_alpha(rgb, silhouette, colours, nominal, config)
        rgba = np.concatenate([_unmixed(rgb, alpha), alpha[..., None]], axis=-1)
        result[i] = torch.from_numpy((rgba * 255 + 0.5).astype(np.uint8))
    return result


def edge_colour(pictures: Float[Tensor, "n 3 h w"]) -> tuple[float, float, float]:
    """Median colour along the top and the upper sides of all pictures: the background's, where it is not known."""
    edge = torch.from_numpy(_upper_edge(pictures.shape[2], pictures.shape[3]))
    red, green, blue = pictures[:, :, edge].permute(1, 0, 2).flatten(1).median(dim=1).values.tolist()
    return red, green, blue


def has_plain_background(
    picture: Float[Tensor, "3 h w"], background_rgb_unit: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> bool:
    """Whether the picture's top and upper sides have one colour, near the one given, over most of their length."""
    config, rgb = CutoutConfig(), _channels_last(picture)
    edge = rgb[_upper_edge(rgb.shape[0], rgb.shape[1])]
    background, _ = measured_background(edge, np.array(background_rgb_unit, np.float32), config)
    return bool((np.abs(edge - background).max(-1) <= config.most_tolerance_unit).mean() > _PLAIN_SHARE)


_PLAIN_SHARE = 0.6
"""Hair may reach over the upper edge, but not over more than the rest of it."""
_EDGE_SHARE = 0.012
"""Thickness of the frame in which the background is measured."""


def estimate_alpha(
    rgb: Float32[np.ndarray, "h w 3"],
    silhouette_unit: Float32[np.ndarray, "h w"] | None,
    expected: Float32[np.ndarray, "h w 3"] | None,
    nominal_background: Float32[np.ndarray, " 3"],
    config: CutoutConfig,
) -> Float32[np.ndarray, "h w"]:
    """Opacity of one picture, [0, 1]; arguments as `cut_out_views`, colours last."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    inner = np.zeros((height, width), bool) if silhouette_unit is None else silhouette_unit > 0.5
    calm = cv2.medianBlur(rgb, 3)
    upper_edge = _upper_edge(height, width)
    background, tolerance = measured_background(calm[upper_edge & ~inner], nominal_background, config)

    depth = _distance(inner)
    expects_background = inner
    if expected is not None and silhouette_unit is not None:
        opaque = silhouette_unit > 0.98
        close = opaque & (np.abs(expected - nominal_background).max(-1) < config.expected_tolerance_unit)
        expects_background = inner & (_distance(~close) <= config.core_depth * side)
    core = (depth > config.core_depth * side) & expects_background

    alike = (np.abs(calm - background).max(-1) <= tolerance) & ~core
    frame = upper_edge if silhouette_unit is None else _frame(height, width)  # without it, shoulders may be anywhere
    head = ~components_touching(alike, frame & ~inner, connectivity=4)
    head = components_touching(head, inner, connectivity=8) if inner.any() else _largest(head)

    undecided = expects_background & ~head
    trimap = np.full((height, width), 0.5, np.float32)
    trimap[(_distance(head) > config.inner_band * side) | core] = 1.0
    trimap[(_distance(~head) > max(1.5, config.outer_band * side)) & ~undecided] = 0.0
    silhouette = np.zeros((height, width), np.float32) if silhouette_unit is None else silhouette_unit
    return _solved(rgb, trimap, np.where(undecided, silhouette, 0.0), config.pull * undecided, config.epsilon)


def measured_background(
    samples: Float32[np.ndarray, "p 3"], nominal: Float32[np.ndarray, " 3"], config: CutoutConfig
) -> tuple[Float32[np.ndarray, " 3"], float]:
    """The background's colour in a picture and how far its pixels stray from it.

    Args:
        samples: pixels at the picture's edge, most of them background.
        nominal: the colour they were meant to have.

    Returns:
        Colour, and the tolerance that holds nearly all pixels of the background.
    """
    near = samples[np.abs(samples - nominal).max(-1) <= 3 * config.most_tolerance_unit] if len(samples) else samples
    if len(near) < 8:
        return nominal, config.least_tolerance_unit
    colour = np.median(near, axis=0).astype(np.float32)
    stray = float(np.percentile(np.abs(near - colour).max(-1), 90))
    return colour, float(np.clip(3.0 * stray, config.least_tolerance_unit, config.most_tolerance_unit))


def _solved(
    rgb: Float32[np.ndarray, "h w 3"],
    trimap: Float32[np.ndarray, "h w"],
    target: Float[np.ndarray, "h w"],
    weight: Float[np.ndarray, "h w"],
    epsilon: float,
) -> Float32[np.ndarray, "h w"]:
    """Closed-form alpha where the trimap says 0.5, pulled towards `target` with `weight` per pixel.

    Minimises a^T L a + (a - target)^T diag(weight) (a - target) with a fixed where the trimap is 0 or 1.
    """
    from pymatting import cf_laplacian

    unknown = trimap == 0.5
    if not unknown.any():
        return trimap
    margin = 2
    rows, columns = np.flatnonzero(unknown.any(1)), np.flatnonzero(unknown.any(0))
    window = (
        slice(max(rows[0] - margin, 0), rows[-1] + 1 + margin),
        slice(max(columns[0] - margin, 0), columns[-1] + 1 + margin),
    )
    free = unknown[window].ravel()
    image = np.ascontiguousarray(rgb[window], dtype=np.float64)
    laplacian = cf_laplacian(image, epsilon=epsilon, is_known=~unknown[window])[free]
    pull = weight[window].ravel()[free] + 1e-9
    system = laplacian[:, free] + scipy.sparse.diags(pull)
    known = trimap[window].ravel()[~free].astype(np.float64)
    right = pull * target[window].ravel()[free] - laplacian[:, ~free] @ known
    start = np.full(len(right), 0.5)
    inverse_diagonal = scipy.sparse.diags(1 / np.maximum(system.diagonal(), 1e-9))
    solution, _ = scipy.sparse.linalg.cg(system, right, x0=start, rtol=1e-3, maxiter=300, M=inverse_diagonal)
    alpha = trimap.copy()
    alpha[unknown] = np.clip(solution, 0.0, 1.0)
    return alpha


def _unmixed(rgb: Float32[np.ndarray, "h w 3"], alpha: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    """Colour of the head without the background's share, continued smoothly beyond the edge.

    Source: Germer et al., "Fast Multi-Level Foreground Estimation", ICPR 2020.
    """
    from pymatting import estimate_foreground_ml

    with numba_pool(rgb.size):  # its kernels share numba's threads with ours
        return np.clip(estimate_foreground_ml(rgb, alpha), 0.0, 1.0).astype(np.float32)


def _channels_last(picture: Float[Tensor, "3 h w"]) -> Float32[np.ndarray, "h w 3"]:
    return np.ascontiguousarray(picture.permute(1, 2, 0).float().cpu().numpy().clip(0, 1))


def _distance(mask: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Distance of the mask's pixels to the nearest one outside it, pixels; the picture's edge is not outside."""
    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)


def _largest(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The largest connected part."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels == 1 + int(np.argmax(stats[1:count, cv2.CC_STAT_AREA])) if count > 1 else mask


def _frame(height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The outermost pixels."""
    frame = np.zeros((height, width), bool)
    frame[[0, -1]], frame[:, [0, -1]] = True, True
    return frame


def _upper_edge(height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """A thin strip along the top and the upper half of the sides, where shoulders do not reach."""
    edge = np.zeros((height, width), bool)
    thick = max(1, round(_EDGE_SHARE * max(height, width)))
    edge[:thick] = True
    edge[: height // 2, :thick], edge[: height // 2, -thick:] = True, True
    return edge

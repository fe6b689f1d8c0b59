"""What a fit minimises: photometric, silhouette and regularising terms, for pictures `[h w 3]` in [0, 1].

Every function returns a scalar tensor that can be differentiated in its first argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .perceptual import MIN_SIZE_PX, Lpips
from .photometric_cpu import PictureLoss
from .photometric_kernels import SSIM_C1, SSIM_C2, SSIM_SIGMA, SSIM_WINDOW


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms of `training_loss`."""

    ssim_weight: float = 0.2
    """Share of 1 - SSIM in the photometric term, [0, 1]; the rest is L1."""
    alpha_weight: float = 0.5
    """Weight of the silhouette term: keeps the outside empty and the head opaque."""
    needle_weight: float = 0.01
    """Weight against Gaussians much longer than wide."""
    max_needle_ratio: float = 4.0
    """Longest axis divided by the middle one up to which a Gaussian is no needle."""
    lpips_weight: float = 0.05
    """Weight of LPIPS on full-size pictures, where a GPU computes and its weights lie on this machine; it is never
    downloaded."""


def l1_loss(
    rgb: Float[Tensor, "h w c"], target: Float[Tensor, "h w c"], *, weights: Float[Tensor, "h w"] | None = None
) -> Float[Tensor, ""]:
    """Mean absolute difference, times the trust in every pixel."""
    difference = (rgb - target).abs()
    return difference.mean() if weights is None else (weights[..., None] * difference).mean()


def _blur(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h2 w2"]:
    """Means in a separable Gaussian window where it fits, so that both sides shrink by `SSIM_WINDOW` - 1."""
    x = torch.arange(SSIM_WINDOW, dtype=maps.dtype, device=maps.device) - SSIM_WINDOW // 2
    window = torch.exp(-(x**2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    rows = torch.nn.functional.conv2d(maps[:, None], window.view(1, 1, -1, 1))
    return torch.nn.functional.conv2d(rows, window.view(1, 1, 1, -1))[:, 0]


def ssim(
    rgb: Float[Tensor, "h w c"], target: Float[Tensor, "h w c"], *, weights: Float[Tensor, "h w"] | None = None
) -> Float[Tensor, ""]:
    """Structural similarity, 1 for equal pictures; the mean over all whole windows and channels.

    With `weights`, dissimilarity counts as much as the pixel in the middle of the window is trusted.

    Equal to scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1)`.

    Raises:
        ValueError: a picture smaller than the window.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, Eq. 13.
    """
    if min(rgb.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"ssim: expected pictures of at least {SSIM_WINDOW} px, got {tuple(rgb.shape[:2])}")
    x, y = rgb.permute(2, 0, 1), target.permute(2, 0, 1)
    mean_x, mean_y, xx, yy, xy = _blur(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    variances = xx - mean_x**2 + yy - mean_y**2
    covariance = xy - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + SSIM_C1) * (variances + SSIM_C2))
    if weights is None:
        return similarity.mean()
    margin = SSIM_WINDOW // 2
    return 1 - (weights[margin:-margin, margin:-margin] * (1 - similarity)).mean()


def needle_loss(log_scales: Float[Tensor, "n 3"], *, max_ratio: float = 4.0) -> Float[Tensor, ""]:
    """Mean excess of the logarithm of longest over middle axis. Flat Gaussians cost nothing, needles do.

    Source: after Xie et al., "PhysGaussian", 2024, Eq. 12, with the middle axis in place of the shortest.
    """
    with torch.no_grad():  # few Gaussians are needles; the others have neither loss nor gradient
        longest, middle = longest_and_middle(log_scales)
        needles = longest - middle > math.log(max_ratio)
    longest, middle = longest_and_middle(log_scales[needles])
    return (longest - middle - math.log(max_ratio)).sum() / max(1, len(log_scales))


def longest_and_middle(log_scales: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The largest and the second largest of the three numbers of each Gaussian; several times faster than sorting."""
    a, b, c = log_scales.unbind(-1)
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return torch.maximum(high, c), torch.maximum(low, torch.minimum(high, c))


def target_over_background(
    premultiplied_rgba: Float[Tensor, "h w 4"], background_rgb_unit: Float[Tensor, "... 3"]
) -> tuple[Float[Tensor, "h w 3"], Float[Tensor, "h w"]]:
    """A picture of premultiplied colour and alpha over a plain background, and its alpha."""
    alpha = premultiplied_rgba[..., 3]
    return torch.addcmul(premultiplied_rgba[..., :3], 1 - alpha[..., None], background_rgb_unit), alpha


def training_loss(
    rgb: Float[Tensor, "h w 3"],
    alpha: Float[Tensor, "h w"],
    target_rgb: Float[Tensor, "h w 3"],
    target_alpha: Float[Tensor, "h w"],
    log_scales: Float[Tensor, "n 3"],
    config: LossConfig,
    *,
    weights: Float[Tensor, "h w"] | None = None,
    lpips: Lpips | None = None,
) -> Float[Tensor, ""]:
    """The sum that a splat fit minimises for one view: (1 - w) L1 + w (1 - SSIM), silhouette, needles, LPIPS.

    On the CPU in float32 the picture terms are one fused kernel.

    Args:
        rgb: Rendered picture over some background, [0, 1].
        alpha: Rendered opacity, [0, 1].
        target_rgb: The view's picture over the same background, [0, 1].
        target_alpha: The view's opacity, [0, 1].
        log_scales: The Gaussians' log standard deviations.
        weights: Trust in every pixel, [0, 1], which scales what depends on the view; SSIM by the window's centre.
        lpips: The perceptual distance, where it is to count; by the mean trust.

    Raises:
        ValueError: a picture smaller than the window of SSIM, unless its weight is zero.

    Source: Kerbl et al., "3D Gaussian Splatting", 2023, Eq. 7.
    """
    if rgb.device.type == "cpu" and rgb.dtype == torch.float32 and not target_rgb.requires_grad:
        if config.ssim_weight > 0 and min(rgb.shape[:2]) < SSIM_WINDOW:
            raise ValueError(f"ssim: expected pictures of at least {SSIM_WINDOW} px, got {tuple(rgb.shape[:2])}")
        pictures = (rgb, alpha, target_rgb, target_alpha)
        loss: Tensor = PictureLoss.apply(*pictures, config.ssim_weight, config.alpha_weight, weights)  # type: ignore[assignment]
    else:
        loss = (1 - config.ssim_weight) * l1_loss(rgb, target_rgb, weights=weights)
        if config.ssim_weight > 0:
            loss = loss + config.ssim_weight * (1 - ssim(rgb, target_rgb, weights=weights))
        if config.alpha_weight > 0:
            loss = loss + config.alpha_weight * l1_loss(alpha[..., None], target_alpha[..., None], weights=weights)
    if lpips is not None and config.lpips_weight > 0 and min(rgb.shape[:2]) >= MIN_SIZE_PX:
        trust = 1.0 if weights is None else weights.mean()
        loss = loss + config.lpips_weight * trust * lpips(rgb, target_rgb)
    if config.needle_weight > 0:
        loss = loss + config.needle_weight * needle_loss(log_scales, max_ratio=config.max_needle_ratio)
    return loss

"""From small drawings to full-size views: the portrait's own pixels kept, the prior's fine detail given back.

The compact networks draw at 256 px. What they cannot hold at that size is known in two places. Where the portrait shows
the surface or its mirror image, the prior's render is made of the portrait's own pixels, and they stay. Elsewhere the
band of detail above `detail_sigma_px` is the prior's instead of the drawing's, unless the two disagree about what is
there: an outline or a lock of hair that the networks moved would otherwise leave a ghost where the prior had it. All of
it is arithmetic on pictures over the plain background; a drawing that equals the reduced prior gives the prior back, at
full size.

Source: detail as the residual of a pyramid, Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", IEEE
Trans. Communications 1983.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from .control_pictures import resized_by_area


@dataclass(frozen=True)
class UpscaleConfig:
    """What full-size views take from the drawing and what from the prior."""

    kept_validity: tuple[float, float] = (0.3, 0.5)
    """Validity below the first is drawn, above the second the portrait's own pixels stay; 0.5 is a mirror image: the
    other half of a face is the same person, drawn cheeks are not quite."""
    kept_feather: float = 0.008
    """Width (sigma, share of the views' side) over which validity is averaged on the surface first, so that the
    portrait's pixels and drawn ones meet without a seam; 0 leaves the prior's own borders."""
    detail_sigma_px: float = 1.0
    """Finer than a Gaussian of this width, in pixels of the drawing, is detail; 0 leaves the drawing what it has."""
    detail_share: float = 1.0
    """How much of the drawing's detail is exchanged for the prior's, 0 to 1."""
    detail_disagreement: tuple[float, float] = (0.1, 0.3)
    """Colours of drawing and prior (largest channel, [0, 1]) that differ by less than the first have the same detail,
    by more than the second none in common."""

    outline_margin: float = 0.012
    """Width (sigma, share of the views' side) of the band inside the prior's outline that keeps the prior's colours,
    where views keep that outline."""


def full_size_views(
    drawings: Float[Tensor, "n 3 s s"],
    prior_pictures: Float[Tensor, "n 3 t t"],
    alpha_unit: Float[Tensor, "n t t"],
    validity_unit: Float[Tensor, "n t t"],
    config: UpscaleConfig | None = None,
) -> Float[Tensor, "n 3 t t"]:
    """Drawings at the size of the prior's renders.

    Args:
        drawings: what the networks drew over the plain background, [0, 1].
        prior_pictures: the prior over the same background from the same cameras, [0, 1], of `drawings`' size or larger.
        alpha_unit: coverage of the prior, [0, 1].
        validity_unit: how far the portrait shows this surface, [0, 1].
        config: what is taken from where; None takes `UpscaleConfig()`.

    Returns:
        Colours in [0, 1].
    """
    config = config or UpscaleConfig()
    detailed = enlarged(drawings, prior_pictures.shape[-1], clamp=False)
    if config.detail_share:
        detailed = detailed + config.detail_share * exchanged_detail(drawings, prior_pictures, config)
    return kept_pixels(detailed.clamp(0, 1), prior_pictures, alpha_unit, validity_unit, config)


def exchanged_detail(
    drawings: Float[Tensor, "n 3 s s"], prior_pictures: Float[Tensor, "n 3 t t"], config: UpscaleConfig
) -> Float[Tensor, "n 3 t t"]:
    """What is to be added to the enlarged drawing: the prior's detail less the drawing's, where both show the same."""
    size_px = prior_pictures.shape[-1]
    small = resized_by_area(prior_pictures, drawings.shape[-1])
    apart = drawings - small
    coarse = blurred(apart, config.detail_sigma_px)
    agreement = 1 - smoothstep(coarse.abs().amax(1, keepdim=True), *config.detail_disagreement)
    detail = prior_pictures - enlarged(small, size_px, clamp=False) - enlarged(apart - coarse, size_px, clamp=False)
    return detail * enlarged(agreement, size_px)


def kept_pixels(
    pictures: Float[Tensor, "n 3 t t"],
    prior_pictures: Float[Tensor, "n 3 t t"],
    alpha_unit: Float[Tensor, "n t t"],
    validity_unit: Float[Tensor, "n t t"],
    config: UpscaleConfig,
) -> Float[Tensor, "n 3 t t"]:
    """Pictures with the portrait's own pixels, by way of the prior, where the portrait shows the surface."""
    validity, alpha = validity_unit[:, None], alpha_unit[:, None]
    sigma_px = config.kept_feather * pictures.shape[-1]
    low, high = config.kept_validity
    validity = validity.clamp(max=high) / high  # so that a border towards nothing fades on the kept side alone
    shown = blurred(validity * alpha, sigma_px) / blurred(alpha, sigma_px).clamp_min(1e-6) if sigma_px else validity
    weight = smoothstep(torch.minimum(shown, validity), low / high, 1.0)
    return torch.lerp(pictures, prior_pictures, weight * alpha)


def inside_outline(
    pictures: Float[Tensor, "n 3 t t"],
    prior_pictures: Float[Tensor, "n 3 t t"],
    alpha_unit: Float[Tensor, "n t t"],
    config: UpscaleConfig,
) -> UInt8[Tensor, "n t t 4"]:
    """Views cut out along the prior's outline, straight colour and alpha.

    Networks that are not sure where a head ends draw a blur there: along the outline colours are the prior's.

    Args:
        pictures: over white, [0, 1].
        prior_pictures: the prior over white.
        alpha_unit: coverage of the prior, [0, 1]; it becomes the views' alpha.
        config: how wide the band is.
    """
    alpha = alpha_unit[:, None]
    weight = smoothstep(blurred(alpha, config.outline_margin * pictures.shape[-1]), 0.75, 0.98)
    mixed = torch.lerp(prior_pictures, pictures, weight)
    straight = torch.where(alpha > 0, 1 - (1 - mixed) / alpha.clamp_min(1e-3), mixed).clamp(0, 1)
    return (torch.cat([straight, alpha], dim=1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)


def enlarged(pictures: Float[Tensor, "n c s s"], size_px: int, *, clamp: bool = True) -> Float[Tensor, "n c t t"]:
    """Pictures at a larger size, bicubic (a = -0.5, which overshoots least); `clamp` keeps [0, 1]."""
    if pictures.shape[-1] != size_px:
        pictures = F.interpolate(pictures, (size_px, size_px), mode="bicubic", antialias=True)
    return pictures.clamp(0, 1) if clamp else pictures


def blurred(pictures: Float[Tensor, "n c h w"], sigma_px: float) -> Float[Tensor, "n c h w"]:
    """Pictures under a Gaussian; beyond the edge they go on as at the edge. Below 0.1 pixels nothing changes."""
    if sigma_px < 0.1:
        return pictures
    radius = min(math.ceil(3 * sigma_px), min(pictures.shape[-2:]) - 1)
    kernel = [math.exp(-0.5 * (offset / sigma_px) ** 2) for offset in range(-radius, radius + 1)]
    weights = [value / sum(kernel) for value in kernel]
    result = F.pad(pictures, (radius,) * 4, mode="replicate")
    for axis in (2, 3):  # sums of shifted pictures: on a CPU faster than convolutions of one channel
        length = pictures.shape[axis]
        total = weights[0] * result.narrow(axis, 0, length)
        for k, weight in enumerate(weights[1:], start=1):
            total = total.add_(result.narrow(axis, k, length), alpha=weight)
        result = total
    return result


def smoothstep(values: Float[Tensor, "*shape"], low: float, high: float) -> Float[Tensor, "*shape"]:
    """0 below `low`, 1 above `high`, smooth in between: 3 t^2 - 2 t^3."""
    share = ((values - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)

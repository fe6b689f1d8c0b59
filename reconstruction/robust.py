"""Fitting pictures that do not quite agree: what each view is believed to have done to the head's picture.

Generated views differ a little in place and colour, and now and then one shows something else altogether. For every
view this keeps a gain per colour channel, a shift in the image plane, and trust. All of it is measured from the fit's
own residuals whenever the view comes round, is drawn towards "nothing wrong", leaves the portrait alone, and is thrown
away when the fit is done. Pixels where a view disagrees much more than is usual count less.

Sources: exposure per view after Martin-Brualla et al., "NeRF in the Wild", 2021, Sec. 4.1; shifts by a Gauss-Newton
step after Lucas and Kanade, "An Iterative Image Registration Technique", 1981; weights of patches after Sabour et al.,
"RobustNeRF", 2023, Sec. 4, with a smooth fall (Geman and McClure, 1985) in place of a threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dp360.generation.cameras import Cameras

from .agreement_kernels import (
    BX,
    BY,
    ERROR,
    ERROR_INSIDE,
    OPACITY,
    OURS,
    PIXELS,
    THEIRS,
    XX,
    XY,
    YY,
    patch_sums,
)


@dataclass(frozen=True)
class RobustConfig:
    """How far views are corrected and doubted."""

    enabled: bool = True
    """Whether views are corrected and doubted at all."""
    start_fraction: float = 0.1
    """Share of the iterations before anything is measured: the first renders are too rough."""
    pixels_fraction: float = 0.5
    """Share of the iterations before patches are weighed: until then the fit itself is what is wrong in most."""
    trust_fractions: tuple[float, ...] = (0.2, 0.3, 0.45, 0.6)
    """Shares of the iterations after which the views to come are drawn anew, by confidence and trust."""
    rate: float = 0.5
    """How far a correction moves towards what was just measured, (0, 1]."""
    gain_noise: float = 0.01
    """Standard deviation of measured gains when nothing has one."""
    max_gain: float = 1.3
    """Largest gain; the smallest is its inverse."""
    shift_noise: float = 0.0012
    """Standard deviation of measured shifts when nothing is shifted, picture widths."""
    max_shift: float = 0.015
    """Largest shift along either axis, in picture widths."""
    patch: int = 32
    """Patches along the side of a picture."""
    patch_tolerance: float = 6.0
    """Residual of a patch, in units of what nine of ten patches stay below, at which its weight is a quarter."""
    view_tolerance: float = 4.0
    """Residual of a view, in units of the median view's, up to which it is fully trusted."""
    least_trust: float = 0.15
    """Views trusted less than this are left out."""

    def weighs_pixels(self, step: int, iterations: int) -> bool:
        """Whether patches are weighed at iteration `step`."""
        return self.enabled and step >= self.pixels_fraction * iterations

    def starts(self, step: int, iterations: int) -> bool:
        """Whether views are measured at iteration `step`."""
        return self.enabled and step >= self.start_fraction * iterations

    def is_trust_due(self, step: int, iterations: int) -> bool:
        """Whether the views to come are drawn anew after iteration `step`."""
        return self.enabled and step in {int(f * iterations) for f in self.trust_fractions}


class ViewAgreement(torch.nn.Module):
    """Gains, shifts and trust of every view; buffers, so that checkpoints carry them."""

    log_gain: Float[Tensor, "n 3"]
    shift: Float[Tensor, "n 2"]
    residual: Float[Tensor, " n"]
    visits: Float[Tensor, " n"]
    trust: Float[Tensor, " n"]
    patch_scale: Float[Tensor, ""]
    anchored: Tensor

    def __init__(self, confidence: Float[Tensor, " n"], config: RobustConfig) -> None:
        """Nothing is wrong yet.

        Args:
            confidence: trust that the data set gives; a single view above all others is the portrait, which the rest
                is corrected towards and which is never doubted.
            config: settings.
        """
        super().__init__()
        n = len(confidence)
        self.config = config
        self.drift: Float[Tensor, "n 2 3"] | None = None
        top = confidence == confidence.max() if n else torch.zeros(0, dtype=torch.bool)
        self.register_buffer("log_gain", torch.zeros(n, 3))
        self.register_buffer("shift", torch.zeros(n, 2))
        self.register_buffer("residual", torch.zeros(n))
        self.register_buffer("visits", torch.zeros(n))
        self.register_buffer("trust", torch.ones(n))
        self.register_buffer("patch_scale", torch.zeros(()))
        self.register_buffer("anchored", top & (top.sum() == 1))

    def shift_px(self, view: int, width: int) -> Float[Tensor, " 2"]:
        """How far the view's picture lies off, pixels (x right, y down): add it to the principal point."""
        return (self._believed_shift(view) * width).cpu().double()

    def _believed_shift(self, view: int) -> Float[Tensor, " 2"]:
        """The measured shift, less what the whole head's drift explains, and less where all shifts are small.

        The share believed is that of a signal in noise (Wiener), its variance taken from all views together: where
        nothing is shifted, the head must not wander along with the views' errors.
        """
        if bool(self.anchored[view]):
            return torch.zeros_like(self.shift[view])
        weight = self.trust * ((self.visits > 0) & ~self.anchored)
        shift = self.shift
        if self.drift is not None:
            # where the portrait sees the head drift, it has drifted, whatever all others say together
            weight = weight + len(shift) * self.anchored
            normal = torch.einsum("n,nij,nik->jk", weight, self.drift, self.drift)
            right = torch.einsum("n,nij,ni->j", weight, self.drift, shift)
            ridge = 1e-3 * normal.diagonal().mean().clamp_min(1e-9)
            drift = torch.linalg.solve(normal + ridge * torch.eye(3).to(normal), right)
            shift = shift - self.drift @ drift
            weight = weight * ~self.anchored
        variance = (weight * shift.square().mean(dim=-1)).sum() / weight.sum().clamp_min(1)
        return shift[view] * variance / (variance + self.config.shift_noise**2)

    def set_cameras(self, cameras: Cameras) -> None:
        """Let the shifts know how the picture of each view moves, in picture widths, as the head moves in the world."""
        distance = cameras.position_world.norm(dim=-1).clamp_min(1e-6)
        per_unit = cameras.focal_px[:, 0] / (cameras.width * distance)
        self.drift = (per_unit[:, None, None] * cameras.T_camera_world[:, :2, :3]).to(self.shift)

    def _believed_gain(self, view: int) -> Float[Tensor, " 3"]:
        """Logarithms of the measured gains against the portrait's (against the mean where there is none), shrunk alike.

        What the portrait would need as well is the fit's own doing: renders lag behind while details are learned.
        """
        if bool(self.anchored[view]):
            return torch.zeros_like(self.log_gain[view])
        weight = (self.trust * ((self.visits > 0) & ~self.anchored))[:, None]
        common = (weight * self.log_gain).sum(dim=0) / weight.sum().clamp_min(1)
        if bool((self.anchored & (self.visits > 0)).any()):
            common = self.log_gain[self.anchored][0]
        gain = self.log_gain - common
        variance = (weight * gain.square()).sum() / (3 * weight.sum().clamp_min(1))
        return gain[view] * variance / (variance + self.config.gain_noise**2)

    def corrected(self, premultiplied_rgba: Float[Tensor, "h w 4"], view: int) -> Float[Tensor, "h w 4"]:
        """The view's picture with its gain taken out."""
        if not (self.config.enabled and bool(self.log_gain[view].any())):
            return premultiplied_rgba
        gain = torch.cat([self._believed_gain(view).exp(), self.log_gain.new_ones(1)])
        return premultiplied_rgba / gain

    @torch.no_grad()
    def measure(
        self,
        view: int,
        rgb: Float[Tensor, "h w 3"],
        alpha: Float[Tensor, "h w"],
        background_rgb_unit: Float[Tensor, " 3"],
        target: Float[Tensor, "h w 4"],
        *,
        weigh_pixels: bool = False,
    ) -> Float[Tensor, "h w"] | None:
        """Compare a render with the view's picture and move the view's corrections and residual.

        Args:
            rgb: render over the background, seen with the view's shift.
            alpha: rendered opacity.
            background_rgb_unit: what lies behind it.
            target: the view's premultiplied picture, as `corrected` gives it.
            weigh_pixels: whether to weigh patches.

        Returns:
            Weights of the pixels for this iteration's loss, None where all count the same.
        """
        config, height, width = self.config, *alpha.shape
        side = max(1, width // config.patch)
        sums = patch_sums(rgb, alpha, background_rgb_unit, target, side).to(self.residual)
        share = float((sums[..., OPACITY].sum() / alpha.numel()).clamp_min(1e-3))
        residual = float(sums[..., ERROR].sum()) / alpha.numel() / share
        before = float(self.residual[view])
        self.residual[view] = before + config.rate * (residual - before) if self.visits[view] > 0 else residual
        self.visits[view] += 1
        if not weigh_pixels:
            self._move(view, sums.sum(dim=(0, 1)), width, height)
            return None
        weights = self._patch_weights(sums)
        self._move(view, (weights[..., None] * sums).sum(dim=(0, 1)), width, height)
        return weights.repeat_interleave(side, 0).repeat_interleave(side, 1)[:height, :width].contiguous()

    def _move(self, view: int, sums: Float[Tensor, " 15"], width: int, height: int) -> None:
        """Move the gain and the shift of a view by the sums over its picture."""
        # A ratio of sums over what both see as solid: shifted pictures do not lower it, as they would a slope.
        # 0.2% of the picture in mid-grey that agrees: views that show next to nothing keep their colours.
        grey = 0.001 * width * height
        step = ((sums[THEIRS].clamp_min(0) + grey) / (sums[OURS].clamp_min(0) + grey)).log()
        limit = math.log(self.config.max_gain)
        measured = self._believed_gain(view) + step
        moved = self.log_gain[view] + self.config.rate * (measured - self.log_gain[view])
        self.log_gain[view] = moved.clamp(-limit, limit)

        # One Gauss-Newton step: a picture that moves by d changes by -gradient . d; the ridge is worth a few pixels of
        # edge.
        xx, xy, yy, bx, by = sums[XX] + 0.5, sums[XY], sums[YY] + 0.5, sums[BX], sums[BY]
        step_px = torch.stack([yy * bx - xy * by, xx * by - xy * bx]) / (xx * yy - xy * xy)
        measured = self._believed_shift(view) + step_px.clamp(-1, 1) / width
        moved = self.shift[view] + self.config.rate * (measured - self.shift[view])
        self.shift[view] = moved.clamp(-self.config.max_shift, self.config.max_shift)

    def _patch_weights(self, sums: Float[Tensor, "rows columns 15"]) -> Float[Tensor, "rows columns"]:
        """Weights of patches by their mean residual inside both silhouettes: what sticks out is the hull's business."""
        error, opacity = sums[..., ERROR_INSIDE] / sums[..., PIXELS], sums[..., OPACITY] / sums[..., PIXELS]
        inside = error[opacity > 0.1]
        if inside.numel() > 0:
            scale = torch.quantile(inside, 0.9)
            known = float(self.patch_scale) > 0
            self.patch_scale.copy_(self.patch_scale + 0.1 * (scale - self.patch_scale) if known else scale)
        limit = self.config.patch_tolerance * self.patch_scale.clamp_min(1e-4)
        return 1 / (1 + (error / limit) ** 2) ** 2

    @torch.no_grad()
    def update_trust(self) -> Float[Tensor, " n"]:
        """Doubt views whose residual is far above the median of those seen; returns trust, 0 for those left out."""
        seen = self.visits > 0
        if bool(seen.any()):
            ratio = self.residual / self.residual[seen].median().clamp_min(1e-6)
            trust = (self.config.view_tolerance / ratio.clamp_min(1e-6)).clamp_max(1) ** 3
            trust = torch.where(trust < self.config.least_trust, torch.zeros_like(trust), trust)
            self.trust.copy_(torch.where(seen & ~self.anchored, trust, torch.ones_like(trust)))
        return self.trust.cpu()

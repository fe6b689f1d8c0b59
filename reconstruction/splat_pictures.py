"""Pictures of splats with transparency: what the contact sheet and previews show."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from dp360.generation import Cameras

from .splats import Splats, render_splats


def splat_pictures(splats: Splats, cameras: Cameras) -> UInt8[Tensor, "n h w 4"]:
    """Splats seen by each camera, as straight (not premultiplied) colour and alpha, 8 bits, on the CPU.

    Args:
        splats: Gaussians in world units, on any device.
        cameras: n cameras.
    """
    premultiplied, alpha = render_splats(splats, cameras, background_rgb_unit=(0.0, 0.0, 0.0))
    straight = (premultiplied / alpha[..., None].clamp_min(1e-6)).clamp(0, 1)
    return (torch.cat([straight, alpha[..., None]], dim=-1) * 255).round().to(torch.uint8)

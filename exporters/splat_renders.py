"""Pictures of splats: what the contact sheet and previews show."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from dp360.generation import Cameras
from dp360.generation.progress import Track, silent
from dp360.reconstruction.rasterize import rasterize
from dp360.reconstruction.splats import Splats


@torch.no_grad()
def render_splats(splats: Splats, cameras: Cameras, *, track: Track = silent) -> UInt8[Tensor, "n h w 4"]:
    """Splats seen by each camera.

    Args:
        splats: Gaussians in world units, on any device.
        cameras: n cameras.
        track: shows the progress over the cameras.

    Returns:
        Straight (not premultiplied) colour and alpha, 8 bits, on the CPU.
    """
    colors = torch.cat([splats.sh0[:, None], splats.sh_rest], dim=1)
    sh_degree = round(colors.shape[1] ** 0.5) - 1
    pictures = []
    for camera in track(cameras, total=len(cameras), description="Rendering the splats"):
        colour, alpha, _ = rasterize(
            means=splats.means_world,
            quats=splats.quats_wxyz,
            scales=splats.log_scales.exp(),
            opacities=splats.opacity_logits.sigmoid(),
            colors=colors,
            viewmats=camera.T_camera_world.to(splats.means_world),
            Ks=camera.K_px.to(splats.means_world),
            width=camera.width,
            height=camera.height,
            sh_degree=sh_degree,
        )
        straight = (colour[..., :3] / alpha.clamp_min(1e-6)).clamp(0, 1)
        pictures.append((torch.cat([straight, alpha], dim=-1) * 255).round().to("cpu", torch.uint8))
    return torch.cat(pictures)

"""C, camera control: a ControlNet whose control picture shows the wanted camera.

The release shows renders of another head from that camera, in [-1, 1] (diffusers' ControlNets use [0, 1]); the compact
model shows what the geometric prior knows of this head. Architecture: arXiv 2302.05543; parameter names of diffusers'
`ControlNetModel`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..networks import zeroed
from .sized_network import Latents, ModelMixin  # noqa: F401 - diffusers looks for ModelMixin here
from .unet import Context, ControlResiduals, EncoderConfig, UNetEncoder


@dataclass(frozen=True)
class CameraControlConfig(EncoderConfig):
    """Sizes of a `CameraControl`; the defaults are the release's, widths are those of the network it serves."""

    control_channels: int = 3
    """Channels of the control picture."""
    hint_channels: tuple[int, ...] = (16, 32, 96, 256)
    """Widths of the network that brings the control picture down to the latent's size, a factor 2 between two."""
    sees_latent: bool = True
    """Whether it is shown the noisy latent and the timestep (release). If not, its residuals hold for all steps."""

    @property
    def latent_factor(self) -> int:
        """How many times smaller latents are than pictures."""
        return 2 ** (len(self.hint_channels) - 1)


class CameraControl(UNetEncoder):
    """Encoder half of the UNet with zero-initialised outputs for every skip and the middle."""

    sizes_type = CameraControlConfig
    sizes: CameraControlConfig

    def build(self) -> None:
        """Make the encoder, the network of the control picture, and the outputs."""
        super().build()
        self.finish_attention()
        config = self.sizes
        widths = config.block_out_channels
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(
            conditioning_embedding_channels=widths[0],
            conditioning_channels=config.control_channels,
            block_out_channels=config.hint_channels,
        )
        skips = [widths[0]]
        for level, width in enumerate(widths):
            skips += [width] * (config.layers_per_block + (level < len(widths) - 1))
        self.controlnet_down_blocks = nn.ModuleList(zeroed(nn.Conv2d(width, width, 1)) for width in skips)
        self.controlnet_mid_block = zeroed(nn.Conv2d(widths[-1], widths[-1], 1))

    def embed_control(self, control: Float[Tensor, "b k H W"]) -> Float[Tensor, "b w0 h w"]:
        """Bring control pictures in [-1, 1] down to the latent's size; holds for all steps of a generation."""
        return self.controlnet_cond_embedding(control)

    def forward(
        self,
        latents: Latents | None,
        timesteps: Int[Tensor, "*b"] | None,
        context: Context | None,
        embedded_control: Float[Tensor, "b w0 h w"],
        *,
        mode: int = 0,
    ) -> ControlResiduals:
        """Residuals for the denoising network.

        Args:
            latents: noisy latents; None where `sees_latent` is off.
            timesteps: one for all rows or one each; None where `sees_latent` is off.
            context: context tokens, one row for all or one each.
            embedded_control: result of `embed_control`.
            mode: row of the mode embedding; ignored where there is none.
        """
        if latents is None or timesteps is None or not self.sizes.sees_latent:
            rows, _, height, width = embedded_control.shape
            latents = embedded_control.new_zeros(rows, self.sizes.in_channels, height, width)
            timesteps = torch.zeros(1, dtype=torch.long)
        embedded = self.embed_time(timesteps, mode, latents.dtype, latents.device)
        hidden = self.conv_in(latents) + embedded_control
        hidden, skips = self.encode(hidden, embedded, context, itertools.repeat({}))
        outputs = zip(self.controlnet_down_blocks, skips, strict=True)
        return ControlResiduals(tuple(zero(skip) for zero, skip in outputs), self.controlnet_mid_block(hidden))

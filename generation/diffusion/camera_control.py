"""C, camera control: a ControlNet whose control picture shows the wanted camera.

The release shows renders of another head from that camera, in [-1, 1] (diffusers' ControlNets use [0, 1]); the compact
model shows what the geometric prior knows of this head. Architecture: arXiv 2302.05543; parameter names of diffusers'
`ControlNetModel`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from jaxtyping import Float, Int
from torch import Tensor, nn

from .unet import Context, ControlResiduals, Latents, UNetConfig, UNetEncoder


@dataclass(frozen=True)
class CameraControlConfig:
    """Sizes of a `CameraControl`; the defaults are the release's."""

    in_channels: int = 4
    """Channels of the noisy latent."""
    control_channels: int = 3
    """Channels of the control picture."""
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Widths of the denoising network it serves."""
    layers_per_block: int = 2
    """Residual blocks per level."""
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    """Which levels attend; the middle always does."""
    num_heads: tuple[int, ...] = (8, 8, 8, 8)
    """Attention heads of each level."""
    context_dim: int | None = 768
    """Width of the context tokens; None leaves cross-attention out."""
    hint_channels: tuple[int, ...] = (16, 32, 96, 256)
    """Widths of the network that brings the control picture down to the latent's size, a factor 2 between two."""
    num_modes: int = 0
    """Learned mode embeddings; 0 for none."""
    sees_latent: bool = True
    """Whether it is shown the noisy latent and the timestep (release). If not, its residuals hold for all steps."""
    norm_num_groups: int = 32
    """Groups of every group norm."""


class CameraControl(UNetEncoder, ModelMixin, ConfigMixin):
    """Encoder half of the UNet with zero-initialised outputs for every skip and the middle."""

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        control_channels: int = 3,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_levels: Sequence[bool] = (True, True, True, False),
        num_heads: Sequence[int] = (8, 8, 8, 8),
        context_dim: int | None = 768,
        hint_channels: Sequence[int] = (16, 32, 96, 256),
        num_modes: int = 0,
        sees_latent: bool = True,
        norm_num_groups: int = 32,
    ) -> None:
        """Fields of `CameraControlConfig`, one by one, so that diffusers can store them."""
        super().__init__()
        widths = tuple(block_out_channels)
        encoder = UNetConfig(
            in_channels=in_channels,
            block_out_channels=widths,
            layers_per_block=layers_per_block,
            attention_levels=tuple(attention_levels),
            num_heads=tuple(num_heads),
            context_dim=context_dim,
            num_modes=num_modes,
            norm_num_groups=norm_num_groups,
        )
        self.build_encoder(encoder)
        self.finish_attention(context_dim)
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(
            conditioning_embedding_channels=widths[0],
            conditioning_channels=control_channels,
            block_out_channels=tuple(hint_channels),
        )
        skips = [widths[0]]
        for level, width in enumerate(widths):
            skips += [width] * (layers_per_block + (level < len(widths) - 1))
        self.controlnet_down_blocks = nn.ModuleList(_zero_convolution(width) for width in skips)
        self.controlnet_mid_block = _zero_convolution(widths[-1])

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
        if not self.config.sees_latent:
            rows, _, height, width = embedded_control.shape
            latents = embedded_control.new_zeros(rows, self.config.in_channels, height, width)
            timesteps = torch.zeros(1, dtype=torch.long)
        embedded = self.embed_time(timesteps, mode, latents.dtype, latents.device)
        hidden = self.conv_in(latents) + embedded_control
        hidden, skips = self.encode(hidden, embedded, context, itertools.repeat({}))
        outputs = zip(self.controlnet_down_blocks, skips, strict=True)
        return ControlResiduals(tuple(zero(skip) for zero, skip in outputs), self.controlnet_mid_block(hidden))


def _zero_convolution(width: int) -> nn.Conv2d:
    layer = nn.Conv2d(width, width, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

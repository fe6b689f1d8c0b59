"""Head fields as few numbers and back: the space in which what a portrait does not show is drawn.

The channels of `HeadField.pack`, 20 x 56 x 64, become 8 latents of 14 x 16 places, each of mean 0 and variance 1 over
many heads, and come back smooth. The chart stays closed round the head all the way. The skull is not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ...networks import ChartConv, NetworkFile, chart_padded, zeroed
from .chart import COLUMNS, ROWS
from .head_field import CHANNELS, HeadField

LATENT_ROWS, LATENT_COLUMNS = ROWS // 4, COLUMNS // 4
"""Places of latents."""
_CELLS = 2
"""Cells along each side of the blocks that the first layer sees as one."""
_LEAST_STD = 1e-4


@dataclass(frozen=True)
class FieldAutoencoderConfig:
    """Size of the network."""

    latents: int = 8
    """Numbers in each of 14 x 16 places."""
    fine: int = 48
    """Channels at half the chart's resolution, a multiple of 8."""
    coarse: int = 112
    """Channels at a quarter, where the latents are, a multiple of 8."""
    blocks: int = 2
    """Residual blocks there, each way."""
    full: int = 32
    """Channels of the last layer, at the chart's own resolution."""
    noise: float = 0.15
    """Deviation of what is added to latents while learning, so that near latents mean near fields."""


class FieldAutoencoder(nn.Module):
    """Convolutions down to the latents and up again; what is added to the way up is interpolated, so no grid shows.

    Sources: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022, Section 3.1; Shi et
    al., "Real-Time Single Image and Video Super-Resolution", 2016, Eq. 4 (blocks of cells as channels); Odena et al.,
    "Deconvolution and Checkerboard Artifacts", 2016 (interpolate, then convolve).
    """

    def __init__(self, config: FieldAutoencoderConfig | None = None) -> None:
        config = config or FieldAutoencoderConfig()
        super().__init__()
        self.config = config
        fine, coarse = config.fine, config.coarse
        self.stem = nn.Conv2d(_CELLS**2 * len(CHANNELS), fine, 1)
        self.fine_in = _Residual(fine)
        self.down = ChartConv(fine, coarse, 2)
        self.place_in, self.place_out = (
            nn.Parameter(torch.zeros(1, coarse, LATENT_ROWS, LATENT_COLUMNS)) for _ in range(2)
        )
        self.coarse_in = nn.Sequential(*(_Residual(coarse) for _ in range(config.blocks)))
        self.to_latents = nn.Sequential(nn.GroupNorm(8, coarse), nn.SiLU(), nn.Conv2d(coarse, config.latents, 1))
        self.from_latents = ChartConv(config.latents, coarse)
        self.coarse_out = nn.Sequential(*(_Residual(coarse) for _ in range(config.blocks)))
        self.up = nn.Conv2d(coarse, fine, 1)
        self.fine_out = _Residual(fine)
        self.norm = nn.GroupNorm(8, fine)
        self.to_full = nn.Conv2d(fine, config.full, 1)
        self.to_channels = ChartConv(config.full, len(CHANNELS))
        self.register_buffer("latents_mean", torch.zeros(config.latents))
        self.register_buffer("latents_std", torch.ones(config.latents))

    def encode(self, channels: Float[Tensor, "n 20 56 64"]) -> Float[Tensor, "n k 14 16"]:
        """Latents of `HeadField.pack`, of mean 0 and variance 1 over many heads."""
        mean, std = (self.get_buffer(name)[:, None, None] for name in ("latents_mean", "latents_std"))
        return (self.raw_latents(channels) - mean) / std

    def decode(self, latents: Float[Tensor, "n k 14 16"]) -> Float[Tensor, "n 20 56 64"]:
        """Channels of latents, to be read by `HeadField.unpack`."""
        x = self.coarse_out(self.from_latents(latents) + self.get_parameter("place_out"))
        x = self.fine_out(chart_doubled(self.up(x)))
        x = chart_doubled(self.to_full(F.silu(self.norm(x))))
        return self.to_channels(F.silu(x))

    def forward(self, channels: Float[Tensor, "n 20 56 64"]) -> Float[Tensor, "n 20 56 64"]:
        """There and back as it is learned: latents are scaled by their own statistics and disturbed."""
        raw = self.raw_latents(channels).float()
        std, mean = torch.std_mean(raw, dim=(0, 2, 3), keepdim=True, correction=0)
        latents = (raw - mean) / std.clamp_min(_LEAST_STD)
        return self.decode(latents + self.config.noise * torch.randn_like(latents))

    def raw_latents(self, channels: Float[Tensor, "n 20 56 64"]) -> Float[Tensor, "n k 14 16"]:
        """Latents before they are scaled."""
        x = self.down(self.fine_in(self.stem(F.pixel_unshuffle(channels, _CELLS))))
        return self.to_latents(self.coarse_in(x + self.get_parameter("place_in")))

    @torch.no_grad()
    def set_scale(self, raw: Float[Tensor, "n k 14 16"]) -> None:
        """Take mean and deviation of each channel from raw latents of many heads."""
        std, mean = torch.std_mean(raw, dim=(0, 2, 3), correction=0)
        self.get_buffer("latents_mean").copy_(mean)
        self.get_buffer("latents_std").copy_(std.clamp_min(_LEAST_STD))


class _Residual(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(2))
        self.first, self.second = ChartConv(channels, channels), ChartConv(channels, channels)
        zeroed(self.second.convolution)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.second(F.silu(self.norms[1](self.first(F.silu(self.norms[0](x))))))


def chart_doubled(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c i j"]:
    """A chart of twice the rows and columns, interpolated linearly, over the crown and round the axis too."""
    larger = F.interpolate(chart_padded(x), scale_factor=2.0, mode="bilinear", align_corners=False)
    return larger[:, :, 2:-2, 2:-2]


FIELD_AUTOENCODER = NetworkFile("field_autoencoder", FieldAutoencoder, FieldAutoencoderConfig)
"""Its weights."""


@torch.no_grad()
def reconstructed(field: HeadField, network: FieldAutoencoder) -> HeadField:
    """A field there and back; skull and tokens stay."""
    channels = network.decode(network.encode(torch.from_numpy(field.pack())[None]))[0].numpy()
    return HeadField.unpack(channels, field.skull_radius, np.asarray(field.tokens))

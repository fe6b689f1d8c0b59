"""What may differ from the expected field behind a portrait, drawn as latents: a transformer over places of the chart.

It knows the residual, latents of the true field less those of the expected one, under noise, and what the portrait
shows, and predicts v of the residual, which is scaled to variance 1. `field_pipeline` draws with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...networks import NetworkFile, zeroed
from .field_autoencoder import LATENT_COLUMNS, LATENT_ROWS
from .mean_network import GLOBALS
from .observed_field import OBSERVED_CHANNELS

TIMESTEPS = 1000
"""Levels of noise, from 0 (nearly none) to 999 (nothing else)."""
_PATCH = 2
"""Places of latents along each side of a token."""
_TOKENS = (LATENT_ROWS // _PATCH) * (LATENT_COLUMNS // _PATCH)
_CELLS = 4
"""Cells of the chart along each side of a place of latents."""
WAVES = 32
_SLOWEST = 1e4
"""Frequencies of the noise level's embedding, and the period of the slowest in radians."""


@dataclass(frozen=True)
class FieldDenoiserConfig:
    """Size of the network."""

    latents: int = 8
    """Channels of the autoencoder's latents."""
    width: int = 160
    """Numbers of a token within the network, a multiple of `heads`."""
    blocks: int = 5
    """Blocks of attention and perceptron."""
    heads: int = 5
    """Of attention."""
    hidden: int = 3
    """Width of a perceptron's middle layer, in widths."""
    dropout: float = 0.1
    """Share of what a block adds that is left out while learning: there are few heads to learn from."""
    spread: float = 1.0
    """Drawn residuals are this many times as large as the network draws them by itself: as measured on validation
    heads, so that the truth lies among them (`best_spread`)."""

    @property
    def told(self) -> int:
        """Channels of `field_conditions`."""
        return self.latents + len(OBSERVED_CHANNELS)


class FieldDenoiser(nn.Module):
    """Tokens of 2 x 2 places that look at one another; noise level and portrait scale, shift and gate every block.

    Sources: Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023, Section 3.2 (patches, adaLN-Zero);
    Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022, Section 4 (v); Ho and
    Salimans, "Classifier-Free Diffusion Guidance", 2022, Algorithm 1 (conditions left out while learning).
    """

    def __init__(self, config: FieldDenoiserConfig | None = None) -> None:
        config = config or FieldDenoiserConfig()
        super().__init__()
        self.config = config
        width = config.width
        self.enter = nn.Linear(_PATCH**2 * (config.latents + config.told), width)
        self.place = nn.Parameter(0.02 * torch.randn(_TOKENS, width))
        self.level = nn.Sequential(nn.Linear(2 * WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.portrait = nn.Sequential(nn.Linear(GLOBALS, width), nn.SiLU(), nn.Linear(width, width))
        self.nothing = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = zeroed(nn.Linear(width, 2 * width))
        self.leave = zeroed(nn.Linear(width, _PATCH**2 * config.latents))
        self.register_buffer("residual_std", torch.ones(config.latents))

    def forward(
        self,
        noisy: Float[Tensor, "n k 14 16"],
        timestep: Int[Tensor, " n"],
        told: Float[Tensor, "n d 14 16"],
        portrait: Float[Tensor, "n 11"],
        forgotten: Bool[Tensor, " n"],
    ) -> Float[Tensor, "n k 14 16"]:
        """v of the scaled residual.

        Args:
            noisy: the scaled residual under noise.
            timestep: 0 to 999.
            told: `field_conditions`.
            portrait: as of `ObservedField.pack_globals`.
            forgotten: samples that are to be drawn as if nothing was known.
        """
        keep = (~forgotten).to(noisy.dtype)
        x = F.pixel_unshuffle(torch.cat([noisy, told * keep[:, None, None, None]], dim=1), _PATCH)
        x = self.enter(x.flatten(2).transpose(1, 2)) + self.place
        known = keep[:, None] * self.portrait(portrait) + (1 - keep[:, None]) * self.nothing
        state = F.silu(self.level(waves(timestep)) + known)
        for block in self.blocks:
            x = block(x, state)
        shift, scale = self.modulate(state)[:, None].chunk(2, dim=-1)
        x = self.leave(self.norm(x) * (1 + scale) + shift).transpose(1, 2)
        return F.pixel_shuffle(x.unflatten(2, (LATENT_ROWS // _PATCH, LATENT_COLUMNS // _PATCH)), _PATCH)

    @property
    def residual_scale(self) -> Float[Tensor, "k 1 1"]:
        """Deviation of residuals, per channel of the latents: what a drawn residual is multiplied by."""
        return self.config.spread * self.get_buffer("residual_std")[:, None, None]


class _Block(nn.Module):
    """Attention and perceptron, each scaled, shifted and gated by the state; both gates start at 0."""

    def __init__(self, config: FieldDenoiserConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.modulate = zeroed(nn.Linear(width, 6 * width))
        self.ask = nn.Linear(width, 3 * width)
        self.answer = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, config.hidden * width), nn.GELU("tanh"), nn.Linear(config.hidden * width, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "n t w"], state: Float[Tensor, "n w"]) -> Float[Tensor, "n t w"]:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulate(state)[:, None].chunk(6, dim=-1)
        asked = self.ask(self.norms[0](x) * (1 + scale) + shift)
        query, key, value = asked.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + gate * self.dropout(self.answer(found))
        return x + gate_2 * self.dropout(self.perceptron(self.norms[1](x) * (1 + scale_2) + shift_2))


def field_conditions(
    mean_latents: Float[Tensor, "n k 14 16"], observed: Float[Tensor, "n 16 56 64"]
) -> Float[Tensor, "n d 14 16"]:
    """What the network is told place by place.

    Args:
        mean_latents: of the expected field.
        observed: as of `ObservedField.pack`; the skull is its last channel.
    """
    return torch.cat([mean_latents, F.avg_pool2d(observed, _CELLS)], dim=1)


def waves(timestep: Int[Tensor, " n"]) -> Float[Tensor, "n 64"]:
    """The level of noise as sines and cosines.

    Source: Vaswani et al., "Attention Is All You Need", 2017, Section 3.5.
    """
    rates = torch.exp(-math.log(_SLOWEST) * torch.arange(WAVES, device=timestep.device) / WAVES)
    angles = timestep[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


FIELD_DENOISER = NetworkFile("field_denoiser", FieldDenoiser, FieldDenoiserConfig)
"""Its weights."""

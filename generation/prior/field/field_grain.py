"""The grain of fields, which latents cannot hold: what a true field has beside what the autoencoder makes of it.

It is drawn cell by cell, told the smooth field, in the way that large pictures are drawn from small ones. The network
knows the grain under noise and predicts v of it; the grain is scaled to variance 1. `field_pipeline` draws with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...networks import NetworkFile, zeroed
from .chart import COLUMNS, ROWS
from .field_denoiser import WAVES, waves
from .head_field import CHANNELS
from .mean_network import FilmBlock

_CELLS = 2
"""Cells along each side of the blocks that the network sees as one."""
_COLOURS = ("_red", "_green", "_blue")


@dataclass(frozen=True)
class FieldGrainConfig:
    """Size of the network."""

    width: int = 64
    """Channels, a multiple of 8."""
    blocks: int = 3
    """Residual blocks."""
    embedding: int = 64
    """Numbers that tell the level of noise."""
    strength: float = 0.8
    """Drawn grain is this many times as large as the network draws it by itself: as rough as validation heads are."""


class FieldGrain(nn.Module):
    """Residual blocks over blocks of 2 x 2 cells; the level of noise scales and shifts each. It sees some 15 cells far.

    Sources: Ho et al., "Cascaded Diffusion Models for High Fidelity Image Generation", 2022, Section 3; Perez et al.,
    "FiLM", 2018, Eq. 1.
    """

    def __init__(self, config: FieldGrainConfig | None = None) -> None:
        config = config or FieldGrainConfig()
        super().__init__()
        self.config = config
        channels = _CELLS**2 * len(CHANNELS)
        self.enter = nn.Conv2d(2 * channels, config.width, 1)
        self.place = nn.Parameter(torch.zeros(1, config.width, ROWS // _CELLS, COLUMNS // _CELLS))
        self.level = nn.Sequential(
            nn.Linear(2 * WAVES, config.embedding), nn.SiLU(), nn.Linear(config.embedding, config.embedding), nn.SiLU()
        )
        self.blocks = nn.ModuleList(FilmBlock(config.width, config.embedding) for _ in range(config.blocks))
        self.norm = nn.GroupNorm(8, config.width)
        self.leave = zeroed(nn.Conv2d(config.width, channels, 1))
        self.skip = zeroed(nn.Conv2d(channels, channels, 1))
        self.register_buffer("grain_std", torch.ones(len(CHANNELS)))

    def forward(
        self,
        noisy: Float[Tensor, "n 20 56 64"],
        timestep: Int[Tensor, " n"],
        smooth: Float[Tensor, "n 20 56 64"],
    ) -> Float[Tensor, "n 20 56 64"]:
        """v of the scaled grain.

        Args:
            noisy: the scaled grain under noise.
            timestep: 0 to 999.
            smooth: what the autoencoder decodes.
        """
        grain = F.pixel_unshuffle(noisy, _CELLS)
        x = self.enter(torch.cat([grain, F.pixel_unshuffle(smooth, _CELLS)], dim=1)) + self.place
        told = self.level(waves(timestep))
        for block in self.blocks:
            x = block(x, told)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(x))) + self.skip(grain), _CELLS)

    @property
    def grain_scale(self) -> Float[Tensor, "20 1 1"]:
        """What drawn grain is multiplied by, per channel; 0 for colours, whose texture is painted, not drawn here."""
        drawn = torch.tensor([not name.endswith(_COLOURS) for name in CHANNELS], device=self.place.device)
        return self.config.strength * (drawn * self.get_buffer("grain_std"))[:, None, None]


FIELD_GRAIN = NetworkFile("field_grain", FieldGrain, FieldGrainConfig)
"""Its weights."""

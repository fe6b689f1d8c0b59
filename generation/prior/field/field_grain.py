"""The grain of fields, which latents cannot hold: what a true field has beside what the autoencoder makes of it.

The smooth field tells how large the grain is in each cell: a felt hat has next to none, curls have much. Divided by
that size it is drawn cell by cell, told the smooth field, in the way that large pictures are drawn from small ones. The
network knows the grain under noise and predicts v of it. `field_pipeline` draws with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...networks import NetworkFile, zeroed
from .chart import COLUMNS, ROWS
from .field_autoencoder import chart_doubled
from .field_denoiser import WAVES, waves
from .head_field import CHANNELS
from .mean_network import FilmBlock

_CELLS = 2
"""Cells along each side of the blocks that the network sees as one."""
_COLOURS = ("_red", "_green", "_blue")


_LOG_SIZES = (-3.5, 2.0)
"""Least and greatest logarithm of the size of grain, by its deviation over all heads."""


@dataclass(frozen=True)
class FieldGrainConfig:
    """Size of the network."""

    width: int = 64
    """Channels, a multiple of 8."""
    blocks: int = 3
    """Residual blocks."""
    embedding: int = 64
    """Numbers that tell the level of noise, and the head as a whole."""
    strength: float = 0.9
    """Drawn grain is this many times as large as the network draws it by itself: as rough as validation heads are."""


class GrainSizes(nn.Module):
    """How large grain is in each cell: a convolution network over blocks of 2 x 2 cells that knows the whole head.

    Source: Nix and Weigend, "Estimating the Mean and Variance of the Target Probability Distribution", 1994, Eq. 5.
    """

    def __init__(self, config: FieldGrainConfig) -> None:
        super().__init__()
        channels = _CELLS**2 * len(CHANNELS)
        self.whole = _WholeHead(config.embedding)
        self.enter = nn.Conv2d(channels, config.width, 1)
        self.place = nn.Parameter(torch.zeros(1, config.width, ROWS // _CELLS, COLUMNS // _CELLS))
        self.block = FilmBlock(config.width, config.embedding)
        self.norm = nn.GroupNorm(8, config.width)
        self.leave = zeroed(nn.Conv2d(config.width, len(CHANNELS), 1))

    def forward(self, smooth: Float[Tensor, "n 20 56 64"]) -> Float[Tensor, "n 20 56 64"]:
        """Logarithm of the deviation of grain, by its deviation over all heads.

        Args:
            smooth: what the autoencoder decodes.
        """
        x = self.enter(F.pixel_unshuffle(smooth, _CELLS)) + self.place
        x = self.block(x, self.whole(smooth))
        return chart_doubled(self.leave(F.silu(self.norm(x)))).clamp(*_LOG_SIZES)


class _WholeHead(nn.Module):
    """What a smooth field is like as a whole: means, deviations and steps of its channels, as an embedding."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.learned = nn.Sequential(
            nn.Linear(3 * len(CHANNELS), embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )

    def forward(self, smooth: Float[Tensor, "n 20 56 64"]) -> Float[Tensor, "n e"]:
        steps = (smooth - smooth.roll(1, dims=-1)).abs().mean((2, 3))
        return self.learned(torch.cat([smooth.mean((2, 3)), smooth.std((2, 3)), steps], dim=1))


class FieldGrain(nn.Module):
    """Residual blocks over blocks of 2 x 2 cells; noise level and head scale and shift each. It sees some 15 cells far.

    Sources: Ho et al., "Cascaded Diffusion Models for High Fidelity Image Generation", 2022, Section 3; Perez et al.,
    "FiLM", 2018, Eq. 1.
    """

    def __init__(self, config: FieldGrainConfig | None = None) -> None:
        config = config or FieldGrainConfig()
        super().__init__()
        self.config = config
        channels = _CELLS**2 * len(CHANNELS)
        self.sizes = GrainSizes(config)
        self.enter = nn.Conv2d(2 * channels, config.width, 1)
        self.place = nn.Parameter(torch.zeros(1, config.width, ROWS // _CELLS, COLUMNS // _CELLS))
        self.level = nn.Sequential(
            nn.Linear(2 * WAVES, config.embedding), nn.SiLU(), nn.Linear(config.embedding, config.embedding), nn.SiLU()
        )
        self.whole = _WholeHead(config.embedding)
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
        """v of the grain divided by `size_of`.

        Args:
            noisy: the divided grain under noise.
            timestep: 0 to 999.
            smooth: what the autoencoder decodes.
        """
        grain = F.pixel_unshuffle(noisy, _CELLS)
        x = self.enter(torch.cat([grain, F.pixel_unshuffle(smooth, _CELLS)], dim=1)) + self.place
        told = self.level(waves(timestep)) + self.whole(smooth)
        for block in self.blocks:
            x = block(x, told)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(x))) + self.skip(grain), _CELLS)

    def size_of(self, smooth: Float[Tensor, "n 20 56 64"]) -> Float[Tensor, "n 20 56 64"]:
        """Deviation of grain in each cell of smooth fields, in their own units."""
        return self.get_buffer("grain_std")[:, None, None] * self.sizes(smooth).exp()

    def drawn(
        self, grain: Float[Tensor, "n 20 56 64"], smooth: Float[Tensor, "n 20 56 64"]
    ) -> Float[Tensor, "n 20 56 64"]:
        """What is added to smooth fields for drawn, divided grain: none to colours, whose texture is painted."""
        counts = torch.tensor([not name.endswith(_COLOURS) for name in CHANNELS], device=grain.device)
        return self.config.strength * counts[:, None, None] * self.size_of(smooth) * grain


FIELD_GRAIN = NetworkFile("field_grain", FieldGrain, FieldGrainConfig)
"""Its weights."""

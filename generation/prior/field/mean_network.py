"""The head field that is to be expected behind what one portrait shows: a regression network on the chart.

A small U-Net whose columns close round the head sees an `ObservedField` and answers with all channels of a `HeadField`
above the fitted skull, seen cells included. Where it cannot know, it says the mean of what may be there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ...networks import ChartConv, LoadedNetwork, NetworkFile, zeroed
from .chart import COLUMNS, ROWS, cell_frames
from .head_field import CHANNELS, TOKENS, HeadField
from .known_cells import meet_observation
from .observed_field import OBSERVED_CHANNELS, ObservedField

GLOBALS = 2 * len(TOKENS) + 3
"""Length of `ObservedField.pack_globals`; the last three point to the camera."""
_PLACE_CHANNELS = 4
_CELLS = 2
"""Cells along each side of the blocks that the first layer sees as one."""
_ATTENTION_HEADS = 4


@dataclass(frozen=True)
class FieldMeanConfig:
    """Size of the network."""

    channels: tuple[int, ...] = (48, 112, 192)
    """Channels at 1/2, 1/4, ... of the chart's resolution; multiples of 8."""
    embedding: int = 128
    """Length of what the globals become before they scale and shift features."""


class FieldMeanNet(nn.Module):
    """A U-Net on the chart, told what holds for the whole portrait by scales and shifts of its features.

    Sources: Ronneberger et al., "U-Net", 2015; Perez et al., "FiLM", 2018, Eq. 2; Shi et al., "Real-Time Single Image
    and Video Super-Resolution", 2016, Eq. 4 (blocks of cells as channels); Vaswani et al., "Attention Is All You
    Need", 2017, Eq. 1, at the coarsest level.
    """

    def __init__(self, config: FieldMeanConfig | None = None) -> None:
        config = config or FieldMeanConfig()
        super().__init__()
        self.config = config
        channels, embedding = config.channels, config.embedding
        inputs, outputs = (_CELLS**2 * n for n in (len(OBSERVED_CHANNELS) + _PLACE_CHANNELS, len(CHANNELS)))
        self.embed = nn.Sequential(nn.Linear(GLOBALS, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.stem = nn.Conv2d(inputs, channels[0], 1)
        self.encode = nn.ModuleList(FilmBlock(c, embedding) for c in channels)
        self.down = nn.ModuleList(ChartConv(a, b, 2) for a, b in itertools.pairwise(channels))
        self.attend = _ChartAttention(channels[-1], ROWS // _CELLS ** len(channels), COLUMNS // _CELLS ** len(channels))
        self.middle = FilmBlock(channels[-1], embedding)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(channels))
        self.decode = nn.ModuleList(FilmBlock(c, embedding) for c in channels[:-1])
        self.norm = nn.GroupNorm(8, channels[0])
        self.head = zeroed(nn.Conv2d(channels[0], outputs, 1))
        self.skip = zeroed(nn.Conv2d(inputs, outputs, 1, bias=False))
        self.tokens = zeroed(nn.Linear(channels[-1], len(TOKENS)))
        outward = cell_frames().outward
        azimuth = np.arange(COLUMNS) * (2 * math.pi / COLUMNS)
        rows = np.linspace(-1, 1, ROWS)[:, None]
        place = [np.broadcast_to(x, (ROWS, COLUMNS)) for x in (np.sin(azimuth), np.cos(azimuth), rows)]
        self.register_buffer("place", torch.from_numpy(np.stack(place)).float(), persistent=False)
        self.register_buffer("outward", torch.from_numpy(np.moveaxis(outward, -1, 0).copy()).float(), persistent=False)

    def forward(
        self, observed: Float[Tensor, "n 16 56 64"], portrait: Float[Tensor, "n 11"]
    ) -> tuple[Float[Tensor, "n 20 56 64"], Float[Tensor, "n 4"]]:
        """Channels as of `HeadField.pack`, and the tokens from -1 to 1.

        Args:
            observed: as of `ObservedField.pack`.
            portrait: as of `ObservedField.pack_globals`.
        """
        place = self.get_buffer("place").expand(len(observed), -1, -1, -1)
        facing = torch.einsum("drc,nd->nrc", self.get_buffer("outward"), portrait[:, -3:])[:, None]
        blocks = F.pixel_unshuffle(torch.cat([observed, place, facing], dim=1), _CELLS)
        told = self.embed(portrait)
        x = self.stem(blocks)
        skips = []
        for level, encode in enumerate(self.encode):
            if level > 0:
                x = self.down[level - 1](x)
            x = encode(x, told)
            skips.append(x)
        x = self.middle(self.attend(x), told)
        tokens = self.tokens(x.mean(dim=(-2, -1)))
        for up, decode, skip in zip(reversed(self.up), reversed(self.decode), reversed(skips[:-1])):
            x = decode(F.interpolate(up(x), scale_factor=2.0, mode="nearest") + skip, told)
        answer = self.head(F.silu(self.norm(x))) + self.skip(blocks)
        return F.pixel_shuffle(answer, _CELLS), tokens


class FilmBlock(nn.Module):
    """A residual block of two convolutions; the second one's input is scaled and shifted by what was told."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(2))
        self.first, self.second = ChartConv(channels, channels), ChartConv(channels, channels)
        zeroed(self.second.convolution)
        self.film = nn.Linear(embedding, 2 * channels)

    def forward(self, x: Float[Tensor, "n c h w"], told: Float[Tensor, "n e"]) -> Float[Tensor, "n c h w"]:
        scale, shift = self.film(told)[..., None, None].chunk(2, dim=1)
        y = self.norms[1](self.first(F.silu(self.norms[0](x)))) * (1 + scale) + shift
        return x + self.second(F.silu(y))


class _ChartAttention(nn.Module):
    """All cells look at all others, each knowing where it is."""

    def __init__(self, channels: int, rows: int, columns: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.place = nn.Parameter(torch.zeros(1, channels, rows, columns))
        self.ask = nn.Conv2d(channels, 3 * channels, 1)
        self.answer = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        asked = self.ask(self.norm(x) + self.place).flatten(2)
        query, key, value = asked.unflatten(1, (3, _ATTENTION_HEADS, -1)).transpose(-1, -2).unbind(1)
        found = F.scaled_dot_product_attention(query, key, value).transpose(-1, -2)
        return x + self.answer(found.reshape(x.shape))


FIELD_MEAN = NetworkFile("field_mean", FieldMeanNet, FieldMeanConfig)
"""Its weights."""


def expected_field(observed: ObservedField, loaded: LoadedNetwork[FieldMeanNet]) -> HeadField:
    """The network's answer, averaged with that to the mirrored portrait; seen cells are its own words too.

    Args:
        observed: what the portrait shows.
        loaded: the network.
    """
    return expected_fields([observed], loaded)[0]


@torch.no_grad()
def expected_fields(portraits: Sequence[ObservedField], loaded: LoadedNetwork[FieldMeanNet]) -> list[HeadField]:
    """`expected_field` of several portraits, which go through the network together."""
    both = [o for observed in portraits for o in (observed, observed.mirrored())]
    seen, told = (torch.from_numpy(np.stack(x)) for x in zip(*((o.pack(), o.pack_globals()) for o in both)))
    channels, tokens = (x.numpy() for x in loaded.network(seen, told))
    answers = [HeadField.unpack(c, o.skull_radius, t) for c, o, t in zip(channels, both, (tokens + 1) / 2)]
    return [
        HeadField.unpack(
            (straight.pack() + turned.mirrored().pack()) / 2,
            straight.skull_radius,
            (straight.tokens + turned.tokens) / 2,
        )
        for straight, turned in zip(answers[::2], answers[1::2])
    ]


def estimate_field(observed: ObservedField, loaded: LoadedNetwork[FieldMeanNet]) -> HeadField:
    """The expected field, made to meet what is plainly seen; arguments as of `expected_field`."""
    return meet_observation(expected_field(observed, loaded), observed)

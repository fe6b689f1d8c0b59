"""V, the view-consistency network: every view of a clip attends to the same place in its neighbours.

AnimateDiff's first motion module in the placement of DiffPortrait360: after every layer, on the way up after the
upsampler, group norm per picture. diffusers' `AnimateDiffTransformer3D` normalises a clip jointly, which gives other
numbers. Sources: arXiv 2307.04725, arXiv 2503.15667 Sec. 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from ..networks import zeroed
from .reference_attention import attend, output_layers, projected
from .sized_network import Latents, ModelMixin, SizedNetwork  # noqa: F401 - diffusers looks for ModelMixin here

Sites = Literal["all", "last"]


@dataclass(frozen=True)
class ViewConsistencyConfig:
    """Sizes of a `ViewConsistency`; the defaults are the release's."""

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Widths of the denoising network, finest level first."""
    layers_per_block: int = 2
    """Residual blocks per level of the denoising network."""
    num_heads: tuple[int, ...] = (8, 8, 8, 8)
    """Attention heads of each level."""
    sites: Sites = "all"
    """After every layer, or after the last layer of each level only."""
    after_upsample: bool = True
    """Whether the module of a level's last layer comes after the upsampler (release) or before it."""
    clip_length: int = 8
    """Views per clip that the weights were trained with; a call may ask for another."""
    max_clip_length: int = 24
    """Rows of the position table."""
    norm_num_groups: int = 32
    """Groups of the group norms."""


class ViewConsistency(SizedNetwork):
    """All temporal modules of the denoising network, apart from it, so that F can use that network without them."""

    sizes_type = ViewConsistencyConfig
    sizes: ViewConsistencyConfig

    def build(self) -> None:
        """Make one module per site."""
        config = self.sizes
        levels = list(zip(config.block_out_channels, config.num_heads, strict=True))
        self._down_site = _site_table(len(levels), config.layers_per_block, config.sites)
        self._up_site = _site_table(len(levels), config.layers_per_block + 1, config.sites)
        self.down_modules, self.up_modules = (
            nn.ModuleList(
                ClipTransformer(width, heads, config.max_clip_length, config.norm_num_groups)
                for width, heads in (order[level] for level, _ in table)
            )
            for table, order in ((self._down_site, levels), (self._up_site, levels[::-1]))
        )

    def after_down(self, level: int, layer: int, hidden: Latents, clip_length: int | None = None) -> Latents:
        """The module after a layer of the way down; `hidden` itself where there is none."""
        site = self._down_site.get((level, layer))
        return hidden if site is None else self.down_modules[site](hidden, clip_length or self.sizes.clip_length)

    def after_up(self, level: int, layer: int, hidden: Latents, clip_length: int | None = None) -> Latents:
        """The module after a layer of the way up (level 0 is the coarsest); `hidden` itself where there is none."""
        site = self._up_site.get((level, layer))
        return hidden if site is None else self.up_modules[site](hidden, clip_length or self.sizes.clip_length)


class ClipTransformer(nn.Module):
    """Two self-attentions along a clip and a feed-forward, at each place of the picture, with a residual around all."""

    def __init__(self, width: int, heads: int, max_clip_length: int, norm_num_groups: int) -> None:
        """A module for maps of `width` channels; its output projection starts at zero, so that it changes nothing."""
        super().__init__()
        self.norm = nn.GroupNorm(norm_num_groups, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.attentions = nn.ModuleList(ClipAttention(width, heads, max_clip_length) for _ in range(2))
        self.attention_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.feed_forward = FeedForward(width, activation_fn="geglu")
        self.feed_forward_norm = nn.LayerNorm(width)
        self.proj_out = zeroed(nn.Linear(width, width))

    def forward(self, hidden: Latents, clip_length: int) -> Latents:
        """Mix each clip of `clip_length` consecutive rows, at most `max_clip_length`."""
        rows, width, height, breadth = hidden.shape
        tokens = self.norm(hidden).unflatten(0, (-1, clip_length)).flatten(3)  # clips, views, channels, places
        tokens = self.proj_in(tokens.permute(0, 3, 1, 2).flatten(0, 1))
        for norm, attention in zip(self.attention_norms, self.attentions):
            tokens = tokens + attention(norm(tokens))
        tokens = self.proj_out(tokens + self.feed_forward(self.feed_forward_norm(tokens)))
        mixed = tokens.unflatten(0, (-1, height * breadth)).permute(0, 2, 3, 1)
        return hidden + mixed.reshape(rows, width, height, breadth)


class ClipAttention(Attention):
    """Self-attention over the views of a clip, which know their place from a sinusoidal table."""

    position_table: Tensor

    def __init__(self, width: int, heads: int, max_clip_length: int) -> None:
        """A layer for tokens of `width` channels and at most `max_clip_length` views."""
        super().__init__(query_dim=width, heads=heads, dim_head=width // heads)
        self.register_buffer("position_table", sinusoidal_positions(max_clip_length, width))

    def forward(self, tokens: Float[Tensor, "b f c"]) -> Float[Tensor, "b f c"]:
        """Attend among the f views at each of b places."""
        tokens = tokens + self.position_table[: tokens.shape[1]].to(tokens.dtype)
        query, key, value = projected(self, tokens, tokens)
        return output_layers(self)[0](attend(query, key, value, self.heads))


def sinusoidal_positions(count: int, width: int) -> Float[Tensor, "count width"]:
    """Position table: sines on even channels, cosines on odd ones, base 10000 (arXiv 1706.03762, Sec. 3.5)."""
    angle = torch.arange(count)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


def _site_table(levels: int, layers: int, sites: Sites) -> dict[tuple[int, int], int]:
    """(level, layer) -> place in the module list."""
    chosen = range(layers) if sites == "all" else range(layers - 1, layers)
    return {place: index for index, place in enumerate((i, j) for i in range(levels) for j in chosen)}

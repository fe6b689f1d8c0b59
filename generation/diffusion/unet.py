"""The denoising network and the appearance network R: Stable Diffusion 1.5's UNet, which reads reference tokens.

Parameter names and shapes are those of diffusers' `UNet2DConditionModel`, so that stock weights fit. The forward pass
is our own because the view-consistency modules come after the upsamplers and change what the skips carry, which
neither `UNet2DConditionModel` nor `UNetMotionModel` can express.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2DCrossAttn, get_down_block, get_up_block
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .reference_attention import Reference, ReferenceAttention
from .sized_network import Latents, ModelMixin, SizedNetwork  # noqa: F401 - diffusers looks for ModelMixin here
from .view_consistency import ViewConsistency

_UNUSED_CONTEXT_DIM = 8
Context = Float[Tensor, "one_or_b tokens width"]
AfterLayer = Callable[[int, int, Tensor], Tensor]
SiteOptions: TypeAlias = dict[str, Any]
"""What one attention site's processor is given beside its tokens: keyword arguments of `ReferenceAttention`."""


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of a `UNetEncoder`; the defaults are Stable Diffusion 1.5's."""

    in_channels: int = 4
    """Channels of the noisy latent."""
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Width of each level, finest first."""
    layers_per_block: int = 2
    """Residual blocks per level on the way down; the denoising network has one more on the way up."""
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    """Which levels attend; the middle always does."""
    num_heads: tuple[int, ...] = (8, 8, 8, 8)
    """Attention heads of each level; the middle has the last level's."""
    context_dim: int | None = 768
    """Width of the context tokens; None leaves cross-attention out."""
    num_modes: int = 0
    """Learned mode embeddings, for weights that play several roles (compact model); 0 for none."""
    norm_num_groups: int = 32
    """Groups of every group norm."""

    @property
    def block_options(self) -> dict[str, Any]:
        """What diffusers' blocks are told alike."""
        return {
            "temb_channels": 4 * self.block_out_channels[0],
            "resnet_eps": 1e-5,
            "resnet_act_fn": "silu",
            "resnet_groups": self.norm_num_groups,
            "cross_attention_dim": self.context_dim or _UNUSED_CONTEXT_DIM,
            "transformer_layers_per_block": 1,
        }


@dataclass(frozen=True)
class UNetConfig(EncoderConfig):
    """Sizes of a `DenoisingUNet`; the defaults are Stable Diffusion 1.5's."""

    out_channels: int = 4
    """Channels of the prediction."""
    output_head: bool = True
    """Whether there is a prediction; R has none."""


@dataclass(frozen=True)
class ControlResiduals:
    """What camera control adds: to each skip in the order of the encoder, and to the middle."""

    skips: tuple[Float[Tensor, "_ _ _ _"], ...]
    """One per skip connection."""
    middle: Latents
    """For the middle block's output."""

    def __getitem__(self, rows: Tensor) -> ControlResiduals:
        """The residuals of some pictures of the batch."""
        return ControlResiduals(tuple(s[rows] for s in self.skips), self.middle[rows])


class UNetEncoder(SizedNetwork):
    """First half of the UNet with its middle: what the denoising network, R and camera control have in common."""

    _supports_gradient_checkpointing = True
    sizes: EncoderConfig

    def build(self) -> None:
        """Make the layers of the way down and of the middle."""
        config = self.sizes
        widths = config.block_out_channels
        levels = zip(widths, config.attention_levels, config.num_heads, strict=True)
        self.gradient_checkpointing = False
        time_dim = 4 * widths[0]
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_proj = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], time_dim)
        self.mode_embedding = nn.Embedding(config.num_modes, time_dim) if config.num_modes else None
        # Blocks of diffusers are of several classes without a common one: their parts are looked up by name.
        self.down_blocks: Any = nn.ModuleList(
            get_down_block(
                "CrossAttnDownBlock2D" if attends else "DownBlock2D",
                num_layers=config.layers_per_block,
                in_channels=widths[max(level - 1, 0)],
                out_channels=width,
                add_downsample=level < len(widths) - 1,
                num_attention_heads=heads,
                attention_head_dim=width // heads,
                downsample_padding=1,
                **config.block_options,
            )
            for level, (width, attends, heads) in enumerate(levels)
        )
        self.mid_block: Any = UNetMidBlock2DCrossAttn(
            in_channels=widths[-1], num_attention_heads=config.num_heads[-1], **config.block_options
        )

    def finish_attention(self) -> None:
        """Give every attention our processor and take cross-attention out where there is no context."""
        for transformer in self.attention_sites():
            for block in transformer.transformer_blocks:
                block.attn1.processor = ReferenceAttention()
                if self.sizes.context_dim is None:
                    block.attn2 = block.norm2 = None
                else:
                    block.attn2.processor = ReferenceAttention()

    def attention_sites(self) -> list[Any]:
        """The spatial transformers in execution order; their place in this list is the reference's site index."""
        halves = [*self.down_blocks, self.mid_block, *getattr(self, "up_blocks", ())]
        return [transformer for block in halves for transformer in getattr(block, "attentions", ())]

    def embed_time(
        self, timesteps: Int[Tensor, "*b"], mode: int, dtype: torch.dtype, device: torch.device
    ) -> Float[Tensor, "_ e"]:
        """Embedding of timesteps (one for all pictures, or one each) and of the mode, where there are modes."""
        embedded = self.time_embedding(self.time_proj(timesteps.to(device).reshape(-1)).to(dtype))
        if self.mode_embedding is not None:
            embedded = embedded + self.mode_embedding.weight[mode]
        return embedded

    def encode(
        self,
        hidden: Latents,
        embedded: Float[Tensor, "one_or_many e"],
        context: Context | None,
        site_options: Iterator[SiteOptions],
        after_layer: AfterLayer | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The way down and the middle.

        Args:
            hidden: output of the first convolution.
            site_options: what each attention site's processor gets, in execution order.
            after_layer: applied after each layer of the way down, before the skip is taken.

        Returns:
            The middle's output and the skips in execution order.
        """
        skips = [hidden]
        for level, block in enumerate(self.down_blocks):
            for layer, (resnet, transformer) in enumerate(layers_of(block)):
                hidden = self.run(resnet, hidden, embedded)
                if transformer is not None:
                    hidden = self.attend(transformer, hidden, context, next(site_options))
                if after_layer is not None:
                    hidden = after_layer(level, layer, hidden)
                skips.append(hidden)
            for downsampler in block.downsamplers or ():
                hidden = downsampler(hidden)
                skips.append(hidden)
        hidden = self.run(self.mid_block.resnets[0], hidden, embedded)
        for transformer, resnet in zip(self.mid_block.attentions, self.mid_block.resnets[1:]):
            hidden = self.attend(transformer, hidden, context, next(site_options))
            hidden = self.run(resnet, hidden, embedded)
        return hidden, skips

    def run(self, layer: nn.Module, *inputs: object, **options: object) -> Any:
        """Call a layer, under gradient checkpointing where that is switched on."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False, **options)  # pyright: ignore[reportCallIssue,reportArgumentType] - overloads say None
        return layer(*inputs, **options)

    def attend(self, transformer: nn.Module, hidden: Latents, context: Context | None, options: SiteOptions) -> Latents:
        """One spatial transformer, `options` going to its attention processors."""
        return self.run(
            transformer, hidden, encoder_hidden_states=context, cross_attention_kwargs=options, return_dict=False
        )[0]


class DenoisingUNet(UNetEncoder):
    """Predicts noise from a noisy latent, reading references, control residuals and its neighbours in a clip.

    The same class is R: `write_reference` runs it on a clean reference latent and returns what its self-attentions are
    given. Spec: arXiv 2503.15667, Sec. 3; https://github.com/FreedomGu/Diffportrait360.
    """

    sizes_type = UNetConfig
    sizes: UNetConfig

    def build(self) -> None:
        """Make the layers of both halves, and the head where there is one."""
        super().build()
        config = self.sizes
        widths = config.block_out_channels[::-1]
        levels = zip(widths, config.attention_levels[::-1], config.num_heads[::-1])
        self.up_blocks: Any = nn.ModuleList(
            get_up_block(
                "CrossAttnUpBlock2D" if attends else "UpBlock2D",
                num_layers=config.layers_per_block + 1,
                in_channels=widths[min(level + 1, len(widths) - 1)],
                out_channels=width,
                prev_output_channel=widths[max(level - 1, 0)],
                add_upsample=level < len(widths) - 1,
                num_attention_heads=heads,
                attention_head_dim=width // heads,
                **config.block_options,
            )
            for level, (width, attends, heads) in enumerate(levels)
        )
        if config.output_head:
            self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[-1], eps=1e-5)
            self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)
        self.finish_attention()

    def forward(
        self,
        latents: Latents,
        timesteps: Int[Tensor, "*b"],
        context: Context | None,
        *,
        mode: int = 0,
        reference: Reference | None = None,
        control: ControlResiduals | None = None,
        view_consistency: ViewConsistency | None = None,
        clip_length: int | None = None,
    ) -> Latents:
        """Predict the noise (or what the scheduler's `prediction_type` says).

        Args:
            latents: noisy latents; with `view_consistency`, consecutive groups of `clip_length` rows are clips.
            timesteps: one for all rows, or one per row, in [0, 1000).
            context: context tokens, one row for all or one each; None where the config has no context.
            mode: row of the mode embedding; ignored where there is none.
            reference: keys and values of the reference pictures; None for plain self-attention.
            control: residuals of camera control; None for none.
            view_consistency: V; None treats the rows as unrelated pictures.
            clip_length: pictures per clip; None takes V's own.

        Raises:
            ValueError: the number of rows is no multiple of the clip length.
        """
        embedded = self.embed_time(timesteps, mode, latents.dtype, latents.device)
        site_options: Iterator[SiteOptions] = itertools.repeat({})
        if reference is not None:
            site_options = ({"reference": pair} for pair in zip(reference.keys, reference.values))
        after_down = after_up = None
        waits_for_upsampler = view_consistency is not None and view_consistency.sizes.after_upsample
        if view_consistency is not None:
            after_down = functools.partial(view_consistency.after_down, clip_length=clip_length)
            after_up = functools.partial(view_consistency.after_up, clip_length=clip_length)
        hidden, skips = self.encode(self.conv_in(latents), embedded, context, site_options, after_down)
        if control is not None:
            hidden = hidden + control.middle
            skips = [skip + residual for skip, residual in zip(skips, control.skips, strict=True)]
        for level, block in enumerate(self.up_blocks):
            layers = layers_of(block)
            for layer, (resnet, transformer) in enumerate(layers):
                hidden = self.run(resnet, torch.cat([hidden, skips.pop()], dim=1), embedded)
                if transformer is not None:
                    hidden = self.attend(transformer, hidden, context, next(site_options))
                if after_up is not None and not waits_for_upsampler:
                    hidden = after_up(level, layer, hidden)
                for upsampler in (block.upsamplers or ()) if layer == len(layers) - 1 else ():
                    hidden = upsampler(hidden, skips[-1].shape[-2:])
                if after_up is not None and waits_for_upsampler:
                    hidden = after_up(level, layer, hidden)
        return self.conv_out(F.silu(self.conv_norm_out(hidden)))

    def write_reference(
        self, latents: Latents, timesteps: Int[Tensor, "*b"], context: Context | None, *, mode: int = 0
    ) -> tuple[Float[Tensor, "b _ _"], ...]:
        """What each self-attention is given when this network looks at a clean latent: R's only result.

        The pass ends at the last self-attention's input; nothing after it is computed.

        Args:
            latents: clean latents of reference pictures.
            timesteps: the timesteps of the pictures that will read (the release embeds them though nothing is noisy).
            context: as in `forward`.
            mode: as in `forward`.

        Returns:
            One [b, tokens, channels] per attention site, in execution order.
        """
        embedded = self.embed_time(timesteps, mode, latents.dtype, latents.device)
        written: list[Tensor] = []
        last = self.attention_sites()[-1]
        options: SiteOptions = {"written": written}
        hidden, skips = self.encode(self.conv_in(latents), embedded, context, itertools.repeat(options))
        for block in self.up_blocks:
            for resnet, transformer in layers_of(block):
                hidden = self.run(resnet, torch.cat([hidden, skips.pop()], dim=1), embedded)
                if transformer is last:
                    tokens, _ = last._operate_on_continuous_inputs(last.norm(hidden))
                    return (*written, last.transformer_blocks[0].norm1(tokens))
                if transformer is not None:
                    hidden = self.attend(transformer, hidden, context, options)
            for upsampler in block.upsamplers or ():
                hidden = upsampler(hidden, skips[-1].shape[-2:])
        raise AssertionError("the last attention site lies on the way up")

    def read_reference(self, *banks: Sequence[Float[Tensor, "_ _ _"]]) -> Reference:
        """Project what R wrote with this network's own key and value weights.

        Args:
            banks: one result of `write_reference` per reference picture (front, back); their order does not matter.
        """
        sites = self.attention_sites()
        assert banks and all(len(bank) == len(sites) for bank in banks)
        attentions = [site.transformer_blocks[0].attn1 for site in sites]
        tokens = [torch.cat(entries, dim=1) for entries in zip(*banks)]
        return Reference(
            tuple(attention.to_k(t) for attention, t in zip(attentions, tokens)),
            tuple(attention.to_v(t) for attention, t in zip(attentions, tokens)),
        )


def layers_of(block: Any) -> list[tuple[nn.Module, nn.Module | None]]:
    """Residual blocks of a level, each with its spatial transformer or None."""
    attentions = getattr(block, "attentions", [None] * len(block.resnets))
    return list(zip(block.resnets, attentions, strict=True))

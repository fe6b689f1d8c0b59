"""Where each tensor of the official checkpoints belongs: rules that derive every key from the sizes of the release.

The official files are flat state dicts in the naming of latent-diffusion and ControlNet
(https://github.com/CompVis/latent-diffusion, https://github.com/lllyasviel/ControlNet) with AnimateDiff's temporal
modules beside the UNet (https://github.com/guoyww/AnimateDiff). Ours are diffusers' names for the four networks and
the autoencoder, and those of `view_consistency` for the temporal modules. Nothing is read from a table of keys: blocks
are counted off as the constructors of the release do, so every size of the same architecture is covered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..architectures import Architecture
from ..camera_control import CameraControlConfig
from ..unet import EncoderConfig
from ..view_consistency import ViewConsistencyConfig
from .schedule import SCHEDULE_TABLES

CheckpointPart = Literal["unet", "appearance", "camera_control", "view_consistency", "vae", "text_encoder", "schedule"]
"""Parts of a checkpoint; all but the last two are components of a pipeline folder."""
StoredLayout = Literal["same", "conv_to_linear", "drop_batch"]
"""How a tensor is stored: as ours, as a 1x1 convolution for a linear layer, or with a leading batch axis of one."""

UNET_PREFIX = "model.diffusion_model."
APPEARANCE_PREFIX = "control_model."
CAMERA_CONTROL_PREFIX = "pose_control_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."

IGNORED_KEYS = frozenset({TEXT_PREFIX + "text_model.embeddings.position_ids"})
"""Keys that hold no weights: 0, 1, 2, ... as older transformers releases saved them."""


@dataclass(frozen=True)
class Home:
    """Where one official tensor goes."""

    part: CheckpointPart
    """The part of the checkpoint."""
    name: str
    """Our name of the parameter inside that part."""
    layout: StoredLayout = "same"
    """What has to be done to its shape."""


def official_keys(architecture: Architecture, *, motion: bool) -> dict[str, Home]:
    """Every key of an official checkpoint and where its tensor belongs, in no particular order.

    The ignored keys (`IGNORED_KEYS`) are not among them.

    Args:
        architecture: sizes of the networks.
        motion: whether the temporal modules V are there: in the 360 model, not in the back-head model.
    """
    options = architecture.autoencoder_options
    names: list[tuple[str, CheckpointPart, Names]] = [
        (UNET_PREFIX, "unet", _unet(architecture.unet, output_head=True)),
        (APPEARANCE_PREFIX, "appearance", _unet(architecture.unet, output_head=False)),
        (CAMERA_CONTROL_PREFIX, "camera_control", _camera_control(architecture.camera_control)),
        (VAE_PREFIX, "vae", _vae(options["block_out_channels"], options["layers_per_block"])),
        (TEXT_PREFIX, "text_encoder", ((name, name) for name in _text_encoder(architecture.text_layers))),
    ]
    if motion:
        names.append((UNET_PREFIX, "view_consistency", _view_consistency(architecture.view_consistency)))
    keys = {name: Home("schedule", name) for name in SCHEDULE_TABLES}
    for prefix, part, pairs in names:
        keys |= {prefix + official: Home(part, ours, _layout(part, official)) for official, ours in pairs}
    return keys


def _layout(part: CheckpointPart, official: str) -> StoredLayout:
    """How the release stores a tensor: its autoencoder's attention is written as convolutions."""
    if part == "vae" and official.endswith(".weight") and ".attn_1." in official and ".norm." not in official:
        return "conv_to_linear"
    return "drop_batch" if official.endswith(_POSITION_TABLE) else "same"


Names = Iterator[tuple[str, str]]
"""Pairs of an official name and ours."""

_BOTH = ("weight", "bias")
_POSITION_TABLE = "pos_encoder.pe"
_RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}
_TRANSFORMER = (
    *("norm", "proj_in", "proj_out"),
    *(f"transformer_blocks.0.norm{i}" for i in (1, 2, 3)),
    *(f"transformer_blocks.0.attn{i}.to_out.0" for i in (1, 2)),
    *("transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.net.2"),
)
_TRANSFORMER_WITHOUT_BIAS = tuple(f"transformer_blocks.0.attn{i}.to_{x}" for i in (1, 2) for x in "qkv")


def _both(official: str, ours: str) -> Names:
    for kind in _BOTH:
        yield f"{official}.{kind}", f"{ours}.{kind}"


def _res_block(official: str, ours: str, *, widens: bool) -> Names:
    for theirs, name in _RES_BLOCK.items():
        yield from _both(f"{official}.{theirs}", f"{ours}.{name}")
    if widens:
        yield from _both(f"{official}.skip_connection", f"{ours}.conv_shortcut")


def _transformer(official: str, ours: str) -> Names:
    for name in _TRANSFORMER:
        yield from _both(f"{official}.{name}", f"{ours}.{name}")
    for name in _TRANSFORMER_WITHOUT_BIAS:
        yield f"{official}.{name}.weight", f"{ours}.{name}.weight"


def _encoder(sizes: EncoderConfig) -> Iterator[tuple[int, Names]]:
    """The input blocks in order: channels of each block's output and its names."""
    channels = sizes.block_out_channels[0]
    yield channels, _both("input_blocks.0.0", "conv_in")
    index = 1
    for level, width in enumerate(sizes.block_out_channels):
        for j in range(sizes.layers_per_block):
            names = [
                *_res_block(f"input_blocks.{index}.0", f"down_blocks.{level}.resnets.{j}", widens=channels != width)
            ]
            if sizes.attention_levels[level]:
                names += _transformer(f"input_blocks.{index}.1", f"down_blocks.{level}.attentions.{j}")
            channels = width
            yield channels, iter(names)
            index += 1
        if level + 1 < len(sizes.block_out_channels):
            yield channels, _both(f"input_blocks.{index}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
            index += 1


def _encoder_and_middle(sizes: EncoderConfig) -> Names:
    yield from _both("time_embed.0", "time_embedding.linear_1")
    yield from _both("time_embed.2", "time_embedding.linear_2")
    for _, names in _encoder(sizes):
        yield from names
    yield from _res_block("middle_block.0", "mid_block.resnets.0", widens=False)
    yield from _transformer("middle_block.1", "mid_block.attentions.0")
    yield from _res_block("middle_block.2", "mid_block.resnets.1", widens=False)


def _unet(sizes: EncoderConfig, *, output_head: bool) -> Names:
    yield from _encoder_and_middle(sizes)
    levels, blocks = len(sizes.block_out_channels), sizes.layers_per_block + 1
    for i in range(levels):
        attention = sizes.attention_levels[levels - 1 - i]
        for j in range(blocks):
            official = f"output_blocks.{blocks * i + j}"
            # Every block takes a skip connection in, so its input is always wider than its output.
            yield from _res_block(f"{official}.0", f"up_blocks.{i}.resnets.{j}", widens=True)
            if attention:
                yield from _transformer(f"{official}.1", f"up_blocks.{i}.attentions.{j}")
        if i + 1 < levels:
            yield from _both(f"{official}.{2 if attention else 1}.conv", f"up_blocks.{i}.upsamplers.0.conv")
    if output_head:
        yield from _both("out.0", "conv_norm_out")
        yield from _both("out.2", "conv_out")


def _camera_control(sizes: CameraControlConfig) -> Names:
    yield from _encoder_and_middle(sizes)
    between = 2 * (len(sizes.hint_channels) - 1)
    yield from _both("input_hint_block.0", "controlnet_cond_embedding.conv_in")
    for i in range(between):
        yield from _both(f"input_hint_block.{2 * (i + 1)}", f"controlnet_cond_embedding.blocks.{i}")
    yield from _both(f"input_hint_block.{2 * (between + 1)}", "controlnet_cond_embedding.conv_out")
    for k, _ in enumerate(_encoder(sizes)):
        yield from _both(f"zero_convs.{k}.0", f"controlnet_down_blocks.{k}")
    yield from _both("middle_block_out.0", "controlnet_mid_block")


def _view_consistency(sizes: ViewConsistencyConfig) -> Names:
    levels, blocks = len(sizes.block_out_channels), sizes.layers_per_block
    sites = [(f"input_blocks_motion_module.{k}", f"down_modules.{k}") for k in range(levels * blocks)]
    sites += [(f"output_blocks_motion_module.{k}", f"up_modules.{k}") for k in range(levels * (blocks + 1))]
    for official_site, ours in sites:
        official = f"{official_site}.0.temporal_transformer"
        block = f"{official}.transformer_blocks.0"
        pairs = [(f"{official}.{name}", f"{ours}.{name}") for name in ("norm", "proj_in", "proj_out")]
        pairs += [(f"{block}.ff.{name}", f"{ours}.feed_forward.{name}") for name in ("net.0.proj", "net.2")]
        pairs += [(f"{block}.ff_norm", f"{ours}.feed_forward_norm")]
        pairs += [(f"{block}.norms.{i}", f"{ours}.attention_norms.{i}") for i in (0, 1)]
        pairs += [(f"{block}.attention_blocks.{i}.to_out.0", f"{ours}.attentions.{i}.to_out.0") for i in (0, 1)]
        for pair in pairs:
            yield from _both(*pair)
        for i in (0, 1):
            for x in "qkv":
                yield f"{block}.attention_blocks.{i}.to_{x}.weight", f"{ours}.attentions.{i}.to_{x}.weight"
            yield f"{block}.attention_blocks.{i}.{_POSITION_TABLE}", f"{ours}.attentions.{i}.position_table"


_VAE_RES_BLOCK = ("norm1", "conv1", "norm2", "conv2")
_VAE_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def _vae_res_block(official: str, ours: str, *, widens: bool) -> Names:
    for name in _VAE_RES_BLOCK:
        yield from _both(f"{official}.{name}", f"{ours}.{name}")
    if widens:
        yield from _both(f"{official}.nin_shortcut", f"{ours}.conv_shortcut")


def _vae_middle(half: str) -> Names:
    official, ours = f"{half}.mid", f"{half}.mid_block"
    for i in (0, 1):
        yield from _vae_res_block(f"{official}.block_{i + 1}", f"{ours}.resnets.{i}", widens=False)
    yield from _both(f"{official}.attn_1.norm", f"{ours}.attentions.0.group_norm")
    for theirs, our in _VAE_ATTENTION.items():
        yield from _both(f"{official}.attn_1.{theirs}", f"{ours}.attentions.0.{our}")


def _vae(widths: Sequence[int], blocks: int) -> Names:
    last = len(widths) - 1
    plain = [("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv")]
    for half in ("encoder", "decoder"):
        plain += [(f"{half}.conv_in", f"{half}.conv_in"), (f"{half}.conv_out", f"{half}.conv_out")]
        plain += [(f"{half}.norm_out", f"{half}.conv_norm_out")]
        yield from _vae_middle(half)
    plain += [
        (f"encoder.down.{i}.downsample.conv", f"encoder.down_blocks.{i}.downsamplers.0.conv") for i in range(last)
    ]
    plain += [(f"decoder.up.{last - i}.upsample.conv", f"decoder.up_blocks.{i}.upsamplers.0.conv") for i in range(last)]
    for pair in plain:
        yield from _both(*pair)
    channels = widths[0]
    for i, width in enumerate(widths):
        for j in range(blocks):
            official, ours = f"encoder.down.{i}.block.{j}", f"encoder.down_blocks.{i}.resnets.{j}"
            yield from _vae_res_block(official, ours, widens=channels != width)
            channels = width
    for i, width in enumerate(reversed(widths)):
        for j in range(blocks + 1):
            official, ours = f"decoder.up.{last - i}.block.{j}", f"decoder.up_blocks.{i}.resnets.{j}"
            yield from _vae_res_block(official, ours, widens=channels != width)
            channels = width


def _text_encoder(layers: int) -> Iterator[str]:
    yield "text_model.embeddings.token_embedding.weight"
    yield "text_model.embeddings.position_embedding.weight"
    modules = [f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")] + ["layer_norm1", "layer_norm2"]
    for layer in range(layers):
        for module in (*modules, "mlp.fc1", "mlp.fc2"):
            yield from (f"text_model.encoder.layers.{layer}.{module}.{kind}" for kind in _BOTH)
    yield from (f"text_model.final_layer_norm.{kind}" for kind in _BOTH)

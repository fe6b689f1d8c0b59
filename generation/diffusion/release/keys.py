"""Where each tensor of the official checkpoints belongs: rules that give every parameter of ours its official name.

The official files are flat state dicts in the naming of latent-diffusion and ControlNet
(https://github.com/CompVis/latent-diffusion, https://github.com/lllyasviel/ControlNet) with AnimateDiff's temporal
modules beside the UNet (https://github.com/guoyww/AnimateDiff). Ours are diffusers' names for the four networks and
the autoencoder, and those of `view_consistency` for the temporal modules. Blocks are counted as the constructors of
the release do, so every size of the same architecture is covered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from ..architectures import Architecture
from ..unet import EncoderConfig
from .schedule import SCHEDULE_TABLES

CheckpointPart = Literal["unet", "appearance", "camera_control", "view_consistency", "vae", "text_encoder", "schedule"]
"""Parts of a checkpoint; all but the last two are components of a pipeline folder."""

_PREFIXES: dict[CheckpointPart, str] = {
    "unet": "model.diffusion_model.",
    "appearance": "control_model.",
    "camera_control": "pose_control_model.",
    "view_consistency": "model.diffusion_model.",
    "vae": "first_stage_model.",
}
TEXT_PREFIX = "cond_stage_model.transformer."
MOTION_PREFIXES = tuple(_PREFIXES["unet"] + half for half in ("input_blocks_motion_", "output_blocks_motion_"))

IGNORED_KEYS = frozenset({TEXT_PREFIX + "text_model.embeddings.position_ids"})
"""Keys that hold no weights: 0, 1, 2, ... as older transformers releases saved them."""

START_TOKEN, END_TOKEN = 49406, 49407
_CLIP_HEAD_CHANNELS = 64
_POSITION_TABLE = "pos_encoder.pe"


@dataclass(frozen=True)
class Home:
    """Where one official tensor goes."""

    part: CheckpointPart
    """The part of the checkpoint."""
    name: str
    """Our name of the parameter inside that part."""
    shape: tuple[int, ...]
    """Our shape of it: of the official one, which has as many numbers, only axes of one are left out."""
    official_shape: tuple[int, ...]
    """Shape in the checkpoint."""


def official_keys(architecture: Architecture) -> dict[str, Home]:
    """Every key of the 360 model's checkpoint and where its tensor belongs, in no particular order.

    The back-head model has the same but for `view_consistency`. The ignored keys (`IGNORED_KEYS`) are not among them.
    """
    with torch.device("meta"):
        networks, encoder = architecture.components(), CLIPTextModel(text_config(architecture))
    rules: dict[CheckpointPart, Rules] = {
        "unet": _unet_rules(architecture.unet),
        "appearance": _unet_rules(architecture.unet),
        "camera_control": [
            *_hint_rules(len(architecture.camera_control.hint_channels)),
            *_unet_rules(architecture.camera_control),
        ],
        "vae": _vae_rules(len(architecture.autoencoder_options["block_out_channels"])),
        "view_consistency": _MOTION_RULES,
    }
    length = (networks["scheduler"].config["num_train_timesteps"],)
    keys = {name: Home("schedule", name, length, length) for name in SCHEDULE_TABLES}
    for name, tensor in encoder.state_dict().items():
        shape = tuple(tensor.shape)
        keys[TEXT_PREFIX + with_text_prefix(name)] = Home("text_encoder", with_text_prefix(name), shape, shape)
    for part, names in rules.items():
        for ours, tensor in networks[part].state_dict().items():
            official = ours
            for pattern, replacement in names:
                official = re.sub(pattern, replacement, official)
            shape = tuple(tensor.shape)
            keys[_PREFIXES[part] + official] = Home(part, ours, shape, _official_shape(official, shape))
    return keys


def _official_shape(official: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The release writes its autoencoder's attention as convolutions, and position tables with a batch axis."""
    if re.search(r"\.attn_1\.(q|k|v|proj_out)\.weight$", official):
        return (*shape, 1, 1)
    return (1, *shape) if official.endswith(_POSITION_TABLE) else shape


def text_config(architecture: Architecture) -> CLIPTextConfig:
    """Sizes of the CLIP text encoder in a checkpoint (arXiv 2103.00020: heads of 64 channels)."""
    width = architecture.unet.context_dim
    assert width is not None  # every official network has a context
    return CLIPTextConfig(
        vocab_size=END_TOKEN + 1,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=architecture.text_layers,
        num_attention_heads=max(width // _CLIP_HEAD_CHANNELS, 1),
        hidden_act="quick_gelu",
    )


def with_text_prefix(name: str) -> str:
    """Name of a text encoder's parameter with the prefix that transformers 5 dropped."""
    return "text_model." + name.removeprefix("text_model.")


Rules: TypeAlias = list[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Patterns in our names and what stands in their place in official ones, applied one after the other."""


def _unet_rules(sizes: EncoderConfig) -> Rules:
    per_level = sizes.layers_per_block + 1
    attends = sizes.attention_levels[::-1]
    place = {"resnets": 0, "attentions": 1}
    return [
        (r"(resnets\.\d+)\.norm1\.", r"\1.in_layers.0."),
        (r"(resnets\.\d+)\.conv1\.", r"\1.in_layers.2."),
        (r"(resnets\.\d+)\.time_emb_proj\.", r"\1.emb_layers.1."),
        (r"(resnets\.\d+)\.norm2\.", r"\1.out_layers.0."),
        (r"(resnets\.\d+)\.conv2\.", r"\1.out_layers.3."),
        (r"(resnets\.\d+)\.conv_shortcut\.", r"\1.skip_connection."),
        (r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
        (r"^mid_block\.attentions\.0", "middle_block.1"),
        (
            r"^down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)",
            lambda m: f"input_blocks.{per_level * int(m[1]) + int(m[3]) + 1}.{place[m[2]]}",
        ),
        (
            r"^down_blocks\.(\d+)\.downsamplers\.0\.conv",
            lambda m: f"input_blocks.{per_level * (int(m[1]) + 1)}.0.op",
        ),
        (
            r"^up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)",
            lambda m: f"output_blocks.{per_level * int(m[1]) + int(m[3])}.{place[m[2]]}",
        ),
        (
            r"^up_blocks\.(\d+)\.upsamplers\.0",
            lambda m: f"output_blocks.{per_level * (int(m[1]) + 1) - 1}.{1 + attends[int(m[1])]}",
        ),
        (r"^conv_in\.", "input_blocks.0.0."),
        (r"^time_embedding\.linear_(\d)", lambda m: f"time_embed.{2 * int(m[1]) - 2}"),
        (r"^conv_norm_out\.", "out.0."),
        (r"^conv_out\.", "out.2."),
    ]


def _hint_rules(widths: int) -> Rules:
    """Of what camera control has besides an encoder, for so many widths of its control picture's network."""
    hint = r"^controlnet_cond_embedding\."
    return [
        (hint + "conv_in", "input_hint_block.0"),
        (hint + r"blocks\.(\d+)", lambda m: f"input_hint_block.{2 * (int(m[1]) + 1)}"),
        (hint + "conv_out", f"input_hint_block.{4 * widths - 2}"),
        (r"^controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0"),
        ("^controlnet_mid_block", "middle_block_out.0"),
    ]


_IN_MOTION_BLOCK = r"(_motion_module\.\d+\.0\.temporal_transformer\.)"
_MOTION_RULES: Rules = [
    (r"^down_modules\.(\d+)\.", r"input_blocks_motion_module.\1.0.temporal_transformer."),
    (r"^up_modules\.(\d+)\.", r"output_blocks_motion_module.\1.0.temporal_transformer."),
    (_IN_MOTION_BLOCK + r"feed_forward", r"\1transformer_blocks.0.ff"),
    (_IN_MOTION_BLOCK + r"attention_norms\.", r"\1transformer_blocks.0.norms."),
    (_IN_MOTION_BLOCK + r"attentions\.", r"\1transformer_blocks.0.attention_blocks."),
    (r"position_table$", _POSITION_TABLE),
]


def _vae_rules(levels: int) -> Rules:
    return [
        (r"\.mid_block\.resnets\.(\d)", lambda m: f".mid.block_{int(m[1]) + 1}"),
        (r"\.mid_block\.attentions\.0\.group_norm", ".mid.attn_1.norm"),
        (r"\.mid_block\.attentions\.0\.to_out\.0", ".mid.attn_1.proj_out"),
        (r"\.mid_block\.attentions\.0\.to_", ".mid.attn_1."),
        (r"\.down_blocks\.(\d+)", r".down.\1"),
        (r"\.up_blocks\.(\d+)", lambda m: f".up.{levels - 1 - int(m[1])}"),
        (r"\.resnets\.", ".block."),
        (r"\.(down|up)samplers\.0\.", r".\1sample."),
        (r"\.conv_shortcut\.", ".nin_shortcut."),
        (r"\.conv_norm_out\.", ".norm_out."),
    ]

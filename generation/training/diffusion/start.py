"""Where training of the official size starts: Stable Diffusion 1.5 and, for V, AnimateDiff, in diffusers' layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from ...diffusion.architectures import OFFICIAL, Architecture
from ...diffusion.compact import LOADING_ERRORS, short_reason
from ...diffusion.pipeline import DiffPortrait360Pipeline
from ...diffusion.view_consistency import ViewConsistency
from ...errors import InputError

_FRESH_CONTROL = ("controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block.")
"""What camera control has beside the UNet's encoder; the residuals' convolutions start at zero (arXiv 2302.05543)."""


def reads_as_stable_diffusion(folder: Path) -> bool:
    """Whether a folder is laid out as diffusers lays out Stable Diffusion, and not as our own pipelines."""
    parts = ("text_encoder", "unet", "vae")
    return all((folder / part).is_dir() for part in parts) and not (folder / "camera_control").exists()


def official_pipeline(folder: Path) -> DiffPortrait360Pipeline:
    """The official architecture round Stable Diffusion's weights.

    Denoising network, R, C and their copies for F start as Stable Diffusion's UNet or its encoder half; hint network,
    zero convolutions and V are fresh, and change nothing at first; the context is the empty prompt's.

    Args:
        folder: with unet, vae, text_encoder and tokenizer.

    Raises:
        InputError: a part is missing, cannot be read, or is no Stable Diffusion 1.x.
    """
    try:
        source = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", local_files_only=True)
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", local_files_only=True)
        context = _empty_prompt(folder)
    except LOADING_ERRORS as error:
        raise InputError(
            f"{folder} is no complete Stable Diffusion 1.5 ({short_reason(error)}); expected unet, vae, text_encoder "
            "and tokenizer as diffusers lays them out"
        ) from error
    torch.manual_seed(0)
    architecture = _architecture(source.config, context)
    components = {**architecture.components(), "vae": vae}
    weights = source.state_dict()
    for name, network in components.items():
        if name == "context":
            with torch.no_grad():
                network.context.copy_(context)
        elif isinstance(network, nn.Module) and name not in ("vae", "view_consistency"):
            _take(network, weights, name, folder)
    return DiffPortrait360Pipeline(**components)


def take_motion_adapter(network: ViewConsistency, folder: Path) -> None:
    """Let V start as AnimateDiff's motion modules, which have its layers but for where they stand in the UNet.

    A middle module, as later versions have, is left out, and so are rows of the position table that V does not have.

    Args:
        network: V of the official size; changed in place.
        folder: a `MotionAdapter` of Stable Diffusion 1.x, for example guoyww/animatediff-motion-adapter-v1-5.

    Raises:
        InputError: the folder holds none, or one of another shape.
    """
    try:
        adapter = MotionAdapter.from_pretrained(folder, local_files_only=True)
    except LOADING_ERRORS as error:
        raise InputError(
            f"{folder} is no motion adapter ({short_reason(error)}); expected config.json and weights"
        ) from error
    rows, taken = network.sizes.max_clip_length, {}
    halves: Any = ((adapter.down_blocks, "down_modules"), (adapter.up_blocks, "up_modules"))
    for blocks, ours in halves:
        for site, module in enumerate(module for block in blocks for module in block.motion_modules):
            for key, value in module.state_dict().items():
                layer, _, leaf = key.rpartition(".")
                if leaf == "pe":
                    for i in (0, 1):
                        taken[f"{ours}.{site}.attentions.{i}.position_table"] = value[0, :rows]
                else:
                    taken[f"{ours}.{site}.{_MOTION_NAMES.get(layer, layer)}.{leaf}"] = value
    try:
        network.load_state_dict(taken)
    except RuntimeError as error:
        raise InputError(f"{folder} does not have the shapes of this V ({short_reason(error)})") from error


_BLOCK = "transformer_blocks.0"
_MOTION_NAMES = {
    **{
        f"{_BLOCK}.attn{i + 1}.{name}": f"attentions.{i}.{name}"
        for i in (0, 1)
        for name in ("to_q", "to_k", "to_v", "to_out.0")
    },
    **{f"{_BLOCK}.norm{i + 1}": f"attention_norms.{i}" for i in (0, 1)},
    **{f"{_BLOCK}.ff.{name}": f"feed_forward.{name}" for name in ("net.0.proj", "net.2")},
    f"{_BLOCK}.norm3": "feed_forward_norm",
}
"""Layers of diffusers' motion modules and what ours call them; the others are called alike."""


def _architecture(config: Mapping, context: Float[Tensor, "1 n d"]) -> Architecture:
    """The official architecture in the sizes of a UNet's configuration."""
    widths = tuple(config["block_out_channels"])
    heads = config["attention_head_dim"]  # diffusers' name; in Stable Diffusion 1.x it counts heads
    sizes = {
        "block_out_channels": widths,
        "layers_per_block": config["layers_per_block"],
        "num_heads": (heads,) * len(widths) if isinstance(heads, int) else tuple(heads),
        "norm_num_groups": config["norm_num_groups"],
    }
    attends = {"attention_levels": tuple("Attn" in name for name in config["down_block_types"])}
    depth = {"context_dim": config["cross_attention_dim"]}
    return replace(
        OFFICIAL,
        unet=replace(OFFICIAL.unet, **sizes, **attends, **depth),
        camera_control=replace(OFFICIAL.camera_control, **sizes, **attends, **depth),
        view_consistency=replace(OFFICIAL.view_consistency, **sizes),
        context_tokens=context.shape[1],
    )


def _take(network: nn.Module, weights: Mapping[str, Tensor], name: str, folder: Path) -> None:
    """Copy the weights of equal names; only camera control's own parts may stay as they are."""
    found = {key: weights[key] for key in network.state_dict() if key in weights}
    try:
        left = network.load_state_dict(found, strict=False).missing_keys
    except RuntimeError as error:
        raise InputError(f"{folder}: unet does not have Stable Diffusion 1.5's shapes ({error})") from error
    left = [key for key in left if not key.startswith(_FRESH_CONTROL)]
    if left:
        raise InputError(f"{folder}: unet lacks {len(left)} weights that {name} needs, such as {left[0]}")


def _empty_prompt(folder: Path) -> Float[Tensor, "1 n d"]:
    """Hidden states of the empty prompt."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True)
    tokens = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    with torch.no_grad():
        return encoder(tokens.input_ids).last_hidden_state

"""Where each tensor of the official checkpoints belongs: rules that derive every key from the sizes of the release.

The official files are flat state dicts in the naming of latent-diffusion and ControlNet
(https://github.com/CompVis/latent-diffusion, https://github.com/lllyasviel/ControlNet) with AnimateDiff's temporal
modules beside the UNet (https://github.com/guoyww/AnimateDiff). Ours are diffusers' names for the four networks and
the autoencoder, and those of `view_consistency` for the temporal modules. Nothing is read from a table of keys: blocks
are counted off as the constructors of the release do, so every size of the same architecture is covered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...errors import InputError
from ..camera_control import CameraControlConfig
from ..unet import UNetConfig
from ..view_consistency import ViewConsistencyConfig

Part = Literal["unet", "appearance", "camera_control", "view_consistency", "vae", "text_encoder", "schedule"]
"""Parts of a checkpoint; all but the last two are components of a pipeline folder."""
Layout = Literal["same", "conv_to_linear", "drop_batch"]
"""How a tensor is stored: as ours, as a 1x1 convolution for a linear layer, or with a leading batch axis of one."""

UNET_PREFIX = "model.diffusion_model."
APPEARANCE_PREFIX = "control_model."
CAMERA_CONTROL_PREFIX = "pose_control_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."

SCHEDULE_TABLES = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "logvar",
)
"""The vectors of a DDPM that travel in the state dict; they follow from the betas and are not stored by us."""

IGNORED_KEYS = frozenset({TEXT_PREFIX + "text_model.embeddings.position_ids"})
"""Keys that hold no weights: 0, 1, 2, ... as older transformers releases saved them."""

_HINT_CHANNELS = (16, 32, 96, 256)
"""Widths of the network in front of C; ControlNet fixes them in its constructor."""


@dataclass(frozen=True)
class Home:
    """Where one official tensor goes."""

    part: Part
    """The part of the checkpoint."""
    name: str
    """Our name of the parameter inside that part."""
    layout: Layout = "same"
    """What has to be done to its shape."""


@dataclass(frozen=True)
class ReleaseArchitecture:
    """Sizes of the released networks; the defaults are those of the two official files."""

    in_channels: int = 4
    """Channels of the latent, into the UNet, R and C."""
    out_channels: int = 4
    """Channels of the predicted noise."""
    model_channels: int = 320
    """Width of the first level."""
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Width of each level in units of `model_channels`."""
    num_res_blocks: int = 2
    """Residual blocks per level on the way down; one more on the way up."""
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    """Downsampling factors at which the levels have transformers; the middle always has one."""
    num_heads: int = 8
    """Heads of every spatial attention."""
    context_dim: int = 768
    """Width of the text context."""
    control_channels: int = 3
    """Channels of the control pictures."""
    motion: bool = True
    """Whether the temporal modules V are there: in the 360 model, not in the back-head model."""
    motion_heads: int = 8
    """Heads of every temporal attention."""
    clip_length: int = 8
    """Views that attend to each other (`video_length`)."""
    motion_max_length: int = 24
    """Rows of the position tables."""
    vae_channels: int = 128
    """Width of the autoencoder's first level."""
    vae_channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Width of each of its levels in units of `vae_channels`."""
    vae_num_res_blocks: int = 2
    """Residual blocks per level of the encoder; one more in the decoder."""
    vae_embed_dim: int = 4
    """Channels of the latent, as the autoencoder makes it."""
    vae_picture_channels: int = 3
    """Channels of the pictures."""
    scale_factor: float = 0.18215
    """Latents are multiplied by this before they are noised."""
    linear_start: float = 0.00085
    """First beta; the betas' roots are spaced evenly."""
    linear_end: float = 0.012
    """Last beta."""
    timesteps: int = 1000
    """Steps of the training schedule."""
    text_layers: int = 12
    """Layers of the CLIP text encoder; its other sizes are read off its tensors."""

    @classmethod
    def from_hyperparameters(cls, hyperparameters: Mapping[str, Any]) -> ReleaseArchitecture:
        """Read the release's own configuration form.

        Args:
            hyperparameters: the `params` of the model's yaml, reduced to numbers: `linear_start`, `linear_end`,
                `timesteps`, `scale_factor` and the constructor arguments under `unet` (with
                `unet_additional_kwargs.motion_module_kwargs` where there are temporal modules), `reference`,
                `control` and `vae`.

        Raises:
            InputError: an entry is missing, or describes a network that this architecture cannot be.
        """
        unet, reference, control = (_entry(hyperparameters, name) for name in ("unet", "reference", "control"))
        for name, value in _REQUIRED_SETTINGS.items():
            for owner, settings in (("unet", unet), ("reference", reference), ("control", control)):
                if settings.get(name, value) != value:
                    raise _cannot_be(f"{owner}.{name}", settings[name], value)
        for name in _SHARED_SIZES:
            for owner, settings in (("reference", reference), ("control", control)):
                if _entry(settings, name, owner) != _entry(unet, name, "unet"):
                    raise _cannot_be(f"{owner}.{name}", settings[name], f"{unet[name]}, as in unet")
        vae = _entry(hyperparameters, "vae")
        sizes = _entry(vae, "ddconfig", "vae")
        required = {"attn_resolutions": [], "double_z": True, "z_channels": _entry(vae, "embed_dim", "vae")}
        required["out_ch"] = _entry(sizes, "in_channels", "vae.ddconfig")
        for name, value in required.items():
            if sizes.get(name, value) != value:
                raise _cannot_be(f"vae.ddconfig.{name}", sizes[name], value)
        motion = _motion_settings(unet, tuple(unet["channel_mult"]))
        return cls(
            in_channels=unet["in_channels"],
            out_channels=_entry(unet, "out_channels", "unet"),
            model_channels=unet["model_channels"],
            channel_mult=tuple(unet["channel_mult"]),
            num_res_blocks=unet["num_res_blocks"],
            attention_resolutions=tuple(unet["attention_resolutions"]),
            num_heads=unet["num_heads"],
            context_dim=unet["context_dim"],
            control_channels=_entry(control, "hint_channels", "control"),
            motion=motion is not None,
            motion_heads=motion["num_attention_heads"] if motion else cls.motion_heads,
            clip_length=motion["video_length"] if motion else cls.clip_length,
            motion_max_length=motion["temporal_position_encoding_max_len"] if motion else cls.motion_max_length,
            vae_channels=_entry(sizes, "ch", "vae.ddconfig"),
            vae_channel_mult=tuple(_entry(sizes, "ch_mult", "vae.ddconfig")),
            vae_num_res_blocks=_entry(sizes, "num_res_blocks", "vae.ddconfig"),
            vae_embed_dim=vae["embed_dim"],
            vae_picture_channels=sizes["in_channels"],
            scale_factor=_entry(hyperparameters, "scale_factor"),
            linear_start=_entry(hyperparameters, "linear_start"),
            linear_end=_entry(hyperparameters, "linear_end"),
            timesteps=_entry(hyperparameters, "timesteps"),
        )

    @property
    def block_out_channels(self) -> tuple[int, ...]:
        """Width of each level."""
        return tuple(self.model_channels * factor for factor in self.channel_mult)

    @property
    def attention_levels(self) -> tuple[bool, ...]:
        """Which levels have transformers."""
        return tuple(2**level in self.attention_resolutions for level in range(len(self.channel_mult)))

    @property
    def unet_config(self) -> UNetConfig:
        """The denoising UNet."""
        return UNetConfig(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            block_out_channels=self.block_out_channels,
            layers_per_block=self.num_res_blocks,
            attention_levels=self.attention_levels,
            num_heads=(self.num_heads,) * len(self.channel_mult),
            context_dim=self.context_dim,
            output_head=True,
        )

    @property
    def appearance_config(self) -> UNetConfig:
        """R: the same network without an output head."""
        return replace(self.unet_config, output_head=False)

    @property
    def camera_control_config(self) -> CameraControlConfig:
        """C."""
        return CameraControlConfig(
            in_channels=self.in_channels,
            control_channels=self.control_channels,
            block_out_channels=self.block_out_channels,
            layers_per_block=self.num_res_blocks,
            attention_levels=self.attention_levels,
            num_heads=(self.num_heads,) * len(self.channel_mult),
            context_dim=self.context_dim,
            hint_channels=_HINT_CHANNELS,
        )

    @property
    def view_consistency_config(self) -> ViewConsistencyConfig:
        """V."""
        return ViewConsistencyConfig(
            block_out_channels=self.block_out_channels,
            layers_per_block=self.num_res_blocks,
            num_heads=(self.motion_heads,) * len(self.channel_mult),
            sites="all",
            clip_length=self.clip_length,
            max_clip_length=self.motion_max_length,
        )

    @property
    def vae_config(self) -> dict[str, Any]:
        """Keyword arguments of diffusers' `AutoencoderKL`."""
        levels = len(self.vae_channel_mult)
        return {
            "in_channels": self.vae_picture_channels,
            "out_channels": self.vae_picture_channels,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "block_out_channels": tuple(self.vae_channels * factor for factor in self.vae_channel_mult),
            "layers_per_block": self.vae_num_res_blocks,
            "latent_channels": self.vae_embed_dim,
            "norm_num_groups": 32,
            "sample_size": 512,
            "scaling_factor": self.scale_factor,
            "force_upcast": False,
        }


_REQUIRED_SETTINGS = {"use_spatial_transformer": True, "transformer_depth": 1, "legacy": False}
_SHARED_SIZES = (
    "in_channels",
    "model_channels",
    "channel_mult",
    "num_res_blocks",
    "attention_resolutions",
    "num_heads",
    "context_dim",
)
_REQUIRED_MOTION = {
    "num_transformer_block": 1,
    "attention_block_types": ["Temporal_Self", "Temporal_Self"],
    "temporal_position_encoding": True,
    "temporal_attention_dim_div": 1,
}


def official_keys(architecture: ReleaseArchitecture) -> dict[str, Home]:
    """Every key of an official checkpoint and where its tensor belongs, in no particular order.

    The ignored keys (`IGNORED_KEYS`) are not among them.
    """
    keys: dict[str, Home] = {name: Home("schedule", name) for name in SCHEDULE_TABLES}
    for key, name in _unet(architecture, output_head=True):
        keys[UNET_PREFIX + key] = Home("unet", name)
    for key, name in _unet(architecture, output_head=False):
        keys[APPEARANCE_PREFIX + key] = Home("appearance", name)
    for key, name in _camera_control(architecture):
        keys[CAMERA_CONTROL_PREFIX + key] = Home("camera_control", name)
    for key, name, layout in _vae(architecture):
        keys[VAE_PREFIX + key] = Home("vae", name, layout)
    for name in _text_encoder(architecture.text_layers):
        keys[TEXT_PREFIX + name] = Home("text_encoder", name)
    if architecture.motion:
        for key, name, layout in _view_consistency(architecture):
            keys[UNET_PREFIX + key] = Home("view_consistency", name, layout)
    return keys


Names = Iterator[tuple[str, str]]
"""Pairs of an official name and ours."""
NamesAndLayouts = Iterator[tuple[str, str, Layout]]

_BOTH = ("weight", "bias")
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


def _same(pairs: Names) -> NamesAndLayouts:
    for theirs, ours in pairs:
        yield theirs, ours, "same"


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


def _encoder(architecture: ReleaseArchitecture) -> Iterator[tuple[int, Names]]:
    """The input blocks in order: channels of each block's output and its names."""
    channels = architecture.model_channels
    yield channels, _both("input_blocks.0.0", "conv_in")
    index = 1
    for level, width in enumerate(architecture.block_out_channels):
        for j in range(architecture.num_res_blocks):
            names = [
                *_res_block(f"input_blocks.{index}.0", f"down_blocks.{level}.resnets.{j}", widens=channels != width)
            ]
            if architecture.attention_levels[level]:
                names += _transformer(f"input_blocks.{index}.1", f"down_blocks.{level}.attentions.{j}")
            channels = width
            yield channels, iter(names)
            index += 1
        if level + 1 < len(architecture.channel_mult):
            yield channels, _both(f"input_blocks.{index}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
            index += 1


def _encoder_and_middle(architecture: ReleaseArchitecture) -> Names:
    yield from _both("time_embed.0", "time_embedding.linear_1")
    yield from _both("time_embed.2", "time_embedding.linear_2")
    for _, names in _encoder(architecture):
        yield from names
    yield from _res_block("middle_block.0", "mid_block.resnets.0", widens=False)
    yield from _transformer("middle_block.1", "mid_block.attentions.0")
    yield from _res_block("middle_block.2", "mid_block.resnets.1", widens=False)


def _unet(architecture: ReleaseArchitecture, *, output_head: bool) -> Names:
    yield from _encoder_and_middle(architecture)
    levels, blocks = len(architecture.channel_mult), architecture.num_res_blocks + 1
    for i in range(levels):
        attention = architecture.attention_levels[levels - 1 - i]
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


def _camera_control(architecture: ReleaseArchitecture) -> Names:
    yield from _encoder_and_middle(architecture)
    between = 2 * (len(_HINT_CHANNELS) - 1)
    yield from _both("input_hint_block.0", "controlnet_cond_embedding.conv_in")
    for i in range(between):
        yield from _both(f"input_hint_block.{2 * (i + 1)}", f"controlnet_cond_embedding.blocks.{i}")
    yield from _both(f"input_hint_block.{2 * (between + 1)}", "controlnet_cond_embedding.conv_out")
    for k, _ in enumerate(_encoder(architecture)):
        yield from _both(f"zero_convs.{k}.0", f"controlnet_down_blocks.{k}")
    yield from _both("middle_block_out.0", "controlnet_mid_block")


def _view_consistency(architecture: ReleaseArchitecture) -> NamesAndLayouts:
    levels, blocks = len(architecture.channel_mult), architecture.num_res_blocks
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
            yield from _same(_both(*pair))
        for i in (0, 1):
            for x in "qkv":
                yield f"{block}.attention_blocks.{i}.to_{x}.weight", f"{ours}.attentions.{i}.to_{x}.weight", "same"
            table = f"{ours}.attentions.{i}.position_table"
            yield f"{block}.attention_blocks.{i}.pos_encoder.pe", table, "drop_batch"


_VAE_RES_BLOCK = ("norm1", "conv1", "norm2", "conv2")
_VAE_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def _vae_res_block(official: str, ours: str, *, widens: bool) -> NamesAndLayouts:
    for name in _VAE_RES_BLOCK:
        yield from _same(_both(f"{official}.{name}", f"{ours}.{name}"))
    if widens:
        yield from _same(_both(f"{official}.nin_shortcut", f"{ours}.conv_shortcut"))


def _vae_middle(half: str) -> NamesAndLayouts:
    official, ours = f"{half}.mid", f"{half}.mid_block"
    for i in (0, 1):
        yield from _vae_res_block(f"{official}.block_{i + 1}", f"{ours}.resnets.{i}", widens=False)
    yield from _same(_both(f"{official}.attn_1.norm", f"{ours}.attentions.0.group_norm"))
    for theirs, our in _VAE_ATTENTION.items():
        yield f"{official}.attn_1.{theirs}.weight", f"{ours}.attentions.0.{our}.weight", "conv_to_linear"
        yield f"{official}.attn_1.{theirs}.bias", f"{ours}.attentions.0.{our}.bias", "same"


def _vae(architecture: ReleaseArchitecture) -> NamesAndLayouts:
    widths = [architecture.vae_channels * factor for factor in architecture.vae_channel_mult]
    last, blocks = len(widths) - 1, architecture.vae_num_res_blocks
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
        yield from _same(_both(*pair))
    channels = architecture.vae_channels
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


def _motion_settings(unet: Mapping[str, Any], channel_mult: tuple[int, ...]) -> Mapping[str, Any] | None:
    additional = unet.get("unet_additional_kwargs") or {}
    if not additional.get("use_motion_module", False):
        return None
    owner = "unet.unet_additional_kwargs"
    resolutions = [2**level for level in range(len(channel_mult))]
    if sorted(_entry(additional, "motion_module_resolutions", owner)) != resolutions:
        raise _cannot_be(
            f"{owner}.motion_module_resolutions", additional["motion_module_resolutions"], f"every level, {resolutions}"
        )
    settings = _entry(additional, "motion_module_kwargs", owner)
    for name, value in _REQUIRED_MOTION.items():
        if settings.get(name, value) != value:
            raise _cannot_be(f"{owner}.motion_module_kwargs.{name}", settings[name], value)
    for name in ("num_attention_heads", "video_length", "temporal_position_encoding_max_len"):
        _entry(settings, name, f"{owner}.motion_module_kwargs")
    return settings


def _entry(settings: Mapping[str, Any], name: str, owner: str = "") -> Any:
    if name not in settings:
        where = f"{owner}.{name}" if owner else name
        raise InputError(
            f"The release's hyperparameters lack the entry {where}; give the complete configuration of the model"
        )
    return settings[name]


def _cannot_be(name: str, got: object, expected: object) -> InputError:
    return InputError(
        f"The release's hyperparameters have {name} = {got}, but DiffPortrait360 is built with {expected}; "
        "give a configuration of this architecture"
    )

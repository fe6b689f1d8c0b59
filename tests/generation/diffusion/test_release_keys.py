"""The rules for official keys against the complete lists of keys, shapes and diffusers names, at full size."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from dp360.generation import InputError
from dp360.generation.diffusion.camera_control import CameraControl
from dp360.generation.diffusion.release.checks import official_shape
from dp360.generation.diffusion.release.keys import IGNORED_KEYS, ReleaseArchitecture, official_keys
from dp360.generation.diffusion.unet import DenoisingUNet
from dp360.generation.diffusion.view_consistency import ViewConsistency

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
MODELS = {"back_head": ReleaseArchitecture(motion=False), "full_360": ReleaseArchitecture()}
THEIR_PARTS = {"reference_unet": "appearance", "controlnet": "camera_control", "motion": "view_consistency"}


def read(name: str) -> dict[str, Any]:
    file = REFERENCE / name
    if not file.is_file():
        sentence = f"no {name} at {REFERENCE}"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return json.loads(file.read_text())


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[ReleaseArchitecture, dict[str, tuple[int, ...]]]:
    """Sizes of an official model and the shapes of all its tensors."""
    keys = read("official_checkpoint_manifest.json")[request.param]["keys"]
    return MODELS[request.param], {key: tuple(entry["shape"]) for key, entry in keys.items()}


def test_the_rules_give_every_official_key_and_no_other(model: tuple[ReleaseArchitecture, dict]) -> None:
    architecture, shapes = model
    assert official_keys(architecture).keys() == shapes.keys() - IGNORED_KEYS


def test_names_are_those_of_diffusers() -> None:
    diffusers_names = read("official_to_diffusers_keymap.json")["map"]
    for key, home in official_keys(ReleaseArchitecture()).items():
        part, name = diffusers_names[key]
        assert home.part == THEIR_PARTS.get(part, part), key
        assert home.name == name or home.part == "view_consistency", key


def test_every_tensor_has_a_place_in_our_networks_and_every_place_a_tensor(model: tuple) -> None:
    architecture, shapes = model
    with torch.device("meta"):
        networks = {
            "unet": DenoisingUNet(**dataclasses.asdict(architecture.unet_config)),
            "appearance": DenoisingUNet(**dataclasses.asdict(architecture.appearance_config)),
            "camera_control": CameraControl(**dataclasses.asdict(architecture.camera_control_config)),
            "vae": AutoencoderKL(**architecture.vae_config),
        }
        if architecture.motion:
            networks["view_consistency"] = ViewConsistency(**dataclasses.asdict(architecture.view_consistency_config))
    empty = {(part, name): tuple(t.shape) for part, net in networks.items() for name, t in net.state_dict().items()}
    for key, home in official_keys(architecture).items():
        if home.part not in ("schedule", "text_encoder"):
            assert official_shape(empty.pop((home.part, home.name)), home.layout) == shapes[key], key
    assert not empty


def test_no_two_keys_share_a_place() -> None:
    homes = [(home.part, home.name) for home in official_keys(ReleaseArchitecture()).values()]
    assert len(set(homes)) == len(homes)


def hyperparameters(architecture: ReleaseArchitecture) -> dict[str, Any]:
    """The release's configuration form of an architecture."""
    network = {
        "in_channels": architecture.in_channels,
        "out_channels": architecture.out_channels,
        "model_channels": architecture.model_channels,
        "attention_resolutions": list(architecture.attention_resolutions),
        "num_res_blocks": architecture.num_res_blocks,
        "channel_mult": list(architecture.channel_mult),
        "num_heads": architecture.num_heads,
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": architecture.context_dim,
        "legacy": False,
    }
    motion = {
        "use_motion_module": True,
        "motion_module_resolutions": [2**level for level in range(len(architecture.channel_mult))],
        "motion_module_kwargs": {
            "num_attention_heads": architecture.motion_heads,
            "num_transformer_block": 1,
            "attention_block_types": ["Temporal_Self", "Temporal_Self"],
            "temporal_position_encoding_max_len": architecture.motion_max_length,
            "video_length": architecture.clip_length,
        },
    }
    sizes = {
        "double_z": True,
        "z_channels": architecture.vae_embed_dim,
        "in_channels": architecture.vae_picture_channels,
        "out_ch": architecture.vae_picture_channels,
        "ch": architecture.vae_channels,
        "ch_mult": list(architecture.vae_channel_mult),
        "num_res_blocks": architecture.vae_num_res_blocks,
        "attn_resolutions": [],
    }
    return {
        "linear_start": architecture.linear_start,
        "linear_end": architecture.linear_end,
        "timesteps": architecture.timesteps,
        "scale_factor": architecture.scale_factor,
        "unet": {**network, **({"unet_additional_kwargs": motion} if architecture.motion else {})},
        "reference": {**network, "hint_channels": 3},
        "control": {**network, "hint_channels": architecture.control_channels},
        "vae": {"embed_dim": architecture.vae_embed_dim, "ddconfig": sizes},
    }


ODD_SIZES = ReleaseArchitecture(
    model_channels=64,
    channel_mult=(1, 3, 3),
    num_res_blocks=1,
    attention_resolutions=(2,),
    num_heads=2,
    context_dim=24,
    control_channels=7,
    motion_heads=4,
    clip_length=5,
    motion_max_length=11,
    vae_channels=32,
    vae_channel_mult=(1, 2),
    vae_num_res_blocks=1,
    scale_factor=0.3,
    linear_start=0.001,
)


@pytest.mark.parametrize("architecture", [ReleaseArchitecture(), ODD_SIZES], ids=["released", "odd"])
def test_sizes_come_back_from_the_configuration_form(architecture: ReleaseArchitecture) -> None:
    assert ReleaseArchitecture.from_hyperparameters(hyperparameters(architecture)) == architecture


def test_without_temporal_modules_the_motion_sizes_stay_as_released() -> None:
    found = ReleaseArchitecture.from_hyperparameters(hyperparameters(dataclasses.replace(ODD_SIZES, motion=False)))
    assert not found.motion
    assert not any("motion_module" in key for key in official_keys(found))


def test_the_rules_fit_our_networks_at_odd_sizes() -> None:
    with torch.device("meta"):
        networks = {
            "unet": DenoisingUNet(**dataclasses.asdict(ODD_SIZES.unet_config)),
            "appearance": DenoisingUNet(**dataclasses.asdict(ODD_SIZES.appearance_config)),
            "camera_control": CameraControl(**dataclasses.asdict(ODD_SIZES.camera_control_config)),
            "view_consistency": ViewConsistency(**dataclasses.asdict(ODD_SIZES.view_consistency_config)),
            "vae": AutoencoderKL(**ODD_SIZES.vae_config),
        }
    ours = {(part, name) for part, network in networks.items() for name in network.state_dict()}
    homes = {(home.part, home.name) for home in official_keys(ODD_SIZES).values()}
    assert {place for place in homes if place[0] in networks} == ours


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        ("unet", "transformer_depth", 2),
        ("control", "model_channels", 96),
        ("reference", "num_heads", 3),
        ("unet", "use_spatial_transformer", False),
    ],
)
def test_another_architecture_is_refused_by_the_name_of_its_entry(owner: str, name: str, value: object) -> None:
    settings = hyperparameters(ODD_SIZES)
    settings[owner][name] = value
    with pytest.raises(InputError, match=rf"{owner}\.{name} = {value}"):
        ReleaseArchitecture.from_hyperparameters(settings)


def test_a_missing_entry_is_named() -> None:
    settings = hyperparameters(ODD_SIZES)
    del settings["unet"]["unet_additional_kwargs"]["motion_module_kwargs"]["video_length"]
    with pytest.raises(InputError, match=r"lack the entry unet\..*\.video_length"):
        ReleaseArchitecture.from_hyperparameters(settings)

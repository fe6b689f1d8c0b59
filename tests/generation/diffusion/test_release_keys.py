"""The rules for official keys against the complete lists of keys, shapes and diffusers names, at full size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from dp360.generation.diffusion.architectures import OFFICIAL, Architecture
from dp360.generation.diffusion.release.keys import IGNORED_KEYS, Home, official_keys

HAS_MOTION = {"back_head": False, "full_360": True}
THEIR_PARTS = {"reference_unet": "appearance", "controlnet": "camera_control", "motion": "view_consistency"}
_SMALL = {"block_out_channels": (64, 192, 192), "layers_per_block": 1, "num_heads": (2, 2, 2)}
_ATTENDS = {"attention_levels": (False, True, False), "context_dim": 24}
ODD_SIZES = replace(
    OFFICIAL,
    unet=replace(OFFICIAL.unet, **_SMALL, **_ATTENDS),
    camera_control=replace(OFFICIAL.camera_control, **_SMALL, **_ATTENDS, control_channels=7, hint_channels=(8, 8, 16)),
    view_consistency=replace(OFFICIAL.view_consistency, **_SMALL, clip_length=5, max_clip_length=11),
    autoencoder_options={
        **OFFICIAL.autoencoder_options,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
    },
)

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(params=HAS_MOTION)
def model(request: pytest.FixtureRequest, reference_json: Callable[[str], Any]) -> tuple[dict[str, Home], Shapes]:
    """Our keys of an official model, and the shapes of all its tensors."""
    entries = reference_json("official_checkpoint_manifest.json")[request.param]["keys"]
    keys = official_keys(OFFICIAL)
    if not HAS_MOTION[request.param]:
        keys = {key: home for key, home in keys.items() if home.part != "view_consistency"}
    return keys, {key: tuple(entry["shape"]) for key, entry in entries.items()}


def places(architecture: Architecture, homes: dict[str, Home]) -> Shapes:
    """Shape of every parameter of our networks that the keys are for, by part and name."""
    with torch.device("meta"):
        networks = architecture.components()
    parts = {home.part for home in homes.values()} - {"schedule", "text_encoder"}
    return {f"{part} {name}": tuple(t.shape) for part in parts for name, t in networks[part].state_dict().items()}


def test_the_rules_give_every_official_key_and_no_other(model: tuple[dict[str, Home], Shapes]) -> None:
    keys, shapes = model
    assert keys.keys() == shapes.keys() - IGNORED_KEYS


def test_names_are_those_of_diffusers(reference_json: Callable[[str], Any]) -> None:
    diffusers_names = reference_json("official_to_diffusers_keymap.json")["map"]
    for key, home in official_keys(OFFICIAL).items():
        part, name = diffusers_names[key]
        assert home.part == THEIR_PARTS.get(part, part), key
        assert home.name == name or home.part == "view_consistency", key


def test_every_tensor_has_a_place_in_our_networks_and_every_place_a_tensor(model: tuple[dict, Shapes]) -> None:
    keys, shapes = model
    empty = places(OFFICIAL, keys)
    for key, home in keys.items():
        if home.part not in ("schedule", "text_encoder"):
            assert empty.pop(f"{home.part} {home.name}") == home.shape and home.official_shape == shapes[key], key
    assert not empty


def test_no_two_keys_share_a_place() -> None:
    homes = [(home.part, home.name) for home in official_keys(OFFICIAL).values()]
    assert len(set(homes)) == len(homes)


def test_the_rules_fit_our_networks_at_odd_sizes() -> None:
    keys = official_keys(ODD_SIZES)
    found = {f"{home.part} {home.name}" for home in keys.values() if home.part not in ("schedule", "text_encoder")}
    assert found == places(ODD_SIZES, keys).keys()

"""What tests of the diffusion model share: the golden fixtures of the official classes, and a ball for a head."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from dp360.generation import look_at_origin
from dp360.generation.cameras import PANOHEAD_FOCAL_NORMALISED
from dp360.generation.diffusion.architectures import KL_F8, OFFICIAL, Architecture
from dp360.generation.diffusion.camera_control import CameraControlConfig
from dp360.generation.diffusion.unet import UNetConfig
from dp360.generation.diffusion.view_consistency import ViewConsistencyConfig
from dp360.generation.head_model import HeadFit
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior
from dp360.generation.prior.labels.portrait_labels import PortraitLabels
from dp360.generation.prior.texture.atlas import ATLAS_HEIGHT, ATLAS_WIDTH, MATERIAL_SKIN, AtlasMesh
from dp360.generation.prior.texture.prior_texture import PriorTexture

_REFERENCE = Path(__file__).parents[4] / "shared" / "reference"


@dataclass(frozen=True)
class ParitySet:
    """One fixture set: `back` (F) or `video` (the 360 model)."""

    config: dict
    """Sizes and recorded figures."""
    weights_path: Path
    """State dict under official keys, float8 values to be used as float32."""
    inputs: dict[str, Tensor]
    """Inputs by name."""
    outputs: dict[str, Tensor]
    """What the official classes answered."""

    @property
    def architecture(self) -> Architecture:
        """The sizes in the release's own configuration form: constructor arguments of its networks."""
        params = self.config["hyperparameters"]
        unet, autoencoder = params["unet"], params["vae"]["ddconfig"]
        widths = tuple(unet["model_channels"] * factor for factor in unet["channel_mult"])
        sizes = {
            "block_out_channels": widths,
            "layers_per_block": unet["num_res_blocks"],
            "attention_levels": tuple(2**level in unet["attention_resolutions"] for level in range(len(widths))),
            "num_heads": (unet["num_heads"],) * len(widths),
            "context_dim": unet["context_dim"],
        }
        motion = unet.get("unet_additional_kwargs", {}).get("motion_module_kwargs", {})
        official = OFFICIAL.view_consistency
        levels = len(autoencoder["ch_mult"])
        return Architecture(
            UNetConfig(**sizes),
            CameraControlConfig(**sizes),
            ViewConsistencyConfig(
                widths,
                unet["num_res_blocks"],
                (motion.get("num_attention_heads", 8),) * len(widths),
                clip_length=motion.get("video_length", official.clip_length),
                max_clip_length=motion.get("temporal_position_encoding_max_len", official.max_clip_length),
            ),
            "AutoencoderKL",
            {
                **KL_F8,
                "down_block_types": KL_F8["down_block_types"][:levels],
                "up_block_types": KL_F8["up_block_types"][:levels],
                "block_out_channels": tuple(autoencoder["ch"] * factor for factor in autoencoder["ch_mult"]),
                "layers_per_block": autoencoder["num_res_blocks"],
                "scaling_factor": params["scale_factor"],
            },
        )


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Folder of the fixtures: `DP360_PARITY`, or beside the checkout."""
    folder = Path(os.environ.get("DP360_PARITY", _REFERENCE / "parity"))
    if not (folder / "back_config.json").is_file():
        missing_reference(f"no golden fixtures at {folder}; set DP360_PARITY to their folder")
    return folder


@pytest.fixture(scope="session")
def reference_json() -> Callable[[str], dict[str, Any]]:
    """Reads a file of reference data by its name."""

    def read(name: str) -> dict[str, Any]:
        if not (_REFERENCE / name).is_file():
            missing_reference(f"no {name} at {_REFERENCE}")
        return json.loads((_REFERENCE / name).read_text())

    return read


def missing_reference(sentence: str) -> NoReturn:
    """Reference data lie beside our own checkouts only: what needs them is skipped elsewhere.

    `DP360_REQUIRE_REFERENCES=1`, which `.ci/run` sets, makes their absence a failure.
    """
    if os.environ.get("DP360_REQUIRE_REFERENCES") == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture(scope="session")
def parity_set(parity_dir: Path) -> Callable[[str], ParitySet]:
    """Loads a set by its name, once per session."""
    loaded: dict[str, ParitySet] = {}

    def load(name: str) -> ParitySet:
        if name not in loaded:
            loaded[name] = ParitySet(
                json.loads((parity_dir / f"{name}_config.json").read_text()),
                parity_dir / f"{name}_weights.safetensors",
                load_file(parity_dir / f"{name}_inputs.safetensors"),
                load_file(parity_dir / f"{name}_outputs.safetensors"),
            )
        return loaded[name]

    return load


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny networks lose more to waiting threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def ball_prior() -> Callable[..., HeadPrior]:
    """A ball of 0.22 world units: light and seen in front, dark and made up behind, with fine meridians if wanted."""
    rows, columns = 48, 96
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rows), np.linspace(0, 2 * np.pi, columns), indexing="ij")
    normals = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], -1).reshape(-1, 3)
    uv = np.stack([phi / (2 * np.pi) * (ATLAS_WIDTH - 1) + 0.5, theta / np.pi * (ATLAS_HEIGHT - 1) + 0.5], -1)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    right, below = corner + 1, corner + columns
    faces = np.concatenate([np.stack([corner, below, right], 1), np.stack([right, below, below + 1], 1)])
    material, parts = np.full(len(faces), MATERIAL_SKIN, np.uint8), np.full(len(normals), -1)
    body = np.eye(4), np.zeros(1)  # without a bust
    mesh = AtlasMesh(0.22 * normals, normals, uv.reshape(-1, 2), faces, material, parts, *body)
    angle = (np.arange(ATLAS_WIDTH) + 0.5) / ATLAS_WIDTH * 2 * np.pi
    lit = 0.5 + 0.5 * np.cos(angle)
    nothing = np.zeros((4, 4), bool)

    def ball(span_rgb: tuple[int, int, int], meridians: float = 0.0) -> HeadPrior:
        colour: Float[np.ndarray, "w 3"]
        colour = np.array([60, 40, 30]) + (lit + meridians * np.cos(90 * angle))[:, None] * np.array(span_rgb)
        rgb = np.broadcast_to(colour.clip(0, 255).astype(np.uint8), (ATLAS_HEIGHT, ATLAS_WIDTH, 3)).copy()
        confidence = np.broadcast_to((lit > 0.5).astype(np.float32), (ATLAS_HEIGHT, ATLAS_WIDTH)).copy()
        return HeadPrior(
            mesh,
            PriorTexture(rgb, rgb, confidence),
            PortraitLabels(
                np.zeros((4, 4, 3)), nothing, nothing, nothing, *(np.zeros(s, np.float32) for s in ((4, 4), (4, 4, 11)))
            ),
            "ball-1 (sha256 00)",
        )

    return ball


@pytest.fixture(scope="session")
def portrait_of() -> Callable[..., Portrait]:
    """A prior's head from a camera nearly in front, as a prepared portrait."""

    def portrait(prior: HeadPrior, size: int = 96, *, focal_factor: float = 1.0) -> Portrait:
        camera = look_at_origin([0.05], [0.02], size_px=size, focal_normalised=PANOHEAD_FOCAL_NORMALISED / focal_factor)
        seen = prior.render(camera)
        return Portrait(
            rgb=(seen.rgb[0] * 255).astype(np.uint8),
            alpha_unit=seen.alpha[0],
            foreground_unit=seen.rgb[0].clip(0, 1),
            inside=np.ones((size, size), bool),
            landmarks_px=None,
            head=HeadFit(np.zeros(1), np.zeros(1), prior.mesh.vertices_world, camera, np.zeros(1)),
            crop="wide" if focal_factor > 1 else "standard",
            source_name="ball.png",
            source_sha256="ab" * 32,
            notices=(),
        )

    return portrait

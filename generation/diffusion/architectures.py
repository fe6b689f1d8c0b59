"""The two sizes of the one architecture: the official release's, and the compact one that we train ourselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler

from .camera_control import CameraControl, CameraControlConfig
from .null_context import NullContext
from .patch_autoencoder import PatchAutoencoder
from .release.schedule import BETA_END, BETA_START
from .unet import DenoisingUNet, UNetConfig
from .view_consistency import ViewConsistency, ViewConsistencyConfig

AutoencoderKind = Literal["AutoencoderKL", "PatchAutoencoder"]
_AUTOENCODERS: dict[AutoencoderKind, Any] = {"AutoencoderKL": AutoencoderKL, "PatchAutoencoder": PatchAutoencoder}


@dataclass(frozen=True)
class Architecture:
    """Sizes of all networks of a `DiffPortrait360Pipeline`, and which of them have weights of their own."""

    unet: UNetConfig
    """The denoising network."""
    camera_control: CameraControlConfig
    """C."""
    view_consistency: ViewConsistencyConfig
    """V."""
    autoencoder: AutoencoderKind
    """Class of the autoencoder: diffusers', or our own for the compact size."""
    autoencoder_options: dict[str, Any]
    """Its constructor's arguments."""
    own_appearance: bool = True
    """Whether R has weights of its own, or is the denoising network in another mode."""
    own_back: bool = True
    """Whether F has weights of its own, or is the other networks in another mode."""
    context_tokens: int | None = 77
    """Tokens of the constant context; None where there is no cross-attention."""
    scheduler: dict[str, Any] = field(default_factory=dict)
    """Options of the default scheduler that differ from Stable Diffusion's."""
    reference_timestep: int | None = None
    """The timestep R always sees; None: the current one."""
    start_shortcut: bool = False
    """Whether the networks predict the difference to the start view's latent."""
    text_layers: int = 12
    """Layers of the CLIP text encoder in official checkpoints; its other sizes are read off its tensors."""

    def components(self) -> dict[str, Any]:
        """Freshly initialised networks and the default scheduler, by their names in the pipeline.

        Under `torch.device("meta")` the networks have shapes only.
        """
        reader = {**asdict(self.unet), "output_head": False}
        context_dim = self.unet.context_dim
        with torch.device("cpu"):  # a scheduler's tables are numbers, on every device
            scheduler = default_scheduler(**self.scheduler)
        return {
            "unet": DenoisingUNet(**asdict(self.unet)),
            "appearance": DenoisingUNet(**reader) if self.own_appearance else None,
            "camera_control": CameraControl(**asdict(self.camera_control)),
            "view_consistency": ViewConsistency(**asdict(self.view_consistency)),
            "back_unet": None,
            "back_appearance": DenoisingUNet(**reader) if self.own_back else None,
            "back_camera_control": CameraControl(**asdict(self.camera_control)) if self.own_back else None,
            "context": NullContext(self.context_tokens, context_dim) if self.context_tokens and context_dim else None,
            "vae": _AUTOENCODERS[self.autoencoder](**self.autoencoder_options),
            "scheduler": scheduler,
        }


def default_scheduler(**options: Any) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ of second order on the exact tables of Stable Diffusion (arXiv 2211.01095), few steps.

    Noise levels are spaced as by Karras et al. (arXiv 2206.00364, Eq. 5) from that of t = 999 down, where start views
    are noised to: at 16 steps that is nearer to 250 steps of DDIM than uniform timesteps on every model tried
    (`tests/benchmarks/bench_samplers.py`).
    """
    return DPMSolverMultistepScheduler(
        **{
            "beta_start": BETA_START,
            "beta_end": BETA_END,
            "beta_schedule": "scaled_linear",
            "algorithm_type": "dpmsolver++",
            "solver_order": 2,
            "timestep_spacing": "trailing",
            "lower_order_final": True,
            "use_karras_sigmas": True,
            **options,
        }
    )


KL_F8 = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
    "sample_size": 512,
    "force_upcast": False,
}
"""Stable Diffusion 1.5's autoencoder."""

OFFICIAL = Architecture(UNetConfig(), CameraControlConfig(), ViewConsistencyConfig(), "AutoencoderKL", KL_F8)
"""DiffPortrait360 as released, 512 px."""

_COMPACT_WIDTHS, _COMPACT_HEADS = (64, 128, 160), (2, 4, 5)

COMPACT = Architecture(
    unet=UNetConfig(
        in_channels=16,
        out_channels=16,
        block_out_channels=_COMPACT_WIDTHS,
        layers_per_block=1,
        attention_levels=(True, True, True),
        num_heads=_COMPACT_HEADS,
        context_dim=None,
        num_modes=3,
    ),
    camera_control=CameraControlConfig(
        in_channels=16,
        control_channels=7,
        block_out_channels=_COMPACT_WIDTHS,
        layers_per_block=1,
        attention_levels=(False, True, True),
        num_heads=_COMPACT_HEADS,
        context_dim=None,
        hint_channels=(16, 32, 64, 96),
        sees_latent=False,
    ),
    view_consistency=ViewConsistencyConfig(
        block_out_channels=_COMPACT_WIDTHS,
        layers_per_block=1,
        num_heads=_COMPACT_HEADS,
        sites="last",
        after_upsample=False,
    ),
    autoencoder="PatchAutoencoder",
    autoencoder_options={"latent_channels": 16},
    own_appearance=False,
    own_back=False,
    context_tokens=None,
    scheduler={"prediction_type": "sample", "rescale_betas_zero_snr": True, "use_karras_sigmas": False},
    reference_timestep=0,
    start_shortcut=True,
)
"""A fiftieth of the size for 256 px on a CPU: 8 times smaller latents of 16 channels, one layer per level, no text.

It predicts the clean latent as a change of the start view's (the geometric prior), so that an untrained network already
draws the prior, and reads its references once per generation.
"""

"""The methods that nerfstudio finds: `ns-train dp360-splat --image face.png`, or `--data DIR` for existing views."""

from __future__ import annotations

from nerfstudio.configs.base_config import LoggingConfig, MachineConfig, ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from dp360.reconstruction.nerfstudio_data import (
    HeadImageDatamanagerConfig,
    HeadRayDatamanagerConfig,
    head_dataparser_config,
)
from dp360.reconstruction.nerfstudio_nerf import HeadNerfModelConfig
from dp360.reconstruction.nerfstudio_splat import FusedAdamConfig, HeadSplatModelConfig
from dp360.reconstruction.splat_fit import VARIABLES, LearningRates

from .options import HeadOptions, Quality
from .portrait_trainer import NerfTrainerConfig, SplatTrainerConfig

_HOST = "127.0.0.1"
"""The viewer is for this machine alone unless --viewer.websocket-host says otherwise, like dp360 view."""


def _splat_method(name: str, description: str, quality: Quality) -> MethodSpecification:
    """The splat method at one position of the dial."""
    return MethodSpecification(
        config=SplatTrainerConfig(
            method_name=name,
            head=HeadOptions(quality=quality),
            steps_per_save=500,
            pipeline=VanillaPipelineConfig(
                datamanager=HeadImageDatamanagerConfig(
                    dataparser=head_dataparser_config(scene_scale=0.5),
                    cache_images="gpu",  # "the model's device": right on a CPU too
                    cache_images_type="uint8",
                ),
                model=HeadSplatModelConfig(),
            ),
            # The model lowers these step sizes itself, as `fit_splats` does; hence no schedulers.
            optimizers={
                name: {"optimizer": FusedAdamConfig(lr=getattr(LearningRates(), name)), "scheduler": None}
                for name in VARIABLES
            },
            viewer=ViewerConfig(websocket_host=_HOST, quit_on_train_completion=True),
            logging=LoggingConfig(profiler="none"),
            machine=MachineConfig(seed=0),  # as the `dp360` command
            vis="viewer",
        ),
        description=description,
    )


dp360_splat = _splat_method(
    "dp360-splat", "One portrait (--image) to Gaussian splats of the whole head; runs without a GPU.", "standard"
)
dp360_splat_fast = _splat_method(
    "dp360-splat-fast",
    "dp360-splat --quality fast: about a quarter of the time; fewer and smaller views, fewer Gaussians, plain colours.",
    "fast",
)
dp360_splat_big = _splat_method(
    "dp360-splat-big",
    "dp360-splat --quality high: up to 150,000 Gaussians whose colours change with the view; for a GPU or patience.",
    "high",
)

dp360_nerf = MethodSpecification(
    config=NerfTrainerConfig(
        method_name="dp360-nerf",
        steps_per_save=500,
        pipeline=VanillaPipelineConfig(
            datamanager=HeadRayDatamanagerConfig(
                dataparser=head_dataparser_config(scene_scale=0.5), train_num_rays_per_batch=1024
            ),
            model=HeadNerfModelConfig(eval_num_rays_per_chunk=1 << 13),
        ),
        optimizers={
            name: {
                "optimizer": AdamOptimizerConfig(lr=1e-2, eps=1e-15),
                "scheduler": ExponentialDecaySchedulerConfig(lr_final=1e-3, max_steps=1000),
            }
            for name in ("proposal_networks", "fields")
        },
        viewer=ViewerConfig(websocket_host=_HOST, num_rays_per_chunk=1 << 13, quit_on_train_completion=True),
        machine=MachineConfig(seed=0),  # as the `dp360` command
        logging=LoggingConfig(profiler="none"),
        vis="viewer",
    ),
    description="One portrait (--image) to a radiance field of the whole head; runs without a GPU, but slowly.",
)

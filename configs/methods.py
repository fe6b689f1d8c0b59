"""The methods that nerfstudio finds: `ns-train dp360-splat --image face.png`, or `--data DIR` for existing views."""

from __future__ import annotations

from nerfstudio.configs.base_config import LoggingConfig, MachineConfig, ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from dp360.reconstruction.fit import LearningRates
from dp360.reconstruction.nerfstudio_data import (
    HeadImageDatamanagerConfig,
    HeadRayDatamanagerConfig,
    head_dataparser_config,
)
from dp360.reconstruction.nerfstudio_nerf import HeadNerfModelConfig
from dp360.reconstruction.nerfstudio_splat import VARIABLES, FusedAdamConfig, HeadSplatModelConfig

from .portrait_trainer import NerfTrainerConfig, SplatTrainerConfig

dp360_splat = MethodSpecification(
    config=SplatTrainerConfig(
        method_name="dp360-splat",
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
        viewer=ViewerConfig(quit_on_train_completion=True),
        machine=MachineConfig(seed=0),  # as the `dp360` command
        logging=LoggingConfig(profiler="none"),
        vis="viewer",
    ),
    description="One portrait (--image) to Gaussian splats of the whole head; runs without a GPU.",
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
        viewer=ViewerConfig(num_rays_per_chunk=1 << 13, quit_on_train_completion=True),
        machine=MachineConfig(seed=0),  # as the `dp360` command
        logging=LoggingConfig(profiler="none"),
        vis="viewer",
    ),
    description="One portrait (--image) to a radiance field of the whole head; runs without a GPU, but slowly.",
)

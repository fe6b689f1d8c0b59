"""The methods that nerfstudio finds: `ns-train dp360-splat --image face.png`, or `--data DIR` for existing views."""

from __future__ import annotations

from nerfstudio.configs.base_config import LoggingConfig, MachineConfig, ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from dp360.reconstruction.densify import DensifyConfig
from dp360.reconstruction.fit import SplatFitConfig
from dp360.reconstruction.nerfstudio_data import (
    HeadImageDatamanagerConfig,
    HeadRayDatamanagerConfig,
    head_dataparser_config,
)
from dp360.reconstruction.nerfstudio_nerf import HeadNerfModelConfig
from dp360.reconstruction.nerfstudio_splat import VARIABLES, FusedAdamConfig, HeadSplatModelConfig

from .portrait_trainer import NerfTrainerConfig, SplatTrainerConfig
from .presets import Quality


def _splat_method(name: str, description: str, quality: Quality, fit: SplatFitConfig) -> MethodSpecification:
    """One size of the splat method; every value can still be overridden from the command line."""
    return MethodSpecification(
        config=SplatTrainerConfig(
            method_name=name,
            quality=quality,
            steps_per_save=500,
            pipeline=VanillaPipelineConfig(
                datamanager=HeadImageDatamanagerConfig(
                    dataparser=head_dataparser_config(scene_scale=0.5),
                    cache_images="gpu",  # "the model's device": right on a CPU too
                    cache_images_type="uint8",
                ),
                model=HeadSplatModelConfig(fit=fit),
            ),
            # The model lowers these step sizes itself, as `fit_splats` does; hence no schedulers.
            optimizers={
                name: {"optimizer": FusedAdamConfig(lr=getattr(fit.learning_rates, name)), "scheduler": None}
                for name in VARIABLES
            },
            viewer=ViewerConfig(quit_on_train_completion=True),
            machine=MachineConfig(seed=0),  # as the `dp360` command
            logging=LoggingConfig(profiler="none"),
            vis="viewer",
        ),
        description=description,
    )


dp360_splat = _splat_method(
    "dp360-splat",
    "One portrait (--image) to Gaussian splats of the whole head; runs without a GPU.",
    "standard",
    SplatFitConfig(),
)

dp360_splat_fast = _splat_method(
    "dp360-splat-fast",
    "As dp360-splat in about a quarter of the time: fewer and smaller views, fewer Gaussians, plain colours.",
    "fast",
    SplatFitConfig(start_count=15_000, coarse_fraction=0.7, sh_degree=0, densify=DensifyConfig(max_count=25_000)),
)

dp360_splat_big = _splat_method(
    "dp360-splat-big",
    "As dp360-splat with up to 150,000 Gaussians whose colours change with the view; for a GPU or patience.",
    "high",
    SplatFitConfig(start_count=60_000, sh_degree=3, densify=DensifyConfig(max_count=150_000, grow_gradient=1e-4)),
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

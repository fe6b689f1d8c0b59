"""The stages of the diffusion model as the command line asks for them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from dp360.generation import InputError
from dp360.generation.diffusion.compact import load_pipeline
from dp360.generation.diffusion.patch_autoencoder import PatchAutoencoder
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline
from dp360.generation.training.diffusion.autoencoder import (
    AutoencoderTrainConfig,
    evaluate_autoencoder,
    train_autoencoder,
)
from dp360.generation.training.diffusion.head_pictures import HeadSource
from dp360.generation.training.diffusion.sources import mixed_source, open_source
from dp360.generation.training.diffusion.stages import StageConfig, stage_recipe
from dp360.generation.training.diffusion.start import official_pipeline, reads_as_stable_diffusion, take_motion_adapter
from dp360.generation.training.diffusion.synthetic_heads import synthetic_heads
from dp360.generation.training.diffusion.trainer import (
    PIPELINE,
    compact_pipeline,
    open_journal,
    save_pipeline,
    train_stage,
)
from dp360.generation.training.loop import LoopConfig

from .console import Display
from .device import choose_device
from .train import TrainAutoencoderCommand, TrainConsistencyCommand, TrainStageCommand, TrainViewsCommand

_COMPOSED_HEADS = 100_000
"""More composed heads than any run asks for; each is made when it is asked for."""


def train_autoencoder_stage(command: TrainAutoencoderCommand, display: Display) -> Path:
    """Train the autoencoder; the pipeline folder with it and fresh networks."""
    source, validation = _sources(command)
    crop_px = min(AutoencoderTrainConfig.crop_px, command.size_px)
    config = AutoencoderTrainConfig(picture_px=command.size_px, crop_px=crop_px)
    config = replace(config, loop=_loop(config.loop, command))

    def told(step: int, network: nn.Module, loss: float) -> None:
        assert isinstance(network, PatchAutoencoder)
        line = f"step {step}: loss {loss:.5f}"
        if validation is not None:
            figures = evaluate_autoencoder(network, validation, command.size_px)
            write("validation", step, figures)
            line += f"; PSNR {figures['psnr']:.2f} dB, within heads {figures['psnr_head']:.2f} dB"
        display.notify(line)

    with open_journal(command.output) as write:
        trained = train_autoencoder(
            source, config, command.output, track=display.track, on_evaluation=told, on_step=partial(write, "train")
        )
    return save_pipeline(compact_pipeline(trained, seed=command.seed), command.output / PIPELINE)


def train_view_stage(command: TrainStageCommand, display: Display) -> Path:
    """Train a stage on views; its pipeline folder."""
    config = stage_config(command)
    pipeline = _start(command)
    if isinstance(command, TrainConsistencyCommand) and command.motion is not None:
        if pipeline.view_consistency is None:
            raise InputError(f"Cannot start from --motion {command.motion}: the pipeline in {command.start} has no V")
        take_motion_adapter(pipeline.view_consistency, command.motion)
    source, validation = _sources(command)
    return train_stage(
        pipeline, source, config, command.output, validation=validation, track=display.track, notify=display.notify
    )


def stage_config(command: TrainStageCommand) -> StageConfig:
    """The recipe with what the command changes in it."""
    config = stage_recipe(command.size, command.stage, control=command.control)
    clips = {"size_px": command.size_px, "order": command.order, "clip_length": command.clip_length}
    augment, objective = config.augment, config.objective
    if command.drop_conditions is not None:
        augment = replace(augment, drop_references=command.drop_conditions, drop_control=0.0)
    if command.dual_share is not None:
        objective = replace(objective, dual_share=command.dual_share)
    changed = {"back_share": command.back_share, "gradient_checkpointing": command.gradient_checkpointing}
    return replace(
        config,
        loop=_loop(config.loop, command),
        clips=replace(config.clips, **_given(clips)),
        augment=augment,
        objective=objective,
        compile=command.compile,
        **_given(changed),
    )


def _given(changes: dict[str, object]) -> dict:
    return {name: value for name, value in changes.items() if value is not None}


def _loop(loop: LoopConfig, command: TrainViewsCommand) -> LoopConfig:
    changes = {name: getattr(command, name) for name in ("steps", "batch_size", "learning_rate", "save_every")}
    return replace(
        loop,
        **_given(changes),
        accumulation=command.accumulation,
        mixed_precision=command.mixed_precision,
        minutes=command.minutes,
        seed=command.seed,
        device=choose_device(command.device),
    )


def _sources(command: TrainViewsCommand) -> tuple[HeadSource, HeadSource | None]:
    opened = [_open(folder, command) for folder in command.data]
    if not opened:
        raise InputError("Nothing to train on: --data expects at least one folder of heads")
    source = opened[0] if len(opened) == 1 else mixed_source(opened)
    return source, None if command.validation is None else open_source(command.validation)


def _open(folder: Path, command: TrainViewsCommand) -> HeadSource:
    """Heads in a folder, or composed on the fly where it holds the head assets."""
    if (folder / "makehuman").is_dir():
        return synthetic_heads(folder, _COMPOSED_HEADS, seed=command.seed, cache_heads=command.cache_heads)
    return open_source(folder, cache_heads=command.cache_heads)


def _start(command: TrainStageCommand) -> DiffPortrait360Pipeline:
    folder = command.start
    if not folder.is_dir():
        raise InputError(
            f"No folder at {folder}: --start expects the pipeline folder of the stage before (dp360 train autoencoder "
            "makes the first), or Stable Diffusion 1.5 for the official size"
        )
    if command.size == "official" and reads_as_stable_diffusion(folder):
        return official_pipeline(folder)
    return load_pipeline(folder, torch.float32)

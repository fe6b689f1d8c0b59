"""Running a stage: clips from a source into the loop, figures and sheets out, a pipeline folder at the end.

    pipeline = compact_pipeline(trained_autoencoder)
    train_stage(pipeline, heads, stage_recipe("compact", "appearance"), folder, validation=other_heads)

A stage leaves in its folder: checkpoint.pt and the one before it, journal.jsonl (and TensorBoard's files where it is
installed), sheet_NNNNNNN.jpg of every validation, and pipeline/, a diffusers folder with the averaged weights that the
next stage starts from and that views can be drawn with.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...diffusion.architectures import COMPACT, Architecture
from ...diffusion.pipeline import DiffPortrait360Pipeline
from ...errors import InputError
from ...files import directory_written_atomically, write_bytes_atomically, write_errors_for_people
from ...progress import Track, silent
from ..loop import Batch, stacked, train_model
from .augment import augment_clip
from .autoencoder import TrainedAutoencoder
from .clips import sample_clip
from .head_pictures import HeadSource
from .stages import StageConfig, stage_objective
from .validation import validate

PIPELINE, JOURNAL = "pipeline", "journal.jsonl"
_STAGE_SEEDS = {"appearance": 1, "camera": 2, "consistency": 3, "back-view": 4}


def compact_pipeline(
    autoencoder: TrainedAutoencoder, *, seed: int = 0, architecture: Architecture = COMPACT
) -> DiffPortrait360Pipeline:
    """A compact pipeline with fresh networks round a trained autoencoder.

    Args:
        autoencoder: with the statistics of its latents.
        seed: of the fresh weights.
        architecture: sizes; the latents' channels must be the autoencoder's.
    """
    torch.manual_seed(seed)
    components = {**architecture.components(), "vae": autoencoder.network}
    unet = components["unet"]
    if architecture.start_shortcut and isinstance(unet, nn.Module):
        for parameter in unet.get_submodule("conv_out").parameters():  # at first the start view is drawn as it is
            nn.init.zeros_(parameter)
    return DiffPortrait360Pipeline(
        **components,
        reference_timestep=architecture.reference_timestep,
        start_shortcut=architecture.start_shortcut,
        latents_mean=autoencoder.latents_mean,
        latents_std=autoencoder.latents_std,
    )


def train_stage(
    pipeline: DiffPortrait360Pipeline,
    source: HeadSource,
    config: StageConfig,
    folder: Path,
    *,
    validation: HeadSource | None = None,
    track: Track = silent,
    notify: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train a stage, or go on where `folder` has a checkpoint.

    Args:
        pipeline: what training starts from; it is changed in place.
        validation: heads to draw at checkpoints; None draws nothing.
        notify: told one line at each checkpoint.

    Returns:
        The pipeline folder.

    Raises:
        InputError: a source without what the clips want, checkpoints of other networks, or a loss that is no number.
    """
    objective = stage_objective(pipeline, config)
    if config.compile:
        objective.unet.compile()
    channels = objective.camera_control.config["control_channels"]
    if channels != config.clips.control_channels:
        raise InputError(
            f"The networks want control pictures of {channels} channels; expected another control than "
            f"{config.clips.control}, which has {config.clips.control_channels}"
        )
    sees_others = config.validation.sampling.view_consistency and objective.view_consistency is not None
    shown = replace(config.validation, sampling=replace(config.validation.sampling, view_consistency=sees_others))

    def evaluated(step: int, _: nn.Module, loss: float) -> None:
        line = f"step {step}: loss {loss:.4f}"
        if validation is not None:
            with torch.random.fork_rng():
                figures, sheet = validate(pipeline, validation, config.clips, shown)
            jpeg = io.BytesIO()
            sheet.save(jpeg, "JPEG", quality=90)
            write_bytes_atomically(folder / f"sheet_{step:07d}.jpg", jpeg.getvalue())
            write("validation", step, figures)
            line += "; " + ", ".join(f"{name} {value:.2f} dB" for name, value in figures.items())
        notify(line)

    with open_journal(folder) as write:
        train_model(
            objective,
            lambda number: clips_of(source, config, number),
            lambda model, batch: model(batch),
            config.loop,
            folder,
            track=track,
            on_evaluation=evaluated,
            on_step=partial(write, "train"),
        )
    pipeline.register_to_config(picture_px=config.clips.size_px)
    return save_pipeline(pipeline, folder / PIPELINE)


def clips_of(source: HeadSource, config: StageConfig, number: int) -> Batch:
    """The micro-batch of a number: clips of random heads, varied, with the names that the objective expects."""
    rng = np.random.default_rng([config.loop.seed, _STAGE_SEEDS[config.stage], number])
    is_back = config.clips.target == "back" or rng.random() < config.back_share
    sampled = replace(config.clips, target="back" if is_back else "views")
    clips: list[Batch] = []
    for _ in range(config.loop.batch_size):
        clip = sample_clip(source, int(rng.integers(len(source))), sampled, rng)
        varied, keeps = augment_clip(clip, config.augment, rng)
        names = ("views", "alpha", "control", "start", "front", "back")
        pictures: dict[str, Tensor] = {name: getattr(varied, name).float() for name in names}
        clips.append({**pictures, "keeps": torch.tensor(keeps), "is_back": torch.tensor(is_back)})
    return stacked(clips)


def save_pipeline(pipeline: DiffPortrait360Pipeline, folder: Path) -> Path:
    """Write a pipeline folder, whole or not at all."""
    with directory_written_atomically(folder) as temporary:
        pipeline.save_pretrained(temporary)
    return folder


@contextlib.contextmanager
def open_journal(folder: Path) -> Iterator[Callable[[Literal["train", "validation"], int, dict[str, float]], None]]:
    """What keeps the figures of a step, or of heads that are not learned from, behind those that `folder` has.

    A line of JSON for each step, and TensorBoard's files where it is installed.
    """
    with write_errors_for_people(folder):
        folder.mkdir(parents=True, exist_ok=True)
    board = None
    with contextlib.suppress(ImportError):
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(folder / "tensorboard"))
    with (folder / JOURNAL).open("a", encoding="utf-8") as file, contextlib.closing(board or file):

        def write(group: Literal["train", "validation"], step: int, figures: dict[str, float]) -> None:
            rounded = {f"{group}/{name}": float(f"{value:.6g}") for name, value in figures.items()}
            file.write(json.dumps({"step": step, **rounded}) + "\n")
            file.flush()
            if board is not None:
                for name, value in figures.items():
                    board.add_scalar(f"{group}/{name}", value, step)

        yield write

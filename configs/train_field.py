"""`dp360 train field`: the stages of the networks of head fields."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from dp360.generation.networks import LoadedNetwork
from dp360.generation.prior.field.mean_network import FIELD_MEAN, FieldMeanNet, estimate_field
from dp360.generation.training.field_figures import measure_fields
from dp360.generation.training.field_samples import FieldSamples, field_paths
from dp360.generation.training.field_training import FIELD_MEAN_LOOP, train_field_mean
from dp360.generation.training.loop import LoopConfig

from .console import Display
from .device import choose_device
from .train import TrainFieldCommand


def train_field_stage(command: TrainFieldCommand, display: Display) -> Path:
    """Train a stage, or go on, and tell its figures at checkpoints; the weights.

    Raises:
        InputError: no files of fields, or checkpoints of something else.
    """
    paths = field_paths(command.data, "train")
    samples = FieldSamples.read(list(display.track(paths, total=len(paths), description="Reading fields")))
    display.notify(f"{len(samples)} portraits to learn from, in {len(paths)} files")
    unseen = None
    if command.validation > 0 and any(command.data.glob("fields_validation_*.npz")):
        unseen = FieldSamples.read(field_paths(command.data, "validation"), most=command.validation)

    def told(step: int, network: nn.Module, loss: float) -> None:
        line = f"step {step}: loss {loss:.4f}"
        if unseen is not None:
            assert isinstance(network, FieldMeanNet)
            line += f"; unseen cells: {_figures(copy.deepcopy(network).cpu(), unseen)}"
        display.notify(line)

    loop = _loop(FIELD_MEAN_LOOP, command)
    network = train_field_mean(samples, command.output, loop, track=display.track, on_evaluation=told)
    path = command.output / FIELD_MEAN.file_name
    notes = {"seed": str(command.seed), "portraits": str(len(samples)), "steps": str(loop.steps)}
    FIELD_MEAN.save(path, network, notes)
    return path


def _figures(network: FieldMeanNet, unseen: FieldSamples) -> str:
    answer = partial(estimate_field, loaded=LoadedNetwork(network, ""))
    return str(measure_fields({"mean": answer}, map(unseen.of, range(len(unseen))))["mean"])


def _loop(loop: LoopConfig, command: TrainFieldCommand) -> LoopConfig:
    names = ("steps", "batch_size", "learning_rate", "save_every")
    changes = {name: getattr(command, name) for name in names if getattr(command, name) is not None}
    return replace(
        loop,
        **changes,
        mixed_precision=command.mixed_precision,
        minutes=command.minutes,
        seed=command.seed,
        device=choose_device(command.device),
    )

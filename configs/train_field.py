"""`dp360 train field`: the stages of the networks of head fields."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sized
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from dp360.generation import InputError
from dp360.generation.networks import LoadedNetwork, Network, NetworkFile
from dp360.generation.prior.field.field_autoencoder import FIELD_AUTOENCODER, FieldAutoencoder
from dp360.generation.prior.field.field_denoiser import FIELD_DENOISER, FieldDenoiser
from dp360.generation.prior.field.field_grain import FIELD_GRAIN, FieldGrain
from dp360.generation.prior.field.field_pipeline import FieldPipeline
from dp360.generation.prior.field.head_field import HeadField
from dp360.generation.prior.field.mean_network import FIELD_MEAN, FieldMeanNet, estimate_field
from dp360.generation.prior.field.observed_field import ObservedField
from dp360.generation.training.field_autoencoder_training import (
    FIELD_AUTOENCODER_LOOP,
    reconstruction_figures,
    scale_latents,
    train_field_autoencoder,
)
from dp360.generation.training.field_diffusion_training import (
    FIELD_DENOISER_LOOP,
    losses_by_noise,
    train_field_denoiser,
)
from dp360.generation.training.field_figures import measure_fields
from dp360.generation.training.field_grain_training import FIELD_GRAIN_LOOP, grain_error, train_field_grain
from dp360.generation.training.field_latents import FieldLatents
from dp360.generation.training.field_residuals import RESIDUALS_NAME, GaussianResiduals
from dp360.generation.training.field_samples import FieldSamples, field_paths
from dp360.generation.training.field_training import FIELD_MEAN_LOOP, train_field_mean
from dp360.generation.training.loop import LoopConfig, OnEvaluation
from dp360.generation.training.sample_figures import best_spread

from .console import Display
from .device import choose_device
from .train import TrainFieldCommand

_SCALE_HEADS = 128
"""Heads that latents are scaled by at checkpoints."""
_SPREAD_FROM = 48
"""Validation portraits, at most, on which it is measured how far samples should spread."""


def train_field_stage(command: TrainFieldCommand, display: Display) -> Path:
    """Train a stage, or go on, and tell its figures at checkpoints; the weights.

    Raises:
        InputError: no files of fields, or checkpoints of something else.
    """
    if command.stage == "diffusion":
        return _train_diffusion(command, display)
    paths = field_paths(command.data, "train")
    samples = FieldSamples.read(list(display.track(paths, total=len(paths), description="Reading fields")))
    display.notify(f"{len(samples)} portraits to learn from, in {len(paths)} files")
    unseen = None
    if command.validation > 0 and any(command.data.glob("fields_validation_*.npz")):
        unseen = FieldSamples.read(field_paths(command.data, "validation"), most=command.validation)
    stages = {"mean": _train_mean, "autoencoder": _train_autoencoder, "grain": _train_grain}
    return stages[command.stage](command, samples, unseen, display)


def _train_mean(
    command: TrainFieldCommand, samples: FieldSamples, unseen: FieldSamples | None, display: Display
) -> Path:
    def figures(network: nn.Module) -> str:
        assert unseen is not None and isinstance(network, FieldMeanNet)
        answer = partial(estimate_field, loaded=LoadedNetwork(network, ""))
        return f"unseen cells: {measure_fields({'mean': answer}, _portraits(unseen))['mean']}"

    told = _teller(None if unseen is None else figures, display)
    loop = _loop(FIELD_MEAN_LOOP, command)
    network = train_field_mean(
        samples, command.output, loop, start=_start(FIELD_MEAN, command), track=display.track, on_evaluation=told
    )
    return _save(FIELD_MEAN, network, command, samples, loop)


def _train_autoencoder(
    command: TrainFieldCommand, samples: FieldSamples, unseen: FieldSamples | None, display: Display
) -> Path:
    def figures(network: nn.Module) -> str:
        assert unseen is not None and isinstance(network, FieldAutoencoder)
        scale_latents(network, samples, _SCALE_HEADS)
        return f"unseen cells there and back: {reconstruction_figures(network, _portraits(unseen))}"

    told = _teller(None if unseen is None else figures, display)
    loop = _loop(FIELD_AUTOENCODER_LOOP, command)
    network = train_field_autoencoder(
        samples, command.output, loop, start=_start(FIELD_AUTOENCODER, command), track=display.track, on_evaluation=told
    )
    return _save(FIELD_AUTOENCODER, network, command, samples, loop)


def _train_grain(
    command: TrainFieldCommand, samples: FieldSamples, unseen: FieldSamples | None, display: Display
) -> Path:
    if command.autoencoder is None:
        raise InputError("--stage grain needs the weights of another stage: expected --autoencoder FILE")
    autoencoder = FIELD_AUTOENCODER.read(command.autoencoder)

    def figures(network: nn.Module) -> str:
        assert unseen is not None and isinstance(network, FieldGrain)
        return f"validation {grain_error(network, unseen, autoencoder):.4f}"

    told = _teller(None if unseen is None else figures, display)
    loop = _loop(FIELD_GRAIN_LOOP, command)
    network = train_field_grain(
        samples, autoencoder, command.output, loop, start=_start(FIELD_GRAIN, command), track=display.track,
        on_evaluation=told,
    )  # fmt: skip
    return _save(FIELD_GRAIN, network, command, samples, loop)


def _train_diffusion(command: TrainFieldCommand, display: Display) -> Path:
    """The stage that needs the two others; portraits are encoded first, once."""
    if command.mean is None or command.autoencoder is None:
        raise InputError("--stage diffusion needs the other stages' weights: expected --mean FILE --autoencoder FILE")
    mean = FIELD_MEAN.read(command.mean)
    autoencoder = FIELD_AUTOENCODER.read(command.autoencoder)
    paths, folder = field_paths(command.data, "train"), command.output / "latents"
    latents = FieldLatents.of(paths, folder, mean, autoencoder, track=display.track)
    display.notify(f"{len(latents)} portraits and mirror images to learn from, in {len(paths)} files")
    unseen = None
    if command.validation > 0 and any(command.data.glob("fields_validation_*.npz")):
        unseen = FieldLatents.of(
            field_paths(command.data, "validation"), folder, mean, autoencoder, track=display.track
        )
    own = float(latents.residual_variance().mean())
    line = f"residual variance {own:.3f} in training"
    if unseen is not None:
        other = float(unseen.residual_variance().mean())
        line += f", {other:.3f} in validation: {other / own:.2f} times; far above 1 the mean knows its heads by heart"
    display.notify(line)
    GaussianResiduals.fit(latents.residuals()).save(command.output / RESIDUALS_NAME)

    def figures(network: nn.Module) -> str:
        assert isinstance(network, FieldDenoiser)
        sets = {"training": latents, "validation": unseen}
        rows = {name: losses_by_noise(network, part) for name, part in sets.items() if part is not None}
        bands = ((name, ", ".join(f"{band} {loss:.3f}" for band, loss in row.items())) for name, row in rows.items())
        return "; ".join(f"{name}, by noise: {losses}" for name, losses in bands)

    loop = _loop(FIELD_DENOISER_LOOP, command)
    told = _teller(figures, display)
    network = train_field_denoiser(
        latents, command.output, loop, start=_start(FIELD_DENOISER, command), track=display.track, on_evaluation=told
    )
    if unseen is not None:
        portraits = FieldSamples.read(
            field_paths(command.data, "validation"), most=min(command.validation, _SPREAD_FROM)
        )
        numbers = display.track(range(len(portraits)), total=len(portraits), description="Measuring the spread")
        pipeline = FieldPipeline.of(mean.network, autoencoder.network, network)
        spread = best_spread(pipeline, map(portraits.of, numbers))
        network.config = replace(network.config, spread=spread)
        display.notify(f"drawn differences are made {spread:g} times as large, as validation heads ask for")
    return _save(FIELD_DENOISER, network, command, latents, loop)


def _start(file: NetworkFile[Network], command: TrainFieldCommand) -> Network | None:
    """The network to start from."""
    return None if command.start is None else file.read(command.start).network


def _teller(figures: Callable[[nn.Module], str] | None, display: Display) -> OnEvaluation:
    """Tells the loss, and figures of a copy of the network on the CPU where there are any."""

    def told(step: int, network: nn.Module, loss: float) -> None:
        line = f"step {step}: loss {loss:.4f}"
        display.notify(line if figures is None else f"{line}; {figures(copy.deepcopy(network).cpu())}")

    return told


def _portraits(samples: FieldSamples) -> Iterator[tuple[HeadField, ObservedField]]:
    return map(samples.of, range(len(samples)))


def _save(
    file: NetworkFile[Network], network: Network, command: TrainFieldCommand, samples: Sized, loop: LoopConfig
) -> Path:
    path = command.output / file.file_name
    notes = {"seed": str(command.seed), "portraits": str(len(samples)), "steps": str(loop.steps)}
    file.save(path, network, notes)
    return path


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

"""`dp360 train` for networks that learn from pictures of composed heads: samples, training, weights, figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from dp360.generation.networks import Network, NetworkFile
from dp360.generation.synthetic.asset_pack import require_head_assets
from dp360.generation.training.head_samples import HeadSamplesConfig
from dp360.generation.training.loop import LoopConfig

from .console import Display
from .device import choose_device
from .train import (
    TrainLabelsCommand,
    TrainLandmarksCommand,
    TrainLightCommand,
    TrainNetworkCommand,
)


def train_prior_network(command: TrainNetworkCommand, display: Display) -> Path:
    """Train what the command names, or go on, and tell its figures on heads that it has not seen; the weights.

    Raises:
        InputError: no head assets, or checkpoints of something else.
    """
    require_head_assets(command.data)
    trainings: dict[type, Callable[[TrainNetworkCommand, Display], Path]] = {
        TrainLabelsCommand: _train_labels,
        TrainLightCommand: _train_light,
        TrainLandmarksCommand: _train_landmarks,
    }
    return trainings[type(command)](command, display)


def _train_labels(command: TrainNetworkCommand, display: Display) -> Path:
    assert isinstance(command, TrainLabelsCommand)
    from dp360.generation.prior.labels.segmenter import CLASS_NAMES, SEGMENTER
    from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
    from dp360.generation.training import segmenter_training as training
    from dp360.generation.training.shots import PORTRAIT_SHOTS, portrait_shots

    folder, track = command.output / "shots", display.track
    sizes = command.size or tuple(size_px for size_px, _ in training.SEGMENTER_STAGES)
    stages = [(px, _scheduled(loop, command)) for px, loop in training.SEGMENTER_STAGES if px in sizes]
    start = None if command.start is None else SEGMENTER.read(command.start).network
    learned_from, unseen = _heads(PORTRAIT_SHOTS, command)
    learned_from = replace(learned_from, first_head=command.first_head)
    shots = portrait_shots(command.data, "train", folder, learned_from, track=track)
    backgrounds = Backgrounds.of_split(command.data, "train")
    network = training.train_segmenter(shots, backgrounds, command.output, stages, start=start, **_told(display))
    shots = portrait_shots(command.data, "validation", folder, unseen, track=track)
    backgrounds = Backgrounds.of_split(command.data, "validation")
    training.calibrate_segmenter(network, shots, backgrounds, track=track)
    path = _saved(command, SEGMENTER, network)
    loaded = SEGMENTER.read(path)
    iou = training.evaluate_segmenter(loaded, shots, backgrounds, training.PLAIN_PORTRAITS, track=track)
    display.notify("IoU on validation heads: " + ", ".join(f"{n} {v:.3f}" for n, v in zip(CLASS_NAMES, iou)))
    return path


def _train_light(command: TrainNetworkCommand, display: Display) -> Path:
    assert isinstance(command, TrainLightCommand)
    from dp360.generation.prior.light.shade_network import SHADE
    from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
    from dp360.generation.training import shade_training as training
    from dp360.generation.training.shots import LIT_SHOTS, lit_shots

    folder, track = command.output / "shots", display.track
    loop = _scheduled(training.SHADE_LOOP, command)
    start = None if command.start is None else SHADE.read(command.start).network
    learned_from, unseen = _heads(LIT_SHOTS, command, samples_per_head=LIT_SHOTS.samples_per_head)
    learned_from = replace(learned_from, first_head=command.first_head)
    shots = lit_shots(command.data, "train", folder, learned_from, track=track)
    backgrounds = Backgrounds.of_split(command.data, "train")
    network = training.train_shade_network(shots, backgrounds, command.output, loop, start=start, **_told(display))
    path = _saved(command, SHADE, network)
    shots = lit_shots(command.data, "validation", folder, unseen, track=track)
    backgrounds = Backgrounds.of_split(command.data, "validation")
    before, after = (
        training.evaluate_shade_network(shade, shots, backgrounds, track=track) for shade in (None, SHADE.read(path))
    )
    figures = ", ".join(f"{name} {before[name]:.3f} -> {after[name]:.3f}" for name in before)
    display.notify(f"Light on the skin of validation heads, error of its logarithm without and with it: {figures}")
    return path


def _train_landmarks(command: TrainNetworkCommand, display: Display) -> Path:
    from dp360.generation.portrait.landmark_network import FACE_LANDMARKS, find_face
    from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
    from dp360.generation.training import landmark_training as training
    from dp360.generation.training.landmark_scenes import PLAIN_SCENES, labelled_shots
    from dp360.generation.training.shots import SURROUND_SHOTS, surround_shots

    folder, track = command.output / "shots", display.track
    loops = [_scheduled(loop, command) for loop in (training.POINTS_LOOP, training.LOCATOR_LOOP)]
    learned_from, unseen = _heads(SURROUND_SHOTS, command, samples_per_head=SURROUND_SHOTS.samples_per_head)
    shots = surround_shots(command.data, "train", folder, learned_from, track=track)
    labelled = labelled_shots(shots, "train", command.data, track=track)
    backgrounds = Backgrounds.of_split(command.data, "train")
    networks = training.train_landmark_networks(labelled, backgrounds, command.output, *loops, **_told(display))
    path = _saved(command, FACE_LANDMARKS, networks)
    shots = surround_shots(command.data, "validation", folder, unseen, track=track)
    labelled = labelled_shots(shots, "validation", command.data, track=track)
    loaded, backgrounds = FACE_LANDMARKS.read(path), Backgrounds.of_split(command.data, "validation")

    def points_of(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "69 2"] | None:
        face = find_face(rgb, loaded)
        return None if face is None else face.points_px

    figures = training.landmark_figures(points_of, labelled, backgrounds, PLAIN_SCENES, track=track)
    display.notify(f"On validation heads, by |yaw|: {figures}")
    return path


def _scheduled(loop: LoopConfig, command: TrainNetworkCommand) -> LoopConfig:
    """The loop with the command's seed, device, time, and its factor on the steps."""
    steps, device = max(1, round(loop.steps * command.effort)), choose_device(command.device)
    return replace(
        loop, seed=command.seed, steps=steps, device=device, minutes=command.minutes,
        mixed_precision=command.mixed_precision,
    )  # fmt: skip


def _heads(
    config: HeadSamplesConfig, command: TrainNetworkCommand, *, samples_per_head: int = 1
) -> tuple[HeadSamplesConfig, HeadSamplesConfig]:
    """Heads to learn from, and those to measure with, which have so many samples each."""
    unseen = replace(config, heads=command.validation_heads, first_head=0, samples_per_head=samples_per_head)
    return replace(config, heads=command.heads), unseen


def _told(display: Display) -> dict[str, Any]:
    """How every training shows what it does."""
    return {
        "track": display.track,
        "on_evaluation": lambda step, _, loss: display.notify(f"step {step}: loss {loss:.4f}"),
    }


def _saved(command: TrainNetworkCommand, file: NetworkFile[Network], network: Network) -> Path:
    """Where the weights are now."""
    path = command.output / file.file_name
    file.save(path, network, {"seed": str(command.seed), "heads": str(command.heads)})
    return path

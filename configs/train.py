"""`dp360 train`: the learned parts of the prior, from rendering heads to weights with their figures; and the stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from typing_extensions import assert_never

from dp360.generation import InputError
from dp360.generation.progress import Track
from dp360.generation.training.loop import LoopConfig

from .device import choose_device
from .train_views import train_autoencoder_stage, train_view_stage
from .training_commands import (
    TrainAutoencoderCommand,
    TrainCompletionCommand,
    TrainHairCommand,
    TrainLabelsCommand,
    TrainLandmarksCommand,
    TrainPartCommand,
    TrainStageCommand,
    TrainWhat,
)


def train(command: TrainWhat, *, track: Track, notify: Callable[[str], None]) -> list[Path]:
    """Train what the command names; the files that were written.

    Raises:
        InputError: data that is not there or cannot be used, or checkpoints of something else.
    """
    match command:
        case TrainAutoencoderCommand():
            return [train_autoencoder_stage(command, track, notify)]
        case TrainStageCommand():
            return [train_view_stage(command, track, notify)]
    if not command.data.is_dir():
        raise InputError(f"No head assets at {command.data}: --data expects a folder with makehuman, valid, hdri ...")
    match command:
        case TrainLabelsCommand():
            return [_train_labels(command, track, notify)]
        case TrainHairCommand():
            return [_train_hair(command, track, notify)]
        case TrainCompletionCommand():
            return [_train_completion(command, track, notify)]
        case TrainLandmarksCommand():
            return [_train_landmarks(command, track, notify)]
        case _:
            assert_never(command)


def _schedule(loop: LoopConfig, command: TrainPartCommand) -> LoopConfig:
    """The loop with the command's seed and its factor on the steps."""
    return replace(loop, seed=command.seed, steps=max(1, round(loop.steps * command.effort)))


def _train_labels(command: TrainPartCommand, track: Track, notify: Callable[[str], None]) -> Path:
    from dp360.generation.prior.labels.segmenter import CLASS_NAMES, SEGMENTER
    from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
    from dp360.generation.training.segmenter_training import (
        PHOTOGRAPHS,
        LabelTrainingConfig,
        evaluate_segmenter,
        train_segmenter,
    )
    from dp360.generation.training.shots import ShotsConfig, make_shots

    config = LabelTrainingConfig()
    stages = tuple(replace(s, loop=_schedule(s.loop, command)) for s in config.stages)
    config = replace(config, shots=replace(config.shots, heads=command.heads), stages=stages)
    network = train_segmenter(
        command.data, command.output, config, minutes=command.minutes, device=choose_device(command.device),
        track=track, on_evaluation=lambda step, _, loss: notify(f"step {step}: loss {loss:.3f}"),
    )  # fmt: skip
    path = command.output / SEGMENTER.file_name
    SEGMENTER.save(path, network, {"seed": str(command.seed), "heads": str(command.heads)})
    heads = ShotsConfig(
        heads=command.validation_heads, shots_per_head=1, heads_per_file=min(20, command.validation_heads)
    )
    shots = make_shots(command.data, "validation", command.output / "shots", heads, track=track)
    backgrounds = Backgrounds.of_split(command.data, "validation")
    iou = evaluate_segmenter(SEGMENTER.read(path), shots, backgrounds, PHOTOGRAPHS, track=track).iou
    notify("IoU on validation heads: " + ", ".join(f"{n} {v:.3f}" for n, v in zip(CLASS_NAMES, iou)))
    return path


def _train_hair(command: TrainPartCommand, track: Track, notify: Callable[[str], None]) -> Path:
    from dp360.generation.prior.hair.thickness_network import HAIR_THICKNESS
    from dp360.generation.training.thickness_samples import HairSamplesConfig, make_hair_samples
    from dp360.generation.training.thickness_training import (
        HairTrainConfig,
        evaluate_hair_thickness,
        train_hair_thickness,
    )

    config = HairTrainConfig()
    loop = replace(_schedule(config.loop, command), minutes=command.minutes, device=choose_device(command.device))
    config = replace(config, loop=loop, samples=replace(config.samples, heads=command.heads))
    network = train_hair_thickness(
        command.data, command.output, config, track=track,
        on_evaluation=lambda step, _, loss: notify(f"step {step}: loss {loss:.3f}"),
    )  # fmt: skip
    path = command.output / HAIR_THICKNESS.file_name
    HAIR_THICKNESS.save(path, network, {"seed": str(command.seed), "heads": str(command.heads)})
    heads = HairSamplesConfig(
        heads=command.validation_heads, portraits_per_head=1, heads_per_file=min(10, command.validation_heads)
    )
    samples = make_hair_samples(command.data, "validation", command.output / "samples", heads, track=track)
    figures = evaluate_hair_thickness(HAIR_THICKNESS.read(path), samples)
    by_region = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in figures.thickness_mae.items())
    notify(f"Mean error of the thickness on {figures.count} validation portraits, 1/1000 of a world unit: {by_region}")
    return path


def _train_completion(command: TrainPartCommand, track: Track, notify: Callable[[str], None]) -> Path:
    from dp360.generation.prior.texture.completion_network import COMPLETION
    from dp360.generation.training.completion_samples import CompletionSamplesConfig, make_completion_samples
    from dp360.generation.training.completion_training import (
        CompletionTrainConfig,
        evaluate_completion,
        train_completion,
    )

    config = CompletionTrainConfig()
    loop = replace(_schedule(config.loop, command), minutes=command.minutes, device=choose_device(command.device))
    config = replace(config, loop=loop, samples=replace(config.samples, heads=command.heads))
    network = train_completion(
        command.data, command.output, config, track=track,
        on_evaluation=lambda step, _, loss: notify(f"step {step}: loss {loss:.4f}"),
    )  # fmt: skip
    path = command.output / COMPLETION.file_name
    COMPLETION.save(path, network, {"seed": str(command.seed), "heads": str(command.heads)})
    samples = make_completion_samples(
        command.data, "validation", command.output / "samples",
        CompletionSamplesConfig(heads=command.validation_heads), track=track,
    )  # fmt: skip
    figures = evaluate_completion(COMPLETION.read(path), samples)
    by_part = ", ".join(f"{name} {value:.3f} ({figures.typical[name]:.3f})" for name, value in figures.learned.items())
    notify(
        f"Mean colour error on {figures.count} validation portraits where they show nothing, in brackets that of one "
        f"plain colour: {by_part}"
    )
    return path


def _train_landmarks(command: TrainPartCommand, track: Track, notify: Callable[[str], None]) -> Path:
    from dp360.generation.portrait.landmark_network import FACE_LANDMARKS, find_face
    from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
    from dp360.generation.training.landmark_figures import landmark_figures
    from dp360.generation.training.landmark_scenes import PHOTOGRAPHS, labelled_shots
    from dp360.generation.training.landmark_shots import LandmarkShotsConfig, make_landmark_shots
    from dp360.generation.training.landmark_training import LandmarkTrainConfig, train_landmark_networks

    config = LandmarkTrainConfig()
    loops = {
        name: _schedule(loop, command)
        for name, loop in (("points_loop", config.points_loop), ("locator_loop", config.locator_loop))
    }
    config = replace(config, shots=replace(config.shots, heads=command.heads), **loops)
    networks = train_landmark_networks(
        command.data, command.output, config, minutes=command.minutes, device=choose_device(command.device),
        track=track, on_evaluation=lambda step, _, loss: notify(f"step {step}: loss {loss:.3f}"),
    )  # fmt: skip
    path = command.output / FACE_LANDMARKS.file_name
    FACE_LANDMARKS.save(path, networks, {"seed": str(command.seed), "heads": str(command.heads)})
    heads = LandmarkShotsConfig(heads=command.validation_heads, first_head=0)
    shots = make_landmark_shots(command.data, "validation", command.output / "shots", heads, track=track)
    labelled = labelled_shots(shots, "validation", command.data, track=track)
    loaded, backgrounds = FACE_LANDMARKS.read(path), Backgrounds.of_split(command.data, "validation")

    def points_of(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "69 2"] | None:
        face = find_face(rgb, loaded)
        return None if face is None else face.points_px

    figures = landmark_figures([points_of], labelled, backgrounds, PHOTOGRAPHS, track=track)
    notify(f"On validation heads, by |yaw|: {figures[0]}")
    return path

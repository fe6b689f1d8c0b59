"""The diffusion model as the command line asks for it: weights found, loaded and put where they shall run."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from dp360.generation import Cameras, InputError
from dp360.generation.diffusion.compact import load_compact, load_pipeline
from dp360.generation.diffusion.compact_generator import CompactGenerator, compact_sampling
from dp360.generation.diffusion.control_pictures import PRIOR_CHANNELS
from dp360.generation.diffusion.diffportrait360_generator import DiffPortrait360Generator, weights_name_of
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline
from dp360.generation.diffusion.release.download import resolve_weights
from dp360.generation.diffusion.sampling import Sampling
from dp360.generation.progress import Track, silent

from .device import choose_device
from .given_pictures import GivenPictures, refuse_pictures_for_compact
from .options import DiffusionOptions, HeadOptions


def open_diffusion_generator(
    command: HeadOptions, given: GivenPictures, cameras: Cameras, *, track: Track = silent
) -> DiffPortrait360Generator | CompactGenerator:
    """The view generator `compact` or `diffportrait360`, ready for views from `cameras`.

    Which of them the weights decide: those that the prior controls are compact ones.

    Raises:
        InputError: no weights, weights that cannot make these views, or no such device.
    """
    sampling_of(command.diffusion)  # a number out of its range costs no time
    device = choose_device(command.device)
    pipeline, name = open_weights(command.weights, command.diffusion, device, track=track)
    control = pipeline.camera_control
    generator: DiffPortrait360Generator | CompactGenerator
    if command.generator == "compact" or (control is not None and control.sizes.control_channels == PRIOR_CHANNELS):
        refuse_pictures_for_compact(command.diffusion)
        generator = CompactGenerator(pipeline, name, sampling_of(command.diffusion, pipeline))
    else:
        sampling = sampling_of(command.diffusion)
        generator = DiffPortrait360Generator(
            pipeline, name, sampling, condition_views=given.condition_views, start_views=given.start_views
        )
    generator = replace(generator, back_image=given.back_image, aligned=given.aligned)
    generator.check(cameras)
    return generator


def sampling_of(options: DiffusionOptions, compact: DiffPortrait360Pipeline | None = None) -> Sampling:
    """The sampling part of the options; what is not given is as `Sampling` or, for the compact model, as
    `compact_sampling` has it.

    Raises:
        InputError: a number out of its range.
    """
    values = {field.name: getattr(options, field.name) for field in fields(Sampling)}
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return Sampling(**given) if compact is None else compact_sampling(compact, **given)


def open_weights(
    weights: str | None, options: DiffusionOptions, device: str, *, track: Track = silent
) -> tuple[DiffPortrait360Pipeline, str]:
    """Load the diffusion model where it shall run; and the weights' name with their hash.

    Args:
        weights: a folder or a hub id; None takes the compact model that ships.
        device: name of the torch device, as `choose_device` gives it.

    Raises:
        InputError: weights that are not there or cannot be used, or numbers that the device cannot compute with.
    """
    dtype = _dtype(options, device)
    if weights is None:
        loaded = load_compact(dtype)
        if loaded is None:
            raise InputError("This installation has no compact weights; install dp360 again, or give --weights FOLDER")
        pipeline, name = loaded
    else:
        folder = resolve_weights(weights, dtype=dtype, track=track)
        pipeline, name = load_pipeline(folder, dtype), weights_name_of(folder, weights, track=track)
    if options.offload and device != "cpu":
        pipeline.enable_model_cpu_offload()
    else:
        pipeline.to(device)
    if options.vae_tiling:
        pipeline.vae.enable_tiling()
    return pipeline, name


def _dtype(options: DiffusionOptions, device: str) -> torch.dtype:
    if options.dtype == "float16" and device == "cpu":
        raise InputError("Cannot use --diffusion.dtype float16 on a CPU; take float32 or bfloat16")
    if options.dtype != "auto":
        return getattr(torch, options.dtype)
    if device == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16

"""The diffusion model as the command line asks for it: weights found, loaded and put where they shall run."""

from __future__ import annotations

from dataclasses import fields

import torch
from typing_extensions import assert_never

from dp360.generation import Cameras, InputError
from dp360.generation.diffusion.generator import DiffPortrait360Generator, weights_name_of
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline
from dp360.generation.diffusion.release.download import resolve_weights
from dp360.generation.diffusion.sampling import Sampling
from dp360.generation.progress import Track, silent

from .commands import DiffusionOptions, ViewsCommand
from .device import choose_device
from .given_pictures import GivenPictures


def open_diffusion_generator(
    command: ViewsCommand, given: GivenPictures, cameras: Cameras, *, track: Track = silent
) -> DiffPortrait360Generator:
    """The view generator `diffportrait360`, ready for views from `cameras`.

    Args:
        command: weights and options.
        given: what takes the place of its own control pictures, start views, back and crop.
        cameras: where it will be asked to look from.
        track: progress.

    Raises:
        InputError: no weights, weights that cannot make these views, or no such device.
    """
    assert command.weights is not None  # refuse_contradictions has seen to it
    sampling = sampling_of(command.diffusion)
    pipeline, name = open_weights(command.weights, command.diffusion, track=track)
    generator = DiffPortrait360Generator(
        pipeline,
        name,
        sampling,
        back_image=given.back_image,
        condition_views=given.condition_views,
        start_views=given.start_views,
        aligned=given.aligned,
    )
    generator.check(cameras)
    return generator


def sampling_of(options: DiffusionOptions) -> Sampling:
    """The sampling part of the options.

    Raises:
        InputError: a number out of its range.
    """
    return Sampling(**{field.name: getattr(options, field.name) for field in fields(Sampling)})


def open_weights(
    weights: str, options: DiffusionOptions, *, track: Track = silent
) -> tuple[DiffPortrait360Pipeline, str]:
    """Load the diffusion model where it shall run; and the weights' name with their hash.

    Args:
        weights: a folder or a hub id.
        options: device, numbers and what saves memory.
        track: progress.

    Raises:
        InputError: no such device, or weights that cannot be used.
    """
    device = choose_device(options.device)
    dtype = _dtype(options, device)
    folder = resolve_weights(weights, dtype=dtype, track=track)
    try:
        pipeline = DiffPortrait360Pipeline.from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:  # loaders fail in their own ways
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"The weights in {folder} cannot be loaded ({reason}); convert them again") from error
    if options.offload and device != "cpu":
        pipeline.enable_model_cpu_offload()
    else:
        pipeline.to(device)
    if options.vae_tiling:
        pipeline.vae.enable_tiling()
    return pipeline, weights_name_of(folder, weights, track=track)


def _dtype(options: DiffusionOptions, device: str) -> torch.dtype:
    match options.dtype:
        case "auto":
            if device == "cpu":
                return torch.float32
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        case "float32":
            return torch.float32
        case "float16":
            if device == "cpu":
                raise InputError("Cannot use --diffusion.dtype float16 on a CPU; take float32 or bfloat16")
            return torch.float16
        case "bfloat16":
            return torch.bfloat16
        case _:
            assert_never(options.dtype)

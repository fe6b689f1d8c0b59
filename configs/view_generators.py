"""From the command line's words to a view generator."""

from __future__ import annotations

from typing_extensions import assert_never

from dp360.generation import Cameras, InputError, ViewGenerator
from dp360.generation.prior import PriorGenerator
from dp360.generation.progress import Track, silent

from .commands import DiffusionOptions, ViewsCommand
from .given_pictures import GivenPictures


def refuse_contradictions(command: ViewsCommand) -> None:
    """See that generator, weights and options belong together.

    Raises:
        InputError: the diffusion model without weights, or weights or its options for the prior.
    """
    match command.generator:
        case "diffportrait360":
            if command.weights is None:
                raise InputError(
                    "Cannot start: --generator diffportrait360 needs --weights: a folder made by dp360 convert, or the "
                    "hub id gym890/diffportrait360"
                )
        case "prior":
            if command.weights is not None or command.diffusion != DiffusionOptions():
                raise InputError(
                    "Cannot start: --weights and --diffusion options are for the diffusion model; add "
                    "--generator diffportrait360"
                )
        case _:
            assert_never(command.generator)


def open_generator(
    command: ViewsCommand, given: GivenPictures, cameras: Cameras, *, track: Track = silent
) -> ViewGenerator:
    """The view generator that was asked for, ready for views from `cameras`.

    Raises:
        InputError: weights that are not there or cannot make these views, or no such device.
    """
    match command.generator:
        case "prior":
            return PriorGenerator()
        case "diffportrait360":
            from .diffusion import open_diffusion_generator  # seconds of imports

            return open_diffusion_generator(command, given, cameras, track=track)
        case _:
            assert_never(command.generator)

"""From the command line's words to a view generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from typing_extensions import assert_never

from dp360.generation import Cameras, InputError, ViewGenerator
from dp360.generation.diffusion.compact import compact_folder, held_out
from dp360.generation.prior import PriorGenerator
from dp360.generation.progress import Track, silent

from .commands import DiffusionOptions, ViewsCommand
from .given_pictures import GivenPictures, refuse_pictures_for_compact

Views = TypeVar("Views", bound=ViewsCommand)
_NO_COMPACT_WEIGHTS = "this installation has no compact weights"


def refuse_contradictions(command: ViewsCommand) -> None:
    """See that generator, weights and options belong together.

    Raises:
        InputError: a diffusion model without weights, or weights, options or pictures for a generator that does not
            take them.
    """
    match command.generator:
        case "diffportrait360":
            if command.weights is None:
                raise InputError(
                    "Cannot start: --generator diffportrait360 needs --weights: a folder made by dp360 convert, or the "
                    "hub id gym890/diffportrait360"
                )
        case "compact":
            if command.weights is None and compact_folder() is None:
                raise InputError(
                    f"Cannot start: {_NO_COMPACT_WEIGHTS}; install dp360 again, give a folder of your own with "
                    "--weights, or take --generator prior"
                )
            refuse_pictures_for_compact(command.diffusion)
        case "auto" | "prior":
            if command.weights is not None or command.diffusion != DiffusionOptions():
                raise InputError(
                    "Cannot start: --weights and --diffusion options are for the diffusion model; add --generator "
                    "diffportrait360, or --generator compact for the model that ships"
                )
        case _:
            assert_never(command.generator)


def settled(command: Views, notify: Callable[[str], None] | None = None) -> Views:
    """The same command with the name of a generator in place of `auto`.

    Args:
        command: what was asked for.
        notify: is told in one sentence what `auto` takes and why.

    Raises:
        InputError: the figures that decide are damaged.
    """
    if command.generator != "auto":
        return command
    measured = held_out()
    if measured is None:
        winner, reason = "prior", _NO_COMPACT_WEIGHTS if compact_folder() is None else "the compact model is unmeasured"
    else:
        winner = measured.winner
        reason = f"on {measured.heads} held-out heads: " + ", ".join(
            f"{label} compact {format(measured.compact[key], digits)}, prior {format(measured.prior[key], digits)}"
            for label, key, digits in (("PSNR in dB", "psnr_head", ".2f"), ("perceptual distance", "perceptual", ".3f"))
            if key in measured.compact and key in measured.prior
        )
    if notify is not None:
        notify(f"--generator auto takes {winner} ({reason})")
    return replace(command, generator=winner)


def open_generator(
    command: ViewsCommand, given: GivenPictures, cameras: Cameras, *, track: Track = silent
) -> ViewGenerator:
    """The view generator that was asked for, ready for views from `cameras`.

    Raises:
        InputError: weights that are not there or cannot make these views, or no such device.
    """
    command = settled(command)
    match command.generator:
        case "prior":
            return PriorGenerator()
        case "compact" | "diffportrait360":
            from .diffusion import open_diffusion_generator  # seconds of imports

            return open_diffusion_generator(command, given, cameras, track=track)
        case "auto":
            raise AssertionError("settled above")
        case _:
            assert_never(command.generator)

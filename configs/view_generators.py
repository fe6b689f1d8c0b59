"""From the command line's words to a view generator: what was given is read before any time is spent."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import assert_never

from dp360.generation import Cameras, InputError, ViewGenerator
from dp360.generation.diffusion.release.aligned import AlignedPicture, read_aligned_picture
from dp360.generation.diffusion.release.folder import label_of
from dp360.generation.diffusion.view_pictures import ViewPictures, read_picture, read_view_pictures
from dp360.generation.prior import PriorGenerator
from dp360.generation.progress import Track, silent

from .commands import DiffusionOptions, ViewsCommand


@dataclass(frozen=True, eq=False)
class GivenPictures:
    """What people hand in instead of what the generator would make itself."""

    condition_views: ViewPictures | None = None
    """Control pictures."""
    start_views: ViewPictures | None = None
    """Rough views to start from."""
    back_image: ViewPictures | None = None
    """The back of the head."""
    aligned: AlignedPicture | None = None
    """The portrait with a camera of its own."""


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


def read_given(command: ViewsCommand, cameras: Cameras) -> GivenPictures:
    """Read the pictures named on the command line and see that they belong to the cameras.

    Raises:
        InputError: a file cannot be used, or its pictures are not for these cameras.
    """
    if command.generator == "prior":
        return GivenPictures()
    options = command.diffusion
    condition, start, back = (
        None if path is None else read(path)
        for path, read in (
            (options.condition_views, read_view_pictures),
            (options.start_views, read_view_pictures),
            (options.back_image, read_picture),
        )
    )
    for pictures in (condition, start):
        if pictures is not None:
            pictures.rows_for(cameras)
    if back is not None:
        back.require_shape_of(cameras)
    aligned = None
    if options.camera_labels is not None:
        aligned = read_aligned_picture(command.image, label_of(options.camera_labels, command.image.name))
    return GivenPictures(condition, start, back, aligned)


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

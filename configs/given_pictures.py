"""Pictures that people hand in for the diffusion model, read and checked before any time is spent."""

from __future__ import annotations

from dataclasses import dataclass

from dp360.generation import Cameras, InputError
from dp360.generation.diffusion.release.aligned import AlignedPicture, read_aligned_picture
from dp360.generation.diffusion.release.folder import label_of
from dp360.generation.diffusion.view_pictures import ViewPictures, read_back_picture, read_view_pictures

from .options import RENDERED, DiffusionOptions, HeadOptions


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


def read_given(command: HeadOptions, cameras: Cameras) -> GivenPictures:
    """Read the pictures named on the command line and see that they belong to the cameras.

    Raises:
        InputError: a file cannot be used, or its pictures are not for these cameras.
    """
    if command.generator in RENDERED:
        return GivenPictures()
    options = command.diffusion
    condition, start = (
        None if path is None else read_view_pictures(path) for path in (options.condition_views, options.start_views)
    )
    back = None if options.back_image is None else read_back_picture(options.back_image)
    for pictures in (condition, start):
        if pictures is not None:
            pictures.rows_for(cameras)
    if back is not None:
        back.require_shape_of(cameras)
    aligned = None
    if options.camera_labels is not None:
        aligned = read_aligned_picture(command.portrait, label_of(options.camera_labels, command.portrait.name))
    return GivenPictures(condition, start, back, aligned)


def refuse_pictures_for_compact(options: DiffusionOptions) -> None:
    """See that no pictures are handed in that the compact model has no use for.

    Raises:
        InputError: control pictures or start views.
    """
    for name, path in (("--condition-views", options.condition_views), ("--start-views", options.start_views)):
        if path is not None:
            raise InputError(
                f"Cannot start: {name} {path} is of no use to the compact model, whose control pictures and start "
                "views are the prior of the portrait itself; leave it out, or take official weights with --generator "
                "diffportrait360"
            )

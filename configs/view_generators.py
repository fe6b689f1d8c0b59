"""From the command line's words to a view generator."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol, runtime_checkable

from typing_extensions import assert_never

from dp360.generation import Cameras, InputError, ViewGenerator
from dp360.generation.diffusion.compact import HeldOut, compact_folder, held_out
from dp360.generation.light.named_lights import wanted_light
from dp360.generation.portrait.rembg_network import rembg_model
from dp360.generation.prior import PriorGenerator
from dp360.generation.prior.field.drawn_field import fields_can_be_drawn
from dp360.generation.progress import Track, silent

from .console import Notify
from .given_pictures import GivenPictures, refuse_pictures_for_compact
from .options import RENDERED, DiffusionOptions, HeadOptions

_NO_COMPACT_WEIGHTS = "this installation has no compact weights"
_GEOMETRY_OF_AUTO: Literal["prior", "field"] = "prior"
"""What `auto` takes where it does not take the compact model; this is the place to decide it."""


@runtime_checkable
class OpenViews(Protocol):
    """Opens the view generator that was asked for: `open_generator`, or somebody who keeps one open."""

    def __call__(self, options: HeadOptions, given: GivenPictures, cameras: Cameras, *, track: Track) -> ViewGenerator:
        """The generator, ready for views from `cameras`."""
        ...


def refuse_contradictions(options: HeadOptions) -> None:
    """See that generator, weights and options belong together, and that the matte is one.

    Raises:
        InputError: a diffusion model or drawn fields without weights, or weights, options or pictures for a generator
            that does not take them, or a matte or a light that is none.
    """
    rembg_model(options.matte)
    wanted_light(options.light)
    if options.light != "portrait" and options.generator in ("compact", "diffportrait360"):
        raise InputError(
            f"Cannot start: --light {options.light} is for heads made by geometry, and --generator {options.generator} "
            "draws views in the portrait's light; leave one of them out"
        )
    match options.generator:
        case "diffportrait360":
            if options.weights is None:
                raise InputError(
                    "Cannot start: --generator diffportrait360 needs --weights: a folder made by dp360 convert, or the "
                    "hub id gym890/diffportrait360"
                )
        case "compact":
            if options.weights is None and compact_folder() is None:
                raise InputError(
                    f"Cannot start: {_NO_COMPACT_WEIGHTS}; install dp360 again, give a folder of your own with "
                    "--weights, or take --generator prior"
                )
            refuse_pictures_for_compact(options.diffusion)
        case "auto" | "prior" | "field":
            if options.weights is not None or options.diffusion != DiffusionOptions():
                raise InputError(
                    "Cannot start: --weights and --diffusion options are for the diffusion model; add --generator "
                    "diffportrait360, or --generator compact for the model that ships"
                )
            if options.generator == "field" and not fields_can_be_drawn():
                raise InputError(
                    "Cannot start: this installation has no weights that draw fields; install dp360 again, or take "
                    "--generator prior"
                )
        case _:
            assert_never(options.generator)


def settled(options: HeadOptions, notify: Notify | None = None) -> HeadOptions:
    """The same options with the name of a generator in place of `auto`.

    Args:
        notify: is told in one sentence what `auto` takes; with the figures that decided if options are verbose.

    Raises:
        InputError: the figures that decide are damaged.
    """
    if options.generator != "auto":
        return options
    measured = held_out()
    winner = "compact" if measured is not None and measured.winner == "compact" else _GEOMETRY_OF_AUTO
    if notify is not None:
        notify(_WHAT_AUTO_TAKES[winner])
        if options.verbose:
            notify(_why(measured))
    return replace(options, generator=winner)


_WHAT_AUTO_TAKES = {
    "prior": "the views are made by fitted geometry; --generator compact draws them with a small diffusion model",
    "field": "the views are made by fitted geometry; what the portrait does not show is drawn, by --seed",
    "compact": "the views are drawn by the small diffusion model; --generator prior makes them by geometry alone",
}


def _why(measured: HeldOut | None) -> str:
    """The figures behind what `auto` takes."""
    if measured is None:
        return _NO_COMPACT_WEIGHTS if compact_folder() is None else "the compact model is unmeasured"
    return f"figures on {measured.heads} held-out heads: " + ", ".join(
        f"{label} compact {format(measured.compact[key], digits)}, prior {format(measured.prior[key], digits)}"
        for label, key, digits in (("PSNR in dB", "psnr_head", ".2f"), ("perceptual distance", "perceptual", ".3f"))
        if key in measured.compact and key in measured.prior
    )


def open_generator(
    options: HeadOptions, given: GivenPictures, cameras: Cameras, *, track: Track = silent
) -> ViewGenerator:
    """The view generator that was asked for, ready for views from `cameras`.

    Raises:
        InputError: weights that are not there or cannot make these views, or no such device.
    """
    options = settled(options)
    if options.generator in RENDERED:
        return PriorGenerator(name=options.generator)
    from .diffusion import open_diffusion_generator  # seconds of imports

    return open_diffusion_generator(options, given, cameras, track=track)

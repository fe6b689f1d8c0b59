"""Named settings of the view generators, to be measured beside each other.

A name may be followed by what is to be measured: `compact@FOLDER` are the settings of `compact` with weights in a
folder of their own, trained alike; `NAME=FOLDER` are views that any system has made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dp360.generation import InputError, ViewGenerator
from dp360.generation.prior import PriorGenerator

from .options import DiffusionOptions

if TYPE_CHECKING:
    from dp360.generation.diffusion.compact_generator import CompactControl
    from dp360.reconstruction.evaluation.heads import ViewSource


@dataclass(frozen=True)
class Variant:
    """One setting of a generator."""

    about: str
    """What it is, for tables."""
    diffusion: DiffusionOptions | None = None
    """Options of the diffusion model; None renders the prior itself."""
    compact: CompactControl | None = None
    """What controls the compact model; None for every other generator."""
    drawn: bool = False
    """The prior has a drawn field."""


GENERATOR_VARIANTS: dict[str, Variant] = {
    "prior": Variant("the geometric prior"),
    "field": Variant("the prior with a drawn field", drawn=True),
    "diffportrait360": Variant("the diffusion model", diffusion=DiffusionOptions()),
    "diffportrait360-official": Variant(
        "the release's sampler", diffusion=DiffusionOptions(schedule="official")
    ),
    "diffportrait360-without-v": Variant(
        "views that do not see each other", diffusion=DiffusionOptions(view_consistency=False)
    ),
    "diffportrait360-without-back": Variant(
        "no back view, the portrait alone as reference", diffusion=DiffusionOptions(dual_appearance=False)
    ),
    "diffportrait360-overlap": Variant("clips that overlap by half", diffusion=DiffusionOptions(window_stride=4)),
    "diffportrait360-no-guidance": Variant("guidance scale 1", diffusion=DiffusionOptions(guidance_scale=1.0)),
    "compact": Variant("the compact model", diffusion=DiffusionOptions(), compact="prior"),
    "compact-without-v": Variant(
        "compact, views that do not see each other", diffusion=DiffusionOptions(view_consistency=False), compact="prior"
    ),
    "compact-without-back": Variant(
        "compact, the portrait alone as reference", diffusion=DiffusionOptions(dual_appearance=False), compact="prior"
    ),
    "compact-overlap": Variant(
        "compact, clips that overlap by half", diffusion=DiffusionOptions(window_stride=4), compact="prior"
    ),
    "compact-more-steps": Variant("compact, 32 steps", diffusion=DiffusionOptions(steps=32), compact="prior"),
    "compact-rays": Variant(
        "compact, camera rays in place of control pictures", diffusion=DiffusionOptions(), compact="rays"
    ),
}  # fmt: skip
"""By name. Those of diffportrait360 need its weights, compact-rays those of a network trained so (compact-rays@FOLDER).
"""


def source_name(given: str) -> str:
    """What tables and folders call a generator that was asked for.

    Args:
        given: NAME, NAME=FOLDER, or NAME@FOLDER, which is called by the folder's own name.
    """
    name, mark, folder = _parts(given)
    return f"{name}@{Path(folder).name}" if mark == "@" else name


@cache
def compact_weights_name(given: str) -> str | None:
    """Name and hash of the compact weights that a generator uses; None for every other generator.

    Raises:
        InputError: the weights that ship are damaged.
    """
    from dp360.generation.diffusion.compact import compact_folder, verified_name

    name, mark, folder = _parts(given)
    if mark == "=" or name not in GENERATOR_VARIANTS or GENERATOR_VARIANTS[name].compact is None:
        return None
    if mark == "@":
        from dp360.generation.diffusion.diffportrait360_generator import weights_name_of

        return weights_name_of(Path(folder), folder)
    shipped = compact_folder()
    return None if shipped is None else verified_name(shipped)


def open_sources(names: Sequence[str], weights: str | None) -> list[ViewSource]:
    """Sources of views by name.

    Args:
        names: keys of `GENERATOR_VARIANTS`; NAME@FOLDER, one of the compact model's with other weights; or
            NAME=FOLDER, any name with one data set per head.
        weights: folder or hub id of diffportrait360's weights; only for its variants.

    Raises:
        InputError: an unknown name, a name that comes twice, a folder that is not there, or missing weights.
    """
    from dp360.reconstruction.evaluation.heads import FolderViews, GeneratedViews

    if len({source_name(given) for given in names}) < len(names):
        raise InputError(f"Expected different names of generators, got {', '.join(names)}")
    pipelines: dict[str, tuple] = {}  # each opened once for all variants
    sources: list[ViewSource] = []
    for given in names:
        name, mark, folder = _parts(given)
        if mark == "=":
            if not Path(folder).is_dir():
                raise InputError(f"No folder of views at {folder}; expected one with a data set for every head in it")
            sources.append(FolderViews(name, Path(folder)))
            continue
        if name not in GENERATOR_VARIANTS or (mark == "@" and GENERATOR_VARIANTS[name].compact is None):
            compact = [known for known, variant in GENERATOR_VARIANTS.items() if variant.compact is not None]
            raise InputError(
                f"Unknown generator {given}; expected one of {', '.join(GENERATOR_VARIANTS)}, NAME=FOLDER for views of "
                f"another system, or @FOLDER behind {', '.join(compact)} for other compact weights"
            )
        variant = GENERATOR_VARIANTS[name]
        generator: ViewGenerator = PriorGenerator(name=name)
        if variant.diffusion is not None:
            chosen = weights if variant.compact is None else folder
            if chosen is None:
                raise InputError(
                    f"{name} needs --weights: a folder made by dp360 convert, or the hub id gym890/diffportrait360"
                )
            generator = _drawn(source_name(given), variant, chosen, pipelines)
        sources.append(GeneratedViews(source_name(given), generator, variant.drawn))
    return sources


def _parts(given: str) -> tuple[str, str, str]:
    """Name, mark (=, @ or nothing) and folder; the first mark counts, folders may contain the other."""
    mark = min((m for m in "=@" if m in given), key=given.index, default="")
    name, _, folder = given.partition(mark) if mark else (given, "", "")
    return name, mark, folder


def _drawn(name: str, variant: Variant, weights: str, pipelines: dict[str, tuple]) -> ViewGenerator:
    """A diffusion generator with a variant's options; `pipelines` keeps the networks from the first call on.

    Args:
        weights: a folder or a hub id; empty for those that ship.
    """
    from dp360.generation.diffusion.compact_generator import CompactConfig, CompactGenerator
    from dp360.generation.diffusion.diffportrait360_generator import DiffPortrait360Generator

    from .device import choose_device
    from .diffusion import open_weights, sampling_of

    options, device = variant.diffusion or DiffusionOptions(), choose_device("auto")
    if weights not in pipelines:
        pipelines[weights] = open_weights(weights or None, options, device)
    pipeline, weights_name = pipelines[weights]
    if variant.compact is None:
        return DiffPortrait360Generator(pipeline, weights_name, sampling_of(options), name=name)
    sampling, config = sampling_of(options, pipeline), CompactConfig(control=variant.compact)
    return CompactGenerator(pipeline, weights_name, sampling, config=config, name=name)

"""Named settings of the view generators, to be measured beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dp360.generation import InputError, ViewGenerator
from dp360.generation.prior import HeadPriorConfig, PriorGenerator
from dp360.generation.prior.hair_shell import HairShellConfig
from dp360.generation.prior.labels import LabelConfig
from dp360.generation.prior.texture import TextureConfig
from dp360.generation.progress import Track, silent

from .commands import DiffusionOptions

if TYPE_CHECKING:
    from dp360.reconstruction.evaluation.heads import ViewSource


@dataclass(frozen=True)
class Variant:
    """One setting of a generator."""

    about: str
    """What it is, for tables."""
    prior: HeadPriorConfig = HeadPriorConfig()  # noqa: RUF009 - frozen
    """The prior under it."""
    diffusion: DiffusionOptions | None = None
    """Options of the diffusion model; None renders the prior itself."""


_RULES = HeadPriorConfig(
    labels=LabelConfig(method="rules"), shell=HairShellConfig(method="rules"), texture=TextureConfig(method="rules")
)
VARIANTS: dict[str, Variant] = {
    "prior": Variant("prior with everything learned"),
    "prior-rules": Variant("prior by rules alone", _RULES),
    "prior-rules-labels": Variant("labels by rules", HeadPriorConfig(labels=_RULES.labels)),
    "prior-rules-hair": Variant("hair thickness by rules", HeadPriorConfig(shell=_RULES.shell)),
    "prior-rules-texture": Variant("unseen colours by rules", HeadPriorConfig(texture=_RULES.texture)),
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
}  # fmt: skip
"""By name. Those of the diffusion model need its weights."""


def open_sources(names: Sequence[str], weights: str | None, *, track: Track = silent) -> list[ViewSource]:
    """Sources of views by name, or NAME=FOLDER for views that any system has made.

    Args:
        names: keys of `VARIANTS`, or a name and a folder with one data set per head.
        weights: folder or hub id of the diffusion model's weights; only for its variants.
        track: progress.

    Raises:
        InputError: an unknown name, a name that comes twice, a folder that is not there, or missing weights.
    """
    from dp360.reconstruction.evaluation.heads import FolderViews, open_generated

    if len({name.partition("=")[0] for name in names}) < len(names):
        raise InputError(f"Expected different names of generators, got {', '.join(names)}")
    pipeline: list = []  # opened once for all variants
    sources: list[ViewSource] = []
    for given in names:
        name, equals, folder = given.partition("=")
        if equals:
            if not Path(folder).is_dir():
                raise InputError(f"No folder of views at {folder}; expected one with a data set for every head in it")
            sources.append(FolderViews(name, Path(folder)))
            continue
        if name not in VARIANTS:
            raise InputError(
                f"Unknown generator {name}; expected one of {', '.join(VARIANTS)}, or NAME=FOLDER for views of another "
                "system"
            )
        variant = VARIANTS[name]
        generator: ViewGenerator = PriorGenerator()
        if variant.diffusion is not None:
            generator = _diffusion(name, variant.diffusion, weights, pipeline, track)
        sources.append(open_generated(name, generator, variant.prior))
    return sources


def _diffusion(
    name: str, options: DiffusionOptions, weights: str | None, pipeline: list, track: Track
) -> ViewGenerator:
    """The diffusion generator with some options; `pipeline` keeps the networks from the first call on."""
    if weights is None:
        raise InputError(
            f"{name} needs --weights: a folder made by dp360 convert, or the hub id gym890/diffportrait360"
        )
    from dp360.generation.diffusion.generator import DiffPortrait360Generator

    from .diffusion import open_weights, sampling_of

    if not pipeline:
        pipeline.extend(open_weights(weights, options, track=track))
    return replace(DiffPortrait360Generator(*pipeline), sampling=sampling_of(options), name=name)

"""What every road from a portrait to a head can be told: the options that `dp360` and `ns-train` share.

Nothing heavy is imported here, so that `dp360 --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

Quality = Literal["fast", "standard", "high"]
Device = Literal["auto", "cpu", "cuda"]
GeneratorName = Literal["auto", "prior", "field", "compact", "diffportrait360"]
RENDERED: tuple[GeneratorName, ...] = ("prior", "field")
"""Generators that render the prior: on the CPU, without anything from outside."""
Rings = Literal["three", "level"]
LightLook = Literal["portrait", "even", "studio"]


def _flag_from_words(words: Sequence[str]) -> bool:
    """No word means yes."""
    if words and words[0] not in ("True", "False"):
        raise ValueError(f"expected True, False or nothing, got {words[0]}")
    return not words or words[0] == "True"


Flag = Annotated[
    bool,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[True|False]",
        instance_from_str=_flag_from_words,
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A switch. nerfstudio's parser wants a word behind every switch (`--no-face True`); with this type `--no-face` alone
means the same there, as it does in `dp360`."""


_AS_QUALITY_SAYS = tyro.conf.arg(help_behavior_hint="(if not given: as --quality says)")


@dataclass(frozen=True)
class DiffusionOptions:
    """How views are drawn with --generator compact or diffportrait360."""

    schedule: Literal["default", "official"] = "default"
    """official: the release's sampler to the letter; default: fewer steps, and clips that close the circle."""
    steps: int | None = None
    """Denoising steps; 16 if not given, 50 with the official schedule, 8 with the compact model on a CPU."""
    guidance_scale: float | None = None
    """How strongly portrait and control are followed; 3 if not given, 1 with the compact model. 1 is fastest, since one
    of two predictions falls away."""
    guidance_rescale: float = 0.0
    """0 to 1: how much of the contrast that guidance adds is taken back."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """First and last part of the steps, 0 to 1, in which guidance acts; elsewhere it costs nothing."""
    eta: float | None = None
    """Noise that each step adds, 0 to 1, where the sampler has it; 0.5 with the official schedule, else 0."""
    strength: float = 1.0
    """Below 1 the first steps are left out, so that more of the start views stays."""
    clip_length: int | None = None
    """Views that see each other; what the weights were trained with if not given."""
    window_stride: int | None = None
    """Views between the starts of two clips: below the clip's length they overlap, for more time."""
    clips_per_batch: int = 1
    """Clips computed at once: more is faster on a GPU and takes more memory."""
    view_consistency: Flag = True
    """Views see each other; without, each is drawn for itself (for ablations)."""
    dual_appearance: Flag = True
    """The back of the head is a reference beside the portrait; without, the portrait alone (for ablations)."""
    condition_views: Annotated[Path | None, tyro.conf.arg(aliases=["--condition-views"])] = None
    """Folder or film of control pictures (some other head from each camera) in place of our own; not for the compact
    model, which the prior controls."""
    start_views: Annotated[Path | None, tyro.conf.arg(aliases=["--start-views"])] = None
    """Folder or film of rough views to start from, in place of the prior's; not for the compact model."""
    back_image: Annotated[Path | None, tyro.conf.arg(aliases=["--back-image"])] = None
    """Picture of the back of the head over white, aligned as the views are; otherwise the weights draw one."""
    camera_labels: Path | None = None
    """PanoHead's dataset.json with the camera of the portrait, which is then used as it is, without being aligned
    again."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Numbers to compute with; auto takes float32 on a CPU and bfloat16 (or float16) on a GPU."""
    offload: Flag = False
    """Keep on the GPU only the networks that work at the moment: less memory, a little slower."""
    vae_tiling: Flag = False
    """Decode pictures in tiles: for sizes far above 512 px."""


@dataclass(frozen=True)
class FitOptions:
    """Numbers of the splat fit, each in place of the one that --quality stands for."""

    iterations: Annotated[int | None, _AS_QUALITY_SAYS] = None
    """Steps, one view each."""
    start_count: Annotated[int | None, _AS_QUALITY_SAYS] = None
    """Most Gaussians at the start."""
    max_count: Annotated[int | None, _AS_QUALITY_SAYS] = None
    """Most Gaussians at the end."""
    sh_degree: Annotated[int | None, _AS_QUALITY_SAYS] = None
    """0 to 3: how much a Gaussian's colour may change with the direction of view."""
    coarse_fraction: Annotated[float | None, _AS_QUALITY_SAYS] = None
    """Share of the steps, 0 to 1, that are done on pictures of half the size."""
    grow_gradient: Annotated[float | None, _AS_QUALITY_SAYS] = None
    """How far a Gaussian has to want to move on the picture before it is split: smaller makes more of them."""


@dataclass(frozen=True)
class HeadOptions:
    """A portrait and how it becomes a head."""

    image: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """The portrait: any picture file."""
    quality: Quality = "standard"
    """The dial: number and size of the views, number of Gaussians, length of the fit. Each of these numbers can also be
    set by itself, below."""
    views: Annotated[int | None, _AS_QUALITY_SAYS] = None
    """Views on the level ring; the rings above and below the head get 3/8 and 1/4 as many. With --rings level these are
    all there are."""
    size_px: Annotated[int | None, _AS_QUALITY_SAYS] = None
    """Side of the views in pixels; with diffportrait360 always 512 if not given."""
    fit: FitOptions = field(default_factory=FitOptions)
    """Numbers of the splat fit."""
    seed: int = 0
    """Seed of everything random: on a CPU the same seed gives the same bytes."""
    device: Device = "auto"
    """Where to compute; auto takes the GPU if there is one."""
    face_index: int | None = None
    """Which face of several, 0 being the largest; the largest one, with a notice, if not given."""
    crop: Literal["auto", "standard", "wide"] = "auto"
    """wide has room for long hair and hats; auto takes it where the standard frame would cut them off."""
    no_face: Flag = False
    """Align by the silhouette alone: for heads in which no face is found."""
    matte: str = "own"
    """Who outlines the person: own; rembg, one of that library's networks (birefnet-portrait), which needs the extra
    dp360[matte]; or rembg:MODEL, another one by its name or the path of an .onnx file."""
    no_glasses: Flag = False
    """Take off the glasses that the portrait shows."""
    light: str = "portrait"
    """The head in the portrait's light; in even light, the same from all sides, as games and avatars want it; in studio
    light; or in that of a panorama of your own, FILE.hdr or FILE.exr."""
    rings: Rings = "three"
    """level: only the ring at eye height, as DiffPortrait360 has it; three: rings above and below it as well."""
    generator: GeneratorName = "auto"
    """Who makes the views: the geometric prior; field, the prior with one of the heads that may be behind the portrait,
    another for every --seed; the compact diffusion model that ships; or diffportrait360, which needs --weights; auto
    takes the compact model where it ships and was better than the prior on held-out heads."""
    weights: str | None = None
    """Weights for diffportrait360: a folder, or a hub id such as gym890/diffportrait360; for compact, a folder of other
    compact weights than those that ship."""
    diffusion: DiffusionOptions = field(default_factory=DiffusionOptions)
    """How the diffusion model draws."""
    verbose: Flag = False
    """Also show figures: why a generator was chosen, seconds of each stage."""

    @property
    def portrait(self) -> Path:
        """The one portrait that was named.

        Raises:
            InputError: none, or several.
        """
        if len(self.image) != 1:
            from dp360.generation import InputError  # seconds of imports

            if not self.image:
                raise InputError("Cannot start: name a portrait, for example dp360 run face.png")
            raise InputError(
                f"Cannot start: expected one portrait, got {len(self.image)} ({', '.join(map(str, self.image))}); "
                "run the command once for each"
            )
        return self.image[0].expanduser()

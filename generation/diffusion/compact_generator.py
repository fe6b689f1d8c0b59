"""The view generator `compact`: the prior says how the head looks from everywhere, small networks repaint it.

The compact networks are controlled by renders of the portrait's own prior (colours, validity, normals) instead of
pictures of some other head, and draw at one small size. Views of any size are made of that: `upscale` says how.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from ..cameras import Cameras
from ..errors import InputError
from ..portrait import Portrait
from ..prior import HeadPrior
from ..progress import Track, silent
from ..views import ViewSet
from .conditions import camera_behind_the_head, control_from_prior, prior_over_white
from .control_pictures import PRIOR_CHANNELS, ray_control, resized_cut_outs, start_of_control
from .drawn_views import DrawnViews, drawn_confidence
from .pipeline import DiffPortrait360Pipeline
from .sampling import Sampling
from .upscale import UpscaleConfig, full_size_views, inside_outline

CompactControl = Literal["prior", "rays"]
_DRAWN_PX = 256
_CPU_STEPS, _GPU_STEPS = 8, 16
"""Denoising steps where neither the caller nor the weights say."""
_GUIDANCE_SCALE = 1.0
"""Guidance where none is asked for; 1 needs one prediction per step instead of two."""


@dataclass(frozen=True)
class CompactConfig:
    """How the compact model is used."""

    size_px: int | None = None
    """Side of the drawings, pixels; None takes what the weights were trained with, 256 where they do not say."""
    control: CompactControl = "prior"
    """What the weights were trained with: renders of the prior, or camera rays (for ablations)."""
    upscale: UpscaleConfig = field(default_factory=UpscaleConfig)
    """What full-size views take from the drawings and what from the prior."""
    views_per_chunk: int = 8
    """Full-size views worked on at once: more needs more memory."""


def compact_sampling(pipeline: DiffPortrait360Pipeline, **options: Any) -> Sampling:
    """The settings of a generation where `options` do not say otherwise: the steps the weights draw best in, or by the
    kind of device that they are on."""
    by_device = _CPU_STEPS if pipeline.device.type == "cpu" else _GPU_STEPS
    steps = pipeline.config["drawing_steps"] or by_device
    return Sampling(**{"steps": steps, "guidance_scale": _GUIDANCE_SCALE, **options})


@dataclass(frozen=True, eq=False)
class CompactGenerator(DrawnViews):
    """Draws every view with compact networks. Implements `generation.view_generator.ViewGenerator`."""

    config: CompactConfig = field(default_factory=CompactConfig)
    """Size of the drawings, and how they become views."""

    name: str = "compact"

    def generate(
        self,
        portrait: Portrait,
        prior: HeadPrior,
        cameras: Cameras,
        generator: torch.Generator,
        *,
        track: Track = silent,
    ) -> ViewSet:
        self.check(cameras)
        seed, size_px = generator.initial_seed(), self.size_px
        side = max(cameras.width, size_px)
        maps = self._prior_maps(prior, cameras.resized(side, side), track)
        back_maps = self._prior_maps(prior, camera_behind_the_head(cameras.resized(side, side)), silent)
        output = self.pipeline(
            self.reference(portrait, size_px),
            cameras.resized(size_px, size_px),
            maps.control,
            generator=generator,
            back_image=self.given_back(size_px),
            back_control=back_maps.control[0],
            back_start=back_maps.start[0],
            start_views=maps.start,
            sampling=self.sampling_in_force,
            track=track,
        )
        drawn = self._full_size(output.images, maps, cameras.width, track)
        return self.finished(portrait, prior, cameras, drawn, maps.confidence, seed, generator)

    @property
    def size_px(self) -> int:
        """Side of the drawings, pixels."""
        return self.config.size_px or self.pipeline.config["picture_px"] or _DRAWN_PX

    @property
    def sampling_in_force(self) -> Sampling:
        """What was asked for, or what suits these weights and their device."""
        return self.sampling or compact_sampling(self.pipeline)

    @property
    def own_settings(self) -> dict[str, object]:
        """How drawings become views."""
        return {"compact": {**asdict(self.config), "size_px": self.size_px}}

    def check(self, cameras: Cameras) -> None:
        """See that everything needed for views from `cameras` is there, before any time is spent.

        Raises:
            InputError: other weights than compact ones, cameras that are not square, settings of the release's sampler,
                or a picture of the back that cannot be used.
        """
        if not self.pipeline.can_make_views:
            raise InputError("These weights hold the back-view model only; expected the networks of the views as well")
        channels, multiple = self.pipeline.camera_control.sizes.control_channels, self.size_multiple
        if channels != PRIOR_CHANNELS:
            raise InputError(
                f"These weights want control pictures of {channels} channels; expected {PRIOR_CHANNELS} as compact "
                "weights have; views of the official weights are drawn with --generator diffportrait360"
            )
        if self.size_px % multiple:
            raise InputError(
                f"Cannot draw at {self.size_px} pixels with these weights: expected a multiple of {multiple}"
            )
        if cameras.width != cameras.height:
            raise InputError(f"Cannot draw views of {cameras.width}x{cameras.height} pixels: expected a square")
        if self.sampling_in_force.official:
            raise InputError(
                "Cannot follow the release's sampler with compact weights: expected schedule default, got official"
            )
        self.check_back(cameras, "do without it (--diffusion.no-dual-appearance)")

    def _prior_maps(self, prior: HeadPrior, cameras: Cameras, track: Track) -> _PriorMaps:
        """The prior from all cameras, rendered chunk by chunk; of the maps only what is needed later stays."""
        parts = []
        chunks = torch.arange(len(cameras)).split(self.config.views_per_chunk)
        for rows in track(chunks, total=len(chunks), description="Control pictures"):
            here = cameras[rows]
            rendered = prior.render(here)
            pictures = prior_over_white(rendered)
            alpha, validity = torch.from_numpy(rendered.alpha), torch.from_numpy(rendered.validity)
            renders = control_from_prior(rendered, here, size_px=self.size_px)
            kept = (pictures.half(), alpha.half(), validity.half())
            by_prior = self.config.control == "prior"
            control = renders if by_prior else ray_control(here.resized(self.size_px, self.size_px))
            parts.append((*kept, control, start_of_control(renders), drawn_confidence(alpha, validity)))
        return _PriorMaps(*(torch.cat(column) for column in zip(*parts)))

    def _full_size(
        self, drawings: Float[Tensor, "n 3 s s"], maps: _PriorMaps, size_px: int, track: Track
    ) -> UInt8[Tensor, "n h w 4"]:
        """Views of `size_px`, cut out."""
        finished = torch.empty(len(drawings), size_px, size_px, 4, dtype=torch.uint8)
        chunks = torch.arange(len(drawings)).split(self.config.views_per_chunk)
        for rows in track(chunks, total=len(chunks), description="Full-size views"):
            pictures, alpha = maps.pictures[rows].float(), maps.alpha_unit[rows].float()
            validity, upscale = maps.validity_unit[rows].float(), self.config.upscale
            views = full_size_views(drawings[rows], pictures, alpha, validity, upscale)
            finished[rows] = resized_cut_outs(inside_outline(views, pictures, alpha, upscale), size_px)
        return finished


@dataclass(frozen=True)
class _PriorMaps:
    """What the prior shows from all cameras, at the views' size in half precision and at the drawings' size."""

    pictures: Float16[Tensor, "n 3 t t"]
    """Over white, [0, 1]."""
    alpha_unit: Float16[Tensor, "n t t"]
    """Coverage."""
    validity_unit: Float16[Tensor, "n t t"]
    """How far the portrait shows this surface."""
    control: Float[Tensor, "n 7 s s"]
    """What steers the networks, [-1, 1]."""
    start: Float[Tensor, "n 3 s s"]
    """Over white, [0, 1]."""
    confidence: Float[Tensor, " n"]
    """`drawn_confidence`."""

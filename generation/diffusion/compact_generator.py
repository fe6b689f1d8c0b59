"""The view generator `compact`: the prior says how the head looks from everywhere, small networks repaint it.

The compact networks are controlled by renders of the portrait's own prior (colours, validity, normals) instead of
pictures of some other head, and draw at one small size. Views of any size are made of that: `upscale` says how.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor
from typing_extensions import assert_never

from ..cameras import Cameras
from ..errors import InputError
from ..portrait import Portrait
from ..prior import HeadPrior
from ..progress import Track, silent
from ..views import ViewSet
from .conditions import camera_behind_the_head, control_from_prior, prior_over_background
from .control_pictures import PRIOR_CHANNELS, ray_control, resized_cut_outs, start_of_control
from .cutout import CutoutConfig, cut_out_views
from .diffportrait360_generator import (
    drawn_confidence,
    drawn_provenance,
    portrait_view,
    reference_of,
    size_multiple,
    views_behind_portrait,
)
from .pipeline import DiffPortrait360Pipeline
from .release.aligned import AlignedPicture
from .sampling import Sampling
from .upscale import UpscaleConfig, full_size_views, inside_outline
from .view_pictures import ViewPictures, resized_pictures

Control = Literal["prior", "rays"]
Outline = Literal["prior", "drawn"]
_DRAWN_PX = 256


@dataclass(frozen=True)
class CompactConfig:
    """How the compact model is used."""

    size_px: int | None = None
    """Side of the drawings, pixels; None takes what the weights were trained with, 256 where they do not say."""
    control: Control = "prior"
    """What the weights were trained with: renders of the prior, or camera rays (for ablations)."""
    cpu_steps: int = 8
    """Denoising steps on a CPU where neither the caller nor the weights say."""
    gpu_steps: int = 16
    """The same on a GPU."""
    guidance_scale: float = 1.0
    """Guidance where none is asked for; 1 needs one prediction per step instead of two."""
    upscale: UpscaleConfig = field(default_factory=UpscaleConfig)
    """What full-size views take from the drawings and what from the prior."""
    outline: Outline = "prior"
    """prior: views end where the prior does; drawn: they are cut out of the drawings, for weights that know better."""
    views_per_chunk: int = 8
    """Full-size views worked on at once: more needs more memory."""

    def sampling(self, pipeline: DiffPortrait360Pipeline, **options: object) -> Sampling:
        """The settings of a generation where `options` do not say otherwise: the steps the weights draw best in, or
        by the kind of device that they are on."""
        by_device = self.cpu_steps if pipeline.device.type == "cpu" else self.gpu_steps
        steps = pipeline.config.drawing_steps or by_device
        asked = {name: value for name, value in options.items() if value is not None}
        return Sampling(**{"steps": steps, "guidance_scale": self.guidance_scale, **asked})  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class CompactGenerator:
    """Draws every view with compact networks. Implements `generation.generator.ViewGenerator`."""

    pipeline: DiffPortrait360Pipeline
    """Networks, on the device they shall run on."""
    weights_name: str
    """Name and hash of the weights, for provenance."""
    sampling: Sampling | None = None
    """Steps, guidance and clips; None takes what `config` says for the networks' device."""
    config: CompactConfig = field(default_factory=CompactConfig)
    """Size of the drawings, and how they become views."""
    back_image: ViewPictures | None = None
    """One picture of the back of the head over white, aligned as the views are; None lets the networks draw it."""
    aligned: AlignedPicture | None = None
    """The portrait as somebody else aligned it, with its camera, in place of our crop as reference and view 0."""
    cutout: CutoutConfig = field(default_factory=CutoutConfig)
    """How the background is taken off again."""
    surface_points: int = 40_000
    """Surface samples that start a splat fit."""

    name: str = "compact"
    """Name on the command line and in provenance."""

    def generate(
        self,
        portrait: Portrait,
        prior: HeadPrior,
        cameras: Cameras,
        generator: torch.Generator,
        *,
        track: Track = silent,
    ) -> ViewSet:
        """Views from `cameras` behind the portrait itself as view 0.

        Args:
            portrait: the aligned portrait; of a wide crop the networks see the standard frame, which they know.
            prior: its geometric prior: control, start views, detail, outlines and surface samples.
            cameras: square cameras of any picture size.
            generator: source of all randomness; the same state on a CPU gives the same bytes.
            track: progress.

        Returns:
            `len(cameras) + 1` views. Confidence is 1 for the portrait, else as `drawn_confidence`.

        Raises:
            InputError: as `check`.
        """
        self.check(cameras)
        seed, size_px = generator.initial_seed(), self.size_px
        side = max(cameras.width, size_px)
        shown = self._shown(prior, cameras.resized(side, side), track)
        behind = self._shown(prior, camera_behind_the_head(cameras.resized(side, side)), silent)
        made = self.pipeline(
            reference_of(portrait, self.aligned, size_px),
            cameras.resized(size_px, size_px),
            shown.control,
            generator=generator,
            back_image=self._given_back(),
            back_control=behind.control[0],
            back_start=behind.start[0],
            start_views=shown.start,
            sampling=self._sampling,
            track=track,
        )
        return views_behind_portrait(
            portrait_view(portrait, self.aligned, cameras.width),
            self._finished(made.images, shown, cameras.width, track),
            cameras,
            shown.confidence,
            prior.surface_samples(self.surface_points, generator),
            drawn_provenance(self.name, self.weights_name, portrait, prior, seed, self.settings),
        )

    @property
    def size_px(self) -> int:
        """Side of the drawings, pixels."""
        return self.config.size_px or self.pipeline.config.picture_px or _DRAWN_PX

    @property
    def settings(self) -> dict[str, object]:
        """What the views depend on beside the weights, as plain JSON data."""
        settings = {
            "sampling": asdict(self._sampling),
            "compact": {**asdict(self.config), "size_px": self.size_px},
            "cutout": asdict(self.cutout),
            "surface_points": self.surface_points,
            "aligned": None if self.aligned is None else self.aligned.camera_label.tolist(),
            "back_image_sha256": None if self.back_image is None else self.back_image.sha256,
        }
        return json.loads(json.dumps(settings))

    def check(self, cameras: Cameras) -> None:
        """See that everything needed for views from `cameras` is there, before any time is spent.

        Raises:
            InputError: other weights than compact ones, cameras that are not square, settings of the release's sampler,
                or a picture of the back that cannot be used.
        """
        if not self.pipeline.can_make_views:
            raise InputError("These weights hold the back-view model only; expected the networks of the views as well")
        channels, multiple = self.pipeline.camera_control.config.control_channels, size_multiple(self.pipeline)
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
        if self._sampling.official:
            raise InputError(
                "Cannot follow the release's sampler with compact weights: expected schedule default, got official"
            )
        if self.back_image is not None:
            if len(self.back_image) != 1:
                raise InputError(
                    f"{self.back_image.source}: expected one picture of the back of the head, got "
                    f"{len(self.back_image)}"
                )
            self.back_image.require_shape_of(cameras)
        elif self._sampling.dual_appearance and not self.pipeline.can_make_back:
            raise InputError(
                "These weights have no back-view model; give a picture of the back of the head (--back-image), or do "
                "without it (--diffusion.no-dual-appearance)"
            )

    @property
    def _sampling(self) -> Sampling:
        return self.config.sampling(self.pipeline) if self.sampling is None else self.sampling

    def _given_back(self) -> Float[Tensor, "3 h w"] | None:
        if self.back_image is None:
            return None
        return resized_pictures(self.back_image.rgb, self.size_px, self.size_px)[0]

    def _shown(self, prior: HeadPrior, cameras: Cameras, track: Track) -> _Shown:
        """The prior from all cameras, rendered chunk by chunk; of the maps only what is needed later stays."""
        parts = []
        chunks = torch.arange(len(cameras)).split(self.config.views_per_chunk)
        for rows in track(chunks, total=len(chunks), description="Control pictures"):
            here = cameras[rows]
            rendered = prior.render(here)
            pictures = prior_over_background(rendered)
            alpha, validity = torch.from_numpy(rendered.alpha), torch.from_numpy(rendered.validity)
            renders = control_from_prior(rendered, here, size_px=self.size_px)
            kept = (pictures.half(), alpha.half(), validity.half())
            control = self._control(renders, here)
            parts.append((*kept, control, start_of_control(renders), drawn_confidence(alpha, validity)))
        return _Shown(*(torch.cat(column) for column in zip(*parts)))

    def _control(self, renders: Float[Tensor, "n 7 s s"], cameras: Cameras) -> Float[Tensor, "n 7 s s"]:
        match self.config.control:
            case "prior":
                return renders
            case "rays":
                return ray_control(cameras.resized(self.size_px, self.size_px))
            case _:
                assert_never(self.config.control)

    def _finished(
        self, drawings: Float[Tensor, "n 3 s s"], shown: _Shown, size_px: int, track: Track
    ) -> UInt8[Tensor, "n h w 4"]:
        """Views of `size_px`, cut out."""
        finished = torch.empty(len(drawings), size_px, size_px, 4, dtype=torch.uint8)
        chunks = torch.arange(len(drawings)).split(self.config.views_per_chunk)
        for rows in track(chunks, total=len(chunks), description="Full-size views"):
            pictures, alpha = shown.pictures[rows].float(), shown.alpha_unit[rows].float()
            views = full_size_views(
                drawings[rows], pictures, alpha, shown.validity_unit[rows].float(), self.config.upscale
            )
            finished[rows] = resized_cut_outs(self._cut_out(views, pictures, alpha), size_px)
        return finished

    def _cut_out(
        self, views: Float[Tensor, "n 3 t t"], prior_pictures: Float[Tensor, "n 3 t t"], alpha: Float[Tensor, "n t t"]
    ) -> UInt8[Tensor, "n t t 4"]:
        match self.config.outline:
            case "prior":
                return inside_outline(views, prior_pictures, alpha, self.config.upscale)
            case "drawn":
                return cut_out_views(views, alpha, prior_pictures, config=self.cutout)
            case _:
                assert_never(self.config.outline)


@dataclass(frozen=True)
class _Shown:
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

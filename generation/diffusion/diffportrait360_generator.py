"""The view generator `diffportrait360`: the prior says where things are, the diffusion model what they look like."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..cameras import PANOHEAD_FOCAL_NORMALISED, Cameras, concatenate_cameras
from ..errors import InputError
from ..portrait import Portrait
from ..portrait.resample import square_crop
from ..prior import HeadPrior
from ..prior.prior_generator import portrait_rgba
from ..progress import Track, silent
from ..views import PointCloud, Provenance, ViewSet
from .conditions import WHITE, camera_behind_the_head, generic_head_control, prior_over_background
from .cutout import CutoutConfig, cut_out_views
from .pipeline import DiffPortrait360Pipeline
from .release.aligned import AlignedPicture
from .release.checkpoint import sha256_of_file
from .release.convert import CONVERSION_RECORD
from .sampling import Sampling
from .view_pictures import ViewPictures, behind_the_head, pictures_for_cameras, resized_pictures

_SHOWN_CONFIDENCE, _INVENTED_CONFIDENCE = 0.8, 0.5
_CONTROL_CHANNELS = 3


@dataclass(frozen=True, eq=False)
class DiffPortrait360Generator:
    """Draws every view with a `DiffPortrait360Pipeline`. Implements `generation.generator.ViewGenerator`."""

    pipeline: DiffPortrait360Pipeline
    """Networks, on the device they shall run on."""
    weights_name: str
    """Name and hash of the weights, for provenance."""
    sampling: Sampling = field(default_factory=Sampling)
    """Schedule, steps, guidance and clips."""
    back_image: ViewPictures | None = None
    """One picture of the back of the head over the plain background, aligned as the views are; None lets the weights'
    back-view model draw it."""
    condition_views: ViewPictures | None = None
    """Control pictures; None renders the generic head."""
    start_views: ViewPictures | None = None
    """Rough views to start from; None renders the portrait's prior."""
    aligned: AlignedPicture | None = None
    """The portrait as somebody else aligned it, with its camera, in place of our crop as reference and view 0."""
    background_rgb_unit: tuple[float, float, float] = WHITE
    """The plain background, [0, 1]."""
    cutout: CutoutConfig = field(default_factory=CutoutConfig)
    """How the background is taken off again."""
    surface_points: int = 40_000
    """Surface samples that start a splat fit."""

    name: str = "diffportrait360"
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
            prior: its geometric prior: start views, outlines and surface samples.
            cameras: square cameras, a multiple of `size_multiple` pixels wide.
            generator: source of all randomness; the same state on a CPU gives the same bytes.
            track: progress.

        Returns:
            `len(cameras) + 1` views. Confidence is 1 for the portrait, else as `drawn_confidence`.

        Raises:
            InputError: as `check`.
        """
        self.check(cameras)
        seed = generator.initial_seed()
        rendered = prior.render(cameras, track=track, description="Start views")
        expected = prior_over_background(rendered, self.background_rgb_unit)
        start = expected if self.start_views is None else pictures_for_cameras(self.start_views, cameras)
        control, back_control = self._control(cameras, track)
        made = self.pipeline(
            reference_of(portrait, self.aligned, cameras.width, self.background_rgb_unit),
            cameras,
            control,
            generator=generator,
            back_image=self._given_back(cameras),
            back_control=back_control,
            start_views=start,
            sampling=self.sampling,
            track=track,
        )
        silhouettes = torch.from_numpy(rendered.alpha)
        drawn = cut_out_views(
            made.images,
            silhouettes,
            expected,
            background_rgb_unit=self.background_rgb_unit,
            config=self.cutout,
            track=track,
        )
        return views_behind_portrait(
            portrait_view(portrait, self.aligned, cameras.width),
            drawn,
            cameras,
            drawn_confidence(silhouettes, torch.from_numpy(rendered.validity)),
            prior.surface_samples(self.surface_points, generator),
            drawn_provenance(self.name, self.weights_name, portrait, prior, seed, self.settings),
        )

    @property
    def size_multiple(self) -> int:
        """Pixels that the views' side has to be a multiple of: latents must halve evenly at each level of the UNet."""
        return size_multiple(self.pipeline)

    @property
    def settings(self) -> dict[str, object]:
        """What the views depend on beside the weights, as plain JSON data."""
        sources = {
            name: None if pictures is None else pictures.sha256
            for name, pictures in (
                ("back_image_sha256", self.back_image),
                ("condition_views_sha256", self.condition_views),
                ("start_views_sha256", self.start_views),
            )
        }
        settings = {
            "sampling": asdict(self.sampling),
            "cutout": asdict(self.cutout),
            "background_rgb_unit": self.background_rgb_unit,
            "surface_points": self.surface_points,
            "aligned": None if self.aligned is None else self.aligned.camera_label.tolist(),
            **sources,
        }
        return json.loads(json.dumps(settings))

    def check(self, cameras: Cameras) -> None:
        """See that everything needed for views from `cameras` is there, before any time is spent.

        Raises:
            InputError: a picture size that the networks cannot do, weights without the 360 model or without the
                back-view model where no back picture is given, or pictures that do not belong to these cameras.
        """
        if not self.pipeline.can_make_views:
            raise InputError(
                "These weights hold the back-view model only; expected the 360 model as well "
                "(dp360 convert with both official files)"
            )
        channels = self.pipeline.camera_control.config.control_channels
        if channels != _CONTROL_CHANNELS:
            raise InputError(
                f"These weights want control pictures of {channels} channels; expected {_CONTROL_CHANNELS} as in the "
                "release; views of compact weights are drawn by CompactGenerator (--generator compact)"
            )
        width, height, multiple = cameras.width, cameras.height, self.size_multiple
        if width != height or width % multiple:
            nearest = max(multiple, round(width / multiple) * multiple)
            raise InputError(
                f"Cannot draw views of {width}x{height} pixels with these weights: expected a square whose side is a "
                f"multiple of {multiple}; take --size-px {nearest}"
            )
        if self.sampling.dual_appearance and self.back_image is None and not self.pipeline.can_make_back:
            raise InputError(
                "These weights have no back-view model; give a picture of the back of the head "
                "(--back-image), or convert the official back_head-230000.th together with the 360 model"
            )
        if self.back_image is not None:
            if len(self.back_image) != 1:
                raise InputError(
                    f"{self.back_image.source}: expected one picture of the back of the head, got "
                    f"{len(self.back_image)}"
                )
            self.back_image.require_shape_of(cameras)
        for pictures in (self.condition_views, self.start_views):
            if pictures is not None:
                pictures.rows_for(cameras)

    def _control(self, cameras: Cameras, track: Track) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "3 h w"]]:
        """Control pictures of the views and of the camera behind the head, [-1, 1], all of one person if possible."""
        behind = camera_behind_the_head(cameras)
        given = self.condition_views
        if given is None:
            both = generic_head_control(
                concatenate_cameras([cameras, behind]), background_rgb_unit=self.background_rgb_unit, track=track
            )
            return both[:-1], both[-1]
        row = behind_the_head(given, cameras)
        if row is None:
            back = generic_head_control(behind, background_rgb_unit=self.background_rgb_unit)[0]
        else:
            back = resized_pictures(given.rgb[row : row + 1], cameras.width, cameras.height)[0] * 2 - 1
        return pictures_for_cameras(given, cameras) * 2 - 1, back

    def _given_back(self, cameras: Cameras) -> Float[Tensor, "3 h w"] | None:
        if self.back_image is None:
            return None
        return resized_pictures(self.back_image.rgb, cameras.width, cameras.height)[0]


def size_multiple(pipeline: DiffPortrait360Pipeline) -> int:
    """Pixels that a drawing's side has to be a multiple of: latents must halve evenly at each level of the UNet."""
    latent = 2 ** (len(pipeline.camera_control.config.hint_channels) - 1)
    return latent * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)


def drawn_confidence(alpha_unit: Float[Tensor, "n h w"], validity_unit: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Trust in views that a diffusion model drew.

    A drawn view is worth more than the prior's on the far side (0.3), because the sides were drawn together, and no
    more than the portrait's own pixels on the near one.

    Args:
        alpha_unit: the prior's coverage from the same cameras.
        validity_unit: how far the portrait shows what is seen.

    Returns:
        From 0.5 where all was made up to 0.8 where the portrait shows all.
    """
    covered = alpha_unit.sum((1, 2)).clamp(min=1.0)
    shown = (validity_unit * alpha_unit).sum((1, 2)) / covered
    return (_INVENTED_CONFIDENCE + (_SHOWN_CONFIDENCE - _INVENTED_CONFIDENCE) * shown).float()


def drawn_provenance(
    name: str, weights_name: str, portrait: Portrait, prior: HeadPrior, seed: int, settings: dict[str, object]
) -> Provenance:
    """Origin of views that a diffusion model drew with the help of a prior."""
    return Provenance(
        generator=name,
        weights=f"{weights_name}; {prior.weights_name}",
        seed=seed,
        input_sha256=portrait.source_sha256,
        version=importlib.metadata.version("dp360"),
        settings=settings,
    )


def views_behind_portrait(
    first: tuple[UInt8[Tensor, "s s 4"], Cameras],
    drawn: UInt8[Tensor, "n s s 4"],
    cameras: Cameras,
    confidence: Float[Tensor, " n"],
    surface: PointCloud,
    provenance: Provenance,
) -> ViewSet:
    """Drawn views as a set with the portrait as view 0, which is trusted fully."""
    return ViewSet(
        rgba=torch.cat([first[0][None], drawn]),
        cameras=concatenate_cameras([first[1], cameras]),
        confidence=torch.cat([torch.ones(1), confidence]),
        names=("portrait", *(f"view_{i:03d}" for i in range(len(cameras)))),
        surface=surface,
        provenance=provenance,
    )


def portrait_view(
    portrait: Portrait, aligned: AlignedPicture | None, size_px: int
) -> tuple[UInt8[Tensor, "s s 4"], Cameras]:
    """View 0 and its camera; `aligned` takes the portrait's place where it is given."""
    if aligned is not None:
        return aligned.resized_rgba(size_px), aligned.camera.resized(size_px, size_px)
    return portrait_rgba(portrait, size_px), portrait.head.camera.resized(size_px, size_px)


def reference_of(
    portrait: Portrait,
    aligned: AlignedPicture | None,
    size_px: int,
    background_rgb_unit: tuple[float, float, float] = WHITE,
) -> Float[Tensor, "3 s s"]:
    """The portrait over the plain background in the frame that the networks know, [0, 1]; `aligned` as above."""
    if aligned is not None:
        return aligned.over_background(background_rgb_unit, size_px)
    return reference_picture(portrait, size_px, background_rgb_unit)


def reference_picture(
    portrait: Portrait, size_px: int, background_rgb_unit: tuple[float, float, float] = WHITE
) -> Float[Tensor, "3 s s"]:
    """The portrait over a plain background in the standard frame, whatever frame it was cropped to.

    Args:
        portrait: the aligned portrait.
        size_px: side of the result, pixels.
        background_rgb_unit: colour behind the head, [0, 1].

    Returns:
        Colours in [0, 1].
    """
    alpha = portrait.alpha_unit[..., None]
    picture = portrait.foreground_unit * alpha + np.array(background_rgb_unit, np.float32) * (1 - alpha)
    camera = portrait.head.camera
    side = float(camera.focal_px[0, 0]) / PANOHEAD_FOCAL_NORMALISED
    x, y = camera.principal_px[0].tolist()
    cropped = square_crop((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8), (x, y), side, size_px, sharp=True)
    return torch.from_numpy(cropped.astype(np.float32) / 255).permute(2, 0, 1).contiguous()


def weights_name_of(folder: Path, called: str, *, track: Track = silent) -> str:
    """Name and hash of a pipeline folder's weights, for provenance.

    Args:
        folder: the pipeline folder.
        called: what the person called them: a hub id, or a path, of which the last part is taken.
        track: progress of hashing, which folders that were converted by us do not need.

    Returns:
        For example `gym890/diffportrait360 (sha256 0123456789abcdef)`.
    """
    name = Path(called).expanduser().resolve().name if Path(called).expanduser().exists() else called
    record = folder / CONVERSION_RECORD
    if record.is_file():
        hashes = json.loads(record.read_text())["files"]
    else:
        files = sorted(folder.rglob("*.safetensors"))
        hashes = {file.relative_to(folder).as_posix(): sha256_of_file(file, track) for file in files}
    digest = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    return f"{name} (sha256 {digest[:16]})"

"""What the view generators that draw with a `DiffPortrait360Pipeline` share: what they are given, what comes out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..cameras import PANOHEAD_FOCAL_NORMALISED, Cameras, panohead_label_from_cameras
from ..errors import InputError
from ..portrait import Portrait
from ..portrait.resample import square_crop
from ..prior import HeadPrior
from ..prior.prior_generator import portrait_rgba
from ..view_generator import provenance_of, views_with_portrait
from ..views import ViewSet
from .cutout import CutoutConfig
from .pipeline import DiffPortrait360Pipeline
from .release.aligned import AlignedPicture
from .sampling import Sampling
from .view_pictures import ViewPictures, resized_pictures

_SHOWN_CONFIDENCE, _INVENTED_CONFIDENCE = 0.8, 0.5


@dataclass(frozen=True, eq=False)
class DrawnViews:
    """Networks, how they are sampled, and the pictures that people hand in instead of what would be made."""

    pipeline: DiffPortrait360Pipeline
    """Networks, on the device they shall run on."""
    weights_name: str
    """Name and hash of the weights, for provenance."""
    sampling: Sampling | None = None
    """Schedule, steps, guidance and clips; None takes what is best for these weights."""
    back_image: ViewPictures | None = None
    """One picture of the back of the head over the plain background, aligned as the views are; None lets the networks
    draw it."""
    aligned: AlignedPicture | None = None
    """The portrait as somebody else aligned it, with its camera, in place of our crop as reference and view 0."""
    cutout: CutoutConfig = field(default_factory=CutoutConfig)
    """How the background is taken off again."""
    surface_points: int = 40_000
    """Surface samples that start a splat fit."""

    name: str = ""
    """Name on the command line and in provenance."""

    @property
    def sampling_in_force(self) -> Sampling:
        """What the networks are asked for."""
        return self.sampling or Sampling()

    @property
    def size_multiple(self) -> int:
        """Pixels that a drawing's side has to be a multiple of: latents must halve evenly at each level of the UNet."""
        levels = len(self.pipeline.unet.sizes.block_out_channels)
        return self.pipeline.camera_control.sizes.latent_factor * 2 ** (levels - 1)

    @property
    def settings(self) -> dict[str, object]:
        """What the views depend on beside the weights, as plain JSON data."""
        settings = {
            "sampling": asdict(self.sampling_in_force),
            **self.own_settings,
            "cutout": asdict(self.cutout),
            "surface_points": self.surface_points,
            "aligned": None if self.aligned is None else panohead_label_from_cameras(self.aligned.camera)[0].tolist(),
            "back_image_sha256": None if self.back_image is None else self.back_image.sha256,
        }
        return json.loads(json.dumps(settings))

    @property
    def own_settings(self) -> dict[str, object]:
        """What one of the generators has beside the others."""
        return {}

    def check_back(self, cameras: Cameras, cure: str) -> None:
        """See that there is a picture of the back of the head, or networks that draw one, where one is needed.

        Args:
            cure: what to do beside giving a picture.

        Raises:
            InputError: neither, or another picture than one of the views' shape.
        """
        if self.back_image is None:
            if self.sampling_in_force.dual_appearance and not self.pipeline.can_make_back:
                raise InputError(
                    "These weights have no back-view model; give a picture of the back of the head (--back-image), or "
                    + cure
                )
            return
        if len(self.back_image) != 1:
            raise InputError(
                f"{self.back_image.source}: expected one picture of the back of the head, got {len(self.back_image)}"
            )
        self.back_image.require_shape_of(cameras)

    def given_back(self, size_px: int) -> Float[Tensor, "3 s s"] | None:
        """The back of the head as it was handed in, [0, 1]."""
        return None if self.back_image is None else resized_pictures(self.back_image.rgb, size_px, size_px)[0]

    def reference(self, portrait: Portrait, size_px: int) -> Float[Tensor, "3 s s"]:
        """The portrait over white in the frame that the networks know, [0, 1]."""
        if self.aligned is not None:
            return self.aligned.over_white(size_px)
        return reference_picture(portrait, size_px)

    def finished(
        self,
        portrait: Portrait,
        prior: HeadPrior,
        cameras: Cameras,
        drawn: UInt8[Tensor, "n s s 4"],
        confidence: Float[Tensor, " n"],
        seed: int,
        generator: torch.Generator,
    ) -> ViewSet:
        """Drawings, cut out, as a set with the portrait as view 0."""
        if self.aligned is None:
            first = portrait_rgba(portrait, cameras.width), portrait.head.camera
        else:
            first = self.aligned.resized_rgba(cameras.width), self.aligned.camera
        surface = prior.surface_samples(self.surface_points, generator)
        weights = f"{self.weights_name}; {prior.weights_name}"
        settings = {**self.settings, **prior.look_settings}
        origin = provenance_of(self.name, weights, seed, portrait.source_sha256, settings)
        return views_with_portrait(*first, drawn, cameras, confidence, surface, origin)


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


def reference_picture(portrait: Portrait, size_px: int) -> Float[Tensor, "3 s s"]:
    """The portrait over white in the standard frame, whatever frame it was cropped to.

    Returns:
        Colours in [0, 1].
    """
    alpha = portrait.alpha_unit[..., None]
    picture = portrait.foreground_unit * alpha + (1 - alpha)
    camera = portrait.head.camera
    side = float(camera.focal_px[0, 0]) / PANOHEAD_FOCAL_NORMALISED
    x, y = camera.principal_px[0].tolist()
    cropped = square_crop((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8), (x, y), side, size_px, sharp=True)
    return torch.from_numpy(cropped.astype(np.float32) / 255).permute(2, 0, 1).contiguous()

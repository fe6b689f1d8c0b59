"""The view generator `diffportrait360`: the prior says where things are, the diffusion model what they look like."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras import Cameras, concatenate_cameras
from ..errors import InputError
from ..portrait import Portrait
from ..prior import HeadPrior
from ..progress import Track, silent
from ..views import ViewSet
from .conditions import camera_behind_the_head, generic_head_control, prior_over_white
from .cutout import cut_out_views
from .drawn_views import DrawnViews, drawn_confidence
from .release.checkpoint import sha256_of_file
from .release.conversion import CONVERSION_RECORD
from .view_pictures import ViewPictures, behind_the_head, pictures_for_cameras, resized_pictures

_CONTROL_CHANNELS = 3


@dataclass(frozen=True, eq=False)
class DiffPortrait360Generator(DrawnViews):
    """Draws every view with a `DiffPortrait360Pipeline`. Implements `generation.view_generator.ViewGenerator`."""

    condition_views: ViewPictures | None = None
    """Control pictures; None renders the generic head."""
    start_views: ViewPictures | None = None
    """Rough views to start from; None renders the portrait's prior."""

    name: str = "diffportrait360"

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
        seed = generator.initial_seed()
        rendered = prior.render(cameras, track=track, description="Start views")
        expected = prior_over_white(rendered)
        start = expected if self.start_views is None else pictures_for_cameras(self.start_views, cameras)
        control, back_control = self._control(cameras, track)
        output = self.pipeline(
            self.reference(portrait, cameras.width),
            cameras,
            control,
            generator=generator,
            back_image=self.given_back(cameras.width),
            back_control=back_control,
            start_views=start,
            sampling=self.sampling_in_force,
            track=track,
        )
        silhouettes = torch.from_numpy(rendered.alpha)
        drawn = cut_out_views(output.images, silhouettes, expected, config=self.cutout, track=track)
        confidence = drawn_confidence(silhouettes, torch.from_numpy(rendered.validity))
        return self.finished(portrait, prior, cameras, drawn, confidence, seed, generator)

    @property
    def own_settings(self) -> dict[str, object]:
        """What was handed in."""
        given = {"condition_views_sha256": self.condition_views, "start_views_sha256": self.start_views}
        return {name: None if pictures is None else pictures.sha256 for name, pictures in given.items()}

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
        channels = self.pipeline.camera_control.sizes.control_channels
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
        self.check_back(cameras, "convert the official back_head-230000.th together with the 360 model")
        for pictures in (self.condition_views, self.start_views):
            if pictures is not None:
                pictures.rows_for(cameras)

    def _control(self, cameras: Cameras, track: Track) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "3 h w"]]:
        """Control pictures of the views and of the camera behind the head, [-1, 1], all of one person if possible."""
        behind = camera_behind_the_head(cameras)
        given = self.condition_views
        if given is None:
            both = generic_head_control(concatenate_cameras([cameras, behind]), track=track)
            return both[:-1], both[-1]
        row = behind_the_head(given, cameras)
        if row is None:
            back = generic_head_control(behind)[0]
        else:
            back = resized_pictures(given.rgb[row : row + 1], cameras.width, cameras.height)[0] * 2 - 1
        return pictures_for_cameras(given, cameras) * 2 - 1, back


def weights_name_of(folder: Path, called: str, *, track: Track = silent) -> str:
    """Name and hash of a pipeline folder's weights and settings, for provenance.

    Args:
        called: what the person called them: a hub id, or a path, of which the last part is taken.
        track: progress of hashing, which folders that were converted by us do not need.

    Returns:
        For example `gym890/diffportrait360 (sha256 0123456789abcdef)`.
    """
    name = Path(called).expanduser().resolve().name if Path(called).expanduser().exists() else called
    record = folder / CONVERSION_RECORD
    if record.is_file():
        hashes = json.loads(record.read_text("utf-8"))["files"]
    else:
        files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors"))
        hashes = {file.relative_to(folder).as_posix(): sha256_of_file(file, track) for file in files}
    digest = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    return f"{name} (sha256 {digest[:16]})"

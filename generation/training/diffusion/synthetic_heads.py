"""Composed heads on the fly: composed, photographed, fitted and drawn when a clip asks for them.

What `dp360 data heads` writes to disk, without the disk: the same numbers and seeds give the same heads and cameras. A
head takes some seconds to make, so that a source of this kind pays where heads are cheap compared with the training.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...cameras import Cameras, concatenate_cameras
from ...errors import InputError
from ...synthetic.asset_pack import require_head_assets
from .head_pictures import HeadPictures, RecentHeads

if TYPE_CHECKING:
    from ...prior import HeadPrior
    from ...synthetic.fitted_composed_head import FittedComposedHead

_TRIES = 20


class SyntheticHeads(RecentHeads):
    """A `HeadSource` of composed heads. Needs the head assets and everything that the prior needs."""

    def __init__(self, data: Path, count: int, *, views: int = 36, seed: int = 0, cache_heads: int = 8) -> None:
        """Make nothing yet.

        Args:
            data: folder of the head assets.
            count: heads of the split `train`, from the first on.
            views: cameras on an orbit that rises and sinks, beside the portrait's own, which is view 0.
            seed: of portraits and cameras.
            cache_heads: heads that stay in memory with what was drawn of them.

        Raises:
            InputError: no assets there.
        """
        require_head_assets(data)
        # imported when needed: training on folders gets along without the packages of the prior
        from ...synthetic.fitted_composed_head import NumberedHeads

        self._numbered, self._views = NumberedHeads(data, "train", seed), views
        super().__init__(f"composed heads 0 to {count - 1}", self._composed, count, cache_heads)

    def _composed(self, index: int) -> ComposedHead:
        """The head with this number; where no face is found in its portrait, one with a number behind the last."""
        from ...synthetic.head_dataset import orbit_cameras

        for attempt in range(_TRIES):
            made = self._numbered.make(index + attempt * len(self))
            if made is not None:
                own = made.fitted.portrait.head.camera
                around = orbit_cameras("swinging", self._views, own.width, made.seed)
                cameras = concatenate_cameras([own, around])
                return ComposedHead(made.name, made.fitted, cameras, made.seed)
        raise InputError(f"{self.name}: no face was found in the portraits of {_TRIES} heads in a row")


class ComposedHead(HeadPictures):
    """A composed head whose views and prior are drawn when they are asked for, at the size asked for."""

    has_control = True

    def __init__(self, name: str, fitted: FittedComposedHead, cameras: Cameras, seed: int) -> None:
        super().__init__(name)
        self._fitted, self._cameras, self._seed = fitted, cameras, seed

    @property
    def cameras(self) -> Cameras:
        """The portrait's camera, then the orbit."""
        return self._cameras

    @cached_property
    def _prior(self) -> HeadPrior:
        return self._fitted.prior(seed=self._seed)

    def _read_rgba(self, view: int, size_px: int) -> UInt8[Tensor, "h w 4"]:
        return self._true_view(self._cameras[view].resized(size_px, size_px))

    def _read_control(self, view: int, size_px: int) -> Float[Tensor, "7 s s"]:
        from ...diffusion.conditions import control_from_prior

        camera = self._cameras[view].resized(size_px, size_px)
        return control_from_prior(self._prior.render(camera), camera)[0]

    def _read_portrait(self) -> UInt8[Tensor, "h w 4"]:
        from ...prior.prior_generator import portrait_rgba

        portrait = self._fitted.portrait
        return portrait_rgba(portrait, portrait.rgb.shape[0])

    def _read_back(self, size_px: int) -> UInt8[Tensor, "h w 4"]:
        from ...diffusion.conditions import camera_behind_the_head

        return self._true_view(camera_behind_the_head(self._cameras.resized(size_px, size_px)))

    def _true_view(self, camera: Cameras) -> UInt8[Tensor, "h w 4"]:
        return torch.from_numpy(self._fitted.true_views(camera).rgba[0])

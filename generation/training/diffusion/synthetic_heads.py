"""Composed heads on the fly: composed, photographed, fitted and drawn when a clip asks for them.

What `dp360 data heads` writes to disk, without the disk: the same numbers and seeds give the same heads and cameras. A
head takes some seconds to make, so that a source of this kind pays where heads are cheap compared with the training.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...cameras import Cameras, concatenate_cameras
from ...errors import InputError
from .head_cache import CachedHead, RecentHeads

if TYPE_CHECKING:
    from ...head_model import HeadModel
    from ...portrait.face_detection import FaceNetworks
    from ...portrait.matte import PersonNetworks
    from ...prior import HeadPrior
    from ...synthetic.assets import Split
    from ...synthetic.backgrounds import Backgrounds
    from ...synthetic.fitted import FittedHead
    from ...synthetic.head_data import Orbit

_TRIES = 20


class SyntheticHeads:
    """A `HeadSource` of composed heads. Needs the head assets and everything that the prior needs."""

    def __init__(
        self, data: Path, count: int, *, split: Split = "train", first: int = 0, orbit: Orbit = "swinging",
        views: int = 36, seed: int = 0, cache_heads: int = 8,
    ) -> None:  # fmt: skip
        """Make nothing yet.

        Args:
            data: folder of the head assets, as `dp360 data heads --data` takes it.
            count: heads of the source.
            split: whose shapes, skins and hair.
            first: number of the first head.
            orbit: where the cameras are, beside the portrait's own, which is view 0.
            views: cameras on the orbit.
            seed: of portraits and cameras.
            cache_heads: heads that stay in memory with what was drawn of them.

        Raises:
            InputError: no assets there, or a number that makes no sense.
        """
        if not data.is_dir():
            raise InputError(f"No head assets at {data}; expected a folder with makehuman, valid, hdri and the others")
        if count < 1 or views < 1 or first < 0:
            raise InputError(
                f"Expected at least one head and one view and no negative number, got {count} heads from {first} with "
                f"{views} views"
            )
        self.name = f"composed heads {split} {first} to {first + count - 1}"
        self._data, self._count, self._first, self._views, self._seed = data, count, first, views, seed
        self._split: Split = split
        self._orbit: Orbit = orbit
        self._heads = RecentHeads(self._made, cache_heads)

    def __len__(self) -> int:
        return self._count

    def head(self, index: int) -> ComposedHead:
        """The head with this number; where no face is found in its portrait, one with a number behind the last.

        Raises:
            InputError: the assets are damaged, or too many portraits in a row show no face.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: there are {len(self)} heads, asked for number {index}")
        return self._heads[index]

    def _made(self, index: int) -> ComposedHead:
        from ...synthetic.assets import asset_index, sub_seed
        from ...synthetic.compose import compose
        from ...synthetic.fitted import fitted_head
        from ...synthetic.head_data import orbit_cameras
        from ...synthetic.recipe import sample_recipe

        backgrounds, faces, people, model = self._tools
        for attempt in range(_TRIES):
            number = self._first + index + attempt * self._count
            seed = sub_seed(self._seed, f"{self._split}/{number}")
            head = compose(sample_recipe(number, asset_index(), self._split), self._data)
            fitted = fitted_head(head, backgrounds, seed, faces, people, model=model)
            if fitted is not None:
                own = fitted.portrait.head.camera
                around = orbit_cameras(self._orbit, self._views, own.width, seed % 2**31)
                cameras = concatenate_cameras([own, around])
                return ComposedHead(f"{self._split}_{number:06d}", fitted, cameras, model, seed % 2**31)
        raise InputError(f"{self.name}: no face was found in the portraits of {_TRIES} heads in a row")

    @cached_property
    def _tools(self) -> tuple[Backgrounds, FaceNetworks, PersonNetworks, HeadModel]:
        """What all heads share."""
        from ...head_model import load_head_model
        from ...portrait.face_detection import FaceNetworks
        from ...portrait.matte import PersonNetworks
        from ...synthetic.backgrounds import Backgrounds

        backgrounds = Backgrounds.of_split(self._data, self._split)
        return backgrounds, FaceNetworks(), PersonNetworks(), load_head_model()


class ComposedHead(CachedHead):
    """A composed head whose views and prior are drawn when they are asked for, at the size asked for."""

    has_control = True

    def __init__(self, name: str, fitted: FittedHead, cameras: Cameras, model: HeadModel, seed: int) -> None:
        super().__init__(name)
        self._fitted, self._cameras, self._model, self._seed = fitted, cameras, model, seed

    @property
    def cameras(self) -> Cameras:
        """The portrait's camera, then the orbit."""
        return self._cameras

    @cached_property
    def _prior(self) -> HeadPrior:
        return self._fitted.prior(self._model, seed=self._seed)

    def _read_rgba(self, view: int, size_px: int) -> UInt8[Tensor, "h w 4"]:
        return self._true_view(self._cameras[view].resized(size_px, size_px))

    def _read_control(self, view: int, size_px: int) -> Float[Tensor, "7 s s"]:
        from ...diffusion.conditions import control_from_prior

        camera = self._cameras[view].resized(size_px, size_px)
        return control_from_prior(self._prior.render(camera), camera)[0]

    def _read_portrait(self) -> UInt8[Tensor, "h w 4"]:
        from ...prior.generator import portrait_rgba

        portrait = self._fitted.portrait
        return portrait_rgba(portrait, portrait.rgb.shape[0])

    def _read_back(self, size_px: int) -> UInt8[Tensor, "h w 4"]:
        from ...diffusion.conditions import camera_behind_the_head

        return self._true_view(camera_behind_the_head(self._cameras.resized(size_px, size_px)))

    def _true_view(self, camera: Cameras) -> UInt8[Tensor, "h w 4"]:
        drawn = self._fitted.true_views(camera)
        rgba = np.concatenate([drawn.rgb_unit, drawn.alpha_unit[..., None]], axis=-1)[0]
        return torch.from_numpy(np.round(255 * rgba.clip(0, 1)).astype(np.uint8))

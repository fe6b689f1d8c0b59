"""Composed heads on the fly: composed, photographed, fitted and drawn when a clip asks for them.

What `dp360 data heads` writes to disk, without the disk: the same numbers and seeds give the same heads and cameras. A
head takes some seconds to make, so that a source of this kind pays where heads are cheap compared with the training.
What needs the packages of the prior is imported when needed: training on folders gets along without them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...cameras import Cameras, concatenate_cameras
from ...errors import InputError
from ...synthetic.asset_pack import require_head_assets
from .head_pictures import HeadPictures, HeadSource

if TYPE_CHECKING:
    from ...synthetic.fitted_composed_head import NumberedHead

_TRIES = 20


def synthetic_heads(data: Path, count: int, *, views: int = 36, seed: int = 0, cache_heads: int = 8) -> HeadSource:
    """A source of composed heads, none made yet. Needs everything that the prior needs.

    Where no face is found in the portrait of a number, the head has a number behind the last.

    Args:
        count: heads of the split `train`, from the first on.
        views: cameras on an orbit that rises and sinks, beside the portrait's own, which is view 0.
        seed: of portraits and cameras.
        cache_heads: heads that stay in memory with what was drawn of them.

    Raises:
        InputError: no assets there.
    """
    require_head_assets(data)
    from ...synthetic.fitted_composed_head import NumberedHeads

    numbered, name = NumberedHeads(data, "train", seed), f"composed heads 0 to {count - 1}"

    def composed(index: int) -> HeadPictures:
        for attempt in range(_TRIES):
            made = numbered.make(index + attempt * count)
            if made is not None:
                return _drawn_head(made, views)
        raise InputError(f"{name}: no face was found in the portraits of {_TRIES} heads in a row")

    return HeadSource(name, composed, count, cache_heads)


def _drawn_head(made: NumberedHead, views: int) -> HeadPictures:
    """A composed head whose views and prior are drawn when they are asked for, at the size asked for."""
    from ...diffusion.conditions import camera_behind_the_head, control_from_prior
    from ...prior.prior_generator import portrait_rgba
    from ...synthetic.head_dataset import orbit_cameras

    portrait = made.fitted.portrait
    own = portrait.head.camera
    cameras = concatenate_cameras([own, orbit_cameras("swinging", views, own.width, made.seed)])
    prior = functools.cache(lambda: made.fitted.prior(seed=made.seed))

    def true_view(camera: Cameras) -> UInt8[Tensor, "h w 4"]:
        return torch.from_numpy(made.fitted.true_views(camera).rgba[0])

    def control(view: int, size_px: int) -> Float[Tensor, "7 s s"]:
        camera = cameras[view].resized(size_px, size_px)
        return control_from_prior(prior().render(camera), camera)[0]

    return HeadPictures(
        made.name,
        cameras,
        lambda view, size_px: true_view(cameras[view].resized(size_px, size_px)),
        control,
        read_portrait=lambda *_: portrait_rgba(portrait, portrait.rgb.shape[0]),
        read_back=lambda _, size_px: true_view(camera_behind_the_head(cameras.resized(size_px, size_px))),
    )

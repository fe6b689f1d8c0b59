"""Heads as pictures, decoded when asked for and kept: clips come back to the same heads, and PNGs are slow to open."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, int8

from ...cameras import Cameras
from ...dataset.posed_frames import picture_size
from ...diffusion.control_pictures import resized_cut_outs
from ...errors import InputError

_CONTROL_STEPS = 127
Reader = Callable[[int, int], UInt8[Tensor, "h w 4"] | None]
"""Reads a straight picture of any size, or None where there is none, of a view (0 where pictures belong to no view);
told the size that will be made of it."""


def _nothing(view: int, size_px: int) -> None:
    """Reads no picture."""


@dataclass(eq=False)
class HeadPictures:
    """Pictures of one head; what was read is kept in 8 bits, at each size that was asked for.

    Sizes are sides of square pictures in pixels; pictures are straight, colour and alpha in [0, 1].
    """

    name: str
    """For messages; different heads of a source have different ones."""
    cameras: Cameras
    """A camera for each view, of any picture size."""
    read_rgba: Reader
    """Reads views; never None."""
    read_control: Callable[[int, int], Float[Tensor, "7 s s"]] | None = None
    """Draws the prior's control picture of a view at a size, where there is a prior fitted to the head."""
    read_driver: Reader = _nothing
    """Reads another head from the view's camera."""
    read_portrait: Reader = _nothing
    """Reads the prepared portrait."""
    read_back: Reader = _nothing
    """Reads the view from straight behind."""
    has_poses: bool = True
    """False where the cameras tell no more than which views show the front and which the back."""
    _kept: dict[tuple[str, int, int], Tensor | None] = field(default_factory=dict)

    def rgba(self, view: int, size_px: int) -> Float[Tensor, "4 s s"]:
        """One view."""
        picture = self.picture("rgba", size_px, view)
        assert picture is not None
        return picture

    def control(self, view: int, size_px: int) -> Float[Tensor, "7 s s"]:
        """The prior from that view's camera (`control_pictures.prior_control`); only with `read_control`.

        It is kept in steps of 1/127, so that 0 stays 0.
        """
        assert self.read_control is not None
        key = ("control", view, size_px)
        if key not in self._kept:
            self._kept[key] = (_CONTROL_STEPS * self.read_control(view, size_px)).round().to(int8)
        kept = self._kept[key]
        assert kept is not None
        return kept / _CONTROL_STEPS

    def picture(
        self, kind: Literal["rgba", "driver", "portrait", "back"], size_px: int, view: int = 0
    ) -> Float[Tensor, "4 s s"] | None:
        """What the reader of that name gives; None where there is none."""
        key = (kind, view, size_px)
        if key not in self._kept:
            picture = getattr(self, f"read_{kind}")(view, size_px)
            if picture is not None:
                picture = resized_cut_outs(picture[None], size_px)[0].permute(2, 0, 1).contiguous()
            self._kept[key] = picture
        kept = self._kept[key]
        return None if kept is None else kept / 255


class HeadSource:
    """A numbered lot of heads; it keeps those that were asked for last, others are made anew."""

    def __init__(self, name: str, make: Callable[[int], HeadPictures], count: int, keep: int = 0) -> None:
        """Make nothing yet.

        Args:
            make: makes the head of a number from 0 to `count` - 1.
            keep: heads to keep.
        """
        if keep < 0:
            raise InputError(f"Expected 0 or more heads to be kept in memory, got {keep}")
        self.name, self._count = name, count
        self._made = functools.lru_cache(keep)(make)

    def __len__(self) -> int:
        return self._count

    def head(self, index: int) -> HeadPictures:
        """The head with this number."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} heads, asked for number {index}")
        return self._made(index)


def picture_pixels(path: Path, mode: str, size_px: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w *c"]:
    """A picture file as bytes.

    Args:
        path: any format that pillow opens.
        mode: of pillow: L, RGB or RGBA; without alpha a picture is opaque.
        size_px: expected width and height, compared before anything is decoded.

    Raises:
        InputError: missing, damaged, or of another size.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; copy it back or leave its head out")
    if size_px is not None and picture_size(path) != size_px:
        raise InputError(f"{path} is {picture_size(path)} pixels, expected {size_px} as the views of its head")
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"Cannot read the picture {path}: {error}") from error

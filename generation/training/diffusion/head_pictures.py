"""Heads as pictures, decoded when asked for and kept: clips come back to the same heads, and PNGs are slow to open."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ...cameras import Cameras
from ...dataset.posed_frames import picture_size
from ...diffusion.control_pictures import resized_cut_outs
from ...errors import InputError

_CONTROL_STEPS = 127


class RecentHeads:
    """A `HeadSource` that keeps the heads that were asked for last; others are made anew."""

    def __init__(self, name: str, make: Callable[[int], HeadPictures], count: int, keep: int) -> None:
        """Make nothing yet.

        Args:
            name: for messages.
            make: makes the head of a number from 0 to `count` - 1.
            count: heads of the source.
            keep: heads to keep, at least 1.
        """
        if keep < 1:
            raise InputError(f"Expected at least one head to be kept in memory, got {keep}")
        self.name, self._count = name, count
        self._made = functools.lru_cache(keep)(make)

    def __len__(self) -> int:
        return self._count

    def head(self, index: int) -> HeadPictures:
        """The head with this number."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} heads, asked for number {index}")
        return self._made(index)


class HeadPictures(ABC):
    """Pictures of one head; what was read is kept in 8 bits, at each size that was asked for.

    Sizes are sides of square pictures in pixels; pictures are straight, colour and alpha in [0, 1].
    """

    has_poses: bool = True
    """False where the cameras tell no more than which views show the front and which the back."""
    has_control: bool = False
    """Whether there is a prior fitted to the head."""

    def __init__(self, name: str) -> None:
        """`name` is for messages; different heads of a source have different ones."""
        self.name = name
        self._kept: dict[tuple[str, int, int], Tensor | None] = {}

    @property
    @abstractmethod
    def cameras(self) -> Cameras:
        """A camera for each view, of any picture size."""

    @abstractmethod
    def _read_rgba(self, view: int, size_px: int) -> UInt8[Tensor, "h w 4"]:
        """One view, straight, of any size; `size_px` is what will be made of it."""

    def _read_control(self, view: int, size_px: int) -> Float[Tensor, "7 s s"]:
        """The prior's control picture."""
        raise InputError(f"{self.name} has no prior; choose another control")

    def _read_driver(self, view: int) -> UInt8[Tensor, "h w 4"] | None:
        """Another head from the view's camera."""
        return None

    def _read_portrait(self) -> UInt8[Tensor, "h w 4"] | None:
        """The prepared portrait."""
        return None

    def _read_back(self, size_px: int) -> UInt8[Tensor, "h w 4"] | None:
        """The view from straight behind."""
        return None

    def rgba(self, view: int, size_px: int) -> Float[Tensor, "4 s s"]:
        """One view."""
        picture = self._picture("rgba", view, size_px, lambda: self._read_rgba(view, size_px))
        assert picture is not None
        return picture

    def control(self, view: int, size_px: int) -> Float[Tensor, "7 s s"]:
        """The prior from that view's camera (`control_pictures.prior_control`); only with `has_control`.

        It is kept in steps of 1/127, so that 0 stays 0.
        """
        key = ("control", view, size_px)
        if key not in self._kept:
            self._kept[key] = (_CONTROL_STEPS * self._read_control(view, size_px)).round().to(torch.int8)
        kept = self._kept[key]
        assert kept is not None
        return kept / _CONTROL_STEPS

    def driver(self, view: int, size_px: int) -> Float[Tensor, "4 s s"] | None:
        """A picture of another head from that view's camera; None where the source gives none."""
        return self._picture("driver", view, size_px, lambda: self._read_driver(view))

    def portrait(self, size_px: int) -> Float[Tensor, "4 s s"] | None:
        """The portrait as a user's picture is prepared; None where there is none."""
        return self._picture("portrait", 0, size_px, self._read_portrait)

    def back(self, size_px: int) -> Float[Tensor, "4 s s"] | None:
        """The view from straight behind, where it is no view of its own; None where there is none."""
        return self._picture("back", 0, size_px, lambda: self._read_back(size_px))

    def _picture(
        self, kind: str, view: int, size_px: int, read: Callable[[], UInt8[Tensor, "h w 4"] | None]
    ) -> Float[Tensor, "4 s s"] | None:
        key = (kind, view, size_px)
        if key not in self._kept:
            picture = read()
            if picture is not None:
                picture = resized_cut_outs(picture[None], size_px)[0].permute(2, 0, 1).contiguous()
            self._kept[key] = picture
        kept = self._kept[key]
        return None if kept is None else kept / 255


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

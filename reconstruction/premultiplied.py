"""Views as the fits want them: floats, colour times alpha, at the size of a step."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


class PremultipliedPictures:
    """Views as floats, colour times alpha, and alpha: made from their bytes when a step asks for them.

    What fits into `most_bytes` is kept until another size is asked for; a data set of any size takes no more. The small
    pictures that a fit starts on fit in, which take longest to make, and a few of the large ones.
    """

    def __init__(self, most_bytes: int = 1 << 26) -> None:
        self._most_bytes, self._kept, self._size = most_bytes, dict[int, Tensor](), (0, 0)

    def get(self, view: int, picture: Tensor, scale: float) -> Float[Tensor, "h2 w2 4"]:
        """One view, averaged over areas to `scale` times its size, on the device of `picture`.

        Args:
            picture: `[h w 4]` with straight alpha or `[h w 3]`, which is opaque; 8 bits, or floats in [0, 1].
            scale: of the sides.
        """
        size = (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale)))
        if size != self._size:
            self._kept.clear()
            self._size = size
        if view in self._kept:
            return self._kept[view]
        made = premultiplied_picture(picture, size)
        if (len(self._kept) + 1) * made.nbytes <= self._most_bytes:
            self._kept[view] = made
        return made


def premultiplied_picture(picture: Tensor, size: tuple[int, int]) -> Float[Tensor, "h2 w2 4"]:
    """Colour times alpha, and alpha, in [0, 1], averaged over areas to `size` (height, width).

    Args:
        picture: `[h w 4]` with straight alpha or `[h w 3]`, which is opaque; 8 bits, or floats in [0, 1].
        size: wanted height and width, pixels.
    """
    is_kernels = picture.device.type == "cpu" and picture.dtype == torch.uint8 and picture.shape[-1] == 4
    made = _from_bytes(picture) if is_kernels else plain_premultiplied(picture)
    if tuple(made.shape[:2]) == size:
        return made
    smaller = torch.nn.functional.interpolate(made.permute(2, 0, 1)[None], size=size, mode="area")
    return smaller[0].permute(1, 2, 0).contiguous()


def plain_premultiplied(picture: Tensor) -> Float[Tensor, "h w 4"]:
    """`premultiplied_picture` at the picture's own size, on every device."""
    unit = picture.float() / 255 if picture.dtype == torch.uint8 else picture
    alpha = unit[..., 3:] if unit.shape[-1] == 4 else torch.ones_like(unit[..., :1])
    return torch.cat([unit[..., :3] * alpha, alpha], dim=-1)


def _from_bytes(rgba: UInt8[Tensor, "h w 4"]) -> Float[Tensor, "h w 4"]:
    """The same of bytes on the CPU, to the bit, in a tenth of the time."""
    made = np.empty(tuple(rgba.shape), np.float32)
    _premultiply(np.ascontiguousarray(rgba.numpy()).reshape(-1, 4), made.reshape(-1, 4))
    return torch.from_numpy(made)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _premultiply(rgba, made):
    """Fill `made` with premultiplied floats, pixel by pixel."""
    unit = np.empty(256, np.float32)
    for value in range(256):
        unit[value] = np.float32(value) / np.float32(255)
    for i in range(rgba.shape[0]):
        alpha = unit[rgba[i, 3]]
        for k in range(3):
            made[i, k] = unit[rgba[i, k]] * alpha
        made[i, 3] = alpha

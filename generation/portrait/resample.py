"""Square parts of a picture at another resolution, antialiased, with the picture's edge repeated outside."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from ..cameras import PANOHEAD_FOCAL_NORMALISED, Cameras
from ..head_model import HeadFit


def square_crop(
    picture: UInt8[np.ndarray, "h w *c"],
    center_px: tuple[float, float] | Float[np.ndarray, " 2"],
    side_px: float,
    size_px: int,
    *,
    sharp: bool = False,
) -> UInt8[np.ndarray, "size size *c"]:
    """A square part of a picture, resampled; a position x of the picture goes to (x - corner) * size_px / side_px.

    Args:
        picture: 8 bits, one or three channels.
        center_px: middle of the square, pixels, pixel centres at +0.5.
        side_px: side of the square, pixels of the picture.
        size_px: side of the result, pixels.
        sharp: Lanczos instead of a triangle filter; both are widened when the picture is reduced.
    """
    corner = np.asarray(center_px) - side_px / 2
    margin = 4 + int(np.ceil(4 * side_px / size_px))  # what the widened filter reads beyond the square
    first = np.floor(corner).astype(int) - margin
    count = int(np.ceil(side_px)) + 2 * margin + 1
    rows = np.clip(np.arange(first[1], first[1] + count), 0, picture.shape[0] - 1)
    columns = np.clip(np.arange(first[0], first[0] + count), 0, picture.shape[1] - 1)
    part = Image.fromarray(np.ascontiguousarray(picture[rows][:, columns]))
    left, top = corner - first
    resampled = part.resize(
        (size_px, size_px),
        Image.Resampling.LANCZOS if sharp else Image.Resampling.BILINEAR,
        box=(left, top, left + side_px, top + side_px),
    )
    return np.array(resampled)


@dataclass(frozen=True)
class CropFrame:
    """A square of the picture, and the crop that it becomes."""

    center_px: tuple[float, float]
    """Middle, pixels of the picture."""
    side_px: float
    """Side, pixels of the picture."""
    size_px: int
    """Side of the crop, pixels."""

    @staticmethod
    def of(head: HeadFit, factor: float, size_px: int) -> CropFrame:
        """The standard frame (times `factor`) round a head, in pixels of the picture the head was fitted in."""
        x, y = head.camera.principal_px[0].tolist()
        return CropFrame((x, y), factor * float(head.camera.focal_px[0, 0]) / PANOHEAD_FOCAL_NORMALISED, size_px)

    @property
    def scale(self) -> float:
        """Pixels of the crop per pixel of the picture."""
        return self.size_px / self.side_px

    @property
    def offset_px(self) -> tuple[float, float]:
        """A pixel p of the picture becomes `scale * p + offset_px` of the crop."""
        x, y = self.center_px
        return self.size_px / 2 - x * self.scale, self.size_px / 2 - y * self.scale

    def point(self, place_px: Float[np.ndarray, " 2"]) -> tuple[float, float]:
        """A place of the picture in the crop."""
        x, y = (float(place_px[k]) * self.scale + self.offset_px[k] for k in (0, 1))
        return x, y

    def head(self, fit: HeadFit) -> HeadFit:
        """A head fitted in the picture, in the crop."""
        return replace(fit, camera=self.camera(fit.camera), residual_px=fit.residual_px * self.scale)

    def camera(self, camera: Cameras) -> Cameras:
        """A camera of the picture as that of the crop."""
        principal_px = camera.principal_px * self.scale + torch.tensor([self.offset_px], dtype=torch.float64)
        focal_px = camera.focal_px * self.scale
        return Cameras(camera.T_world_camera, focal_px, principal_px, self.size_px, self.size_px)

    def part(self, picture: UInt8[np.ndarray, "h w *c"], *, sharp: bool = False) -> UInt8[np.ndarray, "size size *c"]:
        """The crop, by `square_crop`."""
        return square_crop(picture, self.center_px, self.side_px, self.size_px, sharp=sharp)

    def inside(self, picture: UInt8[np.ndarray, "h w *c"]) -> Bool[np.ndarray, "size size"]:
        """True for the crop's pixels whose centres lie within a picture."""
        height, width = picture.shape[:2]
        steps = (np.arange(self.size_px) + 0.5) * (self.side_px / self.size_px) - self.side_px / 2
        x, y = self.center_px[0] + steps, self.center_px[1] + steps
        return ((y >= 0) & (y <= height))[:, None] & ((x >= 0) & (x <= width))[None, :]

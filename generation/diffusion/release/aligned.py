"""A portrait that somebody else aligned: the picture as it is, with the 25 numbers of its camera."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ...cameras import Cameras, cameras_from_panohead_label
from ...errors import InputError
from ...head_model import load_head_model, mean_head_fit
from ...portrait import load_image
from ...portrait.matte import estimate_matte, head_zones, person_maps
from ...portrait.person_networks import PersonNetworks
from ...portrait.resample import CropFrame

_MOST_OBLONG = 1.01


@dataclass(frozen=True, eq=False)
class AlignedPicture:
    """A cut-out portrait in PanoHead's frame."""

    rgba: UInt8[Tensor, "s s 4"]
    """Straight colour and alpha."""
    camera: Cameras
    """The one camera that took it, of the picture's size."""

    def resized_rgba(self, size_px: int) -> UInt8[Tensor, "t t 4"]:
        """The picture at another size."""
        if size_px == self.rgba.shape[0]:
            return self.rgba
        return torch.from_numpy(np.array(Image.fromarray(self.rgba.numpy(), "RGBA").resize((size_px, size_px))))

    def over_white(self, size_px: int) -> Float[Tensor, "3 t t"]:
        """The picture over white, [0, 1]."""
        rgba = self.rgba.float() / 255
        mixed = rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])
        picture = Image.fromarray((mixed * 255).round().byte().numpy()).resize((size_px, size_px))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def read_aligned_picture(path: Path, label: Float[Tensor, " 25"]) -> AlignedPicture:
    """Read an aligned crop and cut it out, without moving it.

    Its transparency is taken where it has one; otherwise the person is segmented as in the portrait preparation, with
    an average head under the given camera as the guide.

    Args:
        path: a square picture.

    Raises:
        InputError: the picture cannot be read or is not square.
    """
    loaded = load_image(path)
    height, width = loaded.rgb.shape[:2]
    if max(width, height) > _MOST_OBLONG * min(width, height):
        raise InputError(f"{path}: expected an aligned crop, which is square, got {width}x{height} pixels")
    size = min(width, height)
    rgb = np.ascontiguousarray(loaded.rgb[:size, :size])
    camera = cameras_from_panohead_label(label[None], size_px=size)
    model = load_head_model()
    focal, principal = float(camera.focal_px[0, 0]), (size / 2, size / 2)
    average = dataclasses.replace(mean_head_fit(model, focal, principal, size, size), camera=camera)
    zones = head_zones(average, model)
    maps = person_maps(rgb, CropFrame(principal, float(size), size), (float(size),), PersonNetworks())
    alpha = None if loaded.alpha is None else np.ascontiguousarray(loaded.alpha[:size, :size])
    matte = estimate_matte(rgb, np.ones((size, size), bool), zones, maps, file_alpha=alpha)
    rgba = np.concatenate([matte.foreground_unit, matte.alpha_unit[..., None]], axis=-1)
    return AlignedPicture(torch.from_numpy((rgba.clip(0, 1) * 255 + 0.5).astype(np.uint8)), camera)

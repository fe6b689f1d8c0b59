"""LPIPS, the distance of pictures in the features of a trained network, where its weights lie on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dp360.generation import InputError

BACKBONES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""torchvision's file of each network's features, in the order in which a fit looks for them."""
MIN_SIZE_PX = 32
"""Smaller pictures vanish on their way through the networks."""


class Lpips:
    """The distance with one network; not a module, so that no checkpoint holds its weights.

    Args:
        network: `vgg` or `alex`.
        device: where pictures will be.

    Raises:
        InputError: the features are not here; `weights_file` says where they belong. Nothing is downloaded.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, Eq. 1; the
    network and its weights on the features are torchmetrics'.
    """

    def __init__(self, network: str, device: torch.device | str = "cpu") -> None:
        if not weights_file(network).is_file():
            place = weights_file(network)
            raise InputError(f"LPIPS: expected the features of {network} at {place}; --perceptual lpips downloads them")
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        metric: Any = LearnedPerceptualImagePatchSimilarity(net_type=network, normalize=True)  # type: ignore[arg-type]
        self._net = metric.net.to(device).eval().requires_grad_(False)
        self.name = f"LPIPS ({network}, {BACKBONES[network].removesuffix('.pth')})"

    def __call__(self, rgb: Float[Tensor, "h w 3"], target: Float[Tensor, "h w 3"]) -> Float[Tensor, ""]:
        """Distance of two pictures in [0, 1], 0 for equal ones; differentiable in both."""
        pictures = (2 * picture.permute(2, 0, 1)[None] - 1 for picture in (rgb, target))
        return self._net(*pictures).mean()

    @torch.no_grad()
    def distances(
        self, rgb_unit: Float[np.ndarray, "n h w 3"], true_unit: Float[np.ndarray, "n h w 3"]
    ) -> Float[np.ndarray, " n"]:
        """Distance of each pair of pictures in [0, 1]; those below 32 px are enlarged to it."""
        size = tuple(max(MIN_SIZE_PX, side) for side in rgb_unit.shape[1:3])
        channels = (torch.from_numpy(pictures).float().permute(0, 3, 1, 2) for pictures in (rgb_unit, true_unit))
        ours, true = (F.interpolate(pictures, size, mode="bilinear").permute(0, 2, 3, 1) for pictures in channels)
        return np.array([float(self(a, b)) for a, b in zip(ours, true)])


def weights_file(network: str) -> Path:
    """Where torchvision keeps the features of a network on this machine."""
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[network]


def lpips_for_fits(device: torch.device | str) -> Lpips | None:
    """The distance for a fit: on a GPU, if weights are here; a CPU would take seconds a step."""
    if torch.device(device).type == "cpu":
        return None
    present = present_networks()
    return Lpips(present[0], device) if present else None


def present_networks() -> list[str]:
    """Networks whose features lie on this machine."""
    return [network for network in BACKBONES if weights_file(network).is_file()]

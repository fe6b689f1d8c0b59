"""How thick hair or headwear is all round, and how sure that is, from what one portrait shows.

A small U-Net on the capsule grid. What it sees of the portrait is a space carving: every cell is looked up in the
portrait's class maps at several distances from the skull, so that the outline tells where hair must end even in cells
that face away, and visible cells tell what covers them. It answers with three numbers per cell: whether hair is the
outermost surface, its thickness over the opened skull, and the spread of that thickness. What it was trained on and
how well it does is in `generation/weights/MODEL_CARD_HAIR_THICKNESS.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

from ...cameras import PANOHEAD_RADIUS, Cameras
from ...networks import ChartBlock, LoadedNetwork, NetworkFile, UNet, mirrored_columns, zeroed
from .. import capsule

LEVELS = (-0.008, 0.004, 0.016, 0.03, 0.05, 0.08, 0.12, 0.17)
"""Distances from the opened skull at which the portrait is looked up, world units."""
_DISTANCE_LEVELS = (1, 4, 6)
_OTHER_CHANNELS = ("sine", "cosine", "row", "height", "skull", "facing", "depth")
FEATURE_CHANNELS = 4 * len(LEVELS) + len(_DISTANCE_LEVELS) + len(_OTHER_CHANNELS)
_SINE_CHANNEL = 4 * len(LEVELS) + len(_DISTANCE_LEVELS)
THICKNESS_RANGE = (-0.03, 0.22)
"""Thickness that the network can tell, world units."""
_LOG_SCALE_RANGE = (-6.2, -2.0)
_LOOKUP_PX = 256


@dataclass(frozen=True)
class HairThicknessConfig:
    """Size of the network."""

    channels: tuple[int, ...] = (40, 64, 112, 160)
    """Channels at 1/2, 1/4, ... of the grid's resolution; multiples of 8."""


@dataclass(frozen=True)
class HairEstimate:
    """What the network says about each cell."""

    presence: Float32[np.ndarray, "rows columns"]
    """Probability that hair or headwear is the outermost surface, [0, 1]."""
    thickness: Float32[np.ndarray, "rows columns"]
    """Median over the opened skull if there is hair, world units."""
    spread: Float32[np.ndarray, "rows columns"]
    """Scale of the Laplace distribution about it, world units."""


def shell_features(
    hair: Float32[np.ndarray, "s s"],
    skin: Float32[np.ndarray, "s s"],
    cloth: Float32[np.ndarray, "s s"],
    inside: Bool[np.ndarray, "s s"],
    camera: Cameras,
    skull_radius: Float[np.ndarray, "rows columns"],
) -> Float32[np.ndarray, "c rows columns"]:
    """What the network sees, on the capsule grid.

    Args:
        hair, skin, cloth: share of each class per pixel of the portrait, [0, 1]; hair includes headwear, skin beards.
        inside: pixels that lie within the picture.
        camera: the fitted camera (one).
        skull_radius: opened skull of the fitted head, world units.
    """
    flags = cv2.INTER_AREA if len(hair) > _LOOKUP_PX else cv2.INTER_LINEAR
    known = inside.astype(np.float32)
    maps = np.stack([hair * known, skin * known, cloth * known, known], axis=-1).astype(np.float32)
    maps = cv2.resize(maps, (_LOOKUP_PX,) * 2, interpolation=flags)
    body = ((maps[..., 0] + maps[..., 1]) > 0.5).astype(np.uint8)
    distance = cv2.distanceTransform(body, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - body, cv2.DIST_L2, 3)

    small = camera.resized(_LOOKUP_PX, _LOOKUP_PX)
    focal, principal = small.focal_px[0].numpy(), small.principal_px[0].numpy()
    T = small.T_camera_world[0].numpy()
    origins, directions = capsule.grid_rays()
    start = (origins @ T[:3, :3].T + T[:3, 3]).astype(np.float32)
    along = (directions @ T[:3, :3].T).astype(np.float32)
    levels = np.array(LEVELS, np.float32)[:, None, None]
    radius = np.maximum(skull_radius.astype(np.float32) + levels, np.float32(0.005))
    depth = start[..., 2] + radius * along[..., 2]
    column, row = (
        ((start[..., axis] + radius * along[..., axis]) / depth * np.float32(focal[axis])
        + np.float32(principal[axis] - 0.5)).reshape(-1, capsule.COLUMNS)
        for axis in range(2)
    )  # fmt: skip
    shape = (len(LEVELS), capsule.ROWS, capsule.COLUMNS)
    found = cv2.remap(maps, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0,))
    seen = found.reshape(*shape, 4)
    background = np.maximum(seen[..., 3] - seen[..., :3].sum(-1), 0)
    units_per_px = np.float32(PANOHEAD_RADIUS / focal[0])
    distance = distance.astype(np.float32)
    from_outline = cv2.remap(distance, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(shape)
    from_outline = np.clip(from_outline[list(_DISTANCE_LEVELS)] * units_per_px * 12, -1.5, 1.5)

    azimuth = np.arange(capsule.COLUMNS) * (2 * np.pi / capsule.COLUMNS)
    eye = camera.position_world[0].numpy()
    points = origins + directions * radius[1][..., None]
    to_camera = eye - points
    facing = (directions * to_camera).sum(-1) / np.linalg.norm(to_camera, axis=-1)
    others = (
        np.broadcast_to(np.sin(azimuth), shape[1:]),
        np.broadcast_to(np.cos(azimuth), shape[1:]),
        np.broadcast_to(np.linspace(-1, 1, capsule.ROWS)[:, None], shape[1:]),
        points[..., 1] * 5,
        (skull_radius - 0.15) * 15,
        facing,
        (points @ eye) / np.linalg.norm(eye) * 6,
    )
    return np.concatenate(
        [seen[..., 0], seen[..., 1], seen[..., 2], background, from_outline, np.stack(others)]
    ).astype(np.float32)


def mirrored(features: Tensor) -> Tensor:
    """The features of the mirrored portrait: column c becomes -c, and the azimuth's sine changes its sign."""
    turned = mirrored_columns(features).clone()
    turned[..., _SINE_CHANNEL, :, :] *= -1
    return turned


class HairThicknessNet(UNet):
    """A U-Net on the capsule grid.

    Source: per-cell uncertainty as in Kendall and Gal, "What Uncertainties Do We Need in Bayesian Deep Learning for
    Computer Vision?", 2017, Eq. 5, with a Laplace distribution.
    """

    def __init__(self, config: HairThicknessConfig | None = None) -> None:
        config = config or HairThicknessConfig()
        super().__init__(FEATURE_CHANNELS, config.channels, ChartBlock)
        self.config = config
        self.skip = nn.Conv2d(FEATURE_CHANNELS, 24, 1)
        self.widen = nn.Conv2d(config.channels[0], 24, 1)
        self.last = ChartBlock(24, 24)
        self.head = zeroed(nn.Conv2d(24, 3, 1))

    def forward(self, features: Float[Tensor, "n c rows columns"]) -> Float[Tensor, "n 3 rows columns"]:
        """Logit of presence, thickness and logarithm of the Laplace scale, the last two in world units."""
        x = self.enlarged(self.widen(self.features(features)[0])) + self.skip(features)
        logit, mean, spread = self.head(x + self.last(x)).unbind(1)
        return torch.stack([logit, 0.02 + 0.03 * mean, (spread - 4.4).clamp(*_LOG_SCALE_RANGE)], dim=1)

    def enlarged(self, x: Tensor) -> Tensor:
        """Twice the resolution, without mixing cells."""
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


HAIR_THICKNESS = NetworkFile("hair_thickness", HairThicknessNet, HairThicknessConfig)
"""Its weights."""


@torch.no_grad()
def estimate_hair(
    features: Float32[np.ndarray, "c rows columns"], loaded: LoadedNetwork[HairThicknessNet]
) -> HairEstimate:
    """The network's answer, averaged with that to the mirrored portrait.

    Args:
        features: from `shell_features`.
        loaded: the network.
    """
    straight = torch.from_numpy(features)[None]
    answer, turned = loaded.network(torch.cat([straight, mirrored(straight)]))
    mean = (0.5 * (answer + mirrored_columns(turned))).numpy()
    return HairEstimate(1 / (1 + np.exp(-mean[0])), np.clip(mean[1], *THICKNESS_RANGE), np.exp(mean[2]))

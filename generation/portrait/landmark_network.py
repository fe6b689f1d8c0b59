"""Two small networks for faces that the face mesh misses: flat cartoons, strong styles, profiles.

`FaceLocator` sees the whole picture in a square and says where faces may be, how large and how tilted; `PointNetwork`
sees the face upright in a square and finds the 69 points of `head_model.sparse_points`, each with the scale of its
error, and says whether there is a face at all. What they were trained on and how well they do is in
`generation/weights/MODEL_CARD_LANDMARKS.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ..head_model.sparse_points import MIRRORED, POINT_COUNT, FaceBox, face_box
from ..networks import ConvBlock, LoadedNetwork, NetworkFile, UNet

CELL_PX = 8
"""Pixels of the input per cell of either network's grid."""
CROP_FACTOR = 1.9
"""Side of the square that `PointNetwork` sees, in units of the face's box."""
_MARGIN_CELLS = 2
"""Points may lie this far outside the square."""
_LEAST_LOCATED, _LEAST_PRESENT = 0.35, 0.97
"""What counts as a face: least score of the place, and least probability in each round of the points, [0, 1]."""
_MOST_SCALE = 0.08
"""Largest median scale of the points' errors, in units of the face's box."""
_MOST_DRIFT = 0.35
"""The points' box may lie this far from the located one, in units of its size."""
_MARGINS = (1.0, 1.5)
"""Sides of the squares in which faces are looked for, in units of the picture's longer side."""
_NORMALISATION = (0.5, 0.3)
"""Mean and standard deviation that inputs are brought from."""


@dataclass(frozen=True)
class LandmarkNetworkConfig:
    """Sizes of both networks."""

    locator_px: int = 160
    """Side of the square in which faces are looked for, a multiple of 32."""
    locator_channels: tuple[int, ...] = (16, 32, 64, 80, 96)
    """Channels at 1/2, 1/4, ... of its resolution."""
    points_px: int = 128
    """Side of the square in which points are found, a multiple of 32."""
    points_channels: tuple[int, ...] = (24, 40, 72, 112, 152)
    """Channels at 1/2, 1/4, ... of its resolution."""


class _Trunk(UNet):
    """Down to 1/32 of the resolution and up again to 1/8; blocks are residual from 1/4 on.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", 2017.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__(3, channels, coarser_than=1, finest=2)

    def forward(self, rgb_unit: Float[Tensor, "n 3 s s"]) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n d i j"]]:
        """Features at 1/8 and at 1/32 of the resolution."""
        mean, deviation = _NORMALISATION
        return self.features((rgb_unit - mean) / deviation)


class FaceLocator(nn.Module):
    """For each cell: is a face's middle here (logit), where in the cell, how large, how tilted.

    Source: Zhou, Wang, Krähenbühl, "Objects as Points", 2019, Sec. 3 (centres as peaks of a map).
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk = _Trunk(channels)
        last = nn.Conv2d(channels[2], 6, 1)
        self.head = nn.Sequential(ConvBlock(channels[2], channels[2]), last)
        assert last.bias is not None
        nn.init.constant_(last.bias[:1], -3.0)

    def forward(self, rgb_unit: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 6 g g"]:
        """Logit; x and y from the cell's middle in cells; log of the face's size over the picture's; cosine and sine
        of the roll, unnormalised."""
        return self.head(self.trunk(rgb_unit)[0])


class PointNetwork(nn.Module):
    """Points as expectations over maps, their scales and the face's presence from the whole square.

    Source: Sun et al., "Integral Human Pose Regression", 2018, Eq. 2.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk = _Trunk(channels)
        self.maps = nn.Conv2d(channels[2], POINT_COUNT, 3, padding=1)
        self.pooled = nn.Sequential(nn.Linear(4 * channels[-1], 128), nn.SiLU(inplace=True))
        self.facts = nn.Linear(128, POINT_COUNT + 1)
        nn.init.zeros_(self.facts.weight)
        with torch.no_grad():
            self.facts.bias[:-1] = -3.0

    def forward(
        self, rgb_unit: Float[Tensor, "n 3 s s"]
    ) -> tuple[Float[Tensor, "n 69 2"], Float[Tensor, "n 69"], Float[Tensor, " n"]]:
        """Points in units of the square's side, (0, 0) its middle; logarithms of the scales of a Laplace distribution
        about them, same unit; logit of the face's presence."""
        features, deepest = self.trunk(rgb_unit)
        maps = self.maps(F.pad(features, [_MARGIN_CELLS] * 4))
        n, k, side, _ = maps.shape
        share = maps.flatten(2).softmax(2).view(n, k, side, side)
        place = (torch.arange(side, device=maps.device, dtype=maps.dtype) + 0.5 - side / 2) / (side - 2 * _MARGIN_CELLS)
        points = torch.stack([(share.sum(2) * place).sum(2), (share.sum(3) * place).sum(2)], dim=2)
        facts = self.facts(self.pooled(F.adaptive_avg_pool2d(deepest, 2).flatten(1)))
        return points, facts[:, :-1].clamp(-7, 1), facts[:, -1]


class LandmarkNetworks(nn.Module):
    """Both networks."""

    def __init__(self, config: LandmarkNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or LandmarkNetworkConfig()
        self.locator = FaceLocator(self.config.locator_channels)
        self.points = PointNetwork(self.config.points_channels)


FACE_LANDMARKS = NetworkFile("face_landmarks", LandmarkNetworks, LandmarkNetworkConfig)
"""Their weights."""


@dataclass(frozen=True)
class FacePoints:
    """A face found by the networks."""

    points_px: Float[np.ndarray, "69 2"]
    """Points of `head_model.sparse_points`, pixels of the picture."""
    scales_px: Float[np.ndarray, " 69"]
    """Scale of each point's error (Laplace), pixels."""
    score: float
    """Probability that there is a face, [0, 1]."""


@torch.no_grad()
def locate_faces(
    rgb: UInt8[np.ndarray, "h w 3"], loaded: LoadedNetwork[LandmarkNetworks], *, most: int = 3, margin: float = 1.0
) -> list[tuple[FaceBox, float]]:
    """Where faces may be, the likeliest first, with their scores in [0, 1].

    Args:
        margin: side of the square that is searched, in units of the picture's longer side; beyond the picture its edge
            is repeated.
    """
    size = loaded.network.config.locator_px
    side = margin * max(rgb.shape[:2])
    scale = size / side
    offset = np.array([size / 2 - scale * rgb.shape[1] / 2, size / 2 - scale * rgb.shape[0] / 2])
    picture = _warped(rgb, np.eye(2) * scale, offset, size)
    found = loaded.network.locator(_tensor(picture)[None])[0].double()
    score = found[0].sigmoid()
    peak = F.max_pool2d(score[None, None], 3, 1, 1)[0, 0] == score
    ranked = torch.where(peak, score, torch.zeros_like(score)).flatten().topk(most)
    result = []
    for value, index in zip(ranked.values.tolist(), ranked.indices.tolist()):
        row, column = divmod(index, found.shape[2])
        _, dx, dy, log_size, cosine, sine = found[:, row, column].tolist()
        center = (np.array([column + 0.5 + dx, row + 0.5 + dy]) * CELL_PX - offset) / scale
        box = FaceBox(
            (float(center[0]), float(center[1])), float(np.exp(log_size)) * side, float(np.arctan2(sine, cosine))
        )
        result.append((box, value))
    return result


@torch.no_grad()
def find_points(rgb: UInt8[np.ndarray, "h w 3"], box: FaceBox, loaded: LoadedNetwork[LandmarkNetworks]) -> FacePoints:
    """The points of the face in a box; the mean over the upright crop and its mirror image."""
    size = loaded.network.config.points_px
    scale = size / (CROP_FACTOR * box.size_px)
    c, s = np.cos(box.roll_rad), np.sin(box.roll_rad)
    linear = scale * np.array([[c, s], [-s, c]])
    picture = _tensor(_warped(rgb, linear, size / 2 - linear @ np.array(box.center_px), size))
    points, log_scales, logits = loaded.network.points(torch.stack([picture, picture.flip(-1)]))
    flipped = points[1, list(MIRRORED)] * torch.tensor([-1.0, 1.0])
    in_square = (0.5 * (points[0] + flipped)).double().numpy() * size
    apart = (points[0] - flipped).norm(dim=1).double().numpy()
    scales = 0.5 * (log_scales[0].exp() + log_scales[1, list(MIRRORED)].exp()).double().numpy()
    points_px = in_square @ np.linalg.inv(linear).T + np.array(box.center_px)
    return FacePoints(points_px, np.maximum(scales, 0.5 * apart) * size / scale, float(logits.sigmoid().mean()))


def find_face(rgb: UInt8[np.ndarray, "h w 3"], loaded: LoadedNetwork[LandmarkNetworks]) -> FacePoints | None:
    """The likeliest face of an upright picture; None where the networks are not sure of any."""
    located = [found for margin in _MARGINS for found in locate_faces(rgb, loaded, most=2, margin=margin)]
    best: FacePoints | None = None
    for box, score in located:
        if score < _LEAST_LOCATED:
            continue
        first = find_points(rgb, box, loaded)
        face = find_points(rgb, face_box(first.points_px), loaded)
        present = min(first.score, face.score)
        found = face_box(face.points_px)
        drift = float(np.hypot(found.center_px[0] - box.center_px[0], found.center_px[1] - box.center_px[1]))
        sure = present >= _LEAST_PRESENT and drift <= _MOST_DRIFT * box.size_px
        if not sure or float(np.median(face.scales_px)) > _MOST_SCALE * found.size_px:
            continue
        if best is None or score * present > best.score:
            best = FacePoints(face.points_px, face.scales_px, score * present)
    return best


def _warped(
    rgb: UInt8[np.ndarray, "h w 3"], linear: Float[np.ndarray, "2 2"], offset: Float[np.ndarray, " 2"], size: int
) -> UInt8[np.ndarray, "s s 3"]:
    """A square of the picture, `linear p + offset` in pixel coordinates (centres at +0.5), its edge repeated."""
    shrink = 1 / max(float(np.sqrt(abs(np.linalg.det(linear)))), 1e-9)
    if shrink > 1.5:
        rgb = cv2.GaussianBlur(rgb, (0, 0), 0.4 * shrink)
    A = np.concatenate([linear, (offset + linear @ [0.5, 0.5] - 0.5)[:, None]], axis=1)
    return cv2.warpAffine(rgb, A, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _tensor(rgb: UInt8[np.ndarray, "s s 3"]) -> Float[Tensor, "3 s s"]:
    return torch.from_numpy(rgb.astype(np.float32) / 255).permute(2, 0, 1)

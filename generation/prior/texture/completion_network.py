"""The smooth colours of what a portrait does not show: hair, skin and clothes of the sides and the back.

A small U-Net on a chart that goes round the head: its upper rows follow the capsule grid from the crown to the
shoulders and carry two layers, hair and the skin below it; its lower rows follow the body. Every cell knows the mean
colour that the portrait shows of it, that of its mirror image, how far both can be believed, and how the surface lies.
Colours are logarithms of ratios to the typical colour of their material, so that a face of any complexion under hair
of any colour is the same task. What it was trained on and how well it does is in
`generation/weights/MODEL_CARD_COMPLETION.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ...networks import ChartBlock, LoadedNetwork, NetworkFile, UNet, mirrored_columns, zeroed
from .. import capsule

UPPER_ROWS, LOWER_ROWS, COLUMNS = 56, 24, 64
ROWS = UPPER_ROWS + LOWER_ROWS
COVER, SKIN_BELOW, NOWHERE = 0, 1, 2
"""Layers of the chart: hair and clothes; skin; texels that are not completed."""
HAIR_MATERIAL, SKIN_MATERIAL, CLOTH_MATERIAL = range(3)
"""Rows of the typical colours."""
_FLOOR = 0.04
"""Added to colours before logarithms: darker than this all is black."""
_GRID = ("presence", "own", "own", "own", "own_known", "mirror", "mirror", "mirror", "mirror_known", "normal",
         "normal", "normal", "radius")  # fmt: skip
GRID_CHANNELS = len(_GRID)
_BODY_TOP, _BODY_BOTTOM, _BODY_POWER = 0.036, -0.2055, 0.8
"""The chart's rows on the body lie between these heights above the neck's cut, world units, and closer at the neck."""
_NORMAL_X = _GRID.index("normal")
FEATURE_CHANNELS = 2 * GRID_CHANNELS + 4 + 9
_SINE_CHANNEL = 2 * GRID_CHANNELS

Chart = Float32[np.ndarray, "2 rows columns 3"]
"""Smooth colours of skin below and of what covers it, sRGB."""


@dataclass(frozen=True)
class CompletionConfig:
    """Size of the network."""

    channels: tuple[int, ...] = (32, 56, 88, 128)
    """Channels at full, 1/2, 1/4, ... of the chart's resolution; multiples of 8."""


@dataclass(frozen=True)
class ChartPlace:
    """Where n surface points lie in the chart."""

    row: Float32[np.ndarray, " n"]
    """Fractional row, cell centres at integers."""
    column: Float32[np.ndarray, " n"]
    """Fractional column in [0, COLUMNS), cell centres at integers, column 0 before the face."""
    layer: UInt8[np.ndarray, " n"]
    """`COVER`, `SKIN_BELOW` or `NOWHERE`."""

    def __getitem__(self, chosen: np.ndarray | slice) -> ChartPlace:
        return ChartPlace(self.row[chosen], self.column[chosen], self.layer[chosen])

    @property
    def cell(self) -> np.ndarray:
        """Flat index (layer, row, column) of the nearest cell of each point; points nowhere share one at the end."""
        row = np.clip(np.round(self.row), 0, ROWS - 1).astype(np.int64)
        column = np.round(self.column).astype(np.int64) % COLUMNS
        return np.where(self.layer == NOWHERE, 2 * ROWS * COLUMNS, (self.layer * ROWS + row) * COLUMNS + column)


def place_on_head(points_world: Float32[np.ndarray, "n 3"], layer: int) -> ChartPlace:
    """Places of points of the hair's shell or of the skin."""
    row, column, _ = capsule.cell_coordinates(points_world)
    row = np.clip((row + 0.5) * (UPPER_ROWS / capsule.ROWS) - 0.5, -0.5, UPPER_ROWS - 0.501)
    column = column * (COLUMNS / capsule.COLUMNS)
    return ChartPlace(row.astype(np.float32), column.astype(np.float32), np.full(len(row), layer, np.uint8))


def place_on_body(points_world: Float32[np.ndarray, "n 3"], T_world_body: Float[np.ndarray, "4 4"]) -> ChartPlace:
    """Places of points of the bust: by height along the body and by the angle about it.

    Args:
        points_world: the points.
        T_world_body: how the body stands, see `Bust`.
    """
    points = (points_world - T_world_body[:3, 3]) @ T_world_body[:3, :3]
    down = np.clip((_BODY_TOP - points[:, 1]) / (_BODY_TOP - _BODY_BOTTOM), 0, 1) ** _BODY_POWER
    row = np.clip(UPPER_ROWS + down * LOWER_ROWS - 0.5, UPPER_ROWS - 0.499, ROWS - 0.5)
    yaw = np.arctan2(T_world_body[0, 2], T_world_body[2, 2])
    # the angle as columns of a body twice as wide as deep have it, so that the shoulders' front and back part
    angle = np.arctan2(points[:, 0] / 2, points[:, 2]) + yaw
    column = angle / (2 * np.pi) % 1.0 * COLUMNS
    return ChartPlace(row.astype(np.float32), column.astype(np.float32), np.full(len(row), COVER, np.uint8))


def mean_in_cells(
    place: ChartPlace, values: Float[np.ndarray, "n c"], weight: Float[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, "2 c rows columns"], Float32[np.ndarray, "2 rows columns"]]:
    """Weighted means per cell (0 where there is nothing), and the sums of the weights."""
    cell, count = place.cell, 2 * ROWS * COLUMNS + 1
    mass = np.bincount(cell, weight, minlength=count)[:-1]
    sums = np.stack([np.bincount(cell, weight * values[:, c], minlength=count)[:-1] for c in range(values.shape[1])])
    mean = np.where(mass > 0, sums / np.maximum(mass, 1e-9), 0)
    mean = mean.reshape(-1, 2, ROWS, COLUMNS).transpose(1, 0, 2, 3)
    return mean.astype(np.float32), mass.reshape(2, ROWS, COLUMNS).astype(np.float32)


def log_ratio(rgb_unit: Tensor, typical: Tensor) -> Tensor:
    """Colours relative to a typical one; shapes broadcast."""
    return torch.log((rgb_unit.clamp_min(0) + _FLOOR) / (typical + _FLOOR))


def from_log_ratio(ratio: Tensor, typical: Tensor) -> Tensor:
    """Inverse of `log_ratio`."""
    return (typical + _FLOOR) * torch.exp(ratio) - _FLOOR


def typical_in_chart(typical: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 2 3 rows 1"]:
    """The typical colour of each layer and row, out of those of `HAIR_MATERIAL`, `SKIN_MATERIAL`, `CLOTH_MATERIAL`."""
    upper = typical[:, [HAIR_MATERIAL, SKIN_MATERIAL], :, None].expand(-1, -1, -1, UPPER_ROWS)
    lower = typical[:, [CLOTH_MATERIAL, SKIN_MATERIAL], :, None].expand(-1, -1, -1, LOWER_ROWS)
    return torch.cat([upper, lower], dim=-1)[..., None]


def features_of(
    chart: Float[Tensor, "n 2 c rows columns"], typical: Float[Tensor, "n 3 3"]
) -> Float[Tensor, "n f rows columns"]:
    """What the network sees.

    Args:
        chart: from `completion_chart.chart_of_portrait`.
        typical: typical colours of hair, skin and clothes, sRGB in [0, 1].
    """
    n = len(chart)
    middle = typical_in_chart(typical)
    presence, own, own_known, mirror, mirror_known, normals, radius = chart.split((1, 3, 1, 3, 1, 3, 1), dim=2)
    seen = [
        part
        for colour, known in ((own, own_known), (mirror, mirror_known))
        for part in (log_ratio(colour, middle) * (known / 0.15).clamp(max=1), known)
    ]
    layers = torch.cat([presence, *seen, normals, (radius - 0.15) * 6 * presence], dim=2)
    azimuth = torch.arange(COLUMNS, device=chart.device) * (2 * torch.pi / COLUMNS)
    row = torch.linspace(-1, 1, ROWS, device=chart.device)
    places = torch.stack(
        [
            azimuth.sin().expand(ROWS, COLUMNS),
            azimuth.cos().expand(ROWS, COLUMNS),
            row[:, None].expand(ROWS, COLUMNS),
            (row[:, None] > row[UPPER_ROWS - 1]).float().expand(ROWS, COLUMNS),
        ]
    )
    colours = torch.log(typical + _FLOOR).reshape(n, 9, 1, 1).expand(n, 9, ROWS, COLUMNS) + 1.5
    return torch.cat([layers.flatten(1, 2), places.expand(n, 4, ROWS, COLUMNS), colours], dim=1)


def mirrored_chart(chart: Float[Tensor, "n 2 c rows columns"]) -> Float[Tensor, "n 2 c rows columns"]:
    """The chart of the mirrored portrait."""
    turned = mirrored_columns(chart).clone()
    turned[:, :, _NORMAL_X] *= -1
    return turned


class CompletionNet(UNet):
    """A U-Net on the chart."""

    def __init__(self, config: CompletionConfig | None = None) -> None:
        config = config or CompletionConfig()
        super().__init__(FEATURE_CHANNELS, config.channels, ChartBlock, stem_stride=1, coarser_than=1)
        self.config = config
        self.everywhere = nn.Linear(config.channels[-1], config.channels[-1])
        self.head = zeroed(nn.Conv2d(config.channels[0], 6, 1))

    def forward(self, features: Float[Tensor, "n f rows columns"]) -> Float[Tensor, "n 2 3 rows columns"]:
        """Log-ratios of both layers to their typical colours."""
        return self.head(self.features(features)[0]).clamp(-3, 3).unflatten(1, (2, 3))

    def at_coarsest(self, x: Tensor) -> Tensor:
        """What the whole chart says on average is told to every cell."""
        return x + F.silu(self.everywhere(x.mean((2, 3))))[..., None, None]

    def enlarged(self, x: Tensor) -> Tensor:
        """Twice the resolution, bilinear, closed round the axis."""
        return super().enlarged(torch.cat([x[..., -1:], x, x[..., :1]], dim=3))[..., 2:-2]


COMPLETION = NetworkFile("completion", CompletionNet, CompletionConfig)
"""Its weights."""


@torch.no_grad()
def complete(
    chart: Float32[np.ndarray, "2 c rows columns"],
    typical: Float[np.ndarray, "3 3"],
    loaded: LoadedNetwork[CompletionNet],
) -> Float32[np.ndarray, "2 rows columns 3"]:
    """Smooth colours of both layers, sRGB; the mean over the portrait and its mirror image.

    Args:
        chart: from `completion_chart.chart_of_portrait`.
        typical: typical colours of hair, skin and clothes, sRGB in [0, 1].
        loaded: the network.
    """
    straight = torch.from_numpy(chart)[None]
    both = torch.cat([straight, mirrored_chart(straight)])
    middle = torch.from_numpy(np.ascontiguousarray(typical, dtype=np.float32))[None].expand(2, -1, -1)
    answer, turned = loaded.network(features_of(both, middle))
    ratio = 0.5 * (answer + mirrored_columns(turned))
    colour = from_log_ratio(ratio[None], typical_in_chart(middle[:1]))[0].clamp(0, 1)
    return colour.permute(0, 2, 3, 1).contiguous().numpy()


def sample_chart(values: Float32[np.ndarray, "2 rows columns c"], place: ChartPlace) -> Float32[np.ndarray, "n c"]:
    """Values of the chart at places, bilinear, closed round the axis; head and body do not mix. Nowhere gives 0."""
    count = len(place.row)
    found = np.zeros((count, values.shape[-1]), np.float32)
    width = 4096  # OpenCV's remap wants less than 32768 columns
    for layer in (COVER, SKIN_BELOW):
        for first, last in ((0, UPPER_ROWS), (UPPER_ROWS, ROWS)):
            part = np.concatenate([values[layer, first:last], values[layer, first:last, :1]], axis=1)
            chosen = np.nonzero((place.layer == layer) & ((place.row < UPPER_ROWS - 0.5) == (first == 0)))[0]
            if not len(chosen):
                continue
            padded = -len(chosen) % width
            row = np.pad(place.row[chosen] - first, (0, padded)).reshape(-1, width)
            column = np.pad(place.column[chosen], (0, padded)).reshape(-1, width)
            sampled = cv2.remap(
                np.ascontiguousarray(part), column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            found[chosen] = sampled.reshape(-1, values.shape[-1])[: len(chosen)]
    return found

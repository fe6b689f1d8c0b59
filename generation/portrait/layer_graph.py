"""Networks that are kept as a list of layers beside their weights: networks made elsewhere, run by torch alone.

The layers do what TensorFlow Lite's of the same name do. Tensors are (batch, channels, height, width); points are
(batch, count, coordinates).

Source: the operators are described at https://ai.google.dev/edge/litert/models/ops_compatibility; the last three, which
cut a turned rectangle out of a map and bring its points back, in Grishchenko et al., "Attention Mesh: High-fidelity
Face Mesh Prediction in Real-time", 2020, Sec. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import assert_never

LayerKind: TypeAlias = Literal[
    "convolution", "transposed convolution", "prelu", "relu", "hard swish", "sigmoid", "add", "multiply", "scale",
    "maximum", "mean", "resize", "new channels", "depth to space", "rows", "join rows", "rectangle", "cut", "place"
]  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One step; what it yields is called by its number in the list, from 1 on. 0 is the network's input."""

    kind: LayerKind
    """What it does: see `LayerGraph`."""
    inputs: tuple[int, ...]
    """Whose results it takes."""
    weight_shape: tuple[int, ...] = ()
    """Shape of the weights: of a convolution (outputs, inputs of a group, height, width), of a PReLU (channels,), of
    "scale" that of the factor."""
    stride: int = 1
    """Step of a convolution or of "maximum", which takes the largest of that many pixels each way."""
    pads: tuple[int, ...] = (0, 0, 0, 0)
    """Zeros round the input of a convolution: left, right, above, below, pixels."""
    groups: int = 1
    """Groups of channels of a convolution."""
    size: tuple[int, ...] = ()
    """"resize" and "cut": height and width; "new channels": how many there are then; "depth to space": the block's
    side; "rows": numbers per row."""
    points: tuple[int, ...] = ()
    """"rectangle": points in it; the first two are the ends of its horizontal axis."""
    scale: float = 1.0
    """"rectangle": its sides in units of the points' bounding box."""


@dataclass(frozen=True)
class LayerGraphConfig:
    """What the weights' file says of its network."""

    layers: tuple[Layer, ...]
    """In the order in which they run."""
    outputs: tuple[int, ...]
    """Whose results the network yields."""
    input_px: tuple[int, ...]
    """Height and width of the input."""

    @classmethod
    def from_plain(
        cls, layers: Sequence[dict[str, Any]], outputs: Sequence[int], input_px: Sequence[int]
    ) -> LayerGraphConfig:
        """A configuration as it stands in the file's header."""
        made = []
        for layer in layers:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in layer.items()}
            made.append(Layer(**fields))
        return cls(tuple(made), tuple(outputs), tuple(input_px))


class LayerGraph(nn.Module):
    """A network that runs the layers of its configuration one after the other."""

    def __init__(self, config: LayerGraphConfig) -> None:
        super().__init__()
        self.config = config
        self.weights = nn.ParameterDict()
        for number, layer in enumerate(config.layers, 1):
            if layer.weight_shape:
                self.weights[f"{number}_weight"] = nn.Parameter(torch.zeros(layer.weight_shape))
            if layer.kind in ("convolution", "transposed convolution"):
                outputs = layer.weight_shape[0 if layer.kind == "convolution" else 1]
                self.weights[f"{number}_bias"] = nn.Parameter(torch.zeros(outputs))
        last_use = {used: number for number, layer in enumerate(config.layers, 1) for used in layer.inputs}
        self._done_with = [
            [used for used, number in last_use.items() if number == n and used not in config.outputs]
            for n in range(1, len(config.layers) + 1)
        ]

    def forward(self, picture: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """The results that the configuration names."""
        results, weights = {0: picture}, dict(self.weights.items())
        for number, layer in enumerate(self.config.layers, 1):
            weight, bias = weights.get(f"{number}_weight"), weights.get(f"{number}_bias")
            results[number] = _run(layer, [results[i] for i in layer.inputs], weight, bias)
            for unused in self._done_with[number - 1]:
                del results[unused]
        return [results[number] for number in self.config.outputs]


def _run(layer: Layer, inputs: list[Tensor], weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """What one layer makes of its inputs."""
    x = inputs[0]
    match layer.kind:
        case "convolution":
            left, right, above, below = layer.pads
            assert weight is not None
            if left != right or above != below:
                x, left, above = F.pad(x, layer.pads), 0, 0
            return F.conv2d(x, weight, bias, layer.stride, (above, left), groups=layer.groups)
        case "transposed convolution":
            assert weight is not None
            return F.conv_transpose2d(x, weight, bias, layer.stride)
        case "prelu":
            assert weight is not None
            return F.prelu(x, weight)
        case "relu":
            return F.relu(x)
        case "hard swish":
            return F.hardswish(x)
        case "sigmoid":
            return x.sigmoid()
        case "add":
            return x + inputs[1]
        case "multiply":
            return x * inputs[1]
        case "scale":
            assert weight is not None
            return x * weight
        case "maximum":
            return F.max_pool2d(x, layer.stride)
        case "mean":
            return x.mean((2, 3), keepdim=True)
        case "resize":
            return F.interpolate(x, layer.size, mode="bilinear", align_corners=False)
        case "new channels":
            return F.pad(x, (0, 0, 0, 0, 0, layer.size[0] - x.shape[1]))
        case "depth to space":
            return _depth_to_space(x, layer.size[0])
        case "rows":
            return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, layer.size[0])
        case "join rows":
            return torch.cat(inputs, dim=1)
        case "rectangle":
            return rectangle_round(x, layer.points, layer.size, layer.scale)
        case "cut":
            return cut_out(x, inputs[1], layer.size)
        case "place":
            matrix = inputs[1]
            return x @ matrix[:, :2, :2].transpose(1, 2) + matrix[:, None, :2, 3]
        case _:
            assert_never(layer.kind)


def _depth_to_space(x: Float[Tensor, "n c h w"], block: int) -> Float[Tensor, "n d i j"]:
    """Channels become pixels of a finer grid; the block's place is the slower part of the channel's number."""
    n, c, h, w = x.shape
    x = x.view(n, block, block, c // block**2, h, w)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


def rectangle_round(
    points: Float[Tensor, "n k d"], chosen: tuple[int, ...], size: tuple[int, ...], scale: float
) -> Float[Tensor, "n 4 4"]:
    """The turned rectangle round some points: the matrix that brings a place of its grid to a place of the map.

    Args:
        points: places on the map; the first two coordinates count.
        chosen: numbers of the points; the line from the first to the second is horizontal in the rectangle.
        size: height and width of its grid.
        scale: its sides in units of the points' bounding box along its own axes.
    """
    first, second = (points[:, k, :2] for k in chosen[:2])
    angle = torch.atan2(second[:, 1] - first[:, 1], second[:, 0] - first[:, 0])
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)  # to the map from the rectangle
    upright = points[:, list(chosen), :2] @ turn
    low, high = upright.amin(1), upright.amax(1)
    center = ((low + high) / 2)[:, None] @ turn.transpose(1, 2)
    height, width = size
    cells = torch.tensor([width, height], dtype=points.dtype, device=points.device)
    matrix = torch.eye(4, dtype=points.dtype, device=points.device).repeat(len(points), 1, 1)
    matrix[:, :2, :2] = turn * (scale * (high - low) / cells)[:, None]
    matrix[:, :2, 3] = center[:, 0] - (matrix[:, :2, :2] @ (cells / 2))
    return matrix


def cut_out(
    x: Float[Tensor, "n c h w"], matrix: Float[Tensor, "n 4 4"], size: tuple[int, ...]
) -> Float[Tensor, "n c i j"]:
    """A rectangle's grid out of a map, bilinear; zero where a place lies beyond the middles of the outer pixels.

    Args:
        matrix: brings a place of the grid to one of the map; (0, 0) is the corner of a pixel.
        size: height and width of the grid.
    """
    height, width = size
    rows, columns = x.shape[2:]
    across = torch.arange(width, dtype=x.dtype, device=x.device) + 0.5
    down = torch.arange(height, dtype=x.dtype, device=x.device) + 0.5
    grid = torch.stack(torch.meshgrid(down, across, indexing="ij")[::-1], dim=-1).reshape(1, -1, 2)
    place = grid @ matrix[:, :2, :2].transpose(1, 2) + matrix[:, None, :2, 3]
    limits = torch.tensor([columns, rows], dtype=x.dtype, device=x.device)
    inside = ((place >= 0.5) & (place <= limits - 0.5)).all(2)
    unit = (2 * place / limits - 1).view(-1, height, width, 2)
    seen = F.grid_sample(x, unit, mode="bilinear", padding_mode="border", align_corners=False)
    return seen * inside.view(-1, 1, height, width)

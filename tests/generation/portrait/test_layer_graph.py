"""Networks kept as lists of layers: each layer against what it is called, and the files they come from."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dp360.generation import InputError
from dp360.generation.networks import NetworkFile
from dp360.generation.portrait.layer_graph import Layer, LayerGraph, LayerGraphConfig, cut_out, rectangle_round


def run(x: Tensor, *layers: Layer, outputs: tuple[int, ...] = ()) -> list[Tensor]:
    """Results of layers with random weights of seed 0."""
    network = LayerGraph(LayerGraphConfig(layers, outputs or (len(layers),), tuple(x.shape[2:])))
    generator = torch.Generator().manual_seed(0)
    for weight in network.weights.values():
        weight.data = torch.randn(weight.shape, generator=generator)
    run.weights = dict(network.weights)  # type: ignore[attr-defined]
    with torch.no_grad():
        return network(x)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 8, 6, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("relu", F.relu),
        ("hard swish", nn.Hardswish()),
        ("sigmoid", torch.sigmoid),
        ("mean", lambda x: F.adaptive_avg_pool2d(x, 1)),
    ],
)
def test_simple_layers_do_what_they_are_called(kind, function, x: Tensor) -> None:
    torch.testing.assert_close(run(x, Layer(kind, (0,)))[0], function(x))


def test_convolutions_pad_and_step(x: Tensor) -> None:
    layer = Layer("convolution", (0,), (5, 8, 3, 3), stride=2, pads=(0, 1, 0, 1))
    (made,) = run(x, layer)
    weight, bias = (run.weights[f"1_{k}"] for k in ("weight", "bias"))  # type: ignore[attr-defined]
    torch.testing.assert_close(made, F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, 2))
    (even,) = run(x, Layer("convolution", (0,), (8, 1, 3, 3), pads=(1, 1, 1, 1), groups=8))
    weight, bias = (run.weights[f"1_{k}"] for k in ("weight", "bias"))  # type: ignore[attr-defined]
    torch.testing.assert_close(even, F.conv2d(x, weight, bias, 1, 1, groups=8))
    (larger,) = run(x, Layer("transposed convolution", (0,), (8, 3, 2, 2), stride=2))
    assert larger.shape == (2, 3, 12, 20)


def test_sizes_change_as_they_say(x: Tensor) -> None:
    assert run(x, Layer("maximum", (0,), stride=2))[0].shape == (2, 8, 3, 5)
    assert run(x, Layer("resize", (0,), size=(12, 20)))[0].shape == (2, 8, 12, 20)
    (more,) = run(x, Layer("new channels", (0,), size=(11,)))
    assert more[:, :8].equal(x) and not more[:, 8:].any()
    (fine,) = run(x, Layer("depth to space", (0,), size=(2,)))
    assert fine[1, :, ::2, 1::2].equal(x[1, 2:4])  # the second of four groups is the right upper pixel
    (rows,) = run(x, Layer("rows", (0,), size=(4,)))
    assert rows.shape == (2, 120, 4) and rows[0, 3].equal(x[0, 4:, 0, 1])
    (joined,) = run(x, Layer("rows", (0,), size=(4,)), Layer("join rows", (1, 1)))
    assert joined.equal(torch.cat([rows, rows], 1))


def test_results_that_are_used_again_are_kept(x: Tensor) -> None:
    layers = (Layer("relu", (0,)), Layer("sigmoid", (1,)), Layer("add", (1, 2)), Layer("multiply", (3, 0)))
    first, last = run(x, *layers, outputs=(1, 4))
    torch.testing.assert_close(first, x.relu())
    torch.testing.assert_close(last, (x.relu() + x.relu().sigmoid()) * x)


@pytest.mark.parametrize("roll_rad", [0.0, 0.6, -2.8])
def test_a_rectangle_lies_round_its_points_along_its_first_two(roll_rad: float) -> None:
    across = torch.tensor([math.cos(roll_rad), math.sin(roll_rad)])
    down = torch.tensor([-across[1], across[0]])
    center = torch.tensor([20.0, 30.0])
    points = torch.stack([center - 4 * across, center + 4 * across, center + 2 * down, center - 2 * down])[None]
    matrix = rectangle_round(points, (0, 1, 2, 3), (16, 16), 1.5)

    def on_map(x: float, y: float) -> Tensor:
        return matrix[0, :2, :2] @ torch.tensor([float(x), float(y)]) + matrix[0, :2, 3]

    torch.testing.assert_close(on_map(8, 8), center)
    torch.testing.assert_close(on_map(16, 8), center + 6 * across)
    torch.testing.assert_close(on_map(8, 0), center - 3 * down)


def test_a_cut_rectangle_shows_the_map_and_nothing_beyond_it() -> None:
    rows, columns = torch.meshgrid(torch.arange(12.0) + 0.5, torch.arange(10.0) + 0.5, indexing="ij")
    x = torch.stack([columns, rows])[None]  # each pixel says where its middle is
    matrix = torch.eye(4)[None].clone()
    matrix[0, :2, :2] *= 0.5
    matrix[0, :2, 3] = torch.tensor([3.0, 2.0])
    (seen,) = cut_out(x, matrix, (4, 6))
    torch.testing.assert_close(seen[0, 0], 3 + 0.5 * (torch.arange(6.0) + 0.5))
    torch.testing.assert_close(seen[1, :, 0], 2 + 0.5 * (torch.arange(4.0) + 0.5))
    matrix[0, 0, 3] = 8.0
    (edge,) = cut_out(x, matrix, (4, 6))
    assert edge[0, 0, :3].all() and not edge[:, :, 3:].any()  # the last pixel's middle is at 9.5


def test_places_come_back_from_the_rectangle(x: Tensor) -> None:
    points = torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(2))
    matrix = rectangle_round(20 * points, (0, 3, 1, 2, 4), (8, 8), 1.0)
    inverse = torch.linalg.inv(matrix)
    (placed,) = run(x[:1], Layer("rows", (0,), size=(2,)), Layer("rectangle", (1,), size=(4, 4), points=(0, 1)),
                    Layer("place", (1, 2)))  # fmt: skip
    rows = x[:1].permute(0, 2, 3, 1).reshape(1, -1, 2)
    own = rectangle_round(rows, (0, 1), (4, 4), 1.0)
    torch.testing.assert_close(placed, rows @ own[:, :2, :2].mT + own[:, None, :2, 3])
    there = 20 * points @ inverse[:, :2, :2].mT + inverse[:, None, :2, 3]
    assert there.min() > -1e-3 and there.max() < 8 + 1e-3  # all points lie in their own rectangle


def test_files_keep_the_layers(tmp_path: Path) -> None:
    config = LayerGraphConfig((Layer("convolution", (0,), (4, 3, 1, 1)), Layer("prelu", (1,), (4,))), (2,), (5, 7))
    file = NetworkFile("tiny", LayerGraph, LayerGraphConfig)
    network = LayerGraph(config)
    network.weights["1_weight"].data += torch.arange(3.0)[:, None, None]
    file.save(tmp_path / "tiny.safetensors", network, {})
    again = file.read(tmp_path / "tiny.safetensors").network
    assert again.config == config and asdict(again.config) == asdict(config)
    picture = torch.rand(1, 3, 5, 7)
    assert again(picture)[0].equal(network(picture)[0])
    other = NetworkFile("other", LayerGraph, LayerGraphConfig)
    wrong = LayerGraph(LayerGraphConfig((Layer("relu", (0,)),), (1,), (5, 7)))
    wrong.weights["9_weight"] = nn.Parameter(torch.zeros(3))
    other.save(tmp_path / "other.safetensors", wrong, {})
    with pytest.raises(InputError, match="it holds another network"):
        other.read(tmp_path / "other.safetensors")

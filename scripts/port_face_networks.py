"""Makes the networks of mediapipe that dp360 uses into weights of its own: reads .tflite, writes .safetensors.

    python scripts/port_face_networks.py --mediapipe FOLDER --output generation/weights

FOLDER is what mediapipe 0.10.9's wheel unpacks to; needs the packages tflite and flatbuffers. The weights are in half
precision in the wheel and stay bit for bit what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tflite
import torch
import tyro
from flatbuffers import flexbuffers

from dp360.generation.portrait.face_networks import FACE_MESH, FAR_DETECTOR, NEAR_DETECTOR
from dp360.generation.portrait.layer_graph import Layer, LayerGraph, LayerGraphConfig
from dp360.generation.portrait.person_networks import SQUARE_SEGMENTER, WIDE_SEGMENTER

SOURCES = {
    NEAR_DETECTOR: "modules/face_detection/face_detection_short_range.tflite",
    FAR_DETECTOR: "modules/face_detection/face_detection_full_range_sparse.tflite",
    FACE_MESH: "modules/face_landmark/face_landmark_with_attention.tflite",
    SQUARE_SEGMENTER: "modules/selfie_segmentation/selfie_segmentation.tflite",
    WIDE_SEGMENTER: "modules/selfie_segmentation/selfie_segmentation_landscape.tflite",
}
_SAME = 0
_RELU = 1
_DTYPES = {0: np.float32, 1: np.float16, 2: np.int32}
"""Types of tensors by TensorFlow Lite's numbers."""


@dataclass(frozen=True)
class Arguments:
    """Where from and where to."""

    mediapipe: Path
    """The folder `mediapipe` of the unpacked wheel."""
    output: Path
    """Folder of the weights."""


class Reader:
    """One .tflite file becoming layers."""

    def __init__(self, path: Path) -> None:
        self.model = tflite.Model.GetRootAs(path.read_bytes(), 0)
        self.graph = self.model.Subgraphs(0)
        self.layers: list[Layer] = []
        self.weights: dict[str, torch.Tensor] = {}
        self.constants: dict[int, np.ndarray] = {}
        self.results = {int(self.graph.Inputs(0)): 0}
        self.padded: dict[int, tuple[int, np.ndarray]] = {}
        for k in range(self.graph.OperatorsLength()):
            self.read(self.graph.Operators(k))

    def network(self) -> LayerGraph:
        outputs = tuple(self.results[int(k)] for k in self.graph.OutputsAsNumpy())
        _, height, width, _ = self.shape(int(self.graph.Inputs(0)))
        network = LayerGraph(LayerGraphConfig(tuple(self.layers), outputs, (height, width)))
        network.load_state_dict({f"weights.{name}": tensor for name, tensor in self.weights.items()})
        return network

    def shape(self, k: int) -> tuple[int, ...]:
        return tuple(int(n) for n in self.graph.Tensors(k).ShapeAsNumpy())

    def constant(self, k: int) -> np.ndarray:
        if k in self.constants:
            return self.constants[k]
        tensor = self.graph.Tensors(k)
        raw = self.model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        values = np.frombuffer(raw, _DTYPES[tensor.Type()])
        return values if tensor.Sparsity() is not None else values.reshape(self.shape(k))

    def add(self, result: int, layer: Layer, weight: np.ndarray | None = None, bias: np.ndarray | None = None) -> None:
        self.layers.append(layer)
        number = len(self.layers)
        for name, values in (("weight", weight), ("bias", bias)):
            if values is not None:
                self.weights[f"{number}_{name}"] = torch.from_numpy(values.astype(np.float32).copy())
        self.results[result] = number

    def activated(self, result: int, activation: int) -> None:
        assert activation in (0, _RELU)
        if activation == _RELU:
            self.add(result, Layer("relu", (self.results[result],)))

    def read(self, operator: Any) -> None:
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        inputs, outputs = ([int(k) for k in ks] for ks in (operator.InputsAsNumpy(), operator.OutputsAsNumpy()))
        (result,) = outputs
        name = next(n for n, v in vars(tflite.BuiltinOperator).items() if v == kind)
        if name == "CUSTOM":
            self.custom(code.CustomCode().decode(), operator, inputs, result)
        elif name == "DEQUANTIZE":
            self.constants[result] = self.constant(inputs[0])
        elif name == "DENSIFY":
            self.constants[result] = self.densified(inputs[0])
        elif name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            self.convolution(operator, inputs, result, name == "DEPTHWISE_CONV_2D")
        elif name == "PAD":
            self.pad(inputs, result)
        elif name == "PRELU":
            slopes = self.constant(inputs[1]).reshape(-1)
            self.add(result, Layer("prelu", self.taken(inputs[:1]), slopes.shape), slopes)
        elif name in ("ADD", "MUL"):
            self.arithmetic(operator, name, inputs, result)
        elif name == "MAX_POOL_2D":
            options = self.options(operator, tflite.Pool2DOptions)
            assert options.StrideH() == options.StrideW() == options.FilterHeight() == options.FilterWidth()
            self.add(result, Layer("maximum", self.taken(inputs), stride=options.StrideH()))
        elif name in ("AVERAGE_POOL_2D", "MEAN"):
            assert self.shape(result)[1:3] == (1, 1)
            self.add(result, Layer("mean", self.taken(inputs[:1])))
        elif name == "RESIZE_BILINEAR":
            assert self.options(operator, tflite.ResizeBilinearOptions).HalfPixelCenters()
            self.add(result, Layer("resize", self.taken(inputs[:1]), size=self.shape(result)[1:3]))
        elif name == "DEPTH_TO_SPACE":
            block = self.options(operator, tflite.DepthToSpaceOptions).BlockSize()
            self.add(result, Layer("depth to space", self.taken(inputs), size=(block,)))
        elif name == "CONCATENATION":
            assert len(self.shape(result)) == 3 and self.options(operator, tflite.ConcatenationOptions).Axis() == 1
            self.add(result, Layer("join rows", self.taken(inputs)))
        elif name == "RESHAPE":
            self.reshape(inputs[0], result)
        elif name == "STRIDED_SLICE":
            assert self.shape(inputs[0]) == self.shape(result)
            self.results[result] = self.results[inputs[0]]
        else:
            simple = {"RELU": "relu", "HARD_SWISH": "hard swish", "LOGISTIC": "sigmoid"}
            self.add(result, Layer(simple[name], self.taken(inputs)))

    def options(self, operator: Any, kind: Any) -> Any:
        options, table = kind(), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def taken(self, inputs: list[int]) -> tuple[int, ...]:
        return tuple(self.results[k] for k in inputs)

    def convolution(self, operator: Any, inputs: list[int], result: int, by_channel: bool) -> None:
        options = self.options(operator, tflite.DepthwiseConv2DOptions if by_channel else tflite.Conv2DOptions)
        weight, bias = self.constant(inputs[1]), self.constant(inputs[2])
        weight = weight.transpose(3, 0, 1, 2) if by_channel else weight.transpose(0, 3, 1, 2)
        stride = options.StrideH()
        assert stride == options.StrideW() and options.DilationHFactor() == options.DilationWFactor() == 1
        source, pads = inputs[0], (0, 0, 0, 0)
        if source in self.padded:
            source, around = self.padded[source]
            pads = (*around[2], *around[1])
            assert options.Padding() != _SAME or weight.shape[2:] == (1, 1)
        elif options.Padding() == _SAME:
            height, width = self.shape(source)[1:3]
            pads = (*_same(width, weight.shape[3], stride), *_same(height, weight.shape[2], stride))
        groups = weight.shape[0] if by_channel else 1
        pads = tuple(int(n) for n in pads)
        layer = Layer("convolution", self.taken([source]), weight.shape, stride, pads, groups)
        self.add(result, layer, weight, bias)
        self.activated(result, options.FusedActivationFunction())

    def pad(self, inputs: list[int], result: int) -> None:
        around = self.constant(inputs[1])
        if around[3].any():  # new channels, all zero
            assert not around[:3].any() and around[3, 0] == 0
            self.add(result, Layer("new channels", self.taken(inputs[:1]), size=(self.shape(result)[3],)))
        else:  # part of the convolution that follows
            self.padded[result] = (inputs[0], around)

    def arithmetic(self, operator: Any, name: str, inputs: list[int], result: int) -> None:
        if inputs[1] in self.constants:
            assert name == "MUL"
            factor = self.constants[inputs[1]]
            self.add(result, Layer("scale", self.taken(inputs[:1]), factor.shape), factor)
            return
        kind = tflite.AddOptions if name == "ADD" else tflite.MulOptions
        self.add(result, Layer("add" if name == "ADD" else "multiply", self.taken(inputs)))
        self.activated(result, self.options(operator, kind).FusedActivationFunction())

    def reshape(self, source: int, result: int) -> None:
        if len(self.shape(source)) == 4:
            self.add(result, Layer("rows", self.taken([source]), size=(self.shape(result)[-1],)))
        else:  # back from points to one row of numbers: they stay points
            self.results[result] = self.results[source]

    def custom(self, name: str, operator: Any, inputs: list[int], result: int) -> None:
        raw = operator.CustomOptionsAsNumpy().tobytes() if operator.CustomOptionsLength() else b""
        if name == "Convolution2DTransposeBias":
            weight = self.constant(inputs[1])  # outputs, height, width, inputs
            assert weight.shape[1:3] == (2, 2)
            shape = weight.transpose(3, 0, 1, 2)
            layer = Layer("transposed convolution", self.taken(inputs[:1]), shape.shape, stride=2)
            self.add(result, layer, shape, self.constant(inputs[2]))
        elif name == "Landmarks2TransformMatrix":
            options = flexbuffers.Loads(raw)
            assert options["target_rotation_radians"] == 0 and options["scale_x"] == options["scale_y"]
            subset = [k for k in options["subset_idxs"]]
            ends = (options["left_rotation_idx"], options["right_rotation_idx"])
            assert set(ends) <= set(subset)
            chosen = (*ends, *(k for k in subset if k not in ends))
            size = (options["output_height"], options["output_width"])
            self.add(
                result,
                Layer("rectangle", self.taken(inputs), size=size, points=chosen, scale=float(options["scale_x"])),
            )
        elif name == "TransformTensorBilinear":
            self.add(result, Layer("cut", self.taken(inputs), size=self.shape(result)[1:3]))
        elif name == "TransformLandmarks":
            self.add(result, Layer("place", self.taken(inputs)))
        else:
            raise NotImplementedError(name)

    def densified(self, k: int) -> np.ndarray:
        """A matrix kept by its non-zero places: rows dense, columns as compressed sparse rows."""
        sparsity, values, shape = self.graph.Tensors(k).Sparsity(), self.constant(k), self.shape(k)
        assert sparsity.BlockMapLength() == 0 and list(sparsity.TraversalOrderAsNumpy()) == [0, 1, 2, 3]
        assert [sparsity.DimMetadata(d).Format() for d in range(4)] == [0, 0, 0, 1]
        last = sparsity.DimMetadata(3)
        starts, places = (_numbers(last, part) for part in ("ArraySegments", "ArrayIndices"))
        dense = np.zeros((int(np.prod(shape[:3])), shape[3]), values.dtype)
        for row in range(len(dense)):
            dense[row, places[starts[row] : starts[row + 1]]] = values[starts[row] : starts[row + 1]]
        return dense.reshape(shape)


def _numbers(dimension: Any, part: str) -> np.ndarray:
    """The starts or the places of a compressed dimension."""
    kind = getattr(dimension, f"{part}Type")()
    vector_type = {1: tflite.Int32Vector, 2: tflite.Uint16Vector, 3: tflite.Uint8Vector}[kind]
    vector, table = vector_type(), getattr(dimension, part)()
    vector.Init(table.Bytes, table.Pos)
    return vector.ValuesAsNumpy().astype(np.int64)


def _same(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, of TensorFlow's padding SAME."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def main(arguments: Arguments) -> None:
    """Port all five."""
    for file, source in SOURCES.items():
        network = Reader(arguments.mediapipe / source).network()
        notes = {"source": f"mediapipe 0.10.9 {source}", "licence": "Apache-2.0"}
        file.save(arguments.output / file.file_name, network, notes)
        print(file.file_name, len(network.config.layers), "layers")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

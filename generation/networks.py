"""What the package's small networks share: blocks, the U-Net, and the files that hold their weights."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .files import write_bytes_atomically
from .weights import shipped_file

Network = TypeVar("Network", bound=nn.Module)
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class ConvBlock(nn.Sequential):
    """Convolution, normalisation per picture (so that styles wash out), activation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU(inplace=True)
        )


class ChartBlock(nn.Module):
    """The same on a chart of the head whose columns close round the axis and whose first row surrounds the crown."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride, bias=False)
        self.norm = nn.GroupNorm(8, outputs)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        return F.silu(self.norm(self.convolution(chart_padded(x))))


class ChartConv(nn.Module):
    """A convolution over 3 x 3 cells of the closed chart."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        return self.convolution(chart_padded(x))


def chart_padded(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h+2 w+2"]:
    """A chart with one more cell on each side: over the crown, below the last row, and round the axis."""
    over_the_crown = torch.roll(x[:, :, :1], x.shape[-1] // 2, dims=-1)
    x = torch.cat([over_the_crown, x, x[:, :, -1:]], dim=2)
    return torch.cat([x[..., -1:], x, x[..., :1]], dim=3)


def zeroed(layer: Layer) -> Layer:
    """The layer with zeros for weights and bias: an untrained network starts from its default answer."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def mirrored_columns(x: Float[Tensor, "*n w"]) -> Float[Tensor, "*n w"]:
    """A chart of the mirrored head: column c becomes -c."""
    return x[..., (-torch.arange(x.shape[-1], device=x.device)) % x.shape[-1]]


class UNet(nn.Module):
    """Levels of half the resolution each, one residual block per level each way; skips are added.

    Source: Ronneberger, Fischer, Brox, "U-Net", 2015.
    """

    def __init__(
        self,
        inputs: int,
        channels: tuple[int, ...],
        block: type[ConvBlock] | type[ChartBlock] = ConvBlock,
        *,
        stem_stride: int = 2,
        coarser_than: int = 0,
        finest: int = 0,
    ) -> None:
        """Make the layers.

        Args:
            inputs: channels of the input.
            channels: channels of the levels, multiples of 8.
            block: what the levels are made of.
            stem_stride: 2 for a first level of half the input's resolution.
            coarser_than: levels before this one have no block on the way down.
            finest: the way up ends at this level.
        """
        super().__init__()
        self.coarser_than, self.finest = coarser_than, finest
        upper = channels[finest:]
        self.stem = block(inputs, channels[0], stem_stride)
        self.down = nn.ModuleList(block(a, b, 2) for a, b in itertools.pairwise(channels))
        self.encode = nn.ModuleList(block(c, c) for c in channels[coarser_than:])
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(upper))
        self.decode = nn.ModuleList(block(c, c) for c in upper[:-1])

    def features(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d i j"], Float[Tensor, "n e k l"]]:
        """Features of the finest level on the way up, and those of the coarsest."""
        x = self.stem(x)
        levels = []
        for level in range(len(self.down) + 1):
            if level > 0:
                x = self.down[level - 1](x)
            if level >= self.coarser_than:
                x = x + self.encode[level - self.coarser_than](x)
            levels.append(x)
        x = coarsest = self.at_coarsest(x)
        for up, decode, skip in zip(reversed(self.up), reversed(self.decode), reversed(levels[self.finest : -1])):
            x = self.enlarged(up(x)) + skip
            x = x + decode(x)
        return x, coarsest

    def at_coarsest(self, x: Tensor) -> Tensor:
        """What happens between the way down and the way up."""
        return x

    def enlarged(self, x: Tensor) -> Tensor:
        """Twice the resolution."""
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class LoadedNetwork(Generic[Network]):
    """A network ready for use."""

    network: Network
    """In evaluation mode, on the CPU."""
    sha256: str
    """Hash of the weights' file, hexadecimal."""


@dataclass(frozen=True)
class NetworkFile(Generic[Network]):
    """The file of `generation/weights` that holds one kind of network."""

    name: str
    """Name without the ending `.safetensors`."""
    network_type: type[Network]
    """Made of its configuration, which it keeps as `config`."""
    config_type: type[Any]
    """Dataclass of the configuration."""

    @property
    def file_name(self) -> str:
        """Name with its ending."""
        return f"{self.name}.safetensors"

    def save(self, path: Path, network: Network, notes: dict[str, str]) -> None:
        """Write weights in half precision with their configuration.

        Args:
            path: a .safetensors file.
            notes: what else to keep in the file's header, such as figures and seeds.
        """
        from safetensors.torch import save

        tensors = {name: tensor.to(torch.float16).contiguous() for name, tensor in network.state_dict().items()}
        config = json.dumps(asdict(cast(Any, network).config))
        write_bytes_atomically(path, save(tensors, metadata={**notes, "config": config}))

    def read(self, path: Path) -> LoadedNetwork[Network]:
        """Weights that `save` has written, from any place."""
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as file:
            settings = json.loads(file.metadata()["config"])
            tensors = {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}
        settings = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
        network = self.network_type(self.config_type(**settings))
        network.load_state_dict(tensors)
        network.eval().requires_grad_(False)
        return LoadedNetwork(network, hashlib.sha256(path.read_bytes()).hexdigest())

    def load(self) -> LoadedNetwork[Network]:
        """The weights that ship, read once.

        Raises:
            InputError: the installation is damaged.
        """
        return _load(self, shipped_file(self.file_name))

    def provenance(self) -> str:
        """Name and hash of the weights that ship."""
        return f"{self.name} (sha256 {self.load().sha256[:16]})"


@functools.cache
def _load(file: NetworkFile[Network], path: Path) -> LoadedNetwork[Network]:
    return file.read(path)

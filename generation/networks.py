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

from .errors import InputError
from .files import write_bytes_atomically
from .weights import shipped_file

_LFS_POINTER = b"version https://git-lfs"
"""What stands in the place of a file that Git LFS has not fetched."""
_SCALE = ".scale"
"""Ending of the name of the scales of a tensor of whole numbers."""
_PICTURES = (0.45, 0.27)
"""Mean and standard deviation of pictures' colours, which `PictureUNet` brings them from."""
_MOST_SIZE = 4096
"""Channels, layers or places: more has none of these networks."""
_MOST_QUOTED = 120
"""Characters of other people's texts in a sentence."""

Network = TypeVar("Network", bound=nn.Module)
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.GroupNorm)


class ConvBlock(nn.Sequential):
    """Convolution, normalisation per picture (so that styles wash out), activation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU(inplace=True)
        )


class ResidualBlocks(nn.ModuleList):
    """Blocks that add to what they see, nothing at first."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__(ConvBlock(channels, channels) for _ in range(count))
        for block in self:
            zeroed(cast(nn.GroupNorm, cast(ConvBlock, block)[1]))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        for block in self:
            x = x + block(x)
        return x


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


class UNet(nn.Module):
    """Levels of half the resolution each, a residual block or more per level each way; skips are added.

    Source: Ronneberger, Fischer, Brox, "U-Net", 2015.
    """

    def __init__(
        self,
        inputs: int,
        channels: tuple[int, ...],
        *,
        coarser_than: int = 0,
        finest: int = 0,
        more_blocks: tuple[int, ...] = (),
    ) -> None:
        """Make the layers.

        Args:
            inputs: channels of the input.
            channels: channels of the levels, multiples of 8.
            coarser_than: levels before this one have no block on the way down.
            finest: the way up ends at this level.
            more_blocks: residual blocks beyond the first of each level, each way; none where it is empty.
        """
        super().__init__()
        self.coarser_than, self.finest = coarser_than, finest
        more = more_blocks or (0,) * len(channels)
        upper = channels[finest:]
        self.stem = ConvBlock(inputs, channels[0], 2)
        self.down = nn.ModuleList(ConvBlock(a, b, 2) for a, b in itertools.pairwise(channels))
        self.encode = nn.ModuleList(ConvBlock(c, c) for c in channels[coarser_than:])
        self.encode_more = nn.ModuleList(ResidualBlocks(c, n) for c, n in zip(channels, more, strict=True))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(upper))
        self.decode = nn.ModuleList(ConvBlock(c, c) for c in upper[:-1])
        self.decode_more = nn.ModuleList(ResidualBlocks(c, n) for c, n in zip(upper[:-1], more[finest:-1], strict=True))

    def features(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d i j"], Float[Tensor, "n e k l"]]:
        """Features of the finest level on the way up, and those of the coarsest."""
        x = self.stem(x)
        levels = []
        for level in range(len(self.down) + 1):
            if level > 0:
                x = self.down[level - 1](x)
            if level >= self.coarser_than:
                x = x + self.encode[level - self.coarser_than](x)
            x = self.encode_more[level](x)
            levels.append(x)
        coarsest = x
        skips = levels[self.finest : -1]
        for level in reversed(range(len(skips))):
            x = self.enlarged(self.up[level](x)) + skips[level]
            x = self.decode_more[level](x + self.decode[level](x))
        return x, coarsest

    def enlarged(self, x: Tensor) -> Tensor:
        """Twice the resolution."""
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class PictureUNet(UNet):
    """A U-Net that sees colours and places, and draws at its input's resolution as well.

    Source: Liu et al., "An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution", 2018
    (coordinates as input).
    """

    def __init__(
        self,
        outputs: int,
        channels: tuple[int, ...],
        fine_channels: int,
        *,
        coarser_than: int = 0,
        more_blocks: tuple[int, ...] = (),
    ) -> None:
        """Make the layers.

        Args:
            outputs: channels that are drawn.
            channels, coarser_than, more_blocks: as of `UNet`.
            fine_channels: channels at the input's resolution, a multiple of 8.
        """
        super().__init__(5, channels, coarser_than=coarser_than, more_blocks=more_blocks)
        half = channels[0]
        self.head = nn.Conv2d(half, outputs, 1)
        self.fine_input, self.fine_meaning = ConvBlock(5, fine_channels), nn.Conv2d(half, fine_channels, 1)
        self.fine = ConvBlock(2 * fine_channels, fine_channels)
        self.fine_head = zeroed(nn.Conv2d(fine_channels, outputs, 1))

    def seen(self, rgb_unit: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 5 h w"]:
        """Colours of about mean 0 and deviation 1, and x and y in [-1, 1]."""
        mean, deviation = _PICTURES
        n, _, height, width = rgb_unit.shape
        y = torch.linspace(-1, 1, height, device=rgb_unit.device)[:, None].expand(height, width)
        x = torch.linspace(-1, 1, width, device=rgb_unit.device)[None].expand(height, width)
        place = torch.stack([x, y]).expand(n, 2, height, width)
        return torch.cat([(rgb_unit - mean) / deviation, place], dim=1)

    def drawn(self, seen: Float[Tensor, "n 5 h w"]) -> Float[Tensor, "n c h w"]:
        """What is drawn of what is `seen`; sides must be multiples of `2 ** len(channels)`."""
        features, _ = self.features(seen)
        fine = torch.cat([self.fine_input(seen), self.enlarged(self.fine_meaning(features))], dim=1)
        return self.enlarged(self.head(features)) + self.fine_head(self.fine(fine))


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
    """Dataclass of the configuration; where it holds other dataclasses, its `from_plain` makes it of plain data."""
    weight_levels: int | None = None
    """Filters of convolutions are stored as whole numbers from minus to plus this one, at most 127, with a scale for
    each output; None: in half precision. Fewer levels compress better."""

    @property
    def file_name(self) -> str:
        """Name with its ending."""
        return f"{self.name}.safetensors"

    def save(self, path: Path, network: Network, notes: dict[str, str]) -> None:
        """Write weights in half precision or as whole numbers, with their configuration.

        Args:
            path: a .safetensors file.
            notes: what else to keep in the file's header, such as figures and seeds.
        """
        from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        for name, tensor in network.state_dict().items():
            if self.weight_levels is None or tensor.ndim != 4:
                tensors[name] = tensor.to(torch.float16).contiguous()
                continue
            scale = (tensor.abs().amax((1, 2, 3), keepdim=True) / self.weight_levels).clamp_min(1e-6).to(torch.float16)
            whole = (tensor / scale).round().clamp(-self.weight_levels, self.weight_levels)
            tensors[name], tensors[name + _SCALE] = whole.to(torch.int8).contiguous(), scale
        config = json.dumps(asdict(cast(Any, network).config))
        write_bytes_atomically(path, save(tensors, metadata={**notes, "config": config}))

    def read(self, path: Path) -> LoadedNetwork[Network]:
        """Weights that `save` has written, from any place.

        Sizes and shapes are compared before anything of their size is made.

        Raises:
            InputError: no such file, no safetensors, damaged, or another network's.
        """
        try:
            tensors, settings = self._contents(path)
            network = self._empty(settings, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except InputError as error:
            raise InputError(f"Cannot read {path} as weights {self.file_name}: {error}") from error
        except OSError as error:
            raise InputError(f"Cannot read {path}: {error.strerror or error}") from error
        network.load_state_dict(tensors)
        network.eval().requires_grad_(False)
        return LoadedNetwork(network, sha256)

    def _contents(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors in single precision, and the fields of the configuration.

        Raises:
            InputError: no such file, no safetensors, or damaged.
        """
        from safetensors import SafetensorError, safe_open

        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            raise InputError("it is a pointer of Git LFS, not the file itself; run `git lfs pull` where it comes from")
        if start[8:9] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
            raise InputError(
                "it is a pickle of torch.save, which may run code and is not opened; expected .safetensors"
            )
        try:
            with safe_open(str(path), framework="pt") as file:
                notes = file.metadata() or {}
                stored = {name: file.get_tensor(name) for name in file.keys()}
                scales = {name: stored.pop(name + _SCALE) for name in list(stored) if name + _SCALE in stored}
                tensors = {name: tensor.to(torch.float32) * scales.get(name, 1) for name, tensor in stored.items()}
        except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
            line = (str(error).splitlines() or [""])[0][:_MOST_QUOTED]
            raise InputError(f"it is damaged, cut off or no .safetensors ({line}); get it again") from error
        try:
            settings = json.loads(notes["config"])
        except (KeyError, ValueError, RecursionError) as error:
            raise InputError("its header says no sizes of a network; expected a file that dp360 has written") from error
        if not isinstance(settings, dict):
            raise InputError(f"the sizes in its header are no table but {str(settings)[:_MOST_QUOTED]}")
        return tensors, {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}

    def _empty(self, settings: dict[str, Any], found: dict[str, tuple[int, ...]]) -> Network:
        """A network of these sizes, into which tensors of these shapes fit.

        Raises:
            InputError: sizes that are none of this network, or shapes that are not those of the sizes.
        """
        numbers = [n for v in settings.values() for n in (v if isinstance(v, tuple) else (v,))]
        if any(isinstance(n, (int, float)) and not 0 <= n <= _MOST_SIZE for n in numbers):
            raise InputError(f"the sizes in its header are damaged: {str(settings)[:_MOST_QUOTED]}")
        try:
            with torch.device("meta"):
                shapes = {k: tuple(v.shape) for k, v in self.network_type(self._config(settings)).state_dict().items()}
        except Exception as error:  # layers refuse sizes in many ways
            raise InputError(f"its sizes are those of no such network: {str(settings)[:_MOST_QUOTED]}") from error
        missing, unknown = sorted(shapes.keys() - found.keys()), sorted(found.keys() - shapes.keys())
        if missing or unknown:
            first = f"lacks {missing[0]}" if missing else f"has {unknown[0][:_MOST_QUOTED]} besides"
            raise InputError(f"it holds another network: it {first} ({len(missing)} missing, {len(unknown)} unknown)")
        for name, shape in shapes.items():
            if found[name] != shape:
                raise InputError(f"{name} has the shape {found[name]}, expected {shape}")
        return self.network_type(self._config(settings))

    def _config(self, settings: dict[str, Any]) -> Any:
        """The configuration that these settings describe."""
        return getattr(self.config_type, "from_plain", self.config_type)(**settings)

    def load(self) -> LoadedNetwork[Network]:
        """The weights that ship, read once.

        Raises:
            InputError: the installation is damaged.
        """
        try:
            return _load(self, shipped_file(self.file_name))
        except InputError as error:
            raise InputError(f"{error}; if it came with dp360, install dp360 again") from error

    def provenance(self) -> str:
        """Name and hash of the weights that ship."""
        return f"{self.name} (sha256 {self.load().sha256[:16]})"


@functools.cache
def _load(file: NetworkFile[Network], path: Path) -> LoadedNetwork[Network]:
    return file.read(path)

"""What the package's small networks share: a block of layers, and the files that hold their weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from .files import write_bytes_atomically

Network = TypeVar("Network", bound=nn.Module)
Loaded = TypeVar("Loaded")


class ConvBlock(nn.Sequential):
    """Convolution, normalisation per picture (so that styles wash out), activation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU(inplace=True)
        )


def save_network(path: Path, network: nn.Module, config: Any, notes: dict[str, str]) -> None:
    """Write weights in half precision with their configuration.

    Args:
        path: a .safetensors file.
        network: the network.
        config: the dataclass that it was made from.
        notes: what else to keep in the file's header, such as figures and seeds.
    """
    from safetensors.torch import save

    tensors = {name: tensor.to(torch.float16).contiguous() for name, tensor in network.state_dict().items()}
    write_bytes_atomically(path, save(tensors, metadata={**notes, "config": json.dumps(asdict(config))}))


def read_network(path: Path, make: Callable[[dict[str, Any]], Network]) -> tuple[Network, str]:
    """A network that `save_network` has written, in evaluation mode on the CPU, and the SHA-256 of its file.

    Args:
        path: a .safetensors file.
        make: makes the network of its configuration's fields.
    """
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        settings = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}
    network = make({name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()})
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False)
    return network, hashlib.sha256(path.read_bytes()).hexdigest()


def shipped_weights(name: str, read: Callable[[Path], Loaded]) -> Loaded | None:
    """What `read` makes of a file of `generation/weights`; None where this installation does not have it."""
    file = resources.files("dp360.generation.weights") / name
    if not file.is_file():
        return None
    with resources.as_file(file) as path:
        return read(path)

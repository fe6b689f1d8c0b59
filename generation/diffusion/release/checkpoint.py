"""Checkpoint files that are larger than memory: names and shapes at once, tensors one by one, nothing executed.

Files of `torch.save` are mapped, not read, and unpickled with `weights_only`; safetensors files are mapped by their own
library. Weights are written as safetensors while they are being read, so that no second copy of a network ever exists.
Format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import InputError
from ...progress import Track

TensorsByName: TypeAlias = Mapping[str, Tensor]
"""Tensors by key; each is brought in when it is asked for."""

_CHUNK_BYTES = 16 * 2**20
_SAFETENSORS_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint on disk, looked at but not read."""

    path: Path
    """The file: `.safetensors`, or anything that `torch.save` wrote."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of every tensor."""

    @classmethod
    def inspect(cls, path: Path) -> CheckpointFile:
        """Read names and shapes.

        Raises:
            InputError: no such file, not a checkpoint, truncated, or with anything in it but tensors.
        """
        if not path.is_file():
            raise InputError(
                f"There is no checkpoint at {path}; give the path of a .th, .pt, .ckpt or .safetensors file"
            )
        with _mapped(path) as tensors:
            shape_of = tensors.shape if isinstance(tensors, _Lazy) else lambda key: tensors[key].shape
            return cls(path, {key: tuple(shape_of(key)) for key in tensors})

    @contextlib.contextmanager
    def opened(self) -> Iterator[TensorsByName]:
        """The tensors, mapped for the length of the block: their pages leave memory with it."""
        with _mapped(self.path) as tensors:
            yield tensors


class _Lazy(Mapping[str, Tensor]):
    """The tensors of an open safetensors file."""

    def __init__(self, file: safe_open) -> None:
        self._file = file
        self._keys = dict.fromkeys(file.keys())

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return self._file.get_tensor(key)

    def shape(self, key: str) -> list[int]:
        """Shape of a tensor, without reading it."""
        return self._file.get_slice(key).get_shape()

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[TensorsByName]:
    if path.suffix == ".safetensors":
        try:
            file = safe_open(path, "pt")
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
        with file as opened:
            yield _Lazy(opened)
    else:
        yield _load_mapped(path)


def _load_mapped(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds something other than tensors, which could run code when it is opened; expected tensors and "
            "nothing else, as in the released files: download it again from its source"
        ) from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: permission denied; make it readable for you") from error
    except Exception as error:  # torch, zipfile and pickle fail in many ways on bytes that are none of theirs
        raise _unreadable(path, error) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if isinstance(content, Tensor):
        content = {"": content}
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not a dictionary of tensors; give the file of a whole model"
        )
    strange = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        raise InputError(
            f"{path} has {len(strange)} entries that are not tensors under a name (first: {strange[0]!r}); "
            "give a file with the model's weights and nothing else"
        )
    return content


def _unreadable(path: Path, error: Exception) -> InputError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return InputError(
        f"{path} is not a whole checkpoint: expected a file of torch.save (zip form, torch 1.6 or later) or "
        f".safetensors, got {path.stat().st_size} bytes that do not open ({first_line}); download it again"
    )


def sha256_of_file(path: Path, track: Track) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    chunks = -(-path.stat().st_size // _CHUNK_BYTES)
    with path.open("rb") as file:
        for _ in track(range(chunks), total=chunks, description=f"Hashing {path.name}"):
            digest.update(file.read(_CHUNK_BYTES))
    return digest.hexdigest()


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, tensors: Iterable[Tensor]
) -> str:
    """Write tensors one after the other as they arrive.

    Args:
        path: file to write; the caller provides for atomicity.
        shapes: names and shapes, in the order of `tensors`.
        dtype: float32, float16 or bfloat16: what every tensor has.
        tensors: on the CPU; each is let go before the next is asked for.

    Returns:
        SHA-256 of the file, hexadecimal.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + dtype.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": _SAFETENSORS_NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for data in (len(text).to_bytes(8, "little"), text):
            file.write(data)
            digest.update(data)
        for (name, shape), tensor in zip(shapes.items(), tensors, strict=True):
            assert tuple(tensor.shape) == shape and tensor.dtype == dtype, name
            data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
            file.write(data)
            digest.update(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()

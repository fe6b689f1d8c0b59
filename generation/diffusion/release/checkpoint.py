"""Checkpoint files that are larger than memory: names and shapes at once, tensors one by one, nothing executed.

Files of `torch.save` are mapped, not read, and unpickled with `weights_only`; safetensors files are mapped by their own
library.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor

from ...errors import InputError
from ...progress import Track

TensorsByName: TypeAlias = Mapping[str, Tensor]
"""Tensors by key; their numbers are brought in when they are looked at."""

_CHUNK_BYTES = 16 * 2**20


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
        return cls(path, {key: tuple(tensor.shape) for key, tensor in _load_mapped(path).items()})

    def tensors(self) -> TensorsByName:
        """The tensors, mapped anew: their pages leave memory with them."""
        return _load_mapped(self.path)


def _load_mapped(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
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

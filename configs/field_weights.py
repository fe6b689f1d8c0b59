"""Weights of the networks of head fields, from files that a user names."""

from __future__ import annotations

from pathlib import Path

from dp360.generation import InputError
from dp360.generation.networks import LoadedNetwork, Network, NetworkFile


def read_field_weights(file: NetworkFile[Network], path: Path) -> LoadedNetwork[Network]:
    """Weights of one kind of network.

    Raises:
        InputError: the file is not there, damaged, or holds another network.
    """
    from safetensors import SafetensorError

    try:
        return file.read(path)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path} does not hold weights of dp360 train field ({file.file_name}): {error}") from error

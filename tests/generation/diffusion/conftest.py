"""The golden fixtures of the official classes: where they are, and one set of them in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

_DEFAULT = Path(__file__).parents[4] / "shared" / "reference" / "parity"


@dataclass(frozen=True)
class ParitySet:
    """One fixture set: `back` (F) or `video` (the 360 model)."""

    config: dict
    """Sizes and recorded figures."""
    weights_path: Path
    """State dict under official keys, float8 values to be used as float32."""
    inputs: dict[str, Tensor]
    """Inputs by name."""
    outputs: dict[str, Tensor]
    """What the official classes answered."""


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Folder of the fixtures: `DP360_PARITY`, or beside the checkout. Absence fails where `CI` is `true`."""
    folder = Path(os.environ.get("DP360_PARITY", _DEFAULT))
    if not (folder / "back_config.json").is_file():
        sentence = f"no golden fixtures at {folder}; set DP360_PARITY to their folder"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return folder


@pytest.fixture(scope="session")
def parity_set(parity_dir: Path) -> Callable[[str], ParitySet]:
    """Loads a set by its name, once per session."""
    loaded: dict[str, ParitySet] = {}

    def load(name: str) -> ParitySet:
        if name not in loaded:
            loaded[name] = ParitySet(
                json.loads((parity_dir / f"{name}_config.json").read_text()),
                parity_dir / f"{name}_weights.safetensors",
                load_file(parity_dir / f"{name}_inputs.safetensors"),
                load_file(parity_dir / f"{name}_outputs.safetensors"),
            )
        return loaded[name]

    return load


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny networks lose more to waiting threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

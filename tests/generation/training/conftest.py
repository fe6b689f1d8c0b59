"""A few small heads in a file's columns, for all that learns from head fields."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from reliability.other_device import OTHER, OtherDevice
from torch import Tensor, nn

from dp360.generation.prior.field.head_field import CHANNELS, HAIR, HeadField
from dp360.generation.synthetic.fields import field_files
from dp360.generation.synthetic.fields.field_files import FieldShard
from dp360.generation.synthetic.fields.observation import observe
from dp360.generation.training import loop
from dp360.generation.training.field_samples import FieldSamples

Result = TypeVar("Result")
_MAY_DIFFER = 0.001
"""Share of weights."""


class _Elsewhere:
    """An `Accelerator` of one process, on a device that is not the CPU."""

    device, is_main_process, num_processes, process_index = OTHER, True, 1, 0

    def __init__(self, **_: Any) -> None:
        pass

    def prepare(self, *given: Any) -> tuple[Any, ...]:
        return given

    def no_sync(self, model: nn.Module) -> Any:
        return contextlib.nullcontext()

    def autocast(self) -> Any:
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        assert loss.device == OTHER
        loss.backward()

    def clip_grad_norm_(self, parameters: list[nn.Parameter], most: float) -> Tensor:
        return torch.nn.utils.clip_grad_norm_(parameters, most)

    def reduce(self, tensor: Tensor, how: str) -> Tensor:
        return tensor

    def wait_for_everyone(self) -> None:
        pass


@pytest.fixture
def on_another_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Result]], Result]:
    """A function: runs a training on a device that is not the CPU, where tensors of two devices do not mix."""

    def run(train: Callable[[], Result]) -> Result:
        with monkeypatch.context() as patch, OtherDevice():
            patch.setattr(loop, "Accelerator", _Elsewhere)
            patch.setattr(loop, "_save", lambda *_: None)  # a file has no device
            return train()

    return run


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks on the CPU have learned the same.

    A weight that gets no gradient but rounding errors moves by as much as the others, either way: some may differ.
    """
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    differ = torch.cat([((ours[n] - theirs[n]).abs() > 1e-5).flatten().float() for n in ours])
    return float(differ.mean()) < _MAY_DIFFER


@pytest.fixture(name="same_weights")
def _same_weights() -> Callable[[nn.Module, nn.Module], bool]:
    return same_weights


def _head(seed: int) -> HeadField:
    """A ball with hair of some length on top and behind, combed down, bare in front."""
    rows, columns = np.meshgrid(np.arange(56), np.arange(64), indexing="ij")
    hair = (rows < 24 + 4 * seed) & ((rows < 8) | (np.abs(columns - 30) < 18 + seed))
    channels = np.full((len(CHANNELS), 56, 64), -1, np.float32)
    channels[0], channels[HAIR] = np.where(hair, -1, 1), np.where(hair, 1, -1)
    channels[CHANNELS.index("flow_certainty")] = np.where(hair, 1, -1)
    channels[CHANNELS.index("thickness")] = 0.3 * np.sin(rows / (4 + seed) + columns / 30)
    channels[CHANNELS.index("flow_down") :] = 0
    channels[CHANNELS.index("flow_down")] = hair
    return HeadField.unpack(channels, np.full((56, 64), 0.15, np.float32), np.array([0.2, np.nan, 0, 0.1], np.float32))


@pytest.fixture(scope="session")
def make_samples() -> Callable[[int, int], FieldSamples]:
    """A function: portraits of so many heads, with so many cameras each."""

    def make(heads: int, cameras: int) -> FieldSamples:
        fields = [_head(k) for k in range(heads)]
        columns: dict[str, np.ndarray] = {"number": np.arange(heads)}
        kept = [field_files._stored(f) for f in fields]
        columns |= {f"true/{name}": np.stack([row[name] for row in kept]) for name in kept[0]}
        seen = [
            [field_files._stored(observe(f, np.random.default_rng([k, c]))) for c in range(cameras)]
            for k, f in enumerate(fields)
        ]
        for name in seen[0][0]:
            columns[f"seen/{name}"] = np.stack([np.stack([row[name] for row in rows]) for rows in seen])
        places = [(0, h, c) for h in range(heads) for c in range(cameras)]
        return FieldSamples([FieldShard(columns)], places)

    return make

"""The training loop that all learned parts share: Adam, warm-up and cosine decay, averaged weights, checkpoints.

A batch depends on the number of its step alone, and every step seeds torch anew; a run that was stopped, killed or
handed to another process therefore ends with the same weights as one that ran through (on the CPU: the same bytes).

    weights = train(model, batch_of, loss_of, LoopConfig(steps=2000), folder)
"""

from __future__ import annotations

import copy
import io
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..files import write_bytes_atomically, write_errors_for_people
from ..progress import Track, silent

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint_previous.pt"
Batch = Mapping[str, Tensor]
"""Named tensors of one step."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to learn."""

    steps: int = 1000
    """Steps of the whole schedule; the learning rate falls to zero over them."""
    batch_size: int = 8
    """Samples per step; `batch_of` reads it."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises to its peak."""
    weight_decay: float = 1e-4
    """Decay of weights, per unit of learning rate."""
    gradient_clip: float = 1.0
    """Largest norm of a gradient; larger ones are scaled down."""
    ema_decay: float = 0.995
    """Share of the old average of the weights that each step keeps; less in the first steps."""
    save_every: int = 100
    """Steps between checkpoints: a kill loses at most these."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "cpu"
    """Name of the torch device."""
    minutes: float | None = None
    """Stop after this time with a checkpoint; the same call goes on from there. None runs to the end."""

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then half a cosine to zero.

        Source: Loshchilov and Hutter, "SGDR", 2017, Eq. 5 (one period).
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * self.learning_rate * (1 + math.cos(math.pi * min(1.0, done)))


def train(
    model: nn.Module,
    batch_of: Callable[[int], Batch],
    loss_of: Callable[[nn.Module, Batch], Tensor],
    config: LoopConfig,
    folder: Path,
    *,
    track: Track = silent,
    on_evaluation: Callable[[int, nn.Module, float], None] | None = None,
) -> dict[str, Tensor]:
    """Train, or go on training where `folder` has a checkpoint.

    Args:
        model: what learns; it is changed in place.
        batch_of: the batch of a step, deterministic in the step and independent of torch's global generator;
            it is called in another thread, one step ahead.
        loss_of: scalar loss of model and batch.
        config: schedule.
        folder: for checkpoints; the newest and the one before it are kept.
        track: progress display.
        on_evaluation: called at every checkpoint with the steps done, the averaged model in evaluation mode, and the
            mean loss since the last call.

    Returns:
        The averaged weights, on the CPU. Where `minutes` ended the run they are what was reached.

    Raises:
        InputError: both checkpoints are damaged, belong to another model, or the loss is not finite.
    """
    model.to(config.device).train()
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    first = _resume(folder, model, averaged, optimizer)
    started, losses = time.monotonic(), 0.0
    since = first
    steps = range(first, config.steps)
    for step, made in track(_made_ahead(batch_of, steps), total=len(steps), description="Training"):
        torch.manual_seed(config.seed * 1_000_003 + step)
        batch = {name: tensor.to(config.device) for name, tensor in made.items()}
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        loss = loss_of(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        _average(averaged, model, min(config.ema_decay, (step + 1) / (step + 10)))
        losses += float(loss.detach())
        if not math.isfinite(losses):
            raise InputError(f"The loss of step {step} is not a number; lower the learning rate and train again")
        done = step + 1
        out_of_time = config.minutes is not None and time.monotonic() - started > 60 * config.minutes
        if done % config.save_every == 0 or done == config.steps or out_of_time:
            _save(folder, done, model, averaged, optimizer)
            if on_evaluation is not None:
                on_evaluation(done, averaged, losses / (done - since))
            losses, since = 0.0, done
        if out_of_time:
            break
    return {name: tensor.cpu() for name, tensor in averaged.state_dict().items()}


def _made_ahead(batch_of: Callable[[int], Batch], steps: range) -> Iterator[tuple[int, Batch]]:
    """Steps and their batches; the next batch is made in a thread while one is learned from."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as worker:
        coming = worker.submit(batch_of, steps[0]) if steps else None
        for step in steps:
            assert coming is not None
            batch = coming.result()
            coming = worker.submit(batch_of, step + 1) if step + 1 in steps else None
            yield step, batch


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the model's; counters and running statistics are copied."""
    for old, new in zip(averaged.parameters(), model.parameters()):
        old.lerp_(new, 1 - decay)
    for old, new in zip(averaged.buffers(), model.buffers()):
        old.copy_(new)


def _save(folder: Path, step: int, model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    data = io.BytesIO()
    torch.save(state, data)
    newest = folder / NEWEST
    if newest.is_file():
        with write_errors_for_people(newest):
            os.replace(newest, folder / PREVIOUS)
    write_bytes_atomically(newest, data.getvalue())


def _resume(folder: Path, model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest checkpoint that can be read; steps done so far, 0 without one."""
    found = [folder / name for name in (NEWEST, PREVIOUS) if (folder / name).is_file()]
    if not found:
        return 0
    for path in found:
        state = _read(path)
        if state is None:
            continue
        try:
            model.load_state_dict(state["model"])
            averaged.load_state_dict(state["averaged"])
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} was written by another model than the one to be trained; choose another folder"
            ) from error
        if path.name == PREVIOUS:
            with write_errors_for_people(path):
                os.replace(path, folder / NEWEST)  # the damaged one must not push the good one out
        return int(state["step"])
    raise InputError(f"The checkpoints in {folder} are damaged; remove them to train from the start")


def _read(path: Path) -> dict[str, Any] | None:
    """A checkpoint's content, or None if the file is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds of errors on damaged files
        return None

"""The training loop that all learned parts share, on accelerate: one CPU, one GPU, many GPUs, many machines.

AdamW, warm-up and decay, accumulated and averaged weights, checkpoints. A micro-batch depends on its number alone, and
torch is seeded anew for every one; a run that was stopped, killed or handed to another process therefore ends with the
same weights as one that ran through (on the CPU: the same bytes), and n processes learn from the same micro-batches as
one process that accumulates n times as many.

    train_model(model, batch_of, loss_of, LoopConfig(steps=2000), folder)
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from jaxtyping import Int
from torch import Tensor, nn
from typing_extensions import assert_never

from ..errors import InputError
from ..files import write_bytes_atomically, write_errors_for_people
from ..progress import Track, silent

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint_previous.pt"
Batch = Mapping[str, Tensor]
"""Named tensors of one micro-batch."""
OnEvaluation = Callable[[int, nn.Module, float], None]
"""Told the steps done, the averaged model in evaluation mode, and the mean loss since it was last told."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to learn."""

    steps: int = 1000
    """Steps of the whole schedule."""
    batch_size: int = 8
    """Samples per micro-batch; `batch_of` reads it."""
    accumulation: int = 1
    """Micro-batches per step and process."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Whether the learning rate falls to zero over the steps or stays."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises to its peak."""
    weight_decay: float = 1e-4
    """Decay of weights, per unit of learning rate."""
    gradient_clip: float = 1.0
    """Largest norm of a gradient; larger ones are scaled down."""
    ema_decay: float = 0.995
    """Share of the old average of the weights that each step keeps; less in the first steps. 0: no average."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Numbers of the forward pass; weights and their averages stay float32."""
    save_every: int = 100
    """Steps between checkpoints: a kill loses at most these."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "cpu"
    """Kind of torch device of a single process; where accelerate has started several, each takes its own."""
    minutes: float | None = None
    """Stop after this time with a checkpoint; the same call goes on from there. None runs to the end."""

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0: linear warm-up, then half a cosine to zero, or no change.

        Source: Loshchilov and Hutter, "SGDR", 2017, Eq. 5 (one period).
        """
        match self.schedule:
            case "constant":
                rate = self.learning_rate
            case "cosine":
                done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
                rate = 0.5 * self.learning_rate * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
            case _:
                assert_never(self.schedule)
        return rate if step >= self.warmup_steps else rate * (step + 1) / self.warmup_steps


def train_model(
    model: nn.Module,
    batch_of: Callable[[int], Batch],
    loss_of: Callable[[nn.Module, Batch], Tensor],
    config: LoopConfig,
    folder: Path,
    *,
    track: Track = silent,
    on_evaluation: OnEvaluation | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Train, or go on training where `folder` has a checkpoint.

    Behind it the model has the averaged weights (where `minutes` ended the run, those that were reached) and is on the
    CPU, in evaluation mode.

    Args:
        model: its parameters that want gradients learn, in place; only they are kept in checkpoints.
        batch_of: the micro-batch of a number, deterministic in the number and independent of torch's global generator;
            it is called in another thread, one micro-batch ahead. With one process and no accumulation the number is
            the step.
        loss_of: scalar loss of model and micro-batch.
        folder: for checkpoints; the newest and the one before it are kept. Several machines have to share it.
        track: progress display; of the first process only.
        on_evaluation: called at every checkpoint, in the first process.
        on_step: called behind every step, in the first process, with the steps done and figures by name: loss,
            learning rate, gradient norm, seconds.

    Raises:
        InputError: both checkpoints are damaged, belong to another model, or the loss is not finite.
    """
    accelerator = Accelerator(
        cpu=config.device == "cpu",
        mixed_precision=config.mixed_precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # dropped conditions use no R
    )
    first_process = accelerator.is_main_process
    model.to(accelerator.device).train()
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(learning.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    averages = {name: p.detach().clone() for name, p in learning.items()}
    first = _resume(folder, learning, averages, optimizer)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    started, losses, since = time.monotonic(), 0.0, first
    steps = range(first, config.steps)
    numbers = (
        (step * config.accumulation + micro) * accelerator.num_processes + accelerator.process_index
        for step in steps
        for micro in range(config.accumulation)
    )
    made = _made_ahead(batch_of, numbers)
    for step in track(steps, total=len(steps), description="Training") if first_process else steps:
        began = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = rate = config.learning_rate_at(step)
        loss = torch.zeros((), device=accelerator.device)
        for micro in range(config.accumulation):
            number, batch = next(made)
            torch.manual_seed(config.seed * 1_000_003 + number)
            last = micro == config.accumulation - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(wrapped), accelerator.autocast():
                part = loss_of(wrapped, {name: t.to(accelerator.device) for name, t in batch.items()})
            accelerator.backward(part / config.accumulation)
            loss += part.detach().float() / config.accumulation
        norm = cast(Tensor, accelerator.clip_grad_norm_(list(learning.values()), config.gradient_clip))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(config.ema_decay, (step + 1) / (step + 10))
        for name, parameter in learning.items():
            averages[name].lerp_(parameter.detach(), 1 - decay)
        mean_loss = float(cast(Tensor, accelerator.reduce(loss, "mean")))
        losses += mean_loss
        if not math.isfinite(mean_loss):
            raise InputError(f"The loss of step {step} is not a number; lower the learning rate and train again")
        done = step + 1
        if on_step is not None and first_process:
            figures = {"loss": mean_loss, "learning_rate": rate, "gradient_norm": float(norm)}
            on_step(done, {**figures, "seconds": time.monotonic() - began})
        out_of_time = config.minutes is not None and time.monotonic() - started > 60 * config.minutes
        if accelerator.num_processes > 1:  # all stop together
            ended = accelerator.reduce(torch.tensor(float(out_of_time), device=accelerator.device))
            out_of_time = bool(cast(Tensor, ended) > 0)
        if done % config.save_every == 0 or done == config.steps or out_of_time:
            if first_process:
                _save(folder, done, learning, averages, optimizer)
                if on_evaluation is not None:
                    with _evaluating(model, learning, averages):
                        on_evaluation(done, model, losses / (done - since))
            losses, since = 0.0, done
            accelerator.wait_for_everyone()
        if out_of_time:
            break
    made.close()
    _copy_into(averages, learning)
    model.to("cpu").eval()


def with_time_left(loop: LoopConfig, started_s: float, share: float = 1.0) -> LoopConfig:
    """The loop of one of several trainings that follow one another.

    Args:
        loop: its `minutes` are those of all together; 0 in the result means that no time is left.
        started_s: when the first one began, by `time.monotonic`.
        share: of the time that is left, how much this one may take.
    """
    if loop.minutes is None:
        return loop
    return replace(loop, minutes=share * max(0.0, loop.minutes - (time.monotonic() - started_s) / 60))


def micro_batches_of(sample: Callable[[int], Mapping[str, Tensor]], batch_size: int) -> Callable[[int], Batch]:
    """The micro-batch of a number, out of the samples of consecutive numbers.

    `rgb` of the samples, bytes [s, s, 3], become colours [n, 3, s, s] in [0, 1], channels last in memory.
    """

    def batch_of(number: int) -> Batch:
        batch = stacked([sample(k) for k in range(number * batch_size, (number + 1) * batch_size)])
        if "rgb" in batch:
            batch["rgb"] = batch["rgb"].permute(0, 3, 1, 2).float() / 255
        return batch

    return batch_of


def in_turn(numbers: Int[np.ndarray, " n"], size: int, seed: int, batch: int) -> Int[np.ndarray, " m"]:
    """The members of a batch of `size`: each number once per epoch, in an order of its own."""
    per_epoch = max(1, len(numbers) // max(size, 1))
    epoch, place = divmod(batch, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(len(numbers))
    return numbers[order[place * size : (place + 1) * size]]


def stacked(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Samples of equal names and shapes as one micro-batch."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def _made_ahead(batch_of: Callable[[int], Batch], numbers: Iterable[int]) -> Generator[tuple[int, Batch], None, None]:
    """Numbers and their micro-batches; the next one is made in a thread while one is learned from."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as worker:
        coming = deque[tuple[int, Future[Batch]]]()
        for number in numbers:
            coming.append((number, worker.submit(batch_of, number)))
            if len(coming) > 1:
                here, batch = coming.popleft()
                yield here, batch.result()
        for here, batch in coming:
            yield here, batch.result()


@contextlib.contextmanager
def _evaluating(
    model: nn.Module, learning: Mapping[str, nn.Parameter], averages: Mapping[str, Tensor]
) -> Iterator[None]:
    """Within the block the model, in evaluation mode and without gradients, has the averages as its weights."""
    own = {name: p.detach().clone() for name, p in learning.items()}
    _copy_into(averages, learning)
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        _copy_into(own, learning)
        for parameter in learning.values():
            parameter.requires_grad_(True)
        model.train()


def _save(
    folder: Path,
    step: int,
    learning: Mapping[str, Tensor],
    averages: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    state = {
        "step": step,
        "model": {name: tensor.detach() for name, tensor in learning.items()},
        "averaged": averages,
        "optimizer": optimizer.state_dict(),
    }
    data = io.BytesIO()
    torch.save(state, data)
    newest = folder / NEWEST
    if newest.is_file():
        with write_errors_for_people(newest):
            os.replace(newest, folder / PREVIOUS)
    write_bytes_atomically(newest, data.getvalue())


def _resume(
    folder: Path, learning: Mapping[str, Tensor], averages: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> int:
    """Load the newest checkpoint that can be read; steps done so far."""
    found = [folder / name for name in (NEWEST, PREVIOUS) if (folder / name).is_file()]
    for path in found:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # torch raises many kinds of errors on damaged files
            continue
        try:
            for saved, here in ((state["model"], learning), (state["averaged"], averages)):
                _copy_into(saved, here)
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} was written by another model than the one to be trained; choose another folder"
            ) from error
        if path.name == PREVIOUS:
            with write_errors_for_people(path):
                os.replace(path, folder / NEWEST)  # the damaged one must not push the good one out
        return int(state["step"])
    if found:
        raise InputError(f"The checkpoints in {folder} are damaged; remove them to train from the start")
    return 0


@torch.no_grad()
def _copy_into(saved: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> None:
    if saved.keys() != here.keys():
        raise KeyError("other names of weights")
    for name, tensor in here.items():
        if saved[name].shape != tensor.shape:
            raise ValueError("other shapes of weights")
        tensor.copy_(saved[name])

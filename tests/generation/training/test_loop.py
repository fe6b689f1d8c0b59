"""The training loop: stopping, killing and damage change nothing in what is learned."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dp360.generation import InputError
from dp360.generation.training import LoopConfig, train_model
from dp360.generation.training.loop import NEWEST, PREVIOUS, Batch, with_time_left

CONFIG = LoopConfig(steps=24, warmup_steps=4, learning_rate=0.02, save_every=6, ema_decay=0.8)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))


def batch_of(step: int) -> Batch:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x.sum(1, keepdim=True)}


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    return ((model(batch["x"]) - batch["y"]) ** 2).mean()


def trained(folder: Path, config: LoopConfig = CONFIG) -> dict[str, Tensor]:
    model = network()
    train_model(model, batch_of, loss_of, config, folder)
    return model.state_dict()


def same_bytes(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Killed(Exception):
    """Stands for a kill."""


def killed_at(step: int, folder: Path) -> None:
    def failing(at: int) -> Batch:
        if at == step:
            raise Killed
        return batch_of(at)

    with pytest.raises(Killed):
        train_model(network(), failing, loss_of, CONFIG, folder)


def test_a_killed_and_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    killed_at(10, tmp_path / "broken")
    killed_at(20, tmp_path / "broken")
    assert same_bytes(whole, trained(tmp_path / "broken"))


def test_a_kill_loses_at_most_the_steps_between_checkpoints(tmp_path: Path) -> None:
    killed_at(17, tmp_path)
    steps: list[int] = []

    def watched(step: int) -> Batch:
        steps.append(step)
        return batch_of(step)

    train_model(network(), watched, loss_of, CONFIG, tmp_path)
    assert steps[0] == 12 and steps == list(range(12, 24))


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None], ids=["empty", "other", "cut"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: bytes | None) -> None:
    whole = trained(tmp_path / "whole")
    folder = tmp_path / "broken"
    killed_at(20, folder)
    data = (folder / NEWEST).read_bytes()
    (folder / NEWEST).write_bytes(data[: len(data) // 2] if damage is None else damage)
    assert same_bytes(whole, trained(folder))


def test_two_damaged_checkpoints_are_an_error_for_people(tmp_path: Path) -> None:
    killed_at(20, tmp_path)
    for name in (NEWEST, PREVIOUS):
        (tmp_path / name).write_bytes(b"?")
    with pytest.raises(InputError, match="damaged"):
        trained(tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(InputError, match="another model"):
        train_model(nn.Linear(4, 1), batch_of, loss_of, CONFIG, tmp_path)


def test_time_ends_a_run_with_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    limited = LoopConfig(**{**CONFIG.__dict__, "minutes": 0.0})
    whole = trained(tmp_path / "whole")
    for _ in range(CONFIG.steps):  # no time at all: one step per call
        weights = trained(tmp_path / "short", limited)
    assert same_bytes(whole, weights)


def test_evaluation_sees_averaged_weights_and_falling_losses(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    def watch(step: int, model: nn.Module, loss: float) -> None:
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        seen.append((step, loss))

    train_model(network(), batch_of, loss_of, CONFIG, tmp_path, on_evaluation=watch)
    assert [step for step, _ in seen] == [6, 12, 18, 24]
    assert seen[-1][1] < 0.7 * seen[0][1]


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [CONFIG.learning_rate_at(step) for step in range(CONFIG.steps + 1)]
    assert rates[3] == CONFIG.learning_rate == max(rates)
    assert all(a < b for a, b in itertools.pairwise(rates[:4]))
    assert all(a >= b for a, b in itertools.pairwise(rates[4:])) and math.isclose(rates[-1], 0.0, abs_tol=1e-12)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a number"):
        train_model(network(), batch_of, lambda m, b: loss_of(m, b) * math.nan, CONFIG, tmp_path)


def test_trainings_that_follow_one_another_share_the_time() -> None:
    now_s = time.monotonic()
    assert with_time_left(CONFIG, now_s - 600) == CONFIG
    timed = replace(CONFIG, minutes=30.0)
    left = with_time_left(timed, now_s - 600, share=0.5).minutes
    assert left is not None and math.isclose(left, 10.0, abs_tol=0.1)
    assert with_time_left(timed, now_s - 3600).minutes == 0

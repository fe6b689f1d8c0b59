"""Training of head fields: it learns, goes on where it stopped, and its figures are what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.generation import InputError
from dp360.generation.prior.field.head_field import CHANNELS, HAIR, HeadField
from dp360.generation.prior.field.mean_network import FieldMeanConfig, FieldMeanNet
from dp360.generation.prior.field.observed_field import ObservedField
from dp360.generation.synthetic.fields.field_files import FieldShard
from dp360.generation.synthetic.fields.observation import ObservationErrors, observe
from dp360.generation.training.field_figures import FieldFigures, continued_field, measure_fields
from dp360.generation.training.field_samples import FieldSamples, field_paths
from dp360.generation.training.field_training import mean_batch, mean_loss, mean_sample, train_field_mean
from dp360.generation.training.loop import LoopConfig

SMALL = FieldMeanConfig(channels=(8, 8, 16), embedding=8)
LOOP = LoopConfig(steps=4, batch_size=2, learning_rate=1e-3, warmup_steps=1, save_every=2)


class Given(FieldSamples):
    """Portraits that are given, not read."""

    def __init__(self, pairs: Sequence[tuple[HeadField, ObservedField]], drawn: int = 0) -> None:
        shards = FieldShard({}), FieldShard({}, drawn=True)
        super().__init__(shards, [(int(k >= len(pairs) - drawn), k, 0) for k in range(len(pairs))])
        object.__setattr__(self, "pairs", pairs)

    def of(self, index: int) -> tuple[HeadField, ObservedField]:
        return self.pairs[index]  # type: ignore[attr-defined]


def head(seed: int = 0) -> HeadField:
    """A ball with hair on top and behind, combed down, bare in front."""
    rows, columns = np.meshgrid(np.arange(56), np.arange(64), indexing="ij")
    hair = (rows < 30) & ((rows < 8) | (np.abs(columns - 32) < 20 + seed))
    channels = np.full((len(CHANNELS), 56, 64), -1, np.float32)
    channels[0], channels[HAIR] = np.where(hair, -1, 1), np.where(hair, 1, -1)
    channels[CHANNELS.index("flow_certainty")] = np.where(hair, 1, -1)
    channels[CHANNELS.index("thickness")] = 0.3 * np.sin(rows / 5)
    channels[CHANNELS.index("flow_down") :] = 0
    channels[CHANNELS.index("flow_down")] = hair
    return HeadField.unpack(channels, np.full((56, 64), 0.15, np.float32), np.array([0.2, 0.5, 0, 0.1], np.float32))


def pair(seed: int = 0) -> tuple[HeadField, ObservedField]:
    """A head over the skull that its portrait was fitted with, and the portrait."""
    observed = observe(head(seed), np.random.default_rng(seed), ObservationErrors.none())
    return head(seed).over(observed.skull_radius), observed


def test_one_head_is_learned_by_heart() -> None:
    torch.manual_seed(0)
    network = FieldMeanNet(replace(SMALL, channels=(16, 16, 16)))
    sample = {name: tensor[None] for name, tensor in mean_sample(*pair()).items()}
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    first = float(mean_loss(network, sample).detach())
    for _ in range(60):
        optimizer.zero_grad()
        loss = mean_loss(network, sample)
        loss.backward()
        optimizer.step()
    assert float(mean_loss(network, sample).detach()) < 0.05 * first


def test_a_stopped_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    samples = Given([pair(0), pair(1), pair(2)])
    through = train_field_mean(samples, tmp_path / "through", LOOP, SMALL)
    train_field_mean(samples, tmp_path / "stopped", replace(LOOP, minutes=0.0), SMALL)  # one step
    resumed = train_field_mean(samples, tmp_path / "stopped", LOOP, SMALL)
    for name, weights in through.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_batches_follow_from_their_numbers() -> None:
    samples = Given([pair(0), pair(1)])
    one, again, other = (mean_batch(samples, LOOP, number) for number in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_two_fifths_of_every_batch_are_drawn_and_all_take_their_turn() -> None:
    pairs = [pair(k) for k in range(12)]
    samples = Given(pairs, drawn=3)
    assert list(samples.drawn) == [9, 10, 11]
    loop = replace(LOOP, batch_size=5)
    known = [torch.from_numpy(p.mirrored().pack() if side else p.pack()) for _, p in pairs for side in (0, 1)]
    seen: list[int] = []
    for number in range(3):
        batch = mean_batch(samples, loop, number)["observed"]
        numbers = [next(k // 2 for k, packed in enumerate(known) if torch.equal(packed, row)) for row in batch]
        assert [n >= 9 for n in numbers] == [False] * 3 + [True] * 2
        seen += numbers
    assert sorted(seen)[:9] == list(range(9))  # three batches are an epoch of the others


def test_truth_has_the_best_figures_and_the_baseline_worse_ones() -> None:
    truth, observed = pair()
    perfect = FieldFigures.of(truth, truth, observed)
    assert (perfect.accuracy, perfect.cover_iou, perfect.covered_mm, perfect.all_mm) == (1, 1, 0, 0)
    assert perfect.flow_deg == pytest.approx(0, abs=1e-3) and perfect.laplacian == pytest.approx(1)
    figures = measure_fields({"continued": continued_field}, [pair(k) for k in range(2)])["continued"]
    assert figures.accuracy < 1 and figures.all_mm > 0.2 and "cover IoU" in str(figures)


def test_figures_know_millimetres_and_degrees() -> None:
    truth, observed = pair()
    unit_mm = 10 / 0.165  # a world unit is about 60 centimetres
    thicker = replace(truth, thickness=truth.thickness + np.float32(0.01))
    aside = replace(thicker, flow=truth.flow[[1, 0, 2]])
    figures = FieldFigures.of(aside, truth, observed)
    assert 5 < figures.covered_mm < 7 and figures.covered_mm / 0.01 > unit_mm
    assert figures.flow_deg == pytest.approx(90, abs=1e-3)


def test_twice_and_half_as_rough_is_as_rough_in_the_mean() -> None:
    truth, observed = pair()
    one = replace(FieldFigures.of(truth, truth, observed), laplacian=2.0, turn=np.nan)
    both = FieldFigures.mean([one, replace(one, laplacian=0.5, turn=0.7, all_mm=3.0)])
    assert both.laplacian == pytest.approx(1) and both.all_mm == 1.5 and both.turn == pytest.approx(0.7)


def test_a_folder_without_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No fields_train_\*.npz"):
        field_paths(tmp_path, "train")


def test_another_device_learns_the_same(tmp_path: Path, on_another_device, same_weights) -> None:
    samples = Given([pair(0), pair(1), pair(2)])
    here = train_field_mean(samples, tmp_path / "here", LOOP, SMALL)
    there = on_another_device(lambda: train_field_mean(samples, tmp_path / "there", LOOP, SMALL))
    assert same_weights(here, there)

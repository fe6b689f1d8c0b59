"""Training of the fields' autoencoder: it learns, goes on where it stopped, and its latents come out scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.generation.prior.field.field_autoencoder import FieldAutoencoder, FieldAutoencoderConfig
from dp360.generation.training.field_autoencoder_training import (
    autoencoder_batch,
    autoencoder_loss,
    reconstruction_figures,
    train_field_autoencoder,
)
from dp360.generation.training.field_samples import FieldSamples
from dp360.generation.training.loop import LoopConfig

SMALL = FieldAutoencoderConfig(fine=8, coarse=16, blocks=1, full=8)
LOOP = LoopConfig(steps=4, batch_size=2, learning_rate=1e-3, warmup_steps=1, save_every=2)


@pytest.fixture(scope="module")
def samples(make_samples: Callable[[int, int], FieldSamples]) -> FieldSamples:
    """Four portraits of two heads."""
    return make_samples(2, 2)


def test_heads_are_learned_by_heart(samples: FieldSamples) -> None:
    torch.manual_seed(0)
    network, batch = FieldAutoencoder(replace(SMALL, noise=0.0)), autoencoder_batch(samples, LOOP, 0)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = autoencoder_loss(network, batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


def test_a_stopped_training_ends_with_the_same_weights_and_scaled_latents(
    samples: FieldSamples, tmp_path: Path
) -> None:
    through = train_field_autoencoder(samples, tmp_path / "through", LOOP, SMALL)
    train_field_autoencoder(samples, tmp_path / "stopped", replace(LOOP, minutes=0.0), SMALL)  # one step
    resumed = train_field_autoencoder(samples, tmp_path / "stopped", LOOP, SMALL)
    for name, weights in through.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name
    latents = through.encode(torch.from_numpy(np.stack([samples.truth(k).pack() for k in range(len(samples))])))
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3 and (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_batches_follow_from_their_numbers_and_show_other_skulls(samples: FieldSamples) -> None:
    one, again, other = (autoencoder_batch(samples, LOOP, number) for number in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["target"], other["target"])
    over_fitted, over_own = samples.truth(0), samples.truth(0, own_skull=True)
    assert np.array_equal(over_fitted.skull_radius, samples.of(0)[1].skull_radius)
    assert not np.array_equal(over_fitted.thickness, over_own.thickness)


def test_roughness_counts(samples: FieldSamples) -> None:
    batch = autoencoder_batch(samples, LOOP, 0)

    class Answers(torch.nn.Module):
        """Truth with an error of one size, either everywhere alike or from cell to cell."""

        def __init__(self, rough: bool) -> None:
            super().__init__()
            signs = (-1.0) ** (torch.arange(56)[:, None] + torch.arange(64)) if rough else torch.ones(56, 64)
            self.error = 0.1 * signs

        def forward(self, target: torch.Tensor) -> torch.Tensor:
            return target + self.error

    even, rough = (float(autoencoder_loss(Answers(rough), batch)) for rough in (False, True))
    assert even == pytest.approx(0.01, rel=1e-3) and rough > 2 * even


def test_figures_of_a_fresh_network_are_poor(samples: FieldSamples) -> None:
    torch.manual_seed(0)
    figures = reconstruction_figures(FieldAutoencoder(SMALL).eval(), map(samples.of, range(2)))
    assert figures.accuracy < 0.9 and figures.covered_mm > 1


def test_another_device_learns_the_same(samples: FieldSamples, tmp_path: Path, on_another_device, same_weights) -> None:
    here = train_field_autoencoder(samples, tmp_path / "here", LOOP, SMALL)
    there = on_another_device(lambda: train_field_autoencoder(samples, tmp_path / "there", LOOP, SMALL))
    assert same_weights(here, there)

"""The network of the fields' grain, and its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.generation.networks import LoadedNetwork
from dp360.generation.prior.field.field_autoencoder import FieldAutoencoder, FieldAutoencoderConfig
from dp360.generation.prior.field.field_grain import FIELD_GRAIN, FieldGrain, FieldGrainConfig, GrainSizes
from dp360.generation.prior.field.field_pipeline import field_scheduler
from dp360.generation.prior.field.head_field import CHANNELS
from dp360.generation.training.field_grain_training import (
    by_size,
    grain_batch,
    grain_error,
    grain_loss,
    sizes_loss,
    train_field_grain,
)
from dp360.generation.training.field_samples import FieldSamples
from dp360.generation.training.loop import LoopConfig

SMALL = FieldGrainConfig(width=8, blocks=1, embedding=8)
LOOP = LoopConfig(steps=4, batch_size=2, learning_rate=1e-3, warmup_steps=1, save_every=2)


@pytest.fixture(scope="module")
def samples(make_samples: Callable[[int, int], FieldSamples]) -> FieldSamples:
    """Portraits of three heads."""
    return make_samples(3, 1)


@pytest.fixture(scope="module")
def autoencoder() -> LoadedNetwork[FieldAutoencoder]:
    """A tiny one, no layer of which is idle."""
    torch.manual_seed(0)
    network = FieldAutoencoder(FieldAutoencoderConfig(fine=8, coarse=16, blocks=1, full=8)).eval()
    for parameter in network.requires_grad_(False).parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape))
    return LoadedNetwork(network, "autoencoder")


def fresh() -> FieldGrain:
    """A network no layer of which is idle."""
    torch.manual_seed(1)
    network = FieldGrain(SMALL).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


def test_all_that_it_is_told_counts_and_an_untrained_one_says_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    noisy, smooth = torch.randn(2, 2, 20, 56, 64, generator=generator)
    timestep, network = torch.tensor([10, 900]), fresh()
    assert not FieldGrain(SMALL)(noisy, timestep, smooth).any()
    answer = network(noisy, timestep, smooth)
    assert answer.shape == (2, 20, 56, 64)
    for other in ((noisy + 1, timestep, smooth), (noisy, timestep + 50, smooth), (noisy, timestep, smooth + 1)):
        assert not torch.equal(network(*other), answer)


def test_it_sees_round_the_head() -> None:
    network, noisy = fresh(), torch.zeros(1, 20, 56, 64)
    smooth, timestep = noisy.clone(), torch.tensor([500])
    smooth[..., 63] = 1
    changed = (network(noisy, timestep, smooth) != network(noisy, timestep, noisy)).any(1)[0]
    assert changed[:, 0].all() and changed[:, 62].all()


def test_a_batch_is_what_decoding_leaves_out(
    samples: FieldSamples, autoencoder: LoadedNetwork[FieldAutoencoder]
) -> None:
    grain_std = torch.full((20,), 0.5)
    batch = grain_batch(samples, autoencoder.network, grain_std, LOOP, 0)
    truths = [f for k in range(len(samples)) for f in (samples.truth(k), samples.truth(k).mirrored())]
    packed = torch.from_numpy(np.stack([truth.pack() for truth in truths]))
    with torch.no_grad():
        lost = (packed - autoencoder.network.decode(autoencoder.network.encode(packed))) / 0.5
    for grain, smooth in zip(batch["grain"], batch["smooth"]):
        assert (grain - lost).abs().amax((1, 2, 3)).min() < 1e-4
        assert 0 < (smooth + 0.5 * lost - packed).abs().amax((1, 2, 3)).min() < 3  # decoded of disturbed latents


def test_a_grain_is_learned_by_heart(samples: FieldSamples, autoencoder: LoadedNetwork[FieldAutoencoder]) -> None:
    torch.manual_seed(0)
    network, alphas = FieldGrain(replace(SMALL, width=16)), field_scheduler().alphas_cumprod
    batch = grain_batch(samples, autoencoder.network, network.get_buffer("grain_std"), replace(LOOP, batch_size=1), 0)
    batch = {name: rows.expand(8, -1, -1, -1) for name, rows in batch.items()}
    batch["grain"] = batch["grain"] / batch["grain"].std()
    optimizer, losses = torch.optim.Adam(network.parameters(), 1e-2), []
    for _ in range(60):
        optimizer.zero_grad()
        loss = grain_loss(network, batch, alphas=alphas)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


def test_a_stopped_training_ends_with_the_same_weights(
    samples: FieldSamples, autoencoder: LoadedNetwork[FieldAutoencoder], tmp_path: Path
) -> None:
    through = train_field_grain(samples, autoencoder, tmp_path / "through", LOOP, SMALL)
    assert (through.get_buffer("grain_std") > 0).all()
    train_field_grain(samples, autoencoder, tmp_path / "parts", replace(LOOP, steps=4, minutes=0.0), SMALL)
    parts = train_field_grain(samples, autoencoder, tmp_path / "parts", LOOP, SMALL)
    assert all(torch.equal(a, b) for a, b in zip(through.state_dict().values(), parts.state_dict().values()))
    errors = [grain_error(network, samples, autoencoder) for network in (through, through, parts)]
    assert errors[0] == errors[1] == errors[2] > 0


def test_sizes_are_learned_where_the_smooth_field_tells_them() -> None:
    torch.manual_seed(0)
    sizes, generator = GrainSizes(replace(SMALL, width=16)), torch.Generator().manual_seed(0)
    smooth = torch.randn(6, 20, 56, 64, generator=generator) * 0.1
    smooth[:3, 4] = 1  # these heads are rough
    true = torch.where(smooth[:, 4:5].mean((2, 3), keepdim=True) > 0.5, 2.0, 0.2)
    optimizer = torch.optim.Adam(sizes.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        grain = true * torch.randn(smooth.shape, generator=generator)
        sizes_loss(sizes, {"grain": grain, "smooth": smooth}).backward()
        optimizer.step()
    with torch.no_grad():
        learned = sizes(smooth).exp().mean((1, 2, 3))
        divided = by_size({"grain": grain, "smooth": smooth}, sizes.eval())["grain"]
    assert np.allclose(learned, true.flatten(), rtol=0.25)
    assert np.allclose(divided.std((1, 2, 3)), 1, atol=0.25)


def test_single_cells_far_off_are_clipped() -> None:
    grain = torch.full((1, 20, 56, 64), 100.0)
    divided = by_size({"grain": grain, "smooth": torch.zeros_like(grain)}, GrainSizes(SMALL))
    assert divided["grain"].max() < 10


def test_weights_survive_a_file(tmp_path: Path) -> None:
    network, smooth = fresh(), torch.randn(1, 20, 56, 64, generator=torch.Generator().manual_seed(0))
    network.get_buffer("grain_std").copy_(torch.linspace(0.1, 1, 20))
    FIELD_GRAIN.save(tmp_path / FIELD_GRAIN.file_name, network, {})
    loaded = FIELD_GRAIN.read(tmp_path / FIELD_GRAIN.file_name).network
    assert loaded.config == SMALL and torch.allclose(loaded.size_of(smooth), network.size_of(smooth), rtol=0.03)


def test_colours_get_no_grain() -> None:
    ones = torch.ones(1, 20, 56, 64)
    drawn = fresh().drawn(ones, ones).abs().amax((0, 2, 3))
    colours = [name.rpartition("_")[2] in ("red", "green", "blue") for name in CHANNELS]
    assert sum(colours) == 9 and torch.equal(drawn == 0, torch.tensor(colours))

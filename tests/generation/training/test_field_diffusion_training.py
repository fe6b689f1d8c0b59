"""Training of the fields' denoiser: latents are kept, it learns, it goes on where it stopped, and figures are right."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.generation import InputError
from dp360.generation.networks import LoadedNetwork
from dp360.generation.prior.field.field_autoencoder import FieldAutoencoder, FieldAutoencoderConfig
from dp360.generation.prior.field.field_denoiser import FieldDenoiser, FieldDenoiserConfig
from dp360.generation.prior.field.field_pipeline import FieldPipeline, field_scheduler
from dp360.generation.prior.field.head_field import HAIR, HeadField
from dp360.generation.prior.field.mean_network import FieldMeanConfig, FieldMeanNet, estimate_field
from dp360.generation.prior.field.observed_field import ObservedField
from dp360.generation.training.field_diffusion_training import (
    denoiser_batch,
    denoiser_loss,
    losses_by_noise,
    train_field_denoiser,
)
from dp360.generation.training.field_latents import EncodedPortraits, FieldLatents, encoded_portraits
from dp360.generation.training.field_residuals import GaussianResiduals
from dp360.generation.training.field_samples import FieldSamples
from dp360.generation.training.loop import LoopConfig
from dp360.generation.training.sample_figures import (
    best_spread,
    classifier_auc,
    crps,
    mean_difference,
    measure_samples,
    ways_to_draw,
)

SMALL = FieldDenoiserConfig(width=16, blocks=1, heads=2, dropout=0.0)
LOOP = LoopConfig(steps=4, batch_size=4, learning_rate=1e-3, warmup_steps=1, save_every=2)


@pytest.fixture(scope="module")
def samples(make_samples: Callable[[int, int], FieldSamples]) -> FieldSamples:
    """Three portraits of three heads."""
    return make_samples(3, 1)


@pytest.fixture(scope="module")
def networks() -> tuple[LoadedNetwork[FieldMeanNet], LoadedNetwork[FieldAutoencoder]]:
    """Tiny networks, no layer of which is idle."""
    torch.manual_seed(0)
    mean = FieldMeanNet(FieldMeanConfig(channels=(8, 8, 8), embedding=8)).eval()
    autoencoder = FieldAutoencoder(FieldAutoencoderConfig(fine=8, coarse=16, blocks=1, full=8)).eval()
    for network in (mean, autoencoder):
        for parameter in network.requires_grad_(False).parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return LoadedNetwork(mean, "mean"), LoadedNetwork(autoencoder, "autoencoder")


@pytest.fixture(scope="module")
def latents(samples: FieldSamples, networks) -> FieldLatents:
    return FieldLatents([encoded_portraits(samples, *networks)])


def test_rows_are_portraits_and_their_mirror_images(samples: FieldSamples, networks, latents: FieldLatents) -> None:
    mean, autoencoder = networks
    truth, observed = samples.of(1)
    rows = latents.rows(np.array([2, 3]))
    for row, (field, seen) in enumerate(((truth, observed), (truth.mirrored(), observed.mirrored()))):
        expected = autoencoder.network.encode(torch.from_numpy(field.pack())[None])[0]
        assert torch.allclose(rows["truth"][row], expected, atol=1e-2, rtol=1e-2)
        assert torch.allclose(rows["portrait"][row, -3:], torch.from_numpy(seen.towards_camera), atol=1e-3)
    assert torch.equal(rows["residual"], rows["truth"] - rows["told"][:, :8])
    assert estimate_field(observed, mean).thickness.any()  # so that the expected field is not just nothing


def test_latents_are_made_once_and_anew_for_other_weights(
    samples: FieldSamples, networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fields_train_0_1_000000_3.npz"
    np.savez(path, **samples.shards[0].columns)  # type: ignore[arg-type]
    mean, autoencoder = networks
    first = FieldLatents.of([path], tmp_path / "latents", mean, autoencoder)
    assert len(first) == 6
    made: list[int] = []

    def counted(*given) -> EncodedPortraits:
        made.append(1)
        return encoded_portraits(*given)

    monkeypatch.setattr("dp360.generation.training.field_latents.encoded_portraits", counted)
    again = FieldLatents.of([path], tmp_path / "latents", mean, autoencoder)
    assert not made and np.array_equal(again.parts[0].told, first.parts[0].told)
    FieldLatents.of([path], tmp_path / "latents", replace(mean, sha256="other"), autoencoder)
    assert made


def test_a_residual_is_learned_by_heart(latents: FieldLatents) -> None:
    torch.manual_seed(0)
    network, alphas = FieldDenoiser(replace(SMALL, width=32)), field_scheduler().alphas_cumprod
    deviation = torch.from_numpy(latents.residual_variance()).sqrt()
    batch = denoiser_batch(FieldLatents(latents.parts), deviation, replace(LOOP, batch_size=2), 0)
    batch = {name: rows[:1].expand(16, *rows.shape[1:]) for name, rows in batch.items()}
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = denoiser_loss(network, batch, alphas=alphas)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_a_stopped_training_ends_with_the_same_weights(latents: FieldLatents, tmp_path: Path) -> None:
    through = train_field_denoiser(latents, tmp_path / "through", LOOP, SMALL)
    train_field_denoiser(latents, tmp_path / "stopped", replace(LOOP, minutes=0.0), SMALL)  # one step
    resumed = train_field_denoiser(latents, tmp_path / "stopped", LOOP, SMALL)
    for name, weights in through.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name
    scale = through.get_buffer("residual_std").square()
    assert torch.allclose(scale, torch.from_numpy(latents.residual_variance()), rtol=1e-3)
    losses = losses_by_noise(through, latents)
    assert set(losses) == {"low", "middle", "high", "top"} and losses == losses_by_noise(resumed, latents)


def test_without_an_answer_the_loss_is_the_variance_of_v(latents: FieldLatents) -> None:
    network = FieldDenoiser(SMALL).eval()  # says 0
    network.get_buffer("residual_std").copy_(torch.from_numpy(latents.residual_variance()).sqrt())
    losses = losses_by_noise(network, latents)
    assert losses["low"] == pytest.approx(1, abs=0.1)  # all of v is noise


class TooSure(FieldPipeline):
    """Draws heads whose hair is thicker or thinner everywhere, but varies only 1 / 1.6 as much as truth does."""

    def __init__(self, base: HeadField) -> None:
        self.base = base

    def thick(self, amount: float) -> HeadField:
        return replace(self.base, thickness=np.full((56, 64), 1 + 0.1 * amount, np.float32))

    def expected(self, observed: ObservedField) -> HeadField:
        return self.thick(0)

    def latents_of(self, mean: HeadField) -> torch.Tensor:
        return torch.zeros(1, 1, 14, 16)

    def draw_residuals(self, mean_latents, observed, generator, count, **_) -> torch.Tensor:
        return torch.randn(count, 1, 1, 1, generator=generator).expand(-1, 1, 14, 16) / 1.6

    def fields_of(self, residuals, mean, mean_latents, observed, generator=None) -> list[HeadField]:
        return [self.thick(float(r[0, 0, 0])) for r in residuals]


def test_samples_that_are_too_narrow_are_told_to_spread(samples: FieldSamples) -> None:
    truth, observed = samples.of(0)
    material = np.zeros_like(truth.material)
    material[HAIR] = 1
    pipeline = TooSure(replace(truth, material=material))
    none = np.zeros((56, 64), np.float32)
    blind = replace(observed, visibility=none, thickness_certainty=none)
    amounts = np.random.default_rng(0).standard_normal(300)
    assert best_spread(pipeline, [(pipeline.thick(float(a)), blind) for a in amounts], samples=16) in (1.4, 1.6)


def test_the_gaussian_has_the_moments_of_the_residuals() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2, 1, 14, 16)).astype(np.float32)
    rows = (rng.normal(size=(400, 2)).astype(np.float32) @ directions.reshape(2, -1)).reshape(400, 1, 14, 16) + 0.5
    gaussian = GaussianResiduals.fit(iter([rows[:100], rows[100:]]), components=2)
    assert np.abs(gaussian.mean - rows.mean(0)).max() < 1e-3 and gaussian.rest.max() < 0.05
    drawn = gaussian.draw(4000, torch.Generator().manual_seed(0)).numpy()
    true, found = (np.cov(x.reshape(len(x), -1)[:, :20].T) for x in (rows, drawn))
    assert np.abs(true - found).max() < 0.1 * true.max()
    few = GaussianResiduals.fit(iter([rows]), components=1)  # what is left keeps the variance whole
    assert np.allclose(np.square(few.factor).sum(-1) + np.square(few.rest), rows.var(0), rtol=1e-2, atol=1e-3)


def test_residuals_survive_a_file(tmp_path: Path) -> None:
    one = GaussianResiduals.fit(iter([np.random.default_rng(0).normal(size=(5, 1, 14, 16)).astype(np.float32)]), 3)
    one.save(tmp_path / "r.npz")
    again = GaussianResiduals.read(tmp_path / "r.npz")
    assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(again).values()))
    with pytest.raises(InputError, match="does not hold residuals"):
        GaussianResiduals.read(tmp_path / "none.npz")


def test_crps_is_the_closed_form_of_a_gaussian() -> None:
    rng, z, sigma = np.random.default_rng(0), 0.7, 2.0
    samples = sigma * rng.normal(size=(4, 300, 300))
    phi, cumulated = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), (1 + math.erf(z / math.sqrt(2))) / 2
    closed = sigma * (z * (2 * cumulated - 1) + 2 * phi - 1 / math.sqrt(math.pi))  # Gneiting and Raftery, 2007, Eq. 21
    assert crps(samples, np.full((300, 300), z * sigma)).mean() == pytest.approx(closed, abs=0.01)
    pairs = [np.abs(a - b) for k, a in enumerate(samples) for b in samples[:k]]
    assert np.allclose(mean_difference(samples), np.mean(pairs, axis=0))
    same = np.ones((3, 2, 2))
    assert np.array_equal(crps(same, np.zeros((2, 2))), np.ones((2, 2)))  # of equal samples: their error


def test_the_classifier_tells_what_can_be_told() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 100, 6))
    assert classifier_auc(one, one + 3) > 0.95
    assert 0.3 < classifier_auc(one, other) < 0.7
    assert math.isnan(classifier_auc(one[:5], other[:5]))


def test_figures_of_samples(samples: FieldSamples, networks, latents: FieldLatents) -> None:
    mean, autoencoder = networks
    pipeline = FieldPipeline.of(mean.network, autoencoder.network, FieldDenoiser(SMALL))
    draws = ways_to_draw(pipeline, GaussianResiduals.fit(latents.residuals(), 4), 3)
    truths = dict.fromkeys(("truth",), lambda observed, mean, generator: [samples.of(0)[0]] * 3)
    portraits = [samples.of(0)] * 2
    found = measure_samples({**draws, **truths}, portraits, pipeline)
    noises = {f"mean with {mm} mm of white noise" for mm in (2, 3, 4, 6)}
    assert set(found) == {"diffusion", "Gaussian residuals", "true residuals", "truth"} | noises
    assert found["true residuals"].spread == 0 < found["true residuals"].crps_mm
    assert found["truth"].crps_mm == found["truth"].differ_behind_mm == 0 and found["truth"].single.accuracy == 1
    assert found["mean with 6 mm of white noise"].crps_mm > 0 < found["Gaussian residuals"].spread


def test_another_device_learns_the_same(latents: FieldLatents, tmp_path: Path, on_another_device, same_weights) -> None:
    here = train_field_denoiser(latents, tmp_path / "here", LOOP, SMALL)
    there = on_another_device(lambda: train_field_denoiser(latents, tmp_path / "there", LOOP, SMALL))
    assert same_weights(here, there)

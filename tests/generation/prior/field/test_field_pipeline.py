"""The field pipeline: the same seed draws the same, what is seen is met, and it survives a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp360.generation import InputError
from dp360.generation.prior.field.field_autoencoder import FieldAutoencoder, FieldAutoencoderConfig, reconstructed
from dp360.generation.prior.field.field_denoiser import FieldDenoiser, FieldDenoiserConfig
from dp360.generation.prior.field.field_grain import FieldGrain, FieldGrainConfig
from dp360.generation.prior.field.field_pipeline import FieldPipeline, field_scheduler
from dp360.generation.prior.field.head_field import CHANNELS, THICKNESS_SCALE, HeadField
from dp360.generation.prior.field.known_cells import kept_where_seen, meet_observation
from dp360.generation.prior.field.mean_network import FieldMeanConfig, FieldMeanNet
from dp360.generation.prior.field.observed_field import ObservedField


@pytest.fixture(scope="module")
def pipeline() -> FieldPipeline:
    """Tiny networks, no layer of which is idle."""
    torch.manual_seed(0)
    parts = (
        FieldMeanNet(FieldMeanConfig(channels=(8, 8, 8), embedding=8)),
        FieldAutoencoder(FieldAutoencoderConfig(fine=8, coarse=16, blocks=1, full=8)),
        FieldDenoiser(FieldDenoiserConfig(width=16, blocks=1, heads=2)),
        FieldGrain(FieldGrainConfig(width=8, blocks=1, embedding=8)),
    )
    for part in parts:
        for parameter in part.requires_grad_(False).parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    pipe = FieldPipeline.of(*parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipeline: FieldPipeline, observed: ObservedField, seed: int, **options: float) -> list[HeadField]:
    """Two fields, in three steps."""
    generator = torch.Generator().manual_seed(seed)
    return pipeline(observed, generator=generator, count=2, num_inference_steps=3, **options)  # type: ignore[arg-type]


def same(one: HeadField, other: HeadField) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(vars(one).values(), vars(other).values()))


def test_seeds_say_what_is_drawn(pipeline: FieldPipeline, random_observation: ObservedField) -> None:
    one, again, other = (drawn(pipeline, random_observation, seed) for seed in (0, 0, 1))
    assert all(map(same, one, again))
    assert not same(one[0], other[0]) and not same(one[0], one[1])


def test_what_is_plainly_seen_is_met(pipeline: FieldPipeline, random_observation: ObservedField) -> None:
    total = random_observation.material.sum(0)
    observed = replace(
        random_observation,
        material=(random_observation.material / total).astype(np.float32),
        thickness_certainty=np.round(random_observation.thickness_certainty),
    )
    sure, plain = observed.thickness_certainty == 1, observed.visibility > 0.7
    for field in drawn(pipeline, observed, 0):
        assert np.array_equal(field.skull_radius, observed.skull_radius)
        assert np.abs(field.thickness - observed.thickness)[sure].max() < 1e-4
        assert np.abs(field.material - observed.material)[:, plain].max() < 1e-4


def test_other_seeds_change_no_thickness_that_is_plainly_seen(
    pipeline: FieldPipeline, random_observation: ObservedField
) -> None:
    front = np.zeros((56, 64), np.float32)
    front[:, :16] = front[:, 48:] = 1
    observed = replace(random_observation, visibility=front, thickness_certainty=0 * front)
    one, other = (drawn(pipeline, observed, seed)[0].thickness for seed in (0, 1))
    differ = np.abs(one - other)
    assert differ[:, :16].max() < 1e-6 and differ[:, 24:40].mean() > 1e-3


def test_a_true_residual_without_grain_gives_the_truth_there_and_back(
    pipeline: FieldPipeline, random_observation: ObservedField
) -> None:
    mean = pipeline.expected(random_observation)
    latents = pipeline.latents_of(mean)
    truth = replace(mean, thickness=(mean.thickness + 0.03 * np.arange(64) / 64).astype(np.float32))
    residual = pipeline.latents_of(truth) - latents
    (field,) = pipeline.fields_of(residual, mean, latents, random_observation)
    back = reconstructed(truth, pipeline.networks.autoencoder)
    wanted = meet_observation(kept_where_seen(back, mean, random_observation), random_observation)
    assert np.abs(field.pack() - wanted.pack()).max() < 1e-5


def test_grain_is_drawn_as_large_as_its_scale_says(pipeline: FieldPipeline, random_observation: ObservedField) -> None:
    blind = replace(
        random_observation,
        visibility=np.zeros((56, 64), np.float32),
        thickness_certainty=np.zeros((56, 64), np.float32),
    )
    mean = pipeline.expected(blind)
    latents = pipeline.latents_of(mean)
    grain = pipeline.networks.grain
    assert grain is not None

    def thickness(seed: int | None) -> np.ndarray:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        (field,) = pipeline.fields_of(torch.zeros_like(latents), mean, latents, blind, generator)
        return THICKNESS_SCALE.encode(field.thickness)

    channel = CHANNELS.index("thickness")
    smooth, kept = thickness(None), grain.get_buffer("grain_std").clone()
    grain.get_buffer("grain_std").mul_(0)
    assert np.array_equal(thickness(0), smooth)
    off = []
    for size in (0.01, 0.02):
        grain.get_buffer("grain_std")[channel] = size
        off.append(thickness(0) - smooth)
        assert not np.allclose(thickness(1), thickness(0))
    grain.get_buffer("grain_std").copy_(kept)
    free = smooth > smooth.min() + 0.2  # thickness ends at 0
    assert free.sum() > 500 and np.abs(off[1] - 2 * off[0])[free].max() < 0.05 * np.abs(off[1]).max()


def test_residuals_are_as_large_as_the_scale_says(pipeline: FieldPipeline, random_observation: ObservedField) -> None:
    latents = pipeline.latents_of(pipeline.expected(random_observation))

    def residuals() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return pipeline.draw_residuals(latents, random_observation, generator, 1, num_inference_steps=2)

    once, denoiser = residuals(), pipeline.networks.denoiser
    denoiser.get_buffer("residual_std").mul_(3)
    assert torch.allclose(residuals(), 3 * once)
    denoiser.get_buffer("residual_std").div_(3)
    learned = denoiser.config
    denoiser.config = replace(learned, spread=1.5)
    assert torch.allclose(residuals(), 1.5 * once)
    denoiser.config = learned


def test_guidance_leaves_what_is_drawn_without_conditions(
    pipeline: FieldPipeline, random_observation: ObservedField
) -> None:
    plain, guided = (drawn(pipeline, random_observation, 0, guidance_scale=g) for g in (1.0, 3.0))
    assert not same(plain[0], guided[0])
    latents = pipeline.latents_of(pipeline.expected(random_observation))
    other = replace(random_observation, rgb=1 - random_observation.rgb)
    none = [
        pipeline.draw_residuals(
            latents, o, torch.Generator().manual_seed(0), 1, num_inference_steps=2, guidance_scale=0.0
        )
        for o in (random_observation, other)
    ]
    assert torch.equal(*none)


def test_a_folder_holds_the_pipeline(
    pipeline: FieldPipeline, random_observation: ObservedField, tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path)
    loaded = FieldPipeline.from_pretrained(tmp_path)
    assert loaded.networks.mean.config == pipeline.networks.mean.config and not loaded.networks.training
    before, after = pipeline.networks.state_dict(), loaded.networks.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    # where weights lie in memory decides how some processors round
    for one, other in zip(drawn(pipeline, random_observation, 0), drawn(loaded, random_observation, 0)):
        assert np.abs(one.pack() - other.pack()).max() < 1e-4


def test_the_sampler_finds_a_residual_that_is_certain() -> None:
    scheduler: Any = field_scheduler()
    truth = torch.linspace(-1, 1, 8)
    scheduler.set_timesteps(20)
    x = torch.randn(8, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        alpha, sigma = scheduler.alphas_cumprod[timestep].sqrt(), (1 - scheduler.alphas_cumprod[timestep]).sqrt()
        noise = (x - alpha * truth) / sigma.clamp_min(1e-6)
        x = scheduler.step(alpha * noise - sigma * truth, timestep, x, return_dict=False)[0]
    assert torch.allclose(x, truth, atol=1e-4)


def test_nonsense_is_refused(pipeline: FieldPipeline, random_observation: ObservedField) -> None:
    with pytest.raises(InputError, match="expected count and steps from 1, got 0"):
        pipeline(random_observation, generator=torch.Generator(), count=0)

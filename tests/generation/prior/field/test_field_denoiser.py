"""The fields' denoiser: shapes, what it is told and what it is not, weights in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dp360.generation.prior.field.field_denoiser import (
    FIELD_DENOISER,
    FieldDenoiser,
    FieldDenoiserConfig,
    field_conditions,
)

SMALL = FieldDenoiserConfig(width=16, blocks=2, heads=2, hidden=2)


def fresh(config: FieldDenoiserConfig = SMALL) -> FieldDenoiser:
    """A network that no gate of which is shut."""
    torch.manual_seed(0)
    network = FieldDenoiser(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


def given(count: int = 2) -> dict[str, Tensor]:
    """Anything to answer to."""
    g = torch.Generator().manual_seed(1)
    return {
        "noisy": torch.randn(count, 8, 14, 16, generator=g), "timestep": torch.arange(count) * 400,
        "told": torch.randn(count, 24, 14, 16, generator=g), "portrait": torch.randn(count, 11, generator=g),
        "forgotten": torch.zeros(count, dtype=torch.bool),
    }  # fmt: skip


def test_an_untrained_network_says_nothing() -> None:
    assert not FieldDenoiser(SMALL)(**given()).any()


def test_everything_it_is_told_counts_unless_it_is_forgotten() -> None:
    network, inputs = fresh(), given()
    answer = network(**inputs)
    assert answer.shape == (2, 8, 14, 16)
    for name in ("told", "portrait"):
        assert not torch.equal(network(**{**inputs, name: inputs[name] + 1}), answer), name
    inputs["forgotten"] = torch.ones(2, dtype=torch.bool)
    answer = network(**inputs)
    for name in ("told", "portrait"):
        assert torch.equal(network(**{**inputs, name: inputs[name] + 1}), answer), name
    for name in ("noisy", "timestep"):
        assert not torch.equal(network(**{**inputs, name: inputs[name] + 1}), answer), name


def test_every_place_sees_every_other() -> None:
    network, inputs = fresh(), given(1)
    answer, changed = network(**inputs), inputs["noisy"].clone()
    changed[:, :, 13, 15] += 1
    assert (network(**{**inputs, "noisy": changed}) != answer).any(1).all()


def test_conditions_are_means_of_cells() -> None:
    latents, observed = torch.zeros(1, 8, 14, 16), torch.arange(56.0 * 64).reshape(1, 1, 56, 64).repeat(1, 16, 1, 1)
    told = field_conditions(latents, observed)
    assert told.shape == (1, SMALL.told, 14, 16) and torch.equal(told[:, :8], latents)
    assert float(told[0, 9, 2, 5]) == float(observed[0, 0, 8:12, 20:24].mean())


def test_weights_survive_a_file(tmp_path: Path) -> None:
    config = replace(SMALL, blocks=1)
    network = fresh(config)
    network.get_buffer("residual_std").copy_(torch.linspace(0.5, 1, 8))
    FIELD_DENOISER.save(tmp_path / FIELD_DENOISER.file_name, network, {})
    loaded = FIELD_DENOISER.read(tmp_path / FIELD_DENOISER.file_name).network
    assert loaded.config == config and torch.allclose(loaded.residual_scale, network.residual_scale, atol=1e-3)
    assert torch.allclose(loaded(**given()), network(**given()), atol=0.02)

"""The fields' autoencoder: shapes, the chart closed round the head, weights in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dp360.generation.prior.field.field_autoencoder import (
    FIELD_AUTOENCODER,
    FieldAutoencoder,
    FieldAutoencoderConfig,
    chart_doubled,
    reconstructed,
)
from dp360.generation.prior.field.head_field import HeadField

SMALL = FieldAutoencoderConfig(latents=4, fine=8, coarse=16, blocks=1, full=8)


def fresh() -> FieldAutoencoder:
    """A network that no layer of which is idle, without places of its own."""
    torch.manual_seed(0)
    network = FieldAutoencoder(SMALL).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if not name.startswith("place"):
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network


def test_latents_are_few_and_closed_round_the_head(random_field: HeadField) -> None:
    network, channels = fresh(), torch.from_numpy(random_field.pack())[None]
    latents = network.encode(channels)
    assert latents.shape == (1, 4, 14, 16) and network.decode(latents).shape == channels.shape
    turned = network.encode(channels.roll(12, dims=-1))  # a head turned by three places of latents
    assert torch.allclose(turned, latents.roll(3, dims=-1), atol=1e-5)
    assert torch.allclose(network.decode(turned), network.decode(latents).roll(12, dims=-1), atol=1e-4)


def test_doubling_is_linear_between_cells_and_over_the_seam() -> None:
    columns = torch.arange(8.0)
    once = torch.where(columns < 4, columns, 8 - columns).expand(1, 1, 3, 8)  # a triangle round the head
    at = (torch.arange(16.0) - 0.5) / 2
    expected = 4 - (at % 8 - 4).abs()
    assert torch.allclose(chart_doubled(once)[0, 0, 2], expected)


def test_scaled_latents_have_mean_0_and_variance_1(random_field: HeadField) -> None:
    network = fresh()
    channels = torch.from_numpy(np.stack([random_field.pack(), random_field.mirrored().pack()]))
    network.set_scale(network.raw_latents(channels))
    latents = network.encode(channels)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    assert (latents.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4


def test_weights_survive_a_file_with_their_scale(tmp_path: Path, random_field: HeadField) -> None:
    network = fresh()
    network.set_scale(network.raw_latents(torch.from_numpy(random_field.pack())[None]))
    FIELD_AUTOENCODER.save(tmp_path / FIELD_AUTOENCODER.file_name, network, {})
    loaded = FIELD_AUTOENCODER.read(tmp_path / FIELD_AUTOENCODER.file_name).network
    assert loaded.config == SMALL and float(loaded.get_buffer("latents_std").std()) > 0
    one, other = (reconstructed(random_field, n) for n in (network, loaded))
    assert np.abs(one.pack() - other.pack()).max() < 0.05
    assert np.array_equal(one.skull_radius, random_field.skull_radius)

"""Losses: against scikit-image, against plain tensors in float64, and at the values everybody knows."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from dp360.reconstruction.losses import (
    LossConfig,
    l1_loss,
    needle_loss,
    ssim,
    training_loss,
)


def two_pictures(height: int, width: int, channels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A smooth picture with texture, and a noisy copy."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    picture = 0.5 + 0.3 * torch.sin(9 * x[..., None] + 5 * y[..., None] + torch.arange(channels))
    noisy = picture + 0.1 * torch.randn(picture.shape, generator=generator)
    return picture, noisy.clamp(0, 1)


@pytest.mark.parametrize("size", [(11, 11), (40, 57), (130, 75)])
def test_ssim_equals_scikit_image(size: tuple[int, int]) -> None:
    picture, noisy = two_pictures(*size)
    expected = structural_similarity(
        picture.double().numpy(),
        noisy.double().numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
    )
    assert float(ssim(picture.double(), noisy.double())) == pytest.approx(expected, abs=1e-6)


def test_equal_pictures_cost_nothing_and_differences_something() -> None:
    picture, noisy = two_pictures(32, 32)
    assert ssim(picture, picture).item() == pytest.approx(1, abs=1e-6)
    assert l1_loss(torch.ones(4, 4, 1), torch.full((4, 4, 1), 0.25)).item() == 0.75


def test_pictures_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(torch.rand(10, 20, 3), torch.rand(10, 20, 3))


def test_flat_gaussians_cost_nothing_and_needles_do() -> None:
    flat = torch.tensor([[0.0, 0.0, -6.0], [-1.0, -2.0, -9.0]])
    needle = torch.tensor([[math.log(8.0), 0.0, 0.0]])
    assert needle_loss(flat).item() == 0
    assert needle_loss(needle, max_ratio=4.0).item() == pytest.approx(math.log(2.0))


def test_the_loss_of_a_fit_is_the_sum_of_its_terms() -> None:
    picture, noisy = two_pictures(24, 24)
    alpha, opaque, needle = torch.full((24, 24), 0.5), torch.ones(24, 24), torch.tensor([[math.log(8.0), 0.0, 0.0]])
    config = LossConfig()
    loss = training_loss(picture, alpha, noisy, opaque, needle, config)
    expected = float(0.8 * l1_loss(picture, noisy) + 0.2 * (1 - ssim(picture, noisy))) + config.alpha_weight * 0.5
    assert float(loss) == pytest.approx(expected + config.needle_weight * math.log(2.0))

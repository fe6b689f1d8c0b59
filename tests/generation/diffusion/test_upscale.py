"""Small drawings become full-size views: what stays, what is added, what is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dp360.generation.diffusion.control_pictures import resized_by_area
from dp360.generation.diffusion.upscale import (
    UpscaleConfig,
    blurred,
    enlarged,
    full_size_views,
    inside_outline,
    kept_pixels,
    smoothstep,
)

SMALL, LARGE = 32, 64


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def prior() -> Tensor:
    """Two pictures with detail that 32 px cannot hold."""
    return 0.3 + 0.4 * noise(2, 3, LARGE, LARGE)


@pytest.fixture
def unseen() -> tuple[Tensor, Tensor]:
    """Coverage and validity of a surface that the portrait does not show."""
    return torch.ones(2, LARGE, LARGE), torch.zeros(2, LARGE, LARGE)


@pytest.mark.parametrize("sigma_px", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("size_px", [32, 48, 64])
def test_a_drawing_like_the_prior_is_the_prior(prior, sigma_px, size_px):
    full = prior[..., :size_px, :size_px]
    alpha, validity = noise(2, size_px, size_px, seed=1), noise(2, size_px, size_px, seed=2)
    views = full_size_views(
        resized_by_area(full, SMALL), full, alpha, validity, UpscaleConfig(detail_sigma_px=sigma_px)
    )
    assert float((views - full).abs().max()) < 1e-5


def test_a_plain_drawing_stays_plain_without_detail(prior, unseen):
    drawing = torch.full((2, 3, SMALL, SMALL), 0.4)
    views = full_size_views(drawing, prior, *unseen, config=UpscaleConfig(detail_share=0.0))
    assert torch.allclose(views, torch.tensor(0.4), atol=1e-5)


def test_a_smooth_drawing_gets_the_priors_detail_under_its_own_colours(prior, unseen):
    drawing = torch.full((2, 3, SMALL, SMALL), 0.55)
    config = UpscaleConfig(detail_disagreement=(0.5, 0.6))
    views = full_size_views(drawing, prior, *unseen, config=config)
    assert float((views - drawing.mean()).mean().abs()) < 0.01
    fine = prior - enlarged(blurred(resized_by_area(prior, SMALL), config.detail_sigma_px), LARGE)
    assert float((views - 0.55 - fine).abs().max()) < 1e-4


def test_where_prior_and_drawing_disagree_the_drawing_is_left_alone(unseen):
    prior = torch.zeros(2, 3, LARGE, LARGE)
    prior[..., 1::2] = 0.2  # stripes that no small picture can hold
    drawing = torch.full((2, 3, SMALL, SMALL), 0.1)
    drawing[..., SMALL // 2 :] = 0.8
    views = full_size_views(drawing, prior, *unseen)
    assert float(views[..., : LARGE // 4].std()) > 0.09
    assert float((views[..., -LARGE // 4 :] - 0.8).abs().max()) < 1e-3


def test_the_portraits_own_pixels_stay_and_nothing_else(prior):
    config = UpscaleConfig(kept_validity=(0.6, 0.9), kept_feather=0.0)
    pictures, alpha = torch.zeros_like(prior), torch.ones(2, LARGE, LARGE)
    validity = torch.full((2, LARGE, LARGE), 0.5)
    validity[:, : LARGE // 2] = 0.95
    kept = kept_pixels(pictures, prior, alpha, validity, config)
    assert torch.equal(kept[:, :, : LARGE // 2], prior[:, :, : LARGE // 2]) and not kept[:, :, LARGE // 2 :].any()
    assert torch.allclose(kept_pixels(pictures, prior, alpha * 0.25, validity, config), kept * 0.25)


def test_kept_pixels_fade_in_inside_what_the_portrait_shows_but_not_at_the_outline():
    white, black = torch.ones(1, 3, LARGE, LARGE), torch.zeros(1, 3, LARGE, LARGE)
    alpha, validity = torch.zeros(1, LARGE, LARGE), torch.zeros(1, LARGE, LARGE)
    alpha[..., 8:] = 1.0
    validity[..., 8:40] = 1.0  # from the outline to the border of what is shown
    row = kept_pixels(black, white, alpha, validity, UpscaleConfig(kept_feather=0.04))[0, 0, 20]
    assert not row[:8].any() and not row[40:].any()
    assert torch.allclose(row[8:30], torch.tensor(1.0), atol=1e-3)
    assert bool((row[30:40].diff() <= 0).all()) and float(row[39]) < 0.5


def test_blur_keeps_means_and_enlarging_keeps_colours(prior):
    plain = torch.full((1, 2, 9, 9), 0.3)
    assert torch.allclose(blurred(plain, 5.0), plain)
    dot = torch.zeros(1, 1, 31, 31)
    dot[..., 15, 15] = 1.0
    spread = blurred(dot, 2.0)[0, 0]
    across = torch.arange(-15.0, 16.0)
    assert float(spread.sum()) == pytest.approx(1.0, abs=1e-4)
    assert float((spread.sum(0) * across**2).sum()) == pytest.approx(4.0, rel=0.03)
    assert torch.equal(blurred(prior, 0.0), prior) and torch.equal(enlarged(prior, LARGE), prior)
    assert float(resized_by_area(prior, SMALL).mean()) == pytest.approx(float(prior.mean()), abs=1e-6)


def test_smoothstep():
    values = smoothstep(torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]), 0.2, 0.8)
    assert torch.allclose(values, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))


def test_along_the_outline_views_are_the_prior_and_inside_the_drawing():
    y, x = torch.meshgrid(torch.arange(LARGE), torch.arange(LARGE), indexing="ij")
    radius = ((x - 31.5) ** 2 + (y - 31.5) ** 2).sqrt()
    alpha = (24.5 - radius).clamp(0, 1)[None]
    colours = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]).view(2, 1, 3, 1, 1)
    red, blue = colours.expand(2, 1, 3, LARGE, LARGE)
    over_white = red * alpha[:, None] + 1 - alpha[:, None]
    views = inside_outline(blue, over_white, alpha, UpscaleConfig(outline_margin=0.03))[0]
    assert (views[..., 3] == (alpha[0] * 255 + 0.5).byte()).all()
    edge, middle = (alpha[0] > 0.2) & (radius > 23), radius < 15
    assert (views[edge][:, :3].int() - torch.tensor([255, 0, 0])).abs().max() <= 4
    assert (views[middle][:, :3].int() - torch.tensor([0, 0, 255])).abs().max() <= 1
    untouched = inside_outline(over_white, over_white, alpha, UpscaleConfig())[0]
    assert (untouched[alpha[0] > 0.2][:, :3].int() - torch.tensor([255, 0, 0])).abs().max() <= 4

"""The fused picture terms: weights, equal areas, silhouettes, and the passes over shapes, against plain tensors."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from dp360.generation import numba_pool
from dp360.reconstruction import photometric_cpu
from dp360.reconstruction.densify import DensifyConfig, limit_shapes
from dp360.reconstruction.losses import (
    LossConfig,
    needle_loss,
    target_over_background,
    training_loss,
)


def pictures(height: int, width: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Picture, alpha, target, its alpha and weights."""
    generator = torch.Generator().manual_seed(seed)
    rgb, target = (torch.rand(height, width, 3, generator=generator) for _ in range(2))
    alpha, silhouette, weights = (torch.rand(height, width, generator=generator) for _ in range(3))
    return rgb, alpha, (0.8 * rgb + 0.2 * target), silhouette, weights


def both(rgb: Tensor, alpha: Tensor, target: Tensor, silhouette: Tensor, weights: Tensor | None, ssim_weight: float):
    """Loss and gradients of the fused kernel and of plain tensors in float64."""
    results = []
    for dtype in (torch.float32, torch.float64):
        x, a = rgb.to(dtype).clone().requires_grad_(), alpha.to(dtype).clone().requires_grad_()
        y, s = target.to(dtype), silhouette.to(dtype)
        w = None if weights is None else weights.to(dtype)
        config = LossConfig(ssim_weight=ssim_weight, alpha_weight=0.5)
        loss = training_loss(x, a, y, s, torch.zeros(1, 3), config, weights=w)
        results.append((loss.detach(), *torch.autograd.grad(2 * loss, (x, a))))
    return results


@pytest.mark.parametrize("size", [(11, 11), (13, 90), (97, 41), (150, 200)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ssim_weight", [0.0, 0.3, 1.0])
def test_all_picture_terms_agree_with_plain_tensors(size: tuple[int, int], weighted: bool, ssim_weight: float) -> None:
    rgb, alpha, target, silhouette, weights = pictures(*size)
    fast, slow = both(rgb, alpha, target, silhouette, weights if weighted else None, ssim_weight)
    assert float(fast[0]) == pytest.approx(float(slow[0]), rel=1e-5)
    for ours, right in zip(fast[1:], slow[1:]):
        assert float((ours - right).norm() / right.norm()) < 1e-4


@pytest.mark.parametrize("weighted", [False, True])
def test_where_pictures_are_equal_nothing_is_missed(weighted: bool) -> None:
    """Differences only in two far corners and one pixel: whole patches between them are passed over."""
    rgb, alpha, _, silhouette, weights = pictures(300, 260)
    target = rgb.clone()
    target[:20, :9] += 0.1
    target[-3:, -30:] *= 0.9
    target[150, 130, 1] = 0.5
    fast, slow = both(rgb, alpha, target, silhouette, weights if weighted else None, 0.2)
    assert float(fast[0]) == pytest.approx(float(slow[0]), rel=1e-5)
    assert float((fast[1] - slow[1]).norm() / slow[1].norm()) < 1e-4
    assert float(fast[1][70:120, 70:].abs().max()) == 0


@pytest.mark.parametrize("size", [(16, 16), (30, 37), (140, 130)])
def test_what_lies_in_lent_memory_does_not_matter(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch arrays come full of whatever was there before; here of numbers that spoil what they touch."""
    shown, results = pictures(*size), []
    for value in (0.0, 1.0, math.nan):

        def spoiled(shape: tuple[int, ...], dtype: Any = np.float32, value: float = value) -> np.ndarray:
            return np.full(shape, value if dtype == np.float32 else 1, dtype)

        monkeypatch.setattr(photometric_cpu, "empty", spoiled)
        results.append(both(*shown, 0.2)[0])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_pool, "SMALL_WORK", 0)
    shown, threads, runs = pictures(200, 210), numba.get_num_threads(), []
    try:
        for count in (1, threads, threads):
            numba.set_num_threads(count)
            runs.append(both(*shown, 0.2)[0])
    finally:
        numba.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))


def test_distrusted_pixels_have_no_gradient_and_no_loss() -> None:
    rgb, alpha, target, silhouette, _ = pictures(80, 80)
    weights = torch.ones(80, 80)
    weights[:, 40:] = 0
    x = rgb.clone().requires_grad_()
    shapes = torch.zeros(2, 3)
    loss = training_loss(x, alpha, target, silhouette, shapes, LossConfig(), weights=weights)
    (gradient,) = torch.autograd.grad(loss, x)
    assert float(gradient[:, 46:].abs().max()) == 0 and float(gradient[:, :40].abs().min()) > 0
    none = training_loss(x, alpha, target, silhouette, shapes, LossConfig(), weights=torch.zeros(80, 80))
    assert float(none.detach()) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_view_over_its_background_and_the_background_alone(dtype: torch.dtype) -> None:
    alpha = torch.tensor([[0.0, 0.25, 1.0]], dtype=dtype)
    colour = torch.tensor([0.5, 0.25, 1.0], dtype=dtype)
    background = torch.tensor([1.0, 0.5, 0.0])
    rgb, opacity = target_over_background(torch.cat([alpha[..., None] * colour, alpha[..., None]], dim=-1), background)
    torch.testing.assert_close(rgb, alpha[..., None] * colour + (1 - alpha[..., None]) * background.to(dtype))
    assert torch.equal(opacity, alpha)


def test_needles_and_limits_agree_with_sorted_axes() -> None:
    log_scales = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) - 3
    fast, slow = log_scales.clone().requires_grad_(), log_scales.clone().requires_grad_()
    ordered = slow.sort(dim=-1).values
    losses = [needle_loss(fast, max_ratio=1.5), (ordered[:, 2] - ordered[:, 1] - math.log(1.5)).clamp_min(0).mean()]
    torch.testing.assert_close(*losses)
    gradients = [torch.autograd.grad(3 * loss, x)[0] for loss, x in zip(losses, (fast, slow))]
    torch.testing.assert_close(*gradients)
    params = {"scales": torch.nn.Parameter(log_scales.clone())}
    limit_shapes(params, DensifyConfig(max_scale=0.1, max_needle_ratio=2.0))
    clipped = params["scales"].detach()
    wanted = torch.minimum(log_scales, ordered.detach()[:, 1:2] + math.log(2.0)).clamp_max(math.log(0.1))
    torch.testing.assert_close(clipped, wanted, atol=1e-6, rtol=0)
    ordered = clipped.sort(dim=-1).values
    assert float(ordered[:, 2].max()) <= math.log(0.1) + 1e-6
    assert float((ordered[:, 2] - ordered[:, 1]).max()) <= math.log(2.0) + 1e-6

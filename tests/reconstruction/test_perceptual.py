"""LPIPS: found only where its weights are, and then a distance with a gradient. The features here are random."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from dp360.generation import InputError
from dp360.reconstruction.losses import LossConfig, training_loss
from dp360.reconstruction.perceptual import BACKBONES, Lpips, lpips_for_fits, weights_file


def test_names_are_torchvisions() -> None:
    models = torchvision.models
    urls = [models.VGG16_Weights.IMAGENET1K_V1.url, models.AlexNet_Weights.IMAGENET1K_V1.url]
    assert [url.rsplit("/", 1)[1] for url in urls] == list(BACKBONES.values())


def test_absent_weights_are_named_and_never_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert lpips_for_fits("cuda") is None
    with pytest.raises(InputError, match=str(weights_file("vgg"))):
        Lpips("vgg")


def test_the_distance_and_its_part_in_the_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = weights_file("alex")
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), path)
    assert lpips_for_fits("cpu") is None  # a step would take too long there
    lpips = Lpips("alex")
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(64, 64, 3, generator=generator)
    rgb = (target + 0.1 * torch.rand(64, 64, 3, generator=generator)).requires_grad_()
    assert float(lpips(target, target)) == 0
    distance = lpips(rgb, target)
    assert 0 < float(distance.detach()) < float(lpips(1 - target, target))

    alpha, config = torch.ones(64, 64), LossConfig(lpips_weight=0.5)
    rest = (rgb, alpha, target, alpha, torch.zeros(1, 3), config)
    trust = torch.full((64, 64), 0.5)
    plain, with_lpips = (training_loss(*rest, weights=trust, lpips=term) for term in (None, lpips))
    torch.testing.assert_close(with_lpips - plain, 0.5 * 0.5 * distance)
    with_lpips.backward()
    assert rgb.grad is not None and bool(torch.isfinite(rgb.grad).all())

"""The fit where tensors do not lie on the CPU: nothing mixes, and the splats agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reliability.other_device import OTHER, OtherDevice
from reliability.readers import ball_views
from torch import Tensor

from dp360.reconstruction import rasterize as rasterizing
from dp360.reconstruction import splat_fit
from dp360.reconstruction.densify import DensifyConfig
from dp360.reconstruction.losses import LossConfig
from dp360.reconstruction.robust import RobustConfig
from dp360.reconstruction.splat_fit import SplatFitConfig, fit_splats
from dp360.reconstruction.splats import render_splats

CONFIG = SplatFitConfig(
    iterations=30,
    start_count=300,
    sh_degree=1,
    losses=LossConfig(lpips_weight=0.0),
    densify=DensifyConfig(every=8, max_count=600),
    robust=RobustConfig(),
)


def rasterized_there(*gaussians: Any, **how: Any) -> Any:
    """Stands for gsplat's kernels: takes and gives tensors of the other device alone."""
    tensors = [given for given in (*gaussians, *how.values()) if isinstance(given, Tensor)]
    assert all(tensor.device == OTHER for tensor in tensors)
    here: list[Any] = [given.cpu() if isinstance(given, Tensor) else given for given in gaussians]
    how_here: dict[str, Any] = {n: given.cpu() if isinstance(given, Tensor) else given for n, given in how.items()}
    blend, kept = rasterizing.Blend.apply, []

    class Blend:
        @staticmethod
        def apply(means2d: Tensor, *rest: Any) -> Any:
            kept.append(means2d.to(OTHER))
            return blend(kept[0].cpu(), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rasterizing, "Blend", Blend)
        rgb, alpha, info = rasterizing.rasterize(*here, **how_here)
    info |= {"radii": info["radii"].to(OTHER), "means2d": kept[0]}
    return rgb.to(OTHER), alpha.to(OTHER), info


def test_a_fit_on_another_device_gives_the_same_splats(monkeypatch: pytest.MonkeyPatch) -> None:
    _, views = ball_views(48)
    monkeypatch.setattr(
        splat_fit,
        "make_optimizers",
        lambda params, rates: {n: torch.optim.Adam([p], lr=getattr(rates, n), eps=1e-15) for n, p in params.items()},
    )  # its fused form wants a device with kernels of its own
    here = fit_splats(views, CONFIG, torch.Generator().manual_seed(3))
    with monkeypatch.context() as patch, OtherDevice():
        patch.setattr(splat_fit, "rasterize", rasterized_there)
        there = fit_splats(views, CONFIG, torch.Generator().manual_seed(3), device=OTHER)
    assert len(here) == len(there) != 300
    torch.testing.assert_close(there.means_world, here.means_world, atol=1e-4, rtol=0)
    shown = [render_splats(splats, views.cameras)[0] for splats in (here, there)]  # turns of round Gaussians are free
    torch.testing.assert_close(*shown, atol=5e-3, rtol=0)


def test_what_lies_on_two_devices_is_refused() -> None:
    with OtherDevice():
        there = torch.ones(3, device=OTHER)
        assert (there + 1).cpu().tolist() == [2, 2, 2] and float(there.sum()) == 3
        for mixed in (lambda: there + torch.ones(3), lambda: torch.cat([torch.ones(1), there])):
            with pytest.raises(RuntimeError, match="the same device"):
                mixed()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device=OTHER, generator=torch.Generator())
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()

"""The fit: a toy head is learned in seconds, repeatably, and nothing grows outside its silhouette."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from dp360.generation.cameras import look_at_origin
from dp360.generation.views import PointCloud, Provenance, ViewSet
from dp360.reconstruction import splat_fit
from dp360.reconstruction.adam import EPS, CpuAdam
from dp360.reconstruction.densify import (
    DensifyConfig,
    DensifyState,
    Parameters,
    Silhouettes,
    densify,
    keep_only,
    limit_shapes,
)
from dp360.reconstruction.premultiplied import PremultipliedPictures, plain_premultiplied, premultiplied_picture
from dp360.reconstruction.splat_fit import (
    FitNotFinite,
    LearningRates,
    SplatFitConfig,
    fit_splats,
    initial_splats,
    make_optimizers,
    parameters_from_splats,
    set_learning_rates,
    splats_from_parameters,
    view_schedule,
)
from dp360.reconstruction.splats import Splats, render_splats, splats_from_point_cloud

SIZE = 48
TOY = SplatFitConfig(
    iterations=250,
    coarse_fraction=0.4,
    start_count=900,
    densify=replace(DensifyConfig(), every=40, max_count=1100, max_scale=0.08),
)


def sphere(n: int, *, seed: int, colour_error: float = 0.0) -> PointCloud:
    """Points on a sphere of a head's size, coloured by direction."""
    generator = torch.Generator().manual_seed(seed)
    normals = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    rgb = 0.5 + 0.35 * torch.sin(5 * normals + torch.arange(3))
    rgb = rgb + colour_error * torch.randn(n, 3, generator=generator)
    return PointCloud(0.24 * normals, normals, rgb.clamp(0, 1))


@pytest.fixture(scope="module")
def views() -> ViewSet:
    """Eight pictures of the sphere, and a surface whose colours are wrong."""
    truth = splats_from_point_cloud(sphere(1200, seed=0))
    truth.opacity_logits[:] = 3.0
    azimuth = torch.arange(8) * 2 * math.pi / 8
    cameras = look_at_origin(azimuth, 0.4 * torch.sin(2 * azimuth), size_px=SIZE)
    rgb, alpha = render_splats(truth, cameras, background_rgb_unit=(0.0, 0.0, 0.0))
    straight = (rgb / alpha[..., None].clamp_min(1e-4)).clamp(0, 1)
    rgba = torch.cat([straight, alpha[..., None]], dim=-1).mul(255).round().to(torch.uint8)
    names = tuple(f"ring_{i:03d}" for i in range(8))
    surface = sphere(2000, seed=1, colour_error=0.15)
    return ViewSet(rgba, cameras, torch.ones(8), names, surface, Provenance("toy", "none", 0, "0", "0"))


@pytest.fixture(scope="module")
def fitted(views: ViewSet) -> Splats:
    """The toy fit."""
    return fit_splats(views, TOY, torch.Generator().manual_seed(7))


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal to noise ratio of pictures in [0, 1], dB."""
    return float(-10 * torch.log10((a - b).square().mean()))


def test_toy_head_is_learned(views: ViewSet, fitted: Splats) -> None:
    start = splats_from_point_cloud(views.surface)
    before, _ = render_splats(start, views.cameras)
    after, alpha = render_splats(fitted, views.cameras)
    target = views.rgb_unit()
    assert psnr(after, target) > 30 > psnr(before, target) + 3
    outside = views.alpha_unit == 0
    assert float(alpha[outside].mean()) < 0.005 and float(alpha[views.alpha_unit > 0.99].min()) > 0.85


def test_shapes_stay_inside_their_limits(fitted: Splats) -> None:
    ordered = fitted.scales.sort(dim=-1).values
    assert float(ordered[:, 2].max()) <= TOY.densify.max_scale * 1.001
    assert float((ordered[:, 2] / ordered[:, 1]).max()) <= TOY.densify.max_needle_ratio * 1.001
    assert len(fitted) <= TOY.densify.max_count


def test_same_seed_same_bytes_and_another_seed_others(views: ViewSet) -> None:
    config = replace(TOY, iterations=60, densify=replace(TOY.densify, every=20))
    runs = [fit_splats(views, config, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    content = [b"".join(t.numpy().tobytes() for t in vars(run).values()) for run in runs]
    assert content[0] == content[1] != content[2]


SHORT = replace(TOY, iterations=24, densify=replace(TOY.densify, every=6))


@pytest.mark.parametrize("name", ["means", "scales", "quats", "features_dc", "features_rest", "opacities"])
@pytest.mark.parametrize("step", [0, 5, 6, 23])
def test_what_is_not_finite_stops_the_fit_and_the_last_good_state_is_kept(views: ViewSet, name: str, step: int) -> None:
    states: list[Splats] = []

    def spoil(number: int, loss: float, params: Parameters) -> None:
        states.append(splats_from_parameters(params))
        if number == step:
            with torch.no_grad():
                params[name].view(-1)[-1] = math.inf if step % 2 else math.nan

    with pytest.raises(FitNotFinite, match=f"a Gaussian is not finite at step {step} of the fit") as caught:
        fit_splats(views, SHORT, torch.Generator().manual_seed(1), on_iteration=spoil)
    good = caught.value.last_good
    assert caught.value.step == step and all(bool(torch.isfinite(values).all()) for values in vars(good).values())
    start = splats_from_parameters(
        parameters_from_splats(initial_splats(views.surface, SHORT, torch.Generator().manual_seed(1)))
    )
    before = states[step - 1] if step else start
    assert all(torch.equal(a, b) for a, b in zip(vars(good).values(), vars(before).values()))


def test_a_loss_that_is_no_number_stops_the_fit(views: ViewSet, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, steps = splat_fit.view_loss, iter(range(100))
    monkeypatch.setattr(splat_fit, "view_loss", lambda *given: sound(*given) * (math.nan if next(steps) == 7 else 1))
    with pytest.raises(FitNotFinite, match="the loss is not finite at step 7"):
        fit_splats(views, SHORT, torch.Generator().manual_seed(1))


def test_progress_and_callback_see_every_iteration(views: ViewSet) -> None:
    seen: list[int] = []
    totals: list[float | None] = []

    def track(sequence, *, total, description):
        totals.append(total)
        return sequence

    fit_splats(
        views,
        replace(TOY, iterations=5),
        torch.Generator(),
        track=track,
        on_iteration=lambda step, loss, params: seen.append(step) if loss > 0 and "means" in params else None,
    )
    assert seen == [0, 1, 2, 3, 4] and totals == [5]


def test_views_are_drawn_in_proportion_to_confidence() -> None:
    schedule = view_schedule(torch.tensor([1.0, 0.0, 0.5, 0.5]), 200, torch.Generator().manual_seed(0))
    counts = torch.bincount(schedule, minlength=4)
    assert counts.tolist() == [100, 0, 50, 50]
    with pytest.raises(ValueError, match="confidence above 0"):
        view_schedule(torch.zeros(3), 10, torch.Generator())


def test_a_fit_without_surface_points_is_refused(views: ViewSet) -> None:
    empty = PointCloud(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(ValueError, match="surface points"):
        fit_splats(replace(views, surface=empty), TOY, torch.Generator())


def test_smaller_pictures_keep_the_mean(views: ViewSet) -> None:
    for rgba in views.rgba:
        full, half = (premultiplied_picture(rgba, (side, side)) for side in (SIZE, SIZE // 2))
        assert half.shape == (SIZE // 2, SIZE // 2, 4)
        torch.testing.assert_close(full.mean(dim=(0, 1)), half.mean(dim=(0, 1)))
    opaque = premultiplied_picture(views.rgba[0, ..., :3], (SIZE, SIZE))
    assert torch.equal(opaque[..., :3], views.rgba[0, ..., :3].float() / 255) and bool((opaque[..., 3] == 1).all())


def test_bytes_become_premultiplied_floats_to_the_bit() -> None:
    every = torch.cartesian_prod(torch.arange(256), torch.arange(256)).to(torch.uint8).reshape(256, 256, 2)
    rgba = torch.stack([every[..., 0], every[..., 0].flip(0), every[..., 1].flip(1), every[..., 1]], dim=-1)
    made = premultiplied_picture(rgba, (256, 256))
    assert torch.equal(made, plain_premultiplied(rgba))
    colour, alpha = rgba[..., :3].double() / 255, rgba[..., 3:].double() / 255
    torch.testing.assert_close(made.double(), torch.cat([colour * alpha, alpha], dim=-1), rtol=0, atol=1e-7)
    turned = rgba.transpose(0, 1)
    assert torch.equal(premultiplied_picture(turned, (256, 256)), plain_premultiplied(turned))


@pytest.mark.parametrize("kept", [0, 3, 8])
def test_pictures_become_floats_one_at_a_time(views: ViewSet, kept: int) -> None:
    """Whatever memory is given, the same pictures; never more floats are kept than that."""
    full = 4 * 4 * SIZE * SIZE
    pictures = PremultipliedPictures(most_bytes=kept * full)
    for scale in (0.5, 1.0):
        side = round(scale * SIZE)
        for _ in range(2):
            got = [pictures.get(k, rgba, scale) for k, rgba in enumerate(views.rgba)]
            assert all(torch.equal(g, premultiplied_picture(r, (side, side))) for g, r in zip(got, views.rgba))
    again = [pictures.get(k, rgba, 1.0).data_ptr() for k, rgba in enumerate(views.rgba)]
    assert [a == g.data_ptr() for a, g in zip(again, got)].count(True) == kept


def test_parameters_come_back(views: ViewSet) -> None:
    splats = splats_from_point_cloud(views.surface, sh_degree=1)
    back = splats_from_parameters(parameters_from_splats(splats))
    for name, tensor in vars(splats).items():
        torch.testing.assert_close(getattr(back, name), tensor, msg=name)


def test_floaters_outside_the_silhouettes_are_dropped(make_sphere_views: Callable[..., ViewSet]) -> None:
    views = make_sphere_views(ring_count=8, size_px=96, points=600)
    means = 0.8 * views.surface.points_world
    means[:60] = torch.tensor([0.28, 0.28, 0.0])
    params = parameters_from_splats(splats_from_point_cloud(replace(views.surface, points_world=means)))
    optimizers = make_optimizers(params, LearningRates())
    for name, param in params.items():
        param.grad = torch.ones_like(param)
        optimizers[name].step()
    silhouettes, trust = Silhouettes(views.rgba, views.cameras), torch.ones(len(views))
    outside = silhouettes.outside(means, DensifyConfig(), trust)
    keep_only(params, optimizers, ~outside)
    assert outside[:60].all() and not outside[60:].any() and len(params["means"]) == 540
    assert optimizers["means"].state[params["means"]]["exp_avg"].shape == (540, 3)
    floats = Silhouettes(views.rgba.float() / 255, views.cameras)
    assert torch.equal(floats.outside(means, DensifyConfig(), trust), outside)
    for never in (silhouettes.outside(means, DensifyConfig(hull_margin=-1.0), trust),
                  Silhouettes(views.rgba[..., :3], views.cameras).outside(means, DensifyConfig(), trust)):  # fmt: skip
        assert not never.any()


def test_adam_steps_as_torchs_in_float64_does():
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(5000, 3, generator=draw)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.double())
    own, plain = CpuAdam(ours, 0.01), torch.optim.Adam([theirs], lr=0.01, eps=EPS)
    for step in range(30):
        gradient = torch.randn(5000, 3, generator=draw) * 10.0 ** (step % 5 - 4)
        ours.grad, theirs.grad = gradient, gradient.double()
        own.param_groups[0]["lr"] = plain.param_groups[0]["lr"] = 0.01 * 0.9**step
        own.step()
        plain.step()
    moved = theirs.detach() - start
    torch.testing.assert_close(ours.detach().double() - start, moved, atol=2e-6, rtol=2e-5)
    own.zero_grad()
    own.step()  # without a gradient nothing moves
    torch.testing.assert_close(ours.detach().double() - start, moved, atol=2e-6, rtol=2e-5)


def test_schedules_start_and_end_where_they_say() -> None:
    config = SplatFitConfig(iterations=1000, sh_degree=2, sh_start_fraction=0.4)
    assert [config.active_sh_degree(s) for s in (0, 399, 400, 599, 601, 999)] == [0, 0, 1, 1, 2, 2]
    assert [config.picture_scale(s) for s in (0, 599, 600)] == [0.5, 0.5, 1.0]
    assert [config.eps2d(s) for s in (599, 600)] == pytest.approx([0.075, 0.3])
    params = parameters_from_splats(splats_from_point_cloud(sphere(4, seed=0)))
    rates = LearningRates()
    optimizers = make_optimizers(params, rates)
    set_learning_rates(optimizers, rates, 1.0)
    assert optimizers["means"].param_groups[0]["lr"] == pytest.approx(rates.means * rates.final_means)
    assert optimizers["scales"].param_groups[0]["lr"] == pytest.approx(rates.scales * rates.final)


def test_densify_splits_large_doubles_small_drops_transparent_and_keeps_the_cap() -> None:
    params = parameters_from_splats(splats_from_point_cloud(sphere(6, seed=0)))
    with torch.no_grad():
        params["opacities"][0] = -9.0  # transparent
        params["scales"][1] = math.log(0.04)  # large and pulled
        params["scales"][2:] = math.log(0.005)  # small, two of them pulled
    optimizers = make_optimizers(params, LearningRates())
    for name, param in params.items():
        param.grad = torch.ones_like(param)
        optimizers[name].step()
    state = DensifyState(torch.tensor([9.0, 3.0, 1.0, 0.9, 0.0, 0.0]), torch.ones(6))
    moments = optimizers["means"].state[params["means"]]["exp_avg"].clone()
    kept = params["means"][[2, 3, 4, 5]].detach().clone()

    fresh = densify(params, optimizers, state, DensifyConfig(max_count=7), torch.Generator().manual_seed(0))

    # room for two more: the large one is split (one more), the small one that pulls harder is doubled
    assert len(params["means"]) == 7 and fresh.gradient_sum.shape == (7,)
    assert torch.equal(params["means"][:4], kept) and torch.equal(params["means"][4], kept[0])
    torch.testing.assert_close(params["scales"][5:].exp().max(), torch.tensor(0.04 / 1.6), rtol=0.03, atol=0)
    state_of_means = optimizers["means"].state[params["means"]]
    assert torch.equal(state_of_means["exp_avg"][:4], moments[[2, 3, 4, 5]])
    assert float(state_of_means["exp_avg"][4:].abs().max()) == 0
    assert all(isinstance(p, Parameter) and p.requires_grad for p in params.values())


def test_limits_clip_long_axes_only() -> None:
    params = parameters_from_splats(splats_from_point_cloud(sphere(2, seed=0)))
    with torch.no_grad():
        params["scales"].copy_(torch.tensor([[0.001, 0.001, 0.02], [0.2, 0.03, 0.0001]]).log())
    limit_shapes(params, DensifyConfig(max_scale=0.05, max_needle_ratio=8.0))
    expected = torch.tensor([[0.001, 0.001, 0.008], [0.05, 0.03, 0.0001]])
    torch.testing.assert_close(params["scales"].exp().detach(), expected)

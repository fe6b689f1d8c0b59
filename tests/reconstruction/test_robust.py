"""Views that do not agree: what is measured of them, and that a toy fit survives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dp360.generation.cameras import look_at_origin
from dp360.generation.views import PointCloud, ViewSet
from dp360.reconstruction.agreement_kernels import PIXELS, patch_sums, plain_patch_sums
from dp360.reconstruction.densify import DensifyConfig
from dp360.reconstruction.robust import RobustConfig, ViewAgreement
from dp360.reconstruction.splat_fit import SplatFitConfig, fit_splats, parameters_from_splats, render_while_training
from dp360.reconstruction.splats import Splats, render_splats, splats_from_point_cloud

SIZE = 48


def blob(x: float = 0.0, y: float = 0.0, gain: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Tensor:
    """A soft disc with stripes, premultiplied, moved by x and y pixels."""
    v, u = torch.meshgrid(torch.arange(SIZE) + 0.5 - y, torch.arange(SIZE) + 0.5 - x, indexing="ij")
    alpha = torch.sigmoid((14 - torch.hypot(u - 24, v - 24)) * 1.5)
    stripes = 0.5 + 0.2 * torch.sin(u / 3) * torch.cos(v / 4)
    return torch.cat([stripes[..., None] * alpha[..., None] * torch.tensor(gain), alpha[..., None]], dim=-1)


def agreement(n: int = 4, **changes: Any) -> ViewAgreement:
    confidence = torch.full((n,), 0.7)
    confidence[0] = 1.0
    return ViewAgreement(confidence, RobustConfig(**changes))


def visit(state: ViewAgreement, view: int, picture: Tensor, rounds: int = 12) -> None:
    """The fit stays at `blob()`; it is seen with the shift that the view is believed to have."""
    for _ in range(rounds):
        render = blob(*state.shift_px(view, SIZE).tolist())
        state.measure(view, render[..., :3], render[..., 3], torch.zeros(3), state.corrected(picture, view))


@pytest.mark.parametrize(("height", "width", "side"), [(64, 64, 2), (61, 83, 5), (150, 200, 6)])
def test_sums_by_patch_are_those_of_the_plain_twin(height: int, width: int, side: int):
    draw = torch.Generator().manual_seed(height)
    rgb, target = torch.rand(height, width, 3, generator=draw), torch.rand(height, width, 4, generator=draw) * 1.3
    alpha, background = torch.rand(height, width, generator=draw) * 1.3, torch.rand(3, generator=draw)
    alpha, target = alpha.clamp_max(1), target.clamp_max(1)
    fast = patch_sums(rgb, alpha, background, target, side)
    plain = plain_patch_sums(rgb.double(), alpha.double(), background.double(), target.double(), side)
    torch.testing.assert_close(fast, plain, atol=2e-4, rtol=1e-5)
    assert float(fast[..., PIXELS].sum()) == height * width and bool((fast[..., 4:10].amax((0, 1)) > 0).all())


def test_gain_and_shift_are_found_and_taken_out():
    state, gain = agreement(), (0.92, 1.0, 1.07)
    visit(state, 0, blob())
    visit(state, 1, blob(0.5, -0.4, gain))
    # with few views and small shifts only a share is believed; what was measured is the whole of it
    torch.testing.assert_close(state.shift[1] * SIZE, torch.tensor([0.5, -0.4]), atol=0.06, rtol=0)
    torch.testing.assert_close(state.log_gain[1].exp(), torch.tensor(gain), atol=0.015, rtol=0)
    torch.testing.assert_close(state.corrected(blob(gain=gain), 1), blob(), atol=0.02, rtol=0)


def test_views_that_agree_are_left_alone():
    state = agreement()
    for view in range(4):
        visit(state, view, blob())
    assert float(state.log_gain.abs().max()) < 1e-3 and float(state.shift.abs().max()) * SIZE < 1e-2
    assert bool((state.update_trust() == 1).all())
    assert torch.equal(state.corrected(blob(), 0), blob())


def test_the_portrait_is_neither_corrected_nor_doubted():
    state = agreement()
    visit(state, 0, blob(1.0, 0.0, (0.8, 0.8, 0.8)) * 0.5)
    for view in (1, 2, 3):
        visit(state, view, blob())
    portrait = blob(gain=(0.8, 0.8, 0.8))
    assert torch.equal(state.corrected(portrait, 0), portrait) and not bool(state.shift_px(0, SIZE).any())
    assert float(state.update_trust()[0]) == 1


def test_a_view_of_somebody_else_is_voted_out():
    state = agreement()
    for view in (0, 1, 2):
        picture = blob() + 0.01 * torch.randn(SIZE, SIZE, 4, generator=torch.Generator().manual_seed(view))
        visit(state, view, picture)
    visit(state, 3, blob().flip(0).roll(9, 1) * torch.tensor([0.3, 1.2, 0.2, 1.0]))
    assert state.update_trust().tolist() == [1, 1, 1, 0]


def test_a_patch_that_disagrees_counts_less():
    state = agreement()
    picture = blob() + 0.01 * torch.randn(SIZE, SIZE, 4, generator=torch.Generator().manual_seed(0))
    spoiled = picture.clone()
    spoiled[18:26, 18:26, :3] = torch.tensor([1.0, 0.0, 1.0])
    weights = state.measure(1, picture[..., :3], picture[..., 3], torch.zeros(3), blob(), weigh_pixels=True)
    assert weights is not None and weights.shape == (SIZE, SIZE) and float(weights.min()) > 0.8
    weights = state.measure(1, spoiled[..., :3], spoiled[..., 3], torch.zeros(3), blob(), weigh_pixels=True)
    assert weights is not None and float(weights[20:24, 20:24].max()) < 0.3 < 0.8 < float(weights[:16].min())


def test_the_state_travels_and_can_be_switched_off():
    state = agreement()
    visit(state, 1, blob(0.5, 0.0, (0.9, 0.9, 0.9)))
    other = agreement()
    other.load_state_dict(state.state_dict())
    assert torch.equal(other.log_gain, state.log_gain) and torch.equal(other.shift, state.shift)
    off = RobustConfig(enabled=False)
    assert not off.starts(999, 1000) and not off.is_trust_due(300, 1000)
    assert [s for s in range(10) if RobustConfig(trust_fractions=(0.2, 0.5)).is_trust_due(s, 10)] == [2, 5]


def test_the_principal_point_moves_the_picture():
    params = parameters_from_splats(
        splats_from_point_cloud(PointCloud(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1, 3)))
    )
    camera, shift_px = look_at_origin([0.0], [0.0], size_px=32), torch.tensor([2.0, -1.0], dtype=torch.float64)
    rest = (camera, torch.zeros(3), 0, SplatFitConfig(sh_degree=0))
    (*_, plain), (*_, moved) = (render_while_training(params, *rest, shift) for shift in (None, shift_px))
    torch.testing.assert_close(moved["means2d"] - plain["means2d"], shift_px.float()[None, None])


@pytest.fixture(scope="module")
def spoiled_views(make_sphere_views) -> tuple[ViewSet, ViewSet]:
    """A sphere, and the same views with gains, and one of them turned inside out."""
    views = make_sphere_views(ring_count=10, size_px=SIZE, points=1500)
    confidence = torch.full((len(views),), 0.7)
    confidence[0] = 1
    views = replace(views, confidence=confidence)
    rgba = views.rgba.clone()
    gains = 0.85 + 0.3 * torch.rand(len(views), 1, 1, 3, generator=torch.Generator().manual_seed(3))
    rgba[1:, ..., :3] = (rgba[1:, ..., :3] * gains[1:]).clamp(0, 255).round().to(torch.uint8)
    rgba[4, ..., :3] = 255 - rgba[4, ..., :3]
    return views, replace(views, rgba=rgba)


def test_a_fit_of_spoiled_views_is_better_with_the_robust_parts(spoiled_views):
    clean, spoiled = spoiled_views
    config = SplatFitConfig(iterations=300, densify=DensifyConfig(every=60, max_count=2000, max_scale=0.08))

    def error(splats: Splats) -> float:
        solid = torch.nn.functional.avg_pool2d(clean.alpha_unit, 5, stride=1, padding=2) == 1
        return float((render_splats(splats, clean.cameras)[0] - clean.rgb_unit())[solid].square().mean())

    robust = error(fit_splats(spoiled, config, torch.Generator().manual_seed(0)))
    without = replace(config, robust=RobustConfig(enabled=False))
    plain = error(fit_splats(spoiled, without, torch.Generator().manual_seed(0)))
    assert robust < 0.4 * plain

"""The CPU engine on scenes of every kind against the float64 twin, finite differences, and itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dp360.generation import numba_pool
from dp360.generation.cameras import Cameras, look_at_origin
from dp360.generation.errors import InputError
from dp360.reconstruction.rasterize import Rendered, cpu, rasterize

NAMES = ("means", "quats", "log_scales", "opacity_logits", "sh0", "sh_rest")
KINDS = ("plain", "tiny", "huge", "flat", "needle", "faint", "opaque", "round")
SIZE = (37, 28)
NEAR = 0.1


def render(*arguments: Any, **settings: Any) -> Rendered:
    """`rasterize`, called with lists of variables."""
    return rasterize(*arguments, **settings)


@dataclass(frozen=True)
class Scene:
    """Inputs of `rasterize`, float64 with values that float32 holds exactly, and how to look at them."""

    variables: tuple[Tensor, ...]
    cameras: Cameras
    degree: int
    mode: str

    def render(self, variables: list[Tensor], rasterizer: Callable[..., Rendered]) -> Tensor:
        """Colour, expected depth and alpha in one tensor [c h w 5]."""
        picture, alpha, _ = rasterizer(
            *variables,
            self.cameras.T_camera_world.to(variables[0]),
            self.cameras.K_px.to(variables[0]),
            *SIZE,
            sh_degree=self.degree,
            near_plane=NEAR,
            rasterize_mode=self.mode,
            render_mode="RGB+D",
            backgrounds=torch.tensor([[0.2, 0.5, 0.9]]).to(variables[0]),
        )
        return torch.cat([picture, alpha], dim=-1)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Mixed Gaussians, some behind the camera or beside the picture."""
    n, seed = draw(st.integers(1, 40)), draw(st.integers(0, 2**31))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    degree = draw(st.sampled_from([0, 1, 2, 3]))
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    log_scales, logits = 0.5 * normal(n, 3) - 3.0, normal(n)
    for i in range(n):
        kind = kinds[i % len(kinds)]
        if kind == "tiny":
            log_scales[i] -= 9
        elif kind == "huge":
            log_scales[i] += 5
        elif kind == "flat":
            log_scales[i, i % 3] -= 7
        elif kind == "needle":
            log_scales[i, i % 3] += 4
            log_scales[i, (i + 1) % 3] -= 4
        elif kind == "faint":
            logits[i] = -5.5 + logits[i]
        elif kind == "opaque":
            logits[i] = 9 + logits[i]
        elif kind == "round":
            log_scales[i] = log_scales[i, 0]
    harmonics = 0.4 * normal(n, (degree + 1) ** 2, 3)
    variables = (0.4 * normal(n, 3), normal(n, 4), log_scales, logits, harmonics[:, 0], harmonics[:, 1:])
    cameras = look_at_origin(
        [draw(st.floats(-math.pi, math.pi))],
        [draw(st.floats(-1.3, 1.3))],
        size_px=min(SIZE),
        radius=draw(st.floats(0.3, 3.0)),
        focal_normalised=draw(st.sampled_from([0.7, 1.5, 4.2])),
    )
    mode = draw(st.sampled_from(["classic", "antialiased"]))
    return Scene(tuple(v.float().double() for v in variables), cameras, degree, mode)


def far_from_thresholds(scene: Scene, plain) -> bool:
    """Whether rounding cannot move a pair over a threshold at which the picture jumps."""
    means, quats, log_scales, logits, _, _ = scene.variables
    W, K = scene.cameras.T_camera_world[0].double(), scene.cameras.K_px[0].double()
    radii, means2d, depths, conics, factor = plain.project_one_camera(
        means, quats, log_scales, W, K, SIZE, near_plane=NEAR, eps2d=0.3
    )
    opacity = logits.sigmoid() * factor if scene.mode == "antialiased" else logits.sigmoid()
    ys, xs = torch.meshgrid(torch.arange(SIZE[1]) + 0.5, torch.arange(SIZE[0]) + 0.5, indexing="ij")
    delta = torch.stack([xs, ys], dim=-1).reshape(-1, 2).double() - means2d[:, None]
    raw = opacity[:, None] * torch.exp(-0.5 * torch.einsum("npi,nij,npj->np", delta, conics, delta))
    raw = raw[radii > 0]
    order = torch.argsort(depths[radii > 0], stable=True)
    alpha = torch.where(raw >= 1 / 255, raw.clamp_max(0.999), 0)[order]
    after = torch.cumprod(1 - alpha, dim=0)
    gaps = depths[radii > 0][order].diff()
    # a needle many times as long as the picture is wide cancels digits of its exponent
    jumps = ((raw * 255).log().abs() < 3e-4) | ((raw / 0.999).log().abs() < 3e-4)
    return not bool(jumps.any() | ((after * 1e4).log().abs() < 3e-3).any() | (gaps < 1e-5).any())


def gradients(
    scene: Scene, rasterizer: Callable[..., Rendered], dtype: torch.dtype, weights: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The picture, and the gradients of its weighted sum."""
    variables = [v.to(dtype).clone().requires_grad_() for v in scene.variables]
    picture = scene.render(variables, rasterizer)
    return picture.detach(), list(torch.autograd.grad((picture * weights.to(dtype)).sum(), variables))


RANDOM = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@RANDOM
@given(scene=scenes(), seed=st.integers(0, 1000))
def test_any_scene_agrees_with_the_float64_twin(twin, plain, scene: Scene, seed: int) -> None:
    assume(far_from_thresholds(scene, plain))
    weights = torch.randn(1, SIZE[1], SIZE[0], 5, generator=torch.Generator().manual_seed(seed)).double()
    expected, right = gradients(scene, twin, torch.float64, weights)
    picture, ours = gradients(scene, render, torch.float32, weights)
    assert float(((picture - expected).abs() / expected.abs().clamp_min(1)).max()) < 1e-4
    for name, a, b in zip(NAMES, ours, right):
        assert torch.isfinite(a).all()
        error = float((a - b).norm())
        # one round Gaussian has no gradient in its quaternion: what is left there is rounding of zero
        assert error < 1e-3 * float(b.norm()) + 1e-6 * float(weights.norm()), f"{name}: {error:.2e} of {b.norm():.2e}"


@settings(RANDOM, max_examples=20)
@given(scene=scenes(), seed=st.integers(0, 1000))
def test_any_gradient_predicts_a_small_step(twin, plain, scene: Scene, seed: int) -> None:
    """Central differences of the float64 twin along a random direction of each input."""
    assume(far_from_thresholds(scene, plain))
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(1, SIZE[1], SIZE[0], 5, generator=generator).double()
    _, ours = gradients(scene, render, torch.float32, weights)
    for i, name in enumerate(NAMES):
        direction = torch.randn(scene.variables[i].shape, generator=generator).double()
        step, values = 1e-6, []
        for sign in (1, -1):
            moved = [v + sign * step * direction if k == i else v for k, v in enumerate(scene.variables)]
            values.append(float((scene.render(moved, twin) * weights).sum()))
        slope = (values[0] - values[1]) / (2 * step)
        size = float((ours[i].double().abs() * direction.abs()).sum())
        predicted = float((ours[i].double() * direction).sum())
        assert predicted == pytest.approx(slope, abs=1e-3 * size + 1e-5 * float(weights.norm())), name


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    scene = [torch.zeros(300, 3), torch.ones(300, 4), torch.full((300, 3), -2.3), torch.zeros(300)]
    scene += [torch.zeros(300, 3), torch.zeros(300, 3, 3)]
    scene[NAMES.index(name)][271] = value
    cameras = look_at_origin([0.0], [0.0], size_px=16)
    with pytest.raises(InputError, match=f"Gaussian 271 of 300 has {name} that are not finite"):
        render(*scene, cameras.T_camera_world, cameras.K_px, 16, 16, sh_degree=1)


def test_a_quaternion_without_length_is_refused() -> None:
    scene = [torch.zeros(3, 3), torch.ones(3, 4), torch.full((3, 3), -2.3), torch.zeros(3), torch.ones(3, 3)]
    scene[1][1] = 0
    cameras = look_at_origin([0.0], [0.0], size_px=16)
    with pytest.raises(InputError, match="quats of non-zero length, Gaussian 1 of 3"):
        render(*scene, torch.zeros(3, 0, 3), cameras.T_camera_world, cameras.K_px, 16, 16, sh_degree=0)


@pytest.mark.parametrize("degree", [0, 2])
def test_degrees_above_the_one_in_use_have_no_gradient(twin, degree: int) -> None:
    generator = torch.Generator().manual_seed(3)
    raw = [torch.randn(200, *tail, generator=generator) for tail in ((3,), (4,), (3,), (), (3,), (15, 3))]
    raw[0], raw[2] = 0.3 * raw[0], 0.5 * raw[2] - 3.5
    cameras = look_at_origin([0.4], [0.2], size_px=40)
    lens = (cameras.T_camera_world, cameras.K_px, 40, 40)
    results = []
    for rasterizer, dtype in ((render, torch.float32), (twin, torch.float64)):
        variables = [v.to(dtype).clone().requires_grad_() for v in raw]
        picture, alpha, _ = rasterizer(*variables, *lens, sh_degree=degree)
        gradient = torch.autograd.grad(picture.square().sum() + alpha.sum(), variables)
        results.append([picture, alpha, *gradient])
    for ours, right in zip(*results):
        assert float((ours - right).detach().norm()) <= 1e-3 * float(right.detach().norm())
    assert float(results[0][-1][:, (degree + 1) ** 2 - 1 :].abs().max()) == 0


def test_two_pictures_at_a_time_do_not_disturb_each_other() -> None:
    generator = torch.Generator().manual_seed(1)
    cameras = look_at_origin([0.1, 2.2], [0.0, 0.3], size_px=64)
    variables = [0.3 * torch.randn(400, 3, generator=generator), torch.randn(400, 4, generator=generator)]
    variables += [torch.full((400, 3), -3.5), torch.full((400,), 0.4), torch.randn(400, 3, generator=generator)]
    variables.append(torch.zeros(400, 0, 3))
    variables = [v.requires_grad_() for v in variables]

    def picture(view: int) -> Tensor:
        return render(*variables, cameras[view].T_camera_world, cameras[view].K_px, 64, 64, sh_degree=0)[0]

    apart = [torch.autograd.grad(picture(view).square().sum(), variables) for view in (0, 1)]
    first, second = picture(0), picture(1)
    kept = first.detach().clone()
    together = [torch.autograd.grad(p.square().sum(), variables) for p in (first, second)]
    assert torch.equal(first, kept)
    for a, b in zip(apart, together):
        assert all(torch.equal(x, y) for x, y in zip(a, b))


def test_what_lies_in_lent_memory_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(5)
    raw = [torch.randn(300, *tail, generator=generator) for tail in ((3,), (4,), (3,), (), (3,), (3, 3))]
    raw[2] = 0.5 * raw[2] - 3.5
    cameras, results = look_at_origin([0.4], [0.2], size_px=45), []
    for value in (0.0, math.nan):

        def spoiled(shape: tuple[int, ...], dtype: Any = np.float32, value: float = value) -> np.ndarray:
            return np.full(shape, value if dtype == np.float32 else 7, dtype)

        monkeypatch.setattr(cpu, "empty", spoiled)
        variables = [v.clone().requires_grad_() for v in raw]
        lens = (cameras.T_camera_world, cameras.K_px, 45, 45)
        picture, alpha, info = render(*variables, *lens, sh_degree=1, render_mode="RGB+D")
        inputs = [*variables, info["means2d"]]
        gradients = torch.autograd.grad(picture.square().sum() + alpha.sum(), inputs)
        results.append([picture, alpha, info["radii"], info["means2d"], *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_bits_of_a_whole_step_repeat_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from dp360.reconstruction.losses import LossConfig, training_loss

    monkeypatch.setattr(numba_pool, "SMALL_WORK", 0)
    generator = torch.Generator().manual_seed(2)
    raw = [torch.randn(900, *tail, generator=generator) for tail in ((3,), (4,), (3,), (), (3,), (3, 3))]
    raw[0], raw[2] = 0.25 * raw[0], 0.5 * raw[2] - 3.5
    cameras = look_at_origin([0.4], [0.2], size_px=150)
    target = torch.rand(150, 150, 4, generator=generator)
    threads, runs = numba.get_num_threads(), []
    try:
        for count in (1, threads, threads, 1):
            numba.set_num_threads(count)
            variables = [v.clone().requires_grad_() for v in raw]
            rgb, alpha, _ = render(*variables, cameras.T_camera_world, cameras.K_px, 150, 150, sh_degree=1)
            shown = (rgb[0], alpha[0, ..., 0], target[..., :3], target[..., 3])
            loss = training_loss(*shown, variables[2], LossConfig())
            runs.append([loss, *torch.autograd.grad(loss, variables)])
    finally:
        numba.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))

"""The CPU rasteriser against its float64 twin, a known answer, and itself on other numbers of threads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import pytest
import torch
from torch import Tensor

from dp360.generation import numba_pool
from dp360.generation.cameras import look_at_origin
from dp360.generation.errors import InputError
from dp360.reconstruction.rasterize import Rendered, cuda, rasterize
from dp360.reconstruction.spherical_harmonics import sh0_from_rgb

SIZE = (52, 44)  # width, height: neither a multiple of the tile


@dataclass(frozen=True)
class Scene:
    """Inputs of `rasterize` in float64, with values that float32 holds exactly."""

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    opacity_logits: Tensor
    sh0: Tensor
    sh_rest: Tensor

    def variables(self, dtype: torch.dtype) -> list[Tensor]:
        """Leaf tensors of the asked type."""
        fields = (self.means, self.quats, self.log_scales, self.opacity_logits, self.sh0, self.sh_rest)
        return [f.to(dtype).detach().clone().requires_grad_() for f in fields]


def render(*arguments: Any, **settings: Any) -> Rendered:
    """`rasterize`, called with lists of variables."""
    return rasterize(*arguments, **settings)


def gradient_of(variable: Tensor) -> Tensor:
    """What the backward pass left on a tensor."""
    assert variable.grad is not None
    return variable.grad


def random_scene(n: int, *, seed: int = 0, basis_count: int = 1, spread: float = 0.3) -> Scene:
    """Scattered anisotropic Gaussians of all opacities around the origin."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Scene(
        *(
            t.double()
            for t in (
                spread * normal(n, 3),
                normal(n, 4),
                0.6 * normal(n, 3) - 3.3,
                1.5 * normal(n),
                0.4 * normal(n, 3),
                0.4 * normal(n, basis_count - 1, 3),
            )
        )
    )


def compare_with_twin(twin, scene: Scene, viewmats: Tensor, Ks: Tensor, **settings) -> None:
    """Pictures within 1e-4 and gradients within 1e-3 (relative) of the float64 twin, for a random scalar of both.

    The picture is not continuous where alpha crosses 1/255 or transmittance 1e-4: one value in a thousand may have
    fallen on the other side, which moves it by at most about 1/255.
    """
    generator = torch.Generator().manual_seed(1)
    backgrounds = torch.rand(len(viewmats), 3, generator=generator)
    results = {}
    for rasterizer, dtype in ((twin, torch.float64), (render, torch.float32)):
        variables = scene.variables(dtype)
        renders, alphas, info = rasterizer(
            *variables, viewmats, Ks, *SIZE, backgrounds=backgrounds.to(dtype), **settings
        )
        generator.manual_seed(2)
        weights = torch.randn(renders.shape, generator=generator), torch.randn(alphas.shape, generator=generator)
        info["means2d"].retain_grad()
        ((renders * weights[0].to(dtype)).sum() + (alphas * weights[1].to(dtype)).sum()).backward()
        gradients = [v.grad for v in variables] + [info["means2d"].grad]
        results[dtype] = renders, alphas, info["radii"], gradients
    (expected, expected_alpha, expected_radii, expected_gradients) = results[torch.float64]
    (renders, alphas, radii, gradients) = results[torch.float32]
    assert torch.equal(radii, expected_radii)
    for ours, right in ((renders, expected), (alphas, expected_alpha)):
        error = (ours.double() - right).abs() / right.abs().clamp_min(1)
        assert float((error > 1e-4).double().mean()) < 1e-3 and float(error.max()) < 1 / 255
    names = ("means", "quats", "log_scales", "opacity_logits", "sh0", "sh_rest", "means2d")
    for name, gradient, right in zip(names, gradients, expected_gradients):
        error = float((gradient.double() - right).norm() / right.norm().clamp_min(1e-12))
        assert error < 1e-3, f"{name}: relative gradient error {error:.1e}"


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_pictures_and_gradients_agree_with_the_float64_twin(twin, mode: str, degree: int) -> None:
    scene = random_scene(250, basis_count=(degree + 1) ** 2)
    cameras = look_at_origin([0.3, -2.0], [0.1, -0.4], size_px=48)
    compare_with_twin(
        twin, scene, cameras.T_camera_world, cameras.K_px, sh_degree=degree, rasterize_mode=mode, render_mode="RGB+ED"
    )


@pytest.mark.parametrize("render_mode", ["RGB", "RGB+D", "RGB+ED"])
def test_every_render_mode_agrees_with_the_twin(twin, render_mode: str) -> None:
    cameras = look_at_origin([1.0], [0.0], size_px=48)
    compare_with_twin(
        twin, random_scene(150, seed=3), cameras.T_camera_world, cameras.K_px, sh_degree=0, render_mode=render_mode
    )


@pytest.mark.parametrize("seed", range(6))
def test_cameras_anywhere_agree_with_the_twin(twin, seed: int) -> None:
    """Also inside the cloud: Gaussians behind the camera, off the picture, huge, and beyond the clamped slopes."""
    generator = torch.Generator().manual_seed(seed)
    azimuth = (torch.rand(2, generator=generator) * 2 * math.pi).tolist()
    elevation = (torch.rand(2, generator=generator) * 2.8 - 1.4).tolist()
    cameras = look_at_origin(azimuth, elevation, size_px=40, radius=0.2 + 0.3 * seed, focal_normalised=0.6)
    compare_with_twin(
        twin,
        random_scene(60, seed=seed, spread=0.5),
        cameras.T_camera_world,
        cameras.K_px,
        sh_degree=0,
        near_plane=0.1,
        rasterize_mode="antialiased" if seed % 2 else "classic",
    )


def test_flat_splats_seen_from_the_side_keep_their_gradients(twin) -> None:
    scene = random_scene(100, seed=5)
    scene.log_scales[:, 2] -= 7
    cameras = look_at_origin([0.5], [0.3], size_px=48)
    compare_with_twin(twin, scene, cameras.T_camera_world, cameras.K_px, sh_degree=0, rasterize_mode="antialiased")


def test_opaque_stacks_stop_at_the_same_gaussian_as_the_twin(twin) -> None:
    scene = random_scene(200, seed=6, spread=0.08)
    scene.opacity_logits[:] = math.log(3)
    cameras = look_at_origin([0.0], [0.0], size_px=48)
    compare_with_twin(twin, scene, cameras.T_camera_world, cameras.K_px, sh_degree=0)


@pytest.mark.parametrize("of_twin", [False, True])
def test_one_round_gaussian_has_the_known_profile(twin, of_twin: bool) -> None:
    """Straight ahead at depth z, standard deviation s: alpha = o exp(-r^2 / 2 / ((f s / z)^2 + 0.3))."""
    depth, scale, focal, opacity = 4.0, 0.2, 100.0, 0.8
    K = torch.tensor([[[focal, 0, 16.5], [0, focal, 15.5], [0, 0, 1]]])
    viewmat = torch.eye(4)[None]
    viewmat[0, 2, 3] = depth
    picture, alphas, info = (twin if of_twin else render)(
        torch.zeros(1, 3),
        torch.tensor([[2.0, 0.0, 0.0, 0.0]]),
        torch.full((1, 3), math.log(scale)),
        torch.logit(torch.tensor([opacity])),
        sh0_from_rgb(torch.tensor([[1.0, 0.5, 0.25]])),
        torch.zeros(1, 0, 3),
        viewmat,
        K,
        33,
        32,
        sh_degree=0,
        render_mode="RGB+ED",
    )
    variance = (focal * scale / depth) ** 2 + 0.3
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(33) + 0.5, indexing="ij")
    expected = opacity * torch.exp(-((x - 16.5) ** 2 + (y - 15.5) ** 2) / 2 / variance)
    expected = torch.where(expected >= 1 / 255, expected, 0)
    torch.testing.assert_close(alphas[0, ..., 0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(picture[0, ..., 1], 0.5 * expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(picture[0, 15, 16, 3], torch.tensor(depth), atol=1e-4, rtol=0)
    assert int(info["radii"][0, 0]) == math.ceil(3 * math.sqrt(variance + 0.1))  # the rule adds sqrt(0.01)
    torch.testing.assert_close(info["means2d"][0, 0], torch.tensor([16.5, 15.5]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("of_twin", [False, True])
@pytest.mark.parametrize(
    "means", [torch.zeros(0, 3), torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[40.0, 0.0, 0.0]])]
)
def test_nothing_in_sight_shows_the_background_and_has_zero_gradients(twin, of_twin: bool, means: Tensor) -> None:
    """An empty scene, a Gaussian behind the camera, one far off the picture."""
    n = means.shape[0]
    scene = [means, torch.ones(n, 4), torch.full((n, 3), -2.3), torch.full((n,), 2.0), torch.ones(n, 3)]
    scene.append(torch.zeros(n, 0, 3))
    scene = [t.clone().requires_grad_() for t in scene]
    cameras = look_at_origin([0.0], [0.0], size_px=20)
    background = torch.tensor([[0.1, 0.2, 0.3]])
    picture, alphas, info = (twin if of_twin else render)(
        *scene,
        cameras.T_camera_world,
        cameras.K_px,
        20,
        20,
        sh_degree=0,
        backgrounds=background,
        render_mode="RGB+ED",
    )
    assert torch.equal(picture[..., :3], background.expand(1, 20, 20, 3))
    assert float(alphas.detach().abs().max()) == 0 and float(picture[..., 3].detach().abs().max()) == 0
    assert int(info["radii"].sum()) == 0
    (picture.sum() + alphas.sum()).backward()
    assert all(t.grad is None or float(t.grad.abs().sum()) == 0 for t in scene)


def test_the_near_plane_hides_gaussians() -> None:
    scene = random_scene(50, seed=8).variables(torch.float32)
    cameras = look_at_origin([0.0], [0.0], size_px=32)
    arguments = (*scene, cameras.T_camera_world, cameras.K_px, 32, 32)
    assert int(render(*arguments, sh_degree=0)[2]["radii"].sum()) > 0
    assert int(render(*arguments, sh_degree=0, near_plane=10.0)[2]["radii"].sum()) == 0


def test_bits_repeat_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_pool, "SMALL_WORK", 0)
    scene = random_scene(700, seed=9, basis_count=4)
    cameras = look_at_origin([0.2, 2.0], [0.0, 0.5], size_px=80)

    def run() -> list[Tensor]:
        variables = scene.variables(torch.float32)
        picture, alphas, info = render(
            *variables, cameras.T_camera_world, cameras.K_px, 80, 80, sh_degree=1, render_mode="RGB+ED"
        )
        info["means2d"].retain_grad()
        (picture.square().sum() + alphas.sum()).backward()
        return [picture, alphas, gradient_of(info["means2d"]), *map(gradient_of, variables)]

    threads = numba.get_num_threads()
    runs = []
    try:
        for count in (1, threads, threads, 1):
            numba.set_num_threads(count)
            runs.append(run())
    finally:
        numba.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))


def test_equal_depths_keep_the_order_of_the_gaussians() -> None:
    """Two Gaussians at one place: the first given is in front."""
    sh0 = sh0_from_rgb(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    cameras = look_at_origin([0.0], [0.0], size_px=16)
    picture, _, _ = rasterize(
        torch.zeros(2, 3),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        torch.full((2, 3), -2.3),
        torch.full((2,), 2.2),
        sh0,
        torch.zeros(2, 0, 3),
        cameras.T_camera_world,
        cameras.K_px,
        16,
        16,
        sh_degree=0,
    )
    assert float(picture[0, 8, 8, 0]) > 5 * float(picture[0, 8, 8, 1])


def test_gsplats_strategy_runs_on_our_info() -> None:
    from gsplat import DefaultStrategy

    names = ("means", "quats", "scales", "opacities", "sh0", "sh_rest")
    params = {k: torch.nn.Parameter(v) for k, v in zip(names, random_scene(40).variables(torch.float32))}
    optimizers: dict[str, torch.optim.Optimizer] = {k: torch.optim.Adam([v]) for k, v in params.items()}
    strategy = DefaultStrategy(refine_start_iter=0, refine_every=1, grow_grad2d=0.0, verbose=False)
    state = strategy.initialize_state()
    cameras = look_at_origin([0.0], [0.0], size_px=32)
    picture, _, info = rasterize(
        params["means"],
        params["quats"],
        params["scales"],
        params["opacities"],
        params["sh0"],
        params["sh_rest"],
        cameras.T_camera_world,
        cameras.K_px,
        32,
        32,
        sh_degree=0,
    )
    strategy.step_pre_backward(params, optimizers, state, 1, info)
    picture.square().mean().backward()
    strategy.step_post_backward(params, optimizers, state, 1, info)
    assert len(params["means"]) > 40


def test_wrong_shapes_are_refused_by_name() -> None:
    variables = random_scene(5).variables(torch.float32)
    cameras = look_at_origin([0.0], [0.0], size_px=16)
    with pytest.raises(ValueError, match="sh_rest of shape"):
        render(*variables, cameras.T_camera_world, cameras.K_px, 16, 16, sh_degree=1)
    with pytest.raises(ValueError, match="sh_degree from 0 to 3"):
        render(*variables, cameras.T_camera_world, cameras.K_px, 16, 16, sh_degree=4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA shows the message")
def test_without_a_cuda_compiler_the_message_says_what_to_install() -> None:
    with pytest.raises(InputError, match="nvidia-cuda-nvcc"):
        cuda.rasterize_cuda()


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_cpu_and_gsplat_agree(mode: str) -> None:
    scene = random_scene(400, basis_count=16)
    cameras = look_at_origin([0.3], [0.1], size_px=96)
    results = []
    for device in ("cuda", "cpu"):
        variables = [v.detach().to(device).requires_grad_() for v in scene.variables(torch.float32)]
        picture, alphas, _ = render(
            *variables,
            cameras.T_camera_world.to(device),
            cameras.K_px.to(device),
            96,
            96,
            sh_degree=3,
            rasterize_mode=mode,
            render_mode="RGB+ED",
        )
        picture.square().sum().backward()
        results.append([picture.detach().cpu(), *(gradient_of(v).cpu() for v in variables)])
    for gsplat_value, ours in zip(*results):
        assert float((gsplat_value - ours).norm() / gsplat_value.norm()) < 1e-3

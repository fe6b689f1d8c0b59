"""The visible loop: posed pictures in, `Splats` out. The pieces are importable, so that other trainers share them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Parameter

from dp360.generation.cameras import Cameras
from dp360.generation.progress import Track, silent
from dp360.generation.views import PointCloud, ViewSet

from .adam import EPS, CpuAdam, HasMoments
from .densify import (
    DensifyConfig,
    DensifyState,
    Optimizers,
    Parameters,
    Silhouettes,
    accumulate,
    densify,
    keep_only,
    limit_shapes,
)
from .losses import LossConfig, target_over_background, training_loss
from .perceptual import Lpips, lpips_for_fits
from .premultiplied import PremultipliedPictures
from .rasterize import RasterizeMode, Rendered, rasterize
from .robust import RobustConfig, ViewAgreement
from .splats import Splats, splats_from_point_cloud

VARIABLES = ("means", "scales", "quats", "features_dc", "features_rest", "opacities")
"""Fit variables under splatfacto's names, each a parameter group with an optimizer of its own."""


@dataclass(frozen=True)
class LearningRates:
    """Adam step sizes per variable, and how they fall over the fit.

    Three to sixteen times those of Kerbl et al., who take fifty times as many steps from a much poorer start.
    """

    means: float = 4.5e-4
    """World units; the head's radius is about 0.4."""
    scales: float = 0.02
    """Of log scales."""
    quats: float = 0.008
    """Of unnormalised quaternions."""
    features_dc: float = 0.04
    """Of constant harmonic coefficients."""
    features_rest: float = 0.002
    """Of the coefficients above."""
    opacities: float = 0.2
    """Of opacity logits."""
    final_means: float = 0.01
    """Step size of the means at the end, as a share of the first; in between it falls geometrically."""
    final: float = 0.1
    """The same for everything else."""

    def factor(self, name: str, progress: float) -> float:
        """Share of the first step size of variable `name` at `progress` in [0, 1] through the fit."""
        return (self.final_means if name == "means" else self.final) ** progress


@dataclass(frozen=True)
class SplatFitConfig:
    """How splats are fitted."""

    iterations: int = 600
    """Gradient steps, one view each."""
    coarse_fraction: float = 0.6
    """Share of the iterations done on smaller pictures."""
    coarse_scale: float = 0.5
    """Size of those pictures relative to the views."""
    start_count: int = 35_000
    """At most this many surface points become Gaussians at the start."""
    sh_degree: int = 1
    """Highest degree of spherical harmonics, 0 to 3: how much colour may change with the direction of view."""
    sh_start_fraction: float = 0.4
    """Share of the iterations before degree 1; the other degrees follow at equal steps until 0.8."""
    rasterize_mode: RasterizeMode = "classic"
    """`antialiased` looks better from afar, but most viewers expect `classic`."""
    losses: LossConfig = field(default_factory=LossConfig)
    """Weights of the loss terms."""
    learning_rates: LearningRates = field(default_factory=LearningRates)
    """Step sizes."""
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    """How the set of Gaussians changes and what shapes are allowed."""
    robust: RobustConfig = field(default_factory=RobustConfig)
    """What is made of views that do not agree."""

    def active_sh_degree(self, step: int) -> int:
        """Degree of harmonics in use at iteration `step`."""
        if self.sh_degree == 0:
            return 0
        progress = step / max(1, self.iterations)
        interval = (0.8 - self.sh_start_fraction) / self.sh_degree
        return max(0, min(self.sh_degree, 1 + int((progress - self.sh_start_fraction) // max(interval, 1e-9))))

    def picture_scale(self, step: int) -> float:
        """Size of the pictures at iteration `step`, relative to the views."""
        return self.coarse_scale if step < self.coarse_fraction * self.iterations else 1.0

    def eps2d(self, step: int) -> float:
        """Low-pass filter at iteration `step`, px^2: the same width in the world on small and on full pictures.

        With one width in pixels, Gaussians shrink on the small pictures and leave holes on the full ones.
        """
        return 0.3 * self.picture_scale(step) ** 2


def initial_splats(surface: PointCloud, config: SplatFitConfig, generator: torch.Generator) -> Splats:
    """Splats to start from: at most `start_count` points of the surface, drawn without replacement."""
    n = surface.points_world.shape[0]
    if n > config.start_count:
        chosen = torch.randperm(n, generator=generator)[: config.start_count].sort().values
        surface = surface[chosen]
    return splats_from_point_cloud(surface, sh_degree=config.sh_degree)


def parameters_from_splats(splats: Splats) -> dict[str, Parameter]:
    """Fit variables under splatfacto's names; copies."""
    tensors = {
        "means": splats.means_world,
        "scales": splats.log_scales,
        "quats": splats.quats_wxyz,
        "features_dc": splats.sh0,
        "features_rest": splats.sh_rest,
        "opacities": splats.opacity_logits,
    }
    return {name: Parameter(tensor.detach().clone()) for name, tensor in tensors.items()}


def splats_from_parameters(params: Mapping[str, Tensor]) -> Splats:
    """`Splats` on the CPU with copies of fit variables; quaternions are normalised."""
    tensors = {name: tensor.detach().cpu().float().clone() for name, tensor in params.items()}
    return Splats(
        means_world=tensors["means"],
        log_scales=tensors["scales"],
        quats_wxyz=torch.nn.functional.normalize(tensors["quats"], dim=-1),
        opacity_logits=tensors["opacities"].flatten(),
        sh0=tensors["features_dc"],
        sh_rest=tensors["features_rest"],
    )


def make_optimizers(params: Mapping[str, Parameter], rates: LearningRates) -> dict[str, HasMoments]:
    """One Adam per variable, with its first step size."""
    return {name: _adam(param, getattr(rates, name)) for name, param in params.items()}


def _adam(param: Parameter, rate: float) -> HasMoments:
    if param.device.type == "cpu" and param.dtype == torch.float32:
        return CpuAdam(param, rate)
    return torch.optim.Adam([param], lr=rate, eps=EPS, fused=True)


def set_learning_rates(optimizers: Optimizers, rates: LearningRates, progress: float) -> None:
    """Put the step sizes where they belong at `progress` in [0, 1] through the fit."""
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = getattr(rates, name) * rates.factor(name, progress)


def render_parameters(params: Mapping[str, Tensor], cameras: Cameras, *, sh_degree: int, **options: Any) -> Rendered:
    """`rasterize`, with its options, of fit variables under their names, on their device."""
    device = params["means"].device
    gaussians = (params["means"], params["quats"], params["scales"], params["opacities"].flatten())
    colours = (params["features_dc"], params["features_rest"])
    pose = (cameras.T_camera_world.to(device), cameras.K_px.to(device), cameras.width, cameras.height)
    return rasterize(*gaussians, *colours, *pose, sh_degree=sh_degree, **options)


def view_schedule(confidence: Float[Tensor, " n"], iterations: int, generator: torch.Generator) -> Int[Tensor, " i"]:
    """Which view each iteration looks at: as often as its confidence says, to within one, in random order.

    Raises:
        ValueError: no view with a confidence above zero.
    """
    total = confidence.double().clamp_min(0).cumsum(0)
    if len(total) == 0 or not float(total[-1]) > 0:
        raise ValueError("view_schedule: expected at least one view with a confidence above 0, got none")
    marks = (torch.arange(iterations, dtype=torch.float64) + 0.5) / iterations * total[-1]
    views = torch.searchsorted(total, marks, right=True).clamp_max(len(total) - 1)
    return views[torch.randperm(iterations, generator=generator)]


def render_while_training(
    params: Mapping[str, Tensor],
    camera: Cameras,
    background: Float[Tensor, " 3"],
    step: int,
    config: SplatFitConfig,
    shift_px: Float[Tensor, " 2"] | None = None,
) -> Rendered:
    """`render_parameters` as iteration `step` wants it; `shift_px` to the right and below lies the view's picture."""
    if shift_px is not None:
        camera = replace(camera, principal_px=camera.principal_px + shift_px)
    return render_parameters(
        params,
        camera,
        sh_degree=config.active_sh_degree(step),
        backgrounds=background[None],
        rasterize_mode=config.rasterize_mode,
        eps2d=config.eps2d(step),
    )


def view_loss(
    rgb: Float[Tensor, "h w 3"],
    alpha: Float[Tensor, "h w"],
    background: Float[Tensor, " 3"],
    picture: Float[Tensor, "h w 4"],
    log_scales: Float[Tensor, "n 3"],
    view: int,
    step: int,
    config: SplatFitConfig,
    agreement: ViewAgreement,
    lpips: Lpips | None,
) -> Float[Tensor, ""]:
    """What iteration `step` minimises: `training_loss`, with pixels weighed by what `agreement` measures on the way.

    Args:
        rgb: Render over `background`, [0, 1].
        alpha: Rendered opacity.
        background: Colour behind everything.
        picture: The view's premultiplied picture, as `agreement` corrects it.
        log_scales: The Gaussians' log standard deviations.
        agreement: What is known about the views; changed.
        lpips: The perceptual distance for full-size pictures, where there is one.
    """
    weights = None
    if config.robust.starts(step, config.iterations):
        weigh = config.robust.weighs_pixels(step, config.iterations)
        weights = agreement.measure(view, rgb.detach(), alpha.detach(), background, picture, weigh_pixels=weigh)
    target, lpips = target_over_background(picture, background), lpips if config.picture_scale(step) == 1 else None
    return training_loss(rgb, alpha, *target, log_scales, config.losses, weights=weights, lpips=lpips)


class FitNotFinite(FloatingPointError):
    """A fit in which a number is not finite any more."""

    def __init__(self, what: str, step: int, last_good: Splats) -> None:
        """Keep what was reached.

        Args:
            what: the loss, or a Gaussian.
            step: number of the iteration, from 0.
            last_good: the splats before it.
        """
        super().__init__(f"{what} is not finite at step {step} of the fit")
        self.step, self.last_good = step, last_good


def _finite_copy(params: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Copies of fit variables; None where one is not finite, or where they are too large to be summed."""
    if not all(math.isfinite(float(tensor.detach().sum())) for tensor in params.values()):
        return None
    return {name: tensor.detach().clone() for name, tensor in params.items()}


def fit_splats(
    views: ViewSet,
    config: SplatFitConfig,
    generator: torch.Generator,
    *,
    track: Track = silent,
    on_iteration: Callable[[int, float, Parameters], None] | None = None,
    device: torch.device | str = "cpu",
) -> Splats:
    """Fit Gaussians to posed pictures, starting on the views' surface.

    Args:
        views: Pictures, cameras, confidences and surface samples.
        generator: Randomness, on the CPU. The same seed gives the same bytes on the CPU.
        on_iteration: Called after every step with its number, loss and the fit variables.
        device: Where to compute; `cuda` needs gsplat's kernels.

    Returns:
        Splats on the CPU.

    Raises:
        ValueError: no surface points, or no view with a confidence above zero.
        FitNotFinite: a number is not finite any more; it holds the splats as they were before.
    """
    if views.surface.points_world.shape[0] == 0:
        raise ValueError("fit_splats: expected views with surface points to start from, got none")
    params: Parameters = parameters_from_splats(initial_splats(views.surface, config, generator).to(device))
    optimizers = make_optimizers(params, config.learning_rates)
    state = DensifyState.zeros(params["means"].shape[0], device)
    schedule = view_schedule(views.confidence, config.iterations, generator)
    agreement = ViewAgreement(views.confidence, config.robust).to(device)
    agreement.set_cameras(views.cameras)
    silhouettes = Silhouettes(views.rgba, views.cameras)
    lpips = lpips_for_fits(device) if config.losses.lpips_weight > 0 else None
    pictures, good = PremultipliedPictures(), _finite_copy(params)
    if good is None:
        raise ValueError("fit_splats: expected finite surface points to start from")

    for step in track(range(config.iterations), total=float(config.iterations), description="Fitting splats"):
        set_learning_rates(optimizers, config.learning_rates, step / config.iterations)
        view = int(schedule[step])
        background = torch.rand(3, generator=generator).to(device)  # a new colour each time shows every hole
        picture = pictures.get(view, views.rgba[view], config.picture_scale(step)).to(device)
        picture = agreement.corrected(picture, view)
        camera = views.cameras[view].resized(picture.shape[1], picture.shape[0])
        shift_px = agreement.shift_px(view, camera.width)
        rendered, alpha, info = render_while_training(params, camera, background, step, config, shift_px)
        info["means2d"].retain_grad()
        shown = (rendered[0], alpha[0, ..., 0], background, picture, params["scales"])
        loss = view_loss(*shown, view, step, config, agreement, lpips)
        if not math.isfinite(float(loss.detach())):
            raise FitNotFinite("the loss", step, splats_from_parameters(good))
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        accumulate(state, info)
        for optimizer in optimizers.values():
            optimizer.step()
        limit_shapes(params, config.densify)
        if config.densify.is_due(step, config.iterations):
            outside = silhouettes.outside(params["means"], config.densify, agreement.trust)
            state = densify(params, optimizers, state, config.densify, generator, outside=outside)
        if config.robust.is_trust_due(step, config.iterations):
            confidence = views.confidence * agreement.update_trust()
            schedule[step + 1 :] = view_schedule(confidence, config.iterations - step - 1, generator)
        if on_iteration is not None:
            on_iteration(step, float(loss.detach()), params)
        finite = _finite_copy(params)
        if finite is None:
            raise FitNotFinite("a Gaussian", step, splats_from_parameters(good))
        good = finite

    keep_only(params, optimizers, ~silhouettes.outside(params["means"], config.densify, agreement.trust))
    return splats_from_parameters(params)

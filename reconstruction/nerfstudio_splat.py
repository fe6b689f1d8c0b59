"""`dp360-splat`: the loop of `fit_splats`, taken apart into the calls that nerfstudio's trainer makes.

The model is a `SplatfactoModel` in the eyes of the viewer and of `ns-export gaussian-splat`: same variables, same
layout. What it renders with, what it minimises and how it grows are ours, so that it runs with and without a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras import cameras as ns
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.models.splatfacto import SplatfactoModel
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from dp360.generation import Cameras
from dp360.generation.cameras import opencv_from_opengl

from .densify import DensifyState, Silhouettes, accumulate, densify, keep_only, limit_shapes
from .losses import ssim, target_over_background, training_loss
from .nerfstudio_data import CONFIDENCE, SURFACE
from .nerfstudio_viewer import FrontView
from .perceptual import lpips_for_fits
from .premultiplied import PremultipliedPictures, premultiplied_picture
from .robust import ViewAgreement
from .spherical_harmonics import rgb_from_sh0
from .splat_fit import (
    VARIABLES,
    SplatFitConfig,
    initial_splats,
    parameters_from_splats,
    render_parameters,
    render_while_training,
    set_learning_rates,
    splats_from_parameters,
    view_loss,
    view_schedule,
)
from .splats import Splats

_lpips = functools.cache(lpips_for_fits)
_NO_RAYS = (
    "dp360: Gaussian splats are not traced by single rays, which this export wants; use `dp360 export --load-config "
    "CONFIG.YML --output head.glb` for a mesh, head.ply for the Gaussians, or --kind mesh --output head.ply for "
    "coloured points"
)


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam in one kernel per variable: several times faster on a CPU."""

    eps: float = 1e-15
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """None."""
    fused: bool = True
    """Use torch's fused implementation."""


@dataclass
class HeadSplatModelConfig(ModelConfig):
    """Gaussian splats of one head."""

    _target: type = field(default_factory=lambda: HeadSplatModel)
    """Class to instantiate."""
    fit: SplatFitConfig = field(default_factory=SplatFitConfig)
    """How the splats are fitted; its `iterations` follow --max-num-iterations."""

    @property
    def sh_degree(self) -> int:
        """Degree of spherical harmonics, under the name that stock exporters ask for."""
        return self.fit.sh_degree


class HeadSplatModel(SplatfactoModel):
    """Gaussians of one head in nerfstudio's life cycle."""

    config: HeadSplatModelConfig

    def populate_modules(self) -> None:
        """Start on the surface samples of the data set."""
        metadata = self.kwargs["metadata"]
        self.generator = torch.Generator().manual_seed(torch.initial_seed())
        params = parameters_from_splats(initial_splats(metadata[SURFACE], self.config.fit, self.generator))
        params["opacities"] = Parameter(params["opacities"].data[:, None])  # splatfacto's layout: [n, 1]
        self.gauss_params = ParameterDict(params)
        self.view_confidence: Float[Tensor, " n"] = metadata[CONFIDENCE]
        self.agreement = ViewAgreement(self.view_confidence, self.config.fit.robust)
        self.schedule = view_schedule(self.view_confidence, self.config.fit.iterations, self.generator)
        self.densify_state = DensifyState.zeros(self.num_points)
        self.background_color = torch.ones(3)
        self.crop_box: OrientedBox | None = None
        self.front_view = FrontView()
        self.info: dict[str, Any] = {}
        self.pictures = PremultipliedPictures()
        self.step = 0

    def forward(self, ray_bundle: Any) -> dict[str, Any]:
        """A picture from a camera; stock tools that follow single rays are told what to use instead.

        Raises:
            SystemExit: rays in place of a camera, as `ns-export pointcloud` and `poisson` give them.
        """
        if isinstance(ray_bundle, RayBundle):
            raise SystemExit(_NO_RAYS)
        return super().forward(ray_bundle)

    def get_outputs_for_camera_ray_bundle(self, camera_ray_bundle: Any) -> dict[str, Any]:
        """Not for splats.

        Raises:
            SystemExit: always; `ns-export tsdf` asks for this.
        """
        del camera_ray_bundle
        raise SystemExit(_NO_RAYS)

    @property
    def splats(self) -> Splats:
        """What has been learned so far, on the CPU."""
        return splats_from_parameters(dict(self.gauss_params.items()))

    @property
    def colors(self) -> Float[Tensor, "n 3"]:
        """Colours seen from everywhere, in [0, 1] where the fit went well."""
        return rgb_from_sh0(self.features_dc)

    @property
    def shs_0(self) -> Float[Tensor, "n 3"]:
        """Constant harmonic coefficients, whatever the degree."""
        return self.features_dc

    def load_state_dict(self, dict: Mapping[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """Load variables of any count. The parameters stay the same objects, so optimizers keep their hold on them."""
        for name, parameter in self.gauss_params.items():
            loaded = dict[f"gauss_params.{name}"]
            parameter.data = torch.empty(loaded.shape, dtype=parameter.dtype, device=parameter.device)
        dict = {**self.agreement.state_dict(prefix="agreement."), "_extra_state": {}, **dict}  # of earlier versions
        return torch.nn.Module.load_state_dict(self, dict, **kwargs)

    def get_extra_state(self) -> dict[str, Tensor]:
        """What a fit that goes on needs beside its variables: randomness, the views to come, running sums."""
        return {
            "generator": self.generator.get_state(),
            "schedule": self.schedule,
            "gradient_sum": self.densify_state.gradient_sum,
            "seen_count": self.densify_state.seen_count,
        }

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `get_extra_state` gave; the views to come are drawn anew where the number of steps differs."""
        if state:
            self.generator.set_state(state["generator"].cpu())
            self.densify_state = DensifyState(state["gradient_sum"].clone(), state["seen_count"].clone())
            if len(state["schedule"]) == len(self.schedule):
                self.schedule = state["schedule"].cpu()

    def update_to_step(self, step: int) -> None:
        """Continue at `step`; called when a checkpoint is loaded."""
        self.step = step

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """One group per fit variable."""
        return {name: [self.gauss_params[name]] for name in VARIABLES}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """What `fit_splats` does around each gradient step; views are drawn in proportion to their confidence."""
        pipeline, optimizers = training_callback_attributes.pipeline, training_callback_attributes.optimizers
        assert pipeline is not None and optimizers is not None
        fit = self.config.fit
        datamanager: Any = pipeline.datamanager
        datamanager.view_schedule = self.schedule
        state = self.densify_state
        self.densify_state = DensifyState(state.gradient_sum.to(self.device), state.seen_count.to(self.device))
        cameras = cameras_from_nerfstudio(datamanager.train_dataset.cameras)
        self.agreement.set_cameras(cameras)
        silhouettes = Silhouettes((data["image"] for data in datamanager.cached_train), cameras)

        def outside() -> Bool[Tensor, " n"]:
            return silhouettes.outside(self.means, fit.densify, self.agreement.trust)

        def before(step: int) -> None:
            self.step = step
            set_learning_rates(optimizers.optimizers, fit.learning_rates, min(1.0, step / fit.iterations))

        def after(step: int) -> None:
            accumulate(self.densify_state, self.info)
            params = {name: self.gauss_params[name] for name in VARIABLES}
            limit_shapes(params, fit.densify)
            if fit.densify.is_due(step, fit.iterations):
                self.densify_state = densify(
                    params, optimizers.optimizers, self.densify_state, fit.densify, self.generator, outside=outside()
                )
            if step == fit.iterations - 1:
                keep_only(params, optimizers.optimizers, ~outside())
                self.densify_state = DensifyState.zeros(len(params["means"]), self.device)
            for name, parameter in params.items():
                self.gauss_params[name] = parameter
            if fit.robust.is_trust_due(step, fit.iterations):
                confidence = self.view_confidence * self.agreement.update_trust()
                self.schedule[step + 1 :] = view_schedule(confidence, fit.iterations - step - 1, self.generator)

        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], before),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], after),
        ]

    def get_outputs(self, camera: ns.Cameras) -> dict[str, Any]:  # type: ignore[override]
        """Render one camera: smaller pictures and a changing background while training, depth otherwise."""
        fit, cameras = self.config.fit, cameras_from_nerfstudio(camera)
        if not self.training:
            return self._outputs_for_people(cameras)
        scale = fit.picture_scale(self.step)
        cameras = cameras.resized(max(1, round(cameras.width * scale)), max(1, round(cameras.height * scale)))
        background = torch.rand(3, generator=self.generator).to(self.device)
        view = int((camera.metadata or {}).get("cam_idx", -1))
        shift_px = self.agreement.shift_px(view, cameras.width) if view >= 0 else None
        params = dict(self.gauss_params.items())
        rgb, alpha, self.info = render_while_training(params, cameras, background, self.step, fit, shift_px)
        if self.info["means2d"].requires_grad:
            self.info["means2d"].retain_grad()
        return {"rgb": rgb[0], "accumulation": alpha[0], "background": background}

    def _outputs_for_people(self, cameras: Cameras) -> dict[str, Any]:
        """Colour over the chosen background, accumulation and depth, of what lies inside the crop box."""
        params = {name: self.gauss_params[name].detach() for name in VARIABLES}
        background = self.background_color.to(self.device)
        if self.crop_box is not None:
            inside = self.crop_box.within(params["means"]).flatten()
            params = {name: value[inside] for name, value in params.items()}
        size = (cameras.height, cameras.width)
        if len(params["means"]) == 0:
            return self.get_empty_outputs(size[1], size[0], background)
        renders, alphas, _ = render_parameters(
            params,
            cameras,
            sh_degree=self.config.fit.active_sh_degree(self.step),
            rasterize_mode=self.config.fit.rasterize_mode,
            render_mode="RGB+ED",
        )
        alpha, depth = alphas[0], renders[0, ..., 3:]
        return {
            "rgb": (renders[0, ..., :3] + (1 - alpha) * background).clamp(0, 1),
            "depth": torch.where(alpha > 0, depth, depth.max()),
            "accumulation": alpha,
            "background": background.expand(*size, 3),
        }

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Float[Tensor, "h w 4"]:
        """Straight colour and alpha, the background taken out again."""
        alpha = outputs["accumulation"]
        colour = (outputs[output_name] - (1 - alpha) * outputs["background"]) / alpha.clamp_min(1e-6)
        return torch.cat([colour.clamp(0, 1), alpha], dim=-1)

    def _picture(self, outputs: dict[str, Any], batch: dict[str, Any]) -> Float[Tensor, "h w 4"]:
        """The view's premultiplied picture at the size of the render, as the fit corrects it."""
        if "picture" not in outputs:
            view, image = int(batch["image_idx"]), batch["image"].to(self.device)
            if self.training:
                picture = self.pictures.get(view, image, self.config.fit.picture_scale(self.step))
                outputs["picture"] = self.agreement.corrected(picture, view)
            else:
                outputs["picture"] = premultiplied_picture(image, tuple(outputs["rgb"].shape[:2]))
        return outputs["picture"]

    def _truth(self, outputs: dict[str, Any], batch: dict[str, Any]) -> Float[Tensor, "h w 3"]:
        """The view's picture over the background of the render."""
        return target_over_background(self._picture(outputs, batch), outputs["background"])[0]

    @torch.no_grad()
    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        """PSNR of the view and the number of Gaussians."""
        return {"psnr": _psnr(outputs["rgb"], self._truth(outputs, batch)), "gaussian_count": self.num_points}

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """The loss of `fit_splats`."""
        picture, background = self._picture(outputs, batch), outputs["background"]
        rgb, alpha = outputs["rgb"], outputs["accumulation"].squeeze(-1)
        if not self.training:
            target = target_over_background(picture, background)
            return {"main_loss": training_loss(rgb, alpha, *target, self.scales, self.config.fit.losses)}
        shown, view = (rgb, alpha, background, picture, self.scales), int(batch["image_idx"])
        loss = view_loss(*shown, view, self.step, self.config.fit, self.agreement, _lpips(self.device))
        return {"main_loss": loss}

    @torch.no_grad()
    def get_image_metrics_and_images(
        self, outputs: dict[str, Any], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR and SSIM of one picture, and the pictures side by side: truth, render."""
        truth = self._truth(outputs, batch)
        metrics = {"psnr": float(_psnr(outputs["rgb"], truth)), "ssim": float(ssim(outputs["rgb"], truth))}
        return metrics, {"img": torch.cat([truth, outputs["rgb"]], dim=1)}


def cameras_from_nerfstudio(camera: ns.Cameras) -> Cameras:
    """nerfstudio's cameras (OpenGL axes, float32) as ours; one picture size per batch."""
    flat = camera.reshape((-1,))
    T_world_camera = torch.eye(4, dtype=torch.float64).repeat(len(flat), 1, 1)
    T_world_camera[:, :3] = flat.camera_to_worlds.detach().cpu().double()
    return Cameras(
        opencv_from_opengl(T_world_camera),
        torch.cat([flat.fx, flat.fy], dim=-1).cpu().double(),
        torch.cat([flat.cx, flat.cy], dim=-1).cpu().double(),
        int(flat.width[0]),
        int(flat.height[0]),
    )


def _psnr(picture: Tensor, truth: Tensor) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio of pictures in [0, 1], decibels."""
    return -10 * (picture - truth).square().mean().clamp_min(1e-10).log10()

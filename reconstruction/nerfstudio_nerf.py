"""`dp360-nerf`: nerfacto's field, bounded to the head and taught by the alpha; runs without a GPU and offline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from unittest.mock import patch

import torch
from jaxtyping import Float
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras as NerfstudioCameras
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.model_components.losses import interlevel_loss
from nerfstudio.model_components.scene_colliders import AABBBoxCollider
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from torch import Tensor

from dp360.generation import Cameras, InputError
from dp360.generation.cameras import opengl_from_opencv

from .hash_encoding_cpu import use_cpu_kernels
from .losses import ssim
from .nerfstudio_data import CONFIDENCE
from .nerfstudio_viewer import FrontView
from .splat_scene import Renders


@dataclass
class HeadNerfModelConfig(NerfactoModelConfig):
    """nerfacto's settings with values for one bounded head; without a GPU about 0.25 s per step on two cores."""

    _target: type = field(default_factory=lambda: HeadNerfModel)
    """Class to instantiate."""
    background_color: Literal["random", "last_sample", "black", "white"] = "random"
    """Background while training; a random one makes emptiness cost something."""
    implementation: Literal["tcnn", "torch"] = "torch"
    """`tcnn` is faster where tiny-cuda-nn is installed."""
    disable_scene_contraction: bool = True
    """The head is bounded: nothing outside the scene box exists."""
    proposal_initial_sampler: Literal["piecewise", "uniform"] = "uniform"
    """Uniform: between entering and leaving the box."""
    use_appearance_embedding: bool = False
    """All views are of one light."""
    camera_optimizer: CameraOptimizerConfig = field(default_factory=lambda: CameraOptimizerConfig(mode="off"))
    """Our poses are exact."""
    average_init_density: float = 0.01
    """Start almost empty."""
    num_levels: int = 8
    """Levels of the hash grid."""
    max_res: int = 512
    """Finest resolution of the hash grid along a side of the box."""
    log2_hashmap_size: int = 16
    """Size of the hash table."""
    num_proposal_samples_per_ray: tuple[int, ...] = (48, 24)
    """Samples of the proposal networks; rays are short."""
    num_nerf_samples_per_ray: int = 16
    """Samples of the field."""
    proposal_net_args_list: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"hidden_dim": 16, "log2_hashmap_size": 14, "num_levels": 4, "max_res": 64, "use_linear": False},
            {"hidden_dim": 16, "log2_hashmap_size": 14, "num_levels": 4, "max_res": 128, "use_linear": False},
        ]
    )
    """Arguments of the two proposal networks."""
    proposal_warmup: int = 500
    """Steps over which the proposal networks come to be updated less often."""
    proposal_weights_anneal_max_num_iters: int = 300
    """Steps over which the proposals sharpen."""
    alpha_loss_weight: float = 1.0
    """Weight of the squared error between accumulation and alpha."""


class HeadNerfModel(NerfactoModel):
    """A radiance field of one head."""

    config: HeadNerfModelConfig
    view_confidence: Float[Tensor, " n"]

    def populate_modules(self) -> None:
        """nerfacto's parts, without its downloaded metric and with rays that end at the box."""
        with patch("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", lambda **_: None):
            super().populate_modules()
        use_cpu_kernels(self)
        self.collider = AABBBoxCollider(self.scene_box)
        confidence = self.kwargs.get("metadata", {}).get(CONFIDENCE, torch.ones(self.num_train_data))
        self.register_buffer("view_confidence", confidence.clone(), persistent=False)
        self.front_view = FrontView()

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Colour over the background (before it while training on a random one), accumulation and depths of rays."""
        samples, weights_list, samples_list = self.proposal_sampler(ray_bundle, density_fns=self.density_fns)
        fields = self.field.forward(samples)
        weights = samples.get_weights(fields[FieldHeadNames.DENSITY])
        outputs: dict[str, Any] = {
            "rgb": self.renderer_rgb(rgb=fields[FieldHeadNames.RGB], weights=weights),
            "accumulation": self.renderer_accumulation(weights=weights),
            "expected_depth": self.renderer_expected_depth(weights=weights, ray_samples=samples),
        }
        with torch.no_grad():
            outputs["depth"] = self.renderer_depth(weights=weights, ray_samples=samples)
        if self.training:
            outputs["weights_list"] = [*weights_list, weights]
            outputs["ray_samples_list"] = [*samples_list, samples]
        return outputs

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Squared errors of colour and alpha, weighed by the confidence of each ray's view, and nerfacto's two."""
        truth = batch["image"].to(self.device)
        weight = torch.ones(truth.shape[:-1], device=self.device)
        if self.training and "indices" in batch:
            weight = self.view_confidence[batch["indices"][..., 0].to(self.device)]
        weight = (weight / weight.mean().clamp_min(1e-6))[..., None]
        predicted, wanted = self.renderer_rgb.blend_background_for_loss_computation(
            pred_image=outputs["rgb"], pred_accumulation=outputs["accumulation"], gt_image=truth
        )
        losses = {"rgb_loss": (weight * (predicted - wanted).square()).mean()}
        if truth.shape[-1] == 4:
            alpha_error = (outputs["accumulation"] - truth[..., 3:]).square()
            losses["alpha_loss"] = self.config.alpha_loss_weight * (weight * alpha_error).mean()
        if self.training:
            assert metrics_dict is not None
            losses["interlevel_loss"] = self.config.interlevel_loss_mult * interlevel_loss(
                outputs["weights_list"], outputs["ray_samples_list"]
            )
            losses["distortion_loss"] = self.config.distortion_loss_mult * metrics_dict["distortion"]
        return losses

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR and SSIM of one picture over black, and the pictures side by side: truth, render."""
        truth = self.renderer_rgb.blend_background(batch["image"].to(self.device))
        predicted = outputs["rgb"].to(self.device)
        metrics = {"psnr": float(self.psnr(predicted, truth)), "ssim": float(ssim(predicted, truth))}
        return metrics, {"img": torch.cat([truth, predicted], dim=1)}


@dataclass(frozen=True)
class NerfScene:
    """A trained head; its frame is the world's, since our data sets are read as they are."""

    model: HeadNerfModel
    """The model of a run of dp360-nerf."""

    @torch.no_grad()
    def render(self, cameras: Cameras) -> Renders:
        """Pictures of the field, one camera after another.

        Depth is the median along each ray (where the light that came through falls below a half), turned from the
        distance along the ray into depth along the axis.

        Raises:
            InputError: the field gives numbers that are not finite.
        """
        was_training = self.model.training
        self.model.eval()
        try:
            pictures = [self._one(camera) for camera in cameras]
        finally:
            self.model.train(was_training)
        rgb, alpha, depth = (torch.stack(channel) for channel in zip(*pictures))
        return Renders(rgb, alpha, depth)

    def _one(self, camera: Cameras) -> tuple[Float[Tensor, "h w 3"], Float[Tensor, "h w"], Float[Tensor, "h w"]]:
        """Premultiplied colour, alpha and depth of one camera."""
        theirs = NerfstudioCameras(
            camera_to_worlds=opengl_from_opencv(camera.T_world_camera)[:, :3].float(),
            fx=camera.focal_px[:, :1].float(),
            fy=camera.focal_px[:, 1:].float(),
            cx=camera.principal_px[:, :1].float(),
            cy=camera.principal_px[:, 1:].float(),
            width=camera.width,
            height=camera.height,
            camera_type=CameraType.PERSPECTIVE,
        ).to(self.model.device)
        rays = theirs.generate_rays(camera_indices=0, keep_shape=True)
        black = self.model.renderer_rgb.background_color
        self.model.renderer_rgb.background_color = "black"
        try:
            outputs = self.model.get_outputs_for_camera_ray_bundle(rays)
        finally:
            self.model.renderer_rgb.background_color = black
        rgb, alpha, distance = (outputs[key].float().cpu() for key in ("rgb", "accumulation", "depth"))
        alpha, distance = alpha[..., 0], distance[..., 0]
        if not bool(torch.isfinite(rgb).all() and torch.isfinite(alpha).all() and torch.isfinite(distance).all()):
            raise InputError("Cannot render the radiance field: it gives numbers that are not finite; train it again")
        rows, columns = torch.meshgrid(
            torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij"
        )
        slope_x = (columns - camera.principal_px[0, 0]) / camera.focal_px[0, 0]
        slope_y = (rows - camera.principal_px[0, 1]) / camera.focal_px[0, 1]
        depth = distance / (1 + slope_x.square() + slope_y.square()).sqrt()
        return rgb.clamp(0, 1), alpha.clamp(0, 1), depth.float()

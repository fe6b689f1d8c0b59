"""What a mesh or a preview is made of: anything that renders colour, alpha and the depth of its front; splats do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dp360.generation import Cameras, InputError

from .splats import Splats, draw_splats

_BEHIND = 0.03
"""World units (about 2 cm) behind the expected depth from which a Gaussian is part of another surface."""
_UNSEEN_LOGIT = -50.0
"""Of an opacity that no picture shows."""


@dataclass(frozen=True)
class Renders:
    """Pictures of a scene, float32 on the CPU."""

    rgb_premultiplied: Float[Tensor, "n h w 3"]
    """Colour times alpha, that is over black, [0, 1]."""
    alpha: Float[Tensor, "n h w"]
    """Opacity, [0, 1]."""
    depth: Float[Tensor, "n h w"]
    """Depth of the first surface along the camera's axis, world units; of no meaning where alpha is 0."""


@runtime_checkable
class Renderable(Protocol):
    """A scene in the world frame of `generation.cameras`."""

    def render(self, cameras: Cameras) -> Renders:
        """The scene as the cameras see it."""
        ...


@dataclass(frozen=True)
class SplatScene:
    """Gaussian splats as a `Renderable`."""

    splats: Splats
    """Gaussians in world units, on any device."""

    def __post_init__(self) -> None:
        if not len(self.splats):
            raise InputError("Cannot draw the head: expected splats, got none; choose a file that holds a head")

    @torch.no_grad()
    def render(self, cameras: Cameras) -> Renders:
        """Pictures of the Gaussians, one camera after another."""
        logits, pictures, alphas, depths = self.splats.opacity_logits, [], [], []
        for camera in cameras:
            picture, alpha, means_px = _drawn(self.splats, camera)
            in_front = self._in_front(picture[..., 3], alpha, means_px, camera).to(logits.device)
            front = replace(self.splats, opacity_logits=torch.where(in_front, logits, _UNSEEN_LOGIT))
            front, front_alpha, _ = _drawn(front, camera)
            pictures.append(picture[..., :3])
            alphas.append(alpha)
            depths.append(torch.where(front_alpha > 0.25, front[..., 3], picture[..., 3]))
        return Renders(torch.stack(pictures).clamp(0, 1), torch.stack(alphas).clamp(0, 1), torch.stack(depths))

    def _in_front(
        self,
        depth: Float[Tensor, "h w"],
        alpha: Float[Tensor, "h w"],
        means_px: Float[Tensor, "n 2"],
        camera: Cameras,
    ) -> Bool[Tensor, " n"]:
        """Gaussians that are not clearly behind what the camera sees around them.

        A head of splats is a hollow shell. The few per cent of light that come through its front from the back of the
        head, a foot behind, pull the expected depth inwards by centimetres, so depth is drawn without the back.
        """
        deepest = torch.from_numpy(cv2.dilate((depth * (alpha > 0.5)).numpy(), np.ones((7, 7), np.uint8)))
        column, row = means_px.long().unbind(1)
        column, row = column.clamp(0, camera.width - 1), row.clamp(0, camera.height - 1)
        limit = deepest[row, column]
        to_camera = camera.T_camera_world[0, 2].float()
        return (limit == 0) | (self.splats.means_world.cpu() @ to_camera[:3] + to_camera[3] < limit + _BEHIND)


def _drawn(
    splats: Splats, camera: Cameras
) -> tuple[Float[Tensor, "h w 4"], Float[Tensor, "h w"], Float[Tensor, "n 2"]]:
    """Colour with expected depth, alpha, and the Gaussians' middles in pixels, on the CPU, of one camera."""
    picture, alpha, info = draw_splats(splats, camera, render_mode="RGB+ED")
    return picture[0].float().cpu(), alpha[0, ..., 0].float().cpu(), info["means2d"][0].float().cpu()

"""The view generators `prior` and `field`: renders of the geometric prior. Fast, consistent, plain."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..cameras import Cameras
from ..portrait import Portrait
from ..progress import Track, silent
from ..view_generator import provenance_of, views_with_portrait
from ..views import ViewSet
from .head_prior import HeadPrior, PriorRender


@dataclass(frozen=True)
class PriorGenerator:
    """Renders the prior from every camera. Implements `generation.view_generator.ViewGenerator`."""

    supersample: int = 2
    """Samples per pixel along each axis."""
    surface_points: int = 40_000
    """Surface samples that start a splat fit."""

    name: str = "prior"
    """Name on the command line and in provenance: `field` where the prior that it is given has a drawn field."""

    def generate(
        self,
        portrait: Portrait,
        prior: HeadPrior,
        cameras: Cameras,
        generator: torch.Generator,
        *,
        track: Track = silent,
    ) -> ViewSet:
        seed = generator.initial_seed()
        pictures, shown = [], []
        renders = prior.renders(cameras, self.supersample)
        with ThreadPoolExecutor(1) as beside:
            sampled = beside.submit(prior.surface_samples, self.surface_points, generator)
            for view in track(renders, total=len(cameras), description="Rendering views"):
                pictures.append(rendered_rgba(view))
                covered = view.alpha.sum((1, 2)).clip(min=1.0)
                shown.append((view.validity * view.alpha).sum((1, 2)) / covered)
            surface = sampled.result()
        confidence = torch.from_numpy(0.3 + 0.5 * np.concatenate(shown)).float()
        settings = {**asdict(self), **prior.look_settings}
        origin = provenance_of(self.name, prior.weights_name, seed, portrait.source_sha256, settings)
        if prior.looks_as_portrait:
            first = portrait_rgba(portrait, cameras.width)
        else:
            camera = portrait.head.camera.resized(cameras.width, cameras.height)
            first = rendered_rgba(prior.render(camera, supersample=self.supersample))[0]
        return views_with_portrait(
            first, portrait.head.camera, torch.cat(pictures), cameras, confidence, surface, origin
        )


def rendered_rgba(rendered: PriorRender) -> UInt8[Tensor, "n h w 4"]:
    """Straight colour and alpha of renders."""
    return _bytes(np.concatenate([rendered.rgb, rendered.alpha[..., None]], axis=-1))


def portrait_rgba(portrait: Portrait, size_px: int) -> UInt8[Tensor, "s s 4"]:
    """The cut-out portrait, straight colour and alpha, resized to a square of `size_px`."""
    import cv2

    rgba = np.concatenate([portrait.foreground_unit, portrait.alpha_unit[..., None]], axis=-1).astype(np.float32)
    if size_px != rgba.shape[0]:
        shrink = size_px < rgba.shape[0]
        rgba = cv2.resize(rgba, (size_px, size_px), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return _bytes(rgba)


def _bytes(rgba: Float[np.ndarray, "*n h w 4"]) -> UInt8[Tensor, "*n h w 4"]:
    return torch.from_numpy((np.clip(rgba, 0.0, 1.0) * 255 + 0.5).astype(np.uint8))

"""Composed heads through the real pipeline: a portrait, the prior fitted to it, the true views in the prior's frame.

The synthetic portrait is found, fitted, cropped, cut out, labelled and painted by the very code that a user's picture
goes through, so that all its errors are the true ones. The fitted camera and the true one look at the same picture;
the true head is carried into the fitted frame by the rotation between them, and by the scale and shift under which
the inner face's landmarks agree.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from ..cameras import Cameras
from ..head_model import FACE_OVAL_LANDMARKS, HeadFit, fit_landmarks, load_head_model
from ..portrait import Portrait
from ..portrait.face_detection import FaceNetworks, find_faces
from ..portrait.matte import WINDOW_SIZES, estimate_matte, head_zones, person_maps
from ..portrait.person_networks import PersonNetworks
from ..portrait.portrait import WIDE_FACTOR, fit_in_crop
from ..portrait.resample import CropFrame
from ..prior import HeadPrior, build_head_prior
from ..similarity import Similarity
from .assets import Split, asset_index, field_rng, sub_seed
from .compose import compose
from .composed_recipe import ComposedRecipe, sample_recipe
from .parts import FACE_LABELS, SyntheticHead
from .portraits.backgrounds import Backgrounds
from .portraits.portrait_shots import (
    HEAD_LABELS,
    MOST_CUT,
    PortraitLook,
    PortraitSample,
    finish_shot,
    portrait_camera,
    shoot,
)
from .portraits.stylise import draw_views
from .rendering.lighting import Lighting, random_lighting
from .rendering.renderer import HeadScene, HeadViews

SIZE_PX = 512
"""Side of the aligned crop."""
PHOTOGRAPHS = PortraitLook(
    other_frame=1.0, mirrored=0.0, suited=0.0, recoloured=0.0, painted=0.0, drawn=0.0, random_convolution=0.0,
    shaded=0.0, cut=0.1, colour_faults=0.3,
)  # fmt: skip
"""Pictures whose colours are those of the true views but for a camera's faults, with air round the head."""
_MOST_MISFIT = 0.015
"""Fits whose landmarks are off by more than this share of the picture (median) are left out."""
_LEAST_LANDMARKS = 100


@dataclass(frozen=True)
class FittedComposedHead:
    """A composed head, its portrait, and where it lies in the frame of the fit."""

    head: SyntheticHead
    """The head."""
    scene: HeadScene
    """It ready to be drawn."""
    lighting: Lighting
    """The light of the portrait, which stays with the head."""
    portrait: Portrait
    """The portrait, prepared."""
    fit_from_true: Similarity
    """Carries the composed head into the fitted frame."""

    def prior(self, *, seed: int = 0) -> HeadPrior:
        """The prior of the portrait."""
        return build_head_prior(self.portrait, seed=seed)

    def true_views(self, cameras: Cameras, *, supersample: int = 2, lighting: Lighting | None = None) -> HeadViews:
        """What cameras of the fitted frame truly see; lengths are those of the fit.

        Args:
            supersample: samples per pixel along each axis: 1, 2, 4 or 8.
            lighting: None is the portrait's.
        """
        poses = self.fit_from_true.inverse().moved_poses(cameras.T_world_camera.numpy())
        moved = replace(cameras, T_world_camera=torch.from_numpy(poses))
        views = draw_views(self.scene, self.head.style, moved, lighting or self.lighting, supersample=supersample)
        normals = (views.normals_world @ self.fit_from_true.R.T.astype(np.float32)).astype(np.float32)
        depth = (views.depth * np.float32(self.fit_from_true.scale)).astype(np.float32)
        return HeadViews(views.rgb_linear, views.alpha_unit, depth, normals, views.labels)


def fitted_head(
    head: SyntheticHead, backgrounds: Backgrounds, seed: int, faces: FaceNetworks, people: PersonNetworks,
    look: PortraitLook = PHOTOGRAPHS, lighting: Lighting | None = None,
) -> FittedComposedHead | None:  # fmt: skip
    """A synthetic portrait of a composed head, prepared as a user's picture is.

    Args:
        seed: seed of camera, light, background and look; the same seed gives the same bytes.
        look: how the picture looks; a mirrored or recoloured one would contradict the true views.
        lighting: of the portrait; None is a random one.

    Returns:
        None where no face is found, or where the fit does not agree with it.
    """
    scene = HeadScene(head)
    rng = field_rng(seed, "shot")
    camera = portrait_camera(rng, round(1.375 * SIZE_PX))
    lighting = lighting or random_lighting(rng, backgrounds.panoramas)
    shot = shoot(scene, head.style, camera, lighting)
    sample = finish_shot(shot, camera, backgrounds, field_rng(seed, "finish"), round(1.125 * SIZE_PX), look)
    found = find_faces(sample.rgb, faces)
    if not found:
        return None
    picture_px, model = len(sample.rgb), load_head_model()
    fit = fit_landmarks(model, found[0].landmarks_px, picture_px, picture_px)
    wide = _reaches_over(sample, CropFrame.of(fit, 1.0, SIZE_PX))
    factor = WIDE_FACTOR if wide else 1.0
    crop = CropFrame.of(fit, factor, SIZE_PX)
    crop, fit, landmarks_px = fit_in_crop(sample.rgb, found[0], crop, factor, model, faces)
    if np.median(fit.residual_px) > _MOST_MISFIT * picture_px:
        return None
    fit = crop.head(fit)
    to_fit = _fit_from_true(scene, head.style, crop.camera(sample.camera), landmarks_px, fit)
    if to_fit is None:
        return None
    rgb = crop.part(sample.rgb, sharp=True)
    inside = crop.inside(sample.rgb) & (crop.part((255 * sample.inside).astype(np.uint8)) > 254)
    maps = person_maps(sample.rgb, crop, tuple(w * crop.side_px / factor for w in WINDOW_SIZES), people)
    matte = estimate_matte(rgb, inside, head_zones(fit, model), maps)
    portrait = Portrait(
        rgb, matte.alpha_unit, matte.foreground_unit, inside, landmarks_px, fit, "wide" if wide else "standard",
        head.name, hashlib.sha256(sample.rgb.tobytes()).hexdigest(), matte.notices,
    )  # fmt: skip
    return FittedComposedHead(head, scene, lighting, portrait, to_fit)


class Studio(NamedTuple):
    """What portraits of all heads share."""

    backgrounds: Backgrounds
    """Behind the heads."""
    faces: FaceNetworks
    """Finds faces."""
    people: PersonNetworks
    """Cuts people out."""

    @classmethod
    def of_split(cls, data: Path, split: Split) -> Studio:
        """That of a split of the head assets."""
        return cls(Backgrounds.of_split(data, split), FaceNetworks(), PersonNetworks())


def _reaches_over(sample: PortraitSample, frame: CropFrame) -> bool:
    """Whether the standard frame cuts hair or hat: then the wide one is taken."""
    (x, y), half, size = frame.center_px, frame.side_px / 2, len(sample.labels)
    tall = np.isin(sample.labels, HEAD_LABELS)
    rows, columns = np.mgrid[:size, :size] + 0.5
    edge = (np.abs(rows - (y - half)) < 1) & (np.abs(columns - x) < half)
    edge |= (np.abs(np.abs(columns - x) - half) < 1) & (rows > y - half) & (rows < y + 0.44 * half)
    return float((tall & edge).sum()) / 2 > MOST_CUT * frame.side_px


def _fit_from_true(
    scene: HeadScene, style: str, camera: Cameras, landmarks_px: Float[np.ndarray, "478 3"], fit: HeadFit,
) -> Similarity | None:  # fmt: skip
    """The map under which the fitted camera sees the composed head as the true camera does; None without a face."""
    small = camera.resized(256, 256)
    views = draw_views(scene, style, small, supersample=1)
    uv = landmarks_px[:, :2] * (256 / camera.width)
    column, row = np.clip(uv.T.astype(np.int64), 0, 255)
    depth = views.depth[0, row, column].astype(np.float64)
    used = np.isin(views.labels[0, row, column], FACE_LABELS) & np.isfinite(depth) & (np.arange(len(uv)) < 468)
    used[FACE_OVAL_LANDMARKS] = False
    if used.sum() < _LEAST_LANDMARKS:
        return None
    rays = (uv - small.principal_px[0].numpy()) / small.focal_px[0].numpy()
    a = np.concatenate([rays, np.ones((len(uv), 1))], axis=1)[used] * depth[used, None]
    T_camera_fit = fit.camera.T_camera_world[0].numpy()
    b = (fit.detected_landmarks_world(load_head_model()) @ T_camera_fit[:3, :3].T + T_camera_fit[:3, 3])[used]
    keep = np.ones(len(a), bool)
    scale, shift = 1.0, np.zeros(3)
    for _ in range(3):
        flat_a, flat_b = (p[keep, :2] - p[keep, :2].mean(0) for p in (a, b))
        scale = float((flat_a * flat_b).sum() / (flat_a**2).sum())
        shift = (b[keep] - scale * a[keep]).mean(0)
        error = np.linalg.norm(scale * a + shift - b, axis=1)
        keep = error < max(0.008, 2.5 * float(np.median(error[keep])))
    R_fit_camera = T_camera_fit[:3, :3].T
    T_camera_true = camera.T_camera_world[0].numpy()
    R = R_fit_camera @ T_camera_true[:3, :3]
    return Similarity(scale, R, R_fit_camera @ (scale * T_camera_true[:3, 3] + shift - T_camera_fit[:3, 3]))


@dataclass(frozen=True)
class NumberedHead:
    """A composed head that was photographed and fitted."""

    name: str
    """Split and number."""
    recipe: ComposedRecipe
    """What it was composed from."""
    fitted: FittedComposedHead
    """The head with its portrait."""
    seed: int
    """Of its cameras, surface samples and prior, 31 bits."""


class NumberedHeads:
    """Makes heads from the head assets; what all of them share is loaded once, when the first is asked for."""

    def __init__(self, data: Path, split: Split, seed: int) -> None:
        """Load nothing yet.

        Args:
            seed: of portraits and cameras; shapes follow from the number alone.
        """
        self.data, self.seed = data, seed
        self.split: Split = split

    def name(self, number: int) -> str:
        """Name of a head; data sets have it as their folder's."""
        return f"{self.split}_{number:06d}"

    def make(self, number: int) -> NumberedHead | None:
        """Compose, photograph and fit one head; None where no face is found in its portrait.

        Raises:
            InputError: the assets are damaged.
        """
        backgrounds, faces, people = self._studio
        recipe = sample_recipe(number, asset_index(), self.split)
        seed = sub_seed(self.seed, f"{self.split}/{number}")
        head = compose(recipe, self.data)
        fitted = fitted_head(head, backgrounds, seed, faces, people)
        return None if fitted is None else NumberedHead(self.name(number), recipe, fitted, seed % 2**31)

    @cached_property
    def _studio(self) -> Studio:
        return Studio.of_split(self.data, self.split)

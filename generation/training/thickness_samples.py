"""Training samples of the hair thickness network: portraits of composed heads with the real landmark fit, and truth.

A sample is what the prior has when it fits the shell (the portrait's label map, the fitted camera, the fitted skull)
and what it should find (the true hair around that skull). The face is detected and fitted in the rendered portrait by
the very code that the prior uses, so that the errors are the true ones.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16, Float32, Int, UInt8

from ..cameras import Cameras
from ..head_model import HeadModel, fit_landmarks, load_head_model
from ..head_model.model import PART_CRANIUM_NECK, PART_FACE
from ..portrait.face_detection import FaceNetworks, find_faces
from ..prior import capsule
from ..progress import Track, silent
from ..synthetic.assets import Split, field_rng
from ..synthetic.compose import SyntheticHead
from ..synthetic.hair.hair_truth import hair_truth, map_to_fit
from ..synthetic.parts import Label
from ..synthetic.portraits.portrait_shots import portrait_camera, torso_bottom
from ..synthetic.rendering.lighting import sky_directions
from ..synthetic.rendering.renderer import HeadScene
from .head_samples import HeadSamplesConfig, Sample, camera_fields, head_samples, square_camera

MOST_MISFIT = 0.015
"""Fits whose landmarks are off by more than this share of the picture (median) are left out."""


HAIR_SAMPLES = HeadSamplesConfig(heads=800, samples_per_head=2, size_px=352)
"""The training set; portraits show `portrait_shots.SHOT_FACTOR` times the standard frame."""


@dataclass(frozen=True)
class HairSamples:
    """All samples of a split."""

    labels: UInt8[np.ndarray, "n s s"]
    """`parts.Label` of the portrait."""
    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Poses of the fitted cameras."""
    focal_px: Float[np.ndarray, " n"]
    """Their focal lengths."""
    principal_px: Float[np.ndarray, "n 2"]
    """Their principal points."""
    skull_radius: Float16[np.ndarray, "n rows columns"]
    """Opened skull of the fitted head."""
    hair_radius: Float16[np.ndarray, "n rows columns"]
    """True radius of the hair laid over the fitted head; 0 without hair."""
    presence: UInt8[np.ndarray, "n rows columns"]
    """Share of each cell that is hair or headgear, 255 is all."""
    cloth: UInt8[np.ndarray, "n rows columns"]
    """Share of each cell that is cloth."""
    head: Int[np.ndarray, " n"]
    """Number of the head."""

    def __len__(self) -> int:
        return len(self.labels)

    def camera(self, index: int) -> Cameras:
        """The fitted camera of one portrait."""
        return square_camera(
            self.T_world_camera[index], self.focal_px[index], self.principal_px[index], self.labels.shape[1]
        )


class UnshadowedScene(HeadScene):
    """A scene without shadows from the sky: a third of the time, and enough for a face detector."""

    @property
    def transfer(self) -> Float32[np.ndarray, "v d"]:
        """Cosines of all sky directions, softened."""
        cosine = (self.normals @ sky_directions().astype(np.float32).T).clip(0)
        return (0.6 * cosine + 0.2).astype(np.float32)


def samples_of_head(
    head: SyntheticHead, model: HeadModel, networks: FaceNetworks, rng: np.random.Generator, count: int, size_px: int
) -> list[Sample]:
    """Up to `count` samples of one head: portraits without a detectable face are left out.

    Args:
        rng: draws the cameras.

    Returns:
        The fields of `HairSamples` but for the head's number, one dictionary per sample.
    """
    scene = UnshadowedScene(head)
    faces = model.faces_of(PART_FACE, PART_CRANIUM_NECK)
    samples = []
    for _ in range(count):
        camera = portrait_camera(rng, size_px)
        views = scene.render(camera, supersample=1)
        picture = np.round(255 * views.over(0.7)[0]).astype(np.uint8)
        found = find_faces(picture, networks)
        if not found:
            continue
        fit = fit_landmarks(model, found[0].landmarks_px, size_px, size_px, iterations=8)
        if np.median(fit.residual_px) > MOST_MISFIT * size_px:
            continue
        to_fit = map_to_fit(head, camera, found[0].landmarks_px, fit, model)
        if to_fit is None:
            continue
        truth = hair_truth(head, to_fit)
        samples.append(
            {
                "labels": _with_cloth_below(views.labels[0]),
                **camera_fields(fit.camera),
                "principal_px": fit.camera.principal_px[0].numpy(),
                "skull_radius": capsule.opened_skull_radius(fit.vertices_world, faces).astype(np.float16),
                "hair_radius": truth.radius.astype(np.float16),
                "presence": np.round(255 * truth.presence).astype(np.uint8),
                "cloth": np.round(255 * truth.cloth).astype(np.uint8),
            }
        )
    return samples


def _with_cloth_below(labels: UInt8[np.ndarray, "s s"]) -> UInt8[np.ndarray, "s s"]:
    """Heads end at the chest, people do not: cloth goes on downwards."""
    lowest, is_torso = torso_bottom(labels, labels != Label.BACKGROUND)
    below = np.arange(len(labels))[:, None] > lowest[None]
    return np.where(is_torso[None] & below, np.uint8(Label.CLOTH), labels)


def hair_samples(
    data: Path, split: Split, folder: Path, config: HeadSamplesConfig = HAIR_SAMPLES, *, track: Track = silent
) -> HairSamples:
    """The samples of a split's heads; arguments and errors as of `head_samples`."""

    networks = functools.cache(FaceNetworks)

    def samples_of(head: SyntheticHead, number: int) -> list[Sample]:
        rng = field_rng(number, f"{split}/hair_portraits")
        return samples_of_head(head, load_head_model(), networks(), rng, config.samples_per_head, config.size_px)

    return HairSamples(**head_samples("hair", data, split, folder, config, samples_of, track=track))

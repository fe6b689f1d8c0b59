"""Training samples of the hair thickness network: portraits of composed heads with the real landmark fit, and truth.

A sample is what the prior has when it fits the shell (the portrait's label map, the fitted camera, the fitted skull)
and what it should find (the true hair around that skull). The face is detected and fitted in the rendered portrait by
the very code that the prior uses, so that the errors are the true ones.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Int, UInt8

from ..cameras import Cameras
from ..errors import InputError
from ..files import write_bytes_atomically
from ..head_model import HeadModel, fit_landmarks, load_head_model
from ..head_model.landmark_fit import LandmarkFitConfig
from ..head_model.model import PART_CRANIUM_NECK, PART_FACE
from ..portrait.face_detection import FaceNetworks, find_faces
from ..prior import capsule
from ..progress import Track, silent
from ..synthetic.assets import Split, asset_index, field_rng
from ..synthetic.compose import SyntheticHead, compose
from ..synthetic.hair.hair_truth import hair_truth, map_to_fit
from ..synthetic.parts import Label
from ..synthetic.portraits.portrait_shots import portrait_camera
from ..synthetic.recipe import sample_recipe
from ..synthetic.rendering.lighting import sky_directions
from ..synthetic.rendering.renderer import HeadScene

MOST_MISFIT = 0.015
"""Fits whose landmarks are off by more than this share of the picture (median) are left out."""


@dataclass(frozen=True)
class HairSamplesConfig:
    """How many samples of how many heads."""

    heads: int = 800
    """Heads of the split, numbered from `first_head`."""
    first_head: int = 0
    """Number of the first head."""
    portraits_per_head: int = 2
    """Cameras of each head."""
    size_px: int = 352
    """Side of a portrait, which shows `portraits.SHOT_FACTOR` times the standard frame."""
    heads_per_file: int = 10
    """Heads in one file: a kill loses at most these."""


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
        size = self.labels.shape[1]
        return Cameras(
            torch.from_numpy(self.T_world_camera[index : index + 1]),
            torch.full((1, 2), float(self.focal_px[index]), dtype=torch.float64),
            torch.from_numpy(self.principal_px[index : index + 1]),
            size,
            size,
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
) -> list[dict[str, np.ndarray]]:
    """Up to `count` samples of one head: portraits without a detectable face are left out.

    Args:
        head: any composed head.
        model: the head model.
        networks: face detectors.
        rng: draws the cameras.
        count: number of portraits.
        size_px: side of a portrait.

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
        fit = fit_landmarks(model, found[0].landmarks_px, size_px, size_px, LandmarkFitConfig(iterations=8))
        if np.median(fit.residual_px) > MOST_MISFIT * size_px:
            continue
        to_fit = map_to_fit(head, camera, found[0].landmarks_px, fit, model)
        if to_fit is None:
            continue
        truth = hair_truth(head, to_fit)
        samples.append(
            {
                "labels": _with_longer_torso(views.labels[0]),
                "T_world_camera": fit.camera.T_world_camera[0].numpy(),
                "focal_px": np.float64(fit.camera.focal_px[0, 0]),
                "principal_px": fit.camera.principal_px[0].numpy(),
                "skull_radius": capsule.opened_skull_radius(fit.vertices_world, faces).astype(np.float16),
                "hair_radius": truth.radius.astype(np.float16),
                "presence": np.round(255 * truth.presence).astype(np.uint8),
                "cloth": np.round(255 * truth.cloth).astype(np.uint8),
            }
        )
    return samples


def _with_longer_torso(labels: UInt8[np.ndarray, "s s"]) -> UInt8[np.ndarray, "s s"]:
    """Heads end at the chest, people do not: cloth goes on downwards."""
    size = len(labels)
    rows = np.arange(size)[:, None]
    lowest = np.where(labels != Label.BACKGROUND, rows, -1).max(0)
    at_lowest = labels[np.maximum(lowest, 0), np.arange(size)]
    torso = (lowest > 0.6 * size) & np.isin(at_lowest, (Label.CLOTH, Label.NECK, Label.HAIR))
    return np.where(torso[None] & (rows > lowest[None]), np.uint8(Label.CLOTH), labels)


def make_hair_samples(
    data: Path, split: Split, folder: Path, config: HairSamplesConfig, *, track: Track = silent
) -> HairSamples:
    """Make the samples that `folder` does not have yet, and load them all.

    Args:
        data: folder of the head assets.
        split: whose heads.
        folder: for the files.
        config: how many.
        track: progress display.

    Raises:
        InputError: `data` is not there.
    """
    firsts = range(config.first_head, config.first_head + config.heads, config.heads_per_file)
    missing = [first for first in firsts if not sample_path(folder, split, first, config).is_file()]
    if missing:
        if not data.is_dir():
            raise InputError(f"No head assets at {data}: give the folder with makehuman, valid and hdri inside")
        model = load_head_model()
        with FaceNetworks() as networks:
            for first in track(missing, total=len(missing), description="Portraits of composed heads"):
                rows = []
                for number in range(first, first + config.heads_per_file):
                    head = compose(sample_recipe(number, asset_index(), split), data)
                    rng = field_rng(number, f"{split}/hair_portraits")
                    found = samples_of_head(head, model, networks, rng, config.portraits_per_head, config.size_px)
                    rows += [{**sample, "head": np.int64(number)} for sample in found]
                write_hair_samples(sample_path(folder, split, first, config), rows)
    return load_hair_samples([sample_path(folder, split, first, config) for first in firsts])


def sample_path(folder: Path, split: Split, first: int, config: HairSamplesConfig) -> Path:
    """File of the samples of `heads_per_file` heads."""
    name = f"hair_{split}_{config.size_px}px_{config.heads_per_file}x{config.portraits_per_head}_{first:06d}.npz"
    return folder / name


def write_hair_samples(path: Path, rows: list[dict[str, np.ndarray]]) -> None:
    """Write samples, one dictionary of the fields of `HairSamples` each."""
    file = io.BytesIO()
    np.savez_compressed(file, **{name: np.stack([row[name] for row in rows]) for name in rows[0]})
    write_bytes_atomically(path, file.getvalue())


def load_hair_samples(paths: list[Path]) -> HairSamples:
    """The samples of files that `make_hair_samples` has written."""
    columns: dict[str, list[np.ndarray]] = {}
    for path in paths:
        with np.load(path) as file:
            for name in file.files:
                columns.setdefault(name, []).append(file[name])
    return HairSamples(**{name: np.concatenate(parts) for name, parts in columns.items()})

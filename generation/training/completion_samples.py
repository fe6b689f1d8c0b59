"""Training samples of the texture's completion: what a portrait shows of the fitted prior, and its true colours.

A portrait of a composed head goes through the real pipeline up to the prior's mesh. True views from all sides are then
looked up from the mesh's texels; where views that see a texel agree on its material, their mean is its true colour.
Both are kept as charts (`prior.learned.completion`), a few hundred kilobytes per head.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float16, Float32, Int

from ..cameras import Cameras, look_at_origin
from ..errors import InputError
from ..files import write_bytes_atomically
from ..head_model import HeadModel, load_head_model
from ..portrait import Portrait
from ..portrait.face_detection import FaceNetworks
from ..portrait.matte import PersonNetworks
from ..prior.bust.torso import fit_torso
from ..prior.hair.hair_shell import fit_hair_shell
from ..prior.labels.portrait_labels import PortraitLabels, label_portrait
from ..prior.texture.atlas import (
    MATERIAL_CLOTH,
    MATERIAL_HAIR,
    MATERIAL_SKIN,
    AtlasMesh,
    AtlasTexels,
    atlas_texels,
    build_atlas_mesh,
)
from ..prior.texture.completion_chart import LookedUp, chart_of_portrait, chart_places, chart_subset
from ..prior.texture.completion_network import COLUMNS, GRID_CHANNELS, ROWS, mean_in_cells
from ..prior.texture.portrait_lookup import PictureOfMesh, picture_of_portrait
from ..progress import Track, silent
from ..synthetic.assets import Split, asset_index
from ..synthetic.compose import compose
from ..synthetic.fitted_composed_head import FittedComposedHead, FittedConfig, fitted_head, photograph_look
from ..synthetic.parts import Label
from ..synthetic.portraits.backgrounds import Backgrounds
from ..synthetic.recipe import sample_recipe

TRUTH_AZIMUTHS_DEG = (0, 40, 80, 115, 150, 180, 210, 245, 280, 320, 90, 180, 270)
TRUTH_ELEVATIONS_DEG = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50, 50, 50)
"""Cameras of the true views, in the fitted frame."""
_TRUTH_COSINES = (0.2, 0.6)
_TRUTH_TOLERANCE = 0.01
_AGREEMENT = 0.12
_MATERIALS = {MATERIAL_SKIN: 0, MATERIAL_HAIR: 1, MATERIAL_CLOTH: 2}
_LABELS_OF_MATERIAL = (
    (Label.FACE, Label.NECK),
    (Label.HAIR, Label.HEADGEAR),
    (Label.CLOTH, Label.NECK),
)


def _clean_look_config() -> FittedConfig:
    return FittedConfig(look=replace(photograph_look(), photographed=0.0))


@dataclass(frozen=True)
class CompletionSamplesConfig:
    """How many samples."""

    heads: int = 300
    """Heads of the split, numbered from `first_head`; those without a detectable face are left out."""
    first_head: int = 0
    """Number of the first head."""
    truth_px: int = 256
    """Side of the true views."""
    fitted: FittedConfig = field(default_factory=_clean_look_config)
    """How portraits are made; a camera's exposure and white balance would contradict the true views."""


@dataclass(frozen=True)
class CompletionSamples:
    """All samples of a split."""

    chart: Float16[np.ndarray, "n 2 c rows columns"]
    """What the portraits show: `learned.completion.chart_of`."""
    typical: Float32[np.ndarray, "n 3 3"]
    """Typical colours of hair, skin and clothes."""
    truth: Float16[np.ndarray, "n 2 3 rows columns"]
    """True colours."""
    weight: Float16[np.ndarray, "n 2 rows columns"]
    """How much of each cell the true views agree on, [0, 1]."""
    head: Int[np.ndarray, " n"]
    """Number of the head."""

    def __len__(self) -> int:
        return len(self.chart)


@dataclass(frozen=True)
class FittedSurface:
    """The prior of a portrait before it is painted."""

    labels: PortraitLabels
    """The portrait's classes."""
    mesh: AtlasMesh
    """Head, shell and torso."""
    texels: AtlasTexels
    """Its texels."""

    @staticmethod
    def of(portrait: Portrait, model: HeadModel) -> FittedSurface:
        """As `build_head_prior` does it."""
        labels = label_portrait(portrait, model)
        shell = fit_hair_shell(portrait, labels, model)
        torso = fit_torso(portrait, labels, model)
        mesh = build_atlas_mesh(model, portrait.head.vertices_world, shell, torso, bald=labels.bald)
        return FittedSurface(labels, mesh, atlas_texels(mesh))


def truth_cameras(size_px: int) -> Cameras:
    """Where the true views are taken from."""
    azimuth, elevation = (np.deg2rad(np.array(d, float)) for d in (TRUTH_AZIMUTHS_DEG, TRUTH_ELEVATIONS_DEG))
    return look_at_origin(torch.from_numpy(azimuth), torch.from_numpy(elevation), size_px=size_px)


def true_colours(
    fitted: FittedComposedHead, mesh: AtlasMesh, texels: AtlasTexels, chosen: np.ndarray, size_px: int
) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, " n"]]:
    """True colours of texels and how far the views agree on them (0: not seen, or something else is there).

    Args:
        fitted: the head and its portrait.
        mesh: the fitted mesh.
        texels: of the atlas.
        chosen: numbers of texels.
        size_px: side of the true views.
    """
    cameras = truth_cameras(size_px)
    views = fitted.true_views(cameras, supersample=1)
    rgb = views.rgb_unit
    points, normals = texels.points_world[chosen], texels.normals_world[chosen]
    slot = np.array([_MATERIALS.get(m, 0) for m in range(6)])[texels.material[chosen]]
    colours, weights = [], []
    for k, camera in enumerate(cameras):
        classes = np.stack([np.isin(views.labels[k], labels) for labels in _LABELS_OF_MATERIAL], axis=-1)
        solid = cv2.erode(views.alpha_unit[k], np.ones((3, 3), np.uint8))
        image = np.concatenate([rgb[k], classes, (solid > 0.9)[..., None]], axis=-1).astype(np.float32)
        seen = PictureOfMesh.of(camera, image, mesh).look_up(points, normals, _TRUTH_TOLERANCE, _TRUTH_COSINES)
        fits = np.take_along_axis(seen.classes, slot[:, None], axis=1)[:, 0]
        colours.append(seen.colour)
        weights.append(seen.trust * np.clip(2 * fits - 1, 0, 1))
    return _agreed(np.stack(colours), np.stack(weights))


def _agreed(
    colours: Float32[np.ndarray, "k n 3"], weights: Float32[np.ndarray, "k n"]
) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, " n"]]:
    """Means of the views without highlights and misfits: two rounds of a robust mean.

    Source: iteratively reweighted least squares with Welsch weights (Holland and Welsch 1977).
    """
    robust = weights
    mean = np.zeros(colours.shape[1:], np.float32)
    for _ in range(3):
        mean = (colours * robust[..., None]).sum(0) / np.maximum(robust.sum(0), 1e-6)[:, None]
        squared = ((colours - mean) ** 2).sum(-1)
        robust = weights * np.exp(-squared / _AGREEMENT**2)
    return mean.astype(np.float32), np.clip(robust.sum(0), 0, 1).astype(np.float32)


def sample_of(fitted: FittedComposedHead, model: HeadModel, truth_px: int) -> dict[str, np.ndarray]:
    """One sample: the fields of `CompletionSamples` but for the head's number.

    Args:
        fitted: the head and its portrait.
        model: the head model.
        truth_px: side of the true views.
    """
    portrait = fitted.portrait
    surface = FittedSurface.of(portrait, model)
    picture = picture_of_portrait(portrait, surface.labels, surface.mesh)
    chosen = chart_subset(surface.texels)
    looked_up = LookedUp.of(portrait, surface.labels, picture, surface.texels, chosen)
    place = chart_places(surface.texels, chosen, float(portrait.head.camera.azimuth_rad[0]))
    chart = chart_of_portrait(surface.texels, chosen, looked_up, place)
    colour, weight = true_colours(fitted, surface.mesh, surface.texels, chosen, truth_px)
    truth, mass = mean_in_cells(place, colour, weight)
    count = mean_in_cells(place, colour[:, :1], np.ones(len(chosen)))[1]
    return {
        "chart": chart.astype(np.float16),
        "typical": looked_up.typical.rgb_unit.astype(np.float32),
        "truth": truth.astype(np.float16),
        "weight": (mass / np.maximum(count, 1)).astype(np.float16),
    }


def make_completion_samples(
    data: Path, split: Split, folder: Path, config: CompletionSamplesConfig, *, track: Track = silent
) -> CompletionSamples:
    """Make the samples that `folder` does not have yet, and load them all.

    Args:
        data: folder of the head assets.
        split: whose heads.
        folder: for the files, one per head.
        config: how many.
        track: progress display.

    Raises:
        InputError: `data` is not there, or no head has a detectable face.
    """
    numbers = range(config.first_head, config.first_head + config.heads)
    missing = [n for n in numbers if not sample_path(folder, split, n).is_file()]
    if missing:
        if not data.is_dir():
            raise InputError(f"No head assets at {data}: give the folder with makehuman, valid and hdri inside")
        model, backgrounds = load_head_model(), Backgrounds.of_split(data, split)
        with FaceNetworks() as faces, PersonNetworks() as people:
            for number in track(missing, total=len(missing), description="Portraits of composed heads"):
                head = compose(sample_recipe(number, asset_index(), split), data)
                fitted = fitted_head(head, backgrounds, number, faces, people, config.fitted, model=model)
                fields = (
                    {} if fitted is None else {**sample_of(fitted, model, config.truth_px), "head": np.int64(number)}
                )
                file = io.BytesIO()
                np.savez_compressed(file, **fields)
                write_bytes_atomically(sample_path(folder, split, number), file.getvalue())
    return load_completion_samples([sample_path(folder, split, n) for n in numbers])


def sample_path(folder: Path, split: Split, number: int) -> Path:
    """File of one head; it is empty where no face was found."""
    return folder / f"completion_{split}_{number:06d}.npz"


def load_completion_samples(paths: list[Path]) -> CompletionSamples:
    """The samples of files that `make_completion_samples` has written.

    Raises:
        InputError: all of them are empty.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for path in paths:
        with np.load(path) as file:
            for name in file.files:
                columns.setdefault(name, []).append(file[name])
    if not columns:
        raise InputError("No face was found in any portrait of these heads; make more of them")
    samples = CompletionSamples(**{name: np.stack(parts) for name, parts in columns.items()})
    if samples.chart.shape[1:] != (2, GRID_CHANNELS, ROWS, COLUMNS):
        raise InputError("The samples were made for another chart; remove them and make them again")
    return samples

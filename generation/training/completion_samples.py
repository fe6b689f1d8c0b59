"""Training samples of the texture's completion: what a portrait shows of the fitted prior, and its true colours.

A portrait of a composed head goes through the real pipeline up to the prior's mesh. True views from all sides are then
looked up from the mesh's texels; where views that see a texel agree on its material, their mean is its true colour.
Both are kept as charts (`completion_chart`), a few hundred kilobytes per head.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float16, Float32, Int

from ..cameras import look_at_origin
from ..errors import InputError
from ..head_model import HeadModel, load_head_model
from ..portrait.face_detection import FaceNetworks
from ..portrait.matte import PersonNetworks
from ..prior.bust.bust import fit_bust
from ..prior.field.portrait_observation import field_of_portrait
from ..prior.hair.hair_shell import fit_hair_shell
from ..prior.labels.portrait_labels import label_portrait
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
from ..synthetic.assets import Split
from ..synthetic.compose import SyntheticHead
from ..synthetic.fitted_composed_head import PHOTOGRAPHS, FittedComposedHead, fitted_head
from ..synthetic.parts import SKIN_LABELS, Label
from ..synthetic.portraits.backgrounds import Backgrounds
from .head_samples import HeadSamplesConfig, Sample, head_samples

_TRUTH_ANGLES_DEG = (
    (0, 40, 80, 115, 150, 180, 210, 245, 280, 320, 90, 180, 270),
    (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50, 50, 50),
)
"""Azimuths and elevations of the true views, in the fitted frame."""
_TRUTH_COSINES = (0.2, 0.6)
"""Cosines between normal and view from which and up to which trust in a true colour grows."""
_TRUTH_TOLERANCE = 0.01
"""How far behind the mesh a texel may lie and still count as seen, world units."""
_AGREEMENT = 0.12
"""Colour difference at which a view's weight in the mean has fallen to 1/e."""
_MATERIALS = {MATERIAL_SKIN: 0, MATERIAL_HAIR: 1, MATERIAL_CLOTH: 2}
_LABELS_OF_MATERIAL = (SKIN_LABELS, (Label.HAIR, Label.HEADGEAR), (Label.CLOTH, Label.NECK))
COMPLETION_SAMPLES = HeadSamplesConfig(heads=300, size_px=256, heads_per_file=1)
"""The training set; the size is that of the true views."""
PORTRAITS_FOR_COMPLETION = replace(PHOTOGRAPHS, photographed=0.0)
"""How portraits are made: a camera's exposure and white balance would contradict the true views."""


@dataclass(frozen=True)
class CompletionSamples:
    """All samples of a split."""

    chart: Float16[np.ndarray, "n 2 c rows columns"]
    """What the portraits show: `completion_chart.chart_of_portrait`."""
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


def _true_colours(
    fitted: FittedComposedHead, mesh: AtlasMesh, texels: AtlasTexels, chosen: np.ndarray, size_px: int
) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, " n"]]:
    """True colours of texels and how far the views agree on them (0: not seen, or something else is there)."""
    azimuth, elevation = (torch.from_numpy(np.deg2rad(angles, dtype=float)) for angles in _TRUTH_ANGLES_DEG)
    cameras = look_at_origin(azimuth, elevation, size_px=size_px)
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


def completion_sample(fitted: FittedComposedHead, model: HeadModel, truth_px: int) -> Sample:
    """One sample: the fields of `CompletionSamples` but for the head's number.

    Args:
        truth_px: side of the true views.
    """
    portrait = fitted.portrait
    labels = label_portrait(portrait, model)
    field, _ = field_of_portrait(portrait, labels, model)
    shell, bust = fit_hair_shell(portrait, labels, model, field), fit_bust(portrait, labels, model)
    mesh = build_atlas_mesh(model, portrait.head.vertices_world, shell, bust)
    texels = atlas_texels(mesh)
    picture = picture_of_portrait(portrait, labels, mesh)
    chosen = chart_subset(texels)
    looked_up = LookedUp.of(portrait, labels, picture, texels, chosen)
    place = chart_places(texels, chosen, mesh)
    chart = chart_of_portrait(texels, chosen, looked_up, place)
    colour, weight = _true_colours(fitted, mesh, texels, chosen, truth_px)
    truth, mass = mean_in_cells(place, colour, weight)
    count = mean_in_cells(place, colour[:, :1], np.ones(len(chosen)))[1]
    return {
        "chart": chart.astype(np.float16),
        "typical": looked_up.typical.rgb_unit.astype(np.float32),
        "truth": truth.astype(np.float16),
        "weight": (mass / np.maximum(count, 1)).astype(np.float16),
    }


def completion_samples(
    data: Path, split: Split, folder: Path, config: HeadSamplesConfig = COMPLETION_SAMPLES, *, track: Track = silent
) -> CompletionSamples:
    """The samples of a split's heads; arguments and errors as of `head_samples`.

    Raises:
        InputError: files of an earlier version, whose charts are others.
    """

    @functools.cache
    def studio() -> tuple[Backgrounds, FaceNetworks, PersonNetworks]:
        return Backgrounds.of_split(data, split), FaceNetworks(), PersonNetworks()

    def samples_of(head: SyntheticHead, number: int) -> list[Sample]:
        backgrounds, faces, people = studio()
        fitted = fitted_head(head, backgrounds, number, faces, people, PORTRAITS_FOR_COMPLETION)
        return [] if fitted is None else [completion_sample(fitted, load_head_model(), config.size_px)]

    columns = head_samples("completion", data, split, folder, config, samples_of, track=track)
    if columns["chart"].shape[1:] != (2, GRID_CHANNELS, ROWS, COLUMNS):
        raise InputError(f"The samples in {folder} were made for another chart; remove them and make them again")
    return CompletionSamples(**columns)

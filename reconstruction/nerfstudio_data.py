"""nerfstudio's data managers, told what our data sets know beyond theirs: confidence per view and surface samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from dp360.generation.dataset.view_dataset import read_confidence, read_dataset, read_surface

CONFIDENCE, SURFACE = "dp360_confidence", "dp360_surface"
"""Keys in a training data set's metadata, which nerfstudio hands to the model: `[n]` floats and a `PointCloud`."""

Dataset = TypeVar("Dataset", bound=InputDataset)


def head_dataparser_config(scene_scale: float = 1.0) -> NerfstudioDataParserConfig:
    """nerfstudio's own parser, told to leave our poses and our unit alone.

    Args:
        scene_scale: half the side of the scene box, world units.
    """
    return NerfstudioDataParserConfig(
        orientation_method="none",
        center_method="none",
        auto_scale_poses=False,
        scene_scale=scene_scale,
        load_3D_points=False,  # read here: theirs needs open3d and drops the normals
    )


def _with_head_metadata(dataset: Dataset, folder: Path) -> Dataset:
    """Add confidence (in the order of the data set, which nerfstudio sorts by file name) and surface samples."""
    confidence = read_confidence(folder)
    dataset.metadata[CONFIDENCE] = torch.tensor([confidence[path.stem] for path in dataset.image_filenames])
    surface = read_surface(folder)
    dataset.metadata[SURFACE] = read_dataset(folder).surface if surface is None else surface
    return dataset


@dataclass
class HeadImageDatamanagerConfig(FullImageDatamanagerConfig):
    """Whole pictures, kept as 8 bits: a quarter of the memory of floats."""

    _target: type = field(default_factory=lambda: HeadImageDatamanager)
    """Class to instantiate."""


class HeadImageDatamanager(FullImageDatamanager[InputDataset]):
    """Whole pictures for splats."""

    view_schedule: Int[Tensor, " i"] | None = None
    """Which training picture each step sees; None leaves the choice to nerfstudio."""

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """The camera and picture of one step."""
        if self.view_schedule is not None:
            self.train_unseen_cameras = [int(self.view_schedule[step % len(self.view_schedule)])]
        return super().next_train(step)

    def create_train_dataset(self) -> InputDataset:
        """The training pictures with confidence and surface."""
        return _with_head_metadata(super().create_train_dataset(), self.config.dataparser.data)


@dataclass
class HeadRayDatamanagerConfig(VanillaDataManagerConfig):
    """Random rays out of all pictures, without the worker processes of nerfstudio's default."""

    _target: type = field(default_factory=lambda: HeadRayDatamanager)
    """Class to instantiate."""


class HeadRayDatamanager(VanillaDataManager[InputDataset]):
    """Rays for radiance fields."""

    def create_train_dataset(self) -> InputDataset:
        """The training pictures with confidence and surface."""
        return _with_head_metadata(super().create_train_dataset(), self.config.dataparser.data)

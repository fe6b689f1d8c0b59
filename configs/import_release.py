"""`dp360 import-release`: views that the official release has made become a data set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from .import_capture import require_place_for_dataset

if TYPE_CHECKING:
    from .console import Display

_DRAWN_CONFIDENCE = 0.65
"""Between what the portrait shows (0.8) and what was made up (0.5): without a prior nobody knows which is which."""


@dataclass(frozen=True)
class ImportReleaseCommand:
    """Make a data set of what the official DiffPortrait360 release has made."""

    folder: tyro.conf.Positional[Path]
    """The release's sample_data."""
    name: str
    """Name of the portrait in it, without ending."""
    output: Path
    """Folder of the data set."""


def run(command: ImportReleaseCommand, display: Display) -> tuple[Path, ...]:
    """Write the data set; the portrait is view 0 where the release's folder has it together with its camera.

    The surface is the visual hull of the views' outlines.

    Returns:
        The data set's folder.

    Raises:
        InputError: something is missing or damaged in the release's folder, or the output cannot be written.
    """
    import torch

    from dp360.generation import Provenance, ViewSet
    from dp360.generation.cameras import concatenate_cameras
    from dp360.generation.dataset.view_dataset import write_dataset
    from dp360.generation.dataset.visual_hull import hull_points
    from dp360.generation.diffusion.release.aligned import read_aligned_picture
    from dp360.generation.diffusion.release.folder import ReleaseFolder, read_result

    require_place_for_dataset(command.output)
    folder = ReleaseFolder.find(command.folder, command.name)
    rgba, cameras = read_result(folder, track=display.track)
    confidence = torch.full((len(cameras),), _DRAWN_CONFIDENCE)
    names = tuple(f"view_{i:03d}" for i in range(len(cameras)))
    label = folder.label()
    source = folder.result
    if folder.input_image is not None and label is not None:
        source = folder.input_image
        aligned = read_aligned_picture(folder.input_image, label)
        rgba = torch.cat([aligned.resized_rgba(cameras.width)[None], rgba])
        cameras = concatenate_cameras([aligned.camera.resized(cameras.width, cameras.height), cameras])
        confidence, names = torch.cat([torch.ones(1), confidence]), ("portrait", *names)
    assert source is not None  # read_result found the film
    provenance = Provenance(
        generator="diffportrait360 (official release)",
        weights="unknown",
        seed=0,
        input_sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
        version=metadata.version("dp360"),
        settings={"imported_from": folder.name},
    )
    views = ViewSet(rgba, cameras, confidence, names, hull_points(rgba, cameras), provenance)
    write_dataset(views, command.output)
    return (command.output,)

"""Training sets of shots: heads without background, rendered once, kept in files, finished anew for every step."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from ..cameras import Cameras
from ..errors import InputError
from ..files import write_bytes_atomically
from ..progress import Track, silent
from ..synthetic.assets import Split, asset_index, field_rng
from ..synthetic.compose import compose
from ..synthetic.portraits.backgrounds import Backgrounds
from ..synthetic.portraits.portrait_shots import PortraitShot, take_shot
from ..synthetic.recipe import sample_recipe
from ..synthetic.rendering.renderer import HeadScene


@dataclass(frozen=True)
class ShotsConfig:
    """How many shots of how many heads."""

    heads: int = 1000
    """Heads of the split, numbered from `first_head`."""
    first_head: int = 0
    """Number of the first head."""
    shots_per_head: int = 2
    """Cameras and lights of each head."""
    size_px: int = 352
    """Side of a shot."""
    heads_per_file: int = 20
    """Heads in one file: a kill loses at most these."""


@dataclass(frozen=True)
class Shots:
    """All shots of a split."""

    rgb: UInt8[np.ndarray, "n s s 3"]
    """Straight sRGB."""
    alpha: UInt8[np.ndarray, "n s s"]
    """Coverage."""
    labels: UInt8[np.ndarray, "n s s"]
    """`parts.Label`."""
    head: np.ndarray
    """Number of the head of each shot."""
    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Poses of their cameras."""
    focal_px: Float[np.ndarray, " n"]
    """Focal lengths."""

    def __len__(self) -> int:
        return len(self.rgb)

    def __getitem__(self, index: int) -> tuple[PortraitShot, Cameras]:
        """A shot and its camera."""
        size = self.rgb.shape[1]
        camera = Cameras(
            torch.from_numpy(self.T_world_camera[index : index + 1]),
            torch.full((1, 2), float(self.focal_px[index]), dtype=torch.float64),
            torch.full((1, 2), size / 2, dtype=torch.float64),
            size,
            size,
        )
        return PortraitShot(self.rgb[index], self.alpha[index], self.labels[index]), camera


def make_shots(data: Path, split: Split, folder: Path, config: ShotsConfig, *, track: Track = silent) -> Shots:
    """Render the shots that `folder` does not have yet, and load them all.

    Args:
        data: folder of the head assets.
        split: whose heads, lights and backgrounds.
        folder: for the files.
        config: how many.
        track: progress display.

    Raises:
        InputError: `data` is not there.
    """
    missing = [first for first in _firsts(config) if not _path(folder, split, first, config).is_file()]
    if missing:
        if not data.is_dir():
            raise InputError(f"No head assets at {data}: give the folder with makehuman, valid and hdri inside")
        backgrounds = Backgrounds.of_split(data, split)
        for first in track(missing, total=len(missing), description="Rendering heads"):
            arrays = _render(data, split, range(first, first + config.heads_per_file), config, backgrounds)
            file = io.BytesIO()
            np.savez_compressed(file, **arrays)
            write_bytes_atomically(_path(folder, split, first, config), file.getvalue())
    return load_shots([_path(folder, split, first, config) for first in _firsts(config)])


def load_shots(paths: list[Path]) -> Shots:
    """The shots of files that `make_shots` has written."""
    columns: dict[str, list[np.ndarray]] = {}
    for path in paths:
        with np.load(path) as file:
            for name in file.files:
                columns.setdefault(name, []).append(file[name])
    return Shots(**{name: np.concatenate(parts) for name, parts in columns.items()})


def _firsts(config: ShotsConfig) -> range:
    return range(config.first_head, config.first_head + config.heads, config.heads_per_file)


def _path(folder: Path, split: Split, first: int, config: ShotsConfig) -> Path:
    name = f"shots_{split}_{config.size_px}px_{config.heads_per_file}x{config.shots_per_head}_{first:06d}.npz"
    return folder / name


def _render(
    data: Path, split: Split, heads: range, config: ShotsConfig, backgrounds: Backgrounds
) -> dict[str, np.ndarray]:
    rows = []
    for number in heads:
        head = compose(sample_recipe(number, asset_index(), split), data)
        scene = HeadScene(head)
        for k in range(config.shots_per_head):
            rng = field_rng(number, f"{split}/shot/{k}")
            shot, camera = take_shot(scene, head.style, backgrounds, rng, config.size_px)
            pose, focal = camera.T_world_camera[0].numpy(), float(camera.focal_px[0, 0])
            rows.append((shot.rgb, shot.alpha, shot.labels, np.int64(number), pose, np.float64(focal)))
    names = ("rgb", "alpha", "labels", "head", "T_world_camera", "focal_px")
    return {name: np.stack(values) for name, values in zip(names, zip(*rows))}

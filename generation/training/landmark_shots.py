"""Shots for the landmark network: composed heads from all sides, profiles and backs included, kept in files."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS, Cameras, look_at_origin
from ..errors import InputError
from ..files import write_bytes_atomically
from ..progress import Track, silent
from ..synthetic.assets import Split, asset_index, field_rng
from ..synthetic.compose import compose
from ..synthetic.portraits.backgrounds import Backgrounds
from ..synthetic.portraits.stylise import draw_views
from ..synthetic.recipe import sample_recipe
from ..synthetic.rendering.lighting import random_lighting
from ..synthetic.rendering.renderer import HeadScene
from .shots import Shots, load_shots

_FRAME_FACTOR = 1.15
"""Side of a shot in units of the standard frame."""
_YAW_RANGES_DEG = ((0.0, 25.0), (0.0, 50.0), (35.0, 75.0), (55.0, 95.0), (65.0, 105.0), (110.0, 180.0))
"""Ranges of |yaw| of a head's shots, in turn; the last one shows the back of the head."""


@dataclass(frozen=True)
class LandmarkShotsConfig:
    """How many shots of how many heads."""

    heads: int = 300
    """Heads of the split, numbered from `first_head`."""
    first_head: int = 2000
    """Number of the first head."""
    shots_per_head: int = 6
    """Cameras and lights of each head; their yaws go round `_YAW_RANGES_DEG`."""
    size_px: int = 288
    """Side of a shot, 1.15 times the standard frame."""
    heads_per_file: int = 10
    """Heads in one file: a kill loses at most these."""

    @property
    def firsts(self) -> range:
        """Number of the first head of each file."""
        return range(self.first_head, self.first_head + self.heads, self.heads_per_file)


def surround_camera(rng: np.random.Generator, yaw_range_deg: tuple[float, float], size_px: int) -> Cameras:
    """A camera round the head: |yaw| in the range on either side, pitch within 28 degrees, any distance.

    Args:
        rng: randomness.
        yaw_range_deg: least and largest |yaw|, degrees.
        size_px: side of the shot; its frame is 1.15 times the standard one.
    """
    yaw = math.radians(float(rng.uniform(*yaw_range_deg) * rng.choice([-1, 1])))
    pitch = math.radians(float(np.clip(rng.normal(1, 10), -28, 28)))
    distance = PANOHEAD_RADIUS * float(np.exp(rng.uniform(math.log(0.55), math.log(1.7))))
    focal = PANOHEAD_FOCAL_NORMALISED * distance / PANOHEAD_RADIUS / _FRAME_FACTOR
    return look_at_origin([yaw], [pitch], size_px=size_px, radius=distance, focal_normalised=focal)


def make_landmark_shots(
    data: Path, split: Split, folder: Path, config: LandmarkShotsConfig, *, track: Track = silent
) -> Shots:
    """Render the shots that `folder` does not have yet, and load them all.

    Args:
        data: folder of the head assets.
        split: whose heads and lights.
        folder: for the files.
        config: how many.
        track: progress display.

    Raises:
        InputError: `data` is not there.
    """
    paths = {first: _path(folder, split, first, config) for first in config.firsts}
    missing = [first for first, path in paths.items() if not path.is_file()]
    if missing:
        if not data.is_dir():
            raise InputError(f"No head assets at {data}: give the folder with makehuman, valid and hdri inside")
        backgrounds = Backgrounds.of_split(data, split)
        for first in track(missing, total=len(missing), description="Rendering heads"):
            heads = range(first, min(first + config.heads_per_file, config.first_head + config.heads))
            file = io.BytesIO()
            np.savez_compressed(file, **_render(data, split, heads, config, backgrounds))
            write_bytes_atomically(paths[first], file.getvalue())
    return load_shots(list(paths.values()))


def _path(folder: Path, split: Split, first: int, config: LandmarkShotsConfig) -> Path:
    count = f"{config.heads_per_file}x{config.shots_per_head}"
    return folder / f"landmark_shots_{split}_{config.size_px}px_{count}_{first:06d}.npz"


def _render(
    data: Path, split: Split, heads: range, config: LandmarkShotsConfig, backgrounds: Backgrounds
) -> dict[str, np.ndarray]:
    panoramas = backgrounds.panoramas
    rows = []
    for number in heads:
        head = compose(sample_recipe(number, asset_index(), split), data)
        scene = HeadScene(head)
        for k in range(config.shots_per_head):
            rng = field_rng(number, f"{split}/landmark_shot/{k}")
            camera = surround_camera(rng, _YAW_RANGES_DEG[k % len(_YAW_RANGES_DEG)], config.size_px)
            lit = panoramas[rng.integers(len(panoramas))] if panoramas and rng.random() < 0.67 else None
            views = draw_views(scene, head.style, camera, random_lighting(rng, lit))
            rgb, alpha = (np.round(255 * a[0]).astype(np.uint8) for a in (views.rgb_unit, views.alpha_unit))
            pose = camera.T_world_camera[0].to(torch.float64).numpy()
            rows.append((rgb, alpha, views.labels[0], np.int64(number), pose, np.float64(camera.focal_px[0, 0])))
    names = ("rgb", "alpha", "labels", "head", "T_world_camera", "focal_px")
    return {name: np.stack(values) for name, values in zip(names, zip(*rows))}

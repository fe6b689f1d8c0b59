"""Training sets in files: samples of composed heads, made a few heads at a time, kept, and loaded as columns.

Each of the prior's networks says what a sample of a head is (a `Sampler`); all else is alike: which heads, which files,
that what is there is not made again.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from ..cameras import Cameras
from ..errors import InputError
from ..files import write_bytes_atomically
from ..progress import Track, silent
from ..synthetic.asset_pack import require_head_assets
from ..synthetic.assets import Split, asset_index
from ..synthetic.compose import SyntheticHead, compose
from ..synthetic.composed_recipe import ComposedRecipe, sample_recipe

Sample = dict[str, np.ndarray]
"""Arrays by name."""
Sampler = Callable[[SyntheticHead, int], list[Sample]]
"""The samples of a head with its number; none where its face is not found."""
RecipeOf = Callable[[int, Split], ComposedRecipe]
"""The recipe of a head of a split by its number."""


def composed_recipe(number: int, split: Split) -> ComposedRecipe:
    """Heads as `composed_recipe.sample_recipe` draws them."""
    return sample_recipe(number, asset_index(), split)


@dataclass(frozen=True)
class HeadSamplesConfig:
    """How many samples of how many heads."""

    heads: int
    """Heads of the split, numbered from `first_head`."""
    first_head: int = 0
    """Number of the first head."""
    samples_per_head: int = 1
    """Cameras of each head, at most."""
    size_px: int = 352
    """Side of the pictures."""
    heads_per_file: int = 10
    """Heads in one file: a kill loses at most these."""


def head_samples(
    kind: str, data: Path, split: Split, folder: Path, config: HeadSamplesConfig,
    samples_of: Sampler, *, recipe_of: RecipeOf = composed_recipe, track: Track = silent,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Make the samples that `folder` does not have yet, and load them all.

    Args:
        kind: first word of the files' names.
        data: folder of the head assets; only needed where samples are missing.
        samples_of: makes the samples of a head.
        recipe_of: says what the heads are.

    Returns:
        The fields of the samples and `head`, the numbers of their heads, stacked over all samples.

    Raises:
        InputError: `data` is not there, or no head gave a sample.
    """
    end = config.first_head + config.heads
    paths: dict[range, Path] = {}
    for first in range(config.first_head, end, config.heads_per_file):
        numbers = range(first, min(first + config.heads_per_file, end))
        count = f"{len(numbers)}x{config.samples_per_head}"
        paths[numbers] = folder / f"{kind}_{split}_{config.size_px}px_{count}_{first:06d}.npz"
    missing = [numbers for numbers, path in paths.items() if not path.is_file()]
    if missing:
        require_head_assets(data)
        for numbers in track(missing, total=len(missing), description="Samples of composed heads"):
            samples = [
                {**sample, "head": np.array(number)}
                for number in numbers
                for sample in samples_of(compose(recipe_of(number, split), data), number)
            ]
            file = io.BytesIO()
            names = samples[0] if samples else ()
            np.savez_compressed(file, **{name: np.stack([sample[name] for sample in samples]) for name in names})
            write_bytes_atomically(paths[numbers], file.getvalue())
    parts = defaultdict[str, list[np.ndarray]](list)
    for path in paths.values():
        with np.load(path) as file:
            for name in file.files:
                parts[name].append(file[name])
    if not parts:
        raise InputError("No face was found in any portrait of these heads; make more of them")
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def camera_fields(camera: Cameras) -> Sample:
    """Fields of a sample that say where its camera was, but for the principal point."""
    return {
        "T_world_camera": camera.T_world_camera[0].to(torch.float64).numpy(),
        "focal_px": np.array(float(camera.focal_px[0, 0])),
    }


def square_camera(
    T_world_camera: Float[np.ndarray, "4 4"], focal_px: float, principal_px: Float[np.ndarray, " 2"], size_px: int
) -> Cameras:
    """The camera of a square picture out of the fields of a sample."""
    return Cameras(
        torch.from_numpy(T_world_camera)[None],
        torch.full((1, 2), float(focal_px), dtype=torch.float64),
        torch.from_numpy(principal_px)[None],
        size_px,
        size_px,
    )


def in_new_order(position: int, count: int, *seeds: int) -> int:
    """Which of `count` samples comes at a position, where every pass through all of them has an order of its own."""
    turn, place = divmod(position, count)
    return int(np.random.default_rng((*seeds, turn)).permutation(count)[place])

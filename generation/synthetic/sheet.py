"""Contact sheets of composed heads, to be looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..cameras import look_at_origin
from ..progress import Track, silent
from .assets import Split, asset_index, field_rng
from .compose import compose
from .parts import LABEL_RGB, Label
from .portraits.stylise import draw_views
from .recipe import HeadRecipe, sample_recipe
from .rendering.lighting import Lighting, random_lighting, read_hdri
from .rendering.renderer import HeadScene


def recipe_lighting(recipe: HeadRecipe, data: Path) -> Lighting:
    """A light for a head, from its split's panoramas three times out of four."""
    rng = field_rng(recipe.seed, "lighting")
    names = asset_index().of("hdri", recipe.split)
    panorama = read_hdri(data / "hdri" / f"{rng.choice(names)}.exr") if rng.random() < 0.75 else None
    return random_lighting(rng, panorama)


def head_sheet(
    data: Path, split: Split, seeds: Sequence[int], *, azimuths: int = 6, size_px: int = 128, pairs: int = 2,
    with_labels: bool = False, track: Track = silent,
) -> UInt8[np.ndarray, "h w 3"]:  # fmt: skip
    """One head per row (or `pairs` of them), turned all round, each under its own light.

    Args:
        data: folder of the head assets.
        split: whose heads.
        seeds: numbers of the heads.
        azimuths: views per head, the first from the front.
        size_px: side of each picture.
        pairs: heads beside each other.
        with_labels: add the label map of the second view.
        track: progress.
    """
    azimuth = [2 * math.pi * k / azimuths for k in range(azimuths)]
    cameras = look_at_origin(azimuth, [0.12 * math.sin(2 * a) for a in azimuth], size_px=size_px)
    colours = np.array([LABEL_RGB[label] for label in Label], np.uint8)
    strips = []
    for seed in track(seeds, total=len(seeds), description="heads"):
        recipe = sample_recipe(seed, asset_index(), split)
        head = compose(recipe, data)
        views = draw_views(HeadScene(head), head.style, cameras, recipe_lighting(recipe, data))
        grey = float(field_rng(recipe.seed, "sheet").uniform(0.35, 0.8))
        strip = [np.round(picture * 255).astype(np.uint8) for picture in views.over(grey)]
        if with_labels:
            strip.append(colours[views.labels[1]])
        strips.append(np.concatenate(strip, axis=1))
    while len(strips) % pairs:
        strips.append(np.full_like(strips[0], 255))
    return np.concatenate([np.concatenate(strips[k : k + pairs], axis=1) for k in range(0, len(strips), pairs)], axis=0)

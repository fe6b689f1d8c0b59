"""How well faces are found in pictures of composed heads whose points are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from ..head_model.sparse_points import FACE_POINTS, FaceBox, face_box
from ..progress import Track, silent
from ..synthetic.portraits.backgrounds import Backgrounds
from .landmark_scenes import LabelledShots, LandmarkScene, SceneLook, empty_scene, make_scene

YAW_EDGES_DEG = (0, 30, 60, 90)
"""Borders of the bins in which errors are stated."""
_HIT = 0.5
"""A face counts as found if its box's middle lies within this much of the true box's size."""

FaceFinder = Callable[[UInt8[np.ndarray, "h w 3"]], Float[np.ndarray, "69 2"] | None]
"""Finds the points of a face in a picture, NaN where a finder does not know a point; None where it sees no face."""


@dataclass(frozen=True)
class LandmarkFigures:
    """Errors over pictures, by |yaw|."""

    nme: Float[np.ndarray, " b"]
    """Mean distance of the face's points from the truth over the face box's side, of the faces that were found."""
    recall: Float[np.ndarray, " b"]
    """Share of the faces that were found."""
    count: Float[np.ndarray, " b"]
    """Pictures."""
    false_positives: float
    """Share of the pictures without a face in which one was found."""
    empty_count: int
    """Pictures without a face."""

    def __str__(self) -> str:
        bins = zip(YAW_EDGES_DEG, YAW_EDGES_DEG[1:], self.nme, self.recall, self.count)
        rows = [f"{a}-{b} deg: error {100 * e:.1f}% found {100 * r:.0f}% of {n:.0f}" for a, b, e, r, n in bins]
        return "; ".join([*rows, f"false {100 * self.false_positives:.1f}% of {self.empty_count}"])


def measured_scene(
    labelled: LabelledShots, index: int, backgrounds: Backgrounds, look: SceneLook, *, seed: int = 0, size_px: int = 512
) -> LandmarkScene:
    """The picture of a shot in which faces are looked for: 28 to 50 % of its side, tilted, anywhere near the middle."""
    rng = np.random.default_rng((seed, 5, index))
    side = size_px * rng.uniform(0.28, 0.5)
    x, y = size_px * (0.5 + rng.uniform(-0.12, 0.12, 2))
    box = FaceBox((float(x), float(y)), float(side), float(rng.normal(0, 0.12)))
    return make_scene(labelled, index, box, backgrounds, rng, size_px, look)


def face_error(found: Float[np.ndarray, "69 2"] | None, truth: Float[np.ndarray, "69 2"]) -> float:
    """Mean distance of the face's points over the true box's side; not a number where the face was missed."""
    if found is None:
        return math.nan
    face = list(FACE_POINTS)
    known = face_box(truth)
    low, high = np.nanmin(found[face], 0), np.nanmax(found[face], 0)
    if np.linalg.norm((low + high) / 2 - known.center_px) > _HIT * known.size_px:
        return math.nan
    return float(np.nanmean(np.linalg.norm((found - truth)[face], axis=1)) / known.size_px)


def landmark_figures(
    finder: FaceFinder, labelled: LabelledShots, backgrounds: Backgrounds, look: SceneLook, *, empty: int = 100,
    seed: int = 0, size_px: int = 512, track: Track = silent,
) -> LandmarkFigures:  # fmt: skip
    """Figures of a finder.

    Args:
        finder: what to measure.
        labelled: shots of heads that it has not seen.
        backgrounds: of the same split.
        look: how pictures look.
        empty: number of pictures without anybody.
        seed: seed of the pictures.
        size_px: side of the pictures.
        track: progress display.
    """
    yaw = np.degrees(np.abs(labelled.yaw_rad))
    shown = np.flatnonzero(yaw <= YAW_EDGES_DEG[-1])
    error = np.full(len(shown), math.nan)
    for k in track(range(len(shown)), total=len(shown), description="Measuring"):
        scene = measured_scene(labelled, int(shown[k]), backgrounds, look, seed=seed, size_px=size_px)
        error[k] = face_error(finder(scene.rgb), scene.points_px)
    pictures = (empty_scene(backgrounds, np.random.default_rng((seed, 6, k)), size_px) for k in range(empty))
    wrong = sum(finder(picture) is not None for picture in pictures)
    which = np.digitize(yaw[shown], YAW_EDGES_DEG[1:-1])
    by_bin = [error[which == b] for b in range(len(YAW_EDGES_DEG) - 1)]
    found = [e[~np.isnan(e)] for e in by_bin]
    return LandmarkFigures(
        np.array([e.mean() if len(e) else math.nan for e in found]),
        np.array([len(f) / len(e) if len(e) else math.nan for f, e in zip(found, by_bin)]),
        np.array([float(len(e)) for e in by_bin]),
        wrong / max(empty, 1),
        empty,
    )

"""Training of the landmark networks on composed heads, cartoons drawn at their points among them, and their figures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ..head_model.sparse_points import FACE_POINTS, POINT_COUNT, FaceBox, face_box
from ..portrait.landmark_network import CELL_PX, CROP_FACTOR, LandmarkNetworkConfig, LandmarkNetworks
from ..progress import Track, silent
from ..synthetic.portraits.backgrounds import Backgrounds
from .landmark_scenes import MOST_YAW_RAD, LabelledShots, LandmarkScene, SceneLook, empty_scene, make_scene
from .loop import Batch, LoopConfig, OnEvaluation, micro_batches_of, train_model, with_time_left

_BACK_YAW_RAD = math.radians(112)
"""Heads turned away further than this show no face; those between say nothing about its presence."""
_SKULL_WEIGHT = 0.4
"""Weight of the points of ears and skull, which hair hides."""
_WITHOUT_FACE = 0.2
"""Share of pictures without a face: backgrounds, backs of heads, and for the points also boxes beside the face."""

YAW_EDGES_DEG = (0, 30, 60, 90)
"""Borders of the bins in which errors are stated."""
_MEASURED_PX = 512
"""Side of the pictures in which faces are looked for."""
_HIT = 0.5
"""A face counts as found if its box's middle lies within this much of the true box's size."""

FaceFinder = Callable[[UInt8[np.ndarray, "h w 3"]], Float[np.ndarray, "69 2"] | None]
"""Finds the points of a face in a picture, NaN where a finder does not know a point; None where it sees no face."""


POINTS_LOOP = LoopConfig(steps=4000, batch_size=16, learning_rate=3e-3, save_every=100)
LOCATOR_LOOP = LoopConfig(steps=1800, batch_size=16, learning_rate=3e-3, save_every=100)
"""Schedules."""


@dataclass(frozen=True)
class _Scenes:
    """What pictures are made of."""

    labelled: LabelledShots
    backgrounds: Backgrounds
    look: SceneLook

    def face(self, box: FaceBox, rng: np.random.Generator, size: int, *, back: bool = False) -> LandmarkScene:
        """A picture with a face in the box, or with the back of a head there: of nobody where no shot shows one."""
        yaw = np.abs(self.labelled.yaw_rad)
        chosen = np.flatnonzero(yaw > _BACK_YAW_RAD if back else yaw < MOST_YAW_RAD)
        if back and not len(chosen):
            return self.nobody(rng, size)
        rng.random()  # earlier versions drew a set of shots here: a seed keeps its pictures
        return make_scene(self.labelled, int(rng.choice(chosen)), box, self.backgrounds, rng, size, self.look)

    def nobody(self, rng: np.random.Generator, size: int) -> LandmarkScene:
        """A picture without anybody; its points say nothing."""
        return LandmarkScene(empty_scene(self.backgrounds, rng, size), np.zeros((POINT_COUNT, 2)), np.zeros(3))


def train_landmark_networks(
    labelled: LabelledShots, backgrounds: Backgrounds, folder: Path, points_loop: LoopConfig = POINTS_LOOP,
    locator_loop: LoopConfig = LOCATOR_LOOP, *, network_config: LandmarkNetworkConfig | None = None,
    look: SceneLook | None = None, track: Track = silent, on_evaluation: OnEvaluation | None = None,
) -> LandmarkNetworks:  # fmt: skip
    """Both networks with averaged weights, on the CPU: the points are trained, then the locator.

    Args:
        labelled: shots of heads of the split `train`, from all sides.
        backgrounds: of the same split.
        points_loop, locator_loop: schedules; of their time, which is that of both, the points may take two thirds.
        on_evaluation: as of `train_model`.
    """
    torch.manual_seed(points_loop.seed)
    networks = LandmarkNetworks(network_config).to(memory_format=torch.channels_last)
    scenes, sizes = _Scenes(labelled, backgrounds, look or SceneLook()), networks.config
    told: dict[str, Any] = {"track": track, "on_evaluation": on_evaluation}
    started_s, batch_of = time.monotonic(), _points_batches(scenes, points_loop, sizes.points_px)
    loop = with_time_left(points_loop, started_s, 2 / 3)
    train_model(networks.points, batch_of, points_loss, loop, folder / "points", **told)
    batch_of, loop = _locator_batches(scenes, locator_loop, sizes.locator_px), with_time_left(locator_loop, started_s)
    if loop.minutes != 0:
        train_model(networks.locator, batch_of, locator_loss, loop, folder / "locator", **told)
    return networks.eval()


def _points_batches(scenes: _Scenes, loop: LoopConfig, size: int) -> Callable[[int], Batch]:
    """A function: the batch of a step for `PointNetwork`."""
    unit = size / CROP_FACTOR

    def scene(rng: np.random.Generator) -> tuple[LandmarkScene, float]:
        """A picture and whether its face is where it is expected, 1 or 0."""
        middle = size / 2 + rng.normal(0, 0.11, 2) * unit
        box = FaceBox((middle[0], middle[1]), unit * math.exp(rng.normal(0, 0.18)), rng.normal(0, 0.22))
        draw = rng.random() / _WITHOUT_FACE
        if draw > 1:
            return scenes.face(box, rng, size), 1.0
        if draw < 0.4:
            return scenes.nobody(rng, size), 0.0
        if draw < 0.7:
            return scenes.face(box, rng, size, back=True), 0.0
        away = rng.uniform(0, 2 * math.pi)
        off = rng.uniform(1.0, 1.6) * unit
        x, y = middle + off * np.array([math.cos(away), math.sin(away)])
        beside = replace(box, center_px=(x, y), size_px=unit * math.exp(rng.normal(0, 0.4)))
        return scenes.face(beside, rng, size), 0.0

    def sample(position: int) -> dict[str, Tensor]:
        made, present = scene(np.random.default_rng((loop.seed, 3, position)))
        points = torch.from_numpy((made.points_px / size - 0.5).astype(np.float32))
        return {"rgb": torch.from_numpy(made.rgb), "points": points, "present": torch.tensor(present)}

    return micro_batches_of(sample, loop.batch_size)


def points_loss(network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Likelihood of the points under a Laplace distribution in the plane, their plain distance, and presence."""
    points, log_scales, logits = network(batch["rgb"])
    truth, present = batch["points"], batch["present"]
    limit = 0.5 + 2 * CELL_PX / batch["rgb"].shape[-1] - 0.01
    known = (truth.abs() < limit).all(-1) * present[:, None]
    weight = torch.full((POINT_COUNT,), _SKULL_WEIGHT, device=points.device)
    weight[list(FACE_POINTS)] = 1.0
    weight = known * weight
    distance = (points - truth).square().sum(-1).add(1e-8).sqrt()
    likelihood = distance * (-log_scales).exp() + 2 * log_scales
    total = weight.sum().clamp(min=1)
    return (
        (weight * likelihood).sum() / total * 0.1
        + 10 * (weight * distance).sum() / total
        + 0.5 * F.binary_cross_entropy_with_logits(logits, present)
    )


def _locator_batches(scenes: _Scenes, loop: LoopConfig, size: int) -> Callable[[int], Batch]:
    """A function: the batch of a step for `FaceLocator`."""

    def scene(rng: np.random.Generator) -> tuple[LandmarkScene, FaceBox | None]:
        """A picture and its face."""
        share = math.exp(rng.uniform(math.log(0.12), math.log(0.9)))
        reach = max(0.5 * (1 - 0.8 * share), 0.05) * size
        x, y = size / 2 + np.clip(rng.normal(0, 0.5, 2), -1, 1) * reach
        box = FaceBox((x, y), share * size, float(np.clip(rng.normal(0, 0.25), -0.7, 0.7)))
        draw = rng.random() / _WITHOUT_FACE
        if draw > 1:
            made = scenes.face(box, rng, size)
            return made, face_box(made.points_px)
        return scenes.nobody(rng, size) if draw < 0.55 else scenes.face(box, rng, size, back=True), None

    def sample(position: int) -> dict[str, Tensor]:
        made, face = scene(np.random.default_rng((loop.seed, 4, position)))
        target = locator_target(face, size).astype(np.float32)
        return {"rgb": torch.from_numpy(made.rgb), "target": torch.from_numpy(target)}

    return micro_batches_of(sample, loop.batch_size)


def locator_target(box: FaceBox | None, size_px: int) -> Float[np.ndarray, "7 g g"]:
    """What `FaceLocator` should say about a picture: heat, the five numbers of the face, where these are asked for."""
    grid = size_px // CELL_PX
    target = np.zeros((7, grid, grid))
    if box is None:
        return target
    cells = np.arange(grid) + 0.5
    dx, dy = (c / CELL_PX - axis for c, axis in zip(box.center_px, np.meshgrid(cells, cells)))
    spread = max(0.6, 0.12 * box.size_px / CELL_PX)
    distance = dx**2 + dy**2
    target[0] = np.exp(-distance / (2 * spread**2))
    nearest = np.unravel_index(np.argmin(distance), distance.shape)
    target[(0, *nearest)] = 1.0
    target[1], target[2], target[3] = dx, dy, math.log(box.size_px / size_px)
    target[4], target[5] = math.cos(box.roll_rad), math.sin(box.roll_rad)
    target[6] = (distance < 2.5) | (target[0] == 1.0)
    return target


def locator_loss(network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Focal loss of the heat, distances of the five numbers.

    Source: Zhou, Wang, Krähenbühl, "Objects as Points", 2019, Eq. 1.
    """
    found, target = network(batch["rgb"]), batch["target"]
    heat, truth = found[:, 0].sigmoid().clamp(1e-4, 1 - 1e-4), target[:, 0]
    is_center: Bool[Tensor, "n g g"] = truth == 1
    positive = -((1 - heat) ** 2 * heat.log())[is_center].sum()
    negative = -(((1 - truth) ** 4) * heat**2 * (1 - heat).log())[~is_center].sum()
    asked = target[:, 6:7]
    weights = torch.tensor([0.3, 0.3, 2.0, 2.0, 2.0], device=found.device)[:, None, None]
    wrong = ((found[:, 1:] - target[:, 1:6]).abs() * weights * asked).sum() / asked.sum().clamp(min=1)
    return (positive + negative) / is_center.sum().clamp(min=1) + wrong


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
    labelled: LabelledShots, index: int, backgrounds: Backgrounds, look: SceneLook, *, size_px: int = _MEASURED_PX
) -> LandmarkScene:
    """The picture of a shot in which faces are looked for: 28 to 50 % of its side, tilted, anywhere near the middle."""
    rng = np.random.default_rng((0, 5, index))
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
    track: Track = silent,
) -> LandmarkFigures:  # fmt: skip
    """Figures of a finder.

    Args:
        finder: what to measure.
        labelled: shots of heads that it has not seen.
        backgrounds: of the same split.
        empty: number of pictures without anybody.
    """
    yaw = np.degrees(np.abs(labelled.yaw_rad))
    shown = np.flatnonzero(yaw <= YAW_EDGES_DEG[-1])
    error = np.full(len(shown), math.nan)
    for k in track(range(len(shown)), total=len(shown), description="Measuring"):
        scene = measured_scene(labelled, int(shown[k]), backgrounds, look)
        error[k] = face_error(finder(scene.rgb), scene.points_px)
    pictures = (empty_scene(backgrounds, np.random.default_rng((0, 6, k)), _MEASURED_PX) for k in range(empty))
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

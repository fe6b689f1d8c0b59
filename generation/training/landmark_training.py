"""Training of the landmark networks on composed heads: cartoons drawn at their points, paintings, photographs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..head_model.sparse_points import FACE_POINTS, POINT_COUNT, FaceBox, face_box
from ..portrait.landmark_network import CELL_PX, CROP_FACTOR, LandmarkNetworkConfig, LandmarkNetworks
from ..progress import Track, silent
from ..synthetic.portraits.backgrounds import Backgrounds
from .landmark_scenes import MOST_YAW_RAD, LabelledShots, Scene, SceneLook, empty_scene, labelled_shots, make_scene
from .landmark_shots import LandmarkShotsConfig, make_landmark_shots
from .loop import Batch, LoopConfig, train

_BACK_YAW_RAD = math.radians(112)
"""Heads turned away further than this show no face; those between say nothing about its presence."""
_SKULL_WEIGHT = 0.4
"""Weight of the points of ears and skull, which hair hides."""


@dataclass(frozen=True)
class LandmarkTrainConfig:
    """How both networks are trained."""

    shots: LandmarkShotsConfig = field(default_factory=LandmarkShotsConfig)
    """The training set."""
    network: LandmarkNetworkConfig = field(default_factory=LandmarkNetworkConfig)
    """The networks."""
    look: SceneLook = field(default_factory=SceneLook)
    """How pictures are made of shots."""
    points_loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=4000, batch_size=16, learning_rate=3e-3, save_every=100)
    )
    """Schedule of the points."""
    locator_loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=1800, batch_size=16, learning_rate=3e-3, save_every=100)
    )
    """Schedule of the locator."""
    without_face: float = 0.2
    """Share of pictures without a face: backgrounds, backs of heads, and for the points also boxes beside the face."""


@dataclass(frozen=True)
class _Kinds:
    """Numbers of the shots that show a face, and of those that show the back of a head."""

    faces: np.ndarray
    backs: np.ndarray

    @staticmethod
    def of(labelled: LabelledShots) -> _Kinds:
        yaw = np.abs(labelled.yaw_rad)
        return _Kinds(np.flatnonzero(yaw < MOST_YAW_RAD), np.flatnonzero(yaw > _BACK_YAW_RAD))


def train_landmark_networks(
    data: Path, folder: Path, config: LandmarkTrainConfig, *, minutes: float | None = None, device: str = "cpu",
    track: Track = silent, on_evaluation: Callable[[int, nn.Module, float], None] | None = None,
) -> LandmarkNetworks:  # fmt: skip
    """Render the training set if need be, train the points, then the locator.

    Args:
        data: folder of the head assets.
        folder: for shots and checkpoints; the same call goes on where the last one stopped.
        config: how.
        minutes: time for the training, two thirds of it for the points; None runs to the end.
        device: name of the torch device.
        track: progress display.
        on_evaluation: as in `loop.train`.

    Returns:
        Both networks with averaged weights, on the CPU.
    """
    shots = make_landmark_shots(data, "train", folder / "shots", config.shots, track=track)
    labelled = labelled_shots(shots, "train", data, track=track)
    return train_on_labelled(
        [labelled], Backgrounds.of_split(data, "train"), folder, config, minutes=minutes, device=device, track=track,
        on_evaluation=on_evaluation,
    )  # fmt: skip


def train_on_labelled(
    sets: Sequence[LabelledShots], backgrounds: Backgrounds, folder: Path, config: LandmarkTrainConfig, *,
    minutes: float | None = None, device: str = "cpu", track: Track = silent,
    on_evaluation: Callable[[int, nn.Module, float], None] | None = None,
) -> LandmarkNetworks:  # fmt: skip
    """As `train_landmark_networks`, with shots that are there already."""
    torch.manual_seed(config.points_loop.seed)
    networks = LandmarkNetworks(config.network).to(memory_format=torch.channels_last)
    parts = (
        (networks.points, config.points_loop, points_batches, points_loss, "points", 2 / 3),
        (networks.locator, config.locator_loop, locator_batches, locator_loss, "locator", 1 / 3),
    )
    for network, loop, batches, loss, name, share in parts:
        loop = replace(loop, minutes=None if minutes is None else share * minutes, device=device)
        weights = train(
            network, batches(sets, backgrounds, replace(config, points_loop=loop, locator_loop=loop)), loss, loop,
            folder / name, track=track, on_evaluation=on_evaluation,
        )  # fmt: skip
        network.load_state_dict(weights)
    return networks.to("cpu").eval()


def points_batches(
    sets: Sequence[LabelledShots], backgrounds: Backgrounds, config: LandmarkTrainConfig
) -> Callable[[int], Batch]:
    """A function: the batch of a step for `PointNetwork`."""
    kinds, loop, size = [_Kinds.of(s) for s in sets], config.points_loop, config.network.points_px
    unit = size / CROP_FACTOR

    def sample(position: int) -> tuple[np.ndarray, np.ndarray, float]:
        rng = np.random.default_rng((loop.seed, 3, position))
        middle = size / 2 + rng.normal(0, 0.11, 2) * unit
        box = FaceBox((middle[0], middle[1]), unit * math.exp(rng.normal(0, 0.18)), rng.normal(0, 0.22))
        draw = rng.random() / config.without_face
        if draw > 1:
            scene = _face_scene(sets, kinds, box, backgrounds, rng, size, config.look)
            return scene.rgb, scene.points_px, 1.0
        if draw < 0.4:
            return empty_scene(backgrounds, rng, size), np.zeros((POINT_COUNT, 2)), 0.0
        if draw < 0.7:
            scene = _back_scene(sets, kinds, box, backgrounds, rng, size, config.look)
            return scene.rgb, scene.points_px, 0.0
        away = rng.uniform(0, 2 * math.pi)
        off = rng.uniform(1.0, 1.6) * unit
        x, y = middle + off * np.array([math.cos(away), math.sin(away)])
        beside = replace(box, center_px=(x, y), size_px=unit * math.exp(rng.normal(0, 0.4)))
        scene = _face_scene(sets, kinds, beside, backgrounds, rng, size, config.look)
        return scene.rgb, scene.points_px, 0.0

    def batch_of(step: int) -> Batch:
        rows = [sample(k) for k in range(step * loop.batch_size, (step + 1) * loop.batch_size)]
        points = np.stack([r[1] for r in rows]) / size - 0.5
        return {
            "rgb": _pictures([r[0] for r in rows]),
            "points": torch.from_numpy(points.astype(np.float32)),
            "present": torch.tensor([r[2] for r in rows]),
        }

    return batch_of


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


def locator_batches(
    sets: Sequence[LabelledShots], backgrounds: Backgrounds, config: LandmarkTrainConfig
) -> Callable[[int], Batch]:
    """A function: the batch of a step for `FaceLocator`."""
    kinds, loop, size = [_Kinds.of(s) for s in sets], config.locator_loop, config.network.locator_px

    def sample(position: int) -> tuple[np.ndarray, FaceBox | None]:
        rng = np.random.default_rng((loop.seed, 4, position))
        share = math.exp(rng.uniform(math.log(0.12), math.log(0.9)))
        reach = max(0.5 * (1 - 0.8 * share), 0.05) * size
        x, y = size / 2 + np.clip(rng.normal(0, 0.5, 2), -1, 1) * reach
        box = FaceBox((x, y), share * size, float(np.clip(rng.normal(0, 0.25), -0.7, 0.7)))
        draw = rng.random() / config.without_face
        if draw > 1:
            scene = _face_scene(sets, kinds, box, backgrounds, rng, size, config.look)
            return scene.rgb, face_box(scene.points_px)
        if draw < 0.55:
            return empty_scene(backgrounds, rng, size), None
        return _back_scene(sets, kinds, box, backgrounds, rng, size, config.look).rgb, None

    def batch_of(step: int) -> Batch:
        rows = [sample(k) for k in range(step * loop.batch_size, (step + 1) * loop.batch_size)]
        targets = np.stack([locator_target(r[1], size) for r in rows])
        return {"rgb": _pictures([r[0] for r in rows]), "target": torch.from_numpy(targets.astype(np.float32))}

    return batch_of


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


def _face_scene(
    sets: Sequence[LabelledShots], kinds: Sequence[_Kinds], box: FaceBox, backgrounds: Backgrounds,
    rng: np.random.Generator, size: int, look: SceneLook,
) -> Scene:  # fmt: skip
    which = int(rng.choice(len(sets), p=_shares([len(k.faces) for k in kinds])))
    return make_scene(sets[which], int(rng.choice(kinds[which].faces)), box, backgrounds, rng, size, look)


def _back_scene(
    sets: Sequence[LabelledShots], kinds: Sequence[_Kinds], box: FaceBox, backgrounds: Backgrounds,
    rng: np.random.Generator, size: int, look: SceneLook,
) -> Scene:  # fmt: skip
    counts = [len(k.backs) for k in kinds]
    if not sum(counts):
        return Scene(empty_scene(backgrounds, rng, size), np.zeros((POINT_COUNT, 2)), np.array([0.0, 0.0, -1.0]))
    which = int(rng.choice(len(sets), p=_shares(counts)))
    return make_scene(sets[which], int(rng.choice(kinds[which].backs)), box, backgrounds, rng, size, look)


def _shares(counts: Sequence[int]) -> Float[np.ndarray, " n"]:
    return np.array(counts, dtype=np.float64) / sum(counts)


def _pictures(pictures: Sequence[np.ndarray]) -> Float[Tensor, "n 3 s s"]:
    rgb = np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255
    return torch.from_numpy(rgb).contiguous(memory_format=torch.channels_last)

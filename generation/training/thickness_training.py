"""Training of the hair thickness network on composed heads, and its figures on others."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS, Cameras
from ..mesh_raster import rasterize_mesh
from ..networks import LoadedNetwork, mirrored_columns
from ..prior import capsule
from ..prior.hair.hair_shell import grid_mesh
from ..prior.hair.thickness_network import (
    THICKNESS_RANGE,
    HairThicknessConfig,
    HairThicknessNet,
    estimate_hair,
    mirrored,
    shell_features,
)
from ..progress import Track, silent
from .loop import Batch, LoopConfig, OnEvaluation, stacked, train_model
from .thickness_samples import HairSamples

_HAIR, _SKIN, _CLOTH = 1, 2, 3
_CLASS_OF_LABEL = np.array([0, _SKIN, _SKIN, _HAIR, _SKIN, _CLOTH, _HAIR, _SKIN], np.uint8)
"""By `parts.Label`: background, skin (with beards and glasses), hair (with hats), cloth, as the prior's labels."""
_WIDE_FACTOR = 1.35
HAIR_LOOP = LoopConfig(steps=2000, batch_size=8, learning_rate=2e-3, save_every=50)
"""Schedule."""


# Errors of fit and labels, and other hair, that training adds.
_RESHAPED = 0.4  # share of heads whose hair is made thicker, thinner, shorter or longer, with the label map to match
_TURN_DEG = 1.2  # standard deviation of added turns of the camera about the head's axes
_SHIFT = 0.005  # standard deviation of shifts, in units of the standard frame
_SCALE = 0.012  # standard deviation of the logarithm of scale
_WARP_PX = 2.5  # largest smooth displacement of class borders, pixels at 352
_SWAPPED = 0.4  # share of portraits in which blobs of hair below the chin are called cloth, or the other way round
_BARE = 0.06  # share in which a blob of hair is called skin
_GROWN_PX = 2  # largest growth or shrinkage of the hair, pixels at 352
_OTHER_FRAME = 0.25  # share of frames of any size between standard and wide
_CUT = 0.2  # share of pictures that end inside the frame


@dataclass(frozen=True)
class ThicknessFigures:
    """Errors on the capsule grid, by region."""

    thickness_mae: dict[str, float]
    """Mean absolute error of the thickness where truth and estimate have hair, world units."""
    presence_accuracy: dict[str, float]
    """Share of cells whose presence is right."""
    count: int
    """Portraits."""

    def __str__(self) -> str:
        by_region = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in self.thickness_mae.items())
        return f"Mean error of the thickness on {self.count} validation portraits, 1/1000 of a world unit: {by_region}"


def _off_front_deg() -> Float[np.ndarray, " columns"]:
    """Angles between the columns and the face."""
    azimuth = np.degrees(np.arange(capsule.COLUMNS) * (2 * np.pi / capsule.COLUMNS))
    return np.minimum(azimuth, 360 - azimuth)


def region_masks() -> dict[str, Bool[np.ndarray, "rows columns"]]:
    """Crown, sides, back and nape on the grid; azimuth 0 is the face."""
    off_front = _off_front_deg()[None]
    rows = np.arange(capsule.ROWS)[:, None]
    middle = capsule.SPHERE_ROWS
    return {
        "crown": (rows >= 2) & (rows < middle // 2) & (off_front >= 0),
        "sides": (rows >= middle // 2) & (rows < middle + 12) & (off_front > 60) & (off_front < 120),
        "back": (rows >= middle // 2) & (rows < middle) & (off_front >= 120),
        "nape": (rows >= middle) & (rows < middle + 24) & (off_front >= 135),
        "below": (rows >= middle + 24) & (off_front >= 100),
    }


def cell_weights() -> Float32[np.ndarray, "rows columns"]:
    """What each cell counts in the loss: its area, more along the profile that is seen from the side."""
    rows = np.arange(capsule.ROWS)[:, None]
    elevation = np.where(rows < capsule.SPHERE_ROWS, np.pi / 2 * (1 - rows / capsule.SPHERE_ROWS), 0.0)
    azimuth = np.arange(capsule.COLUMNS)[None] * (2 * np.pi / capsule.COLUMNS)
    profile = np.exp(-((np.degrees(np.arcsin(np.abs(np.sin(azimuth)).clip(0, 1))) / 25) ** 2))
    area = np.maximum(np.cos(elevation), 0.1) * np.where(rows > 90, 0.5, 1.0)
    return (area * (1 + 1.5 * profile)).astype(np.float32)


def train_hair_thickness(
    samples: HairSamples,
    folder: Path,
    loop: LoopConfig = HAIR_LOOP,
    network_config: HairThicknessConfig | None = None,
    *,
    track: Track = silent,
    on_evaluation: OnEvaluation | None = None,
) -> HairThicknessNet:
    """The network with averaged weights, on the CPU; arguments as of `train_model`."""
    torch.manual_seed(loop.seed)
    network = HairThicknessNet(network_config or HairThicknessConfig())
    batch_of = partial(hair_batch, samples, loop)
    train_model(network, batch_of, hair_loss, loop, folder, track=track, on_evaluation=on_evaluation)
    return network


def hair_batch(samples: HairSamples, loop: LoopConfig, step: int) -> Batch:
    """The portraits of one step: every portrait once per epoch, each time with other errors, half of them mirrored."""
    per_epoch = max(1, len(samples) // loop.batch_size)
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([loop.seed, epoch]).permutation(len(samples))
    chosen = order[place * loop.batch_size : (place + 1) * loop.batch_size]
    rng = np.random.default_rng([loop.seed, step, 1])
    rows = []
    for index in chosen:
        x, y = _augmented(samples, int(index), rng)
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        if rng.random() < 0.5:
            x, y = mirrored(x), mirrored_columns(y)
        rows.append({"features": x, "target": y})
    return stacked(rows)


def truth_of(samples: HairSamples, index: int) -> Float32[np.ndarray, "3 rows columns"]:
    """Presence, thickness over the fitted skull and trust of each cell."""
    presence = samples.presence[index].astype(np.float32) / 255
    thickness = samples.hair_radius[index].astype(np.float32) - samples.skull_radius[index].astype(np.float32)
    trust = 1 - 0.95 * samples.cloth[index].astype(np.float32) / 255
    return np.stack([presence, np.clip(thickness, *THICKNESS_RANGE), trust])


def hair_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of presence, and the negative log-likelihood of the thickness where there is hair."""
    logit, mean, log_scale = network(batch["features"]).unbind(1)
    presence, thickness, trust = batch["target"].unbind(1)
    weight = trust * torch.from_numpy(cell_weights()).to(trust)
    found = F.binary_cross_entropy_with_logits(logit, presence, reduction="none")
    likelihood = (mean - thickness).abs() * torch.exp(-log_scale) + log_scale + 4.5
    return (weight * (2 * found + presence * likelihood)).sum() / weight.sum()


def _augmented(
    samples: HairSamples, index: int, rng: np.random.Generator
) -> tuple[Float32[np.ndarray, "c rows columns"], Float32[np.ndarray, "3 rows columns"]]:
    camera, truth = samples.camera(index), truth_of(samples, index)
    classes, skull = _CLASS_OF_LABEL[samples.labels[index]], samples.skull_radius[index].astype(np.float32)
    if rng.random() < _RESHAPED:
        presence, thickness = other_hair(truth[0], truth[1], skull, rng)
        classes = _redrawn(classes, camera, skull, presence, thickness)
        truth = np.stack([presence, thickness, truth[2]])
    camera = _disturbed(camera, rng)
    inside = _frame(classes, camera, rng)
    classes = _misread(classes, camera, rng)
    return _features(classes, inside, camera, skull), truth.astype(np.float32)


def _features(
    classes: UInt8[np.ndarray, "s s"], inside: Bool[np.ndarray, "s s"], camera: Cameras,
    skull: Float32[np.ndarray, "rows columns"],
) -> Float32[np.ndarray, "c rows columns"]:  # fmt: skip
    hair, skin, cloth = ((classes == k).astype(np.float32) for k in (_HAIR, _SKIN, _CLOTH))
    return shell_features(hair, skin, cloth, inside, camera, skull)


def other_hair(
    presence: Float32[np.ndarray, "rows columns"],
    thickness: Float32[np.ndarray, "rows columns"],
    skull: Float32[np.ndarray, "rows columns"],
    rng: np.random.Generator,
) -> tuple[Float32[np.ndarray, "rows columns"], Float32[np.ndarray, "rows columns"]]:
    """Similar hair: its volume changed smoothly, sometimes cut at another height or hanging further down.

    Args:
        presence, thickness: of the true hair.
        skull: opened skull, world units.
    """
    noise = _closed_noise(rng)
    factor = np.exp(np.clip(rng.normal(0, 0.22) + 0.2 * noise, -0.7, 0.6))
    thickness = np.where(thickness > 0, np.minimum(thickness * factor, THICKNESS_RANGE[1]), thickness)
    height = capsule.surface_points(skull)[..., 1]
    draw = rng.random()
    if draw < 0.3:
        end = rng.uniform(-0.3, 0.0) + 0.01 * noise
        presence = presence * np.clip((height - end) / 0.008 + 0.5, 0, 1)
    elif draw < 0.5:
        presence, thickness = presence.copy(), thickness.copy()
        end = rng.uniform(capsule.BOTTOM_Y - 0.1, -0.05)
        hangs = _off_front_deg() > rng.uniform(50, 110)
        radius = skull + thickness
        for row in range(capsule.SPHERE_ROWS, capsule.ROWS):
            grown = hangs & (presence[row] < 0.5) & (presence[row - 1] > 0.5) & (height[row] > end)
            radius[row] = np.where(grown, np.maximum(radius[row - 1], skull[row] + 0.004), radius[row])
            presence[row] = np.where(grown, presence[row - 1], presence[row])
        thickness = radius - skull
    return presence.astype(np.float32), np.clip(thickness, *THICKNESS_RANGE).astype(np.float32)


def _closed_noise(rng: np.random.Generator) -> Float32[np.ndarray, "rows columns"]:
    """Smooth noise on the grid that closes round the axis and is even at the crown."""
    coarse = rng.normal(0, 1, (6, 6)).astype(np.float32)
    coarse[0] = coarse[0].mean()
    wide = np.concatenate([coarse] * 3, axis=1)
    return cv2.resize(wide, (3 * capsule.COLUMNS, capsule.ROWS), interpolation=cv2.INTER_CUBIC)[
        :, capsule.COLUMNS : 2 * capsule.COLUMNS
    ]


def _redrawn(
    classes: UInt8[np.ndarray, "s s"],
    camera: Cameras,
    skull: Float32[np.ndarray, "rows columns"],
    presence: Float32[np.ndarray, "rows columns"],
    thickness: Float32[np.ndarray, "rows columns"],
) -> UInt8[np.ndarray, "s s"]:
    """The label map with the hair of a shell in place of its own; what the old hair covered shows what lies nearest."""
    shell, faces = grid_mesh(np.maximum(skull + thickness, 0.01).astype(np.float64))
    there = np.concatenate([presence, presence[:, :1]], axis=1).ravel() > 0.5
    head, head_faces = grid_mesh(np.maximum(skull, 0.01).astype(np.float64))
    shell_faces = faces[there[faces].all(1)]
    fragments = rasterize_mesh(
        np.concatenate([shell, head]), np.concatenate([shell_faces, head_faces + len(shell)]), camera
    )
    hair = (fragments.triangle_index >= 0) & (fragments.triangle_index < len(shell_faces))
    bare = (classes == _HAIR) & ~hair
    skull_seen = fragments.triangle_index >= len(shell_faces)
    behind = np.isin(classes, (0, _CLOTH))
    _, nearest = cv2.distanceTransformWithLabels(
        (~behind).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    kind = np.zeros(int(nearest.max()) + 1, np.uint8)
    kind[nearest[behind]] = classes[behind]
    high = (
        np.arange(len(classes))[:, None] < float(camera.principal_px[0, 1]) + 0.3 * float(camera.focal_px[0, 0]) / 2.7
    )
    filled = np.where(skull_seen & high, np.uint8(_SKIN), kind[nearest.astype(np.intp)])
    return np.where(hair, np.uint8(_HAIR), np.where(bare, filled, classes)).astype(np.uint8)


def _disturbed(camera: Cameras, rng: np.random.Generator) -> Cameras:
    """A camera that is a little wrong."""
    turn = torch.from_numpy(cv2.Rodrigues(np.radians(rng.normal(0, _TURN_DEG, 3)))[0])
    T = camera.T_world_camera.clone()
    T[0, :3] = turn @ T[0, :3]
    side = float(camera.focal_px[0, 0]) / PANOHEAD_FOCAL_NORMALISED
    shift = torch.from_numpy(rng.normal(0, _SHIFT * side, 2))[None]
    factor = float(np.exp(rng.normal(0, _SCALE)))
    return Cameras(T, camera.focal_px * factor, camera.principal_px + shift, camera.width, camera.height)


def _frame(
    classes: UInt8[np.ndarray, "s s"], camera: Cameras, rng: np.random.Generator | None = None
) -> Bool[np.ndarray, "s s"]:
    """Pixels inside the frame that the alignment would crop; with `rng`, sometimes one like it."""
    side = float(camera.focal_px[0, 0]) / PANOHEAD_FOCAL_NORMALISED
    x, y = camera.principal_px[0].tolist()
    rows, columns = np.ogrid[: len(classes), : len(classes)]

    def square(factor: float) -> Bool[np.ndarray, "s s"]:
        return (np.abs(columns + 0.5 - x) < factor * side / 2) & (np.abs(rows + 0.5 - y) < factor * side / 2)

    standard, wide = square(1.0), square(_WIDE_FACTOR)
    beyond = wide & ~standard & (rows < y + 0.2 * side)
    is_wide = ((classes == _HAIR) | (classes == _SKIN))[beyond].sum() > 0.004 * side**2
    inside = wide if is_wide else standard
    if rng is None:
        return inside
    if rng.random() < _OTHER_FRAME:
        inside = square(rng.uniform(1, _WIDE_FACTOR))
    if rng.random() < _CUT:
        left, top, right, bottom = (rng.uniform(0, 0.2) if rng.random() < 0.4 else 0 for _ in range(4))
        half = (_WIDE_FACTOR if is_wide else 1.0) * side / 2
        inside = inside & (columns > x - half * (1 - 2 * left)) & (columns < x + half * (1 - 2 * right))
        inside = inside & (rows > y - half * (1 - 2 * top)) & (rows < y + half * (1 - 2 * bottom))
    return inside


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Float32[np.ndarray, "s s"]:
    """Noise in about [-2, 2] with `cells` bumps across."""
    coarse = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _misread(classes: UInt8[np.ndarray, "s s"], camera: Cameras, rng: np.random.Generator) -> UInt8[np.ndarray, "s s"]:
    """Labels as a segmenter might give them: borders off, hair taken for cloth below the chin and the reverse."""
    size = len(classes)
    amplitude = rng.uniform(0, _WARP_PX)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).astype(np.float32)
    warp = np.stack([_smooth_noise(rng, size, 14), _smooth_noise(rng, size, 14)], axis=-1) * (0.6 * amplitude)
    x, y = np.moveaxis(grid + warp.astype(np.float32), -1, 0)
    classes = cv2.remap(classes, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
    grow = int(rng.integers(-_GROWN_PX, _GROWN_PX + 1))
    if grow:
        hair = (classes == _HAIR).astype(np.uint8)
        kernel = np.ones((2 * abs(grow) + 1,) * 2, np.uint8)
        changed = cv2.dilate(hair, kernel) if grow > 0 else cv2.erode(hair, kernel)
        classes = np.where((changed > 0) & (classes == 0), _HAIR, classes)
        classes = np.where(
            (hair > 0) & (changed == 0) & (cv2.erode((classes > 0).astype(np.uint8), kernel) == 0), 0, classes
        )
        classes = classes.astype(np.uint8)
    units_per_px = PANOHEAD_RADIUS / float(camera.focal_px[0, 0])
    chin_row = float(camera.principal_px[0, 1]) + 0.15 / units_per_px
    below = np.arange(size)[:, None] > chin_row
    if rng.random() < _SWAPPED:
        source, target = (_HAIR, _CLOTH) if rng.random() < 0.5 else (_CLOTH, _HAIR)
        if target == _CLOTH:
            blob = _smooth_noise(rng, size, 5) > rng.uniform(-1.5, 0.8)
        else:  # dark collars and shadows beside neck and hair
            body = (classes == _HAIR) | (classes == _SKIN)
            reach = 2 * int(rng.integers(4, 24)) + 1
            near = cv2.dilate(body.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
            blob = near & (_smooth_noise(rng, size, int(rng.integers(5, 14))) > rng.uniform(-0.5, 1.0))
        classes = np.where(blob & below & (classes == source), np.uint8(target), classes)
    if rng.random() < _BARE:
        blob = _smooth_noise(rng, size, 6) > rng.uniform(0.5, 1.5)
        classes = np.where(blob & (classes == _HAIR), np.uint8(_SKIN), classes)
    return classes


def evaluate_hair_thickness(loaded: LoadedNetwork[HairThicknessNet], samples: HairSamples) -> ThicknessFigures:
    """Errors on samples without added errors."""
    errors, right = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for index in range(len(samples)):
        camera, classes = samples.camera(index), _CLASS_OF_LABEL[samples.labels[index]]
        inside = _frame(classes, camera)  # that the alignment would choose
        skull = samples.skull_radius[index].astype(np.float32)
        estimate = estimate_hair(_features(classes, inside, camera, skull), loaded)
        presence, thickness, trust = truth_of(samples, index)
        for name, mask in region_masks().items():
            counted = mask & (trust > 0.5)
            both = counted & (presence > 0.5) & (estimate.presence > 0.5)
            if both.sum() > 20:
                errors[name].append(float(np.abs(estimate.thickness - thickness)[both].mean()))
            if counted.any():
                right[name].append(float(((presence > 0.5) == (estimate.presence > 0.5))[counted].mean()))
    mae, accuracy = ({name: float(np.mean(v)) for name, v in table.items()} for table in (errors, right))
    return ThicknessFigures(mae, accuracy, len(samples))

"""What the diffusion stages learn from: heads as pictures that are read when asked for, and clips sampled from them.

    head = source.head(3)                                    # nothing is decoded yet
    clip = sample_clip(source, 3, ClipConfig(), rng)         # decodes the pictures of this clip alone

A clip follows the release's sampling: neighbouring views in the order of azimuth with one stride, a
front and a back reference from wider cones, and a control picture for each view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import assert_never

from ...cameras import Cameras
from ...diffusion.control_pictures import ray_control, start_of_control
from ...errors import InputError
from .head_pictures import HeadPictures, HeadSource

ControlKind = Literal["prior", "other", "rays"]
FRONT_WORLD, BACK_WORLD = (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)
"""Directions from the head to cameras straight before and straight behind it."""
_FRONT_WITHIN_DEG, _BACK_WITHIN_DEG = 45.0, 40.0
"""References that are views lie within these angles of straight before and straight behind the head."""
_BACK_TARGET_DEG = 20.0
_TRIES = 50
_EVEN_RAD = math.radians(0.2)
"""Steps of a ring that differ by less are equal; PanoHead's own ring uses 3.14 for pi."""


@dataclass(frozen=True)
class ClipConfig:
    """Which pictures of a head make a clip."""

    size_px: int = 256
    """Side of all pictures, pixels."""
    clip_length: int = 8
    """Views per clip; 1 gives single views."""
    stride_deg: tuple[float, float] = (10.0, 30.0)
    """Least and greatest angle between neighbouring views of a clip, degrees."""
    order: Literal["continuous", "random"] = "continuous"
    """continuous: in the order of azimuth with one random stride, round closed rings without an end; random: views from
    anywhere (the ablation)."""
    target: Literal["views", "back"] = "views"
    """views: as `order` says; back: one view within 20 degrees of straight behind, or of its azimuth where a head has
    none, whatever `clip_length` says."""
    control: ControlKind = "prior"
    """prior: the head's own prior, 7 channels; other: a random other head from the same or the nearest cameras, 3
    channels, as the release; rays: camera parameters, 7 channels."""
    portrait_share: float = 0.5
    """Share of clips whose front reference is the portrait, of heads that have one."""

    @property
    def control_channels(self) -> int:
        """Channels of a control picture."""
        return 3 if self.control == "other" else 7


@dataclass(frozen=True)
class TrainingClip:
    """Pictures of one head that are learned from together."""

    views: Float[Tensor, "f 3 s s"]
    """What is to be drawn, over white, [0, 1]."""
    alpha: Float[Tensor, "f 1 s s"]
    """Opacity of the views, [0, 1]; 1 where the source has none."""
    control: Float[Tensor, "f k s s"]
    """Control pictures, [-1, 1]."""
    start: Float[Tensor, "f 3 s s"]
    """Start views over white, [0, 1]: the prior, or the other head with `control="other"`; white without a prior."""
    front: Float[Tensor, "3 s s"]
    """Front reference over white, [0, 1]."""
    back: Float[Tensor, "3 s s"]
    """Back reference over white, [0, 1]."""
    cameras: Cameras
    """A camera for each view, of the pictures' size."""
    control_kind: ControlKind = "prior"
    """What the control pictures are."""

    def __len__(self) -> int:
        return self.views.shape[0]


def sample_clip(source: HeadSource, index: int, config: ClipConfig, rng: np.random.Generator) -> TrainingClip:
    """A random clip of one head; the same state of `rng` gives the same clip.

    Args:
        rng: source of randomness; it moves on.

    Raises:
        InputError: the head has too few views for what is asked, no view that shows its front or its back, no prior
            where one is asked for, or pictures that cannot be read.
    """
    head = source.head(index)
    cameras = head.cameras
    if not head.has_poses and config.control != "other":
        raise InputError(
            f"{head.name} has no cameras, only views of front and back: expected control other, got {config.control}"
        )
    views = _chosen_views(head, config, rng)
    size = config.size_px
    pictures = torch.stack([head.rgba(view, size) for view in views])
    control, start = _control_and_start(source, head, views, config, rng)
    front = _front_reference(head, config, rng)
    back = _back_reference(head, config, rng)
    return TrainingClip(
        views=composited(pictures),
        alpha=pictures[:, 3:],
        control=control,
        start=start,
        front=composited(front[None])[0],
        back=composited(back[None])[0],
        cameras=cameras[views].resized(size, size),
        control_kind=config.control,
    )


def composited(
    rgba: Float[Tensor, "n 4 h w"], background_rgb_unit: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Float[Tensor, "n 3 h w"]:
    """Straight pictures over a plain background, [0, 1]."""
    background = torch.tensor(background_rgb_unit, dtype=rgba.dtype).view(1, 3, 1, 1)
    return rgba[:, :3] * rgba[:, 3:] + background * (1 - rgba[:, 3:])


def psnr(made: Float[Tensor, "3 s s"], true: Float[Tensor, "3 s s"], alpha: Float[Tensor, "1 s s"]) -> dict[str, float]:
    """Peak signal-to-noise ratio of colours in [0, 1], dB: of the picture, and of what the head covers, if anything."""
    squared, covered = (made - true) ** 2, (alpha > 0.5).expand_as(true)
    parts = {"psnr": squared, "psnr_head": squared[covered]}
    return {name: -10 * float(p.mean().clamp(min=1e-10).log10()) for name, p in parts.items() if p.numel()}


def _chosen_views(head: HeadPictures, config: ClipConfig, rng: np.random.Generator) -> list[int]:
    """Numbers of the views to draw."""
    cameras = head.cameras
    if config.target == "back":
        return [int(rng.choice(_views_from_behind(head)))]
    if not 1 <= config.clip_length <= len(cameras):
        raise InputError(f"{head.name} has {len(cameras)} views; expected at least {config.clip_length} for a clip")
    if config.clip_length == 1:
        return [int(rng.integers(len(cameras)))]
    match config.order:
        case "random":
            return rng.permutation(len(cameras))[: config.clip_length].tolist()
        case "continuous":
            if not head.has_poses:
                raise InputError(f"{head.name} has no cameras; ask for single views, not clips of {config.clip_length}")
            low, high = (math.radians(angle) for angle in config.stride_deg)
            return continuous_views(cameras, config.clip_length, (low, high), rng, head.name)
        case _:
            assert_never(config.order)


def _control_and_start(
    source: HeadSource, head: HeadPictures, views: list[int], config: ClipConfig, rng: np.random.Generator
) -> tuple[Float[Tensor, "f k s s"], Float[Tensor, "f 3 s s"]]:
    """Control pictures and start views."""
    size = config.size_px
    match config.control:
        case "prior":
            if head.read_control is None:
                raise InputError(
                    f"{head.name} has no prior: expected pictures in control, control_validity and control_normals as "
                    "dp360 data heads writes them; choose control other or rays"
                )
            control = torch.stack([head.control(view, size) for view in views])
            return control, start_of_control(control)
        case "rays":
            control = ray_control(head.cameras[views].resized(size, size))
            if head.read_control is None:
                return control, torch.ones(len(views), 3, size, size)
            return control, start_of_control(torch.stack([head.control(view, size) for view in views]))
        case "other":
            start = composited(_other_head(source, head, views, size, rng))
            return 2 * start - 1, start
        case _:
            assert_never(config.control)


def _other_head(
    source: HeadSource, head: HeadPictures, views: list[int], size_px: int, rng: np.random.Generator
) -> Float[Tensor, "f 4 s s"]:
    """Another head from the cameras of the views, or from those of its own that are nearest to them."""
    own = [head.picture("driver", size_px, view) for view in views]
    given = [picture for picture in own if picture is not None]
    if len(given) == len(views):
        return torch.stack(given)
    if not head.has_poses:
        raise InputError(f"{head.name} lacks a picture in its folder camera; copy it back or leave the head out")
    for _ in range(_TRIES):
        other = source.head(int(rng.integers(len(source))))
        if other.name != head.name and other.has_poses:
            wanted, there = directions_world(head.cameras[views]), directions_world(other.cameras)
            nearest = (wanted @ there.T).argmax(dim=1).tolist()
            return torch.stack([other.rgba(view, size_px) for view in nearest])
    raise InputError(f"{source.name} has no second head to show as control; expected at least two heads with cameras")


def _front_reference(head: HeadPictures, config: ClipConfig, rng: np.random.Generator) -> Float[Tensor, "4 s s"]:
    """The portrait, or a view from the front."""
    wants_portrait = rng.random() < config.portrait_share
    choice = rng.random()
    portrait = head.picture("portrait", config.size_px) if wants_portrait else None
    if portrait is not None:
        return portrait
    near = _views_near(head, FRONT_WORLD, _FRONT_WITHIN_DEG, "a front reference")
    return head.rgba(near[int(choice * len(near))], config.size_px)


def _back_reference(head: HeadPictures, config: ClipConfig, rng: np.random.Generator) -> Float[Tensor, "4 s s"]:
    """A view from behind, or the picture from straight behind that is no view: each as often as any other."""
    choice = rng.random()
    straight = head.picture("back", config.size_px)
    near = _views_near(head, BACK_WORLD, _BACK_WITHIN_DEG, "" if straight is not None else "a back reference")
    pick = int(choice * (len(near) + (straight is not None)))
    return straight if pick == len(near) and straight is not None else head.rgba(near[pick], config.size_px)


def _views_from_behind(head: HeadPictures) -> list[int]:
    """Views near to straight behind, or, of heads that are seen from behind only from above or below, those."""
    near = _views_near(head, BACK_WORLD, _BACK_TARGET_DEG, "")
    if near:
        return near
    off_rad = math.pi - torch.remainder(head.cameras.azimuth_rad, 2 * math.pi)
    by_azimuth = torch.nonzero(off_rad.abs() <= math.radians(_BACK_TARGET_DEG) + 1e-6).flatten().tolist()
    return by_azimuth or _views_near(head, BACK_WORLD, _BACK_TARGET_DEG, "a view from behind to draw")


def _views_near(
    head: HeadPictures, direction: tuple[float, float, float], within_deg: float, needed_for: str
) -> list[int]:
    """Views whose cameras stand within an angle of a direction; without `needed_for` there may be none."""
    angles = angles_rad(head.cameras, direction)
    near = torch.nonzero(angles <= math.radians(within_deg) + 1e-6).flatten().tolist()
    if not near and needed_for:
        side = "before" if direction == FRONT_WORLD else "behind"
        raise InputError(
            f"{head.name} has no view within {within_deg:g} degrees of straight {side} the head, which {needed_for} "
            "needs; leave the head out or widen the angle"
        )
    return near


def directions_world(cameras: Cameras) -> Float[Tensor, "n 3"]:
    """Unit vectors from the head's middle to the cameras."""
    return F.normalize(cameras.position_world, dim=-1)


def angles_rad(cameras: Cameras, direction: tuple[float, float, float]) -> Float[Tensor, " n"]:
    """Angles between the cameras and a unit direction, seen from the head's middle."""
    cosines = directions_world(cameras) @ torch.tensor(direction, dtype=torch.float64)
    return torch.arccos(cosines.clamp(-1, 1))


def closed_rings(cameras: Cameras) -> list[list[int]]:
    """Runs of consecutive cameras that go once round the head in even steps, each in the order of growing azimuth.

    Their elevation may rise and sink on the way. Several rings may follow one another, and cameras that belong to none,
    such as the portrait's, may come before them.
    """
    azimuth = cameras.azimuth_rad
    steps = torch.remainder(azimuth.diff() + math.pi, 2 * math.pi) - math.pi
    rings: list[list[int]] = []
    first = 0
    while first < len(steps):
        last = first
        while last + 1 < len(steps) and abs(float(steps[last + 1] - steps[first])) < _EVEN_RAD:
            last += 1
        run, step = list(range(first, last + 2)), abs(float(steps[first : last + 1].mean()))
        size = round(2 * math.pi / step) if step > _EVEN_RAD else 0
        if size < 3 or len(run) < size or abs(size * step - 2 * math.pi) > 2 * _EVEN_RAD:
            first = last + 1
            continue
        found = [run[start : start + size] for start in range(0, len(run) - size + 1, size)]
        rings += found if float(steps[first]) > 0 else [ring[::-1] for ring in found]
        first += size * len(found)  # what is left of the run may begin the next ring
    return rings


def continuous_views(
    cameras: Cameras, count: int, stride_rad: tuple[float, float], rng: np.random.Generator, name: str
) -> list[int]:
    """Views in the order of azimuth from a random start, with one random stride.

    On closed rings the stride is a whole number of their steps, and the clip goes on over the end of the ring, as in
    the release (72 views, 2 to 6 steps of 5 degrees). Among cameras that form no ring each view is the one nearest to
    where the stride leads at the height of the view before.

    Args:
        count: views wanted, at least 2; none comes twice.
        stride_rad: least and greatest stride.

    Raises:
        InputError: no ring has enough views at such strides, or the cameras are too sparse.
    """
    rings = closed_rings(cameras)
    if not rings:
        return _nearest_along(cameras, count, stride_rad, rng, name)
    fitting = [(ring, strides) for ring in rings if (strides := _strides(len(ring), count, stride_rad))]
    if not fitting:
        sizes = ", ".join(str(len(ring)) for ring in rings)
        low, high = (math.degrees(angle) for angle in stride_rad)
        raise InputError(
            f"{name} has rings of {sizes} views: too few for {count} different ones that are {low:g} to {high:g} "
            "degrees apart; ask for shorter clips or other strides"
        )
    weights = np.array([len(ring) for ring, _ in fitting], np.float64)
    ring, strides = fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]
    start, stride = int(rng.integers(len(ring))), int(rng.choice(strides))
    return [ring[(start + k * stride) % len(ring)] for k in range(count)]


def _strides(ring_size: int, count: int, stride_rad: tuple[float, float]) -> list[int]:
    """Strides in steps of a ring that lie in the range and do not come round to the first view again."""
    step = 2 * math.pi / ring_size
    low = max(1, math.ceil(stride_rad[0] / step - 1e-6))
    high = math.floor(stride_rad[1] / step + 1e-6)
    return [stride for stride in range(low, high + 1) if (count - 1) * stride < ring_size]


def _nearest_along(
    cameras: Cameras, count: int, stride_rad: tuple[float, float], rng: np.random.Generator, name: str
) -> list[int]:
    """Unused views nearest to the points of a path round the head."""
    directions = directions_world(cameras)
    view, stride = int(rng.integers(len(cameras))), float(rng.uniform(*stride_rad))
    azimuth = float(cameras.azimuth_rad[view])
    chosen = [view]
    for _ in range(count - 1):
        azimuth += stride
        elevation = cameras.elevation_rad[chosen[-1]]
        wanted = torch.stack(
            [math.sin(azimuth) * elevation.cos(), elevation.sin(), math.cos(azimuth) * elevation.cos()]
        )
        nearness = directions @ wanted
        nearness[chosen] = -2
        best = int(nearness.argmax())
        if nearness[best] < math.cos(stride_rad[1]):
            raise InputError(
                f"{name} has no view within {math.degrees(stride_rad[1]):g} degrees of where a clip should go on; "
                "expected cameras all round the head, or order random"
            )
        chosen.append(best)
    return chosen

"""Which views of a head follow one another in a clip."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ...cameras import Cameras
from ...errors import InputError

_EVEN_RAD = math.radians(0.2)
"""Steps of a ring that differ by less are equal; PanoHead's own ring uses 3.14 for pi."""


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
        cameras: of all views.
        count: views wanted, at least 2; none comes twice.
        stride_rad: least and greatest stride.
        rng: source of randomness.
        name: of the head, for messages.

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


def random_views(cameras: Cameras, count: int, rng: np.random.Generator) -> list[int]:
    """Different views from anywhere, in any order."""
    return [int(view) for view in rng.permutation(len(cameras))[:count]]


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

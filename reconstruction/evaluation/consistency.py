"""Do views show one and the same head? Asked of the views themselves: no truth is needed.

- Held-out half: splats are fitted to every second view and compared with the others. What the views disagree about
  cannot be reproduced.
- Reprojection: the colours of a view, carried into its neighbour's picture through the depth of splats fitted to all
  views, and compared where both see the same surface. Seams between the windows of a sampler, or where the ring
  closes, stand out from the other pairs.

Source: the warping error of Lai et al., "Learning Blind Video Temporal Consistency", 2018, Eq. 8, with flow and
occlusion from depth and cameras instead of estimated ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dp360.generation import Cameras, InputError, ViewSet
from dp360.generation.progress import Track, silent

from ..splat_fit import SplatFitConfig, fit_splats
from ..splat_scene import Renderable, SplatScene
from ..splats import render_splats
from .compare import Comparison, over_white, view_figures
from .features import Perceptual

LEAST_VIEWS = 8
"""Fewer views cannot be halved."""
_SAME_SURFACE = 0.02
"""Surfaces nearer to each other than this are the same, world units (about 12 mm)."""
_SEAM_FACTOR = 2.0
"""A pair whose error is this many times the median of its ring is a seam."""
_RING_STEP_DEG = 8.0
"""Elevations that are nearer than this belong to one ring."""


@dataclass(frozen=True)
class PairFigures:
    """Two neighbours on a ring."""

    first: str
    """Name of the view into whose picture the other is carried."""
    second: str
    """Name of the other one."""
    azimuth_deg: float
    """Azimuth half-way between them, degrees in (-180, 180]."""
    elevation_deg: float
    """Mean elevation of their ring, degrees."""
    error: float
    """Root of the mean squared difference of colours in [0, 1] where both see the same surface, both ways; NaN where
    they share none."""
    shared: float
    """Share of the first head's pixels that the second sees as well, [0, 1]."""
    closes_ring: bool
    """Whether this pair closes the ring: the last view and the first."""
    seam: bool
    """Whether its error stands out from its ring."""


@dataclass(frozen=True)
class ConsistencyReport:
    """What views say of themselves."""

    held_out: Comparison
    """Every second view against splats fitted to the others."""
    pairs: tuple[PairFigures, ...]
    """Neighbours, ring by ring, from the back by growing azimuth; the last pair of a ring closes it."""

    @property
    def mean_error(self) -> float:
        """Mean of the pairs' errors, NaN without any."""
        errors = [p.error for p in self.pairs if not math.isnan(p.error)]
        return float(np.mean(errors)) if errors else math.nan


def measure_consistency(
    views: ViewSet, fit: SplatFitConfig, perceptual: Perceptual | None = None, *, seed: int = 0,
    device: str = "cpu", track: Track = silent,
) -> ConsistencyReport:  # fmt: skip
    """Both measures of a set of views. The portrait's own view, if it is one, takes part in the fits only.

    Args:
        views: at least `LEAST_VIEWS` views.
        fit: the fits to half of the views and to all of them.
        perceptual: the perceptual distance of the first measure.

    Raises:
        InputError: too few views.
    """
    if len(views) < LEAST_VIEWS:
        raise InputError(f"Consistency needs at least {LEAST_VIEWS} views, got {len(views)}")
    order = [i for ring in rings(views.cameras) for i in ring if views.names[i] != "portrait"]
    held = sorted(order[1::2])
    kept = [i for i in range(len(views)) if i not in set(held)]
    generator = torch.Generator().manual_seed(seed)
    half = fit_splats(views.select(kept), fit, generator, track=track, device=device)
    shown = zip(*render_splats(half, views.cameras[held]), held)
    rows = [
        view_figures(views, index, rgb.float().numpy(), alpha.float().numpy(), *over_white(views, index), perceptual)
        for rgb, alpha, index in shown
    ]
    rows.sort(key=lambda row: (row.azimuth_deg, row.elevation_deg, row.name))
    held_out = Comparison(tuple(rows), None if perceptual is None else perceptual.name, ())
    whole = fit_splats(views, fit, generator.manual_seed(seed), track=track, device=device)
    return ConsistencyReport(held_out, reprojection(views, SplatScene(whole), track=track))


def reprojection(views: ViewSet, scene: Renderable, *, track: Track = silent) -> tuple[PairFigures, ...]:
    """Errors of all neighbours on each ring.

    Args:
        views: the views; one named `portrait` belongs to no ring.
        scene: what gives their depth, of the same head.
    """
    found: list[PairFigures] = []
    for ring in rings(views.cameras):
        ring = [i for i in ring if views.names[i] != "portrait"]
        if len(ring) < 2:
            continue
        depth = dict(zip(ring, scene.render(views.cameras[ring]).depth))
        pairs = list(zip(ring, ring[1:] + ring[:1])) if len(ring) > 2 else [(ring[0], ring[1])]
        figures = []
        for number, (i, j) in enumerate(track(pairs, total=len(pairs), description="Neighbours")):
            forth, back = (_carried(views, a, b, depth[a], depth[b]) for a, b in ((i, j), (j, i)))
            squares = np.concatenate([forth[0], back[0]])
            error = math.sqrt(float(squares.mean())) if squares.size else math.nan
            figures.append((i, j, error, forth[1], number == len(pairs) - 1 and len(ring) > 2))
        typical = float(np.nanmedian([f[2] for f in figures])) if not all(math.isnan(f[2]) for f in figures) else 0.0
        elevation = math.degrees(float(views.cameras.elevation_rad[ring].mean()))
        for i, j, error, shared, closes in figures:
            a, b = (float(views.cameras.azimuth_rad[k]) for k in (i, j))
            half_way = a + math.remainder(b - a, 2 * math.pi) / 2
            middle = math.degrees(math.remainder(half_way, 2 * math.pi))
            seam = typical > 0 and error > _SEAM_FACTOR * typical
            found.append(PairFigures(views.names[i], views.names[j], middle, elevation, error, shared, closes, seam))
    return tuple(found)


def rings(cameras: Cameras) -> list[list[int]]:
    """Indices of cameras at about the same elevation, each ring in the order of azimuth, the lowest ring first."""
    elevation = torch.rad2deg(cameras.elevation_rad)
    groups: list[list[int]] = []
    for index in torch.argsort(elevation, stable=True).tolist():
        if groups and float(elevation[index] - elevation[groups[-1][0]]) < _RING_STEP_DEG:
            groups[-1].append(index)
        else:
            groups.append([index])
    azimuth = cameras.azimuth_rad
    return [sorted(group, key=lambda i: (round(float(azimuth[i]), 6), i)) for group in groups]


def _carried(
    views: ViewSet, i: int, j: int, depth_i: Float[Tensor, "h w"], depth_j: Float[Tensor, "h w"]
) -> tuple[Float[np.ndarray, " p"], float]:  # fmt: skip
    """Squared differences of colour of view i and of what view j shows of the same surface, and the shared part."""
    rgba_i, rgba_j = (views.rgba[k].numpy().astype(np.float32) / 255 for k in (i, j))
    solid: Bool[np.ndarray, "h w"] = (rgba_i[..., 3] > 0.9) & (depth_i.numpy() > 0)
    rows, columns = np.nonzero(solid)
    if not len(rows):
        return np.zeros(0), 0.0
    camera = views.cameras[i]
    pixels = np.stack([columns, rows], axis=1) + 0.5
    rays = (pixels - camera.principal_px[0].numpy()) / camera.focal_px[0].numpy()
    points = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * depth_i.numpy()[solid][:, None]
    T = camera.T_world_camera[0].double()
    world = torch.from_numpy(points) @ T[:3, :3].T + T[:3, 3]
    uvz = views.cameras[j].project(world)[0].float().numpy()
    u, v = (np.full(solid.shape, -1, np.float32) for _ in range(2))
    u[solid], v[solid] = uvz[:, 0] - 0.5, uvz[:, 1] - 0.5

    def at(picture: Float[np.ndarray, "h w *c"]) -> Float[np.ndarray, "p ..."]:
        return cv2.remap(picture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)[solid]

    other = at(rgba_j)
    seen = (np.abs(at(depth_j.numpy()) - uvz[:, 2]) < _SAME_SURFACE) & (other[:, 3] > 0.9)
    difference = (rgba_i[solid][seen, :3] - other[seen, :3]) ** 2
    return difference.mean(-1), float(seen.mean())

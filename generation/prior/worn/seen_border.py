"""Headgear's border as the portrait shows it: a level follows the labels where they are seen, and goes on from there.

Curves and fields say where headgear ends behind. In front the picture says it, cell by cell; what a curve is off there
fades out over the cells that are not seen, so that the rim has no step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from ...cameras import PANOHEAD_RADIUS, UNITS_PER_MM
from ...head_model.anatomy import ramp
from ...portrait import Portrait
from .. import capsule
from ..labels.portrait_labels import PortraitLabels, project_px
from .rim import HEM_BEYOND, HEM_MM, without_specks

_FACING, _FACING_OF_HATS = (0.12, 0.4), (0.35, 0.7)
"""Cosines between surface or ray and line of sight from which on a cell counts, and from which on fully. The rim of a
hat has a curve to go by: at the outline, where pixels say little about how far back it lies, they would bend it."""
_MOST_CELLS = 8.0
"""Levels are told up to so many cells from the border."""
_REACH_CELLS = 7.0
"""How far differences fade out over what is not seen: deviation of a Gaussian."""
_SMALL = 0.03
"""Pieces of other things that are smaller than this share of the headgear are mistakes in it."""
_SMOOTHING = 2.0 / 512
"""Of the border: deviation of a Gaussian, of the picture's side."""


@dataclass(frozen=True)
class SeenBorder:
    """How far each pixel of a portrait lies within its headgear."""

    portrait: Portrait
    """Of the picture's camera."""
    inward_px: Float[np.ndarray, "s s"]
    """Distance to the nearest pixel that shows something else of the person, less what a hem reaches beyond a rim;
    negative off the headgear."""
    told: Float[np.ndarray, "s s"]
    """1 where the pixel says something, 0 at the background."""

    @classmethod
    def of(cls, portrait: Portrait, labels: PortraitLabels, headgear: Bool[np.ndarray, "s s"]) -> SeenBorder:
        """The border of a portrait's headgear.

        Args:
            portrait: aligned portrait.
            labels: its classes.
            headgear: its pixels of headgear.
        """
        other = (labels.skin | labels.cloth | (labels.hair & (labels.headgear_share <= 0.5))) & portrait.inside
        pieces, count = cast("tuple[np.ndarray, int]", ndimage.label(other))
        area = np.bincount(pieces.ravel(), minlength=count + 1)
        speck = other & (area < _SMALL * headgear.sum())[pieces]
        headgear, other = headgear | speck, other & ~speck
        inside, outside = (
            cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5).astype(np.float64)
            for mask in (other, headgear)
        )
        sigma = _SMOOTHING * portrait.size_px
        inward = ndimage.gaussian_filter(np.where(headgear, inside, -outside), sigma)
        px_per_mm = float(portrait.head.camera.focal_px[0, 0]) / PANOHEAD_RADIUS * UNITS_PER_MM
        inward -= HEM_BEYOND * HEM_MM * px_per_mm
        told = ndimage.uniform_filter((headgear | other).astype(np.float64), 3)
        return cls(portrait, inward, told)

    def on_surface(
        self, radius: Float[np.ndarray, "rows columns"], facing_range: tuple[float, float] = _FACING
    ) -> tuple[Float[np.ndarray, "rows columns"], Float[np.ndarray, "rows columns"]]:
        """Level of a surface's cells, in rows of the grid, and how far the portrait shows it, [0, 1].

        Args:
            radius: of the surface, world units.
            facing_range: cosines from which on a cell counts, and from which on fully.
        """
        points = capsule.surface_points(radius)
        down = np.gradient(points, axis=0)
        around = np.roll(points, -1, axis=1) - np.roll(points, 1, axis=1)
        away = _unit(self.portrait.head.camera.position_world[0].numpy() - points)
        # a ray tells it too: towards its rim a surface may be steep
        facing = ((_unit(np.cross(down, around)) * away).sum(-1), (capsule.grid_rays()[1] * away).sum(-1))
        uv = project_px(self.portrait.head.camera, points)
        pixel = np.floor(uv).astype(np.int64)
        size = len(self.told)
        framed = ((pixel >= 0) & (pixel < size)).all(-1)
        at = np.moveaxis(np.clip(uv - 0.5, 0, size - 1), -1, 0)[::-1]
        inward, told = (ndimage.map_coordinates(image, at, order=1) for image in (self.inward_px, self.told))
        row_px = np.linalg.norm(np.gradient(uv, axis=0), axis=-1)
        level = np.clip(inward / np.maximum(row_px, 1.0), -_MOST_CELLS, _MOST_CELLS)
        return level, ramp(np.maximum(*facing), *facing_range) * np.where(framed, told, 0.0)

    def followed_by(
        self, level: Float[np.ndarray, "rows columns"], radius: Float[np.ndarray, "rows columns"], *,
        mirrored: bool = False,
    ) -> Float[np.ndarray, "rows columns"]:  # fmt: skip
        """A level that has the seen border where it is seen, and passes over into itself elsewhere.

        Args:
            level: positive on the headgear, in rows.
            radius: of its surface, world units.
            mirrored: what is not seen is the mirror image of what is, as of cloth that hangs; a hat's is its level.
        """
        seen, weight = self.on_surface(radius, _FACING if mirrored else _FACING_OF_HATS)
        if mirrored:
            turned = -np.arange(level.shape[1]) % level.shape[1]
            other = weight[:, turned] * (1 - weight)
            seen = (weight * seen + other * seen[:, turned]) / np.maximum(weight + other, 1e-6)
            weight = weight + other
        level = np.clip(level, -_MOST_CELLS, _MOST_CELLS)
        difference = seen - level
        border = weight * np.exp(-0.5 * (np.minimum(np.abs(seen), np.abs(level)) / 2) ** 2)  # elsewhere it says little
        near = np.maximum(capsule.smooth_over_columns(border, _REACH_CELLS, _REACH_CELLS), 1e-6)
        mean = capsule.smooth_over_columns(border * difference, _REACH_CELLS, _REACH_CELLS) / near
        fade = np.exp(-0.5 * (_cells_from(border > 0.5) / _REACH_CELLS) ** 2)
        result = without_specks(level + weight * difference + (1 - weight) * fade * mean)
        result[0] = result[0].mean()  # the pole is one place
        return result


def _unit(vectors: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _cells_from(known: Bool[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Distance to the nearest known cell, round the axis; infinite without any."""
    if not known.any():
        return np.full(known.shape, np.inf)
    turns = np.concatenate([~known] * 3, axis=1)
    away = np.asarray(ndimage.distance_transform_edt(turns))
    return away[:, known.shape[1] : 2 * known.shape[1]]

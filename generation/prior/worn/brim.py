"""Brims and peaks: thin solids that stand out from a hat's rim, found by the outline that they give the headgear.

Brims go all round, peaks are in front. Both are few numbers: how far they reach and how they slope. The numbers are
those with which the hat covers, in the portrait's view, what is labelled as headgear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from ...cameras import UNITS_PER_CM, Cameras
from ...mesh_raster import rasterize_mesh
from .. import capsule

BrimKind = Literal["brim", "peak"]
_COLUMNS = capsule.COLUMNS
_PEAK_HALF_RAD = math.radians(62.0)
"""A peak reaches so far to either side."""
_PEAK_DROP = 0.16
"""Its sides hang by this share of its reach."""
_REACHES_CM: dict[BrimKind, tuple[float, ...]] = {"brim": (2.0, 3.5, 5.0, 6.5, 8.5), "peak": (4.0, 5.5, 7.0)}
_SLOPES: dict[BrimKind, tuple[float, ...]] = {"brim": (0.15, -0.1, -0.3, -0.5, -0.75), "peak": (0.0, -0.2, -0.4, -0.6)}
"""Sizes and slopes (rise per length) that are tried."""
_RASTER_SIZE = 192
_HALF_THICK_CM = 0.11
_SHEET_ROWS = 8
_ROOT = -0.06
"""The solid begins so far inside the hat, of its reach."""


@dataclass(frozen=True)
class Brim:
    """What stands out from a rim."""

    kind: BrimKind
    """All round, or in front."""
    base_world: Float[np.ndarray, "128 3"]
    """Points of the rim, one for each column of the capsule grid, world units."""
    away_world: Float[np.ndarray, "128 3"]
    """From there to its edge; zero where nothing stands out."""

    def sheet_world(self) -> Float[np.ndarray, "16 129 3"]:
        """Its surface as a closed grid: the upper side from the rim outwards, then the lower side back to it."""
        across = np.roll(self.base_world, -1, axis=0) - np.roll(self.base_world, 1, axis=0)
        normal = np.cross(self.away_world, across)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        normal *= np.where(normal[:, 1:2] < 0, -1.0, 1.0)
        out = np.linspace(_ROOT, 1, _SHEET_ROWS)[:, None, None]
        there = np.linalg.norm(self.away_world, axis=-1) > 0.3 * UNITS_PER_CM
        half = _HALF_THICK_CM * UNITS_PER_CM * np.sqrt(np.clip(1 - out, 0, 1)) ** 0.5 * there[None, :, None]
        middle = self.base_world + out * self.away_world
        sheet = np.concatenate([middle + half * normal, (middle - half * normal)[::-1]])
        return np.concatenate([sheet, sheet[:, :1]], axis=1)


def brim_of(kind: BrimKind, base_world: Float[np.ndarray, "128 3"], reach_cm: float, slope: float) -> Brim:
    """A brim or peak.

    Args:
        base_world: points of the rim for each column of the capsule grid.
        reach_cm: how far it stands out.
        slope: rise per length.
    """
    reach = reach_cm * UNITS_PER_CM
    if kind == "brim":
        away = base_world - base_world.mean(0)
        away[:, 1] = 0
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        away[:, 1] = slope
        return Brim(kind, base_world, reach * away)
    azimuth = np.arange(_COLUMNS) * (2 * math.pi / _COLUMNS)
    azimuth = (azimuth + math.pi) % (2 * math.pi) - math.pi
    across = np.clip(azimuth / _PEAK_HALF_RAD, -1, 1)
    length = reach * np.sqrt(1 - across**2)
    zero = np.zeros_like(length)
    return Brim(kind, base_world, np.stack([zero, (slope - _PEAK_DROP * across**2) * length, length], axis=1))


class _Seen(NamedTuple):
    """The portrait's headgear at raster size."""

    camera: Cameras
    headgear: Bool[np.ndarray, "r r"]
    counted: Bool[np.ndarray, "r r"]


class BrimFit(NamedTuple):
    """A hat with what stands out of it, as it agrees with the portrait."""

    brim: Brim | None
    overlap: float
    """Intersection over union of the hat and of what is labelled as headgear."""


class BrimSearch:
    """Compares hats with and without brims with what is labelled as headgear in a portrait."""

    def __init__(self, camera: Cameras, headgear: Bool[np.ndarray, "s s"], counted: Bool[np.ndarray, "s s"]) -> None:
        """Prepare.

        Args:
            camera: the portrait's.
            headgear: its pixels of headgear.
            counted: pixels that say anything.
        """
        self._seen = _Seen(camera.resized(_RASTER_SIZE, _RASTER_SIZE), *(_small(mask) for mask in (headgear, counted)))

    def without(
        self, vertices_world: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], is_hat: Bool[np.ndarray, " f"]
    ) -> BrimFit:
        """A hat that has none.

        Args:
            vertices_world, faces: of head, hair and hat.
            is_hat: faces of the hat.
        """
        fragments = rasterize_mesh(vertices_world, faces, self._seen.camera)
        return BrimFit(None, self._overlap(np.append(is_hat, False)[fragments.triangle_index]))

    def best(
        self, kind: BrimKind, base_world: Float[np.ndarray, "128 3"],
        vertices_world: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], is_hat: Bool[np.ndarray, " f"],
    ) -> BrimFit:  # fmt: skip
        """The brim or peak that agrees best.

        Args:
            kind: which.
            base_world: points of the rim.
            vertices_world, faces, is_hat: as of `without`.
        """
        fragments = rasterize_mesh(vertices_world, faces, self._seen.camera)
        hat = np.append(is_hat, False)[fragments.triangle_index]
        found = BrimFit(None, 0.0)
        for reach_cm in _REACHES_CM[kind]:
            for slope in _SLOPES[kind]:
                brim = brim_of(kind, base_world, reach_cm, slope)
                sheet = brim.sheet_world()
                grid = capsule.grid_faces(len(sheet), _COLUMNS)
                depth = rasterize_mesh(sheet.reshape(-1, 3), grid, self._seen.camera).depth
                overlap = self._overlap(hat | (depth < fragments.depth))
                if overlap > found.overlap:
                    found = BrimFit(brim, overlap)
        return found

    def _overlap(self, hat: Bool[np.ndarray, "r r"]) -> float:
        both = hat & self._seen.headgear & self._seen.counted
        either = (hat | self._seen.headgear) & self._seen.counted
        return float(both.sum() / max(int(either.sum()), 1))


def _small(mask: Bool[np.ndarray, "s s"]) -> Bool[np.ndarray, "r r"]:
    share: Float32[np.ndarray, "r r"] = cv2.resize(
        mask.astype(np.float32), (_RASTER_SIZE,) * 2, interpolation=cv2.INTER_AREA
    )
    return share > 0.5

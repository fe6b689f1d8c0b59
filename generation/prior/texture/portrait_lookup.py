"""What a picture shows of surface points: visibility against the fitted mesh, colour, class and trust."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from ...cameras import Cameras
from ...mesh_raster import rasterize_mesh
from ...numba_pool import numba_pool
from ...portrait import Portrait
from ..labels.portrait_labels import PortraitLabels
from ..labels.segmenter import ACCESSORY, GLASSES
from ..worn.glasses import Glasses
from .atlas import AtlasMesh, AtlasTexels, Tile

_MIRROR = np.array([-1.0, 1.0, 1.0], np.float32)
"""Factor that reflects points and normals about the head's middle plane."""
_COSINES = (0.12, 0.5)
_DEPTH_TOLERANCE, _MIRROR_DEPTH_TOLERANCE = 0.006, 0.015
"""Slack of the visibility test, world units; more for reflected points, because heads are not quite symmetric."""
_DEPTH_SUPERSAMPLE = 2
_WORN = 0.5
"""From this probability on, pixels are glasses or jewellery."""


@dataclass(frozen=True)
class SeenPoints:
    """What a picture says about surface points: n of them, or those of a tile's texels (h w)."""

    colour: Float32[np.ndarray, "*n 3"]
    """Foreground colour where each point projects, whether it is visible or not."""
    trust: Float32[np.ndarray, "*n"]
    """1 where it is plainly visible and the matte is solid, 0 where it is hidden."""
    classes: Float32[np.ndarray, "*n 3"]
    """Probability of skin, hair and cloth there."""

    def __getitem__(self, chosen: np.ndarray | slice) -> SeenPoints:
        return SeenPoints(self.colour[chosen], self.trust[chosen], self.classes[chosen])

    def divided_by(self, shade: Float32[np.ndarray, "*n 3"]) -> SeenPoints:
        """The points without light that is such a factor on sRGB colours."""
        return SeenPoints(self.colour / shade, self.trust, self.classes)


@dataclass(frozen=True)
class PictureOfMesh:
    """A picture prepared for look-ups from a surface."""

    camera: Cameras
    """One camera of the picture's size."""
    image: Float32[np.ndarray, "s s 7"]
    """Channels: foreground colour (3), probabilities of skin, hair and cloth (3), trust in the pixel (1)."""
    depth: Float32[np.ndarray, "d d"]
    """Camera depth of the nearest surface, supersampled."""

    @staticmethod
    def of(camera: Cameras, image: Float32[np.ndarray, "s s 7"], mesh: AtlasMesh) -> PictureOfMesh:
        """The picture with the depth of the mesh from its camera."""
        depth = rasterize_mesh(mesh.vertices_world, mesh.faces, camera, supersample=_DEPTH_SUPERSAMPLE).depth
        return PictureOfMesh(camera, image, depth)

    def look_up_both(
        self, points_world: Float[np.ndarray, "n 3"], normals_world: Float[np.ndarray, "n 3"]
    ) -> tuple[SeenPoints, SeenPoints]:
        """What the picture shows of surface points, and of their mirror images.

        Args:
            points_world: the points.
            normals_world: their unit normals.
        """
        return self.look_up(points_world, normals_world), self.look_up_mirrored(points_world, normals_world)

    def look_up_mirrored(
        self, points_world: Float[np.ndarray, "n 3"], normals_world: Float[np.ndarray, "n 3"]
    ) -> SeenPoints:
        """What the picture shows of the mirror images of surface points; arguments as of `look_up_both`."""
        return self.look_up(points_world * _MIRROR, normals_world * _MIRROR, _MIRROR_DEPTH_TOLERANCE)

    def look_up(
        self,
        points_world: Float[np.ndarray, "n 3"],
        normals_world: Float[np.ndarray, "n 3"],
        tolerance: float = _DEPTH_TOLERANCE,
        cosines: tuple[float, float] = _COSINES,
    ) -> SeenPoints:
        """What the picture shows of surface points.

        Args:
            points_world: the points.
            normals_world: their unit normals.
            tolerance: slack of the visibility test, world units.
            cosines: between normal and view: below the first a point does not count as seen, above the second fully.
        """
        with numba_pool(len(points_world)):
            values, trust = _look_up(
                np.ascontiguousarray(points_world, dtype=np.float32),
                np.ascontiguousarray(normals_world, dtype=np.float32),
                self.camera.T_camera_world[0].numpy(),
                self.camera.focal_px[0].numpy(),
                self.camera.principal_px[0].numpy(),
                self.camera.position_world[0].numpy(),
                self.image,
                self.depth,
                tolerance,
                *cosines,
            )
        return SeenPoints(values[:, :3].copy(), trust, values[:, 3:6].copy())  # the rest of `values` may go


def seen_in_tile(texels: AtlasTexels, chosen: Int[np.ndarray, " n"], seen: SeenPoints, tile: Tile) -> SeenPoints:
    """What the portrait says about the texels of one tile, as pictures; 0 off the mesh.

    Args:
        texels: of the atlas.
        chosen: numbers of the tile's texels.
        seen: what the portrait shows of them.
        tile: column, row, width and height in the atlas.
    """
    x, y, width, height = texels.painted_tile(tile)
    place = (texels.rows[chosen] - y, texels.columns[chosen] - x)
    images = []
    for values in (seen.colour, seen.trust, seen.classes):
        image = np.zeros((height, width, *values.shape[1:]), np.float32)
        image[place] = values
        image[:, -1] = image[:, 0]  # the seam column belongs to the next turn
        images.append(image)
    return SeenPoints(*images)


def picture_of_portrait(
    portrait: Portrait, labels: PortraitLabels, mesh: AtlasMesh, glasses: Glasses | None = None
) -> PictureOfMesh:
    """The portrait as a picture of the prior's mesh.

    Pixels are not trusted whose matte is not solid, nor those that show glasses or jewellery.

    Args:
        glasses: that are worn; None for none.
    """
    size = portrait.size_px
    solid = cv2.erode(portrait.alpha_unit.astype(np.float32), np.ones((size // 128 + 1,) * 2, np.uint8))
    inside = cv2.erode(portrait.inside.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=(1,)).astype(np.float32)
    trust = np.clip((solid - 0.6) / 0.3, 0.0, 1.0) * inside
    covered = _covered(labels) if glasses is None else (_covered(labels) & ~glasses.clear) | glasses.hidden
    trust = np.where(covered, np.float32(0), trust)
    classes = np.stack([labels.skin, labels.hair, labels.cloth], axis=-1).astype(np.float32)
    image = np.concatenate([portrait.foreground_unit, classes, trust[..., None]], axis=-1).astype(np.float32)
    return PictureOfMesh.of(portrait.head.camera, image, mesh)


def _covered(labels: PortraitLabels) -> Bool[np.ndarray, "s s"]:
    """Pixels of glasses and jewellery on skin and hair, and their rims."""
    worn = (labels.classes[..., (GLASSES, ACCESSORY)].sum(-1) > _WORN) & ~labels.cloth
    width = 2 * (len(worn) // 256) + 1
    return cv2.dilate(worn.astype(np.uint8), np.ones((width, width), np.uint8)) > 0


@numba.njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _look_up(points, normals, T, focal, principal, eye, image, depth, tolerance, grazing, frontal):
    """Project, test visibility against the depth map and sample bilinearly, point by point."""
    n = points.shape[0]
    size, channels = image.shape[0], image.shape[2]
    samples = depth.shape[0] // size
    values = np.zeros((n, channels), np.float32)
    confidence = np.zeros(n, np.float32)
    for i in numba.prange(n):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        cx = T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]
        cy = T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3]
        cz = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]
        u = focal[0] * cx / cz + principal[0]
        v = focal[1] * cy / cz + principal[1]
        left = min(max(u - 0.5, 0.0), size - 1.001)
        top = min(max(v - 0.5, 0.0), size - 1.001)
        column, row = int(left), int(top)
        fu, fv = left - column, top - row
        for c in range(channels):
            upper = image[row, column, c] * (1 - fu) + image[row, column + 1, c] * fu
            lower = image[row + 1, column, c] * (1 - fu) + image[row + 1, column + 1, c] * fu
            values[i, c] = upper * (1 - fv) + lower * fv
        if u <= 1 or v <= 1 or u >= size - 1 or v >= size - 1:
            continue
        if cz >= depth[int(v * samples), int(u * samples)] + tolerance:
            continue
        dx, dy, dz = eye[0] - x, eye[1] - y, eye[2] - z
        cosine = normals[i, 0] * dx + normals[i, 1] * dy + normals[i, 2] * dz
        cosine /= math.sqrt(dx * dx + dy * dy + dz * dz)
        facing = min(max((cosine - grazing) / (frontal - grazing), 0.0), 1.0)
        confidence[i] = facing * values[i, channels - 1]
    return values, confidence

"""The bald surface of a head, and how far any point is from skin and cloth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import KDTree

from ...mesh import vertex_normals
from ...prior import capsule
from ..parts import Part

_LOW = np.array([-0.42, -0.46, -0.36])
_HIGH = np.array([0.42, 0.32, 0.32])
_STEP = 0.0125


def nearest_cells(
    points_world: Float[np.ndarray, "n 3"],
) -> tuple[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]], Float[np.ndarray, " n"]]:
    """Rows and columns of the capsule grid's cells that points are nearest to, and the points' radii there."""
    row, column, radius = capsule.cell_coordinates(points_world)
    rows = np.clip(row.round().astype(int), 0, capsule.ROWS - 1)
    return (rows, column.round().astype(int) % capsule.COLUMNS), radius


def height_over_skull(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, " v"]:
    """How far vertices stand off the head without ears and nose (`capsule.opened_skull_radius`), world units."""
    cells, radius = nearest_cells(vertices)
    return radius - capsule.opened_skull_radius(vertices, faces)[cells]


@dataclass(frozen=True)
class SkinDistance:
    """Signed distance to a surface on a grid, world units, negative inside."""

    values: Float32[np.ndarray, "x y z"]
    """Distances at the grid's nodes."""

    def __call__(
        self, points_world: Float[np.ndarray, "n 3"]
    ) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, "n 3"]]:
        """Distance and unit outward direction at any points; outside the grid, those of its border."""
        return _sample_field(self.values, points_world.astype(np.float64), _LOW, _STEP)

    def pushed_out(
        self, points_world: Float[np.ndarray, "*n 3"], margin: Float[np.ndarray, "*m"] | float
    ) -> Float[np.ndarray, "*n 3"]:
        """Points moved outwards until they keep a distance of `margin`."""
        flat = points_world.reshape(-1, 3).copy()
        wanted = np.broadcast_to(margin, points_world.shape[:-1]).reshape(-1)
        for _ in range(2):
            distance, outward = self(flat)
            flat += outward * np.maximum(0, wanted - distance)[:, None]
        return flat.reshape(points_world.shape)


def skin_distance(
    vertices: Float[np.ndarray, "v 3"], normals: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> SkinDistance:
    """Distance to the nearest vertex or triangle centre, signed by its normal."""
    used = np.unique(faces)
    points, outward = vertices[used], normals[used]
    large = faces[np.linalg.norm(vertices[faces[:, 0]] - vertices[faces[:, 1]], axis=1) > _STEP]
    points, outward = (
        np.concatenate([points, vertices[large].mean(1)]),
        np.concatenate([outward, normals[large].mean(1)]),
    )
    tree = KDTree(points, leafsize=16)

    def signed_distance(grid: Float[np.ndarray, "n 3"], slack: float) -> Float[np.ndarray, " n"]:
        distance, nearest = tree.query(grid, k=1, eps=slack)
        along = ((grid - points[nearest]) * outward[nearest]).sum(1)
        # near the surface the plane of the nearest point is more exact than the distance to the point itself
        return np.where(distance < 1.5 * _STEP, along, np.where(along < 0, -distance, distance))

    # far from the surface every fourth node is enough; the others are interpolated
    coarse = np.stack(np.meshgrid(*(_axis(k)[::4] for k in range(3)), indexing="ij"), axis=-1)
    values = signed_distance(coarse.reshape(-1, 3), 0.3).reshape(coarse.shape[:3])
    for axis in range(3):
        values = _four_times(values, axis)
    values = values[tuple(slice(len(_axis(k))) for k in range(3))]
    near = np.abs(values) < 6 * _STEP
    near &= values > -3.5 * _STEP
    values[near] = signed_distance(np.stack([_axis(k)[i] for k, i in enumerate(np.nonzero(near))], axis=1), 0.0)
    return SkinDistance(values.astype(np.float32))


def _axis(k: int) -> Float[np.ndarray, " n"]:
    return _LOW[k] + _STEP * np.arange(4 * int((_HIGH[k] - _LOW[k]) / _STEP / 4) + 1)


def _four_times(values: Float[np.ndarray, "x y z"], axis: int) -> Float[np.ndarray, "x2 y2 z2"]:
    """Three interpolated values between each two along an axis."""
    first, second = np.moveaxis(values, axis, 0)[:-1], np.moveaxis(values, axis, 0)[1:]
    fine = np.stack([first + (second - first) * (k / 4) for k in range(4)], axis=1).reshape(-1, *first.shape[1:])
    return np.moveaxis(np.concatenate([fine, second[-1:]]), 0, axis)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _sample_field(values, points, low, step):
    n = points.shape[0]
    distance = np.empty(n, np.float32)
    outward = np.empty((n, 3), np.float32)
    sx, sy, sz = values.shape
    for i in range(n):
        x = min(max((points[i, 0] - low[0]) / step, 0.0), sx - 1.001)
        y = min(max((points[i, 1] - low[1]) / step, 0.0), sy - 1.001)
        z = min(max((points[i, 2] - low[2]) / step, 0.0), sz - 1.001)
        a, b, c = int(x), int(y), int(z)
        u, v, w = x - a, y - b, z - c
        c000, c100 = values[a, b, c], values[a + 1, b, c]
        c010, c110 = values[a, b + 1, c], values[a + 1, b + 1, c]
        c001, c101 = values[a, b, c + 1], values[a + 1, b, c + 1]
        c011, c111 = values[a, b + 1, c + 1], values[a + 1, b + 1, c + 1]
        gx = ((c100 - c000) * (1 - v) + (c110 - c010) * v) * (1 - w) + ((c101 - c001) * (1 - v) + (c111 - c011) * v) * w
        gy = ((c010 - c000) * (1 - u) + (c110 - c100) * u) * (1 - w) + ((c011 - c001) * (1 - u) + (c111 - c101) * u) * w
        gz = ((c001 - c000) * (1 - u) + (c101 - c100) * u) * (1 - v) + ((c011 - c010) * (1 - u) + (c111 - c110) * u) * v
        low_z = (c000 * (1 - u) + c100 * u) * (1 - v) + (c010 * (1 - u) + c110 * u) * v
        high_z = (c001 * (1 - u) + c101 * u) * (1 - v) + (c011 * (1 - u) + c111 * u) * v
        distance[i] = low_z * (1 - w) + high_z * w
        length = max(np.sqrt(gx * gx + gy * gy + gz * gz), 1e-9)
        outward[i, 0], outward[i, 1], outward[i, 2] = gx / length, gy / length, gz / length
    return distance, outward


@dataclass(frozen=True)
class HeadSurface:
    """The skin of a head without hair, with its anatomy."""

    vertices: Float[np.ndarray, "v 3"]
    """World units."""
    normals: Float[np.ndarray, "v 3"]
    """Unit outward normals."""
    faces: Int[np.ndarray, "f 3"]
    """Outer skin only."""
    rest_cm: Float[np.ndarray, "v 3"]
    """The same vertices on the average head, centimetres as in `anatomy.centimetres`: anatomy is looked up there."""
    is_ear: Bool[np.ndarray, " v"]
    """Vertices of the ears."""
    eyes: Float[np.ndarray, "2 3"]
    """Middles of the eyeballs, world units, the head's right (-x) first."""
    field: SkinDistance
    """Distance to skin and clothes."""


def head_surface(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], rest_cm: Float[np.ndarray, "v 3"],
    is_ear: Bool[np.ndarray, " v"], eyes: Float[np.ndarray, "2 3"],
    clothes: Sequence[Part] = (),
) -> HeadSurface:  # fmt: skip
    """A surface with normals and distances.

    Args:
        vertices: of the skin, world units.
        faces: of the outer skin, counter-clockwise from outside.
        rest_cm: where each vertex lies on the average head.
        is_ear: vertices of the ears.
        eyes: middles of the eyeballs.
        clothes: garments, which hair must not enter either.
    """
    normals = vertex_normals(vertices, faces)
    starts = np.cumsum([len(vertices), *(len(part.vertices_world) for part in clothes)])
    distances = skin_distance(
        np.concatenate([vertices, *(part.vertices_world for part in clothes)]),
        np.concatenate([normals, *(vertex_normals(part.vertices_world, part.faces) for part in clothes)]),
        np.concatenate([faces, *(part.faces + start for part, start in zip(clothes, starts))]),
    )
    return HeadSurface(vertices, normals, faces, rest_cm, is_ear, eyes, distances)

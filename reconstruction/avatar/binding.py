"""Gaussians that follow a surface: each is bound to a triangle, and moved, turned and stretched as the triangle is.

`avatar.npz` holds a binding, plain arrays in an .npz (no pickles), lengths in world units, `n` Gaussians in the order
of the .ply beside it:

| array | shape | meaning |
| --- | --- | --- |
| `format` | int | 2 |
| `triangle` | n, int32 | row of `faces` |
| `barycentric` | n 3, float32 | weights of the triangle's corners; their mean is the nearest point of the triangle |
| `rest_vertices` | v 3, float32 | the surface that the Gaussians of the .ply lie on: the portrait's expression |
| `vertices` | v 3, float32 | the same surface with a neutral expression |
| `faces` | f 3, int32 | its triangles |
| `shape_start` | 53, int64 | rows of the next two arrays that belong to each of the 52 ARKit shapes, in ARKit's order |
| `shape_vertex`, `shape_move` | m; m 3, int32, float32 | which vertex a shape moves, and how far at full strength |
| `joint_weights` | v 5, float32 | shares of root, neck, head, left and right eye |
| `joints` | 5 3, float64 | places of the joints |
| `light_transfer` | v 9, float16 | how light reaches each vertex at rest, see `SurfaceLight` |
| `light_own_shade` | v 3, float16 | factor on sRGB colours by the light that the Gaussians were painted in |
| `light_seen` | v, uint8 | how far each vertex is skin that the portrait shows, 0 to 255 |
| `own_light` | 9 3, float64 | the light that the Gaussians were painted in, or none (0 3) |
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int, Int64
from scipy.spatial import KDTree

from dp360.generation import InputError
from dp360.generation.light.spherical_harmonics import Light
from dp360.reconstruction.splats import Splats

from .arkit import ARKIT_NAMES
from .carrying import Motion, carried
from .lighting import Lighting, SurfaceLight, lighting_of
from .poses import Pose
from .skeleton import JOINTS, Skeleton
from .surface import Surface

FORMAT = 2
_CANDIDATES = 24
"""Triangles whose middles are nearest are looked at, for the nearest point."""
_CHUNK = 20_000


@dataclass(frozen=True)
class Binding:
    """What each Gaussian hangs on."""

    triangle: Int64[np.ndarray, " n"]
    """Row of the surface's faces."""
    barycentric: Float32[np.ndarray, "n 3"]
    """Weights of its corners."""
    rest_vertices_world: Float32[np.ndarray, "v 3"]
    """The surface as the Gaussians lie on it, world units."""
    surface: Surface
    """The surface, and what moves it."""
    light: SurfaceLight
    """How light reaches it."""

    @cached_property
    def bearing(self) -> Int64[np.ndarray, " t"]:
        """Triangles that Gaussians hang on, each once."""
        return np.unique(self.triangle)

    def lighting(self, wanted: Light | None) -> Lighting | None:
        """A light for `animate`; None is the one that the Gaussians were painted in, see `lighting_of`."""
        return lighting_of(self.light, self.surface.faces[self.triangle], self.barycentric, wanted)

    def encode(self) -> bytes:
        """The bytes of the file."""
        shapes = self.surface.shapes
        moved = [np.flatnonzero(np.abs(shape).max(1) > 0) for shape in shapes]
        file = io.BytesIO()
        np.savez_compressed(
            file,
            format=np.array(FORMAT),
            triangle=self.triangle.astype(np.int32),
            barycentric=self.barycentric,
            rest_vertices=self.rest_vertices_world,
            vertices=self.surface.vertices_world,
            faces=self.surface.faces.astype(np.int32),
            shape_start=np.cumsum([0, *(len(rows) for rows in moved)]),
            shape_vertex=np.concatenate(moved).astype(np.int32),
            shape_move=np.concatenate([shape[rows] for shape, rows in zip(shapes, moved)]),
            joint_weights=self.surface.joint_weights.astype(np.float32),
            joints=self.surface.skeleton.positions_world,
            **self.light.encoded(),
        )
        return file.getvalue()


def decode_binding(path: Path) -> Binding:
    """The binding in a file of `Binding.encode`.

    Raises:
        InputError: the file is missing, damaged or of a later version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != FORMAT:
                raise InputError(
                    f"Cannot read {path}: expected layout {FORMAT}, got {int(file['format'])}; make the avatar again"
                )
            arrays = {name: file[name] for name in file.files}
        vertices, faces = arrays["vertices"], arrays["faces"].astype(np.int64)
        shapes = np.zeros((len(ARKIT_NAMES), len(vertices), 3), np.float32)
        start, rows, moves = arrays["shape_start"], arrays["shape_vertex"], arrays["shape_move"]
        for k in range(len(ARKIT_NAMES)):
            part = slice(int(start[k]), int(start[k + 1]))
            shapes[k, rows[part]] = moves[part]
        weights = arrays["joint_weights"].astype(np.float64)
        surface = Surface(vertices, faces, shapes, Skeleton(arrays["joints"]), weights)
        light, triangle = SurfaceLight.decoded(arrays), arrays["triangle"].astype(np.int64)
        binding = Binding(triangle, arrays["barycentric"], arrays["rest_vertices"], surface, light)
        count = len(vertices)
        sound = len(binding.rest_vertices_world) == count and weights.shape == (count, len(JOINTS))
        sound &= 0 <= faces.min() and faces.max() < count and len(binding.barycentric) == len(binding.triangle)
        sound &= len(light.seen) == count
        sound &= binding.triangle.min() >= 0 and binding.triangle.max() < len(faces)
        if not sound:
            raise ValueError("its arrays do not fit together")
        return binding
    except InputError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"Cannot read {path}: it is damaged ({error}); make the avatar again") from error


def nearest_triangles(
    points: Float[np.ndarray, "n 3"], vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "n 3"], Float32[np.ndarray, " n"]]:
    """The nearest triangle of each point, the weights of its corners at the nearest place, and the distance."""
    corners = vertices[faces].astype(np.float64)
    tree = KDTree(corners.mean(1))
    triangle = np.zeros(len(points), np.int64)
    barycentric, distance = np.zeros((len(points), 3), np.float32), np.zeros(len(points), np.float32)
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        p = points[part].astype(np.float64)
        near = np.asarray(tree.query(p, k=min(_CANDIDATES, len(faces)), workers=-1)[1]).reshape(len(p), -1)
        weights = _closest_weights(p[:, None], corners[near])
        off = np.linalg.norm(np.einsum("nkc,nkcd->nkd", weights, corners[near]) - p[:, None], axis=2)
        best = off.argmin(1)
        rows = np.arange(len(p))
        triangle[part], barycentric[part], distance[part] = near[rows, best], weights[rows, best], off[rows, best]
    return triangle, barycentric, distance


def _closest_weights(p: Float[np.ndarray, "n 1 3"], corners: Float[np.ndarray, "n k 3 3"]) -> np.ndarray:
    """Barycentric weights of the nearest point of each triangle: of the plane if it lies inside, else of an edge."""
    a, b, c = (corners[:, :, i] for i in range(3))
    best = np.full(p.shape[:1] + a.shape[1:2], np.inf)
    result = np.zeros((*best.shape, 3))

    def offer(weights: np.ndarray, allowed: np.ndarray) -> None:
        off = np.square(np.einsum("nkc,nkcd->nkd", weights, corners) - p).sum(2)
        better = allowed & (off < best)
        best[better], result[better] = off[better], weights[better]

    u, v, w = b - a, c - a, p - a
    uu, uv, vv, uw, vw = (np.sum(x * y, 2) for x, y in ((u, u), (u, v), (v, v), (u, w), (v, w)))
    det = np.maximum(uu * vv - uv * uv, 1e-30)
    s, t = (vv * uw - uv * vw) / det, (uu * vw - uv * uw) / det
    offer(np.stack([1 - s - t, s, t], axis=2), (s >= 0) & (t >= 0) & (s + t <= 1))
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, along = corners[:, :, i], corners[:, :, j] - corners[:, :, i]
        share = np.clip(np.sum((p - start) * along, 2) / np.maximum(np.sum(along * along, 2), 1e-30), 0, 1)
        weights = np.zeros_like(result)
        weights[..., i], weights[..., j] = 1 - share, share
        offer(weights, np.ones(best.shape, bool))
    return result


def animate(splats: Splats, binding: Binding, pose: Pose, lighting: Lighting | None = None) -> Splats:
    """The head in a pose.

    Args:
        splats: Gaussians at rest, as the binding says.
        binding: what each hangs on.
        pose: expression and turn of the head.
        lighting: a light that stays in the world while the head moves, of `binding.lighting`; without one, colours stay
            as they are.

    Raises:
        ValueError: another number of Gaussians than is bound.
    """
    if len(splats) != len(binding.triangle):
        raise ValueError(f"animate: expected {len(binding.triangle)} Gaussians, as are bound, got {len(splats)}")
    faces, rest, posed = binding.surface.faces, binding.rest_vertices_world, binding.surface.posed(pose)
    motion = Motion.of(binding.bearing, faces, rest, posed)
    moved = carried(splats, binding.triangle, binding.barycentric, faces, rest, posed, motion)
    return moved if lighting is None else lighting.on(moved, binding.triangle, binding.bearing, motion.turn)

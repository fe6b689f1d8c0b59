"""How much of a distant light reaches the vertices of a mesh: shadow maps with soft look-ups."""

from __future__ import annotations

import functools
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32

DIRECTION_COUNT = 36
"""Directions from which light is gathered."""


@functools.cache
def sky_directions() -> Float[np.ndarray, "d 3"]:
    """Unit vectors spread evenly over the sphere (spherical Fibonacci points, Keinert et al. 2015)."""
    k = np.arange(DIRECTION_COUNT) + 0.5
    y = 1 - 2 * k / DIRECTION_COUNT
    azimuth = k * (np.pi * (3 - np.sqrt(5)))
    r = np.sqrt(1 - y * y)
    return np.stack([r * np.sin(azimuth), y, r * np.cos(azimuth)], axis=1)


def visibility(
    vertices: Float[np.ndarray, "v 3"], normals: Float[np.ndarray, "v 3"], faces: np.ndarray, face_alpha: np.ndarray,
    direction: Float[np.ndarray, " 3"], *, resolution: int,
) -> Float32[np.ndarray, " v"]:  # fmt: skip
    """How much of a distant light reaches each vertex, in [0, 1]: a shadow map with four soft look-ups.

    Args:
        vertices: world units.
        normals: unit normals; look-ups start a little above the surface.
        faces: all triangles.
        face_alpha: opacity of each triangle; of half-clear ones a part of the samples is drawn.
        direction: unit vector towards the light.
        resolution: side of the shadow map.
    """
    helper = np.array([0.0, 1.0, 0.0]) if abs(direction[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    right = np.cross(helper, direction)
    right /= np.linalg.norm(right)
    up = np.cross(direction, right)
    basis = np.stack([right, up, direction]).astype(np.float32)
    seen = vertices.astype(np.float32) @ basis.T
    corner = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    box = np.array([[axis.min() for axis in vertices.T], [axis.max() for axis in vertices.T]])
    corners = (box[0] + corner * (box[1] - box[0])).astype(np.float32) @ basis.T
    low, high = corners.min(0), corners.max(0)
    texel = float((high - low)[:2].max()) / (resolution - 4) + 1e-9
    seen[:, :2] = (seen[:, :2] - low[:2]) / texel + 2
    nearest = _shadow_map(seen, faces, face_alpha, resolution)
    slope = normals.astype(np.float32) @ basis.T
    start = seen + slope * np.array([0.012 / texel, 0.012 / texel, 0.012], np.float32)
    start[:, 2] += np.float32(0.35 * texel)
    return _look_up(nearest, start)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _shadow_map(seen, faces, face_alpha, resolution):
    """Nearest depth towards the light per texel."""
    nearest = np.full((resolution, resolution), -1e9, np.float32)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by, cx, cy = seen[a, 0], seen[a, 1], seen[b, 0], seen[b, 1], seen[c, 0], seen[c, 1]
        x0 = int(max(np.ceil(min(ax, bx, cx) - 0.5), 0.0))
        x1 = int(min(np.floor(max(ax, bx, cx) - 0.5) + 1.0, resolution))
        y0 = int(max(np.ceil(min(ay, by, cy) - 0.5), 0.0))
        y1 = int(min(np.floor(max(ay, by, cy) - 0.5) + 1.0, resolution))
        if x0 >= x1 or y0 >= y1:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        for y in range(y0, y1):
            for x in range(x0, x1):
                px, py = x + 0.5, y + 0.5
                wa = ((cx - bx) * (py - by) - (cy - by) * (px - bx)) / area
                wb = ((ax - cx) * (py - cy) - (ay - cy) * (px - cx)) / area
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                if face_alpha[f] < 0.95:
                    noise = (x * 73856093) ^ (y * 19349663) ^ (f * 83492791)
                    noise = ((noise * 1103515245 + 12345) >> 8) & 1023
                    if face_alpha[f] * 1024.0 < noise:
                        continue
                depth = wa * seen[a, 2] + wb * seen[b, 2] + wc * seen[c, 2]
                if depth > nearest[y, x]:
                    nearest[y, x] = depth
    return nearest


@numba.njit(cache=True, nogil=True)
@no_type_check
def _look_up(nearest, start):
    """Percentage-closer filtering over the four texels around each point."""
    resolution = nearest.shape[0]
    out = np.empty(start.shape[0], np.float32)
    for i in range(start.shape[0]):
        x, y = start[i, 0] - 0.5, start[i, 1] - 0.5
        x0, y0 = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - x0, y - y0
        total = 0.0
        for k in range(4):
            dx, dy = k & 1, k >> 1
            weight = (fx if dx else 1.0 - fx) * (fy if dy else 1.0 - fy)
            xi, yi = x0 + dx, y0 + dy
            inside = 0 <= xi < resolution and 0 <= yi < resolution
            if not inside or nearest[yi, xi] <= start[i, 2]:
                total += weight
        out[i] = total
    return out

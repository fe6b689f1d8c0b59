"""Rasterise triangle meshes on the CPU: a z-buffer, perspective-correct weights, interpolation and texture look-up.

Knows nothing about heads. Pixel centres lie at +0.5 and cameras are OpenCV ones, as everywhere (`cameras.py`).

Screen positions are snapped to 1/1024 px. Edge functions of snapped positions are exact in float64 as long as
coordinates stay below about 65,000 px, so the top-left rule decides every pixel on a shared edge exactly once: a closed
mesh has neither cracks nor doubly drawn pixels. The picture is cut into bands of rows that are filled independently,
each in the order of the faces, so that the result does not depend on the number of threads.

Source: J. Pineda, "A Parallel Algorithm for Polygon Rasterization", SIGGRAPH 1988 (edge functions);
the top-left rule as in the Direct3D 11 functional specification, Sec. 15.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32, Shaped

from .cameras import Cameras
from .numba_pool import numba_pool
from .row_bands import BAND_ROWS, bin_by_band

NEAR_DEPTH = 1e-3
"""Triangles with a vertex at or before this camera depth (world units) are dropped, not clipped."""
SNAP = 1024.0
"""Steps per pixel that vertices are snapped to."""
_HALF_STEP = 0.5 / (SNAP * SNAP)  # half of the smallest difference of two edge functions
_FAR = 1e7


@dataclass(frozen=True)
class Fragments:
    """What the rasteriser saw at every pixel (or sample) centre."""

    triangle_index: Int32[np.ndarray, "h w"]
    """Row of `faces`, -1 where nothing was hit."""
    barycentric: Float32[np.ndarray, "h w 3"]
    """Perspective-correct weights of the triangle's three vertices, sum 1; zeros where nothing was hit."""
    depth: Float32[np.ndarray, "h w"]
    """Camera z in world units, infinite where nothing was hit."""

    @property
    def hit(self) -> Shaped[np.ndarray, "h w"]:
        """True where a triangle was hit."""
        return self.triangle_index >= 0

    def at(self, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]) -> Fragments:
        """Those of some pixels, as a picture of one column."""
        place = rows, columns
        return Fragments(
            self.triangle_index[place][:, None], self.barycentric[place][:, None], self.depth[place][:, None]
        )


def rasterize_mesh(
    vertices_world: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    camera: Cameras,
    *,
    supersample: int = 1,
) -> Fragments:
    """Nearest triangle, its weights and its depth at every pixel centre.

    Args:
        vertices_world: world units.
        faces: vertex indices. Of two surfaces at exactly the same depth the earlier face wins.
        camera: a batch of one.
        supersample: samples per pixel along each axis; the result is that many times wider and higher.

    Returns:
        Fragments of `camera.height * supersample` rows and `camera.width * supersample` columns.
    """
    assert len(camera) == 1 and supersample >= 1
    width, height = camera.width * supersample, camera.height * supersample
    sized = camera.resized(width, height)
    screen = project_to_screen(
        np.ascontiguousarray(vertices_world),
        sized.T_camera_world[0].numpy(),
        sized.focal_px[0].numpy(),
        sized.principal_px[0].numpy(),
    )
    faces = np.ascontiguousarray(faces, dtype=np.int32)
    start, members = triangles_by_band(screen, faces, width, height)
    with numba_pool(width * height):
        return Fragments(*_fill_bands(screen, faces, start, members, width, height))


def rasterize_texture(
    uv_unit: Float[np.ndarray, "v 2"], faces: Int[np.ndarray, "f 3"], width: int, height: int
) -> Fragments:
    """A texture as a picture: which triangle lies at each texel's centre.

    Args:
        uv_unit: texture coordinates of vertices, origin at the top left.
        faces: rows of `uv_unit` at the three corners of each triangle.
        width: texels in a row.
        height: rows.
    """
    # a camera at the origin sees the plane z = 1 with one texel per pixel
    flat = np.concatenate([uv_unit.astype(np.float64), np.ones((len(uv_unit), 1))], axis=1)
    focal_px = torch.tensor([[width, height]], dtype=torch.float64)
    camera = Cameras(
        torch.eye(4, dtype=torch.float64)[None], focal_px, torch.zeros(1, 2, dtype=torch.float64), width, height
    )
    return rasterize_mesh(flat, faces, camera)


def interpolate(
    fragments: Fragments, attribute: Float[np.ndarray, "v k"], faces: Int[np.ndarray, "f 3"]
) -> Float32[np.ndarray, "h w k"]:
    """Vertex attributes at every pixel, zero where nothing was hit.

    Args:
        fragments: of a mesh with as many faces.
        attribute: k numbers per vertex (or per texture vertex, with the faces' texture indices).
        faces: rows of `attribute` at the three corners of each triangle.
    """
    values, corners = np.ascontiguousarray(attribute, dtype=np.float32), np.ascontiguousarray(faces, dtype=np.int32)
    with numba_pool(fragments.depth.size):
        return _interpolate(fragments.triangle_index, fragments.barycentric, values, corners)


def sample_texture(
    texture: Float32[np.ndarray, "h w c"], uv_px: Float[np.ndarray, "*batch 2"]
) -> Float32[np.ndarray, "*batch c"]:
    """Bilinear look-up; positions outside are moved to the edge.

    Args:
        texture: any number of channels.
        uv_px: column and row in texels, texel centres at +0.5.
    """
    flat = np.ascontiguousarray(uv_px, dtype=np.float32).reshape(-1, 2)
    with numba_pool(len(flat)):
        return _sample(np.ascontiguousarray(texture), flat).reshape(*uv_px.shape[:-1], texture.shape[2])


def box_downsample(image: Float[np.ndarray, ...], factor: int) -> Float[np.ndarray, ...]:
    """Mean over blocks of factor x factor samples: pictures [h w c] or maps [h w] back at pixel resolution."""
    height, width = image.shape[:2]
    assert height % factor == 0 and width % factor == 0
    if factor == 1:
        return image
    total = np.zeros((height // factor, width // factor, *image.shape[2:]), dtype=image.dtype)
    for row in range(factor):  # a few strided sums are several times faster than a mean over two inner axes
        for column in range(factor):
            total += image[row::factor, column::factor]
    total /= factor * factor
    return total


@numba.njit(cache=True, nogil=True)
@no_type_check
def project_to_screen(vertices_world, T_camera_world, focal_px, principal_px):
    """Snapped column, snapped row and 1 / depth per vertex, float64; 1 / depth = 0 marks a vertex before the plane."""
    R, t = T_camera_world[:3, :3], T_camera_world[:3, 3]
    screen = np.empty((vertices_world.shape[0], 3))
    for i in range(vertices_world.shape[0]):
        x, y, z = vertices_world[i, 0], vertices_world[i, 1], vertices_world[i, 2]
        depth = R[2, 0] * x + R[2, 1] * y + R[2, 2] * z + t[2]
        if not depth > NEAR_DEPTH:
            screen[i] = 0.0
            continue
        u = focal_px[0] * (R[0, 0] * x + R[0, 1] * y + R[0, 2] * z + t[0]) / depth + principal_px[0]
        v = focal_px[1] * (R[1, 0] * x + R[1, 1] * y + R[1, 2] * z + t[1]) / depth + principal_px[1]
        screen[i, 0] = np.floor(u * SNAP + 0.5) / SNAP
        screen[i, 1] = np.floor(v * SNAP + 0.5) / SNAP
        screen[i, 2] = 1.0 / depth
    return screen


@numba.njit(cache=True, nogil=True)
@no_type_check
def triangles_by_band(screen, faces, width, height):
    """Lists of the triangles that touch each band of rows, in the order of the faces."""
    first = np.zeros(faces.shape[0], np.int64)
    last = np.full(faces.shape[0], -1, np.int64)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if screen[a, 2] == 0.0 or screen[b, 2] == 0.0 or screen[c, 2] == 0.0:
            continue
        ax, ay, bx, by, cx, cy = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if not abs(area) > 0.0:
            continue
        if max(ax, bx, cx) < 0.0 or min(ax, bx, cx) > width:
            continue
        low = np.ceil(max(min(ay, by, cy), -_FAR) - 0.5)
        high = np.floor(min(max(ay, by, cy), _FAR) - 0.5)
        if high < 0.0 or low > height - 1 or low > high:
            continue
        first[f], last[f] = int(max(low, 0.0)), int(min(high, height - 1.0))
    start, members = bin_by_band(first, last, height)
    return start, members.astype(np.int32)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _fill_triangle(screen, faces, f, row_begin, row_end, nearest_inverse_depth, triangle_index):
    """Depth-test one triangle against the rows [row_begin, row_end) of the picture."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay, az = screen[a, 0], screen[a, 1], screen[a, 2]
    bx, by, bz = screen[b, 0], screen[b, 1], screen[b, 2]
    cx, cy, cz = screen[c, 0], screen[c, 1], screen[c, 2]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area < 0.0:
        bx, by, bz, cx, cy, cz = cx, cy, cz, bx, by, bz
        area = -area
    width = triangle_index.shape[1]
    x_begin = int(max(np.ceil(max(min(ax, bx, cx), -_FAR) - 0.5), 0.0))
    x_end = int(min(np.floor(min(max(ax, bx, cx), _FAR) - 0.5) + 1.0, width))
    y_begin = int(max(np.ceil(max(min(ay, by, cy), -_FAR) - 0.5), row_begin))
    y_end = int(min(np.floor(min(max(ay, by, cy), _FAR) - 0.5) + 1.0, row_end))
    # Edge i lies opposite to corner i; E_i(x, y) = dx_i * (y - y_i) - dy_i * (x - x_i), positive inside.
    dx0, dy0 = cx - bx, cy - by
    dx1, dy1 = ax - cx, ay - cy
    dx2, dy2 = bx - ax, by - ay
    bias0 = _HALF_STEP if dy0 < 0.0 or (dy0 == 0.0 and dx0 > 0.0) else -_HALF_STEP
    bias1 = _HALF_STEP if dy1 < 0.0 or (dy1 == 0.0 and dx1 > 0.0) else -_HALF_STEP
    bias2 = _HALF_STEP if dy2 < 0.0 or (dy2 == 0.0 and dx2 > 0.0) else -_HALF_STEP
    per_area = 1.0 / area
    inverse_depth_dx = -(dy0 * az + dy1 * bz + dy2 * cz) * per_area
    px = x_begin + 0.5
    columns = x_end - x_begin
    for y in range(y_begin, y_end):
        py = y + 0.5
        e0 = dx0 * (py - by) - dy0 * (px - bx)
        e1 = dx1 * (py - cy) - dy1 * (px - cx)
        e2 = dx2 * (py - ay) - dy2 * (px - ax)
        inverse_depth_row = (e0 * az + e1 * bz + e2 * cz) * per_area
        e0 += bias0
        e1 += bias1
        e2 += bias2
        nearest_row = nearest_inverse_depth[y - row_begin, x_begin:x_end]
        index_row = triangle_index[y, x_begin:x_end]
        for k in range(columns):  # no branches, so that it becomes vector code
            inverse_depth = inverse_depth_row + k * inverse_depth_dx
            nearest = nearest_row[k]
            wins = (min(e0 - k * dy0, e1 - k * dy1, e2 - k * dy2) > 0.0) & (inverse_depth > nearest)
            nearest_row[k] = inverse_depth if wins else nearest
            index_row[k] = f if wins else index_row[k]


@numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
@no_type_check
def _fill_bands(screen, faces, start, members, width, height):
    """Index, weights and depth: each band first finds the nearest triangles, then weighs their corners."""
    triangle_index = np.full((height, width), -1, np.int32)
    barycentric = np.zeros((height, width, 3), np.float32)
    depth = np.full((height, width), np.inf, np.float32)
    for band in numba.prange(start.shape[0] - 1):
        row_begin = band * BAND_ROWS
        row_end = min(row_begin + BAND_ROWS, height)
        nearest_inverse_depth = np.zeros((row_end - row_begin, width))
        for m in range(start[band], start[band + 1]):
            _fill_triangle(screen, faces, members[m], row_begin, row_end, nearest_inverse_depth, triangle_index)
        for y in range(row_begin, row_end):
            for x in range(width):
                f = triangle_index[y, x]
                if f < 0:
                    continue
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                px, py = x + 0.5, y + 0.5
                ax, ay = screen[a, 0] - px, screen[a, 1] - py
                bx, by = screen[b, 0] - px, screen[b, 1] - py
                cx, cy = screen[c, 0] - px, screen[c, 1] - py
                wa = (bx * cy - by * cx) * screen[a, 2]
                wb = (cx * ay - cy * ax) * screen[b, 2]
                wc = (ax * by - ay * bx) * screen[c, 2]
                scale = 1.0 / (wa + wb + wc)
                barycentric[y, x, 0] = wa * scale
                barycentric[y, x, 1] = wb * scale
                barycentric[y, x, 2] = wc * scale
                depth[y, x] = 1.0 / nearest_inverse_depth[y - row_begin, x]
    return triangle_index, barycentric, depth


@numba.njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _interpolate(triangle_index, barycentric, attribute, faces):
    height, width = triangle_index.shape
    channels = attribute.shape[1]
    out = np.zeros((height, width, channels), np.float32)
    for y in numba.prange(height):
        for x in range(width):
            f = triangle_index[y, x]
            if f >= 0:
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                wa, wb, wc = barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2]
                for k in range(channels):
                    out[y, x, k] = wa * attribute[a, k] + wb * attribute[b, k] + wc * attribute[c, k]
    return out


@numba.njit(cache=True, nogil=True, parallel=True)
@no_type_check
def _sample(texture, uv_px):
    height, width, channels = texture.shape
    out = np.empty((uv_px.shape[0], channels), np.float32)
    for i in numba.prange(uv_px.shape[0]):
        u = min(max(uv_px[i, 0] - 0.5, 0.0), width - 1.0)
        v = min(max(uv_px[i, 1] - 0.5, 0.0), height - 1.0)
        x, y = int(u), int(v)
        x1, y1 = min(x + 1, width - 1), min(y + 1, height - 1)
        fx, fy = u - x, v - y
        for k in range(channels):
            top = texture[y, x, k] * (1.0 - fx) + texture[y, x1, k] * fx
            bottom = texture[y1, x, k] * (1.0 - fx) + texture[y1, x1, k] * fx
            out[i, k] = top * (1.0 - fy) + bottom * fy
    return out

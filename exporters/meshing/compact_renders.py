"""Renders in the compact form in which fusion and baking read them many times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, UInt8

from dp360.generation import Cameras, InputError
from dp360.generation.numba_pool import numba_pool
from dp360.generation.progress import Track
from dp360.reconstruction.splat_scene import Renderable

SOLID_ALPHA = 128
"""Of 255: from here on a pixel shows a surface."""


@dataclass(frozen=True)
class Pictures:
    """What all cameras saw, 11 bytes a pixel."""

    cameras: Cameras
    """n cameras."""
    rgb_premultiplied: UInt8[np.ndarray, "n h w 3"]
    """Colour times alpha."""
    alpha: UInt8[np.ndarray, "n h w"]
    """Opacity."""
    depth: np.ndarray
    """Depth along the camera's axis, world units, float32 [n h w]."""
    facing: UInt8[np.ndarray, "n h w"]
    """Cosine between surface and line of sight times 255; 0 where depth cannot be trusted (edges, empty pixels)."""

    def kernel_arrays(self) -> tuple[np.ndarray, ...]:
        """What the kernels ask of each camera: place [3], pose [12], lens [4], alpha, depth and facing.

        Poses are to camera from world, the upper three rows one after another; lenses are fx, fy, cx, cy in pixels.
        """
        poses = np.ascontiguousarray(self.cameras.T_camera_world[:, :3].reshape(-1, 12).numpy())
        eyes = self.cameras.position_world.numpy()
        return eyes, poses, _lenses(self.cameras), self.alpha, self.depth, self.facing


def _lenses(cameras: Cameras) -> Float64[np.ndarray, "n 4"]:
    """fx, fy, cx, cy in pixels."""
    return np.concatenate([cameras.focal_px.numpy(), cameras.principal_px.numpy()], axis=1)


def take_pictures(scene: Renderable, cameras: Cameras, track: Track) -> Pictures:
    """Render a scene from all cameras.

    Raises:
        InputError: the scene shows nothing, or depths that are not finite.
    """
    n, height, width = len(cameras), cameras.height, cameras.width
    rgb = np.empty((n, height, width, 3), np.uint8)
    alpha = np.empty((n, height, width), np.uint8)
    depth = np.empty((n, height, width), np.float32)
    facing = np.empty((n, height, width), np.uint8)
    lenses = _lenses(cameras)
    for i in track(range(n), total=n, description="Rendering for the mesh"):
        renders = scene.render(cameras[i])
        rgb[i] = (renders.rgb_premultiplied[0].clamp(0, 1) * 255).round().byte().numpy()
        alpha[i] = (renders.alpha[0].clamp(0, 1) * 255).round().byte().numpy()
        depth[i] = renders.depth[0].float().numpy()
        depth[i][alpha[i] == 0] = 0
        if not np.isfinite(depth[i]).all():
            raise InputError("Cannot make a mesh: the scene rendered depths that are not finite; fit it again")
        with numba_pool(height * width):
            _facing(depth[i], alpha[i], lenses[i], facing[i])
    if not (alpha >= SOLID_ALPHA).any():
        raise InputError(
            "Cannot make a mesh: the renders are empty, no pixel is more than half opaque; the head must lie at the "
            "origin, less than a world unit in size"
        )
    return Pictures(cameras, rgb, alpha, depth, facing)


@numba.njit(cache=True, nogil=True, inline="always")
@no_type_check
def bilinear(picture, row, col, fv, fu):
    """Value of a picture between the centres of four pixels, `fv` down and `fu` right of the first."""
    above = (1 - fv) * (1 - fu) * picture[row, col] + (1 - fv) * fu * picture[row, col + 1]
    return above + fv * (1 - fu) * picture[row + 1, col] + fv * fu * picture[row + 1, col + 1]


@numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
@no_type_check
def _facing(depth, alpha, lens, facing):
    """Fill `facing` from central differences of the points behind neighbouring pixels."""
    height, width = depth.shape
    fx, fy, cx, cy = lens[0], lens[1], lens[2], lens[3]
    for y in numba.prange(height):
        for x in range(width):
            facing[y, x] = 0
            if x == 0 or y == 0 or x == width - 1 or y == height - 1:
                continue
            if min(alpha[y, x], alpha[y, x - 1], alpha[y, x + 1], alpha[y - 1, x], alpha[y + 1, x]) < SOLID_ALPHA:
                continue
            d, left, right, up, down = depth[y, x], depth[y, x - 1], depth[y, x + 1], depth[y - 1, x], depth[y + 1, x]
            sx, sy = (x + 0.5 - cx) / fx, (y + 0.5 - cy) / fy
            # differences of ((x - cx) / fx * d, (y - cy) / fy * d, d) across and down
            ax, ay, az = sx * (right - left) + (right + left) / fx, sy * (right - left), right - left
            bx, by, bz = sx * (down - up), sy * (down - up) + (down + up) / fy, down - up
            nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
            length = np.sqrt(nx * nx + ny * ny + nz * nz) * np.sqrt(sx * sx + sy * sy + 1.0)
            if d > 0.0 and length > 0.0:
                facing[y, x] = np.uint8(min(abs(nx * sx + ny * sy + nz) / length, 1.0) * 255.0)

"""Light for composed heads: radiance from all sides plus one distant light, and how much of it each vertex gets.

Light from all sides is sampled at a fixed set of directions. Each vertex keeps, for every direction, the cosine
times whether the head itself is out of the way; an environment then lights the head by one matrix product. That is
precomputed radiance transfer (Sloan, Kautz, Snyder 2002, https://doi.org/10.1145/566654.566612) with directions in
place of spherical harmonics: shadows are soft, and cost nothing per view.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32

from ...errors import InputError

DIRECTION_COUNT = 36
"""Directions from which light is gathered."""
_SHARE_LIT_BY_PANORAMA = 0.67


@functools.cache
def sky_directions() -> Float[np.ndarray, "d 3"]:
    """Unit vectors spread evenly over the sphere (spherical Fibonacci points, Keinert et al. 2015)."""
    k = np.arange(DIRECTION_COUNT) + 0.5
    y = 1 - 2 * k / DIRECTION_COUNT
    azimuth = k * (np.pi * (3 - np.sqrt(5)))
    r = np.sqrt(1 - y * y)
    return np.stack([r * np.sin(azimuth), y, r * np.cos(azimuth)], axis=1)


@dataclass(frozen=True)
class Lighting:
    """Linear light that stays with the head. A white wall that faces the middle of the light is about 1."""

    sky_rgb: Float[np.ndarray, "d 3"]
    """Radiance from each of `sky_directions`, linear RGB."""
    sun_direction_world: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.array([-0.45, 0.55, 0.7]))
    """Unit vector towards the distant light."""
    sun_rgb: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))
    """What the distant light adds to a white surface that faces it, linear RGB."""


def studio_lighting() -> Lighting:
    """Even light, brighter from above, and a key light from the upper right of the head."""
    y = sky_directions()[:, 1]
    sky = 0.42 * (0.8 + 0.35 * y)[:, None] * np.array([[0.98, 1.0, 1.03]])
    towards = np.array([-0.45, 0.5, 0.74])
    return Lighting(sky, towards / np.linalg.norm(towards), np.array([0.62, 0.6, 0.57]))


def read_hdri(path: Path) -> Float32[np.ndarray, "h w 3"]:
    """A panorama as linear RGB, top row up.

    Raises:
        InputError: the file cannot be read as a picture.
    """
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if picture is None:
        raise InputError(f"expected a panorama (.exr, .hdr) at {path}, got nothing readable; check the data folder")
    return np.ascontiguousarray(np.nan_to_num(picture[..., 2::-1].astype(np.float32), posinf=1e4))


def lighting_from_hdri(
    panorama: Float32[np.ndarray, "h w 3"], *, azimuth_rad: float = 0.0, sun_share: float = 1.0, exposure: float = 1.0
) -> Lighting:
    """Light of a panorama: its bright spot becomes the distant light, the rest comes from all sides.

    Args:
        panorama: linear RGB, latitude and longitude, top row up.
        azimuth_rad: turn of the panorama about the head.
        sun_share: share of the bright spot's power that is kept as a distant light; the rest is left to the sky.
        exposure: factor on everything after the front of the head was brought to about 1.
    """
    import cv2

    small = cv2.resize(panorama, (64, 32), interpolation=cv2.INTER_AREA)
    rows, columns = np.meshgrid(
        (np.arange(32) + 0.5) / 32 * np.pi, (np.arange(64) + 0.5) / 64 * 2 * np.pi, indexing="ij"
    )
    azimuth = columns + azimuth_rad
    direction = np.stack([np.sin(rows) * np.sin(azimuth), np.cos(rows), np.sin(rows) * np.cos(azimuth)], axis=-1)
    solid = np.sin(rows) * (np.pi / 32) * (2 * np.pi / 64)
    luminance = small @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    visible = np.where(rows < 0.62 * np.pi, luminance, 0)
    spot = visible > max(float(np.percentile(visible, 98.5)), 2.5 * float(np.average(luminance, weights=solid)))
    limit = float(np.percentile(luminance, 97))
    excess = small * np.where(spot, np.maximum(0, 1 - limit / np.maximum(luminance, 1e-6)), 0)[..., None]
    power = (excess * solid[..., None]).sum((0, 1)) / np.pi
    towards = (direction * (excess.sum(-1) * solid)[..., None]).sum((0, 1))
    if np.linalg.norm(towards) < 1e-9:
        towards = np.array([-0.45, 0.55, 0.7])
    towards = towards / np.linalg.norm(towards)
    sky_map = small - excess * sun_share
    # every sample direction gathers a lobe as wide as its share of the sphere
    lobe = np.exp(9.0 * (np.einsum("hwk,dk->dhw", direction, sky_directions()) - 1)) * solid
    sky = np.einsum("dhw,hwc->dc", lobe, sky_map) / lobe.sum((1, 2))[:, None]
    sun = power * sun_share
    level = irradiance(sky, np.array([0.0, 0.3, 0.95])) + sun * max(0.25, float(towards @ [0.0, 0.3, 0.95]))
    brightness = max(float(level @ [0.2126, 0.7152, 0.0722]), 1e-4)
    tint = (level / brightness) ** 0.6  # a camera's white balance takes most of the colour away
    gain = exposure / brightness / tint
    return Lighting(sky * gain, towards, sun * gain)


def irradiance(sky_rgb: Float[np.ndarray, "d 3"], normal: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    """Light on a white surface with nothing in the way, as a factor on its colour."""
    cosine = np.maximum(0, sky_directions() @ (normal / np.linalg.norm(normal)))
    return (4 / DIRECTION_COUNT) * cosine @ sky_rgb


def random_lighting(rng: np.random.Generator, panoramas: Sequence[Float32[np.ndarray, "h w 3"]] = ()) -> Lighting:
    """Light as photographs have it: a panorama at a random turn in two of three cases, else soft boxes of random place,
    size and colour."""
    is_lit = bool(panoramas) and rng.random() < _SHARE_LIT_BY_PANORAMA
    panorama = panoramas[rng.integers(len(panoramas))] if is_lit else None
    exposure = float(np.exp(rng.normal(0.0, 0.18)))
    if panorama is not None:
        return lighting_from_hdri(
            panorama, azimuth_rad=rng.uniform(0, 2 * np.pi), sun_share=rng.uniform(0.3, 1.0), exposure=exposure
        )
    warm = 1 + rng.normal(0, 0.06) * np.array([1.0, 0.0, -1.0])
    y = sky_directions()[:, 1:2]
    sky = rng.uniform(0.2, 0.6) * (1 + rng.uniform(0, 0.5) * y) * warm[None]
    for _ in range(rng.integers(1, 3)):
        centre = rng.normal(size=3) + np.array([0, 0.4, 0.5])
        cosine = sky_directions() @ (centre / np.linalg.norm(centre))
        sky = sky + rng.uniform(0.2, 1.6) * np.exp(rng.uniform(3, 10) * (cosine - 1))[:, None] * warm[None]
    towards = rng.normal(size=3) * [0.8, 0.4, 0.5] + [0, 0.5, 0.55]
    sun = rng.uniform(0, 0.9) * (1 + rng.normal(0, 0.05) * np.array([1.0, 0.0, -1.0]))
    level = irradiance(sky, np.array([0.0, 0.2, 1.0])) + 0.5 * sun
    gain = exposure / float(level.mean())
    return Lighting(sky * gain, towards / np.linalg.norm(towards), sun * gain)


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

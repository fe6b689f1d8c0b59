"""Light for composed heads: radiance from all sides plus one distant light, and how much of it each vertex gets.

Light from all sides is sampled at a fixed set of directions. Each vertex keeps, for every direction, the cosine
times whether the head itself is out of the way; an environment then lights the head by one matrix product. That is
precomputed radiance transfer (Sloan, Kautz, Snyder 2002, https://doi.org/10.1145/566654.566612) with directions in
place of spherical harmonics: shadows are soft, and cost nothing per view.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from ...errors import InputError
from ...light.shadows import DIRECTION_COUNT, sky_directions
from ...light.spherical_harmonics import Light

_SHARE_LIT_BY_PANORAMA = 0.67


@dataclass(frozen=True)
class Lighting:
    """Linear light that stays with the head. A white wall that faces the middle of the light is about 1."""

    sky_rgb: Float[np.ndarray, "d 3"]
    """Radiance from each of `sky_directions`, linear RGB."""
    sun_direction_world: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.array([-0.45, 0.55, 0.7]))
    """Unit vector towards the distant light."""
    sun_rgb: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))
    """What the distant light adds to a white surface that faces it, linear RGB."""

    @property
    def harmonics(self) -> Light:
        """What spherical harmonics of order 2 keep of it."""
        sky = Light.of_directions(sky_directions(), self.sky_rgb, 4 * np.pi / DIRECTION_COUNT)
        sun = Light.of_directions(self.sun_direction_world[None], self.sun_rgb[None], np.pi)
        return Light(sky.coefficients + sun.coefficients)


def studio_lighting() -> Lighting:
    """Even light, brighter from above, and a key light from the upper right of the head."""
    y = sky_directions()[:, 1]
    sky = 0.42 * (0.8 + 0.35 * y)[:, None] * np.array([[0.98, 1.0, 1.03]])
    towards = np.array([-0.45, 0.5, 0.74])
    return Lighting(sky, towards / np.linalg.norm(towards), np.array([0.62, 0.6, 0.57]))


def even_lighting() -> Lighting:
    """The same white light from everywhere: what is left of shade is where the head itself is in the way."""
    return Lighting(np.ones((DIRECTION_COUNT, 3)))


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


def side_lighting(rng: np.random.Generator, panoramas: Sequence[Float32[np.ndarray, "h w 3"]] = ()) -> Lighting:
    """Strong light from 50 to 95 degrees beside the front: a panorama turned so in half of the cases, else a soft box
    with a distant light."""
    azimuth = rng.choice([-1, 1]) * np.radians(rng.uniform(50, 95))
    if panoramas and rng.random() < 0.5:
        straight = [lighting_from_hdri(panorama) for panorama in panoramas]
        strengths = [np.linalg.norm(light.harmonics.towards_world[[0, 2]]) for light in straight]
        chosen = int(rng.choice(np.argsort(strengths)[len(strengths) // 2 :]))
        turn = float(azimuth) - straight[chosen].harmonics.azimuth_rad
        return lighting_from_hdri(panoramas[chosen], azimuth_rad=turn, exposure=float(np.exp(rng.normal(0, 0.15))))
    elevation = np.radians(rng.uniform(0, 40))
    flat = np.cos(elevation)
    towards = np.array([np.sin(azimuth) * flat, np.sin(elevation), np.cos(azimuth) * flat])
    warm = 1 + rng.normal(0, 0.05) * np.array([1.0, 0, -1.0])
    sky = rng.uniform(0.15, 0.35) * (1 + rng.uniform(0, 0.5) * sky_directions()[:, 1:2]) * np.ones(3)
    box = np.exp(rng.uniform(4, 9) * (sky_directions() @ towards - 1))
    sky = sky + rng.uniform(0.5, 2) * box[:, None] * warm
    sun = rng.uniform(0.6, 1.4) * warm
    normal = np.array([0.5 * np.sign(azimuth), 0.2, 1.0])
    level = irradiance(sky, normal) + sun * max(0.25, float(normal @ towards) / float(np.linalg.norm(normal)))
    gain = float(np.exp(rng.normal(0, 0.12)) / level.mean())
    return Lighting(sky * gain, towards, sun * gain)

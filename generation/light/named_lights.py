"""Lights that a head can be put into: what `--light` takes.

`portrait` is the light that the portrait was taken in, `even` comes from everywhere alike, `studio` is a soft key light
with fill and rim, and a file is a panorama of somebody's own (.hdr or .exr), as Poly Haven and cameras for
surroundings make them.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32

from ..errors import InputError
from .spherical_harmonics import LUMINANCE, Light

PORTRAIT, EVEN, STUDIO = "portrait", "even", "studio"
LIGHT_NAMES = (PORTRAIT, EVEN, STUDIO)
PANORAMA_SUFFIXES = (".hdr", ".exr")
_ROWS, _COLUMNS = 128, 256
"""Panoramas are averaged down to this: the light of order 2 does not see finer."""
_STUDIO = (  # azimuth and elevation in degrees (positive to the head's left), strength, softness, colour
    (-42.0, 38.0, 3.2, 9.0, (1.0, 0.96, 0.9)),
    (55.0, 10.0, 0.45, 4.0, (0.92, 0.96, 1.0)),
    (160.0, 30.0, 1.6, 9.0, (0.95, 0.97, 1.0)),
)
_STUDIO_AMBIENT = 0.45


@dataclass(frozen=True)
class WantedLight:
    """A light to put a head into."""

    name: str
    """What provenance says: one of `LIGHT_NAMES`, or a file's name and the start of its SHA-256."""
    light: Light | None
    """None is the portrait's own."""


def panorama_file(word: str) -> Path | None:
    """The panorama that a word names; None for anything else."""
    path = Path(word).expanduser()
    return path if path.suffix.lower() in PANORAMA_SUFFIXES else None


def wanted_light(word: str) -> WantedLight:
    """The light that a word stands for.

    Args:
        word: one of `LIGHT_NAMES`, or the path of a panorama.

    Raises:
        InputError: neither, or the file cannot be used.
    """
    if word == PORTRAIT:
        return WantedLight(word, None)
    if word == EVEN:
        return WantedLight(word, Light.even())
    if word == STUDIO:
        return WantedLight(word, studio_light())
    path = panorama_file(word)
    if path is None:
        raise InputError(
            f"Cannot light the head: expected --light {', '.join(LIGHT_NAMES)} or a panorama "
            f"({' or '.join(PANORAMA_SUFFIXES)}), got {word}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read the light {path}: {error.strerror}; check the path") from error
    digest = hashlib.sha256(data).hexdigest()
    return WantedLight(f"{path.name} {digest[:12]}", light_of_panorama(read_panorama(data, path.name)))


@functools.cache
def studio_light() -> Light:
    """A large key light from above the head's right, a weaker fill from its left, a rim from behind, a grey room."""
    directions, solid_angle = panorama_directions(_ROWS, _COLUMNS)
    radiance = np.full((*directions.shape[:2], 3), _STUDIO_AMBIENT)
    for azimuth_deg, elevation_deg, strength, hardness, colour in _STUDIO:
        azimuth, elevation = np.deg2rad([azimuth_deg, elevation_deg])
        towards = [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
        lobe = strength * np.exp(hardness * (directions @ np.array(towards) - 1))
        radiance += lobe[..., None] * np.array(colour)
    return _gathered(directions, radiance, solid_angle)


def light_of_panorama(rgb_linear: Float32[np.ndarray, "h w 3"]) -> Light:
    """The light of surroundings.

    The middle of the picture lies to the head's left (+x) and three quarters of its width in front of the face (+z), as
    three.js and with it most viewers of glTF place panoramas, so that a head looks here as it does there.

    Args:
        rgb_linear: equirectangular, top up, radiance of any scale; at least 2 by 4 pixels, not all black.
    """
    if rgb_linear.shape[0] > _ROWS:
        rgb_linear = cv2.resize(rgb_linear, (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA)
    directions, solid_angle = panorama_directions(*rgb_linear.shape[:2])
    light = _gathered(directions, rgb_linear.astype(np.float64), solid_angle)
    level = float(light.coefficients[0] @ LUMINANCE) * 0.282095
    return Light(light.coefficients / level)


def panorama_directions(rows: int, columns: int) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, " h"]]:
    """Unit vectors of the pixels of a panorama, and the solid angle of one in each row, steradian."""
    elevation = np.pi / 2 - (np.arange(rows) + 0.5) * (np.pi / rows)
    turn = (np.arange(columns) + 0.5) * (2 * np.pi / columns) - np.pi
    level = np.cos(elevation)[:, None]
    directions = np.stack(
        [level * np.cos(turn), np.broadcast_to(np.sin(elevation)[:, None], (rows, columns)), level * np.sin(turn)],
        axis=-1,
    )
    edges = np.sin(np.pi / 2 - np.arange(rows + 1) * (np.pi / rows))
    return directions, (edges[:-1] - edges[1:]) * (2 * np.pi / columns)


def _gathered(
    directions: Float[np.ndarray, "h w 3"], radiance: Float[np.ndarray, "h w 3"], solid_angle: Float[np.ndarray, " h"]
) -> Light:
    weighted = radiance * solid_angle[:, None, None]
    return Light.of_directions(directions.reshape(-1, 3), weighted.reshape(-1, 3), 1.0)


def read_panorama(data: bytes, name: str) -> Float32[np.ndarray, "h w 3"]:
    """Linear colours out of the bytes of a Radiance (.hdr) or OpenEXR (.exr) picture.

    Args:
        data: the file.
        name: its name, which says which of the two it is.

    Raises:
        InputError: it cannot be read, is no whole panorama, is black, or has numbers that are not finite; or .exr and
            the package that reads it is missing.
    """
    picture = _read_exr(data, name) if name.lower().endswith(".exr") else _read_hdr(data)
    if picture is None or picture.ndim != 3 or picture.shape[2] != 3:
        raise InputError(f"Cannot read the light {name}: expected a colour picture, Radiance .hdr or OpenEXR .exr")
    height, width = picture.shape[:2]
    if height < 2 or abs(width - 2 * height) > 0.02 * width:
        raise InputError(
            f"Cannot use the light {name}: expected a panorama all round, twice as wide as high, got {width} x {height}"
        )
    if not np.isfinite(picture).all() or float(picture.max()) <= 0:
        raise InputError(f"Cannot use the light {name}: expected finite numbers and some light")
    return np.maximum(picture, 0).astype(np.float32)


def _read_hdr(data: bytes) -> np.ndarray | None:
    if not data.startswith(b"#?"):
        return None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return None if picture is None else np.ascontiguousarray(picture[..., ::-1])


def _read_exr(data: bytes, name: str) -> np.ndarray | None:
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError(
            f"Cannot read the light {name}: OpenEXR needs the package OpenEXR; install with: pip install "
            "'dp360[export]', or save the panorama as Radiance .hdr"
        ) from error
    with tempfile.TemporaryDirectory() as folder:  # the package reads files alone
        path = Path(folder) / "light.exr"
        path.write_bytes(data)
        try:
            with OpenEXR.File(str(path)) as file:
                channels = file.channels()
                together = channels.get("RGB") or channels.get("RGBA")
                if together is not None:
                    return np.asarray(together.pixels, np.float32)[..., :3]
                if not {"R", "G", "B"} <= set(channels):
                    return None
                return np.stack([np.asarray(channels[c].pixels, np.float32) for c in "RGB"], axis=-1)
        except Exception:  # whatever its C++ code says
            return None

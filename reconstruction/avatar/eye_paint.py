"""The paint of an eyeball: the portrait's iris, whole and looking straight ahead, in a white that lids can leave."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from dp360.generation.cameras import UNITS_PER_CM
from dp360.generation.head_model import HeadModel
from dp360.generation.mesh_raster import sample_texture
from dp360.generation.prior.saved_fit import SavedFit

from .eyes import Eyeball, eyeballs_of

IRIS_LANDMARKS = ((473, 474, 475, 476, 477), (468, 469, 470, 471, 472))
"""Middle and rim of the left and the right iris, the person's, among the detector's 478."""
_IRIS_CM, _IRIS_RANGE_CM = 0.60, (0.5, 0.78)
"""Radius of an iris on the eyeball where the portrait tells none, and what is believed."""
_MAP_PX, _MAP_REACH = 192, 1.6
"""Side of the flat map of iris and surroundings, and how many radii of the iris it reaches from the middle."""
_BINS = 28
_WHITE_RGB, _IRIS_RGB, _PUPIL_RGB = (0.86, 0.84, 0.82), (0.34, 0.24, 0.17), (0.05, 0.04, 0.04)
_PUPIL = 0.38
"""Radius of the pupil in radii of the iris."""
_LEAST_SEEN = 0.12
"""With less of the iris seen than this share, it is painted without the portrait."""


@dataclass(frozen=True)
class EyePaint:
    """Colours of one eyeball."""

    eye: Eyeball
    """Which it is."""
    iris_rad: float
    """Radius of the iris as an angle at the eyeball's middle."""
    map_rgb: Float32[np.ndarray, "m m 3"]
    """Iris and surroundings, azimuthal about the straight gaze: right is the head's left, up is up."""
    white_rgb: Float[np.ndarray, " 3"]
    """The white."""

    def at(self, points_world: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Colours of points on the eyeball at rest."""
        away = points_world - self.eye.centre_world
        away = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
        angle = np.arccos(np.clip(away[:, 2], -1, 1))
        across = away[:, :2] / np.maximum(np.linalg.norm(away[:, :2], axis=1, keepdims=True), 1e-9)
        flat = across * (angle / self.iris_rad)[:, None]
        px = (flat * [1, -1] / _MAP_REACH * 0.5 + 0.5) * _MAP_PX
        colour = sample_texture(self.map_rgb, px.astype(np.float32))
        r = angle / self.iris_rad
        share = np.clip((_MAP_REACH * 0.97 - r) / 0.25, 0, 1)[:, None]
        fade = 1 - 0.22 * np.clip((r - 1.8) / 2.0, 0, 1)[:, None]  # the white is in the lids' shade towards its rim
        fade = fade * (1 - 0.3 * np.clip((flat[:, 1:] - 0.45) / 0.9, 0, 1) ** 1.5)  # and in the upper lid's
        return (self.white_rgb + (colour - self.white_rgb) * share) * fade


def gaze_direction(
    fit: SavedFit, model: HeadModel, head: Float[np.ndarray, "v 3"], side: int
) -> Float[np.ndarray, " 3"]:
    """Unit direction in which an eye of the portrait looks, in the head's frame; straight ahead where it is not known.

    The line of sight through the iris' middle meets the eyeball there.
    """
    if fit.landmarks_px is None:
        return np.array([0.0, 0.0, 1.0])
    eye = eyeballs_of(model, head)[side]
    middle = fit.landmarks_px[list(IRIS_LANDMARKS[side])].mean(0)
    origin = fit.camera.position_world[0].numpy()
    focal, principal = fit.camera.focal_px[0].numpy(), fit.camera.principal_px[0].numpy()
    ray = fit.camera.T_world_camera[0, :3, :3].numpy() @ np.append((middle - principal) / focal, 1.0)
    ray /= np.linalg.norm(ray)
    to_eye = eye.centre_world - origin
    along = float(to_eye @ ray)
    off = to_eye - along * ray
    inside = eye.radius**2 - float(off @ off)
    point = origin + (along - np.sqrt(max(inside, 0.0))) * ray
    direction = (point - eye.centre_world) / np.linalg.norm(point - eye.centre_world)
    return direction if direction[2] > 0.4 else np.array([0.0, 0.0, 1.0])


def eye_paint(
    fit: SavedFit, model: HeadModel, head: Float[np.ndarray, "v 3"], side: int, seen: Bool[np.ndarray, "s s"],
    brightness: float,
) -> EyePaint:  # fmt: skip
    """The paint of one eyeball out of the portrait.

    Args:
        head: vertices of the head model with a neutral expression, world units.
        side: 0 for the left eye, 1 for the right one.
        seen: pixels of the portrait that show this eyeball.
        brightness: of made-up colours.
    """
    eye = eyeballs_of(model, head)[side]
    gaze = gaze_direction(fit, model, head, side)
    iris_rad = _iris_radius_cm(fit, eye, side) * UNITS_PER_CM / eye.radius
    axis = (np.arange(_MAP_PX) + 0.5) / _MAP_PX * 2 - 1
    x, y = np.meshgrid(axis * _MAP_REACH, -axis * _MAP_REACH)
    r = np.hypot(x, y)
    angle = r * iris_rad
    straight = np.stack([np.sin(angle) * x / np.maximum(r, 1e-9), np.sin(angle) * y / np.maximum(r, 1e-9),
                         np.cos(angle)], axis=-1)  # fmt: skip
    points = straight @ _turn_to(gaze).T * eye.radius + eye.centre_world
    T = fit.camera.T_camera_world[0].numpy()
    p = points @ T[:3, :3].T + T[:3, 3]
    px = p[..., :2] / p[..., 2:] * fit.camera.focal_px[0].numpy() + fit.camera.principal_px[0].numpy()
    size = fit.portrait_rgb.shape[0]
    column, row = np.clip(px, 0, size - 1).astype(np.int64).reshape(-1, 2).T
    shown = seen[row, column].reshape(r.shape)
    colour = sample_texture(fit.portrait_rgb.astype(np.float32) / 255, px.astype(np.float32))
    white = _white(colour, shown, r, brightness)
    profile = _profile(colour, shown, r, white, brightness)
    made_up = np.stack(
        [np.interp(r, (np.arange(_BINS) + 0.5) / _BINS * _MAP_REACH, profile[:, c]) for c in range(3)], axis=-1
    )
    trust = cv2.GaussianBlur(cv2.erode(shown.astype(np.float32), np.ones((5, 5), np.uint8)), (0, 0), 2.5)
    trust = trust * np.clip((1.25 - r) / 0.2, 0, 1)  # of the white only the colour is taken
    if shown[r < 1].mean() < _LEAST_SEEN:
        trust[:] = 0.0
    picture = made_up + (colour - made_up) * trust[..., None]
    return EyePaint(eye, iris_rad, picture.astype(np.float32), white)


def _iris_radius_cm(fit: SavedFit, eye: Eyeball, side: int) -> float:
    """As the portrait's landmarks tell."""
    if fit.landmarks_px is None:
        return _IRIS_CM
    middle, *rim = fit.landmarks_px[list(IRIS_LANDMARKS[side])]
    radius_px = float(np.median(np.linalg.norm(np.array(rim) - middle, axis=1)))
    depth = float((fit.camera.T_camera_world[0].numpy() @ np.append(eye.centre_world, 1.0))[2])
    return float(np.clip(radius_px * depth / float(fit.camera.focal_px[0, 0]) / UNITS_PER_CM, *_IRIS_RANGE_CM))


def _turn_to(direction: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """A rotation of +z to a direction by yaw and pitch, without roll."""
    x, y, z = direction
    yaw, pitch = np.arctan2(x, z), -np.arcsin(np.clip(y, -1, 1))
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])


def _white(
    colour: Float32[np.ndarray, "m m 3"], shown: Bool[np.ndarray, "m m"], r: Float[np.ndarray, "m m"],
    brightness: float,
) -> Float[np.ndarray, " 3"]:  # fmt: skip
    """The white's colour: the brighter half of what is seen beside the iris, not darker than eyes are."""
    plain = np.array(_WHITE_RGB) * brightness
    beside = shown & (r > 1.15)
    if beside.sum() < 40:
        return plain
    found = colour[beside]
    light = found.mean(1)
    bright = np.median(found[light >= np.quantile(light, 0.6)], axis=0).astype(np.float64)
    # as grey as eyes are, half way: what is seen is mixed with lids and lashes
    mixed = 0.5 * bright + 0.5 * plain * (bright.mean() / plain.mean())
    level = np.clip(mixed.mean(), 0.62 * brightness, 0.9 * plain.mean())
    return np.clip(mixed * level / max(mixed.mean(), 1e-3), 0, 1)


def _profile(
    colour: Float32[np.ndarray, "m m 3"], shown: Bool[np.ndarray, "m m"], r: Float[np.ndarray, "m m"],
    white: Float[np.ndarray, " 3"], brightness: float,
) -> Float[np.ndarray, "b 3"]:  # fmt: skip
    """Median colours of the rings round the iris' middle, typical ones where nothing is seen."""
    centres = (np.arange(_BINS) + 0.5) / _BINS * _MAP_REACH
    iris = np.array(_IRIS_RGB) * brightness
    inside = shown & (r > 0.5) & (r < 0.9)
    enough = shown[r < 1].mean() >= _LEAST_SEEN
    if enough and inside.sum() > 30:
        iris = np.median(colour[inside], axis=0)
    result = np.zeros((_BINS, 3))
    for k, centre in enumerate(centres):
        ring = shown & (np.abs(r - centre) < 0.75 * _MAP_REACH / _BINS)
        if centre > 1.12:
            result[k] = white
        elif enough and ring.sum() >= 25:
            result[k] = np.median(colour[ring], axis=0)
        else:
            result[k] = np.array(_PUPIL_RGB) if centre < _PUPIL else iris * (0.7 if centre > 0.88 else 1.0)
            if centre > 1.0:
                result[k] = 0.5 * iris + 0.5 * white
    return np.stack([np.convolve(np.pad(c, 1, mode="edge"), [0.25, 0.5, 0.25], "valid") for c in result.T], axis=1)

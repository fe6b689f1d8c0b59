"""Contact sheets of head fields, as somebody behind the head sees them: to be looked at before anything learns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from ...cameras import look_at_origin
from ...mesh_raster import interpolate, rasterize_mesh
from ...prior.field.chart import surface_mesh, surface_tangents
from ...prior.field.head_field import HAIR, HEADGEAR, HeadField

_MATERIAL_RGB = np.array([[0.92, 0.84, 0.78], [0.47, 0.24, 0.16], [0.86, 0.24, 0.24], [0.24, 0.63, 0.27]])
"""Skin, hair, headgear, cloth."""
_FULL_THICKNESS = 0.12
"""Thickness of the colour scale's upper end, world units."""
_GAP_PX = 4
PICTURES = ("thickness", "material", "flow", "albedo")


def field_sheet(
    fields: Sequence[HeadField], *, across: int = 4, side_px: int = 96, azimuth_rad: float = math.pi
) -> UInt8[np.ndarray, "h w 3"]:
    """Heads side by side, four pictures each (`PICTURES`), sRGB.

    Thickness goes from blue to yellow (0 to 7 cm of hair, headgear or cloth). Materials are beige (skin), brown (hair),
    red (headgear) and green (cloth). The flow's angle in the picture is a hue: red to the right, green-yellow down,
    cyan to the left, violet up.

    Args:
        fields: at least one.
        across: heads in a row.
        side_px: of one picture.
        azimuth_rad: of the camera; pi is behind the head.
    """
    heads = [np.concatenate(list(_pictures(field, side_px, azimuth_rad)), axis=1) for field in fields]
    blank = np.full_like(heads[0], 255)
    heads += [blank] * (-len(heads) % across)
    framed = [np.pad(head, ((_GAP_PX, 0), (_GAP_PX, 0), (0, 0)), constant_values=255) for head in heads]
    rows = [np.concatenate(framed[first : first + across], axis=1) for first in range(0, len(framed), across)]
    return np.concatenate(rows, axis=0)


def _pictures(field: HeadField, side_px: int, azimuth_rad: float) -> list[UInt8[np.ndarray, "s s 3"]]:
    points = field.points_world().astype(np.float64)
    camera = look_at_origin([azimuth_rad], [0.0], size_px=side_px, focal_normalised=3.0)
    vertices, faces = surface_mesh(points)
    fragments = rasterize_mesh(vertices, faces, camera, supersample=2)
    _, _, normals = surface_tangents(points)
    R_camera_world = camera.T_camera_world[0, :3, :3].numpy()
    flow = field.flow_world().astype(np.float64) @ R_camera_world.T
    hair = field.material[HAIR] * (field.flow_certainty > 0)
    covered = np.concatenate([field.thickness[None], field.material, field.presence[None]])
    shares = np.stack([field.material[0], field.material[HAIR] + field.material[HEADGEAR], field.material[3]])
    colours = (np.stack([field.skin_albedo, field.cover_albedo, field.cloth_albedo]) * shares[:, None]).sum(0)
    values = np.concatenate([
        np.moveaxis(covered, 0, -1), (normals @ R_camera_world.T)[..., 2:], flow[..., :2] * hair[..., None],
        np.moveaxis(colours, 0, -1),
    ], axis=-1)  # fmt: skip
    closed = np.concatenate([values, values[:, :1]], axis=1).reshape(len(vertices), -1)
    seen = interpolate(fragments, closed, faces)
    shade = 0.55 + 0.45 * np.clip(-seen[..., 6:7], 0, 1)
    scale = np.clip(255 * seen[..., 0] / _FULL_THICKNESS, 0, 255).astype(np.uint8)
    thickness = _rgb(cv2.applyColorMap(scale, cv2.COLORMAP_VIRIDIS)) * seen[..., 5:6]
    hue = (np.arctan2(seen[..., 8], seen[..., 7]) / (2 * math.pi) % 1 * 179).astype(np.uint8)
    strength = np.clip(np.hypot(seen[..., 7], seen[..., 8]) * 1.5, 0, 1)
    hsv = np.stack([hue, np.full_like(hue, 210), (255 * strength).astype(np.uint8)], axis=-1)
    pictures = [thickness, seen[..., 1:5] @ _MATERIAL_RGB * shade, _rgb(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)) * shade,
                seen[..., 9:12] * shade]  # fmt: skip
    hit = fragments.hit[..., None]
    return [_smaller(np.where(hit, picture, 1.0)) for picture in pictures]


def _rgb(bgr: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    return bgr[..., ::-1] / 255.0


def _smaller(rgb: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    halves: Float32[np.ndarray, "h2 2 w2 2 3"] = rgb.reshape(len(rgb) // 2, 2, -1, 2, 3).astype(np.float32)
    return np.clip(255 * halves.mean((1, 3)) + 0.5, 0, 255).astype(np.uint8)

"""Cameras: one type, one set of conventions, and every conversion to somebody else's.

World frame: right-handed, y up, the face looks to +z, the middle of the head at the origin. One world unit is about
0.606 m (`METRES_PER_UNIT`); metres appear in exporters only.

Camera frame: OpenCV, x right, y down, z forward. Pixel centres lie at +0.5: the first pixel spans [0, 1), and
`u_px = fx_px * x / z + cx_px`. `T_world_camera` reads "to world from camera".

Azimuth is the angle of the camera about +y, zero in front of the face, positive towards the head's left (+x);
elevation is positive above the head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

PANOHEAD_RADIUS = 2.7
"""Distance of the camera from the head's middle, world units (PanoHead, Sec. 4)."""
PANOHEAD_FOCAL_NORMALISED = 4.2647
"""Focal length divided by the image width (EG3D and PanoHead)."""
UNITS_PER_CM = 0.0165
"""The package's one scale: world units per centimetre of the parametric head model."""
UNITS_PER_MM = UNITS_PER_CM / 10
METRES_PER_UNIT = 0.01 / UNITS_PER_CM

_OPENCV_TO_OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras that share one picture size. Kept in float64 on the CPU: they are few and exact."""

    T_world_camera: Float[Tensor, "n 4 4"]
    """Poses, to world from camera (OpenCV axes), rigid."""
    focal_px: Float[Tensor, "n 2"]
    """Focal lengths fx, fy in pixels."""
    principal_px: Float[Tensor, "n 2"]
    """Principal points cx, cy in pixels, pixel centres at +0.5."""
    width: int
    """Picture width in pixels."""
    height: int
    """Picture height in pixels."""

    def __len__(self) -> int:
        return self.T_world_camera.shape[0]

    def __getitem__(self, index: int | slice | Tensor | list[int]) -> Cameras:
        """A sub-batch; an integer keeps the batch axis, so that the result is a `Cameras` of length one."""
        if isinstance(index, int):
            index = [index]
        return Cameras(
            self.T_world_camera[index], self.focal_px[index], self.principal_px[index], self.width, self.height
        )

    def __iter__(self) -> Iterator[Cameras]:
        return (self[i] for i in range(len(self)))

    @property
    def T_camera_world(self) -> Float[Tensor, "n 4 4"]:
        """Inverse poses, to camera from world: gsplat's `viewmats`."""
        R_world_camera = self.T_world_camera[:, :3, :3]
        T = torch.zeros_like(self.T_world_camera)
        T[:, :3, :3] = R_world_camera.mT
        T[:, :3, 3] = -(R_world_camera.mT @ self.T_world_camera[:, :3, 3:])[..., 0]
        T[:, 3, 3] = 1.0
        return T

    @property
    def K_px(self) -> Float[Tensor, "n 3 3"]:
        """Intrinsic matrices in pixels: gsplat's `Ks`."""
        K = torch.zeros(len(self), 3, 3, dtype=self.focal_px.dtype)
        K[:, 0, 0], K[:, 1, 1] = self.focal_px.unbind(-1)
        K[:, :2, 2] = self.principal_px
        K[:, 2, 2] = 1.0
        return K

    @property
    def position_world(self) -> Float[Tensor, "n 3"]:
        """Optical centres in world units."""
        return self.T_world_camera[:, :3, 3]

    @property
    def azimuth_rad(self) -> Float[Tensor, " n"]:
        """Azimuth of each optical centre about the world's y axis, in (-pi, pi]."""
        x, _, z = self.position_world.unbind(-1)
        return torch.atan2(x, z)

    @property
    def elevation_rad(self) -> Float[Tensor, " n"]:
        """Elevation of each optical centre above the world's xz plane, in [-pi/2, pi/2]."""
        x, y, z = self.position_world.unbind(-1)
        return torch.atan2(y, torch.hypot(x, z))

    def project(self, points_world: Float[Tensor, "p 3"]) -> Float[Tensor, "n p 3"]:
        """Pixels u, v and camera depth z of world points in every camera."""
        T = self.T_camera_world
        points_camera = points_world.to(T.dtype) @ T[:, :3, :3].mT + T[:, None, :3, 3]
        z = points_camera[..., 2:]
        uv_px = self.focal_px[:, None] * points_camera[..., :2] / z + self.principal_px[:, None]
        return torch.cat([uv_px, z], dim=-1)

    def resized(self, width: int, height: int) -> Cameras:
        """The same cameras for pictures of another size (the field of view stays)."""
        scale = torch.tensor([width / self.width, height / self.height], dtype=self.focal_px.dtype)
        return Cameras(self.T_world_camera, self.focal_px * scale, self.principal_px * scale, width, height)


def concatenate_cameras(batches: Sequence[Cameras]) -> Cameras:
    """One batch out of several, at least one, of the same picture size (see `Cameras.resized`)."""
    assert len({(b.width, b.height) for b in batches}) == 1
    return Cameras(
        torch.cat([b.T_world_camera for b in batches]),
        torch.cat([b.focal_px for b in batches]),
        torch.cat([b.principal_px for b in batches]),
        batches[0].width,
        batches[0].height,
    )


def look_at_origin(
    azimuth_rad: Sequence[float] | Tensor,
    elevation_rad: Sequence[float] | Tensor,
    *,
    size_px: int = 512,
    radius: float = PANOHEAD_RADIUS,
    focal_normalised: float = PANOHEAD_FOCAL_NORMALISED,
) -> Cameras:
    """Upright cameras on a sphere that look at the head's middle.

    Args:
        azimuth_rad: n azimuths in radians (0 = in front of the face, positive towards +x).
        elevation_rad: n elevations in radians, |elevation| < pi/2.
        size_px: side of the square pictures in pixels.
        radius: distance from the origin, world units.
        focal_normalised: focal length divided by the picture width.

    Raises:
        ValueError: lengths differ, or an elevation at a pole, where "upright" has no meaning.
    """
    azimuth = torch.as_tensor(azimuth_rad, dtype=torch.float64).reshape(-1)
    elevation = torch.as_tensor(elevation_rad, dtype=torch.float64).reshape(-1)
    if azimuth.shape != elevation.shape:
        raise ValueError(
            f"look_at_origin: expected as many elevations as azimuths, got {len(elevation)} and {len(azimuth)}"
        )
    if bool((elevation.abs() >= math.pi / 2 - 1e-6).any()):
        raise ValueError("look_at_origin: elevations must lie inside (-pi/2, pi/2) radians; a pole has no upright view")
    backward = torch.stack(
        [azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], dim=-1
    )  # from the head to the camera
    forward = -backward
    right = torch.stack([azimuth.cos(), torch.zeros_like(azimuth), -azimuth.sin()], dim=-1)
    down = torch.linalg.cross(forward, right)
    T = torch.zeros(len(azimuth), 4, 4, dtype=torch.float64)
    T[:, :3, 0], T[:, :3, 1], T[:, :3, 2], T[:, :3, 3] = right, down, forward, radius * backward
    T[:, 3, 3] = 1.0
    n = len(azimuth)
    return Cameras(
        T,
        torch.full((n, 2), focal_normalised * size_px, dtype=torch.float64),
        torch.full((n, 2), size_px / 2, dtype=torch.float64),
        size_px,
        size_px,
    )


def orbit(count: int, *, elevation_rad: float = 0.0, start_azimuth_rad: float = 0.0, size_px: int = 512) -> Cameras:
    """A closed ring of `count` cameras at equal azimuth steps, the first at `start_azimuth_rad`.

    Raises:
        ValueError: count < 1.
    """
    if count < 1:
        raise ValueError(f"orbit: expected a count of at least 1, got {count}")
    azimuth = start_azimuth_rad + torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    return look_at_origin(azimuth, torch.full((count,), elevation_rad), size_px=size_px)


@dataclass(frozen=True)
class OrbitConfig:
    """Which cameras the generated views have: the official ring, plus rings that show the crown and the chin."""

    ring_count: int = 32
    """Views on the level ring (DiffPortrait360 makes 32)."""
    upper_count: int = 12
    """Views on the ring above the head, for the crown; 0 leaves it out."""
    upper_elevation_deg: float = 35.0
    """Elevation of the upper ring, degrees."""
    lower_count: int = 8
    """Views on the ring below, for chin and jaw; 0 leaves it out."""
    lower_elevation_deg: float = -25.0
    """Elevation of the lower ring, degrees."""

    def cameras(self, size_px: int) -> Cameras:
        """All cameras: the level ring first, then the upper ring, then the lower one, each starting at the front."""
        rings = [orbit(self.ring_count, size_px=size_px)]
        if self.upper_count:
            rings.append(orbit(self.upper_count, elevation_rad=math.radians(self.upper_elevation_deg), size_px=size_px))
        if self.lower_count:
            rings.append(orbit(self.lower_count, elevation_rad=math.radians(self.lower_elevation_deg), size_px=size_px))
        return concatenate_cameras(rings)


def opengl_from_opencv(T_world_camera: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """Poses with OpenGL camera axes (x right, y up, z backward; nerfstudio, Blender) out of OpenCV ones."""
    return T_world_camera @ _OPENCV_TO_OPENGL.to(T_world_camera)


opencv_from_opengl = opengl_from_opencv
"""Poses with OpenCV camera axes out of OpenGL ones; the conversion is its own inverse."""


def panohead_label_from_cameras(cameras: Cameras) -> Float[Tensor, "n 25"]:
    """EG3D/PanoHead camera labels: 16 numbers of `T_world_camera` row by row (OpenCV axes), 9 of the normalised K.

    Source: https://github.com/NVlabs/eg3d (`camera_utils.py`, "cam2world" OpenCV, intrinsics divided by the size).
    """
    K = cameras.K_px.clone()
    K[:, 0] /= cameras.width
    K[:, 1] /= cameras.height
    return torch.cat([cameras.T_world_camera.reshape(-1, 16), K.reshape(-1, 9)], dim=-1)


def cameras_from_panohead_label(label: Float[Tensor, "n 25"], *, size_px: int = 512) -> Cameras:
    """Inverse of `panohead_label_from_cameras` for square pictures of `size_px` pixels."""
    label = label.to(torch.float64)
    K = label[:, 16:].reshape(-1, 3, 3)
    return Cameras(
        label[:, :16].reshape(-1, 4, 4),
        torch.stack([K[:, 0, 0], K[:, 1, 1]], dim=-1) * size_px,
        K[:, :2, 2] * size_px,
        size_px,
        size_px,
    )

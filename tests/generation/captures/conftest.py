"""A scene that captures are made of: coloured dots at known places, drawn through any camera and found again.

The readers have a capture right if every dot lies where the cameras of the view set say.
"""

import io
import math

import cv2
import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from dp360.generation import ViewSet, look_at_origin
from dp360.generation.captures import HeadPlacement
from dp360.generation.captures.capture_placement import KEYPOINT_ORDERS
from dp360.generation.head_model import load_head_model

DOTS_WORLD = np.array(
    [[-0.04, -0.03, 0.18], [-0.02, 0.21, 0.01], [0.13, 0.05, 0.05], [-0.15, 0.07, -0.03], [0.07, -0.2, 0.13],
     [-0.08, -0.14, 0.0]]
)  # fmt: skip
"""Places without any symmetry, on and near a head, that never hide one another from the cameras below."""
DOTS_RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]], np.uint8)
DISTORTION = np.array([-4.0, 10.0, 0.01, -0.012, 0.3])
"""Strong enough to move dots by several pixels."""


class Scene:
    """Dots, key points and cameras around the head's middle, and how they look in pictures."""

    dots_world = DOTS_WORLD
    distortion = DISTORTION

    @staticmethod
    def rotation(seed: int) -> Float[np.ndarray, "3 3"]:
        Q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
        return Q * np.linalg.det(Q)

    @staticmethod
    def arc(azimuths_deg: list[float], elevations_deg: list[float] | None = None) -> Float[np.ndarray, "n 4 4"]:
        """Poses of cameras that look at the head's middle, our world."""
        azimuth = [math.radians(a) for a in azimuths_deg]
        elevation = [math.radians(e) for e in elevations_deg or [0.0] * len(azimuth)]
        return look_at_origin(azimuth, elevation, radius=1.8).T_world_camera.numpy()

    @staticmethod
    def in_capture(T_world_camera: Float[np.ndarray, "n 4 4"], placement: HeadPlacement) -> Float[np.ndarray, "n 4 4"]:
        """The inverse of `moved_poses`, written out on its own."""
        T = T_world_camera.copy()
        T[:, :3, :3] = placement.R.T @ T[:, :3, :3]
        T[:, :3, 3] = (T[:, :3, 3] - placement.shift) @ placement.R / placement.scale
        return T

    @staticmethod
    def drawn(
        K: Float[np.ndarray, "3 3"],
        D: Float[np.ndarray, " d"],
        T_world_camera: Float[np.ndarray, "4 4"],
        size: tuple[int, int],
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """A distorted picture of the dots on grey, and a mask of discs around them."""
        R = T_world_camera[:3, :3].T
        uv, _ = cv2.projectPoints(DOTS_WORLD, cv2.Rodrigues(R)[0], -R @ T_world_camera[:3, 3], K, D)
        rgb, mask = np.full((size[1], size[0], 3), 90, np.uint8), np.zeros((size[1], size[0]), np.uint8)
        for (u, v), colour in zip(uv[:, 0], DOTS_RGB, strict=True):
            centre = (round(u * 16), round(v * 16))
            cv2.circle(mask, centre, 11 * 16, (255,), -1, cv2.LINE_AA, 4)
            cv2.circle(rgb, centre, 4 * 16, tuple(int(c) for c in colour), -1, cv2.LINE_AA, 4)
        return rgb, mask

    @staticmethod
    def intrinsics(size: tuple[int, int], focal: float) -> Float[np.ndarray, "3 3"]:
        """A principal point well off the middle."""
        return np.array([[focal, 0, 0.53 * size[0]], [0, 1.02 * focal, 0.46 * size[1]], [0, 0, 1]])

    @staticmethod
    def assert_dots_in_place(views: ViewSet, *, tolerance_px: float = 0.6) -> None:
        """Every dot of every view lies where the view's camera projects it, in its colour, on the mask."""
        uvz = views.cameras.project(torch.from_numpy(DOTS_WORLD)).numpy()
        assert (uvz[..., 2] > 0).all()
        rows, columns = np.mgrid[: views.cameras.height, : views.cameras.width] + 0.5
        for i, name in enumerate(views.names):
            rgba = views.rgba[i].numpy().astype(np.float64)
            assert rgba[..., 3].max() == 255
            for (u, v, _), colour in zip(uvz[i], DOTS_RGB, strict=True):
                likeness = np.clip(1 - np.abs(rgba[..., :3] - colour).max(-1) / 120, 0, None)
                likeness *= np.hypot(columns - u, rows - v) < 9
                assert likeness.sum() > 1, f"no dot {colour} in {name}"
                found = np.array([(likeness * columns).sum(), (likeness * rows).sum()]) / likeness.sum()
                assert np.hypot(*(found - (u, v))) < tolerance_px, f"dot {colour} in {name}"
                assert rgba[int(v), int(u), 3] > 240  # mattes in videos are not exact

    @staticmethod
    def png(pixels: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    @staticmethod
    def face_keypoints(order: str, count: int, seed: int | None = None) -> Float[np.ndarray, "k 3"]:
        """Key points of the mean head, or of a random one, in our world; points that are not used lie anywhere."""
        model = load_head_model()
        generator = np.random.default_rng(seed or 0)
        vertices = model.neutral.astype(np.float64)
        if seed is not None:
            identity = generator.normal(size=len(model.identity_basis)) * 0.7
            vertices = model.vertices(identity, np.zeros(len(model.expression_basis)))
        landmarks = model.landmarks(vertices)
        points = generator.uniform(-0.1, 0.1, (count, 3))
        for index, landmark in KEYPOINT_ORDERS[order].items():
            points[index] = landmarks[landmark]
        return points


@pytest.fixture
def scene() -> type[Scene]:
    """The dots and everything that draws and finds them."""
    return Scene

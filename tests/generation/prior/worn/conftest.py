"""A mean head that wears a known frame: its portrait is the frame's own projection."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from dp360.generation import look_at_origin
from dp360.generation.head_model import HeadFit, load_head_model
from dp360.generation.head_model.anatomy import world_units
from dp360.generation.portrait import Portrait
from dp360.generation.prior.labels.portrait_labels import PortraitLabels, project_px
from dp360.generation.prior.labels.segmenter import CLASS_NAMES, FACE, GLASSES
from dp360.generation.prior.worn.frame_shape import FrameShape, WearersFace, frame_curves, upper_parts

SIZE = 512
SKIN_RGB, FRAME_RGB, LENS_RGB = (0.8, 0.6, 0.5), (0.1, 0.15, 0.3), (0.2, 0.1, 0.05)
KNOWN = FrameShape(
    x_cm=0.1, y_cm=-0.5, z_cm=0.0, roll_rad=0.03, yaw_rad=0.0, tilt_rad=0.09, half_width_cm=2.45, half_height_cm=2.05,
    exponent=2.6, lift_cm=0.0, taper=0.05, half_gap_cm=0.95, bridge_share=0.4, hinge_share=0.5, ear_drop_cm=0.35,
)  # fmt: skip
RIM_CM = 0.3


@dataclass(frozen=True)
class Wearer:
    """A portrait with its labels."""

    portrait: Portrait
    labels: PortraitLabels
    face: WearersFace


def wearer_of(
    shape: FrameShape | None, *, yaw_deg: float = 0.0, lower: bool = True, opaque: bool = False, label: int = GLASSES
) -> Wearer:
    """The mean head with a frame drawn over it.

    Args:
        shape: of the frame; None for bare eyes.
        lower: it has a lower rim.
        opaque: its lenses are opaque.
        label: the class of its pixels.
    """
    model = load_head_model()
    vertices = model.neutral.astype(np.float64)
    camera = look_at_origin([math.radians(yaw_deg)], [0.0], size_px=SIZE)
    face = WearersFace.of(model, vertices)
    frame, lenses = np.zeros((2, SIZE, SIZE), np.uint8)
    if shape is not None:
        curves, upper = frame_curves(shape, face), upper_parts(shape)
        width = round(RIM_CM * 13.3)
        for k, rim in enumerate(curves.rims):
            px = project_px(camera, world_units(rim))
            shown = np.ones(len(px), bool) if lower else upper[k]
            following = np.roll(px, -1, 0)
            for a, b in zip(px[shown & np.roll(shown, -1)], following[shown & np.roll(shown, -1)]):
                draw(frame, np.stack([a, b]), width)
            if opaque:
                cv2.fillPoly(lenses, [np.round(px).astype(np.int32)], (1,))
        for line in (curves.bridge, *curves.hinges):
            draw(frame, project_px(camera, world_units(line)), width)
    rgb = np.empty((SIZE, SIZE, 3), np.float32)
    rgb[:] = SKIN_RGB
    rgb[lenses > 0], rgb[frame > 0] = LENS_RGB, FRAME_RGB
    rgb = cv2.GaussianBlur(rgb, (0, 0), 0.6)
    one_hot = np.eye(len(CLASS_NAMES), dtype=np.float32)[np.where((frame | lenses) > 0, label, FACE)]
    classes = cv2.GaussianBlur(one_hot, (0, 0), 0.7)
    fit = HeadFit(np.zeros(0), np.zeros(0), vertices, camera, np.zeros(478))
    solid, nowhere = np.ones((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), bool)
    portrait = Portrait(
        (255 * rgb).astype(np.uint8), solid, rgb, ~nowhere, None, fit, "standard", "drawn", "0" * 64, ()
    )
    certain = np.zeros((SIZE, SIZE, 3))
    certain[..., 0] = 1
    labels = PortraitLabels(certain, ~nowhere, nowhere, nowhere, np.zeros((SIZE, SIZE), np.float32), classes)
    return Wearer(portrait, labels, face)


def draw(mask: np.ndarray, px: np.ndarray, width: int) -> None:
    """A line through pixel positions (centres at +0.5)."""
    cv2.polylines(mask, [np.round(8 * (px - 0.5)).astype(np.int32)], False, (1,), width, cv2.LINE_8, 3)


@pytest.fixture(scope="session")
def wearer() -> Callable[..., Wearer]:
    return wearer_of


@pytest.fixture(scope="session")
def known() -> FrameShape:
    return KNOWN

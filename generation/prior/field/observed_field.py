"""`ObservedField`: what one portrait shows of a head field, cell by cell, and how far it is to be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32

from .chart import MIRRORED
from .head_field import MATERIALS, THICKNESS_SCALE

OBSERVED_CHANNELS = (
    "visibility", *MATERIALS, "orientation_cos", "orientation_sin", "orientation_certainty", "thickness",
    "thickness_certainty", "thickness_bound", "in_frame", "red", "green", "blue", "skull",
)  # fmt: skip
"""Channels of `ObservedField.pack`."""
_SKULL_MIDDLE, _SKULL_SPREAD = 0.15, 0.1


@dataclass(frozen=True)
class ObservedField:
    """A portrait's evidence on the chart; nothing (zeros) where the portrait shows nothing."""

    skull_radius: Float32[np.ndarray, "56 64"]
    """Of the fitted head, as in `HeadField`."""
    visibility: Float32[np.ndarray, "56 64"]
    """How surely the cell's surface is seen, [0, 1]; it is also the certainty of `material` and `rgb`."""
    material: Float32[np.ndarray, "4 56 64"]
    """Shares of skin, hair, headgear and cloth as they were told apart in the picture, sum 1 where seen."""
    rgb: Float32[np.ndarray, "3 56 64"]
    """Colour as seen, with its light, sRGB in [0, 1]."""
    orientation: Float32[np.ndarray, "2 56 64"]
    """Cosine and sine of twice the angle of hair from down towards around: pictures know no root and tip."""
    orientation_certainty: Float32[np.ndarray, "56 64"]
    """Trust in it, [0, 1]."""
    thickness: Float32[np.ndarray, "56 64"]
    """Of the cover where the outline of the picture shows it, world units."""
    thickness_certainty: Float32[np.ndarray, "56 64"]
    """Trust in it, [0, 1]."""
    thickness_bound: Float32[np.ndarray, "56 64"]
    """Thickness from which on the cover would show beside the outline, world units."""
    in_frame: Float32[np.ndarray, "56 64"]
    """Whether the picture could have shown the cell's cover beside the head: 0 beyond its edge."""
    tokens: Float32[np.ndarray, " 4"]
    """`head_field.TOKENS` as seen, NaN where the picture does not tell."""
    towards_camera: Float32[np.ndarray, " 3"]
    """Unit vector from the head's middle to the camera, world frame, as it was estimated."""

    def __post_init__(self) -> None:
        shares = (
            self.visibility, self.material, self.rgb, self.orientation_certainty, self.thickness_certainty,
            self.in_frame,
        )  # fmt: skip
        if not all(((x >= 0) & (x <= 1)).all() for x in shares):
            raise ValueError("Not an observed field: certainties, shares and colours must lie in [0, 1]")
        if not all(np.isfinite(x).all() and (x >= 0).all() for x in (self.thickness, self.thickness_bound)):
            raise ValueError("Not an observed field: lengths must be finite and at least 0")

    @property
    def untold(self) -> Bool[np.ndarray, "56 64"]:
        """Cells of which the portrait tells nothing: they are not seen, and are not its outline."""
        return (self.visibility == 0) & (self.thickness_certainty == 0)

    def mirrored(self) -> ObservedField:
        """What the mirrored portrait shows."""
        turned = {n: v[..., MIRRORED] for n, v in vars(self).items() if v.ndim > 1}
        turned["orientation"] = turned["orientation"] * np.array([1, -1], np.float32)[:, None, None]
        turned["towards_camera"] = self.towards_camera * np.array([-1, 1, 1], np.float32)
        return replace(self, **turned)

    def pack(self) -> Float32[np.ndarray, "16 56 64"]:
        """Channels for networks in the order of `OBSERVED_CHANNELS`; what is not seen is 0."""
        return np.concatenate([
            self.visibility[None],
            self.material * self.visibility,
            self.orientation * self.orientation_certainty,
            self.orientation_certainty[None],
            (THICKNESS_SCALE.encode(self.thickness) * self.thickness_certainty)[None],
            self.thickness_certainty[None],
            (THICKNESS_SCALE.encode(self.thickness_bound) * self.in_frame)[None],
            self.in_frame[None],
            (2 * self.rgb - 1) * self.visibility,
            ((self.skull_radius - _SKULL_MIDDLE) / _SKULL_SPREAD)[None],
        ]).astype(np.float32)  # fmt: skip

    def pack_globals(self) -> Float32[np.ndarray, " 11"]:
        """Tokens (0 where unknown), which of them are known, and the direction of the camera."""
        known = np.isfinite(self.tokens)
        return np.concatenate([np.where(known, 2 * self.tokens - 1, 0), known, self.towards_camera]).astype(np.float32)

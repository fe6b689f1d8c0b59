"""`HeadField`: all that grows on a head or is worn on it, on the head's own chart.

One frozen record holds geometry (how thick the cover is), material, the way hair runs, how unruly and how long it is,
and colours without light. Composed heads give it exactly, a portrait where it shows something (`ObservedField`), and
networks for the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from .chart import COLUMNS, MIRRORED, ROWS, cell_frames

SKIN, HAIR, HEADGEAR, CLOTH = range(4)
"""Materials in the order of their channels."""
MATERIALS = ("skin", "hair", "headgear", "cloth")
COVERED = 1 / 3
"""A cell whose cover has at least this share has a thickness of its own; elsewhere it is filled in."""
TOKENS = ("curl", "clumping", "grey", "contrast")
"""Numbers of the whole head, [0, 1], NaN where unknown: how tightly hair is wound (0 straight, 0.5 one turn on a path
as long as its circumference), how far it joins to locks, the share of grey hairs, and the deviation of log brightness
from hair to hair."""
_MOST_THICKNESS, _MOST_LENGTH = 0.25, 1.0
_SUM_SLACK = 2e-2
"""How far the shares of a cell may be from 1 in sum: they are stored in eight bits."""


class RootScale(NamedTuple):
    """Lengths as networks see them: (sqrt(length + offset) - middle) / spread, about -1 to 1 for most.

    Half of all hair lies within 13 mm of the skull, a hundredth beyond 120 mm: the root keeps both apart.
    """

    offset: float
    middle: float
    spread: float
    most: float

    def encode(self, length: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
        """Scaled values of lengths in world units."""
        return ((np.sqrt(np.clip(length, 0, self.most) + self.offset) - self.middle) / self.spread).astype(np.float32)

    def decode(self, value: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
        """Inverse of `encode`."""
        root = np.clip(value * self.spread + self.middle, math.sqrt(self.offset), math.sqrt(self.most + self.offset))
        return np.maximum(root**2 - self.offset, 0).astype(np.float32)


THICKNESS_SCALE = RootScale(0.004, 0.16, 0.085, _MOST_THICKNESS)
LENGTH_SCALE = RootScale(0.01, 0.42, 0.22, _MOST_LENGTH)


@dataclass(frozen=True)
class HeadField:
    """A head's cover on the chart; grids have 56 rows and 64 columns, lengths are in world units, colours sRGB."""

    skull_radius: Float32[np.ndarray, "56 64"]
    """Of the head without ears and nose, along each cell's ray: the base, known of every head."""
    thickness: Float32[np.ndarray, "56 64"]
    """Height of the cover's outer surface above the skull, at least 0; filled in from the nearest where none is."""
    material: Float32[np.ndarray, "4 56 64"]
    """Shares of the cell whose outermost surface is skin, hair, headgear, cloth; they add up to 1."""
    flow: Float32[np.ndarray, "3 56 64"]
    """Direction of hair from root to tip along down, around and outward: of length 1 where it is known, 0 where not."""
    flow_certainty: Float32[np.ndarray, "56 64"]
    """Share of the cell with hair whose direction is known, [0, 1]."""
    disorder: Float32[np.ndarray, "56 64"]
    """Root of 1 less the length of the mean of unit directions in the cell: 0 combed, 0.2 spread by 16 degrees, 1 any
    way."""
    strand_length: Float32[np.ndarray, "56 64"]
    """Mean length of the cell's hairs from root to tip; filled in where there are none."""
    cover_albedo: Float32[np.ndarray, "3 56 64"]
    """Colour of hair and headgear without light, [0, 1]; filled in where there is none."""
    skin_albedo: Float32[np.ndarray, "3 56 64"]
    """Colour of the skin below, likewise."""
    cloth_albedo: Float32[np.ndarray, "3 56 64"]
    """Colour of cloth, likewise."""
    tokens: Float32[np.ndarray, " 4"]
    """`TOKENS`."""

    def __post_init__(self) -> None:
        broken = [name for name, holds in self._laws().items() if not holds]
        if broken:
            raise ValueError(f"Not a head field: {'; '.join(broken)}")

    def _laws(self) -> dict[str, bool]:
        shares = (self.material, self.flow_certainty, self.disorder, self.cover_albedo, self.skin_albedo,
                  self.cloth_albedo)  # fmt: skip
        lengths = (self.thickness, self.strand_length, self.skull_radius)
        return {
            "all lengths must be finite and at least 0": all(np.isfinite(x).all() and (x >= 0).all() for x in lengths),
            "shares and colours must lie in [0, 1]": all(((x >= 0) & (x <= 1)).all() for x in shares),
            "the shares of materials must add up to 1": bool((np.abs(self.material.sum(0) - 1) < _SUM_SLACK).all()),
            "a direction must not be longer than 1": bool((np.square(self.flow).sum(0) < 1.03).all()),
            "known tokens must lie in [0, 1]": bool(((self.tokens >= 0) & (self.tokens <= 1))[self.known_tokens].all()),
        }

    @property
    def presence(self) -> Float32[np.ndarray, "56 64"]:
        """Share of each cell that something covers: hair, headgear or cloth."""
        return self.material[HAIR:].sum(0)

    @property
    def known_tokens(self) -> np.ndarray:
        """Which of `TOKENS` are known."""
        return np.isfinite(self.tokens)

    @property
    def outer_radius(self) -> Float32[np.ndarray, "56 64"]:
        """Radius of what is outermost: the cover where there is one, the skull elsewhere."""
        return np.where(self.presence >= COVERED, self.skull_radius + self.thickness, self.skull_radius)

    def points_world(self) -> Float32[np.ndarray, "56 64 3"]:
        """World points of `outer_radius`."""
        frames = cell_frames()
        return (frames.origins_world + frames.outward * self.outer_radius[..., None]).astype(np.float32)

    def flow_world(self) -> Float32[np.ndarray, "56 64 3"]:
        """Directions in the world frame."""
        return world_from_cells(self.flow)

    def over(self, skull_radius: Float32[np.ndarray, "56 64"]) -> HeadField:
        """The same cover above another skull, such as the one that a portrait was fitted with."""
        thickness = np.maximum(self.thickness + self.skull_radius - skull_radius, 0)
        return replace(self, skull_radius=skull_radius, thickness=thickness)

    def mirrored(self) -> HeadField:
        """The field of the mirrored head."""
        turned = {n: v[..., MIRRORED] for n, v in vars(self).items() if n != "tokens"}
        turned["flow"] = turned["flow"] * np.array([1, -1, 1], np.float32)[:, None, None]
        return replace(self, **turned)

    def pack(self) -> Float32[np.ndarray, "20 56 64"]:
        """Channels for networks, about -1 to 1, in the order of `CHANNELS`; the skull and the tokens stay apart."""
        unit = np.concatenate([
            self.material, self.flow_certainty[None], self.disorder[None], self.cover_albedo, self.skin_albedo,
            self.cloth_albedo,
        ])  # fmt: skip
        scaled = np.stack([THICKNESS_SCALE.encode(self.thickness), LENGTH_SCALE.encode(self.strand_length)])
        return np.concatenate([2 * unit - 1, scaled, self.flow]).astype(np.float32)

    @classmethod
    def unpack(
        cls,
        channels: Float32[np.ndarray, "20 56 64"],
        skull_radius: Float32[np.ndarray, "56 64"],
        tokens: Float32[np.ndarray, " 4"],
    ) -> HeadField:
        """The field of channels, made to keep the laws: shares are clipped and add up, directions are at most 1 long.

        Args:
            channels: as `pack` orders them.
            skull_radius: of the head.
            tokens: `TOKENS`; they are clipped.
        """
        unit = np.clip((channels[:_N_UNIT] + 1) / 2, 0, 1)
        material = unit[:4] + 1e-6
        flow = channels[_N_UNIT + 2 :]
        length = np.sqrt(np.square(flow).sum(0, keepdims=True))
        return cls(
            skull_radius=skull_radius,
            thickness=THICKNESS_SCALE.decode(channels[_N_UNIT]),
            material=material / material.sum(0, keepdims=True),
            flow=flow / np.maximum(length, 1),
            flow_certainty=unit[4],
            disorder=unit[5],
            strand_length=LENGTH_SCALE.decode(channels[_N_UNIT + 1]),
            cover_albedo=unit[6:9],
            skin_albedo=unit[9:12],
            cloth_albedo=unit[12:15],
            tokens=np.clip(tokens, 0, 1),
        )

    def weights(self) -> Float32[np.ndarray, "20 56 64"]:
        """How much each channel of `pack` is worth to a learner: little where values were filled in.

        Directions of hair count where they are known; where there is hair of unknown direction (cards) they do not
        count, and off hair a little, so that fields end softly.
        """
        covered = np.where(self.presence >= COVERED, 1.0, FILLED_WEIGHT)
        hair, known = self.material[HAIR] >= COVERED, self.flow_certainty > KNOWN_FLOW
        flow = np.where(known & (self.material[HAIR] > 0.5), 1.0, np.where(hair, 0.0, FILLED_WEIGHT / 2))
        hat = self.material[HAIR] + self.material[HEADGEAR] >= COVERED
        albedo = [np.where(w, 1.0, FILLED_WEIGHT) for w in (hat, np.ones_like(hat), self.material[CLOTH] >= COVERED)]
        one = np.ones_like(covered)
        rows = [one] * 4 + [np.where(hair, 1.0, FILLED_WEIGHT), flow] + [a for a in albedo for _ in range(3)]
        return np.stack([*rows, covered, flow, flow, flow, flow]).astype(np.float32)


CHANNELS = (
    *MATERIALS, "flow_certainty", "disorder", "cover_red", "cover_green", "cover_blue", "skin_red", "skin_green",
    "skin_blue", "cloth_red", "cloth_green", "cloth_blue", "thickness", "strand_length", "flow_down", "flow_around",
    "flow_outward",
)  # fmt: skip
"""Channels of `HeadField.pack`."""
_N_UNIT = CHANNELS.index("thickness")
FILLED_WEIGHT = 0.1
KNOWN_FLOW = 0.3
"""Least share of a cell with a known direction for it to count."""


def world_from_cells(vectors: Float32[np.ndarray, "3 56 64"]) -> Float32[np.ndarray, "56 64 3"]:
    """World vectors of components along down, around, outward."""
    frames = cell_frames()
    down, around, outward = vectors[..., None]
    return (down * frames.down + around * frames.around + outward * frames.outward).astype(np.float32)


def cells_from_world(vectors_world: Float32[np.ndarray, "56 64 3"]) -> Float32[np.ndarray, "3 56 64"]:
    """Inverse of `world_from_cells`."""
    frames = cell_frames()
    return np.stack([(vectors_world * axis).sum(-1) for axis in frames[1:]]).astype(np.float32)


assert ROWS == 56 and COLUMNS == 64  # the annotations above say so

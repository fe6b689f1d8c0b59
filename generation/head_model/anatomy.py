"""The one table of anatomy: the head's frame in centimetres, and where things lie in it.

The frame is that of the parametric head's source (ICT-FaceKit), in which anatomical borders are stated: x to the
head's left, y up, z to the front. On the mean head the eyes are at (+-3.2, 3.6, 8), the crown is at y = 14, the chin at
y = -8.5, the ears at z = 0. `centimetres` and `world_units` go from and to the world frame of `cameras`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ..cameras import UNITS_PER_CM

ORIGIN_CM = np.array([0.0, 2.0, 1.0])
"""The world's origin."""
FOREHEAD_LANDMARK, CHIN_LANDMARK = 10, 152
"""Ends of the axis of the face among mediapipe's 478 landmarks."""
CROWN_TO_CHIN_CM = 22.4
"""Height of the mean head without hair."""

CHIN_Y_CM, CHIN_Z_CM = -8.5, 6.0
"""The chin's underside, on the middle plane."""
NECK_BASE_Y_CM, NECK_BASE_Z_CM = -13.0, 0.0
"""Where the neck meets the shoulders, on the middle plane."""
NECK_TOP_Y_CM = -9.0
"""Skin below this height is neck."""
COLLAR_Y_CM = (-9.5, -13.5)
"""On the neck, cloth is next to impossible above the first height, and as likely as it gets from the second down."""
OWN_SHOULDERS_Y_CM = -14.5
"""Below this the model's own shoulders begin, which say nothing about the picture's."""
FOREHEAD_Y_CM = 4.0
"""Bare skin in front above this height, above the brows, is forehead or temple."""
HAIRLINE_Y_CM = (8.0, 11.0)
"""Hair begins between these heights of the forehead: its upper third may be either."""
TEMPLES_Z_CM = (3.2, 0.8)
"""At the sides hair begins between these depths, going back."""
NAPE_Y_CM = (-7.0, -4.5)
"""At the back hair ends between these heights, going down from the second."""
HAIR_END_Y_CM = -6.0
"""Height at which hair that does not hang ends."""
NECK_UPPER_Y_CM = -5.0
"""Of the skin below this height sections of the neck are taken."""
NECK_CUT_Y_CM = -11.0
"""The head model is cut off here."""
NECK_OVERLAP_CM = 0.6
"""The head model is shown this far below `NECK_CUT_Y_CM`."""

# Heights on the bust, above the neck's cut along the body, world units.
COLLAR_HEIGHTS = (-0.075, 0.0545)
"""Between these a collar can end."""
COLLAR_TOP, COLLAR_AT_JAW, COLLAR_UNSEEN, COLLAR_NONE = 0.0485, 0.0465, 0.004, -0.05
"""Of the highest collar, of cloth that covers the neck, of a collar that is not seen, and where there is none."""
BUST_SECTIONS = (0.075, -0.30)
"""Between these the bust is made."""
BUST_END, BUST_END_LIFT, BUST_END_LIFT_AT = -0.2755, 0.085, 0.38
"""Height of the lower end in the middle, and how much higher it is at that distance from the middle."""


class Box(NamedTuple):
    """A box on either side of the head, centimetres."""

    low: tuple[float, float, float]
    """Least |x|, y and z."""
    high: tuple[float, float, float]
    """Largest |x|, y and z."""

    def holds(self, points_cm: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        """Whether points lie inside, on either side."""
        folded = np.abs(points_cm) * [1, 0, 0] + points_cm * [0, 1, 1]
        return ((folded > self.low) & (folded < self.high)).all(-1)


EAR = Box((6.6, -4.5, -3.5), (np.inf, 5.0, 2.5))
"""The ears stand out of the skull in here."""
EAR_HOLLOW = Box((6.0, -3.0, -2.0), (np.inf, 3.0, 2.5))
"""The hollow of the ear, which is as far in as the scalp and carries no hair."""
LIPS = Box((0.0, -4.8, 6.0), (3.2, -2.0, np.inf))
"""The lips, outside and in."""


def centimetres(points_world: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """World points in the centimetres of this table."""
    return points_world / UNITS_PER_CM + ORIGIN_CM


def world_units(points_cm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Inverse of `centimetres`."""
    return (points_cm - ORIGIN_CM) * UNITS_PER_CM


def world_height(y_cm: float) -> float:
    """A height of this table in world units."""
    return (y_cm - float(ORIGIN_CM[1])) * UNITS_PER_CM


def ramp(value: Float[np.ndarray, "*n"], low: float | int, high: float | int) -> Float[np.ndarray, "*n"]:
    """0 at `low` and beyond, 1 at `high` and beyond, straight between."""
    return np.clip((value - low) / (high - low), 0.0, 1.0)

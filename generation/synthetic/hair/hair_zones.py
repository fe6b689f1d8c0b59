"""Where hair grows and lies on the average head: the one table of its borders, and weights that follow from it.

All numbers are centimetres in the frame of `head_model.anatomy`. Of a pair, the weight is 0 at the first number
and beyond, 1 at the second and beyond.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from ...head_model.anatomy import ramp

HAIRLINE_Y_CM = (8.3, 9.6)
"""Above the forehead; the line rises to corners above the temples."""
HAIRLINE_RISE_PER_CM = 0.05
"""By this much times the square of the distance from the middle."""
SIDE_Z_CM, SIDE_Y_CM = (3.0, 1.6), (-1.0, 0.5)
"""Sideburns of the scalp's hair, which end beside the ear's lower half."""
NAPE_Z_CM, NAPE_Y_CM = (-1.6, -3.0), (-5.8, -4.2)
TEMPLE_Z_CM, TEMPLE_Y_CM = (4.6, 3.2), (4.0, 6.0)

CHEEK_TOP_Y_CM, CHEEK_MIDDLE_X_CM, CHEEK_RISE = (-2.2, -3.6), 3.0, 0.35
"""Upper border of a full beard; from the middle of the cheek it rises towards the ears."""
THROAT_Y_CM = (-11.0, -9.2)
BEHIND_JAW_Z_CM = (-1.2, 0.6)
LIPS_Y_CM, LIPS_HALF_CM = -3.3, (2.9, 1.15)
"""Height of the lips' middle, half their width and height: a bare ellipse."""
MOUTH_FRONT_Z_CM, CHIN_FRONT_Z_CM = 6.0, 4.0
"""Moustaches and beards of the chin lie before these depths."""
MOUSTACHE_Y_CM, MOUSTACHE_TOP_Y_CM, MOUSTACHE_X_CM = (-3.6, -2.9), (-0.9, -1.5), (3.6, 2.9)
CHIN_BEARD_Y_CM, CHIN_BEARD_X_CM = (-3.9, -4.6), (3.4, 2.4)
CORNER_Y_CM, CORNER_INNER_X_CM, CORNER_X_CM = (-1.8, -2.4), (2.4, 2.9), (3.9, 3.3)
"""Beside the mouth, where goatees join moustache and chin."""
SIDEBURN_Y_CM, SIDEBURN_END_Y_CM, SIDEBURN_X_CM = (2.5, 1.5), (-7.0, -5.0), 4.0
SIDEBURN_Z_CM, SIDEBURN_FRONT_Z_CM = (-0.5, 0.5), (3.6, 2.6)

TOP_Y_CM, BACK_Z_CM = (6.5, 9.5), (-1.0, -4.5)
"""What a haircut calls top and back; the rest are its sides."""
RECEDING_Y_CM, RECEDING_Z_CM = (8.0, 10.0), (-7.5, -5.0)
"""Bald where both hold: a receding front and crown."""
MOHAWK_X_CM = (2.6, 2.0)
FORELOCK_X_CM, FORELOCK_Y_CM, FORELOCK_Z_CM = 4.5, 8.0, 3.0
"""Fringes grow nearer to the middle, above and before these."""
FRINGE_CM = 6.5
"""Longest hairs of a fringe."""
COMBED_TOP_Y_CM = (6.0, 11.0)
"""Combs lead down below, and each its own way above."""
WHORL_CM = (0.0, 12.0, -5.0)
FACE_X_CM, FACE_Y_CM, FACE_Z_CM = (6.8, 5.3), (8.5, 6.5), (1.5, 4.0)
"""Hair is kept out of here, but for fringes."""
HAIRLINE_Z_CM = 8.5
"""Depth of the hairline's middle."""
SWIRL_CM = 5.0
"""How far hair turns about the whorl."""
FADE_Y_CM = (5.0, -4.5)
"""Fades run from the first height, where hair has its length, down to the second."""
RECESS_ABOVE_Y_CM = (6.5, 8.0)
"""Hairlines recede above these heights; below stays the wreath."""
TEMPLE_X_CM = (1.0, 4.5)
"""Temples recede more than the middle between these distances from it."""
HAT_LINE_Y_CM = 6.0
"""Under a hat hair lies flat above this height."""


def scalp_weight(rest_cm: Float[np.ndarray, "v 3"], is_ear: Bool[np.ndarray, " v"]) -> Float[np.ndarray, " v"]:
    """1 on the scalp, 0 elsewhere, soft across the usual hairline."""
    x, y, z = rest_cm.T
    front = ramp(y - HAIRLINE_RISE_PER_CM * x * x * (z > 0), *HAIRLINE_Y_CM)
    sides = ramp(z, *SIDE_Z_CM) * ramp(y, *SIDE_Y_CM)
    nape = ramp(z, *NAPE_Z_CM) * ramp(y, *NAPE_Y_CM)
    temple = ramp(y, *TEMPLE_Y_CM) * ramp(z, *TEMPLE_Z_CM)
    return np.where(is_ear, 0.0, np.maximum.reduce([front, sides, nape, temple]))


def beard_weights(
    rest_cm: Float[np.ndarray, "v 3"], is_ear: Bool[np.ndarray, " v"]
) -> dict[str, Float[np.ndarray, " v"]]:
    """Where each kind of beard grows, weights per vertex."""
    x, y, z = rest_cm.T
    side = np.abs(x)
    below_cheek = ramp(y - CHEEK_RISE * (side - CHEEK_MIDDLE_X_CM).clip(0), *CHEEK_TOP_Y_CM)
    above_throat = ramp(y, *THROAT_Y_CM)
    at_mouth = z > MOUTH_FRONT_Z_CM
    off_lips = (x / LIPS_HALF_CM[0]) ** 2 + ((y - LIPS_Y_CM) / LIPS_HALF_CM[1]) ** 2
    lips = ramp(1.0 - off_lips, -0.05, 0.1) * at_mouth
    jaw = below_cheek * above_throat * ramp(z, *BEHIND_JAW_Z_CM) * (1 - lips)
    moustache = ramp(y, *MOUSTACHE_Y_CM) * ramp(y, *MOUSTACHE_TOP_Y_CM) * ramp(side, *MOUSTACHE_X_CM) * at_mouth
    moustache = moustache * (1 - lips)
    chin = ramp(y, *CHIN_BEARD_Y_CM) * ramp(side, *CHIN_BEARD_X_CM) * above_throat * (z > CHIN_FRONT_Z_CM) * (1 - lips)
    corners = ramp(y, *CORNER_Y_CM) * ramp(side, *CORNER_INNER_X_CM) * ramp(side, *CORNER_X_CM) * at_mouth
    corners = corners * above_throat
    sideburns = ramp(y, *SIDEBURN_Y_CM) * ramp(z, *SIDEBURN_Z_CM) * ramp(z, *SIDEBURN_FRONT_Z_CM)
    sideburns = sideburns * (side > SIDEBURN_X_CM) * ramp(y, *SIDEBURN_END_Y_CM)
    full = np.maximum(np.maximum(jaw, moustache), sideburns)
    goatee = np.maximum.reduce([moustache, chin, corners])
    kinds = {"goatee": goatee, "moustache": moustache, "sideburns": sideburns}
    kinds |= dict.fromkeys(("stubble", "heavy_stubble", "full", "long"), full)
    return {kind: weight * ~is_ear for kind, weight in kinds.items()}

"""The 52 blend shapes of Apple's ARKit by name, and what of the head model moves for each.

Left and right are the person's own. The head model has 47 ARKit-like expressions; brows and cheeks that it has for
either side are added up where ARKit knows only both, and its `cheekRaiser`, which ARKit lacks, goes into `cheekSquint`.
Gaze and tongue it lacks; `shapes` derives them.

Source: https://developer.apple.com/documentation/arkit/arfaceanchor/blendshapelocation (names and meanings).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dp360.generation.head_model import HeadModel

_EYE = ("eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide")
ARKIT_NAMES: tuple[str, ...] = (
    *(f"{name}Left" for name in _EYE), *(f"{name}Right" for name in _EYE),
    "jawForward", "jawRight", "jawLeft", "jawOpen",
    "mouthClose", "mouthFunnel", "mouthPucker", "mouthRight", "mouthLeft", "mouthSmileLeft", "mouthSmileRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft",
    "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight",
    "tongueOut",
)  # fmt: skip
"""In the order of Live Link Face's columns."""
GROUPS: dict[str, tuple[str, ...]] = {
    "Eyes": ARKIT_NAMES[:14],
    "Brows": tuple(name for name in ARKIT_NAMES if name.startswith("brow")),
    "Cheeks and nose": tuple(name for name in ARKIT_NAMES if name.startswith(("cheek", "nose"))),
    "Jaw and tongue": tuple(name for name in ARKIT_NAMES if name.startswith(("jaw", "tongue"))),
    "Mouth": tuple(name for name in ARKIT_NAMES if name.startswith("mouth")),
}
"""The same by parts of the face."""
DERIVED: tuple[str, ...] = (*(name for name in ARKIT_NAMES if "Look" in name), "tongueOut")
"""Shapes that the head model lacks."""
_ONLY_BOTH = ("browInnerUp", "cheekPuff")
_RAISER_SHARE = 0.5
"""Of `cheekRaiser` in `cheekSquint`."""


def index_of(name: str) -> int:
    """Place of a shape in `ARKIT_NAMES`."""
    return ARKIT_NAMES.index(name)


def model_matrix(model: HeadModel) -> Float[np.ndarray, "52 e"]:
    """How much of each of the head model's expressions is in each shape; zeros for those in `DERIVED`."""
    matrix = np.zeros((len(ARKIT_NAMES), len(model.expression_names)))
    for column, name in enumerate(model.expression_names):
        plain, _, side = name.partition("_")
        full = plain if plain in _ONLY_BOTH else plain + {"L": "Left", "R": "Right", "": ""}[side]
        if plain == "cheekRaiser":
            matrix[index_of(full.replace("Raiser", "Squint")), column] = _RAISER_SHARE
        else:
            matrix[index_of(full), column] = 1.0
    return matrix

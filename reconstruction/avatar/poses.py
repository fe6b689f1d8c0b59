"""Poses of a head: weights of the 52 shapes and the turn of the head; presets, and poses out of a line of text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dp360.generation import InputError
from dp360.generation.errors import quoted

from .arkit import ARKIT_NAMES, index_of

HEAD_NAMES = ("headYaw", "headPitch", "headRoll")
"""Degrees in texts: to the head's left, down, and the crown to the head's right."""
MOST_HEAD_DEG = 60.0
"""Turns are held within this."""


def _both(**weights: float) -> dict[str, float]:
    return {f"{name}{side}": weight for name, weight in weights.items() for side in ("Left", "Right")}


PRESETS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {**_both(mouthSmile=0.75, cheekSquint=0.4, eyeSquint=0.2, mouthDimple=0.15)},
    "laugh": {
        **_both(mouthSmile=0.85, cheekSquint=0.6, eyeSquint=0.4, mouthUpperUp=0.3, mouthLowerDown=0.25), "jawOpen": 0.3,
    },
    "sad": {**_both(mouthFrown=0.7, browDown=0.1, eyeSquint=0.15), "browInnerUp": 0.8, "mouthShrugLower": 0.35},
    "angry": {**_both(browDown=0.9, noseSneer=0.5, eyeSquint=0.4, mouthPress=0.5, mouthFrown=0.25)},
    "surprise": {**_both(browOuterUp=0.8, eyeWide=0.8), "browInnerUp": 0.8, "jawOpen": 0.4},
    "blink": _both(eyeBlink=1.0),
    "wink": {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.4, "mouthSmileLeft": 0.4},
    "kiss": {"mouthPucker": 0.9, "mouthFunnel": 0.15},
    "ooh": {"mouthFunnel": 0.8, "jawOpen": 0.2},
    "tongue": {"tongueOut": 0.9, "jawOpen": 0.45},
}  # fmt: skip
"""Expressions by name."""


@dataclass(frozen=True)
class Pose:
    """An expression, and a turn of the head."""

    weights: Float[np.ndarray, " 52"]
    """Of the shapes in `ARKIT_NAMES`, 0 to 1."""
    head_rad: Float[np.ndarray, " 3"]
    """Yaw (to the head's left), pitch (down) and roll (the crown to the head's right), radians."""

    @classmethod
    def of(cls, weights: Mapping[str, float], head_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Pose:
        """A pose by names of shapes, with a turn in degrees.

        Raises:
            InputError: a name that is no shape's, or a number that is not finite.
        """
        values = np.zeros(len(ARKIT_NAMES))
        for name, weight in weights.items():
            if name not in ARKIT_NAMES:
                raise InputError(f"Cannot pose: expected a shape such as jawOpen or eyeBlinkLeft, got {quoted(name)}")
            values[index_of(name)] = _finite(weight, name)
        turn = np.array([_finite(angle, name) for angle, name in zip(head_deg, HEAD_NAMES)])
        return cls(np.clip(values, 0.0, 1.0), np.radians(np.clip(turn, -MOST_HEAD_DEG, MOST_HEAD_DEG)))

    @classmethod
    def neutral(cls) -> Pose:
        """No expression, straight ahead."""
        return cls(np.zeros(len(ARKIT_NAMES)), np.zeros(3))

    @property
    def named(self) -> dict[str, float]:
        """Shapes with their weights, without those that are zero."""
        return {name: round(float(w), 4) for name, w in zip(ARKIT_NAMES, self.weights) if w}


def pose_from_text(text: str, known: Mapping[str, Pose] | None = None) -> Pose:
    """A pose out of words such as `smile`, `jawOpen=.7` or `smile+headYaw=20`, with plus signs between.

    Names of presets and of `known` add all of their shapes, times the number behind `=` if there is one; `headYaw`,
    `headPitch` and `headRoll` are degrees.

    Args:
        known: further poses by name, such as the portrait's own.

    Raises:
        InputError: a word that is no shape, preset or turn, or what follows `=` is no number.
    """
    weights, turn = np.zeros(len(ARKIT_NAMES)), np.zeros(3)
    presets = {name: Pose.of(shapes) for name, shapes in PRESETS.items()} | dict(known or {})
    for word in text.split("+"):
        name, separator, number = (part.strip() for part in word.partition("="))
        try:
            amount = float(number) if separator else 1.0
        except ValueError as error:
            raise InputError(
                f"Cannot pose: expected a number behind {name}=, got {quoted(number)}; write jawOpen=0.7"
            ) from error
        _finite(amount, name)
        if name in presets:
            weights += amount * presets[name].weights
            turn += amount * presets[name].head_rad
        elif name in ARKIT_NAMES:
            weights[index_of(name)] += amount
        elif name in HEAD_NAMES:
            turn[HEAD_NAMES.index(name)] += math.radians(amount)
        else:
            raise InputError(
                f"Cannot pose: expected one of {', '.join(presets)}, one of the 52 shapes such as jawOpen, or "
                f"{', '.join(HEAD_NAMES)}, got {quoted(name)}"
            )
    most = math.radians(MOST_HEAD_DEG)
    return Pose(np.clip(weights, 0.0, 1.0), np.clip(turn, -most, most))


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise InputError(f"Cannot pose: expected a finite number for {name}, got {value}")
    return float(value)

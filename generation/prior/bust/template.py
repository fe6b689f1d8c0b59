"""The statistical bust: mean and modes of many adults' shoulders, bent by a few parameters.

`scripts/build_bust_template.py` makes the file out of MakeHuman's body (CC0); what is in it and how it was made is in
`generation/weights/MODEL_CARD_BUST.md`. Frame and columns are those of `sections`, lengths are world units.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ...files import write_bytes_atomically
from ...weights import shipped_file
from .sections import COLUMNS

FILE_NAME = "bust_template.safetensors"
VERSION = "1"
SHAPE_PARAMETERS = ("log_width", "slope", "asymmetry")
"""How the bust is bent, before the weights of the modes: logarithm of the shoulders' width, how far the shoulders fall
per unit of width, and how much more they do so on the side of +x."""
_NECK_HALF_WIDTH, _ROUNDING = 0.07, 0.02
"""Width and slope begin to act here, gently."""
_SHOULDER_HALF_WIDTH = 0.30
"""The slope acts over so much of the width: arms hang straight down."""
_ONE_SIDE = 0.15
"""From here outwards a side falls on its own."""
_DEPTH_EASE = 0.08
_MOST_SIGMAS = 2.2
"""Modes saturate here."""


@dataclass(frozen=True)
class BustTemplate:
    """Mean and modes of a surface from the neck to the chest."""

    mean: Float[np.ndarray, "rows columns 3"]
    """Mean bust; rows are even steps of length from the neck down, alike left and right."""
    modes: Float[np.ndarray, "modes rows columns 3"]
    """Displacements by one standard deviation."""
    sha256: str
    """Hash of the file."""

    @property
    def weights_name(self) -> str:
        """Name and hash for provenance."""
        return f"bust_template-{VERSION} (sha256 {self.sha256[:16]})"

    @property
    def parameters(self) -> int:
        """Length of the vector that `bent` takes: `SHAPE_PARAMETERS`, then the modes' weights."""
        return len(SHAPE_PARAMETERS) + len(self.modes)

    def bent(
        self, shape: Float[np.ndarray, " s"]
    ) -> tuple[Float[np.ndarray, "rows columns 3"], Float[np.ndarray, "s rows columns 3"]]:
        """The bust with these parameters, and its derivatives by them.

        Args:
            shape: `SHAPE_PARAMETERS`, then the modes' weights in standard deviations, which saturate.
        """
        log_width, slope, asymmetry, *weights = shape.tolist()
        saturated = np.tanh(np.array(weights) / _MOST_SIGMAS)
        points = self.mean + np.tensordot(_MOST_SIGMAS * saturated, self.modes, 1)
        moves = (1 - saturated**2)[:, None, None, None] * self.modes

        x, y, z = np.moveaxis(points, -1, 0)
        side, far = np.sign(x), np.abs(x)
        over = np.maximum(far - _NECK_HALF_WIDTH, 0)
        hypotenuse = np.sqrt(over**2 + _ROUNDING**2)
        outward, outward_by_far = hypotenuse - _ROUNDING, over / hypotenuse
        inner = outward < _SHOULDER_HALF_WIDTH
        drop, drop_by_far = np.minimum(outward, _SHOULDER_HALF_WIDTH), np.where(inner, outward_by_far, 0)
        lean = side * np.clip(far / _ONE_SIDE, 0, 1)
        lean_by_far = np.where(far < _ONE_SIDE, side / _ONE_SIDE, 0)
        fall = slope + asymmetry * lean
        wider, deeper = np.exp(log_width) - 1, np.exp(log_width / 2) - 1
        ease = np.clip(outward / _DEPTH_EASE, 0, 1)
        ease_by_far = np.where(outward < _DEPTH_EASE, outward_by_far / _DEPTH_EASE, 0)

        bent = np.stack([side * (far + wider * outward), y - fall * drop, z * (1 + deeper * ease)], axis=-1)
        zero = np.zeros_like(x)
        by_shape = [
            np.stack([side * (wider + 1) * outward, zero, 0.5 * (deeper + 1) * ease * z], axis=-1),
            np.stack([zero, -drop, zero], axis=-1),
            np.stack([zero, -lean * drop, zero], axis=-1),
        ]
        far_moves = side * moves[..., 0]
        by_modes = np.stack(
            [
                side * far_moves * (1 + wider * outward_by_far),
                moves[..., 1] - far_moves * (fall * drop_by_far + asymmetry * lean_by_far * drop),
                moves[..., 2] * (1 + deeper * ease) + z * deeper * ease_by_far * far_moves,
            ],
            axis=-1,
        )
        return bent, np.concatenate([np.stack(by_shape), by_modes])


def save_template(path: Path, mean: Float[np.ndarray, "rows columns 3"], modes: Float[np.ndarray, "m rows columns 3"],
                  notes: dict[str, str]) -> None:  # fmt: skip
    """Write one side of a symmetric template, in half precision.

    Args:
        path: a .safetensors file.
        mean, modes: see `BustTemplate`.
        notes: what else to keep in the file's header.
    """
    from safetensors.numpy import save

    half = COLUMNS // 2 + 1
    tensors = {"mean": mean[:, :half], "modes": modes[:, :, :half]}
    arrays = {name: np.ascontiguousarray(array, dtype=np.float16) for name, array in tensors.items()}
    header = {"about": json.dumps({"version": VERSION, **notes}, sort_keys=True)}  # one entry: their order is not fixed
    write_bytes_atomically(path, save(arrays, metadata=header))


def read_template(path: Path) -> BustTemplate:
    """What `save_template` has written, both sides."""
    from safetensors.numpy import load

    data = path.read_bytes()
    arrays = load(data)

    def both_sides(half: Float[np.ndarray, "*n columns 3"]) -> Float[np.ndarray, "*n c 3"]:
        half = half.astype(np.float64)
        half[..., [0, -1], 0] = 0  # the middle plane
        return np.concatenate([half, half[..., -2:0:-1, :] * np.array([-1.0, 1.0, 1.0])], axis=-2)

    return BustTemplate(both_sides(arrays["mean"]), both_sides(arrays["modes"]), hashlib.sha256(data).hexdigest())


@functools.lru_cache(maxsize=1)
def load_template() -> BustTemplate:
    """The template that ships with the package, read once.

    Raises:
        InputError: the installation is damaged.
    """
    return read_template(shipped_file(FILE_NAME))

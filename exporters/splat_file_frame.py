"""From fitted splats to the numbers of a file and back: unit, axes, finiteness and what a file says about itself.

Files hold metres (`METRES_PER_UNIT`), the unit of glTF, viewers and game engines: positions are multiplied and the
logarithm is added to the scales; nothing else changes under a uniform scale. +y is up and the face looks to +z unless
`up_axis="-y"` is asked for: SuperSplat, splat-transform and other heirs of photogrammetry turn every file but glTF and
OpenUSD by half a turn about z when they show it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from dp360.generation import InputError, Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.splats import Splats

from .provenance import provenance_from_json
from .splat_packing import logits, sigmoid, unit_quats

UpAxis = Literal["+y", "-y"]

_COUNT_ALWAYS_BELIEVED = 250_000
"""Gaussians that a compressed file may promise whatever its size; above it, one per byte of the file."""
_XYZW_TO_WXYZ, _WXYZ_TO_XYZW = [3, 0, 1, 2], [1, 2, 3, 0]


@contextmanager
def reading(what: object) -> Iterator[None]:
    """Complete the refusals of readers, as a decorator or a block: each becomes "Cannot read WHAT: ..."."""
    try:
        yield
    except InputError as error:
        raise InputError(f"Cannot read {what}: {error}") from error


@dataclass(frozen=True)
class SplatArrays:
    """The fields of `Splats`, in their order, as float32 arrays in the frame and unit of a file."""

    means: Float[np.ndarray, "n 3"]
    log_scales: Float[np.ndarray, "n 3"]
    quats_wxyz: Float[np.ndarray, "n 4"]
    opacity_logits: Float[np.ndarray, " n"]
    sh0: Float[np.ndarray, "n 3"]
    sh_rest: Float[np.ndarray, "n k 3"]

    @classmethod
    def from_linear(
        cls,
        means: Float[np.ndarray, "n 3"],
        scales: Float[np.ndarray, "n 3"],
        quats_xyzw: Float[np.ndarray, "n 4"],
        opacity: Float[np.ndarray, " n"],
        harmonics: Float[np.ndarray, "n c 3"],
    ) -> SplatArrays:
        """Out of linear scales, opacities in [0, 1] and all harmonics, as glTF and OpenUSD hold them.

        Negative scales mirror an ellipsoid onto itself; opacities beyond 0 and 1 mean 0 and 1.
        """
        with np.errstate(divide="ignore"):  # no size is told later
            log_scales = np.log(np.abs(scales.astype(np.float64))).astype(np.float32)
        return cls(means, log_scales, quats_xyzw[:, _XYZW_TO_WXYZ], logits(opacity), harmonics[:, 0], harmonics[:, 1:])

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return math.isqrt(self.sh_rest.shape[1] + 1) - 1

    @property
    def scales(self) -> Float[np.ndarray, "n 3"]:
        """Linear scales, within what float32 holds."""
        return np.exp(np.clip(self.log_scales.astype(np.float64), -80, 80)).astype(np.float32)

    @property
    def quats_xyzw(self) -> Float[np.ndarray, "n 4"]:
        """Rotations of length one."""
        return np.ascontiguousarray(unit_quats(self.quats_wxyz)[:, _WXYZ_TO_XYZW])

    @property
    def opacity(self) -> Float[np.ndarray, " n"]:
        """Opacities in [0, 1]."""
        return sigmoid(self.opacity_logits)

    @property
    def harmonics(self) -> Float[np.ndarray, "n c 3"]:
        """All harmonics, the constant one first."""
        return np.concatenate([self.sh0[:, None], self.sh_rest], axis=1)

    @property
    def rest_by_channel(self) -> Float[np.ndarray, "n r"]:
        """Harmonics above the constant one as .ply files order them: all of red, then green, then blue."""
        n, k, _ = self.sh_rest.shape
        return self.sh_rest.transpose(0, 2, 1).reshape(n, 3 * k)

    def reordered(self, order: np.ndarray) -> SplatArrays:
        """The same Gaussians in another order, or some of them."""
        return SplatArrays(*(values[order] for values in vars(self).values()))


@dataclass(frozen=True)
class FileNote:
    """What a file says about itself beside its Gaussians."""

    provenance: Provenance | None = None
    """Origin; None in another program's file."""
    metres_per_unit: float = 1.0
    """The factor on lengths, 1 where none is written: numbers are taken as they are."""
    up_axis: UpAxis = "+y"
    """Which way the crown points."""

    @property
    def generator(self) -> str:
        """The program, for formats that ask who wrote a file."""
        assert self.provenance is not None
        return f"dp360 {self.provenance.version}"

    def as_json_data(self) -> dict[str, object]:
        """Plain JSON data: the provenance's fields, factor and axis side by side."""
        origin = {} if self.provenance is None else asdict(self.provenance)
        return {**origin, "metres_per_unit": self.metres_per_unit, "up_axis": self.up_axis}


def file_note(data: object) -> FileNote:
    """Inverse of `FileNote.as_json_data`; a file without a note has the defaults.

    Raises:
        InputError: a note that is not one of ours, or damaged.
    """
    if data is None:
        return FileNote()
    if not isinstance(data, dict):
        raise InputError(f"expected a JSON object as the file's dp360 note, got {str(data)[:40]!r}")
    return FileNote(
        provenance=provenance_from_json(json.dumps(data)) if "generator" in data else None,
        metres_per_unit=positive_factor(data.get("metres_per_unit", 1.0)),
        up_axis="-y" if data.get("up_axis") == "-y" else "+y",
    )


def positive_factor(value: Any) -> float:
    """The factor on lengths that a file names.

    Raises:
        InputError: not a positive number.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise InputError(f"expected a positive dp360.metres_per_unit, got {str(value)[:40]!r}")
    return number


def splat_encoder(write: Callable[..., bytes]) -> Callable[..., bytes]:
    """`encode` of a format out of a function of `SplatArrays`, `FileNote` and own settings that makes a complete file.

    What results takes `splats`, Gaussians in world units on any device, and `provenance`, their origin; by name the
    positive factor `metres_per_unit` on lengths (1 keeps world units), the direction `up_axis` of the crown in the file
    (the face looks to +z either way), and the format's own settings. It raises ValueError where a number is not finite
    or beyond the format, or a setting is out of range.
    """

    @functools.wraps(write)
    def encode(
        splats: Splats,
        provenance: Provenance,
        *,
        metres_per_unit: float = METRES_PER_UNIT,
        up_axis: UpAxis = "+y",
        **own: Any,
    ) -> bytes:
        writer = f"{write.__module__.rpartition('.')[2]}.encode"
        arrays = arrays_for_file(splats, metres_per_unit=metres_per_unit, up_axis=up_axis, writer=writer)
        return write(arrays, FileNote(provenance, metres_per_unit, up_axis), **own)

    return encode


def arrays_for_file(splats: Splats, *, metres_per_unit: float, up_axis: UpAxis = "+y", writer: str) -> SplatArrays:
    """Gaussians in the frame and unit of a file.

    Args:
        splats: Gaussians in world units, on any device.
        metres_per_unit: positive factor on lengths; 1 keeps every bit.
        up_axis: which way the crown points in the file; the face looks to +z either way.
        writer: name for messages.

    Raises:
        ValueError: a number is not finite, or the factor is not positive.
    """
    if not 0 < metres_per_unit < math.inf:
        raise ValueError(f"{writer}: expected a positive factor metres_per_unit, got {metres_per_unit}")
    if up_axis == "-y":
        splats = half_turn_about_z(splats)
    arrays = SplatArrays(*(value.detach().to("cpu", torch.float32).numpy() for value in vars(splats).values()))
    arrays = _rescaled(arrays, metres_per_unit, np.multiply, np.add)
    finite = np.ones(len(arrays), dtype=bool)
    for values in vars(arrays).values():
        finite &= np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not finite.all():
        raise ValueError(
            f"{writer}: {int((~finite).sum())} of {len(arrays)} Gaussians hold NaN or Inf; nothing was written"
        )
    return arrays


def splats_from_file(arrays: SplatArrays, note: FileNote) -> tuple[Splats, Provenance | None]:
    """Gaussians in world units out of the numbers of a file, and its origin; inverse of `arrays_for_file`.

    Args:
        arrays: numbers as the file has them.
        note: factor and axis to take back, and the origin.

    Raises:
        InputError: a number is not finite or a rotation is zero.
    """
    arrays = _rescaled(arrays, note.metres_per_unit, np.divide, np.subtract)
    for name, values in vars(arrays).items():
        if not np.isfinite(values).all():
            raise InputError(f"{name} hold NaN or Inf; export it again")
    if not (np.abs(arrays.quats_wxyz).max(axis=1, initial=0.0) > 1e-18).all():
        raise InputError("some rotations are zero quaternions; export it again")
    splats = Splats(*(torch.from_numpy(np.ascontiguousarray(values)) for values in vars(arrays).values()))
    return half_turn_about_z(splats, inverse=True) if note.up_axis == "-y" else splats, note.provenance


def _rescaled(arrays: SplatArrays, factor: float, times: Callable, plus: Callable) -> SplatArrays:
    """Lengths times or, with the inverse operations, divided by a factor."""
    if factor == 1.0:  # adding log 1 = 0 would turn -0 into 0
        return arrays
    with np.errstate(over="ignore"):  # Inf is refused later
        means = times(arrays.means.astype(np.float64), factor).astype(np.float32)
    log_scales = plus(arrays.log_scales.astype(np.float64), math.log(factor)).astype(np.float32)
    return replace(arrays, means=means, log_scales=log_scales)


def check_promised_count(count: int, file_bytes: int) -> None:
    """Refuse a count that no real file of this size holds, before memory is taken for it.

    Compressed formats need more than a byte per Gaussian; small files of equal Gaussians may need less.

    Raises:
        InputError: more Gaussians than a quarter of a million and than bytes in the file.
    """
    if not 0 <= count <= max(_COUNT_ALWAYS_BELIEVED, file_bytes):
        raise InputError(f"it promises {count} Gaussians in {file_bytes} bytes; the file is damaged")


def half_turn_about_z(splats: Splats, *, inverse: bool = False) -> Splats:
    """Splats turned by 180 degrees about the z axis: +y becomes -y, the face keeps looking to +z.

    Only signs and places of numbers change, so the inverse gives every bit back. Positions, rotations and harmonics
    turn together: a harmonic of order m takes the factor cos(m pi), which is 1 or -1.

    Args:
        inverse: turn back; the same rotation, but the quaternions' own signs come back too.
    """
    signs = [(-1.0) ** m for degree in range(1, splats.sh_degree + 1) for m in range(-degree, degree + 1)]
    w, x, y, z = splats.quats_wxyz.unbind(-1)
    turned = [z, y, -x, -w] if inverse else [-z, -y, x, w]  # (0, 0, 0, -1) or (0, 0, 0, 1) times the quaternion
    return replace(
        splats,
        means_world=splats.means_world * splats.means_world.new_tensor([-1.0, -1.0, 1.0]),
        quats_wxyz=torch.stack(turned, dim=-1),
        sh_rest=splats.sh_rest * splats.sh_rest.new_tensor(signs)[:, None],
    )

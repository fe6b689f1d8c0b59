"""From fitted splats to the numbers of a file and back: unit, axes, finiteness and what a file says about itself.

Files hold metres (`METRES_PER_UNIT`), the unit of glTF, viewers and game engines: positions are multiplied and the
logarithm is added to the scales; nothing else changes under a uniform scale. +y is up and the face looks to +z unless
`up_axis="-y"` is asked for: SuperSplat, splat-transform and other heirs of photogrammetry turn every file but glTF and
OpenUSD by half a turn about z when they show it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from typing_extensions import assert_never

from dp360.generation import InputError, Provenance
from dp360.reconstruction.splats import Splats

from .provenance import provenance_from_json

UpAxis = Literal["+y", "-y"]

_COUNT_ALWAYS_BELIEVED = 250_000
"""Gaussians that a compressed file may promise whatever its size; above it, one per byte of the file."""


@dataclass(frozen=True)
class SplatArrays:
    """The fields of `Splats` as float32 arrays in the frame and unit of a file."""

    means: Float[np.ndarray, "n 3"]
    log_scales: Float[np.ndarray, "n 3"]
    quats_wxyz: Float[np.ndarray, "n 4"]
    opacity_logits: Float[np.ndarray, " n"]
    sh0: Float[np.ndarray, "n 3"]
    sh_rest: Float[np.ndarray, "n k 3"]

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return math.isqrt(self.sh_rest.shape[1] + 1) - 1

    def reordered(self, order: np.ndarray) -> SplatArrays:
        """The same Gaussians in another order, or some of them."""
        return SplatArrays(*(getattr(self, f.name)[order] for f in fields(self)))


@dataclass(frozen=True)
class FileNote:
    """What a file says about itself beside its Gaussians."""

    provenance: Provenance | None = None
    """Origin; None in another program's file."""
    metres_per_unit: float = 1.0
    """The factor on lengths, 1 where none is written: numbers are taken as they are."""
    up_axis: UpAxis = "+y"
    """Which way the crown points."""

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
        raise InputError(f"Cannot read splats: expected a JSON object as the file's dp360 note, got {str(data)[:40]!r}")
    up_axis: UpAxis = "-y" if data.get("up_axis") == "-y" else "+y"
    has_origin = "generator" in data
    return FileNote(
        provenance=provenance_from_json(json.dumps(data)) if has_origin else None,
        metres_per_unit=positive_factor(data.get("metres_per_unit", 1.0)),
        up_axis=up_axis,
    )


def positive_factor(value: object) -> float:
    """The factor on lengths that a file names.

    Raises:
        InputError: not a positive number.
    """
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"Cannot read splats: expected a positive dp360.metres_per_unit, got {str(value)[:40]!r}")
    return number


def arrays_for_file(splats: Splats, *, metres_per_unit: float, up_axis: UpAxis, writer: str) -> SplatArrays:
    """Gaussians in the frame and unit of a file.

    Args:
        splats: Gaussians in world units, on any device.
        metres_per_unit: positive factor on lengths; 1 keeps every bit.
        up_axis: which way the crown points in the file; the face looks to +z either way.
        writer: name for messages.

    Raises:
        ValueError: a number is not finite, or the factor is not positive.
    """
    if not (math.isfinite(metres_per_unit) and metres_per_unit > 0):
        raise ValueError(f"{writer}: expected a positive factor metres_per_unit, got {metres_per_unit}")
    if up_axis == "-y":
        splats = half_turn_about_z(splats)
    elif up_axis != "+y":
        assert_never(up_axis)
    means, log_scales = _array(splats.means_world), _array(splats.log_scales)
    if metres_per_unit != 1.0:  # adding log 1 = 0 would turn -0 into 0
        with np.errstate(over="ignore"):  # Inf is refused below
            means = (means.astype(np.float64) * metres_per_unit).astype(np.float32)
        log_scales = (log_scales.astype(np.float64) + math.log(metres_per_unit)).astype(np.float32)
    arrays = SplatArrays(
        means=means,
        log_scales=log_scales,
        quats_wxyz=_array(splats.quats_wxyz),
        opacity_logits=_array(splats.opacity_logits),
        sh0=_array(splats.sh0),
        sh_rest=_array(splats.sh_rest),
    )
    finite = np.ones(len(arrays), dtype=bool)
    for field in fields(SplatArrays):
        values = np.isfinite(getattr(arrays, field.name))
        finite &= values.all(axis=tuple(range(1, values.ndim)))
    if not finite.all():
        raise ValueError(
            f"{writer}: {int((~finite).sum())} of {len(arrays)} Gaussians hold NaN or Inf; nothing was written"
        )
    return arrays


def splats_from_file(arrays: SplatArrays, note: FileNote, *, what: str) -> Splats:
    """Gaussians in world units out of the numbers of a file; inverse of `arrays_for_file`.

    Args:
        arrays: numbers as the file has them.
        note: factor and axis to take back.
        what: kind of file for messages, such as "this .spz".

    Raises:
        InputError: a number is not finite or a rotation is zero.
    """
    means, log_scales = arrays.means, arrays.log_scales
    if note.metres_per_unit != 1.0:
        with np.errstate(over="ignore"):
            means = (means.astype(np.float64) / note.metres_per_unit).astype(np.float32)
        log_scales = (log_scales.astype(np.float64) - math.log(note.metres_per_unit)).astype(np.float32)
    values = {
        "means_world": means,
        "log_scales": log_scales,
        "quats_wxyz": arrays.quats_wxyz,
        "opacity_logits": arrays.opacity_logits,
        "sh0": arrays.sh0,
        "sh_rest": arrays.sh_rest,
    }
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise InputError(f"Cannot read splats from {what}: {name} hold NaN or Inf; export it again")
    if not (np.abs(arrays.quats_wxyz).max(axis=1, initial=0.0) > 1e-18).all():
        raise InputError(f"Cannot read splats from {what}: some rotations are zero quaternions; export it again")
    splats = Splats(**{name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()})
    return half_turn_about_z(splats, inverse=True) if note.up_axis == "-y" else splats


def check_promised_count(count: int, file_bytes: int, *, what: str) -> None:
    """Refuse a count that no real file of this size holds, before memory is taken for it.

    Compressed formats need more than a byte per Gaussian; small files of equal Gaussians may need less.

    Raises:
        InputError: more Gaussians than a quarter of a million and than bytes in the file.
    """
    if not 0 <= count <= max(_COUNT_ALWAYS_BELIEVED, file_bytes):
        raise InputError(
            f"Cannot read splats from {what}: it promises {count} Gaussians in {file_bytes} bytes; the file is damaged"
        )


def _array(tensor: torch.Tensor) -> Float[np.ndarray, "*shape"]:
    """A float32 array on the CPU, without its graph."""
    return tensor.detach().to("cpu", torch.float32).numpy()


def half_turn_about_z(splats: Splats, *, inverse: bool = False) -> Splats:
    """Splats turned by 180 degrees about the z axis: +y becomes -y, the face keeps looking to +z.

    Only signs and places of numbers change, so the inverse gives every bit back. Positions, rotations and harmonics
    turn together: a harmonic of order m takes the factor cos(m pi), which is 1 or -1.

    Args:
        splats: Gaussians.
        inverse: turn back; the same rotation, but the quaternions' own signs come back too.
    """
    signs = [(-1.0) ** m for degree in range(1, splats.sh_degree + 1) for m in range(-degree, degree + 1)]
    w, x, y, z = splats.quats_wxyz.unbind(-1)
    turned = [z, y, -x, -w] if inverse else [-z, -y, x, w]  # (0, 0, 0, -1) or (0, 0, 0, 1) times the quaternion
    return Splats(
        means_world=splats.means_world * splats.means_world.new_tensor([-1.0, -1.0, 1.0]),
        log_scales=splats.log_scales,
        quats_wxyz=torch.stack(turned, dim=-1),
        opacity_logits=splats.opacity_logits,
        sh0=splats.sh0,
        sh_rest=splats.sh_rest * splats.sh_rest.new_tensor(signs)[:, None],
    )

"""Gaussians turned, mirrored and moved as a whole: positions, rotations and harmonics together; and which way is up.

A file's harmonics are functions of direction in its own frame. A linear map A of the frame turns f into f(A^T d), which
within each degree is a matrix of its own; it is solved for from values in a few directions, so that no table of Wigner
matrices is needed, and any orthogonal A will do, mirrors included.

Source: Green, "Spherical Harmonic Lighting: The Gritty Details", 2003, on rotation within a band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from dp360.generation import InputError
from dp360.reconstruction.spherical_harmonics import SH_C1, SH_C2, SH_C3

from .splat_file_frame import SplatArrays
from .splat_packing import unit_quats

InputUpAxis = Literal["y", "-y", "z", "-z", "auto"]
"""Which way the crown points in a file that is read; the face follows by a turn about x."""

_LETTERS = {"R": (0, 1), "L": (0, -1), "U": (1, 1), "D": (1, -1), "B": (2, 1), "F": (2, -1)}
"""Axis and sign of each direction in our frame: right, left, up, down, back, front."""
_UP_AXES: dict[str, str] = {"y": "RUB", "-y": "RDF", "z": "RFU", "-z": "RBD"}
"""Where x, y and z of a file point, for each of its up axes."""
_FIT_DIRECTIONS = 64
"""Directions in which harmonics are compared; many times the 7 unknowns of a row."""
_ROUNDING = 1e-9
"""Entries this near to -1, 0 or 1 are meant to be that."""
_RIGID_TOLERANCE = 1e-4
"""Of the products of a rotation's rows, as files in single precision hold them."""
_TAPER_PARTS = 0.25
"""Share of the height at either end whose widths are compared."""


def axes_matrix(letters: str) -> Float[np.ndarray, "3 3"]:
    """Matrix to our frame (x right, y up, z back) from one whose axes point as the letters say, such as RDF."""
    matrix = np.zeros((3, 3))
    for column, letter in enumerate(letters):
        row, sign = _LETTERS[letter]
        matrix[row, column] = sign
    return matrix


def up_axis_matrix(up_axis: Literal["y", "-y", "z", "-z"]) -> Float[np.ndarray, "3 3"]:
    """Matrix to y up from a frame with this up axis: a turn about x."""
    return axes_matrix(_UP_AXES[up_axis])


def moved(
    arrays: SplatArrays, linear: Float[np.ndarray, "3 3"], offset: Float[np.ndarray, " 3"] | None = None
) -> SplatArrays:
    """Gaussians after p -> linear p + offset; where that changes nothing, every bit stays.

    Args:
        arrays: whatever numbers; rotations that are none stay.
        linear: orthogonal: a rotation, or one with a mirror.
        offset: in the unit of the positions.
    """
    if not np.array_equal(linear, np.eye(3)):
        turn = Rotation.from_matrix(linear if np.linalg.det(linear) > 0 else -linear)  # -1 keeps ellipsoids
        quats_wxyz = arrays.quats_wxyz.copy()
        sound = np.isfinite(quats_wxyz).all(axis=1) & (np.abs(quats_wxyz).max(axis=1, initial=0.0) > 1e-18)
        if sound.any():
            unit_xyzw = unit_quats(quats_wxyz[sound])[:, [1, 2, 3, 0]].astype(np.float64)
            quats_wxyz[sound] = (turn * Rotation.from_quat(unit_xyzw)).as_quat()[:, [3, 0, 1, 2]]
        with np.errstate(invalid="ignore"):
            means = (arrays.means.astype(np.float64) @ linear.T).astype(np.float32) + np.float32(0)
        arrays = replace(arrays, means=means, quats_wxyz=quats_wxyz, sh_rest=_turned_rest(arrays.sh_rest, linear))
    if offset is not None and offset.any():
        arrays = replace(arrays, means=(arrays.means.astype(np.float64) + offset).astype(np.float32))
    return arrays


def joined(parts: Sequence[SplatArrays]) -> SplatArrays:
    """The Gaussians of all parts, in their order, of the highest degree among them."""
    if len(parts) == 1:
        return parts[0]
    k = max(part.sh_rest.shape[1] for part in parts)
    filled = [
        replace(part, sh_rest=np.pad(part.sh_rest, ((0, 0), (0, k - part.sh_rest.shape[1]), (0, 0)))) for part in parts
    ]
    return SplatArrays(*(np.concatenate(values) for values in zip(*(vars(part).values() for part in filled))))


def refuse_unless_rigid(linear: Float[np.ndarray, "3 3"], what: str) -> None:
    """See that a map is a rotation.

    Raises:
        InputError: it stretches, shears or mirrors; the message begins with `what`.
    """
    if not np.allclose(linear @ linear.T, np.eye(3), atol=_RIGID_TOLERANCE) or np.linalg.det(linear) < 0:
        raise InputError(f"{what}, which is more than a rotation and a shift; bake the transform first")


def guessed_up_axis(means: Float[np.ndarray, "n 3"]) -> Literal["y", "-y", "z", "-z"]:
    """The way up by shape: things that stand are narrower above than below, as a head on its shoulders is.

    Args:
        means: at least one position, in the file's frame.
    """
    best: tuple[float, Literal["y", "-y", "z", "-z"]] = (0.0, "y")
    candidates: tuple[Literal["y", "-y", "z", "-z"], ...] = ("y", "-y", "z", "-z")
    for up_axis in candidates:
        x, height, z = (means.astype(np.float64) @ up_axis_matrix(up_axis).T).T
        low, high = np.quantile(height, [0.0, 1.0])
        part = _TAPER_PARTS * (high - low)
        above, below = height >= high - part, height <= low + part
        widths = [float(np.hypot(x[k] - np.median(x), z[k] - np.median(z)).mean()) for k in (above, below)]
        taper = (widths[1] - widths[0]) / max(sum(widths), 1e-12)
        if taper > best[0] + 1e-6:
            best = (taper, up_axis)
    return best[1]


def _turned_rest(rest: Float[np.ndarray, "n k 3"], linear: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "n k 3"]:
    """Harmonics above the constant one after the frame was mapped."""
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(_FIT_DIRECTIONS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    before, after = _basis(directions @ linear), _basis(directions)
    turned, start, degree = np.empty_like(rest), 0, 1
    while start < rest.shape[1]:
        band = slice(start, start + 2 * degree + 1)
        matrix = np.linalg.lstsq(after[:, band], before[:, band], rcond=None)[0]
        whole = np.rint(matrix)
        matrix = np.where(np.abs(matrix - whole) < _ROUNDING, whole, matrix)
        turned[:, band] = np.einsum("ij,njc->nic", matrix, rest[:, band].astype(np.float64)).astype(np.float32)
        start, degree = band.stop, degree + 1
    return turned


def _basis(directions: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "m 15"]:
    """The basis functions of degree 1 to 3 in unit directions, as `reconstruction.spherical_harmonics` orders them."""
    x, y, z = directions.T
    xx, yy, zz = x * x, y * y, z * z
    return np.stack(
        [
            -SH_C1 * y,
            SH_C1 * z,
            -SH_C1 * x,
            SH_C2[0] * x * y,
            -SH_C2[0] * y * z,
            SH_C2[1] * (2 * zz - xx - yy),
            -SH_C2[0] * x * z,
            SH_C2[2] * (xx - yy),
            -SH_C3[0] * y * (3 * xx - yy),
            SH_C3[1] * x * y * z,
            -SH_C3[2] * y * (4 * zz - xx - yy),
            SH_C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            -SH_C3[2] * x * (4 * zz - xx - yy),
            SH_C3[4] * z * (xx - yy),
            -SH_C3[0] * x * (xx - 3 * yy),
        ],
        axis=1,
    )

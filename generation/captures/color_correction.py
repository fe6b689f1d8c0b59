"""Colour corrections that come with captures: an affine map of sRGB values, or a polynomial of linear ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import InputError
from .capture import ColorMap, read_bytes

_QUADRATIC = ("r", "g", "b", "rg", "rb", "gb", "rr", "gg", "bb", "rgb")
_CUBES = ("rrr", "ggg", "bbb")
_MIXED = ("rrg", "ggb", "bbr")
_MIXED_BACK = ("rrb", "ggr", "bbg")
_TERMS: dict[int, tuple[str, ...]] = {
    3: ("r", "g", "b"),
    4: ("r", "g", "b", ""),
    5: ("r", "g", "b", "rgb", ""),
    7: ("r", "g", "b", "rg", "rb", "gb", ""),
    8: ("r", "g", "b", "rg", "rb", "gb", "rgb", ""),
    10: (*_QUADRATIC[:9], ""),
    11: (*_QUADRATIC, ""),
    14: (*_QUADRATIC, *_CUBES, ""),
    16: (*_QUADRATIC, *_MIXED, *_CUBES),
    17: (*_QUADRATIC, *_MIXED, *_CUBES, ""),
    19: (*_QUADRATIC, *_MIXED, *_MIXED_BACK, *_CUBES),
    20: (*_QUADRATIC, *_MIXED, *_MIXED_BACK, *_CUBES, ""),
    22: (*_QUADRATIC, *_MIXED, *_MIXED_BACK, *_CUBES, "rrgb", "rggb", "rgbb"),
}
"""Monomials by their number; the empty one is the constant."""


def polynomial_corrected(matrix: object, where: str) -> ColorMap:
    """Correction by a matrix that multiplies monomials of linear RGB.

    Args:
        matrix: 3 x k numbers, k one of the keys of `_TERMS`.
        where: file and camera, for messages.

    Raises:
        InputError: another shape, or numbers that are not finite.

    Source: Cheung et al. 2004, "A comparative study of the characterisation of colour cameras by means of neural
    networks and polynomial transforms", with the order of terms of https://colour.readthedocs.io
    (`matrix_augmented_Cheung2004`), which NeRSemble's owners use (nersemble-data `util/color_correction.py`).
    """
    M = _finite_matrix(matrix, where)
    if M.shape[0] != 3 or M.shape[1] not in _TERMS:
        raise InputError(f"{where}: expected a colour matrix of 3 rows and {sorted(_TERMS)} columns, got {M.shape}")
    terms = _TERMS[M.shape[1]]

    def corrected(rgb: UInt8[np.ndarray, "a b 3"]) -> UInt8[np.ndarray, "a b 3"]:
        linear = _linear_from_srgb(rgb / 255.0)
        channels = dict(zip("rgb", np.moveaxis(linear, -1, 0), strict=True))
        result = np.zeros_like(linear)
        for column, term in enumerate(terms):
            monomial = np.ones(linear.shape[:2])
            for channel in term:
                monomial = monomial * channels[channel]
            result += monomial[..., None] * M[:, column]
        return _to_8_bits(_srgb_from_linear(np.clip(result, 0.0, 1.0)))

    return corrected


def affine_corrected(file: Path) -> ColorMap:
    """Correction by a stored matrix A: sRGB values in [0, 1] become `rgb @ A[:3, :3] + A[:3, 3]`.

    Args:
        file: a `.npy` with at least 3 rows and 4 columns.

    Raises:
        InputError: missing, damaged, or of another shape.

    Source: tobias-kirschstein/nersemble `nerfstudio/dataset/nersemble_dataset.py`.
    """
    try:
        stored = np.load(io.BytesIO(read_bytes(file, "a colour correction")), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{file} is not a numpy array ({error}); download it again") from error
    A = _finite_matrix(stored, str(file))
    if A.shape[0] < 3 or A.shape[1] != 4:
        raise InputError(f"{file}: expected a colour correction of 3 or 4 rows and 4 columns, got {A.shape}")

    def corrected(rgb: UInt8[np.ndarray, "a b 3"]) -> UInt8[np.ndarray, "a b 3"]:
        return _to_8_bits((rgb / 255.0) @ A[:3, :3] + A[:3, 3])

    return corrected


def _finite_matrix(value: object, where: str) -> Float[np.ndarray, "rows columns"]:
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: the colour correction is not an array of numbers") from error
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise InputError(f"{where}: expected a matrix of finite numbers as colour correction, got shape {matrix.shape}")
    return matrix


def _linear_from_srgb(srgb: Float[np.ndarray, "a b 3"]) -> Float[np.ndarray, "a b 3"]:
    """IEC 61966-2-1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _srgb_from_linear(linear: Float[np.ndarray, "a b 3"]) -> Float[np.ndarray, "a b 3"]:
    """IEC 61966-2-1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _to_8_bits(rgb_unit: Float[np.ndarray, "a b 3"]) -> UInt8[np.ndarray, "a b 3"]:
    return np.round(np.clip(rgb_unit, 0.0, 1.0) * 255).astype(np.uint8)

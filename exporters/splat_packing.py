"""Small numbers for Gaussians, shared by the lossy formats: bytes of opacity, three-component rotations, codebooks.

Source: "smallest three" rotations after Fiedler, "Snapshot Compression", 2015,
https://gafferongames.com/post/snapshot_compression/ ; order along a curve after Morton, 1966.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Integer, UInt8, UInt32
from scipy.special import expit

_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""Components that are kept when component i is left out."""
_MORTON_BITS, _SWEEPS = 16, 30
ROTATION_BITS = (2, 10, 10, 10)
"""Fields of a rotation in 32 bits: which component is left out, and the three others."""


def sigmoid(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Opacities of logits, rounded once, from double precision."""
    return expit(logits.astype(np.float64)).astype(np.float32)


def logits(opacity: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Finite logits of opacities in [0, 1]; inverse of `sigmoid` where float32 holds it."""
    within = np.clip(opacity.astype(np.float64), 1e-12, 1 - 2.0**-25)
    return np.log(within / (1 - within)).astype(np.float32)


def to_bytes(unit: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """[0, 1] to the nearest of 256 levels; what lies outside is clamped."""
    return np.rint(np.clip(unit, 0.0, 1.0) * 255).astype(np.uint8)


def opacity_bytes(opacity_logits: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    """Opacities in 256 levels without the two ends, whose logits other readers take for infinite."""
    return np.clip(to_bytes(sigmoid(opacity_logits)), 1, 254)


def logits_from_bytes(opacity: UInt8[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Finite logits of opacities in 256 levels: the ends stand a quarter of a level inside 0 and 1."""
    return logits((np.clip(opacity.astype(np.float64), 0.25, 254.75) / 255).astype(np.float32))


def unit_quats(quats: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Quaternions of length one, computed in double precision, any component order."""
    wide = quats.astype(np.float64)
    wide /= np.abs(wide).max(axis=1, keepdims=True)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def smallest_three(quats: Float[np.ndarray, "n 4"]) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
    """Rotations as three numbers and the index of the left-out largest component, whose sign is made positive.

    Args:
        quats: of any length but zero, any component order.

    Returns:
        The index in that order, and the other components in that order times sqrt 2: in [-1, 1].
    """
    unit = unit_quats(quats)
    rows = np.arange(len(unit))
    index = np.abs(unit).argmax(axis=1)
    sign = np.where(unit[rows, index] < 0, -1.0, 1.0)
    three = unit[rows[:, None], _OTHERS[index]] * sign[:, None] * np.sqrt(2.0)
    return index, np.clip(three, -1.0, 1.0).astype(np.float32)


def quats_from_smallest_three(
    index: Int[np.ndarray, " n"], three: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 4"]:
    """Unit quaternions in the component order of `smallest_three`, whose inverse this is."""
    rows = np.arange(len(three))
    small = three.astype(np.float64) / np.sqrt(2.0)
    quats = np.empty((len(three), 4))
    quats[rows[:, None], _OTHERS[index]] = small
    quats[rows, index] = np.sqrt(np.maximum(0.0, 1.0 - (small**2).sum(axis=1)))
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    return (quats / np.maximum(length, 1e-12)).astype(np.float32)


def pack_fields(values: Integer[np.ndarray, "n c"], bits: tuple[int, ...]) -> UInt32[np.ndarray, " n"]:
    """Whole numbers side by side in one of 32 bits, each in so many, the first in the uppermost."""
    packed = np.zeros(len(values), dtype=np.uint32)
    for column, width in zip(values.T, bits):
        packed = packed << width | column.astype(np.uint32)
    return packed


def unpack_fields(packed: UInt32[np.ndarray, " n"], bits: tuple[int, ...]) -> Int[np.ndarray, "n c"]:
    """Inverse of `pack_fields`."""
    shifts = [sum(bits[i + 1 :]) for i in range(len(bits))]
    return np.stack([packed >> s & ((1 << b) - 1) for s, b in zip(shifts, bits)], axis=1).astype(np.int64)


def morton_order(points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """An order in which neighbours in space are neighbours in the file: along a Z-shaped curve through the box."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.maximum(high.astype(np.float64) - low, 1e-30)
    cell = np.floor((points - low) / span * ((1 << _MORTON_BITS) - 1)).astype(np.uint64)
    code = np.zeros(len(points), dtype=np.uint64)
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            code |= ((cell[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return np.argsort(code, kind="stable")


def scalar_codebook(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, 256]:
    """The 256 numbers that stand best for all values: k-means on a line, ascending, the same every time.

    Starts half at even quantiles and half at even steps, so that rare extremes keep a level near them, then alternates
    between nearest levels and means (Lloyd, "Least squares quantization in PCM", 1982) on the sorted values.

    Args:
        values: m finite numbers, m >= 1.
    """
    ordered = np.sort(values.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    share = (np.arange(256) + 0.5) / 256
    even = ordered[0] + share * (ordered[-1] - ordered[0])
    codebook = np.sort(0.5 * (np.quantile(ordered, share) + even))
    for _ in range(_SWEEPS):
        edges = np.searchsorted(ordered, 0.5 * (codebook[1:] + codebook[:-1]))
        bounds = np.concatenate([[0], edges, [len(ordered)]])
        counts = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(counts, 1)
        codebook = np.where(counts > 0, means, codebook)
    return np.sort(codebook).astype(np.float32)


def nearest_level(
    values: Float[np.ndarray, "*shape"], codebook: Float[np.ndarray, " levels"]
) -> UInt8[np.ndarray, "*shape"]:
    """Index of the nearest entry of an ascending codebook of at most 256."""
    return np.searchsorted(0.5 * (codebook[1:] + codebook[:-1]), values).astype(np.uint8)

"""A palette for spherical harmonics: few vectors that stand for many, by k-means in two levels.

One k-means with tens of thousands of means compares every vector with every mean. Here the vectors are first parted
into groups, and each group gets its share of the palette: the cost grows with the root of the palette's size, at a few
percent more error. Starting points are picked evenly along the main direction, not by chance.

Source: Lloyd, "Least squares quantization in PCM", 1982; the two levels after Nister and Stewenius, "Scalable
recognition with a vocabulary tree", 2006, Sec. 3.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

_SWEEPS = 8
_BLOCK = 8192
"""Vectors that are compared at a time: bounds the memory for distances."""


def palette(vectors: Float[np.ndarray, "n d"], size: int) -> tuple[Float[np.ndarray, "size d"], Int[np.ndarray, " n"]]:
    """At most `size` vectors and, for each vector given, the index of the one that stands for it.

    Args:
        vectors: n >= 1 finite vectors.
        size: length of the palette, >= 1; not more than n are used, and none that stands for nothing.
    """
    count = len(vectors)
    if size >= count:
        return vectors, np.arange(count)
    groups = max(1, min(round(math.sqrt(size)), size))
    _, group_of = _kmeans(vectors, groups)
    members = [np.flatnonzero(group_of == g) for g in range(groups)]
    members = [m for m in members if len(m)]
    # as much of the palette as the root of a group's squared distance from its mean times its size, at least one
    weights = [math.sqrt(float(((vectors[m] - vectors[m].mean(axis=0)) ** 2).sum()) * len(m)) + 1e-12 for m in members]
    proportion = np.array(weights) / sum(weights)
    shares = [min(len(m), 1 + math.floor((size - len(members)) * p)) for m, p in zip(members, proportion)]
    entries, labels, first = [], np.empty(count, dtype=np.int64), 0
    for indices, share in zip(members, shares):
        means, label = _kmeans(vectors[indices], share)
        labels[indices] = first + label
        entries.append(means)
        first += len(means)
    used, labels = np.unique(labels, return_inverse=True)
    return np.concatenate(entries)[used], labels


def _kmeans(vectors: Float[np.ndarray, "n d"], size: int) -> tuple[Float[np.ndarray, "size d"], Int[np.ndarray, " n"]]:
    """Lloyd's algorithm from vectors picked evenly along the direction in which they differ most."""
    if size >= len(vectors):
        return vectors, np.arange(len(vectors))
    centred = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.astype(np.float64).T @ centred)
    order = np.argsort(centred @ directions[:, -1].astype(np.float32), kind="stable")
    means = vectors[order[np.linspace(0, len(vectors) - 1, size).round().astype(np.int64)]]
    labels = _nearest(vectors, means)
    for _ in range(_SWEEPS):
        counts = np.bincount(labels, minlength=size)
        by_label = np.argsort(labels, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        filled = counts > 0
        means = means.copy()
        means[filled] = np.add.reduceat(vectors[by_label], starts[filled], axis=0) / counts[filled, None]
        labels = _nearest(vectors, means)
    return means, labels


def _nearest(vectors: Float[np.ndarray, "n d"], means: Float[np.ndarray, "k d"]) -> Int[np.ndarray, " n"]:
    """Index of the nearest mean; blocks of products instead of all differences at once."""
    half_squares = 0.5 * (means**2).sum(axis=1)
    blocks = (vectors[i : i + _BLOCK] @ means.T - half_squares for i in range(0, len(vectors), _BLOCK))
    return np.concatenate([block.argmax(axis=1) for block in blocks])

"""Smooth fills: over pictures by averages of ever larger neighbourhoods, over meshes by harmonic functions."""

from __future__ import annotations

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Float, Float32, Int


def push_pull(colour: Float32[np.ndarray, "h w c"], weight: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w c"]:
    """Fill by averages over ever larger neighbourhoods (Gortler et al. 1996, "The Lumigraph", Sec. 3.4).

    Args:
        colour: known where `weight` is positive; the left and the right edge belong together.
        weight: trust in each texel, [0, 1].
    """
    pad = colour.shape[1] // 2
    colour, weight = (np.concatenate([a[:, -pad:], a, a[:, :pad]], axis=1) for a in (colour, weight))
    total, mass = (colour * weight[..., None]).astype(np.float32), weight.astype(np.float32)
    levels = []
    while min(mass.shape) > 2:
        levels.append((total, mass))
        smaller = (max(1, mass.shape[1] // 2), max(1, mass.shape[0] // 2))
        total = cv2.resize(total, smaller, interpolation=cv2.INTER_AREA).reshape(smaller[1], smaller[0], -1)
        mass = cv2.resize(mass, smaller, interpolation=cv2.INTER_AREA)
    filled = np.broadcast_to(total.sum((0, 1)) / max(float(mass.sum()), 1e-9), total.shape).astype(np.float32)
    for total, mass in reversed(levels):
        coarse = cv2.resize(np.ascontiguousarray(filled), mass.shape[::-1], interpolation=cv2.INTER_LINEAR)
        known = np.clip(4 * mass, 0.0, 1.0)[..., None]
        filled = total / np.maximum(mass, 1e-6)[..., None] * known + coarse.reshape(total.shape) * (1 - known)
    return filled[:, pad : filled.shape[1] - pad]


def diffuse_over_mesh(
    values: Float[np.ndarray, "v c"],
    weight: Float[np.ndarray, " v"],
    faces: Int[np.ndarray, "f 3"],
    default: Float[np.ndarray, " c"],
    stiffness: float = 0.05,
    pull: float = 1e-4,
) -> Float[np.ndarray, "v c"]:
    """Harmonic fill on a mesh: known values held by their weight, the rest smooth, far away slowly the default.

    Args:
        values: of the vertices.
        weight: how firmly each is held.
        faces: the mesh.
        default: value far from everything known.
        stiffness: weight of differences along edges.
        pull: weight of the default everywhere.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    n = len(values)
    adjacency = scipy.sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    adjacency = ((adjacency + adjacency.T) > 0).astype(np.float64)
    laplacian = scipy.sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
    system = (stiffness * laplacian + scipy.sparse.diags(weight + pull)).tocsc()
    solve = scipy.sparse.linalg.factorized(system)
    right = weight[:, None] * values + pull * default
    return np.stack([solve(np.ascontiguousarray(right[:, c])) for c in range(values.shape[1])], axis=1)


def wrapped_blur(
    image: Float32[np.ndarray, "h w *c"], sigma_rows: float, sigma_columns: float
) -> Float32[np.ndarray, "h w *c"]:
    """Gaussian blur whose columns wrap round; the first and the last row go on for ever."""
    pad = min(image.shape[1], int(4 * sigma_columns) + 1)
    wide = np.concatenate([image[:, -pad:], image, image[:, :pad]], axis=1)
    blurred = cv2.GaussianBlur(wide, (0, 0), sigmaX=sigma_columns, sigmaY=sigma_rows, borderType=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(blurred[:, pad:-pad])

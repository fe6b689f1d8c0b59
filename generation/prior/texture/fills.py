"""Smooth fills: over pictures by averages of ever larger neighbourhoods, over meshes by harmonic functions.

Lengths are texels of the whole atlas; `step` of them are one texel of the picture, see `AtlasTexels.step`.
"""

from __future__ import annotations

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Float, Float32, Int
from scipy import ndimage

from .. import capsule

_REDUCE = 4
"""Differences are carried on at a lower resolution."""
_DETAIL_SIGMA_PX = 18.0
"""Texels; what is finer is detail, what is coarser is expected."""
_BRIDGE_PX, _LEAST_PATCH = 19, 0.03
"""Texels that are seen in a narrower place join nothing; and patches that are smaller than the second share of the
largest are none."""


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


def soft_edged(weight: Float32[np.ndarray, "h w"], step: int = 1) -> Float32[np.ndarray, "h w"]:
    """Weights that end gently: full a little inside of where they would be cut off, none outside."""
    around = wrapped_blur(weight.astype(np.float32), 5.0 / step, 5.0 / step)
    return (weight * np.clip(2 * around - 0.6, 0, 1)).astype(np.float32)


def without_patches(trust: Float32[np.ndarray, "h w"], step: int = 1) -> Float32[np.ndarray, "h w"]:
    """What is seen of a tile that goes round, without small patches apart from the rest: among what is made up they
    would be stains.

    Args:
        trust: how surely each texel is seen, [0, 1].
        step: see `AtlasTexels.step`.
    """
    width, kernel = trust.shape[1], np.ones((_BRIDGE_PX // step,) * 2, np.uint8)
    seen = trust > 0.5
    turns = np.concatenate([seen] * 3, axis=1).astype(np.uint8)
    for mask in (seen, cv2.morphologyEx(turns, cv2.MORPH_OPEN, kernel)[:, width : 2 * width] > 0):
        pieces, count = capsule.pieces_round(mask)
        area = np.bincount(pieces.ravel(), minlength=count + 1)
        area[0] = area[1:].max(initial=0)
        pieces = pieces[:, width : 2 * width]
        small = (area < _LEAST_PATCH * area[0])[pieces]
        if small.any():
            nearest = ndimage.distance_transform_edt(pieces == 0, return_distances=False, return_indices=True)
            trust = np.where(small[tuple(np.asarray(nearest))], np.float32(0), trust)
    return trust


def local_mean(
    colour: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"], step: int = 1
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Mean of the known colours about each texel, and how much is known there."""
    factor = max(2, step)
    mean, mass = reduced_mean(colour, weight, factor, step)
    return enlarged(mean, factor // step), enlarged(mass, factor // step)


def reduced_mean(
    colour: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"], factor: int, step: int = 1
) -> tuple[Float32[np.ndarray, "a b 3"], Float32[np.ndarray, "a b"]]:
    """`local_mean` at a lower resolution: `factor` texels of the whole atlas are one."""
    sure = np.where(weight > 0.35, weight, np.float32(0))
    parts = (reduced(colour * sure[..., None], factor // step), reduced(sure, factor // step))
    total, mass = (wrapped_blur(part, _DETAIL_SIGMA_PX / factor, _DETAIL_SIGMA_PX / factor) for part in parts)
    return total / np.maximum(mass, 1e-4)[..., None], mass


def reduced_colours(
    colour: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"], factor: int
) -> tuple[Float32[np.ndarray, "a b 3"], Float32[np.ndarray, "a b"]]:
    """Colours at a lower resolution, means by weight, and the means of the weights."""
    mass = reduced(weight, factor)
    return reduced(colour * weight[..., None], factor) / np.maximum(mass, 1e-5)[..., None], mass


def carried_on(
    error: Float32[np.ndarray, "h w 3"], mass: Float32[np.ndarray, "h w"], fade_px: float, step: int = 1
) -> Float32[np.ndarray, "h w 3"]:
    """Differences from what is expected where they are known, fading to nothing away from there."""
    weight = np.clip(reduced(mass, _REDUCE // step) * 2 - 0.3, 0, 1)
    values = reduced(error, _REDUCE // step)
    if weight.max() <= 0:
        return np.zeros_like(error)
    near = push_pull(values, weight)
    near = near + (wrapped_blur(near, 5.0, 5.0) - near) * (1 - weight)[..., None]
    fade = np.exp(-distance_to_known(weight) * (_REDUCE / fade_px)).astype(np.float32)
    return enlarged(near * fade[..., None], _REDUCE // step)


def distance_to_known(weight: Float32[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Texels to the nearest one with a weight above 0.3, closed over the columns."""
    away = np.asarray(ndimage.distance_transform_edt(np.concatenate([weight <= 0.3] * 3, axis=1)))
    return away[:, weight.shape[1] : 2 * weight.shape[1]]


def reduced(image: Float32[np.ndarray, "h w *c"], factor: int) -> Float32[np.ndarray, "a b *c"]:
    """A tile at a lower resolution."""
    if factor == 1:
        return image.astype(np.float32)
    height, width = image.shape[:2]
    return cv2.resize(image.astype(np.float32), (width // factor, height // factor), interpolation=cv2.INTER_AREA)


def enlarged(image: Float32[np.ndarray, "a b *c"], factor: int) -> Float32[np.ndarray, "h w *c"]:
    """A tile at a higher resolution, closed over its columns."""
    if factor == 1:
        return image.astype(np.float32)
    wide = np.concatenate([image[:, -2:], image, image[:, :2]], axis=1).astype(np.float32)
    size = (factor * wide.shape[1], factor * wide.shape[0])
    large = cv2.resize(wide, size, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(large[:, 2 * factor : -2 * factor])


def sampled_part(
    chart: Float32[np.ndarray, "r c 3"], row: Float32[np.ndarray, " h"], column: Float32[np.ndarray, " w"]
) -> Float32[np.ndarray, "h w 3"]:
    """A part of the chart sampled at the product of rows and columns; cubic, so that its cells do not show."""
    pad = 4
    wide = np.concatenate([chart[:, -pad:], chart, chart[:, :pad]], axis=1)
    map_x, map_y = np.meshgrid(column + np.float32(pad), row)
    return cv2.remap(
        np.ascontiguousarray(wide), map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip

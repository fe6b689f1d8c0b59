"""Detail of hair that is not seen: streaks out of noise where strands are long, patches of what is seen elsewhere.

Patches cut long straight strands into pieces: there noise is drawn out along the strands instead, as wide, as long, as
strong and in the colours of the strands that are seen. Pictures are tiles whose columns wrap round.

Source: Efros and Freeman, "Image Quilting for Texture Synthesis and Transfer", SIGGRAPH 2001 (patches, minimum error
boundary cut, guidance); here with guidance by the direction of strands and by how much the picture is stretched.
"""

from __future__ import annotations

import math
from typing import no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from ..capsule import WRAPPED
from .fills import push_pull, wrapped_blur

_LAG_PX = 16.0
_LEAST_ALIKE = 0.5
"""Correlation of detail this far along a strand from which strands count as long."""
_ACROSS_LAG_PX = 4.0
_LONGER = 3.0
"""Strands are longer than they seem: every error of the measured direction makes them look shorter."""
_SWAY_PX, _SWAY_ROWS_PX, _SWAY_COLUMNS_PX = 5.0, 60.0, 40.0
_SAMPLES = 20_000
_PATCHES_PX = (72, 56, 40, 28)
"""Sides of patches, the largest that finds enough places first; multiples of 4."""
_LEAST_PLACES = 150
_DRAWN, _COMPARED = 800, 60
_TURNS_DEG = (0.0, 35.0, -35.0, 70.0, -70.0)
_STRETCHES = (1.0, 2.0)
_DIRECTION_WEIGHT, _STRETCH_WEIGHT = 10.0, 1.0
_REUSE, _FORGET, _LUCK = 0.6, 0.97, 0.3
"""Cost of taking the same part again, how fast that is forgotten, and how much chance decides."""
_ALL_KNOWN = 0.995


def combed_detail(
    detail: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"], rng: np.random.Generator
) -> Float32[np.ndarray, "h w 3"] | None:
    """Streaks like the known ones all over the tile, or None where the strands that are seen are short or curled.

    Args:
        detail: differences from the smooth picture, zero on average; columns wrap round, strands hang along the rows.
        known: where they are known.
        rng: draws the noise.
    """
    if known.sum() < 500:
        return None
    along, across = _alike(detail, known, rng)
    if not along > _LEAST_ALIKE:
        return None
    sigma_along = _LONGER * _sigma(along, _LAG_PX)
    sigma_across = _sigma(across, _ACROSS_LAG_PX)
    values = detail[known]
    mean = values.mean(0)
    _, _, axes = np.linalg.svd((values - mean)[:: max(1, len(values) // _SAMPLES)], full_matrices=False)
    height, width = known.shape
    streaks = np.zeros_like(detail) + mean
    for axis in axes:
        noise = np.zeros((height, width), np.float32)
        for factor, share in ((0.5, 0.5), (1.0, 1.0), (2.2, 0.6)):
            drawn = rng.standard_normal((height, width), dtype=np.float32)
            drawn = wrapped_blur(drawn, sigma_along * factor, sigma_across * factor)
            noise += share * drawn / drawn.std()
        streaks += _with_values_of(noise, (values - mean) @ axis)[..., None] * axis
    return _swaying(streaks.astype(np.float32), rng)


def noise_strands(
    colour: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"], seed: int
) -> Float32[np.ndarray, "h w"]:
    """Log-brightness of strands of noise along the rows, with the contrast of the seen hair.

    The default where hair is too little seen, or too curled, to be combed (above) or quilted (below).

    Args:
        colour: seen hair.
        weight: trust in it.
        seed: of the strands.
    """
    height, width = weight.shape
    luminance = np.log(np.clip(colour @ np.array([0.299, 0.587, 0.114], np.float32), 0.02, 1.0))
    solid = ndimage.binary_erosion(weight > 0.4, iterations=8)
    if solid.sum() < 400:
        contrast, ratio = 0.12, 4.0
    else:
        mass = np.maximum(ndimage.gaussian_filter((weight > 0.35).astype(np.float32), 8), 1e-3)
        low = ndimage.gaussian_filter(np.where(weight > 0.35, luminance, 0), 8) / mass
        contrast = float(np.clip(np.std((luminance - low)[solid]), 0.03, 0.35))
        d_rows, d_columns = np.gradient(luminance)
        ratio = float(np.sqrt((d_columns[solid] ** 2).mean() / max(float((d_rows[solid] ** 2).mean()), 1e-8)))
    stretch = float(np.clip(4.0 * ratio, 3.5, 18.0))
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for sigma, share in ((0.8, 0.6), (1.8, 0.7), (4.5, 0.4)):
        noise = rng.standard_normal((height, width))
        noise = ndimage.gaussian_filter(noise, (sigma * stretch, sigma), mode=WRAPPED)
        total += share * noise / noise.std()
    return (contrast * total / total.std()).astype(np.float32)


def _alike(
    detail: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"], rng: np.random.Generator
) -> tuple[float, float]:
    """Correlation of detail `_LAG_PX` along the strands and `_ACROSS_LAG_PX` across them."""
    doubled, _ = strand_direction(detail, known)
    grey = detail.mean(-1)
    rows, columns = np.nonzero(known)
    chosen = rng.choice(len(rows), min(_SAMPLES, len(rows)), replace=False)
    rows, columns = rows[chosen], columns[chosen]
    angle = 0.5 * np.arctan2(doubled[rows, columns, 1], doubled[rows, columns, 0])
    found = []
    for lag, turn in ((_LAG_PX, 0.0), (_ACROSS_LAG_PX, math.pi / 2)):
        y = np.round(rows + lag * np.sin(angle + turn)).astype(int)
        x = np.round(columns + lag * np.cos(angle + turn)).astype(int) % known.shape[1]
        there = (y >= 0) & (y < len(known))
        there[there] &= known[y[there], x[there]]
        a, b = grey[rows[there], columns[there]], grey[y[there], x[there]]
        spread = float(a.std() * b.std()) if len(a) > 100 else 0.0
        found.append(float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread > 1e-9 else 0.0)
    return found[0], found[1]


def _sigma(correlation: float, lag_px: float) -> float:
    """Width of the Gaussian blur of white noise that has this correlation at a lag: exp(-lag^2 / (4 sigma^2))."""
    return lag_px / (2 * math.sqrt(-math.log(min(max(correlation, 0.05), 0.95))))


def _with_values_of(noise: Float32[np.ndarray, "h w"], values: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, "h w"]:
    """The noise with the distribution of `values`: ranks stay, what stands at each rank is replaced."""
    share = np.linspace(0, 1, 257)
    return np.interp(noise, np.quantile(noise[::3, ::3], share), np.quantile(values, share)).astype(np.float32)


def _swaying(picture: Float32[np.ndarray, "h w 3"], rng: np.random.Generator) -> Float32[np.ndarray, "h w 3"]:
    """Nothing hangs like a ruler: columns are shifted a little, differently from place to place."""
    height, width = picture.shape[:2]
    sway = wrapped_blur(rng.standard_normal((height, width), dtype=np.float32), _SWAY_ROWS_PX, _SWAY_COLUMNS_PX)
    sway *= _SWAY_PX / sway.std()
    wide = np.concatenate([picture[:, -32:], picture, picture[:, :32]], axis=1)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) + 32, np.arange(height, dtype=np.float32))
    return cv2.remap(wide, (x + sway.clip(-30, 30)).astype(np.float32), y, cv2.INTER_LINEAR)


def quilt(
    detail: Float32[np.ndarray, "h w 3"],
    known: Bool[np.ndarray, "h w"],
    width: Float32[np.ndarray, " h"],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "h w 3"] | None:
    """Detail for the whole picture that looks like the known one, strands running as they do nearby.

    Args:
        detail: differences from the smooth picture, zero on average.
        known: where they are known.
        width: true width of a texel in each row, any unit: where texels are narrow, patches are stretched.
        rng: draws candidates.

    Returns:
        None where too little is known to learn from. Known places get new detail too; the caller keeps the old one.
    """
    if not known.any():
        return None
    direction, coherence = strand_direction(detail, known)
    wanted = _wanted_direction(direction, coherence)
    variants = _variants(detail, known, direction, width)
    table, patch = np.zeros((0, 6)), _PATCHES_PX[0]
    for patch in _PATCHES_PX:
        table = np.concatenate([_places(k, variant, patch) for k, variant in enumerate(variants)])
        if len(table) >= _LEAST_PLACES:
            break
    if len(table) < _LEAST_PLACES:
        return None
    size = [max(variant.shape[axis] for variant in variants) for axis in (0, 1)]
    stack = np.zeros((len(variants), *size, 3), np.float32)
    for layer, variant in zip(stack, variants):
        layer[: variant.shape[0], : variant.shape[1]] = variant[..., :3]
    noise = 2 * float(detail[known].var()) + 1e-6
    result = np.zeros_like(detail)
    done = np.zeros(known.shape, bool)
    cell = (table[:, 0] * 4096 + table[:, 1] // (patch // 2)) * 4096 + table[:, 2] // (patch // 2)
    cell = np.unique(cell, return_inverse=True)[1]
    used = np.zeros(cell.max() + 1)
    for row in _starts(len(known), patch, patch // 4, wrap=False):
        for column in _starts(known.shape[1], patch, patch // 4, wrap=True):
            middle = row + patch // 2, (column + patch // 2) % known.shape[1]
            numbers = rng.integers(0, len(table), _DRAWN)
            drawn = table[numbers]
            guided = _DIRECTION_WEIGHT * ((drawn[:, 3:5] - wanted[middle]) ** 2).sum(1)
            guided += _STRETCH_WEIGHT * np.log(drawn[:, 5] / width[middle[0]]) ** 2
            guided += used[cell[numbers]] + _LUCK * rng.random(_DRAWN)
            best = np.argsort(guided, kind="stable")[:_COMPARED]
            taken = _paste_patch(
                stack, drawn[best], guided[best], result, done, detail, known, row, column, patch, 1 / noise
            )
            used *= _FORGET
            used[cell[numbers[best[taken]]]] += _REUSE
    return result


def _variants(
    detail: Float32[np.ndarray, "h w 3"],
    known: Bool[np.ndarray, "h w"],
    direction: Float32[np.ndarray, "h w 2"],
    width: Float32[np.ndarray, " h"],
) -> list[Float32[np.ndarray, "a b 7"]]:
    """The known part of the picture, turned and stretched: detail (3), direction (2), width (1), known (1).

    Hair that is combed aside over the forehead hangs down behind: every part comes in several turns.
    """
    half = known.shape[1] // 2
    maps = np.concatenate(
        [detail, direction, np.broadcast_to(width[:, None, None], (*known.shape, 1)), known[..., None]], axis=-1
    ).astype(np.float32)
    maps = np.roll(maps, half, axis=1)  # what is seen lies about the seam
    rows, columns = (np.nonzero(maps[..., 6].any(axis))[0] for axis in (1, 0))
    maps = np.ascontiguousarray(maps[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    variants = []
    for angle in _TURNS_DEG:
        for stretch in _STRETCHES:
            turned = _turned(maps, angle, stretch)
            doubled = math.radians(2 * angle)
            cosine, sine = math.cos(doubled), math.sin(doubled)
            turned[..., 3:5] = turned[..., 3:5] @ np.array([[cosine, -sine], [sine, cosine]], np.float32)
            turned[..., 5] /= stretch
            variants.append(turned)
    return variants


def _turned(maps: Float32[np.ndarray, "a b 7"], angle_deg: float, stretch: float) -> Float32[np.ndarray, "c d 7"]:
    """Turned counter-clockwise, then drawn out along the columns; zeros where nothing is."""
    height, width = maps.shape[:2]
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    linear = np.array([[stretch * c, stretch * s], [-s, c]])
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ linear.T
    low = corners.min(0)
    size = np.ceil(corners.max(0) - low).astype(int)
    A = np.concatenate([linear, -low[:, None]], axis=1)
    parts = [
        cv2.warpAffine(maps[..., k], A, (int(size[0]), int(size[1])), flags=cv2.INTER_LINEAR)
        for k in range(maps.shape[2])
    ]
    return np.stack(parts, axis=-1)


def _places(number: int, variant: Float32[np.ndarray, "a b 7"], patch: int) -> np.ndarray:
    """Patches that are all known: number of the variant, row, column, direction (2), true width of a texel."""
    height, width = variant.shape[:2]
    if min(height, width) <= patch:
        return np.zeros((0, 6))
    known = (variant[..., 6] > _ALL_KNOWN).astype(np.float32)
    full = cv2.boxFilter(known, -1, (patch, patch), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    rows, columns = np.nonzero(full[: height - patch : 2, : width - patch : 2] > _ALL_KNOWN)
    rows, columns = 2 * rows, 2 * columns
    middle = rows + patch // 2, columns + patch // 2
    return np.column_stack([np.full(len(rows), number), rows, columns, variant[..., 3:6][middle]])


def _starts(length: int, patch: int, overlap: int, *, wrap: bool) -> list[int]:
    """Even starts of patches that overlap by at least `overlap`."""
    count = -(-(length if wrap else length - overlap) // (patch - overlap))
    last = length if wrap else length - patch
    return [round(last * k / (count if wrap else max(count - 1, 1))) for k in range(count)]


def strand_direction(
    detail: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"]
) -> tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w"]]:
    """Cosine and sine of twice the strands' angle, times their coherence, and the coherence where known.

    Source: structure tensors (Foerstner and Guelch 1987; Bigun and Granlund 1987).
    """
    grey = np.where(known, detail.mean(-1), 0).astype(np.float32)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    inner = cv2.erode(known.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
    xx, yy, xy = (wrapped_blur(inner * product, 6.0, 6.0) for product in (dx * dx, dy * dy, dx * dy))
    # the strands run across the gradient: their doubled angle is the gradient's, turned by a half circle
    total = np.maximum(xx + yy, 1e-6)
    doubled = np.stack([yy - xx, -2 * xy], axis=-1) / total[..., None]
    return doubled.astype(np.float32), (np.linalg.norm(doubled, axis=-1) * inner).astype(np.float32)


def _wanted_direction(
    direction: Float32[np.ndarray, "h w 2"], coherence: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 2"]:
    """Directions carried on from what is seen, far away downwards."""
    height, width = coherence.shape
    small = (width // 8, height // 8)
    weight = cv2.resize(coherence, small, interpolation=cv2.INTER_AREA)
    values = cv2.resize(direction * coherence[..., None], small, interpolation=cv2.INTER_AREA)
    near = push_pull(values / np.maximum(weight, 1e-6)[..., None], weight + np.float32(1e-6))
    close = np.clip(3 * wrapped_blur(weight, 6.0, 6.0), 0, 1)[..., None]
    down = np.array([-0.6, 0.0], np.float32)
    return cv2.resize(near * close + down * (1 - close), (width, height), interpolation=cv2.INTER_LINEAR)


@numba.njit(cache=True)
@no_type_check
def _paste_patch(stack, chosen, guided, result, done, detail, known, row, column, patch, per_noise):
    """Choose one of the candidates by its agreement with what is there, and paste it along the cheapest cuts."""
    total = known.shape[1]
    best, best_cost = 0, np.inf
    for k in range(chosen.shape[0]):
        source = stack[int(chosen[k, 0])]
        r0, c0 = int(chosen[k, 1]), int(chosen[k, 2])
        cost, count = 0.0, 0
        for i in range(0, patch, 3):
            for j in range(0, patch, 3):
                y, x = row + i, (column + j) % total
                if done[y, x]:
                    for c in range(3):
                        cost += (source[r0 + i, c0 + j, c] - result[y, x, c]) ** 2
                    count += 3
                elif known[y, x]:
                    for c in range(3):
                        cost += (source[r0 + i, c0 + j, c] - detail[y, x, c]) ** 2
                    count += 3
        cost = cost * per_noise / max(count, 1) + guided[k]
        if cost < best_cost:
            best, best_cost = k, cost
    source = stack[int(chosen[best, 0])]
    r0, c0 = int(chosen[best, 1]), int(chosen[best, 2])
    # errors of each texel where something lies already
    error = np.zeros((patch, patch))
    old = np.zeros((patch, patch), np.bool_)
    for i in range(patch):
        for j in range(patch):
            y, x = row + i, (column + j) % total
            if done[y, x]:
                old[i, j] = True
                for c in range(3):
                    error[i, j] += (source[r0 + i, c0 + j, c] - result[y, x, c]) ** 2
    keep_old = np.zeros((patch, patch), np.bool_)
    half = patch // 2
    for side in range(3):  # left, right, top
        reach = 0
        for d in range(half):
            there = True
            for t in range(patch // 4, patch - patch // 4):
                i, j = (t, d) if side == 0 else (t, patch - 1 - d) if side == 1 else (d, t)
                if not old[i, j]:
                    there = False
                    break
            if not there:
                break
            reach = d + 1
        if reach < 2:
            continue
        cost = np.zeros((patch, reach))
        for t in range(patch):
            for d in range(reach):
                i, j = (t, d) if side == 0 else (t, patch - 1 - d) if side == 1 else (d, t)
                least = 0.0
                if t > 0:
                    least = cost[t - 1, d]
                    if d > 0:
                        least = min(least, cost[t - 1, d - 1])
                    if d < reach - 1:
                        least = min(least, cost[t - 1, d + 1])
                cost[t, d] = error[i, j] + least
        d = 0
        for e in range(reach):
            if cost[patch - 1, e] < cost[patch - 1, d]:
                d = e
        for t in range(patch - 1, -1, -1):
            for e in range(d):
                i, j = (t, e) if side == 0 else (t, patch - 1 - e) if side == 1 else (e, t)
                keep_old[i, j] = True
            if t > 0:
                nearest = d
                for e in (d - 1, d + 1):
                    if 0 <= e < reach and cost[t - 1, e] < cost[t - 1, nearest]:
                        nearest = e
                d = nearest
    for i in range(patch):
        for j in range(patch):
            y, x = row + i, (column + j) % total
            if not (old[i, j] and keep_old[i, j]):
                for c in range(3):
                    result[y, x, c] = source[r0 + i, c0 + j, c]
            done[y, x] = True
    return best

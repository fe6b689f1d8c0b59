"""Where the arms of glasses run: beside the head without cutting into it, over the ears and down behind them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay

from .frame_shape import SIDES, FrameCurves, FrameShape, WearersFace

_DROP_CM = (0.0, 0.5)
"""Arms rest this far below the upper root of the ear: what a portrait seems to say beyond is not believed."""
_BEHIND_EAR_CM = np.array([[-0.25, -0.8], [-0.9, -1.35], [-1.8, -1.75], [-2.7, -2.0], [-3.4, -2.15]])
"""Height and depth of the arm's end, from where it rests on the ear."""
_SKIN_GAP_CM = 0.1
"""From the skin to the arm's inner side."""
_BEFORE_EAR, _BEHIND_EAR = 20, 14
"""Points of an arm from the rim to the ear, and from there to its tip."""
_CORNER_CM = 0.5
"""Arms bend over about this length."""
_LEAST_X_CM, _FOREMOST_Z_CM = 3.0, 9.5
"""Skin nearer to the middle or farther in front is no side of a head."""


def arm_paths(
    shape: FrameShape, face: WearersFace, curves: FrameCurves, half_thickness_cm: float
) -> Float[np.ndarray, "2 n 3"]:
    """Middle lines of the right and the left arm, from the rim to the tip, centimetres.

    Args:
        shape: of the frame.
        face: it rests on.
        curves: of the shape on that face.
        half_thickness_cm: from the middle line to the arm's inner side.
    """
    drop = float(np.clip(shape.ear_drop_cm, *_DROP_CM))
    paths = []
    for k, side in enumerate(SIDES):
        rim, hinge = curves.hinges[k]
        ear = face.ears_cm[k] - [0.0, drop, 0.0]
        beside = _beside_head(face, side)
        gap = _SKIN_GAP_CM + half_thickness_cm
        z = np.linspace(hinge[2], ear[2], _BEFORE_EAR)
        y = np.linspace(hinge[1], ear[1], _BEFORE_EAR)
        x = np.maximum(beside(y, z) + gap, -np.inf)
        x[0] = max(side * hinge[0], x[0])
        x = _straightened(z, x)
        before = np.stack([side * x, y, z], axis=1)
        y, z = _BEHIND_EAR_CM[:, 0] + ear[1], _BEHIND_EAR_CM[:, 1] + ear[2]
        behind = np.stack([side * (beside(y, z) + gap), y, z], axis=1)
        paths.append(_rounded(np.concatenate([rim[None], before, behind])))
    return np.stack(paths)


def _beside_head(face: WearersFace, side: float):
    """The skin's distance from the middle plane as a function of height and depth."""
    skin = face.skin_cm
    near = (side * skin[:, 0] > _LEAST_X_CM) & (skin[:, 2] < _FOREMOST_Z_CM) & (skin[:, 2] > -8)
    near &= (skin[:, 1] > face.ears_cm[:, 1].min() - 6) & (skin[:, 1] < face.eyes_cm[:, 1].max() + 3)
    used = skin[near]
    surface = LinearNDInterpolator(Delaunay(used[:, [1, 2]]), side * used[:, 0])

    def distance(y: Float[np.ndarray, " n"], z: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        x = surface(y, z)
        return np.where(np.isfinite(x), x, _LEAST_X_CM)

    return distance


def _straightened(z: Float[np.ndarray, " n"], x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The least concave line over points: wires bridge hollows of the temples."""
    kept = [0]
    for k in range(1, len(z)):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (x[b] - x[a]) * (z[a] - z[k]) > (x[k] - x[a]) * (z[a] - z[b]):
                break
            kept.pop()
        kept.append(k)
    return np.interp(-z, -z[kept], x[kept])


def _rounded(path: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
    """Points evenly spaced along a path whose corners are rounded; the ends stay."""
    length = np.concatenate([[0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    fine = np.linspace(0, length[-1], 200)
    dense = np.stack([np.interp(fine, length, path[:, k]) for k in range(3)], axis=1)
    half = max(1, round(0.5 * _CORNER_CM / (length[-1] / 199)))
    # a mean over a window that narrows towards the ends
    total = np.concatenate([np.zeros((1, 3)), dense.cumsum(0)])
    reach = np.minimum(half, np.minimum(np.arange(200), np.arange(200)[::-1]))
    smooth = (total[np.arange(200) + reach + 1] - total[np.arange(200) - reach]) / (2 * reach + 1)[:, None]
    chosen = np.linspace(0, 199, _BEFORE_EAR + _BEHIND_EAR + 6).round().astype(int)
    return smooth[chosen]

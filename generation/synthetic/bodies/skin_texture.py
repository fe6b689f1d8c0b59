"""Textures of skins: which triangle each texel shows, so that anything known per vertex can be painted, and paint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8
from scipy import ndimage

from ..parts import RGB, Label


@dataclass(frozen=True)
class UvMap:
    """Triangle and weights per texel."""

    triangle: Int32[np.ndarray, "s s"]
    """Row of the faces, -1 where no triangle lies."""
    weights: Float32[np.ndarray, "s s 2"]
    """Weights of the triangle's second and third corner."""

    def bake(self, values: Float[np.ndarray, "v ..."], faces: Int[np.ndarray, "f 3"]) -> Float32[np.ndarray, "s s ..."]:
        """Vertex values at every texel, 0 where no triangle lies."""
        out = np.zeros((*self.triangle.shape, *values.shape[1:]), np.float32)
        hit = self.triangle >= 0
        corner = values[faces[self.triangle[hit]]].astype(np.float32)
        second, third = self.weights[hit].T
        shape = (-1, *([1] * (values.ndim - 1)))
        second, third = second.reshape(shape), third.reshape(shape)
        out[hit] = corner[:, 0] * (1 - second - third) + corner[:, 1] * second + corner[:, 2] * third
        return out


def uv_map(uv_unit: Float[np.ndarray, "t 2"], faces_uv: Int[np.ndarray, "f 3"], side: int) -> UvMap:
    """The map of a texture of `side` x `side` texels, with a border of about a texel round every island."""
    return UvMap(*_fill(uv_unit.astype(np.float64) * side, np.ascontiguousarray(faces_uv, dtype=np.int32), side))


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _fill(uv_px, faces, side):
    triangle = np.full((side, side), -1, np.int32)
    weights = np.zeros((side, side, 2), np.float32)
    for turn in range(2):  # borders first, then what truly lies inside
        slack = 1.2 if turn == 0 else 0.0
        for f in range(faces.shape[0]):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay, bx, by, cx, cy = uv_px[a, 0], uv_px[a, 1], uv_px[b, 0], uv_px[b, 1], uv_px[c, 0], uv_px[c, 1]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if area == 0.0:
                continue
            height = abs(area) / max(np.hypot(bx - ax, by - ay), np.hypot(cx - bx, cy - by), np.hypot(ax - cx, ay - cy))
            least = -slack / max(height, 1.0)
            x0, x1 = max(int(min(ax, bx, cx) - 2), 0), min(int(max(ax, bx, cx) + 3), side)
            y0, y1 = max(int(min(ay, by, cy) - 2), 0), min(int(max(ay, by, cy) + 3), side)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    px, py = x + 0.5, y + 0.5
                    wb = ((ax - cx) * (py - cy) - (ay - cy) * (px - cx)) / area
                    wc = ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) / area
                    if wb < least or wc < least or 1.0 - wb - wc < least:
                        continue
                    triangle[y, x] = f
                    weights[y, x, 0] = min(max(wb, 0.0), 1.0)
                    weights[y, x, 1] = min(max(wc, 0.0), 1.0 - weights[y, x, 0])
    return triangle, weights


def toned(texture: Float32[np.ndarray, "h w 4"], gain: RGB) -> Float32[np.ndarray, "h w 4"]:
    """The skin with its linear colour multiplied by `gain`."""
    result = texture.copy()
    result[..., :3] = np.clip(texture[..., :3] * np.array(gain, np.float32) ** (1 / 2.2), 0, 1)
    return result


def overlaid(
    texture: Float32[np.ndarray, "h w 4"], weight: Float[np.ndarray, "h w"], rgb: Float[np.ndarray, " 3"]
) -> Float32[np.ndarray, "h w 4"]:
    """The texture with a colour laid over it."""
    result = texture.copy()
    share = weight[..., None].astype(np.float32)
    result[..., :3] = texture[..., :3] * (1 - share) + np.array(rgb, np.float32) * share
    return result


def hair_roots(weight: Float[np.ndarray, "h w"], density: float, rng: np.random.Generator) -> Float[np.ndarray, "h w"]:
    """Opacity of closely cropped hair: fine grain where `weight` allows it, fading over its border."""
    grain = ndimage.gaussian_filter(rng.random(weight.shape), 0.7)
    grain = (grain - 0.5) / max(float(grain.std()), 1e-6)
    return np.clip(weight * density * (1 + 0.22 * grain), 0, 0.96)


def bare_scalp(
    texture: Float32[np.ndarray, "s s 4"], scalp: Float32[np.ndarray, "s s"], rest_cm: Float32[np.ndarray, "s s 3"],
    ear: Bool[np.ndarray, "s s"],
) -> Float32[np.ndarray, "s s 4"]:  # fmt: skip
    """A skin whose scalp is bald and has the forehead's colour: the assets' skins have cropped hair painted there.

    Args:
        scalp: 1 where hair grows, soft at the hairline.
        rest_cm: the texels' places on the average head.
        ear: texels of ears, whose inner part stays.
    """
    _, y, z = np.moveaxis(rest_cm, -1, 0)
    rgb, texels_per_side = texture[..., :3], len(texture)
    forehead = np.median(rgb[(y > 5.0) & (y < 7.5) & (z > 7.0)], axis=0)
    # paint runs past the hairline: what is dark within some centimetres of it goes as well
    beyond = np.clip(8 * cv2.GaussianBlur(scalp, (0, 0), 0.015 * texels_per_side), 0, 1)
    beyond *= np.where(z > 4.0, np.clip(y - 5.0, 0, 1), np.clip(y + 6.0, 0, 1))
    smooth = cv2.GaussianBlur(rgb, (0, 0), 0.004 * texels_per_side)
    darker = np.clip(2.5 * (1 - (smooth / forehead).mean(-1)), 0, 1)
    reach = 2 * round(0.006 * texels_per_side) + 1
    inner_ear = cv2.erode(ear.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    share = np.maximum(np.clip(1.5 * scalp, 0, 1), beyond * darker) * ~inner_ear
    grain = np.clip(rgb / np.maximum(smooth, 0.02), 0.93, 1.07)
    result = texture.copy()
    result[..., :3] = rgb * (1 - share[..., None]) + share[..., None] * forehead * grain
    return result


def skin_labels(
    rest_cm: Float[np.ndarray, "s s 3"], known: Bool[np.ndarray, "s s"], ear: Bool[np.ndarray, "s s"]
) -> UInt8[np.ndarray, "s s"]:
    """Ears, face above the jaw's lower edge, neck below; `rest_cm` are the texels' places on the average head."""
    _, y, z = np.moveaxis(rest_cm, -1, 0)
    jaw = -9.0 + 0.55 * (8.0 - np.clip(z, 0.0, 8.0)) - 0.1 * np.clip(z, -8, 0)
    labels = np.where(y < jaw, np.uint8(Label.NECK), np.uint8(Label.FACE))
    labels = np.where(ear, np.uint8(Label.EAR), labels)
    return np.where(known, labels, np.uint8(Label.FACE)).astype(np.uint8)

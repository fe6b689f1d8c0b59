"""Which triangle each texel of a texture shows, so that anything known per vertex can be painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32, Int, Int32


@dataclass(frozen=True)
class UvMap:
    """Triangle and weights per texel."""

    triangle: Int32[np.ndarray, "s s"]
    """Row of the faces, -1 where no triangle lies."""
    weights: Float32[np.ndarray, "s s 2"]
    """Weights of the triangle's second and third corner."""

    def bake(self, values: Float[np.ndarray, v * k], faces: Int[np.ndarray, "f 3"]) -> Float32[np.ndarray, "s s *k"]:
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

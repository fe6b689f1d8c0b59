"""Fewer triangles: edges are collapsed in the order of quadric error, and never so that the surface would tear.

An edge goes only if its ends share exactly two neighbours. Such a collapse changes neither pieces nor handles, so a
watertight mesh stays watertight; that promise, and a weight per place, are why this is own code and no library.

Source: M. Garland and P. Heckbert, "Surface Simplification Using Quadric Error Metrics", SIGGRAPH 1997; the link
condition as in T. Dey, H. Edelsbrunner, S. Guha, D. Nekhayev, "Topology preserving edge contraction", 1999.
"""

from __future__ import annotations

import heapq
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int32

_MAX_VALENCE = 24
_TESTS = ((0.3, 0.05), (0.0, 0.01), (-1.0, 0.0))
"""Least cosine between a triangle's normals before and after, and least height over length; looser in later rounds,
which only coarse meshes need."""


def decimate(
    vertices: Float64[np.ndarray, "v 3"],
    faces: Int32[np.ndarray, "f 3"],
    *,
    face_budget: int,
    importance: Float64[np.ndarray, " v"] | None = None,
) -> tuple[Float64[np.ndarray, "v2 3"], Int32[np.ndarray, "f2 3"]]:
    """The surface with at most `face_budget` triangles where the tests allow it.

    Args:
        vertices: of a closed surface.
        faces: its triangles.
        face_budget: number of triangles to stop at.
        importance: factor on the error around each vertex, positive; 1 if not given.
    """
    if len(faces) <= face_budget:
        return vertices, faces
    weights = np.ones(len(vertices)) if importance is None else importance
    middle, size = vertices.mean(axis=0), float(np.ptp(vertices, axis=0).max())
    points = np.ascontiguousarray((vertices - middle) / size)
    triangles = np.ascontiguousarray(faces, dtype=np.int32).copy()
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    for min_cosine, min_shape in _TESTS:
        if len(triangles) > face_budget:
            _collapse(points, triangles, weights, face_budget, min_cosine, min_shape)
            triangles = np.ascontiguousarray(triangles[triangles[:, 0] >= 0])
    used, renumbered = np.unique(triangles, return_inverse=True)
    return points[used] * size + middle, renumbered.reshape(-1, 3).astype(np.int32)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _cost(Q, u, v, points, out):
    """Quadric error of collapsing u and v; the best place goes to `out`."""
    q = Q[u] + Q[v]
    best = np.inf
    a, b, c, d, e, f, g, h, i, k = q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7], q[8], q[9]
    # q: xx xy xz yy yz zz | x y z | 1; minimise p'Ap + 2 b'p + k
    mx, my, mz = (points[u] + points[v]) * 0.5
    edge = points[u] - points[v]
    length2 = edge[0] * edge[0] + edge[1] * edge[1] + edge[2] * edge[2]
    pull = 1e-3 * (a + d + f) + 1e-12  # towards the middle, where the error says nothing (flat places)
    A, D, F = a + pull, d + pull, f + pull
    r0, r1, r2 = pull * mx - g, pull * my - h, pull * mz - i
    c00, c01, c02 = D * F - e * e, c * e - b * F, b * e - c * D
    determinant = A * c00 + b * c01 + c * c02
    if abs(determinant) > 1e-30:
        c11, c12, c22 = A * F - c * c, b * c - A * e, A * D - b * b
        x = (c00 * r0 + c01 * r1 + c02 * r2) / determinant
        y = (c01 * r0 + c11 * r1 + c12 * r2) / determinant
        z = (c02 * r0 + c12 * r1 + c22 * r2) / determinant
        far = (x - mx) ** 2 + (y - my) ** 2 + (z - mz) ** 2
        if far < length2:
            best = a * x * x + d * y * y + f * z * z + 2 * (b * x * y + c * x * z + e * y * z)
            best += 2 * (g * x + h * y + i * z) + k
            out[0], out[1], out[2] = x, y, z
    if best == np.inf:
        x, y, z = mx, my, mz
        best = a * x * x + d * y * y + f * z * z + 2 * (b * x * y + c * x * z + e * y * z)
        best += 2 * (g * x + h * y + i * z) + k
        out[0], out[1], out[2] = x, y, z
    return max(best, 0.0) + 1e-7 * length2 * (a + d + f)  # short edges first where all is flat


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _turns_over(points, faces, head, following, keep, gone, place, min_cosine, min_shape):
    """Whether a face around `keep`, other than those with `gone`, would turn or shrink to a line at `place`."""
    corner = head[keep]
    while corner >= 0:
        f = corner // 3
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if a >= 0 and a != gone and b != gone and c != gone:
            k = corner - 3 * f
            p, q = points[faces[f, (k + 1) % 3]], points[faces[f, (k + 2) % 3]]
            old, side = points[keep], q - p
            n0 = np.cross(p - old, q - old)
            n1 = np.cross(p - place, q - place)
            l0, l1 = np.sqrt((n0 * n0).sum()), np.sqrt((n1 * n1).sum())
            longest = max((side * side).sum(), ((p - place) ** 2).sum(), ((q - place) ** 2).sum())
            shape = l1 / longest
            longest0 = max((side * side).sum(), ((p - old) ** 2).sum(), ((q - old) ** 2).sum())
            if (n0 * n1).sum() < min_cosine * l0 * l1 and l0 > 1e-14:
                return True
            if shape < min_shape and shape < 0.9 * l0 / longest0:
                return True
        corner = following[corner]
    return False


@numba.njit(cache=True, nogil=True)
@no_type_check
def _mark_neighbours(faces, head, following, vertex, mark, stamp, found):
    """Stamp the neighbours of a vertex; returns their number, and lists them in `found`."""
    count = 0
    corner = head[vertex]
    while corner >= 0:
        f = corner // 3
        if faces[f, 0] >= 0:
            for k in range(3):
                other = faces[f, k]
                if other != vertex and mark[other] != stamp:
                    mark[other] = stamp
                    if count < found.shape[0]:
                        found[count] = other
                    count += 1
        corner = following[corner]
    return count


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _collapse(points, faces, importance, face_budget, min_cosine, min_shape):
    """Collapse edges in place until `face_budget` faces are left; dead faces get -1 as their first vertex."""
    n, m = points.shape[0], faces.shape[0]
    Q = np.zeros((n, 10))
    head = np.full(n, -1, np.int64)
    tail = np.full(n, -1, np.int64)
    following = np.full(3 * m, -1, np.int64)
    for f in range(m):
        p0, p1, p2 = points[faces[f, 0]], points[faces[f, 1]], points[faces[f, 2]]
        normal = np.cross(p1 - p0, p2 - p0)
        length = np.sqrt((normal * normal).sum())
        x, y, z = normal / max(length, 1e-30)
        w = -(x * p0[0] + y * p0[1] + z * p0[2])
        for k in range(3):
            v = faces[f, k]
            s = length * importance[v]
            Q[v, 0] += s * x * x
            Q[v, 1] += s * x * y
            Q[v, 2] += s * x * z
            Q[v, 3] += s * y * y
            Q[v, 4] += s * y * z
            Q[v, 5] += s * z * z
            Q[v, 6] += s * x * w
            Q[v, 7] += s * y * w
            Q[v, 8] += s * z * w
            Q[v, 9] += s * w * w
            corner = 3 * f + k
            if head[v] < 0:
                head[v] = corner
            else:
                following[tail[v]] = corner
            tail[v] = corner
    version = np.zeros(n, np.int64)
    mark = np.full(n, -1, np.int64)
    found, unused = np.empty(256, np.int64), np.empty(0, np.int64)
    stamp = 0
    place = np.empty(3)
    heap = [(0.0, np.int64(0), np.int64(0), np.int64(0), np.int64(0)) for _ in range(0)]
    for f in range(m):
        for k in range(3):
            u, v = np.int64(faces[f, k]), np.int64(faces[f, (k + 1) % 3])
            if u < v:
                heap.append((_cost(Q, u, v, points, place), u, v, np.int64(0), np.int64(0)))
    heapq.heapify(heap)
    left = m
    while left > face_budget and heap:
        _, u, v, version_u, version_v = heapq.heappop(heap)
        if version[u] != version_u or version[v] != version_v:
            continue
        # the ends must share exactly the two vertices opposite to the edge
        stamp += 1
        count_u = _mark_neighbours(faces, head, following, u, mark, stamp, unused)
        if mark[v] != stamp:
            continue
        stamp_u = stamp
        common = 0
        stamp += 1
        corner = head[v]
        count_v = 0
        while corner >= 0:
            f = corner // 3
            if faces[f, 0] >= 0:
                for k in range(3):
                    other = faces[f, k]
                    if other != v and mark[other] != stamp:
                        common += mark[other] == stamp_u
                        mark[other] = stamp
                        count_v += 1
            corner = following[corner]
        if common != 2 or count_u + count_v - 4 > _MAX_VALENCE or count_u + count_v - 4 < 3:
            continue
        _cost(Q, u, v, points, place)
        if _turns_over(points, faces, head, following, u, v, place, min_cosine, min_shape):
            continue
        if _turns_over(points, faces, head, following, v, u, place, min_cosine, min_shape):
            continue
        # u stays, at its new place, and takes over the faces of v
        corner = head[v]
        while corner >= 0:
            f = corner // 3
            if faces[f, 0] >= 0:
                if faces[f, 0] == u or faces[f, 1] == u or faces[f, 2] == u:
                    faces[f, 0] = -1
                    left -= 1
                else:
                    faces[f, corner - 3 * f] = u
            corner = following[corner]
        # splice the lists, leaving dead faces out
        first, last = np.int64(-1), np.int64(-1)
        for chain in (head[u], head[v]):
            corner = chain
            while corner >= 0:
                after = following[corner]
                if faces[corner // 3, 0] >= 0:
                    if first < 0:
                        first = corner
                    else:
                        following[last] = corner
                    last = corner
                corner = after
        following[last] = -1
        head[u], tail[u], head[v] = first, last, -1
        points[u] = place
        Q[u] += Q[v]
        version[u] += 1
        version[v] += 1
        stamp += 1
        count = _mark_neighbours(faces, head, following, u, mark, stamp, found)
        for at in range(min(count, found.shape[0])):
            other = found[at]
            low, high = min(other, np.int64(u)), max(other, np.int64(u))
            heapq.heappush(heap, (_cost(Q, low, high, points, place), low, high, version[low], version[high]))

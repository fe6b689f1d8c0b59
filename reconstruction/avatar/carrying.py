"""Gaussians carried along with triangles: the kernel behind `binding.animate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64

from dp360.generation.numba_pool import numba_pool
from dp360.reconstruction.rasterize.workspace import empty
from dp360.reconstruction.splats import Splats

MOST_STRETCH = 4.0
"""Gaussians become at most so much longer or shorter."""


_CHUNKS = 64


@dataclass(frozen=True)
class Motion:
    """What triangles do from one state of a surface to another: F = R S. Rows of triangles that bear nothing are not
    filled."""

    stretch: Float[np.ndarray, "f 3 3"]
    """F: takes what lies along a triangle with it; its thickness stays, and its stretch in the plane is held within
    `MOST_STRETCH`."""
    turn: Float[np.ndarray, "f 3 3"]
    """R: to posed world from rest world."""

    @classmethod
    def of(
        cls,
        bearing: Int64[np.ndarray, " t"],
        faces: Int[np.ndarray, "f 3"],
        rest_vertices: Float[np.ndarray, "v 3"],
        posed_vertices: Float[np.ndarray, "v 3"],
    ) -> Motion:
        """The motion of some triangles.

        Args:
            bearing: rows of `faces` that matter, each once.
            faces: triangles.
            rest_vertices, posed_vertices: the surface before and after.
        """
        motion = cls(empty((len(faces), 3, 3), np.float64), empty((len(faces), 3, 3), np.float64))
        with numba_pool(64 * len(bearing)):
            _move_triangles(
                np.ascontiguousarray(bearing), np.ascontiguousarray(faces),
                np.ascontiguousarray(rest_vertices, np.float64), np.ascontiguousarray(posed_vertices, np.float64),
                MOST_STRETCH, motion.stretch, motion.turn,
            )  # fmt: skip
        return motion


def carried(
    splats: Splats,
    triangle: Int64[np.ndarray, " n"],
    barycentric: Float32[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    rest_vertices: Float[np.ndarray, "v 3"],
    posed_vertices: Float[np.ndarray, "v 3"],
    motion: Motion | None = None,
) -> Splats:
    """Gaussians carried from one state of a surface to another.

    The place on the triangle moves with it, the way from there and the Gaussian's axes with the triangle's stretch F.
    Axes are turned by R, and each gets longer by |F axis|. Harmonics of degree 1 turn too; those above stay.

    Args:
        splats: at rest.
        triangle, barycentric: what each hangs on.
        faces: triangles.
        rest_vertices, posed_vertices: the surface before and after.
        motion: of the triangles from one to the other; reckoned if not given.

    Source: bound Gaussians as in Qian et al., "GaussianAvatars", CVPR 2024, Sec. 3.2, with the triangle's whole stretch
    in place of its mean size.
    """
    motion = motion or Motion.of(np.unique(triangle), faces, rest_vertices, posed_vertices)
    n = len(splats)
    means, quats, log_scales = empty((n, 3)), empty((n, 4)), empty((n, 3))
    rest_harmonics = splats.sh_rest.numpy().copy()
    with numba_pool(64 * n):
        _carry(
            splats.means_world.numpy(), splats.quats_wxyz.numpy(), splats.log_scales.numpy(),
            np.ascontiguousarray(triangle), np.ascontiguousarray(barycentric), np.ascontiguousarray(faces),
            np.ascontiguousarray(rest_vertices, np.float64), np.ascontiguousarray(posed_vertices, np.float64),
            motion.stretch, motion.turn, MOST_STRETCH, means, quats, log_scales, rest_harmonics,
        )  # fmt: skip
    places, sizes, turns = (torch.from_numpy(values) for values in (means, log_scales, quats))
    return Splats(places, sizes, turns, splats.opacity_logits, splats.sh0, torch.from_numpy(rest_harmonics))


@numba.njit(cache=True, nogil=True, inline="always")
@no_type_check
def _frame(vertices, a, b, c, axes):
    """Fill `axes` (columns along the first edge, across it in the plane, outwards); first edge's length, second edge's
    coordinates in the plane."""
    ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
    wx, wy, wz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
    length = max(np.sqrt(ux * ux + uy * uy + uz * uz), 1e-12)
    ux, uy, uz = ux / length, uy / length, uz / length
    nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
    size = np.sqrt(nx * nx + ny * ny + nz * nz)
    if size < 1e-14:  # flat to a line: any direction across will do
        if abs(ux) < 0.7:
            nx, ny, nz = 0.0, uz, -uy
        else:
            nx, ny, nz = -uz, 0.0, ux
        size = np.sqrt(nx * nx + ny * ny + nz * nz)
    nx, ny, nz = nx / size, ny / size, nz / size
    bx, by, bz = ny * uz - nz * uy, nz * ux - nx * uz, nx * uy - ny * ux
    axes[0, 0], axes[1, 0], axes[2, 0] = ux, uy, uz
    axes[0, 1], axes[1, 1], axes[2, 1] = bx, by, bz
    axes[0, 2], axes[1, 2], axes[2, 2] = nx, ny, nz
    return length, wx * ux + wy * uy + wz * uz, max(wx * bx + wy * by + wz * bz, 1e-12)


@numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
@no_type_check
def _move_triangles(bearing, faces, rest, posed, most, stretch, turn):
    n = bearing.shape[0]
    for chunk in numba.prange(_CHUNKS):
        before, after = np.empty((3, 3)), np.empty((3, 3))
        for i in range(chunk * n // _CHUNKS, (chunk + 1) * n // _CHUNKS):
            row = bearing[i]
            a, b, c = faces[row, 0], faces[row, 1], faces[row, 2]
            l0, p0, q0 = _frame(rest, a, b, c, before)
            l1, p1, q1 = _frame(posed, a, b, c, after)
            # plane to plane, upper triangular: takes the first edge to the first, the second to the second
            m00, m01, m11 = l1 / l0, (p1 - p0 * l1 / l0) / q0, q1 / q0
            # singular values of 2 x 2 in closed form: M = Rot(p) diag(s) Rot(q)
            e, f, g, h = (m00 + m11) / 2, (m00 - m11) / 2, m01 / 2, -m01 / 2
            large, small = np.hypot(e, h) + np.hypot(f, g), abs(np.hypot(e, h) - np.hypot(f, g))
            plus, minus = np.arctan2(h, e), np.arctan2(g, f)
            p, q = (minus + plus) / 2, (plus - minus) / 2
            large, small = min(max(large, 1 / most), most), min(max(small, 1 / most), most)
            cp, sp, cq, sq = np.cos(p), np.sin(p), np.cos(q), np.sin(q)
            s00, s01 = cp * large * cq - sp * small * sq, -cp * large * sq - sp * small * cq
            s10, s11 = sp * large * cq + cp * small * sq, -sp * large * sq + cp * small * cq
            ct, st = np.cos(p + q), np.sin(p + q)
            for r in range(3):
                f0, f1 = after[r, 0] * s00 + after[r, 1] * s10, after[r, 0] * s01 + after[r, 1] * s11
                r0, r1 = after[r, 0] * ct + after[r, 1] * st, -after[r, 0] * st + after[r, 1] * ct
                for k in range(3):
                    stretch[row, r, k] = f0 * before[k, 0] + f1 * before[k, 1] + after[r, 2] * before[k, 2]
                    turn[row, r, k] = r0 * before[k, 0] + r1 * before[k, 1] + after[r, 2] * before[k, 2]


@numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
@no_type_check
def _carry(
    means, quats, log_scales, triangle, barycentric, faces, rest, posed, stretch, turn, most,
    out_means, out_quats, out_scales, sh
):  # fmt: skip
    n = means.shape[0]
    for chunk in numba.prange(_CHUNKS):
        own, turned = np.empty((3, 3)), np.empty((3, 3))
        for i in range(chunk * n // _CHUNKS, (chunk + 1) * n // _CHUNKS):
            a, b, c = faces[triangle[i], 0], faces[triangle[i], 1], faces[triangle[i], 2]
            F, R = stretch[triangle[i]], turn[triangle[i]]
            w0, w1, w2 = barycentric[i, 0], barycentric[i, 1], barycentric[i, 2]
            dx = means[i, 0] - (w0 * rest[a, 0] + w1 * rest[b, 0] + w2 * rest[c, 0])
            dy = means[i, 1] - (w0 * rest[a, 1] + w1 * rest[b, 1] + w2 * rest[c, 1])
            dz = means[i, 2] - (w0 * rest[a, 2] + w1 * rest[b, 2] + w2 * rest[c, 2])
            for r in range(3):
                place = w0 * posed[a, r] + w1 * posed[b, r] + w2 * posed[c, r]
                out_means[i, r] = place + F[r, 0] * dx + F[r, 1] * dy + F[r, 2] * dz
            qw, qx, qy, qz = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
            norm = np.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
            qw, qx, qy, qz = qw / norm, qx / norm, qy / norm, qz / norm
            own[0, 0], own[0, 1], own[0, 2] = (
                1 - 2 * (qy * qy + qz * qz),
                2 * (qx * qy - qw * qz),
                2 * (qx * qz + qw * qy),
            )
            own[1, 0], own[1, 1], own[1, 2] = (
                2 * (qx * qy + qw * qz),
                1 - 2 * (qx * qx + qz * qz),
                2 * (qy * qz - qw * qx),
            )
            own[2, 0], own[2, 1], own[2, 2] = (
                2 * (qx * qz - qw * qy),
                2 * (qy * qz + qw * qx),
                1 - 2 * (qx * qx + qy * qy),
            )
            for k in range(3):
                length = 0.0
                for r in range(3):
                    along = F[r, 0] * own[0, k] + F[r, 1] * own[1, k] + F[r, 2] * own[2, k]
                    length += along * along
                    turned[r, k] = R[r, 0] * own[0, k] + R[r, 1] * own[1, k] + R[r, 2] * own[2, k]
                out_scales[i, k] = log_scales[i, k] + np.log(min(max(np.sqrt(length), 1 / most), most))
            _quat(turned, out_quats, i)
            if sh.shape[1] >= 3:  # degree 1 is v . direction with v = (-c2, -c0, c1)
                for colour in range(3):
                    vx, vy, vz = -sh[i, 2, colour], -sh[i, 0, colour], sh[i, 1, colour]
                    sh[i, 2, colour] = -(R[0, 0] * vx + R[0, 1] * vy + R[0, 2] * vz)
                    sh[i, 0, colour] = -(R[1, 0] * vx + R[1, 1] * vy + R[1, 2] * vz)
                    sh[i, 1, colour] = R[2, 0] * vx + R[2, 1] * vy + R[2, 2] * vz


@numba.njit(cache=True, nogil=True, inline="always")
@no_type_check
def _quat(m, out, i):
    """The unit quaternion of a rotation into row `i`: of four equal forms the one with the largest part.

    Source: Shepperd, "Quaternion from rotation matrix", 1978.
    """
    trace = m[0, 0] + m[1, 1] + m[2, 2]
    if trace > max(m[0, 0], m[1, 1], m[2, 2]):
        w, x, y, z = 1 + trace, m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    elif m[0, 0] >= m[1, 1] and m[0, 0] >= m[2, 2]:
        w, x = m[2, 1] - m[1, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2]
        y, z = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]
    elif m[1, 1] >= m[2, 2]:
        w, y = m[0, 2] - m[2, 0], 1 - m[0, 0] + m[1, 1] - m[2, 2]
        x, z = m[0, 1] + m[1, 0], m[1, 2] + m[2, 1]
    else:
        w, z = m[1, 0] - m[0, 1], 1 - m[0, 0] - m[1, 1] + m[2, 2]
        x, y = m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    size = np.sqrt(w * w + x * x + y * y + z * z)
    out[i, 0], out[i, 1], out[i, 2], out[i, 3] = w / size, x / size, y / size, z / size

"""numba kernels that take Gaussians from the world to the picture plane, and the gradients back.

One pass does what a chain of array operations would: pose, perspective, EWA covariance, anti-aliasing compensation and
spherical harmonics. All arithmetic is float64 in registers, storage is float32: the covariance of a flat splat seen
from the side cancels badly otherwise, and this stage is a few per cent of the time.

Work is cut into blocks of fixed length, so that neither vectorisation nor the number of threads can change a bit.

Source: Zwicker et al., "EWA Splatting", 2002, Eq. 23-31; Kerbl et al., "3D Gaussian Splatting", 2023, Sec. 4 and
App. A; Yu et al., "Mip-Splatting", 2024, Eq. 9 (compensation). The clamp of the Jacobian and the radius rule are those
of gsplat 1.4.0 (https://github.com/nerfstudio-project/gsplat, `fully_fused_projection_fwd.cu`).
"""

from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np

from ..spherical_harmonics import SH_C0, SH_C1, SH_C2, SH_C3

BLOCK = 256
"""Gaussians per parallel task."""
_C20, _C21, _C22 = SH_C2
_C30, _C31, _C32, _C33, _C34 = SH_C3


@numba.njit(cache=True)
@no_type_check
def _rotation_from_quaternion(w, x, y, z, R):
    """Rotation matrix of a unit quaternion."""
    R[0, 0], R[0, 1], R[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    R[1, 0], R[1, 1], R[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    R[2, 0], R[2, 1], R[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)


@numba.njit(cache=True)
@no_type_check
def _quaternion_gradient(w, x, y, z, inverse_norm, g, out):
    """Gradient of the raw quaternion from the gradient `g` of its rotation matrix; (w, x, y, z) is normalised."""
    gw = 2 * (x * (g[2, 1] - g[1, 2]) + y * (g[0, 2] - g[2, 0]) + z * (g[1, 0] - g[0, 1]))
    gx = 2 * (y * (g[0, 1] + g[1, 0]) + z * (g[0, 2] + g[2, 0]) + w * (g[2, 1] - g[1, 2]) - 2 * x * (g[1, 1] + g[2, 2]))
    gy = 2 * (x * (g[0, 1] + g[1, 0]) + z * (g[1, 2] + g[2, 1]) + w * (g[0, 2] - g[2, 0]) - 2 * y * (g[0, 0] + g[2, 2]))
    gz = 2 * (x * (g[0, 2] + g[2, 0]) + y * (g[1, 2] + g[2, 1]) + w * (g[1, 0] - g[0, 1]) - 2 * z * (g[0, 0] + g[1, 1]))
    along = gw * w + gx * x + gy * y + gz * z
    out[0], out[1] = (gw - along * w) * inverse_norm, (gx - along * x) * inverse_norm
    out[2], out[3] = (gy - along * y) * inverse_norm, (gz - along * z) * inverse_norm


@numba.njit(cache=True)
@no_type_check
def _sh_basis(degree, x, y, z, basis):
    """Basis functions at a unit direction."""
    basis[0] = SH_C0
    if degree >= 1:
        basis[1], basis[2], basis[3] = -SH_C1 * y, SH_C1 * z, -SH_C1 * x
    if degree >= 2:
        basis[4], basis[5], basis[6] = _C20 * x * y, -_C20 * y * z, _C21 * (3 * z * z - 1)
        basis[7], basis[8] = -_C20 * x * z, _C22 * (x * x - y * y)
    if degree >= 3:
        basis[9], basis[10] = -_C30 * y * (3 * x * x - y * y), _C31 * x * y * z
        basis[11], basis[12] = -_C32 * y * (5 * z * z - 1), _C33 * z * (5 * z * z - 3)
        basis[13], basis[14] = -_C32 * x * (5 * z * z - 1), _C34 * z * (x * x - y * y)
        basis[15] = -_C30 * x * (x * x - 3 * y * y)


@numba.njit(cache=True)
@no_type_check
def _sh_basis_jacobian(degree, x, y, z, d):
    """Partial derivatives `d[k, axis]` of the basis polynomials; the part along the direction is removed by callers."""
    d[:] = 0.0
    if degree >= 1:
        d[1, 1], d[2, 2], d[3, 0] = -SH_C1, SH_C1, -SH_C1
    if degree >= 2:
        d[4, 0], d[4, 1] = _C20 * y, _C20 * x
        d[5, 1], d[5, 2] = -_C20 * z, -_C20 * y
        d[6, 2] = 6 * _C21 * z
        d[7, 0], d[7, 2] = -_C20 * z, -_C20 * x
        d[8, 0], d[8, 1] = 2 * _C22 * x, -2 * _C22 * y
    if degree >= 3:
        d[9, 0], d[9, 1] = -6 * _C30 * x * y, -3 * _C30 * (x * x - y * y)
        d[10, 0], d[10, 1], d[10, 2] = _C31 * y * z, _C31 * x * z, _C31 * x * y
        d[11, 1], d[11, 2] = -_C32 * (5 * z * z - 1), -10 * _C32 * y * z
        d[12, 2] = _C33 * (15 * z * z - 3)
        d[13, 0], d[13, 2] = -_C32 * (5 * z * z - 1), -10 * _C32 * x * z
        d[14, 0], d[14, 1], d[14, 2] = 2 * _C34 * x * z, -2 * _C34 * y * z, _C34 * (x * x - y * y)
        d[15, 0], d[15, 1] = -3 * _C30 * (x * x - y * y), 6 * _C30 * x * y


@numba.njit(cache=True)
@no_type_check
def _clamped_slope(slope, focal, principal, size):
    """The slope x/z, kept within 1.3 half fields of view: beyond, the linearised perspective explodes."""
    margin = 0.15 * size / focal
    return min((size - principal) / focal + margin, max(-(principal / focal + margin), slope))


@numba.njit(cache=True)
@no_type_check
def _project_axes(W, R, scales, i, fx, fy, slope_x, slope_y, inverse_z, M, U):
    """The Gaussian's scaled axes in the camera frame (columns of `M`) and on the picture plane (columns of `U`)."""
    for j in range(3):
        for row in range(3):
            M[row, j] = (W[row, 0] * R[0, j] + W[row, 1] * R[1, j] + W[row, 2] * R[2, j]) * scales[i, j]
        U[0, j] = fx * inverse_z * (M[0, j] - slope_x * M[2, j])
        U[1, j] = fy * inverse_z * (M[1, j] - slope_y * M[2, j])


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def project_forward(
    means,
    quats,
    scales,
    opacities,
    colors,
    viewmats,
    Ks,
    positions,
    width,
    height,
    sh_degree,
    near_plane,
    eps2d,
    radius_clip,
    antialiased,
    radii,
    means2d,
    depths,
    conics,
    opacities2d,
    colors2d,
):
    """Fill the last six arrays, `[cameras, n, ...]`, which come in zeroed; culled Gaussians stay zero.

    `colors` is `[n, k, 3]`: coefficients for `sh_degree` >= 0, plain colours (k = 1) for -1. `positions` are the
    optical centres in the world.
    """
    n = means.shape[0]
    for block in numba.prange((n + BLOCK - 1) // BLOCK):
        R, M, U, basis = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3)), np.empty(16)
        for i in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            w, x, y, z = quats[i, 0] * 1.0, quats[i, 1] * 1.0, quats[i, 2] * 1.0, quats[i, 3] * 1.0
            inverse_norm = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
            _rotation_from_quaternion(w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm, R)
            for c in range(viewmats.shape[0]):
                W = viewmats[c]
                fx, fy, cx, cy = Ks[c, 0, 0], Ks[c, 1, 1], Ks[c, 0, 2], Ks[c, 1, 2]
                px = W[0, 0] * means[i, 0] + W[0, 1] * means[i, 1] + W[0, 2] * means[i, 2] + W[0, 3]
                py = W[1, 0] * means[i, 0] + W[1, 1] * means[i, 1] + W[1, 2] * means[i, 2] + W[1, 3]
                pz = W[2, 0] * means[i, 0] + W[2, 1] * means[i, 1] + W[2, 2] * means[i, 2] + W[2, 3]
                if not pz >= near_plane:
                    continue
                inverse_z = 1.0 / pz
                slope_x = _clamped_slope(px * inverse_z, fx, cx, width)
                slope_y = _clamped_slope(py * inverse_z, fy, cy, height)
                _project_axes(W, R, scales, i, fx, fy, slope_x, slope_y, inverse_z, M, U)
                a = U[0, 0] ** 2 + U[0, 1] ** 2 + U[0, 2] ** 2
                b = U[0, 0] * U[1, 0] + U[0, 1] * U[1, 1] + U[0, 2] * U[1, 2]
                d = U[1, 0] ** 2 + U[1, 1] ** 2 + U[1, 2] ** 2
                det_sharp = max(0.0, a * d - b * b)
                a += eps2d
                d += eps2d
                det = a * d - b * b
                if not det > 0.0:
                    continue
                half_trace = 0.5 * (a + d)
                radius = math.ceil(3.0 * math.sqrt(half_trace + math.sqrt(max(0.01, half_trace * half_trace - det))))
                u, v = fx * px * inverse_z + cx, fy * py * inverse_z + cy
                inside = u + radius > 0 and u - radius < width and v + radius > 0 and v - radius < height
                if not (radius > radius_clip and inside):
                    continue
                radii[c, i] = np.int32(min(radius, 1e9))
                means2d[c, i, 0], means2d[c, i, 1] = u, v
                depths[c, i] = pz
                conics[c, i, 0], conics[c, i, 1], conics[c, i, 2] = d / det, -b / det, a / det
                opacities2d[c, i] = opacities[i] * (math.sqrt(det_sharp / det) if antialiased else 1.0)
                if sh_degree < 0:
                    for channel in range(3):
                        colors2d[c, i, channel] = colors[i, 0, channel]
                    continue
                dx, dy, dz = means[i, 0] - positions[c, 0], means[i, 1] - positions[c, 1], means[i, 2] - positions[c, 2]
                inverse_length = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
                _sh_basis(sh_degree, dx * inverse_length, dy * inverse_length, dz * inverse_length, basis)
                for channel in range(3):
                    value = 0.5
                    for k in range((sh_degree + 1) * (sh_degree + 1)):
                        value += basis[k] * colors[i, k, channel]
                    colors2d[c, i, channel] = max(0.0, value)


@numba.njit(cache=True, parallel=True, error_model="numpy")
@no_type_check
def project_backward(
    means,
    quats,
    scales,
    opacities,
    colors,
    viewmats,
    Ks,
    positions,
    width,
    height,
    sh_degree,
    eps2d,
    antialiased,
    radii,
    colors2d,
    g_means2d,
    g_depths,
    g_conics,
    g_opacities2d,
    g_colors2d,
    g_means,
    g_quats,
    g_scales,
    g_opacities,
    g_colors,
):
    """Fill the last five arrays, the gradients of the inputs summed over cameras, which come in zeroed."""
    n = means.shape[0]
    for block in numba.prange((n + BLOCK - 1) // BLOCK):
        R, M, U = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
        basis, jacobian = np.empty(16), np.empty((16, 3))
        g_R, g_quat, g_mean, g_scale, g_p, g_dir = (
            np.empty((3, 3)),
            np.empty(4),
            np.empty(3),
            np.empty(3),
            np.empty(3),
            np.empty(3),
        )
        g_sh = np.empty((16, 3))
        for i in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            w, x, y, z = quats[i, 0] * 1.0, quats[i, 1] * 1.0, quats[i, 2] * 1.0, quats[i, 3] * 1.0
            inverse_norm = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
            w, x, y, z = w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm
            _rotation_from_quaternion(w, x, y, z, R)
            g_R[:] = 0.0
            g_mean[:] = 0.0
            g_scale[:] = 0.0
            g_sh[:] = 0.0
            g_opacity = 0.0
            seen = False
            for c in range(viewmats.shape[0]):
                if radii[c, i] == 0:
                    continue
                seen = True
                W = viewmats[c]
                fx, fy, cx, cy = Ks[c, 0, 0], Ks[c, 1, 1], Ks[c, 0, 2], Ks[c, 1, 2]
                px = W[0, 0] * means[i, 0] + W[0, 1] * means[i, 1] + W[0, 2] * means[i, 2] + W[0, 3]
                py = W[1, 0] * means[i, 0] + W[1, 1] * means[i, 1] + W[1, 2] * means[i, 2] + W[1, 3]
                pz = W[2, 0] * means[i, 0] + W[2, 1] * means[i, 1] + W[2, 2] * means[i, 2] + W[2, 3]
                inverse_z = 1.0 / pz
                slope_x = _clamped_slope(px * inverse_z, fx, cx, width)
                slope_y = _clamped_slope(py * inverse_z, fy, cy, height)
                _project_axes(W, R, scales, i, fx, fy, slope_x, slope_y, inverse_z, M, U)
                a_sharp = U[0, 0] ** 2 + U[0, 1] ** 2 + U[0, 2] ** 2
                b = U[0, 0] * U[1, 0] + U[0, 1] * U[1, 1] + U[0, 2] * U[1, 2]
                d_sharp = U[1, 0] ** 2 + U[1, 1] ** 2 + U[1, 2] ** 2
                a, d = a_sharp + eps2d, d_sharp + eps2d
                inverse_det = 1.0 / (a * d - b * b)

                # conic = inverse of [[a, b], [b, d]]
                A, B, C = d * inverse_det, -b * inverse_det, a * inverse_det
                gA, gB, gC = g_conics[c, i, 0] * 1.0, g_conics[c, i, 1] * 1.0, g_conics[c, i, 2] * 1.0
                g_a = -(A * A * gA + A * B * gB + B * B * gC)
                g_b = -(2 * A * B * gA + (A * C + B * B) * gB + 2 * B * C * gC)
                g_d = -(B * B * gA + B * C * gB + C * C * gC)
                if antialiased:
                    ratio = max(0.0, a_sharp * d_sharp - b * b) * inverse_det
                    compensation = math.sqrt(ratio)
                    g_opacity += g_opacities2d[c, i] * compensation
                    g_ratio = g_opacities2d[c, i] * opacities[i] * 0.5 / (compensation + 1e-6)
                    g_a += g_ratio * (d_sharp * inverse_det - ratio * A)
                    g_b += g_ratio * (2 * b * inverse_det) * (ratio - 1.0)
                    g_d += g_ratio * (a_sharp * inverse_det - ratio * C)
                else:
                    g_opacity += g_opacities2d[c, i]

                # covariance = U U^T, U = J M, J = [[jx, 0, -jx slope_x], [0, jy, -jy slope_y]]
                jx, jy = fx * inverse_z, fy * inverse_z
                g_jx = g_jy = g_kx = g_ky = 0.0  # of jx, jy and of the third column
                for j in range(3):
                    gu = 2 * g_a * U[0, j] + g_b * U[1, j]
                    gv = g_b * U[0, j] + 2 * g_d * U[1, j]
                    g_jx += gu * M[0, j]
                    g_kx += gu * M[2, j]
                    g_jy += gv * M[1, j]
                    g_ky += gv * M[2, j]
                    g0, g1, g2 = gu * jx, gv * jy, -(gu * jx * slope_x + gv * jy * slope_y)
                    for row in range(3):
                        g = W[0, row] * g0 + W[1, row] * g1 + W[2, row] * g2
                        g_R[row, j] += g * scales[i, j]
                        g_scale[j] += g * R[row, j]

                gu, gv = g_means2d[c, i, 0] * 1.0, g_means2d[c, i, 1] * 1.0
                g_p[0], g_p[1] = jx * gu, jy * gv
                g_p[2] = g_depths[c, i] - (jx * px * gu + jy * py * gv) * inverse_z
                g_p[2] -= (jx * g_jx + jy * g_jy) * inverse_z
                if slope_x == px * inverse_z:
                    g_p[0] -= jx * inverse_z * g_kx
                    g_p[2] += 2 * jx * slope_x * inverse_z * g_kx
                else:
                    g_p[2] += jx * slope_x * inverse_z * g_kx
                if slope_y == py * inverse_z:
                    g_p[1] -= jy * inverse_z * g_ky
                    g_p[2] += 2 * jy * slope_y * inverse_z * g_ky
                else:
                    g_p[2] += jy * slope_y * inverse_z * g_ky
                for axis in range(3):
                    g_mean[axis] += W[0, axis] * g_p[0] + W[1, axis] * g_p[1] + W[2, axis] * g_p[2]

                if sh_degree < 0:
                    for channel in range(3):
                        g_sh[0, channel] += g_colors2d[c, i, channel]
                    continue
                dx, dy, dz = means[i, 0] - positions[c, 0], means[i, 1] - positions[c, 1], means[i, 2] - positions[c, 2]
                inverse_length = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
                dx, dy, dz = dx * inverse_length, dy * inverse_length, dz * inverse_length
                _sh_basis(sh_degree, dx, dy, dz, basis)
                _sh_basis_jacobian(sh_degree, dx, dy, dz, jacobian)
                g_dir[:] = 0.0
                for channel in range(3):
                    if not colors2d[c, i, channel] > 0.0:  # clamped
                        continue
                    g = g_colors2d[c, i, channel] * 1.0
                    for k in range((sh_degree + 1) * (sh_degree + 1)):
                        g_sh[k, channel] += g * basis[k]
                        for axis in range(3):
                            g_dir[axis] += g * colors[i, k, channel] * jacobian[k, axis]
                along = g_dir[0] * dx + g_dir[1] * dy + g_dir[2] * dz
                g_mean[0] += (g_dir[0] - along * dx) * inverse_length
                g_mean[1] += (g_dir[1] - along * dy) * inverse_length
                g_mean[2] += (g_dir[2] - along * dz) * inverse_length

            if seen:
                _quaternion_gradient(w, x, y, z, inverse_norm, g_R, g_quat)
                g_opacities[i] = g_opacity
                for j in range(4):
                    g_quats[i, j] = g_quat[j]
                for j in range(3):
                    g_means[i, j], g_scales[i, j] = g_mean[j], g_scale[j]
                for k in range((max(sh_degree, 0) + 1) ** 2):
                    for channel in range(3):
                        g_colors[i, k, channel] = g_sh[k, channel]

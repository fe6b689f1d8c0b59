"""numba kernels that take Gaussians from the world to the picture plane, and the gradients back.

One pass does what a chain of array operations would: activations, pose, perspective, EWA covariance, anti-aliasing
compensation and spherical harmonics. All arithmetic is float64 in registers, storage is float32: the covariance of a
flat splat seen from the side cancels badly otherwise, and this stage is a few per cent of the time.

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
from .kernels import Kernel
from .records import (
    DEPTH,
    HALF_A,
    HALF_C,
    LOG2_E,
    LOG2_OPACITY,
    OPACITY,
    REACH_X,
    REACH_Y,
    RED,
    RISE,
    SLANT,
    SUMMIT,
    B,
    U,
    V,
)
from .simd import next_index

BLOCK = 256
"""Gaussians per parallel task."""
_C20, _C21, _C22 = SH_C2
_C30, _C31, _C32, _C33, _C34 = SH_C3
_LOG2_255 = math.log2(255)
_LARGEST = 3e38  # float32 ends here


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _dot(a, b):
    """Scalar product of two triples."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _sum(a, x, b, y):
    """The triple a x + b y, with triples x and y."""
    return a * x[0] + b * y[0], a * x[1] + b * y[1], a * x[2] + b * y[2]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _cross(a, b):
    """Vector product of two triples."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _optical_centre(W):
    """The point of the world that a matrix to camera from world takes to the origin."""
    W0, W1, W2 = (W[0, 0], W[0, 1], W[0, 2]), (W[1, 0], W[1, 1], W[1, 2]), (W[2, 0], W[2, 1], W[2, 2])
    first, second, third = _cross(W1, W2), _cross(W2, W0), _cross(W0, W1)
    scale = -1.0 / _dot(W0, first)
    return _sum(1.0, _sum(scale * W[0, 3], first, scale * W[1, 3], second), scale * W[2, 3], third)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _columns_of_rotation(w, x, y, z):
    """The three columns of the rotation matrix of a unit quaternion."""
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    )


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _quaternion_gradient(w, x, y, z, inverse_norm, a, b, c):
    """Gradient of the raw quaternion, from those of the columns of its matrix; (w, x, y, z) is normalised."""
    gw = 2 * (x * (b[2] - c[1]) + y * (c[0] - a[2]) + z * (a[1] - b[0]))
    gx = 2 * (y * (b[0] + a[1]) + z * (c[0] + a[2]) + w * (b[2] - c[1]) - 2 * x * (b[1] + c[2]))
    gy = 2 * (x * (b[0] + a[1]) + z * (c[1] + b[2]) + w * (c[0] - a[2]) - 2 * y * (a[0] + c[2]))
    gz = 2 * (x * (c[0] + a[2]) + y * (c[1] + b[2]) + w * (a[1] - b[0]) - 2 * z * (a[0] + b[1]))
    along = gw * w + gx * x + gy * y + gz * z
    return (
        (gw - along * w) * inverse_norm,
        (gx - along * x) * inverse_norm,
        (gy - along * y) * inverse_norm,
        (gz - along * z) * inverse_norm,
    )


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _sh_basis(degree, x, y, z, basis):
    """Basis functions at a unit direction, without the constant: basis[k - 1] is number k."""
    if degree >= 1:
        basis[0], basis[1], basis[2] = -SH_C1 * y, SH_C1 * z, -SH_C1 * x
    if degree >= 2:
        basis[3], basis[4], basis[5] = _C20 * x * y, -_C20 * y * z, _C21 * (3 * z * z - 1)
        basis[6], basis[7] = -_C20 * x * z, _C22 * (x * x - y * y)
    if degree >= 3:
        basis[8], basis[9] = -_C30 * y * (3 * x * x - y * y), _C31 * x * y * z
        basis[10], basis[11] = -_C32 * y * (5 * z * z - 1), _C33 * z * (5 * z * z - 3)
        basis[12], basis[13] = -_C32 * x * (5 * z * z - 1), _C34 * z * (x * x - y * y)
        basis[14] = -_C30 * x * (x * x - 3 * y * y)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _sh_gradient(degree, x, y, z, s):
    """Gradient in the direction of sum_k s[k - 1] basis_k as polynomials; the part along it is removed by callers."""
    gx = gy = gz = 0.0
    if degree >= 1:
        gx, gy, gz = -SH_C1 * s[2], -SH_C1 * s[0], SH_C1 * s[1]
    if degree >= 2:
        gx += _C20 * (y * s[3] - z * s[6]) + 2 * _C22 * x * s[7]
        gy += _C20 * (x * s[3] - z * s[4]) - 2 * _C22 * y * s[7]
        gz += _C20 * (-y * s[4] - x * s[6]) + 6 * _C21 * z * s[5]
    if degree >= 3:
        gx += -6 * _C30 * x * y * s[8] + _C31 * y * z * s[9] - _C32 * (5 * z * z - 1) * s[12]
        gx += 2 * _C34 * x * z * s[13] - 3 * _C30 * (x * x - y * y) * s[14]
        gy += -3 * _C30 * (x * x - y * y) * s[8] + _C31 * x * z * s[9] - _C32 * (5 * z * z - 1) * s[10]
        gy += -2 * _C34 * y * z * s[13] + 6 * _C30 * x * y * s[14]
        gz += _C31 * x * y * s[9] - 10 * _C32 * y * z * s[10] + _C33 * (15 * z * z - 3) * s[11]
        gz += -10 * _C32 * x * z * s[12] + _C34 * (x * x - y * y) * s[13]
    return gx, gy, gz


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _activated(log_scales, opacity_logits, i):
    """Standard deviations and opacity of Gaussian `i`."""
    # in float32: several times faster, and what torch would do
    a, b, c = math.exp(log_scales[i, 0]), math.exp(log_scales[i, 1]), math.exp(log_scales[i, 2])
    return float(a), float(b), float(c), 1.0 / (1.0 + math.exp(-opacity_logits[i]))


@Kernel
@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def project_forward(
    counter,
    means,
    quats,
    log_scales,
    opacity_logits,
    sh0,
    sh_rest,
    viewmats,
    lenses,
    limits,
    width,
    height,
    sh_degree,
    near_plane,
    eps2d,
    antialiased,
    radii,
    means2d,
    records,
    first_bad,
):
    """Fill `radii` [cameras, n], `means2d` [cameras, n, 2] and `records` [cameras, n, 16]; zero where not shown.

    `lenses` holds fx, fy, cx, cy per camera, `limits` the smallest and largest slopes x/z and y/z. `first_bad` receives
    for every block of Gaussians the first with an input that is not finite or no rotation, -1 if there is none.
    """
    basis = np.empty(15)
    rest_count = (sh_degree + 1) * (sh_degree + 1) - 1
    while True:
        block = next_index(counter)
        if block * BLOCK >= means.shape[0]:
            return
        first_bad[block] = -1
        for i in range(np.uint64(block * BLOCK), np.uint64(min(means.shape[0], (block + 1) * BLOCK))):
            w, x, y, z = float(quats[i, 0]), float(quats[i, 1]), float(quats[i, 2]), float(quats[i, 3])
            squared_norm = w * w + x * x + y * y + z * z
            inverse_norm = 1.0 / math.sqrt(squared_norm)
            R0, R1, R2 = _columns_of_rotation(w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm)
            mean = (float(means[i, 0]), float(means[i, 1]), float(means[i, 2]))
            s0, s1, s2, opacity = _activated(log_scales, opacity_logits, i)
            check = mean[0] + mean[1] + mean[2] + opacity_logits[i]
            for channel in range(3):
                check += log_scales[i, channel] + sh0[i, channel]
                for k in range(rest_count):
                    check += sh_rest[i, k, channel]
            fine = abs(check) < _LARGEST and squared_norm > 0 and max(s0, s1, s2, squared_norm) < _LARGEST
            if not fine and first_bad[block] < 0:
                first_bad[block] = np.int64(i)
            for c in range(viewmats.shape[0]):
                radii[c, i] = 0
                means2d[c, i, 0], means2d[c, i, 1] = 0.0, 0.0
                records[c, i, REACH_X] = -1.0
                W = viewmats[c]
                W0, W1, W2 = (W[0, 0], W[0, 1], W[0, 2]), (W[1, 0], W[1, 1], W[1, 2]), (W[2, 0], W[2, 1], W[2, 2])
                fx, fy, cx, cy = lenses[c, 0], lenses[c, 1], lenses[c, 2], lenses[c, 3]
                pz = _dot(W2, mean) + W[2, 3]
                if not pz >= near_plane or not fine:
                    continue
                px, py, inverse_z = _dot(W0, mean) + W[0, 3], _dot(W1, mean) + W[1, 3], 1.0 / pz
                slope_x = min(limits[c, 0, 1], max(limits[c, 0, 0], px * inverse_z))
                slope_y = min(limits[c, 1, 1], max(limits[c, 1, 0], py * inverse_z))
                jx, jy = fx * inverse_z, fy * inverse_z
                t_x, t_y = _sum(jx, W0, -jx * slope_x, W2), _sum(jy, W1, -jy * slope_y, W2)
                x0, x1, x2 = _dot(t_x, R0) * s0, _dot(t_x, R1) * s1, _dot(t_x, R2) * s2
                y0, y1, y2 = _dot(t_y, R0) * s0, _dot(t_y, R1) * s1, _dot(t_y, R2) * s2
                a, b, d = x0 * x0 + x1 * x1 + x2 * x2, x0 * y0 + x1 * y1 + x2 * y2, y0 * y0 + y1 * y1 + y2 * y2
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
                if not inside:
                    continue
                radii[c, i] = np.int32(min(radius, 1e9))
                means2d[c, i, 0], means2d[c, i, 1] = u, v
                record = records[c, i]
                shown_opacity = opacity * (math.sqrt(det_sharp / det) if antialiased else 1.0)
                inverse_det = LOG2_E / det
                record[U], record[V] = u, v
                record[HALF_A], record[HALF_C] = 0.5 * d * inverse_det, 0.5 * a * inverse_det
                record[B] = -b * inverse_det
                record[OPACITY], record[DEPTH] = shown_opacity, pz
                # sigma <= log(255 opacity) is an ellipse; it is taken a hair larger against rounding
                if np.float32(shown_opacity) >= np.float32(1 / 255):
                    power = math.log2(shown_opacity)
                    twice_sigma = (2.0 / LOG2_E) * (power + _LOG2_255) * 1.0001 + 2e-4
                    record[LOG2_OPACITY] = power
                    reach_y = math.sqrt(twice_sigma * d)
                    record[REACH_X], record[REACH_Y] = math.sqrt(twice_sigma * a), reach_y
                    record[SLANT], record[RISE] = b / a, math.sqrt(twice_sigma * det / a)
                    record[SUMMIT] = twice_sigma * b / reach_y

                dx, dy, dz = _sum(1.0, mean, -1.0, _optical_centre(W))
                inverse_length = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
                _sh_basis(sh_degree, dx * inverse_length, dy * inverse_length, dz * inverse_length, basis)
                for channel in range(3):
                    value = 0.5 + SH_C0 * sh0[i, channel]
                    for k in range(rest_count):
                        value += basis[k] * sh_rest[i, k, channel]
                    record[RED + channel] = max(0.0, value)


@Kernel
@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def project_backward(
    counter,
    means,
    quats,
    log_scales,
    opacity_logits,
    sh_rest,
    viewmats,
    lenses,
    limits,
    sh_degree,
    eps2d,
    antialiased,
    radii,
    records,
    g_means2d,
    g_records,
    g_means,
    g_quats,
    g_log_scales,
    g_opacity_logits,
    g_sh0,
    g_sh_rest,
):
    """Fill the last six arrays, the gradients of the inputs summed over cameras.

    `g_records` holds in its columns the gradients of A, B and C of the conic, opacity, colour and depth.
    """
    basis, pulls = np.empty(15), np.empty(15)
    rest_count = (sh_degree + 1) * (sh_degree + 1) - 1
    while True:
        block = next_index(counter)
        if block * BLOCK >= means.shape[0]:
            return
        for i in range(np.uint64(block * BLOCK), np.uint64(min(means.shape[0], (block + 1) * BLOCK))):
            g_sh0[i], g_sh_rest[i] = 0.0, 0.0
            w, x, y, z = float(quats[i, 0]), float(quats[i, 1]), float(quats[i, 2]), float(quats[i, 3])
            inverse_norm = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
            w, x, y, z = w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm
            R0, R1, R2 = _columns_of_rotation(w, x, y, z)
            mean = (float(means[i, 0]), float(means[i, 1]), float(means[i, 2]))
            s0, s1, s2, opacity = _activated(log_scales, opacity_logits, i)
            g_mean, g_opacity, g_s0, g_s1, g_s2 = (0.0, 0.0, 0.0), 0.0, 0.0, 0.0, 0.0
            G0, G1, G2 = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)  # of the rotation's columns
            for c in range(viewmats.shape[0]):
                if radii[c, i] == 0:
                    continue
                W = viewmats[c]
                W0, W1, W2 = (W[0, 0], W[0, 1], W[0, 2]), (W[1, 0], W[1, 1], W[1, 2]), (W[2, 0], W[2, 1], W[2, 2])
                fx, fy = lenses[c, 0], lenses[c, 1]
                px, py, pz = _dot(W0, mean) + W[0, 3], _dot(W1, mean) + W[1, 3], _dot(W2, mean) + W[2, 3]
                inverse_z = 1.0 / pz
                slope_x = min(limits[c, 0, 1], max(limits[c, 0, 0], px * inverse_z))
                slope_y = min(limits[c, 1, 1], max(limits[c, 1, 0], py * inverse_z))
                jx, jy = fx * inverse_z, fy * inverse_z
                ray_x, ray_y = _sum(1.0, W0, -slope_x, W2), _sum(1.0, W1, -slope_y, W2)
                t_x, t_y = _sum(jx, ray_x, 0.0, W2), _sum(jy, ray_y, 0.0, W2)
                x0, x1, x2 = _dot(t_x, R0), _dot(t_x, R1), _dot(t_x, R2)
                y0, y1, y2 = _dot(t_y, R0), _dot(t_y, R1), _dot(t_y, R2)
                a_sharp = (x0 * s0) ** 2 + (x1 * s1) ** 2 + (x2 * s2) ** 2
                b = x0 * y0 * s0 * s0 + x1 * y1 * s1 * s1 + x2 * y2 * s2 * s2
                d_sharp = (y0 * s0) ** 2 + (y1 * s1) ** 2 + (y2 * s2) ** 2
                a, d = a_sharp + eps2d, d_sharp + eps2d
                inverse_det = 1.0 / (a * d - b * b)
                g_record = g_records[c, i]

                # conic = inverse of [[a, b], [b, d]]
                A, B1, C = d * inverse_det, -b * inverse_det, a * inverse_det
                gA, gB, gC = float(g_record[HALF_A]), float(g_record[B]), float(g_record[HALF_C])
                g_a = -(A * A * gA + A * B1 * gB + B1 * B1 * gC)
                g_b = -(2 * A * B1 * gA + (A * C + B1 * B1) * gB + 2 * B1 * C * gC)
                g_d = -(B1 * B1 * gA + B1 * C * gB + C * C * gC)
                g_shown = float(g_record[OPACITY])
                if antialiased:
                    ratio = max(0.0, a_sharp * d_sharp - b * b) * inverse_det
                    compensation = math.sqrt(ratio)
                    g_opacity += g_shown * compensation
                    g_ratio = g_shown * opacity * 0.5 / (compensation + 1e-6)
                    g_a += g_ratio * (d_sharp * inverse_det - ratio * A)
                    g_b += g_ratio * (2 * b * inverse_det) * (ratio - 1.0)
                    g_d += g_ratio * (a_sharp * inverse_det - ratio * C)
                else:
                    g_opacity += g_shown

                # covariance = U U^T, U = [t_x, t_y]^T R S, t_x = jx (W0 - slope_x W2), t_y likewise
                p0, q0 = (2 * g_a * x0 + g_b * y0) * s0, (g_b * x0 + 2 * g_d * y0) * s0
                p1, q1 = (2 * g_a * x1 + g_b * y1) * s1, (g_b * x1 + 2 * g_d * y1) * s1
                p2, q2 = (2 * g_a * x2 + g_b * y2) * s2, (g_b * x2 + 2 * g_d * y2) * s2
                g_s0 += p0 * x0 + q0 * y0
                g_s1 += p1 * x1 + q1 * y1
                g_s2 += p2 * x2 + q2 * y2
                p0, p1, p2, q0, q1, q2 = p0 * s0, p1 * s1, p2 * s2, q0 * s0, q1 * s1, q2 * s2
                G0 = _sum(1.0, G0, 1.0, _sum(p0, t_x, q0, t_y))
                G1 = _sum(1.0, G1, 1.0, _sum(p1, t_x, q1, t_y))
                G2 = _sum(1.0, G2, 1.0, _sum(p2, t_x, q2, t_y))
                g_t_x = _sum(1.0, _sum(p0, R0, p1, R1), p2, R2)
                g_t_y = _sum(1.0, _sum(q0, R0, q1, R1), q2, R2)
                g_slope_x, g_slope_y = -jx * _dot(W2, g_t_x), -jy * _dot(W2, g_t_y)

                gu, gv = float(g_means2d[c, i, 0]), float(g_means2d[c, i, 1])
                g_px, g_py = jx * gu, jy * gv
                g_pz = g_record[DEPTH] - (jx * px * gu + jy * py * gv) * inverse_z
                g_pz -= (jx * _dot(ray_x, g_t_x) + jy * _dot(ray_y, g_t_y)) * inverse_z
                if slope_x == px * inverse_z:
                    g_px += g_slope_x * inverse_z
                    g_pz -= g_slope_x * slope_x * inverse_z
                if slope_y == py * inverse_z:
                    g_py += g_slope_y * inverse_z
                    g_pz -= g_slope_y * slope_y * inverse_z
                g_mean = _sum(1.0, g_mean, 1.0, _sum(1.0, _sum(g_px, W0, g_py, W1), g_pz, W2))

                dx, dy, dz = _sum(1.0, mean, -1.0, _optical_centre(W))
                inverse_length = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
                dx, dy, dz = dx * inverse_length, dy * inverse_length, dz * inverse_length
                _sh_basis(sh_degree, dx, dy, dz, basis)
                pulls[:] = 0.0
                for channel in range(3):
                    pull = float(g_record[RED + channel]) if records[c, i, RED + channel] > 0.0 else 0.0  # clamped
                    g_sh0[i, channel] += SH_C0 * pull
                    for k in range(rest_count):
                        pulls[k] += pull * sh_rest[i, k, channel]
                        g_sh_rest[i, k, channel] += pull * basis[k]
                g_dir = _sh_gradient(sh_degree, dx, dy, dz, pulls)
                along = _dot(g_dir, (dx, dy, dz))
                g_dir = _sum(inverse_length, g_dir, -along * inverse_length, (dx, dy, dz))
                g_mean = _sum(1.0, g_mean, 1.0, g_dir)

            g_quat = _quaternion_gradient(w, x, y, z, inverse_norm, G0, G1, G2)
            g_means[i, 0], g_means[i, 1], g_means[i, 2] = g_mean[0], g_mean[1], g_mean[2]
            g_log_scales[i, 0], g_log_scales[i, 1], g_log_scales[i, 2] = g_s0 * s0, g_s1 * s1, g_s2 * s2
            g_quats[i, 0], g_quats[i, 1], g_quats[i, 2], g_quats[i, 3] = g_quat[0], g_quat[1], g_quat[2], g_quat[3]
            g_opacity_logits[i] = g_opacity * opacity * (1.0 - opacity)

"""Compiled inner loops of the renderer: depth lists, shading and compositing of one picture, band by band."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

from ...row_bands import BAND_ROWS
from ..parts import Label

LAYERS = 8
"""Half-clear surfaces kept per sample in front of the nearest solid one."""
LABEL_COUNT = len(Label)
SOLID = 0.97
"""Opacity above which a half-clear surface counts as solid."""
CLEAR = 0.015
"""Opacity below which it counts as nothing."""
THROUGH = 0.02
"""Light that may pass to the eye from what lies still deeper; less is left out."""
_DONE = 0.04
"""Light that may pass all layers of a sample before what lies behind them is left out."""


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
@no_type_check
def _texel(texels, layout_row, u, v, first, out):
    """Bilinear premultiplied colour and opacity, channels from `first` on, at a repeating texture position."""
    begin, height, width = layout_row[0], layout_row[1], layout_row[2]
    x = (u - np.floor(u)) * width - 0.5
    y = (v - np.floor(v)) * height - 0.5
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - x0, y - y0
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    x0, y0 = max(x0, 0), max(y0, 0)
    a, b = begin + y0 * width + x0, begin + y0 * width + x1
    c, d = begin + y1 * width + x0, begin + y1 * width + x1
    for k in range(first, 4):
        top = texels[a, k] * (1.0 - fx) + texels[b, k] * fx
        bottom = texels[c, k] * (1.0 - fx) + texels[d, k] * fx
        out[k] = top * (1.0 - fy) + bottom * fy


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _collect(screen, faces, f, uv, faces_uv, layout_row, texels, row_begin, row_end, width,
             solid_depth, solid_face, layer_depth, layer_face, layer_alpha, layer_count, layer_through,
             texel):  # fmt: skip
    """Depth-test one triangle; half-clear samples go into the sorted list of their sample."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay, az = screen[a, 0], screen[a, 1], screen[a, 2]
    bx, by, bz = screen[b, 0], screen[b, 1], screen[b, 2]
    cx, cy, cz = screen[c, 0], screen[c, 1], screen[c, 2]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area == 0.0:
        return
    per_area = 1.0 / area
    half_clear = layout_row[3] == 1
    ta, tb, tc = faces_uv[f, 0], faces_uv[f, 1], faces_uv[f, 2]
    x_begin = int(max(np.ceil(max(min(ax, bx, cx), -1e7) - 0.5), 0.0))
    x_end = int(min(np.floor(min(max(ax, bx, cx), 1e7) - 0.5) + 1.0, width))
    y_begin = int(max(np.ceil(max(min(ay, by, cy), -1e7) - 0.5), row_begin))
    y_end = int(min(np.floor(min(max(ay, by, cy), 1e7) - 0.5) + 1.0, row_end))
    for y in range(y_begin, y_end):
        row = y - row_begin
        for x in range(x_begin, x_end):
            px, py = x + 0.5, y + 0.5
            wa = ((cx - bx) * (py - by) - (cy - by) * (px - bx)) * per_area
            wb = ((ax - cx) * (py - cy) - (ay - cy) * (px - cx)) * per_area
            wc = ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) * per_area
            if wa < 0.0 or wb < 0.0 or wc < 0.0:
                continue
            wa, wb, wc = wa * az, wb * bz, wc * cz
            inverse_depth = wa + wb + wc
            if inverse_depth <= solid_depth[row, x]:
                continue
            if not half_clear:
                solid_depth[row, x] = inverse_depth
                solid_face[row, x] = f
                continue
            count = layer_count[row, x]
            if count > 0 and inverse_depth <= layer_depth[row, x, count - 1]:
                if count == LAYERS or layer_through[row, x] < _DONE:
                    continue
            u = (wa * uv[ta, 0] + wb * uv[tb, 0] + wc * uv[tc, 0]) / inverse_depth
            v = (wa * uv[ta, 1] + wb * uv[tb, 1] + wc * uv[tc, 1]) / inverse_depth
            _texel(texels, layout_row, u, v, 3, texel)
            opacity = texel[3]
            if opacity < CLEAR:
                continue
            if opacity > SOLID:
                solid_depth[row, x] = inverse_depth
                solid_face[row, x] = f
                continue
            if count == LAYERS:
                count -= 1
            layer_through[row, x] *= 1.0 - opacity
            place = count
            while place > 0 and layer_depth[row, x, place - 1] < inverse_depth:
                layer_depth[row, x, place] = layer_depth[row, x, place - 1]
                layer_face[row, x, place] = layer_face[row, x, place - 1]
                layer_alpha[row, x, place] = layer_alpha[row, x, place - 1]
                place -= 1
            layer_depth[row, x, place] = inverse_depth
            layer_face[row, x, place] = f
            layer_alpha[row, x, place] = opacity
            layer_count[row, x] = count + 1


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
@no_type_check
def _shade(f, px, py, screen, vertices, normals, tangents, faces, uv, faces_uv, layout_row, specular, texels,
           label_texels, sky, sun_seen, camera, sun, sun_rgb, style, texel, out):  # fmt: skip
    """Linear colour [0:3], opacity [3], depth [4], normal [5:8] of one surface at one sample; returns its label.

    `out[8:11]` is room for the light.

    Diffuse light wraps a little round edges (Green, "Real-Time Approximations to Subsurface Scattering", GPU Gems
    2004, Sec. 16.2); highlights are Blinn-Phong's, on fibres those of Kajiya and Kay (1989).
    """
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay = screen[a, 0] - px, screen[a, 1] - py
    bx, by = screen[b, 0] - px, screen[b, 1] - py
    cx, cy = screen[c, 0] - px, screen[c, 1] - py
    wa = (bx * cy - by * cx) * screen[a, 2]
    wb = (cx * ay - cy * ax) * screen[b, 2]
    wc = (ax * by - ay * bx) * screen[c, 2]
    scale = 1.0 / (wa + wb + wc)
    wa, wb, wc = wa * scale, wb * scale, wc * scale
    out[4] = wa / screen[a, 2] + wb / screen[b, 2] + wc / screen[c, 2]
    ta, tb, tc = faces_uv[f, 0], faces_uv[f, 1], faces_uv[f, 2]
    u = wa * uv[ta, 0] + wb * uv[tb, 0] + wc * uv[tc, 0]
    v = wa * uv[ta, 1] + wb * uv[tb, 1] + wc * uv[tc, 1]
    _texel(texels, layout_row, u, v, 0, texel)
    nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
    ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
    nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
    length = max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
    nx, ny, nz = nx / length, ny / length, nz / length
    ex = camera[0] - (wa * vertices[a, 0] + wb * vertices[b, 0] + wc * vertices[c, 0])
    ey = camera[1] - (wa * vertices[a, 1] + wb * vertices[b, 1] + wc * vertices[c, 1])
    ez = camera[2] - (wa * vertices[a, 2] + wb * vertices[b, 2] + wc * vertices[c, 2])
    length = np.sqrt(ex * ex + ey * ey + ez * ez)
    ex, ey, ez = ex / length, ey / length, ez / length
    seen = wa * sun_seen[a] + wb * sun_seen[b] + wc * sun_seen[c]
    n_sun = nx * sun[0] + ny * sun[1] + nz * sun[2]
    hx, hy, hz = sun[0] + ex, sun[1] + ey, sun[2] + ez
    length = max(np.sqrt(hx * hx + hy * hy + hz * hz), 1e-6)
    hx, hy, hz = hx / length, hy / length, hz / length
    gloss = specular * style[2]
    if layout_row[7] == 1:
        tx = wa * tangents[a, 0] + wb * tangents[b, 0] + wc * tangents[c, 0]
        ty = wa * tangents[a, 1] + wb * tangents[b, 1] + wc * tangents[c, 1]
        tz = wa * tangents[a, 2] + wb * tangents[b, 2] + wc * tangents[c, 2]
        length = max(np.sqrt(tx * tx + ty * ty + tz * tz), 1e-6)
        tx, ty, tz = tx / length, ty / length, tz / length
        t_sun = tx * sun[0] + ty * sun[1] + tz * sun[2]
        t_half = tx * hx + ty * hy + tz * hz
        fibre = np.sqrt(max(0.0, 1.0 - t_sun * t_sun))
        direct = seen * (0.35 * fibre + 0.65 * max(0.0, (n_sun + 0.3) / 1.3))
        ring = max(0.0, 1.0 - t_half * t_half)
        highlight = gloss * seen * max(0.0, min(1.0, 0.4 + n_sun)) * (ring**40 + 0.4 * ring**9)
    else:
        direct = seen * max(0.0, (n_sun + 0.15) / 1.15)
        n_half = max(0.0, nx * hx + ny * hy + nz * hz)
        highlight = gloss * seen * (n_half**28) * (2.0 if n_sun > 0.0 else 0.0)
    # the sky's light mirrored at grazing angles
    n_eye = abs(nx * ex + ny * ey + nz * ez)
    rim = (1.0 - n_eye) ** 4 * 0.5 * gloss
    level = 0.0
    for k in range(3):
        from_sky = wa * sky[a, k] + wb * sky[b, k] + wc * sky[c, k]
        out[8 + k] = from_sky + direct * sun_rgb[k]
        out[k] = highlight * sun_rgb[k] + rim * from_sky
        level += out[8 + k] / 3.0
    factor = 1.0
    if style[0] >= 2.0:
        bounded = min(max(level, 0.0), 1.2) / 1.2
        stepped = (np.floor(bounded * style[0]) + 0.75) / style[0] * 1.2
        factor = stepped / max(level, 1e-4)
        for k in range(3):
            out[k] = 0.6 * gloss if highlight > 0.25 * gloss and gloss > 0.0 else 0.0
    opacity = max(texel[3], 1e-6)
    for k in range(3):
        shone = out[8 + k] * factor * (1.0 - style[1]) + style[1]
        out[k] += texel[k] / opacity * shone
    out[3] = texel[3]
    facing = -1.0 if nx * ex + ny * ey + nz * ez < 0.0 else 1.0
    out[5], out[6], out[7] = nx * facing, ny * facing, nz * facing
    lx = min(int((u - np.floor(u)) * layout_row[6]), layout_row[6] - 1)
    ly = min(int((v - np.floor(v)) * layout_row[5]), layout_row[5] - 1)
    return label_texels[layout_row[4] + ly * layout_row[6] + lx]


@numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
@no_type_check
def draw_bands(screen, vertices, normals, tangents, faces, uv, faces_uv, face_part, layout, specular, texels,
               label_texels, sky, sun_seen, start, members, camera, sun, sun_rgb, style, width, height,
               supersample):  # fmt: skip
    """One picture at `supersample` samples along each axis; bands of rows are independent of each other."""
    s = supersample
    rgb = np.zeros((height // s, width // s, 3), np.float32)
    alpha = np.zeros((height // s, width // s), np.float32)
    depth = np.full((height // s, width // s), np.inf, np.float32)
    normal = np.zeros((height // s, width // s, 3), np.float32)
    labels = np.zeros((height // s, width // s), np.uint8)
    # bands hold BAND_ROWS sample rows; a pixel's samples may straddle two bands unless s divides BAND_ROWS
    for band in numba.prange(start.shape[0] - 1):
        row_begin = band * BAND_ROWS
        row_end = min(row_begin + BAND_ROWS, height)
        rows = row_end - row_begin
        solid_depth = np.zeros((rows, width), np.float64)
        solid_face = np.full((rows, width), -1, np.int32)
        layer_depth = np.zeros((rows, width, LAYERS), np.float64)
        layer_face = np.zeros((rows, width, LAYERS), np.int32)
        layer_alpha = np.zeros((rows, width, LAYERS), np.float32)
        layer_count = np.zeros((rows, width), np.int32)
        layer_through = np.ones((rows, width), np.float32)
        texel = np.zeros(4)
        for m in range(start[band], start[band + 1]):
            f = members[m]
            _collect(screen, faces, f, uv, faces_uv, layout[face_part[f]], texels, row_begin, row_end, width,
                     solid_depth, solid_face, layer_depth, layer_face, layer_alpha, layer_count,
                     layer_through, texel)  # fmt: skip
        out, colour = np.zeros(11), np.zeros(3)
        share = np.zeros((LABEL_COUNT, 5))
        for py in range(row_begin // s, row_end // s):
            for px in range(width // s):
                covered = 0.0
                colour[:] = 0.0
                share[:] = 0.0
                for k in range(s * s):
                    y, x = py * s + k // s, px * s + k % s
                    row = y - row_begin
                    through = 1.0
                    for layer in range(layer_count[row, x] + 1):
                        if layer < layer_count[row, x]:
                            if layer_depth[row, x, layer] <= solid_depth[row, x]:
                                continue
                            f = layer_face[row, x, layer]
                        else:
                            f = solid_face[row, x]
                            if f < 0:
                                break
                        part = face_part[f]
                        label = _shade(f, x + 0.5, y + 0.5, screen, vertices, normals, tangents, faces, uv, faces_uv,
                                       layout[part], specular[part], texels, label_texels, sky, sun_seen, camera,
                                       sun, sun_rgb, style, texel, out)  # fmt: skip
                        solid = layer == layer_count[row, x]
                        weight = through if solid else through * layer_alpha[row, x, layer]
                        covered += weight
                        share[label, 0] += weight
                        for channel in range(3):
                            colour[channel] += weight * out[channel]
                        for value in range(1, 5):
                            share[label, value] += weight * out[3 + value]
                        through -= weight
                        if through < THROUGH:
                            break
                if covered <= 1e-4:
                    continue
                for channel in range(3):
                    rgb[py, px, channel] = colour[channel] / covered
                alpha[py, px] = min(covered / (s * s), 1.0)
                if covered < 0.5 * s * s:
                    continue
                best = 0
                for k in range(1, LABEL_COUNT):
                    if share[k, 0] > share[best, 0]:
                        best = k
                labels[py, px] = best
                depth[py, px] = share[best, 1] / share[best, 0]
                length = np.sqrt(share[best, 2] ** 2 + share[best, 3] ** 2 + share[best, 4] ** 2)
                for k in range(3):
                    normal[py, px, k] = share[best, 2 + k] / max(length, 1e-9)
    return rgb, alpha, depth, normal, labels

"""The first, simpler renderer: sRGB colour and coverage only, cards tested against hashed thresholds.

The benchmarks of the prior and of the fits keep it, so that their figures stay comparable; training reads `renderer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32, Int

from ...cameras import Cameras
from ...mesh_raster import BAND_ROWS, bin_by_band, box_downsample, project_to_screen, sample_texture
from ...numba_pool import numba_pool
from ..parts import SyntheticHead


@dataclass(frozen=True)
class Lights:
    """Distant lights that stay with the head, and light from all sides."""

    direction_world: Float[np.ndarray, "l 3"]
    """Towards each light; need not be unit vectors."""
    strength: Float[np.ndarray, " l"]
    """Factor on the texture's colour where a light falls straight on the surface."""
    ambient: float = 0.5
    """Factor of the light from all sides."""


def studio_lights() -> Lights:
    """A key light, a weaker one from the other side, and one from behind."""
    directions = np.array([[-0.5, 0.6, 0.62], [0.7, 0.1, 0.7], [0.0, 0.5, -0.86]])
    return Lights(directions, np.array([0.75, 0.35, 0.25]))


def render(
    head: SyntheticHead, cameras: Cameras, *, lights: Lights | None = None, supersample: int = 2
) -> tuple[Float32[np.ndarray, "n h w 3"], Float32[np.ndarray, "n h w"]]:
    """Pictures of a head.

    Args:
        head: the head.
        cameras: any cameras of one picture size.
        lights: `studio_lights` if not given.
        supersample: samples per pixel along each axis.

    Returns:
        Straight sRGB colour in [0, 1] (white where nothing was hit) and coverage in [0, 1].
    """
    lights = lights or studio_lights()
    scene = _Scene(head)
    pictures = [scene.picture(camera, lights, supersample) for camera in cameras]
    return np.stack([rgb for rgb, _ in pictures]), np.stack([alpha for _, alpha in pictures])


class _Scene:
    """All parts of a head as one list of triangles."""

    def __init__(self, head: SyntheticHead) -> None:
        self.head = head
        vertex_start = np.cumsum([0, *(len(p.vertices_world) for p in head.parts)])
        uv_start = np.cumsum([0, *(len(p.uv_unit) for p in head.parts)])
        texel_start = np.cumsum([0, *(p.texture[..., 0].size for p in head.parts)])
        self.vertices = np.concatenate([p.vertices_world for p in head.parts]).astype(np.float64)
        self.normals = np.concatenate([p.normals_world for p in head.parts]).astype(np.float32)
        self.uv = np.concatenate([p.uv_unit for p in head.parts]).astype(np.float32)
        self.faces = np.concatenate([p.faces + s for p, s in zip(head.parts, vertex_start)]).astype(np.int32)
        self.faces_uv = np.concatenate([p.faces_uv + s for p, s in zip(head.parts, uv_start)]).astype(np.int32)
        self.face_part = np.repeat(np.arange(len(head.parts)), [len(p.faces) for p in head.parts]).astype(np.int32)
        # per part: first texel, height, width, alpha-tested
        self.alpha_layout = np.array(
            [[s, *p.texture.shape[:2], p.alpha_tested] for p, s in zip(head.parts, texel_start)], dtype=np.int64
        )
        self.alpha_texels = np.concatenate([p.texture[..., 3].ravel() for p in head.parts])

    def picture(
        self, camera: Cameras, lights: Lights, supersample: int
    ) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
        """One view."""
        width, height = camera.width * supersample, camera.height * supersample
        sized = camera.resized(width, height)
        T_camera_world = sized.T_camera_world[0].numpy()
        screen = project_to_screen(
            self.vertices, T_camera_world, sized.focal_px[0].numpy(), sized.principal_px[0].numpy()
        )
        start, members = bin_by_band(screen, self.faces, width, height, False)
        with numba_pool(width * height):
            index, weights = _draw(
                screen, self.faces, self.uv, self.faces_uv, self.face_part, self.alpha_layout, self.alpha_texels,
                start, members, width, height,
            )  # fmt: skip
        hit = index >= 0
        face, weight = index[hit], weights[hit]
        normal = np.einsum("fc,fck->fk", weight, self.normals[self.faces[face]])
        uv = np.einsum("fc,fck->fk", weight, self.uv[self.faces_uv[face]])
        position = np.einsum("fc,fck->fk", weight, self.vertices[self.faces[face]].astype(np.float32))
        to_camera = camera.position_world[0].numpy().astype(np.float32) - position
        rgb = np.ones((height, width, 3), dtype=np.float32)
        rgb[hit] = self._shade(self.face_part[face], uv - np.floor(uv), normal, to_camera, lights)
        alpha = box_downsample(hit.astype(np.float32), supersample)
        # mean colour of the samples that hit something: straight, not mixed with the background
        summed = box_downsample(rgb * hit[..., None], supersample)
        straight = np.where(alpha[..., None] > 0, summed / np.maximum(alpha[..., None], 1e-6), 1.0)
        return straight.astype(np.float32), alpha

    def _shade(
        self,
        part: Int[np.ndarray, " s"],
        uv_unit: Float[np.ndarray, "s 2"],
        normal: Float[np.ndarray, "s 3"],
        to_camera: Float[np.ndarray, "s 3"],
        lights: Lights,
    ) -> Float32[np.ndarray, "s 3"]:
        """Texture times wrapped diffuse light (Green, "Real-Time Approximations to Subsurface Scattering", GPU Gems
        2004, Sec. 16.2) plus a Blinn-Phong highlight; both sides of a surface are lit."""
        normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
        to_camera = to_camera / np.linalg.norm(to_camera, axis=1, keepdims=True)
        normal = np.where((normal * to_camera).sum(1, keepdims=True) < 0, -normal, normal)
        colour = np.empty((len(part), 3), dtype=np.float32)
        gloss = np.empty(len(part), dtype=np.float32)
        for number, p in enumerate(self.head.parts):
            own = part == number
            if own.any():
                size = np.array([p.texture.shape[1], p.texture.shape[0]], dtype=np.float32)
                colour[own] = sample_texture(p.texture, uv_unit[own] * size)[:, :3]
                gloss[own] = p.specular
        light = lights.ambient * (0.75 + 0.25 * normal[:, 1])
        highlight = np.zeros(len(part))
        for direction, strength in zip(lights.direction_world, lights.strength):
            towards = (direction / np.linalg.norm(direction)).astype(np.float32)
            light = light + strength * np.maximum(0, (normal @ towards + 0.25) / 1.25)
            half = towards + to_camera
            half = half / np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
            highlight += strength * np.maximum(0, (normal * half).sum(1)) ** 24
        return np.clip(colour * light[:, None] + (gloss * highlight)[:, None], 0, 1).astype(np.float32)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _alpha(texels, begin, height, width, u, v):
    """Bilinear opacity at a repeating texture position."""
    x = (u - np.floor(u)) * width - 0.5
    y = (v - np.floor(v)) * height - 0.5
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - x0, y - y0
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    x0, y0 = max(x0, 0), max(y0, 0)
    top = texels[begin + y0 * width + x0] * (1.0 - fx) + texels[begin + y0 * width + x1] * fx
    bottom = texels[begin + y1 * width + x0] * (1.0 - fx) + texels[begin + y1 * width + x1] * fx
    return top * (1.0 - fy) + bottom * fy


@numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
@no_type_check
def _draw(
    screen, faces, uv, faces_uv, face_part, alpha_layout, alpha_texels, start, members, width, height
):  # fmt: skip
    """Nearest surface per sample like `mesh_raster`, where cards let through what their texture does.

    A sample passes a card if the texture's opacity exceeds a threshold that is a hash of sample and triangle, so that
    many samples together see the right opacity (Wyman and McGuire, "Hashed Alpha Testing", I3D 2017).
    """
    triangle_index = np.full((height, width), -1, np.int32)
    barycentric = np.zeros((height, width, 3), np.float32)
    for band in numba.prange(start.shape[0] - 1):
        row_begin = band * BAND_ROWS
        row_end = min(row_begin + BAND_ROWS, height)
        nearest = np.zeros((row_end - row_begin, width))
        for m in range(start[band], start[band + 1]):
            f = members[m]
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay, az = screen[a, 0], screen[a, 1], screen[a, 2]
            bx, by, bz = screen[b, 0], screen[b, 1], screen[b, 2]
            cx, cy, cz = screen[c, 0], screen[c, 1], screen[c, 2]
            per_area = 1.0 / ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
            texture = face_part[f]
            ta, tb, tc = faces_uv[f, 0], faces_uv[f, 1], faces_uv[f, 2]
            x_begin = int(max(np.ceil(max(min(ax, bx, cx), -1e7) - 0.5), 0.0))
            x_end = int(min(np.floor(min(max(ax, bx, cx), 1e7) - 0.5) + 1.0, width))
            y_begin = int(max(np.ceil(max(min(ay, by, cy), -1e7) - 0.5), row_begin))
            y_end = int(min(np.floor(min(max(ay, by, cy), 1e7) - 0.5) + 1.0, row_end))
            for y in range(y_begin, y_end):
                for x in range(x_begin, x_end):
                    px, py = x + 0.5, y + 0.5
                    wa = ((cx - bx) * (py - by) - (cy - by) * (px - bx)) * per_area
                    wb = ((ax - cx) * (py - cy) - (ay - cy) * (px - cx)) * per_area
                    wc = ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) * per_area
                    if wa < 0.0 or wb < 0.0 or wc < 0.0:
                        continue
                    wa, wb, wc = wa * az, wb * bz, wc * cz
                    inverse_depth = wa + wb + wc
                    if inverse_depth <= nearest[y - row_begin, x]:
                        continue
                    wa, wb, wc = wa / inverse_depth, wb / inverse_depth, wc / inverse_depth
                    if alpha_layout[texture, 3]:
                        u = wa * uv[ta, 0] + wb * uv[tb, 0] + wc * uv[tc, 0]
                        v = wa * uv[ta, 1] + wb * uv[tb, 1] + wc * uv[tc, 1]
                        opacity = _alpha(
                            alpha_texels, alpha_layout[texture, 0], alpha_layout[texture, 1],
                            alpha_layout[texture, 2], u, v,
                        )  # fmt: skip
                        noise = (x * 73856093) ^ (y * 19349663) ^ (f * 83492791)
                        noise = ((noise * 1103515245 + 12345) >> 8) & 1023
                        if opacity * 1.15 < 0.08 + 0.84 * noise / 1024.0:
                            continue
                    nearest[y - row_begin, x] = inverse_depth
                    triangle_index[y, x] = f
                    barycentric[y, x, 0] = wa
                    barycentric[y, x, 1] = wb
                    barycentric[y, x, 2] = wc
    return triangle_index, barycentric

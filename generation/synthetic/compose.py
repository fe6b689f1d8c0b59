"""Composed heads: parts with textures in one frame, and pictures of them with exact cameras.

The frame is the package's world frame (`generation.cameras`), the size that of the parametric head: the eyes lie where
the mean head has them and the crown is `CROWN_TO_CHIN` above the chin. The assets are an argument of the loaders
(`makehuman.py`, `valid_busts.py`); nothing here is needed to turn a portrait into a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32, Int
from PIL import Image

from ..cameras import Cameras
from ..mesh_raster import BAND_ROWS, bin_by_band, box_downsample, project_to_screen, sample_texture

CROWN_TO_CHIN = 0.37
"""Height of every composed head without hair, world units; the mean parametric head has it."""
EYES_WORLD = np.array([0.0, 0.0266, 0.1154])
"""Middle between the eyeballs of every composed head: where the mean parametric head has it."""


@dataclass(frozen=True)
class Part:
    """One textured surface."""

    name: str
    """What it is: `skin`, `hair`, `eyes`, `clothes` ..."""
    vertices_world: Float[np.ndarray, "v 3"]
    """World units."""
    normals_world: Float[np.ndarray, "v 3"]
    """Unit normals."""
    faces: Int[np.ndarray, "f 3"]
    """Vertex indices."""
    uv_unit: Float[np.ndarray, "t 2"]
    """Texture coordinates, origin at the top left; they repeat outside [0, 1]."""
    faces_uv: Int[np.ndarray, "f 3"]
    """Indices into `uv_unit`."""
    texture: Float32[np.ndarray, "h w 4"]
    """Straight RGBA in [0, 1], sRGB."""
    alpha_tested: bool = False
    """Cards whose transparent texels let see what is behind."""
    specular: float = 0.05
    """Strength of the highlight."""


@dataclass(frozen=True)
class SyntheticHead:
    """A composed head and what it is made of."""

    name: str
    """Name of the head."""
    parts: tuple[Part, ...]
    """Its surfaces, in world units."""
    assets: tuple[str, ...]
    """Names of the assets used, for splits by asset and for notices."""

    def part(self, name: str) -> Part:
        """The part of that name.

        Raises:
            KeyError: the head has no such part.
        """
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(f"{self.name}: no part {name!r}; it has {[p.name for p in self.parts]}")


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


def read_texture(path: Path) -> Float32[np.ndarray, "h w 4"]:
    """A picture file as straight RGBA in [0, 1]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"), dtype=np.float32) / 255


def vertex_normals(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 3"]:
    """Unit normals, weighted by the areas of the triangles around each vertex."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    weighted = np.cross(b - a, c - a)
    normals = np.zeros((len(vertices), 3))
    for corner in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(faces[:, corner], weighted[:, axis], minlength=len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def world_from_asset(
    skin_vertices: Float[np.ndarray, "v 3"], eyes_middle: Float[np.ndarray, " 3"], units_per_metre: float
) -> tuple[float, Float[np.ndarray, " 3"]]:
    """Scale and shift that bring an asset's head to the size and place of the parametric head.

    The chin is found on the middle profile: below the mouth, where the front recedes half-way from chin to neck.

    Args:
        skin_vertices: bald head in the asset's units, y up, face to +z.
        eyes_middle: middle between its eyeballs.
        units_per_metre: of the asset.

    Returns:
        `scale` and `shift`: world = scale * asset + shift.
    """
    cm = units_per_metre / 100
    profile = skin_vertices[np.abs(skin_vertices[:, 0] - eyes_middle[0]) < 1.2 * cm]
    heights = eyes_middle[1] - np.arange(8.5, 19.0, 0.25) * cm
    front = np.array([profile[np.abs(profile[:, 1] - y) < 0.8 * cm, 2].max(initial=-np.inf) for y in heights])
    chin_z, neck_z = front[:8].max(), front.min(where=np.isfinite(front), initial=np.inf)
    chin_y = heights[np.flatnonzero(front < (chin_z + neck_z) / 2)[0]]
    crown_y = skin_vertices[:, 1].max()
    scale = CROWN_TO_CHIN / float(crown_y - chin_y)
    return scale, EYES_WORLD - scale * eyes_middle


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

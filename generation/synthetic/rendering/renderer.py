"""Pictures of composed heads with their truth: colour, soft alpha, depth, normals and labels from exact cameras.

Half-clear surfaces (hair above all) are kept in sorted lists of the nearest `LAYERS` per sample in front of the
nearest solid surface and composited front to back; that is depth peeling in one pass (Everitt 2001, "Interactive
Order-Independent Transparency"; k-buffers by Bavoil et al. 2007).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, UInt8

from ...cameras import Cameras
from ...light.shadows import DIRECTION_COUNT, sky_directions, visibility
from ...mesh_raster import project_to_screen, triangles_by_band
from ...numba_pool import numba_pool
from ...row_bands import BAND_ROWS
from ..parts import Part, SyntheticHead, merged
from .lighting import Lighting, studio_lighting
from .renderer_kernels import draw_bands


@dataclass(frozen=True)
class Shading:
    """How surfaces answer to light."""

    steps: int = 0
    """Steps of brightness for toon shading; 0 is continuous."""
    flatness: float = 0.0
    """Share of the light that is replaced by even light, in [0, 1]."""
    specular: float = 1.0
    """Factor on all highlights."""


@dataclass(frozen=True)
class HeadViews:
    """What n cameras see of a head. Colours are straight: not mixed with any background."""

    rgb_linear: Float32[np.ndarray, "n h w 3"]
    """Linear light, at least 0, mostly below 1; 0 where nothing was hit."""
    alpha_unit: Float32[np.ndarray, "n h w"]
    """Coverage in [0, 1]."""
    depth: Float32[np.ndarray, "n h w"]
    """Camera z of the surface that the label names, world units; infinite where less than half of it is covered."""
    normals_world: Float32[np.ndarray, "n h w 3"]
    """Unit normals of the surface that the label names, turned to the camera; 0 on background."""
    labels: UInt8[np.ndarray, "n h w"]
    """`parts.Label` with the largest share of each pixel; background where alpha is below a half."""

    @property
    def rgb_unit(self) -> Float32[np.ndarray, "n h w 3"]:
        """Straight sRGB in [0, 1]."""
        return srgb_from_linear(self.rgb_linear)

    @property
    def rgba(self) -> UInt8[np.ndarray, "n h w 4"]:
        """Straight sRGB and coverage, 8 bits."""
        return rgba_8_bits(self.rgb_unit, self.alpha_unit)

    def over(self, background_unit: Float[np.ndarray, ...] | float = 1.0) -> Float32[np.ndarray, "n h w 3"]:
        """sRGB pictures in front of a background (sRGB, broadcast to n h w 3), mixed in sRGB as mattes are."""
        alpha = self.alpha_unit[..., None]
        return (self.rgb_unit * alpha + np.asarray(background_unit, np.float32) * (1 - alpha)).astype(np.float32)


def rgba_8_bits(
    rgb_unit: Float32[np.ndarray, "n h w 3"], alpha_unit: Float32[np.ndarray, "n h w"]
) -> UInt8[np.ndarray, "n h w 4"]:
    """Colour and coverage in [0, 1] as one picture each."""
    both = np.concatenate([rgb_unit, alpha_unit[..., None]], axis=-1)
    return np.round(255 * np.clip(both, 0, 1)).astype(np.uint8)


def srgb_from_linear(linear: Float[np.ndarray, ...]) -> Float32[np.ndarray, ...]:
    """sRGB in [0, 1] of linear light, highlights rolled off softly above 0.8.

    Source: IEC 61966-2-1 (transfer function).
    """
    x = np.maximum(linear, 0).astype(np.float32)
    x = np.where(x > 0.8, 0.8 + 0.2 * (1 - np.exp(-(x - 0.8) / 0.2)), x)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-6) ** (1 / 2.4) - 0.055).astype(np.float32)


def linear_from_srgb(srgb: Float[np.ndarray, ...]) -> Float32[np.ndarray, ...]:
    """Linear light of sRGB in [0, 1], from a table of 1024 steps."""
    grid = np.arange(1024, dtype=np.float32) / 1023
    table = np.where(grid <= 0.04045, grid / 12.92, ((grid + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return table[np.clip(srgb * 1023 + 0.5, 0, 1023).astype(np.int32)]


class HeadScene:
    """A head ready to be drawn: one list of triangles, linear textures, shadows from all sides."""

    def __init__(self, head: SyntheticHead) -> None:
        """Collects the parts; solid ones first, so that half-clear ones meet a finished depth map."""
        parts = sorted((_compact(p) for p in head.parts), key=lambda p: p.alpha_tested)
        surface = merged(parts)
        textures = {id(p.texture): p.texture for p in parts}  # parts may share one
        texel_start = dict(zip(textures, np.cumsum([0, *(t[..., 0].size for t in textures.values())])))
        label_start = np.cumsum([0, *(p.label_map.size for p in parts)])
        self.vertices = surface.vertices_world.astype(np.float64)
        self.normals = surface.normals_world.astype(np.float32)
        self.tangents = np.concatenate(
            [np.zeros_like(p.vertices_world) if p.tangents_world is None else p.tangents_world for p in parts]
        ).astype(np.float32)
        self.uv = surface.uv_unit.astype(np.float32)
        self.faces, self.faces_uv = surface.faces.astype(np.int32), surface.faces_uv.astype(np.int32)
        self.face_part = np.repeat(np.arange(len(parts)), [len(p.faces) for p in parts]).astype(np.int32)
        self.texels = np.concatenate([_premultiplied(t) for t in textures.values()])
        self.label_texels = np.concatenate([p.label_map.ravel() for p in parts])
        # per part: first texel, height, width, half-clear, first label, its height and width, fibres
        self.layout = np.array(
            [
                [t, *p.texture.shape[:2], p.alpha_tested, s, *p.label_map.shape, p.tangents_world is not None]
                for p, t, s in zip(parts, (texel_start[id(p.texture)] for p in parts), label_start)
            ],
            dtype=np.int64,
        )
        self.specular = np.array([p.specular for p in parts], dtype=np.float32)
        mean_alpha = np.array([float(p.texture[..., 3].mean()) if p.alpha_tested else 1.0 for p in parts], np.float32)
        self.face_alpha = np.minimum(1.0, 1.2 * mean_alpha)[self.face_part]
        self.face_alpha[(mean_alpha < 0.25)[self.face_part]] = 0  # lenses, corneas, lashes cast no shadow

    @cached_property
    def transfer(self) -> Float32[np.ndarray, "v d"]:
        """Cosine times visibility of every sky direction at every vertex."""
        columns = []
        fibre = np.linalg.norm(self.tangents, axis=1) > 0.5
        for direction in sky_directions():
            cosine = (self.normals @ direction.astype(np.float32)).clip(0)
            cosine = np.where(fibre, 0.55 * cosine + 0.18, cosine)  # hairs scatter light round their bundle
            columns.append(cosine * (0.04 + 0.96 * self._lit(direction, 96)))
        return np.stack(columns, axis=1).astype(np.float32)

    def _lit(self, direction: Float[np.ndarray, " 3"], resolution: int) -> Float32[np.ndarray, " v"]:
        """How much of a distant light reaches each vertex."""
        solid = self.face_alpha > 0
        return visibility(
            self.vertices, self.normals, self.faces[solid], self.face_alpha[solid], direction, resolution=resolution
        )

    def render(
        self, cameras: Cameras, lighting: Lighting | None = None, *, shading: Shading | None = None,
        supersample: int = 2,
    ) -> HeadViews:  # fmt: skip
        """Views of the head.

        Args:
            cameras: any cameras of one picture size.
            lighting: `studio_lighting` if not given; it stays with the head.
            supersample: samples per pixel along each axis: 1, 2, 4 or 8.
        """
        assert supersample >= 1 and BAND_ROWS % supersample == 0
        lighting, shading = lighting or studio_lighting(), shading or Shading()
        sky = (self.transfer @ (lighting.sky_rgb * (4 / DIRECTION_COUNT)).astype(np.float32)).astype(np.float32)
        sun_seen = self._lit(lighting.sun_direction_world, 256)
        pictures = [self._picture(camera, lighting, sky, sun_seen, shading, supersample) for camera in cameras]
        return HeadViews(*(np.stack(channel) for channel in zip(*pictures)))

    def _picture(
        self, camera: Cameras, lighting: Lighting, sky: Float32[np.ndarray, "v 3"],
        sun_seen: Float32[np.ndarray, " v"], shading: Shading, supersample: int,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        width, height = camera.width * supersample, camera.height * supersample
        sized = camera.resized(width, height)
        screen = project_to_screen(
            self.vertices, sized.T_camera_world[0].numpy(), sized.focal_px[0].numpy(), sized.principal_px[0].numpy()
        )
        # solid faces first, then half-clear ones from near to far, so that hidden layers are skipped
        first = int(np.searchsorted(self.layout[:, 3][self.face_part], 1))
        depth = -screen[self.faces[first:, 0], 2]
        order = np.concatenate([np.arange(first), first + np.argsort(depth, kind="stable")])
        faces, faces_uv, face_part = self.faces[order], self.faces_uv[order], self.face_part[order]
        start, members = triangles_by_band(screen, faces, width, height)
        with numba_pool(width * height):
            return draw_bands(
                screen, self.vertices, self.normals, self.tangents, faces, self.uv, faces_uv, face_part,
                self.layout, self.specular, self.texels, self.label_texels, sky, sun_seen, start, members,
                camera.position_world[0].numpy(), lighting.sun_direction_world.astype(np.float64),
                lighting.sun_rgb.astype(np.float64), np.array([shading.steps, shading.flatness, shading.specular]),
                width, height, supersample,
            )  # fmt: skip


def _compact(part: Part) -> Part:
    """The part without vertices that no face uses; they would only blur the shadow maps."""
    used = np.zeros(len(part.vertices_world), bool)
    used[part.faces] = True
    if used.all():
        return part
    number = np.cumsum(used) - 1
    return replace(
        part,
        vertices_world=part.vertices_world[used],
        normals_world=part.normals_world[used],
        faces=number[part.faces],
        tangents_world=None if part.tangents_world is None else part.tangents_world[used],
        fibre_lengths=None,
    )


def _premultiplied(texture: Float32[np.ndarray, "h w 4"]) -> Float32[np.ndarray, "t 4"]:
    """Texels as linear RGB times opacity, and opacity."""
    flat = texture.reshape(-1, 4)
    out = np.empty(flat.shape, np.float32)
    out[:, 3] = flat[:, 3]
    out[:, :3] = linear_from_srgb(flat[:, :3])
    if flat[:, 3].min() < 1:
        out[:, :3] *= flat[:, 3:]
    return out

"""`HeadPrior`: the geometric guess of the whole head from one portrait, and the only way its pixels are made."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Literal

import cv2
import numpy as np
import scipy.special
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from scipy import ndimage
from torch import Tensor

from ..cameras import Cameras, OrbitConfig
from ..head_model import HeadModel, load_head_model
from ..light.named_lights import PORTRAIT, wanted_light
from ..mesh import TexturedMesh
from ..mesh_raster import Fragments, interpolate, rasterize_mesh, sample_texture
from ..portrait import Portrait
from ..progress import Track, silent
from ..ribbon_raster import DrawnRibbons, Ribbons, draw_ribbons
from ..same_threads import same_threads
from ..views import PointCloud
from .bust.bust import Bust, fit_bust
from .bust.template import load_template
from .field.drawn_field import DRAWING_NETWORKS, draw_field
from .field.head_field import HeadField
from .field.mean_network import FIELD_MEAN
from .field.observed_field import ObservedField
from .field.portrait_observation import field_of_portrait
from .hair.beard import bearded_vertices
from .hair.flow_field import fit_hair_flow
from .hair.hair_shell import fit_hair_shell
from .hair.loose_strands import HairStrands, grow_strands
from .labels.ear_fit import with_placed_ears
from .labels.portrait_labels import PortraitLabels, label_portrait
from .labels.segmenter import SEGMENTER
from .light.light_prior import load_light_prior
from .light.shade_network import SHADE
from .texture.atlas import (
    ATLAS_HEIGHT,
    ATLAS_WIDTH,
    MATERIAL_HAIR,
    SHELL_TILE,
    AtlasMesh,
    build_atlas_mesh,
    painted_tile,
)
from .texture.prior_texture import PriorTexture, paint_prior
from .view_pixels import view_pixels
from .worn.glasses import Glasses, fit_glasses
from .worn.headgear import fit_headgear, without_headgear

_STRAND_SLACK = 0.0013
"""Strands show up to this far below the surface that they lie in, world units (0.8 mm)."""
_VIEWS_AT_ONCE = 2
"""Threads that draw views; each holds some 80 MB at 512 px. Results do not depend on it."""
_HAIR_BORDER = 0.003
"""Over this length hair thins out against the background on average, world units (about 2 mm)."""
_STRANDS_PX = 512
"""Texels after which lengths of strands repeat."""


@dataclass(frozen=True)
class PriorRender:
    """Pictures and maps of the prior from n cameras."""

    rgb: Float32[np.ndarray, "n h w 3"]
    """Straight colour in [0, 1] (not premultiplied); where alpha is 0 it continues the nearest surface."""
    alpha: Float32[np.ndarray, "n h w"]
    """Coverage, [0, 1]."""
    validity: Float32[np.ndarray, "n h w"]
    """How far the portrait shows this surface: 1 seen, about 0.5 its mirror image, 0 made up or empty."""
    normals_world: Float32[np.ndarray, "n h w 3"]
    """Unit normals, zeros where empty."""
    depth: Float32[np.ndarray, "n h w"]
    """Camera z in world units, infinite where empty."""
    labels: UInt8[np.ndarray, "n h w"]
    """`MATERIAL_*` + 1, 0 where empty."""

    @classmethod
    def of(cls, views: Sequence[PriorRender]) -> PriorRender:
        """Several in one, in their order; at least one."""
        return cls(*(np.concatenate([getattr(view, f.name) for view in views]) for f in fields(cls)))


@dataclass(frozen=True)
class HeadPrior:
    """A textured head with hair and a bust, in the canonical pose."""

    mesh: AtlasMesh
    """Geometry and texture layout."""
    texture: PriorTexture
    """Painted atlas."""
    portrait_labels: PortraitLabels
    """The classes of the portrait's pixels."""
    weights_name: str
    """Names and hashes of head model, bust template and the networks that computed something for this head."""
    strands: HairStrands = field(default_factory=HairStrands.none)
    """Single strands over and beyond the shell."""
    glasses: Literal["none", "worn", "taken off"] = "none"
    """What became of the glasses that the portrait shows."""
    light: str = PORTRAIT
    """The light that the head is painted in, as `WantedLight` names it."""

    @property
    def looks_as_portrait(self) -> bool:
        """Whether the portrait itself can be one of the head's views."""
        return self.light == PORTRAIT and self.glasses != "taken off"

    @property
    def look_settings(self) -> dict[str, str]:
        """What provenance says about glasses and light; nothing where the portrait has none and its own."""
        settings = {} if self.glasses == "none" else {"glasses": self.glasses}
        return settings if self.light == PORTRAIT else {**settings, "light": self.light}

    def render(
        self, cameras: Cameras, *, supersample: int = 2, track: Track = silent, description: str = "Rendering views"
    ) -> PriorRender:
        """Pictures and maps from any cameras.

        Args:
            supersample: samples per pixel along each axis.
        """
        shown = track(self.renders(cameras, supersample), total=len(cameras), description=description)
        return PriorRender.of(list(shown))

    def renders(self, cameras: Cameras, supersample: int = 2) -> Iterator[PriorRender]:
        """`render` view by view, for who needs only one at a time; arguments as there."""
        image = np.concatenate(
            [self.texture.rgb.astype(np.float32) / 255, self.texture.confidence[..., None]], axis=-1
        ).astype(np.float32)
        uv_px, normals = self._uv_px.astype(np.float32), self.mesh.normals_world.astype(np.float32)
        ribbons = self.strands.ribbons()
        with ThreadPoolExecutor(_VIEWS_AT_ONCE) as threads:
            for first in range(0, len(cameras), 2 * _VIEWS_AT_ONCE):
                some = [cameras[i] for i in range(first, min(len(cameras), first + 2 * _VIEWS_AT_ONCE))]
                yield from threads.map(
                    lambda camera: self._view(image, uv_px, normals, ribbons, camera, supersample), some
                )

    def _view(
        self,
        image: Float32[np.ndarray, "r c 4"],
        uv_px: Float32[np.ndarray, "v 2"],
        normals_world: Float32[np.ndarray, "v 3"],
        ribbons: Ribbons,
        camera: Cameras,
        supersample: int,
    ) -> PriorRender:
        """One view: the atlas with its confidence, texture coordinates and normals, and the strands over it."""
        fragments = rasterize_mesh(self.mesh.vertices_world, self.mesh.faces, camera, supersample=supersample)
        coverage = self._soft_hair(fragments, uv_px, camera, supersample)
        seen = view_pixels(fragments, coverage, uv_px, normals_world, self.mesh.faces, image, supersample)
        rgb, validity = np.ascontiguousarray(seen.colour[..., :3]), seen.colour[..., 3].copy()
        centre = (slice(supersample // 2, None, supersample),) * 2
        depth = fragments.depth[centre].copy()
        triangle = fragments.triangle_index[centre]
        labels = np.where(triangle >= 0, self.mesh.material[np.maximum(triangle, 0)] + 1, 0).astype(np.uint8)
        maps = (rgb, seen.alpha, validity, seen.normals_world, depth, labels)
        if len(ribbons):
            _lay_over(draw_ribbons(ribbons, camera, depth, slack=_STRAND_SLACK), *maps)
        return PriorRender(*(values[None] for values in maps))

    def _soft_hair(
        self, fragments: Fragments, uv_px: Float32[np.ndarray, "v 2"], camera: Cameras, supersample: int
    ) -> Float32[np.ndarray, "r c"]:
        """Coverage of each sample: 1 on a surface, less where hair ends against the background, strand by strand."""
        hit = fragments.hit
        material = np.append(self.mesh.material, 0)[fragments.triangle_index]
        hair = hit & (material == MATERIAL_HAIR)
        if not hair.any():
            return hit.astype(np.float32)
        px_per_unit = float(camera.focal_px[0, 0]) * supersample / np.where(hit, fragments.depth, 1.0)
        inward = (cv2.distanceTransform(hit.astype(np.uint8), cv2.DIST_L2, 3) - np.float32(0.5)) / px_per_unit
        border = hair & (inward < 2 * _HAIR_BORDER)
        places = interpolate(fragments.at(*np.nonzero(border)), uv_px, self.mesh.faces)[:, 0]
        column, row = (self.texture.step * places).astype(np.int64).T
        length = 2 * _HAIR_BORDER * _strand_lengths()[row % _STRANDS_PX, column % _STRANDS_PX]
        share = np.clip(inward[border] / length, 0.0, 1.0)
        soft = hit.astype(np.float32)
        soft[border] = np.where(share < 0.05, 0, share)
        return soft

    @property
    def _uv_px(self) -> Float[np.ndarray, "v 2"]:
        """Column and row of each vertex in the painted atlas."""
        return self.mesh.uv_px / self.texture.step

    def textured_mesh(self) -> TexturedMesh:
        """The prior as a mesh for exporters; unused vertices are dropped."""
        used, faces = np.unique(self.mesh.faces, return_inverse=True)
        uv = self.mesh.uv_px[used] / np.array([ATLAS_WIDTH, ATLAS_HEIGHT])
        return TexturedMesh(
            self.mesh.vertices_world[used].astype(np.float32),
            self.mesh.normals_world[used].astype(np.float32),
            np.clip(uv, 0, 1).astype(np.float32),
            faces.reshape(-1, 3),
            self.texture.rgb,
        )

    def surface_samples(self, count: int, generator: torch.Generator) -> PointCloud:
        """Coloured points, uniform over the surface that can be seen from outside, and pieces of strands.

        Args:
            count: number of points, of both together; up to a fifth are pieces of strands.
        """
        strands = self.strands.ribbons()
        on_strands = min(len(strands), count // 5)
        surface = self._mesh_samples(count - on_strands, generator)
        if on_strands == 0:
            return surface
        chosen = torch.randperm(len(strands), generator=generator)[:on_strands].sort().values.numpy()
        start, end = strands.start_world[chosen], strands.end_world[chosen]
        half_axes = np.concatenate([np.zeros((count - on_strands, 3)), 0.5 * (end - start)])
        return PointCloud(
            torch.cat([surface.points_world, _float(0.5 * (start + end))]),
            torch.cat([surface.normals_world, _float(strands.values[chosen, 3:])]),
            torch.cat([surface.rgb_unit, _float(strands.values[chosen, :3])]),
            _float(half_axes),
        )

    def _mesh_samples(self, count: int, generator: torch.Generator) -> PointCloud:
        """Coloured points, uniform over the surface that can be seen from outside."""
        visible = self._visible_triangles()
        corners = self.mesh.vertices_world[self.mesh.faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) * visible
        chosen = torch.multinomial(
            torch.from_numpy(area / area.sum()), count, replacement=True, generator=generator
        ).numpy()
        r1, r2 = torch.rand(2, count, generator=generator, dtype=torch.float64).numpy()
        root = np.sqrt(r1)
        weights = np.stack([1 - root, root * (1 - r2), root * r2], axis=1)

        def at(values: Float[np.ndarray, "v c"]) -> Float[np.ndarray, "p c"]:
            return (values[self.mesh.faces[chosen]] * weights[..., None]).sum(1)

        normals = at(self.mesh.normals_world)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        colour = sample_texture(self.texture.rgb.astype(np.float32) / 255, at(self._uv_px).astype(np.float32))
        return PointCloud(_float(at(self.mesh.vertices_world)), _float(normals), _float(colour))

    def _visible_triangles(self) -> Bool[np.ndarray, " f"]:
        """Triangles that at least one of 26 cameras round the head sees, and those between them; what skin or hair
        covers is left out."""
        cameras = OrbitConfig(ring_count=14, upper_count=6, lower_count=6).cameras(size_px=256)
        seen = np.zeros(len(self.mesh.faces) + 1, bool)
        for camera in cameras:
            seen[rasterize_mesh(self.mesh.vertices_world, self.mesh.faces, camera).triangle_index.ravel()] = True
        corners = np.zeros(len(self.mesh.vertices_world), bool)
        corners[self.mesh.faces[seen[:-1]]] = True
        return corners[self.mesh.faces].all(1)


def _lay_over(
    drawn: DrawnRibbons,
    rgb: Float32[np.ndarray, "h w 3"],
    alpha: Float32[np.ndarray, "h w"],
    validity: Float32[np.ndarray, "h w"],
    normals: Float32[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "h w"],
    labels: UInt8[np.ndarray, "h w"],
) -> None:
    """Put strands over the maps of one view, in place. Strands are hair that the portrait does not show."""
    rows, columns = np.nonzero(drawn.alpha > 0)
    there = rows, columns
    over, below = drawn.alpha[there], (1 - drawn.alpha[there]) * alpha[there]
    total = over + below
    share = (below / total)[:, None]
    rgb[there] = drawn.values[there][:, :3] / total[:, None] + rgb[there] * share
    validity[there] *= share[:, 0]
    normal = drawn.values[there][:, 3:] / total[:, None] + normals[there] * share
    normals[there] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    alpha[there] = total
    foremost = (over > 0.5) | (labels[there] == 0)
    depth[rows[foremost], columns[foremost]] = drawn.depth[rows[foremost], columns[foremost]]
    labels[rows[foremost], columns[foremost]] = MATERIAL_HAIR + 1


@functools.lru_cache(maxsize=1)
def _strand_lengths() -> Float32[np.ndarray, "h w"]:
    """How far strands reach over the atlas, uniform in [0.1, 1]: alike along a strand (a column), unlike beside it. The
    picture repeats in both directions."""
    noise = np.random.default_rng(0).standard_normal((_STRANDS_PX, _STRANDS_PX)).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, (12.0, 1.2), mode="wrap")
    return (0.55 + 0.45 * scipy.special.erf(noise / (noise.std() * math.sqrt(2)))).astype(np.float32)


def _float(array: Float[np.ndarray, ...]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


@dataclass(frozen=True)
class PriorBasis:
    """What all priors of one portrait share, whichever field is taken for what the portrait does not show."""

    portrait: Portrait
    """The aligned portrait with its fitted head, ears where the portrait shows them."""
    model: HeadModel
    """The head model of the fit."""
    labels: PortraitLabels
    """The classes of the portrait's pixels."""
    expected: HeadField
    """The field that is to be expected."""
    observed: ObservedField
    """What the portrait shows of it."""
    bust: Bust
    """The fitted bust."""
    glasses: Glasses | None = None
    """The fitted glasses, if any are worn."""

    @classmethod
    @same_threads()
    def of(cls, portrait: Portrait, *, model: HeadModel | None = None) -> PriorBasis:
        """The basis of a portrait; arguments as of `build_head_prior`."""
        model = model or load_head_model()
        labels = label_portrait(portrait, model)
        portrait = with_placed_ears(portrait, labels, model)
        expected, observed = field_of_portrait(portrait, labels, model)
        bust, glasses = fit_bust(portrait, labels, model), fit_glasses(portrait, labels, model)
        return cls(portrait, model, labels, expected, observed, bust, glasses)

    @same_threads()
    def prior(
        self, *, seed: int = 0, drawn: bool = False, glasses: bool = True, light: str = PORTRAIT, texel_step: int = 1
    ) -> HeadPrior:
        """One prior; arguments as of `build_head_prior`."""
        portrait, model, labels, wanted = self.portrait, self.model, self.labels, wanted_light(light)
        field = draw_field(self.observed, seed=seed) if drawn else self.expected
        shell = fit_hair_shell(portrait, labels, model, field)
        headgear, shell = fit_headgear(portrait, labels, model, field, self.observed, shell)
        worn = self.glasses if glasses else None
        skin = bearded_vertices(portrait, labels, model)
        mesh = build_atlas_mesh(model, skin, shell, self.bust, glasses=worn, headgear=headgear)
        grown = labels if headgear is None else without_headgear(labels)
        flow = fit_hair_flow(portrait, grown, shell, field)
        texture = paint_prior(
            portrait, labels, model, mesh, flow, field,
            glasses=self.glasses, headgear=headgear, seed=seed, wanted=wanted.light, step=texel_step,
        )  # fmt: skip
        x, y, width, height = painted_tile(SHELL_TILE, texel_step)
        tile = (slice(y, y + height), slice(x, x + width))
        strands = grow_strands(flow, texture.rgb[tile], texture.confidence[tile], seed=seed)
        of_hair = (FIELD_MEAN, *DRAWING_NETWORKS) if drawn else (FIELD_MEAN,)
        weights = (
            model.weights_name,
            load_template().weights_name,
            *portrait.weights,
            *(network.provenance() for network in (SEGMENTER, SHADE, *of_hair)),
            load_light_prior().weights_name,
        )
        state = "none" if self.glasses is None else "worn" if glasses else "taken off"
        return HeadPrior(mesh, texture, labels, ", ".join(weights), strands, state, wanted.name)


def build_head_prior(
    portrait: Portrait, *, model: HeadModel | None = None, seed: int = 0, drawn: bool = False, glasses: bool = True,
    light: str = PORTRAIT, texel_step: int = 1,
) -> HeadPrior:  # fmt: skip
    """The geometric prior of a portrait: labels, hair shell, bust, glasses, texture.

    Args:
        portrait: aligned portrait with its fitted head.
        model: the head model; default is the one that ships.
        seed: seed of the painted locks, the strands and the cloth, and of the field if it is drawn.
        drawn: the head's field is one of those that may be behind the portrait, in place of the expected one.
        glasses: glasses that the portrait shows are worn; otherwise they are taken off.
        light: what the head is lit by, as `wanted_light` takes it.
        texel_step: the texture atlas' texels per painted one along each axis; 2 is enough for pictures of 256 pixels.

    Raises:
        InputError: a field is to be drawn and this installation lacks the networks for it, or the light is none.
    """
    return PriorBasis.of(portrait, model=model).prior(
        seed=seed, drawn=drawn, glasses=glasses, light=light, texel_step=texel_step
    )

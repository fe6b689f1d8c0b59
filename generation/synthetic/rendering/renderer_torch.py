"""The renderer in plain torch: any device, no kernels. The CPU's compiled loops are compared with it.

All surface samples of a picture are listed (triangle, sample), sorted by sample and depth, and composited along each
list: an A-buffer (Carpenter 1984, "The A-buffer, an antialiased hidden surface method") instead of depth peeling, since
sorting is what a tensor library does well. Shadows come from the scene, which makes them on the CPU once per light.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...cameras import Cameras
from .renderer_kernels import CLEAR, LABEL_COUNT, LAYERS, SOLID, THROUGH

_CANDIDATES = 4_000_000
"""Samples that are tested at once."""


@dataclass(frozen=True)
class SceneTensors:
    """What `HeadScene` holds, on one device; the fields are its fields."""

    vertices: Float[Tensor, "v 3"]
    normals: Float[Tensor, "v 3"]
    tangents: Float[Tensor, "v 3"]
    uv: Float[Tensor, "t 2"]
    faces: Int[Tensor, "f 3"]
    faces_uv: Int[Tensor, "f 3"]
    face_part: Int[Tensor, " f"]
    layout: Int[Tensor, "p 8"]
    specular: Float[Tensor, " p"]
    texels: Float[Tensor, "x 4"]
    label_texels: Int[Tensor, " l"]


@dataclass(frozen=True)
class LightTensors:
    """Light as it arrives at the vertices."""

    sky: Float[Tensor, "v 3"]
    sun_seen: Float[Tensor, " v"]
    sun_direction_world: Float[Tensor, " 3"]
    sun_rgb: Float[Tensor, " 3"]
    style: tuple[float, float, float]
    """Steps, flatness and specular of `renderer.Shading`."""


@dataclass(frozen=True)
class _Samples:
    """Surface samples: one row for each triangle that covers the middle of a sample's square."""

    face: Int[Tensor, " n"]
    place: Int[Tensor, " n"]
    """Row times width plus column."""
    inverse_depth: Float[Tensor, " n"]
    opacity: Float[Tensor, " n"]
    weights: Float[Tensor, "n 3"]
    """Perspective-correct barycentric coordinates."""

    def __getitem__(self, index: Tensor) -> _Samples:
        return _Samples(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def draw_picture(
    scene: SceneTensors, camera: Cameras, light: LightTensors, supersample: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Colour, alpha, depth, normals and labels of one picture, as `renderer_kernels.draw_bands` gives them.

    Args:
        scene: the head.
        camera: one camera of the final picture.
        light: the light.
        supersample: samples per pixel along each axis.
    """
    s = supersample
    width, height = camera.width * s, camera.height * s
    screen = _project(scene.vertices, camera.resized(width, height))
    found = list(_cover(scene, screen, width, height))
    samples = _Samples(*(torch.cat([getattr(part, n) for part in found]) for n in _Samples.__dataclass_fields__))
    samples, weight = _visible(samples, width * height)
    colour, normal, label = _shaded(scene, samples, light, camera.position_world[0].to(scene.vertices))
    x, y = samples.place % width, samples.place // width
    pixel = (y // s) * (width // s) + x // s
    return _resolved(pixel, weight, colour, 1 / samples.inverse_depth, normal, label, camera.height, camera.width, s)


def _project(vertices: Float[Tensor, "v 3"], camera: Cameras) -> Float[Tensor, "v 3"]:
    """Column, row and 1 / depth as `mesh_raster.project_to_screen` gives them, snapped to the same grid."""
    from ...mesh_raster import NEAR_DEPTH, SNAP

    T = camera.T_camera_world[0].to(vertices)
    points = vertices @ T[:3, :3].T + T[:3, 3]
    depth = points[:, 2]
    seen = depth > NEAR_DEPTH
    depth = torch.where(seen, depth, 1.0)
    at = points[:, :2] / depth[:, None] * camera.focal_px[0].to(vertices) + camera.principal_px[0].to(vertices)
    at = torch.floor(at * SNAP + 0.5) / SNAP
    screen = torch.cat([at, 1 / depth[:, None]], dim=1)
    return torch.where(seen[:, None], screen, 0.0)


def _spread(first: Int[Tensor, " n"], count: Int[Tensor, " n"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """For every i the numbers first[i] ... first[i] + count[i] - 1: (i repeated, the numbers)."""
    index = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    start = torch.cumsum(count, 0) - count
    return index, first[index] + torch.arange(len(index), device=count.device) - start[index]


def _cover(scene: SceneTensors, screen: Float[Tensor, "v 3"], width: int, height: int) -> Iterator[_Samples]:
    """Samples of all triangles, some million candidates at a time; clear ones are left out."""
    corners = screen[scene.faces]
    low, high = corners[..., :2].amin(1), corners[..., :2].amax(1)
    size = torch.tensor([width, height], device=screen.device)
    first = torch.ceil(low.clamp(min=-1e7) - 0.5).clamp(min=0).long()
    end = torch.minimum((torch.floor(high.clamp(max=1e7) - 0.5) + 1).long(), size)
    count = (end - first).clamp(min=0)
    count = torch.where((corners[..., 2] > 0).all(1)[:, None], count, 0)
    used = torch.nonzero(count.prod(1) > 0)[:, 0]
    ends = torch.cumsum(count[used].prod(1), 0)
    chunk = 0
    while chunk < len(used):
        done = int(ends[chunk - 1]) if chunk else 0
        stop = max(chunk + 1, int(torch.searchsorted(ends, done + _CANDIDATES, right=True)))
        yield _cover_some(scene, screen, used[chunk:stop], first, count, width)
        chunk = stop
    if not len(used):
        yield _cover_some(scene, screen, used, first, count, width)


def _cover_some(
    scene: SceneTensors, screen: Float[Tensor, "v 3"], faces: Int[Tensor, " k"], first: Int[Tensor, "f 2"],
    count: Int[Tensor, "f 2"], width: int,
) -> _Samples:  # fmt: skip
    row_of, y = _spread(first[faces, 1], count[faces, 1])
    which, x = _spread(first[faces, 0][row_of], count[faces, 0][row_of])
    y, face = y[which], faces[row_of[which]]
    a, b, c = (screen[scene.faces[face, k]] for k in range(3))
    px, py = x + 0.5, y + 0.5
    per_area = 1 / ((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]))

    def edge(p: Tensor, q: Tensor) -> Tensor:
        return ((q[:, 0] - p[:, 0]) * (py - p[:, 1]) - (q[:, 1] - p[:, 1]) * (px - p[:, 0])) * per_area

    weights = torch.stack([edge(b, c), edge(c, a), edge(a, b)], dim=1)
    inside = (weights >= 0).all(1) & torch.isfinite(per_area)
    face, place = face[inside], (y * width + x)[inside]
    weights = weights[inside] * torch.stack([a[:, 2], b[:, 2], c[:, 2]], dim=1)[inside]
    inverse_depth = weights.sum(1)
    weights = weights / inverse_depth[:, None]
    layout = scene.layout[scene.face_part[face]]
    opacity = torch.ones_like(inverse_depth)
    half_clear = torch.nonzero(layout[:, 3] == 1)[:, 0]
    uv = _mixed(scene.uv, scene.faces_uv[face[half_clear]], weights[half_clear])
    seen = _texel(scene.texels, layout[half_clear], uv)[:, 3]
    opacity[half_clear] = torch.where(seen > SOLID, 1.0, seen)
    kept = opacity >= CLEAR
    return _Samples(face, place, inverse_depth, opacity, weights)[kept]


def _mixed(values: Float[Tensor, "v c"], index: Int[Tensor, "n 3"], weights: Float[Tensor, "n 3"]) -> Tensor:
    """Values at the corners, mixed."""
    return sum(values[index[:, k]] * weights[:, k : k + 1] for k in range(3))


def _texel(texels: Float[Tensor, "x 4"], layout: Int[Tensor, "n 8"], uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n 4"]:
    """Bilinear premultiplied colour and opacity at repeating texture positions."""
    begin, height, width = layout[:, 0], layout[:, 1], layout[:, 2]
    at = (uv - torch.floor(uv)) * torch.stack([width, height], dim=1) - 0.5
    low = torch.floor(at)
    fx, fy = (at - low).T[..., None]
    x0, y0 = low.long().T
    x1, y1 = torch.minimum(x0 + 1, width - 1), torch.minimum(y0 + 1, height - 1)
    x0, y0 = x0.clamp(min=0), y0.clamp(min=0)
    top = texels[begin + y0 * width + x0] * (1 - fx) + texels[begin + y0 * width + x1] * fx
    bottom = texels[begin + y1 * width + x0] * (1 - fx) + texels[begin + y1 * width + x1] * fx
    return top * (1 - fy) + bottom * fy


def _visible(samples: _Samples, places: int) -> tuple[_Samples, Float[Tensor, " m"]]:
    """What light reaches the eye from: samples by place and depth, and their shares of their places."""
    solid = samples.opacity >= 1
    nearest = torch.zeros(places, dtype=samples.inverse_depth.dtype, device=samples.place.device)
    nearest.scatter_reduce_(0, samples.place[solid], samples.inverse_depth[solid], "amax")
    before = samples.inverse_depth > nearest[samples.place]
    samples = samples[torch.where(solid, samples.inverse_depth == nearest[samples.place], before)]
    order = torch.argsort(samples.inverse_depth, descending=True, stable=True)
    samples = samples[order[torch.argsort(samples.place[order], stable=True)]]
    count = torch.bincount(samples.place, minlength=places)
    start = (torch.cumsum(count, 0) - count)[samples.place]
    rank = torch.arange(len(samples.place), device=start.device) - start
    solid = samples.opacity >= 1
    clear = torch.where(solid | (rank >= LAYERS), 0.0, torch.log1p(-samples.opacity.clamp(max=0.999)))
    passed = torch.cumsum(clear, 0) - clear
    through = torch.exp(passed - passed[start.clamp(max=max(len(passed) - 1, 0))]) if len(passed) else passed
    weight = torch.where(solid, through, torch.where(rank < LAYERS, through * samples.opacity, 0.0))
    weight = torch.where(through < THROUGH, 0.0, weight)
    # two solid surfaces at the very same depth: the first one is seen
    solid_before = torch.cumsum(solid.long(), 0) - solid.long()
    twin = solid & (solid_before > solid_before[start.clamp(max=max(len(start) - 1, 0))]) if len(start) else solid
    weight = torch.where(twin, 0.0, weight)
    kept = weight > 0
    return samples[kept], weight[kept]


def _unit(vectors: Float[Tensor, "n 3"], least: float = 1e-9) -> Float[Tensor, "n 3"]:
    return vectors / vectors.norm(dim=1, keepdim=True).clamp(min=least)


def _shaded(
    scene: SceneTensors, samples: _Samples, light: LightTensors, eye_world: Float[Tensor, " 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"], Int[Tensor, " n"]]:
    """Linear colour, normal turned to the eye, and label; the formulas and their sources are `_shade`'s."""
    corners, weights = scene.faces[samples.face], samples.weights
    part = scene.face_part[samples.face]
    layout = scene.layout[part]
    uv = _mixed(scene.uv, scene.faces_uv[samples.face], weights)
    texel = _texel(scene.texels, layout, uv)
    normal = _unit(_mixed(scene.normals, corners, weights))
    to_eye = _unit(eye_world - _mixed(scene.vertices, corners, weights))
    seen = _mixed(light.sun_seen[:, None], corners, weights)[:, 0]
    sun = light.sun_direction_world
    half = _unit(sun + to_eye, 1e-6)
    steps, flatness, specular = light.style
    gloss = scene.specular[part] * specular
    n_sun = normal @ sun
    tangent = _unit(_mixed(scene.tangents, corners, weights), 1e-6)
    fibre = (1 - (tangent @ sun) ** 2).clamp(min=0).sqrt()
    ring = (1 - (tangent * half).sum(1) ** 2).clamp(min=0)
    on_fibre = layout[:, 7] == 1
    direct = seen * torch.where(
        on_fibre, 0.35 * fibre + 0.65 * ((n_sun + 0.3) / 1.3).clamp(min=0), ((n_sun + 0.15) / 1.15).clamp(min=0)
    )
    n_half = (normal * half).sum(1).clamp(min=0)
    highlight = gloss * seen * torch.where(
        on_fibre, (0.4 + n_sun).clamp(0, 1) * (ring**40 + 0.4 * ring**9), n_half**28 * torch.where(n_sun > 0, 2.0, 0.0)
    )  # fmt: skip
    towards = (normal * to_eye).sum(1)
    rim = (1 - towards.abs()) ** 4 * 0.5 * gloss
    sky = _mixed(light.sky, corners, weights)
    lit = sky + direct[:, None] * light.sun_rgb
    shine = highlight[:, None] * light.sun_rgb + rim[:, None] * sky
    if steps >= 2:
        level = lit.mean(1)
        stepped = (torch.floor(level.clamp(0, 1.2) / 1.2 * steps) + 0.75) / steps * 1.2
        lit = lit * (stepped / level.clamp(min=1e-4))[:, None]
        shine = torch.where((highlight > 0.25 * gloss) & (gloss > 0), 0.6 * gloss, 0.0)[:, None].expand_as(shine)
    shone = lit * (1 - flatness) + flatness
    colour = shine + texel[:, :3] / texel[:, 3:].clamp(min=1e-6) * shone
    cell = ((uv - torch.floor(uv)) * layout[:, [6, 5]]).long()
    cell = torch.minimum(cell, layout[:, [6, 5]] - 1)
    label = scene.label_texels[layout[:, 4] + cell[:, 1] * layout[:, 6] + cell[:, 0]]
    return colour, torch.where(towards < 0, -1.0, 1.0)[:, None] * normal, label


def _resolved(
    pixel: Int[Tensor, " n"], weight: Float[Tensor, " n"], colour: Float[Tensor, "n 3"], depth: Float[Tensor, " n"],
    normal: Float[Tensor, "n 3"], label: Int[Tensor, " n"], height: int, width: int, s: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Samples averaged over pixels; depth and normal are those of the label with the largest share."""
    n, new = height * width, weight.new_zeros
    summed = new(n, 4).index_add_(0, pixel, torch.cat([colour, torch.ones_like(colour[:, :1])], 1) * weight[:, None])
    covered = summed[:, 3]
    seen = torch.cat([torch.ones_like(depth)[:, None], depth[:, None], normal], dim=1) * weight[:, None]
    shares = new(n * LABEL_COUNT, 5).index_add_(0, pixel * LABEL_COUNT + label, seen).reshape(n, LABEL_COUNT, 5)
    best = shares[..., 0].argmax(1)
    chosen = shares[torch.arange(n, device=pixel.device), best]
    hit, solid = covered > 1e-4, covered >= 0.5 * s * s
    rgb = torch.where(hit[:, None], summed[:, :3] / covered.clamp(min=1e-9)[:, None], 0.0)
    alpha = torch.where(hit, (covered / (s * s)).clamp(max=1), 0.0)
    far = torch.where(solid, chosen[:, 1] / chosen[:, 0].clamp(min=1e-12), np.inf)
    direction = torch.where(solid[:, None], _unit(chosen[:, 2:]), 0.0)
    labels = torch.where(solid, best, 0)
    shape = (height, width)
    return (
        rgb.reshape(*shape, 3), alpha.reshape(shape), far.reshape(shape), direction.reshape(*shape, 3),
        labels.reshape(shape),
    )  # fmt: skip

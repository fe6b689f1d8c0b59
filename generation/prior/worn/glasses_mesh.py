"""Glasses as a mesh: tubes along the wires, and sheets for lenses that nothing is seen through."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from ...cameras import UNITS_PER_CM
from ...head_model.anatomy import centimetres, world_units
from .. import capsule
from ..hair.hair_shell import HairShell
from .arms import arm_paths
from .frame_shape import MIRRORED, RIM_SAMPLES, frame_curves, upper_parts
from .glasses import Glasses

RIM, ARM, BRIDGE, LENS = range(4)
"""Parts of glasses."""
_TUBE_SIDES = 8
_LENS_RINGS = 6
_LENS_HALF_CM = 0.07
"""Half the thickness of a lens in its middle."""
_ARM_HALF_CM = (0.5, 0.055, 0.09)
"""Half the thickness of an arm: this share of half its height, between these."""
_DEPTH_CM = (0.9, 0.07, 0.17)
"""Half the depth of a rim, front to back: this share of half its width, between these."""
_MOST_HAIR_CM = 1.0
"""Arms lie on hair up to this thickness, under longer hair."""
_MARGIN = 2
"""Texels that stay free within the border of a part's place in the tile."""

_PLACES = {
    (RIM, 0): (0, 0, 384, 48), (RIM, 1): (384, 0, 384, 48), (ARM, 0): (0, 48, 384, 48), (ARM, 1): (384, 48, 384, 48),
    (BRIDGE, 0): (0, 96, 256, 32), (LENS, 0): (0, 128, 192, 128), (LENS, 1): (192, 128, 192, 128),
    (LENS, 2): (384, 128, 192, 128), (LENS, 3): (576, 128, 192, 128),
}  # fmt: skip
"""Column, row, width and height in the tile: the head's right first; lenses first in front, then behind."""
TILE_SIZE = (768, 256)
"""Width and height of the tile."""


class WornPart(NamedTuple):
    """A mesh with its texture layout."""

    vertices_world: Float[np.ndarray, "v 3"]
    """World units."""
    normals_world: Float[np.ndarray, "v 3"]
    """Unit outward normals."""
    uv_px: Float[np.ndarray, "v 2"]
    """Column and row in the tile, texel centres at +0.5."""
    faces: Int[np.ndarray, "f 3"]
    """Counter-clockwise seen from outside."""


def glasses_mesh(glasses: Glasses, shell: HairShell | None) -> WornPart:
    """Frame and opaque lenses as one mesh of closed surfaces.

    Args:
        glasses: from `fit_glasses`.
        shell: hair that arms lie on where it is thin; None leaves them on the skin.
    """
    shape, curves = glasses.shape, frame_curves(glasses.shape, glasses.face)
    forwards = curves.R_head_frame[:, 2]
    upper = upper_parts(shape)
    parts: list[WornPart] = []
    half_width = 0.5 * np.where(shape.outline()[:, 1] > 0, *glasses.rim_cm)
    half_width = ndimage.gaussian_filter1d(half_width, RIM_SAMPLES / 24, mode="wrap")
    for k, rim in enumerate(curves.rims):
        width = half_width if k else half_width[MIRRORED]
        if glasses.rims == "full":
            parts.append(_tube(rim, forwards, _held(width, _DEPTH_CM), width, _PLACES[RIM, k], closed=True))
        elif glasses.rims == "half":
            shown = _run(upper[k])
            parts.append(_tube(rim[shown], forwards, _held(width[shown], _DEPTH_CM), width[shown], _PLACES[RIM, k]))
        if glasses.lens_rgb is not None:
            parts += [_lens(rim, forwards, sign, _PLACES[LENS, k + 2 * (sign < 0)]) for sign in (1.0, -1.0)]
    bridge = np.full(len(curves.bridge), 0.5 * min(glasses.rim_cm[0], 0.35))
    parts.append(_tube(curves.bridge, forwards, _held(bridge, _DEPTH_CM), bridge, _PLACES[BRIDGE, 0]))
    half_height = 0.5 * glasses.arm_cm
    thin = float(_held(np.array([half_height]), _ARM_HALF_CM)[0])
    for k, path in enumerate(arm_paths(shape, glasses.face, curves, thin)):
        path = path if shell is None else _over_hair(path, shell, glasses.face.ears_cm[k], thin)
        along = np.full(len(path), half_height)
        parts.append(_tube(path, np.array([0.0, 1.0, 0.0]), along, np.full(len(path), thin), _PLACES[ARM, k]))
    starts = np.cumsum([0, *(len(p.vertices_world) for p in parts)])
    return WornPart(
        world_units(np.concatenate([p.vertices_world for p in parts])),
        np.concatenate([p.normals_world for p in parts]),
        np.concatenate([p.uv_px for p in parts]),
        np.concatenate([p.faces + start for p, start in zip(parts, starts)]),
    )


def part_of_texels(rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """`RIM`, `ARM`, `BRIDGE` or `LENS` of texels of the tile."""
    part = np.full(len(rows), RIM)
    for (kind, _), (x, y, width, height) in _PLACES.items():
        part[(rows >= y) & (rows < y + height) & (columns >= x) & (columns < x + width)] = kind
    return part


def _held(half_cm: Float[np.ndarray, " n"], rule: tuple[float, float, float]) -> Float[np.ndarray, " n"]:
    """A share of a size, between two bounds."""
    return np.clip(rule[0] * half_cm, rule[1], rule[2])


def _run(chosen: np.ndarray) -> Int[np.ndarray, " n"]:
    """Numbers of the points of a ring that are chosen, in order, if these are one run."""
    first = np.nonzero(chosen & ~np.roll(chosen, 1))[0][0]
    return (first + np.arange(int(chosen.sum()))) % len(chosen)


def _tube(
    path: Float[np.ndarray, "n 3"], first: Float[np.ndarray, " 3"], half_first: Float[np.ndarray, " n"],
    half_second: Float[np.ndarray, " n"], place: tuple[int, int, int, int], *, closed: bool = False,
) -> WornPart:  # fmt: skip
    """A wire with an elliptic section. Open ones are closed by caps.

    Args:
        path: its middle line.
        first: about the direction of the section's first half axis.
        half_first, half_second: half axes; the second is perpendicular to path and first axis.
        place: in the tile.
        closed: the path's end joins its start.
    """
    step = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    along = step / np.linalg.norm(step, axis=1, keepdims=True)
    a = first - along * (along @ first)[:, None]
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = np.cross(along, a)
    angle = np.arange(_TUBE_SIDES + 1) * 2 * np.pi / _TUBE_SIDES
    c, s = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
    s[:, -1], c[:, -1] = s[:, 0], c[:, 0]  # the seam's two columns are at the same place to the last bit
    ha, hb = half_first[:, None, None], half_second[:, None, None]
    points = path[:, None] + c * ha * a[:, None] + s * hb * b[:, None]
    normals = c / ha * a[:, None] + s / hb * b[:, None]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    if closed:
        points, normals = np.concatenate([points, points[:1]]), np.concatenate([normals, normals[:1]])
    else:
        caps = [np.broadcast_to(p, points[:1].shape) for p in (path[0], path[-1])]
        ends = [np.broadcast_to(n, points[:1].shape) for n in (-along[0], along[-1])]
        points, normals = np.concatenate([caps[0], points, caps[1]]), np.concatenate([ends[0], normals, ends[1]])
    rows, columns = np.meshgrid(np.linspace(0, 1, len(points)), np.linspace(0, 1, _TUBE_SIDES + 1), indexing="ij")
    return _grid(points, normals, np.stack([rows, columns], axis=-1), place)


def _lens(
    rim: Float[np.ndarray, "n 3"], forwards: Float[np.ndarray, " 3"], sign: float, place: tuple[int, int, int, int]
) -> WornPart:
    """The front (sign 1) or the back (-1) of a lens that ends in its rim."""
    middle = rim.mean(0)
    ring = np.concatenate([rim, rim[:1]])[None]
    t = np.linspace(0, 1, _LENS_RINGS)[:, None, None]
    bulge = sign * _LENS_HALF_CM * np.sqrt(1 - t**2)
    points = middle + (ring - middle) * t + bulge * forwards
    normals = np.broadcast_to(sign * forwards, points.shape)
    off = (ring - middle)[0]
    across = np.cross(np.array([0.0, 1.0, 0.0]), forwards)
    flat = np.stack([off @ across, -off @ np.cross(forwards, across)], axis=1)
    flat = 0.5 + 0.5 * flat / np.abs(flat).max(0)
    places = 0.5 + (flat - 0.5) * t
    if sign > 0:  # so that faces turn outwards
        points, normals, places = points[::-1], normals[::-1], places[::-1]
    return _grid(points, normals, places, place)


def _grid(
    points: Float[np.ndarray, "m n 3"], normals: Float[np.ndarray, "m n 3"], share: Float[np.ndarray, "m n 2"],
    place: tuple[int, int, int, int],
) -> WornPart:  # fmt: skip
    """A grid as a mesh without triangles of no area.

    Args:
        points, normals: of the grid.
        share: where its points lie across and down their place in the tile, [0, 1].
        place: column, row, width and height.
    """
    m, n = points.shape[:2]
    row, column = np.meshgrid(np.arange(m - 1), np.arange(n - 1), indexing="ij")
    a, b = row * n + column, row * n + column + 1
    c, d = a + n, b + n
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
    vertices, out = points.reshape(-1, 3), normals.reshape(-1, 3)
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    faces = faces[np.linalg.norm(normal, axis=1) > 1e-9]
    x, y, width, height = place
    border = _MARGIN + 0.5
    uv = np.array([x, y]) + border + share.reshape(-1, 2) * [width - 2 * border, height - 2 * border]
    return WornPart(vertices, out, uv, faces)


def _over_hair(
    path: Float[np.ndarray, "n 3"], shell: HairShell, ear: Float[np.ndarray, " 3"], half_cm: float
) -> Float[np.ndarray, "n 3"]:
    """An arm moved outwards to lie on thin hair before the ear."""
    row, column, _ = capsule.cell_coordinates(world_units(path))
    at = [row, column]
    radius, thickness = (
        ndimage.map_coordinates(values, at, order=1, mode="grid-wrap") / UNITS_PER_CM
        for values in (shell.radius, shell.thickness)
    )
    origin, direction = capsule.cell_rays(row, column)
    on_hair = centimetres(origin) + direction * (radius + half_cm)[:, None]
    out = np.abs(on_hair[:, 0]) - np.abs(path[:, 0])
    reaches = np.clip((_MOST_HAIR_CM - thickness) / 0.3, 0, 1) * np.clip((path[:, 2] - ear[2]) / 0.8, 0, 1)
    out = np.maximum(out, 0) * (thickness > 0) * reaches
    out = ndimage.gaussian_filter1d(ndimage.maximum_filter1d(out, 5), 2.0)
    moved = path.copy()
    moved[:, 0] += np.sign(path[:, 0]) * np.minimum(out, _MOST_HAIR_CM)
    moved[:2] = path[:2]
    return moved

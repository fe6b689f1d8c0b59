"""One texture for the whole prior: where each part lies in it, and the mesh that goes with it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ...cameras import Cameras
from ...head_model import HeadModel
from ...head_model.anatomy import NECK_CUT_Y_CM, NECK_OVERLAP_CM, NECK_TOP_Y_CM, centimetres
from ...head_model.model import (
    PART_EYE_SOCKET_LEFT,
    PART_EYE_SOCKET_RIGHT,
    PART_EYEBALL_LEFT,
    PART_EYEBALL_RIGHT,
    PART_GUMS,
    PART_MOUTH_SOCKET,
    PART_TEETH,
)
from ...mesh import vertex_normals
from ...mesh_raster import Fragments, interpolate, rasterize_mesh
from .. import capsule
from ..bust.bust import NECK_INSIDE, RIM_ROW, Bust
from ..bust.sections import COLUMNS, column_of
from ..hair.hair_shell import HairShell
from ..worn.glasses import Glasses
from ..worn.glasses_mesh import TILE_SIZE, WornPart, glasses_mesh
from ..worn.headgear import Headgear
from ..worn.headgear_mesh import TILE_SIZE as TRIM_TILE_SIZE
from ..worn.headgear_mesh import headgear_mesh, joined

ATLAS_WIDTH, ATLAS_HEIGHT = 2048, 1792
"""Of a texture with all its texels; tiles and texture coordinates are counted in these, however many are painted."""
(
    MATERIAL_SKIN, MATERIAL_MOUTH, MATERIAL_TEETH, MATERIAL_EYE, MATERIAL_HAIR, MATERIAL_CLOTH, MATERIAL_GLASSES,
    MATERIAL_HEADGEAR,
) = range(8)  # fmt: skip

_FACE_TILE = (0, 0, 1024, 1024)
_HEAD_TILE = (1024, 0, 768, 768)
_GUMS_TILE = (1792, 0, 256, 256)
_TEETH_TILE = (1792, 256, 256, 256)
_EYE_TILES = {PART_EYEBALL_LEFT: (1792, 512, 256, 256), PART_EYEBALL_RIGHT: (1792, 768, 256, 256)}
GLASSES_TILE = (1024, 768, *TILE_SIZE)
SHELL_TILE = (0, 1024, 1024, 768)
BUST_TILE = (1024, 1024, 1024, 512)
TRIM_TILE = (1024, 1536, *TRIM_TILE_SIZE)
"""Hems and brims of headgear; its surface shares the shell's tile."""
Tile = tuple[int, int, int, int]
"""Column, row, width and height."""
_HIDDEN_THICKNESS = -0.018
"""Shell cells this far below the opened skull can be left out: the skin covers them."""

_FLARES_CM, _STANDS_OUT = 1.2, 0.003
"""So far above its lower end the head model's neck may flare; over a collar's edge it stands out by no more than the
second number, world units, and than it is higher."""
_IN_FRONT = 0.5
"""Cosine of the angle from the front up to which there are no shoulders."""


@dataclass(frozen=True)
class AtlasMesh:
    """Head, hair shell, bust, glasses and headgear as one mesh with one texture layout."""

    vertices_world: Float[np.ndarray, "v 3"]
    """World units; split along texture seams."""
    normals_world: Float[np.ndarray, "v 3"]
    """Unit outward normals, smooth across texture seams."""
    uv_px: Float[np.ndarray, "v 2"]
    """Column and row in the atlas, texel centres at +0.5."""
    faces: Int[np.ndarray, "f 3"]
    """Counter-clockwise seen from outside."""
    material: UInt8[np.ndarray, " f"]
    """`MATERIAL_*` of each triangle."""
    head_vertex: Int[np.ndarray, " v"]
    """Vertex of the head model each vertex was split from, -1 for all else."""
    T_world_body: Float[np.ndarray, "4 4"]
    """To world from the bust's frame, see `Bust`."""
    stand_off: Float[np.ndarray, " columns"]
    """How far the collar's edge stands off the neck in each column of the bust, world units."""


def painted_tile(tile: Tile, step: int) -> Tile:
    """A tile of the atlas counted in painted texels, of which each is `step` of the atlas' along each axis."""
    x, y, width, height = (number // step for number in tile)
    return x, y, width, height


@dataclass(frozen=True)
class AtlasTexels:
    """The texels that the mesh covers, with their place on it."""

    rows: Int32[np.ndarray, " n"]
    """Atlas row."""
    columns: Int32[np.ndarray, " n"]
    """Atlas column."""
    points_world: Float32[np.ndarray, "n 3"]
    """Surface point, world units."""
    normals_world: Float32[np.ndarray, "n 3"]
    """Unit normal."""
    material: UInt8[np.ndarray, " n"]
    """`MATERIAL_*`."""
    fragments: Fragments
    """Of the rasterised layout, n rows of one column."""
    step: int = 1
    """The atlas' texels per painted one along each axis; rows and columns count painted ones."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the painted atlas."""
        return ATLAS_HEIGHT // self.step, ATLAS_WIDTH // self.step

    def painted_tile(self, tile: Tile) -> Tile:
        """A tile of the atlas counted in painted texels."""
        return painted_tile(tile, self.step)

    def interpolated(
        self,
        attribute: Float[np.ndarray, "v k"],
        faces: Int[np.ndarray, "f 3"],
        chosen: Int[np.ndarray, " m"] | None = None,
    ) -> Float32[np.ndarray, "n_or_m k"]:
        """Vertex attributes of the mesh at the texels.

        Args:
            attribute: k numbers per vertex.
            faces: of the mesh.
            chosen: numbers of the texels; all if not given.
        """
        fragments = self.fragments if chosen is None else self.fragments.at(chosen, np.zeros_like(chosen))
        return interpolate(fragments, attribute, faces)[:, 0]

    def __getitem__(self, chosen: Int[np.ndarray, " m"]) -> AtlasTexels:
        """Some of them, by their numbers."""
        all_columns = np.zeros_like(chosen)
        return AtlasTexels(
            self.rows[chosen],
            self.columns[chosen],
            self.points_world[chosen],
            self.normals_world[chosen],
            self.material[chosen],
            self.fragments.at(chosen, all_columns),
            self.step,
        )


def _head_tiles(model: HeadModel, faces: Int[np.ndarray, "f 3"], faces_uv: Int[np.ndarray, "f 3"]):
    """Tile, material and integer u offset of each triangle of the head model."""
    part = model.part[faces[:, 0]]
    u_tile = np.floor(model.uv[faces_uv].min(1)[:, 0] + 1e-6)
    tile = np.zeros((len(faces), 4))
    material = np.full(len(faces), MATERIAL_SKIN, np.uint8)
    tile[:] = np.where((u_tile == 0)[:, None], _FACE_TILE, _HEAD_TILE)
    sockets = np.isin(part, (PART_EYE_SOCKET_LEFT, PART_EYE_SOCKET_RIGHT, PART_MOUTH_SOCKET))
    material[sockets] = MATERIAL_MOUTH
    tile[part == PART_GUMS], material[part == PART_GUMS] = _GUMS_TILE, MATERIAL_MOUTH
    tile[part == PART_TEETH], material[part == PART_TEETH] = _TEETH_TILE, MATERIAL_TEETH
    for eyeball, place in _EYE_TILES.items():
        tile[part == eyeball], material[part == eyeball] = place, MATERIAL_EYE
    return tile, material, u_tile


def _inside_eyes(model: HeadModel) -> Bool[np.ndarray, " f"]:
    """Faces of the inner of the two shells of each eye: nobody sees them, and the outer one has the same texels."""
    inside = np.zeros(len(model.faces), bool)
    n = len(model.neutral)
    for eyeball in _EYE_TILES:
        of_eye = (model.part[model.faces] == eyeball).all(1)
        faces = model.faces[of_eye]
        edges = np.concatenate([faces[:, :2], faces[:, 1:]])
        graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
        shell = connected_components(graph, directed=False)[1]
        front = {k: model.neutral[faces[shell[faces[:, 0]] == k], 2].max() for k in np.unique(shell[faces])}
        inside |= of_eye & (shell[model.faces[:, 0]] != max(front, key=lambda k: front[k]))
    return inside


def _in_collars_place(
    points_world: Float[np.ndarray, "v 3"], y_cm: Float[np.ndarray, " v"], bust: Bust
) -> tuple[Bool[np.ndarray, " v"], Bool[np.ndarray, " v"]]:
    """The neck so far below the collar's edge that it is inside the bust; and what stands out over that edge: the head
    model's own shoulders begin there, at one side of a neck that leans.

    Args:
        points_world: vertices of the head model.
        y_cm: their heights on the mean head.
        bust: that the neck ends in.
    """
    R, origin = bust.T_world_body[:3, :3], bust.T_world_body[:3, 3]
    x, y, z = ((points_world - origin) @ R).T
    edge, inside = ((bust.points_world[row] - origin) @ R for row in (RIM_ROW, 0))
    from_axis = [0, 0, inside[0, 2]]
    column, columns = column_of(x, z - inside[0, 2]), np.arange(COLUMNS + 1)
    above, radius = y - np.interp(column, columns, edge[:, 1]), np.hypot(x, z - inside[0, 2])
    outside = radius - np.interp(column, columns, np.hypot(*(edge - from_axis).T[[0, 2]]))
    stands_out = (outside > _STANDS_OUT + np.maximum(above, 0)) & (y_cm < NECK_CUT_Y_CM + _FLARES_CM)
    stands_out &= z - inside[0, 2] < _IN_FRONT * radius
    return (above < -NECK_INSIDE) & (y_cm < NECK_TOP_Y_CM), stands_out


def build_atlas_mesh(
    model: HeadModel,
    head_vertices: Float[np.ndarray, "v 3"],
    shell: HairShell,
    bust: Bust,
    *,
    glasses: Glasses | None = None,
    headgear: Headgear | None = None,
) -> AtlasMesh:
    """Put the fitted head, its hair shell, its bust, its glasses and its headgear into one mesh.

    Args:
        model: the head model.
        head_vertices: its fitted vertices, world units.
        shell: fitted hair shell.
        bust: from `fit_bust`.
        glasses: from `fit_glasses`; None for none.
        headgear: from `fit_headgear`, as the shell is; None for none.
    """
    y_cm = centimetres(model.neutral)[:, 1]
    kept = (y_cm[model.faces] > NECK_CUT_Y_CM - NECK_OVERLAP_CM).all(1) & ~_inside_eyes(model)
    below, out = (of[model.faces] for of in _in_collars_place(head_vertices, y_cm, bust))
    kept &= ~((below.sum(1) > 1) | out.any(1))
    faces, faces_uv = model.faces[kept], model.faces_uv[kept]
    tile, head_material, u_tile = _head_tiles(model, faces, faces_uv)
    corner_uv = model.uv[faces_uv] - np.stack([u_tile, np.zeros_like(u_tile)], axis=1)[:, None]
    corner_px = np.stack(
        [
            tile[:, None, 0] + corner_uv[..., 0] * tile[:, None, 2],
            tile[:, None, 1] + (1 - corner_uv[..., 1]) * tile[:, None, 3],
        ],
        axis=-1,
    )
    column, row = np.round(corner_px.reshape(-1, 2) * 64).astype(np.int64).T
    keys = np.ravel_multi_index(
        (faces.ravel(), column, row), (len(model.neutral), 64 * ATLAS_WIDTH + 1, 64 * ATLAS_HEIGHT + 1)
    )
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    split_from = faces.ravel()[first]
    head_normals = vertex_normals(head_vertices, model.faces)

    shell_points = capsule.surface_points(shell.radius)
    shell_part = _grid_part(np.concatenate([shell_points, shell_points[:, :1]], axis=1), SHELL_TILE)
    thickness = np.concatenate([shell.thickness, shell.thickness[:, :1]], axis=1).ravel()
    visible = (thickness[shell_part.faces] > _HIDDEN_THICKNESS).any(1)
    shell_faces = shell_part.faces[visible]
    bust_part = _grid_part(bust.points_world, BUST_TILE)

    worn, hat = _worn_part(glasses, shell), _headgear_part(headgear)
    n_head = len(first)
    # headgear comes first: where it and the shell share texels at its rim, the texels are its own
    parts = (hat, shell_part._replace(faces=shell_faces), bust_part, worn)
    counts = [len(part.faces) for part in parts]
    materials = np.array([MATERIAL_HEADGEAR, MATERIAL_HAIR, MATERIAL_CLOTH, MATERIAL_GLASSES], np.uint8)
    starts = n_head + np.cumsum([0, *(len(part.uv_px) for part in parts)])
    later = [part.faces + start for part, start in zip(parts, starts)]
    return AtlasMesh(
        np.concatenate([head_vertices[split_from], *(p.vertices_world for p in parts)]),
        np.concatenate([head_normals[split_from], *(p.normals_world for p in parts)]),
        np.concatenate([corner_px.reshape(-1, 2)[first], *(p.uv_px for p in parts)]),
        np.concatenate([inverse.reshape(-1, 3), *later]),
        np.concatenate([head_material, np.repeat(materials, counts)]),
        np.concatenate([split_from, np.full(int(starts[-1]) - n_head, -1)]),
        bust.T_world_body,
        bust.stand_off,
    )


def _headgear_part(headgear: Headgear | None) -> WornPart:
    """Headgear in the atlas, or nothing."""
    if headgear is None:
        return joined([])
    surface, trim = headgear_mesh(headgear, SHELL_TILE[2:])
    return joined([
        surface._replace(uv_px=surface.uv_px + np.array(SHELL_TILE[:2])),
        trim._replace(uv_px=trim.uv_px + np.array(TRIM_TILE[:2])),
    ])  # fmt: skip


def _worn_part(glasses: Glasses | None, shell: HairShell) -> WornPart:
    """Glasses in the atlas, or nothing."""
    if glasses is None:
        return joined([])
    part = glasses_mesh(glasses, shell)
    return part._replace(uv_px=part.uv_px + np.array(GLASSES_TILE[:2]))


class _GridPart(NamedTuple):
    vertices_world: Float[np.ndarray, "v 3"]
    normals_world: Float[np.ndarray, "v 3"]
    uv_px: Float[np.ndarray, "v 2"]
    faces: Int[np.ndarray, "f 3"]


def _grid_part(points_world: Float[np.ndarray, "rows columns 3"], tile: Tile) -> _GridPart:
    """A grid whose last column repeats the first as a mesh, laid out half a texel inside its tile's border."""
    rows, columns = points_world.shape[0], points_world.shape[1] - 1
    vertices, faces = points_world.reshape(-1, 3), capsule.grid_faces(rows, columns)
    row, column = np.divmod(np.arange(len(vertices)), columns + 1)
    wrapped = row * (columns + 1) + column % columns
    x, y, width, height = tile
    uv_px = [x + 0.5 + column / columns * (width - 1), y + 0.5 + row / (rows - 1) * (height - 1)]
    normals = vertex_normals(vertices, wrapped[faces])[wrapped]
    corners = vertices[faces]
    double_area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return _GridPart(vertices, normals, np.stack(uv_px, axis=1), faces[double_area > 0])


def atlas_texels(mesh: AtlasMesh, step: int = 1) -> AtlasTexels:
    """Every texel that a triangle covers, with its point on the surface.

    The layout is rasterised as a flat mesh one unit before a camera whose focal length is one texel.

    Args:
        mesh: with its texture layout.
        step: the atlas' texels per painted one along each axis, 1, 2 or 4.
    """
    flat = np.concatenate([mesh.uv_px / step, np.ones((len(mesh.uv_px), 1))], axis=1)
    camera = Cameras(
        torch.eye(4, dtype=torch.float64)[None],
        torch.ones(1, 2, dtype=torch.float64),
        torch.zeros(1, 2, dtype=torch.float64),
        ATLAS_WIDTH // step,
        ATLAS_HEIGHT // step,
    )
    fragments = rasterize_mesh(flat, mesh.faces, camera)
    rows, columns = np.nonzero(fragments.hit)
    fragments = fragments.at(rows, columns)
    points = interpolate(fragments, mesh.vertices_world, mesh.faces)[:, 0]
    normals = interpolate(fragments, mesh.normals_world, mesh.faces)[:, 0]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    material = mesh.material[fragments.triangle_index[:, 0]]
    return AtlasTexels(rows.astype(np.int32), columns.astype(np.int32), points, normals, material, fragments, step)


def fill_uncovered(
    texture: Float32[np.ndarray, "h w c"], covered: Bool[np.ndarray, "h w"], steps: int = 4
) -> Float32[np.ndarray, "h w c"]:
    """Grow covered texels outwards, so that bilinear look-ups at chart borders meet no holes."""
    texture, known = texture.copy(), np.pad(covered, 1).astype(np.uint8)
    height, width = covered.shape
    for _ in range(steps):
        rim = cv2.dilate(known, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > known[1:-1, 1:-1]
        rows, columns = np.nonzero(rim)
        total, count = np.zeros((len(rows), texture.shape[2]), np.float32), np.zeros((len(rows), 1), np.float32)
        for down, across in itertools.product((-1, 0, 1), repeat=2):
            row, column = rows + down, columns + across
            there = known[row + 1, column + 1].astype(np.float32)[:, None]
            total += texture[row.clip(0, height - 1), column.clip(0, width - 1)] * there
            count += there
        texture[rows, columns] = total / count
        known[rows + 1, columns + 1] = 1
    return texture

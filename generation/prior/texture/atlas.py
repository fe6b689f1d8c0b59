"""One texture for the whole prior: where each part lies in it, and the mesh that goes with it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8

from ...cameras import Cameras
from ...head_model import HeadModel
from ...head_model.anatomy import NECK_CUT_Y_CM, NECK_OVERLAP_CM, centimetres
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
from ..bust.torso import TORSO_COLUMNS, TORSO_ROWS, Torso
from ..hair.hair_shell import HairShell, grid_mesh

ATLAS_WIDTH, ATLAS_HEIGHT = 2048, 1792
MATERIAL_SKIN, MATERIAL_MOUTH, MATERIAL_TEETH, MATERIAL_EYE, MATERIAL_HAIR, MATERIAL_CLOTH = range(6)

_FACE_TILE = (0, 0, 1024, 1024)
_HEAD_TILE = (1024, 0, 768, 768)
_GUMS_TILE = (1792, 0, 256, 256)
_TEETH_TILE = (1792, 256, 256, 256)
_EYE_TILES = {PART_EYEBALL_LEFT: (1792, 512, 256, 256), PART_EYEBALL_RIGHT: (1792, 768, 256, 256)}
SHELL_TILE = (0, 1024, 1024, 768)
TORSO_TILE = (1024, 1024, 1024, 512)
_HIDDEN_THICKNESS = -0.018
"""Shell cells this far below the opened skull can be left out: the skin covers them."""


@dataclass(frozen=True)
class AtlasMesh:
    """Head, hair shell and torso as one mesh with one texture layout."""

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
    """Vertex of the head model each vertex was split from, -1 for shell and torso."""


@dataclass(frozen=True)
class AtlasTexels:
    """The texels that the mesh covers, with their place on it."""

    rows: Int[np.ndarray, " n"]
    """Atlas row."""
    columns: Int[np.ndarray, " n"]
    """Atlas column."""
    points_world: Float32[np.ndarray, "n 3"]
    """Surface point, world units."""
    normals_world: Float32[np.ndarray, "n 3"]
    """Unit normal."""
    material: UInt8[np.ndarray, " n"]
    """`MATERIAL_*`."""
    fragments: Fragments
    """The rasterised layout, for further interpolation."""


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


def build_atlas_mesh(
    model: HeadModel, head_vertices: Float[np.ndarray, "v 3"], shell: HairShell, torso: Torso, *, bald: bool
) -> AtlasMesh:
    """Put the fitted head, its hair shell and its torso into one mesh.

    Args:
        model: the head model.
        head_vertices: its fitted vertices, world units.
        shell: fitted hair shell.
        torso: fitted shoulders.
        bald: leave the shell out.
    """
    y_cm = centimetres(model.neutral)[:, 1]
    kept = (y_cm[model.faces] > NECK_CUT_Y_CM - NECK_OVERLAP_CM).all(1)
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
    keys = np.concatenate([faces.reshape(-1, 1), np.round(corner_px.reshape(-1, 2) * 64)], axis=1).astype(np.int64)
    unique, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    split_from = unique[:, 0]
    head_normals = vertex_normals(head_vertices, model.faces)

    shell_vertices, shell_faces = grid_mesh(shell.radius)
    shell_normals = _seamless_normals(shell_vertices, shell_faces, capsule.COLUMNS + 1)
    row, column = np.divmod(np.arange(len(shell_vertices)), capsule.COLUMNS + 1)
    shell_px = _tile_px(SHELL_TILE, column / capsule.COLUMNS, row / (capsule.ROWS - 1))
    thickness = np.concatenate([shell.thickness, shell.thickness[:, :1]], axis=1).ravel()
    visible = (thickness[shell_faces] > _HIDDEN_THICKNESS).any(1) & (not bald)
    shell_faces = shell_faces[visible]

    torso_vertices = torso.vertices_world.reshape(-1, 3)
    torso_normals = _seamless_normals(torso_vertices, torso.faces, TORSO_COLUMNS + 1)
    row, column = np.divmod(np.arange(len(torso_vertices)), TORSO_COLUMNS + 1)
    torso_px = _tile_px(TORSO_TILE, column / TORSO_COLUMNS, row / (TORSO_ROWS - 1))

    n_head, n_shell = len(unique), len(shell_vertices)
    return AtlasMesh(
        vertices_world=np.concatenate([head_vertices[split_from], shell_vertices, torso_vertices]),
        normals_world=np.concatenate([head_normals[split_from], shell_normals, torso_normals]),
        uv_px=np.concatenate([corner_px.reshape(-1, 2)[first], shell_px, torso_px]),
        faces=np.concatenate([inverse.reshape(-1, 3), shell_faces + n_head, torso.faces + n_head + n_shell]),
        material=np.concatenate(
            [
                head_material,
                np.full(len(shell_faces), MATERIAL_HAIR, np.uint8),
                np.full(len(torso.faces), MATERIAL_CLOTH, np.uint8),
            ]
        ),
        head_vertex=np.concatenate([split_from, np.full(n_shell + len(torso_vertices), -1)]),
    )


def _tile_px(
    tile: tuple[int, int, int, int], across: Float[np.ndarray, " v"], down: Float[np.ndarray, " v"]
) -> Float[np.ndarray, "v 2"]:
    """Atlas position of fractions of a tile, half a texel inside its border."""
    x, y, width, height = tile
    return np.stack([x + 0.5 + across * (width - 1), y + 0.5 + down * (height - 1)], axis=1)


def _seamless_normals(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], columns: int
) -> Float[np.ndarray, "v 3"]:
    """Normals of a grid whose last column repeats the first."""
    index = np.arange(len(vertices))
    wrapped = np.where(index % columns == columns - 1, index - (columns - 1), index)
    return vertex_normals(vertices, wrapped[faces])[wrapped]


def atlas_texels(mesh: AtlasMesh) -> AtlasTexels:
    """Every texel that a triangle covers, with its point on the surface.

    The layout is rasterised as a flat mesh one unit before a camera whose focal length is one texel.
    """
    flat = np.concatenate([mesh.uv_px, np.ones((len(mesh.uv_px), 1))], axis=1)
    camera = Cameras(
        torch.eye(4, dtype=torch.float64)[None],
        torch.ones(1, 2, dtype=torch.float64),
        torch.zeros(1, 2, dtype=torch.float64),
        ATLAS_WIDTH,
        ATLAS_HEIGHT,
    )
    fragments = rasterize_mesh(flat, mesh.faces, camera)
    rows, columns = np.nonzero(fragments.hit)
    attributes = np.concatenate([mesh.vertices_world, mesh.normals_world], axis=1)
    values = interpolate(fragments, attributes, mesh.faces)[rows, columns]
    normals = values[:, 3:] / np.maximum(np.linalg.norm(values[:, 3:], axis=1, keepdims=True), 1e-9)
    triangle = fragments.triangle_index[rows, columns]
    return AtlasTexels(rows, columns, values[:, :3], normals, mesh.material[triangle], fragments)


def fill_uncovered(
    texture: Float32[np.ndarray, "h w c"], covered: Bool[np.ndarray, "h w"], steps: int = 4
) -> Float32[np.ndarray, "h w c"]:
    """Grow covered texels outwards, so that bilinear look-ups at chart borders meet no holes."""
    texture, known = texture.copy(), covered.copy()
    for _ in range(steps):
        weight = cv2.boxFilter(known.astype(np.float32), -1, (3, 3), normalize=False)
        grown = cv2.boxFilter(texture * known[..., None], -1, (3, 3), normalize=False)
        grown = grown.reshape(texture.shape)
        new = ~known & (weight > 0)
        texture[new] = grown[new] / weight[new][:, None]
        known |= new
    return texture

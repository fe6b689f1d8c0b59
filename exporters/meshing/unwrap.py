"""Texture coordinates by xatlas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float32, Int32, Int64

PADDING_TEXELS = 4
_PATCHES = 96
_LEAST_PATCH_FACES = 200
_NORMAL_WEIGHT = 0.25
_LLOYD_STEPS = 5
_SMOOTHING_STEPS = 10


@dataclass(frozen=True)
class Unwrapped:
    """Vertices split along the seams of the texture."""

    vertex_index: Int32[np.ndarray, " w"]
    """Which vertex of the welded mesh each one is."""
    uv_unit: Float32[np.ndarray, "w 2"]
    """Place in the texture, [0, 1], origin at the top left."""
    faces: Int32[np.ndarray, "f 3"]
    """The same triangles in the same order, in split vertices."""


def unwrap(surface: trimesh.Trimesh, *, texture_px: int) -> Unwrapped:
    """Cut a surface into flat charts and pack them into one square.

    xatlas' time grows with the square of the charts' size, so the surface is handed over in patches of like normals:
    five times faster, at the price of some more seams, which the baked colours do not show.

    Source: https://github.com/jpcy/xatlas, through its Python binding.
    """
    import xatlas

    vertices, faces = np.asarray(surface.vertices), np.asarray(surface.faces)
    patch = _patches(surface)
    members = [np.flatnonzero(patch == label) for label in np.unique(patch)]
    atlas, used = xatlas.Atlas(), []
    for rows in members:
        vertex, local = np.unique(faces[rows], return_inverse=True)
        atlas.add_mesh(vertices[vertex].astype(np.float32), local.reshape(-1, 3).astype(np.uint32))
        used.append(vertex)
    charts = xatlas.ChartOptions()
    charts.max_iterations = 1
    charts.max_cost = 4.0  # larger charts than the default of 2: fewer seams
    packing = xatlas.PackOptions()
    packing.resolution = texture_px
    packing.padding = PADDING_TEXELS
    packing.bilinear = True
    atlas.generate(charts, packing)
    split_faces, vertex_index, uv = np.empty(faces.shape, np.int32), [], []
    count = 0
    for number, rows in enumerate(members):
        original, corners, place = atlas[number]
        split_faces[rows] = corners.astype(np.int32) + count
        vertex_index.append(used[number][original])
        uv.append(place)
        count += len(original)
    uv_unit = np.clip(np.concatenate(uv), 0, 1).astype(np.float32)
    return Unwrapped(np.concatenate(vertex_index).astype(np.int32), uv_unit, split_faces)


def _patches(surface: trimesh.Trimesh) -> Int64[np.ndarray, " f"]:
    """A label per face: Lloyd's clusters of place and normal, started at points far from each other."""
    from scipy.spatial import KDTree

    normals = surface.vertex_normals[surface.faces].mean(axis=1)
    features = np.concatenate([surface.triangles_center / surface.extents.max(), _NORMAL_WEIGHT * normals], axis=1)
    chosen, nearest = [0], np.full(len(features), np.inf)
    for _ in range(min(_PATCHES, len(features) // _LEAST_PATCH_FACES)):
        nearest = np.minimum(nearest, ((features - features[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(nearest.argmax()))
    centres = features[chosen]
    label = np.zeros(len(features), np.int64)
    for _ in range(_LLOYD_STEPS):
        label = np.asarray(KDTree(centres).query(features)[1], np.int64)
        count = np.bincount(label, minlength=len(centres))
        sums = np.stack([np.bincount(label, column, minlength=len(centres)) for column in features.T], axis=1)
        centres = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], centres)
    return _without_teeth(label, surface)


def _without_teeth(label: Int64[np.ndarray, " f"], surface: trimesh.Trimesh) -> Int64[np.ndarray, " f"]:
    """Borders between patches straightened: a face whose three neighbours mostly have another label takes it."""
    one, other = surface.face_adjacency.T
    order = np.argsort(np.concatenate([one, other]), kind="stable")
    beside = np.concatenate([other, one])[order]
    start = np.searchsorted(np.concatenate([one, other])[order], np.arange(len(label)))
    inner = np.flatnonzero(np.bincount(surface.face_adjacency.ravel(), minlength=len(label)) == 3)  # not at a rim
    neighbours = beside[start[inner, None] + np.arange(3)]
    for _ in range(_SMOOTHING_STEPS):
        a, b, c = label[neighbours].T
        label = label.copy()
        label[inner] = np.where(a == b, a, np.where(b == c, b, np.where(a == c, a, label[inner])))
    return label

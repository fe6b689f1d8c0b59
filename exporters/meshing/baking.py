"""The texture: every texel looks back at the pictures that see it best.

A view counts with a high power of the cosine between surface and line of sight, times its resolution there, so that
two or three neighbouring views share a place and their weights change smoothly along the surface: no ghosts of many
views on top of each other, no borders between one view and the next. It does not count where the mesh hides the place,
where any of the four pixels asked lies behind an edge, or where the scene's own depth is another surface.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
import trimesh
from jaxtyping import Bool, Float32, Float64, Int, UInt8

from dp360.generation.mesh_raster import Fragments, interpolate, rasterize_mesh, rasterize_texture
from dp360.generation.numba_pool import numba_pool
from dp360.generation.progress import Track

from .compact_renders import Pictures, bilinear
from .unwrap import Unwrapped

_MIN_COSINES = (0.5, 0.12)
"""Views at a lower cosine than the first count only where no better one sees the place; below the second never."""
_DEPTH_TOLERANCE = 0.006
"""World units along the line of sight (about 4 mm) by which mesh and scene may differ, at a cosine of 1."""


def bake(
    surface: trimesh.Trimesh,
    unwrapped: Unwrapped,
    pictures: Pictures,
    *,
    texture_px: int,
    track: Track,
) -> UInt8[np.ndarray, "h w 3"]:
    """Colours of all texels; those between charts continue the nearest chart."""
    vertices, faces = np.asarray(surface.vertices), np.asarray(surface.faces)
    fragments = rasterize_texture(unwrapped.uv_unit, unwrapped.faces, texture_px, texture_px)
    texels = fragments.hit
    attributes = np.concatenate([vertices, surface.vertex_normals], axis=1)[unwrapped.vertex_index].astype(np.float32)
    places_and_normals = interpolate(fragments, attributes, unwrapped.faces)[texels]
    positions = np.ascontiguousarray(places_and_normals[:, :3])
    directions = trimesh.util.unitize(places_and_normals[:, 3:])
    face_of_texel = fragments.triangle_index[texels]
    total = np.zeros((len(positions), 4), np.float32)
    of_cameras, views = (*pictures.kernel_arrays(), pictures.rgb_premultiplied), []
    for i in track(range(len(pictures.cameras)), total=len(pictures.cameras), description="Baking the texture"):
        seen_by_camera = rasterize_mesh(vertices, faces, pictures.cameras[i])
        shown = _faces_around(seen_by_camera, faces, len(vertices))
        views.append((shown, [values[i] for values in of_cameras], seen_by_camera.depth))
    for min_cosine in _MIN_COSINES:
        missing = np.flatnonzero(total[:, 3] == 0)
        part = np.zeros((len(missing), 4), np.float32)
        texels_left = positions[missing], directions[missing], face_of_texel[missing]
        for shown, view, mesh_depth in views:
            with numba_pool(len(missing)):
                _add_view(part, *texels_left, shown, mesh_depth, min_cosine, *view)
        total[missing] = part
    seen = total[:, 3] > 0
    colours = total[:, :3] / np.maximum(total[:, 3:], 1e-30)
    if seen.any() and not seen.all():
        of_vertices = _from_neighbours(positions[seen], colours[seen], vertices)
        filled = interpolate(fragments, of_vertices[unwrapped.vertex_index], unwrapped.faces)[texels]
        colours[~seen] = filled[~seen]
    picture = np.zeros((texture_px, texture_px, 3), np.uint8)
    picture[texels] = np.clip(colours + 0.5, 0, 255).astype(np.uint8)
    return continued(picture, texels)


def _faces_around(fragments: Fragments, faces: Int[np.ndarray, "f 3"], vertex_count: int) -> Bool[np.ndarray, " f"]:
    """Faces that a camera sees, and those that share a vertex with one: the only ones whose texels are worth a look."""
    touched = np.zeros(vertex_count, bool)
    touched[faces[np.unique(fragments.triangle_index[fragments.hit])]] = True
    return touched[faces].any(axis=1)


def _from_neighbours(
    positions: Float32[np.ndarray, "s 3"], colours: Float32[np.ndarray, "s 3"], wanted: Float64[np.ndarray, "q 3"]
) -> Float32[np.ndarray, "q 3"]:
    """Colours of places that no view sees: the mean of the nearest seen ones in space, nearer ones counting more."""
    from scipy.spatial import KDTree

    step = max(1, len(positions) // 200_000)
    tree = KDTree(positions[::step])
    distance, index = tree.query(wanted, k=min(12, len(positions[::step])), workers=-1)
    distance, index = np.atleast_2d(distance.T).T, np.atleast_2d(index.T).T
    weight = 1.0 / (distance + 1e-3) ** 2
    mean = (colours[::step][index] * weight[..., None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    return mean.astype(np.float32)


def continued(picture: UInt8[np.ndarray, "h w 3"], covered: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Uncovered texels get the colour of the nearest covered one: no foreign colour at seams."""
    from scipy.ndimage import distance_transform_edt

    if covered.all() or not covered.any():
        return picture
    nearest = np.asarray(distance_transform_edt(~covered, return_distances=False, return_indices=True))
    return np.ascontiguousarray(picture[nearest[0], nearest[1]])


@numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
@no_type_check
def _add_view(
    total, positions, directions, face_of_texel, shown, mesh_depth, min_cosine, eye, T, lens, alpha, depth, facing, rgb
):
    """Add weight times colour (0 to 255), and weight, of one picture to all texels that it sees."""
    height, width = alpha.shape
    fx, fy, cx, cy = lens[0], lens[1], lens[2], lens[3]
    for i in numba.prange(positions.shape[0]):
        if not shown[face_of_texel[i]]:
            continue
        x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
        dx, dy, dz = eye[0] - x, eye[1] - y, eye[2] - z
        cosine = directions[i, 0] * dx + directions[i, 1] * dy + directions[i, 2] * dz
        if not cosine > 0.0:
            continue
        cosine /= np.sqrt(dx * dx + dy * dy + dz * dz)
        if cosine < min_cosine:
            continue
        zc = T[8] * x + T[9] * y + T[10] * z + T[11]
        u = fx * (T[0] * x + T[1] * y + T[2] * z + T[3]) / zc + cx - 0.5
        v = fy * (T[4] * x + T[5] * y + T[6] * z + T[7]) / zc + cy - 0.5
        if not (u >= 2.0 and v >= 2.0 and u < width - 3 and v < height - 3):
            continue
        row, col = int(v), int(u)
        tolerance = _DEPTH_TOLERANCE + 2.0 * (zc / fx) * np.sqrt(1.0 - min(cosine * cosine, 1.0)) / cosine
        visible = True
        worst = 0.0
        for p in range(row, row + 2):
            for q in range(col, col + 2):
                if alpha[p, q] < 128 or facing[p, q] < 30 or abs(mesh_depth[p, q] - zc) > tolerance:
                    visible = False
                worst = max(worst, abs(depth[p, q] - zc))
        if not visible or worst > 2.5 * tolerance:
            continue
        fv, fu = v - row, u - col
        a = bilinear(alpha, row, col, fv, fu)
        # views that look past the edge of the picture fade out over 24 pixels
        c2, r2 = cosine * cosine, (fx / (300.0 * zc)) ** 2
        c8 = c2 * c2 * c2 * c2
        border = min(u, width - 1.0 - u, v, height - 1.0 - v) / 24.0
        weight = c8 * c2 * r2 * r2 * min(border, 1.0) ** 2
        weight *= np.exp(-((worst / tolerance) ** 2)) + 1e-6
        for k in range(3):
            c = bilinear(rgb[:, :, k], row, col, fv, fu)
            total[i, k] += weight * min(c * 255.0 / a, 255.0)
        total[i, 3] += weight

"""An avatar's texture with the colours of the finished head, where other than the prior's views were fitted.

The rig has the prior's texture. A diffusion model changes what the views show, and the splats keep that. The
difference between splats and rig, seen by the same cameras, is what was changed; it is looked up for every texel and
added, so that the texture keeps detail that is finer than views.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32

from dp360.generation import Cameras, look_at_origin
from dp360.generation.mesh_raster import interpolate, rasterize_mesh, rasterize_texture, sample_texture
from dp360.generation.prior.texture.atlas import MATERIAL_EYE, MATERIAL_MOUTH, MATERIAL_TEETH
from dp360.reconstruction.splats import Splats, render_splats

from .rig import Rig
from .welded import Welded

_AZIMUTHS, _ELEVATIONS_DEG, _SIZE_PX = 12, (0.0, 35.0, -15.0), 512
_TEXTURE_SHARE = 2
"""The change has so many times fewer texels along each side than the texture: views are no finer."""
_BLUR_PX, _OPAQUE = 2.0, 0.9
"""Splats are off by a pixel at edges; where they let light through they say nothing."""
_DEPTH_TOLERANCE = 0.006
"""World units by which a texel may lie behind what the camera sees, at a cosine of 1."""
_LEAST_COSINE, _POWER = 0.2, 4
_LEAST_WEIGHT = 1e-4
_REACH_TEXELS, _LEAST_NEAR = 3.0, 0.05
"""What no camera sees beside what one does changes along over about this distance."""


def with_finished_colours(rig: Rig, splats: Splats) -> Rig:
    """The rig with the colours of the splats where cameras round the head see them; all else stays.

    Args:
        rig: a head with the prior's texture.
        splats: the finished head, as the portrait shows it.
    """
    height, width = rig.texture_rgb.shape[0] // _TEXTURE_SHARE, rig.texture_rgb.shape[1] // _TEXTURE_SHARE
    fragments = rasterize_texture(rig.uv_unit, rig.faces, width, height)
    shown = fragments.hit & _takes_part(rig)[fragments.triangle_index]
    vertices = rig.portrait_vertices_world
    welded = Welded.of(rig.vertices_world, rig.faces, rig.head_vertex)
    attributes = np.concatenate([vertices, welded.normals(vertices.astype(np.float64))], axis=1).astype(np.float32)
    texels = interpolate(fragments, attributes, rig.faces)[shown]
    total = np.zeros((len(texels), 4), np.float32)
    for elevation_deg in _ELEVATIONS_DEG:
        azimuths = (np.arange(_AZIMUTHS) * 2 * math.pi / _AZIMUTHS).tolist()
        elevations = [math.radians(elevation_deg)] * _AZIMUTHS
        cameras = look_at_origin(azimuths, elevations, size_px=_SIZE_PX)
        for i in range(len(cameras)):
            _add_view(total, texels, rig, splats, cameras[i])
    seen = total[:, 3] > _LEAST_WEIGHT
    change, known = np.zeros((height, width, 3), np.float32), np.zeros((height, width), bool)
    change[shown] = np.where(seen[:, None], total[:, :3] / np.maximum(total[:, 3:], _LEAST_WEIGHT), 0)
    known[shown] = seen
    change = cv2.resize(_continued(change, known, fragments.hit & ~shown), rig.texture_rgb.shape[1::-1])
    texture, albedo = (
        np.clip(picture + change + 0.5, 0, 255).astype(np.uint8) for picture in (rig.texture_rgb, rig.albedo_rgb)
    )
    return replace(rig, texture_rgb=texture, albedo_rgb=albedo)


def _add_view(
    total: Float32[np.ndarray, "n 4"], texels: Float32[np.ndarray, "n 6"], rig: Rig, splats: Splats, camera: Cameras
) -> None:
    """Add weight times change (0 to 255), and weight, of what one camera sees to all texels."""
    size = np.array(rig.texture_rgb.shape[1::-1])
    seen = rasterize_mesh(rig.portrait_vertices_world, rig.faces, camera)
    uv_px = interpolate(seen, (rig.uv_unit * size).astype(np.float32), rig.faces)
    own = sample_texture(rig.texture_rgb.astype(np.float32), uv_px)
    picture, alpha = render_splats(splats, camera)
    taking_part = seen.hit & _takes_part(rig)[seen.triangle_index]
    trust = (taking_part & (alpha[0].numpy() > _OPAQUE)).astype(np.float32)
    change = trust[..., None] * (255 * picture[0].numpy() - own)
    near = cv2.GaussianBlur(trust, (0, 0), _BLUR_PX)
    change = cv2.GaussianBlur(change, (0, 0), _BLUR_PX) / np.maximum(near, 1e-3)[..., None]

    places, normals = texels[:, :3], texels[:, 3:]
    to_eye = camera.position_world[0].numpy() - places
    cosine = (normals * to_eye).sum(1) / np.maximum(
        np.linalg.norm(to_eye, axis=1) * np.linalg.norm(normals, axis=1), 1e-9
    )
    projected = camera.project(torch.from_numpy(places.astype(np.float64)))[0].numpy()
    depth, (column, row) = projected[:, 2], np.floor(projected[:, :2]).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height) & (cosine > _LEAST_COSINE)
    column, row, cosine = column[inside], row[inside], cosine[inside]
    open_to = depth[inside] <= seen.depth[row, column] + _DEPTH_TOLERANCE / cosine
    weight = (cosine**_POWER * open_to * trust[row, column]).astype(np.float32)
    total[inside] += weight[:, None] * np.concatenate([change[row, column], np.ones((len(row), 1), np.float32)], axis=1)


def _takes_part(rig: Rig) -> Bool[np.ndarray, " f"]:
    """Triangles whose texels change: not what lids and lips hide, which is painted for a head that moves."""
    return ~np.isin(rig.material, (MATERIAL_EYE, MATERIAL_MOUTH, MATERIAL_TEETH))


def _continued(
    change: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"], kept: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 3"]:
    """Texels next to known ones, between charts too, change as these do; what is to be kept does not."""
    weight = known.astype(np.float32)
    near = cv2.GaussianBlur(weight, (0, 0), _REACH_TEXELS)
    mean = cv2.GaussianBlur(change * weight[..., None], (0, 0), _REACH_TEXELS) / np.maximum(near, 1e-3)[..., None]
    reached = ~known & ~kept & (near > _LEAST_NEAR)
    return np.where(known[..., None], change, np.where(reached[..., None], mean, 0))

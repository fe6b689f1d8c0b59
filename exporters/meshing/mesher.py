"""The whole way: pictures of a scene, a solid, its surface, a texture."""

from __future__ import annotations

import numpy as np

from dp360.generation import InputError
from dp360.generation.mesh import TexturedMesh
from dp360.generation.progress import Track, silent
from dp360.reconstruction.renders import Renderable

from .baking import bake
from .closed_surface import smooth_taubin, vertex_normals
from .compact_renders import take_pictures
from .config import MeshConfig
from .decimate import decimate
from .fusion import fuse
from .solid import clean_solid, extract_surface
from .unwrap import unwrap

_HEAD_Y = (-0.26, -0.16)
"""World heights between which the importance of detail rises from one to the config's value."""
_DEFAULT = MeshConfig()


def mesh_from_renders(scene: Renderable, config: MeshConfig = _DEFAULT, *, track: Track = silent) -> TexturedMesh:
    """A closed surface of the scene with a texture, in world units.

    Args:
        scene: splats, a radiance field, or anything else that renders colour, alpha and depth.
        config: resolution, budget and cameras.
        track: progress, for people.

    Raises:
        InputError: nothing to be seen within `config.half_extent` of the origin, or above `config.bottom_y`.
    """
    pictures = take_pictures(scene, config.cameras(), track)
    steps = iter(track(range(4), total=4, description="Building the surface"))
    next(steps)
    field = clean_solid(fuse(pictures, config), genus_zero=config.genus_zero)
    next(steps)
    vertices, faces = extract_surface(field)
    if len(faces) < 4:
        raise InputError("Cannot make a mesh: the scene is smaller than a voxel; choose a smaller voxel_size")
    vertices = smooth_taubin(vertices, faces, steps=config.smoothing_steps)
    next(steps)
    share = np.clip((vertices[:, 1] - _HEAD_Y[0]) / (_HEAD_Y[1] - _HEAD_Y[0]), 0, 1)
    importance = 1 + (config.head_importance - 1) * share
    vertices, faces = decimate(vertices, faces, face_budget=config.face_budget, importance=importance)
    normals = vertex_normals(vertices, faces)
    next(steps)
    unwrapped = unwrap(vertices, normals, faces, texture_px=config.texture_px)
    for _ in steps:
        pass
    texture = bake(vertices, normals, faces, unwrapped, pictures, texture_px=config.texture_px, track=track)
    return TexturedMesh(
        vertices_world=vertices[unwrapped.vertex_index].astype(np.float32),
        normals_world=normals[unwrapped.vertex_index].astype(np.float32),
        uv_unit=unwrapped.uv_unit,
        faces=unwrapped.faces,
        texture_rgb=texture,
    )

"""The whole way: pictures of a scene, a solid, its surface, a texture."""

from __future__ import annotations

import numpy as np

from dp360.generation import InputError
from dp360.generation.mesh import TexturedMesh
from dp360.generation.progress import Track, silent
from dp360.reconstruction.splat_scene import Renderable

from .baking import bake
from .closed_surface import extract_surface, simplify, smooth_taubin
from .compact_renders import take_pictures
from .config import MeshConfig
from .fusion import fuse
from .solid import clean_solid
from .unwrap import unwrap

_DEFAULT = MeshConfig()


def mesh_from_renders(scene: Renderable, config: MeshConfig = _DEFAULT, *, track: Track = silent) -> TexturedMesh:
    """A closed surface of the scene with a texture, in world units.

    Args:
        scene: splats, a radiance field, or anything else that renders colour, alpha and depth.

    Raises:
        InputError: nothing to be seen within `config.half_extent` of the origin, or above `config.bottom_y`.
    """
    pictures = take_pictures(scene, config.cameras(), track)
    steps = iter(track(range(3), total=3, description="Building the surface"))
    next(steps)
    surface = extract_surface(clean_solid(fuse(pictures, config)))
    next(steps)
    if len(surface.faces) < 4:
        raise InputError("Cannot make a mesh: the scene is smaller than a voxel; choose a smaller voxel_size")
    smooth_taubin(surface, steps=config.smoothing_steps)
    surface = simplify(surface, config.face_budget)
    next(steps)
    unwrapped = unwrap(surface, texture_px=config.texture_px)
    for _ in steps:
        pass
    texture = bake(surface, unwrapped, pictures, texture_px=config.texture_px, track=track)
    return TexturedMesh(
        vertices_world=surface.vertices[unwrapped.vertex_index].astype(np.float32),
        normals_world=surface.vertex_normals[unwrapped.vertex_index].astype(np.float32),
        uv_unit=unwrapped.uv_unit,
        faces=unwrapped.faces,
        texture_rgb=texture,
    )

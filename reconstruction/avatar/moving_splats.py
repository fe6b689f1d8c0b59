"""Fitted splats made ready to move: bound to the surface, with Gaussians for what a still head hides.

Gaussians at eyes, lids and lips show what lay there in the portrait. They give way to Gaussians that are laid over the
rig's own surface, with its paint, where lids are let down and the mouth is open; so do teeth, gums, tongue and throat.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from scipy.spatial import KDTree

from dp360.generation import PointCloud
from dp360.generation.cameras import UNITS_PER_CM, look_at_origin
from dp360.generation.head_model.anatomy import ramp
from dp360.generation.light.spherical_harmonics import Light
from dp360.generation.mesh import vertex_normals
from dp360.generation.mesh_raster import rasterize_mesh, sample_texture
from dp360.generation.prior.texture.atlas import MATERIAL_EYE, MATERIAL_MOUTH, MATERIAL_SKIN, MATERIAL_TEETH
from dp360.reconstruction.splats import Splats, splats_from_point_cloud

from .arkit import index_of
from .binding import Binding, nearest_triangles
from .carrying import carried
from .lighting import OPEN, SurfaceLight
from .poses import Pose
from .rig import Rig
from .surface import Surface

_BLINK_CM, _LIPS_CM, _NEAR_EYE_CM = (0.04, 0.2), (0.6, 1.1), (0.9, 0.6)
"""Skin is covered anew from the second number on, and less and less down to the first: moved by a blink, moved by all
of `_PARTED` together, distance from an eyeball."""
_SHOWING: tuple[dict[str, float], ...] = (
    {},
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0, "jawOpen": 1.0},
    {"jawOpen": 0.7, "tongueOut": 1.0, "mouthSmileLeft": 0.8, "mouthSmileRight": 0.8},
    {"jawOpen": 0.15, "mouthUpperUpLeft": 1.0, "mouthUpperUpRight": 1.0, "mouthLowerDownLeft": 1.0,
     "mouthLowerDownRight": 1.0, "mouthSmileLeft": 0.5, "mouthSmileRight": 0.5},
    {"eyeLookUpLeft": 1.0, "eyeLookUpRight": 1.0, "eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0},
    {"eyeLookDownLeft": 1.0, "eyeLookDownRight": 1.0, "eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0},
)  # fmt: skip
"""Poses that together show all that is worth covering."""
_PARTED = ("mouthRollLower", "mouthRollUpper", "mouthFunnel")
_SPACING_CM = {MATERIAL_SKIN: 0.045, MATERIAL_EYE: 0.045, MATERIAL_TEETH: 0.06, MATERIAL_MOUTH: 0.13}
"""Distance between Gaussians."""
_INNER = (MATERIAL_EYE, MATERIAL_MOUTH, MATERIAL_TEETH)
_OPACITY, _LEAST_SHARE, _GIVES_WAY = 0.97, 0.02, 0.6
"""Of Gaussians over the rig's surface; shares below which there are none, and from which fitted Gaussians give way."""
_FAR_CM = 1.2
"""Gaussians farther than this from all skin at eyes and lips stay, whatever they are bound to."""


def moving_splats(
    splats: Splats, rig: Rig, *, painted_in: Light | None = None, seed: int = 0
) -> tuple[Splats, Binding]:
    """Gaussians that can be animated, and their binding.

    Args:
        splats: fitted to views of the head with the portrait's expression, world units.
        rig: the head's.
        painted_in: the light that they are in, where it is known.
        seed: of the places of Gaussians on the rig's surface.
    """
    cover_share = covered_share(rig)
    points = splats.means_world.numpy()
    triangle, barycentric, distance = nearest_triangles(points, rig.portrait_vertices_world, rig.faces)
    there = (cover_share[rig.faces[triangle]] * barycentric).sum(1)
    stays = (there < _GIVES_WAY) & ~np.isin(rig.material[triangle], _INNER)
    stays |= distance > _FAR_CM * UNITS_PER_CM
    kept = splats[torch.from_numpy(np.flatnonzero(stays))]
    cover, at, weights = _cover(rig, cover_share, splats.sh_rest.shape[1], seed)
    parts = {name: torch.cat([getattr(kept, name), getattr(cover, name)]) for name in vars(kept)}
    return Splats(**parts), Binding(
        np.concatenate([triangle[stays], at]),
        np.concatenate([barycentric[stays], weights]).astype(np.float32),
        rig.portrait_vertices_world,
        _surface(rig),
        SurfaceLight.of(rig, painted_in),
    )


def _surface(rig: Rig) -> Surface:
    """The part of a rig that moves."""
    return Surface(rig.vertices_world, rig.faces, rig.shapes, rig.skeleton, rig.joint_weights)


def covered_share(rig: Rig) -> Float[np.ndarray, " v"]:
    """How far the rig's surface takes the place of fitted Gaussians at each vertex: 1 at eyes, mouth, lids and lips."""

    def moved_cm(*names: str) -> Float[np.ndarray, " v"]:
        return np.sum([np.linalg.norm(rig.shapes[index_of(name)], axis=1) for name in names], axis=0) / UNITS_PER_CM

    eyes = np.unique(rig.faces[rig.material == MATERIAL_EYE])
    off_cm = KDTree(rig.vertices_world[eyes]).query(rig.vertices_world)[0] / UNITS_PER_CM
    share = np.maximum(ramp(moved_cm("eyeBlinkLeft", "eyeBlinkRight"), *_BLINK_CM), ramp(off_cm, *_NEAR_EYE_CM))
    share = np.maximum(share, ramp(moved_cm(*_PARTED), *_LIPS_CM))
    skin = np.zeros(len(share), bool)
    skin[rig.faces[rig.material == MATERIAL_SKIN]] = True
    share[~skin] = 0.0
    share[np.unique(rig.faces[np.isin(rig.material, _INNER)])] = 1.0
    return share


def _ever_seen(rig: Rig) -> Bool[np.ndarray, " f"]:
    """Triangles that some pose shows to some camera in front."""
    seen = np.zeros(len(rig.faces) + 1, bool)
    angles = [(0.0, 0.0), (0.6, 0.15), (-0.6, 0.15), (0.0, -0.4), (1.0, 0.0), (-1.0, 0.0), (0.0, 0.4)]
    azimuths, elevations = [a for a, _ in angles], [e for _, e in angles]
    cameras = look_at_origin(azimuths, elevations, size_px=1024, focal_normalised=8.0)
    for shapes in _SHOWING:
        vertices = rig.posed(Pose.of(shapes))
        for camera in cameras:
            seen[rasterize_mesh(vertices, rig.faces, camera).triangle_index.ravel()] = True
    return seen[:-1]


def _cover(
    rig: Rig, cover_share: Float[np.ndarray, " v"], harmonics: int, seed: int
) -> tuple[Splats, Int64[np.ndarray, " n"], Float32[np.ndarray, "n 3"]]:
    """Gaussians over the rig's surface, at rest, with their triangles and weights."""
    opened = rig.posed(OPEN)
    anew = (cover_share[rig.faces].max(1) > _LEAST_SHARE) & np.isin(rig.material, list(_SPACING_CM))
    rows = np.flatnonzero(anew & _ever_seen(rig))
    corners = opened[rig.faces[rows]]
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    spacing = np.vectorize(_SPACING_CM.get)(rig.material[rows]).astype(np.float64) * UNITS_PER_CM
    share = area / spacing**2
    generator = np.random.default_rng(seed)
    # low-discrepancy along the list of triangles: as even as the areas are
    count = int(share.sum())
    chosen = np.searchsorted(np.cumsum(share), (np.arange(count) + generator.random(count)) * share.sum() / count)
    chosen = np.minimum(chosen, len(rows) - 1)
    r1, r2 = generator.random((2, count))
    root = np.sqrt(r1)
    weights = np.stack([1 - root, root * (1 - r2), root * r2], axis=1)
    triangle = rows[chosen]
    blurred = cv2.GaussianBlur(rig.texture_rgb, (0, 0), 0.8).astype(np.float32) / 255
    height, width = blurred.shape[:2]

    def at(values: Float[np.ndarray, "v c"]) -> Float[np.ndarray, "n c"]:
        return (values[rig.faces[triangle]] * weights[..., None]).sum(1)

    rgb = sample_texture(blurred, (at(rig.uv_unit) * [width, height]).astype(np.float32))
    normals = at(vertex_normals(opened, rig.faces))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    cloud = PointCloud(*(torch.from_numpy(np.ascontiguousarray(v, np.float32)) for v in (at(opened), normals, rgb)))
    flat = splats_from_point_cloud(cloud)
    opacity = _OPACITY * np.maximum(at(cover_share[:, None])[:, 0], _LEAST_SHARE)
    size = torch.from_numpy(np.log(0.85 * spacing[chosen]).astype(np.float32))[:, None]
    flat = replace(
        flat,
        log_scales=size + torch.tensor([0.0, 0.0, -1.6]),
        opacity_logits=torch.logit(torch.from_numpy(opacity.astype(np.float32))),
        sh_rest=torch.zeros(count, harmonics, 3),
    )
    weights = weights.astype(np.float32)
    return carried(flat, triangle, weights, rig.faces, opened, rig.portrait_vertices_world), triangle, weights

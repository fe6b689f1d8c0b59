"""From renders to a mesh: known solids come back closed, in place, textured; each step keeps its law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from dp360.exporters.mesh_arrays import arrays_for_mesh_file
from dp360.exporters.meshing import MeshConfig, Ring, mesh_from_renders, run_mesh
from dp360.exporters.meshing.closed_surface import extract_surface, simplify, smooth_taubin
from dp360.exporters.meshing.fusion import DistanceField
from dp360.exporters.meshing.solid import clean_solid
from dp360.exporters.meshing.unwrap import unwrap
from dp360.generation import Cameras, InputError
from dp360.generation.mesh import TexturedMesh
from dp360.reconstruction.splat_scene import Renders, SplatScene
from dp360.reconstruction.splats import Splats

RADIUS = 0.2
QUICK = MeshConfig(
    face_budget=2000,
    texture_px=256,
    voxel_size=0.008,
    render_px=128,
    bottom_y=-0.15,
    near_rings=(Ring(10, 0.0), Ring(6, 30.0)),
    far_rings=(Ring(8, 10.0), Ring(6, 60.0)),
)


class Ball:
    """An opaque sphere, rendered exactly: red where x > 0.05, blue where z > 0.1, grey elsewhere."""

    def __init__(self, radius: float = RADIUS) -> None:
        self.radius = radius

    def render(self, cameras: Cameras) -> Renders:
        rows, columns = torch.meshgrid(
            torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij"
        )
        pictures = []
        for camera in cameras:
            x = (columns - camera.principal_px[0, 0]) / camera.focal_px[0, 0]
            y = (rows - camera.principal_px[0, 1]) / camera.focal_px[0, 1]
            rays = torch.stack([x, y, torch.ones_like(x)], dim=-1).double() @ camera.T_world_camera[0, :3, :3].mT
            eye = camera.position_world[0]
            a, b, c = rays.square().sum(-1), rays @ eye, eye @ eye - self.radius**2
            root = b.square() - a * c
            depth = (-b - root.clamp_min(0).sqrt()) / a
            points = eye + depth[..., None] * rays
            rgb = torch.full((*x.shape, 3), 0.5)
            rgb[points[..., 0] > 0.05] = torch.tensor([0.9, 0.1, 0.1])
            rgb[points[..., 2] > 0.1] = torch.tensor([0.1, 0.1, 0.9])
            alpha = (root > 0).float()
            pictures.append((rgb * alpha[..., None], alpha, depth.float() * alpha))
        return Renders(*(torch.stack(channel) for channel in zip(*pictures)))


def welded(mesh: TexturedMesh) -> trimesh.Trimesh:
    return arrays_for_mesh_file(mesh, metres_per_unit=1.0, writer="test").to_trimesh()


def assert_closed(surface: trimesh.Trimesh, *, genus: int = 0) -> None:
    """One piece whose edges lie between two faces each, faces looking outwards, and as many handles as said."""
    assert surface.is_watertight and surface.is_winding_consistent and surface.body_count == 1
    assert surface.euler_number == 2 - 2 * genus and surface.volume > 0


@pytest.fixture(scope="module")
def ball():
    return mesh_from_renders(Ball(), QUICK)


def test_a_ball_comes_back_closed_and_cut_flat(ball):
    surface = welded(ball)
    assert_closed(surface)
    assert 1000 < len(surface.faces) <= QUICK.face_budget
    vertices = np.asarray(surface.vertices)
    above = vertices[vertices[:, 1] > QUICK.bottom_y + 2 * QUICK.voxel_size]
    np.testing.assert_allclose(np.linalg.norm(above, axis=1), RADIUS, atol=0.8 * QUICK.voxel_size)
    assert abs(vertices[:, 1].min() - QUICK.bottom_y) < QUICK.voxel_size


def test_colours_lie_where_they_were_seen(ball):
    height, width = ball.texture_rgb.shape[:2]
    sampled = ball.texture_rgb[
        (ball.uv_unit[:, 1] * height).astype(int).clip(0, height - 1),
        (ball.uv_unit[:, 0] * width).astype(int).clip(0, width - 1),
    ].astype(float)
    x, y, z = ball.vertices_world.T
    seen = y > QUICK.bottom_y + 0.03
    for where, rgb in (
        (seen & (z > 0.12), (0.1, 0.1, 0.9)),
        (seen & (x > 0.07) & (z < 0.08), (0.9, 0.1, 0.1)),
        (seen & (x < 0.03) & (z < 0.08), (0.5, 0.5, 0.5)),
    ):
        assert where.sum() > 20 and np.abs(sampled[where] / 255 - rgb).max() < 0.06


def test_normals_look_outwards_and_do_not_break_at_seams(ball):
    seen = ball.vertices_world[:, 1] > QUICK.bottom_y + 4 * QUICK.voxel_size
    outward = ball.vertices_world / np.linalg.norm(ball.vertices_world, axis=1, keepdims=True)
    facing = (ball.normals_world * outward).sum(axis=1)[seen]
    assert facing.min() > 0.9 and (facing > 0.97).mean() > 0.99, (facing.min(), (facing > 0.97).mean())
    index = arrays_for_mesh_file(ball, metres_per_unit=1.0, writer="test").welded_index
    assert len(index) > index.max() + 1  # there are seams
    first = np.zeros((index.max() + 1, 3), np.float32)
    first[index] = ball.normals_world
    np.testing.assert_array_equal(first[index], ball.normals_world)


def test_same_scene_same_mesh(ball):
    again = mesh_from_renders(Ball(), QUICK)
    for name in ("vertices_world", "normals_world", "uv_unit", "faces", "texture_rgb"):
        np.testing.assert_array_equal(getattr(again, name), getattr(ball, name))


def test_splats_become_a_mesh(marked_head):
    config = MeshConfig(
        face_budget=4000,
        texture_px=256,
        voxel_size=0.008,
        render_px=128,
        near_rings=QUICK.near_rings,
        far_rings=QUICK.far_rings,
    )
    surface = welded(mesh_from_renders(SplatScene(marked_head), config))
    assert_closed(surface)
    low, high = surface.bounds
    assert high[0] > -low[0] + 0.001  # the ear stands out
    assert 0.15 < high[1] < 0.25 and high[2] > 0.16


def test_splats_are_not_rendered_larger_for_the_mesh_than_they_were_fitted():
    sides = {px: run_mesh(px).render_px for px in (32, 256, 384, 512, 1024)}
    assert sides == {32: 128, 256: 256, 384: 384, 512: 384, 1024: 384}
    assert len(run_mesh(256).cameras()) < len(run_mesh(512).cameras())


def test_nothing_to_see_is_said_in_one_sentence(marked_head):
    with pytest.raises(InputError, match="expected splats, got none"):
        SplatScene(marked_head[torch.zeros(len(marked_head), dtype=torch.bool)])
    faint = Splats(**{**vars(marked_head), "opacity_logits": torch.full((len(marked_head),), -12.0)})
    with pytest.raises(InputError, match="the renders are empty"):
        mesh_from_renders(SplatScene(faint), QUICK)
    with pytest.raises(InputError, match="found no surface above"):
        mesh_from_renders(Ball(), MeshConfig(**{**vars(QUICK), "bottom_y": 0.4}))


def field_of(inside: np.ndarray) -> DistanceField:
    from scipy.ndimage import gaussian_filter

    return DistanceField(gaussian_filter(np.where(inside, -1.0, 1.0), 1.0).astype(np.float32), np.zeros(3), 1.0)


def grid(size: int = 40) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(size) - size / 2 + 0.25] * 3, indexing="ij"))


def test_handles_cavities_and_crumbs_go():
    """A torus with a ball hollow inside and a crumb beside: genus 1 as it is, a deformed sphere once cleaned."""
    x, y, z = grid()
    torus = (np.hypot(x, y) - 12) ** 2 + z**2 < 25
    torus &= ~((x - 12) ** 2 + y**2 + z**2 < 4)
    torus |= (x**2 + y**2 + z**2) < 4
    kept = extract_surface(field_of(torus))
    assert_closed(kept, genus=1)
    cut = extract_surface(clean_solid(field_of(torus)))
    assert_closed(cut)
    assert cut.volume > 0.9 * kept.volume


def test_random_solids_become_spheres():
    from scipy.ndimage import gaussian_filter

    for seed in range(3):
        noise = gaussian_filter(np.random.default_rng(seed).standard_normal((36, 36, 36)), 1.5)
        inside = noise > -0.02
        inside[[0, -1]] = inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
        assert_closed(extract_surface(clean_solid(field_of(inside))))


@pytest.fixture(scope="module")
def torus():
    x, y, z = grid(60)
    distance = np.sqrt((np.hypot(x, y) - 18) ** 2 + z**2) - 7
    return extract_surface(DistanceField(distance.astype(np.float32), np.zeros(3), 1.0))


@pytest.mark.parametrize("budget", [4000, 1000, 300])
def test_simplification_keeps_the_kind_of_surface(torus, budget):
    surface = simplify(torus, budget)
    assert len(surface.faces) <= budget
    assert_closed(surface, genus=1)
    assert abs(surface.volume / (2 * math.pi**2 * 18 * 49) - 1) < 60 / budget
    centred = surface.vertices - (30 - 0.25)
    distance = np.sqrt((np.hypot(centred[:, 0], centred[:, 1]) - 18) ** 2 + centred[:, 2] ** 2)
    assert np.abs(distance - 7).max() < 0.3 + 600 / budget


def test_smoothing_takes_noise_and_keeps_volume(torus):
    smooth = torus.copy()
    smooth.vertices += np.random.default_rng(0).normal(0, 0.15, torus.vertices.shape)
    before = np.abs(((smooth.vertices - torus.vertices) * torus.vertex_normals).sum(axis=1)).mean()
    smooth_taubin(smooth, steps=8)
    after = np.abs(((smooth.vertices - torus.vertices) * torus.vertex_normals).sum(axis=1)).mean()
    assert after < 0.6 * before
    assert abs(smooth.volume / torus.volume - 1) < 0.01


@pytest.mark.parametrize("is_open", [False, True])
def test_unwrapping_keeps_faces_and_overlaps_nowhere(torus, is_open):
    surface = simplify(torus, 1500)
    if is_open:
        surface = trimesh.Trimesh(surface.vertices, surface.faces[surface.triangles_center[:, 0] < 40], process=False)
    unwrapped = unwrap(surface, texture_px=512)
    np.testing.assert_array_equal(unwrapped.vertex_index[unwrapped.faces], surface.faces)
    assert unwrapped.uv_unit.min() >= 0 and unwrapped.uv_unit.max() <= 1
    a, b, c = unwrapped.uv_unit[unwrapped.faces].astype(np.float64).transpose(1, 0, 2)
    area = np.abs(np.cross(b - a, c - a)).sum() / 2
    picture = np.zeros((1024, 1024), np.uint8)
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for corners in unwrapped.uv_unit[unwrapped.faces] * 1024:
        draw.polygon([tuple(p) for p in corners.tolist()], fill=1)
    covered = np.asarray(image).mean()
    assert 0.3 < area < covered * 1.02  # areas add up to what is covered: no triangle lies on another

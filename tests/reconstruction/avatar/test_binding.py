"""Gaussians that follow a surface: rigid where it is rigid, as a plain float64 version says, never spikes."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dp360.generation import InputError
from dp360.generation.cameras import UNITS_PER_CM, look_at_origin
from dp360.generation.mesh_raster import rasterize_mesh
from dp360.reconstruction.avatar.binding import animate, decode_binding, nearest_triangles
from dp360.reconstruction.avatar.carrying import MOST_STRETCH, carried
from dp360.reconstruction.avatar.moving_splats import covered_share, moving_splats
from dp360.reconstruction.avatar.poses import Pose, pose_from_text
from dp360.reconstruction.splats import Splats, render_splats

TRIANGLES = np.array([[0, 1, 2], [1, 3, 2]])
FLAT = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.2]])


def some_splats(count: int, seed: int = 0, degree: int = 1) -> Splats:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    rest = normal(count, (degree + 1) ** 2 - 1, 3)
    return Splats(normal(count, 3), normal(count, 3) - 3, normal(count, 4), normal(count), normal(count, 3), rest)


def plain(splats: Splats, triangle, weights, faces, rest, posed):
    """The slow twin of `carried` in float64, with numpy's decompositions: means, axes and scales."""
    means, axes, scales = [], [], []
    for i, t in enumerate(triangle):
        frames, edges = [], []
        for vertices in (rest, posed):
            a, b, c = vertices[faces[t]]
            first = (b - a) / np.linalg.norm(b - a)
            normal = np.cross(b - a, c - a)
            normal /= np.linalg.norm(normal)
            frame = np.stack([first, np.cross(normal, first), normal], axis=1)
            frames.append(frame)
            edges.append((frame.T @ np.stack([b - a, c - a], axis=1))[:2])
        U, s, Vt = np.linalg.svd(edges[1] @ np.linalg.inv(edges[0]))
        stretch, turn = np.eye(3), np.eye(3)
        stretch[:2, :2] = U @ np.diag(np.clip(s, 1 / MOST_STRETCH, MOST_STRETCH)) @ Vt
        turn[:2, :2] = U @ Vt
        F, R = frames[1] @ stretch @ frames[0].T, frames[1] @ turn @ frames[0].T
        place = weights[i].astype(float) @ rest[faces[t]]
        means.append(weights[i].astype(float) @ posed[faces[t]] + F @ (splats.means_world[i].double().numpy() - place))
        own = Rotation.from_quat(splats.quats_wxyz[i].double().numpy()[[1, 2, 3, 0]]).as_matrix()
        axes.append(R @ own)
        longer = np.clip(np.linalg.norm(F @ own, axis=0), 1 / MOST_STRETCH, MOST_STRETCH)
        scales.append(splats.log_scales[i].double().numpy() + np.log(longer))
    return np.array(means), np.array(axes), np.array(scales)


def matrices(splats: Splats) -> np.ndarray:
    return Rotation.from_quat(splats.quats_wxyz.double().numpy()[:, [1, 2, 3, 0]]).as_matrix()


@pytest.mark.parametrize("amount", [0.05, 0.4, 3.0])
def test_it_agrees_with_the_plain_version(amount):
    generator = np.random.default_rng(1)
    posed = FLAT + amount * generator.standard_normal(FLAT.shape)
    splats = some_splats(40)
    triangle = generator.integers(0, 2, 40)
    weights = generator.dirichlet([1, 1, 1], 40).astype(np.float32)
    got = carried(splats, triangle, weights, TRIANGLES, FLAT, posed)
    means, axes, scales = plain(splats, triangle, weights, TRIANGLES, FLAT, posed)
    np.testing.assert_allclose(got.means_world, means, atol=2e-5 * max(1, np.abs(means).max()))
    np.testing.assert_allclose(got.log_scales, scales, atol=1e-4)
    np.testing.assert_allclose(matrices(got), axes, atol=1e-4)
    assert (got.log_scales - splats.log_scales).abs().max() <= np.log(MOST_STRETCH) + 1e-5


def test_a_rigid_motion_is_one():
    turn, shift = Rotation.from_euler("xyz", [0.4, -1.0, 2.0]).as_matrix(), np.array([0.3, -2.0, 1.0])
    splats = some_splats(30, seed=2)
    triangle, weights, _ = nearest_triangles(splats.means_world.numpy(), FLAT, TRIANGLES)
    got = carried(splats, triangle, weights, TRIANGLES, FLAT, FLAT @ turn.T + shift)
    np.testing.assert_allclose(got.means_world, splats.means_world.numpy() @ turn.T + shift, atol=1e-5)
    np.testing.assert_allclose(matrices(got), turn @ matrices(splats), atol=1e-5)
    np.testing.assert_allclose(got.log_scales, splats.log_scales, atol=1e-5)
    # harmonics of degree 1 turn: the colour towards a turned direction is what it was
    direction = np.array([0.2, -0.5, 0.8])
    for before, after, d in ((splats.sh_rest, got.sh_rest, direction),):
        basis = [np.array([-x[1], x[2], -x[0]]) for x in (d, turn @ d)]
        np.testing.assert_allclose(
            np.einsum("k,nkc->nc", basis[0], before), np.einsum("k,nkc->nc", basis[1], after), atol=1e-5
        )


def test_nearest_triangles_are_nearest():
    generator = np.random.default_rng(0)
    points = generator.uniform(-0.5, 1.5, (200, 3))
    triangle, weights, distance = nearest_triangles(points, FLAT, TRIANGLES)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert (weights >= 0).all()
    grid = generator.dirichlet([0.7, 0.7, 0.7], 4000)
    dense = np.concatenate([grid @ FLAT[face] for face in TRIANGLES])
    least = np.linalg.norm(points[:, None] - dense[None], axis=2).min(1)
    assert (distance <= least + 1e-6).all() and (least - distance).max() < 0.05
    place = np.einsum("nk,nkc->nc", weights, FLAT[TRIANGLES[triangle]])
    np.testing.assert_allclose(np.linalg.norm(points - place, axis=1), distance, atol=1e-6)


@pytest.fixture(scope="module")
def moving(rig):
    """Splats over the skin of the rig's portrait, made ready to move."""
    from dp360.generation import PointCloud
    from dp360.generation.mesh import vertex_normals
    from dp360.reconstruction.splats import splats_from_point_cloud

    generator = np.random.default_rng(0)
    vertices = rig.portrait_vertices_world.astype(np.float64)
    faces = rig.faces[covered_share(rig)[rig.faces].max(1) < 0.6]
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = generator.choice(len(faces), 20_000, p=area / area.sum())
    weights = generator.dirichlet([1, 1, 1], len(chosen))
    points = np.einsum("nk,nkc->nc", weights, corners[chosen])
    normals = np.einsum("nk,nkc->nc", weights, vertex_normals(vertices, rig.faces)[faces[chosen]])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    cloud = PointCloud(*(torch.from_numpy(v.astype(np.float32)) for v in (points, normals, np.full_like(points, 0.6))))
    return moving_splats(splats_from_point_cloud(cloud, sh_degree=1), rig)


def test_a_binding_survives_its_file(moving, tmp_path):
    splats, binding = moving
    path = tmp_path / "avatar.npz"
    path.write_bytes(binding.encode())
    again, pose = decode_binding(path), pose_from_text("laugh+headYaw=20")
    np.testing.assert_allclose(
        animate(splats, again, pose).means_world, animate(splats, binding, pose).means_world, atol=1e-6
    )
    path.write_bytes(b"no npz")
    with pytest.raises(InputError, match=r"avatar\.npz: it is damaged"):
        decode_binding(path)
    with pytest.raises(ValueError, match="as are bound, got 3"):
        animate(splats[:3], binding, pose)


def overlap(rig, splats: Splats, vertices: np.ndarray) -> float:
    """Intersection over union of the outlines of splats and mesh."""
    camera = look_at_origin([0.3], [0.05], size_px=256)
    mesh = rasterize_mesh(vertices, rig.faces, camera).hit
    alpha = render_splats(splats, camera)[1][0].numpy() > 0.5
    return float((mesh & alpha).sum() / (mesh | alpha).sum())


@pytest.mark.parametrize("text", ["neutral", "laugh", "blink", "jawOpen", "surprise+headYaw=25", "tongue+headPitch=15"])
def test_splats_fill_the_outline_of_the_mesh_in_every_pose_as_at_rest(rig, moving, text):
    splats, binding = moving
    pose = pose_from_text(text)
    posed = animate(splats, binding, pose)
    at_rest = overlap(rig, splats, rig.portrait_vertices_world.astype(np.float64))
    in_pose = overlap(rig, posed, rig.posed(pose))
    assert in_pose > 0.95 and in_pose > at_rest - 0.005
    assert (posed.log_scales - splats.log_scales).abs().max() <= np.log(MOST_STRETCH) + 1e-4
    assert posed.scales.max() < 2 * UNITS_PER_CM


def test_what_does_not_move_stays(rig, moving):
    splats, binding = moving
    rest = animate(splats, binding, Pose.neutral())
    blink = animate(splats, binding, Pose.of({"eyeBlinkLeft": 1.0}))
    moved = (blink.means_world - rest.means_world).norm(dim=1)
    lower = rest.means_world[:, 1] < 0
    assert moved[lower].max() < 0.1 * UNITS_PER_CM and moved.max() > 0.5 * UNITS_PER_CM

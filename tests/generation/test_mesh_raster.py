"""Laws of the mesh rasteriser: known depths, no cracks, agreement with a plain float64 twin and with Open3D."""

import math
from pathlib import Path

import numba
import numpy as np
import pytest

from dp360.generation.cameras import Cameras, look_at_origin
from dp360.generation.head_model.anatomy import world_units
from dp360.generation.mesh_raster import (
    NEAR_DEPTH,
    box_downsample,
    interpolate,
    rasterize_mesh,
    sample_texture,
)

HEADS = Path(__file__).resolve().parents[3] / "shared" / "data" / "heads"
SNAP = 1024.0


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Twice the area, signed, that two vectors of a plane span."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def icosphere(subdivisions: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A closed sphere, faces counter-clockwise seen from outside."""
    vertices = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=np.float64)
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    for _ in range(subdivisions):
        corners = vertices[faces]
        middles = [(corners[:, i] + corners[:, (i + 1) % 3]) / 2 for i in range(3)]
        a, b, c = corners.transpose(1, 0, 2)
        ab, bc, ca = middles
        soup = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
        soup /= np.linalg.norm(soup, axis=-1, keepdims=True)
        vertices, index = np.unique(soup.reshape(-1, 3).round(12), axis=0, return_inverse=True)
        faces = index.reshape(-1, 3)
    return vertices * radius, faces


def twin(vertices: np.ndarray, faces: np.ndarray, camera: Cameras) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same definition in plain numpy: every triangle against every pixel."""
    uvz = camera.project(_torch(vertices))[0].numpy()
    uv = np.floor(uvz[:, :2] * SNAP + 0.5) / SNAP
    y, x = np.mgrid[: camera.height, : camera.width] + 0.5
    index = np.full((camera.height, camera.width), -1)
    weights = np.zeros((camera.height, camera.width, 3))
    depth = np.full((camera.height, camera.width), np.inf)
    for f, corner in enumerate(faces):
        if (uvz[corner, 2] <= NEAR_DEPTH).any():
            continue
        p = uv[corner]
        area = _cross(p[1] - p[0], p[2] - p[0])
        if area == 0:
            continue
        screen_weights = []
        inside = np.ones_like(index, dtype=bool)
        for i in range(3):
            a, b = p[(i + 1) % 3], p[(i + 2) % 3]
            edge = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) * np.sign(area)
            dx, dy = (b - a) * np.sign(area)
            inside &= (edge >= 0) if dy < 0 or (dy == 0 and dx > 0) else (edge > 0)
            screen_weights.append(edge / abs(area))
        over_depth = np.stack(screen_weights, -1) / uvz[corner, 2]
        z = 1 / over_depth.sum(-1)
        nearer = inside & (z < depth)
        depth[nearer], index[nearer] = z[nearer], f
        weights[nearer] = (over_depth * z[..., None])[nearer]
    return index, weights, depth


def _torch(array: np.ndarray):
    import torch

    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def test_sphere_has_the_depth_and_normals_of_a_sphere() -> None:
    radius, camera = 0.25, look_at_origin([0.4], [0.2], size_px=256)
    vertices, faces = icosphere(6, radius)
    fragments = rasterize_mesh(vertices, faces, camera)
    K, T = camera.K_px[0].numpy(), camera.T_world_camera[0].numpy()
    y, x = np.mgrid[:256, :256] + 0.5
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)
    a, b, c = (rays**2).sum(-1), -2 * 2.7 * rays[..., 2], 2.7**2 - radius**2
    discriminant = b * b - 4 * a * c
    depth = np.where(discriminant > 0, (-b - np.sqrt(np.maximum(discriminant, 0))) / (2 * a), np.inf)
    inner = discriminant > 0.01  # away from the rim, where one pixel is a long way along the surface
    np.testing.assert_allclose(fragments.depth[inner], depth[inner], atol=4e-4)
    assert (fragments.hit == np.isfinite(depth)).mean() > 0.998
    normal = interpolate(fragments, vertices / radius, faces)
    expected = (rays * depth[..., None]) @ T[:3, :3].T + T[:3, 3]
    np.testing.assert_allclose(normal[inner], expected[inner] / radius, atol=4e-3)


def test_some_pixels_alone_are_those_of_the_picture() -> None:
    camera = look_at_origin([0.4], [0.2], size_px=64)
    vertices, faces = icosphere(3, 0.25)
    fragments = rasterize_mesh(vertices, faces, camera)
    rows, columns = np.nonzero(fragments.hit)
    rows, columns = rows[::-3], columns[::-3]
    some = fragments.at(rows, columns)
    assert some.hit.all() and some.hit.shape == (len(rows), 1)
    np.testing.assert_array_equal(some.depth[:, 0], fragments.depth[rows, columns])
    alone = interpolate(some, vertices, faces)[:, 0]
    np.testing.assert_array_equal(alone, interpolate(fragments, vertices, faces)[rows, columns])


def test_agrees_with_the_plain_float64_twin() -> None:
    rng = np.random.default_rng(3)
    vertices = rng.uniform(-0.4, 0.4, (60, 3)) * [1, 1, 3]
    vertices[:3, 2] += 3.0  # one triangle at least lies across or behind the camera's plane
    faces = np.concatenate([rng.integers(0, 60, (50, 3)), [[0, 1, 2], [0, 0, 5]]])
    camera = look_at_origin([0.0], [0.0], size_px=48)
    index, weights, depth = twin(vertices, faces, camera)
    fragments = rasterize_mesh(vertices, faces, camera)
    assert (index >= 0).mean() > 0.3
    np.testing.assert_array_equal(fragments.triangle_index, index)
    np.testing.assert_allclose(fragments.barycentric, weights, atol=1e-6)
    np.testing.assert_allclose(fragments.depth, depth, rtol=1e-6)


@pytest.mark.parametrize("size_px", [64, 333])
def test_every_pixel_of_a_closed_mesh_is_covered_exactly_twice(size_px: int) -> None:
    """Front and back cover the same pixels, each pixel once: neither cracks nor doubly drawn shared edges."""
    vertices, faces = icosphere(4, 0.27)
    camera = look_at_origin([1.1], [-0.3], size_px=size_px)
    a, b, c = np.floor(camera.project(_torch(vertices))[0, :, :2].numpy() * SNAP + 0.5)[faces].transpose(1, 0, 2)
    area = _cross(b - a, c - a)  # rows grow downwards: front faces are negative
    front, back = (rasterize_mesh(vertices, faces[side], camera) for side in (area < 0, area > 0))
    np.testing.assert_array_equal(front.hit, back.hit)
    assert (front.depth <= back.depth)[front.hit].all()
    filled = [np.flatnonzero(row) for row in front.hit]
    assert all(len(row) == 0 or row[-1] - row[0] + 1 == len(row) for row in filled)
    # single triangles, drawn alone, add up to the picture: nothing is counted twice
    some = faces[:400][area[:400] < 0]
    alone = sum(rasterize_mesh(vertices, f[None], camera).hit.astype(int) for f in some)
    together = rasterize_mesh(vertices, some, camera).hit
    np.testing.assert_array_equal(alone, together.astype(int))


def test_supersamples_are_the_pixels_of_a_larger_picture() -> None:
    vertices, faces = icosphere(3, 0.25)
    camera = look_at_origin([0.3], [0.1], size_px=40)
    samples = rasterize_mesh(vertices, faces, camera, supersample=3)
    larger = rasterize_mesh(vertices, faces, camera.resized(120, 120))
    np.testing.assert_array_equal(samples.triangle_index, larger.triangle_index)
    coverage = box_downsample(samples.hit.astype(np.float32), 3)
    blocks = larger.hit.reshape(40, 3, 40, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(coverage, blocks, atol=1e-6)
    attribute = interpolate(samples, vertices, faces)
    np.testing.assert_allclose(
        box_downsample(attribute, 3), attribute.reshape(40, 3, 40, 3, 3).mean(axis=(1, 3)), atol=1e-6
    )


def test_result_does_not_depend_on_the_number_of_threads() -> None:
    vertices, faces = icosphere(5, 0.25)
    camera = look_at_origin([0.3], [0.1], size_px=200)
    before = numba.get_num_threads()
    results = []
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            results.append(rasterize_mesh(vertices, faces, camera))
            results.append(rasterize_mesh(vertices, faces, camera))
    finally:
        numba.set_num_threads(before)
    for other in results[1:]:
        assert other.triangle_index.tobytes() == results[0].triangle_index.tobytes()
        assert other.barycentric.tobytes() == results[0].barycentric.tobytes()
        assert other.depth.tobytes() == results[0].depth.tobytes()


def test_the_earlier_of_two_equal_surfaces_wins_and_behind_the_camera_is_nothing() -> None:
    vertices = np.array([[-0.3, -0.3, 0], [0.3, -0.3, 0], [0, 0.3, 0]])
    camera = look_at_origin([0.0], [0.0], size_px=32)
    fragments = rasterize_mesh(vertices, np.array([[0, 1, 2], [0, 1, 2]]), camera)
    assert set(np.unique(fragments.triangle_index)) == {-1, 0}
    assert not rasterize_mesh(vertices + np.array([0, 0, 5.0]), np.array([[0, 1, 2]]), camera).hit.any()


def test_bilinear_look_up_reproduces_a_plane_and_keeps_to_the_edge() -> None:
    y, x = np.mgrid[:7, :9] + 0.5
    texture = np.stack([2 * x + 3 * y, x - y], -1).astype(np.float32)
    uv_px = np.random.default_rng(0).uniform([0.5, 0.5], [8.5, 6.5], (5, 4, 2))
    value = sample_texture(texture, uv_px)
    expected = np.stack([2 * uv_px[..., 0] + 3 * uv_px[..., 1], uv_px[..., 0] - uv_px[..., 1]], -1)
    np.testing.assert_allclose(value, expected, atol=1e-5)
    outside = sample_texture(texture, np.array([[-9.0, -9.0], [99.0, 99.0]]))
    np.testing.assert_array_equal(outside, texture[[0, -1], [0, -1]])


def test_wrong_calls_are_refused() -> None:
    vertices, faces = icosphere(0, 0.2)
    two = look_at_origin([0.0, 1.0], [0.0, 0.0], size_px=8)
    with pytest.raises(AssertionError):
        rasterize_mesh(vertices, faces, two)
    with pytest.raises(AssertionError):
        rasterize_mesh(vertices, faces, two[0], supersample=0)
    with pytest.raises(AssertionError):
        box_downsample(np.zeros((5, 6), np.float32), 2)


@pytest.mark.skipif(not (HEADS / "ict_facekit").is_dir(), reason="needs the head assets beside the repository")
def test_agrees_with_open3d_on_a_real_head() -> None:
    o3d = pytest.importorskip("open3d")
    data = np.load(HEADS / "ict_facekit" / "ict_facekit.npz")
    vertices = world_units(data["neutral"].astype(np.float64)).astype(np.float32)
    faces = data["faces"].astype(np.int32)
    camera = look_at_origin([math.radians(25)], [0.1], size_px=256)
    fragments = rasterize_mesh(vertices, faces, camera)
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(vertices), o3d.core.Tensor(faces.astype(np.uint32)))
    K, T = camera.K_px[0].numpy(), camera.T_world_camera[0].numpy()
    y, x = np.mgrid[:256, :256] + 0.5
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1) @ T[:3, :3].T
    packed = np.concatenate([np.broadcast_to(T[:3, 3], rays.shape), rays], -1).astype(np.float32)
    answer = scene.cast_rays(o3d.core.Tensor(packed))
    depth, index = answer["t_hit"].numpy(), answer["primitive_ids"].numpy().astype(np.int64)
    assert (np.isfinite(depth) == fragments.hit).mean() > 0.9995
    both = np.isfinite(depth) & fragments.hit
    assert (np.abs(depth[both] - fragments.depth[both]) < 1e-4).mean() > 0.999
    assert (index == fragments.triangle_index)[both].mean() > 0.99

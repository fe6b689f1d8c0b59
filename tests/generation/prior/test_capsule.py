"""The capsule chart: its inverse, its triangles, and radii measured against a sphere and another ray caster."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from dp360.generation.head_model import load_head_model
from dp360.generation.head_model.model import PART_CRANIUM_NECK, PART_FACE
from dp360.generation.prior import capsule
from dp360.generation.prior.hair.hair_shell import grid_mesh


def test_the_chart_has_an_inverse() -> None:
    rng = np.random.default_rng(0)
    row, column = rng.uniform(0.5, capsule.ROWS - 1, 5000), rng.uniform(0, capsule.COLUMNS, 5000)
    row[:3], column[:3] = (0.5, capsule.SPHERE_ROWS, capsule.ROWS - 1), (0.0, capsule.COLUMNS / 2, 1e-9)
    radius = rng.uniform(0.01, 1.0, 5000)
    origins, directions = capsule.cell_rays(row, column)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert not origins[:, [0, 2]].any()
    row_back, column_back, radius_back = capsule.cell_coordinates(origins + radius[:, None] * directions)
    np.testing.assert_allclose(row_back, row, atol=1e-6)
    turned = (column_back - column + capsule.COLUMNS / 2) % capsule.COLUMNS - capsule.COLUMNS / 2
    np.testing.assert_allclose(turned, 0, atol=1e-6)
    np.testing.assert_allclose(radius_back, radius, atol=1e-9)


def test_cells_do_not_depend_on_where_points_lie_in_memory() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 97, 3))
    found, kept = set(), []
    for _ in range(300):  # allocations and releases move what is allocated next
        kept.append([np.zeros(int(size)) for size in rng.integers(1, 2000, int(rng.integers(1, 30)))])
        if rng.random() < 0.3:
            kept = kept[-3:]
        found.add(b"".join(np.ascontiguousarray(part).tobytes() for part in capsule.cell_coordinates(points.copy())))
    assert len(found) == 1


def test_known_cells() -> None:
    middle = np.array([0.0, capsule.CENTRE_Y, 0.0])
    rows = np.array([0.0, capsule.SPHERE_ROWS, capsule.SPHERE_ROWS, capsule.ROWS - 1])
    columns = np.array([0.0, 0.0, capsule.COLUMNS / 4, 0.0])
    origins, directions = capsule.cell_rays(rows, columns)
    crown, face, left, _ = directions
    np.testing.assert_allclose([crown, face, left], [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(origins, [middle, middle, middle, [0, capsule.BOTTOM_Y, 0]], atol=1e-12)
    all_origins, all_directions = capsule.grid_rays()
    assert all_origins.shape == all_directions.shape == (capsule.ROWS, capsule.COLUMNS, 3)
    np.testing.assert_allclose(all_directions[capsule.SPHERE_ROWS, capsule.COLUMNS // 4], left, atol=1e-12)


def test_the_grid_faces_outward_and_is_closed_round_the_axis() -> None:
    vertices, faces = grid_mesh(np.full((capsule.ROWS, capsule.COLUMNS), 0.2))
    assert len(vertices) == capsule.ROWS * (capsule.COLUMNS + 1)
    assert len(faces) == 2 * (capsule.ROWS - 1) * capsule.COLUMNS
    np.testing.assert_array_equal(np.unique(faces), np.arange(len(vertices)))
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = corners.mean(1) - [0.0, capsule.CENTRE_Y, 0.0]
    outward[:, 1] = np.maximum(outward[:, 1], 0.0)  # beside the neck, outward is level
    area = np.linalg.norm(normals, axis=1)
    facing = (normals * outward).sum(1)
    assert (facing[area > 1e-12] > 0).all()
    assert (area <= 1e-12).sum() == capsule.COLUMNS  # the pole's ring is a point
    np.testing.assert_array_equal(vertices[:: capsule.COLUMNS + 1], vertices[capsule.COLUMNS :: capsule.COLUMNS + 1])


def test_radius_of_a_sphere() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=5, radius=0.25)
    vertices = np.asarray(sphere.vertices) + np.array([0.0, capsule.CENTRE_Y, 0.0])
    radius = capsule.outermost_radius(vertices, np.asarray(sphere.faces))
    drop = capsule.CENTRE_Y - capsule.grid_rays()[0][:, 0, 1]
    expected = np.sqrt(np.maximum(0.25**2 - drop**2, 0.0))
    clear = drop < 0.24  # lower rows graze the facets
    np.testing.assert_allclose(radius[clear], np.repeat(expected[clear, None], capsule.COLUMNS, 1), atol=2e-3)
    assert np.isnan(radius[drop > 0.2501]).all() and (drop > 0.2501).any()


def test_the_farther_of_two_surfaces_counts() -> None:
    inner, outer = trimesh.creation.icosphere(4, radius=0.1), trimesh.creation.icosphere(4, radius=0.2)
    outer_vertices, outer_faces = np.asarray(outer.vertices) + np.array([0.05, 0.0, 0.03]), np.asarray(outer.faces)
    vertices = np.concatenate([np.asarray(inner.vertices), outer_vertices])
    faces = np.concatenate([np.asarray(inner.faces), outer_faces + len(inner.vertices)])
    np.testing.assert_array_equal(
        capsule.outermost_radius(vertices, faces), capsule.outermost_radius(outer_vertices, outer_faces)
    )


def test_radius_of_the_head_agrees_with_another_ray_caster() -> None:
    o3d = pytest.importorskip("open3d")
    head = load_head_model()
    vertices, faces = head.neutral.astype(np.float64), head.faces_of(PART_FACE, PART_CRANIUM_NECK)
    radius = capsule.outermost_radius(vertices, faces)
    origins, directions = capsule.grid_rays()
    far = 2.0  # cast inwards from outside: the first hit is the outermost
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(vertices.astype(np.float32)), o3d.core.Tensor(np.ascontiguousarray(faces, dtype=np.uint32))
    )
    rays = np.concatenate([origins + far * directions, -directions], axis=-1).astype(np.float32)
    expected = far - scene.cast_rays(o3d.core.Tensor(rays))["t_hit"].numpy()
    expected = np.where(expected > 0, expected, np.nan)  # beyond the axis lies the opposite side
    assert (np.isfinite(radius) == np.isfinite(expected)).mean() > 0.999
    both = np.isfinite(radius) & np.isfinite(expected)
    assert both.mean() > 0.8
    difference = np.abs(radius - expected)[both]
    assert (difference < 1e-5).mean() > 0.999  # single rays through an edge may slip


def test_the_opened_skull_has_no_nose_and_the_same_crown() -> None:
    head = load_head_model()
    vertices, faces = head.neutral.astype(np.float64), head.faces_of(PART_FACE, PART_CRANIUM_NECK)
    full, opened = capsule.outermost_radius(vertices, faces), capsule.opened_skull_radius(vertices, faces)
    row, column, radius = capsule.cell_coordinates(head.landmarks(vertices)[1:2])  # the tip of the nose
    nose = round(row.item()), round(column.item()) % capsule.COLUMNS
    assert full[nose] == pytest.approx(radius.item(), abs=0.01)
    assert opened[nose] < full[nose] - 0.02
    np.testing.assert_allclose(opened[5:30], full[5:30], atol=0.005)


def test_smoothing_wraps_round_the_axis() -> None:
    values = np.random.default_rng(0).normal(size=(capsule.ROWS, capsule.COLUMNS))
    turned = capsule.smooth_over_columns(np.roll(values, 50, axis=1), 1.5, 2.0)
    np.testing.assert_allclose(turned, np.roll(capsule.smooth_over_columns(values, 1.5, 2.0), 50, axis=1), atol=1e-12)


def test_the_crown_is_met_where_one_large_triangle_covers_it() -> None:
    height, reach = capsule.CENTRE_Y + 0.15, 0.06
    corners = np.array([[reach, height, 0.0], [-reach / 2, height, reach], [-reach / 2, height, -reach]])
    radius = capsule.outermost_radius(corners, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(radius[0], 0.15)
    assert np.isfinite(radius[:5]).all()

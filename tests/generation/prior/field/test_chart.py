"""The chart of fields: its place on the capsule, its frames, and values filled in round the seam."""

from __future__ import annotations

import numpy as np

from dp360.generation.prior import capsule
from dp360.generation.prior.field.chart import (
    COLUMNS,
    MIRRORED,
    ROWS,
    capsule_rows,
    cell_frames,
    cell_shares,
    chart_rows,
    filled_from_near,
    from_blocks,
    of_capsule,
    surface_mesh,
    surface_tangents,
    to_capsule,
)


def test_cells_lie_on_the_capsule() -> None:
    frames = cell_frames()
    row, column, radius = capsule.cell_coordinates(frames.origins_world + 0.2 * frames.outward)
    np.testing.assert_allclose(chart_rows(row), np.broadcast_to(np.arange(ROWS)[:, None], row.shape), atol=1e-9)
    np.testing.assert_allclose(column, np.broadcast_to(2.0 * np.arange(COLUMNS), row.shape), atol=1e-9)
    np.testing.assert_allclose(radius, 0.2)
    np.testing.assert_allclose(chart_rows(capsule_rows(np.array([0.0, 7.25]))), [0, 7.25])


def test_frames_are_orthonormal_and_point_along_rows_and_columns() -> None:
    frames = cell_frames()
    axes = np.stack(frames[1:], axis=-2)
    np.testing.assert_allclose(axes @ np.swapaxes(axes, -1, -2), np.broadcast_to(np.eye(3), (*axes.shape[:2], 3, 3)),
                               atol=1e-12)  # fmt: skip
    np.testing.assert_allclose(np.cross(frames.down, frames.around), frames.outward, atol=1e-12)
    points = frames.origins_world + 0.2 * frames.outward
    down, around, normals = surface_tangents(points)
    assert ((down * frames.down).sum(-1) > 0).all() and ((around * frames.around).sum(-1) > 0).all()
    half = capsule.SPHERE_ROWS // 2
    np.testing.assert_allclose(normals[1 : half - 1], frames.outward[1 : half - 1], atol=2e-3)


def test_mirrored_columns_are_the_mirrored_head() -> None:
    frames = cell_frames()
    np.testing.assert_allclose(frames.outward[:, MIRRORED], frames.outward * [-1, 1, 1], atol=1e-12)


def test_shares_are_those_of_a_sphere() -> None:
    shares = cell_shares()
    assert (
        shares[0, 0] < 0.02 and (np.diff(shares[:, 0]) >= 0).all() and (shares[capsule.SPHERE_ROWS // 2 :] == 1).all()
    )


def test_known_cells_stay_and_others_take_what_is_near_over_the_seam() -> None:
    values = np.zeros((2, ROWS, COLUMNS))
    values[:, :, :4], values[:, :, 30:34] = 1.0, 5.0
    known = np.zeros((ROWS, COLUMNS), bool)
    known[:, :4] = known[:, 30:34] = True
    filled = filled_from_near(values, known)
    assert (filled[:, known] == values[:, known]).all()
    np.testing.assert_allclose(filled[:, :, -2:], 1.0, atol=1e-3)  # over the seam
    np.testing.assert_allclose(filled[:, :, 28], 5.0, atol=1e-3)
    assert filled.min() >= 0.999 and filled.max() <= 5.001
    assert (filled_from_near(values, np.zeros_like(known), 0.5) == 0.5).all()
    mirrored = filled_from_near(values[..., MIRRORED], known[:, MIRRORED])
    np.testing.assert_allclose(mirrored, filled[..., MIRRORED], atol=1e-12)


def test_capsule_grids_have_one_value_at_the_crown() -> None:
    grid = np.random.default_rng(0).random((capsule.ROWS, capsule.COLUMNS))
    cells = of_capsule(grid)
    assert np.ptp(cells[0]) == 0 and cells[5, 7] == (grid[10, 14] + grid[11, 14]) / 2


def test_the_mesh_is_closed_round_the_axis() -> None:
    frames = cell_frames()
    vertices, faces = surface_mesh(frames.origins_world + 0.2 * frames.outward)
    assert len(vertices) == ROWS * (COLUMNS + 1) and faces.max() == len(vertices) - 1
    np.testing.assert_allclose(vertices.reshape(ROWS, -1, 3)[:, 0], vertices.reshape(ROWS, -1, 3)[:, -1])


def test_grids_go_to_the_capsule_and_back_without_a_seam() -> None:
    row, azimuth = np.arange(ROWS)[:, None] / ROWS, np.arange(COLUMNS) * (2 * np.pi / COLUMNS)
    smooth = np.stack([1 + row * np.cos(azimuth - 0.3), row**2 + 0 * azimuth])
    fine = to_capsule(smooth)
    assert fine.shape == (2, capsule.ROWS, capsule.COLUMNS)
    for grid, back in zip(smooth, map(of_capsule, fine)):
        np.testing.assert_allclose(back[1:-1], grid[1:-1], atol=2e-3)
    turned = to_capsule(np.roll(smooth, 13, axis=-1))
    np.testing.assert_allclose(turned, np.roll(fine, 26, axis=-1), atol=1e-3)


def test_blocks_are_spread_over_their_cells() -> None:
    blocks = np.cos(np.arange(16) * (2 * np.pi / 16)) + np.linspace(0, 1, 14)[:, None]
    cells = from_blocks(blocks.astype(np.float32))
    assert cells.shape == (ROWS, COLUMNS)
    means = cells.reshape(14, 4, 16, 4).mean((1, 3))
    np.testing.assert_allclose(means[1:-1], blocks[1:-1], atol=0.03)
    np.testing.assert_allclose(np.roll(cells, 4, axis=1), from_blocks(np.roll(blocks, 1, axis=1).astype(np.float32)))

"""Laws of painted locks: they lie along the field in true millimetres, the same for the same seed and any threads."""

from __future__ import annotations

import dataclasses
import math

import numba
import numpy as np
import pytest

from dp360.generation.prior import capsule
from dp360.generation.prior.hair import lock_kernels, locks
from dp360.generation.prior.hair.flow_field import HairFlow, grid_normals
from dp360.generation.prior.hair.locks import LockConfig, LockPass, LockPattern, paint_locks, trace_locks
from dp360.generation.prior.hair.orientation import SeenHair
from dp360.generation.prior.hair.tracing import (
    CHART,
    MM,
    SwayConfig,
    at_cells,
    cell_areas,
    cell_of,
    draw_roots,
    ray_of,
    refined,
    smooth_noise,
    swaying_field,
)

SHAPE = (97, 129)
NOTHING = np.zeros(SHAPE, np.float32)
STILL = SwayConfig(broad_deg=0.0, narrow_deg=0.0, wave_share=0.0)
FEW = (LockPass(4.0, 1.0, 0.4, 0.9, 8.0, 0.2, 0.6, 0.5), LockPass(2.0, 0.7, 0.4, 0.8, 8.0, 0.2, 1.0, 1.0))


@pytest.fixture(scope="module")
def flow() -> HairFlow:
    """Hair on a sphere-capped post that runs down and a little to its left."""
    points = capsule.surface_points(np.full((capsule.ROWS, capsule.COLUMNS), 0.2))
    normals = grid_normals(points)
    down = np.broadcast_to((0.0, -1.0, 0.0), points.shape)
    down = down - normals * (down * normals).sum(-1, keepdims=True)
    down[0] = (0.0, 0.0, 1.0)
    down /= np.maximum(np.linalg.norm(down, axis=-1, keepdims=True), 1e-9)
    direction = down + 0.3 * np.cross(normals, down)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    thickness = np.full(points.shape[:2], 0.03)
    return HairFlow(
        points, normals, direction, np.zeros_like(thickness), np.linalg.norm(points - points[0, 0], axis=-1),
        thickness, np.zeros_like(thickness), np.ones_like(thickness), False, None,
    )  # fmt: skip


def painted(flow: HairFlow, seed: int = 0, **changes: object) -> LockPattern:
    config = dataclasses.replace(LockConfig(sway=STILL, passes=FEW), **changes)
    return paint_locks(flow, SHAPE, NOTHING, NOTHING, np.random.default_rng(seed), config)


def test_chart_functions_are_those_of_the_capsule() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.2, (200, 3))
    rows, columns, _ = capsule.cell_coordinates(points)
    for point, row, column in zip(points, rows, columns):
        x, y, z = point
        np.testing.assert_allclose(cell_of(x, y, z, CHART), (row, column), atol=1e-9)
        origin, *direction = ray_of(row, column, CHART)
        origins, directions = capsule.cell_rays(np.array(row), np.array(column))
        np.testing.assert_allclose([origin, *direction], [origins[1], *directions], atol=1e-12)


def test_noise_has_mean_0_and_variance_1() -> None:
    points = np.random.default_rng(1).uniform(-1, 1, (200, 200, 3))
    noise = smooth_noise(points, 0.02, np.random.default_rng(0))
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.03


def test_refining_keeps_the_grid_and_closes_the_seam() -> None:
    grid = np.random.default_rng(0).random((capsule.ROWS, capsule.COLUMNS, 5))
    fine = refined(grid, 4)
    np.testing.assert_allclose(fine[::4, ::4], grid, atol=1e-6)
    np.testing.assert_allclose(fine[::4, -2], (grid[:, -1] + grid[:, 0]) / 2, atol=1e-6)


def test_roots_are_as_dense_as_wanted_over_the_surface(flow: HairFlow) -> None:
    sphere = 4 * math.pi * 0.2**2 / 2
    post = 2 * math.pi * 0.2 * (capsule.CENTRE_Y - capsule.BOTTOM_Y)
    areas = cell_areas(flow.points_world)
    assert abs(areas[: capsule.SPHERE_ROWS].sum() / sphere - 1) < 0.03
    assert abs(areas[capsule.SPHERE_ROWS :].sum() / post - 1) < 0.03
    density = np.ones((capsule.ROWS, capsule.COLUMNS))
    density[:, 64:] = 3
    roots = draw_roots(flow.points_world, density, 20_000, np.random.default_rng(0))
    assert abs((roots[:, 1] >= 64).mean() - 0.75) < 0.02
    on_sphere = (roots[:, 0] < capsule.SPHERE_ROWS).mean()
    assert abs(on_sphere - sphere / (sphere + post)) < 0.02
    np.testing.assert_allclose(at_cells(density, np.array([[5.0, 10.0], [5.0, 127.5], [5.0, 63.5]])), [1, 2, 2])


def test_locks_run_along_the_field_for_their_length(flow: HairFlow) -> None:
    field = swaying_field(flow, STILL, np.random.default_rng(0))
    roots = np.array([[30.0, 3.0], [60.0, 127.9], [40.0, 77.0]])
    lengths = np.array([40.0, 25.0, 10.0]) * MM
    chains = trace_locks(field, roots, lengths, np.full(3, MM), np.zeros((3, 2)), SHAPE)
    for m in range(3):
        nodes = chains.nodes[chains.start[m] : chains.start[m + 1]].astype(np.float64)
        steps = np.diff(nodes[:, :3], axis=0)
        assert abs(np.linalg.norm(steps, axis=1).sum() / lengths[m] - 1) < 0.02
        row, column, radius = capsule.cell_coordinates(nodes[:, :3])
        np.testing.assert_allclose(radius, 0.2, atol=1e-5)
        np.testing.assert_allclose(nodes[:, 6], row * (SHAPE[0] - 1) / (capsule.ROWS - 1), atol=1e-2)
        steps /= np.linalg.norm(steps, axis=1, keepdims=True)
        there = flow.direction_world[np.rint(row).astype(int), np.rint(column).astype(int) % capsule.COLUMNS][:-1]
        assert (steps * there).sum(-1).min() > 0.98
        np.testing.assert_allclose((nodes[:-1, 3:6] * steps).sum(-1), 0, atol=0.05)  # across


def test_turned_locks_leave_the_field_by_their_angle(flow: HairFlow) -> None:
    field = swaying_field(flow, STILL, np.random.default_rng(0))
    roots, length = np.array([[70.0, 30.0]] * 2), np.full(2, 20 * MM)
    chains = trace_locks(field, roots, length, np.full(2, MM), np.array([[0.0, 0.0], [0.4, 0.0]]), SHAPE)
    ends = [chains.nodes[chains.start[m + 1] - 1, :3] - chains.nodes[chains.start[m], :3] for m in range(2)]
    cosine = float(ends[0] @ ends[1] / np.linalg.norm(ends[0]) / np.linalg.norm(ends[1]))
    assert abs(math.acos(cosine) - 0.4) < 0.03


def plain_fill(
    chains: locks._Chains, styles: np.ndarray, seeds: np.ndarray, points: np.ndarray, breaks: float, sheen: float
) -> tuple[np.ndarray, np.ndarray]:
    """The same picture, texel by texel for every piece of every lock, in float64."""
    height, width = points.shape[:2]
    shade, tints = np.zeros((height, width)), np.zeros((height, width, 2))
    nodes = chains.nodes.astype(np.float64)
    for m, (length, wide, brightness, opacity, fade, fibres, *tint) in enumerate(styles.astype(np.float64)):
        done = np.zeros((height, width), bool)
        first, last = chains.start[m], chains.start[m + 1] - 1
        for n in range(first, last):
            along = nodes[n + 1, :3] - nodes[n, :3]
            step = np.linalg.norm(along)
            along /= step
            normal = np.cross(along, nodes[n, 3:6])
            offset = points[:, :-1] - nodes[n, :3]
            s, across = offset @ along / step, offset @ nodes[n, 3:6]
            for i, j in zip(*np.nonzero((s >= -0.15) & (s <= 1.15) & (np.abs(across) <= wide / 2))):
                t = (n - first + s[i, j]) / (last - first)
                if done[i, j] or not 0 <= t <= 1 or np.linalg.norm(offset[i, j]) > 0.05:
                    continue
                half = lock_kernels.lock_half_width(t, wide)
                if abs(across[i, j]) > half:
                    continue
                q = across[i, j] / half
                strand = q * 0.5 * wide / (0.55 * MM)
                alpha = lock_kernels.lock_alpha(t, q, strand, opacity, fade, seeds[m])
                if alpha <= 0.02:
                    continue
                done[i, j] = True
                fibre = lock_kernels.lock_fibre(t, length / MM, strand, breaks, seeds[m])
                (nx, ny, nz), (tx, ty, tz) = normal, along
                shine = lock_kernels.lock_highlight(nx, ny, nz, tx, ty, tz, 0.5 * brightness + 0.12 * fibre)
                value = brightness + 0.34 * fibres * fibre + 0.16 * (0.4 - q * q) + sheen * (shine - 0.35)
                value -= 0.4 * max(0.0, 0.25 - t)
                shade[i, j] += alpha * (value - shade[i, j])
                tints[i, j] += alpha * (np.array(tint) - tints[i, j])
    shade[:, -1], tints[:, -1] = shade[:, 0], tints[:, 0]
    return shade, tints


def test_painting_is_the_plain_one(flow: HairFlow) -> None:
    rng = np.random.default_rng(4)
    field = swaying_field(flow, STILL, rng)
    count = 24
    roots = np.stack([rng.uniform(0, capsule.ROWS - 20, count), rng.uniform(0, capsule.COLUMNS, count)], axis=1)
    roots[:6, 0] = rng.uniform(0, 3, 6)  # at the pole
    roots[6:10, 1] = capsule.COLUMNS - 0.3  # at the seam
    lengths, widths = rng.uniform(15, 40, count) * MM, rng.uniform(4, 12, count) * MM
    chains = trace_locks(field, roots, lengths, np.full(count, 3 * MM), rng.normal(0, 0.2, (count, 2)), SHAPE)
    chance = rng.standard_normal((3, count))
    styles = np.stack([lengths, widths, 0.2 * chance[0], np.full(count, 0.8), np.full(count, 0.2),
                       np.full(count, 0.7), *chance[1:]], axis=1).astype(np.float32)  # fmt: skip
    seeds = rng.integers(0, 1 << 20, count)
    points = locks._tile_points(flow, SHAPE)
    shade, tints = np.zeros(SHAPE, np.float32), np.zeros((*SHAPE, 2), np.float32)
    locks.fill_locks(chains, styles, seeds, points, 0.5, 0.2, shade, tints)
    plain_shade, plain_tints = plain_fill(chains, styles, seeds, points.astype(np.float64), 0.5, 0.2)
    assert (plain_shade != 0).mean() > 0.02
    same = np.isclose(shade, plain_shade, atol=2e-3) & np.isclose(tints, plain_tints, atol=2e-3).all(-1)
    assert same.mean() > 0.998  # texels on the very edge of a lock may fall to either side
    assert (shade[:3] != 0).any() and (shade[:, :2] != 0).any()


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads(flow: HairFlow) -> None:
    first, again, other = painted(flow), painted(flow), painted(flow, seed=1)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = painted(flow)
    finally:
        numba.set_num_threads(threads)
    for name in ("shade", "tints"):
        one = getattr(first, name).tobytes()
        assert one == getattr(again, name).tobytes() == getattr(alone, name).tobytes(), name
        assert one != getattr(other, name).tobytes(), name


def test_the_pattern_closes_round_the_head(flow: HairFlow) -> None:
    pattern = painted(flow)
    np.testing.assert_array_equal(pattern.shade[:, 0], pattern.shade[:, -1])
    inner = pattern.shade[20:-20]
    steps = np.abs(np.diff(inner, axis=1)).mean(0)
    assert steps[-1] < 2 * np.median(steps) and steps[0] < 2 * np.median(steps)


def test_locks_run_on_with_the_shade_that_is_seen(flow: HairFlow) -> None:
    seen = np.where(np.arange(SHAPE[1])[None] % 32 < 16, 0.3, -0.3).astype(np.float32) * np.ones((SHAPE[0], 1), "f4")
    weight = np.zeros(SHAPE, np.float32)
    weight[40:60] = 1
    config = LockConfig(sway=STILL, passes=(LockPass(2.0, 2.0, 3.0, 1.0, 0.0, 0.3, 0.0, 0.0),), sheen=0.0)
    pattern = paint_locks(flow, SHAPE, seen, weight, np.random.default_rng(0), config)
    known, unknown = pattern.shade[42:58, 1:-1], pattern.shade[80:95, 1:-1]
    assert np.corrcoef(known.ravel(), seen[42:58, 1:-1].ravel())[0, 1] > 0.6
    assert abs(np.corrcoef(unknown.ravel(), seen[80:95, 1:-1].ravel())[0, 1]) < 0.35


def test_less_coherent_hair_is_drawn_with_more_disorder() -> None:
    config = LockConfig()
    orderly, curly, noisy = (
        locks.disorder_of(SeenHair(coherence, coherence, 0.1, np.full(4, contrast)), config)
        for coherence, contrast in ((0.8, 0.08), (0.2, 0.08), (0.2, 0.02))
    )
    assert orderly == (1.0, 0.0) and curly[0] > 2 and curly[1] > 1
    assert noisy == (curly[0], 0.0)  # weak detail is noise, not broken strands


def test_straight_hair_sways_less_and_curls_wave(flow: HairFlow) -> None:
    def turned_deg(coherence: float, broad_coherence: float) -> float:
        look = SeenHair(coherence, broad_coherence, 0.0, np.full(4, 0.05))
        field = swaying_field(dataclasses.replace(flow, look=look), SwayConfig(), np.random.default_rng(0))
        plain = swaying_field(flow, STILL, np.random.default_rng(0))
        cosine = (field[8:, :, :3] * plain[8:, :, :3]).sum(-1)
        return math.degrees(math.sqrt(float((np.arccos(np.clip(cosine, -1, 1)) ** 2).mean())))

    usual, straight, curly = turned_deg(0.45, 0.35), turned_deg(0.7, 0.6), turned_deg(0.55, 0.32)
    assert straight < 0.45 * usual and curly > 2 * usual
    assert abs(turned_deg(0.2, 0.1) - usual) < 0.1 * usual  # nothing can be told of such hair

"""Laws of the ribbon rasteriser: known coverage and depth, hidden by nearer surfaces, agreement with a plain twin."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
import torch

from dp360.generation.cameras import Cameras, look_at_origin
from dp360.generation.ribbon_raster import DrawnRibbons, Ribbons, draw_ribbons, strip_coverage

SIZE = 48
NO_SURFACE = np.full((SIZE, SIZE), np.inf, np.float32)


@pytest.fixture
def camera() -> Cameras:
    return look_at_origin([0.3], [0.1], size_px=SIZE)


def chains(seed: int, count: int = 30, pieces: int = 5) -> Ribbons:
    rng = np.random.default_rng(seed)
    start = rng.uniform(-0.25, 0.25, (count, 1, 3))
    points = start + np.cumsum(rng.normal(0, 0.03, (count, pieces + 1, 3)), axis=1)
    m = count * pieces
    return Ribbons(
        points[:, :-1].reshape(m, 3).astype(np.float32),
        points[:, 1:].reshape(m, 3).astype(np.float32),
        rng.uniform(0.002, 0.03, m).astype(np.float32),
        rng.uniform(0.2, 1, m).astype(np.float32),
        rng.random((m, 4)).astype(np.float32),
    )


def between(camera: Cameras, start_px: tuple[float, float, float], end_px: tuple[float, float, float]) -> Ribbons:
    """One opaque ribbon, white, 2 px wide at the head's depth, between pixels (column, row, depth)."""
    T = camera.T_world_camera[0].numpy()
    focal, principal = camera.focal_px[0].numpy(), camera.principal_px[0].numpy()
    ends = []
    for column, row, depth in (start_px, end_px):
        local = np.append((np.array([column, row]) - principal) / focal * depth, depth)
        ends.append((T[:3, :3] @ local + T[:3, 3])[None].astype(np.float32))
    one = np.ones(1, np.float32)
    return Ribbons(ends[0], ends[1], one * float(2 * 2.7 / focal[0]), one, np.ones((1, 3), np.float32))


def twin(ribbons: Ribbons, camera: Cameras, surface: np.ndarray, slack: float) -> DrawnRibbons:
    """Every piece against every pixel, in float64, far pieces first."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    values, alpha = np.zeros((SIZE, SIZE, ribbons.values.shape[1])), np.zeros((SIZE, SIZE))
    depth = np.zeros((SIZE, SIZE))
    ends = [camera.project(torch.from_numpy(p.astype(np.float64)))[0].numpy()
            for p in (ribbons.start_world, ribbons.end_world)]  # fmt: skip
    a, b = ends
    for n in np.argsort(1 / a[:, 2] + 1 / b[:, 2], kind="stable"):
        if a[n, 2] < 1e-3 or b[n, 2] < 1e-3:
            continue
        way = b[n, :2] - a[n, :2]
        length = math.hypot(*way)
        if length < 1e-6:
            continue
        way /= length
        along = (x - a[n, 0]) * way[0] + (y - a[n, 1]) * way[1]
        across = np.abs((y - a[n, 1]) * way[0] - (x - a[n, 0]) * way[1])
        inverse = 1 / a[n, 2] + (1 / b[n, 2] - 1 / a[n, 2]) * along / length
        half = 0.5 * float(camera.focal_px[0, 0]) * ribbons.width_world[n] * inverse
        cover = np.maximum(0, np.minimum(across + 0.5, half) - np.maximum(across - 0.5, -half))
        shown = (along >= 0) & (along < length) & (1 / inverse < surface + slack)
        share = np.where(shown, ribbons.opacity[n] * cover, 0)
        values += share[..., None] * (ribbons.values[n] - values)
        alpha += share * (1 - alpha)
        depth += share * (1 / np.where(shown, inverse, 1) - depth)
    return DrawnRibbons(
        values.astype(np.float32), alpha.astype(np.float32),
        np.where(alpha > 0, depth / np.maximum(alpha, 1e-9), np.inf).astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
def test_the_picture_is_the_plain_one(camera: Cameras, seed: int) -> None:
    ribbons = chains(seed)
    surface = np.where(np.arange(SIZE)[None] < SIZE // 2, 2.7, np.inf) * np.ones((SIZE, 1))
    surface = surface.astype(np.float32)
    drawn, plain = draw_ribbons(ribbons, camera, surface, slack=0.01), twin(ribbons, camera, surface, 0.01)
    assert 0.1 < (plain.alpha > 0).mean() < 0.95
    same = np.isclose(drawn.alpha, plain.alpha, atol=1e-4) & np.isclose(drawn.values, plain.values, atol=1e-4).all(-1)
    assert same.mean() > 0.998  # pixel centres on an end may fall to either side
    both = (drawn.alpha > 0.01) & (plain.alpha > 0.01) & same
    np.testing.assert_allclose(drawn.depth[both], plain.depth[both], atol=1e-4)


@pytest.mark.parametrize("half_px", [0.1, 0.5, 2.0])
def test_coverage_adds_up_to_the_width(half_px: float) -> None:
    for shift in np.linspace(0, 1, 11):
        total = sum(strip_coverage(abs(k + shift), half_px) for k in range(-8, 8))
        assert abs(total - 2 * half_px) < 1e-9


def test_a_ribbon_covers_its_width_at_its_depth(camera: Cameras) -> None:
    drawn = draw_ribbons(between(camera, (10.0, 20.3, 2.7), (40.0, 20.3, 2.7)), camera, NO_SURFACE)
    np.testing.assert_allclose(drawn.alpha[:, 10:40].sum(0), 2, atol=1e-3)
    assert (drawn.alpha[:, :10] == 0).all() and (drawn.alpha[:, 40:] == 0).all()
    np.testing.assert_allclose(drawn.depth[drawn.alpha > 0], 2.7, atol=1e-3)
    assert np.isinf(drawn.depth[drawn.alpha == 0]).all()
    np.testing.assert_allclose(drawn.values, np.repeat(drawn.alpha[..., None], 3, axis=2), atol=1e-6)
    far = draw_ribbons(between(camera, (10.0, 20.3, 5.4), (40.0, 20.3, 5.4)), camera, NO_SURFACE)
    np.testing.assert_allclose(far.alpha[:, 10:40].sum(0), 1, atol=1e-3)  # twice as far, half as wide


def test_pieces_of_a_chain_meet_in_no_pixel_twice(camera: Cameras) -> None:
    whole = between(camera, (8.0, 30.0, 2.7), (40.0, 12.0, 2.7))
    half = Ribbons(whole.start_world, whole.end_world, whole.width_world, 0.5 * whole.opacity, whole.values)
    cuts = np.linspace(0, 1, 8)
    points = half.start_world + cuts[:, None] * (half.end_world - half.start_world)
    many = Ribbons(points[:-1].astype(np.float32), points[1:].astype(np.float32), *(
        np.repeat(values, 7, axis=0) for values in (half.width_world, half.opacity, half.values)))  # fmt: skip
    one, chain = draw_ribbons(half, camera, NO_SURFACE), draw_ribbons(many, camera, NO_SURFACE)
    assert np.abs(one.alpha - chain.alpha).max() < 1e-3 and one.alpha.max() <= 0.5


def test_nearer_surfaces_hide_ribbons(camera: Cameras) -> None:
    ribbon = between(camera, (5.0, 20.0, 2.7), (43.0, 20.0, 2.7))
    surface = NO_SURFACE.copy()
    surface[:, :20], surface[:, 20:30] = 2.6, 2.695
    drawn = draw_ribbons(ribbon, camera, surface)
    assert (drawn.alpha[:, :30] == 0).all() and drawn.alpha[20, 30:43].min() > 0.9
    lying = draw_ribbons(ribbon, camera, surface, slack=0.01)
    assert (lying.alpha[:, :20] == 0).all() and lying.alpha[20, 20:30].min() > 0.9
    everywhere = draw_ribbons(ribbon, camera, np.full_like(NO_SURFACE, 2.8))
    np.testing.assert_array_equal(everywhere.alpha, draw_ribbons(ribbon, camera, NO_SURFACE).alpha)


def test_nearer_ribbons_lie_over_farther_ones(camera: Cameras) -> None:
    near, far = (between(camera, (5.0, row, depth), (43.0, 24.0, depth)) for row, depth in ((20.0, 2.5), (28.0, 2.9)))
    black = Ribbons(near.start_world, near.end_world, near.width_world, near.opacity, 0 * near.values)
    for first, second in ((black, far), (far, black)):
        joined = Ribbons(*(np.concatenate([getattr(r, name) for r in (first, second)])
                           for name in ("start_world", "end_world", "width_world", "opacity", "values")))  # fmt: skip
        drawn = draw_ribbons(joined, camera, NO_SURFACE)
        covered = draw_ribbons(black, camera, NO_SURFACE).alpha > 0.99
        assert covered.sum() > 10 and drawn.values[covered].max() < 0.02


def test_what_lies_behind_the_camera_or_outside_is_left_out(camera: Cameras) -> None:
    eye = camera.position_world[0].numpy()
    behind = Ribbons(
        (1.2 * eye[None]).astype(np.float32), (0 * eye[None]).astype(np.float32), np.ones(1, np.float32),
        np.ones(1, np.float32), np.ones((1, 1), np.float32),
    )  # fmt: skip
    assert draw_ribbons(behind, camera, NO_SURFACE).alpha.max() == 0
    assert draw_ribbons(between(camera, (90.0, 90.0, 2.7), (95.0, 120.0, 2.7)), camera, NO_SURFACE).alpha.max() == 0
    nothing = Ribbons(*(np.zeros((0, *shape), np.float32) for shape in ((3,), (3,), (), (), (2,))))
    assert draw_ribbons(nothing, camera, NO_SURFACE).values.shape == (SIZE, SIZE, 2)


def test_the_number_of_threads_changes_nothing(camera: Cameras) -> None:
    ribbons = chains(3, count=200)
    several = draw_ribbons(ribbons, camera, NO_SURFACE)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = draw_ribbons(ribbons, camera, NO_SURFACE)
    finally:
        numba.set_num_threads(threads)
    for name in ("values", "alpha", "depth"):
        assert getattr(several, name).tobytes() == getattr(one, name).tobytes(), name


def test_wrong_input_is_refused(camera: Cameras) -> None:
    with pytest.raises(ValueError, match="expected depths of shape"):
        draw_ribbons(chains(0), camera, NO_SURFACE[:10])
    with pytest.raises(ValueError, match="expected one camera"):
        draw_ribbons(chains(0), look_at_origin([0.0, 1.0], [0.0, 0.0], size_px=SIZE), NO_SURFACE)

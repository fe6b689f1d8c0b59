"""Laws of single strands: rooted in the shell, along its flow, free for a short way where it ends."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from dp360.generation import orbit
from dp360.generation.prior import HeadPrior, capsule
from dp360.generation.prior.hair.flow_field import HairFlow, grid_normals
from dp360.generation.prior.hair.loose_strands import HairStrands, StrandConfig, grow_strands
from dp360.generation.prior.hair.tracing import MM
from dp360.generation.prior.texture.atlas import MATERIAL_HAIR

TILE = (97, 129)
UNSEEN = np.zeros(TILE, np.float32)
RED = np.full((*TILE, 3), (200, 20, 20), np.uint8)


@pytest.fixture(scope="module")
def flow() -> HairFlow:
    """Straight hair on a round-topped post, down to a hem; bare before the face."""
    points = capsule.surface_points(np.full((capsule.ROWS, capsule.COLUMNS), 0.2))
    normals = grid_normals(points)
    down = np.array([0.0, -1.0, 0.0]) - normals * (normals @ np.array([0.0, -1.0, 0.0]))[..., None]
    down[0] = (0.0, 0.0, 1.0)
    down /= np.linalg.norm(down, axis=-1, keepdims=True)
    bare = (points[..., 1] < -0.1) | ((points[..., 2] > 0.1) & (points[..., 1] < 0.1))
    thickness = np.where(bare, -0.02, 0.02)
    return HairFlow(
        points, normals, down, np.zeros_like(thickness), np.linalg.norm(points - points[0, 0], axis=-1), thickness,
        np.zeros_like(thickness), np.ones_like(thickness), False, None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def strands(flow: HairFlow) -> HairStrands:
    return grow_strands(flow, RED, UNSEEN)


def test_strands_stay_by_the_shell_and_hang_free_for_a_short_way(flow: HairFlow, strands: HairStrands) -> None:
    assert len(strands.points_world) > 500
    ribbons = strands.ribbons()
    for points in (ribbons.start_world, ribbons.end_world):
        row, column, radius = capsule.cell_coordinates(points.astype(np.float64))
        assert np.quantile(np.abs(radius - 0.2), 0.99) < 4 * MM
        on_hair = flow.thickness[np.clip(np.rint(row), 0, 111).astype(int), np.rint(column).astype(int) % 128] > 0
        assert on_hair.mean() > 0.85
    lowest = ribbons.end_world[:, 1].min()
    assert -0.1 - 60 * MM < lowest < -0.1  # beyond the hem, not far


def test_strands_run_along_the_flow(flow: HairFlow, strands: HairStrands) -> None:
    ribbons = strands.ribbons()
    way = (ribbons.end_world - ribbons.start_world).astype(np.float64)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    row, column, _ = capsule.cell_coordinates(ribbons.start_world.astype(np.float64))
    there = flow.direction_world[np.clip(np.rint(row), 0, 111).astype(int), np.rint(column).astype(int) % 128]
    below_pole = row > 10
    assert np.median((way * there).sum(1)[below_pole]) > 0.85
    assert ((way * there).sum(1)[below_pole] > 0).mean() > 0.97


def test_strands_have_the_tiles_colour(strands: HairStrands) -> None:
    colours = strands.ribbons().values[:, :3]
    assert np.quantile(np.abs(colours[:, 1] / colours[:, 0] - 0.1), 0.99) < 0.01  # the brightest are cut at white
    assert abs(np.median(colours[:, 0]) - 200 / 255) < 0.1


def test_seen_hair_keeps_its_own_strands(flow: HairFlow, strands: HairStrands) -> None:
    seen = UNSEEN.copy()
    seen[:, 33:97] = 1.0  # the half about the back
    grown = grow_strands(flow, RED, seen)
    middle = (grown.points_world[:, 0, 2] < -0.1).mean()
    assert middle < 0.15 < 0.2 < (strands.points_world[:, 0, 2] < -0.1).mean()


def test_strands_are_denser_where_hair_ends(flow: HairFlow) -> None:
    def share_at_hem(config: StrandConfig) -> float:
        roots = grow_strands(flow, RED, UNSEEN, config=config).points_world[:, 0]
        return float((roots[:, 1] < -0.07).mean())

    assert share_at_hem(StrandConfig()) > 1.5 * share_at_hem(StrandConfig(more_at_ends=0.0))


def test_the_same_seed_gives_the_same_strands(flow: HairFlow, strands: HairStrands) -> None:
    again, other = grow_strands(flow, RED, UNSEEN), grow_strands(flow, RED, UNSEEN, seed=1)
    for field in ("points_world", "normals_world", "rgb_unit", "opacity"):
        assert getattr(again, field).tobytes() == getattr(strands, field).tobytes(), field
    assert other.points_world.tobytes() != strands.points_world.tobytes()


def test_bare_shells_have_no_strands(flow: HairFlow) -> None:
    bare = dataclasses.replace(flow, thickness=np.full_like(flow.thickness, -0.02))
    assert len(grow_strands(bare, RED, UNSEEN).ribbons()) == 0


def test_strands_of_a_head_are_hair_that_nobody_saw(prior: HeadPrior) -> None:
    cameras = orbit(4, size_px=192)
    with_strands, bald = prior.render(cameras), dataclasses.replace(prior, strands=HairStrands.none()).render(cameras)
    beyond = (bald.alpha == 0) & (with_strands.alpha > 0)
    assert 100 < beyond.sum() < 0.05 * (bald.alpha > 0).sum()
    assert (with_strands.labels[beyond] == MATERIAL_HAIR + 1).all()
    assert (with_strands.validity[beyond] == 0).all() and np.isfinite(with_strands.depth[beyond]).all()
    assert (with_strands.alpha >= bald.alpha - 1e-6).all()
    assert (with_strands.validity <= bald.validity + 1e-6).all()
    far = with_strands.alpha - bald.alpha
    assert far[2].sum() > 0 and np.abs(with_strands.rgb - bald.rgb)[2].max() > 0.02


def test_strands_are_among_the_samples_of_the_surface(prior: HeadPrior) -> None:
    cloud = prior.surface_samples(1000, torch.Generator().manual_seed(0))
    assert cloud.half_axes_world is not None
    thin = cloud.half_axes_world.norm(dim=-1) > 0
    assert int(thin.sum()) == 200 and cloud.points_world.shape == (1000, 3)
    assert float(cloud.half_axes_world[thin].norm(dim=-1).max()) < 9 * MM
    none = dataclasses.replace(prior, strands=HairStrands.none())
    assert none.surface_samples(100, torch.Generator()).half_axes_world is None

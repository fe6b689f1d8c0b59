"""Silhouettes of grids against a slow twin, their derivatives, and free form that meets an outline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dp360.generation import look_at_origin
from dp360.generation.prior.bust.bust_fit import fit_placement, upright
from dp360.generation.prior.bust.outline import EXACT, UNKNOWN, Outline, Silhouette, followed, smoothstep
from dp360.generation.prior.bust.template import BustTemplate, load_template
from dp360.generation.prior.labels.portrait_labels import project_px

NECK = np.array([0.0, -0.2145, -0.02])


@pytest.fixture(scope="module")
def template() -> BustTemplate:
    return load_template()


def outline_of(points_world: np.ndarray, azimuth_rad: float = 0.0) -> Outline:
    """What a picture of a surface would show."""
    camera = look_at_origin([azimuth_rad], [0.0], size_px=512)
    uv = project_px(camera, points_world.reshape(-1, 3)).reshape(*points_world.shape[:2], 2)
    rows = np.arange(400.0, 511.0, 3.0) + 0.5
    sides = Silhouette.of(uv, rows).sides_px
    kind = np.where(np.isfinite(sides), EXACT, UNKNOWN)
    return Outline(camera, rows, np.nan_to_num(sides), kind, np.where(np.isfinite(sides), sides, [[-np.inf], [np.inf]]))


def by_hand(uv: np.ndarray, row: float) -> tuple[float, float]:
    """Leftmost and rightmost crossing of a row, column by column."""
    found = []
    for column in range(uv.shape[1]):
        for upper, lower in zip(uv[:-1, column], uv[1:, column]):
            if upper[1] <= row < lower[1]:
                found.append(upper[0] + (row - upper[1]) / (lower[1] - upper[1]) * (lower[0] - upper[0]))
    return (min(found), max(found)) if found else (np.nan, np.nan)


def test_silhouettes_are_those_of_a_slow_twin() -> None:
    rng = np.random.default_rng(0)
    uv = rng.uniform(0, 100, (12, 9, 2))
    rows = np.linspace(-5, 105, 40)
    sides = Silhouette.of(uv, rows).sides_px
    np.testing.assert_allclose(sides.T, [by_hand(uv, row) for row in rows])


def test_derivatives_of_silhouettes_are_those_of_finite_differences(template: BustTemplate) -> None:
    camera = look_at_origin([0.2], [0.1], size_px=512)
    points = template.mean + NECK
    uv = project_px(camera, points.reshape(-1, 3)).reshape(*points.shape[:2], 2)
    move = np.random.default_rng(0).normal(0, 1, (1, 1, 2)) + 0.1 * uv
    rows = np.linspace(410, 500, 20)
    derivative = Silhouette.of(uv, rows).derivative(move[None])[0]
    step = 1e-5
    ahead, behind = (Silhouette.of(uv + s * move, rows).sides_px for s in (step, -step))
    off = np.abs((ahead - behind) / (2 * step) - derivative)
    assert np.isfinite(off).all() and np.median(off) < 1e-4 and (off < 0.5).mean() > 0.9  # where columns change


def test_the_fit_finds_a_body_again(template: BustTemplate) -> None:
    shape = np.zeros(template.parameters)
    shape[:2] = 0.12, 0.42
    outline = outline_of(template.bent(shape)[0] + NECK)
    placement = fit_placement(template, outline, NECK)
    wrong = np.nanmean(np.abs(outline_of(template.mean + NECK).sides_px - outline.sides_px))
    right = np.nanmean(np.abs(outline_of(placement.to_world(placement.points_body)).sides_px - outline.sides_px))
    assert placement.trust == 1.0 and right < 0.2 * wrong and right < 3.0


def test_a_turned_head_far_aside_keeps_the_mean_bust(template: BustTemplate) -> None:
    shape = np.zeros(template.parameters)
    shape[0] = 0.4
    for azimuth in (1.0, -1.0):
        outline = outline_of(template.bent(shape)[0] + NECK, azimuth)
        placement = fit_placement(template, outline, NECK)
        usual = np.zeros(template.parameters)
        usual[1] = 0.30
        assert placement.trust == 0
        np.testing.assert_allclose(placement.points_body, template.bent(usual)[0], atol=1e-12)
        yaw = np.arctan2(placement.T_world_body[0, 2], placement.T_world_body[2, 2])
        assert 0.2 < yaw / azimuth < 0.6


def test_a_necks_stump_is_no_body(template: BustTemplate) -> None:
    outline = outline_of(template.mean + NECK)
    middle = outline.sides_px.mean(0)
    stump = Outline(
        outline.camera, outline.rows_px, middle + (outline.sides_px - middle) * 0.3, outline.kind, outline.ends_px
    )
    assert fit_placement(template, stump, NECK).trust == 0
    assert fit_placement(template, outline, NECK).trust == 1


def test_free_form_goes_towards_the_outline_and_not_far(template: BustTemplate) -> None:
    points = template.mean + NECK
    wanted = template.mean * [1.12, 1.0, 1.0] + NECK
    outline = outline_of(wanted)
    camera = outline.camera
    uv = project_px(camera, points.reshape(-1, 3)).reshape(*points.shape[:2], 2)
    move = followed(points, uv, outline, NECK, 0.07)
    before, after = (np.nanmean(np.abs(outline_of(p).sides_px - outline.sides_px)) for p in (points, points + move))
    assert after < 0.5 * before
    assert np.linalg.norm(followed(points, uv, outline, NECK, 0.01), axis=-1).max() < 0.03
    kind = np.full_like(outline.kind, UNKNOWN)
    unknown = Outline(camera, outline.rows_px, outline.sides_px, kind, outline.ends_px)
    assert not followed(points, uv, unknown, NECK, 0.07).any()


def test_the_bodys_up_follows_the_pictures_and_not_without_end() -> None:
    for roll, largest in ((0.2, 0.2), (1.2, 0.4)):
        camera = look_at_origin([0.0], [0.0], size_px=64)
        turn = torch.eye(4, dtype=torch.float64)
        turn[:2, :2] = torch.tensor([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        rolled = type(camera)(camera.T_world_camera @ turn, camera.focal_px, camera.principal_px, 64, 64)
        R = upright(rolled)
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
        up_of_picture = -rolled.T_world_camera[0, :3, 1].numpy()
        angle = np.arccos(R[1, 1])
        assert 0.4 * min(roll, largest) < angle <= largest
        assert R[:, 1] @ up_of_picture > up_of_picture[1]


def test_smoothstep_is_a_step() -> None:
    t = np.linspace(-1, 2, 31)
    s = smoothstep(t)
    assert s[0] == 0 and s[-1] == 1 and smoothstep(0.5) == 0.5 and (np.diff(s) >= 0).all()


def test_points_lie_beyond_the_ends_of_the_body_only_where_ends_are_known(template: BustTemplate) -> None:
    outline = outline_of(template.mean + NECK)
    row = outline.rows_px[-9:-1] + 0.4
    left, right = outline.ends_px[:, -9:-1]
    inside = np.stack([(left + right) / 2, row], axis=1)
    aside = np.array([300.0, 0.0])
    assert not outline.beyond_px(inside).any()
    np.testing.assert_allclose(outline.beyond_px(inside + aside), inside[:, 0] + 300 - right, atol=12)
    np.testing.assert_allclose(outline.beyond_px(inside - aside), inside[:, 0] - 300 - left, atol=12)
    assert not outline.beyond_px(np.array([[1000.0, outline.rows_px[0] - 20], [-500.0, 1000.0]])).any()
    ends = np.tile([[-np.inf], [np.inf]], len(outline.rows_px))
    open_ended = Outline(outline.camera, outline.rows_px, outline.sides_px, outline.kind, ends)
    assert not open_ended.beyond_px(inside + aside).any()

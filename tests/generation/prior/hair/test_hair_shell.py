"""Laws of the hair shell."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from dp360.generation import look_at_origin
from dp360.generation.head_model import load_head_model
from dp360.generation.head_model.anatomy import centimetres
from dp360.generation.head_model.model import PART_CRANIUM_NECK, PART_FACE
from dp360.generation.portrait import Portrait
from dp360.generation.prior import capsule
from dp360.generation.prior.field import head_field
from dp360.generation.prior.field.portrait_observation import field_of_portrait
from dp360.generation.prior.hair.hair_shell import (
    _CUT_STEPS,
    _HAIRLINE_RADIUS,
    _HAIRLINE_SLOPE,
    _HIDES,
    _SIDE_RADIUS,
    _SIDE_SLOPE,
    _TEMPLE_LINE_CM,
    _bare_sides,
    _behind_temples,
    _hair_beside,
    _little_of_ear,
    _soft_hairline,
    _soft_sides,
    _without_tongues,
    _without_tufts,
    fit_hair_shell,
    within_outline,
)
from dp360.generation.prior.labels.portrait_labels import ear_vertices, label_portrait, project_px
from dp360.generation.prior.labels.segmenter import EAR


@pytest.fixture(scope="module")
def skull() -> np.ndarray:
    model = load_head_model()
    return capsule.opened_skull_radius(model.neutral, model.faces_of(PART_FACE, PART_CRANIUM_NECK))


def cap(skull: np.ndarray, thickness: float) -> np.ndarray:
    """Hair of one thickness with an edge all round, above the brows in front and above the nape behind."""
    y, z = np.moveaxis(capsule.surface_points(skull), -1, 0)[1:]
    return np.where(y > np.where(z > 0, 0.10, -0.05), thickness, -0.02)


def test_hair_rises_gently_from_the_forehead_and_keeps_its_edges_elsewhere(skull: np.ndarray) -> None:
    before = cap(skull, 0.04)
    after = _soft_hairline(before, skull)
    assert (after <= before).all()
    points = capsule.surface_points(skull)
    bare = (before < 0) & (points[..., 1] > 0.06) & (points[..., 2] > 0.05)
    hair = before > 0
    distance = np.linalg.norm(points[hair][:, None] - points[bare][None], axis=-1).min(1)
    bound = distance * (_HAIRLINE_SLOPE + distance / _HAIRLINE_RADIUS)
    assert (after[hair] <= np.minimum(0.04, bound) + 1e-9).all()
    assert after[hair][distance < 0.01].max() < 0.005
    behind = hair & (points[..., 2] < -0.05)
    np.testing.assert_array_equal(after[behind], before[behind])


def test_short_hair_rises_gently_from_the_nape_and_keeps_its_crown(skull: np.ndarray) -> None:
    before = cap(skull, 0.04)
    after = _soft_sides(before, skull)
    points = capsule.surface_points(skull)
    assert (after <= before).all()
    low = (before > 0) & (points[..., 2] < -0.05) & (points[..., 1] < 0.0)
    bare = (before < 0) & (points[..., 2] < -0.02) & (points[..., 1] < 0.02)
    distance = np.linalg.norm(points[low][:, None] - points[bare][None], axis=-1).min(1)
    assert (after[low] <= np.minimum(0.04, distance * (_SIDE_SLOPE + distance / _SIDE_RADIUS)) + 1e-9).all()
    assert after[low][distance < 0.01].max() < 0.008 < before[low].min()
    crown = points[..., 1] > 0.13
    np.testing.assert_array_equal(after[crown], before[crown])


def test_narrow_tongues_over_the_temples_are_sunk(skull: np.ndarray) -> None:
    points = capsule.surface_points(skull)
    z, y = points[..., 2], points[..., 1]
    hair = np.where((z < 0.03) & (y > 0.0), 0.02, -0.02)
    row = int(np.argmin(np.abs(y[:, 20] - 0.05)))
    before = hair.copy()
    before[row, (z[row] > 0.02) & (z[row] < 0.08) & (points[row, :, 0] > 0)] = 0.01
    after = _without_tongues(before, skull)
    assert (after[row, z[row] > 0.04] < 0).all() and (before[row, z[row] > 0.04] > 0).any()
    np.testing.assert_array_equal(after[z < 0.025], before[z < 0.025])
    np.testing.assert_array_equal(_without_tongues(hair, skull), hair)


def test_short_hair_ends_along_the_temples_unless_it_is_plainly_seen_before_them(skull: np.ndarray) -> None:
    _, y, z = np.moveaxis(centimetres(capsule.surface_points(skull)), -1, 0)
    square = np.where((y > 4.5) & (z < 7.5) | (y > 9), 0.02, -0.02)
    before = (y < 8.5) & (z > np.interp(y, *_TEMPLE_LINE_CM.T) + 0.1)
    hidden = _behind_temples(square, skull, np.zeros_like(skull))
    assert (square[before] > 0).any() and (hidden[before] < 0).all() and (hidden <= square).all()
    np.testing.assert_allclose(_behind_temples(square, skull, np.ones_like(skull)), square, atol=1e-12)
    away = (z < 0) | (y > 10)
    np.testing.assert_array_equal(hidden[away], square[away])
    just_behind = (y > 4.6) & (y < 6) & ~before & (z > np.interp(y, *_TEMPLE_LINE_CM.T) - 0.8)
    assert just_behind.any() and hidden[just_behind].max() < 0.01


def test_no_notch_is_left_between_a_seen_fringe_and_the_temples_line(skull: np.ndarray) -> None:
    x, y, z = np.moveaxis(centimetres(capsule.surface_points(skull)), -1, 0)
    everywhere = np.full_like(skull, 0.01)
    before = _behind_temples(everywhere, skull, np.zeros_like(skull)) <= 0
    for gap_cm, closed in ((1.5, True), (6.0, False)):
        # the fringe hangs over the forehead's side, a gap behind it reaches to the temple's line
        line = np.array([z[row][before[row] & (x[row] > 0)].min(initial=np.inf) for row in range(len(z))])[:, None]
        fringe = (z > line + gap_cm) & (x > 0) & (y > 6.0)
        gap = before & (x > 0) & (z <= line + gap_cm) & (y > 7.0) & (y < 8.0)
        shell = _behind_temples(everywhere, skull, fringe.astype(np.float64))
        assert gap.any() and ((shell[gap] > 0).mean() > 0.8) == closed, gap_cm


def test_a_tuft_on_a_bald_crown_is_none(skull: np.ndarray) -> None:
    points = capsule.surface_points(skull)
    x, y, z = np.moveaxis(points, -1, 0)
    wreath = (y < 0.12) & (y > -0.05) & (z < 0.03)
    tuft = (y > 0.16) & (np.abs(x) < 0.02) & (z > 0.02)
    half = (y > 0.12) & (z < 0.0)
    hair = np.where(wreath | tuft, 0.02, -0.02)
    after = _without_tufts(hair)
    assert tuft.any() and (after[tuft] < 0).all()
    np.testing.assert_array_equal(after[wreath], hair[wreath])
    whole = np.where(wreath | half, 0.02, -0.02)
    np.testing.assert_array_equal(_without_tufts(whole)[half], whole[half])


def test_a_wreath_rises_gently_from_the_bald_crown(skull: np.ndarray) -> None:
    height = capsule.surface_points(skull)[..., 1]
    wreath = np.where((height > -0.05) & (height < 0.12), 0.04, -0.02)
    after = _soft_hairline(wreath, skull)
    upper, lower = (wreath > 0) & (height > 0.11), (wreath > 0) & (height < 0.0)
    assert after[upper].max() < 0.01
    np.testing.assert_array_equal(after[lower], wreath[lower])


def test_a_head_without_bare_forehead_keeps_its_hair(skull: np.ndarray) -> None:
    everywhere = np.full_like(skull, 0.03)
    np.testing.assert_array_equal(_soft_hairline(everywhere, skull), everywhere)


@pytest.mark.parametrize("bare", [True, False])
def test_an_ear_is_whole_or_hidden(portrait: Portrait, bare: bool) -> None:
    model = load_head_model()
    labels = label_portrait(portrait, model)
    field, _ = field_of_portrait(portrait, labels, model)
    material = np.zeros_like(field.material)
    material[head_field.HAIR] = 1
    field = replace(field, material=material)  # hair wherever the portrait does not show skin
    uv = project_px(portrait.head.camera, portrait.head.vertices_world[ear_vertices(model)]).astype(np.int32)
    ears = np.zeros(labels.skin.shape, np.uint8)
    ears[uv[:, 1], uv[:, 0]] = 1
    ears = cv2.dilate(ears, np.ones((9, 9), np.uint8)) > 0
    skin, hair = (mask & ~ears for mask in (labels.skin, labels.hair))
    labels = replace(labels, skin=skin | (ears & bare), hair=hair | (ears & (not bare)))
    shell = fit_hair_shell(portrait, labels, model, field)
    row, column, radius = capsule.cell_coordinates(portrait.head.vertices_world[ear_vertices(model)])
    over = shell.radius[np.rint(row).astype(int), np.rint(column).astype(int) % capsule.COLUMNS]
    out = radius > over
    assert out.mean() > 0.9 if bare else out.mean() < 0.05


def test_a_surface_is_cut_back_to_the_outline_and_no_further(portrait: Portrait) -> None:
    skull = capsule.opened_skull_radius(portrait.head.vertices_world, load_head_model().skin_faces)
    far = skull + 0.12
    cut = within_outline(portrait, far, skull)
    assert (cut >= skull).all() and (cut < far - 0.05).mean() > 0.1
    one_step_in = capsule.surface_points(cut - 0.12 / (_CUT_STEPS - 1) * 1.01)
    column, row = np.clip(
        np.floor(project_px(portrait.head.camera, one_step_in)).astype(int), 0, portrait.size_px - 1
    ).T  # fmt: skip
    inside = ((portrait.alpha_unit > 0.5) | ~portrait.inside)[row, column].T
    assert inside[(cut > skull) & (cut < far)].mean() > 0.97
    np.testing.assert_array_equal(within_outline(portrait, skull, skull), skull)


def test_a_sliver_of_an_ear_with_hair_hanging_beside_it_is_hidden(portrait: Portrait) -> None:
    labels = label_portrait(portrait, load_head_model())
    size = portrait.size_px
    row, column = np.indices((size, size))
    uv = np.stack(np.meshgrid(np.arange(60, 100), np.arange(200, 300)), axis=-1).reshape(-1, 2)  # an ear on the left
    classes = np.zeros_like(labels.classes)
    classes[..., EAR] = (column >= 92) & (column < 100) & (row >= 200) & (row < 300)
    hanging = (column < 92) & (row > 150)
    sliver = replace(labels, hair=hanging, classes=classes)
    assert _little_of_ear(uv, sliver) and _hair_beside(uv, sliver, -1) >= _HIDES
    short = replace(sliver, hair=hanging & (row < 220))  # above the ear
    assert _hair_beside(uv, short, -1) < 0.5 * _HIDES
    whole = np.zeros_like(classes)
    whole[..., EAR] = (column >= 60) & (column < 100) & (row >= 200) & (row < 300)
    tucked = replace(labels, hair=(column < 60) & (row > 150), classes=whole)
    assert not _little_of_ear(uv, tucked)  # hair behind an ear that is all there


@pytest.mark.parametrize("turned_deg", [-12.0, 0.0, 12.0])
def test_hair_over_one_ear_stays_though_the_other_is_bare(portrait: Portrait, turned_deg: float) -> None:
    """Ears as labelled: the head's left one is bare, over its right one hair hangs down to the neck."""
    model = load_head_model()
    labels = label_portrait(portrait, model)
    camera = look_at_origin([math.radians(turned_deg)], [0.0], size_px=portrait.size_px)
    portrait = replace(portrait, head=replace(portrait.head, camera=camera))
    ears = ear_vertices(model)
    left = centimetres(model.neutral)[:, 0] > 0
    uv = project_px(camera, portrait.head.vertices_world)
    row, column = np.indices(labels.skin.shape)
    top, bottom = uv[ears & ~left, 1].min(), uv[ears & ~left, 1].max()
    hair = (column < uv[ears & ~left, 0].max() - 4) & (row > top - 60) & (row < bottom + 60)
    shape = np.zeros(hair.shape, np.uint8)
    cv2.fillConvexPoly(shape, cv2.convexHull(uv[ears & left].astype(np.int32)), (1,))
    classes = np.zeros_like(labels.classes)
    classes[..., EAR] = shape
    labels = replace(labels, hair=hair, skin=~hair, classes=classes)
    assert _bare_sides(portrait, labels, model) == (False, True)
    assert _bare_sides(portrait, replace(labels, hair=np.zeros_like(hair), skin=np.ones_like(hair)), model) == (
        True,
        True,
    )

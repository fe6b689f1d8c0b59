"""Beards: a mean head whose portrait shows one of known length."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dp360.generation.cameras import PANOHEAD_RADIUS, UNITS_PER_CM, look_at_origin
from dp360.generation.head_model import HeadFit, load_head_model
from dp360.generation.head_model.anatomy import CHIN_LANDMARK, centimetres
from dp360.generation.portrait import Portrait
from dp360.generation.prior.hair.beard import beard_length_cm, beard_share, bearded_vertices
from dp360.generation.prior.labels.portrait_labels import PortraitLabels, project_px
from dp360.generation.prior.labels.segmenter import BEARD, CLASS_NAMES, FACE

SIZE = 256


def bearded(length_cm: float, yaw_deg: float = 0.0) -> tuple[Portrait, PortraitLabels]:
    """A portrait whose beard covers the jaw below the mouth and ends so far below the chin."""
    model = load_head_model()
    vertices = model.neutral.astype(np.float64)
    camera = look_at_origin([math.radians(yaw_deg)], [0.0], size_px=SIZE)
    chin = project_px(camera, model.landmarks(vertices)[CHIN_LANDMARK])
    px_per_cm = float(camera.focal_px[0, 0]) / PANOHEAD_RADIUS * UNITS_PER_CM
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5
    beard = (row > chin[1] - 3.5 * px_per_cm) & (row < chin[1] + length_cm * px_per_cm)
    beard &= np.abs(column - chin[0]) < 5 * px_per_cm
    classes = np.eye(len(CLASS_NAMES), dtype=np.float32)[np.where(beard, BEARD, FACE)]
    everywhere, nowhere = np.ones((SIZE, SIZE), bool), np.zeros((SIZE, SIZE), bool)
    fit = HeadFit(np.zeros(0), np.zeros(0), vertices, camera, np.zeros(478))
    rgb = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    portrait = Portrait(
        (255 * rgb).astype(np.uint8), np.ones((SIZE, SIZE), np.float32), rgb, everywhere, None, fit, "standard",
        "drawn", "0" * 64, (),
    )  # fmt: skip
    certain = np.zeros((SIZE, SIZE, 3))
    certain[..., 0] = 1
    labels = PortraitLabels(certain, everywhere, nowhere, nowhere, np.zeros((SIZE, SIZE), np.float32), classes)
    return portrait, labels


@pytest.mark.parametrize("length_cm", [1.5, 4.0])
def test_a_beard_hangs_below_the_chin_and_stands_out_before_it(length_cm: float) -> None:
    model = load_head_model()
    portrait, labels = bearded(length_cm)
    assert beard_length_cm(portrait, labels, model) == pytest.approx(length_cm, abs=0.15)
    before, after = (
        centimetres(model.landmarks(v)[CHIN_LANDMARK])
        for v in (portrait.head.vertices_world, bearded_vertices(portrait, labels, model))
    )
    assert 0.2 * length_cm < before[1] - after[1] < length_cm
    assert 0.3 < after[2] - before[2] < 2
    moved = np.linalg.norm(bearded_vertices(portrait, labels, model) - portrait.head.vertices_world, axis=1)
    above = centimetres(model.neutral)[:, 1] > 0
    assert moved[above].max() < 1e-3 * UNITS_PER_CM


def test_stubble_and_bare_chins_stay_where_they_are() -> None:
    model = load_head_model()
    for length_cm in (0.2, -10.0):
        portrait, labels = bearded(length_cm)
        np.testing.assert_array_equal(bearded_vertices(portrait, labels, model), portrait.head.vertices_world)


@pytest.mark.parametrize("yaw_deg", [-50.0, 50.0])
def test_the_far_side_has_the_beard_of_the_near_side(yaw_deg: float) -> None:
    model = load_head_model()
    share = beard_share(*bearded(2.0, yaw_deg), model)
    x, y, z = centimetres(model.neutral).T
    jaw = (y > -8) & (y < -5.5) & (z > 4) & (np.abs(x) > 2) & (np.abs(x) < 3.5)
    left, right = share[jaw & (x > 0)].mean(), share[jaw & (x < 0)].mean()
    assert min(left, right) > 0.5 and abs(left - right) < 0.1


def test_the_mirrored_portrait_gives_the_mirrored_beard() -> None:
    model = load_head_model()
    one, other = (bearded_vertices(*bearded(3.0, yaw), model) - model.neutral for yaw in (30.0, -30.0))
    mirrored = model.neutral * np.array([-1, 1, 1])
    partner = np.array([np.abs(model.neutral - point).sum(1).argmin() for point in mirrored[::25]])
    np.testing.assert_allclose(other[partner], one[::25] * [-1, 1, 1], atol=0.25 * UNITS_PER_CM)

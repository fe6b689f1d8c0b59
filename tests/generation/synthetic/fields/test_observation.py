"""What portraits show: the truth where nothing errs, never the back of the head, and errors of the stated size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dp360.generation.cameras import PANOHEAD_FOCAL_NORMALISED, look_at_origin
from dp360.generation.prior.field.chart import cell_frames
from dp360.generation.prior.field.head_field import HAIR, HEADGEAR, HeadField
from dp360.generation.synthetic.fields.observation import SHOT_PX, ObservationErrors, observe, skull_misfits
from dp360.generation.synthetic.portraits.portrait_shots import SHOT_FACTOR

CAMERA = look_at_origin([0.3], [0.1], size_px=SHOT_PX, focal_normalised=PANOHEAD_FOCAL_NORMALISED / SHOT_FACTOR)

TOWARDS = CAMERA.position_world[0].numpy() / np.linalg.norm(CAMERA.position_world[0].numpy())
FACING = cell_frames().outward @ TOWARDS
"""Cosine between each cell's ray and the camera's direction."""


def hairy_ball(material: int = HAIR) -> HeadField:
    """A head all of hair (or a hat) 3 cm thick that runs down."""
    shares = np.zeros((4, 56, 64), np.float32)
    shares[material] = 1
    grid = np.ones((56, 64), np.float32)
    flow = np.stack([grid, 0 * grid, 0 * grid])
    grey = np.full((3, 56, 64), 0.4, np.float32)
    return HeadField(
        0.12 * grid, 0.05 * grid, shares, flow, grid, 0 * grid, 0.3 * grid, grey, grey, grey,
        np.array([0.3, 0.5, 0.0, 0.1], np.float32),
    )  # fmt: skip


def test_without_errors_a_portrait_shows_the_truth_of_its_side() -> None:
    field = hairy_ball()
    seen = observe(field, np.random.default_rng(0), ObservationErrors.none(), CAMERA)
    upper = np.s_[2:28]
    assert (seen.visibility[upper][FACING[upper] > 0.3] > 0).all()
    assert not seen.visibility[FACING < -0.05].any()
    visible = seen.visibility > 0
    assert (seen.material[HAIR][visible] == 1).all() and not seen.material[:, ~visible].any()
    np.testing.assert_allclose(seen.rgb[:, visible], 0.4, atol=1e-5)
    oriented = seen.orientation_certainty > 0
    assert oriented.sum() > 300
    assert np.median(seen.orientation[0][oriented]) > 0.99
    outline = seen.thickness_certainty > 0
    assert outline[4:28].sum() > 20
    np.testing.assert_allclose(seen.thickness[outline], 0.05, atol=1e-5)
    assert (np.abs(FACING[outline]) < 0.6).all()
    bounded = (seen.in_frame > 0)[4:28]
    assert (seen.thickness_bound[4:28][bounded] >= 0.049).all()
    assert seen.thickness_bound[27, 32] == pytest.approx(0.25) and seen.thickness_bound[20, 20] < 0.1
    np.testing.assert_allclose(seen.towards_camera, TOWARDS, atol=1e-6)
    np.testing.assert_allclose(seen.tokens[[0, 2, 3]], field.tokens[[0, 2, 3]])
    assert np.isnan(seen.tokens[1])


def test_a_seed_gives_the_same_portrait_and_another_seed_another() -> None:
    one, same, other = (observe(hairy_ball(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name, values in vars(one).items():
        np.testing.assert_array_equal(values, getattr(same, name))
    assert not np.array_equal(one.rgb, other.rgb)


def test_angles_are_off_by_as_much_as_stated() -> None:
    field, deviations = hairy_ball(), []
    errors = ObservationErrors(no_orientation=0.0, misfit_cells=0.0, hidden=0.0)
    for seed in range(12):
        seen = observe(field, np.random.default_rng(seed), errors, CAMERA)
        known = (seen.orientation_certainty > 0) & (FACING > 0.85)
        angle = np.degrees(np.arctan2(seen.orientation[1], seen.orientation[0])[known]) / 2
        deviations.append(math.sqrt((angle**2).mean()))
    assert 8 < min(deviations) and max(deviations) < 40 and 15 < np.mean(deviations) < 28


def test_hats_are_taken_for_hair_now_and_then() -> None:
    errors = ObservationErrors(hair_for_headgear=0.5)
    hat = hairy_ball(HEADGEAR)
    shares = [observe(hat, np.random.default_rng(s), errors, CAMERA).material[HAIR].max() for s in range(24)]
    confused = np.mean(np.array(shares) > 0.8)
    assert 0.2 < confused < 0.8
    assert observe(hat, np.random.default_rng(0), ObservationErrors.none(), CAMERA).material[HAIR].max() == 0


def test_fitted_skulls_are_off_as_those_of_heads_that_were_fitted() -> None:
    misfits, field = skull_misfits(), hairy_ball()
    assert len(misfits) > 60 and np.abs(misfits[:, :44]).max() < 0.07
    mirrored = misfits[..., -np.arange(64) % 64]
    met = set()
    for seed in range(8):
        off = observe(field, np.random.default_rng(seed), camera=CAMERA).skull_radius - field.skull_radius
        same = [np.abs(off - m).max() < 1e-6 for m in (*misfits, *mirrored)]
        assert any(same)
        met.add(int(np.argmax(same)))
    assert len(met) > 5

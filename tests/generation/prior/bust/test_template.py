"""The statistical bust: what ships, its symmetry, and the derivatives of its bending."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from dp360.generation.prior.bust.sections import (
    COLUMNS,
    column_directions,
    column_of,
    filled_sections,
    grid_faces,
    section_points,
    section_radius,
)
from dp360.generation.prior.bust.template import (
    FILE_NAME,
    SHAPE_PARAMETERS,
    BustTemplate,
    load_template,
    read_template,
    save_template,
)
from dp360.generation.weights import shipped_file

MIRRORED = (-np.arange(COLUMNS)) % COLUMNS
MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def template() -> BustTemplate:
    return load_template()


def test_the_file_is_small_and_its_card_names_it(template: BustTemplate) -> None:
    path = shipped_file(FILE_NAME)
    assert path.stat().st_size <= 100_000
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert template.sha256 == digest and digest[:16] in template.weights_name
    card = resources.files("dp360.generation.weights").joinpath("MODEL_CARD_BUST.md").read_text("utf-8")
    assert digest in card


def test_both_sides_are_alike(template: BustTemplate) -> None:
    np.testing.assert_array_equal(template.mean[:, MIRRORED] * MIRROR, template.mean)
    np.testing.assert_array_equal(template.modes[:, :, MIRRORED] * MIRROR, template.modes)


def test_it_is_a_body_from_the_neck_to_the_chest(template: BustTemplate) -> None:
    top, bottom = template.mean[0], template.mean[-1]
    assert top[:, 1].min() > 0 > bottom[:, 1].max()
    assert np.ptp(bottom[:, 0]) > 3 * np.ptp(top[:, 0]) and np.ptp(bottom[:, 0]) > 1.5 * np.ptp(bottom[:, 2])
    assert template.mean[:, 0, 2].min() > template.mean[:, COLUMNS // 2, 2].max()  # column 0 is the front
    assert (np.diff(template.mean[..., 1], axis=0) < 1e-3).all()
    assert (template.modes.std(axis=(1, 2, 3)) > 1e-4).all()


def test_saving_and_reading_keep_half_precision(tmp_path: Path, template: BustTemplate) -> None:
    save_template(tmp_path / "a", template.mean, template.modes, {"people": "7"})
    save_template(tmp_path / "b", template.mean, template.modes, {"people": "7"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = read_template(tmp_path / "a")
    np.testing.assert_array_equal(again.mean, template.mean)
    np.testing.assert_array_equal(again.modes, template.modes)


def test_no_bending_is_the_mean_and_mirrored_bending_the_mirror_image(template: BustTemplate) -> None:
    nothing = np.zeros(template.parameters)
    np.testing.assert_allclose(template.bent(nothing)[0], template.mean, atol=1e-12)
    shape = np.random.default_rng(0).normal(0, 0.3, template.parameters)
    other = shape.copy()
    other[SHAPE_PARAMETERS.index("asymmetry")] *= -1
    np.testing.assert_allclose(template.bent(other)[0], template.bent(shape)[0][:, MIRRORED] * MIRROR, atol=1e-12)


def test_derivatives_of_bending_are_those_of_finite_differences(template: BustTemplate) -> None:
    shape = np.random.default_rng(1).normal(0, 0.3, template.parameters)
    step = 1e-6
    for k, derivative in enumerate(template.bent(shape)[1]):
        change = np.eye(len(shape))[k] * step
        difference = (template.bent(shape + change)[0] - template.bent(shape - change)[0]) / (2 * step)
        off = np.abs(difference - derivative).max(-1)
        assert np.median(off) < 1e-7 and (off < 1e-4).mean() > 0.99, k  # corners of ramps aside


def test_wider_falling_and_uneven_shoulders_are_what_they_are_called(template: BustTemplate) -> None:
    def bent(name: str, amount: float) -> np.ndarray:
        return template.bent(np.eye(template.parameters)[SHAPE_PARAMETERS.index(name)] * amount)[0]

    quarter = COLUMNS // 4
    assert np.ptp(bent("log_width", 0.1)[..., 0]) > 1.05 * np.ptp(template.mean[..., 0])
    fall = (template.mean - bent("slope", 0.2))[..., 1]
    assert fall.min() >= 0 and fall[-1, quarter] > 0.03 and fall[0].max() < 0.01
    uneven = (template.mean - bent("asymmetry", 0.2))[..., 1]
    assert uneven[-1, quarter] > 0.03 and uneven[-1, -quarter] < -0.03


def test_sections_of_a_cylinder_have_its_radius_and_columns_are_inverted() -> None:
    heights = np.linspace(0.1, -0.1, 30)
    axis_z = 0.2 * heights
    wanted = np.full((30, COLUMNS), 0.07)
    points = section_points(heights, axis_z, wanted)
    up = np.array([0, 0.1, 0])
    beyond = np.concatenate([points[:1] + up, points, points[-1:] - up])
    radius = section_radius(beyond.reshape(-1, 3), grid_faces(32), heights, axis_z)
    np.testing.assert_allclose(radius, 0.07, atol=1e-4)
    assert np.isnan(section_radius(beyond.reshape(-1, 3), grid_faces(32), heights, axis_z, most=0.05)).all()
    directions = column_directions()
    column = column_of(directions[:, 0], directions[:, 2])
    np.testing.assert_allclose((column - np.arange(COLUMNS) + 48) % COLUMNS - 48, 0, atol=1e-9)


def test_gaps_are_filled_from_beside_them() -> None:
    radius = np.full((5, COLUMNS), 2.0)
    radius[2:, 3] = np.nan
    radius[:, 10:13] = np.nan
    np.testing.assert_allclose(filled_sections(radius), 2.0)

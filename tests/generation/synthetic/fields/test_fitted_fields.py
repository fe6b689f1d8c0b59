"""A drawn portrait of a composed head through the whole pipeline, and the truth in the frame of its fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dp360.generation.prior.field.head_field import HAIR, HEADGEAR, SKIN
from dp360.generation.synthetic.fields.field_files import FieldFiles, FieldShard
from dp360.generation.synthetic.fields.field_recipes import field_recipe
from dp360.generation.synthetic.fields.fitted_fields import FittedField, FittedFields

HEADS = Path(__file__).parents[5] / "shared" / "data" / "heads"
pytestmark = pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")
MM = 606.0


@pytest.fixture(scope="module")
def fitted() -> FittedField:
    (number, fitted), *others = FittedFields(HEADS, "validation", 0).make([1004])
    assert number == 1004 and not others and fitted.recipe == field_recipe(1004, "validation", 0)
    return fitted


def test_the_portrait_shows_the_true_head_where_it_lies(fitted: FittedField) -> None:
    field, seen = fitted.field, fitted.observed
    plain = (seen.visibility > 0.8) & (field.material.max(0) > 0.9)
    plain[44:] = False
    assert plain[:28].sum() > 150
    assert (seen.material.argmax(0) == field.material.argmax(0))[plain].mean() > 0.75
    assert not (seen.visibility > 0)[4:30, 24:40].any()  # nothing of the back
    assert (field.material[SKIN] > 0.5).any() and (field.material[HAIR] + field.material[HEADGEAR] > 0.5).any()


def test_the_fitted_skull_is_near_the_true_one(fitted: FittedField) -> None:
    off_mm = MM * (fitted.observed.skull_radius - fitted.field.skull_radius)[:28]
    assert 0.5 < np.abs(off_mm).mean() < 20  # a turned or scaled truth would be further off


def test_outlines_tell_thickness_over_the_fitted_skull(fitted: FittedField) -> None:
    truth = fitted.field.over(fitted.observed.skull_radius)
    rim = (fitted.observed.thickness_certainty > 0) & (truth.material[HAIR] + truth.material[HEADGEAR] > 0.5)
    assert rim.sum() > 50
    assert abs(np.median(MM * (fitted.observed.thickness - truth.thickness)[rim])) < 15


def test_files_hold_drawn_portraits(tmp_path: Path, fitted: FittedField) -> None:
    files = FieldFiles(HEADS, tmp_path, "validation", drawn=True)
    files.write(range(1004, 1005))
    path = files.path(range(1004, 1005))
    assert path.name == "fields_validation_0_drawn_001004_1.npz"
    shard = FieldShard.read(path)
    assert len(shard) == 1 and shard.columns["seen/visibility"].shape[1] == 1
    np.testing.assert_allclose(shard.observed(0, 0).skull_radius, fitted.observed.skull_radius, atol=1e-3)
    np.testing.assert_allclose(shard.field(0).thickness, fitted.field.thickness, atol=1e-3)

"""Files of fields: what comes back, that the same heads give the same bytes, and sheets of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dp360.generation import InputError
from dp360.generation.synthetic.assets import field_rng
from dp360.generation.synthetic.fields.field_files import FieldFiles, FieldShard, random_sheet, style_shares
from dp360.generation.synthetic.fields.field_recipes import field_recipe, plain_heads
from dp360.generation.synthetic.fields.field_sheet import PICTURES, field_sheet
from dp360.generation.synthetic.fields.field_truth import true_field
from dp360.generation.synthetic.fields.observation import observe
from dp360.generation.synthetic.hair.haircuts import style_of

HEADS = Path(__file__).parents[5] / "shared" / "data" / "heads"
pytestmark = pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")


def test_files_are_cut_the_same_wherever_one_begins() -> None:
    files = FieldFiles(HEADS, Path("x"), heads_per_file=6)
    assert files.numbers(0, 14) == [range(0, 6), range(6, 12), range(12, 14)]
    assert files.path(range(6, 12)).name == "fields_train_0_4_000006_6.npz"


def test_heads_come_back_as_they_were_and_the_same_bytes_are_written_again(tmp_path: Path) -> None:
    files = FieldFiles(HEADS, tmp_path / "a", "validation", seed=5, cameras=2, heads_per_file=3)
    again = FieldFiles(HEADS, tmp_path / "b", "validation", seed=5, cameras=2, heads_per_file=3)
    numbers = range(3, 5)
    files.write(numbers)
    again.write(numbers)
    path = files.path(numbers)
    assert path.read_bytes() == again.path(numbers).read_bytes()
    shard = FieldShard.read(path)
    assert len(shard) == 2 and list(shard.columns["number"]) == [3, 4]
    head = list(plain_heads(numbers, HEADS, "validation", 5))[1]
    assert shard.columns["style"][1] == (style_of(head.recipe.hair.name) or "bald")
    assert shard.columns["hair"][1] == field_recipe(4, "validation", 5).hair.name
    true, back = true_field(head), shard.field(1)
    for name, values in vars(true).items():
        np.testing.assert_allclose(getattr(back, name), values, atol=4.1e-3, err_msg=name)
    seen = observe(back, field_rng(5, "validation/4/1"))  # portraits follow from what the file holds
    for name, values in vars(seen).items():
        np.testing.assert_allclose(getattr(shard.observed(1, 1), name), values, atol=4.1e-3, err_msg=name)
    sheet = random_sheet([path], heads=8)
    assert sheet.shape == (100, 4 * (4 * 96 + 4), 3) and sheet.std() > 5
    assert sum(style_shares([path]).values()) == pytest.approx(1)


def test_a_sheet_shows_thickness_material_flow_and_colour() -> None:
    field = true_field(next(plain_heads([1], HEADS, "train", 0)))
    sheet = field_sheet([field], across=1, side_px=64)
    assert sheet.shape == (68, 4 + 64 * len(PICTURES), 3)
    pictures = sheet[4:, 4:].reshape(64, len(PICTURES), 64, 3)
    assert all((pictures[20:50, k] < 250).any() for k in range(len(PICTURES)))
    assert (pictures[0] == 255).all()  # nothing above the head


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fields.npz"
    path.write_bytes(b"not a file")
    with pytest.raises(InputError, match="not a file of head fields"):
        FieldShard.read(path)

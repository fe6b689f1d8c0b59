"""`dp360 data fields`: files are made once, a kill loses one at most, splits stay apart, nonsense is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp360.configs import data as data_module
from dp360.configs.cli import main
from dp360.configs.console import Display, ignore
from dp360.configs.data_fields import DataFieldsCommand, make_fields
from dp360.generation import InputError
from dp360.generation.progress import silent
from dp360.generation.synthetic.fields import field_files
from dp360.generation.synthetic.hair.haircuts import haircut_split

HEADS = Path(__file__).parents[3] / "shared" / "data" / "heads"
needs_heads = pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")


def command(output: Path, **changes: Any) -> DataFieldsCommand:
    return DataFieldsCommand(output=output, **{"data": HEADS, "count": 2, "cameras": 1, "sheet": 2, **changes})


@needs_heads
def test_files_are_made_once_with_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    display = Display(silent, notices.append)
    fields, sheet = make_fields(command(tmp_path), display)
    assert fields.name == "fields_train_0_1_000000_2.npz" and sheet.name == "sheet_train.png" and sheet.is_file()
    assert "most frequent style" in notices[0]
    before = fields.read_bytes()

    def refuse(*_: Any) -> None:
        raise AssertionError("the heads are there already")

    monkeypatch.setattr(field_files, "plain_heads", refuse)
    assert make_fields(command(tmp_path, sheet=0), display) == [fields] and fields.read_bytes() == before


@needs_heads
def test_a_kill_leaves_whole_files_only_and_the_next_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_fields(command(tmp_path / "whole", count=3, sheet=0), Display(silent, ignore))
    monkeypatch.setattr(field_files, "FieldFiles", partial(field_files.FieldFiles, heads_per_file=2))
    made, real = [], field_files.true_field

    def killed(head: Any) -> Any:
        made.append(head)
        if len(made) == 3:
            raise KeyboardInterrupt
        return real(head)

    monkeypatch.setattr(field_files, "true_field", killed)
    asked = command(tmp_path / "parts", count=3, sheet=0)
    with pytest.raises(KeyboardInterrupt):
        make_fields(asked, Display(silent, ignore))
    assert [p.name for p in (tmp_path / "parts").iterdir()] == ["fields_train_0_1_000000_2.npz"]
    paths = make_fields(asked, Display(silent, ignore))
    assert len(made) == 4 and len(paths) == 2
    with np.load(whole[0]) as one, np.load(paths[1]) as last:
        np.testing.assert_array_equal(one["true/thickness"][2], last["true/thickness"][0])


@needs_heads
def test_held_out_heads_wear_held_out_haircuts(tmp_path: Path) -> None:
    (path,) = make_fields(command(tmp_path, count=3, split="held-out", sheet=0), Display(silent, ignore))
    with np.load(path) as file:
        cuts = [str(name) for name, style in zip(file["hair"], file["style"]) if name != style and name]
    assert path.name.startswith("fields_held_out_") and {haircut_split(name) for name in cuts} <= {"held_out"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: command(p, data=p / "nowhere"), "No head assets"),
        (lambda p: command(p, count=0), "--count must be at least 1, got 0"),
        (lambda p: command(p, cameras=0), "--cameras must be at least 1"),
    ],
)
def test_nonsense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], DataFieldsCommand], message: str
) -> None:
    asked = change(tmp_path)
    if asked.data == HEADS:
        monkeypatch.setattr("dp360.generation.synthetic.asset_pack.require_head_assets", lambda _: None)
    with pytest.raises(InputError, match=message):
        make_fields(asked, Display(silent, ignore))


def test_the_command_line_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[DataFieldsCommand] = []
    monkeypatch.setattr(data_module, "make_fields", lambda command, _: asked.append(command) or [])
    main(["data", "fields", "--data", "a", "--output", str(tmp_path), "--count", "3", "--split", "held-out"])
    assert asked == [DataFieldsCommand(Path("a"), tmp_path, 3, split="held-out")]

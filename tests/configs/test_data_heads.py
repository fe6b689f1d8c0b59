"""`dp360 data heads`: what is there is kept, what has no face is left out and named, nonsense is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dp360.configs import data as data_module
from dp360.configs.cli import main
from dp360.configs.console import Display
from dp360.configs.data import SKIPPED, DataHeadsCommand, make_heads
from dp360.generation import InputError
from dp360.generation.dataset.view_dataset import read_dataset
from dp360.generation.progress import silent
from dp360.generation.synthetic.asset_pack import asset_parts

HEADS = Path(__file__).parents[3] / "shared" / "data" / "heads"
needs_heads = pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")


def command(output: Path, **changes: Any) -> DataHeadsCommand:
    return DataHeadsCommand(output=output, **{"data": HEADS, "count": 1, "views": 2, "size": 48, **changes})


@needs_heads
def test_a_head_is_written_once_with_its_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    (folder,) = make_heads(command(tmp_path, first=1), Display(silent, notices.append))
    assert folder.name == "train_000001" and not notices
    views = read_dataset(folder)
    assert views.names == ("portrait", "view_000", "view_001") and tuple(views.rgba.shape[1:]) == (48, 48, 4)
    assert views.rgba[..., 3].max() == 255 and len(torch.unique(views.cameras.T_world_camera, dim=0)) == 3
    for part in ("normals", "labels", "control"):
        assert sorted(p.stem for p in (folder / part).iterdir()) == sorted(views.names)
    facts = json.loads((folder / "head.json").read_text())
    assert facts["recipe"]["split"] == "train" and facts["labels"]["hair"] == 3

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the head is there already")

    monkeypatch.setattr("dp360.generation.synthetic.fitted_composed_head.compose", refuse)
    assert make_heads(command(tmp_path, first=1), Display(silent, notices.append)) == [folder]


@needs_heads
def test_heads_without_a_face_are_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def no_face(head: Any, backgrounds: Any, seed: int, *_: Any, **__: Any) -> None:
        asked.append(seed)

    monkeypatch.setattr("dp360.generation.synthetic.fitted_composed_head.fitted_head", no_face)
    monkeypatch.setattr("dp360.generation.synthetic.fitted_composed_head.compose", lambda *_: None)
    notices: list[str] = []
    for _ in range(2):
        assert make_heads(command(tmp_path, count=2, split="held-out"), Display(silent, notices.append)) == []
    assert len(asked) == 2 and len(set(asked)) == 2
    assert json.loads((tmp_path / SKIPPED).read_text()) == ["held_out_000000", "held_out_000001"]
    assert len(notices) == 2 and "2 of 2 heads" in notices[1] and "held_out_000001" in notices[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: command(p, data=p / "nowhere"), "No head assets"),
        (lambda p: command(p, data=p, count=0), "--count must be at least 1, got 0"),
        (lambda p: command(p, data=p, size=8), "--size must be at least 32"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, change: Callable[[Path], DataHeadsCommand], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_heads(change(tmp_path), Display(silent, pytest.fail))


def test_a_damaged_list_of_heads_left_out_is_named(tmp_path: Path) -> None:
    (tmp_path / SKIPPED).write_text("{")
    with pytest.raises(InputError, match=r"skipped\.json is damaged"):
        make_heads(command(tmp_path, data=tmp_path), Display(silent, pytest.fail))


def test_the_command_line_reads_every_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[DataHeadsCommand] = []
    monkeypatch.setattr(data_module, "make_heads", lambda c, _: asked.append(c) or [])
    words = f"data heads --data a --count 3 --output {tmp_path} --split held-out --views 7 --size 64 --first 5 --seed 9"
    assert main(words.split()) == 0
    expected = DataHeadsCommand(Path("a"), tmp_path, 3, split="held-out", views=7, size=64, first=5, seed=9)
    assert asked == [expected]


def test_the_folder_of_assets_has_no_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", "heads", "--output", str(tmp_path)])
    assert stopped.value.code == 2 and "--data" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["data", "heads", "--data", str(tmp_path / "nowhere"), "--output", str(tmp_path)])
    said = " ".join(capsys.readouterr().err.split())
    assert "docs/training.md" in said and f"dp360 data check --data {tmp_path / 'nowhere'}" in said


def test_a_check_names_what_heads_lack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (file for part in asset_parts() for file in part.files):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    check = ["data", "check", "--data", str(tmp_path)]
    assert main(check) == 0
    assert capsys.readouterr().out.count("complete, ") == len(asset_parts())
    (tmp_path / "ict_facekit" / "ict_facekit.npz").unlink()  # heads are composed without it
    assert main(check) == 0
    (tmp_path / "kaykit" / "Mage.glb").unlink()
    with pytest.raises(SystemExit) as stopped:
        main(check)
    said = capsys.readouterr().out
    assert stopped.value.code == 1 and "1 of 5 files missing: kaykit/Mage.glb" in said and "docs/training.md" in said


@needs_heads
def test_a_whole_pack_is_found_complete() -> None:
    assert data_module.check_assets(data_module.DataCheckCommand(HEADS))

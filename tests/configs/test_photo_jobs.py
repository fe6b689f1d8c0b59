"""`dp360 eval photos`: what was measured stays, what changed or crashed is measured again, and bad calls are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dp360.configs import photo_jobs
from dp360.configs.cli import main
from dp360.generation import InputError
from dp360.reconstruction.evaluation import photos
from dp360.reconstruction.evaluation.photo_measures import PROPORTIONS
from dp360.reconstruction.evaluation.photo_sheets import COLUMNS
from dp360.reconstruction.evaluation.photos import MEASURES, PhotoResult


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the portraits that were measured, by a stand-in: bad ones are refused, broken ones crash."""
    names: list[str] = []

    def stand_in(path: Path, key: str, embedder: object) -> PhotoResult:
        names.append(path.stem)
        content = path.read_bytes()
        if content == b"bad":
            raise InputError(f"{path}: no head\nin it")
        if content == b"broken":
            raise KeyError("lost")
        half = dict.fromkeys(PROPORTIONS, 0.5)
        strip = np.zeros((256, 256 * len(COLUMNS), 3), np.uint8)
        return PhotoResult(
            path.name, key, None, False, dict.fromkeys(MEASURES, 0.0), half, half, weights="w", strip=strip
        )

    monkeypatch.setattr(photos, "_measured", stand_in)
    monkeypatch.setattr(photo_jobs, "_has_embedder", lambda: False)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six portraits, one of which is refused and one of which crashes, and things that are no pictures."""
    pictures = tmp_path / "in"
    (pictures / "more.png").mkdir(parents=True)
    for name, content in zip("abcdef", (b"1", b"2", b"bad", b"3", b"broken", b"4")):
        (pictures / f"{name}.png").write_bytes(content)
    (pictures / ".hidden.png").write_bytes(b"5")
    (pictures / "notes.txt").write_bytes(b"6")
    return tmp_path


def call(folder: Path, *more: str) -> list[str]:
    return ["eval", "photos", "--images", str(folder / "in"), "--output", str(folder / "out"), *more]


def test_goes_on_where_it_stopped(folder: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(call(folder)) == 0 and measured == list("abcdef")
    found = json.loads((folder / "out" / "results.json").read_text())
    assert found["portraits"] == 6 and set(found["photos"]) == {f"{name}.png" for name in "abdf"}
    assert found["refused"]["c.png"] == {"crashed": False, "reason": "c.png: no head in it"}
    broken = found["refused"]["e.png"]
    assert broken["crashed"] and "KeyError in test_photo_jobs.py" in broken["reason"] and "lost" in broken["reason"]
    measured.clear()
    assert main(call(folder)) == 0 and measured == ["e"], "a crash may have had a passing cause"
    (folder / "in" / "b.png").write_bytes(b"another picture")
    (folder / "in" / "e.png").write_bytes(b"mended")
    (folder / "out" / "photos" / "d.png.json").write_text("{damaged")
    measured.clear()
    assert main(call(folder)) == 0 and measured == ["b", "d", "e"]
    assert json.loads((folder / "out" / "results.json").read_text())["refused"].keys() == {"c.png"}
    measured.clear()
    monkeypatch.setattr(photo_jobs, "_has_embedder", lambda: True)
    assert photo_jobs._code_sha256(identity=True) != photo_jobs._code_sha256(identity=False)


def test_other_weights_or_code_are_measured_again(
    folder: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(call(folder)) == 0
    measured.clear()
    monkeypatch.setattr(photo_jobs, "update_with_generation", lambda digest: digest.update(b"other weights"))
    assert main(call(folder)) == 0 and measured == list("abcdef")


def test_sheets_hold_four_portraits_and_old_ones_go(folder: Path, measured: list[str]) -> None:
    (folder / "in" / "g.png").write_bytes(b"7")
    assert main(call(folder)) == 0
    sheets = folder / "out" / "sheets"
    assert [path.name for path in sorted(sheets.iterdir())] == ["sheet_001.png", "sheet_002.png"]
    (sheets / "sheet_of_mine.png").write_bytes(b"kept")
    measured.clear()
    assert main(call(folder, "--most", "3")) == 0 and not {"a", "b", "d", "f", "g"} & set(measured)
    assert [path.name for path in sorted(sheets.iterdir())] == ["sheet_001.png", "sheet_of_mine.png"]
    assert json.loads((folder / "out" / "results.json").read_text())["portraits"] == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--most", "0"], "--most must be at least 1"),
        (["--images", "nowhere"], "No folder at nowhere"),
        (["--images", "empty"], "No pictures in empty"),
    ],
)
def test_nonsense_is_refused(
    folder: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main([*call(folder), *words])
    assert stopped.value.code == 2 and sentence in " ".join(capsys.readouterr().err.split())
    assert not (folder / "out").exists()

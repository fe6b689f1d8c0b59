"""`dp360 import-capture`: which reader is asked, and that what it gives becomes a data set that can be fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dp360.configs.cli import main
from dp360.configs.import_capture import capture_kind
from dp360.generation import InputError, PointCloud, Provenance, ViewSet, captures, orbit
from dp360.generation.dataset.view_dataset import read_dataset


def views() -> ViewSet:
    """A ball seen by 12 cameras, without surface points."""
    rows, columns = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    rgba = torch.zeros(12, 64, 64, 4, dtype=torch.uint8)
    rgba[..., 0], rgba[..., 3] = 200, (torch.hypot(rows, columns) < 20).to(torch.uint8) * 255
    names = tuple(f"cam_{k:02d}" for k in range(12))
    nothing = PointCloud(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 3))
    return ViewSet(rgba, orbit(12, size_px=64), torch.ones(12), names, nothing, Provenance("capture", "-", 0, "", ""))


def test_a_capture_becomes_a_data_set_with_a_surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def read(path: Path, **options: Any) -> ViewSet:
        asked.append((path, options["sequence"], options["frame"], options["cameras"], options["size_px"]))
        return views()

    monkeypatch.setattr(captures, "read_nersemble", read)
    (tmp_path / "018").mkdir()
    (tmp_path / "018" / "camera_params.json").write_text("{}")
    call = ["import-capture", str(tmp_path / "018"), "--output", str(tmp_path / "data"), "--sequence", "EXP-1-head"]
    assert main([*call, "--cameras", "a", "b", "--size", "64", "--frame", "3"]) == 0
    assert asked == [(tmp_path / "018", "EXP-1-head", 3, ("a", "b"), 64)]
    back = read_dataset(tmp_path / "data")
    assert back.names == views().names and torch.equal(back.rgba, views().rgba)
    distance = back.surface.points_world.norm(dim=-1)
    assert len(distance) > 500 and float(distance.std()) < 0.03  # the hull of a ball


def test_kinds_are_told_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "a.smc").touch()
    for folder, file in (("ava", "decoder/camera_calibration.json"), ("ner", "calibration/camera_params.json")):
        (tmp_path / folder / file).parent.mkdir(parents=True)
        (tmp_path / folder / file).touch()
    found = [capture_kind(tmp_path / name) for name in ("a.smc", "ava", "ner")]
    assert found == ["renderme360", "ava256", "nersemble"]
    with pytest.raises(InputError, match="looks like none of the captures"):
        capture_kind(tmp_path)
    with pytest.raises(InputError, match="No capture at"):
        capture_kind(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [("a.smc", ["--sequence", "x"], "--sequence is for"), ("ner", [], "NeRSemble needs --sequence")],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, more: list[str], sentence: str
) -> None:
    (tmp_path / "a.smc").touch()
    (tmp_path / "ner").mkdir()
    (tmp_path / "ner" / "camera_params.json").touch()
    with pytest.raises(SystemExit) as stopped:
        main(["import-capture", str(tmp_path / name), "--output", str(tmp_path / "data"), *more])
    assert stopped.value.code == 2 and sentence in " ".join(capsys.readouterr().err.split())

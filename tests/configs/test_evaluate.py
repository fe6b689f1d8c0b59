"""`dp360 eval`: files and tables for every kind, results that are kept, bad data named with exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp360.configs import evaluation_jobs
from dp360.configs.cli import main
from dp360.configs.variants import open_sources
from dp360.generation import InputError, PointCloud, Provenance, ViewSet, look_at_origin, orbit
from dp360.generation.cameras import Cameras
from dp360.generation.dataset.view_dataset import write_dataset
from dp360.generation.head_model import HeadFit
from dp360.generation.portrait import Portrait, encode_portrait
from dp360.generation.prior import PriorGenerator
from dp360.reconstruction.evaluation.heads import FolderViews, GeneratedViews
from dp360.reconstruction.evaluation.identity import IdentityAt

SIZE = 48


def ball(cameras: Cameras, radius: float = 0.3, blue: float = 0.2) -> ViewSet:
    """A ball, brighter above, seen from cameras."""
    n = len(cameras)
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    away = torch.hypot(columns - SIZE / 2, rows - SIZE / 2) / (cameras.focal_px[0, 0] * radius / 2.7)
    rgba = torch.zeros(n, SIZE, SIZE, 4)
    rgba[..., 0], rgba[..., 1], rgba[..., 2] = 1 - rows / SIZE, 0.4, blue
    rgba[..., 3] = (away < 1).float()
    surface = PointCloud(torch.randn(500, 3) * 0.1, torch.tensor([[0.0, 0.0, 1.0]]).repeat(500, 1), torch.rand(500, 3))
    names = tuple(f"view_{i:03d}" for i in range(n))
    provenance = Provenance("ball", "no weights", 7, "00", "0")
    return ViewSet((rgba * 255).round().to(torch.uint8), cameras, torch.ones(n), names, surface, provenance)


def portrait() -> Portrait:
    camera = look_at_origin([0.0], [0.0], size_px=SIZE)
    fit = HeadFit(np.zeros(3), np.zeros(2), np.zeros((4, 3)), camera, np.zeros(5))
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    ones = np.ones((SIZE, SIZE), np.float32)
    return Portrait(grey, ones, grey.astype(np.float32) / 255, ones > 0, None, fit, "standard", "a.png", "00", ())


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """Three heads with truth, and two other systems' views of them: a good one and a small one."""
    for k in range(3):
        cameras = orbit(8, size_px=SIZE)
        name = f"held_out_{k:06d}"
        write_dataset(ball(cameras, 0.3 - 0.01 * k), tmp_path / "heads" / name)
        (tmp_path / "heads" / name / "portrait.npz").write_bytes(encode_portrait(portrait()))
        write_dataset(ball(cameras, 0.29 - 0.01 * k), tmp_path / "good" / name)
        write_dataset(ball(cameras, 0.2, blue=0.9), tmp_path / "small" / name)
    return tmp_path


def words(folder: Path, *more: str, what: str = "heads") -> list[str]:
    """A call on the benchmark of the fixture."""
    sources = [f"good={folder / 'good'}", f"small={folder / 'small'}"]
    return ["eval", what, "--benchmark", str(folder / "heads"), "--output", str(folder / "out"), "--heads", "3",
            "--perceptual", "none", "--generators", *sources, *more]  # fmt: skip


def test_views_against_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cameras = orbit(8, size_px=SIZE)
    write_dataset(ball(cameras), tmp_path / "truth")
    write_dataset(ball(cameras, 0.25), tmp_path / "ours")
    call = ["eval", "views", "--prediction", str(tmp_path / "ours"), "--truth", str(tmp_path / "truth")]
    assert main([*call, "--output", str(tmp_path / "out"), "--perceptual", "none"]) == 0
    printed = capsys.readouterr().out
    assert "| views | ±90° |" in printed and "results.json" in printed
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["facts"]["weights"] == "no weights" and found["facts"]["seed"] == 7
    assert len(found["facts"]["truth_sha256"]) == 64 and found["facts"]["truth_sha256"] != found["facts"]["data_sha256"]
    assert len(found["views"]) == 8 and found["summary"]["all"]["iou"]["mean"] == pytest.approx(0.69, abs=0.05)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"results.json", "table.md", "plot.png", "sheet.png"}


def test_bad_data_ends_with_code_2_and_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(ball(orbit(8, size_px=SIZE)), tmp_path / "truth")
    write_dataset(ball(orbit(4, size_px=SIZE)), tmp_path / "few")
    call = ["eval", "views", "--truth", str(tmp_path / "truth"), "--output", str(tmp_path / "out")]
    for data, sentence in (
        (tmp_path / "few", "view_001.png has no counterpart"),
        (tmp_path / "none", "does not exist"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*call, "--prediction", str(tmp_path / data), "--perceptual", "none"])
        assert stopped.value.code == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_heads_are_measured_once_and_again_when_their_data_change(
    benchmark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []
    plain = evaluation_jobs.evaluate_head

    def counted(case: Any, source: Any, *arguments: Any) -> Any:
        measured.append(f"{source.name} {case.name[-1]}")
        return plain(case, source, *arguments)

    monkeypatch.setattr(evaluation_jobs, "evaluate_head", counted)
    evaluation_jobs._case.cache_clear()
    assert main(words(benchmark)) == 0 and len(measured) == 6
    found = json.loads((benchmark / "out" / "results.json").read_text())
    assert found["heads"] == 3 and found["summary"]["good"]["all"]["iou"]["count"] == 3
    assert found["summary"]["good"]["all"]["iou"]["mean"] > found["summary"]["small"]["all"]["iou"]["mean"] + 0.2
    assert found["difference_to_first"]["small"]["back"]["psnr"]["mean"] < 0
    assert found["facts"]["weights"] == {"good": "no weights", "small": "no weights"}
    table = (benchmark / "out" / "table.md").read_text()
    assert "Difference to good" in table and 'pip install "dp360[eval]"' in table
    capsys.readouterr()

    assert main(words(benchmark)) == 0 and len(measured) == 6
    assert (benchmark / "out" / "table.md").read_text() == table
    write_dataset(ball(orbit(8, size_px=SIZE), 0.31), benchmark / "more")
    for path in (benchmark / "more" / "images").iterdir():
        (benchmark / "heads" / "held_out_000001" / "images" / path.name).write_bytes(path.read_bytes())
    evaluation_jobs._case.cache_clear()
    assert main(words(benchmark)) == 0 and measured[6:] == ["good 1", "small 1"]


def test_ablation_has_a_picture_of_all_settings(benchmark: Path) -> None:
    evaluation_jobs._case.cache_clear()
    assert main(words(benchmark, "--views", "6", what="ablation")) == 0
    found = json.loads((benchmark / "out" / "results.json").read_text())
    assert set(found["difference_to_first"]) == {"small"}
    assert (benchmark / "out" / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--heads", "4"], "has 3 heads"),
        (["--generators", "nobody"], "Unknown generator nobody; expected one of prior"),
        (["--generators", "a=nowhere"], "No folder of views at nowhere"),
        (["--generators", "diffportrait360"], "needs --weights"),
        (["--generators", "prior", "prior"], "different names of generators"),
        (["--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_nonsense_is_refused(
    benchmark: Path, capsys: pytest.CaptureFixture[str], change: list[str], sentence: str
) -> None:
    call = words(benchmark)
    if change[0] == "--generators":
        call = call[: call.index("--generators")]
    with pytest.raises(SystemExit) as stopped:
        main([*call, *change])
    assert stopped.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_sources_by_name(tmp_path: Path) -> None:
    prior, other = open_sources(["prior", f"other={tmp_path}"], None)
    assert isinstance(prior, GeneratedViews) and isinstance(prior.generator, PriorGenerator)
    assert isinstance(other, FolderViews) and other.name == "other" and other.folder == tmp_path
    with pytest.raises(InputError, match="different names"):
        open_sources(["prior", f"prior={tmp_path}"], None)


def test_consistency_of_a_data_set(tmp_path: Path) -> None:
    write_dataset(ball(orbit(12, size_px=SIZE)), tmp_path / "data")
    call = ["eval", "consistency", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert main([*call, "--perceptual", "none", "--iterations", "30", "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(found["pairs"]) == 12 and sum(pair["closes_ring"] for pair in found["pairs"]) == 1
    assert len(found["views"]) == 6 and found["held_out"]["all"]["iou"]["mean"] == pytest.approx(0.88, abs=0.06)
    assert found["held_out"]["all"]["psnr"]["mean"] == pytest.approx(11.5, abs=2.5)  # 30 steps of a fit are rough
    table = (tmp_path / "out" / "table.md").read_text()
    assert "where the ring closes" in table and "6 views against splats fitted to the other half" in table


def test_pose_of_views_without_a_face_says_so_under_names_of_their_own(tmp_path: Path) -> None:
    """Data sets are called `dataset` in every run: each keeps its own row, figures and hash."""
    for run, radius in (("a", 0.3), ("b", 0.25)):
        write_dataset(ball(orbit(8, size_px=SIZE), radius), tmp_path / run / "dataset")
    data = [str(tmp_path / run / "dataset") for run in ("a", "b")]
    assert main(["eval", "pose", "--data", *data, "--output", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(found["data"]) == set(found["facts"]["weights"]) == {"a/dataset", "b/dataset"}
    assert len(set(found["facts"]["data_sha256"].values())) == 2
    for report in found["data"].values():
        assert report["face_views"] == 0 and report["face_mse"] is None
        assert report["unmeasured_views"] == 8 and all(row["outline_refused"] for row in report["rows"])


def test_portraits_of_one_name_keep_rows_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prior_views(path: Path, azimuths: object, seed: object) -> tuple[Path, ViewSet]:
        return path, ball(orbit(2, size_px=SIZE))

    def measured(portrait: Path, views: object, embedder: object, azimuths: tuple[float, ...]) -> list[IdentityAt]:
        distance = 0.3 if portrait.suffix == ".png" else 0.4
        return [IdentityAt(a, "v", a, distance, 0.9, 0.5, "dlib", "dlib") for a in azimuths]

    monkeypatch.setattr(evaluation_jobs, "FaceEmbedder", lambda: None)
    monkeypatch.setattr(evaluation_jobs, "measure_identity", measured)
    monkeypatch.setattr(evaluation_jobs, "_prior_views", prior_views)
    images = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.jpg"]
    for path in images:
        path.parent.mkdir()
        path.write_bytes(path.name.encode())
    call = ["eval", "identity", "--image", *map(str, images), "--azimuths", "0", "--output", str(tmp_path / "out")]
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "| x.png | 0.30 (0.50) |" in printed and "| x.jpg | 0.40 (0.50) |" in printed
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(found["portraits"]) == {"x.png", "x.jpg"} and len(set(found["facts"]["data_sha256"].values())) == 2

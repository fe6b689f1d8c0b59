"""A job that was stopped goes on after its last finished part, and reaches the bytes of one that was never stopped."""

import hashlib
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dp360.configs.jobs import job
from dp360.configs.jobs.job import HeadResult, Job
from dp360.configs.jobs.job_state import STATE_NAME
from dp360.configs.jobs.progress import JobCancelled, Progress
from dp360.configs.options import FitOptions, HeadOptions
from dp360.configs.portrait_to_head import PortraitViews
from dp360.exporters import splat_ply, viewer_html
from dp360.exporters.head_files import PORTRAIT_NAME
from dp360.generation import InputError, PointCloud
from dp360.generation.dataset.view_dataset import write_dataset


@pytest.fixture
def views_made(monkeypatch, make_sphere_views) -> list[HeadOptions]:
    """In place of the stages before the fit: a sphere whose colours are no multiples of 1/255, and what was asked."""
    asked: list[HeadOptions] = []
    views = make_sphere_views(size_px=48)
    odd = PointCloud(views.surface.points_world, views.surface.normals_world, (views.surface.rgb_unit + 0.0013) * 0.99)
    views = replace(views, surface=odd)

    def portrait_to_dataset(options, recipe, folder, record, *, track, notify, open_views=None):
        asked.append(options)
        with record.stage("portrait"):
            notify("The head is small.")
        with record.stage("dataset"):
            write_dataset(views, folder / "dataset")
            (folder / "prior.glb").write_bytes(b"glTF")
            (folder / "head_fit.npz").write_bytes(b"PK")
            Image.new("RGB", (32, 32), (200, 150, 120)).save(folder / PORTRAIT_NAME)
        names = (PORTRAIT_NAME, "prior.glb", "head_fit.npz", "dataset")
        portrait_rgb = torch.tensor([200, 150, 120], dtype=torch.uint8).expand(32, 32, 3).contiguous()
        return PortraitViews(views, portrait_rgb, tuple(folder / name for name in names))

    monkeypatch.setattr(job, "portrait_to_dataset", portrait_to_dataset)
    return asked


@pytest.fixture
def options(tmp_path) -> HeadOptions:
    Image.new("RGB", (64, 64), (200, 150, 120)).save(tmp_path / "ada.png")
    fit = FitOptions(iterations=12, start_count=400, max_count=600)
    return HeadOptions(image=(tmp_path / "ada.png",), generator="prior", fit=fit, device="cpu")


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "dp360.json"]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stop_in_the_fit(stopped: Job) -> None:
    told = list[Progress]()
    with pytest.raises(JobCancelled):
        stopped.run(hear=told.append, is_cancelled=lambda: bool(told) and told[-1].stage == "fit")


def test_what_waits_before_the_fit_does_so_when_the_views_are_there(views_made, options, tmp_path):
    """Another job of the same process may be in its fit: this one has nothing left to do before its own."""
    there: list[set[str]] = []
    folder = tmp_path / "out"
    Job(options, folder).run(before_fit=lambda: there.append({path.name for path in folder.iterdir()}))
    assert len(there) == 1 and {"dataset", PORTRAIT_NAME, STATE_NAME} <= there[0] and "head.ply" not in there[0]
    assert (folder / "head.ply").is_file()


def test_cancelled_in_the_fit_and_run_again(tmp_path, options, views_made, quick_mesh):
    whole = Job(options, tmp_path / "whole").run()
    assert whole.files[-1].name == "dp360.json" and not (tmp_path / "whole" / STATE_NAME).exists()

    stopped = Job(options, tmp_path / "stopped")
    stop_in_the_fit(stopped)
    assert not (tmp_path / "stopped" / "dp360.json").exists()
    notes: list[str] = []
    again = stopped.run(notify=notes.append)
    assert len(views_made) == 2  # the views were not made again
    assert notes[0].startswith("going on with the fit") and again.warnings == ("The head is small.",)
    assert hashes(tmp_path / "stopped") == hashes(tmp_path / "whole")
    assert again.timings_s.keys() == whole.timings_s.keys() == {"portrait", "dataset", "fit", "export"}
    record = json.loads((tmp_path / "stopped" / "dp360.json").read_text())
    assert record["warnings"] == ["The head is small."]


def test_a_result_shows_itself_in_a_notebook(tmp_path, ball, provenance):
    (tmp_path / "head.ply").write_bytes(splat_ply.encode(ball, provenance))
    shown = HeadResult(tmp_path, (), {}, ())._repr_html_()
    (page,) = re.findall(r'^<iframe sandbox="allow-scripts" [^"]*title="3D head" srcdoc="([^"]*)"', shown)
    splats, origin = viewer_html.decode(html.unescape(page).encode())
    assert len(splats) == len(ball) and origin == provenance
    assert HeadResult(tmp_path / "none", (), {}, ())._repr_html_().startswith("<p>Views in")


def test_stopped_after_the_fit_exports_alone(tmp_path, options, views_made, quick_mesh, monkeypatch):
    Job(options, tmp_path / "whole").run()
    with monkeypatch.context() as patch:
        patch.setattr(job, "finish_head", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            Job(options, tmp_path / "stopped").run()
    monkeypatch.setattr(job, "fit_views", None)  # would fail
    Job(options, tmp_path / "stopped").run()
    assert hashes(tmp_path / "stopped") == hashes(tmp_path / "whole")


@pytest.mark.parametrize("change", ["seed", "picture", "dataset", "damage"])
def test_nothing_is_taken_from_another_head(tmp_path, options, views_made, quick_mesh, change):
    told = list[Progress]()
    with pytest.raises(JobCancelled):
        Job(options, tmp_path / "out").run(
            hear=told.append, is_cancelled=lambda: bool(told) and told[-1].stage == "fit"
        )
    if change == "seed":
        options = replace(options, seed=3)
    elif change == "picture":
        Image.new("RGB", (64, 64), (20, 150, 120)).save(options.portrait)
    elif change == "dataset":
        (tmp_path / "out" / "dataset" / "transforms.json").write_text("{}")
    else:
        (tmp_path / "out" / STATE_NAME / "surface.npz").write_bytes(b"PK")
    Job(options, tmp_path / "out").run()
    assert len(views_made) == 2


def test_what_is_done_is_known_by_picture_and_settings(tmp_path, options, views_made, quick_mesh):
    made, digest = Job(options, tmp_path / "out"), hashlib.sha256(options.portrait.read_bytes()).hexdigest()
    assert not made.is_done(digest)
    made.run()
    record = json.loads((tmp_path / "out" / "dp360.json").read_text())
    record["input_sha256"] = digest  # the sphere's views name another
    (tmp_path / "out" / "dp360.json").write_text(json.dumps(record))
    assert made.is_done(digest) and not made.is_done("00")
    assert Job(replace(options, verbose=True, views=32), tmp_path / "out").is_done(digest)  # the same numbers
    for other in (replace(options, seed=1), replace(options, quality="fast"), replace(options, no_glasses=True)):
        assert not Job(other, tmp_path / "out").is_done(digest)
    (tmp_path / "out" / "head.glb").unlink()
    assert not made.is_done(digest)


def test_what_cannot_be_is_refused_before_any_work(tmp_path, options, views_made):
    with pytest.raises(InputError, match="--views"):
        Job(replace(options, views=1), tmp_path / "out").check()
    with pytest.raises(InputError, match="needs --weights"):
        Job(replace(options, generator="diffportrait360"), tmp_path / "out").run()
    assert not views_made and not (tmp_path / "out").exists()

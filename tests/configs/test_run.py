"""The whole path at toy size: a real portrait becomes a folder of files; the same seed gives the same bytes."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from dp360.configs import cli, portrait_to_head
from dp360.configs.console import progress_bars
from dp360.configs.example import write_example_portrait
from dp360.configs.options import FitOptions
from dp360.configs.run import RunCommand, run
from dp360.exporters import splat_ply
from dp360.generation import InputError
from dp360.generation.dataset.view_dataset import read_dataset
from dp360.generation.portrait import Portrait


def make_head(folder: Path, *, seed: int = 0) -> dict[str, Path]:
    write_example_portrait(folder / "face.png")
    command = RunCommand(
        image=(folder / "face.png",),
        output=folder / "out",
        views=8,
        size_px=64,
        fit=FitOptions(iterations=10, start_count=4000),
        device="cpu",
        seed=seed,
    )
    with progress_bars() as display:
        outcome = run(command, display)
    assert not isinstance(outcome, int)
    return {item.name: item for item in outcome if isinstance(item, Path)}


def test_portrait_to_files(tmp_path):
    files = make_head(tmp_path)
    assert list(files) == [
        "portrait.png",
        "prior.glb",
        "head_fit.npz",
        "dataset",
        "head.ply",
        "head.glb",
        "contact_sheet.png",
        "dp360.json",
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(files)
    for name in files:
        assert name.removesuffix("dataset") in str(RunCommand.__doc__)  # what --help says
    record = json.loads(files["dp360.json"].read_text())
    portrait_hash = hashlib.sha256((tmp_path / "face.png").read_bytes()).hexdigest()
    assert record["input_sha256"] == portrait_hash and record["timings_s"].keys() >= {"portrait", "prior", "fit"}

    views = read_dataset(files["dataset"])
    assert len(views) == 1 + 8 + 3 + 2 and views.rgba.shape[1:] == (64, 64, 4)
    assert views.names[0] == "portrait" and views.provenance.input_sha256 == portrait_hash

    head = files["head.ply"].read_bytes()
    assert splat_ply.decode(head)[1] == views.provenance
    mesh_m = trimesh.load_scene(io.BytesIO(files["head.glb"].read_bytes()), file_type="glb").bounds
    assert mesh_m is not None
    prior_m = trimesh.load_scene(io.BytesIO(files["prior.glb"].read_bytes()), file_type="glb").bounds
    same = np.array([[True, False, True], [True, True, True]])  # the bust goes on below what the views show
    assert prior_m[same] == pytest.approx(mesh_m[same], abs=0.04)  # the prior's own, of the same head
    assert prior_m[0, 1] < mesh_m[0, 1] + 0.04
    splats_m = splat_ply.decode(head)[0].means_world.numpy() * 0.01 / 0.0165
    for axis in range(3):  # mesh and splats stand on the same place
        kept = same[:, axis]
        assert np.quantile(splats_m[:, axis], [0.001, 0.999])[kept] == pytest.approx(mesh_m[kept, axis], abs=0.04)
    assert 0.2 < mesh_m[1, 1] - mesh_m[0, 1] < 0.6

    alpha = np.asarray(Image.open(files["portrait.png"]))[..., 3]
    assert alpha[256, 256] > 250 and alpha[20, 20] < 5
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize("words", [[], ["--no-glasses"]])
def test_the_prior_is_told_whether_glasses_are_worn(tmp_path, monkeypatch, words):
    asked = []

    def stop(portrait, **settings):
        asked.append(settings["glasses"])
        raise InputError("far enough for this test")

    monkeypatch.setattr(portrait_to_head, "aligned_portrait", lambda options, **_: object.__new__(Portrait))
    monkeypatch.setattr(portrait_to_head, "build_head_prior", stop)
    for command in ("run", "views"):
        with pytest.raises(SystemExit):
            cli.main([command, "face.png", "--output", str(tmp_path / "out"), "--generator", "prior", *words])
    assert asked == [not words] * 2


def test_a_foreign_folder_named_dataset_is_left_alone(tmp_path):
    (tmp_path / "out" / "dataset").mkdir(parents=True)
    (tmp_path / "out" / "dataset" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is no data set"):
        make_head(tmp_path)
    assert (tmp_path / "out" / "dataset" / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
def test_same_seed_same_bytes(tmp_path):
    hashes = []
    for name in ("first", "second"):
        make_head(tmp_path / name, seed=5)
        out = tmp_path / name / "out"
        files = sorted(p for p in out.rglob("*") if p.is_file() and p.name != "dp360.json")
        hashes.append({p.relative_to(out): hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    assert hashes[0] == hashes[1] and len(hashes[0]) > 30

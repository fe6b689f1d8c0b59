"""From a data set on disk to files in a folder, whole, repeatable, and usable when stopped half-way."""

import hashlib
import json
import math
import re
from collections.abc import Iterable
from typing import Any

import plyfile
import pytest
import torch
from PIL import Image

from dp360.configs import cli
from dp360.configs.console import EXIT_INPUT_ERROR, Display, ignore
from dp360.configs.device import choose_device
from dp360.configs.export import ExportCommand
from dp360.configs.export_files import export
from dp360.configs.fit import FitCommand, run
from dp360.configs.options import FitOptions
from dp360.exporters import splat_ply
from dp360.generation import InputError, ViewSet
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.dataset.view_dataset import write_dataset
from dp360.reconstruction import splat_fit


@pytest.fixture
def data(views: ViewSet, tmp_path):
    write_dataset(views, tmp_path / "data" / "dataset")
    return tmp_path / "data"


def fit(data, output, *, seed: int = 0) -> dict[str, str]:
    """`dp360 fit` in a few steps; file names and hashes."""
    words = ["fit", "--data", data, "--output", output, "--fit.iterations", 12, "--seed", seed, "--device", "cpu"]
    assert cli.main([str(word) for word in words]) == 0
    files = [p for p in output.iterdir() if not p.name.startswith(".")]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_fit_writes_the_head_and_seals_the_folder(data, views, tmp_path, capsys, quick_mesh):
    hashes = fit(data, tmp_path / "out")
    names = ("head.ply", "head.glb", "contact_sheet.png")
    assert set(hashes) == {*names, "dp360.json"}
    record = json.loads((tmp_path / "out" / "dp360.json").read_text())
    assert record["files"] == {name: hashes[name] for name in names}
    assert record["recipe"]["iterations"] == 12 and record["input_sha256"] == views.provenance.input_sha256
    assert set(record["timings_s"]) == {"read", "fit", "export"}
    assert splat_ply.decode((tmp_path / "out" / "head.ply").read_bytes())[1] == views.provenance
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 8 * 224 and "dp360.provenance" in sheet.info
    assert capsys.readouterr().out.splitlines() == [
        *(f"wrote {tmp_path / 'out' / name}" for name in (*names, "dp360.json")),
        f"look at it:  dp360 view {tmp_path / 'out' / 'head.ply'}",
        f"export more: dp360 export --input {tmp_path / 'out'} --output head.spz head.html turntable.mp4",
    ]


def test_same_seed_same_bytes(data, tmp_path, quick_mesh):
    first, second, other = (fit(data, tmp_path / n, seed=s) for n, s in (("a", 3), ("b", 3), ("c", 4)))
    assert first["head.ply"] == second["head.ply"] != other["head.ply"]
    assert first["contact_sheet.png"] == second["contact_sheet.png"]


def test_a_stopped_fit_leaves_splats_and_no_seal(data, tmp_path, quick_mesh):
    fit(data, tmp_path / "out")

    def impatient(sequence: Iterable, **arguments: Any) -> Iterable:
        for i, item in enumerate(sequence):
            if i == 5:
                raise KeyboardInterrupt
            yield item

    command = FitCommand(data, tmp_path / "out", fit=FitOptions(iterations=1000), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        run(command, Display(impatient, ignore))
    head = (tmp_path / "out" / "head.ply").read_bytes()
    assert len(splat_ply.decode(head)[0]) > 100
    origin = splat_ply.decode(head)[1]
    assert origin is not None and origin.settings["stopped_at_iteration"] == 4
    assert not (tmp_path / "out" / "dp360.json").exists()
    assert "head.ply" in fit(data, tmp_path / "out")  # a later run finishes


def test_a_fit_that_is_not_finite_keeps_its_last_good_state_and_exports_nothing(
    data, tmp_path, capsys, quick_mesh, monkeypatch
):
    fit(data, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != "dp360.json"}
    sound, steps = splat_fit.view_loss, iter(range(100))
    monkeypatch.setattr(splat_fit, "view_loss", lambda *given: sound(*given) * (math.nan if next(steps) == 7 else 1))
    words = ["fit", "--data", str(data), "--output", str(tmp_path / "out"), "--fit.iterations", "12", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == EXIT_INPUT_ERROR
    told = capsys.readouterr().err
    assert "The fit was stopped: the loss is not finite at step 7" in told and "Traceback" not in told
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    good, origin = splat_ply.decode(after.pop("last_good.ply"))
    assert origin is not None and origin.settings["stopped_at_iteration"] == 7 and len(good) > 100
    assert after == before  # and no record that says the folder is whole


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(InputError, match="no GPU that CUDA can use was found"):
        choose_device("cuda")


def test_export_changes_the_scale_of_a_ply(ball, provenance, tmp_path):
    (tmp_path / "in.ply").write_bytes(splat_ply.encode(ball, provenance))
    paths = export(ExportCommand(((tmp_path / "out.ply",),), input=tmp_path / "in.ply", metres_per_unit=1.0))
    assert paths == (tmp_path / "out.ply",)
    before, after = (plyfile.PlyData.read(str(tmp_path / f"{n}.ply"))["vertex"]["y"] for n in ("in", "out"))
    assert after == pytest.approx(before / METRES_PER_UNIT, rel=1e-5)
    assert splat_ply.decode((tmp_path / "out.ply").read_bytes())[1] == provenance


def test_export_of_a_strangers_ply_says_that_its_origin_is_unknown(ball, provenance, tmp_path):
    ours = splat_ply.encode(ball, provenance, metres_per_unit=1.0)
    (tmp_path / "in.ply").write_bytes(re.sub(rb"comment [^\n]*\n", b"", ours))
    export(ExportCommand(((tmp_path / "out.ply",),), input=tmp_path / "in.ply"))
    exported = (tmp_path / "out.ply").read_bytes()
    origin = splat_ply.decode(exported)[1]
    assert origin is not None and origin.generator == "unknown"
    torch.testing.assert_close(splat_ply.decode(exported)[0].means_world, ball.means_world)

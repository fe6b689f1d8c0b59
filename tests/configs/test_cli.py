"""What people read and what scripts get: exit codes, one-line errors, files named at the end."""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dp360.configs import cli, extras
from dp360.configs.console import errors_for_people
from dp360.configs.run import RunCommand
from dp360.configs.run_folder import LOCK_NAME, RECORD_NAME, RunRecord, exclusive_run
from dp360.generation import InputError


def run(*arguments: str | Path, **kwargs) -> subprocess.CompletedProcess:
    """The command in a process of its own, as people start it."""
    words = [sys.executable, "-m", "dp360.configs.cli", *map(str, arguments)]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=120, **kwargs)


def test_help_names_every_subcommand():
    result = run("--help")
    assert result.returncode == 0
    for name in (
        "run",
        "views",
        "fit",
        "export",
        "convert",
        "import-release",
        "bench",
        "example",
        "doctor",
        "train",
        "data",
        "eval",
        "view",
    ):
        assert name in result.stdout


def test_help_imports_nothing_heavy():
    heavy = ["torch", "numba", "mediapipe", "nerfstudio", "PIL", "diffusers", "av"]
    code = f"import sys, dp360.configs.cli; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_help_shows_the_first_sentence_of_each_command():
    for name, found in cli.SUBCOMMANDS.items():
        summary = " ".join((cli.command_type(name).__doc__ or "").split("\n\n")[0].split())
        assert summary == found.summary, name


def test_a_command_imports_no_other_command():
    code = (
        "import sys\nfrom dp360.configs import cli\ncli._parsed_type(['fit'])\n"
        "print([n for n in ('train', 'evaluate', 'doctor', 'data') if f'dp360.configs.{n}' in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "packages", "sentence"),
    [
        (["run", "a.png", "--generator", "compact"], "diffusers", "--generator compact needs the package diffusers"),
        (["run", "a.png", "--variants", "2"], "diffusers", "--variants needs the package diffusers"),
        (["batch", "a.png", "--generator", "field"], "diffusers", "--generator field needs the package diffusers"),
        (["export", "--input", "a.ply", "--output", "a.mp4"], "av", "A film as .mp4 needs the package av"),
        (["export", "--input", "a.usdz", "--output", "a.ply"], "pxr", "OpenUSD needs the package pxr"),
        (["export", "--load-config", "c.yml", "--output", "a.ply"], "nerfstudio", "A run of ns-train needs"),
        (["serve"], "fastapi,uvicorn", "dp360 serve needs the packages fastapi, uvicorn"),
        (["train", "labels", "--data", "d", "--output", "o"], "accelerate", "dp360 train needs the package accelerate"),
        (["eval", "pose", "--data", "d"], "matplotlib", "dp360 eval needs the package matplotlib"),
        (["bench", "diffusion"], "diffusers", "dp360 bench diffusion needs the package diffusers"),
        (["import-capture", "a.smc", "--output", "o"], "h5py", "A capture of RenderMe-360 needs the package h5py"),
    ],
)
def test_what_is_missing_is_said_before_any_work(tmp_path, monkeypatch, capsys, words, packages, sentence):
    monkeypatch.chdir(tmp_path)
    missing, find = packages.split(","), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    said = capsys.readouterr().err
    assert left.value.code == 2 and sentence in said and f"dp360[{extras.EXTRA_OF[missing[0]]}]" in said
    assert not list(tmp_path.iterdir())


def test_an_import_that_fails_later_names_its_extra_too(capsys):
    with pytest.raises(SystemExit) as left, errors_for_people():
        raise ModuleNotFoundError("No module named 'open3d'", name="open3d.geometry")
    assert left.value.code == 2 and "pip install 'dp360[export]'" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError), errors_for_people():
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")


_CORE_ALONE = """
import importlib.abc, sys
from dp360.configs.extras import EXTRA_OF

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {*EXTRA_OF, "mediapipe", "torchvision"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import dp360.configs.batch, dp360.configs.doctor, dp360.configs.export_files, dp360.configs.jobs.batch_run
import dp360.configs.jobs.job, dp360.configs.viewer, dp360.exporters.meshing, dp360.generation.captures
"""


def test_the_core_imports_without_what_the_extras_bring():
    subprocess.run([sys.executable, "-c", _CORE_ALONE], check=True, timeout=120)


def test_example_writes_a_portrait_and_says_so(tmp_path, capsys):
    assert cli.main(["example", str(tmp_path / "face.png")]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'face.png'}\n"
    picture = np.asarray(Image.open(tmp_path / "face.png"))
    assert picture.shape == (330, 330, 3)
    skin = picture[110:150, 150:180].reshape(-1, 3).mean(axis=0)  # the middle of the face
    assert skin[0] > skin[1] > skin[2] > 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["example", "face.jpg"], "give a name that ends in .png"),
        (["fit", "--data", "nowhere", "--output", "out"], "nowhere"),
        (["export", "--output", "a.ply"], "give either --load-config"),
        (["export", "--output", "a.ply", "--input", "nowhere.ply"], "Cannot read nowhere.ply"),
        (["export", "--input", "nowhere.ply"], "give at least one file with --output"),
        (["export", "--output", "a.obj2", "--input", "nowhere.ply"], "ends in one of .compressed.ply, "),
        (["export", "--output", "a.ply", "--input", "a.ply", "--metres-per-unit", "0"], "positive --metres-per-unit"),
        (["export", "--output", "a.ply", "--load-config", "config.yml"], "Cannot read config.yml: no such file"),
        (["run", "--image", "a.png", "--output", "out", "--views", "3"], "expected --views from 4 to 720, got 3"),
        (["run", "--image", "a.png", "--output", "out", "--size-px", "9"], "expected --size-px from 32 to 2048"),
        (["run", "--image", "a.png", "--output", "out", "--fit.iterations", "0"], "expected --fit.iterations from 1"),
        (["run", "--image", "nowhere.png", "--output", "out"], "nowhere.png"),
        (["run", "nowhere.png"], "nowhere.png"),
        (["run"], "name a portrait, for example dp360 run face.png"),
        (["run", "a.png", "b.png"], "expected one portrait, got 2 (a.png, b.png)"),
        (["views", "--image", "a.png", "--image", "b.png"], "expected one portrait, got 2 (a.png, b.png)"),
        (["run", "a.png", "--image", "b.png"], "expected one portrait, got 2 (a.png, b.png)"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    output = capsys.readouterr()
    assert left.value.code == 2 and output.out == ""
    (line,) = [line for line in output.err.splitlines() if line.startswith("dp360: ")]
    assert message in line and "Traceback" not in output.err
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dp360 {metadata.version('dp360')}\n"


def test_results_go_where_the_portrait_is_named_after(tmp_path, monkeypatch):
    """Without --output the folder is heads/NAME; the head of another portrait is not overwritten there."""
    monkeypatch.chdir(tmp_path)
    Path("ada.png").write_bytes(b"a picture")
    command = RunCommand(given_portrait=(Path("ada.png"),))
    assert command.folder() == Path("heads/ada") and command.options.portrait == Path("ada.png")
    Path("heads/ada").mkdir(parents=True)
    record = RunRecord(Path("heads/ada") / RECORD_NAME, {})
    record.write(hashlib.sha256(b"a picture").hexdigest(), ())
    assert command.folder() == Path("heads/ada")
    Path("ada.png").write_bytes(b"another picture")
    with pytest.raises(InputError, match="heads/ada holds the head of another portrait; choose a folder with --output"):
        command.folder()
    assert RunCommand(given_portrait=(Path("ada.png"),), output=Path("heads/ada")).folder() == Path("heads/ada")


@pytest.mark.parametrize(
    ("portrait", "folder"),
    [("it's: me?.png", "it's_ me_"), ("con.png", "_con"), ("Aux.old.png", "_Aux.old"), ("日本.png", "日本")],
)
def test_folders_of_results_have_names_that_every_system_takes(portrait, folder):
    assert RunCommand(given_portrait=(Path(portrait),)).folder() == Path("heads", folder)


def test_a_record_is_written_where_packages_are_missing(tmp_path, monkeypatch):
    def version(name: str) -> str:
        if name == "gsplat":
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    path = RunRecord(tmp_path / RECORD_NAME, {"command": {}}).write("00", ())
    versions = json.loads(path.read_text())["versions"]
    assert versions["gsplat"] is None and versions["torch"] == "1"


def test_unwritable_output_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as left:
        cli.main(["example", str(tmp_path / "file" / "face.png")])
    assert left.value.code == 2 and str(tmp_path / "file") in capsys.readouterr().err


def test_a_second_run_on_one_folder_is_refused(tmp_path):
    with exclusive_run(tmp_path):
        result = run("run", "--image", "a.png", "--output", tmp_path)
    assert result.returncode == 2 and "Another dp360 is writing into" in result.stderr
    with exclusive_run(tmp_path):  # free again
        pass


def test_the_lock_leaves_nothing_behind(tmp_path):
    with exclusive_run(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), exclusive_run(tmp_path / "mine"):
        raise ZeroDivisionError
    assert (tmp_path / "mine").is_dir() and not list((tmp_path / "mine").iterdir())
    with exclusive_run(tmp_path / "mine" / "out"):
        assert (tmp_path / "mine" / "out" / LOCK_NAME).exists()
        (tmp_path / "mine" / "out" / "head.ply").write_bytes(b"")
    assert [p.name for p in (tmp_path / "mine").rglob("*")] == ["out", "head.ply"]


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with (
        pytest.raises(InputError, match="a file stands where a folder is needed; move it"),
        exclusive_run(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_interrupt_and_termination_have_their_own_exit_codes(capsys):
    with pytest.raises(SystemExit) as left, errors_for_people():
        raise KeyboardInterrupt
    assert left.value.code == 130
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left, errors_for_people():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert left.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err.count("files that were complete are kept") == 2


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), errors_for_people():
        _ = 1 / 0
    with pytest.raises(ValueError, match="internal"), errors_for_people():
        raise ValueError("internal")

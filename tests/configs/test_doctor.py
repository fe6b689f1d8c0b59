"""The doctor finds what is there, names what is not, and writes nothing."""

import hashlib
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from dp360.configs import cli, doctor


def test_examines_this_machine(tmp_path: Path):
    diagnosis = doctor.examine(tmp_path / "not" / "there" / "yet")
    found = {f.name: f for f in diagnosis.findings}
    assert found["dp360"].state == "ok" and found["torch"].value
    weights = resources.files("dp360.generation.weights").joinpath("head_model.npz").read_bytes()
    assert hashlib.sha256(weights).hexdigest()[:16] in found["head_model.npz"].value
    assert "compact-1 (sha256 " in found["compact"].value
    assert str(tmp_path) in found["disk for results"].value
    assert diagnosis.main_job_possible
    assert not list(tmp_path.iterdir())


def test_a_place_for_results_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    diagnosis = doctor.examine(tmp_path / "file" / "out")
    place = {f.name: f for f in diagnosis.findings}["disk for results"]
    assert place.state == "missing" and place.value == f"{tmp_path / 'file'} cannot be written"
    assert not diagnosis.main_job_possible


def test_command_prints_sections_and_the_verdict(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert cli.main(["doctor", "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    for heading in (
        "Versions",
        "Devices",
        "Weights",
        "What --generator auto takes",
        "Memory and disk",
        "Caches",
        "System",
    ):
        assert heading in output
    assert "dp360 run can make heads on this machine" in output


def test_missing_library_and_program_are_named_with_the_apt_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(doctor, "_LIBRARIES", (("libdp360-nowhere.so.9", "libnowhere9", "nothing"),))
    monkeypatch.setattr(doctor, "_PROGRAMS", (("dp360-nowhere", "nowhere-tools", "nothing either"),))
    diagnosis = doctor.examine(tmp_path)
    missing = {f.name: f for f in diagnosis.findings if f.section == "System" and f.state == "missing"}
    assert missing["libnowhere9"].needed_for == "nothing"
    assert "apt-get install -y libnowhere9 nowhere-tools" in diagnosis.apt_line
    assert diagnosis.main_job_possible
    assert cli.main(["doctor"]) == 0 and "for nothing either" in capsys.readouterr().out


def test_missing_package_stops_the_main_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(doctor, "_DISTRIBUTIONS", ("dp360", "dp360-nowhere"))
    assert not doctor.examine(tmp_path).main_job_possible
    assert cli.main(["doctor"]) == 1 and "cannot make heads" in capsys.readouterr().out


@pytest.mark.parametrize("packages", [("torch",), ("pymatting", "diffusers", "numba", "open3d")])
def test_packages_that_cannot_be_imported_give_findings_instead_of_a_traceback(
    packages: tuple[str, ...], tmp_path: Path
):
    hidden = f"""
import importlib.metadata, json, pathlib, sys
sys.modules.update(dict.fromkeys({packages!r}))  # importing them fails
version = importlib.metadata.version
def version_of_the_others(name):
    if name in {packages!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = version_of_the_others
from dp360.configs import doctor
diagnosis = doctor.examine(pathlib.Path({str(tmp_path)!r}))
print(json.dumps({{f.name: f.state for f in diagnosis.findings}}))
"""
    done = subprocess.run([sys.executable, "-c", hidden], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    optional = ("diffusers", "open3d")
    assert {name: states[name] for name in packages} == {n: "note" if n in optional else "missing" for n in packages}


def test_says_what_auto_takes_and_by_which_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from dp360.generation.diffusion import compact

    figures = {"psnr_head": 12.0, "perceptual": 0.5}, {"psnr_head": 13.25, "perceptual": 0.5}
    monkeypatch.setattr(compact, "held_out", lambda: compact.HeldOut(7, 3, *figures))
    lines = {f.name: f.value for f in doctor.examine(tmp_path).findings if f.section == "What --generator auto takes"}
    assert lines["choice"].startswith("compact; ")
    assert lines["measured on"].startswith("7 composed heads") and lines["measured on"].endswith("3 views each")
    assert lines["PSNR above the chin, more is better"] == "prior 12.00 dB, compact 13.25 dB"
    assert lines["perceptual distance, less is better"] == "prior 0.500, compact 0.500"

    monkeypatch.setattr(compact, "held_out", lambda: None)
    lines = {f.name: f.value for f in doctor.examine(tmp_path).findings if f.section == "What --generator auto takes"}
    assert list(lines) == ["choice"] and lines["choice"].startswith("prior: ")

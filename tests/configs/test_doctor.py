"""The doctor finds what is there, names what is not, and writes nothing."""

import hashlib
from importlib import resources

from dp360.configs import cli, doctor


def test_examines_this_machine(tmp_path):
    diagnosis = doctor.examine(tmp_path / "not" / "there" / "yet")
    found = {f.name: f for f in diagnosis.findings}
    assert found["dp360"].state == "ok" and found["torch"].value
    weights = resources.files("dp360.generation.weights").joinpath("head_model.npz").read_bytes()
    assert hashlib.sha256(weights).hexdigest()[:16] in found["head_model.npz"].value
    assert "compact-1 (sha256 " in found["compact"].value
    assert str(tmp_path) in found["disk for results"].value
    assert diagnosis.main_job_possible
    assert not list(tmp_path.iterdir())


def test_a_place_for_results_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    diagnosis = doctor.examine(tmp_path / "file" / "out")
    place = {f.name: f for f in diagnosis.findings}["disk for results"]
    assert place.state == "missing" and place.value == f"{tmp_path / 'file'} cannot be written"
    assert not diagnosis.main_job_possible


def test_command_prints_sections_and_the_verdict(capsys, tmp_path):
    assert cli.main(["doctor", "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    for heading in ("Versions", "Devices", "Weights", "Memory and disk", "Caches", "System"):
        assert heading in output
    assert "dp360 run can make heads on this machine" in output


def test_missing_library_and_program_are_named_with_the_apt_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(doctor, "_LIBRARIES", (("libdp360-nowhere.so.9", "libnowhere9", "nothing"),))
    monkeypatch.setattr(doctor, "_PROGRAMS", (("dp360-nowhere", "nowhere-tools", "nothing either"),))
    diagnosis = doctor.examine(tmp_path)
    missing = {f.name: f for f in diagnosis.findings if f.section == "System" and f.state == "missing"}
    assert missing["libnowhere9"].needed_for == "nothing"
    assert "apt-get install -y libnowhere9 nowhere-tools" in diagnosis.apt_line
    assert diagnosis.main_job_possible
    assert cli.main(["doctor"]) == 0 and "for nothing either" in capsys.readouterr().out


def test_missing_package_stops_the_main_job(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(doctor, "_DISTRIBUTIONS", ("dp360", "dp360-nowhere"))
    assert not doctor.examine(tmp_path).main_job_possible
    assert cli.main(["doctor"]) == 1 and "cannot make heads" in capsys.readouterr().out

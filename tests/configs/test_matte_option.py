"""`--matte` in dp360 run, dp360 views and ns-train: read alike, refused alike, recorded, and part of the views' key."""

from __future__ import annotations

import copy
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from dp360.configs import cli, doctor, portrait_to_head, run_keys
from dp360.configs.example import write_example_portrait
from dp360.configs.options import HeadOptions
from dp360.configs.portrait_trainer import views_key
from dp360.configs.recipe import head_recipe
from dp360.configs.run import RunCommand
from dp360.configs.run_folder import RECORD_NAME, RunRecord
from dp360.generation.portrait import PortraitConfig

UNKNOWN = "Unknown matte 'magic': expected own, rembg, or rembg:MODEL"
LACKING = "needs the packages rembg and onnxruntime, which cannot be imported here"


@pytest.fixture
def no_rembg(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra."""
    monkeypatch.setitem(sys.modules, "rembg", None)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence with which the command refuses."""
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    assert left.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dp360: ")]
    return line


@pytest.mark.parametrize("parsed", [HeadOptions, tyro.conf.FlagConversionOff[HeadOptions]])
def test_both_parsers_read_it(parsed: type[HeadOptions]) -> None:
    assert tyro.cli(parsed, args=[]).matte == "own"
    assert tyro.cli(parsed, args=["--matte", "rembg:nets/mine.onnx"]).matte == "rembg:nets/mine.onnx"


def test_it_reaches_the_portrait(monkeypatch: pytest.MonkeyPatch) -> None:
    class FarEnough(Exception):
        pass

    def prepare(path: Path, config: PortraitConfig, **_: object) -> None:
        assert (config.matte, config.crop) == ("rembg:u2net", "wide")
        raise FarEnough

    monkeypatch.setattr(portrait_to_head, "prepare_portrait", prepare)
    options = HeadOptions((Path("a.png"),), matte="rembg:u2net", crop="wide")
    with pytest.raises(FarEnough):
        portrait_to_head.aligned_portrait(options)


@pytest.mark.parametrize("command", ["run", "views"])
def test_other_words_are_refused_before_anything_is_done(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert UNKNOWN in refusal(capsys, command, "a.png", "--output", str(tmp_path / "out"), "--matte", "magic")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [(), ("--variants", "2")])
def test_without_the_extra_one_sentence_says_what_to_install(
    words: tuple[str, ...], no_rembg: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_example_portrait(tmp_path / "face.png")
    said = refusal(
        capsys, "run", str(tmp_path / "face.png"), "--output", str(tmp_path / "out"), "--matte", "rembg", *words
    )
    assert LACKING in said and 'run pip install "dp360[matte]", or leave --matte out' in said
    assert [path.name for path in tmp_path.iterdir()] == ["face.png"]


@pytest.mark.parametrize(("matte", "message"), [("magic", UNKNOWN), ("rembg", LACKING)])
def test_ns_train_says_it_as_well(
    matte: str, message: str, no_rembg: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

    write_example_portrait(tmp_path / "face.png")
    words = ["dp360-splat", "--image", str(tmp_path / "face.png"), "--output-dir", str(tmp_path / "out")]
    config = copy.deepcopy(tyro.cli(AnnotatedBaseConfigUnion, args=[*words, "--matte", matte]))
    with pytest.raises(SystemExit):
        config.set_timestamp()
    assert message in " ".join(capsys.readouterr().err.split())


def test_views_are_kept_apart_by_matte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face, network = tmp_path / "face.png", tmp_path / "mine.onnx"
    face.write_bytes(b"a picture")
    network.write_bytes(b"a network")
    plain = HeadOptions((face,), generator="prior")

    def key(matte: str) -> str:
        options = replace(plain, matte=matte)
        return views_key(options, head_recipe(options))

    ways = ("own", "rembg", "rembg:u2net", f"rembg:{network}")
    before = [key(matte) for matte in ways]
    assert len(set(before)) == 4 and [key(matte) for matte in ways] == before
    os.utime(network, (1, 1))  # another file in its place
    assert [key(matte) == old for matte, old in zip(ways, before)] == [True, True, True, False]
    monkeypatch.setattr(run_keys, "version_of", lambda name: "3.0")
    assert [key(matte) == old for matte, old in zip(ways, before)] == [True, False, False, False]


def test_it_is_recorded_and_handed_on(tmp_path: Path) -> None:
    run = RunCommand(given_portrait=(Path("a.png"),), matte="rembg:u2net")
    assert run.taking(3) == "dp360 run a.png --generator field --seed 3 --matte rembg:u2net"
    options = run.options
    record = RunRecord(tmp_path / RECORD_NAME, portrait_to_head.settings_of(options, head_recipe(options)))
    record.write("ab" * 32, ())
    written = (tmp_path / RECORD_NAME).read_text()
    assert '"matte": "rembg:u2net"' in written and '"rembg": ' in written  # and its version


@pytest.mark.parametrize("version", ["2.0.69", None])
def test_the_doctor_knows_the_extra(version: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: version if name in ("rembg", "onnxruntime") else known(name))
    found = {f.name: f for f in doctor.examine(tmp_path).findings}
    for name in ("rembg", "onnxruntime"):
        assert (found[name].value, found[name].state) == ((version, "ok") if version else ("not installed", "note"))
        assert found[name].needed_for == "--matte rembg: pip install 'dp360[matte]'"

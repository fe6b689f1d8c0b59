"""Drawn fields from the command line: the generator `field`, sheets of variants, and what is refused."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tyro
from PIL import Image

from dp360.configs import cli, doctor, drawn_variants
from dp360.configs.evaluation_jobs import open_sources
from dp360.configs.example import write_example_portrait
from dp360.configs.given_pictures import GivenPictures
from dp360.configs.options import HeadOptions
from dp360.configs.portrait_trainer import views_key
from dp360.configs.recipe import head_recipe
from dp360.configs.run import RunCommand, ViewsCommand
from dp360.configs.view_generators import open_generator, settled
from dp360.exporters.provenance import provenance_from_json
from dp360.exporters.variants_sheet import TILE_PX
from dp360.generation import Cameras, InputError, orbit
from dp360.generation.dataset.view_dataset import read_dataset
from dp360.generation.prior import PriorGenerator, PriorRender
from dp360.reconstruction.evaluation import heads
from dp360.reconstruction.evaluation.heads import GeneratedViews, HeadCase

DRAWING = [f"field_{name}.safetensors" for name in ("autoencoder", "denoiser", "grain")]
LACKING = "this installation has no weights that draw fields; install dp360 again, or take --generator prior"


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence with which the command refuses."""
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    assert left.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dp360: ")]
    return line


@pytest.mark.parametrize("command", ["run", "views"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--generator field --weights w", "--weights and --diffusion options are for the diffusion model"),
        ("--generator field --diffusion.steps 4", "--weights and --diffusion options are for the diffusion model"),
        ("--variants 2 --weights w", "--weights and --diffusion options are for the diffusion model"),
        ("--variants 0", "expected --variants from 1 to 16, got 0"),
        ("--variants 17", "expected --variants from 1 to 16, got 17"),
        ("--variants 2 --seed 4294967295", "expected --seed from 0 to 4294967295, got 4294967296"),
        ("--variants 2 --generator prior", "shows what --generator field draws, got --generator prior; leave one of"),
        ("--variants 2 --generator compact", "shows what --generator field draws, got --generator compact; leave one"),
    ],
)
def test_contradictions_are_refused(
    fields_are_drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str, words: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, command, "a.png", "--output", "out", *words.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", ["--generator field", "--variants 2", "--variants 2 --generator field"])
def test_an_installation_without_the_weights_says_what_to_do(
    no_fields_are_drawn: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert LACKING in refusal(capsys, "run", "a.png", "--output", str(tmp_path / "out"), *words.split())
    assert not list(tmp_path.iterdir())


def test_ns_train_says_it_as_well(
    no_fields_are_drawn: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

    words = ["dp360-splat", "--image", "a.png", "--output-dir", str(tmp_path / "out"), "--generator", "field"]
    config = copy.deepcopy(tyro.cli(AnnotatedBaseConfigUnion, args=words))
    with pytest.raises(SystemExit):
        config.set_timestamp()
    assert LACKING in " ".join(capsys.readouterr().err.split())


def test_the_doctor_names_weights_that_are_not_there(
    weights_with_tiny_drawing: Path, weights_without_drawing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def findings(folder: Path) -> dict[str, doctor.Finding]:
        monkeypatch.setattr(doctor, "_WEIGHTS", folder)
        return {f.name: f for f in doctor.examine(tmp_path).findings if f.section == "Weights"}

    lacking = findings(weights_without_drawing)[" and ".join(DRAWING)]
    assert (lacking.value, lacking.state) == ("not installed", "note") and "--generator field" in lacking.needed_for
    there = findings(weights_with_tiny_drawing)
    assert set(DRAWING) < there.keys()
    assert not any(" and " in name for name in there)


def test_auto_does_not_take_it_yet(fields_are_drawn: Path) -> None:
    assert settled(HeadOptions((Path("a.png"),))).generator in ("prior", "compact")


def test_it_is_the_prior_under_its_own_name() -> None:
    options = HeadOptions((Path("a.png"),), generator="field")
    generator = open_generator(options, GivenPictures(), orbit(2, size_px=64))
    assert generator == PriorGenerator(name="field")


def test_views_are_kept_apart_by_generator_and_seed(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(b"a picture")
    plain = HeadOptions((tmp_path / "face.png",), generator="prior")
    drawn = replace(plain, generator="field")
    ways = (plain, drawn, replace(drawn, seed=1), replace(drawn, device="cpu"))
    keys = [views_key(options, head_recipe(options)) for options in ways]
    assert len(set(keys)) == 3 and keys[3] == keys[1]


def test_portrait_to_views_with_a_drawn_field(fields_are_drawn: Path, tmp_path: Path) -> None:
    face, out = tmp_path / "face.png", tmp_path / "out"
    write_example_portrait(face)
    words = ["views", str(face), "--output", str(out), "--generator", "field", "--seed", "3", "--views", "4"]
    assert cli.main([*words, "--rings", "level", "--size-px", "64"]) == 0
    origin = read_dataset(out / "dataset").provenance
    assert (origin.generator, origin.seed, origin.settings["name"]) == ("field", 3, "field")
    assert "field_mean (sha256 " in origin.weights
    assert all(f"{Path(name).stem} (sha256 " in origin.weights for name in DRAWING)
    assert json.loads((out / "dp360.json").read_text())["command"]["generator"] == "field"


@dataclass
class Basis:
    """In place of seconds of work: heads that are as grey as their seed says."""

    asked: list[tuple[int, bool]] = field(default_factory=list)
    glasses: list[bool] = field(default_factory=list)
    light: list[str] = field(default_factory=list)
    portrait = SimpleNamespace(source_sha256="ab" * 32)

    def prior(self, *, seed: int, drawn: bool, glasses: bool, light: str) -> SimpleNamespace:
        self.asked.append((seed, drawn))
        self.glasses.append(glasses)
        self.light.append(light)

        def render(cameras: Cameras) -> PriorRender:
            shape = (len(cameras), cameras.height, cameras.width)
            grey, one = np.full((*shape, 3), seed / 255, np.float32), np.ones(shape, np.float32)
            return PriorRender(grey, one, one, grey, one, one.astype(np.uint8))

        settings = {"glasses": "worn" if glasses else "taken off"}
        return SimpleNamespace(weights_name="some (sha256 00)", render=render, look_settings=settings)


@pytest.fixture
def basis(monkeypatch: pytest.MonkeyPatch) -> Basis:
    made = Basis()
    monkeypatch.setattr(drawn_variants, "aligned_portrait", lambda options, **_: None)
    monkeypatch.setattr(drawn_variants, "PriorBasis", SimpleNamespace(of=lambda portrait: made))
    return made


def test_variants_are_a_sheet_with_a_row_for_each_seed(
    fields_are_drawn: Path, basis: Basis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "dp360.json").write_text("an earlier head")
    words = ["run", "face.png", "--output", str(out), "--variants", "3", "--seed", "90"]
    assert cli.main(words) == 0
    assert basis.asked == [(90, True), (91, True), (92, True)]
    assert {p.name for p in out.iterdir()} == {"dp360.json", "variants.png"}
    assert (out / "dp360.json").read_text() == "an earlier head"
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {out / 'variants.png'}",
        f"take one by its seed: dp360 run face.png --generator field --seed 92 --output {out}",
    ]
    sheet = Image.open(io.BytesIO((out / "variants.png").read_bytes()))
    origin = provenance_from_json(sheet.info["dp360.provenance"])
    assert (origin.generator, origin.weights, origin.seed) == ("field", "some (sha256 00)", 90)
    assert (origin.input_sha256, origin.settings) == ("ab" * 32, {"variants": 3, "glasses": "worn"})
    grey = np.asarray(sheet)[:, -TILE_PX // 2, 0]  # down the last column of pictures
    assert [int(np.count_nonzero(grey == seed)) for seed in (89, 90, 91, 92, 93)] == [0, TILE_PX, TILE_PX, TILE_PX, 0]


def test_variants_take_glasses_off_as_heads_do(fields_are_drawn: Path, basis: Basis, tmp_path: Path) -> None:
    assert cli.main(["run", "face.png", "--output", str(tmp_path / "out"), "--variants", "1", "--no-glasses"]) == 0
    assert basis.glasses == [False]


def test_variants_are_lit_as_heads_are(fields_are_drawn: Path, basis: Basis, tmp_path: Path) -> None:
    assert cli.main(["run", "face.png", "--output", str(tmp_path / "out"), "--variants", "1", "--light", "even"]) == 0
    assert basis.light == ["even"]


def test_diffusion_draws_in_the_portraits_light_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "face.png", "--output", str(tmp_path / "out"), "--generator", "compact", "--light", "even"]
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "draws views in the portrait's light; leave one of them out" in " ".join(capsys.readouterr().err.split())


def test_a_light_that_is_none_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "face.png", "--output", str(tmp_path / "out"), "--light", "candle"])
    said = " ".join(capsys.readouterr().err.split())
    assert "expected --light portrait, even, studio or a panorama (.hdr or .exr), got candle" in said
    assert not (tmp_path / "out").exists()


def test_the_command_that_takes_one_treats_the_portrait_alike() -> None:
    run = RunCommand(given_portrait=(Path("my face.png"),), variants=4, crop="wide", face_index=1, no_glasses=True)
    assert run.taking(3) == (
        "dp360 run 'my face.png' --generator field --seed 3 --face-index 1 --crop wide --no-glasses"
    )
    assert RunCommand(image=(Path("a.png"),), light="even").taking(0).endswith("--seed 0 --light even")
    assert ViewsCommand(image=(Path("a.png"),)).taking(0) == "dp360 views a.png --generator field --seed 0"


def test_evaluation_builds_the_prior_that_the_generator_is_named_after(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, drawn = open_sources(["prior", "field"], None)
    assert isinstance(plain, GeneratedViews) and isinstance(drawn, GeneratedViews)
    assert (drawn.name, drawn.generator) == ("field", PriorGenerator(name="field"))
    asked: list[dict[str, object]] = []

    def build(portrait: object, **options: object) -> None:
        asked.append(options)
        raise InputError("far enough")

    monkeypatch.setattr(heads, "build_head_prior", build)
    case = object.__new__(HeadCase)
    object.__setattr__(case, "portrait", None)
    for source in (plain, drawn):
        with pytest.raises(InputError, match="far enough"):
            source.views(case, orbit(2, size_px=64), 5)
    assert asked == [{"seed": 5, "drawn": False}, {"seed": 5, "drawn": True}]

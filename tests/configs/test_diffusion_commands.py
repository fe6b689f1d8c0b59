"""The diffusion model from the command line: options, pictures in place of ours, weights, and the release's files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from dp360.configs import cli, convert
from dp360.configs.console import Display
from dp360.configs.convert import ConvertCommand
from dp360.configs.device import choose_device
from dp360.configs.diffusion import open_weights, sampling_of
from dp360.configs.example import write_example_portrait
from dp360.configs.options import DiffusionOptions, HeadOptions
from dp360.configs.portrait_trainer import views_key
from dp360.configs.recipe import head_recipe
from dp360.generation import InputError, look_at_origin
from dp360.generation.cameras import panohead_label_from_cameras
from dp360.generation.dataset.view_dataset import read_dataset
from dp360.generation.diffusion import cost
from dp360.generation.diffusion.architectures import OFFICIAL, Architecture
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline
from dp360.generation.diffusion.release import conversion as release_convert
from dp360.generation.diffusion.release.folder import release_ring
from dp360.generation.diffusion.sampling import Sampling
from dp360.generation.progress import silent
from dp360.reconstruction import splat_benchmark

QUICK = ("--views", "4", "--rings", "level", "--size-px", "64", "--diffusion.steps", "1", "--device", "cpu")
MODEL = ("--generator", "diffportrait360", "--weights")


def toy() -> Architecture:
    """The official architecture with one narrow layer per level."""
    small = {"block_out_channels": (32, 32), "num_heads": (2, 2), "layers_per_block": 1}
    attends = {"attention_levels": (True, False), "context_dim": 16}
    return dataclasses.replace(
        OFFICIAL,
        unet=dataclasses.replace(OFFICIAL.unet, **small, **attends),
        camera_control=dataclasses.replace(OFFICIAL.camera_control, **small, **attends),
        view_consistency=dataclasses.replace(OFFICIAL.view_consistency, **small, clip_length=4, max_clip_length=6),
        autoencoder_options={**OFFICIAL.autoencoder_options, "block_out_channels": (32,) * 4, "layers_per_block": 1},
        context_tokens=3,
    )


@pytest.fixture(scope="module")
def toy_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "toy"
    torch.manual_seed(0)
    DiffPortrait360Pipeline(**toy().components()).save_pretrained(folder)
    return folder


def write_pictures(folder: Path, count: int, size: int = 64) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (size, size), (i, 100, 100)).save(folder / f"{i:07d}.png")
    return folder


def write_film(path: Path, frames: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *frames.shape[2:0:-1], "yuv420p", 20_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one sentence with which the command refuses."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    assert left.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dp360: ")]
    return line


@pytest.fixture
def face(tmp_path) -> Path:
    write_example_portrait(tmp_path / "face.png")
    return tmp_path / "face.png"


def test_portrait_to_drawn_views(toy_weights, face, tmp_path):
    ring = write_pictures(tmp_path / "ring", 4)  # instead of the generic head, which takes a while to build
    words = ["views", "--image", face, "--output", tmp_path / "out", *MODEL, toy_weights, *QUICK]
    words += ["--condition-views", ring]
    assert cli.main([str(word) for word in words]) == 0
    views = read_dataset(tmp_path / "out" / "dataset")
    assert len(views) == 5 and views.names[0] == "portrait" and views.rgba.shape[1:] == (64, 64, 4)
    assert views.provenance.generator == "diffportrait360"
    assert views.provenance.weights.startswith("toy (sha256 ") and "head_model-1" in views.provenance.weights
    record = json.loads((tmp_path / "out" / "dp360.json").read_text())
    assert record["command"]["diffusion"]["steps"] == 1 and record["command"]["weights"] == str(toy_weights)
    assert record["timings_s"].keys() >= {"portrait", "weights", "prior", "views"}
    assert record["input_sha256"] == hashlib.sha256(face.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--generator", "diffportrait360"), "--generator diffportrait360 needs --weights: a folder made by dp360"),
        (("--weights", "somewhere"), "are for the diffusion model; add --generator diffportrait360"),
        (("--diffusion.steps", "8"), "are for the diffusion model; add --generator diffportrait360"),
        ((*MODEL, "w", "--condition-views", "nowhere"), "nowhere: no such file or folder"),
        ((*MODEL, "w", "--diffusion.start-views", "nowhere.mp4"), "nowhere.mp4: no such file or folder"),
        ((*MODEL, "w", "--back-image", "nowhere.png"), "nowhere.png: no such file"),
        ((*MODEL, "w", "--back-image", "three"), "three is a folder; expected a picture file"),
        ((*MODEL, "w", "--condition-views", "three", "--rings", "three"), "three: expected 7 pictures, one per view"),
        ((*MODEL, "w", "--start-views", "face.png"), "face.png: expected a folder of pictures or a film"),
        ((*MODEL, "w", "--diffusion.camera-labels", "nowhere.json"), "Cannot read nowhere.json"),
    ],
)
def test_contradictions_and_bad_pictures_are_refused_before_any_work(
    face, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "three", 3)
    before = sorted(tmp_path.rglob("*"))
    line = refusal(capsys, "views", "--image", face, "--output", "out", "--views", "4", *words)
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("no/where/near",), "is neither a folder nor a hub id"),
        (("three",), "three holds no weights of this model: expected a pipeline folder"),
        (("toy", "--size-px", "72"), "multiple of 16; take --size-px 64"),
        (("toy", "--diffusion.dtype", "float16"), "Cannot use --diffusion.dtype float16 on a CPU"),
        (("toy", "--diffusion.guidance-rescale", "2"), "expected guidance_rescale from 0 to 1, got 2"),
        (("broken",), "broken cannot be loaded"),
    ],
)
def test_weights_and_numbers_that_cannot_be_used(toy_weights, face, tmp_path, monkeypatch, capsys, words, message):
    from dp360.configs import portrait_to_head

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(portrait_to_head, "aligned_portrait", lambda *args, **kwargs: _Notices())
    write_pictures(tmp_path / "three", 3)
    (tmp_path / "toy").symlink_to(toy_weights)
    (tmp_path / "broken" / "unet").mkdir(parents=True)
    (tmp_path / "broken" / "model_index.json").write_text((toy_weights / "model_index.json").read_text())
    line = refusal(capsys, "views", "--image", face, "--output", "out", *MODEL[:2], *QUICK, "--weights", *words)
    assert message in line and not (tmp_path / "out").exists()


class _Notices:
    notices: tuple[str, ...] = ()


def test_weights_are_loaded_as_asked(toy_weights):
    options = DiffusionOptions(dtype="bfloat16", offload=True, vae_tiling=True)
    pipeline, name = open_weights(str(toy_weights), options, "cpu")
    assert pipeline.unet.dtype == torch.bfloat16 and pipeline.vae.use_tiling and name.startswith("toy (sha256 ")
    assert open_weights(str(toy_weights), DiffusionOptions(), "cpu")[0].unet.dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_gpu_that_is_not_there():
    assert choose_device("auto") == "cpu"
    with pytest.raises(InputError, match="no GPU that CUDA can use was found"):
        choose_device("cuda")


def test_options_reach_the_sampler():
    given = "steps 9,schedule official,guidance-scale 2,guidance-interval 0.1 0.8,eta 0.2,window-stride 3"
    words = [word for option in given.split(",") for word in f"--diffusion.{option}".split()]
    words += ["--diffusion.clips-per-batch", "2", "--diffusion.clip-length", "6"]
    options = tyro.cli(HeadOptions, args=["--image", "a.png", *words]).diffusion
    expected = Sampling("official", 9, 2.0, 0.0, (0.1, 0.8), 0.2, 1.0, 6, 3, 2)
    assert sampling_of(options) == expected
    assert sampling_of(DiffusionOptions()) == Sampling()


def test_the_diffusion_model_draws_at_512_unless_told_otherwise():
    options = HeadOptions(quality="fast", generator="diffportrait360")
    assert head_recipe(options).size_px == 512
    assert head_recipe(dataclasses.replace(options, size_px=64)).size_px == 64
    assert head_recipe(dataclasses.replace(options, generator="prior")).size_px == 256


def test_the_key_of_views_follows_generator_options_and_files(face, tmp_path):
    def key(options: HeadOptions) -> str:
        return views_key(options, head_recipe(options))

    folder = write_pictures(tmp_path / "ring", 2)
    prior = HeadOptions((face,), generator="prior")
    model = dataclasses.replace(prior, generator="diffportrait360", weights=str(folder))
    steps = dataclasses.replace(model, diffusion=DiffusionOptions(steps=3))
    given = dataclasses.replace(model, diffusion=DiffusionOptions(condition_views=folder))
    level = dataclasses.replace(prior, rings="level")
    keys = [key(options) for options in (prior, model, steps, given, level)]
    assert len(set(keys)) == 5 and key(dataclasses.replace(model)) == keys[1]
    Image.new("RGB", (65, 65)).save(folder / "0000002.png")
    assert key(model) != keys[1] and key(given) != keys[3] and key(prior) == keys[0]


def test_ns_train_refuses_a_diffusion_model_without_weights(face, tmp_path, capsys):
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

    words = ["dp360-splat", "--image", face, "--output-dir", tmp_path / "out", "--generator", "diffportrait360"]
    config = tyro.cli(AnnotatedBaseConfigUnion, args=[str(word) for word in words])
    with pytest.raises(SystemExit):
        config.set_timestamp()
    assert "--generator diffportrait360 needs --weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_which_checkpoint_is_which_is_read_from_the_files(tmp_path, monkeypatch):
    asked = {}

    class Report:
        def to_text(self) -> str:
            return "done"

    def convert_release(output, **options):
        asked.update(options, output=output)
        return Report()

    monkeypatch.setattr(release_convert, "convert_release", convert_release)
    monkeypatch.setattr(release_convert, "release_role", lambda path: "back" if "back" in path.name else "views")
    views, back, display = Path("model_state.th"), Path("back_head.th"), Display(silent, print)
    for command in (
        ConvertCommand(official=views, output=tmp_path, back_head=back, dtype="bfloat16"),
        ConvertCommand(official=back, output=tmp_path, back_head=views, dtype="bfloat16"),
    ):
        assert convert.run(command, display) == "done"
        assert (asked["views_model"], asked["back_model"], asked["dtype"]) == (views, back, torch.bfloat16)
    convert.run(ConvertCommand(official=back, output=tmp_path), display)
    assert (asked["views_model"], asked["back_model"]) == (None, back)
    with pytest.raises(InputError, match="both hold the 360 model; give the 360 model with --official"):
        convert.run(ConvertCommand(official=views, output=tmp_path, back_head=Path("again.th")), display)


def test_convert_names_a_file_that_is_no_checkpoint(tmp_path, capsys):
    (tmp_path / "model.th").write_text("no weights")
    line = refusal(capsys, "convert", "--official", tmp_path / "model.th", "--output", tmp_path / "out")
    assert "model.th" in line and not (tmp_path / "out").exists()
    assert "nowhere.th" in refusal(capsys, "convert", "--official", "nowhere.th", "--output", tmp_path / "out")


@pytest.fixture
def release(tmp_path) -> Path:
    """The release's folder with a finished result: a dark ball over white from eight sides."""
    size = 128
    y, x = np.mgrid[:size, :size] + 0.5
    inside = (x - 64) ** 2 + (y - 64) ** 2 < 44**2
    frame = np.where(inside[..., None], (90, 60, 50), 255).astype(np.uint8)
    write_film(tmp_path / "sample_data" / "result" / "ada.png.mp4", np.repeat(frame[None], 8, axis=0))
    (tmp_path / "sample_data" / "input_image").mkdir()
    rgba = np.dstack([frame, inside.astype(np.uint8) * 255])
    Image.fromarray(rgba).save(tmp_path / "sample_data" / "input_image" / "ada.png")
    label = panohead_label_from_cameras(look_at_origin([0.2], [0.0]))[0]
    labels = json.dumps({"labels": [["ada.png", label.tolist()]]})
    (tmp_path / "sample_data" / "input_image" / "dataset.json").write_text(labels)
    return tmp_path / "sample_data"


def test_a_result_of_the_release_becomes_a_data_set(release, tmp_path, capsys):
    words = ["import-release", str(release), "--name", "ada", "--output", str(tmp_path / "data")]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'data'}\n"
    views = read_dataset(tmp_path / "data")
    assert views.names == ("portrait", *(f"view_{i:03d}" for i in range(8)))
    expected = release_ring(8, size_px=128)
    assert torch.allclose(views.cameras.T_world_camera[1:], expected.T_world_camera, atol=1e-9)
    assert float(views.cameras.azimuth_rad[0]) == pytest.approx(0.2)
    assert views.confidence[0] == 1 and float(views.confidence[1:].max()) < 1
    radius = views.surface.points_world.norm(dim=-1).median()
    assert float(radius) == pytest.approx(2.7 * 44 / 128 / 4.2647, rel=0.1)
    assert views.provenance.settings == {"imported_from": "ada"}
    assert cli.main(words) == 0  # over itself

    (release / "input_image" / "dataset.json").unlink()
    assert cli.main(words) == 0
    assert len(read_dataset(tmp_path / "data")) == 8  # no camera, no portrait


def test_imports_that_cannot_be_done(release, tmp_path, capsys):
    words = ("import-release", release, "--name")
    assert "nothing named 'eve' in it; it has ada" in refusal(capsys, *words, "eve", "--output", tmp_path / "data")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "mine.txt").write_text("mine")
    assert "exists and is no data set" in refusal(capsys, *words, "ada", "--output", tmp_path / "thesis")
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["mine.txt"]


def test_bench_counts_without_weights_or_a_gpu(tmp_path, capsys, monkeypatch):
    asked = {}

    class Report:
        def to_text(self) -> str:
            return "figures"

        def to_json(self) -> str:
            return "{}"

    def cost_report(**options):
        asked.update(options)
        return Report()

    monkeypatch.setattr(cost, "cost_report", cost_report)
    words = ["bench", "diffusion", "--views", "8", "--device", "meta", "--json", str(tmp_path / "cost.json")]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == "figures\n" and json.loads((tmp_path / "cost.json").read_text()) == {}
    del asked["track"]
    assert asked == {"views": 8, "size_px": 512, "steps": 50, "device": "meta"}


def test_bench_splats_writes_what_it_prints(tmp_path, capsys, monkeypatch):
    measure = splat_benchmark.bench_splats
    monkeypatch.setattr(
        splat_benchmark, "bench_splats", lambda views, track: measure(views, counts=(300,), sizes_px=(32,), repeats=1)
    )
    assert cli.main(["bench", "splats", "--json", str(tmp_path / "splats.json")]) == 0
    figures = json.loads((tmp_path / "splats.json").read_text())
    printed = capsys.readouterr().out
    assert figures["steps"][0]["gaussians"] == 300 and f"{figures['steps'][0]['iteration']['cpu']:.1f}" in printed
    assert figures["fit"] is None


def test_bench_refuses_a_size_that_the_networks_cannot_do(capsys):
    line = refusal(capsys, "bench", "diffusion", "--size-px", "500", "--device", "meta")
    assert "multiple of 64, got 500" in line

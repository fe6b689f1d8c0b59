"""`ns-train dp360-splat --image FILE`: a portrait becomes a data set once, bad input one line, a run a set of files."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import tyro
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
from nerfstudio.utils import writer
from PIL import Image

from dp360.configs import methods
from dp360.configs.fitted_head import open_head
from dp360.configs.jobs import job
from dp360.configs.options import FitOptions, HeadOptions, Quality
from dp360.configs.portrait_to_head import PortraitViews
from dp360.configs.portrait_trainer import SplatTrainer, views_key
from dp360.configs.recipe import RECIPES, head_recipe
from dp360.configs.run_folder import DATASET_NAME, PRIOR_MESH_NAME, RECORD_NAME
from dp360.exporters import splat_ply
from dp360.generation.dataset.view_dataset import read_dataset, write_dataset
from dp360.reconstruction.nerfstudio_splat import HeadSplatModel
from dp360.reconstruction.splats import Splats


@pytest.fixture
def portrait(tmp_path) -> Path:
    path = tmp_path / "ada.png"
    Image.new("RGB", (64, 64), (200, 150, 120)).save(path)
    return path


@pytest.fixture
def views_made(monkeypatch, sphere_views) -> list[HeadOptions]:
    """In place of the minutes-long stages: a sphere, and a list of what was asked for."""
    asked = []

    def portrait_to_dataset(options, recipe, folder, record, *, track, notify, open_views=None):
        asked.append(options)
        write_dataset(sphere_views, folder / DATASET_NAME)
        (folder / PRIOR_MESH_NAME).write_bytes(b"glTF")
        files = (folder / PRIOR_MESH_NAME, folder / DATASET_NAME)
        return PortraitViews(sphere_views, torch.zeros(512, 512, 3, dtype=torch.uint8), files)

    monkeypatch.setattr(job, "portrait_to_dataset", portrait_to_dataset)
    return asked


@pytest.fixture(scope="session")
def sphere_views():
    """Four views of a flat disc with a few points: enough for a fit of some steps."""
    from dp360.generation import PointCloud, Provenance, ViewSet, orbit

    cameras = orbit(4, size_px=24)
    rgba = torch.zeros(4, 24, 24, 4, dtype=torch.uint8)
    rgba[:, 6:18, 6:18] = torch.tensor([200, 150, 120, 255], dtype=torch.uint8)
    normals = torch.nn.functional.normalize(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    surface = PointCloud(0.15 * normals, normals, torch.full((60, 3), 0.6))
    names = ("portrait", "ring_001", "ring_002", "ring_003")
    return ViewSet(rgba, cameras, torch.ones(4), names, surface, Provenance("test", "none", 0, "00", "0"))


def parse(*words: str | Path):
    """The configuration that ns-train would get from its command line."""
    config = copy.deepcopy(tyro.cli(AnnotatedBaseConfigUnion, args=[str(word) for word in words]))
    config.logging.local_writer.enable = False
    return config


def prepare(config):
    """What ns-train's main does before it trains."""
    if config.data:
        config.pipeline.datamanager.data = config.data
    config.set_timestamp()
    config.save_config()
    return config


@pytest.mark.parametrize("method", ["dp360-splat", "dp360-splat-fast", "dp360-splat-big", "dp360-nerf"])
def test_options_are_in_the_help(method, capsys):
    with pytest.raises(SystemExit):
        parse(method, "--help")
    text = capsys.readouterr().out
    for option in ("image", "quality", "views", "size-px", "fit.max-count", "seed", "device", "face-index", "crop"):
        assert f"--{option} " in text
    for option in (
        "no-face",
        "no-glasses",
        "rings",
        "generator",
        "weights",
        "diffusion.steps",
        "verbose",
        "max-num-iterations",
    ):
        assert f"--{option} " in text
    assert "data-from-run" not in text and "run-folder" not in text


def test_methods_are_found_under_their_names():
    assert methods.dp360_splat.config.method_name == "dp360-splat"
    assert methods.dp360_nerf.config.method_name == "dp360-nerf"
    assert methods.dp360_splat.description and methods.dp360_nerf.description


def test_sizes_of_the_splat_method_are_the_dial(tmp_path, views_made, portrait):
    """A method of another size is the same method with the dial elsewhere, and they share nothing mutable."""
    sizes: dict[str, Quality] = {"dp360-splat-fast": "fast", "dp360-splat": "standard", "dp360-splat-big": "high"}
    for method, quality in sizes.items():
        by_name = prepare(parse(method, "--image", portrait, "--output-dir", tmp_path / "a"))
        by_dial = prepare(
            parse("dp360-splat", "--image", portrait, "--quality", quality, "--output-dir", tmp_path / "b")
        )
        assert by_name.pipeline.model.fit == by_dial.pipeline.model.fit == RECIPES[quality].fit
        assert by_name.max_num_iterations == RECIPES[quality].fit.iterations
    made = (methods.dp360_splat_fast, methods.dp360_splat, methods.dp360_splat_big)
    assert len({id(m.config.pipeline.datamanager) for m in made}) == len({m.description for m in made}) == 3


def test_numbers_of_the_dial_have_one_name(tmp_path, views_made, portrait):
    words = ("dp360-splat", "--image", portrait, "--output-dir", tmp_path)
    config = prepare(parse(*words, "--fit.max-count", "20000", "--views", "8", "--max-num-iterations", "7"))
    fit = config.pipeline.model.fit
    assert (fit.densify.max_count, fit.start_count, fit.iterations) == (20_000, 20_000, 7)
    assert views_made[0].views == 8
    fit = prepare(parse(*words, "--pipeline.model.fit.losses.ssim-weight", "0.3")).pipeline.model.fit
    assert fit.losses.ssim_weight == 0.3  # what is no number of the dial stays settable
    for wrong in (
        ("--pipeline.model.fit.densify.max-count", "7000"),
        ("--fit.iterations", "5", "--max-num-iterations", "6"),
        ("--seed", "1", "--machine.seed", "2"),
        ("--image", portrait),
    ):
        with pytest.raises(SystemExit):
            prepare(parse(*words, *wrong))
    with pytest.raises(SystemExit):
        prepare(parse("dp360-nerf", "--image", portrait, "--output-dir", tmp_path, "--fit.max-count", "9"))


def test_the_viewer_is_for_this_machine_alone():
    for method in (methods.dp360_splat, methods.dp360_splat_fast, methods.dp360_splat_big, methods.dp360_nerf):
        assert method.config.viewer.websocket_host == "127.0.0.1"


def test_image_becomes_a_data_set_once(portrait, views_made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("dp360-splat", "--image", "ada.png", "--quality", "fast", "--seed", "5", "--crop", "wide")
    config = prepare(parse(*words))
    assert config.data.is_absolute() and config.data.is_relative_to(tmp_path / "outputs" / "ada" / "dp360-data")
    assert config.pipeline.datamanager.data == config.data
    assert config.get_base_dir().is_relative_to(tmp_path / "outputs" / "ada" / "dp360-splat")
    assert config.max_num_iterations == config.pipeline.model.fit.iterations == RECIPES["fast"].fit.iterations
    assert config.machine.device_type == ("cuda" if torch.cuda.is_available() else "cpu")
    (options,) = views_made
    assert (options.seed, options.crop, options.quality) == (5, "wide", "fast")
    assert len(read_dataset(config.data)) == 4

    assert prepare(parse(*words)).data == config.data
    assert len(views_made) == 1  # found again
    assert prepare(parse(*words[:-2])).data != config.data
    (config.data.parent / RECORD_NAME).unlink()  # a run that was killed on the way
    assert prepare(parse(*words)).data == config.data
    assert len(views_made) == 3


def test_what_dp360_fit_reads_ns_train_reads(sphere_views, tmp_path, capsys):
    """A folder of dp360 views, and a stranger's data set as only our reader takes it."""
    words = ("dp360-splat", "--output-dir", tmp_path / "out", "--data")
    write_dataset(sphere_views, tmp_path / "views" / DATASET_NAME)
    assert prepare(parse(*words, tmp_path / "views")).data == tmp_path / "views" / DATASET_NAME

    theirs = tmp_path / "their views"
    write_dataset(sphere_views, theirs)
    meta = json.loads((theirs / "transforms.json").read_text())
    for key in ("dp360", "fl_y", "cx", "cy", "w", "h"):
        del meta[key]
    meta["camera_angle_x"] = 2 * math.atan(12 / meta.pop("fl_x"))
    for frame in meta["frames"]:
        name = Path(frame["file_path"]).name
        frame.update(file_path=f"images\\{name}", mask_path=f"masks\\{name}")
        Image.open(theirs / "images" / name).convert("RGB").save(theirs / "images" / name)
    (theirs / "transforms.json").write_text(json.dumps(meta), encoding="utf-8-sig")
    config = prepare(parse(*words, theirs))
    assert config.data.is_relative_to(tmp_path / "out" / "their views")
    made, read = read_dataset(config.data), read_dataset(theirs)
    assert torch.equal(made.rgba, read.rgba) and torch.equal(made.cameras.focal_px, read.cameras.focal_px)
    assert not made.provenance.is_known
    parser = config.pipeline.datamanager.dataparser
    parser.data = config.data
    assert len(parser.setup().get_dataparser_outputs("train").image_filenames) == 4
    before = (config.data / "transforms.json").stat().st_mtime_ns
    assert prepare(parse(*words, theirs / "transforms.json")).data.name == DATASET_NAME
    assert (config.data / "transforms.json").stat().st_mtime_ns == before


def test_a_saved_configuration_prepares_again(portrait, views_made, tmp_path):
    import yaml

    config = prepare(parse("dp360-splat", "--image", portrait, "--output-dir", tmp_path / "out"))
    saved = yaml.load((config.get_base_dir() / "config.yml").read_text(), Loader=yaml.Loader)
    portrait.unlink()
    assert prepare(saved).data == config.data


def test_the_key_depends_on_what_the_views_depend_on(portrait, tmp_path):
    def key(image=portrait, **changes):
        options = HeadOptions(image=(image,), **{"generator": "prior", **changes})
        return views_key(options, head_recipe(options))

    copied = tmp_path / "other name.png"
    copied.write_bytes(portrait.read_bytes())
    same = [key(image=copied), key(views=32, size_px=512), key(fit=FitOptions(iterations=3)), key(verbose=True)]
    assert {key(), *same, key(device="cpu")} == {key()}
    assert key(generator="compact", device="cpu") != key(generator="compact", device="cuda")
    different = [key(seed=1), key(face_index=0), key(crop="wide"), key(no_face=True), key(quality="fast"), key(views=9)]
    different.append(key(no_glasses=True))
    copied.write_bytes(portrait.read_bytes() + b"\0")
    assert len({key(), key(image=copied), *different}) == 9


def test_the_key_covers_every_file_of_our_weights(portrait, tmp_path, monkeypatch):
    """Also configurations: a scheduler's .json decides as much about a picture as the numbers beside it."""
    from importlib import resources

    options = HeadOptions(image=(portrait,), generator="compact")
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(resources, "files", lambda package: tmp_path / "weights")
    seen = set()
    for name in ("unet.safetensors", "scheduler_config.json", "head.npz", "code.py"):
        (tmp_path / "weights" / name).write_bytes(b"1")
        seen.add(views_key(options, head_recipe(options)))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Give a portrait with --image FILE, or a data set with --data DIR"),
        (("--data", "nowhere"), "nowhere/transforms.json does not exist"),
        (("--image", "nowhere.png"), "Cannot read the portrait"),
        (("--image", "ada.png", "--data", "."), "not both"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(words, message, portrait, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = parse("dp360-splat", *words)
    with pytest.raises(SystemExit) as caught:
        prepare(config)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "outputs").exists()


def test_the_end_of_a_fit_leaves_files_and_says_so(portrait, views_made, tmp_path, capsys, quick_mesh):
    trimmed = ("--max-num-iterations", "4", "--vis", "tensorboard", "--output-dir", tmp_path / "out")
    trainer = train(prepare(parse("dp360-splat", "--image", portrait, *trimmed)))
    names = ["head.ply", "head.glb", "contact_sheet.png", "dp360.json"]
    for name in names:
        assert (trainer.base_dir / name).stat().st_size > 0
    lines = capsys.readouterr().out.splitlines()[-6:]
    assert [line.split("/")[-1] for line in lines[:4]] == names
    config = trainer.base_dir / "config.yml"
    assert lines[4] == f"look at it:  ns-viewer --load-config {config}"
    assert lines[5] == f"export more: dp360 export --load-config {config} --output head.spz head.html turntable.mp4"
    written = splat_ply.decode((trainer.base_dir / "head.ply").read_bytes())[
        0
    ]  # as trained, not read from a checkpoint
    torch.testing.assert_close(written.means_world, trained(trainer).means_world)


def train(config) -> SplatTrainer:
    trainer = config.setup()
    assert isinstance(trainer, SplatTrainer)
    trainer.setup()
    trainer.train()
    return trainer


def trained(trainer: SplatTrainer) -> Splats:
    model = trainer.pipeline.model
    assert isinstance(model, HeadSplatModel)
    return model.splats


def test_a_moved_run_is_found_again(sphere_views, views_made, portrait, tmp_path, quick_mesh):
    """With its data set beside it as it was; and the splats alone, wherever the run folder has gone."""
    words = ("--max-num-iterations", "3", "--vis", "tensorboard", "--output-dir", tmp_path / "out")
    trainer = train(prepare(parse("dp360-splat", "--image", portrait, *words)))
    means = trained(trainer).means_world
    writer.EVENT_WRITERS.clear()  # nerfstudio's, of the whole process: they would go on writing into the folder
    relative = (trainer.base_dir / "config.yml").relative_to(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    head = open_head(tmp_path / "moved" / relative, None)
    assert head.splats is not None and torch.equal(head.splats.means_world, means)
    assert head.views is not None and torch.equal(head.views.rgba, sphere_views.rgba)
    assert head.provenance == sphere_views.provenance

    (tmp_path / "moved" / relative).parent.rename(tmp_path / "alone")
    head = open_head(tmp_path / "alone" / "config.yml", None)
    assert head.splats is not None and torch.equal(head.splats.means_world, means)
    assert head.data is None and head.provenance == sphere_views.provenance  # its head.ply says so


def _ns_train(*words: str | Path) -> list[str]:
    code = "from nerfstudio.scripts.train import entrypoint; entrypoint()"
    return [sys.executable, "-c", code, *map(str, words)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_ns_train_leaves_a_checkpoint(sphere_views, tmp_path, number):
    write_dataset(sphere_views, tmp_path / "data")
    words = ("dp360-splat", "--data", tmp_path / "data", "--max-num-iterations", "1000000", "--output-dir", tmp_path)
    process = subprocess.Popen(_ns_train(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    seen = ""
    while "0.01%" not in seen:  # step 50, rounded
        seen += process.stdout.readline()
        assert process.poll() is None, seen
    start = time.monotonic()
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert process.returncode == 128 + number, rest
    assert "Traceback" not in rest
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert torch.load(checkpoint, weights_only=True)["step"] >= 50


@pytest.mark.slow
def test_stock_tools_read_a_run(sphere_views, tmp_path):
    """ns-train, then ns-eval, ns-render, ns-export and ns-viewer on what it left, each as people start it, offline."""
    write_dataset(sphere_views, tmp_path / "data")
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}

    def tool(name: str, *words: str | Path) -> list[str]:
        modules = {"ns-eval": "eval", "ns-render": "render", "ns-export": "exporter", "ns-viewer": "viewer.run_viewer"}
        code = f"from nerfstudio.scripts.{modules[name]} import entrypoint; entrypoint()"
        return [sys.executable, "-c", code, *map(str, words)]

    def run(words: list[str]) -> None:
        done = subprocess.run(words, check=False, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    run(_ns_train("dp360-splat", "--data", tmp_path / "data", "--max-num-iterations", "30", "--output-dir", tmp_path))
    (config,) = tmp_path.rglob("config.yml")
    load = ("--load-config", config)
    run(tool("ns-eval", *load, "--output-path", tmp_path / "eval.json"))
    assert "psnr" in (tmp_path / "eval.json").read_text()
    outputs = ("--rendered-output-names", "rgb", "depth", "accumulation")
    run(tool("ns-render", "dataset", *load, "--split", "train", "--output-path", tmp_path / "renders", *outputs))
    assert len(list((tmp_path / "renders").rglob("*.jpg"))) == 3 * 4
    run(tool("ns-export", "gaussian-splat", *load, "--output-dir", tmp_path / "ply"))
    assert (tmp_path / "ply" / "splat.ply").read_bytes().startswith(b"ply")
    run(tool("ns-export", "cameras", *load, "--output-dir", tmp_path / "cameras"))
    assert len(json.loads((tmp_path / "cameras" / "transforms_train.json").read_text())) == len(sphere_views)
    for name in ("pointcloud", "tsdf"):  # follow single rays
        words = tool("ns-export", name, *load, "--output-dir", tmp_path / name)
        done = subprocess.run(words, check=False, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode and "use `dp360 export --load-config" in done.stderr and "Traceback" not in done.stderr
    look = {"camera_to_world": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2.7, 0, 0, 0, 1], "fov": 20, "aspect": 1}
    path = {
        "camera_type": "perspective",
        "render_height": 64,
        "render_width": 64,
        "seconds": 1,
        "camera_path": [look] * 2,
    }
    (tmp_path / "path.json").write_text(json.dumps({**path, "camera_path": [look] * 2}))
    film = ("--camera-path-filename", tmp_path / "path.json", "--output-path", tmp_path / "film.mp4")
    run(tool("ns-render", "camera-path", *load, *film))
    assert (tmp_path / "film.mp4").stat().st_size > 500

    import socket
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    viewer = subprocess.Popen(
        tool("ns-viewer", *load, "--viewer.websocket-port", str(port)), stdout=subprocess.DEVNULL, env=environment
    )
    try:
        for _ in range(120):
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).read()
                break
            except OSError:
                assert viewer.poll() is None
                time.sleep(1)
        assert b"<html" in page.lower()
    finally:
        viewer.kill()
        viewer.wait()

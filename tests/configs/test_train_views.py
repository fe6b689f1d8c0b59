"""`dp360 train`: the stages from the command line, from heads on disk to a pipeline that draws."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dp360.configs import cli
from dp360.configs.train import TrainAppearanceCommand, TrainConsistencyCommand
from dp360.configs.train_views import _sources, stage_config
from dp360.generation import PointCloud, Provenance, ViewSet, look_at_origin
from dp360.generation.dataset.view_dataset import write_dataset
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline

SIZE, VIEWS = 64, 12


def written_head(folder: Path, seed: int) -> Path:
    """A ball whose colour goes round, with a prior that has one colour."""
    rng = np.random.default_rng(seed)
    azimuth = torch.arange(VIEWS, dtype=torch.float64) * (2 * math.pi / VIEWS)
    cameras = look_at_origin(azimuth, torch.zeros(VIEWS), size_px=SIZE)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / (SIZE / 2) - 1
    inside = x**2 + y**2 < 0.7**2
    rgba = np.zeros((VIEWS, SIZE, SIZE, 4), np.uint8)
    rgba[..., 3] = 255 * inside
    for view in range(VIEWS):
        rgba[view, ..., :3] = (127 + 100 * np.cos(x * 2 + float(azimuth[view]))[..., None] * rng.random(3)).clip(0, 255)
    surface = PointCloud(torch.rand(20, 3), torch.eye(3)[torch.arange(20) % 3], torch.rand(20, 3))
    names = tuple(f"view_{view:03d}" for view in range(VIEWS))
    origin = Provenance("ball", "none", 0, "00", "0")
    write_dataset(ViewSet(torch.from_numpy(rgba), cameras, torch.ones(VIEWS), names, surface, origin), folder)
    prior = rgba.copy()
    prior[..., :3] = 127
    pictures = {
        "control": prior,
        "control_validity": prior[..., 3] // 2,
        "control_normals": np.where(inside[..., None], np.array([127, 127, 255], np.uint8), 0)[None].repeat(VIEWS, 0),
    }
    for kind, content in pictures.items():
        (folder / kind).mkdir()
        for name, picture in zip(names, content):
            Image.fromarray(picture.astype(np.uint8)).save(folder / kind / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heads")
    for number in range(2):
        written_head(root / f"ball_{number}", number)
    return root


def test_stages_from_heads_on_disk_to_a_pipeline_that_draws(heads, tmp_path, capsys):
    common = ["--data", str(heads), "--validation", str(heads), "--device", "cpu", "--size-px", str(SIZE)]
    autoencoder, joint, last = tmp_path / "ae", tmp_path / "r", tmp_path / "v"
    short = ["--steps", "2", "--batch-size", "1", "--save-every", "2"]
    words = ["train", "autoencoder", *common, *short, "--output", str(autoencoder)]
    assert cli.main(words) == 0
    words = ["train", "appearance", *common, *short, "--start", str(autoencoder / "pipeline"), "--output", str(joint)]
    assert cli.main(words) == 0
    words = ["train", "consistency", *common, *short, "--start", str(joint / "pipeline"), "--output", str(last)]
    assert cli.main([*words, "--clip-length", "4"]) == 0
    said = capsys.readouterr()
    assert "psnr_head" in said.out + said.err
    pipeline = DiffPortrait360Pipeline.from_pretrained(last / "pipeline", local_files_only=True)
    assert pipeline.config["picture_px"] == SIZE and pipeline.config["start_shortcut"]
    before = DiffPortrait360Pipeline.from_pretrained(joint / "pipeline", local_files_only=True)
    same = [torch.equal(a, b) for a, b in zip(pipeline.unet.parameters(), before.unet.parameters())]
    other = [torch.equal(a, b) for a, b in zip(pipeline.view_consistency.parameters(),
                                               before.view_consistency.parameters())]  # fmt: skip
    assert all(same) and not all(other)
    lines = [json.loads(line) for line in (joint / "journal.jsonl").open()]
    assert [line["step"] for line in lines] == [1, 2, 2] and "validation/psnr_head" in lines[-1]
    assert len(list(joint.glob("sheet_*.jpg"))) == 1


def test_options_change_the_recipe(tmp_path):
    command = TrainAppearanceCommand(
        data=(tmp_path,), output=tmp_path, steps=7, batch_size=3, accumulation=2, learning_rate=0.5, size_px=96,
        control="rays", drop_conditions=0.25, dual_share=0.5, back_share=0.0, device="cpu", seed=4,
    )  # fmt: skip
    config = stage_config(command)
    assert (config.loop.steps, config.loop.batch_size, config.loop.accumulation) == (7, 3, 2)
    assert (config.loop.learning_rate, config.loop.seed, config.loop.device) == (0.5, 4, "cpu")
    assert (config.clips.size_px, config.clips.control, config.clips.order) == (96, "rays", "random")
    assert (config.augment.drop_references, config.augment.drop_control) == (0.25, 0.0)
    assert (config.objective.dual_share, config.back_share) == (0.5, 0.0)
    other = stage_config(TrainConsistencyCommand(data=(tmp_path,), output=tmp_path, order="random", device="cpu"))
    assert (other.clips.order, other.stage, other.loop.steps) == ("random", "consistency", 10_000)


def test_head_assets_are_composed_on_the_fly(heads, tmp_path):
    (tmp_path / "makehuman").mkdir()
    command = TrainAppearanceCommand(data=(tmp_path,), output=tmp_path, device="cpu", cache_heads=2)
    source, validation = _sources(command)
    assert source.name.startswith("composed heads") and len(source) > 10_000 and validation is None
    mixed, _ = _sources(TrainAppearanceCommand(data=(tmp_path, heads), output=tmp_path, device="cpu"))
    assert len(mixed) == len(source) + 2


@pytest.mark.parametrize(
    "words, message",
    [
        (["appearance", "--start", "nowhere"], "No folder at nowhere: --start expects the pipeline folder"),
        (["appearance", "--start", "."], "The pipeline in . cannot be loaded"),
        (["autoencoder", "--size-px", "100"], "expected sizes that are multiples of 8"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(heads, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", *words, "--data", str(heads), "--output", str(tmp_path / "out"), "--device", "cpu"])
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())

"""`dp360 train field` and `dp360 eval fields` on one small file of fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp360.configs import train_field
from dp360.configs.cli import main
from dp360.configs.console import Display
from dp360.configs.evaluate import EvalCommand, EvalFieldsCommand
from dp360.configs.evaluate import run as run_eval
from dp360.configs.train import TrainFieldCommand
from dp360.generation import InputError
from dp360.generation.prior.field.field_autoencoder import FIELD_AUTOENCODER, FieldAutoencoderConfig
from dp360.generation.prior.field.field_denoiser import FIELD_DENOISER, FieldDenoiserConfig
from dp360.generation.prior.field.field_grain import FIELD_GRAIN, FieldGrainConfig
from dp360.generation.prior.field.head_field import CHANNELS, HeadField
from dp360.generation.prior.field.mean_network import FIELD_MEAN, FieldMeanConfig
from dp360.generation.progress import silent
from dp360.generation.synthetic.fields import field_files
from dp360.generation.synthetic.fields.observation import observe
from dp360.generation.training.field_autoencoder_training import train_field_autoencoder
from dp360.generation.training.field_diffusion_training import train_field_denoiser
from dp360.generation.training.field_grain_training import train_field_grain
from dp360.generation.training.field_training import train_field_mean


def head(seed: int) -> HeadField:
    """Any field that keeps the laws and looks smooth."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(len(CHANNELS), 1, 1)) * np.sin(np.linspace(0, 3, 56))[:, None] + np.zeros(64)
    skull = np.full((56, 64), 0.15, np.float32)
    return HeadField.unpack(waves.astype(np.float32), skull, np.array([0.2, 0.5, np.nan, 0.1], np.float32))


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """A function: a folder with a file of two heads for each of some splits."""

    def make(*splits: str) -> Path:
        for split in splits:
            heads = [head(k) for k in range(2)]
            seen = [observe(field, np.random.default_rng(k)) for k, field in enumerate(heads)]
            columns = {"number": np.arange(2)}
            for prefix, records in (("true", heads), ("seen", seen)):
                kept = [field_files._stored(record) for record in records]
                for name in kept[0]:
                    values = np.stack([row[name] for row in kept])
                    columns[f"{prefix}/{name}"] = values[:, None] if prefix == "seen" else values
            np.savez(tmp_path / f"fields_{split}_0_1_000000_2.npz", **columns)  # type: ignore[arg-type]
        return tmp_path

    return make


@pytest.fixture
def train_stage(make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function: weights of a stage's tiny network after two steps; what was told goes to a list."""
    stages = {
        "train_field_mean": (train_field_mean, FieldMeanConfig(channels=(8, 8, 8), embedding=8)),
        "train_field_autoencoder": (
            train_field_autoencoder,
            FieldAutoencoderConfig(fine=8, coarse=8, blocks=1, full=8),
        ),
        "train_field_denoiser": (train_field_denoiser, FieldDenoiserConfig(width=16, blocks=1, heads=2)),
        "train_field_grain": (train_field_grain, FieldGrainConfig(width=8, blocks=1, embedding=8)),
    }
    for name, (train, small) in stages.items():

        def tiny(*given, train=train, small=small, **told):
            return train(*given, small, **told)

        monkeypatch.setattr(train_field, name, tiny)
    folder = make_folder("train", "validation", "held_out")

    def run(stage: Any, notices: list[str], **options: Any) -> Path:
        command = TrainFieldCommand(
            folder, folder / f"run_{stage}", stage, **options, steps=2, batch_size=1, save_every=1, device="cpu"
        )
        return train_field.train_field_stage(command, Display(silent, notices.append))

    return run


@pytest.fixture
def trained(train_stage: Callable[..., Path]) -> tuple[Path, list[str]]:
    """Weights of the mean, and what was told."""
    notices: list[str] = []
    return train_stage("mean", notices), notices


def test_training_leaves_weights_and_tells_figures(trained: tuple[Path, list[str]]) -> None:
    path, notices = trained
    assert path.name == "field_mean.safetensors" and FIELD_MEAN.read(path).network.config.channels == (8, 8, 8)
    assert notices[0] == "2 portraits to learn from, in 1 files"
    assert notices[-1].startswith("step 2: loss ") and "cover IoU" in notices[-1]


def test_figures_stand_beside_the_baseline(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    command = EvalFieldsCommand(tmp_path, trained[0], tmp_path / "eval", portraits=2)
    table, results, _ = run_eval(EvalCommand(command), Display(silent, lambda _: None))
    assert "nearest known cell" in str(table) and "held_out" in str(table)
    figures = json.loads(Path(results).read_text())["fields"]
    assert set(figures) == {"mean", "mean, seen cells not met", "nearest known cell"}
    for changes in ({"weights": tmp_path / "none"}, {"portraits": 0}, {"data": tmp_path / "eval"}):
        with pytest.raises(InputError):
            run_eval(EvalCommand(replace(command, **changes)), Display(silent, lambda _: None))


def test_the_stages_lead_to_fields_that_are_drawn_and_measured(
    trained: tuple[Path, list[str]], train_stage: Callable[..., Path], tmp_path: Path
) -> None:
    notices: list[str] = []
    autoencoder = train_stage("autoencoder", notices)
    assert autoencoder.name == "field_autoencoder.safetensors" and FIELD_AUTOENCODER.read(autoencoder)
    assert notices[-1].startswith("step 2: loss ") and "there and back: materials" in notices[-1]
    diffusion = train_stage("diffusion", notices, mean=trained[0], autoencoder=autoencoder)
    sizes = FIELD_DENOISER.read(diffusion).network.config
    assert sizes.width == 16 and sizes.spread >= 1
    told = " ".join(notices)
    assert "4 portraits and mirror images to learn from, in 1 files" in told and "in validation: " in told
    assert "training, by noise: low" in notices[-2] and "validation, by noise: low" in notices[-2]
    assert f"made {sizes.spread:g} times as large" in notices[-1]
    grain = train_stage("grain", notices, autoencoder=autoencoder)
    assert FIELD_GRAIN.read(grain).network.config.width == 8
    assert notices[-1].startswith("step 2: loss ") and "; validation " in notices[-1]

    command = EvalFieldsCommand(
        tmp_path, trained[0], autoencoder=autoencoder, diffusion=diffusion, grain=grain, output=tmp_path / "eval",
        portraits=1, samples=2,
    )  # fmt: skip
    table, results, _ = run_eval(EvalCommand(command), Display(silent, lambda _: None))
    assert "CRPS" in str(table) and "field_denoiser" in str(table) and "field_grain" in str(table)
    data = json.loads(Path(results).read_text())
    assert {"mean", "truth, there and back", "diffusion", "Gaussian residuals", "true residuals"} <= set(data["fields"])
    assert data["samples"]["diffusion"]["crps_mm"] >= 0 and data["samples"]["diffusion"]["auc"] is None
    for changes in ({"autoencoder": None}, {"autoencoder": trained[0]}, {"diffusion": autoencoder}, {"samples": 1},
                    {"grain": autoencoder}):  # fmt: skip
        with pytest.raises(InputError):
            run_eval(EvalCommand(replace(command, **changes)), Display(silent, lambda _: None))


def test_diffusion_asks_for_the_other_stages(train_stage: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="expected --mean FILE --autoencoder FILE"):
        train_stage("diffusion", [])
    with pytest.raises(InputError, match="expected --autoencoder FILE"):
        train_stage("grain", [])


def test_a_folder_without_fields_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "field", "--data", str(tmp_path), "--output", str(tmp_path / "out")])
    assert "expected what dp360 data fields writes" in " ".join(capsys.readouterr().err.split())

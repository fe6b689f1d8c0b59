"""Slices: what comes out is what went in within float16, damage is named, and training goes on where it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from dp360.generation import InputError
from dp360.generation.training import LoopConfig, train
from dp360.generation.training.loop import NEWEST, Batch, read_checkpoint
from dp360.generation.training.slices import MANIFEST, narrowed, newest_figures, pack_slice, unpack_slice

REPOSITORY = Path(__file__).parents[3]
CONFIG = LoopConfig(steps=300, warmup_steps=10, learning_rate=0.01, save_every=100, ema_decay=0.9)
HALF = 2.0**-11
"""Largest relative error of rounding to float16."""


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))


def batch_of(step: int) -> Batch:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x.sum(1, keepdim=True)}


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    return ((model(batch["x"]) - batch["y"]) ** 2).mean()


def checkpoint_of(folder: Path, weights: int, seed: int = 0, step: int = 40) -> dict:
    """Writes and returns a checkpoint with random weights near which their averages are."""
    rng = torch.Generator().manual_seed(seed)
    model = {"unet.weight": 0.05 * torch.randn(weights, generator=rng), "unet.bias": torch.randn(3, generator=rng)}
    averaged = {name: t + 1e-3 * torch.randn(t.shape, generator=rng) for name, t in model.items()}
    moments = {"state": {0: {"exp_avg": torch.randn(weights, generator=rng)}}, "param_groups": []}
    state = {"step": step, "optimizer_since": 7, "model": model, "averaged": averaged, "optimizer": moments}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / NEWEST)
    return state


def pipeline_of(folder: Path, state: dict) -> dict[str, Tensor]:
    """Writes a pipeline folder: the networks of the checkpoint and a frozen one; returns the frozen one."""
    frozen = {"weight": torch.linspace(-3, 3, 50), "count": torch.tensor([3])}
    learned = {name.removeprefix("unet."): t for name, t in state["averaged"].items()}
    for name, tensors in (("unet", learned), ("vae", frozen)):
        (folder / name).mkdir(parents=True)
        safetensors.torch.save_file(tensors, folder / name / "model.safetensors")
    (folder / "model_index.json").write_text('{"start_shortcut": true}')
    return frozen


@pytest.mark.parametrize("total_bytes", [60_000_000, 400_000], ids=["all", "no-moments"])
def test_unpacked_is_what_was_packed_within_float16(tmp_path: Path, total_bytes: int) -> None:
    state = checkpoint_of(tmp_path / "a", 60_000)
    pack_slice(tmp_path / "a", tmp_path / "slice", total_bytes=total_bytes)
    assert unpack_slice(tmp_path / "slice", tmp_path / "b") == 40
    found = read_checkpoint(tmp_path / "b" / NEWEST)
    assert found is not None and found["step"] == 40
    for name, wanted in state["model"].items():
        assert found["model"][name].dtype == torch.float32
        assert torch.equal(found["model"][name], wanted.half().float())
    for name, wanted in state["averaged"].items():
        of_difference = HALF * (wanted - found["model"][name]).abs()
        assert ((found["averaged"][name] - wanted).abs() <= (HALF * wanted.abs()).maximum(of_difference) + 1e-7).all()
    assert ("optimizer" in found) == (total_bytes > 1_000_000)
    if "optimizer" in found:
        assert found["optimizer_since"] == 7
        assert torch.equal(found["optimizer"]["state"][0]["exp_avg"], state["optimizer"]["state"][0]["exp_avg"])


def test_averages_are_more_exact_as_differences(tmp_path: Path) -> None:
    state = checkpoint_of(tmp_path / "a", 60_000)
    pack_slice(tmp_path / "a", tmp_path / "slice")
    unpack_slice(tmp_path / "slice", tmp_path / "b")
    found = read_checkpoint(tmp_path / "b" / NEWEST)
    assert found is not None
    wanted = state["averaged"]["unet.weight"]
    kept, plain = found["averaged"]["unet.weight"] - wanted, wanted.half().float() - wanted
    assert kept.square().mean().sqrt() < plain.square().mean().sqrt() / 10


def test_where_room_is_short_the_averages_stay_and_become_the_weights(tmp_path: Path) -> None:
    state = checkpoint_of(tmp_path / "a", 60_000)
    pack_slice(tmp_path / "a", tmp_path / "slice", total_bytes=150_000)
    unpack_slice(tmp_path / "slice", tmp_path / "b")
    found = read_checkpoint(tmp_path / "b" / NEWEST)
    assert found is not None and "optimizer" not in found
    for name, wanted in state["averaged"].items():
        assert torch.equal(found["averaged"][name], wanted.half().float())
        assert torch.equal(found["model"][name], found["averaged"][name])


def test_fourteen_million_weights_fit_in_pieces_of_fifteen_megabytes(tmp_path: Path) -> None:
    checkpoint_of(tmp_path / "a", 14_000_000)
    files = pack_slice(tmp_path / "a", tmp_path / "slice")
    assert max(path.stat().st_size for path in files) <= 15_000_000
    assert sum(path.stat().st_size for path in files) <= 60_000_000
    assert len(files) <= 7 and set(files) == set((tmp_path / "slice").iterdir())
    manifest = json.loads((tmp_path / "slice" / MANIFEST).read_text())
    assert manifest["weights"] and not manifest["moments"]


def test_what_does_not_fit_is_an_error_for_people(tmp_path: Path) -> None:
    checkpoint_of(tmp_path / "a", 60_000)
    with pytest.raises(InputError, match="allow more in total"):
        pack_slice(tmp_path / "a", tmp_path / "slice", total_bytes=50_000)
    with pytest.raises(InputError, match="no checkpoint that can be read"):
        pack_slice(tmp_path / "nothing", tmp_path / "slice")


def test_the_pipeline_comes_along_with_the_averages_in_it(tmp_path: Path) -> None:
    state = checkpoint_of(tmp_path / "a", 60_000)
    frozen = pipeline_of(tmp_path / "a" / "pipeline", state)
    files = pack_slice(tmp_path / "a", tmp_path / "slice", total_bytes=400_000)
    assert sum(path.stat().st_size for path in files) < 60_000 * 2 * 3  # what learns is not there a third time
    unpack_slice(tmp_path / "slice", tmp_path / "b")
    folder = tmp_path / "b" / "pipeline"
    assert (folder / "model_index.json").read_text() == '{"start_shortcut": true}'
    found = read_checkpoint(tmp_path / "b" / NEWEST)
    assert found is not None
    unet = safetensors.torch.load_file(folder / "unet" / "model.safetensors")
    assert torch.equal(unet["weight"], found["averaged"]["unet.weight"])
    vae = safetensors.torch.load_file(folder / "vae" / "model.safetensors")
    assert torch.equal(vae["weight"], frozen["weight"].half().float()) and torch.equal(vae["count"], frozen["count"])


def test_a_back_view_with_networks_of_its_own_keeps_both(tmp_path: Path) -> None:
    state = checkpoint_of(tmp_path / "a", 500)
    folder = tmp_path / "a" / "pipeline"
    pipeline_of(folder, state)
    other = {"weight": torch.full((500,), 2.0)}
    safetensors.torch.save_file(other, folder / "unet" / "model.safetensors")  # the checkpoint is the back view's
    (folder / "back_unet").mkdir()
    pack_slice(tmp_path / "a", tmp_path / "slice")
    unpack_slice(tmp_path / "slice", tmp_path / "b")
    found = safetensors.torch.load_file(tmp_path / "b" / "pipeline" / "unet" / "model.safetensors")
    assert torch.equal(found["weight"], other["weight"])


def test_journal_and_sheet_come_along_and_the_figures_are_named(tmp_path: Path) -> None:
    checkpoint_of(tmp_path / "a", 500, step=3000)
    lines = [json.dumps({"step": 1, "validation/psnr": 20.5})]
    lines += [json.dumps({"step": n, "train/loss": 1 / n}) for n in range(1, 3010)]
    (tmp_path / "a" / "journal.jsonl").write_text("\n".join(lines) + '\n{"step": 30')  # a kill behind the checkpoint
    for step in (100, 200):
        (tmp_path / "a" / f"sheet_{step:07d}.jpg").write_bytes(b"jpeg %d" % step)
    pack_slice(tmp_path / "a", tmp_path / "slice")
    manifest = json.loads((tmp_path / "slice" / MANIFEST).read_text())
    figures = {"step": 3000, "validation/psnr": 20.5, "validation/step": 1, "train/loss": 1 / 3000}
    assert manifest["figures"] == figures
    unpack_slice(tmp_path / "slice", tmp_path / "b")
    assert (tmp_path / "b" / "sheet_0000200.jpg").read_bytes() == b"jpeg 200"
    assert not (tmp_path / "b" / "sheet_0000100.jpg").exists()
    journal = (tmp_path / "b" / "journal.jsonl").read_bytes()
    assert newest_figures(journal) == manifest["figures"] and len(journal.splitlines()) < 2100


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "other"])
def test_a_missing_or_damaged_piece_is_named(tmp_path: Path, damage: str) -> None:
    checkpoint_of(tmp_path / "a", 20_000)
    pieces = pack_slice(tmp_path / "a", tmp_path / "slice", piece_bytes=50_000)
    assert len(pieces) > 3
    piece, data = pieces[1], pieces[1].read_bytes()
    match damage:
        case "missing":
            piece.unlink()
        case "cut":
            piece.write_bytes(data[:-1])
        case "flipped":
            piece.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
        case _:
            piece.write_bytes(pieces[0].read_bytes())
    with pytest.raises(InputError, match=piece.name):
        unpack_slice(tmp_path / "slice", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_no_slice_and_a_damaged_manifest_are_errors_for_people(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No slice in"):
        unpack_slice(tmp_path, tmp_path / "b")
    for content, message in (("{", "damaged"), ("[]", "damaged"), ('{"format": 9, "pieces": [], "others": []}', "9|1")):
        (tmp_path / MANIFEST).write_text(content)
        with pytest.raises(InputError, match=message):
            unpack_slice(tmp_path, tmp_path / "b")


def test_a_later_slice_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    checkpoint_of(tmp_path / "a", 20_000, step=10)
    pack_slice(tmp_path / "a", tmp_path / "slice", piece_bytes=20_000)
    checkpoint_of(tmp_path / "a", 20_000, seed=1, step=20)
    files = pack_slice(tmp_path / "a", tmp_path / "slice")
    assert set(files) == set((tmp_path / "slice").iterdir())
    assert unpack_slice(tmp_path / "slice", tmp_path / "b") == 20


def test_numbers_beyond_float16_stay_as_they_are() -> None:
    assert torch.equal(narrowed(torch.tensor([1e6, 0.1])), torch.tensor([1e6, 0.1]))
    assert torch.equal(narrowed(torch.tensor([2, 3])), torch.tensor([2, 3]))


@pytest.mark.parametrize("moments", [True, False], ids=["all", "no-moments"])
def test_training_goes_on_from_a_slice_with_a_falling_loss(tmp_path: Path, moments: bool) -> None:
    losses: dict[int, float] = {}
    rates: dict[int, float] = {}

    def seen(step: int, figures: dict[str, float]) -> None:
        losses[step], rates[step] = figures["loss"], figures["learning_rate"]

    def mean_loss(steps: range) -> float:
        return sum(losses[step] for step in steps) / len(steps)

    first = replace(CONFIG, steps=CONFIG.steps, minutes=None)

    class OutOfTime(Exception):
        pass

    def until_100(number: int) -> Batch:
        if number == 100:
            raise OutOfTime
        return batch_of(number)

    with pytest.raises(OutOfTime):
        train(network(), until_100, loss_of, first, tmp_path / "a", on_step=seen)
    pack_slice(tmp_path / "a", tmp_path / "slice", total_bytes=60_000_000 if moments else 16_000)
    manifest = json.loads((tmp_path / "slice" / MANIFEST).read_text())
    assert manifest["step"] == 100 and manifest["weights"] and manifest["moments"] == moments
    unpack_slice(tmp_path / "slice", tmp_path / "b")
    before, losses = mean_loss(range(91, 101)), {}
    train(network(), batch_of, loss_of, CONFIG, tmp_path / "b", on_step=seen)
    assert list(losses) == list(range(101, 301))
    assert mean_loss(range(101, 111)) < 1.5 * before  # nothing was forgotten
    assert mean_loss(range(291, 301)) < 0.5 * before
    if moments:
        assert rates[101] == CONFIG.learning_rate_at(100)
    else:  # the schedule's rate, reached over another warm-up
        for step in (101, 105, 110, 150):
            warm = min(1.0, (step - 100) / CONFIG.warmup_steps)
            assert rates[step] == pytest.approx(CONFIG.learning_rate_at(step - 1) * warm)


def test_a_kill_during_another_warm_up_changes_nothing(tmp_path: Path) -> None:
    train(network(), batch_of, loss_of, replace(CONFIG, steps=20), tmp_path / "a")
    state = read_checkpoint(tmp_path / "a" / NEWEST)
    assert state is not None
    del state["optimizer"]
    config = replace(CONFIG, steps=40, save_every=3)
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        torch.save(state, tmp_path / name / NEWEST)
    whole = train(network(), batch_of, loss_of, config, tmp_path / "whole")
    for _ in range(20):  # no time at all: one step per call
        weights = train(network(), batch_of, loss_of, replace(config, minutes=0.0), tmp_path / "broken")
    assert all(torch.equal(whole[name], weights[name]) for name in whole)


def test_the_training_commands_need_no_more_than_the_training_package() -> None:
    """`dp360 train` starts where only torch, diffusers, accelerate, tyro, rich and the plain numerical packages are."""
    program = """
import sys

ABSENT = {"nerfstudio", "gsplat", "viser", "mediapipe", "open3d", "trimesh", "pymatting", "transformers", "xatlas",
          "av", "h5py", "zstandard", "pxr"}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import dp360.configs.cli, dp360.configs.train, dp360.configs.train_views
import dp360.generation.training.slices
import dp360.generation.training.diffusion.synthetic_heads
dp360.configs.cli.main(["train", "appearance", "--help"])
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "typings"), "COLUMNS": "100"}
    run = subprocess.run([sys.executable, "-c", program], check=False, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "--start" in run.stdout


def test_the_script_says_what_it_lacks(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts" / "train_slice.sh"
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path / "out")}
    for missing, said in (({}, "STAGE"), ({"STAGE": "nonsense"}, "nonsense"), ({"STAGE": "autoencoder"}, "DATA")):
        run = subprocess.run(
            ["bash", str(script)], check=False, env={**environment, **missing}, capture_output=True, text=True
        )
        assert run.returncode == 2 and said in run.stderr

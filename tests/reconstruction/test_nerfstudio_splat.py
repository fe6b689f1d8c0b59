"""dp360-splat inside nerfstudio: the fit of `fit_splats`, checkpoints that load anywhere, an early stop that keeps.

Everything runs through nerfstudio's own trainer and readers, in this process and without a network or a GPU.
"""

from __future__ import annotations

import copy
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.eval_utils import eval_setup

from dp360.configs.methods import dp360_splat
from dp360.generation import InputError, look_at_origin
from dp360.generation.dataset.view_dataset import read_dataset, write_dataset
from dp360.reconstruction.nerfstudio_splat import HeadSplatModel, cameras_from_nerfstudio
from dp360.reconstruction.nerfstudio_trainer import HeadTrainer, plain
from dp360.reconstruction.splat_fit import fit_splats

STEPS = 60


@pytest.fixture(scope="module", autouse=True)
def no_network():
    """Whatever tries to connect fails at once; nerfstudio's own events stay in the process."""
    import socket

    def refuse(*_):
        raise AssertionError("no test may need the network")

    before = socket.socket.connect
    socket.socket.connect = refuse
    yield
    socket.socket.connect = before


def config_for(folder: Path, steps: int = STEPS):
    config = copy.deepcopy(dp360_splat.config)
    config._target = HeadTrainer  # files are the business of the command's trainer
    config.max_num_iterations, config.steps_per_save = steps, 1000
    config.data, config.output_dir, config.vis = folder / "data", folder / "out", "tensorboard"
    config.logging.local_writer.enable = False  # its writers live in a module and would pile up
    config.set_timestamp()
    config.save_config()
    return config


def train(config) -> HeadTrainer:
    torch.manual_seed(config.machine.seed)
    trainer = config.setup()
    trainer.setup()
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def views(make_sphere_views):
    return make_sphere_views(ring_count=8, size_px=48, points=4000)


@pytest.fixture(scope="module")
def trained(views, tmp_path_factory) -> HeadTrainer:
    folder = tmp_path_factory.mktemp("run")
    write_dataset(views, folder / "data")
    return train(config_for(folder))


def test_the_method_fits_as_the_visible_loop_does(trained):
    """Poses pass through nerfstudio as float32 and views in the order of their names: hence close, not equal."""
    views = read_dataset(trained.config.data)
    order = sorted(range(len(views)), key=lambda i: views.names[i])
    sorted_views = replace(
        views,
        rgba=views.rgba[order],
        cameras=views.cameras[order],
        confidence=views.confidence[order],
        names=tuple(views.names[i] for i in order),
    )
    expected = fit_splats(sorted_views, trained.config.pipeline.model.fit, torch.Generator().manual_seed(0))
    got = trained.pipeline.model.splats
    assert len(got) == len(expected)
    torch.testing.assert_close(got.means_world, expected.means_world, atol=1e-4, rtol=0)
    torch.testing.assert_close(got.sh0, expected.sh0, atol=0.02, rtol=0)
    assert (got.sh0 - expected.sh0).abs().mean() < 1e-3
    assert (got.opacity_logits - expected.opacity_logits).abs().mean() < 1e-2


def test_the_sphere_is_learned(trained, tmp_path):
    config = copy.deepcopy(trained.config)
    config.output_dir = tmp_path
    untrained = config.setup()
    untrained.setup()
    before, after = (t.pipeline.get_average_eval_image_metrics() for t in (untrained, trained))
    assert after["psnr"] > before["psnr"] + 0.5
    assert after["ssim"] > 0.85


def test_outputs_for_people(trained):
    """From the front: colour, alpha and depth of the sphere of radius 0.3 at distance 2.7; nothing outside it."""
    model = trained.pipeline.model.eval()
    model.update_to_step(STEPS - 1)
    model.set_background(torch.tensor([0.0, 0.0, 1.0]))
    ours = look_at_origin([0.0], [0.0], size_px=64)
    pose = ours.T_world_camera[:, :3].float() @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    focal, centre = float(ours.focal_px[0, 0]), 32.0
    camera = Cameras(pose, focal, focal, centre, centre, width=64, height=64)
    back = cameras_from_nerfstudio(camera)
    torch.testing.assert_close(back.T_world_camera, ours.T_world_camera, atol=1e-6, rtol=0)
    outputs = model.get_outputs_for_camera(camera)
    assert {name: tuple(outputs[name].shape) for name in ("rgb", "depth", "accumulation")} == {
        "rgb": (64, 64, 3),
        "depth": (64, 64, 1),
        "accumulation": (64, 64, 1),
    }
    assert outputs["accumulation"][32, 32] > 0.9
    assert abs(float(outputs["depth"][32, 32]) - 2.4) < 0.05
    torch.testing.assert_close(outputs["rgb"][0, 0], torch.tensor([0.0, 0.0, 1.0]))
    assert outputs["rgb"][12, 32, 1] > outputs["rgb"][52, 32, 1]  # green is up
    assert outputs["rgb"][32, 52, 0] > outputs["rgb"][32, 12, 0]  # red is to the head's left, the right of the picture
    rgba = model.get_rgba_image(outputs)
    assert rgba.shape == (64, 64, 4)
    assert rgba[0, 0, 3] == 0
    straight, alpha = rgba[32, 32, :3], rgba[32, 32, 3:]
    over = straight * alpha + (1 - alpha) * torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(over, outputs["rgb"][32, 32], atol=1e-5, rtol=0)


def test_any_reader_loads_the_checkpoint(trained):
    """torch's safe loader, nerfstudio's set-up for ns-eval, ns-render, ns-export and ns-viewer, and no other files."""
    folder = trained.checkpoint_dir
    assert [path.name for path in folder.iterdir()] == [f"step-{STEPS - 1:09d}.ckpt"]
    assert not [path for path in trained.base_dir.iterdir() if path.suffix in (".tmp", ".ckpt")]
    state = torch.load(folder / f"step-{STEPS - 1:09d}.ckpt", weights_only=True)
    assert state["step"] == STEPS - 1
    _, pipeline, _, step = eval_setup(trained.base_dir / "config.yml", test_mode="inference")
    assert isinstance(pipeline.model, HeadSplatModel) and step == STEPS - 1
    assert torch.equal(pipeline.model.splats.means_world, trained.pipeline.model.splats.means_world)
    assert pipeline.model.step == STEPS - 1


def test_stock_export_agrees_with_our_splats(trained, tmp_path):
    plyfile = pytest.importorskip("plyfile")
    pytest.importorskip("open3d")
    from nerfstudio.scripts.exporter import ExportGaussianSplat

    ExportGaussianSplat(load_config=trained.base_dir / "config.yml", output_dir=tmp_path).main()
    vertices = plyfile.PlyData.read(tmp_path / "splat.ply")["vertex"]
    splats = trained.pipeline.model.splats
    shown = splats.opacity_logits > -5.5373  # the stock exporter drops what no rasteriser shows
    np.testing.assert_array_equal(vertices["x"], splats.means_world[shown, 0].numpy())
    np.testing.assert_array_equal(vertices["f_dc_1"], splats.sh0[shown, 1].numpy())
    np.testing.assert_array_equal(vertices["f_rest_4"], splats.sh_rest[shown, 1, 1].numpy())
    np.testing.assert_array_equal(vertices["opacity"], splats.opacity_logits[shown].numpy())


def test_training_goes_on_from_a_checkpoint(trained, tmp_path):
    config = copy.deepcopy(trained.config)
    config.load_dir, config.output_dir, config.max_num_iterations = trained.checkpoint_dir, tmp_path, 3
    torch.manual_seed(0)
    again = config.setup()
    again.setup()
    before = again.pipeline.model.splats
    assert torch.equal(before.means_world, trained.pipeline.model.splats.means_world)
    again.train()
    after = again.pipeline.model.splats
    assert len(after) == len(before)
    assert not torch.equal(after.means_world, before.means_world)  # the optimizers hold the loaded variables
    assert again.step == STEPS + 2


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


def killed_at(views, folder: Path, step: int) -> HeadTrainer:
    """A run that dies in the middle of a step, having saved every 10 steps."""
    write_dataset(views, folder / "data")
    config = config_for(folder)
    config.steps_per_save = 10
    trainer = config.setup()
    trainer.setup()
    torch.manual_seed(0)
    run = trainer.train_iteration

    def train_iteration(now: int):
        if now == step:
            raise Killed
        return run(now)

    trainer.train_iteration = train_iteration
    with pytest.raises(Killed):
        trainer.train()
    return trainer


def gone_on(before: HeadTrainer, folder: Path) -> HeadTrainer:
    """`ns-train --load-dir`."""
    config = copy.deepcopy(before.config)
    config.load_dir, config.output_dir = before.checkpoint_dir, folder
    again = config.setup()
    again.setup()
    again.train()
    return again


def test_a_killed_run_ends_as_if_it_had_not_been_killed(views, trained, tmp_path):
    """From step 40 on: the same views, backgrounds, moments and sums, hence the same bytes."""
    killed = killed_at(views, tmp_path, 47)
    assert sorted(p.name for p in killed.checkpoint_dir.iterdir()) == ["step-000000030.ckpt", "step-000000040.ckpt"]
    again = gone_on(killed, tmp_path / "again")
    assert again.last_step == again.step == STEPS - 1
    for name, tensor in vars(trained.pipeline.model.splats).items():
        assert torch.equal(getattr(again.pipeline.model.splats, name), tensor), name


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(views, tmp_path, capsys):
    killed = killed_at(views, tmp_path, 33)
    newest = killed.checkpoint_dir / "step-000000030.ckpt"
    newest.write_bytes(newest.read_bytes()[:5000])
    again = gone_on(killed, tmp_path / "again")
    assert again.step == STEPS - 1
    text = "".join(capsys.readouterr().out.split())
    assert "step-000000030.ckptisdamaged" in text and "step-000000020.ckpt" in text
    for path in killed.checkpoint_dir.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of its 2 checkpoints can be read"):
        gone_on(killed, tmp_path / "third")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint(views, tmp_path, number):
    write_dataset(views, tmp_path / "data")
    config = config_for(tmp_path, steps=100_000)
    config.viewer.quit_on_train_completion = False  # nobody waits for the viewer after a signal
    trainer = config.setup()
    trainer.setup()
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    threading.Timer(1.0, os.kill, (os.getpid(), number)).start()
    trainer.train()
    assert trainer.stopped_by == number
    (path,) = trainer.checkpoint_dir.iterdir()
    assert torch.load(path, weights_only=True)["step"] == trainer.step < 100_000
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("name", ["means", "features_dc"])
def test_what_is_not_finite_stops_the_fit_and_is_never_saved(views, tmp_path, name):
    write_dataset(views, tmp_path / "data")
    trainer = config_for(tmp_path, steps=3).setup()
    trainer.setup()
    with torch.no_grad():
        trainer.pipeline.model.gauss_params[name][0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite at step"):
        trainer.train()
    assert not trainer.checkpoint_dir.exists()


def test_a_failed_save_keeps_the_checkpoint_before(trained, monkeypatch):
    before = {path: path.read_bytes() for path in trained.checkpoint_dir.iterdir()}

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError, match="disk is full"):
        trained.save_checkpoint(STEPS + 10)
    assert before == {path: path.read_bytes() for path in trained.checkpoint_dir.iterdir()}
    assert not [path for path in trained.base_dir.iterdir() if path.suffix == ".tmp"]


def test_numpy_scalars_become_plain():
    state = {"lr": np.float64(0.5), "inner": [np.int64(3), (np.float32(2.0), None)], np.int64(1): "x"}
    assert repr(plain(state)) == "{'lr': 0.5, 'inner': [3, (2.0, None)], 1: 'x'}"

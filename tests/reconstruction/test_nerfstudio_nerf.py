"""dp360-nerf inside nerfstudio: learns shape and colour of a sphere on a CPU, and its checkpoint loads again."""

from __future__ import annotations

import copy

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.model_components.scene_colliders import AABBBoxCollider
from nerfstudio.utils.eval_utils import eval_setup

from dp360.configs.methods import dp360_nerf
from dp360.generation.cameras import look_at_origin
from dp360.generation.dataset.view_dataset import write_dataset
from dp360.reconstruction.nerfstudio_data import HeadRayDatamanagerConfig
from dp360.reconstruction.nerfstudio_nerf import NerfScene
from dp360.reconstruction.nerfstudio_trainer import HeadTrainer


def test_rays_live_inside_the_box():
    """Through the middle, along an axis with zero components, from inside, and past the box."""
    collider = AABBBoxCollider(SceneBox(torch.tensor([[-0.5] * 3, [0.5] * 3])))
    origins = torch.tensor([[0.0, 0.0, 2.0], [0.2, 0.0, 2.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
    directions = torch.tensor([[0.0, 0.0, -1.0]]).repeat(4, 1)
    rays = collider(RayBundle(origins=origins, directions=directions, pixel_area=torch.ones(4, 1)))
    torch.testing.assert_close(rays.nears[:3, 0], torch.tensor([1.5, 1.5, 0.0]))
    torch.testing.assert_close(rays.fars[:3, 0], torch.tensor([2.5, 2.5, 0.5]))
    assert bool((rays.fars > rays.nears).all())
    assert rays.fars[3] - rays.nears[3] < 1e-5


@pytest.fixture(scope="module")
def trained(make_sphere_views, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nerf")
    write_dataset(make_sphere_views(ring_count=6, size_px=32, points=50), folder / "data")
    config = copy.deepcopy(dp360_nerf.config)
    config._target = HeadTrainer
    config.max_num_iterations, config.vis, config.logging.local_writer.enable = 150, "tensorboard", False
    config.data, config.output_dir = folder / "data", folder / "out"
    assert isinstance(config.pipeline.datamanager, HeadRayDatamanagerConfig)
    config.pipeline.datamanager.train_num_rays_per_batch = 256
    config.set_timestamp()
    config.save_config()
    torch.manual_seed(config.machine.seed)
    trainer = config.setup()
    trainer.setup()
    trainer.train()
    return trainer


def test_shape_and_colour_are_learned(trained):
    pipeline = trained.pipeline.eval()
    camera, batch = next(iter(pipeline.datamanager.fixed_indices_eval_dataloader))
    outputs = pipeline.model.get_outputs_for_camera(camera)
    alpha = batch["image"][..., 3:]
    assert (outputs["accumulation"] - alpha).abs().mean() < 0.1
    metrics, pictures = pipeline.model.get_image_metrics_and_images(outputs, batch)
    assert metrics["psnr"] > 14
    assert pictures["img"].shape == (32, 64, 3)


def test_the_checkpoint_loads(trained):
    _, pipeline, _, step = eval_setup(trained.base_dir / "config.yml", test_mode="inference")
    assert step == 149
    for name, parameter in trained.pipeline.model.named_parameters():
        assert torch.equal(parameter, dict(pipeline.model.named_parameters())[name]), name


def test_it_renders_as_a_scene(trained):
    """The sphere lies where our cameras look, its front in front of the origin; the same cameras as nerfstudio's."""
    pipeline = trained.pipeline
    pipeline.train()
    cameras = look_at_origin([0.0, 2.0], [0.0, 0.3], size_px=32)
    renders = NerfScene(pipeline.model).render(cameras)
    assert pipeline.model.training
    assert renders.rgb_premultiplied.shape == (2, 32, 32, 3) and renders.depth.shape == (2, 32, 32)
    assert bool((renders.rgb_premultiplied <= renders.alpha[..., None] + 1e-4).all())
    assert bool(
        (renders.alpha[:, 12:20, 12:20].mean(dim=(1, 2)) > renders.alpha[:, :3, :3].mean(dim=(1, 2)) + 0.3).all()
    )
    assert bool((renders.depth[:, 16, 16] < 2.7).all() and (renders.depth[:, 16, 16] > 2.2).all())

"""The stages of the diffusion model: who learns, that they learn, and that stopping or splitting changes nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dp360.generation import InputError
from dp360.generation.cameras import look_at_origin
from dp360.generation.diffusion.architectures import COMPACT, OFFICIAL, Architecture
from dp360.generation.diffusion.patch_autoencoder import PatchAutoencoder, PatchAutoencoderConfig
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline, Mode
from dp360.generation.diffusion.view_consistency import ViewConsistency
from dp360.generation.training.diffusion.augment import AugmentConfig
from dp360.generation.training.diffusion.autoencoder import (
    SMALLEST_STD,
    AutoencoderTrainConfig,
    TrainedAutoencoder,
    evaluate_autoencoder,
    train_autoencoder,
)
from dp360.generation.training.diffusion.head_pictures import HeadPictures, HeadSource
from dp360.generation.training.diffusion.objective import (
    ObjectiveConfig,
    ViewObjective,
    draw_timesteps,
    prediction_target,
    training_schedule,
)
from dp360.generation.training.diffusion.stages import (
    ModelSize,
    StageConfig,
    TrainingStage,
    stage_objective,
    stage_recipe,
)
from dp360.generation.training.diffusion.start import official_pipeline, reads_as_stable_diffusion, take_motion_adapter
from dp360.generation.training.diffusion.trainer import JOURNAL, clips_of, compact_pipeline, train_stage
from dp360.generation.training.diffusion.validation import ValidationConfig, draw_clip, spread_clip, validate
from dp360.generation.training.loop import Batch, LoopConfig, train_model

SIZE, VIEWS = 64, 12
STILL = AugmentConfig(mirrored=0.0, drop_references=0.0, drop_control=0.0)


class Ball(HeadPictures):
    """A head of two colours, whose prior lacks the colour of the back."""

    def __init__(self, number: int) -> None:
        azimuth = torch.arange(VIEWS, dtype=torch.float64) * (2 * math.pi / VIEWS)
        cameras = look_at_origin(azimuth, torch.zeros(VIEWS), size_px=SIZE)
        super().__init__(f"ball_{number}", cameras, self._rgba, self._control)
        self.read_portrait = lambda *_: self._rgba(0, SIZE)
        self.colours = torch.rand(2, 3, generator=torch.Generator().manual_seed(number))

    def _drawn(self, view: int, size_px: int, back: Tensor) -> Float[Tensor, "4 s s"]:
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, size_px)] * 2, indexing="ij")
        depth = (0.8**2 - x**2 - y**2).clamp(min=0).sqrt()
        azimuth = float(self.cameras.azimuth_rad[view])
        front = (depth * math.cos(azimuth) + x * math.sin(azimuth) > 0)[None]
        colour = torch.where(front, self.colours[0].view(3, 1, 1), back.view(3, 1, 1))
        return torch.cat([colour, (depth > 0).float()[None]])

    def _rgba(self, view: int, size_px: int) -> UInt8[Tensor, "h w 4"]:
        return (255 * self._drawn(view, size_px, self.colours[1])).round().to(torch.uint8).permute(1, 2, 0)

    def _control(self, view: int, size_px: int) -> Float[Tensor, "7 s s"]:
        known = self._drawn(view, size_px, torch.full((3,), 0.5))
        over_white = known[:3] * known[3:] + 1 - known[3:]
        return torch.cat([over_white * 2 - 1, known[3:] * 2 - 1, torch.zeros(3, size_px, size_px)])


class Balls(HeadSource):
    def __init__(self, count: int = 3) -> None:
        super().__init__("balls", Ball, count, count)


def toy_compact_architecture() -> Architecture:
    small = {"block_out_channels": (32, 32, 32), "num_heads": (1, 1, 1)}
    return dataclasses.replace(
        COMPACT,
        unet=dataclasses.replace(COMPACT.unet, **small),
        camera_control=dataclasses.replace(COMPACT.camera_control, **small),
        view_consistency=dataclasses.replace(COMPACT.view_consistency, **small),
    )


def toy_compact(seed: int = 0) -> DiffPortrait360Pipeline:
    torch.manual_seed(seed)
    vae = PatchAutoencoder(16, width=32, blocks=1, fine_width=8)
    clips = clips_of(Balls(), toy_config("appearance"), 0)
    vae.start_from_components(clips["views"].flatten(0, 1) * 2 - 1)
    with torch.no_grad():
        latents = vae.encode(clips["views"].flatten(0, 1) * 2 - 1).latent
    std = tuple(latents.std((0, 2, 3)).clamp(min=0.05).tolist())
    trained = TrainedAutoencoder(vae.eval(), tuple(latents.mean((0, 2, 3)).tolist()), std)
    pipeline = compact_pipeline(trained, seed=seed, architecture=toy_compact_architecture())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def toy_official() -> DiffPortrait360Pipeline:
    small = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "num_heads": (2,) * 4}
    architecture = dataclasses.replace(
        OFFICIAL,
        unet=dataclasses.replace(OFFICIAL.unet, **small, context_dim=8),
        camera_control=dataclasses.replace(
            OFFICIAL.camera_control, **small, context_dim=8, hint_channels=(8, 8, 8, 16)
        ),
        view_consistency=dataclasses.replace(OFFICIAL.view_consistency, **small),
        autoencoder_options={**OFFICIAL.autoencoder_options, "block_out_channels": (32,) * 4, "layers_per_block": 1},
        context_tokens=3,
    )
    torch.manual_seed(0)
    components: dict[str, Any] = architecture.components()
    return DiffPortrait360Pipeline(**components)


def toy_config(stage: TrainingStage, size: str = "compact", **loop: object) -> StageConfig:
    config = stage_recipe("compact" if size == "compact" else "official", stage)
    length = 4 if stage == "consistency" else 2
    stride = (30.0, 60.0)
    return dataclasses.replace(
        config,
        loop=dataclasses.replace(
            config.loop, **{"steps": 4, "batch_size": 2, "save_every": 2, "warmup_steps": 0, **loop}
        ),
        clips=dataclasses.replace(config.clips, size_px=SIZE, clip_length=length,
                                  stride_deg=stride),
        augment=STILL,
        validation=ValidationConfig(heads=1, views=4),
        gradient_checkpointing=False,
    )  # fmt: skip


PIPELINES: dict[str, Callable[[], DiffPortrait360Pipeline]] = {"compact": toy_compact, "official": toy_official}
LEARNING = {
    ("official", "appearance"): {"appearance"},
    ("official", "camera"): {"camera_control"},
    ("official", "consistency"): {"view_consistency"},
    ("official", "back-view"): {"appearance", "camera_control"},
    ("compact", "appearance"): {"unet", "camera_control"},
    ("compact", "camera"): {"camera_control"},
    ("compact", "consistency"): {"view_consistency"},
    ("compact", "back-view"): {"unet", "camera_control"},
}


@pytest.mark.parametrize("size, stage", LEARNING)
def test_what_learns_gets_gradients_and_nothing_else_does(size: str, stage: TrainingStage) -> None:
    pipeline = PIPELINES[size]()
    objective = stage_objective(pipeline, toy_config(stage, size))
    for parameter in objective.parameters():  # zero-initialised layers stop what comes before them, and C is not used
        if not parameter.any():
            torch.nn.init.normal_(parameter.data, std=0.05)
    config = toy_config(stage, size)
    batches = [clips_of(Balls(), dataclasses.replace(config, back_share=share), 0) for share in (0.0, 1.0)]
    both_roles = size == "compact" and stage != "consistency"
    for batch in batches if both_roles else batches[:1]:
        objective(batch).backward()
    with_gradient = {name for name, p in objective.named_parameters() if p.grad is not None and bool(p.grad.any())}
    wanted = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in wanted} == LEARNING[size, stage]
    one_token = {name for name in wanted if re.search(r"mid_block.*attn1\.to_[qk]\.", name)}  # nothing to choose from
    assert with_gradient - one_token == wanted - one_token
    assert all(p.grad is None for name, p in objective.named_parameters() if name not in wanted)


def test_the_back_view_of_the_official_size_is_a_network_of_its_own() -> None:
    pipeline = toy_official()
    objective = stage_objective(pipeline, toy_config("back-view", "official"))
    assert objective.appearance is pipeline.back_appearance is not pipeline.appearance
    assert objective.camera_control is pipeline.back_camera_control
    assert objective.unet is pipeline.unet and not any(p.requires_grad for p in pipeline.unet.parameters())


def test_an_untrained_compact_model_draws_the_start_view() -> None:
    pipeline, clips, config = toy_compact(), toy_config("appearance").clips, ValidationConfig(heads=2, views=4)
    clip = spread_clip(Balls(), 0, clips, config)
    with torch.no_grad():
        again = pipeline.vae(clip.start * 2 - 1).clamp(-1, 1) / 2 + 0.5
    assert torch.allclose(draw_clip(pipeline, clip, config), again, atol=1e-4)
    figures, sheet = validate(pipeline, Balls(), clips, config)
    assert sheet.size == (SIZE * 5, SIZE * 6)
    spread = [spread_clip(Balls(), index, clips, config) for index in (0, 1)]
    errors = [((clip.start - clip.views) ** 2).mean((1, 2, 3)) for clip in spread]
    mean_db = float((-10 * torch.cat(errors).clamp(min=1e-10).log10()).mean())
    assert figures["start_psnr"] == pytest.approx(mean_db, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stage, steps", [("appearance", 220), ("consistency", 260)])
def test_one_clip_is_learned_by_heart(tmp_path: Path, stage: TrainingStage, steps: int) -> None:
    source, pipeline = Balls(1), toy_compact()
    config = toy_config(stage, steps=steps, learning_rate=4e-3, save_every=steps, ema_decay=0.9, warmup_steps=10)
    config = dataclasses.replace(
        config,
        back_share=0.0,
        objective=dataclasses.replace(config.objective, channel_power=0.0, background_weight=1.0),
    )
    fixed = clips_of(source, config, 0)
    objective = stage_objective(pipeline, config)
    if stage == "consistency":  # V comes last: the others have gone half of the way
        before = dataclasses.replace(config, stage="appearance", loop=dataclasses.replace(config.loop, steps=80))
        joint = stage_objective(pipeline, before)
        train_model(joint, lambda _: fixed, lambda model, batch: model(batch), before.loop, tmp_path / "before")
        objective = stage_objective(pipeline, config)
    train_model(objective, lambda _: fixed, lambda model, batch: model(batch), config.loop, tmp_path)
    with torch.no_grad():
        clean = objective.encode(fixed["views"].flatten(0, 1))
        start = objective.encode(fixed["start"].flatten(0, 1))
        references = torch.stack([objective.encode(fixed["front"]), objective.encode(fixed["back"])], dim=1)
        torch.manual_seed(5)
        noise, timesteps = torch.randn_like(clean), torch.full((len(clean),), 600)
        made = objective.predict(
            objective.schedule.add_noise(clean, noise, timesteps), timesteps, references,
            fixed["control"].flatten(0, 1), start, mode=Mode.VIEWS, dual=torch.ones(2, dtype=torch.bool),
            keeps=torch.ones(2, dtype=torch.bool),
        )  # fmt: skip
        pictures, best = (
            objective.vae.decode(z * objective.latents_std + objective.latents_mean).sample / 2 + 0.5
            for z in (made, clean)
        )
    assert -10 * math.log10(float(((pictures - best) ** 2).mean())) >= 30.0


def test_a_killed_and_resumed_stage_equals_an_unbroken_one(tmp_path: Path) -> None:
    config = toy_config("appearance", steps=5, save_every=2)
    config = dataclasses.replace(config, augment=AugmentConfig(drop_references=0.3))
    whole = train_stage(toy_compact(), Balls(), config, tmp_path / "whole", validation=Balls(1))

    class Failing(Balls):
        calls = 0

        def head(self, index: int) -> HeadPictures:
            Failing.calls += 1
            if Failing.calls > 7:
                raise KeyboardInterrupt
            return super().head(index)

    with pytest.raises(KeyboardInterrupt):
        train_stage(toy_compact(), Failing(), config, tmp_path / "broken")
    assert (tmp_path / "broken" / "checkpoint.pt").is_file()
    broken = train_stage(toy_compact(), Balls(), config, tmp_path / "broken")
    for name in ("unet", "camera_control"):
        file = "diffusion_pytorch_model.safetensors"
        assert (whole / name / file).read_bytes() == (broken / name / file).read_bytes()
    losses = [
        {line["step"]: line["train/loss"] for line in map(json.loads, (tmp_path / run / JOURNAL).open()) if
         "train/loss" in line}
        for run in ("whole", "broken")
    ]  # fmt: skip
    assert losses[0] == losses[1] and len(losses[0]) == 5
    assert DiffPortrait360Pipeline.from_pretrained(broken, local_files_only=True).config["start_shortcut"]


_TWO_PROCESSES = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_diffusion_stages as t
from accelerate import PartialState
steps, accumulation, out = 3, int(sys.argv[1]), Path(sys.argv[2])
config = t.toy_config("appearance", steps=steps, save_every=steps, accumulation=accumulation)
config = t.dataclasses.replace(config, augment=t.AugmentConfig(drop_references=0.3))
t.train_stage(t.toy_compact(), t.Balls(), config, out)
assert PartialState().num_processes == 2 // accumulation, PartialState().num_processes
"""


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "run.py"
    script.write_text(_TWO_PROCESSES.format(tests=str(Path(__file__).parent)))
    common = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    alone = subprocess.Popen([sys.executable, str(script), "2", str(tmp_path / "one")], env=common)
    network = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    both = [
        subprocess.Popen(
            [sys.executable, str(script), "1", str(tmp_path / "two")],
            env={**common, **network, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in (alone, *both)] == [0, 0, 0]
    one, two = (
        [json.loads(line)["train/loss"] for line in (tmp_path / run / JOURNAL).open() if "train/loss" in line]
        for run in ("one", "two")
    )
    assert len(one) == len(two) == 3
    assert all(abs(a - b) < 1e-4 for a, b in zip(one, two)), (one, two)


def test_noise_schedules_agree_with_the_sampler() -> None:
    pipeline = toy_compact()
    schedule = training_schedule(pipeline.scheduler)
    assert schedule.config["prediction_type"] == "sample" and float(schedule.alphas_cumprod[-1]) < 1e-6
    torch.testing.assert_close(schedule.alphas_cumprod, pipeline.scheduler.alphas_cumprod, atol=1e-6, rtol=0)
    x, noise, t = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3), torch.tensor([3, 700])
    assert prediction_target(schedule, x, noise, t) is x
    schedule.register_to_config(prediction_type="v_prediction")
    v = prediction_target(schedule, x, noise, t)
    signal, spread = (a.sqrt().view(-1, 1, 1, 1) for a in (schedule.alphas_cumprod[t], 1 - schedule.alphas_cumprod[t]))
    torch.testing.assert_close(signal * schedule.add_noise(x, noise, t) - spread * v, x, atol=1e-5, rtol=0)


def test_timesteps_are_shared_by_a_clip_or_not() -> None:
    latents = torch.zeros(8, 4, 2, 2)
    torch.manual_seed(0)
    shared = draw_timesteps(latents, 4, 1000, ObjectiveConfig()).view(2, 4)
    single = draw_timesteps(latents, 4, 1000, ObjectiveConfig(shared_timestep=False))
    assert (shared == shared[:, :1]).all() and shared[0, 0] != shared[1, 0] and len(single.unique()) > 4


def test_errors_outside_the_head_do_not_count_where_the_outline_is_given() -> None:
    pipeline, batch = toy_compact(), clips_of(Balls(), toy_config("appearance"), 0)
    white = batch["views"] * batch["alpha"] + 1 - batch["alpha"]
    grey = batch["views"] * batch["alpha"] + 0.5 * (1 - batch["alpha"])

    def error(views: Tensor, background_weight: float) -> float:
        objective = ViewObjective(pipeline, ObjectiveConfig(background_weight=background_weight))
        torch.nn.init.zeros_(pipeline.vae.encoder[-1].weight)  # patches on their own: no neighbour is looked at
        torch.manual_seed(0)
        with torch.no_grad():
            return float(objective({**batch, "views": views, "start": torch.zeros_like(views)}))

    assert error(white, 0.0) == pytest.approx(error(grey, 0.0), rel=1e-5)
    assert abs(error(white, 0.5) - error(grey, 0.5)) > 1e-3


def test_clips_without_conditions_do_not_depend_on_them() -> None:
    objective = ViewObjective(toy_official(), ObjectiveConfig(shared_timestep=False))
    for parameter in objective.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter.data, std=0.05)
    batch = clips_of(Balls(), toy_config("appearance", "official"), 0)
    changed = {**batch, "front": batch["back"], "control": -batch["control"]}

    def loss(b: Batch, keeps: bool) -> float:
        torch.manual_seed(1)
        with torch.no_grad():
            return float(objective({**b, "keeps": torch.full((2,), keeps)}))

    assert loss(batch, False) == pytest.approx(loss(changed, False), abs=1e-7)
    assert abs(loss(batch, True) - loss(changed, True)) > 1e-5


def test_the_autoencoder_starts_at_principal_components_and_gets_better(tmp_path: Path) -> None:
    source = Balls(3)
    config = AutoencoderTrainConfig(
        network=PatchAutoencoderConfig(latent_channels=4, width=32, blocks=1, fine_width=8),
        loop=LoopConfig(steps=60, batch_size=4, learning_rate=2e-3, warmup_steps=5, save_every=60, ema_decay=0.9),
        picture_px=SIZE,
        crop_px=32,
        component_pictures=24,
    )
    torch.manual_seed(0)
    start = PatchAutoencoder(**vars(config.network))
    pictures = torch.stack([h.rgba(v, SIZE)[:3] * 2 - 1 for h in map(source.head, range(3)) for v in range(12)])
    variances = start.start_from_components(pictures)
    assert (variances.diff() <= 0).all()
    patches = torch.nn.functional.pixel_unshuffle(pictures.double(), 8).movedim(1, -1).flatten(0, -2)
    total = float(torch.cov(patches.T).diagonal().sum())
    with torch.no_grad():
        left = float(((start(pictures) - pictures) ** 2).sum()) / (len(patches) - 1)  # the rest of the variance
    assert left == pytest.approx(total - float(variances.sum()), rel=2e-3)
    before = evaluate_autoencoder(start, source, SIZE)
    trained = train_autoencoder(source, config, tmp_path)
    after = evaluate_autoencoder(trained.network, source, SIZE)
    assert after["psnr"] > before["psnr"] + 0.3 and min(trained.latents_std) >= SMALLEST_STD


@pytest.mark.parametrize("size", get_args(ModelSize))
def test_recipes_name_every_stage(size: ModelSize) -> None:
    for stage in get_args(TrainingStage):
        config = stage_recipe(size, stage)
        assert config.stage == stage and config.clips.size_px == {"compact": 256, "official": 512}[size]
    official = stage_recipe("official", "camera").loop
    assert (official.learning_rate, official.steps, official.gradient_clip) == (1e-5, 60_000, 0.5)


def test_control_pictures_of_another_kind_are_refused(tmp_path: Path) -> None:
    config = toy_config("appearance")
    config = dataclasses.replace(config, clips=dataclasses.replace(config.clips, control="other"))
    with pytest.raises(InputError, match="control pictures of 7 channels"):
        train_stage(toy_compact(), Balls(), config, tmp_path)


def test_the_official_size_starts_as_stable_diffusion(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 32, 32, 32), layers_per_block=1, cross_attention_dim=8, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )  # fmt: skip
    unet.save_pretrained(tmp_path / "unet")
    options = {**OFFICIAL.autoencoder_options, "block_out_channels": (32,) * 4, "layers_per_block": 1}
    AutoencoderKL(**options).save_pretrained(tmp_path / "vae")
    sizes = CLIPTextConfig(
        projection_dim=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=7, vocab_size=5, bos_token_id=3, eos_token_id=4, pad_token_id=4,
    )  # fmt: skip
    CLIPTextModel(sizes).save_pretrained(tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    words = {"a": 0, "b": 1, "</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 7}))
    assert reads_as_stable_diffusion(tmp_path)
    pipeline = official_pipeline(tmp_path)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([3, 700])
    context = pipeline.context()
    assert context.shape == (1, 7, 8) and bool(context.any())
    with torch.no_grad():
        ours = pipeline.unet(x, t, context)
        theirs = unet(x, t, context.expand(2, -1, -1)).sample
    assert torch.allclose(ours, theirs, atol=1e-5)
    for name in ("appearance", "camera_control", "back_appearance", "back_camera_control"):
        assert torch.equal(getattr(pipeline, name).conv_in.weight, unet.conv_in.weight)
    (tmp_path / "text_encoder" / "config.json").unlink()
    with pytest.raises(InputError, match="no complete Stable Diffusion"):
        official_pipeline(tmp_path)


@pytest.mark.parametrize("middle", [False, True])
def test_view_consistency_starts_as_animatediff(tmp_path: Path, middle: bool) -> None:
    """diffusers normalises a clip jointly, ours each view: the same where the views of a clip are one view's pixels in
    another order."""
    from diffusers import MotionAdapter

    torch.manual_seed(0)
    adapter = MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=4, motion_norm_num_groups=4,
        use_motion_mid_block=middle,
    )  # fmt: skip
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    adapter.save_pretrained(tmp_path)
    network = ViewConsistency((16, 32), 1, (4, 4), max_clip_length=24, norm_num_groups=4)
    take_motion_adapter(network, tmp_path)
    blocks = [*adapter.down_blocks, *adapter.up_blocks]
    first = [module for block in blocks for module in block.get_submodule("motion_modules").children()]
    ours = [*network.down_modules, *network.up_modules]
    assert len(ours) == len(first) == 6
    for one, other in zip(ours, first):
        view = torch.randn(1, len(one.get_parameter("norm.weight")), 6, 6)
        clip = torch.cat([view.flatten(2)[..., torch.randperm(36)].view_as(view) for _ in range(5)])
        with torch.no_grad():
            theirs, got = other(clip, num_frames=5), one(clip, 5)
        assert (got - clip).abs().max() > 0.1 and torch.allclose(got, theirs, atol=1e-4)
    with pytest.raises(InputError, match="does not have the shapes"):
        take_motion_adapter(ViewConsistency((16, 64), 1, (4, 4), norm_num_groups=4), tmp_path)
    with pytest.raises(InputError, match="is no motion adapter"):
        take_motion_adapter(network, tmp_path / "nothing")


@pytest.mark.parametrize("size, stage", LEARNING)
def test_another_device_learns_the_same(
    tmp_path: Path, size: str, stage: TrainingStage, on_another_device, same_weights
) -> None:
    config = toy_config(stage, size, steps=2, save_every=2)
    batch = clips_of(Balls(), config, 0)

    def learned(folder: Path) -> torch.nn.Module:
        objective = stage_objective(PIPELINES[size](), config)
        train_model(objective, lambda _: batch, lambda model, clips: model(clips), config.loop, folder)
        return objective

    here = learned(tmp_path / "here")
    assert same_weights(here, on_another_device(lambda: learned(tmp_path / "there")))


def test_another_device_learns_the_same_autoencoder(tmp_path: Path, on_another_device, same_weights) -> None:
    config = AutoencoderTrainConfig(
        network=PatchAutoencoderConfig(latent_channels=4, width=32, blocks=1, fine_width=8),
        loop=LoopConfig(steps=2, batch_size=2, save_every=2),
        picture_px=SIZE,
        crop_px=32,
        component_pictures=4,
    )
    here = train_autoencoder(Balls(2), config, tmp_path / "here").network
    there = on_another_device(lambda: train_autoencoder(Balls(2), config, tmp_path / "there").network)
    assert same_weights(here, there)

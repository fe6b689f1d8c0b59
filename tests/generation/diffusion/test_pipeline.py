"""The pipeline at toy size: views with their cameras, saved and loaded, the same bytes from the same seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from reliability.other_device import OTHER, OtherDevice

from dp360.generation import InputError, OrbitConfig, orbit
from dp360.generation.diffusion.architectures import COMPACT, OFFICIAL, Architecture, default_scheduler
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline
from dp360.generation.diffusion.release.schedule import ReleaseDDIMScheduler
from dp360.generation.diffusion.sampling import Denoiser, Sampling, Schedule, guided

SIZE = 64
QUICK = Sampling(steps=2)


def toy_official() -> Architecture:
    small = {"block_out_channels": (32, 32), "num_heads": (2, 2), "attention_levels": (True, False)}
    return dataclasses.replace(
        OFFICIAL,
        unet=dataclasses.replace(OFFICIAL.unet, **small, layers_per_block=1, context_dim=16),
        camera_control=dataclasses.replace(OFFICIAL.camera_control, **small, layers_per_block=1, context_dim=16),
        view_consistency=dataclasses.replace(
            OFFICIAL.view_consistency,
            block_out_channels=(32, 32),
            num_heads=(2, 2),
            layers_per_block=1,
            clip_length=4,
            max_clip_length=6,
        ),
        autoencoder_options={**OFFICIAL.autoencoder_options, "block_out_channels": (32,) * 4, "layers_per_block": 1},
        context_tokens=3,
    )


def toy_compact() -> Architecture:
    small = {"block_out_channels": (32, 32, 32), "num_heads": (1, 1, 1)}
    return dataclasses.replace(
        COMPACT,
        unet=dataclasses.replace(COMPACT.unet, **small),
        camera_control=dataclasses.replace(COMPACT.camera_control, **small),
        view_consistency=dataclasses.replace(COMPACT.view_consistency, **small, clip_length=4),
    )


def pipeline_of(architecture: Architecture, **settings: Any) -> DiffPortrait360Pipeline:
    torch.manual_seed(0)
    components = architecture.components()
    for component in components.values():
        if isinstance(component, torch.nn.Module) and type(component).__module__.startswith("dp360"):
            for parameter in component.parameters():
                if not parameter.any():  # zero-initialised outputs would hide what they carry
                    torch.nn.init.normal_(parameter, std=0.05)
    pipeline = DiffPortrait360Pipeline(**components, **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def official() -> DiffPortrait360Pipeline:
    return pipeline_of(toy_official())


@pytest.fixture(scope="module")
def compact() -> DiffPortrait360Pipeline:
    return pipeline_of(toy_compact(), reference_timestep=0, latents_mean=[0.1] * 16, latents_std=[2.0] * 16)


@pytest.fixture(params=["official", "compact"])
def pipeline(request) -> DiffPortrait360Pipeline:
    return request.getfixturevalue(request.param)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(pipeline: DiffPortrait360Pipeline, count: int = 4) -> dict:
    channels = pipeline.camera_control.config.control_channels
    control = torch.rand(count, channels, SIZE, SIZE, generator=seeded(1)) * 2 - 1
    return {
        "portrait": torch.rand(3, SIZE, SIZE, generator=seeded(2)),
        "cameras": orbit(count, size_px=SIZE),
        "control": control,
        "back_control": control[count // 2],
    }


def run(
    pipeline: DiffPortrait360Pipeline, sampling: Sampling = QUICK, seed: int = 0, count: int = 4, **changed: object
):
    return pipeline(**{**inputs(pipeline, count), **changed}, sampling=sampling, generator=seeded(seed))


def test_views_come_with_their_cameras_and_the_same_seed_gives_the_same_bytes(pipeline) -> None:
    first, second = run(pipeline), run(pipeline)
    assert first.images.shape == (4, 3, SIZE, SIZE) and first.images.dtype == torch.float32
    assert 0.0 <= first.images.min() and first.images.max() <= 1.0
    assert first.back_image is not None and second.back_image is not None
    assert first.back_image.shape == (3, SIZE, SIZE)
    assert first.images.numpy().tobytes() == second.images.numpy().tobytes()
    assert first.back_image.numpy().tobytes() == second.back_image.numpy().tobytes()
    assert not torch.equal(first.images, run(pipeline, seed=1).images)


def test_saved_and_loaded_pipelines_give_equal_views(pipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "folder")
    assert not list((tmp_path / "folder").rglob("*.bin")), "safetensors only"
    loaded = DiffPortrait360Pipeline.from_pretrained(tmp_path / "folder")
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config["latents_std"] == pipeline.config["latents_std"]
    assert (run(loaded).images - run(pipeline).images).abs().max() <= 5e-4


@pytest.mark.parametrize("clips_per_batch", [2, 8])
def test_a_batch_of_clips_equals_clips_one_by_one(pipeline, clips_per_batch: int) -> None:
    together = run(pipeline, dataclasses.replace(QUICK, clips_per_batch=clips_per_batch), count=8)
    assert (together.images - run(pipeline, count=8).images).abs().max() <= 1e-4


def test_without_view_consistency_a_batch_of_views_equals_single_views(official) -> None:
    alone = DiffPortrait360Pipeline(**{**official.components, "view_consistency": None})
    alone.set_progress_bar_config(disable=True)
    arguments = inputs(alone)
    noise = torch.randn(4, 4, SIZE // 8, SIZE // 8, generator=seeded())
    references = torch.randn(2, 4, SIZE // 8, SIZE // 8, generator=seeded(3))

    def denoised(rows: slice, clips_per_batch: int) -> torch.Tensor:
        sampling = Sampling(steps=3, clips_per_batch=clips_per_batch)
        networks, cameras = alone.networks_for_views(), arguments["cameras"][torch.arange(4)[rows]]
        return alone.denoise(
            networks,
            references,
            cameras,
            arguments["control"][rows],
            noise[rows],
            None,
            sampling,
            seeded(),
            description="",
        )

    single = torch.cat([denoised(slice(k, k + 1), 1) for k in range(4)])
    assert (denoised(slice(0, 4), 4) - single).abs().max() <= 1e-4


def test_ablations_leave_out_what_they_say(official, monkeypatch) -> None:
    alone = DiffPortrait360Pipeline(**{**official.components, "view_consistency": None})
    alone.set_progress_bar_config(disable=True)
    ablated = dataclasses.replace(QUICK, view_consistency=False)
    assert torch.equal(run(official, ablated).images, run(alone).images)
    assert not torch.equal(run(official, ablated).images, run(official).images)

    single = dataclasses.replace(QUICK, dual_appearance=False)
    monkeypatch.setattr(official, "make_back", None)  # whoever calls it fails
    front_only = run(official, single)
    assert front_only.back_image is None
    assert torch.equal(front_only.images, run(official, single, back_image=torch.ones(3, SIZE, SIZE)).images)
    with_back = run(official, back_image=inputs(official)["portrait"])
    assert not torch.equal(front_only.images, with_back.images)


@pytest.mark.parametrize("schedule", ["default", "official"])
@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_any_number_of_views(official, count: int, schedule: Schedule) -> None:
    """Fewer than a clip (4) make one shorter clip; no multiple of it overlaps clips."""
    views = run(official, Sampling(schedule, steps=2), count=count)
    assert views.images.shape[0] == count and bool(torch.isfinite(views.images).all())


def test_rings_of_several_elevations(official) -> None:
    cameras = OrbitConfig(4, 3, lower_count=2).cameras(SIZE)
    control = torch.zeros(9, 3, SIZE, SIZE)
    assert run(official, cameras=cameras, control=control).images.shape[0] == 9


def test_swapping_front_and_back_changes_nothing(official) -> None:
    front, back = (torch.rand(3, SIZE, SIZE, generator=seeded(k)) for k in (5, 6))
    one, other = run(official, portrait=front, back_image=back), run(official, portrait=back, back_image=front)
    assert (one.images - other.images).abs().max() <= 1e-4
    assert one.back_image is not None and torch.equal(one.back_image, back)


def test_a_portrait_of_another_size_is_resized_as_the_release_does(official) -> None:
    picture = Image.effect_noise((150, 150), 60).convert("RGB")
    resized = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    back = torch.zeros(3, SIZE, SIZE)
    one, other = run(official, portrait=picture, back_image=back), run(official, portrait=resized, back_image=back)
    assert torch.equal(one.images, other.images)


def test_the_official_schedule_is_the_default_one_only_by_name(official) -> None:
    start = torch.rand(4, 3, SIZE, SIZE, generator=seeded(9))
    views = {s: run(official, Sampling(s, steps=4), start_views=start).images for s in ("default", "official")}
    assert (views["default"] - views["official"]).abs().max() > 1e-3


def test_start_views_matter(official) -> None:
    start = torch.rand(4, 3, SIZE, SIZE, generator=seeded(9))
    back = torch.zeros(3, SIZE, SIZE)
    kept = run(official, Sampling(steps=4, strength=0.25, guidance_scale=1.0), start_views=start, back_image=back)
    redone = run(official, Sampling(steps=4, guidance_scale=1.0), start_views=start, back_image=back)
    fresh = run(official, Sampling(steps=4, guidance_scale=1.0), back_image=back)
    assert (redone.images - fresh.images).abs().max() > 1e-5
    assert (kept.images - redone.images).abs().max() > 1e-3


def test_overlapping_windows_join_what_separate_ones_part(official) -> None:
    """V mixes within clips only: with overlap a change of one control picture travels further."""
    arguments = inputs(official, 8)
    changed = arguments["control"].clone()
    changed[0] = -changed[0]
    reach = {}
    for stride in (None, 2):
        sampling = Sampling("official", steps=2, eta=0.0, window_stride=stride)
        back = torch.zeros(3, SIZE, SIZE)
        views = [
            run(official, sampling, count=8, control=c, back_image=back).images for c in (arguments["control"], changed)
        ]
        reach[stride] = ((views[0] - views[1]).abs().amax((1, 2, 3)) > 0).nonzero().flatten().tolist()
    assert reach[None] == [0, 1, 2, 3] and {*reach[2]} > {0, 1, 2, 3, 7}, "beyond the clip, and round the ring"


def test_guidance_outside_its_interval_costs_nothing(official, monkeypatch) -> None:
    calls: list[bool] = []
    forward = type(official.unet).forward

    def counted(self, *args, reference=None, **options):
        calls.append(reference is not None)
        return forward(self, *args, reference=reference, **options)

    monkeypatch.setattr(type(official.unet), "forward", counted)
    back = torch.zeros(3, SIZE, SIZE)
    run(official, Sampling(steps=4, guidance_interval=(0.3, 0.7)), back_image=back)
    assert calls.count(True) == 4 and calls.count(False) == 2
    calls.clear()
    run(official, Sampling(steps=4, guidance_scale=1.0), back_image=back)
    assert calls == [True] * 4


def test_guidance_rescale_gives_the_spread_back() -> None:
    conditional, unconditional = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    full = guided(conditional, unconditional, 5.0, 1.0)
    assert torch.allclose(full.std((1, 2, 3)), conditional.std((1, 2, 3)), rtol=1e-5)
    assert torch.equal(guided(conditional, unconditional, 1.0, 0.0), unconditional + (conditional - unconditional))


def test_stage_offload_moves_each_network_in_and_out(official, monkeypatch) -> None:
    expected = run(official).images
    moved: list[tuple[str, str]] = []
    names = {id(module): name for name, module in official.components.items()}
    move = torch.nn.Module.to

    def recorded(self, *args, **options):
        if id(self) in names and args and isinstance(args[0], torch.device | str):
            moved.append((names[id(self)], str(args[0])))
        return move(self, *args, **options)

    official.enable_model_cpu_offload(device="cpu:0")
    try:
        for component in {type(m) for m in official.components.values() if isinstance(m, torch.nn.Module)}:
            monkeypatch.setattr(component, "to", recorded)
        assert torch.equal(run(official).images, expected)
    finally:
        official._stage_device = None
    inward = [name for name, device in moved if device == "cpu:0"]
    assert inward.count("unet") == 2 and inward.count("appearance") == 1 and inward.count("back_appearance") == 1
    assert len(inward) * 2 == len(moved), "whatever came in went out"


def test_half_precision_stays_close(official) -> None:
    torch.manual_seed(0)
    half = pipeline_of(toy_official()).to(torch.bfloat16)
    assert half.unet.dtype == torch.bfloat16
    views = run(half, Sampling(steps=2), back_image=torch.zeros(3, SIZE, SIZE))
    exact = run(official, Sampling(steps=2), back_image=torch.zeros(3, SIZE, SIZE))
    assert views.images.dtype == torch.float32 and (views.images - exact.images).abs().mean() < 0.05


def test_tiled_and_sliced_autoencoder(official) -> None:
    expected = run(official).images
    official.vae.enable_slicing()
    try:
        assert torch.equal(run(official).images, expected)
    finally:
        official.vae.disable_slicing()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"portrait": torch.zeros(3, 64, 80)}, "shape of the views, 64x64, got 80x64; crop it"),
        ({"portrait": torch.zeros(3, 64, 64, dtype=torch.uint8)}, r"floats in \[0, 1\], got .* torch.uint8"),
        ({"portrait": torch.full((3, 64, 64), 200.0)}, r"values in \[0, 1\]; divide bytes by 255"),
        ({"portrait": torch.zeros(64, 64, 3)}, r"expected \[3, height, width\]"),
        ({"control": torch.zeros(3, 3, 64, 64)}, "one control picture of 64x64 for each of 4 cameras"),
        ({"control": torch.zeros(4, 5, 64, 64)}, "control pictures of 3 channels"),
        ({"start_views": torch.zeros(4, 3, 32, 32)}, "one start view of 64x64 for each of 4 cameras"),
        ({"back_control": None}, "a picture of the back of the head, or weights with the back-view model"),
        ({"cameras": orbit(4, size_px=60), "control": torch.zeros(4, 3, 60, 60)}, "multiple of 8"),
    ],
    ids=["aspect", "bytes", "range", "layout", "count", "channels", "start", "no back", "size"],
)
def test_inputs_that_do_not_fit_are_named(official, changed: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        run(official, **changed)


@pytest.mark.parametrize(
    ("sampling", "sentence"),
    [
        ({"schedule": "official", "steps": 3}, "divides 1000, as the release's sampler needs, got 3"),
        ({"window_stride": 5}, "window_stride at most the clip length 4, got 5"),
        ({"clip_length": 7}, "clip_length at most 6 for these weights, got 7"),
    ],
)
def test_sampling_that_these_weights_cannot_do(official, sampling: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        run(official, Sampling(**{"steps": 2, **sampling}))


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"strength": 0.0}, {"guidance_rescale": 2.0}, {"guidance_interval": (0.6, 0.5)}, {"eta": -1.0},
     {"clips_per_batch": 0}, {"clip_length": 0}, {"window_stride": 0}],
    ids=str,
)  # fmt: skip
def test_sampling_out_of_range(settings: dict) -> None:
    (name,) = settings
    with pytest.raises(InputError, match=f"Cannot sample: expected {name}"):
        Sampling(**settings)


def test_weights_without_a_part_say_so(official) -> None:
    back_only = DiffPortrait360Pipeline(
        **{**official.components, "unet": None, "appearance": None, "camera_control": None, "view_consistency": None,
           "back_unet": official.unet}
    )  # fmt: skip
    back_only.set_progress_bar_config(disable=True)
    assert back_only.can_make_back and not back_only.can_make_views
    back = back_only.make_back(
        torch.zeros(3, SIZE, SIZE), torch.zeros(3, SIZE, SIZE), generator=seeded(), sampling=QUICK
    )
    assert back.shape == (3, SIZE, SIZE)
    with pytest.raises(InputError, match="back-view model only"):
        back_only(torch.zeros(3, SIZE, SIZE), orbit(4, size_px=SIZE), torch.zeros(4, 3, SIZE, SIZE), generator=seeded())
    views_only = DiffPortrait360Pipeline(
        **{**official.components, "back_appearance": None, "back_camera_control": None}
    )
    assert not views_only.can_make_back
    with pytest.raises(InputError, match="no back-view model"):
        views_only.make_back(torch.zeros(3, SIZE, SIZE), torch.zeros(3, SIZE, SIZE), generator=seeded())


@pytest.mark.parametrize("steps", [4, 8, 20])
def test_default_scheduler_starts_where_start_views_are_noised(steps: int) -> None:
    denoiser = Denoiser(default_scheduler(), Sampling(steps=steps), torch.device("cpu"))
    assert len(denoiser.timesteps) == steps and int(denoiser.timesteps[0]) == 999
    noise, start = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    exact = denoiser.scheduler.alphas_cumprod[999]
    expected = exact.sqrt() * start + (1 - exact).sqrt() * noise
    assert torch.allclose(denoiser.start(noise, start), expected, atol=1e-3)


def test_release_start_is_noised_to_the_end_of_the_table() -> None:
    denoiser = Denoiser(default_scheduler(), Sampling("official"), torch.device("cpu"))
    assert denoiser.timesteps[:2].tolist() == [981, 961] and len(denoiser.timesteps) == 50
    noise, start = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    assert torch.allclose(denoiser.start(noise, start), 0.06823730 * start + 0.99755859 * noise, atol=1e-6)


def test_release_scheduler_round_trip_and_refusals(tmp_path: Path) -> None:
    scheduler = ReleaseDDIMScheduler(beta_end=0.013)
    scheduler.save_pretrained(tmp_path)
    loaded = ReleaseDDIMScheduler.from_pretrained(tmp_path)
    assert isinstance(loaded, ReleaseDDIMScheduler) and loaded.config["beta_end"] == 0.013
    for steps in (0, 3, 2000):
        with pytest.raises(ValueError, match=f"got {steps}"):
            scheduler.set_timesteps(steps)


def test_another_device_draws_the_same_views() -> None:
    for pipeline in (pipeline_of(toy_official()), pipeline_of(toy_compact(), latents_std=[2.0] * 16)):
        here = run(pipeline)
        with OtherDevice():
            there = run(pipeline.to(OTHER))
        assert here.back_image is not None and there.back_image is not None
        torch.testing.assert_close(there.images.cpu(), here.images, atol=1e-4, rtol=0)
        torch.testing.assert_close(there.back_image.cpu(), here.back_image, atol=1e-4, rtol=0)

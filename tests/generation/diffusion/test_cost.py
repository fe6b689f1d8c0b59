"""Operations and memory that are counted on shapes, against what can be worked out by hand or by running."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dp360.generation import orbit
from dp360.generation.diffusion import cost
from dp360.generation.diffusion.architectures import COMPACT, OFFICIAL, Architecture
from dp360.generation.diffusion.camera_control import CameraControlConfig
from dp360.generation.diffusion.cost import (
    CostReport,
    bf16_peak,
    cost_report,
    estimate_memory,
    measure,
)
from dp360.generation.diffusion.flops import FlopCount, count_flops
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline
from dp360.generation.diffusion.sampling import Sampling
from dp360.generation.diffusion.shapes_only import META, ShapesOnly, ShapesPipeline, shapes_pipeline
from dp360.generation.diffusion.unet import UNetConfig
from dp360.generation.diffusion.view_consistency import ViewConsistencyConfig
from dp360.generation.errors import InputError

SIZES = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "attention_levels": (True, False),
    "num_heads": (2, 2),
    "context_dim": 32,
}
COMPACT_LIKE = dataclasses.replace(
    COMPACT,
    unet=dataclasses.replace(COMPACT.unet, block_out_channels=(32, 32, 32), num_heads=(1, 1, 1)),
    camera_control=dataclasses.replace(COMPACT.camera_control, block_out_channels=(32, 32, 32), num_heads=(1, 1, 1)),
    view_consistency=dataclasses.replace(
        COMPACT.view_consistency, block_out_channels=(32, 32, 32), num_heads=(1, 1, 1)
    ),
)
TINY = Architecture(
    UNetConfig(**SIZES),
    CameraControlConfig(**SIZES, hint_channels=(4, 4, 4, 4)),
    ViewConsistencyConfig((32, 64), layers_per_block=1, num_heads=(2, 2)),
    "AutoencoderKL",
    {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (4, 4, 4, 4),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    },
    context_tokens=7,
)


@pytest.fixture(scope="module")
def tiny() -> ShapesPipeline:
    return shapes_pipeline(TINY)


@pytest.fixture(scope="module")
def tiny_report() -> Iterator[CostReport]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "CLIPS_PER_BATCH", (1, 4))
        yield cost_report(architecture=TINY, views=32, size_px=64, steps=10, device="cpu")


def test_convolution_and_attention_count_as_by_hand() -> None:
    with torch.device("meta"):
        convolution, picture = nn.Conv2d(3, 5, 3, padding=1), torch.empty(2, 3, 8, 6)
        query, key = torch.empty(2, 4, 10, 16), torch.empty(2, 4, 30, 16)
    with ShapesOnly(), FlopCounterMode(display=False) as counter:
        convolution(picture)
        assert counter.get_total_flops() == 2 * (2 * 8 * 6) * 5 * (3 * 9)
        before = counter.get_total_flops()
        assert F.scaled_dot_product_attention(query, key, key).shape == query.shape
        assert counter.get_total_flops() - before == 2 * 2 * (2 * 4) * 10 * 30 * 16


def test_live_bytes_follow_the_tensors() -> None:
    weight = torch.empty(1000, 1000, device="meta")
    with ShapesOnly() as shapes:
        first = torch.zeros(1000, device="meta") @ weight.t()
        assert shapes.live_bytes == 4000
        view = first.reshape(10, 100).transpose(0, 1)
        assert shapes.live_bytes == 4000
        second = view + 1.0
        del first
        assert shapes.live_bytes == 8000
        del view, second
        assert shapes.live_bytes == 0
    assert shapes.peak_bytes == 8000


def test_host_values_are_computed_and_meta_tensors_stay_meta() -> None:
    with ShapesOnly():
        picked = torch.empty(5, 2, device="meta")[torch.tensor([0, 3])]
        moved = picked.to("cpu", torch.bfloat16)
        assert int(torch.arange(4).sum()) == 6
    assert picked.is_meta and moved.is_meta
    assert tuple(moved.shape) == (2, 2) and moved.dtype == torch.bfloat16


def test_calls_known_from_an_earlier_count_change_nothing() -> None:
    pipe = shapes_pipeline(TINY)
    alone = count_flops(shapes_pipeline(TINY), "ours", views=16, steps=2, size_px=64)
    count_flops(pipe, "release", views=16, steps=2, size_px=64)
    assert count_flops(pipe, "ours", views=16, steps=2, size_px=64) == alone


@torch.no_grad()
@pytest.mark.parametrize(
    ("architecture", "sampling"),
    [
        (TINY, Sampling(steps=3)),
        pytest.param(TINY, Sampling(steps=2, window_stride=4), marks=pytest.mark.slow),
        pytest.param(TINY, Sampling("official", 2), marks=pytest.mark.slow),
        pytest.param(TINY, Sampling(steps=2, guidance_interval=(0.5, 1.0), clips_per_batch=2), marks=pytest.mark.slow),
        (COMPACT_LIKE, Sampling(steps=2, window_stride=4)),
    ],
)
def test_shapes_count_what_a_real_run_does(architecture: Architecture, sampling: Sampling) -> None:
    """Whatever the loop of the pipeline does, the count follows it."""
    torch.manual_seed(0)
    pipe = DiffPortrait360Pipeline(**architecture.components(), reference_timestep=architecture.reference_timestep)
    pipe.set_progress_bar_config(disable=True)
    sizes = architecture.camera_control
    latents = torch.randn(12, sizes.in_channels, 8, 8)
    with FlopCounterMode(display=False) as counter:
        pipe.denoise(
            pipe.networks_for_views(),
            latents[:2],
            orbit(12, size_px=64),
            torch.zeros(12, sizes.control_channels, 64, 64),
            latents,
            None,
            sampling,
            torch.Generator().manual_seed(0),
            description="views",
        )
    shapes = shapes_pipeline(architecture)
    counted = count_flops(shapes, "ours", views=12, steps=sampling.steps or 0, size_px=64, sampling=sampling)
    assert counted.views == counter.get_total_flops()


def test_guidance_that_rests_costs_nothing(tiny: ShapesPipeline) -> None:
    always, half = (
        count_flops(tiny, "ours", views=8, steps=4, size_px=64, sampling=Sampling(guidance_interval=part))
        for part in ((0.0, 1.0), (0.5, 1.0))
    )
    name = "UNet, unconditional"
    assert half.networks[name] == pytest.approx(always.networks[name] / 2)
    assert half.networks["C"] == always.networks["C"]


def test_the_release_repeats_references_and_control(tiny: ShapesPipeline) -> None:
    release, ours = (count_flops(tiny, way, views=16, steps=4, size_px=64).networks for way in ("release", "ours"))
    assert release["R"] > 16 * ours["R"]  # sixteen rows for one, and to the end of the network
    assert release["C"] > 2 * ours["C"]
    assert release["V, conditional"] == ours["V, conditional"]
    assert release["reference keys and values"] == pytest.approx(16 * ours["reference keys and values"])


def test_full_size_counts_are_those_of_the_readme() -> None:
    pipe = shapes_pipeline(dataclasses.replace(OFFICIAL, own_back=False))  # the ratios are about the 360 model
    few = Sampling()
    overlapping = dataclasses.replace(few, window_stride=4)
    counts = [
        count_flops(pipe, "release"),
        count_flops(pipe, "ours"),
        count_flops(pipe, "ours", steps=16, sampling=few),
        count_flops(pipe, "ours", steps=16, sampling=overlapping),
    ]
    assert [round(count.views / 1e12, 1) for count in counts] == [7882.4, 4822.6, 1543.5, 2924.5]


def test_memory_grows_with_clips_and_shrinks_with_precision(tiny_report: CostReport) -> None:
    estimates = {(e.dtype, e.offload, e.clips_per_batch): e for e in tiny_report.memory}
    assert len(estimates) == 6
    for name, offload in (("fp32", False), ("bf16", False), ("bf16", True)):
        peaks = [estimates[name, offload, clips].peak for clips in (1, 4)]
        assert peaks[0] < peaks[1]
    assert estimates["bf16", False, 4].peak < estimates["fp32", False, 4].peak
    assert estimates["bf16", True, 1].weights < estimates["bf16", False, 1].weights
    parameters = sum(p.numel() for m in TINY.components().values() if isinstance(m, nn.Module) for p in m.parameters())
    assert estimates["fp32", False, 1].weights >= 4 * parameters


@pytest.mark.slow
def test_full_size_fits_in_twelve_gigabytes() -> None:
    estimates = {(e.dtype, e.offload, e.clips_per_batch): e.peak for e in estimate_memory(OFFICIAL)}
    assert estimates["bf16", False, 1] <= 12e9
    assert estimates["bf16", True, 4] <= 12e9


def test_report_as_json_and_text(tiny_report: CostReport) -> None:
    data = json.loads(tiny_report.to_json())
    assert data["parameters"] == tiny_report.parameters
    for entry, count in zip(data["flops"], tiny_report.flops, strict=True):
        derived = {"views": entry.pop("views"), "times_fewer_than_release": entry.pop("times_fewer_than_release")}
        assert FlopCount(**entry) == count
        assert derived == {"views": count.views, "times_fewer_than_release": tiny_report.ratio(count.title)}
    assert [entry["peak"] for entry in data["memory"]] == [estimate.peak for estimate in tiny_report.memory]
    assert data["measurements"] == [dataclasses.asdict(run) for run in tiny_report.measurements]
    text = tiny_report.to_text()
    for words in ("the release, 10 steps", "times fewer than [1]", "bf16, offload", "view_consistency", "s per view"):
        assert words in text


def test_measured_run_is_scaled_to_all_steps(tiny_report: CostReport) -> None:
    (run,) = tiny_report.measurements
    assert run.steps == 16 and not run.whole and run.peak_bytes is None and run.share_of_peak is None
    assert run.seconds_per_view > 0 and run.flops_per_second > 0


@pytest.mark.gpu
def test_measured_on_a_gpu() -> None:
    run = measure(TINY, torch.device("cuda"), dtype="bf16", views=16, size_px=64)
    assert run.whole and run.peak_bytes is not None and run.peak_bytes > 0


def test_peak_rate_by_name() -> None:
    assert bf16_peak("NVIDIA H100 PCIe") == 756e12
    assert bf16_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert bf16_peak("NVIDIA L40S") == 362e12
    assert bf16_peak("Some other card") is None


def test_bad_sizes_are_named() -> None:
    with pytest.raises(InputError, match="multiple of 64, got 500"):
        cost_report(architecture=TINY, size_px=500, device="meta")
    with pytest.raises(InputError, match="at least one view and one step, got 0 and 50"):
        cost_report(architecture=TINY, views=0, device="meta")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="sees none"):
            cost_report(architecture=TINY, device="cuda")


def test_shapes_pipeline_holds_no_weights() -> None:
    pipe = shapes_pipeline(TINY, torch.bfloat16)
    parameters = [p for m in pipe.components.values() if isinstance(m, nn.Module) for p in m.parameters()]
    assert parameters and all(p.device == META and p.dtype == torch.bfloat16 for p in parameters)

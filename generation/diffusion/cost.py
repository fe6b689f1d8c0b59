"""What a generation costs: floating-point operations, parameters, memory and time, at any size and without weights.

Operations are counted and memory is added up on shapes alone; time is measured, with random weights.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from ..errors import InputError
from ..progress import Track, silent
from .architectures import OFFICIAL, Architecture
from .flops import FlopCount, Way, count_flops, run_loop
from .pipeline import DiffPortrait360Pipeline
from .sampling import DEFAULT_STEPS, OFFICIAL_STEPS, Sampling
from .shapes_only import META, ShapesOnly, shapes_pipeline

CostDevice = Literal["auto", "cpu", "cuda", "meta"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLIPS_PER_BATCH = (1, 2, 4)
BF16_FLOPS_PER_SECOND = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 6000 Ada": 364e12,
    "RTX A6000": 155e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "A10": 125e12,
    "L4": 121e12,
}
"""Peak dense bf16 rate (float32 accumulation) by part of the device's name, special names first; from NVIDIA's data
sheets, where the figures with sparsity are halved."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of one way of running, in bytes."""

    dtype: str
    """Of weights and activations."""
    offload: bool
    """Whether only the networks of the running stage are on the device (`enable_model_cpu_offload`)."""
    clips_per_batch: int
    """Clips of eight views that go through the networks at once."""
    weights: int
    """Weights on the device in the stage with the highest peak."""
    activations: int
    """All else alive at that moment."""

    @property
    def peak(self) -> int:
        """Weights and activations."""
        return self.weights + self.activations


@dataclass(frozen=True)
class Measurement:
    """A timed run with random weights."""

    device: str
    """Name of the device."""
    dtype: str
    """Of weights and activations."""
    clips_per_batch: int
    """Clips of eight views that go through the networks at once."""
    steps: int
    """Denoising steps that a view is charged for."""
    seconds_per_view: float
    """Denoising with the default sampler and decoding; references and F come once a head and are left out."""
    flops_per_second: float
    """Rate of the networks while denoising."""
    share_of_peak: float | None
    """That rate over the device's, where its bf16 rate is known."""
    peak_bytes: int | None
    """Most memory ever allocated on the device; None on a CPU."""
    whole: bool
    """Whether all views and steps were run, or one clip and one step scaled up."""


@dataclass(frozen=True)
class CostReport:
    """Everything that `dp360 bench diffusion` prints."""

    views: int
    """Views of the generation."""
    size_px: int
    """Side of a view."""
    flops: tuple[FlopCount, ...]
    """The release first, then ours."""
    parameters: dict[str, int]
    """Per component of the pipeline."""
    memory: tuple[MemoryEstimate, ...]
    """Per mode."""
    measurements: tuple[Measurement, ...]
    """Timed runs; none on the meta device."""

    def ratio(self, title: str) -> float:
        """How many times fewer operations than the release the networks spend in one of the other counts."""
        by_title = {count.title: count for count in self.flops}
        return self.flops[0].views / by_title[title].views

    def to_text(self) -> str:
        """Tables for a terminal."""
        lines = [f"{self.views} views of {self.size_px} px", "", *self._flop_lines(), "", "Parameters"]
        lines += [f"  {name:<22} {count / 1e6:9.1f} M" for name, count in self.parameters.items()]
        total = sum(self.parameters.values())
        in_gigabytes = ", ".join(f"{total * dtype.itemsize / 1e9:.1f} GB {name}" for name, dtype in DTYPES.items())
        lines += [f"  {'all':<22} {total / 1e6:9.1f} M   {in_gigabytes}", ""]
        lines += ["Peak memory (counted)    views at once   weights  activations      peak"]
        for m in self.memory:
            name = m.dtype + (", offload" if m.offload else "")
            figures = "".join(f"{x / 1e9:{w}.2f} GB" for x, w in ((m.weights, 7), (m.activations, 10), (m.peak, 7)))
            lines.append(f"  {name:<26} {8 * m.clips_per_batch:9}{figures}")
        for m in self.measurements:
            how = f"{m.dtype}, {8 * m.clips_per_batch} views at once, {m.steps} steps"
            share = "" if m.share_of_peak is None else f" ({100 * m.share_of_peak:.0f} % of its bf16 rate)"
            memory = "" if m.peak_bytes is None else f", peak {m.peak_bytes / 1e9:.2f} GB"
            scaled = "" if m.whole else ", scaled up from one clip and one step"
            lines += ["", f"Measured on {m.device}, {how}{scaled}:"]
            lines += [f"  {m.seconds_per_view:.3g} s per view, {m.flops_per_second / 1e12:.3g} TFLOP/s{share}{memory}"]
        return "\n".join(lines)

    def _flop_lines(self) -> Iterator[str]:
        rows = list(dict.fromkeys(itertools.chain(*(count.networks for count in self.flops))))
        extra = list(dict.fromkeys(itertools.chain(*(count.around for count in self.flops))))
        for number, count in enumerate(self.flops, 1):
            yield f"[{number}] {count.title}, {count.steps} steps"
        yield ""
        yield "TFLOP".ljust(36) + "".join(f"[{n}]".rjust(10) for n in range(1, len(self.flops) + 1))

        def line(name: str, values: Iterable[float], form: str = ".1f") -> str:
            return f"  {name:<34}" + "".join(f"{value:10{form}}" for value in values)

        for row in rows:
            yield line(row, (count.networks.get(row, 0.0) / 1e12 for count in self.flops))
        yield line("networks, all views", (count.views / 1e12 for count in self.flops))
        yield line("times fewer than [1]", (self.ratio(count.title) for count in self.flops), ".2f")
        for row in extra:
            yield line(row, (count.around.get(row, 0.0) / 1e12 for count in self.flops), ".2f")

    def to_json(self) -> str:
        """The same as JSON, with totals, ratios and peaks filled in."""
        data = dataclasses.asdict(self)
        for entry, count in zip(data["flops"], self.flops):
            entry |= {"views": count.views, "times_fewer_than_release": self.ratio(count.title)}
        for entry, estimate in zip(data["memory"], self.memory):
            entry["peak"] = estimate.peak
        return json.dumps(data, indent=2)


def cost_report(
    *,
    architecture: Architecture = OFFICIAL,
    views: int = 32,
    size_px: int = 512,
    steps: int = OFFICIAL_STEPS,
    device: CostDevice = "auto",
    track: Track = silent,
) -> CostReport:
    """Count, and measure where there is a device to measure on.

    Args:
        views: views of the generation, on one ring.
        size_px: side of a view, a multiple of 64.
        steps: of the comparison at equal output; the default sampler keeps its own number.
        device: `meta` counts only; `auto` measures on a GPU if there is one; `cpu` times one clip and one step.

    Raises:
        InputError: sizes that the networks cannot do, or a GPU asked for where there is none.
    """
    if views < 1 or steps < 1:
        raise InputError(f"Cannot count: expected at least one view and one step, got {views} and {steps}")
    if size_px < 64 or size_px % 64:
        raise InputError(f"Cannot count: expected size_px to be a multiple of 64, got {size_px}")
    target = _device(device)
    few = Sampling()
    asked: list[tuple[str, Way, int, Sampling | None]] = [
        ("the release", "release", steps, None),
        ("ours, equal output", "ours", steps, None),
        ("ours, default sampler", "ours", DEFAULT_STEPS, few),
        ("ours, default sampler, window_stride 4", "ours", DEFAULT_STEPS, replace(few, window_stride=4)),
    ]
    pipe = shapes_pipeline(architecture)
    flops = []
    for title, way, count, sampling in track(asked, total=len(asked), description="operations"):
        counted = count_flops(pipe, way, views=views, steps=count, size_px=size_px, sampling=sampling)
        flops.append(replace(counted, title=title))
    memory = estimate_memory(architecture, views=views, size_px=size_px, track=track)
    runs: list[tuple[str, int]] = []
    if target.type != "meta":
        runs = [("bf16", clips) for clips in CLIPS_PER_BATCH] if target.type == "cuda" else [("fp32", 1)]
    sizes = {"views": views, "size_px": size_px}
    measurements = tuple(
        measure(architecture, target, dtype=dtype, sampling=replace(few, clips_per_batch=clips), **sizes)
        for dtype, clips in track(runs, total=len(runs), description="time")
    )
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    parameters = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    return CostReport(views, size_px, tuple(flops), parameters, memory, measurements)


def _device(device: CostDevice) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "meta")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("Cannot measure on a GPU: this PyTorch sees none; use --device cpu or --device meta")
    return torch.device(device)


@torch.no_grad()
def estimate_memory(
    architecture: Architecture, *, views: int = 32, size_px: int = 512, track: Track = silent
) -> tuple[MemoryEstimate, ...]:
    """Peak memory per mode: the weights on the device and the tensors alive at the worst moment.

    One step of the pipeline's loop, up to its first clips, and the autoencoder are run on shapes. Included is every
    tensor that the code makes on the device; attention keeps no scores (fused kernels). Not included: what kernels and
    libraries take for themselves (workspaces of cuDNN, the CUDA context; several hundred MB together) and what the
    allocator holds back between blocks. F works on one view and stays below the views' stage.
    """
    runs = list(itertools.product(DTYPES, CLIPS_PER_BATCH))
    estimates = []
    for name, clips in track(runs, total=len(runs), description="memory"):
        pipe = shapes_pipeline(architecture, DTYPES[name])
        pipe.first_batch_only = True
        networks = pipe.networks_for_views()
        with ShapesOnly() as denoising:
            run_loop(pipe, networks, views, size_px, Sampling(steps=1, clips_per_batch=clips), META)
        with ShapesOnly() as coding:
            pipe.decode_latents(pipe.encode_pictures(torch.empty(1, 3, size_px, size_px, device=META)))
        stage = {networks.unet, networks.appearance, networks.camera_control, networks.view_consistency} - {None}
        everything = _weight_bytes(part for part in pipe.components.values() if isinstance(part, nn.Module))
        modes = [(False, everything, everything)]
        if name == "bf16":
            modes.append((True, _weight_bytes(stage), _weight_bytes([pipe.vae])))
        for offload, for_views, for_coding in modes:
            stages = [(for_views, denoising.peak_bytes), (for_coding, coding.peak_bytes)]
            estimates.append(MemoryEstimate(name, offload, clips, *max(stages, key=sum)))
    return tuple(sorted(estimates, key=lambda estimate: (-estimate.weights, estimate.clips_per_batch)))


def _weight_bytes(parts: Iterable[nn.Module]) -> int:
    tensors = itertools.chain(*(itertools.chain(part.parameters(), part.buffers()) for part in parts))
    return sum(tensor.nbytes for tensor in tensors)


@torch.no_grad()
def measure(
    architecture: Architecture,
    device: torch.device,
    *,
    dtype: str,
    views: int = 32,
    size_px: int = 512,
    sampling: Sampling | None = None,
) -> Measurement:
    """Time the pipeline's loop and the decoder with random weights, all networks resident (F only on a GPU).

    Args:
        device: on a GPU all views and steps are run, after two steps to warm up; elsewhere one clip and one step.
        dtype: name in `DTYPES`.
        sampling: None takes the default.
    """
    sampling = sampling or Sampling()
    steps = sampling.steps or DEFAULT_STEPS
    whole = device.type == "cuda"
    rows = views if whole else min(views, architecture.view_consistency.clip_length)
    timed_steps = steps if whole else 1
    pipe = _random_pipeline(architecture if whole else replace(architecture, own_back=False), device, DTYPES[dtype])
    networks = pipe.networks_for_views()
    if whole:
        run_loop(pipe, networks, rows, size_px, replace(sampling, steps=2), device)
        torch.cuda.reset_peak_memory_stats(device)
    start = _now(device)
    latents = run_loop(pipe, networks, rows, size_px, replace(sampling, steps=timed_steps), device)
    denoised = _now(device)
    pipe.decode_latents(latents if whole else latents[:1])
    decoded = _now(device)
    spent = count_flops(
        shapes_pipeline(architecture), "ours", views=rows, steps=timed_steps, size_px=size_px, sampling=sampling
    )
    rate = spent.views / (denoised - start)
    name = torch.cuda.get_device_name(device) if whole else device.type
    peak_rate = bf16_peak(name) if dtype == "bf16" else None
    return Measurement(
        device=name,
        dtype=dtype,
        clips_per_batch=sampling.clips_per_batch,
        steps=steps,
        seconds_per_view=(denoised - start) * steps / (timed_steps * rows)
        + (decoded - denoised) / (rows if whole else 1),
        flops_per_second=rate,
        share_of_peak=None if peak_rate is None else rate / peak_rate,
        peak_bytes=torch.cuda.max_memory_allocated(device) if whole else None,
        whole=whole,
    )


def bf16_peak(device_name: str) -> float | None:
    """Peak dense bf16 operations per second of a GPU by its name, or None for one that is not in the table."""
    return next((rate for part, rate in BF16_FLOPS_PER_SECOND.items() if part in device_name), None)


def _random_pipeline(architecture: Architecture, device: torch.device, dtype: torch.dtype) -> DiffPortrait360Pipeline:
    """Small normal weights, made on the device itself."""
    components = shapes_pipeline(architecture, dtype).components
    for part in components.values():
        if isinstance(part, nn.Module):
            part.to_empty(device=device)
            for tensor in itertools.chain(part.parameters(), part.buffers()):
                tensor.normal_(0.0, 0.02)
    return DiffPortrait360Pipeline(**components)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

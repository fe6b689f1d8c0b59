"""Held-out quality and cost of a splat fit on a head whose every side is known.

A composed head is rendered from the cameras of a generated data set (48 views) and from 16 others between them, which
the fit never sees. Variants: `clean`; `inconsistent` (every view but the first shifted by up to 2 px and its colours
multiplied by 0.9 to 1.1 per channel, one view showing somebody else); `inconsistent-plain`, the same views with the
robust parts off. Needs the head assets; run by hand:

    python tests/benchmarks/bench_fit.py --data PACK [--json FILE]
"""

from __future__ import annotations

import json
import os
import resource
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from torch import Tensor

from dp360.generation import Cameras, OrbitConfig, PointCloud, Provenance, ViewSet, look_at_origin
from dp360.generation.dataset.visual_hull import hull_points
from dp360.generation.files import write_bytes_atomically
from dp360.generation.synthetic.assets import asset_index
from dp360.generation.synthetic.compose import compose
from dp360.generation.synthetic.composed_recipe import sample_recipe
from dp360.generation.synthetic.parts import SyntheticHead
from dp360.generation.synthetic.rendering.renderer import HeadScene
from dp360.reconstruction.losses import ssim
from dp360.reconstruction.splat_fit import SplatFitConfig, fit_splats
from dp360.reconstruction.splats import Splats, render_splats

Variant = Literal["clean", "clean-plain", "inconsistent", "inconsistent-plain"]


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure, and where to write it."""

    data: Path
    """Folder of the head assets."""
    head: int = 0
    """Number of a held-out head."""
    stranger: int = 4
    """Number of the held-out head that one of the inconsistent views shows."""
    variants: tuple[Variant, ...] = ("clean", "inconsistent", "inconsistent-plain")
    """What to fit, one after another."""
    start: Literal["hull", "surface"] = "hull"
    """Start points: the visual hull of the alphas, or coarse samples of the surface, 1% of a head off."""
    size_px: int = 256
    """Side of the pictures."""
    fit: SplatFitConfig = field(default_factory=lambda: SplatFitConfig(iterations=1000))
    """How to fit."""
    seed: int = 0
    """Seed of the fit and of the spoiled views."""
    cache: Path | None = None
    """Folder that keeps the rendered pictures for the next time."""
    pictures: Path | None = None
    """Folder for held-out pictures beside the truth."""
    json: Path | None = None
    """File for all figures."""


@dataclass(frozen=True)
class HeldOut:
    """Views that no fit sees."""

    cameras: Cameras
    """16 of them."""
    rgb: Float[Tensor, "n h w 3"]
    """Over white."""
    alpha: Float[Tensor, "n h w"]
    """Coverage."""


def training_cameras(size_px: int) -> Cameras:
    """48 views, laid out as the product does."""
    return OrbitConfig(ring_count=28, upper_count=12, lower_count=8).cameras(size_px)


def held_out_cameras(size_px: int) -> Cameras:
    """16 views between those."""
    azimuth_rad = torch.deg2rad(torch.arange(16) * 22.5 + 11.25)
    elevation_rad = torch.deg2rad(torch.tensor([6.0, 20.0, -12.0, 28.0]).repeat(4))
    return look_at_origin(azimuth_rad, elevation_rad, size_px=size_px)


def benchmark_head(data: Path, number: int) -> SyntheticHead:
    """A held-out head by its number."""
    return compose(sample_recipe(number, asset_index(), "held_out"), data)


def rendered(config: BenchmarkConfig, number: int, cameras: Cameras, name: str) -> UInt8[np.ndarray, "n h w 4"]:
    """Straight RGBA of one head."""
    path = None if config.cache is None else config.cache / f"{name}_{number}_{cameras.width}_{len(cameras)}.npy"
    if path is not None and path.is_file():
        return np.load(path)
    views = HeadScene(benchmark_head(config.data, number)).render(cameras, supersample=4)
    rgba = (np.concatenate([views.rgb_unit, views.alpha_unit[..., None]], axis=-1) * 255 + 0.5).astype(np.uint8)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rgba)
    return rgba


def surface_samples(head: SyntheticHead, count: int, seed: int) -> PointCloud:
    """Points about 1% of a head off the surface, in the wrong colour: what a generator's surface is like."""
    rng = np.random.default_rng(seed)
    corners = np.concatenate([p.vertices_world[p.faces] for p in head.parts])
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normals, axis=1)
    inside = (np.abs(corners.mean(axis=1)) < 0.4).all(axis=1)
    chosen = rng.choice(len(area), count, p=area * inside / (area * inside).sum())
    weights = rng.dirichlet([1, 1, 1], count)
    points = np.einsum("nc,nck->nk", weights, corners[chosen])
    unit = normals[chosen] / np.maximum(area[chosen, None], 1e-12)
    wobble = 0.006 * np.sin(points @ rng.normal(0, 12, (3, 3))).sum(axis=1, keepdims=True) / 3**0.5
    return PointCloud(
        torch.from_numpy(points + unit * wobble).float(),
        torch.from_numpy(unit).float(),
        torch.full((count, 3), 0.5) + 0.1 * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)),
    )


def spoiled(
    rgba: UInt8[np.ndarray, "n h w 4"], stranger: UInt8[np.ndarray, "n h w 4"], seed: int
) -> tuple[UInt8[np.ndarray, "n h w 4"], int]:
    """Views that do not agree, and the number of the one that shows somebody else."""
    rng = np.random.default_rng(seed)
    victim = int(rng.integers(4, len(rgba) - 20))
    size = rgba.shape[2], rgba.shape[1]
    result = rgba.copy()
    for i in range(1, len(rgba)):
        picture = (stranger if i == victim else rgba)[i].astype(np.float32) / 255
        picture[..., :3] *= picture[..., 3:]
        shift = np.array([[1, 0, rng.uniform(-2, 2)], [0, 1, rng.uniform(-2, 2)]])
        moved = cv2.warpAffine(picture, shift, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        alpha = moved[..., 3:].clip(0, 1)
        straight = np.where(alpha > 0, moved[..., :3] / np.maximum(alpha, 1e-4), 1) * rng.uniform(0.9, 1.1, 3)
        result[i] = (np.concatenate([straight.clip(0, 1), alpha], axis=-1) * 255 + 0.5).astype(np.uint8)
    return result, victim


def views_of(config: BenchmarkConfig, rgba: UInt8[np.ndarray, "n h w 4"]) -> ViewSet:
    """A data set as a user would bring it: the portrait first, the rest trusted less."""
    cameras, pictures = training_cameras(config.size_px), torch.from_numpy(rgba)
    confidence = torch.full((len(rgba),), 0.7)
    confidence[0] = 1.0
    if config.start == "hull":
        surface = hull_points(pictures, cameras)
    else:
        surface = surface_samples(benchmark_head(config.data, config.head), 40_000, config.seed)
    names = ("portrait", *(f"view_{i:03d}" for i in range(1, len(rgba))))
    return ViewSet(pictures, cameras, confidence, names, surface, Provenance("composed", "none", 0, "0", "0"))


def held_out_figures(splats: Splats, truth: HeldOut, pictures: Path | None) -> dict[str, float]:
    """Means over the views that the fit has not seen."""
    rgb, alpha = render_splats(splats, truth.cameras)
    squared = (rgb - truth.rgb).square().mean(dim=(1, 2, 3))
    ours, theirs = alpha > 0.5, truth.alpha > 0.5
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for i, pair in enumerate(torch.cat([truth.rgb, rgb, (rgb - truth.rgb).abs() * 4], dim=2).numpy()):
            cv2.imwrite(str(pictures / f"held_out_{i:02d}.png"), (pair[..., ::-1].clip(0, 1) * 255).astype(np.uint8))
    return {
        "psnr": float((-10 * squared.log10()).mean()),
        "psnr_worst": float((-10 * squared.log10()).min()),
        "ssim": float(np.mean([float(ssim(a, b)) for a, b in zip(rgb, truth.rgb)])),
        "alpha_iou": float(((ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))).mean()),
    }


def measure(config: BenchmarkConfig, variant: Variant, rgba: np.ndarray, truth: HeldOut) -> dict[str, float]:
    """Fit once and look at it."""
    views = views_of(config, rgba)
    fit = config.fit
    if variant.endswith("plain"):
        fit = replace(fit, robust=replace(fit.robust, enabled=False))
    wall, process = time.perf_counter(), time.process_time()
    splats = fit_splats(views, fit, torch.Generator().manual_seed(config.seed))
    wall, process = time.perf_counter() - wall, time.process_time() - process
    pictures = None if config.pictures is None else config.pictures / variant
    return {
        **held_out_figures(splats, truth, pictures),
        "wall_s": wall,
        "process_s": process,
        "gaussians": len(splats),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main(config: BenchmarkConfig) -> None:
    """Measure, print a table, write the figures."""
    rgba = rendered(config, config.head, training_cameras(config.size_px), "training")
    true_rgba = torch.from_numpy(rendered(config, config.head, held_out_cameras(config.size_px), "held_out"))
    alpha = true_rgba[..., 3:].float() / 255
    over_white = true_rgba[..., :3].float() / 255 * alpha + 1 - alpha
    truth = HeldOut(held_out_cameras(config.size_px), over_white, alpha[..., 0])
    results: dict[str, dict[str, float]] = {}
    for variant in config.variants:
        pictures = rgba
        if variant.startswith("inconsistent"):
            stranger = rendered(config, config.stranger, training_cameras(config.size_px), "training")
            pictures, _ = spoiled(rgba, stranger, config.seed)
        results[variant] = measure(config, variant, pictures, truth)
        row = "  ".join(f"{key} {value:.4g}" for key, value in results[variant].items())
        print(f"{variant:>20}  {row}  load {os.getloadavg()[0]:.1f}", flush=True)
    if config.json is not None:
        data = {"results": results, "fit": asdict(config.fit), "cores": os.cpu_count(), "load": os.getloadavg()}
        write_bytes_atomically(config.json, json.dumps(data, indent=1).encode())


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig, description=__doc__))

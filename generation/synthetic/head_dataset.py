"""A composed head as training data: true views with normals and labels, the portrait, the prior's control pictures.

On disk it is a nerfstudio data set with everything else that is known beside it; normals, labels and control are there
unless views alone were asked for:

FOLDER/transforms.json, images/, masks/, sparse_pc.ply   as `dataset.write_dataset`
FOLDER/normals/NAME.png      true normals of the fitted frame, 127.5 * (n + 1); 0 where nothing is
FOLDER/labels/NAME.png       numbers of the labels that head.json names
FOLDER/control/NAME.png      what the prior shows from the same camera, RGBA; beside it control_validity and
                             control_normals, as `HeadData` says
FOLDER/portrait.png          the aligned portrait; portrait_alpha.png is its matte as it was estimated
FOLDER/portrait.npz          the same with its fitted head (`generation.portrait.encode_portrait`)
FOLDER/back.png              the true view from straight behind, RGBA
FOLDER/head.json             recipe, alignment, labels
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from ..cameras import Cameras, concatenate_cameras, look_at_origin
from ..dataset.view_dataset import png_bytes, write_dataset
from ..files import directory_written_atomically
from ..portrait import Portrait, encode_portrait
from ..views import PointCloud, Provenance, ViewSet
from .assets import field_rng
from .composed_recipe import ComposedRecipe
from .fitted_composed_head import FittedComposedHead
from .parts import Label
from .rendering.renderer import HeadViews, rgba_8_bits

Orbit = Literal["level", "swinging", "random", "grid"]
FACTS, PORTRAIT = "head.json", "portrait.npz"
_SURFACE_POINTS = 40_000
_ELEVATIONS_DEG = (-25.0, 45.0)
_GRID_ELEVATIONS_DEG = (0.0, 30.0, -20.0)


@dataclass(frozen=True)
class HeadData:
    """One head; all pictures are of one size."""

    views: ViewSet
    """True views in the fitted frame; view 0 is seen by the portrait's camera."""
    maps: dict[str, UInt8[np.ndarray, "n h w *c"]]
    """Pictures beside the views, by name: `normals`, true unit normals of the fitted frame as `127.5 * (n + 1)`, 0
    where nothing is; `labels`, `parts.Label`; `control`, what the prior, fitted to the portrait, shows from the same
    cameras, straight colour and alpha; `control_validity`, 255 times how far the portrait shows that surface;
    `control_normals`, the prior's normals, as `normals`. Empty where only views were asked for."""
    back: UInt8[np.ndarray, "h w 4"]
    """The true view from straight behind the fitted head."""
    portrait: Portrait
    """The portrait, prepared as a user's picture is."""
    facts: dict[str, object]
    """Recipe, alignment and label names as plain JSON data."""


def orbit_cameras(orbit: Orbit, count: int, size_px: int, seed: int) -> Cameras:
    """Cameras round the head.

    Args:
        orbit: `level`: even steps at the height of the eyes; `swinging`: even steps, rising and sinking along the way;
            `random`: anywhere between 25 degrees below and 45 above; `grid`: rings of even steps from the front at 0,
            30 and -20 degrees, of as many views each as possible.
        seed: of `swinging` and `random`.
    """
    rng = field_rng(seed, f"orbit/{orbit}")
    azimuth = np.arange(count) * (2 * math.pi / max(count, 1))
    low, high = np.deg2rad(_ELEVATIONS_DEG)
    match orbit:
        case "level":
            elevation = np.zeros(count)
        case "swinging":
            middle, swing = rng.uniform(-0.1, 0.25), rng.uniform(0.1, 0.45)
            wave = np.sin(azimuth * rng.integers(1, 4) + rng.uniform(0, 2 * math.pi))
            elevation = np.clip(middle + swing * wave, low, high)
        case "random":
            azimuth = rng.uniform(-math.pi, math.pi, count)
            elevation = rng.uniform(low, high, count)
        case "grid":
            rings = np.array_split(np.arange(count), len(_GRID_ELEVATIONS_DEG))
            azimuth = np.concatenate([np.arange(len(ring)) * (2 * math.pi / max(len(ring), 1)) for ring in rings])
            elevation = np.concatenate([np.full(len(r), math.radians(e)) for r, e in zip(rings, _GRID_ELEVATIONS_DEG)])
        case _:
            assert_never(orbit)
    return look_at_origin(torch.from_numpy(azimuth), torch.from_numpy(elevation), size_px=size_px)


def head_data(
    fitted: FittedComposedHead, recipe: ComposedRecipe, orbit: Orbit, view_count: int, size_px: int, seed: int,
    *, with_maps: bool = True,
) -> HeadData:  # fmt: skip
    """All that is kept of one head.

    Args:
        seed: of cameras, surface samples and the prior.
        with_maps: fit the prior and keep `maps`; without, only views and portrait are made.
    """
    own = fitted.portrait.head.camera.resized(size_px, size_px)
    behind = look_at_origin([math.pi], [0.0], size_px=size_px)
    cameras = concatenate_cameras([own, orbit_cameras(orbit, view_count, size_px, seed)])
    truth = fitted.true_views(cameras)
    back = fitted.true_views(behind)
    maps: dict[str, np.ndarray] = {}
    weights = "none"
    if with_maps:
        prior = fitted.prior(seed=seed)
        rendered, weights = prior.render(cameras), prior.weights_name
        maps = {
            "normals": _normals(truth.normals_world),
            "labels": truth.labels,
            "control": rgba_8_bits(rendered.rgb, rendered.alpha),
            "control_validity": np.round(255 * rendered.validity).astype(np.uint8),
            "control_normals": _normals(rendered.normals_world),
        }
    views = ViewSet(
        rgba=torch.from_numpy(truth.rgba),
        cameras=cameras,
        confidence=torch.ones(len(cameras)),
        names=("portrait", *(f"view_{k:03d}" for k in range(view_count))),
        surface=_surface(truth, cameras, seed),
        provenance=Provenance(
            generator="composed head",
            weights=weights,
            seed=seed,
            input_sha256=fitted.portrait.source_sha256,
            statement="Composed 3D head with true views, rendered by dp360",
            settings={"head": fitted.head.name, "orbit": orbit},
        ),
    )
    move = fitted.fit_from_true
    facts: dict[str, object] = {
        "recipe": asdict(recipe),
        "assets": list(fitted.head.assets),
        "style": fitted.head.style,
        "seed": seed,
        "crop": fitted.portrait.crop,
        "notices": list(fitted.portrait.notices),
        "fit_from_true": {"scale": move.scale, "R": move.R.tolist(), "shift": move.shift.tolist()},
        "labels": {label.name.lower(): int(label) for label in Label},
    }
    return HeadData(views, maps, back.rgba[0], fitted.portrait, facts)


def _normals(normals_world: Float32[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n h w 3"]:
    return np.where(normals_world.any(-1, keepdims=True), 127.5 * (normals_world + 1) + 0.5, 0).astype(np.uint8)


def _surface(truth: HeadViews, cameras: Cameras, seed: int) -> PointCloud:
    """Points of the true surface, drawn from the pixels of all views."""
    view, row, column = np.nonzero(np.isfinite(truth.depth) & (truth.alpha_unit > 0.9))
    rng = field_rng(seed, "surface")
    chosen = rng.integers(0, len(view), _SURFACE_POINTS) if len(view) else np.zeros(0, np.int64)
    view, row, column = view[chosen], row[chosen], column[chosen]
    depth = truth.depth[view, row, column].astype(np.float64)
    focal, principal = cameras.focal_px.numpy()[view], cameras.principal_px.numpy()[view]
    rays = (np.stack([column, row], axis=1) + 0.5 - principal) / focal
    points = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * depth[:, None]
    T = cameras.T_world_camera.numpy()[view]
    world: Float[np.ndarray, "p 3"] = np.einsum("pij,pj->pi", T[:, :3, :3], points) + T[:, :3, 3]
    picked = (world, truth.normals_world[view, row, column], truth.rgb_unit[view, row, column])
    return PointCloud(*(torch.from_numpy(a.astype(np.float32)) for a in picked))


def write_head_dataset(data: HeadData, folder: Path) -> None:
    """Write a head, whole or not at all; the same head gives the same bytes.

    Args:
        folder: of this head alone; an earlier one there is replaced when the new one is complete.

    Raises:
        InputError: the folder cannot be written.
    """
    text = json.dumps(data.facts, indent=1, allow_nan=False, sort_keys=True)
    with directory_written_atomically(folder) as temporary:
        write_dataset(data.views, temporary / "views")
        for entry in sorted((temporary / "views").iterdir()):
            os.replace(entry, temporary / entry.name)
        (temporary / "views").rmdir()
        for name, pictures in data.maps.items():
            (temporary / name).mkdir()
            for view, picture in zip(data.views.names, pictures):
                (temporary / name / f"{view}.png").write_bytes(png_bytes(picture))
        matte = np.round(255 * data.portrait.alpha_unit).astype(np.uint8)
        for name, picture in (("portrait", data.portrait.rgb), ("portrait_alpha", matte), ("back", data.back)):
            (temporary / f"{name}.png").write_bytes(png_bytes(picture))
        (temporary / PORTRAIT).write_bytes(encode_portrait(data.portrait))
        (temporary / FACTS).write_text(text + "\n", encoding="utf-8")

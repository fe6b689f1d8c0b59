"""The one road, which `dp360` and ns-train both take: portrait -> data set, data set -> splats, splats -> files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from dp360.exporters import mesh_glb, portrait_png, splat_ply, write_head
from dp360.exporters.head_files import PORTRAIT_NAME, SPLATS_NAME
from dp360.generation import InputError, ViewGenerator, ViewSet
from dp360.generation.dataset.view_dataset import TRANSFORMS, write_dataset
from dp360.generation.files import write_bytes_atomically
from dp360.generation.head_model import load_head_model
from dp360.generation.portrait import Portrait, PortraitConfig, prepare_portrait
from dp360.generation.prior import HeadPrior, build_head_prior
from dp360.generation.prior.saved_fit import SavedFit
from dp360.generation.progress import Track, silent
from dp360.generation.system import give_back_memory
from dp360.reconstruction.prepare import fit_threads
from dp360.reconstruction.splat_fit import FitNotFinite, SplatFitConfig, fit_splats, splats_from_parameters
from dp360.reconstruction.splats import Splats

from .console import Notify, ignore
from .given_pictures import read_given
from .options import HeadOptions
from .recipe import HeadRecipe
from .run_folder import DATASET_NAME, HEAD_FIT_NAME, PRIOR_MESH_NAME, RunRecord
from .view_generators import OpenViews, open_generator

LAST_GOOD_NAME = "last_good.ply"
"""Splats of a fit in which a number was not finite any more, as they were before."""


@dataclass(frozen=True)
class PreparedHead:
    """A portrait and its prior: what views are made of."""

    portrait: Portrait
    prior: HeadPrior


@dataclass(frozen=True)
class PortraitViews:
    """What stands in a folder once a portrait has become a data set."""

    views: ViewSet
    """The views; `dataset` holds the same on disk."""
    portrait_rgb: UInt8[Tensor, "h w 3"]
    """The aligned portrait."""
    files: tuple[Path, ...]
    """portrait.png, prior.glb (the prior's own mesh), head_fit.npz (what a rig is made of) and the folder dataset."""


def aligned_portrait(options: HeadOptions, *, track: Track = silent, notify: Notify = ignore) -> Portrait:
    """The portrait, found, cut out and aligned as the options say; what is worth knowing about it is told.

    Raises:
        InputError: the picture cannot be used.
    """
    config = PortraitConfig(
        crop=options.crop, face_index=options.face_index, no_face=options.no_face, matte=options.matte
    )
    portrait = prepare_portrait(options.portrait, config, track=track)
    for notice in portrait.notices:
        notify(notice)
    return portrait


def portrait_to_dataset(
    options: HeadOptions,
    recipe: HeadRecipe,
    folder: Path,
    record: RunRecord,
    *,
    track: Track = silent,
    notify: Notify = ignore,
    open_views: OpenViews = open_generator,
) -> PortraitViews:
    """Align the portrait, build its prior, make the views and write them.

    Args:
        options: the portrait and how it is treated; the generator's name is settled already.
        open_views: opens the view generator.

    Raises:
        InputError: the picture or a setting cannot be used, or the folder cannot be written.
    """
    refuse_other_dataset(folder)
    cameras = recipe.orbit.cameras(recipe.size_px)
    given = read_given(options, cameras)
    with record.stage("portrait"):
        portrait = aligned_portrait(options, track=track, notify=notify)
    with record.stage("weights"):
        view_generator = open_views(options, given, cameras, track=track)
    with record.stage("prior"):
        prior = prior_of(portrait, options, recipe)
    return prior_to_dataset(PreparedHead(portrait, prior), view_generator, options, recipe, folder, record, track=track)


def prior_of(portrait: Portrait, options: HeadOptions, recipe: HeadRecipe) -> HeadPrior:
    """The head prior of a portrait, as the options and their recipe say; the generator's name is settled already."""
    drawn, glasses = options.generator == "field", not options.no_glasses
    prior = build_head_prior(
        portrait, seed=options.seed, drawn=drawn, glasses=glasses, light=options.light, texel_step=recipe.texel_step
    )
    give_back_memory()
    return prior


def prior_to_dataset(
    prepared: PreparedHead,
    view_generator: ViewGenerator,
    options: HeadOptions,
    recipe: HeadRecipe,
    folder: Path,
    record: RunRecord,
    *,
    track: Track = silent,
) -> PortraitViews:
    """Make the views of a prepared head and write them, as `portrait_to_dataset` does.

    Raises:
        InputError: something else stands where the data set goes, or the folder cannot be written.
    """
    portrait, prior = prepared.portrait, prepared.prior
    names = (PORTRAIT_NAME, PRIOR_MESH_NAME, HEAD_FIT_NAME, DATASET_NAME)
    portrait_path, mesh_path, fit_path, dataset_path = paths = tuple(folder / name for name in names)
    refuse_other_dataset(folder)
    with record.stage("views"):
        generator = torch.Generator().manual_seed(options.seed)
        views = view_generator.generate(portrait, prior, recipe.orbit.cameras(recipe.size_px), generator, track=track)
    with record.stage("dataset"), ThreadPoolExecutor(3) as beside:
        fitted, mesh = SavedFit.of(portrait, prior, load_head_model().weights_name), prior.textured_mesh()
        encoders = {
            portrait_path: lambda: portrait_png.encode(portrait, views.provenance),
            mesh_path: lambda: mesh_glb.encode(mesh, views.provenance),
            fit_path: fitted.encode,
        }
        # a disk takes its time for each file; for several at once it takes hardly more
        written = [beside.submit(lambda p, e: write_bytes_atomically(p, e()), *file) for file in encoders.items()]
        write_dataset(views, dataset_path)
        for file in written:
            file.result()
    return PortraitViews(views, torch.from_numpy(portrait.rgb), paths)


def refuse_other_dataset(folder: Path) -> None:
    """See that what stands where the data set goes is one.

    Raises:
        InputError: it is something else.
    """
    path = folder / DATASET_NAME
    if path.exists() and not (path / TRANSFORMS).is_file():
        raise InputError(f"{path} exists and is no data set; move it away or choose another --output")


def fit_views(
    views: ViewSet, config: SplatFitConfig, seed: int, device: str, folder: Path, *, track: Track = silent
) -> Splats:
    """`fit_splats`; what was reached is kept when it stops early.

    When it is interrupted, the splats reached so far are written to `folder` as head.ply; when a number is not finite
    any more, those before are written as `LAST_GOOD_NAME`, and nothing else changes.

    Raises:
        InputError: a number is not finite any more.
    """
    reached: dict[str, Any] = {}

    def remember(step: int, loss: float, params: Any) -> None:
        reached.update(step=step, params=params)

    generator = torch.Generator().manual_seed(seed)
    size_px = round(config.picture_scale(config.iterations // 2) * views.cameras.width)
    threads = fit_threads(track, gaussians=config.start_count, size_px=size_px) if device == "cpu" else nullcontext()
    try:
        with threads:
            return fit_splats(views, config, generator, track=track, on_iteration=remember, device=device)
    except KeyboardInterrupt:
        with suppress(ValueError, KeyError):  # stopped in the middle of a step that changes the number of Gaussians
            splats = splats_from_parameters(reached["params"])
            settings = {**views.provenance.settings, "stopped_at_iteration": reached["step"]}
            provenance = replace(views.provenance, settings=settings)
            write_bytes_atomically(folder / SPLATS_NAME, splat_ply.encode(splats, provenance))
        raise
    except FitNotFinite as error:
        settings = {**views.provenance.settings, "stopped_at_iteration": error.step}
        provenance = replace(views.provenance, settings=settings)
        write_bytes_atomically(folder / LAST_GOOD_NAME, splat_ply.encode(error.last_good, provenance))
        raise InputError(
            f"The fit was stopped: {error}; the splats before it are in {folder / LAST_GOOD_NAME}. Try another --seed, "
            "or smaller learning rates if you changed them"
        ) from error


def finish_head(
    splats: Splats,
    views: ViewSet,
    portrait_rgb: UInt8[Tensor, "h w 3"] | None,
    folder: Path,
    record: RunRecord,
    *,
    earlier: tuple[Path, ...] = (),
    track: Track = silent,
) -> tuple[Path, ...]:
    """Fitted splats become head.ply, head.glb, contact_sheet.png and, last, dp360.json.

    Args:
        portrait_rgb: the aligned portrait for the sheet; the first view where there is none.
        record: measures the stage, and becomes dp360.json.
        earlier: files of the same run that stand there already.

    Returns:
        All files of the run.
    """
    with record.stage("export"):
        files = (*earlier, *write_head(folder, splats, views, portrait_rgb=portrait_rgb, track=track))
    return (*files, record.write(views.provenance.input_sha256, files))


def settings_of(command: Any, recipe: HeadRecipe | SplatFitConfig) -> dict[str, Any]:
    """What dp360.json says about a run beside its files: what was asked for, and the numbers in force."""
    return {"command": asdict(command), "recipe": asdict(recipe)}

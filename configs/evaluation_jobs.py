"""What `dp360 eval` does: reads what is to be judged and hands it to `reconstruction.evaluation`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import UInt8

from dp360.generation import InputError, ViewSet, look_at_origin
from dp360.generation.dataset.view_dataset import read_dataset
from dp360.generation.portrait import prepare_portrait
from dp360.generation.prior import PriorGenerator, build_head_prior
from dp360.reconstruction.evaluation.compare import NamedViews, compare_views
from dp360.reconstruction.evaluation.consistency import measure_consistency
from dp360.reconstruction.evaluation.features import open_perceptual
from dp360.reconstruction.evaluation.heads import (
    HeadsConfig,
    dataset_sha256,
    deciding_facts,
    evaluate_head,
    head_folders,
    read_head,
    read_head_result,
    write_head_result,
)
from dp360.reconstruction.evaluation.identity import FaceEmbedder, measure_identity
from dp360.reconstruction.evaluation.pose import FaceRotationFit, measure_pose
from dp360.reconstruction.evaluation.reports import (
    consistency_result,
    fields_result,
    heads_result,
    identity_result,
    origin_of,
    pose_result,
    views_result,
)
from dp360.reconstruction.evaluation.results import EvaluationResult, unique_names
from dp360.reconstruction.prepare import fit_threads
from dp360.reconstruction.splat_fit import SplatFitConfig

from .data import DataHeadsCommand, make_heads
from .device import choose_device
from .evaluate import (
    EvalAblationCommand,
    EvalConsistencyCommand,
    EvalFieldsCommand,
    EvalHeadsCommand,
    EvalIdentityCommand,
    EvalPhotosCommand,
    EvalPoseCommand,
    EvalViewsCommand,
    EvalWhat,
)
from .photo_jobs import evaluate_photos
from .processes import in_processes
from .run_folder import aligned_portrait_rgb, dataset_folder
from .splits import split_of_word
from .variants import GENERATOR_VARIANTS, compact_weights_name, open_sources, source_name

if TYPE_CHECKING:
    from dp360.generation.prior.field.field_autoencoder import FieldAutoencoder
    from dp360.generation.prior.field.mean_network import FieldMeanNet
    from dp360.generation.training.field_samples import FieldSamples
    from dp360.generation.training.sample_figures import SampleFigures

    from .console import Display

GRID_VIEWS, GRID_SIZE_PX = 72, 512
"""True views of the benchmark: 24 azimuths at three elevations."""
_VIEW_PX = 512


def measure_heads_or_views(what: EvalWhat, display: Display) -> EvaluationResult:
    """Measure what was asked for.

    Raises:
        InputError: data that cannot be judged, with the file's name, or something that is not installed.
    """
    measures: dict[type, Callable[[Any, Display], EvaluationResult]] = {
        EvalViewsCommand: _evaluate_views,
        EvalIdentityCommand: _evaluate_identity,
        EvalPoseCommand: _evaluate_pose,
        EvalConsistencyCommand: _evaluate_consistency,
        EvalFieldsCommand: _evaluate_fields,
        EvalPhotosCommand: evaluate_photos,
        EvalHeadsCommand: _evaluate_heads,
        EvalAblationCommand: _evaluate_heads,
    }
    return measures[type(what)](what, display)


def _evaluate_fields(command: EvalFieldsCommand, display: Display) -> EvaluationResult:
    """The field networks: the expected field with and without meeting what is seen, the baseline, and samples."""
    from dp360.generation.prior.field.field_autoencoder import FIELD_AUTOENCODER
    from dp360.generation.prior.field.mean_network import FIELD_MEAN, estimate_field, expected_field
    from dp360.generation.training.field_autoencoder_training import reconstruction_figures
    from dp360.generation.training.field_figures import continued_field, measure_fields
    from dp360.generation.training.field_samples import FieldSamples, field_paths
    from dp360.generation.training.sample_figures import DIFFUSION, GAUSSIAN, TRUE_RESIDUALS

    if command.portraits < 1:
        raise InputError(f"--portraits must be at least 1, got {command.portraits}")
    if command.samples < 2:
        raise InputError(f"--samples must be at least 2, got {command.samples}")
    if command.diffusion is not None and command.autoencoder is None:
        raise InputError("--diffusion needs the autoencoder that it was trained with: expected --autoencoder FILE")
    loaded = FIELD_MEAN.read(command.weights)
    split = split_of_word(command.split)
    samples = FieldSamples.read(field_paths(command.data, split), most=command.portraits)
    answers = {
        "mean": partial(estimate_field, loaded=loaded),
        "mean, seen cells not met": partial(expected_field, loaded=loaded),
        "nearest known cell": continued_field,
    }
    numbers = display.track(range(len(samples)), total=len(samples), description="Estimating fields")
    found = measure_fields(answers, map(samples.of, numbers))
    weights = [f"{command.weights.name} (sha256 {loaded.sha256[:16]})"]
    drawn = {}
    if command.autoencoder is not None:
        autoencoder = FIELD_AUTOENCODER.read(command.autoencoder)
        weights.append(f"{command.autoencoder.name} (sha256 {autoencoder.sha256[:16]})")
        numbers = display.track(range(len(samples)), total=len(samples), description="There and back")
        found["truth, there and back"] = reconstruction_figures(autoencoder.network, map(samples.of, numbers))
        if command.diffusion is not None:
            drawn, name = _drawn_fields(command, loaded.network, autoencoder.network, samples, display)
            weights.append(name)
            found |= {name: drawn[name].single for name in (DIFFUSION, GAUSSIAN, TRUE_RESIDUALS)}
    facts = {"weights": ", ".join(weights), "version": importlib.metadata.version("dp360")}
    return fields_result(found, len(samples), split, facts, drawn)


def _drawn_fields(
    command: EvalFieldsCommand,
    mean: FieldMeanNet,
    autoencoder: FieldAutoencoder,
    samples: FieldSamples,
    display: Display,
) -> tuple[dict[str, SampleFigures], str]:
    """Figures of samples, of what they have to be better than, and the name of their weights."""
    from dp360.generation.prior.field.field_denoiser import FIELD_DENOISER
    from dp360.generation.prior.field.field_grain import FIELD_GRAIN
    from dp360.generation.prior.field.field_pipeline import FieldPipeline
    from dp360.generation.training.field_residuals import RESIDUALS_NAME, GaussianResiduals
    from dp360.generation.training.sample_figures import measure_samples, ways_to_draw

    assert command.diffusion is not None
    denoiser = FIELD_DENOISER.read(command.diffusion)
    grain = None if command.grain is None else FIELD_GRAIN.read(command.grain)
    gaussian = GaussianResiduals.read(command.diffusion.parent / RESIDUALS_NAME)
    try:
        pipeline = FieldPipeline.of(mean, autoencoder, denoiser.network, None if grain is None else grain.network)
        draws = ways_to_draw(pipeline, gaussian, command.samples, command.guidance)
        numbers = display.track(range(len(samples)), total=len(samples), description="Drawing fields")
        found = measure_samples(draws, map(samples.of, numbers), pipeline, seed=command.seed)
    except RuntimeError as error:  # torch: shapes that do not go together
        raise InputError(f"{command.diffusion} does not go with {command.autoencoder}: {error}") from error
    named = [(command.diffusion, denoiser), *([] if grain is None else [(command.grain, grain)])]
    return found, ", ".join(f"{path.name} (sha256 {loaded.sha256[:16]})" for path, loaded in named if path)


def _evaluate_views(command: EvalViewsCommand, display: Display) -> EvaluationResult:
    """A data set of views against one of true views."""
    folders = [dataset_folder(folder) for folder in (command.prediction, command.truth)]
    prediction, truth = (NamedViews(read_dataset(folder), str(folder)) for folder in folders)
    compared = compare_views(
        prediction, truth, open_perceptual(command.perceptual),
        skip_missing=command.skip_missing, track=display.track,
    )  # fmt: skip
    hashes = [dataset_sha256(folder) for folder in folders]
    facts = {**origin_of(prediction.views, hashes[0]), "truth_sha256": hashes[1]}
    return views_result(compared, NamedViews(prediction.views, folders[0].name), truth, facts)


def _evaluate_identity(command: EvalIdentityCommand, display: Display) -> EvaluationResult:
    """Portraits against views at the azimuths asked for."""
    paths = [*command.image, *command.run]
    if not paths:
        raise InputError("Expected portraits (--image) or folders of dp360 run (--run), got neither")
    rows, hashes, weights = {}, {}, {}
    embedder = FaceEmbedder()
    named = list(zip(unique_names(paths), paths))
    for name, path in display.track(named, total=len(named), description="Identity"):
        if path in command.run:
            aligned, views = aligned_portrait_rgb(path), read_dataset(dataset_folder(path))
            if aligned is None:
                raise InputError(f"No portrait in {path}; expected a folder that dp360 run or dp360 views has made")
            portrait = aligned.numpy()
            hashes[name] = dataset_sha256(dataset_folder(path))
        else:
            portrait, views = _prior_views(path, command.azimuths, command.seed)
            hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        weights[name] = views.provenance.weights
        rows[name] = measure_identity(portrait, views, embedder, command.azimuths)
    facts = {"version": importlib.metadata.version("dp360"), "weights": weights, "seed": command.seed}
    return identity_result(rows, command.azimuths, {**facts, "data_sha256": hashes})


def _evaluate_pose(command: EvalPoseCommand, display: Display) -> EvaluationResult:
    """Intended against estimated cameras of data sets."""
    reports, hashes, weights = {}, {}, {}
    faces = FaceRotationFit()
    for name, path in zip(unique_names(command.data), command.data):
        folder = dataset_folder(path)
        views = read_dataset(folder)
        reports[name] = measure_pose(views, face_rotation=faces, track=display.track)
        hashes[name], weights[name] = dataset_sha256(folder), views.provenance.weights
    facts = {"version": importlib.metadata.version("dp360"), "weights": weights, "data_sha256": hashes}
    return pose_result(reports, facts)


def _evaluate_consistency(command: EvalConsistencyCommand, display: Display) -> EvaluationResult:
    """A data set against itself."""
    folder, device = dataset_folder(command.data), choose_device(command.device)
    views = read_dataset(folder)
    fit = SplatFitConfig(iterations=command.iterations)
    size_px = round(fit.coarse_scale * views.cameras.width)
    on_cpu = fit_threads(display.track, gaussians=fit.start_count, size_px=size_px)
    with on_cpu if device == "cpu" else contextlib.nullcontext():
        report = measure_consistency(
            views, fit, open_perceptual(command.perceptual), seed=command.seed, device=device, track=display.track
        )
    facts = {**origin_of(views, dataset_sha256(folder)), "fit_seed": command.seed}
    return consistency_result(report, folder.name, facts)


def _prior_views(path: Path, azimuths_deg: tuple[float, ...], seed: int) -> tuple[UInt8[np.ndarray, "h w 3"], ViewSet]:
    """The aligned portrait and the prior's level views at some azimuths."""
    portrait = prepare_portrait(path)
    cameras = look_at_origin([math.radians(a) for a in azimuths_deg], [0.0] * len(azimuths_deg), size_px=_VIEW_PX)
    prior = build_head_prior(portrait, seed=seed)
    views = PriorGenerator().generate(portrait, prior, cameras, torch.Generator().manual_seed(seed))
    return portrait.rgb, replace(views, names=("portrait", *(f"azimuth_{a:g}" for a in azimuths_deg)))


def _evaluate_heads(command: EvalHeadsCommand, display: Display) -> EvaluationResult:
    """Measure every generator on every head that has no result yet, then sum up.

    Raises:
        InputError: unknown generators, too few heads, or damaged data.
    """
    _refuse_nonsense(command)
    unusual = [g for g in command.generators if "=" in g or g not in GENERATOR_VARIANTS]
    open_sources(unusual, None)  # a slip costs no time
    folders = _heads(command, display)
    work = [(generator, str(folder)) for folder in folders for generator in command.generators]
    todo = [item for item in work if not _up_to_date(command, *item)]
    measured = in_processes(partial(_measure, command), todo, command.jobs)
    for _ in display.track(measured, total=len(todo), description="Heads"):
        pass
    results = {
        source_name(generator): [
            read_head_result(_results_folder(command, generator), folder.name) for folder in folders
        ]
        for generator in command.generators
    }
    about = {name: GENERATOR_VARIANTS[name].about for name in results if name in GENERATOR_VARIANTS}
    return heads_result(results, _config(command), about, ablation=isinstance(command, EvalAblationCommand))


def _heads(command: EvalHeadsCommand, display: Display) -> list[Path]:
    """The folders of the heads, made first where --data is given."""
    if command.data is not None:
        asked, found = command.heads, 0
        while found < command.heads:  # heads whose face is not found are replaced by the ones that follow
            made = make_heads(
                DataHeadsCommand(
                    command.data, command.benchmark, asked, split="held-out", views=GRID_VIEWS, size=GRID_SIZE_PX,
                    orbit="grid", maps=False, jobs=command.jobs,
                ),
                display,
            )  # fmt: skip
            if asked > 4 * command.heads + 16:
                raise InputError(f"Only {len(made)} of {asked} heads could be made in {command.benchmark}")
            found, asked = len(made), asked + command.heads - len(made)
    return head_folders(command.benchmark, command.heads)


def _results_folder(command: EvalHeadsCommand, generator: str) -> Path:
    return command.output / "heads" / source_name(generator)


def _measure(command: EvalHeadsCommand, item: tuple[str, str]) -> None:
    """Measure one head with one generator and write what was found."""
    generator, folder = item
    case, source = _case(Path(folder), command.views), _sources((generator,), command.weights)[0]
    result = evaluate_head(case, source, _config(command), _perceptual(command.perceptual))
    write_head_result(_results_folder(command, generator), result)


def _up_to_date(command: EvalHeadsCommand, generator: str, folder: str) -> bool:
    """Whether a result is there that the same settings, data, version and compact weights gave."""
    path = _results_folder(command, generator) / f"{Path(folder).name}.json"
    if not path.is_file():
        return False
    found = read_head_result(path.parent, path.stem)
    expected = deciding_facts(dataset_sha256(Path(folder)), _config(command), _perceptual(command.perceptual))
    weights = compact_weights_name(generator)
    if weights is not None and not str(found.facts.get("weights")).startswith(weights):
        return False
    return all(found.facts.get(name) == value for name, value in expected.items())


def _config(command: EvalHeadsCommand) -> HeadsConfig:
    return HeadsConfig(stage=command.stage, most_views=command.views, seed=command.seed)


_perceptual = cache(open_perceptual)
_sources = cache(open_sources)
_case = lru_cache(maxsize=1)(read_head)  # a head is large; the next piece of work is often another generator on it


def _refuse_nonsense(command: EvalHeadsCommand) -> None:
    for name, value in (("heads", command.heads), ("jobs", command.jobs), ("views", command.views)):
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    if not command.generators:
        raise InputError(f"Expected --generators, one or more of {', '.join(GENERATOR_VARIANTS)}, or NAME=FOLDER")
    if len({source_name(given) for given in command.generators}) < len(command.generators):
        raise InputError(f"Expected different names of generators, got {', '.join(command.generators)}")

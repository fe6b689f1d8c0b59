"""`dp360 eval`: reads what is to be judged, hands it to `reconstruction.evaluation`, writes results and says them."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from typing_extensions import assert_never

from dp360.exporters.head_files import PORTRAIT_NAME
from dp360.generation import InputError, ViewSet, look_at_origin
from dp360.generation.dataset.view_dataset import read_dataset
from dp360.generation.portrait import prepare_portrait
from dp360.generation.prior import PriorGenerator, build_head_prior
from dp360.generation.progress import Track
from dp360.reconstruction.evaluation.compare import METRICS, Comparison, NamedViews, compare_views, summarise
from dp360.reconstruction.evaluation.consistency import ConsistencyConfig, ConsistencyReport, measure_consistency
from dp360.reconstruction.evaluation.features import open_perceptual
from dp360.reconstruction.evaluation.heads import dataset_sha256
from dp360.reconstruction.evaluation.identity import FaceEmbedder, IdentityAt, measure_identity
from dp360.reconstruction.evaluation.pose import FaceRotationFit, PoseReport, measure_pose
from dp360.reconstruction.evaluation.results import (
    Curve,
    Panel,
    Result,
    Table,
    plain,
    summary_data,
    summary_panels,
    summary_table,
    write_result,
)
from dp360.reconstruction.evaluation.sheet import column_titles, labelled_sheet, strip
from dp360.reconstruction.fit import SplatFitConfig
from dp360.reconstruction.prepare import fit_threads

from .device import choose_device
from .evaluation_commands import (
    EvalCommand,
    EvalConsistencyCommand,
    EvalHeadsCommand,
    EvalIdentityCommand,
    EvalPoseCommand,
    EvalViewsCommand,
)
from .evaluation_heads import evaluate_heads
from .pipeline import dataset_folder

_VIEW_PX = 512


def evaluate(command: EvalCommand, *, track: Track, notify: Callable[[str], None]) -> tuple[Result, list[Path]]:
    """Measure what the command names.

    Returns:
        The result and the files that it was written to.

    Raises:
        InputError: data that cannot be judged, with the file's name, or something that is not installed.
    """
    what = command.what
    match what:
        case EvalViewsCommand():
            result = evaluate_views(what, track=track)
        case EvalIdentityCommand():
            result = evaluate_identity(what, track=track)
        case EvalPoseCommand():
            result = evaluate_pose(what, track=track)
        case EvalConsistencyCommand():
            result = evaluate_consistency(what, track=track)
        case EvalHeadsCommand():  # and ablation, which is one
            result = evaluate_heads(what, track=track, notify=notify)
        case _:
            assert_never(what)
    return result, write_result(what.output, result)


def evaluate_views(command: EvalViewsCommand, *, track: Track) -> Result:
    """A data set of views against one of true views."""
    prediction, truth = (dataset_folder(folder) for folder in (command.prediction, command.truth))
    ours, true = read_dataset(prediction), read_dataset(truth)
    perceptual = None if command.perceptual == "none" else open_perceptual(command.perceptual)
    compared = compare_views(
        NamedViews(ours, str(prediction)), NamedViews(true, str(truth)), perceptual,
        skip_missing=command.skip_missing, track=track,
    )  # fmt: skip
    facts = _facts(ours, prediction) | {"truth_sha256": dataset_sha256(truth), "perceptual": compared.perceptual}
    summary = summarise([compared.rows])
    metrics = [m for m in METRICS if any(not math.isnan(row.values[m]) for row in compared.rows)]
    picture = labelled_sheet("Truth, prediction, error", [(prediction.name, strip(ours, true))], column_titles(true))
    return Result(
        facts,
        {"summary": summary_data(summary), "views": _view_rows(compared)},
        (summary_table(f"{len(compared.rows)} views of {prediction.name}", {"views": summary}, metrics),),
        summary_panels({"views": summary}, metrics[:4]),
        picture,
        compared.notices,
    )


def evaluate_identity(command: EvalIdentityCommand, *, track: Track) -> Result:
    """Portraits against views at the azimuths asked for."""
    if not command.image and not command.run:
        raise InputError("Expected portraits (--image) or folders of dp360 run (--run), got neither")
    rows: dict[str, tuple[IdentityAt, ...]] = {}
    facts: dict[str, Any] = {"weights": "", "seed": command.seed}
    work: list[Path] = [*command.image, *command.run]
    with FaceEmbedder() as embedder:
        for path in track(work, total=len(work), description="Identity"):
            if path in command.run:
                views = read_dataset(dataset_folder(path))
                portrait = _picture(path / PORTRAIT_NAME)
            else:
                portrait, views = _prior_views(path, command.azimuths, command.seed)
            facts["weights"] = views.provenance.weights
            rows[path.stem] = measure_identity(portrait, views, embedder, command.azimuths)
    facts = {"version": importlib.metadata.version("dp360"), **facts}
    facts["data_sha256"] = {path.stem: _input_hash(path) for path in work}
    columns = ("portrait", *(f"{azimuth:g}°" for azimuth in command.azimuths))
    cells = tuple((name, *(_identity_cell(at) for at in found)) for name, found in rows.items())
    mean = ("mean", *(_identity_mean([found[k] for found in rows.values()]) for k in range(len(command.azimuths))))
    order = sorted(range(len(command.azimuths)), key=lambda k: command.azimuths[k])
    curves = tuple(
        Curve(name, [command.azimuths[k] for k in order], [found[k].distance for k in order])
        for name, found in rows.items()
    )
    title = "Distance of dlib's face embeddings (one person below 0.6), in brackets the score from 0 (stranger) to 1"
    return Result(
        facts,
        {"portraits": {name: [_plain_row(asdict(at)) for at in found] for name, found in rows.items()}},
        (Table(title, columns, (*cells, mean)),),
        (Panel("Distance from the portrait (lower is better)", "azimuth, degrees", curves),),
    )


def evaluate_pose(command: EvalPoseCommand, *, track: Track) -> Result:
    """Intended against estimated cameras of data sets."""
    reports: dict[str, PoseReport] = {}
    hashes, weights = {}, {}
    with FaceRotationFit() as faces:
        for path in command.data:
            folder = dataset_folder(path)
            views = read_dataset(folder)
            name = path.resolve().name
            reports[name] = measure_pose(views, face_rotation=faces, track=track)
            hashes[name], weights[name] = dataset_sha256(folder), views.provenance.weights
    facts = {"version": importlib.metadata.version("dp360"), "weights": weights, "data_sha256": hashes}
    columns = (
        "data", "face views", "POSE", "angle, °", "common turn, °", "POSE without it", "angle without it, °",
        "outlines", "angle by outline, °", "not measured",
    )  # fmt: skip
    rows = tuple(
        (
            name, str(r.face_views), _number(r.face_mse, 4), _number(r.face_error_deg, 1),
            _number(r.common_rotation_deg, 1), _number(r.face_common_removed_mse, 4),
            _number(r.face_common_removed_error_deg, 1), str(r.outline_views), _number(r.outline_error_deg, 2),
            str(r.unmeasured_views),
        )
        for name, r in reports.items()
    )  # fmt: skip
    curves = []
    for name, report in reports.items():
        level = sorted((row for row in report.rows if abs(row.elevation_deg) < 5), key=lambda row: row.azimuth_deg)
        curves.append(Curve(name, [row.azimuth_deg for row in level], [row.error_deg for row in level]))
    return Result(
        facts,
        {"data": {name: _plain_row(asdict(report)) for name, report in reports.items()}},
        (Table("Intended against estimated camera (POSE: mean squared error of rotation entries)", columns, rows),),
        (Panel("Angle between intended and estimated camera", "azimuth, degrees", tuple(curves)),),
    )


def evaluate_consistency(command: EvalConsistencyCommand, *, track: Track) -> Result:
    """A data set against itself."""
    folder, device = dataset_folder(command.data), choose_device(command.device)
    views = read_dataset(folder)
    perceptual = None if command.perceptual == "none" else open_perceptual(command.perceptual)
    config = ConsistencyConfig(fit=SplatFitConfig(iterations=command.iterations))
    arguments: dict[str, Any] = {"seed": command.seed, "device": device, "track": track}
    if device == "cpu":
        size_px = round(config.fit.coarse_scale * views.cameras.width)
        with fit_threads(track, gaussians=config.fit.start_count, size_px=size_px):
            report = measure_consistency(views, config, perceptual, **arguments)
    else:
        report = measure_consistency(views, config, perceptual, **arguments)
    summary = summarise([report.held_out.rows])
    metrics = [m for m in METRICS if any(not math.isnan(row.values[m]) for row in report.held_out.rows)]
    title = f"{len(report.held_out.rows)} views against splats fitted to the other half"
    tables = (summary_table(title, {folder.name: summary}, metrics), _pairs_table(report))
    facts = _facts(views, folder) | {"fit_seed": command.seed, "perceptual": report.held_out.perceptual}
    data = {
        "held_out": summary_data(summary),
        "views": _view_rows(report.held_out),
        "mean_reprojection_error": plain(report.mean_error),
        "pairs": [_plain_row(asdict(pair)) for pair in report.pairs],
    }
    return Result(facts, data, tables, (_pairs_panel(report), *summary_panels({"held out": summary}, metrics[:2])))


def _pairs_table(report: ConsistencyReport) -> Table:
    """Rings with their mean error, the pair that closes each, and seams."""
    rows = []
    for elevation in dict.fromkeys(pair.elevation_deg for pair in report.pairs):
        ring = [pair for pair in report.pairs if pair.elevation_deg == elevation]
        errors = [pair.error for pair in ring if not math.isnan(pair.error)]
        worst = max(ring, key=lambda pair: -1.0 if math.isnan(pair.error) else pair.error)
        closing = next((pair.error for pair in ring if pair.closes_ring), math.nan)
        seams = ", ".join(f"{p.first} to {p.second}" for p in ring if p.seam) or "none"
        rows.append(
            (
                f"{elevation:.0f}°", str(len(ring)), _number(float(np.mean(errors)) if errors else math.nan, 4),
                f"{_number(worst.error, 4)} ({worst.first} to {worst.second})", _number(closing, 4), seams,
            )
        )  # fmt: skip
    columns = ("ring", "pairs", "mean error", "largest", "where the ring closes", "seams")
    return Table("Colours carried into the neighbour's picture: root mean square difference", columns, tuple(rows))


def _pairs_panel(report: ConsistencyReport) -> Panel:
    curves = []
    for elevation in dict.fromkeys(pair.elevation_deg for pair in report.pairs):
        ring = sorted((p for p in report.pairs if p.elevation_deg == elevation), key=lambda p: p.azimuth_deg)
        curves.append(Curve(f"ring at {elevation:.0f}°", [p.azimuth_deg for p in ring], [p.error for p in ring]))
    title = "Reprojection error of neighbours; rings close at the back (±180°)"
    return Panel(title, "azimuth between them, degrees", tuple(curves))


def _prior_views(path: Path, azimuths_deg: tuple[float, ...], seed: int) -> tuple[UInt8[np.ndarray, "h w 3"], ViewSet]:
    """The aligned portrait and the prior's level views at some azimuths."""
    portrait = prepare_portrait(path)
    cameras = look_at_origin([math.radians(a) for a in azimuths_deg], [0.0] * len(azimuths_deg), size_px=_VIEW_PX)
    prior = build_head_prior(portrait, seed=seed)
    views = PriorGenerator().generate(portrait, prior, cameras, torch.Generator().manual_seed(seed))
    return portrait.rgb, replace(views, names=("portrait", *(f"azimuth_{a:g}" for a in azimuths_deg)))


def _picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    if not path.is_file():
        raise InputError(f"No portrait at {path}; expected a folder that dp360 run or dp360 views has made")
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read the picture {path}: {error}") from error


def _facts(views: ViewSet, folder: Path) -> dict[str, Any]:
    """Origin of views in a data set."""
    origin = views.provenance
    return {
        "version": importlib.metadata.version("dp360"),
        "generator": origin.generator,
        "weights": origin.weights,
        "seed": origin.seed,
        "data_sha256": dataset_sha256(folder),
    }


def _input_hash(path: Path) -> str:
    import hashlib

    return dataset_sha256(dataset_folder(path)) if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()


def _view_rows(compared: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "azimuth_deg": row.azimuth_deg,
            "elevation_deg": row.elevation_deg,
            **{metric: plain(value) for metric, value in row.values.items()},
        }
        for row in compared.rows
    ]


def _plain_row(value: Any) -> Any:
    """Nested data without NaN."""
    if isinstance(value, float):
        return plain(value)
    if isinstance(value, dict):
        return {name: _plain_row(entry) for name, entry in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain_row(entry) for entry in value]
    return value


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _identity_cell(at: IdentityAt) -> str:
    if math.isnan(at.distance):
        return "no view" if at.view is None else "no face"
    return f"{at.distance:.2f} ({at.score:.2f})"


def _identity_mean(found: list[IdentityAt]) -> str:
    seen = [at for at in found if not math.isnan(at.distance)]
    if not seen:
        return "-"
    distance, score = (float(np.mean([getattr(at, name) for at in seen])) for name in ("distance", "score"))
    return f"{distance:.2f} ({score:.2f}), n = {len(seen)}"

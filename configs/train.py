"""`dp360 train`: one dataclass per thing to train, its docstrings are the help texts; docs/training.md tells the rest.

Nothing heavy is imported here, so that `dp360 --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from .console import Display
from .options import Device


@dataclass(frozen=True)
class TrainNetworkCommand:
    """A network of the prior, trained on composed heads."""

    data: Path
    """Folder of the head assets, with makehuman, valid, hdri and the others inside (docs/training.md)."""
    output: Path
    """Folder for the rendered heads, the checkpoints and the weights."""
    heads: int = 1000
    """Heads to train on."""
    validation_heads: int = 40
    """Heads to measure the result on, of people and things that training does not see."""
    effort: float = 1.0
    """Factor on the number of steps."""
    minutes: float | None = None
    """Time for the training proper; without it, all steps are taken."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Numbers of the forward pass; bf16 is faster on newer CPUs and GPUs."""
    seed: int = 0
    """Seed of everything random."""
    device: Device = "auto"
    """Where to train; auto takes the GPU if there is one."""


@dataclass(frozen=True)
class TrainLabelsCommand(TrainNetworkCommand):
    """The segmenter that tells face, hair, beard, cloth, hats and glasses apart."""

    heads: int = 5000
    """Heads to train on."""
    first_head: int = 0
    """Number of the first of them: others than weights to start from have learned from."""
    start: Path | None = None
    """Weights to start from; None starts from random ones."""
    size: tuple[Literal[128, 192, 256], ...] | None = None
    """Sides of the pictures whose stages are gone through; None goes through all, from small to large."""


@dataclass(frozen=True)
class TrainLightCommand(TrainNetworkCommand):
    """The network that tells light from skin."""

    heads: int = 1000
    """Heads to train on."""
    first_head: int = 20000
    """Number of the first of them: others than weights to start from have learned from."""
    start: Path | None = None
    """Weights to start from; None starts from random ones."""


@dataclass(frozen=True)
class TrainLandmarksCommand(TrainNetworkCommand):
    """The networks that find the faces of drawings and profiles."""


@dataclass(frozen=True)
class TrainFieldCommand:
    """The networks that tell what a portrait does not show of a head's field, stage by stage."""

    data: Path
    """Folder of the files that dp360 data fields has written, those of the validation split too if there are any."""
    output: Path
    """Folder for the checkpoints and the weights; called again, training goes on there, with the files of then."""
    stage: Literal["mean", "autoencoder", "diffusion", "grain"] = "mean"
    """mean: the field to be expected; autoencoder: fields as few numbers and back; diffusion: what else may be there,
    drawn in these numbers; grain: what these numbers cannot hold."""
    mean: Path | None = None
    """Weights of the stage mean, for the stage diffusion."""
    autoencoder: Path | None = None
    """Weights of the stage autoencoder, for the stages diffusion and grain."""
    start: Path | None = None
    """Weights of the same stage to start from; None starts from random ones. The schedule begins anew."""
    validation: int = 96
    """Validation portraits that are measured at checkpoints and at the end; the stage diffusion measures all, or none
    with 0."""
    steps: int | None = None
    """Steps of the whole schedule; None takes the recipe's."""
    batch_size: int | None = None
    """Portraits per process and micro-batch; None takes the recipe's."""
    learning_rate: float | None = None
    """Peak learning rate; None takes the recipe's."""
    save_every: int | None = None
    """Steps between checkpoints with their figures; None takes the recipe's."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Numbers of the forward pass; bf16 is faster on newer CPUs and GPUs."""
    minutes: float | None = None
    """Stop after this time with a checkpoint."""
    seed: int = 0
    """Seed of everything random."""
    device: Device = "auto"
    """Where to train; auto takes the GPU if there is one."""


@dataclass(frozen=True)
class TrainViewsCommand:
    """A stage of the diffusion model's training. Under accelerate launch every process calls it alike."""

    data: tuple[Path, ...]
    """Folders of heads: what dp360 data heads writes, data sets with transforms.json, PanoHead or SphereHead renders,
    RenderMe-360 captures, or four-view folders; or the folder of the head assets, from which heads are then composed on
    the fly."""
    output: Path
    """Folder for checkpoints, the journal, sheets and the pipeline; called again, training goes on there."""
    validation: Path | None = None
    """Folder of heads to draw and measure at checkpoints."""
    steps: int | None = None
    """Steps of the whole schedule; None takes the recipe's."""
    batch_size: int | None = None
    """Clips (of the autoencoder: crops) per process and micro-batch; None takes the recipe's."""
    accumulation: int = 1
    """Micro-batches per step."""
    learning_rate: float | None = None
    """Peak learning rate; None takes the recipe's."""
    save_every: int | None = None
    """Steps between checkpoints with their figures and sheets; None takes the recipe's."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Numbers of the forward pass; bf16 on newer GPUs."""
    minutes: float | None = None
    """Stop after this time with a checkpoint."""
    cache_heads: int = 16
    """Heads of each folder kept decoded in memory."""
    seed: int = 0
    """Seed of everything random."""
    device: Device = "auto"
    """Where to train; auto takes the GPU if there is one."""


@dataclass(frozen=True)
class TrainAutoencoderCommand(TrainViewsCommand):
    """First stage of the compact size: pictures to small latents and back. The official size has Stable Diffusion's."""

    size_px: int = 256
    """Size at which heads are shown."""


@dataclass(frozen=True)
class TrainStageCommand(TrainViewsCommand):
    """A stage that learns from clips of views."""

    stage: ClassVar[Literal["appearance", "camera", "consistency", "back-view"]]

    start: Path = Path("pipeline")
    """What to start from: the pipeline folder that the stage before has left; for the first stage of the official size
    a folder of Stable Diffusion 1.5 in diffusers' layout."""
    size: Literal["compact", "official"] = "compact"
    """Whose recipe: our own small one, or the paper's on Stable Diffusion 1.5."""
    size_px: int | None = None
    """Side of the pictures; None takes the recipe's, 256 or 512."""
    control: Literal["prior", "other", "rays"] | None = None
    """Control pictures: the head's own prior, another head as in the release, or camera parameters; None takes the
    recipe's."""
    order: Literal["continuous", "random"] | None = None
    """Views of a clip: neighbours, or from anywhere; None takes the recipe's."""
    clip_length: int | None = None
    """Views of a clip; None takes the recipe's."""
    drop_conditions: float | None = None
    """Share of clips without references and control, for guidance; None takes the recipe's."""
    dual_share: float | None = None
    """Share of clips that see a back reference; None takes the recipe's."""
    back_share: float | None = None
    """Share of micro-batches of backs, where one network plays all roles; None takes the recipe's."""
    gradient_checkpointing: bool | None = None
    """Less memory for more time; None takes the recipe's."""
    compile: bool = False
    """Compile the denoising network; pays on GPUs after some minutes."""


@dataclass(frozen=True)
class TrainAppearanceCommand(TrainStageCommand):
    """R, dual appearance. Compact size: the one UNet with C, on views and backs together."""

    stage: ClassVar[Literal["appearance"]] = "appearance"


@dataclass(frozen=True)
class TrainCameraCommand(TrainStageCommand):
    """C, camera control."""

    stage: ClassVar[Literal["camera"]] = "camera"


@dataclass(frozen=True)
class TrainConsistencyCommand(TrainStageCommand):
    """V, view consistency, on clips of neighbouring views."""

    stage: ClassVar[Literal["consistency"]] = "consistency"

    motion: Path | None = None
    """Folder of an AnimateDiff motion adapter of Stable Diffusion 1.5 (diffusers' layout) for V of the official size to
    start from; None starts from fresh weights, or from those in --start."""


@dataclass(frozen=True)
class TrainBackViewCommand(TrainStageCommand):
    """F, the back of the head from the portrait."""

    stage: ClassVar[Literal["back-view"]] = "back-view"


TrainWhat = (
    Annotated[TrainLabelsCommand, tyro.conf.subcommand("labels")]
    | Annotated[TrainLightCommand, tyro.conf.subcommand("light")]
    | Annotated[TrainLandmarksCommand, tyro.conf.subcommand("landmarks")]
    | Annotated[TrainFieldCommand, tyro.conf.subcommand("field")]
    | Annotated[TrainAutoencoderCommand, tyro.conf.subcommand("autoencoder")]
    | Annotated[TrainAppearanceCommand, tyro.conf.subcommand("appearance")]
    | Annotated[TrainCameraCommand, tyro.conf.subcommand("camera")]
    | Annotated[TrainConsistencyCommand, tyro.conf.subcommand("consistency")]
    | Annotated[TrainBackViewCommand, tyro.conf.subcommand("back-view")]
)


@dataclass(frozen=True)
class TrainCommand:
    """Train a learned part of the prior, or a stage of the diffusion model; called again, it goes on."""

    what: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[TrainWhat]]
    """What to train."""


def run(command: TrainCommand, display: Display) -> Iterable[Path]:
    """Train what the command names, or go on; the file or folder that was written.

    Raises:
        InputError: data that is not there or cannot be used, or checkpoints of something else.
    """
    if isinstance(command.what, TrainNetworkCommand):
        from .train_networks import train_prior_network

        return [train_prior_network(command.what, display)]
    if isinstance(command.what, TrainFieldCommand):
        from .train_field import train_field_stage

        return [train_field_stage(command.what, display)]
    from .train_views import train_autoencoder_stage, train_view_stage

    if isinstance(command.what, TrainAutoencoderCommand):
        return [train_autoencoder_stage(command.what, display)]
    return [train_view_stage(command.what, display)]

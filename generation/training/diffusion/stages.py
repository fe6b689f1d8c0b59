"""The stages: which networks learn in which, and the recipe of each size.

Official size (paper: Stable Diffusion 1.5 frozen, AdamW at 1e-5, 60k steps a stage, gradients clipped at 0.5; spec
arXiv 2503.15667, Sec. 4 and the release's scripts). The release has scripts for V and F only. Where it and the paper
leave things open we chose:

- `appearance` trains R alone and `camera` C alone, in DiffPortrait3D's order; both on eight views of one head from
  anywhere, with both references (dual appearance), because nothing in them depends on the order of views;
- references are clean in every stage, as when views are drawn; the release's script for F noises them;
- the release never drops conditions although it draws with guidance; here about one clip in five learns without
  references and control (`AugmentConfig`), so that guidance has something to compare with;
- each view has a noise level of its own, as in the release.

Compact size (our own recipe): one UNet is denoiser, R and F, so `appearance` trains it together with C on views and, in
a share of the micro-batches, on backs; `camera` goes on with C alone; `consistency` trains V alone, on clips in the
order of azimuth with one noise level for a clip; `back-view` goes on with the joint networks on backs half of the time.
Half of the clips are learned at the last timestep: trained for hours on a CPU, such networks draw best in one step.
Errors count inside the head only, since compact views keep the prior's outline.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ...diffusion.pipeline import DiffPortrait360Pipeline, Mode
from ..loop import LoopConfig
from .augment import AugmentConfig
from .clips import ClipConfig, ControlKind
from .objective import ObjectiveConfig, ViewObjective
from .validation import ValidationConfig

TrainingStage = Literal["appearance", "camera", "consistency", "back-view"]
ModelSize = Literal["compact", "official"]


@dataclass(frozen=True)
class StageConfig:
    """One stage of the training."""

    stage: TrainingStage
    """Which networks learn."""
    loop: LoopConfig
    """Schedule; `batch_size` counts clips."""
    clips: ClipConfig
    """What is sampled from heads."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How clips are varied, and how often they go without conditions."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """Noise and weights."""
    back_share: float = 0.0
    """Share of micro-batches that learn the back of the head, where one set of networks plays both roles."""
    gradient_checkpointing: bool = False
    """Compute activations twice to keep fewer."""
    compile: bool = False
    """Compile the denoising network; pays on GPUs after some minutes."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """What is drawn and measured at checkpoints."""


def stage_recipe(size: ModelSize, stage: TrainingStage, *, control: ControlKind | None = None) -> StageConfig:
    """The configuration that a stage starts from.

    Args:
        control: control pictures; None takes the release's for the official size (another head), the prior for the
            compact one.
    """
    if size == "compact":
        return _compact_recipe(stage, control or "prior")
    return _official_recipe(stage, control or "other")


def _official_recipe(stage: TrainingStage, control: ControlKind) -> StageConfig:
    loop = LoopConfig(
        steps=60_000,
        batch_size=1,
        learning_rate=1e-5,
        schedule="constant",
        warmup_steps=0,
        weight_decay=0.0,
        gradient_clip=0.5,
        ema_decay=0.0,
        save_every=500,
        seed=42,
    )
    clips = ClipConfig(
        size_px=512,
        control=control,
        order="random" if stage in ("appearance", "camera") else "continuous",
        target="back" if stage == "back-view" else "views",
    )
    objective = ObjectiveConfig(shared_timestep=False)
    return StageConfig(stage, loop, clips, objective=objective, gradient_checkpointing=True)


def _compact_recipe(stage: TrainingStage, control: ControlKind) -> StageConfig:
    loop = LoopConfig(
        steps=20_000, batch_size=4, learning_rate=3e-4, warmup_steps=200, weight_decay=1e-3, ema_decay=0.998
    )
    clips = ClipConfig(size_px=256, clip_length=4, order="random", control=control)
    if stage in ("camera", "back-view"):
        loop = replace(loop, steps=5000, learning_rate=1e-4)
    elif stage == "consistency":
        loop = replace(loop, steps=10_000, batch_size=2, learning_rate=2e-4)
        clips = replace(clips, clip_length=8, order="continuous")
    objective = ObjectiveConfig(terminal_share=0.5, background_weight=0.0, channel_power=1.0, dual_share=0.8)
    back_share = {"appearance": 0.15, "back-view": 0.5}.get(stage, 0.0)
    return StageConfig(stage, loop, clips, objective=objective, back_share=back_share)


def stage_objective(pipeline: DiffPortrait360Pipeline, config: StageConfig) -> ViewObjective:
    """The networks of a stage with its loss; those that learn want gradients, the others do not.

    Raises:
        ValueError: a pipeline without the networks of this stage.
    """
    is_back = config.stage == "back-view" and pipeline.back_appearance is not None
    mode, with_consistency = Mode.BACK if is_back else Mode.VIEWS, config.stage == "consistency"
    objective = ViewObjective(pipeline, config.objective, mode=mode, with_consistency=with_consistency)
    objective.requires_grad_(False)
    control, joint = objective.camera_control, objective.appearance is None
    reader = objective.unet if joint else objective.appearance
    learning = {
        "appearance": (reader, control) if joint else (reader,),
        "camera": (control,),
        "consistency": (objective.view_consistency,),
        "back-view": (reader, control),
    }
    for network in learning[config.stage]:
        if network is None:
            raise ValueError(f"The pipeline has no network to train in stage {config.stage}")
        network.requires_grad_(True)
    _freeze_what_is_never_used(objective)
    for network in (objective.unet, objective.appearance, objective.camera_control):
        if network is not None:
            network.gradient_checkpointing = config.gradient_checkpointing
    return objective


def _freeze_what_is_never_used(objective: ViewObjective) -> None:
    """R ends at the input of its last self-attention; C that does not see the latent has no use for its first layer."""
    if objective.appearance is not None:
        last = objective.appearance.attention_sites()[-1]
        last.requires_grad_(False)
        wanted = any(p.requires_grad for p in objective.appearance.parameters())
        for used in ("norm", "proj_in", "transformer_blocks.0.norm1"):
            last.get_submodule(used).requires_grad_(wanted)
        for block in objective.appearance.up_blocks:
            attentions = list(getattr(block, "attentions", ()))
            if last in attentions:
                for resnet in list(block.get_submodule("resnets").children())[attentions.index(last) + 1 :]:
                    resnet.requires_grad_(False)
    if not objective.camera_control.config["sees_latent"]:
        objective.camera_control.conv_in.weight.requires_grad_(False)

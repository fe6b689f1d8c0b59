"""Our networks, sampler and converter against what the official classes answered (golden fixtures)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dp360.generation import orbit
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline, Mode
from dp360.generation.diffusion.release.conversion import convert_release
from dp360.generation.diffusion.release.schedule import ReleaseDDIMScheduler
from dp360.generation.diffusion.sampling import Sampling, guided
from dp360.generation.diffusion.unet import ControlResiduals, DenoisingUNet
from dp360.generation.diffusion.view_consistency import ViewConsistency
from dp360.generation.training.diffusion.objective import ObjectiveConfig, ViewObjective

TOLERANCE, SAMPLE_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 3e-4, 1e-3
SETS = ("back", "video")


class GivenContext(torch.nn.Module):
    """Another context for every row, as the fixtures have it."""

    def __init__(self, context: Tensor) -> None:
        super().__init__()
        self.given = context

    def forward(self) -> Tensor:
        return self.given


class Model:
    """One fixture set and the networks that the converter made of its weights."""

    def __init__(self, parity, folder: Path) -> None:
        self.config, self.inputs, self.outputs = parity.config, parity.inputs, parity.outputs
        self.is_video = parity.config["kind"] == "video"
        role = "views_model" if self.is_video else "back_model"
        convert_release(
            folder,
            **{role: parity.weights_path},
            architecture=parity.architecture,
            context=parity.inputs["context"][:1],
        )
        self.pipeline = DiffPortrait360Pipeline.from_pretrained(folder)
        prefix = "" if self.is_video else "back_"
        self.unet: DenoisingUNet = getattr(self.pipeline, f"{prefix}unet")
        self.appearance: DenoisingUNet = getattr(self.pipeline, f"{prefix}appearance")
        self.control = getattr(self.pipeline, f"{prefix}camera_control")
        self.consistency: ViewConsistency | None = self.pipeline.view_consistency if self.is_video else None

    def references(self, timesteps: Tensor, context: Tensor, latents: tuple[str, ...] | None = None):
        names = latents or (("ref_front", "ref_back") if self.is_video else ("ref_front",))
        banks = [self.appearance.write_reference(self.inputs[name], timesteps, context) for name in names]
        return self.unet.read_reference(*banks)

    def residuals(self, noisy: Tensor, timesteps: Tensor, context: Tensor, hint: Tensor) -> ControlResiduals:
        return self.control(noisy, timesteps, context, self.control.embed_control(hint))

    def conditional(self, noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return self.unet(
            noisy,
            timesteps,
            context,
            reference=self.references(timesteps, context),
            control=self.residuals(noisy, timesteps, context, self.inputs["hint"]),
            view_consistency=self.consistency,
        )

    def guided(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        context = self.inputs["context"]
        unconditional = self.unet(noisy, timesteps, context, view_consistency=self.consistency)
        return guided(self.conditional(noisy, timesteps, context), unconditional, 3.0, 0.0)


@pytest.fixture(scope="module")
def models(parity_set, tmp_path_factory) -> Callable[[str], Model]:
    made: dict[str, Model] = {}

    def model(name: str) -> Model:
        if name not in made:
            made[name] = Model(parity_set(name), tmp_path_factory.mktemp(name) / "pipeline")
        return made[name]

    return model


@pytest.fixture(params=SETS)
def model(request, models) -> Model:
    return models(request.param)


@pytest.fixture
def video(models) -> Model:
    return models("video")


def original_tolerance(scheduler: ReleaseDDIMScheduler, timestep: Tensor) -> float:
    """x0 = (x - s eps) / sqrt(alpha): an error of eps counts 1/sqrt(alpha) times, 13 times at t = 981."""
    alpha, *_ = scheduler.coefficients(int(timestep), 0.0)
    return TOLERANCE / math.sqrt(alpha)


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= tolerance


@torch.no_grad()
def test_banks(model: Model) -> None:
    inputs = model.inputs
    for side in ("front", "back") if model.is_video else ("front",):
        written = model.appearance.write_reference(inputs[f"ref_{side}"], inputs["t"], inputs["context"])
        assert len(written) == sum(name.startswith(f"bank_{side}.") for name in model.outputs)
        for site, tokens in enumerate(written):
            close(tokens, model.outputs[f"bank_{side}.{site:02d}"])


@torch.no_grad()
def test_control_residuals(model: Model) -> None:
    inputs = model.inputs
    close(model.control.embed_control(inputs["hint"]), model.outputs["hint_embedding"])
    residuals = model.residuals(inputs["x_t"], inputs["t"], inputs["context"], inputs["hint"])
    for index, residual in enumerate([*residuals.skips, residuals.middle]):
        close(residual, model.outputs[f"control_residual.{index:02d}"])


@torch.no_grad()
def test_both_guidance_branches(model: Model) -> None:
    inputs, outputs = model.inputs, model.outputs
    arguments = inputs["x_t"], inputs["t"], inputs["context"]
    close(model.conditional(*arguments), outputs["eps_cond"])
    close(model.unet(*arguments, view_consistency=model.consistency), outputs["eps_uncond"])
    close(model.guided(inputs["x_t"], inputs["t"]), outputs["eps_guided_scale3"])


@torch.no_grad()
def test_the_context_reaches_every_part(models) -> None:
    """The release's doubled-batch path: both halves with references and control, contexts of their own."""
    model = models("back")
    for name, output in (("context_uncond", "balance_eps_uncond"), ("context", "balance_eps_cond")):
        close(model.conditional(model.inputs["x_t"], model.inputs["t"], model.inputs[name]), model.outputs[output])


@torch.no_grad()
def test_front_reference_alone_and_views_on_their_own(video: Model) -> None:
    inputs, outputs = video.inputs, video.outputs
    arguments = inputs["x_t"], inputs["t"], inputs["context"]
    residuals = video.residuals(*arguments, inputs["hint"])
    front = video.references(inputs["t"], inputs["context"], ("ref_front",))
    one = video.unet(*arguments, reference=front, control=residuals, view_consistency=video.consistency)
    close(one, outputs["eps_cond_front_only"])
    both = video.references(inputs["t"], inputs["context"])
    close(video.unet(*arguments, reference=both, control=residuals), outputs["eps_cond_motion_off"])


@torch.no_grad()
def test_motion_module(video: Model) -> None:
    assert video.consistency is not None
    close(video.consistency.after_down(0, 0, video.inputs["motion_in"]), video.outputs["motion_out_input0"])


@torch.no_grad()
def test_two_clips_in_one_batch(video: Model) -> None:
    inputs = video.inputs
    timesteps, context = inputs["t"].repeat(2), inputs["context"].repeat(2, 1, 1)
    latents = [inputs[name].repeat(2, 1, 1, 1) for name in ("ref_front", "ref_back")]
    banks = [video.appearance.write_reference(latent, timesteps, context) for latent in latents]
    noisy = inputs["two_clips_x_t"]
    ours = video.unet(
        noisy,
        timesteps,
        context,
        reference=video.unet.read_reference(*banks),
        control=video.residuals(noisy, timesteps, context, torch.cat([inputs["hint"], inputs["hint"].flip(0)])),
        view_consistency=video.consistency,
    )
    close(ours, video.outputs["two_clips_eps_cond"])


def test_schedule_is_the_release_s_to_the_bit(model: Model) -> None:
    scheduler = ReleaseDDIMScheduler()
    scheduler.set_timesteps(50)
    timesteps = model.outputs["schedule50.timesteps"]
    assert torch.equal(scheduler.timesteps.flip(0), timesteps)
    ours = torch.tensor([scheduler.coefficients(int(t), 0.5) for t in timesteps], dtype=torch.float64)
    names = ("ddim_alphas", "ddim_alphas_prev", "ddim_sqrt_one_minus_alphas", "ddim_sigmas")
    for column, name in enumerate(names):
        assert torch.equal(ours[:, column], model.outputs[f"schedule50_eta05.{name}"]), name


@torch.no_grad()
def test_ddim_steps(model: Model) -> None:
    scheduler = ReleaseDDIMScheduler()
    scheduler.set_timesteps(50)
    sample = model.inputs["x_t"]
    for index, timestep in enumerate(scheduler.timesteps[:3]):
        prediction = model.guided(sample, timestep.expand(len(sample)))
        previous, original = scheduler.step(prediction, timestep, sample, return_dict=False)
        close(previous, model.outputs[f"ddim50_eta0.step{index}.x_prev"])
        expected = model.outputs[f"ddim50_eta0.step{index}.pred_x0"]
        close(original, expected, original_tolerance(scheduler, timestep))
        sample = previous
    sample, timestep = model.inputs["x_t"], scheduler.timesteps[-1 - 25]
    prediction = model.guided(sample, timestep.expand(len(sample)))
    noise = model.inputs["ddim_noise"]
    previous, original = scheduler.step(prediction, timestep, sample, 0.5, variance_noise=noise, return_dict=False)
    close(previous, model.outputs["ddim50_eta05.index25.x_prev"])
    expected = model.outputs["ddim50_eta05.index25.pred_x0"]
    close(original, expected, original_tolerance(scheduler, timestep))


@torch.no_grad()
def test_four_step_sample_through_the_pipeline_s_own_loop(model: Model) -> None:
    """`_denoise` with latents and noise put in place of encoded pictures and drawn noise."""
    inputs = model.inputs
    pipeline, count = model.pipeline, len(inputs["x_t"])
    pipeline.set_progress_bar_config(disable=True)
    references = torch.stack(
        [inputs["ref_front"][0], inputs["ref_back"][0]] if model.is_video else [inputs["ref_front"][0]]
    )
    same = all(bool((inputs[name] == inputs[name][:1]).all()) for name in ("ref_front", "context"))
    if not same:  # F's rows have references of their own: the loop runs row by row
        count = 1
    networks = pipeline.networks_for_views() if model.is_video else pipeline.networks_for_back()
    sampling = Sampling("official", steps=4, eta=0.0)
    for row in range(0, len(inputs["x_t"]), count):
        rows = slice(row, row + count)
        if not same:
            references = inputs["ref_front"][rows]
            pipeline.context.context.data.copy_(inputs["context"][rows])
        ours = pipeline.denoise(
            networks,
            references,
            orbit(count) if model.is_video else None,
            inputs["hint"][rows],
            inputs["x_t"][rows],
            None,
            sampling,
            torch.Generator(),
            description="",
        )
        close(ours, model.outputs["ddim4_eta0.sample"][rows], SAMPLE_TOLERANCE)


def test_start_from_guidance(model: Model) -> None:
    inputs = model.inputs
    noisy = ReleaseDDIMScheduler().add_noise(inputs["fea_latent"], inputs["fea_noise"], torch.tensor([999]))
    close(noisy, model.outputs["x_start_from_guidance"])


def test_training_loss_and_gradients(model: Model) -> None:
    inputs, recorded = model.inputs, model.config["grad_l2_norms"]
    parts = {"control_model": model.appearance, "pose_control_model": model.control}
    parts["unet_without_motion"] = model.unet
    if model.consistency is not None:
        parts["motion"] = model.consistency
    scheduler = ReleaseDDIMScheduler()
    noisy = scheduler.add_noise(inputs["train_x0"], inputs["train_noise"], inputs["train_t"])
    for part in parts.values():
        part.zero_grad(set_to_none=True)
    loss = F.mse_loss(model.conditional(noisy, inputs["train_t"], inputs["context"]), inputs["train_noise"])
    close(loss.detach().reshape(1), model.outputs["train_loss"])
    loss.backward()
    for name, part in parts.items():
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        assert norm == pytest.approx(recorded[name], rel=GRADIENT_TOLERANCE), name
    without = {name for name, p in model.appearance.named_parameters() if p.grad is None}
    assert len(without) == len(recorded["unused_params_no_grad"])
    last = model.appearance.up_blocks[-1].attentions[-1]
    assert without <= {f"up_blocks.{len(model.appearance.up_blocks) - 1}.attentions.{i}.{name}"
                       for i in range(len(model.appearance.up_blocks[-1].attentions))
                       for name, _ in last.named_parameters()}  # fmt: skip


def test_the_training_objective_is_the_release_s(model: Model) -> None:
    """Loss of the stages' own code, with the release's tables and a noise level for each view."""
    inputs = model.inputs
    rows = len(inputs["train_x0"])
    clips = 1 if model.is_video else rows
    objective = ViewObjective(
        model.pipeline,
        ObjectiveConfig(shared_timestep=False),
        mode=Mode.VIEWS if model.is_video else Mode.BACK,
        with_consistency=model.is_video,
    )
    objective.context = GivenContext(inputs["context"])
    sides = ("front", "back" if model.is_video else "front")
    references = torch.stack([inputs[f"ref_{side}"][:clips] for side in sides], dim=1)
    noise, timesteps = inputs["train_noise"], inputs["train_t"]
    noisy = ReleaseDDIMScheduler().add_noise(inputs["train_x0"], noise, timesteps)
    prediction = objective.predict(
        noisy, timesteps, references, inputs["hint"], None,
        mode=objective.mode, dual=torch.full((clips,), model.is_video),
        keeps=torch.ones(clips, dtype=torch.bool),
    )  # fmt: skip
    close(F.mse_loss(prediction, noise).detach().reshape(1), model.outputs["train_loss"])


@torch.no_grad()
def test_autoencoder(model: Model) -> None:
    vae, inputs, outputs = model.pipeline.vae, model.inputs, model.outputs
    posterior = vae.encode(inputs["vae_image"]).latent_dist
    scale = model.config["hyperparameters"]["scale_factor"]
    close(posterior.mean, outputs["vae_mean"])
    close(posterior.logvar, outputs["vae_logvar"])
    close(posterior.mode() * vae.config.scaling_factor, outputs["vae_latent_mode_scaled"])
    assert vae.config.scaling_factor == scale
    close(vae.decode(inputs["vae_latent_scaled"] / scale).sample, outputs["vae_decoded"])


@torch.no_grad()
def test_one_shared_reference_row_equals_a_row_per_view(video: Model) -> None:
    """The release runs R once per view; one row for all views gives the same."""
    inputs = video.inputs
    timestep, context = inputs["t"][:1], inputs["context"][:1]
    assert bool((inputs["t"] == timestep).all())
    banks = [video.appearance.write_reference(inputs[n][:1], timestep, context) for n in ("ref_front", "ref_back")]
    ours = video.unet(
        inputs["x_t"],
        timestep,
        context,
        reference=video.unet.read_reference(*banks),
        control=video.residuals(inputs["x_t"], timestep, context, inputs["hint"]),
        view_consistency=video.consistency,
    )
    close(ours, video.outputs["eps_cond"])


@torch.no_grad()
def test_swapped_references_change_nothing_and_turned_clips_do(video: Model) -> None:
    inputs = video.inputs
    arguments = inputs["x_t"], inputs["t"], inputs["context"]
    residuals = video.residuals(*arguments, inputs["hint"])
    swapped = video.references(inputs["t"], inputs["context"], ("ref_back", "ref_front"))
    close(
        video.unet(*arguments, reference=swapped, control=residuals, view_consistency=video.consistency),
        video.outputs["eps_cond"],
    )
    turned = video.unet(inputs["x_t"].roll(1, 0), *arguments[1:], view_consistency=video.consistency).roll(-1, 0)
    assert (turned - video.outputs["eps_uncond"]).abs().max() > 1e-2, "places in a clip are told apart"

"""`DiffPortrait360Pipeline`: a portrait and cameras in, views of the same head from those cameras out.

    pipe = DiffPortrait360Pipeline.from_pretrained(folder, dtype=torch.bfloat16).to("cuda")
    cameras = orbit(32)
    control = generic_head_control(cameras)
    views = pipe(portrait, cameras, control, back_control=control[16], generator=torch.Generator().manual_seed(0))
    views.images  # [32, 3, 512, 512] in [0, 1]

Source: arXiv 2503.15667; https://github.com/FreedomGu/Diffportrait360.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..cameras import Cameras
from ..errors import InputError
from ..progress import Track
from .camera_control import CameraControl
from .null_context import NullContext
from .patch_autoencoder import PatchAutoencoder
from .reference_attention import Reference
from .sampling import Denoiser, Sampling, guided
from .sized_network import Latents
from .unet import Context, ControlResiduals, DenoisingUNet
from .view_consistency import ViewConsistency
from .windows import ViewAverage, batches_of

InputPicture: TypeAlias = Image.Image | Tensor
Images = Float[Tensor, "n 3 H W"]

_LARGEST_ASPECT_ERROR = 0.02
_DEFAULT_SAMPLING = Sampling()


class Mode(IntEnum):
    """Role that shared weights play; a row of the mode embeddings."""

    VIEWS = 0
    """Denoise views (the networks of the 360 model)."""
    REFERENCE = 1
    """Read a clean reference picture (R)."""
    BACK = 2
    """Make the back of the head (F)."""


@dataclass(frozen=True)
class DiffPortrait360Output:
    """Views of one head."""

    images: Images
    """[0, 1], float32, on the CPU."""
    back_image: Float[Tensor, "3 H W"] | None
    """The picture of the back that was used, given or made by F, [0, 1]; None without dual appearance."""


@dataclass(frozen=True)
class Networks:
    """What one of the two models consists of."""

    unet: DenoisingUNet
    """Denoises."""
    appearance: DenoisingUNet
    """R."""
    camera_control: CameraControl
    """C."""
    view_consistency: ViewConsistency | None
    """V; None treats the views as unrelated."""
    mode: Mode
    """Role of the denoising network."""


class DiffPortrait360Pipeline(DiffusionPipeline):
    """The official model, its back-view model F, and the compact model, which are one architecture in several sizes.

    Components (any of the optional ones may be None, see below) are diffusers models, each in a folder of its own when
    saved. `appearance` None means that R is `unet` in another mode. `back_unet`, `back_appearance` and
    `back_camera_control` are F; where all are None, F is the other networks in another mode if they have modes, and
    otherwise absent: a back picture is then needed. `context` None goes with networks without cross-attention.
    """

    _optional_components = [  # noqa: RUF012 - diffusers adds a list to it
        "unet",
        "appearance",
        "camera_control",
        "view_consistency",
        "back_unet",
        "back_appearance",
        "back_camera_control",
        "context",
    ]
    model_cpu_offload_seq = (
        "back_appearance->back_camera_control->back_unet->appearance->camera_control->view_consistency->unet->vae"
    )

    def __init__(
        self,
        vae: AutoencoderKL | PatchAutoencoder,
        scheduler: SchedulerMixin,
        unet: DenoisingUNet | None = None,
        appearance: DenoisingUNet | None = None,
        camera_control: CameraControl | None = None,
        view_consistency: ViewConsistency | None = None,
        back_unet: DenoisingUNet | None = None,
        back_appearance: DenoisingUNet | None = None,
        back_camera_control: CameraControl | None = None,
        context: NullContext | None = None,
        reference_timestep: int | None = None,
        start_shortcut: bool = False,
        picture_px: int | None = None,
        drawing_steps: int | None = None,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
    ) -> None:
        """Put components together.

        Args:
            vae: autoencoder.
            scheduler: sampler for `schedule="default"`; its betas also make the release's tables.
            unet: denoising network.
            appearance: R.
            camera_control: C.
            view_consistency: V.
            back_unet: F's denoising network; None takes `unet`.
            back_appearance: F's R.
            back_camera_control: F's C.
            context: constant context tokens.
            reference_timestep: the timestep R always sees, so that it runs once; None: the current one (release).
            start_shortcut: the networks predict the difference to the start view's latent; start views are then needed.
            picture_px: side of the pictures that the weights were trained with; None does not say.
            drawing_steps: denoising steps in which the weights draw best; None leaves it to the caller.
            latents_mean: per channel, taken off the autoencoder's latents; None uses its `scaling_factor` alone.
            latents_std: per channel, divides them.
        """
        super().__init__()
        self.register_modules(
            vae=vae,
            scheduler=scheduler,
            unet=unet,
            appearance=appearance,
            camera_control=camera_control,
            view_consistency=view_consistency,
            back_unet=back_unet,
            back_appearance=back_appearance,
            back_camera_control=back_camera_control,
            context=context,
        )
        self.register_to_config(
            reference_timestep=reference_timestep,
            start_shortcut=start_shortcut,
            picture_px=picture_px,
            drawing_steps=drawing_steps,
            latents_mean=None if latents_mean is None else [float(x) for x in latents_mean],
            latents_std=None if latents_std is None else [float(x) for x in latents_std],
        )
        self._stage_device: torch.device | None = None

    @property
    def can_make_views(self) -> bool:
        """Whether the networks of the 360 model are there."""
        return self.unet is not None and self.camera_control is not None

    @property
    def can_make_back(self) -> bool:
        """Whether F is there, in weights of its own or as a mode."""
        if self.back_appearance is not None:
            return self.back_camera_control is not None and (self.back_unet or self.unet) is not None
        return self.can_make_views and self.unet.config.num_modes > Mode.BACK

    @torch.no_grad()
    def __call__(
        self,
        portrait: InputPicture,
        cameras: Cameras,
        control: Float[Tensor, "_ _ _ _"],
        *,
        generator: torch.Generator,
        back_image: InputPicture | None = None,
        back_control: Float[Tensor, "_ _ _"] | None = None,
        back_start: Float[Tensor, "_ _ _"] | None = None,
        start_views: Float[Tensor, "_ _ _ _"] | None = None,
        sampling: Sampling | None = None,
        track: Track | None = None,
    ) -> DiffPortrait360Output:
        """Make views.

        Args:
            portrait: aligned picture of the face, PIL or [3, h, w] in [0, 1]; resized to the cameras' size.
            cameras: where to look from; their picture size is the size of the views.
            control: control picture of each camera, [n, channels, height, width] in [-1, 1].
            generator: source of all randomness; a CPU generator draws the same numbers for every device.
            back_image: the back of the head, like `portrait`; None lets F make it first.
            back_control: control picture of the camera behind the head, [channels, height, width], for F.
            back_start: rough view from that camera, [3, height, width] in [0, 1], for F; needed with `start_shortcut`.
            start_views: rough views from the same cameras, [n, 3, height, width] in [0, 1]; None starts from noise.
            sampling: schedule, steps, guidance and clips.
            track: shows progress; None shows diffusers' own bar (`set_progress_bar_config(disable=True)` hides it).

        Returns:
            One view per camera. Swapping front and back pictures changes nothing: the networks tell them apart by what
            they show. Fewer views than a clip make one shorter clip; counts that are no multiple overlap clips.

        Raises:
            InputError: pictures, control or sizes that do not fit together, or networks that are not there.
        """
        sampling = sampling or Sampling()
        if not self.can_make_views:
            raise InputError("These weights hold the back-view model only; call make_back, or add the 360 model's")
        size = (cameras.height, cameras.width)
        if (control.shape[0], *control.shape[2:]) != (len(cameras), *size):
            raise InputError(
                f"Cannot make views: expected one control picture of {size[1]}x{size[0]} for each of {len(cameras)} "
                f"cameras, got {tuple(control.shape)}"
            )
        self._check(self.camera_control, control, start_views)
        front = _picture_tensor(portrait, size, "portrait")
        back: Float[Tensor, "3 H W"] | None = None
        if sampling.dual_appearance and back_image is not None:
            back = _picture_tensor(back_image, size, "back picture")
        elif sampling.dual_appearance:
            if back_control is None or not self.can_make_back:
                raise InputError(
                    "Expected a picture of the back of the head, or weights with the back-view model and its control "
                    "picture (back_control); got neither"
                )
            back = self.make_back(
                portrait, back_control, generator=generator, back_start=back_start, sampling=sampling, track=track
            )
        pictures = [front] if back is None else [front, back]
        networks = self.networks_for_views()
        if not sampling.view_consistency:
            networks = replace(networks, view_consistency=None)
        inputs = networks, torch.stack(pictures), cameras, control, start_views, sampling, generator
        views = self._draw(*inputs, description="views", track=track)
        return DiffPortrait360Output(views, back)

    @torch.no_grad()
    def make_back(
        self,
        portrait: InputPicture,
        back_control: Float[Tensor, "_ _ _"],
        *,
        generator: torch.Generator,
        back_start: Float[Tensor, "_ _ _"] | None = None,
        sampling: Sampling | None = None,
        track: Track | None = None,
    ) -> Float[Tensor, "3 H W"]:
        """F: the back of the head from the portrait, in the size of its control picture. Arguments as in `__call__`.

        Raises:
            InputError: no back-view model, or pictures that do not fit.
        """
        if not self.can_make_back:
            raise InputError("These weights have no back-view model; give a picture of the back of the head instead")
        sampling = sampling or Sampling()
        networks = self.networks_for_back()
        control, start = back_control[None], None if back_start is None else back_start[None]
        self._check(networks.camera_control, control, start)
        front = _picture_tensor(portrait, (back_control.shape[-2], back_control.shape[-1]), "portrait")
        inputs = networks, front[None], None, control, start, sampling, generator
        return self._draw(*inputs, description="back view", track=track)[0]

    def _draw(
        self,
        networks: Networks,
        pictures: Float[Tensor, "references 3 H W"],
        cameras: Cameras | None,
        control: Float[Tensor, "b k H W"],
        start_views: Float[Tensor, "b 3 H W"] | None,
        sampling: Sampling,
        generator: torch.Generator,
        **shown: Any,
    ) -> Float[Tensor, "b 3 H W"]:
        """From reference pictures to pictures; arguments as in `denoise`, but for the latents."""
        references = self.encode_pictures(pictures, sampling, generator)
        start = None if start_views is None else self.encode_pictures(start_views, sampling, generator)
        with self._resident(networks):
            # drawn where the generator lives, so that a CPU seed means the same everywhere
            noise = randn_tensor(
                (len(control), *references.shape[1:]), generator, self._execution_device, torch.float32
            )
            latents = self.denoise(networks, references, cameras, control, noise, start, sampling, generator, **shown)
        return self.decode_latents(latents)

    def networks_for_views(self) -> Networks:
        """The 360 model."""
        return Networks(self.unet, self.appearance or self.unet, self.camera_control, self.view_consistency, Mode.VIEWS)

    def networks_for_back(self) -> Networks:
        """F, with the other networks where it has none of its own."""
        return Networks(
            self.back_unet or self.unet,
            self.back_appearance or self.appearance or self.unet,
            self.back_camera_control or self.camera_control,
            None,
            Mode.BACK,
        )

    @torch.no_grad()
    def denoise(
        self,
        networks: Networks,
        references: Float[Tensor, "references c h w"],
        cameras: Cameras | None,
        control: Float[Tensor, "b k H W"],
        noise: Latents,
        start: Latents | None,
        sampling: Sampling,
        generator: torch.Generator,
        *,
        description: str,
        track: Track | None = None,
    ) -> Latents:
        """The loop: R once a step for all views, C once a view and step, two predictions, one scheduler step.

        Args:
            networks: the 360 model or F.
            references: clean latents of the reference pictures, [1 or 2, c, h, w].
            cameras: of the views, which say who is whose neighbour; None treats the views as unrelated.
            control: control pictures, [-1, 1].
            noise: standard normal, one per view.
            start: latents of the start views; None starts from `noise` alone. With `start_shortcut` predictions are
                added to them.
            sampling: schedule, steps, guidance and clips.
            generator: source of the noise of each step, where the sampler has any.

        Returns:
            Latents of the views, float32.
        """
        unet, device, dtype = networks.unet, self._execution_device, networks.unet.dtype
        context = None if self.context is None else self.context().to(device, dtype)
        references = references.to(device, dtype)
        embedded = networks.camera_control.embed_control(control.to(device, dtype))
        denoiser = Denoiser(self.scheduler, sampling, device)
        latents = denoiser.start(noise.to(device), start)
        shortcut = start if self.config["start_shortcut"] and start is not None else 0.0
        fixed = self.config["reference_timestep"]
        reference = None if fixed is None else self._reference(networks, references, torch.tensor([fixed]), context)
        steady: ControlResiduals | None = None
        if not networks.camera_control.sizes.sees_latent:
            steady = networks.camera_control(None, None, context, embedded, mode=networks.mode)
        for index, timestep in enumerate(self._tracked(denoiser.timesteps, track, description)):
            if fixed is None:
                reference = self._reference(networks, references, timestep, context)
            noisy = denoiser.scheduler.scale_model_input(latents, timestep).to(dtype)
            guides = sampling.guides(index, len(denoiser.timesteps))
            clips = self.clips_of_step(networks, cameras, len(latents), sampling, index)
            residuals = steady
            if residuals is None and sum(map(len, clips)) > len(latents):  # views in several clips: control them once
                residuals = self._control(networks, noisy, timestep, context, embedded, sampling)
            conditional, unconditional = ViewAverage(latents), ViewAverage(latents)
            for batch in batches_of(clips, sampling.clips_per_batch):
                rows, options = torch.cat(batch).to(device), {"mode": networks.mode, "clip_length": len(batch[0])}
                options["view_consistency"] = networks.view_consistency
                here = noisy[rows]
                if residuals is None:
                    added = networks.camera_control(here, timestep, context, embedded[rows], mode=networks.mode)
                else:
                    added = residuals[rows]
                predicted = unet(here, timestep, context, reference=reference, control=added, **options)
                conditional.add(rows, predicted)
                if guides:
                    unconditional.add(rows, unet(here, timestep, context, **options))
            prediction = conditional.mean + shortcut
            if guides:
                without = unconditional.mean + shortcut
                prediction = guided(prediction, without, sampling.guidance_scale, sampling.guidance_rescale)
            latents = denoiser.step(prediction, timestep, latents, generator)
        return latents

    def clips_of_step(
        self, networks: Networks, cameras: Cameras | None, count: int, sampling: Sampling, step: int
    ) -> list[Tensor]:
        """Rows of the views that are denoised together in one step, clip by clip; without V each view is a clip.

        Raises:
            InputError: clips that are longer than V's position table.
        """
        if networks.view_consistency is None or cameras is None:
            return [torch.tensor([row]) for row in range(count)]
        sizes = networks.view_consistency.sizes
        length, longest = sampling.clip_length or sizes.clip_length, sizes.max_clip_length
        if length > longest:
            raise InputError(f"Cannot sample: expected clip_length at most {longest} for these weights, got {length}")
        return sampling.clips(cameras, length, step)

    def _reference(
        self, networks: Networks, references: Latents, timestep: Tensor, context: Context | None
    ) -> Reference:
        """All reference tokens of one step, as keys and values of the denoising network."""
        written = networks.appearance.write_reference(references, timestep, context, mode=Mode.REFERENCE)
        banks = zip(*(tokens.split(1) for tokens in written))
        return networks.unet.read_reference(*banks)

    def _control(
        self,
        networks: Networks,
        noisy: Latents,
        timestep: Tensor,
        context: Context | None,
        embedded: Float[Tensor, "b embedded h w"],
        sampling: Sampling,
    ) -> ControlResiduals:
        """Residuals of all views, a few views at a time."""
        rows = control_batches(len(noisy), sampling)
        control = networks.camera_control
        parts = [control(noisy[r], timestep, context, embedded[r], mode=networks.mode) for r in rows]
        skips = zip(*(part.skips for part in parts))
        return ControlResiduals(tuple(map(torch.cat, skips)), torch.cat([part.middle for part in parts]))

    def encode_pictures(
        self, images: Images, sampling: Sampling = _DEFAULT_SAMPLING, generator: torch.Generator | None = None
    ) -> Latents:
        """Latents of pictures in [0, 1]: posterior samples as the release takes them, else the posterior's mode."""
        with self._resident(self.vae):
            latents, device, dtype = [], self._execution_device, self.vae.dtype
            for image in images.split(1):
                image = (image.to(device, dtype) * 2.0 - 1.0).contiguous()
                encoded: Any = self.vae.encode(image)  # each autoencoder has its own type of answer
                if isinstance(self.vae, AutoencoderKL):
                    posterior = encoded.latent_dist
                    latents.append(posterior.sample(generator) if sampling.official else posterior.mode())
                else:
                    latents.append(encoded.latent)
        mean, std = self._latent_statistics(latents[0].device)
        return (torch.cat(latents).float() - mean) / std

    def decode_latents(self, latents: Latents) -> Images:
        """Pictures in [0, 1], float32 on the CPU."""
        mean, std = self._latent_statistics(latents.device)
        with self._resident(self.vae):
            device, dtype = self._execution_device, self.vae.dtype
            rows = (latents * std + mean).to(device, dtype).split(1)
            images = [self.vae.decode(row).sample.float().cpu() for row in rows]
        return (torch.cat(images) / 2.0 + 0.5).clamp(0.0, 1.0)

    def _latent_statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and spread of the autoencoder's latents, [1 or c, 1, 1]."""
        mean, std = self.config["latents_mean"], self.config["latents_std"]
        spread = [1.0 / self.vae.config["scaling_factor"]] if std is None else std
        return (
            torch.tensor(mean or [0.0], device=device).reshape(-1, 1, 1),
            torch.tensor(spread, device=device).reshape(-1, 1, 1),
        )

    def _check(self, network: CameraControl, control: Tensor, start: Tensor | None) -> None:
        count, channels, height, width = control.shape
        if start is None and self.config["start_shortcut"]:
            raise InputError("Cannot make views: these weights change rough views of the head; give start views")
        if start is not None and (start.shape[0], *start.shape[2:]) != (count, height, width):
            raise InputError(
                f"Cannot make views: expected one start view of {width}x{height} for each of {count} cameras, got "
                f"{tuple(start.shape)}"
            )
        expected, factor = network.sizes.control_channels, network.sizes.latent_factor
        if channels != expected or height % factor or width % factor:
            raise InputError(
                f"Cannot make views: expected control pictures of {expected} channels and a size that is a multiple of "
                f"{factor}, got {tuple(control.shape[1:])}"
            )

    def _tracked(self, timesteps: Tensor, track: Track | None, description: str) -> Iterable[Tensor]:
        if track is None:
            bar: Any = self.progress_bar
            return bar(timesteps)
        return track(timesteps, total=len(timesteps), description=description)

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: torch.device | str | None = None) -> None:
        """Keep the weights in main memory and bring in what a stage needs: F, the 360 model or the autoencoder.

        Unlike the hooks of diffusers this moves each network twice a generation, not in every step.

        Args:
            gpu_id: number of the GPU; None takes the current one.
            device: the device itself, instead of a number.
        """
        self._stage_device = torch.device(device if device is not None else f"cuda:{gpu_id or 0}")
        self.to("cpu")

    @property
    def _execution_device(self) -> torch.device:
        return self._stage_device or super()._execution_device

    @contextmanager
    def _resident(self, stage: Networks | AutoencoderKL | PatchAutoencoder) -> Iterator[None]:
        """Have a stage's networks on the device while it runs."""
        if self._stage_device is None:
            yield
            return
        parts: list[Any] = [stage]  # whose `to` has several signatures
        if isinstance(stage, Networks):
            parts = [stage.unet, stage.appearance, stage.camera_control, stage.view_consistency]
        parts = [part for part in parts if part is not None]
        try:
            for part in parts:
                part.to(self._stage_device)
            yield
        finally:
            for part in parts:
                part.to("cpu")


def control_batches(count: int, sampling: Sampling) -> tuple[Tensor, ...]:
    """Rows of the views that camera control looks at together where clips overlap."""
    return torch.arange(count).split(8 * sampling.clips_per_batch)


def _picture_tensor(picture: InputPicture, size: tuple[int, int], what: str) -> Float[Tensor, "3 H W"]:
    """A picture in [0, 1] of (height, width) `size`, resized bicubically (the release's filter).

    Raises:
        InputError: another aspect ratio, another layout, integers, or values outside [0, 1].
    """
    if isinstance(picture, Image.Image):
        width, height = picture.size
    else:
        if picture.ndim != 3 or picture.shape[0] != 3 or not picture.is_floating_point():
            raise InputError(
                f"Cannot use the {what}: expected [3, height, width] of floats in [0, 1], got "
                f"{tuple(picture.shape)} of {picture.dtype}"
            )
        if not bool(torch.isfinite(picture).all()) or picture.min() < -1e-3 or picture.max() > 1 + 1e-3:
            raise InputError(f"Cannot use the {what}: expected values in [0, 1]; divide bytes by 255")
        height, width = picture.shape[1:]
    if abs(width / height * size[0] / size[1] - 1.0) > _LARGEST_ASPECT_ERROR:
        raise InputError(
            f"Cannot use the {what}: expected the shape of the views, {size[1]}x{size[0]}, got {width}x{height}; "
            "crop it with dp360.generation.portrait.prepare_portrait"
        )
    if isinstance(picture, Image.Image):
        resized = picture.convert("RGB").resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1).float() / 255.0
    if (height, width) == size:
        return picture.float()
    return F.interpolate(picture.float()[None], size, mode="bicubic", antialias=True)[0].clamp(0.0, 1.0)

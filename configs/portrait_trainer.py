"""`--image` for ns-train: the portrait becomes a data set before nerfstudio saves its configuration, and the fitted
head becomes files when training ends. This is the seam to the command line, so it prints and sets exit codes."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dp360.generation import InputError
from dp360.generation.dataset.view_dataset import TRANSFORMS, read_confidence
from dp360.generation.files import write_errors_for_people
from dp360.reconstruction.nerfstudio_splat import HeadSplatModelConfig, with_iterations
from dp360.reconstruction.nerfstudio_trainer import HeadTrainer, HeadTrainerConfig
from dp360.reconstruction.prepare import fit_threads, prepare_kernels

from .commands import DiffusionOptions, ExportCommand, Generator, Rings, ViewsCommand
from .console import errors_for_people, progress_bars
from .presets import PRESETS, Quality
from .view_generators import refuse_contradictions, settled

_EXIT_NOT_FINITE = 1


@dataclass
class PortraitTrainerConfig(HeadTrainerConfig):
    """nerfstudio's trainer settings, and a portrait to start from."""

    _target: type = field(default_factory=lambda: PortraitTrainer)
    """Class to instantiate."""
    image: Path | None = None
    """The portrait: any picture file. Give either this or --data."""
    quality: Quality = "standard"
    """Dial that derives the number and size of the views and the length of the fit."""
    face_index: int | None = None
    """Which face of several, 0 being the largest; the largest one, with a notice, if not given."""
    crop: Literal["auto", "standard", "wide"] = "auto"
    """wide has room for long hair and hats; auto takes it where the standard frame would cut them off."""
    no_face: bool = False
    """Align by the silhouette alone: for heads in which no face is found."""
    rings: Rings = "three"
    """level: only the ring at eye height, as DiffPortrait360 has it; three: rings above and below it as well."""
    generator: Generator = "auto"
    """Who makes the views: the geometric prior, the compact diffusion model that ships, or diffportrait360, which needs
    --weights; auto takes the compact model where it ships and was better than the prior on held-out heads."""
    weights: str | None = None
    """Weights for diffportrait360: a folder, or a hub id such as gym890/diffportrait360; for compact, a folder of other
    compact weights than those that ship."""
    diffusion: DiffusionOptions = field(default_factory=DiffusionOptions)
    """How the diffusion model draws."""
    data_from_image: Annotated[bool, tyro.conf.Suppress] = False
    """Whether `data` was made from `image`, so that a saved configuration can be loaded again."""

    def set_timestamp(self) -> None:
        """Make or find the data set and settle the rest; ns-train calls this before it saves the configuration.

        Raises:
            SystemExit: the portrait or the data set cannot be used, or the run's folder cannot be made; the reason
                stands on the error stream.
        """
        with errors_for_people():
            super().set_timestamp()
            self.data = self._find_data(self.data or self.pipeline.datamanager.data)
            self.pipeline.datamanager.data = self.data
            with write_errors_for_people(self.get_base_dir()):
                self.get_base_dir().mkdir(parents=True, exist_ok=True)

    def _find_data(self, data: Path | None) -> Path:
        """The data set's folder, absolute: the one given, or made from the portrait under the output folder."""
        if self.image is not None and (data is None or self.data_from_image):
            self.data_from_image = True
            self.image = self.image.expanduser().absolute()
            self.experiment_name = self.experiment_name or self.image.stem
            if data is not None and (data / TRANSFORMS).is_file():
                return data  # a saved run that is loaded again
            return self._data_from_portrait(self.image)
        if self.image is not None:
            raise InputError("Give either a portrait with --image FILE or a data set with --data DIR, not both")
        if data is None:
            raise InputError("Give a portrait with --image FILE, or a data set with --data DIR")
        data = data.expanduser().absolute()
        read_confidence(data)  # a damaged transforms.json is named here, not by a traceback later
        return data

    def _data_from_portrait(self, image: Path) -> Path:
        """Views of the portrait, made once for each picture, settings, weights and version, and found again later."""
        from .pipeline import DATASET_NAME, RECORD_NAME, make_views

        command = ViewsCommand(
            image=image,
            output=Path(),
            quality=self.quality,
            seed=self.machine.seed,
            face_index=self.face_index,
            crop=self.crop,
            no_face=self.no_face,
            rings=self.rings,
            generator=self.generator,
            weights=self.weights,
            diffusion=self.diffusion,
        )
        refuse_contradictions(command)
        key = views_key(settled(command))
        folder = self.output_dir / image.stem / "dp360-data" / key[:16]
        if (folder / RECORD_NAME).is_file() and (folder / DATASET_NAME / TRANSFORMS).is_file():
            print(f"dp360: using the views made earlier in {folder}", file=sys.stderr)
        else:
            with progress_bars() as display:
                make_views(replace(command, output=folder), track=display.track, notify=display.notify)
        return folder / DATASET_NAME


def views_key(command: ViewsCommand) -> str:
    """SHA-256 over everything that the views depend on: the portrait's bytes, the settings, our weights and code,
    and the files that options name (by size and time of change).

    Raises:
        InputError: the portrait cannot be read.
    """
    try:
        picture = command.image.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read the portrait {command.image}: {error.strerror}; check the path") from error
    settings = {name: value for name, value in asdict(command).items() if name not in ("image", "output", "quality")}
    settings.update(asdict(command.preset), iterations=0, mediapipe=metadata.version("mediapipe"))
    digest = hashlib.sha256(hashlib.sha256(picture).digest())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in _given_files(command):
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    generation = Path(str(resources.files("dp360.generation")))
    for file in sorted(p for p in generation.rglob("*") if p.suffix in (".py", ".npz", ".safetensors")):
        digest.update(f"{file.relative_to(generation)}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _given_files(command: ViewsCommand) -> list[Path]:
    """Files that the options name, those of folders included, where they exist: weights, pictures, labels."""
    options = command.diffusion
    places = [options.condition_views, options.start_views, options.back_image, options.camera_labels]
    if command.weights is not None:
        places.append(Path(command.weights).expanduser())
    files = [file for place in places if place is not None for file in (place, *place.rglob("*"))]
    return sorted(file for file in files if file.is_file())


@dataclass
class SplatTrainerConfig(PortraitTrainerConfig):
    """As above, for splats: the dial sets the number of steps unless it is given."""

    _target: type = field(default_factory=lambda: SplatTrainer)
    """Class to instantiate."""
    max_num_iterations: int = 0
    """Steps of the fit; 0 takes what --quality stands for."""

    def set_timestamp(self) -> None:
        """As above; the model learns how long the fit will be, since its schedules depend on it."""
        if self.max_num_iterations == 0:
            self.max_num_iterations = PRESETS[self.quality].iterations
        assert isinstance(self.pipeline.model, HeadSplatModelConfig)
        self.pipeline.model = with_iterations(self.pipeline.model, self.max_num_iterations)
        super().set_timestamp()


@dataclass
class NerfTrainerConfig(PortraitTrainerConfig):
    """As above, for radiance fields: the device sets the number of steps unless it is given."""

    max_num_iterations: int = 0
    """Steps of optimisation; 0 takes 10000 on a GPU, and 1000 on a CPU, which is minutes and a soft picture."""

    def set_timestamp(self) -> None:
        """As above; step sizes fall until the last step, whatever the number."""
        super().set_timestamp()
        if self.max_num_iterations == 0:
            self.max_num_iterations = 1000 if self.machine.device_type == "cpu" else 10_000
        for group in self.optimizers.values():
            group["scheduler"].max_steps = self.max_num_iterations


class PortraitTrainer(HeadTrainer):
    """Says at the end what was made and what can be done with it."""

    config: PortraitTrainerConfig

    def train(self) -> None:
        """Train; numbers that stop being finite end in one line instead of a traceback."""
        try:
            super().train()
        except FloatingPointError as error:
            print(f"dp360: {error}", file=sys.stderr)
            raise SystemExit(_EXIT_NOT_FINITE) from None

    def after_training(self, step: int) -> None:
        """Name the files and the next commands; after an early stop, leave with the signal's exit code.

        Raises:
            SystemExit: stopped by a signal (128 + its number), or a file cannot be written.
        """
        config_path = self.base_dir / "config.yml"
        if self.stopped_by is not None:
            print(f"dp360: stopped at step {step}; the checkpoint is in {self.checkpoint_dir}", file=sys.stderr)
        else:
            with errors_for_people():
                for path in self.export(config_path):
                    print(f"wrote {path}")
        for line in self.next_commands(config_path):
            print(line)
        sys.stdout.flush()
        if self.stopped_by is not None:
            raise SystemExit(128 + self.stopped_by)

    def export(self, config_path: Path) -> tuple[Path, ...]:
        """Files made of what was learned, none for a radiance field."""
        return ()

    def next_commands(self, config_path: Path) -> tuple[str, ...]:
        """What can be done with the run."""
        config = shlex.quote(str(config_path))
        return (
            f"look at it:  ns-viewer --load-config {config}",
            f"evaluate it: ns-eval --load-config {config}",
            f"export it:   dp360 export --load-config {config} --output head.glb turntable.mp4",
        )


class SplatTrainer(PortraitTrainer):
    """Exports head.ply, head.glb (where the head came from a portrait) and contact_sheet.png into the run's folder."""

    def train(self) -> None:
        """Train; on a CPU with as many threads as pay, after the kernels were compiled."""
        if self.device != "cpu":
            super().train()
            return
        with progress_bars() as display:
            prepare_kernels(display.track)
        with fit_threads():
            super().train()

    def export(self, config_path: Path) -> tuple[Path, ...]:
        """The same files as `dp360 export` makes, by the same way through the saved checkpoint."""
        from .export import export

        return export(ExportCommand(output=((self.base_dir,),), load_config=config_path))

    def next_commands(self, config_path: Path) -> tuple[str, ...]:
        """Look at it, and export it in other forms."""
        config = shlex.quote(str(config_path))
        return (
            f"look at it:  ns-viewer --load-config {config}",
            f"export more: dp360 export --load-config {config} --output head.spz head.html turntable.mp4",
        )

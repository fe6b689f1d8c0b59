"""`--image` for ns-train: the portrait becomes a data set before nerfstudio saves its configuration, and the fitted
head becomes files when training ends. This is the seam to the command line, so it prints and sets exit codes."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from dp360.generation import InputError
from dp360.generation.dataset.posed_frames import read_posed_frames
from dp360.generation.dataset.view_dataset import (
    TRANSFORMS,
    background_notice,
    is_ours,
    read_confidence,
    read_dataset,
    with_safe_names,
    write_dataset,
)
from dp360.generation.file_names import as_file_name
from dp360.generation.files import write_errors_for_people
from dp360.generation.system import command_line, give_back_large_blocks
from dp360.reconstruction.nerfstudio_splat import HeadSplatModel, HeadSplatModelConfig
from dp360.reconstruction.nerfstudio_trainer import HeadTrainer, HeadTrainerConfig
from dp360.reconstruction.prepare import fit_threads, prepare_kernels
from dp360.reconstruction.splat_fit import SplatFitConfig

from .console import errors_for_people, progress_bars
from .device import choose_device
from .doctor import version_of
from .jobs.job import Job
from .options import FitOptions, HeadOptions
from .portrait_to_head import finish_head, settings_of
from .recipe import HeadRecipe, head_recipe
from .run_folder import (
    DATASET_NAME,
    RECORD_NAME,
    RunRecord,
    aligned_portrait_rgb,
    dataset_folder,
    exclusive_run,
    warnings_in,
)
from .run_keys import views_key
from .view_generators import refuse_contradictions, settled

_EXIT_NOT_FINITE = 1


@dataclass
class PortraitTrainerConfig(HeadTrainerConfig):
    """nerfstudio's trainer settings, and a portrait to start from."""

    _target: type = field(default_factory=lambda: PortraitTrainer)
    """Class to instantiate."""
    head: Annotated[HeadOptions, tyro.conf.arg(name="")] = field(default_factory=HeadOptions)
    """The options of dp360 run, under the same names."""
    data_from_run: Annotated[str | None, tyro.conf.Suppress] = None
    """The way from the run's folder to its data set, so that both can be moved together."""

    def set_timestamp(self) -> None:
        """Make or find the data set and settle the rest.

        Raises:
            SystemExit: the portrait or the data set cannot be used, or the run's folder cannot be made; the reason
                stands on the error stream.
        """
        with errors_for_people():
            self.pipeline = copy.deepcopy(self.pipeline)  # the method's own must stay as it is
            self._settle_seed_and_device()
            super().set_timestamp()
            recipe = head_recipe(self.head)
            self.follow(recipe)
            self.data = self._find_data(recipe, self.data or self.pipeline.datamanager.data)
            self.pipeline.datamanager.data = self.data
            folder = self.get_base_dir()
            self.data_from_run = os.path.relpath(self.data, folder)
            with write_errors_for_people(folder):
                folder.mkdir(parents=True, exist_ok=True)

    def follow(self, recipe: HeadRecipe) -> None:
        """Take from the recipe what is not about views."""

    def _settle_seed_and_device(self) -> None:
        """One seed and one device: nerfstudio's names for them and ours say the same."""
        machine = self.machine
        if machine.seed and self.head.seed not in (0, machine.seed):
            raise InputError(f"Give one seed: --seed {self.head.seed} and --machine.seed {machine.seed} differ")
        machine.seed = self.head.seed or machine.seed
        if self.head.device != "auto":
            machine.device_type = choose_device(self.head.device)  # type: ignore[assignment]
        self.head = replace(self.head, seed=machine.seed)

    def _find_data(self, recipe: HeadRecipe, data: Path | None) -> Path:
        """The data set's folder, absolute: the one given, or made from the portrait under the output folder."""
        if self.head.image and (data is None or self.data_from_run is not None):
            portrait = self.head.portrait.absolute()
            self.head = replace(self.head, image=(portrait,))
            self.experiment_name = self.experiment_name or as_file_name(portrait.stem, "portrait")
            if data is not None and (data / TRANSFORMS).is_file():
                return data  # a saved run that is loaded again
            return self._data_from_portrait(recipe)
        if self.head.image:
            raise InputError("Give either a portrait with --image FILE or a data set with --data DIR, not both")
        if data is None:
            raise InputError("Give a portrait with --image FILE, or a data set with --data DIR")
        data = dataset_folder(data.expanduser().absolute())
        if is_ours(data) and (data.name == TRANSFORMS or data.is_dir()):
            read_confidence(data)  # a damaged transforms.json is named here, not by a traceback later
            return data if data.is_dir() else data.parent
        return self._data_as_ours(data)

    def _data_as_ours(self, data: Path) -> Path:
        """A stranger's data set as one of ours, made once, since nerfstudio's reader takes less than ours does."""
        posed = read_posed_frames(data)
        files = sorted({posed.folder / TRANSFORMS, data, *posed.paths, *(m for m in posed.masks if m is not None)})
        stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
        key = hashlib.sha256(json.dumps([stats, version_of("dp360")]).encode()).hexdigest()[:16]
        folder = self.output_dir / posed.folder.name / "dp360-data" / key
        self.experiment_name = self.experiment_name or posed.folder.name
        dataset = folder / DATASET_NAME
        with progress_bars() as display:
            if not (dataset / TRANSFORMS).is_file():
                with exclusive_run(folder):
                    write_dataset(with_safe_names(read_dataset(data)), dataset)
            notice = background_notice(read_dataset(dataset))
            if notice is not None:
                display.notify(notice)
        return dataset

    def _data_from_portrait(self, recipe: HeadRecipe) -> Path:
        """Views of the portrait, made once for each picture, settings, weights and version, and found again later."""
        refuse_contradictions(self.head)
        with progress_bars() as display:
            options = settled(self.head, display.notify)
            name = as_file_name(options.portrait.stem, "portrait")
            folder = self.output_dir / name / "dp360-data" / views_key(options, recipe)[:16]
            dataset = folder / DATASET_NAME
            if (folder / RECORD_NAME).is_file() and (dataset / TRANSFORMS).is_file():
                display.notify(f"using the views made earlier in {folder}")
                return dataset
            give_back_large_blocks()
            Job(options, folder, "dataset").run(track=display.track, notify=display.notify)
        return dataset


@dataclass
class SplatTrainerConfig(PortraitTrainerConfig):
    """As above, for splats: the dial sets the fit."""

    _target: type = field(default_factory=lambda: SplatTrainer)
    """Class to instantiate."""
    max_num_iterations: int = 0
    """Steps of the fit, nerfstudio's name for --fit.iterations; 0 takes what --quality stands for."""

    def follow(self, recipe: HeadRecipe) -> None:
        """Give the model the recipe's fit, where its settings are not somebody's own."""
        assert isinstance(self.pipeline.model, HeadSplatModelConfig)
        own = self.head.fit.iterations
        if own is not None and self.max_num_iterations not in (0, own):
            raise InputError(
                f"Give one number of steps: --fit.iterations {own} and --max-num-iterations "
                f"{self.max_num_iterations} differ"
            )
        iterations = self.max_num_iterations or recipe.fit.iterations
        fit = _with_dial(self.pipeline.model.fit, replace(recipe.fit, iterations=iterations))
        self.max_num_iterations = iterations
        self.pipeline.model = replace(self.pipeline.model, fit=fit)


def _with_dial(given: SplatFitConfig, dial: SplatFitConfig) -> SplatFitConfig:
    """The model's fit with the dial's numbers in it.

    Raises:
        InputError: one of the dial's numbers was set inside the model, where it would be a second name for the same.
    """
    plain = SplatFitConfig()
    names = {f.name for f in fields(FitOptions)}
    for inside, ours, default, path in (
        (given, dial, plain, "fit"),
        (given.densify, dial.densify, plain.densify, "fit.densify"),
    ):
        for name in names & {f.name for f in fields(inside)} - {"iterations"}:
            value = getattr(inside, name)
            if value not in (getattr(default, name), getattr(ours, name)):
                option = name.replace("_", "-")
                raise InputError(f"Give --fit.{option} {value} in place of --pipeline.model.{path}.{option}")

    def taken(inside: Any, ours: Any, default: Any) -> dict[str, Any]:
        """What is the dial's: its options, and whatever is not set inside the model."""
        own = {f.name for f in fields(inside) if getattr(inside, f.name) != getattr(default, f.name)} - names
        return {f.name: getattr(ours, f.name) for f in fields(ours) if f.name not in own}

    densify = replace(given.densify, **taken(given.densify, dial.densify, plain.densify))
    return replace(given, **{**taken(given, dial, plain), "densify": densify})


@dataclass
class NerfTrainerConfig(PortraitTrainerConfig):
    """As above, for radiance fields: dial and device set the number of steps unless it is given."""

    max_num_iterations: int = 0
    """Steps of optimisation; 0 takes what --quality stands for: 500, 1000 or 3000 on a CPU, ten times as many on a
    GPU. 1000 are minutes and a soft picture."""

    def follow(self, recipe: HeadRecipe) -> None:
        """Steps of the recipe; step sizes fall until the last one, whatever their number."""
        if self.head.fit != FitOptions():
            raise InputError("--fit options are for Gaussian splats; give --max-num-iterations, or train dp360-splat")
        if self.max_num_iterations == 0:
            on_cpu = self.machine.device_type == "cpu"
            self.max_num_iterations = recipe.field_iterations * (1 if on_cpu else 10)
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
        if self.stopped_by is not None:
            print(f"dp360: stopped at step {step}; the checkpoint is in {self.checkpoint_dir}", file=sys.stderr)
        else:
            with errors_for_people():
                for path in self.export():
                    print(f"wrote {path}")
        config = command_line([str(self.base_dir / "config.yml")])
        for line in self.next_commands(config):
            print(line)
        sys.stdout.flush()
        if self.stopped_by is not None:
            raise SystemExit(128 + self.stopped_by)

    def export(self) -> tuple[Path, ...]:
        """Files made of what was learned, none for a radiance field."""
        return ()

    def next_commands(self, config: str) -> tuple[str, ...]:
        """What can be done with the run."""
        return (
            f"look at it:  ns-viewer --load-config {config}",
            f"evaluate it: ns-eval --load-config {config}",
            f"export it:   dp360 export --load-config {config} --output head.glb turntable.mp4",
        )


class SplatTrainer(PortraitTrainer):
    """Leaves the same files in the run's folder as `dp360 run`: head.ply, head.glb, contact_sheet.png, dp360.json."""

    config: SplatTrainerConfig

    def train(self) -> None:
        """Train; on a CPU with as many threads as pay, after the kernels were compiled."""
        self._started_s = time.perf_counter()
        if self.device != "cpu":
            super().train()
            return
        with progress_bars() as display:
            prepare_kernels(display.track)
        with fit_threads():
            super().train()

    def export(self) -> tuple[Path, ...]:
        """The splats as they were trained become files, by the same function as in `dp360 run`."""
        model, data = self.pipeline.model, self.config.data
        assert isinstance(model, HeadSplatModel) and data is not None
        record = RunRecord(self.base_dir / RECORD_NAME, settings_of(self.config.head, model.config.fit))
        record.warnings += warnings_in(data.parent)
        record.timings_s["fit"] = round(time.perf_counter() - self._started_s, 3)
        with progress_bars() as display:
            return finish_head(
                model.splats,
                read_dataset(data),
                aligned_portrait_rgb(data.parent),
                self.base_dir,
                record,
                track=display.track,
            )

    def next_commands(self, config: str) -> tuple[str, ...]:
        """Look at it, and export it in other forms."""
        return (
            f"look at it:  ns-viewer --load-config {config}",
            f"export more: dp360 export --load-config {config} --output head.spz head.html turntable.mp4",
        )

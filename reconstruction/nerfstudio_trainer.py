"""nerfstudio's trainer, made to survive: whole checkpoints that every `ns-*` tool reads, and a way to stop early."""

from __future__ import annotations

import contextlib
import io
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE

from dp360.generation import InputError
from dp360.generation.files import write_bytes_atomically
from dp360.generation.system import ENDING_SIGNALS, handled


@dataclass
class HeadTrainerConfig(TrainerConfig):
    """nerfstudio's trainer settings with ours on top; every field of theirs is still there."""

    _target: type = field(default_factory=lambda: HeadTrainer)
    """Class to instantiate."""
    run_folder: Annotated[Path | None, tyro.conf.Suppress] = None
    """Where the run lies today, for a run that was moved; a run that is being made lies where its settings say."""

    def get_base_dir(self) -> Path:
        """The run's folder."""
        return super().get_base_dir() if self.run_folder is None else self.run_folder

    def set_timestamp(self) -> None:
        """Settle what has to be known before the configuration is saved.

        ns-train's main calls, once per job: set_timestamp, print_to_terminal, save_config, and then, in every process
        of the job, setup. Only the first comes before the configuration is shown and saved, so this is where a portrait
        has to become a data set; a data parser or `setup` would come too late for config.yml, and once per process.
        """
        super().set_timestamp()
        if self.machine.device_type == "cuda" and not torch.cuda.is_available():
            self.machine.device_type = "cpu"
        # A relative folder would tie every later ns-* call to the working folder of this one.
        self.output_dir = self.output_dir.expanduser().absolute()


class HeadTrainer(Trainer):
    """Trains as nerfstudio does, apart from checkpoints, signals and what happens at the end."""

    config: HeadTrainerConfig
    stopped_by: signal.Signals | None = None
    """The signal that asked to stop early, if one did."""
    last_step: int | None = None
    """The last step that was done from beginning to end."""

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """As nerfstudio's, with `after_training` called when the last checkpoint is on disk."""
        super().setup(test_mode)
        self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self.after_training))

    def after_training(self, step: int) -> None:
        """A place for subclasses to export what was learned; also called after an early stop.

        Args:
            step: the step of the checkpoint just written.
        """

    def train(self) -> None:
        """Train until the end or until SIGINT or SIGTERM; both leave a checkpoint. A second signal ends at once.

        A run that goes on from a checkpoint does the steps that were left of --max-num-iterations; where none were,
        as many more.
        """
        total, left = self.config.max_num_iterations, self.config.max_num_iterations - self._start_step
        with self._stop_on_signals():
            try:
                self.config.max_num_iterations = left if left > 0 else total
                super().train()
            except KeyboardInterrupt:
                if self.training_state != "completed":
                    raise
            finally:
                self.config.max_num_iterations = total

    def train_iteration(self, step: int) -> Any:
        """One step of optimisation.

        Raises:
            FloatingPointError: the loss is not finite; checkpoints on disk are from before that happened.
        """
        try:
            result = super().train_iteration(step)
        except InputError as error:  # how the rasteriser names a variable that is not finite
            raise FloatingPointError(
                f"The fit is not finite at step {step}: {error}. Checkpoints in {self.checkpoint_dir} are from before"
            ) from error
        if not math.isfinite(float(result[0].detach())):
            raise FloatingPointError(
                f"The loss is not finite at step {step}; training stopped. Checkpoints in {self.checkpoint_dir} are "
                "from before; lower the learning rates or make the data set again"
            )
        self.last_step = step
        if self.stopped_by is not None:
            self.stop_training = True
        return result

    def _load_checkpoint(self) -> None:
        """As nerfstudio's, from the newest checkpoint in --load-dir that can be read.

        Raises:
            InputError: there is none.
        """
        folder = self.config.load_dir
        if folder is None or self.config.load_step is not None:
            super()._load_checkpoint()
            return
        found = sorted(folder.glob("step-*.ckpt"), reverse=True)
        for path in found:
            try:
                step = int(torch.load(path, map_location="cpu", weights_only=True)["step"])
            except Exception as error:  # torch names damage in many ways
                CONSOLE.print(f"dp360: {path} is damaged ({type(error).__name__}); trying the one before")
                continue
            self.config.load_step = step
            try:
                super()._load_checkpoint()
            finally:
                self.config.load_step = None
            return
        raise InputError(
            f"--load-dir {folder}: none of its {len(found)} checkpoints can be read; expected step-*.ckpt files, "
            "as they lie in a run's nerfstudio_models folder"
        )

    def save_checkpoint(self, step: int) -> None:
        """Write a checkpoint, whole or not at all, that `torch.load(weights_only=True)` accepts.

        The temporary file stands outside the checkpoint folder, since ns-* tools read a step number out of every
        name in there. Older checkpoints go only when the new one is in place; the one before stays, in case a disk
        damages the newest.

        Raises:
            FloatingPointError: a learned number is not finite; earlier checkpoints stay.

        Source: https://github.com/nerfstudio-project/nerfstudio/issues/3683 (numpy scalars in saved states).
        """
        for name, parameter in self.pipeline.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise FloatingPointError(
                    f"{name} is not finite at step {step}; nothing was saved. Checkpoints in {self.checkpoint_dir} "
                    "are from before"
                )
        state = {
            "step": step,
            "pipeline": self.pipeline.state_dict(),
            "optimizers": {name: plain(o.state_dict()) for name, o in self.optimizers.optimizers.items()},
            "schedulers": {name: plain(s.state_dict()) for name, s in self.optimizers.schedulers.items()},
            "scalers": plain(self.grad_scaler.state_dict()),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        write_bytes_atomically(self.base_dir / path.name, buffer.getvalue())
        self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        os.replace(self.base_dir / path.name, path)
        if self.config.save_only_latest_checkpoint:
            earlier = sorted(p for p in self.checkpoint_dir.glob("step-*.ckpt") if p.name < path.name)
            for older in earlier[:-1]:
                older.unlink()

    def _after_train(self) -> None:
        if self.last_step is not None:
            self.step = self.last_step  # nerfstudio counts the step that it did not begin
        if self.stopped_by is not None:
            self.config.viewer.quit_on_train_completion = True  # whoever asks to stop does not want to wait
        super()._after_train()

    @contextlib.contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the loop at the next step; once training is over they end the viewer."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask_to_stop(number: int, frame: FrameType | None) -> None:
            if self.stopped_by is not None or self.training_state == "completed":
                raise KeyboardInterrupt
            self.stopped_by = signal.Signals(number)
            self.stop_training = True

        with handled(ask_to_stop, (signal.SIGINT, *ENDING_SIGNALS)):
            yield


def plain(value: Any) -> Any:
    """Nested dictionaries and lists with numpy scalars turned into Python's: what a safe `torch.load` accepts."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value

"""`dp360 fit`: Gaussian splats from views that are already on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .console import Display, Outcome
from .options import Device, FitOptions, Quality


@dataclass(frozen=True)
class FitCommand:
    """Fit Gaussian splats to views that are already on disk.

    The folder gets head.ply, head.glb (the same head as a textured mesh), contact_sheet.png and dp360.json.
    """

    data: Path
    """A data set's folder (with transforms.json, or dataset/transforms.json), from dp360 or any other program.
    ns-train dp360-splat --data reads the same."""
    output: Path
    """Folder for the results."""
    quality: Quality = "standard"
    """The dial: number of Gaussians and length of the fit, as in dp360 run."""
    fit: FitOptions = field(default_factory=FitOptions)
    """Numbers of the splat fit."""
    seed: int = 0
    """Seed of everything random: on a CPU the same seed gives the same bytes."""
    device: Device = "auto"
    """Where to compute; auto takes the GPU if there is one."""


def run(command: FitCommand, display: Display) -> Outcome:
    """Fit; errors as in `dp360 run`."""
    from dp360.generation.dataset.view_dataset import background_notice, read_dataset

    from .console import next_commands
    from .device import choose_device
    from .portrait_to_head import finish_head, fit_views, settings_of
    from .recipe import fit_recipe, refuse_bad_seed
    from .run_folder import RECORD_NAME, RunRecord, dataset_folder, exclusive_run

    recipe, device = fit_recipe(command.quality, command.fit), choose_device(command.device)
    refuse_bad_seed(command.seed)
    data, folder = dataset_folder(command.data.expanduser()), command.output.expanduser()
    with exclusive_run(folder):
        record = RunRecord(folder / RECORD_NAME, settings_of(command, recipe))
        with record.stage("read"):
            views = read_dataset(data)
        if (notice := background_notice(views)) is not None:
            record.telling(display.notify)(notice)
        with record.stage("fit"):
            splats = fit_views(views, recipe, command.seed, device, folder, track=display.track)
        files = finish_head(splats, views, None, folder, record, track=display.track)
    return (*files, *next_commands(folder))

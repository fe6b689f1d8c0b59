"""What can be asked of the `dp360` command: one dataclass per subcommand, its docstrings are the help texts.

Nothing heavy is imported here, so that `dp360 --help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from .presets import PRESETS, Preset, Quality

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class ViewsCommand:
    """Make the posed views of a head and stop: a data set that every nerfstudio method reads."""

    image: Path
    """The portrait: any picture file."""
    output: Path
    """Folder for the results; it gets portrait.png, head.glb (the mesh) and dataset/."""
    quality: Quality = "standard"
    """Dial that derives the numbers below where they are not given."""
    views: int | None = None
    """Views on the level ring; the rings above and below the head get 3/8 and 1/4 as many."""
    size_px: int | None = None
    """Side of the views in pixels."""
    seed: int = 0
    """Seed of everything random: on a CPU the same seed gives the same bytes."""
    face_index: int | None = None
    """Which face of several, 0 being the largest; the largest one, with a notice, if not given."""
    crop: Literal["auto", "standard", "wide"] = "auto"
    """wide has room for long hair and hats; auto takes it where the standard frame would cut them off."""
    no_face: bool = False
    """Align by the silhouette alone: for heads in which no face is found."""

    @property
    def preset(self) -> Preset:
        """The numbers in force: the dial's, overridden one by one."""
        dial = PRESETS[self.quality]
        return Preset(
            views=dial.views if self.views is None else self.views,
            size_px=dial.size_px if self.size_px is None else self.size_px,
            iterations=dial.iterations,
        )


@dataclass(frozen=True)
class RunCommand(ViewsCommand):
    """Make a head: portrait, views, Gaussian splats, mesh and contact sheet, all in one folder."""

    iterations: int | None = None
    """Steps of the splat fit."""
    device: Device = "auto"
    """Where the splats are fitted; auto takes the GPU if there is one."""

    @property
    def preset(self) -> Preset:
        """The numbers in force: the dial's, overridden one by one."""
        numbers = super().preset
        iterations = numbers.iterations if self.iterations is None else self.iterations
        return Preset(numbers.views, numbers.size_px, iterations)


@dataclass(frozen=True)
class FitCommand:
    """Fit Gaussian splats to views that are already on disk."""

    data: Path
    """A data set's folder (with transforms.json, or dataset/transforms.json), from dp360 or any other program."""
    output: Path
    """Folder for the results; it gets head.ply and contact_sheet.png."""
    quality: Quality = "standard"
    """Dial that derives the number of iterations where it is not given."""
    iterations: int | None = None
    """Steps of the splat fit."""
    seed: int = 0
    """Seed of everything random: on a CPU the same seed gives the same bytes."""
    device: Device = "auto"
    """Where the splats are fitted; auto takes the GPU if there is one."""

    @property
    def preset(self) -> Preset:
        """The numbers in force."""
        dial = PRESETS[self.quality]
        iterations = dial.iterations if self.iterations is None else self.iterations
        return Preset(dial.views, dial.size_px, iterations)


@dataclass(frozen=True)
class ExportCommand:
    """Write what was fitted in another form; the ending of --output says which."""

    output: Path
    """NAME.ply: splats; NAME.png: contact sheet; NAME.glb: textured mesh; any other name: a folder with all of them."""
    load_config: Path | None = None
    """The config.yml of an ns-train run with dp360-splat."""
    input: Path | None = None
    """Instead of a run: a splat .ply, from dp360 or any other program, to be written as another .ply."""
    metres_per_unit: float | None = None
    """Factor from world units to the lengths in the .ply; metres if not given, 1 keeps world units."""
    up_axis: Literal["+y", "-y"] = "+y"
    """Which way the crown points in the .ply; -y for viewers that would show the head upside down."""


@dataclass(frozen=True)
class ExampleCommand:
    """Write a real public-domain portrait to try things on; nothing is downloaded."""

    path: tyro.conf.Positional[Path] = Path("face.png")
    """Where to; a name that ends in .png."""


@dataclass(frozen=True)
class DoctorCommand:
    """Say what this machine has, what it lacks, and what for."""

    output: Path = Path()
    """Where results would go: its disk is looked at."""


Command = RunCommand | ViewsCommand | FitCommand | ExportCommand | ExampleCommand | DoctorCommand

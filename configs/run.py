"""`dp360 run` and `dp360 views`: from a portrait to a head, or to its views alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from .console import Display, Outcome
from .options import HeadOptions

if TYPE_CHECKING:
    from .jobs.job import HeadResult

HEADS_FOLDER = Path("heads")
"""Where results go that nobody named a folder for."""


@dataclass(frozen=True)
class _PortraitCommand(HeadOptions):
    """A portrait by its position, and a folder."""

    given_portrait: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PORTRAIT")] = ()
    """The portrait: any picture file; --image PORTRAIT does the same."""
    output: Path | None = None
    """Folder for the results; heads/NAME, after the portrait's name, if not given."""
    variants: int | None = None
    """Instead of a head, make variants.png: 1 to 16 heads that may be behind the portrait, one for each seed from
    --seed on, seen from behind. --generator field with one of the seeds takes that head."""

    @property
    def options(self) -> HeadOptions:
        """The portrait in its one place."""
        return replace(self, image=(*self.given_portrait, *self.image), given_portrait=())

    def taking(self, seed: int) -> str:
        """The command that makes one of the heads on the sheet of variants."""
        from dp360.generation.system import command_line

        words = ["dp360", "views" if isinstance(self, ViewsCommand) else "run", str(self.options.portrait)]
        words += ["--generator", "field", "--seed", str(seed)]
        given = {"--output": self.output, "--face-index": self.face_index}
        words += [word for option, value in given.items() if value is not None for word in (option, str(value))]
        words += ["--crop", self.crop] if self.crop != "auto" else []
        words += ["--no-face"] if self.no_face else []
        words += ["--matte", self.matte] if self.matte != "own" else []
        words += ["--no-glasses"] if self.no_glasses else []
        words += ["--light", self.light] if self.light != "portrait" else []
        return command_line(words)

    def folder(self) -> Path:
        """Where the results go.

        Raises:
            InputError: no portrait or several, or the folder that its name stands for holds another portrait's head.
        """
        from dp360.generation.file_names import as_file_name

        from .run_folder import refuse_folder_of_another_portrait

        portrait = self.options.portrait
        if self.output is not None:
            return self.output.expanduser()
        folder = HEADS_FOLDER / as_file_name(portrait.stem, "portrait")
        refuse_folder_of_another_portrait(folder, portrait)
        return folder


@dataclass(frozen=True)
class RunCommand(_PortraitCommand):
    """Make a head: dp360 run face.png.

    The folder gets head.ply (Gaussian splats), head.glb (the same head as a textured mesh), contact_sheet.png (what to
    judge it by), portrait.png (the aligned portrait with its matte), dataset/ (the views, readable by every nerfstudio
    method), prior.glb (the geometric prior's own mesh), head_fit.npz (what avatars are made of) and dp360.json
    (settings, hashes, seconds of each stage).
    """

    avatar: bool = False
    """Also make a head that moves: avatar.glb (52 blend shapes, a skeleton), avatar.html (a page to try it in) and
    avatar.ply with avatar.npz (splats that move, for dp360 animate)."""


@dataclass(frozen=True)
class ViewsCommand(_PortraitCommand):
    """Make the posed views of a head and stop: a data set that every nerfstudio method reads.

    The folder gets dataset/, portrait.png (the aligned portrait with its matte), prior.glb (the geometric prior's own
    mesh), head_fit.npz (what avatars are made of) and dp360.json (settings, hashes, seconds of each stage).
    """


def run(command: RunCommand | ViewsCommand, display: Display) -> Outcome:
    """Make what was asked for.

    What is complete when a run is stopped stays, and so do the splats as far as they were fitted; the same command goes
    on from there.

    Returns:
        The files and folders made, and what can be done with them.

    Raises:
        InputError: the picture or a setting cannot be used, or the folder cannot be written.
    """
    from .console import next_commands

    loading = iter(display.track(range(1), total=1, description="Loading the libraries"))
    next(loading)  # seconds in which there would be nothing to be seen
    from .jobs.job import Job
    from .kernels import fit_kernels_beside

    for _ in loading:
        pass
    options, folder = command.options, command.folder()
    if command.variants is not None:
        from .drawn_variants import write_variants

        sheet = write_variants(options, command.variants, folder, display)
        return sheet, f"take one by its seed: {command.taking(options.seed + command.variants - 1)}"
    if isinstance(command, ViewsCommand):
        made = Job(options, folder, "dataset").run(track=display.track, notify=display.notify)
        _tell_timings(made, options, display)
        return made.files
    with fit_kernels_beside(options.device, track=display.track, notify=display.notify) as wait:
        made = Job(options, folder).run(track=display.track, notify=display.notify, before_fit=wait)
    _tell_timings(made, options, display)
    avatar: tuple[Path, ...] = ()
    if command.avatar:
        from .avatar_files import write_avatar

        avatar = write_avatar(folder, track=display.track)
    return (*made.files, *avatar, *next_commands(folder))


def _tell_timings(made: HeadResult, options: HeadOptions, display: Display) -> None:
    if options.verbose:
        display.notify(", ".join(f"{name} {seconds:.1f} s" for name, seconds in made.timings_s.items()))

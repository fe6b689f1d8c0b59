"""What a run's avatar is made of and written as: rig, moving splats, page."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dp360.exporters import avatar_glb, avatar_html, splat_ply
from dp360.exporters.head_files import SPLATS_NAME
from dp360.generation import InputError, Provenance
from dp360.generation.files import write_bytes_atomically
from dp360.generation.light.named_lights import LIGHT_NAMES, PORTRAIT, wanted_light
from dp360.generation.light.spherical_harmonics import Light
from dp360.generation.prior.saved_fit import SavedFit, read_fit
from dp360.generation.progress import Track, silent
from dp360.reconstruction.avatar.binding import Binding, decode_binding
from dp360.reconstruction.avatar.finished_colours import with_finished_colours
from dp360.reconstruction.avatar.moving_splats import moving_splats
from dp360.reconstruction.avatar.rig import Rig, build_rig
from dp360.reconstruction.splats import Splats

from .options import RENDERED
from .run_folder import HEAD_FIT_NAME

AVATAR_GLB, AVATAR_PAGE, AVATAR_SPLATS, AVATAR_BINDING = "avatar.glb", "avatar.html", "avatar.ply", "avatar.npz"


@dataclass(frozen=True)
class RunAvatar:
    """The avatar of one run's folder; each part is made when it is asked for."""

    folder: Path
    """Folder of `dp360 run`."""

    @cached_property
    def fit(self) -> SavedFit:
        """What the run has kept.

        Raises:
            InputError: it is missing or damaged.
        """
        return read_fit(self.folder / HEAD_FIT_NAME)

    @cached_property
    def rig(self) -> Rig:
        """The rig, in the colours of the splats where a diffusion model drew the views."""
        rig = build_rig(self.fit)
        if not (self.folder / SPLATS_NAME).is_file():
            return rig
        origin = self.head[1]
        if not origin.is_known or origin.generator in RENDERED:
            return rig  # the texture is what the views show
        return with_finished_colours(rig, self.head[0])

    @cached_property
    def head(self) -> tuple[Splats, Provenance]:
        """The fitted splats and their origin.

        Raises:
            InputError: there are none, or they are damaged.
        """
        path = self.folder / SPLATS_NAME
        if not path.is_file():
            raise InputError(f"Cannot animate: expected {path}, which dp360 run writes; run it to its end first")
        splats, origin = splat_ply.decode(path.read_bytes())
        return splats, origin or Provenance.unknown("A head of unknown origin")

    @property
    def painted_in(self) -> Light | None:
        """The light that the run painted the head in, where it is known: a panorama's name alone is kept."""
        name = self.head[1].settings.get("light", PORTRAIT)
        if name == PORTRAIT:
            return self.fit.light
        return wanted_light(str(name)).light if name in LIGHT_NAMES else None

    @cached_property
    def moving(self) -> tuple[Splats, Binding]:
        """Splats with what a still head hides, and their binding: from files if they can be read, else made."""
        splats_path, binding_path = self.folder / AVATAR_SPLATS, self.folder / AVATAR_BINDING
        if splats_path.is_file() and binding_path.is_file():
            with suppress(InputError):  # of an earlier layout, or cut off
                splats, _ = splat_ply.decode(splats_path.read_bytes())
                binding = decode_binding(binding_path)
                if len(binding.triangle) == len(splats):
                    return splats, binding
        return moving_splats(self.head[0], self.rig, painted_in=self.painted_in)


def write_avatar(folder: Path, *, track: Track = silent) -> tuple[Path, ...]:
    """Write avatar.glb, avatar.html, avatar.ply and avatar.npz into a run's folder.

    Raises:
        InputError: the run has kept no fit, or no splats.
    """
    for name in (AVATAR_SPLATS, AVATAR_BINDING):
        (folder / name).unlink(missing_ok=True)  # of an earlier run
    avatar = RunAvatar(folder)
    origin = avatar.head[1]
    paths = tuple(folder / name for name in (AVATAR_GLB, AVATAR_PAGE, AVATAR_SPLATS, AVATAR_BINDING))
    steps = iter(track(range(3), total=3, description="Making the avatar"))
    next(steps)
    rig = avatar.rig
    next(steps)
    splats, binding = avatar.moving
    next(steps)
    write_bytes_atomically(paths[0], avatar_glb.encode(rig, origin))
    write_bytes_atomically(paths[1], avatar_html.encode(rig, origin, title=folder.name))
    write_bytes_atomically(paths[2], splat_ply.encode(splats, origin))
    write_bytes_atomically(paths[3], binding.encode())
    for _ in steps:
        pass
    return paths

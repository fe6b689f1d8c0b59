"""`dp360 export`: a fitted head, written in other forms. Every file is made before the first one is written."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from dp360.exporters.contact_sheet import SheetContent, sheet_cameras
from dp360.exporters.formats import Format, Kind, format_of, is_ambiguous
from dp360.exporters.head_files import MESH_NAME, SHEET_NAME, SPLATS_NAME
from dp360.generation import InputError, orbit
from dp360.generation.files import remove_left_over, write_bytes_atomically
from dp360.generation.mesh import TexturedMesh
from dp360.generation.progress import Track, silent
from dp360.reconstruction.avatar.rig import Rig
from dp360.reconstruction.splats import Splats

from .console import Notify, ignore
from .export import ExportCommand
from .fitted_head import FittedHead, open_head

_ENCODE_OPTIONS = {
    "metres_per_unit": "metres_per_unit",
    "up_axis": "up_axis",
    "texture_format": "texture_format",
    "spz_version": "version",
    "sh_bits": "sh_bits",
    "palette_size": "palette_size",
    "fps": "fps",
    "unlit": "unlit",
}
"""Fields of `ExportCommand` that go to `encode`, under the name that they have there."""
_MAKING_OPTIONS: dict[Kind, tuple[str, ...]] = {
    "mesh": ("face_budget", "texture_px"),
    "turntable": ("frames", "frame_px"),
}
"""Fields that go to the making of what such files are made of."""
_MOST_FRAMES, _FRAME_PX_RANGE = 3600, (16, 4096)


def export(command: ExportCommand, *, track: Track = silent, notify: Notify = ignore) -> tuple[Path, ...]:
    """Write the files that `command.output` names; if one of them cannot be made, none is written.

    Raises:
        InputError: neither or both of a run and an input given, one of them cannot be read, it does not hold what an
            output needs, an option that no output takes, or an output cannot be written.
    """
    names = _checked_names(command)
    given = _given_options(command, names)
    head = open_head(command.load_config, command.input, command.input_up_axis)
    for notice in head.notices:
        notify(notice)
    targets = [target for name in names for target in _targets(name, command, head)]
    for target, found in targets:
        _refuse_what_it_cannot_become(target, found.kind, head)
    if any(found.kind != "splats" for _, found in targets):
        _say_what_lies_far_off(head, notify)
    assets = _Assets(head, given, track)
    files: dict[Path, bytes] = {}
    for target, found in targets:
        for path, data in _encoded(target, found, assets, given).items():
            if path in files:
                raise InputError(f"Cannot write {path} twice; give each --output a name of its own")
            files[path] = data
        if not found.keeps_provenance:
            notify(f"{target} has no place for where it comes from; keep another file beside it")
    for folder in {path.parent for path in files}:
        remove_left_over(folder)
    for path, data in files.items():
        write_bytes_atomically(path, data)
    return tuple(files)


def _checked_names(command: ExportCommand) -> tuple[Path, ...]:
    """The outputs, if each is a folder or ends as a format does, and one of them is what --kind says."""
    names = tuple(path for named_together in command.output for path in named_together)
    if not names:
        raise InputError("Cannot export: give at least one file with --output, such as --output head.spz head.html")
    for name in names:
        if not _is_folder(name):
            format_of(name)
    held = {_format_of(name, command).kind for name in names if not _is_folder(name)}
    if command.kind is not None and command.kind not in held:
        what = {"splats": "splats", "mesh": "a mesh"}[command.kind]
        raise InputError(
            f"Cannot export: none of the outputs holds {what}, as --kind {command.kind} asks; it chooses for .ply, "
            ".glb and .usdz, the other endings say what they hold"
        )
    return names


def _is_folder(name: Path) -> bool:
    """Whether an output stands for the files that a run makes by itself."""
    return name.suffix == "" or name.is_dir()


def _format_of(name: Path, command: ExportCommand) -> Format:
    return format_of(name, command.kind if is_ambiguous(name) else None)


def _given_options(command: ExportCommand, names: tuple[Path, ...]) -> dict[str, Any]:
    """Options for files that were given, by field; each of them has to be taken by one of the outputs."""
    given = {
        f.name: getattr(command, f.name)
        for f in fields(command)
        if f.name in (*_ENCODE_OPTIONS, *sum(_MAKING_OPTIONS.values(), ())) and getattr(command, f.name) != f.default
    }
    scale = given.get("metres_per_unit", 1.0)
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"Cannot export: expected a positive --metres-per-unit, got {scale}")
    named = [format_of(SPLATS_NAME) if _is_folder(name) else _format_of(name, command) for name in names]
    for field in given:
        if not any(_takes(found, field) for found in named):
            option = "--" + field.replace("_", "-")
            raise InputError(f"Cannot export: none of the outputs takes {option}; leave it away, or see --help")
    return given


def _takes(found: Format, field: str) -> bool:
    return field in _MAKING_OPTIONS.get(found.kind, ()) or _ENCODE_OPTIONS.get(field) in found.options


def _targets(name: Path, command: ExportCommand, head: FittedHead) -> list[tuple[Path, Format]]:
    """The file that an output names, with its format, or what a run makes by itself, if it names a folder."""
    if not _is_folder(name):
        return [(name, _format_of(name, command))]
    if head.data is None:
        raise InputError(
            f"Cannot write the folder {name} from {head.name}, which is no run: name files, such as --output "
            f"{name}/head.spz {name}/head.glb"
        )
    names = (SPLATS_NAME, MESH_NAME, SHEET_NAME) if head.splats is not None else (MESH_NAME, SHEET_NAME)
    return [(name / made, format_of(made)) for made in names]


def _refuse_what_it_cannot_become(path: Path, kind: Kind, head: FittedHead) -> None:
    """Say early, before minutes of work, that a head lacks what a file is made of."""
    if head.mesh is not None and kind != "mesh":
        raise InputError(
            f"Cannot make {path}: {head.name} is a mesh and becomes .glb, .obj, .ply, .stl or .usdz alone; for "
            "splats, films and pages give splats with --input"
        )
    if kind == "avatar" and head.run_folder is None:
        raise InputError(
            f"Cannot make {path}: {head.name} is no run, and an avatar is made of what a run has kept; give the folder "
            "of dp360 run with --input"
        )
    if kind == "splats" and head.splats is None:
        raise InputError(
            f"Cannot make {path}: {head.name} is a radiance field and has no Gaussian splats; export a mesh, a "
            "turntable or a contact sheet, or train dp360-splat"
        )
    if kind == "sheet" and head.data is None:
        raise InputError(
            f"Cannot make {path}: a contact sheet shows the views that a head was fitted to; give the run with "
            "--load-config, or the folder of dp360 run with --input"
        )


def _say_what_lies_far_off(head: FittedHead, notify: Notify) -> None:
    """Say, before the work, that meshes and pictures are cut."""
    if head.framing.left_out:
        assert head.splats is not None
        notify(
            f"{head.framing.left_out} of {len(head.splats)} Gaussians lie far from the others; a mesh is cut there, "
            "and pictures end there."
        )


def _encoded(path: Path, found: Format, assets: _Assets, given: dict[str, Any]) -> dict[Path, bytes]:
    """The file, and those that belong beside it.

    Raises:
        InputError: numbers that are not finite, or a setting out of range.
    """
    options = {
        _ENCODE_OPTIONS[field]: value
        for field, value in given.items()
        if field in _ENCODE_OPTIONS and _takes(found, field)
    }
    if "metres_per_unit" in found.options:
        options.setdefault("metres_per_unit", assets.head.metres_per_unit)
    try:
        return found.files(path, assets.of(found.kind), assets.head.provenance, **options)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"Cannot write {path}: {error}") from error


@dataclass
class _Assets:
    """What files are made of, each made once, when the first file needs it."""

    head: FittedHead
    """What was fitted."""
    given: dict[str, Any]
    """Options that were given, by field of `ExportCommand`."""
    track: Track
    """Shows progress."""

    def of(self, kind: Kind) -> Splats | TexturedMesh | SheetContent | list[Tensor] | Rig:
        """What files of a kind are made of."""
        return getattr(self, kind)

    @property
    def splats(self) -> Splats:
        """The Gaussians that were fitted."""
        assert self.head.splats is not None
        return self.head.splats

    @cached_property
    def mesh(self) -> TexturedMesh:
        """A closed surface around the head, with a texture."""
        options = {name: self.given[name] for name in _MAKING_OPTIONS["mesh"] if name in self.given}
        if self.head.mesh is not None:
            if options:
                raise ValueError(
                    "--face-budget and --texture-px are for meshes made of splats; this one is kept as it is"
                )
            return self.head.mesh
        from dp360.exporters.meshing import COARSE_MESH, MeshConfig, mesh_from_renders

        config = replace(COARSE_MESH if self.head.is_slow else MeshConfig(), **options)
        framing = self.head.framing
        return framing.mesh_to_world(mesh_from_renders(self.head.scene, config.framed(framing), track=self.track))

    @cached_property
    def avatar(self) -> Rig:
        """The rig of the run."""
        from .avatar_files import RunAvatar

        assert self.head.run_folder is not None
        return RunAvatar(self.head.run_folder).rig

    @cached_property
    def turntable(self) -> list[UInt8[Tensor, "h w 4"]]:
        """Pictures from a full turn around the head, straight colour and alpha."""
        count, size_px = self.given.get("frames", 96), self.given.get("frame_px", 512)
        if not 2 <= count <= _MOST_FRAMES:
            raise ValueError(f"expected --frames from 2 to {_MOST_FRAMES}, got {count}")
        if not _FRAME_PX_RANGE[0] <= size_px <= _FRAME_PX_RANGE[1]:
            raise ValueError(f"expected --frame-px from {_FRAME_PX_RANGE[0]} to {_FRAME_PX_RANGE[1]}, got {size_px}")
        cameras = orbit(count, size_px=size_px)
        return [self.head.pictures(c)[0] for c in self.track(cameras, total=count, description="turntable")]

    @cached_property
    def sheet(self) -> SheetContent:
        """Portrait, views and what was fitted to them."""
        views, portrait_rgb = self.head.views, self.head.portrait_rgb
        assert views is not None and portrait_rgb is not None
        if self.head.splats is None:  # rays are slow without a GPU: no more of them than the sheet has pixels
            return SheetContent(portrait_rgb, views, self.head.pictures(sheet_cameras(224)), "Radiance field")
        return SheetContent(portrait_rgb, views, self.head.pictures(sheet_cameras()))

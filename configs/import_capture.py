"""`dp360 import-capture`: a frame of a real head that many cameras have taken becomes a data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from typing_extensions import assert_never

if TYPE_CHECKING:
    from dp360.generation import ViewSet
    from dp360.generation.progress import Track

    from .console import Display

CaptureKind = Literal["renderme360", "nersemble", "ava256"]


@dataclass(frozen=True)
class ImportCaptureCommand:
    """Make a data set of one frame of a real head that many cameras have taken (data sets licensed for research)."""

    capture: tyro.conf.Positional[Path]
    """A RenderMe-360 .smc file, a NeRSemble participant's folder, or an Ava-256 capture's folder."""
    output: Path
    """Folder of the data set."""
    kind: CaptureKind | None = None
    """Which data set it is; found out by the names of its files if not given."""
    sequence: str | None = None
    """NeRSemble: the sequence, for example EXP-1-head. Ava-256: the segment; a neutral one if not given."""
    frame: int | None = None
    """Number of the frame; the first if not given."""
    cameras: tuple[str, ...] = ()
    """Names of cameras; all if none is given."""
    size: int = 512
    """Side of the square pictures in pixels."""
    framing: Literal["head", "full"] = "head"
    """head: each picture is cut to what generated views show; full: all of it fits the square."""


def run(command: ImportCaptureCommand, display: Display) -> tuple[Path, ...]:
    """Read the frame and write it.

    Returns:
        The data set's folder.

    Raises:
        InputError: something is missing or damaged in the capture, or the output cannot be written.
    """
    from dp360.generation.dataset.view_dataset import write_dataset
    from dp360.generation.dataset.visual_hull import hull_points

    require_place_for_dataset(command.output)
    views = _read(command, display.track)
    if not len(views.surface.points_world) and bool((views.rgba[..., 3] < 255).any()):
        views = replace(views, surface=hull_points(views.rgba, views.cameras))  # a fit needs somewhere to start
    write_dataset(views, command.output)
    return (command.output,)


def require_place_for_dataset(output: Path) -> None:
    """See that nothing but an earlier data set would be replaced.

    Raises:
        InputError: a file, or a folder with something else in it.
    """
    from dp360.generation import InputError
    from dp360.generation.dataset.view_dataset import TRANSFORMS

    if output.exists() and not (output / TRANSFORMS).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is no data set; move it away or choose another --output")


def _read(command: ImportCaptureCommand, track: Track) -> ViewSet:
    from dp360.generation import InputError
    from dp360.generation.captures import read_ava256, read_nersemble, read_renderme360

    kind = command.kind or capture_kind(command.capture)
    wanted: dict[str, Any] = {
        "cameras": command.cameras or None,
        "size_px": command.size,
        "framing": command.framing,
        "track": track,
    }
    match kind:
        case "renderme360":
            if command.sequence is not None:
                raise InputError(
                    "--sequence is for NeRSemble and Ava-256; the .smc of RenderMe-360 holds one performance"
                )
            return read_renderme360(command.capture, frame=command.frame or 0, **wanted)
        case "nersemble":
            if command.sequence is None:
                raise InputError("NeRSemble needs --sequence, for example --sequence EXP-1-head")
            return read_nersemble(command.capture, sequence=command.sequence, frame=command.frame or 0, **wanted)
        case "ava256":
            return read_ava256(command.capture, frame=command.frame, segment=command.sequence, **wanted)
        case _:
            assert_never(kind)


def capture_kind(path: Path) -> CaptureKind:
    """Which data set a capture belongs to, by how its files are called.

    Raises:
        InputError: nothing is there, or it looks like none of them.
    """
    from dp360.generation import InputError

    if not path.exists():
        raise InputError(f"No capture at {path}; expected an .smc file or the folder of a capture")
    if path.suffix == ".smc":
        return "renderme360"
    if any((folder / "camera_calibration.json").is_file() for folder in (path, path / "decoder")):
        return "ava256"
    if any((folder / "camera_params.json").is_file() for folder in (path, path / "calibration")):
        return "nersemble"
    raise InputError(
        f"{path} looks like none of the captures that are read: RenderMe-360 (.smc), NeRSemble (camera_params.json), "
        "Ava-256 (camera_calibration.json); say which with --kind"
    )

"""`dp360 import-capture`: a frame of a real head that many cameras have taken becomes a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from typing_extensions import assert_never

from dp360.generation import InputError, ViewSet
from dp360.generation.captures import read_ava256, read_nersemble, read_renderme360
from dp360.generation.dataset.view_dataset import TRANSFORMS, write_dataset
from dp360.generation.dataset.visual_hull import hull_points
from dp360.generation.progress import Track, silent

from .commands import CaptureKind, ImportCaptureCommand


def import_capture(command: ImportCaptureCommand, *, track: Track = silent) -> tuple[Path, ...]:
    """Read the frame and write it.

    Returns:
        The data set's folder.

    Raises:
        InputError: something is missing or damaged in the capture, or the output cannot be written.
    """
    output = command.output
    if output.exists() and not (output / TRANSFORMS).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is no data set; move it away or choose another --output")
    views = _read(command, track)
    if not len(views.surface.points_world) and bool((views.rgba[..., 3] < 255).any()):
        views = replace(views, surface=hull_points(views.rgba, views.cameras))  # a fit needs somewhere to start
    write_dataset(views, output)
    return (output,)


def _read(command: ImportCaptureCommand, track: Track) -> ViewSet:
    cameras = command.cameras or None
    kind = command.kind or capture_kind(command.capture)
    if command.sequence is not None and kind == "renderme360":
        raise InputError("--sequence is for NeRSemble and Ava-256; the .smc of RenderMe-360 holds one performance")
    match kind:
        case "renderme360":
            return read_renderme360(
                command.capture, frame=command.frame or 0, cameras=cameras, size_px=command.size,
                framing=command.framing, track=track,
            )  # fmt: skip
        case "nersemble":
            if command.sequence is None:
                raise InputError("NeRSemble needs --sequence, for example --sequence EXP-1-head")
            return read_nersemble(
                command.capture, sequence=command.sequence, frame=command.frame or 0, cameras=cameras,
                size_px=command.size, framing=command.framing, track=track,
            )  # fmt: skip
        case "ava256":
            return read_ava256(
                command.capture, frame=command.frame, segment=command.sequence, cameras=cameras, size_px=command.size,
                framing=command.framing, track=track,
            )  # fmt: skip
        case _:
            assert_never(kind)


def capture_kind(path: Path) -> CaptureKind:
    """Which data set a capture belongs to, by how its files are called.

    Raises:
        InputError: nothing is there, or it looks like none of them.
    """
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

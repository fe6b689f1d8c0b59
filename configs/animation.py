"""What `dp360 animate` does: poses one after another, splats moved to each, pictures of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from dp360.exporters import turntable
from dp360.exporters.contact_sheet import png_bytes
from dp360.generation import InputError
from dp360.generation.cameras import look_at_origin
from dp360.generation.files import write_bytes_atomically
from dp360.generation.light.named_lights import wanted_light
from dp360.generation.progress import Track, silent
from dp360.reconstruction.avatar import Pose, animate, pose_from_text, read_live_link
from dp360.reconstruction.avatar.arkit import ARKIT_NAMES
from dp360.reconstruction.splats import splat_pictures

from .animate import AnimateCommand
from .avatar_files import RunAvatar
from .console import Notify, ignore

_FILMS = (".mp4", ".webp", ".gif")
_MOST_FRAMES, _FRAME_PX_RANGE = 36_000, (16, 4096)
_WHITE = (255, 255, 255)


def animation(command: AnimateCommand, *, track: Track = silent, notify: Notify = ignore) -> tuple[Path, ...]:
    """Write the film, or a still of each pose.

    Raises:
        InputError: not one of a performance and poses, one of them cannot be read, an unknown ending, a number out of
            range, or a folder without what an avatar is made of.
    """
    ending = command.output.suffix.lower()
    _refuse_bad_numbers(command)
    if ending not in (*_FILMS, ".png"):
        raise InputError(
            f"Cannot write {command.output}: expected a name that ends in .mp4, .webp or .gif (a film) or .png (stills)"
        )
    if (command.csv is None) == (command.poses is None):
        raise InputError("Cannot animate: give either --csv take.csv or --poses smile,jawOpen=0.7")
    if command.csv is not None and ending == ".png":
        raise InputError("Cannot animate: a performance becomes a film; name it .mp4, .webp or .gif")
    if not command.avatar.is_dir():
        raise InputError(f"Cannot animate: expected the folder of dp360 run, got {command.avatar}")
    wanted = wanted_light(command.light)
    avatar = RunAvatar(command.avatar)
    frames, names = _poses_of(command, avatar, notify, film=ending != ".png")
    if len(frames) > _MOST_FRAMES:
        raise InputError(f"Cannot animate: {len(frames)} pictures are more than {_MOST_FRAMES}; cut the take, or --fps")
    splats, binding = avatar.moving
    lighting = binding.lighting(wanted.light)
    if lighting is None and wanted.light is not None:
        raise InputError("Cannot light the head: its portrait shows no skin that would say how bright a light is")
    angles = [math.radians(command.azimuth_deg)], [math.radians(command.elevation_deg)]
    camera = look_at_origin(*angles, size_px=command.frame_px)

    def pictures() -> Iterator[UInt8[Tensor, "h w 4"]]:
        for pose in track(frames, total=len(frames), description="Animating"):
            yield splat_pictures(animate(splats, binding, pose, lighting), camera)[0]

    origin = avatar.head[1]
    if ending != ".png":
        extension = cast("turntable.Extension", ending)
        film = turntable.encode(pictures(), origin, extension=extension, fps=command.fps)
        write_bytes_atomically(command.output, film)
        return (command.output,)
    stem, written = command.output.name[: -len(ending)], []
    for k, (name, picture) in enumerate(zip(names, pictures())):
        path = command.output if len(names) == 1 else command.output.with_name(f"{stem}-{k + 1:02d}-{name}{ending}")
        write_bytes_atomically(path, png_bytes(Image.fromarray(picture.numpy(), "RGBA"), origin))
        written.append(path)
    return tuple(written)


def _refuse_bad_numbers(command: AnimateCommand) -> None:
    low, high = _FRAME_PX_RANGE
    if not low <= command.frame_px <= high:
        raise InputError(f"Cannot animate: expected --frame-px from {low} to {high}, got {command.frame_px}")
    for option, value, most in (("--fps", command.fps, 120.0), ("--hold-s", command.hold_s, 60.0)):
        if not 0 < value <= most:
            raise InputError(f"Cannot animate: expected {option} above 0 and up to {most:g}, got {value:g}")
    for option, value in (("--azimuth-deg", command.azimuth_deg), ("--elevation-deg", command.elevation_deg)):
        if not math.isfinite(value):
            raise InputError(f"Cannot animate: expected a finite number for {option}, got {value}")


def _poses_of(
    command: AnimateCommand, avatar: RunAvatar, notify: Notify, *, film: bool
) -> tuple[list[Pose], list[str]]:
    """The poses of all pictures, and for stills their names."""
    if command.csv is not None:
        try:
            text = command.csv.read_text("utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"Cannot read {command.csv}: {error.strerror}") from error
        take = read_live_link(text, str(command.csv))
        if take.missing:
            notify(f"{command.csv} lacks {len(take.missing)} of the {len(ARKIT_NAMES)} shapes, which stay at rest: "
                   f"{', '.join(take.missing[:4])}{' ...' if len(take.missing) > 4 else ''}")  # fmt: skip
        return take.poses(command.fps), []
    words = [word.strip() for word in (command.poses or "").split(",") if word.strip()]
    if not words:
        raise InputError("Cannot animate: --poses names no pose; write --poses smile,jawOpen=0.7")
    known = {"portrait": avatar.rig.portrait_pose} if any("portrait" in word for word in words) else {}
    poses = [pose_from_text(word, known) for word in words]
    if not film:
        return poses, ["".join(c if c.isalnum() or c in "=.+-" else "_" for c in word) for word in words]
    if len(poses) == 1:
        poses = [Pose.neutral(), *poses, Pose.neutral()]
    steps = max(1, round(command.hold_s * command.fps))
    frames = []
    for before, after in itertools.pairwise(poses):
        for share in (np.arange(steps) / steps).tolist():
            eased = min(1.0, 2 * share)  # half the time to get there, half to stay
            eased = eased * eased * (3 - 2 * eased)
            weights = before.weights + (after.weights - before.weights) * eased
            frames.append(Pose(weights, before.head_rad + (after.head_rad - before.head_rad) * eased))
    return [*frames, poses[-1]], []

"""Pictures that people hand in for the views: read from a folder or a film, and matched with the cameras."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from ..cameras import Cameras
from ..errors import InputError
from ..portrait import load_image

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FILM_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
MAX_VIEW_PICTURES = 1000
"""More pictures of one head than any ring needs."""
MAX_VIEW_BYTES = 3 << 30
"""The most decoded pictures that are kept, bytes."""
_STRETCH = 0.02
_LEVEL_RAD = math.radians(10.0)
"""A camera within this elevation can be served by a ring at eye height."""


@dataclass(frozen=True)
class ViewPictures:
    """Pictures in the order of their names or of the film."""

    rgb: UInt8[Tensor, "m h w 3"]
    """Frames of one size."""
    source: str
    """Where they were read from, for messages."""

    def __len__(self) -> int:
        return self.rgb.shape[0]

    @property
    def sha256(self) -> str:
        """Hash of the size and the pixels, hexadecimal."""
        return hashlib.sha256(f"{tuple(self.rgb.shape)}".encode() + self.rgb.contiguous().numpy().tobytes()).hexdigest()

    def require_shape_of(self, cameras: Cameras) -> None:
        """See that the pictures can be resized to the cameras' size without being stretched.

        Raises:
            InputError: another ratio of width to height.
        """
        _, height, width, _ = self.rgb.shape
        if abs(width * cameras.height / (height * cameras.width) - 1) > _STRETCH:
            raise InputError(
                f"{self.source}: expected the shape of the views, {cameras.width}x{cameras.height}, got "
                f"{width}x{height}; crop them"
            )

    def rows_for(self, cameras: Cameras) -> Int[Tensor, " n"]:
        """Which picture each camera takes.

        As many pictures as cameras belong to them in order. Any other number is a ring at eye height as the release
        has it: frame i of m at azimuth 2 pi i / m, the first in front of the face, frame m/4 on the head's left (+x);
        each camera takes the frame nearest in azimuth.

        Raises:
            InputError: pictures of another shape, or another number of pictures than cameras, and cameras that a ring
                at eye height cannot serve.
        """
        self.require_shape_of(cameras)
        if len(self) == len(cameras):
            return torch.arange(len(self))
        steepest = float(cameras.elevation_rad.abs().max())
        if steepest > _LEVEL_RAD:
            raise InputError(
                f"{self.source}: expected {len(cameras)} pictures, one per view, got {len(self)}; a ring of another "
                f"length serves views at eye height only, and some of these look from {math.degrees(steepest):.0f} "
                "degrees: make the level ring alone with --rings level"
            )
        return ring_frames(cameras, len(self))


def read_view_pictures(path: Path) -> ViewPictures:
    """Read a folder of pictures in name order (numbers in names count as numbers), or the frames of a film.

    Transparent pictures are laid over white.

    Args:
        path: the folder, or a file such as condition32.mp4.

    Raises:
        InputError: nothing there, no pictures in it, no frames in the film, frames of several sizes, or too many.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; expected a folder of pictures or a film such as ring.mp4")
    if path.suffix.lower() in FILM_ENDINGS:
        return ViewPictures(read_film(path), str(path))
    raise InputError(f"{path}: expected a folder of pictures or a film ({', '.join(FILM_ENDINGS)}), got another file")


def pictures_for_cameras(pictures: ViewPictures, cameras: Cameras) -> Float[Tensor, "n 3 h w"]:
    """One picture per camera (see `ViewPictures.rows_for`) in the cameras' picture size, [0, 1].

    Raises:
        InputError: the pictures do not belong to these cameras.
    """
    return resized_pictures(pictures.rgb[pictures.rows_for(cameras)], cameras.width, cameras.height)


def behind_the_head(pictures: ViewPictures, cameras: Cameras) -> int | None:
    """The picture that shows a level view from behind, within 10 degrees; None where there is none.

    Args:
        pictures: given for the cameras.
        cameras: the cameras of the views.

    Raises:
        InputError: the pictures do not belong to these cameras.
    """
    if len(pictures) != len(cameras):
        pictures.rows_for(cameras)  # a ring
        row = round(len(pictures) / 2)
        return row if abs(row / len(pictures) - 0.5) * 2 * math.pi <= _LEVEL_RAD else None
    position = cameras.position_world
    towards = -position[:, 2] / position.norm(dim=-1)
    row = int(towards.argmax())
    return row if float(towards[row]) >= math.cos(_LEVEL_RAD) else None


def ring_frames(cameras: Cameras, frame_count: int) -> Int[Tensor, " n"]:
    """For each camera the nearest in azimuth of `frame_count` frames, the first in front, a quarter round at +x."""
    return torch.round(cameras.azimuth_rad * (frame_count / (2 * math.pi))).long() % frame_count


def resized_pictures(rgb: UInt8[Tensor, "n h w 3"], width: int, height: int) -> Float[Tensor, "n 3 h2 w2"]:
    """Bytes to colours in [0, 1], channels first, resized by Pillow's default filter (bicubic) as the release does.

    Source: FreedomGu/Diffportrait360, dataset classes (`Image.resize`).
    """
    resized = rgb.numpy()
    if resized.shape[1:3] != (height, width):
        resized = np.stack([np.asarray(Image.fromarray(p).resize((width, height))) for p in resized])
    return torch.from_numpy(resized.astype(np.float32) / 255).permute(0, 3, 1, 2).contiguous()


def read_film(path: Path) -> UInt8[Tensor, "m h w 3"]:
    """All frames of a film's first video stream (through PyAV, which carries its own decoders).

    Raises:
        InputError: the file cannot be decoded, holds no frames, or more than can be used.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: the film holds no pictures; expected a video such as condition32.mp4")
            frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
            return _collected(path, ((f"frame {i}", frame) for i, frame in enumerate(frames)))
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: the film cannot be decoded ({reason}); make it again, or give a folder of pictures"
        ) from error


def read_back_picture(path: Path) -> ViewPictures:
    """Read one picture; where it is transparent it is laid over white.

    Raises:
        InputError: as `load_image`.
    """
    return ViewPictures(torch.from_numpy(_over_white(path))[None], str(path))


def _over_white(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    loaded = load_image(path, min_side_px=8)
    if loaded.alpha is None:
        return loaded.rgb
    alpha = loaded.alpha[..., None].astype(np.float32) / 255
    return np.round(loaded.rgb * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _read_folder(folder: Path) -> ViewPictures:
    files = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_ENDINGS and not p.name.startswith(".")]
    files.sort(key=_name_order)
    if not files:
        raise InputError(f"{folder}: no pictures in this folder; expected files such as 0000000.png, one per view")
    return ViewPictures(_collected(folder, ((file.name, _over_white(file)) for file in files)), str(folder))


def _name_order(path: Path) -> tuple[tuple[int, str], ...]:
    """Sorts 2.png before 10.png, and 0000002.png before 0000010.png as well."""
    parts = re.findall(r"\d+|\D+", path.name)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


def _collected(source: Path, frames: Iterable[tuple[str, np.ndarray]]) -> UInt8[Tensor, "m h w 3"]:
    """Named pictures of one size."""
    pictures: list[np.ndarray] = []
    for name, picture in frames:
        pictures.append(picture)
        if len(pictures) > MAX_VIEW_PICTURES or len(pictures) * pictures[0].nbytes > MAX_VIEW_BYTES:
            raise InputError(
                f"{source}: more than {MAX_VIEW_PICTURES} pictures or {MAX_VIEW_BYTES >> 30} GB of them; "
                "expected one per view"
            )
        if picture.shape != pictures[0].shape:
            (h0, w0), (h, w) = pictures[0].shape[:2], picture.shape[:2]
            raise InputError(f"{source}: expected pictures of one size, got {w0} x {h0} and {w} x {h} ({name})")
    if not pictures:
        raise InputError(f"{source}: the film holds no frames (0 were decoded); make it again, or give a folder")
    return torch.from_numpy(np.stack(pictures))

"""Heads in folders, in the layouts that data for this model come in.

    ROOT/HEAD/transforms.json ...                 posed data sets: `dp360 data heads`, or anybody's for nerfstudio
    ROOT/PHsup_*/image/0000000.png ...            renders of PanoHead and SphereHead, a level ring in even steps
    ROOT/PH_*/image/0000000.png ...               from the front towards +x (72 views each as the release has them)
    ROOT/seed*/0000000.png ...                    SphereHead samples (36 views)
    ROOT/*.smc                                    RenderMe-360 as its owners give it out
    ROOT/0*/image_seg/NN.png, ROOT/0*/camera/     RenderMe-360 as the release's training has it: pictures by the number
                                                  of their camera, and another head from the same camera
    ROOT/*/0.png .. 3.png                         four views as Unique3D writes them: front, side, back, side
    ROOT/i*/images/0.png .. 3.png                 the same in the release's folders

Source of the layouts: the release's training code and the answers in its issue 11,
https://github.com/FreedomGu/DiffPortrait360.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...cameras import Cameras, look_at_origin, orbit
from ...dataset.posed_frames import TRANSFORMS, PosedFrames, picture_size, read_posed_frames
from ...diffusion.control_pictures import prior_control
from ...errors import InputError
from ...views import ViewSet
from .head_cache import CachedHead, RecentHeads, read_picture

FolderKind = Literal["posed", "rings", "captures", "capture-folders", "four-views"]
RENDERME360_FRONT = (16, 18, 19, 25, 26, 28, 31, 55, 56)
"""Numbers of the cameras that see the face, as the release lists them."""
RENDERME360_BACK = (59, 50, 49, 48, 46, 45, 1, 0, 2)
"""Numbers of the cameras behind the head, as the release lists them."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_CONTROL_FOLDERS = ("control", "control_validity", "control_normals")
_FOUR_AZIMUTHS = (0.0, 0.5 * math.pi, math.pi, -0.5 * math.pi)
_CAPTURE_PX = 512


class FolderSource(RecentHeads[CachedHead]):
    """A `HeadSource` over heads in folders or files of one layout; nothing is opened before it is asked for."""

    def __init__(self, name: str, paths: Sequence[Path], make: Callable[[Path], CachedHead], cache_heads: int) -> None:
        """Open nothing yet.

        Args:
            name: for messages.
            paths: one per head.
            make: the head at a path.
            cache_heads: heads whose decoded pictures stay in memory.
        """
        self.paths = tuple(paths)
        super().__init__(name, lambda index: make(self.paths[index]), len(self.paths), cache_heads)


class PosedHead(CachedHead):
    """A data set with transforms.json; prior, portrait and back view where they lie beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = folder
        self.has_control = all((folder / name).is_dir() for name in _CONTROL_FOLDERS)

    @cached_property
    def _frames(self) -> PosedFrames:
        frames = read_posed_frames(self._folder)
        if frames.cameras.width != frames.cameras.height:
            raise InputError(
                f"{self.name} has pictures of {frames.cameras.width}x{frames.cameras.height}; expected square ones"
            )
        return frames

    @property
    def cameras(self) -> Cameras:
        """A camera for each frame."""
        return self._frames.cameras

    def _read_rgba(self, view: int, size_px: int) -> UInt8[Tensor, "h w 4"]:
        return self._frames.rgba(view)

    def _read_control(self, view: int, size_px: int) -> Float[Tensor, "7 s s"]:
        name = f"{self._frames.paths[view].stem}.png"
        size = (self.cameras.width, self.cameras.height)
        colour, validity, normals = (
            torch.from_numpy(read_picture(self._folder / folder / name, mode, size)).float()
            for folder, mode in zip(_CONTROL_FOLDERS, ("RGBA", "L", "RGB"))
        )
        rgba = colour.permute(2, 0, 1)[None] / 255
        there = normals.any(dim=-1, keepdim=True)
        normals_world = ((normals / 127.5 - 1) * there).permute(2, 0, 1)[None]
        return prior_control(
            rgba[:, :3], rgba[:, 3:], validity[None, None] / 255, normals_world, self.cameras[view], size_px=size_px
        )[0]

    def _read_portrait(self) -> UInt8[Tensor, "h w 4"] | None:
        prepared, picture = self._folder / "portrait.npz", self._folder / "portrait.png"
        if prepared.is_file():  # its colours are free of the background, as those of a user's portrait
            try:
                with np.load(prepared, allow_pickle=False) as arrays:
                    colour, alpha = arrays["foreground_unit"], arrays["alpha_unit"]
                rgba = np.concatenate([colour, alpha[..., None]], axis=-1)
                return torch.from_numpy((rgba.clip(0, 1) * 255 + 0.5).astype(np.uint8))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise InputError(f"{prepared} is damaged ({error}); make the head again or remove the file") from error
        if not picture.is_file():
            return None
        rgba = read_picture(picture, "RGBA")
        matte = self._folder / "portrait_alpha.png"
        if matte.is_file():
            rgba[..., 3] = read_picture(matte, "L", picture_size(picture))
        return torch.from_numpy(rgba)

    def _read_back(self, size_px: int) -> UInt8[Tensor, "h w 4"] | None:
        path = self._folder / "back.png"
        return torch.from_numpy(read_picture(path, "RGBA")) if path.is_file() else None


class PictureListHead(CachedHead):
    """Pictures whose cameras follow from the layout."""

    def __init__(
        self, folder: Path, paths: Sequence[Path], cameras: Cameras, drivers: Sequence[Path | None] | None = None,
        *, has_poses: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(str(folder))
        self._paths, self._cameras, self._drivers = list(paths), cameras, drivers
        self.has_poses = has_poses

    @property
    def cameras(self) -> Cameras:
        """A camera for each picture."""
        return self._cameras

    def _read_rgba(self, view: int, size_px: int) -> UInt8[Tensor, "h w 4"]:
        return torch.from_numpy(read_picture(self._paths[view], "RGBA", (self._cameras.width, self._cameras.height)))

    def _read_driver(self, view: int) -> UInt8[Tensor, "h w 4"] | None:
        path = self._drivers[view] if self._drivers is not None else None
        return None if path is None else torch.from_numpy(read_picture(path, "RGBA"))


class CaptureHead(CachedHead):
    """One RenderMe-360 performance; its first frame is decoded as a whole when a picture is asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    @cached_property
    def _views(self) -> ViewSet:
        from ...captures import read_renderme360

        return read_renderme360(self._path, size_px=_CAPTURE_PX)

    @property
    def cameras(self) -> Cameras:
        """The calibrated cameras."""
        return self._views.cameras

    def _read_rgba(self, view: int, size_px: int) -> UInt8[Tensor, "h w 4"]:
        return self._views.rgba[view]


def find_heads(root: Path, kind: FolderKind) -> list[Path]:
    """Paths of the heads of one layout under `root`, in the order of their names."""
    match kind:
        case "posed":
            if (root / TRANSFORMS).is_file():
                return [root]
            return sorted(path.parent for path in root.glob(f"*/{TRANSFORMS}"))
        case "rings":
            images = [*root.glob("PHsup_*/image"), *root.glob("PH_*/image"), *root.glob("seed*")]
            return sorted(path for path in images if path.is_dir())
        case "captures":
            if root.suffix == ".smc":
                return [root]
            return sorted(path for path in root.rglob("*.smc") if not path.name.endswith("_anno.smc"))
        case "capture-folders":
            return sorted(path.parent for path in root.glob("0*/image_seg") if path.is_dir())
        case "four-views":
            folders = [path.parent for pattern in ("*/0.png", "i*/images/0.png") for path in root.glob(pattern)]
            return sorted(folder for folder in folders if (folder / "3.png").is_file())


def make_head(path: Path, kind: FolderKind) -> CachedHead:
    """The head at a path of `find_heads`.

    Raises:
        InputError: its layout is not complete.
    """
    match kind:
        case "posed":
            return PosedHead(path)
        case "rings":
            return _ring_head(path)
        case "captures":
            return CaptureHead(path)
        case "capture-folders":
            return _capture_folder_head(path)
        case "four-views":
            paths = [path / f"{view}.png" for view in range(4)]
            cameras = look_at_origin(_FOUR_AZIMUTHS, [0.0] * 4, size_px=_square_size(paths[0]))
            return PictureListHead(path, paths, cameras)


def _ring_head(folder: Path) -> PictureListHead:
    """Frame k of N stands k / N of a round from the front."""
    numbered = _numbered(folder)
    numbers = sorted(numbered)
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
        raise InputError(
            f"{folder} has {len(numbers)} numbered pictures; expected all of a ring, 0000000.png, 0000001.png and so "
            "on without a gap: the number tells the camera"
        )
    paths = [numbered[number] for number in numbers]
    return PictureListHead(folder, paths, orbit(len(paths), size_px=_square_size(paths[0])))


def _capture_folder_head(folder: Path) -> PictureListHead:
    """Views that show the front or the back; their exact cameras are not known."""
    pictures = _numbered(folder / "image_seg")
    drivers = _numbered(folder / "camera") if (folder / "camera").is_dir() else {}
    front, back = ([n for n in numbers if n in pictures] for numbers in (RENDERME360_FRONT, RENDERME360_BACK))
    if not front or not back:
        raise InputError(
            f"{folder}/image_seg has {len(front)} pictures of cameras in front and {len(back)} behind the head; "
            f"expected numbers out of {RENDERME360_FRONT} and {RENDERME360_BACK}"
        )
    numbers = [*front, *back]
    azimuth = [0.0] * len(front) + [math.pi] * len(back)
    cameras = look_at_origin(azimuth, [0.0] * len(numbers), size_px=_square_size(pictures[numbers[0]]))
    return PictureListHead(
        folder, [pictures[n] for n in numbers], cameras, [drivers.get(n) for n in numbers], has_poses=False
    )


def _numbered(folder: Path) -> dict[int, Path]:
    """Pictures by the number at the end of their names."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        digits = re.search(r"(\d+)$", path.stem)
        if path.suffix.lower() in _PICTURES and digits:
            number = int(digits.group(1))
            if number in found:
                raise InputError(f"{path} and {found[number].name} have the same number; expected one picture each")
            found[number] = path
    return found


def _square_size(path: Path) -> int:
    if not path.is_file():
        raise InputError(f"{path} does not exist; copy it back or leave its head out")
    width, height = picture_size(path)
    if width != height:
        raise InputError(f"{path} is {width}x{height} pixels; expected a square picture")
    return width

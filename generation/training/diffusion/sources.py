"""Where heads come from: one door to all layouts that data for this model come in, and mixtures of sources.

    source = MixedSource([open_source(Path("heads")), SyntheticHeads(assets)])

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
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...cameras import Cameras, look_at_origin, orbit
from ...dataset.posed_frames import TRANSFORMS, PosedFrames, picture_size, read_posed_frames
from ...diffusion.control_pictures import prior_control
from ...errors import InputError
from ...views import ViewSet
from .clips import HeadSource
from .head_pictures import HeadPictures, RecentHeads, picture_pixels

FolderKind = Literal["posed", "rings", "captures", "capture-folders", "four-views"]
RENDERME360_FRONT = (16, 18, 19, 25, 26, 28, 31, 55, 56)
"""Numbers of the cameras that see the face, as the release lists them."""
RENDERME360_BACK = (59, 50, 49, 48, 46, 45, 1, 0, 2)
"""Numbers of the cameras behind the head, as the release lists them."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_CONTROL_FOLDERS = ("control", "control_validity", "control_normals")
_FOUR_AZIMUTHS = (0.0, 0.5 * math.pi, math.pi, -0.5 * math.pi)
_CAPTURE_PX = 512


class MixedSource:
    """Heads of several sources, evenly interleaved: any long run of numbers has each as often as it has heads."""

    def __init__(self, sources: Sequence[HeadSource]) -> None:
        """Mix at least one source, each with at least one head."""
        lengths = [len(source) for source in sources]
        times = np.concatenate([(np.arange(n) + 0.5) * (sum(lengths) / n) for n in lengths])
        order = np.argsort(times, kind="stable")
        self._sources = tuple(sources)
        self._which = np.repeat(np.arange(len(sources)), lengths)[order]
        self._inner = np.concatenate([np.arange(n) for n in lengths])[order]
        self.name = " + ".join(source.name for source in sources)

    def __len__(self) -> int:
        return len(self._which)

    def head(self, index: int) -> HeadPictures:
        """The head with this number."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} heads, asked for number {index}")
        return self._sources[self._which[index]].head(int(self._inner[index]))


def open_source(path: Path, *, cache_heads: int = 16) -> HeadSource:
    """The heads under a path, several layouts as one mixture; only names are read.

    Args:
        path: a folder of heads in the layouts above, one posed data set, or one .smc file.
        cache_heads: heads of each layout whose decoded pictures stay in memory: about 26 MB each at 256 px with 36
            views and prior, once all are read.

    Raises:
        InputError: no such path, or nothing there that is known.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a folder of heads")
    sources = [
        RecentHeads(f"{path} ({kind})", partial(_numbered_head, heads, kind), len(heads), cache_heads)
        for kind in get_args(FolderKind)
        if (heads := find_heads(path, kind))
    ]
    if not sources:
        raise InputError(
            f"{path} has no heads of a known layout; expected folders with transforms.json, PHsup_*/image, seed*, "
            "*.smc, 0*/image_seg or 0.png to 3.png"
        )
    return sources[0] if len(sources) == 1 else MixedSource(sources)


def _numbered_head(paths: Sequence[Path], kind: FolderKind, index: int) -> HeadPictures:
    return make_head(paths[index], kind)


class PosedHead(HeadPictures):
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
            torch.from_numpy(picture_pixels(self._folder / folder / name, mode, size)).float()
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
        rgba = picture_pixels(picture, "RGBA")
        matte = self._folder / "portrait_alpha.png"
        if matte.is_file():
            rgba[..., 3] = picture_pixels(matte, "L", picture_size(picture))
        return torch.from_numpy(rgba)

    def _read_back(self, size_px: int) -> UInt8[Tensor, "h w 4"] | None:
        path = self._folder / "back.png"
        return torch.from_numpy(picture_pixels(path, "RGBA")) if path.is_file() else None


class PictureListHead(HeadPictures):
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
        return torch.from_numpy(picture_pixels(self._paths[view], "RGBA", (self._cameras.width, self._cameras.height)))

    def _read_driver(self, view: int) -> UInt8[Tensor, "h w 4"] | None:
        path = self._drivers[view] if self._drivers is not None else None
        return None if path is None else torch.from_numpy(picture_pixels(path, "RGBA"))


class CaptureHead(HeadPictures):
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


def make_head(path: Path, kind: FolderKind) -> HeadPictures:
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
    numbered = _pictures_by_number(folder)
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
    pictures = _pictures_by_number(folder / "image_seg")
    drivers = _pictures_by_number(folder / "camera") if (folder / "camera").is_dir() else {}
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


def _pictures_by_number(folder: Path) -> dict[int, Path]:
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

"""Where heads come from: one door to all layouts that data for this model come in, and mixtures of sources.

    source = mixed_source([open_source(Path("heads")), synthetic_heads(assets, 1000)])

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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...cameras import look_at_origin, orbit
from ...dataset.posed_frames import TRANSFORMS, picture_size, read_posed_frames
from ...diffusion.control_pictures import prior_control
from ...errors import InputError
from .head_pictures import HeadPictures, HeadSource, picture_pixels

RENDERME360_FRONT = (16, 18, 19, 25, 26, 28, 31, 55, 56)
"""Numbers of the cameras that see the face, as the release lists them."""
RENDERME360_BACK = (59, 50, 49, 48, 46, 45, 1, 0, 2)
"""Numbers of the cameras behind the head, as the release lists them."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_CONTROL_FOLDERS = ("control", "control_validity", "control_normals")
_FOUR_AZIMUTHS_RAD = (0.0, 0.5 * math.pi, math.pi, -0.5 * math.pi)
_CAPTURE_PX = 512


def mixed_source(sources: Sequence[HeadSource]) -> HeadSource:
    """Heads of several sources, evenly interleaved: any long run of numbers has each as often as it has heads."""
    lengths = [len(source) for source in sources]
    times = np.concatenate([(np.arange(n) + 0.5) * (sum(lengths) / n) for n in lengths])
    order = np.argsort(times, kind="stable")
    which = np.repeat(np.arange(len(sources)), lengths)[order]
    inner = np.concatenate([np.arange(n) for n in lengths])[order]

    def head(index: int) -> HeadPictures:
        return sources[which[index]].head(int(inner[index]))

    return HeadSource(" + ".join(source.name for source in sources), head, len(order))


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
    found = {kind: (sorted(find(path)), opened) for kind, (find, opened) in _LAYOUTS.items()}
    sources = [
        HeadSource(f"{path} ({kind})", lambda i, heads=heads, opened=opened: opened(heads[i]), len(heads), cache_heads)
        for kind, (heads, opened) in found.items()
        if heads
    ]
    if not sources:
        raise InputError(
            f"{path} has no heads of a known layout; expected folders with transforms.json, PHsup_*/image, seed*, "
            "*.smc, 0*/image_seg or 0.png to 3.png"
        )
    return sources[0] if len(sources) == 1 else mixed_source(sources)


def _posed_head(folder: Path) -> HeadPictures:
    """A data set with transforms.json; prior, portrait and back view where they lie beside it."""
    frames = read_posed_frames(folder)
    size = (frames.cameras.width, frames.cameras.height)
    if size[0] != size[1]:
        raise InputError(f"{folder} has pictures of {size[0]}x{size[1]}; expected square ones")
    has_control = all((folder / name).is_dir() for name in _CONTROL_FOLDERS)

    def control(view: int, size_px: int) -> Float[Tensor, "7 s s"]:
        name = f"{frames.paths[view].stem}.png"
        colour, validity, normals = (
            torch.from_numpy(picture_pixels(folder / kind / name, mode, size)).float()
            for kind, mode in zip(_CONTROL_FOLDERS, ("RGBA", "L", "RGB"))
        )
        rgba = colour.permute(2, 0, 1)[None] / 255
        there = normals.any(dim=-1, keepdim=True)
        normals_world = ((normals / 127.5 - 1) * there).permute(2, 0, 1)[None]
        return prior_control(
            rgba[:, :3], rgba[:, 3:], validity[None, None] / 255, normals_world, frames.cameras[view], size_px=size_px
        )[0]

    back = folder / "back.png"
    return HeadPictures(
        str(folder),
        frames.cameras,
        lambda view, _: frames.rgba(view),
        control if has_control else None,
        read_portrait=lambda *_: _posed_portrait(folder),
        read_back=lambda *_: torch.from_numpy(picture_pixels(back, "RGBA")) if back.is_file() else None,
    )


def _posed_portrait(folder: Path) -> UInt8[Tensor, "h w 4"] | None:
    prepared, picture = folder / "portrait.npz", folder / "portrait.png"
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
    matte = folder / "portrait_alpha.png"
    if matte.is_file():
        rgba[..., 3] = picture_pixels(matte, "L", picture_size(picture))
    return torch.from_numpy(rgba)


def _listed_head(
    folder: Path, paths: Sequence[Path], azimuth_rad: Sequence[float] | None = None,
    drivers: Sequence[Path | None] = (),
) -> HeadPictures:  # fmt: skip
    """Level pictures whose azimuths follow from the layout, by default an even ring; `drivers`: see RenderMe-360."""
    first = paths[0]
    if not first.is_file():
        raise InputError(f"{first} does not exist; copy it back or leave its head out")
    width, height = picture_size(first)
    if width != height:
        raise InputError(f"{first} is {width}x{height} pixels; expected a square picture")
    level = [0.0] * len(paths)
    cameras = (
        orbit(len(paths), size_px=width) if azimuth_rad is None else look_at_origin(azimuth_rad, level, size_px=width)
    )

    def driver(view: int, _: int) -> UInt8[Tensor, "h w 4"] | None:
        path = drivers[view] if drivers else None
        return None if path is None else torch.from_numpy(picture_pixels(path, "RGBA"))

    return HeadPictures(
        str(folder),
        cameras,
        lambda view, _: torch.from_numpy(picture_pixels(paths[view], "RGBA", (width, width))),
        read_driver=driver,
        has_poses=not drivers,
    )


def _ring_head(folder: Path) -> HeadPictures:
    """Frame k of N stands k / N of a round from the front."""
    numbered = _pictures_by_number(folder)
    numbers = sorted(numbered)
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
        raise InputError(
            f"{folder} has {len(numbers)} numbered pictures; expected all of a ring, 0000000.png, 0000001.png and so "
            "on without a gap: the number tells the camera"
        )
    return _listed_head(folder, [numbered[number] for number in numbers])


def _capture_head(path: Path) -> HeadPictures:
    """One RenderMe-360 performance; its first frame is decoded as a whole."""
    from ...captures import read_renderme360

    views = read_renderme360(path, size_px=_CAPTURE_PX)
    return HeadPictures(str(path), views.cameras, lambda view, _: views.rgba[view])


def _capture_folder_head(folder: Path) -> HeadPictures:
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
    azimuth_rad = [0.0] * len(front) + [math.pi] * len(back)
    return _listed_head(folder, [pictures[n] for n in numbers], azimuth_rad, [drivers.get(n) for n in numbers])


def _four_view_paths(root: Path) -> list[Path]:
    folders = [path.parent for pattern in ("*/0.png", "i*/images/0.png") for path in root.glob(pattern)]
    return [folder for folder in folders if (folder / "3.png").is_file()]


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


_LAYOUTS: dict[str, tuple[Callable[[Path], Iterable[Path]], Callable[[Path], HeadPictures]]] = {
    "posed": (
        lambda root: [root] if (root / TRANSFORMS).is_file() else (f.parent for f in root.glob(f"*/{TRANSFORMS}")),
        _posed_head,
    ),
    "rings": (
        lambda root: (f for name in ("PHsup_*/image", "PH_*/image", "seed*") for f in root.glob(name) if f.is_dir()),
        _ring_head,
    ),
    "captures": (
        lambda root: (
            [root] if root.suffix == ".smc" else (f for f in root.rglob("*.smc") if not f.stem.endswith("_anno"))
        ),
        _capture_head,
    ),
    "capture-folders": (
        lambda root: (f.parent for f in root.glob("0*/image_seg") if f.is_dir()),
        _capture_folder_head,
    ),
    "four-views": (
        _four_view_paths,
        lambda folder: _listed_head(folder, [folder / f"{view}.png" for view in range(4)], _FOUR_AZIMUTHS_RAD),
    ),
}
"""What finds the heads of each layout under a path, and what opens one."""

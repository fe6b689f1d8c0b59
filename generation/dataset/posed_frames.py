"""Posed pictures in nerfstudio's layout: reading and checking a transforms.json that may come from anybody.

What is built on it: `view_dataset`, which reads a whole data set as a `ViewSet`, and the sources of
`generation.training.diffusion`, which read the pictures they need.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ..cameras import Cameras, opencv_from_opengl
from ..errors import InputError, quoted
from ..file_names import leads_inside

TRANSFORMS = "transforms.json"
MAX_PICTURES = 5000
"""More pictures than any head needs; a file that claims more is damaged or hostile."""
MAX_JSON_BYTES = 32 << 20
"""The largest transforms.json that is read, bytes."""
_PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_MOST_DISTORTION_PX = 1e-3
"""Distortion that moves no pixel farther than this is none: programs write it where they have fitted a perfect lens."""
_BORDER_SAMPLES = 33
"""Places along each side of a picture where its distortion is looked at; it is largest there."""
_INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")


@dataclass(frozen=True)
class PosedFrames:
    """Cameras and file names of a data set; nothing is decoded yet."""

    folder: Path
    """The folder of the transforms.json."""
    meta: dict[str, Any]
    """Its contents."""
    paths: tuple[Path, ...]
    """A picture for each frame, inside the folder; whether it exists is told when it is read."""
    masks: tuple[Path | None, ...]
    """The file that stands for alpha where a picture has none."""
    cameras: Cameras
    """A camera for each frame, of the pictures' size."""

    def __len__(self) -> int:
        return len(self.paths)

    def rgba(self, index: int) -> UInt8[Tensor, "h w 4"]:
        """One picture with straight alpha; the size is compared before anything is decoded.

        Raises:
            InputError: a missing or damaged file, or another size than transforms.json says.
        """
        path, mask, size = self.paths[index], self.masks[index], (self.cameras.width, self.cameras.height)
        if not path.is_file():
            raise InputError(
                f"The data set names {path}, which does not exist; copy it back or make the data set again"
            )
        for file in (path, mask):
            if file is not None and picture_size(file) != size:
                raise InputError(f"{file} is {picture_size(file)} pixels, transforms.json says {size}")
        try:
            with Image.open(path) as picture:
                has_alpha = "A" in picture.getbands() or "transparency" in picture.info
                rgba = np.array(picture.convert("RGBA"))
            if mask is not None and not has_alpha:
                with Image.open(mask) as picture:
                    rgba[..., 3] = np.array(picture.convert("L"))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"Cannot read the picture {path}: {error}") from error
        return torch.from_numpy(rgba)


def read_posed_frames(folder: Path) -> PosedFrames:
    """Cameras and file names of a nerfstudio data set of undistorted pinhole pictures of one size.

    Args:
        folder: the data set's folder, or its transforms.json.

    Raises:
        InputError: no such file, not JSON, a missing key, a number that is not finite, a pose that is not rigid, lens
            distortion, pictures of several sizes, or a path that leaves the folder.
    """
    meta, folder = read_transforms(folder)
    frames = meta["frames"]
    paths = frame_paths(folder, meta)
    masks = [
        inside_folder(folder, frame["mask_path"], f"frame {i}") if "mask_path" in frame else None
        for i, frame in enumerate(frames)
    ]
    width, height, focal_px, principal_px = _intrinsics(meta, paths)
    T_world_camera = opencv_from_opengl(torch.stack([_pose(frame, i) for i, frame in enumerate(frames)]))
    cameras = Cameras(T_world_camera, focal_px, principal_px, width, height)
    return PosedFrames(folder, meta, tuple(paths), tuple(masks), cameras)


def frame_paths(folder: Path, meta: dict[str, Any]) -> list[Path]:
    """The picture of each frame of a parsed transforms.json.

    Raises:
        InputError: a frame without a path, or with one that leaves the folder.
    """
    return [inside_folder(folder, frame.get("file_path"), f"frame {i}") for i, frame in enumerate(meta["frames"])]


def read_transforms(folder: Path) -> tuple[dict[str, Any], Path]:
    """The parsed transforms.json, with its list of frames checked, and the folder that it lies in.

    Raises:
        InputError: no such file, too large, not JSON, or without a plausible list of frames.
    """
    path = folder if folder.suffix == ".json" and not folder.is_dir() else folder / TRANSFORMS
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a nerfstudio data set (a folder with {TRANSFORMS})")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MB; a data set of one head is far smaller")
    try:
        meta = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_not_finite)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); make the data set again") from error
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f"{path} has no `frames`; expected a nerfstudio data set with at least one picture")
    if len(frames) > MAX_PICTURES:
        raise InputError(f"{path} names {len(frames)} pictures; at most {MAX_PICTURES} are read")
    return meta, path.parent


def inside_folder(folder: Path, name: object, where: str) -> Path:
    """`folder / name`, refused where it would leave the folder by itself or through a link.

    Raises:
        InputError: no name, or one that leaves the folder.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder / TRANSFORMS}: {where} has no `file_path`")
    as_posix = name.replace("\\", "/")  # as Windows writes it
    if not leads_inside(name):
        raise InputError(
            f"{folder / TRANSFORMS}: {where} names {quoted(name)}; expected a path inside the data set's folder"
        )
    path = folder / as_posix
    try:
        if as_posix != name and not path.exists() and (folder / name).exists():
            path = folder / name
        path.exists()  # refuses names that are too long, which resolving does not
        inside = path.resolve().is_relative_to(folder.resolve())
    except OSError as error:  # longer than a name may be, a link that leads round in a circle
        raise InputError(f"{folder / TRANSFORMS}: {where} names {quoted(name)}: {error.strerror}") from error
    if not inside:
        raise InputError(f"{folder / TRANSFORMS}: {where} names {quoted(name)}, a link out of the data set's folder")
    return path


def finite_number(value: object, what: str) -> float:
    """A finite number out of JSON.

    Raises:
        InputError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"transforms.json: expected a finite number for {what}, got {quoted(value)}")
    return float(value)


def _not_finite(constant: str) -> NoReturn:
    raise InputError(f"transforms.json holds {constant}, which is not a number; make the data set again")


def _intrinsics(meta: dict[str, Any], paths: list[Path]) -> tuple[int, int, Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Picture size, focal lengths and principal points, per frame or shared."""
    frames = meta["frames"]
    model = str(meta.get("camera_model", "OPENCV")).upper()
    if model not in _PINHOLE_MODELS:
        raise InputError(
            f"transforms.json: expected camera_model OPENCV or PINHOLE, got {quoted(model)}; undistort first"
        )
    rows = []
    for i, frame in enumerate(frames):
        values = {key: frame.get(key, meta.get(key)) for key in (*_INTRINSICS, "camera_angle_x")}
        if values["w"] is None or values["h"] is None:
            values["w"], values["h"] = picture_size(paths[i])
        w, h = finite_number(values["w"], f"w of frame {i}"), finite_number(values["h"], f"h of frame {i}")
        if values["fl_x"] is None and values["camera_angle_x"] is not None:
            values["fl_x"] = 0.5 * w / math.tan(0.5 * finite_number(values["camera_angle_x"], "camera_angle_x"))
        if values["fl_x"] is None:
            raise InputError(f"transforms.json: frame {i} has no `fl_x` (focal length in pixels), nor has the file")
        defaults = {"fl_y": values["fl_x"], "cx": w / 2, "cy": h / 2}
        values.update({key: default for key, default in defaults.items() if values[key] is None})
        row = [finite_number(values[key], f"{key} of frame {i}") for key in _INTRINSICS]
        if min(row[0], row[1]) <= 0 or min(w, h) < 1 or w != int(w) or h != int(h):
            raise InputError(f"transforms.json: frame {i} has an impossible focal length or picture size {quoted(row)}")
        lens = {key: finite_number(frame.get(key, meta.get(key, 0.0)), key) for key in _DISTORTION}
        if any(lens.values()) and not _distortion_px(lens, row) <= _MOST_DISTORTION_PX:
            raise InputError(f"transforms.json: frame {i} has lens distortion; undistort the pictures first")
        rows.append(row)
    table = torch.tensor(rows, dtype=torch.float64)
    sizes = {(int(row[4]), int(row[5])) for row in rows}
    if len(sizes) > 1:
        raise InputError(
            f"transforms.json: expected pictures of one size, got {quoted(sorted(sizes))}; resize them first"
        )
    width, height = sizes.pop()
    return width, height, table[:, 0:2], table[:, 2:4]


def _distortion_px(lens: dict[str, float], row: list[float]) -> float:
    """How far OpenCV's radial and tangential terms move a pixel, at most, looked at along the picture's border.

    Args:
        lens: coefficients by name.
        row: focal lengths, principal point, width and height, pixels.
    """
    fl_x, fl_y, cx, cy, width, height = row
    across, down = np.linspace(0, width, _BORDER_SAMPLES), np.linspace(0, height, _BORDER_SAMPLES)
    u = np.concatenate([across, across, np.zeros_like(down), np.full_like(down, width)])
    v = np.concatenate([np.zeros_like(across), np.full_like(across, height), down, down])
    x, y = (u - cx) / fl_x, (v - cy) / fl_y
    r2 = x * x + y * y
    with np.errstate(over="ignore", invalid="ignore"):
        radial = sum(lens[f"k{n}"] * r2**n for n in (1, 2, 3, 4))
        dx = x * radial + 2 * lens["p1"] * x * y + lens["p2"] * (r2 + 2 * x * x)
        dy = y * radial + lens["p1"] * (r2 + 2 * y * y) + 2 * lens["p2"] * x * y
        return float(np.hypot(fl_x * dx, fl_y * dy).max())


def _pose(frame: dict[str, Any], index: int) -> Float[Tensor, "4 4"]:
    """One rigid OpenGL pose, to world from camera."""
    rows = frame.get("transform_matrix")
    if (
        not isinstance(rows, list)
        or len(rows) not in (3, 4)
        or any(not isinstance(r, list) or len(r) != 4 for r in rows)
    ):
        raise InputError(f"transforms.json: frame {index} has no 4x4 `transform_matrix`")
    numbers = [[finite_number(value, f"the pose of frame {index}") for value in row] for row in rows]
    T = torch.tensor([*numbers[:3], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    R = T[:3, :3]
    rigid = torch.allclose(R @ R.T, torch.eye(3, dtype=torch.float64), atol=1e-4)
    if not rigid or numbers[3:] not in ([], [[0.0, 0.0, 0.0, 1.0]]):
        raise InputError(f"transforms.json: the pose of frame {index} is not rigid (rotation and translation only)")
    if torch.linalg.det(R) < 0:
        raise InputError(f"transforms.json: the pose of frame {index} is a reflection; expected a rotation")
    return T


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture; its pixels are not decoded.

    Raises:
        InputError: a missing or damaged file.
    """
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"Cannot read the picture {path}: {error}") from error

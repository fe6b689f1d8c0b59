"""`ViewSet` on disk: a nerfstudio data set that stock methods read, and that reads back equal.

    FOLDER/transforms.json   intrinsics, OpenGL poses, splits, and a `dp360` block (confidence, names, provenance)
    FOLDER/images/NAME.png   RGBA, 8 bits, straight alpha
    FOLDER/masks/NAME.png    the alpha alone, for tools that want mattes
    FOLDER/sparse_pc.ply     the head's surface samples

The masks are deliberately not named as `mask_path`: nerfstudio leaves everything outside such a mask unsupervised,
so floaters around the head would cost nothing. The alpha of the images says "empty" instead.
"""

from __future__ import annotations

import io
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dp360.generation import Cameras, InputError, PointCloud, Provenance, ViewSet
from dp360.generation.cameras import opencv_from_opengl, opengl_from_opencv
from dp360.generation.files import directory_written_atomically

from .hull import hull_points
from .point_cloud_ply import decode_point_cloud, encode_point_cloud

TRANSFORMS = "transforms.json"
MAX_FRAMES = 5000
"""More pictures than any head needs; a file that claims more is damaged or hostile."""
MAX_JSON_BYTES = 32 << 20
"""The largest transforms.json that is read, bytes."""
MAX_PICTURE_BYTES = 6 << 30
"""The most decoded picture data that is read, bytes: what a machine of 8 GB can hold."""
_EVAL_EVERY = 8
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")


def write_dataset(views: ViewSet, folder: Path) -> None:
    """Write `views` as a nerfstudio data set, whole or not at all; the same views give the same bytes.

    Every view is in the train split; every eighth one is also in val and test, so that stock tools have something
    to evaluate. Their figures therefore tell how well the given views are reproduced, nothing about unseen ones.

    Args:
        views: pictures of one head.
        folder: the data set's folder; an earlier one there is replaced when the new one is complete.

    Raises:
        ValueError: a view's name is not safe as a file name, or two names differ in case only.
        InputError: the folder cannot be written.
    """
    if len({name.lower() for name in views.names}) < len(views) or not all(
        _SAFE_NAME.fullmatch(name) for name in views.names
    ):
        raise ValueError(f"write_dataset: expected distinct names of letters, digits, _ . and -, got {views.names}")
    text = json.dumps(_transforms(views), indent=1, allow_nan=False)
    with directory_written_atomically(folder) as temporary:
        (temporary / "images").mkdir()
        (temporary / "masks").mkdir()

        def write_picture(index: int) -> None:
            rgba = views.rgba[index].cpu().numpy()
            name = f"{views.names[index]}.png"
            (temporary / "images" / name).write_bytes(_png_bytes(rgba))
            (temporary / "masks" / name).write_bytes(_png_bytes(rgba[..., 3]))

        with ThreadPoolExecutor(max_workers=2) as pool:  # zlib works outside the interpreter's lock
            list(pool.map(write_picture, range(len(views))))
        (temporary / "sparse_pc.ply").write_bytes(encode_point_cloud(views.surface))
        (temporary / TRANSFORMS).write_text(text + "\n", encoding="utf-8")


def read_dataset(folder: Path) -> ViewSet:
    """Read a nerfstudio data set: ours, or anybody's with undistorted pinhole pictures of one size.

    Without a `dp360` block the confidence is 1 and names come from the files; without a point cloud the surface is
    the visual hull of the alphas; without alpha a `mask_path` takes its place.

    Args:
        folder: the data set's folder, or its transforms.json.

    Returns:
        The views: for data sets of `write_dataset` bit-exact pictures and poses, surface colours to 8 bits.

    Raises:
        InputError: a missing or damaged file, a missing key, a number that is not finite, a pose that is not rigid,
            a path that leaves the folder, or more data than is plausible.
    """
    meta, folder = _read_transforms(folder)
    frames = meta["frames"]
    paths = [_inside(folder, frame.get("file_path"), f"frame {i}") for i, frame in enumerate(frames)]
    masks = [
        _inside(folder, frame["mask_path"], f"frame {i}") if "mask_path" in frame else None
        for i, frame in enumerate(frames)
    ]
    width, height, focal_px, principal_px = _intrinsics(meta, paths)
    T_world_camera = opencv_from_opengl(torch.stack([_pose(frame, i) for i, frame in enumerate(frames)]))
    if 4 * width * height * len(frames) > MAX_PICTURE_BYTES:
        raise InputError(
            f"{folder}: {len(frames)} pictures of {width}x{height} need more than "
            f"{MAX_PICTURE_BYTES >> 30} GB of memory; use fewer or smaller ones"
        )
    with ThreadPoolExecutor(max_workers=2) as pool:
        pictures = pool.map(lambda path, mask: _read_rgba(path, mask, width, height), paths, masks)
        rgba = torch.stack(list(pictures))
    cameras = Cameras(T_world_camera, focal_px, principal_px, width, height)
    names, confidence, provenance = _dp360_block(meta, paths)
    surface = read_surface(folder, meta)
    if surface is None:
        surface = hull_points(rgba, cameras)
    return ViewSet(rgba, cameras, confidence, names, surface, provenance)


def read_surface(folder: Path, meta: dict[str, Any] | None = None) -> PointCloud | None:
    """The data set's point cloud alone, or None where it names none.

    Args:
        folder: the data set's folder, or its transforms.json.
        meta: the parsed transforms.json where the caller has it.

    Raises:
        InputError: as `read_dataset`.
    """
    if meta is None:
        meta, folder = _read_transforms(folder)
    if not meta.get("ply_file_path"):
        return None
    path = _inside(folder, meta["ply_file_path"], "ply_file_path")
    if not path.is_file():
        raise InputError(f"The data set names {path}, which does not exist; copy it back or remove `ply_file_path`")
    return decode_point_cloud(path.read_bytes(), name=str(path))


def read_confidence(folder: Path) -> dict[str, float]:
    """Confidence of each picture by its file's stem; 1 where the data set says nothing.

    Raises:
        InputError: as `read_dataset`.
    """
    meta, folder = _read_transforms(folder)
    paths = [_inside(folder, frame.get("file_path"), f"frame {i}") for i, frame in enumerate(meta["frames"])]
    _, confidence, _ = _dp360_block(meta, paths)
    return {path.stem: float(value) for path, value in zip(paths, confidence)}


def _transforms(views: ViewSet) -> dict[str, Any]:
    """The contents of transforms.json. Adding zero turns -0.0 into 0.0, so that bytes do not depend on its sign."""
    cameras = views.cameras
    per_view = [
        {"fl_x": float(f[0]), "fl_y": float(f[1]), "cx": float(c[0]), "cy": float(c[1])}
        for f, c in zip(cameras.focal_px, cameras.principal_px)
    ]
    shared = all(intrinsics == per_view[0] for intrinsics in per_view)
    files = [f"images/{name}.png" for name in views.names]
    poses = (opengl_from_opencv(cameras.T_world_camera.to(torch.float64)) + 0.0).tolist()
    frames = [
        {"file_path": file, **({} if shared else intrinsics), "transform_matrix": pose}
        for file, intrinsics, pose in zip(files, per_view, poses)
    ]
    return {
        "camera_model": "OPENCV",
        "w": cameras.width,
        "h": cameras.height,
        **(per_view[0] if shared else {}),
        **{key: 0.0 for key in ("k1", "k2", "p1", "p2")},
        "applied_transform": [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
        "ply_file_path": "sparse_pc.ply",
        "train_filenames": files,
        "val_filenames": files[::_EVAL_EVERY],
        "test_filenames": files[::_EVAL_EVERY],
        "dp360": {
            "format": 1,
            "names": list(views.names),
            "confidence": [float(value) for value in views.confidence],
            "provenance": asdict(views.provenance),
        },
        "frames": frames,
    }


def _png_bytes(pixels: UInt8[np.ndarray, "h w *channels"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _not_finite(constant: str) -> NoReturn:
    raise InputError(f"transforms.json holds {constant}, which is not a number; make the data set again")


def _read_transforms(folder: Path) -> tuple[dict[str, Any], Path]:
    """The parsed transforms.json, with its list of frames checked, and the folder that it lies in."""
    path = folder if folder.suffix == ".json" else folder / TRANSFORMS
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a nerfstudio data set (a folder with {TRANSFORMS})")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MB; a data set of one head is far smaller")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_finite)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); make the data set again") from error
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f"{path} has no `frames`; expected a nerfstudio data set with at least one picture")
    if len(frames) > MAX_FRAMES:
        raise InputError(f"{path} names {len(frames)} pictures; at most {MAX_FRAMES} are read")
    return meta, path.parent


def _inside(folder: Path, name: object, where: str) -> Path:
    """`folder / name`, refused where it would leave the folder by itself or through a link."""
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder / TRANSFORMS}: {where} has no `file_path`")
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    if absolute or ".." in PurePosixPath(name.replace("\\", "/")).parts or "\0" in name:
        raise InputError(f"{folder / TRANSFORMS}: {where} names {name!r}; expected a path inside the data set's folder")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{folder / TRANSFORMS}: {where} names {name!r}, a link out of the data set's folder")
    return path


def _number(value: object, what: str) -> float:
    """A finite number out of JSON."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"transforms.json: expected a finite number for {what}, got {value!r}")
    return float(value)


def _intrinsics(meta: dict[str, Any], paths: list[Path]) -> tuple[int, int, Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Picture size, focal lengths and principal points, per frame or shared."""
    frames = meta["frames"]
    model = str(meta.get("camera_model", "OPENCV")).upper()
    if model not in _PINHOLE_MODELS:
        raise InputError(f"transforms.json: expected camera_model OPENCV or PINHOLE, got {model}; undistort first")
    rows = []
    for i, frame in enumerate(frames):
        values = {key: frame.get(key, meta.get(key)) for key in (*_INTRINSICS, "camera_angle_x")}
        if any(_number(frame.get(key, meta.get(key, 0.0)), key) != 0.0 for key in _DISTORTION):
            raise InputError(f"transforms.json: frame {i} has lens distortion; undistort the pictures first")
        if values["w"] is None or values["h"] is None:
            values["w"], values["h"] = _picture_size(paths[i])
        w, h = _number(values["w"], f"w of frame {i}"), _number(values["h"], f"h of frame {i}")
        if values["fl_x"] is None and values["camera_angle_x"] is not None:
            values["fl_x"] = 0.5 * w / math.tan(0.5 * _number(values["camera_angle_x"], "camera_angle_x"))
        if values["fl_x"] is None:
            raise InputError(f"transforms.json: frame {i} has no `fl_x` (focal length in pixels), nor has the file")
        defaults = {"fl_y": values["fl_x"], "cx": w / 2, "cy": h / 2}
        values.update({key: default for key, default in defaults.items() if values[key] is None})
        row = [_number(values[key], f"{key} of frame {i}") for key in _INTRINSICS]
        if min(row[0], row[1]) <= 0 or min(w, h) < 1 or w != int(w) or h != int(h):
            raise InputError(f"transforms.json: frame {i} has an impossible focal length or picture size {row}")
        rows.append(row)
    table = torch.tensor(rows, dtype=torch.float64)
    sizes = {(int(row[4]), int(row[5])) for row in rows}
    if len(sizes) > 1:
        raise InputError(f"transforms.json: expected pictures of one size, got {sorted(sizes)}; resize them first")
    width, height = sizes.pop()
    return width, height, table[:, 0:2], table[:, 2:4]


def _pose(frame: dict[str, Any], index: int) -> Float[Tensor, "4 4"]:
    """One rigid OpenGL pose, to world from camera."""
    rows = frame.get("transform_matrix")
    if (
        not isinstance(rows, list)
        or len(rows) not in (3, 4)
        or any(not isinstance(r, list) or len(r) != 4 for r in rows)
    ):
        raise InputError(f"transforms.json: frame {index} has no 4x4 `transform_matrix`")
    numbers = [[_number(value, f"the pose of frame {index}") for value in row] for row in rows]
    T = torch.tensor([*numbers[:3], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    R = T[:3, :3]
    rigid = torch.allclose(R @ R.T, torch.eye(3, dtype=torch.float64), atol=1e-4)
    if not rigid or numbers[3:] not in ([], [[0.0, 0.0, 0.0, 1.0]]):
        raise InputError(f"transforms.json: the pose of frame {index} is not rigid (rotation and translation only)")
    if torch.linalg.det(R) < 0:
        raise InputError(f"transforms.json: the pose of frame {index} is a reflection; expected a rotation")
    return T


def _picture_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(f"Cannot read the picture {path}: {error}") from error


def _read_rgba(path: Path, mask: Path | None, width: int, height: int) -> UInt8[Tensor, "h w 4"]:
    """One picture with straight alpha; the size is compared before anything is decoded."""
    if not path.is_file():
        raise InputError(f"The data set names {path}, which does not exist; copy it back or make the data set again")
    for file in (path, mask):
        if file is not None and _picture_size(file) != (width, height):
            raise InputError(f"{file} is {_picture_size(file)} pixels, transforms.json says {(width, height)}")
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


def _dp360_block(meta: dict[str, Any], paths: list[Path]) -> tuple[tuple[str, ...], Float[Tensor, " n"], Provenance]:
    """Names, confidence and provenance, from our block or by default."""
    stems = [path.stem for path in paths]
    fallback = Provenance("unknown", "unknown", 0, "", "", "Read from a data set without provenance")
    block = meta.get("dp360", {})
    if not isinstance(block, dict):
        raise InputError("transforms.json: expected an object as `dp360`; remove it or make the data set again")
    names = block.get("names", stems if len(set(stems)) == len(stems) else [f"view_{i:04d}" for i in range(len(stems))])
    confidence = block.get("confidence", [1.0] * len(stems))
    lists = isinstance(names, list) and isinstance(confidence, list)
    if not lists or not len(names) == len(confidence) == len(paths) or not all(isinstance(n, str) for n in names):
        raise InputError(f"transforms.json: `dp360` needs one name and one confidence for each of {len(paths)} frames")
    values = torch.tensor([_number(value, "a confidence") for value in confidence], dtype=torch.float32)
    if bool(((values < 0) | (values > 1)).any()):
        raise InputError("transforms.json: expected every confidence in [0, 1]")
    try:
        provenance = Provenance(**block["provenance"]) if "provenance" in block else fallback
    except TypeError as error:
        raise InputError(f"transforms.json: the provenance in `dp360` is not readable ({error})") from error
    return tuple(names), values, provenance

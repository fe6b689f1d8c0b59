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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ..cameras import opengl_from_opencv
from ..errors import InputError
from ..file_names import is_file_name
from ..files import directory_written_atomically
from ..system import machine_memory_bytes
from ..views import PointCloud, Provenance, ViewSet
from .point_cloud_ply import decode_point_cloud, encode_point_cloud
from .posed_frames import (
    TRANSFORMS,
    PosedFrames,
    finite_number,
    frame_paths,
    inside_folder,
    read_posed_frames,
    read_transforms,
)
from .visual_hull import hull_points

MAX_PICTURE_BYTES = 6 << 30
"""The most decoded picture data that is read, bytes; a fit keeps it as bytes and at most 1 GiB of it as floats."""
_MEMORY_SHARE = 0.75
"""Share of the machine's memory that pictures may take."""
_EVAL_EVERY = 8
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def write_dataset(views: ViewSet, folder: Path) -> None:
    """Write `views` as a nerfstudio data set, whole or not at all; the same views give the same bytes.

    Every view is in the train split; every eighth one is also in val and test, so that stock tools have something
    to evaluate. Their figures therefore tell how well the given views are reproduced, nothing about unseen ones.

    Args:
        folder: the data set's folder; an earlier one there is replaced when the new one is complete.

    Raises:
        ValueError: a view's name is not safe as a file name, or two names differ in case only.
        InputError: the folder cannot be written.
    """
    if len({name.lower() for name in views.names}) < len(views) or not all(_is_safe(name) for name in views.names):
        raise ValueError(f"write_dataset: expected distinct names of letters, digits, _ . and -, got {views.names}")
    text = json.dumps(_transforms(views), indent=1, allow_nan=False)
    with directory_written_atomically(folder) as temporary:
        (temporary / "images").mkdir()
        (temporary / "masks").mkdir()

        def write_picture(index: int) -> None:
            rgba = views.rgba[index].cpu().numpy()
            name = f"{views.names[index]}.png"
            (temporary / "images" / name).write_bytes(png_bytes(rgba))
            (temporary / "masks" / name).write_bytes(png_bytes(rgba[..., 3]))

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
    posed = read_posed_frames(folder)
    rgba = _read_pictures(posed)
    names, confidence, provenance = _dp360_block(posed.meta, posed.paths)
    surface = read_surface(posed.folder) or hull_points(rgba, posed.cameras)
    return ViewSet(rgba, posed.cameras, confidence, names, surface, provenance)


def background_notice(views: ViewSet) -> str | None:
    """A sentence where views say nothing about what is background, so that it is taken for surface."""
    if bool((views.rgba[..., 3] == 255).all()):
        return (
            "The pictures have no transparency, so that their background is taken for surface; to leave it out, save "
            "them as PNG with alpha, or name a grey picture for each as mask_path in transforms.json (white is kept)."
        )
    return None


def is_ours(folder: Path) -> bool:
    """Whether `write_dataset` wrote a data set, so that nerfstudio's own reader finds the same in it.

    Raises:
        InputError: as `read_dataset`, about transforms.json.
    """
    return isinstance(read_transforms(folder)[0].get("dp360"), dict)


def with_safe_names(views: ViewSet) -> ViewSet:
    """The same views with names that `write_dataset` takes: their own, if all of them will do."""
    if len({name.lower() for name in views.names}) == len(views) and all(map(_is_safe, views.names)):
        return views
    return replace(views, names=tuple(f"view_{i:04d}" for i in range(len(views))))


def _is_safe(name: str) -> bool:
    """Whether every program and system takes a view's name."""
    return _SAFE_NAME.fullmatch(name) is not None and is_file_name(name)


def _read_pictures(posed: PosedFrames) -> UInt8[Tensor, "n h w 4"]:
    """All pictures, refused before anything is decoded where they do not fit into memory."""
    shape = (len(posed), posed.cameras.height, posed.cameras.width, 4)
    most = min(MAX_PICTURE_BYTES, int(_MEMORY_SHARE * (machine_memory_bytes() or 2 * MAX_PICTURE_BYTES)))
    if math.prod(shape) > most:
        raise InputError(
            f"{posed.folder}: {shape[0]} pictures of {shape[2]}x{shape[1]} need {math.prod(shape) / 2**30:.1f} GB of "
            f"memory, at most {most / 2**30:.1f} GB are used on this machine; use fewer or smaller ones"
        )
    rgba = torch.empty(shape, dtype=torch.uint8)

    def read(index: int) -> None:
        rgba[index] = posed.rgba(index)

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(read, range(len(posed))))
    return rgba


def read_surface(folder: Path) -> PointCloud | None:
    """The data set's point cloud alone, or None where it names none.

    Args:
        folder: the data set's folder, or its transforms.json.

    Raises:
        InputError: as `read_dataset`.
    """
    meta, folder = read_transforms(folder)
    if not meta.get("ply_file_path"):
        return None
    path = inside_folder(folder, meta["ply_file_path"], "ply_file_path")
    if not path.is_file():
        raise InputError(f"The data set names {path}, which does not exist; copy it back or remove `ply_file_path`")
    return decode_point_cloud(path.read_bytes(), name=str(path))


def read_confidence(folder: Path) -> dict[str, float]:
    """Confidence of each picture by its file's stem; 1 where the data set says nothing.

    Raises:
        InputError: as `read_dataset`.
    """
    meta, folder = read_transforms(folder)
    paths = frame_paths(folder, meta)
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


def png_bytes(pixels: UInt8[np.ndarray, "h w *channels"]) -> bytes:
    """A picture of a data set as PNG: grey, RGB or RGBA; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _dp360_block(
    meta: dict[str, Any], paths: Sequence[Path]
) -> tuple[tuple[str, ...], Float[Tensor, " n"], Provenance]:
    """Names, confidence and provenance, from our block or by default."""
    stems = [path.stem for path in paths]
    fallback = Provenance.unknown("Read from a data set without provenance")
    block = meta.get("dp360", {})
    if not isinstance(block, dict):
        raise InputError("transforms.json: expected an object as `dp360`; remove it or make the data set again")
    names = block.get("names", stems if len(set(stems)) == len(stems) else [f"view_{i:04d}" for i in range(len(stems))])
    confidence = block.get("confidence", [1.0] * len(stems))
    lists = isinstance(names, list) and isinstance(confidence, list)
    if not lists or not len(names) == len(confidence) == len(paths) or not all(isinstance(n, str) for n in names):
        raise InputError(f"transforms.json: `dp360` needs one name and one confidence for each of {len(paths)} frames")
    values = torch.tensor([finite_number(value, "a confidence") for value in confidence], dtype=torch.float32)
    if bool(((values < 0) | (values > 1)).any()):
        raise InputError("transforms.json: expected every confidence in [0, 1]")
    try:
        provenance = Provenance.from_data(block["provenance"]) if "provenance" in block else fallback
    except InputError as error:
        raise InputError(f"transforms.json: {error} in `dp360`; make the data set again") from error
    return tuple(names), values, provenance

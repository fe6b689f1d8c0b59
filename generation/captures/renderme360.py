"""RenderMe-360: 500 people, 60 cameras all around, HDF5 files that end in `.smc`.

Pan et al. 2023, "RenderMe-360: A Large Digital Asset Library and Benchmarks Towards High-fidelity Head Avatars"
(https://arxiv.org/abs/2305.13353). Research use under the owners' agreement; nothing of it ships with this package.

Layout, after the owners' reader (https://renderme-360.github.io/assets/code/renderme_360_reader.py) and download page:

    raw/0026/0026_e0_raw.smc     Camera/NN/color/F       encoded picture, 2448x2048, decodes to BGR with OpenCV
    anno/0026/0026_e0_anno.smc   Camera/NN/mask/F        encoded matte of the same size
                                 Calibration/NN/K D RT   3x3, 5 coefficients, 4x4
                                 Keypoints3d/F           points of the face, capture's world; not for every frame
    attributes                   actor_id, performance_part, ...; of Camera: num_device, num_frame, resolution

The first release has all groups in one file. NN is 00 to 59, F counts from 0, resolution is height and width.

`RT` is to the world from the camera, OpenCV axes, metres: the owners say so
(https://github.com/RenderMe-360/RenderMe-360/issues/6), their benchmark names it `c2w`
(RenderMe-360-Benchmark `generalizable_nvs/IBRNet/renderme.py`), and read this way the 60 optical axes of a published
calibration meet at (-0.04, -0.50, 0.00), 1.2 to 1.3 m from the cameras of the ring. In that world y points down (the
mean of the cameras' up vectors is -y) and the person looks along -z, at cameras 25 and 28. The coefficients `D` are
those of OpenCV; in that calibration all are zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from ..errors import InputError
from ..progress import Track, silent
from ..views import ViewSet
from . import capture
from .capture import CaptureCamera, CaptureFrame, CapturePicture, Framing
from .capture_placement import HeadPlacement, placement_from_keypoints, placement_from_rig

_DOCUMENTED_RESOLUTION = (2048, 2448)
_RIGHT_CAPTURE, _UP_CAPTURE = np.array([1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0])


def read_renderme360(
    path: Path,
    *,
    frame: int = 0,
    cameras: Sequence[str] | None = None,
    size_px: int = 512,
    framing: Framing = "head",
    track: Track = silent,
) -> ViewSet:
    """One frame of a RenderMe-360 performance as views of a head in our world.

    Key points of the face, where the frame has them, carry the head onto our mean head: frame, place and size. The rig
    alone gives y up and the face to +z as documented above, the middle of the head where the optical axes of all
    calibrated cameras meet (off by a few centimetres where the person sits differently), and the size true to life.

    Args (the others are those of every reader, see `captures`):
        path: the `.smc` with the pictures. Masks, calibration and key points are read from the file itself or, beside
            a `NAME_raw.smc`, from `NAME_anno.smc` in the same folder or in the owners' `anno/ACTOR` folder.

    Returns:
        Views named as their cameras; alpha is the matte, or 255 where a picture has none. `surface` holds the key
        points of the face (grey, normals away from the middle) where the frame has them and is empty otherwise.

    Raises:
        InputError: a file, group, camera or frame that is missing, a damaged picture or calibration, a mask of another
            size, or key points that form no face.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_opened(file)) for file in _files(path)]
        with _damage_named(path):
            resolution = _resolution(files)
            calibration, calibration_bytes = _calibration(files, path, resolution)
            with_frame = _cameras_with_frame(files, path, frame)
            names, _ = capture.cameras_with_frame(cameras, calibration, with_frame.__contains__, path, path, frame)
            keypoints = _keypoints(files, frame)
            placed = _placement(keypoints, list(calibration.values()), path, frame)
            attributes = _attributes(files)
            without_mask = [name for name in names if _find(files, f"Camera/{name}/mask/{frame}") is None]
        settings: dict[str, object] = {
            **attributes,
            "cameras_left_out": sorted(set(with_frame) ^ set(calibration)) if cameras is None else [],
            "cameras_without_mask": without_mask,
        }

        def read(name: str) -> CapturePicture:
            rgb = np.array(_picture(files, path, f"Camera/{name}/color/{frame}", resolution).convert("RGB"))
            where = f"{path}: Camera/{name}/color/{frame}"
            if name in without_mask:
                return CapturePicture(rgb, None, where)
            return CapturePicture(
                rgb, capture.mask_of(_picture(files, path, f"Camera/{name}/mask/{frame}", resolution)), where
            )

        moment = f"{attributes.get('performance_part', path.stem)} frame {frame}"
        chosen = [calibration[name] for name in names]
        taken = CaptureFrame("RenderMe-360", moment, calibration_bytes, chosen, read, placed, keypoints, settings)
        return capture.capture_views(taken, size_px, framing, track)


def _files(path: Path) -> list[Path]:
    """The picture file and, where there is one, the file with its annotation."""
    if path.name.endswith("_raw.smc"):
        name = path.name.removesuffix("_raw.smc") + "_anno.smc"
        for candidate in (path.parent / name, path.parent.parent.parent / "anno" / path.parent.name / name):
            if candidate.is_file():
                return [path, candidate]
    return [path]


def _opened(path: Path) -> Any:
    """An HDF5 file for reading, or a sentence that says why not."""
    import h5py

    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a RenderMe-360 file that ends in .smc")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is not an HDF5 file or is cut off ({error}); download it again") from error


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into a sentence."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} or its annotation is damaged ({error}); download it again") from error


def _find(files: list[Any], name: str) -> Any | None:
    """A group or data set from the first file that has it."""
    return next((file[name] for file in files if name in file), None)


def _array(files: list[Any], name: str, path: Path) -> np.ndarray:
    """A data set's values.

    Raises:
        InputError: missing, or larger than plausible.
    """
    item = _find(files, name)
    if item is None or not hasattr(item, "shape"):
        raise InputError(
            f"{path} has no data `{name}`; masks, calibration and key points are in the file that ends in _anno.smc: "
            "put it beside"
        )
    if item.nbytes > capture.MAX_FILE_BYTES:
        raise InputError(f"{path}: the data `{name}` declares {item.nbytes >> 20} MB; the file is damaged")
    return np.asarray(item[()])


def _attributes(files: list[Any]) -> dict[str, object]:
    """Who and what was captured, as text."""
    keys = ("actor_id", "performance_part", "capture_date")
    found = {key: file.attrs[key] for key in keys for file in reversed(files) if key in file.attrs}
    return {
        key: value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for key, value in found.items()
    }


def _resolution(files: list[Any]) -> tuple[int, int]:
    """Height and width of the pictures that the calibration refers to."""
    for file in files:
        if "Camera" in file and "resolution" in file["Camera"].attrs:
            values = np.asarray(file["Camera"].attrs["resolution"]).reshape(-1)
            if len(values) != 2 or not np.issubdtype(values.dtype, np.number) or values.min() < 1:
                raise InputError(
                    f"{file.filename}: the attribute `resolution` of Camera is {values}, expected two sizes"
                )
            return int(values[0]), int(values[1])
    return _DOCUMENTED_RESOLUTION


def _calibration(files: list[Any], path: Path, resolution: tuple[int, int]) -> tuple[dict[str, CaptureCamera], bytes]:
    """All calibrated cameras by name, and their numbers as bytes."""
    group = _find(files, "Calibration")
    if group is None or not len(group):
        raise InputError(f"{path} has no group `Calibration`; it is in the file that ends in _anno.smc: put it beside")
    height, width = resolution
    cameras: dict[str, CaptureCamera] = {}
    numbers = []
    for name in sorted(group):
        K, D, T = (_array(files, f"Calibration/{name}/{key}", path) for key in ("K", "D", "RT"))
        cameras[name] = capture.checked_camera(name, K, D, T, (width, height), f"{path}: Calibration")
        numbers += [name.encode(), *(np.ascontiguousarray(a, dtype="<f8").tobytes() for a in (K, D, T))]
    return cameras, b"\0".join(numbers)


def _cameras_with_frame(files: list[Any], path: Path, frame: int) -> list[str]:
    """Names of the cameras that have a picture of the frame."""
    group = _find(files, "Camera")
    if group is None:
        raise InputError(f"{path} has no group `Camera`; expected a RenderMe-360 file with pictures (_raw.smc)")
    with_frame = [name for name in group if _find(files, f"Camera/{name}/color/{frame}") is not None]
    if not with_frame:
        counts = [len(group[name]["color"]) for name in group if "color" in group[name]]
        raise InputError(
            f"{path} has no picture `Camera/NN/color/{frame}`; "
            + (f"its frames are 0 to {max(counts) - 1}" if counts and max(counts) else "it has no pictures at all")
        )
    return with_frame


def _keypoints(files: list[Any], frame: int) -> Float[np.ndarray, "k 3"]:
    """Key points of the face in the capture's world."""
    item = _find(files, f"Keypoints3d/{frame}")
    if item is None or getattr(item, "ndim", 0) != 2 or item.shape[0] == 0 or item.shape[1] != 3:
        return capture.NO_KEYPOINTS
    return np.asarray(item[()], dtype=np.float64)


def _placement(keypoints: np.ndarray, cameras: list[CaptureCamera], path: Path, frame: int) -> HeadPlacement:
    """Where the head is, as documented in `read_renderme360`."""
    if len(keypoints):
        return placement_from_keypoints(keypoints, f"{path}: Keypoints3d/{frame}")
    poses = np.stack([camera.T_capture_camera for camera in cameras])
    source = "the rig: y down, face to -z, where the optical axes meet"
    return placement_from_rig(_RIGHT_CAPTURE, _UP_CAPTURE, poses, source, str(path))


def _picture(files: list[Any], path: Path, name: str, resolution: tuple[int, int]) -> Image.Image:
    """A decoded picture or matte, stored as an array of bytes or as one opaque value."""
    with _damage_named(path):
        encoded = np.ascontiguousarray(_array(files, name, path)).tobytes()
    image = capture.decode_picture(encoded, f"{path}: {name}")
    if image.size[::-1] != resolution:
        raise InputError(f"{path}: {name} has {image.size[::-1]} rows and columns, the calibration is for {resolution}")
    return image

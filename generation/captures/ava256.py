"""Ava-256: 256 people in a dome, 80 cameras all around each.

Martinez et al. 2024, "Codec Avatar Studio: Paired Human Captures for Complete, Driveable, and Generalizable Avatars"
(https://github.com/facebookresearch/ava-256). Licensed CC BY-NC 4.0; nothing of it ships with this package.

Layout of a capture, after the owners' datasheet (`DATASHEET.md`) and loader (`data/ava_dataset.py`); each zip may also
be unpacked into a folder of its name:

    DATE--TIME--SUBJECT/decoder/
        camera_calibration.json                  "KRT": cameraId, K, T, distortion of every camera
        frame_list.csv                           seg_id,frame_id
        head_pose/head_pose.zip                  000123.txt: 3x4, to the world from the head
        keypoints_3d/keypoints_3d.zip            000123.npy: index, x, y, z, confidence, inliers
        image/camNAME.zip                        camNAME/000123.avif
        segmentation_parts/camNAME.zip           camNAME/000123.png: 0 nothing, 1 hair, 2 body, 3 chair, 4 apparel, ...

`K` and `T` are stored transposed; after turning them back, `T` is to the camera from the world, OpenCV axes,
millimetres, and `K` refers to the full sensor of 2668x4096 pixels, of which releases hold a half or a quarter
(`utils.py`: `load_camera_calibration`). The head's frame has x towards its left, y up and z out of the face,
millimetres: so lies the registered mesh that the owners publish (`assets/021924.bin`).
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from ..cameras import METRES_PER_UNIT
from ..errors import InputError
from ..progress import Track, silent
from ..views import ViewSet
from . import capture
from .capture import CaptureCamera, CaptureFrame, CapturePicture, Framing
from .capture_placement import HeadPlacement

_SENSOR_SIZE_PX = (2668, 4096)
"""Width and height of the pictures that the calibration refers to."""
NEUTRAL_SEGMENT = "EXP_neutral_peak"
"""The segment whose frames the owners condition on."""
_LABELS_OUTSIDE = (0, 3)
"""Nothing and the chair; all other labels belong to the person."""
_HEAD_TO_WORLD_UNITS = np.array([0.0, -0.040, 0.078])
"""Our world's coordinates of the origin of Ava-256's head frame.

It lays the nose tip of the owners' published mesh, (0, 7.6, 73.1) mm, on that of our mean head; crown, occiput and
ears of the two then agree within 1 cm.
"""


def read_ava256(
    path: Path,
    *,
    frame: int | None = None,
    segment: str | None = None,
    cameras: Sequence[str] | None = None,
    size_px: int = 512,
    framing: Framing = "head",
    track: Track = silent,
) -> ViewSet:
    """One frame of an Ava-256 dome capture as views of a head in our world.

    The head pose of the frame gives y up and the face to +z however the person turned; the middle of the head is a
    fixed point of that frame (`_HEAD_TO_WORLD_UNITS`). Sizes are true to life. The calibrated distortion, at most 6
    pixels of the full sensor in the corners, is left in, as in the owners' own projections (`demos/keypoints.py`).

    Args (the others are those of every reader, see `captures`):
        path: folder of a capture (`20230308--1352--ABC123`) or its `decoder` folder.
        frame: number of the frame; None takes the first of `segment` in `frame_list.csv`.
        segment: a `seg_id`; None takes `EXP_neutral_peak` or, without it, the first in the list. Ignored with `frame`.

    Returns:
        Views named as their cameras; alpha is 255 on the person's parts (not the chair), or everywhere where a camera
        has no segmentation. `surface` holds the 3D key points (grey, normals away from the middle) where the capture
        has them and is empty otherwise.

    Raises:
        InputError: a file, camera, segment or frame that is missing, or damaged pictures, archives or calibration.
    """
    folder = path / "decoder" if (path / "decoder").is_dir() else path
    calibration_file = folder / "camera_calibration.json"
    meta, calibration_bytes = capture.read_json(calibration_file, "the calibration of an Ava-256 capture")
    calibration = _calibration(meta, calibration_file)
    if frame is None:
        segment, frame = _first_frame(folder / "frame_list.csv", segment)
    placed = _placement(folder, frame)

    def picture_of(name: str) -> tuple[Path, str, str, str]:
        stem = f"cam{name}/{frame:06d}"
        return folder / "image" / f"cam{name}", f"{stem}.avif", f"{stem}.png", f"{stem}.jpg"

    def matte_of(name: str) -> tuple[Path, str]:
        return folder / "segmentation_parts" / f"cam{name}", f"cam{name}/{frame:06d}.png"

    def has_frame(name: str) -> bool:
        return _entry(*picture_of(name)) is not None

    names, left_out = capture.cameras_with_frame(
        cameras, calibration, has_frame, calibration_file, folder / "image", frame
    )
    without_mask = [name for name in names if _entry(*matte_of(name)) is None]

    def read(name: str) -> CapturePicture:
        data, where = _read(*picture_of(name))
        rgb = np.array(capture.decode_picture(data, where).convert("RGB"))
        if name in without_mask:
            return CapturePicture(rgb, None, where)
        image = capture.decode_picture(*_read(*matte_of(name)))
        labels = np.array(image) if image.mode == "P" else capture.mask_of(image)
        return CapturePicture(rgb, np.where(np.isin(labels, _LABELS_OUTSIDE), 0, 255).astype(np.uint8), where)

    settings: dict[str, object] = {
        "actor": folder.resolve().parent.name if folder.name == "decoder" else folder.resolve().name,
        "segment": segment,
        "cameras_left_out": left_out,
        "cameras_without_mask": without_mask,
    }
    moment, chosen, points = f"frame {frame:06d}", [calibration[name] for name in names], _keypoints(folder, frame)
    taken = CaptureFrame("Ava-256", moment, calibration_bytes, chosen, read, placed, points, settings)
    return capture.capture_views(taken, size_px, framing, track)


def _calibration(meta: dict, file: Path) -> dict[str, CaptureCamera]:
    """All calibrated cameras by name."""
    rows = meta.get("KRT")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{file}: expected a list `KRT` of cameras; download it again")
    cameras: dict[str, CaptureCamera] = {}
    for row in rows:
        name = str(row.get("cameraId"))
        missing = [key for key in ("cameraId", "K", "T") if key not in row]
        if missing or not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
            raise InputError(f"{file}: a camera ({name}) has no usable {capture.shortened(missing or ['cameraId'])}")
        cameras[name] = capture.checked_camera(
            name, row["K"], (), row["T"], _SENSOR_SIZE_PX, str(file), by_columns=True, to_camera=True
        )
    return cameras


def _first_frame(file: Path, segment: str | None) -> tuple[str, int]:
    """Segment and number of the first frame of a segment."""
    text = capture.read_bytes(file, "the list of frames of an Ava-256 capture").decode("utf-8-sig", "replace")
    rows = [
        row for row in csv.DictReader(text.splitlines()) if row.get("seg_id") and (row.get("frame_id") or "").isdigit()
    ]
    if not rows:
        raise InputError(f"{file} lists no frames; expected the columns seg_id and frame_id")
    segments = list(dict.fromkeys(row["seg_id"] for row in rows))
    chosen = segment or (NEUTRAL_SEGMENT if NEUTRAL_SEGMENT in segments else segments[0])
    if chosen not in segments:
        raise InputError(f"{file} has no segment {chosen}; it has {capture.shortened(segments)}")
    return chosen, min(int(row["frame_id"]) for row in rows if row["seg_id"] == chosen)


def _placement(folder: Path, frame: int) -> HeadPlacement:
    """The frame's head pose as a similarity to our world."""
    data, where = _read(folder / "head_pose" / "head_pose", f"{frame:06d}.txt")
    try:
        pose = np.loadtxt(io.BytesIO(data), ndmin=2)
    except ValueError as error:
        raise InputError(f"{where} is not a matrix of numbers ({error}); download it again") from error
    T_head_capture = capture.checked_camera(
        "head", np.eye(3), (), pose, _SENSOR_SIZE_PX, where, to_camera=True
    ).T_capture_camera
    scale = 0.001 / METRES_PER_UNIT
    return HeadPlacement(
        scale, T_head_capture[:3, :3], scale * T_head_capture[:3, 3] + _HEAD_TO_WORLD_UNITS, "the frame's head pose"
    )


def _keypoints(folder: Path, frame: int) -> Float[np.ndarray, "k 3"]:
    """Key points of the frame in the capture's world; none where the capture has none."""
    entry = folder / "keypoints_3d" / "keypoints_3d", f"{frame:06d}.npy"
    if _entry(*entry) is None:
        return capture.NO_KEYPOINTS
    data, where = _read(*entry)
    try:
        rows = np.load(io.BytesIO(data), allow_pickle=False).astype(np.float64).reshape(-1, 6)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{where} does not hold rows of 6 numbers ({error}); download it again") from error
    return rows[:, 1:4]


def _entry(archive: Path, *names: str) -> Path | zipfile.Path | None:
    """The first of several entries that `ARCHIVE.zip` has, or the folder that it was unpacked to; None without any."""
    for name in names:
        for file in (archive / PurePosixPath(name).name, archive / name):  # with or without the inner folder
            if file.is_file():
                return file
    packed = archive.with_name(archive.name + ".zip")
    if not packed.is_file():
        return None
    try:
        contents = zipfile.Path(zipfile.ZipFile(packed))
    except Exception as error:  # damaged headers raise whatever the module runs into
        raise InputError(f"{packed} is not a zip archive or is cut off ({error}); download it again") from error
    return next((contents / name for name in names if (contents / name).is_file()), None)


def _read(archive: Path, *names: str) -> tuple[bytes, str]:
    """The bytes of `_entry`, and its name for messages.

    Raises:
        InputError: neither the archive nor the folder has it, or it is damaged.
    """
    found = _entry(archive, *names)
    if found is None:
        if not Path(f"{archive}.zip").is_file():
            raise InputError(f"{archive}.zip does not exist; download it with the owners' download.py")
        raise InputError(f"{archive}.zip has no {names[0]}; choose a frame of frame_list.csv")
    if isinstance(found, Path):
        return capture.read_bytes(found, "a file of an Ava-256 capture"), str(found)
    where = f"{archive}.zip: {found.at}"
    if found.root.getinfo(found.at).file_size > capture.MAX_FILE_BYTES:
        raise InputError(f"{where} is larger than {capture.MAX_FILE_BYTES >> 20} MB; download the archive again")
    try:
        return found.read_bytes(), where
    except Exception as error:  # zlib, CRC and struct errors of damaged archives
        raise InputError(f"{where} is damaged ({error}); download the archive again") from error

"""NeRSemble: multi-view videos of faces by 16 cameras in front and at the sides, 73 frames per second.

Kirschstein et al. 2023, "NeRSemble: Multi-View Radiance Field Reconstruction of Human Heads"
(https://doi.org/10.1145/3592455). Given out on request for non-commercial research; nothing of it ships with this
package.

Layouts of a participant's folder, after the owners' data managers:

    calibration/camera_params.json                                         version 2 and benchmark
    calibration/color_calibration.json
    sequences/SEQ/images/cam_SERIAL.mp4, alpha_maps/cam_SERIAL.mp4         (tobias-kirschstein/nersemble-data,
                                                                            nersemble-benchmark: `constants.py`)
    sequences/SEQ/images/cam_SERIAL_FRAME.jpg, alpha_maps/...              the same as pictures (ShenhanQian/VHAP)

    camera_params.json                                                     version 1
    sequences/SEQ/frame_00000/images*/cam_SERIAL.png                       (tobias-kirschstein/nersemble:
    sequences/SEQ/frame_00000/alpha_map*/cam_SERIAL.png                     `data_manager/multi_view_data.py`)
    annotations/SEQ/color_correction/SERIAL.npy

`timesteps/frame_00000` is read like `frame_00000`, and SEQ may lie in the participant's folder itself.

`world_2_cam` is to the camera from the world, OpenCV axes, metres; one `intrinsics` belongs to the full sensor of
2200x3208 pixels and to all cameras (README of nersemble-data, Sec. 4.2; nersemble issue 9), one per camera (benchmark)
to the pictures as they are. Lens distortion is taken to be none, as in the owners' `nersemble_dataparser.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..errors import InputError
from ..progress import Track, silent
from ..views import ViewSet
from .capture import (
    NO_KEYPOINTS,
    CaptureCamera,
    CaptureFrame,
    CapturePicture,
    Framing,
    cameras_with_frame,
    capture_views,
    checked_camera,
    mask_of,
    parse_json,
    read_bytes,
    read_picture_file,
    rgb_of,
    shortened,
)
from .capture_placement import mean_camera_axes, optical_axes_meet, placement_from_axes
from .color_correction import ColorMap, affine_corrected, polynomial_corrected

_SENSOR_SIZE_PX = (2200, 3208)
"""Width and height of the pictures that a shared intrinsic matrix refers to."""
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_SIZE_OF_PICTURE = (0, 0)
"""In place of a size that has to be looked up: a matrix refers to pictures as they are."""


@dataclass(frozen=True)
class _Source:
    """Where one camera's picture and matte of the frame are: a picture file, or a video and the frame's number."""

    picture: Path
    matte: Path | None


def read_nersemble(
    path: Path,
    *,
    sequence: str,
    frame: int = 0,
    cameras: Sequence[str] | None = None,
    size_px: int = 512,
    framing: Framing = "head",
    track: Track = silent,
) -> ViewSet:
    """One frame of a NeRSemble sequence as views of a head in our world.

    The capture has neither key points nor a head pose, so the head is placed by the rig: x, y and z are the mean right,
    up and backward directions of all calibrated cameras, made perpendicular (as VHAP's `align_cameras_to_axes` does for
    this data set: the 16 cameras stand symmetrically before the face; the owners' own world likewise has y up and z
    towards the cameras, see `nersemble_dataparser.py`). The middle of the head is where the optical axes of all
    calibrated cameras meet. A head that is turned or off the middle of the rig stays so. Sizes are true to life.

    Args (the others are those of every reader, see `captures`):
        path: a participant's folder, for example `NERSEMBLE/018`.
        sequence: for example `EXP-1-head`.

    Returns:
        Views named as their cameras, with the owners' colour correction where the folder has it; alpha is the owners'
        alpha map, or 255 where there is none. `surface` is empty.

    Raises:
        InputError: a file, camera, sequence or frame that is missing, or damaged pictures, videos or calibration.
    """
    calibration_file = _calibration_file(path)
    calibration_bytes = read_bytes(calibration_file, "the calibration of a participant")
    folder = _sequence_folder(path, sequence)
    sources = _sources(folder, frame)
    calibration = _calibration(parse_json(calibration_bytes, calibration_file), calibration_file)
    names = cameras_with_frame(cameras, calibration, sources, str(calibration_file), str(folder), frame)
    poses = np.stack([camera.T_capture_camera for camera in calibration.values()])
    middle = optical_axes_meet(poses, str(calibration_file))
    right, up, _ = mean_camera_axes(poses[:, :3, :3])
    source = "the rig: mean axes of its cameras; middle where the optical axes meet"
    placed = placement_from_axes(right, up, middle, 1.0, source)
    corrections = _corrections(path, sequence, names)
    settings: dict[str, object] = {
        "actor": path.resolve().name,
        "sequence": sequence,
        "cameras_left_out": sorted(set(calibration) - set(sources)) if cameras is None else [],
        "cameras_without_mask": [name for name in names if sources[name].matte is None],
        "color_corrected": sorted(corrections),
    }

    def read(name: str) -> CapturePicture:
        return _picture(sources[name], frame, corrections.get(name))

    return capture_views(
        CaptureFrame(
            dataset="NeRSemble",
            moment=f"{sequence} frame {frame}",
            calibration=calibration_bytes,
            cameras=[_of_its_picture(calibration[name], sources[name]) for name in names],
            read=read,
            placement=placed,
            keypoints_capture=NO_KEYPOINTS,
            settings=settings,
        ),
        size_px=size_px,
        framing=framing,
        track=track,
    )


def _calibration_file(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; expected a NeRSemble participant's folder such as 018")
    candidates = (path / "calibration" / "camera_params.json", path / "camera_params.json")
    return next((file for file in candidates if file.is_file()), candidates[0])


def _sequence_folder(path: Path, sequence: str) -> Path:
    for folder in (path / "sequences" / sequence, path / sequence):
        if sequence and folder.is_dir():
            return folder
    parent = path / "sequences" if (path / "sequences").is_dir() else path
    have = sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and entry.name != "calibration")
    raise InputError(f"{path} has no sequence {sequence!r}; it has {shortened(have)}")


def _calibration(meta: dict, file: Path) -> dict[str, CaptureCamera]:
    """All calibrated cameras by name; `_SIZE_OF_PICTURE` where a camera has an intrinsic matrix of its own."""
    poses, intrinsics = meta.get("world_2_cam"), meta.get("intrinsics")
    if not isinstance(poses, dict) or not poses or not isinstance(intrinsics, (dict, list)):
        raise InputError(f"{file}: expected `world_2_cam` with a pose per camera and `intrinsics`; download it again")
    shared, cameras = isinstance(intrinsics, list), {}
    for name, pose in poses.items():
        K = intrinsics if isinstance(intrinsics, list) else intrinsics.get(name)
        if K is None:
            raise InputError(f"{file}: `intrinsics` has no camera {name}; download it again")
        stored = checked_camera(name, K, (), pose, _SENSOR_SIZE_PX if shared else _SIZE_OF_PICTURE, str(file))
        cameras[name] = replace(stored, T_capture_camera=np.linalg.inv(stored.T_capture_camera))
    return cameras


def _of_its_picture(camera: CaptureCamera, source: _Source) -> CaptureCamera:
    """The camera with the size that its intrinsic matrix refers to."""
    return replace(camera, size_px=_size_of(source.picture)) if camera.size_px == _SIZE_OF_PICTURE else camera


def _sources(folder: Path, frame: int) -> dict[str, _Source]:
    """Picture and matte of every camera that has the frame.

    Raises:
        InputError: no layout that is known, or no such frame.
    """
    for frames in (folder, folder / "timesteps"):
        moment = frames / f"frame_{frame:05d}"
        if moment.is_dir():
            return _paired(_files_by_camera(moment, "images", None), _files_by_camera(moment, "alpha_map", None))
        have = (
            sorted(int(f.name[6:]) for f in frames.glob("frame_*") if f.name[6:].isdigit()) if frames.is_dir() else []
        )
        if have:
            raise InputError(f"{moment} does not exist; the sequence has the frames {shortened(have)}")
    videos = _files_by_camera(folder, "images", "video")
    if videos:
        return _paired(videos, _files_by_camera(folder, "alpha_map", "video"))
    pictures = _paired(_files_by_camera(folder, "images", frame), _files_by_camera(folder, "alpha_map", frame))
    if not pictures:
        raise InputError(
            f"{folder} has no frame {frame}; expected images/cam_SERIAL.mp4, images/cam_SERIAL_{frame:06d}.jpg or "
            f"frame_{frame:05d}/images/cam_SERIAL.png"
        )
    return pictures


def _files_by_camera(folder: Path, prefix: str, kind: int | str | None) -> dict[str, Path]:
    """Files of the first folder whose name starts with `prefix` (`images`, `images-2x-73fps`, ...), by camera.

    Args:
        kind: None for `cam_SERIAL.png`, "video" for `cam_SERIAL.mp4`, a number for `cam_SERIAL_NUMBER.png`.
    """
    for directory in sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name.startswith(prefix)):
        found: dict[str, Path] = {}
        for file in sorted(directory.glob("cam_*")):
            words = file.stem.removeprefix("cam_").split("_")
            video, picture = file.suffix.lower() == ".mp4", file.suffix.lower() in _PICTURE_SUFFIXES
            numbered = len(words) == 2 and words[1].isdigit()
            if (
                (kind is None and picture and len(words) == 1)
                or (kind == "video" and video and len(words) == 1)
                or (isinstance(kind, int) and picture and numbered and int(words[1]) == kind)
            ):
                found[words[0]] = file
        if found:
            return found
    return {}


def _paired(pictures: dict[str, Path], mattes: dict[str, Path]) -> dict[str, _Source]:
    return {name: _Source(file, mattes.get(name)) for name, file in pictures.items()}


def _corrections(path: Path, sequence: str, names: list[str]) -> dict[str, ColorMap]:
    """The owners' colour correction of each camera that has one."""
    shared = path / "calibration" / "color_calibration.json"
    if shared.is_file():
        table = parse_json(read_bytes(shared, "the colour calibration"), shared)
        return {n: polynomial_corrected(table[n], f"{shared}: camera {n}") for n in names if n in table}
    folder = path / "annotations" / sequence / "color_correction"
    return {n: affine_corrected(folder / f"{n}.npy") for n in names if (folder / f"{n}.npy").is_file()}


def _picture(
    source: _Source,
    frame: int,
    corrected: ColorMap | None,
) -> CapturePicture:
    if source.picture.suffix.lower() == ".mp4":
        rgb = _video_frame(source.picture, frame)
        mask = None if source.matte is None else _video_frame(source.matte, frame)[..., 0]
        return CapturePicture(rgb, mask, f"{source.picture} frame {frame}", corrected)
    mask = None if source.matte is None else mask_of(read_picture_file(source.matte))
    return CapturePicture(rgb_of(read_picture_file(source.picture)), mask, str(source.picture), corrected)


def _size_of(file: Path) -> tuple[int, int]:
    """Width and height of a picture or of a video's frames."""
    if file.suffix.lower() == ".mp4":
        import cv2

        with _opened_video(file) as video:
            return int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
    return read_picture_file(file, header_only=True).size


@contextlib.contextmanager
def _opened_video(file: Path) -> Iterator[Any]:
    """An open video.

    Raises:
        InputError: missing, or not a video.
    """
    import cv2

    if not file.is_file():
        raise InputError(f"{file} does not exist; expected a video")
    video = cv2.VideoCapture(str(file))
    try:
        if not video.isOpened() or video.get(cv2.CAP_PROP_FRAME_COUNT) < 1:
            raise InputError(f"{file} is not a video that can be read; download it again")
        yield video
    finally:
        video.release()


def _video_frame(file: Path, frame: int) -> UInt8[np.ndarray, "h w 3"]:
    """One frame of a video, found and decoded with OpenCV as in the owners' `VideoFrameLoader`.

    Raises:
        InputError: not a video, damaged, or fewer frames.
    """
    import cv2

    with _opened_video(file) as video:
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        if not 0 <= frame < count:
            raise InputError(f"{file} has the frames 0 to {count - 1}, not {frame}")
        video.set(cv2.CAP_PROP_POS_FRAMES, frame)
        done, bgr = video.read()
    if not done:
        raise InputError(f"{file}: frame {frame} cannot be decoded; download the video again")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

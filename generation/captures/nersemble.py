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

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ..errors import InputError
from ..progress import Track, silent
from ..views import ViewSet
from . import capture
from .capture import CaptureCamera, CaptureFrame, CapturePicture, ColorMap, Framing
from .capture_placement import mean_camera_axes, placement_from_rig

_SENSOR_SIZE_PX = (2200, 3208)
"""Width and height of the pictures that a shared intrinsic matrix refers to."""
_PICTURE = r"\.(png|jpe?g|webp)"
"""Endings of picture files."""
_QUADRATIC = ("r", "g", "b", "rg", "rb", "gb", "rr", "gg", "bb", "rgb")
_CUBES = ("rrr", "ggg", "bbb")
_MIXED = ("rrg", "ggb", "bbr")
_MIXED_BACK = ("rrb", "ggr", "bbg")
_TERMS: dict[int, tuple[str, ...]] = {
    3: ("r", "g", "b"),
    4: ("r", "g", "b", ""),
    5: ("r", "g", "b", "rgb", ""),
    7: ("r", "g", "b", "rg", "rb", "gb", ""),
    8: ("r", "g", "b", "rg", "rb", "gb", "rgb", ""),
    10: (*_QUADRATIC[:9], ""),
    11: (*_QUADRATIC, ""),
    14: (*_QUADRATIC, *_CUBES, ""),
    16: (*_QUADRATIC, *_MIXED, *_CUBES),
    17: (*_QUADRATIC, *_MIXED, *_CUBES, ""),
    19: (*_QUADRATIC, *_MIXED, *_MIXED_BACK, *_CUBES),
    20: (*_QUADRATIC, *_MIXED, *_MIXED_BACK, *_CUBES, ""),
    22: (*_QUADRATIC, *_MIXED, *_MIXED_BACK, *_CUBES, "rrgb", "rggb", "rgbb"),
}
"""Monomials by their number; the empty one is the constant."""
_Sources = dict[str, tuple[Path, Path | None]]
"""Each camera's picture and matte of the frame: picture files, or videos."""


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
    meta, calibration_bytes = capture.read_json(calibration_file, "the calibration of a participant")
    folder = _sequence_folder(path, sequence)
    sources = _sources(folder, frame)
    calibration = _calibration(meta, calibration_file)
    names, left_out = capture.cameras_with_frame(
        cameras, calibration, sources.__contains__, calibration_file, folder, frame
    )
    poses = np.stack([camera.T_capture_camera for camera in calibration.values()])
    rests_on = "the rig: mean axes of its cameras; middle where the optical axes meet"
    right, up = mean_camera_axes(poses[:, :3, :3])
    placed = placement_from_rig(right, up, poses, rests_on, str(calibration_file))
    corrections = _corrections(path, sequence, names)
    settings: dict[str, object] = {
        "actor": path.resolve().name,
        "sequence": sequence,
        "cameras_left_out": left_out,
        "cameras_without_mask": [name for name in names if sources[name][1] is None],
        "color_corrected": sorted(corrections),
    }

    def read(name: str) -> CapturePicture:
        picture, matte = sources[name]
        mask = None
        if matte is not None:
            image = _image(matte, frame)
            mask = capture.mask_of(image.getchannel(0) if _is_video(matte) else image)
        where = f"{picture} frame {frame}" if _is_video(picture) else str(picture)
        rgb = np.array(_image(picture, frame).convert("RGB"))
        return CapturePicture(rgb, mask, where, corrections.get(name))

    chosen = [calibration[name] for name in names]
    moment = f"{sequence} frame {frame}"
    taken = CaptureFrame("NeRSemble", moment, calibration_bytes, chosen, read, placed, capture.NO_KEYPOINTS, settings)
    return capture.capture_views(taken, size_px, framing, track)


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
    raise InputError(f"{path} has no sequence {sequence!r}; it has {capture.shortened(have)}")


def _calibration(meta: dict, file: Path) -> dict[str, CaptureCamera]:
    """All calibrated cameras by name; without a size where each has an intrinsic matrix of its own."""
    poses, intrinsics = meta.get("world_2_cam"), meta.get("intrinsics")
    if not isinstance(poses, dict) or not poses or not isinstance(intrinsics, (dict, list)):
        raise InputError(f"{file}: expected `world_2_cam` with a pose per camera and `intrinsics`; download it again")
    cameras = {}
    for name, pose in poses.items():
        K = intrinsics if isinstance(intrinsics, list) else intrinsics.get(name)
        if K is None:
            raise InputError(f"{file}: `intrinsics` has no camera {name}; download it again")
        size = _SENSOR_SIZE_PX if intrinsics is K else None
        cameras[name] = capture.checked_camera(name, K, (), pose, size, str(file), to_camera=True)
    return cameras


def _sources(folder: Path, frame: int) -> _Sources:
    """Picture and matte of every camera that has the frame.

    Raises:
        InputError: no layout that is known, or no such frame.
    """
    for frames in (folder, folder / "timesteps"):
        moment = frames / f"frame_{frame:05d}"
        if moment.is_dir():
            return _paired(moment, _PICTURE)
        have = sorted(int(f.name[6:]) for f in frames.glob("frame_*") if f.name[6:].isdigit())
        if have:
            raise InputError(f"{moment} does not exist; the sequence has the frames {capture.shortened(have)}")
    found = _paired(folder, r"\.mp4") or _paired(folder, f"_0*{frame}{_PICTURE}")
    if not found:
        raise InputError(
            f"{folder} has no frame {frame}; expected images/cam_SERIAL.mp4, images/cam_SERIAL_{frame:06d}.jpg or "
            f"frame_{frame:05d}/images/cam_SERIAL.png"
        )
    return found


def _paired(folder: Path, ending: str) -> _Sources:
    """Pictures and mattes `cam_SERIAL` with an ending (regular expression), by camera.

    They are those of the first folder whose name starts so and that has any (`images`, `images-2x-73fps`, ...).
    """
    by_prefix: list[dict[str, Path]] = []
    for prefix in ("images", "alpha_map"):
        folders = sorted(entry for entry in folder.glob(f"{prefix}*") if entry.is_dir())
        named = [{file: re.fullmatch(f"cam_([^_]+){ending}", file.name, re.I) for file in f.iterdir()} for f in folders]
        by_camera = [{match[1]: file for file, match in sorted(files.items()) if match} for files in named]
        by_prefix.append(next(filter(None, by_camera), {}))
    pictures, mattes = by_prefix
    return {name: (file, mattes.get(name)) for name, file in pictures.items()}


def _corrections(path: Path, sequence: str, names: list[str]) -> dict[str, ColorMap]:
    """The owners' colour correction of each camera that has one."""
    shared = path / "calibration" / "color_calibration.json"
    if shared.is_file():
        table, _ = capture.read_json(shared, "the colour calibration")
        return {n: polynomial_corrected(table[n], f"{shared}: camera {n}") for n in names if n in table}
    folder = path / "annotations" / sequence / "color_correction"
    return {n: affine_corrected(folder / f"{n}.npy") for n in names if (folder / f"{n}.npy").is_file()}


def _is_video(file: Path) -> bool:
    return file.suffix.lower() == ".mp4"


def _image(file: Path, frame: int) -> Image.Image:
    """A picture file, or one frame of a video."""
    if _is_video(file):
        return Image.fromarray(_video_frame(file, frame))
    return capture.decode_picture(capture.read_bytes(file, "a picture"), str(file))


def _video_frame(file: Path, frame: int) -> UInt8[np.ndarray, "h w 3"]:
    """One frame of a video, found and decoded with OpenCV as in the owners' `VideoFrameLoader`.

    Raises:
        InputError: missing, not a video, damaged, or fewer frames.
    """
    import cv2

    if not file.is_file():
        raise InputError(f"{file} does not exist; expected a video")
    video = cv2.VideoCapture(str(file))
    try:
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        if count < 1:
            raise InputError(f"{file} is not a video that can be read; download it again")
        if not 0 <= frame < count:
            raise InputError(f"{file} has the frames 0 to {count - 1}, not {frame}")
        video.set(cv2.CAP_PROP_POS_FRAMES, frame)
        done, bgr = video.read()
    finally:
        video.release()
    if not done:
        raise InputError(f"{file}: frame {frame} cannot be decoded; download the video again")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def polynomial_corrected(matrix: object, where: str) -> ColorMap:
    """Correction by a matrix that multiplies monomials of linear RGB.

    Args:
        matrix: 3 x k numbers, k one of the keys of `_TERMS`.
        where: file and camera, for messages.

    Raises:
        InputError: another shape, or numbers that are not finite.

    Source: Cheung et al. 2004, "A comparative study of the characterisation of colour cameras by means of neural
    networks and polynomial transforms", with the order of terms of https://colour.readthedocs.io
    (`matrix_augmented_Cheung2004`), which NeRSemble's owners use (nersemble-data `util/color_correction.py`).
    """
    M = capture.finite_numbers(matrix, f"{where}: the colour correction")
    if M.ndim != 2 or len(M) != 3 or M.shape[1] not in _TERMS:
        raise InputError(f"{where}: expected a colour matrix of 3 rows and {sorted(_TERMS)} columns, got {M.shape}")
    terms = _TERMS[M.shape[1]]

    def corrected(rgb: UInt8[np.ndarray, "a b 3"]) -> UInt8[np.ndarray, "a b 3"]:
        srgb = rgb / 255.0
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
        channels = dict(zip("rgb", np.moveaxis(linear, -1, 0), strict=True))
        result = np.zeros_like(linear)
        for column, term in enumerate(terms):
            monomial = np.ones(linear.shape[:2])
            for channel in term:
                monomial = monomial * channels[channel]
            result += monomial[..., None] * M[:, column]
        result = np.clip(result, 0.0, 1.0)
        return _to_8_bits(np.where(result <= 0.0031308, 12.92 * result, 1.055 * result ** (1 / 2.4) - 0.055))

    return corrected


def affine_corrected(file: Path) -> ColorMap:
    """Correction by a stored matrix A: sRGB values in [0, 1] become `rgb @ A[:3, :3] + A[:3, 3]`.

    Args:
        file: a `.npy` with at least 3 rows and 4 columns.

    Raises:
        InputError: missing, damaged, or of another shape.

    Source: tobias-kirschstein/nersemble `nerfstudio/dataset/nersemble_dataset.py`.
    """
    try:
        stored = np.load(io.BytesIO(capture.read_bytes(file, "a colour correction")), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{file} is not a numpy array ({error}); download it again") from error
    A = capture.finite_numbers(stored, f"{file}: the colour correction")
    if A.ndim != 2 or len(A) < 3 or A.shape[1] != 4:
        raise InputError(f"{file}: expected a colour correction of 3 or 4 rows and 4 columns, got {A.shape}")

    def corrected(rgb: UInt8[np.ndarray, "a b 3"]) -> UInt8[np.ndarray, "a b 3"]:
        return _to_8_bits((rgb / 255.0) @ A[:3, :3] + A[:3, 3])

    return corrected


def _to_8_bits(rgb_unit: Float[np.ndarray, "a b 3"]) -> UInt8[np.ndarray, "a b 3"]:
    return np.round(np.clip(rgb_unit, 0.0, 1.0) * 255).astype(np.uint8)

"""What all captures have in common: files with clear errors, calibrated cameras, and pictures cut to one pinhole size.

Calibrations count pixels as OpenCV does, with the centre of the first pixel at 0; our cameras have it at 0.5. The
half pixel is added here and nowhere else.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_never

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError, features

from ..cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS, Cameras
from ..errors import InputError
from ..progress import Track
from ..views import PointCloud, Provenance, ViewSet
from .capture_placement import HeadPlacement

Framing = Literal["head", "full"]
"""`head`: each picture is cut to the square that our generated views show; `full`: all of it fits the square."""

HEAD_HALF_EXTENT = 0.5 * PANOHEAD_RADIUS / PANOHEAD_FOCAL_NORMALISED
"""Half of what a generated view shows at the middle of the head, world units (0.192 m)."""
MAX_PICTURE_PIXELS = 64_000_000
"""Largest picture that is decoded; the sensors of the three rigs have 5 to 11 million pixels."""
MAX_FILE_BYTES = 256 << 20
"""Largest file that is read, bytes; an encoded picture has up to 20 million."""
_PICTURE_FORMATS = ("JPEG", "PNG", "AVIF", "WEBP", "TIFF", "BMP")
_MOST_SAMPLES_PER_SIDE = 8
_RIGID_TOLERANCE = 1e-3


ColorMap = Callable[[UInt8[np.ndarray, "a b 3"]], UInt8[np.ndarray, "a b 3"]]
"""A colour correction, from 8-bit sRGB to 8-bit sRGB."""


@dataclass(frozen=True)
class CaptureCamera:
    """One calibrated camera in the world of its capture."""

    name: str
    """Name in the capture; becomes the name of the view."""
    K_px: Float[np.ndarray, "3 3"]
    """Intrinsic matrix, pixels of the calibrated size, OpenCV's count (first pixel centre at 0)."""
    distortion: Float[np.ndarray, " d"]
    """OpenCV's coefficients k1, k2, p1, p2[, k3, ...]; empty for a lens without distortion."""
    T_capture_camera: Float[np.ndarray, "4 4"]
    """To the capture's world from the camera (OpenCV axes), rigid, capture's unit."""
    size_px: tuple[int, int] | None
    """Width and height that `K_px` refers to; None: those of the pictures as they are."""


@dataclass(frozen=True)
class CapturePicture:
    """What one camera saw, as stored: distorted, background and all."""

    rgb: UInt8[np.ndarray, "h w 3"]
    """Colour."""
    mask: UInt8[np.ndarray, "mask_h mask_w"] | None
    """Opacity of the person, 0 to 255, of the same proportions; None where the capture has none."""
    where: str
    """File and entry, for messages."""
    corrected: ColorMap | None = None
    """Colour correction of this camera, applied to the finished picture."""


def finite_numbers(value: object, what: str) -> Float[np.ndarray, "*shape"]:
    """Untrusted numbers as an array.

    Raises:
        InputError: no array of numbers, or some are not finite; `what` names file and purpose.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} is not an array of numbers") from error
    if not np.isfinite(array).all():
        raise InputError(f"{what} holds numbers that are not finite; the file is damaged")
    return array


def checked_camera(
    name: str,
    K_px: object,
    distortion: object,
    T_capture_camera: object,
    size_px: tuple[int, int] | None,
    where: str,
    *,
    by_columns: bool = False,
    to_camera: bool = False,
) -> CaptureCamera:
    """A camera out of untrusted numbers.

    Args:
        name, K_px, distortion, T_capture_camera, size_px: as the fields of `CaptureCamera`.
        where: file of the numbers, for messages.
        by_columns: matrices are stored transposed.
        to_camera: poses are stored the other way round, to the camera from the capture.

    Raises:
        InputError: a wrong shape, numbers that are not finite, an impossible focal length, skew, or a pose that is not
            a rotation and a translation.
    """
    K = finite_numbers(K_px, f"{where}: the intrinsic matrix of camera {name}")
    T = finite_numbers(T_capture_camera, f"{where}: the pose of camera {name}")
    if by_columns:
        K, T = K.T, T.T
    D = finite_numbers(distortion, f"{where}: the distortion of camera {name}").reshape(-1)
    if K.shape != (3, 3) or T.shape not in ((3, 4), (4, 4)) or len(D) not in (0, 4, 5, 8, 12, 14):
        raise InputError(
            f"{where}: camera {name} has arrays of shape {K.shape}, {T.shape} and {D.shape}; expected a 3x3 intrinsic "
            "matrix, a 4x4 pose and 4 or 5 distortion coefficients"
        )
    upper = K[1, 0] == K[2, 0] == K[2, 1] == 0 and K[2, 2] == 1
    if not upper or min(K[0, 0], K[1, 1]) <= 0 or abs(K[0, 1]) > 1e-3 * K[0, 0]:
        raise InputError(
            f"{where}: the intrinsic matrix of camera {name} is not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with "
            f"positive focal lengths: {K.tolist()}"
        )
    R = T[:3, :3]
    affine = len(T) == 3 or np.abs(T[3] - (0, 0, 0, 1)).max() <= _RIGID_TOLERANCE
    if not affine or np.abs(R @ R.T - np.eye(3)).max() > _RIGID_TOLERANCE or np.linalg.det(R) < 0:
        raise InputError(f"{where}: the pose of camera {name} is not a rotation and a translation; the file is damaged")
    U, _, Vt = np.linalg.svd(R)
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = U @ Vt, T[:3, 3]
    return CaptureCamera(name, K, D, np.linalg.inv(rigid) if to_camera else rigid, size_px)


def cameras_with_frame(
    asked: Sequence[str] | None, calibrated: Iterable[str], has_frame: Callable[[str], bool], calibration: Path,
    pictures: Path, frame: int,
) -> tuple[list[str], list[str]]:  # fmt: skip
    """The cameras to read: those asked for in that order, or all that have a calibration and the frame, by name.

    Args:
        asked: names, or None.
        calibrated: cameras with a calibration.
        has_frame: whether a camera has a picture of the frame.
        calibration, pictures: what messages call the two.

    Returns:
        Their names, and those of calibrated cameras that were left out because they lack the frame.

    Raises:
        InputError: a camera that was asked for twice, is not calibrated or lacks the frame, or no camera has it.
    """
    known = sorted(calibrated)
    wanted = known if asked is None else list(asked)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"{calibration} has no camera {', '.join(unknown)}; it has {shortened(known)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(f"Expected a list of different cameras, got {wanted}; {calibration} has {shortened(known)}")
    names = [name for name in wanted if has_frame(name)]
    absent = [name for name in wanted if name not in names]
    if not names or (absent and asked is not None):
        raise InputError(
            f"{pictures} has no picture of camera {shortened(absent)} in frame {frame}; "
            f"cameras with that frame: {shortened([name for name in known if has_frame(name)])}"
        )
    return names, absent


def shortened(names: Sequence[object], most: int = 20) -> str:
    """A list for a message, cut where it gets long."""
    text = ", ".join(str(name) for name in names[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text or "none"


def read_bytes(path: Path, what: str) -> bytes:
    """A whole file.

    Raises:
        InputError: missing, unreadable or larger than plausible; `what` says what the file is.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected {what}")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MB; expected {what}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); copy it to a local disk") from error


def read_json(path: Path, what: str) -> tuple[dict[str, Any], bytes]:
    """A JSON object and the bytes it was read from.

    Raises:
        InputError: as `read_bytes`, not JSON, or not an object.
    """
    data = read_bytes(path, what)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(value).__name__}; download it again")
    return value, data


def decode_picture(data: bytes, where: str) -> Image.Image:
    """A decoded picture.

    Raises:
        InputError: not a picture, damaged, too large, or a format that this Pillow cannot read.
    """
    if data[4:12] in (b"ftypavif", b"ftypavis") and not features.check("avif"):
        raise InputError(f"{where} is an AVIF picture; install Pillow 11.3 or newer (`pip install -U pillow`)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_PICTURE_FORMATS)
            if image.width * image.height > MAX_PICTURE_PIXELS:
                raise InputError(f"{where} declares {image.width}x{image.height} pixels, more than any rig records")
            image.load()
            return image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{where} is not a picture; copy or download it again") from error
    except Exception as error:  # decoders fail in their own ways on damaged files
        raise InputError(f"{where} is damaged or cut off ({error}); copy or download it again") from error


def mask_of(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """A decoded matte: one channel, or the largest of several."""
    values = np.array(image if image.mode in ("L", "RGB") else image.convert("L"))
    return values if values.ndim == 2 else values.max(2)


NO_KEYPOINTS = np.zeros((0, 3))


@dataclass(frozen=True)
class CaptureFrame:
    """One moment of a capture: all that a reader has found out before any picture is decoded."""

    dataset: str
    """Name of the data set."""
    moment: str
    """Sequence and number of the frame."""
    calibration: bytes
    """What the cameras were read from."""
    cameras: Sequence[CaptureCamera]
    """The cameras to read, in order."""
    read: Callable[[str], CapturePicture]
    """Gives the picture of a camera by name; called once for each."""
    placement: HeadPlacement
    """To our world from the capture's."""
    keypoints_capture: Float[np.ndarray, "k 3"]
    """Key points of the face in the capture's world, `NO_KEYPOINTS` if it has none; not finite rows are left out."""
    settings: dict[str, object]
    """What else is worth knowing, as plain JSON data."""


def capture_views(frame: CaptureFrame, size_px: int, framing: Framing, track: Track) -> ViewSet:
    """Read, undistort, cut and place the pictures of a frame, one picture in memory at a time.

    The views' surface is the key points: normals away from the middle of the head, grey. Their provenance names the
    photographs by calibration and moment rather than by terabytes.

    Args:
        frame: the cameras, their pictures, and where the head is.
        framing: how the square is laid over each picture.

    Raises:
        InputError: a picture whose proportions are not the calibrated ones, or a head that is behind a camera.
    """
    if size_px < 1:
        raise InputError(f"Expected pictures of at least 1 pixel, got size_px={size_px}")
    cameras = frame.cameras
    T_world_camera = frame.placement.moved_poses(np.stack([camera.T_capture_camera for camera in cameras]))
    pictures, focal, principal = [], [], []
    steps = zip(cameras, T_world_camera, strict=True)
    for camera, T in track(steps, total=len(cameras), description="Reading the capture"):
        rgba, window = _rgba_in_window(frame.read(camera.name), camera, T, size_px, framing)
        pictures.append(torch.from_numpy(rgba))
        focal.append(window[:2])
        principal.append(window[2:])
    finite = frame.keypoints_capture[np.isfinite(frame.keypoints_capture).all(1)].astype(np.float64)
    points = torch.from_numpy(frame.placement(finite)).float().reshape(-1, 3)
    return ViewSet(
        rgba=torch.stack(pictures),
        cameras=Cameras(
            torch.from_numpy(T_world_camera),
            torch.tensor(focal, dtype=torch.float64),
            torch.tensor(principal, dtype=torch.float64),
            size_px,
            size_px,
        ),
        confidence=torch.ones(len(pictures)),
        names=tuple(camera.name for camera in cameras),
        surface=PointCloud(points, torch.nn.functional.normalize(points, dim=-1), torch.full_like(points, 0.5)),
        provenance=Provenance(
            generator="capture",
            weights="none",
            seed=0,
            input_sha256=hashlib.sha256(frame.calibration + b"\0" + frame.moment.encode()).hexdigest(),
            statement=f"Photographs of a real person from {frame.dataset} (research use only); not AI-generated",
            settings={
                "dataset": frame.dataset,
                "frame": frame.moment,
                **frame.settings,
                "cameras": [camera.name for camera in cameras],
                "framing": framing,
                "placement": frame.placement.as_json(),
            },
        ),
    )


def _rgba_in_window(
    picture: CapturePicture,
    camera: CaptureCamera,
    T_world_camera: Float[np.ndarray, "4 4"],
    size_px: int,
    framing: Framing,
) -> tuple[UInt8[np.ndarray, "s s 4"], tuple[float, float, float, float]]:
    """Straight colour and alpha as a pinhole camera sees them, and its fx, fy, cx, cy (pixel centres at +0.5).

    One resampling takes away the distortion, cuts and scales; pictures that shrink are sampled several times per pixel
    and averaged. What the camera did not see has alpha 0.
    """
    import cv2

    height, width = picture.rgb.shape[:2]
    K_px = _scaled_to(camera, width, height, picture.where)
    fx, fy, cx, cy = _window(K_px, (width, height), T_world_camera, size_px, framing, camera.name)
    samples = min(max(math.ceil(K_px[0, 0] / fx), 1), _MOST_SAMPLES_PER_SIDE)
    fine = np.array([[fx * samples, 0, cx * samples - 0.5], [0, fy * samples, cy * samples - 0.5], [0, 0, 1]])
    side = size_px * samples
    distortion = camera.distortion if len(camera.distortion) else np.zeros(5)
    u, v = cv2.initUndistortRectifyMap(K_px, distortion, np.eye(3), fine, (side, side), cv2.CV_32FC1)
    seen = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    alpha = np.where(seen, np.uint8(255), np.uint8(0))
    if picture.mask is not None:
        mask = picture.mask
        if abs(mask.shape[0] * width - mask.shape[1] * height) > max(width, height):
            raise InputError(
                f"{picture.where}: the mask has {mask.shape[1]}x{mask.shape[0]} pixels, the picture {width}x{height}; "
                "expected the same proportions"
            )
        if mask.shape != (height, width):
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        alpha = np.where(seen, cv2.remap(mask, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8(0))
    rgb = cv2.remap(picture.rgb, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if samples > 1:
        rgb, alpha = (cv2.resize(a, (size_px, size_px), interpolation=cv2.INTER_AREA) for a in (rgb, alpha))
    if picture.corrected is not None:
        rgb = picture.corrected(rgb)
    return np.dstack([rgb, alpha]), (fx, fy, cx, cy)


def _scaled_to(camera: CaptureCamera, width: int, height: int, where: str) -> Float[np.ndarray, "3 3"]:
    """The intrinsic matrix for a picture of another resolution than the calibrated one."""
    calibrated_width, calibrated_height = camera.size_px or (width, height)
    if abs(width * calibrated_height - height * calibrated_width) > 2 * max(calibrated_width, calibrated_height):
        raise InputError(
            f"{where} has {width}x{height} pixels, camera {camera.name} is calibrated for "
            f"{calibrated_width}x{calibrated_height}; expected the same proportions (an uncut picture)"
        )
    scale = np.array([width / calibrated_width, height / calibrated_height])
    K_px = camera.K_px.copy()
    K_px[[0, 1], [0, 1]] *= scale
    K_px[:2, 2] = (K_px[:2, 2] + 0.5) * scale - 0.5
    return K_px


def _window(
    K_px: Float[np.ndarray, "3 3"],
    picture_size: tuple[int, int],
    T_world_camera: Float[np.ndarray, "4 4"],
    size_px: int,
    framing: Framing,
    name: str,
) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of the square, pixel centres at +0.5."""
    principal = K_px[:2, 2] + 0.5
    match framing:
        case "full":
            scale = size_px / max(picture_size)
            corner = 0.5 * (np.array(picture_size) - size_px / scale)
        case "head":
            middle = -T_world_camera[:3, :3].T @ T_world_camera[:3, 3]  # the world's origin, camera frame
            if middle[2] <= 0:
                raise InputError(
                    f"The head is behind camera {name}; the calibration and the place of the head do not fit together"
                )
            side = 2 * HEAD_HALF_EXTENT * math.sqrt(K_px[0, 0] * K_px[1, 1]) / middle[2]
            scale = size_px / side
            corner = K_px[[0, 1], [0, 1]] * middle[:2] / middle[2] + principal - 0.5 * side
        case _:
            assert_never(framing)
    cx, cy = (principal - corner) * scale
    return float(K_px[0, 0] * scale), float(K_px[1, 1] * scale), float(cx), float(cy)

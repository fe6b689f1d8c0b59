"""`prepare_portrait`: one picture file to an aligned crop with a matte and a fitted head.

The crop is a square of the upright picture; it is moved and scaled, never rotated, so that the fitted camera has
PanoHead's focal length (4.2647 of the width) and its principal point in the middle. A tilted head shows up as the
fitted camera's roll. The wide crop shows 1.35 times as much to every side and has a shorter focal length accordingly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from ..cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS, UNITS_PER_CM
from ..head_model import HeadFit, HeadModel, fit_landmarks, fit_sparse_points, load_head_model
from ..head_model.anatomy import CROWN_TO_CHIN_CM
from ..progress import Track, silent
from .face_detection import (
    DetectedFace,
    DetectionConfig,
    FaceNetworks,
    choose_face,
    find_faces,
    steady_landmarks,
    upright_quarter_turns,
)
from .faceless_placement import place_head_by_matte
from .image_io import ImageLimits, LoadedImage, load_image
from .landmark_network import FACE_LANDMARKS, NetworkFaceConfig, find_face
from .matte import (
    MatteConfig,
    PersonNetworks,
    contradicts_head,
    estimate_matte,
    flat_background,
    head_zones,
    people_elsewhere,
    person_maps,
    seen_by_networks,
)
from .resample import inside_mask, square_crop

WIDE_FACTOR = 1.35
"""Side of the wide crop in units of the standard one."""
_MOST_DRIFT = 0.05
"""Landmarks found in the crop may differ from those of the whole picture by this much of the face's size."""
_MOST_CUT_CM = 2.0
"""The standard frame may run through this much hair or hat."""
_FRAME_ABOVE_CHIN_CM = 3.0
"""What the frame cuts below this height over the chin is shoulders."""
_COARSE_PX = 256
"""Side of the crop in which the extent of hair and hat is judged."""


@dataclass(frozen=True)
class PortraitConfig:
    """How a portrait is read and cropped."""

    size_px: int = 512
    """Side of the square crop, pixels."""
    crop: Literal["auto", "standard", "wide"] = "auto"
    """`standard` is PanoHead's frame; `wide` has room for long hair and hats; `auto` takes `wide` where the standard
    frame would cut hair or hat off."""
    face_index: int | None = None
    """Which face of several, 0 being the largest; None takes the largest with a notice."""
    no_face: bool = False
    """Do not look for a face: place an average head by the outline of the person alone."""
    limits: ImageLimits = field(default_factory=ImageLimits)
    """Accepted picture sizes."""
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    """Face detection."""
    network_face: NetworkFaceConfig = field(default_factory=NetworkFaceConfig)
    """What counts as a face where mediapipe sees none and the package's own networks are asked."""
    matte: MatteConfig = field(default_factory=MatteConfig)
    """Matting."""
    small_head_px: float = 80.0
    """A head that is lower than this in the source picture brings a notice."""


@dataclass(frozen=True)
class Portrait:
    """One person's aligned picture: what every generator starts from."""

    rgb: UInt8[np.ndarray, "s s 3"]
    """The crop with its background, sRGB; a transparent file is shown over white."""
    alpha_unit: Float32[np.ndarray, "s s"]
    """Opacity of the person in [0, 1]; zero outside the source picture."""
    foreground_unit: Float32[np.ndarray, "s s 3"]
    """Colour of the person without the background's share, [0, 1]; also valid just beyond the edge."""
    inside: Bool[np.ndarray, "s s"]
    """Pixels that lie within the source picture; the others repeat its edge and say nothing."""
    landmarks_px: Float[np.ndarray, "478 3"] | None
    """Face landmarks in pixels of the crop (z in the same scale, smaller is nearer); None with `no_face`, and
    where mediapipe sees no face and the head was placed by the landmark networks."""
    head: HeadFit
    """The fitted head, and the camera of this crop."""
    crop: Literal["standard", "wide"]
    """Which frame was taken."""
    source_name: str
    """File name of the picture."""
    source_sha256: str
    """SHA-256 of the file's bytes, hexadecimal."""
    notices: tuple[str, ...]
    """Sentences that people should see."""
    weights: tuple[str, ...] = ()
    """Names and hashes of those of the package's own networks that placed the head."""

    @property
    def size_px(self) -> int:
        """Side of the crop, pixels."""
        return self.rgb.shape[0]


def prepare_portrait(path: Path, config: PortraitConfig | None = None, *, track: Track = silent) -> Portrait:
    """Read a picture, find the head, crop and align it, and cut it out.

    Args:
        path: any picture file.
        config: how; None takes `PortraitConfig()`.
        track: progress display.

    Raises:
        InputError: the file cannot be used, no face was found, or nothing in it looks like a head.
    """
    config = config or PortraitConfig()
    steps = iter(track(range(4), total=4.0, description="Preparing the portrait"))
    next(steps)
    loaded = load_image(path, config.limits)
    model = load_head_model()
    with PersonNetworks() as people, FaceNetworks(config.detection) as networks:
        next(steps)
        found = _locate(loaded, model, config, networks, people)
        next(steps)
        frame, crop = _choose_frame(found, model, config, people)
        frame, head, landmarks = _align(found, frame, crop, model, config, networks)
        next(steps)
        maps = person_maps(
            found.rgb, frame.center_px, frame.side_px, config.size_px, found.window_sides(config), people
        )
    crop_rgb = square_crop(found.rgb, frame.center_px, frame.side_px, config.size_px, sharp=True)
    inside = inside_mask(found.rgb.shape[0], found.rgb.shape[1], frame.center_px, frame.side_px, config.size_px)
    file_alpha = (
        None
        if found.file_alpha is None
        else square_crop(found.file_alpha, frame.center_px, frame.side_px, config.size_px, sharp=True)
    )
    matte = estimate_matte(
        crop_rgb,
        inside,
        head_zones(head, model, config.matte),
        maps,
        config.matte,
        file_alpha=file_alpha,
        elsewhere=_pixels_of_others(found, frame, config),
    )
    for _ in steps:
        pass
    return Portrait(
        crop_rgb,
        matte.alpha_unit,
        matte.foreground_unit,
        inside,
        landmarks,
        head,
        crop,
        loaded.source_name,
        loaded.sha256,
        (*loaded.notices, *found.notices, *matte.notices),
        found.weights,
    )


@dataclass(frozen=True)
class CropFrame:
    """A square of the picture."""

    center_px: tuple[float, float]
    """Middle, pixels of the picture."""
    side_px: float
    """Side, pixels of the picture."""

    @staticmethod
    def of(head: HeadFit, factor: float) -> CropFrame:
        """The standard frame (times `factor`) round a head, in pixels of the picture the head was fitted in."""
        x, y = head.camera.principal_px[0].tolist()
        return CropFrame((x, y), factor * float(head.camera.focal_px[0, 0]) / PANOHEAD_FOCAL_NORMALISED)

    def to_crop(self, size_px: int) -> tuple[float, tuple[float, float]]:
        """Scale and offset that take pixels of the picture to pixels of the crop: `scale * p + offset`."""
        scale = size_px / self.side_px
        return scale, (size_px / 2 - self.center_px[0] * scale, size_px / 2 - self.center_px[1] * scale)


@dataclass(frozen=True)
class _Found:
    """The head in the upright source picture."""

    rgb: UInt8[np.ndarray, "h w 3"]
    file_alpha: UInt8[np.ndarray, "h w"] | None
    head: HeadFit
    face: DetectedFace | None
    others: tuple[DetectedFace, ...]
    notices: tuple[str, ...]
    weights: tuple[str, ...]

    def window_sides(self, config: PortraitConfig) -> tuple[float, ...]:
        """Sides of the windows for segmentation, pixels of the picture."""
        return tuple(size * CropFrame.of(self.head, 1.0).side_px for size in config.matte.window_sizes)


def _locate(
    loaded: LoadedImage, model: HeadModel, config: PortraitConfig, networks: FaceNetworks, people: PersonNetworks
) -> _Found:
    """Turn the picture upright and fit a head to the chosen face, or place one by the outline with `no_face`."""
    rgb, file_alpha, notices = loaded.rgb, loaded.alpha, []
    if file_alpha is not None:
        rgb = _over_white(rgb, file_alpha)
    face, others, weights = None, (), ()
    if config.no_face:
        if file_alpha is None:
            flat = flat_background(rgb, np.ones(rgb.shape[:2], bool), config.matte.flat_background)
            seen = np.where(flat, np.float32(0), seen_by_networks(rgb, people))
        else:
            seen = file_alpha / np.float32(255)
        head = place_head_by_matte(seen, model, loaded.source_name)
    else:
        turns = upright_quarter_turns(rgb, networks)
        if turns:
            rgb = np.ascontiguousarray(np.rot90(rgb, turns))
            file_alpha = None if file_alpha is None else np.ascontiguousarray(np.rot90(file_alpha, turns))
            notices.append("The face lies on its side or upside down; the picture was turned upright.")
        faces = find_faces(rgb, networks)
        by_networks = None if faces else _head_by_networks(rgb, model, config)
        if by_networks is None:
            face, face_notices = choose_face(faces, config.face_index, loaded.source_name)
            notices += face_notices
            others = tuple(f for f in faces if f is not face)
            head = fit_landmarks(model, face.landmarks_px, rgb.shape[1], rgb.shape[0])
        else:
            head, weights = by_networks, (FACE_LANDMARKS.provenance(),)
            notices.append(
                "The face was placed by the network for drawings and profiles; check the alignment of the result."
            )
    head_px = CROWN_TO_CHIN_CM * UNITS_PER_CM * float(head.camera.focal_px[0, 0]) / PANOHEAD_RADIUS
    if head_px < config.small_head_px:
        notices.append(
            f"The head is only {head_px:.0f} pixels high in the picture; a larger picture gives a sharper result."
        )
    return _Found(rgb, file_alpha, head, face, others, tuple(notices), weights)


def _head_by_networks(rgb: UInt8[np.ndarray, "h w 3"], model: HeadModel, config: PortraitConfig) -> HeadFit | None:
    """A head fitted to what the landmark networks see; None where they see nothing."""
    found = find_face(rgb, FACE_LANDMARKS.load(), config.network_face)
    if found is None:
        return None
    return fit_sparse_points(model, found.points_px, found.scales_px, rgb.shape[1], rgb.shape[0])


def _align(
    found: _Found,
    frame: CropFrame,
    crop: Literal["standard", "wide"],
    model: HeadModel,
    config: PortraitConfig,
    networks: FaceNetworks,
) -> tuple[CropFrame, HeadFit, Float[np.ndarray, "478 3"] | None]:
    """Landmarks measured again in the crop, and the crop of the head fitted to both measurements.

    The fit moves with its landmarks, so that the camera of the final crop is the intended one: focal length 4.2647
    (divided by the wide factor) of the width, principal point in the middle.
    """
    size = config.size_px
    landmarks, head = None, found.head
    if found.face is not None:
        again = _landmarks_in_crop(found, found.face, frame, config, networks)
        mean = found.face.landmarks_px if again is None else (found.face.landmarks_px + again) / 2
        head = fit_landmarks(model, mean, found.rgb.shape[1], found.rgb.shape[0])
        frame = CropFrame.of(head, WIDE_FACTOR if crop == "wide" else 1.0)
        landmarks = mean * (size / frame.side_px)
        landmarks[:, :2] += frame.to_crop(size)[1]
    scale, offset = frame.to_crop(size)
    return frame, head.in_picture(scale, offset, size, size), landmarks


def _pixels_of_others(found: _Found, frame: CropFrame, config: PortraitConfig) -> Bool[np.ndarray, "s s"] | None:
    """Pixels of the crop that belong to other people whose faces were found."""
    if found.face is None:
        return None
    scale, offset = frame.to_crop(config.size_px)

    def in_crop(face: DetectedFace) -> tuple[tuple[float, float], float]:
        x, y = (float(face.center_px[k]) * scale + offset[k] for k in (0, 1))
        return (x, y), face.size_px * scale

    return people_elsewhere(config.size_px, *in_crop(found.face), [in_crop(face) for face in found.others])


def _over_white(rgb: UInt8[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A transparent picture over white."""
    opacity = alpha[..., None].astype(np.float32) / 255
    return np.round(rgb * opacity + 255 * (1 - opacity)).astype(np.uint8)


def _landmarks_in_crop(
    found: _Found, face: DetectedFace, frame: CropFrame, config: PortraitConfig, networks: FaceNetworks
) -> Float[np.ndarray, "478 3"] | None:
    """Landmarks found in the crop, in pixels of the picture; None where the mesh loses the face or drifts away."""
    size = config.size_px
    scale, offset = frame.to_crop(size)
    x, y = (float(face.center_px[k]) * scale + offset[k] for k in (0, 1))
    crop = square_crop(found.rgb, frame.center_px, frame.side_px, size, sharp=True)
    again = steady_landmarks(crop, (x, y), face.size_px * scale, networks)
    if again is None:
        return None
    again[:, :2] -= offset
    again /= scale
    drift = float(np.median(np.linalg.norm((again - face.landmarks_px)[:, :2], axis=1)))
    return again if drift < _MOST_DRIFT * face.size_px else None


def _choose_frame(
    found: _Found, model: HeadModel, config: PortraitConfig, people: PersonNetworks
) -> tuple[CropFrame, Literal["standard", "wide"]]:
    """Which frame; `auto` takes the wide one if the person reaches over the standard one's top or sides."""
    standard, wide = CropFrame.of(found.head, 1.0), CropFrame.of(found.head, WIDE_FACTOR)
    match config.crop:
        case "standard":
            return standard, "standard"
        case "wide":
            return wide, "wide"
        case "auto":
            cut_cm = _cut_by_standard_frame_cm(found, wide, model, config, people)
            return (wide, "wide") if cut_cm > _MOST_CUT_CM else (standard, "standard")
        case _:
            assert_never(config.crop)


def _cut_by_standard_frame_cm(
    found: _Found, wide: CropFrame, model: HeadModel, config: PortraitConfig, people: PersonNetworks
) -> float:
    """How much of the standard frame's edge runs through the person at the height of the head, centimetres."""
    size = _COARSE_PX
    scale, offset = wide.to_crop(size)
    zones = head_zones(found.head.in_picture(scale, offset, size, size), model, config.matte)
    inside = inside_mask(found.rgb.shape[0], found.rgb.shape[1], wide.center_px, wide.side_px, size)
    if found.file_alpha is not None:
        maps = [square_crop(found.file_alpha, wide.center_px, wide.side_px, size).astype(np.float32) / 255]
    else:
        maps = person_maps(found.rgb, wide.center_px, wide.side_px, size, found.window_sides(config), people)
    agreeing = [m for m in maps if not contradicts_head(m > 0.5, inside, zones, config.matte)]
    if not agreeing:
        return 0.0
    person = (np.mean(agreeing, axis=0) > 0.5) & inside
    first = round(size * (1 - 1 / WIDE_FACTOR) / 2)
    last = size - 1 - first
    edge = np.zeros((size, size), bool)
    edge[first, first : last + 1] = True
    edge[first : last + 1, (first, last)] = True
    return float((person & edge & (zones.height_cm > _FRAME_ABOVE_CHIN_CM)).sum()) / zones.cm_px

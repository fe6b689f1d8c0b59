"""`prepare_portrait`: one picture file to an aligned crop with a matte and a fitted head, and that as one file.

The crop is a square of the upright picture; it is moved and scaled, never rotated, so that the fitted camera has
PanoHead's focal length (4.2647 of the width) and its principal point in the middle. A tilted head shows up as the
fitted camera's roll. The wide crop shows 1.35 times as much to every side and has a shorter focal length accordingly.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8

from ..cameras import PANOHEAD_RADIUS, UNITS_PER_CM, Cameras
from ..errors import InputError
from ..head_model import HeadFit, HeadModel, fit_landmarks, fit_sparse_points, load_head_model, mean_head_fit
from ..head_model.anatomy import CHIN_LANDMARK, CROWN_TO_CHIN_CM
from ..progress import Track, silent
from ..same_threads import same_threads
from .doubts import doubts_about
from .face_detection import (
    DetectedFace,
    FaceNetworks,
    choose_face,
    find_faces,
    find_hard_faces,
    steady_landmarks,
    upright_quarter_turns,
)
from .given_alpha import enclosed, shown_over_white
from .image_io import LoadedImage, load_image
from .landmark_network import FACE_LANDMARKS, find_face
from .matte import (
    WINDOW_SIZES,
    contradicts_head,
    estimate_matte,
    flat_background,
    head_zones,
    load_solver_beside,
    outline_in_window,
    people_elsewhere,
    person_maps,
    seen_by_networks,
)
from .person_networks import PersonNetworks
from .rembg_network import RembgNetwork
from .resample import CropFrame

WIDE_FACTOR = 1.35
"""Side of the wide crop in units of the standard one."""
_MOST_DRIFT = 0.05
"""Landmarks found in the crop may differ from those of the whole picture by this much of the face's size."""
_MOST_CUT_CM = 2.0
"""The standard frame may run through this much hair or hat."""
_FRAME_ABOVE_CHIN_CM = 3.0
"""What the frame cuts below this height over the chin is shoulders."""
_OUTLINE_WINDOW = 1.8
"""Side of the window that rembg's networks see, in units of the standard frame: more than `WIDE_FACTOR`, so that any
frame lies in it, and still mostly head and shoulders."""
_SMALL_HEAD_PX = 80.0
"""A head that is lower than this in the source picture brings a notice."""
_COARSE_PX = 256
"""Side of the crop in which the extent of hair and hat is judged."""
_HAIR_ON_CROWN = 0.05
"""Hair above the skull, in units of the height from crown to chin."""
_HEAD_WIDTH_OF_HEIGHT = 0.9
"""Width of head and hair in units of the height from crown to chin."""
_LEAST_HEAD_PX = 24
_LEAST_AREA, _MOST_AREA = 0.02, 0.92
_ARRAYS = ("rgb", "alpha_unit", "foreground_unit", "inside")
_FIT_ARRAYS = ("identity", "expression", "vertices_world", "residual_px")
_CAMERA_ARRAYS = ("T_world_camera", "focal_px", "principal_px")


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
    matte: str = "own"
    """Who outlines the person: `own`, mediapipe's networks with what we add; `rembg` or `rembg:MODEL`, a network of
    rembg's by its name or an .onnx file. Soft edges and colours are ours either way."""


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
    """Names and hashes of those networks, mediapipe's apart, that placed or outlined the head."""
    matte: str = "own"
    """Who outlined the person: `own`, which also means the file's own transparency, or `rembg:MODEL`."""

    @property
    def size_px(self) -> int:
        """Side of the crop, pixels."""
        return self.rgb.shape[0]


@same_threads()
def prepare_portrait(path: Path, config: PortraitConfig | None = None, *, track: Track = silent) -> Portrait:
    """Read a picture, find the head, crop and align it, and cut it out.

    Args:
        config: how; None takes `PortraitConfig()`.

    Raises:
        InputError: the file cannot be used, no face was found, nothing in it looks like a head, or the network that
            `config.matte` names cannot be had.
    """
    config = config or PortraitConfig()
    rembg = RembgNetwork.of(config.matte)
    steps = iter(track(range(4), total=4.0, description="Preparing the portrait"))
    next(steps)
    loaded = load_image(path)
    load_solver_beside()
    model = load_head_model()
    people, networks = PersonNetworks(), FaceNetworks()
    next(steps)
    found = _locate(loaded, model, config, networks, people, rembg)
    next(steps)
    crop = config.crop
    if crop == "auto":
        crop = "wide" if _cut_by_standard_frame_cm(found, model, people) > _MOST_CUT_CM else "standard"
    factor = WIDE_FACTOR if crop == "wide" else 1.0
    frame = CropFrame.of(found.head, factor, config.size_px)
    head, landmarks = found.head, None
    if found.face is not None:
        frame, head, landmarks = fit_in_crop(found.rgb, found.face, frame, factor, model, networks)
    next(steps)
    maps = person_maps(found.rgb, frame, found.window_sides_px, people)
    is_small = _head_px(head) < _SMALL_HEAD_PX
    head, crop_rgb, inside = frame.head(head), frame.part(found.rgb, sharp=True), frame.inside(found.rgb)
    file_alpha = None if found.file_alpha is None else frame.part(found.file_alpha, sharp=True)
    elsewhere = None
    if found.face is not None:
        faces = [(frame.point(f.center_px), f.size_px * frame.scale) for f in (found.face, *found.others)]
        elsewhere = people_elsewhere(frame.size_px, *faces[0], faces[1:])
    zones, outline = head_zones(head, model), None
    if rembg is not None and (file_alpha is None or contradicts_head(file_alpha > 127, inside, zones)):
        outline = frame.part(found.outline).astype(np.float32) / 255
    matte = estimate_matte(crop_rgb, inside, zones, maps, file_alpha=file_alpha, outline=outline, elsewhere=elsewhere)
    weights, outlined_by = found.weights, "own"
    if rembg is not None and matte.source == "outline":
        weights, outlined_by = tuple(dict.fromkeys((*weights, rembg.provenance()))), rembg.matte
    doubts = doubts_about(crop_rgb, matte.alpha_unit, inside, landmarks, head, zones, is_small=is_small)
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
        (*loaded.notices, *found.notices, *matte.notices, *doubts),
        weights,
        outlined_by,
    )


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
    rembg: RembgNetwork | None

    @cached_property
    def outline(self) -> UInt8[np.ndarray, "h w"]:
        """What rembg's network takes for the person, 255 where it is sure; 0 outside the window that it sees."""
        assert self.rembg is not None
        frame = CropFrame.of(self.head, _OUTLINE_WINDOW, 1)
        return outline_in_window(self.rgb, frame.center_px, frame.side_px, self.rembg)

    @property
    def window_sides_px(self) -> tuple[float, ...]:
        """Sides of the windows for segmentation, pixels of the picture."""
        return tuple(size * CropFrame.of(self.head, 1.0, 1).side_px for size in WINDOW_SIZES)


def _locate(
    loaded: LoadedImage,
    model: HeadModel,
    config: PortraitConfig,
    networks: FaceNetworks,
    people: PersonNetworks,
    rembg: RembgNetwork | None,
) -> _Found:
    """Turn the picture upright and fit a head to the chosen face, or place one by the outline with `no_face`."""
    rgb, file_alpha, notices = loaded.rgb, loaded.alpha, []
    if file_alpha is not None:
        rgb = shown_over_white(rgb, file_alpha)
    face, others, weights = None, (), ()
    if config.no_face:
        head, weights, notices = _head_without_face(rgb, file_alpha, model, loaded.source_name, people, rembg)
    else:
        turns = upright_quarter_turns(rgb, networks)
        if turns:
            rgb = np.ascontiguousarray(np.rot90(rgb, turns))
            file_alpha = None if file_alpha is None else np.ascontiguousarray(np.rot90(file_alpha, turns))
            notices.append("The face lies on its side or upside down; the picture was turned upright.")
        height, width = rgb.shape[:2]
        faces = find_faces(rgb, networks)
        points = None if faces else find_face(rgb, FACE_LANDMARKS.load())
        if not faces and points is None:
            faces = find_hard_faces(rgb, networks)
        if points is None:
            face, face_notices = choose_face(faces, config.face_index, loaded.source_name)
            notices += face_notices
            others = tuple(f for f in faces if f is not face)
            head = fit_landmarks(model, face.landmarks_px, width, height)
        else:
            head = fit_sparse_points(model, points.points_px, points.scales_px, width, height)
            weights = (FACE_LANDMARKS.provenance(),)
            notices.append(
                "The face was placed by the network for drawings and profiles; check the alignment of the result."
            )
    if _head_px(head) < _SMALL_HEAD_PX:
        notices.append(
            f"The head is only {_head_px(head):.0f} pixels high in the picture; a larger picture gives a sharper "
            "result."
        )
    return _Found(rgb, file_alpha, head, face, others, tuple(notices), weights, rembg)


def _head_px(head: HeadFit) -> float:
    """Height of a head from crown to chin in the picture that it was fitted in, pixels."""
    return CROWN_TO_CHIN_CM * UNITS_PER_CM * float(head.camera.focal_px[0, 0]) / PANOHEAD_RADIUS


def _head_without_face(
    rgb: UInt8[np.ndarray, "h w 3"],
    file_alpha: UInt8[np.ndarray, "h w"] | None,
    model: HeadModel,
    source: str,
    people: PersonNetworks,
    rembg: RembgNetwork | None,
) -> tuple[HeadFit, tuple[str, ...], list[str]]:
    """A head placed by the first outline that there is; the network that gave it, if not our own, and notices."""
    if file_alpha is not None:
        return place_head_by_matte(enclosed(file_alpha).astype(np.float32), model, source), (), []
    flat, notices = flat_background(rgb, np.ones(rgb.shape[:2], bool)), []
    if rembg is not None:
        outline = np.where(flat, np.float32(0), rembg.maps(rgb)[0])
        try:
            return place_head_by_matte(outline, model, source), (rembg.provenance(),), []
        except InputError:
            notices.append("No head is seen in the outline that rembg gives; our own networks place the head.")
    seen = np.where(flat, np.float32(0), seen_by_networks(rgb, people))
    return place_head_by_matte(seen, model, source), (), notices


def fit_in_crop(
    rgb: UInt8[np.ndarray, "h w 3"],
    face: DetectedFace,
    frame: CropFrame,
    factor: float,
    model: HeadModel,
    networks: FaceNetworks,
) -> tuple[CropFrame, HeadFit, Float[np.ndarray, "478 3"]]:
    """Landmarks measured again in the crop, and the crop of the head fitted to both measurements.

    The frame moves with the fit, so that the camera of the final crop is the intended one: focal length 4.2647
    (divided by the wide factor) of the width, principal point in the middle.

    Args:
        rgb: the upright picture.
        face: found in it.
        frame: round a head fitted to that face's landmarks.
        factor: side of the frame in units of the standard one.

    Returns:
        The frame round the new fit, that fit in the picture, and the landmarks in the crop.
    """
    mean = face.landmarks_px
    again = steady_landmarks(
        frame.part(rgb, sharp=True), frame.point(face.center_px), face.size_px * frame.scale, networks
    )
    if again is not None:
        again[:, :2] -= frame.offset_px
        again /= frame.scale
        drift = float(np.median(np.linalg.norm((again - mean)[:, :2], axis=1)))
        if drift < _MOST_DRIFT * face.size_px:  # otherwise the mesh has drifted away
            mean = (mean + again) / 2
    head = fit_landmarks(model, mean, rgb.shape[1], rgb.shape[0])
    frame = CropFrame.of(head, factor, frame.size_px)
    landmarks = mean * frame.scale
    landmarks[:, :2] += frame.offset_px
    return frame, head, landmarks


def _cut_by_standard_frame_cm(found: _Found, model: HeadModel, people: PersonNetworks) -> float:
    """How much of the standard frame's edge runs through the person at the height of the head, centimetres."""
    wide = CropFrame.of(found.head, WIDE_FACTOR, _COARSE_PX)
    zones = head_zones(wide.head(found.head), model)
    inside = wide.inside(found.rgb)
    if found.file_alpha is not None:
        maps = [wide.part(found.file_alpha).astype(np.float32) / 255]
    else:
        maps = person_maps(found.rgb, wide, found.window_sides_px, people)
    if found.file_alpha is None and found.rembg is not None:
        outline = wide.part(found.outline).astype(np.float32) / 255
        maps = maps if contradicts_head(outline > 0.5, inside, zones) else [outline]
    agreeing = [m for m in maps if not contradicts_head(m > 0.5, inside, zones)]
    if not agreeing:
        return 0.0
    person = (np.mean(agreeing, axis=0) > 0.5) & inside
    first = round(_COARSE_PX * (1 - 1 / WIDE_FACTOR) / 2)
    last = _COARSE_PX - 1 - first
    edge = np.zeros_like(person)
    edge[first, first : last + 1] = True
    edge[first : last + 1, (first, last)] = True
    return float((person & edge & (zones.height_cm > _FRAME_ABOVE_CHIN_CM)).sum()) / zones.cm_px


def place_head_by_matte(matte_unit: Float32[np.ndarray, "h w"], model: HeadModel, source: str) -> HeadFit:
    """The mean head, seen from the front, put where the outline of a person has its head.

    The top of the outline is the crown. The height of the head comes from the neck (the narrowest row below the head)
    where there is one, otherwise from the width of the outline below its top.

    Args:
        matte_unit: opacity of the person in the whole picture, [0, 1].
        source: name of the picture for messages.

    Raises:
        InputError: the outline is empty, fills the picture, or is too small.
    """
    mask = matte_unit > 0.5
    share = float(mask.mean())
    if share < _LEAST_AREA or share > _MOST_AREA:
        raise InputError(
            f"{source}: no head is seen against the background ({100 * share:.0f}% of the picture looks like a person);"
            " give a picture of one person in front of a plain background, or one with a transparent background"
        )
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    person = labels == 1 + int(np.argmax(stats[1:count, cv2.CC_STAT_AREA]))
    rows = np.flatnonzero(person.sum(1) >= 3)
    top, bottom = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
    height = _head_height_px(person[top:bottom].sum(1).astype(np.float64)) if bottom - top >= _LEAST_HEAD_PX else 0.0
    if height < _LEAST_HEAD_PX:
        raise InputError(
            f"{source}: what looks like a person is too small to hold a head; crop the picture to head and shoulders"
        )
    region = person[top : top + max(1, round(0.8 * height))]
    columns = np.arange(region.shape[1])
    middles = [columns[row].mean() + 0.5 for row in region if row.any()]
    crown_y = float(model.neutral[:, 1].max())
    chin_y = float(model.landmarks(model.neutral.astype(np.float64))[CHIN_LANDMARK, 1])
    pixels_per_unit = height / (crown_y - chin_y) / (1 + _HAIR_ON_CROWN)
    principal = (float(np.median(middles)), top + _HAIR_ON_CROWN * height + crown_y * pixels_per_unit)
    return mean_head_fit(model, pixels_per_unit * PANOHEAD_RADIUS, principal, mask.shape[1], mask.shape[0])


def _head_height_px(widths: np.ndarray) -> float:
    """Crown to chin, hair included, out of the outline's width per row from the top down."""
    smooth = np.convolve(widths, np.ones(5) / 5, mode="same")
    heights = np.arange(1, len(smooth) + 1)
    widest = np.maximum.accumulate(smooth)
    fits = np.flatnonzero(widest[(0.6 * heights).astype(int)] <= _HEAD_WIDTH_OF_HEIGHT * heights)
    by_width = float(heights[fits[0]]) if len(fits) else 0.0
    if by_width == 0.0:
        return float(len(smooth))  # the outline ends before the chin: all that is seen is head
    # The neck: the first row below the head that is narrower than its neighbours, clearly narrower than the head and
    # followed by something wider.
    reach = max(2, round(0.06 * by_width))
    for row in range(int(0.6 * by_width), min(int(1.5 * by_width), len(smooth) - reach)):
        is_narrowest = smooth[row] <= smooth[row - reach : row + reach + 1].min()
        if is_narrowest and smooth[row] < 0.8 * widest[row] and smooth[row:].max() > 1.15 * smooth[row]:
            return 0.95 * row
    return by_width


def encode_portrait(portrait: Portrait) -> bytes:
    """The portrait as the bytes of an .npz file; the same portrait gives the same bytes."""
    camera = portrait.head.camera
    facts = {
        "format": 1,
        "width": camera.width,
        "height": camera.height,
        "crop": portrait.crop,
        "source_name": portrait.source_name,
        "source_sha256": portrait.source_sha256,
        "notices": list(portrait.notices),
        "weights": list(portrait.weights),
    }
    if portrait.matte != "own":
        facts["matte"] = portrait.matte
    arrays = {name: getattr(portrait, name) for name in _ARRAYS}
    arrays |= {f"fit_{name}": getattr(portrait.head, name) for name in _FIT_ARRAYS}
    arrays |= {f"camera_{name}": getattr(camera, name).numpy() for name in _CAMERA_ARRAYS}
    if portrait.landmarks_px is not None:
        arrays["landmarks_px"] = portrait.landmarks_px
    file = io.BytesIO()
    np.savez_compressed(file, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
    return file.getvalue()


def read_portrait(path: Path) -> Portrait:
    """The portrait in a file of `encode_portrait`.

    Raises:
        InputError: the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"No prepared portrait at {path}; make the head again with dp360 data heads")
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(file["facts"].tobytes())
            arrays = {name: torch.from_numpy(file[f"camera_{name}"]) for name in _CAMERA_ARRAYS}
            camera = Cameras(**arrays, width=facts["width"], height=facts["height"])
            fit = {name: file[f"fit_{name}"] for name in _FIT_ARRAYS}
            return Portrait(
                **{name: file[name] for name in _ARRAYS},
                landmarks_px=file["landmarks_px"] if "landmarks_px" in file.files else None,
                head=HeadFit(camera=camera, **fit),
                crop=facts["crop"],
                source_name=facts["source_name"],
                source_sha256=facts["source_sha256"],
                notices=tuple(facts["notices"]),
                weights=tuple(facts.get("weights", ())),  # not in files of earlier versions
                matte=facts.get("matte", "own"),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}); make the head again with dp360 data heads") from error

"""Faces and their 478 landmarks, found by the networks inside mediapipe's wheel: photographs first, then paintings.

Landmarks are in pixels of the picture, pixel centres at +0.5, x right, y down, and z away from the camera in the same
pixel scale (zero at the middle of the face). Nothing is downloaded and nothing is printed.

Source: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019
(https://arxiv.org/abs/1907.06724); Bazarevsky et al., "BlazeFace", 2019 (https://arxiv.org/abs/1907.05047).
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ..errors import InputError
from ..head_model.anatomy import CHIN_LANDMARK, FOREHEAD_LANDMARK
from .resample import square_crop

LANDMARK_COUNT = 478
"""Number of landmarks of the refined face mesh: 468 of the surface, 10 of the irises."""
_OUTER_SIZE_FROM_LANDMARKS = (1.5, 1.7, 1.9)
"""Sides of the crops for the final landmarks, in units of the landmarks' extent; the results are averaged."""
_MESH_INPUT_PX = 512
"""Side of the square crops handed to the face mesh."""
_DETECTOR_INPUT_PX = 512
"""Side of the square windows handed to the detectors."""
_CONFIDENCE = 0.5
"""Least detector score in [0, 1] in the first pass, made for photographs."""
_LOOSE_CONFIDENCE = 0.2
"""Least score in the second pass (padded, contrast-normalised, tiled), made for paintings and cartoons."""
_MOST_JITTER = 0.015
"""Largest median distance of one crop's landmarks from the mean over crops, in units of the face's size. A picture
in which the networks see a face where none is gives landmarks that change with the crop."""
_LEAST_SIZE_PX = 20.0
"""Smallest face, pixels of the picture."""
_LOOSE_LEAST_SIZE = 0.12
"""Smallest face of the second pass, in units of the picture's shorter side."""
_SURELY_UPRIGHT = 0.8
"""With at least this score a picture is taken as upright without trying the other turns."""
_TURN_MARGIN = 0.08
"""A picture is taken as lying on its side only if its score rises by this much when it is turned."""
Place = tuple[float, float] | Float[np.ndarray, " 2"]
_FIRST_CALL = threading.Lock()
_FIRST_LINE = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"


@dataclass(frozen=True)
class DetectedFace:
    """One face of a picture."""

    landmarks_px: Float[np.ndarray, "478 3"]
    """Landmarks of the refined face mesh, pixels."""
    score: float
    """Score of the detector, [0, 1]."""
    found_by: Literal["standard", "loose"]
    """The pass that found it."""

    @property
    def size_px(self) -> float:
        """Longer side of the landmarks' bounding box, pixels."""
        return float(np.ptp(self.landmarks_px[:, :2], axis=0).max())

    @property
    def center_px(self) -> Float[np.ndarray, " 2"]:
        """Middle of the landmarks' bounding box, pixels."""
        xy = self.landmarks_px[:, :2]
        return (xy.min(0) + xy.max(0)) / 2

    @property
    def roll_rad(self) -> float:
        """Rotation of the face in the picture, radians: 0 upright, positive clockwise as seen."""
        down = self.landmarks_px[CHIN_LANDMARK, :2] - self.landmarks_px[FOREHEAD_LANDMARK, :2]
        return float(np.arctan2(-down[0], down[1]))


@dataclass(frozen=True)
class _Candidate:
    """A detector's guess: centre and side of a square around the face, in pixels."""

    center_px: tuple[float, float]
    size_px: float
    roll_rad: float
    score: float


Face = TypeVar("Face", DetectedFace, _Candidate)


def mediapipe_solutions() -> Any:
    """The module `mediapipe.solutions`, told to stay off the GPU and to write nothing to standard error.

    With its first network the TensorFlow Lite inside writes a line that no setting stops: the first call here opens and
    closes one network to have done with it. Threads may call at once.
    """
    with _FIRST_CALL:
        return _quiet_solutions()


@functools.cache
def _quiet_solutions() -> Any:
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("MEDIAPIPE_DISABLE_GPU", "1")
    with _standard_error_without(_FIRST_LINE):
        import mediapipe

        solutions: Any = mediapipe.solutions
        with solutions.face_detection.FaceDetection(model_selection=0):
            pass
    return solutions


@contextlib.contextmanager
def _standard_error_without(unwanted: bytes) -> Iterator[None]:
    """Take some bytes out of what the process writes to standard error while the block runs.

    Everything else, whichever thread writes it, comes through when the block ends. One caller at a time.
    """
    try:
        standard_error = os.dup(2)
    except OSError:  # there is none
        yield
        return
    with os.fdopen(standard_error, "wb") as out, tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(out.fileno(), 2)
            held_back.seek(0)
            out.write(held_back.read().replace(unwanted, b""))


class FaceNetworks(contextlib.ExitStack):
    """mediapipe's two detectors (near and far) and its face mesh, opened once and closed by `with`."""

    def __init__(self) -> None:
        super().__init__()
        solutions = mediapipe_solutions()
        self._detectors = [
            self.enter_context(
                solutions.face_detection.FaceDetection(
                    model_selection=model, min_detection_confidence=_LOOSE_CONFIDENCE
                )
            )
            for model in (0, 1)
        ]
        self._mesh = self.enter_context(
            solutions.face_mesh.FaceMesh(
                static_image_mode=True, max_num_faces=4, refine_landmarks=True, min_detection_confidence=0.2
            )
        )

    def candidates(self, rgb: UInt8[np.ndarray, "h w 3"], least_score: float) -> list[_Candidate]:
        """What both detectors see in a picture with at least the given score, one candidate per face."""
        height, width = rgb.shape[:2]
        found: list[_Candidate] = []
        answers = [detector.process(np.ascontiguousarray(rgb)).detections or [] for detector in self._detectors]
        for detection in (d for answer in answers for d in answer if d.score[0] >= least_score):
            location = detection.location_data
            box, points = location.relative_bounding_box, location.relative_keypoints
            eyes = np.array([(points[0].x + points[1].x) / 2 * width, (points[0].y + points[1].y) / 2 * height])
            down = np.array([points[3].x * width, points[3].y * height]) - eyes
            found.append(
                _Candidate(
                    ((box.xmin + box.width / 2) * width, (box.ymin + box.height / 2) * height),
                    max(box.width * width, box.height * height),
                    float(np.arctan2(-down[0], down[1])),
                    float(detection.score[0]),
                )
            )
        return _one_per_face(found, "score")

    def landmarks(
        self, rgb: UInt8[np.ndarray, "h w 3"], center_px: Place, side_px: float
    ) -> Float[np.ndarray, "478 3"] | None:
        """Landmarks of the face nearest to the middle of a square crop, in pixels of the whole picture."""
        crop, scale = square_crop(rgb, center_px, side_px, _MESH_INPUT_PX), side_px / _MESH_INPUT_PX
        faces = self._mesh.process(crop).multi_face_landmarks or []
        best, best_distance = None, 0.25 * _MESH_INPUT_PX
        for face in faces:
            points = np.array([[p.x, p.y, p.z] for p in face.landmark], dtype=np.float64) * _MESH_INPUT_PX
            middle = (points[:, :2].min(0) + points[:, :2].max(0)) / 2
            distance = float(np.linalg.norm(middle - _MESH_INPUT_PX / 2))
            if points.shape == (LANDMARK_COUNT, 3) and distance < best_distance:
                best, best_distance = points, distance
        if best is None:
            return None
        best = best * scale
        best[:, :2] += np.asarray(center_px) - side_px / 2
        return best


def _one_per_face(found: list[Face], merit: str) -> list[Face]:
    """Greedy suppression: of faces whose centres lie within half a face of each other that of the most merit stays."""
    kept: list[Face] = []
    for face in sorted(found, key=operator.attrgetter(merit), reverse=True):
        center = np.array(face.center_px)
        if all(np.linalg.norm(center - k.center_px) > 0.5 * max(k.size_px, face.size_px) for k in kept):
            kept.append(face)
    return kept


def _equalised(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with its local contrast brought up, for pale and dark paintings."""
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(4, 4)).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _candidates_in_windows(
    rgb: UInt8[np.ndarray, "h w 3"],
    windows: list[tuple[tuple[float, float], float]],
    least_score: float,
    networks: FaceNetworks,
) -> list[_Candidate]:
    """Candidates of square windows (centre, side) of a picture, in pixels of the picture."""
    found: list[_Candidate] = []
    for center, side in windows:
        scale = side / _DETECTOR_INPUT_PX
        for c in networks.candidates(square_crop(rgb, center, side, _DETECTOR_INPUT_PX), least_score):
            x, y = (center[k] - side / 2 + c.center_px[k] * scale for k in (0, 1))
            found.append(_Candidate((x, y), c.size_px * scale, c.roll_rad, c.score))
    return _one_per_face(found, "score")


def _standard_candidates(rgb: UInt8[np.ndarray, "h w 3"], networks: FaceNetworks) -> list[_Candidate]:
    """Candidates of the first pass: the whole picture, then its quarters for small faces where nothing was seen."""
    height, width = rgb.shape[:2]
    side = float(max(height, width))
    found = _candidates_in_windows(rgb, [((width / 2, height / 2), side)], _CONFIDENCE, networks)
    if not found:
        quarters = [((x, y), 0.6 * side) for x in (0.3 * width, 0.7 * width) for y in (0.3 * height, 0.7 * height)]
        found = _candidates_in_windows(rgb, quarters, _CONFIDENCE, networks)
    return [c for c in found if c.size_px >= _LEAST_SIZE_PX]


def _loose_candidates(rgb: UInt8[np.ndarray, "h w 3"], networks: FaceNetworks) -> list[_Candidate]:
    """Candidates of the second pass: padded, contrast-normalised and enlarged versions of the picture."""
    height, width = rgb.shape[:2]
    short, side = float(min(height, width)), float(max(height, width))
    middle = (width / 2, height / 2)
    windows = [(middle, 1.0 * side), (middle, 1.6 * side), (middle, 2.4 * side)]
    windows += [((x, y), 0.7 * short) for x in (0.35 * width, 0.65 * width) for y in (0.35 * height, 0.65 * height)]
    windows += [((short / 2, short / 2), short), ((width - short / 2, height - short / 2), short)]
    least = _LOOSE_CONFIDENCE
    found = [
        c
        for version in (rgb, _equalised(rgb))
        for c in _candidates_in_windows(version, windows, least, networks)
        if c.size_px >= max(_LEAST_SIZE_PX, _LOOSE_LEAST_SIZE * short)
    ]
    return _one_per_face(found, "score")


def steady_landmarks(
    rgb: UInt8[np.ndarray, "h w 3"], center_px: Place, size_px: float, networks: FaceNetworks
) -> Float[np.ndarray, "478 3"] | None:
    """Landmarks averaged over three crops round a face whose place is known.

    Args:
        center_px, size_px: middle and longer side of the landmarks' bounding box, pixels.

    Returns:
        Landmarks in pixels of the picture; None where the mesh misses the face in a crop or the crops disagree.
    """
    crops = [networks.landmarks(rgb, center_px, outer * size_px) for outer in _OUTER_SIZE_FROM_LANDMARKS]
    points = [p for p in crops if p is not None]
    if len(points) < len(crops):
        return None
    mean = np.mean(points, axis=0)
    jitter = max(float(np.median(np.linalg.norm((p - mean)[:, :2], axis=1))) for p in points) / size_px
    return mean if jitter <= _MOST_JITTER else None


def _measured(
    rgb: UInt8[np.ndarray, "h w 3"],
    candidate: _Candidate,
    found_by: Literal["standard", "loose"],
    networks: FaceNetworks,
) -> DetectedFace | None:
    """Landmarks for a candidate: a first mesh finds the face's extent, tighter crops give the final one."""
    versions = (rgb,) if found_by == "standard" else (rgb, _equalised(rgb))
    for version in versions:
        for factor in (2.0, 1.5, 3.0):
            first = networks.landmarks(version, candidate.center_px, factor * candidate.size_px)
            if first is None:
                continue
            guess = DetectedFace(first, candidate.score, found_by)
            final = steady_landmarks(version, guess.center_px, guess.size_px, networks)
            if final is not None:
                return DetectedFace(final, candidate.score, found_by)
    return None


def find_faces(rgb: UInt8[np.ndarray, "h w 3"], networks: FaceNetworks) -> tuple[DetectedFace, ...]:
    """All faces of an upright picture, the largest first; the loose pass runs only if the first finds none."""
    standard = _standard_candidates(rgb, networks)
    faces = [face for c in standard if (face := _measured(rgb, c, "standard", networks)) is not None]
    if not faces:
        loose = _loose_candidates(rgb, networks)
        faces = [face for c in loose if (face := _measured(rgb, c, "loose", networks)) is not None]
    return tuple(_one_per_face(faces, "size_px"))


def upright_quarter_turns(rgb: UInt8[np.ndarray, "h w 3"], networks: FaceNetworks) -> int:
    """How many quarter turns (counter-clockwise, `np.rot90`) bring the faces of a picture upright.

    The detector also answers to faces that lie or stand on their head, with a lower score. A turn is believed only if
    the score rises clearly and detector and face mesh agree on which way is up.

    Returns:
        0, 1, 2 or 3; 0 where no face is seen at all.
    """
    scores = []
    for turns in range(4):
        turned = np.ascontiguousarray(np.rot90(rgb, turns))
        best = 0.0
        for c in _standard_candidates(turned, networks):
            if c.score <= best or abs(c.roll_rad) > np.pi / 3.5:
                continue
            face = _measured(turned, c, "standard", networks)
            if face is not None and abs(face.roll_rad - c.roll_rad) < np.pi / 6:
                best = c.score
        if turns == 0 and best > _SURELY_UPRIGHT:
            return 0
        scores.append(best)
    best_turn = int(np.argmax(scores))
    return best_turn if scores[best_turn] > scores[0] + _TURN_MARGIN else 0


def choose_face(
    faces: tuple[DetectedFace, ...], face_index: int | None, source: str
) -> tuple[DetectedFace, tuple[str, ...]]:
    """One face of several: the largest, or the one asked for.

    Args:
        faces: result of `find_faces`, the largest first.
        face_index: 0 is the largest face; None takes the largest and says so where there are others.
        source: name of the picture for messages.

    Returns:
        The face, and notices for the user.

    Raises:
        InputError: no face at all, or no face of that index.
    """
    if not faces:
        raise InputError(
            f"{source}: no face was found (the picture may show the back of a head, a strong profile, a flat drawing "
            "or no person); give a picture in which both eyes are seen, or pass --no-face to place the head by its "
            "outline alone"
        )
    if face_index is not None and not 0 <= face_index < len(faces):
        raise InputError(
            f"{source}: --face-index is {face_index}, but {len(faces)} face(s) were found; expected 0 to "
            f"{len(faces) - 1}, 0 being the largest"
        )
    notices = []
    if face_index is None and len(faces) > 1:
        notices.append(
            f"{len(faces)} faces were found; the largest is used (--face-index 1 takes the next smaller one)."
        )
    face = faces[face_index or 0]
    if face.found_by == "loose":
        notices.append("The face was found with looser settings only; check the alignment of the result.")
    return face, tuple(notices)

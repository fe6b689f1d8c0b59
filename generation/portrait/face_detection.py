"""Faces and their 478 landmarks: which windows of a picture the networks see, photographs first, then paintings.

Landmarks are in pixels of the picture, pixel centres at +0.5, x right, y down, and z away from the camera in the same
pixel scale (zero at the middle of the face). The networks are in `face_networks`.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal, TypeVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ..errors import InputError
from ..head_model.anatomy import CHIN_LANDMARK, FOREHEAD_LANDMARK
from .face_networks import FAR, NEAR, FaceDetector, FaceMesh
from .resample import square_crop

_OUTER_SIZE_FROM_LANDMARKS = (1.5, 1.7, 1.9)
"""Sides of the crops for the final landmarks, in units of the landmarks' extent; the results are averaged."""
_MESH_INPUT_PX = 512
"""Side of the square crops handed to the face mesh."""
_DETECTOR_INPUT_PX = 512
"""Side of the square windows handed to the detectors."""
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
_ENLARGED_PX = (256, 512)
"""Shorter sides to which small pictures are enlarged where no face is found, pixels at least."""
_MIRROR_REACH = 0.25
"""How far the middle of a mirrored face may lie from the picture's edge, in units of its size."""
Place = tuple[float, float] | Float[np.ndarray, " 2"]


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


class FaceNetworks:
    """Two detectors (near and far) and the face mesh."""

    def __init__(self) -> None:
        self._detectors, self._mesh = (FaceDetector(NEAR), FaceDetector(FAR)), FaceMesh()

    def candidates(self, rgb: UInt8[np.ndarray, "s s 3"]) -> list[_Candidate]:
        """What both detectors see in a square picture, one candidate per face."""
        side_px = rgb.shape[0]
        found: list[_Candidate] = []
        for face in (f for detector in self._detectors for f in detector.boxes(rgb)):
            x, y = (face.low + face.high) / 2 * side_px
            down = face.key_points[3] - face.key_points[:2].mean(axis=0)  # from between the eyes to the mouth
            size_px = float((face.high - face.low).max()) * side_px
            found.append(_Candidate((float(x), float(y)), size_px, float(np.arctan2(-down[0], down[1])), face.score))
        return _one_per_face(found, "score")

    def landmarks(
        self, rgb: UInt8[np.ndarray, "h w 3"], center_px: Place, side_px: float
    ) -> Float[np.ndarray, "478 3"] | None:
        """Landmarks of the face nearest to the middle of a square crop, in pixels of the whole picture."""
        crop, scale = square_crop(rgb, center_px, side_px, _MESH_INPUT_PX), side_px / _MESH_INPUT_PX
        best, best_distance = None, 0.25 * _MESH_INPUT_PX
        for points in self._mesh.landmarks(crop):
            middle = (points[:, :2].min(0) + points[:, :2].max(0)) / 2
            distance = float(np.linalg.norm(middle - _MESH_INPUT_PX / 2))
            if distance < best_distance:
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
    networks: FaceNetworks,
) -> list[_Candidate]:
    """Candidates of square windows (centre, side) of a picture, in pixels of the picture."""
    found: list[_Candidate] = []
    for center, side in windows:
        scale = side / _DETECTOR_INPUT_PX
        for c in networks.candidates(square_crop(rgb, center, side, _DETECTOR_INPUT_PX)):
            x, y = (center[k] - side / 2 + c.center_px[k] * scale for k in (0, 1))
            found.append(_Candidate((x, y), c.size_px * scale, c.roll_rad, c.score))
    return _one_per_face(found, "score")


def _standard_candidates(rgb: UInt8[np.ndarray, "h w 3"], networks: FaceNetworks) -> list[_Candidate]:
    """Candidates of the first pass: the whole picture, then its quarters for small faces where nothing was seen."""
    height, width = rgb.shape[:2]
    side = float(max(height, width))
    found = _candidates_in_windows(rgb, [((width / 2, height / 2), side)], networks)
    if not found:
        quarters = [((x, y), 0.6 * side) for x in (0.3 * width, 0.7 * width) for y in (0.3 * height, 0.7 * height)]
        found = _candidates_in_windows(rgb, quarters, networks)
    return [c for c in found if c.size_px >= _LEAST_SIZE_PX]


def _loose_candidates(rgb: UInt8[np.ndarray, "h w 3"], networks: FaceNetworks) -> list[_Candidate]:
    """Candidates of the second pass: padded, contrast-normalised and enlarged versions of the picture."""
    height, width = rgb.shape[:2]
    short, side = float(min(height, width)), float(max(height, width))
    middle = (width / 2, height / 2)
    windows = [(middle, 1.0 * side), (middle, 1.6 * side), (middle, 2.4 * side)]
    windows += [((x, y), 0.7 * short) for x in (0.35 * width, 0.65 * width) for y in (0.35 * height, 0.65 * height)]
    windows += [((short / 2, short / 2), short), ((width - short / 2, height - short / 2), short)]
    found = [
        c
        for version in (rgb, _equalised(rgb))
        for c in _candidates_in_windows(version, windows, networks)
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


def find_hard_faces(rgb: UInt8[np.ndarray, "h w 3"], networks: FaceNetworks) -> tuple[DetectedFace, ...]:
    """Faces that `find_faces` misses: tiny ones in an enlarged picture, halves that the picture's edge completes.

    Half a face and its mirror image are a face. Only one that the mirror runs through is taken.
    """
    height, width = rgb.shape[:2]
    factors = (int(np.ceil(least / min(height, width))) for least in _ENLARGED_PX)
    for enlarge in (factor for factor in factors if factor > 1):
        large = cv2.resize(rgb, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)
        found = tuple(_moved(face, enlarge, 0) for face in _standard_faces(large, networks))
        if found:
            return found
    for left, right in ((width, 0), (0, width)):
        doubled = cv2.copyMakeBorder(rgb, 0, 0, left, right, cv2.BORDER_REFLECT)
        found = _standard_faces(doubled, networks)
        halves = [face for face in found if abs(face.center_px[0] - width) < _MIRROR_REACH * face.size_px]
        if halves:
            return tuple(_moved(face, 1, -left) for face in halves)
    return ()


def _standard_faces(rgb: UInt8[np.ndarray, "h w 3"], networks: FaceNetworks) -> list[DetectedFace]:
    """Faces of the first pass alone."""
    candidates = _standard_candidates(rgb, networks)
    faces = [face for c in candidates if (face := _measured(rgb, c, "standard", networks)) is not None]
    return _one_per_face(faces, "size_px")


def _moved(face: DetectedFace, enlarged: int, offset_px: int) -> DetectedFace:
    """A face of an enlarged or widened picture in the picture itself."""
    landmarks = face.landmarks_px / enlarged
    landmarks[:, 0] += offset_px
    return DetectedFace(landmarks, face.score, "loose")


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

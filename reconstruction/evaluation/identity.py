"""Is it still the same person? Distances of face embeddings between a portrait and views of the head made from it.

The embedding is dlib's recognition network: a 29-layer residual network trained on about three million faces so that
pictures of one person fall within a ball of diameter 0.6. It was trained on photographs of frontal and half-turned
faces; of paintings, drawings and faces turned by 60 degrees it says less. What the figures are to be compared with,
measured here (mean and standard deviation of the distance; cosine similarity in brackets):

    two people, front, six photographs and paintings, 15 pairs   0.74 +- 0.13  (0.860 +- 0.048)
    two people, front, 14 composed heads, 91 pairs               0.70 +- 0.10  (0.872 +- 0.034)
    a head's portrait and its own true view, composed heads
        at 0 degrees, 14 views                                   0.33 +- 0.10  (0.970)
        at -30 and 30, 26 views                                  0.39 +- 0.10  (0.960)
        at -60 and 60, 22 views                                  0.57 +- 0.07  (0.913)
    a head's portrait and another head's view at -60 and 60      0.68 +- 0.08  (0.880)
    a portrait and itself mirrored, seven portraits              0.15 to 0.30

So a perfect head scores about 0.8 from the front, 0.7 at 30 degrees and 0.4 at 60, where own and foreign views overlap.

Source: D. King, "High Quality Face Recognition with Deep Metric Learning", 2017
(http://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html), the threshold of 0.6 and its 99.38 % on
LFW; weights as packaged by https://github.com/ageitgey/face_recognition_models.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from dp360.generation import InputError, ViewSet
from dp360.generation.head_model.sparse_points import POINT_NAMES
from dp360.generation.portrait import FaceNetworks, find_faces
from dp360.generation.portrait.landmark_network import FACE_LANDMARKS, find_face

from .compare import picture_over_white

FaceDetector = Literal["dlib", "mediapipe", "landmark network"]
"""Who placed the face: dlib's own detector, else mediapipe, else the package's network for drawings and profiles."""

SAME_PERSON_DISTANCE = 0.6
"""dlib's threshold: two pictures nearer than this are taken as one person."""
STRANGER_COSINE = 0.86
"""Mean cosine similarity of two different people in this embedding (15 pairs of portraits; 0.872 over 91 pairs of
composed heads); `identity_score` is 0 there. At dlib's threshold of 0.6 the score is about 0.35."""

_MISSING = 'The identity metric needs dlib and its face models; install them with: pip install "dp360[eval]"'
_CHIP_PX, _CHIP_PADDING = 150, 0.25  # what the network was trained on
_MEDIAPIPE_POINTS = (263, 362, 33, 133, 2)
_NETWORK_POINTS = tuple(
    POINT_NAMES.index(name) for name in ("eye_outer_l", "eye_inner_l", "eye_outer_r", "eye_inner_r", "nose_base")
)
_MOST_UPSAMPLED_PX = 1600
"""Pictures with a longer side than this are not enlarged for dlib's detector: their faces are large enough."""
_LEAST_SCORE_SHARE = 0.5
_NEAR_DEG, _LEVEL_DEG = 8.0, 6.0
"""A view stands for an azimuth at most this far from it, and at most this far above or below the level, degrees."""
_PORTRAIT_VIEW = "portrait"
"""The portrait itself says nothing about the generator."""


@dataclass(frozen=True)
class FaceEmbedding:
    """One face as dlib's network sees it."""

    vector: Float[np.ndarray, " 128"]
    """The 128 numbers as the network gives them; their length is about 1.4, not 1."""
    detector: FaceDetector
    """Who placed the face."""
    points_px: Float[np.ndarray, "5 2"]
    """Left eye's outer and inner corner, right eye's outer and inner corner, base of the nose; pixels of the picture,
    pixel centres at +0.5."""


class FaceEmbedder:
    """dlib's detector, five-point predictor and recognition network, and mediapipe for what dlib does not find.

    The same picture gives the same numbers.

    dlib's detector is tried first because the network was trained on what it finds. It misses faces turned by more
    than about 45 degrees, most paintings of them, and drawings: there the chip is cut by the eye corners and the base
    of the nose from mediapipe or from the package's landmark network. Who placed the face matters little: the same six
    portraits placed by dlib and by mediapipe lie 0.12 apart (0.09 to 0.18), by the landmark network 0.24 (0.17 to 0.40,
    four of them).

    Raises:
        InputError: dlib or its models are not installed.
    """

    def __init__(self) -> None:
        self._dlib, models = _dlib_and_models()
        self._detector = self._dlib.get_frontal_face_detector()
        self._predictor = self._dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self._network = self._dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
        self._faces = FaceNetworks()

    def embed(self, rgb: UInt8[np.ndarray, "h w 3"]) -> FaceEmbedding | None:
        """The embedding of the picture's largest face; None where nobody finds one.

        Args:
            rgb: an upright picture, sRGB.
        """
        rgb = np.ascontiguousarray(rgb)
        found = self._points_by_dlib(rgb) or self._points_by_mediapipe(rgb) or _points_by_network(rgb)
        if found is None:
            return None
        points, detector = found
        parts = [self._dlib.point(round(float(x) - 0.5), round(float(y) - 0.5)) for x, y in points]
        face = self._dlib.full_object_detection(self._dlib.rectangle(0, 0, 1, 1), parts)
        chip = self._dlib.get_face_chip(rgb, face, size=_CHIP_PX, padding=_CHIP_PADDING)
        vector = np.array(self._network.compute_face_descriptor(chip), dtype=np.float64)
        return FaceEmbedding(vector, detector, points)

    def _points_by_dlib(self, rgb: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "5 2"], FaceDetector] | None:
        """Five points of the largest face that dlib is about as sure of as of its surest one."""
        boxes, scores = [], []
        for enlargements in (0, 1) if max(rgb.shape[:2]) <= _MOST_UPSAMPLED_PX else (0,):
            boxes, scores, _ = self._detector.run(rgb, enlargements, 0.0)
            if len(boxes):
                break
        else:
            return None
        sure = [box for box, score in zip(boxes, scores) if score >= _LEAST_SCORE_SHARE * max(scores)]
        shape = self._predictor(rgb, max(sure, key=lambda box: box.area()))
        return np.array([(part.x + 0.5, part.y + 0.5) for part in shape.parts()], dtype=np.float64), "dlib"

    def _points_by_mediapipe(
        self, rgb: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float[np.ndarray, "5 2"], FaceDetector] | None:
        faces = find_faces(rgb, self._faces)
        return (faces[0].landmarks_px[list(_MEDIAPIPE_POINTS), :2], "mediapipe") if faces else None


def _points_by_network(rgb: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "5 2"], FaceDetector] | None:
    face = find_face(rgb, FACE_LANDMARKS.load())
    return None if face is None else (face.points_px[list(_NETWORK_POINTS)], "landmark network")


def _dlib_and_models() -> tuple[Any, Path]:
    """dlib and the folder of its weights. The package of the weights is not imported: it wants `pkg_resources`."""
    try:
        import dlib
    except ImportError as error:
        raise InputError(_MISSING) from error
    package = importlib.util.find_spec("face_recognition_models")
    for place in (package.submodule_search_locations or ()) if package else ():
        if (folder := Path(place) / "models").is_dir():
            return dlib, folder
    raise InputError(_MISSING)


def identity_distance(a: FaceEmbedding, b: FaceEmbedding) -> float:
    """Euclidean distance of two faces; below `SAME_PERSON_DISTANCE` dlib takes them as one person."""
    return float(np.linalg.norm(a.vector - b.vector))


def identity_cosine(a: FaceEmbedding, b: FaceEmbedding) -> float:
    """Cosine similarity of two faces, 1 for equal ones. The cosine distance is one minus this."""
    # Through the difference of unit vectors, so that equal faces give exactly 1.
    apart = a.vector / np.linalg.norm(a.vector) - b.vector / np.linalg.norm(b.vector)
    return float(1 - 0.5 * apart @ apart)


def identity_score(a: FaceEmbedding, b: FaceEmbedding) -> float:
    """The cosine rescaled to [0, 1]: 1 for equal pictures, 0 for a typical stranger or anybody farther away."""
    return float(np.clip((identity_cosine(a, b) - STRANGER_COSINE) / (1 - STRANGER_COSINE), 0.0, 1.0))


@dataclass(frozen=True)
class IdentityAt:
    """The portrait against one view; not-a-number where there is no such view or no face was found."""

    azimuth_deg: float
    """The azimuth asked for, degrees."""
    view: str | None
    """Name of the view; None where none lies near that azimuth."""
    view_azimuth_deg: float
    """Azimuth of that view, degrees."""
    distance: float
    """`identity_distance`."""
    cosine: float
    """`identity_cosine`."""
    score: float
    """`identity_score`, [0, 1]."""
    detector: FaceDetector | None
    """Who placed the face in the view; None where nobody found one."""
    portrait_detector: FaceDetector | None
    """Who placed the face in the portrait; None where nobody found one, and then nothing was compared."""


def measure_identity(
    portrait_rgb: UInt8[np.ndarray, "h w 3"],
    views: ViewSet,
    embedder: FaceEmbedder,
    azimuths_deg: Sequence[float] = (0.0, -30.0, 30.0, -60.0, 60.0),
) -> tuple[IdentityAt, ...]:
    """How much the head looks like the portrait's person, seen from several sides.

    Even true views of one person move away from the portrait when the head turns; the module's docstring has figures
    to compare with.

    Args:
        portrait_rgb: the portrait; best the aligned crop, in which only one person is large.
        views: the head's views, shown over white.
        azimuths_deg: where to look from, degrees, 0 in front of the face, positive towards the head's left.

    Returns:
        One row per azimuth, in their order; none is dropped.

    Raises:
        ValueError: an azimuth that is not finite.
    """
    if not all(math.isfinite(azimuth) for azimuth in azimuths_deg):
        raise ValueError(f"measure_identity: expected finite azimuths in degrees, got {tuple(azimuths_deg)}")
    portrait = embedder.embed(portrait_rgb)
    chosen = [_nearest_view(views, azimuth) for azimuth in azimuths_deg]
    embedded: dict[int | None, FaceEmbedding | None] = {
        k: embedder.embed(picture_over_white(views, k)) for k in dict.fromkeys(chosen) if k is not None
    }
    rows = []
    for azimuth_deg, k in zip(azimuths_deg, chosen):
        face = embedded.get(k)
        both = None if portrait is None or face is None else (portrait, face)
        measures = (identity_distance, identity_cosine, identity_score)
        rows.append(
            IdentityAt(
                float(azimuth_deg),
                None if k is None else views.names[k],
                math.nan if k is None else math.degrees(float(views.cameras.azimuth_rad[k])),
                *(math.nan if both is None else measure(*both) for measure in measures),
                detector=face.detector if face else None,
                portrait_detector=portrait.detector if portrait else None,
            )
        )
    return tuple(rows)


def _nearest_view(views: ViewSet, azimuth_deg: float) -> int | None:
    """The level view nearest to an azimuth; among equally near ones the first by name, whatever the order of views."""
    azimuth = np.degrees(views.cameras.azimuth_rad.numpy())
    elevation = np.degrees(views.cameras.elevation_rad.numpy())
    away = np.abs((azimuth - azimuth_deg + 180.0) % 360.0 - 180.0)
    fit = (away <= _NEAR_DEG) & (np.abs(elevation) <= _LEVEL_DEG)
    candidates = [k for k in range(len(views)) if fit[k] and views.names[k] != _PORTRAIT_VIEW]
    return min(candidates, key=lambda k: (round(float(away[k]), 6), views.names[k]), default=None)

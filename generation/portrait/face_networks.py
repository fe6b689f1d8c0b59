"""Where faces are in a square picture, and the 478 landmarks of a face: networks that mediapipe's authors trained.

The networks came out of mediapipe 0.10.9's wheel (`scripts/port_face_networks.py`); what stands round them there
(anchors, suppression, turned crops) is written anew here and gives the same answers. Pictures are square. Places are in
units of the picture's side, (0, 0) its upper left corner, unless a name says pixels.

Source: Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019
(https://arxiv.org/abs/1907.05047), Sec. 3.3-3.4; Kartynnik et al., "Real-time Facial Surface Geometry from Monocular
Video on Mobile GPUs", 2019 (https://arxiv.org/abs/1907.06724), Sec. 2; Grishchenko et al., "Attention Mesh", 2020
(https://arxiv.org/abs/2006.10962), Sec. 2; the steps' order and constants: the graphs in `mediapipe/modules` of
https://github.com/google-ai-edge/mediapipe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, UInt8

from ..networks import NetworkFile
from .layer_graph import LayerGraph, LayerGraphConfig
from .network_input import run_on, warped

NEAR_DETECTOR = NetworkFile("face_detector_near", LayerGraph, LayerGraphConfig)
"""Finds faces that fill much of the picture, as of a person within two metres."""
FAR_DETECTOR = NetworkFile("face_detector_far", LayerGraph, LayerGraphConfig)
"""Finds smaller faces."""
FACE_MESH = NetworkFile("face_mesh", LayerGraph, LayerGraphConfig)
"""Finds the landmarks of one face."""
_KEY_POINTS = 6
"""Right eye, left eye, tip of the nose, mouth, right and left ear."""
_SAME_FACE = 0.3
"""Boxes that share more than this of their union are one face."""
_SAME_CROP = 0.5
"""Squares that share more than this of their union are meshed once."""
_CROP_FACTOR = 1.5
"""Side of the square that the mesh sees, in units of the longer side of the detector's box."""
_MOST_LOGIT = 80.0
"""Scores are cut off here before the sigmoid, which single precision cannot tell from 0 and 1 there."""
_MOST_FACES, _MESH_LEAST_SCORE = 4, 0.2
"""Of so many faces, the surest of the near detector with at least this score, the landmarks are found."""
_LEAST_PRESENCE = 0.5
"""Least probability of the mesh network that there is a face in its crop."""
_SURFACE_COUNT, _IRIS_COUNT = 468, 5
"""Landmarks of the surface, and of each iris."""
# fmt: off
_LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409, 78, 95, 88, 178, 87, 14,
    317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415, 76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306,
    184, 74, 73, 72, 11, 302, 303, 304, 408, 62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268,
    271, 272, 407,
)
_RIGHT_EYE = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173, 130, 25, 110, 24, 23, 22, 26, 112, 243,
    247, 30, 29, 27, 28, 56, 190, 226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189, 35,
    124, 46, 53, 52, 65, 143, 111, 117, 118, 119, 120, 121, 128, 245, 156, 70, 63, 105, 66, 107, 55, 193,
)
_LEFT_EYE = (
    263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398, 359, 255, 339, 254, 253, 252, 256,
    341, 463, 467, 260, 259, 257, 258, 286, 414, 446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442,
    441, 413, 265, 353, 276, 283, 282, 295, 372, 340, 346, 347, 348, 349, 350, 357, 465, 383, 300, 293, 334, 296, 336,
    285, 417,
)
# fmt: on
_EYE_OUTLINE = 16
"""So many points of an eye, the first ones, lie on the lids' edge; the iris lies as deep as they do on average."""


@dataclass(frozen=True)
class FaceBox:
    """A detector's answer."""

    low: Float[np.ndarray, " 2"]
    """Upper left corner of the box round the face, brows to chin."""
    high: Float[np.ndarray, " 2"]
    """Lower right corner."""
    key_points: Float[np.ndarray, "6 2"]
    """Right eye, left eye, tip of the nose, mouth, right and left ear; right and left are the person's."""
    score: float
    """Probability of a face, [0, 1]."""


@dataclass(frozen=True)
class DetectorConfig:
    """One of the two detectors."""

    file: NetworkFile[LayerGraph]
    """Its weights."""
    cells: tuple[tuple[int, int], ...]
    """Grids of its answers: cells a side, answers per cell."""
    least_score: float
    """Answers with a lower score, [0, 1], are no faces."""


NEAR = DetectorConfig(NEAR_DETECTOR, ((16, 2), (8, 6)), 0.5)
FAR = DetectorConfig(FAR_DETECTOR, ((48, 1),), 0.6)


class FaceDetector:
    """Boxes of faces in a square picture."""

    def __init__(self, config: DetectorConfig) -> None:
        self._network, self._least_score = config.file.load().network, config.least_score
        middles = [np.repeat(_cell_middles(side), per_cell, axis=0) for side, per_cell in config.cells]
        self._middles = np.concatenate(middles).astype(np.float32)

    def boxes(self, rgb: UInt8[np.ndarray, "s s 3"]) -> list[FaceBox]:
        """Faces, the surest first; several answers to one face are averaged."""
        side = self._network.config.input_px[0]
        size_px = float(rgb.shape[0])
        seen = warped(rgb, (size_px / 2, size_px / 2), (size_px, size_px), 0.0, (side, side))
        coordinates, logits = (t[0].numpy() for t in run_on([seen], self._network, -1.0, 1.0))
        scores = _probability(logits[:, 0])
        chosen = np.flatnonzero(scores >= self._least_score)
        places = coordinates[chosen].reshape(len(chosen), 2 + _KEY_POINTS, 2) / np.float32(side)
        middle, extent = places[:, 0] + self._middles[chosen], places[:, 1]
        key_points = places[:, 2:] + self._middles[chosen, None]
        boxes = np.concatenate([middle - extent / 2, middle + extent / 2], axis=1)
        real = (extent >= 0).all(axis=1)
        return _averaged(boxes[real], key_points[real], scores[chosen][real])


def _probability(logits: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """The sigmoid."""
    return 1 / (1 + np.exp(-logits.clip(-_MOST_LOGIT, _MOST_LOGIT)))


def _cell_middles(side: int) -> Float[np.ndarray, "n 2"]:
    """Middles of the cells of a grid, row by row, x first."""
    middles = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(middles, middles)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _averaged(
    boxes: Float32[np.ndarray, "n 4"], key_points: Float32[np.ndarray, "n 6 2"], scores: Float32[np.ndarray, " n"]
) -> list[FaceBox]:
    """One box per face: the mean of those that overlap the surest one, weighted by their scores; its score is kept."""
    order = np.argsort(-scores, kind="stable")
    faces = []
    while len(order):
        joined = _overlap(boxes[order[0]], boxes[order]) > _SAME_FACE
        group = order[joined]
        if not len(group):  # a box without an area
            group, joined[0] = order[:1], True
        weights = scores[group] / scores[group].sum()
        box = weights @ boxes[group]
        points = np.einsum("i,ijk->jk", weights, key_points[group])
        faces.append(FaceBox(box[:2], box[2:], points, float(scores[order[0]])))
        order = order[~joined]
    return faces


def _overlap(box: Float[np.ndarray, " 4"], others: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Shared area over the united one; boxes as x and y of the lower corner, then of the upper."""
    shared = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0).prod(axis=1)
    area = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    return np.divide(shared, area, out=np.zeros_like(shared), where=area > 0)


@dataclass(frozen=True)
class _Square:
    """A turned square of a picture, pixels and radians."""

    center_px: tuple[float, float]
    side_px: float
    roll_rad: float
    """Positive clockwise as seen."""

    def overlaps(self, other: _Square) -> bool:
        """Whether it is as good as the other; the turns do not count."""
        return bool(_overlap(self.corners, other.corners[None])[0] > _SAME_CROP)

    @property
    def corners(self) -> Float[np.ndarray, " 4"]:
        """x and y of the lower corner and of the upper one, before the turn."""
        center, half = np.array(self.center_px), self.side_px / 2
        return np.concatenate([center - half, center + half])


class FaceMesh:
    """Landmarks of the faces of a square picture."""

    def __init__(self) -> None:
        self._detector = FaceDetector(replace(NEAR, least_score=_MESH_LEAST_SCORE))
        self._network = FACE_MESH.load().network

    def landmarks(self, rgb: UInt8[np.ndarray, "s s 3"]) -> list[Float[np.ndarray, "478 3"]]:
        """Landmarks of each face that is found, pixels; z away from the camera in the same scale."""
        side_px = rgb.shape[1]
        squares: list[_Square] = []
        for face in self._detector.boxes(rgb)[:_MOST_FACES]:
            square = _face_square(face, side_px)
            squares = [other for other in squares if not square.overlaps(other)]
            squares.append(square)
        if not squares:
            return []
        seen_px = self._network.config.input_px[0]
        crops = [
            warped(rgb, s.center_px, (s.side_px, s.side_px), s.roll_rad, (seen_px, seen_px), edge_goes_on=True)
            for s in squares
        ]
        surface, lips, right_eye, left_eye, right_iris, left_iris, presence = (
            t.numpy() for t in run_on(crops, self._network, 0.0, 1.0)
        )
        surface = surface.reshape(len(squares), _SURFACE_COUNT, 3)
        found = []
        for k in np.flatnonzero(_probability(presence.reshape(-1)) > _LEAST_PRESENCE):
            points = np.concatenate([surface[k], np.zeros((2 * _IRIS_COUNT, 3), np.float32)])
            for indices, finer in ((_LIPS, lips), (_RIGHT_EYE, right_eye), (_LEFT_EYE, left_eye)):
                points[list(indices), :2] = finer[k]
            for start, iris, eye in ((0, right_iris, _RIGHT_EYE), (_IRIS_COUNT, left_iris, _LEFT_EYE)):
                iris_points = points[_SURFACE_COUNT + start :][:_IRIS_COUNT]
                iris_points[:, :2], iris_points[:, 2] = iris[k], points[list(eye[:_EYE_OUTLINE]), 2].mean()
            found.append(_in_picture(points / seen_px, squares[k]))
        return found


def _face_square(face: FaceBox, side_px: int) -> _Square:
    """What the mesh network sees of a face: upright between the eyes, with room round it."""
    right_eye, left_eye = face.key_points[:2] * side_px
    roll = float(np.arctan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0]))
    x, y = (face.low + face.high) / 2 * side_px
    return _Square((float(x), float(y)), _CROP_FACTOR * float((face.high - face.low).max()) * side_px, roll)


def _in_picture(points: Float[np.ndarray, "478 3"], square: _Square) -> Float[np.ndarray, "478 3"]:
    """Landmarks of a turned square (in units of its side) in the picture, pixels."""
    cos, sin = np.cos(square.roll_rad), np.sin(square.roll_rad)
    turned = (points[:, :2].astype(np.float64) - 0.5) @ np.array([[cos, sin], [-sin, cos]])
    xy = turned * square.side_px + square.center_px
    return np.concatenate([xy, points[:, 2:].astype(np.float64) * square.side_px], axis=1)

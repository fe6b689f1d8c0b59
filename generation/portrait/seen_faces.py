"""What a picture shows before anybody makes a head of it: the upright picture and the faces to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from .face_detection import FaceNetworks, find_faces, find_hard_faces, upright_quarter_turns
from .given_alpha import shown_over_white
from .image_io import load_image
from .landmark_network import FACE_LANDMARKS, find_face


@dataclass(frozen=True)
class SeenFaces:
    """An upright picture and the faces that `prepare_portrait` would choose from."""

    rgb: UInt8[np.ndarray, "h w 3"]
    """The picture, sRGB; transparent parts over white."""
    boxes_px: tuple[tuple[float, float, float, float], ...]
    """Left, top, width, height of each face in pixels of the picture, the largest first: `PortraitConfig.face_index`
    counts them so."""
    is_drawn: bool
    """No face was seen but by the network for drawings and profiles, which gives one place and no choice."""
    notices: tuple[str, ...]
    """Sentences about the file for people."""

    @property
    def has_face(self) -> bool:
        """Whether a head can be placed by a face."""
        return bool(self.boxes_px) or self.is_drawn


def seen_faces(path: Path) -> SeenFaces:
    """Read a picture and look for faces, in the order of steps of `prepare_portrait`.

    Raises:
        InputError: the file cannot be used.
    """
    loaded = load_image(path)
    rgb = loaded.rgb if loaded.alpha is None else shown_over_white(loaded.rgb, loaded.alpha)
    networks = FaceNetworks()
    turns = upright_quarter_turns(rgb, networks)
    rgb = np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb
    faces, is_drawn = find_faces(rgb, networks), False
    if not faces:
        is_drawn = find_face(rgb, FACE_LANDMARKS.load()) is not None
    if not faces and not is_drawn:
        faces = find_hard_faces(rgb, networks)
    boxes = []
    for face in faces:
        (left, top), (right, bottom) = face.landmarks_px[:, :2].min(0), face.landmarks_px[:, :2].max(0)
        boxes.append((float(left), float(top), float(right - left), float(bottom - top)))
    return SeenFaces(rgb, tuple(boxes), is_drawn, loaded.notices)

"""The parametric head: linear identity and expression modes over one full-head mesh.

Built from ICT-FaceKit (Li et al. 2020, https://github.com/ICT-VGL/ICT-FaceKit, MIT) by `scripts/build_head_model.py`;
what is stored and how it was made is in `generation/weights/MODEL_CARD.md`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int16, UInt8

from ..weights import shipped_file
from .skull import with_average_skull

PART_FACE, PART_CRANIUM_NECK, PART_MOUTH_SOCKET = 0, 1, 2
PART_EYE_SOCKET_LEFT, PART_EYE_SOCKET_RIGHT = 3, 4
PART_GUMS, PART_TEETH = 5, 6
PART_EYEBALL_LEFT, PART_EYEBALL_RIGHT = 7, 8
LARGEST_VIEW_RAD = (0.70, 0.35)
"""Largest azimuth and elevation, radians, whose landmark offsets were measured; the offsets stay constant beyond."""


@dataclass(frozen=True)
class HeadModel:
    """Arrays of the shipped model. World units and axes as in `generation.cameras`."""

    neutral: Float[np.ndarray, "v 3"]
    """Mean head with a neutral expression, its skull corrected (`skull`)."""
    faces: Int[np.ndarray, "f 3"]
    """Vertex indices, counter-clockwise seen from outside."""
    uv: Float[np.ndarray, "t 2"]
    """Texture coordinates, v upwards; the integer part of u names the tile."""
    faces_uv: Int[np.ndarray, "f 3"]
    """Indices into `uv`."""
    part: UInt8[np.ndarray, " v"]
    """`PART_*` of each vertex."""
    identity_basis: Float[np.ndarray, "i v 3"]
    """Displacement for one standard deviation of each identity mode."""
    expression_basis: Float[np.ndarray, "e v 3"]
    """Displacement of each expression at full strength."""
    expression_names: tuple[str, ...]
    """ARKit-like names of the expressions."""
    landmark_vertices: Int[np.ndarray, "l 3"]
    """For each of mediapipe's 478 face landmarks the three vertices of the triangle it lies in."""
    landmark_weights: Float[np.ndarray, "l 3"]
    """Barycentric weights of those vertices."""
    landmark_spread: Float[np.ndarray, " l"]
    """Standard deviation of the correspondence, world units: how far the landmark slides over identities."""
    landmark_valid: Bool[np.ndarray, " l"]
    """Landmarks with a usable correspondence."""
    landmark_view_offset: Float[np.ndarray, "l 3 6"]
    """How far from that place the detector sees the landmark: coefficients of `view_terms`, canonical frame."""
    version: str
    """Version of the model file."""
    sha256: str
    """Hash of the model file."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], sha256: str) -> HeadModel:
        """The model out of the arrays of its file, whose modes are `steps_of` whole numbers with a scale."""

        def basis(name: str) -> Float[np.ndarray, "m v 3"]:
            scale = arrays[f"{name}_scale"].astype(np.float32)[:, None, None]
            return modes_of(arrays[f"{name}_steps"]).astype(np.float32) * scale

        return cls(
            neutral=with_average_skull(arrays["neutral"].astype(np.float32)),
            faces=arrays["faces"].astype(np.int64),
            uv=arrays["uv"].astype(np.float32),
            faces_uv=arrays["faces_uv"].astype(np.int64),
            part=arrays["part"],
            identity_basis=basis("identity"),
            expression_basis=basis("expression"),
            expression_names=tuple(str(n) for n in arrays["expression_names"]),
            landmark_vertices=arrays["landmark_faces"].astype(np.int64),
            landmark_weights=arrays["landmark_weights"].astype(np.float64),
            landmark_spread=arrays["landmark_spread"].astype(np.float64),
            landmark_valid=arrays["landmark_valid"].astype(bool),
            landmark_view_offset=arrays["landmark_view_offset"].astype(np.float64),
            version=str(arrays["version"]),
            sha256=sha256,
        )

    @property
    def weights_name(self) -> str:
        """Name and hash for provenance."""
        return f"head_model-{self.version} (sha256 {self.sha256[:16]})"

    def vertices(
        self, identity: Float[np.ndarray, " i"], expression: Float[np.ndarray, " e"]
    ) -> Float[np.ndarray, "v 3"]:
        """Vertices of one head, world units, in the canonical pose (face to +z)."""
        shape = self.neutral.astype(np.float64).reshape(-1)
        shape = shape + identity @ self.identity_basis.reshape(len(self.identity_basis), -1)
        shape = shape + expression @ self.expression_basis.reshape(len(self.expression_basis), -1)
        return shape.reshape(-1, 3)

    def landmarks(self, vertices_world: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "l 3"]:
        """The 478 landmarks on a head given by its vertices."""
        return (vertices_world[self.landmark_vertices] * self.landmark_weights[..., None]).sum(1)

    def landmark_offsets(self, azimuth_rad: float, elevation_rad: float) -> Float[np.ndarray, "l 3"]:
        """What the detector adds to the 478 landmarks in a view, world units, canonical frame.

        Args:
            azimuth_rad, elevation_rad: where the camera stands, as in `generation.cameras`.
        """
        return self.landmark_view_offset @ view_terms(azimuth_rad, elevation_rad)

    @property
    def skin_faces(self) -> Int[np.ndarray, "g 3"]:
        """Triangles of the outer skin: face, ears, cranium and neck."""
        return self.faces_of(PART_FACE, PART_CRANIUM_NECK)

    def faces_of(self, *parts: int) -> Int[np.ndarray, "g 3"]:
        """Triangles all of whose vertices belong to the given parts."""
        return self.faces[np.isin(self.part[self.faces], parts).all(1)]


def view_terms(azimuth_rad: float, elevation_rad: float) -> Float[np.ndarray, " 6"]:
    """The quadratic polynomial of a view: 1, a, e, a^2, a e, e^2, with angles held in the measured range."""
    a, e = np.clip([azimuth_rad, elevation_rad], np.negative(LARGEST_VIEW_RAD), LARGEST_VIEW_RAD)
    return np.array([1.0, a, e, a * a, a * e, e * e])


def steps_of(modes: Int16[np.ndarray, "m v 3"]) -> Int16[np.ndarray, "m 3 v"]:
    """Modes as differences from vertex to vertex, which pack to two thirds of the size; `modes_of` undoes it."""
    return np.diff(modes.transpose(0, 2, 1), axis=2, prepend=np.int16(0))  # wraps round, and back


def modes_of(steps: Int16[np.ndarray, "m 3 v"]) -> Int16[np.ndarray, "m v 3"]:
    """Inverse of `steps_of`, exactly."""
    return np.cumsum(steps, axis=2, dtype=np.int16).transpose(0, 2, 1)


@functools.lru_cache(maxsize=1)
def load_head_model() -> HeadModel:
    """The model that ships with the package, read once.

    Raises:
        InputError: the installation is damaged.
    """
    path = shipped_file("head_model.npz")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with np.load(path, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    return HeadModel.from_arrays(arrays, sha256)

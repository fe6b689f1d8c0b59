"""The texels of the head model in the atlas, and pictures made smooth there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8

from dp360.generation.cameras import Cameras
from dp360.generation.head_model import HeadModel
from dp360.generation.mesh_raster import Fragments, interpolate, rasterize_mesh
from dp360.generation.prior.saved_fit import SavedFit
from dp360.generation.prior.texture.atlas import ATLAS_HEIGHT, ATLAS_WIDTH

from .eyes import hidden_shell

FACE_TILE_PX = 1024
"""Side of the face's tile, which begins at the atlas' corner."""


@dataclass(frozen=True)
class HeadTexels:
    """The texels of the head model's parts."""

    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]
    triangle: Int[np.ndarray, " n"]
    material: UInt8[np.ndarray, " n"]
    part: UInt8[np.ndarray, " n"]
    faces: Int[np.ndarray, "f 3"]
    """Vertices of the head model of each triangle."""
    fragments: Fragments

    @classmethod
    def of(cls, fit: SavedFit, model: HeadModel) -> HeadTexels:
        inner = np.concatenate([hidden_shell(model), [True]])[fit.head_vertex]
        kept = ~inner[fit.faces].any(1) & (fit.head_vertex[fit.faces] >= 0).all(1)
        atlas_faces = fit.faces[kept]
        flat = np.concatenate([fit.uv_px, np.ones((len(fit.uv_px), 1))], axis=1)
        identity = torch.eye(4, dtype=torch.float64)[None]
        ones, zeros = torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
        fragments = rasterize_mesh(flat, atlas_faces, Cameras(identity, ones, zeros, ATLAS_WIDTH, ATLAS_HEIGHT))
        rows, columns = np.nonzero(fragments.hit)
        triangle = fragments.triangle_index[rows, columns]
        faces = fit.head_vertex[atlas_faces]
        # a triangle on a border belongs to its rarer part: to the inside of the mouth, not to the face
        part = model.part[faces].max(1)[triangle]
        return cls(rows, columns, triangle, fit.material[kept][triangle], part, faces, fragments)

    def at(self, values: Float[np.ndarray, "v k"]) -> Float32[np.ndarray, "n k"]:
        """Attributes of the head model's vertices at the texels."""
        return interpolate(self.fragments, values, self.faces)[self.rows, self.columns]


def pull_push(premultiplied: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"]) -> np.ndarray:
    """A smooth picture out of scattered pixels: means at each scale, coarser ones where finer ones know nothing.

    Source: S. Gortler et al., "The Lumigraph", SIGGRAPH 1996, Sec. 3.4.
    """
    if min(weight.shape) <= 2:
        return premultiplied / np.maximum(weight, 1e-6)[..., None]
    half = (weight.shape[1] // 2, weight.shape[0] // 2)
    coarse_weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(premultiplied, half, interpolation=cv2.INTER_AREA)
    scale = np.minimum(4 * coarse_weight, 1) / np.maximum(coarse_weight, 1e-6)
    below = pull_push(coarse * scale[..., None], coarse_weight * scale)
    below = cv2.resize(below, weight.shape[::-1], interpolation=cv2.INTER_CUBIC)
    share = np.minimum(weight, 1)[..., None]
    return premultiplied / np.maximum(weight, 1)[..., None] + below * (1 - share)

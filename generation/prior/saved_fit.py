"""`head_fit.npz`: what a rig is made of, kept with a run, so that the head can be animated later.

An .npz of plain arrays (no pickles); `format` counts the layouts. Lengths are world units.

| array | shape | meaning |
| --- | --- | --- |
| `identity`, `expression` | i; e, float64 | coefficients of the head model |
| `vertices_world`, `faces`, `uv_px`, `material`, `head_vertex` | | the prior's mesh, see `AtlasMesh` |
| `texture_picture`, `albedo_picture` | bytes, uint8 | the painted atlas, see `PriorTexture`, whole or smaller; JPEG |
| `confidence_picture`, `portrait_picture` | bytes, uint8 | how far the atlas is seen, the aligned portrait; PNG |
| `landmarks_px` | 478 2, float64 | its landmarks, or none (0 2) |
| `T_world_camera`, `focal_px`, `principal_px` | 4 4; 2; 2, float64 | its camera |
| `light` | 9 3, float64 | the portrait's light, or none (0 3) |
| `facts` | bytes, uint8 | JSON: `format`, `head_model` (its name and hash) |

Layout 1 had names with `_png`, and PNG in all of them: three times as large.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image

from ..cameras import Cameras
from ..errors import InputError
from ..light.spherical_harmonics import Light
from ..portrait import Portrait
from .head_prior import HeadPrior
from .texture.atlas import ATLAS_HEIGHT, ATLAS_WIDTH

FORMAT = 2
_PICTURES = {1: "_png", 2: "_picture"}
"""Ends of the pictures' names by layout."""
_JPEG_QUALITY = 95
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class SavedFit:
    """A fitted head with its prior's mesh and texture, as the portrait shows it."""

    identity: Float[np.ndarray, " i"]
    """Identity coefficients of the head model, standard deviations."""
    expression: Float[np.ndarray, " e"]
    """Expression coefficients of the portrait."""
    vertices_world: Float32[np.ndarray, "v 3"]
    """The prior's mesh with the portrait's expression, world units."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles."""
    uv_px: Float32[np.ndarray, "v 2"]
    """Column and row in the textures, texel centres at +0.5."""
    material: UInt8[np.ndarray, " f"]
    """`MATERIAL_*` of each triangle."""
    head_vertex: Int[np.ndarray, " v"]
    """Vertex of the head model each vertex was split from, -1 for all else."""
    texture_rgb: UInt8[np.ndarray, "h w 3"]
    """Colour in the light that was asked for, sRGB."""
    albedo_rgb: UInt8[np.ndarray, "h w 3"]
    """Colour without light, sRGB."""
    confidence: UInt8[np.ndarray, "h w"]
    """How far the portrait shows each texel, 0 to 255."""
    portrait_rgb: UInt8[np.ndarray, "s s 3"]
    """The aligned portrait."""
    landmarks_px: Float[np.ndarray, "478 2"] | None
    """Its landmarks, where they are known."""
    camera: Cameras
    """Its camera."""
    light: Light | None
    """Its light, where it could be told."""
    head_model: str
    """Name and hash of the head model of the fit."""

    @classmethod
    def of(cls, portrait: Portrait, prior: HeadPrior, head_model: str) -> SavedFit:
        """What is kept of a portrait and its prior.

        Args:
            head_model: name and hash of the model of the fit.
        """
        mesh, texture = prior.mesh, prior.texture
        return cls(
            np.asarray(portrait.head.identity, np.float64), np.asarray(portrait.head.expression, np.float64),
            mesh.vertices_world.astype(np.float32), mesh.faces.astype(np.int64), mesh.uv_px.astype(np.float32),
            mesh.material, mesh.head_vertex.astype(np.int64), texture.rgb, texture.albedo,
            (np.clip(texture.confidence, 0, 1) * 255 + 0.5).astype(np.uint8), portrait.rgb,
            None if portrait.landmarks_px is None else portrait.landmarks_px[:, :2].astype(np.float64),
            portrait.head.camera, texture.portrait_light, head_model,
        )  # fmt: skip

    def encode(self) -> bytes:
        """The bytes of the file; the same head gives the same bytes."""
        landmarks = np.zeros((0, 2)) if self.landmarks_px is None else self.landmarks_px
        facts = {"format": FORMAT, "head_model": self.head_model}
        arrays = {
            "identity": self.identity,
            "expression": self.expression,
            "vertices_world": self.vertices_world,
            "faces": self.faces.astype(np.int32),
            "uv_px": self.uv_px,
            "material": self.material,
            "head_vertex": self.head_vertex.astype(np.int32),
            "texture_picture": _jpeg(self.texture_rgb),
            "albedo_picture": _jpeg(self.albedo_rgb),
            "confidence_picture": _png(self.confidence),
            "portrait_picture": _png(self.portrait_rgb),
            "landmarks_px": landmarks,
            "T_world_camera": self.camera.T_world_camera[0].numpy(),
            "focal_px": self.camera.focal_px[0].numpy(),
            "principal_px": self.camera.principal_px[0].numpy(),
            "light": np.zeros((0, 3)) if self.light is None else self.light.coefficients,
            "facts": np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8),
        }
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        return file.getvalue()


def read_fit(path: Path) -> SavedFit:
    """The fit in a file of `SavedFit.encode`.

    Raises:
        InputError: the file is missing, damaged or of a later version.
    """
    if not path.is_file():
        raise InputError(
            f"Cannot animate: expected {path}, which dp360 run and dp360 views write; make the head again with them"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(file["facts"].tobytes())
            if facts["format"] not in _PICTURES:
                raise InputError(
                    f"Cannot read {path}: expected layout {FORMAT} or earlier, got {facts['format']}; take the version "
                    "of dp360 that made it"
                )
            texture, albedo, confidence, portrait = (
                _picture(file[name + _PICTURES[facts["format"]]])
                for name in ("texture", "albedo", "confidence", "portrait")
            )
            texture, albedo, confidence = map(_of_full_size, (texture, albedo, confidence))
            camera = Cameras(
                *(torch.from_numpy(file[name])[None] for name in ("T_world_camera", "focal_px", "principal_px")),
                width=portrait.shape[1],
                height=portrait.shape[0],
            )
            fit = SavedFit(
                file["identity"], file["expression"], file["vertices_world"], file["faces"].astype(np.int64),
                file["uv_px"], file["material"], file["head_vertex"].astype(np.int64),
                texture, albedo, confidence, portrait,
                file["landmarks_px"] if len(file["landmarks_px"]) else None, camera,
                Light(file["light"]) if len(file["light"]) else None, str(facts["head_model"]),
            )  # fmt: skip
        _refuse_what_does_not_fit(fit)
        return fit
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(f"Cannot read {path}: it is damaged ({error}); make the head again") from error


def _refuse_what_does_not_fit(fit: SavedFit) -> None:
    """See that indices name what is there and numbers are finite.

    Raises:
        ValueError: they do not.
    """
    count = len(fit.vertices_world)
    if len(fit.uv_px) != count or len(fit.head_vertex) != count or len(fit.material) != len(fit.faces):
        raise ValueError("its arrays have different lengths")
    if not len(fit.faces) or fit.faces.min() < 0 or fit.faces.max() >= count:
        raise ValueError("its triangles name vertices that are not there")
    if not (np.isfinite(fit.vertices_world).all() and np.isfinite(fit.uv_px).all()):
        raise ValueError("a number is not finite")


def _of_full_size(picture: UInt8[np.ndarray, "a b *c"]) -> UInt8[np.ndarray, "h w *c"]:
    """A painted atlas with all its texels: those of fast heads have fewer."""
    return cv2.resize(picture, (ATLAS_WIDTH, ATLAS_HEIGHT), interpolation=cv2.INTER_LINEAR)


def _png(picture: UInt8[np.ndarray, ...]) -> UInt8[np.ndarray, " n"]:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=3)
    return np.frombuffer(file.getvalue(), np.uint8)


def _jpeg(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, " n"]:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return np.frombuffer(file.getvalue(), np.uint8)


def _picture(data: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, ...]:
    return np.array(Image.open(io.BytesIO(data.tobytes())))

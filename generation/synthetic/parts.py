"""What a composed head is: textured parts with labels, all in the package's world frame.

The frame is that of `generation.cameras`, the size that of the parametric head: the eyes lie where the mean head has
them and the crown is `CROWN_TO_CHIN` above the chin.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image

CROWN_TO_CHIN = 0.37
"""Height of every composed head without hair, world units; the mean parametric head has it."""
EYES_WORLD = np.array([0.0, 0.0266, 0.1154])
"""Middle between the eyeballs of every composed head: where the mean parametric head has it."""


class Label(enum.IntEnum):
    """What a surface is. Learners that know fewer classes merge them: `SKIN_LABELS` are skin, `BEARD` is hair-like."""

    BACKGROUND = 0
    FACE = 1
    """Skin of head and face with eyes, lashes, teeth and light stubble."""
    NECK = 2
    """Skin below the jaw, bare shoulders included."""
    HAIR = 3
    """Hair of the scalp, cropped hair that is only painted on the skin included."""
    BEARD = 4
    """Beards and moustaches, dense stubble included; hair-like."""
    CLOTH = 5
    """Clothes, collars, scarves round the neck."""
    HEADGEAR = 6
    """Hats, caps, headbands, hoods, veils, helmets."""
    ACCESSORY = 7
    """Jewellery."""
    EAR = 8
    """Ears."""
    BROW = 9
    """Eyebrows."""
    GLASSES = 10
    """Frames of glasses, and lenses that nothing is seen through."""


FACE_LABELS = (Label.FACE, Label.EAR, Label.BROW)
"""Skin of the head."""
SKIN_LABELS = (*FACE_LABELS, Label.NECK)
"""Skin."""

RGB = tuple[float, float, float]
"""A colour, sRGB in [0, 1]."""

_LABEL_OF_PART: Mapping[str, Label] = {
    "hair": Label.HAIR,
    "beard": Label.BEARD,
    "clothes": Label.CLOTH,
    "headgear": Label.HEADGEAR,
    "accessory": Label.ACCESSORY,
    "glasses": Label.GLASSES,
    "eyebrows": Label.BROW,
}


@dataclass(frozen=True)
class Part:
    """One textured surface."""

    name: str
    """What it is: `skin`, `hair`, `eyes`, `clothes` ..."""
    vertices_world: Float[np.ndarray, "v 3"]
    """World units."""
    normals_world: Float[np.ndarray, "v 3"]
    """Unit normals."""
    faces: Int[np.ndarray, "f 3"]
    """Vertex indices."""
    uv_unit: Float[np.ndarray, "t 2"]
    """Texture coordinates, origin at the top left; they repeat outside [0, 1]."""
    faces_uv: Int[np.ndarray, "f 3"]
    """Indices into `uv_unit`."""
    texture: Float32[np.ndarray, "h w 4"]
    """Straight RGBA in [0, 1], sRGB."""
    alpha_tested: bool = False
    """Surfaces that let see what is behind, by the texture's opacity."""
    specular: float = 0.05
    """Strength of the highlight."""
    labels: UInt8[np.ndarray, "lh lw"] | None = None
    """`Label` of each texel, over the same texture coordinates; by the part's name if not given."""
    tangents_world: Float[np.ndarray, "v 3"] | None = None
    """Unit directions of the hairs; such a part is lit as fibres."""
    fibre_lengths: Float[np.ndarray, " v"] | None = None
    """Length of the hair that each vertex belongs to, from root to tip, world units; along with the tangents."""

    @property
    def label_map(self) -> UInt8[np.ndarray, "lh lw"]:
        """`labels`, or one texel with the label that the name stands for."""
        if self.labels is not None:
            return self.labels
        return np.full((1, 1), int(_LABEL_OF_PART.get(self.name, Label.FACE)), np.uint8)

    def with_faces(self, kept: np.ndarray) -> Part:
        """The part with some of its faces only."""
        return replace(self, faces=self.faces[kept], faces_uv=self.faces_uv[kept])


@dataclass(frozen=True)
class SyntheticHead:
    """A composed head and what it is made of."""

    name: str
    """Name of the head."""
    parts: tuple[Part, ...]
    """Its surfaces, in world units."""
    assets: tuple[str, ...]
    """Names of the assets used, for splits by asset and for notices."""
    style: str = "photo"
    """How it is to be drawn: a name of `stylise.STYLES`."""

    def part(self, name: str) -> Part:
        """The first part of that name."""
        return next(part for part in self.parts if part.name == name)


def merged(parts: Sequence[Part]) -> Part:
    """The surfaces of parts as one; the rest is that of the first."""
    vertex = np.cumsum([0, *(len(p.vertices_world) for p in parts)])
    texel = np.cumsum([0, *(len(p.uv_unit) for p in parts)])
    return replace(
        parts[0],
        vertices_world=np.concatenate([p.vertices_world for p in parts]),
        normals_world=np.concatenate([p.normals_world for p in parts]),
        faces=np.concatenate([p.faces + s for p, s in zip(parts, vertex)]),
        uv_unit=np.concatenate([p.uv_unit for p in parts]),
        faces_uv=np.concatenate([p.faces_uv + s for p, s in zip(parts, texel)]),
    )


def read_texture(path: Path, *, largest_side: int | None = None) -> Float32[np.ndarray, "h w 4"]:
    """A picture file as straight RGBA in [0, 1], made smaller if a side is longer than `largest_side`."""
    with Image.open(path) as image:
        if largest_side is not None and max(image.size) > largest_side:
            image.draft("RGB", (largest_side, largest_side))  # JPEG files are decoded at a fraction of their size
            image = image.convert("RGBA")
            if max(image.size) > largest_side:
                factor = largest_side / max(image.size)
                image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BOX)
        return np.asarray(image.convert("RGBA"), dtype=np.float32) / 255


def world_from_asset(
    skin_vertices: Float[np.ndarray, "v 3"], eyes_middle: Float[np.ndarray, " 3"], units_per_metre: float
) -> tuple[float, Float[np.ndarray, " 3"]]:
    """Scale and shift that bring an asset's head to the size and place of the parametric head.

    The chin is found on the middle profile: below the mouth, where the front recedes half-way from chin to neck.

    Args:
        skin_vertices: bald head in the asset's units, y up, face to +z.
        eyes_middle: middle between its eyeballs.
        units_per_metre: of the asset.

    Returns:
        `scale` and `shift`: world = scale * asset + shift.
    """
    cm = units_per_metre / 100
    profile = skin_vertices[np.abs(skin_vertices[:, 0] - eyes_middle[0]) < 1.2 * cm]
    heights = eyes_middle[1] - np.arange(8.5, 19.0, 0.25) * cm
    front = np.array([profile[np.abs(profile[:, 1] - y) < 0.8 * cm, 2].max(initial=-np.inf) for y in heights])
    chin_z, neck_z = front[:8].max(), front.min(where=np.isfinite(front), initial=np.inf)
    chin_y = heights[np.flatnonzero(front < (chin_z + neck_z) / 2)[0]]
    crown_y = skin_vertices[:, 1].max()
    scale = CROWN_TO_CHIN / float(crown_y - chin_y)
    return scale, EYES_WORLD - scale * eyes_middle


def unit(vectors: Float[np.ndarray, "*n 3"], shortest: float = 1e-9) -> Float[np.ndarray, "*n 3"]:
    """Vectors of length 1; those shorter than `shortest` stay short."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), shortest)


def box_middle(points: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, " 3"]:
    """Middle of the box round points, the centre of an eyeball for one."""
    return (points.min(0) + points.max(0)) / 2


def tinted(
    texture: Float32[np.ndarray, "h w 4"], rgb_unit: RGB | Float[np.ndarray, " 3"], *, contrast: float = 1.0
) -> Float32[np.ndarray, "h w 4"]:
    """The texture's brightness pattern in another colour, its visible mean at `rgb_unit`."""
    brightness, alpha = texture[..., :3].mean(-1, keepdims=True), texture[..., 3:]
    mean = float((brightness * alpha).sum()) / max(float(alpha.sum()), 1e-6)
    pattern = np.clip(brightness / mean, 0.25, 2.5) ** contrast if mean > 0.02 else np.ones_like(brightness)
    result = texture.copy()
    result[..., :3] = np.clip(pattern * np.array(rgb_unit, dtype=np.float32), 0, 1)
    return result


def dyed(texture: Float32[np.ndarray, "h w 4"], rgb_unit: RGB) -> Float32[np.ndarray, "h w 4"]:
    """A cloth dyed: folds and prints stay as lighter and darker shades, a hint of its own colours remains."""
    result = tinted(texture, rgb_unit, contrast=0.75)
    hint = texture[..., :3] - texture[..., :3].mean(-1, keepdims=True)
    result[..., :3] = np.clip(result[..., :3] + 0.2 * hint, 0, 1)
    return result

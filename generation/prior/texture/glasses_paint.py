"""Paint glasses: the portrait's colours where it shows them for certain, elsewhere their own with a little light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from ...head_model.anatomy import centimetres
from ...portrait import Portrait
from ..labels.portrait_labels import PortraitLabels
from ..labels.segmenter import GLASSES
from ..worn.glasses import Glasses
from ..worn.glasses_mesh import ARM, LENS, part_of_texels
from .atlas import GLASSES_TILE, MATERIAL_EYE, MATERIAL_GLASSES, AtlasTexels
from .painted import Painted
from .portrait_lookup import PictureOfMesh, SeenPoints

_SURE = (0.75, 0.95)
"""The portrait's colour begins to count at the first probability of the class, and counts fully from the second on."""
_FROM_ABOVE, _LIGHT = 0.22, np.array([0.0, 0.8, 0.6])
"""Light that plain wires are painted with: more from above by this share, and a glint where they face it."""
_IRIS_CM, _PUPIL_CM = 0.6, 0.22
"""Radii of the iris and the pupil, seen from the front."""
_IRIS_RGB, _PUPIL_RGB = np.array([0.22, 0.15, 0.1]), np.array([0.03, 0.03, 0.03])
"""Most people's eyes are brown."""
_WHITE = np.array([0.82, 0.80, 0.79])
"""The white of an eye beside the brightest skin."""
_ODD_TEXELS = 11
"""Texels unlike most within this many are odd."""
_BESIDE_SKIN = 1.25
"""The white of an eye is no brighter than the skin's strongest channel times this: light falls on both."""
_GLINT, _SHARPNESS = 0.1, 14
"""Strength of the glint, of 1, and how narrow it is."""


def paint_glasses(
    glasses: Glasses, portrait: Portrait, labels: PortraitLabels, picture: PictureOfMesh, texels: AtlasTexels,
    shade_at: Callable[[Int[np.ndarray, " m"]], Float32[np.ndarray, "m 3"]],
) -> Painted:  # fmt: skip
    """Frame and opaque lenses.

    Args:
        glasses: of which the mesh was made.
        portrait, labels: what shows them.
        picture: the portrait as a picture of the mesh.
        texels: of the atlas.
        shade_at: takes numbers of texels and gives the factor of the portrait's light on them.
    """
    chosen = np.nonzero(texels.material == MATERIAL_GLASSES)[0]
    points, normals = texels.points_world[chosen], texels.normals_world[chosen]
    part = part_of_texels(
        texels.step * texels.rows[chosen] - GLASSES_TILE[1], texels.step * texels.columns[chosen] - GLASSES_TILE[0]
    )
    base = np.tile(glasses.frame_rgb, (len(chosen), 1))
    base[part == ARM] = glasses.arm_rgb
    if glasses.lens_rgb is not None:
        base[part == LENS] = glasses.lens_rgb
    plain = np.clip(base * (1 + _FROM_ABOVE * normals[:, 1:2]) + _glint(normals)[:, None], 0, 1)
    image = picture.image.copy()
    image[..., -1] = np.clip((labels.classes[..., GLASSES] - _SURE[0]) / (_SURE[1] - _SURE[0]), 0, 1)
    image[..., -1] *= portrait.inside
    seen = replace(picture, image=image).look_up(points, normals).divided_by(shade_at(chosen))
    trust = seen.trust.astype(np.float64)
    return Painted(chosen, plain + (seen.colour - plain) * trust[:, None], trust)


def paint_hidden_eyes(
    glasses: Glasses, texels: AtlasTexels, own: SeenPoints, skin_rgb: Float[np.ndarray, " 3"]
) -> Painted:
    """Eyes behind opaque lenses: plain ones that look straight ahead, where the portrait does not show them.

    Args:
        glasses: with opaque lenses.
        texels: of the atlas.
        own: what the portrait says about them.
        skin_rgb: typical colour of the portrait's skin.
    """
    chosen = np.nonzero(texels.material == MATERIAL_EYE)[0]
    points = centimetres(texels.points_world[chosen].astype(np.float64))
    eye = glasses.face.eyes_cm[(points[:, 0] > glasses.face.eyes_cm[:, 0].mean()).astype(int)]
    radius = np.linalg.norm((points - eye)[:, :2], axis=1)
    in_front = points[:, 2] > eye[:, 2] - 2 * _IRIS_CM
    light = min(1.0, _BESIDE_SKIN * float(skin_rgb.max()))
    kind = np.zeros(texels.shape, np.uint8)
    place = texels.rows[chosen], texels.columns[chosen]
    kind[place] = np.where(in_front, (radius < _IRIS_CM).astype(np.uint8) + (radius < _PUPIL_CM), 0)
    kind = cv2.medianBlur(kind, _ODD_TEXELS // (2 * texels.step) * 2 + 1).astype(
        np.int64
    )  # the eyeball has layers that share texels
    plain = light * np.stack([_WHITE, _IRIS_RGB, _PUPIL_RGB])[kind[place]]
    trust = own.trust[chosen].astype(np.float64)
    return Painted(chosen, plain + (own.colour[chosen] - plain) * trust[:, None], trust)


def _glint(normals: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    return _GLINT * np.clip(normals @ _LIGHT, 0, 1) ** _SHARPNESS

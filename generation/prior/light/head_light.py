"""How the light of a portrait falls on the fitted head, and colours with and without it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from scipy.spatial import KDTree

from ...head_model import HeadModel
from ...head_model.anatomy import LIPS, Box, centimetres, ramp
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from ...light.exposure import GAMMA, Exposure
from ...light.spherical_harmonics import LUMINANCE, Light, shadowed_transfer
from ...mesh import smoothed_over_faces, vertex_areas
from ...portrait import Portrait
from .. import capsule
from ..labels.portrait_labels import CLOTH, HAIR, SKIN, PortraitLabels
from ..labels.segmenter import BEARD, BROW
from ..texture.atlas import MATERIAL_CLOTH, MATERIAL_HAIR, MATERIAL_HEADGEAR, AtlasMesh
from ..texture.portrait_lookup import PictureOfMesh
from .light_fit import LitCells, MirroredCells, fit_light
from .skin_shade import LEAST_WEIGHT, skin_shade

_ROWS, _COLUMNS = 56, 64
"""Cells round the head that colours are averaged in."""
_COSINES = (0.2, 0.5)
"""Surfaces count as seen from the first cosine between normal and view on, fully from the second."""
_EYES = Box((0.6, 1.0, 4.0), (6.0, 4.6, np.inf))
_LITTLE = 0.1
"""Weight of eyes, brows and blown-out pixels."""
_BLOWN_OUT = 0.985
_SOFT = {MATERIAL_HAIR: 0.3, MATERIAL_CLOTH: 0.2, MATERIAL_HEADGEAR: 0.2}
"""Share of the light on hair and what is worn that comes from everywhere: strands and folds pass it on."""
_GUESSED, _FACING = 0.85, (-0.5, 0.2)
"""Power of the light on surfaces that are turned away from the camera, where it is but guessed, so that it is nearer to
even light there; cosines between normal and camera below which all of this holds, and above which nothing."""
_LEAST_CELL_WEIGHT = 0.02


@dataclass(frozen=True)
class HeadLight:
    """Light on the vertices of a prior's mesh."""

    light: Light | None
    """The portrait's; None where it could not be told."""
    misfit: float
    """How far skin is from one tone under it, relative."""
    shade: Float32[np.ndarray, "v 3"]
    """Factor on sRGB colours at each vertex; about 1 on the skin that is seen."""
    mirrored_shade: Float32[np.ndarray, "v 3"]
    """The factor at the mirror image of each vertex."""
    wanted_shade: Float32[np.ndarray, "v 3"]
    """The factor in the light that was asked for, where the head itself is in the way of some of it."""

    @staticmethod
    def unknown(mesh: AtlasMesh) -> HeadLight:
        """Even light."""
        one = np.ones((len(mesh.vertices_world), 3), np.float32)
        return HeadLight(None, 0.0, one, one, one)


def light_of_portrait(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, mesh: AtlasMesh, picture: PictureOfMesh,
    log_light: Float32[np.ndarray, "s s 3"], wanted: Light | None = None,
) -> HeadLight:  # fmt: skip
    """The light of a portrait on its prior's mesh, and another one that is wanted.

    On skin that is seen `log_light` says what light does; harmonics are fitted to it and say so for all else.

    Args:
        portrait: aligned portrait.
        labels: its classes.
        model: the head model.
        mesh: the fitted mesh.
        picture: the portrait over it.
        log_light: of `shade_of_picture`.
        wanted: the light for `wanted_shade`; the portrait's own if not given.
    """
    material = vertex_material(len(mesh.vertices_world), mesh.faces, mesh.material)
    transfer = transfer_of_head(mesh.vertices_world, mesh.normals_world, mesh.faces, material)
    skin = _skin_vertices(model, mesh)
    seen = _for_light(picture, portrait, labels)
    points, normals = mesh.vertices_world.astype(np.float32), mesh.normals_world.astype(np.float32)
    found = seen.look_up(points, normals, cosines=_COSINES)
    told = replace(seen, image=np.concatenate([log_light, seen.image[..., 3:]], axis=-1))
    log_of_vertex = told.look_up(points, normals, cosines=_COSINES).colour
    weight = found.trust * np.where(found.colour.max(-1) > _BLOWN_OUT, _LITTLE, 1)
    linear = found.colour.astype(np.float64) ** GAMMA
    plain, of_skin = _plainness(model, mesh), found.trust * found.classes[:, SKIN]
    area = vertex_areas(mesh.vertices_world, mesh.faces)
    on_skin = skin_shade(mesh.vertices_world, log_of_vertex, of_skin, skin, plain, area)

    def cells(colour: np.ndarray, chosen: Bool[np.ndarray, " v"], factor: np.ndarray) -> tuple[np.ndarray, LitCells]:
        return _in_cells(mesh.vertices_world[chosen], colour[chosen], transfer[chosen], (weight * factor)[chosen])

    as_light = linear if on_skin is None else np.exp(GAMMA * on_skin.log_factor.astype(np.float64))
    skin_cell, skin_cells = cells(as_light, skin, np.where(of_skin > LEAST_WEIGHT, found.classes[:, SKIN] * plain, 0))
    others = [
        cells(linear, material == which, found.classes[:, channel])[1]
        for which, channel in ((MATERIAL_HAIR, HAIR), (MATERIAL_CLOTH, CLOTH))
    ]
    azimuth = float(portrait.head.camera.azimuth_rad[0])
    fitted = fit_light(skin_cells, _mirrored_pairs(skin_cell, skin_cells), others, azimuth)
    if fitted is None or on_skin is None:
        unknown = HeadLight.unknown(mesh)
        if wanted is None or not skin_cells.weight.any():
            return unknown
        return replace(unknown, wanted_shade=_shade_of(wanted, transfer, skin_cells))
    reached = skin_cells.transfer @ fitted.light.coefficients
    camera = portrait.head.camera.position_world[0].numpy()
    towards = camera - mesh.vertices_world
    facing = (mesh.normals_world * towards).sum(1) / np.linalg.norm(towards, axis=1)
    believed = _GUESSED + (1 - _GUESSED) * ramp(facing, *_FACING)
    exposure = _exposure_as_told(reached, skin_cells)
    shade = on_skin.over(exposure.shade(transfer @ fitted.light.coefficients) ** believed[:, None])
    partner = _partners(mesh, material)
    wanted_shade = shade if wanted is None else _shade_of(wanted, transfer, skin_cells)
    return HeadLight(fitted.light, fitted.misfit, shade, shade[partner], wanted_shade)


def transfer_of_head(
    vertices_world: Float[np.ndarray, "v 3"], normals_world: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"],
    material: UInt8[np.ndarray, " v"],
) -> Float[np.ndarray, "v 9"]:  # fmt: skip
    """How light reaches the vertices of a head: `shadowed_transfer`, softer on hair and on what is worn.

    Args:
        vertices_world, normals_world, faces: the mesh.
        material: of each vertex.
    """
    transfer = smoothed_over_faces(shadowed_transfer(vertices_world, normals_world, faces), faces, 3)
    for which, share in _SOFT.items():
        transfer[material == which] = softened(transfer[material == which], share)
    return transfer


def _exposure_as_told(reached: Float[np.ndarray, "c 3"], told: LitCells) -> Exposure:
    """The exposure that makes reckoned light as bright as what is told of seen skin."""
    exposure = Exposure.of(reached, told.weight)
    share = (told.weight * (told.rgb_linear @ LUMINANCE)).sum() / (told.weight * (reached @ LUMINANCE)).sum()
    return replace(exposure, middle=float(np.clip(1 / share, 0.5 * exposure.middle, 2 * exposure.middle)))


def _shade_of(light: Light, transfer: Float[np.ndarray, "v 9"], seen: LitCells) -> Float32[np.ndarray, "v 3"]:
    """Factors on sRGB colours in a given light, whose colour is seen."""
    exposure = Exposure.of(seen.transfer @ light.coefficients, seen.weight, white=np.ones(3))
    return exposure.shade(transfer @ light.coefficients)


def vertex_material(
    count: int, faces: Int[np.ndarray, "f 3"], material: UInt8[np.ndarray, " f"]
) -> UInt8[np.ndarray, " count"]:
    """Material of each vertex' triangles; 255 for vertices of none."""
    of_vertex = np.full(count, 255, np.uint8)
    of_vertex[faces.ravel()] = np.repeat(material, 3)
    return of_vertex


def _skin_vertices(model: HeadModel, mesh: AtlasMesh) -> Bool[np.ndarray, " v"]:
    of_head = mesh.head_vertex >= 0
    part = model.part[np.maximum(mesh.head_vertex, 0)]
    return of_head & np.isin(part, (PART_FACE, PART_CRANIUM_NECK))


def _plainness(model: HeadModel, mesh: AtlasMesh) -> Float[np.ndarray, " v"]:
    """1 on plain skin, 0 on lips, little about the eyes, by the head model's vertices."""
    points = centimetres(model.neutral)
    plain = np.where(LIPS.holds(points), 0.0, np.where(_EYES.holds(points), _LITTLE, 1.0))
    return np.where(mesh.head_vertex >= 0, plain[np.maximum(mesh.head_vertex, 0)], 0.0)


def _for_light(picture: PictureOfMesh, portrait: Portrait, labels: PortraitLabels) -> PictureOfMesh:
    """The picture with fine detail averaged away; beards and brows are no skin."""
    image = picture.image.copy()
    sigma = max(1.0, portrait.size_px / 256)
    image[..., :3] = cv2.GaussianBlur(image[..., :3], (0, 0), sigma)
    image[..., 3] *= 1 - labels.classes[..., (BEARD, BROW)].sum(-1).clip(0, 1)
    return replace(picture, image=image)


def _in_cells(
    points_world: Float[np.ndarray, "n 3"], linear: Float[np.ndarray, "n 3"], transfer: Float[np.ndarray, "n 9"],
    weight: Float[np.ndarray, " n"],
) -> tuple[np.ndarray, LitCells]:  # fmt: skip
    """Means in cells round the head, and the number of each cell."""
    row, column, _ = capsule.cell_coordinates(points_world)
    row = np.clip(np.round(row * (_ROWS / capsule.ROWS)), 0, _ROWS - 1).astype(np.int64)
    column = np.round(column * (_COLUMNS / capsule.COLUMNS)).astype(np.int64) % _COLUMNS
    cell, size = row * _COLUMNS + column, _ROWS * _COLUMNS
    mass, count = np.bincount(cell, weight, size), np.bincount(cell, minlength=size)
    mean_weight = mass / np.maximum(count, 1)
    kept = np.nonzero(mean_weight > _LEAST_CELL_WEIGHT)[0]
    values = np.concatenate([linear, transfer], axis=1)
    sums = np.stack([np.bincount(cell, weight * values[:, c], size)[kept] for c in range(values.shape[1])], axis=1)
    means = sums / mass[kept, None]
    return kept, LitCells(means[:, :3], means[:, 3:], mean_weight[kept])


def _mirrored_pairs(cell: np.ndarray, cells: LitCells) -> MirroredCells:
    """Pairs of seen cells on either side of the middle plane."""
    number = np.full(_ROWS * _COLUMNS, -1)
    number[cell] = np.arange(len(cell))
    row, column = np.divmod(cell, _COLUMNS)
    partner = number[row * _COLUMNS + (-column) % _COLUMNS]
    first = np.nonzero((partner >= 0) & (column > 0) & (column < _COLUMNS // 2))[0]

    def chosen(index: np.ndarray) -> LitCells:
        return LitCells(cells.rgb_linear[index], cells.transfer[index], cells.weight[index])

    return MirroredCells(chosen(first), chosen(partner[first]))


def softened(transfer: Float[np.ndarray, "n 9"], share: float) -> Float[np.ndarray, "n 9"]:
    """A share of the light replaced by light from everywhere, half of it blocked where the rest is."""
    softer = (1 - share) * transfer
    softer[:, 0] += share * 0.5 * (transfer[:, 0] + 0.282095)
    return softer


def _partners(mesh: AtlasMesh, material: np.ndarray) -> np.ndarray:
    """The vertex of the same material that is nearest to the mirror image of each vertex."""
    partner = np.arange(len(material))
    for which in np.unique(material):
        on = np.nonzero(material == which)[0]
        points = mesh.vertices_world[on]
        partner[on] = on[KDTree(points).query(points * [-1, 1, 1])[1]]
    return partner

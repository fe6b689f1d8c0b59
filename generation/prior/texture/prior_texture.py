"""Paint the prior: what the portrait shows, its mirror image where that is hidden, and a completion where both are.

Every texel looks itself up in the portrait, and its reflection about the head's middle plane as well. What the portrait
plainly shows stays as it is. Everything else is the completion network's smooth colour plus the difference between it
and what is seen nearby, which fades with the distance, so that there is no border; hair gets the strands or brush
strokes of the hair that is seen. Colours count as seen only where the matte is solid and the class fits.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from scipy import ndimage

from ...head_model import HeadModel
from ...head_model.anatomy import CHIN_LANDMARK, EAR_HOLLOW, centimetres
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from ...mesh_raster import interpolate
from ...networks import LoadedNetwork
from ...portrait import Portrait
from .. import capsule
from ..labels.portrait_labels import CLOTH, HAIR, SKIN, PortraitLabels, scalp_prior
from .atlas import (
    ATLAS_HEIGHT,
    ATLAS_WIDTH,
    MATERIAL_CLOTH,
    MATERIAL_EYE,
    MATERIAL_HAIR,
    MATERIAL_MOUTH,
    MATERIAL_SKIN,
    MATERIAL_TEETH,
    SHELL_TILE,
    TORSO_TILE,
    AtlasMesh,
    AtlasTexels,
    atlas_texels,
    fill_uncovered,
)
from .completion_chart import LookedUp, chart_of_portrait, chart_places, chart_subset
from .completion_network import (
    COLUMNS,
    COMPLETION,
    COVER,
    LOWER_ROWS,
    SKIN_BELOW,
    SKIN_MATERIAL,
    UPPER_ROWS,
    CompletionNet,
    complete,
    place_on_head,
    sample_chart,
)
from .fills import diffuse_over_mesh, push_pull, wrapped_blur
from .hair_detail import combed_detail, noise_strands, quilt
from .portrait_lookup import PictureOfMesh, SeenPoints, picture_of_portrait

_REDUCE = 4
"""Fills and soft borders are computed at a lower resolution."""
_DETAIL_SIGMA_PX = 18.0
"""Texels; what is finer is detail, what is coarser the network's."""
_MOST_DETAIL = 0.9
_HAIR_FADE_PX, _CLOTH_FADE_PX = 90.0, 30.0
"""Texels over which what is seen moves the colours beside it."""
_FLOOR = 0.03
_MOST_CARRIED = 0.12

Chart = Float32[np.ndarray, "2 rows columns 3"]


@dataclass(frozen=True)
class PriorTexture:
    """The painted atlas."""

    rgb: UInt8[np.ndarray, "h w 3"]
    """Colour, sRGB."""
    confidence: Float32[np.ndarray, "h w"]
    """1 where the portrait shows the texel, about 0.5 where its mirror image does, 0 where it is made up."""


def paint_prior(
    portrait: Portrait,
    labels: PortraitLabels,
    model: HeadModel,
    mesh: AtlasMesh,
    *,
    seed: int = 0,
    completion: LoadedNetwork[CompletionNet] | None = None,
) -> PriorTexture:
    """Paint the atlas of a fitted prior from its portrait.

    Args:
        portrait: aligned portrait.
        labels: its classes.
        model: the head model.
        mesh: head, shell and torso with their texture layout.
        seed: seed of the synthesised hair.
        completion: the network; None takes the one that ships.
    """
    picture = picture_of_portrait(portrait, labels, mesh)
    texels = atlas_texels(mesh)
    looked_up = LookedUp.of(portrait, labels, picture, texels)
    typical = looked_up.typical.rgb_unit
    azimuth = float(portrait.head.camera.azimuth_rad[0])
    chosen = chart_subset(texels)
    chart = chart_of_portrait(texels, chosen, looked_up[chosen], chart_places(texels, chosen, azimuth))
    smooth = complete(chart, typical, completion or COMPLETION.load())

    texture = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH, 3), np.float32)
    confidence = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH), np.float32)
    detail: Float32[np.ndarray, "h w 3"] | None = None
    for material, tile in ((MATERIAL_HAIR, SHELL_TILE), (MATERIAL_CLOTH, TORSO_TILE)):
        chosen = np.nonzero(texels.material == material)[0]
        if not len(chosen):
            continue
        sides = (looked_up.own, looked_up.mirrored)
        seen, reflected = (seen_in_tile(texels, chosen, points, tile) for points in sides)
        if material == MATERIAL_HAIR:
            colour, trust, detail = paint_shell(seen, reflected, smooth, seed)
        else:
            colour, trust = paint_torso(seen, smooth, azimuth)
        x, y, width, height = tile
        texture[y : y + height, x : x + width], confidence[y : y + height, x : x + width] = colour, trust

    skin = paint_skin(labels, model, mesh, picture, texels, looked_up, smooth, detail)
    for painted in (skin, _paint_small_parts(texels, looked_up.own, typical[SKIN_MATERIAL])):
        place = texels.rows[painted.texels], texels.columns[painted.texels]
        texture[place], confidence[place] = painted.rgb_unit, painted.confidence

    head_rows = SHELL_TILE[1]  # below lie the tiles that are full
    covered = np.zeros((head_rows, ATLAS_WIDTH), bool)
    above = texels.rows < head_rows
    covered[texels.rows[above], texels.columns[above]] = True
    texture[:head_rows] = fill_uncovered(texture[:head_rows], covered)
    return PriorTexture((np.clip(texture, 0, 1) * 255 + 0.5).astype(np.uint8), confidence)


def _paint_small_parts(texels: AtlasTexels, own: SeenPoints, skin_rgb: Float[np.ndarray, " 3"]) -> Painted:
    """Eyes, teeth and the inside of the mouth: seen where they are seen, plain elsewhere."""
    plain = {
        MATERIAL_MOUTH: skin_rgb * np.array([0.45, 0.3, 0.3]),
        MATERIAL_TEETH: np.array([0.80, 0.76, 0.70]),
        MATERIAL_EYE: np.array([0.82, 0.80, 0.79]),
    }
    chosen = np.nonzero(np.isin(texels.material, list(plain)))[0]
    base = np.zeros((len(chosen), 3))
    for material, colour in plain.items():
        base[texels.material[chosen] == material] = colour
    trust = own.trust[chosen]
    return Painted(chosen, base + (own.colour[chosen] - base) * trust[:, None], trust)


@dataclass(frozen=True)
class Painted:
    """Some texels with their colours."""

    texels: Int[np.ndarray, " n"]
    """Their numbers."""
    rgb_unit: Float[np.ndarray, "n 3"]
    """Colours, sRGB."""
    confidence: Float[np.ndarray, " n"]
    """1 where the portrait shows the texel, about 0.5 where its mirror image does, 0 where it is made up."""


def seen_in_tile(
    texels: AtlasTexels, chosen: Int[np.ndarray, " n"], seen: SeenPoints, tile: tuple[int, int, int, int]
) -> SeenPoints:
    """What the portrait says about the texels of one tile, as pictures; 0 off the mesh.

    Args:
        texels: of the atlas.
        chosen: numbers of the tile's texels.
        seen: what the portrait shows of all texels.
        tile: column, row, width and height in the atlas.
    """
    x, y, width, height = tile
    place = (texels.rows[chosen] - y, texels.columns[chosen] - x)
    images = []
    for values in (seen.colour, seen.trust, seen.classes):
        image = np.zeros((height, width, *values.shape[1:]), np.float32)
        image[place] = values[chosen]
        image[:, -1] = image[:, 0]  # the seam column belongs to the next turn
        images.append(image)
    return SeenPoints(*images)


@dataclass(frozen=True)
class SkinMesh:
    """Face, ears, cranium and neck as one mesh without texture seams, for fills that run over it."""

    vertices: Int[np.ndarray, " v"]
    """Their numbers in the head model."""
    points_world: Float[np.ndarray, "v 3"]
    """World units."""
    normals_world: Float[np.ndarray, "v 3"]
    """Unit normals."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles between them."""

    @staticmethod
    def of(model: HeadModel, mesh: AtlasMesh) -> SkinMesh:
        """The skin of a fitted mesh."""
        used = np.isin(model.part, (PART_FACE, PART_CRANIUM_NECK))
        split = np.nonzero((mesh.head_vertex >= 0) & used[np.maximum(mesh.head_vertex, 0)])[0]
        vertices, first = np.unique(mesh.head_vertex[split], return_index=True)
        index = np.full(len(model.neutral), -1)
        index[vertices] = np.arange(len(vertices))
        faces = index[model.faces]
        return SkinMesh(
            vertices,
            mesh.vertices_world[split[first]],
            mesh.normals_world[split[first]],
            faces[(faces >= 0).all(1)],
        )

    def for_mesh(self, values: Float[np.ndarray, "v c"], model: HeadModel, mesh: AtlasMesh) -> Float[np.ndarray, "w c"]:
        """Values per vertex of the atlas' mesh, 0 off the skin."""
        fields = np.zeros((len(model.neutral), values.shape[1]))
        fields[self.vertices] = values
        return np.where((mesh.head_vertex >= 0)[:, None], fields[np.maximum(mesh.head_vertex, 0)], 0.0)


def paint_skin(
    labels: PortraitLabels, model: HeadModel, mesh: AtlasMesh, picture: PictureOfMesh, texels: AtlasTexels,
    looked_up: LookedUp, smooth: Chart, detail: Float32[np.ndarray, "h w 3"] | None,
) -> Painted:  # fmt: skip
    """Skin of face, ears, scalp and neck.

    Args:
        labels: the portrait's classes.
        model: the head model.
        mesh: the fitted mesh.
        picture: the portrait over it.
        texels: of the atlas.
        looked_up: what the portrait says about them.
        smooth: the network's colours.
        detail: of the hair on the shell's tile, for the scalp where the shell ends; None without a shell.
    """
    skin, tone = SkinMesh.of(model, mesh), looked_up.tone
    points = skin.points_world.astype(np.float32)
    v_own, v_mirror = picture.look_up_both(points, skin.normals_world)
    base = {
        SKIN: sample_chart(smooth, place_on_head(points, SKIN_BELOW)).astype(np.float64),
        HAIR: sample_chart(smooth, place_on_head(points, COVER)).astype(np.float64),
    }
    own_skin = v_own.trust * v_own.classes[:, SKIN] * tone.belief(v_own.colour)
    mirror_skin = v_mirror.trust * v_mirror.classes[:, SKIN] * tone.belief(v_mirror.colour)
    # Light from one side: how the two sides differ where both are seen, carried on over the skin.
    difference = (v_own.colour - v_mirror.colour).astype(np.float64)
    both = (own_skin * mirror_skin).astype(np.float64)
    correction = diffuse_over_mesh(difference, both, skin.faces, np.zeros(3), stiffness=0.3, pull=0.006)

    def filled(which: int, w_own: np.ndarray, w_mirror: np.ndarray) -> Float[np.ndarray, "v 3"]:
        """The network's colour, moved to what is seen nearby."""
        w_mirror = w_mirror * (1 - w_own)
        weight = (w_own + w_mirror).astype(np.float64)
        colour = v_own.colour * w_own[:, None] + (v_mirror.colour + correction) * w_mirror[:, None]
        error = colour / np.maximum(weight, 1e-6)[:, None] - base[which]
        return base[which] + diffuse_over_mesh(error, weight, skin.faces, np.zeros(3), stiffness=0.05, pull=1.5e-3)

    scalp = _scalp(model)[skin.vertices][:, None] * (0.0 if labels.bald else 1.0)
    fill = filled(SKIN, own_skin, mirror_skin) * (1 - scalp) + scalp * filled(
        HAIR, v_own.trust * v_own.classes[:, HAIR], v_mirror.trust * v_mirror.classes[:, HAIR]
    )
    chosen = np.nonzero(texels.material == MATERIAL_SKIN)[0]
    at_vertex = skin.for_mesh(np.concatenate([fill, correction, scalp], axis=1), model, mesh)
    at_texel = interpolate(texels.fragments, at_vertex, mesh.faces)[texels.rows[chosen], texels.columns[chosen]]
    below, shift, on_scalp = at_texel[:, :3], at_texel[:, 3:6], at_texel[:, 6]
    own, mirrored = looked_up.own[chosen], looked_up.mirrored[chosen]
    if detail is not None:
        below = below * np.exp(_at_places(detail, texels.points_world[chosen]) * on_scalp[:, None])
    # Collars and matte colours on the neck are not kept where they are seen from the side.
    on_neck = texels.points_world[chosen, 1] < model.landmarks(model.neutral)[CHIN_LANDMARK, 1]
    foreign = np.maximum(own.classes[:, CLOTH], on_neck) * (1 - tone.belief(own.colour))
    trust = own.trust * (1 - foreign * np.clip(8 - 8 * own.trust, 0, 1))
    trust = trust * _soft_border(trust, texels, chosen)
    fits = mirrored.classes[:, SKIN] * tone.belief(mirrored.colour) * (1 - on_scalp)
    fits = fits + mirrored.classes[:, HAIR] * on_scalp
    m_trust = mirrored.trust * np.clip(fits, 0, 1)
    m_trust = m_trust * _soft_border(m_trust, texels, chosen)
    hidden = below + (mirrored.colour + shift - below) * m_trust[:, None]
    return Painted(chosen, hidden + (own.colour - hidden) * trust[:, None], np.maximum(trust, 0.5 * m_trust))


def _soft_border(
    trust: Float[np.ndarray, " n"], texels: AtlasTexels, chosen: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"]:
    """A factor that lets trust end gently where visibility or the matte would cut it off.

    Args:
        trust: of some texels.
        texels: of the atlas.
        chosen: numbers of these texels.
    """
    height, width = ATLAS_HEIGHT // _REDUCE, ATLAS_WIDTH // _REDUCE
    row, column = texels.rows[chosen] // _REDUCE, texels.columns[chosen] // _REDUCE
    cell = row * width + column
    mass = np.bincount(cell, minlength=height * width).reshape(height, width).astype(np.float32)
    total = np.bincount(cell, trust, minlength=height * width).reshape(height, width).astype(np.float32)
    sigma = 9 / _REDUCE
    around = cv2.GaussianBlur(total, (0, 0), sigma) / np.maximum(cv2.GaussianBlur(mass, (0, 0), sigma), 1e-2)
    around = cv2.resize(around, (ATLAS_WIDTH, ATLAS_HEIGHT), interpolation=cv2.INTER_LINEAR)
    return np.clip(1.6 * around[texels.rows[chosen], texels.columns[chosen]] - 0.3, 0.0, 1.0)


def paint_shell(
    seen: SeenPoints, reflected: SeenPoints, smooth: Chart, seed: int
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 3"]]:
    """Hair: own pixels, mirrored ones, then the network's colour with detail by example.

    Args:
        seen: what the portrait shows.
        reflected: what it shows of the mirror images.
        smooth: the network's colours.
        seed: of the detail.

    Returns:
        Colour, confidence, and the detail alone as logarithms of factors.
    """
    height, width = seen.trust.shape
    own = _inner(seen.trust * seen.classes[..., HAIR])
    mirror = _inner(reflected.trust * reflected.classes[..., HAIR])
    both = own * mirror
    mass = _reduced(both, _REDUCE)
    mean = _reduced((seen.colour - reflected.colour) * both[..., None], _REDUCE) / np.maximum(mass, 1e-5)[..., None]
    difference = _enlarged(push_pull(mean, mass + np.float32(1e-6)), _REDUCE)
    m_colour = np.clip(reflected.colour + 0.7 * difference, 0, 1)
    w_mirror = mirror * (1 - own)
    weight = own + w_mirror
    colour = (seen.colour * own[..., None] + m_colour * w_mirror[..., None]) / np.maximum(weight, 1e-6)[..., None]

    base = _shell_picture(smooth, height, width)
    mean, mass = _local_mean(colour, weight)
    fill = np.clip(base + _carried_on(mean - base, mass, _HAIR_FADE_PX), 0.01, 1)
    detail = np.log((colour + _FLOOR) / (mean + _FLOOR)).clip(-_MOST_DETAIL, _MOST_DETAIL)
    rng = np.random.default_rng(seed)
    solid = (weight > 0.5) & (mass > 0.3)
    example = detail.astype(np.float32), _without_outliers(detail, solid)
    synthetic = combed_detail(*example, rng)
    if synthetic is None:
        synthetic = quilt(*example, _texel_width(height), rng)
    if synthetic is None:
        synthetic = np.repeat(0.5 * noise_strands(colour, weight, seed)[..., None], 3, axis=2)
    fill = (fill + _FLOOR) * np.exp(synthetic) - _FLOOR

    # What is plainly seen is kept whatever its class: an ear or a temple that the shell happens to cover.
    keep = np.maximum(own, seen.trust * np.clip(2 * seen.trust - 1, 0, 1))
    mirror_keep = np.clip(1.5 * mirror - 0.25, 0, 1)
    result = fill + (m_colour - fill) * mirror_keep[..., None]
    result = result + (seen.colour - result) * keep[..., None]
    confidence = np.maximum(keep, 0.5 * mirror_keep).astype(np.float32)
    return np.clip(result, 0, 1).astype(np.float32), confidence, synthetic.astype(np.float32)


def paint_torso(
    seen: SeenPoints, smooth: Chart, camera_azimuth_rad: float
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Clothes: own pixels, then the network's colour moved to what is seen nearby; colour and confidence.

    Args:
        seen: what the portrait shows.
        smooth: the network's colours.
        camera_azimuth_rad: of the portrait's camera, where the torso's columns start.
    """
    height, width = seen.trust.shape
    fits = np.maximum(seen.classes[..., CLOTH], seen.classes[..., SKIN])
    own = _inner(seen.trust * fits)
    base = _torso_picture(smooth, height, width, camera_azimuth_rad)
    mean, mass = _local_mean(seen.colour, own)
    # Small differences are light and dye, large ones another garment, which ends where it is seen to end.
    error = np.clip(mean - base, -_MOST_CARRIED, _MOST_CARRIED)
    fill = np.clip(base + _carried_on(error, mass, _CLOTH_FADE_PX), 0, 1)
    result = fill + (seen.colour - fill) * own[..., None]
    return np.clip(result, 0, 1).astype(np.float32), own


def _inner(weight: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Weights that end gently: full a little inside of where they would be cut off, none outside."""
    around = wrapped_blur(weight.astype(np.float32), 5.0, 5.0)
    return (weight * np.clip(2 * around - 0.6, 0, 1)).astype(np.float32)


def _local_mean(
    colour: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"]
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Mean of the known colours about each texel, and how much is known there."""
    sure = np.where(weight > 0.35, weight, np.float32(0))
    parts = (_reduced(colour * sure[..., None], 2), _reduced(sure, 2))
    total, mass = (wrapped_blur(part, _DETAIL_SIGMA_PX / 2, _DETAIL_SIGMA_PX / 2) for part in parts)
    mean = total / np.maximum(mass, 1e-4)[..., None]
    return _enlarged(mean, 2), _enlarged(mass, 2)


def _carried_on(
    error: Float32[np.ndarray, "h w 3"], mass: Float32[np.ndarray, "h w"], fade_px: float
) -> Float32[np.ndarray, "h w 3"]:
    """Differences from the network where they are known, fading to nothing away from there."""
    weight = np.clip(_reduced(mass, _REDUCE) * 2 - 0.3, 0, 1)
    values = _reduced(error, _REDUCE)
    if weight.max() <= 0:
        return np.zeros_like(error)
    near = push_pull(values, weight)
    near = near + (wrapped_blur(near, 5.0, 5.0) - near) * (1 - weight)[..., None]
    away = np.asarray(ndimage.distance_transform_edt(np.concatenate([weight <= 0.3] * 3, axis=1)))
    away = away[:, weight.shape[1] : 2 * weight.shape[1]]
    fade = np.exp(-away * (_REDUCE / fade_px)).astype(np.float32)
    return _enlarged(near * fade[..., None], _REDUCE)


def _reduced(image: Float32[np.ndarray, "h w *c"], factor: int) -> Float32[np.ndarray, "a b *c"]:
    """A tile at a lower resolution."""
    height, width = image.shape[:2]
    return cv2.resize(image.astype(np.float32), (width // factor, height // factor), interpolation=cv2.INTER_AREA)


def _enlarged(image: Float32[np.ndarray, "a b *c"], factor: int) -> Float32[np.ndarray, "h w *c"]:
    """A tile at a higher resolution, closed over its columns."""
    wide = np.concatenate([image[:, -2:], image, image[:, :2]], axis=1).astype(np.float32)
    size = (factor * wide.shape[1], factor * wide.shape[0])
    large = cv2.resize(wide, size, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(large[:, 2 * factor : -2 * factor])


def _without_outliers(detail: Float32[np.ndarray, "h w 3"], solid: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Where detail may be learned from: not from glints, ornaments, folds and specks of the background."""
    if not solid.any():
        return solid
    grey = detail.mean(-1)
    coloured = np.abs(detail - grey[..., None]).max(-1)
    # ornaments and folds are broad, strands and strokes are thin: what is left after a light blur counts
    broad = np.abs(wrapped_blur(np.where(solid, grey, 0).astype(np.float32), 5.0, 5.0))
    odd = np.zeros(solid.shape, bool)
    for strength, least, factor in ((coloured, 0.1, 2.5), (broad, 0.1, 2.5), (np.abs(grey), 0.15, 2.8)):
        odd |= strength > max(least, factor * float(np.quantile(strength[solid][::7], 0.7)))
    odd = cv2.morphologyEx((odd & solid).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return solid & (cv2.dilate(odd, np.ones((9, 9), np.uint8)) == 0)


def _scalp(model: HeadModel) -> Float[np.ndarray, " v"]:
    """Where the skin carries hair; not in the hollow of the ear, which is as far in as the scalp."""
    return np.where(EAR_HOLLOW.holds(centimetres(model.neutral)), 0.0, scalp_prior(model))


def _at_places(tile: Float32[np.ndarray, "h w 3"], points_world: Float32[np.ndarray, "n 3"]) -> np.ndarray:
    """What the shell's tile has at the places of points, nearest texel."""
    row, column, _ = capsule.cell_coordinates(points_world)
    y = np.clip(row * ((tile.shape[0] - 1) / (capsule.ROWS - 1)), 0, tile.shape[0] - 1).astype(np.int64)
    x = (column * ((tile.shape[1] - 1) / capsule.COLUMNS)).astype(np.int64) % tile.shape[1]
    return tile[y, x]


def _texel_width(height: int) -> Float32[np.ndarray, " h"]:
    """Relative true width of the shell tile's texels in each row: narrow about the crown."""
    row = np.arange(height) * ((capsule.ROWS - 1) / (height - 1))
    elevation = np.clip(1 - row / capsule.SPHERE_ROWS, 0, 1) * (np.pi / 2)
    return np.maximum(np.cos(elevation), 0.12).astype(np.float32)


def _shell_picture(smooth: Chart, height: int, width: int) -> Float32[np.ndarray, "h w 3"]:
    """The network's hair on the shell's tile."""
    row = np.arange(height, dtype=np.float32) * ((capsule.ROWS - 1) / (height - 1))
    row = (row + 0.5) * (UPPER_ROWS / capsule.ROWS) - 0.5
    column = np.arange(width, dtype=np.float32) * (COLUMNS / (width - 1))
    return _remapped(smooth[COVER, :UPPER_ROWS], row, column)


def _torso_picture(smooth: Chart, height: int, width: int, camera_azimuth_rad: float) -> Float32[np.ndarray, "h w 3"]:
    """The network's clothes on the torso's tile."""
    row = (np.arange(height, dtype=np.float32) + 0.5) * (LOWER_ROWS / height) - 0.5
    turn = np.arange(width, dtype=np.float32) / (width - 1) + camera_azimuth_rad / (2 * np.pi)
    return _remapped(smooth[COVER, UPPER_ROWS:], row, (turn % 1.0 * COLUMNS).astype(np.float32))


def _remapped(
    chart: Float32[np.ndarray, "r c 3"], row: Float32[np.ndarray, " h"], column: Float32[np.ndarray, " w"]
) -> Float32[np.ndarray, "h w 3"]:
    """A part of the chart sampled at the product of rows and columns; cubic, so that its cells do not show."""
    pad = 4
    wide = np.concatenate([chart[:, -pad:], chart, chart[:, :pad]], axis=1)
    map_x, map_y = np.meshgrid(column + np.float32(pad), row)
    return cv2.remap(
        np.ascontiguousarray(wide), map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip

"""Paint the prior: what the portrait shows, its mirror image where that is hidden, and a completion where both are.

Every texel looks itself up in the portrait, and its reflection about the head's middle plane as well. What the portrait
plainly shows stays as it is. Everything else is the completion network's smooth colour plus the difference between it
and what is seen nearby, which fades with the distance, so that there is no border; hair gets locks along its
flow, with the contrast of the hair that is seen. Colours count as seen only where the matte is solid and the class
fits.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from ...head_model import HeadModel
from ...head_model.anatomy import CHIN_LANDMARK, EAR_HOLLOW, centimetres, ramp
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from ...mesh_raster import interpolate
from ...networks import LoadedNetwork
from ...portrait import Portrait
from .. import capsule
from ..hair.flow_field import HairFlow
from ..hair.tracing import at_cells
from ..labels.portrait_labels import CLOTH, HAIR, SKIN, PortraitLabels, scalp_prior
from ..worn.glasses import Glasses
from .atlas import (
    ATLAS_HEIGHT,
    ATLAS_WIDTH,
    BUST_TILE,
    MATERIAL_CLOTH,
    MATERIAL_EYE,
    MATERIAL_HAIR,
    MATERIAL_MOUTH,
    MATERIAL_SKIN,
    MATERIAL_TEETH,
    SHELL_TILE,
    AtlasMesh,
    AtlasTexels,
    atlas_texels,
    fill_uncovered,
)
from .cloth_paint import ClothSurface, paint_cloth
from .completion_chart import LookedUp, chart_of_portrait, chart_places, chart_subset
from .completion_network import (
    COMPLETION,
    COVER,
    SKIN_BELOW,
    SKIN_MATERIAL,
    Chart,
    CompletionNet,
    complete,
    place_on_head,
    sample_chart,
)
from .fills import diffuse_over_mesh, wrapped_blur
from .glasses_paint import paint_glasses, paint_hidden_eyes
from .painted import Painted
from .portrait_lookup import PictureOfMesh, SeenPoints, picture_of_portrait
from .shell_paint import paint_shell

_HAIRY, _TAPER_CELLS = (0.3, 0.7), 3.0
"""The scalp's skin turns from bare to hairy where hair is so sure, averaged over so many cells, be the shell above it
ever so thin or sunk in."""
_PLAIN = (0.45, 0.75)
"""From the first weight on a pixel moves the colours of hidden skin about it, from the second on fully: what is seen at
a grazing angle, shaded or mixed with hair would leave a dark smear before the ear."""
_REDUCE = 4
"""Fills and soft borders are computed at a lower resolution."""


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
    flow: HairFlow,
    *,
    glasses: Glasses | None = None,
    seed: int = 0,
    completion: LoadedNetwork[CompletionNet] | None = None,
) -> PriorTexture:
    """Paint the atlas of a fitted prior from its portrait.

    Args:
        portrait: aligned portrait.
        labels: its classes.
        model: the head model.
        mesh: head, shell and bust with their texture layout.
        flow: where hair runs on the shell.
        glasses: taken off the skin, and painted where the mesh has them.
        seed: seed of the synthesised hair and cloth.
        completion: the network; None takes the one that ships.
    """
    picture = picture_of_portrait(portrait, labels, mesh, glasses)
    texels = atlas_texels(mesh)
    looked_up = LookedUp.of(portrait, labels, picture, texels)
    typical = looked_up.typical.rgb_unit
    chosen = chart_subset(texels)
    chart = chart_of_portrait(texels, chosen, looked_up[chosen], chart_places(texels, chosen, mesh))
    smooth = complete(chart, typical, completion or COMPLETION.load())

    texture = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH, 3), np.float32)
    confidence = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH), np.float32)
    detail: Float32[np.ndarray, "h w 3"] | None = None
    for material, tile in ((MATERIAL_HAIR, SHELL_TILE), (MATERIAL_CLOTH, BUST_TILE)):
        chosen = np.nonzero(texels.material == material)[0]
        if not len(chosen):
            continue
        sides = (looked_up.own, looked_up.mirrored)
        seen, reflected = (seen_in_tile(texels, chosen, points, tile) for points in sides)
        if material == MATERIAL_HAIR:
            shell = paint_shell(seen, reflected, smooth, flow, seed)
            colour, trust, detail = shell.rgb_unit, shell.confidence, shell.detail
        else:
            colour, trust = paint_cloth(seen, smooth, ClothSurface.of(texels, chosen, mesh, tile), seed)
        x, y, width, height = tile
        texture[y : y + height, x : x + width], confidence[y : y + height, x : x + width] = colour, trust

    skin = paint_skin(labels, model, mesh, picture, texels, looked_up, smooth, detail, flow)
    worn = [] if glasses is None else [paint_glasses(glasses, portrait, labels, picture, texels)]
    if glasses is not None and glasses.lens_rgb is not None:
        worn.append(paint_hidden_eyes(glasses, texels, looked_up.own, typical[SKIN_MATERIAL]))
    for painted in (skin, _paint_small_parts(texels, looked_up.own, typical[SKIN_MATERIAL]), *worn):
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
    looked_up: LookedUp, smooth: Chart, detail: Float32[np.ndarray, "h w 3"] | None, flow: HairFlow,
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
        flow: of the shell.
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
        """The network's colour, moved to what is plainly seen nearby."""
        w_own, w_mirror = (np.clip((w - _PLAIN[0]) / (_PLAIN[1] - _PLAIN[0]), 0, 1) for w in (w_own, w_mirror))
        w_mirror = w_mirror * (1 - w_own)
        weight = (w_own + w_mirror).astype(np.float64)
        colour = v_own.colour * w_own[:, None] + (v_mirror.colour + correction) * w_mirror[:, None]
        error = colour / np.maximum(weight, 1e-6)[:, None] - base[which]
        return base[which] + diffuse_over_mesh(error, weight, skin.faces, np.zeros(3), stiffness=0.05, pull=1.5e-3)

    scalp = _scalp(model)[skin.vertices][:, None]
    bare = filled(SKIN, own_skin, mirror_skin)
    hairy = filled(HAIR, v_own.trust * v_own.classes[:, HAIR], v_mirror.trust * v_mirror.classes[:, HAIR])
    chosen = np.nonzero(texels.material == MATERIAL_SKIN)[0]
    at_vertex = skin.for_mesh(np.concatenate([bare, hairy, correction, scalp], axis=1), model, mesh)
    at_texel = interpolate(texels.fragments, at_vertex, mesh.faces)[texels.rows[chosen], texels.columns[chosen]]
    shift, on_scalp = at_texel[:, 6:9], at_texel[:, 9] * _covered(flow, texels.points_world[chosen])
    below = at_texel[:, :3] + on_scalp[:, None] * (at_texel[:, 3:6] - at_texel[:, :3])
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


def _scalp(model: HeadModel) -> Float[np.ndarray, " v"]:
    """Where the skin carries hair; not in the hollow of the ear, which is as far in as the scalp."""
    return np.where(EAR_HOLLOW.holds(centimetres(model.neutral)), 0.0, scalp_prior(model))


def _covered(flow: HairFlow, points_world: Float32[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """How far hair lies over points of the scalp, [0, 1]: it ends softly, as a barber tapers it."""
    near = wrapped_blur(flow.presence.astype(np.float32), _TAPER_CELLS, _TAPER_CELLS)
    row, column, _ = capsule.cell_coordinates(points_world)
    return ramp(at_cells(near, np.stack([row, column], axis=1).astype(np.float64)), *_HAIRY)


def _at_places(tile: Float32[np.ndarray, "h w 3"], points_world: Float32[np.ndarray, "n 3"]) -> np.ndarray:
    """What the shell's tile has at the places of points, nearest texel."""
    row, column, _ = capsule.cell_coordinates(points_world)
    y = np.clip(row * ((tile.shape[0] - 1) / (capsule.ROWS - 1)), 0, tile.shape[0] - 1).astype(np.int64)
    x = (column * ((tile.shape[1] - 1) / capsule.COLUMNS)).astype(np.int64) % tile.shape[1]
    return tile[y, x]

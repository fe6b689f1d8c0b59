"""Paint the skin of face, ears, scalp and neck, in even light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import KDTree

from ...head_model import HeadModel
from ...head_model.anatomy import CHIN_LANDMARK, EAR_HOLLOW, centimetres, ramp
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from ...mesh import smoothed_over_faces
from .. import capsule
from ..field.chart import at_points
from ..hair.flow_field import HairFlow
from ..hair.tracing import at_cells
from ..labels.portrait_labels import CLOTH, HAIR, SKIN, ear_vertices, scalp_prior
from ..light.head_light import HeadLight
from .atlas import MATERIAL_SKIN, AtlasMesh, AtlasTexels
from .expected_colours import ExpectedColours
from .fills import diffuse_over_mesh
from .hairline import Hairline, covered, fit_hairline, read_sideburns, strands_of, thinned
from .looked_up import LookedUp
from .painted import Painted
from .portrait_lookup import PictureOfMesh, SeenPoints
from .skin_detail import SkinDetail, laid_over

_PLAIN = (0.45, 0.75)
"""From the first weight on a pixel moves the colours of hidden skin about it, from the second on fully: what is seen at
a grazing angle, shaded or mixed with hair would leave a dark smear before the ear."""
_FOREHEAD_CM, _SHOWN_ROUNDS, _BARE = (3.2, 4.2), 4, 2.5
"""Depths from which on the skin before the temples that the portrait shows bare is bare up to the shell; rounds by
which it reaches a little under it; and the factor from how plainly it is shown."""
_LEAST_BEARD = 20.0
"""Vertices that plainly show a beard, for it to have a colour."""
_REDUCE = 4
"""Soft borders are computed at a lower resolution."""
_PIECE = 1 << 17
"""Texels that are painted at once; results do not depend on it."""


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
    in_atlas: Int[np.ndarray, " v"]
    """Their numbers in the atlas' mesh, one of several along seams."""

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
            split[first],
        )

    def for_mesh(self, values: Float[np.ndarray, "v c"], model: HeadModel, mesh: AtlasMesh) -> Float[np.ndarray, "w c"]:
        """Values per vertex of the atlas' mesh, 0 off the skin."""
        fields = np.zeros((len(model.neutral), values.shape[1]))
        fields[self.vertices] = values
        return np.where((mesh.head_vertex >= 0)[:, None], fields[np.maximum(mesh.head_vertex, 0)], 0.0)


@dataclass(frozen=True)
class PaintedSkin:
    """The skin, and what the shell needs to end on it."""

    painted: Painted
    """Its texels."""
    hairline: Hairline
    """Where hair thins out."""
    under_shell: Float32[np.ndarray, "rows columns 3"]
    """Colour of bare skin below each cell of the capsule grid."""


def paint_skin(
    model: HeadModel, mesh: AtlasMesh, picture: PictureOfMesh, light: HeadLight, texels: AtlasTexels,
    looked_up: LookedUp, expected: ExpectedColours, detail: Callable[[], Float32[np.ndarray, "h w 3"] | None],
    flow: HairFlow, fine: SkinDetail | None, beard: Float[np.ndarray, " m"], seed: int,
) -> PaintedSkin:  # fmt: skip
    """Skin of face, ears, scalp and neck.

    Args:
        model: the head model.
        mesh: the fitted mesh.
        picture: the portrait over it.
        light: the portrait's on the mesh.
        texels: of the atlas.
        looked_up: what the portrait says about them.
        expected: colours of what it does not show.
        detail: gives that of the hair on the shell's tile, for the scalp where the shell ends; None without a shell.
        flow: of the shell.
        fine: how the skin that is seen varies; None leaves what is made up smooth.
        beard: how far each vertex of the head model carries a beard, [0, 1].
        seed: of the made up skin's detail.
    """
    skin, tone = SkinMesh.of(model, mesh), looked_up.tone
    points = skin.points_world.astype(np.float32)
    v_own, v_mirror = picture.look_up_both(points, skin.normals_world)
    v_own = v_own.divided_by(light.shade[skin.in_atlas])
    v_mirror = v_mirror.divided_by(light.mirrored_shade[skin.in_atlas])
    base = {SKIN: at_points(expected.skin, points), HAIR: at_points(expected.cover, points)}
    own_skin = v_own.trust * v_own.classes[:, SKIN] * tone.belief(v_own.colour)
    mirror_skin = v_mirror.trust * v_mirror.classes[:, SKIN] * tone.belief(v_mirror.colour)
    # What is left of light from one side: how the two sides differ where both are seen, carried on over the skin.
    difference = (v_own.colour - v_mirror.colour).astype(np.float64)
    both = (own_skin * mirror_skin).astype(np.float64)
    correction = diffuse_over_mesh(difference, both, skin.faces, np.zeros(3), stiffness=0.3, pull=0.006)

    def filled(which: int, w_own: np.ndarray, w_mirror: np.ndarray) -> Float[np.ndarray, "v 3"]:
        """The expected colour, moved to what is plainly seen nearby."""
        w_own, w_mirror = (np.clip((w - _PLAIN[0]) / (_PLAIN[1] - _PLAIN[0]), 0, 1) for w in (w_own, w_mirror))
        w_mirror = w_mirror * (1 - w_own)
        weight = (w_own + w_mirror).astype(np.float64)
        colour = v_own.colour * w_own[:, None] + (v_mirror.colour + correction) * w_mirror[:, None]
        error = colour / np.maximum(weight, 1e-6)[:, None] - base[which]
        return base[which] + diffuse_over_mesh(error, weight, skin.faces, np.zeros(3), stiffness=0.05, pull=1.5e-3)

    scalp, ears = _scalp(model)[skin.vertices][:, None], ear_vertices(model)[skin.vertices]
    grown = beard[skin.vertices]
    bare = filled(SKIN, own_skin * (1 - grown), mirror_skin * (1 - grown))
    bare = bare + grown[:, None] * (_beard_colour(v_own, grown, skin, bare) - bare)
    hairy = filled(HAIR, v_own.trust * v_own.classes[:, HAIR], v_mirror.trust * v_mirror.classes[:, HAIR])
    chosen = np.nonzero(texels.material == MATERIAL_SKIN)[0]
    cm = centimetres(model.neutral)[skin.vertices]
    sideburn = read_sideburns(v_own, cm, ears, looked_up.typical.hair) if looked_up.typical.has_hair else None
    hairline = fit_hairline(flow, cm, skin.points_world, ears, scalp[:, 0], sideburn)
    shown = np.maximum(own_skin, mirror_skin) * ramp(cm[:, 2], *_FOREHEAD_CM)
    shown = smoothed_over_faces(shown[:, None].astype(np.float64), skin.faces, _SHOWN_ROUNDS)
    bald = ears | EAR_HOLLOW.holds(cm)
    fields = np.concatenate([bare, hairy, correction, scalp, bald[:, None], shown], axis=1)
    at_vertex = skin.for_mesh(fields, model, mesh)
    chin_y = model.landmarks(model.neutral)[CHIN_LANDMARK, 1]
    is_bare = _is_bare(v_own, skin.points_world[:, 1] < chin_y)
    near_hair, noise = covered(flow), None if fine is None else fine.tile(seed, texels.step)
    locks = detail()
    strands = None if locks is None else strands_of(locks, texels.step)[..., None]
    # Piece by piece: all texels at once take half a gigabyte, while the hair beside them takes as much.
    pieces = [slice(first, first + _PIECE) for first in range(0, max(1, len(chosen)), _PIECE)]

    def at_texels(piece: slice) -> tuple[AtlasTexels, Float32[np.ndarray, "n 12"]]:
        """Texels of a piece, and the values of the vertices there."""
        some = texels[chosen[piece]]
        return some, some.interpolated(at_vertex, mesh.faces)

    def carried(some: AtlasTexels, values: Float32[np.ndarray, "n 12"]) -> Float[np.ndarray, " n"]:
        """How far texels carry hair."""
        cells = np.stack(capsule.cell_coordinates(some.points_world)[:2], axis=1).astype(np.float64)
        thin, edge = hairline.at(some.points_world)
        on_scalp = np.maximum(values[:, 9] * at_cells(near_hair, cells), thin * edge * (1 - values[:, 10]))
        on_scalp = on_scalp * np.clip(1 - _BARE * values[:, 11], 0, 1)
        return on_scalp if strands is None else thinned(on_scalp, _at_places(strands, some.points_world)[:, 0])

    def trusted(piece: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """How far what is seen of a piece, and of its mirror image, is skin that is plainly seen; how far it carries
        hair; the colour of its mirror image."""
        some, values = at_texels(piece)
        on_scalp = carried(some, values)
        own, mirrored = looked_up.own[chosen[piece]], looked_up.mirrored_at(chosen[piece])
        # Collars and matte colours on neck and bald scalp are not kept where they are seen from the side.
        on_rim = np.maximum(some.points_world[:, 1] < chin_y, values[:, 9])
        unlike_skin = 1 - tone.belief(own.colour)
        foreign = np.maximum(own.classes[:, CLOTH], on_rim) * unlike_skin
        foreign = np.maximum(foreign, own.classes[:, HAIR] * (1 - on_scalp))  # nor hair where skin has none
        drop = foreign * np.clip(8 - 8 * own.trust, 0, 1)
        if is_bare:  # above its collar
            on_neck = (some.points_world[:, 1] < chin_y) * own.classes[:, CLOTH]
            drop = np.maximum(drop, on_neck * unlike_skin)
        trust = own.trust * (1 - drop)
        fits = mirrored.classes[:, SKIN] * tone.belief(mirrored.colour) * (1 - on_scalp)
        fits = fits + mirrored.classes[:, HAIR] * on_scalp
        return trust, mirrored.trust * np.clip(fits, 0, 1), on_scalp, mirrored.colour

    trust, m_trust, hair, m_colour = (np.concatenate(parts) for parts in zip(*map(trusted, pieces)))
    trust = trust * _soft_border(trust, texels, chosen)
    m_trust = m_trust * _soft_border(m_trust, texels, chosen)

    def painted(piece: slice) -> np.ndarray:
        """Colours of a piece."""
        (some, values), on_scalp = at_texels(piece), hair[piece]
        below = values[:, :3] + on_scalp[:, None] * (values[:, 3:6] - values[:, :3])
        if noise is not None:
            pores = laid_over(noise, some.points_world, some.normals_world)
            below = below * np.exp(pores * (1 - on_scalp)[:, None])
        if locks is not None:
            below = below * np.exp(_at_places(locks, some.points_world) * on_scalp[:, None])
        mirrored_rgb = m_colour[piece] + values[:, 6:9]
        hidden = below + (mirrored_rgb - below) * m_trust[piece, None]
        return hidden + (looked_up.own.colour[chosen[piece]] - hidden) * trust[piece, None]

    rgb = np.concatenate([painted(piece).astype(np.float32) for piece in pieces])
    painted_skin = Painted(chosen, rgb, np.maximum(trust, 0.5 * m_trust))
    return PaintedSkin(painted_skin, hairline, _under_shell(bare, skin, ears, flow))


def _is_bare(seen: SeenPoints, neck: Bool[np.ndarray, " v"]) -> bool:
    """Whether more of the neck that is seen is skin than cloth: collars on it are then those of the bust."""
    weight = seen.trust * neck
    return bool((weight * seen.classes[:, SKIN]).sum() > (weight * seen.classes[:, CLOTH]).sum())


def _under_shell(
    bare: Float[np.ndarray, "v 3"], skin: SkinMesh, ears: Bool[np.ndarray, " v"], flow: HairFlow
) -> Float32[np.ndarray, "rows columns 3"]:
    """Colour of the bare skin below each cell of the shell."""
    nearest = KDTree(skin.points_world[~ears]).query(flow.points_world.reshape(-1, 3), k=3)[1]
    return bare[~ears][nearest].mean(1).reshape(flow.points_world.shape).astype(np.float32)


def _beard_colour(
    seen: SeenPoints, grown: Float[np.ndarray, " v"], skin: SkinMesh, bare: Float[np.ndarray, "v 3"]
) -> Float[np.ndarray, "v 3"]:
    """The colour of a beard at each vertex, as it is seen nearby; of bare skin where none is seen."""
    weight = np.clip((seen.trust * grown - _PLAIN[0]) / (_PLAIN[1] - _PLAIN[0]), 0, 1).astype(np.float64)
    if weight.sum() < _LEAST_BEARD:
        return bare
    typical = (weight[:, None] * seen.colour).sum(0) / weight.sum()
    return typical + diffuse_over_mesh(seen.colour - typical, weight, skin.faces, np.zeros(3))


def _soft_border(
    trust: Float[np.ndarray, " n"], texels: AtlasTexels, chosen: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"]:
    """A factor that lets the trust of chosen texels end gently where visibility or the matte would cut it off."""
    rows, columns = texels.rows[chosen], texels.columns[chosen]
    factor = _REDUCE // texels.step
    height, width = (size // factor for size in texels.shape)
    row, column = rows // factor, columns // factor
    cell = row * width + column
    mass = np.bincount(cell, minlength=height * width).reshape(height, width).astype(np.float32)
    total = np.bincount(cell, trust, minlength=height * width).reshape(height, width).astype(np.float32)
    sigma = 9 / _REDUCE
    around = cv2.GaussianBlur(total, (0, 0), sigma) / np.maximum(cv2.GaussianBlur(mass, (0, 0), sigma), 1e-2)
    around = cv2.resize(around, texels.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(1.6 * around[rows, columns] - 0.3, 0.0, 1.0)


def _scalp(model: HeadModel) -> Float[np.ndarray, " v"]:
    """Where the skin carries hair; not in the hollow of the ear, which is as far in as the scalp."""
    return np.where(EAR_HOLLOW.holds(centimetres(model.neutral)), 0.0, scalp_prior(model))


def _at_places(tile: Float32[np.ndarray, "h w k"], points_world: Float32[np.ndarray, "n 3"]) -> np.ndarray:
    """What the shell's tile has at the places of points, nearest texel."""
    row, column, _ = capsule.cell_coordinates(points_world)
    y = np.clip(row * ((tile.shape[0] - 1) / (capsule.ROWS - 1)), 0, tile.shape[0] - 1).astype(np.int64)
    x = (column * ((tile.shape[1] - 1) / capsule.COLUMNS)).astype(np.int64) % tile.shape[1]
    return tile[y, x]

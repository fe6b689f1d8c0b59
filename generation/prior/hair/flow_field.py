"""The direction of hair, root to tip, over the whole shell: read from the portrait, else from the head's field.

The head's field (`generation.prior.field`) says how hair may run. The portrait's own orientation of strands is carried
on over the shell: three world components are solved for on the capsule grid, held by what is seen and pulled to the
field, and laid back into the surface. World components know neither the grid's pole nor its seam. Orientation has no
sign; every round of the solve takes the sign that agrees with the round before.

Source: orientation of hair as the guide of its geometry as in Zheng et al., "HairStep", CVPR 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float
from scipy import ndimage

from ...cameras import UNITS_PER_CM, UNITS_PER_MM
from ...portrait import Portrait
from ...similar_systems import symmetric_factors
from .. import capsule
from ..field.chart import to_capsule
from ..field.head_field import HAIR, HEADGEAR, HeadField, world_from_cells
from ..labels.portrait_labels import PortraitLabels
from .hair_shell import HairShell
from .orientation import SeenHair, SeenOrientation, tangential, unit

_HANGING_Y = -0.155
"""Hair that reaches below this height hangs."""
_SHOWN_THICKNESS = 0.001
_WORN = (0.5, 0.8)
"""Share of headgear beside hair from which on it counts, and from which on it is sure."""
_ISLAND_PRESENCE, _LEAST_ISLAND = 0.25, 0.15
"""Pieces of hair more present than the first that have less than this share of the largest one's cells are no hair."""
_MIRROR_WEIGHT = 0.5
_STIFFNESS, _LEAST_PULL, _FIELD_PULL = 0.6, 0.002, 0.03
"""Of the solve: smoothness, and the pull to straight down everywhere and to the field where it is certain."""
_ROUNDS = 4
_LEAST_EVIDENCE = 60.0
"""Cells that must be plainly seen for the portrait's waves to be measured."""
_STEP, _STEPS, _SOURCE_COSINE = 4 * UNITS_PER_MM, 64, 0.3
"""Hair is followed back in so many steps of this length; what runs another way one step before begins there."""


@dataclass(frozen=True)
class HairFlow:
    """Where hair runs on the shell, on the capsule grid."""

    points_world: Float[np.ndarray, "rows columns 3"]
    """The shell's surface, or the skull where the shell hides below it."""
    normals_world: Float[np.ndarray, "rows columns 3"]
    """Unit outward normals."""
    direction_world: Float[np.ndarray, "rows columns 3"]
    """Unit tangents, root to tip."""
    seen: Float[np.ndarray, "rows columns"]
    """How firmly the portrait says so, [0, 1]."""
    from_source: Float[np.ndarray, "rows columns"]
    """Way back along the hair to where it begins to run so: whorl, parting or hairline; at most 25 cm, world units."""
    thickness: Float[np.ndarray, "rows columns"]
    """Of the shell, world units; negative where it hides."""
    headgear: Float[np.ndarray, "rows columns"]
    """How surely headgear, not hair, is what the shell shows, [0, 1]."""
    presence: Float[np.ndarray, "rows columns"]
    """How surely hair or headgear covers the head there by the field, [0, 1], be the shell ever so thin."""
    hanging: bool
    """Whether hair reaches below the neck's top."""
    look: SeenHair | None
    """What the portrait's hair is like; None where too little is seen."""


def fit_hair_flow(portrait: Portrait, labels: PortraitLabels, shell: HairShell, field: HeadField) -> HairFlow:
    """The flow of a fitted shell's hair.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes.
        shell: fitted to it.
        field: how hair runs where the portrait does not show it.
    """
    radius = shell.radius - np.minimum(shell.thickness, 0)
    points = capsule.surface_points(radius)
    normals = grid_normals(points)
    hanging = bool(points[..., 1][shell.thickness > _SHOWN_THICKNESS].min(initial=1.0) < _HANGING_Y)
    seen = SeenOrientation.of(portrait, labels)
    direct, weight = seen.on_surface(portrait.head.camera, points, normals)
    mirror, mirror_weight = seen.on_surface(portrait.head.camera, _mirrored(points), _mirrored(normals))
    mirror = _mirrored(mirror)
    mirror_weight = _MIRROR_WEIGHT * mirror_weight * (1 - np.clip(3 * weight, 0, 1))
    same_sign = np.where((direct * mirror).sum(-1) < 0, -1.0, 1.0)
    observed = weight[..., None] * direct + (mirror_weight * same_sign)[..., None] * mirror
    solver = FlowSolver(points, normals, _usual_flow(field))
    total = weight + mirror_weight
    direction = solver.solve(unit(observed), total)
    wave_rad = 0.0
    if weight.sum() > _LEAST_EVIDENCE:
        wave_rad = _spread_rad(direct, weight, solver.solve(direct, 0.02 * weight))
    look = SeenHair.of(portrait, labels, wave_rad)
    begins = way_from_source(points, direction, shell.thickness)
    worn, hair = to_capsule(field.material[[HEADGEAR, HAIR]], order=1)
    headgear = np.clip((worn / np.maximum(worn + hair, 1e-3) - _WORN[0]) / (_WORN[1] - _WORN[0]), 0, 1)
    presence = _without_islands(np.clip(worn + hair, 0, 1))
    return HairFlow(
        points, normals, direction, np.clip(total, 0, 1), begins, shell.thickness, headgear, presence, hanging, look
    )


def _without_islands(presence: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Presence of hair without small spots of it on bare skin."""
    pieces, count = capsule.pieces_round(presence > _ISLAND_PRESENCE)
    area = np.bincount(pieces.ravel(), minlength=count + 1)
    area[0] = 0
    large = area >= _LEAST_ISLAND * area.max(initial=1)
    island = ((pieces > 0) & ~large[pieces])[:, capsule.COLUMNS : 2 * capsule.COLUMNS]
    return np.where(island, 0.0, presence)


def _usual_flow(field: HeadField) -> Float[np.ndarray, "rows columns 3"]:
    """Directions of the field, as long as the pull to them; straight down where it knows none."""
    trust = field.flow_certainty * field.material[HAIR]
    flow = to_capsule(np.moveaxis(world_from_cells(field.flow) * trust[..., None], -1, 0), order=1)
    pulled = _FIELD_PULL * np.moveaxis(flow, 0, -1)
    return pulled + _LEAST_PULL * np.array([0.0, -1.0, 0.0])


def way_from_source(
    points: Float[np.ndarray, "rows columns 3"],
    direction: Float[np.ndarray, "rows columns 3"],
    thickness: Float[np.ndarray, "rows columns"],
) -> Float[np.ndarray, "rows columns"]:
    """How far back hair runs the same way, world units: to a whorl, a parting or the hairline.

    Args:
        points: of the capsule surface.
        direction: unit tangents.
        thickness: hair begins where it is at most 0.
    """
    row, column, _ = capsule.cell_coordinates(points - _STEP * direction)
    at = np.stack([np.clip(row, 0, capsule.ROWS - 1), column % capsule.COLUMNS + 1])

    def before(grid: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
        closed = np.concatenate([grid[:, -1:], grid, grid[:, :2]], axis=1)
        return ndimage.map_coordinates(closed, at, order=1, mode="nearest")

    cosine = sum(before(direction[..., k]) * direction[..., k] for k in range(3))
    begins = (cosine < _SOURCE_COSINE) | (before(thickness) <= 0)
    way = np.zeros_like(thickness)
    for _ in range(_STEPS):
        way = np.where(begins, 0.0, _STEP + before(way))
    return way


def grid_normals(points_world: Float[np.ndarray, "rows columns 3"]) -> Float[np.ndarray, "rows columns 3"]:
    """Unit outward normals of a capsule surface; one normal at the pole."""
    down = np.gradient(points_world, axis=0)
    wide = np.concatenate([points_world[:, -1:], points_world, points_world[:, :1]], axis=1)
    normals = unit(np.cross(down, wide[:, 2:] - wide[:, :-2]))
    outward = (normals * capsule.grid_rays()[1]).sum(-1, keepdims=True)
    normals = np.where(outward < 0, -normals, normals)
    normals[0] = unit(normals[1].mean(0))
    return normals


class FlowSolver:
    """Vector diffusion over the capsule grid by finite volumes, in world components."""

    def __init__(
        self,
        points: Float[np.ndarray, "rows columns 3"],
        normals: Float[np.ndarray, "rows columns 3"],
        usual: Float[np.ndarray, "rows columns 3"],
    ) -> None:
        """Prepare the grid.

        Args:
            points: surface points.
            normals: unit normals.
            usual: directions that the solution is pulled to, as long as the pull.
        """
        usual = tangential(usual, normals)
        self._normals, self._usual = normals, usual
        self._pull = np.linalg.norm(usual, axis=-1).ravel()
        index = np.arange(points[..., 0].size).reshape(points.shape[:2])
        least = 0.03 * UNITS_PER_CM
        to_right = np.maximum(np.linalg.norm(np.roll(points, -1, axis=1) - points, axis=-1), least)
        to_below = np.maximum(np.linalg.norm(points[1:] - points[:-1], axis=-1), least)
        width = 0.5 * (to_right + np.roll(to_right, 1, axis=1))
        height = np.concatenate([to_below, to_below[-1:]])
        weight = np.concatenate([(height / to_right).ravel(), (0.5 * (width[1:] + width[:-1]) / to_below).ravel()])
        i = np.concatenate([index.ravel(), index[:-1].ravel()])
        j = np.concatenate([np.roll(index, -1, axis=1).ravel(), index[1:].ravel()])
        adjacency = scipy.sparse.coo_matrix((np.clip(weight, 1e-3, 20), (i, j)), shape=(index.size, index.size))
        adjacency = adjacency + adjacency.T
        self._laplacian = scipy.sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
        self._area = (width * height).ravel() / (0.3 * UNITS_PER_CM) ** 2 + 1e-4

    def solve(
        self, observed: Float[np.ndarray, "rows columns 3"], weight: Float[np.ndarray, "rows columns"]
    ) -> Float[np.ndarray, "rows columns 3"]:
        """Unit tangents that agree with tangents of unknown sign, as far as their weights say."""
        held, pull = weight.ravel() * self._area, self._pull * self._area
        system = (_STIFFNESS * self._laplacian + scipy.sparse.diags(held + pull)).tocsc()
        factors = symmetric_factors(system)
        field = unit(self._usual)
        for _ in range(_ROUNDS):
            signed = observed * np.where((observed * field).sum(-1, keepdims=True) < 0, -1, 1)
            right = held[:, None] * signed.reshape(-1, 3) + self._area[:, None] * self._usual.reshape(-1, 3)
            field = factors.solve(np.ascontiguousarray(right)).reshape(observed.shape)
            field[0] = field[0].mean(0)  # the pole is one place
            field = unit(tangential(field, self._normals))
        return field


def _spread_rad(
    seen: Float[np.ndarray, "rows columns 3"],
    weight: Float[np.ndarray, "rows columns"],
    smooth: Float[np.ndarray, "rows columns 3"],
) -> float:
    angle = np.arccos(np.clip(np.abs((seen * smooth).sum(-1)), 0, 1))
    return math.sqrt(float((weight * angle**2).sum() / max(float(weight.sum()), 1e-6)))


def _mirrored(vectors: Float[np.ndarray, "rows columns 3"]) -> Float[np.ndarray, "rows columns 3"]:
    return vectors * np.array([-1.0, 1.0, 1.0])

"""The direction of hair, root to tip, over the whole shell: read from the portrait where it shows hair, made elsewhere.

Each of a few ways to wear hair (falling from a whorl, parted, combed back) is a default field. The portrait's own
orientation of strands chooses among them, gives the default's lean, and is then carried on over the whole shell: three
world components are solved for on the chart, held by what is seen and pulled a little to the default, and laid back
into the surface. World components know neither the chart's pole nor its seam. Orientation has no sign; every round of
the solve takes the sign that agrees with the round before. A mirrored portrait gets the mirrored field.

Source: orientation of hair as the guide of its geometry as in Zheng et al., "HairStep", CVPR 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Float

from ...cameras import UNITS_PER_CM
from ...head_model.anatomy import centimetres, ramp
from ...portrait import Portrait
from .. import capsule
from ..labels.portrait_labels import PortraitLabels
from .hair_shell import HairShell
from .orientation import SeenHair, SeenOrientation, tangential, unit

_WHORL_CM = np.array([0.0, 12.0, -6.0])
_HAIRLINE_CM = np.array([0.0, 11.0, 8.5])
"""Middle of the forehead's hairline: the front end of a parting, and where hair that is combed back begins."""
_TIE_CM = np.array([0.0, -6.0, -9.0])
"""Where hair that is combed back runs to."""
_PARTINGS_CM = (-3.5, -1.75, 0.0, 1.75, 3.5)
"""Where a parting may meet the hairline: x."""
_PARTED_MARGIN, _BACK_MARGIN = 0.06, 0.10
"""How much better than hair from a whorl the other ways must agree with the portrait, of at most 2."""
_FRINGE_Y_CM, _LEAST_FRINGE = 8.0, 12.0
"""With so many cells of hair on the forehead below this height nothing is combed back."""
_FALL_CM = (5.0, 11.0)
"""Between these heights hair that spreads from its source begins to fall."""
_HANGING_Y = -0.155
"""Hair that reaches below this height hangs."""
_SHOWN_THICKNESS = 0.001
_SWIRL, _HANGING_SWIRL, _SWIRL_CM, _FULL_LEAN = 0.5, 0.25, 5.0, 0.15
"""Most turn about the whorl, beside the spreading; how far it reaches; the lean in the portrait that gives it all."""
_MIRROR_WEIGHT = 0.5
_STIFFNESS, _PULL = 0.6, 0.008
_ROUNDS = 4
_LEAST_EVIDENCE = 60.0
"""Cells that must be plainly seen for the portrait to choose."""


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
    """Distance from where the hair spreads: whorl, parting or hairline; world units."""
    thickness: Float[np.ndarray, "rows columns"]
    """Of the shell, world units; negative where it hides."""
    style: str
    """`whorl`, `parted` or `back`."""
    hanging: bool
    """Whether hair reaches below the neck's top."""
    look: SeenHair | None
    """What the portrait's hair is like; None where too little is seen."""


def fit_hair_flow(portrait: Portrait, labels: PortraitLabels, shell: HairShell) -> HairFlow:
    """The flow of a fitted shell's hair.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes.
        shell: fitted to it.
    """
    radius = shell.radius - np.minimum(shell.thickness, 0)
    points = capsule.surface_points(radius)
    normals = grid_normals(points)
    hanging = bool(points[..., 1][shell.thickness > _SHOWN_THICKNESS].min(initial=1.0) < _HANGING_Y)
    seen = SeenOrientation.of(portrait, labels)
    direct, weight = seen.on_surface(portrait.head.camera, points, normals)
    mirror, mirror_weight = seen.on_surface(portrait.head.camera, _mirrored(points), _mirrored(normals))
    mirror = _mirrored(mirror)
    style, default, from_source = _choose_default(points, normals, direct, weight, hanging)
    mirror_weight = _MIRROR_WEIGHT * mirror_weight * (1 - np.clip(3 * weight, 0, 1))
    same_sign = np.where((direct * mirror).sum(-1) < 0, -1.0, 1.0)
    observed = weight[..., None] * direct + (mirror_weight * same_sign)[..., None] * mirror
    solver = FieldSolver(points, normals, default)
    total = weight + mirror_weight
    direction = solver.solve(unit(observed), total)
    wave_rad = 0.0
    if weight.sum() > _LEAST_EVIDENCE:
        wave_rad = _spread_rad(direct, weight, solver.solve(direct, 0.02 * weight))
    look = SeenHair.of(portrait, labels, wave_rad)
    return HairFlow(
        points,
        normals,
        direction,
        np.clip(total, 0, 1),
        from_source,
        shell.thickness,
        style,
        hanging,
        look,
    )


def grid_normals(points_world: Float[np.ndarray, "rows columns 3"]) -> Float[np.ndarray, "rows columns 3"]:
    """Unit outward normals of a capsule surface; one normal at the pole."""
    down = np.gradient(points_world, axis=0)
    wide = np.concatenate([points_world[:, -1:], points_world, points_world[:, :1]], axis=1)
    normals = unit(np.cross(down, wide[:, 2:] - wide[:, :-2]))
    outward = (normals * capsule.grid_rays()[1]).sum(-1, keepdims=True)
    normals = np.where(outward < 0, -normals, normals)
    normals[0] = unit(normals[1].mean(0))
    return normals


def _choose_default(
    points: Float[np.ndarray, "rows columns 3"],
    normals: Float[np.ndarray, "rows columns 3"],
    seen: Float[np.ndarray, "rows columns 3"],
    weight: Float[np.ndarray, "rows columns"],
    hanging: bool,
) -> tuple[str, Float[np.ndarray, "rows columns 3"], Float[np.ndarray, "rows columns"]]:
    """The way of wearing hair that agrees best with the portrait: its name, its field, the distance from its source."""
    cm = centimetres(points)
    whorl = spreading_field(cm, normals, _WHORL_CM, hanging)
    if not weight.sum() > _LEAST_EVIDENCE:
        return "whorl", whorl, _lengths(_away_from(cm, _WHORL_CM))
    whorl = spreading_field(cm, normals, _WHORL_CM, hanging, lean=_lean(normals, seen, weight, whorl))
    chosen = "whorl", whorl, _away_from(cm, _WHORL_CM)
    above = weight * (cm[..., 1] > 2.0)

    def agreement(field: Float[np.ndarray, "rows columns 3"]) -> float:
        return float((above * (2 * (field * seen).sum(-1) ** 2 - 1)).sum() / max(above.sum(), 1e-6))

    best = agreement(whorl)
    for x in _PARTINGS_CM:
        front = _HAIRLINE_CM + np.array([x, 0.0, 0.0])
        field = spreading_field(cm, normals, front, hanging)
        if (score := agreement(field) - _PARTED_MARGIN) > best:
            best, chosen = score, ("parted", field, _away_from(cm, front))
    field = combed_back_field(cm, normals, hanging)
    fringe = float(weight[(np.abs(cm[..., 0]) < 4) & (cm[..., 1] < _FRINGE_Y_CM) & (cm[..., 2] > 5)].sum())
    if fringe < _LEAST_FRINGE and agreement(field) - _BACK_MARGIN > best:
        chosen = "back", field, cm - _HAIRLINE_CM
    return chosen[0], chosen[1], _lengths(chosen[2])


def _lengths(vectors_cm: Float[np.ndarray, "rows columns 3"]) -> Float[np.ndarray, "rows columns"]:
    return np.linalg.norm(vectors_cm, axis=-1) * UNITS_PER_CM


def _away_from(cm: Float[np.ndarray, "rows columns 3"], front_cm: Float[np.ndarray, " 3"]) -> np.ndarray:
    """Vectors from the nearest point of the parting between the whorl and its front end, centimetres."""
    along = front_cm - _WHORL_CM
    length2 = float(along @ along)
    share = np.clip(((cm - _WHORL_CM) @ along) / length2, 0, 1) if length2 > 0 else np.zeros(cm.shape[:-1])
    return cm - _WHORL_CM - share[..., None] * along


def spreading_field(
    cm: Float[np.ndarray, "rows columns 3"],
    normals: Float[np.ndarray, "rows columns 3"],
    front_cm: Float[np.ndarray, " 3"],
    hanging: bool,
    *,
    lean: float = 0.0,
) -> Float[np.ndarray, "rows columns 3"]:
    """Hair that spreads from a parting and then falls, at the sides of the face a little backwards.

    Args:
        cm: surface points, centimetres.
        normals: unit normals.
        front_cm: the front end of the parting, whose other end is the whorl; the whorl itself for none.
        hanging: whether hair hangs below the neck's top.
        lean: which way hair turns about the whorl, [-1, 1].
    """
    away_cm = tangential(_away_from(cm, front_cm), normals)
    near = np.exp(-((np.linalg.norm(away_cm, axis=-1, keepdims=True) / _SWIRL_CM) ** 2))
    away = unit(away_cm)
    away = unit(away + lean * (_HANGING_SWIRL if hanging else _SWIRL) * near * np.cross(normals, away))
    x, y, z = np.moveaxis(cm, -1, 0)
    down, back = (unit(tangential(np.broadcast_to(v, cm.shape), normals)) for v in ((0.0, -1, 0), (0.0, 0, -1)))
    beside_face = ramp(np.abs(x), 3, 6) * ramp(z, -2, 4) * (0.15 if hanging else 0.45)
    up = ramp(y, *_FALL_CM)[..., None]
    return unit(tangential(up * away + (1 - up) * (down + beside_face[..., None] * back), normals))


def combed_back_field(
    cm: Float[np.ndarray, "rows columns 3"], normals: Float[np.ndarray, "rows columns 3"], hanging: bool
) -> Float[np.ndarray, "rows columns 3"]:
    """Hair drawn back from the forehead and the temples to the nape; where it hangs it falls from there."""
    to_nape = unit(tangential(_TIE_CM - cm, normals))
    down = unit(tangential(np.broadcast_to((0.0, -1, 0), cm.shape), normals))
    share = ramp(cm[..., 1], 3, -5)[..., None] * (1.0 if hanging else 0.3)
    return unit(tangential(to_nape * (1 - share) + down * share, normals))


def _lean(
    normals: Float[np.ndarray, "rows columns 3"],
    seen: Float[np.ndarray, "rows columns 3"],
    weight: Float[np.ndarray, "rows columns"],
    upright: Float[np.ndarray, "rows columns 3"],
) -> float:
    """Which way the hair that is seen leans against the field without lean, [-1, 1]; 0 for symmetric hair."""
    along, across = (seen * upright).sum(-1), (seen * np.cross(normals, upright)).sum(-1)
    mean = float((weight * along * across).sum() / max(float(weight.sum()), 1e-6))
    return float(np.clip(mean / _FULL_LEAN, -1, 1))


class FieldSolver:
    """Vector diffusion over the chart by finite volumes, in world components."""

    def __init__(
        self,
        points: Float[np.ndarray, "rows columns 3"],
        normals: Float[np.ndarray, "rows columns 3"],
        default: Float[np.ndarray, "rows columns 3"],
    ) -> None:
        self._normals, self._default = normals, default
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
        held, pull = weight.ravel() * self._area, _PULL * self._area
        system = (_STIFFNESS * self._laplacian + scipy.sparse.diags(held + pull)).tocsc()
        factors = scipy.sparse.linalg.splu(
            system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        field = self._default
        for _ in range(_ROUNDS):
            signed = observed * np.where((observed * field).sum(-1, keepdims=True) < 0, -1, 1)
            right = held[:, None] * signed.reshape(-1, 3) + pull[:, None] * self._default.reshape(-1, 3)
            field = factors.solve(np.ascontiguousarray(right)).reshape(observed.shape)
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

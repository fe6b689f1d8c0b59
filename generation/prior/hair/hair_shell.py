"""The outer shell: one star-shaped surface for hair or headwear that agrees with the portrait's outline.

The shell is a thickness over the opened skull on the capsule grid. It starts from the head's field
(`generation.prior.field`). A few rounds of a regularised linear solve then move the cells that form the outline in the
portrait's view onto the matte's edge; where the field is sure what covers a cell, the cell stays more firmly. Where
skin is seen the thickness is negative: the shell sinks below the face, so that no hairline has to be stitched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.spatial import KDTree

from ...cameras import PANOHEAD_RADIUS, UNITS_PER_MM, Cameras
from ...head_model import HeadModel, anatomy
from ...head_model.anatomy import centimetres, ramp, world_height
from ...mesh_raster import rasterize_mesh
from ...portrait import Portrait
from ...similar_systems import SimilarSystems
from .. import capsule
from ..field.chart import to_capsule
from ..field.head_field import HAIR, HEADGEAR, HeadField
from ..labels.portrait_labels import PortraitLabels, ear_vertices, project_px
from ..labels.segmenter import EAR

_BARE_THICKNESS = -0.012
"""Where skin or cloth is seen the shell lies at least this far below, world units as all below."""
_SUNK_THICKNESS = -0.025
"""Where there is no hair for certain."""
_DEEPEST_THICKNESS = -0.04
_LEAST_HAIR = 0.002
"""Thinner than this counts as bare when the shell is tidied."""
_PINHOLE_CELLS = 130.0
"""Bare spots of fewer cells (of full size, together about 20 square centimetres) are filled."""
_HAIR_END_Y, _CHIN_Y, _FOREHEAD_Y = (
    world_height(y_cm) for y_cm in (anatomy.HAIR_END_Y_CM, anatomy.CHIN_Y_CM, anatomy.FOREHEAD_Y_CM)
)
_HAIR_FADE = 0.05
"""Hair that does not hang thins out over this height about `_HAIR_END_Y`."""
_LEAST_HANGING = 1.5e-3
"""Less hair than this below the chin, in square units at the head's depth (5 square centimetres), does not hang."""
_FACING_COSINE = 0.35
"""Cells whose ray meets the line of sight at more than this cosine are seen."""
_SKIN_PULL, _HAIR_PULL, _CLOTH_PULL, _HIDDEN_PULL = 1.5, 0.3, 0.5, 3.0
"""Weights in the solve of what is seen at a cell, and of cells that have no hair for certain."""
_MOST_TURNED_AWAY, _BARE_EAR_SHARE = -0.25, 0.6
"""Ears on a side that is turned away by more than this sine say nothing; with this share of skin one is bare."""
_BESIDE_EAR, _HIDES, _WHOLE_EAR = (0.3, 1.7), 0.6, 0.8
"""Hair hangs beside an ear if it is seen outside of it on so many of the rows between two shares of its height, from
the top. Then the ear is hidden unless more than the last share of it is labelled: what is seen is a sliver."""
_MIDDLE = (-0.3, 0.3)
"""Between these parts of a ray across the head one side of a shell goes over into the other."""
_OVER_EARS = 2 * UNITS_PER_MM
"""Hair lies this far above ears that it hides: an ear is whole or hidden, no part of it sticks out."""
_RASTER_SIZE = 256
_HAIR_BEYOND = 2 * UNITS_PER_MM
"""Outlines of hair stand so far out from where half of the light has stopped (16 composed heads: 2.6 mm)."""
_MOST_BEYOND = 6 * UNITS_PER_MM
"""The field's surface may stand out of the outline by so much; more would be left as a peak between the cells that the
outline moves."""
_CUT_STEPS = 32
_SMOOTHING = 1.6
"""Of the field's surface: deviation of a Gaussian, cells."""
_LEAST_PULL, _SURE_PULL = 0.004, 0.049
"""Pull to the start (fine rounds: to the coarse result) of cells that may as well be bare, and of the surest."""
_MOST_FLARE, _HANGING_FLARE = 0.9, 0.35
"""Largest growth of the radius per unit of height going down: hats and bobs flare; below the chin hair hangs, and does
not lie flat on shoulders."""
_HAIRLINE_SLOPE, _HAIRLINE_RADIUS = 0.2, 0.05
"""Hair above the brows rises from its hairline with at most this slope at first, and ever steeper, by its distance from
the hairline over the second number."""
_SIDE_SLOPE, _SIDE_RADIUS, _SIDES_ABOVE = 0.35, 0.03, 0.06
"""The same of short hair at the sides, and how far above the brows these reach."""
_TONGUE_CELLS, _TEMPLES_Z_CM, _TEMPLES_Y_CM = 3, 3.0, 7.0
"""Hair narrower than so many cells is none before the first depth and below the height."""
_NOTCH = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 9)) > 0
"""Bare notches that it does not fit into, some 3 cm across, between hair that is seen and hair that is made up are
closed."""
_TEMPLE_LINE_CM = np.array(
    [(1.0, 0.5), (2.5, 2.2), (4.0, 3.6), (5.0, 4.1), (6.0, 4.8), (7.0, 5.7), (8.0, 6.9), (8.8, 8.5)]
)
"""Heights and depths of the line that short hair does not pass at the temples: from before the ear, where sideburns are
painted, up and forward to the forehead's corner. A portrait from the front shows that there is hair at the side, but
not how far forward."""
_PLAINLY_SEEN = (0.5, 0.7)
"""Unless it is seen there: cosines between the cell's ray and the line of sight from which on it counts, and fully."""
_TEMPLE_SLOPE, _TEMPLE_RADIUS = 0.15, 0.09
"""Behind that line hair rises still more gently than elsewhere at the sides: it is combed back."""
_LEAST_TUFT = 0.1
"""Pieces of hair on the crown that are smaller than this share of the largest are none."""
_ROUNDS = 3
"""Outline rounds with the stiff surface, which moves whole regions, so that volume does not become a ridge, and with
the soft one, which starts from the stiff result."""
_STIFF_BENDING, _SOFT_BENDING = 600.0, 30.0
"""Weights of the squared Laplacian."""
_OUTLINE_WEIGHT = 4.0
"""Weight of a cell on the outline, per pixel, at most three pixels."""
_LEAST_SCALP_THICKNESS = 0.008
"""Hair on the unseen scalp is at least this thick (about 5 mm)."""
_MOST_STEP = 0.05
"""Largest outline correction in one round."""
_MOST_THICKNESS = 0.16
"""No hair or hat is thicker than this (about 10 cm) beyond the start."""


@dataclass(frozen=True)
class HairShell:
    """The fitted shell."""

    thickness: Float[np.ndarray, "rows columns"]
    """Over the opened skull, world units; negative where the shell hides below the skin."""
    radius: Float[np.ndarray, "rows columns"]
    """Of the shell's surface on the capsule grid, world units."""


def grid_mesh(radius: Float[np.ndarray, "rows columns"]) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Vertices (with a doubled seam column) and triangles of a capsule surface."""
    points = capsule.surface_points(radius)
    points = np.concatenate([points, points[:, :1]], axis=1)
    return points.reshape(-1, 3), capsule.grid_faces()


def wrapped_laplacian() -> scipy.sparse.csc_matrix:
    """Graph Laplacian of the grid, columns closed into rings; steps along a ring weigh more where they are short."""
    index = np.arange(capsule.ROWS * capsule.COLUMNS).reshape(capsule.ROWS, capsule.COLUMNS)
    rows = np.arange(capsule.ROWS)
    elevation = np.where(rows < capsule.SPHERE_ROWS, np.pi / 2 * (1 - rows / capsule.SPHERE_ROWS), 0.0)
    along_ring = np.broadcast_to((0.5 / np.maximum(np.cos(elevation), 0.15) ** 2)[:, None], index.shape)
    i = np.concatenate([index.ravel(), index[:-1].ravel()])
    j = np.concatenate([np.roll(index, -1, axis=1).ravel(), index[1:].ravel()])
    weight = np.concatenate([along_ring.ravel(), np.ones(index[1:].size)])
    adjacency = scipy.sparse.coo_matrix((weight, (i, j)), shape=(index.size, index.size))
    adjacency = adjacency + adjacency.T
    return (scipy.sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency).tocsc()


@dataclass(frozen=True)
class _Outline:
    """What the portrait says about the outline, at raster size."""

    camera: Cameras
    counted: Bool[np.ndarray, "r r"]
    """Pixels in which the outline means something: inside the picture, not near cloth."""
    distance_px: Float[np.ndarray, "r r"]
    """Signed distance to the border of skin and hair, pixels of this size."""


def _outline(portrait: Portrait, labels: PortraitLabels) -> _Outline:
    size = portrait.size_px
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * (size // 80) + 1,) * 2)
    body = cv2.morphologyEx((labels.skin | labels.hair).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    distance = cv2.distanceTransform(body, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - body, cv2.DIST_L2, 5)
    near_cloth = cv2.dilate(labels.cloth.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0

    def small(mask: Bool[np.ndarray, "s s"]) -> Bool[np.ndarray, "r r"]:
        return cv2.resize(mask.astype(np.float32), (_RASTER_SIZE,) * 2, interpolation=cv2.INTER_AREA) > 0.5

    return _Outline(
        portrait.head.camera.resized(_RASTER_SIZE, _RASTER_SIZE),
        small(portrait.inside) & ~small(near_cloth),
        cv2.resize(distance * (_RASTER_SIZE / size), (_RASTER_SIZE,) * 2, interpolation=cv2.INTER_AREA),
    )


def _surface_radius(
    skull: Float[np.ndarray, "rows columns"], thickness: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    return np.maximum(skull + thickness, 0.01)


@dataclass(frozen=True)
class _Start:
    """What the solve starts from."""

    thickness: Float[np.ndarray, "rows columns"]
    """World units."""
    pull: Float[np.ndarray, "rows columns"]
    """Weight with which each cell stays there."""
    hidden: Bool[np.ndarray, "rows columns"]
    """Cells without hair for certain."""
    covered: Bool[np.ndarray, "rows columns"]
    """Cells in which hair is rather sure."""


def _start(
    portrait: Portrait, labels: PortraitLabels, skull: Float[np.ndarray, "rows columns"], field: HeadField
) -> _Start:
    """What the field says."""
    hair, headgear = to_capsule(field.material[[HAIR, HEADGEAR]])
    presence = hair + headgear
    above_nape = np.ones_like(skull)
    if not _hair_hangs(portrait, labels):
        height = capsule.surface_points(skull)[..., 1]
        above_nape = np.clip((height - _HAIR_END_Y) / _HAIR_FADE + 0.4, 0.0, 1.0)
        presence = presence * np.clip(4 * above_nape, 0.0, 1.0)
    share = np.clip((presence - 0.3) / 0.4, 0.0, 1.0)
    share = share * share * (3 - 2 * share)
    radius = capsule.smooth_over_columns(to_capsule(field.skull_radius + field.thickness), _SMOOTHING, _SMOOTHING)
    estimated = radius + _HAIR_BEYOND * np.clip(hair, 0, 1) - skull
    thickness = share * np.maximum(estimated, 0) * np.sqrt(above_nape) + (1 - share) * _SUNK_THICKNESS
    most = within_outline(portrait, _surface_radius(skull, thickness), skull + _LEAST_HAIR) + _MOST_BEYOND - skull
    thickness = np.minimum(thickness, most)
    pull = _LEAST_PULL + (_SURE_PULL - _LEAST_PULL) * np.abs(2 * presence - 1)
    return _Start(thickness, pull, presence < 0.12, presence > 0.6)


def within_outline(
    portrait: Portrait, radius: Float[np.ndarray, "rows columns"], least: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    """A surface cut back to where it would stand out of the person's outline.

    Args:
        portrait: aligned portrait with its fitted head.
        radius: of the surface, world units.
        least: radius that is left at any rate, if the surface reaches that far.
    """
    origins, outward = capsule.grid_rays()
    least = np.minimum(least, radius)
    size, person = portrait.size_px, portrait.alpha_unit > 0.5
    result, cut = radius.copy(), np.zeros(radius.shape, bool)
    for share in np.linspace(0, 1, _CUT_STEPS):
        at = least + share * (radius - least)
        pixel = np.floor(project_px(portrait.head.camera, origins + outward * at[..., None])).astype(np.int64)
        column, row = np.moveaxis(np.clip(pixel, 0, size - 1), -1, 0)
        out = ((pixel >= 0) & (pixel < size)).all(-1) & portrait.inside[row, column] & ~person[row, column]
        result = np.where(out & ~cut, at, result)
        cut |= out
    return result


def _tidied(
    thickness: Float[np.ndarray, "rows columns"],
    skull: Float[np.ndarray, "rows columns"],
    bare_ears: Bool[np.ndarray, "rows columns"],
    plainly_hair: Float[np.ndarray, "rows columns"],
    short: Float[np.ndarray, "rows columns"],
) -> Float[np.ndarray, "rows columns"]:
    """A solved shell without steep flares, islands and pinholes; `plainly_hair` of `_plainly_hair`, `short` tells how
    far hair is short, [0, 1]."""
    thickness = _flare_limited(skull + thickness) - skull
    thickness = _soft_hairline(thickness, skull)
    if short.any():
        cropped = _without_tongues(_soft_sides(_behind_temples(thickness, skull, plainly_hair), skull), skull)
        thickness = thickness + (cropped - thickness) * short
    thickness = np.where(_pinholes(thickness < _LEAST_HAIR, bare_ears), _LEAST_SCALP_THICKNESS, thickness)
    return _one_piece(_without_tufts(capsule.smooth_over_columns(thickness, 0.7, 0.7)))


def _short_share(
    across: Float[np.ndarray, "rows columns"], bare_sides: tuple[bool, bool]
) -> Float[np.ndarray, "rows columns"]:
    """How far the hair at each cell is short by its ears; from one side to the other it goes over gently.

    Args:
        across: of each cell's ray, towards the head's left.
        bare_sides: of `_bare_sides`.
    """
    right, left = map(float, bare_sides)
    return right + (left - right) * ramp(across, *_MIDDLE)


def _soft_hairline(
    thickness: Float[np.ndarray, "rows columns"], skull: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    """Hair that rises gently from the forehead and from a bald crown, not with the edge of a cap."""
    points = capsule.surface_points(skull).reshape(-1, 3)
    bare = (thickness.ravel() < _LEAST_HAIR) & (points[:, 1] > _FOREHEAD_Y)
    if not bare.any():
        return thickness
    distance = KDTree(points[bare]).query(points)[0].reshape(thickness.shape)
    return np.minimum(thickness, distance * (_HAIRLINE_SLOPE + distance / _HAIRLINE_RADIUS))


def _soft_sides(
    thickness: Float[np.ndarray, "rows columns"], skull: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    """Short hair that rises gently from temples, ears and nape as well."""
    points = capsule.surface_points(skull)
    bare, low = thickness < _LEAST_HAIR, points[..., 1] < _FOREHEAD_Y + _SIDES_ABOVE
    if not (bare & low).any():
        return thickness
    near = low & ~bare
    distance = KDTree(points[bare & low]).query(points[near])[0]
    result = thickness.copy()
    result[near] = np.minimum(thickness[near], distance * (_SIDE_SLOPE + distance / _SIDE_RADIUS))
    return result


def _behind_temples(
    thickness: Float[np.ndarray, "rows columns"],
    skull: Float[np.ndarray, "rows columns"],
    plainly_hair: Float[np.ndarray, "rows columns"],
) -> Float[np.ndarray, "rows columns"]:
    """Short hair that ends along the temples' usual line, unless it is plainly seen before it.

    Pixels of hair at the rim of a portrait from the front would else be laid over the temples as far forward as rays
    reach them, and end in a square corner before the ear. Between hair that is plainly seen and the line no notch is
    left.
    """
    points = capsule.surface_points(skull)
    _, y, z = np.moveaxis(centimetres(points), -1, 0)
    line = np.interp(y, *_TEMPLE_LINE_CM.T)
    before = (z > line) & (y < _TEMPLE_LINE_CM[-1, 0])
    near = ~before & (y < _TEMPLE_LINE_CM[-1, 0] + 1) & (z > 0)
    if not (before.any() and near.any()):
        return thickness
    most = np.where(before, _BARE_THICKNESS, np.inf)
    distance = KDTree(points[before]).query(points[near])[0]
    most[near] = distance * (_TEMPLE_SLOPE + distance / _TEMPLE_RADIUS)
    cut = np.minimum(thickness, most)
    cut = cut + (thickness - cut) * plainly_hair
    notch = _round_the_axis(ndimage.binary_closing, cut > 0, _NOTCH) & (cut <= 0)
    return np.where(notch, thickness, cut)


def _round_the_axis(
    operation: Callable[..., Bool[np.ndarray, "rows turns"]],
    mask: Bool[np.ndarray, "rows columns"],
    structure: Bool[np.ndarray, "i j"],
) -> Bool[np.ndarray, "rows columns"]:
    """A morphological operation for which the last column neighbours the first."""
    turns = np.asarray(operation(np.concatenate([mask] * 3, axis=1), structure), bool)
    return turns[:, capsule.COLUMNS : 2 * capsule.COLUMNS]


def _plainly_hair(
    portrait: Portrait, labels: PortraitLabels, radius: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    """How plainly each cell of a surface is seen as hair, [0, 1]."""
    facing, u, v = faced_cells(portrait, radius)
    share = ramp(facing, *_PLAINLY_SEEN) * labels.hair[v, u]
    return capsule.smooth_over_columns(share.reshape(radius.shape), 1.0, 1.0)


def _without_tongues(
    thickness: Float[np.ndarray, "rows columns"], skull: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    """Short hair without narrow tongues over the temples: pixels at the outline that have slipped to the face."""
    _, y, z = np.moveaxis(centimetres(capsule.surface_points(skull)), -1, 0)
    broad = _round_the_axis(ndimage.binary_opening, thickness > 0, np.ones((_TONGUE_CELLS,) * 2, bool))
    tongue = (thickness > 0) & ~broad & (z > _TEMPLES_Z_CM) & (y < _TEMPLES_Y_CM)
    return np.where(tongue, _BARE_THICKNESS, thickness)


def _cell_areas() -> Float[np.ndarray, "rows 1"]:
    """How large the cells of each row are, beside the largest."""
    elevation = np.maximum(0.0, 1 - np.arange(capsule.ROWS)[:, None] / capsule.SPHERE_ROWS) * (np.pi / 2)
    return np.cos(elevation)


def _pinholes(
    bare: Bool[np.ndarray, "rows columns"], bare_ears: Bool[np.ndarray, "rows columns"]
) -> Bool[np.ndarray, "rows columns"]:
    """Small bare spots with hair all round them, but for ears."""
    pieces, count = capsule.pieces_round(bare)
    area = np.bincount(pieces.ravel(), np.broadcast_to(_cell_areas(), pieces.shape).ravel(), minlength=count + 1)
    with_ear = np.isin(pieces, np.unique(pieces[np.concatenate([bare_ears] * 3, axis=1)]))
    small = (area[pieces] < _PINHOLE_CELLS) & ~with_ear
    return (small & (pieces > 0))[:, capsule.COLUMNS : 2 * capsule.COLUMNS] & bare


def _flare_limited(radius: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Below the half sphere the radius grows by at most so much per unit of height going down."""
    row_height = (capsule.CENTRE_Y - capsule.BOTTOM_Y) / (capsule.ROWS - 1 - capsule.SPHERE_ROWS)
    height = capsule.surface_points(radius)[..., 1].mean(1)
    most = row_height * np.where(height > _CHIN_Y, _MOST_FLARE, _HANGING_FLARE)
    radius = radius.copy()
    for row in range(capsule.SPHERE_ROWS, capsule.ROWS):
        radius[row] = np.minimum(radius[row], radius[row - 1] + most[row])
    return radius


def fit_hair_shell(portrait: Portrait, labels: PortraitLabels, model: HeadModel, field: HeadField) -> HairShell:
    """Fit the shell to a portrait.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes.
        model: the head model of the fit.
        field: what the head is covered with, above the fitted skull (`field_of_portrait`).
    """
    head_faces = model.skin_faces
    skull = capsule.opened_skull_radius(portrait.head.vertices_world, head_faces)
    ears = ear_heights(portrait, model, skull)
    bare_sides = _bare_sides(portrait, labels, model)
    across = capsule.grid_rays()[1][..., 0]
    bare_ears = (ears > 0) & np.where(across < 0, *bare_sides)
    start = _start(portrait, labels, skull, field)
    outline = _outline(portrait, labels)
    solver = _ShellSolver(portrait, labels, outline, skull, bare_ears, head_faces, start)
    thickness = solver.solve(start.thickness, _STIFF_BENDING)
    thickness = solver.solve(thickness, _SOFT_BENDING)
    seen, u, v = seen_cells(portrait, skull)
    skin_seen = (seen & labels.skin[v, u]).reshape(skull.shape) | bare_ears
    floor = np.where(start.covered & ~skin_seen, _LEAST_SCALP_THICKNESS, -1.0)
    hidden_ears = (ears > 0) & ~bare_ears & start.covered
    floor = np.where(hidden_ears, ears + _OVER_EARS, floor)
    thickness = np.maximum(thickness, floor)
    plainly_hair = _plainly_hair(portrait, labels, _surface_radius(skull, np.maximum(thickness, 0)))
    short = np.where(_hair_hangs(portrait, labels), 0.0, _short_share(across, bare_sides))
    thickness = _tidied(thickness, skull, bare_ears, plainly_hair, short)
    return HairShell(thickness, _surface_radius(skull, thickness))


def _unproject(camera: Cameras, uv_px: Float[np.ndarray, "p 2"], depth: Float[np.ndarray, " p"]):
    """World points of pixels with known camera depth."""
    focal, principal = camera.focal_px[0].numpy(), camera.principal_px[0].numpy()
    points_camera = np.concatenate([(uv_px - principal) / focal, np.ones((len(uv_px), 1))], axis=1) * depth[:, None]
    T = camera.T_world_camera[0].numpy()
    return points_camera @ T[:3, :3].T + T[:3, 3]


def seen_cells(
    portrait: Portrait, radius: Float[np.ndarray, "rows columns"]
) -> tuple[Bool[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Cells that face the portrait's camera inside the picture, and their pixel columns and rows."""
    facing, u, v = faced_cells(portrait, radius)
    return facing > _FACING_COSINE, u, v


def faced_cells(
    portrait: Portrait, radius: Float[np.ndarray, "rows columns"]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Cosine between each cell's ray and the line of sight, -1 out of the picture, and its pixel column and row."""
    size = portrait.size_px
    points = capsule.surface_points(radius).reshape(-1, 3)
    to_camera = portrait.head.camera.position_world[0].numpy() - points
    directions = capsule.grid_rays()[1].reshape(-1, 3)
    facing = (directions * to_camera).sum(1) / np.linalg.norm(to_camera, axis=1)
    uv = np.floor(project_px(portrait.head.camera, points)).astype(int)
    u, v = np.clip(uv, 0, size - 1).T
    return np.where((uv >= 0).all(1) & (uv < size).all(1), facing, -1.0), u, v


def _hair_hangs(portrait: Portrait, labels: PortraitLabels) -> bool:
    """Whether enough hair is seen below the chin, and far enough down, to let any hang below the nape."""
    heights = np.linspace(capsule.BOTTOM_Y, 0.1, 64)
    rows = project_px(portrait.head.camera, heights[:, None] * np.array([0.0, 1.0, 0.0]))[:, 1]
    hair_rows = np.nonzero(labels.hair)[0]
    units_per_px = PANOHEAD_RADIUS / float(portrait.head.camera.focal_px[0, 0])
    if (hair_rows > np.interp(_CHIN_Y, heights, rows)).sum() * units_per_px**2 < _LEAST_HANGING:
        return False
    lowest_row = float(np.percentile(hair_rows, 98.5))
    if lowest_row > 0.95 * portrait.size_px:
        return True
    return bool(np.interp(lowest_row, rows[::-1], heights[::-1]) - 0.03 < _HAIR_END_Y)


def _bare_sides(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> tuple[bool, bool]:
    """Whether ears are uncovered, on the head's right and on its left. The one that is seen better speaks for an ear
    that is neither labelled as one nor has hair hanging beside it."""
    x = centimetres(model.neutral)[:, 0]
    ear = ear_vertices(model)
    size = portrait.size_px
    towards: dict[int, float] = {}
    bare, sure = {-1: False, 1: False}, {-1: False, 1: False}
    for side in (-1, 1):
        points = portrait.head.vertices_world[ear & (np.sign(x) == side)]
        turned = float(np.sin(float(portrait.head.camera.azimuth_rad[0]))) * side
        if turned < _MOST_TURNED_AWAY:
            continue
        uv = np.clip(project_px(portrait.head.camera, points).astype(int), 0, size - 1)
        little = _little_of_ear(uv, labels)
        beside = _hair_beside(uv, labels, side) if little else 0.0
        skin = labels.skin[uv[:, 1], uv[:, 0]].mean()
        towards[side] = turned
        bare[side] = bool(skin >= _BARE_EAR_SHARE and beside < _HIDES)
        sure[side] = beside >= _HIDES or (bare[side] and not little)
    if not towards:
        return False, False
    better = max(towards, key=lambda side: towards[side])
    right, left = (bare[side if sure[side] else better] for side in (-1, 1))
    return right, left


def _hair_beside(uv: Int[np.ndarray, "p 2"], labels: PortraitLabels, side: int) -> float:
    """Share of the rows beside an ear on which hair is seen outside of it.

    Args:
        uv: pixels of its vertices, column and row.
        labels: of the portrait.
        side: 1 for an ear on the right of the picture, -1 on the left.
    """
    top, bottom = uv[:, 1].min(), uv[:, 1].max()
    height = max(int(bottom - top), 1)
    first, last = (round(top + share * height) for share in _BESIDE_EAR)
    rows = np.arange(first, min(last, len(labels.hair)))
    outward = (uv[:, 0].max() if side > 0 else uv[:, 0].min()) + side * np.linspace(0, 0.5 * height, 12)
    columns = np.clip(outward.astype(int), 0, len(labels.hair) - 1)
    return float((labels.hair[np.ix_(rows, columns)].mean(1) > 0.4).mean()) if len(rows) else 0.0


def _little_of_ear(uv: Int[np.ndarray, "p 2"], labels: PortraitLabels) -> bool:
    """Whether little of an ear is labelled as one: what is seen is a sliver."""
    height = max(int(np.ptp(uv[:, 1])), 1)
    row, column = np.nonzero(labels.classes.argmax(-1) == EAR)
    near = np.hypot(row - uv[:, 1].mean(), column - uv[:, 0].mean()) < height
    return bool(near.sum() < _WHOLE_EAR * cv2.contourArea(cv2.convexHull(uv.astype(np.int32))))


def ear_heights(
    portrait: Portrait, model: HeadModel, skull: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    """How far the ears stand out of the skull in each cell, world units; 0 off them."""
    heights = np.zeros_like(skull)
    row, column, radius = capsule.cell_coordinates(portrait.head.vertices_world[ear_vertices(model)])
    i = np.clip(np.rint(row), 0, capsule.ROWS - 1).astype(int)
    j = np.rint(column).astype(int) % capsule.COLUMNS
    np.maximum.at(heights, (i, j), radius - skull[i, j])
    return np.asarray(ndimage.grey_closing(heights, size=(5, 5), mode="wrap"))


def _one_piece(thickness: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Sink whatever is not connected with the crown: islands of shell on cheeks and throats."""
    components, _ = capsule.pieces_round(thickness > _BARE_THICKNESS)
    crown = np.setdiff1d(np.unique(components[: capsule.SPHERE_ROWS // 2]), [0])
    kept = np.isin(components, crown).reshape(capsule.ROWS, 3, capsule.COLUMNS).any(1)
    return np.where(kept, thickness, np.minimum(thickness, _SUNK_THICKNESS))


def _without_tufts(thickness: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Sink pieces of hair that stand alone on a bald crown and are small beside the rest."""
    pieces, count = capsule.pieces_round(thickness > 0)
    once = pieces[:, capsule.COLUMNS : 2 * capsule.COLUMNS]
    area = np.bincount(once.ravel(), np.broadcast_to(_cell_areas(), once.shape).ravel(), count + 1)
    area[0] = 0
    large = area > _LEAST_TUFT * area.max()
    tuft = (pieces > 0) & ~large[pieces] & (area[pieces] > 0)
    tuft = tuft[:, capsule.COLUMNS : 2 * capsule.COLUMNS]
    return np.where(tuft, np.minimum(thickness, _BARE_THICKNESS), thickness)


@dataclass(frozen=True)
class _ShellSolver:
    """Alternates between rendering the outline and a linear solve for the thickness."""

    portrait: Portrait
    labels: PortraitLabels
    outline: _Outline
    skull: Float[np.ndarray, "rows columns"]
    bare_ears: Bool[np.ndarray, "rows columns"]
    head_faces: Int[np.ndarray, "f 3"]
    start: _Start

    def solve(self, base: Float[np.ndarray, "rows columns"], bending: float) -> Float[np.ndarray, "rows columns"]:
        """Several solves for the smooth change of `base` that meets the outline and the labels."""
        laplacian = wrapped_laplacian()
        smoothness = bending * (laplacian.T @ laplacian) + 0.02 * laplacian
        hidden = (self.bare_ears | self.start.hidden).ravel()
        thickness, systems = base, SimilarSystems()
        for _ in range(_ROUNDS):
            outline_weight, outline_target = self._outline_terms(thickness)
            label_weight, label_target = self._label_terms(thickness, base)
            outline_weight = np.where(hidden, 0.0, outline_weight)
            label_weight = np.where(hidden, _HIDDEN_PULL, label_weight)
            label_target = np.where(hidden, _SUNK_THICKNESS, label_target)
            system = smoothness + scipy.sparse.diags(outline_weight + label_weight + self.start.pull.ravel())
            right = outline_weight * (outline_target - base.ravel()) + label_weight * (label_target - base.ravel())
            change = systems.solve(system, right)
            change = np.clip(change, -_MOST_THICKNESS, _MOST_THICKNESS)
            thickness = np.maximum(base + change.reshape(base.shape), _DEEPEST_THICKNESS)
        return thickness

    def _outline_terms(
        self, thickness: Float[np.ndarray, "rows columns"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Weights and targets of the cells that form the outline in the portrait's view."""
        camera, head_vertices, n = self.outline.camera, self.portrait.head.vertices_world, thickness.size
        shell_vertices, shell_faces = grid_mesh(_surface_radius(self.skull, thickness))
        vertices = np.concatenate([head_vertices, shell_vertices])
        faces = np.concatenate([self.head_faces, shell_faces + len(head_vertices)])
        fragments = rasterize_mesh(vertices, faces, camera)
        hit = fragments.hit
        inner = np.asarray(ndimage.binary_erosion(hit, iterations=2), dtype=bool)
        rim = hit & ~inner & self.outline.counted
        rim[:2], rim[:, :2], rim[:, -2:] = False, False, False
        v, u = np.nonzero(rim)
        on_shell = fragments.triangle_index[v, u] >= len(self.head_faces)
        gap_px = self.outline.distance_px[v, u] - 1.0
        use = on_shell | (gap_px > 1.5)  # where the head itself forms the outline the shell may only grow over it
        v, u, on_shell, gap_px = v[use], u[use], on_shell[use], gap_px[use]
        points = _unproject(camera, np.stack([u, v], axis=1) + 0.5, fragments.depth[v, u].astype(np.float64))
        row, column, point_radius = capsule.cell_coordinates(points)
        cell = np.clip(np.rint(row), 0, capsule.ROWS - 1).astype(int) * capsule.COLUMNS
        cell += np.rint(column).astype(int) % capsule.COLUMNS
        now = np.where(on_shell, thickness.ravel()[cell], point_radius - self.skull.ravel()[cell])
        step = np.clip(gap_px * PANOHEAD_RADIUS / float(camera.focal_px[0, 0]), -_MOST_STEP, _MOST_STEP)
        count = np.bincount(cell, minlength=n)
        target = np.bincount(cell, now + step, minlength=n) / np.maximum(count, 1)
        return _OUTLINE_WEIGHT * np.minimum(count, 3), target

    def _label_terms(
        self, thickness: Float[np.ndarray, "rows columns"], base: Float[np.ndarray, "rows columns"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Weights and targets from what is seen at each cell: skin pushes the shell under, hair lifts it."""
        labels = self.labels
        seen, u, v = seen_cells(self.portrait, _surface_radius(self.skull, np.maximum(thickness, 0.003)))
        skin, hair, cloth = (seen & mask[v, u] for mask in (labels.skin, labels.hair, labels.cloth))
        weight = np.select([skin, hair, cloth], [_SKIN_PULL, _HAIR_PULL, _CLOTH_PULL], 0.0)
        under = np.minimum(base.ravel(), _BARE_THICKNESS)
        over = np.clip(thickness.ravel(), 0.006, 0.06)
        return weight, np.select([skin, hair, cloth], [under, over, np.full_like(under, _BARE_THICKNESS)], 0.0)

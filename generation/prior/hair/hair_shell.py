"""The outer shell: one star-shaped surface for hair or headwear that agrees with the portrait's outline.

The shell is a thickness over the opened skull on the capsule grid. It starts from what a network trained on composed
heads makes of the portrait (`learned.hair_thickness`), or by the rules from hair templates chosen by how well their
outline fits. A few rounds of a regularised linear solve then move the cells that form the outline in the portrait's
view onto the matte's edge; the network's confidence says how firmly the other cells stay. Where skin is seen the
thickness is negative: the shell sinks below the face, so that no hairline has to be stitched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import scipy.spatial
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from ...cameras import PANOHEAD_RADIUS, Cameras
from ...head_model import HeadModel
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from ...mesh_raster import rasterize_mesh
from ...portrait import Portrait
from .. import capsule
from ..labels.portrait_labels import PortraitLabels, centimetres, ear_vertices, project_px
from .thickness_network import (
    HairEstimate,
    LoadedHairThickness,
    estimate_hair,
    load_hair_thickness,
    shell_features,
)

_BALD_THICKNESS = -0.012
_SUNK_THICKNESS = -0.025
"""Where the estimate has no hair."""
_PINHOLE_CELLS = 130.0
"""Bare spots of fewer cells (of full size) are filled."""
_NECK_CUT_Y = (-6.0 - 2.0) * 0.0165
"""Height below which hair that does not hang ends, world units."""
_CHIN_Y = (-8.5 - 2.0) * 0.0165
_FOREHEAD_Y = (4.0 - 2.0) * 0.0165
"""Bare skin in front above this height, above the brows, is forehead or temple."""
_RASTER_SIZE = 256


@dataclass(frozen=True)
class HairShellConfig:
    """Start and weights of the shell's solve; lengths in world units (1 cm = 0.0165)."""

    method: Literal["learned", "rules"] = "learned"
    """`learned` starts from the trained network's thickness; `rules` mixes templates and needs no weights, and stands
    in where they are missing."""
    estimate_weight: float = 0.03
    """Pull to the network's thickness where it is as sure as `usual_spread`; less where it is less sure."""
    usual_spread: float = 0.012
    """Spread of the network's thickness that `estimate_weight` refers to."""
    learned_flare: float = 0.9
    """`maximum_flare` of the learned method: hats and bobs flare more than the rules allow."""
    estimate_smoothing: float = 1.6
    """Standard deviation of the smoothing of the network's thickness, grid cells."""
    hairline_slope: float = 0.2
    """Learned: hair on the forehead rises from its hairline with at most this slope at first ..."""
    hairline_radius: float = 0.05
    """... and ever steeper, by its distance from the hairline over this, world units."""
    coarse_rounds: int = 3
    """Outline rounds with the stiff surface: they move whole regions, so that volume does not become a ridge."""
    fine_rounds: int = 3
    """Outline rounds with the soft surface, starting from the stiff result."""
    coarse_bending: float = 600.0
    """Weight of the squared Laplacian in the coarse rounds."""
    fine_bending: float = 30.0
    """Weight of the squared Laplacian in the fine rounds."""
    outline_weight: float = 4.0
    """Weight of a cell on the outline, per pixel, at most three pixels."""
    template_weight: float = 0.004
    """Rules: pull to the template mix (fine rounds: to the coarse result) where the portrait says nothing."""
    maximum_flare: float = 0.45
    """Largest growth of the radius per unit of height going down: hair hangs, collars flare."""
    minimum_scalp_thickness: float = 0.008
    """Hair on the unseen scalp is at least this thick (about 5 mm)."""
    maximum_step: float = 0.05
    """Largest outline correction in one round."""
    maximum_thickness: float = 0.16
    """No hair or hat is thicker than this (about 10 cm) beyond the template."""
    template_softness: float = 0.02
    """Difference in outline overlap by which one template loses against another (softmax temperature)."""


@dataclass(frozen=True)
class HairShell:
    """The fitted shell."""

    thickness: Float[np.ndarray, "rows columns"]
    """Over the opened skull, world units; negative where the shell hides below the skin."""
    radius: Float[np.ndarray, "rows columns"]
    """Of the shell's surface on the capsule grid, world units."""
    skull_radius: Float[np.ndarray, "rows columns"]
    """Of the opened skull."""
    lowest_y: float
    """Height at which the hair ends, world units."""
    outline_iou: float
    """Overlap of the fitted head's outline with the matte (without cloth) in the portrait's view."""


def grid_mesh(radius: Float[np.ndarray, "rows columns"]) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Vertices (with a doubled seam column) and triangles of a capsule surface."""
    points = capsule.surface_points(radius)
    points = np.concatenate([points, points[:, :1]], axis=1)
    return points.reshape(-1, 3), capsule.grid_faces()


def _wrapped_laplacian() -> scipy.sparse.csc_matrix:
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


def _signed_distance_px(mask: Bool[np.ndarray, "s s"]) -> Float[np.ndarray, "s s"]:
    """Distance to the mask's border in pixels, positive inside."""
    inside = mask.astype(np.uint8)
    return cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)


@dataclass(frozen=True)
class _Outline:
    """What the portrait says about the outline, at raster size."""

    camera: Cameras
    body: Bool[np.ndarray, "r r"]
    """Skin or hair."""
    counted: Bool[np.ndarray, "r r"]
    """Pixels in which the outline means something: inside the picture, not near cloth."""
    distance_px: Float[np.ndarray, "r r"]
    """Signed distance to the body's border, pixels of this size."""

    def overlap(self, hit: Bool[np.ndarray, "r r"]) -> float:
        """Intersection over union with a rendered mask."""
        union = ((hit | self.body) & self.counted).sum()
        return float((hit & self.body & self.counted).sum() / max(1, union))


def _outline(portrait: Portrait, labels: PortraitLabels) -> _Outline:
    size = portrait.rgb.shape[0]
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * (size // 80) + 1,) * 2)
    body = cv2.morphologyEx((labels.skin | labels.hair).astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
    near_cloth = cv2.dilate(labels.cloth.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    distance = _signed_distance_px(body) * (_RASTER_SIZE / size)

    def small(mask: Bool[np.ndarray, "s s"]) -> Bool[np.ndarray, "r r"]:
        return cv2.resize(mask.astype(np.float32), (_RASTER_SIZE,) * 2, interpolation=cv2.INTER_AREA) > 0.5

    return _Outline(
        portrait.head.camera.resized(_RASTER_SIZE, _RASTER_SIZE),
        small(body),
        small(portrait.inside) & ~small(near_cloth),
        cv2.resize(distance, (_RASTER_SIZE,) * 2, interpolation=cv2.INTER_AREA),
    )


def _surface_radius(
    skull: Float[np.ndarray, "rows columns"], thickness: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    return np.maximum(skull + thickness, 0.01)


def _template_mix(
    model: HeadModel,
    skull: Float[np.ndarray, "rows columns"],
    outline: _Outline,
    softness: float,
    ears_are_bare: bool,
) -> Float[np.ndarray, "rows columns"]:
    """Average of the hair templates, weighted by how well their outlines overlap with the portrait's.

    Who shows the ears mostly has a short nape: templates that hang behind count less then.
    """
    bald = np.full_like(skull, _BALD_THICKNESS)
    if len(model.hair_templates) == 0:
        return bald
    templates = np.where(np.isfinite(model.hair_templates), model.hair_templates, _BALD_THICKNESS)
    overlaps = []
    for template in templates:
        vertices, faces = grid_mesh(_surface_radius(skull, template))
        overlaps.append(outline.overlap(rasterize_mesh(vertices, faces, outline.camera).hit))
    weight = np.exp((np.array(overlaps) - max(overlaps)) / softness)
    if ears_are_bare:
        behind = slice(capsule.COLUMNS * 5 // 16, capsule.COLUMNS * 11 // 16)
        nape = templates[:, capsule.SPHERE_ROWS + 8 : capsule.SPHERE_ROWS + 30, behind].mean((1, 2))
        weight = weight * np.exp(-((np.maximum(nape, 0.0) / 0.012) ** 2)) + 1e-9
    mix = np.tensordot(weight / weight.sum(), templates, 1)
    return capsule.smooth_over_columns(mix, 1.0, 1.0)


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
    """Cells in which the network is rather sure of hair."""
    lowest_y: float
    """Height at which the hair ends, world units."""
    by_network: bool
    """Whether the network was asked."""


def _start(
    portrait: Portrait,
    labels: PortraitLabels,
    model: HeadModel,
    skull: Float[np.ndarray, "rows columns"],
    outline: _Outline,
    ears_are_bare: bool,
    config: HairShellConfig,
) -> _Start:
    match config.method:
        case "learned":
            loaded = load_hair_thickness()
        case "rules":
            loaded = None
        case _:
            assert_never(config.method)
    height, nowhere = capsule.surface_points(skull)[..., 1], np.zeros(skull.shape, bool)
    if labels.bald:
        lowest_y = _lowest_hair(portrait, labels)
        thickness = np.where(height < lowest_y, _SUNK_THICKNESS, -0.02)
        return _Start(thickness, np.zeros_like(skull), height < lowest_y, nowhere, lowest_y, False)
    if loaded is not None:
        return _start_by_network(portrait, labels, skull, loaded, config)
    thickness = _template_mix(model, skull, outline, config.template_softness, ears_are_bare)
    lowest_y = _lowest_hair(portrait, labels)
    thickness = np.where(height < lowest_y, _SUNK_THICKNESS, thickness)
    return _Start(thickness, np.full_like(skull, config.template_weight), height < lowest_y, nowhere, lowest_y, False)


def hair_estimate(
    portrait: Portrait,
    labels: PortraitLabels,
    skull: Float[np.ndarray, "rows columns"],
    loaded: LoadedHairThickness,
) -> HairEstimate:
    """The network's answer for a portrait.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes.
        skull: opened skull of the fitted head.
        loaded: the network.
    """
    hair, skin, cloth = (mask.astype(np.float32) for mask in (labels.hair, labels.skin, labels.cloth))
    features = shell_features(hair, skin, cloth, portrait.inside, portrait.head.camera, skull)
    return estimate_hair(features, loaded)


def _start_by_network(
    portrait: Portrait,
    labels: PortraitLabels,
    skull: Float[np.ndarray, "rows columns"],
    loaded: LoadedHairThickness,
    config: HairShellConfig,
) -> _Start:
    estimate = hair_estimate(portrait, labels, skull, loaded)
    height = capsule.surface_points(skull)[..., 1]
    presence = estimate.presence
    above_nape = np.ones_like(height)
    if _lowest_hair(portrait, labels) == _NECK_CUT_Y:  # too little hair is seen below the chin to let any hang there
        above_nape = np.clip((height - _NECK_CUT_Y) / 0.05 + 0.4, 0.0, 1.0)
        presence = presence * np.clip(4 * above_nape, 0.0, 1.0)
    share = np.clip((presence - 0.3) / 0.4, 0.0, 1.0)
    share = share * share * (3 - 2 * share)
    estimated = capsule.smooth_over_columns(estimate.thickness, config.estimate_smoothing, config.estimate_smoothing)
    thickness = share * estimated * np.sqrt(above_nape) + (1 - share) * _SUNK_THICKNESS
    sureness = np.clip(config.usual_spread / estimate.spread, 0.1, 2.0) * np.abs(2 * presence - 1)
    covered = presence > 0.5
    lowest_y = float(height[covered].min()) if covered.any() else _NECK_CUT_Y
    pull = config.template_weight + config.estimate_weight * sureness
    return _Start(thickness, pull, presence < 0.12, presence > 0.6, lowest_y, True)


def _tidied(
    thickness: Float[np.ndarray, "rows columns"],
    skull: Float[np.ndarray, "rows columns"],
    bare_ears: Bool[np.ndarray, "rows columns"],
    config: HairShellConfig,
) -> Float[np.ndarray, "rows columns"]:
    """A solved shell without steep flares, islands and pinholes."""
    thickness = _flare_limited(skull + thickness, config.learned_flare) - skull
    thickness = _soft_hairline(thickness, skull, config)
    thickness = np.where(_pinholes(thickness < 0.002, bare_ears), config.minimum_scalp_thickness, thickness)
    return _one_piece(capsule.smooth_over_columns(thickness, 0.7, 0.7))


def _soft_hairline(
    thickness: Float[np.ndarray, "rows columns"], skull: Float[np.ndarray, "rows columns"], config: HairShellConfig
) -> Float[np.ndarray, "rows columns"]:
    """Hair that rises gently from the forehead, not with the edge of a cap."""
    points = capsule.surface_points(skull).reshape(-1, 3)
    bare = (thickness.ravel() < 0.002) & (points[:, 1] > _FOREHEAD_Y) & (points[:, 2] > 0)
    if not bare.any():
        return thickness
    distance = scipy.spatial.cKDTree(points[bare]).query(points)[0].reshape(thickness.shape)
    return np.minimum(thickness, distance * (config.hairline_slope + distance / config.hairline_radius))


def _pinholes(
    bare: Bool[np.ndarray, "rows columns"], bare_ears: Bool[np.ndarray, "rows columns"]
) -> Bool[np.ndarray, "rows columns"]:
    """Bare spots of less than about 20 square centimetres with hair all round them, but for ears."""
    pieces, count = ndimage.label(np.concatenate([bare] * 3, axis=1))  # three turns, as in `_one_piece`
    elevation = np.maximum(0.0, 1 - np.arange(capsule.ROWS)[:, None] / capsule.SPHERE_ROWS) * (np.pi / 2)
    area = np.bincount(pieces.ravel(), np.broadcast_to(np.cos(elevation), pieces.shape).ravel(), minlength=count + 1)
    with_ear = np.isin(pieces, np.unique(pieces[np.concatenate([bare_ears] * 3, axis=1)]))
    small = (area[pieces] < _PINHOLE_CELLS) & ~with_ear
    return (small & (pieces > 0))[:, capsule.COLUMNS : 2 * capsule.COLUMNS] & bare


def _flare_limited(radius: Float[np.ndarray, "rows columns"], most: float) -> Float[np.ndarray, "rows columns"]:
    """Below the half sphere the radius grows by at most `most` per unit of height going down."""
    row_height = (capsule.CENTRE_Y - capsule.BOTTOM_Y) / (capsule.ROWS - 1 - capsule.SPHERE_ROWS)
    radius = radius.copy()
    for row in range(capsule.SPHERE_ROWS, capsule.ROWS):
        radius[row] = np.minimum(radius[row], radius[row - 1] + most * row_height)
    return radius


def fit_hair_shell(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, config: HairShellConfig | None = None
) -> HairShell:
    """Fit the shell to a portrait.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes.
        model: the head model, with hair templates.
        config: weights.
    """
    config = config or HairShellConfig()
    head_vertices = portrait.head.vertices_world
    head_faces = model.faces_of(PART_FACE, PART_CRANIUM_NECK)
    skull = capsule.opened_skull_radius(head_vertices, head_faces)

    outline = _outline(portrait, labels)
    bare_ears = _bare_ears(portrait, labels, model)
    start = _start(portrait, labels, model, skull, outline, bool(bare_ears.any()), config)
    thickness = start.thickness
    if not labels.bald:
        solver = _ShellSolver(portrait, labels, outline, skull, bare_ears, head_faces, start, config)
        for bending, rounds in (
            (config.coarse_bending, config.coarse_rounds),
            (config.fine_bending, config.fine_rounds),
        ):
            thickness = solver.solve(thickness, bending, rounds)
        skin_seen = _seen_skin(portrait, labels, skull) | bare_ears
        if start.by_network:
            floor = np.where(start.covered & ~skin_seen, config.minimum_scalp_thickness, -1.0)
            thickness = _tidied(np.maximum(thickness, floor), skull, bare_ears, config)
        else:
            thickness = _plausible(thickness, skull, skin_seen, start.lowest_y, config)
    radius = _surface_radius(skull, thickness)
    hit = _render_hits(head_vertices, head_faces, radius, outline.camera)[0]
    return HairShell(thickness, radius, skull, start.lowest_y, outline.overlap(hit))


def _render_hits(
    head_vertices: Float[np.ndarray, "v 3"],
    head_faces: Int[np.ndarray, "f 3"],
    radius: Float[np.ndarray, "rows columns"],
    camera: Cameras,
) -> tuple[Bool[np.ndarray, "r r"], Bool[np.ndarray, "r r"], Float[np.ndarray, "r r"]]:
    """Pixels hit by head or shell, those hit by the shell first, and depth."""
    shell_vertices, shell_faces = grid_mesh(radius)
    vertices = np.concatenate([head_vertices, shell_vertices])
    faces = np.concatenate([head_faces, shell_faces + len(head_vertices)])
    fragments = rasterize_mesh(vertices, faces, camera)
    return fragments.hit, fragments.triangle_index >= len(head_faces), fragments.depth


def _unproject(camera: Cameras, uv_px: Float[np.ndarray, "p 2"], depth: Float[np.ndarray, " p"]):
    """World points of pixels with known camera depth."""
    focal, principal = camera.focal_px[0].numpy(), camera.principal_px[0].numpy()
    points_camera = np.concatenate([(uv_px - principal) / focal, np.ones((len(uv_px), 1))], axis=1) * depth[:, None]
    T = camera.T_world_camera[0].numpy()
    return points_camera @ T[:3, :3].T + T[:3, 3]


def _seen(
    portrait: Portrait, radius: Float[np.ndarray, "rows columns"]
) -> tuple[Bool[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Cells that face the portrait's camera inside the picture, and their pixel columns and rows."""
    size = portrait.rgb.shape[0]
    points = capsule.surface_points(radius).reshape(-1, 3)
    to_camera = portrait.head.camera.position_world[0].numpy() - points
    directions = capsule.grid_rays()[1].reshape(-1, 3)
    facing = (directions * to_camera).sum(1) / np.linalg.norm(to_camera, axis=1)
    uv = np.floor(project_px(portrait.head.camera, points)).astype(int)
    seen = (facing > 0.35) & (uv >= 0).all(1) & (uv < size).all(1)
    u, v = np.clip(uv, 0, size - 1).T
    return seen, u, v


def _seen_skin(
    portrait: Portrait, labels: PortraitLabels, skull: Float[np.ndarray, "rows columns"]
) -> Bool[np.ndarray, "rows columns"]:
    """Cells in which the portrait shows skin."""
    seen, u, v = _seen(portrait, skull)
    return (seen & labels.skin[v, u]).reshape(skull.shape)


def _front_of_face(seen_hair: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """Cells before face and throat, where no hair hangs (beards belong to the skin), but for locks at its sides."""
    azimuth = np.arange(capsule.COLUMNS) * (2 * np.pi / capsule.COLUMNS)
    azimuth = np.minimum(azimuth, 2 * np.pi - azimuth)[None, :]
    below_eyes = (np.arange(capsule.ROWS) >= capsule.SPHERE_ROWS)[:, None]
    return below_eyes & ((azimuth < np.radians(44)) | ((azimuth < np.radians(60)) & ~seen_hair))


def _lowest_hair(portrait: Portrait, labels: PortraitLabels) -> float:
    """Height at which the hair ends, world units: the nape, or as far down as hair is seen to hang below the chin."""
    heights = np.linspace(capsule.BOTTOM_Y, 0.1, 64)
    rows = project_px(portrait.head.camera, heights[:, None] * np.array([0.0, 1.0, 0.0]))[:, 1]
    hair_rows = np.nonzero(labels.hair)[0]
    chin_row = np.interp(_CHIN_Y, heights, rows)
    units_per_px = PANOHEAD_RADIUS / float(portrait.head.camera.focal_px[0, 0])
    if (hair_rows > chin_row).sum() * units_per_px**2 < 1.5e-3:
        return _NECK_CUT_Y
    lowest_row = float(np.percentile(hair_rows, 98.5))
    if lowest_row > 0.95 * portrait.rgb.shape[0]:
        return capsule.BOTTOM_Y
    return float(np.clip(np.interp(lowest_row, rows[::-1], heights[::-1]) - 0.03, capsule.BOTTOM_Y, _NECK_CUT_Y))


def _bare_ears(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> Bool[np.ndarray, "rows columns"]:
    """Cells over the ears, on both sides, where the portrait shows an ear uncovered."""
    x = centimetres(model)[:, 0]
    ear = ear_vertices(model)
    size = portrait.rgb.shape[0]
    hidden = np.zeros((capsule.ROWS, capsule.COLUMNS), bool)
    views = []
    for side in (-1, 1):
        points = portrait.head.vertices_world[ear & (np.sign(x) == side)]
        towards = float(np.sin(float(portrait.head.camera.azimuth_rad[0]))) * side
        if towards < -0.25:
            continue  # turned away
        uv = np.clip(project_px(portrait.head.camera, points).astype(int), 0, size - 1)
        views.append((labels.skin[uv[:, 1], uv[:, 0]].mean(), towards))
    if not views or max(views, key=lambda view: view[1])[0] < 0.75:
        return hidden
    for side in (-1, 1):
        row, column, _ = capsule.cell_coordinates(portrait.head.vertices_world[ear & (np.sign(x) == side)])
        hidden[
            np.clip(np.rint(row), 0, capsule.ROWS - 1).astype(int), np.rint(column).astype(int) % capsule.COLUMNS
        ] = 1
    return ndimage.binary_closing(hidden, iterations=2) | hidden


def _plausible(
    thickness: Float[np.ndarray, "rows columns"],
    skull: Float[np.ndarray, "rows columns"],
    skin_seen: Bool[np.ndarray, "rows columns"],
    lowest_y: float,
    config: HairShellConfig,
) -> Float[np.ndarray, "rows columns"]:
    """Rule out what hair does not do: bald spots on the unseen scalp, flares like a collar, a hard edge at the nape."""
    azimuth = np.arange(capsule.COLUMNS) * (2 * np.pi / capsule.COLUMNS)
    azimuth = np.minimum(azimuth, 2 * np.pi - azimuth)
    rows = np.arange(capsule.ROWS)[:, None]
    # The scalp reaches from 40 degrees of elevation in front down to the ears and, behind them, to the nape.
    lowest = np.interp(azimuth, np.radians([0, 60, 90, 120, 180]), np.array([0.5, 0.6, 0.95, 1.25, 1.35]))
    scalp = rows < lowest[None, :] * capsule.SPHERE_ROWS
    margin = ndimage.binary_dilation(np.concatenate([skin_seen] * 3, axis=1), iterations=4)
    margin = margin[:, capsule.COLUMNS : 2 * capsule.COLUMNS]
    floor = np.where(scalp & ~margin, config.minimum_scalp_thickness, -1.0)
    thickness = np.maximum(thickness, floor)

    thickness = _flare_limited(skull + thickness, config.maximum_flare) - skull
    keep = np.clip((capsule.surface_points(skull)[..., 1] - lowest_y) / 0.07, 0.0, 1.0)
    keep = keep * keep * (3 - 2 * keep)
    thickness = np.where(thickness > -0.025, -0.025 + (thickness + 0.025) * np.sqrt(keep), thickness)
    return _one_piece(capsule.smooth_over_columns(thickness, 0.7, 0.7))


def _one_piece(thickness: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Sink whatever is not connected with the crown: islands of shell on cheeks and throats."""
    shown = np.concatenate([thickness > -0.012] * 3, axis=1)  # three turns, so that components may cross the seam
    components, _ = ndimage.label(shown)
    crown = np.setdiff1d(np.unique(components[: capsule.SPHERE_ROWS // 2]), [0])
    kept = np.isin(components, crown).reshape(capsule.ROWS, 3, capsule.COLUMNS).any(1)
    return np.where(kept, thickness, np.minimum(thickness, _SUNK_THICKNESS))


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
    config: HairShellConfig

    def solve(
        self, base: Float[np.ndarray, "rows columns"], bending: float, rounds: int
    ) -> Float[np.ndarray, "rows columns"]:
        """`rounds` solves for the smooth change of `base` that meets the outline and the labels."""
        config = self.config
        laplacian = _wrapped_laplacian()
        smoothness = bending * (laplacian.T @ laplacian) + 0.02 * laplacian
        hidden = self.bare_ears | self.start.hidden
        if not self.start.by_network:
            seen, u, v = _seen(self.portrait, np.maximum(self.skull, 0.01))
            hidden = hidden | _front_of_face((seen & self.labels.hair[v, u]).reshape(base.shape))
        hidden = hidden.ravel()
        thickness = base
        for _ in range(rounds):
            outline_weight, outline_target = self._outline_terms(thickness)
            label_weight, label_target = self._label_terms(thickness, base)
            outline_weight = np.where(hidden, 0.0, outline_weight)
            label_weight = np.where(hidden, 3.0, label_weight)
            label_target = np.where(hidden, _SUNK_THICKNESS, label_target)
            system = smoothness + scipy.sparse.diags(outline_weight + label_weight + self.start.pull.ravel())
            right = outline_weight * (outline_target - base.ravel()) + label_weight * (label_target - base.ravel())
            factors = scipy.sparse.linalg.splu(
                system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
            )
            change = factors.solve(right)
            change = np.clip(change, -config.maximum_thickness, config.maximum_thickness)
            thickness = np.maximum(base + change.reshape(base.shape), -0.04)
        return thickness

    def _outline_terms(
        self, thickness: Float[np.ndarray, "rows columns"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Weights and targets of the cells that form the outline in the portrait's view."""
        camera, n = self.outline.camera, thickness.size
        radius = _surface_radius(self.skull, thickness)
        hit, hit_shell, depth = _render_hits(self.portrait.head.vertices_world, self.head_faces, radius, camera)
        rim = hit & ~ndimage.binary_erosion(hit, iterations=2) & self.outline.counted
        rim[:2], rim[:, :2], rim[:, -2:] = False, False, False
        v, u = np.nonzero(rim)
        on_shell = hit_shell[v, u]
        gap_px = self.outline.distance_px[v, u] - 1.0
        use = on_shell | (gap_px > 1.5)  # where the head itself forms the outline the shell may only grow over it
        v, u, on_shell, gap_px = v[use], u[use], on_shell[use], gap_px[use]
        points = _unproject(camera, np.stack([u, v], axis=1) + 0.5, depth[v, u].astype(np.float64))
        row, column, point_radius = capsule.cell_coordinates(points)
        cell = np.clip(np.rint(row), 0, capsule.ROWS - 1).astype(int) * capsule.COLUMNS
        cell += np.rint(column).astype(int) % capsule.COLUMNS
        now = np.where(on_shell, thickness.ravel()[cell], point_radius - self.skull.ravel()[cell])
        step = np.clip(
            gap_px * PANOHEAD_RADIUS / float(camera.focal_px[0, 0]), -self.config.maximum_step, self.config.maximum_step
        )
        count = np.bincount(cell, minlength=n)
        target = np.bincount(cell, now + step, minlength=n) / np.maximum(count, 1)
        return self.config.outline_weight * np.minimum(count, 3), target

    def _label_terms(
        self, thickness: Float[np.ndarray, "rows columns"], base: Float[np.ndarray, "rows columns"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Weights and targets from what is seen at each cell: skin pushes the shell under, hair lifts it."""
        labels = self.labels
        seen, u, v = _seen(self.portrait, _surface_radius(self.skull, np.maximum(thickness, 0.003)))
        skin, hair, cloth = (seen & mask[v, u] for mask in (labels.skin, labels.hair, labels.cloth))
        weight = np.select([skin, hair, cloth], [1.5, 0.3, 0.5], 0.0)
        under = np.minimum(base.ravel(), _BALD_THICKNESS)
        over = np.clip(thickness.ravel(), 0.006, 0.06)
        return weight, np.select([skin, hair, cloth], [under, over, np.full_like(under, _BALD_THICKNESS)], 0.0)

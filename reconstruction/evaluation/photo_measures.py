"""What can be seen to be wrong with a head whose truth nobody knows: measures of renders, labels, shell and fit.

Colours are CIE L*a*b* (L in [0, 100]), differences of colours their Euclidean distance, heights the centimetres of
`head_model.anatomy`. A measure is not-a-number where there is nothing to measure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from jaxtyping import Bool, Float, Float32, UInt8
from scipy import ndimage

from dp360.generation import Cameras
from dp360.generation.cameras import PANOHEAD_RADIUS, UNITS_PER_CM
from dp360.generation.cielab import lab_of
from dp360.generation.head_model import HeadModel
from dp360.generation.head_model.anatomy import EAR, centimetres
from dp360.generation.portrait import Portrait
from dp360.generation.prior import PriorRender, capsule
from dp360.generation.prior.hair.orientation import usual_deviation
from dp360.generation.prior.labels import segmenter
from dp360.generation.prior.labels.portrait_labels import PortraitLabels, ear_vertices, project_px
from dp360.generation.prior.texture.atlas import MATERIAL_HAIR, MATERIAL_SKIN, AtlasMesh

OUTER_EYE_LANDMARKS, INNER_EYE_LANDMARKS = (33, 263), (133, 362)
"""Corners of the right and the left eye among mediapipe's landmarks."""
SIDE_Y_CM, SIDE_Z_CM = (-6.5, 8.5), 0.0
"""Skin between these heights, from the jaw to the hairline, and before this depth, that of the ears, is measured as
the head's side."""
DARK_L = 14.0
"""Side skin this much below its median counts as dark, units of L."""
STRETCH = 2.5
"""A pixel of the portrait that covers more than this times the surface that it would cover face on is stretched."""
_SEEN, _NOT_SEEN, _MADE_UP = 0.7, 0.6, 0.3
"""Validity: above the first the portrait shows a place; below the second it is mirrored or made up, below the third
made up."""
_LEAST_PX = 60
"""Fewer pixels are not measured."""
_LEAST_CONTRAST = 20.0
"""Hair and skin that are nearer to each other in colour cannot be told apart, units of L*a*b*."""
_NEAR_HAIR = 0.5
"""Skin is hair-coloured within this share of the difference between hair and skin from the hair's colour."""
_SHELL_MARGIN_CELLS = 3
"""Hair may end softly so many cells of the chart beyond the shell."""
_DETAIL_PX = 2.5
"""Fine detail is what a Gaussian of this deviation removes, pixels of the render."""
_BESIDE_FACE_X_CM = 4.3
"""Beyond this there are cheeks and temples: eyes, nose and mouth are no detail of the skin."""
_ACCESSORY = 0.4
"""Glasses and accessories are more probable than this."""
_EYE_BOX = (0.95, 0.38)
"""Half the width and height of the box about the eyes, in units of the distance of their outer corners."""
_BARE_EAR, _MOST_TURNED_AWAY = 0.6, -0.25
"""An ear with more than this share of skin is bare; sine of the azimuth towards an ear below which it says nothing."""
_LEAST_HANGING_CM2 = 5.0
_LEAST_ROW_CM = 1.0
"""Rows with less hair than this are single strands."""
_LEAST_ISLAND_CM2 = 1.0
_LEAST_HAIR = 0.002
"""A thinner shell counts as bare, world units (1.2 mm)."""
_SIDEWAYS = 0.7
"""Surface whose normal's x is larger than this faces the head's side."""
_PLAINLY_SEEN = 0.5
"""Confidence above which the portrait itself, not its mirror image, gave the colour."""


@dataclass(frozen=True)
class SeenView:
    """One render, ready to be measured."""

    lab: Float32[np.ndarray, "h w 3"]
    """Colour."""
    validity: Float32[np.ndarray, "h w"]
    """How far the portrait shows this surface, as in `PriorRender`."""
    labels: UInt8[np.ndarray, "h w"]
    """`MATERIAL_*` + 1 where the surface covers the pixel, 0 elsewhere."""
    points_world: Float[np.ndarray, "h w 3"]
    """Surface points, world units, NaN where there is none."""

    @staticmethod
    def of(rendered: PriorRender, cameras: Cameras) -> tuple[SeenView, ...]:
        """The views of a render."""
        views = []
        for k, camera in enumerate(cameras):
            depth = np.where(np.isfinite(rendered.depth[k]), rendered.depth[k], np.nan).astype(np.float64)
            uv = np.stack(np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5), axis=-1)
            rays = (uv - camera.principal_px[0].numpy()) / camera.focal_px[0].numpy()
            T = camera.T_world_camera[0].numpy()
            points = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1) * depth[..., None]
            labels = np.where(rendered.alpha[k] > 0.95, rendered.labels[k], 0).astype(np.uint8)
            views.append(
                SeenView(
                    lab_of(rendered.rgb[k].clip(0, 1)), rendered.validity[k], labels, points @ T[:3, :3].T + T[:3, 3]
                )
            )
        return tuple(views)

    def material(self, material: int, width_px: int) -> Bool[np.ndarray, "h w"]:
        """Pixels of a material, with a border of `width_px` // 2 pixels taken off."""
        return _eroded(self.labels == material + 1, width_px)

    def side_skin(self) -> Bool[np.ndarray, "h w"]:
        """Skin of the head's side from the face to the ear, but for the ear itself, whose hollow is dark anyway."""
        points_cm = centimetres(self.points_world)
        with np.errstate(invalid="ignore"):
            at_height = (points_cm[..., 1] > SIDE_Y_CM[0]) & (points_cm[..., 1] < SIDE_Y_CM[1])
            ear = EAR.holds(points_cm.reshape(-1, 3)).reshape(at_height.shape)
            before = points_cm[..., 2] > SIDE_Z_CM
        return self.material(MATERIAL_SKIN, 3) & at_height & before & ~ear


@dataclass(frozen=True)
class ShellOnSkull:
    """The hair shell of a prior on the capsule grid."""

    thickness: Float[np.ndarray, "rows columns"]
    """Over the skull, world units; the shell does not show where it is 0 or less."""
    skull: Float[np.ndarray, "rows columns"]
    """Radius of the opened skull, world units."""

    @staticmethod
    def of(mesh: AtlasMesh, portrait: Portrait, model: HeadModel) -> ShellOnSkull:
        """The shell in the mesh of a prior, whose grid follows the head."""
        first, columns = int((mesh.head_vertex >= 0).sum()), capsule.COLUMNS + 1
        points = mesh.vertices_world[first : first + capsule.ROWS * columns]
        origins, directions = capsule.grid_rays()
        radius = ((points.reshape(capsule.ROWS, columns, 3)[:, :-1] - origins) * directions).sum(-1)
        skull = capsule.opened_skull_radius(portrait.head.vertices_world, model.skin_faces)
        return ShellOnSkull(radius - skull, skull)


def _eroded(mask: Bool[np.ndarray, "h w"], width_px: int) -> Bool[np.ndarray, "h w"]:
    return cv2.erode(mask.astype(np.uint8), np.ones((width_px, width_px), np.uint8)) > 0


def hair_colour(portrait: Portrait, labels: PortraitLabels) -> Float[np.ndarray, " 3"]:
    """Median colour of the hair that the portrait shows, hats left out; NaN where it shows too little."""
    plain = _eroded(labels.hair & (labels.headgear_share < 0.5) & (portrait.alpha_unit > 0.9), 5)
    if plain.sum() < _LEAST_PX:
        return np.full(3, math.nan)
    return np.median(lab_of(portrait.foreground_unit.clip(0, 1))[plain], axis=0).astype(np.float64)


def dark_share(view: SeenView) -> float:
    """Share of the side skin that is not seen which is `DARK_L` or more below the median of all side skin, [0, 1]."""
    side, lightness = view.side_skin(), view.lab[..., 0]
    not_seen = side & (view.validity < _NOT_SEEN)
    if not_seen.sum() < _LEAST_PX:
        return math.nan
    return float((lightness[not_seen] <= np.median(lightness[side]) - DARK_L).mean())


def hair_coloured_share(views: tuple[SeenView, ...], hair_lab: Float[np.ndarray, " 3"], shell: ShellOnSkull) -> float:
    """Share of the made-up skin of side and neck away from the shell whose colour is near the hair's, [0, 1].

    Args:
        views: of both sides and the back; one whose skin, made up in its light, has nearly the hair's colour says
            nothing.
        hair_lab: colour of the hair, from `hair_colour`.
        shell: of the prior.
    """
    width = 2 * _SHELL_MARGIN_CELLS + 1
    covered = ndimage.maximum_filter((shell.thickness > 0).astype(np.uint8), size=width, mode=capsule.WRAPPED)
    near_hair, count = 0, 0
    for view in views:
        made_up = view.material(MATERIAL_SKIN, 3) & (view.validity < _MADE_UP) & np.isfinite(view.points_world[..., 0])
        points = view.points_world[made_up]
        row, column, _ = capsule.cell_coordinates(points)
        cell = np.rint(row).astype(int).clip(0, capsule.ROWS - 1), np.rint(column).astype(int) % capsule.COLUMNS
        lab = view.lab[made_up][(covered[cell] == 0) & (centimetres(points)[:, 1] < SIDE_Y_CM[1])]
        contrast = float(np.linalg.norm(hair_lab - np.median(lab, axis=0))) if len(lab) else 0.0
        if contrast >= _LEAST_CONTRAST:
            near_hair += int((np.linalg.norm(lab - hair_lab, axis=1) < _NEAR_HAIR * contrast).sum())
            count += len(lab)
    return near_hair / count if count >= _LEAST_PX else math.nan


def lightness_behind(back: SeenView, hair_lab: Float[np.ndarray, " 3"]) -> float:
    """How much lighter (above 0) or darker (below 0) made-up hair is behind than the hair that is seen, units of L.

    Args:
        back: the view from behind.
        hair_lab: colour of the hair that is seen.
    """
    hair = back.material(MATERIAL_HAIR, 5) & (back.validity < _MADE_UP)
    if hair.sum() < _LEAST_PX:
        return math.nan
    return float(np.median(back.lab[hair][:, 0]) - hair_lab[0])


def side_difference(left: SeenView, right: SeenView) -> float:
    """Difference of the median colours of both sides' skin."""
    sides = [view.lab[view.side_skin()] for view in (left, right)]
    if min(map(len, sides)) < _LEAST_PX:
        return math.nan
    a, b = (np.median(side, axis=0) for side in sides)
    return float(np.linalg.norm(a - b))


def detail_ratio(view: SeenView) -> float:
    """Usual deviation of fine detail on made-up side skin over that on seen cheeks and temples; 1: they look alike."""
    side = view.side_skin()
    with np.errstate(invalid="ignore"):
        beside = np.abs(centimetres(view.points_world)[..., 0]) > _BESIDE_FACE_X_CM
    made_up, seen = _eroded(side & (view.validity < _MADE_UP), 5), _eroded(side & beside & (view.validity > _SEEN), 3)
    if min(made_up.sum(), seen.sum()) < _LEAST_PX:
        return math.nan
    inside = side.astype(np.float32)
    around = cv2.GaussianBlur(view.lab[..., 0] * inside, (0, 0), _DETAIL_PX)
    detail = view.lab[..., 0] - around / np.maximum(cv2.GaussianBlur(inside, (0, 0), _DETAIL_PX), 1e-3)
    return usual_deviation(detail[made_up]) / max(usual_deviation(detail[seen]), 1e-3)


def lowest_hair_cm(back: SeenView) -> float:
    """Height at which hair ends behind: of the lowest row of the view with a centimetre of hair, centimetres."""
    hair = back.labels == MATERIAL_HAIR + 1
    x_cm, y_cm, _ = np.moveaxis(centimetres(back.points_world), -1, 0)
    for row in np.flatnonzero(hair.any(1))[::-1]:
        x, y = x_cm[row, hair[row]], y_cm[row, hair[row]]
        px_cm = np.ptp(x) / max(np.ptp(np.flatnonzero(hair[row])), 1)
        if len(x) * px_cm >= _LEAST_ROW_CM:
            return float(np.median(y))
    return math.nan


def hair_hangs(portrait: Portrait, hair: Bool[np.ndarray, "s s"], chin_px: Float[np.ndarray, " 2"]) -> bool:
    """Whether the portrait shows at least 5 square centimetres of hair below the chin.

    Args:
        portrait: for its scale.
        hair: its hair.
        chin_px: where the chin is.
    """
    px_cm = PANOHEAD_RADIUS / float(portrait.head.camera.focal_px[0, 0]) / UNITS_PER_CM
    below = hair[max(0, math.ceil(chin_px[1])) :]
    return bool(below.sum() * px_cm**2 >= _LEAST_HANGING_CM2)


def accessory_areas(
    classes: Float32[np.ndarray, "s s 11"], outer_eyes_px: Float[np.ndarray, "2 2"]
) -> tuple[float, float]:
    """Area of glasses and accessories in a box about the eyes, and elsewhere, over the eyes' distance squared.

    Args:
        classes: probabilities of `segmenter.CLASS_NAMES`.
        outer_eyes_px: the outer corners of the eyes.
    """
    along = outer_eyes_px[1] - outer_eyes_px[0]
    distance = float(np.linalg.norm(along))
    worn = classes[..., (segmenter.GLASSES, segmenter.ACCESSORY)].sum(-1) > _ACCESSORY
    rows, columns = np.nonzero(worn)
    offset = (np.stack([columns, rows], axis=1) + 0.5 - outer_eyes_px.mean(0)) / distance
    axes = np.stack([along, along[::-1] * [-1, 1]]) / distance
    at_eyes = (np.abs(offset @ axes.T) < _EYE_BOX).all(1)
    return float(at_eyes.sum()) / distance**2, float((~at_eyes).sum()) / distance**2


def ear_skin(portrait: Portrait, skin: Bool[np.ndarray, "s s"], model: HeadModel) -> tuple[float, float]:
    """Share of skin where the fitted head has its right and its left ear, [0, 1]; NaN for one that is turned away."""
    side, ear, last = model.neutral[:, 0], ear_vertices(model), portrait.size_px - 1
    shares = []
    for sign in (-1, 1):
        towards = math.sin(float(portrait.head.camera.azimuth_rad[0])) * sign
        points = portrait.head.vertices_world[ear & (np.sign(side) == sign)]
        u, v = np.clip(np.floor(project_px(portrait.head.camera, points)).astype(int), 0, last).T
        shares.append(math.nan if towards < _MOST_TURNED_AWAY else float(skin[v, u].mean()))
    return shares[0], shares[1]


def uneven_ears(right: float, left: float) -> float:
    """1 where one ear is bare and the other is not, 0 where they are alike, NaN where one is turned away.

    Args:
        right, left: from `ear_skin`.
    """
    if math.isnan(right + left):
        return math.nan
    return float((right > _BARE_EAR) != (left > _BARE_EAR))


def cell_areas_cm2(radius: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Area of the surface in each cell of the capsule grid, square centimetres."""
    points = centimetres(capsule.surface_points(radius))
    down = np.gradient(points, axis=0)
    along = 0.5 * (np.roll(points, -1, axis=1) - np.roll(points, 1, axis=1))
    return np.linalg.norm(np.cross(down, along), axis=-1)


def islands(shell: ShellOnSkull) -> int:
    """Separate pieces of shown shell beyond the first; pieces below a square centimetre do not count."""
    shown = shell.thickness > 0
    index = np.arange(shown.size).reshape(shown.shape)
    neighbours = [(index, np.roll(index, -1, axis=1)), (index[:-1], index[1:])]
    pole = index[0][shown[0]]  # cells of the first row are one point
    neighbours.append((pole[:-1], pole[1:]))
    first, second = (np.concatenate([pair[k].ravel() for pair in neighbours]) for k in range(2))
    joined = shown.ravel()[first] & shown.ravel()[second]
    graph = scipy.sparse.coo_matrix((np.ones(joined.sum()), (first[joined], second[joined])), (index.size,) * 2)
    _, piece = scipy.sparse.csgraph.connected_components(graph, directed=False)
    areas = np.bincount(piece, np.where(shown, cell_areas_cm2(shell.skull + shell.thickness), 0.0).ravel())
    return max(0, int((areas >= _LEAST_ISLAND_CM2).sum()) - 1)


def bare_shares(shell: ShellOnSkull) -> tuple[float, float]:
    """Share of the crown (above 9 cm, not the forehead) and of the back of the head that has no hair, [0, 1]."""
    _, y, z = np.moveaxis(centimetres(capsule.surface_points(shell.skull)), -1, 0)
    area, bare = cell_areas_cm2(shell.skull), shell.thickness < _LEAST_HAIR
    crown, back = (y > 9) & (z < 3), (z < -3) & (y > 1)
    return float(area[crown & bare].sum() / area[crown].sum()), float(area[back & bare].sum() / area[back].sum())


def stretched_share(mesh: AtlasMesh, confidence: Float32[np.ndarray, "h w"], camera: Cameras) -> float:
    """Share of the plainly seen surface of hair and sides on which the portrait's pixels are stretched, [0, 1].

    A pixel covers 1 / cosine times the surface that it covers face on, by the triangle's own normal.

    Args:
        mesh: of the prior.
        confidence: of its texture.
        camera: the portrait's.
    """
    corners = mesh.vertices_world[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    double_area = np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    normal = normal / double_area[:, None]
    to_camera = camera.position_world[0].numpy() - corners.mean(1)
    cosine = (normal * to_camera).sum(1) / np.linalg.norm(to_camera, axis=1)
    column, row = np.floor(mesh.uv_px[mesh.faces].mean(1)).astype(int).T
    seen = confidence[row.clip(0, confidence.shape[0] - 1), column.clip(0, confidence.shape[1] - 1)] > _PLAINLY_SEEN
    sideways = (mesh.material == MATERIAL_SKIN) & (np.abs(normal[:, 0]) > _SIDEWAYS)
    chosen = seen & (cosine > 0) & (sideways | (mesh.material == MATERIAL_HAIR))
    if not chosen.any():
        return math.nan
    return float(double_area[chosen & (cosine < 1 / STRETCH)].sum() / double_area[chosen].sum())


PROPORTIONS = {
    "jaw / cheeks": ((172, 397), (234, 454)),
    "cheeks / eyes": ((234, 454), OUTER_EYE_LANDMARKS),
    "inner / outer eyes": (INNER_EYE_LANDMARKS, OUTER_EYE_LANDMARKS),
    "mouth / eyes": ((61, 291), OUTER_EYE_LANDMARKS),
    "nose / eyes": ((98, 327), OUTER_EYE_LANDMARKS),
    "nasion to chin / eyes": ((168, 152), OUTER_EYE_LANDMARKS),
}
"""Ratios of two distances between landmarks in the picture, by what they are called."""


def proportions(landmarks_px: Float[np.ndarray, "478 c"]) -> dict[str, float]:
    """The `PROPORTIONS` of one face, seen or fitted, in the plane of the picture."""

    def distance(pair: tuple[int, int]) -> float:
        return float(np.linalg.norm(landmarks_px[pair[0], :2] - landmarks_px[pair[1], :2]))

    return {name: distance(pair) / distance(unit) for name, (pair, unit) in PROPORTIONS.items()}

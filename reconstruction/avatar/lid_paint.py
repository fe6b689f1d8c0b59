"""Lids for eyes that close: skin that the portrait has folded away, its lashes, and the crease above.

An open eye hides most of its upper lid. Here it is painted from the skin round the eye, with the grain of the skin
below it, in the light that falls on a closed lid. Lashes are a line along the lid's edge, as dark as those that the
portrait shows: with the eye open it lies where the portrait has it, with the eye closed where the lids meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.spatial import KDTree

from dp360.generation.cameras import UNITS_PER_CM
from dp360.generation.head_model import HeadModel
from dp360.generation.head_model.anatomy import centimetres, ramp, world_units
from dp360.generation.head_model.model import PART_FACE
from dp360.generation.light.spherical_harmonics import LUMINANCE, open_transfer
from dp360.generation.mesh import face_areas, vertex_normals
from dp360.generation.mesh_raster import interpolate, rasterize_mesh, sample_texture
from dp360.generation.prior.saved_fit import SavedFit
from dp360.generation.prior.texture.atlas import MATERIAL_SKIN

from .arkit import index_of, model_matrix
from .eye_paint import IRIS_LANDMARKS
from .eyes import SIDES, closing_blink, eyeballs_of, front_camera, hidden_shell
from .head_texels import FACE_TILE_PX, HeadTexels, pull_push

_CORNERS_CM = ((2.05, 3.36, 9.01), (4.45, 3.45, 8.52))
"""Inner and outer corner of the left eye, on the mean head."""
_AROUND_CM = 2.4
"""Skin this near to the lids' line belongs to the eye."""
_MOVES_CM, _STRETCH, _FACING = 0.2, 1.3, 0.45
"""Skin that a blink moves by more than the first number is lid; it is painted anew where a blink stretches it by more
than the second, or where the portrait saw it at a lower cosine than the third."""
_RAISED = ("browInnerUp", "browOuterUpLeft", "browOuterUpRight")
_UNFOLDED, _FOLD_CM, _FOLD_PX = (1.3, 1.8), (1.6, 2.2), 11.0
"""Skin above the eye that raised brows stretch by more than the first number, fully from the second on, is smeared by
its fold in the portrait: up to such distances from the lids' line it is smoothed by a blur of so many texels."""
_PLAIN, _PLAIN_PX = (0.82, 1.25), 28.0
"""Skin gives colours to lids where its brightness over its surroundings' is between these; others are brow, lash or
gleam. Surroundings are a blur of so many texels."""
_UNSURE_PX = 7
"""Skin this near to what is painted anew gives none either."""
_LIFT = 0.6
"""How far lids are as bright as the skin round their eye is on the whole, not as what is nearest, which is shaded."""
_GRAIN_ROWS, _GRAIN_PX, _TEXELS_PER_CM = 110, 4.0, 45.0
"""Grain is taken from so many rows below the eye, the cheek, whose texels have that size; it is what a blur of so many
texels takes away."""
_LID_TINT, _TINTED_SATURATION = (0.975, 0.94, 0.94), 0.25
"""Lids are thin: a little darker and redder than the skin round them; less so where skin has less colour than this."""
_RELIEF, _RELIEF_RANGE = 0.5, (0.92, 1.08)
"""How much of the light's change over a closed lid is painted, and within what."""
_DAYLIGHT = (0.9, 0.5, 0.55)
"""Brightness of a lid: everywhere, more where it looks up, more where it looks forwards; of unknown light."""
_CREASE_CM, _CREASE_WIDE_CM, _CREASE = (0.25, 0.6), (0.08, 0.16), 0.15
"""Height of the crease over the closed lids' line at the corners and how much higher in the middle; width below and
above it; strength."""
_LASH_CM, _LASH_STRENGTH, _LOWER_LASH = (0.045, 0.105), 0.94, (0.13, 0.45)
"""Width of the upper lashes' line at the inner and the outer corner, and its strength; length and strength of the
lower lid's lashes."""
_LASH_RGB, _LASH_RANGE = (0.20, 0.14, 0.12), (0.08, 0.5)
"""Colour of lashes that the portrait does not tell, and their brightness over the skin's that is believed."""
_DARK_PART = 25
"""One of so many texels round the eyes is as dark as brows are."""
_STROKES = 70
"""Lower lashes along an eye."""
_BINS, _LEAST_BINS = 12, 4


@dataclass(frozen=True)
class ClosedLids:
    """Where texels lie when both eyes are closed."""

    distance_cm: Float32[np.ndarray, " n"]
    """To the line where the nearer eye's lids meet; 9 for all that is far away."""
    along: Float32[np.ndarray, " n"]
    """0 at that eye's inner corner, 1 at its outer one."""
    upper: Bool[np.ndarray, " n"]
    """On the upper lid's side."""
    left: Bool[np.ndarray, " n"]
    """At the person's left eye."""
    closed_head: Float[np.ndarray, "v 3"]
    """The head model's vertices with both eyes closed, world units."""

    @classmethod
    def of(cls, texels: HeadTexels, model: HeadModel, neutral_head: Float[np.ndarray, "v 3"]) -> ClosedLids:
        """Of a head without expression."""
        closed = neutral_head + sum(closing_blink(model, neutral_head, side) for side in (0, 1))
        mean_cm = centimetres(model.neutral)
        (x0, y0, _), (x1, y1, _) = _CORNERS_CM
        above = mean_cm[:, 1] - (y0 + (np.abs(mean_cm[:, 0]) - x0) * (y1 - y0) / (x1 - x0))
        at = texels.at(np.concatenate([closed, mean_cm[:, :1], above[:, None]], axis=1))
        skin = (texels.material == MATERIAL_SKIN) & (texels.part == PART_FACE)
        distance, along = np.full(len(at), 9.0, np.float32), np.zeros(len(at), np.float32)
        for side in range(len(SIDES)):
            line = _line_world(model, closed, above, side)
            own = np.flatnonzero(skin & ((at[:, 3] > 0) == (side == 0)))
            own = own[np.abs(at[own, :3] - line.mean(0)).max(1) < 2 * _AROUND_CM * UNITS_PER_CM]
            distance[own] = KDTree(line).query(at[own, :3])[0] / UNITS_PER_CM
            along[own] = np.clip((at[own, 0] - line[0, 0]) / (line[-1, 0] - line[0, 0]), 0, 1)
        return cls(distance, along, at[:, 4] > 0, at[:, 3] > 0, closed)


def _line_world(
    model: HeadModel, closed: Float[np.ndarray, "v 3"], above: Float[np.ndarray, " v"], side: int
) -> Float[np.ndarray, "p 3"]:
    """Points of the line where closed lids meet, from the inner to the outer corner, as seen from in front."""
    eye = eyeballs_of(model, closed)[side]
    mirror = np.array([1.0 if side == 0 else -1.0, 1.0, 1.0])
    corners = [np.square(model.neutral - world_units(np.array(c) * mirror)).sum(1).argmin() for c in _CORNERS_CM]
    near = np.abs(closed - eye.centre_world).max(1) < 3.5 * UNITS_PER_CM
    faces = model.faces[near[model.faces].all(1) & ~hidden_shell(model)[model.faces].any(1)]
    camera = front_camera(eye.centre_world)
    fragments = rasterize_mesh(closed, faces, camera)
    face = fragments.hit & (model.part[faces].max(1) == PART_FACE)[np.maximum(fragments.triangle_index, 0)]
    upper = face & (interpolate(fragments, above[:, None], faces)[..., 0] > 0)
    T, focal = camera.T_world_camera[0].numpy(), camera.focal_px[0].numpy()
    middle = camera.principal_px[0].numpy()
    px = [(closed[c] - T[:3, 3]) @ T[:3, :3] for c in corners]
    first, last = sorted(round(p[0] / p[2] * focal[0] + middle[0]) for p in px)
    columns = np.arange(first + 1, last)
    rows = upper.shape[0] - 1 - upper[::-1, columns].argmax(0)
    found = upper[:, columns].any(0) & (rows < upper.shape[0] - 1)
    columns, rows = columns[found], rows[found]
    depth = fragments.depth[rows, columns].astype(np.float64)
    smooth = np.convolve(np.pad(rows + 1.0, 3, mode="edge"), np.ones(7) / 7, "valid")
    p = np.stack([(columns + 0.5 - middle[0]) / focal[0], (smooth - middle[1]) / focal[1], np.ones(len(rows))], axis=1)
    line = (p * depth[:, None]) @ T[:3, :3].T + T[:3, 3]
    return line if side == 0 else line[::-1]


def paint_lids(
    fit: SavedFit, model: HeadModel, texels: HeadTexels, neutral_head: Float[np.ndarray, "v 3"],
    portrait_head: Float[np.ndarray, "v 3"], facing: Float[np.ndarray, " v"],
    pictures: tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w 3"]],
) -> None:  # fmt: skip
    """Paint what an open eye hides of its lids, in place.

    Args:
        fit: what was kept of the prior.
        model: the head model of the fit.
        texels: its texels.
        neutral_head: vertices of the head model without expression, world units.
        portrait_head: the same with the portrait's expression.
        facing: cosine between each vertex' normal and the portrait's line of sight.
        pictures: texture in the portrait's light, and without light.
    """
    lids = ClosedLids.of(texels, model, neutral_head)
    anew = _painted_anew(texels, model, lids, neutral_head, portrait_head, facing)
    lit, albedo = (picture[:FACE_TILE_PX, :FACE_TILE_PX] for picture in pictures)
    in_tile = (texels.rows < FACE_TILE_PX) & (texels.columns < FACE_TILE_PX) & (lids.distance_cm < _AROUND_CM)

    def tile(values: np.ndarray, rest: float = 0.0) -> Float32[np.ndarray, "t t"]:
        result = np.full((FACE_TILE_PX, FACE_TILE_PX), rest, np.float32)
        result[texels.rows[in_tile], texels.columns[in_tile]] = values[in_tile]
        return result

    skin, hole = tile(np.ones(len(anew))), tile(anew)
    distance, along, upper = tile(lids.distance_cm, 9.0), tile(lids.along), tile(lids.upper) > 0
    relief = tile(_relief(fit, texels, lids))
    folded = cv2.GaussianBlur(tile(_folded(texels, model, lids, neutral_head, portrait_head)), (0, 0), 2.0)
    lashes = _lashes(fit, texels, lids, portrait_head, lit, albedo)
    share = cv2.GaussianBlur(cv2.dilate(hole, np.ones((5, 5), np.uint8)), (0, 0), 1.5)
    share = np.where(hole > 0, 1.0, share) * skin
    height = _CREASE_CM[0] + _CREASE_CM[1] * np.clip(4 * along * (1 - along), 0, 1) ** 0.7
    wide = np.where(distance < height, *_CREASE_WIDE_CM)
    crease = _CREASE * np.exp(-(((distance - height) / wide) ** 2)) * upper
    thin = upper * (1 - ramp(distance / height, 0.2, 1.05))
    sides = np.stack([tile(lids.left), tile(~lids.left)]) * skin
    grain_px = _grain_px(texels, lids)[in_tile]
    line = _lash_line(distance, along, upper)[..., None]
    for picture, lash, shaded in ((lit, lashes[0], True), (albedo, lashes[1], False)):
        _smooth_folds(picture, folded * skin * (1 - hole), skin * (1 - hole))
        filled = _from_around(picture, skin, hole, sides)
        saturation = (filled.max(2) - filled.min(2)) / np.maximum(filled.max(2), 1e-3)
        tint = thin * np.minimum(saturation / _TINTED_SATURATION, 1)
        filled *= np.array(_LID_TINT, np.float32) ** tint[..., None] * (1 - crease)[..., None]
        fine = np.clip(picture - cv2.GaussianBlur(picture, (0, 0), _GRAIN_PX), -0.08, 0.08)
        filled[texels.rows[in_tile], texels.columns[in_tile]] += sample_texture(fine, grain_px)
        if shaded:
            filled *= relief[..., None]
        mixed = picture + (filled - picture) * share[..., None]
        mixed += (lash - mixed) * line
        inside = skin > 0
        picture[inside] = np.clip(mixed, 0, 1)[inside]


def _painted_anew(
    texels: HeadTexels, model: HeadModel, lids: ClosedLids, neutral: Float[np.ndarray, "v 3"],
    portrait: Float[np.ndarray, "v 3"], facing: Float[np.ndarray, " v"],
) -> Bool[np.ndarray, " n"]:  # fmt: skip
    """Texels of lids that the portrait does not show, or shows folded."""
    moves = np.linalg.norm(lids.closed_head - neutral, axis=1) / UNITS_PER_CM
    stretch = face_areas(lids.closed_head, texels.faces) / np.maximum(face_areas(portrait, texels.faces), 1e-12)
    at = texels.at(np.stack([moves, _of_corners(stretch, texels.faces, len(neutral)), facing], axis=1))
    skin = (texels.material == MATERIAL_SKIN) & (texels.part == PART_FACE)
    return skin & (at[:, 0] > _MOVES_CM) & ((at[:, 1] > _STRETCH) | (at[:, 2] < _FACING))


def _folded(
    texels: HeadTexels, model: HeadModel, lids: ClosedLids, neutral: Float[np.ndarray, "v 3"],
    portrait: Float[np.ndarray, "v 3"],
) -> Float[np.ndarray, " n"]:  # fmt: skip
    """How far texels lie in the fold above an eye, which raised brows open."""
    which = model_matrix(model)[[index_of(name) for name in _RAISED]].sum(0)
    raised = neutral + np.tensordot(which, model.expression_basis.astype(np.float64), 1)
    stretch = face_areas(raised, texels.faces) / np.maximum(face_areas(portrait, texels.faces), 1e-12)
    at = texels.at(_of_corners(stretch, texels.faces, len(neutral))[:, None])[:, 0]
    return ramp(at, *_UNFOLDED) * lids.upper * (1 - ramp(lids.distance_cm, *_FOLD_CM))


def _smooth_folds(
    picture: Float32[np.ndarray, "t t 3"], share: Float32[np.ndarray, "t t"], known: Float32[np.ndarray, "t t"]
) -> None:
    """Replace a share of the picture, in place, by its blur over what is known: grain there would be stretched."""
    blurred = cv2.GaussianBlur(picture * known[..., None], (0, 0), _FOLD_PX)
    blurred /= np.maximum(cv2.GaussianBlur(known, (0, 0), _FOLD_PX), 1e-4)[..., None]
    picture += (blurred - picture) * share[..., None]


def _of_corners(values: Float[np.ndarray, " f"], faces: np.ndarray, count: int) -> Float[np.ndarray, " v"]:
    """Means of triangles' values at their corners."""
    corners = faces.ravel()
    total = np.bincount(corners, np.repeat(values, 3), minlength=count)
    return total / np.maximum(np.bincount(corners, minlength=count), 1)


def _from_around(
    picture: Float32[np.ndarray, "t t 3"], skin: Float32[np.ndarray, "t t"], hole: Float32[np.ndarray, "t t"],
    sides: Float32[np.ndarray, "2 t t"],
) -> Float32[np.ndarray, "t t 3"]:  # fmt: skip
    """A smooth picture of the plain skin round the eyes, whose surroundings are the two `sides`."""
    width = 2 * _UNSURE_PX + 1
    known = cv2.erode(skin, np.ones((3, 3), np.uint8)) * (1 - cv2.dilate(hole, np.ones((width, width), np.uint8)))
    light = picture.mean(2)
    plain = known
    for _ in range(2):  # brows darken their surroundings the first time
        around = cv2.GaussianBlur(light * plain, (0, 0), _PLAIN_PX)
        around /= np.maximum(cv2.GaussianBlur(plain, (0, 0), _PLAIN_PX), 1e-4)
        plain = known * ((light > _PLAIN[0] * around) & (light < _PLAIN[1] * around))
    filled = pull_push(picture * plain[..., None], plain)
    for side in sides > 0:
        of = side & (plain > 0)
        if of.any():
            usual = np.median(picture[of], axis=0)
            filled[side] *= np.clip(usual.mean() / np.maximum(filled[side].mean(1), 1e-3), 0.8, 1.6)[:, None] ** _LIFT
    return filled


def _grain_px(texels: HeadTexels, lids: ClosedLids) -> Float32[np.ndarray, "n 2"]:
    """Column and row of a place on the cheek for each texel: those that lie side by side on closed lids do so there."""
    at_cm = centimetres(texels.at(lids.closed_head))
    result = np.zeros((len(at_cm), 2), np.float32)
    for left in (True, False):
        own = (lids.distance_cm < _AROUND_CM) & (lids.left == left)
        line = own & (lids.distance_cm < 0.15)
        if not line.any():
            continue
        middle = np.array([texels.columns[line].mean(), texels.rows[line].mean() + _GRAIN_ROWS])
        away_cm = (at_cm[own] - at_cm[line].mean(0))[:, :2] * [1, -1]
        result[own] = middle + _TEXELS_PER_CM * away_cm + 0.5
    return result


def _relief(fit: SavedFit, texels: HeadTexels, lids: ClosedLids) -> Float[np.ndarray, " n"]:
    """How much more light falls on closed lids than on the skin round them."""
    normals = vertex_normals(lids.closed_head, texels.faces)
    if fit.light is None:
        even, up, forwards = _DAYLIGHT
        light = even + up * normals[:, 1] + forwards * normals[:, 2]
    else:
        light = open_transfer(normals) @ (fit.light.coefficients @ LUMINANCE)
    at = texels.at(np.maximum(light, 1e-3)[:, None])[:, 0]
    relief = np.ones(len(at))
    for left in (True, False):
        own = (lids.distance_cm < _AROUND_CM) & (lids.left == left)
        # towards the skin round the eye it is the skin's own colour again
        usual = np.median(at[own & (lids.distance_cm > 0.5)]) if own.any() else 1.0
        relief[own] = np.clip((at[own] / usual) ** (_RELIEF / 2.2), *_RELIEF_RANGE)
    return relief


def _lash_line(
    distance: Float32[np.ndarray, "t t"], along: Float32[np.ndarray, "t t"], upper: Bool[np.ndarray, "t t"]
) -> Float32[np.ndarray, "t t"]:
    """How far lashes cover the skin: a line on the upper lid's edge, fading strokes on the lower one."""
    width = _LASH_CM[0] + (_LASH_CM[1] - _LASH_CM[0]) * ramp(along, 0.0, 0.75)
    ends = ramp(along, 0.01, 0.12) * (1 - 0.6 * ramp(along, 0.97, 1.0))
    line = _LASH_STRENGTH * np.exp(-((distance / width) ** 2))
    stroke = 0.5 + 0.5 * np.cos(2 * np.pi * _STROKES * along + 9 * np.sin(11 * along))
    length, strength = _LOWER_LASH
    lower = strength * np.exp(-distance / length) * (0.45 + 0.55 * stroke) * ramp(along, 0.15, 0.6)
    return (np.where(upper, line, lower) * ends).astype(np.float32)


def _lashes(
    fit: SavedFit, texels: HeadTexels, lids: ClosedLids, portrait_head: Float[np.ndarray, "v 3"],
    lit: Float32[np.ndarray, "t t 3"], albedo: Float32[np.ndarray, "t t 3"],
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:  # fmt: skip
    """The lashes' colour in the portrait's light and without it: the darkest that the portrait shows at the lids'
    edges, beside the irises, or the brows'."""
    near = lids.distance_cm < _AROUND_CM
    place = texels.rows[near & (lids.distance_cm > 0.8)], texels.columns[near & (lids.distance_cm > 0.8)]
    skin, skin_albedo = (np.median(picture[place], axis=0).astype(np.float64) for picture in (lit, albedo))
    colour = np.array(_LASH_RGB) * skin.mean() / 0.6
    if fit.landmarks_px is not None:
        edge = np.flatnonzero(lids.upper & (lids.distance_cm < 0.1) & (np.abs(lids.along - 0.55) < 0.4))
        T = fit.camera.T_camera_world[0].numpy()
        p = texels.at(portrait_head)[edge] @ T[:3, :3].T + T[:3, 3]
        px = p[:, :2] / p[:, 2:] * fit.camera.focal_px[0].numpy() + fit.camera.principal_px[0].numpy()
        beside = np.ones(len(edge), bool)
        for points in IRIS_LANDMARKS:
            middle, *rim = fit.landmarks_px[list(points)]
            radius = np.median(np.linalg.norm(np.array(rim) - middle, axis=1))
            beside &= np.linalg.norm(px - middle, axis=1) > 1.3 * radius
        shown = sample_texture(fit.portrait_rgb.astype(np.float32) / 255, px.astype(np.float32)).astype(np.float64)
        bins = np.floor(lids.along[edge] * _BINS).astype(int) + _BINS * lids.left[edge]
        darkest = [
            shown[of][shown[of].mean(1).argmin()]
            for k in range(2 * _BINS)
            if len(of := np.flatnonzero(beside & (bins == k))) > 20
        ]
        if len(darkest) >= _LEAST_BINS:
            colour = np.median(darkest, axis=0)
    around = lit[place].astype(np.float64)  # brows are as dark as lashes, or less
    dark = around[np.argsort(around.mean(1))[: max(1, len(around) // _DARK_PART)]]
    if dark.mean() < colour.mean():
        colour = np.median(dark, axis=0)
    level = colour.mean() / max(skin.mean(), 1e-3)
    colour = colour * np.clip(level, *_LASH_RANGE) / max(level, 1e-3)
    return colour, np.clip(colour * (skin_albedo + 0.02) / (skin + 0.02), 0, 1)

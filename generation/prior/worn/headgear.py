"""Headgear as a thing of its own: a smooth surface that ends in a rim all round, hair that goes on below, and a brim.

The hair shell meets the outline of whatever covers the scalp. Where that is headgear its surface is taken from there,
without the lumps of hair, its unseen side from the seen one; the shell keeps what lies below the rim, pressed to the
head there. Hats may have a brim or a peak (`generation.prior.worn.brim`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float
from scipy import ndimage

from ...cameras import UNITS_PER_MM
from ...head_model import HeadModel
from ...head_model.anatomy import centimetres, ramp
from ...portrait import Portrait
from ...similar_systems import symmetric_factors
from .. import capsule
from ..field.chart import cell_frames, to_capsule
from ..field.head_field import HAIR, HEADGEAR, HeadField
from ..field.observed_field import ObservedField
from ..hair.hair_shell import HairShell, ear_heights, grid_mesh, seen_cells, within_outline, wrapped_laplacian
from ..labels.portrait_labels import PortraitLabels
from .brim import Brim, BrimKind, BrimSearch
from .rim import RimSeen, fitted_rim, is_hat, level_of_field, level_of_rim, of_near_side, rim_rows
from .seen_border import SeenBorder

_LEAST_SHARE = 0.02
"""Of the portrait, for headgear to be worn; less is a band, a slide or a mistake."""
_RUN_IN = 4 / 512
"""Of the picture's side: so far headgear's colours run into hair."""
_LEAST_PIECE = 0.25
"""Pieces of headgear that are smaller than this share of the largest are mistakes."""
_STIFFNESS, _SOFT_STIFFNESS = 150.0, 25.0
"""Weights of the squared Laplacian for hats and for what is wrapped: their lumps are larger than three or two cells."""
_SURE_CELLS = (1.0, 3.0)
"""The shell's radius counts fully from the second distance from the rim on, hardly below the first: there it comes down
to the skin."""
_LEAST_COVER, _STEP = 4 * UNITS_PER_MM, 4 * UNITS_PER_MM
"""Headgear lies at least so far above the skull, and above hair at its rim."""
_OVER_EARS = 3 * UNITS_PER_MM
"""And above ears that it covers."""
_RISE = 0.9
"""Hair below a rim comes out from under it with at most this slope."""
_HEM_CELLS = 1.5
"""Over so many cells below the rim it stays as low as there."""
_UNDER_CELLS, _REACH_CELLS = (0.5, 3.0), 14.0
"""The shell sinks into the head from the first to the second distance within the rim; the rim presses hair down to so
many cells below it."""
_SUNK = -0.025
_CELL = 3.5 * UNITS_PER_MM
_SEEN_BRIM = 0.1
"""Visibility from which on what looks like headgear below a rim is the brim before it."""
_BRIM_CELLS, _BULGE = 11.0, 3 * UNITS_PER_MM
"""Above a brim the shell bulges towards it in so many cells; what stands out by more than the second is none of the
crown."""
_BETTER: dict[BrimKind, float] = {"brim": 0.03, "peak": 0.03}
"""A hat has a brim or peak if it then overlaps so much better with what is labelled."""
_KNOT_ROWS, _KNOT_COLUMNS = (30.0, 16.0), 57
"""Rows between which wrapped tops begin to be closed, and over so many columns."""
_SURE_HAIR = (0.35, 0.65)
"""Below wrapped cloth there is hair where its share is above the second, and none below the first."""
_BEYOND_OUTLINE = 6 * UNITS_PER_MM
"""Wrapped cloth stands out of the person's outline by at most so much."""
_RAISED_CM = (0.5, 1.5, 2.5)
"""What is seen of a hat's end is that of its brim or peak; its own rim lies so much higher."""


@dataclass(frozen=True)
class Headgear:
    """What covers the scalp, on the capsule grid."""

    level: Float[np.ndarray, "rows columns"]
    """Positive where it is, zero along its rim, about in cells."""
    radius: Float[np.ndarray, "rows columns"]
    """Of its surface, world units; smooth, and carried on beyond the rim."""
    skull_radius: Float[np.ndarray, "rows columns"]
    """Of the opened skull."""
    brim: Brim | None = None
    """What stands out of its rim."""
    wrapped: bool = False
    """It hangs or is wound: a scarf, a hood, a turban."""

    def hair_below(self, shell: HairShell, foreign: Float[np.ndarray, "rows columns"]) -> HairShell:
        """The shell without what is headgear.

        Args:
            shell: that was fitted to hair and headgear together.
            foreign: share of each cell beyond the rim in which a brim is seen, or cloth, and not hair.
        """
        room = self.radius - self.skull_radius - _STEP + _RISE * _CELL * np.clip(-self.level - _HEM_CELLS, 0, None)
        near = self.level > -_REACH_CELLS
        thickness = np.where(near, np.minimum(shell.thickness, room), shell.thickness)
        thickness = thickness + foreign * (np.minimum(thickness, _SUNK) - thickness)
        under = ramp(self.level, *_UNDER_CELLS)
        thickness = thickness + under * (np.minimum(thickness, _SUNK) - thickness)
        return HairShell(thickness, np.maximum(self.skull_radius + thickness, 0.01))


def headgear_pixels(labels: PortraitLabels) -> Bool[np.ndarray, "s s"]:
    """Pixels of headgear, without specks far from it."""
    pixels = labels.hair & (labels.headgear_share > 0.5)
    pieces, count = cast("tuple[np.ndarray, int]", ndimage.label(pixels))
    area = np.bincount(pieces.ravel(), minlength=count + 1)
    area[0] = 0
    return pixels & (area > _LEAST_PIECE * area.max())[pieces]


def without_headgear(labels: PortraitLabels) -> PortraitLabels:
    """Labels whose hair is hair alone; beside headgear, whose colours run into it, nothing is."""
    width = 2 * round(_RUN_IN * len(labels.hair)) + 1
    near = cv2.dilate(headgear_pixels(labels).astype(np.uint8), np.ones((width, width), np.uint8)) > 0
    return replace(labels, hair=labels.hair & ~near)


def fit_headgear(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, field: HeadField, observed: ObservedField,
    shell: HairShell,
) -> tuple[Headgear | None, HairShell]:  # fmt: skip
    """The headgear of a portrait, and the hair below it; None and the shell itself where none is worn.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes.
        model: the head model of the fit.
        field: of the head.
        observed: what the portrait shows of it.
        shell: fitted to hair and headgear together.
    """
    pixels = headgear_pixels(labels)
    if pixels.mean() < _LEAST_SHARE:
        return None, shell
    skull = shell.radius - shell.thickness
    frames = cell_frames()
    chart_height = centimetres(frames.origins_world + frames.outward * observed.skull_radius[..., None])[..., 1]
    at_outline = ndimage.maximum_filter(observed.thickness_certainty, 3, mode=capsule.WRAPPED)
    shown = np.maximum(observed.visibility, at_outline)
    visibility = np.clip(to_capsule(shown, order=1), 0, 1)
    ears = ndimage.maximum_filter(ear_heights(portrait, model, skull), 3, mode=capsule.WRAPPED)
    ears = capsule.smooth_over_columns(np.where(ears > 0, ears + _OVER_EARS, 0.0), 1.0, 1.0)
    floor = skull + np.maximum(_LEAST_COVER, ears)
    covered = skull + np.maximum(shell.thickness, _LEAST_COVER)
    covered = within_outline(portrait, covered, skull + _LEAST_COVER)
    worn, hair = to_capsule(field.material[[HEADGEAR, HAIR]], order=1)
    if not is_hat(observed, chart_height):
        level = level_of_field(field, observed)
        if not (level > 0).any():
            return None, shell
        near = np.clip(to_capsule(of_near_side(shown, observed), order=1), 0, 1)
        radius, border = _without_dents(_symmetric(covered, near)), SeenBorder.of(portrait, labels, pixels)
        surface = _cloth(radius, border.followed_by(level, radius, mirrored=True), floor, stiffness=_SOFT_STIFFNESS)
        cut = within_outline(portrait, surface, floor) + _BEYOND_OUTLINE
        surface = np.maximum(capsule.smooth_over_columns(np.minimum(surface, cut), 1.0, 1.0), floor)
        headgear = Headgear(border.followed_by(level, surface, mirrored=True), surface, skull, wrapped=True)
        return headgear, headgear.hair_below(shell, _smooth_share(1 - ramp(hair, *_SURE_HAIR)) * (headgear.level < 0))
    radius = _symmetric(covered, visibility)
    headgear = _hat(portrait, labels, model, radius, skull, floor, shell)
    if headgear.brim is None:
        return headgear, headgear.hair_below(shell, np.zeros(skull.shape))
    seen, u, v = seen_cells(portrait, np.maximum(shell.radius, skull))
    before_it = (worn > hair) & (visibility > _SEEN_BRIM) & (headgear.level > -2 * _BRIM_CELLS)
    foreign = ((seen & pixels[v, u]).reshape(skull.shape) | before_it) & (headgear.level < 0)
    return headgear, headgear.hair_below(shell, foreign.astype(np.float64))


def _hat(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, radius: Float[np.ndarray, "rows columns"],
    skull: Float[np.ndarray, "rows columns"], floor: Float[np.ndarray, "rows columns"], shell: HairShell,
) -> Headgear:  # fmt: skip
    """A hat with the brim or peak, if any, with which it agrees best with the portrait."""
    pixels = headgear_pixels(labels)
    seen = RimSeen.of(portrait, labels, radius)
    near_cloth = cv2.dilate(labels.cloth.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    search = BrimSearch(portrait.head.camera, pixels, portrait.inside & ~near_cloth)
    border = SeenBorder.of(portrait, labels, pixels)
    surface = _cloth(radius, border.followed_by(level_of_rim(fitted_rim(seen), radius), radius), floor)
    plain = Headgear(border.followed_by(level_of_rim(fitted_rim(seen), surface), surface), surface, skull)
    hair = plain.hair_below(shell, np.zeros(radius.shape))
    best, fit = plain, search.without(*_scene(portrait, model, plain, hair))
    for kind in ("brim", "peak"):
        rim = fitted_rim(seen, below_peak=kind == "peak")
        surface = _cloth(radius, level_of_rim(rim, radius), floor, has_brim=True)
        for raised_cm in _RAISED_CM:
            raised = rim.raised(raised_cm, in_front=kind == "peak")
            hat = Headgear(level_of_rim(raised, surface), surface, skull)
            hair = hat.hair_below(shell, ((hat.level < 0) & (hat.level > -_BRIM_CELLS)).astype(np.float64))
            found = search.best(
                kind, _rim_points(rim_rows(raised, surface), surface), *_scene(portrait, model, hat, hair)
            )  # fmt: skip
            needed = 0.0 if best.brim is not None and best.brim.kind == kind else _BETTER[kind]
            if found.overlap > fit.overlap + needed:
                best, fit = replace(hat, brim=found.brim), found
    return best


def _scene(
    portrait: Portrait, model: HeadModel, headgear: Headgear, hair: HairShell
) -> tuple[Float[np.ndarray, "v 3"], np.ndarray, Bool[np.ndarray, " f"]]:
    """Head, hair and hat as one mesh, and which faces are the hat's."""
    head = portrait.head.vertices_world
    shell_points, shell_faces = grid_mesh(hair.radius)
    hat_points, hat_faces = grid_mesh(headgear.radius)
    level = np.concatenate([headgear.level, headgear.level[:, :1]], axis=1).ravel()
    hat_faces = hat_faces[(level[hat_faces] > 0).all(1)]
    faces = [model.skin_faces, shell_faces + len(head), hat_faces + len(head) + len(shell_points)]
    is_hat = np.repeat([False, False, True], [len(part) for part in faces])
    return np.concatenate([head, shell_points, hat_points]), np.concatenate(faces), is_hat


def _rim_points(
    rows: Float[np.ndarray, " columns"], radius: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "columns 3"]:
    """Points of a surface at a row of each column."""
    column = np.arange(float(capsule.COLUMNS))
    low = np.clip(np.floor(rows).astype(int), 0, capsule.ROWS - 2)
    share = rows - low
    at = radius[low, np.arange(len(rows))] * (1 - share) + radius[low + 1, np.arange(len(rows))] * share
    origins, outward = capsule.cell_rays(rows, column)
    return origins + outward * at[:, None]


def _symmetric(
    grid: Float[np.ndarray, "rows columns"], visibility: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns"]:
    """As `rim.symmetric`, on the capsule grid."""
    mirrored = -np.arange(capsule.COLUMNS) % capsule.COLUMNS
    own, other = np.clip(visibility / 0.5, 0, 1), np.clip(visibility[:, mirrored] / 0.5, 0, 1)
    own, other = (capsule.smooth_over_columns(share, 2.0, 2.0) for share in (own, other))
    turned = grid[:, mirrored]
    return own * grid + (1 - own) * (other * turned + (1 - other) * 0.5 * (grid + turned))


def _smooth_share(share: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    return capsule.smooth_over_columns(share, 1.5, 1.5)


def _without_dents(radius: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """A wrapped surface whose top does not sink between a knot and its mirror image."""
    closed = ndimage.grey_closing(radius, size=(1, _KNOT_COLUMNS), mode="wrap")
    share = ramp(np.arange(float(capsule.ROWS)), *_KNOT_ROWS)[:, None]
    return radius + share * (closed - radius)


def _cloth(
    radius: Float[np.ndarray, "rows columns"], level: Float[np.ndarray, "rows columns"],
    floor: Float[np.ndarray, "rows columns"], *, has_brim: bool = False, stiffness: float = _STIFFNESS,
) -> Float[np.ndarray, "rows columns"]:  # fmt: skip
    """A smooth surface through the headgear's cells, carried on beyond its rim.

    Args:
        radius: of the outermost surface, world units.
        level: of the headgear.
        floor: what it lies on at least: skull, and ears.
        has_brim: the surface bulges towards it above the rim.
        stiffness: weight of the squared Laplacian.
    """
    low, high = _SURE_CELLS
    weight = np.clip((level - low) / (high - low), 0, 1) + 0.02 * (level > 0) + 1e-6
    laplacian = wrapped_laplacian()
    smoothness = stiffness * (laplacian.T @ laplacian)
    beside_brim = (level < _BRIM_CELLS) if has_brim else np.zeros_like(level, bool)
    held = weight * np.where(beside_brim, 0.05, 1.0)
    smooth = radius
    for _ in range(3 if has_brim else 1):
        factors = symmetric_factors((smoothness + scipy.sparse.diags(held.ravel())).tocsc())
        smooth = factors.solve((held * radius).ravel()).reshape(radius.shape)
        bulge = np.clip((radius - smooth) / _BULGE, 0, None) * beside_brim
        held = weight * np.where(beside_brim, 0.15, 1.0) / (1 + bulge**2)
    smooth[0] = smooth[0].mean()  # the pole is one place
    return np.maximum(capsule.smooth_over_columns(np.maximum(smooth, floor), 1.0, 1.0), floor)

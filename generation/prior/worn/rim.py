"""Where headgear ends: a level on the capsule grid, positive on the headgear, whose zero line is its rim.

A hat's rim is one closed line about the head. What is seen of it is carried on behind by heights that hats usually
have; it is low behind, high in front, and level from side to side. Scarves, hoods and turbans, which hang, and bands
with hair above end where the head's field says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ...head_model.anatomy import centimetres
from ...portrait import Portrait
from .. import capsule
from ..field.chart import COLUMNS, MIRRORED, cell_frames, to_capsule
from ..field.head_field import HAIR, HEADGEAR, HeadField
from ..field.known_cells import wraps_the_head
from ..field.observed_field import ObservedField
from ..hair.hair_shell import seen_cells
from ..labels.portrait_labels import PortraitLabels

HEM_MM, HEM_BEYOND = 4.0, 0.5
"""Height of a rim over what is below it, which is the thickness of its cloth, and how far its rounded edge reaches
beyond the line on which the level is zero, of that."""
_USUAL_CM, _SPREAD_CM = np.array([6.4, 1.85, 0.3, 0.0]), np.array([4.0, 0.8, 0.4, 0.25])
"""Height of a hat's rim on the head: its mean, and how it goes with the cosine of the azimuth, with that of twice the
azimuth and with the sine; and how far hats differ."""
_SEEN_CM = 0.8
"""Deviation of a seen height from such a curve."""
_TOP_CM, _LEAST_TOP = 11.0, 12
"""Cells above this height are the top; with more than so many seen there, it is known what covers it."""
_PEAK_AZIMUTH_RAD = math.radians(66.0)
"""A peak hides the rim in front of it, up to this far aside."""
_SMOOTHING = 2.5
"""Of a level from the head's field: deviation of a Gaussian, cells."""
_TURNED_AWAY = 4.0
"""How soon a side does not count any more, by the product of the sines of its azimuth and the camera's."""
_LEAST_PIECE, _LEAST_HOLE = 0.2, 0.15
"""Smaller pieces of headgear, and smaller holes in it, by what share of the largest, are mistakes."""


_HANGS_CM = -3.0
"""What is below this height hangs, in front on one side maybe."""


@dataclass(frozen=True)
class RimCurve:
    """The rim of a hat: heights round the head."""

    coefficients_cm: Float[np.ndarray, " 4"]
    """Of 1, and cosine, cosine of twice and sine of the azimuth; head frame."""

    def heights_cm(self, azimuth_rad: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Heights at azimuths."""
        return _waves(azimuth_rad) @ self.coefficients_cm

    def raised(self, by_cm: float, *, in_front: bool = False) -> RimCurve:
        """A rim that lies higher, all round or in front only."""
        share = np.array([0.32, 0.5, 0.2, 0.0]) if in_front else np.array([1.0, 0.0, 0.0, 0.0])
        return RimCurve(self.coefficients_cm + by_cm * share)


@dataclass(frozen=True)
class RimSeen:
    """Heights at which headgear is seen to end, for some columns of the capsule grid."""

    azimuth_rad: Float[np.ndarray, " n"]
    """Towards the head's left, in (-pi, pi]."""
    height_cm: Float[np.ndarray, " n"]
    """Of the border on the head's surface."""

    @classmethod
    def of(cls, portrait: Portrait, labels: PortraitLabels, radius: Float[np.ndarray, "rows columns"]) -> RimSeen:
        """What a portrait shows on a surface.

        Args:
            radius: of the surface on the capsule grid, world units.
        """
        seen, u, v = seen_cells(portrait, radius)
        shape = radius.shape
        hat = (seen & (labels.hair & (labels.headgear_share > 0.5))[v, u]).reshape(shape)
        below = (seen & (labels.skin | (labels.hair & (labels.headgear_share <= 0.5)))[v, u]).reshape(shape)
        ends = hat[:-1] & below[1:]
        column = np.nonzero(ends.any(0))[0]
        row = shape[0] - 2 - ends[::-1].argmax(0)[column]
        heights = centimetres(capsule.surface_points(radius))[..., 1]
        azimuth = (column * (2 * math.pi / capsule.COLUMNS) + math.pi) % (2 * math.pi) - math.pi
        return cls(azimuth, 0.5 * (heights[row, column] + heights[row + 1, column]))


def fitted_rim(seen: RimSeen, *, below_peak: bool = False) -> RimCurve:
    """The rim of a hat by what is seen of it.

    Args:
        seen: where it is seen to end.
        below_peak: a peak hides the rim in front.
    """
    chosen = np.abs(seen.azimuth_rad) > _PEAK_AZIMUTH_RAD if below_peak else np.ones(len(seen.azimuth_rad), bool)
    waves, heights = _waves(seen.azimuth_rad[chosen]), seen.height_cm[chosen]
    precision = np.diag(1 / _SPREAD_CM**2)
    coefficients = _USUAL_CM
    weight = np.ones(len(heights))
    for _ in range(4):  # hair before the hat, an ear or an ornament is off the line
        system = precision + (waves * weight[:, None]).T @ waves / _SEEN_CM**2
        right = precision @ _USUAL_CM + waves.T @ (weight * heights) / _SEEN_CM**2
        coefficients = np.linalg.solve(system, right)
        weight = 1 / (1 + ((heights - waves @ coefficients) / _SEEN_CM) ** 2)
    return RimCurve(coefficients)


def level_of_rim(rim: RimCurve, radius: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """How many rows each cell of a surface lies above a hat's rim.

    Args:
        radius: of the surface, world units.
    """
    return rim_rows(rim, radius) - np.arange(float(capsule.ROWS))[:, None]


def rim_rows(rim: RimCurve, radius: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, " columns"]:
    """Fractional row at which each column of a surface comes down to the rim."""
    azimuth = np.arange(capsule.COLUMNS) * (2 * math.pi / capsule.COLUMNS)
    heights = centimetres(capsule.surface_points(radius))[..., 1]
    falling = np.minimum.accumulate(heights, axis=0)
    wanted = rim.heights_cm(azimuth)
    rows = np.array([np.interp(-wanted[j], -falling[:, j], np.arange(float(capsule.ROWS))) for j in range(len(wanted))])
    spread = capsule.smooth_over_columns(np.repeat(rows[None], 2, axis=0), 0.5, 2.0)[0]
    return spread


def level_of_field(field: HeadField, observed: ObservedField) -> Float[np.ndarray, "rows columns"]:
    """The rim by the head's field: a smooth line, alike on both sides but for what hangs in front."""
    frames = cell_frames()
    height = centimetres(frames.origins_world + frames.outward * observed.skull_radius[..., None])[..., 1]
    alike = symmetric(field.material, of_near_side(observed.visibility, observed))
    in_front = np.cos(np.arange(COLUMNS) * (2 * math.pi / COLUMNS)) > 0
    material = np.where((height < _HANGS_CM) & in_front, field.material, alike)
    level = to_capsule(material[HEADGEAR] - material[[0, HAIR, 3]].sum(0))
    level = capsule.smooth_over_columns(level, _SMOOTHING, _SMOOTHING)
    level = without_specks(level)
    level = np.where(_small_pieces(level <= 0, _LEAST_HOLE), 0.5, level)
    level = capsule.smooth_over_columns(level, 1.0, 1.0)
    level[0] = level[0].mean()  # the pole is one place
    return level


def without_specks(level: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """A level without small pieces of headgear."""
    return np.where(_small_pieces(level > 0, _LEAST_PIECE), -0.5, level)


def of_near_side(shown: Float[np.ndarray, "56 64"], observed: ObservedField) -> Float[np.ndarray, "56 64"]:
    """What is shown, less on the side that is turned away: there what hangs behind the face seems to lie on it.

    Args:
        shown: how surely each cell is, [0, 1].
        observed: of the portrait.
    """
    azimuth = np.arange(COLUMNS) * (2 * math.pi / COLUMNS)
    towards = np.sin(azimuth) * float(observed.towards_camera[0])
    return shown * np.clip(1 + _TURNED_AWAY * towards, 0, 1)


def _small_pieces(mask: Bool[np.ndarray, "rows columns"], least: float) -> Bool[np.ndarray, "rows columns"]:
    """Pieces of a mask that have less than a share of the cells of the largest."""
    pieces, count = capsule.pieces_round(mask)
    area = np.bincount(pieces.ravel(), minlength=count + 1)
    area[0] = 0
    small = (pieces > 0) & (area < least * area.max(initial=1))[pieces]
    return small[:, capsule.COLUMNS : 2 * capsule.COLUMNS]


def symmetric(
    values: Float[np.ndarray, "*k 56 64"], visibility: Float[np.ndarray, "56 64"]
) -> Float[np.ndarray, "*k 56 64"]:
    """Grids of the chart whose unseen cells are the mirror image of seen ones, and alike where both are unseen."""
    own, other = np.clip(visibility / 0.5, 0, 1), np.clip(visibility[:, MIRRORED] / 0.5, 0, 1)
    mirrored = values[..., MIRRORED]
    unseen = 0.5 * (values + mirrored)
    return own * values + (1 - own) * (other * mirrored + (1 - other) * unseen)


def has_hair_on_top(observed: ObservedField, height_cm: Float[np.ndarray, "56 64"]) -> bool:
    """Whether hair is seen above the headgear: then it is a band, not a hat."""
    top = (height_cm > _TOP_CM) & (observed.visibility > 0.3)
    hair, worn = (int((top & (observed.material[kind] > 0.5)).sum()) for kind in (HAIR, HEADGEAR))
    return hair > max(worn, _LEAST_TOP)


def is_hat(observed: ObservedField, height_cm: Float[np.ndarray, "56 64"]) -> bool:
    """Whether the headgear ends in one line about the head: not so scarves, hoods, turbans that hang, and bands."""
    return not (wraps_the_head(observed) or has_hair_on_top(observed, height_cm))


def _waves(azimuth_rad: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 4"]:
    return np.stack(
        [np.ones_like(azimuth_rad), np.cos(azimuth_rad), np.cos(2 * azimuth_rad), np.sin(azimuth_rad)], axis=-1
    )

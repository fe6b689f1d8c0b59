"""Paint the hair shell in even light: own pixels, mirrored ones, then the expected colour with painted locks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from ...head_model.anatomy import ramp
from .. import capsule
from ..field.chart import COLUMNS, chart_rows
from ..hair.flow_field import HairFlow
from ..hair.locks import paint_locks
from ..labels.portrait_labels import CLOTH, HAIR, SKIN
from .expected_colours import ExpectedColours
from .fills import (
    carried_on,
    enlarged,
    local_mean,
    push_pull,
    reduced_colours,
    reduced_mean,
    sampled_part,
    soft_edged,
    without_patches,
    wrapped_blur,
)
from .hair_look import FLOOR, HairLook, HairTone
from .hairline import Hairline, strands_of, thinned
from .portrait_lookup import SeenPoints

_REDUCE = 4
"""Differences of light are computed at a lower resolution."""
_MOST_DETAIL = 0.9
_FADE_PX = 90.0
"""Texels over which what is seen moves the colours beside it."""
_PLAIN_TRUST, _DOUBT_RANGE = 0.7, 0.5
"""Pixels trusted less than the first are doubted for their colour, fully by the second below it."""
_MORE_OWN = 1.0
"""Half seen pixels of the portrait count for more than half: beside painted locks they are the truth."""
_CALMER = np.float32(0.75)
"""Contrast of made up locks beside that of the hair that is seen: light comes from the front, and a pattern that is
guessed should not be the first thing that is looked at."""
_PLAINER = 0.85
"""Headgear, and what has the colour of cloth, has no locks: so much less contrast."""
_LEAST_SURE = 800
_FACED, _FACED_RANGE, _AS_BRIGHT = 0.97, 0.3, 0.02
"""Hair that is trusted less than the first number is seen from the side, fully by the second below it: there it is no
brighter than the nearest hair that is faced, but for the third, log."""

_GLARE, _PALER = (0.25, 0.45), (0.15, 0.4)
"""Skin on the shell that is brighter than usual by the first number, log, and has less saturation by the first share
is glare in part, by the second ones fully."""


@dataclass(frozen=True)
class PaintedShell:
    """The hair's tile."""

    rgb_unit: Float32[np.ndarray, "h w 3"]
    """Colour."""
    confidence: Float32[np.ndarray, "h w"]
    """1 where the portrait shows the texel, about 0.5 where its mirror image does, 0 where it is made up."""
    detail: Float32[np.ndarray, "h w 3"]
    """The locks alone, as logarithms of factors, on seen texels as well."""


def paint_shell(
    seen: SeenPoints, reflected: SeenPoints, expected: ExpectedColours, flow: HairFlow, seed: int, step: int = 1
) -> PaintedShell:
    """Hair: own pixels, mirrored ones, then the expected colour with locks that run on from what is seen.

    Args:
        seen: what the portrait shows.
        reflected: what it shows of the mirror images.
        expected: smooth colours of what is not shown.
        flow: where hair runs.
        seed: of the locks.
        step: see `AtlasTexels.step`.
    """
    (height, width), factor = seen.trust.shape, _REDUCE // step
    seen, reflected = (_without_rim_light(_whole(points, step), step) for points in (seen, reflected))
    own = soft_edged(seen.trust * seen.classes[..., HAIR], step)
    mirror = soft_edged(reflected.trust * reflected.classes[..., HAIR], step)
    # Pixels at the rim of what is seen smear over the shell: there the colour of hair is asked for as well.
    tone = HairTone.of(seen.colour, own, step)
    foreign = 1 - tone.belief(seen.colour)
    doubt = foreign * np.clip((_PLAIN_TRUST - seen.trust) / _DOUBT_RANGE, 0, 1)
    doubt = np.maximum(doubt, tone.glare(seen.colour, seen.trust) * (seen.classes[..., HAIR] > 0.5))
    own, trust = own * (1 - doubt), seen.trust * (1 - doubt) * (1 - seen.classes[..., CLOTH])
    mirror = mirror * tone.belief(reflected.colour) * (1 - tone.glare(reflected.colour, reflected.trust))
    both = own * mirror
    mean, mass = reduced_colours(seen.colour - reflected.colour, both, factor)
    difference = enlarged(push_pull(mean, mass + np.float32(1e-6)), factor)
    m_colour, shown = np.maximum(reflected.colour + 0.7 * difference, 0), seen.colour
    del seen, reflected, difference, both, foreign, doubt  # tens of megabytes, while the skin takes as much
    w_mirror = mirror * (1 - own)
    weight = own + w_mirror
    colour = (shown * own[..., None] + m_colour * w_mirror[..., None]) / np.maximum(weight, 1e-6)[..., None]

    mean, mass = local_mean(colour, weight, step)
    base = _shell_picture(expected.cover, height, width)
    fill = tone.held(np.clip(base + carried_on(mean - base, mass, _FADE_PX, step), 0.01, 1))
    detail = np.log((colour + FLOOR) / (mean + FLOOR)).clip(-_MOST_DETAIL, _MOST_DETAIL).astype(np.float32)
    known = _without_outliers(detail, (weight > 0.5) & (mass > 0.3), step)
    look = HairLook.of(detail, known, colour, flow.look, step)
    del colour, mean, mass, base

    # What is plainly seen is kept: also an ear or a temple that the shell happens to cover.
    keep = np.maximum(own * (1 + _MORE_OWN * (1 - own)), trust * np.clip(2 * trust - 1, 0, 1))
    mirror_keep = np.clip(1.5 * mirror - 0.25, 0, 1)
    carried = cv2.GaussianBlur(detail.mean(-1) * known, (0, 0), 1.2 / step)
    pattern = paint_locks(flow, (height, width), carried, own * known, np.random.default_rng(seed))
    made = _CALMER * look.detail_of(pattern, _probe(flow, np.maximum(keep, mirror_keep), step))
    plain = np.maximum(cv2.resize(flow.headgear.astype(np.float32), (width, height)), np.float32(tone.cloth))
    made *= (1 - _PLAINER * plain)[..., None]
    fill = (fill + FLOOR) * np.exp(made) - FLOOR
    result = fill + (m_colour - fill) * mirror_keep[..., None]
    result = result + (shown - result) * keep[..., None]
    confidence = np.maximum(keep, 0.5 * mirror_keep).astype(np.float32)
    return PaintedShell(np.maximum(result, 0).astype(np.float32), confidence, made)


def _whole(seen: SeenPoints, step: int) -> SeenPoints:
    return replace(seen, trust=without_patches(seen.trust, step))


def _without_rim_light(seen: SeenPoints, step: int) -> SeenPoints:
    """What is seen without the light along the hair's outline: a narrow bright rim would be spread over much hair."""
    hair = (seen.trust * seen.classes[..., HAIR]).astype(np.float32)
    faced = hair * (seen.trust > _FACED)
    if (faced > 0).sum() < _LEAST_SURE // step**2:
        return seen
    mean, _ = reduced_mean(seen.colour, hair, _REDUCE, step)
    faced_mean, mass = reduced_mean(seen.colour, faced, _REDUCE, step)
    near = push_pull(faced_mean, np.clip(2 * mass - 0.2, 0, 1))
    brighter = enlarged(np.log((mean.mean(-1) + FLOOR) / (near.mean(-1) + FLOOR)) - _AS_BRIGHT, _REDUCE // step)
    aside = np.clip((_FACED - seen.trust) / _FACED_RANGE, 0, 1)
    factor = np.exp(-np.maximum(brighter, 0) * aside * seen.classes[..., HAIR])
    return SeenPoints((seen.colour * factor[..., None]).astype(np.float32), seen.trust, seen.classes)


def without_glare_on_skin(
    seen: SeenPoints,
    shade: Float32[np.ndarray, "n 3"],
    typical_rgb: Float[np.ndarray, " 3"],
    skin_at: Callable[[Int[np.ndarray, " m"]], Float[np.ndarray, "m 3"]],
) -> SeenPoints:
    """What is seen without glare on skin that the shell happens to cover at the hairline: it would be spread over the
    shell's edge. Glare is told in the picture's own light, for the shell's normals bend where it ends.

    Args:
        seen: what the portrait shows of points, in even light.
        shade: factor of the portrait's light there.
        typical_rgb: the portrait's skin, in its light.
        skin_at: takes numbers of points and gives the colours to be expected there, in even light.
    """
    skin = np.nonzero((seen.trust > 0) & (seen.classes[:, SKIN] > 0))[0]
    shown = np.clip(seen.colour[skin] * shade[skin], 0, 1)
    brighter = np.log((shown.mean(-1) + FLOOR) / (float(typical_rgb.mean()) + FLOOR))
    saturation, typical = (np.ptp(c, axis=-1) / np.maximum(c.max(-1), FLOOR) for c in (shown, typical_rgb))
    paler = 1 - saturation / np.maximum(typical, 0.05)
    share = ramp(brighter, *_GLARE) * ramp(paler, *_PALER) * seen.classes[skin, SKIN]
    colour = seen.colour.copy()
    colour[skin] += ((skin_at(skin) - colour[skin]) * share[:, None]).astype(np.float32)
    return SeenPoints(colour, seen.trust, seen.classes)


def ended_softly(
    shell: PaintedShell, hairline: Hairline, under_shell: Float32[np.ndarray, "rows columns 3"], step: int = 1
) -> Float32[np.ndarray, "h w 3"]:
    """The tile's colours with skin between hairs where hair ends; what the portrait shows stays.

    Args:
        shell: as painted.
        hairline: where it thins out.
        under_shell: colour of the skin below it.
        step: see `AtlasTexels.step`.
    """
    height, width = shell.confidence.shape
    share = thinned(hairline.on_tile(height, width), strands_of(shell.detail, step))
    closed = np.concatenate([under_shell, under_shell[:, :1]], axis=1)
    skin = cv2.resize(closed, (width, height), interpolation=cv2.INTER_LINEAR)
    bare = (1 - share) * (1 - np.clip(2 * shell.confidence, 0, 1))
    return shell.rgb_unit + (skin - shell.rgb_unit) * bare[..., None]


def _probe(flow: HairFlow, kept: Float32[np.ndarray, "h w"], step: int) -> Bool[np.ndarray, "h w"]:
    """Texels of hair that are made up, away from the pole, where the tile is stretched."""
    height, width = kept.shape
    shown = cv2.resize(flow.thickness.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0
    shown[: height // 8] = False
    probe = cv2.erode((shown & (kept < 0.1)).astype(np.uint8), np.ones((14 // step + 1,) * 2, np.uint8)) > 0
    return probe if probe.sum() > _LEAST_SURE // step**2 else shown | (np.arange(height)[:, None] >= height // 8)


def _without_outliers(
    detail: Float32[np.ndarray, "h w 3"], solid: Bool[np.ndarray, "h w"], step: int
) -> Bool[np.ndarray, "h w"]:
    """Where detail may be learned from: not from glints, ornaments, folds and specks of the background."""
    if not solid.any():
        return solid
    grey = detail.mean(-1)
    coloured = np.abs(detail - grey[..., None]).max(-1)
    # ornaments and folds are broad, strands and strokes are thin: what is left after a light blur counts
    broad = np.abs(wrapped_blur(np.where(solid, grey, 0).astype(np.float32), 5.0 / step, 5.0 / step))
    odd = np.zeros(solid.shape, bool)
    for strength, least, factor in ((coloured, 0.1, 2.5), (broad, 0.1, 2.5), (np.abs(grey), 0.15, 2.8)):
        odd |= strength > max(least, factor * float(np.quantile(strength[solid][::7], 0.7)))
    odd = cv2.morphologyEx((odd & solid).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return solid & (cv2.dilate(odd, np.ones((8 // step + 1,) * 2, np.uint8)) == 0)


def _shell_picture(chart: Float32[np.ndarray, "56 64 3"], height: int, width: int) -> Float32[np.ndarray, "h w 3"]:
    """The chart's hair on the shell's tile."""
    row = chart_rows(np.arange(height) * ((capsule.ROWS - 1) / (height - 1))).astype(np.float32)
    column = np.arange(width, dtype=np.float32) * np.float32(COLUMNS / (width - 1))
    return sampled_part(chart, row, column)

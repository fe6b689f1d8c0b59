"""Paint headgear: what the portrait shows of it, mirrored where that is hidden, and behind that its own plain cloth.

Nothing of it comes from hair, and nothing of it goes there. Hems and brims take the portrait's colours where it shows
them, else those of the headgear beside them, a little darker below. All of it is in even light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage

from .. import capsule
from ..labels.portrait_labels import HAIR
from ..worn.headgear import Headgear
from .atlas import MATERIAL_HEADGEAR, SHELL_TILE, AtlasTexels
from .cloth_paint import fine_only, random_phase_texture
from .fills import carried_on, local_mean, soft_edged
from .painted import Painted
from .portrait_lookup import PictureOfMesh, SeenPoints, seen_in_tile

_FLOOR = 0.03
"""Added to colours before their logarithm is taken."""
_FADE_PX = 110.0
"""Texels over which what is seen moves the colours beside it."""
_WRAPPED_SHARE = 0.5
"""Of the texture that is left for wrapped cloth, whose folds are none of it."""
_TEXTURE_SHARE, _MOST_DETAIL = 0.8, 0.5
_USUAL_DETAIL = 2.5
"""Detail is made up with contrasts up to so many times the median of the seen ones: patterns stay, single folds go."""
_POLE_ROWS = (4.0, 16.0)
"""Texture fades out towards the pole, where the tile is stretched, from the second row to the first."""
_COLOUR_BINS, _GREY_WEIGHT = 10, 0.1
"""Steps of colour, and what grey ones count beside those of more colour: lights and shadows are greyer than cloth."""
_KNOWN_SHARE, _FRONT_DEG, _SIDE_DEG, _LEAST_SIDE_DEG = 0.35, 30.0, 70.0, 20.0
"""Columns with more than this share of the best one's known texels are known; patterns behind are taken from the last
of these on forwards, over so many degrees at most and at least, but not from so near to the middle of the front."""
_SEAM_DEG = 6.0
"""Over so many degrees repeated patterns begin and end."""
_HEM_SHADE = 0.75
"""Brightness of hems beside what they border."""
_MIRROR_SHARE = 0.9
_LIGHTEST_TRIM = 1.1
"""Hems and brims are in even light at most so much lighter than next to all of the headgear."""


def paint_headgear(
    headgear: Headgear, pixels: Bool[np.ndarray, "s s"], picture: PictureOfMesh, texels: AtlasTexels,
    shade_at: Callable[[Int[np.ndarray, " m"]], Float32[np.ndarray, "m 3"]],
    mirrored_shade_at: Callable[[Int[np.ndarray, " m"]], Float32[np.ndarray, "m 3"]], seed: int,
) -> Painted:  # fmt: skip
    """Colours of headgear, its hems and its brim.

    Args:
        headgear: of which the mesh was made.
        pixels: of the portrait that show it.
        picture: the portrait as a picture of the mesh.
        texels: of the atlas.
        shade_at: takes numbers of texels and gives the factor of the portrait's light on them.
        mirrored_shade_at: the same on their mirror images.
        seed: of the cloth's texture.
    """
    chosen = np.nonzero(texels.material == MATERIAL_HEADGEAR)[0]
    image = picture.image.copy()
    image[..., 3:6] = 0
    image[..., 3 + HAIR] = pixels
    seen = replace(picture, image=image)
    own, mirrored = seen.look_up_both(texels.points_world[chosen], texels.normals_world[chosen])
    own = own.divided_by(shade_at(chosen))
    mirrored = mirrored.divided_by(mirrored_shade_at(chosen))
    x, y, width, _ = texels.painted_tile(SHELL_TILE)
    on_shell = (texels.columns[chosen] < x + width) & (texels.rows[chosen] >= y)
    rgb, confidence = np.zeros((len(chosen), 3)), np.zeros(len(chosen))
    surface = np.nonzero(on_shell)[0]
    tile, trust = _paint_surface(
        seen_in_tile(texels, chosen[surface], own[surface], SHELL_TILE),
        seen_in_tile(texels, chosen[surface], mirrored[surface], SHELL_TILE),
        seed,
        texels.step,
        wrapped=headgear.wrapped,
    )
    place = texels.rows[chosen[surface]] - y, texels.columns[chosen[surface]] - x
    rgb[surface], confidence[surface] = tile[place], trust[place]
    trim = np.nonzero(~on_shell)[0]
    if len(trim):
        beside = _beside(tile, texels.points_world[chosen[trim]])
        painted, confidence[trim] = _paint_trim(texels, chosen[trim], own[trim], mirrored[trim], beside)
        # what faces away from the light is none too sure in even light, and would glare where it faces it
        most = _LIGHTEST_TRIM * float(np.quantile(tile[::4, ::4].mean(-1), 0.98))
        rgb[trim] = painted * np.minimum(1, most / np.maximum(painted.mean(-1, keepdims=True), 1e-6))
    return Painted(chosen, rgb, confidence)


def _paint_surface(
    seen: SeenPoints, reflected: SeenPoints, seed: int, step: int, *, wrapped: bool
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """The tile's colours and confidence; off the headgear its colours go on."""
    height, width = seen.trust.shape
    own = soft_edged(seen.trust * seen.classes[..., HAIR], step)
    mirror = soft_edged(reflected.trust * reflected.classes[..., HAIR], step) * (1 - own)
    weight = own + mirror
    colour = (seen.colour * own[..., None] + reflected.colour * mirror[..., None]) / np.maximum(weight, 1e-6)[..., None]
    sure = weight > 0.5
    typical = _commonest(colour[sure]) if sure.any() else np.full(3, 0.3)
    mean, mass = local_mean(colour, weight, step)
    base = np.broadcast_to(typical, colour.shape).astype(np.float32)
    fill = np.clip(base + carried_on(mean - base, mass, _FADE_PX, step), 0.01, 1)
    detail = np.log((colour + _FLOOR) / (mean + _FLOOR)).clip(-_MOST_DETAIL, _MOST_DETAIL).astype(np.float32)
    usual = _USUAL_DETAIL * float(np.median(np.abs(detail[sure]))) if sure.any() else 0.0
    detail = detail.clip(-usual, usual)
    example = fine_only(detail, sure & (mass > 0.4), step)
    texture = random_phase_texture(detail, example, np.random.default_rng(seed), step)
    if wrapped:  # single folds would be seen to be the same
        texture = _WRAPPED_SHARE * texture
    else:
        pattern, shown = _turned_behind(detail, weight)
        texture = texture + (pattern - texture) * shown[..., None]
    texture = texture.mean(-1, keepdims=True)
    texture = np.repeat(texture, 3, axis=-1)  # of several cloths each would colour the others
    row = np.arange(height) * ((capsule.ROWS - 1) / (height - 1))
    texture *= _TEXTURE_SHARE * np.clip((row - _POLE_ROWS[0]) / (_POLE_ROWS[1] - _POLE_ROWS[0]), 0, 1)[:, None, None]
    fill = (fill + _FLOOR) * np.exp(texture) - _FLOOR
    mirror_keep = np.clip(1.5 * mirror - 0.25, 0, 1)
    result = fill + (reflected.colour - fill) * mirror_keep[..., None]
    result = result + (seen.colour - result) * own[..., None]
    confidence = np.maximum(own, 0.5 * mirror_keep)
    return np.maximum(result, 0).astype(np.float32), confidence.astype(np.float32)


def _commonest(colours: Float32[np.ndarray, "n 3"]) -> Float[np.ndarray, " 3"]:
    """The mean of the commonest kind of colour; a mean of all would be none of them where cloth has several."""
    bins = (colours.clip(0, 1) * (_COLOUR_BINS - 1e-3)).astype(np.int64)
    number = np.ravel_multi_index(tuple(bins.T), (_COLOUR_BINS,) * 3)
    counts = np.bincount(number, _GREY_WEIGHT + np.ptp(colours, axis=1), minlength=_COLOUR_BINS**3)
    counts = counts.reshape((_COLOUR_BINS,) * 3)
    near = ndimage.gaussian_filter(counts, 0.7, mode="constant")
    best = np.array(np.unravel_index(int(near.argmax()), near.shape))
    return np.median(colours[(np.abs(bins - best) <= 1).all(1)], axis=0)


def _turned_behind(
    detail: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"]
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Detail of the sides once more over what is behind, and how surely it is known: 0 where one turn meets another.

    Patterns and folds go on so; what is in the middle of the front, a badge maybe, is not repeated.

    Args:
        detail: logarithm of colours over their local mean.
        weight: how surely each texel is known.
    """
    width = weight.shape[1]
    aside = np.minimum(np.arange(width), width - np.arange(width)) * (360 / width)
    known = (weight * (weight > 0.5)).sum(0) / max(float((weight > 0.5).sum(0).max()), 1.0)
    last = float(aside[known > _KNOWN_SHARE].max(initial=0.0))
    reach = min(_SIDE_DEG, last - _FRONT_DEG)
    if reach < _LEAST_SIDE_DEG:
        return np.zeros_like(detail), np.zeros_like(weight)
    beyond = np.maximum(aside - last, 0) % reach
    column = np.round(np.where(aside > last, last - reach + beyond, aside) * (width / 360)).astype(np.int64)
    column = np.where(np.arange(width) > width // 2, (width - column) % width, column)
    inner = np.where(aside > last, np.clip(np.minimum(beyond, reach - beyond) / _SEAM_DEG, 0, 1), 1)
    return detail[:, column], (np.clip(2 * weight[:, column] - 0.6, 0, 1) * inner).astype(np.float32)


def _paint_trim(
    texels: AtlasTexels, chosen: Int[np.ndarray, " n"], own: SeenPoints, mirrored: SeenPoints,
    beside: Float32[np.ndarray, "n 3"],
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:  # fmt: skip
    """Hems and brim."""
    up = texels.normals_world[chosen, 1:2]
    fill = (beside + _FLOOR) * np.exp(np.log(_HEM_SHADE) * (1 - up) / 2) - _FLOOR
    trust, other = (s.trust * s.classes[:, HAIR] for s in (own, mirrored))
    trust, other = trust.astype(np.float64), _MIRROR_SHARE * other.astype(np.float64)
    colour = fill + (mirrored.colour - fill) * other[:, None]
    colour = colour + (own.colour - colour) * trust[:, None]
    return np.maximum(colour, 0), np.maximum(trust, 0.5 * other)


def _beside(tile: Float32[np.ndarray, "h w 3"], points_world: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """The headgear's colours a little above the places of points."""
    row, column, _ = capsule.cell_coordinates(points_world.astype(np.float64))
    y = np.clip((row - 4) * ((tile.shape[0] - 1) / (capsule.ROWS - 1)), 0, tile.shape[0] - 1).astype(np.int64)
    x = (column * ((tile.shape[1] - 1) / capsule.COLUMNS)).astype(np.int64) % tile.shape[1]
    return tile[y, x]

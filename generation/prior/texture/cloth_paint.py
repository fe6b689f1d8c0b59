"""Paint the bust: own pixels, the front mirrored, and behind them plain cloth of the same colour, light and texture.

What the portrait shows stays. The hidden side of the front takes the shown one's. Everything else is one colour for
each height, that of the outermost cloth seen there; near what is seen it goes over into it. A texture with the seen
cloth's statistics, but none of its buttons, letters or seams, lies over it. All of it is painted in even light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage

from ...head_model.anatomy import ramp
from ..bust.bust import CUT_ROW, RIM_ROW, ROWS
from ..field.chart import at_points
from ..labels.portrait_labels import CLOTH, SKIN
from .atlas import AtlasMesh, AtlasTexels, Tile
from .expected_colours import ExpectedColours
from .fills import (
    distance_to_known,
    enlarged,
    push_pull,
    reduced,
    reduced_colours,
    soft_edged,
    without_patches,
    wrapped_blur,
)
from .portrait_lookup import SeenPoints

_FLOOR = 0.05
"""Added to colours before logarithms."""
_REDUCE = 4
_TRUST = (0.2, 0.8)
"""Grazing and half-covered pixels count from the first trust on and fully from the second."""
_MIRROR_SHARE = 0.9
_FRONT = (-0.15, 0.15)
"""Cosines of the angle from the body's front between which the mirrored front ends."""
_OUTER_ANGLE, _OUTER_SHARE = 0.55, 0.4
"""The back's colours come from this outermost share of what is seen beyond this angle from the front."""
_UNLIKE, _BESIDE_PX = (0.4, 0.8), (48.0, 80.0)
"""Mirrored cloth that differs from what is seen beside it from the first to the second number on, logarithms, is not
shown up to the third number of texels from it, and fully only from the fourth on."""
_HEIGHT_BINS, _SMOOTH_BINS, _ALIKE = 72, 3.0, 0.25
"""Heights of the back's colours, over how many of them they are averaged, and how alike these are, logarithms."""
_LEAST_IN_BIN = 12
_NEAR_PX = 36.0
"""Texels over which what is seen goes over into the plain cloth."""
_EDGE_ROWS, _LAST_ROWS = 14, 3
"""The lowest rows that are seen tell what goes on below them, but for the very last, which the picture's end mixes."""
_CLOSING = 0.16
"""Below the picture's end a garment that is open in front closes over this length, world units."""
_OUTER, _SAME, _MOST_OPEN = (0.1, 0.2), 0.35, 0.14
"""It has the median colour between the first two shares of the turn from the front, and begins where colours differ
from that by less than the third, logarithms, but not farther out than the last share."""
_CARRIED = (0.1, 0.12)
"""What is seen is carried down for the first length, and goes over into the plain cloth over the second."""
_STRIPE = 9
"""Columns over which what is carried down has one colour: patterns would become stripes."""
_SIDE_ANGLE = 0.8
"""Colours of cloth that is not seen as far round as this are those of what is worn below it."""
_COLLAR, _BETTER = (0.016, 0.03), (0.05, 0.2)
"""Down to the first two lengths below a collar's edge, cloth that looks different from its mirror image has the colours
of that one if it is seen at a cosine that is larger by the second two: beyond chin and jaw a lapel would lie where the
shirt's collar is."""
_RIM = (-0.002, 0.012, 0.016)
"""A collar's rim is seen between the first two lengths below its edge and painted round the neck down to the third."""
_LEAST_RIM, _LEAST_STAND = 150.0, 0.003
_GAP, _IN_FRONT, _LEAST_ROWS = 0.22, 0.6, 12.0
"""A collar's rim bridges gaps up to the first share of the turn, but not where the cosine of the angle from the front
exceeds the second; columns of which fewer texels than the third are seen tell nothing about it."""
_RIM_QUANTILES = (0.6, 0.95)
"""The rim's colour is that of its brighter pixels: shade and neck lie among the others."""
_CREASE = 0.30
"""Depth of the shade below a collar that stands off, log brightness."""
_DETAIL_SHARE, _MOST_DETAIL = 0.85, 0.35
_DETAIL_SIGMA_PX = 6.0
"""Texels; what is coarser is folds and light, not texture."""
_LEAST_EXAMPLE = 1500
_CUT_SHADE = 0.85
"""Brightness of the lower end."""


@dataclass(frozen=True)
class ClothSurface:
    """The bust's tile as pictures of its surface."""

    points_world: Float32[np.ndarray, "h w 3"]
    """World units; 0 off the mesh."""
    normals_body: Float32[np.ndarray, "h w 3"]
    """Unit normals in the body's frame."""
    facing: Float32[np.ndarray, "h w"]
    """Cosines between normal and portrait camera."""
    height: Float32[np.ndarray, "h w"]
    """Above the neck's cut along the body, world units."""
    below_rim: Float32[np.ndarray, "h w"]
    """Length down the column from the collar's edge, world units; negative inside the neck."""
    stand_off: Float32[np.ndarray, " w"]
    """How far the collar's edge stands off the neck; beside and behind it has no gaps."""
    T_world_body: Float[np.ndarray, "4 4"]
    """To world from the body's frame."""
    rim_row: int
    """Row of the collar's edge."""
    cut_row: int
    """Row at which the rounded lower end begins."""
    step: int = 1
    """See `AtlasTexels.step`."""

    @staticmethod
    def of(
        texels: AtlasTexels, chosen: Int[np.ndarray, " n"], mesh: AtlasMesh, tile: Tile,
        camera_world: Float[np.ndarray, " 3"],
    ) -> ClothSurface:  # fmt: skip
        """The surface of the tile.

        Args:
            texels: of the atlas.
            chosen: numbers of the tile's texels.
            mesh: of the atlas.
            tile: column, row, width and height in the atlas.
            camera_world: position of the portrait's camera.
        """
        x, y, width, height = texels.painted_tile(tile)
        points, normals = np.zeros((2, height, width, 3), np.float32)
        place = (texels.rows[chosen] - y, texels.columns[chosen] - x)
        points[place], normals[place] = texels.points_world[chosen], texels.normals_world[chosen]
        points[:, -1], normals[:, -1] = points[:, 0], normals[:, 0]
        covered = (normals != 0).any(-1)
        view = camera_world.astype(np.float32) - points
        facing = (normals * view).sum(-1) / np.linalg.norm(view, axis=-1)
        T = mesh.T_world_body
        step = np.linalg.norm(np.diff(points, axis=0), axis=-1) * (covered[1:] & covered[:-1])
        length = np.concatenate([np.zeros((1, width), np.float32), np.cumsum(step, axis=0)])
        rim_row, cut_row = (round(row * (height - 1) / (ROWS - 1)) for row in (RIM_ROW, CUT_ROW))
        columns = np.linspace(0, len(mesh.stand_off), width)
        closed = ndimage.grey_closing(mesh.stand_off, round(_GAP * len(mesh.stand_off)), mode="wrap")
        not_in_front = np.cos(np.arange(len(closed)) * (2 * np.pi / len(closed))) < _IN_FRONT
        closed = np.maximum(mesh.stand_off, closed * not_in_front)
        stand_off = np.interp(columns, np.arange(len(closed) + 1), np.append(closed, closed[0]))
        return ClothSurface(
            points,
            (normals @ T[:3, :3]).astype(np.float32),
            facing.astype(np.float32),
            ((points - T[:3, 3]) @ T[:3, 1]).astype(np.float32),
            (length - length[rim_row]).astype(np.float32),
            stand_off.astype(np.float32),
            T,
            rim_row,
            cut_row,
            texels.step,
        )

    @property
    def angle(self) -> Float32[np.ndarray, " w"]:
        """Angle of each column from the body's front, [0, pi]."""
        turn = np.linspace(0, 2 * np.pi, len(self.stand_off))
        return np.abs((turn + np.pi) % (2 * np.pi) - np.pi).astype(np.float32)

    @property
    def lower_end(self) -> Float32[np.ndarray, " h"]:
        """1 on the rounded lower end, which is plain."""
        return np.clip((np.arange(len(self.height), dtype=np.float32) - self.cut_row) * self.step / 12, 0, 1)


def paint_cloth(
    seen: SeenPoints, expected: ExpectedColours, surface: ClothSurface, seed: int
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Colour and confidence of the bust's tile.

    Args:
        seen: what the portrait shows of its texels.
        expected: colours for a bust of which nothing is seen.
        surface: how the texels lie.
        seed: of the texture.
    """
    fits = np.maximum(seen.classes[..., CLOTH], seen.classes[..., SKIN])
    (low, high), step = _TRUST, surface.step
    own = np.clip((seen.trust * fits - low) / (high - low), 0, 1).astype(np.float32)
    own = without_patches(own * (1 - _better_mirrored(seen, own, surface)), step)
    own = soft_edged(own, step)
    front = np.clip((np.cos(surface.angle) - _FRONT[0]) / (_FRONT[1] - _FRONT[0]), 0, 1)
    lowest = _lowest(own, step)
    above_end = np.arange(len(own))[:, None] <= np.where(lowest < 0, len(own), lowest)
    reflected = own[:, ::-1] * above_end  # below the picture's end left and right would end at two heights
    mirrored = seen.colour[:, ::-1]
    reflected = reflected * _going_on(seen.colour, own, mirrored, step)
    mirror = reflected * front * (1 - own)
    known = own + _MIRROR_SHARE * mirror
    colour = seen.colour * own[..., None] + mirrored * (_MIRROR_SHARE * mirror)[..., None]
    colour = (colour / np.maximum(known, 1e-6)[..., None]).astype(np.float32)
    is_cloth = np.maximum(seen.classes[..., CLOTH], seen.classes[:, ::-1, CLOTH] * (own < 0.5)) > 0.5

    base = _colours_by_height(colour, known * is_cloth, surface)
    if base is None:
        base = _colours_by_height(colour, known, surface)
    if base is None:
        base = at_points(expected.cloth, surface.points_world.reshape(-1, 3)).reshape(surface.points_world.shape)
        base = base.astype(np.float32)
    skin = np.maximum(seen.classes[..., SKIN], seen.classes[:, ::-1, SKIN] * (own < 0.5))
    plain = base
    base, rim = _with_rim(base, colour, known * is_cloth, _bare_columns(known, skin, surface), surface)
    fill = _creased(base, known, rim, surface)
    unlike_rim = rim * ramp(_difference(mirrored, base), *_UNLIKE)  # pieces of lapels would alternate with the rim
    reflected = reflected * (1 - unlike_rim)
    fill = _run_over(fill, colour, known, rim, surface)
    sigma = _DETAIL_SIGMA_PX / step
    mass = wrapped_blur(known, sigma, sigma)
    mean = wrapped_blur(colour * known[..., None], sigma, sigma) / np.maximum(mass, 1e-4)[..., None]
    detail = np.log((colour + _FLOOR) / (mean + _FLOOR)).clip(-0.5, 0.5).astype(np.float32)
    example = (known > 0.6) & (mass > 0.6) & is_cloth
    example = fine_only(detail, example & (_difference(mean, base) < 0.5), step)
    texture = random_phase_texture(detail, example, np.random.default_rng(seed), step)
    like_base = 1 - ramp(_difference(fill, plain), *_UNLIKE)  # stripes of a jacket would be scratches on the shirt
    texture = _DETAIL_SHARE * texture * (like_base * (1 - surface.lower_end)[:, None])[..., None]
    fill = (fill + _FLOOR) * np.exp(texture) - _FLOOR

    mirror_kept = soft_edged(np.clip(1.6 * reflected - 0.3, 0, 1).astype(np.float32), step) * front * (1 - own)
    result = fill + (mirrored - fill) * mirror_kept[..., None]
    result = result + (seen.colour - result) * own[..., None]
    confidence = np.maximum(own, 0.5 * mirror_kept)
    result[:, -1], confidence[:, -1] = result[:, 0], confidence[:, 0]
    return np.maximum(result, 0).astype(np.float32), confidence.astype(np.float32)


def _better_mirrored(
    seen: SeenPoints, own: Float32[np.ndarray, "h w"], surface: ClothSurface
) -> Float32[np.ndarray, "h w"]:
    """How far a collar is to look like its other side, which is seen more plainly."""
    better = ramp(surface.facing[:, ::-1] - surface.facing, *_BETTER) * (1 - ramp(surface.below_rim, *_COLLAR))
    better = better * own[:, ::-1]
    return (better * ramp(_difference(seen.colour, seen.colour[:, ::-1]), *_UNLIKE)).astype(np.float32)


def _going_on(
    colour: Float32[np.ndarray, "h w 3"],
    own: Float32[np.ndarray, "h w"],
    mirrored: Float32[np.ndarray, "h w 3"],
    step: int,
) -> Float32[np.ndarray, "h w"]:
    """How far what is mirrored may be shown beside what is seen: another colour, a collar's over a lapel that is seen,
    would hang there as a rag."""
    factor = _REDUCE // step
    shown, mass = reduced_colours(colour, own, factor)
    if mass.max() <= 0.3:
        return np.ones_like(own)
    near = push_pull(shown, mass)
    unlike = ramp(_difference(reduced(mirrored, factor), near), *_UNLIKE)
    away = _REDUCE * distance_to_known(mass).astype(np.float32)
    return enlarged((1 - unlike * (1 - ramp(away, *_BESIDE_PX))).astype(np.float32), factor)


def _colours_by_height(
    colour: Float32[np.ndarray, "h w 3"], known: Float32[np.ndarray, "h w"], surface: ClothSurface
) -> Float32[np.ndarray, "h w 3"] | None:
    """At every height the median colour of the outermost seen cloth; None where too little is seen at all."""
    visible = slice(surface.rim_row, surface.cut_row)
    low, high = surface.height[visible].min(), surface.height[visible].max()
    number = (surface.height - low) * ((_HEIGHT_BINS - 1) / max(float(high - low), 1e-6))
    angle = np.broadcast_to(surface.angle, known.shape)
    usable = (known > 0.5) & (angle > _OUTER_ANGLE) & (number >= 0) & (number <= _HEIGHT_BINS - 1)
    bins = np.round(number[usable]).astype(np.int64)
    rgb, turn = colour[usable], angle[usable]
    table, reach = np.full((_HEIGHT_BINS, 3), np.nan), np.zeros(_HEIGHT_BINS)
    order = np.argsort(bins, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(bins[order])) + 1):
        if len(part) >= _LEAST_IN_BIN // surface.step**2:
            outer = part[turn[part] >= np.quantile(turn[part], 1 - _OUTER_SHARE)]
            table[bins[part[0]]], reach[bins[part[0]]] = np.median(rgb[outer], axis=0), np.median(turn[outer])
    if (reach >= _SIDE_ANGLE).any():
        table[reach < _SIDE_ANGLE] = np.nan
    at = np.flatnonzero(np.isfinite(table[:, 0]))
    if not len(at):
        return None
    table = np.stack([np.interp(np.arange(_HEIGHT_BINS), at, table[at, c]) for c in range(3)], axis=1)
    table = _smoothed(ndimage.median_filter(table, (7, 1), mode="nearest"))
    place = np.clip(number, 0, _HEIGHT_BINS - 1)
    return np.stack([np.interp(place, np.arange(_HEIGHT_BINS), table[:, c]) for c in range(3)], -1).astype(np.float32)


def _smoothed(table: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Colours by height, smooth where they are alike: where a collar ends they stay apart."""
    logs, number = np.log(np.maximum(table, 0) + _FLOOR), np.arange(len(table))
    weight = np.exp(-0.5 * ((number[:, None] - number) / _SMOOTH_BINS) ** 2)
    weight = weight * np.exp(-0.5 * (np.abs(logs[:, None] - logs).max(-1) / _ALIKE) ** 2)
    return weight @ table / weight.sum(1, keepdims=True)


def _bare_columns(
    known: Float32[np.ndarray, "h w"], skin: Float32[np.ndarray, "h w"], surface: ClothSurface
) -> Float32[np.ndarray, " w"]:
    """Share of skin in what is seen at and below a collar's edge, by column: no rim is carried through an open neck."""
    weight = known * ((surface.below_rim >= _RIM[0]) & (surface.below_rim < _RIM[2]))
    total = (weight * skin).sum(0), weight.sum(0)
    around = [wrapped_blur(np.repeat(values[None], 2, axis=0), 0.5, 6.0 / surface.step)[0] for values in total]
    return np.clip(2 * around[0] / np.maximum(around[1], _LEAST_ROWS / surface.step) - 0.5, 0, 1)


def _with_rim(
    base: Float32[np.ndarray, "h w 3"],
    colour: Float32[np.ndarray, "h w 3"],
    known: Float32[np.ndarray, "h w"],
    bare: Float32[np.ndarray, " w"],
    surface: ClothSurface,
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """The collar's rim carried round the neck, and where it lies."""
    first, last, end = _RIM
    on_rim = (surface.below_rim >= first) & (surface.below_rim < last) & (surface.stand_off > _LEAST_STAND)
    weight = known * on_rim * (surface.angle < 0.95)
    if weight.sum() < _LEAST_RIM / surface.step**2:
        return base, np.zeros_like(known)
    rgb = colour[weight > 0.3]
    if len(rgb) < _LEAST_IN_BIN // surface.step**2:
        return base, np.zeros_like(known)
    brightness = rgb.mean(1)
    dark, bright = np.quantile(brightness, _RIM_QUANTILES)
    rim_rgb = np.median(rgb[(brightness >= dark) & (brightness <= bright)], axis=0)
    rim = np.clip((end - surface.below_rim) / 0.004, 0, 1) * np.clip(surface.stand_off / _LEAST_STAND, 0, 1)
    rim = rim * (1 - bare)
    return base + (rim_rgb - base) * rim[..., None], rim.astype(np.float32)


def _creased(
    base: Float32[np.ndarray, "h w 3"],
    known: Float32[np.ndarray, "h w"],
    rim: Float32[np.ndarray, "h w"],
    surface: ClothSurface,
) -> Float32[np.ndarray, "h w 3"]:
    """Plain cloth with shade below a collar that stands off, and a plain lower end."""
    away = _distance(known, surface.step)
    crease = np.exp(-np.clip(surface.below_rim - 0.012, 0, None) / 0.02)
    crease = crease * np.clip((surface.below_rim - 0.004) / 0.014, 0, 1) * np.clip(surface.stand_off / 0.004, 0, 1)
    shade = -_CREASE * crease * (1 - np.exp(-away / 20)) * (1 - rim)
    shaded = (base + _FLOOR) * np.exp(shade)[..., None] - _FLOOR
    plain = shaded[surface.cut_row - 4 : surface.cut_row].mean((0, 1)) * _CUT_SHADE
    return (shaded + (plain - shaded) * surface.lower_end[:, None, None]).astype(np.float32)


def _distance(known: Float32[np.ndarray, "h w"], step: int) -> Float32[np.ndarray, "h w"]:
    """Texels of the whole atlas to the nearest known one, closed over the columns."""
    small = reduced(known, _REDUCE // step)
    if small.max() <= 0.3:
        return np.full(known.shape, 1e3, np.float32)
    return enlarged(_REDUCE * distance_to_known(small).astype(np.float32), _REDUCE // step)


def _run_over(
    fill: Float32[np.ndarray, "h w 3"],
    colour: Float32[np.ndarray, "h w 3"],
    known: Float32[np.ndarray, "h w"],
    rim: Float32[np.ndarray, "h w"],
    surface: ClothSurface,
) -> Float32[np.ndarray, "h w 3"]:
    """What is seen goes over into the plain cloth: sideways for a while, and straight down below the picture's end,
    where what is open in front closes."""
    if known.max() <= 0.5:
        return fill
    step, factor = surface.step, _REDUCE // surface.step
    near = enlarged(push_pull(*reduced_colours(colour, known, factor)), factor)
    share = np.exp(-_distance(known, step) / _NEAR_PX) * (1 - 0.85 * rim)
    fill = fill + (near - fill) * share[..., None]

    height, width = known.shape
    rows = np.arange(height)[:, None]
    last, last_rows = _lowest(known, step), _LAST_ROWS / step
    in_edge = (rows > last - _EDGE_ROWS // step) & (rows <= last - last_rows) & (last >= 0)
    weight = (known * in_edge).sum(0)
    edge = (colour * (known * in_edge)[..., None]).sum(0) / np.maximum(weight, 1e-6)[:, None]
    has_edge = (weight > 3 / step).astype(np.float32)
    if not has_edge.any():
        return fill
    ends = _filled_round(edge.astype(np.float32), has_edge, 1.0, step)
    ends = ndimage.median_filter(ends, (_STRIPE // (2 * step) * 2 + 1, 1), mode="wrap")
    end_length = surface.below_rim[np.maximum(last, 0), np.arange(width)]
    length = np.where((last >= 0) & (rows > last), surface.below_rim - end_length, 0)
    offset = (np.arange(width) + width / 2) % width - width / 2
    source = _closed_in_front(offset, length, _openings(ends, has_edge > 0)) % width
    first = source.astype(np.int64)
    part = (source - first)[..., None].astype(np.float32)
    carried = ends[first % width] * (1 - part) + ends[(first + 1) % width] * part
    facing = np.clip(np.cos(surface.angle) / 0.5, 0, 1) * (rows <= surface.cut_row + 8 // step)
    share = (
        facing * (has_edge[None] > 0) * np.clip((rows - last + last_rows) * step / 4, 0, 1) * (last >= 0) * (1 - known)
    )
    share = share * np.exp(-np.maximum(length - _CARRIED[0], 0) / _CARRIED[1]) * (1 - rim)
    share = wrapped_blur(share.astype(np.float32), 1.0 / step, 4.0 / step)
    return (fill + (carried - fill) * share[..., None]).astype(np.float32)


def _lowest(known: Float32[np.ndarray, "h w"], step: int) -> Int[np.ndarray, " w"]:
    """The lowest row of each column that is seen; -1 where next to nothing is."""
    solid = known > 0.5
    return np.where(solid.sum(0) > _EDGE_ROWS // step, len(known) - 1 - np.argmax(solid[::-1], axis=0), -1)


def _openings(ends: Float32[np.ndarray, "w 3"], known: Bool[np.ndarray, " w"]) -> tuple[float, float]:
    """How far from the front a garment opens to either side, columns; 0 where it is closed.

    Args:
        ends: lowest colours that are seen, by column; column 0 is the front.
        known: columns in which any are.
    """
    width = len(ends)
    logs = np.log(np.maximum(ends, 0) + _FLOOR)
    openings = []
    for sign in (1, -1):
        columns = sign * np.arange(width // 2)
        outer = columns[round(_OUTER[0] * width) : round(_OUTER[1] * width)]
        outer = outer[known[outer]]
        if not len(outer):
            return 0.0, 0.0
        other = np.abs(logs[columns] - np.median(logs[outer], axis=0)).max(-1) > _SAME
        inner = np.flatnonzero(other[: round(_MOST_OPEN * width)])
        openings.append(float(inner[-1] + 1) if len(inner) else 0.0)
    return openings[0], openings[1]


def _closed_in_front(
    offset: Float[np.ndarray, " w"], length: Float32[np.ndarray, "h w"], openings: tuple[float, float]
) -> Float[np.ndarray, "h w"]:
    """Columns that are carried to each texel: straight down inside the opening, over which its edges slide together.

    Args:
        offset: of each column from the front.
        length: below the picture's end, world units.
        openings: to the side of positive offsets, and to that of negative ones.
    """
    opening = np.where(offset >= 0, *openings)
    border = opening * np.clip(1 - length / _CLOSING, 0, 1)
    outside = np.abs(offset) > border
    return np.where(outside, np.sign(offset) * (np.abs(offset) + opening - border), offset)


def _filled_round(
    values: Float32[np.ndarray, "w 3"], known: Float32[np.ndarray, " w"], finest: float, step: int
) -> Float32[np.ndarray, "w 3"]:
    """Colours round the axis, smooth over `finest` texels of the whole atlas, gaps filled from ever farther away."""
    filled, mass_so_far = np.zeros_like(values), np.zeros_like(known)
    for sigma in (finest / step, 16.0 / step, 60.0 / step, 240.0 / step):
        total = wrapped_blur(np.repeat((values * known[:, None])[None], 2, axis=0), 0.5, sigma)[0]
        mass = wrapped_blur(np.repeat(known[None], 2, axis=0), 0.5, sigma)[0]
        share = np.clip(4 * mass, 0, 1) * (1 - mass_so_far)
        filled += total / np.maximum(mass, 1e-6)[:, None] * share[:, None]
        mass_so_far += share
    return filled / np.maximum(mass_so_far, 1e-6)[:, None]


def _difference(a: Float32[np.ndarray, "h w 3"], b: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Largest difference of log colours."""
    return np.abs(np.log((np.maximum(a, 0) + _FLOOR) / (np.maximum(b, 0) + _FLOOR))).max(-1)


def fine_only(
    detail: Float32[np.ndarray, "h w 3"], solid: Bool[np.ndarray, "h w"], step: int = 1
) -> Bool[np.ndarray, "h w"]:
    """Where detail is the cloth's own: not at buttons, letters, seams and edges of garments, which stand out."""
    if solid.sum() < _LEAST_EXAMPLE // step**2:
        return solid
    strength = wrapped_blur(np.where(solid, np.abs(detail).max(-1), 0).astype(np.float32), 3.0 / step, 3.0 / step)
    return solid & (strength < max(0.03, 1.6 * float(np.median(strength[solid][::7]))))


def random_phase_texture(
    detail: Float32[np.ndarray, "h w 3"], example: Bool[np.ndarray, "h w"], rng: np.random.Generator, step: int = 1
) -> Float32[np.ndarray, "h w 3"]:
    """A texture with the example's spectrum and random phases, closed over the columns.

    Source: Galerne, Gousseau and Morel, "Random Phase Textures: Theory and Synthesis", IEEE TIP 2011 (spot noise).

    Args:
        detail: logarithms of factors.
        example: where they may be learned from.
        rng: source of the noise.
        step: see `AtlasTexels.step`.
    """
    height, width = example.shape
    noise = rng.standard_normal((height, width)).astype(np.float32)
    count = int(example.sum())
    if count < _LEAST_EXAMPLE // step**2:
        plain = wrapped_blur(noise, 1.2 / step, 1.2 / step)
        return np.repeat((0.02 * plain / plain.std())[..., None], 3, axis=2)
    spot = np.where(example[..., None], detail - detail[example].mean(0), 0) / np.sqrt(count)
    fft: Any = scipy.fft  # its stubs are those of a dispatcher
    spectrum = fft.rfft2(noise)[..., None] * fft.rfft2(spot.astype(np.float32), axes=(0, 1))
    texture = np.asarray(fft.irfft2(spectrum, s=(height, width), axes=(0, 1)))
    typical = 1.48 * float(np.median(np.abs(detail[example])))  # of a normal distribution's standard deviation
    texture *= min(1.0, typical / max(float(texture.std()), 1e-6))
    return np.clip(texture, -_MOST_DETAIL, _MOST_DETAIL).astype(np.float32)

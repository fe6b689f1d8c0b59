"""What a portrait shows of a true field, with the errors that the real pipeline makes; no picture is drawn.

A portrait camera sees the field's surface as a small mesh: depth decides what is visible, the outline how thick the
cover is at the rim and how thick it can be at most elsewhere. Then come the errors: the head model does not fit, the
segmenter confuses materials in blobs, orientations are off by 15 to 35 degrees, light stays in the colours.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage

from ...cameras import UNITS_PER_MM, Cameras
from ...portrait.portrait import WIDE_FACTOR
from ...prior import capsule
from ...prior.field.chart import COLUMNS, MIRRORED, ROWS, cell_frames, from_blocks, smooth_noise
from ...prior.field.head_field import (
    CLOTH,
    COVERED,
    HAIR,
    HEADGEAR,
    KNOWN_FLOW,
    SKIN,
    THICKNESS_SCALE,
    HeadField,
    cells_from_world,
)
from ...prior.field.observed_field import ObservedField
from ...prior.field.seen_surface import BOUND_LEVELS, FRAMED_LEVEL, SeenSurface, first_standing_out
from ...prior.labels.portrait_labels import project_px
from ..portraits.portrait_shots import SHOT_FACTOR, portrait_camera

SHOT_PX = 160
"""Side of the pictures that outlines and depths are taken from."""
_RIM_STEP = 0.024
"""How far beside a cell the background must begin for it to be at the outline, world units."""
_EPS = 1e-3
_LEAST_HAIR_CELLS = 25
_MOST_SHEEN = 0.03
"""Light that hair throws back whatever its colour, linear."""
_LOWER_ROW = 26
"""Cloth lies below this row."""


@dataclass(frozen=True)
class ObservationErrors:
    """How often and how far the pipeline errs; rates are shares of portraits unless they say cells.

    Set by composed heads that went through the whole pipeline (`fitted_fields`), as docs/training.md says.
    """

    misfit_cells: float = 1.0
    """Deviation of the smooth shift between picture and chart, cells."""
    skull: float = 1.0
    """Share of the fitted skull's misfit, which is that of one of `skull_misfits`."""
    cloth_for_hair: float = 0.1
    """Hair and cloth are taken for each other in blobs low down."""
    hair_for_headgear: float = 0.15
    """All headgear is taken for hair."""
    headgear_for_hair: float = 0.08
    """A blob of hair is taken for headgear; half of the time all of it."""
    hair_for_skin: float = 0.1
    """Hair and skin are taken for each other in blobs."""
    hidden: float = 0.3
    """A blob is not seen at all: a hand, glare, the picture's edge."""
    lost_cells: float = 0.03
    """Share of single cells that are not seen."""
    doubt: tuple[float, float] = (0.0, 0.15)
    """How much of the shares is spread over all materials."""
    angle_deg: tuple[float, float] = (10.0, 32.0)
    """Deviation of the orientation, a bit more than half of its variance from cell to cell."""
    no_orientation: float = 0.12
    """No orientation is found: flat, blurred or black hair."""
    no_outline: float = 0.1
    """The outline is not to be trusted."""
    outline_mm: tuple[float, float, float] = (2.5, 8.0, 6.0)
    """By how much the outline is too far out: mean, deviation as a whole and from place to place, millimetres."""
    thickness_scaled: float = 0.06
    """Deviation of the bounds by the outline, on `THICKNESS_SCALE`."""
    camera_rad: float = 0.04
    """Deviation of the camera's direction along each axis."""
    light: float = 1.0
    """How strongly light and white balance stay in the colours."""

    @classmethod
    def none(cls) -> ObservationErrors:
        """A pipeline without errors."""
        none = (0.0, 0.0)
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, none, none, 0.0, 0.0, (0.0, 0.0, 0.0), 0.0, 0.0, 0.0)


def observe(
    field: HeadField,
    rng: np.random.Generator,
    errors: ObservationErrors = ObservationErrors(),
    camera: Cameras | None = None,
) -> ObservedField:
    """What a portrait shows of a field.

    Args:
        field: the truth.
        rng: draws the camera and the errors.
        errors: how much the pipeline errs.
        camera: of the portrait, `SHOT_FACTOR` times the standard frame; drawn if not given.
    """
    if camera is None:
        camera = portrait_camera(rng, SHOT_PX)
    frame_px = camera.width / SHOT_FACTOR * rng.uniform(1.0, WIDE_FACTOR)
    smooth = ndimage.gaussian_filter(field.outer_radius, 0.7, mode=capsule.WRAPPED)
    frames = cell_frames()
    points = frames.origins_world + frames.outward * smooth[..., None]
    surface = SeenSurface.of(camera, points)
    view = _View(camera, surface, frame_px)
    visible = view.inside & surface.visible(view.depth_at(surface.uv_px))
    visible &= rng.random(visible.shape) >= errors.lost_cells
    if rng.random() < errors.hidden:
        visible &= smooth_noise(rng) < 1.7
    sureness = visible * surface.sureness

    material = _confused(_shifted(field.material, rng, errors.misfit_cells), rng, errors)
    hair = visible & (material[HAIR] > 0.5) & (field.material[HAIR] > 0.5) & (field.flow_certainty > KNOWN_FLOW)
    orientation = _orientation(field, view, rng, errors)
    trusted = hair * (1 - field.disorder) * rng.uniform(0.5, 1.0) * (rng.random() >= errors.no_orientation)

    worn = field.material[HAIR] + field.material[HEADGEAR] >= COVERED
    outline = worn & view.at_outline & (rng.random() >= errors.no_outline)
    outline &= rng.random(outline.shape) >= (0.1 if errors.no_outline else 0.0)
    skull = np.maximum(field.skull_radius + errors.skull * _misfit(rng), 0)
    bias_mm, whole_mm, local_mm = errors.outline_mm
    beyond = (bias_mm + whole_mm * rng.standard_normal() + local_mm * smooth_noise(rng, 9, 12)) * UNITS_PER_MM
    seen_thickness = np.clip(field.outer_radius + beyond - skull, 0, None).astype(np.float32)
    bound, in_frame = view.bound(np.asarray(skull, np.float64))

    def unsure(length: Float32[np.ndarray, "56 64"]) -> Float32[np.ndarray, "56 64"]:
        noise = errors.thickness_scaled * smooth_noise(rng, 9, 12)
        return THICKNESS_SCALE.decode((THICKNESS_SCALE.encode(length) + noise).astype(np.float32))

    return ObservedField(
        skull_radius=skull.astype(np.float32),
        visibility=sureness.astype(np.float32),
        material=(material * visible).astype(np.float32),
        rgb=(_lit(field, surface.normals_world, rng, errors.light) * visible).astype(np.float32),
        orientation=(orientation * (trusted > 0)).astype(np.float32),
        orientation_certainty=trusted.astype(np.float32),
        thickness=seen_thickness * outline,
        thickness_certainty=outline.astype(np.float32),
        thickness_bound=unsure(bound),
        in_frame=in_frame.astype(np.float32),
        tokens=_tokens(field, trusted > 0, visible & (material[HAIR] > 0.5), rng, bool(errors.light)),
        towards_camera=_direction(camera, rng, errors.camera_rad),
    )


@dataclass(frozen=True)
class _View:
    """A surface of the chart as a camera sees it; grids are those of the chart."""

    camera: Cameras
    surface: SeenSurface
    frame_px: float
    """Side of the frame in the middle of the camera's picture."""

    def in_frame(self, uv_px: Float[np.ndarray, "*n 2"]) -> Bool[np.ndarray, "*n"]:
        """Whether pixels lie in the frame."""
        return (np.abs(uv_px - self.camera.width / 2) < self.frame_px / 2).all(-1)

    @property
    def inside(self) -> Bool[np.ndarray, "56 64"]:
        """Cells in the frame."""
        return self.in_frame(self.surface.uv_px)

    def depth_at(self, uv_px: Float[np.ndarray, "*n 2"]) -> Float32[np.ndarray, "*n"]:
        """Depth of what is seen at pixels; infinite at the background."""
        column, row = _whole(uv_px, self.camera.width)
        return self.surface.depth[row, column]

    @property
    def at_outline(self) -> Bool[np.ndarray, "56 64"]:
        """Cells seen at a grazing angle next to the background."""
        beside = project_px(self.camera, self.surface.points_world + _RIM_STEP * self.surface.normals_world)
        near = self.surface.beside_outline & self.inside & self.in_frame(beside)
        return near & ~np.isfinite(self.depth_at(beside))

    def bound(
        self, skull_radius: Float[np.ndarray, "56 64"]
    ) -> tuple[Float32[np.ndarray, "56 64"], Bool[np.ndarray, "56 64"]]:
        """Least thickness at which a cover would stand out of the outline, and whether the frame could show it."""
        frames = cell_frames()
        radii = skull_radius + BOUND_LEVELS[:, None, None]
        uv_px = project_px(self.camera, frames.origins_world + frames.outward * radii[..., None])
        framed = self.in_frame(uv_px)
        stands_out = framed & ~np.isfinite(self.depth_at(uv_px))
        return first_standing_out(stands_out, BOUND_LEVELS).astype(np.float32), framed[FRAMED_LEVEL]


@functools.lru_cache(maxsize=1)
def skull_misfits() -> Float32[np.ndarray, "n 56 64"]:
    """Radius of fitted less that of true skulls of composed heads of the training split, world units.

    They were measured on `fitted_fields`, and are kept as means over blocks of 4 x 4 cells.
    """
    with np.load(Path(__file__).with_name("skull_misfits.npz")) as file:
        blocks = file["misfit"].astype(np.float32)
    return np.stack([from_blocks(block) for block in blocks])


def _misfit(rng: np.random.Generator) -> Float32[np.ndarray, "56 64"]:
    """That of a random head, half of the time mirrored."""
    misfits = skull_misfits()
    misfit = misfits[rng.integers(len(misfits))]
    return misfit[:, MIRRORED] if rng.random() < 0.5 else misfit


def _whole(uv_px: Float[np.ndarray, "*n 2"], size: int) -> tuple[Int[np.ndarray, "*n"], Int[np.ndarray, "*n"]]:
    whole = np.clip(np.floor(uv_px), 0, size - 1).astype(np.int64)
    return whole[..., 0], whole[..., 1]


def _shifted(grids: Float32[np.ndarray, "k 56 64"], rng: np.random.Generator, cells: float) -> np.ndarray:
    """Grids as a head model sees them that lies a little elsewhere, place by place."""
    row, column = (np.rint(cells * smooth_noise(rng, 9, 12)).astype(int) for _ in range(2))
    rows = np.clip(np.arange(ROWS)[:, None] + row, 0, ROWS - 1)
    return grids[:, rows, (np.arange(COLUMNS) + column) % COLUMNS]


def _confused(material: np.ndarray, rng: np.random.Generator, errors: ObservationErrors) -> np.ndarray:
    """Shares of materials as a segmenter tells them apart."""
    result = material.copy()

    def swap(a: int, b: int, where: np.ndarray) -> None:
        result[a], result[b] = np.where(where, result[b], result[a]), np.where(where, result[a], result[b])

    low = np.arange(ROWS)[:, None] > _LOWER_ROW
    if rng.random() < errors.cloth_for_hair:
        swap(HAIR, CLOTH, low & (smooth_noise(rng) > 1.6))
    if rng.random() < errors.hair_for_headgear:
        result[HAIR] += result[HEADGEAR]
        result[HEADGEAR] = 0
    if rng.random() < errors.headgear_for_hair:
        everywhere = rng.random() < 0.5
        swap(HAIR, HEADGEAR, ~low & (everywhere | (smooth_noise(rng) > 1.4)))
    if rng.random() < errors.hair_for_skin:
        swap(HAIR, SKIN, smooth_noise(rng) > 1.9)
    doubt = rng.uniform(*errors.doubt)
    return np.clip((1 - doubt) * result / np.maximum(result.sum(0), 1e-6) + doubt / 4, 0, 1)


def _orientation(
    field: HeadField, view: _View, rng: np.random.Generator, errors: ObservationErrors
) -> Float[np.ndarray, "2 56 64"]:
    """Doubled angles of hair: turned in the picture by noise, then laid back onto the surface."""
    surface = view.surface

    def in_picture(vectors_world: np.ndarray) -> np.ndarray:
        return (project_px(view.camera, surface.points_world + _EPS * vectors_world) - surface.uv_px) / _EPS

    seen = in_picture(field.flow_world().astype(np.float64))
    sigma = math.radians(rng.uniform(*errors.angle_deg))
    turn = sigma * (math.sqrt(0.55) * rng.standard_normal((ROWS, COLUMNS)) + math.sqrt(0.45) * smooth_noise(rng, 9, 12))
    angle = np.arctan2(seen[..., 1], seen[..., 0]) + turn
    c, s = np.cos(angle), np.sin(angle)
    steps = [
        step / np.maximum(np.linalg.norm(step, axis=-1, keepdims=True), 1e-9) for step in (surface.down, surface.around)
    ]
    (a, b), (p, q) = (np.moveaxis(in_picture(step), -1, 0) for step in steps)
    sign = np.sign(a * q - b * p)
    on_surface = (sign * (c * q - s * p))[..., None] * steps[0] + (sign * (s * a - c * b))[..., None] * steps[1]
    down, around, _ = cells_from_world(on_surface.astype(np.float32))
    doubled = 2 * np.arctan2(around, down)
    return np.stack([np.cos(doubled), np.sin(doubled)])


def _lit(
    field: HeadField, normals: Float[np.ndarray, "56 64 3"], rng: np.random.Generator, strength: float
) -> Float[np.ndarray, "3 56 64"]:
    """Colours of what is outermost in a random light, sRGB."""
    skin, hair, headgear, cloth = field.material[:, None]
    albedo = skin * field.skin_albedo + (hair + headgear) * field.cover_albedo + cloth * field.cloth_albedo
    towards = np.array([rng.normal(0, 0.7), rng.normal(0.4, 0.4), 1.0])
    cosine = np.clip(normals @ (towards / np.linalg.norm(towards)), 0, None)
    ambient = rng.uniform(0.3, 0.9)
    light = (ambient + (1 - ambient) * 1.3 * cosine) * np.exp(rng.normal(-0.1, 0.35))
    balance = np.exp(rng.normal(0, 0.07, 3))[:, None, None]
    lit = np.clip(albedo, 0, 1) ** 2.2 * (light[None] * balance) ** strength
    lit = lit + strength * hair * rng.uniform(0, _MOST_SHEEN) * light
    return np.clip(lit ** (1 / 2.2) + 0.02 * strength * rng.standard_normal(albedo.shape), 0, 1)


def _tokens(
    field: HeadField, oriented: np.ndarray, hair: np.ndarray, rng: np.random.Generator, noisy: bool
) -> Float32[np.ndarray, " 4"]:
    """Curl where enough orientation is seen, share of grey and contrast where enough hair is; clumping never."""
    noise = rng.normal(0, (0.06, 0, 0.1, 0.03)) * noisy
    known = np.array([oriented.sum() > _LEAST_HAIR_CELLS, False, *2 * [hair.sum() > _LEAST_HAIR_CELLS]])
    return np.where(known, np.clip(field.tokens + noise, 0, 1), np.nan).astype(np.float32)


def _direction(camera: Cameras, rng: np.random.Generator, sigma_rad: float) -> Float32[np.ndarray, " 3"]:
    at = camera.position_world[0].numpy()
    estimated = at / np.linalg.norm(at) + sigma_rad * rng.standard_normal(3)
    return (estimated / np.linalg.norm(estimated)).astype(np.float32)
